"""What ranks without shared memory exchange after the phases of a batch.

`BatchExchange` serves loops with a hard sigmoid, in the arrays of kernels/loop_phases.py;
`gather_phases` all other networks. Every sample sends a short record: the status of its phases, its
outputs and their inputs, ||rho||^2 of its layers, and its free rates below the output, whose mean
limits the output's step. Samples that the batch learns from also send their other free rates and
all changes. The update itself is not sent: with 10 active samples of 20 these rows are less than a
fortieth of the weights of 784-1500-1500-10, and every rank adds their outer products in the same
order.
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

    def __init__(self, ranks: Ranks, workspace: LoopWorkspace, limited: bool) -> None:
        self.ranks, self.workspace = ranks, workspace
        hidden = range(len(workspace.packed.shapes) - 1)
        self.layers = [(workspace.layer(k, FREE), workspace.layer(k, POSITIVE)) for k in hidden]
        self.all_rows = [self.layers[-1][0]] if limited else []
        self.active_layers = [free for free, _ in self.layers[: -1 if limited else None]] + [
            change for _, change in self.layers
        ]

    def run(self, rows: int) -> None:
        """Fill in the results of the other ranks for their parts of the first `rows` rows. Raises
        NotFiniteError where a phase of a sample is not finite.
        """
        parts = [slice(*partition(rows, rank, self.ranks.count)) for rank in range(self.ranks.count)]
        most, mine = max(part.stop - part.start for part in parts), parts[self.ranks.rank]
        for part, message in zip(parts, self.ranks.gather(_padded(self._short(mine), most)), strict=True):
            if part is not mine:
                self._read_short(part, message)
        self._refuse_not_finite(parts)
        active = [self._active(part) for part in parts]
        own = np.concatenate(
            [
                *(s[mine].ravel() for s in self.all_rows),
                *(s[active[self.ranks.rank]].ravel() for s in self.active_layers),
            ]
        )
        wide, deep = sum(s.shape[1] for s in self.all_rows), sum(s.shape[1] for s in self.active_layers)
        longest = most * wide + max(len(rows_of_part) for rows_of_part in active) * deep
        if longest:
            for part, rows_of_part, message in zip(
                parts, active, self.ranks.gather(_padded(own, longest)), strict=True
            ):
                if part is not mine:
                    _unroll(
                        message, [(s, part) for s in self.all_rows] + [(s, rows_of_part) for s in self.active_layers]
                    )

    def _short(self, part: slice) -> Array:
        """(rows of the part, .) float64: the few numbers that every sample sends."""
        workspace = self.workspace
        columns = [
            workspace.statistics[:, STATUS, part].T,
            workspace.statistics[:, PASSES, part].T,
            workspace.progress[FREE, RESIDUAL, part, None],
            workspace.scratch.norms[part],
        ]
        columns += [workspace.outputs[phase, which, part] for phase, which in _OUTPUTS]
        return np.concatenate(columns, axis=1, dtype=np.float64)

    def _read_short(self, part: slice, message: Array) -> None:
        workspace, count = self.workspace, part.stop - part.start
        phases, layers, n = len(workspace.statistics), workspace.scratch.norms.shape[1], workspace.outputs.shape[3]
        ends = np.cumsum([phases, phases, 1, layers, *[n] * len(_OUTPUTS)])
        status, passes, residual, norms, *outputs = np.split(message[:count], ends[:-1], axis=1)
        workspace.statistics[:, STATUS, part], workspace.statistics[:, PASSES, part] = status.T, passes.T
        workspace.progress[FREE, RESIDUAL, part], workspace.scratch.norms[part] = residual[:, 0], norms
        for (phase, which), values in zip(_OUTPUTS, outputs, strict=True):
            workspace.outputs[phase, which, part] = values

    def _active(self, part: slice) -> Array:
        """(A,) the samples of a part that had converged in every nudged phase
        (kernels/loop_phases.learns).
        """
        return part.start + np.flatnonzero((self.workspace.statistics[POSITIVE:, STATUS, part] == CONVERGED).all(0))

    def _refuse_not_finite(self, parts: list[slice]) -> None:
        for rank, part in enumerate(parts):
            if (self.workspace.statistics[:, STATUS, part] == NOT_FINITE).any():
                raise NotFiniteError(
                    f"a phase in rank {rank} is not finite; its message names the layer; lower the learning rates"
                )


_OUTPUTS = ((FREE, Y), (FREE, U), (POSITIVE, Y), (POSITIVE, U), (POSITIVE, BASE_Y))


def _padded(message: Array, length: int) -> Array:
    """The message, padded with zeros, so that it has the same length in all ranks."""
    whole = np.zeros((length, *message.shape[1:]), message.dtype)
    whole[: len(message)] = message
    return whole


def _unroll(message: Array, places: list[tuple[Array, slice | Array]]) -> None:
    """Write a message into rows of arrays, one array after the other."""
    at = 0
    for array, rows in places:
        shape = array[rows].shape
        size = int(np.prod(shape))
        array[rows] = message[at : at + size].reshape(shape)
        at += size


def gather_phases(ranks: Ranks, rows: int, run: Callable[[slice], Phases]) -> Phases:
    """The phases of a batch of so many rows. `run` computes a shard; this rank computes its own,
    and receives those of the others.
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
    steps, and 1 for rows that were nudged.
    """
    found = [
        (both.free, np.arange(len(both.free.status))),
        (both.nudged, both.rows),
        *([(both.opposite, both.rows)] if both.opposite else []),
    ]
    units = sum(s.shape[1] for s in both.free.state)
    states, numbers = np.zeros((length, len(found), units), both.free.output.dtype), np.zeros((length, len(found), 4))
    for phase, (found_phase, rows) in enumerate(found):
        states[rows, phase] = flatten(found_phase.state)
        numbers[rows, phase] = np.stack(
            [found_phase.residual, found_phase.status, found_phase.steps, np.ones(len(rows))], axis=1
        )
    return states, numbers


def _assembled(beta: float, states: Array, numbers: Array, sizes: list[int]) -> Phases:
    """Phases of the rows of `_dense`."""

    def equilibrium(phase: int, rows: Array, beta_of_phase: float) -> Equilibrium:
        residual, status, steps, _ = numbers[rows, phase].T
        layers = np.split(states[rows, phase], np.cumsum(sizes)[:-1], axis=1)
        return Equilibrium(tuple(layers), residual, status.astype(np.uint8), steps.astype(np.int64), beta_of_phase)

    rows = np.flatnonzero(numbers[:, 1, 3])
    opposite = equilibrium(2, rows, -beta) if states.shape[1] > 2 else None
    return Phases(beta, equilibrium(0, np.arange(len(states)), 0.0), rows, equilibrium(1, rows, beta), opposite)
