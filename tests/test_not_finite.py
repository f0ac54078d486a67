"""Whatever brings in a value that is not finite, it ends the run in the epoch that it entered, and
nothing of it is saved.

Every case is drawn from its number: a setting (solver, topology, backend, phases), a place where
NaN or infinity enters, the epoch, the batch, the element. The last checkpoint must then be that of
the epoch before, with the bits of a run that nothing happened to.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fsp_dynamics as fsp
from fsp_dynamics.datasets import Dataset, Split
from fsp_dynamics.errors import NotFiniteError
from fsp_dynamics.experiments.checkpoint import kept_name, load_checkpoint
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.pictures import Pictures
from fsp_dynamics.experiments.rate import trainer as rate_trainer
from fsp_dynamics.learning.rules.hebbian import HEBBIAN
from fsp_dynamics.models.activations import ACTIVATIONS, Activation
from fsp_dynamics.training import epoch as epoch_module

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*(output|compiled engine|given in Python|import path|RuntimeWarning)"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:images reach beyond"),
]
CASES, USUAL = 200, 20
EPOCHS, BATCH, TRAIN = 3, 5, 25
PIXELS, CLASSES = 6, 3
VALUES = (np.nan, np.inf, -np.inf)
LOOP = {"kind": "loop", "hidden": [5, 4], "loop_scale": 0.3}
TIED = {"kind": "reciprocal", "hidden": [5, 4], "tied": True}
UNTIED = {"kind": "reciprocal", "hidden": [5, 4], "tied": False}


@dataclass(frozen=True)
class Setting:
    """What is trained, and how; `plain`: on the plain engine."""

    network: dict[str, Any]
    solver: dict[str, Any]
    learning: dict[str, Any]
    backend: str = "numba"


def fixed(method=None, **more):
    return {"name": "fixed_point", **({"method": method} if method else {}), **more}


SETTINGS = {
    "broyden": Setting(LOOP, fixed(), {}),
    "broyden-centred-momentum": Setting(LOOP, fixed(), {"phases": "centred", "momentum": 0.5}),
    "broyden-random-sign": Setting(LOOP, fixed(), {"phases": "random-sign", "output_step": 0.2}),
    "newton": Setting(LOOP, fixed("newton"), {}),
    "anderson": Setting(LOOP, fixed("anderson"), {"phases": "centred"}),
    "picard": Setting(LOOP, fixed("picard"), {"momentum": 0.5}),
    "logistic": Setting({**LOOP, "rho": "logistic"}, fixed(), {}),
    "numba_ode": Setting(LOOP, {"name": "numba_ode"}, {"phases": "centred"}),
    "reference": Setting(LOOP, {"name": "reference", "method": "bosh3"}, {"momentum": 0.5}),
    "tied": Setting(TIED, fixed(), {}),
    "untied-centred": Setting(UNTIED, fixed(), {"phases": "centred", "momentum": 0.5}),
    "torch-broyden": Setting(LOOP, fixed(), {"momentum": 0.5}, "torch"),
    "torch-tied-centred": Setting(TIED, fixed(), {"phases": "centred"}, "torch"),
    "torch_ode": Setting(LOOP, {"name": "torch_ode", "method": "bosh3"}, {}, "torch"),
}


def images_of(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = np.clip(0.7 * np.eye(CLASSES, PIXELS)[labels] + 0.3 * rng.random((count, PIXELS)), 0, 1)
    return pixels.astype(np.float32), labels


def data_with(change=lambda part, images: None) -> Dataset:
    parts = {}
    for seed, (name, count) in enumerate((("train", TRAIN), ("valid", 7), ("test", 8))):
        images, labels = images_of(count, seed)
        change(name, images)
        parts[name] = Split(images, labels)
    return Dataset("own", CLASSES, **parts, image_shape=(1, PIXELS), source="arrays")


def table_of(setting: Setting) -> dict[str, Any]:
    rates = {"input": 1.0, "forward": [1.0, 1.0]}
    rates |= {"loop": 0.2} if setting.network["kind"] == "loop" else {}
    rates |= {"backward": [1.0, 1.0]} if setting.network.get("tied") is False else {}
    learning = {"epochs": EPOCHS, "batch": BATCH, "beta": 0.5, "rates": rates, **setting.learning}
    return {
        "network": {"forward_scale": 0.7, **setting.network},
        "learning": learning,
        "solver": {"absolute": 1e-4, **setting.solver},
        "probes": {"samples": 0, "keep": 1},
    }


def trained(setting: Setting, out, data=None, **more):
    options = {"data": data or data_with(), "progress": False, "threads": 1, "backend": setting.backend, **more}
    return fsp.train(table_of(setting), out=out, **options)


@dataclass
class Poison:
    """One value that is not finite: what it is, and when it enters. `entered` : whether it has."""

    value: float
    epoch: int
    batch: int
    rng: np.random.Generator
    now: int = 0  # the epoch that is trained at present; 0 between epochs
    calls: int = 0
    entered: bool = False

    def put(self, arrays) -> None:
        """Into an element, not 0 where there is any, of one of these arrays or tensors."""
        arrays = [a for a in arrays if a.size > 0] if isinstance(arrays[0], np.ndarray) else list(arrays)
        chosen = arrays[self.rng.integers(len(arrays))]
        flat = chosen.reshape(-1)
        places = np.flatnonzero(np.asarray(flat)) if np.asarray(flat).any() else np.arange(len(flat))
        flat[int(self.rng.choice(places))] = self.value
        self.entered = True

    def due(self) -> bool:
        """Whether this call, of those that a batch makes, is the one in which it enters."""
        if self.now != self.epoch or self.entered:
            return False
        self.calls += 1
        return self.calls > self.batch


def into_pixels(part):
    def prepare(poison, monkeypatch, setting):
        poison.epoch = 1  # data are there from the beginning

        def change(name, images):
            if name == part:
                poison.put([images])

        return {"data": data_with(change)}

    return prepare


def by_a_callback(poison, monkeypatch, setting):
    poison.epoch = max(2, poison.epoch)

    def callback(record, network):
        if record["epoch"] == poison.epoch - 1:
            poison.put([w for name, w in network.parameters().items() if "biases" not in name])

    return {"callbacks": [callback]}


def weights_of(engine):
    """The arrays in which an engine holds the weights between two batches."""
    kind = type(engine).__name__
    if kind == "LoopEngine":
        return [engine.packed.weights, engine.packed.loop]
    if kind == "ReciprocalEngine" and engine.in_panels:
        return [engine.input, engine.packed.weights]
    network = engine.device_network.weights if kind == "TorchEngine" else engine.learner.network
    return [w for name, w in network.parameters().items() if "biases" not in name]


def between_batches(poison, monkeypatch, setting):
    real = epoch_module.interrupts_of

    def interrupts_of(engine, *given, **options):
        found = real(engine, *given, **options)
        if engine.learner.epoch + 1 == poison.epoch:
            found.add(poison.batch + 1, lambda done: None if poison.entered else poison.put(weights_of(engine)))
        return found

    monkeypatch.setattr(epoch_module, "interrupts_of", interrupts_of)
    return {}


def before_an_epoch(arrays: Callable[[Any], Any]):
    """Into what the learner keeps from epoch to epoch."""

    def prepare(poison, monkeypatch, setting):
        poison.epoch = max(2, poison.epoch)
        real = rate_trainer.RateTrainer.epoch

        def epoch(self, *given, **options):
            if self.learner.epoch + 1 == poison.epoch:
                poison.put(arrays(self.learner))
            return real(self, *given, **options)

        monkeypatch.setattr(rate_trainer.RateTrainer, "epoch", epoch)
        return {}

    return prepare


class PoisonedSolver:
    """A solver between whose callers and whose work a value that is not finite enters."""

    def __init__(self, solver, poison, place):
        self.solver, self.poison, self.place = solver, poison, place

    def relax(self, network, drive, start=None, nudge=None, tolerance=None):
        fits = {"start": start is not None, "target": nudge is not None}.get(self.place, True) and len(drive) > 0
        if not (fits and self.poison.due()):
            return self.solver.relax(network, drive, start, nudge, tolerance)
        put = self.poison.put
        if self.place == "drive":
            drive = drive.copy()
            put([drive])
        elif self.place == "start":
            start = tuple(np.array(s) for s in start)
            put(start)
        elif self.place == "target":
            target = nudge.target.copy()
            put([target])
            nudge = dataclasses.replace(nudge, target=target)
        found = self.solver.relax(network, drive, start, nudge, tolerance)
        if self.place == "state":
            state = tuple(np.array(s) for s in found.state)
            put(state)
            found = dataclasses.replace(found, state=state)
        elif self.place == "residual":
            residual = np.array(found.residual)
            put([residual])
            found = dataclasses.replace(found, residual=residual)
        return found


class PoisonedRule(fsp.Rule):
    """Eq. 14, one term of which breaks."""

    name = "poisoned"

    def __init__(self, poison):
        self.poison = poison

    def terms(self, network, images, contrast):
        terms = list(HEBBIAN.terms(network, images, contrast))
        if self.poison.due():
            number = int(self.poison.rng.integers(len(terms)))
            post = terms[number].post.copy()
            self.poison.put([post])
            terms[number] = terms[number]._replace(post=post)
        yield from terms


def by_a_part(part):
    """Of the recipe: a solver or a rule of one's own."""

    def prepare(poison, monkeypatch, setting):
        real, real_epoch = rate_trainer.build_recipe, rate_trainer.RateTrainer.epoch

        def build_recipe(*given, **options):
            recipe = real(*given, **options)
            if part == "rule":
                return dataclasses.replace(recipe, rule=PoisonedRule(poison))
            return dataclasses.replace(recipe, solver=PoisonedSolver(recipe.solver, poison, part))

        def epoch(self, *given, **options):
            poison.now = self.learner.epoch + 1
            try:
                return real_epoch(self, *given, **options)
            finally:
                poison.now = 0

        monkeypatch.setattr(rate_trainer, "build_recipe", build_recipe)
        monkeypatch.setattr(rate_trainer.RateTrainer, "epoch", epoch)
        return {}

    return prepare


