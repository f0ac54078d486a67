"""Elementary changes of the weights of a loop, part by part: scaling, adding, adding outer
products; and which part belongs to which thread.
"""

from __future__ import annotations

from fsp_dynamics.kernels.field import Array, apart, bare
from fsp_dynamics.kernels.loop_arrays import first_unit
from fsp_dynamics.kernels.team import partition


@apart
def add_scaled(into: Array, factor: float, other: Array, rate: float, low: int, high: int) -> None:
    """into <- factor into + rate other, from `low` to `high`, in place."""
    keep, gain = into.dtype.type(factor), into.dtype.type(rate)
    for i in range(low, high):
        into[i] = keep * into[i] + gain * other[i]


@apart
def shrink(into: Array, factor: float, low: int, high: int) -> None:
    """into <- factor into, from `low` to `high`, in place."""
    keep = into.dtype.type(factor)
    for i in range(low, high):
        into[i] *= keep


@apart
def add_rows(biases: Array, first: int, change: Array, chosen: Array, scale: float, low: int, high: int) -> None:
    """biases[c] += scale sum_b change[b, c - first], low <= c < high."""
    gain = biases.dtype.type(scale)
    for i in range(chosen.size):
        row = change[chosen[i]]
        for c in range(low, high):
            biases[c] += gain * row[c - first]


@apart
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


@apart
def sum_rows(left: Array, left_rows: Array, change: Array, chosen: Array, pair: Array) -> None:
    """pair <- the mean of these rows of `left`, and minus the sum of the change's."""
    for c in range(left.shape[1]):
        pair[0, c] = 0
    for c in range(change.shape[1]):
        pair[1, c] = 0
    part = pair.dtype.type(1 / chosen.size)
    for i in range(chosen.size):
        l, r = left[left_rows[i]], change[chosen[i]]  # noqa: E741
        for c in range(l.size):
            pair[0, c] += part * l[c]
        for c in range(r.size):
            pair[1, c] -= r[c]


@bare
def part(shapes: Array, k: int, wide: int, thread: int, threads: int) -> tuple[int, int]:
    """A thread's part of the matrix into layer k, as indices of the flat weights; whole rows of
    panels.
    """
    low, high = partition(shapes[k, 1] * shapes[k, 2], thread, threads)
    return shapes[k, 0] + low * wide, shapes[k, 0] + high * wide


@bare
def bias_part(shapes: Array, k: int, wide: int, thread: int, threads: int) -> tuple[int, int]:
    """A thread's part of the biases of layer k, as indices of all biases."""
    low, high = partition(shapes[k, 2] * wide, thread, threads)
    begin = first_unit(shapes, k, wide)
    return begin + low, begin + high
