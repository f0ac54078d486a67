"""Eigenvalues of the field's Jacobian against a Jacobian written out unit by unit, and what is
read from them.
"""

from __future__ import annotations

import numpy as np
import oracles
import problems
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, schur
from scipy.optimize import linear_sum_assignment

from fsp_dynamics.analysis import spectra
from fsp_dynamics.analysis.spectra import (
    departure,
    eigenvalues,
    linearise,
    numerical_abscissa,
    slowest_mode,
    spectrum,
)
from fsp_dynamics.errors import ConfigurationError, NotFiniteError, ShapeError
from fsp_dynamics.models.activations import Activation, logistic, logistic_slope
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.rate import Nudge, zero_state
from fsp_dynamics.solvers import make_solver, relax
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.linearisation import ring_eigenvalues

LOOPS = tuple(name for name in problems.HARD if name not in ("tied", "untied"))
# no Jordan blocks
EXACT = ("one-hidden", "time-constants", "ring-3", "ring-4", "saturated", "satisfied", "silent")
OTHERS = ("tied", "untied", "logistic", "shifted_tanh")


def distance(found, expected):
    """Largest distance between two multisets of complex numbers, paired as well as they can be."""
    assert len(found) == len(expected)
    distance = np.abs(np.subtract.outer(found, expected))
    return distance[linear_sum_assignment(distance)].max()


def dense_eigenvalues(p, phase):
    return [np.linalg.eigvals(j) for j in oracles.jacobian(p.network, p.images, p.known[phase], p.nudges[phase])]


@pytest.mark.parametrize("phase", problems.PHASES)
@pytest.mark.parametrize("name", LOOPS)
def test_the_loop_matrix_gives_the_whole_spectrum(name, phase) -> None:
    """All N eigenvalues from an n_L x n_L matrix are those of the N x N Jacobian, multiplicities
    included.

    With equal time constants -kappa may stand in Jordan blocks of up to L - 1, and it is the N x N
    computation that then knows -kappa, not the others, to eps^(1 / (L - 1)) only.
    """
    p = problems.problem(name)
    found = spectrum(p.network, p.images, p.known[phase], p.nudges[phase])
    for values, expected in zip(found.all(), dense_eigenvalues(p, phase), strict=True):
        coupled = np.min(np.abs(np.add.outer(values, [kappa for kappa, _ in found.uncoupled])), axis=1) > 1e-3
        distance = np.abs(np.subtract.outer(values, expected))
        rows, columns = linear_sum_assignment(distance)
        assert distance[rows, columns][coupled[rows]].max(initial=0) < 1e-8
        assert distance[rows, columns].max() < (1e-8 if name in EXACT else 10 * 1e-16 ** (1 / (p.network.depth - 1)))
        assert (np.diff(values[: found.values.shape[1]].real) <= 0).all()
    assert found.abscissa == pytest.approx(found.all().real.max(1), abs=1e-14)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), gain=st.floats(0.1, 30), beta=st.floats(-0.3, 2).filter(bool))
def test_any_state_with_any_time_constants(seed, gain, beta) -> None:
    """Not only converged: the power sums sum lambda^m are the traces of J^m, which settles a
    multiset without pairing.
    """
    rng = np.random.default_rng(seed)
    sizes = [2, *rng.integers(1, 7, rng.integers(2, 5))]
    network = problems.random_network(rng, sizes, gain, time_constants=tuple(rng.uniform(0.5, 2, len(sizes) - 1)))
    state = tuple(np.clip(rng.uniform(-0.3, 1.3, (2, n)), 0, 1) for n in sizes[1:])
    nudge = Nudge(beta, rng.random((2, sizes[-1])))
    found, linear = (
        spectrum(network, rng.random((2, 2)), state, nudge).all(),
        linearise(network, rng.random((2, 2)), state, nudge),
    )
    for b in range(2):
        j, power, scale = linear.dense(b), np.eye(linear.size), 1.0
        for m in range(1, linear.size + 1):
            power, scale = power @ j, scale * np.linalg.norm(j)
            assert abs((found[b] ** m).sum() - np.trace(power)) < 1e-11 * scale


def test_few_unsaturated_units_leave_the_other_eigenvalues_exact() -> None:
    """Two unsaturated units in one layer: two eigenvalues of G_D may differ from 0, and what
    rounding makes of the others does not reach -kappa.
    """
    network = problems.random_network(3, [2, 6, 5, 4], 50.0)
    state = tuple(np.random.default_rng(0).uniform(0.1, 0.9, (3, n)) for n in (6, 5, 4))
    state[1][:, 2:] = 1.0
    values = spectrum(network, np.zeros((3, 2)), state).all()
    assert ((np.abs(values + 1) < 1e-12).sum(1) == 15 - 2 * 3).all()


