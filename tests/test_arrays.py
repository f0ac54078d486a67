"""Every public function takes the arrays that people have, or refuses them by name.

Kinds of input times functions: each result is that of the plain array, to the bit.
"""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pandas
import pytest
import torch
from problems import one_hot
from scipy import sparse

import fsp_dynamics as fsp
from fsp_dynamics import arrays
from fsp_dynamics.analysis.alignment import angle
from fsp_dynamics.analysis.attractors import attractors
from fsp_dynamics.analysis.continuation import continuation
from fsp_dynamics.analysis.gradients import compare, limit_update, true_gradient
from fsp_dynamics.analysis.plane import unit_flow
from fsp_dynamics.analysis.spectra import spectrum
from fsp_dynamics.analysis.stability import kink_margin, stability
from fsp_dynamics.datasets import Split
from fsp_dynamics.errors import ConfigurationError, DataWarning, FspError, NotFiniteError, ShapeError
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.sklearn import LoopClassifier
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.evaluation import evaluate
from fsp_dynamics.training.recipe import Learner, Recipe

NETWORK = fsp.loop_network([4, 5, 3], loop_scale=0.2, dtype="float64", rng=0)
IMAGES = np.random.default_rng(0).choice([0.0, 0.25, 0.5, 1.0], (6, 4))  # numbers that every precision holds
LABELS = np.arange(6) % 3
TARGETS = one_hot(LABELS, 3)
SOLVER = fsp.make_solver("reference", method="rk4", dt=0.1)
RECIPE = Recipe(Sgd(LearningRates(1.0, (1.0,), 0.5)), fsp.make_solver("fixed_point", method="picard", fallback=None))
FREE = fsp.relax(NETWORK, IMAGES)
NUDGED = fsp.relax(NETWORK, IMAGES, nudge=fsp.Nudge(0.5, TARGETS), start=FREE)


class Labelled:
    def __init__(self, images, labels):
        self.images, self.labels = images, labels


def trained(images, labels):
    learner = Learner.start(NETWORK, RECIPE, 0)
    train_epoch(learner, Labelled(images, labels), RECIPE)
    return learner.network.input


def classified(images, labels=LABELS):
    model = LoopClassifier(hidden=(5,), epochs=1, random_state=0, scale=None).fit(images, labels)
    return model.decision_function(images)


