"""The innermost loops of a matrix product, in registers: written as LLVM vectors, so that no compiler has to guess them.

Weights lie in panels (kernels/panels.py): w (P, K, COLUMNS), each panel COLUMNS neighbouring columns of a (K, N) matrix, row after row, so that
the first two loops walk memory in order. A tile is up to ROWS rows by one panel, or up to TURNED_ROWS rows by TURNED_STEPS rows of all panels.

    dot_tile      c_i <- [c_i +] sum_k a_i[k] w[k]                     a tile of rates times a panel: c stays in registers, w streams
    outer_tile    w[k] <- w[k] + scale sum_i l_i[k] r_i                a tile of outer products into a panel: r stays in registers, w streams
    turned_tile   c_i[k] <- [c_i[k] +] sum_p a_i[p] . w[p, k]          the product with the transposed matrix: c stays in registers

Rows are reached through lists of row numbers, so that samples need no compacting. Every element of the first two is one chain of fused
multiply-adds in the order of k (of i), whatever the tile. An element of the third is one such chain for each lane of a vector, in the order of
the panels, and the lanes are added in pairs at the end. So no result depends on how rows and panels are dealt out.

Without the compiler (NUMBA_DISABLE_JIT) the same functions run as a few lines of NumPy, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fsp_dynamics.kernels.field import Array, jit

ROWS = 6  # 6 rows x 2 vectors of sums, 2 of weights and 1 of a rate: the 16 vector registers of AVX2
TURNED_ROWS, TURNED_STEPS = 3, 4  # 12 sums, 3 of rates and 1 of weights: the same 16
BYTES = 64  # of a panel's row: one cache line, two AVX2 vectors


def columns(dtype: Any) -> int:
    """COLUMNS: how many columns a panel has, 16 in float32 and 8 in float64."""
    return BYTES // np.dtype(dtype).itemsize


class _Vectors:
    """IR for the two vectors of a panel's row."""

    def __init__(self, builder: Any, element: Any) -> None:
        self.builder, self.size = builder, 4 if element == ir.FloatType() else 8
        self.lanes = BYTES // self.size // 2
        self.vector = ir.VectorType(element, self.lanes)
        name = f"llvm.fma.v{self.lanes}f{8 * self.size}"
        self.fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(self.vector, [self.vector] * 3), name)

    def pair(self, row: Any) -> list[Any]:
        """Pointers to the two vectors that begin at `row`."""
        starts = [self.builder.gep(row, [ir.Constant(ir.IntType(64), v * self.lanes)]) for v in (0, 1)]
        return [self.builder.bitcast(start, self.vector.as_pointer()) for start in starts]

    def load(self, pointers: list[Any]) -> list[Any]:
        return [self.builder.load(pointer, align=self.size) for pointer in pointers]

    def store(self, values: list[Any], pointers: list[Any]) -> None:
        for value, pointer in zip(values, pointers, strict=True):
            self.builder.store(value, pointer, align=self.size)

    def splat(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes))

    def add_product(self, x: Any, values: list[Any], sums: list[Any]) -> list[Any]:
        """sums + x values, each in one rounding."""
        return [self.builder.call(self.fused, [x, value, total]) for value, total in zip(values, sums, strict=True)]

    def fetch(self, row: Any, steps: int) -> None:
        """Ask for the lines of a panel's rows `steps` ... 2 steps - 1 after `row`."""
        byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        prefetch = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole]), "llvm.prefetch.p0"
        )
        for j in range(steps, 2 * steps):
            line = self.builder.gep(row, [ir.Constant(ir.IntType(64), 2 * self.lanes * j)])
            self.builder.call(prefetch, [self.builder.bitcast(line, byte), *(ir.Constant(whole, value) for value in (0, 3, 1))])

    def sums_of_lanes(self, four: list[Any]) -> Any:
        """(., ., ., .): the lanes of each of four vectors added in pairs, ((0 + 1) + (2 + 3)) + ..., each sum in the same order."""
        half = self.lanes // 2
        low, high = (self._interleaved(four[i], four[i + 1]) for i in (0, 2))
        if half == 2:  # two lanes a sum are left
            return self._added(low, high, [0, 1, 4, 5], [2, 3, 6, 7])
        quarters = self._added(low, high, [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15])
        return self._added(quarters, quarters, [0, 1, 2, 3], [4, 5, 6, 7])

    def _interleaved(self, x: Any, y: Any) -> Any:
        """x0 + x1, y0 + y1, x2 + x3, y2 + y3, ..."""
        even = [lane + side for lane in range(0, self.lanes, 2) for side in (0, self.lanes)]
        return self._added(x, y, even, [place + 1 for place in even])

    def _added(self, x: Any, y: Any, first: list[int], second: list[int]) -> Any:
        """The sum of two selections from the lanes of x and y, counted through."""
        pick = [self.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(which)), which)) for which in (first, second)]
        return self.builder.fadd(*pick)


