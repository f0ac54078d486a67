"""One training in several processes, its ranks: what the learning loop needs of them, and the
plain case of one.

Ranks of one machine share memory: weights, states and all. Compiled batches of a loop are then
walked by the ranks as by the threads of one team (kernels/team.py). Everywhere else every rank
brings a share of each batch's samples to rest; then all tell each other what they found and learn
the same from the whole batch, in the same order. Either way weights have the same bits in all of
them, and for any number of them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from fsp_dynamics.kernels.team import partition
from fsp_dynamics.models.network import Array


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
        """Into how many parts of fixed size a batch is cut where the bits of a product depend on
        its number of rows; a multiple of `count`.
        """
        ...

    @property
    def sharers(self) -> tuple[int, int]:
        """(number of this rank, how many) among those of one machine that share memory: all of
        them, or (0, 1) where nobody does.
        """
        ...

    def shared(self, array: Array) -> Array:
        """The array in memory that the sharers have in common; they must give equal ones. The
        array itself where there are none.
        """
        ...

    def barrier(self) -> None:
        """Wait for the sharers; what each wrote into shared memory before is then seen by all.
        Raises RankLostError where one is gone.
        """
        ...

    def watching(self, counters: Array) -> AbstractContextManager[None]:
        """In the block the `counters` of a team of sharers (kernels/team.py) are told where one of
        them is gone.
        """
        ...

    def gather(self, own: Any) -> list[Any]:
        """What each rank gave, in the order of their numbers: arrays, or tensors, of one shape and
        dtype everywhere.

        Every rank must call it, in the same order. Raises RankLostError where another rank is
        gone.
        """
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """The one process of a usual training."""

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


ALONE = Alone()


def shards_of(rows: int, ranks: Ranks) -> tuple[list[slice], list[slice]]:
    """The shards of a batch of so many rows: all of them, and those of this rank."""
    shards = [slice(*partition(rows, shard, ranks.shards)) for shard in range(ranks.shards)]
    return shards, shards[slice(*partition(ranks.shards, ranks.rank, ranks.count))]
