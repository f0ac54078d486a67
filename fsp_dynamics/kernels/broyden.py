"""One sample's equilibrium in the space of its outputs: one step of Broyden's method under the
exact clip.

The loop closes through n outputs. With u(y) what enters them after one pass from the outputs y, an
equilibrium is a root of

    y = clip((u(y) + beta d) / kappa),  kappa = leak + beta                      (`clipped_target`)

Each sample keeps a model u(y') ~ u(y) + (y' - y) S of its own, S (n, n). Every pass corrects it by
a secant update (`broyden_update`), and the next outputs are the root of the model under the exact
clip (`predict`): a linear solve for the outputs inside (0, 1), while those at 0 or 1 stay.

Vectors of n outputs are the first n elements of rows padded for kernels/panels.py.
"""

from __future__ import annotations

import numpy as np

from fsp_dynamics.kernels.field import Array, apart, bare, unit_target

ITERATIONS = 20  # of Gauss-Seidel over the outputs of one model; two or three usually do


@bare
def clipped(v: float) -> float:
    """clip(v, 0, 1), NaN stays NaN."""
    return min(max(v, 0.0), 1.0)


@bare
def clipped_target(u: float, leak: float, beta: float, d: float) -> float:
    """clip((u + beta d) / (leak + beta)), NaN stays NaN: the fixed point of an output with constant
    input.
    """
    return clipped(unit_target(u, leak, beta, d))


@bare
def mismatch(y: Array, u: Array, leak: float, beta: float, d: Array, n: int) -> float:
    """||clip((u + beta d) / kappa) - y||: how far the outputs are from where they would settle, the
    residual of the whole network at states that follow from y.
    """
    total = 0.0
    for j in range(n):
        aim = clipped_target(np.float64(u[j]), leak, beta, np.float64(d[j]))
        total += np.float64(aim - y[j]) ** 2
    return np.sqrt(total)


@apart
def broyden_update(slope: Array, dy: Array, du: Array, n: int) -> None:
    """S <- S + dy^T (du - dy S) / ||dy||^2: the smallest change after which the model explains the
    last move (Broyden 1965).
    """
    size = 0.0
    for i in range(n):
        size += np.float64(dy[i]) ** 2
    if not (size > 0 and np.isfinite(size)):
        return
    for i in range(n):
        if dy[i] != 0:
            for j in range(n):
                du[j] -= dy[i] * slope[i, j]
    for i in range(n):
        if dy[i] != 0:
            weight = slope.dtype.type(dy[i] / size)
            for j in range(n):
                slope[i, j] += weight * du[j]


@apart
def predict(
    y: Array, u: Array, slope: Array, leak: float, beta: float, d: Array, z: Array, v: Array, n: int, accuracy: float
) -> None:
    """z <- the root of z = clip((u + (z - y) S + beta d) / kappa), output by output, each solved
    exactly with the others held (Gauss-Seidel).

    v (n,) is scratch for the model's u(z). An output whose own slope leaves it no leak takes the
    plain pass.
    """
    kappa = leak + beta
    for j in range(n):
        z[j], v[j] = y[j], u[j]
    for _ in range(ITERATIONS):
        furthest = 0.0
        for j in range(n):
            own = slope[j, j] if kappa - slope[j, j] > 0.1 * kappa else slope.dtype.type(0)
            move = z.dtype.type(clipped((v[j] - own * z[j] + beta * d[j]) / (kappa - own))) - z[j]
            if move != 0:
                z[j] += move
                for i in range(n):
                    v[i] += move * slope[j, i]
                furthest = max(furthest, abs(move))
        if not furthest > accuracy:
            return


@apart
def may_amplify(slope: Array, u: Array, leak: float, beta: float, d: Array, n: int, powers: Array) -> bool:
    """Whether a change of the outputs may come back larger: not if ||S^m|| < kappa^m in the
    Frobenius norm for m = 1, 2 or 4.

    S is restricted to the outputs whose input holds them inside (0, 1): the others do not change.
    Where nothing is amplified, the equilibrium is stable in time, as far as S models the
    directions. powers (2, n, n) float64 is scratch.
    """
    power, square = powers[0], powers[1]
    for i in range(n):
        moves = 0 < unit_target(np.float64(u[i]), leak, beta, np.float64(d[i])) < 1
        for j in range(n):
            free = moves and 0 < unit_target(np.float64(u[j]), leak, beta, np.float64(d[j])) < 1
            power[i, j] = slope[i, j] / (leak + beta) if free else 0.0
    for _ in range(3):
        size = 0.0
        for i in range(n):
            for j in range(n):
                size += np.float64(power[i, j]) ** 2
        if size < 1:
            return False
        for i in range(n):
            for j in range(n):
                square[i, j] = 0
            for k in range(n):
                for j in range(n):
                    square[i, j] += power[i, k] * power[k, j]
        for i in range(n):
            for j in range(n):
                power[i, j] = square[i, j]
    return True


@apart
def mean_slope(moments: Array, products: Array, slope: Array, scratch: Array) -> None:
    """slope <- the regression of du on dy from moments = sum dy^T dy and products = sum dy^T du,
    (n, n) float64.

    A ridge of one hundredth of the mean moment keeps directions with hardly any data at slope 0.
    By Cholesky's method; scratch (2, n, n) float64.
    """
    n = moments.shape[0]
    ridge = 1e-30
    for i in range(n):
        ridge += 0.01 * moments[i, i] / n
    lower, column = scratch[0], scratch[1, 0]
    for i in range(n):
        for j in range(i + 1):
            total = moments[i, j] + (ridge if i == j else 0.0)
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            lower[i, j] = np.sqrt(total) if i == j else total / lower[j, j]
    for c in range(n):
        for i in range(n):
            column[i] = products[i, c]
            for k in range(i):
                column[i] -= lower[i, k] * column[k]
            column[i] /= lower[i, i]
        for i in range(n - 1, -1, -1):
            for k in range(i + 1, n):
                column[i] -= lower[k, i] * column[k]
            column[i] /= lower[i, i]
            slope[i, c] = column[i]
