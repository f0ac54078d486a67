"""Shared memory through which the processes of one machine tell each other arrays, in the time it
takes to copy them.

A message of 120 kB took 60 to 70 microseconds between two processes, one of 1 kB 4 to 17; over
gloo's sockets 220 to 830 and 180 to 640.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fsp_dynamics.errors import RankLostError
from fsp_dynamics.kernels.team import post, posted
from fsp_dynamics.models.network import Array

LINE = 8  # counters of 8 bytes, each on a cache line of its own
# looks at a counter, about a millisecond or two, before the other process is asked whether it
# lives
LOOKS = 20_000
NAP = 0.0005  # seconds between two such rounds, once a process has kept us waiting for long
PATIENT_ROUNDS = 20


class Mailbox:
    """A memory that `count` processes have open. Of each there are a counter of its messages, its
    process number, and two places for messages.

    The places are used in turn: a message is overwritten by the next but one, which nobody writes
    before all have read and written the one between.
    """

    def __init__(self, path: Path, rank: int, count: int, room: int) -> None:
        self.rank, self.count, self.room, self.sent = rank, count, room, 0
        memory = shared_array(path, (size_of(count, room),), np.uint8)
        heads = np.frombuffer(memory, np.int64, 2 * count * LINE)
        self.counters, self.processes = heads[: count * LINE], heads[count * LINE :: LINE]
        self.places = np.frombuffer(memory, np.uint8, offset=heads.nbytes).reshape(2, count, room)
        self.processes[rank] = os.getpid()

    def gather(self, own: Array) -> list[Array]:
        """What each rank gave, copies. Raises RankLostError where a process is gone."""
        place, taken = self.places[self.sent % 2], []
        self.sent += 1
        place[self.rank, : own.nbytes] = np.frombuffer(own, np.uint8) if own.size else 0
        post(self.counters, self.rank * LINE)
        for rank in range(self.count):
            if rank == self.rank:
                taken.append(own)
                continue
            self._wait_for(rank)
            taken.append(place[rank, : own.nbytes].copy().view(own.dtype).reshape(own.shape))
        return taken

    def lost(self) -> int | None:
        """The number of a rank whose process is gone, if there is one."""
        return next((rank for rank, process in enumerate(self.processes) if not _lives(int(process))), None)

    def _wait_for(self, rank: int) -> None:
        rounds = 0
        while not posted(self.counters, rank * LINE, self.sent, LOOKS):
            rounds += 1
            if not _lives(int(self.processes[rank])) and not posted(self.counters, rank * LINE, self.sent, 1):
                raise RankLostError(f"rank {rank} of {self.count} is gone")
            if rounds > PATIENT_ROUNDS:
                time.sleep(NAP)


@contextlib.contextmanager
def shared_file(size: int) -> Iterator[Path]:
    """A path of so many bytes of memory that processes of this user can open while the block runs.

    On Linux the memory has no name in any folder, so that whoever is killed leaves nothing behind;
    elsewhere it is a temporary file.
    """
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("fsp-ranks")
        path = Path(f"/proc/{os.getpid()}/fd/{handle}")
    else:
        handle, name = tempfile.mkstemp(prefix="fsp-ranks-")
        path = Path(name)
    try:
        os.ftruncate(handle, size)
        yield path
    finally:
        os.close(handle)
        if path.parts[1] != "proc":
            path.unlink()


def shared_array(path: Path, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array that is this memory. It lives as long as somebody has it."""
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)


def size_of(count: int, room: int) -> int:
    """Bytes of a memory of so many ranks and so many bytes for a message."""
    return 2 * count * LINE * 8 + 2 * count * room


def _lives(process: int) -> bool:
    """Whether there is a process of that number, which is not only waiting for its parent to take
    note of its end.
    """
    if process == 0:
        return True  # it has not opened the memory yet
    try:
        os.kill(process, 0)
        return ") Z" not in Path(f"/proc/{process}/stat").read_text()
    except ProcessLookupError:
        return False
    except OSError:
        return True  # no /proc here, or another user's
