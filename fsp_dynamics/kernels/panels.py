"""Weights in panels, and products with them that never copy a weight.

A (K, N) matrix is kept as w (P, K, COLUMNS), P = ceil(N / COLUMNS), the columns beyond N zero:
each panel is read and written from its first byte to its last. General BLAS libraries copy a
matrix into such an order inside every product; for the few rows of a batch that costs more than
the product. Kept in this order, a product of 5 rows was measured at 96 GFLOP/s where NumPy's matmul
gave 27 (1500 x 1500, float32, one core of an AMD EPYC whose best is about 98).

Matrices of rows that belong to panels have their row padded to P COLUMNS elements (`padded`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fsp_dynamics.kernels.field import Array, apart, bare
from fsp_dynamics.kernels.tiles import (
    OUTER_ROWS,
    PANELS,
    ROWS,
    USED_ROWS,
    columns,
    dot_tile,
    outer_tile,
    used_dot_tile,
    used_outer_tile,
)
from fsp_dynamics.kernels.turned_tiles import TURNED_ROWS, TURNED_STEPS, turned_tile
from fsp_dynamics.kernels.vectors import BYTES

# panels of which four rows, and the same columns of three rows of rates, fit the first-level cache
TURNED_PANELS = 32
DENSE, ALL = 0.9, -1  # a list of more than this share of all k costs more than it saves
TURNED_CHUNK = 48  # rows whose part of these columns fits the second-level cache


def padded(n: int, dtype: object) -> int:
    """n, up to the next multiple of COLUMNS."""
    wide = columns(dtype)
    return -(-n // wide) * wide


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros of that shape whose first byte begins a cache line: no vector of a panel lies across
    two (NumPy promises 16 bytes only).
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    bytes_ = np.zeros(size + BYTES, np.uint8)
    begin = -bytes_.ctypes.data % BYTES
    return bytes_[begin : begin + size].view(dtype).reshape(shape)


def to_panels(matrix: Array) -> Array:
    """(K, N) -> (P, K, COLUMNS), a copy, `aligned`."""
    k, n = matrix.shape
    wide = columns(matrix.dtype)
    panels = aligned((padded(n, matrix.dtype) // wide, k, wide), matrix.dtype)
    fill_panels(matrix, panels)
    return panels


def fill_panels(matrix: Array, panels: Array) -> None:
    """panels (P, K, COLUMNS) <- the matrix (K, N), without temporaries: with a large net and one
    sample, these would take longer than its path.
    """
    k, wide = panels.shape[1:]
    whole = matrix.shape[1] // wide
    panels[:whole] = matrix[:, : whole * wide].reshape(k, whole, wide).transpose(1, 0, 2)
    if whole < len(panels):
        rest = matrix[:, whole * wide :]
        panels[-1, :, : rest.shape[1]] = rest
        panels[-1, :, rest.shape[1] :] = 0


def from_panels(panels: Array, out: Array) -> None:
    """out (K, N) <- the matrix kept in these panels."""
    k, n = out.shape
    out[:] = panels.transpose(1, 0, 2).reshape(k, panels.shape[0] * panels.shape[2])[:, :n]


@apart
def multiply(a: Array, a_rows: Array, w: Array, c: Array, c_rows: Array, first: int, last: int, keep: bool) -> None:
    """c[c_rows[i]] <- [itself, if `keep`] + a[a_rows[i]] @ w, in the columns of the panels first
    ... last - 1.

    a (., K or more), w (P, K, COLUMNS), c (., P COLUMNS), all in C order; a_rows, c_rows (m,)
    int64, at any place of their arrays, no row twice in c_rows.
    """
    steps, wide = w.shape[1], w.shape[2]
    m = a_rows.size
    tiles = (m + ROWS - 1) // ROWS
    for p in range(first, last, PANELS):
        row, q = 0, min(p + PANELS, last) - 1
        for tile in range(tiles):  # as equal as can be: a lone last row would cost as much as several
            rows = (m - row + tiles - tile - 1) // (tiles - tile)
            dot_tile(
                rows, a, a_rows, w, p * steps * wide, q * steps * wide, steps, c, c_rows, p * wide, q * wide, row, keep
            )
            row += rows


@apart
def multiply_transposed(
    a: Array, a_rows: Array, w: Array, c: Array, c_rows: Array, first: int, last: int, keep: bool
) -> None:
    """c[c_rows[i], k] <- [itself, if `keep`] + sum_n a[a_rows[i], n] w[k, n], for first <= k <
    last: the product with the transposed matrix.

    a (., P COLUMNS), finite beyond N; w (P, K, COLUMNS), c (., K or more), all in C order; a_rows,
    c_rows (m,) int64, no row twice in c_rows.
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


