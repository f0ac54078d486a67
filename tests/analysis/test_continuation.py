"""Branches of equilibria against closed forms (model facts 4 and 8), folds and Hopf points against
direct systems solved by scipy.
"""

from __future__ import annotations

import numpy as np
import oracles
import problems
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, root

from fsp_dynamics.analysis.continuation import continuation
from fsp_dynamics.errors import ConfigurationError, NotFiniteError, ShapeError
from fsp_dynamics.models.activations import Activation, logistic, logistic_slope
from fsp_dynamics.models.network import Network
from fsp_dynamics.models.rate import Nudge

ONE = np.ones((1, 1))
NOTHING = np.zeros(1)


def switch(loop=1.0):
    """s_1 = clip(g y - 0.2), y = clip(2 s_1 + 0.1): equilibria at y = 0.1 for g < 2, at 1 for g >
    0.65, and at 0.3 / (2 g - 1) between (loop = g).
    """
    return Network(input=0 * ONE, forward=(2 * ONE,), loop=loop * ONE, biases=(np.array([-0.2]), np.array([0.1])))


def smooth_ring(weights, biases, rho, time_constants=()):
    *forward, loop = (w * ONE for w in weights)
    return Network(
        0 * ONE, tuple(forward), tuple(np.full(1, b) for b in biases), loop=loop, rho=rho, time_constants=time_constants
    )


def field_of(network, state, factor):
    """Field and Jacobian (N,), (N, N) of a network of single units, the loop multiplied by
    `factor`.
    """
    scaled = network.with_parameters({"loop": factor * network.loop})
    layers = oracles.split(network, np.asarray(state)[None])
    images = np.zeros((1, 1))
    return np.concatenate(oracles.field(scaled, images, layers), axis=1)[0], oracles.jacobian(scaled, images, layers)[0]


def worst(network, image, branch, target=None):
    """The largest residual along a branch, by slow twins."""
    found = []
    for value, *rows in zip(branch.parameter, *branch.states, strict=True):
        state = tuple(row[None] for row in rows)
        if target is None:
            at, nudge = network.with_parameters({"loop": value * network.loop}), None
        else:
            at, nudge = network, None if value == 0 else Nudge(float(value), np.asarray(target, float)[None])
        found.append(oracles.residual(at, np.asarray(image)[None], state, nudge)[0])
    return max(found)


@pytest.mark.parametrize("span", [(0.3, 3.0), (3.0, 0.3)])
def test_a_switch_is_followed_through_both_folds(span) -> None:
    """The corners of a hard sigmoid, where the parameter changes direction: at gain 2 and 0.65,
    whatever side one comes from.
    """
    branch = continuation(switch(), NOTHING, "loop", span)
    assert branch.ended == "span"
    assert (branch.parameter[0], branch.parameter[-1]) == span
    marks = branch.folds if span[0] < 1 else branch.folds[::-1]
    assert [m.parameter for m in marks] == pytest.approx([2.0, 0.65], abs=1e-10)
    assert [m.output[0] for m in marks] == pytest.approx([0.1, 1.0], abs=1e-10)
    assert branch.hopf == ()
    g, y = branch.parameter, branch.outputs[:, 0]
    inside = (y > 0.1 + 1e-9) & (y < 1 - 1e-9)
    assert inside.sum() > 10
    assert y[inside] == pytest.approx(0.3 / (2 * g[inside] - 1), abs=1e-10)
    assert branch.states[0][:, 0] == pytest.approx(np.clip(g * y - 0.2, 0, 1), abs=1e-10)
    assert not branch.stable[inside].any()
    assert branch.stable[((y < 0.1 + 1e-9) & (g < 2 - 1e-9)) | ((y > 1 - 1e-9) & (g > 0.65 + 1e-9))].all()
    # (1 + l)^2 = 2 g
    assert branch.abscissa[inside] == pytest.approx(np.sqrt(2 * g[inside]) - 1, abs=1e-10)
    for m in branch.folds:
        assert branch.parameter[m.row] == pytest.approx(m.parameter, abs=1e-12)


def test_a_switch_that_is_nudged() -> None:
    """y = (0.1 + beta) / (1 + beta) until the hidden unit becomes active at 1.2 y = 0.2, beta =
    0.08; from there back along (0.3 - beta) / (1.4 - beta).
    """
    branch = continuation(switch(1.2), NOTHING, "beta", (-0.5, 0.3), target=[1.0])
    assert [m.parameter for m in branch.folds] == pytest.approx([0.08], abs=1e-10)
    assert branch.ended == "span"
    assert branch.parameter[-1] == -0.5
    beta, y = branch.parameter, branch.outputs[:, 0]
    before = np.arange(len(beta)) <= branch.folds[0].row
    assert y[before] == pytest.approx(np.clip((0.1 + beta[before]) / (1 + beta[before]), 0, 1), abs=1e-10)
    assert y[~before] == pytest.approx((0.3 - beta[~before]) / (1.4 - beta[~before]), abs=1e-10)
    assert branch.stable.tolist() == before.tolist()


