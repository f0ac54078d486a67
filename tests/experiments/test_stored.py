"""Stored summaries keep what their runs gave, refuse what does not belong to them, and are refused
where they are damaged; options are compared seed by seed.
"""

from __future__ import annotations

import json
import random
import shlex
import statistics

import pytest
from made_runs import COMMIT, made_run, slow_interval

from fsp_dynamics.cli import app
from fsp_dynamics.cli.options import read_overrides
from fsp_dynamics.errors import CheckpointError, ConfigurationError, FspError
from fsp_dynamics.experiments.config_io import load_config, presets
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.paired import Comparisons, read_comparisons, write_comparisons
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.experiments.stored import (
    Stored,
    command_of,
    configuration_of,
    digest_of,
    experiment_differences,
    extended,
    finished_runs,
    nearest_preset,
    read_stored,
    seed_record,
    write_stored,
)


def stored_of(*folders, before=None, **options):
    """(summary, left out) of runs of digits."""
    return extended(before, "digits", finished_runs(folders)[0], **options)


@pytest.fixture
def three(tmp_path):
    """Runs of seeds 0, 1, 2 with test errors 4, 5, 6."""
    return [made_run(tmp_path / f"seed={seed}", seed=seed, test=4.0 + seed) for seed in range(3)]


# What is kept


def test_a_seed_is_what_its_run_recorded(tmp_path):
    again = {"resumed": [{"commit": "abc+"}, {"commit": COMMIT}]}
    fields = {"raw_test_error": 9.5, "stuck_units": {"hidden1": [2, 0]}}
    found = seed_record(RunFolder(made_run(tmp_path / "a", seed=7, test=4.0, last=fields, more=again)))
    environment = RunFolder(tmp_path / "a").environment()
    assert found == {
        "seed": 7,
        "run": environment["identity"],
        "commits": [COMMIT, "abc+"],
        "started": environment["started"],
        "epochs": 20,
        "best_epoch": 19,
        "test_error": 4.0,
        "valid_error": 3.5,
        "train_error": 3.0,
        "last_train_error": 2.5,
        "raw": {"test_error": 9.5},
        "unconverged": 40,
        "evaluated_unconverged": 20,
        "dead_outputs": [3],
        "stuck_units": {"hidden1": [2, 0]},
        "alignment_degrees": {"W1": 60.0, "loop": 60.0},
        "minutes": 2.0,
        "threads": 2,
        "processes": 1,
        "cores": 2,
        "backend": "numba",
        "cpu": "Some CPU",
        "versions": {"python": "3.11.7"},
    }
    assert not {"raw", "stuck_units"} & set(seed_record(RunFolder(made_run(tmp_path / "b"))))


@pytest.mark.filterwarnings("ignore:epoch .* output")
def test_a_real_run_is_stored(tiny, tmp_path):
    run = train(tiny(), out=tmp_path / "run", progress=False)
    found, left = stored_of(tmp_path)
    (record,) = found.seeds
    best = run.summary["best"]
    assert (record["test_error"], record["best_epoch"]) == (best["test_error"], best["epoch"])
    assert record["last_train_error"] == run.metrics[-1]["train_error"]
    assert record["minutes"] == pytest.approx(run.summary["seconds"] / 60)
    assert record["commits"] == [RunFolder(tmp_path / "run").environment()["commit"] or "unknown"]
    assert not left
    assert not experiment_differences(found.config, run.config)
    write_stored(tmp_path / "kept.json", found)
    assert read_stored(tmp_path / "kept.json") == found


def test_it_comes_back_as_it_was_written(three, tmp_path):
    found, _ = stored_of(*three)
    path = tmp_path / "digits.json"
    assert read_stored(path) is None
    write_stored(path, found)
    assert read_stored(path) == found
    content = json.loads(path.read_text())
    assert content["command"] == "fsp sweep digits --seeds 3"
    assert "seed" not in content["configuration"]
    assert not {"notes", "probes"} & set(content["configuration"])
    assert content["configuration_sha256"] == digest_of(content["configuration"]) == found.digest
    assert found.values("test_error") == [4.0, 5.0, 6.0]
    assert list(tmp_path.glob(".*.tmp")) == []


def test_a_key_that_is_younger_than_the_file_has_its_default_value(three):
    found, _ = stored_of(*three)
    old = {key: value for key, value in found.configuration["learning"].items() if key != "momentum"}
    older = Stored("digits", {**found.configuration, "learning": old}, found.data, found.seeds[:1])
    assert older.digest != found.digest
    grown, _ = stored_of(three[2], before=older)
    assert [record["seed"] for record in grown.seeds] == [0, 2]


