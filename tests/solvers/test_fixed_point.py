"""Fixed points: what they solve, how fast, and what they refuse to believe."""

from __future__ import annotations

import dataclasses
import os

import numba
import numpy as np
import oracles
import problems
import pytest

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.network import Network
from fsp_dynamics.models.rate import Nudge, drive, residual
from fsp_dynamics.solvers import make_solver, relax
from fsp_dynamics.solvers.equilibrium import Status, Tolerance
from fsp_dynamics.solvers.fixed_point import METHODS, FixedPointSolver
from fsp_dynamics.solvers.loop_newton import loop_jacobian
from fsp_dynamics.solvers.passes import CutPasses, cut_layers
from fsp_dynamics.solvers.stability import stable

TIGHT = Tolerance(3e-14)


def closest(network, images, found, nudge=None):
    return max(abs(a - b).max() for a, b in zip(found.state, oracles.equilibrium(network, images, nudge), strict=True))


@pytest.mark.parametrize("name", problems.NAMES)
def test_the_cut_leaves_no_cycle(name) -> None:
    """Without the cut's outgoing connections, the layers can be put in order."""
    network = problems.problem(name).network
    cut = cut_layers(network)
    inner = {
        k: {c.pre for c in network.connections() if c.post == k and c.pre not in cut} for k in range(network.depth)
    }
    for k in sorted(inner):
        assert all(pre < k for pre in inner[k] if k not in cut)


