"""Commands with a cache of compiled kernels that is damaged, full, open to others or shared by
processes that start together: they do their work, with one note.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsp_dynamics.cli import main
from fsp_dynamics.kernels import cache_places

ROOT = Path(__file__).parents[1]
TINY = ["digits", "--epochs", "1", "--data.limit", "60", "--network.hidden", "6", "--learning.rates.forward", "7.0"]
COMMAND = [sys.executable, "-m", "fsp_dynamics"]
pytestmark = [
    pytest.mark.cli,
    pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled"),
]


def start(arguments, cache):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], env=environment, **pipes)


def fsp(*arguments, cache):
    """(exit code, notes) of a command with that cache."""
    process = start(arguments, cache)
    _, err = process.communicate(timeout=600)
    assert "Traceback" not in err
    return process.returncode, [line for line in err.splitlines() if line.startswith("note: ") and "output" not in line]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache that holds what `train` needs: copied from that of the package, where this process
    has put it if need be.
    """
    folder = tmp_path_factory.mktemp("filled")
    assert main(["train", *TINY, "--no-progress", "--out", str(folder / "run")]) == 0
    places = cache_places.places()
    assert places.writable() is not None
    cache = folder / "cache"
    for place in places.places:
        if place.folder.is_dir():
            shutil.copytree(place.folder, cache / cache_places.NAME, dirs_exist_ok=True)
    return cache


@pytest.mark.rare
@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_damaged_files_end_no_command(damage, filled, tmp_path):
    """Every file is damaged (one file at a time: tests/kernels/test_disk_cache.py)."""
    cache = tmp_path / "cache"
    shutil.copytree(filled, cache)
    hurt = list(cache.rglob("*.nbc"))
    assert hurt
    for path in hurt:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-100])
    code, notes = fsp("train", *TINY, "--out", tmp_path / "run", cache=cache)
    assert (code, len(notes)) == (0, 1), notes
    assert "it is compiled anew" in notes[0]
    assert fsp("train", *TINY, "--out", tmp_path / "again", cache=cache) == (0, [])


def test_a_cache_that_others_can_write_to_is_not_used(filled, tmp_path):
    """Its files are there and whole, and would be found."""
    cache = tmp_path / "cache"
    shutil.copytree(filled, cache)
    cache.chmod(0o777)
    code, notes = fsp("train", *TINY, "--out", tmp_path / "run", cache=cache)
    assert (code, len(notes)) == (0, 1), notes
    assert f"{cache}: others can write to it (mode 777)" in notes[0]


def test_a_cache_that_cannot_be_made(filled, tmp_path):
    code, notes = fsp("train", *TINY, "--out", tmp_path / "run", cache="/proc/nowhere")
    assert (code, len(notes)) == (0, 1), notes
    assert "/proc/nowhere" in notes[0]


@pytest.mark.rare
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount")
def test_a_full_disk_under_the_cache(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(small)], check=False)
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        code, notes = fsp("train", *TINY, "--out", tmp_path / "run", cache=small)
        assert (code, len(notes)) == (0, 1), notes
        assert "No space left on device" in notes[0]
        assert [path for path in small.rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.rare
@pytest.mark.slow
def test_four_commands_that_start_together_with_an_empty_cache(tmp_path):
    """They end about when one alone would have ended: each kernel is compiled once."""
    begin = time.monotonic()
    assert fsp("train", *TINY, "--out", tmp_path / "alone", cache=tmp_path / "one") == (0, [])
    alone = time.monotonic() - begin
    begin = time.monotonic()
    running = [start(["train", *TINY, "--out", tmp_path / str(number)], tmp_path / "four") for number in range(4)]
    for process in running:
        process.communicate(timeout=600)
    together = time.monotonic() - begin
    assert [process.returncode for process in running] == [0] * 4
    assert together < 60 + 2.5 * alone
    one, four = (
        sorted(path.name for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("one", "four")
    )
    assert one == four, "no lock and no part of a file is left"
