"""A checkpoint is the old one or the new one, never half, and never believed unverified."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest

from fsp_dynamics.errors import CheckpointError, NotFiniteError
from fsp_dynamics.experiments import checkpoint as room
from fsp_dynamics.experiments.checkpoint import (
    drop_kept,
    keep_network,
    kept_epochs,
    kept_name,
    load_checkpoint,
    require_kept,
    save_checkpoint,
)
from fsp_dynamics.experiments.trainer import TrainingState
from fsp_dynamics.writing import remove_aside, write_aside


def load_kept(folder, epoch):
    require_kept(folder, epoch)
    return load_checkpoint(folder, kept_name(epoch))


def checkpoint(epoch=1, value=1.0):
    rng = np.random.default_rng(epoch)
    rng.random(epoch)
    arrays = {
        "parameters/input": np.full((3, 2), value, np.float32),
        "parameters/forward[0]": np.arange(4.0).reshape(2, 2).T,
        "velocity/input": np.full((3, 2), -value, np.float32),
    }
    return TrainingState(epoch, arrays, {"rng": rng.bit_generator.state, "place": [0, 1.5, None]})


def same(one, other):
    return (
        one.epoch == other.epoch
        and one.values == other.values
        and one.arrays.keys() == other.arrays.keys()
        and all(
            a.dtype == other.arrays[name].dtype and np.array_equal(a, other.arrays[name])
            for name, a in one.arrays.items()
        )
    )


def payload(folder, name="last"):
    return folder / json.loads((folder / f"{name}.json").read_text())["payload"]


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0b100
    path.write_bytes(content)


def test_what_is_saved_is_loaded_to_the_bit(tmp_path):
    saved = checkpoint(3)
    save_checkpoint(tmp_path, saved, ["best", "last"])
    assert same(load_checkpoint(tmp_path, "last"), saved)
    assert same(load_checkpoint(tmp_path, "best"), saved)
    rng = np.random.default_rng()
    rng.bit_generator.state = load_checkpoint(tmp_path).values["rng"]
    expected = np.random.default_rng(3)
    expected.random(3)
    assert rng.random() == expected.random()


def test_last_and_best_share_a_payload_and_old_ones_go(tmp_path):
    save_checkpoint(tmp_path, checkpoint(1), ["best", "last"])
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    for epoch in (2, 3):
        save_checkpoint(tmp_path, checkpoint(epoch), ["last"])
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert load_checkpoint(tmp_path, "best").epoch == 1
    assert load_checkpoint(tmp_path, "last").epoch == 3


def test_any_flipped_byte_is_noticed(tmp_path):
    save_checkpoint(tmp_path, checkpoint())
    for path in (payload(tmp_path), tmp_path / "last.json"):
        whole = path.read_bytes()
        for place in range(0, len(whole), 7):
            flip(path, place)
            with pytest.raises(CheckpointError, match=r"last\.json|safetensors"):
                load_checkpoint(tmp_path)
            path.write_bytes(whole)
    assert load_checkpoint(tmp_path).epoch == 1


def test_a_cut_or_missing_payload_is_noticed(tmp_path):
    save_checkpoint(tmp_path, checkpoint())
    path = payload(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"bytes, expected \d+ as in its manifest"):
        load_checkpoint(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="the best checkpoint is missing"):
        load_checkpoint(tmp_path, "best")


def test_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "FORMAT", 4)
    save_checkpoint(tmp_path, checkpoint())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 4, expected 1, 2 or 3"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("part", ["parameters", "velocity"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_that_is_not_finite_is_saved(tmp_path, part, bad):
    save_checkpoint(tmp_path, checkpoint(1))
    spoilt = checkpoint(2)
    spoilt.arrays[f"{part}/input"][1, 1] = bad
    with pytest.raises(NotFiniteError, match=f"{part}/input is not finite after epoch 2"):
        save_checkpoint(tmp_path, spoilt)
    assert same(load_checkpoint(tmp_path), checkpoint(1))


@pytest.mark.parametrize("fails", ["fsync", "replace"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch, fails, call):
    save_checkpoint(tmp_path, checkpoint(1))
    calls, real = [], getattr(os, fails)

    def refuse(*arguments):
        if not (fails == "fsync" and os.path.isdir(f"/proc/self/fd/{arguments[0]}")):
            calls.append(arguments)
        if len(calls) >= call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, fails, refuse)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, checkpoint(2))
    monkeypatch.undo()
    assert same(load_checkpoint(tmp_path), checkpoint(1))
    assert not list(tmp_path.glob(".*"))
    save_checkpoint(tmp_path, checkpoint(3))
    assert load_checkpoint(tmp_path).epoch == 3


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_checkpoint import checkpoint
from fsp_dynamics.experiments.checkpoint import save_checkpoint

folder, real, calls = Path(sys.argv[1]), os.replace, []
def replace(*arguments):
    calls.append(arguments)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments)
os.replace = replace
save_checkpoint(folder, checkpoint(2), ["best", "last"])
"""


@pytest.mark.parametrize(("rename", "best"), [(1, 1), (2, 1), (3, 2)])
def test_killed_between_writing_and_renaming(tmp_path, rename, best):
    save_checkpoint(tmp_path, checkpoint(1), ["best", "last"])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), os.path.dirname(__file__), str(rename)], timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert same(load_checkpoint(tmp_path, "last"), checkpoint(1))
    assert same(load_checkpoint(tmp_path, "best"), checkpoint(best))
    remove_aside(tmp_path)
    assert not list(tmp_path.glob(".*"))
    save_checkpoint(tmp_path, checkpoint(2), ["best", "last"])
    assert load_checkpoint(tmp_path).epoch == 2
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_damaged_best_does_not_stop_saving_last(tmp_path):
    save_checkpoint(tmp_path, checkpoint(1), ["best", "last"])
    (tmp_path / "best.json").write_text("{}")
    save_checkpoint(tmp_path, checkpoint(2))
    assert load_checkpoint(tmp_path).epoch == 2


