"""A run that is left within an epoch goes on at that batch, and its folder ends as that of one that
was never left.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import os
import shutil
import signal

import numpy as np
import pytest

from benchmarks.kills import differences
from fsp_dynamics.errors import CheckpointError, ConfigurationError, NotFiniteError
from fsp_dynamics.experiments import session
from fsp_dynamics.experiments.checkpoint import latest, load_checkpoint
from fsp_dynamics.experiments.progress import Output, RunReporter
from fsp_dynamics.experiments.rate.building import build_recipe, network_with
from fsp_dynamics.experiments.rate.restoring import check_state
from fsp_dynamics.experiments.rate.trainer import RateTrainer
from fsp_dynamics.experiments.runner import open_run, train
from fsp_dynamics.experiments.stopping import Interrupted
from fsp_dynamics.kernels.heed import heed
from fsp_dynamics.training import loop_engine
from fsp_dynamics.training.plain_engine import PlainEngine
from fsp_dynamics.training.reciprocal_engine import ReciprocalEngine

# so little training may leave an output silent
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output", "ignore:.*no compiled engine")
TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
MOMENTUM = {"learning": {"momentum": 0.5, "decay": 1e-3, "rate_factor": 0.8}, "probes": {"every": 2, "samples": 20}}
RANDOM_SIGN = {
    "learning": {"momentum": 0.5, "phases": "random-sign", "beta": 0.1},
    "probes": {"every": 1, "samples": 0},
}
RECIPROCAL = {
    "network": {"kind": "reciprocal", "loop_scale": None},
    "learning": {"rates": {"input": 9.0, "forward": [3.0], "loop": 0.0}, "phases": "random-sign", "beta": 0.3},
}
STEPS = {"schedule": {"kind": "steps", "at": [1, 2], "by": 0.5, "warm_up": 1}}
AUGMENTED = {"learning": {"augmentation": {"shift": 1, "rotation": 10.0, "noise": 0.05, "flip": 0.2}}}
NOISY = {"learning": {"weight_noise": 0.1, "mirror": 0.1, "average": {"kind": "equal", "every": 2}}}
VARIANTS = {
    "noisy": (NOISY, {}),
    "augmented": (AUGMENTED, {}),
    "loop": (MOMENTUM, {}),
    "steps": ({"learning": STEPS}, {}),
    "random-sign": (RANDOM_SIGN, {}),
    "mirror": ({"learning": {"mirror": 0.1, "momentum": 0.5, "batch": 5}, "probes": {"every": 7, "keep": 1}}, {}),
    "reciprocal": (RECIPROCAL, {}),
    "plain": ({**MOMENTUM, "solver": {"name": "fixed_point", "method": "anderson"}}, {}),
    "torch": (RANDOM_SIGN, {"backend": "torch", "device": "cpu"}),
    "torch-reciprocal": (RECIPROCAL, {"backend": "torch", "device": "cpu"}),
}
EVALUATE = RateTrainer.evaluate


def each(*often, **others):
    """Every variant with every value of the others; `often` are those of every day."""
    found = []
    for values in itertools.product(VARIANTS, *others.values()):
        marks = [TORCH] if values[0].startswith("torch") else []
        found.append(pytest.param(*values, marks=marks if values in often else [*marks, pytest.mark.rare]))
    return pytest.mark.parametrize(("variant", *others), found)


class Watch(RunReporter):
    """Calls `act(epoch, images done)` after some batches of each epoch."""

    def __init__(self, act):
        super().__init__(Output())
        self.act, self.epoch, self.seen = act, 0, []

    def start_epoch(self, epoch, epochs, images):
        self.epoch = epoch

    def batch(self, done, total, error):
        self.seen.append((self.epoch, done))
        self.act(self.epoch, done)


def at(epoch, images, act):
    """A reporter that calls `act()` there, once; some engines pause a little later."""

    def look(now, done):
        if (now, done >= images) == (epoch, True) and watch.seen[-2:-1] < [(epoch, images)]:
            act()

    watch = Watch(look)
    return watch


def kicked(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Engines pause after every batch of 20, and nothing is drawn, which takes longer than all
    else.
    """
    monkeypatch.setattr(session.Pictures, "draw", lambda self, now=False: None)
    monkeypatch.setattr(loop_engine, "CHUNK", 20)
    monkeypatch.setattr(loop_engine, "TRIAL", 20)
    if importlib.util.find_spec("torch") is not None:
        from fsp_dynamics.torch_backend import engine as torch_engine

        monkeypatch.setattr(torch_engine, "CHUNK", 20)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """whole("loop") -> the folder of the run of that variant without a stop (made once)."""
    made = {}

    def folder(variant):
        if variant not in made:
            made[variant] = quietly(tiny, variant, tmp_path_factory.mktemp("whole") / "run")
        return made[variant]

    return folder


