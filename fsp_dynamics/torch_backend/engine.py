"""Epochs on torch tensors: training/loop_engine.py on any device, for every network.

Weights, images and warm starts stay on the device for an epoch. A batch there is one stream of
operations: on a GPU two things only are read, in each pass whether a sample is still running, and
after each phase whether one needs recovery. The same, plainly: `phases.run` and `Sgd.step`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from fsp_dynamics.kernels.loop_learning import COUNTED
from fsp_dynamics.kernels.loop_phases import FORGET
from fsp_dynamics.kernels.status import CONVERGED, NOT_FINITE
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
from fsp_dynamics.torch_backend.phases import DevicePhases, PhaseSolver, gathered, states_of
from fsp_dynamics.torch_backend.products import precision
from fsp_dynamics.torch_backend.tensors import array, tensor
from fsp_dynamics.training.checks import refuse_not_finite
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.interrupts import Interrupts
from fsp_dynamics.training.ranks import ALONE, Ranks, shards_of
from fsp_dynamics.training.recipe import LabelledImages, Learner, Recipe
from fsp_dynamics.training.report import EpochStatistics
from fsp_dynamics.training.warm_start import LoopWarmStart

CHUNK = 1000  # samples between two reports of progress, where the caller may stop the epoch
WIDE = 100_000_000  # multiplications of a pass from which a second thread of torch pays


class DeviceWarmStart:
    """`training.warm_start.LoopWarmStart` on the device: what is remembered of each image."""

    def __init__(self, arrays: LoopWarmStart, device: torch.device) -> None:
        self.arrays, n = arrays, arrays.outputs.shape[1]
        self.outputs, self.moves = tensor(arrays.outputs, device), tensor(arrays.moves, device)
        self.sums = tensor(arrays.sums, device)
        self.slope = tensor(np.ascontiguousarray(arrays.slope[:, :n]), device)

    def begin(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(outputs (B, n_L), slopes (B, n_L, n_L)) to begin with; the slopes are the mean loop
        Jacobian, corrected by each sample's last move.
        """
        slopes, moves = self.slope.repeat(len(samples), 1, 1), self.moves[samples]
        broyden_update(slopes, moves[:, 0], moves[:, 1], torch.ones_like(samples, dtype=torch.bool))
        return self.outputs[samples], slopes

    def keep(self, samples: torch.Tensor, found: DevicePhases) -> None:
        """Remember the free outputs of each sample for its next visit, and what the nudge taught of
        the mean loop Jacobian.
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
        """Bring the record of arrays up to date."""
        for name in ("outputs", "moves", "sums"):
            _copy(getattr(self, name), getattr(self.arrays, name))
        self.arrays.slope[:, : len(self.slope)] = array(self.slope)


class DeviceStatistics:
    """`training.report.EpochStatistics` on the device."""

    def __init__(self, known: EpochStatistics, device: torch.device) -> None:
        names = ("wrong", "residual", "passes_free", "nudged", "passes_nudged", "unconverged")
        self.samples = known.samples
        self.sums = torch.tensor([known[name] for name in names], dtype=torch.float64, device=device)
        self.most = torch.tensor(known["residual_max"], dtype=torch.float64, device=device)
        self.strongest = tensor(known.strongest.copy(), device)

    def add(self, found: DevicePhases, output_rates: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch."""
        self.samples += len(labels)
        wrong, nudged = found.states[0][-1].argmax(1) != labels, found.nudged
        unconverged = (found.status[0] != CONVERGED).sum() + (nudged & ~found.learns).sum()
        each = (
            wrong.sum(), found.residual.sum(dtype=torch.float64), found.passes[0].sum(), nudged.sum(),
            found.passes[1].sum(), unconverged,
        )  # fmt: skip
        self.sums += torch.stack([value.double() for value in each])
        self.most = torch.maximum(self.most, found.residual.max().double())
        self.strongest = torch.maximum(self.strongest, output_rates.max(0).values.double())

    def write_to(self, known: EpochStatistics) -> None:
        """Bring the record of arrays up to date."""
        wrong, residual, passes_free, nudged, passes_nudged, unconverged = array(self.sums)
        by_name = {
            "samples": self.samples, "wrong": wrong, "residual": residual, "residual_max": float(self.most),
            "passes_free": passes_free, "nudged": nudged, "passes_nudged": passes_nudged, "unconverged": unconverged,
        }  # fmt: skip
        known.counts[:], known.strongest[:] = [by_name[name] for name in COUNTED], array(self.strongest)


