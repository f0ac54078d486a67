"""The first run ends with a picture, may be repeated, and never removes what it did not make."""

from __future__ import annotations

import numba
import pytest

from fsp_dynamics.errors import RunExistsError
from fsp_dynamics.experiments import quickstart as room
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.progress import Output, RunReporter
from fsp_dynamics.experiments.quickstart import quickstart
from fsp_dynamics.experiments.runner import train

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")


@pytest.fixture
def quick(tiny, monkeypatch):
    """Let the preset be the tiny experiment."""
    monkeypatch.setattr(room, "load_config", lambda name: load_config(tiny(), {"epochs": 1}))


@pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="minutes without the compiler, and nothing of it depends on that"
)
def test_the_preset_learns_digits_well(tmp_path):
    run, picture = quickstart(tmp_path / "q", RunReporter(Output()))
    assert picture == tmp_path / "q" / "quickstart.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run.summary["best"]["test_error"] <= 5
    assert not run.summary["last"]["dead_outputs"]
    assert run.kept == tuple(range(run.config.learning.epochs + 1)), "to be scrubbed through"
    assert all(angle < 90 for angle in run.summary["last"]["alignment_degrees"].values())


def test_it_replaces_its_own_earlier_run_and_leaves_other_files(quick, tmp_path):
    quickstart(tmp_path, RunReporter(Output()))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "metrics.jsonl").write_text("spoilt")
    run, _ = quickstart(tmp_path, RunReporter(Output()))
    assert len(run.metrics) == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_it_clears_what_a_killed_clearing_left(quick, tmp_path):
    quickstart(tmp_path, RunReporter(Output()))
    for name in room._OWN[:-2]:
        path = tmp_path / name
        if path.is_file():
            path.unlink()
    assert len(quickstart(tmp_path, RunReporter(Output()))[0].metrics) == 1


def test_another_run_is_not_replaced(quick, tiny, tmp_path):
    train(tiny(), out=tmp_path, epochs=1, progress=False)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(RunExistsError, match="no quickstart"):
        quickstart(tmp_path, RunReporter(Output()))
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
