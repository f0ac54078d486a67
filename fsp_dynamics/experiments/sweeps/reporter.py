"""What is told while a sweep goes on: a line for each member that ends, and a bar. Everything goes
to stderr; stdout belongs to results.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from fsp_dynamics.experiments.folder import Record
from fsp_dynamics.experiments.sweeps.workers import Outcome


@runtime_checkable
class Telling(Protocol):
    """What a sweep tells while it works. label : a member's name."""

    def begin(self, members: int, finished: int) -> None: ...

    def ended(self, label: str, outcome: Outcome) -> None: ...

    def problem(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def telling(progress: bool | Callable[[Record], None] | Telling) -> Telling:
    """What `progress` asks for."""
    if isinstance(progress, bool):
        return Bar() if progress else Silence()
    return progress if isinstance(progress, Telling) else Silence(progress)


class Silence:
    """Shows nothing; hands each member's name and summary to `listener`; notes and problems become
    Python warnings.
    """

    def __init__(self, listener: Callable[[Record], None] | None = None) -> None:
        self.listener = listener

    def begin(self, members: int, finished: int) -> None:
        pass

    def ended(self, label: str, outcome: Outcome) -> None:
        if outcome.status == "failed":
            self.problem(f"{label} failed again: {outcome.reason}")
        if self.listener:
            self.listener({"member": label, "status": outcome.status, "reason": outcome.reason, **outcome.summary})

    def problem(self, text: str) -> None:
        warnings.warn(text, UserWarning, stacklevel=2)

    def note(self, text: str) -> None:
        warnings.warn(text, UserWarning, stacklevel=2)

    def close(self) -> None:
        pass


class Lines(Silence):
    """A line for each member, and the notes, on stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.members = self.done = 0

    def begin(self, members: int, finished: int) -> None:
        self.members, self.done = members, finished
        if finished:
            self.say(f"{finished} of {members} runs are finished already")

    def ended(self, label: str, outcome: Outcome) -> None:
        self.done += 1
        for text in outcome.notes:
            self.note(f"{label}: {text}")
        self.say(member_line(self.done, self.members, label, outcome))

    def problem(self, text: str) -> None:
        self.say(text)

    def note(self, text: str) -> None:
        self.say(f"note: {text}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bar(Lines):
    """The same, and a bar that moves with the members (left out where stderr is no terminal)."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None

    def begin(self, members: int, finished: int) -> None:
        from tqdm.auto import tqdm

        super().begin(members, finished)
        self._bar = tqdm(
            total=members, initial=finished, desc="sweep", unit="run", leave=False, disable=None, file=sys.stderr
        )

    def ended(self, label: str, outcome: Outcome) -> None:
        super().ended(label, outcome)
        if self._bar is not None:
            self._bar.update(1)

    def say(self, text: str) -> None:
        if self._bar is None or self._bar.disable:
            super().say(text)
        else:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def member_line(done: int, members: int, label: str, outcome: Outcome) -> str:
    """One line of a member that ended.

    >>> member_line(3, 20, "beta=1-seed=2", Outcome("finished", summary={"best": {"test_error": 4.5}, "seconds": 12.4}))
    ' 3 of 20   beta=1-seed=2   test  4.50 %   12.4 s'
    """
    place = f"{done:{len(str(members))}d} of {members}"
    if outcome.status != "finished":
        return f"{place}   {label} failed again: {outcome.reason}"
    error = (outcome.summary.get("best") or {}).get("test_error")
    shown = "" if error is None else f"test {error:5.2f} %"
    return "   ".join(filter(None, (place, label, shown, f"{outcome.summary.get('seconds') or 0:.1f} s")))
