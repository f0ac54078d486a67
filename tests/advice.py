"""What messages advise: for each, a way to meet the message and the advice followed.

`ADVICE` holds entries (says, meet, follow): `says` is a piece of the message's text in the source,
`meet` raises the message, `follow` does what it advises and must succeed. `ELSEWHERE` names the
tests that follow the others, `UNFOLLOWED` says why an advice is not followed in a test.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from problems import one_hot

import fsp_dynamics as fsp
from fsp_dynamics.analysis.continuation import continuation
from fsp_dynamics.analysis.gradients import compare, true_gradient
from fsp_dynamics.analysis.plane import principal_plane
from fsp_dynamics.analysis.spectra import linearise, spectrum
from fsp_dynamics.analysis.stability import admissible_beta
from fsp_dynamics.cli import main
from fsp_dynamics.cli.options import reporter
from fsp_dynamics.datasets import Split, list_datasets, read_dataset
from fsp_dynamics.datasets.pictures import read_pictures
from fsp_dynamics.errors import ConfigurationError, DataWarning
from fsp_dynamics.experiments.backend import NUMBA, backend_of
from fsp_dynamics.experiments.callbacks import Callbacks
from fsp_dynamics.experiments.config_io import load_config, to_toml
from fsp_dynamics.experiments.figures.drawing import make
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.overview import list_runs
from fsp_dynamics.experiments.quickstart import quickstart
from fsp_dynamics.experiments.rate.trainer import RateTrainer
from fsp_dynamics.experiments.run import open_run
from fsp_dynamics.experiments.sweeps.runner import open_sweep, sweep
from fsp_dynamics.experiments.trainer import Resources
from fsp_dynamics.explorer.session import Session
from fsp_dynamics.learning.averaging import Averaging
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.learning.rules.hebbian import HebbianRule
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.sklearn import LoopClassifier
from fsp_dynamics.solvers.reference import ReferenceSolver
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.ranks import ALONE
from fsp_dynamics.training.recipe import Learner, Recipe


class Advice(NamedTuple):
    says: str
    meet: Callable[[Path], Any]
    follow: Callable[[Path], Any]


NET = fsp.loop_network([4, 5, 3], loop_scale=0.2, dtype="float64", rng=0)
WITHOUT_LOOP = dataclasses.replace(NET, loop=None)
RECIPROCAL = fsp.reciprocal_network([4, 5, 3], dtype="float64", rng=0)
X = np.random.default_rng(0).choice([0.0, 0.25, 0.5, 1.0], (6, 4))
Y = np.arange(6) % 3
D = one_hot(Y, 3)
RATES = LearningRates(1.0, (1.0,), 0.5)
RECIPE = Recipe(Sgd(RATES), fsp.make_solver())
RK4 = ReferenceSolver("rk4", dt=0.1)
FREE = fsp.relax(NET, X)
NUDGED = fsp.relax(NET, X, nudge=fsp.Nudge(0.5, D), start=FREE)
SMOOTH = Activation("square_root", lambda s: s / np.sqrt(1 + s * s), lambda s: (1 + s * s) ** -1.5)
CURVED = Activation("square_root", SMOOTH.rate, SMOOTH.slope, curvature=lambda s: -3 * s * (1 + s * s) ** -2.5)
SOFT = dataclasses.replace(NET, rho="logistic")
TINY = {
    "data.limit": 60,
    "network.hidden": 5,
    "learning.rates.forward": 7.0,
    "probes": {"samples": 0},
    "progress": False,
    "threads": 1,
}


def train(place: Path, name: str = "run", source: Any = "digits", **changes: Any) -> Any:
    return fsp.train(source, out=place / name, **{"epochs": 1, **TINY, **changes})


def again(place: Path, **changes: Any) -> Any:
    return fsp.train(place / "run", **{"progress": False, "threads": 1, "resume": True, **changes})


def swept(place: Path, **changes: Any) -> Any:
    return sweep("digits", **{"out": place / "sweep", "seeds": 1, "epochs": 1, **TINY, **changes})


def config(**changes: Any) -> Any:
    return load_config("digits", changes)


def checked(**changes: Any) -> None:
    """What training asks before anything is read or written."""
    RateTrainer.check(config(**changes)[1], Resources(NUMBA, ALONE))


def command(*words: Any) -> None:
    """A command line that succeeds; its message as an error where it does not."""
    import io

    lines = io.StringIO()
    with contextlib.redirect_stderr(lines), contextlib.redirect_stdout(io.StringIO()):
        code = main([str(word) for word in words])
    if code:
        raise ConfigurationError(lines.getvalue())


def file(place: Path, name: str, content: bytes) -> Path:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def picture(place: Path, name: str, size: tuple[int, int] = (3, 2), mode: str = "L") -> None:
    from PIL import Image

    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def pictures(place: Path) -> Path:
    """A folder of pictures that can be read."""
    for label in "ab":
        for i in range(8):
            picture(place / "set", f"{label}/{i}.png")
    return place / "set"


def own(**changed: Any) -> Any:
    given = {"images": X, "labels": Y, "test_images": X, "test_labels": Y}
    return fsp.dataset_from_arrays(**{**given, **changed})


def wide(**changed: Any) -> Any:
    """Images of 12 pixels, which make no square."""
    images = np.tile(X, (1, 3))
    return own(images=images, test_images=images, **changed)


def npz(place: Path, **arrays: Any) -> Any:
    np.savez(place / "own.npz", **arrays)
    return read_dataset(place / "own.npz")


def toml(place: Path, encoding: str = "utf-8", extra: str = "") -> Any:
    path = file(place, "own.toml", (to_toml(load_config("digits")[1]) + extra).encode(encoding))
    return load_config(path)


def removed(path: Path) -> None:
    path.unlink()


RELAX = [
    Advice(
        "expected numbers; convert them first",
        lambda p: fsp.relax(NET, X.astype(str)),
        lambda p: fsp.relax(NET, X.astype(str).astype(float)),
    ),
    Advice(
        "give .filled(0), or leave those samples out",
        lambda p: fsp.relax(NET, np.ma.masked_less(X, 0.3)),
        lambda p: fsp.relax(NET, np.ma.masked_less(X, 0.3).filled(0)),
    ),
    Advice(
        "give rows of one length, of numbers",
        lambda p: fsp.relax(NET, [*X.tolist(), [0.0]]),
        lambda p: fsp.relax(NET, X.tolist()),
    ),
    Advice(
        "it holds rows of different lengths; give rows of one length",
        lambda p: fsp.relax(NET, np.array([[0.0], [0.0, 1.0]], object)),
        lambda p: fsp.relax(NET, np.array(X.tolist(), object)),
    ),
    Advice(
        ", expected numbers; clean the data first",
        lambda p: fsp.relax(NET, np.where(X > 0.3, X, None)),
        lambda p: fsp.relax(NET, np.where(X > 0.3, X, 0.0)),
    ),
    Advice(
        "are not); clean the data first",
        lambda p: fsp.relax(NET, np.where(X > 0.3, X, np.nan)),
        lambda p: fsp.relax(NET, np.nan_to_num(np.where(X > 0.3, X, np.nan))),
    ),
    Advice(
        "give a dense tensor of numbers",
        lambda p: fsp.relax(NET, torch.tensor(X).to_sparse()),
        lambda p: fsp.relax(NET, torch.tensor(X).to_sparse().to_dense()),
    ),
    Advice("leave the nudge out for a free phase", lambda p: fsp.Nudge(0.0, D), lambda p: fsp.relax(NET, X)),
    Advice(
        "allow more steps, a looser tolerance or a weaker loop",
        lambda p: fsp.relax(NET, X, solver=ReferenceSolver("rk4", dt=0.1, max_steps=2)).require_converged(),
        lambda p: [
            fsp.relax(NET, X, solver=ReferenceSolver("rk4", dt=0.1, max_steps=9999)).require_converged(),
            fsp.relax(
                NET, X, solver=ReferenceSolver("rk4", dt=0.1, max_steps=2), tolerance=fsp.Tolerance(10.0)
            ).require_converged(),
        ],
    ),
    Advice(
        "tolerance absolute = relative = 0 can never be met; give one of them a positive value",
        lambda p: fsp.Tolerance(0.0, 0.0),
        lambda p: fsp.Tolerance(0.0, 1e-6),
    ),
    Advice(
        "needs a loop and a hard sigmoid; use 'anderson' or 'picard' for this network",
        lambda p: fsp.relax(RECIPROCAL, X, solver=fsp.make_solver(method="broyden")),
        lambda p: [fsp.relax(RECIPROCAL, X, solver=fsp.make_solver(method=m)) for m in ("anderson", "picard")],
    ),
    Advice(
        "allows no error at all; give one of them a positive value",
        lambda p: ReferenceSolver("bosh3", rtol=0.0, atol=0.0),
        lambda p: ReferenceSolver("bosh3", rtol=1e-6, atol=0.0),
    ),
    Advice(
        "estimates no error to control its step by; give dt, or take one of",
        lambda p: ReferenceSolver("rk4"),
        lambda p: [ReferenceSolver("rk4", dt=0.1), ReferenceSolver("bosh3")],
    ),
    Advice(
        "but constant steps estimate no error; leave out one of them",
        lambda p: ReferenceSolver("bosh3", dt=0.1, rtol=1e-3),
        lambda p: [ReferenceSolver("bosh3", dt=0.1), ReferenceSolver("bosh3", rtol=1e-3)],
    ),
    Advice(
        "which has no time axis; give an Integrator or one of",
        lambda p: fsp.simulate(NET, X, [(1.0, None)], solver=fsp.make_solver()),
        lambda p: [fsp.simulate(NET, X, [(1.0, None)], solver=s) for s in (RK4, "rk4")],
    ),
    Advice(
        "; save less often",
        lambda p: fsp.simulate(NET, X, [(1.0, None)], save=1e-9, solver=RK4),
        lambda p: fsp.simulate(NET, X, [(1.0, None)], save=0.1, solver=RK4),
    ),
    Advice(
        "which has settings of its own; set it there",
        lambda p: fsp.simulate(NET, X, [(1.0, None)], dt=0.1, solver=RK4),
        lambda p: fsp.simulate(NET, X, [(1.0, None)], solver=ReferenceSolver("rk4", dt=0.1)),
    ),
    Advice(
        "the network has no loop (loop = None); give one made by loop_network",
        lambda p: fsp.loop_gain(WITHOUT_LOOP),
        lambda p: fsp.loop_gain(fsp.loop_network([4, 5, 3], rng=0)),
    ),
    Advice(
        "; leave projected out",
        lambda p: Activation("mine", SMOOTH.rate, SMOOTH.slope, projected=True),
        lambda p: Activation("mine", SMOOTH.rate, SMOOTH.slope),
    ),
    Advice(
        ", expected an Equilibrium; relax it",
        lambda p: fsp.hebbian_update(NET, X, FREE.state, NUDGED),
        lambda p: fsp.hebbian_update(NET, X, FREE, NUDGED),
    ),
    Advice(
        "relax with nudge=Nudge(beta, target)",
        lambda p: fsp.hebbian_update(NET, X, FREE, FREE),
        lambda p: fsp.hebbian_update(NET, X, FREE, fsp.relax(NET, X, nudge=fsp.Nudge(0.5, D))),
    ),
    Advice(
        "a tied matrix is presynaptic at both ends; use rule 'hebbian', or a network with tied = False",
        lambda p: Learner.start(
            RECIPROCAL, Recipe(Sgd(LearningRates(1.0, (1.0,))), RECIPE.solver, rule="mean_subtracted")
        ),
        lambda p: [
            Learner.start(RECIPROCAL, Recipe(Sgd(LearningRates(1.0, (1.0,))), RECIPE.solver, rule="hebbian")),
            Learner.start(
                fsp.reciprocal_network([4, 5, 3], tied=False, rng=0),
                Recipe(Sgd(LearningRates(1.0, (1.0,), backward=(1.0,))), RECIPE.solver, rule="mean_subtracted"),
            ),
        ],
    ),
    Advice(
        "needs the curvature of rho: give Activation(..., curvature=...)",
        lambda p: true_gradient(dataclasses.replace(NET, rho=SMOOTH), X, D, FREE, unconverged=True),
        lambda p: true_gradient(dataclasses.replace(NET, rho=CURVED), X, D, FREE, unconverged=True),
    ),
]


def ring(gain: float) -> fsp.Network:
    """Three units in a ring that inhibits; it oscillates above a gain of 2."""
    weight = np.full((1, 1), gain)
    biases = (np.full(1, 0.5 + gain / 2), np.full(1, 0.5 - gain / 2), np.full(1, 0.5 - gain / 2))
    return fsp.Network(np.zeros((4, 1)), (weight, weight), biases, loop=-weight)


ANALYSIS = [
    Advice(
        "needs its curvature: give Activation(..., curvature=...)",
        lambda p: continuation(dataclasses.replace(NET, rho=SMOOTH), X[0], "loop", (0.0, 0.5)),
        lambda p: continuation(dataclasses.replace(NET, rho=CURVED), X[0], "loop", (0.0, 0.5)),
    ),
    Advice(
        "use method='dense' for all",
        lambda p: spectrum(NET, X, FREE, method="rightmost", count=99),
        lambda p: spectrum(NET, X, FREE, method="dense").all(),
    ),
    Advice(
        "rightmost eigenvalues, expected all; use method='dense'",
        lambda p: spectrum(NET, X, FREE, method="rightmost", count=1).all(),
        lambda p: spectrum(NET, X, FREE, method="dense").all(),
    ),
    Advice(
        "needs a loop and a hard sigmoid; use 'dense' or 'rightmost' for this network",
        lambda p: spectrum(RECIPROCAL, X, fsp.relax(RECIPROCAL, X), method="exact"),
        lambda p: [spectrum(RECIPROCAL, X, fsp.relax(RECIPROCAL, X), method=m) for m in ("dense", "rightmost")],
    ),
    Advice(
        "compute the spectrum of this network at each beta instead",
        lambda p: admissible_beta(linearise(RECIPROCAL, X, fsp.relax(RECIPROCAL, X))),
        lambda p: spectrum(RECIPROCAL, X, fsp.relax(RECIPROCAL, X, nudge=fsp.Nudge(0.5, D)), fsp.Nudge(0.5, D)),
    ),
    Advice(
        "spans no plane; use a smaller step or a weaker loop",
        lambda p: principal_plane(np.full((4, 8), np.nan)),
        lambda p: principal_plane(fsp.simulate(NET, X[:1], [(2.0, None)], solver=RK4).states[0][:, 0]),
    ),
    Advice(
        "compare: no sample both has an error and converges in both phases; weaken the loop",
        lambda p: compare(ring(3.0), X, D[:, :1], RECIPE),
        lambda p: compare(ring(1.0), X, D[:, :1], RECIPE),
    ),
]
TRAINING = [
    Advice(
        "give datasets.Split(images, labels)",
        lambda p: train_epoch(Learner.start(NET, RECIPE, 0), (X, Y), RECIPE),
        lambda p: train_epoch(Learner.start(NET, RECIPE, 0), Split(X, Y), RECIPE),
    ),
    Advice(
        "the data hold no images; give at least one",
        lambda p: train_epoch(Learner.start(NET, RECIPE, 0), Split(X[:0], Y[:0]), RECIPE),
        lambda p: train_epoch(Learner.start(NET, RECIPE, 0), Split(X[:1], Y[:1]), RECIPE),
    ),
    Advice(
        ", but the network has no loop that could follow; leave it out",
        lambda p: Learner.start(RECIPROCAL, Recipe(Sgd(LearningRates(1.0, (1.0,))), RECIPE.solver, mirror=0.5)),
        lambda p: Learner.start(RECIPROCAL, Recipe(Sgd(LearningRates(1.0, (1.0,))), RECIPE.solver)),
    ),
    Advice(
        "belongs to kind = 'exponential', not to",
        lambda p: Averaging("equal", factor=0.5),
        lambda p: Averaging("equal"),
    ),
    Advice(
        "; lower its learning rate",
        lambda p: [train_epoch(*started(1e200)) for _ in range(3)],
        lambda p: train_epoch(*started(1.0)),
    ),
]


def started(rate: float) -> tuple[Learner, Split, Recipe]:
    recipe = Recipe(Sgd(LearningRates(rate, (rate,), rate), normalised=False), RECIPE.solver)
    network = NET.astype("float32")
    return Learner.start(network, recipe, 0), Split(X, Y), recipe


def stuck(place: Path, factor: float) -> Any:
    """An epoch of the preset at so many times its hidden rates; its warnings about stuck units as
    an error.
    """
    rates = {"learning.rates.input": factor * 20.0, "learning.rates.forward": [factor * 30.0, 7.0]}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run = fsp.train("digits", out=place / f"{factor}", epochs=1, progress=False, threads=1, **rates)
    told = [str(each.message) for each in seen if "tell no images apart" in str(each.message)]
    if told:
        raise ConfigurationError("; ".join(told))
    return run


STUCK = Advice(
    "tell no images apart; lower learning.rates.",
    lambda p: stuck(p, 10.0),
    lambda p: stuck(p, 1.0),
)

DATA = [
    Advice(
        "or give rows (B, c h w)",
        lambda p: fsp.dataset_from_arrays(np.zeros((6, 3, 2, 3)), np.arange(6) % 2),
        lambda p: fsp.dataset_from_arrays(np.zeros((6, 18)), np.arange(6) % 2, image_shape=(3, 2, 3)),
    ),
    Advice(
        "give test_images and test_labels, or neither",
        lambda p: own(test_labels=None),
        lambda p: [own(), own(test_images=None, test_labels=None)],
    ),
    Advice(
        "give `classes` if so many are meant",
        lambda p: own(labels=Y * 1000),
        lambda p: own(labels=Y * 1000, classes=2001),
    ),
    Advice(
        "give labels - 1, ",
        lambda p: own(labels=Y + 1, test_labels=Y + 1),
        lambda p: [own(labels=Y, test_labels=Y), own(labels=Y + 1, test_labels=Y + 1, classes=4)],
    ),
    Advice(
        "if these are meant",
        lambda p: own(labels=np.repeat([0, 5], 3), test_labels=np.repeat([0, 5], 3)),
        lambda p: [
            own(labels=np.repeat([0, 5], 3), test_labels=np.repeat([0, 5], 3), classes=6),
            own(labels=np.unique(np.repeat([0, 5], 3), return_inverse=True)[1], test_labels=[0, 1, 0, 1, 0, 1]),
        ],
    ),
    Advice("add what is lacking, then ", lambda p: own(images=X - 0.5), lambda p: own(images=((X - 0.5) + 0.5) / 1.0)),
    Advice(
        "number them from 0",
        lambda p: npz(p, images=X, labels=np.repeat([0, 5], 3)),
        lambda p: npz(p, images=X, labels=np.unique(np.repeat([0, 5], 3), return_inverse=True)[1]),
    ),
    Advice(
        "); save it again with numpy.savez",
        lambda p: read_dataset(file(p, "own.npz", b"PK\x03\x04 damaged")),
        lambda p: npz(p, images=X, labels=Y),
    ),
    Advice(
        "give the folder or file that does",
        lambda p: (
            read_dataset((pictures(p) / "a").parent / "a" / "nothing")
            if (pictures(p) / "a" / "nothing").mkdir()
            else read_dataset(p / "set" / "a" / "nothing")
        ),
        lambda p: read_dataset(pictures(p / "good")),
    ),
    Advice(
        "fill or remove it",
        lambda p: [pictures(p), (p / "set" / "c").mkdir(), read_dataset(p / "set")],
        lambda p: [(p / "set" / "c").rmdir(), read_dataset(p / "set")],
    ),
    Advice(
        "; put it into the folder of its class",
        lambda p: [pictures(p), picture(p / "set", "x.png"), read_dataset(p / "set")],
        lambda p: [(p / "set" / "x.png").rename(p / "set" / "a" / "x.png"), read_dataset(p / "set")],
    ),
    Advice(
        "as the first picture; bring all pictures to one size",
        lambda p: [pictures(p), picture(p / "set", "b/x.png", (4, 4)), read_dataset(p / "set")],
        lambda p: [picture(p / "set", "b/x.png"), read_dataset(p / "set")],
    ),
    Advice(
        "without transparency; save it so",
        lambda p: [pictures(p), picture(p / "set", "b/x.png", mode="RGBA"), read_dataset(p / "set")],
        lambda p: [picture(p / "set", "b/x.png", mode="RGB"), read_dataset(p / "set")],
    ),
    Advice(
        "); move it elsewhere",
        lambda p: [pictures(p), file(p, "set/a/notes.txt", b""), read_dataset(p / "set")],
        lambda p: [(p / "set" / "a" / "notes.txt").rename(p / "notes.txt"), read_dataset(p / "set")],
    ),
    Advice(
        "expected test or valid; move it elsewhere",
        lambda p: [
            pictures(p).rename(p / "train"),
            file(p, "more/train/x", b""),
            beside_train(p),
            read_dataset(p / "all"),
        ],
        lambda p: [(p / "all" / "notes").rename(p / "notes"), read_dataset(p / "all")],
    ),
    Advice(
        "or is damaged; put the undamaged file in its place",
        lambda p: [pictures(p), file(p, "set/a/0.png", b"no picture"), read_dataset(p / "set")],
        lambda p: [picture(p / "set", "a/0.png"), read_dataset(p / "set")],
    ),
    Advice(
        "these are test images; give the file of the training images, or the folder",
        lambda p: [idx_files(p), read_dataset(p / "idx" / "t10k-images-idx3-ubyte")],
        lambda p: [read_dataset(p / "idx" / "train-images-idx3-ubyte"), read_dataset(p / "idx")],
    ),
    Advice(
        "sets of IDX files; give one of these files",
        lambda p: [idx_files(p), idx_files(p, "other-"), read_dataset(p / "idx")],
        lambda p: [
            read_dataset(p / "idx" / name) for name in ("train-images-idx3-ubyte", "other-train-images-idx3-ubyte")
        ],
    ),
    Advice(
        "; put the undamaged file in its place",
        lambda p: [idx_files(p), file(p, "idx/train-labels-idx1-ubyte", b"\0\0"), read_dataset(p / "idx")],
        lambda p: [idx_files(p), read_dataset(p / "idx")],
    ),
]


def beside_train(place: Path) -> None:
    (place / "all").mkdir()
    (place / "train").rename(place / "all" / "train")
    (place / "all" / "notes").mkdir()


def idx_files(place: Path, start: str = "") -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 6)):
        images, labels = rng.integers(0, 256, (count, 2, 2)).astype(np.uint8), (np.arange(count) % 3).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            file(place, f"idx/{start}{part}-{kind}-ubyte", header + array.tobytes())


def chosen(key: str, value: Any, **rest: Any) -> Any:
    return config(**{key: value, **rest})


TWO_KINDS = {"network.kind": "reciprocal", "network.loop_scale": None, "learning.rates.loop": None}
COSINE = {"learning.schedule.kind": "cosine", "learning.schedule.epochs": 9}
MOVED = {"learning.augmentation.shift": 1, "data.limit": None}
CONFIGURATION = [
    Advice(
        "is a note of a preset; leave it out: what a run measured is in its summary.json",
        lambda p: config(**{"notes.measured": "much", "learning.beta": 0.5}),
        lambda p: config(**{"learning.beta": 0.5}),
    ),
    Advice(
        "; give smaller layers",
        lambda p: config(**{"network.hidden": [10**6, 10**6]}),
        lambda p: config(**{"network.hidden": [1000, 1000]}),
    ),
    Advice(
        "given, expected exactly one; give one of the two",
        lambda p: load_config(
            {
                "data": {},
                "learning": {"epochs": 1, "rates": {"input": 1.0, "forward": [1.0]}},
                "network": {"hidden": [3]},
            }
        ),
        lambda p: config(**{"data.name": "digits"}),
    ),
    Advice(
        "leaves no validation images to judge by; give some, or leave patience out",
        lambda p: config(**{"learning.patience": 1, "data.validation": 0}),
        lambda p: [
            config(**{"learning.patience": 1, "data.validation": 10}),
            config(**{"learning.patience": None, "data.validation": 0}),
        ],
    ),
    Advice("or give a file that ends in .toml", lambda p: load_config("no-preset"), lambda p: toml(p)),
    Advice(
        "give a TOML file, a run folder or a preset",
        lambda p: load_config(p / "none.toml"),
        lambda p: [toml(p), train(p), load_config(p / "run"), load_config("digits")],
    ),
    Advice("; correct that line", lambda p: toml(p, extra="\nx = ="), lambda p: toml(p)),
    Advice("save the TOML file in that encoding", lambda p: toml(p, "utf-16"), lambda p: toml(p, "utf-8-sig")),
    Advice(
        "; leave it out (network.", lambda p: config(**{"network.kind": "reciprocal"}), lambda p: config(**TWO_KINDS)
    ),
    Advice(
        "has no loop; leave it out (learning.rates.loop=None)",
        lambda p: config(**{**TWO_KINDS, "learning.rates.loop": 0.5}),
        lambda p: config(**TWO_KINDS),
    ),
    Advice(
        "has no loop that could follow; leave it out (learning.mirror=None)",
        lambda p: config(**TWO_KINDS, **{"learning.mirror": 0.5}),
        lambda p: config(**TWO_KINDS, **{"learning.mirror": None}),
    ),
    Advice(
        "moves the loop, which learning.frozen names; leave out one of them (learning.mirror=None)",
        lambda p: checked(**{"learning.mirror": 0.5, "learning.frozen": ["loop"]}),
        lambda p: [
            checked(**{"learning.mirror": None, "learning.frozen": ["loop"]}),
            checked(**{"learning.mirror": 0.5, "learning.frozen": []}),
        ],
    ),
    Advice(
        "; leave it out (learning.average.",
        lambda p: config(**{"learning.average": {"kind": "equal", "factor": 0.5}}),
        lambda p: [
            config(**{"learning.average": {"kind": "equal", "factor": 0.5}, "learning.average.factor": None}),
            config(**{"learning.average": {"kind": "exponential", "factor": 0.5}}),
        ],
    ),
    Advice(
        "so nothing would be averaged; give",
        lambda p: config(**{"learning.epochs": 2, "learning.average": {"kind": "equal", "start": 2}}),
        lambda p: config(**{"learning.epochs": 2, "learning.average": {"kind": "equal", "start": 1}}),
    ),
    Advice(
        "no picture with a height and a width; leave it out, or say what they are",
        lambda p: train(p, data=wide(), **MOVED),
        lambda p: [
            train(p, "out", data=wide(), **{"data.limit": None}),
            train(p, "said", data=wide(image_shape=(2, 6)), **MOVED),
        ],
    ),
    Advice(
        "so nothing would learn; leave some out",
        lambda p: config(**{"learning.frozen": list(NAMES)}),
        lambda p: config(**{"learning.frozen": list(NAMES[:-1])}),
    ),
    Advice(
        "or leave it out (learning.rates.biases=None)",
        lambda p: config(**{"learning.rates.biases": 1.0}),
        lambda p: [config(**{"learning.rates.biases": rates}) for rates in ([1.0, 1.0, 1.0], None)],
    ),
    Advice(
        " belongs to learning.schedule.kind = ",
        lambda p: config(**COSINE),
        lambda p: config(**COSINE, **{"learning.rate_factor": None}),
    ),
    Advice(
        " is missing, which learning.schedule.kind = ",
        lambda p: config(**{"learning.schedule.kind": "cosine", "learning.rate_factor": None}),
        lambda p: config(**COSINE, **{"learning.rate_factor": None}),
    ),
    Advice(
        "choose another rule, or network.tied = false",
        lambda p: config(**TWO_KINDS, **{"learning.rule": "mean_subtracted"}),
        lambda p: [
            config(**TWO_KINDS, **{"learning.rule": "hebbian"}),
            config(
                **TWO_KINDS,
                **{"learning.rule": "mean_subtracted", "network.tied": False, "learning.rates.backward": [1.0, 1.0]},
            ),
        ],
    ),
    Advice(
        "give a number other than 0, such as 1.0",
        lambda p: config(**{"learning.beta": 0.0}),
        lambda p: config(**{"learning.beta": 1.0}),
    ),
    Advice(
        "are both 0, which can never be met; ",
        lambda p: config(**{"solver.absolute": 0.0}),
        lambda p: config(**{"solver.absolute": 1e-4}),
    ),
    Advice(
        "or choose another solver",
        lambda p: config(**{"solver.dt": 0.1}),
        lambda p: [
            config(**{"solver.dt": None}),
            config(**{"solver.dt": 0.1, "solver.name": "numba_ode", "solver.method": "rk4"}),
        ],
    ),
    Advice(
        "give learning.rule = 'hebbian' or 'mean_subtracted'",
        lambda p: config(**{"learning.presynaptic": "other"}),
        lambda p: [config(**{"learning.rule": rule}) for rule in ("hebbian", "mean_subtracted")],
    ),
    Advice(
        "choose one of the two rules",
        lambda p: config(**{"learning.presynaptic": "deviation", "learning.rule": "products"}),
        lambda p: [config(**{"learning.rule": rule}) for rule in ("products", "mean_subtracted")],
    ),
]
NAMES = ("input", "forward[0]", "forward[1]", "loop", "biases[0]", "biases[1]", "biases[2]")
RUNS = [
    Advice(
        "is a run; resume it (resume=True) or give a folder for another one of the same kind (out=...)",
        lambda p: [train(p), fsp.train(p / "run", progress=False)],
        lambda p: [again(p, epochs=2), fsp.train(p / "run", out=p / "other", progress=False, threads=1)],
    ),
    Advice(
        "already holds a run; resume it (resume=True) or give another folder (out=...)",
        lambda p: [train(p), train(p)],
        lambda p: [train(p, resume=True, epochs=2), train(p, "other")],
    ),
    Advice(
        "; ask for as many or more",
        lambda p: [train(p, epochs=2), again(p, epochs=1)],
        lambda p: [again(p, epochs=2), again(p, epochs=3)],
    ),
    Advice(
        "; resume with the same one, allow the change (",
        lambda p: [train(p), again(p, epochs=2, **{"learning.beta": 0.5})],
        lambda p: [train(p, "other", **{"learning.beta": 0.5}), again(p, epochs=2)],
    ),
    Advice(
        "take the last network (which='last')",
        lambda p: [train(p), removed(p / "run/checkpoints/best.json"), open_run(p / "run").network()],
        lambda p: open_run(p / "run").evaluate(which="last"),
    ),
    Advice(
        "; choose another part",
        lambda p: train(p, **{"data.validation": 0}).evaluate("valid"),
        lambda p: open_run(p / "run").evaluate("test"),
    ),
    Advice(
        "; leave data out",
        lambda p: [train(p), open_run(p / "run", data=own())],
        lambda p: open_run(p / "run").evaluate(),
    ),
    Advice(
        "no folder; give the folder that holds the runs (by default runs/)",
        lambda p: list_runs(p / "none"),
        lambda p: [train(p), list_runs(p)],
    ),
    Advice(
        "holds a run that is no quickstart; give another folder (out=...)",
        lambda p: [train(p), quickstart(p / "run", reporter(False))],
        lambda p: quickstart(p / "other", reporter(False)),
    ),
    Advice(
        "expected a folder; give one, or leave the option out (an unset shell variable?)",
        lambda p: command("runs", "--out", ""),
        lambda p: command("runs", p),
    ),
    Advice(
        "expected a list; give callbacks=[...]",
        lambda p: Callbacks(print_nothing),
        lambda p: Callbacks([print_nothing]),
    ),
    Advice(
        "if you trust it, give allow_import=(",
        lambda p: [train(p, activation=SMOOTH), again(p, epochs=2)],
        lambda p: again(p, epochs=2, allow_import=("advice",)),
    ),
    Advice(
        "expected a list of functions, such as [",
        lambda p: train(p, callbacks=print_nothing),
        lambda p: train(p, callbacks=[print_nothing]),
    ),
    Advice(
        "activation beside network, which has one of its own; leave activation out",
        lambda p: mine(p, network=own_network(), activation="logistic"),
        lambda p: mine(p, network=own_network()),
    ),
    Advice("a Dataset that is split already; leave ", lambda p: mine(p, **{"data.limit": 10}), lambda p: mine(p)),
    Advice(
        "neither a loop nor backward connections, so a nudge of the output would reach ",
        lambda p: mine(p, network=dataclasses.replace(own_network(), loop=None)),
        lambda p: mine(p, network=own_network()),
    ),
    Advice(
        "; give a network for these data",
        lambda p: mine(p, network=fsp.loop_network([5, 5, 3], rng=0)),
        lambda p: mine(p, network=own_network()),
    ),
    Advice(
        "has no curvature, which the probes' gradients need; ",
        lambda p: train(p, activation=SMOOTH, probes={"samples": 5}),
        lambda p: [train(p, activation=SMOOTH), train(p, "curved", activation=CURVED, probes={"samples": 5})],
    ),
    Advice(
        "and no import path leads back to it; in Python, give it again",
        lambda p: [train(p, activation=nameless()), again(p, epochs=2)],
        lambda p: again(p, epochs=2, activation=nameless()),
    ),
]


def mine(place: Path, **parts: Any) -> Any:
    """A training on own data."""
    options: dict[str, Any] = {"epochs": 1, "probes": {"samples": 0}, "progress": False, "threads": 1}
    return fsp.train(out=place / "run", data=small_set(), **options, **parts)


def nameless() -> Activation:
    return Activation("nameless", SMOOTH.rate, SMOOTH.slope)


def print_nothing(record: Any, network: Any) -> None:
    """A callback."""


def own_network() -> Any:
    return fsp.loop_network([4, 5, 3], loop_scale=0.2, rng=0)


def small_set() -> Any:
    rng = np.random.default_rng(0)
    return fsp.dataset_from_arrays(rng.random((30, 4)), np.arange(30) % 3)


GRID = {"beta": [0.5]}
SWEEPS = [
    Advice(
        "whose members differ in it; give seeds (seeds=...)", lambda p: swept(p, seed=3), lambda p: swept(p, seeds=[3])
    ),
    Advice(
        "give them as seeds (seeds=...)", lambda p: swept(p, grid={"seed": [1, 2]}), lambda p: swept(p, seeds=[1, 2])
    ),
    Advice(
        "is ambiguous; give one of: ",
        lambda p: swept(p, grid={"name": ["digits"]}),
        lambda p: swept(p, grid={"data.name": ["digits"]}),
    ),
    Advice(
        "by the grid and beside it; leave one out",
        lambda p: swept(p, grid=GRID, **{"learning.beta": 1.0}),
        lambda p: [swept(p, grid=GRID), swept(p, out=p / "other", **{"learning.beta": 1.0})],
    ),
    Advice(
        "; the rates fit one depth, so give both as pairs (pairs=...): ",
        lambda p: swept(p, grid={"hidden": [[5], [5, 5]]}, **{"network.hidden": None}),
        lambda p: swept(
            p,
            pairs={"hidden": [[5], [5, 5]], "rates.forward": [[7.0], [7.0, 7.0]]},
            **{"network.hidden": None, "learning.rates.forward": None},
        ),
    ),
    Advice(
        "pairs of different length: ",
        lambda p: swept(p, pairs={"beta": [0.5, 1.0], "momentum": [0.5]}),
        lambda p: swept(p, pairs={"beta": [0.5, 1.0], "momentum": [0.0, 0.5]}),
    ),
    Advice(
        "in two of grid, pairs and random; leave one out",
        lambda p: swept(p, grid=GRID, pairs=GRID),
        lambda p: swept(p, pairs=GRID),
    ),
    Advice(
        "expected KIND:VALUES; give such as uniform:0.5,2, ",
        lambda p: swept(p, random={"beta": "0.5,2"}),
        lambda p: swept(p, random={"beta": "uniform:0.5,2"}, draws=1),
    ),
    Advice(
        " has no values; give one or more, with commas",
        lambda p: swept(p, random={"beta": "choice:"}),
        lambda p: swept(p, random={"beta": "choice:0.5,1"}, draws=1),
    ),
    Advice(
        "the smaller first; give such as ",
        lambda p: swept(p, random={"beta": "log:2,1"}),
        lambda p: swept(p, random={"beta": "log:1,10"}, draws=1),
    ),
    Advice(
        "expected whole numbers after integer:; give uniform: for others",
        lambda p: swept(p, random={"beta": "integer:0.5,2"}),
        lambda p: swept(p, random={"beta": "uniform:0.5,2"}, draws=1),
    ),
    Advice(
        "is given twice; give all its values at once",
        lambda p: swept(p, grid={"beta": [0.5], "learning.beta": [1.0]}),
        lambda p: swept(p, grid={"beta": [0.5, 1.0]}),
    ),
    Advice(
        "has no values; give one or more, or leave it out",
        lambda p: swept(p, grid={"beta": []}),
        lambda p: [swept(p, grid=GRID), swept(p, out=p / "other")],
    ),
    Advice("twice; give each value once", lambda p: swept(p, grid={"beta": [0.5, 0.5]}), lambda p: swept(p, grid=GRID)),
    Advice(
        "is a run, not the folder of a sweep; give another folder (out=...)",
        lambda p: [train(p), swept(p, out=p / "run")],
        lambda p: swept(p),
    ),
    Advice(
        "give the same one, with more seeds or values, or another folder (out=...)",
        lambda p: [swept(p, grid=GRID), swept(p, grid={"batch": [10]})],
        lambda p: [swept(p, grid={"beta": [0.5, 1.0]}, seeds=2), swept(p, grid={"batch": [10]}, out=p / "other")],
    ),
    Advice(
        "; move it away, or give another folder (out=...)",
        lambda p: [swept(p), (p / "sweep/sweep.json").unlink(), swept(p, **{"learning.beta": 0.5})],
        lambda p: [
            (p / "sweep/seed=0").rename(p / "away"),
            swept(p, **{"learning.beta": 0.5}),
            swept(p, out=p / "other", **{"learning.beta": 0.5}),
        ],
    ),
    Advice(
        "); give the folder of one (by default in sweeps/)",
        lambda p: open_sweep(p),
        lambda p: [swept(p), open_sweep(p / "sweep")],
    ),
    Advice(
        "is damaged; restore it, or remove it and sweep again: finished runs are kept",
        lambda p: [swept(p), file(p, "sweep/sweep.json", b"{"), open_sweep(p / "sweep")],
        lambda p: [(p / "sweep/sweep.json").unlink(), swept(p), open_sweep(p / "sweep")],
    ),
    Advice(
        "so there is nothing to draw; run the sweep again to continue it",
        lambda p: [swept(p), (p / "sweep/seed=0/summary.json").unlink(), open_sweep(p / "sweep").plot()],
        lambda p: swept(p).plot(),
    ),
]


def drawn(place: Path, *folders: Path, name: str = "errors", **options: Any) -> Any:
    return make(name, folders, place / "figures", **options)


FIGURES = [
    Advice(
        "in a loop with a hard sigmoid alone, and its network ",
        lambda p: drawn(p, train(p, probes={"samples": 20}, **{"network.rho": "logistic"}).folder, name="spectra"),
        lambda p: drawn(p, train(p, "other", probes={"samples": 20}).folder, name="spectra"),
    ),
    Advice(
        "train it again with probes.samples = 100",
        lambda p: drawn(p, train(p).folder, name="spectra"),
        lambda p: drawn(p, train(p, "other", probes={"samples": 100}).folder, name="spectra"),
    ),
    Advice(
        "; give runs that share the rest of their configuration",
        lambda p: drawn(p, train(p, "a", seed=0).folder, train(p, "b", seed=1, **{"learning.batch": 10}).folder),
        lambda p: drawn(p, p / "a", train(p, "c", seed=1).folder),
    ),
    Advice(
        "); give one of them",
        lambda p: drawn(p, train(p, "a").folder, train(p, "b").folder),
        lambda p: drawn(p, p / "a"),
    ),
    Advice(
        "so there are no runs; give the folder of a run or of runs, or ",
        lambda p: drawn(p, p / "none"),
        lambda p: [train(p), drawn(p, p / "run"), drawn(p, p)],
    ),
]
TORCH = [
    Advice(
        "give passes=K for higher ones", lambda p: second(SOFT.to_torch()), lambda p: second(SOFT.to_torch(passes=20))
    ),
    Advice(
        "or take what was reached with require_converged=False",
        lambda p: module(max_passes=1)(torch.tensor(X)),
        lambda p: module(max_passes=1, require_converged=False)(torch.tensor(X)),
    ),
    Advice(
        "makes exactly so many; leave max_passes = ",
        lambda p: NET.to_torch(passes=3, max_passes=5),
        lambda p: NET.to_torch(passes=3),
    ),
    Advice(
        "which smooth units need here; give Activation(..., curvature=...)",
        lambda p: dataclasses.replace(NET, rho=SMOOTH).to_torch(),
        lambda p: dataclasses.replace(NET, rho=CURVED).to_torch(),
    ),
    Advice(
        "expected a tensor; make one with torch.as_tensor",
        lambda p: NET.to_torch()(X),
        lambda p: NET.to_torch()(torch.as_tensor(X)),
    ),
    Advice(
        "expected float32 or float64; call .float() or .double() first",
        lambda p: NET.to_torch().half()(torch.tensor(X)),
        lambda p: [NET.to_torch().half().float()(torch.tensor(X)), NET.to_torch().half().double()(torch.tensor(X))],
    ),
    Advice(
        "weights, expected float32; use products = 'full'",
        lambda p: fsp.relax(NET, X, solver=fsp.make_solver("torch_fixed_point", products="tf32", device="cpu")),
        lambda p: fsp.relax(NET, X, solver=fsp.make_solver("torch_fixed_point", products="full", device="cpu")),
    ),
    Advice(
        "; use cpu or auto",
        lambda p: fsp.relax(NET, X, solver=fsp.make_solver("torch_fixed_point", device="cuda:99")),
        lambda p: [fsp.relax(NET, X, solver=fsp.make_solver("torch_fixed_point", device=d)) for d in ("cpu", "auto")],
    ),
]


def module(**options: Any) -> Any:
    return NET.with_parameters({"loop": 4 * NET.loop}).to_torch(**options)


def second(made: Any) -> Any:
    images = torch.tensor(X, requires_grad=True)
    (first,) = torch.autograd.grad(made(images).sum(), images, create_graph=True)
    return torch.autograd.grad(first.square().sum(), images)


def told(call: Callable[[], Any]) -> None:
    """The first warning of a call as an error."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    for each in seen:
        raise ConfigurationError(str(each.message))


