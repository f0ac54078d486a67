"""A few threads that run one kernel together, with barriers where one needs what another wrote.

Every thread runs the same kernel with its own number `thread` of `threads`; between two barriers
each writes only its own part. The number of threads decides which of them computes an element,
never how, so results have the same bits for any number of them.

Signal handlers run in the main thread, between two lines of Python. A kernel that may last is
therefore run by other threads while the calling one listens (`Team.run`); what is raised there, by
the handler of Ctrl-C or by a check (kernels/heed.py), sets the flag STOP, at which kernels end
between two passes or steps.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError, wait
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fsp_dynamics.kernels.field import Array, inner, jit
from fsp_dynamics.kernels.heed import heed, heeded
from fsp_dynamics.kernels.heed_compiler import compile_heeding
from fsp_dynamics.kernels.thread_number import number_of_threads

# indices into the counters: the first two on cache lines of their own; LOST is not 0 once a process
# that shares them has ended, STOP once the kernels shall end, and STOPPED, with the next, once the
# first thread has said so to the others
ARRIVED, BARRIERS, LOST, STOP, STOPPED = 0, 16, 24, 25, 26
# multiplications that one thread does in about the 40 microseconds that starting a second one takes
SMALL = 2_000_000
BRIEF = 2_000_000_000  # multiplications that one thread does in less than half a second
# threads of closed teams, by process (a fork has none) and number: on a busy machine a thread that
# exists is given a processor long before a new one
_idle: dict[tuple[int, int], list[ThreadPoolExecutor]] = {}
KEPT = 2
POLL = 0.1  # seconds between two checks while kernels run
SPINS = 20_000  # reads of a counter before the processor is yielded


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    counters = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(counters.data, [args[1]])


@intrinsic
def _fetch_add(typing: Any, counters: Any, index: Any, value: Any) -> Any:
    """counters[index] += value, atomically; the value before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _place(context, builder, signature, args), args[2], "seq_cst")

    return types.int64(counters, types.intp, types.int64), generate


@intrinsic
def _fetch(typing: Any, counters: Any, index: Any) -> Any:
    """counters[index], read atomically."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, args), "seq_cst", 8)

    return types.int64(counters, types.intp), generate


@intrinsic
def _yield_processor(typing: Any) -> Any:
    """Let another thread have this processor, where the system can do that."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if os.name == "posix":
            builder.call(
                cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield"), []
            )
        return context.get_dummy_value()

    return types.void(), generate


@jit
def barrier(threads: int, counters: Array) -> None:
    """Wait until all threads have arrived; each then sees what the others wrote before. Where one
    is lost, none waits.
    """
    if threads == 1 or is_lost(counters):
        return
    number: int = _fetch(counters, BARRIERS)  # type: ignore[call-arg]
    if _fetch_add(counters, ARRIVED, 1) == threads - 1:
        counters[ARRIVED] = 0
        _fetch_add(counters, BARRIERS, 1)
        return
    spins = 0
    while _fetch(counters, BARRIERS) == number:
        spins += 1
        if spins > SPINS:
            if is_lost(counters):
                return
            _yield_processor()


@jit
def is_lost(counters: Array) -> bool:
    """Whether a process of the team has ended, so that what the others compute is void."""
    return _fetch(counters, LOST) != 0  # type: ignore[call-arg]


@inner
def _stop_is_set(counters: Array) -> bool:
    return _fetch(counters, STOP) != 0  # type: ignore[call-arg]


def _never(counters: Array) -> bool:
    return False


# without the compiler the interpreter itself hears signals
must_stop = _stop_is_set if hasattr(_stop_is_set, "py_func") else _never
"""must_stop(counters): whether kernels shall end. Two threads may read it differently: only where
they do not meet at barriers."""


@inner
def announce_stop(thread: int, counters: Array, turn: int) -> None:
    """Before a barrier: the first thread tells all whether to stop. turn : 0 and 1 in turns where
    no other barrier stands between two announcements.
    """
    if thread == 0:
        counters[STOPPED + turn] = 1 if must_stop(counters) else 0


@inner
def has_stopped(counters: Array, turn: int) -> bool:
    """After that barrier: what the first thread has announced, the same in all threads."""
    return counters[STOPPED + turn] != 0


@jit
def post(counters: Array, place: int) -> None:
    """counters[place] += 1, after all earlier writes of this process."""
    _fetch_add(counters, place, 1)  # type: ignore[call-arg]


@jit
def posted(counters: Array, place: int, count: int, reads: int) -> bool:
    """Whether counters[place] reaches `count` within so many reads; what was written before it is
    then visible here.
    """
    for read in range(reads):
        if _fetch(counters, place) >= count:  # type: ignore[call-arg]
            return True
        if read > 1000:
            _yield_processor()
    return False


