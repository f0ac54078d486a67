"""Epochs on torch tensors: training/loop_engine.py on any device, for every network.

Weights, images and memory stay on the device for an epoch. A batch there is one stream of
operations: on a GPU nothing is read but, in each pass, whether a sample still goes, and after each
phase, whether one needs attention. The same in plain words: `phases.run` and `Sgd.step`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from fsp_dynamics.kernels.loop_learning import COUNTED
from fsp_dynamics.kernels.loop_phases import FORGET
from fsp_dynamics.kernels.loop_relaxation import CONVERGED, NOT_FINITE
from fsp_dynamics.kernels.team import available
from fsp_dynamics.learning import mirror
from fsp_dynamics.learning.phases import NAMES
from fsp_dynamics.learning.rules.hebbian import HebbianRule
from fsp_dynamics.learning.rules.mean_subtracted import MeanSubtractedRule
from fsp_dynamics.learning.rules.products import ProductsRule
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.solvers.equilibrium import Equilibrium
from fsp_dynamics.torch_backend.broyden import broyden_update, mean_slope
from fsp_dynamics.torch_backend.fixed_point import TorchFixedPointSolver
from fsp_dynamics.torch_backend.optimiser import DeviceSgd
from fsp_dynamics.torch_backend.phases import Found, Phases, gathered, states_of
from fsp_dynamics.torch_backend.products import precision
from fsp_dynamics.torch_backend.tensors import array, tensor
from fsp_dynamics.training.checks import refuse_not_finite
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.interrupts import Interrupts
from fsp_dynamics.training.ranks import ALONE, Ranks, shards_of
from fsp_dynamics.training.recipe import LabelledImages, Learner, Recipe
from fsp_dynamics.training.report import EpochStatistics
from fsp_dynamics.training.warm_start import LoopWarmStart

CHUNK = 1000  # samples after which the caller is told how far it is, and may stop
WIDE = 100_000_000  # multiplications of a pass that are worth a second thread to torch


class DeviceWarmStart:
    """`training.warm_start.LoopWarmStart` on the device: what training images are remembered by."""

    def __init__(self, kept: LoopWarmStart, device: torch.device) -> None:
        self.kept, n = kept, kept.outputs.shape[1]
        self.outputs, self.moves, self.sums = (tensor(each, device) for each in (kept.outputs, kept.moves, kept.sums))
        self.slope = tensor(np.ascontiguousarray(kept.slope[:, :n]), device)

    def begin(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(outputs (B, n_L), slopes (B, n_L, n_L)) to begin with: the mean loop Jacobian,
        corrected by each sample's last move.
        """
        slopes, moves = self.slope.repeat(len(samples), 1, 1), self.moves[samples]
        broyden_update(slopes, moves[:, 0], moves[:, 1], torch.ones_like(samples, dtype=torch.bool))
        return self.outputs[samples], slopes

    def keep(self, samples: torch.Tensor, found: Found) -> None:
        """The free outputs of each sample for its next visit, and what the nudge taught of the
        mean loop Jacobian.
        """
        taught = (found.status[1] == CONVERGED) & (found.passes[1] > 0)
        y, u = torch.stack([found.states[0][-1], found.states[1][-1]]), found.entering
        moved = torch.stack([y[1] - y[0], u[1] - u[0]], 1)
        self.outputs.index_copy_(0, samples, y[0])
        self.moves.index_copy_(0, samples, torch.where(taught[:, None, None], moved, self.moves[samples]))
        dy, du = torch.where(taught[:, None, None], moved, 0).double().unbind(1)
        learned = taught.any()
        self.sums.mul_(1 - (1 - FORGET) * learned.double())
        self.sums += torch.stack([dy.T @ dy, dy.T @ du])
        self.slope = torch.where(learned, mean_slope(*self.sums).to(self.slope.dtype), self.slope)

    def write_back(self) -> None:
        """Give the record of arrays what is known."""
        for mine, kept in (
            (self.outputs, self.kept.outputs),
            (self.moves, self.kept.moves),
            (self.sums, self.kept.sums),
        ):
            _give(mine, kept)
        self.kept.slope[:, : len(self.slope)] = array(self.slope)


