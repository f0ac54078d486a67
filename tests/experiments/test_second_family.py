"""The runner knows no kind of network: another family (softmax_family.py) is trained, resumed,
listed, compared and swept by the same code; every family can be left between two batches.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import softmax_family
from test_runner import timeless

from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.backend import NUMBA
from fsp_dynamics.experiments.checkpoint import load_checkpoint, save_checkpoint
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.execution import load_data
from fsp_dynamics.experiments.overview import compare_runs, list_runs
from fsp_dynamics.experiments.runner import open_run, train
from fsp_dynamics.experiments.stopping import Interrupted
from fsp_dynamics.experiments.sweeps.runner import open_sweep, sweep
from fsp_dynamics.experiments.trainer import TRAINERS, Family, Resources, trainer_of
from fsp_dynamics.training.ranks import ALONE

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")
SOFTMAX = {
    "family": "softmax",
    "data": {"name": "digits", "limit": 120, "validation": 200},
    "learning": {"epochs": 3},
}
LAYERWISE = {
    "family": "layerwise",
    "data": {"name": "digits", "limit": 120, "validation": 200},
    "network": {"hidden": [20, 20]},
    "learning": {"epochs": 3, "batch": 20},
}
SHOWN = {"normalise": True, "augmentation": {"crop": 1, "flip": 0.25}}
FEEDBACK = {**LAYERWISE, "learning": {**LAYERWISE["learning"], **SHOWN, "learner": "dfa"}}
INVERSES = {**LAYERWISE, "learning": {**LAYERWISE["learning"], "learner": "dtp"}}  # which draw noise
PACKAGE = Path(__file__).parents[2] / "fsp_dynamics"


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The family, as one line of `TRAINERS`."""
    family = Family("softmax_family:SoftmaxConfig", "softmax_family:SoftmaxTrainer")
    monkeypatch.setitem(TRAINERS, "softmax", family)


@pytest.fixture
def table(request, tiny):
    """The table of a small experiment of the family that a test names."""
    probed = {"probes": {"every": 2, "samples": 10}}
    return {
        "softmax": SOFTMAX,
        "layerwise": LAYERWISE,
        "layerwise with feedback": FEEDBACK,
        "layerwise with inverses": INVERSES,
        "rate": tiny(**probed),
        "momentum and mirror": tiny(
            learning={"momentum": 0.5, "mirror": 0.05, "phases": "centred", "beta": 0.5}, **probed
        ),
        "random signs": tiny(
            learning={"phases": "random-sign", "beta": 0.1, "rates": {"input": 2.0, "forward": [1.0], "loop": 0.1}}
        ),
        "another rule": tiny(learning={"rule": "products", "rates": {"input": 2.0, "forward": [1.0], "loop": 0.1}}),
        "reciprocal": tiny(
            network={"kind": "reciprocal", "hidden": [12], "loop_scale": None},
            learning={"rates": {"input": 9.0, "forward": [3.0], "loop": 0.0}},
        ),
    }[request.param]


def quietly(source, **options):
    return train(source, progress=False, **options)


def test_a_family_is_a_short_file_and_nothing_of_the_package_knows_it():
    lines = Path(softmax_family.__file__).read_text().splitlines()
    assert len(lines) < 100
    known = re.compile(r"softmax_?family|softmaxconfig|[\"']softmax[\"']", re.IGNORECASE)
    assert not [path for path in PACKAGE.rglob("*.py") if known.search(path.read_text())]


def test_the_runner_and_its_neighbours_import_no_kind_of_network():
    """No networks, solvers, recipes or probes: a Trainer, a run folder and the ranks of a job."""
    for name in ("runner", "run", "overview", "checkpoint", "folder", "trainer", "sweeps/runner", "sweeps/workers"):
        text = (PACKAGE / "experiments" / f"{name}.py").read_text()
        for part in ("models.", "solvers.", "learning.", "analysis.", "kernels.", "experiments.rate"):
            found = [line for line in text.splitlines() if "import" in line and f"fsp_dynamics.{part}" in line]
            assert [line for line in found if "models.network import Array" not in line] == [], name


