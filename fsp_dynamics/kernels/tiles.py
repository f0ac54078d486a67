"""The innermost loops of a matrix product, in registers: written as LLVM vectors, not left to a
compiler's vectoriser.

Weights lie in panels (kernels/panels.py): w (P, K, COLUMNS), each panel COLUMNS neighbouring
columns of a (K, N) matrix, row after row, so that both loops walk memory in order. A tile is up to
ROWS rows by one panel.

    dot_tile      c_i <- [c_i +] sum_k a_i[k] w[k]           a tile of rates times a panel
    outer_tile    w[k] <- w[k] + scale sum_i l_i[k] r_i      a tile of outer products into a panel

c and r stay in registers, w streams. Rows are given by lists of row numbers, so that samples need
no compacting. Every element is
one chain of fused multiply-adds in the order of k (of i), whatever the tile; the twins
used_dot_tile and used_outer_tile take only the k's of a list. So no result depends on how rows and
panels are partitioned. The product with the transposed matrix is in kernels/turned_tiles.py.

Without the compiler (NUMBA_DISABLE_JIT) the same functions run as a few lines of NumPy, to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fsp_dynamics.kernels.field import Array, apart
from fsp_dynamics.kernels.vectors import BYTES, Vectors, row_pointer

# 6 rows x 2 vectors of sums, 2 of weights and 1 of a rate: the 16 vector registers of AVX2
ROWS = 6


def columns(dtype: Any) -> int:
    """COLUMNS: how many columns a panel has, 16 in float32 and 8 in float64."""
    return BYTES // np.dtype(dtype).itemsize


def _step(builder: Any, index: Any, used: Any, used_at: Any) -> Any:
    """The k of a loop's turn: the turn's own number, or what the list of used k's has there."""
    return index if used is None else builder.load(builder.gep(used, [builder.add(used_at, index)]))


def _dot(rows: int, listed: bool = False) -> Any:
    """dot_tile (used_dot_tile if `listed`) for so many rows."""

    @intrinsic
    def dot(
        typing: Any, a: Any, a_rows: Any, w: Any, w_at: Any, steps: Any, c: Any, c_rows: Any, c_at: Any,
        at: Any, keep: Any, used: Any, used_at: Any,
    ) -> Any:  # fmt: skip
        whole = types.intp
        signature = types.void(a, a_rows, w, whole, whole, c, c_rows, whole, whole, types.boolean, used, whole)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = {i: context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 2, 5, 6, 10)}
            w_at, steps, c_at, at, keep, used_at = (args[i] for i in (3, 4, 7, 8, 9, 11))
            used = arrays[10].data if listed else None
            vectors = Vectors(builder, arrays[2].data.type.pointee)
            width = [cgutils.unpack_tuple(builder, arrays[i].shape, 2)[1] for i in (0, 5)]
            a_row = [row_pointer(builder, arrays[0].data, width[0], arrays[1].data, at, i) for i in range(rows)]
            c_row = [row_pointer(builder, arrays[5].data, width[1], arrays[6].data, at, i) for i in range(rows)]
            out = [vectors.pair(builder.gep(row, [c_at])) for row in c_row]
            panel = builder.gep(arrays[2].data, [w_at])
            sums = [[cgutils.alloca_once(builder, vectors.vector) for _ in pair] for pair in out]
            with builder.if_else(builder.icmp_unsigned("!=", keep, ir.Constant(keep.type, 0))) as (kept, fresh):
                with kept:
                    for pair, places in zip(out, sums, strict=True):
                        for value, place in zip(vectors.load(pair), places, strict=True):
                            builder.store(value, place)
                with fresh:
                    for place in (place for places in sums for place in places):
                        builder.store(ir.Constant(vectors.vector, [0.0] * vectors.lanes), place)
            with cgutils.for_range(builder, steps) as loop:
                k = _step(builder, loop.index, used, used_at)
                weights = vectors.load(
                    vectors.pair(builder.gep(panel, [builder.mul(k, ir.Constant(steps.type, 2 * vectors.lanes))]))
                )
                for row, places in zip(a_row, sums, strict=True):
                    rate = vectors.splat(builder.load(builder.gep(row, [k])))
                    for value, place in zip(
                        vectors.add_product(rate, weights, [builder.load(p) for p in places]), places, strict=True
                    ):
                        builder.store(value, place)
            for pair, places in zip(out, sums, strict=True):
                vectors.store([builder.load(place) for place in places], pair)
            return context.get_dummy_value()

        return signature, generate

    return dot