def _row(builder: Any, base: Any, stride: Any, numbers: Any, at: Any, i: int) -> Any:
    """Pointer to row numbers[at + i] of a matrix with that many elements to a row."""
    number = builder.load(builder.gep(numbers, [builder.add(at, ir.Constant(at.type, i))]))
    return builder.gep(base, [builder.mul(number, stride)])


def _dot(rows: int) -> Any:
    """dot_tile for so many rows."""

    @intrinsic
    def dot(typing: Any, a: Any, a_rows: Any, w: Any, w_at: Any, steps: Any, c: Any, c_rows: Any, c_at: Any, at: Any, keep: Any) -> Any:
        whole = types.intp
        signature = types.void(a, a_rows, w, whole, whole, c, c_rows, whole, whole, types.boolean)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = {i: context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 2, 5, 6)}
            w_at, steps, c_at, at, keep = (args[i] for i in (3, 4, 7, 8, 9))
            vectors = _Vectors(builder, arrays[2].data.type.pointee)
            width = [cgutils.unpack_tuple(builder, arrays[i].shape, 2)[1] for i in (0, 5)]
            a_row = [_row(builder, arrays[0].data, width[0], arrays[1].data, at, i) for i in range(rows)]
            c_row = [_row(builder, arrays[5].data, width[1], arrays[6].data, at, i) for i in range(rows)]
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
                step = builder.mul(loop.index, ir.Constant(steps.type, 2 * vectors.lanes))
                weights = vectors.load(vectors.pair(builder.gep(panel, [step])))
                for row, places in zip(a_row, sums, strict=True):
                    rate = vectors.splat(builder.load(builder.gep(row, [loop.index])))
                    for value, place in zip(vectors.add_product(rate, weights, [builder.load(p) for p in places]), places, strict=True):
                        builder.store(value, place)
            for pair, places in zip(out, sums, strict=True):
                vectors.store([builder.load(place) for place in places], pair)
            return context.get_dummy_value()

        return signature, generate

    return dot


def _outer(rows: int) -> Any:
    """outer_tile for so many rows."""

    @intrinsic
    def outer(typing: Any, l: Any, l_rows: Any, l_at: Any, r: Any, r_rows: Any, r_at: Any, at: Any, scale: Any, w: Any, w_at: Any, steps: Any) -> Any:  # noqa: E741
        whole = types.intp
        signature = types.void(l, l_rows, whole, r, r_rows, whole, whole, r.dtype, w, whole, whole)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = {i: context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 3, 4, 8)}
            l_at, r_at, at, scale, w_at, steps = (args[i] for i in (2, 5, 6, 7, 9, 10))
            vectors = _Vectors(builder, arrays[8].data.type.pointee)
            width = [cgutils.unpack_tuple(builder, arrays[i].shape, 2)[1] for i in (0, 3)]
            l_row = [builder.gep(_row(builder, arrays[0].data, width[0], arrays[1].data, at, i), [l_at]) for i in range(rows)]
            r_row = [builder.gep(_row(builder, arrays[3].data, width[1], arrays[4].data, at, i), [r_at]) for i in range(rows)]
            scaled = [[builder.fmul(vectors.splat(scale), value) for value in vectors.load(vectors.pair(row))] for row in r_row]
            panel = builder.gep(arrays[8].data, [w_at])
            with cgutils.for_range(builder, steps) as loop:
                step = builder.mul(loop.index, ir.Constant(steps.type, 2 * vectors.lanes))
                place = vectors.pair(builder.gep(panel, [step]))
                weights = vectors.load(place)
                for row, change in zip(l_row, scaled, strict=True):
                    rate = vectors.splat(builder.load(builder.gep(row, [loop.index])))
                    weights = vectors.add_product(rate, change, weights)
                vectors.store(weights, place)
            return context.get_dummy_value()

        return signature, generate

    return outer