@pytest.mark.parametrize("phase", problems.PHASES)
@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_computed_whole(name, phase) -> None:
    p = problems.problem(name)
    found = spectrum(p.network, p.images, p.known[phase], p.nudges[phase])
    assert found.complete
    assert found.uncoupled == ()
    for values, expected in zip(found.all(), dense_eigenvalues(p, phase), strict=True):
        assert distance(values, expected) < 1e-7


@pytest.mark.parametrize("name", ["one-hidden", "time-constants", "untied", "logistic"])
def test_the_jacobian_is_the_field_s(name) -> None:
    p = problems.problem(name)
    linear = linearise(p.network, p.images, p.known["nudged"], p.nudges["nudged"])
    expected = oracles.jacobian(p.network, p.images, p.known["nudged"], p.nudges["nudged"])
    x = np.random.default_rng(0).normal(size=linear.size)
    for b in range(p.batch):
        assert linear.dense(b) == pytest.approx(expected[b], abs=1e-8)
        assert linear.product(b, x) == pytest.approx(expected[b] @ x, abs=1e-7)
        assert linear.product(b, x, transposed=True) == pytest.approx(expected[b].T @ x, abs=1e-7)


@given(kappa=st.lists(st.floats(0.2, 5), min_size=2, max_size=6), size=st.floats(1e-12, 100), angle=st.floats(0, 6.2))
def test_ring_eigenvalues_solve_their_equation(kappa, size, angle) -> None:
    kappa, gain = np.array(kappa), size * np.exp(1j * angle)
    found = ring_eigenvalues(kappa, np.array(gain))
    scale = max(1.0, *kappa, size ** (1 / len(kappa)))
    assert np.prod(kappa + found[:, None], axis=1) == pytest.approx(
        np.full(len(kappa), gain), abs=1e-12 * scale ** len(kappa)
    )
    assert found.sum() == pytest.approx(-kappa.sum(), abs=1e-12 * scale)


def test_a_ring_of_equal_units_has_its_closed_form() -> None:
    """Model fact 8: lambda = gamma^(1/n) e^(i pi (2 k + 1) / n) - 1."""
    for n in (3, 4, 5):
        p = problems.ring(n, 2.5)
        found = spectrum(p.network, p.images, p.known["free"]).all()[0]
        assert distance(found, 2.5 ** (1 / n) * np.exp(1j * np.pi * (2 * np.arange(n) + 1) / n) - 1) < 1e-13


@pytest.mark.parametrize("kind", ["logistic", "untied", "tied", "hard"])
def test_large_networks_by_iteration(kind, monkeypatch) -> None:
    """The rightmost eigenvalues, the numerical abscissa and the slowest mode without J, against
    those from J.
    """
    if kind in ("tied", "untied"):
        network = reciprocal_network([3, 40, 30, 5], tied=kind == "tied", rng=1, dtype=np.float64, rho="shifted_tanh")
    else:
        network = problems.random_network(
            1, [3, 40, 30, 5], 20.0, rho="logistic" if kind == "logistic" else "hard_sigmoid"
        )
    images, rng = np.full((2, 3), 0.5), np.random.default_rng(2)
    state = tuple(rng.uniform(0.1, 0.9, (2, n)) for n in network.sizes[1:])
    linear = linearise(network, images, state)
    whole, growth, modes = (
        eigenvalues(linear, "dense"),
        numerical_abscissa(linear),
        [slowest_mode(linear, b) for b in range(2)],
    )
    monkeypatch.setattr(spectra, "DENSE", 20)
    few = eigenvalues(linear, None if kind != "hard" else "rightmost", count=4)
    assert not few.complete
    assert few.values.real == pytest.approx(whole.values[:, :4].real, abs=1e-8)
    assert few.abscissa == pytest.approx(whole.abscissa, abs=1e-8)
    assert numerical_abscissa(linear) == pytest.approx(growth, abs=1e-8)
    for b in range(2):
        slow = linear.dense(b) @ modes[b] - whole.abscissa[b] * modes[b]
        assert np.isreal(whole.values[b, 0]) == (np.linalg.norm(slow) < 1e-8)
        if np.isreal(whole.values[b, 0]):
            assert abs(slowest_mode(linear, b) @ modes[b]) == pytest.approx(1, abs=1e-6)
    assert np.isnan(departure(linear, few)).all()
    with pytest.raises(ConfigurationError, match="method='dense'"):
        few.all()


