"""The two phases of a batch of a loop with a hard sigmoid, stage by stage, and the contrast between them.

Beside what kernels/loop_rest.py is given, as tuples:

    data      (images, places, norms, labels, samples): images (., n_in), and of each sample of this call its row there, ||image||^2, its class and
              its number in `outputs`
    memory    (outputs, slope, moments, products): the outputs of every sample's last free equilibrium (., n_L); the mean loop Jacobian and the
              forgetting sums it is the regression of (kernels/secants.mean_slope)
    phase     (states, ways, tallies, best, pace) of the batch in one phase; three of them: free, pulled (+beta), pushed (-beta, centred only)
    work      (drive, targets, going, room, norms, mean_rates, everyone, chosen, chosen_images, lr, bias_lr, moved): room to work in; those
              from `going` on but norms, mean_rates and everyone = (0, 1, ...) are each member's own, (members, ...)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fsp_dynamics.kernels.field import Array, dot, jit
from fsp_dynamics.kernels.loop_rest import ABSENT, GOING, RESTING, layer, matrix
from fsp_dynamics.kernels.panels import multiply
from fsp_dynamics.kernels.secants import mismatch, predict
from fsp_dynamics.kernels.team import share


@jit
def begin_batch(me: int, all: int, net: Any, data: Any, memory: Any, free: Any, work: Any, first: int, rows: int) -> None:
    """The rows of the batch in their first state (mine: some rows), and the drive (mine: some panels)."""
    weights, shapes, _, biases, _ = net
    images, places, norms, labels, samples = data
    outputs, slope = memory[0], memory[1]
    drive, targets = work[0], work[1]
    y, _, _, _, slopes = free[1]
    residual, passes, status, rose = free[2]
    n = slope.shape[0]
    begin, end = share(status.size, me, all)
    for b in range(begin, end):
        residual[b], passes[b], rose[b] = 0, 0, 0
        free[3][b], free[4][b] = np.inf, 1
        status[b] = GOING if b < rows else ABSENT
        if b < rows:
            sample = samples[first + b]
            for j in range(n):
                y[b, j] = outputs[sample, j]
                targets[b, j] = 1 if labels[first + b] == j else 0
                for i in range(n):
                    slopes[b, i, j] = slope[i, j]
    low, high = share(shapes[0, 2], me, all)
    wide = 64 // weights.itemsize
    multiply(images, places[first : first + rows], matrix(weights, shapes, 0), drive, work[6][:rows], low, high, False)
    for b in range(rows):
        for c in range(low * wide, high * wide):
            drive[b, c] += biases[c]


@jit
def begin_nudge(me: int, all: int, net: Any, free: Any, phase: Any, work: Any, beta: float, rule: Any, rows: int) -> None:
    """Which samples are nudged, and the first outputs of each: where the model of its free phase says that beta takes it.

    Not those that never came to rest, and not those whose output is the target to the bit: there the nudge moves nothing.
    """
    shapes, leak, n = net[1], net[4][-1], net[2].shape[0]
    targets, room = work[1], work[3][me]
    y, u, base_y, base_u, slopes = phase[1]
    residual, passes, status, rose = phase[2]
    begin, end = share(status.size, me, all)
    for b in range(begin, end):
        status[b], passes[b], rose[b], phase[4][b] = ABSENT, 0, 0, 1
        if b >= rows or free[2][2][b] != RESTING:
            continue
        moves = False
        for j in range(n):
            base_y[b, j], base_u[b, j] = free[1][0][b, j], free[1][1][b, j]
            moves = moves or base_y[b, j] != targets[b, j]
            for i in range(n):
                slopes[b, i, j] = free[1][4][b, i, j]
        if not moves:
            continue
        residual[b] = mismatch(base_y[b], base_u[b], leak, beta, targets[b], n)
        phase[3][b] = residual[b]
        if residual[b] <= rule[0]:
            stay(free, phase, shapes, b)
            continue
        status[b] = GOING
        predict(base_y[b], base_u[b], slopes[b], leak, beta, targets[b], y[b], room[0], n, 0.05 * rule[0] / (leak + beta))


@jit
def stay(free: Any, phase: Any, shapes: Array, b: int) -> None:
    """The nudged equilibrium of a sample that is at rest where it is."""
    rows, wide = phase[2][2].size, phase[1][0].shape[1] // shapes[-1, 2]
    phase[2][2][b] = RESTING
    for k in range(shapes.shape[0] - 1):
        was, now = layer(free[0], shapes, k, rows, wide)[b], layer(phase[0], shapes, k, rows, wide)[b]
        for c in range(now.size):
            now[c] = was[c]
    for j in range(phase[1][0].shape[1]):
        phase[1][0][b, j], phase[1][1][b, j] = free[1][0][b, j], free[1][1][b, j]


@jit
def needs_attention(phase: Any) -> bool:
    """Whether a sample of the phase did not come to rest."""
    status = phase[2][2]
    for b in range(status.size):
        if status[b] > RESTING:
            return True
    return False


@jit
def contrast(me: int, all: int, net: Any, free: Any, pulled: Any, pushed: Any, centred: bool, work: Any, rows: int) -> None:
    """pulled <- the change of the rates, of the samples at rest in every phase; norms and mean of the free rates (mine: some columns)."""
    weights, shapes = net[0], net[1]
    norms, mean_rates = work[4], work[5]
    capacity, wide, hidden = norms.shape[0], 64 // weights.itemsize, shapes.shape[0] - 1
    half = weights.dtype.type(0.5)
    begin, end = share(rows, me, all)
    for b in range(begin, end):
        for k in range(hidden):
            was = layer(free[0], shapes, k, capacity, wide)[b]
            norms[b, k] = dot(was, was)
            if learns(pulled, pushed, centred, b):
                now = layer(pulled[0], shapes, k, capacity, wide)[b]
                other = layer(pushed[0], shapes, k, capacity, wide)[b] if centred else was
                for c in range(now.size):
                    now[c] -= other[c]
                    if centred:
                        now[c] *= half
        norms[b, hidden] = dot(free[1][0][b], free[1][0][b])
        if learns(pulled, pushed, centred, b):
            now, was = pulled[1][2][b], (pushed if centred else free)[1][0][b]
            for c in range(now.size):
                now[c] = pulled[1][0][b, c] - was[c]
                if centred:
                    now[c] *= half
    deepest = layer(free[0], shapes, hidden - 1, capacity, wide)
    low, high = share(deepest.shape[1], me, all)
    for c in range(low, high):
        mean_rates[c] = 0
    for b in range(rows):
        for c in range(low, high):
            mean_rates[c] += deepest[b, c]
    for c in range(low, high):
        mean_rates[c] /= rows


@jit
def learns(pulled: Any, pushed: Any, centred: bool, b: int) -> bool:
    """Whether the sample was at rest in every phase."""
    return pulled[2][2][b] == RESTING and (not centred or pushed[2][2][b] == RESTING)
