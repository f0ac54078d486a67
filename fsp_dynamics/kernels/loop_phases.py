"""The two phases of a batch of a loop with a hard sigmoid, stage by stage, and the contrast between
them.

The phases, first axis of `LoopBuffers`, are FREE, POSITIVE with +beta and, in the centred kind,
NEGATIVE with -beta. Where several ranks train together, each relaxes its own rows of the batch,
`begin` ... `end` - 1 (training/ranks.py); one rank relaxes all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fsp_dynamics.kernels.broyden import broyden_update, mean_slope, mismatch, predict
from fsp_dynamics.kernels.field import Array, apart, bare, dot
from fsp_dynamics.kernels.loop_arrays import (
    ALL_ROWS,
    BASE_U,
    BASE_Y,
    BEST,
    DAMPING,
    DOUBTS,
    PASSES,
    RESIDUAL,
    STATUS,
    LoopBuffers,
    LoopNet,
    LoopScratch,
    U,
    Y,
    layer,
    matrix,
)
from fsp_dynamics.kernels.panels import USED_ROWS, find_used, multiply_used
from fsp_dynamics.kernels.status import ABSENT, CONVERGED, RUNNING, Limits
from fsp_dynamics.kernels.team import partition

FREE, POSITIVE, NEGATIVE = 0, 1, 2
FORGET = 0.99  # factor on the sums behind the mean loop Jacobian with each further batch


class LoopData(NamedTuple):
    """The samples of one call.

    images (., n_in). places, labels, samples (S,) : of each sample its row in `images`, its class,
        and its row in the arrays of `LoopStarts`. norms (S,) : its ||image||^2.
    """

    images: Array
    places: Array
    labels: Array
    samples: Array
    norms: Array


class LoopStarts(NamedTuple):
    """What earlier visits to the training images found, from which relaxations start.

    outputs (., n_L) : of each sample's last free equilibrium. moves (., 2, n_L) : how these and
        what enters them changed when the sample was last nudged.
    slope (n_L, N_L) : the mean loop Jacobian. sums (2, n_L, n_L) : forgetting sums, of which it is
        the regression (`kernels.broyden.mean_slope`).
    """

    outputs: Array
    moves: Array
    slope: Array
    sums: Array


@apart
def begin_batch(
    thread: int,
    threads: int,
    net: LoopNet,
    data: LoopData,
    starts: LoopStarts,
    buffers: LoopBuffers,
    scratch: LoopScratch,
    first: int,
    begin: int,
    end: int,
) -> None:
    """The samples of the free phase in their first state (this thread's part of the rows), and
    their drive (its part of the panels). first : of the batch among the samples of the call.
    """
    outputs, slopes = buffers.outputs[FREE], buffers.slopes[FREE]
    progress, statistics = buffers.progress[FREE], buffers.statistics[FREE]
    drive, pair = scratch.drive, scratch.output_pairs[thread]
    n = starts.slope.shape[0]
    low, high = partition(drive.shape[0], thread, threads)
    for b in range(low, high):
        here = begin <= b < end
        statistics[PASSES, b], statistics[DOUBTS, b], statistics[STATUS, b] = 0, 0, RUNNING if here else ABSENT
        progress[RESIDUAL, b], progress[BEST, b], progress[DAMPING, b] = 0, np.inf, 1
        if here:
            sample = data.samples[first + b]
            for j in range(n):
                outputs[Y, b, j] = starts.outputs[sample, j]
                scratch.targets[b, j] = 1 if data.labels[first + b] == j else 0
                pair[0, j], pair[1, j] = starts.moves[sample, 0, j], starts.moves[sample, 1, j]
                for i in range(n):
                    slopes[b, i, j] = starts.slope[i, j]
            broyden_update(slopes[b], pair[0], pair[1], n)
    fill_drive(thread, threads, net, data, scratch, first, begin, end)


@apart
def fill_drive(
    thread: int, threads: int, net: LoopNet, data: LoopData, scratch: LoopScratch, first: int, begin: int, end: int
) -> None:
    """drive <- images @ input + bias in the rows `begin` ... `end` - 1 (this thread's part of the
    panels).
    """
    weights, shapes, drive = net.weights, net.shapes, scratch.drive
    low, high = partition(shapes[0, 2], thread, threads)
    wide, rows = 64 // weights.itemsize, scratch.lists[thread, ALL_ROWS][begin:end]
    places = data.places[first + begin : first + end]
    pixels, counts = scratch.pixels[thread], scratch.pixel_counts[thread]
    find_used(data.images, places, shapes[0, 1], USED_ROWS, pixels, counts)
    multiply_used(data.images, places, matrix(weights, shapes, 0), drive, rows, low, high, pixels, counts)
    for b in range(begin, end):
        for c in range(low * wide, high * wide):
            drive[b, c] += net.biases[c]


@apart
def begin_nudge(
    thread: int,
    threads: int,
    net: LoopNet,
    buffers: LoopBuffers,
    scratch: LoopScratch,
    phase: int,
    beta: float,
    limits: Limits,
    rows: int,
) -> None:
    """Which samples are nudged, and the first outputs of each: those that the model of its free
    phase predicts under beta.

    Not nudged are samples whose free phase did not converge, and those whose output is the target
    to the bit: the nudge changes nothing there.
    """
    leak, n = net.leaks[-1], net.loop.shape[0]
    targets, pair = scratch.targets, scratch.output_pairs[thread]
    free, outputs, slopes = buffers.outputs[FREE], buffers.outputs[phase], buffers.slopes[phase]
    progress, statistics = buffers.progress[phase], buffers.statistics[phase]
    begin, end = partition(targets.shape[0], thread, threads)
    for b in range(begin, end):
        statistics[PASSES, b], statistics[DOUBTS, b], statistics[STATUS, b] = 0, 0, ABSENT
        if b >= rows or buffers.statistics[FREE, STATUS, b] != CONVERGED:
            continue
        moves = False
        for j in range(n):
            outputs[BASE_Y, b, j], outputs[BASE_U, b, j] = free[Y, b, j], free[U, b, j]
            moves = moves or free[Y, b, j] != targets[b, j]
            for i in range(n):
                slopes[b, i, j] = buffers.slopes[FREE, b, i, j]
        if not moves:
            continue
        change = mismatch(free[Y, b], free[U, b], leak, beta, targets[b], n)
        size = np.sqrt(change**2 + buffers.progress[FREE, RESIDUAL, b] ** 2)
        progress[RESIDUAL, b], progress[BEST, b], progress[DAMPING, b] = size, size, 1
        if size <= limits.absolute:
            keep_free_state(net.shapes, buffers, phase, b)
        else:
            statistics[STATUS, b] = RUNNING
            accuracy, y = 0.05 * limits.absolute, outputs[Y, b]
            predict(free[Y, b], free[U, b], slopes[b], leak, beta, targets[b], y, pair[0], n, accuracy)


@apart
def keep_free_state(shapes: Array, buffers: LoopBuffers, phase: int, b: int) -> None:
    """The nudged equilibrium of a sample whose free equilibrium is within the tolerance already."""
    outputs = buffers.outputs
    rows = outputs.shape[2]
    buffers.statistics[phase, STATUS, b] = CONVERGED
    for k in range(shapes.shape[0] - 1):
        was, now = layer(buffers.states[FREE], shapes, k, rows)[b], layer(buffers.states[phase], shapes, k, rows)[b]
        for c in range(now.size):
            now[c] = was[c]
    for j in range(outputs.shape[3]):
        outputs[phase, Y, b, j], outputs[phase, U, b, j] = outputs[FREE, Y, b, j], outputs[FREE, U, b, j]


@bare
def needs_recovery(statistics: Array) -> bool:
    """Whether a sample did not converge, or at a point that the dynamics might leave."""
    found = 0
    for b in range(statistics.shape[1]):
        found += statistics[STATUS, b] > CONVERGED or (statistics[STATUS, b] == CONVERGED and statistics[DOUBTS, b] > 0)
    return found > 0


@bare
def learns(buffers: LoopBuffers, centred: bool, b: int) -> bool:
    """Whether the sample has converged in every phase."""
    status = buffers.statistics[:, STATUS]
    return status[POSITIVE, b] == CONVERGED and (not centred or status[NEGATIVE, b] == CONVERGED)


@bare
def difference(now: Array, was: Array, factor: float, out: Array) -> None:
    """out <- factor (now - was)."""
    gain = out.dtype.type(factor)
    for c in range(out.size):
        out[c] = gain * (now[c] - was[c])


@apart
def contrast(
    thread: int,
    threads: int,
    net: LoopNet,
    buffers: LoopBuffers,
    scratch: LoopScratch,
    centred: bool,
    begin: int,
    end: int,
) -> None:
    """The change of the rates of the samples converged in every phase (this thread's part of the
    rows `begin` ... `end` - 1): in the hidden states of POSITIVE, for the outputs in its BASE_Y.
    Also ||rho||^2 of each free layer.
    """
    shapes, states, outputs, norms = net.shapes, buffers.states, buffers.outputs, scratch.norms
    capacity, hidden, other = norms.shape[0], shapes.shape[0] - 1, NEGATIVE if centred else FREE
    factor = 0.5 if centred else 1.0
    low, high = partition(end - begin, thread, threads)
    for b in range(begin + low, begin + high):
        norms[b, hidden] = dot(outputs[FREE, Y, b], outputs[FREE, Y, b])
        for k in range(hidden):
            was = layer(states[FREE], shapes, k, capacity)[b]
            norms[b, k] = dot(was, was)
        if learns(buffers, centred, b):
            for k in range(hidden):
                now = layer(states[POSITIVE], shapes, k, capacity)[b]
                difference(now, layer(states[other], shapes, k, capacity)[b], factor, now)
            difference(outputs[POSITIVE, Y, b], outputs[other, Y, b], factor, outputs[POSITIVE, BASE_Y, b])


@apart
def mean_below(thread: int, threads: int, net: LoopNet, buffers: LoopBuffers, scratch: LoopScratch, rows: int) -> None:
    """The mean over the batch of the free rates below the output (this thread's part of the
    columns).
    """
    shapes, mean_rates = net.shapes, scratch.mean_rates
    deepest = layer(buffers.states[FREE], shapes, shapes.shape[0] - 2, scratch.norms.shape[0])
    low, high = partition(deepest.shape[1], thread, threads)
    for c in range(low, high):
        mean_rates[c] = 0
    for b in range(rows):
        for c in range(low, high):
            mean_rates[c] += deepest[b, c]
    for c in range(low, high):
        mean_rates[c] /= rows


@bare
def forget(sums: Array) -> None:
    """sums <- FORGET sums."""
    for m in range(sums.shape[0]):
        for i in range(sums.shape[1]):
            for j in range(sums.shape[2]):
                sums[m, i, j] *= FORGET


@apart
def update_starts(
    data: LoopData, starts: LoopStarts, buffers: LoopBuffers, matrices: Array, first: int, rows: int
) -> None:
    """Store the free outputs of each sample for its next visit, and update the mean loop Jacobian
    by the changes under the nudge. matrices (2, n_L, n_L) : scratch.
    """
    free, positive, sums = buffers.outputs[FREE], buffers.outputs[POSITIVE], starts.sums
    statistics, n, updated = buffers.statistics[POSITIVE], starts.slope.shape[0], False
    for b in range(rows):
        sample = data.samples[first + b]
        for j in range(n):
            starts.outputs[sample, j] = free[Y, b, j]
        if statistics[STATUS, b] == CONVERGED and statistics[PASSES, b] > 0:
            if not updated:
                forget(sums)
                updated = True
            dy, du = starts.moves[sample, 0], starts.moves[sample, 1]
            for j in range(n):
                dy[j], du[j] = positive[Y, b, j] - free[Y, b, j], positive[U, b, j] - free[U, b, j]
            for i in range(n):
                if dy[i] != 0:
                    for j in range(n):
                        sums[0, i, j] += np.float64(dy[i]) * dy[j]
                        sums[1, i, j] += np.float64(dy[i]) * du[j]
    if updated:
        mean_slope(sums[0], sums[1], starts.slope, matrices)
