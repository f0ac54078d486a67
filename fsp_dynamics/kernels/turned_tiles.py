"""The innermost loop of a product with a transposed matrix, from the same panels:
kernels/tiles.py, turned by a right angle.

    turned_tile   c_i[k] <- [c_i[k] +] sum_p a_i[p] . w[p, k]

for up to TURNED_ROWS rows by TURNED_STEPS rows of all panels.

Its sums stay in registers. An element is one chain of fused multiply-adds for each lane of a
vector, in the order of the panels; the lanes are added in pairs at the end. So no result depends
on how rows and steps are partitioned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fsp_dynamics.kernels.field import Array
from fsp_dynamics.kernels.vectors import Vectors, row_pointer

# 12 sums, 3 of rates and 1 of weights: the 16 vector registers of AVX2
TURNED_ROWS, TURNED_STEPS = 3, 4


def _turned(rows: int, steps: int) -> Any:
    """turned_tile for so many rows and steps (TURNED_STEPS or 1)."""

    @intrinsic
    def turned(
        typing: Any,
        a: Any,
        a_rows: Any,
        w: Any,
        p: Any,
        panels: Any,
        k: Any,
        c: Any,
        c_rows: Any,
        at: Any,
        keep: Any,
        fetch: Any,
    ) -> Any:
        whole = types.intp
        signature = types.void(a, a_rows, w, whole, whole, whole, c, c_rows, whole, types.boolean, types.boolean)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = {i: context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 2, 6, 7)}
            p, panels, k, at, keep, fetch = (args[i] for i in (3, 4, 5, 8, 9, 10))
            vectors = Vectors(builder, arrays[2].data.type.pointee)
            _, length, wide = cgutils.unpack_tuple(builder, arrays[2].shape, 3)
            width = [cgutils.unpack_tuple(builder, arrays[i].shape, 2)[1] for i in (0, 6)]
            a_row = [row_pointer(builder, arrays[0].data, width[0], arrays[1].data, at, i) for i in range(rows)]
            c_row = [
                builder.gep(row_pointer(builder, arrays[6].data, width[1], arrays[7].data, at, i), [k])
                for i in range(rows)
            ]
            first = builder.gep(arrays[2].data, [builder.mul(k, wide)])
            sums = [[cgutils.alloca_once(builder, vectors.vector) for _ in range(steps)] for _ in range(rows)]
            for place in (place for places in sums for place in places):
                builder.store(ir.Constant(vectors.vector, [0.0] * vectors.lanes), place)
            with cgutils.for_range(builder, panels) as loop:
                column = builder.mul(builder.add(p, loop.index), wide)
                step = builder.gep(first, [builder.mul(column, length)])
                rates = [vectors.places(builder.gep(row, [column])) for row in a_row]
                weights = [
                    vectors.places(builder.gep(step, [builder.mul(wide, ir.Constant(wide.type, j))]))
                    for j in range(steps)
                ]
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


_turned11, _turned21, _turned31 = (_turned(rows, 1) for rows in range(1, TURNED_ROWS + 1))
_turned14, _turned24, _turned34 = (_turned(rows, TURNED_STEPS) for rows in range(1, TURNED_ROWS + 1))


# inlined, since its tiles are short: a call with so many arguments was measured at 200 cycles
@numba.njit(error_model="numpy", inline="always")
def _compiled_turned_tile(
    rows: int,
    steps: int,
    a: Array,
    a_rows: Array,
    w: Array,
    p: int,
    panels: int,
    k: int,
    c: Array,
    c_rows: Array,
    at: int,
    keep: bool,
    fetch: bool,
) -> None:
    """c[c_rows[at + i], k + j] <- [itself, if `keep`] + sum_q a[a_rows[at + i], COLUMNS q :] .
    w[q, k + j], p <= q < p + panels, i < rows, j < steps.

    rows <= TURNED_ROWS; steps is TURNED_STEPS or 1. `fetch`: prefetch the weights of the
    next steps.
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


def _plain_turned_tile(
    rows: int,
    steps: int,
    a: Array,
    a_rows: Array,
    w: Array,
    p: int,
    panels: int,
    k: int,
    c: Array,
    c_rows: Array,
    at: int,
    keep: bool,
    fetch: bool,
) -> None:
    wide = w.shape[2]
    block = w[p : p + panels, k : k + steps].transpose(0, 2, 1).reshape(panels * wide, steps)
    total = a[a_rows[at : at + rows], p * wide : (p + panels) * wide] @ block
    into = c_rows[at : at + rows]
    c[into, k : k + steps] = (c[into, k : k + steps] if keep else 0) + total


turned_tile: Callable[..., None] = (
    _compiled_turned_tile if hasattr(_compiled_turned_tile, "py_func") else _plain_turned_tile
)
