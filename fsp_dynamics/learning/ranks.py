"""One training in several processes, its ranks: what the learning loop needs of them, and the plain case of one.

Every rank holds all weights. Of each batch it brings a share of the samples to rest, then all ranks tell each other what they found and every one
learns the same from the whole batch, in the same order. So the weights have the same bits in all of them, and for any number of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


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
        """Into how many parts of fixed size a batch is cut where the bits of a product depend on its number of rows; a multiple of `count`."""
        ...

    def gather(self, own: Any) -> list[Any]:
        """What each rank gave, in the order of their numbers: arrays, or tensors, of one shape and dtype everywhere.

        Every rank must call it, in the same order. Raises RankLostError where another rank is gone.
        """
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """The one process of a usual training."""

    rank: int = 0
    count: int = 1
    shards: int = 1

    def gather(self, own: Any) -> list[Any]:
        return [own]


ALONE = Alone()


def share_of(count: int, rank: int, ranks: int) -> tuple[int, int]:
    """(first, last + 1) of the part of range(count) that is rank's (kernels/team.share)."""
    return count * rank // ranks, count * (rank + 1) // ranks
