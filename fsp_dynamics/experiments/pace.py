"""How far a run has come, and how long the rest of it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from fsp_dynamics.screen import duration

LEARNING = 0.9  # of an epoch's time, until an epoch has been seen
RECENT = 3  # epochs by which the next are judged


class Pace:
    """The pace of a run: epochs learned, and evaluated. Compiling is left out of what is expected,
    as it happens once: an epoch's learning lasts as its record says, and all else, of which most
    is evaluation, as in the quickest epoch so far.
    """

    def __init__(self, epochs: int, images: int, now: Callable[[], float] = time.monotonic) -> None:
        self.epochs, self.images, self._now = epochs, images, now
        self._finished = 0
        self._done = 0.0  # images of the epoch
        self._first: tuple[float, float] | None = None  # (time, images) when its first batches were done
        self._learned: float | None = None  # when its last batch was done
        self._seconds: list[float] = []  # of learning, the recent epochs
        self._besides: float | None = None  # seconds of an epoch beside learning
        self._left: tuple[float, float] | None = None  # (time, seconds left then)

    def start(self, epoch: int) -> None:
        """An epoch begins."""
        self._finished, self._done, self._first, self._learned = epoch - 1, 0.0, None, None

    def batch(self, done: float, total: float) -> None:
        """So many images of the epoch are learned."""
        now = self._now()
        self.images, self._done = int(total), done
        if self._first is None:
            self._first = now, done
        if done >= total:
            self._learned = now
        self._expect(now)

    def end(self, seconds: float | None = None) -> None:
        """The epoch is over. seconds : those of learning, without compiling."""
        now = self._now()
        if seconds is not None:
            self._seconds = [*self._seconds, seconds][-RECENT:]
        if self._learned is not None:
            besides = now - self._learned
            self._besides = besides if self._besides is None else min(besides, self._besides)
        self._finished, self._done = self._finished + 1, 0.0
        self._expect(now)

    def share(self) -> float:
        """Of the run, from 0 to 1."""
        learning = self._per_epoch()
        part = LEARNING if learning is None else learning / max(learning + (self._besides or 0.0), 1e-9)
        return min((self._finished + part * self._done / max(self.images, 1)) / max(self.epochs, 1), 1.0)

    def left(self) -> float | None:
        """Seconds until the run ends; None while nothing tells."""
        return None if self._left is None else max(self._left[1] - (self._now() - self._left[0]), 0.0)

    def text(self) -> str:
        """The time left in words."""
        left = self.left()
        return "" if left is None else f"{duration(left)} left"

    def _per_epoch(self) -> float | None:
        """Seconds of learning in an epoch."""
        if self._seconds:
            return sum(self._seconds) / len(self._seconds)
        if self._first is None or self._done <= self._first[1]:
            return None
        return self.images * (self._now() - self._first[0]) / (self._done - self._first[1])

    def _expect(self, now: float) -> None:
        learning = self._per_epoch()
        if learning is not None:
            epochs = self.epochs - self._finished - self._done / max(self.images, 1)
            besides = (self.epochs - self._finished) * (self._besides or 0.0)
            self._left = now, max(epochs * learning, 0.0) + besides