class TorchEngine:
    """One epoch on the solver's device.

    threads : of torch on the CPU while the epoch lasts; None: one where ranks share the batches or
        these are small, else as many as kernels may use. The last bits of a product depend on it.
    """

    in_shards = True

    def __init__(
        self, learner: Learner, split: LabelledImages, recipe: Recipe, threads: int | None = None, ranks: Ranks = ALONE
    ) -> None:
        assert isinstance(recipe.solver, TorchFixedPointSolver)
        self.learner, self.split, self.recipe, self.ranks = learner, split, recipe, ranks
        network = learner.network
        self.device_solver = recipe.solver.on_device(network)
        self.device_network = self.device_solver.device_network
        device, centred = self.device_network.device, recipe.phases == "centred"
        self.phases = PhaseSolver(self.device_solver, recipe.tolerance, centred, self._write_weights)
        self.warm_start: DeviceWarmStart | None = None
        if self.phases.uses_broyden:
            known = learner.warm_start = LoopWarmStart.empty(len(split.labels), network).or_fresh(learner.warm_start)
            self.warm_start = DeviceWarmStart(known, device)
        weights, cut = self.device_network.weights, self.phases.criterion.cut
        self.sgd = DeviceSgd(recipe.optimiser, weights, learner.velocity, learner.epoch, cut)
        self.labels = tensor(split.labels, device, torch.int64)
        self.images = None if recipe.augmentation else tensor(split.images, device)
        self.targets = torch.eye(network.sizes[-1], dtype=self.device_network.dtype, device=device)
        wide = recipe.batch * sum(w.size for w in network.forward) >= WIDE and ranks.shards == 1
        self.threads = threads or (available() if wide else 1)

    @classmethod
    def supports(cls, network: Network, recipe: Recipe, ranks: Ranks) -> bool:
        """Whether the solver makes fixed-point passes on torch, and the rule nudges as the field
        does.
        """
        rule = type(recipe.rule) in (HebbianRule, MeanSubtractedRule, ProductsRule)
        return rule and isinstance(recipe.solver, TorchFixedPointSolver)

    @property
    def weights(self) -> Network:
        """The learner's network, which has the weights of the moment where an interrupt is run."""
        return self.learner.network

    def learn(self, state: EpochState, interrupts: Interrupts, progress: Callable[[], None]) -> None:
        """See `training.engine.Engine.learn`."""
        samples = tensor(state.order, self.device_network.device)
        statistics = DeviceStatistics(state.statistics, self.device_network.device)
        with one_number_of_threads(self.threads):
            try:
                while not state.finished:
                    batch = samples[state.done * state.batch : (state.done + 1) * state.batch]
                    with torch.no_grad(), precision("highest"):
                        self._batch(batch, state, statistics, interrupts)
                    if interrupts.is_due(state.done):
                        with state.changing():
                            self._write_weights()
                            interrupts.run_due(state.done)
                    if statistics.samples >= state.statistics.samples + CHUNK or state.finished:
                        statistics.write_to(state.statistics)
                        progress()
            finally:
                statistics.write_to(state.statistics)

    def mirror(self, samples: Array) -> None:
        """See `training.engine.Engine.mirror`."""
        network, tolerance = self.learner.network, self.recipe.tolerance
        slope = None if self.warm_start is None else array(self.warm_start.slope)

        def relax(constant: Array) -> Equilibrium:
            return self.device_solver.relax(constant, tolerance=tolerance, slope=slope)

        rate = self.recipe.mirror_rate(self.learner.epoch)
        mirror.run(network, self.split.images[samples], relax, rate, self.learner.rng)
        loop: Any = self.device_network.weights.loop
        loop.copy_(tensor(network.loop, self.device_network.device))

    def change(self, act: Callable[[Network], None]) -> None:
        """See `training.engine.Engine.change`."""
        self._write_weights()
        act(self.learner.network)
        weights: dict[str, Any] = self.device_network.weights.parameters()
        for name, w in self.learner.network.parameters().items():
            weights[name].copy_(tensor(w, self.device_network.device))
        self.device_network.refresh()

    def write_back(self) -> None:
        """Bring the learner up to date: its weights, velocity and warm start."""
        self._write_weights()
        self.sgd.write_to(self.learner.velocity)
        if self.warm_start is not None:
            self.warm_start.write_back()

    def _write_weights(self) -> None:
        for name, w in self.device_network.weights.parameters().items():
            _copy(w, self.learner.network.parameters()[name])

    def _batch(
        self, samples: torch.Tensor, state: EpochState, statistics: DeviceStatistics, interrupts: Interrupts
    ) -> None:
        """Both phases of the next batch, in parts where ranks share it, and one step of the
        optimiser from them.
        """
        images, labels = self._images(samples, state), self.labels[samples]
        beta = float(state.betas[state.done])
        with interrupts.relaxing():
            found = self._phases(images, self.targets[labels], beta, samples)
        with state.changing():
            self._refuse_not_finite(found, state.done, samples)
            if self.warm_start is not None:
                self.warm_start.keep(samples, found)
            contrast = found.contrast(self.device_network.rho, beta)
            output_rates: Any = contrast.free[-1]
            statistics.add(found, output_rates, labels)
            self.sgd.step(self.recipe.rule, images, contrast, found.learns)
            self.device_network.refresh()
            state.done += 1

    def _images(self, samples: torch.Tensor, state: EpochState) -> torch.Tensor:
        """The images of the next batch on the device; where they are changed, from the host."""
        if self.images is not None:
            return self.images[samples].to(self.device_network.dtype)
        index, place = state.samples(state.done, state.done + 1), state.done * state.batch
        dtype, shown = self.learner.network.dtype, self.recipe.augmentation.shown
        images, _ = shown(self.split.images, index, dtype, place, state.seed)
        return tensor(images, self.device_network.device)

    def _phases(self, images: torch.Tensor, target: torch.Tensor, beta: float, samples: torch.Tensor) -> DevicePhases:
        """The phases of the batch: all of them here, or this rank's shards, and the others' as
        their ranks send them.
        """
        known = None if self.warm_start is None else self.warm_start.begin(samples)
        if self.ranks.shards == 1:
            return self.phases.run(images, target, beta, known)
        shards, mine = shards_of(len(samples), self.ranks)
        parts = [self.phases.run(images[s], target[s], beta, known and (known[0][s], known[1][s])) for s in mine]
        rows = [shard.stop - shard.start for shard in shards]
        return gathered(parts, rows, max(rows), self.ranks.gather)

    def _refuse_not_finite(self, found: DevicePhases, number: int, samples: torch.Tensor) -> None:
        """Raises NotFiniteError, naming the layer, where a sample is not finite; in all ranks,
        whichever computed it.
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
    available()  # Numba, when it starts, changes the OpenMP threads of the whole process: start it first
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _copy(source: torch.Tensor, into: Array) -> None:
    """Copy the tensor into the array, unless they share memory."""
    found = array(source)
    if not np.may_share_memory(found, into):
        np.copyto(into, found)
