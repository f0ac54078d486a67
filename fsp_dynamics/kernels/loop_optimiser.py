"""One step of the optimiser of a loop, in place, every thread its part of the weights: eq. 14 with
the learning rates of `learning.optimisers.Sgd`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fsp_dynamics.kernels.field import Array, apart, bare, dot
from fsp_dynamics.kernels.loop_arrays import (
    ALL_ROWS,
    BASE_Y,
    CHOSEN,
    IMAGES,
    LoopBuffers,
    LoopNet,
    LoopScratch,
    Y,
    first_unit,
    layer,
    matrix,
)
from fsp_dynamics.kernels.loop_phases import FREE, POSITIVE, LoopData, learns
from fsp_dynamics.kernels.loop_weights import add_rows, add_scaled, add_to_loop, bias_part, part, shrink, sum_rows
from fsp_dynamics.kernels.panels import add_outer, add_outer_used, find_used
from fsp_dynamics.kernels.team import barrier, partition
from fsp_dynamics.kernels.tiles import OUTER_ROWS

# rows of LoopScratch.learning_rates: the rates of the matrix into each layer (last the loop) and of
# each bias; the change of each output's mean input at a learning rate of 1
LR, BIAS_LR, MOVE = 0, 1, 2


class LearningSettings(NamedTuple):
    """What the optimiser is asked to do.

    betas : beta of each batch. eta (2, L + 1) : learning rates of each matrix into a layer (last
        the loop) and of each bias; 0 where nothing learns. shares (2,) : those of the matrix into
        the output and of its bias in units of the larger one (`Sgd.output_shares`).
    centred : two nudged phases.
    normalised, output_step, momentum, decay : as in `learning.optimisers.Sgd`.
    mean_subtracted : whether presynaptic rates enter as deviations from their mean.
    """

    betas: Array
    eta: Array
    shares: Array
    centred: bool
    normalised: bool
    output_step: float
    momentum: float
    decay: float
    mean_subtracted: bool


class LoopVelocity(NamedTuple):
    """Arrays laid out as those of `LoopNet`, to which updates are added: the velocity of momentum,
    or the weights themselves. Kernels get None without momentum, and have no code for it then.
    """

    weights: Array
    loop: Array
    biases: Array


@bare
def choose(
    data: LoopData, buffers: LoopBuffers, centred: bool, first: int, rows: int, chosen: Array, places: Array
) -> int:
    """chosen <- the samples to learn from, places <- their rows among the images; how many they
    are.
    """
    count = 0
    for b in range(rows):
        if learns(buffers, centred, b):
            chosen[count], places[count] = b, data.places[first + b]
            count += 1
    return count


@apart
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
def limit_output(rates: Array, n: int, output_step: float, last: int, shares: Array) -> None:
    """Lower the rates into the output, layer `last`, where its mean input would change by more
    than output_step.
    """
    largest = 0.0
    for j in range(n):
        largest = max(largest, abs(rates[MOVE, j]))
    for kind in (LR, BIAS_LR):
        if rates[kind, last] * largest > shares[kind] * output_step:
            rates[kind, last] = shares[kind] * output_step / largest


@apart
def mean_move(
    net: LoopNet,
    buffers: LoopBuffers,
    mean_rates: Array,
    chosen: Array,
    rows: int,
    beta: float,
    mean_subtracted: bool,
    shares: Array,
    moved: Array,
) -> None:
    """moved_j = 1/B sum_b (a_b + a_W h_b . h) change_bj / beta, h_b the rates below the output
    (`mean_subtracted`: their deviations from the mean over b), h their mean, (a_W, a_b) the shares.
    """
    shapes, n, change = net.shapes, net.loop.shape[0], buffers.outputs[POSITIVE, BASE_Y]
    deepest = layer(buffers.states[FREE], shapes, shapes.shape[0] - 2, change.shape[0])
    common = 0.0
    if mean_subtracted:
        for i in range(chosen.size):
            common += np.float64(dot(deepest[chosen[i]], mean_rates)) / chosen.size
    for j in range(n):
        moved[j] = 0
    for i in range(chosen.size):
        b = chosen[i]
        overlap = shares[BIAS_LR] + shares[LR] * np.float64(dot(deepest[b], mean_rates)) - shares[LR] * common
        for j in range(n):
            moved[j] += overlap * change[b, j] / (rows * beta)


@apart
def mean_velocity(net: LoopNet, velocity: LoopVelocity, mean_rates: Array, shares: Array, moved: Array) -> None:
    """moved_j = (a_W h @ V_W + a_b V_b)_j of the output, h the mean rates below it, (a_W, a_b) the
    shares.
    """
    shapes, n = net.shapes, net.loop.shape[0]
    last, wide = shapes.shape[0] - 1, 64 // mean_rates.itemsize
    panels, bias = matrix(velocity.weights, shapes, last), first_unit(shapes, last, wide)
    for j in range(n):
        moved[j] = shares[BIAS_LR] * velocity.biases[bias + j]
        for k in range(shapes[last, 1]):
            moved[j] += shares[LR] * np.float64(mean_rates[k]) * panels[j // wide, k, j % wide]


@apart
def prepare_weights(
    thread: int, threads: int, net: LoopNet, velocity: LoopVelocity | None, momentum: float, decay: float, lr: Array
) -> None:
    """W <- (1 - lr decay) W, V <- mu V (this thread's part)."""
    shapes, loop = net.shapes, net.loop
    wide, layers = 64 // net.weights.itemsize, shapes.shape[0]
    for k in range(layers):
        low, high = part(shapes, k, wide, thread, threads)
        if decay > 0:
            shrink(net.weights, 1 - lr[k] * decay, low, high)
        if velocity is not None:
            shrink(velocity.weights, momentum, low, high)
            begin, end = bias_part(shapes, k, wide, thread, threads)
            shrink(velocity.biases, momentum, begin, end)
    low, high = partition(loop.shape[1], thread, threads)
    for j in range(loop.shape[0]):
        if decay > 0:
            shrink(loop[j], 1 - lr[layers] * decay, low, high)
        if velocity is not None:
            shrink(velocity.loop[j], momentum, low, high)


@apart
def apply_velocity(thread: int, threads: int, net: LoopNet, velocity: LoopVelocity, rates: Array) -> None:
    """W <- W + lr V (this thread's part)."""
    shapes, loop = net.shapes, net.loop
    wide = 64 // net.weights.itemsize
    for k in range(shapes.shape[0]):
        low, high = part(shapes, k, wide, thread, threads)
        add_scaled(net.weights, 1.0, velocity.weights, rates[LR, k], low, high)
        low, high = bias_part(shapes, k, wide, thread, threads)
        add_scaled(net.biases, 1.0, velocity.biases, rates[BIAS_LR, k], low, high)
    low, high = partition(loop.shape[1], thread, threads)
    for j in range(loop.shape[0]):
        add_scaled(loop[j], 1.0, velocity.loop[j], rates[LR, shapes.shape[0]], low, high)


@apart
def add_matrix(
    thread: int,
    threads: int,
    k: int,
    panels: Array,
    data: LoopData,
    buffers: LoopBuffers,
    scratch: LoopScratch,
    shapes: Array,
    change: Array,
    chosen: Array,
    places: Array,
    gain: float,
    mean_subtracted: bool,
) -> None:
    """panels += gain times eq. 14 of the matrix into layer k, summed over the samples `chosen`
    (this thread's part).
    """
    pair, one = scratch.layer_pairs[thread], scratch.lists[thread, ALL_ROWS][:1]
    low, high = partition(shapes[k, 1] * shapes[k, 2], thread, threads)
    if k == 0:
        pixels, counts = scratch.pixels[thread], scratch.pixel_counts[thread]
        find_used(data.images, places, shapes[0, 1], OUTER_ROWS, pixels, counts)
        add_outer_used(data.images, places, change, chosen, gain, panels, low, high, pixels, counts)
        if mean_subtracted:
            sum_rows(data.images, places, change, chosen, pair)
    else:
        below = layer(buffers.states[FREE], shapes, k - 1, buffers.outputs.shape[2])
        add_outer(below, chosen, change, chosen, gain, panels, low, high)
        if mean_subtracted:
            sum_rows(below, chosen, change, chosen, pair)
    if mean_subtracted:
        add_outer(pair[:1], one, pair[1:], one, gain, panels, low, high)


@apart
def accumulate(
    thread: int,
    threads: int,
    into: LoopVelocity,
    shapes: Array,
    data: LoopData,
    buffers: LoopBuffers,
    scratch: LoopScratch,
    chosen: Array,
    places: Array,
    rates: Array,
    plain: bool,
    scale: float,
    mean_subtracted: bool,
) -> None:
    """into += scale lr (eq. 14 summed over the samples `chosen`), for every matrix and bias that
    learns (this thread's part); `plain`: without lr.

    mean_subtracted : sum_b (x_b - mean x) change_b, which is sum_b x_b change_b - (mean x) sum_b
    change_b, one more row.
    """
    states, outputs = buffers.states, buffers.outputs
    wide, capacity, layers = 64 // into.weights.itemsize, outputs.shape[2], shapes.shape[0]
    for k in range(layers):
        change = outputs[POSITIVE, BASE_Y] if k == layers - 1 else layer(states[POSITIVE], shapes, k, capacity)
        if rates[LR, k] != 0:
            gain, panels = scale * (1.0 if plain else rates[LR, k]), matrix(into.weights, shapes, k)
            add_matrix(
                thread,
                threads,
                k,
                panels,
                data,
                buffers,
                scratch,
                shapes,
                change,
                chosen,
                places,
                gain,
                mean_subtracted,
            )
        if rates[BIAS_LR, k] != 0:
            low, high = bias_part(shapes, k, wide, thread, threads)
            gain = scale * (1.0 if plain else rates[BIAS_LR, k])
            add_rows(into.biases, first_unit(shapes, k, wide), change, chosen, gain, low, high)
    if rates[LR, layers] != 0:
        change = layer(states[POSITIVE], shapes, 0, capacity)
        low, high = partition(change.shape[1], thread, threads)
        gain = scale * (1.0 if plain else rates[LR, layers])
        add_to_loop(into.loop, outputs[FREE, Y], change, chosen, gain, low, high)
        if mean_subtracted:
            pair, one = scratch.layer_pairs[thread], scratch.lists[thread, ALL_ROWS][:1]
            sum_rows(outputs[FREE, Y], chosen, change, chosen, pair)
            add_to_loop(into.loop, pair[:1], pair[1:], one, gain, low, high)


@apart
def learn(
    thread: int,
    threads: int,
    counters: Array,
    net: LoopNet,
    data: LoopData,
    buffers: LoopBuffers,
    settings: LearningSettings,
    velocity: LoopVelocity | None,
    scratch: LoopScratch,
    first: int,
    rows: int,
    beta: float,
) -> None:
    """One step of the optimiser from the phases of a batch (this thread's part of every weight)."""
    shapes, momentum, output_step, mean_rates = net.shapes, settings.momentum, settings.output_step, scratch.mean_rates
    chosen, places = scratch.lists[thread, CHOSEN], scratch.lists[thread, IMAGES]
    rates, n, last = scratch.learning_rates[thread], net.loop.shape[0], shapes.shape[0] - 1
    shares = settings.shares
    count = choose(data, buffers, settings.centred, first, rows, chosen, places)
    image_norm = 0.0
    for b in range(rows):
        image_norm += data.norms[first + b] / rows
    learning_rates(settings.eta, settings.normalised, scratch.norms, image_norm, rows, rates)
    prepare_weights(thread, threads, net, velocity, momentum, settings.decay, rates[LR])
    if velocity is None and count > 0 and output_step > 0:
        mean_move(
            net, buffers, mean_rates, chosen[:count], rows, beta, settings.mean_subtracted, shares, rates[MOVE]
        )  # fmt: skip
        limit_output(rates, n, output_step, last, shares)
    if count > 0:
        into = LoopVelocity(net.weights, net.loop, net.biases) if velocity is None else velocity
        accumulate(
            thread,
            threads,
            into,
            shapes,
            data,
            buffers,
            scratch,
            chosen[:count],
            places[:count],
            rates,
            velocity is not None,
            1 / (rows * beta),
            settings.mean_subtracted,
        )
    if velocity is not None:
        barrier(threads, counters)
        if output_step > 0:
            mean_velocity(net, velocity, mean_rates, shares, rates[MOVE])
            limit_output(rates, n, output_step, last, shares)
        apply_velocity(thread, threads, net, velocity, rates)
