"""Processes that need the same kernel take turns: the first compiles it, the others find it.

Nothing depends on that but time. Where there are no locks nobody waits, and nobody waits for a
process that gives no sign of life: one that was stopped, or hangs.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

from fsp_dynamics import locks
from fsp_dynamics.kernels.compile_watch import compiling
from fsp_dynamics.kernels.heed import heed

PATIENCE = 900.0  # seconds in all that a process waits for others
BEAT = 5.0  # seconds between two signs of life
SILENCE = 60.0  # seconds without one after which nobody waits any longer
POLL = 0.05


class Turn:
    """The turn to compile one kernel, kept as a lock on a file, whose time of change is the sign of
    life. Give it back with `end`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._ended = threading.Event()

    def take(self) -> bool | None:
        """True: it is this process's turn. False: another's. None: there are no turns here."""
        with contextlib.suppress(OSError, RuntimeError):  # no more files, no more threads
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            found = locks.take(file)
            if found and self._is_there(file):
                self._file, self._ended = file, threading.Event()
                threading.Thread(target=self._live, args=(self._ended,), daemon=True).start()
                return True
            os.close(file)
            if found is None:
                os.unlink(self._path)
            return None if found is None else False
        return None

    def _live(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def _is_there(self, file: int) -> bool:
        """Whether the file still bears its name: whoever had it before has removed it."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def sign(self) -> float:
        """When the process whose turn it is gave its last sign of life, by the disk's clock."""
        try:
            return os.stat(self._path).st_mtime
        except OSError:
            return 0.0

    def end(self) -> None:
        """Let others have their turn."""
        self._ended.set()
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            with contextlib.suppress(OSError):
                locks.release(file)
            os.close(file)


class Waiting:
    """How long this process will still wait for others."""

    def __init__(self) -> None:
        self.left = PATIENCE

    def wait(self, turn: Turn) -> None:
        """Until it is this process's turn, there are none, or waiting is no use."""
        if turn.take() is False:
            with compiling():
                self._wait(turn)

    def _wait(self, turn: Turn) -> None:
        begin = last = time.monotonic()
        sign = 0.0
        while turn.take() is False and time.monotonic() - begin < self.left:
            if turn.sign() != sign:
                sign, last = turn.sign(), time.monotonic()
            elif time.monotonic() - last > SILENCE:
                self.left = 0.0
                return
            time.sleep(POLL)
            heed()
        self.left -= min(self.left, time.monotonic() - begin)
