"""A feedforward loop as a scikit-learn classifier: trained by the contrastive Hebbian rule (eq.
14), with scikit-learn's verbs.

    from fsp_dynamics.sklearn import LoopClassifier

    model = LoopClassifier(hidden=(100, 100), random_state=0).fit(X, y)
    model.score(X_test, y_test)

Each class has one output. A sample is predicted to be of the class whose output fires most at the
free equilibrium.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fsp_dynamics.datasets import Split
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.models.network import Array, Network, loop_network
from fsp_dynamics.models.rate import drive
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.recipe import Learner, Recipe
from fsp_dynamics.training.report import EpochReport

INPUT, HIDDEN, OUTPUT, LOOP = (
    20.0,
    30.0,
    7.0,
    0.5,
)  # eta of each matrix, as in the presets: normalised, they hold for any width
BATCH = 500  # samples that are relaxed at once for a prediction
SEEDS = 2**31 - 1
# what a network is begun with, and keeps
OF_THE_NETWORK = ("hidden", "scale", "loop_scale", "random_state")


class LoopClassifier(ClassifierMixin, BaseEstimator):
    """A classifier whose hidden layers hear the outputs through one loop, and whose every weight
    learns from what its two ends do converged.

    Parameters
    ----------
    hidden : units of each hidden layer.
    epochs : passes over the data in `fit`.
    batch : samples whose mean update is one step.
    beta : strength of the nudge, per unit time.
    rates : `learning.optimisers.Rates`, eta for each matrix; None: 20 for the input, 30 between
        hidden layers, 7 into the output, 0.5 for the loop. Each is divided by 1 + the mean squared
        norm of the rates it multiplies, so that they hold for any width and number of features.
    rate_factor : all rates are multiplied by it after each epoch of `fit`.
    output_step : the largest change of an output's mean input that one batch may cause
        (`learning.optimisers`).
    loop_scale : of the loop before learning, times Glorot's.
    tolerance : a sample has converged when the norm of its field, per unit time, is within it.
    scale : "minmax": each feature is mapped from its range in the data of `fit`, or of the first
        `partial_fit`, to [0, 1], and what lies outside is clipped; a feature that does not vary
        becomes 0. None: X is taken as it is, images in [0, 1].
    random_state : int, RandomState or None, for the weights before learning and the order of the
        samples. An int gives the same bits each time, for any number of threads.

    `hidden`, `scale`, `loop_scale` and `random_state` belong to the network that `fit`, or the
    first `partial_fit`, began: a later `partial_fit` refuses others. All else may be set between
    its calls (`set_params`) and holds from then on.

    Attributes
    ----------
    classes_ : the labels, one for each output. n_features_in_, feature_names_in_ : as everywhere
        in scikit-learn.
    network_ : the trained `Network` (float32). It expects what `to_images` makes of X.
    n_iter_ : epochs, and calls of `partial_fit`. history_ : a dict for each of them, what
        `training.epoch.EpochReport` holds.
    data_min_, data_range_ : (n_features,) the range of each feature; None with scale=None.

    >>> import numpy as np
    >>> X, y = np.array([[0.0, 1.0], [1.0, 0.0]] * 10), np.array(["left", "right"] * 10)
    >>> LoopClassifier(hidden=(5,), epochs=10, random_state=0).fit(X, y).predict([[0.1, 0.8]])
    array(['left'], dtype='<U5')
    """

    def __init__(
        self,
        hidden: Sequence[int] = (500, 500),
        *,
        epochs: int = 20,
        batch: int = 20,
        beta: float = 1.0,
        rates: LearningRates | None = None,
        rate_factor: float = 0.95,
        output_step: float | None = 0.2,
        loop_scale: float = 0.2,
        tolerance: float = 1e-4,
        scale: str | None = "minmax",
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.batch = batch
        self.beta = beta
        self.rates = rates
        self.rate_factor = rate_factor
        self.output_step = output_step
        self.loop_scale = loop_scale
        self.tolerance = tolerance
        self.scale = scale
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new network on X (B, n_features) and y (B,), labels of any kind; what was
        learned before is forgotten.

        Warns (ConvergenceWarning) of outputs that fell silent and of samples that did not come to
        rest in the last epoch. Raises ConfigurationError for settings that cannot be used and for
        less than two classes, NotFiniteError where the weights break.
        """
        if not _counts(self.epochs):
            raise ConfigurationError(f"epochs = {self.epochs!r}, expected a whole number, 1 or more")
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        self._begin(X, y)
        split, recipe = self._split(X, y), self._recipe(self.rate_factor)
        for _ in range(self.epochs):
            report = self._learn(split, recipe)
        self._learner.warm_start = None  # of the samples of this call
        _warn(report, self.classes_)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Learn from X and y once, at the full rates (`rate_factor` is of `fit`), going on from
        what has been learned.

        classes : all labels that will ever come; needed in the first call alone. The range of the
        features is that of the first data. Warns of samples that did not converge. Raises as
        `fit`, and ConfigurationError for labels that are not among the classes and for a `hidden`,
        `scale`, `loop_scale` or `random_state` other than the network was begun with.
        """
        first = not hasattr(self, "network_")
        if not first:
            self._refuse_another_network()
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), reset=first)
        if first:
            if classes is None:
                raise ConfigurationError(
                    "classes = None, expected all labels that will ever come, in the first call of partial_fit"
                )
            self._begin(X, classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ConfigurationError(
                f"classes = {np.unique(classes).tolist()}, expected those of the first call, {self.classes_.tolist()}"
            )
        split, recipe = self._split(X, y), self._recipe(1.0)
        recipe.check(self._learner.network)
        report = self._learn(split, recipe)
        self._learner.warm_start = None
        if report.unconverged:
            _warn_restless(f"{report.unconverged} samples did not converge and taught nothing", stacklevel=3)
        return self

    def decision_function(self, X: Any) -> Array:
        """The firing rates of the outputs at the free equilibrium, (B, n_classes) in [0, 1].

        Of two classes (B,): (second - first) / (second + first), which is 2 `predict_proba` - 1 of
        the second. Warns (ConvergenceWarning), as `predict`, `predict_proba` and `score` do, of
        samples that did not converge.
        """
        rates = self._rates(X)
        return 2 * _shares(rates)[:, 1] - 1 if len(self.classes_) == 2 else rates

    def predict_proba(self, X: Any) -> Array:
        """The firing rates of the outputs divided by their sum, (B, n_classes); equal shares where
        all are silent.

        They order the classes as the network does, and are not calibrated: a loop trained to
        saturate gives 0 and 1 (`CalibratedClassifierCV`).
        """
        return _shares(self._rates(X))

    def predict(self, X: Any) -> Array:
        """The label of the output that fires most, (B,)."""
        strongest = self._rates(X).argmax(1)
        predicted: Array = self.classes_[strongest]
        return predicted

    def to_images(self, X: Any) -> Array:
        """X as `network_` sees it, (B, n_features) float32."""
        check_is_fitted(self)
        return self._scaled(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def _begin(self, X: Array, labels: Any) -> None:
        """Everything that comes before learning: classes, the range of the features, a new
        network. What was learned before is forgotten first.
        """
        self.__dict__.pop("network_", None)
        check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ConfigurationError(f"y has 1 class, {self.classes_.tolist()[0]!r}, expected two or more")
        hidden = self._units()
        if self.scale not in ("minmax", None):
            raise ConfigurationError(f"scale = {self.scale!r}, expected 'minmax', or None for X as it is")
        self.data_min_ = None if self.scale is None else X.min(0).astype(np.float64)
        self.data_range_ = None if self.scale is None else X.max(0) - self.data_min_
        self.history_: list[dict[str, Any]] = []
        rng = np.random.default_rng(check_random_state(self.random_state).randint(SEEDS))
        network = loop_network((X.shape[1], *hidden, len(self.classes_)), loop_scale=self.loop_scale, rng=rng)
        self._learner = Learner.start(network, self._recipe(self.rate_factor), rng)
        self._begun = {name: getattr(self, name) for name in OF_THE_NETWORK} | {"hidden": hidden}

    def _units(self) -> tuple[int, ...]:
        """`hidden` as plain numbers. Raises ConfigurationError."""
        given: Any = self.hidden.tolist() if isinstance(self.hidden, np.ndarray) else self.hidden
        if isinstance(given, str) or not isinstance(given, Sequence) or not given or not all(map(_counts, given)):
            raise ConfigurationError(
                f"hidden = {given!r}, expected the units of one hidden layer or more, such as (500, 500)"
            )
        return tuple(map(int, given))

    def _refuse_another_network(self) -> None:
        """Raises ConfigurationError where what the network was begun with has been set to
        something else since.
        """
        for name, begun in self._begun.items():
            now = self._units() if name == "hidden" else getattr(self, name)
            if now is not begun and now != begun:
                raise ConfigurationError(
                    f"{name} = {now!r}, expected {begun!r}, with which the network was begun; call fit, which begins another, or set it back"
                )

    def _learn(self, split: Split, recipe: Recipe) -> EpochReport:
        """One epoch."""
        report = train_epoch(self._learner, split, recipe)
        self.history_.append(report.as_dict())
        self.network_: Network = self._learner.network
        self.n_iter_ = len(self.history_)
        return report

    def _recipe(self, rate_factor: float) -> Recipe:
        if not isinstance(self.rates, LearningRates | None):
            raise ConfigurationError(
                f"rates = {self.rates!r}, expected learning.optimisers.Rates, or None for those of the presets"
            )
        between = (HIDDEN,) * (len(self.hidden) - 1)
        rates = LearningRates(INPUT, (*between, OUTPUT), LOOP) if self.rates is None else self.rates
        optimiser = Sgd(rates, output_step=self.output_step, rate_factor=rate_factor)
        return Recipe(optimiser, make_solver(), Tolerance(self.tolerance), self.beta, batch=self.batch)

    def _split(self, X: Array, y: Array) -> Split:
        """The images and the numbers of their classes."""
        known = np.isin(y, self.classes_)
        if not known.all():
            raise ConfigurationError(
                f"y holds {y[~known].tolist()[0]!r}, which is none of the classes {self.classes_.tolist()}"
            )
        return Split(self._scaled(X), np.searchsorted(self.classes_, y).astype(np.int64))

    def _scaled(self, X: Array) -> Array:
        """(B, n_features) float32, C-contiguous; with a scale in [0, 1]."""
        if self.data_range_ is not None:
            spread = np.where(self.data_range_ > 0, self.data_range_, np.inf)
            X = np.clip((X - self.data_min_) / spread, 0.0, 1.0)
        return np.ascontiguousarray(X, np.float32)

    def _rates(self, X: Any) -> Array:
        """(B, n_classes) firing rates of the outputs, float64. Warns of samples that are not at
        rest.
        """
        images, solver, tolerance = self.to_images(X), make_solver(), Tolerance(self.tolerance)
        rates, restless = np.empty((len(images), len(self.classes_))), 0
        for first in range(0, len(images), BATCH):
            rows = slice(first, first + BATCH)
            rest = solver.relax(self.network_, drive(self.network_, images[rows]), tolerance=tolerance)
            rates[rows] = self.network_.rho.rate(rest.output)
            restless += int((~rest.converged).sum())
        if restless:
            _warn_restless(
                f"{restless} of {len(images)} samples did not converge; their rates are those where the solver stopped",
                stacklevel=4,
            )
        return rates


def _shares(rates: Array) -> Array:
    """The rates of each sample (B, n_classes) divided by their sum; equal shares where that is 0."""
    total = rates.sum(1, keepdims=True)
    return np.where(total > 0, rates, 1.0) / np.where(total > 0, total, rates.shape[1])


def _counts(value: Any) -> bool:
    """Is it a whole number, 1 or more?"""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def _warn(report: EpochReport, classes: Array) -> None:
    """Say of the last epoch what makes the network worse than it need be."""
    if report.dead_outputs:
        silent = ", ".join(str(classes[j]) for j in report.dead_outputs)
        warnings.warn(
            f"outputs that never fired in the last epoch: {silent}; lower output_step or the rates",
            ConvergenceWarning,
            stacklevel=3,
        )
    if report.unconverged:
        _warn_restless(
            f"{report.unconverged} samples did not converge in the last epoch and taught nothing", stacklevel=4
        )


def _warn_restless(what: str, stacklevel: int) -> None:
    warnings.warn(f"{what}; lower loop_scale or the rate of the loop", ConvergenceWarning, stacklevel=stacklevel)
