"""Training in plain words: both phases of a batch, the update, the optimiser's step.

Every other engine computes what stands here, to rounding and to the tolerance of convergence.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fsp_dynamics.learning import mirror, phases
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.training.checks import check_phases
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.evaluation import free_phase_solver
from fsp_dynamics.training.exchange import gather_phases
from fsp_dynamics.training.interrupts import Interrupts
from fsp_dynamics.training.ranks import Ranks
from fsp_dynamics.training.recipe import LabelledImages, Learner, Recipe


class PlainEngine:
    """Batch by batch with any solver, rule and network, each batch shard by shard."""

    in_shards = True

    def __init__(
        self, learner: Learner, split: LabelledImages, recipe: Recipe, threads: int | None, ranks: Ranks
    ) -> None:
        self.learner, self.split, self.recipe, self.ranks = learner, split, recipe, ranks
        self.weights = learner.network
        self.targets = np.eye(learner.network.sizes[-1], dtype=learner.network.dtype)

    @classmethod
    def supports(cls, network: Network, recipe: Recipe, ranks: Ranks) -> bool:
        return True

    def learn(self, state: EpochState, interrupts: Interrupts, progress: Callable[[], None]) -> None:
        """See `engine.Engine.learn`."""
        learner, recipe, network = self.learner, self.recipe, self.learner.network
        for number in range(state.done, len(state.betas)):
            index = state.samples(number, number + 1)
            shown, rows = recipe.augmentation.shown(
                self.split.images, index, network.dtype, number * state.batch, state.seed
            )
            images, labels = shown[rows], self.split.labels[index]
            with interrupts.relaxing():
                both = self._run_phases(images, self.targets[labels], float(state.betas[number]))
            with state.changing():
                state.statistics.add(both, labels, network.rho)
                check_phases(both, number, images)
                image_norm = float(np.vdot(images, images)) / len(images)
                recipe.optimiser.step(network, learner.velocity, recipe.rule, images, both, image_norm, learner.epoch)
                state.done = number + 1
                interrupts.run_due(state.done)
            progress()

    def mirror(self, samples: Array) -> None:
        """See `engine.Engine.mirror`."""
        learner = self.learner
        _, relax = free_phase_solver(learner.network, self.recipe, learner.warm_start)
        rate = self.recipe.mirror_rate(learner.epoch)
        mirror.run(learner.network, self.split.images[samples], relax, rate, learner.rng)

    def change(self, act: Callable[[Network], None]) -> None:
        """See `engine.Engine.change`."""
        act(self.learner.network)

    def write_back(self) -> None:
        """Nothing to do: the learner's own arrays are learned in place."""

    def _run_phases(self, images: Array, target: Array, beta: float) -> phases.Phases:
        """Both phases of these images, of which each rank computes its shards."""
        recipe, network = self.recipe, self.learner.network

        def run(part: slice) -> phases.Phases:
            drive = images[part] @ network.input
            drive += network.biases[0]
            kind = "centred" if recipe.phases == "centred" else "one-sided"
            solver, rule, tolerance = recipe.solver, recipe.rule, recipe.tolerance
            return phases.run(network, drive, target[part], beta, solver, kind=kind, rule=rule, tolerance=tolerance)

        return gather_phases(self.ranks, len(images), run)