@pytest.mark.parametrize("name", ["strong", "time-constants", "deep", "untied", "logistic", "saturated"])
def test_departure_and_growth_against_matrices(name) -> None:
    """Henrici's departure is the norm of what Schur's form has above its diagonal; growth is the
    slope of ||expm(J t)|| at 0.
    """
    p = problems.problem(name)
    linear = linearise(p.network, p.images, p.known["nudged"], p.nudges["nudged"])
    away, growth = departure(linear, eigenvalues(linear)), numerical_abscissa(linear)
    for b, j in enumerate(oracles.jacobian(p.network, p.images, p.known["nudged"], p.nudges["nudged"])):
        upper = np.triu(schur(j, output="complex")[0], 1)
        assert away[b] == pytest.approx(np.linalg.norm(upper), abs=1e-6)
        assert linear.square()[b] == pytest.approx(np.linalg.norm(j) ** 2, rel=1e-8)
        t = 1e-5
        assert growth[b] == pytest.approx((np.linalg.norm(expm(j * t), 2) - 1) / t, abs=1e-4)


def test_a_symmetric_network_is_normal_without_transient_growth() -> None:
    p = problems.problem("tied")
    linear = linearise(p.network, p.images, p.known["free"])
    found = eigenvalues(linear)
    assert (found.values.imag == 0).all()
    assert departure(linear, found) == pytest.approx(np.zeros(p.batch), abs=1e-6)
    assert numerical_abscissa(linear) == pytest.approx(found.abscissa, abs=1e-12)


def test_single_precision_states_and_no_samples(dtype) -> None:
    p = problems.problem("strong", dtype)
    found = spectrum(p.network, p.images, relax(p.network, p.images))
    assert found.abscissa == pytest.approx(spectrum(p.network, p.images, p.known["free"]).abscissa, abs=1e-12)
    assert spectrum(p.network, p.images[:0], zero_state(p.network, 0)).all().shape == (0, 21)


def test_what_cannot_be_linearised_is_refused() -> None:
    p, smooth = problems.problem("strong"), problems.problem("logistic")
    with pytest.raises(ConfigurationError, match=r"'exact' needs a loop and a hard sigmoid"):
        spectrum(smooth.network, smooth.images, smooth.known["free"], method="exact")
    with pytest.raises(ConfigurationError, match="did you mean 'dense'"):
        spectrum(p.network, p.images, p.known["free"], method="dens")
    with pytest.raises(ConfigurationError, match="count = 40, expected 1 to 19"):
        spectrum(p.network, p.images, p.known["free"], method="rightmost", count=40)
    with pytest.raises(ShapeError, match=r"start\[0\]|state"):
        spectrum(p.network, p.images[:2], p.known["free"])
    broken = tuple(s * np.nan for s in p.known["free"])
    with pytest.raises(NotFiniteError, match=r"state\[0\]"):
        spectrum(p.network, p.images, broken)
    own = problems.random_network(0, [3, 4, 2], 0.5, rho=Activation("own", logistic, logistic_slope))
    with pytest.raises(ConfigurationError, match="curvature"):
        spectrum(own, np.zeros((1, 3)), zero_state(own, 1))


def test_an_integrated_equilibrium_has_the_spectrum_of_the_exact_one() -> None:
    """In the rate form a unit whose equilibrium lies beyond a bound approaches it exponentially: it
    is strictly inside as long as one looks, and saturated.
    """
    rng = np.random.default_rng(4)
    network = loop_network([6, 12, 9, 4], loop_scale=0.5, dtype=np.float64, rng=rng)
    images, nudge = rng.random((8, 6)), Nudge(0.5, np.eye(4)[np.arange(8) % 4])
    exact = relax(network, images, nudge=nudge, tolerance=Tolerance(1e-12))
    near = relax(
        network, images, nudge=nudge, solver=make_solver("reference"), tolerance=Tolerance(1e-10)
    ).require_converged()
    inside = [np.concatenate([(s > 0) & (s < 1) for s in found.state], axis=1).sum() for found in (exact, near)]
    assert inside[1] > inside[0], "some saturated unit is not on its wall yet"
    expected, found = (spectrum(network, images, each, nudge) for each in (exact, near))
    np.testing.assert_allclose(found.all(), expected.all(), atol=1e-12)