def _turned(rows: int, steps: int) -> Any:
    """turned_tile for so many rows and steps (TURNED_STEPS or 1)."""

    @intrinsic
    def turned(typing: Any, a: Any, a_rows: Any, w: Any, p: Any, panels: Any, k: Any, c: Any, c_rows: Any, at: Any, keep: Any, fetch: Any) -> Any:
        whole = types.intp
        signature = types.void(a, a_rows, w, whole, whole, whole, c, c_rows, whole, types.boolean, types.boolean)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = {i: context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 2, 6, 7)}
            p, panels, k, at, keep, fetch = (args[i] for i in (3, 4, 5, 8, 9, 10))
            vectors = _Vectors(builder, arrays[2].data.type.pointee)
            _, length, wide = cgutils.unpack_tuple(builder, arrays[2].shape, 3)
            width = [cgutils.unpack_tuple(builder, arrays[i].shape, 2)[1] for i in (0, 6)]
            a_row = [_row(builder, arrays[0].data, width[0], arrays[1].data, at, i) for i in range(rows)]
            c_row = [builder.gep(_row(builder, arrays[6].data, width[1], arrays[7].data, at, i), [k]) for i in range(rows)]
            first = builder.gep(arrays[2].data, [builder.mul(k, wide)])
            sums = [[cgutils.alloca_once(builder, vectors.vector) for _ in range(steps)] for _ in range(rows)]
            for place in (place for places in sums for place in places):
                builder.store(ir.Constant(vectors.vector, [0.0] * vectors.lanes), place)
            with cgutils.for_range(builder, panels) as loop:
                column = builder.mul(builder.add(p, loop.index), wide)
                step = builder.gep(first, [builder.mul(column, length)])
                rates = [vectors.pair(builder.gep(row, [column])) for row in a_row]
                weights = [vectors.pair(builder.gep(step, [builder.mul(wide, ir.Constant(wide.type, j))])) for j in range(steps)]
                with builder.if_then(builder.icmp_unsigned("!=", fetch, ir.Constant(fetch.type, 0))):
                    vectors.fetch(step, steps)
                for half in (0, 1):  # one after the other, or the registers are too few
                    values = vectors.load([pair[half] for pair in rates])
                    for j in range(steps):
                        (weight,) = vectors.load([weights[j][half]])
                        totals = vectors.add_product(weight, values, [builder.load(places[j]) for places in sums])
                        vectors.store(totals, [places[j] for places in sums])
            for row, places in zip(c_row, sums, strict=True):
                totals = [builder.load(place) for place in places]
                _store_sums(builder, row, vectors.sums_of_lanes((totals * 4)[:4]), steps, keep)
            return context.get_dummy_value()

        return signature, generate

    return turned


def _store_sums(builder: Any, row: Any, sums: Any, steps: int, keep: Any) -> None:
    """row[: steps] <- [itself, if `keep`] + the first sums; steps is 4 or 1."""
    size = 4 if sums.type.element == ir.FloatType() else 8
    value = sums if steps == 4 else builder.extract_element(sums, ir.Constant(ir.IntType(32), 0))
    place = builder.bitcast(row, value.type.as_pointer())
    kept = builder.icmp_unsigned("!=", keep, ir.Constant(keep.type, 0))
    with builder.if_else(kept) as (then, otherwise):
        with then:
            builder.store(builder.fadd(builder.load(place, align=size), value), place, align=size)
        with otherwise:
            builder.store(value, place, align=size)


_dot1, _dot2, _dot3, _dot4, _dot5, _dot6 = (_dot(rows) for rows in range(1, ROWS + 1))
_outer1, _outer2, _outer3, _outer4, _outer5, _outer6 = (_outer(rows) for rows in range(1, ROWS + 1))
_turned11, _turned21, _turned31 = (_turned(rows, 1) for rows in range(1, TURNED_ROWS + 1))
_turned14, _turned24, _turned34 = (_turned(rows, TURNED_STEPS) for rows in range(1, TURNED_ROWS + 1))


@jit
def _compiled_dot_tile(
    rows: int, a: Array, a_rows: Array, w: Array, w_at: int, steps: int, c: Array, c_rows: Array, c_at: int, at: int, keep: bool
) -> None:
    """c[c_rows[at + i], c_at : c_at + COLUMNS] <- [itself, if `keep`] + sum_k a[a_rows[at + i], k] w.flat[w_at + COLUMNS k :].

    i < rows, k < steps.
    """
    if rows == 6:
        _dot6(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep)
    elif rows == 5:
        _dot5(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep)
    elif rows == 4:
        _dot4(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep)
    elif rows == 3:
        _dot3(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep)
    elif rows == 2:
        _dot2(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep)
    else:
        _dot1(a, a_rows, w, w_at, steps, c, c_rows, c_at, at, keep)