class DeviceStatistics:
    """`training.report.EpochStatistics` on the device."""

    def __init__(self, known: EpochStatistics, device: torch.device) -> None:
        names = ("wrong", "residual", "passes_free", "nudged", "passes_nudged", "unconverged")
        self.samples = known.samples
        self.sums = torch.tensor([known[name] for name in names], dtype=torch.float64, device=device)
        self.most = torch.tensor(known["residual_max"], dtype=torch.float64, device=device)
        self.strongest = tensor(known.strongest.copy(), device)

    def add(self, found: Found, output_rates: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch."""
        self.samples += len(labels)
        wrong, nudged = found.states[0][-1].argmax(1) != labels, found.nudged
        unconverged = (found.status[0] != CONVERGED).sum() + (nudged & ~found.learns).sum()
        each = (
            wrong.sum(),
            found.residual.sum(dtype=torch.float64),
            found.passes[0].sum(),
            nudged.sum(),
            found.passes[1].sum(),
            unconverged,
        )
        self.sums += torch.stack([value.double() for value in each])
        self.most = torch.maximum(self.most, found.residual.max().double())
        self.strongest = torch.maximum(self.strongest, output_rates.max(0).values.double())

    def write_to(self, known: EpochStatistics) -> None:
        """Give the record of arrays the sums of the moment."""
        wrong, residual, passes_free, nudged, passes_nudged, unconverged = array(self.sums)
        by_name = {
            "samples": self.samples, "wrong": wrong, "residual": residual, "residual_max": float(self.most), "passes_free": passes_free,
            "nudged": nudged, "passes_nudged": passes_nudged, "unconverged": unconverged,
        }  # fmt: skip
        known.counts[:], known.strongest[:] = [by_name[name] for name in COUNTED], array(self.strongest)


class TorchEngine:
    """One epoch on the solver's device.

    threads : torch's on the CPU while the epoch lasts; None: one where ranks share the batches or
        these are small, else as many as kernels may use. The last bits of a product depend on it.
    """

    in_shards = True

    def __init__(
        self, learner: Learner, split: LabelledImages, recipe: Recipe, threads: int | None = None, ranks: Ranks = ALONE
    ) -> None:
        assert isinstance(recipe.solver, TorchFixedPointSolver)
        self.learner, self.split, self.recipe, self.ranks = learner, split, recipe, ranks
        network = learner.network
        self.ready = recipe.solver.on_device(network)
        self.held, device = self.ready.held, self.ready.held.device
        self.phases = Phases(self.ready, recipe.tolerance, recipe.phases == "centred", self._write_weights)
        self.warm_start: DeviceWarmStart | None = None
        if self.phases.secants:
            kept = learner.warm_start = LoopWarmStart.empty(len(split.labels), network).or_fresh(learner.warm_start)
            self.warm_start = DeviceWarmStart(kept, device)
        self.sgd = DeviceSgd(recipe.optimiser, self.held.network, learner.velocity, learner.epoch, self.phases.rule.cut)
        self.images, self.labels = tensor(split.images, device), tensor(split.labels, device, torch.int64)
        self.targets = torch.eye(network.sizes[-1], dtype=self.held.dtype, device=device)
        wide = recipe.batch * sum(w.size for w in network.forward) >= WIDE and ranks.shards == 1
        self.threads = threads or (available() if wide else 1)

    @classmethod
    def supports(cls, network: Network, recipe: Recipe, ranks: Ranks) -> bool:
        """Whether the solver makes fixed-point passes on torch, and the rule nudges as the field
        does.
        """
        rule = isinstance(recipe.rule, HebbianRule | MeanSubtractedRule | ProductsRule)
        return rule and isinstance(recipe.solver, TorchFixedPointSolver)

    @property
    def weights(self) -> Network:
        """The learner's network, which has the weights of the moment where an interrupt is run."""
        return self.learner.network

    def learn(self, state: EpochState, interrupts: Interrupts, progress: Callable[[], None]) -> None:
        """See `training.engine.Engine.learn`."""
        samples = tensor(state.order, self.held.device)
        statistics = DeviceStatistics(state.statistics, self.held.device)
        with one_number_of_threads(self.threads):
            for number in range(state.done, len(state.betas)):
                batch = samples[number * state.batch : (number + 1) * state.batch]
                with torch.no_grad(), precision("highest"):
                    self._batch(number, batch, float(state.betas[number]), statistics)
                state.done = number + 1
                if interrupts.is_due(state.done):
                    self._write_weights()
                    interrupts.run_due(state.done)
                if statistics.samples >= state.statistics.samples + CHUNK or state.finished:
                    statistics.write_to(state.statistics)
                    progress()

    def mirror(self, samples: Array) -> None:
        """See `training.engine.Engine.mirror`."""
        network, tolerance = self.learner.network, self.recipe.tolerance
        slope = None if self.warm_start is None else array(self.warm_start.slope)

        def relax(constant: Array) -> Equilibrium:
            return self.ready.relax(constant, tolerance=tolerance, slope=slope)

        mirror.run(network, self.split.images[samples], relax, self.recipe.mirror, self.learner.rng)
        held: Any = self.held.network.loop
        held.copy_(tensor(network.loop, self.held.device))

    def write_back(self) -> None:
        """Give the learner the weights, velocity and warm start of the moment, as arrays."""
        self._write_weights()
        self.sgd.write_to(self.learner.velocity)
        if self.warm_start is not None:
            self.warm_start.write_back()

    def _write_weights(self) -> None:
        for name, w in self.held.network.parameters().items():
            _give(w, self.learner.network.parameters()[name])

    def _batch(self, number: int, samples: torch.Tensor, beta: float, statistics: DeviceStatistics) -> None:
        """Both phases of a batch, in parts where ranks share it, and one step of the optimiser
        from them.
        """
        images, labels = self.images[samples].to(self.held.dtype), self.labels[samples]
        found = self._phases(images, self.targets[labels], beta, samples)
        self._refuse_not_finite(found, number, samples)
        if self.warm_start is not None:
            self.warm_start.keep(samples, found)
        contrast = found.contrast(self.held.rho, beta)
        output_rates: Any = contrast.free[-1]
        statistics.add(found, output_rates, labels)
        self.sgd.step(self.recipe.rule, images, contrast, found.learns)
        self.held.refresh()

    def _phases(self, images: torch.Tensor, target: torch.Tensor, beta: float, samples: torch.Tensor) -> Found:
        """The phases of the batch: all of them here, or this rank's shards, and the others' as
        their ranks tell them.
        """
        known = None if self.warm_start is None else self.warm_start.begin(samples)
        if self.ranks.shards == 1:
            return self.phases.run(images, target, beta, known)
        shards, mine = shards_of(len(samples), self.ranks)
        parts = [self.phases.run(images[s], target[s], beta, known and (known[0][s], known[1][s])) for s in mine]
        rows = [shard.stop - shard.start for shard in shards]
        return gathered(parts, rows, max(rows), self.ranks.gather)

    def _refuse_not_finite(self, found: Found, number: int, samples: torch.Tensor) -> None:
        """Raises NotFiniteError, naming the layer, where a sample broke; in all ranks, whoever had
        it.
        """
        if not (self.phases.broken or (self.ranks.count > 1 and bool((found.status == NOT_FINITE).any()))):
            return
        images = self.split.images[array(samples)]
        for phase, status in enumerate(array(found.status)):
            if (status == NOT_FINITE).any():
                refuse_not_finite(NAMES[phase], number, images, states_of(found, phase, status == NOT_FINITE))


@contextlib.contextmanager
def one_number_of_threads(threads: int) -> Iterator[None]:
    """Let torch use so many threads on the CPU inside the block."""
    # Numba, when it starts, changes the number of OpenMP threads of the whole process: let that be
    # over
    available()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _give(mine: torch.Tensor, kept: Array) -> None:
    """Copy the tensor into the array, unless they are one."""
    found = array(mine)
    if not np.may_share_memory(found, kept):
        np.copyto(kept, found)