def test_it_learns_and_has_a_folder_like_any_other(tmp_path):
    run = quietly(SOFTMAX, out=tmp_path)
    assert run.metrics[-1]["train_error"] < 20 < run.metrics[0]["train_error"]
    assert run.evaluate("test").error == run.summary["best"]["test_error"] < 40
    assert run.network("last").shape == (64, 10)
    assert (tmp_path / "figures" / "learning.png").is_file()
    assert run.config.family == "softmax"
    assert load_config(tmp_path)[1] == run.config
    assert [record["epoch"] for record in map(json.loads, (tmp_path / "probes.jsonl").open())] == [0, 1, 2, 3]
    assert {"norm", "valid_error", "seconds"} <= set(run.to_frame())


def test_it_is_resumed_to_the_bit(tmp_path):
    whole = quietly(SOFTMAX, out=tmp_path / "whole")
    quietly(SOFTMAX, out=tmp_path / "cut", epochs=1)
    resumed = quietly(tmp_path / "cut", resume=True, epochs=3)
    assert resumed.network("last").tobytes() == whole.network("last").tobytes()
    assert timeless(resumed.metrics) == timeless(whole.metrics)


def test_a_signal_stops_it_after_a_batch_and_it_goes_on(tmp_path, monkeypatch):
    whole, real = quietly(SOFTMAX, out=tmp_path / "whole"), softmax_family.SoftmaxTrainer.epoch

    def signalled(self, on_batch=None, leave=None):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, on_batch)

    quietly(SOFTMAX, out=tmp_path / "cut", epochs=1)
    with monkeypatch.context() as patched:
        patched.setattr(softmax_family.SoftmaxTrainer, "epoch", signalled)
        with pytest.raises(Interrupted, match="in epoch 2"):
            quietly(SOFTMAX, out=tmp_path / "cut", resume=True)
    resumed = quietly(SOFTMAX, out=tmp_path / "cut", resume=True)
    assert resumed.network("last").tobytes() == whole.network("last").tobytes()


class Left(Exception):
    pass


def leave_after(images):
    def on_batch(done, total, error):
        if done >= images:
            raise Left

    return on_batch


def built(table):
    _, config = load_config(table)
    return trainer_of(config.family).build(config, load_data(config.data), Resources(NUMBA, ALONE))


def same_states(one, other):
    return (
        one.epoch == other.epoch
        and one.values == other.values
        and one.arrays.keys() == other.arrays.keys()
        and all(array.tobytes() == other.arrays[name].tobytes() for name, array in one.arrays.items())
    )


@pytest.mark.parametrize(
    "table",
    [
        "softmax",
        "layerwise",
        "layerwise with feedback",
        "layerwise with inverses",
        "rate",
        "momentum and mirror",
        "random signs",
        "another rule",
        "reciprocal",
    ],
    indirect=True,
)
@pytest.mark.parametrize("images", [20, 60, 120])
def test_an_epoch_left_between_two_batches_is_finished_to_the_same_bits(table, images, tmp_path, monkeypatch):
    """Here and, from a checkpoint, by another trainer; the report counts the whole epoch."""
    monkeypatch.setattr("fsp_dynamics.training.loop_engine.CHUNK", 20)
    monkeypatch.setattr("fsp_dynamics.training.loop_engine.TRIAL", 20)
    monkeypatch.setattr("fsp_dynamics.learning.mirror.every", lambda batch: 2)
    whole, here, there = built(table), built(table), built(table)
    whole.epoch()
    here.epoch()
    expected, probed = whole.epoch(), whole.probe()
    with pytest.raises(Left):
        here.epoch(leave_after(images))
    assert here.finished == 1
    save_checkpoint(tmp_path, here.state())
    there.restore(load_checkpoint(tmp_path))
    for trainer in (here, there):
        assert timeless([trainer.epoch()]) == timeless([expected])
        assert json.dumps(trainer.probe(), default=str) == json.dumps(probed, default=str)
        assert same_states(trainer.state(), whole.state())
    for trainer in (whole, there):
        trainer.epoch()
    assert same_states(there.state(), whole.state())