def test_a_start_near_the_upper_equilibrium_begins_there() -> None:
    start = (np.full((1, 1), 1.0), np.full((1, 1), 1.0))
    branch = continuation(switch(), NOTHING, "loop", (1.0, 0.3), start=start)
    assert branch.outputs[0, 0] == 1.0
    assert [m.parameter for m in branch.folds] == pytest.approx([0.65], abs=1e-10)
    # back at its beginning, on the branch between
    assert (branch.parameter[-1], branch.ended) == (1.0, "span")
    assert branch.outputs[-1, 0] == pytest.approx(0.3, abs=1e-12)
    assert continuation(switch(), NOTHING, "loop", (1.0, 0.3)).outputs[0, 0] == pytest.approx(0.1, abs=1e-12)


def test_a_start_beside_a_saddle_begins_there() -> None:
    """y = 0.3 / (2 g - 1) = 0.3 at g = 1, which a relaxation would leave for 0.1 or 1."""
    start = (np.full((1, 1), 0.11), np.full((1, 1), 0.31))
    branch = continuation(switch(), NOTHING, "loop", (1.0, 1.5), start=start)
    assert branch.outputs[[0, -1], 0] == pytest.approx([0.3, 0.15], abs=1e-12)
    assert not branch.stable.any()


def test_a_start_with_units_on_the_wrong_sides_still_begins_at_an_equilibrium() -> None:
    """The inputs of (0.5, 0.19) have the hidden unit at 0 and the output at 1, where nothing
    is at equilibrium.
    """
    start = (np.full((1, 1), 0.5), np.full((1, 1), 0.19))
    assert worst(switch(), NOTHING, continuation(switch(), NOTHING, "loop", (1.0, 1.5), start=start)) < 1e-10


@pytest.mark.parametrize("n", [3, 4, 5])
def test_rings_begin_to_oscillate_at_the_known_gain(n) -> None:
    """Model fact 8: at a gain of sec(pi / n)^n, with frequency tan(pi / n)."""
    limit = 1 / np.cos(np.pi / n) ** n
    p = problems.ring(n, limit / 1.1)
    branch = continuation(p.network, p.images[0], "loop", (0.8, 1.3))
    (hopf,) = branch.hopf
    assert hopf.parameter == pytest.approx(1.1, abs=1e-10)
    assert hopf.frequency == pytest.approx(np.tan(np.pi / n), abs=1e-10)
    assert branch.parameter[hopf.row] < 1.1 <= branch.parameter[hopf.row + 1]
    assert branch.stable.tolist() == (branch.parameter < 1.1).tolist()
    assert branch.folds == ()


def test_a_branch_may_begin_unstable() -> None:
    """No relaxation converges beyond the Hopf point."""
    p = problems.ring(3, 9.0)
    (hopf,) = continuation(p.network, p.images[0], "loop", (1.0, 0.7)).hopf
    assert hopf.parameter == pytest.approx(8 / 9, abs=1e-10)


def test_a_smooth_branch_may_begin_where_fixed_point_iteration_fails() -> None:
    network = problems.random_network(
        3, [3, 6, 5, 3], 5e3, rho="shifted_tanh", low=-1, high=1, time_constants=(1.0, 0.5, 2.0)
    )
    branch = continuation(network, np.full(3, 0.4), "beta", (-0.3, 0.0), target=np.zeros(3))
    assert worst(network, np.full(3, 0.4), branch, np.zeros(3)) < 1e-11
    assert branch.ended == "span"


@pytest.mark.parametrize(
    ("name", "beta"), [("interior", 0.5), ("interior", -0.2), ("ring-3", 0.7), ("time-constants", 0.01)]
)
def test_a_nudge_in_closed_form_while_no_mask_changes(name, beta) -> None:
    """Model fact 4 all along the branch."""
    p = problems.problem(name)
    target = p.nudges["nudged"].target[0]
    branch = continuation(p.network, p.images[0], "beta", (0.0, beta), target=target)
    free = tuple(s[:1] for s in p.known["free"])
    assert branch.parameter[0] == 0
    assert branch.parameter[-1] == beta
    for row, value in enumerate(branch.parameter[1:], 1):
        expected = oracles.nudged_equilibrium(p.network, p.images[:1], free, Nudge(value, target[None]))
        for k, s in enumerate(branch.states):
            assert s[row] == pytest.approx(expected[k][0], abs=1e-11)


