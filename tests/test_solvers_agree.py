"""Every solver keeps the promises of solvers/equilibrium.py on every problem, and all reach the
same equilibrium.

What they reach is judged by tests/oracles.py, which knows no solver. Model facts 1, 2, 3 and 7
(the numbers of promises are those of solvers/equilibrium.py).
"""

from __future__ import annotations

import itertools

import numba
import numpy as np
import oracles
import problems
import pytest
from problems import problem, random_problem

from fsp_dynamics.errors import NotConvergedError
from fsp_dynamics.models.builders import loop_network
from fsp_dynamics.models.network import loop_gain
from fsp_dynamics.models.rate import Nudge, drive, flatten
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.solvers.equilibrium import Solver, Status, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.solvers.reference import ReferenceSolver
from fsp_dynamics.torch_backend.fixed_point import TorchFixedPointSolver
from fsp_dynamics.torch_backend.ode import TorchSolver

SOLVERS = {
    "reference": ReferenceSolver(),
    "reference-projected": ReferenceSolver("rk4", dt=0.5),
    "numba": NumbaSolver(),
    "numba-projected": NumbaSolver("euler", dt=0.1),
    "numba-rate": NumbaSolver("bosh3", form="rate"),
    "numba-controlled-projected": NumbaSolver(form="projected"),
    "torch": TorchSolver(),
    "torch-constant": TorchSolver("rk4", dt=0.5),
    "broyden": make_solver("fixed_point", method="broyden"),
    "anderson": make_solver("fixed_point", method="anderson"),
    "picard": make_solver("fixed_point", method="picard"),
    "newton": make_solver("fixed_point", method="newton"),
    "torch-broyden": make_solver("torch_fixed_point", method="broyden"),
    "torch-anderson": make_solver("torch_fixed_point", method="anderson"),
}
NETS = 1000
if numba.config.DISABLE_JIT:  # the same code as plain Python, a thousand times slower
    NETS = 48
    SOLVERS = {
        name: solver for name, solver in SOLVERS.items() if not name.startswith(("numba-", "torch"))
    }  # torch has no compiler to do without

EVERY_SOLVER = pytest.mark.parametrize("name", SOLVERS)
EVERY_PROBLEM = pytest.mark.parametrize("where", problems.NAMES)
EVERY_PHASE = pytest.mark.parametrize("phase", problems.PHASES)


def solver_for(name, p) -> Solver:
    """The solver of that name; Newton's and Broyden's methods are for loops of hard sigmoids and
    leave the other problems out.
    """
    if name.endswith(("newton", "broyden")) and (p.network.loop is None or not p.network.rho.projected):
        pytest.skip(f"{name} needs a loop and a hard sigmoid")
    return SOLVERS[name]


def tight(p):
    """A tolerance well below the agreement asked for, and above rounding: a float32 state does not
    move by less than 3e-8 a step.
    """
    return Tolerance(2e-6 if p.network.dtype == np.float32 else 2e-14)


def distance(state, known):
    """Largest difference of any unit of each sample, (B,)."""
    return np.abs(flatten(state) - flatten(known)).max(axis=1)


def arrays_of(p, start, nudge):
    return [*p.network.parameters().values(), p.drive, *(start or ()), *([] if nudge is None else [nudge.target])]


@EVERY_PHASE
@EVERY_PROBLEM
@EVERY_SOLVER
def test_every_solver_reaches_the_equilibrium(name, where, phase, dtype):
    """Fact 1, and promises 1, 3 and 4."""
    p = problem(where, dtype)
    solver, nudge = solver_for(name, p), p.nudges[phase]
    inputs = arrays_of(p, None, nudge)
    before = [a.copy() for a in inputs]
    found = solver.relax(p.network, p.drive, None, nudge, tight(p)).require_converged()
    assert distance(found.state, p.known[phase]).max() <= p.agreement
    assert {s.dtype for s in found.state} == {np.dtype(dtype)}
    residual = oracles.residual(p.network, p.images, found.state, nudge)
    assert (residual <= tight(p).absolute + 50 * np.finfo(dtype).eps).all()
    again = solver.relax(p.network, p.drive, found.state, nudge, tight(p))
    assert again.steps.tolist() == [0] * p.batch
    np.testing.assert_array_equal(flatten(again.state), flatten(found.state))
    for a, b in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("where", ["saturated", "strong", "time-constants", "tied", "logistic"])
