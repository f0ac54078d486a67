"""The script behind the section on depth in docs/section-v.md: it trains what is missing, and its
numbers, table and picture are those of the runs.
"""

from __future__ import annotations

import csv
import math
import shutil
import statistics
import sys
from pathlib import Path

import pytest
from pictures import assert_legible, drawn

from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.plotting.figures import WIDTH

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "figures"))
import depth

# small layers of these learn
SMALL = ["--data.name", "digits", "--epochs", "2", "--network.forward_scale", "1", "--network.loop_scale", "0.2"]
SMALL += ["--learning.rates.input", "20", "--learning.output_step", "0.2"]
SHAPE = ["--units", "30", "--output", "7", "--depths", "1", "2", "3", "--seeds", "0", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of runs, folder of the pictures) after --train."""
    runs, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("out")
    assert depth.main(["--runs", str(runs), "--out", str(out), *SHAPE, "--train", "--threads", "1", *SMALL]) == 0
    return runs, out


def test_all_depths_have_their_layers_and_rates_and_all_else_in_common():
    configs = {layers: load_config(depth.PRESET, depth.settings(layers, 500, 30, 5))[1] for layers in (1, 2, 3, 5, 8)}
    for layers, config in configs.items():
        assert config.network.hidden == (500,) * layers
        assert config.learning.rates.forward == (*[30.0] * (layers - 1), 5.0)
        assert set(config.differences(configs[2])) <= {"network.hidden", "learning.rates.forward"}
    assert configs[2].learning.frozen == ("loop",)


@pytest.mark.slow
def test_the_numbers_are_those_of_the_runs(made):
    runs, out = made
    with (out / "depth.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {(row["depth"], row["seed"], row["quantity"], row["place"]): float(row["value"]) for row in rows}
    assert len(found) == len(rows)
    for layers in (1, 2, 3):
        for seed in (0, 1):
            files = RunFolder(runs / f"{layers}-{seed}")
            metrics, probes = files.metrics(), files.probes()
            assert files.config().network.hidden == (30,) * layers

            def number(quantity, place="", layers=layers, seed=seed):
                return pytest.approx(found[str(layers), str(seed), quantity, place], rel=1e-4)

            best = min(metrics, key=lambda record: record["valid_error"])
            assert (best["test_error"], metrics[-1]["train_error"]) == (number("test"), number("training"))
            for name in ("loop", *(f"W{k + 1}" for k in range(layers))):
                assert probes[-1]["alignment"]["degrees"][name] == number("angle", name)
            for name in ("input", *(f"forward[{k}]" for k in range(layers))):
                three = [record["gradient"]["norm_ratio"][name] for record in probes[-3:]]
                assert sorted(three)[1] == number("norm", name)
            assert ("loop" in {row["place"] for row in rows if row["quantity"] == "norm"}) is False
            for layer, shares in metrics[-1]["saturation"].items():
                assert shares == [number("at 0", layer), number("at 1", layer)]
            assert metrics[-1]["loop_norm"] == number("gain")


@pytest.mark.slow
def test_the_table_is_that_of_the_numbers_and_made_again_without_training(made, capsys):
    runs, out = made
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("metrics.jsonl")}
    assert depth.main(["--runs", str(runs), "--out", str(out), *SHAPE, *SMALL]) == 0
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("metrics.jsonl")} == before
    printed = capsys.readouterr().out
    rows = depth.read_rows(out / "depth.csv")
    assert depth.markdown(rows) == printed.rstrip("\n")
    for layers, line in zip((1, 2, 3), printed.splitlines()[2:], strict=True):
        test = [row["value"] for row in rows if row["quantity"] == "test" and row["depth"] == layers]
        assert len(test) == 2
        mean = statistics.fmean(test)
        assert line.startswith(f"| {layers} | {mean:.2f} % ({min(test):.2f} to {max(test):.2f}) | ")
    caption = (out / "depth.txt").read_text()
    assert "seeds 0, 1" in caption
    assert "--train --units 30 --forward 30 --output 7 --data.name digits --epochs 2" in caption
    assert {path.name for path in out.iterdir()} == {"depth.png", "depth.svg", "depth.csv", "depth.txt"}


@pytest.mark.slow
def test_unfinished_runs_go_on_and_missing_ones_are_named(made, tmp_path, capsys):
    runs, _ = made
    assert depth.main(["--runs", str(runs), "--out", str(tmp_path), *SHAPE, "--seeds", "0", "1", "2", *SMALL]) == 2
    assert "1-2 is no folder" in capsys.readouterr().err
    longer = [*SHAPE, "--depths", "1", "--seeds", "0", *SMALL, "--epochs", "3"]
    assert depth.main(["--runs", str(runs), "--out", str(tmp_path), *longer, "--train"]) == 0
    assert len(RunFolder(runs / "1-0").metrics()) == 3
    assert depth.main(["--runs", str(tmp_path), "--epochs"]) == 2
    assert "expected --KEY VALUE pairs" in capsys.readouterr().err


def test_the_caption_tells_the_schedule(tmp_path):
    settings = depth.settings(2, 30, 30, 5)
    cosine = {"learning.rate_factor": None, "learning.schedule.kind": "cosine", "learning.schedule.epochs": 9}
    for changes, words in (({}, "times 0.92 each epoch; the loop is fixed"), (cosine, "schedule: cosine; the loop")):
        assert words in depth.caption(tmp_path, [], load_config(depth.PRESET, settings | changes)[1], "command")


def invented(depths, low, high):
    """Numbers of that many hidden layers, between these errors."""
    rows = []
    for layers in depths:
        matrices = [f"W{k + 1}" for k in range(layers)]
        parameters = ["input", *(f"forward[{k}]" for k in range(layers))]
        for seed in (0, 1, 2):
            share = (layers + 0.3 * seed) / 10
            numbers = {("test", ""): low + share * (high - low), ("training", ""): low * share, ("gain", ""): share**4}
            numbers |= {("angle", name): 85 - 20 * share - k for k, name in enumerate([*matrices, "loop"])}
            numbers |= {("norm", name): math.exp(layers - k) for k, name in enumerate(parameters)}
            numbers |= {("direction", name): 90 - 5 * k for k, name in enumerate(parameters)}
            for layer in (*(f"hidden{k + 1}" for k in range(layers)), "output"):
                numbers |= {("at 0", layer): 0.5 * share, ("at 1", layer): 0.25}
            rows += [
                dict(zip(depth.COLUMNS, (layers, seed, *key, value), strict=True)) for key, value in numbers.items()
            ]
    return rows


@pytest.mark.parametrize("errors", [(1.8, 3.0), (2.0, 90.0)])
def test_the_picture_shows_the_numbers_and_is_legible(errors):
    rows = invented((1, 2, 3, 5, 8), *errors)
    figure = depth.draw(rows)
    assert_legible(figure)
    assert figure.get_figwidth() == WIDTH, "one column of a journal"
    axes = figure.axes
    for ax in axes[:2]:
        assert ax.get_legend().get_window_extent().y1 < ax.get_window_extent().y0, "no legend lies on curves"
    x, y = drawn(axes[0])["test"]
    assert list(x) == [1, 2, 3, 5, 8]
    assert list(y) == pytest.approx([statistics.fmean(depth.values(rows, "test", layers)) for layers in x])
    x, y = drawn(axes[3])["3"]
    assert list(x) == [0, 1, 2, 3]
    assert list(y) == pytest.approx([math.exp(3 - k) for k in range(4)])
    x, y = drawn(axes[5])["2"]
    assert list(x) == [1, 2, 3]
    assert list(y) == pytest.approx([100 * (0.5 * 0.23 + 0.25)] * 3)
    assert next(iter(drawn(axes[1])["into the output"][1])) == pytest.approx(drawn(axes[1])["W1"][1][0])


def test_what_could_not_be_measured_is_left_out():
    """Such as the gain where no image converged, and an update where no image has an error."""
    rows = invented((1, 8), 2.0, 3.0)
    kept = [row for row in rows if row["depth"] == 1 or row["quantity"] not in ("gain", "norm", "direction")]
    assert_legible(depth.draw(kept))
    whole, less = (depth.markdown(each).splitlines() for each in (rows, kept))
    assert whole[:3] == less[:3]
    assert less[3].endswith(" |  |  |  |")
    assert whole[3].count("|") == less[3].count("|")


def test_it_is_drawn_again_from_the_numbers_alone(tmp_path, capsys):
    assert depth.main(["--redraw", "--out", str(tmp_path)]) == 2
    assert f"depth: {tmp_path / 'depth.csv'} is no file of numbers; give the folder" in capsys.readouterr().err
    shutil.copy(ROOT / "figures" / "depth.csv", tmp_path)
    assert depth.main(["--redraw", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"depth.csv", "depth.png", "depth.svg"}