@pytest.mark.parametrize("name", problems.NAMES)
@pytest.mark.parametrize("phase", problems.PHASES)
def test_a_pass_tells_the_residual_of_its_own_state(name, phase) -> None:
    """Before the first pass for the whole start, afterwards from the cut alone: both are
    ||rate_field|| there.
    """
    p = problems.problem(name)
    rng = np.random.default_rng(0)
    start = tuple(rng.random((p.batch, n)) for n in p.network.sizes[1:])
    passes = CutPasses(p.network, p.drive, start, p.nudges[phase])
    _, size, norm = passes.run(given=True)
    np.testing.assert_allclose(
        size, oracles.residual(p.network, p.images, start, p.nudges[phase]), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(norm, np.linalg.norm(np.concatenate(start, 1), axis=1), rtol=1e-14)
    target, size, _ = passes.run()
    np.testing.assert_allclose(
        size, oracles.residual(p.network, p.images, passes.state(), p.nudges[phase]), rtol=1e-9, atol=1e-13
    )
    passes.y[:] = target
    passes.keep(np.arange(p.batch) != 1)
    _, size, _ = passes.run()
    nudge = p.nudges[phase] and p.nudges[phase].rows(passes.rows)
    np.testing.assert_allclose(
        size, oracles.residual(p.network, p.images[passes.rows], passes.state(), nudge), rtol=1e-9, atol=1e-13
    )


@pytest.mark.parametrize("name", problems.HARD)
def test_the_loop_jacobian_is_the_derivative_of_a_pass(name) -> None:
    p = problems.problem(name)
    if p.network.loop is None:
        pytest.skip("a reciprocal network has no n_L-dimensional loop problem")
    nudge = p.nudges["nudged"]
    rest = FixedPointSolver().relax(p.network, p.drive, None, nudge, TIGHT)
    jacobian = loop_jacobian(p.network, rest.state, nudge, p.drive)
    passes, step = CutPasses(p.network, p.drive, rest.state, nudge), 1e-7
    base = passes.run()[0].copy()
    inside = (rest.output > 2 * step) & (rest.output < 1 - 2 * step)
    for i in range(p.network.sizes[-1]):
        passes.y[:] = rest.output
        passes.y[:, i] += step
        moved = (passes.run()[0] - base) / step
        np.testing.assert_allclose(moved[inside], jacobian[:, i][inside], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [n for n in problems.HARD if n not in ("tied", "untied")])
def test_newton_alone_and_passes_alone_find_the_known_equilibrium(name, method) -> None:
    p = problems.problem(name)
    for phase, nudge in p.nudges.items():
        found = FixedPointSolver(method, max_passes=3000).relax(p.network, p.drive, None, nudge, TIGHT)
        assert found.converged.all()
        assert closest(p.network, p.images, found, nudge) < 1e-12, phase


def test_newton_needs_the_fewest_passes_and_anderson_fewer_than_picard() -> None:
    p = problems.problem("strong")
    steps = {
        m: FixedPointSolver(m, max_passes=3000).relax(p.network, p.drive, None, None, TIGHT).steps.mean()
        for m in METHODS
    }
    assert steps["newton"] < steps["anderson"] < steps["picard"]


def test_settling_error_obeys_the_contraction_bound() -> None:
    """Fact 3, gain below 1: error <= residual / (1 - g^(1/L)) in max_k ||.||_k / d_k, d equalising
    the layers' gains.
    """
    for seed in range(30):
        p = problems.random_problem(seed)
        network, tolerance = p.network, Tolerance(1e-3)
        exact = FixedPointSolver().relax(network, p.drive, None, None, TIGHT)
        rough = FixedPointSolver("picard").relax(network, p.drive, None, None, tolerance)
        rate = 1 - problems.contraction(network)
        scale = [1.0]
        for w in network.forward:
            scale.append(scale[-1] * np.linalg.norm(w, 2) / rate)
        error = np.max(
            [np.linalg.norm(a - b, axis=1) / d for a, b, d in zip(rough.state, exact.state, scale, strict=True)], axis=0
        )
        bound = rough.residual / min(scale) / problems.contraction(network)
        assert (error <= bound * (1 + 1e-9) + 1e-13).all()


def bistable(gain=3.0):
    """One unit a layer, positive feedback round s = 1/2: unstable there, stable at 0 and at 1."""
    return Network(
        input=np.ones((1, 1)),
        forward=(np.ones((1, 1)),),
        loop=np.full((1, 1), gain),
        biases=(np.array([(1 - gain) / 2]), np.zeros(1)),
    )


def test_an_unstable_equilibrium_is_left_to_the_dynamics() -> None:
    """Passes that start beside it converge on it by extrapolation; the field leads away from it,
    and so must the answer.
    """
    network, images = bistable(), np.zeros((2, 1))
    start = tuple(np.array([[0.52], [0.48]]) for _ in range(2))
    halves = tuple(np.full((1, 1), 0.5) for _ in range(2))
    assert residual(network, drive(network, images[:1]), halves)[0] < 1e-15
    assert not stable(network, halves, None, drive(network, images[:1])).any()
    found = make_solver("fixed_point").relax(network, drive(network, images), start, None, TIGHT)
    assert found.converged.all()
    np.testing.assert_allclose(np.concatenate(found.state, 1), [[1, 1], [0, 0]], atol=1e-12)
    alone = FixedPointSolver(fallback=None).relax(network, drive(network, images), start, None, TIGHT)
    for b in np.flatnonzero(alone.converged):
        here = tuple(s[b : b + 1] for s in alone.state)
        assert stable(network, here, None, drive(network, images[:1]))[0]


def test_a_start_beside_an_unstable_rest_is_not_taken_for_one() -> None:
    """The outputs that follow from the layer below such a start have converged by chance; the first
    pass finds nothing to move.
    """
    p = problems.ring(3, 12.0, batch=1)
    still = FixedPointSolver().relax(p.network, p.drive)
    one = tuple(np.full((1, 1), s) for s in (0.5, p.network.rho.rate(still.state[1])[0, 0], 0.45))
    found = FixedPointSolver().relax(p.network, p.drive, one)
    assert not found.converged.any()
    calm = problems.ring(3, 4.0, batch=1)
    rest = FixedPointSolver().relax(calm.network, calm.drive)
    assert (
        FixedPointSolver()
        .relax(calm.network, calm.drive, (rest.state[0], rest.state[1], rest.state[2] - 0.05))
        .converged.all()
    )


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7])
def test_stability_of_a_ring(n) -> None:
    """Fact 8: n equal units with loop gain -gamma hold their rest point iff gamma < sec(pi/n)^n (n
    = 2: always).
    """
    limit = np.inf if n == 2 else np.cos(np.pi / n) ** -n
    for gamma in (0.5, 0.99 * limit, 1.01 * limit) if n > 2 else (0.5, 30.0):
        p = problems.ring(n, gamma)
        rest = tuple(np.full((p.batch, 1), 0.5) for _ in range(n))
        assert stable(p.network, rest, None, p.drive).all() == (gamma < limit)


@pytest.mark.parametrize("r", [(1.0, 1.0, 1.0), (1.0, 1.0, 10.0), (0.05, 1.0, 1.0), (0.2, 1.0, 7.0)])
def test_stability_depends_on_the_time_constants(r) -> None:
    """By the criterion of Routh and Hurwitz the roots of prod_k (1 + r_k lambda) = -K lie on the
    left iff K < (r_1 + r_2 + r_3) (1/r_1 + 1/r_2 + 1/r_3) - 1: 8 where all are equal, else more.
    """
    limit = sum(r) * sum(1 / each for each in r) - 1
    for gain, held in ((0.99 * limit, True), (1.01 * limit, False)):
        size = (gain / np.prod(r)) ** (1 / 3)
        network = Network(
            input=np.zeros((1, 1)),
            forward=(np.full((1, 1), size),) * 2,
            loop=np.full((1, 1), -size),
            biases=tuple(np.array([0.5 / each - 0.5 * w]) for each, w in zip(r, (-size, size, size), strict=True)),
            time_constants=r,
        )
        halves = tuple(np.full((1, 1), 0.5) for _ in r)
        constant = drive(network, np.zeros((1, 1)))
        assert residual(network, constant, halves)[0] < 1e-12 * gain
        assert stable(network, halves, None, constant).tolist() == [held], (gain, limit)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="takes minutes as plain Python")
