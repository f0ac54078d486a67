"""LoopClassifier keeps scikit-learn's promises, and learns."""

from __future__ import annotations

import dataclasses
import pickle
import warnings

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning.optimisers import LearningRates
from fsp_dynamics.sklearn import LoopClassifier
from fsp_dynamics.training.epoch import train_epoch

SMALL = {"hidden": (20,), "random_state": 0}


@parametrize_with_checks([LoopClassifier(**SMALL)])
def test_scikit_learn_finds_nothing_to_object_to(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    return fsp.load_dataset("digits")


@pytest.fixture(scope="module")
def trained(digits):
    return LoopClassifier(hidden=(100, 100), random_state=0).fit(digits.train.images, digits.train.labels)


def blobs(classes=3, samples=120):
    return make_classification(
        samples, 8, n_informative=6, n_redundant=0, n_classes=classes, class_sep=2.0, random_state=0
    )


def weights(model):
    return model.network_.parameters()


def same(one, other):
    return all(np.array_equal(w, weights(other)[name]) for name, w in weights(one).items())


# Learning


def test_digits_are_learned_as_by_the_preset(trained, digits):
    assert trained.score(digits.test.images, digits.test.labels) > 0.95
    assert trained.n_iter_ == len(trained.history_) == 20
    assert trained.history_[-1]["train_error"] < 2 < trained.history_[0]["train_error"]
    assert trained.network_.sizes == (64, 100, 100, 10)


def test_predictions_are_where_the_network_rests(trained, digits):
    rest = fsp.relax(
        trained.network_, trained.to_images(digits.test.images), tolerance=fsp.Tolerance(1e-4)
    ).require_converged()
    rates = trained.decision_function(digits.test.images)
    assert np.abs(rates - rest.output).max() < 1e-6
    assert np.array_equal(trained.predict(digits.test.images), rates.argmax(1))
    shares = trained.predict_proba(digits.test.images)
    assert np.allclose(shares.sum(1), 1, atol=1e-12)
    loud = rates.sum(1) > 0
    assert np.allclose(shares[loud] * rates[loud].sum(1, keepdims=True), rates[loud])


def test_silent_outputs_share_equally():
    X, y = blobs()
    model = LoopClassifier(**SMALL, epochs=1).fit(X, y)
    for bias in model.network_.biases:
        bias[:] = -100.0
    assert not model.decision_function(X).any()
    assert np.array_equal(model.predict_proba(X), np.full((len(X), 3), 1 / 3))


def test_two_classes_have_one_decision():
    X, y = blobs(2)
    model = LoopClassifier(**SMALL).fit(X, y)
    decision, shares = model.decision_function(X), model.predict_proba(X)
    assert decision.shape == (len(X),)
    assert np.allclose(decision, shares[:, 1] - shares[:, 0])
    assert np.array_equal(model.predict(X), (decision > 0).astype(int))
    assert model.score(X, y) > 0.8


def test_labels_and_columns_keep_their_names():
    X, y = blobs()
    names = np.array(["pear", "apple", "fig"])
    frame = pandas.DataFrame(X, columns=[f"f{i}" for i in range(8)])
    model = LoopClassifier(**SMALL).fit(frame, names[y])
    assert list(model.classes_) == ["apple", "fig", "pear"]
    assert list(model.feature_names_in_) == list(frame)
    assert (model.predict(frame) == names[y]).mean() > 0.8
    numbered = LoopClassifier(**SMALL).fit(X, np.array([2, 0, 1])[y])  # the order of the names
    assert same(model, numbered)


# Settings


def test_an_int_gives_the_same_bits():
    X, y = blobs()
    one, again = (LoopClassifier(**SMALL).fit(X, y) for _ in range(2))
    other = LoopClassifier(**SMALL | {"random_state": 1}).fit(X, y)
    assert same(one, again)
    assert same(one, one.fit(X, y)), "what was learned before is forgotten"
    assert not same(one, other)


def test_each_setting_changes_what_is_learned():
    X, y = blobs()
    settings = {
        "epochs": 3,
        "batch": 7,
        "beta": 0.5,
        "rates": LearningRates(1.0, (1.0,), 0.1),
        "rate_factor": 0.5,
        "output_step": 0.01,
    }
    settings |= {"loop_scale": 1.0, "tolerance": 0.1, "scale": None, "hidden": (21,)}
    plain = LoopClassifier(**SMALL).fit(X, y)
    assert set(settings) | {"random_state"} == set(plain.get_params())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name, value in settings.items():
            changed = LoopClassifier(**SMALL | {name: value}).fit(X, y)
            assert name == "hidden" or not same(plain, changed), name


def test_features_are_scaled_to_where_images_are():
    X, y = blobs()
    X[:, 3] = 7.0
    model = LoopClassifier(**SMALL).fit(X, y)
    seen = model.to_images(X)
    varied = np.delete(seen, 3, 1)
    assert seen.dtype == np.float32
    assert (varied.min(0) == 0).all()
    assert (varied.max(0) == 1).all()
    assert (seen[:, 3] == 0).all()
    assert np.array_equal(model.to_images(X * 0 + 1e9), np.where(np.arange(8) == 3, 0, 1) * np.ones_like(seen))
    moved = LoopClassifier(**SMALL).fit(X * 4 + 3, y)  # exact in binary, up to the sum's rounding
    assert np.abs(moved.to_images(X * 4 + 3) - seen).max() < 1e-6


def test_without_a_scale_images_are_taken_as_they_are(digits):
    images = digits.train.images[:50]
    model = LoopClassifier(**SMALL, scale=None, epochs=1).fit(images, digits.train.labels[:50])
    assert np.array_equal(model.to_images(images), images)
    assert np.array_equal(model.to_images(images * 3), images * 3)
    assert model.data_range_ is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"epochs": 0}, "epochs = 0, expected a whole number"),
        ({"epochs": True}, "epochs = True, expected a whole number"),
        ({"hidden": 20}, "hidden = 20, expected the units of one hidden layer or more, such as"),
        ({"hidden": ()}, r"hidden = \(\), expected the units of one hidden layer or more, such as"),
        ({"hidden": (20, 0)}, r"hidden = \(20, 0\), expected the units"),
        ({"hidden": (2.5,)}, r"hidden = \(2.5,\), expected the units"),
        ({"hidden": "20"}, "hidden = '20', expected the units"),
        ({"hidden": np.array(20)}, "hidden = 20, expected the units"),
        ({"hidden": np.eye(2, dtype=int)}, r"hidden = \[\[1, 0\], \[0, 1\]\], expected the units"),
        ({"scale": "minmix"}, "scale = 'minmix', expected 'minmax', or None for X as it is"),
        ({"scale": "none"}, "scale = 'none', expected 'minmax', or None for X as it is"),
        ({"batch": 0}, "batch = 0"),
        ({"batch": 2.5}, "batch = 2.5, expected a whole number"),
        ({"batch": "a"}, "batch = 'a', expected a whole number"),
        ({"loop_scale": -1}, "loop_scale = -1, expected"),
        ({"rates": 3}, "rates = 3, expected learning.optimisers.Rates, or None"),
        ({"rates": 0}, "rates = 0, expected learning.optimisers.Rates, or None"),
        ({"beta": -1.0}, "beta = -1.0"),
        ({"tolerance": -1.0}, "tolerance absolute = -1.0"),
        ({"rates": LearningRates(1.0, (1.0, 1.0), 0.1)}, "rates.forward has 2 values, expected 1"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        LoopClassifier(**SMALL | settings).fit(*blobs())


def test_one_class_is_refused():
    for label, said in ((5, "5"), ("left", "'left'")):
        with pytest.raises(ConfigurationError, match=rf"^y has 1 class, {said}, expected two or more$"):
            LoopClassifier(**SMALL).fit(np.eye(3), [label] * 3)


@pytest.mark.parametrize("verb", ["predict", "predict_proba", "decision_function", "to_images"])
def test_nothing_is_predicted_before_fit(verb):
    with pytest.raises(NotFittedError):
        getattr(LoopClassifier(), verb)(np.eye(3))


def test_a_warning_names_outputs_that_fell_silent():
    X, y = blobs()
    with pytest.warns(
        ConvergenceWarning, match=r"outputs that never fired in the last epoch: .*lower output_step or the rates"
    ):
        LoopClassifier(**SMALL, epochs=2, rates=LearningRates(0.0, (0.0,), 0.0), loop_scale=0.0, beta=1e-3).fit(
            X * 0, y
        )


def test_a_warning_counts_samples_that_do_not_rest(monkeypatch):
    def restless(*given):
        return dataclasses.replace(train_epoch(*given), unconverged=7)

    monkeypatch.setattr("fsp_dynamics.sklearn.train_epoch", restless)
    with pytest.warns(ConvergenceWarning, match=r"^7 samples did not converge in the last epoch"):
        LoopClassifier(**SMALL).fit(*blobs())


def test_a_usual_fit_warns_of_nothing():
    X, y = blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LoopClassifier(**SMALL).fit(X, y).partial_fit(X, y).predict(X)


@pytest.mark.parametrize("verb", ["predict", "predict_proba", "decision_function", "score"])
def test_a_warning_counts_samples_that_are_predicted_from_no_rest(trained, digits, verb, monkeypatch):
    """In batches of 15, of which every seventh sample is said to have run out of steps. (Which
    samples of a real network do not converge is another number on every processor.)
    """

    class Tired:
        def relax(self, *given, **options):
            found = fsp.make_solver().relax(*given, **options)
            return dataclasses.replace(found, status=np.where(np.arange(len(found.status)) % 7, 0, 1).astype(np.uint8))

    monkeypatch.setattr("fsp_dynamics.sklearn.BATCH", 15)  # one warning of all batches
    monkeypatch.setattr("fsp_dynamics.sklearn.make_solver", Tired)
    images, labels = digits.train.images[:40], digits.train.labels[:40]
    with pytest.warns(ConvergenceWarning) as seen:
        getattr(trained, verb)(*(images, labels) if verb == "score" else (images,))
    (said,) = seen
    assert str(said.message).startswith("8 of 40 samples did not converge; ")
    assert str(said.message).endswith("lower loop_scale or the rate of the loop")
    assert verb == "score" or said.filename == __file__


def test_a_warning_counts_samples_that_taught_partial_fit_nothing(trained, digits, monkeypatch):
    monkeypatch.setattr(
        "fsp_dynamics.sklearn.train_epoch", lambda *given: dataclasses.replace(train_epoch(*given), unconverged=7)
    )
    model, rows = pickle.loads(pickle.dumps(trained)), slice(0, 40)
    with pytest.warns(ConvergenceWarning) as seen:
        model.partial_fit(digits.train.images[rows], digits.train.labels[rows])
    (said,) = seen
    assert str(said.message).startswith("7 samples did not converge and taught nothing; lower loop_scale")
    assert said.filename == __file__


# Little by little


def test_partial_fit_learns_from_chunks():
    X, y = blobs(samples=300)
    model = LoopClassifier(**SMALL)
    for _ in range(10):
        for rows in np.array_split(np.arange(300), 6):
            model.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    assert model.score(X, y) > 0.8
    assert model.n_iter_ == 60


def test_partial_fit_goes_on_from_fit():
    X, y = blobs()
    model = LoopClassifier(**SMALL, epochs=2).fit(X, y)
    before, scaled = {name: w.copy() for name, w in weights(model).items()}, model.to_images(X)
    assert model._learner.warm_start is None, "what the engine knows of these samples would be taken for others"
    model.partial_fit(X[:20] * 100, y[:20])
    moved = max(np.abs(w - before[name]).max() for name, w in weights(model).items())
    assert 0 < moved < 1
    assert np.array_equal(model.to_images(X), scaled), "the range is that of the first data"
    assert model.n_iter_ == 3


def test_partial_fit_refuses_what_it_was_not_told_of():
    X, y = blobs()
    with pytest.raises(ConfigurationError, match="classes = None, expected all labels"):
        LoopClassifier(**SMALL).partial_fit(X, y)
    model = LoopClassifier(**SMALL).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ConfigurationError, match=r"y holds .*3.*, which is none of the classes"):
        model.partial_fit(X, y + 1)
    with pytest.raises(ConfigurationError, match="expected those of the first call"):
        model.partial_fit(X, y, classes=[0, 1])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"hidden": (5,)}, r"^hidden = \(5,\), expected \(20,\), with which the network was begun; call fit"),
        ({"hidden": (20, 20)}, r"^hidden = \(20, 20\), expected \(20,\)"),
        ({"hidden": 20}, r"^hidden = 20, expected the units of one hidden layer or more"),
        ({"scale": None}, r"^scale = None, expected 'minmax', with which"),
        ({"loop_scale": 2.0}, r"^loop_scale = 2.0, expected 0.2, with which"),
        ({"random_state": None}, r"^random_state = None, expected 0, with which"),
        ({"beta": -5.0}, "beta = -5.0"),
        ({"rates": LearningRates(1.0, (1.0, 1.0), 0.1)}, "rates.forward has 2 values, expected 1"),
    ],
)
@pytest.mark.parametrize("begun_by", ["fit", "partial_fit"])
def test_partial_fit_refuses_settings_of_another_network(begun_by, settings, complaint):
    X, y = blobs()
    model = LoopClassifier(**SMALL, epochs=1)
    model.fit(X, y) if begun_by == "fit" else model.partial_fit(X, y, classes=[0, 1, 2])
    before = {name: w.copy() for name, w in weights(model).items()}
    with pytest.raises(ConfigurationError, match=complaint):
        model.set_params(**settings).partial_fit(X, y)
    assert all(np.array_equal(w, before[name]) for name, w in weights(model).items())


