"""The innermost loops of a matrix product, in registers: written as LLVM vectors, not left to a
compiler's vectoriser.

Weights lie in panels (kernels/panels.py): w (P, K, COLUMNS), each panel COLUMNS neighbouring
columns of a (K, N) matrix, row after row, so that both loops walk memory in order. A tile is up to
ROWS rows by PANELS panels of a product, up to OUTER_ROWS rows by one panel of an outer product.

    dot_tile      c_i <- [c_i +] sum_k a_i[k] w[k]           a tile of rates times panels
    outer_tile    w[k] <- w[k] + scale sum_i l_i[k] r_i      a tile of outer products into a panel

c and r stay in registers, which are as wide as those of the processor (kernels/registers.py); w
streams. Rows are given by lists of row numbers, so that samples need no compacting. Every element
is one chain of fused multiply-adds in the order of k (of i), whatever the tile and the registers;
the twins used_dot_tile and used_outer_tile take only the k's of a list. So no result depends on
how rows and panels are partitioned, nor on the width of registers. The product with the transposed
matrix is in kernels/turned_tiles.py.

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
from fsp_dynamics.kernels.registers import REGISTER_BYTES
from fsp_dynamics.kernels.vectors import BYTES, Vectors, alternatives, cases, row_pointer

# 12 x 2 sums of 64 bytes in the 32 registers of AVX-512, or 6 x 2 of 32 bytes in the 16 of AVX2
ROWS, PANELS = (12, 2) if REGISTER_BYTES == 64 else (6, 1)
USED_ROWS = 4  # five rows and a list need too many registers, and fewer rows have fewer pixels in common
OUTER_ROWS = 6  # of which the rates stay in registers


def columns(dtype: Any) -> int:
    """COLUMNS: how many columns a panel has, 16 in float32 and 8 in float64."""
    return BYTES // np.dtype(dtype).itemsize


def _step(builder: Any, index: Any, used: Any, used_at: Any) -> Any:
    """The k of a loop's turn: the turn's own number, or what the list of used k's has there."""
    return index if used is None else builder.load(builder.gep(used, [builder.add(used_at, index)]))


def _dot(listed: bool = False) -> Any:
    """dot_tile, or used_dot_tile if `listed`: a loop for each number of rows and of panels."""
    most = USED_ROWS if listed else ROWS

    @intrinsic
    def dot(
        typing: Any, rows: Any, a: Any, a_rows: Any, w: Any, w_at: Any, next_at: Any, steps: Any, c: Any, c_rows: Any,
        c_at: Any, next_c: Any, at: Any, keep: Any, used: Any, used_at: Any,
    ) -> Any:  # fmt: skip
        whole = types.intp
        signature = types.void(
            whole, a, a_rows, w, whole, whole, whole, c, c_rows, whole, whole, whole, types.boolean, used, whole
        )

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = {i: context.make_array(signature.args[i])(context, builder, args[i]) for i in (1, 2, 3, 7, 8, 13)}
            rows, w_at, next_at, steps, c_at, next_c, at, keep, used_at = (
                args[i] for i in (0, 4, 5, 6, 9, 10, 11, 12, 14)
            )
            used = arrays[13].data if listed else None
            vectors = Vectors(builder, arrays[3].data.type.pointee, REGISTER_BYTES)
            width = [cgutils.unpack_tuple(builder, arrays[i].shape, 2)[1] for i in (1, 7)]
            kept = builder.icmp_unsigned("!=", keep, ir.Constant(keep.type, 0))

            def tile(count: int, panels: int) -> None:
                """So many rows, so many panels."""
                a_row = [row_pointer(builder, arrays[1].data, width[0], arrays[2].data, at, i) for i in range(count)]
                c_row = [row_pointer(builder, arrays[7].data, width[1], arrays[8].data, at, i) for i in range(count)]
                starts = [builder.gep(arrays[3].data, [begin]) for begin in (w_at, next_at)[:panels]]
                out = [vectors.places_in(row, (c_at, next_c)[:panels]) for row in c_row]
                sums = [[cgutils.alloca_once(builder, vectors.vector) for _ in places] for places in out]
                with builder.if_else(kept) as (then, otherwise):
                    with then:
                        for into, places in zip(out, sums, strict=True):
                            vectors.store(vectors.load(into), places)
                    with otherwise:
                        for places in sums:
                            vectors.store([ir.Constant(vectors.vector, [0.0] * vectors.lanes)] * len(places), places)
                with cgutils.for_range(builder, steps) as loop:
                    k = _step(builder, loop.index, used, used_at)
                    row_at = builder.mul(k, ir.Constant(steps.type, vectors.columns))
                    weights = [value for start in starts for value in vectors.load(vectors.places_in(start, [row_at]))]
                    for row, places in zip(a_row, sums, strict=True):
                        rate = vectors.splat(builder.load(builder.gep(row, [k])))
                        vectors.store(vectors.add_product(rate, weights, vectors.load(places)), places)
                for into, places in zip(out, sums, strict=True):
                    vectors.store(vectors.load(places), into)

            # a panel alone comes twice
            alone = [builder.icmp_unsigned("==", c_at, next_c)] if PANELS == 2 else []
            for panels in alternatives(builder, alone):
                for count in cases(builder, rows, most):
                    tile(count, panels)
            return context.get_dummy_value()

        return signature, generate

    return dot


