"""What is shown while a run goes on: a bar, lines, or nothing. Everything goes to stderr; stdout
belongs to results.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, Protocol

Record = dict[str, Any]
Progress = bool | Callable[[Record], None]
"""True: bars and a line for each epoch. False: nothing. A callable is given the record of each
epoch.
"""


class Reporter(Protocol):
    """What the runner tells while it works."""

    def start_epoch(self, epoch: int, epochs: int, images: int) -> None: ...

    def batch(self, done: int, total: int, error: float) -> None: ...

    def end_epoch(self, record: Record) -> None: ...

    def note(self, text: str) -> None: ...

    def tell(self, text: str) -> None: ...

    def close(self) -> None: ...


def reporter(progress: Progress) -> Reporter:
    """The reporter that `progress` asks for."""
    return Bars() if progress is True else Quiet(None if progress is False else progress)


class Quiet:
    """Shows nothing; hands each epoch's record to `listener`; notes become Python warnings."""

    def __init__(self, listener: Callable[[Record], None] | None = None) -> None:
        self.listener = listener

    def start_epoch(self, epoch: int, epochs: int, images: int) -> None:
        pass

    def batch(self, done: int, total: int, error: float) -> None:
        pass

    def end_epoch(self, record: Record) -> None:
        if self.listener:
            self.listener(record)

    def note(self, text: str) -> None:
        warnings.warn(text, UserWarning, stacklevel=2)

    def tell(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class Mute(Quiet):
    """Shows nothing at all: what a rank says whose first one speaks for all."""

    def __init__(self) -> None:
        super().__init__(None)

    def note(self, text: str) -> None:
        pass


class Lines(Quiet):
    """A line for each epoch, the notes and what is worth telling, on stderr."""

    def end_epoch(self, record: Record) -> None:
        self._say(epoch_line(record))

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def tell(self, text: str) -> None:
        self._say(text)

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bars(Lines):
    """The same, and a bar that moves with the images (left out where stderr is no terminal)."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None

    def start_epoch(self, epoch: int, epochs: int, images: int) -> None:
        from tqdm.auto import tqdm

        self.close()
        self._bar = tqdm(
            total=images, desc=f"epoch {epoch}/{epochs}", unit="img", leave=False, disable=None, file=sys.stderr
        )

    def batch(self, done: int, total: int, error: float) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"error {error:.2f} %", refresh=False)
            self._bar.update(done - self._bar.n)

    def end_epoch(self, record: Record) -> None:
        self.close()
        super().end_epoch(record)

    def note(self, text: str) -> None:
        self.close()
        super().note(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def epoch_line(record: Record) -> str:
    """One line of an epoch's record.

    >>> epoch_line({"epoch": 3, "train_error": 1.5, "test_error": 2.25, "alignment_degrees": {"loop": 61.2}, "images_per_second": 900.0})
    'epoch   3   train  1.50   test  2.25 %   loop 61   900 img/s'
    """
    errors = [
        f"{part} {record[f'{part}_error']:5.2f}"
        for part in ("train", "valid", "test")
        if record.get(f"{part}_error") is not None
    ]
    angles = [
        f"{name} {degrees:.0f}"
        for name, degrees in (record.get("alignment_degrees") or {}).items()
        if degrees is not None
    ]
    restless = f"UNCONVERGED {record['unconverged']}" if record.get("unconverged") else ""
    speed = f"{record.get('images_per_second') or 0:.0f} img/s"
    return "   ".join(
        filter(None, (f"epoch {record['epoch']:3d}", "   ".join(errors) + " %", " ".join(angles), restless, speed))
    )
