"""Run folders made by the commit 3e2565e, before keys, values and records were renamed, are read,
resumed and compared by every later version.

They lie in old_runs/: a loop (with kept networks and records within epochs), a reciprocal network,
a run on torch, runs with the exact gradient and with presynaptic deviations, a sweep, and a run
that was interrupted after its first epoch. Their pictures and locks were left out.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fsp_dynamics.experiments.overview import compare_runs, list_runs
from fsp_dynamics.experiments.run import open_run
from fsp_dynamics.experiments.runner import train

OLD = Path(__file__).parent / "old_runs"
SINGLE = ("loop", "reciprocal", "torch", "exact", "deviation", "interrupted")
EPOCHS = {"interrupted": 1}
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")


@pytest.fixture
def old(tmp_path):
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


@pytest.mark.parametrize("name", SINGLE)
def test_an_old_run_is_read(name):
    run = open_run(OLD / name)
    assert len(run.metrics) == EPOCHS.get(name, 2)
    assert run.summary["last"]["epoch"] == len(run.metrics)
    frame = run.to_frame()
    assert np.isfinite(frame["train_error"]).all()
    assert set(run.network("last").parameters()) >= {"input", "forward[0]", "biases[0]"}


@pytest.mark.parametrize("name", SINGLE)
def test_the_network_of_an_old_run_still_has_its_error(name):
    run = open_run(OLD / name)
    assert run.evaluate("test", "last", threads=1).error == pytest.approx(
        run.metrics[-1]["test_error"], abs=1.0
    )  # of 400 images


def test_kept_networks_of_an_old_run_are_read():
    run = open_run(OLD / "loop")
    assert run.kept == (0, 1, 2)
    assert np.array_equal(run.network(2).input, run.network("last").input)


@pytest.mark.parametrize("name", SINGLE)
def test_an_old_run_goes_on(name, old):
    before = json.loads((old / name / "metrics.jsonl").read_text().splitlines()[0])
    more = EPOCHS.get(name, 2) + 1
    backend = {"backend": "torch", "device": "cpu"} if name == "torch" else {}
    run = train(old / name, resume=True, epochs=more, progress=False, threads=1, **backend)
    assert [record["epoch"] for record in run.metrics] == list(range(1, more + 1))
    assert run.metrics[0]["train_error"] == before["train_error"]


def test_old_runs_are_listed_and_compared():
    records = list_runs(OLD)
    assert len(records) == len(SINGLE) + 4
    assert not [record for record in records if "problem" in record]
    assert compare_runs(OLD / "loop", OLD / "interrupted")["outcome"]["epochs"] == (2, 1)
