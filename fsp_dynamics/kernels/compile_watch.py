"""While kernels are compiled, which happens once, whoever waits is told so.

Numba tells listeners when it begins and ends to compile (numba.core.event); what is loaded from the
disk is not compiled, so nothing here is reached then. Where another process compiles what this one
waits for (kernels/cache_turns.py), that is told as well. `working_time` leaves all of it out.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from numba.core import event

from fsp_dynamics.screen import manner, screen, spinner

COMPILING = "compiling the kernels, once, about 15 s"
FURTHER = "compiling further kernels, once"
DELAY = 0.3  # seconds of compiling before anything is shown: a single small kernel needs no word
APART = 5.0  # seconds without, after which compiling is told of again
PACKAGE = __name__.partition(".")[0]


class Watch(event.Listener):
    """Tells of compiling on stderr: by a row that moves, or by one line. listener : is told when it
    begins (True) and ends.
    """

    def __init__(self) -> None:
        self.listener: Callable[[bool], None] | None = None
        self._lock = threading.RLock()
        self._depth = self._count = 0
        self._begin = self._end = self._spent = 0.0
        self._told = 0  # how many lines
        self._line_due = True
        self._waiting: threading.Timer | None = None

    def on_start(self, event: Any) -> None:
        """A kernel is compiled, within another perhaps. Those of others than the package are not
        told of.
        """
        function = getattr(event.data.get("dispatcher"), "py_func", None)
        if self._depth or str(getattr(function, "__module__", "")).partition(".")[0] == PACKAGE:
            self.begin()

    def on_end(self, event: Any) -> None:
        """It is compiled, or that failed."""
        if self._depth:
            self._count += 1
            self.end()

    def begin(self) -> None:
        """Somebody waits for a compiler."""
        with self._lock:
            self._depth += 1
            if self._depth > 1:
                return
            if self.listener:
                self.listener(True)
            self._begin = time.monotonic()
            if self._begin - self._end > APART:
                self._spent, self._count, self._line_due = 0.0, 0, True
            how, wait = manner(), DELAY - self._spent
            if how == "nothing":
                return
            if wait <= 0:
                self._tell(how)
            else:
                self._waiting = threading.Timer(wait, self._tell, [how])
                self._waiting.daemon = True
                self._waiting.start()

    def end(self) -> None:
        """Nobody does any longer."""
        with self._lock:
            self._depth -= 1
            if self._depth:
                return
            if self.listener:
                self.listener(False)
            self._end = time.monotonic()
            self._spent += self._end - self._begin
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None
            screen().remove(self.row)

    def _tell(self, how: str) -> None:
        with self._lock:
            if not self._depth or (how == "rows" and screen().add(self.row)) or not self._line_due:
                return
            self._line_due = False
            screen().write(FURTHER if self._told else COMPILING)
            self._told += 1

    def row(self, columns: int) -> str:
        """What is shown meanwhile."""
        seconds = self._spent + time.monotonic() - self._begin
        return f"{spinner(seconds)} {COMPILING}: {self._count} so far, {seconds:.0f} s"


class _Clock(event.Listener):
    """How long each thread has had to do with the compiler: compiling, loading, waiting for it."""

    def __init__(self) -> None:
        self._here = threading.local()

    def on_start(self, event: Any) -> None:
        depth = getattr(self._here, "depth", 0)
        if not depth:
            self._here.begin = time.perf_counter()
        self._here.depth = depth + 1

    def on_end(self, event: Any) -> None:
        depth = getattr(self._here, "depth", 0)
        if depth == 1:
            self._here.spent = self.spent() + time.perf_counter() - self._here.begin
        self._here.depth = max(depth - 1, 0)

    def spent(self) -> float:
        return float(getattr(self._here, "spent", 0.0))


_watch, _clock = Watch(), _Clock()
_installed = False


def install() -> None:
    """Watch Numba in this process from now on."""
    global _installed
    if not _installed:
        _installed = True
        event.register("numba:compile", _watch)
        event.register("numba:compiler_lock", _clock)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """The block waits for a kernel that another process compiles."""
    _watch.begin()
    try:
        yield
    finally:
        _watch.end()


@contextlib.contextmanager
def heard_by(listener: Callable[[bool], None]) -> Iterator[None]:
    """In the block, `listener` is called whenever this process begins (True) or ends (False) to
    wait for a compiler, also where nothing is shown.
    """
    watch, usual = _watch, _watch.listener
    watch.listener = listener
    try:
        yield
    finally:
        watch.listener = usual


@contextlib.contextmanager
def off_the_clock() -> Iterator[None]:
    """What this thread does in the block is for the compiler: `working_time` stands still."""
    _clock.on_start(None)
    try:
        yield
    finally:
        _clock.on_end(None)


def working_time() -> float:
    """time.perf_counter(), less what this thread has spent on kernels compiled and loaded."""
    return time.perf_counter() - _clock.spent()
