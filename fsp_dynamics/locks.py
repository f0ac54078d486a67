"""Locks between processes, where the operating system and the file system have them."""

from __future__ import annotations

import errno
import importlib
from typing import Any

HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK)


def take(file: int) -> bool | None:
    """Lock the open, writable file for this process, without waiting, until it is closed. True: it
    is locked. False: another process holds it. None: there are no locks here (an operating system
    without `fcntl`, a file system that refuses).
    """
    fcntl = _fcntl()
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in HELD else None
    return True


def release(file: int) -> None:
    """Give the lock up, for copies of the file in processes that were forked too."""
    fcntl = _fcntl()
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_UN)


def _fcntl() -> Any:
    try:
        return importlib.import_module("fcntl")
    except ImportError:
        return None
