"""Layers in parallel: the bits of one process, from ranks that are threads here, and processes as
torchrun starts them below; what cannot be learned so is refused.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from crowd import Crowd
from test_job import differences, finished, in_processes, process_of, started, torchrun, wait_for

from fsp_dynamics.datasets import load_dataset
from fsp_dynamics.errors import ConfigurationError, NotFiniteError
from fsp_dynamics.experiments.backend import NUMBA
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.layerwise.pipeline import check_ranks, multiply_adds, shares
from fsp_dynamics.experiments.layerwise.trainer import LayerwiseTrainer, learner_of
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.experiments.trainer import Resources
from fsp_dynamics.layerwise.learners import Settings, make_learner
from fsp_dynamics.layerwise.names import GENERATORS, LEARNERS
from fsp_dynamics.layerwise.networks import conv, mlp

DIGITS = {"data.name": "digits", "data.validation": None, "data.limit": 300, "epochs": 2}
NETWORKS = {
    "mlp": {"network.hidden": [40, 30, 20]},
    "conv": {"network.kind": "conv", "network.channels": [4, "M", 6], "network.hidden": [12]},
    "snn": {"network.kind": "snn", "network.channels": [4, "M", 6], "network.hidden": [12]},
}
UNLOCKED = {
    "dense": {},
    "sparse": {"targets.sparse": 9},
    "2a": {"targets.version": "2a"},
    "per sample": {"targets.generator": "target-input"},
    "local": {"learning.learner": "ll-bp"},
    "local by feedback": {"learning.learner": "ll-fa"},
    "shallow": {"learning.learner": "shallow"},
}
WITHOUT_SPIKES = ("per sample", "local", "local by feedback")


def config_of(kind="mlp", how="dense", **changes):
    return load_config("fashion-mlp-fsp", {**DIGITS, **NETWORKS[kind], **UNLOCKED[how], **changes})[1]


class Left(Exception):
    """The epoch is left here."""


DRAWING = threading.Lock()


def built(config, data, ranks):
    """A trainer of these ranks. Threads share torch's stream, from which initial weights are drawn,
    as processes do not.
    """
    with DRAWING:
        return LayerwiseTrainer.build(config, data, Resources(NUMBA, ranks))


def learned(config, data, ranks, stops=()):
    """(report, state) after two epochs, the first of them left and gone on with after so many
    images. A rank that goes on does so from its own memory.
    """
    trainer = built(config, data, ranks)
    waiting, states = list(stops), []

    def on_batch(done, total, error):
        if waiting and done == waiting[0]:
            del waiting[0]
            raise Left

    reports = []
    while trainer.finished < 2:
        try:
            reports.append(trainer.epoch(on_batch))
        except Left:
            states.append(trainer.state())
    return [report["train_error"] for report in reports], [*states, trainer.state()]


def same(one, other):
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        assert array.tobytes() == other.arrays[name].tobytes(), name
    leave_out = {"seconds"}
    places = [{k: v for k, v in s.values.get("place", {}).items() if k not in leave_out} for s in (one, other)]
    assert places[0] == places[1]


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits", limit=300)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    ("kind", "how"),
    [(kind, how) for kind in NETWORKS for how in UNLOCKED if kind != "snn" or how not in WITHOUT_SPIKES],
)
def test_ranks_learn_what_one_process_does_and_all_know_it(kind, how, count, data) -> None:
    config = config_of(kind, how)
    from fsp_dynamics.training.ranks import ALONE

    errors, (expected,) = learned(config, data, ALONE)
    for found, (state,) in Crowd(count).run(lambda ranks: learned(config, data, ranks)):
        assert found == errors
        same(state, expected)


@pytest.mark.parametrize("stops", [(128,), (256,), (300,), (128, 256, 300)])
def test_an_epoch_that_is_left_has_one_state_in_all_ranks_and_goes_on_to_the_same_bits(stops, data) -> None:
    """After the first batch, after one in the middle, after the last, and after each."""
    config = config_of()
    from fsp_dynamics.training.ranks import ALONE

    errors, expected = learned(config, data, ALONE, stops)
    assert len(expected) == len(stops) + 1
    for found, states in Crowd(3).run(lambda ranks: learned(config, data, ranks, stops)):
        assert found == errors
        for state, known in zip(states, expected, strict=True):
            same(state, known)


def test_a_state_of_ranks_goes_on_in_one_process(data) -> None:
    config = config_of("conv")
    from fsp_dynamics.training.ranks import ALONE

    _, (*_, expected) = learned(config, data, ALONE)
    (_, states), _ = Crowd(2).run(lambda ranks: learned(config, data, ranks, (128,)))
    trainer = LayerwiseTrainer.build(config, data, Resources(NUMBA, ALONE))
    trainer.restore(states[0])
    while trainer.finished < 2:
        trainer.epoch()
    same(trainer.state(), expected)


@pytest.mark.parametrize("stage", [0, 3])
def test_a_loss_that_is_not_finite_ends_all_ranks(stage, data) -> None:
    found = []

    def work(ranks):
        trainer = built(config_of(), data, ranks)
        spoiled = trainer.learner.stages[stage]
        with torch.no_grad():
            next(spoiled.holds[0].parameters()).fill_(float("nan"))
        try:
            trainer.epoch()
        except NotFiniteError as error:
            found.append(str(error))

    Crowd(2).run(work)
    assert len(found) == 2
    assert all("is not finite" in text and "lower learning.rate (now 0.0" in text for text in found)


def test_the_largest_share_is_as_small_as_it_can_be() -> None:
    learner = make_learner("fsp", mlp([500, 500]), (1, 28, 28), 10)
    assert multiply_adds(learner) == [784 * 500 + 10 * 500, 500 * 500, 500 * 10]
    names = [[stage.name for stage in share] for share in shares(learner, 2)]
    assert names == [["layer1"], ["layer2", "output"]]
    learner = make_learner("fsp", conv([4, "M", 8, "M", 8], [10]), (1, 16, 16), 3, Settings(version="2b"))
    work = multiply_adds(learner)
    assert work[1:] == [9 * 4 * 8 * 64, 9 * 8 * 8 * 16, 8 * 16 * 10, 10 * 3]
    for count in (1, 2, 3, 5):
        found = [len(share) for share in shares(learner, count)]
        assert (len(found), sum(found), min(found) > 0) == (count, 5, True)
        largest = max(
            sum(work[len_before : len_before + each])
            for len_before, each in zip(np.cumsum([0, *found]), found, strict=False)
        )
        assert largest == min(
            max(sum(part) for part in np.split(np.array(work), cuts)) for cuts in cuts_of(len(work), count)
        )


def cuts_of(stages, count):
    import itertools

    return [list(cuts) for cuts in itertools.combinations(range(1, stages), count - 1)]


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_says_whether_its_stages_may_learn_at_once(name, generator) -> None:
    """It may where the step of a stage is the same once all later ones have other weights."""
    learner = make_learner(name, mlp([8, 6]), (1, 4, 4), 3, Settings(generator=generator))
    stream = torch.Generator().manual_seed(0)
    images, labels = torch.rand(6, 16, generator=stream), torch.arange(6) % 3

    def first_after_a_step(spoil):
        made = make_learner(name, mlp([8, 6]), (1, 4, 4), 3, Settings(generator=generator))
        if spoil:
            with torch.no_grad():
                for parameter in [*made.network.blocks[1].parameters(), *made.network.head.parameters()]:
                    parameter.add_(0.5)
        made.learn(images, labels)
        return made.network.blocks[0].weights.weight.detach().clone()

    alike = torch.equal(first_after_a_step(False), first_after_a_step(True))
    assert learner.is_forward_unlocked <= alike
    if name in ("fsp", "ll-bp", "ll-fa", "shallow"):
        assert learner.is_forward_unlocked is alike


@pytest.mark.parametrize(
    ("count", "changes", "words"),
    [
        (2, {"learning.learner": "bp"}, "'bp' in a job of 2 processes: its layers wait for an error of the output"),
        (2, {"targets.generator": "target-loop"}, "'target-loop' listens to the output"),
        (5, {}, "a job of 5 processes for 4 stages (layer1, layer2, layer3, output)"),
    ],
)
def test_what_cannot_learn_at_once_is_refused(count, changes, words) -> None:
    config = config_of(**changes)
    with pytest.raises(ConfigurationError, match=r"start (it in one process|4 or fewer)") as refused:
        Crowd(count).run(lambda ranks: LayerwiseTrainer.check(config, Resources(NUMBA, ranks)))
    assert words in str(refused.value)
    check_ranks(learner_of(config, (1, 8, 8), 10), 1)
    LayerwiseTrainer.check(config_of(), Resources(NUMBA, type("Four", (), {"count": 4, "rank": 0})()))


BOTH = """
import sys
from pathlib import Path
import fsp_dynamics as fsp
{networks}
{digits}
for kind, network in NETWORKS.items():
    out = Path(sys.argv[1]) / kind
    fsp.train("fashion-mlp-fsp", out=out, progress=False, **DIGITS, **network)
