"""Every record shows itself in one line, and the main ones as a table in notebooks."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest

import fsp_dynamics as fsp
from fsp_dynamics.analysis.alignment import sample_alignment
from fsp_dynamics.analysis.attractors import attractors
from fsp_dynamics.analysis.continuation import continuation
from fsp_dynamics.analysis.gradients import compare
from fsp_dynamics.analysis.spectra import linearise
from fsp_dynamics.analysis.stability import stability
from fsp_dynamics.datasets import dataset_from_arrays
from fsp_dynamics.display import brief, html_table, largest
from fsp_dynamics.learning import phases
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.rate import drive
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.evaluation import evaluate
from fsp_dynamics.training.recipe import Learner, Recipe

SAMPLES = 8
ROOMS = ("analysis", "datasets", "experiments", "learning", "models", "solvers", "training")
LARGE = re.compile(r"\b(Array|NDArray|State|Split|Network|Equilibrium)\b")
# what passes from one function to the next and is never shown
INNER = {"ReducedPoint", "PackedLoop", "PackedLayers", "Tableau", "Contrast", "EpochState"}


@pytest.fixture(scope="module")
def shown():
    """{kind: a record of it}."""
    rng = np.random.default_rng(0)
    data = dataset_from_arrays(rng.random((48, 9)), np.arange(48) % 3, name="noise")
    network = fsp.loop_network([9, 7, 3], loop_scale=0.3, rng=0)
    images, targets = data.train.images[:SAMPLES], data.train.one_hot(3)[:SAMPLES]
    recipe = Recipe(Sgd(LearningRates(0.1, (0.1,), 0.1)), make_solver())
    learner = Learner.start(network, recipe, rng=0)
    free = fsp.relax(network, images)
    found = stability(network, images, free)
    return {
        "Dataset": data,
        "Split": data.train,
        "Network": network,
        "Nudge": fsp.Nudge(0.5, targets),
        "Activation": ACTIVATIONS["hard_sigmoid"],
        "Equilibrium": free,
        "Trajectory": fsp.simulate(network, images, [(1.0, None)], save=0.5),
        "Phases": phases.run(network, drive(network, images), targets, recipe.beta, recipe.solver),
        "Update": fsp.hebbian_update(network, images, free, fsp.relax(network, images, nudge=fsp.Nudge(1.0, targets))),
        "Alignment": fsp.loop_alignment(network),
        "SampleAlignment": sample_alignment(network, free),
        "Comparison": compare(network, images, targets, recipe),
        "Stability": found,
        "Spectrum": found.spectrum,
        "Linearisation": linearise(network, images, free),
        "Attractors": attractors(network, images[:1], starts=4)[0],
        "Branch": continuation(network, images[0], "loop"),
        "EpochReport": train_epoch(learner, data.train, recipe),
        "Evaluation": evaluate(network, data.test, recipe),
        "Learner": learner,
    }


LINES = {
    "Dataset": r"<Dataset noise: 34 train, 6 valid, 8 test; 3 x 3 pixels, 3 classes>",
    "Split": r"<Split of 34 images of 9 pixels>",
    "Network": r"<Network 9-7-3, loop, hard_sigmoid, float32>",
    "Nudge": r"<Nudge of beta 0\.5, target \(8 x 3\)>",
    "Activation": r"<Activation hard_sigmoid, states kept in \[0, 1\]>",
    "Equilibrium": r"<Equilibrium of layers 7, 3: 8 converged; residual up to \S+, steps up to \d+; beta 0>",
    "Trajectory": r"<Trajectory of 8 samples, layers 7, 3: free; 3 times from 0 to 1>",
    "Phases": r"<Phases of 8 samples, free and nudged, beta 1: 8 nudged, 8 of them converged>",
    "Update": r"<Update, largest entries: input \S+, forward\[0\] \S+, loop \S+, biases\[0\] \S+, biases\[1\] \S+>",
    "Alignment": r"<Alignment, degrees: W1 \d+\.\d, loop \d+\.\d; trace \S+>",
    "SampleAlignment": r"<SampleAlignment of 8 samples, mean degrees: W1 \d+\.\d, loop \d+\.\d>",
    "Comparison": r"<Comparison of 8 samples, degrees to the gradient: input \S+, forward\[0\] \S+, loop \d+\.\d>",
    "Stability": r"<Stability of 8 samples: stable 8 of 8; abscissa up to -\S+; settle time up to \S+; \|\|G_D\|\| .*>",
    "Spectrum": r"<Spectrum of 8 samples: all eigenvalues, \d+ each; abscissa up to -\S+>",
    "Linearisation": r"<Linearisation: network <Network .*>, kappa \[1, 1\], slope .*, decay \[.*\]>",
    "Attractors": r"<Attractors: 1, reached by 100 %; 0 initial states unconverged>",
    "Branch": r"<Branch in loop, 0 to 1: \d+ points, \d+ folds, \d+ Hopf points; ended: span>",
    "EpochReport": r"<EpochReport: training error \d+\.\d\d %, residual up to \S+, 0 unconverged, dead .*; \S+ s>",
    "Evaluation": r"<Evaluation: error \d+\.\d\d %; worst class .*; residual up to \S+; unconverged 0; dead .*>",
    "Learner": r"<Learner after epoch 1: <Network 9-7-3, loop, hard_sigmoid, float32>>",
}


@pytest.mark.parametrize("kind", LINES)
def test_a_record_is_one_line(shown, kind) -> None:
    line = repr(shown[kind])
    assert type(shown[kind]).__name__ == kind
    assert re.fullmatch(LINES[kind], line), line
    assert len(line) < 200


TABLES = ("Alignment", "Comparison", "Dataset", "Equilibrium", "Evaluation", "Network", "Stability", "Trajectory")


@pytest.mark.parametrize("kind", TABLES)
def test_a_notebook_shows_a_table_of_the_same_facts(shown, kind) -> None:
    table = shown[kind]._repr_html_()
    assert table.startswith("<table><caption>")
    assert table.endswith("</table>")
    assert table.count("<tr>") == table.count("</tr>") == table.count("<th>") >= 3
    assert "<Network" not in table
    assert "\n" not in table


def test_a_table_escapes_what_it_shows() -> None:
    assert "&lt;b&gt;" in html_table("<b>", {})
    assert html_table("t", {"<a>": "a & b"}).endswith("<tr><th>&lt;a&gt;</th><td>a &amp; b</td></tr></tbody></table>")


def test_the_largest_of_nothing_is_nan() -> None:
    assert [largest(v) for v in ([], [np.nan], [1, 2], [np.inf])] == ["nan", "nan", "2", "inf"]


def test_a_record_of_arrays_shows_their_shapes() -> None:
    @dataclasses.dataclass
    class Some:
        rows: np.ndarray
        number: float
        layers: tuple
        names: dict
        none: None = None

    some = Some(np.zeros((2, 3)), 0.5, (np.zeros(4), np.zeros((1, 2))), {"a": 1})
    assert brief(some) == "<Some: rows (2 x 3), number 0.5, layers [(4), (1 x 2)], names of 1, none None>"


def records() -> list[type]:
    """Every public dataclass of the rooms whose fields hold arrays or networks."""
    found = []
    for module in pkgutil.walk_packages(fsp.__path__, "fsp_dynamics."):
        if module.name.split(".")[1] in ROOMS:
            members = inspect.getmembers(importlib.import_module(module.name), dataclasses.is_dataclass)
            found += [c for name, c in members if c.__module__ == module.name and not name.startswith("_")]
    return [c for c in found if any(LARGE.search(str(field.type)) for field in dataclasses.fields(c))]


def test_no_record_prints_its_arrays() -> None:
    """A dataclass that holds arrays has a line of its own, not the one that is generated."""
    large = records()
    assert len(large) > 20
    generated = {c.__name__ for c in large if hasattr(c.__repr__, "__wrapped__")}
    assert generated <= INNER, generated - INNER
