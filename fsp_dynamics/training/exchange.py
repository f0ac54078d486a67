"""What ranks that share no memory tell each other of a batch.

`BatchExchange` is for loops with a hard sigmoid, in the arrays of kernels/loop_phases.py; `gather_phases`
for all others. Of every sample goes the short part: how its phases ended, its outputs and what
enters them, ||rho||^2 of its layers; and its free rates below the output, whose mean limits the
output's step. Of the samples that teach go also the other free rates and all changes. The update
itself is not sent: with 10 active samples of 20 these rows are less than a fortieth of the weights
of 784-1500-1500-10, and every rank adds their outer products in the same order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fsp_dynamics.errors import NotFiniteError
from fsp_dynamics.kernels.loop_arrays import BASE_Y, PASSES, RESIDUAL, STATUS, U, Y
from fsp_dynamics.kernels.loop_phases import FREE, POSITIVE
from fsp_dynamics.kernels.status import CONVERGED, NOT_FINITE
from fsp_dynamics.kernels.team import partition
from fsp_dynamics.learning.phases import Phases
from fsp_dynamics.models.network import Array
from fsp_dynamics.models.rate import flatten
from fsp_dynamics.solvers.equilibrium import Equilibrium
from fsp_dynamics.solvers.packed_loop import LoopWorkspace
from fsp_dynamics.training.ranks import Ranks, shards_of


class BatchExchange:
    """The messages of one epoch. `limited` : the optimiser limits the output's step."""

    def __init__(self, ranks: Ranks, room: LoopWorkspace, limited: bool) -> None:
        self.ranks, self.room = ranks, room
        hidden = range(len(room.packed.shapes) - 1)
        self.layers = [(room.layer(k, FREE), room.layer(k, POSITIVE)) for k in hidden]
        self.always = [self.layers[-1][0]] if limited else []
        self.taught = [free for free, _ in self.layers[: -1 if limited else None]] + [
            change for _, change in self.layers
        ]

    def run(self, rows: int) -> None:
        """Fill in what the other ranks found of their part of the first `rows` rows. Raises
        NotFiniteError where a sample broke.
        """
        parts = [slice(*partition(rows, rank, self.ranks.count)) for rank in range(self.ranks.count)]
        most, mine = max(part.stop - part.start for part in parts), parts[self.ranks.rank]
        for part, told in zip(parts, self.ranks.gather(_long(self._short(mine), most)), strict=True):
            if part is not mine:
                self._take_short(part, told)
        self._refuse_broken(parts)
        teaching = [self._teaching(part) for part in parts]
        own = np.concatenate(
            [*(s[mine].ravel() for s in self.always), *(s[teaching[self.ranks.rank]].ravel() for s in self.taught)]
        )
        wide, deep = sum(s.shape[1] for s in self.always), sum(s.shape[1] for s in self.taught)
        longest = most * wide + max(len(taught) for taught in teaching) * deep
        if longest:
            for part, taught, told in zip(parts, teaching, self.ranks.gather(_long(own, longest)), strict=True):
                if part is not mine:
                    _unroll(told, [(s, part) for s in self.always] + [(s, taught) for s in self.taught])

    def _short(self, part: slice) -> Array:
        """(rows of the part, .) float64 of everything that is a few numbers a sample."""
        room = self.room
        columns = [
            room.statistics[:, STATUS, part].T,
            room.statistics[:, PASSES, part].T,
            room.progress[FREE, RESIDUAL, part, None],
            room.scratch.norms[part],
        ]
        columns += [room.outputs[phase, which, part] for phase, which in _WAYS]
        return np.concatenate(columns, axis=1, dtype=np.float64)

    def _take_short(self, part: slice, told: Array) -> None:
        room, count = self.room, part.stop - part.start
        phases, layers, n = len(room.statistics), room.scratch.norms.shape[1], room.outputs.shape[3]
        ends = np.cumsum([phases, phases, 1, layers, *[n] * len(_WAYS)])
        status, passes, residual, norms, *ways = np.split(told[:count], ends[:-1], axis=1)
        room.statistics[:, STATUS, part], room.statistics[:, PASSES, part] = status.T, passes.T
        room.progress[FREE, RESIDUAL, part], room.scratch.norms[part] = residual[:, 0], norms
        for (phase, which), values in zip(_WAYS, ways, strict=True):
            room.outputs[phase, which, part] = values

    def _teaching(self, part: slice) -> Array:
        """(A,) the samples of a part that had converged in every nudged phase
        (kernels/loop_phases.learns).
        """
        return part.start + np.flatnonzero((self.room.statistics[POSITIVE:, STATUS, part] == CONVERGED).all(0))

    def _refuse_broken(self, parts: list[slice]) -> None:
        for rank, part in enumerate(parts):
            if (self.room.statistics[:, STATUS, part] == NOT_FINITE).any():
                raise NotFiniteError(
                    f"a phase in rank {rank} is not finite; its message names the layer; lower the learning rates"
                )


