"""Epochs of a loop with a hard sigmoid in compiled batches (kernels/loop_learning.py): the way training usually goes.

What it computes is what `phases.run` and `Sgd.step` compute, to rounding and to the tolerance of rest; what it saves is told in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fsp_dynamics.errors import NotFiniteError, check_finite
from fsp_dynamics.kernels.loop_learning import COUNTED, DONE, FREE, PULLED, learn_batches
from fsp_dynamics.kernels.team import Team
from fsp_dynamics.learning.optimisers import Sgd
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State
from fsp_dynamics.solvers.equilibrium import AT_REST, NOT_FINITE, Equilibrium, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.packed_loop import PackedLoop, Room, is_packable, members

if TYPE_CHECKING:
    from fsp_dynamics.learning.training import LabelledImages, Learner, Recipe

CHUNK = 4096  # samples of one call: between two calls the caller is told how far it is, and may stop


@dataclass(slots=True, eq=False)
class Memory:
    """What the engine knows of its training images from earlier visits; it makes equilibria cheaper, never different beyond the tolerance.

    outputs (N, n_L) : the outputs of each sample's last free equilibrium, 0 before the first. slope (n_L, N_L) : the mean loop Jacobian. moments,
    products (n_L, n_L) : the sums that it is the regression of.
    """

    outputs: Array
    slope: Array
    moments: Array
    products: Array

    @classmethod
    def empty(cls, samples: int, packed: PackedLoop) -> Memory:
        n, dtype = len(packed.loop), packed.weights.dtype
        return cls(np.zeros((samples, n), dtype), np.zeros((n, packed.widths[-1]), dtype), np.zeros((n, n)), np.zeros((n, n)))

    def arrays(self) -> dict[str, Array]:
        """Its arrays by name."""
        return {name: getattr(self, name) for name in ("outputs", "slope", "moments", "products")}


def takes(network: Network, recipe: Recipe) -> bool:
    """Whether the engine can train this network in this way."""
    return is_packable(network) and isinstance(recipe.solver, FixedPointSolver) and recipe.solver.uses_secants(network)


class LoopEngine:
    """One epoch's arrays, and the calls of the kernel."""

    def __init__(self, learner: Learner, split: LabelledImages, recipe: Recipe, threads: int | None) -> None:
        self.learner, self.split, self.recipe = learner, split, recipe
        network = learner.network
        self.packed = PackedLoop.of(network)
        self.memory = learner.memory = _fitting(learner.memory, len(split.labels), self.packed)
        self.team = Team(members(network, recipe.batch) if threads is None else threads)
        self.rooms = [Room(self.packed, recipe.batch, self.team.members) for _ in range(3 if recipe.phases == "centred" else 2)]
        self.labels = np.ascontiguousarray(split.labels, np.int64)
        self.velocity = _packed_velocity(network, learner.velocity, recipe.optimiser)
        self.work = self._work(network)
        self.count, self.strongest = np.zeros(len(COUNTED)), np.zeros(network.sizes[-1])

    def epoch(self, order: Array, betas: Array, told: Callable[[int, float], None]) -> None:
        """Learn the samples in this order, `betas` (batches,) the nudge of each batch; told(samples done, wrong so far) between calls."""
        batch = self.recipe.batch
        stride = max(1, CHUNK // batch)
        teaching = _teaching(self.learner, self.recipe)
        try:
            for first in range(0, len(betas), stride):
                self._batches(order[first * batch : (first + stride) * batch], betas[first : first + stride], teaching, first)
                told(int(self.count[0]), float(self.count[1]))
        finally:
            self.team.close()
        self.packed.write_to(self.learner.network)
        if self.recipe.optimiser.momentum:
            _unpack_velocity(self.learner, self.velocity, self.recipe.optimiser)

    def _batches(self, samples: Array, betas: Array, teaching: Any, first_batch: int) -> None:
        images, places, norms = self._images(samples)
        data = (images, places, norms, self.labels[samples], samples)
        memory = (self.memory.outputs, self.memory.slope, self.memory.moments, self.memory.products)
        phases = [(room.states, room.ways, room.tallies, room.best, room.pace) for room in self.rooms]
        given, solver = self.recipe.tolerance, self.recipe.solver
        rule = (float(given.absolute), float(given.relative), int(solver.max_passes))  # type: ignore[attr-defined]
        cursor = np.zeros(4, np.int64)
        while True:
            self.team.run(
                learn_batches, self.packed.net, data, memory, phases[0], phases[1], phases[-1], (betas, *teaching), self.velocity.net[:1] + self.velocity.net[2:4],
                self.work, rule, self.count, self.strongest, cursor,
            )  # fmt: skip
            if cursor[2] == DONE:
                return
            self._attend(int(cursor[2]), float(betas[cursor[0]]), first_batch + int(cursor[0]), places[cursor[0] * self.recipe.batch :], images)

    def _images(self, samples: Array) -> tuple[Array, Array, Array]:
        """(images in the network's dtype, the row of each sample there, ||image||^2 of each); nothing is copied that need not be."""
        given, dtype = self.split.images, self.learner.network.dtype
        if given.dtype == dtype and given.flags.c_contiguous:
            images, places = given, samples
        else:
            images, places = np.ascontiguousarray(given[samples], dtype), np.arange(len(samples))
        chosen = images[places]
        return images, places, np.einsum("ij,ij->i", chosen, chosen, dtype=np.float64)

    def _work(self, network: Network) -> tuple[Array, ...]:
        packed, batch, team = self.packed, self.recipe.batch, self.team.members
        dtype, widths, layers = network.dtype, self.packed.widths, network.depth
        whole = np.zeros((2, team, batch), np.int64)
        lr = np.zeros((team, layers + 1)), np.zeros((team, layers)), np.zeros((team, len(packed.loop)))
        room = self.rooms[0]
        rows = np.zeros((batch, widths[0]), dtype), np.zeros((batch, widths[-1]), dtype)
        return (*rows, room.going, room.work, np.zeros((batch, layers)), np.zeros(widths[-2], dtype), np.arange(batch), whole[0], whole[1], *lr)

    def _attend(self, why: int, beta: float, batch: int, places: Array, images: Array) -> None:
        """Samples that passes did not bring to rest are given to the solver's other ways; what is not finite ends the epoch."""
        name = {FREE: "free", PULLED: "nudged"}.get(why, "opposite")
        room, free = self.rooms[why - FREE], self.rooms[0]
        status = room.tallies[2]
        if (status == NOT_FINITE).any():
            check_finite(f"images of batch {batch}", images[places[: self.recipe.batch]])
            raise NotFiniteError(
                f"the {name} phase of batch {batch} is not finite from layer {_first_broken(room, self.packed)} on; lower the learning rates"
            )
        rows = np.flatnonzero(status > AT_REST)
        network = self.learner.network
        self.packed.write_to(network)
        n, targets = network.sizes[-1], self.work[1][rows]
        nudge = None if why == FREE else Nudge(beta if why == PULLED else -beta, targets[:, :n])
        start = None if why == FREE else free.state(rows, network.sizes[1:])
        drive = self.work[0][rows, : network.sizes[1]]
        found = self.recipe.solver.rescue(network, drive, start, room.state(rows, network.sizes[1:]), nudge, self.recipe.tolerance)  # type: ignore[attr-defined]
        room.place(rows, found, network)


def _first_broken(room: Room, packed: PackedLoop) -> int:
    """The number, from 1, of the first layer with a state that is not finite."""
    broken = room.tallies[2] == NOT_FINITE
    for k in range(len(packed.shapes) - 1):
        if not np.isfinite(room.layer(k)[broken]).all():
            return k + 1
    return len(packed.shapes)


def _fitting(memory: Memory | None, samples: int, packed: PackedLoop) -> Memory:
    """The memory, if it is of so many samples and of such a network; else an empty one."""
    fresh = Memory.empty(samples, packed)
    if memory is None or any((a.shape, a.dtype) != (b.shape, b.dtype) for a, b in zip(memory.arrays().values(), fresh.arrays().values(), strict=True)):
        return fresh
    return memory


def _teaching(learner: Learner, recipe: Recipe) -> tuple[Any, ...]:
    """What kernels/loop_learning.py calls teaching, but for the betas."""
    given, network = recipe.optimiser, learner.network
    factor = given.rate_factor**learner.epoch

    def rates(names: list[str]) -> Array:
        return np.array([0.0 if name in given.frozen else factor * given.rates.of(name) for name in names])

    matrices = rates(["input", *(f"forward[{k}]" for k in range(network.depth - 1)), "loop"])
    biases = rates([f"biases[{k}]" for k in range(network.depth)])
    return recipe.phases == "centred", matrices, biases, given.normalised, float(given.output_step or 0.0), float(given.momentum), float(given.decay)


def _packed_velocity(network: Network, velocity: dict[str, Array], optimiser: Sgd) -> PackedLoop:
    """V in the arrays of a net; arrays of no size without momentum."""
    if not optimiser.momentum:
        nothing = np.zeros(0, network.dtype)
        return PackedLoop(nothing, np.zeros((0, 3), np.int64), np.zeros((0, 0), network.dtype), nothing, np.zeros(0))
    return PackedLoop.of(network.with_parameters({name: velocity.get(name, np.zeros_like(w)) for name, w in network.parameters().items()}))


def _unpack_velocity(learner: Learner, velocity: PackedLoop, optimiser: Sgd) -> None:
    whole = learner.network.copy()
    velocity.write_to(whole)
    learner.velocity.update({name: v for name, v in whole.parameters().items() if name not in optimiser.frozen})