@EVERY_SOLVER
def test_a_tighter_tolerance_tightens_the_residual(name, where, dtype):
    """Promise 1, with the default tolerance among them."""
    p = problem(where, dtype)
    solver, nudge = solver_for(name, p), p.nudges["nudged"]
    for tolerance in (Tolerance(1e-2), Tolerance(1e-4), Tolerance(0.0, 1e-5), Tolerance.default(dtype)):
        found = solver.relax(p.network, p.drive, None, nudge, tolerance).require_converged()
        residual = oracles.residual(p.network, p.images, found.state, nudge)
        bound = tolerance.bound(np.linalg.norm(flatten(found.state).astype(float), axis=1))
        assert (residual <= bound + 50 * np.finfo(dtype).eps).all()
        np.testing.assert_allclose(found.residual, residual, rtol=1e-3, atol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize("where", ["saturated", "strong", "tied", "shifted_tanh"])
@EVERY_SOLVER
def test_a_sample_does_not_depend_on_its_neighbours(name, where, dtype):
    """Promise 2: alone, or beside samples in another order of which one is not finite. (Bits:
    tests/solvers/test_numba_ode.py.)
    """
    p = problem(where, dtype)
    solver, nudge = solver_for(name, p), p.nudges["nudged"]
    whole = solver.relax(p.network, p.drive, None, nudge, tight(p))
    order = np.arange(p.batch)[::-1]
    other = solver.relax(p.network, p.drive[order], None, nudge.rows(order), tight(p))
    assert distance(tuple(s[order] for s in other.state), whole.state).max() <= p.agreement
    spoilt = p.drive.copy()
    spoilt[1] = np.nan
    beside = solver.relax(p.network, spoilt, None, nudge, tight(p))
    assert beside.status.tolist() == [Status.NOT_FINITE if i == 1 else Status.CONVERGED for i in range(p.batch)]
    assert np.delete(distance(beside.state, whole.state), 1).max() <= p.agreement


@pytest.mark.parametrize("where", ["interior", "tied", "logistic"])
@EVERY_SOLVER
def test_no_samples_are_no_work_and_no_failure(name, where):
    p = problem(where)
    found = solver_for(name, p).relax(p.network, p.drive[:0], None, p.nudges["nudged"].rows(np.arange(0)), tight(p))
    assert [s.shape for s in found.state] == [(0, n) for n in p.network.sizes[1:]]
    assert [len(each) for each in (found.residual, found.status, found.steps)] == [0, 0, 0]


@EVERY_SOLVER
def test_no_rest_is_reported_with_what_was_reached(name):
    """Promise 5: a ring beyond its threshold oscillates for ever."""
    p = problems.ring(3, 20.0)
    start = tuple(np.linspace(0.2, 0.4, p.batch)[:, None] + k / 10 for k in range(3))
    kinds = {
        ReferenceSolver: {"max_steps": 300},
        NumbaSolver: {"max_steps": 300},
        FixedPointSolver: {"fallback": NumbaSolver(max_steps=300)},
    }
    kinds |= {TorchSolver: {"max_steps": 300}, TorchFixedPointSolver: {"fallback": NumbaSolver(max_steps=300)}}
    solver = SOLVERS[name]
    kept = {f: getattr(solver, f) for f in ("method", "dt", "form") if hasattr(solver, f)}
    found = type(solver)(**kept, **kinds[type(solver)]).relax(p.network, p.drive, start)
    assert set(found.status) == {Status.OSCILLATES}
    projected = getattr(solver, "dt", None) is not None or getattr(solver, "form", None) == "projected"
    literal = projected and not isinstance(solver, TorchSolver)
    np.testing.assert_allclose(found.period, 2.80 if literal else 3.439, rtol=0.06)
    with pytest.raises(NotConvergedError, match="3 of 3 samples have not converged") as refusal:
        found.require_converged()
    assert refusal.value.equilibrium is found


def contracting(p, phase):
    """The factor by which the gain round the loop, to the power 1/L, stays below 1: above 1
    nothing is promised (fact 3).
    """
    leak = 1 + (0 if p.nudges[phase] is None else min(0.0, p.nudges[phase].beta))
    return (loop_gain(p.network) / leak) ** (1 / p.network.depth)


def random_case(seed, dtype):
    """(problem, phase), the loop weakened where the field would not contract well; every third has
    Glorot weights otherwise.
    """
    p, phase = random_problem(seed, np.float64), problems.PHASES[seed // 4 % 3]
    if seed % 3 == 0:
        network = loop_network(p.network.sizes, dtype=np.float64, rng=seed)
        network = network.with_parameters({f"biases[{k}]": b for k, b in enumerate(p.network.biases)})
        p = problems.Problem(f"glorot-{seed}", network, p.images, p.nudges)
    loop = p.network.loop * min(1.0, (0.85 / contracting(p, phase)) ** p.network.depth)
    nudge = p.nudges[phase]
    nudge = None if nudge is None else Nudge(nudge.beta, nudge.target.astype(dtype))
    return problems.Problem(
        p.name, p.network.with_parameters({"loop": loop}).astype(dtype), p.images.astype(dtype), {phase: nudge}
    ), phase


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.rare) for part in (1, 2, 3))])
def test_a_thousand_random_nets(part, dtype):
    """Fact 1 to 1e-12 and 1e-5: integrating in both forms, sweeping, Newton; the reference on
    some. Saturated units occur at both ends.
    """
    worst, low, high = dict.fromkeys(SOLVERS, 0.0), 0, 0
    for seed in range(part, NETS, 4):
        p, phase = random_case(seed, dtype)
        known = oracles.equilibrium(p.network, p.images, p.nudges[phase])
        low, high = low + (flatten(known) == 0).sum(), high + (flatten(known) == 1).sum()
        tolerance = Tolerance(max(p.agreement * (1 - contracting(p, phase)) / 5, 12 * np.finfo(dtype).eps))
        for name, solver in SOLVERS.items():
            if name.startswith(("reference", "torch")) and seed // 4 % 25:
                continue
            found = solver.relax(p.network, p.drive, None, p.nudges[phase], tolerance)
            assert found.converged.all(), (name, p.name, phase, found.residual, tolerance)
            worst[name] = max(worst[name], distance(found.state, known).max())
    assert max(worst.values()) <= problems.AGREEMENT[np.dtype(dtype)], worst
    assert min(low, high) > NETS / 4


