"""Training: epochs of both phases and eq. 14 over a set of labelled images.

Training is told what to learn with by a `Recipe` and keeps what it has learned in a `Learner`,
whose network is changed in place. It writes no file and knows no analysis; whoever calls it looks
at the learner between epochs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from fsp_dynamics.learning import mirror, phases
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.solvers.packed_loop import PackedLoop
from fsp_dynamics.training import loop_engine as engine
from fsp_dynamics.training import reciprocal_engine as sweeps
from fsp_dynamics.training.checks import check_phases, check_split, check_weights
from fsp_dynamics.training.exchange import tell_phases
from fsp_dynamics.training.interrupts import Interrupts
from fsp_dynamics.training.ranks import ALONE, Ranks
from fsp_dynamics.training.recipe import LabelledImages, Learner, Recipe
from fsp_dynamics.training.report import EpochReport, EpochStatistics

OnBatch = Callable[[int, int, float], None]
Probe = Callable[[int, Network | PackedLoop], None]
"""Is told how many batches of the epoch are done, and what holds the weights then
(`analysis.alignment.loop_angles` takes either).
"""


# what is not finite is found, and its place named, by the checks below
@np.errstate(over="ignore", invalid="ignore")
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
    """One pass over the images in a random order drawn from `learner.rng`; the learner is changed
    in place.

    on_batch(images done, images in all, percent wrong so far) is called every few batches. threads
    : of a loop's compiled batches; None: as many as
    Numba may use, one for small networks. The result does not depend on it. probe : is called
    after every `every` batches; it changes nothing.
    ranks : the processes that train together; every one of them calls this with the same learner,
    data and recipe, and learns the same. Raises NotFiniteError, naming layer and batch, before a
    NaN or infinity is learned; ConfigurationError for empty data or labels that the output has no
    unit for.
    """
    network, labels = learner.network, split.labels
    check_split(network, split)
    order = learner.rng.permutation(len(labels))
    told = (
        (lambda done, wrong: None)
        if on_batch is None
        else (lambda done, wrong: on_batch(done, len(labels), 100 * wrong / done))
    )
    count = EpochStatistics(network)
    begin = time.perf_counter()
    if engine.supports_torch(recipe):
        from fsp_dynamics.torch_backend.engine import TorchEngine

        betas = phases.signed(recipe.beta, recipe.phases, -(-len(labels) // recipe.batch), learner.rng)
        on_device = TorchEngine(learner, split, recipe, ranks, threads)
        on_device.epoch(order, betas, told, _interrupts(probe, every, network))
        count.add_counted(on_device.count, on_device.strongest, labels)
    elif engine.takes(network, recipe):
        betas = phases.signed(recipe.beta, recipe.phases, -(-len(labels) // recipe.batch), learner.rng)
        work = engine.LoopEngine(learner, split, recipe, threads, ranks)
        work.epoch(order, betas, told, _interrupts(probe, every, work.packed))
        count.add_counted(work.count, work.strongest, labels)
    elif sweeps.takes(network, recipe) and ranks.shards == 1:
        sweeps.SweepEngine(learner, split, recipe, threads).epoch(
            order, lambda *batch: _see(split, count, told, *batch), _interrupts(probe, every, network)
        )
    else:
        _batches(learner, split, recipe, order, count, told, _interrupts(probe, every, network), ranks)
    learner.epoch += 1
    check_weights(network, learner.epoch)
    return count.report(time.perf_counter() - begin)


def _interrupts(probe: Probe | None, every: int, weights: Network | PackedLoop) -> Interrupts:
    """What is done between batches: the probe, where there is one."""
    interrupts = Interrupts()
    if probe is not None:
        interrupts.add(every, lambda done: probe(done, weights))
    return interrupts


def _batches(
    learner: Learner,
    split: LabelledImages,
    recipe: Recipe,
    order: Array,
    count: EpochStatistics,
    told: Callable[[int, float], None],
    interrupts: Interrupts,
    ranks: Ranks,
) -> None:
    """Learn from the images in this order, batch by batch, each shard by shard."""
    network, images, labels = learner.network, split.images, split.labels
    targets = np.eye(network.sizes[-1], dtype=network.dtype)
    if recipe.mirror:
        latest: Callable[[int], Array] = lambda done: images[order[: done * recipe.batch][-mirror.SAMPLES :]]  # noqa: E731
        interrupts = Interrupts(
            [(mirror.every(recipe.batch), lambda done: _mirror(learner, latest(done), recipe)), *interrupts.due]
        )
    for first in range(0, len(order), recipe.batch):
        index = order[first : first + recipe.batch]
        batch, label = images[index].astype(network.dtype, copy=False), labels[index]
        beta = float(phases.signed(recipe.beta, recipe.phases, 1, learner.rng)[0])

        def run(part: slice) -> phases.Phases:
            return _run_phases(network, batch[part], targets[label[part]], beta, recipe)  # noqa: B023

        both = tell_phases(ranks, len(index), run)
        count.add(both, label)
        check_phases(both, first // recipe.batch, batch)
        recipe.optimiser.step(
            network, learner.velocity, batch, both, float(np.vdot(batch, batch)) / len(batch), learner.epoch
        )
        told(count.samples, count.wrong)
        interrupts.take(first // recipe.batch + 1)


def _run_phases(network: Network, images: Array, target: Array, beta: float, recipe: Recipe) -> phases.Phases:
    """Both phases of these images under a nudge of that strength and sign."""
    constant = images @ network.input
    constant += network.biases[0]
    kind = "centred" if recipe.phases == "centred" else "one-sided"
    return phases.run(
        network, constant, target, beta, recipe.solver, kind=kind, rule=recipe.rule, tolerance=recipe.tolerance
    )


def _mirror(learner: Learner, seen: Array, recipe: Recipe) -> None:
    """One mirror phase with these images (A, n_in)."""
    _, relax = engine.free_phase_solver(learner.network, recipe, learner.warm_start)
    mirror.run(learner.network, seen, relax, recipe.mirror, learner.rng)


def _see(
    split: LabelledImages,
    count: EpochStatistics,
    told: Callable[[int, float], None],
    batch: int,
    index: Array,
    both: phases.Phases,
) -> None:
    """Count a batch; refuse to learn from what is not finite."""
    count.add(both, split.labels[index])
    check_phases(both, batch, split.images[index])
    told(count.samples, count.wrong)
