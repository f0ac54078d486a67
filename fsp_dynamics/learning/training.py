"""Training: epochs of both phases and eq. 14 over a set of labelled images.

Training is told what to learn with by a `Recipe` and keeps what it has learned in a `Learner`, whose network is changed in place.
It writes no file and knows no analysis; whoever calls it looks at the learner between epochs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fsp_dynamics.errors import ConfigurationError, NotFiniteError, check_choice, check_finite, check_shape
from fsp_dynamics.learning import engine, mirror, phases, sweeps
from fsp_dynamics.learning.breaks import Breaks
from fsp_dynamics.learning.engine import Memory
from fsp_dynamics.learning.optimisers import Sgd
from fsp_dynamics.learning.ranks import ALONE, Ranks
from fsp_dynamics.learning.sweeps import SweepMemory
from fsp_dynamics.learning.telling import tell_phases
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance
from fsp_dynamics.solvers.packed_loop import PackedLoop


class LabelledImages(Protocol):
    """What can be learned from: images (B, n_in) in [0, 1] and labels (B,), class numbers from 0."""

    @property
    def images(self) -> Array: ...
    @property
    def labels(self) -> Array: ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to learn.

    optimiser : what becomes of an update. solver, tolerance : how and when the network is at rest.
    beta : strength of the nudge. phases : "one-sided", "random-sign" or "centred" (`learning.phases.run`).
    rule : "hebbian" (the paper) or "exact", whose nudge acts through transposed connections and whose update follows the gradient of the cost.
    batch : samples whose mean update is one step.
    mirror : how far the loop moves in each mirror phase (`learning.mirror`), in [0, 1]; 0: there are none.
    """

    optimiser: Sgd
    solver: Solver
    tolerance: Tolerance = field(default=Tolerance(1e-4))
    beta: float = 1.0
    phases: str = "one-sided"
    rule: str = "hebbian"
    batch: int = 20
    mirror: float = 0.0

    def __post_init__(self) -> None:
        check_choice("phases", self.phases, phases.KINDS)
        check_choice("rule", self.rule, phases.RULES)
        if not isinstance(self.batch, int | np.integer) or isinstance(self.batch, bool) or self.batch < 1:
            raise ConfigurationError(f"batch = {self.batch!r}, expected a whole number, 1 or more")
        if not 0 <= self.mirror <= 1:
            raise ConfigurationError(f"mirror = {self.mirror!r}, expected a share from 0 to 1 by which the loop moves")

    def check(self, network: Network) -> None:
        """Refuse what does not fit the network, before any time is spent. Raises ConfigurationError, NotFiniteError."""
        self.optimiser.check(network)
        if self.mirror and network.loop is None:
            raise ConfigurationError(f"mirror = {self.mirror!r}, but the network has no loop that could follow; leave it out")
        for name, weight in network.parameters().items():
            check_finite(name, weight)
        self.solver.relax(network, np.zeros((1, network.sizes[1]), network.dtype), None, None, self.tolerance)  # refuses what it cannot relax
        for beta in (self.beta,) if self.phases == "one-sided" else (self.beta, -self.beta):
            Nudge(beta, np.zeros((0, network.sizes[-1]))).check(network, 0)


