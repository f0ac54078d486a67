"""Runs that are killed at file calls end as those that are not, and the campaign sees it where one
does not.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import kills
from fsp_dynamics.experiments.pictures import Pictures
from fsp_dynamics.training import loop_engine


class Killed(BaseException):
    """The process is gone: no call of the system that follows does anything."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(the folder of the run that is left alone, how many file calls it makes)"""
    folder, count = tmp_path_factory.mktemp("kills") / "whole", [0]
    with pytest.MonkeyPatch.context() as patched:
        for name in ("CHUNK", "TRIAL"):
            patched.setattr(loop_engine, name, kills.CHUNK)
        patched.setattr(Pictures, "draw", lambda self, now=False: None)  # which takes longer than all else
        kills.learn("numba", tmp_path_factory.mktemp("kills") / "compiling")  # files of the compiler count no more
        with kills.file_calls(lambda call, number, handle: count.__setitem__(0, number)):
            kills.learn("numba", folder)
        yield folder, count[0]


def broken(kind, number):
    """Refuse the file call of that number and all that follow: some may fail without a loss."""

    def note(call, count, handle):
        if count >= number:
            raise Killed if kind == "killed" else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return note


# shares of the run: while it begins, at its first checkpoint, within epochs, at their ends
@pytest.mark.parametrize("kind", ["killed", "full"])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.4, 0.97])
def test_a_run_that_ends_at_a_file_call_goes_on_to_the_folder_of_a_whole_one(tmp_path, whole, kind, share):
    folder, total = whole
    with kills.file_calls(broken(kind, int(share * total) + 1)), pytest.raises((Killed, OSError)):
        kills.learn("numba", tmp_path / "run")
    kills.learn("numba", tmp_path / "run")
    assert kills.differences(folder, tmp_path / "run") == []


def test_what_differs_is_named(tmp_path, whole):
    folder, _ = whole
    for name, change, said in [
        ("metrics.jsonl", lambda text: text.splitlines()[0] + b"\n", "metrics.jsonl differs: 3 and 1 records"),
        ("probes.jsonl", lambda text: text.replace(b'"epoch": 1', b'"epoch": 9', 1), "probes.jsonl differs"),
        ("summary.json", lambda text: text.replace(b"finished", b"failed"), "status: finished and failed"),
        ("checkpoints/kept-00002.json", lambda text: None, "only in"),
        ("config.toml", lambda text: text + b"0", "bytes"),
    ]:
        other = tmp_path / name.replace("/", "-")
        subprocess.run(["cp", "-r", str(folder), str(other)], check=True)
        changed = change((other / name).read_bytes())
        (other / name).unlink() if changed is None else (other / name).write_bytes(changed)
        assert [said in line for line in kills.differences(folder, other)] == [True]
    times = json.loads((folder / "summary.json").read_text()) | {"seconds": 1e9}
    subprocess.run(["cp", "-r", str(folder), str(tmp_path / "slow")], check=True)
    (tmp_path / "slow" / "summary.json").write_text(json.dumps(times))
    assert kills.differences(folder, tmp_path / "slow") == []


@pytest.mark.cli
@pytest.mark.rare
def test_twenty_kills_and_what_is_in_every_fortieth_file_call(tmp_path):
    command = [sys.executable, "-m", "benchmarks.kills", "--kills", "20", "--every", "40", "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines
    assert all(line.endswith(" 0 differ") for line in lines)
    assert sum(int(line.split()[2]) for line in lines if line.split()[1] == "random") >= 20
