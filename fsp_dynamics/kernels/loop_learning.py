"""Batch after batch of a loop with a hard sigmoid, walked by a team: both phases, eq. 14, the
weights changed in place.

Beside what kernels/loop_relaxation.py and kernels/loop_phases.py are given, as tuples:

    work       as there, and rates (members, 3, .) of each member's own: LR of the matrix into each layer, the loop's last, BIAS_LR of each bias, and
               how far a learning rate of 1 would MOVE the mean input of each output
    teaching   (betas, eta, centred, normalised, output_step, momentum, decay, deviation): beta of each batch; eta (2, L + 1) of each matrix into a
               layer, the loop's last, and of each bias; 0 where nothing learns; whether
               presynaptic rates enter as deviations from their mean
    velocity   (weights, loop, biases) laid out as in net; of no size without momentum
    report     (count, strongest): sums in the order of COUNTED; the largest rate of each output (n_L,)
    ranks      (rank, how many): which part of each batch is mine to bring to convergence
    cursor     (batch, stage, phase): where the work stands; the phase whose samples need attention, TELL where the ranks have to tell each other
               what they found, or DONE

The same in plain words: `learning.phases.run` and `learning.optimisers.Sgd.step`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fsp_dynamics.kernels.field import Array, bare, dot, entry
from fsp_dynamics.kernels.loop_phases import (
    CLASS,
    FREE,
    PLACE,
    POSITIVE,
    begin_batch,
    begin_nudge,
    contrast,
    learns,
    mean_below,
    needs_recovery,
    remember,
)  # fmt: skip
from fsp_dynamics.kernels.loop_relaxation import (
    BASE_Y,
    CHOSEN,
    CONVERGED,
    EVERYONE,
    IMAGES,
    PASSES,
    RESIDUAL,
    STATUS,
    Y,
    come_to_rest,
    first_unit,
    layer,
    matrix,
)
from fsp_dynamics.kernels.loop_weights import add_rows, add_scaled, add_to_loop, bias_part, part, shrink, sum_rows
from fsp_dynamics.kernels.panels import add_outer, add_outer_used, find_used
from fsp_dynamics.kernels.team import barrier, partition
from fsp_dynamics.kernels.tiles import ROWS

COUNTED = ("samples", "wrong", "residual", "residual_max", "passes_free", "nudged", "passes_nudged", "unconverged")
SAMPLES, WRONG, SUM, MOST, PASSES_FREE, NUDGED, PASSES_NUDGED, UNCONVERGED = range(len(COUNTED))
LR, BIAS_LR, MOVE = 0, 1, 2
DONE, TELL = -1, -2
TOLD = 4  # the stage in which a batch has converged in all ranks


@bare
def choose(data: Any, room: Any, centred: bool, first: int, rows: int, chosen: Array, images: Array) -> int:
    """chosen <- the samples to learn from, images <- their places among the images; how many they
    are.
    """
    count = 0
    for b in range(rows):
        if learns(room, centred, b):
            chosen[count], images[count] = b, data[1][PLACE, first + b]
            count += 1
    return count


@bare
def learning_rates(eta: Array, normalised: bool, norms: Array, image_norm: float, rows: int, rates: Array) -> None:
    """lr = eta / (1 + mean_B ||rho(s_pre^0)||^2) of each matrix into a layer, of the loop (last),
    and of each bias.
    """
    for k in range(eta.shape[1]):
        size = 0.0
        if normalised:
            for b in range(rows):
                size += norms[b, k - 1] if k > 0 else 0.0
            size = image_norm if k == 0 else size / rows
        rates[LR, k], rates[BIAS_LR, k] = eta[0, k] / (1 + size), eta[1, k] / (1 + size)


@bare
def limit_output(rates: Array, n: int, output_step: float, last: int) -> None:
    """Lower the rates into the output, layer `last`, where its mean input would move by more than
    output_step.
    """
    largest = 0.0
    for j in range(n):
        largest = max(largest, abs(rates[MOVE, j]))
    for kind in (LR, BIAS_LR):
        if rates[kind, last] * largest > output_step:
            rates[kind, last] = output_step / largest


@bare
def mean_move(
    net: Any, room: Any, mean_rates: Array, chosen: Array, rows: int, beta: float, deviation: bool, moved: Array
) -> None:
    """moved_j = 1/B sum_b (1 + h_b . h) change_bj / beta, h_b the rates below the output
    (`deviation`: from their mean over b) and h their mean.
    """
    shapes, n, change = net[1], net[2].shape[0], room[1][POSITIVE, BASE_Y]
    deepest = layer(room[0][FREE], shapes, shapes.shape[0] - 2, change.shape[0])
    common = 0.0
    if deviation:
        for i in range(chosen.size):
            common += np.float64(dot(deepest[chosen[i]], mean_rates)) / chosen.size
    for j in range(n):
        moved[j] = 0
    for i in range(chosen.size):
        b = chosen[i]
        overlap = 1 + np.float64(dot(deepest[b], mean_rates)) - common
        for j in range(n):
            moved[j] += overlap * change[b, j] / (rows * beta)


@bare
def mean_velocity(net: Any, velocity: Any, mean_rates: Array, moved: Array) -> None:
    """moved_j = (h @ V_W + V_b)_j of the output, h the mean rates below it."""
    shapes, n = net[1], net[2].shape[0]
    last, wide = shapes.shape[0] - 1, 64 // mean_rates.itemsize
    panels, bias = matrix(velocity[0], shapes, last), first_unit(shapes, last, wide)
    for j in range(n):
        moved[j] = velocity[2][bias + j]
        for k in range(shapes[last, 1]):
            moved[j] += np.float64(mean_rates[k]) * panels[j // wide, k, j % wide]


@bare
def prepare_weights(me: int, all: int, net: Any, velocity: Any, momentum: float, decay: float, lr: Array) -> None:
    """W <- (1 - lr decay) W, V <- mu V (my part)."""
    weights, shapes, loop, _, _ = net
    wide, layers = 64 // weights.itemsize, shapes.shape[0]
    for k in range(layers):
        low, high = part(shapes, k, wide, me, all)
        if decay > 0:
            shrink(weights, 1 - lr[k] * decay, low, high)
        if momentum > 0:
            shrink(velocity[0], momentum, low, high)
            begin, end = bias_part(shapes, k, wide, me, all)
            shrink(velocity[2], momentum, begin, end)
    low, high = partition(loop.shape[1], me, all)
    for j in range(loop.shape[0]):
        if decay > 0:
            shrink(loop[j], 1 - lr[layers] * decay, low, high)
        if momentum > 0:
            shrink(velocity[1][j], momentum, low, high)


@bare
def apply_velocity(me: int, all: int, net: Any, velocity: Any, rates: Array) -> None:
    """W <- W + lr V (my part)."""
    weights, shapes, loop, biases, _ = net
    wide = 64 // weights.itemsize
    for k in range(shapes.shape[0]):
        low, high = part(shapes, k, wide, me, all)
        add_scaled(weights, 1.0, velocity[0], rates[LR, k], low, high)
        low, high = bias_part(shapes, k, wide, me, all)
        add_scaled(biases, 1.0, velocity[2], rates[BIAS_LR, k], low, high)
    low, high = partition(loop.shape[1], me, all)
    for j in range(loop.shape[0]):
        add_scaled(loop[j], 1.0, velocity[1][j], rates[LR, shapes.shape[0]], low, high)


@bare
def accumulate(
    me: int, all: int, into: Any, net: Any, data: Any, room: Any, work: Any, chosen: Array, images: Array, rates: Array, plain: bool, scale: float,
    deviation: bool,
) -> None:  # fmt: skip
    """into += scale lr (eq. 14 summed over the samples `chosen`), for every matrix and bias that
    learns (my part); `plain`: without lr.

    deviation : sum_b (x_b - mean x) change_b, which is sum_b x_b change_b - (mean x) sum_b
    change_b, one more row.
    """
    shapes, states, ways = net[1], room[0], room[1]
    wide, capacity, layers = 64 // net[0].itemsize, ways.shape[2], shapes.shape[0]
    pair, one = work[11][me], work[4][me, EVERYONE][:1]
    for k in range(layers):
        change = ways[POSITIVE, BASE_Y] if k == layers - 1 else layer(states[POSITIVE], shapes, k, capacity)
        if rates[LR, k] != 0:
            low, high = partition(shapes[k, 1] * shapes[k, 2], me, all)
            gain, panels = scale * (1.0 if plain else rates[LR, k]), matrix(into[0], shapes, k)
            if k == 0:
                find_used(data[0], images, shapes[0, 1], ROWS, work[9][me], work[10][me])
                add_outer_used(data[0], images, change, chosen, gain, panels, low, high, work[9][me], work[10][me])
                if deviation:
                    sum_rows(data[0], images, change, chosen, pair)
            else:
                below = layer(states[FREE], shapes, k - 1, capacity)
                add_outer(below, chosen, change, chosen, gain, panels, low, high)
                if deviation:
                    sum_rows(below, chosen, change, chosen, pair)
            if deviation:
                add_outer(pair[:1], one, pair[1:], one, gain, panels, low, high)
        if rates[BIAS_LR, k] != 0:
            low, high = bias_part(shapes, k, wide, me, all)
            add_rows(
                into[2],
                first_unit(shapes, k, wide),
                change,
                chosen,
                scale * (1.0 if plain else rates[BIAS_LR, k]),
                low,
                high,
            )
    if rates[LR, layers] != 0:
        change = layer(states[POSITIVE], shapes, 0, capacity)
        low, high = partition(change.shape[1], me, all)
        gain = scale * (1.0 if plain else rates[LR, layers])
        add_to_loop(into[1], ways[FREE, Y], change, chosen, gain, low, high)
        if deviation:
            sum_rows(ways[FREE, Y], chosen, change, chosen, pair)
            add_to_loop(into[1], pair[:1], pair[1:], one, gain, low, high)


@bare
def learn(
    me: int, all: int, counters: Array, net: Any, data: Any, room: Any, teaching: Any, velocity: Any, work: Any, first: int, rows: int, beta: float
) -> None:  # fmt: skip
    """One step of the optimiser from the phases of a batch (my part of every weight)."""
    _, eta, centred, normalised, output_step, momentum, decay, deviation = teaching
    chosen, images, mean_rates, rates = work[4][me, CHOSEN], work[4][me, IMAGES], work[3], work[7][me]
    n, last = net[2].shape[0], net[1].shape[0] - 1
    count = choose(data, room, centred, first, rows, chosen, images)
    image_norm = 0.0
    for b in range(rows):
        image_norm += data[2][first + b] / rows
    learning_rates(eta, normalised, work[2], image_norm, rows, rates)
    prepare_weights(me, all, net, velocity, momentum, decay, rates[LR])
    if count > 0 and momentum == 0 and output_step > 0:
        mean_move(net, room, mean_rates, chosen[:count], rows, beta, deviation, rates[MOVE])
        limit_output(rates, n, output_step, last)
    if count > 0:
        into = velocity if momentum > 0 else (net[0], net[2], net[3])
        accumulate(
            me,
            all,
            into,
            net,
            data,
            room,
            work,
            chosen[:count],
            images[:count],
            rates,
            momentum > 0,
            1 / (rows * beta),
            deviation,
        )
    if momentum > 0:
        barrier(all, counters)
        if output_step > 0:
            mean_velocity(net, velocity, mean_rates, rates[MOVE])
            limit_output(rates, n, output_step, last)
        apply_velocity(me, all, net, velocity, rates)


@bare
def count_batch(data: Any, room: Any, centred: bool, first: int, rows: int, n: int, report: Any) -> None:
    """Add a batch to the sums of the report."""
    count, strongest = report
    marks, statistics = room[3], room[4]
    for b in range(rows):
        y, best = room[1][FREE, Y, b], 0
        for j in range(n):
            strongest[j] = max(strongest[j], y[j])
            if y[j] > y[best]:
                best = j
        count[SAMPLES] += 1
        count[WRONG] += best != data[1][CLASS, first + b]
        count[SUM] += marks[FREE, RESIDUAL, b]
        count[MOST] = max(count[MOST], marks[FREE, RESIDUAL, b])
        count[PASSES_FREE] += statistics[FREE, PASSES, b]
        count[UNCONVERGED] += statistics[FREE, STATUS, b] != CONVERGED
        if statistics[POSITIVE, STATUS, b] >= CONVERGED:
            count[NUDGED] += 1
            count[PASSES_NUDGED] += statistics[POSITIVE, PASSES, b]
            count[UNCONVERGED] += not learns(room, centred, b)


@bare
def pause(me: int, cursor: Array, batch: int, stage: int, phase: int) -> None:
    """Give the work back; `stage` is where to go on."""
    if me == 0:
        cursor[0], cursor[1], cursor[2] = batch, stage, phase


@entry
def learn_batches(
    me: int, all: int, counters: Array, net: Any, data: Any, memory: Any, room: Any, teaching: Any, velocity: Any, work: Any, rule: Any,
    report: Any, ranks: Any, cursor: Array,
) -> None:  # fmt: skip
    """Every batch from where the cursor stands; gives back before learning where a sample needs
    attention or ranks tell each other.

    The stages of a batch are its phases, FREE, POSITIVE and (centred) NEGATIVE, and then learning
    from them.
    """
    betas, centred = teaching[0], teaching[2]
    samples, capacity, n = data[1].shape[1], work[0].shape[0], net[2].shape[0]
    start, stage = cursor[0], cursor[1]
    barrier(all, counters)
    for batch in range(start, betas.size):
        first = batch * capacity
        rows = min(capacity, samples - first)
        mine = partition(rows, ranks[0], ranks[1])
        for phase in range(stage, 3 if centred else 2):
            beta = 0.0 if phase == FREE else betas[batch] if phase == POSITIVE else -betas[batch]
            if phase == FREE:
                begin_batch(me, all, net, data, memory, room, work, first, mine)
            else:
                begin_nudge(me, all, net, room, work, phase, beta, rule, rows)
            barrier(all, counters)
            come_to_rest(me, all, counters, net, room, work, phase, beta, rule)
            if needs_recovery(room[4][phase]):
                return pause(me, cursor, batch, phase + 1, phase)
        if stage != TOLD:
            contrast(me, all, net, room, work, centred, mine)
            if ranks[1] > 1:
                barrier(all, counters)
                return pause(me, cursor, batch, TOLD, TELL)
        stage = 0
        if me == 0:
            remember(data, memory, room, work[8][me], first, rows)
            count_batch(data, room, centred, first, rows, n, report)
        mean_below(me, all, net, room, work, rows)
        barrier(all, counters)
        learn(me, all, counters, net, data, room, teaching, velocity, work, first, rows, betas[batch])
        barrier(all, counters)
    return pause(me, cursor, betas.size, 0, DONE)
