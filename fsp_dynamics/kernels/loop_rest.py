"""How many samples of a loop with a hard sigmoid come to rest together: passes y -> hidden layers -> u(y), walked by a team.

What the kernels are given, as tuples:

    net      (weights, shapes, loop, biases, leaks): every matrix that runs forward, in panels and laid end to end; shapes (L, 3)
             its place there, K and P (row 0 the input, row k into layer k); loop (n_L, N_1); biases, end to end and padded; leaks (L,)
    states   every layer's states (rows, N_k), one layer after the other in one flat array
    ways     (y, u, base_y, base_u, slopes): outputs under trial and what enters them there; the best so far; S (rows, n_L, N_L)
    tallies  (residual, passes, status, rose): of each sample
    rule     (absolute, relative, most): when it is at rest, and how many passes it may have

A thin step (loop and output products, the secants) is done sample by sample, a wide one (hidden products) panel by panel; each is shared out anew, and
between them the team meets. Sums over units are made in one fixed order each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fsp_dynamics.kernels.field import Array, dot, jit, unit_target
from fsp_dynamics.kernels.panels import multiply
from fsp_dynamics.kernels.secants import learn_secant, mismatch, predict
from fsp_dynamics.kernels.team import entry, meet, share

GOING, RESTING, TIRED, BROKEN, ABSENT = -1, 0, 1, 2, -2  # on the way; the values of solvers.equilibrium.Status; not taken along


@jit
def matrix(weights: Array, shapes: Array, k: int) -> Array:
    """The matrix into layer k, in panels (P, K, COLUMNS), a view."""
    at, steps, panels = shapes[k, 0], shapes[k, 1], shapes[k, 2]
    wide = 64 // weights.itemsize
    return weights[at : at + panels * steps * wide].reshape(panels, steps, wide)


@jit
def layer(states: Array, shapes: Array, k: int, rows: int, wide: int) -> Array:
    """The states of layer k (rows, N_k), a view."""
    at = 0
    for j in range(k):
        at += rows * shapes[j, 2] * wide
    n = shapes[k, 2] * wide
    return states[at : at + rows * n].reshape(rows, n)


@jit
def first_unit(shapes: Array, k: int, wide: int) -> int:
    """Where layer k begins when the padded layers of one sample are laid end to end."""
    at = 0
    for j in range(k):
        at += shapes[j, 2] * wide
    return at


@jit
def settle_row(a: Array, bias: Array, first: int, leak: float, low: int, high: int) -> None:
    """a[c] <- clip((a[c] + bias[first + c]) / leak), low <= c < high, in place."""
    zero, one, nothing = a.dtype.type(0), a.dtype.type(1), a.dtype.type(0)
    slow = a.dtype.type(leak)
    for c in range(low, high):
        rest = unit_target(a[c] + bias[first + c], slow, nothing, nothing)
        a[c] = min(max(rest, zero), one)


@jit
def enter_loop(y: Array, drive: Array, loop: Array, leak: float, out: Array) -> None:
    """out <- clip((drive + y @ loop) / leak): the first hidden layer of one sample."""
    zero, one, nothing = out.dtype.type(0), out.dtype.type(1), out.dtype.type(0)
    slow = out.dtype.type(leak)
    for c in range(out.size):
        out[c] = drive[c]
    for j in range(loop.shape[0]):
        if y[j] != 0:
            rate, row = y[j], loop[j]
            for c in range(out.size):
                out[c] += rate * row[c]
    for c in range(out.size):
        out[c] = min(max(unit_target(out[c], slow, nothing, nothing), zero), one)


@jit
def pass_hidden(me: int, all: int, counters: Array, net: Any, states: Array, rows: int, going: Array) -> None:
    """Hidden layer after hidden layer of the samples `going`, mine the panels of each that I share; the first layer stands already."""
    weights, shapes, _, biases, leaks = net
    wide = 64 // weights.itemsize
    for k in range(1, shapes.shape[0] - 1):
        meet(all, counters)
        first, last = share(shapes[k, 2], me, all)
        out = layer(states, shapes, k, rows, wide)
        multiply(layer(states, shapes, k - 1, rows, wide), going, matrix(weights, shapes, k), out, going, first, last, False)
        for i in range(going.size):
            settle_row(out[going[i]], biases, first_unit(shapes, k, wide), leaks[k], first * wide, last * wide)
    meet(all, counters)


@jit
def state_norm(states: Array, shapes: Array, rows: int, wide: int, b: int, y: Array, n: int) -> float:
    """||s|| of one sample over all its layers."""
    total = 0.0
    for k in range(shapes.shape[0] - 1):
        s = layer(states, shapes, k, rows, wide)[b]
        total += np.float64(dot(s, s))
    for j in range(n):
        total += np.float64(y[j]) ** 2
    return np.sqrt(total)


@jit
def judge(b: int, size: float, norm: float, rule: Any, tallies: Any) -> bool:
    """Note the residual of one more pass; whether the sample goes on."""
    residual, passes, status, _ = tallies
    absolute, relative, most = rule
    residual[b] = size
    passes[b] += 1
    if not np.isfinite(size + norm):
        status[b] = BROKEN
    elif size <= absolute + relative * norm:
        status[b] = RESTING
    elif passes[b] >= most:
        status[b] = TIRED
    return status[b] == GOING


@jit
def advance(
    b: int, ways: Any, best: Array, pace: Array, rose: Array, size: float, leak: float, beta: float, d: Array, n: int, room: Array, accuracy: float
) -> None:
    """The next outputs of one sample, from the pass that was just made with y[b].

    The model learns from the move since the best outputs so far. These move on where the residual did not double; where it did the next trial starts
    from them again, with half the pace.
    """
    y, u, base_y, base_u, slopes = ways
    if np.isfinite(best[b]):
        for j in range(n):
            room[0, j], room[1, j] = y[b, j] - base_y[b, j], u[b, j] - base_u[b, j]
        learn_secant(slopes[b], room[0], room[1], n)
    if size > best[b]:
        rose[b] += 1
    if size <= 2 * best[b]:
        best[b] = size
        for j in range(n):
            base_y[b, j], base_u[b, j] = y[b, j], u[b, j]
        pace[b] = min(1.0, 2 * pace[b])
    else:
        pace[b] /= 2
    predict(base_y[b], base_u[b], slopes[b], leak, beta, d, y[b], room[0], n, accuracy)
    if pace[b] < 1:
        for j in range(n):
            y[b, j] = base_y[b, j] + y.dtype.type(pace[b]) * (y[b, j] - base_y[b, j])


@jit
def keep_going(going: Array, count: int, status: Array) -> int:
    """Drop from the first `count` sample numbers those that no longer go; how many are left."""
    left = 0
    for i in range(count):
        if status[going[i]] == GOING:
            going[left] = going[i]
            left += 1
    return left


@entry
def come_to_rest(
    me: int, all: int, counters: Array, net: Any, drive: Array, states: Array, ways: Any, tallies: Any,
    best: Array, pace: Array, beta: float, d: Array, rule: Any, going: Array, room: Array,
) -> None:  # fmt: skip
    """Every sample with status GOING, from the outputs y to rest, or until it breaks or may not go on.

    drive (rows, N_1); d (rows, N_L); best (rows,) is infinite where no pass was made yet, else the residual at base_y; going (members, rows)
    and room (members, 2, N_L) are room to work in. At the end y, u and `states` of the hidden layers are those of the last pass, whose residual is known.
    """
    weights, shapes, loop, biases, leaks = net
    y, u = ways[0], ways[1]
    residual, _, status, rose = tallies
    rows, n, last = y.shape[0], loop.shape[0], shapes.shape[0] - 1
    wide = 64 // weights.itemsize
    mine, leak = going[me], leaks[last]
    accuracy = 0.05 * rule[0] / (leak + beta)
    output_bias = first_unit(shapes, last, wide)
    count = 0
    for b in range(rows):
        if status[b] == GOING:
            mine[count] = b
            count += 1
    hidden, deepest = layer(states, shapes, 0, rows, wide), layer(states, shapes, last - 1, rows, wide)
    begin, end = share(count, me, all)
    for i in range(begin, end):
        b = mine[i]
        enter_loop(y[b], drive[b], loop, leaks[0], hidden[b])
    while count > 0:
        pass_hidden(me, all, counters, net, states, rows, mine[:count])
        own = mine[begin:end]
        multiply(deepest, own, matrix(weights, shapes, last), u, own, 0, shapes[last, 2], False)
        for i in range(begin, end):
            b = mine[i]
            for j in range(n):
                u[b, j] += biases[output_bias + j]
            size = mismatch(y[b], u[b], leak, beta, d[b], n)
            norm = state_norm(states, shapes, rows, wide, b, y[b], n) if rule[1] > 0 else 0.0
            if judge(b, size, norm, rule, tallies):
                advance(b, ways, best, pace, rose, size, leak, beta, d[b], n, room[me], accuracy)
                enter_loop(y[b], drive[b], loop, leaks[0], hidden[b])
        meet(all, counters)
        count = keep_going(mine, count, status)
        begin, end = share(count, me, all)
    meet(all, counters)