def _outer(listed: bool = False) -> Any:
    """outer_tile, or used_outer_tile if `listed`: a loop for each number of rows."""

    @intrinsic
    def outer(
        typing: Any, rows: Any, l: Any, l_rows: Any, l_at: Any, r: Any, r_rows: Any, r_at: Any, at: Any,  # noqa: E741
        scale: Any, w: Any, w_at: Any, steps: Any, used: Any, used_at: Any,
    ) -> Any:  # fmt: skip
        whole = types.intp
        signature = types.void(whole, l, l_rows, whole, r, r_rows, whole, whole, r.dtype, w, whole, whole, used, whole)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = {i: context.make_array(signature.args[i])(context, builder, args[i]) for i in (1, 2, 4, 5, 9, 12)}
            rows, l_at, r_at, at, scale, w_at, steps, used_at = (args[i] for i in (0, 3, 6, 7, 8, 10, 11, 13))
            used = arrays[12].data if listed else None
            vectors = Vectors(builder, arrays[9].data.type.pointee, REGISTER_BYTES)
            width = [cgutils.unpack_tuple(builder, arrays[i].shape, 2)[1] for i in (1, 4)]
            panel, factor = builder.gep(arrays[9].data, [w_at]), vectors.splat(scale)
            for count in cases(builder, rows, OUTER_ROWS):
                l_row = [row_pointer(builder, arrays[1].data, width[0], arrays[2].data, at, i) for i in range(count)]
                r_row = [row_pointer(builder, arrays[4].data, width[1], arrays[5].data, at, i) for i in range(count)]
                changes = [
                    [builder.fmul(factor, value) for value in vectors.load(vectors.places_in(row, [r_at]))]
                    for row in r_row
                ]
                with cgutils.for_range(builder, steps) as loop:
                    k = _step(builder, loop.index, used, used_at)
                    places = vectors.places_in(panel, [builder.mul(k, ir.Constant(steps.type, vectors.columns))])
                    weights = vectors.load(places)
                    for row, change in zip(l_row, changes, strict=True):
                        rate = vectors.splat(builder.load(builder.gep(row, [builder.add(l_at, k)])))
                        weights = vectors.add_product(rate, change, weights)
                    vectors.store(weights, places)
            return context.get_dummy_value()

        return signature, generate

    return outer


_dense_dot, _used_dot = _dot(), _dot(listed=True)
_dense_outer, _used_outer = _outer(), _outer(listed=True)


