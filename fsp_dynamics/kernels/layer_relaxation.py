"""Reciprocal networks with a hard sigmoid converge: sweeps over every second layer, mixed per
sample, samples dealt out to a team.

The cut is every second layer (1, 3, ...). Given its states y, the other layers follow, and with
them where the cut would rest: a pass y -> T(y). Each layer hears both of its neighbours, so one
pass costs two products with each matrix. Each sample makes its own passes: nobody waits.

What the kernels are given, as tuples:

    net    (weights, shapes, ends, biases, leaks): the matrices between layers, in panels and laid end to end; shapes (2, L-1, 3) of forward[k] and of
           backward[k]: its place there, K and P (P = 0: tied, the transpose of forward[k]); layer
           k is ends[k] ... ends[k+1] of the padded layers side by side; biases (ends[L],), without
           the first layer's, which the drive holds; leaks (L,)
    room   (states, inputs, history, grams, marks, statistics, drive, targets): states and inputs (sum_k rows N_k), the layers one after the other;
           history (rows, 2m+2, C) of the cut: m differences of y, m of f = T(y) - y, the last y
           and f; grams (rows, m, m) of the differences of f; marks (2, rows): RESIDUAL and SQUARE,
           ||f||^2; statistics (4, rows): PASSES, STATUS, DOUBTS (how often ||f|| rose) and KEPT
           passes in the history; drive (rows, N_1); targets (rows, N_L)
    work   (lists, vectors, systems): lists (rows,) of sample numbers; vectors (team, 2, N) and systems (team, m+1, m) are each member's own
    rule   (absolute, relative, most): when a sample has converged, and how many passes it may have
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from fsp_dynamics.kernels.anderson import RESTART, solve
from fsp_dynamics.kernels.field import Array, entry, inner, unit_target, view
from fsp_dynamics.kernels.loop_relaxation import DOUBTS, OUT_OF_STEPS, PASSES, RUNNING, STATUS, judge, keep_going
from fsp_dynamics.kernels.panels import multiply, multiply_transposed
from fsp_dynamics.kernels.team import partition

SQUARE, KEPT = 1, 3  # of marks and statistics; the others are those of loop_rest
PATIENCE = 12
FROM_CUT, FROM_STATE, FROM_INPUTS, LOOKED = (
    0,
    1,
    2,
    3,
)  # what of the start stands already: `settle_layers`; LOOKED: the inputs outside the cut


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
    return values[rows * ends[k] : rows * ends[k + 1]].reshape(rows, ends[k + 1] - ends[k])


@view
def matrix(weights: Array, shape: Array) -> Array:
    """The matrix of that place, K and P, in panels (P, K, COLUMNS), a view."""
    at, steps, panels = shape
    wide = 64 // weights.itemsize
    return weights[at : at + panels * steps * wide].reshape(panels, steps, wide)


@inner
def hear(net: Any, room: Any, k: int, own: Array) -> None:
    """inputs_k <- [drive | s_k-1 @ forward[k-1]] + s_k+1 @ backward[k], for the samples `own`."""
    weights, shapes, ends, drive = net[0], net[1], net[2], room[6]
    rows = drive.shape[0]
    a, low = (
        layer(room[1], ends, k, rows),
        ends[0],
    )  # 0, but not a literal, for which Numba would compile every product once more
    if k == 0:
        for i in range(own.size):
            for c in range(drive.shape[1]):
                a[own[i], c] = drive[own[i], c]
    for side in range(2):
        pre = k - 1 + 2 * side
        if 0 <= pre < ends.size - 1:
            shape = shapes[side, k - 1 + side]
            if shape[2] > 0:
                multiply(layer(room[0], ends, pre, rows), own, matrix(weights, shape), a, own, low, shape[2], side > 0)
            else:
                shape = shapes[0, k]
                multiply_transposed(
                    layer(room[0], ends, pre, rows), own, matrix(weights, shape), a, own, low, shape[1], side > 0
                )


@inner
def rest(net: Any, room: Any, k: int, b: int, beta: float, out: Array) -> None:
    """out <- clip((inputs_k + bias [+ beta d]) / (leak [+ beta])): where layer k of sample b
    rests; beta is the output's.
    """
    ends, biases, targets = net[2], net[3], room[7]
    a, bias = layer(room[1], ends, k, targets.shape[0])[b], biases[ends[k] : ends[k + 1]]
    zero, one, leak = a.dtype.type(0), a.dtype.type(1), a.dtype.type(net[4][k])
    if beta != 0 and k + 2 == ends.size:
        pull, d = a.dtype.type(beta), targets[b]
        for c in range(out.size):
            out[c] = min(max(unit_target(a[c] + bias[c], leak, pull, d[c]), zero), one)
    else:
        for c in range(out.size):
            out[c] = min(max(unit_target(a[c] + bias[c], leak, zero, zero), zero), one)


@inner
def gap(net: Any, room: Any, b: int, beta: float, first: int, y: Array, f: Array) -> float:
    """||field||^2 of the layers first, first + 2, ... of one sample at its inputs; y <- their
    states, f <- where they rest - y, side by side.
    """
    ends, rows = net[2], room[7].shape[0]
    at, total = 0, 0.0
    for k in range(first, ends.size - 1, 2):
        s = layer(room[0], ends, k, rows)[b]
        end = at + s.size
        aim, own = f[at:end], y[at:end]
        rest(net, room, k, b, beta, aim)
        for c in range(s.size):
            own[c] = s[c]
            aim[c] -= s[c]
        stiff = net[4][k] + (beta if k + 2 == ends.size else 0.0)
        total += stiff**2 * product(aim, aim)
        at = end
    return total


@inner
def bound(net: Any, room: Any, b: int, rule: Any) -> float:
    """absolute + relative ||s||: the field that counts as rest, for one sample."""
    if rule[1] == 0:
        return float(rule[0])
    ends, total = net[2], 0.0
    for k in range(ends.size - 1):
        s = layer(room[0], ends, k, room[7].shape[0])[b]
        total += product(s, s)
    return float(rule[0] + rule[1] * np.sqrt(total))


@inner
def mix(room: Any, b: int, y: Array, f: Array, system: Array) -> None:
    """y <- clip(y + f - sum_j gamma_j (dy_j + df_j)), gamma = argmin ||f - sum_j gamma_j df_j||
    over the last m differences between passes.

    It is the mixture of kernels/anderson.py; a residual RESTART times that of the last pass
    empties the history there too. After PATIENCE passes every rise does: mixtures can circle among
    the kinks of the map for ever where plain passes arrive.
    """
    history, gram, marks, statistics = room[2][b], room[3][b], room[4], room[5]
    m, size = gram.shape[0], product(f, f)
    if size > marks[SQUARE, b]:
        statistics[DOUBTS, b] += 1
    if size > RESTART**2 * marks[SQUARE, b] or (size > marks[SQUARE, b] and statistics[PASSES, b] > PATIENCE):
        statistics[KEPT, b] = 0
    marks[SQUARE, b] = size
    count, last_y, last_f = statistics[KEPT, b], history[2 * m], history[2 * m + 1]
    used = min(count, m)
    if count > 0:
        slot = (count - 1) % m
        dy, df = history[slot], history[m + slot]
        for c in range(y.size):
            dy[c], df[c] = y[c] - last_y[c], f[c] - last_f[c]
        for j in range(used):
            gram[slot, j] = gram[j, slot] = product(df, history[m + j])
    for c in range(y.size):
        last_y[c], last_f[c] = y[c], f[c]
    statistics[KEPT, b] = count + 1
    gamma = system[m]
    for j in range(used):
        gamma[j] = product(history[m + j], f)
    solve(gram, gamma, used, system)
    for c in range(y.size):
        y[c] += f[c]
    for j in range(used):
        share_of, dy, df = y.dtype.type(gamma[j]), history[j], history[m + j]
        for c in range(y.size):
            y[c] -= share_of * (dy[c] + df[c])
    zero, one = y.dtype.type(0), y.dtype.type(1)
    for c in range(y.size):
        y[c] = min(max(y[c], zero), one)


@inner
def move(room: Any, ends: Array, b: int, y: Array) -> None:
    """The states of the cut of one sample <- y."""
    at = 0
    for k in range(1, ends.size - 1, 2):
        s = layer(room[0], ends, k, room[7].shape[0])[b]
        for c in range(s.size):
            s[c] = y[at + c]
        at += s.size


@inner
def end_pass(
    net: Any, room: Any, own: Array, beta: float, rule: Any, looking: bool, vectors: Array, system: Array
) -> None:
    """What is left of a pass once all inputs stand: judge each sample, move the cut of those that
    go on.

    `looking` : at a whole state, before any pass; those converged or not finite leave, the others
    stay as they are.
    """
    marks, statistics, width = room[4], room[5], room[2].shape[2]
    for i in range(own.size):
        b, square = own[i], 0.0
        for first in range(0 if looking else 1, 2):
            extent = width if first == 1 else vectors.shape[1] - width
            square += gap(net, room, b, beta, first, vectors[0, :extent], vectors[1, :extent])
        if judge(b, np.sqrt(square), bound(net, room, b, rule), rule[2], marks, statistics) and not looking:
            mix(room, b, vectors[0, :width], vectors[1, :width], system)
            move(room, net[2], b, vectors[0])
        if looking:
            statistics[PASSES, b] = 0
            if statistics[STATUS, b] == OUT_OF_STEPS:
                statistics[STATUS, b] = RUNNING


@entry
def settle_layers(
    me: int, all: int, counters: Array, net: Any, room: Any, work: Any, start: int, beta: float, rule: Any
) -> None:
    """Every sample RUNNING among my share of the rows, to rest, or until it interrupts or may not
    go on. beta = 0: targets have no part.

    start : FROM_CUT, the states of the cut alone count; FROM_STATE, a whole state, kept without a
    pass where it has converged; FROM_INPUTS, a state that was left converged under another nudge, with
    its inputs: the first pass then makes one product, with what the output sends back. At the end
    the states are those of the last pass, inputs what enters them there, and RESIDUAL is the norm
    of the field.
    """
    lists, vectors, system, status = work[0], work[1][me], work[2][me], room[5][STATUS]
    layers = net[2].size - 1
    begin, end = partition(status.size, me, all)
    going, count, stage = lists[begin:end], 0, start
    for b in range(begin, end):
        if status[b] == RUNNING:
            going[count] = b
            count += 1
    while count > 0:
        own = going[:count]
        for half in range(2):
            for k in range(half, layers, 2):
                if stage <= FROM_STATE or (half == 1 and (stage == LOOKED or k == layers - 2)):
                    hear(net, room, k, own)
                if half == 0 and stage != FROM_STATE:
                    s = layer(room[0], net[2], k, status.size)
                    for i in range(count):
                        rest(net, room, k, own[i], beta, s[own[i]])
        end_pass(net, room, own, beta, rule, stage == FROM_STATE, vectors, system)
        count = keep_going(going, count, status)
        stage = LOOKED if stage == FROM_STATE else FROM_CUT
