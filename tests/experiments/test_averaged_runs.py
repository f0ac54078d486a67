"""Runs whose weights are averaged: what they give is the average, what goes on learning is beside
it, and both come back to the bit.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import signal
import warnings

import numpy as np
import pytest
from test_runner import quietly, same_bits, timeless
from test_within_epochs import RECIPROCAL, Watch, at, dies, often  # noqa: F401 (a fixture, of every test here)

from benchmarks.kills import differences
from fsp_dynamics.cli import main
from fsp_dynamics.errors import CheckpointError, ConfigurationError
from fsp_dynamics.experiments import execution
from fsp_dynamics.experiments.backend import NUMBA
from fsp_dynamics.experiments.checkpoint import load_checkpoint
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.rate.building import build_recipe
from fsp_dynamics.experiments.rate.trainer import RateTrainer
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.experiments.stopping import Interrupted
from fsp_dynamics.experiments.trainer import Resources
from fsp_dynamics.learning.averaging import Averaging
from fsp_dynamics.training.evaluation import evaluate
from fsp_dynamics.training.ranks import ALONE

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")
TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
EQUAL = {"learning": {"average": {"kind": "equal", "every": 2}}}
LATE = {"learning": {"average": {"kind": "exponential", "factor": 0.6, "every": 4, "start": 1}, "momentum": 0.5}}
ENGINES = {
    "loop": (LATE, {}),
    "reciprocal": ({**RECIPROCAL, "learning": {**RECIPROCAL["learning"], **EQUAL["learning"]}}, {}),
    "plain": ({**LATE, "solver": {"name": "fixed_point", "method": "anderson"}}, {}),
    "torch": (EQUAL, {"backend": "torch", "device": "cpu"}),
}
EACH = pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=TORCH if name == "torch" else ()) for name in ENGINES]
)


def run_of(tiny, engine, out, reporter=False, **options):
    changes, means = ENGINES[engine]
    return train(tiny(**changes), out=out, progress=reporter, **means, **options)


def trainer_for(run):
    data = execution.load_data(run.config.data, None, Objects())
    return RateTrainer.build(run.config, data, Resources(NUMBA, ALONE, restored=True))


def saved(run, which="last"):
    return load_checkpoint(run.folder / "checkpoints", which)


@EACH
def test_left_between_epochs_and_within_them_it_ends_as_a_whole_run(tiny, tmp_path, engine) -> None:
    """Checkpoints, metrics and probes, by signals and by a death, before the average begins and
    after; batches of 20, samples after every second or fourth.
    """
    whole = run_of(tiny, engine, tmp_path / "whole")
    run_of(tiny, engine, tmp_path / "run", epochs=2)
    assert differences(run_of(tiny, engine, tmp_path / "run", resume=True).folder, whole.folder) == []
    stop = lambda: signal.raise_signal(signal.SIGTERM)  # noqa: E731
    for place in ((1, 20), (2, 60), (3, 80)):
        with pytest.raises(Interrupted):
            run_of(tiny, engine, tmp_path / "left", at(*place, stop), resume=True)
    run_of(tiny, engine, tmp_path / "left", resume=True)
    assert differences(tmp_path / "left", whole.folder) == []
    with pytest.raises(RuntimeError):
        run_of(tiny, engine, tmp_path / "dead", at(3, 60, dies), save_minutes=1e-9)
    run_of(tiny, engine, tmp_path / "dead", Watch(lambda *place: None), resume=True)
    assert differences(tmp_path / "dead", whole.folder) == []


@pytest.fixture(scope="module")
def pair(tiny, tmp_path_factory):
    """(a run without an average, the same with one of the kind "equal" that keeps networks)."""
    folder = tmp_path_factory.mktemp("pair")
    probes = {"probes": {"keep": 1, "samples": 20}}
    return quietly(tiny(**probes), out=folder / "raw"), quietly(tiny(**probes, **EQUAL), out=folder / "averaged")


def test_what_learns_is_what_learns_without_an_average(pair) -> None:
    raw, averaged = pair
    last, parts = saved(averaged), {"parameters", "raw", "warm_start"}
    assert {name.partition("/")[0] for name in last.arrays} == parts
    for name, w in saved(raw).parameters.items():
        assert last.part("raw")[name].tobytes() == w.tobytes()
        assert last.parameters[name].tobytes() != w.tobytes()
    assert last.values["averaged"] == 9
    assert set(saved(raw).values) == {"rng"}
    assert not saved(raw).part("raw")
    same = ("train_error", "alignment_degrees", "residual", "passes_free", "dead_outputs")
    for one, other in zip(raw.metrics, averaged.metrics, strict=True):
        assert {key: one[key] for key in same} == {key: other[key] for key in same}
    assert raw.probes == averaged.probes


def test_errors_are_those_of_the_average_and_the_others_stand_beside_them(pair) -> None:
    raw, averaged = pair
    assert not [key for record in raw.metrics for key in record if key.startswith("raw")]
    for one, other in zip(raw.metrics, averaged.metrics, strict=True):
        assert (other["raw_valid_error"], other["raw_test_error"]) == (one["valid_error"], one["test_error"])
    recipe, data = build_recipe(averaged.config), averaged.data()
    for record in averaged.metrics:
        found = {
            part: evaluate(averaged.network(record["epoch"]), getattr(data, part), recipe) for part in ("valid", "test")
        }
        for part, each in found.items():  # without the warm start, so an image may lie on the other side
            assert each.error == pytest.approx(record[f"{part}_error"], abs=1)
        assert set(record["saturation"]) == set(found["test"].saturation)
    assert [r["valid_error"] for r in raw.metrics] != [r["valid_error"] for r in averaged.metrics]
    best = min(averaged.metrics, key=lambda record: record["valid_error"])
    assert averaged.summary["best"]["epoch"] == best["epoch"]
    assert averaged.evaluate("test").error == pytest.approx(best["test_error"], abs=1)
    assert averaged.to_frame().attrs["units"]["raw_test_error"] == "%"


def test_everything_that_reads_a_network_gets_the_average(pair, tiny, tmp_path, capsys) -> None:
    _, averaged = pair
    for name, w in averaged.network("last").parameters().items():
        assert w.tobytes() == saved(averaged).parameters[name].tobytes()
        assert w.tobytes() == averaged.network(3).parameters()[name].tobytes()
        assert w.dtype == np.float32
    assert {name.partition("/")[0] for name in saved(averaged, "kept-00002").arrays} == {"parameters"}
    assert main(["evaluate", str(averaged.folder)]) == 0
    shown = float(capsys.readouterr().out.split("error")[1].split()[0])
    assert shown == pytest.approx(averaged.summary["best"]["test_error"], abs=1)
    seen = []
    quietly(tiny(**EQUAL), out=tmp_path, callbacks=[lambda record, network: seen.append(network.input.copy())])
    assert [w.tobytes() for w in seen] == [averaged.network(epoch).input.tobytes() for epoch in (1, 2, 3)]


def test_before_it_begins_the_average_is_the_weights(tiny, tmp_path, pair) -> None:
    raw, _ = pair
    run = quietly(tiny(probes={"keep": 1}, learning={"average": {"kind": "equal", "start": 2}}), out=tmp_path)
    assert all(same_bits(run, raw, epoch) for epoch in (0, 1, 2))
    for record, other in zip(run.metrics[:2], raw.metrics, strict=False):
        assert record["valid_error"] == record["raw_valid_error"] == other["valid_error"]
    # six batches are fewer than fifty: one sample, at the end of the third epoch
    assert saved(run).values["averaged"] == 1
    assert same_bits(run, raw, 3)


def test_without_validation_images_there_is_no_error(tiny, tmp_path) -> None:
    run = quietly(tiny(data={"validation": 0}, **EQUAL), out=tmp_path, epochs=1)
    assert run.metrics[0]["raw_valid_error"] is None
    assert run.metrics[0]["raw_test_error"] > 0


def allowed(tiny, out, average, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keys = [f"learning.average.{key}" for key in ("kind", "every", "factor", "start")]
        return quietly(tiny(learning={"average": average}), out=out, resume=True, allow=keys, **options)


def test_an_average_may_be_begun_and_ended_on_resuming(tiny, tmp_path, pair) -> None:
    """The weights that learn go on in any case."""
    raw, averaged = pair
    run = quietly(tiny(), out=tmp_path / "begun", epochs=1)
    run = allowed(tiny, run.folder, EQUAL["learning"]["average"])
    for name, w in saved(raw).parameters.items():
        assert saved(run).part("raw")[name].tobytes() == w.tobytes()
    assert saved(run).values["averaged"] == 6
    run = quietly(tiny(**EQUAL), out=tmp_path / "ended", epochs=2)
    run = allowed(tiny, run.folder, {"kind": "none"})
    assert same_bits(run, raw)
    assert not saved(run).part("raw")
    run = quietly(tiny(**EQUAL), out=tmp_path / "another", epochs=2)
    run = allowed(tiny, run.folder, {"kind": "exponential", "every": 2})
    assert saved(run).values["averaged"] == 3
    run = quietly(tiny(**EQUAL), out=tmp_path / "longer", epochs=2)
    run = allowed(tiny, run.folder, {"kind": "equal", "every": 3})
    assert saved(run).values["averaged"] == 8
    with pytest.raises(ConfigurationError, match=r"learning.average.every was 2, now 5"):
        quietly(tiny(learning={"average": {"kind": "equal", "every": 5}}), out=averaged.folder, resume=True, epochs=4)


def without(part):
    return lambda arrays, values: [arrays.pop(name) for name in [*arrays] if name.startswith(part)]


def replaced(name, by):
    return lambda arrays, values: arrays.update({name: by(arrays[name])})


def said(key, value):
    return lambda arrays, values: values.pop(key) if value is None else values.update({key: value})


SPOILT = {
    "raw missing": (without("raw/"), r"raw/biases\[0\] is missing"),
    "one missing": (without("raw/loop"), "raw/loop is missing"),
    "another": (replaced("raw/loop", lambda w: w.T.copy()), r"raw/loop is float32 \(12, 10\)"),
    "dtype": (replaced("raw/input", lambda w: w.astype(np.float64)), "raw/input is float64"),
    "extra": (lambda arrays, values: arrays.update({"raw/x": arrays["raw/loop"]}), "raw/x is none that this run has"),
    "no number": (said("averaged", None), "does not say of how many samples"),
    "zero": (said("averaged", 0), r"raw/biases\[0\] is none that this run has"),
    "negative": (said("averaged", -1), "an average of -1 samples"),
    "truth": (said("averaged", True), "an average of True samples"),
    "huge": (said("averaged", 1 << 70), "samples, expected a number"),
    "text": (said("averaged", "9"), "an average of '9' samples"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_an_average_that_is_not_whole_is_not_restored(pair, how) -> None:
    _, averaged = pair
    change, words = SPOILT[how]
    state = copy.deepcopy(saved(averaged))
    change(state.arrays, state.values)
    with pytest.raises(CheckpointError, match=words):
        trainer_for(averaged).restore(state)


def test_a_run_without_an_average_takes_none(pair) -> None:
    raw, averaged = pair
    with pytest.raises(CheckpointError, match="holds an average"):
        trainer_for(raw).restore(saved(averaged))
    smuggled = dataclasses.replace(saved(averaged), values=saved(raw).values)
    with pytest.raises(CheckpointError, match=r"raw/biases\[0\] is none that this run has"):
        trainer_for(raw).restore(smuggled)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "swa"}, "learning.average.kind = 'swa'"),
        ({"kind": "exponential", "factor": 1.0}, "learning.average.factor = 1.0, expected less than 1"),
        ({"kind": "equal", "factor": 0.5}, "factor = 0.5 is no setting of learning.average.kind = 'equal'"),
        ({"every": 5}, "every = 5 is no setting of learning.average.kind = 'none'"),
        ({"start": 1}, "start = 1 is no setting of learning.average.kind = 'none'"),
        ({"kind": "equal", "every": 0}, "learning.average.every = 0, expected greater than or equal to 1"),
        ({"kind": "equal", "start": 3}, "start = 3, but learning.epochs = 3, so nothing would be averaged"),
        ({"kind": "equal", "evry": 3}, "did you mean 'every'"),
    ],
)
def test_settings_that_do_nothing_or_cannot_be_are_refused(tiny, given, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_config(tiny(learning={"average": given}))


def test_the_recipe_has_what_the_configuration_says(tiny) -> None:
    _, config = load_config(tiny(), {"learning.average.kind": "exponential", "learning.average.factor": 0.5})
    assert build_recipe(config).average == Averaging("exponential", 0.5, 50, 0)
    assert build_recipe(load_config(tiny())[1]).average is None


def test_metrics_of_a_killed_averaged_run_are_those_of_a_whole_one(tiny, tmp_path, pair, monkeypatch, killed) -> None:
    killed(2)
    with pytest.raises(KeyboardInterrupt):
        quietly(tiny(probes={"keep": 1, "samples": 20}, **EQUAL), out=tmp_path)
    monkeypatch.undo()
    run = quietly(tiny(probes={"keep": 1, "samples": 20}, **EQUAL), out=tmp_path, resume=True)
    assert timeless(run.metrics) == timeless(pair[1].metrics)
    assert all(same_bits(run, pair[1], which) for which in (1, 2, 3, "best", "last"))
