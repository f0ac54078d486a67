"""Figures of errors through training: their numbers are those of the runs, and they are drawn again
from them alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import fsp_dynamics as fsp

sys.path.append(str(Path(__file__).parents[1] / "figures"))
import curves
import exits
import spiking

TABLE = {
    "family": "layerwise",
    "data": {"name": "digits", "limit": 60, "validation": 200},
    "network": {"hidden": [20, 20]},
    "learning": {"epochs": 2, "batch": 20},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("exits")
    return [fsp.train(TABLE, seed=seed, out=root / str(seed), progress=False).folder for seed in (0, 1)]


def test_its_numbers_are_those_of_the_runs(runs, tmp_path):
    assert exits.main([*map(str, runs), "--out", str(tmp_path)]) == 0
    rows = curves.stored(tmp_path / "exits.csv")
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        record = fsp.open_run(runs[row["seed"]]).metrics[row["epoch"] - 1]
        assert row["test_error"] == record["exit_errors"]["test"][row["curve"]]


def test_it_is_drawn_again_from_its_numbers_alone(runs, tmp_path):
    assert exits.main([*map(str, runs), "--out", str(tmp_path)]) == 0
    before = (tmp_path / "exits.csv").read_bytes()
    (tmp_path / "exits.png").unlink()
    assert exits.main(["--redraw", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "exits.png").stat().st_size > 5000
    assert (tmp_path / "exits.csv").read_bytes() == before
    found = curves.draw(curves.stored(tmp_path / "exits.csv")).axes[0].get_lines()
    assert [line.get_label().split(" ")[0] for line in found] == ["layer1", "layer2", "output"]


def test_runs_are_added_to_the_numbers_and_replace_their_own(runs, tmp_path):
    assert exits.main([str(runs[1]), "--out", str(tmp_path)]) == 0
    path = tmp_path / "exits.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].rpartition(",")[0] + ",99.0"]) + "\n")
    assert exits.main([str(runs[0]), "--add", "--out", str(tmp_path)]) == 0
    assert sum(row["test_error"] == 99.0 for row in curves.stored(path)) == 1
    assert exits.main([str(runs[1]), "--add", "--out", str(tmp_path)]) == 0
    added = curves.stored(path)
    assert exits.main([*map(str, runs), "--out", str(tmp_path)]) == 0
    assert sorted(map(str, added)) == sorted(map(str, curves.stored(path)))
    assert [row["seed"] for row in added] == [0, 0, 1, 1] * 3


def test_a_run_without_exits_is_refused_in_one_line(tmp_path, capsys):
    fsp.train("digits", epochs=1, data={"limit": 40}, out=tmp_path / "run", progress=False)
    assert exits.main([str(tmp_path / "run"), "--out", str(tmp_path)]) == 2
    assert "has no errors of exits; give runs of family = 'layerwise'" in capsys.readouterr().err
    assert not (tmp_path / "exits.csv").exists()


def test_spiking_networks_have_a_curve_for_each_learner(tmp_path, capsys):
    table = {**TABLE, "network": {"kind": "snn", "hidden": [20]}}
    runs = []
    for name in ("bp", "fsp"):
        how = {"learning": {**table["learning"], "learner": name}}
        runs.append(fsp.train({**table, **how}, out=tmp_path / name, progress=False))
    assert spiking.main([*(str(run.folder) for run in runs), "--out", str(tmp_path)]) == 0
    rows = curves.stored(tmp_path / "spiking.csv")
    assert [row["test_error"] for row in rows] == [record["test_error"] for run in runs for record in run.metrics]
    assert list(dict.fromkeys(row["curve"] for row in rows)) == ["backpropagation", "FSP 2b, voltage"]
    other = fsp.train(TABLE, epochs=1, out=tmp_path / "mlp", progress=False)
    assert spiking.main([str(other.folder), "--out", str(tmp_path)]) == 2
    assert "has no spiking network; give runs of network.kind = 'snn'" in capsys.readouterr().err