@jit
def _compiled_outer_tile(
    rows: int, l: Array, l_rows: Array, l_at: int, r: Array, r_rows: Array, r_at: int, at: int, scale: float, w: Array, w_at: int, steps: int  # noqa: E741
) -> None:  # fmt: skip
    """w.flat[w_at + COLUMNS k :] += sum_i l[l_rows[at + i], l_at + k] (scale r[r_rows[at + i], r_at : r_at + COLUMNS]), i < rows, k < steps."""
    if rows == 6:
        _outer6(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps)
    elif rows == 5:
        _outer5(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps)
    elif rows == 4:
        _outer4(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps)
    elif rows == 3:
        _outer3(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps)
    elif rows == 2:
        _outer2(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps)
    else:
        _outer1(l, l_rows, l_at, r, r_rows, r_at, at, scale, w, w_at, steps)


@numba.njit(error_model="numpy", inline="always")  # its tiles are short: a call with so many arguments was measured at 200 cycles
def _compiled_turned_tile(
    rows: int, steps: int, a: Array, a_rows: Array, w: Array, p: int, panels: int, k: int, c: Array, c_rows: Array, at: int, keep: bool, fetch: bool
) -> None:
    """c[c_rows[at + i], k + j] <- [itself, if `keep`] + sum_q a[a_rows[at + i], COLUMNS q :] . w[q, k + j], p <= q < p + panels, i < rows, j < steps.

    rows <= TURNED_ROWS; steps is TURNED_STEPS or 1. `fetch`: the weights of the next steps are asked for meanwhile.
    """
    if steps == TURNED_STEPS:
        if rows == 3:
            _turned34(a, a_rows, w, p, panels, k, c, c_rows, at, keep, fetch)
        elif rows == 2:
            _turned24(a, a_rows, w, p, panels, k, c, c_rows, at, keep, fetch)
        else:
            _turned14(a, a_rows, w, p, panels, k, c, c_rows, at, keep, fetch)
    elif rows == 3:
        _turned31(a, a_rows, w, p, panels, k, c, c_rows, at, keep, fetch)
    elif rows == 2:
        _turned21(a, a_rows, w, p, panels, k, c, c_rows, at, keep, fetch)
    else:
        _turned11(a, a_rows, w, p, panels, k, c, c_rows, at, keep, fetch)


def _plain_dot_tile(
    rows: int, a: Array, a_rows: Array, w: Array, w_at: int, steps: int, c: Array, c_rows: Array, c_at: int, at: int, keep: bool
) -> None:
    wide = columns(w.dtype)
    panel = w.reshape(-1)[w_at : w_at + wide * steps].reshape(steps, wide)
    total = a[a_rows[at : at + rows], :steps] @ panel
    into = c_rows[at : at + rows]
    c[into, c_at : c_at + wide] = (c[into, c_at : c_at + wide] if keep else 0) + total


def _plain_outer_tile(
    rows: int, l: Array, l_rows: Array, l_at: int, r: Array, r_rows: Array, r_at: int, at: int, scale: float, w: Array, w_at: int, steps: int  # noqa: E741
) -> None:  # fmt: skip
    wide = columns(w.dtype)
    panel = w.reshape(-1)[w_at : w_at + wide * steps].reshape(steps, wide)
    panel += l[l_rows[at : at + rows], l_at : l_at + steps].T @ (w.dtype.type(scale) * r[r_rows[at : at + rows], r_at : r_at + wide])


def _plain_turned_tile(
    rows: int, steps: int, a: Array, a_rows: Array, w: Array, p: int, panels: int, k: int, c: Array, c_rows: Array, at: int, keep: bool, fetch: bool
) -> None:
    wide = w.shape[2]
    block = w[p : p + panels, k : k + steps].transpose(0, 2, 1).reshape(panels * wide, steps)
    total = a[a_rows[at : at + rows], p * wide : (p + panels) * wide] @ block
    into = c_rows[at : at + rows]
    c[into, k : k + steps] = (c[into, k : k + steps] if keep else 0) + total


_COMPILED = hasattr(_compiled_dot_tile, "py_func")
dot_tile: Callable[..., None] = _compiled_dot_tile if _COMPILED else _plain_dot_tile
outer_tile: Callable[..., None] = _compiled_outer_tile if _COMPILED else _plain_outer_tile
turned_tile: Callable[..., None] = _compiled_turned_tile if _COMPILED else _plain_turned_tile
