"""Anderson mixing of a fixed-point iteration y <- T(y), each sample with a history of its own."""

from __future__ import annotations

from functools import partial

import numpy as np

from fsp_dynamics.kernels.field import Array, inner, jitted

# smaller rises are normal in an expanding map, and leave the history by themselves
RESTART = 10.0
# a pass that carries a move of y this far on raises a doubt: where every move shrinks, the
# equilibrium is stable in time
GROWTH = 0.9


@partial(jitted, kept=True)
def anderson(
    rows: Array,
    y: Array,
    target: Array,
    ys: Array,
    fs: Array,
    sizes: Array,
    count: Array,
    doubts: Array,
    floor: float,
    ceiling: float,
) -> None:
    """One step y <- sum_j alpha_j T(y_j), in place, for the samples `rows`.

    With f_j = T(y_j) - y_j, the alpha (of sum 1) minimise ||sum_j alpha_j f_j|| over the last m
    iterates. The new y is clipped to [floor, ceiling]. A residual RESTART times that of the last
    pass empties the history: that step is a plain pass.

    rows (A,) sample numbers; y, target (A, n); ys, fs (B, m, n) the history of y and of f, newest
    in slot count % m; sizes (B,) ||f||^2 of the last pass; count (B,) passes in the history; doubts
    (B,) how often ||T(y) - T(y')|| was GROWTH ||y - y'|| or more between two passes.
    """
    m = ys.shape[1]
    n = y.shape[1]
    differences = np.empty((m, n))
    gram = np.empty((m, m))
    gamma = np.empty(m)
    for a in range(rows.size):
        row = rows[a]
        size = 0.0
        for i in range(n):
            size += (target[a, i] - y[a, i]) ** 2
        if count[row] > 0:
            last, moved, carried = (count[row] - 1) % m, 0.0, 0.0
            for i in range(n):
                moved += (y[a, i] - ys[row, last, i]) ** 2
                carried += (target[a, i] - ys[row, last, i] - fs[row, last, i]) ** 2
            if carried >= GROWTH**2 * moved:
                doubts[row] += 1
        if size > RESTART**2 * sizes[row]:
            count[row] = 0
        sizes[row] = size
        used = min(count[row], m)
        for j in range(used):
            for i in range(n):
                differences[j, i] = fs[row, j, i] - (target[a, i] - y[a, i])
        weights(differences[:used], target[a], y[a], gram, gamma)
        slot = count[row] % m
        for i in range(n):
            mixed = np.float64(target[a, i])
            for j in range(used):
                mixed += gamma[j] * (ys[row, j, i] + fs[row, j, i] - target[a, i])
            ys[row, slot, i] = y[a, i]
            fs[row, slot, i] = target[a, i] - y[a, i]
            y[a, i] = min(max(mixed, floor), ceiling)
        count[row] += 1


@partial(jitted, kept=True)
def weights(differences: Array, target: Array, y: Array, gram: Array, gamma: Array) -> None:
    """gamma <- argmin ||f + sum_j gamma_j differences[j]||, f = target - y, by Cholesky of the
    normal equations.

    The ridge of `solve` keeps nearly parallel differences from blowing up.
    """
    m, n = differences.shape
    for j in range(m):
        gamma[j] = 0.0
        for i in range(n):
            gamma[j] -= differences[j, i] * (target[i] - y[i])
        for k in range(j + 1):
            product = 0.0
            for i in range(n):
                product += differences[j, i] * differences[k, i]
            gram[j, k] = product
    solve(gram, gamma, m, gram)


@inner
def solve(gram: Array, right: Array, used: int, lower: Array) -> None:
    """right <- gram^-1 right (used,), by Cholesky: a ridge of 1e-12 of each diagonal entry; a
    column whose pivot is not positive is left out (0).

    gram (used, used), of which the lower half counts; lower takes its root, and may be gram
    itself.
    """
    for j in range(used):
        for k in range(j):
            total = gram[j, k]
            for i in range(k):
                total -= lower[j, i] * lower[k, i]
            lower[j, k] = total / lower[k, k] if lower[k, k] > 0 else 0.0
        size = gram[j, j] * (1 + 1e-12)
        pivot = size
        for i in range(j):
            pivot -= lower[j, i] ** 2
        lower[j, j] = np.sqrt(pivot) if pivot > 1e-14 * size else 0.0
        for i in range(j):
            right[j] -= lower[j, i] * right[i]
        right[j] = right[j] / lower[j, j] if lower[j, j] > 0 else 0.0
    for j in range(used - 1, -1, -1):
        for i in range(j + 1, used):
            right[j] -= lower[i, j] * right[i]
        right[j] = right[j] / lower[j, j] if lower[j, j] > 0 else 0.0