@apart
def add_outer(l: Array, l_rows: Array, r: Array, r_rows: Array, scale: float, w: Array, first: int, last: int) -> None:  # noqa: E741
    """w += scale sum_i l[l_rows[i]].T r[r_rows[i]], for the rows first ... last - 1 of the panels
    laid end to end (P K of them).

    l (., K or more), r (., P COLUMNS), w (P, K, COLUMNS), in C order; l_rows, r_rows (m,) int64.
    """
    steps, wide = w.shape[1], w.shape[2]
    m = l_rows.size
    tiles = (m + OUTER_ROWS - 1) // OUTER_ROWS
    scale = w.dtype.type(scale)
    begin = first
    while begin < last:
        p = begin // steps
        end = min(last, (p + 1) * steps)
        row = 0
        for tile in range(tiles):
            rows = (m - row + tiles - tile - 1) // (tiles - tile)
            outer_tile(
                rows, l, l_rows, begin - p * steps, r, r_rows, p * wide, row, scale, w, begin * wide, end - begin
            )
            row += rows
        begin = end


@bare
def first_from(rising: Array, count: int, k: int) -> int:
    """The first place among `count` rising numbers where k or more stands; `count` if there is
    none.
    """
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if rising[middle] < k:
            low = middle + 1
        else:
            high = middle
    return low


@apart
def find_used(a: Array, a_rows: Array, steps: int, most: int, used: Array, counts: Array) -> None:
    """used[t, : counts[t]] <- the k < steps, rising, at which some row of tile t is not 0;
    counts[t] <- ALL where these are most.

    The tiles have `most` rows of a_rows (m,) or fewer, as equal as can be: USED_ROWS for
    `multiply_used`, OUTER_ROWS for `add_outer_used`. used (tiles or more, steps or more), counts
    (tiles or more,), int64.
    """
    m = a_rows.size
    tiles, row = (m + most - 1) // most, 0
    for t in range(tiles):
        rows = (m - row + tiles - t - 1) // (tiles - t)
        marks, count = used[t], 0
        for k in range(steps):
            marks[k] = 0
        for i in range(row, row + rows):
            values = a[a_rows[i]]
            for k in range(steps):
                marks[k] |= values[k] != 0
        for k in range(steps):
            mark = marks[k]  # read before `count`, which is at most k, is written
            marks[count] = k
            count += mark
        counts[t] = count if count < DENSE * steps else ALL
        row += rows


@apart
def multiply_used(
    a: Array, a_rows: Array, w: Array, c: Array, c_rows: Array, first: int, last: int, used: Array, counts: Array
) -> None:
    """`multiply` without what `find_used` found to be 0; the same bits, as long as w is finite."""
    steps, wide, m = w.shape[1], w.shape[2], a_rows.size
    tiles = (m + USED_ROWS - 1) // USED_ROWS
    for p in range(first, last, PANELS):
        row, q = 0, min(p + PANELS, last) - 1
        for t in range(tiles):
            rows = (m - row + tiles - t - 1) // (tiles - t)
            if counts[t] == ALL:
                dot_tile(
                    rows, a, a_rows, w, p * steps * wide, q * steps * wide, steps, c, c_rows, p * wide, q * wide, row,
                    False,
                )  # fmt: skip
            else:
                used_dot_tile(
                    rows, a, a_rows, w, p * steps * wide, q * steps * wide, counts[t], c, c_rows, p * wide, q * wide,
                    row, False, used[t], 0,
                )  # fmt: skip
            row += rows


@apart
def add_outer_used(
    l: Array,  # noqa: E741
    l_rows: Array,
    r: Array,
    r_rows: Array,
    scale: float,
    w: Array,
    first: int,
    last: int,
    used: Array,
    counts: Array,
) -> None:
    """`add_outer` without the rows of panels that do not change because of `find_used`; the same
    bits.
    """
    steps, wide, m = w.shape[1], w.shape[2], l_rows.size
    tiles = (m + OUTER_ROWS - 1) // OUTER_ROWS
    scale = w.dtype.type(scale)
    begin = first
    while begin < last:
        p = begin // steps
        end, row = min(last, (p + 1) * steps), 0
        low, high = begin - p * steps, end - p * steps
        for t in range(tiles):
            rows = (m - row + tiles - t - 1) // (tiles - t)
            if counts[t] == ALL:
                outer_tile(rows, l, l_rows, low, r, r_rows, p * wide, row, scale, w, begin * wide, end - begin)
            else:
                here, past = first_from(used[t], counts[t], low), first_from(used[t], counts[t], high)
                used_outer_tile(
                    rows, l, l_rows, 0, r, r_rows, p * wide, row, scale, w, p * steps * wide, past - here, used[t], here
                )
            row += rows
        begin = end
