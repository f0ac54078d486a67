"""A reciprocal network with a hard sigmoid as the arrays of kernels/layer_relaxation.py, and its
relaxation by several threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.kernels.layer_relaxation import (
    FROM_CUT,
    FROM_STATE,
    SQUARE,
    LayerBuffers,
    LayerNet,
    LayerScratch,
    relax_layers,
)
from fsp_dynamics.kernels.loop_arrays import DOUBTS, PASSES, RESIDUAL, STATUS
from fsp_dynamics.kernels.panels import aligned, fill_panels, from_panels, padded
from fsp_dynamics.kernels.status import ABSENT, RUNNING
from fsp_dynamics.kernels.team import Team, useful_threads
from fsp_dynamics.kernels.tiles import columns
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance


def threads_for(network: Network, samples: int) -> int:
    """How many threads a pass of so many samples is worth, each with samples of its own."""
    return min(useful_threads(work_of(network, samples, 1)), max(samples, 1))


def work_of(network: Network, samples: int, passes: int) -> int:
    """Multiplications of so many passes of so many samples."""
    return 2 * samples * passes * sum(w.size for w in network.forward)


@dataclass(frozen=True, slots=True, eq=False)
class PackedLayers:
    """The weights between the layers of a reciprocal network as kernels take them, copies of the
    network's; the input is not among them. Fields as in `kernels.layer_relaxation.LayerNet`.
    """

    weights: Array
    shapes: Array
    ends: Array
    biases: Array
    leaks: Array

    @classmethod
    def of(cls, network: Network) -> PackedLayers:
        matrices, wide = _matrices(network), columns(network.dtype)
        shapes, at = np.zeros((2, network.depth - 1, 3), np.int64), 0
        for (side, k), w in matrices.items():
            shapes[side, k] = at, len(w), padded(w.shape[1], network.dtype) // wide
            at += shapes[side, k, 1:].prod() * wide
        ends = np.cumsum([0, *(padded(n, network.dtype) for n in network.sizes[1:])])
        packed = cls(
            aligned((at,), network.dtype),
            shapes,
            ends,
            np.zeros(ends[-1], network.dtype),
            1 / np.array(network.time_constants),
        )
        packed.read_from(network)
        return packed

    def read_from(self, network: Network) -> None:
        """Copy the weights of the network, which has the same shapes."""
        wide = columns(self.weights.dtype)
        for (side, k), w in _matrices(network).items():
            at, rows, panels = self.shapes[side, k]
            fill_panels(w, self.weights[at : at + rows * panels * wide].reshape(panels, rows, wide))
        for k, bias in enumerate(network.biases[1:], 1):
            self.biases[self.ends[k] : self.ends[k] + len(bias)] = bias

    def write_to(self, network: Network) -> None:
        """Copy these weights into the network, in place."""
        wide = columns(self.weights.dtype)
        for (side, k), w in _matrices(network).items():
            at, rows, panels = self.shapes[side, k]
            from_panels(self.weights[at : at + rows * panels * wide].reshape(panels, rows, wide), w)
        for k, bias in enumerate(network.biases[1:], 1):
            bias[:] = self.biases[self.ends[k] : self.ends[k] + len(bias)]

    @property
    def net(self) -> LayerNet:
        """The argument of kernels."""
        return LayerNet(self.weights, self.shapes, self.ends, self.biases, self.leaks)


class LayerWorkspace:
    """The arrays in which so many samples of a network converge; made once and used again.

    buffers, scratch : of kernels/layer_relaxation.py; some of their arrays are attributes too.
    memory : earlier passes that are mixed.
    """

    def __init__(self, packed: PackedLayers, sizes: tuple[int, ...], rows: int, threads: int, memory: int) -> None:
        self.sizes, self.ends, self.rows, dtype = sizes, packed.ends, rows, packed.weights.dtype
        units, widths = int(packed.ends[-1]), np.diff(packed.ends)
        cut = int(widths[1::2].sum())
        self.buffers = LayerBuffers(
            states=aligned((rows * units,), dtype),
            inputs=aligned((rows * units,), dtype),
            history=np.zeros((rows, 2 * memory + 2, cut), dtype),
            grams=np.zeros((rows, memory, memory)),
            progress=np.zeros((2, rows)),
            statistics=np.zeros((4, rows), np.int64),
            drive=np.zeros((rows, int(widths[0])), dtype),
            targets=np.zeros((rows, int(widths[-1])), dtype),
        )
        self.states, self.inputs, _, _, self.progress, self.statistics, self.drive, self.targets = self.buffers
        self.scratch = LayerScratch(
            np.zeros(rows, np.int64), np.zeros((threads, 2, units), dtype), np.zeros((threads, memory + 1, memory))
        )
        self.begin(np.arange(rows))

    def begin(self, rows: Array) -> None:
        """Make these samples RUNNING, with no pass made yet, and all others ABSENT."""
        self.progress[RESIDUAL], self.progress[SQUARE] = 0, np.inf
        self.statistics[:] = 0
        self.statistics[STATUS] = ABSENT
        self.statistics[STATUS, rows] = RUNNING

    @property
    def doubts(self) -> Array:
        """(rows,) above 0 where the passes leave a doubt that the equilibrium is stable: fewer than
        two say nothing about it.
        """
        return self.statistics[DOUBTS] + (self.statistics[PASSES] < 2)

    def layer(self, k: int, what: Array | None = None) -> Array:
        """(rows, N_k) padded states (or inputs) of layer k, a view."""
        values = self.states if what is None else what
        return values[self.rows * self.ends[k] : self.rows * self.ends[k + 1]].reshape(
            self.rows, int(self.ends[k + 1] - self.ends[k])
        )

    def place(self, state: State, rows: Array | None = None) -> None:
        """Put the states (A, n_k) into these rows (None: the first A)."""
        for k, s in enumerate(state):
            self.layer(k)[slice(0, len(s)) if rows is None else rows, : s.shape[1]] = s

    def place_cut(self, cut: Array) -> None:
        """Put the states (A, C) of every second layer, side by side, into the first A rows."""
        at = 0
        for k in range(1, len(self.sizes), 2):
            self.layer(k)[: len(cut), : self.sizes[k]] = cut[:, at : at + self.sizes[k]]
            at += self.sizes[k]

    def cut(self, rows: slice) -> Array:
        """The states of every second layer of these rows, side by side."""
        layers = [self.layer(k)[rows, : self.sizes[k]] for k in range(1, len(self.sizes), 2)]
        return layers[0] if len(layers) == 1 else np.concatenate(layers, axis=1)

    def state(self, rows: Array | slice = slice(None)) -> State:
        """The states (A, n_k) of these rows: copies, or views of a slice."""
        return tuple(self.layer(k)[rows, :n] for k, n in enumerate(self.sizes))


def relax_layers_together(
    network: Network,
    drive: Array,
    start: State,
    given: bool,
    nudge: Nudge | None,
    tolerance: Tolerance,
    max_passes: int,
    memory: int,
) -> tuple[Equilibrium, Array]:
    """The equilibria of samples from their start (of which only every second layer counts, unless
    it was `given`); and the doubts about each (> 0: it may not be stable).
    """
    packed, beta = PackedLayers.of(network), beta_of(nudge)
    with Team(threads_for(network, len(drive))) as team:
        workspace = LayerWorkspace(packed, network.sizes[1:], len(drive), team.threads, memory)
        workspace.drive[:, : drive.shape[1]] = drive
        workspace.place(start)
        if nudge is not None:
            workspace.targets[:, : network.sizes[-1]] = nudge.target
        begin, limits = FROM_STATE if given else FROM_CUT, tolerance.limits(max_passes)
        work = work_of(network, len(drive), max_passes)
        team.run(relax_layers, packed.net, workspace.buffers, workspace.scratch, begin, beta, limits, work=work)
    passes, status = workspace.statistics[PASSES], workspace.statistics[STATUS].astype(np.uint8)
    state = tuple(np.array(s) for s in workspace.state())
    return Equilibrium(state, workspace.progress[RESIDUAL], status, passes, beta), workspace.doubts


def _matrices(network: Network) -> dict[tuple[int, int], Array]:
    """Each matrix between layers by (0, k) for forward[k] and (1, k) for backward[k]."""
    return {(0, k): w for k, w in enumerate(network.forward)} | {
        (1, k): w for k, w in enumerate(network.backward or ())
    }