WITH_IMAGES = {
    "relax": lambda x: fsp.relax(NETWORK, x).output,
    "simulate": lambda x: fsp.simulate(NETWORK, x, [(1.0, None)], solver=SOLVER).end[-1],
    "hebbian_update": lambda x: fsp.hebbian_update(NETWORK, x, FREE, NUDGED).input,
    "true_gradient": lambda x: true_gradient(NETWORK, x, TARGETS, FREE).input,
    "limit_update": lambda x: limit_update(NETWORK, x, TARGETS, FREE).input,
    "compare": lambda x: np.array([*compare(NETWORK, x, TARGETS, RECIPE).degrees.values()]),
    "stability": lambda x: stability(NETWORK, x, FREE).spectrum.abscissa,
    "spectrum": lambda x: spectrum(NETWORK, x, FREE).values,
    "kink_margin": lambda x: kink_margin(NETWORK, x, FREE),
    "attractors": lambda x: attractors(NETWORK, x, starts=2, solver=SOLVER)[0].fraction,
    "Split": lambda x: Split(x, LABELS).images,
    "dataset": lambda x: fsp.dataset_from_arrays(x, LABELS, IMAGES, LABELS, validation=0).train.images,
    "test images": lambda x: fsp.dataset_from_arrays(IMAGES, LABELS, x, LABELS, validation=0).test.images,
    "train_epoch": lambda x: trained(x, LABELS),
    "evaluate": lambda x: np.array(evaluate(NETWORK, Labelled(x, LABELS), RECIPE).error),
    "LoopClassifier": classified,
}
OTHERS = {  # of the plain argument, and what is called with it
    "nudge target": (TARGETS, lambda d: fsp.relax(NETWORK, IMAGES, nudge=fsp.Nudge(0.5, d)).output),
    "nudge of a protocol": (
        TARGETS,
        lambda d: fsp.simulate(NETWORK, IMAGES, [(1.0, fsp.Nudge(0.5, d))], solver=SOLVER).end[-1],
    ),
    "gradient targets": (TARGETS, lambda d: true_gradient(NETWORK, IMAGES, d, FREE).input),
    "compare targets": (
        TARGETS,
        lambda d: np.array([*compare(NETWORK, IMAGES, d, RECIPE).degrees.values()]),
    ),
    "start": (IMAGES[:, :3], lambda s: fsp.relax(NETWORK, IMAGES, start=[FREE.state[0], s]).output),
    "simulate start": (
        IMAGES[:, :3],
        lambda s: fsp.simulate(NETWORK, IMAGES, [(1.0, None)], start=[FREE.state[0], s], solver=SOLVER).end[-1],
    ),
    "state of a spectrum": (IMAGES[:, :3], lambda s: spectrum(NETWORK, IMAGES, [FREE.state[0], s]).values),
    "angle": (IMAGES, lambda u: np.array(angle(u, IMAGES[::-1]))),
}
ONE_AXIS = {
    "continuation image": (IMAGES[0], lambda x: continuation(NETWORK, x, "loop", (0.0, 0.5)).outputs),
    "continuation target": (TARGETS[0], lambda d: continuation(NETWORK, IMAGES[0], "beta", (0.0, 0.5), d).outputs),
    "unit_flow state": (
        np.concatenate([s[0] for s in FREE.state]),
        lambda s: unit_flow(NETWORK, IMAGES[:1], s, None, (5, 6), [0.0, 1.0], [0.5]),
    ),
    "saved times": (
        np.array([0.0, 0.5, 1.0]),
        lambda t: fsp.simulate(NETWORK, IMAGES, [(1.0, None)], save=t, solver=SOLVER).times,
    ),
}
LABEL_FUNCTIONS = {
    "Split": lambda y: Split(IMAGES, y).labels,
    "dataset": lambda y: fsp.dataset_from_arrays(IMAGES, y, IMAGES, LABELS, validation=0).train.labels,
    "test labels": lambda y: fsp.dataset_from_arrays(IMAGES, LABELS, IMAGES, y, validation=0).test.labels,
    "train_epoch": lambda y: trained(IMAGES, y),
    "evaluate": lambda y: np.array(evaluate(NETWORK, Labelled(IMAGES, y), RECIPE).error),
    "LoopClassifier": lambda y: classified(IMAGES, y),
}
EXACT_KINDS = {
    "nested lists": lambda x: x.tolist(),
    "columns first": np.asfortranarray,
    "big endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "objects": lambda x: x.astype(object),
    "nothing masked": lambda x: np.ma.masked_array(x, np.zeros(x.shape, bool)),
    "frame": lambda x: pandas.DataFrame(x) if x.ndim == 2 else pandas.Series(x),
    "nullable frame": lambda x: (pandas.DataFrame(x) if x.ndim == 2 else pandas.Series(x)).convert_dtypes(),
    "tensor": lambda x: torch.tensor(x),
}
FLOAT_KINDS = {
    "float32": lambda x: x.astype(np.float32),
    "half": lambda x: x.astype(np.float16),
    "tensor with gradient": lambda x: torch.tensor(x, requires_grad=True),
    "bfloat16": lambda x: torch.tensor(x).bfloat16(),
}
KINDS = EXACT_KINDS | FLOAT_KINDS
REFUSED = {
    "masked": (lambda x: np.ma.masked_less(x, 0.3), "masked array of which .* give .filled"),
    "missing": (lambda x: np.where(x > 0.3, x, None), r"= None of type NoneType, expected numbers; clean the data"),
    "nullable": (
        lambda x: pandas.DataFrame(np.where(x > 0.3, x, np.nan)).convert_dtypes(),
        "= <NA> of type NAType, expected numbers; clean the data",
    ),
    "text": (lambda x: x.astype(str), "have dtype <U32, expected numbers"),
    "text objects": (lambda x: x.astype(str).astype(object), "of type str, expected numbers"),
    "complex": (lambda x: x + 1j, "have dtype complex128, expected numbers"),
    "dates": (lambda x: x.astype("datetime64[s]"), r"have dtype datetime64\[s\]"),
    "ragged": (lambda x: [*x.tolist(), [0.0]], "is not an array: .*rows of one length"),
    "ragged objects": (lambda x: np.array([[0.0], [0.0, 1.0]], object), "rows of different lengths"),
    "sparse": (sparse.csr_array, r"is of type csr_array, expected an array of numbers; \.toarray\(\)"),
    "sparse tensor": (lambda x: torch.tensor(x).to_sparse(), "give a dense tensor"),
    "dict": (lambda x: {"images": x}, "is of type dict, expected an array"),
    "nothing": (lambda x: None, "is of type NoneType, expected an array"),
}
of_sklearn = {"LoopClassifier"}  # whose own conversion of the rest is kept


def plain(function, given):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        return np.asarray(function(given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WITH_IMAGES)
def test_images_of_every_kind_give_what_the_array_gives(name, kind):
    function = WITH_IMAGES[name]
    np.testing.assert_array_equal(plain(function, KINDS[kind](IMAGES)), plain(function, IMAGES))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*OTHERS, *ONE_AXIS])
