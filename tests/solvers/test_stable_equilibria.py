"""Converged means that the dynamics stay: the eigenvalues that decide it, the doubts that lead to
the test, and what becomes of an equilibrium that is not stable. Judged by dense Jacobians from the
sums of tests/oracles.py, which share no code with the solvers.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import oracles
import problems
import pytest

from fsp_dynamics import relax
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.learning.rules.hebbian import hebbian_update
from fsp_dynamics.models.activations import ACTIVATIONS, Activation
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.rate import Nudge, drive, flatten, zero_state
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.solvers.equilibrium import Status, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.solvers.oscillation import recurrence
from fsp_dynamics.solvers.packed_layers import relax_layers_together
from fsp_dynamics.solvers.reference import ReferenceSolver
from fsp_dynamics.solvers.response import unsaturated
from fsp_dynamics.solvers.stability import abscissa, always_stable, stable
from fsp_dynamics.torch_backend.fixed_point import TorchFixedPointSolver
from fsp_dynamics.torch_backend.ode import TorchSolver
from fsp_dynamics.training.recipe import Recipe

KINDS = ("hard", "logistic", "shifted_tanh", "tied", "untied", "smooth", "unequal")


def strong_network(seed, kind, scale=None):
    """A small network of that kind whose weights are up to 30 times Glorot's."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    sizes = [3, *(int(n) for n in rng.integers(2, 7, rng.integers(1, 4))), 3]
    r = tuple(float(x) for x in rng.uniform(0.2, 3.0, len(sizes) - 1)) if kind == "unequal" else 1.0
    settings = {"dtype": np.float64, "rng": seed, "time_constants": r}
    if kind in ("tied", "untied", "smooth"):
        rho = "logistic" if kind == "smooth" else "hard_sigmoid"
        network = reciprocal_network(sizes, tied=kind != "untied", rho=rho, **settings)
    else:
        network = loop_network(sizes, rho=kind if kind in ("logistic", "shifted_tanh") else "hard_sigmoid", **settings)
    scale = 10 ** rng.uniform(-0.3, 1.5) if scale is None else scale
    weights = {name: scale * w for name, w in network.parameters().items() if w.ndim > 1}
    biases = {f"biases[{k}]": rng.normal(0, 0.5, b.shape) for k, b in enumerate(network.biases)}
    return network.with_parameters(weights | biases), rng.random((4, 3))


def dense_abscissa(network, images, state, nudge=None):
    """The largest real part over all N eigenvalues of p_j w_ij p_i - [leak + beta - rho'' a]."""
    whole, ends = oracles.coupling(network)
    a, name = np.concatenate(oracles.total_input(network, images, state), axis=1), network.rho.name
    kappa = np.repeat(1 / np.array(network.time_constants), np.diff(ends))
    pull = np.zeros(a.shape)
    if nudge is not None:
        kappa[ends[-2] :] += nudge.beta
        pull[:, ends[-2] :] = nudge.beta * nudge.target
    found, flat = [], np.concatenate(state, axis=1)
    for b in range(len(images)):
        if name == "hard_sigmoid":
            aim = (a[b] + pull[b]) / kappa
            p, decay = ((aim > 0) & (aim < 1)).astype(float), kappa
        else:
            h = 1e-5
            p = np.array([oracles.slope(name, s) for s in flat[b]])
            bend = np.array([(oracles.slope(name, s + h) - oracles.slope(name, s - h)) / (2 * h) for s in flat[b]])
            decay = kappa - bend * a[b]
        found.append(np.linalg.eigvals(p[:, None] * whole.T * p - np.diag(decay)).real.max())
    return np.array(found)