def by_a_firing_rate(poison, monkeypatch, setting):
    """One of one's own, which from then on gives a value that is no number."""
    real = rate_trainer.RateTrainer.epoch
    known = ACTIVATIONS["logistic"]

    def rate(s):
        r = known.rate(s)
        if poison.now == poison.epoch and isinstance(r, np.ndarray) and r.size:
            poison.calls += 1
            if poison.calls > 40 * poison.batch:
                r, poison.entered = r.copy(), True
                r[..., 0] = poison.value
        return r

    def epoch(self, *given, **options):
        poison.now = self.learner.epoch + 1
        return real(self, *given, **options)

    monkeypatch.setattr(rate_trainer.RateTrainer, "epoch", epoch)
    return {"activation": Activation("own", rate, known.slope, curvature=known.curvature)}


PLACES = {
    "train pixel": into_pixels("train"),
    "valid pixel": into_pixels("valid"),
    "test pixel": into_pixels("test"),
    "callback": by_a_callback,
    "weights between batches": between_batches,
    "velocity": before_an_epoch(lambda learner: list(learner.velocity.values())),
    "warm start": before_an_epoch(
        lambda learner: [a for a in learner.warm_start.arrays().values() if a.dtype.kind == "f"]
    ),
    **{f"solver: {part}": by_a_part(part) for part in ("drive", "start", "target", "state", "residual")},
    "rule": by_a_part("rule"),
    "firing rate": by_a_firing_rate,
}
REMEMBERING = ("broyden", "broyden-centred-momentum", "broyden-random-sign", "tied", "untied-centred", "torch-broyden")