def test_fit_begins_another_network():
    X, y = blobs()
    model = (
        LoopClassifier(**SMALL, epochs=1)
        .fit(X, y)
        .set_params(hidden=(5,), scale=None, loop_scale=1.0, random_state=1)
        .fit(X, y)
    )
    assert model.partial_fit(X, y).network_.sizes == (8, 5, 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 0.5},
        {"batch": 7},
        {"rates": LearningRates(1.0, (1.0,), 0.1)},
        {"tolerance": 0.1},
        {"output_step": 0.01},
    ],
)
def test_what_learning_is_told_may_change_between_calls(settings):
    X, y = blobs()
    model, plain = (LoopClassifier(**SMALL, epochs=1).fit(X, y) for _ in range(2))
    assert not same(model.set_params(**settings).partial_fit(X, y), plain.partial_fit(X, y))


def test_the_same_settings_in_another_form_are_the_same():
    X, y = blobs()
    model = LoopClassifier(hidden=(20,), random_state=np.random.RandomState(0), epochs=1).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    assert same(model.set_params(hidden=np.array([20])).partial_fit(X, y), again.partial_fit(X, y))


# With others


def test_a_copy_predicts_the_same(trained, digits):
    images = digits.test.images
    again = pickle.loads(pickle.dumps(trained))
    assert np.array_equal(again.decision_function(images), trained.decision_function(images))
    fresh = clone(trained)
    assert fresh.get_params() == trained.get_params()
    assert not hasattr(fresh, "network_")


