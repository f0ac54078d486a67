"""What training keeps of its images between their visits; it makes equilibria cheaper, never
different beyond the tolerance.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np

from fsp_dynamics.display import brief
from fsp_dynamics.kernels.panels import padded
from fsp_dynamics.models.network import Array, Network

LEVELS = 127  # a state differs from its class's mean by -1 ... 1, in so many steps either way
UNSEEN = 255  # no output yet
FOLLOW = 0.05  # how far one sample moves its class's mean


class WarmStart:
    """What every warm start can do: become arrays by name, for a checkpoint, and come back from
    them. A subclass is a dataclass whose fields are arrays.
    """

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


@dataclass(slots=True, eq=False)
class LoopWarmStart(WarmStart):
    """Of a loop with a hard sigmoid.

    outputs (N, n_L) : the outputs of each sample's last free equilibrium, 0 before the first.
    moves (N, 2, n_L) : the change of the outputs and of their inputs when it was last nudged.
    slope (n_L, N_L) : the mean loop Jacobian. sums (2, n_L, n_L) : the sums of which it is the
        regression.
    """

    outputs: Array
    moves: Array
    slope: Array
    sums: Array

    def __repr__(self) -> str:
        return brief(self)

    @classmethod
    def empty(cls, samples: int, network: Network) -> LoopWarmStart:
        """Before the first epoch of a loop; N_L is n_L, padded."""
        n, dtype = network.sizes[-1], network.dtype
        return cls(
            np.zeros((samples, n), dtype),
            np.zeros((samples, 2, n), dtype),
            np.zeros((n, padded(n, dtype)), dtype),
            np.zeros((2, n, n)),
        )


@dataclass(slots=True, eq=False)
class ReciprocalWarmStart(WarmStart):
    """Of a reciprocal network with a hard sigmoid.

    seen (N,) uint8 : the strongest output of each sample's last free equilibrium, or UNSEEN.
    means (n_L, C) : the mean states of the cut for each strongest output, which move with the
        weights.
    apart (N, C) int8 : the sample's distance from that mean, in steps of 1/LEVELS.
    """

    seen: Array
    means: Array
    apart: Array

    def __repr__(self) -> str:
        return brief(self)

    @classmethod
    def empty(cls, samples: int, network: Network) -> ReciprocalWarmStart:
        width = sum(network.sizes[2::2])
        return cls(
            np.full(samples, UNSEEN, np.uint8),
            np.zeros((network.sizes[-1], width), network.dtype),
            np.zeros((samples, width), np.int8),
        )

    def start(self, index: Array) -> Array:
        """(A, C) states of the cut to begin with: the class's present mean, plus the sample's last
        distance from it.
        """
        seen = self.seen[index]
        known = seen != UNSEEN
        begin = np.where(known[:, None], self.means[np.where(known, seen, 0)], self.means.mean(0))
        begin += self.apart[index] * begin.dtype.type(1 / LEVELS)
        return np.clip(begin, 0, 1, out=begin)

    def keep(self, index: Array, cut: Array, output: Array) -> None:
        """Record the equilibria of these samples: states (A, C) of the cut, outputs (A, n_L)."""
        seen = output.argmax(1)
        apart = cut - self.means[seen]
        self.seen[index], self.apart[index] = seen, np.rint(apart * LEVELS)
        count, total = np.bincount(seen, minlength=len(self.means))[:, None], np.zeros_like(self.means)
        np.add.at(total, seen, apart)
        self.means += (1 - (1 - FOLLOW) ** count) / np.maximum(count, 1) * total


def warm_start_of(arrays: dict[str, Array]) -> WarmStart | None:
    """The warm start whose `arrays` these are; None if they belong to none."""
    return LoopWarmStart.of(arrays) or ReciprocalWarmStart.of(arrays)
