"""The engine of reciprocal networks with a hard sigmoid: weights stay in panels, and each image
starts near its last equilibrium.

It computes what `plain_engine` computes, to rounding and to the tolerance of convergence. The
relaxations, the drive and the updates are compiled (kernels/layer_relaxation.py,
kernels/layer_learning.py); the loop over batches is Python.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from fsp_dynamics.kernels.compile_watch import working_time
from fsp_dynamics.kernels.layer_learning import LayerData, PixelLists, add_update, find_drive
from fsp_dynamics.kernels.layer_relaxation import FROM_CUT, FROM_INPUTS, FROM_STATE, relax_layers
from fsp_dynamics.kernels.loop_arrays import DOUBTS, PASSES, RESIDUAL, STATUS
from fsp_dynamics.kernels.panels import fill_panels, from_panels, to_panels
from fsp_dynamics.kernels.status import OUT_OF_STEPS
from fsp_dynamics.kernels.team import Team, ThreadTuner
from fsp_dynamics.learning.phases import Phases
from fsp_dynamics.learning.rules.hebbian import HEBBIAN, HebbianRule
from fsp_dynamics.learning.rules.mean_subtracted import MeanSubtractedRule
from fsp_dynamics.learning.rules.products import ProductsRule
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of
from fsp_dynamics.solvers.equilibrium import Equilibrium
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.packed_layers import LayerWorkspace, PackedLayers, threads_for, work_of
from fsp_dynamics.solvers.recovery import recover
from fsp_dynamics.training.checks import check_phases
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.interrupts import Interrupts
from fsp_dynamics.training.ranks import Ranks
from fsp_dynamics.training.recipe import LabelledImages, Learner, Recipe
from fsp_dynamics.training.warm_start import UNSEEN, ReciprocalWarmStart

TUNED_EVERY = 64  # batches between two decisions on the number of threads


class ReciprocalEngine:
    """The arrays of one epoch, and its batches. Between them the weights stay in panels."""

    in_shards = False

    def __init__(
        self, learner: Learner, split: LabelledImages, recipe: Recipe, threads: int | None, ranks: Ranks
    ) -> None:
        assert isinstance(recipe.solver, FixedPointSolver)
        self.learner, self.split, self.recipe, self.sgd = learner, split, recipe, recipe.optimiser
        self.solver = recipe.solver
        network, samples = learner.network, len(split.labels)
        self.warm_start = learner.warm_start = ReciprocalWarmStart.empty(samples, network).or_fresh(learner.warm_start)
        self.packed, self.input = PackedLayers.of(network), to_panels(network.input)
        self.team = Team(threads_for(network, recipe.batch) if threads is None else threads)
        self.tuner = ThreadTuner(self.team.threads, fixed=threads is not None)
        kinds = 3 if recipe.phases == "centred" else 2
        rows = min(recipe.batch, len(split.labels))
        self.workspaces = [
            LayerWorkspace(self.packed, network.sizes[1:], rows, self.team.threads, self.solver.memory)
            for _ in range(kinds)
        ]
        self.pixels = PixelLists(
            np.zeros((self.team.threads, rows, network.sizes[0]), np.int64),
            np.zeros((self.team.threads, rows), np.int64),
        )
        self.targets = np.eye(network.sizes[-1], dtype=network.dtype)
        self.norms = _norms(split.images)
        self.most_work = work_of(network, rows, self.solver.max_passes)
        self.limits = recipe.tolerance.limits(self.solver.max_passes)
        # else `Sgd.step` changes the network, and the panels follow
        self.in_panels = recipe.rule == HEBBIAN and not (self.sgd.momentum or self.sgd.decay)

    @classmethod
    def supports(cls, network: Network, recipe: Recipe, ranks: Ranks) -> bool:
        """Whether passes of its solver are compiled for this network, and its rule nudges as the
        field does; of one process.
        """
        passes = isinstance(recipe.solver, FixedPointSolver) and recipe.solver.uses_compiled_layers(network)
        rule = type(recipe.rule) in (HebbianRule, MeanSubtractedRule, ProductsRule)
        return passes and rule and ranks.shards == 1 and network.sizes[-1] < UNSEEN

    @property
    def weights(self) -> Network:
        """The learner's network, which has the weights of the moment where an interrupt is run."""
        return self.learner.network

    def learn(self, state: EpochState, interrupts: Interrupts, progress: Callable[[], None]) -> None:
        """See `engine.Engine.learn`."""
        network, split, shown = self.learner.network, self.split, self.recipe.augmentation.shown
        begin, done = working_time(), 0
        with self.team:
            for number in range(state.done, len(state.betas)):
                index = state.samples(number, number + 1)
                place = number * state.batch
                data = LayerData(*shown(split.images, index, network.dtype, place, state.seed, self.team))
                with interrupts.relaxing():
                    both = self._run(index, data, float(state.betas[number]))
                with state.changing():
                    self._keep_start(index, both.free)
                    state.statistics.add(both, split.labels[index], network.rho)
                    check_phases(both, number, split.images[index])
                    self._learn(index, data, both)
                    state.done, done = number + 1, done + 1
                    if interrupts.is_due(state.done):
                        self.write_back()
                        interrupts.run_due(state.done)
                progress()
                if done == TUNED_EVERY:
                    now = working_time()
                    self.tuner.record(done, now - begin)
                    begin, done = now, 0

    def mirror(self, samples: Array) -> None:
        """There is no loop to turn: `Recipe.check` refuses mirror phases."""
        raise AssertionError("a reciprocal network has no mirror phase")

    def change(self, act: Callable[[Network], None]) -> None:
        """See `engine.Engine.change`."""
        self.write_back()
        act(self.learner.network)
        self._read_back()

    def write_back(self) -> None:
        """Give the network the weights in the panels."""
        self.packed.write_to(self.learner.network)
        from_panels(self.input, self.learner.network.input)

    def _read_back(self) -> None:
        """Take the network's weights into the panels."""
        self.packed.read_from(self.learner.network)
        fill_panels(self.learner.network.input, self.input)

    def _run(self, index: Array, data: LayerData, beta: float) -> Phases:
        """Both phases of the samples `index`, as `phases.run`; their states are views, good until
        the next call.
        """
        workspace, count, network = self.workspaces[0], len(index), self.learner.network
        everyone, n = np.arange(count), network.sizes[-1]
        workspace.begin(everyone)
        self._run_team(find_drive, data, self.input, network.biases[0], self.pixels, everyone, workspace.drive)
        workspace.place_cut(self.warm_start.start(index))
        self._relax(workspace, FROM_CUT, 0.0)
        free, recovered = self._found(workspace, everyone, None, None)
        kept, target = free.converged, self.targets[self.split.labels[index]]
        rows, found = np.flatnonzero(kept & (free.output != target).any(1)), []
        for other, signed_beta in zip(self.workspaces[1:], (beta, -beta), strict=False):
            other.begin(rows)
            other.states[:], other.inputs[:], other.drive[:] = workspace.states, workspace.inputs, workspace.drive
            other.targets[:count, :n] = target
            self._relax(other, FROM_STATE if recovered else FROM_INPUTS, signed_beta)
            found.append(self._found(other, rows, free, Nudge(signed_beta, target[rows]))[0])
        return Phases(beta, free, rows, found[0], found[1] if len(found) > 1 else None)

    def _keep_start(self, index: Array, free: Equilibrium) -> None:
        """Keep the free equilibria of the samples `index` for their next visit."""
        kept, cut = free.converged, self.workspaces[0].cut(slice(0, len(index)))
        self.warm_start.keep(index[kept], cut[kept], free.output[kept])

    def _found(
        self, workspace: LayerWorkspace, rows: Array, free: Equilibrium | None, nudge: Nudge | None
    ) -> tuple[Equilibrium, bool]:
        """The equilibria of these rows, and whether some, left unconverged by the passes, went
        through recovery.
        """
        status, steps = workspace.statistics[STATUS, rows].astype(np.uint8), workspace.statistics[PASSES, rows]
        residual = workspace.progress[RESIDUAL, rows]
        which = slice(0, len(rows)) if free is None else rows
        found = Equilibrium(workspace.state(which), residual, status, steps, beta_of(nudge))
        # a short nudged phase ends beside a free equilibrium, which is known to be stable
        doubts = workspace.doubts[rows] if free is None else workspace.statistics[DOUBTS, rows]
        if not ((status == OUT_OF_STEPS) | (doubts > 0)).any():
            return found, False
        self.write_back()
        network, start = self.learner.network, None if free is None else tuple(s[rows] for s in free.state)
        reached = dataclasses.replace(found, state=tuple(np.array(s) for s in found.state))
        drive = workspace.drive[rows, : network.sizes[1]]
        found = recover(network, drive, start, reached, doubts, nudge, self.recipe.tolerance, self.solver.fallback)
        workspace.place(found.state, rows)
        return found, True

    def _learn(self, index: Array, data: LayerData, both: Phases) -> None:
        """One step of the optimiser; where only the weights change, in the panels."""
        network, epoch, norms = self.learner.network, self.learner.epoch, self.norms[index]
        if self.recipe.augmentation:
            norms = _norms(data.images)
        image_norm = float(norms.mean())
        if not self.in_panels:
            images = data.images[data.places]
            self.sgd.step(network, self.learner.velocity, self.recipe.rule, images, both, image_norm, epoch)
            self._read_back()
            return
        kept = both.converged
        rows = both.rows[kept]
        if rows.size == 0:
            return
        lr, change = self.sgd.learning_rates(network, both, image_norm, epoch), self._change(both, rows)
        if self.sgd.output_step is not None:
            below, (a_matrix, a_bias) = both.free.state[-2], self.sgd.output_shares(network.depth)
            overlap = a_bias + a_matrix * (below[rows] @ below.mean(0))
            self.sgd.limit_output(lr, network.depth - 1, overlap @ change[-1] / len(index))
        scales = np.zeros((2, network.depth))
        for k in range(network.depth - 1):
            scales[0, k + 1], scales[1, k] = lr.get(f"forward[{k}]", 0.0), lr.get(f"backward[{k}]", 0.0)
        scales[0, 0] = lr.get("input", 0.0)
        free, moved = self.workspaces[0].states, self.workspaces[1].states
        learned = LayerData(data.images, data.places[rows])
        self._run_team(
            add_update, self.packed.net, self.input, learned, self.pixels, free, moved, rows, scales / len(index)
        )
        for k, each in enumerate(change):
            bias = network.biases[0] if k == 0 else self.packed.biases[self.packed.ends[k] :][: each.shape[1]]
            bias += np.asarray(lr.get(f"biases[{k}]", 0.0) / len(index), bias.dtype) * each.sum(0)

    def _change(self, both: Phases, rows: Array) -> State:
        """The change of the rates of the samples `rows` per unit beta, as in
        `rules.update.contrast`; it overwrites the nudged states.
        """
        workspace, other = self.workspaces[1], self.workspaces[0] if both.opposite is None else self.workspaces[2]
        factor = workspace.states.dtype.type(1 / both.beta if both.opposite is None else 0.5 / both.beta)
        found = []
        for k, n in enumerate(workspace.sizes):
            change = (workspace.layer(k)[rows] - other.layer(k)[rows]) * factor
            workspace.layer(k)[rows] = change
            found.append(change[:, :n])
        return tuple(found)

    def _relax(self, workspace: LayerWorkspace, start: int, beta: float) -> None:
        buffers, scratch, work = workspace.buffers, workspace.scratch, self.most_work
        self._run_team(relax_layers, self.packed.net, buffers, scratch, start, beta, self.limits, work=work)

    def _run_team(self, kernel: Callable[..., None], *args: Any, work: float = 0) -> None:
        self.team.run(kernel, *args, threads=self.tuner.threads, work=work)


def _norms(images: Array) -> Array:
    """||image||^2 of each."""
    return np.einsum("ij,ij->i", images, images, dtype=np.float64)
