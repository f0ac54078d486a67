"""Teams listen while kernels run: to signals in the main thread, and to what the caller heeds."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import numba
import numpy as np
import pytest

from fsp_dynamics.kernels.field import Array, jitted
from fsp_dynamics.kernels.heed import heed, heeding
from fsp_dynamics.kernels.team import BRIEF, LOST, STOP, Team, announce_stop, barrier, has_stopped, must_stop
from fsp_dynamics.kernels.team import can_synchronise as compiled

pytestmark = pytest.mark.skipif(not compiled(), reason="plain Python hears signals itself")
SOON = 1.0  # seconds within which everything here ends, once it was asked to


def count_up(thread: int, threads: int, counters: Array, rounds: Array, together: bool) -> None:
    turn = 0
    while together or not must_stop(counters):
        rounds[thread] += 1
        if together:
            announce_stop(thread, counters, turn)
            barrier(threads, counters)
            if has_stopped(counters, turn):
                return
            turn = 1 - turn


def add_one(thread: int, threads: int, counters: Array, rounds: Array) -> None:
    barrier(threads, counters)
    rounds[thread] += 1


ENDLESS, SHORT = (jitted(kernel, nogil=True, counted=False) for kernel in (count_up, add_one))


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    """That the signals arrive while kernels run, and not while they are compiled."""
    zeros = np.zeros(32, np.int64)
    SHORT(0, 1, zeros, zeros)
    ENDLESS.compile(tuple(numba.typeof(given) for given in (0, 1, zeros, zeros, True)))


@pytest.fixture
def kick() -> Iterator[list[float]]:
    """SIGINT to this process after a while; the list takes when."""
    sent: list[float] = []

    def later() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, later)
    timer.start()
    yield sent
    timer.cancel()


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_ends_an_endless_kernel(kick: list[float], threads: int, together: bool) -> None:
    rounds = np.zeros(threads, np.int64)
    with Team(threads) as team, pytest.raises(KeyboardInterrupt):
        team.run(ENDLESS, rounds, together)
    assert time.monotonic() - kick[0] < SOON
    assert (rounds > 0).all()
    if together:  # they stopped at the same barrier
        assert len(set(rounds)) == 1


def test_a_team_works_again_after_ctrl_c(kick: list[float]) -> None:
    rounds = np.zeros(2, np.int64)
    with Team(2) as team:
        with pytest.raises(KeyboardInterrupt):
            team.run(ENDLESS, np.zeros(2, np.int64), True)
        for work in (0, np.inf):
            team.run(SHORT, rounds, work=work)
        assert team.counters[STOP] == team.counters[LOST] == 0
    assert rounds.tolist() == [2, 2]


class EnoughError(Exception):
    pass


def test_what_a_check_raises_ends_a_kernel_in_any_thread() -> None:
    found: list[str] = []

    def work() -> None:
        begin, calls = time.monotonic(), []

        def check() -> None:
            calls.append(1)
            if len(calls) == 3:
                raise EnoughError

        with heeding(check), Team(2) as team:
            try:
                team.run(ENDLESS, np.zeros(2, np.int64), True)
            except EnoughError:
                found.append("left" if time.monotonic() - begin < SOON + 1 else "late")

    thread = threading.Thread(target=work, daemon=True)
    work()
    thread.start()
    thread.join(20)
    assert found == ["left", "left"]


def test_a_handler_that_raises_nothing_interrupts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the first signal of a training: the kernel runs on, and what was noted can be heeded."""
    noted: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))

    def check() -> None:
        if noted and time.monotonic() > begin + 1:
            raise EnoughError

    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    begin = time.monotonic()
    try:
        timer.start()
        with heeding(check), Team(1) as team, pytest.raises(EnoughError):
            team.run(ENDLESS, np.zeros(1, np.int64), False)
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
    assert noted == [signal.SIGTERM]
    assert time.monotonic() - begin >= 1


def test_what_a_check_raises_leaves_the_compiler() -> None:
    """After some passes; the kernel is as good as before, and compiles when it is wanted again."""

    def kernel(thread: int, threads: int, counters: Array, rounds: Array) -> None:
        rounds[thread] += 1

    compiling, calls = jitted(kernel, nogil=True), []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise EnoughError

    rounds = np.zeros(1, np.int64)
    with Team(1) as team:
        with heeding(check), pytest.raises(EnoughError):
            team.run(compiling, rounds)
        assert not compiling.signatures
        team.run(compiling, rounds)
    assert rounds[0] == 1


def test_work_that_is_brief_stays_in_the_calling_thread() -> None:
    where: list[str] = []

    def kernel(thread: int, threads: int, counters: Array) -> None:
        where.append(threading.current_thread().name)

    with Team(1) as team:
        team.run(kernel, work=BRIEF)
        team.run(kernel, work=BRIEF + 1)
    assert where[0] == threading.current_thread().name != where[1]


def test_without_a_check_nothing_is_heeded() -> None:
    heed()
    with heeding(lambda: None), heeding(None):
        heed()
