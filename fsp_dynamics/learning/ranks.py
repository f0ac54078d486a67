"""One training in several processes, its ranks: what the learning loop needs of them, and the plain case of one.

Every rank holds all weights. Of each batch it brings a share of the samples to rest, then all ranks tell each other what they found and every one
learns the same from the whole batch, in the same order: weights have the same bits everywhere, and the same for any number of ranks.
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

    def gather(self, own: Any) -> list[Any]:
        return [own]


def share_of(count: int, ranks: Ranks) -> tuple[int, int]:
    """(first, last + 1) of the part of range(count) that is this rank's."""
    return count * ranks.rank // ranks.count, count * (ranks.rank + 1) // ranks.count
