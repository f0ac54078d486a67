"""The usual engine: loops with a hard sigmoid, whole batches compiled (kernels/loop_learning.py).

It computes what `plain_engine` computes, to rounding and to the tolerance of convergence;
docs/performance.md explains what it saves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fsp_dynamics.errors import NotFiniteError, RankLostError
from fsp_dynamics.kernels.compile_watch import working_time
from fsp_dynamics.kernels.loop_arrays import DOUBTS, RESIDUAL, STATUS
from fsp_dynamics.kernels.loop_learning import (
    BATCH,
    COUNTED,
    DONE,
    EXCHANGE,
    LEFT,
    PHASE,
    LoopTotals,
    RankPart,
    learn_batches,
)
from fsp_dynamics.kernels.loop_optimiser import LearningSettings, LoopVelocity
from fsp_dynamics.kernels.loop_phases import FREE, POSITIVE, LoopData, LoopStarts
from fsp_dynamics.kernels.status import CONVERGED, NOT_FINITE
from fsp_dynamics.kernels.team import LOST, Team, ThreadTuner, can_synchronise, partition
from fsp_dynamics.learning import mirror
from fsp_dynamics.learning.optimisers import Sgd
from fsp_dynamics.learning.phases import NAMES
from fsp_dynamics.learning.rules.hebbian import HebbianRule
from fsp_dynamics.learning.rules.mean_subtracted import MeanSubtractedRule
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge
from fsp_dynamics.solvers.equilibrium import Equilibrium
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.packed_loop import LoopWorkspace, PackedLoop, threads_for
from fsp_dynamics.solvers.recovery import recover
from fsp_dynamics.training.checks import refuse_not_finite
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.exchange import BatchExchange
from fsp_dynamics.training.interrupts import Interrupts
from fsp_dynamics.training.ranks import Ranks
from fsp_dynamics.training.recipe import LabelledImages, Learner, Recipe
from fsp_dynamics.training.warm_start import LoopWarmStart

CHUNK = 1024  # samples of one call of the kernel; progress is reported between two calls
TRIAL = 256  # samples with which another number of threads is tried


class LoopEngine:
    """One epoch's arrays, and the calls of the kernel.

    Ranks that share memory are `joined`: they compute every batch together, and what is done
    between two calls is done by the first of them. Other ranks compute a part of each batch.
    """

    in_shards = False

    def __init__(
        self, learner: Learner, split: LabelledImages, recipe: Recipe, threads: int | None, ranks: Ranks
    ) -> None:
        assert isinstance(recipe.solver, FixedPointSolver)
        self.learner, self.split, self.recipe, self.solver, self.ranks = learner, split, recipe, recipe.solver, ranks
        network = learner.network
        number, sharers = ranks.sharers
        self.joined = sharers > 1 and can_synchronise()
        to: Callable[[Array], Array] = ranks.shared if self.joined else lambda array: array
        self.part = RankPart(0, 1) if self.joined else RankPart(ranks.rank, ranks.count)
        self.packed = PackedLoop.of(network).moved(to)
        self.warm_start = LoopWarmStart.empty(len(split.labels), network).or_fresh(learner.warm_start)
        self.warm_start = learner.warm_start = LoopWarmStart(
            **{name: to(array) for name, array in self.warm_start.arrays().items()}
        )
        here = threads_for(network, recipe.batch) if threads is None else threads
        if self.joined:  # a team has as many threads in each rank
            here = min(int(each[0]) for each in ranks.gather(np.array([here])))
        self.team = Team(here, number * here, sharers * here, to(np.zeros(32, np.int64))) if self.joined else Team(here)
        fixed = threads is not None or ranks.count > 1  # ranks pause at the same batches
        self.tuner = ThreadTuner(self.team.threads, fixed=fixed)
        rows, phases = min(recipe.batch, len(split.labels)), 3 if recipe.phases == "centred" else 2
        self.workspace = LoopWorkspace(self.packed, rows, self.team.total, phases, to)
        self.exchange = BatchExchange(ranks, self.workspace, limited=recipe.optimiser.output_step is not None)
        self.labels = np.ascontiguousarray(split.labels, np.int64)
        momentum = recipe.optimiser.momentum > 0
        self.velocity = _packed_velocity(network, learner.velocity).moved(to) if momentum else None
        self.count, self.strongest = to(np.zeros(len(COUNTED))), to(np.zeros(network.sizes[-1]))
        # (batches learned before the present call of the kernel, its cursor)
        self.call = (0, to(np.zeros(3, np.int64)))
        self._barrier()

    @classmethod
    def supports(cls, network: Network, recipe: Recipe, ranks: Ranks) -> bool:
        """Whether it is a loop with a hard sigmoid, relaxed by Broyden's method, and eq. 14 or its
        mean-subtracted form trains it.
        """
        broyden = isinstance(recipe.solver, FixedPointSolver) and recipe.solver.uses_broyden(network)
        return network.is_hard_sigmoid_loop and broyden and type(recipe.rule) in (HebbianRule, MeanSubtractedRule)

    @property
    def weights(self) -> PackedLoop:
        """The packed weights."""
        return self.packed

    def learn(self, state: EpochState, interrupts: Interrupts, progress: Callable[[], None]) -> None:
        """See `engine.Engine.learn`."""
        batch, batches = state.batch, len(state.betas)
        statistics = state.statistics
        self.count[:], self.strongest[:] = statistics.counts, statistics.strongest
        settings = _settings(self.learner, self.recipe)
        self.call = state.done, self.call[1]
        with self.team, self.ranks.watching(self.team.counters):
            if state.owed:  # it was left when the last of them had just been learned
                self._attend(state, interrupts)
            while state.done < batches:
                begin, piece = working_time(), max(1, (TRIAL if self.tuner.trial else CHUNK) // batch)
                last = min(batches, interrupts.after(state.done, piece))
                try:
                    with interrupts.relaxing():  # what the kernel learns besides, it learns of whole batches
                        self._batches(state, last, settings)
                finally:
                    done, state.done = state.done, self._done
                    state.owed = state.done > done
                    statistics.counts[:], statistics.strongest[:] = self.count, self.strongest
                self.tuner.record(last - done, working_time() - begin)
                self._attend(state, interrupts)
                progress()

    def _attend(self, state: EpochState, interrupts: Interrupts) -> None:
        """Do what is due after the batches that are done."""
        with state.changing():
            interrupts.run_due(state.done)
            state.owed = False

    def mirror(self, samples: Array) -> None:
        """See `engine.Engine.mirror`."""
        network, known = self.learner.network, (self.packed, self.warm_start.slope)
        self.packed.write_to(network)

        def relax(constant: Array) -> Equilibrium:
            return self.solver.relax_known(network, constant, known, self.recipe.tolerance)

        rate = self.recipe.mirror_rate(self.learner.epoch)
        mirror.run(network, self.split.images[samples], relax, rate, self.learner.rng)
        assert network.loop is not None
        self._barrier()  # others may still relax with the old loop
        if self.first:
            self.packed.loop[:, : network.loop.shape[1]] = network.loop
        self._barrier()

    def change(self, act: Callable[[Network], None]) -> None:
        """See `engine.Engine.change`."""
        self.packed.write_to(self.learner.network)
        act(self.learner.network)
        self._barrier()  # others may still read the old weights
        if self.first:
            self.packed.read_from(self.learner.network)
        self._barrier()

    def write_back(self) -> None:
        """Give the learner the packed weights and velocity; the warm start is its own."""
        self.packed.write_to(self.learner.network)
        if self.velocity is not None:
            _unpack_velocity(self.learner, self.velocity, self.recipe.optimiser)

    @property
    def first(self) -> bool:
        """Whether this process does what is done once: the first of joined ranks, or any other
        rank.
        """
        return not self.joined or self.ranks.sharers[0] == 0

    @property
    def _done(self) -> int:
        """How many batches of the epoch are learned, also where a call was left in the middle."""
        before, cursor = self.call
        return before + int(cursor[BATCH])

    def _barrier(self) -> None:
        """Wait for all joined ranks. Raises RankLostError where one has ended."""
        if self.joined:
            self.ranks.barrier()
            if self.team.counters[LOST]:
                raise RankLostError("another process of this job is gone")

    def _batches(self, state: EpochState, last: int, settings: Any) -> None:
        """Learn the batches that are left before batch number `last`."""
        first_batch, betas = state.done, state.betas[state.done : last]
        samples = state.samples(first_batch, last)
        images, places, norms = self._images(samples, first_batch * state.batch, state.seed)
        data = LoopData(images, places, self.labels[samples], np.ascontiguousarray(samples), norms)
        starts = LoopStarts(self.warm_start.outputs, self.warm_start.moves, self.warm_start.slope, self.warm_start.sums)
        given = self.velocity
        velocity = None if given is None else LoopVelocity(given.weights, given.loop, given.biases)
        limits = self.recipe.tolerance.limits(self.solver.max_passes)
        totals, cursor = LoopTotals(self.count, self.strongest), self.call[1]
        if self.joined:
            self._barrier()
            if self.first:
                cursor[:] = 0
            self._barrier()
        else:  # where this is left, the old one tells how far learning has come
            cursor = np.zeros_like(cursor)
        self.call = first_batch, cursor
        while True:
            self.team.run(
                learn_batches, self.packed.net, data, starts, self.workspace.buffers,
                LearningSettings(betas, *settings), velocity, self.workspace.scratch, limits, totals, self.part,
                cursor, threads=self.tuner.threads,
            )  # fmt: skip
            self._barrier()
            if cursor[PHASE] == DONE:
                return
            if cursor[PHASE] == LEFT:  # and no exception here
                raise RankLostError("another process of this job has been stopped")
            batch, phase = int(cursor[BATCH]), int(cursor[PHASE])
            here = places[batch * self.recipe.batch :][: self.recipe.batch]
            if phase == EXCHANGE:
                self._exchange(first_batch + batch, images[here])
            else:
                self._recover(phase, float(betas[batch]), first_batch + batch, images[here])
            self._barrier()

    def _images(self, samples: Array, first: int, seed: int | None) -> tuple[Array, Array, Array]:
        """(images in the network's dtype, the row of each sample there, ||image||^2 of each), of
        the samples from place `first` of the epoch on.
        """
        shown, team = self.recipe.augmentation.shown, None if self.joined else self.team
        images, places = shown(self.split.images, samples, self.learner.network.dtype, first, seed, team)
        chosen = images[places] if images is self.split.images else images  # else in order, of this call
        return images, places, np.einsum("ij,ij->i", chosen, chosen, dtype=np.float64)

    def _recover(self, phase: int, beta: float, batch: int, images: Array) -> None:
        """Recover the samples that passes left unconverged or doubtful; what is not finite ends the
        epoch.
        """
        workspace, network = self.workspace, self.learner.network
        status = workspace.statistics[phase, STATUS]
        if self.part.ranks == 1:  # else after the exchange, in all ranks
            self._refuse_not_finite(phase, batch, images)
        if not self.first:
            return
        doubtful = (status == CONVERGED) & (workspace.statistics[phase, DOUBTS] > 0)
        rows, sizes = np.flatnonzero((status > CONVERGED) | doubtful), network.sizes[1:]
        self.packed.write_to(network)
        nudge = (
            None if phase == FREE else Nudge(beta if phase == POSITIVE else -beta, workspace.targets[rows, : sizes[-1]])
        )
        start = None if phase == FREE else workspace.state(sizes, rows, FREE)
        passes, ended, doubts = (values[rows] for values in workspace.statistics[phase])
        reached = Equilibrium(
            workspace.state(sizes, rows, phase),
            workspace.progress[phase, RESIDUAL, rows],
            ended.astype(np.uint8),
            passes,
        )
        constant = workspace.drive[rows, : sizes[0]]
        found = recover(network, constant, start, reached, doubts, nudge, self.recipe.tolerance, self.solver.fallback)
        workspace.place(rows, phase, found, network)

    def _exchange(self, batch: int, images: Array) -> None:
        """Exchange this rank's part of a batch with the other ranks. What is not finite in any
        rank ends the epoch in all of them.
        """
        try:
            self.exchange.run(len(images))
        except NotFiniteError:
            for phase in range(len(self.workspace.statistics)):
                self._refuse_not_finite(phase, batch, images)
            raise

    def _refuse_not_finite(self, phase: int, batch: int, images: Array) -> None:
        """Raises NotFiniteError, naming the layer, where a sample of this rank is not finite."""
        not_finite = self.workspace.statistics[phase, STATUS] == NOT_FINITE
        first, end = partition(len(images), *self.part)
        not_finite[:first] = not_finite[end:] = False
        if not_finite.any():
            state = self.workspace.state(self.learner.network.sizes[1:], not_finite, phase)
            refuse_not_finite(NAMES[phase], batch, images, state)


def _settings(learner: Learner, recipe: Recipe) -> tuple[Any, ...]:
    """`kernels.loop_optimiser.LearningSettings`, except for the betas."""
    given, network = recipe.optimiser, learner.network
    names = [
        ["input", *(f"forward[{k}]" for k in range(network.depth - 1)), "loop"],
        [f"biases[{k}]" for k in range(network.depth)],
    ]
    eta = np.zeros((2, network.depth + 1))
    for row, kind in zip(eta, names, strict=True):
        rates = given.scheduled(kind, learner.epoch)
        row[: len(kind)] = [rates.get(name, 0.0) for name in kind]
    steps = float(given.output_step or 0.0), float(given.momentum), float(given.decay)
    how = eta, np.array(given.output_shares(network.depth)), recipe.phases == "centred", given.normalised
    return *how, *steps, recipe.rule == MeanSubtractedRule()


def _packed_velocity(network: Network, velocity: dict[str, Array]) -> PackedLoop:
    """V in the arrays of a net."""
    return PackedLoop.of(
        network.with_parameters(
            {name: velocity.get(name, np.zeros_like(w)) for name, w in network.parameters().items()}
        )
    )


def _unpack_velocity(learner: Learner, velocity: PackedLoop, optimiser: Sgd) -> None:
    whole = learner.network.copy()
    velocity.write_to(whole)
    learner.velocity.update({name: v for name, v in whole.parameters().items() if name not in optimiser.frozen})
