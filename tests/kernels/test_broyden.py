"""The steps of a sample in the space of its outputs: the secant update, the root of the
model, the regression of the mean slope.
"""

from __future__ import annotations

import numpy as np
import pytest

from fsp_dynamics.kernels import broyden as kernels
from fsp_dynamics.kernels.field import jit

# The kernels themselves have no way in from Python; these have one.
broyden_update = jit(lambda slope, dy, du, n: kernels.broyden_update(slope, dy, du, n))
predict = jit(
    lambda y, u, slope, leak, beta, d, z, v, n, accuracy: kernels.predict(y, u, slope, leak, beta, d, z, v, n, accuracy)
)
mean_slope = jit(lambda moments, products, slope, scratch: kernels.mean_slope(moments, products, slope, scratch))
may_amplify = jit(lambda slope, u, leak, beta, d, n, powers: kernels.may_amplify(slope, u, leak, beta, d, n, powers))
mismatch = jit(lambda y, u, leak, beta, d, n: kernels.mismatch(y, u, leak, beta, d, n))

N, PADDED = 7, 8
RNG = np.random.default_rng(0)


def vector(low=-1.0, high=1.0):
    return np.append(RNG.uniform(low, high, N), 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_secant_update_explains_the_move_and_changes_nothing_across_it(seed) -> None:
    rng = np.random.default_rng(seed)
    before, dy, du = rng.normal(size=(N, PADDED)), rng.normal(size=PADDED), rng.normal(size=PADDED)
    slope = before.copy()
    broyden_update(slope, dy, du.copy(), N)
    np.testing.assert_allclose(dy[:N] @ slope[:, :N], du[:N], atol=1e-12)
    across = np.linalg.svd(dy[None, :N])[2][1:]
    np.testing.assert_allclose(across @ slope[:, :N], across @ before[:, :N], atol=1e-12)
    still = slope.copy()
    broyden_update(still, np.zeros(PADDED), du.copy(), N)
    assert (still == slope).all()


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.4])
def test_the_prediction_is_a_root_of_the_model_under_the_clip(beta) -> None:
    leak, kappa = 1.25, 1.25 + beta
    for _ in range(50):
        slope = np.zeros((N, PADDED))
        slope[:, :N] = RNG.uniform(-0.8, 0.8, (N, N)) * kappa / N
        y, u, d = vector(0, 1), vector(-2, 2), vector(0, 1)
        z, v = np.zeros(PADDED), np.zeros(PADDED)
        predict(y, u, slope, leak, beta, d, z, v, N, 1e-14)
        model = u[:N] + (z - y)[:N] @ slope[:, :N]
        np.testing.assert_allclose(z[:N], np.clip((model + beta * d[:N]) / kappa, 0, 1), atol=1e-12)
        assert mismatch(z, np.append(model, 0), leak, beta, d, N) <= 1e-11


def test_an_output_whose_own_slope_leaves_no_leak_takes_the_plain_pass() -> None:
    slope = np.zeros((N, PADDED))
    slope[2, 2] = 3.0
    y, u, z, v = vector(0, 1), vector(0.2, 0.8), np.zeros(PADDED), np.zeros(PADDED)
    y[2] = u[2]
    predict(y, u, slope, 1.0, 0.0, np.zeros(PADDED), z, v, N, 1e-14)
    np.testing.assert_allclose(z[:N], u[:N], atol=1e-14)


def test_the_mean_slope_is_a_regression() -> None:
    dy = RNG.normal(size=(400, N))
    truth = RNG.normal(size=(N, N))
    du, slope, scratch = dy @ truth, np.zeros((N, PADDED)), np.zeros((2, N, N))
    mean_slope(dy.T @ dy, dy.T @ du, slope, scratch)
    ridge = 0.01 * np.trace(dy.T @ dy) / N
    np.testing.assert_allclose(slope[:, :N], np.linalg.solve(dy.T @ dy + ridge * np.eye(N), dy.T @ du), atol=1e-10)
    mean_slope(np.zeros((N, N)), np.zeros((N, N)), slope, scratch)
    assert (slope[:, :N] == 0).all()


def test_only_what_may_come_back_larger_is_doubted() -> None:
    """Never silent where an eigenvalue between moving outputs reaches 1; silent where the fourth
    power is small, and for outputs that their input holds at a wall, wherever their state still
    is.
    """
    powers, inside, d = np.zeros((2, N, N)), np.full(PADDED, 0.5), np.full(PADDED, 0.7)
    for _ in range(200):
        slope = np.zeros((N, PADDED))
        slope[:, :N] = RNG.normal(size=(N, N)) * RNG.uniform(0.1, 1)
        largest = np.abs(np.linalg.eigvals(slope[:, :N])).max()
        fourth = np.linalg.norm(np.linalg.matrix_power(slope[:, :N] / 1.5, 4))
        doubted = may_amplify(slope, inside, 1.0, 0.5, d, N, powers)
        assert doubted or largest < 1.5
        assert not doubted or fourth >= 1
    slope[:, :N] = 9
    assert may_amplify(slope, inside, 1.0, 0.5, d, N, powers)
    walls = np.tile([-0.35, 1.15], PADDED // 2)  # (u + beta d) / kappa is 0 and 1
    assert not may_amplify(slope, walls - np.tile([1e-9, -1e-9], PADDED // 2), 1.0, 0.5, d, N, powers)
