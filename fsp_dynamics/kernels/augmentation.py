"""Training images changed anew at each visit: mirrored, turned, moved, with noise on their pixels.

A changed image is the given one in a plane that is 0 everywhere else: mirrored left-right, turned
about its centre (bilinear between pixels), moved by whole pixels; then noise is added, and the
result clipped to [0, 1]. What happens to a sample is drawn from a stream of its own
(kernels/counter_stream.py), whose key is value p of the stream `seed`, p its place in the epoch's
order: values 0 to 3 for the moves down and to the right, the angle and the mirror, value 4 + i for
the noise of pixel i. The planes of an image in colour, one after another, are moved and turned
alike; each of their pixels has noise of its own.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from fsp_dynamics.kernels.counter_stream import normal, uniform, value, whole
from fsp_dynamics.kernels.field import Array, bare, entry
from fsp_dynamics.kernels.team import partition

DOWN, RIGHT, ANGLE, MIRROR, NOISE = 0, 1, 2, 3, 4  # values of a sample's stream


class ImageChanges(NamedTuple):
    """How images of height x width pixels, row by row, in so many planes are changed: largest move
    in pixels, largest angle in radians, standard deviation of the noise, probability of a mirror
    image.
    """

    planes: int
    height: int
    width: int
    shift: int
    rotation: float
    noise: float
    flip: float


@entry
def augment(
    thread: int,
    threads: int,
    counters: Array,
    images: Array,
    rows: Array,
    seed: Any,
    first: int,
    changes: ImageChanges,
    framed: Array,
    out: Array,
) -> None:
    """out[i] <- images[rows[i]], the sample at place first + i of the epoch, changed (this thread's
    part of the samples).

    seed : uint64. framed (threads, (height + 3) (width + 3)) : for an image in a frame of zeros, of
    no size where nothing is turned.
    """
    begin, end = partition(rows.size, thread, threads)
    count, size = 2 * changes.shift + 1, changes.height * changes.width
    for i in range(begin, end):
        key = value(seed, first + i)
        down, right = whole(value(key, DOWN), count) - changes.shift, whole(value(key, RIGHT), count) - changes.shift
        mirrored = uniform(value(key, MIRROR)) < changes.flip
        angle = changes.rotation * (2 * uniform(value(key, ANGLE)) - 1)
        for p in range(changes.planes):
            image, into = images[rows[i]][p * size : (p + 1) * size], out[i][p * size : (p + 1) * size]
            if changes.rotation > 0:
                frame(image, changes.height, changes.width, mirrored, framed[thread])
                turn(framed[thread], changes.height, changes.width, angle, down, right, into)
            else:
                move(image, changes.height, changes.width, down, right, mirrored, into)
        if changes.noise > 0:
            add_noise(key, changes.noise, out[i])


@bare
def move(image: Array, height: int, width: int, down: int, right: int, mirrored: bool, out: Array) -> None:
    """out <- the image, mirrored or not, moved by so many pixels (fewer than it has); 0 where it
    leaves none.
    """
    zero, back = out.dtype.type(0), down * width + right
    begin, end = max(down, 0) * width, min(height + down, height) * width
    fill(out[:begin], zero)
    fill(out[end:], zero)
    if mirrored:
        for at in range(begin, end, width):
            row, into = image[at - down * width :][:width], out[at:][:width]
            for c in range(max(right, 0), min(width + right, width)):
                into[c] = row[width - 1 + right - c]
    else:  # in one piece: what comes round from neighbouring rows is overwritten
        low, high = max(begin, back), min(end, out.size + back)
        source, into = image[low - back : high - back], out[low:high]
        for i in range(into.size):
            into[i] = source[i]
    for at in range(begin, end, width):
        row = out[at : at + width]
        fill(row[: max(right, 0)], zero)
        fill(row[width + min(right, 0) :], zero)


@bare
def fill(values: Array, number: Any) -> None:
    """Every one <- number."""
    for i in range(values.size):
        values[i] = number


@bare
def frame(image: Array, height: int, width: int, mirrored: bool, framed: Array) -> None:
    """framed <- the image, mirrored or not, between zeros: a row above, a column to the left, two
    below, two to the right.
    """
    wide = width + 3
    fill(framed, framed.dtype.type(0))
    for r in range(height):
        at, source = (r + 1) * wide + 1, r * width
        if mirrored:
            for c in range(width):
                framed[at + c] = image[source + width - 1 - c]
        else:
            for c in range(width):
                framed[at + c] = image[source + c]


@bare
def inside(start: float, slope: float, end: float, low: int, high: int) -> tuple[int, int]:
    """(first, last + 1) of the c in low ... high - 1 at which 0 <= start + slope c <= end, to
    rounding.
    """
    if slope == 0:
        return low, high if 0 <= start <= end else low
    one, other = -start / slope, (end - start) / slope
    first, last = math.ceil(min(max(min(one, other), low), high)), math.floor(max(min(max(one, other), high), low - 1))
    return int(first), min(int(last) + 1, high)


@bare
def turn(framed: Array, height: int, width: int, angle: float, down: int, right: int, out: Array) -> None:
    """out <- the image in its frame, turned by `angle` and then moved.

    Pixel (r, c) takes the value at R (r - down - r0, c - right - c0) + (r0, c0) of the image, R =
    ((cos, sin), (-sin, cos)) and (r0, c0) its centre, bilinear between four pixels.
    """
    cosine, sine, wide = math.cos(angle), math.sin(angle), width + 3
    centre_r, centre_c = 0.5 * (height - 1), 0.5 * (width - 1)
    fill(out, out.dtype.type(0))
    for r in range(height):
        from_r, from_c = r - down - centre_r, -right - centre_c
        y0 = cosine * from_r + sine * from_c + centre_r + 1  # in the frame
        x0 = cosine * from_c - sine * from_r + centre_c + 1
        low, high = inside(y0, sine, height + 1.0, 0, width)
        low, high = inside(x0, cosine, width + 1.0, low, high)
        for c in range(low, high):
            y, x = y0 + sine * c, x0 + cosine * c
            k, l = int(y), int(x)  # noqa: E741
            a, b, at = y - k, x - l, k * wide + l
            upper = framed[at] + b * (framed[at + 1] - framed[at])
            lower = framed[at + wide] + b * (framed[at + wide + 1] - framed[at + wide])
            out[r * width + c] = upper + a * (lower - upper)


@bare
def add_noise(key: Any, deviation: float, out: Array) -> None:
    """out <- clip(out + deviation normal, 0, 1); min(max(.)) in this order keeps NaN."""
    zero, one = out.dtype.type(0), out.dtype.type(1)
    for i in range(out.size):
        noisy = out.dtype.type(out[i] + deviation * normal(value(key, NOISE + i)))
        out[i] = min(max(noisy, zero), one)