def quietly(tiny, variant, out, reporter=False, **options):
    changes, means = VARIANTS[variant]
    return train(tiny(**changes), out=out, progress=reporter, **means, **options).folder


@each(
    ("loop", 80),
    ("steps", 20),
    ("augmented", 40),
    ("noisy", 60),
    ("random-sign", 20),
    ("mirror", 80),
    ("reciprocal", 120),
    ("torch", 80),
    images=(20, 80, 120),
)
def test_a_signal_loses_no_batch_and_the_folder_ends_as_that_of_a_whole_run(tiny, tmp_path, whole, variant, images):
    there = r"in epoch 2; .* holds the 1 finished epochs and a part of the next"
    with pytest.raises(Interrupted, match=there) as caught:
        quietly(tiny, variant, tmp_path, at(2, images, kicked(signal.SIGTERM)))
    assert caught.value.signum == signal.SIGTERM
    assert open_run(tmp_path).summary["status"] == "interrupted"
    watch = Watch(lambda *place: None)
    quietly(tiny, variant, tmp_path, watch, resume=True)
    assert differences(whole(variant), tmp_path) == []
    again = [done for epoch, done in watch.seen if epoch == 2]
    assert all(done > images for done in again)
    assert again or images == 120


@each(("loop",), ("torch-reciprocal",))
def test_saving_after_every_batch_changes_nothing(tiny, tmp_path, whole, variant, monkeypatch):
    names, real = [], session.save_checkpoint

    def counted(folder, state, given, run):
        names.extend(given)
        real(folder, state, given, run)

    monkeypatch.setattr(session, "save_checkpoint", counted)
    quietly(tiny, variant, tmp_path, save_minutes=1e-9)
    assert differences(whole(variant), tmp_path) == []
    assert names.count("unfinished") >= 18


def dies():
    raise RuntimeError("the machine is gone")


@each(("plain", (1, 40)), ("torch", (3, 100)), place=((1, 40), (3, 100)))
def test_a_process_that_dies_loses_what_came_after_its_last_save(tiny, tmp_path, whole, variant, place):
    """Saved after every batch, it goes on with the batch in which it died."""
    dying, watch = at(*place, dies), Watch(lambda *place: None)
    with pytest.raises(RuntimeError):
        quietly(tiny, variant, tmp_path, dying, save_minutes=1e-9)
    quietly(tiny, variant, tmp_path, watch, resume=True)
    assert watch.seen[0] == dying.seen[-1] >= place
    assert differences(whole(variant), tmp_path) == []


def test_the_state_is_saved_when_it_is_late_and_not_before(tiny, tmp_path, monkeypatch):
    clock, saved, real = [0.0], [], session.save_checkpoint

    def counted(folder, state, names, run):
        saved.append((state.epoch, *names))
        real(folder, state, names, run)

    def tick(*place):
        clock[0] += 60

    monkeypatch.setattr(session, "save_checkpoint", counted)
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])
    quietly(tiny, "loop", tmp_path, Watch(tick), epochs=2, save_minutes=2.5)
    within = (1, "unfinished")
    # three minutes after the last one; the first epoch is saved before it is judged, for nobody
    # knows how long that takes
    first = [(0, "unfinished"), (0, "unfinished"), (1, "best", "last")]
    assert saved == [*first, within, within, (2, *saved[-1][1:])]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no SIGUSR1")
