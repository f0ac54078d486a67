"""What a batch of a reciprocal network costs beside converging: the drive from the images, and
eq. 14 added to the weights in their panels.

Nobody waits: each member of a team has its part of every matrix. Tuples as in
kernels/layer_relaxation.py, and

    data     (images, places): images (., n_in); places (A,) the row of each sample there
    pixels   (used, counts): for kernels/panels.find_used, each member's own along the first axis
"""

from __future__ import annotations

from typing import Any

from fsp_dynamics.kernels.field import Array, entry, inner
from fsp_dynamics.kernels.layer_relaxation import layer, matrix
from fsp_dynamics.kernels.panels import USED_ROWS, add_outer, add_outer_used, find_used, multiply_used
from fsp_dynamics.kernels.team import partition
from fsp_dynamics.kernels.tiles import ROWS


@entry
def find_drive(
    me: int, all: int, counters: Array, data: Any, panels: Array, bias: Array, pixels: Any, rows: Array, drive: Array
) -> None:
    """drive[rows] <- images @ input + bias (my panels). panels (P, K, COLUMNS): the input matrix."""
    images, places = data
    used, counts, wide = pixels[0][me], pixels[1][me], panels.shape[2]
    low, high = partition(panels.shape[0], me, all)
    find_used(images, places, panels.shape[1], USED_ROWS, used, counts)
    multiply_used(images, places, panels, drive, rows, low, high, used, counts)
    for i in range(rows.size):
        for c in range(low * wide, min(high * wide, bias.size)):
            drive[rows[i], c] += bias[c]


@inner
def add_term(me: int, all: int, left: Array, right: Array, rows: Array, scale: float, panels: Array) -> None:
    """panels += scale sum_b left[b].T right[b], b in rows (my part)."""
    if scale != 0:
        low, high = partition(panels.shape[0] * panels.shape[1], me, all)
        add_outer(left, rows, right, rows, scale, panels, low, high)


@entry
def add_update(
    me: int, all: int, counters: Array, net: Any, panels: Array, data: Any, pixels: Any, free: Array, change: Array, rows: Array, scales: Array
) -> None:  # fmt: skip
    """Every matrix += its scale times eq. 14 summed over the samples `rows` (my part).

    free, change : states of the free phase, and how far the nudge moved the rates, in the layout
    of a room's states. data : of the samples `rows`.
    scales (2, L) : of the input and forward[0] ...; of backward[0] ...
    """
    weights, shapes, ends = net[0], net[1], net[2]
    capacity, layers = free.size // ends[ends.size - 1], ends.size - 1
    if scales[0, 0] != 0:
        used, counts = pixels[0][me], pixels[1][me]
        low, high = partition(panels.shape[0] * panels.shape[1], me, all)
        find_used(data[0], data[1], panels.shape[1], ROWS, used, counts)
        add_outer_used(
            data[0], data[1], layer(change, ends, 0, capacity), rows, scales[0, 0], panels, low, high, used, counts
        )
    for k in range(layers - 1):
        for side in range(2):
            pre, post = (k, k + 1) if side == 0 else (k + 1, k)
            if shapes[1, k, 2] > 0:
                into = matrix(weights, shapes[side, k])
                add_term(
                    me,
                    all,
                    layer(free, ends, pre, capacity),
                    layer(change, ends, post, capacity),
                    rows,
                    scales[side, k + 1 - side],
                    into,
                )
            else:  # tied: both directions teach the one matrix, as it lies
                into, scale = matrix(weights, shapes[0, k]), scales[0, k + 1]
                left, right = (free, change) if side == 0 else (change, free)
                add_term(
                    me, all, layer(left, ends, k, capacity), layer(right, ends, k + 1, capacity), rows, scale, into
                )
