"""One packed answer: named float32 arrays in one buffer, and what is said beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.models.network import Array

Layout = list[tuple[str, tuple[int, ...], int]]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What one setting of the controls looks like.

    layout : (name, shape, offset) of each array; the offset counts floats. buffer : the arrays one
        after another, float32.
    readouts : plain values beside them (JSON).
    """

    layout: Layout
    buffer: bytes
    readouts: dict[str, Any]

    @classmethod
    def of(cls, arrays: Mapping[str, Array], readouts: dict[str, Any]) -> Frame:
        """Pack these arrays, in their order."""
        layout, offset = [], 0
        for name, array in arrays.items():
            layout.append((name, tuple(array.shape), offset))
            offset += array.size
        with np.errstate(over="ignore"):  # what has left float32's range is drawn as a gap
            parts = [np.ascontiguousarray(array, np.float32).tobytes() for array in arrays.values()]
        return cls(layout, b"".join(parts), readouts)

    def __getitem__(self, name: str) -> Array:
        """The array of that name. Raises KeyError."""
        for known, shape, offset in self.layout:
            if known == name:
                return np.frombuffer(self.buffer, np.float32, int(np.prod(shape)), 4 * offset).reshape(shape)
        raise KeyError(name)