@pytest.mark.parametrize(
    "name", ["strong", "deep", "saturated", "time-constants", "silent", "logistic", "shifted_tanh"]
)
def test_it_arrives_where_the_known_equilibria_are(name) -> None:
    """Through many corners, or none, from negative betas to positive ones; and every row is at
    equilibrium.
    """
    p = problems.problem(name)
    target = p.nudges["nudged"].target[0]
    branch = continuation(p.network, p.images[0], "beta", (p.nudges["negative"].beta, 0.7), target=target)
    for row, phase in ((0, "negative"), (-1, "nudged")):
        for k, s in enumerate(branch.states):
            assert s[row] == pytest.approx(p.known[phase][k][0], abs=1e-10)
    assert worst(p.network, p.images[0], branch, target) < 1e-10
    assert branch.stable.all()
    assert branch.folds == branch.hopf == ()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), gain=st.floats(1, 200))
def test_strong_loops_with_many_corners(seed, gain) -> None:
    """Every row is an equilibrium, and det(-J), which is positive without a loop, has changed its
    sign as often as there were folds.
    """
    network = problems.random_network(seed, [2, 4, 3, 2], gain, low=-1, high=1, time_constants=(1.0, 0.5, 2.0))
    image = np.array([0.3, 0.6])
    branch = continuation(network, image, "loop", (0.0, 1.0))
    assert branch.ended == "span"
    assert worst(network, image, branch) < 1e-10
    assert np.count_nonzero(np.diff(np.sign(np.diff(branch.parameter)))) == len(branch.folds)
    scaled = [network.with_parameters({"loop": g * network.loop}) for g in branch.parameter]
    unsure = close_to_kinks(scaled, image, branch)
    for row, at in enumerate(scaled):
        if row not in unsure:
            j = oracles.jacobian(at, image[None], tuple(s[row : row + 1] for s in branch.states))[0]
            assert (np.linalg.det(-j) < 0) == sum(fold.row < row for fold in branch.folds) % 2


def close_to_kinks(networks, image, branch):
    """Rows at which some unclipped equilibrium is 0 or 1 to rounding: the masks there are
    undetermined.
    """
    found = set()
    for row, network in enumerate(networks):
        a = oracles.total_input(network, image[None], tuple(s[row : row + 1] for s in branch.states))
        u = np.concatenate([layer[0] * r for layer, r in zip(a, network.time_constants, strict=True)])
        if np.min(np.minimum(np.abs(u), np.abs(u - 1))) < 1e-9:
            found.add(row)
    return found


@pytest.mark.parametrize("rho", ["logistic", "shifted_tanh"])
def test_smooth_folds_solve_the_fold_s_own_system(rho) -> None:
    """field = 0 and det J = 0 in (s_1, s_2, factor), by scipy's root."""
    w, s = (60.0, -2.0) if rho == "logistic" else (30.0, -1.3)
    network = smooth_ring((w, w), (3 - w / 2, 3 - w / 2), rho, time_constants=(1.0, 0.8))
    low = smooth_equilibrium(network, s)
    branch = continuation(network, NOTHING, "loop", (1.0, 3.0), start=low)
    assert worst(network, NOTHING, branch) < 1e-10
    assert len(branch.folds) >= 1
    for fold in branch.folds:
        state = [s[fold.row, 0] for s in branch.states]

        def system(x):
            f, j = field_of(network, x[:2], x[2])
            return [*f, np.linalg.det(j)]

        exact = root(system, [*state, branch.parameter[fold.row]], tol=1e-13)
        assert np.linalg.norm(exact.fun) < 1e-8
        assert fold.parameter == pytest.approx(exact.x[2], abs=1e-7)
        assert fold.output[0] == pytest.approx(exact.x[1], abs=1e-4)
        assert fold.frequency == 0
    turns = np.flatnonzero(np.diff(np.sign(np.diff(branch.parameter))))
    assert [fold.row for fold in branch.folds] == pytest.approx(turns, abs=1)
    assert (np.diff(branch.stable.astype(int)) != 0).sum() == len(branch.folds)


def smooth_equilibrium(network, s):
    """The equilibrium of a network of single units near s in all of them."""
    found = root(lambda x: field_of(network, x, 1.0)[0], np.full(network.depth, s), tol=1e-14)
    assert np.linalg.norm(found.fun) < 1e-10
    return oracles.split(network, found.x[None])


