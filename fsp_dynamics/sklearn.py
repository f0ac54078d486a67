"""A feedforward loop as a scikit-learn classifier, trained by the contrastive Hebbian rule (eq.
14).

    from fsp_dynamics.sklearn import LoopClassifier

    model = LoopClassifier(hidden=(100, 100), random_state=0).fit(X, y)
    model.score(X_test, y_test)

There is one output per class. The predicted class is that of the output with the highest firing
rate at the free equilibrium.
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

from fsp_dynamics.arrays import numbers
from fsp_dynamics.datasets import Split
from fsp_dynamics.errors import ConfigurationError, is_whole
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.learning.schedules import FactorSchedule
from fsp_dynamics.models.builders import loop_network
from fsp_dynamics.models.network import Array, Network
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
BATCH = 500  # samples relaxed at once for a prediction
SEEDS = 2**31 - 1
# settings that define the network and cannot change after it is created
OF_THE_NETWORK = ("hidden", "scale", "loop_scale", "random_state")


class LoopClassifier(ClassifierMixin, BaseEstimator):
    """A classifier whose outputs feed back to the first hidden layer through one loop, and whose
    weights learn locally from pre- and postsynaptic activity at two equilibria.

    Parameters
    ----------
    hidden : units of each hidden layer.
    epochs : passes over the data in `fit`.
    batch : samples averaged for one update.
    beta : strength of the nudge, per unit time.
    rates : `learning.optimisers.Rates`, eta for each matrix; None: 20 for the input, 30 between
        hidden layers, 7 into the output, 0.5 for the loop. Each is divided by 1 + the mean squared
        norm of the presynaptic rates, so that the same values work for any layer width.
    rate_factor : factor applied to all rates after each epoch of `fit`.
    output_step : largest change of the mean input of an output by one batch
        (`learning.optimisers`).
    loop_scale : initial scale of the loop, relative to Glorot initialisation.
    tolerance : a sample has converged when the norm of its field is at most this, per unit time.
    scale : "minmax": each feature is mapped from its range in the data of `fit`, or of the first
        `partial_fit`, to [0, 1], and values outside are clipped; constant features become 0.
        None: X is used unchanged and must lie in [0, 1].
    random_state : int, RandomState or None, for the initial weights and the order of the samples.
        An int gives bitwise identical results for any number of threads.

    `hidden`, `scale`, `loop_scale` and `random_state` define the network created by `fit` or the
    first `partial_fit`; a later `partial_fit` raises an error if they have changed. All other
    parameters may be changed between calls (`set_params`).

    Attributes
    ----------
    classes_ : the labels, one per output. n_features_in_, feature_names_in_ : as in all
        scikit-learn estimators.
    network_ : the trained `Network` (float32), whose input is `to_images(X)`.
    n_iter_ : number of epochs and calls of `partial_fit`. history_ : a dict for each, the fields
        of `training.report.EpochReport`.
    data_min_, data_range_ : (n_features,) the range of each feature; None with scale=None.

    >>> import numpy as np
    >>> X, y = np.array([[0.0, 1.0], [1.0, 0.0]] * 10), np.array(["left", "right"] * 10)
    >>> model = LoopClassifier(hidden=(5,), epochs=10, random_state=0).fit(X, y)
    >>> model.predict([[0.1, 0.8]])
    array(['left'], dtype='<U5')
    >>> model.predict_proba(X).shape, model.decision_function(X).shape, model.to_images(X).shape
    ((20, 2), (20,), (20, 2))
    >>> model.partial_fit(X, y).n_iter_
    11
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
        """Train a new network on X (B, n_features) and y (B,), labels of any kind, discarding any
        previous one.

        Warns (ConvergenceWarning) of outputs that were silent and of samples that did not converge
        in the last epoch. Raises ConfigurationError for invalid settings or fewer than two
        classes, NotFiniteError if the weights diverge.

        Returns
        -------
        LoopClassifier : itself.
        """
        if not is_whole(self.epochs, 1):
            raise ConfigurationError(f"epochs = {self.epochs!r}, expected a whole number, 1 or more")
        X, y = validate_data(self, _plain("X", X), _plain("y", y), dtype=(np.float64, np.float32))
        self._initialise(X, y)
        split, recipe = self._split(X, y), self._recipe(self.rate_factor)
        for _ in range(self.epochs):
            report = self._learn(split, recipe)
        self._learner.warm_start = None  # it belongs to the samples of this call
        _warn(report, self.classes_)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Continue training with one pass over X and y, at the full rates (`rate_factor` applies
        to `fit` only).

        classes : all labels that will ever occur; required in the first call. The range of the
        features is that of the first data. Warns of samples that did not converge. Raises as
        `fit`, and ConfigurationError for unknown labels or a changed `hidden`, `scale`,
        `loop_scale` or `random_state`.

        Returns
        -------
        LoopClassifier : itself.
        """
        first = not hasattr(self, "network_")
        if not first:
            self._check_unchanged()
        X, y = validate_data(self, _plain("X", X), _plain("y", y), dtype=(np.float64, np.float32), reset=first)
        if first:
            if classes is None:
                raise ConfigurationError(
                    "classes = None, expected all labels that will ever occur, in the first call of partial_fit"
                )
            self._initialise(X, classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ConfigurationError(
                f"classes = {np.unique(classes).tolist()}, expected those of the first call, {self.classes_.tolist()}"
            )
        split, recipe = self._split(X, y), self._recipe(1.0)
        recipe.check(self._learner.network)
        report = self._learn(split, recipe)
        self._learner.warm_start = None
        if report.unconverged:
            _warn_unconverged(f"{report.unconverged} samples did not converge and were not learned from", stacklevel=3)
        return self

    def decision_function(self, X: Any) -> Array:
        """The firing rates of the outputs at the free equilibrium, (B, n_classes) in [0, 1].

        For two classes (B,): (second - first) / (second + first), which is 2 `predict_proba` - 1
        of the second. Warns (ConvergenceWarning), as `predict`, `predict_proba` and `score` do, of
        samples that did not converge.

        Returns
        -------
        array : (B, n_classes), or (B,) for two classes.
        """
        rates = self._rates(X)
        return 2 * _normalised(rates)[:, 1] - 1 if len(self.classes_) == 2 else rates

    def predict_proba(self, X: Any) -> Array:
        """The firing rates of the outputs divided by their sum, (B, n_classes); uniform if all are
        silent.

        They rank the classes but are not calibrated: saturated outputs give 0 and 1 (see
        `CalibratedClassifierCV`).

        Returns
        -------
        array : (B, n_classes), rows of sum 1.
        """
        return _normalised(self._rates(X))

    def predict(self, X: Any) -> Array:
        """The label of the output with the highest rate, (B,).

        Returns
        -------
        array : (B,) of `classes_`.
        """
        strongest = self._rates(X).argmax(1)
        predicted: Array = self.classes_[strongest]
        return predicted

    def to_images(self, X: Any) -> Array:
        """X as the input of `network_`, (B, n_features) float32.

        Returns
        -------
        array : (B, n_features) float32 in [0, 1], where `scale` is "minmax".
        """
        check_is_fitted(self)
        return self._scaled(validate_data(self, _plain("X", X), dtype=(np.float64, np.float32), reset=False))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def _initialise(self, X: Array, labels: Any) -> None:
        """Discard any previous network; set classes and the range of the features and create a new
        network.
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
        self._initial = {name: getattr(self, name) for name in OF_THE_NETWORK} | {"hidden": hidden}

    def _units(self) -> tuple[int, ...]:
        """`hidden` as a tuple of int. Raises ConfigurationError."""
        given: Any = self.hidden.tolist() if isinstance(self.hidden, np.ndarray) else self.hidden
        listed = isinstance(given, Sequence) and not isinstance(given, str) and len(given) > 0
        if not listed or not all(is_whole(units, 1) for units in given):
            raise ConfigurationError(
                f"hidden = {given!r}, expected the number of units of one or more hidden layers, such as (500, 500)"
            )
        return tuple(map(int, given))

    def _check_unchanged(self) -> None:
        """Raise ConfigurationError if a setting that defines the network has changed."""
        for name, initial in self._initial.items():
            now = self._units() if name == "hidden" else getattr(self, name)
            if now is not initial and now != initial:
                raise ConfigurationError(
                    f"{name} = {now!r}, expected {initial!r} as when the network was created; "
                    "call fit, which creates a new one, or restore the value"
                )

    def _learn(self, split: Split, recipe: Recipe) -> EpochReport:
        """Train for one epoch."""
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
        optimiser = Sgd(rates, output_step=self.output_step, schedule=FactorSchedule(rate_factor))
        return Recipe(optimiser, make_solver(), Tolerance(self.tolerance), self.beta, batch=self.batch)

    def _split(self, X: Array, y: Array) -> Split:
        """The images and the indices of their classes."""
        known = np.isin(y, self.classes_)
        if not known.all():
            raise ConfigurationError(
                f"y holds {y[~known].tolist()[0]!r}, expected one of the classes {self.classes_.tolist()}"
            )
        return Split(self._scaled(X), np.searchsorted(self.classes_, y).astype(np.int64))

    def _scaled(self, X: Array) -> Array:
        """(B, n_features) float32, C-contiguous; with a scale in [0, 1]."""
        if self.data_range_ is not None:
            spread = np.where(self.data_range_ > 0, self.data_range_, np.inf)
            X = np.clip((X - self.data_min_) / spread, 0.0, 1.0)
        return np.ascontiguousarray(X, np.float32)

    def _rates(self, X: Any) -> Array:
        """(B, n_classes) firing rates of the outputs, float64. Warns of unconverged samples."""
        images, solver, tolerance = self.to_images(X), make_solver(), Tolerance(self.tolerance)
        rates, unconverged = np.empty((len(images), len(self.classes_))), 0
        for first in range(0, len(images), BATCH):
            rows = slice(first, first + BATCH)
            equilibrium = solver.relax(self.network_, drive(self.network_, images[rows]), tolerance=tolerance)
            rates[rows] = self.network_.rho.rate(equilibrium.output)
            unconverged += int((~equilibrium.converged).sum())
        if unconverged:
            _warn_unconverged(
                f"{unconverged} of {len(images)} samples did not converge; their rates are those at the last step",
                stacklevel=4,
            )
        return rates