@jit
def partition(count: int, part: int, parts: int) -> tuple[int, int]:
    """(first, last + 1) of part number `part` when range(count) is cut into so many parts."""
    return count * part // parts, count * (part + 1) // parts


def available() -> int:
    """How many threads kernels may use: Numba's number, which `thread_number.threads` sets."""
    return number_of_threads()


def useful_threads(multiplications: float) -> int:
    """How many threads so much work is worth: one where it is done before a second could be
    started, else all that are `available`.
    """
    return 1 if multiplications < SMALL else available()


def can_synchronise() -> bool:
    """Whether there is a compiler: plain Python has no barrier."""
    return hasattr(barrier, "py_func")


class Team:
    """Threads that are kept between calls. A context manager.

    run(kernel, *args) calls kernel(thread, threads, counters, *args) in every thread; the kernel
    must be compiled with `nogil`. Without the compiler there is one thread.

    threads : in this process. first, total, counters : of a team of several processes, the number
    of this one's first thread, how many threads there are in all, and counters in memory that they
    share; each process calls `run` with the same arguments.
    """

    def __init__(self, threads: int, first: int = 0, total: int | None = None, counters: Array | None = None) -> None:
        self.threads = max(1, threads) if can_synchronise() else 1
        self.first, self._total, self._alone = first, total, counters is None
        self.counters = np.zeros(32, np.int64) if counters is None else counters
        self._pool: ThreadPoolExecutor | None = None
        self._left = False

    @property
    def total(self) -> int:
        """How many threads there are, those of other processes included."""
        return self.threads if self._total is None else self._total

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            idle = _idle.setdefault((os.getpid(), self.threads), [])
            if self._left or len(idle) >= KEPT:
                pool.shutdown()
            else:
                idle.append(pool)

    def run(self, kernel: Callable[..., None], *args: Any, threads: int | None = None, work: float = np.inf) -> None:
        """kernel(thread, threads, counters, *args) in so many threads of this process (all if
        None).

        work : multiplications that it does at most. Where they may last, the calling thread
        listens meanwhile: for signals if it is the main thread, and for what it heeds
        (kernels/heed.py). What is raised there is raised here, once the kernels have ended: at
        the next place where they look for STOP.
        """
        here = self.threads if threads is None else min(threads, self.threads)
        total = here if self._total is None else self._total
        if self._alone:
            self.counters[LOST] = self.counters[STOP] = self.counters[STOPPED] = self.counters[STOPPED + 1] = 0
        listens = work > BRIEF and can_synchronise() and (_in_main_thread() or heeded() is not None)
        if listens:
            compile_heeding(kernel, 0, total, self.counters, *args)
        others: list[Future[None]] = []
        complete = False
        try:
            for number in range(self.first + (0 if listens else 1), self.first + here):
                others.append(self._threads().submit(kernel, number, total, self.counters, *args))
            complete = listens
            if not listens:
                kernel(self.first, total, self.counters, *args)
            for other in others:
                _await(other)
        except BaseException:
            self._left = True
            self.counters[STOP] = 1
            if not complete:  # the others may wait for a thread that never comes
                self.counters[LOST] = 1
            wait(others)
            raise

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            try:
                self._pool = _idle[os.getpid(), self.threads].pop()
            except (KeyError, IndexError):
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="fsp-team")
        return self._pool


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _await(running: Future[None]) -> None:
    while True:
        try:
            return running.result(POLL)  # in steps: on Windows no signal ends a wait
        except TimeoutError:
            heed()


class ThreadTuner:
    """The number of threads, found by trying all of them and one alone: on a busy machine waiting
    at barriers can cost more than further threads gain.

    Read `threads` before each piece of work (a small one during a `trial`), and `record` its time
    afterwards. No result depends on the number.
    """

    def __init__(self, most: int, fixed: bool = False) -> None:
        self.most, self.threads, self._fixed = most, most, fixed or most == 1
        self._speed: dict[int, float] = {}
        self._until_trial, self._wait = 0, 8
        self.trial = False

    def record(self, work: float, seconds: float) -> None:
        """So much work took that time with `threads`; choose their number for the next piece."""
        if self._fixed:
            return
        self._speed[self.threads] = work / max(seconds, 1e-9)
        best = max(self._speed, key=self._speed.__getitem__)
        if self.trial:
            self._wait = 8 if best == self.threads else min(2 * self._wait, 256)
            self._until_trial = self._wait
        self.trial = self._until_trial <= 0
        self._until_trial -= 1
        self.threads = best if not self.trial else 1 if best == self.most else self.most