# Networks that are kept for good


def keep(folder, *epochs):
    for epoch in epochs:
        keep_network(folder, checkpoint(epoch, epoch))


def test_a_file_is_on_the_disk_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    """Or a power cut could leave an empty file under the name, or the former one for good."""
    calls, fsync, replace = [], os.fsync, os.replace

    def synchronised(handle):
        fsync(handle)
        held = os.fstat(handle)
        where = "folder" if stat.S_ISDIR(held.st_mode) else held.st_size
        calls.append(("fsync", where if where != "folder" or os.path.samestat(held, tmp_path.stat()) else "elsewhere"))

    def renamed(aside, path, **more):
        calls.append(("rename", os.path.basename(path)))
        replace(aside, path, **more)

    monkeypatch.setattr(os, "fsync", synchronised)
    monkeypatch.setattr(os, "replace", renamed)
    write_aside(tmp_path / "note.txt", b"12345")
    assert calls == [("fsync", 5), ("rename", "note.txt"), ("fsync", "folder")]
    calls.clear()
    save_checkpoint(tmp_path, checkpoint())
    (first, second) = payload(tmp_path), tmp_path / "last.json"
    wanted = [[("fsync", path.stat().st_size), ("rename", path.name), ("fsync", "folder")] for path in (first, second)]
    assert calls == wanted[0] + wanted[1], "the payload is safe before a manifest names it"


def test_what_is_kept_is_the_weights_to_the_bit_and_nothing_else(tmp_path):
    keep(tmp_path, 10, 0, 100000)
    assert kept_epochs(tmp_path) == (0, 10, 100000)
    for epoch in (0, 10, 100000):
        found = load_kept(tmp_path, epoch)
        assert (found.epoch, found.values) == (epoch, {})
        assert set(found.arrays) == {"parameters/input", "parameters/forward[0]"}
        for name, w in checkpoint(epoch, epoch).parameters.items():
            assert found.parameters[name].dtype == w.dtype
            np.testing.assert_array_equal(found.parameters[name], w)


def test_nothing_is_kept_in_an_empty_or_missing_folder(tmp_path):
    assert kept_epochs(tmp_path) == kept_epochs(tmp_path / "none") == ()
    drop_kept(tmp_path / "none", 0)
    with pytest.raises(
        CheckpointError, match=r"holds no network of epoch 3; none was kept; train with probes\.keep = 1"
    ):
        load_kept(tmp_path, 3)


def test_pruning_leaves_what_is_kept(tmp_path):
    """Even where the payloads hold the same, for a learner without velocity or memory."""
    for epoch in (1, 2, 3):
        keep(tmp_path, epoch)
        save_checkpoint(tmp_path, checkpoint(epoch, epoch).network(), ["last"])
    assert kept_epochs(tmp_path) == (1, 2, 3)
    assert [load_kept(tmp_path, epoch).parameters["input"][0, 0] for epoch in (1, 2, 3)] == [1, 2, 3]
    assert len(list(tmp_path.glob("epoch-*"))) == 1


def test_a_damaged_kept_network_does_not_stop_pruning_and_is_not_believed(tmp_path):
    keep(tmp_path, 1, 2)
    (tmp_path / "kept-00002.json").write_text("{}")
    for epoch in (3, 4):
        save_checkpoint(tmp_path, checkpoint(epoch))
    assert len(list(tmp_path.glob("epoch-*"))) == 1
    with pytest.raises(CheckpointError, match=r"kept-00002\.json .* is damaged; take the network of another epoch"):
        load_kept(tmp_path, 2)
    (path,) = tmp_path.glob("kept-00001-*")
    flip(path, -1)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_kept(tmp_path, 1)


def test_another_epoch_than_those_kept_is_refused_by_name(tmp_path):
    keep(tmp_path, 0, 5)
    with pytest.raises(CheckpointError, match="holds no network of epoch 4; there are those of 0, 5"):
        load_kept(tmp_path, 4)


def test_later_ones_are_dropped_whole(tmp_path):
    keep(tmp_path, 0, 5, 10)
    # killed while it was dropped, or before it was complete
    (tmp_path / "kept-00010.json").unlink()
    (tmp_path / "kept-notes.txt").write_text("mine")
    save_checkpoint(tmp_path, checkpoint(10))
    drop_kept(tmp_path, 4)
    assert kept_epochs(tmp_path) == (0,)
    assert len(list(tmp_path.glob("kept-*"))) == 3
    assert load_checkpoint(tmp_path).epoch == 10


def test_what_is_not_finite_is_not_kept(tmp_path):
    with pytest.raises(NotFiniteError, match="parameters/input is not finite after epoch 2"):
        keep_network(tmp_path, TrainingState(2, {"parameters/input": np.array([[np.inf]])}))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_while_keeping_leaves_the_others(tmp_path, monkeypatch):
    keep(tmp_path, 0)
    calls, real = [], os.replace

    def refuse(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        keep(tmp_path, 1)
    monkeypatch.undo()
    assert kept_epochs(tmp_path) == (0,)
    keep(tmp_path, 1)
    assert kept_epochs(tmp_path) == (0, 1)
    assert len(list(tmp_path.iterdir())) == 4
