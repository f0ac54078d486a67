"""Random numbers that are found by their place, not by what was drawn before: who computes them, in
which order and on how many threads, does not matter.

    value k of the stream `key` = mix(key + (k + 1) GAMMA)      modulo 2^64

This is splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA
2014), read at any place. A value is itself the key of another stream. Keys and values are uint64.
Normal numbers come from a ziggurat of 128 boxes (Marsaglia and Tsang 2000, in the form of Doornik
2005): 98.8 % of them need one value and one comparison.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fsp_dynamics.kernels.field import Array, bare, entry
from fsp_dynamics.kernels.team import partition

GAMMA = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
BY_27, BY_30, BY_31, BY_32, BY_11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32), np.uint64(11)
ONE, BOX = np.uint64(1), np.uint64(127)
UNIT = 2.0**-53
BOXES, TAIL, AREA = 128, 3.442619855899, 9.91256303526217e-3


def _ziggurat() -> tuple[Array, Array]:
    """(widths (BOXES + 1,), the share of each box that lies below the curve (BOXES,))."""
    height = math.exp(-0.5 * TAIL**2)
    widths = [AREA / height, TAIL]
    for _ in range(BOXES - 2):
        widths.append(math.sqrt(-2 * math.log(AREA / widths[-1] + height)))
        height = math.exp(-0.5 * widths[-1] ** 2)
    whole = np.array([*widths, 0.0])
    return whole, whole[1:] / whole[:-1]


WIDTHS, SHARES = _ziggurat()


@bare
def value(key: Any, k: Any) -> Any:
    """Value k of the stream; uint64."""
    z = key + (np.uint64(k) + ONE) * GAMMA
    z = (z ^ (z >> BY_30)) * FIRST
    z = (z ^ (z >> BY_27)) * SECOND
    return z ^ (z >> BY_31)


@bare
def uniform(drawn: Any) -> float:
    """A number in [0, 1) from a value."""
    return np.float64(drawn >> BY_11) * UNIT


@bare
def whole(drawn: Any, count: int) -> Any:
    """One of 0 ... count - 1 from a value, each as likely to within count / 2^32."""
    return np.int64(((drawn >> BY_32) * np.uint64(count)) >> BY_32)


@bare
def normal(drawn: Any) -> float:
    """A number from the standard normal distribution, from a value and, seldom, from others of the
    stream whose key it is.
    """
    box, u = drawn & BOX, 2 * uniform(drawn) - 1
    if abs(u) < SHARES[box]:
        return u * WIDTHS[box]
    return _beyond(drawn)


@bare
def _beyond(drawn: Any) -> float:
    """The number of a value that falls outside the rectangle of its box."""
    further = 0
    while True:
        box, u = drawn & BOX, 2 * uniform(drawn) - 1
        if abs(u) < SHARES[box]:
            return u * WIDTHS[box]
        if box == 0:
            return _tail(drawn, u < 0)
        x = u * WIDTHS[box]
        low, high = math.exp(-0.5 * (WIDTHS[box] ** 2 - x**2)), math.exp(-0.5 * (WIDTHS[box + ONE] ** 2 - x**2))
        if high + uniform(value(drawn, 0)) * (low - high) < 1:
            return x
        further += 1
        drawn = value(drawn, further)


@bare
def _tail(key: Any, negative: bool) -> float:
    """A number beyond TAIL, on one side, from the stream `key`."""
    k = 0
    while True:
        x, y = math.log(1 - uniform(value(key, k))) / TAIL, math.log(1 - uniform(value(key, k + 1)))
        if -2 * y >= x * x:
            return x - TAIL if negative else TAIL - x
        k += 2


@entry
def fill_normal(
    thread: int, threads: int, counters: Array, key: Any, first: int, second: int, deviation: float, out: Array
) -> None:
    """out[i] <- deviation times normal number i of a stream (this thread's part): that whose key is
    value `second` of the stream whose key is value `first` of the stream `key`.
    """
    own = value(value(key, first), second)
    low, high = partition(out.size, thread, threads)
    for i in range(low, high):
        out[i] = deviation * normal(value(own, i))