def silent(call: Callable[[], Any]) -> None:
    """A call that gives no warning about data or phases."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        warnings.filterwarnings("error", "beta = ")
        call()


class Odd:
    def __float__(self) -> float:
        raise ValueError("no number after all")


def interrupted() -> Learner:
    """A learner that was left in the middle of an epoch."""
    recipe = dataclasses.replace(RECIPE, batch=2)
    learner = Learner.start(NET, recipe, 0)
    with contextlib.suppress(KeyboardInterrupt):
        train_epoch(learner, Split(X, Y), recipe, stop)
    return learner


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


LOOSE = fsp.Tolerance(1e-4)
KINDS, SOME = (("a", {}), ("b", TWO_KINDS)), {"samples": 20}
MORE = [
    Advice(
        "expected numbers in [0, 1]; give ",
        lambda p: fsp.relax(NET, (255 * X).astype(np.uint8)),
        lambda p: fsp.relax(NET, (255 * X).astype(np.uint8) / 255),
    ),
    Advice(
        "are whole numbers above 1, expected numbers in [0, 1]; divide by the largest possible value",
        lambda p: told(lambda: fsp.relax(NET, (255 * X).astype(int))),
        lambda p: silent(lambda: fsp.relax(NET, (255 * X).astype(int) / 255)),
    ),
    Advice(
        ", expected numbers in [0, 1]; divide by the largest possible value",
        lambda p: told(lambda: fsp.relax(NET, 16 * X)),
        lambda p: silent(lambda: fsp.relax(NET, 16 * X / 16)),
    ),
    Advice(
        "holds what is no number (",
        lambda p: fsp.relax(NET, np.array([[Odd()] * 4], object)),
        lambda p: fsp.relax(NET, np.array([[0.5] * 4], object)),
    ),
    Advice(
        "; raise beta, or relax both phases with a lower tolerance",
        lambda p: told(lambda: updated(1e-6, LOOSE)),
        lambda p: [silent(lambda: updated(1.0, LOOSE)), silent(lambda: updated(1e-6, fsp.Tolerance(1e-12)))],
    ),
    Advice(
        "; raise beta, or lower the tolerance below ",
        lambda p: Learner.start(NET, dataclasses.replace(RECIPE, beta=1e-5)),
        lambda p: [
            Learner.start(NET, dataclasses.replace(RECIPE, beta=1.0)),
            Learner.start(NET, dataclasses.replace(RECIPE, beta=1e-5, tolerance=fsp.Tolerance(1e-10))),
        ],
    ),
    Advice(
        "were given; go on with the same data and recipe",
        lambda p: train_epoch(interrupted(), Split(X[:4], Y[:4]), dataclasses.replace(RECIPE, batch=2)),
        lambda p: train_epoch(interrupted(), Split(X, Y), dataclasses.replace(RECIPE, batch=2)),
    ),
    Advice(
        "set aside; give more of it, or a smaller validation",
        lambda p: told(lambda: own(labels=[1, 0, 1, 0, 0, 2])),
        lambda p: [
            silent(lambda: own(labels=[1, 0, 1, 0, 0, 2], validation=0)),
            silent(lambda: own(labels=[1, 0, 2, 0, 0, 2])),
        ],
    ),
    Advice(
        "of [0, 1]; if they were divided twice, divide them once",
        lambda p: told(lambda: own(images=X / 255, test_images=X / 255)),
        lambda p: silent(lambda: own(images=X, test_images=X)),
    ),
    Advice(
        "are divided by 255; if that is white, give images / ",
        lambda p: told(lambda: own(images=(16 * X).astype(np.uint8), test_images=(16 * X).astype(np.uint8))),
        lambda p: silent(
            lambda: own(images=(16 * X).astype(np.uint8) / 16, test_images=(16 * X).astype(np.uint8) / 16)
        ),
    ),
    Advice(
        "bytes; use smaller or fewer pictures",
        lambda p: read_pictures(pictures(p), 95),
        lambda p: read_pictures(p / "set", 96),
    ),
    Advice(
        "cannot be read as a picture (",
        lambda p: [
            pictures(p),
            file(p, "set/a/0.png", (p / "set/a/1.png").read_bytes()[:20]),
            read_dataset(p / "set"),
        ],
        lambda p: [picture(p / "set", "a/0.png"), read_dataset(p / "set")],
    ),
    Advice(
        "put the former ones back, or train from the beginning in another folder",
        lambda p: [mine(p, network=own_network()), open_run(p / "run", data=own())],
        lambda p: [
            open_run(p / "run", data=small_set()).evaluate(),
            fsp.train(data=own(), out=p / "other", progress=False, epochs=1, probes={"samples": 0}),
        ],
    ),
    Advice(
        "belongs to backend torch, not to ",
        lambda p: train(p, device="cpu"),
        lambda p: [train(p, "a", device="cpu", backend="torch"), train(p, "b")],
    ),
    Advice(
        "does not run on backend torch; choose one of: ",
        lambda p: train(p, backend="torch", **{"solver.name": "reference"}),
        lambda p: [train(p, "a", backend="torch", **{"solver.name": "fixed_point"}), train(p, "b")],
    ),
    Advice(
        "does not run on backend torch; use backend numba, or leave it out",
        lambda p: train(p, backend="torch", device="cpu", **{"solver.method": "newton"}),
        lambda p: [
            train(p, "a", **{"solver.method": "newton", "data.limit": 20}),
            train(p, "b", backend="torch", device="cpu"),
        ],
    ),
    Advice(
        "belongs to solver fixed_point, not to torch_ode; leave it out",
        lambda p: backend_of("torch", "cpu", "tf32").solver(torch_ode()),
        lambda p: backend_of("torch", "cpu").solver(torch_ode()),
    ),
    Advice(
        ", which controls its step; leave dt out, or take one of: ",
        lambda p: fsp.make_solver("torch_ode", method="dopri5", dt=0.1),
        lambda p: [fsp.make_solver("torch_ode", method="dopri5"), fsp.make_solver("torch_ode", method="rk4", dt=0.1)],
    ),
    Advice(
        " does not control its step; give dt, or take one of: ",
        lambda p: fsp.make_solver("torch_ode", method="rk4"),
        lambda p: [fsp.make_solver("torch_ode", method="rk4", dt=0.1), fsp.make_solver("torch_ode", method="dopri5")],
    ),
    Advice(
        "and --runs without --train makes nothing; leave them out",
        lambda p: [train(p), command("figure", "errors", "--runs", p / "run", "--epochs", "1", "--out", p / "f")],
        lambda p: command("figure", "errors", "--runs", p / "run", "--out", p / "f"),
    ),
    Advice(
        ", or train them (",
        lambda p: drawn(p, train(p, "all/a", probes={"samples": 20}).folder, name="alignment"),
        lambda p: [
            train(p, "all/b", probes={"samples": 20}, **{"learning.frozen": ["loop"]}),
            train(p, "all/c", probes={"samples": 20}, **{"learning.frozen": ["forward[0]"]}),
            drawn(p, p / "all", name="alignment"),
        ],
    ),
    Advice(
        "; leave it out, or give a folder of runs",
        lambda p: drawn(p, *(train(p, f"all/{n}", probes=SOME, **k).folder for n, k in KINDS), name="spectra"),
        lambda p: [drawn(p, p / "all/a", name="spectra"), drawn(p, p / "all", name="spectra")],
    ),
    Advice(
        "; give the folder of a run",
        lambda p: open_run(p / "none"),
        lambda p: [train(p), open_run(p / "run")],
    ),
    Advice(
        "restore it, or give another folder (out=...)",
        lambda p: [train(p), (p / "run/config.toml").rename(p / "config.toml"), train(p)],
        lambda p: [train(p, "other"), (p / "config.toml").rename(p / "run/config.toml"), again(p, epochs=2)],
    ),
    Advice(
        "is a link, expected a file; put the file itself in its place",
        lambda p: [train(p), linked(p / "run/config.toml"), again(p, epochs=2)],
        lambda p: [(p / "run/aside").replace(p / "run/config.toml"), again(p, epochs=2)],
    ),
    Advice(
        "; wait for it or give another folder (out=...)",
        lambda p: [train(p), while_locked(p, lambda: again(p, epochs=2))],
        lambda p: [while_locked(p, lambda: train(p, "other")), again(p, epochs=2)],
    ),
    Advice(
        "restore it, or begin anew: ",
        lambda p: [train(p), (p / "run/checkpoints/last.json").rename(p / "last.json"), again(p, epochs=2)],
        lambda p: [
            command("train", p / "run", "--out", p / "new", "--no-progress"),
            (p / "last.json").rename(p / "run/checkpoints/last.json"),
            again(p, epochs=2),
        ],
    ),
    Advice(
        "put it back, or allow the change: ",
        lambda p: [train(p), edited(p / "run/config.toml", "beta = 1.0", "beta = 0.5"), again(p, epochs=2)],
        lambda p: command("train", p / "run", "--resume", "--epochs", 2, "--allow", "learning.beta", "--no-progress"),
    ),
    Advice(
        "or name its folder in PYTHONPATH",
        lambda p: train(p, rule="own_of_advice:Mine"),
        lambda p: [
            file(p, "parts/own_of_advice.py", RULE.encode()),
            with_path(p / "parts", lambda: train(p, rule="own_of_advice:Mine")),
        ],
    ),
    Advice(
        "; give an object of it",
        lambda p: train(p, rule=Needs),
        lambda p: train(p, rule=Needs(0)),
    ),
    Advice(
        ", which decides it; leave one of the two out",
        lambda p: train(p, rule="products", **{"learning.rule": "hebbian"}),
        lambda p: [train(p, "a", rule="products"), train(p, "b", **{"learning.rule": "hebbian"})],
    ),
    Advice(
        "give it again (network=...), or leave the key out to draw one from the seed",
        lambda p: [mine(p, network=own_network()), copied(p)],
        lambda p: [copied(p, "a", network=own_network()), copied(p, "b", **{"network.initial": None})],
    ),
    Advice(
        " epochs that are not among those asked for now (",
        lambda p: [swept(p, grid={"beta": [0.5, 1.0]}), swept(p, grid=GRID, epochs=2)],
        lambda p: [swept(p, grid={"beta": [0.5, 1.0]}, epochs=2), swept(p, grid=GRID, epochs=3, out=p / "other")],
    ),
    Advice(
        "; pass dataset= the matching name or Dataset",
        lambda p: Session.of(own_network()),
        lambda p: Session.of(own_network(), small_set()),
    ),
    Advice(
        "; give the whole path",
        lambda p: list_datasets("~nobody-of-that-name/x"),
        lambda p: list_datasets(p.absolute() / "x"),
    ),
    Advice(
        "; call fit, which creates a new one, or restore the value",
        lambda p: classifier().set_params(hidden=(6,)).partial_fit(X, Y),
        lambda p: [
            classifier().set_params(hidden=(6,)).fit(X, Y),
            classifier().set_params(hidden=(6,)).set_params(hidden=(5,)).partial_fit(X, Y),
        ],
    ),
]
RULE = """
import fsp_dynamics as fsp
from fsp_dynamics.learning.rules.hebbian import HebbianRule

