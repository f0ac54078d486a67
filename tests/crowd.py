"""Ranks made of threads, for tests: the same calls as between processes, without starting any.

`sharing` : whether they have memory in common, as those of one machine, or only messages, as those
of several.
"""

from __future__ import annotations

import contextlib
import sys
import threading

import numpy as np


class Crowd:
    """So many ranks that train together, each in a thread; shards as in a job of processes."""

    def __init__(self, count, shards=4, sharing=True):
        self.count, self.shards, self.sharing = count, shards, sharing
        self.barrier, self.told, self.common = threading.Barrier(count, timeout=120), [None] * count, {}

    def run(self, work):
        """work(ranks) in each; what each returned. What one of them raised is raised here. Torch
        has as many threads in each as here, since last bits depend on that number: a new thread
        starts with another one.
        """
        found, failures = [None] * self.count, []
        torch = sys.modules.get("torch")
        given = torch.get_num_threads() if torch else 0

        def one(rank):
            try:
                if torch:
                    torch.set_num_threads(given)
                found[rank] = work(Member(self, rank))
            except BaseException as error:
                failures.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        real = [error for error in failures if not isinstance(error, threading.BrokenBarrierError)]
        for error in real or failures:
            raise error
        return found


class Member:
    """One of them (training/ranks.Ranks)."""

    def __init__(self, crowd, rank):
        self.crowd, self.rank, self.count, self.shards = crowd, rank, crowd.count, crowd.shards
        self.sharers = (rank, crowd.count) if crowd.sharing else (0, 1)
        self.made = self.sent = 0

    def gather(self, own):
        self.crowd.told[self.rank] = own.copy() if isinstance(own, np.ndarray) else own.clone()
        self.barrier()
        found = list(self.crowd.told)
        self.barrier()
        self.sent += 1
        shapes = {(tuple(each.shape), str(each.dtype)) for each in found}
        assert len(shapes) == 1, f"rank {self.rank}: messages of different shapes, {shapes}"
        return found

    def shift(self, given, expected):
        self.crowd.told[self.rank] = [each.clone() for each in given]
        self.barrier()
        found = [] if self.rank == 0 else [each.clone() for each in self.crowd.told[self.rank - 1]]
        self.barrier()
        assert [(tuple(each.shape), each.dtype) for each in found] == [(each.shape, each.dtype) for each in expected]
        return found

    def broadcast(self, array, source):
        self.crowd.told[self.rank] = array.copy()
        self.barrier()
        found = self.crowd.told[source].copy()
        self.barrier()
        assert (found.shape, found.dtype) == (array.shape, array.dtype)
        return found

    def watching(self, counters):
        return contextlib.nullcontext()

    def shared(self, array):
        if not self.crowd.sharing:
            return array
        if self.rank == 0:
            self.crowd.common[self.made] = array
        self.barrier()
        self.made += 1
        return self.crowd.common[self.made - 1]

    def barrier(self):
        self.crowd.barrier.wait()
