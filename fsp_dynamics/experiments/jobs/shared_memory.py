"""Shared memory through which the processes of one machine exchange arrays, in the time it takes to
copy them.

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
# readings of a counter at a time: each of those beyond 1000 lets other processes run first, for
# milliseconds where a machine is busy
READINGS = 1_100
LATE = 0.002  # seconds after which the other process is checked, and again
NAP = 0.0005  # seconds between two such rounds, once a process has been late for long
PATIENT_ROUNDS = 20


class SharedMemory:
    """Memory that `count` processes share. Each has a counter of its messages, its process number,
    and two buffers of `capacity` bytes.

    The buffers are used in turn: a message is overwritten by the next but one, which no process
    writes before all have read and written the one between.
    """

    def __init__(self, path: Path, rank: int, count: int, capacity: int) -> None:
        self.rank, self.count, self.capacity, self.sent = rank, count, capacity, 0
        memory = shared_array(path, (size_of(count, capacity),), np.uint8)
        heads = np.frombuffer(memory, np.int64, 2 * count * LINE)
        self.counters, self.processes = heads[: count * LINE], heads[count * LINE :: LINE]
        self.buffers = np.frombuffer(memory, np.uint8, offset=heads.nbytes).reshape(2, count, capacity)
        self.processes[rank] = os.getpid()

    def gather(self, own: Array) -> list[Array]:
        """The arrays of all ranks, copied. Raises RankLostError where a process is gone."""
        buffer, received = self.buffers[self.sent % 2], []
        self.sent += 1
        buffer[self.rank, : own.nbytes] = np.frombuffer(own, np.uint8) if own.size else 0
        post(self.counters, self.rank * LINE)
        for rank in range(self.count):
            if rank == self.rank:
                received.append(own)
                continue
            self._wait_for(rank)
            received.append(buffer[rank, : own.nbytes].copy().view(own.dtype).reshape(own.shape))
        return received

    def lost(self) -> int | None:
        """The number of a rank whose process is gone, or None."""
        return next((rank for rank, process in enumerate(self.processes) if not _lives(int(process))), None)

    def _wait_for(self, rank: int) -> None:
        rounds, checked = 0, time.monotonic()
        while not posted(self.counters, rank * LINE, self.sent, READINGS):
            if time.monotonic() - checked < LATE:
                continue
            rounds, checked = rounds + 1, time.monotonic()
            if not _lives(int(self.processes[rank])) and not posted(self.counters, rank * LINE, self.sent, 1):
                raise RankLostError(f"rank {rank} of {self.count} is gone")
            if rounds > PATIENT_ROUNDS:
                time.sleep(NAP)


@contextlib.contextmanager
def shared_file(size: int) -> Iterator[Path]:
    """A path of so many bytes of memory that processes of this user can open while the block runs.

    On Linux the memory has no name in any folder, so that a process that is killed leaves nothing
    behind; elsewhere it is a temporary file.
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
    """An array in this memory, which exists as long as the array."""
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)


def size_of(count: int, capacity: int) -> int:
    """Bytes of shared memory for so many ranks and so many bytes for a message."""
    return 2 * count * LINE * 8 + 2 * count * capacity


def _lives(process: int) -> bool:
    """Whether a process of that number runs; one that has ended and awaits its parent does not."""
    if process == 0:
        return True  # it has not opened the memory yet
    try:
        os.kill(process, 0)
        return ") Z" not in Path(f"/proc/{process}/stat").read_text()
    except ProcessLookupError:
        return False
    except OSError:
        return True  # there is no /proc, or it is another user's
