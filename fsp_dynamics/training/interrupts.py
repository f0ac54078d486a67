"""What is done between batches of an epoch, every so many of them, and what leaves a batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.kernels.heed import heeding


@dataclass(slots=True)
class Interrupts:
    """due : functions to call after every so many batches of an epoch, counted from its beginning,
    with the number of finished batches. leave : a check that is made while phases relax, where a
    batch can be left as if it had never begun.
    """

    due: list[tuple[int, Callable[[int], None]]] = field(default_factory=list)
    leave: Callable[[], None] | None = None

    def add(self, every: int, act: Callable[[int], None]) -> None:
        """Call `act` after every `every` batches. Raises ConfigurationError for fewer than one."""
        if every < 1:
            raise ConfigurationError(f"every = {every!r}, expected 1 or more batches")
        self.due.append((every, act))

    def relaxing(self) -> AbstractContextManager[None]:
        """The block in which an engine relaxes the phases of a batch, and changes nothing else."""
        return heeding(self.leave)

    def after(self, done: int, most: int) -> int:
        """The next number of batches at which to stop: where something is due, and at most
        `most` batches from here.
        """
        return min([done + most, *((done // every + 1) * every for every, _ in self.due)])

    def is_due(self, done: int) -> bool:
        """Whether something is due after so many batches."""
        return any(done % every == 0 for every, _ in self.due)

    def run_due(self, done: int) -> None:
        """Call what is due after so many batches."""
        for every, act in self.due:
            if done % every == 0:
                act(done)