def _plain(name: str, values: Any) -> Any:
    """Tensors and masked arrays as arrays, which scikit-learn would not read, or without their
    mask. Raises ConfigurationError for masked values.
    """
    return numbers(name, values) if hasattr(values, "detach") or isinstance(values, np.ma.MaskedArray) else values


def _normalised(rates: Array) -> Array:
    """The rates of each sample (B, n_classes) divided by their sum; uniform where that is 0."""
    total = rates.sum(1, keepdims=True)
    return np.where(total > 0, rates, 1.0) / np.where(total > 0, total, rates.shape[1])


def _warn(report: EpochReport, classes: Array) -> None:
    """Warn of silent outputs and unconverged samples in the last epoch."""
    if report.dead_outputs:
        silent = ", ".join(str(classes[j]) for j in report.dead_outputs)
        warnings.warn(
            f"outputs that never fired in the last epoch: {silent}; lower output_step or the rates",
            ConvergenceWarning,
            stacklevel=3,
        )
    if report.unconverged:
        _warn_unconverged(
            f"{report.unconverged} samples did not converge in the last epoch and were not learned from", stacklevel=4
        )


def _warn_unconverged(what: str, stacklevel: int) -> None:
    warnings.warn(f"{what}; lower loop_scale or the rate of the loop", ConvergenceWarning, stacklevel=stacklevel)
