"""How many samples of a loop with a hard sigmoid converge together: passes y -> hidden layers
-> u(y), walked by a team.

What the kernels are given, as tuples:

    net    (weights, shapes, loop, biases, leaks): every matrix that runs forward, in panels and laid end to end; shapes (L, 3) its place there, K
           and P (row 0 the input, row k into layer k); loop (n_L, N_1); biases, end to end and
           padded; leaks (L,)
    room   (states, ways, slopes, marks, statistics), each with a phase of the batch for its first axis:
           states (., sum_k rows N_k) of the hidden layers, one after the other; ways (., 4, rows,
           N_L): outputs under trial Y and what enters them there U, the best so far BASE_Y,
           BASE_U; slopes S (., rows, n_L, N_L); marks (., 3, rows): RESIDUAL of the last pass,
           BEST residual so far, PACE of the step; statistics (., 3, rows): PASSES, STATUS, and
           DOUBTS: how often the residual rose, and once more where the outputs may amplify their
           own changes
    work   (drive, targets, norms, mean_rates, lists, pairs, scratch, rates, squares, used, counts): drive (rows, N_1) and targets (rows, N_L) of the
           batch; what follows from `lists` on is each member's own: lists (., 4, rows) of sample
           numbers, the last 0, 1, ...; pairs (., 2, N_L); scratch (., N_1); squares (., 2, n_L,
           n_L); used and counts (kernels/panels.find_used) of the images
    rule   (absolute, relative, most): when a sample has converged, and how many passes it may have

A thin step (loop and output products, the secants) is done sample by sample, a wide one (hidden
products) panel by panel; each is shared out anew, and between them the team meets. Sums over units
are made in one fixed order each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fsp_dynamics.kernels.broyden import broyden_update, may_amplify, mismatch, predict, rests_at
from fsp_dynamics.kernels.field import Array, bare, dot, entry, unit_target, view
from fsp_dynamics.kernels.panels import multiply
from fsp_dynamics.kernels.team import barrier, is_lost, partition

Y, U, BASE_Y, BASE_U = 0, 1, 2, 3
RESIDUAL, BEST, PACE = 0, 1, 2
PASSES, STATUS, DOUBTS = 0, 1, 2
GOING, CHOSEN, IMAGES, EVERYONE = 0, 1, 2, 3
RUNNING, CONVERGED, OUT_OF_STEPS, NOT_FINITE, ABSENT = (
    -1,
    0,
    1,
    2,
    -2,
)  # a sample's status: of solvers.equilibrium.Status where it is 0 or more


@view
def matrix(weights: Array, shapes: Array, k: int) -> Array:
    """The matrix into layer k, in panels (P, K, COLUMNS), a view."""
    at, steps, panels = shapes[k, 0], shapes[k, 1], shapes[k, 2]
    wide = 64 // weights.itemsize
    return weights[at : at + panels * steps * wide].reshape(panels, steps, wide)


@bare
def first_unit(shapes: Array, k: int, wide: int) -> int:
    """Where layer k begins when the padded layers of one sample are laid end to end."""
    at = 0
    for j in range(k):
        at += shapes[j, 2] * wide
    return at


@view
def layer(states: Array, shapes: Array, k: int, rows: int) -> Array:
    """The states of hidden layer k (rows, N_k) of one phase, a view."""
    wide = 64 // states.itemsize
    at, n = rows * first_unit(shapes, k, wide), shapes[k, 2] * wide
    return states[at : at + rows * n].reshape(rows, n)


@bare
def settle_row(a: Array, bias: Array, first: int, leak: float, low: int, high: int) -> None:
    """a[c] <- clip((a[c] + bias[first + c]) / leak), low <= c < high, in place."""
    zero, one, slow = a.dtype.type(0), a.dtype.type(1), a.dtype.type(leak)
    for c in range(low, high):
        a[c] = min(max(unit_target(a[c] + bias[first + c], slow, zero, zero), zero), one)


@bare
def enter_loop(y: Array, drive: Array, loop: Array, leak: float, out: Array) -> None:
    """out <- clip((drive + y @ loop) / leak): the first hidden layer of one sample. Silent outputs
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


