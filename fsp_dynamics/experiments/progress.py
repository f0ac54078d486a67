"""What is shown while runs and sweeps go on. Everything goes to stderr; stdout belongs to results.

An `Output` is where text and bars go: nowhere, to Python's warnings, to stderr. A `RunReporter`
writes a run's epochs to one, a `SweepReporter` (experiments/sweeps/reporter.py) the runs of a
sweep.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from fsp_dynamics.experiments.pace import Pace
from fsp_dynamics.screen import Manner, bar, duration, screen, shown_as, spinner

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
    the percentage wrong so far. stage : what is done now that is no batch, such as "evaluating the
    test images". end_epoch : the epoch's record.
    """

    def start_epoch(self, epoch: int, epochs: int, images: int) -> None: ...

    def batch(self, done: int, total: int, error: float) -> None: ...

    def stage(self, what: str) -> None: ...

    def end_epoch(self, record: Record) -> None: ...


class Bar:
    """A row with a bar, or, where `stage` says what lasts, with that; shown until it is closed."""

    WIDTH = 30

    def __init__(self, title: str, total: float = 1.0, done: float = 0.0, text: str = "") -> None:
        self.title, self.total, self.done, self.begin = title, total, done, time.monotonic()
        self.text: str | Callable[[], str] = text
        self.what: str | None = None

    def move(self, done: float, text: str | Callable[[], str] = "") -> None:
        """So much of the total is done; text : what is shown beside the bar."""
        self.done, self.text, self.what = done, text, None

    def stage(self, what: str) -> None:
        """What lasts now, in place of the bar."""
        if what != self.what:
            self.what, self.begin = what, time.monotonic()

    def close(self) -> None:
        """Show it no longer."""
        screen().remove(self._row)

    def show(self) -> None:
        """Show it, where bars move."""
        screen().add(self._row)

    def _row(self, columns: int) -> str:
        seconds = time.monotonic() - self.begin
        turning = spinner(time.monotonic())
        if self.what is not None:
            since = f", {duration(seconds)}" if seconds >= 1 else ""
            return f"{turning} {self.title}  {self.what}{since}"
        share = min(self.done / self.total, 1.0) if self.total else 1.0
        text = self.text() if callable(self.text) else self.text
        width = min(self.WIDTH, max(columns - len(self.title) - len(text) - 14, 4))
        return f"{turning} {self.title}  {bar(share, width)} {100 * share:3.0f} %   {text}"


class Output:
    """Nowhere: neither text nor bars. manner : how it shows what else lasts; None: as it is where
    it is used.
    """

    manner: Manner | None = None

    def report(self, text: str) -> None:
        """Show a line."""

    def note(self, text: str) -> None:
        """Show what a user should know."""

    def open_bar(self, title: str, total: float = 1.0, done: float = 0.0, text: str = "") -> Bar:
        """Show a bar below those that are there; it is closed by `Bar.close`."""
        return Bar(title, total, done, text)

    @contextlib.contextmanager
    def in_charge(self) -> Iterator[None]:
        """In the block, what else lasts (kernels that are compiled) is shown as this output shows
        things.
        """
        with contextlib.nullcontext() if self.manner is None else shown_as(self.manner):
            yield


class WarningsOutput(Output):
    """Notes become Python warnings; all else is not shown."""

    manner = "nothing"

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
    """Lines on stderr, and bars if `bars`, where they move: on terminals and in notebooks."""

    def __init__(self, bars: bool = True) -> None:
        self.bars = bars
        self.manner = "rows" if bars else "lines"

    def report(self, text: str) -> None:
        screen().write(text)

    def note(self, text: str) -> None:
        self.report(f"note: {text}")

    def open_bar(self, title: str, total: float = 1.0, done: float = 0.0, text: str = "") -> Bar:
        opened = super().open_bar(title, total, done, text)
        if self.bars:
            opened.show()
        return opened


def output_for(progress: Progress) -> Output:
    """Where text goes that `progress` asks for."""
    return StderrOutput() if progress is True else WarningsOutput()


class RunReporter:
    """Writes the epochs of a run to an output: a bar for the run, with the time left, and below it
    one for the epoch. listener : receives each epoch's record too.
    """

    def __init__(self, output: Output, listener: Callable[[Record], None] | None = None) -> None:
        self.output, self.listener = output, listener
        self._run: Bar | None = None
        self._epoch: Bar | None = None
        self._pace: Pace | None = None

    def report(self, text: str) -> None:
        self.output.report(text)

    def note(self, text: str) -> None:
        self.output.note(text)

    def start_epoch(self, epoch: int, epochs: int, images: int) -> None:
        title = f"epoch {epoch}/{epochs}"
        if self._run is None or self._pace is None or self._epoch is None:
            self.close()
            self._pace = Pace(epochs, images)
            self._run = self.output.open_bar("run".ljust(len(title)), epochs, epoch - 1)
            self._epoch = self.output.open_bar(title, images)
        self._pace.start(epoch)
        self._run.title, self._epoch.title = "run".ljust(len(title)), title
        self._run.move(self._pace.share() * epochs, self._pace.text)
        self._epoch.total = images
        self._epoch.move(0)

    def batch(self, done: int, total: int, error: float) -> None:
        if self._run is None or self._epoch is None or self._pace is None:
            return
        self._pace.batch(done, total)
        self._run.done = self._pace.share() * self._run.total
        self._epoch.total = total
        self._epoch.move(done, f"error {error:.2f} %")

    def stage(self, what: str) -> None:
        if self._epoch is None:
            self._epoch = self.output.open_bar("run")
        self._epoch.stage(what)

    def end_epoch(self, record: Record) -> None:
        if self._pace is not None and self._run is not None:
            self._pace.end(record.get("seconds"))
            self._run.done = self._pace.share() * self._run.total
        self.output.report(epoch_line(record))
        if self.listener:
            self.listener(record)

    def close(self) -> None:
        for each in (self._run, self._epoch):
            if each is not None:
                each.close()
        self._run = self._epoch = self._pace = None


def run_reporter(progress: Progress | EpochReporter) -> EpochReporter:
    """The reporter that `progress` asks for, or is."""
    if isinstance(progress, EpochReporter):
        return progress
    return RunReporter(output_for(progress), None if isinstance(progress, bool) else progress)


def in_charge(reporter: object) -> contextlib.AbstractContextManager[None]:
    """`Output.in_charge` of a reporter's output; one of somebody else's shows everything itself."""
    output = getattr(reporter, "output", None)
    return output.in_charge() if isinstance(output, Output) else shown_as("nothing")


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
