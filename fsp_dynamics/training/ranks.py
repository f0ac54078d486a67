"""Ranks: the processes of one training, what training needs of them, and the plain case of one.

Ranks of one machine share memory: weights, states and all. The kernels of a loop are then run by
the ranks as by the threads of one team (kernels/team.py). Everywhere else every rank computes the
phases of a part of each batch; the ranks exchange the results, and each applies the update of the
whole batch in the same order. Either way weights have the same bits in all ranks, and for any
number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from fsp_dynamics.kernels.team import partition
from fsp_dynamics.models.network import Array


class Expected(NamedTuple):
    """A tensor that another rank sends."""

    shape: tuple[int, ...]
    dtype: Any
    device: Any


class Ranks(Protocol):
    """Processes that train one network together."""

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def shards(self) -> int:
        """Number of parts of fixed size into which a batch is divided where the bits of a product
        depend on its number of rows; a multiple of `count`.
        """
        ...

    @property
    def sharers(self) -> tuple[int, int]:
        """(number of this rank, how many) among those of one machine that share memory: all of
        them, or (0, 1) where none do.
        """
        ...

    def shared(self, array: Array) -> Array:
        """The array in memory that the sharers have in common; they must give equal ones. The
        array itself where there are none.
        """
        ...

    def barrier(self) -> None:
        """Wait for the sharers; what each wrote into shared memory before is then visible to all.
        Raises RankLostError where one has ended.
        """
        ...

    def watching(self, counters: Array) -> AbstractContextManager[None]:
        """Within the block the `counters` of a team of sharers (kernels/team.py) are marked where
        one of them has ended.
        """
        ...

    def gather(self, own: Any) -> list[Any]:
        """The argument of each rank, in the order of their numbers: arrays, or tensors, of the
        same shape and dtype in all ranks.

        Every rank must call it, in the same order. Raises RankLostError where another rank has
        ended.
        """
        ...

    def shift(self, given: Sequence[Any], expected: Sequence[Expected]) -> list[Any]:
        """Send tensors to the rank after this one, and receive those that the one before sends; the
        first receives none, the last sends none.

        Every rank must call it, in the same order. expected : what the rank before gives, in its
        order. Raises RankLostError where another rank has ended.
        """
        ...

    def broadcast(self, array: Array, source: int) -> Array:
        """The array of the rank `source`; those of all others are of the same shape and dtype.

        Every rank must call it, in the same order. Raises RankLostError where another rank has
        ended.
        """
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """The only process of a training without a job."""

    rank: int = 0
    count: int = 1
    shards: int = 1
    sharers: tuple[int, int] = (0, 1)

    def shared(self, array: Array) -> Array:
        return array

    def barrier(self) -> None:
        pass

    def watching(self, counters: Array) -> AbstractContextManager[None]:
        return nullcontext()

    def gather(self, own: Any) -> list[Any]:
        return [own]

    def shift(self, given: Sequence[Any], expected: Sequence[Expected]) -> list[Any]:
        return []

    def broadcast(self, array: Array, source: int) -> Array:
        return array


ALONE = Alone()


def shards_of(rows: int, ranks: Ranks) -> tuple[list[slice], list[slice]]:
    """The shards of a batch of so many rows: all of them, and those of this rank."""
    shards = [slice(*partition(rows, shard, ranks.shards)) for shard in range(ranks.shards)]
    return shards, shards[slice(*partition(ranks.shards, ranks.rank, ranks.count))]