@bare
def pass_hidden(me: int, all: int, counters: Array, net: Any, states: Array, rows: int, going: Array) -> None:
    """Hidden layer after hidden layer of the samples `going`, mine the panels that I share; the
    first layer stands already.
    """
    weights, shapes, _, biases, leaks = net
    wide = 64 // weights.itemsize
    for k in range(1, shapes.shape[0] - 1):
        barrier(all, counters)
        first, last = partition(shapes[k, 2], me, all)
        out = layer(states, shapes, k, rows)
        multiply(layer(states, shapes, k - 1, rows), going, matrix(weights, shapes, k), out, going, first, last, False)
        for i in range(going.size):
            settle_row(out[going[i]], biases, first_unit(shapes, k, wide), leaks[k], first * wide, last * wide)
    barrier(all, counters)


@bare
def state_norm(states: Array, shapes: Array, rows: int, b: int, y: Array, n: int) -> float:
    """||s|| of one sample over all its layers."""
    total = 0.0
    for k in range(shapes.shape[0] - 1):
        s = layer(states, shapes, k, rows)[b]
        total += np.float64(dot(s, s))
    for j in range(n):
        total += np.float64(y[j]) ** 2
    return np.sqrt(total)


@bare
def polish(
    size: float, bound: float, y: Array, u: Array, drive: Array, loop: Array, leaks: Array, beta: float, d: Array, hidden: Array, pair: Array,
    out: Array,
) -> float:  # fmt: skip
    """Move y part of the way to where the output rests while nothing else moves, if the whole
    field then is within the bound; its norm, or `size`.

    With r the way, a step theta r leaves kappa (1 - theta) r at the output and moves what the
    first hidden layer hears by theta r @ loop. The best theta is size^2 / (size^2 + g^2), g the
    norm of the first hidden layer's field after a whole step; where g is small this saves a pass.
    """
    n, leak = loop.shape[0], leaks[-1]
    moved, theta, field = pair[0], 1.0, 0.0
    for _ in range(2):
        for j in range(n):
            rest = rests_at(np.float64(u[j]), leak, beta, np.float64(d[j]))
            moved[j] = y[j] + theta * (rest - y[j])
        enter_loop(moved, drive, loop, leaks[0], out)
        for c in range(out.size):
            out[c] = leaks[0] * (out[c] - hidden[c])
        field = np.sqrt(np.float64(dot(out, out)))
        if theta == 1.0:
            theta = size**2 / (size**2 + field**2)
            if not theta < 1.0 or size * np.sqrt(1 - theta) > bound:
                return size
    whole = np.sqrt(mismatch(moved, u, leak, beta, d, n) ** 2 + field**2)
    if not whole <= bound:
        return size
    for j in range(n):
        y[j] = moved[j]
    return whole


@bare
def judge(b: int, size: float, bound: float, most: int, marks: Array, statistics: Array) -> bool:
    """Note the residual of one more pass; whether the sample goes on."""
    marks[RESIDUAL, b] = size
    statistics[PASSES, b] += 1
    if not np.isfinite(size + bound):
        statistics[STATUS, b] = NOT_FINITE
    elif size <= bound:
        statistics[STATUS, b] = CONVERGED
    elif statistics[PASSES, b] >= most:
        statistics[STATUS, b] = OUT_OF_STEPS
    return statistics[STATUS, b] == RUNNING


@bare
def advance(
    b: int, ways: Array, slope: Array, marks: Array, statistics: Array, leak: float, beta: float, d: Array, n: int, pair: Array, accuracy: float
) -> None:  # fmt: skip
    """The next outputs of one sample, from the pass that was just made with y[b].

    The model learns from the move since the best outputs so far. These move on where the residual
    did not double; where it did the next trial starts from them again, at half the pace.
    """
    y, u, base_y, base_u = ways[Y, b], ways[U, b], ways[BASE_Y, b], ways[BASE_U, b]
    size, best = marks[RESIDUAL, b], marks[BEST, b]
    if np.isfinite(best):
        for j in range(n):
            pair[0, j], pair[1, j] = y[j] - base_y[j], u[j] - base_u[j]
        broyden_update(slope, pair[0], pair[1], n)
    if size > best:
        statistics[DOUBTS, b] += 1
    if size <= 2 * best:
        marks[BEST, b], marks[PACE, b] = size, min(1.0, 2 * marks[PACE, b])
        for j in range(n):
            base_y[j], base_u[j] = y[j], u[j]
    else:
        marks[PACE, b] /= 2
    predict(base_y, base_u, slope, leak, beta, d, y, pair[0], n, accuracy)
    pace = y.dtype.type(marks[PACE, b])
    if pace < 1:
        for j in range(n):
            y[j] = base_y[j] + pace * (y[j] - base_y[j])


