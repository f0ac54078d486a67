"""Matrices that lie end to end in one array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from fsp_dynamics.kernels.field import Array


@intrinsic
def _view(typing: Any, values: Any, at: Any, shape: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = context.make_array(signature.args[0])(context, builder, args[0])
        view = context.make_array(signature.return_type)(context, builder)
        item = context.get_constant(types.intp, context.get_abi_sizeof(values.data.type.pointee))
        strides = [item]
        for extent in cgutils.unpack_tuple(builder, args[2])[:0:-1]:
            strides.insert(0, builder.mul(strides[0], extent))
        place = builder.gep(values.data, [args[1]])
        populate_array(view, data=place, shape=args[2], strides=strides, itemsize=item, meminfo=None)
        return view._getvalue()

    return types.Array(values.dtype, len(shape), "C")(
        values, types.intp, types.UniTuple(types.intp, len(shape))
    ), generate


def _plain_view(values: Array, at: int, shape: tuple[int, ...]) -> Array:
    return values.reshape(-1)[at : at + np.prod(shape)].reshape(shape)


view_of: Any = _plain_view if getattr(config, "DISABLE_JIT", 0) else _view
"""view_of(values, at, shape): the matrix of this shape, in C order, that begins `at` elements after
the first of `values`, itself in C order. It counts no reference."""
