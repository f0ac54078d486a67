"""Run folders made by the commit 3e2565e, before keys, values and records were renamed, are read,
resumed and compared by every later version.

They lie in old_runs/: a loop (with kept networks and records within epochs), a reciprocal network,
a run on torch, runs with the exact gradient and with presynaptic deviations, a sweep, and a run
that was interrupted after its first epoch. Their pictures and locks were left out.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.checkpoint import load_checkpoint
from fsp_dynamics.experiments.config_io import PRESETS, load_config
from fsp_dynamics.experiments.overview import compare_runs, list_runs
from fsp_dynamics.experiments.run import open_run
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.experiments.sweeps.runner import open_sweep, sweep

OLD = Path(__file__).parent / "old_runs"
SINGLE = ("loop", "reciprocal", "torch", "exact", "deviation", "interrupted")
EPOCHS = {"interrupted": 1}
pytestmark = [
    pytest.mark.filterwarnings("ignore:epoch .* output"),
    pytest.mark.filterwarnings("ignore:former name"),
    pytest.mark.filterwarnings("ignore:.* has no compiled engine"),
]


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


def test_an_old_run_that_goes_on_no_longer_says_what_was_measured_of_its_preset(old):
    assert "measured" in (old / "loop" / "config.toml").read_text()
    train(old / "loop", resume=True, epochs=3, progress=False, threads=1)
    assert "measured" not in (old / "loop" / "config.toml").read_text()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_run(old / "loop").network("best")
    assert not [each for each in caught if "was edited" in str(each.message)]


def test_old_runs_are_listed_and_compared():
    records = list_runs(OLD)
    assert len(records) == len(SINGLE) + 4
    assert not [record for record in records if "problem" in record]
    assert compare_runs(OLD / "loop", OLD / "interrupted")["outcome"]["epochs"] == (2, 1)


# Former names: each read, with one note


def noted(call, *arguments, **options):
    """(result, the notes on former names)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call(*arguments, **options)
    return found, [text for each in caught if (text := str(each.message)).startswith("former name: ")]


@pytest.mark.parametrize(
    ("former", "now", "note"),
    [
        ({"solver.method": "secants"}, {"solver.method": "broyden"}, "solver.method = 'secants' is called 'broyden'"),
        ({"solver.method": "sweeps"}, {"solver.method": "picard"}, "solver.method = 'sweeps' is called 'picard'"),
        ({"learning.rule": "exact"}, {"learning.rule": "gradient"}, "learning.rule = 'exact' is called 'gradient'"),
        ({"learning.presynaptic": "deviation"}, {"learning.rule": "mean_subtracted"}, "'mean_subtracted'"),
        (
            {"learning.presynaptic": "whole"},
            {},
            "learning.presynaptic = 'whole' is what learning.rule = 'hebbian' does",
        ),
        (
            {"learning.presynaptic": "deviation", "learning.rule": "mean_subtracted"},
            {"learning.rule": "mean_subtracted"},
            "learning.presynaptic = 'deviation'",
        ),
        (
            {"learning.presynaptic": "whole", "learning.rule": "gradient"},
            {"learning.rule": "gradient"},
            "it is left out now",
        ),
    ],
)
def test_former_keys_and_values_are_read_with_a_note(former, now, note, tmp_path):
    """As overrides, and in a file, whose notes are its own."""
    expected = load_config("digits", now)[1]
    (_, config), notes = noted(load_config, "digits", former)
    assert config.experiment() == expected.experiment()
    assert len(notes) == 1
    assert note in notes[0]
    lines: dict[str, list[str]] = {}
    for key, value in former.items():
        lines.setdefault(key.split(".")[0], []).append(f"{key.split('.')[1]} = '{value}'")
    text = (PRESETS / "digits.toml").read_text()
    for section, added in lines.items():
        text = text.replace(f"[{section}]\n", "\n".join([f"[{section}]", *added, ""]))
    (tmp_path / "mine.toml").write_text(text)
    (_, config), notes = noted(load_config, tmp_path / "mine.toml")
    assert config.experiment() == expected.experiment()
    assert len(notes) == 1


@pytest.mark.parametrize("rule", ["exact", "gradient", "products"])
def test_deviations_cannot_be_combined_with_another_rule(rule):
    with pytest.raises(ConfigurationError, match=r"'mean_subtracted' now, which cannot be combined with '"):
        noted(load_config, "digits", {"learning.presynaptic": "deviation", "learning.rule": rule})


def test_an_unknown_value_of_a_former_key_is_refused():
    with pytest.raises(ConfigurationError, match=r"learning\.presynaptic = 'hole': the key has become learning\.rule"):
        load_config("digits", {"learning.presynaptic": "hole"})


def test_todays_names_need_no_note():
    for name in ("gradient", "mean_subtracted"):
        assert noted(load_config, "digits", {"learning.rule": name, "solver.method": "broyden"})[1] == []


