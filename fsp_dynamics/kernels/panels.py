"""Weights in panels, and products with them that never copy a weight.

A (K, N) matrix is kept as w (P, K, COLUMNS), P = ceil(N / COLUMNS), the columns beyond N zero: each panel is read and written from its first byte
to its last. General BLAS libraries bring a matrix into such an order inside every product; for the few rows of a batch that costs more than the
product. Kept in order, a product of 5 rows was measured at 96 GFLOP/s where NumPy's matmul gave 27 (1500 x 1500, float32, one core of an AMD EPYC
whose best is about 98).

Matrices of rows that belong to panels have their row padded to P COLUMNS elements (`padded`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fsp_dynamics.kernels.field import Array, jit
from fsp_dynamics.kernels.tiles import BYTES, ROWS, TURNED_ROWS, TURNED_STEPS, columns, dot_tile, outer_tile, turned_tile

TURNED_PANELS = 32  # of which four rows, and the same columns of three rows of rates, stay in the first cache
TURNED_CHUNK = 48  # rows whose part of these columns stays in the second


def padded(n: int, dtype: object) -> int:
    """n, up to the next multiple of COLUMNS."""
    wide = columns(dtype)
    return -(-n // wide) * wide


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros of that shape whose first byte begins a cache line: no vector of a panel lies across two (NumPy promises 16 bytes only)."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    bytes_ = np.zeros(size + BYTES, np.uint8)
    begin = -bytes_.ctypes.data % BYTES
    return bytes_[begin : begin + size].view(dtype).reshape(shape)


def to_panels(matrix: Array) -> Array:
    """(K, N) -> (P, K, COLUMNS), a copy, `aligned`."""
    k, n = matrix.shape
    wide = columns(matrix.dtype)
    full = np.zeros((k, padded(n, matrix.dtype)), matrix.dtype)
    full[:, :n] = matrix
    panels = aligned((full.shape[1] // wide, k, wide), matrix.dtype)
    panels[:] = full.reshape(k, len(panels), wide).transpose(1, 0, 2)
    return panels


def from_panels(panels: Array, out: Array) -> None:
    """out (K, N) <- the matrix kept in these panels."""
    k, n = out.shape
    out[:] = panels.transpose(1, 0, 2).reshape(k, panels.shape[0] * panels.shape[2])[:, :n]


@jit
def multiply(a: Array, a_rows: Array, w: Array, c: Array, c_rows: Array, first: int, last: int, keep: bool) -> None:
    """c[c_rows[i]] <- [itself, if `keep`] + a[a_rows[i]] @ w, in the columns of the panels first ... last - 1.

    a (., K or more), w (P, K, COLUMNS), c (., P COLUMNS), all in C order; a_rows, c_rows (m,) int64, at any place of their arrays, no row twice
    in c_rows.
    """
    steps, wide = w.shape[1], w.shape[2]
    m = a_rows.size
    tiles = (m + ROWS - 1) // ROWS
    for p in range(first, last):
        row = 0
        for tile in range(tiles):  # as equal as can be: a lone last row would cost as much as six
            rows = (m - row + tiles - tile - 1) // (tiles - tile)
            dot_tile(rows, a, a_rows, w, p * steps * wide, steps, c, c_rows, p * wide, row, keep)
            row += rows


@jit
def multiply_transposed(a: Array, a_rows: Array, w: Array, c: Array, c_rows: Array, first: int, last: int, keep: bool) -> None:
    """c[c_rows[i], k] <- [itself, if `keep`] + sum_n a[a_rows[i], n] w[k, n], for first <= k < last: the product with the transposed matrix.

    a (., P COLUMNS), finite beyond N; w (P, K, COLUMNS), c (., K or more), all in C order; a_rows, c_rows (m,) int64, no row twice in c_rows.
    """
    m = a_rows.size
    for p in range(0, max(w.shape[0], 1), TURNED_PANELS):  # once even for none: then the sum is 0
        panels = min(TURNED_PANELS, w.shape[0] - p)
        for begin in range(0, m, TURNED_CHUNK):
            end = min(begin + TURNED_CHUNK, m)
            k = first
            while k < last:
                steps = TURNED_STEPS if k + TURNED_STEPS <= last else 1
                row, tiles = begin, (end - begin + TURNED_ROWS - 1) // TURNED_ROWS
                for tile in range(tiles):
                    rows = (end - row + tiles - tile - 1) // (tiles - tile)
                    turned_tile(rows, steps, a, a_rows, w, p, panels, k, c, c_rows, row, keep or p > 0, row == begin)
                    row += rows
                k += steps


@jit
def add_outer(l: Array, l_rows: Array, r: Array, r_rows: Array, scale: float, w: Array, first: int, last: int) -> None:  # noqa: E741
    """w += scale sum_i l[l_rows[i]].T r[r_rows[i]], for the rows first ... last - 1 of the panels laid end to end (P K of them).

    l (., K or more), r (., P COLUMNS), w (P, K, COLUMNS), in C order; l_rows, r_rows (m,) int64.
    """
    steps, wide = w.shape[1], w.shape[2]
    m = l_rows.size
    tiles = (m + ROWS - 1) // ROWS
    scale = w.dtype.type(scale)
    begin = first
    while begin < last:
        p = begin // steps
        end = min(last, (p + 1) * steps)
        row = 0
        for tile in range(tiles):
            rows = (m - row + tiles - tile - 1) // (tiles - tile)
            outer_tile(rows, l, l_rows, begin - p * steps, r, r_rows, p * wide, row, scale, w, begin * wide, end - begin)
            row += rows
        begin = end