def test_usr1_saves_and_the_run_goes_on(tiny, tmp_path, whole):
    there = []

    def look(epoch, done):
        if (epoch, done) == (2, 40):
            os.kill(os.getpid(), signal.SIGUSR1)
        if epoch == 2:
            there.append((done, (tmp_path / "checkpoints" / "unfinished.json").exists()))

    before = signal.getsignal(signal.SIGUSR1)
    quietly(tiny, "loop", tmp_path, Watch(look))
    assert there == [(20, False), (40, False), (60, True), (80, True), (100, True), (120, True)]
    assert differences(whole("loop"), tmp_path) == []
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_run_that_stops_twice_within_one_epoch(tiny, tmp_path, whole):
    for images in (40, 80):
        with pytest.raises(Interrupted):
            quietly(tiny, "loop", tmp_path, at(2, images, kicked(signal.SIGINT)), resume=True)
    quietly(tiny, "loop", tmp_path, resume=True)
    assert differences(whole("loop"), tmp_path) == []


def test_a_reporter_that_stops_the_run_loses_nothing_either(tiny, tmp_path, whole):
    """As that of a worker does whose sweep was stopped."""

    def stop():
        raise Interrupted(signal.SIGTERM, "the sweep was stopped")

    with pytest.raises(Interrupted) as caught:
        quietly(tiny, "loop", tmp_path, at(2, 60, stop))
    assert caught.value.signum == signal.SIGTERM
    watch = Watch(lambda *place: None)
    quietly(tiny, "loop", tmp_path, watch, resume=True)
    assert watch.seen[0] == (2, 80)
    assert differences(whole("loop"), tmp_path) == []


def relaxing(variant):
    """(class, name) of the method in which the phases of a batch relax."""
    if variant.startswith("torch"):
        from fsp_dynamics.torch_backend.engine import TorchEngine

        return TorchEngine, "_phases"
    return {"plain": (PlainEngine, "_run_phases"), "reciprocal": (ReciprocalEngine, "_run")}.get(
        variant, (loop_engine.LoopEngine, "_batches")
    )


@each(("loop", "after"), ("plain", "before"), ("mirror", "after"), when=("before", "after"))
def test_a_signal_while_a_batch_relaxes_leaves_it_at_once(tiny, tmp_path, whole, variant, when, monkeypatch):
    """Also when all of it is learned, and what is due between batches is not done yet."""
    owner, name = relaxing(variant)
    real, calls, watch = getattr(owner, name), [], Watch(lambda *place: None)

    def relax(self, *given, **more):
        calls.append(watch.epoch)
        kicks = calls.count(2) == 2
        if kicks and when == "before":
            os.kill(os.getpid(), signal.SIGTERM)
        found = real(self, *given, **more)
        if kicks:
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, relax)
        with pytest.raises(Interrupted, match=r"in epoch 2; .* the 1 finished epochs and a part of the next"):
            quietly(tiny, variant, tmp_path, watch)
    assert calls.count(2) == 2
    assert len([place for place in watch.seen if place[0] == 2]) == 1
    quietly(tiny, variant, tmp_path, resume=True)
    assert differences(whole(variant), tmp_path) == []


def test_a_batch_that_lasts_longer_than_the_minutes_is_finished_nevertheless(tiny, tmp_path, whole, monkeypatch):
    real = PlainEngine._run_phases

    def relax(self, *given):
        heed()
        return real(self, *given)

    monkeypatch.setattr(PlainEngine, "_run_phases", relax)
    quietly(tiny, "plain", tmp_path, save_minutes=1e-9)
    assert differences(whole("plain"), tmp_path) == []


