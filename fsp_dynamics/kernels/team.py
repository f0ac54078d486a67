"""A few threads that walk through one kernel together and meet where one needs what another wrote.

Every member runs the same kernel with its own number `me` of `all`; between two meetings each
writes only what is its own. The number of members decides who computes an element, never how, so
results have the same bits for any number of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fsp_dynamics.kernels.field import Array, jit

ARRIVED, MEETINGS, LOST = (
    0,
    16,
    24,
)  # places in the counters, on cache lines of their own; LOST is not 0 once a member will never come again
# multiplications that one thread does in about the 40 microseconds that sending a second one takes
SMALL = 2_000_000
PATIENCE = 20_000  # looks at a counter before the processor is offered to others


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    counters = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(counters.data, [args[1]])


@intrinsic
def _fetch_add(typing: Any, counters: Any, index: Any, value: Any) -> Any:
    """counters[index] += value at one stroke; what was there before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _place(context, builder, signature, args), args[2], "seq_cst")

    return types.int64(counters, types.intp, types.int64), generate


@intrinsic
def _fetch(typing: Any, counters: Any, index: Any) -> Any:
    """counters[index], as the other threads have left it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, args), "seq_cst", 8)

    return types.int64(counters, types.intp), generate


@intrinsic
def _give_way(typing: Any) -> Any:
    """Let another thread have this processor, where the system has a word for it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if os.name == "posix":
            builder.call(
                cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield"), []
            )
        return context.get_dummy_value()

    return types.void(), generate


@jit
def barrier(all: int, counters: Array) -> None:
    """Wait until every member is here; what each wrote before is then seen by all. Where one is
    lost, nobody waits any more.
    """
    if all == 1 or is_lost(counters):
        return
    meeting: int = _fetch(counters, MEETINGS)  # type: ignore[call-arg]
    if _fetch_add(counters, ARRIVED, 1) == all - 1:
        counters[ARRIVED] = 0
        _fetch_add(counters, MEETINGS, 1)
        return
    looks = 0
    while _fetch(counters, MEETINGS) == meeting:
        looks += 1
        if looks > PATIENCE:
            if is_lost(counters):
                return
            _give_way()


@jit
def is_lost(counters: Array) -> bool:
    """Whether a member is gone, so that what the others compute means nothing any more."""
    return _fetch(counters, LOST) != 0  # type: ignore[call-arg]


@jit
def post(counters: Array, place: int) -> None:
    """counters[place] += 1, after everything this process has written before."""
    _fetch_add(counters, place, 1)  # type: ignore[call-arg]


@jit
def posted(counters: Array, place: int, count: int, looks: int) -> bool:
    """Whether counters[place] has reached `count`, after so many looks at most; what was written
    before is then seen here.
    """
    for look in range(looks):
        if _fetch(counters, place) >= count:  # type: ignore[call-arg]
            return True
        if look > 1000:
            _give_way()
    return False


@jit
def partition(count: int, me: int, all: int) -> tuple[int, int]:
    """(first, last + 1) of the part of range(count) that is mine."""
    return count * me // all, count * (me + 1) // all


def available() -> int:
    """How many threads kernels may use: Numba's number, which kernels/relax.threads sets."""
    return int(numba.get_num_threads())


def helpers(multiplications: float) -> int:
    """How many threads to send for so much work: one where it is done before another could be
    woken, else all that are `available`.
    """
    return 1 if multiplications < SMALL else available()


def can_synchronise() -> bool:
    """Whether there is a compiler: plain Python cannot meet."""
    return hasattr(barrier, "py_func")


class Team:
    """Threads that stay between calls. A context manager; the caller is its first member.

    run(kernel, *args) calls kernel(me, all, counters, *args) in every member, which must be
    compiled with `nogil`. Without the compiler there is one
    member. first, all, counters : of a team of several processes, the number of this one's first
    member, how many there are in all, and counters in memory that they share; each calls `run`
    with the same.
    """

    def __init__(self, members: int, first: int = 0, all: int | None = None, counters: Array | None = None) -> None:
        self.members = max(1, members) if can_synchronise() else 1
        self.first, self.all = first, all
        self.counters = np.zeros(32, np.int64) if counters is None else counters
        self._others = ThreadPoolExecutor(self.members - 1, thread_name_prefix="fsp-team") if self.members > 1 else None

    @property
    def whole(self) -> int:
        """How many members there are, those of other processes too."""
        return self.members if self.all is None else self.all

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        if self._others is not None:
            self._others.shutdown()
            self._others = None

    def run(self, kernel: Callable[..., None], *args: Any, members: int | None = None) -> None:
        """kernel(me, all, counters, *args) in so many members (all if None)."""
        here = self.members if members is None else min(members, self.members)
        all = here if self.all is None else self.all
        others = (
            [self._others.submit(kernel, self.first + me, all, self.counters, *args) for me in range(1, here)]
            if self._others
            else []
        )
        kernel(self.first, all, self.counters, *args)
        for other in others:
            other.result()


class ThreadTuner:
    """How many members to send, found by trying all of them and one alone: on a busy machine
    waiting for each other can cost more than help brings.

    Ask `members` before each piece of work, a small one if it is a `trial`, and tell `took` after
    it. No result depends on the answers.
    """

    def __init__(self, most: int, fixed: bool = False) -> None:
        self.most, self.members, self._settled = most, most, fixed or most == 1
        self._speed: dict[int, float] = {}
        self._until_trial, self._wait = 0, 8
        self.trial = False

    def took(self, work: float, seconds: float) -> None:
        """So much work was done in that time by `members`; decide who does the next piece."""
        if self._settled:
            return
        self._speed[self.members] = work / max(seconds, 1e-9)
        best = max(self._speed, key=self._speed.__getitem__)
        if self.trial:
            self._wait = 8 if best == self.members else min(2 * self._wait, 256)
            self._until_trial = self._wait
        self.trial = self._until_trial <= 0
        self._until_trial -= 1
        self.members = best if not self.trial else 1 if best == self.most else self.most