# What belongs to it


def test_seeds_are_added_and_those_that_are_stored_stay(three, tmp_path):
    found, left = stored_of(three[2], three[0])
    assert ([record["seed"] for record in found.seeds], left) == ([0, 2], {})
    other = made_run(tmp_path / "again", seed=0, test=9.0, more={"commit": "ffffffffffff"})
    grown, left = stored_of(three[1], other, before=found)
    assert [(record["seed"], record["test_error"]) for record in grown.seeds] == [(0, 4.0), (1, 5.0), (2, 6.0)]
    assert left == {other: f"seed 0 is stored, of commit {COMMIT}"}
    replaced, left = stored_of(other, before=grown, replacing=True)
    assert (replaced.seeds[0]["test_error"], replaced.seeds[0]["commits"], left) == (9.0, ["ffffffffffff"], {})
    assert stored_of(three[0], before=grown) == (grown, {}), "the same run once more is nothing new"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning.beta": 0.5}, "learning.beta was 1.0, now 0.5"),
        ({"epochs": 21}, "learning.epochs was 20, now 21"),
        ({"network.hidden": [100, 90]}, r"network.hidden was \[100, 100\], now \[100, 90\]"),
    ],
)
def test_a_run_of_another_configuration_is_refused_with_what_differs(three, tmp_path, changes, words):
    found, _ = stored_of(*three)
    other = made_run(tmp_path / "other", seed=5, **changes)
    with pytest.raises(ConfigurationError, match=f"other is of another experiment than what is stored: {words}"):
        stored_of(other, before=found)
    with pytest.raises(ConfigurationError, match=r"of another experiment than .*seed=0"):
        stored_of(three[0], other)
    stored_of(*three, before=found)  # as it was advised: left out


def test_notes_probes_and_threads_are_no_part_of_it(three, tmp_path):
    found, _ = stored_of(*three)
    changes = {"notes.about": "much", "probes.samples": 3, "probes.keep": 0}
    other = made_run(tmp_path / "other", seed=5, more={"threads": {"numba": 16}}, **changes)
    grown, _ = stored_of(other, before=found)
    assert (grown.digest, grown.seeds[-1]["threads"]) == (found.digest, 16)


def test_a_run_of_other_images_is_refused(three, tmp_path):
    found, _ = stored_of(*three)
    other = made_run(tmp_path / "other", seed=5, more={"data": {"images": "b" * 64}})
    with pytest.raises(ConfigurationError, match="data images was aaa"):
        stored_of(other, before=found)


def test_two_runs_of_a_seed_are_refused(three, tmp_path):
    other = made_run(tmp_path / "other", seed=1)
    with pytest.raises(ConfigurationError, match=r"seed=1 and .*other are both of seed 1; give one of them"):
        stored_of(*three, other, replacing=True)
    stored_of(three[0], three[2], other)


def test_runs_that_cannot_be_stored_are_left_out_with_the_reason(three, tmp_path):
    reasons = {
        made_run(tmp_path / "short", seed=3, done=7): "is not finished (epoch 7 of 20)",
        made_run(tmp_path / "stopped", seed=4, status="interrupted"): "is not finished (epoch 20 of 20)",
        made_run(
            tmp_path / "changed", seed=5, more={"resumed": [{"epoch": 3, "allowed": {"learning.beta": [1, 2]}}]}
        ): "was changed while it ran (learning.beta)",
        made_run(tmp_path / "old", seed=6, more={"data": {}}): "does not say on what it ran (data in environment.json)",
    }
    runs, left = finished_runs([tmp_path])
    assert [run.folder for run in runs] == three
    assert left == reasons
    with pytest.raises(ConfigurationError, match=r"short: no finished runs \(.*is not finished \(epoch 7 of 20\)"):
        finished_runs([tmp_path / "short"])
    early = made_run(tmp_path / "early", seed=8, done=9, status="finished early")
    assert [run.folder for run in finished_runs([early, early])[0]] == [early]


def test_a_folder_without_runs_is_refused(three, tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere is no folder; give the folder of a run, of a sweep"):
        finished_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="empty: no finished runs"):
        finished_runs([tmp_path / "empty"])
    assert len(finished_runs([three[0], tmp_path])[0]) == 3


# The command


