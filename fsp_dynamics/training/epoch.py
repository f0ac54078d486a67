"""`train_epoch`: one pass of both phases and a learning rule over a set of labelled images.

How to learn is in a `Recipe`, what has been learned in a `Learner`, whose network is changed in
place; an `Engine` computes the batches. Training writes no file and knows no analysis; callers look
at the learner between epochs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fsp_dynamics.errors import NotFiniteError, RankLostError
from fsp_dynamics.kernels.compile_watch import working_time
from fsp_dynamics.kernels.heed import heeded, heeding
from fsp_dynamics.learning import mirror
from fsp_dynamics.learning.averaging import Averaging
from fsp_dynamics.models.network import Network
from fsp_dynamics.solvers.packed_loop import PackedLoop
from fsp_dynamics.training.checks import check_learner, checked_split
from fsp_dynamics.training.engine import Engine, choose_engine
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.interrupts import Interrupts
from fsp_dynamics.training.ranks import ALONE, Ranks
from fsp_dynamics.training.recipe import LabelledImages, Learner, Recipe
from fsp_dynamics.training.report import EpochReport
from fsp_dynamics.training.weight_noise import WeightNoise

OnBatch = Callable[[int, int, float], None]
Probe = Callable[[int, Network | PackedLoop], None]
"""Takes the number of finished batches of the epoch and what holds the weights then
(`analysis.alignment.loop_angles` takes either)."""


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is found, and its place named, by the checks
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
    leave: Callable[[], None] | None = None,
) -> EpochReport:
    """One pass over the images in a random order drawn from `learner.rng`; the learner is changed
    in place.

    on_batch(images done, images in all, percent wrong so far) is called every few batches. If it
        raises, `learner.unfinished` holds where the epoch stands, and the next call goes on from
        there, to the same bits. So it is where `leave` or Ctrl-C leaves the relaxation of a batch,
        of which nothing is then kept.
    threads : of a loop's compiled batches; None: as many as Numba may use, one for small networks.
        The result does not depend on it.
    probe : is called after every `every` batches; it changes nothing.
    ranks : the processes that train together; every one of them calls this with the same learner,
        data and recipe, and learns the same.
    leave : a check that is made while phases relax, and there alone; by default the one that is
        heeded where this is called (kernels/heed.py).

    Raises NotFiniteError, naming layer and batch, before a NaN or infinity is learned;
    ConfigurationError for empty data, labels that the output has no unit for, and an unfinished
    epoch over other data.

    Returns
    -------
    EpochReport : training error in percent, residuals, unconverged samples, seconds.

    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.optimisers import LearningRates, Sgd
    >>> recipe = Recipe(Sgd(LearningRates(20.0, (7.0,), loop=0.5)), fsp.make_solver())
    >>> network = fsp.loop_network([64, 20, 10], loop_scale=0.2, rng=0)
    >>> learner = Learner.start(network, recipe, rng=1)
    >>> train, reports = fsp.load_dataset("digits").train.limit(200), []
    >>> for _ in range(5):
    ...     reports.append(train_epoch(learner, train, recipe))
    >>> reports[-1].train_error < reports[0].train_error
    True
    """
    split = checked_split(learner.network, split)
    state = learner.begin_epoch(len(split.labels), recipe)
    engine = choose_engine(learner, split, recipe, threads, ranks)
    noise = WeightNoise.of(recipe.weight_noise, recipe.optimiser, learner.network, state)
    interrupts = interrupts_of(engine, state, recipe, noise, probe, every)
    interrupts.leave = leave or heeded()
    before = working_time() - state.seconds

    def progress() -> None:
        state.seconds = working_time() - before
        if on_batch is not None and state.statistics.samples:
            samples = state.statistics.samples
            on_batch(samples, len(state.order), 100 * state.statistics.wrong / samples)

    try:
        with heeding(None):
            if noise.is_due:
                with state.changing():
                    engine.change(noise.renew)
            engine.learn(state, interrupts, progress)
    except (NotFiniteError, RankLostError):
        raise
    except BaseException:
        if state.whole:
            state.seconds = working_time() - before
            engine.write_back()
            learner.unfinished = state
        raise
    engine.write_back()
    noise.take_off(learner.network)
    learner.epoch += 1
    check_learner(learner)
    return state.statistics.report(split.labels, working_time() - before)


def interrupts_of(
    engine: Engine,
    state: EpochState,
    recipe: Recipe,
    noise: WeightNoise,
    probe: Probe | None = None,
    every: int = 1,
) -> Interrupts:
    """What is done between batches: mirror phases, without noise on the weights, and then other
    noise; samples of the average, without noise; then the probe.
    """
    interrupts, thousand = Interrupts(), mirror.every(recipe.batch)
    if recipe.mirror:
        latest = mirror.SAMPLES
        if noise.sigma:
            interrupts.add(thousand, lambda done: engine.change(noise.take_off))
        interrupts.add(thousand, lambda done: engine.mirror(state.samples(0, done)[-latest:]))
    if noise.sigma:
        interrupts.add(thousand, lambda done: engine.change(noise.renew))
    if recipe.average is not None and engine.learner.epoch >= recipe.average.start:
        how = recipe.average
        interrupts.add(
            how.period(len(state.betas)), lambda done: take_sample(engine.learner, engine.weights, how, noise)
        )
    if probe is not None:
        interrupts.add(every, lambda done: probe(done, engine.weights))
    return interrupts


def take_sample(learner: Learner, weights: Network | PackedLoop, how: Averaging, noise: WeightNoise) -> None:
    """Add the weights of the moment, without noise, to the learner's average."""
    if isinstance(weights, PackedLoop):
        weights.write_to(learner.network)
    learner.average.take(noise.clean(learner.network.parameters()), how)
