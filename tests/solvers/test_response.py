"""The linear response of an equilibrium and its adjoint: against finite differences of the
equilibrium itself, and against dense solves.
"""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from problems import NAMES, problem, random_problem

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.rate import Nudge
from fsp_dynamics.solvers import relax
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.loop_newton import loop_jacobian
from fsp_dynamics.solvers.response import CHUNK, adjoint, chain, gains, loop_matrix, response

STEP = 1e-6
TIGHT = Tolerance(1e-13)
SMOOTH_ENOUGH = [name for name in NAMES if name != "silent"]  # silent: every unit rests on a kink
LOOPS = [name for name in SMOOTH_ENOUGH if name not in ("tied", "untied")]


def converged(p):
    free = relax(p.network, p.images, tolerance=TIGHT)
    target = p.nudges["nudged"].target
    return free, target, gains(p.network, free.state, None, p.drive)


def dense_round_trip(network, found):
    """(B, N, N): gamma_i w_ij in row i = pre, by the units' slopes and answers."""
    whole, _ = oracles.coupling(network)
    gamma = np.concatenate(found.round_trip, axis=1)
    return whole[None] * gamma[:, None, :]


@pytest.mark.parametrize("name", SMOOTH_ENOUGH)
def test_the_response_is_how_the_equilibrium_moves_under_a_small_nudge(name) -> None:
    p = problem(name)
    free, target, found = converged(p)
    moved = [
        relax(p.network, p.images, nudge=Nudge(sign * STEP, target), start=free, tolerance=TIGHT) for sign in (1, -1)
    ]
    rate = p.network.rho.rate
    for k, q in enumerate(response(p.network, found, target - free.output)):
        np.testing.assert_allclose(q, (rate(moved[0].state[k]) - rate(moved[1].state[k])) / (2 * STEP), atol=2e-7)


@pytest.mark.parametrize("name", SMOOTH_ENOUGH)
def test_the_adjoint_is_how_the_cost_falls_with_a_unit_s_input(name) -> None:
    """-dC/da_j of one unit in each layer, by moving its bias up and down."""
    p = problem(name)
    free, target, found = converged(p)
    v = adjoint(p.network, found, target - free.output)

    def cost(k, change):
        bias = p.network.biases[k].copy()
        bias[-1] += change
        rest = relax(p.network.with_parameters({f"biases[{k}]": bias}), p.images, start=free, tolerance=TIGHT)
        return 0.5 * ((rest.output - target) ** 2).sum(1)

    for k in range(p.network.depth):
        np.testing.assert_allclose(v[k][:, -1], (cost(k, -STEP) - cost(k, STEP)) / (2 * STEP), atol=1e-6)


@pytest.mark.parametrize("name", SMOOTH_ENOUGH)
def test_both_solve_their_linear_system_over_all_units(name) -> None:
    """q (I - W gamma) = p h e and (I - gamma W) v = p h e, solved densely."""
    p = problem(name)
    free, target, found = converged(p)
    push = target - free.output
    dense, flat = dense_round_trip(p.network, found), np.zeros((p.batch, sum(p.network.sizes[1:])))
    flat[:, -p.network.sizes[-1] :] = found.slope[-1] * found.answer[-1] * push
    identity = np.eye(flat.shape[1])
    forwards = np.stack([np.linalg.solve(identity - d.T, f) for d, f in zip(dense, flat, strict=True)])
    whole, _ = oracles.coupling(p.network)
    gamma = np.concatenate(found.round_trip, axis=1)
    backwards = np.stack([np.linalg.solve(identity - g[:, None] * whole, f) for g, f in zip(gamma, flat, strict=True)])
    np.testing.assert_allclose(np.concatenate(response(p.network, found, push), axis=1), forwards, atol=1e-10)
    np.testing.assert_allclose(np.concatenate(adjoint(p.network, found, push), axis=1), backwards, atol=1e-10)


@pytest.mark.parametrize("name", LOOPS)
def test_one_turn_round_the_loop(name) -> None:
    """G_D is the product of all masked matrices, C the same without the output's own factor; more
    samples than one chunk do the same.
    """
    p = problem(name)
    free, _, found = converged(p)
    many = tuple(np.resize(s, (2 * CHUNK + 3, s.shape[1])) for s in free.state)
    drive = np.resize(p.drive, (2 * CHUNK + 3, p.drive.shape[1]))
    repeated = loop_matrix(p.network, gains(p.network, many, None, drive))
    for b in range(p.batch):
        turn = p.network.loop * found.round_trip[0][b]
        for w, gamma in zip(p.network.forward[:-1], found.round_trip[1:-1], strict=True):
            turn = turn @ w * gamma[b]
        turn = turn @ p.network.forward[-1]
        np.testing.assert_allclose(chain(p.network, found)[b], turn, atol=1e-14)
        np.testing.assert_allclose(loop_matrix(p.network, found)[b], turn * found.round_trip[-1][b], atol=1e-14)
        np.testing.assert_allclose(repeated[b], turn * found.round_trip[-1][b], atol=1e-14)


def test_a_nudge_adds_to_the_output_s_leak() -> None:
    p = random_problem(3)
    nudge = p.nudges["nudged"]
    rest = relax(p.network, p.images, nudge=nudge, tolerance=TIGHT)
    inside = (rest.output > 0) & (rest.output < 1)
    found = gains(p.network, rest.state, nudge, p.drive)
    np.testing.assert_array_equal(found.answer[-1], inside / (1 + nudge.beta))
    np.testing.assert_array_equal(loop_jacobian(p.network, rest.state, nudge, p.drive), loop_matrix(p.network, found))


def test_refusals() -> None:
    state, drive = tuple(np.zeros((1, n)) for n in (4, 2)), np.zeros((1, 4))
    square = loop_network([3, 4, 2], rho=Activation("square", lambda s: s * s, lambda s: 2 * s), rng=0)
    with pytest.raises(ConfigurationError, match=r"give Activation\(\.\.\., curvature=\.\.\.\)"):
        gains(square, state, None, drive)
    with pytest.raises(ConfigurationError, match="has no loop"):
        chain(reciprocal_network([3, 4, 2]), gains(reciprocal_network([3, 4, 2]), state, None, drive))


def test_where_the_loop_sends_back_exactly_what_was_sent_there_is_no_response() -> None:
    network = loop_network([1, 1, 1], dtype=np.float64, rng=0).with_parameters(
        {"loop": np.ones((1, 1)), "forward[0]": np.ones((1, 1)), "biases[0]": np.zeros(1)}
    )
    found = gains(network, (np.full((1, 1), 0.5), np.full((1, 1), 0.5)), None, np.zeros((1, 1)))
    assert np.isnan(response(network, found, np.ones((1, 1)))[-1]).all()
    assert np.isnan(adjoint(network, found, np.ones((1, 1)))[-1]).all()