@dataclass(slots=True)
class Learner:
    """What training changes: the network (owned, in place), the momentum's velocity, finished epochs, the random stream, the engine's memory."""

    network: Network
    rng: np.random.Generator
    velocity: dict[str, Array] = field(default_factory=dict)
    epoch: int = 0
    memory: Memory | SweepMemory | None = None

    @classmethod
    def start(cls, network: Network, recipe: Recipe, rng: np.random.Generator | int | None = None) -> Learner:
        """A learner with its own copy of `network`. Raises ConfigurationError where the recipe does not fit it."""
        recipe.check(network)
        return cls(network.copy(), np.random.default_rng(rng))


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch, as it was seen while learning.

    train_error : percent, of the free-phase predictions just before each update. residual, residual_max : free phase.
    unrested : samples not at rest in some phase, which were not learned from. nudged_share : share of samples nudged at all.
    passes_free, passes_nudged : mean solver steps per sample, and per nudged sample.
    dead_outputs : outputs with rate 0 for the whole epoch although their class occurs.
    """

    train_error: float
    residual: float
    residual_max: float
    unrested: int
    nudged_share: float
    passes_free: float
    passes_nudged: float
    dead_outputs: tuple[int, ...]
    seconds: float
    images_per_second: float

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


OnBatch = Callable[[int, int, float], None]
Probe = Callable[[int, Network | PackedLoop], None]
"""Is told how many batches of the epoch are done, and what holds the weights then (`analysis.alignment.loop_angles` takes either)."""


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is found, and its place named, by the checks below
def train_epoch(
    learner: Learner,
    split: LabelledImages,
    recipe: Recipe,
    on_batch: OnBatch | None = None,
    *,
    threads: int | None = None,
    probe: Probe | None = None,
    every: int = 100,
    ranks: Ranks = ALONE,
) -> EpochReport:
    """One pass over the images in a random order drawn from `learner.rng`; the learner is changed in place.

    on_batch(images done, images in all, percent wrong so far) is called every few batches. threads : of a loop's compiled batches; None: as many as
    Numba may use, one for small networks. The result does not depend on it. probe : is called after every `every` batches; it changes nothing.
    ranks : the processes that train together; every one of them calls this with the same learner, data and recipe, and learns the same.
    Raises NotFiniteError, naming layer and batch, before a NaN or infinity is learned; ConfigurationError for empty data or
    labels that the output has no unit for.
    """
    network, labels = learner.network, split.labels
    check_split(network, split)
    order = learner.rng.permutation(len(labels))
    told = (lambda done, wrong: None) if on_batch is None else (lambda done, wrong: on_batch(done, len(labels), 100 * wrong / done))
    count = _EpochCount(network)
    begin = time.perf_counter()
    if engine.takes_on_torch(recipe):
        from fsp_dynamics.learning.torch_engine import TorchEngine

        betas = phases.signed(recipe.beta, recipe.phases, -(-len(labels) // recipe.batch), learner.rng)
        on_device = TorchEngine(learner, split, recipe, ranks, threads)
        on_device.epoch(order, betas, told, _breaks(probe, every, network))
        count.add_counted(on_device.count, on_device.strongest, labels)
    elif engine.takes(network, recipe):
        betas = phases.signed(recipe.beta, recipe.phases, -(-len(labels) // recipe.batch), learner.rng)
        work = engine.LoopEngine(learner, split, recipe, threads, ranks)
        work.epoch(order, betas, told, _breaks(probe, every, work.packed))
        count.add_counted(work.count, work.strongest, labels)
    elif sweeps.takes(network, recipe) and ranks.shards == 1:
        sweeps.SweepEngine(learner, split, recipe, threads).epoch(
            order, lambda *batch: _see(split, count, told, *batch), _breaks(probe, every, network)
        )
    else:
        _batches(learner, split, recipe, order, count, told, _breaks(probe, every, network), ranks)
    learner.epoch += 1
    _check_weights(network, learner.epoch)
    return count.report(time.perf_counter() - begin)


def _breaks(probe: Probe | None, every: int, weights: Network | PackedLoop) -> Breaks:
    """What is done between batches: the probe, where there is one."""
    breaks = Breaks()
    if probe is not None:
        breaks.add(every, lambda done: probe(done, weights))
    return breaks


def _batches(
    learner: Learner,
    split: LabelledImages,
    recipe: Recipe,
    order: Array,
    count: _EpochCount,
    told: Callable[[int, float], None],
    breaks: Breaks,
    ranks: Ranks,
) -> None:
    """Learn from the images in this order, batch by batch, each shard by shard."""
    network, images, labels = learner.network, split.images, split.labels
    targets = np.eye(network.sizes[-1], dtype=network.dtype)
    if recipe.mirror:
        latest: Callable[[int], Array] = lambda done: images[order[: done * recipe.batch][-mirror.SAMPLES :]]  # noqa: E731
        breaks = Breaks([(mirror.every(recipe.batch), lambda done: _mirror(learner, latest(done), recipe)), *breaks.due])
    for first in range(0, len(order), recipe.batch):
        index = order[first : first + recipe.batch]
        batch, label = images[index].astype(network.dtype, copy=False), labels[index]
        beta = float(phases.signed(recipe.beta, recipe.phases, 1, learner.rng)[0])
        both = tell_phases(ranks, len(index), lambda part: _run_phases(network, batch[part], targets[label[part]], beta, recipe))  # noqa: B023
        count.add(both, label)
        _check_rest(both, first // recipe.batch, batch)
        recipe.optimiser.step(network, learner.velocity, batch, both, float(np.vdot(batch, batch)) / len(batch), learner.epoch)
        told(count.samples, count.wrong)
        breaks.take(first // recipe.batch + 1)


def _run_phases(network: Network, images: Array, target: Array, beta: float, recipe: Recipe) -> phases.Phases:
    """Both phases of these images under a nudge of that strength and sign."""
    constant = images @ network.input
    constant += network.biases[0]
    kind = "centred" if recipe.phases == "centred" else "one-sided"
    return phases.run(network, constant, target, beta, recipe.solver, kind=kind, rule=recipe.rule, tolerance=recipe.tolerance)


def _mirror(learner: Learner, seen: Array, recipe: Recipe) -> None:
    """One mirror phase with these images (A, n_in)."""
    _, relax = engine.relaxer(learner.network, recipe, learner.memory)
    mirror.run(learner.network, seen, relax, recipe.mirror, learner.rng)


def _see(split: LabelledImages, count: _EpochCount, told: Callable[[int, float], None], batch: int, index: Array, both: phases.Phases) -> None:
    """Count a batch; refuse to learn from what is not finite."""
    count.add(both, split.labels[index])
    _check_rest(both, batch, split.images[index])
    told(count.samples, count.wrong)


class _EpochCount:
    """Sums over the samples seen so far."""

    def __init__(self, network: Network) -> None:
        self.rate, classes = network.rho.rate, network.sizes[-1]
        self.samples = self.wrong = self.unrested = self.nudged = 0
        self.residual = self.residual_max = self.passes_free = self.passes_nudged = 0.0
        self.strongest, self.occurs = np.zeros(classes), np.zeros(classes, bool)

    def add_free(self, rest: Equilibrium, labels: Array) -> None:
        self.samples += len(labels)
        self.wrong += int((rest.output.argmax(1) != labels).sum())
        self.residual += float(rest.residual.sum())
        self.residual_max = float(np.maximum(self.residual_max, rest.residual.max()))  # keeps NaN
        self.passes_free += float(rest.steps.sum())
        self.unrested += int((~rest.at_rest).sum())
        self.strongest = np.maximum(self.strongest, self.rate(rest.output).max(0))
        self.occurs[labels] = True

    def add(self, both: phases.Phases, labels: Array) -> None:
        self.add_free(both.free, labels)
        self.unrested += int((~both.at_rest).sum())
        self.nudged += len(both.rows)
        self.passes_nudged += float(both.nudged.steps.sum())

    def add_counted(self, count: Array, strongest: Array, labels: Array) -> None:
        """What the engine counted (kernels/loop_learning.COUNTED)."""
        counted = dict(zip(engine.COUNTED, count, strict=True))
        self.samples, self.wrong, self.nudged, self.unrested = (int(counted[key]) for key in ("samples", "wrong", "nudged", "unrested"))
        self.residual, self.residual_max = counted["residual"], counted["residual_max"]
        self.passes_free, self.passes_nudged = counted["passes_free"], counted["passes_nudged"]
        self.strongest = strongest
        self.occurs[labels] = True

    def dead_outputs(self) -> tuple[int, ...]:
        return tuple(int(j) for j in np.flatnonzero(self.occurs & (self.strongest <= 0)))

    def report(self, seconds: float) -> EpochReport:
        return EpochReport(
            train_error=100 * self.wrong / self.samples,
            residual=self.residual / self.samples,
            residual_max=self.residual_max,
            unrested=self.unrested,
            nudged_share=self.nudged / self.samples,
            passes_free=self.passes_free / self.samples,
            passes_nudged=self.passes_nudged / max(self.nudged, 1),
            dead_outputs=self.dead_outputs(),
            seconds=seconds,
            images_per_second=self.samples / seconds,
        )


def check_split(network: Network, split: LabelledImages) -> None:
    """Refuse data that the network cannot learn from or be judged by. Raises ConfigurationError, ShapeError."""
    if len(split.labels) == 0:
        raise ConfigurationError("the data hold no images; give at least one")
    if not np.issubdtype(np.asarray(split.labels).dtype, np.integer):
        raise ConfigurationError(f"labels are {np.asarray(split.labels).dtype}, expected whole numbers, the classes from 0 on")
    check_shape("images", split.images, (len(split.labels), network.sizes[0]))
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= network.sizes[-1]:
        raise ConfigurationError(
            f"labels run from {low} to {high}, expected 0 to {network.sizes[-1] - 1}: the network has {network.sizes[-1]} outputs"
        )


def _check_rest(both: phases.Phases, batch: int, images: Array) -> None:
    """Refuse to go on from a state that is not finite, and say whether the images are why. Raises NotFiniteError."""
    for name, rest in zip(phases.NAMES, (both.free, both.nudged, both.opposite), strict=True):
        if rest is not None and not np.isfinite(rest.residual).all():
            phases.refuse_broken(name, batch, images, rest.state)


def _check_weights(network: Network, epoch: int) -> None:
    for name, weight in network.parameters().items():
        if not np.isfinite(weight).all():
            raise NotFiniteError(f"{name} is not finite after epoch {epoch}; lower its learning rate")
