"""The processes of one training that `torchrun` started: torch.distributed, gloo between CPUs and
nccl between GPUs.

    torchrun --nproc-per-node 2 -m fsp_dynamics train mnist-2x1500 --out runs/a

Arrays of processes on one machine go through shared memory (experiments/jobs/shared_memory.py),
everything else from one process straight to the other: the latency of short messages matters most.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fsp_dynamics.errors import ConfigurationError, RankLostError
from fsp_dynamics.experiments.jobs.shared_memory import SharedMemory, shared_array, shared_file, size_of
from fsp_dynamics.kernels.team import LOST, can_synchronise
from fsp_dynamics.models.network import Array
from fsp_dynamics.training.ranks import ALONE, Expected, Ranks

Opened = TypeVar("Opened")
SHARDS = 4
WATCH = 0.2  # seconds between two checks of the others
CAPACITY = 1 << 20  # bytes for a message, at first
# with a process that neither answers nor ends; one that ends is noticed at once
PATIENCE = timedelta(minutes=10)


@dataclass(slots=True)
class Job:
    """This process of a job. shards : SHARDS, or `count` where that does not divide it. one_machine
    : all processes are on one machine.
    """

    rank: int
    count: int
    shards: int
    one_machine: bool
    shared_memory: SharedMemory | None = None

    @property
    def sharers(self) -> tuple[int, int]:
        """(rank, count) where all are on one machine, else (0, 1): each has its own weights."""
        return (self.rank, self.count) if self.one_machine else (0, 1)

    def shared(self, array: Array) -> Array:
        """The array, in memory that all ranks share."""
        if not self.one_machine or self.count == 1 or array.size == 0:
            return array
        common = self._common(lambda path: shared_array(path, array.shape, array.dtype), array.nbytes)
        if self.rank == 0:
            common[:] = array
        return common

    def barrier(self) -> None:
        """Wait for all, where they share memory."""
        if self.one_machine:
            self.gather(np.zeros(0))

    @contextlib.contextmanager
    def watching(self, counters: Array) -> Iterator[None]:
        """A thread that checks whether the others live, which a waiting kernel cannot."""
        if not self.one_machine or self.count == 1:
            yield
            return
        # the shared memory exists now, and all have written their process numbers there
        self.barrier()
        assert self.shared_memory is not None
        over, shared_memory = threading.Event(), self.shared_memory

        def watch() -> None:
            while not over.wait(WATCH):
                if shared_memory.lost() is not None:
                    counters[LOST] = 1
                    return

        thread = threading.Thread(target=watch, name="fsp-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def gather(self, own: Any) -> list[Any]:
        """The arrays of all ranks; see `training.ranks.Ranks`. Tensors stay on their device."""
        if self.count == 1:
            return [own]
        if self.one_machine and isinstance(own, np.ndarray):
            if self.shared_memory is None or self.shared_memory.capacity < own.nbytes:
                self.shared_memory = self._open(2 * own.nbytes)
            return self.shared_memory.gather(np.ascontiguousarray(own))
        return self._send(own)

    def _open(self, capacity: int) -> SharedMemory:
        return self._common(
            lambda path: SharedMemory(path, self.rank, self.count, max(capacity, CAPACITY)),
            size_of(self.count, max(capacity, CAPACITY)),
        )

    def _common(self, opened: Callable[[Path], Opened], size: int) -> Opened:
        """The result of `opened` for shared memory of that size, which the first rank holds until
        all have opened it.
        """
        with shared_file(size) if self.rank == 0 else contextlib.nullcontext(Path()) as path:
            name = np.zeros(256, np.uint8)
            name[: len(os.fsencode(path))] = list(os.fsencode(path))
            whole = opened(Path(os.fsdecode(bytes(self._send(name)[0]).rstrip(b"\0"))))
            self._send(name)  # now all have opened it
        return whole

    def _send(self, own: Any) -> list[Any]:
        """`gather` by messages from process to process."""
        import torch

        mine = torch.from_numpy(np.ascontiguousarray(own)) if isinstance(own, np.ndarray) else own.contiguous()
        received = [mine if rank == self.rank else torch.empty_like(mine) for rank in range(self.count)]
        others = [rank for rank in range(self.count) if rank != self.rank]
        self._exchange([(mine, rank) for rank in others], [(received[rank], rank) for rank in others])
        return [each.numpy() for each in received] if isinstance(own, np.ndarray) else received

    def shift(self, given: Sequence[Any], expected: Sequence[Expected]) -> list[Any]:
        """Tensors for the next rank and from the one before; see `training.ranks.Ranks`."""
        import torch

        received = [torch.empty(each.shape, dtype=each.dtype, device=each.device) for each in expected]
        self._exchange([(each, self.rank + 1) for each in given], [(each, self.rank - 1) for each in received])
        return received

    def broadcast(self, array: Array, source: int) -> Array:
        """The array of one rank; see `training.ranks.Ranks`."""
        import torch

        mine = torch.from_numpy(np.array(array))
        others = [rank for rank in range(self.count) if rank != source]
        if self.rank == source:
            self._exchange([(mine, rank) for rank in others], [])
        else:
            self._exchange([], [(mine, source)])
        found: Array = mine.numpy()
        return found

    def _exchange(self, sent: Sequence[tuple[Any, int]], received: Sequence[tuple[Any, int]]) -> None:
        """Send tensors to ranks and fill tensors from ranks, all at once. Raises RankLostError."""
        import torch
        import torch.distributed as dist

        both = [dist.P2POp(dist.isend, *each) for each in sent] + [dist.P2POp(dist.irecv, *each) for each in received]
        if not both:
            return
        try:
            with torch.cuda.device_of([*sent, *received][0][0]):  # nccl needs it, or it may hang
                for work in dist.batch_isend_irecv(both):
                    work.wait()
        except RuntimeError as error:
            raise RankLostError(
                f"another process of this job is gone (noticed by rank {self.rank} of {self.count})"
            ) from error


def largest(ranks: Ranks, value: int) -> int:
    """The largest of the values of all ranks; every one of them must call it."""
    return max(int(each[0]) for each in ranks.gather(np.array([value]))) if ranks.count > 1 else value


@contextlib.contextmanager
def refused_together(ranks: Ranks) -> Iterator[None]:
    """An error of one rank in the block ends it in all; where there is none, all have left the
    block when it ends. Nothing in it may wait for other ranks.

    Raises ConfigurationError in the others; the rank that was refused raises its own error.
    """
    try:
        yield
    except Exception:
        with contextlib.suppress(RankLostError):
            largest(ranks, 1)
        raise
    if largest(ranks, 0):
        raise ConfigurationError("another process of this job was refused, for the reason that it reports")


def local_share(threads: int) -> int:
    """How many of this machine's threads one of its ranks may use."""
    return max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def local_rank() -> int:
    """The number of this rank on its machine: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first() -> bool:
    """Whether this process is the one of its job that prints results."""
    return not is_job() or os.environ["RANK"] == "0"


def is_job() -> bool:
    """Whether this process was started by torchrun."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)


def job() -> Ranks:
    """The ranks of this job; this process alone where torchrun did not start it.

    Raises ConfigurationError where torch is missing or the processes cannot reach each other.
    """
    if not is_job():
        return ALONE
    try:
        import torch
        import torch.distributed as dist
    except ImportError:
        raise ConfigurationError(
            "a training in several processes needs torch; pip install 'fsp_dynamics[torch]'"
        ) from None
    if not dist.is_initialized():  # once: processes that have left cannot connect again
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(
                f"the processes of this job cannot connect: {' '.join(str(error).split())}"
            ) from None
        atexit.register(_leave)
    rank, count = dist.get_rank(), dist.get_world_size()
    one_machine = can_synchronise() and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == count
    return Job(rank, count, SHARDS if SHARDS % count == 0 else count, one_machine)


def _leave() -> None:
    """Leave the process group; other processes may be gone already."""
    import torch.distributed as dist

    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()