@pytest.mark.parametrize("where", [n for n in problems.HARD if n not in ("tied", "untied")])
@EVERY_PHASE
def test_the_loop_is_a_fixed_point_in_its_outputs(where, phase, dtype):
    """Fact 2: one pass y -> hidden layers -> y reproduces the outputs converged."""
    p = problem(where, dtype)
    nudge, r = p.nudges[phase], p.network.time_constants
    found = NumbaSolver().relax(p.network, p.drive, None, nudge, tight(p)).require_converged()
    s = np.clip(r[0] * (p.drive + np.clip(found.output, 0, 1) @ p.network.loop), 0, 1)
    for k in range(1, p.network.depth - 1):
        s = np.clip(r[k] * (s @ p.network.forward[k - 1] + p.network.biases[k]), 0, 1)
    beta, d = (0.0, 0.0) if nudge is None else (nudge.beta, nudge.target)
    y = np.clip((s @ p.network.forward[-1] + p.network.biases[-1] + beta * d) / (1 / r[-1] + beta), 0, 1)
    gain = max(1.0, loop_gain(p.network))
    assert np.abs(y - found.output).max() <= gain * (5e-6 if dtype == np.float32 else 1e-13)


def block_norm(network, states):
    """max_k ||s_k|| / d_k over a flat (..., N), with d chosen so that every connection has the
    gain q = g^(1/L).
    """
    q = loop_gain(network) ** (1 / network.depth)
    d = list(
        itertools.accumulate(
            (np.linalg.norm(w, 2) / q for w in network.forward), lambda x, ratio: x * ratio, initial=1.0
        )
    )
    return np.max(
        [np.linalg.norm(s, axis=-1) / x for s, x in zip(oracles.split(network, states), d, strict=True)], axis=0
    )


