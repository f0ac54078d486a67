"""How many threads kernels may use: Numba's number (`numba.set_num_threads`, NUMBA_NUM_THREADS).

Kernels need no thread layer of Numba's, but asking for the number loads one. Where that fails (a
layer that is not installed or has no such name, more threads than the system has), the number is
kept here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba
from numba import config

MOST = max(64, 4 * (os.cpu_count() or 1))  # more threads than that would only wait for each other


class _Own(threading.local):
    number: int | None = None


_own = _Own()


def number_of_threads() -> int:
    """How many threads this thread may use."""
    try:
        found = int(numba.get_num_threads())
    except Exception:
        found = _own.number or most_threads()
    return min(found, MOST)


def set_number_of_threads(number: int) -> None:
    """Let this thread use so many. Raises ValueError for fewer than 1 or more than
    `most_threads`.
    """
    try:
        numba.get_num_threads()
    except Exception:
        if not 1 <= number <= most_threads():
            raise ValueError(f"{number} threads, expected 1 to {most_threads()}") from None
        _own.number = number
    else:
        numba.set_num_threads(number)


def most_threads() -> int:
    """The largest number that can be set: NUMBA_NUM_THREADS, by default the number of
    processors.
    """
    return min(int(getattr(config, "NUMBA_NUM_THREADS", 1)), MOST)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let kernels use `count` threads inside the block (None: as before); no result depends on it.

    At most NUMBA_NUM_THREADS, which is the number of processors unless the environment says
    otherwise.
    """
    before = number_of_threads()
    set_number_of_threads(before if count is None else count)
    try:
        yield
    finally:
        set_number_of_threads(before)