def places_of(name: str) -> list[str]:
    """Where something can enter under this setting."""
    left_out = {"firing rate"} if name != "reference" else set()
    left_out |= set() if "momentum" in SETTINGS[name].learning else {"velocity"}
    left_out |= set() if name in REMEMBERING else {"warm start"}
    return [place for place in PLACES if place not in left_out]


def pairs() -> list[tuple[str, str]]:
    """Every place under every setting, one after the other of each; first those that bring in a
    setting or a place that none before them had.
    """
    every = [
        (name, places_of(name)[(turn + shift) % len(places_of(name))])
        for shift in range(len(PLACES))
        for turn, name in enumerate(SETTINGS)
        if shift < len(places_of(name))
    ]
    first: list[tuple[str, str]] = []
    for pair in every:
        if not {each for known in first for each in known}.issuperset(pair):
            first.append(pair)
    return first + [pair for pair in every if pair not in first]


PAIRS = pairs()


# a unit whose input is infinite is at 0 or 1, as it would be for a large one
SATURATING = ("solver: drive", "solver: start", "firing rate")


def case_of(number: int) -> tuple[str, str, Poison]:
    """(setting, place, what enters and when) of a case. All settings take turns, and in each the
    places that it has.
    """
    rng = np.random.default_rng(number)
    name, place = PAIRS[number % len(PAIRS)]
    value = VALUES[0] if place in SATURATING or rng.random() < 0.6 else VALUES[rng.integers(1, 3)]
    return name, place, Poison(value, int(rng.integers(1, EPOCHS + 1)), int(rng.integers(TRAIN // BATCH)), rng)


def marked(number):
    name, place, _ = case_of(number)
    return pytest.param(number, id=f"{number}-{name}-{place}", marks=[] if number < USUAL else pytest.mark.rare)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """clean(name, place) -> the folder of a run on the same engine to which nothing happens (made
    once).
    """
    made = {}

    def run(name, place):
        part = next((part for part in ("solver", "rule", "firing rate") if place.startswith(part)), "")
        if (name, part) not in made:
            with pytest.MonkeyPatch.context() as patch:
                never = Poison(np.nan, EPOCHS + 1, 0, np.random.default_rng(0))
                options = PLACES[place](never, patch, SETTINGS[name]) if part else {}
                made[name, part] = trained(SETTINGS[name], tmp_path_factory.mktemp("clean") / "run", **options).folder
        return made[name, part]

    return run


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(Pictures, "draw", lambda self, now=False: None)


@pytest.mark.parametrize("number", [marked(number) for number in range(CASES)])
def test_it_is_caught_in_the_epoch_it_entered_and_nothing_of_it_is_saved(number, clean, tmp_path, monkeypatch):
    name, place, poison = case_of(number)
    expected = clean(name, place)
    options = PLACES[place](poison, monkeypatch, SETTINGS[name])
    with pytest.raises(NotFiniteError) as caught:
        trained(SETTINGS[name], tmp_path / "run", **options)
    assert poison.entered
    assert "\n" not in str(caught.value)
    _check_folder(tmp_path / "run", poison.epoch - 1, expected, place in ("valid pixel", "test pixel"))


def _check_folder(folder, epoch, expected, learned):
    """The folder holds so many epochs, whole, with the bits of the run to which nothing happened.
    learned : the batches of the next epoch were, before its images for validation and test were
    looked at.
    """
    files = RunFolder(folder)
    saved = load_checkpoint(files.checkpoints)
    assert saved.epoch == epoch
    names = {path.stem for path in files.checkpoints.glob("*.json")}
    allowed = {"last", "best", *(f"kept-{number:05d}" for number in range(epoch + 1))}
    assert names <= allowed | ({"unfinished"} if learned else set())
    for name in names - {"best"} if epoch == 0 else names:
        for array in load_checkpoint(files.checkpoints, name).arrays.values():
            assert np.isfinite(array).all()
    same = load_checkpoint(RunFolder(expected).checkpoints, kept_name(epoch))
    for name, array in same.parameters.items():
        np.testing.assert_array_equal(saved.parameters[name], array)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, epoch + 1))
    assert "NaN" not in (folder / "metrics.jsonl").read_text()
    assert files.summary()["status"] == "failed"


def test_the_cases_are_of_every_setting_and_place():
    """Every place under every setting that has it, all epochs and batches."""
    drawn = [case_of(number) for number in range(CASES)]
    assert {(name, place) for name, place, _ in drawn} == {(name, p) for name in SETTINGS for p in places_of(name)}
    assert {place for _, place, _ in drawn[:USUAL]} == set(PLACES)
    assert {name for name, _, _ in drawn[:USUAL]} == set(SETTINGS)
    assert {poison.epoch for *_, poison in drawn} == set(range(1, EPOCHS + 1))
    assert {poison.batch for *_, poison in drawn} == set(range(TRAIN // BATCH))


def test_a_run_to_which_nothing_happens_is_not_ended(clean):
    """Or every case above would pass."""
    files = RunFolder(clean("broyden", "callback"))
    assert files.summary()["status"] == "finished"
    assert load_checkpoint(files.checkpoints).epoch == EPOCHS
    assert "NaN" not in (files.path / "metrics.jsonl").read_text()