def test_targets_states_and_times_of_every_kind_too(name, kind):
    given, function = (OTHERS | ONE_AXIS)[name]
    np.testing.assert_allclose(plain(function, KINDS[kind](given)), plain(function, given), atol=3e-3)
    if kind in EXACT_KINDS:
        np.testing.assert_array_equal(plain(function, KINDS[kind](given)), plain(function, given))


@pytest.mark.parametrize("kind", EXACT_KINDS)
@pytest.mark.parametrize("name", LABEL_FUNCTIONS)
def test_labels_of_every_kind_too(name, kind):
    function = LABEL_FUNCTIONS[name]
    if name in of_sklearn and kind == "objects":
        pytest.skip("scikit-learn takes no labels of unknown type")
    np.testing.assert_array_equal(plain(function, EXACT_KINDS[kind](LABELS)), plain(function, LABELS))


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("name", [*WITH_IMAGES, *OTHERS])
def test_what_holds_no_numbers_is_refused_by_name(name, kind):
    if name in of_sklearn and kind != "masked":
        pytest.skip("scikit-learn refuses it")
    make, words = REFUSED[kind]
    given, function = OTHERS.get(name, (IMAGES, WITH_IMAGES.get(name)))
    if name == "test images" and kind == "nothing":
        pytest.skip("they may be left out, with their labels")
    with pytest.raises((ConfigurationError, ShapeError), match=words) as caught:
        function(make(given))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [n for n in WITH_IMAGES if n not in ("dataset", "test images", "LoopClassifier")])
def test_bytes_above_1_are_refused_and_far_pixels_warned_about(name):
    function = WITH_IMAGES[name]
    with pytest.raises(ConfigurationError, match=r"images are bytes up to 255, .* give images / 255"):
        function((255 * IMAGES).astype(np.uint8))
    with pytest.warns(DataWarning, match=r"images are whole numbers above 1, .* divide by the largest"):
        attempt(function, (255 * IMAGES).astype(np.int64))
    with pytest.warns(DataWarning, match="images reach beyond 10, "):
        attempt(function, 16 * IMAGES)
    with pytest.warns(DataWarning, match="images reach beyond 10, "):
        attempt(function, -16 * IMAGES)


