"""Processes that need the same kernel take turns: the first compiles it, the others find it.

Nothing depends on that but time, so nobody waits for long, and where there are no locks nobody
waits.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from fsp_dynamics import locks
from fsp_dynamics.kernels.heed import heed

PATIENCE = 120.0  # seconds in all that a process waits for others
POLL = 0.05


class Turn:
    """The turn to compile one kernel, kept as a lock on a file. Give it back with `end`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> bool | None:
        """True: it is this process's turn. False: another's. None: there are no turns here."""
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            found = locks.take(file)
            if found and self._is_there(file):
                self._file = file
                return True
            os.close(file)
            if found is None:
                os.unlink(self._path)
            return None if found is None else False
        return None

    def _is_there(self, file: int) -> bool:
        """Whether the file still bears its name: whoever had it before has removed it."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def end(self) -> None:
        """Let others have their turn."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            with contextlib.suppress(OSError):
                locks.release(file)
            os.close(file)


class Waiting:
    """How long this process has waited for others."""

    def __init__(self) -> None:
        self.left = PATIENCE

    def wait(self, turn: Turn) -> None:
        """Until it is this process's turn, there are none, or its patience is at an end."""
        begin = time.monotonic()
        while turn.take() is False and time.monotonic() - begin < self.left:
            heed()
            time.sleep(POLL)
            heed()
        self.left -= min(self.left, time.monotonic() - begin)
