"""The equation against its unit-by-unit twin, and what must be true of it."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import oracles
import problems
import pytest
from problems import HARD, NAMES, PHASES, problem
from scipy.optimize import brentq

from fsp_dynamics.errors import ConfigurationError, NotFiniteError, ShapeError
from fsp_dynamics.models import rate
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.network import Network
from fsp_dynamics.models.rate import Nudge

ROUNDING = {np.dtype(np.float32): 4e-6, np.dtype(np.float64): 1e-14}


def some_state(p, seed=0):
    """Units inside, outside and exactly on the borders of [0, 1]."""
    rng = np.random.default_rng(seed)
    flat = rng.uniform(-0.5, 1.5, (p.batch, sum(p.network.sizes[1:])))
    flat[rng.random(flat.shape) < 0.15] = 0
    flat[rng.random(flat.shape) < 0.15] = 1
    return rate.layers(p.network, flat.astype(p.network.dtype))


def close(found, expected, dtype):
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == dtype
        np.testing.assert_allclose(f, e, rtol=ROUNDING[np.dtype(dtype)], atol=ROUNDING[np.dtype(dtype)])


@pytest.mark.parametrize("name", NAMES)
def test_total_input_is_the_sum_over_every_connection(name, dtype):
    p = problem(name, dtype)
    state = some_state(p)
    found = rate.total_input(p.network, p.drive, [p.network.rho.rate(s) for s in state])
    close(found, oracles.total_input(p.network, p.images, state), dtype)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", NAMES)
def test_both_fields_are_their_twins(name, phase, dtype):
    p = problem(name, dtype)
    state, nudge = some_state(p), p.nudges[phase]
    close(rate.field(p.network, p.drive, state, nudge), oracles.field(p.network, p.images, state, nudge), dtype)
    close(
        rate.rate_field(p.network, p.drive, state, nudge), oracles.rate_field(p.network, p.images, state, nudge), dtype
    )
    expected = oracles.residual(p.network, p.images, state, nudge)
    np.testing.assert_allclose(
        rate.residual(p.network, p.drive, state, nudge), expected, rtol=ROUNDING[np.dtype(dtype)]
    )


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", NAMES)
def test_the_residual_is_zero_at_rest(name, phase):
    p = problem(name)
    assert rate.residual(p.network, p.drive, p.known[phase], p.nudges[phase]).max() < 1e-13


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", HARD)
def test_eq_13_with_its_clip_rests_where_the_rate_form_does(name, phase):
    p = problem(name)
    for s, f in zip(p.known[phase], rate.field(p.network, p.drive, p.known[phase], p.nudges[phase]), strict=True):
        assert np.abs(f[(s > 0) & (s < 1)]).max(initial=0) < 1e-13
        assert (f[s == 0] < 1e-13).all()
        assert (f[s == 1] > -1e-13).all()


@pytest.mark.parametrize("make", [loop_network, reciprocal_network, partial(reciprocal_network, tied=False)])
def test_square_matrices_act_in_their_direction(make):
    """Between layers of one width a matrix and its transpose both fit."""
    network = make([3, 4, 4, 4], dtype=np.float64, rng=0)
    rng = np.random.default_rng(1)
    images, state = rng.random((2, 3)), tuple(rng.random((2, 4)) for _ in range(3))
    found = rate.total_input(network, rate.drive(network, images), state)
    for a, twin in zip(found, oracles.total_input(network, images, state), strict=True):
        np.testing.assert_allclose(a, twin, atol=1e-14)


def test_the_residual_does_not_depend_on_the_unit_of_time():
    """Time constants in milliseconds, weights per millisecond."""
    p = problem("interior")
    state = some_state(p)
    weights = {name: w / 1000 for name, w in p.network.parameters().items()}
    r = tuple(1000 * each for each in p.network.time_constants)
    slow = dataclasses.replace(p.network.with_parameters(weights), time_constants=r)
    found = rate.residual(slow, rate.drive(slow, p.images), state)
    np.testing.assert_allclose(found, rate.residual(p.network, p.drive, state), rtol=1e-9)


def test_the_nudge_pulls_each_output_by_its_own_error_and_nothing_else():
    p = problem("deep")
    state, nudge = some_state(p), p.nudges["nudged"]
    free, nudged = rate.field(p.network, p.drive, state), rate.field(p.network, p.drive, state, nudge)
    for f, n in zip(free[:-1], nudged[:-1], strict=True):
        np.testing.assert_array_equal(f, n)
    np.testing.assert_allclose(nudged[-1] - free[-1], nudge.beta * (nudge.target - state[-1]), atol=1e-14)


def test_a_unit_at_zero_can_wake():
    network = Network(
        input=np.ones((1, 1)), forward=(np.ones((1, 1)),), biases=(np.zeros(1), np.zeros(1)), loop=np.zeros((1, 1))
    )
    field = rate.field(network, rate.drive(network, np.full((1, 1), 0.5)), rate.zero_state(network, 1))
    assert field[0][0, 0] == 0.5


def test_nothing_given_is_modified():
    p = problem("tied")
    state, before = some_state(p), [s.copy() for s in some_state(p)]
    drive, given = p.drive, p.drive.copy()
    for call in (rate.field, rate.rate_field, rate.residual):
        call(p.network, drive, state, p.nudges["nudged"])
    np.testing.assert_array_equal(drive, given)
    for s, b in zip(state, before, strict=True):
        np.testing.assert_array_equal(s, b)


def test_flat_states_and_layers_are_the_same_memory():
    p = problem("deep")
    flat = rate.flatten(some_state(p))
    views = rate.layers(p.network, flat)
    assert [v.shape for v in views] == [(p.batch, n) for n in p.network.sizes[1:]]
    views[1][:] = 7
    np.testing.assert_array_equal(rate.flatten(views), flat)
    assert (flat == 7).sum() == views[1].size


def test_images_that_do_not_fit_are_refused():
    p = problem("interior")
    with pytest.raises(ShapeError, match=r"images has shape \(4, 4\), expected \(any, 5\)"):
        rate.drive(p.network, p.images[:, :4])
    spoiled = p.images.copy()
    spoiled[2, 3] = np.nan
    with pytest.raises(NotFiniteError, match=r"images\[2, 3\] = nan"):
        rate.drive(p.network, spoiled)


def test_the_field_keeps_the_precision_of_the_network(dtype):
    for rho in ("interior", "logistic", "shifted_tanh"):
        p = problem(rho, dtype)
        assert {f.dtype for f in rate.field(p.network, p.drive, some_state(p), p.nudges["nudged"])} == {np.dtype(dtype)}


@pytest.mark.parametrize("beta", [0, np.nan, np.inf])
def test_a_nudge_needs_a_strength(beta):
    with pytest.raises(ConfigurationError, match="beta"):
        Nudge(beta, np.zeros((1, 1)))


def test_a_nudge_must_leave_the_output_a_leak():
    p = problem("time-constants")  # r of the output 0.8: leak 1.25
    target = p.nudges["nudged"].target
    Nudge(-1.24, target).check(p.network, p.batch)
    with pytest.raises(ConfigurationError, match=r"-1\.25"):
        Nudge(-1.25, target).check(p.network, p.batch)
    with pytest.raises(ShapeError, match="nudge target"):
        Nudge(1.0, target[:, :2]).check(p.network, p.batch)
    with pytest.raises(NotFiniteError, match=r"nudge target\[0, 0\]"):
        Nudge(1.0, np.full_like(target, np.nan)).check(p.network, p.batch)


def inner_rest(p):
    """(N,) the free equilibrium of the first sample of a ring, all units inside, stable or not."""
    mask = np.zeros((p.batch, p.network.depth), int)
    return rate.flatten(oracles.solve_masked(p.network, p.images, mask))[0]


def jacobian(p):
    """d(ds/dt)/ds there, by central differences of the field (exact: it is linear)."""
    rest = inner_rest(p)
    columns = []
    for i in range(len(rest)):
        ends = [rest + sign * 0.01 * np.eye(len(rest))[i] for sign in (1, -1)]
        up, down = (rate.flatten(rate.field(p.network, p.drive[:1], rate.layers(p.network, s[None])))[0] for s in ends)
        columns.append((up - down) / 0.02)
    return np.array(columns)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_a_ring_is_stable_up_to_the_secant(n):
    """Model fact 8: the loop gain at which the slowest mode stops decaying is sec(pi / n)^n."""
    critical = brentq(
        lambda gamma: np.linalg.eigvals(jacobian(problems.ring(n, gamma))).real.max(), 1.0, 20.0, xtol=1e-9
    )
    assert critical == pytest.approx(1 / np.cos(np.pi / n) ** n, abs=1e-6)


@pytest.mark.parametrize(("n", "gamma"), [(3, 4.0), (4, 2.0), (5, 1.5)])
def test_euler_steps_of_a_ring_decay_up_to_their_bound(n, gamma):
    """Model fact 8: s <- s + h ds/dt is stable iff h < min 2 (-Re l) / |l|^2 over the modes l."""
    p = problems.ring(n, gamma)
    modes = np.linalg.eigvals(jacobian(p))
    bound = (2 * -modes.real / np.abs(modes) ** 2).min()
    assert bound > 0
    rest = inner_rest(p)[None]
    for factor in (0.97, 1.03):
        s = rest + 1e-9 * np.linspace(-1, 1, n)
        for _ in range(600):
            s = s + factor * bound * rate.flatten(rate.field(p.network, p.drive[:1], rate.layers(p.network, s)))
        assert (np.linalg.norm(s - rest) < 1e-9) == (factor < 1)


def test_at_a_beta_below_the_leak_a_stable_network_may_never_settle() -> None:
    """Why such a beta is refused. One hidden unit h and one output y, r = 1, both inside [0, 1]:

        dh/dt = y - h,    dy/dt = 11/4 - 2 h - y - beta (y - 1)

    Freely it settles for every negative gain of the loop (trace -2, determinant 1 + 2). At beta =
    -5/2 the output's own coefficient is c = 3/2 > 0; trace c - 1 > 0 and determinant 2 - c > 0: the
    only equilibrium repels, and the state circles for ever, clipped to [0, 1] as it is.
    """
    network = loop_network([1, 1, 1], rng=0, dtype=np.float64).with_parameters(
        {
            "input": np.zeros((1, 1)),
            "forward[0]": np.full((1, 1), -2.0),
            "loop": np.ones((1, 1)),
            "biases[0]": np.zeros(1),
            "biases[1]": np.full(1, 2.75),
        }
    )
    beta = -2.5

    def slope(h, y):
        return y - h, 2.75 - 2 * h - y - beta * (y - 1)

    drive = np.zeros((1, 1))
    settled = [np.full((1, 1), 11 / 12)] * 2
    np.testing.assert_allclose(rate.field(network, drive, settled), 0, atol=1e-12)
    with pytest.raises(ConfigurationError, match="no longer leaks"):
        Nudge(beta, np.ones((1, 1))).check(network, 1)
    # where it rests h = y, and along that line the field of y is 0 at 1/2 alone: not at 0, not at 1
    assert slope(0, 0)[1] > 0 == slope(0.5, 0.5)[1] > slope(1, 1)[1]
    h = y = 11 / 12
    crossings, dt = [], 1e-3
    for step in range(200_000):
        (dh, dy), before = slope(h, y), y
        h, y = min(max(h + dt * dh, 0.0), 1.0), min(max(y + dt * dy, 0.0), 1.0)
        if before <= 0.5 < y:
            crossings.append(step * dt)
    periods = np.diff(crossings)
    assert len(periods) > 10
    np.testing.assert_allclose(periods[-5:], periods[-1], rtol=0.01)
    assert 1 < periods[-1] < 20