def nudge_of(seed, batch=4, outputs=3):
    rng = np.random.default_rng(seed)
    return Nudge(rng.choice([0.5, 2.0, -0.2]), np.eye(outputs)[rng.integers(0, outputs, batch)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_abscissa_is_that_of_the_whole_jacobian(kind) -> None:
    """Time constants, the nudge's leak and every firing rate included."""
    seen = []
    for seed in range(25):
        network, images = strong_network(seed, kind)
        for nudge in (None, nudge_of(seed)):
            # any states: the formulas hold there as well
            state = tuple(np.random.default_rng(seed).random((4, n)) for n in network.sizes[1:])
            if network.rho.projected:  # the units of the first sample are inside (0, 1)
                a = oracles.total_input(network, images, state)
                wanted = [0.3 / r - a_k[0] for a_k, r in zip(a, network.time_constants, strict=True)]
                biases = {f"biases[{k}]": b + w for k, (b, w) in enumerate(zip(network.biases, wanted, strict=True))}
                network = network.with_parameters(biases)
            known, constant = dense_abscissa(network, images, state, nudge), drive(network, images)
            found = abscissa(network, state, nudge, constant)
            np.testing.assert_allclose(found, known, atol=1e-5 * (1 + abs(known)).max())
            clear = abs(known) > 1e-4
            assert (stable(network, state, nudge, constant) == (known < 0))[clear].all()
            seen += list(known[clear] < 0)
    assert 10 < sum(seen) < len(seen) - 10, "both kinds occur"


def test_an_output_that_is_zero_but_for_an_integrator_s_last_digits_is_saturated() -> None:
    network, images = strong_network(3, "hard", 1.0)
    network = network.with_parameters({f"biases[{network.depth - 1}]": np.array([-9.0, 0.2, 0.2])})
    found = relax(network, images)
    state = (*found.state[:-1], np.where(found.output == 0, 1e-20, found.output))
    assert (state[-1][:, 0] == 1e-20).all()
    inside = unsaturated(network, state, None, drive(network, images))
    assert not inside[-1][:, 0].any()
    np.testing.assert_allclose(
        abscissa(network, state, None, drive(network, images)), dense_abscissa(network, images, found.state), atol=1e-9
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_bound_proves_is_true(kind) -> None:
    """Wherever it holds, any state is a stable one."""
    proved = 0
    for seed in range(60):
        network, images = strong_network(seed, kind, 0.02 * 1.15**seed)
        for nudge in (None, nudge_of(seed)):
            if not always_stable(network, nudge, drive(network, images)):
                continue
            proved += 1
            rng = np.random.default_rng(seed)
            for spread in (0.5, 5.0):
                state = tuple(rng.normal(0.5, spread, (4, n)) for n in network.sizes[1:])
                assert (dense_abscissa(network, images, state, nudge) < 0).all()
    assert proved > 20


SOLVERS = {
    "broyden": make_solver(),
    "newton": make_solver(method="newton"),
    "anderson": make_solver(method="anderson"),
    "picard": make_solver(method="picard"),
    "numba": NumbaSolver(),
    "numba-euler": NumbaSolver("euler", dt=0.1),
    "reference": ReferenceSolver(),
    "torch-broyden": TorchFixedPointSolver(fallback=NumbaSolver()),
    "torch-anderson": TorchFixedPointSolver("anderson", fallback=NumbaSolver()),
    "torch-picard": TorchFixedPointSolver("picard", fallback=NumbaSolver()),
    "torch-ode": TorchSolver(),
}


def two_wells(kind):
    """A network with a saddle at 1/2 for every unit, and that state."""
    if kind == "loop":
        network = loop_network([1, 1, 1], dtype=np.float64, rng=0)
        weights = {"forward[0]": np.ones((1, 1)), "loop": np.full((1, 1), 3.0), "biases[0]": np.array([-1.0])}
    elif kind == "reciprocal":
        network = reciprocal_network([1, 1, 1], dtype=np.float64, rng=0)
        weights = {"forward[0]": np.full((1, 1), 2.0), "biases[0]": np.array([-0.5]), "biases[1]": np.array([-0.5])}
    else:
        network = loop_network([1, 1, 1], dtype=np.float64, rng=0, rho="shifted_tanh")
        weights = {"forward[0]": np.full((1, 1), 8.0), "loop": np.full((1, 1), 8.0), "biases[0]": np.array([-4.0])}
        weights["biases[1]"] = np.array([-4.0])
    weights["input"] = np.zeros((1, 1))
    middle = 0.5 if kind != "smooth" else 0.0
    return network.with_parameters(weights), tuple(np.full((2, 1), middle) for _ in range(2))


@pytest.mark.parametrize("kind", ["loop", "reciprocal", "smooth"])
@pytest.mark.parametrize("name", SOLVERS)
def test_no_solver_ends_on_a_saddle(name, kind) -> None:
    """Started exactly on it, where the field is 0; and beside it."""
    if name.endswith(("newton", "broyden")) and kind != "loop":
        pytest.skip(f"{name} needs a loop and a hard sigmoid")
    network, saddle = two_wells(kind)
    images = np.zeros((2, 1))
    constant = drive(network, images)
    assert (dense_abscissa(network, images, saddle) > 0.1).all()
    beside = tuple(s + np.array([[1e-9], [-1e-9]]) for s in saddle)
    for start in (saddle, beside):
        found = SOLVERS[name].relax(network, constant, start, None, Tolerance(1e-9))
        assert (found.status == Status.CONVERGED).all()
        assert (dense_abscissa(network, images, found.state) < 0).all()
        assert np.abs(flatten(found.state) - flatten(saddle)).min() > 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_no_equilibrium_of_strong_networks_is_unstable(kind) -> None:
    """The default solver, both phases, free and from the free equilibrium."""
    for seed in range(40):
        network, images = strong_network(seed, kind)
        free = relax(network, images)
        nudge = nudge_of(seed)
        nudge = nudge if nudge.beta > -1 / network.time_constants[-1] else Nudge(0.5, nudge.target)
        for found, pull in ((free, None), (relax(network, images, nudge=nudge, start=free), nudge)):
            known = dense_abscissa(network, images, found.state, pull)
            assert (known[found.converged] < 1e-9).all(), (seed, pull)


def test_passes_never_miss_an_unstable_equilibrium_of_larger_networks() -> None:
    """Equilibrium propagation on 64 pixels: what passes alone converge to is doubted wherever it is
    unstable. (11,235 samples with 191 unstable equilibria were seen without one missed.)
    """
    unstable, rng = 0, np.random.default_rng(0)
    cases = (([64, 100, 10], 1.4, True), ([64, 60, 60, 10], 3.0, True), ([64, 60, 60, 10], 2.0, False))
    for sizes, scale, tied in cases:
        network = reciprocal_network(sizes, rng=1, tied=tied, forward_scale=scale, dtype=np.float64)
        images = rng.random((60, 64)) * (rng.random((60, 64)) < 0.4)
        constant = drive(network, images)
        for nudge in (None, Nudge(0.5, np.eye(10)[rng.integers(0, 10, 60)])):
            start = zero_state(network, 60)
            found, doubts = relax_layers_together(network, constant, start, False, nudge, Tolerance(1e-3), 60, 5)
            leaves = found.converged & ~stable(network, found.state, nudge, constant)
            assert (doubts[leaves] > 0).all()
            unstable += leaves.sum()
    assert unstable >= 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [None, "anderson", "picard"])
def test_status_and_bits_do_not_depend_on_the_batch(method, kind) -> None:
    solver = make_solver(method=method)
    for seed in range(12):
        network, images = strong_network(seed, kind)
        constant = drive(network, images)
        whole = solver.relax(network, constant)
        for b in range(len(images)):
            alone = solver.relax(network, constant[b : b + 1])
            assert alone.status[0] == whole.status[b]
            assert flatten(alone.state)[0].tobytes() == flatten(whole.state)[b].tobytes()


@pytest.mark.parametrize("unit", [2.0**-10, 64.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["default", "anderson", "numba", "torch-ode"])
def test_another_unit_of_time_is_the_same_network(name, kind, unit) -> None:
    """With r in units of `unit`, weights, biases and beta are per that unit: the same samples
    converge after as many steps at the same states. (A power of two changes no rounding.)
    """
    solver = SOLVERS.get(name, make_solver())
    for seed in range(1 if name == "torch-ode" else 8):
        network, images = strong_network(seed, kind)
        other = network.with_parameters({key: w / unit for key, w in network.parameters().items()})
        other = dataclasses.replace(other, time_constants=tuple(r * unit for r in network.time_constants))
        target = np.eye(3)[[0, 1, 2, 0]]
        for beta in (None, 0.7):
            nudges = (None, None) if beta is None else (Nudge(beta, target), Nudge(beta / unit, target))
            both = zip((network, other), nudges, strict=True)
            one, two = (solver.relax(net, drive(net, images), None, nudge) for net, nudge in both)
            assert one.status.tolist() == two.status.tolist(), (seed, beta)
            np.testing.assert_allclose(flatten(two.state), flatten(one.state), atol=1e-12)
            assert one.steps.tolist() == two.steps.tolist()
            if one.period is not None:
                np.testing.assert_allclose(two.period, one.period * unit, rtol=1e-9)


def test_fast_constants_and_a_clamped_output_converge_in_float32() -> None:
    """Rounding of a field that is large because time is measured in large units is no distance."""
    images = np.random.default_rng(0).random((20, 12), np.float32)
    base, target = loop_network([12, 30, 30, 4], rng=0, loop_scale=0.2), np.eye(4, dtype=np.float32)[np.arange(20) % 4]
    truth = relax(base.astype(np.float64), images, tolerance=Tolerance(1e-13)).output
    for r in (1e-4, 0.01, 1000.0):
        faster = {key: (w / np.float32(r)).astype(np.float32) for key, w in base.parameters().items()}
        network = dataclasses.replace(base.with_parameters(faster), time_constants=(r,) * 3)
        for solver in ("fixed_point", "numba_ode"):
            found = relax(network, images, solver=solver).require_converged()
            assert np.abs(found.output - truth).max() < 3e-5
    for beta in (1e3, 1e6):
        assert relax(base, images, nudge=Nudge(beta, target)).converged.all()


def test_a_tolerance_below_rounding_ends_at_rounding() -> None:
    for dtype in (np.float32, np.float64):
        network = loop_network([5, 6, 3], rng=0, dtype=dtype)
        found = relax(network, np.random.default_rng(0).random((4, 5)), tolerance=Tolerance(1e-30)).require_converged()
        assert found.residual.max() <= 2 * np.finfo(dtype).eps * 3
    assert Tolerance(1e-30).attainable(np.float64, 9) == Tolerance(6 * np.finfo(np.float64).eps)
    assert Tolerance(1e-4).attainable(np.float32, 9) == Tolerance(1e-4)


def test_beta_is_held_against_the_tolerance() -> None:
    """Relaxation errors are divided by beta: refused where they drown what the nudge moves."""
    network = loop_network([4, 5, 3], rng=0)
    optimiser = Sgd(LearningRates(1.0, (1.0,), 1.0))
    for beta, unit in ((1e-5, 1.0), (1e-8, 1e-3)):
        slow = dataclasses.replace(network, time_constants=(1 / unit,) * 2)
        with pytest.raises(ConfigurationError, match=r"beta = .* moves an output by at most .*raise beta"):
            Recipe(optimiser, make_solver(), Tolerance(1e-4), beta=beta).check(slow)
    enough = Recipe(optimiser, make_solver(), Tolerance(1e-4), beta=1e-3)
    enough.check(network)
    assert enough.relaxation_error(network) == pytest.approx(0.1001)
    images, target = np.random.default_rng(0).random((6, 4), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2] * 2]
    free = relax(network, images)
    for beta in (1e-8, 1e-5):
        with pytest.warns(RuntimeWarning, match="much of the update is relaxation error; raise beta"):
            hebbian_update(network, images, free, relax(network, images, nudge=Nudge(beta, target), start=free))


def test_a_certificate_on_request() -> None:
    p = problems.ring(3, 20.0)
    found = relax(p.network, p.images, certify=True)
    assert found.abscissa is not None
    assert (found.abscissa[found.converged] < 0).all()
    assert np.isnan(found.abscissa[~found.converged]).all()
    network, images = strong_network(5, "untied", 1.0)
    nudge = Nudge(0.5, np.eye(3)[[0, 1, 2, 0]])
    for pull in (None, nudge):
        found = relax(network, images, nudge=pull, certify=True)
        np.testing.assert_allclose(found.abscissa, dense_abscissa(network, images, found.state, pull), atol=1e-9)
        assert found.rows(np.array([2])).abscissa == found.abscissa[2]
        assert found.to_frame()["abscissa"].iloc[0] == found.abscissa[0]
    assert relax(network, images).abscissa is None


def test_a_firing_rate_without_curvature_is_tested_too() -> None:
    own = Activation("own", ACTIVATIONS["shifted_tanh"].rate, ACTIVATIONS["shifted_tanh"].slope)
    network, saddle = two_wells("smooth")
    network = dataclasses.replace(network, rho=own)
    found = make_solver().relax(network, drive(network, np.zeros((2, 1))), saddle)
    assert found.converged.all()
    assert np.abs(flatten(found.state)).min() > 0.2


def silent_pair(weight, bias=0.0):
    """Two units that excite each other, without images, and their biases."""
    network = reciprocal_network([1, 1, 1], dtype=np.float64, rng=0)
    biases = {f"biases[{k}]": np.full(1, bias) for k in (0, 1)}
    return network.with_parameters({"input": np.zeros((1, 1)), "forward[0]": np.full((1, 1), weight), **biases})


@pytest.mark.parametrize("name", ["fixed_point", "numba_ode", "reference", "torch_fixed_point", "torch_ode"])
@pytest.mark.parametrize(
    ("weight", "bias", "expected"),
    [
        (2.0, 0.0, 1.0),  # silence is left: each of the two wakes the other
        (2.0, -1e-9, 0.0),  # below the threshold
        (0.5, 0.0, 0.0),
        (-2.0, 0.0, 0.0),  # what would grow has units of opposite sign, and none goes below 0
    ],
)
def test_units_held_exactly_at_a_bound_can_move_one_way(name, weight, bias, expected) -> None:
    found = relax(silent_pair(weight, bias), np.zeros((2, 1)), solver=make_solver(name))
    assert found.converged.all()
    np.testing.assert_allclose(flatten(found.state), expected, atol=1e-10)


@pytest.mark.parametrize("period", [3.7, 24.0, 60.3])
def test_a_period_is_found_and_a_spiral_is_none(period) -> None:
    t = np.arange(512.0)
    turn = np.column_stack([np.cos(2 * np.pi * t / period), 0.3 * np.sin(4 * np.pi * t / period) + 1])
    if period > 10:  # below, a straight line between two times is no path
        assert recurrence(turn, 1e-3) == pytest.approx(period, rel=1e-2)
    assert np.isnan(recurrence(turn * np.exp(-t / 3000)[:, None], 1e-3))
    assert np.isnan(recurrence(turn, 10.0)), "smaller than what counts"
    assert np.isnan(recurrence(np.column_stack([np.cos(t / 5), np.cos(2**0.5 * t / 5)]), 1e-3)), "never repeats itself"
    assert np.isnan(recurrence(np.full((512, 2), np.nan), 1e-3))


def test_the_state_of_an_oscillation_is_not_learned_from_and_not_believed() -> None:
    p = problems.ring(3, 12.0)
    start = tuple(np.full((p.batch, 1), 0.2 * k) for k in range(3))
    found = FixedPointSolver(max_passes=20, fallback=NumbaSolver(max_steps=300)).relax(p.network, p.drive, start)
    assert set(found.endings) == {"oscillates"}
    assert not found.converged.any()
    assert found.period is not None
    some = found.rows(np.array([1]))
    assert some.period is not None
    assert some.period[0] == found.period[1]
    assert (found.to_frame()["period"] > 0).all()
