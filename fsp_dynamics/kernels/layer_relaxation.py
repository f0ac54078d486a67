"""Reciprocal networks with a hard sigmoid converge: Picard iteration with Anderson mixing per
sample, the samples of a batch partitioned among threads.

The cut is every second layer (1, 3, ...). Given its states y, the other layers follow, and with
them the fixed point of the cut: a pass y -> T(y). Each layer receives input from both of its
neighbours, so that one pass costs two products with each matrix. Every sample makes its own
passes: no barriers.

L layers; N_k is the size of layer k padded to whole panels (kernels/panels.py); C = sum N_k over
the cut; rows are the samples of a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from fsp_dynamics.kernels.anderson import GROWTH, RESTART, solve
from fsp_dynamics.kernels.field import Array, entry, inner, unit_target, view
from fsp_dynamics.kernels.loop_arrays import DOUBTS, PASSES, STATUS
from fsp_dynamics.kernels.loop_relaxation import keep_running, record_pass
from fsp_dynamics.kernels.panels import multiply, multiply_transposed
from fsp_dynamics.kernels.status import OUT_OF_STEPS, RUNNING, Limits
from fsp_dynamics.kernels.team import must_stop, partition
from fsp_dynamics.kernels.views import view_of

SQUARE, MIXED = 1, 3  # of progress and statistics; the others are those of kernels/loop_arrays.py
PATIENCE = 12  # passes after which every rise of the residual empties the history
# what of the start is given (`relax_layers`); CHECKED: the inputs outside the cut are known
FROM_CUT, FROM_STATE, FROM_INPUTS, CHECKED = 0, 1, 2, 3


class LayerNet(NamedTuple):
    """The weights between the layers of a reciprocal network.

    weights : in panels and laid end to end. shapes (2, L-1, 3) : of forward[k] and backward[k]:
        where it begins in `weights`, K and P (P = 0: tied, the transpose of forward[k]).
    ends (L+1,) : layer k is ends[k] ... ends[k+1] of the padded layers side by side.
    biases (ends[L],) : 0 for the first layer, whose drive holds them. leaks (L,) : 1 / r.
    """

    weights: Array
    shapes: Array
    ends: Array
    biases: Array
    leaks: Array


class LayerBuffers(NamedTuple):
    """What is computed of a batch.

    states, inputs (sum_k rows N_k) : the layers one after the other.
    history (rows, 2m+2, C) : of the cut, m differences of y, m of f = T(y) - y, the last y and f.
        grams (rows, m, m) : of the differences of f.
    progress (2, rows) : RESIDUAL, and SQUARE: ||f||^2.
    statistics (4, rows) : PASSES, STATUS, DOUBTS: how often a pass carried a move of y on
        (kernels/anderson.GROWTH), MIXED: passes in the history.
    drive (rows, N_1). targets (rows, N_L).
    """

    states: Array
    inputs: Array
    history: Array
    grams: Array
    progress: Array
    statistics: Array
    drive: Array
    targets: Array


class LayerScratch(NamedTuple):
    """lists (rows,) of sample numbers; and each thread's own: vectors (threads, 2, N), systems
    (threads, m+1, m).
    """

    lists: Array
    vectors: Array
    systems: Array


@numba.njit(error_model="numpy", fastmath={"reassoc"})
def product(x: Array, y: Array) -> float:
    """sum_i x[i] y[i] in float64; NaN and infinity keep their meaning."""
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(y[i])
    return total


@view
def layer(values: Array, ends: Array, k: int, rows: int) -> Array:
    """Layer k (rows, N_k) of states or inputs, a view."""
    return view_of(values, rows * ends[k], (rows, ends[k + 1] - ends[k]))


@view
def matrix(weights: Array, shape: Array) -> Array:
    """The matrix with this row of `shapes`, in panels (P, K, COLUMNS), a view."""
    at, steps, panels = shape
    wide = 64 // weights.itemsize
    return view_of(weights, at, (panels, steps, wide))


@inner
def fill_input(net: LayerNet, buffers: LayerBuffers, k: int, own: Array) -> None:
    """inputs_k <- [drive | s_k-1 @ forward[k-1]] + s_k+1 @ backward[k], for the samples `own`."""
    weights, shapes, ends, drive = net.weights, net.shapes, net.ends, buffers.drive
    rows = drive.shape[0]
    # low is 0, but not a literal, for which Numba would compile every product once more
    a, low = layer(buffers.inputs, ends, k, rows), ends[0]
    if k == 0:
        for i in range(own.size):
            for c in range(drive.shape[1]):
                a[own[i], c] = drive[own[i], c]
    for side in range(2):
        pre = k - 1 + 2 * side
        if 0 <= pre < ends.size - 1:
            shape, s = shapes[side, k - 1 + side], layer(buffers.states, ends, pre, rows)
            if shape[2] > 0:
                multiply(s, own, matrix(weights, shape), a, own, low, shape[2], side > 0)
            else:
                shape = shapes[0, k]
                multiply_transposed(s, own, matrix(weights, shape), a, own, low, shape[1], side > 0)


@inner
def settle(net: LayerNet, buffers: LayerBuffers, k: int, b: int, beta: float, out: Array) -> None:
    """out <- clip((inputs_k + bias [+ beta d]) / (leak [+ beta])): the fixed point of layer k of
    sample b with constant input; beta is the output's.
    """
    ends, biases, targets = net.ends, net.biases, buffers.targets
    a, bias = layer(buffers.inputs, ends, k, targets.shape[0])[b], biases[ends[k] : ends[k + 1]]
    zero, one, leak = a.dtype.type(0), a.dtype.type(1), a.dtype.type(net.leaks[k])
    if beta != 0 and k + 2 == ends.size:
        pull, d = a.dtype.type(beta), targets[b]
        for c in range(out.size):
            out[c] = min(max(unit_target(a[c] + bias[c], leak, pull, d[c]), zero), one)
    else:
        for c in range(out.size):
            out[c] = min(max(unit_target(a[c] + bias[c], leak, zero, zero), zero), one)


@inner
def way_square(net: LayerNet, buffers: LayerBuffers, b: int, beta: float, first: int, y: Array, f: Array) -> float:
    """||f||^2 of the layers first, first + 2, ... of one sample at its inputs; y <- their states, f
    <- their fixed points - y, side by side.
    """
    ends, rows = net.ends, buffers.targets.shape[0]
    at, total = 0, 0.0
    for k in range(first, ends.size - 1, 2):
        s = layer(buffers.states, ends, k, rows)[b]
        end = at + s.size
        aim, own = f[at:end], y[at:end]
        settle(net, buffers, k, b, beta, aim)
        for c in range(s.size):
            own[c] = s[c]
            aim[c] -= s[c]
        total += product(aim, aim)
        at = end
    return total


@inner
def bound(net: LayerNet, buffers: LayerBuffers, b: int, limits: Limits) -> float:
    """absolute + relative ||s||: the residual at which one sample has converged."""
    if limits.relative == 0:
        return float(limits.absolute)
    ends, total = net.ends, 0.0
    for k in range(ends.size - 1):
        s = layer(buffers.states, ends, k, buffers.targets.shape[0])[b]
        total += product(s, s)
    return float(limits.absolute + limits.relative * np.sqrt(total))


@inner
def mix(buffers: LayerBuffers, b: int, y: Array, f: Array, system: Array) -> None:
    """y <- clip(y + f - sum_j gamma_j (dy_j + df_j)), gamma = argmin ||f - sum_j gamma_j df_j||
    over the last m differences between passes.

    It is the mixture of kernels/anderson.py; a residual RESTART times that of the last pass
    empties the history there too. After PATIENCE passes every rise does: mixtures can circle among
    the kinks of the map for ever where plain passes converge.
    """
    history, gram, progress, statistics = buffers.history[b], buffers.grams[b], buffers.progress, buffers.statistics
    m, size = gram.shape[0], product(f, f)
    if size > RESTART**2 * progress[SQUARE, b] or (size > progress[SQUARE, b] and statistics[PASSES, b] > PATIENCE):
        statistics[MIXED, b] = 0
    progress[SQUARE, b] = size
    count, last_y, last_f = statistics[MIXED, b], history[2 * m], history[2 * m + 1]
    used = min(count, m)
    if count > 0:
        slot = (count - 1) % m
        dy, df = history[slot], history[m + slot]
        for c in range(y.size):
            dy[c], df[c] = y[c] - last_y[c], f[c] - last_f[c]
        for j in range(used):
            gram[slot, j] = gram[j, slot] = product(df, history[m + j])
        moved = product(dy, dy)
        if moved + 2 * product(dy, df) + gram[slot, slot] >= GROWTH**2 * moved:
            statistics[DOUBTS, b] += 1
    for c in range(y.size):
        last_y[c], last_f[c] = y[c], f[c]
    statistics[MIXED, b] = count + 1
    gamma = system[m]
    for j in range(used):
        gamma[j] = product(history[m + j], f)
    solve(gram, gamma, used, system)
    for c in range(y.size):
        y[c] += f[c]
    for j in range(used):
        weight, dy, df = y.dtype.type(gamma[j]), history[j], history[m + j]
        for c in range(y.size):
            y[c] -= weight * (dy[c] + df[c])
    zero, one = y.dtype.type(0), y.dtype.type(1)
    for c in range(y.size):
        y[c] = min(max(y[c], zero), one)


@inner
def set_cut(buffers: LayerBuffers, ends: Array, b: int, y: Array) -> None:
    """The states of the cut of one sample <- y."""
    at = 0
    for k in range(1, ends.size - 1, 2):
        s = layer(buffers.states, ends, k, buffers.targets.shape[0])[b]
        for c in range(s.size):
            s[c] = y[at + c]
        at += s.size


@inner
def end_pass(
    net: LayerNet,
    buffers: LayerBuffers,
    own: Array,
    beta: float,
    limits: Limits,
    checking: bool,
    vectors: Array,
    system: Array,
) -> None:
    """The rest of a pass once all inputs are known: the status of each sample, and the next states
    of the cut of those still running.

    checking : the first evaluation of a whole state, before any pass; those converged or not
    finite end there, the others keep their state.
    """
    progress, statistics, width = buffers.progress, buffers.statistics, buffers.history.shape[2]
    for i in range(own.size):
        b, square = own[i], 0.0
        for first in range(0 if checking else 1, 2):
            extent = width if first == 1 else vectors.shape[1] - width
            square += way_square(net, buffers, b, beta, first, vectors[0, :extent], vectors[1, :extent])
        limit = bound(net, buffers, b, limits)
        if record_pass(b, np.sqrt(square), limit, limits.max_passes, progress, statistics) and not checking:
            mix(buffers, b, vectors[0, :width], vectors[1, :width], system)
            set_cut(buffers, net.ends, b, vectors[0])
        if checking:
            statistics[PASSES, b] = 0
            if statistics[STATUS, b] == OUT_OF_STEPS:
                statistics[STATUS, b] = RUNNING


@entry
def relax_layers(
    thread: int,
    threads: int,
    counters: Array,
    net: LayerNet,
    buffers: LayerBuffers,
    scratch: LayerScratch,
    start: int,
    beta: float,
    limits: Limits,
) -> None:
    """Every sample RUNNING in this thread's part of the rows, until it has converged, is out of
    steps or not finite, or the team shall stop. beta = 0: targets have no part.

    start : FROM_CUT, only the states of the cut are given; FROM_STATE, a whole state, kept without
    a pass where it has converged; FROM_INPUTS, a state that has converged under another nudge,
    with its inputs: the first pass then makes one product, with what the output sends back. At the
    end the states are those of the last pass, inputs what enters them there, and RESIDUAL is that
    of these states.
    """
    lists, vectors, system = scratch.lists, scratch.vectors[thread], scratch.systems[thread]
    status, layers = buffers.statistics[STATUS], net.ends.size - 1
    begin, end = partition(status.size, thread, threads)
    active, count, stage = lists[begin:end], 0, start
    for b in range(begin, end):
        if status[b] == RUNNING:
            active[count] = b
            count += 1
    while count > 0 and not must_stop(counters):
        own = active[:count]
        for half in range(2):
            for k in range(half, layers, 2):
                if stage <= FROM_STATE or (half == 1 and (stage == CHECKED or k == layers - 2)):
                    fill_input(net, buffers, k, own)
                if half == 0 and stage != FROM_STATE:
                    s = layer(buffers.states, net.ends, k, status.size)
                    for i in range(count):
                        settle(net, buffers, k, own[i], beta, s[own[i]])
        end_pass(net, buffers, own, beta, limits, stage == FROM_STATE, vectors, system)
        count = keep_running(active, count, status)
        stage = CHECKED if stage == FROM_STATE else FROM_CUT
