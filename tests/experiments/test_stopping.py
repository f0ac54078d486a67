"""A signal stops at once where that is harmless, and is never lost."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import time

import pytest

from fsp_dynamics.experiments.stopping import Interrupted, stoppable
from fsp_dynamics.kernels.heed import heeding

ALL = [pytest.param(name, id=name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def heard():
    """SIGHUP means here what it does at a prompt, also where nohup had it ignored, as it stays for
    all other tests; conftest.py sees to Ctrl-C.
    """
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("name", ALL)
def test_where_it_is_harmless_a_signal_stops_at_once(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, stoppable(at_once=True):
        send(number)
    assert caught.value.signum == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("name", ALL)
def test_where_it_is_postponed_it_is_noted(name):
    with stoppable(at_once=True) as stop:
        with stop.postponed():
            send(getattr(signal, name))
        assert stop.signum == getattr(signal, name)
        with pytest.raises(Interrupted):
            stop.check()


def test_a_computation_that_heeds_is_left():
    class Left(Exception):
        pass

    def leave():
        raise Left

    with stoppable() as stop, pytest.raises(Left), heeding(leave):
        send(signal.SIGTERM)
    assert stop.signum == signal.SIGTERM


def test_saving_is_asked_for_without_stopping():
    with stoppable(at_once=True) as stop:
        send(signal.SIGUSR1)
        assert (stop.signum, stop.save) == (None, True)


def test_the_same_signal_from_several_senders_counts_once(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with stoppable(patience=5.0) as stop:
        send(signal.SIGTERM)
        clock[0] += 4.9
        send(signal.SIGINT)
        assert stop.signum == signal.SIGTERM
        clock[0] += 0.2
        with pytest.raises(Interrupted):
            send(signal.SIGINT)


def test_a_signal_of_the_inner_block_is_passed_on_to_the_outer_one():
    with stoppable() as outer:
        with stoppable():
            send(signal.SIGINT)
        assert outer.signum == signal.SIGINT
        with pytest.raises(Interrupted), stoppable(at_once=True):
            raise AssertionError("it began")


def test_who_is_ignored_or_waited_for_by_others_is_left_alone():
    """As nohup ignores SIGHUP, and faulthandler, in C, waits for SIGUSR1."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=False)
    try:
        with stoppable(at_once=True) as stop:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            send(signal.SIGHUP)
            assert (stop.signum, stop.save) == (None, False)
    finally:
        faulthandler.unregister(signal.SIGUSR1)
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_arrives_in_a_callback_of_the_compiler_is_not_lost():
    """What is raised there is ignored, and it is there that Python goes on after long steps."""
    scope = {"__name__": "llvmlite.binding.executionengine", "send": send, "number": signal.SIGTERM}
    exec("def _raw_object_cache_notify():\n    send(number)\n", scope)
    callback = ctypes.CFUNCTYPE(None)(scope["_raw_object_cache_notify"])
    reached = []

    def compile_it():
        callback()
        reached.append("after the callback")
        time.sleep(5)
        reached.append("after five seconds")

    with pytest.raises(Interrupted), stoppable(at_once=True):
        compile_it()
    assert reached == ["after the callback"]


@pytest.mark.cli
@pytest.mark.rare
@pytest.mark.parametrize("seconds", [6, 12, 18, 24, 30])
def test_a_signal_while_everything_is_compiled_ends_within_ten_seconds(tmp_path, seconds):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "fsp_dynamics", "train", "digits", "--epochs", "100000", "--no-progress"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True, env=environment
    )
    time.sleep(seconds)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert time.monotonic() - begin < 10
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("fsp: stopped by")
