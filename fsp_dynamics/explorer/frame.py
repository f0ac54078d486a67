"""One packed reply: named float32 arrays in one buffer, with scalar readouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.models.network import Array

Layout = list[tuple[str, tuple[int, ...], int]]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Everything displayed for one setting of the controls.

    layout : (name, shape, offset) of each array; the offset counts floats. buffer : the arrays
        concatenated, float32.
    readouts : scalar values and text (JSON).
    """

    layout: Layout
    buffer: bytes
    readouts: dict[str, Any]

    @classmethod
    def of(cls, arrays: Mapping[str, Array], readouts: dict[str, Any]) -> Frame:
        """Pack these arrays in order."""
        layout, offset = [], 0
        for name, array in arrays.items():
            layout.append((name, tuple(array.shape), offset))
            offset += array.size
        with np.errstate(over="ignore"):  # values outside the range of float32 are drawn as gaps
            parts = [np.ascontiguousarray(array, np.float32).tobytes() for array in arrays.values()]
        return cls(layout, b"".join(parts), readouts)

    def __getitem__(self, name: str) -> Array:
        """The array of that name. Raises KeyError."""
        for known, shape, offset in self.layout:
            if known == name:
                return np.frombuffer(self.buffer, np.float32, int(np.prod(shape)), 4 * offset).reshape(shape)
        raise KeyError(name)
