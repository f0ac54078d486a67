"""What is shown while a sweep runs: a line for each member that ends, and a bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from fsp_dynamics.experiments.progress import Bar, Output, Progress, Record, Reporter, output_for
from fsp_dynamics.experiments.sweeps.workers import Attempt


@runtime_checkable
class MemberReporter(Reporter, Protocol):
    """Receives what happens in a sweep. label : a member's name. warn : a failure, and what is done
    about it.
    """

    def start(self, members: int, finished: int) -> None: ...

    def end_member(self, label: str, attempt: Attempt) -> None: ...

    def warn(self, text: str) -> None: ...


class SweepReporter:
    """Writes the members of a sweep to an output. silent : failures are notes, for nothing else is
    shown. listener : receives each member's name and summary too.
    """

    def __init__(
        self, output: Output, listener: Callable[[Record], None] | None = None, *, silent: bool = False
    ) -> None:
        self.output, self.listener, self.silent = output, listener, silent
        self.members = self.done = 0
        self._bar: Bar | None = None

    def report(self, text: str) -> None:
        self.output.report(text)

    def note(self, text: str) -> None:
        self.output.note(text)

    def warn(self, text: str) -> None:
        (self.output.note if self.silent else self.output.report)(text)

    def start(self, members: int, finished: int) -> None:
        self.members, self.done = members, finished
        if finished:
            self.report(f"{finished} of {members} runs are finished already")
        self.close()
        self._bar = self.output.open_bar("sweep", members, finished, f"{finished} of {members} runs")

    def end_member(self, label: str, attempt: Attempt) -> None:
        self.done += 1
        for text in attempt.notes if not self.silent else ():
            self.note(f"{label}: {text}")
        if attempt.status == "failed" and self.silent:
            self.warn(f"{label} failed again: {attempt.reason}")
        self.report(member_line(self.done, self.members, label, attempt))
        if self._bar is not None:
            self._bar.move(self.done, f"{self.done} of {self.members} runs")
        if self.listener:
            self.listener({"member": label, "status": attempt.status, "reason": attempt.reason, **attempt.summary})

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def sweep_reporter(progress: Progress | MemberReporter) -> MemberReporter:
    """The reporter that `progress` asks for, or is."""
    if isinstance(progress, MemberReporter):
        return progress
    return SweepReporter(output_for(progress), progress if callable(progress) else None, silent=progress is not True)


def member_line(done: int, members: int, label: str, attempt: Attempt) -> str:
    """One line for a member that ended.

    >>> found = Attempt("finished", summary={"best": {"test_error": 4.5}, "seconds": 12.4})
    >>> member_line(3, 20, "beta=1-seed=2", found)
    ' 3 of 20   beta=1-seed=2   test  4.50 %   12.4 s'
    """
    place = f"{done:{len(str(members))}d} of {members}"
    if attempt.status != "finished":
        return f"{place}   {label} failed again: {attempt.reason}"
    error = (attempt.summary.get("best") or {}).get("test_error")
    shown = "" if error is None else f"test {error:5.2f} %"
    return "   ".join(filter(None, (place, label, shown, f"{attempt.summary.get('seconds') or 0:.1f} s")))
