"""What every record of remembered images can do: become arrays by name, for a checkpoint, and come
back from them.
"""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np

from fsp_dynamics.models.network import Array


class WarmStart:
    """The verbs of a dataclass whose fields are arrays; it has no fields of its own."""

    __slots__ = ()

    @classmethod
    def of(cls, arrays: dict[str, Array]) -> Self | None:
        """The record of these arrays, as `arrays` names them, copies; None if one is missing."""
        names = [each.name for each in dataclasses.fields(cls)]  # type: ignore[arg-type]
        return cls(**{name: np.array(arrays[name]) for name in names}) if set(names) <= set(arrays) else None

    def arrays(self) -> dict[str, Array]:
        """Its arrays by name."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}  # type: ignore[arg-type]

    def or_fresh(self, known: object) -> Self:
        """`known`, if it is a record of this kind, with arrays of the same shapes and dtypes; else
        this one, which is new.
        """
        if not isinstance(known, type(self)):
            return self
        pairs = zip(self.arrays().values(), known.arrays().values(), strict=True)
        return known if all((a.shape, a.dtype) == (b.shape, b.dtype) for a, b in pairs) else self