def test_the_command_line_reads_former_names_too(tmp_path, capsys):
    small = ["--data.limit", "60", "--network.hidden", "6", "--learning.rates.forward", "5", "--probes.samples", "0"]
    former = ["--learning.presynaptic", "deviation", "--solver.method", "secants", "--epochs", "1", "--no-progress"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["train", "digits", *small, *former, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().err
    assert shown.count("note: former name: ") == 2
    assert "learning.rule = 'mean_subtracted' now" in shown
    config = load_config(tmp_path / "run")[1]
    assert (config.learning.rule, config.solver.method) == ("mean_subtracted", "broyden")


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("loop", {"solver.method = 'secants'", "'unrested'", "'valid_unrested'", "'test_unrested'", "presynaptic"}),
        ("exact", {"learning.rule = 'exact'", "'unrested'", "'valid_unrested'", "'test_unrested'", "presynaptic"}),
        ("deviation", {"'deviation'", "'unrested'", "'valid_unrested'", "'test_unrested'"}),
    ],
)
def test_each_former_name_of_a_run_is_reported_once(name, notes):
    run, _ = noted(open_run, OLD / name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        open_run(OLD / name)
        list_runs(OLD / name)
    texts = [str(each.message) for each in caught]
    assert len(texts) == len(set(texts)) == len(notes)
    assert all(any(note in text for text in texts) for note in notes)
    assert {"unconverged", "valid_unconverged", "test_unconverged"} <= set(run.metrics[-1])
    assert run.summary["last"] == run.metrics[-1]
    assert not any("rested" in key for key in [*run.metrics[-1], *run.summary["best"]])


def test_a_run_that_goes_on_is_written_under_todays_names(old):
    noted(train, old / "deviation", resume=True, epochs=3, progress=False, threads=1)
    run, notes = noted(open_run, old / "deviation")
    assert notes == []
    assert run.config.learning.rule == "mean_subtracted"
    assert run.config.family == "rate"
    manifest = json.loads((old / "deviation" / "checkpoints" / "last.json").read_text())
    assert manifest["format"] == 3
    assert manifest["rng"]["bit_generator"] == "PCG64"
    assert load_checkpoint(old / "deviation" / "checkpoints").part("warm_start")


def test_the_warm_start_of_an_old_checkpoint_is_read():
    state = load_checkpoint(OLD / "loop" / "checkpoints")
    assert set(state.part("warm_start")) == {"outputs", "moves", "slope", "sums"}
    assert state.values["rng"]["bit_generator"] == "PCG64"
    assert not state.part("memory")


# Sweeps

SMALL = {"data.limit": 60, "network.hidden": [6], "learning.rates.forward": [5.0], "probes.samples": 5}


def swept(folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sweep("digits", out=folder, progress=False, threads=1, epochs=1, **SMALL, **options)


def test_an_old_sweep_is_opened_extended_and_compared(old):
    before = (old / "sweep" / "beta=1-seed=1" / "metrics.jsonl").read_bytes()
    found, _ = noted(open_sweep, old / "sweep")
    assert [member.status for member in found.members] == ["finished"] * 4
    assert {point["seeds"] for point in found.points()} == {2}
    grown = swept(old / "sweep", grid={"beta": [0.5, 1.0]}, seeds=3)
    assert [member.folder.name for member in grown.members if member.seed == 2] == ["beta=0.5-seed=2", "beta=1-seed=2"]
    assert {point["seeds"] for point in grown.points()} == {3}
    assert (old / "sweep" / "beta=1-seed=1" / "metrics.jsonl").read_bytes() == before
    compared = compare_runs(old / "sweep" / "beta=0.5-seed=0", old / "sweep" / "beta=1-seed=2")["configuration"]
    assert compared == {"learning.beta": (0.5, 1.0), "seed": (0, 2)}


def test_an_old_sweep_over_a_former_key_keeps_the_names_of_its_runs(old):
    """As if the sweep had been over learning.presynaptic."""
    folder = old / "sweep"
    stored = json.loads((folder / "sweep.json").read_text())
    stored["fields"] = ["learning.presynaptic"]
    stored["configuration"]["learning"]["beta"] = 1.0
    values = {0.5: "deviation", 1.0: "whole"}
    for member in stored["members"]:
        beta, value = member["values"]["learning.beta"], values[member["values"]["learning.beta"]]
        name = f"presynaptic={value}-seed={member['seed']}"
        (folder / member["name"]).rename(folder / name)
        text = (folder / name / "config.toml").read_text()
        text = text.replace(f"beta = {beta}", "beta = 1.0").replace('"whole"', f'"{value}"')
        (folder / name / "config.toml").write_text(text)
        member |= {"name": name, "values": {"learning.presynaptic": value}}
    (folder / "sweep.json").write_text(json.dumps(stored))
    found, notes = noted(open_sweep, folder)
    assert found.fields == ("learning.rule",)
    assert {member.values["learning.rule"] for member in found.members} == {"hebbian", "mean_subtracted"}
    assert any("'deviation'" in note for note in notes)
    grown = swept(folder, grid={"rule": ["hebbian", "mean_subtracted"]}, seeds=3)
    assert sorted(member.folder.name for member in grown.members) == [
        *(f"presynaptic=deviation-seed={seed}" for seed in (0, 1)),
        *(f"presynaptic=whole-seed={seed}" for seed in (0, 1)),
        "rule=hebbian-seed=2",
        "rule=mean_subtracted-seed=2",
    ]
    assert [member.status for member in grown.members] == ["finished"] * 6


def test_a_grid_over_a_former_key_is_read(tmp_path):
    found = swept(tmp_path / "sweep", grid={"presynaptic": ["whole", "deviation"]}, seeds=[0])
    assert found.fields == ("learning.rule",)
    assert [member.folder.name for member in found.members] == ["rule=hebbian-seed=0", "rule=mean_subtracted-seed=0"]