@pytest.mark.parametrize("seeds", [[0], [4], [0, 1, 2], [1, 2]])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learning.beta": 0.5, "learning.frozen": ["loop", "forward[0]"], "learning.rates.loop": 0.0},
        {"network.loop_scale": None, "learning.normalised": False, "epochs": 3, "learning.output_step": 1e-5},
        {"network.hidden": 30, "learning.rates.forward": [7.5]},
    ],
)
def test_the_command_makes_the_runs_again(changes, seeds):
    """It is one of the command line, and its options lead to the same configuration."""
    _, config = load_config("digits", changes)
    words = shlex.split(command_of("digits", config, seeds))
    app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert words[:3] == ["fsp", "sweep", "digits"]
    given = words[-1]
    assert ([int(part) for part in given.split(",") if part] if "," in given else list(range(int(given)))) == seeds
    assert load_config("digits", read_overrides(words[3:-2]))[1] == config


@pytest.mark.parametrize("name", presets())
def test_the_nearest_preset_is_that_of_the_same_network(name):
    assert nearest_preset(load_config(name, {"seed": 9})[1]) == (name, {})
    of_rates = {"learning.decay": 0.5, "learning.momentum": 0.25} if name in presets("rate") else {}
    changed = {"learning.batch": 7, "epochs": 1, **of_rates}
    found, differing = nearest_preset(load_config(name, changed)[1])
    here, there = (load_config(each)[1] for each in (name, found))
    assert (here.data, here.network) == (there.data, there.network)
    assert set(differing) >= {"learning.batch", "learning.epochs", *of_rates}


# Damage


def spoilt(change):
    """A file with that change made to its content."""

    def spoil(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def resigned(change):
    """The same, with digests that fit."""

    def spoil(content):
        change(content)
        content["configuration_sha256"] = digest_of(content["configuration"])
        content.pop("sha256", None)
        content["sha256"] = digest_of(content)

    return spoilt(spoil)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "is not JSON"),
        (lambda path: path.write_text("[1, 2]"), "holds list, expected a table"),
        (spoilt(lambda c: c["seeds"][1].update(test_error=3.0)), "sha256 is not that of what it holds"),
        (spoilt(lambda c: c["configuration"]["learning"].update(beta=0.5)), "configuration_sha256 is not that"),
        (spoilt(lambda c: c.pop("command")), "command is missing"),
        (resigned(lambda c: c["seeds"][1].update(test_error=300.0)), r"seeds\[1\]: test_error is 300.0, expected"),
        (resigned(lambda c: c["seeds"][1].update(commits="abc")), r"seeds\[1\]: commits is 'abc', expected a list"),
        (resigned(lambda c: c["seeds"][2].pop("minutes")), r"seeds\[2\]: minutes is missing"),
        (resigned(lambda c: c["seeds"].reverse()), r"seeds are \[2, 1, 0\], expected each once, in order"),
        (resigned(lambda c: c["seeds"].clear()), r"seeds are \[\]"),
        (resigned(lambda c: c["configuration"]["learning"].update(betta=1)), "learning.betta is no key"),
    ],
)
def test_a_damaged_file_is_refused(three, tmp_path, spoil, words):
    path = tmp_path / "digits.json"
    write_stored(path, stored_of(*three)[0])
    spoil(path)
    with pytest.raises((CheckpointError, ConfigurationError), match=words):
        read_stored(path)


def test_no_flipped_bit_is_taken_for_another_number(three, tmp_path):
    path, rng = tmp_path / "digits.json", random.Random(0)
    found, _ = stored_of(*three)
    write_stored(path, found)
    content = path.read_bytes()
    for _ in range(300):
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        try:
            assert read_stored(path) == found
        except FspError:
            continue


# Options


def option_runs(tmp_path, name, seeds, start, **changes):
    """Finished runs with test errors start, start + 1, ..."""
    folders = [
        made_run(tmp_path / f"{name}-{seed}", seed=seed, test=start + place, **changes)
        for place, seed in enumerate(seeds)
    ]
    return finished_runs(folders)[0]


@pytest.fixture
def compared(tmp_path):
    """The option "weak" beside digits: seeds 0, 1, 2, 3 and 1, 2, 3, 7."""
    baseline = option_runs(tmp_path, "base", [0, 1, 2, 3], 4.0)
    option = option_runs(tmp_path, "weak", [7, 1, 3, 2], 3.5, **{"learning.beta": 0.5})
    return Comparisons().with_option("weak", "digits", baseline, option)[0]


