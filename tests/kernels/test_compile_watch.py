"""Compiling is told of while it lasts, and only then; and no time is counted for it."""

from __future__ import annotations

import gc
import threading
import time

import numba
import numpy as np
import pytest
from numba import config
from numba.core import event
from test_disk_cache import X, double, start
from test_screen import Terminal

from fsp_dynamics import streams
from fsp_dynamics.datasets import Split
from fsp_dynamics.kernels import apart, cache_places, cache_turns, compile_watch, disk_cache
from fsp_dynamics.kernels.compile_watch import COMPILING, FURTHER, Watch, off_the_clock, working_time
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.models.builders import loop_network
from fsp_dynamics.screen import QUIET, shown_as
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.training import epoch
from fsp_dynamics.training.recipe import Learner, Recipe

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")


@pytest.fixture
def cold(tmp_path, monkeypatch):
    """A process that has just started, without compiled kernels; its stderr, a terminal."""
    start(tmp_path, monkeypatch)
    monkeypatch.delenv(QUIET)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(compile_watch, "DELAY", 0.0)
    monkeypatch.setattr(compile_watch, "PACKAGE", double.__module__)
    compile_watch.install()
    watch, usual = Watch(), compile_watch._watch
    monkeypatch.setattr(compile_watch, "_watch", watch)
    event.unregister("numba:compile", usual)
    event.register("numba:compile", watch)
    shown = Terminal()
    monkeypatch.setattr(streams, "stderr", lambda: shown)
    yield shown
    event.unregister("numba:compile", watch)
    event.register("numba:compile", usual)
    cache_places._places.cache_clear()


def compiled():
    kernel = disk_cache.keep(numba.njit(error_model="numpy")(double))
    kernel(X)


def seen(terminal):
    return {line for lines in terminal.history for line in lines}


def test_on_a_terminal_a_row_moves_and_goes_away(cold):
    compiled()
    assert all(COMPILING in line and "so far" in line for line in seen(cold))
    assert seen(cold)
    assert cold.seen.lines == []


@pytest.mark.parametrize("how", ["lines", "no terminal"])
def test_elsewhere_a_line_is_written_once(cold, how, monkeypatch):
    monkeypatch.setattr(cold, "isatty", lambda: how != "no terminal")
    with shown_as("lines" if how == "lines" else "rows"):
        for _ in range(2):
            compiled()
            cache_places._places.cache_clear()
            monkeypatch.setattr(disk_cache, "_source", lambda path: "another")
        assert cold.seen.lines == [COMPILING]
        monkeypatch.setattr(compile_watch, "APART", 0.0)
        monkeypatch.setattr(disk_cache, "_source", lambda path: "yet another")
        compiled()
    assert cold.seen.lines == [COMPILING, FURTHER]


@pytest.mark.parametrize("why", ["quiet", "nothing", "loaded", "short", "foreign"])
def test_nothing_is_said(cold, why, monkeypatch):
    """Where nobody wants to know; and where nothing is compiled, little, or what is not the
    package's.
    """
    if why == "loaded":
        with shown_as("nothing"):
            compiled()
        cache_places._places.cache_clear()
    if why == "quiet":
        monkeypatch.setenv(QUIET, "1")
    if why == "short":
        monkeypatch.setattr(compile_watch, "DELAY", 600.0)
    if why == "foreign":
        monkeypatch.setattr(compile_watch, "PACKAGE", "fsp_dynamics")
    with shown_as("nothing" if why == "nothing" else "rows"):
        compiled()
    assert cold.history == []


def test_it_is_said_soon(cold, monkeypatch):
    """By a thread of its own: the compiler does not come back before it is done."""
    monkeypatch.setattr(compile_watch, "DELAY", 0.01)
    compile_watch._watch.begin()
    until = time.monotonic() + 60
    while not cold.history and time.monotonic() < until:
        time.sleep(0.01)
    assert COMPILING in cold.seen.lines[0]
    compile_watch._watch.end()
    assert cold.seen.lines == []


def test_who_waits_for_another_process_is_told_too(cold, tmp_path, monkeypatch):
    monkeypatch.setattr(cold, "isatty", lambda: False)
    path = tmp_path / "x.lock"
    other, mine = cache_turns.Turn(path), cache_turns.Turn(path)
    assert other.take()
    threading.Timer(0.5, other.end).start()
    cache_turns.Waiting().wait(mine)
    mine.end()
    assert cold.seen.lines == [COMPILING]


def test_a_row_goes_away_where_compiling_fails(cold):
    def wrong(x):
        return x.no_such_thing

    wrong.__module__ = double.__module__
    kernel = disk_cache.keep(numba.njit(wrong))
    with pytest.raises(numba.core.errors.TypingError):
        kernel(X)
    assert seen(cold)
    assert cold.seen.lines == []


def test_time_stands_still_while_this_thread_has_to_do_with_the_compiler(cold, monkeypatch):
    slow = disk_cache.KernelCache.load_overload
    monkeypatch.setattr(disk_cache.KernelCache, "load_overload", lambda *given: (time.sleep(0.5), slow(*given))[1])
    real, before = time.perf_counter(), working_time()
    compiled()
    passed, worked = time.perf_counter() - real, working_time() - before
    assert passed - worked >= 0.5
    other: list[float] = []
    thread = threading.Thread(target=lambda: other.append(time.perf_counter() - working_time()))
    thread.start()
    thread.join()
    assert other == [pytest.approx(0.0, abs=1e-3)], "another thread has not"


def test_speed_leaves_compiling_out(monkeypatch):
    """An epoch is timed by the clock that stands still then."""
    clock = iter(range(0, 10**6, 7))
    monkeypatch.setattr(epoch, "working_time", lambda: float(next(clock)))
    recipe = Recipe(Sgd(LearningRates(1.0, (1.0,), 0.5)), make_solver())
    learner = Learner.start(loop_network([4, 5, 3], loop_scale=0.2, rng=0), recipe, np.random.default_rng(0))
    split = Split(np.random.default_rng(0).random((60, 4), np.float32), np.arange(60) % 3)
    report = epoch.train_epoch(learner, split, recipe)
    assert report.seconds > 0
    assert report.seconds % 7 == 0
    assert report.images_per_second == 60 / report.seconds


def test_garbage_of_the_compiler_is_collected_at_its_cost(cold):
    """Half a second of it is left of a large kernel, which the first batch would pay for."""
    kernel = disk_cache.keep(apart.compile_apart(double))
    before = time.perf_counter() - working_time()
    left: list[int] = []
    gc.collect()
    gc.callbacks.append(watch := lambda phase, info: left.append(info["collected"]) if phase == "stop" else None)
    try:
        kernel.compile((numba.float64,))
        assert gc.isenabled()
        assert sum(left) > 100
        left.clear()
        gc.collect(0)
        assert sum(left) < 100
    finally:
        gc.callbacks.remove(watch)
    real = time.perf_counter()
    with off_the_clock():
        time.sleep(0.2)
    assert time.perf_counter() - working_time() - before >= 0.2
    assert time.perf_counter() - real >= 0.2
