"""Explicit Runge-Kutta steps of many samples, each with a clock, a step size and a stop of its own.

What the kernels are given beside the arrays of kernels/field.py, as tuples:

    net       (weights, wires, ends)
    units     (leak, pull, literal, boxed): eq. 13 as it stands or the rate form; clip every state to [0, 1] or not
    tableau   (A, b, e, order, fsal): k_i = field(s + h sum_j A_ij k_j), s <- s + h sum_i b_i k_i, error h ||sum_i e_i k_i||;
              without e the step is constant; with fsal the last stage stands where the step ends
    control   (floor, relative, share, longest): a step's error may be max(floor + relative ||s||, share ||rate field||), and
              a controlled step no longer than `longest`
    rest      (absolute, relative): at rest when ||rate field|| <= absolute + relative ||s||; absolute < 0: never
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba.core.errors import NumbaError as CompilationError

from fsp_dynamics.kernels.field import FIELD, Array, Unit, clip, compiled_for, fill_field, jit, total_input

__all__ = ["CompilationError", "integrator", "threads"]


@jit
def add_stages(k: Array, coefficients: Array, stages: int, h: float, scaled: Array, out: Array) -> None:
    """out += h sum_i coefficients[i] k[i] over the first stages; `scaled` takes h coefficients in the dtype of the state."""
    for i in range(stages):
        scaled[i] = h * coefficients[i]
        w = scaled[i]
        if w != 0:
            stage = k[i]
            for j in range(out.size):
                out[j] += w * stage[j]


@jit
def copy(v: Array, out: Array) -> None:
    """out <- v. (Numba takes seconds to compile `out[:] = v`: it may raise.)"""
    for i in range(out.size):
        out[i] = v[i]


@jit
def norm(v: Array) -> float:
    """||v||, summed in float64."""
    total = 0.0
    for i in range(v.size):
        total += np.float64(v[i]) ** 2
    return np.sqrt(total)


@jit
def next_step(h: float, step: float, ratio: float, order: int, rejected: bool, longest: float) -> float:
    """The step size to take after a step whose error was `ratio` times what is allowed.

    0.9 ratio^(-1/order) times the step, between a fifth and five times; no growth straight after a rejection. A step that
    was cut short to land on a time (step < h) does not pull down h.
    """
    factor = 0.9 * ratio ** (-1 / order) if ratio > 0 else 5.0 if ratio == 0 else 0.2
    factor = min(max(factor, 0.2), 1.0 if rejected else 5.0)
    wanted = max(h, step * factor) if ratio <= 1 and step < h else step * factor
    return min(wanted, longest)


def attempt(s: Array, h: float, constant: Array, d: Array, net: Any, units: Any, tableau: Any, work: Any) -> float:
    """One step of length h from s, whose field is k[0]: x becomes the new state; returns ||error||, 0 without an estimate."""
    weights, wires, ends = net
    leak, pull, literal, boxed = units
    A, b, e, _, fsal = tableau
    k, _, x, a, rates, scaled = work
    for i in range(1, b.size if fsal else b.size + 1):
        copy(s, x)
        add_stages(k, A[i] if i < b.size else b, i, h, scaled, x)
        if boxed:
            clip(x)
        if i < b.size:
            total_input(x, constant, weights, wires, ends, rates, a)
            fill_field(x, a, leak, pull, d, literal, k[i])
    for i in range(rates.size):
        rates[i] = 0
    add_stages(k, e, e.size, h, scaled, rates)
    return norm(rates)


def travel(
    s: Array, constant: Array, d: Array, span: float, h: float, limit: int, rest: Any, net: Any, units: Any, tableau: Any, control: Any, work: Any
) -> Any:
    """Follow s, in place, to rest, for the time `span` or for `limit` steps, whichever ends first.

    Returns (time left, step size, steps tried, ||rate field||, ||s||).
    """
    weights, wires, ends = net
    leak, pull, literal, boxed = units
    e, order, fsal = tableau[2:]
    floor, relative, share, longest = control
    k, here, x, a, rates, _ = work
    left, steps, rejected = span, 0, False
    total_input(s, constant, weights, wires, ends, rates, here)
    while True:
        fill_field(s, here, leak, pull, d, literal and not boxed, k[0])
        residual, size = norm(k[0]), norm(s)
        if not np.isfinite(residual) or residual <= rest[0] + rest[1] * size or left <= 0 or steps == limit:
            return left, h, steps, residual, size
        if boxed:
            copy(s, x)
            clip(x)
            fill_field(x, here, leak, pull, d, literal, k[0])
        step = left if left <= h * (1 + 1e-9) else h
        error = attempt(s, step, constant, d, net, units, tableau, work)
        steps += 1
        if e.size > 0:
            ratio = error / max(floor + relative * size, share * residual)
            h = next_step(h, step, ratio, order, rejected, longest)
            rejected = not ratio <= 1
            if rejected:
                continue
        left -= step
        copy(x, s)
        if fsal:
            copy(a, here)
        else:
            total_input(s, constant, weights, wires, ends, rates, here)


def journey(
    start: Array, constant: Array, d: Array, times: Array, h: Array, limit: int,
    rest: Any, net: Any, units: Any, tableau: Any, control: Any, states: Array,
) -> Any:  # fmt: skip
    """One sample from times[0] to each later time, or to rest: `integrate` without the batch.

    Returns (times reached, steps, ||rate field||, ||s||).
    """
    n, stages = start.size, tableau[1].size
    rows = np.empty((5, n), start.dtype)
    s = rows[0]
    work = (np.zeros((stages, n), s.dtype), rows[1], rows[2], rows[3], rows[4], np.empty(stages, s.dtype))
    copy(start, s)
    step, steps, residual, size = 0.0, 0, 0.0, 0.0
    for i in range(h.size):
        step = h[i] if h[i] > 0 else step
        left, step, taken, residual, size = travel(s, constant, d, times[i + 1] - times[i], step, limit, rest, net, units, tableau, control, work)
        steps += taken
        copy(s, states[i])
        if left > 0:
            return i, steps, residual, size
    return h.size, steps, residual, size


def integrate(
    start: Array, constant: Array, d: Array, times: Array, h: Array, limit: int,
    rest: Any, net: Any, units: Any, tableau: Any, control: Any,
    states: Array, reached: Array, steps: Array, residual: Array, size: Array,
) -> None:  # fmt: skip
    """Each sample from times[0] to each later time, or to rest.

    start, constant, d (B, N). h (T-1,) the step to take towards times[1:], or 0 to go on with the step that was last; limit
    on the steps from one time to the next. states (B, T-1, N) takes what was found at times[1:], and reached (B,) how many
    of these were reached; the state where a sample stopped stands in the next place. steps, residual, size (B,): steps
    tried, and ||rate field|| and ||s|| at the end.
    """
    for b in numba.prange(start.shape[0]):
        reached[b], steps[b], residual[b], size[b] = journey(
            start[b], constant[b], d[b], times, h, limit, rest, net, units, tableau, control, states[b]
        )  # fmt: skip


def integrator(rate: Unit, slope: Unit) -> Any:
    """`integrate`, compiled for an activation."""
    return compiled_for(rate, slope, (*FIELD, attempt, travel, journey, integrate), parallel=True)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let kernels use `count` threads inside the block (None: as before); no result depends on it.

    At most NUMBA_NUM_THREADS, which is the number of processors unless the environment says otherwise.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        numba.set_num_threads(before)
