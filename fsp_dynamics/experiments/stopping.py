"""What signals do to a run or a sweep.

SIGINT, SIGTERM and SIGHUP stop it, SIGUSR1 saves its state and lets it go on. Where stopping at
once is harmless they raise `Interrupted` there; elsewhere they are noted, and `Stop.check` raises
it at the next place that is. Where a computation heeds a check (kernels/heed.py), the check is made
as well, so that it ends there. A second one stops at once, wherever it arrives.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from fsp_dynamics.kernels.heed import heed

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
SAVING = "SIGUSR1"
# a shell, torchrun and a scheduler each pass the same signal on to the processes of a job
SAME = 5.0  # seconds
AGAIN = 0.02  # seconds until a signal is sent again that arrived where nothing can be raised


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; what was saved last is whole. `signum` is the signal.

    >>> Interrupted(signal.SIGTERM).signum == signal.SIGTERM
    True
    >>> issubclass(Interrupted, KeyboardInterrupt)
    True
    """

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message or f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Stop:
    """Whether a signal has arrived.

    outer : that of the block around this one. signum : the first signal that asks to stop.
    save : another asks to save the state; whoever does so resets it. at_once : a signal raises
        Interrupted where it arrives. patience : seconds from the first signal for which others
        count as the same.
    """

    def __init__(self, patience: float = 0.0, outer: Stop | None = None) -> None:
        self.outer = outer
        self.signum: int | None = None if outer is None else outer.signum
        self.save, self.at_once, self.patience, self._first = False, False, patience, 0.0
        self._repeated = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if signum == getattr(signal, SAVING, None):
            self.save = True
            return None if _swallows(frame) else heed()
        now, first = time.monotonic(), self.signum is None or self._repeated
        self._repeated = _swallows(frame)
        if first:
            self.signum, self._first = signum, now
        if self._repeated:
            again = threading.Timer(AGAIN, os.kill, (os.getpid(), signum))
            again.daemon = True
            return again.start()
        if self.at_once or (not first and now - self._first >= self.patience):
            raise Interrupted(signum)
        return heed()

    def check(self) -> None:
        """Raises Interrupted if a signal has arrived."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    @contextlib.contextmanager
    def postponed(self) -> Iterator[None]:
        """Signals that arrive in the block are noted; a second one still stops at once."""
        before, self.at_once = self.at_once, False
        try:
            yield
        finally:
            self.at_once = before


@contextlib.contextmanager
def stoppable(*, at_once: bool = False, patience: float = 0.0) -> Iterator[Stop]:
    """Signals act on the yielded `Stop` while the block runs; outside the main thread they are left
    alone, and so is one that somebody else waits for or that is ignored (nohup).

    In nested blocks signals reach the inner `Stop` only; one that arrived before it began is
    passed on to it, and one that arrived in it to the outer one. Raises Interrupted where a signal
    of before stops at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    before = {number: handler for number in _numbers() if _is_free(number, handler := signal.getsignal(number))}
    outer = getattr(before.get(signal.SIGINT), "__self__", None)
    stop = Stop(patience, outer if isinstance(outer, Stop) else None)
    try:
        for number in before:
            signal.signal(number, stop.handle)
        stop.at_once = at_once
        if at_once:
            stop.check()
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if stop.outer is not None:
            stop.outer.signum = stop.signum


def _swallows(frame: FrameType | None) -> bool:
    """Whether Python is called back by LLVM here, which ignores what is raised. It is the first
    thing that the interpreter does after the longest steps of the compiler.
    """
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name.startswith("_raw_") and name.partition(".")[0] == "llvmlite":
            return True
        frame = frame.f_back
    return False


def _numbers() -> list[int]:
    """The signals of above that this system has."""
    return [getattr(signal, name) for name in (*STOPPING, SAVING) if hasattr(signal, name)]


def _is_free(number: int, handler: object) -> bool:
    """Whether nobody else waits for a signal: None is a handler of another language."""
    if number in (signal.SIGINT, signal.SIGTERM):
        return handler is not None
    return handler == signal.SIG_DFL or isinstance(getattr(handler, "__self__", None), Stop)