def test_options_are_compared_seed_by_seed(compared):
    (weak,) = compared.found
    assert weak.keys == {"learning.beta": (1.0, 0.5)}
    found = weak.difference()
    # base: 1 -> 5, 2 -> 6, 3 -> 7; weak: 1 -> 4.5, 2 -> 6.5, 3 -> 5.5
    assert found.seeds == (1, 2, 3)
    assert (found.baseline, found.option) == (6.0, 5.5)
    assert (found.mean, found.low, found.high) == pytest.approx(slow_interval([-0.5, 0.5, -1.5]), abs=1e-6)
    assert found.high - found.low < 6, "of differences, not of two means"
    valid = weak.difference("valid_error")
    assert valid.mean == pytest.approx(found.mean)
    assert weak.difference("no_error").seeds == ()
    assert weak.difference("no_error").mean is None
    assert weak.option.command == "fsp sweep digits --learning.beta 0.5 --seeds 1,2,3,7"


def test_comparisons_come_back_and_grow(compared, tmp_path):
    path = tmp_path / "options.json"
    assert read_comparisons(path) == Comparisons()
    more, left = compared.with_option(
        "free",
        "digits",
        option_runs(tmp_path, "base more", [7], 8.0),
        option_runs(tmp_path, "free", [0, 7], 5.0, **{"learning.decay": 1e-4}),
    )
    write_comparisons(path, more)
    assert read_comparisons(path) == more
    assert left == {}
    weak, free = more.found
    assert (weak.name, free.name) == ("weak", "free")
    assert free.difference().seeds == (0, 7)
    assert weak.difference().seeds == (1, 2, 3, 7), "the same baseline has one seed more"
    assert len(json.loads(path.read_text())["variants"]) == 3


def test_an_option_keeps_its_name_for_one_comparison(compared, tmp_path):
    weak = compared.found[0]
    base = weak.baseline.runs(tmp_path)
    other = option_runs(tmp_path, "weaker", [1, 2], 2.0, **{"learning.beta": 0.25})
    with pytest.raises(ConfigurationError, match=r"stored with another option: learning.beta was 0.5, now 0.25; give"):
        compared.with_option("weak", "digits", base, other)
    assert [each.name for each in compared.with_option("weaker", "digits", base, other)[0].found] == ["weak", "weaker"]
    replaced, _ = compared.with_option("weak", "digits", base, other, replacing=True)
    assert replaced.found[0].difference().option == statistics.fmean([2.0, 3.0])
    short = option_runs(tmp_path, "short", [1, 2], 2.0, epochs=3)
    with pytest.raises(ConfigurationError, match=r"stored with another baseline: learning\.epochs was 20, now 3"):
        compared.with_option("weak", "digits", short, weak.option.runs(tmp_path))


def test_what_cannot_be_compared_is_refused(compared, tmp_path):
    base = compared.found[0].baseline.runs(tmp_path)
    with pytest.raises(ConfigurationError, match="changes no key of its baseline; give the runs of another"):
        compared.with_option("none", "digits", base, option_runs(tmp_path, "same", [9], 4.0))
    with pytest.raises(ConfigurationError, match="have no seed in common; train both with the same seeds"):
        compared.with_option("far", "digits", base, option_runs(tmp_path, "far", [8], 4.0, **{"learning.beta": 0.3}))
    elsewhere = option_runs(tmp_path, "images", [1], 4.0, **{"learning.beta": 0.4}, more={"data": {"images": "b" * 64}})
    with pytest.raises(ConfigurationError, match="with other images than its baseline; train both with the same"):
        compared.with_option("images", "digits", base, elsewhere)
    compared.with_option("near", "digits", base, option_runs(tmp_path, "near", [1], 4.0, **{"learning.beta": 0.3}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["variants"][0]["seeds"][0].update(test_error=0.5), "sha256 is not that"),
        (lambda c: c["options"][0].update(baseline="0" * 64), "sha256 is not that"),
        (lambda c: [c["options"][0].update(baseline="0" * 64), sign(c)], "no variant has the digest '0000"),
        (lambda c: [c["options"][0].pop("name"), sign(c)], "name is missing"),
        (lambda c: c.pop("options"), "options is missing"),
    ],
)
def test_damaged_comparisons_are_refused(compared, tmp_path, change, words):
    path = tmp_path / "options.json"
    write_comparisons(path, compared)
    spoilt(change)(path)
    with pytest.raises(CheckpointError, match=words):
        read_comparisons(path)


def sign(content):
    content.pop("sha256")
    content["sha256"] = digest_of(content)


def test_the_stored_part_of_a_configuration_leads_back_to_it():
    for name in presets():
        _, config = load_config(name)
        assert experiment_differences(load_config(configuration_of(config))[1], config) == {}
