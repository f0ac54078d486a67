"""`fsp cost`: one measurement in every format, without data, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

pytest.importorskip("torch")

from fsp_dynamics.cli import main
from fsp_dynamics.datasets import DATASETS
from fsp_dynamics.experiments.layerwise import costs
from fsp_dynamics.experiments.layerwise.costs import IMAGES, Costs
from fsp_dynamics.layerwise.cost import Cost, StageCost

SMALL = ["fashion-mlp-fsp", "--network.hidden", "12,8", "--batch", "6", "--rounds", "2"]


@pytest.fixture
def cost(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FSP_DATA", str(tmp_path))  # where there are none
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def run(*options):
        assert main(["cost", *SMALL, *options]) == 0
        return capsys.readouterr().out

    return run


def test_json_and_csv_hold_every_stage_and_the_bytes_are_the_same_each_time(cost) -> None:
    found = json.loads(cost("--json"))
    assert (found["batch"], found["network"]) == (6, "mlp 12-8, images 1 x 28 x 28, 10 classes")
    rows = list(csv.DictReader(io.StringIO(cost("--format", "csv"))))
    for record, row in zip(found["rows"], rows, strict=True):
        assert (row["learner"], row["stage"]) == (record["learner"], record["stage"])
        assert float(row["bytes"]) == record["bytes"]
    names = [row["stage"] for row in found["rows"] if row["learner"] == "fsp"]
    assert names == ["layer1", "layer2", "output", "mean layer", "largest", "sum"]


def test_markdown_latex_and_text_show_the_same_numbers(cost) -> None:
    fixed = ["--learners", "bp", "fsp"]
    kept = re.search(r"\| mean layer \| (\S+) \| (\S+) \|", cost(*fixed, "--format", "markdown")).groups()
    assert f"mean layer & {kept[0]} & {kept[1]} " in cost(*fixed, "--format", "latex")
    assert re.search(rf"^mean layer +{kept[0]} +{kept[1]}$", cost(*fixed), re.MULTILINE)


def test_ratios_stand_beside_those_of_the_paper_for_its_network_alone() -> None:
    layers = tuple(StageCost(f"layer{k}", size, (2.0, 4.0)) for k, size in enumerate((10, 20), 1))
    of = {
        "bp": Cost((StageCost("output", 100, (9.0, 11.0)),)),
        "fsp": Cost((*layers, StageCost("output", 6, (1.0, 1.0)))),
        "fsp-sparse": Cost((*layers, StageCost("output", 6, (1.0, 1.0)))),
    }
    rows = {row[""]: row for row in Costs(of, "", "", 1, is_vgg8b=True).ratios()}
    assert rows["FSP / BP"]["bytes, mean layer"] == "0.15"
    assert rows["FSP sparse / BP"] == {
        "": "FSP sparse / BP",
        "bytes, mean layer": "0.15 (0.28)",
        "bytes, largest": "0.20 (0.42)",
        "bytes, sum": "0.36 (1.97)",
        "seconds, mean layer": "0.30 (0.48)",
        "seconds, largest": "0.30 (0.82)",
        "seconds, sum": "0.70 (3.36)",
    }
    assert rows["FSP sparse / FSP"]["bytes, mean layer"] == "1.00 (0.77)"
    elsewhere = Costs(of, "", "", 1).ratios()
    assert not any("(" in cell for row in elsewhere for cell in list(row.values())[1:])
    (whole,) = [row["BP"] for row in Costs(of, "", "", 1).seconds() if row["stage"] == "largest"]
    assert whole == "10000.0 (9000.0 to 11000.0)"


def test_a_peak_has_a_table_of_its_own_where_the_device_counts_it() -> None:
    cost = {"bp": Cost((StageCost("output", 1, (1.0,), peak=3 * costs.MIB),))}
    assert [row["BP"] for row in Costs(cost, "", "", 1).peaks()] == ["-", "3.00", "3.00", "3.00"]
    assert Costs({"bp": Cost((StageCost("output", 1, (1.0,)),))}, "", "", 1).peaks() == []


def test_images_are_those_of_the_data_sets() -> None:
    assert list(IMAGES) == list(DATASETS)
    for name, ((channels, height, width), classes) in IMAGES.items():
        assert f"{height} x {width} pixels{' in colour' * (channels == 3)}, {classes} classes" in DATASETS[name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["digits"], "family = 'rate' has no stages"),
        (["fashion-mlp-fsp", "--batch", "1"], "batch = 1, expected a whole number, 2 or more"),
        (["fashion-mlp-fsp", "--rounds", "0"], "rounds = 0, expected a whole number, 1 or more"),
        ([*SMALL, "--classes", "1"], "classes = 1, expected a whole number, 2 or more"),
        ([*SMALL, "--image-shape", "32,32"], "image_shape = (32, 32), expected channels, height and width"),
        ([*SMALL, "--learners", "fs"], "Did you mean"),
        ([*SMALL, "--data.path", "mine.npz"], "are not read to measure costs; give --image-shape and --classes"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(options, words, capsys) -> None:
    assert main(["cost", *options]) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.out == ""
    assert len([line for line in shown.err.splitlines() if line.startswith("fsp: ")]) == 1


def test_what_a_refusal_advises_helps(cost) -> None:
    """A preset of the other family; sizes of images that have no name."""
    given = ["--data.path", "mine.npz", "--image-shape", "3,4,4", "--classes", "7", "--json"]
    assert json.loads(cost(*given))["network"] == "mlp 12-8, images 3 x 4 x 4, 7 classes"
