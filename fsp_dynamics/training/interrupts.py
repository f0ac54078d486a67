"""What is done between batches of an epoch, every so many of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fsp_dynamics.errors import ConfigurationError


@dataclass(slots=True)
class Interrupts:
    """Functions to call after every so many batches of an epoch, counted from its beginning, with
    the number of finished batches.
    """

    due: list[tuple[int, Callable[[int], None]]] = field(default_factory=list)

    def add(self, every: int, act: Callable[[int], None]) -> None:
        """Call `act` after every `every` batches. Raises ConfigurationError for fewer than one."""
        if every < 1:
            raise ConfigurationError(f"every = {every!r}, expected 1 or more batches")
        self.due.append((every, act))

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