@pytest.mark.filterwarnings("ignore:outputs that never fired")  # of so few units
def test_it_stands_in_pipelines_and_searches():
    X, y = blobs()
    pipeline = make_pipeline(StandardScaler(), LoopClassifier(**SMALL))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.6
    search = GridSearchCV(
        pipeline, {"loopclassifier__hidden": [(5,), (20, 10)], "loopclassifier__beta": [0.5, 1.0]}, cv=2
    ).fit(X, y)
    assert search.best_params_["loopclassifier__hidden"] in [(5,), (20, 10)]
    assert search.best_estimator_.score(X, y) > 0.6


def test_its_network_is_one_for_all_else(trained, digits):
    """What is trained here is analysed, or taken to torch, like any network."""
    assert fsp.loop_alignment(trained.network_).degrees.keys() == {"W1", "W2", "loop"}
    torch = pytest.importorskip("torch", reason="torch is not installed; it comes with the [torch] extra")
    rates = trained.network_.to_torch()(torch.from_numpy(trained.to_images(digits.test.images)))
    assert np.abs(rates.detach().numpy() - trained.decision_function(digits.test.images)).max() < 1e-3


def test_what_could_not_be_learned_leaves_nothing_that_predicts():
    X, y = np.random.default_rng(0).random((20, 5)), np.arange(20) % 2
    model = LoopClassifier(hidden=(5,), epochs=1, random_state=0)
    with pytest.raises(ConfigurationError, match="none of the classes"):
        model.partial_fit(X, np.where(np.arange(20) == 3, 7, y), classes=[0, 1])
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(ConfigurationError, match="expected all labels that will ever come, in the first call"):
        model.partial_fit(X, y)
    model.fit(X, y).beta = -5.0
    with pytest.raises(ConfigurationError):
        model.fit(X, y + 7)
    with pytest.raises(NotFittedError):
        model.predict(X)
