"""`fsp spikes`: a row for the network as trained and for each variation, in every format; the file
of NIR; and what it refuses.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("torch")

from made_runs import made_run

import fsp_dynamics as fsp
from fsp_dynamics.cli import main
from fsp_dynamics.layerwise.evaluation import evaluate_exits
from fsp_dynamics.layerwise.spike_counts import count
from fsp_dynamics.layerwise.variation import varied

SMALL = {
    "family": "layerwise",
    "data": {"name": "digits", "limit": 200, "validation": 0},
    "network": {"kind": "snn", "channels": [4, "M", 4, "M"], "hidden": [12], "threshold": 0.5},
    "learning": {"learner": "bp", "epochs": 2, "batch": 20, "rate": 0.01},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has learned little
        return fsp.train(SMALL, out=tmp_path_factory.mktemp("spikes") / "run", progress=False)


def rows_of(capsys, run, *options):
    """The rows of --json."""
    assert main(["spikes", str(run.folder), *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_row_is_the_network_as_trained_and_one_for_each_variation(run, capsys):
    options = ["--bits", "8,2", "--steps", "1,16", "--threshold", ".25", "--limit", "60", "--checkpoint", "last"]
    found = rows_of(capsys, run, *options)
    assert (found["split"], found["checkpoint"], found["images"]) == ("test", "last", 60)
    learner, test = run.network("last"), run.data().test
    given = [{}, {"bits": 2}, {"bits": 8}, {"steps": 1}, {"steps": 16}, {"threshold": 0.25}]
    words = ["as trained", "2 bits", "8 bits", "1 step", "16 steps", "threshold 0.25"]
    assert [row["variation"] for row in found["rows"]] == words
    trained_error = evaluate_exits(learner, test.images[:60], test.labels[:60]).error
    for row, changes in zip(found["rows"], given, strict=True):
        changed = varied(learner, **changes)
        assert (row["bits"], row["steps"]) == (changes.get("bits"), changes.get("steps", 4))
        assert row["threshold"] == changes.get("threshold", 0.5)
        assert row["test_error"] == evaluate_exits(changed, test.images[:60], test.labels[:60]).error
        assert row["difference"] == row["test_error"] - trained_error
        seen = count(changed, test.images[:60])
        assert (row["spikes"], row["operations"]) == (seen.per_image, seen.operations_per_image)
        for name, own in seen.layers.items():
            kept = [row[f"{name}.{key}"] for key in ("spikes", "operations", "silent", "saturated")]
            assert kept == [own.per_image, own.operations, own.silent, own.saturated]
    assert len({row["spikes"] for row in found["rows"]}) == len(words)


def test_the_network_as_trained_is_what_evaluate_says(run, capsys):
    (row,) = rows_of(capsys, run, "--split", "train")["rows"]
    assert row["train_error"] == run.evaluate("train").error


def test_every_format_has_the_same_numbers(run, capsys):
    options = ["--steps", "2", "--limit", "50"]
    rows = rows_of(capsys, run, *options)["rows"]
    outputs = {}
    for format in ("csv", "text", "markdown", "latex"):
        assert main(["spikes", str(run.folder), *options, "--format", format]) == 0
        outputs[format] = capsys.readouterr().out
    for written, row in zip(csv.DictReader(io.StringIO(outputs["csv"])), rows, strict=True):
        assert written["variation"] == row["variation"]
        assert all(float(written[key]) == row[key] for key in row if key not in ("variation", "bits"))
    error, spikes = f"{rows[1]['test_error']:.2f}", f"{rows[1]['layer1.spikes']:,.1f}"
    assert re.search(rf"^2 steps +{error} +\S+ +{spikes} ", outputs["text"], re.MULTILINE)
    assert re.search(rf"\| 2 steps \| {error} \| \S+ \| {spikes} \|", outputs["markdown"])
    assert re.search(rf"2 steps & {error} & \S+ & {spikes} &", outputs["latex"])


def test_the_network_is_written_as_nir_and_a_file_that_is_there_is_replaced(run, capsys, tmp_path):
    nir = pytest.importorskip("nir")
    file = tmp_path / "new" / "network.nir"
    for _ in range(2):
        assert main(["spikes", str(run.folder), "--limit", "5", "--export", str(file)]) == 0
        assert f"written: {file}" in capsys.readouterr().err
    assert [path.name for path in file.parent.iterdir()] == ["network.nir"]
    graph = nir.read(file)
    np.testing.assert_array_equal(graph.nodes["classifier"].weight, run.network().network.head.weight.detach())
    file.write_text("mine")
    assert main(["spikes", str(run.folder), "--limit", "5", "--steps", "0", "--export", str(file)]) == 2
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bits", "0"], "bits = 0, expected a whole number from 1 to 16"),
        (["--bits", "2,2.5"], "bits = 2.5, expected a whole number from 1 to 16"),
        (["--bits", "two"], "bits = 'two', expected numbers with commas between them, such as 1,2,4"),
        (["--steps", "0,1"], "steps = 0, expected a whole number from 1 to 10000"),
        (["--threshold", "-1"], "threshold = -1, expected a finite number above 0"),
        (["--limit", "0"], "limit = 0, expected a whole number, 1 or more"),
        (["--export", "network.onnx"], "export = 'network.onnx' ends in '.onnx', expected .nir"),
        (["--step", "2"], "Did you mean --steps?"),
    ],
)
def test_what_cannot_be_varied_is_refused_in_one_line_before_anything_is_evaluated(run, options, words, capsys):
    assert main(["spikes", str(run.folder), *options]) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1


def test_without_nir_it_says_what_installs_it(run, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nir", None)
    assert main(["spikes", str(run.folder), "--limit", "5", "--export", str(tmp_path / "a.nir")]) == 2
    assert "nir is not installed, which this needs; pip install 'fsp_dynamics[nir]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_a_refusal_advises_helps(run, capsys, tmp_path):
    """A run without spikes, a family without spikes, and a part without images."""
    others = {"network.kind = 'mlp'": "fashion-mlp-bp", "family = 'rate'": "digits"}
    for kind, preset in others.items():
        folder = made_run(tmp_path / preset, preset)
        assert main(["spikes", str(folder)]) == 2
        assert f"{folder} has {kind}, without spikes; give a run of network.kind = 'snn'" in capsys.readouterr().err
    assert main(["spikes", str(run.folder), "--split", "valid"]) == 2
    assert f"split = 'valid' has no images in {run.folder}; choose another part" in capsys.readouterr().err
    assert main(["spikes", str(run.folder), "--split", "test", "--limit", "5"]) == 0
