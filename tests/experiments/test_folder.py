"""A run folder belongs to one process at a time, and what is read from it was written whole."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from fsp_dynamics.errors import CheckpointError, ConfigurationError, RunExistsError, RunLockedError
from fsp_dynamics.experiments.checkpoint import keep_network, kept_epochs
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.records import best_of, flat, plain
from fsp_dynamics.experiments.trainer import TrainingState

HOLD = """
import sys
from pathlib import Path
from fsp_dynamics.experiments.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path / "run"."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate(timeout=30)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def begin(folder):
    folder.path.mkdir()
    folder.begin(load_config("digits")[1], {"command": "train"})


def test_a_second_process_is_refused_and_told_who_holds_it(folder, holder):
    with pytest.raises(RunLockedError, match=f"is being written by process {holder.pid} on "), folder.locked():
        pass
    with pytest.raises(RunLockedError):
        folder.refuse_occupied()


def test_the_lock_ends_with_its_process(folder, holder):
    holder.kill()
    holder.wait(timeout=30)
    with folder.locked():
        pass


def test_a_folder_with_a_run_is_occupied(folder):
    folder.refuse_occupied()
    assert not folder.path.exists()
    begin(folder)
    with pytest.raises(RunExistsError, match="resume=True"):
        folder.refuse_occupied()
    assert folder.config() == load_config("digits")[1]


def test_a_folder_without_a_run_is_refused(folder):
    with pytest.raises(ConfigurationError, match="is no folder"):
        folder.require_run()
    folder.path.mkdir()
    with pytest.raises(ConfigurationError, match=r"holds no run \(no config\.toml\)"):
        folder.require_run()


def test_a_line_cut_short_is_no_epoch(folder):
    begin(folder)
    folder.append_metrics({"epoch": 1, "seconds": 1.0})
    folder.append_metrics({"epoch": 2, "seconds": np.float32(0.5)})
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "sec')
    assert [record["epoch"] for record in folder.metrics()] == [1, 2]
    folder.rewind(2)
    folder.append_metrics({"epoch": 3})
    assert [record["epoch"] for record in folder.metrics()] == [1, 2, 3]


def test_a_damaged_line_is_named(folder):
    begin(folder)
    (folder.path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl:2 is no record"):
        folder.metrics()


def test_rewinding_forgets_what_the_checkpoint_does_not_know(folder):
    begin(folder)
    for epoch in (1, 2, 3):
        folder.append_metrics({"epoch": epoch})
    (folder.path / ".summary.json.1.tmp").write_text("half")
    assert [record["epoch"] for record in folder.rewind(2)] == [1, 2]
    assert [record["epoch"] for record in folder.metrics()] == [1, 2]
    assert not list(folder.path.glob(".*.tmp"))
    with pytest.raises(CheckpointError, match="does not hold the 5 epochs"):
        folder.rewind(5)


def test_rewinding_forgets_the_networks_that_were_kept_later(folder):
    begin(folder)
    folder.append_metrics({"epoch": 1})
    for epoch in (0, 1, 2, 3):
        keep_network(folder.checkpoints, TrainingState(epoch, {"parameters/input": np.full((2, 2), epoch, np.float32)}))
    folder.rewind(1)
    assert kept_epochs(folder.checkpoints) == (0, 1)
    assert len(list(folder.checkpoints.iterdir())) == 4


def test_a_record_is_one_row_of_a_table():
    record = {
        "epoch": 3,
        "alignment_degrees": {"W1": 80.0},
        "saturation": {"output": [0.5, 0.25]},
        "dead_outputs": [3, 7],
        "valid_error": None,
    }
    assert flat(record) == {
        **{"epoch": 3, "alignment_degrees.W1": 80.0, "saturation.output.0": 0.5, "saturation.output.1": 0.25},
        **{"dead_outputs": "3 7", "valid_error": None},
    }


def test_the_best_epoch_is_the_first_of_the_lowest_validation_errors():
    records = [{"epoch": k, "valid_error": error} for k, error in enumerate((3.0, 1.0, 2.0, 1.0), 1)]
    assert best_of(records)["epoch"] == 2
    assert best_of([{"epoch": k, "valid_error": None} for k in (1, 2)])["epoch"] == 2
    assert best_of([]) is None


def test_json_holds_no_numbers_that_are_not_finite(folder):
    begin(folder)
    folder.write_json("summary.json", {"a": np.nan, "b": (np.float32(1.5), np.inf), "c": np.arange(2)})
    assert json.loads((folder.path / "summary.json").read_text()) == {"a": None, "b": [1.5, None], "c": [0, 1]}
    assert plain({1: np.int64(3), "x": np.bool_(True)}) == {"1": 3, "x": True}
    assert folder.read_json("nothing.json") == {}