_WAYS = ((FREE, Y), (FREE, U), (POSITIVE, Y), (POSITIVE, U), (POSITIVE, BASE_Y))


def _long(message: Array, length: int) -> Array:
    """The message, filled up to that length, so that it is as long in all ranks."""
    whole = np.zeros((length, *message.shape[1:]), message.dtype)
    whole[: len(message)] = message
    return whole


def _unroll(told: Array, places: list[tuple[Array, slice | Array]]) -> None:
    """Put a message into rows of arrays, one after the other."""
    at = 0
    for array, rows in places:
        shape = array[rows].shape
        size = int(np.prod(shape))
        array[rows] = told[at : at + size].reshape(shape)
        at += size


def gather_phases(ranks: Ranks, rows: int, run: Callable[[slice], Phases]) -> Phases:
    """The phases of a batch of so many rows, of which `run` makes a part: shard by shard those of
    this rank, then as all ranks found them.
    """
    shards, mine = shards_of(rows, ranks)
    own = [run(shard) for shard in mine]
    if ranks.shards == 1:
        return own[0]
    sizes = [s.shape[1] for s in own[0].free.state]
    longest = max(shard.stop - shard.start for shard in shards)
    states, numbers = (np.stack(parts) for parts in zip(*(_dense(both, longest) for both in own), strict=True))
    states, numbers = np.concatenate(ranks.gather(states)), np.concatenate(ranks.gather(numbers))
    kept = np.concatenate([np.arange(longest) < shard.stop - shard.start for shard in shards])
    states, numbers = states.reshape(-1, *states.shape[2:])[kept], numbers.reshape(-1, *numbers.shape[2:])[kept]
    return _assembled(own[0].beta, states, numbers, sizes)


def _dense(both: Phases, length: int) -> tuple[Array, Array]:
    """(length, phases, N) states and (length, phases, 4) numbers of each row: residual, status,
    steps, and whether it took part.
    """
    found = [
        (both.free, np.arange(len(both.free.status))),
        (both.nudged, both.rows),
        *([(both.opposite, both.rows)] if both.opposite else []),
    ]
    units = sum(s.shape[1] for s in both.free.state)
    states, numbers = np.zeros((length, len(found), units), both.free.output.dtype), np.zeros((length, len(found), 4))
    for phase, (rest, rows) in enumerate(found):
        states[rows, phase] = flatten(rest.state)
        numbers[rows, phase] = np.stack([rest.residual, rest.status, rest.steps, np.ones(len(rows))], axis=1)
    return states, numbers


def _assembled(beta: float, states: Array, numbers: Array, sizes: list[int]) -> Phases:
    """Phases of the rows of `_dense`."""

    def rest(phase: int, rows: Array, pull: float) -> Equilibrium:
        residual, status, steps, _ = numbers[rows, phase].T
        layers = np.split(states[rows, phase], np.cumsum(sizes)[:-1], axis=1)
        return Equilibrium(tuple(layers), residual, status.astype(np.uint8), steps.astype(np.int64), pull)

    rows = np.flatnonzero(numbers[:, 1, 3])
    opposite = rest(2, rows, -beta) if states.shape[1] > 2 else None
    return Phases(beta, rest(0, np.arange(len(states)), 0.0), rows, rest(1, rows, beta), opposite)