def attempt(function, given):
    """The call, of which only the warning matters: with such images samples may not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with contextlib.suppress(FspError):
            function(given)


def test_a_warning_points_to_the_line_of_the_user_and_comes_once():
    def caller():
        fsp.relax(NETWORK, 16 * IMAGES)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default", DataWarning)
        for _ in range(3):
            caller()
    assert [(each.category, each.filename) for each in seen] == [(DataWarning, __file__)]


@pytest.mark.parametrize("name", ["relax", "simulate", "hebbian_update", "true_gradient", "compare", "stability"])
def test_pixels_that_are_not_finite_are_refused(name):
    for bad in (np.nan, np.inf, -np.inf):
        images = IMAGES.copy()
        images[2, 1] = bad
        with pytest.raises(NotFiniteError, match=r"images\[2, 1\] = -?(nan|inf)"):
            WITH_IMAGES[name](images)


def test_an_array_of_numbers_is_taken_as_it_is():
    images = IMAGES.astype(np.float32)
    assert arrays.numbers("images", images) is images
    assert arrays.pixels("images", images) is images
    nudge = fsp.Nudge(1.0, TARGETS)
    assert nudge.target is TARGETS
    assert fsp.relax(NETWORK, IMAGES, start=FREE).steps.max() == 0


def test_a_trajectory_goes_on_where_it_ended():
    path = fsp.simulate(NETWORK, IMAGES, [(1.0, None)], solver=SOLVER)
    whole = fsp.simulate(NETWORK, IMAGES, [(2.0, None)], solver=SOLVER)
    rest = fsp.simulate(NETWORK, IMAGES, [(1.0, None)], start=path, solver=SOLVER)
    np.testing.assert_allclose(rest.end[-1], whole.end[-1], atol=1e-12)
    far = fsp.simulate(NETWORK, IMAGES, [(60.0, None)], solver=SOLVER)
    assert fsp.relax(NETWORK, IMAGES, start=far, tolerance=fsp.Tolerance(1e-9)).steps.max() == 0


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (FREE.state[:1], r"start has 1 layers, expected 2, an array \(B, n_k\) for each"),
        (np.zeros((6, 8)), "start has 6 layers"),
        (0.5, "start is of type float, expected an equilibrium, a trajectory or a list of layers"),
        ("free", r"start has 4 layers|start is of type str"),
        ({"state": 1}, "start is of type dict"),
    ],
)
def test_what_is_no_start_is_refused(start, words):
    for call in (
        lambda: fsp.relax(NETWORK, IMAGES, start=start),
        lambda: fsp.simulate(NETWORK, IMAGES, [(1.0, None)], start=start, solver=SOLVER),
    ):
        with pytest.raises((ConfigurationError, ShapeError), match=words):
            call()


def test_phases_that_are_no_equilibria_are_refused():
    with pytest.raises(ConfigurationError, match="free is of type tuple, expected an Equilibrium"):
        fsp.hebbian_update(NETWORK, IMAGES, FREE.state, NUDGED)
    with pytest.raises(ConfigurationError, match="nudged is of type NoneType, expected an Equilibrium"):
        fsp.hebbian_update(NETWORK, IMAGES, FREE, None)


def test_class_numbers_in_place_of_targets_are_named():
    with pytest.raises(ShapeError, match=r"np\.eye\(3\)\[labels\] makes them of class numbers"):
        fsp.relax(NETWORK, IMAGES, nudge=fsp.Nudge(1.0, LABELS))
    assert fsp.relax(NETWORK, IMAGES, nudge=fsp.Nudge(1.0, np.eye(3)[LABELS])).converged.all()


@pytest.mark.parametrize("function", ["Split", "dataset", "train_epoch", "evaluate"])
def test_labels_that_are_no_class_numbers_are_refused(function):
    for labels, words in (
        (LABELS + 0.7, r"0\.7|dtype float64|are float64"),
        (np.array(list("abcabc")), "<U1"),
        (np.ma.masked_equal(LABELS, 1), "masked array of which 2 values"),
        (pandas.Series([0, 1, None, 0, 1, 2], dtype="Int64"), "<NA>|nan|are float64|dtype float64"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            LABEL_FUNCTIONS[function](labels)


WITH_STREAM = {
    "loop": lambda rng: fsp.loop_network([4, 3, 2], rng=rng),
    "reciprocal": lambda rng: fsp.reciprocal_network([4, 3, 2], rng=rng),
    "learner": lambda rng: Learner.start(NETWORK, RECIPE, rng),
    "attractors": lambda rng: attractors(NETWORK, IMAGES[:1], starts=1, rng=rng, solver=SOLVER),
}


@pytest.mark.parametrize("name", WITH_STREAM)
@pytest.mark.parametrize(
    ("rng", "words"),
    [
        (-1, "rng = -1, expected None, a whole number from 0 on, or a numpy"),
        (1.5, "rng = 1.5"),
        (True, "rng = True"),
        ("0", "rng = '0'"),
        (torch.Generator(), r"give rng=generator\.initial_seed\(\)"),
        (np.random.RandomState(0), r"give rng=state\.randint"),
    ],
)
def test_what_is_no_seed_is_refused_by_name(name, rng, words):
    with pytest.raises(ConfigurationError, match=words):
        WITH_STREAM[name](rng)


@pytest.mark.parametrize("name", WITH_STREAM)
def test_seeds_and_generators_are_taken(name):
    for rng in (None, 0, np.int64(3), np.random.default_rng(0), np.random.PCG64(0), np.random.SeedSequence(1)):
        WITH_STREAM[name](rng)
    WITH_STREAM[name](torch.Generator().initial_seed())
    WITH_STREAM[name](np.random.RandomState(0).randint(2**31))


@pytest.mark.parametrize(
    "sizes",
    [
        [784, [500, 500], 10],
        [4, (3,), 2],
        [4, "3", 2],
        [4, None, 2],
        [4, np.nan, 2],
        [4, np.inf, 2],
        [4, 2.5, 2],
        [4, True, 2],
    ],
)
def test_sizes_that_are_no_numbers_are_refused_by_name(sizes):
    for make in (fsp.loop_network, fsp.reciprocal_network):
        with pytest.raises(ConfigurationError, match=r"sizes = \[.*expected (numbers alone|input, one hidden)"):
            make(sizes, rng=0)


def test_weights_may_be_lists_and_frames():
    given = fsp.loop_network([4, 3, 2], dtype="float64", rng=0)
    named = given.parameters()
    for make in (lambda w: w.tolist(), lambda w: pandas.DataFrame(w) if w.ndim == 2 else pandas.Series(w)):
        again = given.with_parameters({name: make(w) for name, w in named.items()})
        for name, w in again.parameters().items():
            np.testing.assert_array_equal(w, named[name])
    with pytest.raises(ConfigurationError, match="masked array"):
        given.with_parameters({"input": np.ma.masked_less(given.input, 0)})