def _outer(rows: int, listed: bool = False) -> Any:
    """outer_tile (used_outer_tile if `listed`) for so many rows."""

    @intrinsic
    def outer(
        typing: Any, l: Any, l_rows: Any, l_at: Any, r: Any, r_rows: Any, r_at: Any, at: Any,  # noqa: E741
        scale: Any, w: Any, w_at: Any, steps: Any, used: Any, used_at: Any,
    ) -> Any:  # fmt: skip
        whole = types.intp
        signature = types.void(l, l_rows, whole, r, r_rows, whole, whole, r.dtype, w, whole, whole, used, whole)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = {i: context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 3, 4, 8, 11)}
            l_at, r_at, at, scale, w_at, steps, used_at = (args[i] for i in (2, 5, 6, 7, 9, 10, 12))
            used = arrays[11].data if listed else None
            vectors = Vectors(builder, arrays[8].data.type.pointee)
            width = [cgutils.unpack_tuple(builder, arrays[i].shape, 2)[1] for i in (0, 3)]
            l_row = [
                builder.gep(row_pointer(builder, arrays[0].data, width[0], arrays[1].data, at, i), [l_at])
                for i in range(rows)
            ]
            r_row = [
                builder.gep(row_pointer(builder, arrays[3].data, width[1], arrays[4].data, at, i), [r_at])
                for i in range(rows)
            ]
            scaled = [
                [builder.fmul(vectors.splat(scale), value) for value in vectors.load(vectors.pair(row))]
                for row in r_row
            ]
            panel = builder.gep(arrays[8].data, [w_at])
            with cgutils.for_range(builder, steps) as loop:
                k = _step(builder, loop.index, used, used_at)
                place = vectors.pair(builder.gep(panel, [builder.mul(k, ir.Constant(steps.type, 2 * vectors.lanes))]))
                weights = vectors.load(place)
                for row, change in zip(l_row, scaled, strict=True):
                    rate = vectors.splat(builder.load(builder.gep(row, [k])))
                    weights = vectors.add_product(rate, change, weights)
                vectors.store(weights, place)
            return context.get_dummy_value()

        return signature, generate

    return outer


_dot1, _dot2, _dot3, _dot4, _dot5, _dot6 = (_dot(rows) for rows in range(1, ROWS + 1))
_used_dot1, _used_dot2, _used_dot3, _used_dot4, _used_dot5, _used_dot6 = (
    _dot(rows, listed=True) for rows in range(1, ROWS + 1)
)
_outer1, _outer2, _outer3, _outer4, _outer5, _outer6 = (_outer(rows) for rows in range(1, ROWS + 1))
_used_outer1, _used_outer2, _used_outer3, _used_outer4, _used_outer5, _used_outer6 = (
    _outer(rows, listed=True) for rows in range(1, ROWS + 1)
)


@apart
def _compiled_dot_tile(
    rows: int, a: Array, a_rows: Array, w: Array, w_at: int, steps: int, c: Array, c_rows: Array,
    c_at: int, at: int, keep: bool,
) -> None:  # fmt: skip
    """c[c_rows[at + i], c_at : c_at + COLUMNS] <- [itself, if `keep`] + sum_k a[a_rows[at + i], k]
    w.flat[w_at + COLUMNS k :].

    i < rows, k < steps.
    """
    if rows == 6:
        _dot6(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, a_rows, 0)
    elif rows == 5:
        _dot5(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, a_rows, 0)
    elif rows == 4:
        _dot4(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, a_rows, 0)
    elif rows == 3:
        _dot3(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, a_rows, 0)
    elif rows == 2:
        _dot2(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, a_rows, 0)
    else:
        _dot1(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, a_rows, 0)


@apart
def _compiled_outer_tile(
    rows: int, l: Array, l_rows: Array, l_at: int, r: Array, r_rows: Array, r_at: int, at: int,  # noqa: E741
    scale: float, w: Array, w_at: int, steps: int,
) -> None:  # fmt: skip
    """w.flat[w_at + COLUMNS k :] += sum_i l[l_rows[at + i], l_at + k] (scale r[r_rows[at + i],
    r_at : r_at + COLUMNS]), i < rows, k < steps.
    """
    if rows == 6:
        _outer6(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, l_rows, 0)
    elif rows == 5:
        _outer5(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, l_rows, 0)
    elif rows == 4:
        _outer4(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, l_rows, 0)
    elif rows == 3:
        _outer3(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, l_rows, 0)
    elif rows == 2:
        _outer2(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, l_rows, 0)
    else:
        _outer1(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, l_rows, 0)


