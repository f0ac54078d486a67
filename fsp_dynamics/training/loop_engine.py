"""Epochs of a loop with a hard sigmoid in compiled batches (kernels/loop_learning.py): the way
training usually goes.

What it computes is what `phases.run` and `Sgd.step` compute, to rounding and to the tolerance of
rest; what it saves is told in docs/performance.md.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fsp_dynamics.errors import NotFiniteError, RankLostError
from fsp_dynamics.kernels.loop_learning import COUNTED, DONE, TELL, learn_batches
from fsp_dynamics.kernels.loop_phases import FREE, POSITIVE
from fsp_dynamics.kernels.loop_relaxation import DOUBTS, RESIDUAL, STATUS
from fsp_dynamics.kernels.panels import padded
from fsp_dynamics.kernels.team import LOST, Team, ThreadTuner, can_synchronise
from fsp_dynamics.learning import mirror
from fsp_dynamics.learning.optimisers import Sgd
from fsp_dynamics.learning.phases import NAMES, refuse_broken
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, drive
from fsp_dynamics.solvers.equilibrium import CONVERGED, NOT_FINITE, Equilibrium, Solver
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.packed_loop import PackedLoop, Room, is_packable, members
from fsp_dynamics.solvers.recovery import recover
from fsp_dynamics.training.exchange import Telling
from fsp_dynamics.training.interrupts import Interrupts
from fsp_dynamics.training.ranks import Ranks, share_of
from fsp_dynamics.training.warm_start import WarmStart

if TYPE_CHECKING:
    from fsp_dynamics.training.recipe import LabelledImages, Learner, Recipe

# samples of one call: between two calls the caller is told how far it is, and may stop
CHUNK = 1024
TRIAL = 256  # samples with which another number of threads is tried


@dataclass(slots=True, eq=False)
class LoopWarmStart(WarmStart):
    """What the engine knows of its training images from earlier visits; it makes equilibria
    cheaper, never different beyond the tolerance.

    outputs (N, n_L) : the outputs of each sample's last free equilibrium, 0 before the first.
    moves (N, 2, n_L) : how they and what enters them
    moved when it was last nudged. slope (n_L, N_L) : the mean loop Jacobian, and sums (2, n_L,
    n_L) what it is the regression of.
    """

    outputs: Array
    moves: Array
    slope: Array
    sums: Array

    @classmethod
    def empty(cls, samples: int, network: Network) -> LoopWarmStart:
        """Before the first epoch of a loop; N_L is n_L, padded."""
        n, dtype = network.sizes[-1], network.dtype
        return cls(
            np.zeros((samples, n), dtype),
            np.zeros((samples, 2, n), dtype),
            np.zeros((n, padded(n, dtype)), dtype),
            np.zeros((2, n, n)),
        )


def takes(network: Network, recipe: Recipe) -> bool:
    """Whether the engine can train this network in this way."""
    return (
        is_packable(network)
        and recipe.rule == "hebbian"
        and isinstance(recipe.solver, FixedPointSolver)
        and recipe.solver.uses_broyden(network)
    )


def is_on_torch(solver: Solver) -> bool:
    """Whether it is `torch_backend.fixed_point.TorchFixedPointSolver`; asked without importing
    torch.
    """
    return type(solver).__module__ == "fsp_dynamics.torch_backend.fixed_point"


def supports_torch(recipe: Recipe) -> bool:
    """Whether torch_backend/engine.py trains in this way."""
    return is_on_torch(recipe.solver) and recipe.rule == "hebbian"


def free_phase_solver(
    network: Network, recipe: Recipe, memory: object
) -> tuple[Callable[[Array], Any], Callable[[Any], Equilibrium]]:
    """(images (B, n_in) -> drive (B, n_1), drive -> the free equilibrium); a network is packed, or
    brought to its device, once for all calls.
    """
    solver: Any = recipe.solver
    if is_on_torch(solver):
        ready = solver.on_device(network)
        slope = memory.slope[:, : network.sizes[-1]] if isinstance(memory, LoopWarmStart) else None
        return ready.drive, lambda constant: ready.relax(constant, tolerance=recipe.tolerance, slope=slope)
    driven = functools.partial(drive, network)
    if not (isinstance(solver, FixedPointSolver) and solver.uses_broyden(network)):
        return driven, lambda constant: solver.relax(network, constant, None, None, recipe.tolerance)
    packed = PackedLoop.of(network)
    known = packed, memory.slope if isinstance(memory, LoopWarmStart) else 0.0
    return driven, lambda constant: solver.relax_known(network, constant, known, recipe.tolerance)


def images_at(images: Array, samples: Array, dtype: Any) -> tuple[Array, Array]:
    """(images in C order and `dtype`, the row of each of the samples there); nothing is copied
    that need not be.
    """
    if images.dtype == dtype and images.flags.c_contiguous:
        return images, samples
    return np.ascontiguousarray(images[samples], dtype), np.arange(len(samples))


class LoopEngine:
    """One epoch's arrays, and the calls of the kernel.

    Ranks that share memory are `joined`: they walk every batch together, and what is done between
    two calls is done by the first. All others have their part of each batch.
    """

    def __init__(
        self, learner: Learner, split: LabelledImages, recipe: Recipe, threads: int | None, ranks: Ranks
    ) -> None:
        assert isinstance(recipe.solver, FixedPointSolver)
        self.learner, self.split, self.recipe, self.solver, self.ranks = learner, split, recipe, recipe.solver, ranks
        network = learner.network
        number, sharers = ranks.sharers
        self.joined = sharers > 1 and can_synchronise()
        to: Callable[[Array], Array] = ranks.shared if self.joined else lambda array: array
        self.part = (0, 1) if self.joined else (ranks.rank, ranks.count)
        self.packed = PackedLoop.of(network).moved(to)
        self.memory = LoopWarmStart.empty(len(split.labels), network).or_fresh(learner.warm_start)
        self.memory = learner.warm_start = LoopWarmStart(
            **{name: to(array) for name, array in self.memory.arrays().items()}
        )
        here = members(network, recipe.batch) if threads is None else threads
        here = (
            min(int(each[0]) for each in ranks.gather(np.array([here]))) if self.joined else here
        )  # a team has as many in each rank
        self.team = Team(here, number * here, sharers * here, to(np.zeros(32, np.int64))) if self.joined else Team(here)
        self.pace = ThreadTuner(
            self.team.members, fixed=threads is not None or ranks.count > 1
        )  # ranks stop at the same batches
        self.room = Room(
            self.packed,
            min(recipe.batch, len(split.labels)),
            self.team.whole,
            3 if recipe.phases == "centred" else 2,
            to,
        )
        self.telling = Telling(ranks, self.room, limited=recipe.optimiser.output_step is not None)
        self.labels = np.ascontiguousarray(split.labels, np.int64)
        self.velocity = _packed_velocity(network, learner.velocity, recipe.optimiser).moved(to)
        self.count, self.strongest, self.cursor = (
            to(np.zeros(len(COUNTED))),
            to(np.zeros(network.sizes[-1])),
            to(np.zeros(3, np.int64)),
        )
        self._meet()

    def epoch(self, order: Array, betas: Array, told: Callable[[int, float], None], interrupts: Interrupts) -> None:
        """Learn the samples in this order, `betas` (batches,) the nudge of each batch;
        told(samples done, wrong so far) between calls.
        """
        batch = self.recipe.batch
        if self.recipe.mirror:
            interrupts = Interrupts(
                [
                    (mirror.every(batch), lambda done: self._mirror(order[: done * batch][-mirror.SAMPLES :])),
                    *interrupts.due,
                ]
            )
        teaching, first = _teaching(self.learner, self.recipe), 0
        with self.team, self.ranks.watching(self.team.counters):
            while first < len(betas):
                begin, last = (
                    time.perf_counter(),
                    min(len(betas), interrupts.after(first, max(1, (TRIAL if self.pace.trial else CHUNK) // batch))),
                )
                self._batches(order[first * batch : last * batch], betas[first:last], teaching, first)
                self.pace.took(last - first, time.perf_counter() - begin)
                first = last
                interrupts.take(last)
                told(int(self.count[0]), float(self.count[1]))
        self.packed.write_to(self.learner.network)
        if self.recipe.optimiser.momentum:
            _unpack_velocity(self.learner, self.velocity, self.recipe.optimiser)

    def _mirror(self, samples: Array) -> None:
        """One mirror phase with these samples."""
        network, known = self.learner.network, (self.packed, self.memory.slope)
        self.packed.write_to(network)
        relax = lambda constant: self.solver.relax_known(network, constant, known, self.recipe.tolerance)  # noqa: E731
        mirror.run(network, self.split.images[samples], relax, self.recipe.mirror, self.learner.rng)
        assert network.loop is not None
        self._meet()  # others may still rest with the loop that was
        if self.first:
            self.packed.loop[:, : network.loop.shape[1]] = network.loop
        self._meet()

    @property
    def first(self) -> bool:
        """Whether this process does what is to be done once: the first of those that are joined,
        any other.
        """
        return not self.joined or self.ranks.sharers[0] == 0

    def _meet(self) -> None:
        """Where ranks are joined, wait for each other. Raises RankLostError where one is gone."""
        if self.joined:
            self.ranks.barrier()
            if self.team.counters[LOST]:
                raise RankLostError("another process of this job is gone")

    def _batches(self, samples: Array, betas: Array, teaching: Any, first_batch: int) -> None:
        images, places, norms = self._images(samples)
        data = (images, np.stack([places, self.labels[samples], samples]), norms)
        memory = (self.memory.outputs, self.memory.moves, self.memory.slope, self.memory.sums)
        velocity = (self.velocity.weights, self.velocity.loop, self.velocity.biases)
        given = self.recipe.tolerance
        rule = (float(given.absolute), float(given.relative), int(self.solver.max_passes))
        report, cursor = (self.count, self.strongest), self.cursor
        self._meet()
        if self.first:
            cursor[:] = 0
        self._meet()
        while True:
            self.team.run(
                learn_batches, self.packed.net, data, memory, self.room.room, (betas, *teaching), velocity, self.room.work, rule, report,
                self.part, cursor, members=self.pace.members,
            )  # fmt: skip
            self._meet()
            if cursor[2] == DONE:
                return
            batch, phase = int(cursor[0]), int(cursor[2])
            here = places[batch * self.recipe.batch :][: self.recipe.batch]
            if phase == TELL:
                self._tell(first_batch + batch, images[here])
            else:
                self._recover(phase, float(betas[batch]), first_batch + batch, images[here])
            self._meet()

    def _images(self, samples: Array) -> tuple[Array, Array, Array]:
        """(images in the network's dtype, the row of each sample there, ||image||^2 of each)."""
        images, places = images_at(self.split.images, samples, self.learner.network.dtype)
        chosen = images[places]
        return images, places, np.einsum("ij,ij->i", chosen, chosen, dtype=np.float64)

    def _recover(self, phase: int, beta: float, batch: int, images: Array) -> None:
        """Samples that passes did not bring to convergence are given to the solver's other ways; what is
        not finite ends the epoch.
        """
        room, network = self.room, self.learner.network
        status = room.statistics[phase, STATUS]
        if self.part[1] == 1:  # else all ranks are told first
            self._refuse_broken(phase, batch, images)
        if not self.first:
            return
        rows, sizes = (
            np.flatnonzero((status > CONVERGED) | ((status == CONVERGED) & (room.statistics[phase, DOUBTS] > 0))),
            network.sizes[1:],
        )
        self.packed.write_to(network)
        nudge = None if phase == FREE else Nudge(beta if phase == POSITIVE else -beta, room.targets[rows, : sizes[-1]])
        start = None if phase == FREE else room.state(sizes, rows, FREE)
        passes, ended, doubts = (tally[rows] for tally in room.statistics[phase])
        reached = Equilibrium(
            room.state(sizes, rows, phase), room.marks[phase, RESIDUAL, rows], ended.astype(np.uint8), passes
        )
        constant = room.drive[rows, : sizes[0]]
        found = recover(network, constant, start, reached, doubts, nudge, self.recipe.tolerance, self.solver.fallback)
        room.place(rows, phase, found, network)

    def _tell(self, batch: int, images: Array) -> None:
        """This rank's part of a batch has converged: hear of the other parts. What is not finite, in
        whichever rank, ends the epoch in all of them.
        """
        try:
            self.telling.tell(len(images))
        except NotFiniteError:
            for phase in range(len(self.room.statistics)):
                self._refuse_broken(phase, batch, images)
            raise

    def _refuse_broken(self, phase: int, batch: int, images: Array) -> None:
        """Raises NotFiniteError, naming the layer, where a sample of this rank broke."""
        broken = self.room.statistics[phase, STATUS] == NOT_FINITE
        first, end = share_of(len(images), *self.part)
        broken[:first] = broken[end:] = False
        if broken.any():
            state = self.room.state(self.learner.network.sizes[1:], broken, phase)
            refuse_broken(NAMES[phase], batch, images, state)


def _teaching(learner: Learner, recipe: Recipe) -> tuple[Any, ...]:
    """What kernels/loop_learning.py calls teaching, but for the betas."""
    given, network = recipe.optimiser, learner.network
    names = [
        ["input", *(f"forward[{k}]" for k in range(network.depth - 1)), "loop"],
        [f"biases[{k}]" for k in range(network.depth)],
    ]
    eta = np.zeros((2, network.depth + 1))
    for row, kind in zip(eta, names, strict=True):
        row[: len(kind)] = [0.0 if name in given.frozen else given.rates.of(name) for name in kind]
    eta *= given.rate_factor**learner.epoch
    steps = float(given.output_step or 0.0), float(given.momentum), float(given.decay)
    return eta, recipe.phases == "centred", given.normalised, *steps, given.presynaptic == "deviation"


def _packed_velocity(network: Network, velocity: dict[str, Array], optimiser: Sgd) -> PackedLoop:
    """V in the arrays of a net; arrays of no size without momentum."""
    if not optimiser.momentum:
        nothing = np.zeros(0, network.dtype)
        return PackedLoop(nothing, np.zeros((0, 3), np.int64), np.zeros((0, 0), network.dtype), nothing, np.zeros(0))
    return PackedLoop.of(
        network.with_parameters(
            {name: velocity.get(name, np.zeros_like(w)) for name, w in network.parameters().items()}
        )
    )


def _unpack_velocity(learner: Learner, velocity: PackedLoop, optimiser: Sgd) -> None:
    whole = learner.network.copy()
    velocity.write_to(whole)
    learner.velocity.update({name: v for name, v in whole.parameters().items() if name not in optimiser.frozen})