@apart
def _compiled_dot_tile(
    rows: int, a: Array, a_rows: Array, w: Array, w_at: int, next_at: int, steps: int, c: Array, c_rows: Array,
    c_at: int, next_c: int, at: int, keep: bool,
) -> None:  # fmt: skip
    """c[c_rows[at + i], c_at : c_at + COLUMNS] <- [itself, if `keep`] + sum_k a[a_rows[at + i], k]
    w.flat[w_at + COLUMNS k :], and the same for the panel and the columns that begin at next_at and
    next_c.

    0 <= i < rows <= ROWS, k < steps. A panel alone comes twice, c_at and next_c too.
    """
    _dense_dot(rows, a, a_rows, w, w_at, next_at, steps, c, c_rows, c_at, next_c, at, keep, a_rows, 0)


@apart
def _compiled_outer_tile(
    rows: int, l: Array, l_rows: Array, l_at: int, r: Array, r_rows: Array, r_at: int, at: int,  # noqa: E741
    scale: float, w: Array, w_at: int, steps: int,
) -> None:  # fmt: skip
    """w.flat[w_at + COLUMNS k :] += sum_i l[l_rows[at + i], l_at + k] (scale r[r_rows[at + i],
    r_at : r_at + COLUMNS]), i < rows, k < steps.
    """
    _dense_outer(rows, l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, l_rows, 0)


@apart
def _compiled_used_dot_tile(
    rows: int, a: Array, a_rows: Array, w: Array, w_at: int, next_at: int, steps: int, c: Array, c_rows: Array,
    c_at: int, next_c: int, at: int, keep: bool, used: Array, used_at: int,
) -> None:  # fmt: skip
    """`dot_tile` for the k in used[used_at : used_at + steps], which rise; rows <= USED_ROWS."""
    _used_dot(rows, a, a_rows, w, w_at, next_at, steps, c, c_rows, c_at, next_c, at, keep, used, used_at)


@apart
def _compiled_used_outer_tile(
    rows: int, l: Array, l_rows: Array, l_at: int, r: Array, r_rows: Array, r_at: int, at: int,  # noqa: E741
    scale: float, w: Array, w_at: int, steps: int, used: Array, used_at: int,
) -> None:  # fmt: skip
    """w.flat[w_at + COLUMNS k :] += sum_i l[l_rows[at + i], l_at + k] (scale r[r_rows[at + i],
    r_at : r_at + COLUMNS]).

    i < rows <= OUTER_ROWS, k in used[used_at : used_at + steps].
    """
    _used_outer(rows, l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps, used, used_at)


def _panels(one: tuple[int, int], other: tuple[int, int]) -> set[tuple[int, int]]:
    return {one, other} if PANELS == 2 else {one}


def _plain_dot_tile(
    rows: int, a: Array, a_rows: Array, w: Array, w_at: int, next_at: int, steps: int, c: Array, c_rows: Array,
    c_at: int, next_c: int, at: int, keep: bool,
) -> None:  # fmt: skip
    wide, into = columns(w.dtype), c_rows[at : at + rows]
    for begin, column in _panels((w_at, c_at), (next_at, next_c)):
        panel = w.reshape(-1)[begin : begin + wide * steps].reshape(steps, wide)
        total = a[a_rows[at : at + rows], :steps] @ panel
        c[into, column : column + wide] = (c[into, column : column + wide] if keep else 0) + total


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
    rows: int, a: Array, a_rows: Array, w: Array, w_at: int, next_at: int, steps: int, c: Array, c_rows: Array,
    c_at: int, next_c: int, at: int, keep: bool, used: Array, used_at: int,
) -> None:  # fmt: skip
    wide, ks, into = columns(w.dtype), used[used_at : used_at + steps], c_rows[at : at + rows]
    for begin, column in _panels((w_at, c_at), (next_at, next_c)):
        total = a[np.ix_(a_rows[at : at + rows], ks)] @ w.reshape(-1)[(begin + wide * ks)[:, None] + np.arange(wide)]
        c[into, column : column + wide] = (c[into, column : column + wide] if keep else 0) + total


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