def judging(monkeypatch, act, epoch=2):
    """Call `act(part)` when the network is judged after that epoch."""

    def evaluate(self, part):
        if self.finished == epoch:
            act(part)
        return EVALUATE(self, part)

    monkeypatch.setattr(RateTrainer, "evaluate", evaluate)


def test_a_signal_while_a_network_is_judged_for_long_stops_at_once(tiny, tmp_path, whole, monkeypatch):
    parts = []

    def kick(part):
        parts.append(part)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(session, "LONG", 0.0)
    judging(monkeypatch, kick)
    with pytest.raises(Interrupted, match=r"in epoch 2; .* the 1 finished epochs and a part of the next"):
        quietly(tiny, "loop", tmp_path)
    assert parts == ["valid"]
    judging(monkeypatch, lambda part: None)
    watch = Watch(lambda *place: None)
    quietly(tiny, "loop", tmp_path, watch, resume=True)
    assert {epoch for epoch, _ in watch.seen} == {3}
    assert differences(whole("loop"), tmp_path) == []


def test_a_signal_while_a_network_is_judged_quickly_waits_for_the_end_of_the_epoch(tiny, tmp_path, monkeypatch):
    parts = []

    def kick(part):
        if not parts:
            os.kill(os.getpid(), signal.SIGTERM)
        parts.append(part)

    judging(monkeypatch, kick)
    with pytest.raises(Interrupted, match=r"in epoch 3; .* holds the 2 finished epochs, resume"):
        quietly(tiny, "loop", tmp_path)
    assert parts == ["valid", "test"]


def test_a_second_signal_stops_at_once(tiny, tmp_path, whole):
    """What was saved before stays."""
    seen = []

    def twice(epoch, done):
        seen.append(done)
        if (epoch, done) == (2, 60):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append("never")

    with pytest.raises(Interrupted):
        quietly(tiny, "loop", tmp_path, Watch(twice))
    assert "never" not in seen
    quietly(tiny, "loop", tmp_path, resume=True)
    assert differences(whole("loop"), tmp_path) == []


