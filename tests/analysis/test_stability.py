"""Stability of equilibria: the record against slow twins, settle times and step sizes against
the dynamics, betas against closed forms.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import oracles
import problems
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsp_dynamics.analysis.spectra import Spectrum, linearise, spectrum
from fsp_dynamics.analysis.stability import (
    admissible_beta,
    admissible_dt,
    kink_margin,
    measured_settle_time,
    settle_time,
    stability,
)
from fsp_dynamics.errors import ConfigurationError, NotConvergedError, ShapeError
from fsp_dynamics.models.rate import Nudge
from fsp_dynamics.solvers import relax
from fsp_dynamics.solvers.equilibrium import Equilibrium, Status
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.reference import ReferenceSolver, step
from fsp_dynamics.solvers.tableaux import EULER, TABLEAUX

NUMPY = ReferenceSolver()


def equilibrium_of(p, phase="free"):
    """The known equilibrium as a solver would return it."""
    batch = p.batch
    beta = 0.0 if p.nudges[phase] is None else p.nudges[phase].beta
    return Equilibrium(
        p.known[phase], np.zeros(batch), np.full(batch, Status.CONVERGED, np.uint8), np.zeros(batch, int), beta
    )


def loop_matrix_by_hand(p, phase):
    """G_D[i, j]: what output j's rate gains after one turn per unit of output i's, path by path."""
    found = []
    kappa = [1 / r for r in p.network.time_constants]
    kappa[-1] += 0.0 if p.nudges[phase] is None else p.nudges[phase].beta
    mask = oracles.split(p.network, oracles.masks(p.network, p.images, p.known[phase], p.nudges[phase]))
    for sample in range(p.batch):
        product = np.eye(p.network.sizes[-1])
        for weight, m, k in zip((p.network.loop, *p.network.forward), mask, kappa, strict=True):
            product = product @ weight @ np.diag((m[sample] == 0) / k)
        found.append(product)
    return np.array(found)


@pytest.mark.parametrize("phase", problems.PHASES)
@pytest.mark.parametrize("name", ["strong", "time-constants", "deep", "one-hidden", "saturated"])
def test_the_record_against_slow_twins(name, phase) -> None:
    p = problems.problem(name)
    found = stability(p.network, p.images, equilibrium_of(p, phase), p.nudges[phase])
    matrices = loop_matrix_by_hand(p, phase)
    assert found.loop_matrix == pytest.approx(matrices, abs=1e-13)
    for b, j in enumerate(oracles.jacobian(p.network, p.images, p.known[phase], p.nudges[phase])):
        singular = np.sqrt(np.linalg.eigvalsh(matrices[b] @ matrices[b].T)[-1])
        assert found.loop_norm[b] == pytest.approx(singular, abs=1e-7)
        values = np.linalg.eigvals(matrices[b])
        assert np.abs(found.loop_eigenvalues[b]) == pytest.approx(np.sort(np.abs(values))[::-1], abs=1e-9)
        assert np.prod(1 - found.loop_eigenvalues[b]) == pytest.approx(
            np.linalg.det(np.eye(len(values)) - matrices[b]), abs=1e-12
        )
        assert found.abscissa[b] == pytest.approx(np.linalg.eigvals(j).real.max(), abs=1e-3 if name == "deep" else 1e-7)
        away = np.linalg.norm(j) ** 2 - (np.abs(np.linalg.eigvals(j)) ** 2).sum()
        assert found.departure[b] == pytest.approx(np.sqrt(max(away, 0)), abs=1e-6)
        assert found.relative_departure[b] == pytest.approx(found.departure[b] / np.linalg.norm(j), rel=1e-12)
        assert found.numerical_abscissa[b] == pytest.approx(np.linalg.eigvalsh((j + j.T) / 2)[-1], abs=1e-12)
    assert found.stable.tolist() == (found.abscissa < 0).tolist()
    assert found.settle_time == pytest.approx(np.log(1000) / -found.abscissa, rel=1e-12)
    assert (found.numerical_abscissa >= found.abscissa - 1e-12).all()


@pytest.mark.parametrize("phase", problems.PHASES)
@pytest.mark.parametrize("name", ["strong", "time-constants", "untied"])
def test_the_kink_margin_is_how_far_a_bias_may_move(name, phase) -> None:
    """Nearest of all distances, unit by unit: a bias moved by kappa times the margin brings one
    unit to its kink, and none before.
    """
    p = problems.problem(name)
    nudge = p.nudges[phase]
    a = oracles.total_input(p.network, p.images, p.known[phase])
    for b, margin in enumerate(kink_margin(p.network, p.images, p.known[phase], nudge)):
        distances = []
        for k, layer in enumerate(a):
            leak, pull = 1 / p.network.time_constants[k], np.zeros(layer.shape[1])
            if nudge is not None and k == p.network.depth - 1:
                leak, pull = leak + nudge.beta, nudge.beta * nudge.target[b]
            for u in (layer[b] + pull) / leak:
                distances += [abs(u), abs(u - 1)]
        assert margin == pytest.approx(min(distances), abs=1e-13)


def test_smooth_and_reciprocal_networks() -> None:
    p, q = problems.problem("logistic"), problems.problem("tied")
    smooth, tied = (stability(x.network, x.images, equilibrium_of(x)) for x in (p, q))
    assert np.isinf(smooth.kink_margin).all()
    assert smooth.loop_matrix.shape == (3, 2, 2)
    assert np.isnan(smooth.beta_range).all()
    assert tied.loop_matrix is None
    assert tied.loop_eigenvalues is None
    assert np.isnan(tied.loop_norm).all()
    assert tied.dt == pytest.approx(
        -2 / np.min(np.linalg.eigvalsh(oracles.jacobian(q.network, q.images, q.known["free"])), axis=1), rel=1e-9
    )


def test_unconverged_samples_are_refused_unless_allowed() -> None:
    p = problems.problem("strong")
    early = relax(p.network, p.images, solver=ReferenceSolver(max_steps=3))
    with pytest.raises(NotConvergedError, match="4 of 4 samples"):
        stability(p.network, p.images, early)
    asked = stability(p.network, p.images, early, unconverged=True)
    assert asked.abscissa == pytest.approx(spectrum(p.network, p.images, early).abscissa, abs=1e-15)
    with pytest.raises(NotConvergedError):
        measured_settle_time(p.network, p.images, early)


def test_unusable_input_is_named() -> None:
    p = problems.problem("strong")
    equilibrium, nudge = equilibrium_of(p), p.nudges["nudged"]
    with pytest.raises(ConfigurationError, match=r"nudge has beta = 0.7, expected 0, the beta of the equilibrium"):
        stability(p.network, p.images, equilibrium, nudge)
    with pytest.raises(ConfigurationError, match="equilibrium is tuple, expected an Equilibrium"):
        stability(p.network, p.images, equilibrium.state)
    with pytest.raises(ConfigurationError, match="tableau = 'eulr' is unknown; did you mean 'euler'"):
        stability(p.network, p.images, equilibrium, tableau="eulr")
    with pytest.raises(ConfigurationError, match=r"factor = 1, expected a finite number above 1"):
        stability(p.network, p.images, equilibrium, factor=1)
    with pytest.raises(ShapeError):
        stability(p.network, p.images[:1], equilibrium)
    with pytest.raises(ConfigurationError, match="direction = 'fastest' is unknown"):
        measured_settle_time(p.network, p.images, equilibrium, direction="fastest")
    with pytest.raises(ConfigurationError, match="size = 0"):
        measured_settle_time(p.network, p.images, equilibrium, size=0)
    with pytest.raises(ConfigurationError, match="FixedPointSolver, expected an integrator in time"):
        measured_settle_time(p.network, p.images, equilibrium, solver=FixedPointSolver())
    smooth = problems.problem("logistic")
    with pytest.raises(ConfigurationError, match="admissible_beta needs a loop and a hard sigmoid"):
        admissible_beta(linearise(smooth.network, smooth.images, smooth.known["free"]))


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("interior", "free"),
        ("ring-3", "nudged"),
        ("tied", "free"),
        ("logistic", "free"),
        ("shifted_tanh", "nudged"),
        ("deep", "free"),
    ],
)
def test_the_settle_time_is_met_by_the_dynamics(name, phase) -> None:
    """The slowest mode to a thousandth where it is real and alone; another way in, with faster
    modes, to the logarithm of its share.
    """
    p = problems.problem(name)
    equilibrium, nudge = equilibrium_of(p, phase), p.nudges[phase]
    predicted = stability(p.network, p.images, equilibrium, nudge, factor=500.0).settle_time
    measured = measured_settle_time(p.network, p.images, equilibrium, nudge, factor=500.0, solver=NUMPY)
    assert measured == pytest.approx(predicted, rel=1e-3 if name in ("interior", "tied") else 0.02)
    other = measured_settle_time(
        p.network, p.images, equilibrium, nudge, factor=500.0, direction="random", solver=NUMPY
    )
    assert other == pytest.approx(predicted, rel=0.4)
    assert not np.array_equal(measured, other)


def test_the_settle_time_in_single_precision_and_by_default() -> None:
    """The network is followed in double precision from wherever the equilibrium is known to be."""
    p = problems.problem("interior", np.float32)
    equilibrium = relax(p.network, p.images[:1])
    measured = measured_settle_time(p.network, p.images[:1], equilibrium)
    assert measured == pytest.approx(settle_time(spectrum(p.network, p.images[:1], equilibrium).abscissa), rel=0.02)
    assert np.isinf(measured_settle_time(p.network, p.images[:1], equilibrium, longest=float(measured[0]) * 0.9)).all()


def test_what_is_left_never_settles() -> None:
    """Beyond gamma = 8 a ring of three has an equilibrium that is unstable (model fact 8)."""
    p = problems.ring(3, 20.0)
    state = oracles.solve_masked(p.network, p.images, np.zeros((3, 3)))
    equilibrium = dataclasses.replace(equilibrium_of(problems.problem("ring-3")), state=state)
    found = stability(p.network, p.images, equilibrium)
    assert not found.stable.any()
    assert np.isinf(found.settle_time).all()
    assert (found.dt == 0).all()
    assert np.isinf(measured_settle_time(p.network, p.images, equilibrium, size=0.01, solver=NUMPY)).all()


@pytest.mark.parametrize("gamma", [1.0, 4.0, 7.5, 12.0])
def test_a_ring_s_betas_in_closed_form(gamma) -> None:
    """(1 + l)^2 (k + l) = -gamma, k = 1 + beta, is stable for 2 (1 + k)^2 > gamma (Routh), below k
    = 0 never.
    """
    p = problems.ring(3, gamma)
    state = oracles.solve_masked(p.network, p.images, np.zeros((3, 3)))
    found = admissible_beta(linearise(p.network, p.images, state))
    assert found[:, 0] == pytest.approx(np.full(3, max(np.sqrt(gamma / 2) - 2, -1)), abs=1e-12)
    assert np.isinf(found[:, 1]).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), gain=st.floats(0.5, 60))
def test_stable_above_the_lowest_beta_and_not_below(seed, gain) -> None:
    """Masks fixed, the Jacobian with another leak at the output has its eigenvalues left of 0
    exactly above the bound.
    """
    rng = np.random.default_rng(seed)
    sizes = [2, *rng.integers(1, 6, rng.integers(2, 5))]
    network = problems.random_network(rng, sizes, gain, time_constants=tuple(rng.uniform(0.5, 2, len(sizes) - 1)))
    state = tuple(np.clip(rng.uniform(-0.3, 1.3, (2, n)), 0, 1) for n in sizes[1:])
    linear = linearise(network, np.zeros((2, 2)), state, Nudge(0.5, np.zeros((2, sizes[-1]))))
    for b, low in enumerate(admissible_beta(linear)[:, 0]):
        limit = -1 / network.time_constants[-1]
        outputs = np.diag((np.arange(linear.size) >= linear.size - sizes[-1]).astype(float))

        def abscissa(beta, b=b, outputs=outputs):
            return np.linalg.eigvals(linear.dense(b) + (0.5 - beta) * outputs).real.max()

        # +-1e-4, as rounding moves eigenvalues in Jordan blocks by that much
        assert all(abscissa(low + more) < 0 for more in (1e-4, 0.01, 0.3, 1.0, 10.0, 100.0))
        assert low >= limit
        assert low == limit or all(
            abscissa(limit + share * (low - 1e-4 - limit)) > 0 for share in (0.02, 0.5, 0.9, 1.0) if low - 1e-4 > limit
        )


@pytest.mark.parametrize("name", ["ring-3", "time-constants", "untied", "logistic"])
def test_euler_is_stable_below_the_longest_step_and_not_above(name) -> None:
    """Closed form min 2 (-Re l) / |l|^2, and the integrator itself near the equilibrium."""
    p = problems.problem(name)
    found = stability(p.network, p.images, equilibrium_of(p))
    values = found.spectrum.all()
    assert found.dt == pytest.approx(np.min(2 * -values.real / np.abs(values) ** 2, axis=1), rel=1e-12)
    b = 0
    equilibrium = tuple(s[b : b + 1] for s in p.known["free"])
    flat = np.concatenate(equilibrium, axis=1)
    perturbed = oracles.split(p.network, flat + 1e-7 * np.random.default_rng(0).normal(size=flat.shape))
    ends = {}
    for factor in (0.9, 1.1):
        h = float(factor * found.dt[b])
        path = ReferenceSolver("euler", dt=h, form="rate").follow(
            p.network, p.drive[b : b + 1], perturbed, None, np.array([0, 1500 * h])
        )
        ends[factor] = np.linalg.norm(path[-1] - flat) / np.linalg.norm(path[0] - flat)
    assert ends[0.9] < 0.01
    assert ends[1.1] > 100


@pytest.mark.parametrize("name", TABLEAUX)
@pytest.mark.parametrize("value", [-1.0, -0.3 + 0.5j, -0.7 - 2j, -2 + 0.1j, -0.4 + 1.5j])
def test_the_longest_step_of_every_method(name, value) -> None:
    """One step of the method itself on y' = lambda y: |y| shrinks just below the bound, never
    grows before it, and grows just above.
    """
    h = admissible_dt(Spectrum(np.array([[value]]), (), complete=True), name)[0]

    def growth(length):
        return abs(step(TABLEAUX[name], lambda y: value * y, np.ones((1, 1), complex), length)[0][0, 0])

    assert growth(h * (1 - 1e-6)) < 1 < growth(h * (1 + 1e-6))
    assert all(growth(share * h) <= 1 for share in np.linspace(0.01, 0.999, 50))


def test_known_ends_of_the_real_axis() -> None:
    real = Spectrum(np.array([[-1.0 + 0j], [-4.0 + 0j]]), ((2.0, 3), (9.0, 0)), complete=True)
    for name, end in (
        ("euler", 2.0),
        ("heun", 2.0),
        ("rk4", 2.785293563405),
        ("bosh3", 2.512745326618),
        ("dopri5", 3.306567892634),
    ):
        assert admissible_dt(real, name) == pytest.approx([end / 2, end / 4], rel=1e-9)
    assert admissible_dt(real, EULER).tolist() == admissible_dt(real).tolist()
    assert admissible_dt(Spectrum(np.array([[0.1 + 1j], [0j]]), (), complete=True)).tolist() == [0, 0]
    with pytest.raises(ConfigurationError, match="did you mean 'rk4'"):
        admissible_dt(real, "rk5")
