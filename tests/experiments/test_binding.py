"""A checkpoint is taken only by the run that it belongs to; what differs is named, and a change
that is allowed is recorded.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from test_runner import quietly, same_bits, timeless

from fsp_dynamics.cli import main
from fsp_dynamics.errors import CheckpointError, ConfigurationError, DatasetError, RunExistsError
from fsp_dynamics.experiments.binding import Binding, new_identity
from fsp_dynamics.experiments.checkpoint import load_checkpoint, save_checkpoint
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.runner import open_run
from fsp_dynamics.experiments.trainer import TrainingState

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")
OLD = Path(__file__).parent / "old_runs"


@pytest.fixture(scope="module")
def tiny(tiny):
    """With fewer images and probes."""
    few = {"data": {"limit": 60}, "probes": {"samples": 2}}
    return lambda **changes: tiny(**{**few, **changes, "data": {**few["data"], **changes.get("data", {})}})


def edit(folder, old, new):
    path = folder / "config.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def manifest(folder, name="last"):
    return json.loads((folder / "checkpoints" / f"{name}.json").read_text())


def notes(call, *arguments, **options):
    """(result, the warnings)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call(*arguments, **options)
    return found, [str(each.message) for each in caught]


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A run of two epochs; copied() is a copy of it."""
    return quietly(tiny(), out=tmp_path_factory.mktemp("finished") / "run", epochs=2).folder


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_manifest_says_to_which_run_configuration_data_and_records_it_belongs(finished):
    found = manifest(finished)
    environment = json.loads((finished / "environment.json").read_text())
    assert {"epoch", "payload", "bytes", "sha256", "rng", "values"} <= set(found)
    assert found["format"] == 3
    assert found["run"]["identity"] == environment["identity"]
    assert re.fullmatch(r"[0-9a-f]{32}", environment["identity"])
    assert found["run"]["data"] == environment["data"]
    assert found["run"]["config"]["learning"]["beta"] == 1.0
    assert set(found["run"]["records"]) == {"metrics.jsonl", "probes.jsonl"}


def test_two_runs_of_one_experiment_have_equal_payloads_and_identities_of_their_own(tiny, finished, tmp_path):
    """So that a resumed run has the files of an unbroken one."""
    quietly(tiny(), out=tmp_path, epochs=1)
    quietly(tiny(), out=tmp_path, epochs=2, resume=True)
    one, other = manifest(finished), manifest(tmp_path)
    assert [one[key] for key in ("epoch", "payload", "bytes", "sha256", "rng")] == [
        other[key] for key in ("epoch", "payload", "bytes", "sha256", "rng")
    ]
    assert one["run"]["identity"] != other["run"]["identity"]


def test_a_payload_is_bound_to_experiment_data_epoch_and_values():
    """Not to what may change: epochs, probes, notes, the place of the data, the folder."""
    config = {
        "seed": 0,
        "learning": {"epochs": 2, "beta": 1.0},
        "probes": {"samples": 5},
        "notes": {"about": "x"},
        "data": {"path": "/a", "limit": 3},
    }
    bound = Binding("a", config, {"train": "0"})
    digest = bound.digest(1, {"rng": 3})
    free = {
        **config,
        "learning": {"epochs": 9, "beta": 1.0},
        "probes": {},
        "notes": {},
        "data": {"path": "/b", "limit": 3},
    }
    assert Binding("b", free, {"train": "0"}, {"metrics.jsonl": [0, "0"]}).digest(1, {"rng": 3}) == digest
    others = [
        Binding("a", {**config, "seed": 1}, {"train": "0"}).digest(1, {"rng": 3}),
        Binding("a", {**config, "learning": {"beta": 0.5}}, {"train": "0"}).digest(1, {"rng": 3}),
        Binding("a", config, {"train": "1"}).digest(1, {"rng": 3}),
        bound.digest(2, {"rng": 3}),
        bound.digest(1, {"rng": 4}),
    ]
    assert digest not in others
    assert len({*others}) == len(others)


def test_identities_differ():
    assert len({new_identity() for _ in range(100)}) == 100


def test_a_payload_of_another_state_is_refused_though_its_digest_is_right(tmp_path):
    """The manifest was changed to name it."""
    for folder, epoch in ((tmp_path / "a", 1), (tmp_path / "b", 2)):
        save_checkpoint_in(folder, epoch)
    other = json.loads((tmp_path / "b" / "last.json").read_text())
    shutil.copy(tmp_path / "b" / other["payload"], tmp_path / "a" / other["payload"].replace("00002", "00001"))
    resigned(
        tmp_path / "a" / "last.json",
        payload=other["payload"].replace("00002", "00001"),
        bytes=other["bytes"],
        sha256=other["sha256"],
    )
    with pytest.raises(CheckpointError, match="belongs to another run or epoch than its manifest"):
        load_checkpoint(tmp_path / "a")


def save_checkpoint_in(folder, epoch):
    folder.mkdir()
    save_checkpoint(folder, TrainingState(epoch, {"parameters/input": np.full((2, 2), epoch, np.float32)}))


def resigned(path, **changes):
    from fsp_dynamics.experiments.checkpoint import _digest, _text

    found = {**json.loads(path.read_text()), **changes}
    del found["manifest_sha256"]
    path.write_bytes(_text({**found, "manifest_sha256": _digest(found)}))


# What differs


def test_an_edited_configuration_is_refused_by_every_command_and_the_advice_helps(copied, capsys):
    edit(copied, "beta = 1.0", "beta = 0.5")
    for arguments in (["evaluate"], ["stability", "--samples", "2"], ["gradients"]):
        assert main([arguments[0], str(copied), *arguments[1:]]) == 5
        assert "learning.beta was 1.0, now 0.5" in capsys.readouterr().err
    assert main(["train", str(copied), "--resume", "--no-progress"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    command = line.partition("or allow the change: ")[2]
    assert command == f"fsp train {copied} --resume --allow learning.beta"
    assert main([*shlex.split(command)[1:], "--epochs", "3", "--no-progress"]) == 0
    shown = capsys.readouterr().err
    assert "note: changed after epoch 2, as allowed: learning.beta was 1.0, now 0.5" in shown
    assert main(["evaluate", str(copied)]) == 0
    assert main(["evaluate", str(copied), "--checkpoint", "last"]) == 0
    assert "note" not in capsys.readouterr().err


def test_an_allowed_change_is_recorded_and_older_checkpoints_stay_good(tiny, tmp_path):
    quietly(tiny(probes={"keep": 1}), out=tmp_path, epochs=1)
    with pytest.warns(UserWarning, match=r"as allowed: learning\.beta was 1\.0, now 0\.5"):
        quietly(tmp_path, resume=True, epochs=2, allow=["learning.beta"], **{"learning.beta": 0.5})
    with pytest.warns(UserWarning, match=r"as allowed: learning\.beta was 0\.5, now 0\.25"):
        quietly(tmp_path, resume=True, epochs=3, allow="learning.beta", **{"learning.beta": 0.25})
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert [record["allowed"] for record in environment["resumed"]] == [
        {"learning.beta": [1.0, 0.5]},
        {"learning.beta": [0.5, 0.25]},
    ]
    run, told = notes(open_run, tmp_path)
    assert run.config.learning.beta == 0.25
    for epoch in (0, 1, 2, 3):
        run.network(epoch)
    run.network("best")
    assert told == []
    edit(tmp_path, "beta = 0.25", "beta = 1.0")
    with pytest.raises(CheckpointError, match=r"learning\.beta was 0\.25, now 1\.0"):
        open_run(tmp_path).network("last")


def test_a_change_that_nobody_allowed_is_no_change_that_somebody_did(copied):
    """What was allowed is recorded for one key, from one value to another, from one epoch on."""
    environment = json.loads((copied / "environment.json").read_text())
    environment["resumed"] = [{"epoch": 1, "allowed": {"learning.beta": [1.0, 0.5], "seed": [0, 1]}}]
    (copied / "environment.json").write_text(json.dumps(environment))
    edit(copied, "beta = 1.0", "beta = 0.5")
    with pytest.raises(CheckpointError, match=r"learning\.beta was 1\.0, now 0\.5"):
        open_run(copied).network("last")


@pytest.mark.parametrize(("before", "now"), [pytest.param(0.0, 0.5, marks=pytest.mark.rare), (0.5, 0.0)])
def test_momentum_may_be_switched_on_and_off(tiny, tmp_path, before, now):
    quietly(tiny(learning={"momentum": before}), out=tmp_path, epochs=1)
    with pytest.warns(UserWarning, match="as allowed"):
        run = quietly(tmp_path, resume=True, epochs=2, allow=["learning.momentum"], **{"learning.momentum": now})
    assert bool(load_checkpoint(tmp_path / "checkpoints").part("velocity")) == (now > 0)
    assert len(run.metrics) == 2


@pytest.mark.rare
def test_other_numbers_of_images_may_be_allowed(tiny, tmp_path):
    quietly(tiny(), out=tmp_path, epochs=1)
    with pytest.warns(UserWarning, match=r"data\.limit was 60, now 50"):
        run = quietly(tmp_path, resume=True, epochs=2, allow=["data.limit"], **{"data.limit": 50})
    assert run.config.data.limit == 50
    assert len(load_checkpoint(tmp_path / "checkpoints").part("warm_start")["outputs"]) == 50


def test_what_is_allowed_must_be_a_key(copied):
    with pytest.raises(ConfigurationError, match=r"allow = 'learning\.betta' .* did you mean 'learning\.beta'"):
        quietly(copied, resume=True, allow=["learning.betta"])


def test_without_allowing_it_an_override_is_refused_with_what_would_allow_it(copied, capsys):
    assert main(["train", str(copied), "--resume", "--learning.beta", "0.5", "--no-progress"]) == 2
    assert "allow the change (--allow learning.beta)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epochs = 2", "epochs = 3", "learning.epochs was 2, now 3"),
        ("samples = 2", "samples = 1", "probes.samples was 2, now 1"),
        ("[data]", "# mine\n[data]", "its values are the same"),
    ],
)
def test_edits_that_change_no_result_are_told(copied, old, new, told):
    edit(copied, old, new)
    _, found = notes(open_run(copied).network)
    assert len(found) == 1
    assert f"config.toml was edited since the run wrote it: {told}" in found[0]
    _, found = notes(quietly, copied, resume=True, epochs=3)
    assert any(told in each for each in found)
    assert notes(open_run(copied).network)[1] == []


def test_other_images_are_refused_where_a_network_is_evaluated(tiny, tmp_path):
    for name, value in (("a", 0.25), ("b", 0.75)):
        rng = np.random.default_rng(0)
        arrays = {"x_train": rng.random((60, 16)), "y_train": np.arange(60) % 3}
        arrays |= {"x_test": np.full((6, 16), value), "y_test": np.arange(6) % 3}
        np.savez(tmp_path / f"{name}.npz", **arrays)
    table = tiny(data={"name": None, "limit": None, "path": str(tmp_path / "a.npz"), "validation": 12})
    table["data"] = {key: value for key, value in table["data"].items() if value is not None}
    run = quietly(table, out=tmp_path / "run", epochs=1)
    run.evaluate()
    shutil.copy(tmp_path / "b.npz", tmp_path / "a.npz")
    with pytest.raises(DatasetError, match="these are not the images the run began with"):
        run.evaluate()


# What is lost, and what was there before


def test_a_run_without_checkpoints_begins_again_only_where_nothing_was_learned(copied, tiny, tmp_path, unbroken):
    """With two epochs recorded it is refused, and nothing is removed."""
    shutil.rmtree(copied / "checkpoints")
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(CheckpointError, match=r"has lost its last checkpoint: .* 2 epochs .* begin anew: train\("):
        quietly(copied, resume=True)
    assert before == {path: path.read_bytes() for path in copied.rglob("*") if path.is_file() and path.name != ".lock"}
    run = quietly(tiny(), out=tmp_path / "stopped", epochs=1)
    shutil.rmtree(run.folder / "checkpoints")
    resumed = quietly(tiny(), out=tmp_path / "stopped", resume=True)
    assert same_bits(resumed, unbroken(tiny()))
    assert timeless(resumed.metrics) == timeless(unbroken(tiny()).metrics)
    assert [record["epoch"] for record in resumed.probes] == [0, 1, 2, 3]


@pytest.mark.parametrize("left", ["best.json", pytest.param("payload", marks=pytest.mark.rare)])
def test_what_is_left_of_its_checkpoints_is_named(tiny, tmp_path, left):
    run = quietly(tiny(), out=tmp_path, epochs=1)
    kept = run.folder / "checkpoints" / (manifest(tmp_path)["payload"] if left == "payload" else left)
    for path in (run.folder / "checkpoints").iterdir():
        if path != kept:
            path.unlink()
    with pytest.raises(CheckpointError, match=rf"has lost its last checkpoint: .* there are {re.escape(kept.name)}"):
        quietly(tmp_path, resume=True)
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == [kept.name]


def test_the_command_that_begins_anew_does(copied, tmp_path, monkeypatch, capsys):
    (copied / "checkpoints" / "last.json").unlink()
    assert main(["train", str(copied), "--resume", "--no-progress"]) == 5
    command = capsys.readouterr().err.strip().partition("begin anew: ")[2]
    assert command == f"fsp train {copied} --out NEW"
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(command)[1:], "--epochs", "1", "--no-progress"]) == 0
    assert len(open_run("NEW").metrics) == 1


def test_what_is_left_of_a_run_is_not_begun_over(copied, tiny):
    (copied / "config.toml").unlink()
    for resume in (False, True):
        with pytest.raises(RunExistsError, match="holds what is left of a run"):
            quietly(tiny(), out=copied, resume=resume)
    assert len(RunFolder(copied).metrics()) == 2


@pytest.mark.filterwarnings("ignore:former name")
def test_a_run_of_before_goes_on_with_a_note_and_is_bound_from_then_on(tmp_path):
    folder = Path(shutil.copytree(OLD / "interrupted", tmp_path / "run"))
    _, told = notes(open_run(folder).network)
    assert any("has format 1, which names no run" in text for text in told)
    _, told = notes(quietly, folder, resume=True, epochs=2, threads=1)
    assert any("last.json has format 1, which names no run" in text for text in told)
    environment = json.loads((folder / "environment.json").read_text())
    assert manifest(folder)["run"]["identity"] == environment["identity"]
    assert environment["unbound_until"] == 1
    assert notes(open_run(folder).network, "last")[1] == []
    shutil.copy(OLD / "loop" / "checkpoints" / "last.json", folder / "checkpoints" / "last.json")
    with pytest.raises(CheckpointError, match=r"has format 1, expected 3, in which .* was begun"):
        open_run(folder).network("last")


def test_a_manifest_of_now_without_its_digests_is_refused(copied):
    found = manifest(copied)
    resigned(copied / "checkpoints" / "last.json", run={**found["run"], "records": {}})
    with pytest.raises(CheckpointError, match=r"run\.records is not of"):
        open_run(copied).network("last")
    found = {key: value for key, value in found.items() if key not in ("run", "manifest_sha256")}
    path = copied / "checkpoints" / "last.json"
    path.write_text(json.dumps(found))
    resigned_bare(path)
    with pytest.raises(CheckpointError, match="run is missing"):
        open_run(copied).network("last")


def resigned_bare(path):
    from fsp_dynamics.experiments.checkpoint import _digest, _text

    found = json.loads(path.read_text())
    path.write_bytes(_text({**found, "manifest_sha256": _digest(found)}))


def test_checkpoints_of_another_time_are_told_and_go_on_to_the_same_bits(tiny, tmp_path, unbroken):
    quietly(tiny(), out=tmp_path, epochs=1)
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "kept aside")
    whole = quietly(tiny(), out=tmp_path, resume=True)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "kept aside").rename(tmp_path / "checkpoints")
    _, told = notes(open_run(tmp_path).network, "last")
    assert len(told) == 1
    assert "last.json is of epoch 1, but the last of" in told[0]
    assert "is epoch 3: it is a copy of another time" in told[0]
    again, told = notes(quietly, tiny(), out=tmp_path, resume=True)
    assert any("copy of another time" in text for text in told)
    assert timeless(again.metrics) == timeless(whole.metrics)
    assert same_bits(again, unbroken(tiny()), "last")
    assert same_bits(again, unbroken(tiny()), "best")


def test_a_best_network_that_is_lost_is_told(copied):
    (copied / "checkpoints" / "best.json").unlink()
    _, told = notes(quietly, copied, resume=True, epochs=2)
    assert any("best.json is lost" in text for text in told)


def test_a_summary_of_other_metrics_is_refused(copied):
    found = json.loads((copied / "summary.json").read_text())
    found["best"]["test_error"] = 1.0
    (copied / "summary.json").write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match=r"summary\.json: best is not that epoch of metrics\.jsonl"):
        open_run(copied)
    (copied / "summary.json").unlink()
    assert open_run(copied).summary == {}


def test_a_tolerance_below_rounding_is_told(tiny, tmp_path):
    with pytest.warns(UserWarning, match=r"solver\.absolute = 1e-30 is below the rounding of float32"):
        run = quietly(tiny(solver={"absolute": 1e-30}, probes={"samples": 0}), out=tmp_path, epochs=1)
    assert run.metrics[0]["unconverged"] == 0
