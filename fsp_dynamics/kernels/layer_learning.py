"""Learning of a reciprocal network, batch by batch: the drive from the images, and eq. 14 added to
the weights in their panels.

Every thread has its own part of every matrix: no barriers. Arrays as in
kernels/layer_relaxation.py.
"""

from __future__ import annotations

from typing import NamedTuple

from fsp_dynamics.kernels.field import Array, entry, inner
from fsp_dynamics.kernels.layer_relaxation import LayerNet, layer, matrix
from fsp_dynamics.kernels.panels import USED_ROWS, add_outer, add_outer_used, find_used, multiply_used
from fsp_dynamics.kernels.team import partition
from fsp_dynamics.kernels.tiles import OUTER_ROWS


class LayerData(NamedTuple):
    """images (., n_in); places (A,) the row of each sample there."""

    images: Array
    places: Array


class PixelLists(NamedTuple):
    """used, counts of `kernels.panels.find_used`, each thread's own along the first axis."""

    used: Array
    counts: Array


@entry
def find_drive(
    thread: int,
    threads: int,
    counters: Array,
    data: LayerData,
    panels: Array,
    bias: Array,
    pixels: PixelLists,
    rows: Array,
    drive: Array,
) -> None:
    """drive[rows] <- images @ input + bias (this thread's panels). panels (P, K, COLUMNS): the
    input matrix.
    """
    images, places = data.images, data.places
    used, counts, wide = pixels.used[thread], pixels.counts[thread], panels.shape[2]
    low, high = partition(panels.shape[0], thread, threads)
    find_used(images, places, panels.shape[1], USED_ROWS, used, counts)
    multiply_used(images, places, panels, drive, rows, low, high, used, counts)
    for i in range(rows.size):
        for c in range(low * wide, min(high * wide, bias.size)):
            drive[rows[i], c] += bias[c]


@inner
def add_term(thread: int, threads: int, left: Array, right: Array, rows: Array, scale: float, panels: Array) -> None:
    """panels += scale sum_b left[b].T right[b], b in rows (this thread's part)."""
    if scale != 0:
        low, high = partition(panels.shape[0] * panels.shape[1], thread, threads)
        add_outer(left, rows, right, rows, scale, panels, low, high)


@entry
def add_update(
    thread: int,
    threads: int,
    counters: Array,
    net: LayerNet,
    panels: Array,
    data: LayerData,
    pixels: PixelLists,
    free: Array,
    change: Array,
    rows: Array,
    scales: Array,
) -> None:
    """Every matrix += its scale times eq. 14 summed over the samples `rows` (this thread's part).

    free, change : states of the free phase, and the changes of the rates under the nudge, laid out
    as `LayerBuffers.states`. data : of the samples `rows`. scales (2, L) : of the input and
    forward[0] ...; of backward[0] ...
    """
    weights, shapes, ends = net.weights, net.shapes, net.ends
    capacity, layers = free.size // ends[ends.size - 1], ends.size - 1
    if scales[0, 0] != 0:
        used, counts = pixels.used[thread], pixels.counts[thread]
        low, high = partition(panels.shape[0] * panels.shape[1], thread, threads)
        first, scale = layer(change, ends, 0, capacity), scales[0, 0]
        find_used(data.images, data.places, panels.shape[1], OUTER_ROWS, used, counts)
        add_outer_used(data.images, data.places, first, rows, scale, panels, low, high, used, counts)
    for k in range(layers - 1):
        for side in range(2):
            pre, post = (k, k + 1) if side == 0 else (k + 1, k)
            if shapes[1, k, 2] > 0:
                into, scale = matrix(weights, shapes[side, k]), scales[side, k + 1 - side]
                left, right = layer(free, ends, pre, capacity), layer(change, ends, post, capacity)
            else:  # tied: both directions change the one matrix, as it lies
                into, scale = matrix(weights, shapes[0, k]), scales[0, k + 1]
                before, after = (free, change) if side == 0 else (change, free)
                left, right = layer(before, ends, k, capacity), layer(after, ends, k + 1, capacity)
            add_term(thread, threads, left, right, rows, scale, into)
