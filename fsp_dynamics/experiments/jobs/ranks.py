"""The processes of one training that `torchrun` started: torch.distributed, gloo between CPUs and
nccl between GPUs.

    torchrun --nproc-per-node 2 -m fsp_dynamics train mnist-2x1500 --out runs/a

Arrays of processes on one machine go through shared memory (experiments/jobs/shared_memory.py),
everything else from one process straight to the other: what counts is how long a short message
takes to arrive.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fsp_dynamics.errors import ConfigurationError, RankLostError
from fsp_dynamics.experiments.jobs.shared_memory import Mailbox, shared_array, shared_file, size_of
from fsp_dynamics.kernels.team import LOST, can_synchronise
from fsp_dynamics.models.network import Array
from fsp_dynamics.training.ranks import ALONE, Ranks

Opened = TypeVar("Opened")
SHARDS = 4
WATCH = 0.2  # seconds between two looks at the others
ROOM = 1 << 20  # bytes for a message, at first
# with a process that neither answers nor ends; one that ends is noticed at once
PATIENCE = timedelta(minutes=10)


@dataclass(slots=True)
class Job:
    """This process of a job. shards : SHARDS, or `count` where that does not divide it. together :
    all of them are on one machine.
    """

    rank: int
    count: int
    shards: int
    together: bool
    shared_memory: Mailbox | None = None

    @property
    def sharers(self) -> tuple[int, int]:
        """(rank, count) where all are on one machine; each its own weights elsewhere."""
        return (self.rank, self.count) if self.together else (0, 1)

    def shared(self, array: Array) -> Array:
        """The array, in memory that all ranks have open."""
        if not self.together or self.count == 1 or array.size == 0:
            return array
        common = self._common(lambda path: shared_array(path, array.shape, array.dtype), array.nbytes)
        if self.rank == 0:
            common[:] = array
        return common

    def barrier(self) -> None:
        """Wait for all, where they share memory."""
        if self.together:
            self.gather(np.zeros(0))

    @contextlib.contextmanager
    def watching(self, counters: Array) -> Iterator[None]:
        """A thread that looks whether the others live; a kernel that waits for one of them cannot."""
        if not self.together or self.count == 1:
            yield
            return
        # there is a shared_memory now, and all have written their process numbers there
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
        """What each rank gave; see `training.ranks.Ranks`. Tensors stay on their device."""
        if self.count == 1:
            return [own]
        if self.together and isinstance(own, np.ndarray):
            if self.shared_memory is None or self.shared_memory.room < own.nbytes:
                self.shared_memory = self._open(2 * own.nbytes)
            return self.shared_memory.gather(np.ascontiguousarray(own))
        return self._send(own)

    def _open(self, room: int) -> Mailbox:
        return self._common(
            lambda path: Mailbox(path, self.rank, self.count, max(room, ROOM)), size_of(self.count, max(room, ROOM))
        )

    def _common(self, opened: Callable[[Path], Opened], size: int) -> Opened:
        """What `opened` makes of memory of that size, which the first rank holds until all have
        opened it.
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
        import torch.distributed as dist

        mine = torch.from_numpy(np.ascontiguousarray(own)) if isinstance(own, np.ndarray) else own.contiguous()
        told = [mine if rank == self.rank else torch.empty_like(mine) for rank in range(self.count)]
        others = [rank for rank in range(self.count) if rank != self.rank]
        try:
            sending = [dist.P2POp(dist.isend, mine, rank) for rank in others]
            asked = [dist.P2POp(dist.irecv, told[rank], rank) for rank in others]
            with torch.cuda.device_of(mine):  # which nccl asks for, or it may hang
                for work in dist.batch_isend_irecv(sending + asked):
                    work.wait()
        except RuntimeError as error:
            raise RankLostError(
                f"another process of this job is gone (seen by rank {self.rank} of {self.count})"
            ) from error
        return [each.numpy() for each in told] if isinstance(own, np.ndarray) else told


def agreed(ranks: Ranks, value: int) -> int:
    """The largest of the values of all ranks; every one of them must ask."""
    return max(int(each[0]) for each in ranks.gather(np.array([value]))) if ranks.count > 1 else value


@contextlib.contextmanager
def all_or_none(ranks: Ranks) -> Iterator[None]:
    """What keeps one rank from going through the block ends all of them, and at its end all have
    been through. Nothing in it may wait for others.

    Raises in the others ConfigurationError, for the one that was refused says why.
    """
    try:
        yield
    except Exception:
        with contextlib.suppress(RankLostError):
            agreed(ranks, 1)
        raise
    if agreed(ranks, 0):
        raise ConfigurationError("another process of this job was refused and says why")


def local_share(threads: int) -> int:
    """How many of this machine's threads one of its ranks may take."""
    return max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def local_rank() -> int:
    """The number of this rank on its machine: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def speaks() -> bool:
    """Whether this process is the one of its job that shows results."""
    return not is_job() or os.environ["RANK"] == "0"


def is_job() -> bool:
    """Whether this process was started by torchrun."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)


def job() -> Ranks:
    """The ranks of this job; of a process that torchrun did not start, it alone.

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
    if not dist.is_initialized():  # once: processes that have parted do not find each other again
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(
                f"the processes of this job do not find each other: {' '.join(str(error).split())}"
            ) from None
        atexit.register(_part)
    rank, count = dist.get_rank(), dist.get_world_size()
    together = can_synchronise() and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == count
    return Job(rank, count, SHARDS if SHARDS % count == 0 else count, together)


def _part() -> None:
    """Leave the others; some may be gone already."""
    import torch.distributed as dist

    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()
