"""Batch after batch of a loop with a hard sigmoid, walked by a team: both phases, eq. 14, the weights changed in place.

Beside what kernels/loop_rest.py and kernels/loop_phases.py are given, as tuples:

    teaching  (betas, centred, eta, bias_eta, normalised, output_step, momentum, decay): beta of each batch; the rate of each matrix into a layer, the
              loop's last (L + 1,), and of each bias (L,); 0 where nothing learns
    velocity  (weights, loop, biases) laid out as in net; of no size without momentum
    count     sums for the report, in the order of COUNTED; strongest (n_L,): the largest rate of each output
    cursor    (batch, stage, why): where the work stands, and why it was given back

The same in plain words: `learning.phases.run` and `learning.optimisers.Sgd.step`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fsp_dynamics.kernels.field import Array, dot, jit
from fsp_dynamics.kernels.loop_phases import begin_batch, begin_nudge, contrast, learns, needs_attention
from fsp_dynamics.kernels.loop_rest import RESTING, come_to_rest, first_unit, layer, matrix
from fsp_dynamics.kernels.panels import add_outer
from fsp_dynamics.kernels.secants import mean_slope
from fsp_dynamics.kernels.team import entry, meet, share

COUNTED = ("samples", "wrong", "residual", "residual_max", "passes_free", "nudged", "passes_nudged", "unrested")
DONE, FREE, PULLED, PUSHED = 0, 1, 2, 3  # why: all done; samples of that phase need attention
FORGET = 0.98  # what another batch leaves of the sums behind the mean loop Jacobian


@jit
def choose(data: Any, pulled: Any, pushed: Any, centred: bool, first: int, rows: int, chosen: Array, images: Array) -> int:
    """chosen <- the samples to learn from, images <- their rows among the images; how many they are."""
    count = 0
    for b in range(rows):
        if learns(pulled, pushed, centred, b):
            chosen[count], images[count] = b, data[1][first + b]
            count += 1
    return count


@jit
def learning_rates(teaching: Any, norms: Array, image_norm: float, rows: int, lr: Array, bias_lr: Array) -> None:
    """lr = eta / (1 + mean_B ||rho(s_pre^0)||^2) of each matrix into a layer, of the loop (last), and of each bias."""
    _, _, eta, bias_eta, normalised, _, _, _ = teaching
    for k in range(eta.size):
        size = 0.0
        if normalised:
            for b in range(rows):
                size += norms[b, k - 1] if k > 0 else 0.0
            size = image_norm if k == 0 else size / rows
        lr[k] = eta[k] / (1 + size)
        if k < bias_eta.size:
            bias_lr[k] = bias_eta[k] / (1 + size)


@jit
def limit_output(moved: Array, output_step: float, lr: Array, bias_lr: Array) -> None:
    """Lower the rates into the output where its mean input, `moved` at a rate of 1, would move by more than output_step."""
    last = bias_lr.size - 1
    largest = 0.0
    for j in range(moved.size):
        largest = max(largest, abs(moved[j]))
    if lr[last] * largest > output_step:
        lr[last] = output_step / largest
    if bias_lr[last] * largest > output_step:
        bias_lr[last] = output_step / largest


@jit
def mean_move(net: Any, free: Any, change: Array, mean_rates: Array, chosen: Array, rows: int, beta: float, moved: Array) -> None:
    """moved_j = 1/B sum_b (1 + h_b . h) change_bj / beta, h_b the rates below the output and h their mean."""
    weights, shapes = net[0], net[1]
    deepest = layer(free[0], shapes, shapes.shape[0] - 2, change.shape[0], 64 // weights.itemsize)
    for j in range(moved.size):
        moved[j] = 0
    for i in range(chosen.size):
        b = chosen[i]
        overlap = 1 + np.float64(dot(deepest[b], mean_rates))
        for j in range(moved.size):
            moved[j] += overlap * change[b, j] / (rows * beta)


@jit
def mean_velocity(net: Any, velocity: Any, mean_rates: Array, moved: Array) -> None:
    """moved_j = (h @ V_W + V_b)_j of the output, h the mean rates below it."""
    weights, shapes = net[0], net[1]
    last, wide = shapes.shape[0] - 1, 64 // weights.itemsize
    panels, bias = matrix(velocity[0], shapes, last), first_unit(shapes, last, wide)
    for j in range(moved.size):
        moved[j] = velocity[2][bias + j]
        for k in range(shapes[last, 1]):
            moved[j] += np.float64(mean_rates[k]) * panels[j // wide, k, j % wide]


@jit
def add_scaled(into: Array, factor: float, other: Array, rate: float, low: int, high: int) -> None:
    """into <- factor into + rate other, from `low` to `high`, in place."""
    keep, gain = into.dtype.type(factor), into.dtype.type(rate)
    for i in range(low, high):
        into[i] = keep * into[i] + gain * other[i]


@jit
def shrink(into: Array, factor: float, low: int, high: int) -> None:
    """into <- factor into, from `low` to `high`, in place."""
    keep = into.dtype.type(factor)
    for i in range(low, high):
        into[i] *= keep


@jit
def add_rows(biases: Array, first: int, change: Array, chosen: Array, scale: float, low: int, high: int) -> None:
    """biases[c] += scale sum_b change[b, c - first], low <= c < high."""
    gain = biases.dtype.type(scale)
    for i in range(chosen.size):
        row = change[chosen[i]]
        for c in range(low, high):
            biases[c] += gain * row[c - first]


@jit
def add_to_loop(loop: Array, y: Array, change: Array, chosen: Array, scale: float, low: int, high: int) -> None:
    """loop[j, c] += scale sum_b y[b, j] change[b, c], low <= c < high."""
    for i in range(chosen.size):
        b = chosen[i]
        row = change[b]
        for j in range(loop.shape[0]):
            if y[b, j] != 0:
                gain, into = loop.dtype.type(scale * y[b, j]), loop[j]
                for c in range(low, high):
                    into[c] += gain * row[c]


@jit
def part(shapes: Array, k: int, wide: int, me: int, all: int) -> tuple[int, int]:
    """My part of the matrix into layer k, as places of the flat weights; whole rows of panels."""
    low, high = share(shapes[k, 1] * shapes[k, 2], me, all)
    return shapes[k, 0] + low * wide, shapes[k, 0] + high * wide


@jit
def bias_part(shapes: Array, k: int, wide: int, me: int, all: int) -> tuple[int, int]:
    """My part of the biases of layer k, as places of all biases."""
    low, high = share(shapes[k, 2] * wide, me, all)
    begin = first_unit(shapes, k, wide)
    return begin + low, begin + high


@jit
def prepare_weights(me: int, all: int, net: Any, velocity: Any, teaching: Any, lr: Array) -> None:
    """W <- (1 - lr decay) W, V <- mu V (my part)."""
    weights, shapes, loop, _, _ = net
    momentum, decay, wide = teaching[6], teaching[7], 64 // weights.itemsize
    for k in range(shapes.shape[0]):
        low, high = part(shapes, k, wide, me, all)
        if decay > 0:
            shrink(weights, 1 - lr[k] * decay, low, high)
        if momentum > 0:
            shrink(velocity[0], momentum, low, high)
            begin, end = bias_part(shapes, k, wide, me, all)
            shrink(velocity[2], momentum, begin, end)
    low, high = share(loop.shape[1], me, all)
    for j in range(loop.shape[0]):
        if decay > 0:
            shrink(loop[j], 1 - lr[-1] * decay, low, high)
        if momentum > 0:
            shrink(velocity[1][j], momentum, low, high)


@jit
def apply_velocity(me: int, all: int, net: Any, velocity: Any, lr: Array, bias_lr: Array) -> None:
    """W <- W + lr V (my part)."""
    weights, shapes, loop, biases, _ = net
    wide = 64 // weights.itemsize
    for k in range(shapes.shape[0]):
        low, high = part(shapes, k, wide, me, all)
        add_scaled(weights, 1.0, velocity[0], lr[k], low, high)
        low, high = bias_part(shapes, k, wide, me, all)
        add_scaled(biases, 1.0, velocity[2], bias_lr[k], low, high)
    low, high = share(loop.shape[1], me, all)
    for j in range(loop.shape[0]):
        add_scaled(loop[j], 1.0, velocity[1][j], lr[-1], low, high)


@jit
def accumulate(
    me: int, all: int, into: Any, net: Any, images: Array, image_rows: Array, free: Any, pulled: Any, chosen: Array, scales: Array, bias_scales: Array, scale: float
) -> None:  # fmt: skip
    """into += scale scales[.] (sum of eq. 14 over the samples `chosen`), for every matrix and bias (my part)."""
    shapes, wide = net[1], 64 // net[0].itemsize
    capacity, layers = pulled[1][0].shape[0], shapes.shape[0]
    for k in range(layers):
        change = pulled[1][2] if k == layers - 1 else layer(pulled[0], shapes, k, capacity, wide)
        low, high = share(shapes[k, 1] * shapes[k, 2], me, all)
        if k == 0 and scales[0] != 0:
            add_outer(images, image_rows, change, chosen, scale * scales[0], matrix(into[0], shapes, 0), low, high)
        elif scales[k] != 0:
            add_outer(layer(free[0], shapes, k - 1, capacity, wide), chosen, change, chosen, scale * scales[k], matrix(into[0], shapes, k), low, high)
        if bias_scales[k] != 0:
            low, high = bias_part(shapes, k, wide, me, all)
            add_rows(into[2], first_unit(shapes, k, wide), change, chosen, scale * bias_scales[k], low, high)
    if scales[layers] != 0:
        change = layer(pulled[0], shapes, 0, capacity, wide)
        low, high = share(change.shape[1], me, all)
        add_to_loop(into[1], free[1][0], change, chosen, scale * scales[layers], low, high)


@jit
def learn(me: int, all: int, counters: Array, net: Any, data: Any, free: Any, pulled: Any, pushed: Any, teaching: Any, velocity: Any, work: Any, first: int, rows: int, beta: float) -> None:
    """One step of the optimiser from the phases of a batch (my part of every weight)."""
    _, centred, eta, bias_eta, _, output_step, momentum, _ = teaching
    plain, bias_plain = np.sign(eta), np.sign(bias_eta)
    chosen, image_rows, lr, bias_lr, moved = work[7][me], work[8][me], work[9][me], work[10][me], work[11][me]
    count = choose(data, pulled, pushed, centred, first, rows, chosen, image_rows)
    chosen, image_rows = chosen[:count], image_rows[:count]
    image_norm = 0.0
    for b in range(rows):
        image_norm += data[2][first + b] / rows
    learning_rates(teaching, work[4], image_norm, rows, lr, bias_lr)
    prepare_weights(me, all, net, velocity, teaching, lr)
    if momentum == 0:
        if count > 0:
            if output_step > 0:
                mean_move(net, free, pulled[1][2], work[5], chosen, rows, beta, moved)
                limit_output(moved, output_step, lr, bias_lr)
            accumulate(me, all, (net[0], net[2], net[3]), net, data[0], image_rows, free, pulled, chosen, lr, bias_lr, 1 / (rows * beta))
        return
    if count > 0:
        accumulate(me, all, velocity, net, data[0], image_rows, free, pulled, chosen, plain, bias_plain, 1 / (rows * beta))
    meet(all, counters)
    if output_step > 0:
        mean_velocity(net, velocity, work[5], moved)
        limit_output(moved, output_step, lr, bias_lr)
    apply_velocity(me, all, net, velocity, lr, bias_lr)


@jit
def remember(data: Any, memory: Any, free: Any, pulled: Any, first: int, rows: int) -> None:
    """The free outputs of each sample for its next visit, and what the nudge taught of the mean loop Jacobian."""
    outputs, slope, moments, products = memory
    n, learned = slope.shape[0], False
    for b in range(rows):
        for j in range(n):
            outputs[data[4][first + b], j] = free[1][0][b, j]
        if pulled[2][2][b] == RESTING and pulled[2][1][b] > 0:
            if not learned:
                moments *= FORGET
                products *= FORGET
                learned = True
            for i in range(n):
                dy = np.float64(pulled[1][0][b, i]) - free[1][0][b, i]
                if dy != 0:
                    for j in range(n):
                        moments[i, j] += dy * (np.float64(pulled[1][0][b, j]) - free[1][0][b, j])
                        products[i, j] += dy * (np.float64(pulled[1][1][b, j]) - free[1][1][b, j])
    if learned:
        mean_slope(moments, products, slope)


@jit
def count_batch(data: Any, free: Any, pulled: Any, pushed: Any, centred: bool, first: int, rows: int, n: int, count: Array, strongest: Array) -> None:
    """Add a batch to the sums of the report."""
    for b in range(rows):
        y = free[1][0][b]
        best = 0
        for j in range(n):
            strongest[j] = max(strongest[j], y[j])
            if y[j] > y[best]:
                best = j
        count[0] += 1
        count[1] += best != data[3][first + b]
        count[2] += free[2][0][b]
        count[3] = max(count[3], free[2][0][b])
        count[4] += free[2][1][b]
        count[7] += free[2][2][b] != RESTING
        if pulled[2][2][b] >= RESTING:
            count[5] += 1
            count[6] += pulled[2][1][b]
            count[7] += not learns(pulled, pushed, centred, b)


@jit
def one_phase(me: int, all: int, counters: Array, net: Any, phase: Any, beta: float, rule: Any, work: Any) -> None:
    """Bring the samples of a phase to rest."""
    states, ways, tallies, best, pace = phase
    come_to_rest(me, all, counters, net, work[0], states, ways, tallies, best, pace, beta, work[1], rule, work[2], work[3])


@jit
def pause(me: int, cursor: Array, batch: int, stage: int, why: int) -> None:
    """Give the work back; `stage` is where to go on."""
    if me == 0:
        cursor[0], cursor[1], cursor[2] = batch, stage, why


@entry
def learn_batches(
    me: int, all: int, counters: Array, net: Any, data: Any, memory: Any, free: Any, pulled: Any, pushed: Any, teaching: Any, velocity: Any,
    work: Any, rule: Any, count: Array, strongest: Array, cursor: Array,
) -> None:  # fmt: skip
    """Every batch from where the cursor stands; gives back early, before anything is learned, where a sample needs attention.

    Stages of a batch: 0 the free phase, 1 the pulled one, 2 the pushed one (centred), 3 learning.
    """
    betas, centred = teaching[0], teaching[1]
    samples, capacity, n = data[1].size, work[0].shape[0], net[2].shape[0]
    stage, start = cursor[1], cursor[0]
    meet(all, counters)
    for batch in range(start, betas.size):
        first, beta = batch * capacity, betas[batch]
        rows = min(capacity, samples - first)
        if stage <= 0:
            begin_batch(me, all, net, data, memory, free, work, first, rows)
            meet(all, counters)
            one_phase(me, all, counters, net, free, 0.0, rule, work)
            if needs_attention(free):
                return pause(me, cursor, batch, 1, FREE)
        if stage <= 1:
            begin_nudge(me, all, net, free, pulled, work, beta, rule, rows)
            meet(all, counters)
            one_phase(me, all, counters, net, pulled, beta, rule, work)
            if needs_attention(pulled):
                return pause(me, cursor, batch, 2, PULLED)
        if stage <= 2 and centred:
            begin_nudge(me, all, net, free, pushed, work, -beta, rule, rows)
            meet(all, counters)
            one_phase(me, all, counters, net, pushed, -beta, rule, work)
            if needs_attention(pushed):
                return pause(me, cursor, batch, 3, PUSHED)
        stage = 0
        if me == 0:
            remember(data, memory, free, pulled, first, rows)
            count_batch(data, free, pulled, pushed, centred, first, rows, n, count, strongest)
        contrast(me, all, net, free, pulled, pushed, centred, work, rows)
        meet(all, counters)
        learn(me, all, counters, net, data, free, pulled, pushed, teaching, velocity, work, first, rows, beta)
        meet(all, counters)
    return pause(me, cursor, betas.size, 0, DONE)