class Mine(HebbianRule):
    name = "mine"
"""


class Needs(HebbianRule):
    name = "needs"

    def __init__(self, value: int) -> None:
        """One that cannot be made without an argument."""


def updated(beta: float, tolerance: fsp.Tolerance) -> Any:
    free = fsp.relax(NET, X, tolerance=tolerance)
    nudged = fsp.relax(NET, X, nudge=fsp.Nudge(beta, D), start=free, tolerance=tolerance)
    return fsp.hebbian_update(NET, X, free, nudged)


def torch_ode() -> Any:
    return config(**{"solver.name": "torch_ode", "solver.method": "dopri5"})[1].solver


def linked(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def while_locked(place: Path, call: Callable[[], Any]) -> None:
    with RunFolder(place / "run").locked():
        call()


def edited(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def with_path(folder: Path, call: Callable[[], Any]) -> None:
    sys.path.insert(0, str(folder))
    try:
        call()
    finally:
        sys.path.remove(str(folder))


def copied(place: Path, name: str = "copy", **changes: Any) -> Any:
    """Another run of the configuration of `mine`."""
    table = load_config(place / "run")[1].table(exclude_none=True)
    table["data"] = {"name": "digits"}
    return fsp.train(table, out=place / name, data=small_set(), progress=False, threads=1, **changes)


def classifier() -> LoopClassifier:
    return LoopClassifier(hidden=(5,), epochs=1, random_state=0, scale=None).partial_fit(X, Y, classes=[0, 1, 2])


TRAINED = [*RUNS, *SWEEPS, *FIGURES, *MORE, STUCK]
ADVICE = [*RELAX, *ANALYSIS, *TRAINING, *DATA, *CONFIGURATION, *TORCH, *TRAINED]
CLUSTER = "experiments/sweeps/test_sweep_cluster.py::test_a_worker_killed_while_it_trains_costs_no_run_and_no_bit"
REGISTRY, SKLEARN = "datasets/test_registry.py", "test_sklearn.py"
STORED = "experiments/test_stored.py"
CHOOSING = "experiments/test_choosing.py"
PREDICT = "experiments/test_predict.py"
SWEEP = "experiments/sweeps/test_sweep.py"
FIGURE = "experiments/figures/test_figures.py"
BOARD = "experiments/test_tensorboard.py"
LEARNERS, TABLE = "experiments/learners/test_table.py", "test_cli_table.py"
PIPELINE = "experiments/jobs/test_pipeline.py::test_what_cannot_learn_at_once_is_refused"
COST = "test_cli_cost.py::test_what_a_refusal_advises_helps"
SPIKES = "test_cli_spikes.py::test_what_a_refusal_advises_helps"
NIR = "layerwise/test_nir.py::test_what_nir_cannot_say_exactly_is_refused_and_the_advice_helps"
REFUSALS = "layerwise/test_refusals.py::test_advice_that_is_followed_helps"
SPIKES = "layerwise/test_spikes.py::test_a_network_without_spikes_is_refused_in_one_line"
ELSEWHERE = {
    "the network has no spiking units; give one of network.kind": SPIKES,
    **dict.fromkeys(
        (
            "network.{} is missing, which network.kind = {} needs; give it",
            "belongs to learning.learner = 'fsp', not to {}; leave it out",
            "the state of {} is missing; resume from another checkpoint",
            "expected what Run.network() gives of a run of family",
            "data has 1 training image, expected 2 or more for batch norm; give more",
            "epoch/order does not fit the training images",
            "which has phases and equilibria; give a run or a preset of one",
            "targets have {} numbers, the next weights take {}",
            "targets of one class alone cannot be normalised",
            "is for networks of units, and network.kind has convolutions",
            "network.channels names no convolution",
            "is pooled over squares of {}, which are larger",
            "on a CPU, whose convolutions are far slower in it",
            "is not finite ({}); lower learning.rate",
            "which version 2a lacks; choose",
            "expected less than the {} units of the first layer",
            "is not sparse in a convolution; choose another",
            "is not defined for spiking networks",
            "has membranes; choose another generator",
            "are empty, expected layers in either; give them",
            "belongs to network.kind = 'snn', not to {}; leave it out",
        ),
        REFUSALS,
    ),
    "without spikes; give a run of network.kind": SPIKES,
    **dict.fromkeys(
        (
            "has no exact form in NIR",
            "has no form in NIR",
            "which NIR cannot say; choose 2b",
            "NIR can pool spikes alone; choose",
        ),
        NIR,
    ),
    "has no stages to measure; choose a preset": COST,
    "; start it in one process, or choose fsp": PIPELINE,
    "of which each process learns one or more; start {} or fewer": PIPELINE,
    "are not read to measure costs; give image_shape=... and classes=...": COST,
    "; begin it anew with these runs": "test_section_v.py::test_what_does_not_belong_is_refused_and_nothing_is_stored",
    "of which the learners are made; ": f"{LEARNERS}::test_each_learner_is_made_from_a_learned_loop",
    "or give runs (runs=...)": f"{TABLE}::test_the_stored_summaries_are_the_default_and_a_preset_chooses",
    "there are: {}; give another preset": f"{LEARNERS}::test_data_and_sizes_choose_the_summaries",
    "under one name; leave one of them out": f"{LEARNERS}::test_other_images_under_the_same_name_are_refused",
    "give a preset of those that are meant": f"{LEARNERS}::test_data_and_sizes_choose_the_summaries",
    "--train makes; add --train": f"{TABLE}::test_what_is_missing_is_trained_and_found_again",
    "expected FIELD=KIND:VALUES; give such as beta": f"{SWEEP}::test_the_command_line_has_pairs_and_draws",
    "random field {} is given twice; give it once": f"{SWEEP}::test_the_command_line_has_pairs_and_draws",
    "to compare; give two or more": "experiments/test_overview.py::test_any_number_of_runs_is_compared_in_their_order",
    "give such as data=mnist": f"{CHOOSING}::test_conditions_hold_together",
    "expected a number; give = for a text": f"{CHOOSING}::test_conditions_hold_together",
    "{} = {} is ambiguous; give one of: {}": f"{CHOOSING}::test_conditions_hold_together",
    "has finished an epoch; wait for one": (
        "test_cli_listing.py::test_the_picture_has_a_line_for_each_run_and_a_name_for_each_kind"
    ),
    "does not hold the numbers of figure {}; give the {}.csv of one": (
        f"{FIGURE}::test_what_holds_no_numbers_of_a_figure_is_refused"
    ),
    "pip install 'fsp_dynamics[tensorboard]', or leave tensorboard out": (
        f"{BOARD}::test_events_are_the_records_also_when_the_run_goes_on"
    ),
    "the numbers of figure {}; give that file": f"{FIGURE}::test_the_command_draws_again",
    "is no folder; give the folder of a run, or of several": (
        "watch/test_watching.py::test_what_is_no_folder_is_refused"
    ),
    "belongs to --browser; add that, or leave": "watch/test_watching.py::test_options_of_the_other_view_are_refused",
    "is for the terminal, --browser is not; leave one": (
        "watch/test_watching.py::test_options_of_the_other_view_are_refused"
    ),
    "choose another (port=...), or leave it out": "explorer/test_server.py::test_a_port_in_use_is_refused",
    "which alone has names; leave array out": f"{PREDICT}::test_files_that_hold_no_images_are_refused",
    "name the images among them (array=...)": f"{PREDICT}::test_files_that_hold_no_images_are_refused",
    "[None] if it is one image": f"{PREDICT}::test_bytes_floats_and_pixels_in_rows_are_the_same_images",
    "were divided; give floats in [0, 1]": f"{PREDICT}::test_bytes_floats_and_pixels_in_rows_are_the_same_images",
    "{}put {} into FOLDER/{} and give --data-dir": f"{REGISTRY}::test_files_under_the_names_of_other_sources_are_found",
    "; delete it and fetch it again": f"{REGISTRY}::test_fetch_replaces_only_what_is_damaged",
    "; name a folder you may write to (--data-dir)": f"{REGISTRY}::test_fetch_goes_where_it_is_told_and_reports",
    "train from the beginning in another folder": (
        "datasets/test_datasets.py::test_files_that_are_split_otherwise_than_before_are_known_by_their_digests"
    ),
    "give the folder of a run, of a sweep or of several": f"{STORED}::test_a_folder_without_runs_is_refused",
    "are both of seed {}; give one of them": f"{STORED}::test_two_runs_of_a_seed_are_refused",
    "is of another experiment than {}: {}; leave it out": (
        f"{STORED}::test_a_run_of_another_configuration_is_refused_with_what_differs"
    ),
    "; give the runs of another configuration": f"{STORED}::test_what_cannot_be_compared_is_refused",
    "; train both with the same": f"{STORED}::test_what_cannot_be_compared_is_refused",
    "; give it another name": f"{STORED}::test_an_option_keeps_its_name_for_one_comparison",
    "; save it again with save_network": "experiments/test_network_file.py::test_a_network_comes_back_to_the_bit",
    "; restore it or train again": "experiments/test_runner.py::test_killed_between_metrics_and_checkpoint",
    "; give a readable TOML file": "experiments/test_config.py::test_a_file_may_begin_with_a_byte_order_mark",
    "--nthreads 1": CLUSTER,
    "start one (dask scheduler)": CLUSTER,
    "; lower the learning rates": "experiments/test_runner.py::test_it_learns",
    "; lower output_step or the rates": f"{SKLEARN}::test_an_ordinary_fit_does_not_warn",
    "; lower loop_scale or the rate of the loop": f"{SKLEARN}::test_an_ordinary_fit_does_not_warn",
}
"""{a piece of a message: the test in which what it advises is done}."""
UNFOLLOWED = {
    "follow a shorter time, save more often, take longer steps": "every other path has steps enough",
    "are NaN from there on; save more often, or allow more": "every other path has steps enough",
    "so data have no place of their own; name a folder": "it needs a user without a home folder",
    "keeps a second process from writing to this run; start one at a time": "it needs a system without locks",
    "it is damaged; restore it": "what was changed from outside is put back",
    "not a configuration: {}; correct it": "as for a file that is no TOML",
    "has finished no epoch yet; wait for it": "it is a matter of waiting",
    "pip install": "it changes what is installed",
    "reinstall scikit-learn": "it changes what is installed",
    "install fsp_dynamics[notebook]": "it changes what is installed",
    "run fsp bench from a clone": "tests run in a clone, where the message does not come",
    "notebooks come with the sources": "tests run in a clone, where the message does not come",
    "only fsp train runs in several, start this one alone": "started alone is how every other test starts it",
    "in a job of several processes; start it alone": "started alone is how every other test starts it",
    "--runs names {}; give one": "one folder is what every other test gives",
    "whose variants are trained; give another preset": "it trains the variants of a preset, for minutes",
    "registered in this process alone; leave out jobs and scheduler": "without them is how every other test sweeps",
    "leave jobs out": "it needs a cluster",
    "in rank {}, is not finite; lower learning.rate": "of degree: which rate is small enough depends on the network",
    "in rank {} is not finite": "it ends a job of several processes; alone the same advice is followed",
    "one of them is of another time or run; restore": "what was changed from outside is put back",
    "use the version of fsp_dynamics that wrote it": "it needs another version",
    "a second name of another file, expected a file; remove it": "what was changed from outside is put back",
    "expected a folder; put the folder itself": "what was changed from outside is put back",
    "restore the run's config.toml": "what was changed from outside is put back",
    "it belongs to another run; put its own one back": "what was changed from outside is put back",
    "cannot be verified; restore it": "what was changed from outside is put back",
    "; put its own checkpoints back": "what was changed from outside is put back",
    "is not that of {}; restore it": "what was changed from outside is put back",
    "use a shorter step": "of degree: where a branch is lost depends on the network",
    "or another span": "of degree: which start is near depends on the network",
    "did not converge; use method='dense'": "LAPACK's failure is not met on purpose",
    "use a smaller beta": "of degree: which beta has an equilibrium depends on the network",
    "weaken its weights": "of degree: which weights amplify depends on the network",
    "does not converge; weaken the loop": "of degree: which loop converges depends on the network",
}
"""{a piece of a message: why its advice is not followed in a test}."""