@bare
def keep_going(going: Array, count: int, status: Array) -> int:
    """Drop from the first `count` sample numbers those that no longer go; how many are left."""
    left = 0
    for i in range(count):
        if status[going[i]] == RUNNING:
            going[left] = going[i]
            left += 1
    return left


@bare
def end_pass(me: int, net: Any, room: Any, work: Any, phase: int, beta: float, rule: Any, own: Array) -> None:
    """What enters the outputs of my samples, their residual, and for those not converged the next
    outputs and first hidden layer.
    """
    weights, shapes, loop, biases, leaks = net
    ways, marks, statistics, states = room[1][phase], room[3][phase], room[4][phase], room[0][phase]
    drive, d, pair, out = work[0], work[1], work[5][me], work[6][me]
    rows, n, last, leak = drive.shape[0], loop.shape[0], shapes.shape[0] - 1, leaks[-1]
    bias, accuracy = first_unit(shapes, last, 64 // weights.itemsize), 0.05 * rule[0] / (leak + beta)
    hidden = layer(states, shapes, 0, rows)
    multiply(
        layer(states, shapes, last - 1, rows),
        own,
        matrix(weights, shapes, last),
        ways[U],
        own,
        0,
        shapes[last, 2],
        False,
    )
    for i in range(own.size):
        b = own[i]
        y, u = ways[Y, b], ways[U, b]
        for j in range(n):
            u[j] += biases[bias + j]
        size = mismatch(y, u, leak, beta, d[b], n)
        bound = rule[0] + (rule[1] * state_norm(states, shapes, rows, b, y, n) if rule[1] > 0 else 0.0)
        if bound < size < 4 * bound:
            size = polish(size, bound, y, u, drive[b], loop, leaks, beta, d[b], hidden[b], pair, out)
        if judge(b, size, bound, rule[2], marks, statistics):
            advance(b, ways, room[2][phase, b], marks, statistics, leak, beta, d[b], n, pair, accuracy)
            enter_loop(y, drive[b], loop, leaks[0], hidden[b])
        elif statistics[STATUS, b] == CONVERGED and may_amplify(room[2][phase, b], y, leak + beta, n, work[8][me]):
            statistics[DOUBTS, b] += 1


@entry
def come_to_rest(
    me: int, all: int, counters: Array, net: Any, room: Any, work: Any, phase: int, beta: float, rule: Any
) -> None:
    """Every sample RUNNING in this phase, from its outputs y to rest, or until it interrupts or
    may not go on.

    BEST is infinite where no pass was made yet, else the residual at BASE_Y. With beta = 0 the
    targets have no part. At the end the hidden states are those of the last pass, and RESIDUAL is
    the norm of the field at them and y.
    """
    shapes, loop, leaks = net[1], net[2], net[4]
    drive, states, status = work[0], room[0][phase], room[4][phase, STATUS]
    going, rows = work[4][me, GOING], drive.shape[0]
    count = 0
    for b in range(rows):
        if status[b] == RUNNING:
            going[count] = b
            count += 1
    begin, end = partition(count, me, all)
    for i in range(begin, end):
        b = going[i]
        enter_loop(room[1][phase, Y, b], drive[b], loop, leaks[0], layer(states, shapes, 0, rows)[b])
    while count > 0 and (all == 1 or not is_lost(counters)):
        pass_hidden(me, all, counters, net, states, rows, going[:count])
        end_pass(me, net, room, work, phase, beta, rule, going[begin:end])
        barrier(all, counters)
        count = keep_going(going, count, status)
        begin, end = partition(count, me, all)
    barrier(all, counters)
