"""A batch of a loop with a hard sigmoid converges: passes y -> hidden layers -> u(y), by several
threads together.

The loop closes through its outputs y, so that each sample is a problem in n_L numbers; it is
solved by Broyden's method (kernels/broyden.py). Narrow steps (products with the loop and into the
output, Broyden's method) are partitioned by samples, wide ones (products between hidden layers) by
panels, each anew, with a barrier between them. Sums over units are made in one fixed order each,
so that no bit depends on the number of threads.

Every kernel gets `thread`, its number among `threads`, and the counters of their barrier
(kernels/team.py).
"""

from __future__ import annotations

import numpy as np

from fsp_dynamics.kernels.broyden import broyden_update, clipped_target, may_amplify, mismatch, predict
from fsp_dynamics.kernels.field import Array, apart, bare, dot, entry, unit_target
from fsp_dynamics.kernels.loop_arrays import (
    ACTIVE,
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
    first_unit,
    layer,
    matrix,
)
from fsp_dynamics.kernels.panels import multiply
from fsp_dynamics.kernels.status import CONVERGED, NOT_FINITE, OUT_OF_STEPS, RUNNING, Limits
from fsp_dynamics.kernels.team import announce_stop, barrier, has_stopped, is_lost, partition


@bare
def settle_row(a: Array, bias: Array, first: int, leak: float, low: int, high: int) -> None:
    """a[c] <- clip((a[c] + bias[first + c]) / leak), low <= c < high, in place."""
    zero, one, slow = a.dtype.type(0), a.dtype.type(1), a.dtype.type(leak)
    for c in range(low, high):
        a[c] = min(max(unit_target(a[c] + bias[first + c], slow, zero, zero), zero), one)


@apart
def settle_first(y: Array, drive: Array, loop: Array, leak: float, out: Array) -> None:
    """out <- clip((drive + y @ loop) / leak): the first hidden layer of one sample. Outputs at 0
    cost nothing.
    """
    zero, one, slow = out.dtype.type(0), out.dtype.type(1), out.dtype.type(leak)
    for c in range(out.size):
        out[c] = drive[c]
    for j in range(loop.shape[0]):
        if y[j] != 0:
            rate, row = y[j], loop[j]
            for c in range(out.size):
                out[c] += rate * row[c]
    for c in range(out.size):
        out[c] = min(max(unit_target(out[c], slow, zero, zero), zero), one)


@apart
def pass_hidden(
    thread: int, threads: int, counters: Array, net: LoopNet, states: Array, rows: int, active: Array
) -> None:
    """Hidden layer after hidden layer of the samples `active`, this thread's part of the panels of
    each; the first layer has been computed already.
    """
    weights, shapes = net.weights, net.shapes
    wide = 64 // weights.itemsize
    for k in range(1, shapes.shape[0] - 1):
        barrier(threads, counters)
        first, last = partition(shapes[k, 2], thread, threads)
        below, out = layer(states, shapes, k - 1, rows), layer(states, shapes, k, rows)
        multiply(below, active, matrix(weights, shapes, k), out, active, first, last, False)
        for i in range(active.size):
            begin = first_unit(shapes, k, wide)
            settle_row(out[active[i]], net.biases, begin, net.leaks[k], first * wide, last * wide)
    barrier(threads, counters)


@apart
def state_norm(states: Array, shapes: Array, rows: int, b: int, y: Array, n: int) -> float:
    """||s|| of one sample over all its layers."""
    total = 0.0
    for k in range(shapes.shape[0] - 1):
        s = layer(states, shapes, k, rows)[b]
        total += np.float64(dot(s, s))
    for j in range(n):
        total += np.float64(y[j]) ** 2
    return np.sqrt(total)


@apart
def polish(
    size: float,
    bound: float,
    y: Array,
    u: Array,
    drive: Array,
    net: LoopNet,
    beta: float,
    d: Array,
    hidden: Array,
    pair: Array,
    out: Array,
) -> float:
    """Move y part of the way to the fixed point of the outputs alone, if the whole residual then is
    within the bound; that residual, or `size` where y stays.

    With r the whole way, a step theta r leaves (1 - theta) r at the output and changes the input of
    the first hidden layer by theta r @ loop. The best theta is size^2 / (size^2 + g^2), g the
    distance of the first hidden layer from its fixed point after a whole step; where g is small
    this saves a pass.
    """
    loop, leaks = net.loop, net.leaks
    n, leak = loop.shape[0], leaks[-1]
    moved, theta, way = pair[0], 1.0, 0.0
    for _ in range(2):
        for j in range(n):
            aim = clipped_target(np.float64(u[j]), leak, beta, np.float64(d[j]))
            moved[j] = y[j] + theta * (aim - y[j])
        settle_first(moved, drive, loop, leaks[0], out)
        for c in range(out.size):
            out[c] -= hidden[c]
        way = np.sqrt(np.float64(dot(out, out)))
        if theta == 1.0:
            theta = size**2 / (size**2 + way**2)
            if not theta < 1.0 or size * np.sqrt(1 - theta) > bound:
                return size
    whole = np.sqrt(mismatch(moved, u, leak, beta, d, n) ** 2 + way**2)
    if not whole <= bound:
        return size
    for j in range(n):
        y[j] = moved[j]
    return whole


@bare
def record_pass(b: int, size: float, bound: float, max_passes: int, progress: Array, statistics: Array) -> bool:
    """Record the residual of one more pass of sample b, and its status; whether it is still
    RUNNING.
    """
    progress[RESIDUAL, b] = size
    statistics[PASSES, b] += 1
    if not np.isfinite(size + bound):
        statistics[STATUS, b] = NOT_FINITE
    elif size <= bound:
        statistics[STATUS, b] = CONVERGED
    elif statistics[PASSES, b] >= max_passes:
        statistics[STATUS, b] = OUT_OF_STEPS
    return statistics[STATUS, b] == RUNNING


