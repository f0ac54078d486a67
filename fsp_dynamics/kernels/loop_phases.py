"""The two phases of a batch of a loop with a hard sigmoid, stage by stage, and the contrast
between them.

Beside what kernels/loop_relaxation.py is given (a room's phases are FREE, POSITIVE by +beta and,
in the centred kind, NEGATIVE by -beta), as tuples:

    data     (images, numbers, norms): images (., n_in); numbers (3, samples) of each sample of this call: its PLACE among the images, its CLASS and
             its number as a SAMPLE in `outputs`; its ||image||^2
    mine     (first, last + 1) of the batch's rows that this rank brings to convergence (training/ranks.py); all of them where there is one
    memory   (outputs, moves, slope, sums): the outputs of every sample's last free equilibrium (., n_L), and how they and what enters them moved
             when it was last nudged (., 2, n_L); the mean loop Jacobian (n_L, N_L), and the
             forgetting sums (2, n_L, n_L) that it is the regression of
             (kernels/broyden.mean_slope)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fsp_dynamics.kernels.broyden import broyden_update, mean_slope, mismatch, predict
from fsp_dynamics.kernels.field import Array, bare, dot
from fsp_dynamics.kernels.loop_relaxation import (
    ABSENT,
    BASE_U,
    BASE_Y,
    BEST,
    CONVERGED,
    DOUBTS,
    EVERYONE,
    PACE,
    PASSES,
    RESIDUAL,
    RUNNING,
    STATUS,
    U,
    Y,
    layer,
    matrix,
)  # fmt: skip
from fsp_dynamics.kernels.panels import USED_ROWS, find_used, multiply_used
from fsp_dynamics.kernels.team import partition

FREE, POSITIVE, NEGATIVE = 0, 1, 2
PLACE, CLASS, SAMPLE = 0, 1, 2
FORGET = 0.99  # what another batch leaves of the sums behind the mean loop Jacobian


@bare
def begin_batch(
    me: int, all: int, net: Any, data: Any, memory: Any, room: Any, work: Any, first: int, mine: Any
) -> None:
    """The free phase's samples in their first state (this member's: some rows), and their drive
    (this member's: some panels).
    """
    weights, shapes, _, biases, _ = net
    ways, slopes, marks, statistics = room[1][FREE], room[2][FREE], room[3][FREE], room[4][FREE]
    numbers, (outputs, moves, slope, _) = data[1], memory
    drive, targets, everyone, pair = work[0], work[1], work[4][me, EVERYONE], work[5][me]
    n = slope.shape[0]
    begin, end = partition(drive.shape[0], me, all)
    for b in range(begin, end):
        here = mine[0] <= b < mine[1]
        statistics[PASSES, b], statistics[DOUBTS, b], statistics[STATUS, b] = 0, 0, RUNNING if here else ABSENT
        marks[RESIDUAL, b], marks[BEST, b], marks[PACE, b] = 0, np.inf, 1
        if here:
            sample = numbers[SAMPLE, first + b]
            for j in range(n):
                ways[Y, b, j] = outputs[sample, j]
                targets[b, j] = 1 if numbers[CLASS, first + b] == j else 0
                pair[0, j], pair[1, j] = moves[sample, 0, j], moves[sample, 1, j]
                for i in range(n):
                    slopes[b, i, j] = slope[i, j]
            broyden_update(slopes[b], pair[0], pair[1], n)
    low, high = partition(shapes[0, 2], me, all)
    wide = 64 // weights.itemsize
    places, used, counts = numbers[PLACE, first + mine[0] : first + mine[1]], work[9][me], work[10][me]
    find_used(data[0], places, shapes[0, 1], USED_ROWS, used, counts)
    multiply_used(
        data[0], places, matrix(weights, shapes, 0), drive, everyone[mine[0] : mine[1]], low, high, used, counts
    )
    for b in range(mine[0], mine[1]):
        for c in range(low * wide, high * wide):
            drive[b, c] += biases[c]


@bare
def begin_nudge(
    me: int, all: int, net: Any, room: Any, work: Any, phase: int, beta: float, rule: Any, rows: int
) -> None:
    """Which samples are nudged, and the first outputs of each: where the model of its free phase
    says that beta takes it.

    Not those that never converged, and not those whose output is the target to the bit: there
    the nudge moves nothing.
    """
    leak, n = net[4][-1], net[2].shape[0]
    targets, pair = work[1], work[5][me]
    free, ways, marks, statistics = room[1][FREE], room[1][phase], room[3][phase], room[4][phase]
    begin, end = partition(targets.shape[0], me, all)
    for b in range(begin, end):
        statistics[PASSES, b], statistics[DOUBTS, b], statistics[STATUS, b] = 0, 0, ABSENT
        if b >= rows or room[4][FREE, STATUS, b] != CONVERGED:
            continue
        moves = False
        for j in range(n):
            ways[BASE_Y, b, j], ways[BASE_U, b, j] = free[Y, b, j], free[U, b, j]
            moves = moves or free[Y, b, j] != targets[b, j]
            for i in range(n):
                room[2][phase, b, i, j] = room[2][FREE, b, i, j]
        if not moves:
            continue
        pull = mismatch(free[Y, b], free[U, b], leak, beta, targets[b], n)
        size = np.sqrt(pull**2 + room[3][FREE, RESIDUAL, b] ** 2)
        marks[RESIDUAL, b], marks[BEST, b], marks[PACE, b] = size, size, 1
        if size <= rule[0]:
            stay(net[1], room, phase, b)
        else:
            statistics[STATUS, b] = RUNNING
            predict(
                free[Y, b],
                free[U, b],
                room[2][phase, b],
                leak,
                beta,
                targets[b],
                ways[Y, b],
                pair[0],
                n,
                0.05 * rule[0] / (leak + beta),
            )


@bare
def stay(shapes: Array, room: Any, phase: int, b: int) -> None:
    """The nudged equilibrium of a sample that has converged where it is."""
    rows = room[1].shape[2]
    room[4][phase, STATUS, b] = CONVERGED
    for k in range(shapes.shape[0] - 1):
        was, now = layer(room[0][FREE], shapes, k, rows)[b], layer(room[0][phase], shapes, k, rows)[b]
        for c in range(now.size):
            now[c] = was[c]
    for j in range(room[1].shape[3]):
        room[1][phase, Y, b, j], room[1][phase, U, b, j] = room[1][FREE, Y, b, j], room[1][FREE, U, b, j]


@bare
def needs_recovery(statistics: Array) -> bool:
    """Whether a sample did not converge, or where the dynamics might leave again."""
    found = 0
    for b in range(statistics.shape[1]):
        found += statistics[STATUS, b] > CONVERGED or (statistics[STATUS, b] == CONVERGED and statistics[DOUBTS, b] > 0)
    return found > 0


@bare
def learns(room: Any, centred: bool, b: int) -> bool:
    """Whether the sample had converged in every phase."""
    return room[4][POSITIVE, STATUS, b] == CONVERGED and (not centred or room[4][NEGATIVE, STATUS, b] == CONVERGED)


@bare
def difference(now: Array, was: Array, factor: float, out: Array) -> None:
    """out <- factor (now - was)."""
    gain = out.dtype.type(factor)
    for c in range(out.size):
        out[c] = gain * (now[c] - was[c])


@bare
def contrast(me: int, all: int, net: Any, room: Any, work: Any, centred: bool, mine: Any) -> None:
    """The change of the rates of the samples converged in every phase (this member's: some rows): in
    the hidden states of POSITIVE, for the outputs in its BASE_Y. Beside it ||rho||^2 of each free
    layer.
    """
    shapes = net[1]
    states, norms = room[0], work[2]
    capacity, hidden, other = norms.shape[0], shapes.shape[0] - 1, NEGATIVE if centred else FREE
    factor = 0.5 if centred else 1.0
    begin, end = partition(mine[1] - mine[0], me, all)
    for b in range(mine[0] + begin, mine[0] + end):
        norms[b, hidden] = dot(room[1][FREE, Y, b], room[1][FREE, Y, b])
        for k in range(hidden):
            was = layer(states[FREE], shapes, k, capacity)[b]
            norms[b, k] = dot(was, was)
        if learns(room, centred, b):
            for k in range(hidden):
                now = layer(states[POSITIVE], shapes, k, capacity)[b]
                difference(now, layer(states[other], shapes, k, capacity)[b], factor, now)
            difference(room[1][POSITIVE, Y, b], room[1][other, Y, b], factor, room[1][POSITIVE, BASE_Y, b])


@bare
def mean_below(me: int, all: int, net: Any, room: Any, work: Any, rows: int) -> None:
    """The mean over the batch of the free rates below the output (this member's: some columns)."""
    shapes, mean_rates = net[1], work[3]
    deepest = layer(room[0][FREE], shapes, shapes.shape[0] - 2, work[2].shape[0])
    low, high = partition(deepest.shape[1], me, all)
    for c in range(low, high):
        mean_rates[c] = 0
    for b in range(rows):
        for c in range(low, high):
            mean_rates[c] += deepest[b, c]
    for c in range(low, high):
        mean_rates[c] /= rows


@bare
def remember(data: Any, memory: Any, room: Any, squares: Array, first: int, rows: int) -> None:
    """The free outputs of each sample for its next visit, and what the nudge taught of the mean
    loop Jacobian.
    """
    outputs, moves, slope, sums = memory
    free, positive = room[1][FREE], room[1][POSITIVE]
    n, learned = slope.shape[0], False
    for b in range(rows):
        sample = data[1][SAMPLE, first + b]
        for j in range(n):
            outputs[sample, j] = free[Y, b, j]
        if room[4][POSITIVE, STATUS, b] == CONVERGED and room[4][POSITIVE, PASSES, b] > 0:
            if not learned:
                sums *= FORGET
                learned = True
            dy, du = moves[sample, 0], moves[sample, 1]
            for j in range(n):
                dy[j], du[j] = positive[Y, b, j] - free[Y, b, j], positive[U, b, j] - free[U, b, j]
            for i in range(n):
                if dy[i] != 0:
                    for j in range(n):
                        sums[0, i, j] += np.float64(dy[i]) * dy[j]
                        sums[1, i, j] += np.float64(dy[i]) * du[j]
    if learned:
        mean_slope(sums[0], sums[1], slope, squares)