def test_an_oscillating_loop_is_reported_not_believed() -> None:
    """Beyond that limit no solver may call it rest: Newton's equilibrium is unstable and
    integration never settles.
    """
    p = problems.ring(3, 12.0)
    solver = FixedPointSolver(max_passes=20, fallback=make_solver("numba_ode", max_steps=300))
    start = tuple(np.full((p.batch, 1), 0.2 * k) for k in range(3))
    found = solver.relax(p.network, p.drive, start, None, TIGHT)
    assert (found.status == Status.OSCILLATES).all()
    assert (found.residual > 1e-3).all()
    np.testing.assert_allclose(found.residual, residual(p.network, p.drive, found.state), rtol=1e-6)


def test_nan_is_confined_to_its_sample() -> None:
    p = problems.problem("saturated")
    constant = p.drive.copy()
    constant[2] = np.nan
    found = make_solver("fixed_point").relax(p.network, constant, None, p.nudges["nudged"], TIGHT)
    assert found.status.tolist() == [
        Status.CONVERGED,
        Status.CONVERGED,
        Status.NOT_FINITE,
        Status.CONVERGED,
        Status.CONVERGED,
    ]


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_no_numbers_are_a_status_and_no_error(method) -> None:
    """In any matrix; the fallback integrates what passes leave."""
    p = problems.problem("interior")
    for name in ("forward[0]", "loop"):
        broken = p.network.parameters()[name].copy()
        broken[0, 1] = np.nan
        network = p.network.with_parameters({name: broken})
        found = make_solver("fixed_point", method=method).relax(network, p.drive, None, p.nudges["nudged"], TIGHT)
        assert (found.status == Status.NOT_FINITE).all()


def test_time_constants_and_smooth_rates_rest_with_a_strong_nudge() -> None:
    for name in ("time-constants", "logistic", "shifted_tanh"):
        p = problems.problem(name)
        nudge = Nudge(5.0, p.nudges["nudged"].target)
        found = FixedPointSolver(max_passes=300).relax(p.network, p.drive, None, nudge, Tolerance(1e-12))
        assert found.converged.all()
        assert closest(p.network, p.images, found, nudge) < 1e-11


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"method": "andersen"}, "anderson"), ({"max_passes": 0}, "max_passes = 0"), ({"memory": 0}, "memory = 0")],
)
def test_refused_settings(settings, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FixedPointSolver(**settings)


def test_newton_is_refused_where_there_is_no_loop_problem() -> None:
    for name in ("tied", "logistic"):
        p = problems.problem(name)
        with pytest.raises(ConfigurationError, match="newton"):
            FixedPointSolver("newton").relax(p.network, p.drive)


def test_what_is_no_solver_or_tolerance_is_refused() -> None:
    p = problems.problem("interior")
    for settings, message in (
        ({"solver": FixedPointSolver}, "expected a solver"),
        ({"nudge": (1.0, None)}, r"nudge is of type tuple, expected Nudge\(beta, target\) or None"),
        ({"tolerance": 1e-6}, r"expected Tolerance\(absolute"),
        ({"nudge": Nudge(0.5, p.nudges["nudged"].target.tolist())}, None),
    ):
        if message is None:
            # lists are arrays too
            assert relax(p.network, p.images.tolist(), **settings).converged.all()
        else:
            with pytest.raises(ConfigurationError, match=message):
                relax(p.network, p.images, **settings)
    with pytest.raises(ConfigurationError, match="tolerance absolute = 'a'"):
        Tolerance("a")
    with pytest.raises(ConfigurationError, match=r"max_passes = 2\.5"):
        FixedPointSolver(max_passes=2.5)


def test_an_activation_that_numba_cannot_compile_is_refused_in_one_line() -> None:
    p = problems.problem("logistic")
    stubborn = Activation("stubborn", np.vectorize(lambda s: s / 2), np.vectorize(lambda s: 0.5))
    typed = Activation(
        "typed", lambda s: np.vectorize(str)(s).astype(float), lambda s: np.vectorize(str)(s).astype(float)
    )
    if numba_is_off():
        pytest.skip("nothing is compiled")
    for rho in (stubborn, typed):
        for solver in (FixedPointSolver(), make_solver("numba_ode")):
            with pytest.raises(ConfigurationError, match=f"'{rho.name}' cannot be compiled"):
                solver.relax(dataclasses.replace(p.network, rho=rho), p.drive)


def numba_is_off():
    return bool(int(os.environ.get("NUMBA_DISABLE_JIT", "0")))


def test_make_solver_offers_the_nearest_name() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'fixed_point'"):
        make_solver("fixedpoint")
    with pytest.raises(ConfigurationError, match="did you mean 'max_passes'"):
        make_solver("fixed_point", max_pases=3)