@pytest.mark.parametrize("seed", range(12))
def test_contraction_bounds_error_and_settling_time(seed):
    """Fact 3: for g < 1 the equilibrium is unique, reached at rate 1 - g^(1/L), and error <=
    residual / (1 - g^(1/L)).
    """
    p = random_problem(seed)
    rest = flatten(oracles.equilibrium(p.network, p.images))
    rate = problems.contraction(p.network)
    rng = np.random.default_rng(seed)
    start = tuple(rng.uniform(-1, 2, s.shape) for s in oracles.split(p.network, rest))
    times = np.linspace(0, 12, 25)
    path = NumbaSolver().follow(p.network, p.drive, start, None, times)
    distances = np.array([block_norm(p.network, s - rest) for s in path])
    allowed = distances[0] * np.exp(-rate * times)[:, None]
    assert (distances <= allowed * (1 + 1e-7) + 1e-7).all()
    for state, gone in zip(path, distances, strict=True):
        field = np.concatenate(oracles.rate_field(p.network, p.images, oracles.split(p.network, state)), axis=1)
        assert (gone <= block_norm(p.network, field) / rate * (1 + 1e-9) + 1e-13).all()
    eps = 1e-6
    settled = np.log(distances[0] / eps) / rate
    last = NumbaSolver().follow(p.network, p.drive, start, None, [0.0, settled.max()])[1]
    assert (block_norm(p.network, last - rest) <= eps + 1e-7).all()


@pytest.mark.parametrize("where", ["saturated", "strong", "deep", "time-constants", "tied", "logistic"])
@EVERY_PHASE
def test_equilibria_do_not_depend_on_the_step(where, phase, dtype):
    """Fact 7: in both forms, with every stable constant step of every method."""
    p = problem(where, dtype)
    for method, form, dt in itertools.product(
        ("euler", "heun", "rk4", "dopri5"), ("projected", "rate"), (0.2, 0.4, 0.8)
    ):
        if numba.config.DISABLE_JIT and (dt == 0.2 or method in ("rk4", "dopri5")):
            continue
        found = (
            NumbaSolver(method, dt=dt, form=form)
            .relax(p.network, p.drive, None, p.nudges[phase], tight(p))
            .require_converged()
        )
        assert distance(found.state, p.known[phase]).max() <= p.agreement, (method, form, dt)


@EVERY_SOLVER
def test_a_satisfied_output_is_not_moved(name, dtype):
    """Fact 5: where the free output is its target exactly, the nudged phase begins, and ends, at
    the free state.
    """
    p = problem("satisfied", dtype)
    free = SOLVERS[name].relax(p.network, p.drive, None, None, tight(p)).require_converged()
    exact = tuple(known.astype(dtype) for known in p.known["free"])
    for state in (free.state, exact):
        nudge = Nudge(0.7, state[-1].copy())
        nudged = SOLVERS[name].relax(p.network, p.drive, state, nudge, Tolerance(2 * tight(p).absolute))
        assert nudged.steps.tolist() == [0] * p.batch
        np.testing.assert_array_equal(flatten(nudged.state), flatten(state))


def test_the_entrance_takes_any_solver_by_name(dtype):
    from fsp_dynamics.solvers import relax

    p = problem("strong", dtype)
    for solver in (None, "fixed_point", "numba_ode", "reference", NumbaSolver("bosh3")):
        found = relax(p.network, p.images, solver=solver, tolerance=tight(p))
        assert distance(found.state, p.known["free"]).max() <= p.agreement
    np.testing.assert_array_equal(p.drive, drive(p.network, p.images))