@pytest.mark.parametrize("place", ["build", "probe"])
def test_a_signal_before_the_first_epoch_stops_at_once(tiny, tmp_path, whole, monkeypatch, place):
    def slow(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    with monkeypatch.context() as patched:
        patched.setattr(RateTrainer, place, slow)
        with pytest.raises(Interrupted):
            quietly(tiny, "loop", tmp_path / "run")
    assert (tmp_path / "run").exists() == (place == "probe")
    quietly(tiny, "loop", tmp_path / "run", resume=True)
    assert differences(whole("loop"), tmp_path / "run") == []


def test_a_signal_after_the_last_epoch_is_not_forgotten(tiny, tmp_path, whole, monkeypatch):
    expected = whole("loop")

    def draw(self, now=False):
        if now:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(session.Pictures, "draw", draw)
    with pytest.raises(Interrupted, match=r"the run in .* is finished"):
        quietly(tiny, "loop", tmp_path)
    assert differences(expected, tmp_path) == []


@TORCH
def test_an_epoch_begun_with_the_kernels_is_finished_on_torch(tiny, tmp_path, whole):
    with pytest.raises(Interrupted):
        quietly(tiny, "loop", tmp_path, at(2, 60, kicked(signal.SIGINT)))
    changes, _ = VARIANTS["loop"]
    run = train(tiny(**changes), out=tmp_path, progress=False, resume=True, backend="torch", device="cpu")
    other = open_run(whole("loop"))
    for name, weight in other.network("last").parameters().items():
        np.testing.assert_allclose(run.network("last").parameters()[name], weight, rtol=1e-2, atol=1e-3)


def test_a_value_that_is_not_finite_is_not_saved_within_an_epoch(tiny, tmp_path):
    """A callback has changed the network, between two batches."""

    reached = {}

    def keep(record, network):
        reached["network"] = network

    def spoil(epoch, done):
        if (epoch, done) == (2, 60):
            reached["network"].biases[0][3] = np.nan

    with pytest.raises(NotFiniteError):
        quietly(tiny, "plain", tmp_path, Watch(spoil), callbacks=[keep], save_minutes=1e-9)
    run = open_run(tmp_path)
    assert (run.summary["status"], len(run.metrics)) == ("failed", 1)
    state = load_checkpoint(tmp_path / "checkpoints", latest(tmp_path / "checkpoints"))
    assert all(np.isfinite(array).all() for array in state.arrays.values())
    assert state.epoch == 1


# What an epoch draws from

DRAWS = {
    "learning.augmentation.shift": (0, 1),
    "learning.weight_noise": (0.0, 0.1),
}


@pytest.mark.parametrize("key", DRAWS)
@pytest.mark.parametrize("way", [1, -1], ids=["on", "off"])
def test_what_an_epoch_draws_may_be_switched_within_it(tiny, tmp_path, key, way):
    """And the rest of the epoch may be left once more."""
    before, now = DRAWS[key][::way]
    table = tiny()
    with pytest.raises(Interrupted):
        train(table, out=tmp_path, progress=at(2, 40, kicked(signal.SIGINT)), **{key: before})
    more = {"out": tmp_path, "resume": True, key: now}
    with pytest.raises(Interrupted):
        train(table, progress=at(2, 80, kicked(signal.SIGINT)), allow=[key], **more)
    assert len(train(table, progress=False, **more).metrics) == 3


def test_what_an_epoch_draws_from_is_checked(tiny, tmp_path):
    with pytest.raises(Interrupted):
        quietly(tiny, "noisy", tmp_path, at(2, 60, kicked(signal.SIGINT)))
    run = open_run(tmp_path)
    state = load_checkpoint(tmp_path / "checkpoints", latest(tmp_path / "checkpoints"))
    data, network = run.data(), network_with(run.config, state.parameters)
    recipe, noise = build_recipe(run.config), state.arrays["epoch/noise"]
    assert noise.shape == (4,)
    check_state(state, network, recipe, data)
    for name, value, message in (
        ("seed", None, "epoch/seed is missing"),
        ("noise", None, "epoch/noise is missing"),
        ("noise", noise[:-1], r"epoch/noise is float64 \(3,\), expected float64 \(4,\)"),
        ("noise", -noise, "epoch/noise holds numbers that an unfinished epoch cannot have"),
        ("noise", noise + 99, "epoch/noise holds numbers"),
        ("seed", np.zeros(1, np.int64), r"epoch/seed is int64 \(1,\), expected uint64"),
    ):
        arrays = {each: array for each, array in state.arrays.items() if each != f"epoch/{name}"}
        arrays |= {} if value is None else {f"epoch/{name}": value}
        with pytest.raises(CheckpointError, match=message):
            check_state(dataclasses.replace(state, arrays=arrays), network, recipe, data)


# The files of an unfinished epoch


def stopped(tiny, folder, epoch=2):
    with pytest.raises(Interrupted):
        quietly(tiny, "loop", folder, at(epoch, 60, kicked(signal.SIGINT)))
    return folder / "checkpoints"


def test_an_epoch_that_was_finished_since_is_not_gone_back_to(tiny, tmp_path, whole):
    """Killed between the last checkpoint of an epoch and the end of its unfinished one."""
    stopped(tiny, tmp_path)
    old = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    quietly(tiny, "loop", tmp_path, resume=True, epochs=2)
    for name, content in old.items():
        if not (tmp_path / "checkpoints" / name).exists():
            (tmp_path / "checkpoints" / name).write_bytes(content)
    watch = Watch(lambda *place: None)
    quietly(tiny, "loop", tmp_path, watch, resume=True)
    assert watch.seen[0] == (3, 20)
    assert differences(whole("loop"), tmp_path) == []


def test_a_finished_run_is_tidied_when_it_is_resumed(tiny, tmp_path, whole):
    """Killed after its last checkpoint, before what it replaced was removed."""
    checkpoints = stopped(tiny, tmp_path, epoch=3)
    old = {path.name: path.read_bytes() for path in checkpoints.iterdir() if path.name.startswith(("unfin", "epoch"))}
    quietly(tiny, "loop", tmp_path, resume=True)
    for name, content in old.items():
        (checkpoints / name).write_bytes(content)
    quietly(tiny, "loop", tmp_path, resume=True)
    assert differences(whole("loop"), tmp_path) == []


def test_an_unfinished_epoch_without_the_checkpoint_before_it_is_refused(tiny, tmp_path):
    checkpoints = stopped(tiny, tmp_path, epoch=3)
    stopped(tiny, tmp_path / "other", epoch=2)
    for name in ("last.json", "best.json"):
        (checkpoints / name).write_bytes((tmp_path / "other" / "checkpoints" / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"last\.json"):
        quietly(tiny, "loop", tmp_path, resume=True)


def test_a_damaged_unfinished_epoch_is_refused_with_the_way_on(tiny, tmp_path, whole):
    checkpoints = stopped(tiny, tmp_path)
    manifest = json.loads((checkpoints / "unfinished.json").read_bytes())
    payload = checkpoints / manifest["payload"]
    content = bytearray(payload.read_bytes())
    content[-1] ^= 1
    payload.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged; remove unfinished\.json to go on after the last finished"):
        quietly(tiny, "loop", tmp_path, resume=True)
    (checkpoints / "unfinished.json").unlink()
    quietly(tiny, "loop", tmp_path, resume=True)
    assert differences(whole("loop"), tmp_path) == []


def test_fewer_epochs_leave_the_unfinished_one_for_later(tiny, tmp_path, whole):
    stopped(tiny, tmp_path, epoch=3)
    shorter = open_run(quietly(tiny, "loop", tmp_path, resume=True, epochs=2))
    assert (shorter.summary["status"], len(shorter.metrics)) == ("finished", 2)
    watch = Watch(lambda *place: None)
    quietly(tiny, "loop", tmp_path, watch, resume=True)
    assert watch.seen[0] == (3, 80)
    assert differences(whole("loop"), tmp_path) == []


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), "soon"])
def test_minutes_are_a_number_above_zero(tiny, tmp_path, minutes):
    with pytest.raises(ConfigurationError, match=r"^save_minutes = .*, expected a finite number above 0"):
        quietly(tiny, "loop", tmp_path / "run", save_minutes=minutes)
    assert not (tmp_path / "run").exists()


