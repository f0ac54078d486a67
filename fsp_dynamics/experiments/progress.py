"""What is shown while runs and sweeps go on. Everything goes to stderr; stdout belongs to results.

An `Output` is where text and bars go: nowhere, to Python's warnings, to stderr. A `RunReporter`
writes a run's epochs to one, a `SweepReporter` (experiments/sweeps/reporter.py) the runs of a
sweep.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from fsp_dynamics import streams

Record = dict[str, Any]
Progress = bool | Callable[[Record], None]
"""True: bars, and a line for each record. False: nothing. A callable receives each record."""


class Reporter(Protocol):
    """Receives the texts of a run or a sweep. report : what happens. note : what a user should
    know. close : nothing more follows for now.
    """

    def report(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class EpochReporter(Reporter, Protocol):
    """Receives what happens in a run. batch : after some batches, with images done and in all and
    the percentage wrong so far. end_epoch : the epoch's record.
    """

    def start_epoch(self, epoch: int, epochs: int, images: int) -> None: ...

    def batch(self, done: int, total: int, error: float) -> None: ...

    def end_epoch(self, record: Record) -> None: ...


class Output:
    """Nowhere: neither text nor bars."""

    def report(self, text: str) -> None:
        """Show a line."""

    def note(self, text: str) -> None:
        """Show what a user should know."""

    def open_bar(self, title: str, total: int, unit: str, done: int = 0) -> None:
        """Show a bar, in place of the one before."""

    def move_bar(self, done: int, text: str = "") -> None:
        """Move the bar, where there is one."""

    def close(self) -> None:
        """Remove the bar."""


class WarningsOutput(Output):
    """Notes become Python warnings; all else is not shown."""

    def note(self, text: str) -> None:
        warnings.warn(text, UserWarning, stacklevel=_caller())


def _caller() -> int:
    """The `stacklevel`, for the function that calls this one, of the line by which the user called
    the package.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fsp_dynamics":
        frame, level = frame.f_back, level + 1
    return level


class StderrOutput(Output):
    """Lines on stderr, and bars if `bars` (left out where stderr is no terminal)."""

    def __init__(self, bars: bool = True) -> None:
        self.bars = bars
        self._bar: Any = None

    def report(self, text: str) -> None:
        if self._bar is None or self._bar.disable:
            print(text, file=streams.stderr(), flush=True)
        else:
            self._bar.write(text, file=streams.stderr())

    def note(self, text: str) -> None:
        self.report(f"note: {text}")

    def open_bar(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.close()
        if self.bars:
            from tqdm.auto import tqdm

            shown: dict[str, Any] = {"leave": False, "disable": None, "file": streams.stderr()}
            self._bar = tqdm(total=total, initial=done, desc=title, unit=unit, **shown)

    def move_bar(self, done: int, text: str = "") -> None:
        if self._bar is not None:
            if text:
                self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def output_for(progress: Progress) -> Output:
    """Where text goes that `progress` asks for."""
    return StderrOutput() if progress is True else WarningsOutput()


class RunReporter:
    """Writes the epochs of a run to an output. listener : receives each epoch's record too."""

    def __init__(self, output: Output, listener: Callable[[Record], None] | None = None) -> None:
        self.output, self.listener = output, listener

    def report(self, text: str) -> None:
        self.output.report(text)

    def note(self, text: str) -> None:
        self.output.note(text)

    def start_epoch(self, epoch: int, epochs: int, images: int) -> None:
        self.output.open_bar(f"epoch {epoch}/{epochs}", images, "img")

    def batch(self, done: int, total: int, error: float) -> None:
        self.output.move_bar(done, f"error {error:.2f} %")

    def end_epoch(self, record: Record) -> None:
        self.output.close()
        self.output.report(epoch_line(record))
        if self.listener:
            self.listener(record)

    def close(self) -> None:
        self.output.close()


def run_reporter(progress: Progress | EpochReporter) -> EpochReporter:
    """The reporter that `progress` asks for, or is."""
    if isinstance(progress, EpochReporter):
        return progress
    return RunReporter(output_for(progress), None if isinstance(progress, bool) else progress)


def epoch_line(record: Record) -> str:
    """One line of an epoch's record.

    >>> record = {"epoch": 3, "train_error": 1.5, "test_error": 2.25}
    >>> epoch_line({**record, "alignment_degrees": {"loop": 61.2}, "images_per_second": 900.0})
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
    unconverged = f"UNCONVERGED {record['unconverged']}" if record.get("unconverged") else ""
    speed = f"{record['images_per_second']:.0f} img/s" if record.get("images_per_second") else ""
    return "   ".join(
        filter(None, (f"epoch {record['epoch']:3d}", "   ".join(errors) + " %", " ".join(angles), unconverged, speed))
    )
