"""While workers of a sweep compile, the process of the sweep says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_screen import Terminal

from fsp_dynamics import streams
from fsp_dynamics.experiments.sweeps.announcing import announced, shown
from fsp_dynamics.kernels import compile_watch
from fsp_dynamics.kernels.compile_watch import COMPILING
from fsp_dynamics.screen import QUIET


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[compile_watch.Watch]:
    """That of this process, which has said nothing yet and says it at once."""
    monkeypatch.setattr(compile_watch, "DELAY", 0.0)
    monkeypatch.setattr(compile_watch, "_watch", compile_watch.Watch())
    return compile_watch._watch


def test_a_worker_keeps_a_file_while_it_compiles(watch: compile_watch.Watch, tmp_path: Path) -> None:
    permit = tmp_path / "permit"
    permit.touch()
    watch.begin()
    watch.end()
    assert list(tmp_path.iterdir()) == [permit], "nobody asked"
    with announced(permit), announced(permit):
        for _ in range(2):
            watch.begin()
            watch.begin()
            watch.end()
            assert len(list(tmp_path.glob("permit.*"))) == 1
            watch.end()
            assert list(tmp_path.iterdir()) == [permit]
        watch.begin()
        permit.unlink()  # the sweep is over
        watch.end()
        watch.begin()
        assert list(tmp_path.iterdir()) == []
    watch.end()
    assert watch.listener is None


def test_a_folder_that_takes_no_file_costs_nothing_else(watch: compile_watch.Watch, tmp_path: Path) -> None:
    (tmp_path / "permit").touch()
    with announced(tmp_path / "permit" / "below"), announced(tmp_path / "nowhere" / "permit"):
        watch.begin()
        watch.end()


def test_it_is_shown_until_no_worker_compiles(
    watch: compile_watch.Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(QUIET, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(streams, "stderr", lambda: terminal)
    permit, one, two, other = (tmp_path / name for name in ("permit", "permit.1", "permit.2", "permits"))
    permit.touch()
    other.touch()
    with shown(permit) as look:
        look()
        assert terminal.history == []
        for mark in (one, two):
            mark.touch()
            look()
            assert COMPILING in terminal.seen.lines[0]
        one.unlink()
        look()
        assert COMPILING in terminal.seen.lines[0], "the other one still compiles"
        two.unlink()
        look()
        assert terminal.seen.lines == []
        one.touch()
        look()
        assert terminal.seen.lines != []
    assert terminal.seen.lines == []


@pytest.mark.cli
@pytest.mark.rare
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_a_sweep_in_several_processes_says_first_that_they_compile(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != QUIET}
    environment |= {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    words = ["sweep", "digits", "--seeds", "2", "--jobs", "2", "--epochs", "1", "--data.limit", "40", "--out", "sweep"]
    done = subprocess.run(
        [sys.executable, "-m", "fsp_dynamics", *words],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=580,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert lines[0] == COMPILING
    assert sum("of 2   seed=" in line for line in lines) == 2
    assert not list((tmp_path / "sweep").glob(".running-*"))