"""


@in_processes
def test_two_processes_have_the_bits_of_one_for_units_and_for_maps(tmp_path) -> None:
    """And the folder says how many they were."""
    script = tmp_path / "both.py"
    script.write_text(BOTH.format(networks=f"NETWORKS = {NETWORKS}", digits=f"DIGITS = {DIGITS}"))
    code, _, err = finished(torchrun(2, str(tmp_path), module=(str(script),)))
    assert code == 0, err
    for kind, network in NETWORKS.items():
        alone = train("fashion-mlp-fsp", out=tmp_path / f"{kind}-alone", progress=False, **DIGITS, **network)
        found = differences(alone.folder, tmp_path / kind)
        assert [text for text in found if not text.startswith("environment.json")] == []
        assert json.loads((tmp_path / kind / "environment.json").read_text())["processes"] == 2


LONG = ["fashion-mlp-fsp", "--data.name", "digits", "--data.validation", "none", "--network.hidden", "40,30"]


@in_processes
@pytest.mark.rare
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_and_one_process_goes_on_to_the_same_bits(victim, tmp_path) -> None:
    folder, metrics = tmp_path / "killed", tmp_path / "killed" / "metrics.jsonl"
    job = started(2, "train", *LONG, "--epochs", "4000", "--out", str(folder), "--no-progress")
    try:
        wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") >= 2, job[0])
        job[victim].kill()
        begin = time.monotonic()
        code, _, err = finished(job[1 - victim])
        assert time.monotonic() - begin < 60
    finally:
        for process in job:
            process.kill()
            process.communicate()
    assert code == 8, err
    assert err.count("fsp: ") == 1, err
    assert "resume with --resume" in err
    done = metrics.read_bytes().count(b"\n")
    how = ["--epochs", str(done + 2), "--no-progress"]
    from fsp_dynamics.cli import main

    assert main(["train", *LONG, *how, "--out", str(folder), "--resume"]) == 0
    assert main(["train", *LONG, *how, "--out", str(tmp_path / "unbroken")]) == 0
    assert layer_weights(folder) == layer_weights(tmp_path / "unbroken")


@in_processes
@pytest.mark.rare
def test_a_process_that_dies_ends_the_job_of_torchrun(tmp_path) -> None:
    metrics = tmp_path / "killed" / "metrics.jsonl"
    job = torchrun(2, "train", *LONG, "--epochs", "4000", "--out", str(metrics.parent), "--no-progress")
    try:
        wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") >= 2, job)
        os.kill(process_of(job.pid, 1), signal.SIGKILL)
        code, _, err = finished(job)
    finally:
        job.kill()
    assert code != 0
    assert "exitcode  : -9" in err, err


def layer_weights(folder):
    from fsp_dynamics.experiments.runner import open_run

    run = open_run(folder)
    state = run.network("last").network.state_dict()
    return {name: value.numpy().tobytes() for name, value in state.items()}


@in_processes
@pytest.mark.rare
def test_a_signal_saves_in_the_middle_of_an_epoch_and_two_processes_go_on(tmp_path) -> None:
    folder, metrics = tmp_path / "stopped", tmp_path / "stopped" / "metrics.jsonl"
    job = torchrun(2, "train", *LONG, "--epochs", "4000", "--out", str(folder), "--no-progress")
    wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") >= 2, job)
    os.kill(process_of(job.pid, 1), signal.SIGTERM)
    code, _, err = finished(job)
    assert code != 0
    assert "stopped by a signal in epoch" in err
    done = metrics.read_bytes().count(b"\n")
    how = ["--epochs", str(done + 2), "--no-progress"]
    code, _, err = finished(torchrun(2, "train", *LONG, *how, "--out", str(folder), "--resume"))
    assert code == 0, err
    from fsp_dynamics.cli import main

    assert main(["train", *LONG, *how, "--out", str(tmp_path / "unbroken")]) == 0
    assert layer_weights(folder) == layer_weights(tmp_path / "unbroken")