@apart
def _compiled_used_dot_tile(
    rows: int, a: Array, a_rows: Array, w: Array, w_at: int, steps: int, c: Array, c_rows: Array,
    c_at: int, at: int, keep: bool, used: Array, used_at: int,
) -> None:  # fmt: skip
    """c[c_rows[at + i], c_at : c_at + COLUMNS] <- [itself, if `keep`] + sum_k a[a_rows[at + i], k]
    w.flat[w_at + COLUMNS k :].

    i < rows, k in used[used_at : used_at + steps], which rise.
    """
    if rows == 6:
        _used_dot6(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, used, used_at)
    elif rows == 5:
        _used_dot5(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, used, used_at)
    elif rows == 4:
        _used_dot4(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, used, used_at)
    elif rows == 3:
        _used_dot3(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, used, used_at)
    elif rows == 2:
        _used_dot2(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, used, used_at)
    else:
        _used_dot1(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep, used, used_at)


@apart
def _compiled_used_outer_tile(
    rows: int, l: Array, l_rows: Array, l_at: int, r: Array, r_rows: Array, r_at: int, at: int,  # noqa: E741
    scale: float, w: Array, w_at: int, steps: int, used: Array, used_at: int,
) -> None:  # fmt: skip
    """w.flat[w_at + COLUMNS k :] += sum_i l[l_rows[at + i], l_at + k] (scale r[r_rows[at + i],
    r_at : r_at + COLUMNS]).

    i < rows, k in used[used_at : used_at + steps].
    """
    if rows == 6:
        _used_outer6(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, used, used_at)
    elif rows == 5:
        _used_outer5(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, used, used_at)
    elif rows == 4:
        _used_outer4(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, used, used_at)
    elif rows == 3:
        _used_outer3(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, used, used_at)
    elif rows == 2:
        _used_outer2(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, used, used_at)
    else:
        _used_outer1(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, used, used_at)


def _plain_dot_tile(
    rows: int, a: Array, a_rows: Array, w: Array, w_at: int, steps: int, c: Array, c_rows: Array,
    c_at: int, at: int, keep: bool,
) -> None:  # fmt: skip
    wide = columns(w.dtype)
    panel = w.reshape(-1)[w_at : w_at + wide * steps].reshape(steps, wide)
    total = a[a_rows[at : at + rows], :steps] @ panel
    into = c_rows[at : at + rows]
    c[into, c_at : c_at + wide] = (c[into, c_at : c_at + wide] if keep else 0) + total


def _plain_outer_tile(
    rows: int, l: Array, l_rows: Array, l_at: int, r: Array, r_rows: Array, r_at: int, at: int,  # noqa: E741
    scale: float, w: Array, w_at: int, steps: int,
) -> None:  # fmt: skip
    wide = columns(w.dtype)
    panel = w.reshape(-1)[w_at : w_at + wide * steps].reshape(steps, wide)
    panel += l[l_rows[at : at + rows], l_at : l_at + steps].T @ (
        w.dtype.type(scale) * r[r_rows[at : at + rows], r_at : r_at + wide]
    )


def _plain_used_dot_tile(
    rows: int, a: Array, a_rows: Array, w: Array, w_at: int, steps: int, c: Array, c_rows: Array,
    c_at: int, at: int, keep: bool, used: Array, used_at: int,
) -> None:  # fmt: skip
    wide, ks, into = columns(w.dtype), used[used_at : used_at + steps], c_rows[at : at + rows]
    total = a[np.ix_(a_rows[at : at + rows], ks)] @ w.reshape(-1)[(w_at + wide * ks)[:, None] + np.arange(wide)]
    c[into, c_at : c_at + wide] = (c[into, c_at : c_at + wide] if keep else 0) + total


def _plain_used_outer_tile(
    rows: int, l: Array, l_rows: Array, l_at: int, r: Array, r_rows: Array, r_at: int, at: int,  # noqa: E741
    scale: float, w: Array, w_at: int, steps: int, used: Array, used_at: int,
) -> None:  # fmt: skip
    wide, ks = columns(w.dtype), used[used_at : used_at + steps]
    left = l[np.ix_(l_rows[at : at + rows], l_at + ks)]
    w.reshape(-1)[(w_at + wide * ks)[:, None] + np.arange(wide)] += left.T @ (
        w.dtype.type(scale) * r[r_rows[at : at + rows], r_at : r_at + wide]
    )


_COMPILED = hasattr(_compiled_dot_tile, "py_func")
dot_tile: Callable[..., None] = _compiled_dot_tile if _COMPILED else _plain_dot_tile
outer_tile: Callable[..., None] = _compiled_outer_tile if _COMPILED else _plain_outer_tile
used_dot_tile: Callable[..., None] = _compiled_used_dot_tile if _COMPILED else _plain_used_dot_tile
used_outer_tile: Callable[..., None] = _compiled_used_outer_tile if _COMPILED else _plain_used_outer_tile
