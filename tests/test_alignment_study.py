"""The script behind docs/alignment-study.md: it trains what is missing, its table has the numbers
of the runs, and the page shows every option.
"""

from __future__ import annotations

import csv
import importlib.util
import re
import shutil
import statistics
from pathlib import Path

import pytest
from pictures import assert_legible

from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.plotting import GREY
from fsp_dynamics.plotting.figures import WIDE

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("alignment_study", ROOT / "figures" / "alignment_study.py")
study = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(study)
TINY = [
    "--data.name",
    "digits",
    "--data.limit",
    "1100",
    "--network.hidden",
    "12,10",
    "--epochs",
    "1",
    "--probes.samples",
    "20",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of runs, folder of the pictures) after --train with two seeds."""
    runs, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("out")
    assert study.main(["--runs", str(runs), "--out", str(out), "--seeds", "0", "1", "--train", *TINY]) == 0
    return runs, out


@pytest.mark.slow
@pytest.mark.rare
def test_the_numbers_are_those_of_the_runs(made, capsys):
    runs, out = made
    assert study.main(["--runs", str(runs), "--out", str(out), "--seeds", "0", "1", *TINY]) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = list(csv.DictReader((out / "alignment_study.csv").open()))
    assert [(row["option"], row["seed"]) for row in rows] == [(name, seed) for name in study.STUDY for seed in "01"]
    for row in rows:
        files = RunFolder(study.folder_of(runs, row["option"], int(row["seed"])))
        assert float(row["test"]) == pytest.approx(files.read_json("summary.json")["best"]["test_error"], abs=1e-3)
        assert float(row["W1 inside"]) == pytest.approx(files.probes()[-1]["alignment"]["inside"]["W1"], abs=1e-3)
    errors = [float(row["test"]) for row in rows if row["option"] == "decay"]
    (line,) = [line for line in printed if line.startswith("| decay |")]
    assert line.split("|")[2].strip() == f"{statistics.fmean(errors):.2f} ± {statistics.stdev(errors):.2f}"
    for ending in ("png", "svg", "txt"):
        assert (out / f"alignment_study.{ending}").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.rare
def test_every_option_changes_what_is_learned(made):
    runs, _ = made
    ends = {
        name: RunFolder(study.folder_of(runs, name, 0)).metrics()[-1]["alignment_degrees"]["W1"] for name in study.STUDY
    }
    assert len(set(ends.values())) == len(study.STUDY)


def test_what_is_missing_is_named(tmp_path, capsys):
    assert study.main(["--runs", str(tmp_path)]) == 2
    assert "base-0 is no folder" in capsys.readouterr().err
    assert study.main(["--runs", str(tmp_path), "--epochs"]) == 2
    assert "expected --KEY VALUE pairs" in capsys.readouterr().err


def test_the_page_shows_every_option_and_its_keys():
    page = (ROOT / "docs" / "alignment-study.md").read_text(encoding="utf-8")
    for name, options in study.STUDY.items():
        assert re.search(rf"^\| {re.escape(name)} \|", page, re.MULTILINE), name
        assert all(f"`{key}" in page or key in page for key in options), name


def test_the_page_s_table_is_that_of_the_committed_numbers():
    page = (ROOT / "docs" / "alignment-study.md").read_text(encoding="utf-8")
    assert study.markdown(study.stored(ROOT / "figures" / "alignment_study.csv")) in page


def test_the_picture_is_legible_across_two_columns():
    figure = study.draw(study.stored(ROOT / "figures" / "alignment_study.csv"))
    assert_legible(figure)
    assert figure.get_figwidth() == WIDE
    assert figure.get_figheight() * 2.54 < 12, "less than half a page"
    bars = [line for ax in figure.axes for line in ax.lines if len(set(line.get_xdata())) == 1 < len(line.get_xdata())]
    assert {line.get_linestyle() for line in bars if line.get_color() != GREY} == {"-"}, "a mean is one whole bar"


def test_it_is_drawn_again_from_the_numbers_alone(tmp_path, capsys):
    assert study.main(["--redraw", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path / 'alignment_study.csv'} is no file; give the folder that has it" in capsys.readouterr().err
    shutil.copy(ROOT / "figures" / "alignment_study.csv", tmp_path)
    assert study.main(["--redraw", "--out", str(tmp_path)]) == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".png", ".svg"}