def test_a_smooth_ring_begins_and_ceases_to_oscillate() -> None:
    """The largest real part of the eigenvalues is 0, found by bisection over equilibria that scipy
    computes.
    """
    network = smooth_ring((30.0, 32.0, -36.0), (18.5, -15.5, -16.0), "logistic", time_constants=(1.0, 0.7, 1.5))
    branch = continuation(network, NOTHING, "loop", (0.2, 3.0))

    def rightmost(factor):
        near = np.argmin(np.abs(branch.parameter - factor))
        state = root(lambda x: field_of(network, x, factor)[0], [s[near, 0] for s in branch.states], tol=1e-14).x
        values = np.linalg.eigvals(field_of(network, state, factor)[1])
        return values[np.argmax(values.real)]

    # it begins at a factor near 1, and ends where the units leave the steep part of rho
    assert len(branch.hopf) == 2
    for hopf, between in zip(branch.hopf, ((0.2, 1.3), (1.3, 3.0)), strict=True):
        exact = brentq(lambda factor: rightmost(factor).real, *between, xtol=1e-12)
        assert hopf.parameter == pytest.approx(exact, abs=1e-6)
        assert hopf.frequency == pytest.approx(abs(rightmost(exact).imag), abs=1e-6)
    swinging = (branch.parameter > branch.hopf[0].parameter) & (branch.parameter < branch.hopf[1].parameter)
    assert branch.stable.tolist() == (~swinging).tolist()
    assert worst(network, NOTHING, branch) < 1e-11


def test_short_steps_and_few_points() -> None:
    p = problems.problem("interior")
    long, short = (continuation(p.network, p.images[0], "loop", (0.5, 1.5), step=step) for step in (0.05, 0.01))
    assert len(short.parameter) > 3 * len(long.parameter)
    assert np.diff(short.parameter).max() <= 0.01 + 1e-12
    assert short.outputs[-1] == pytest.approx(long.outputs[-1], abs=1e-12)
    some = continuation(p.network, p.images[0], "loop", (0.5, 1.5), points=7)
    assert (some.ended, len(some.parameter), len(some.outputs), len(some.abscissa)) == ("points", 7, 7, 7)


def test_single_precision_networks_are_followed_in_double() -> None:
    p = problems.problem("strong", np.float32)
    branch = continuation(p.network, p.images[0], "beta", (0.0, 0.7), target=p.nudges["nudged"].target[0])
    assert branch.outputs.dtype == np.float64
    assert branch.outputs[-1] == pytest.approx(p.known["nudged"][-1][0], abs=1e-6)


def test_unusable_input_is_named() -> None:
    p, tied = problems.problem("strong"), problems.problem("tied")
    target = np.zeros(3)
    with pytest.raises(ConfigurationError, match=r"no loop \(loop = None\)"):
        continuation(tied.network, tied.images[0], "beta", (0, 1), target=target)
    with pytest.raises(ConfigurationError, match="parameter = 'gain' is unknown"):
        continuation(p.network, p.images[0], "gain", (0, 1))
    with pytest.raises(
        ConfigurationError, match=r"target with parameter = 'beta' is NoneType, expected \(n_L,\) = \(3,\)"
    ):
        continuation(p.network, p.images[0], "beta", (0, 1))
    with pytest.raises(ConfigurationError, match="target with parameter = 'loop' is ndarray, expected None"):
        continuation(p.network, p.images[0], "loop", (0, 1), target=target)
    with pytest.raises(ConfigurationError, match=r"span = \(1, 1\), expected two different"):
        continuation(p.network, p.images[0], "loop", (1, 1))
    with pytest.raises(ConfigurationError, match="expected values above -1"):
        continuation(p.network, p.images[0], "beta", (1, -1), target=target)
    with pytest.raises(ConfigurationError, match="step = 0"):
        continuation(p.network, p.images[0], "loop", (0, 1), step=0)
    with pytest.raises(ConfigurationError, match="points = 1"):
        continuation(p.network, p.images[0], "loop", (0, 1), points=1)
    with pytest.raises(ShapeError, match="image has shape"):
        continuation(p.network, p.images, "loop", (0, 1))
    with pytest.raises(ShapeError, match="target has shape"):
        continuation(p.network, p.images[0], "beta", (0, 1), target=np.zeros(2))
    with pytest.raises(NotFiniteError):
        continuation(p.network, p.images[0] * np.nan, "loop", (0, 1))
    own = smooth_ring((1.0, 1.0), (0.0, 0.0), Activation("own", logistic, logistic_slope))
    with pytest.raises(ConfigurationError, match="needs its curvature"):
        continuation(own, NOTHING, "loop", (0, 1))