@pytest.mark.parametrize("table", ["softmax", "layerwise", "rate"], indirect=True)
def test_a_state_is_a_copy(table):
    trainer = built(table)
    before = trainer.state()
    kept = {name: array.copy() for name, array in before.arrays.items()}
    trainer.epoch()
    assert all(np.array_equal(array, kept[name]) for name, array in before.arrays.items())


def test_it_is_listed_and_compared_with_runs_of_any_family(tiny, tmp_path, capsys):
    quietly(SOFTMAX, out=tmp_path / "a", epochs=1)
    quietly(SOFTMAX, out=tmp_path / "b", **{"learning.rate": 0.1})
    quietly(tiny(), out=tmp_path / "c", epochs=1)
    assert [(r["family"], r["epochs"], r["hidden"]) for r in list_runs(tmp_path)] == [
        ("softmax", 1, []),
        ("softmax", 3, []),
        ("rate", 1, [12]),
    ]
    found = compare_runs(tmp_path / "a", tmp_path / "b")["configuration"]
    assert found == {"learning.rate": (0.5, 0.1), "learning.epochs": (1, 3)}
    mixed = compare_runs(tmp_path / "a", tmp_path / "c")["configuration"]
    assert mixed["family"] == ("softmax", "rate")
    assert mixed["network.kind"] == (None, "loop")
    assert main(["runs", str(tmp_path)]) == 0
    assert "softmax" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "a")]) == 0
    assert f"{open_run(tmp_path / 'a').evaluate().error:.4g}" in capsys.readouterr().out


def test_it_is_swept_over_its_own_keys(tmp_path):
    found = sweep(SOFTMAX, grid={"rate": [0.1, 0.5]}, seeds=2, out=tmp_path / "sweep", progress=False, epochs=1)
    assert [member.folder.name for member in found.members] == [
        f"rate={rate}-seed={seed}" for rate in ("0.1", "0.5") for seed in (0, 1)
    ]
    assert all(member.status == "finished" for member in found.members)
    again = sweep(SOFTMAX, grid={"rate": [0.1, 0.5]}, seeds=3, out=tmp_path / "sweep", progress=False, epochs=1)
    assert len(again.members) == 6
    assert len(open_sweep(tmp_path / "sweep").points()) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning": {"epochs": 1, "rat": 0.5}}, "learning.rat is no key of a configuration; did you mean 'rate'?"),
        ({"network": {"hidden": [3]}}, "network is no key of a configuration"),
        ({"learning": {"epochs": 1, "rate": -1.0}}, "learning.rate = -1.0, expected greater than 0"),
        ({"family": "softmx"}, "family = 'softmx' is unknown; did you mean 'softmax'?"),
    ],
)
def test_its_configuration_is_validated_by_itself(changes, message):
    with pytest.raises(ConfigurationError) as caught:
        load_config({**SOFTMAX, **changes})
    assert message in str(caught.value)


def test_keys_of_another_family_are_no_overrides():
    with pytest.raises(ConfigurationError, match=r"option 'learning\.beta' is unknown"):
        load_config(SOFTMAX, {"learning.beta": 0.5})


def test_what_needs_a_rate_network_refuses_others_in_one_line(tmp_path, capsys):
    quietly(SOFTMAX, out=tmp_path, epochs=1)
    for command in (["stability", str(tmp_path)], ["gradients", str(tmp_path)]):
        assert main(command) == 2
        assert "family = 'softmax', but " in capsys.readouterr().err
    assert main(["figure", "errors", "--runs", str(tmp_path), "--out", str(tmp_path / "figures")]) == 2
    assert "needs a rate network" in capsys.readouterr().err


def test_importing_a_configuration_loads_no_trainer():
    assert load_config("digits")[1].family == "rate"
    code = (
        "import sys; from fsp_dynamics.experiments.config_io import load_config; load_config('digits'); "
        "print('fsp_dynamics.experiments.rate.trainer' in sys.modules, 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]