# A folder that is gone


def replaced(tiny, folder):
    shutil.rmtree(folder)
    with pytest.raises(RuntimeError):
        quietly(tiny, "plain", folder, at(1, 60, dies))


GONE = {
    "removed": lambda tiny, folder: shutil.rmtree(folder),
    "moved": lambda tiny, folder: folder.rename(folder.with_name("moved")),
    "replaced": replaced,
}


@pytest.mark.parametrize("how", GONE)
@pytest.mark.parametrize("when", ["batch", "judging", "signal"])
def test_a_folder_that_is_removed_while_its_run_trains_ends_it(tiny, tmp_path, monkeypatch, how, when):
    """With one error of the disk, and nothing is written where it was."""
    folder, there = tmp_path / "run", []

    def lose(*place):
        if not there:
            there.append(None)
            GONE[how](tiny, folder)
            there[0] = content(folder)
            if when == "signal":
                os.kill(os.getpid(), signal.SIGTERM)

    if when == "judging":
        judging(monkeypatch, lose)
    reporter = False if when == "judging" else at(2, 60, lose)
    minutes = 1e-9 if when == "batch" else 5.0
    with pytest.raises(FileNotFoundError, match="is no longer the folder of this run") as caught:
        quietly(tiny, "loop", folder, reporter, save_minutes=minutes)
    assert caught.value.filename == str(folder)
    assert content(folder) == there[0]


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
