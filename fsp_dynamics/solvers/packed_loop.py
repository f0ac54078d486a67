"""A loop with a hard sigmoid as the arrays of kernels/loop_arrays.py, and its relaxation by several
threads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fsp_dynamics.kernels.loop_arrays import (
    ALL_ROWS,
    DAMPING,
    PASSES,
    RESIDUAL,
    STATUS,
    LoopBuffers,
    LoopNet,
    LoopScratch,
    U,
    Y,
)
from fsp_dynamics.kernels.loop_products import times, times_transposed
from fsp_dynamics.kernels.loop_relaxation import relax_batch
from fsp_dynamics.kernels.panels import USED_ROWS, aligned, fill_panels, from_panels, padded
from fsp_dynamics.kernels.status import RUNNING
from fsp_dynamics.kernels.team import Team, useful_threads
from fsp_dynamics.kernels.tiles import columns
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance


def threads_for(network: Network, samples: int) -> int:
    """How many threads a pass of so many samples is worth."""
    return useful_threads(samples * sum(w.size for w in network.forward))


@dataclass(frozen=True, slots=True, eq=False)
class PackedLoop:
    """The weights of a loop as kernels take them, copies of the network's; fields as in
    `kernels.loop_arrays.LoopNet`. Padded columns are zero and stay zero.
    """

    weights: Array
    shapes: Array
    loop: Array
    biases: Array
    leaks: Array

    @classmethod
    def of(cls, network: Network) -> PackedLoop:
        assert network.loop is not None
        matrices, widths = (network.input, *network.forward), [padded(n, network.dtype) for n in network.sizes[1:]]
        at = np.cumsum([0, *(len(w) * width for w, width in zip(matrices, widths, strict=True))])
        wide = columns(network.dtype)
        shapes = np.array(
            [(begin, len(w), width // wide) for begin, w, width in zip(at, matrices, widths, strict=False)], np.int64
        )
        weights, biases = aligned((int(at[-1]),), network.dtype), np.zeros(sum(widths), network.dtype)
        loop, leaks = np.zeros((len(network.loop), widths[0]), network.dtype), 1 / np.array(network.time_constants)
        packed = cls(weights, shapes, loop, biases, leaks)
        packed.read_from(network)
        return packed

    def moved(self, to: Callable[[Array], Array]) -> PackedLoop:
        """The same, with the arrays that learning changes moved by `to`."""
        return dataclasses.replace(self, weights=to(self.weights), loop=to(self.loop), biases=to(self.biases))

    @property
    def net(self) -> LoopNet:
        """The argument of kernels."""
        return LoopNet(self.weights, self.shapes, self.loop, self.biases, self.leaks)

    @property
    def widths(self) -> list[int]:
        """N_k: the padded size of each layer."""
        return [int(panels) * columns(self.weights.dtype) for panels in self.shapes[:, 2]]

    def products(self) -> tuple[list[Array], list[Array], list[float]]:
        """Of the loop and each forward matrix W, in ring order: the product of those before it
        (n_L, N_k), that of those after it, transposed (n_L, N_k+1), and ||W||; computed from the
        panels, so that they are available between two batches.
        """
        n, dtype = len(self.loop), self.weights.dtype
        rows, panels = np.arange(n), [self._panels(k) for k in range(1, len(self.shapes))]
        first = np.eye(n, dtype=dtype)
        before, after = [first, self.loop], [_widened(first, self.widths[-1])]
        for w in panels[:-1]:
            before.append(np.empty((n, w.shape[0] * w.shape[2]), dtype))
            times(before[-2], rows, w, before[-1])
        for w, width in zip(panels[::-1], self.widths[-2::-1], strict=True):
            after.append(np.zeros((n, width), dtype))
            times_transposed(after[-2], rows, w, after[-1])
        norms = [float(np.sqrt(np.vdot(w, w))) for w in (self.loop, *panels)]
        return before, after[::-1], norms

    def read_from(self, network: Network) -> None:
        """Copy the weights of the network, which has the same shapes."""
        assert network.loop is not None
        for k, matrix in enumerate((network.input, *network.forward)):
            fill_panels(matrix, self._panels(k))
        self.loop[:, : network.loop.shape[1]] = network.loop
        for bias, begin in zip(network.biases, np.cumsum([0, *self.widths]), strict=False):
            self.biases[begin : begin + len(bias)] = bias

    def write_to(self, network: Network) -> None:
        """Copy these weights into the network, in place."""
        assert network.loop is not None
        for k, matrix in enumerate((network.input, *network.forward)):
            from_panels(self._panels(k), matrix)
        network.loop[:] = self.loop[:, : network.loop.shape[1]]
        for bias, begin in zip(network.biases, np.cumsum([0, *self.widths]), strict=False):
            bias[:] = self.biases[begin : begin + len(bias)]

    def _panels(self, k: int) -> Array:
        """(P, K, COLUMNS) the matrix into layer k, a view."""
        (at, rows, panels), wide = self.shapes[k], columns(self.weights.dtype)
        return self.weights[at : at + panels * rows * wide].reshape(panels, rows, wide)


class LoopWorkspace:
    """The arrays in which a batch of so many samples converges, in one phase or more; made once and
    used again.

    buffers, scratch : of kernels/loop_arrays.py; their arrays of the batch are attributes too.
    """

    def __init__(
        self,
        packed: PackedLoop,
        rows: int,
        threads: int,
        phases: int = 1,
        to: Callable[[Array], Array] = lambda array: array,
    ) -> None:
        """threads : how many use it. to : moves an array, for example into shared memory."""
        self.packed, self.rows, dtype = packed, rows, packed.weights.dtype
        n, layers, widths = len(packed.loop), len(packed.shapes), packed.widths
        progress, statistics = np.full((phases, 3, rows), np.inf), np.zeros((phases, 3, rows), np.int64)
        progress[:, DAMPING], statistics[:, STATUS] = 1, RUNNING
        self.buffers = LoopBuffers(
            to(np.zeros((phases, rows * sum(widths[:-1])), dtype)),
            to(np.zeros((phases, 4, rows, widths[-1]), dtype)),
            to(np.zeros((phases, rows, n, widths[-1]), dtype)),
            to(progress),
            to(statistics),
        )
        self.states, self.outputs, self.slopes, self.progress, self.statistics = self.buffers
        lists = np.zeros((threads, 4, rows), np.int64)
        lists[:, ALL_ROWS] = np.arange(rows)
        # of no size where nothing is learned
        tiles, pixels = (-(-rows // USED_ROWS), int(packed.shapes[0, 1])) if phases > 1 else (0, 0)
        widest = max(int(packed.shapes[:, 1].max()), *widths) if phases > 1 else 0
        self.scratch = LoopScratch(
            drive=to(np.zeros((rows, widths[0]), dtype)),
            targets=to(np.zeros((rows, widths[-1]), dtype)),
            norms=to(np.zeros((rows, layers))),
            mean_rates=to(np.zeros(widths[-2], dtype)),
            lists=to(lists),
            output_pairs=to(np.zeros((threads, 2, widths[-1]), dtype)),
            hidden=to(np.zeros((threads, widths[0]), dtype)),
            learning_rates=to(np.zeros((threads, 3, max(n, layers + 1)))),
            matrices=to(np.zeros((threads, 2, n, n))),
            pixels=to(np.zeros((threads, tiles, pixels), np.int64)),
            pixel_counts=to(np.zeros((threads, tiles), np.int64)),
            layer_pairs=to(np.zeros((threads, 2, widest), dtype)),
        )
        self.drive, self.targets = self.scratch.drive, self.scratch.targets

    def layer(self, k: int, phase: int = 0) -> Array:
        """(rows, N_k) states of hidden layer k, a view."""
        at = [self.rows * int(n) for n in np.cumsum([0, *self.packed.widths])]
        return self.states[phase, at[k] : at[k + 1]].reshape(self.rows, -1)

    def state(self, sizes: Sequence[int], rows: Array | slice = slice(None), phase: int = 0) -> State:
        """The states (A, n_k) of these rows, copies; `sizes` are those of the layers."""
        hidden = [np.array(self.layer(k, phase)[rows, :n]) for k, n in enumerate(sizes[:-1])]
        return (*hidden, np.array(self.outputs[phase, Y, rows, : sizes[-1]]))

    def place(self, rows: Array, phase: int, found: Equilibrium, network: Network) -> None:
        """Put the equilibria found by another method into these rows."""
        n = network.sizes[-1]
        for k, s in enumerate(found.state[:-1]):
            self.layer(k, phase)[rows, : s.shape[1]] = s
        self.outputs[phase, Y, rows, :n] = found.output
        for row, below in zip(rows, found.state[-2][:, None], strict=True):  # in any batch the same bits
            self.outputs[phase, U, row, :n] = below @ network.forward[-1] + network.biases[-1]
        self.progress[phase, RESIDUAL, rows], self.statistics[phase, STATUS, rows] = found.residual, found.status
        self.statistics[phase, PASSES, rows] = found.steps


def relax_together(
    network: Network,
    drive: Array,
    output: Array,
    nudge: Nudge | None,
    tolerance: Tolerance,
    max_passes: int,
    known: tuple[PackedLoop, Array | float] | None = None,
) -> tuple[Equilibrium, Array]:
    """The equilibria of samples from their outputs (B, n_L), by Broyden's method; and the doubts
    about each (> 0: it may not be stable in time).

    known : the network's weights, packed already, and the slope (n_L, N_L) with which each
    sample's model begins.
    """
    packed, slope = known or (PackedLoop.of(network), 0.0)
    sizes = network.sizes[1:]
    beta, limits = beta_of(nudge), tolerance.limits(max_passes)
    work = len(drive) * max_passes * sum(w.size for w in network.forward)
    with Team(threads_for(network, len(drive))) as team:
        workspace = LoopWorkspace(packed, len(drive), team.threads)
        workspace.drive[:, : sizes[0]] = drive
        workspace.slopes[:] = slope
        workspace.outputs[0, Y, :, : sizes[-1]] = output
        if nudge is not None:
            workspace.targets[:, : sizes[-1]] = nudge.target
        team.run(relax_batch, packed.net, workspace.buffers, workspace.scratch, 0, beta, limits, work=work)
    passes, status, doubts = workspace.statistics[0]
    residual = workspace.progress[0, RESIDUAL]
    return Equilibrium(workspace.state(sizes), residual, status.astype(np.uint8), passes, beta), doubts


def _widened(matrix: Array, width: int) -> Array:
    """The matrix with zero columns up to `width`, a copy."""
    out = np.zeros((len(matrix), width), matrix.dtype)
    out[:, : matrix.shape[1]] = matrix
    return out
