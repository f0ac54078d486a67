"""A run goes on to the same bits wherever it was stopped, refuses what it cannot do, and says what
went wrong.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import warnings

import numpy as np
import pytest

from fsp_dynamics.errors import CheckpointError, ConfigurationError, NoConvergenceError, NotFiniteError, RunExistsError
from fsp_dynamics.experiments import runner
from fsp_dynamics.experiments.config import NotesConfig
from fsp_dynamics.experiments.config_io import load_config, to_toml
from fsp_dynamics.experiments.rate import trainer as rate_trainer
from fsp_dynamics.experiments.rate.building import build_network
from fsp_dynamics.experiments.runner import open_run, train

# so little training may leave an output silent
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")
CLOCKS = {"seconds", "images_per_second"}
VARIANTS = {
    "paper": {},
    "momentum": {"learning": {"momentum": 0.5, "decay": 1e-3, "rate_factor": 0.8}},
    "random-sign": {
        "learning": {"phases": "random-sign", "beta": 0.1, "rates": {"input": 2.0, "forward": [1.0], "loop": 0.1}}
    },
    "reciprocal": {
        "network": {"kind": "reciprocal", "hidden": [12], "loop_scale": None},
        "learning": {"rates": {"input": 9.0, "forward": [3.0], "loop": 0.0}},
    },
    "scheduled": {
        "learning": {"schedule": {"kind": "cosine", "epochs": 2, "warm_up": 1}, "rates": {"biases": [9.0, 1.0]}}
    },
}


def timeless(metrics):
    return [{key: value for key, value in record.items() if key not in CLOCKS} for record in metrics]


def same_bits(one, other, which="last"):
    here, there = one.network(which).parameters(), other.network(which).parameters()
    return here.keys() == there.keys() and all(np.array_equal(here[name], there[name]) for name in here)


def quietly(*arguments, **options):
    return train(*arguments, progress=False, **options)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop", [1, 2])
def test_resuming_after_any_epoch_gives_the_bits_of_an_unbroken_run(tiny, tmp_path, unbroken, variant, stop):
    table = tiny(**VARIANTS[variant])
    quietly(table, out=tmp_path, epochs=stop)
    resumed = quietly(table, out=tmp_path, resume=True)
    whole = unbroken(table)
    assert same_bits(resumed, whole, "last")
    assert same_bits(resumed, whole, "best")
    assert timeless(resumed.metrics) == timeless(whole.metrics)
    assert resumed.summary["best"]["epoch"] == whole.summary["best"]["epoch"]
    assert resumed.config.learning.epochs == 3


def test_killed_between_metrics_and_checkpoint(tiny, tmp_path, unbroken, monkeypatch, killed):
    """The metrics may be an epoch ahead of the checkpoint; resuming repeats that epoch once."""
    killed(2)
    with pytest.raises(KeyboardInterrupt):
        quietly(tiny(), out=tmp_path)
    monkeypatch.undo()
    assert [record["epoch"] for record in open_run(tmp_path).metrics] == [1, 2]
    resumed = quietly(tiny(), out=tmp_path, resume=True)
    assert timeless(resumed.metrics) == timeless(unbroken(tiny()).metrics)
    assert same_bits(resumed, unbroken(tiny()))


def test_killed_before_the_first_checkpoint(tiny, tmp_path, unbroken):
    quietly(tiny(), out=tmp_path, epochs=1)
    shutil.rmtree(tmp_path / "checkpoints")
    assert same_bits(quietly(tiny(), out=tmp_path, resume=True), unbroken(tiny()))


def test_resuming_what_was_never_begun_begins_it(tiny, tmp_path, unbroken):
    assert same_bits(quietly(tiny(), out=tmp_path / "new", resume=True), unbroken(tiny()))


def test_resuming_a_finished_run_changes_nothing(tiny, tmp_path):
    first = quietly(tiny(), out=tmp_path, epochs=1)
    again = quietly(tmp_path, resume=True)
    assert again.folder == tmp_path
    assert again.metrics == first.metrics
    assert same_bits(first, again)


def test_a_run_folder_is_a_source_of_its_configuration(tiny, tmp_path):
    quietly(tiny(), out=tmp_path / "a", epochs=1)
    grown = quietly(tmp_path / "a", resume=True, epochs=2)
    assert (grown.folder, len(grown.metrics)) == (tmp_path / "a", 2)
    copied = quietly(tmp_path / "a", out=tmp_path / "b", epochs=1)
    assert timeless(copied.metrics) == timeless(grown.metrics[:1])


def test_without_a_name_it_goes_to_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        str(quietly("digits", epochs=1, seed=4, **{"data.limit": 120, "data.validation": 200}).folder)
        == "runs/digits-4"
    )


def test_an_occupied_folder_is_refused_and_left_alone(tiny, tmp_path):
    quietly(tiny(), out=tmp_path, epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunExistsError, match="already holds a run"):
        quietly(tiny(), out=tmp_path)
    with pytest.raises(
        ConfigurationError,
        match=r"learning\.batch was 20, now 10, network\.rho|network\.rho was .*learning\.batch was 20, now 10",
    ):
        quietly(tiny(learning={"batch": 10}, network={"rho": "logistic"}), out=tmp_path, resume=True)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_fewer_epochs_than_finished_are_refused(tiny, tmp_path):
    quietly(tiny(), out=tmp_path, epochs=2)
    with pytest.raises(ConfigurationError, match=r"learning\.epochs = 1, but .* has finished 2"):
        quietly(tiny(), out=tmp_path, resume=True, epochs=1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"learning.batch": 0}, ConfigurationError),
        ({"data.limit": 10**6}, ConfigurationError),
        ({"solver.method": "nonsense"}, ConfigurationError),
        ({"threads": 0}, ConfigurationError),
    ],
)
def test_nothing_is_written_for_what_cannot_run(tiny, tmp_path, options, error):
    with pytest.raises(error):
        quietly(tiny(), out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_the_folder_holds_what_is_promised(tiny, tmp_path):
    run = quietly(tiny(), out=tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "summary.json",
        "checkpoints/last.json",
        "checkpoints/best.json",
    } <= found
    assert (tmp_path / "figures" / "learning.png").read_bytes().startswith(b"\x89PNG")
    assert not [name for name in found if name.endswith(".tmp")]
    promised = {
        "epoch",
        "train_error",
        "valid_error",
        "test_error",
        "alignment_degrees",
        "residual",
        "unconverged",
        "saturation",
        "stuck_units",
        "dead_outputs",
    }
    assert promised | CLOCKS | {"passes_free", "passes_nudged", "residual_max"} <= set(run.metrics[-1])
    assert set(run.metrics[-1]["alignment_degrees"]) == {"W1", "loop"}
    assert run.summary["best"]["valid_error"] == min(record["valid_error"] for record in run.metrics)
    assert run.summary["last"] == run.metrics[-1]


def test_a_run_shows_its_result_in_one_line(tiny, tmp_path):
    run = quietly(tiny(), out=tmp_path / "run", epochs=1)
    best = run.summary["best"]
    errors = ", ".join(f"{part} {best[part + '_error']:.2f} %" for part in ("train", "valid", "test"))
    assert repr(run) == f"<Run {tmp_path / 'run'}: finished, 1 epoch; best epoch 1, errors: {errors}>"
    assert repr(dataclasses.replace(run, metrics=[], summary={})) == f"<Run {tmp_path / 'run'}: unfinished, 0 epochs>"
    table = run._repr_html_()
    assert f"<caption>Run {tmp_path / 'run'}</caption>" in table
    assert f"<th>test error</th><td>{best['test_error']:.2f} %</td>" in table
    assert "<td>unfinished</td>" in dataclasses.replace(run, metrics=[], summary={})._repr_html_()


def test_the_best_network_gives_the_error_that_chose_it(tiny, tmp_path):
    run = quietly(tiny(), out=tmp_path)
    assert run.evaluate("valid").error == run.summary["best"]["valid_error"]
    assert run.evaluate("test").error == run.summary["best"]["test_error"]
    assert run.evaluate("test", "last").error == run.summary["last"]["test_error"]
    with pytest.raises(ConfigurationError, match="did you mean 'test'"):
        run.evaluate("tests")


def test_the_best_network_is_that_of_its_epoch_and_not_the_last(tiny, tmp_path, monkeypatch):
    """By validation errors that someone else decides."""
    real, errors = rate_trainer.RateTrainer.evaluate, {1: 30.0, 2: 10.0, 3: 20.0}

    def evaluate(self, part):
        found = real(self, part)
        return dataclasses.replace(found, error=errors[self.finished]) if part == "valid" else found

    monkeypatch.setattr(rate_trainer.RateTrainer, "evaluate", evaluate)
    run = quietly(tiny(probes={"keep": 1}), out=tmp_path)
    assert (run.summary["best"]["epoch"], run.summary["last"]["epoch"]) == (2, 3)
    for which, epoch in (("best", 2), ("last", 3)):
        for name, w in run.network(epoch).parameters().items():
            assert w.tobytes() == run.network(which).parameters()[name].tobytes()
    assert not np.array_equal(run.network("best").input, run.network("last").input)


def test_it_learns(tiny, tmp_path):
    run = quietly(tiny(data={"limit": 600}), out=tmp_path, epochs=4)
    assert run.summary["best"]["test_error"] < 40 < run.metrics[0]["train_error"]


def test_without_validation_images_the_last_network_is_the_best(tiny, tmp_path):
    run = quietly(tiny(data={"validation": 0}), out=tmp_path, epochs=2)
    assert run.metrics[-1]["valid_error"] is None
    assert run.summary["best"]["epoch"] == 2
    assert same_bits(run, run, "best")


def test_a_reciprocal_network_trains_without_angles(tiny, tmp_path):
    table = tiny(network={"kind": "reciprocal"}, learning={"rates": {"loop": 0.0}})
    del table["network"]["loop_scale"]
    run = quietly(table, out=tmp_path, epochs=1)
    assert run.metrics[0]["alignment_degrees"] == {}
    assert run.network().tied


def test_a_frozen_matrix_stays(tiny, tmp_path):
    run = quietly(tiny(learning={"frozen": ["loop"]}), out=tmp_path, epochs=1)
    moved = quietly(tiny(), out=tmp_path / "b", epochs=1)
    start, _ = build_network(run.config, 64, 10)
    assert np.array_equal(run.network().loop, start.loop)
    assert not np.array_equal(moved.network().loop, start.loop)


def test_divergence_stops_and_saves_nothing_that_is_not_finite(tiny, tmp_path, monkeypatch):
    def diverges(learner, split, recipe, on_batch=None, **more):
        if learner.epoch == 1:
            learner.network.input[0, 0] = np.nan
            raise NotFiniteError("input is not finite after epoch 2; lower its learning rate")
        return real(learner, split, recipe, on_batch)

    real = rate_trainer.train_epoch
    monkeypatch.setattr(rate_trainer, "train_epoch", diverges)
    with pytest.raises(NotFiniteError, match="after epoch 2"):
        quietly(tiny(), out=tmp_path)
    run = open_run(tmp_path)
    assert (run.summary["status"], len(run.metrics)) == ("failed", 1)
    assert all(np.isfinite(w).all() for w in run.network("last").parameters().values())


def test_rates_that_explode_are_stopped(tiny, tmp_path):
    table = tiny(
        learning={"normalised": False, "output_step": None, "rates": {"input": 1e60, "forward": [1e60], "loop": 1e60}}
    )
    del table["learning"]["output_step"]
    with pytest.raises((NotFiniteError, NoConvergenceError)), np.errstate(all="ignore"):
        quietly(table, out=tmp_path)
    assert all(np.isfinite(w).all() for w in open_run(tmp_path).network("last").parameters().values())


def reported(monkeypatch, **changes):
    """Let `train_epoch` report `changes` (a callable is given the split)."""
    from dataclasses import replace

    real = rate_trainer.train_epoch

    def altered(learner, split, recipe, on_batch=None, **more):
        report = real(learner, split, recipe, on_batch)
        return replace(report, **{key: value(split) if callable(value) else value for key, value in changes.items()})

    monkeypatch.setattr(rate_trainer, "train_epoch", altered)


def test_an_epoch_in_which_nothing_rested_ends_the_run(tiny, tmp_path, monkeypatch):
    reported(monkeypatch, unconverged=lambda split: len(split.labels))
    with pytest.raises(NoConvergenceError, match=r"no sample of epoch 1 converged.*network\.loop_scale"):
        quietly(tiny(), out=tmp_path)
    assert open_run(tmp_path).metrics == []


@pytest.mark.parametrize("probes", [0, 20])
def test_a_loop_that_never_rests_ends_the_run_whether_it_is_looked_at_or_not(tmp_path, probes):
    strong = {
        "data.limit": 100,
        "network.hidden": [20],
        "network.loop_scale": 1000.0,
        "learning.rates.forward": [7.0],
        "probes.samples": probes,
    }
    with pytest.raises(NoConvergenceError):
        quietly("digits", out=tmp_path, epochs=1, seed=1, **strong)
    assert open_run(tmp_path).summary["status"] == "failed"


@pytest.mark.parametrize(("unconverged", "warned"), [(60, True), (59, False)])
def test_half_of_the_samples_unconverged_is_warned_about(tiny, tmp_path, monkeypatch, unconverged, warned):
    reported(monkeypatch, unconverged=unconverged)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quietly(tiny(), out=tmp_path, epochs=1)
    assert any(f"{unconverged} of 120 samples did not converge" in str(each.message) for each in caught) == warned


def test_a_dead_output_is_warned_about_once_with_the_rate_to_lower(tiny, tmp_path, monkeypatch):
    reported(monkeypatch, dead_outputs=(3, 7))
    with pytest.warns(
        UserWarning, match=r"output 3, 7 had rate 0 .* lower learning\.rates\.forward\[0\] \(now 7\)"
    ) as caught:
        quietly(tiny(), out=tmp_path, epochs=2)
    assert len([each for each in caught if "output 3, 7" in str(each.message)]) == 1


def test_a_negative_beta_alone_is_warned_about(tiny, tmp_path):
    with pytest.warns(UserWarning, match=r"learning\.beta = -0\.3: a negative beta"):
        quietly(tiny(learning={"beta": -0.3}), out=tmp_path, epochs=1)


def test_another_environment_is_noted_on_resuming(tiny, tmp_path):
    quietly(tiny(), out=tmp_path, epochs=1)
    found = json.loads((tmp_path / "environment.json").read_text())
    found["versions"]["numpy"] = "0.1"
    (tmp_path / "environment.json").write_text(json.dumps(found))
    with pytest.warns(UserWarning, match=r"numpy was 0\.1, now "):
        quietly(tiny(), out=tmp_path, resume=True, epochs=2)
    assert json.loads((tmp_path / "environment.json").read_text())["resumed"][0]["epoch"] == 1


def test_a_callable_receives_every_epoch(tiny, tmp_path):
    received = []
    run = train(tiny(), out=tmp_path, progress=received.append)
    assert received == run.metrics


def test_bars_and_lines_go_to_stderr(tiny, tmp_path, capsys):
    train(tiny(), out=tmp_path, progress=True, epochs=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split()[1] for line in shown.err.splitlines() if line.startswith("epoch")] == ["1", "2"]


def test_a_full_disk_ends_the_run_with_what_was_saved(tiny, tmp_path, monkeypatch, unbroken):
    real = runner.RunFolder.append_metrics

    def full(self, record):
        if record["epoch"] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, record)

    monkeypatch.setattr(runner.RunFolder, "append_metrics", full)
    with pytest.raises(OSError, match="No space left"):
        quietly(tiny(), out=tmp_path)
    monkeypatch.undo()
    assert same_bits(quietly(tiny(), out=tmp_path, resume=True), unbroken(tiny()))


def test_a_damaged_checkpoint_is_not_resumed_and_not_overwritten(tiny, tmp_path):
    quietly(tiny(), out=tmp_path, epochs=1)
    path = next((tmp_path / "checkpoints").glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="it is damaged"):
        quietly(tiny(), out=tmp_path, resume=True)
    assert path.read_bytes() == content


def test_a_checkpoint_of_another_network_is_refused(tiny, tmp_path):
    quietly(tiny(), out=tmp_path / "a", epochs=1)
    wide = quietly(tiny(network={"hidden": [13]}), out=tmp_path / "b", epochs=1)
    shutil.rmtree(tmp_path / "b" / "checkpoints")
    shutil.copytree(tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints")
    with pytest.raises(
        CheckpointError,
        match=r"best\.json belongs to another run \(network\.hidden was \[12\], now \[13\]\): its identity is ",
    ):
        wide.network()
    with pytest.raises(CheckpointError, match=r"last\.json belongs to another run"):
        quietly(tiny(network={"hidden": [13]}), out=tmp_path / "b", resume=True)


def test_a_frozen_loop_has_no_mirror_phases_but_runs_of_before_go_on(tiny, tmp_path, monkeypatch):
    """They would move it. Older runs that have both are read, judged and finished."""
    table = tiny(learning={"mirror": 0.2, "frozen": ["loop"]})
    with pytest.raises(ConfigurationError, match=r"learning.mirror = 0.2 moves the loop, which learning.frozen names"):
        train(table, out=tmp_path / "new", epochs=1, progress=False)
    assert not (tmp_path / "new").exists()
    with monkeypatch.context() as before:
        before.setattr(rate_trainer.RateTrainer, "check", classmethod(lambda kind, config, resources: None))
        train(table, out=tmp_path / "old", epochs=1, progress=False)
    assert open_run(tmp_path / "old").evaluate("valid").unconverged == 0
    assert train(tmp_path / "old", resume=True, epochs=2, progress=False).metrics[-1]["epoch"] == 2


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({}, "64-100-100-10 with a feedforward loop, 8 x 8 digits"),
        ({"network.hidden": [6, 6]}, ""),
        ({"network.hidden": [6, 6], "notes.about": "narrow"}, "narrow"),
    ],
)
def test_a_run_does_not_say_what_was_measured_of_its_preset(tmp_path, changes, about):
    table = load_config("digits")[1].table(exclude_none=True)
    table["data"]["limit"], table["notes"]["measured"] = 40, "test 0.00 %"
    (tmp_path / "preset.toml").write_text(to_toml(load_config(table)[1]))
    run = quietly(tmp_path / "preset.toml", out=tmp_path / "run", epochs=1, threads=1, **changes)
    assert run.config.notes == NotesConfig(about=about)
    assert "0.00 %" not in (tmp_path / "run" / "config.toml").read_text()
    manifest = json.loads((tmp_path / "run" / "checkpoints" / "last.json").read_text())
    assert "0.00 %" not in json.dumps(manifest)
    assert f"test {run.summary['best']['test_error']:.2f} %" in repr(run)