@apart
def advance(
    b: int,
    outputs: Array,
    slope: Array,
    progress: Array,
    statistics: Array,
    leak: float,
    beta: float,
    d: Array,
    n: int,
    pair: Array,
    accuracy: float,
) -> None:
    """The next outputs of one sample, from the pass that was just made with y[b].

    The model is updated by the move since the best outputs so far. The trial becomes the best
    unless the residual more than doubled; then the next trial starts from the best again, with
    half the damping factor.
    """
    y, u, base_y, base_u = outputs[Y, b], outputs[U, b], outputs[BASE_Y, b], outputs[BASE_U, b]
    size, best = progress[RESIDUAL, b], progress[BEST, b]
    if np.isfinite(best):
        for j in range(n):
            pair[0, j], pair[1, j] = y[j] - base_y[j], u[j] - base_u[j]
        broyden_update(slope, pair[0], pair[1], n)
    if size > best:
        statistics[DOUBTS, b] += 1
    if size <= 2 * best:
        progress[BEST, b], progress[DAMPING, b] = size, min(1.0, 2 * progress[DAMPING, b])
        for j in range(n):
            base_y[j], base_u[j] = y[j], u[j]
    else:
        progress[DAMPING, b] /= 2
    predict(base_y, base_u, slope, leak, beta, d, y, pair[0], n, accuracy)
    damping = y.dtype.type(progress[DAMPING, b])
    if damping < 1:
        for j in range(n):
            y[j] = base_y[j] + damping * (y[j] - base_y[j])


@bare
def keep_running(active: Array, count: int, status: Array) -> int:
    """Drop from the first `count` sample numbers those that are no longer RUNNING; how many are
    left.
    """
    left = 0
    for i in range(count):
        if status[active[i]] == RUNNING:
            active[left] = active[i]
            left += 1
    return left


@apart
def end_pass(
    thread: int,
    net: LoopNet,
    buffers: LoopBuffers,
    scratch: LoopScratch,
    phase: int,
    beta: float,
    limits: Limits,
    own: Array,
) -> None:
    """What enters the outputs of the samples `own`, their residual, and for those not converged
    the next outputs and first hidden layer.
    """
    shapes, loop, leak = net.shapes, net.loop, net.leaks[-1]
    outputs, progress = buffers.outputs[phase], buffers.progress[phase]
    statistics, states = buffers.statistics[phase], buffers.states[phase]
    drive, d, pair = scratch.drive, scratch.targets, scratch.output_pairs[thread]
    rows, n, last = drive.shape[0], loop.shape[0], shapes.shape[0] - 1
    bias, accuracy = first_unit(shapes, last, 64 // net.weights.itemsize), 0.05 * limits.absolute
    hidden, deepest = layer(states, shapes, 0, rows), layer(states, shapes, last - 1, rows)
    multiply(deepest, own, matrix(net.weights, shapes, last), outputs[U], own, 0, shapes[last, 2], False)
    for i in range(own.size):
        b = own[i]
        y, u = outputs[Y, b], outputs[U, b]
        for j in range(n):
            u[j] += net.biases[bias + j]
        size, bound = mismatch(y, u, leak, beta, d[b], n), limits.absolute
        if limits.relative > 0:
            bound += limits.relative * state_norm(states, shapes, rows, b, y, n)
        if bound < size < 4 * bound:
            size = polish(size, bound, y, u, drive[b], net, beta, d[b], hidden[b], pair, scratch.hidden[thread])
        if record_pass(b, size, bound, limits.max_passes, progress, statistics):
            slope = buffers.slopes[phase, b]
            advance(b, outputs, slope, progress, statistics, leak, beta, d[b], n, pair, accuracy)
            settle_first(y, drive[b], loop, net.leaks[0], hidden[b])
        elif statistics[STATUS, b] == CONVERGED and may_amplify(
            buffers.slopes[phase, b], u, leak, beta, d[b], n, scratch.matrices[thread]
        ):
            statistics[DOUBTS, b] += 1


@entry
def relax_batch(
    thread: int,
    threads: int,
    counters: Array,
    net: LoopNet,
    buffers: LoopBuffers,
    scratch: LoopScratch,
    phase: int,
    beta: float,
    limits: Limits,
) -> None:
    """Every sample RUNNING in this phase, from its outputs y until it has converged, is out of
    steps or not finite; or until the team shall stop.

    BEST is infinite where no pass was made yet, else the residual at BASE_Y. With beta = 0 the
    targets have no part. At the end the hidden states are those of the last pass, and RESIDUAL is
    that at them and y.
    """
    shapes, loop, leaks = net.shapes, net.loop, net.leaks
    drive, states, status = scratch.drive, buffers.states[phase], buffers.statistics[phase, STATUS]
    active, rows = scratch.lists[thread, ACTIVE], drive.shape[0]
    count = 0
    for b in range(rows):
        if status[b] == RUNNING:
            active[count] = b
            count += 1
    begin, end = partition(count, thread, threads)
    for i in range(begin, end):
        b = active[i]
        settle_first(buffers.outputs[phase, Y, b], drive[b], loop, leaks[0], layer(states, shapes, 0, rows)[b])
    while count > 0 and (threads == 1 or not is_lost(counters)):
        pass_hidden(thread, threads, counters, net, states, rows, active[:count])
        end_pass(thread, net, buffers, scratch, phase, beta, limits, active[begin:end])
        announce_stop(thread, counters, 0)
        barrier(threads, counters)
        count = 0 if has_stopped(counters, 0) else keep_running(active, count, status)
        begin, end = partition(count, thread, threads)
    barrier(threads, counters)
