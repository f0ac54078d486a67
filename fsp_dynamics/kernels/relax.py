"""Samples on their way through time, to rest or along a path: who steps, how far, and who has
arrived.

`integrate` is walked by a team (kernels/team.py), each member with a part of the batch. A member
keeps up to G samples going at once (kernels/steps.py), each with a clock, a step size and a stop
of its own; where one arrives, the next of the batch takes its place. With `shared`, all samples of
the batch take steps of one size instead, and the team meets at each. Beside what kernels/steps.py
describes:

    control   (absolute, relative, share, longest, shortest): allowed in a step is, with share = 0, for each unit absolute + relative |s|, and the
              root mean square over the units of error / allowed counts; else for the 2-norm
              max(absolute + relative ||s||, share ||rate field||)
    rest      (absolute, relative): converged when ||rate field|| <= absolute + relative ||s||; absolute < 0: never
    course    (after, spans, dt, dense, limit): the time from each saved time to the last (T,); the T-1 spans between them, and the step to take
              in each, or 0 to go on with the step that was last; a step runs over saved times
              (`dense`) or lands on each; steps tried between two
    clock     (8, B) float64: H the step size to try, STEP the one tried, LEFT the time to where the sample must land, RESIDUAL ||rate field||,
              SIZE ||s||, FOUND the residual after the attempt; ERROR and the row after it, by
              turns, the mean square of error / allowed
    count     (4, B): TRIED and STEPS, since the last saved time and in all; REACHED, saved times; REJECTED, whether the last step failed
    spans     (L, 3), of each layer: where it begins in a padded row, where among the N units, how many they are
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba.core.errors import NumbaError as CompilationError

from fsp_dynamics.kernels.exponential import twin
from fsp_dynamics.kernels.field import Array, Unit, bare, compiled_for
from fsp_dynamics.kernels.steps import (
    FIRST,
    LAST,
    MIDDLE,
    RATES,
    STEPS,
    S,
    X,
    add_stages,
    attempt,
    copy,
    norm,
    sum_of_squares,
)
from fsp_dynamics.kernels.team import barrier, partition

__all__ = ["CompilationError", "integrator", "threads"]

H, STEP, LEFT, RESIDUAL, SIZE, FOUND, ERROR = 0, 1, 2, 3, 4, 5, 6
TRIED, STEPS_IN_ALL, REACHED, REJECTED = 0, 1, 2, 3
NOT_GOING = -1.0  # in place of an error


@bare
def next_step(h: float, step: float, ratio: float, order: int, rejected: bool, longest: float) -> float:
    """The step size to take after a step whose error was `ratio` times what is allowed.

    0.9 ratio^(-1/order) times the step, between a fifth and five times; no growth straight after a
    rejection. A step that was cut short to land on a time (step < h) does not pull down h.
    """
    factor = 0.9 * ratio ** (-1 / order) if ratio > 0 else 5.0 if ratio == 0 else 0.2
    factor = min(max(factor, 0.2), 1.0 if rejected else 5.0)
    wanted = max(h, step * factor) if ratio <= 1 and step < h else step * factor
    return min(wanted, longest)


@bare
def save(rows: Array, r: int, spans: Array, path: Array, here: int, b: int) -> bool:
    """path[here, b] <- the units of the padded rows[r]; whether all are finite."""
    zero = rows.dtype.type(0)
    for layer in range(spans.shape[0]):
        there, to = spans[layer, 0], spans[layer, 1]
        for i in range(spans[layer, 2]):
            path[here, b, to + i] = rows[r, there + i]
            zero += rows[r, there + i] * rows.dtype.type(0)
    return zero == 0


@bare
def between(theta: float, h: float, standing: Array, b: int, out: Array) -> None:
    """out[0] <- the polynomial of degree 4 through S, MIDDLE and X of sample b at theta = 0, 1/2,
    1 with the slopes FIRST and LAST at its ends.
    """
    t2, t3, t4 = theta * theta, theta * theta * theta, theta * theta * theta * theta
    of_x, of_middle = out.dtype.type(-8 * t4 + 14 * t3 - 5 * t2), out.dtype.type(16 * (t4 - 2 * t3 + t2))
    of_first, of_last = (
        out.dtype.type(h * (-2 * t4 + 5 * t3 - 4 * t2 + theta)),
        out.dtype.type(h * (2 * t4 - 3 * t3 + t2)),
    )
    for i in range(out.shape[1]):
        s = standing[S, b, i]
        out[0, i] = s + of_x * (standing[X, b, i] - s) + of_middle * (standing[MIDDLE, b, i] - s)
    for i in range(out.shape[1]):
        out[0, i] += of_first * standing[FIRST, b, i] + of_last * standing[LAST, b, i]


@bare
def add_all_stages(share: float, s: Array, first: Array, last: Array, b: int, k: Array, r: int, weights: Array, h: float, scaled: Array,
                   out: Array, o: int) -> None:  # fmt: skip
    """out[o] <- share s[b] + h sum_i weights_i k_i, over all stages of the step that sample b, row
    r of its block, attempted.
    """
    final = weights.size - 1
    add_stages(share, s, first, b, k, r, weights, final, h, scaled, out, o)
    w = out.dtype.type(h * weights[final])
    for i in range(out.shape[1]):
        out[o, i] += w * last[b, i]


@bare
def choose_steps(samples: Array, clock: Array) -> None:
    """STEP <- as far as the sample should go, or must if it is to land."""
    for r in range(samples.size):
        b = samples[r]
        clock[STEP, b] = clock[LEFT, b] if clock[LEFT, b] <= clock[H, b] * (1 + 1e-9) else clock[H, b]


@bare
def weigh_steps(samples: Array, turn: int, units: int, tableau: Any, standing: Array, work: Any, control: Any, course: Any, clock: Array,
                count: Array) -> None:  # fmt: skip
    """What the steps that were attempted come to: the error of each and, where a saved time lies
    inside, what is in the middle.
    """
    after, dense = course[0], course[3]
    k, block, _, scaled = work
    s, x, first, last = standing[S], standing[X], standing[FIRST], standing[LAST]
    error = block[RATES]
    for r in range(samples.size):
        b = samples[r]
        h, found = clock[STEP, b], 0.0
        inside = dense and after[count[REACHED, b] + 1] > clock[LEFT, b] - h
        for turned in range(
            0 if inside else 1, 2 if tableau[1].size > 0 else 1
        ):  # one call of what takes LLVM a second to compile
            weights = tableau[2] if turned == 0 else tableau[1]
            out, o = (standing[MIDDLE], b) if turned == 0 else (error, r)
            add_all_stages(1.0 - turned, s, first, last, b, k, r, weights, h, scaled, out, o)
        if tableau[1].size > 0:
            found = mean_square(error, r, s, x, b, units, control, clock)
        clock[ERROR + turn, b] = found


@bare
def mean_square(error: Array, r: int, s: Array, x: Array, b: int, units: int, control: Any, clock: Array) -> float:
    """The mean square over the units of error / allowed, as `control` says."""
    absolute, relative, motion, _, _ = control
    if motion > 0:
        return (norm(error, r) / max(absolute + relative * clock[SIZE, b], motion * clock[RESIDUAL, b])) ** 2
    return sum_of_squares(error, r, s, x, b, absolute, relative) / units


@bare
def save_passed(b: int, remaining: float, course: Any, standing: Array, clock: Array, count: Array, spans: Array, path: Array,
                spare: Array) -> bool:  # fmt: skip
    """Save what sample b passed in the step it took, after which `remaining` is left; whether all
    of it was finite.
    """
    after, dense = course[0], course[3]
    while count[REACHED, b] + 1 < after.size:
        here = count[REACHED, b] + 1
        ahead = after[here] if dense else 0.0
        if ahead < remaining:
            break
        rows, r = standing[X], b
        if ahead > remaining:
            between((clock[LEFT, b] - ahead) / clock[STEP, b], clock[STEP, b], standing, b, spare)
            rows, r = spare, 0
        if not save(rows, r, spans, path, here, b):
            return False
        count[TRIED, b], count[REACHED, b] = 0, here
        if not dense:
            break
    return True


@bare
def settle(b: int, ratio: float, rest: Any, tableau: Any, standing: Array, control: Any, course: Any, clock: Array, count: Array, spans: Array,
           path: Array, spare: Array) -> bool:  # fmt: skip
    """Take or refuse the step that sample b attempted, whose error was `ratio` times what is
    allowed; whether it goes on.
    """
    lengths, dt, limit = course[1], course[2], course[4]
    count[TRIED, b] += 1
    count[STEPS_IN_ALL, b] += 1
    if tableau[1].size > 0:
        clock[H, b] = next_step(clock[H, b], clock[STEP, b], ratio, tableau[3], count[REJECTED, b] > 0, control[3])
        count[REJECTED, b] = 0 if ratio <= 1 else 1
        if count[REJECTED, b] > 0:
            return clock[H, b] > control[4] and count[TRIED, b] < limit
    remaining = clock[LEFT, b] - clock[STEP, b] if clock[STEP, b] < clock[LEFT, b] else 0.0
    if not save_passed(b, remaining, course, standing, clock, count, spans, path, spare):
        return False
    copy(standing[X], b, standing[S], b)
    copy(standing[LAST], b, standing[FIRST], b)
    clock[LEFT, b], clock[RESIDUAL, b] = remaining, clock[FOUND, b]
    if remaining == 0:
        here = count[REACHED, b]
        if here >= lengths.size:
            return False
        clock[LEFT, b] = lengths[here]
        if dt[here] > 0:
            clock[H, b] = dt[here]
    return goes_on(b, rest, standing, clock) and count[TRIED, b] < limit


@bare
def goes_on(b: int, rest: Any, standing: Array, clock: Array) -> bool:
    """Whether sample b is finite and not converged, where its residual is known."""
    if rest[0] >= 0:
        clock[SIZE, b] = norm(standing[S], b)
    return clock[RESIDUAL, b] > rest[0] + rest[1] * clock[SIZE, b] and clock[RESIDUAL, b] < np.inf


@bare
def common_error(errors: Array) -> tuple[int, float]:
    """How many samples are still on their way, and the root mean square of their errors, added in
    the order of the batch.
    """
    going, total = 0, 0.0
    for b in range(errors.size):
        if errors[b] != NOT_GOING:
            going += 1
            total += errors[b]
    return going, np.sqrt(total / max(going, 1))


def integrate(
    me: int, all: int, counters: Array, shared: bool, units_in_all: int, rest: Any, net: Any, inputs: Any, units: Any, tableau: Any,
    standing: Array, works: Any, control: Any, course: Any, clock: Array, count: Array, spans: Array, path: Array,
) -> None:  # fmt: skip
    """Each sample from the first of the saved times to each later one, or to rest.

    path (T, B, N) takes at row i > 0 what was found at the i-th saved time, and count[REACHED] how
    many rows were reached; where a sample stopped stands in standing[S]. works: (k, block,
    numbers, scaled, lists (B,), spare (1, P)) with an axis before it for the members of the team.
    """
    begin, end = partition(standing.shape[1], me, all)
    work, samples, spare = (works[0][me], works[1][me], works[2][me], works[3][me]), works[4][me], works[5][me]
    together, final = work[2].size, tableau[0].shape[0] - 1
    m, turn, starting, ratio = end - begin, 0, True, 0.0
    for r in range(m):
        samples[r] = begin + r
    while shared or m > 0:
        now = m if shared or starting else min(m, together)  # the others wait
        for b in range(begin, end):
            clock[ERROR + turn, b] = NOT_GOING
        for at in range(0, now, together):
            some = samples[at : min(at + together, now)]
            choose_steps(some, clock)
            if starting:
                stages, residual = (0, 0), clock[RESIDUAL]
            else:
                stages, residual = (1, final), clock[FOUND]
            attempt(some, clock[STEP], stages[0], stages[1], net, inputs, units, tableau, standing, work, residual)
            if not starting:
                weigh_steps(some, turn, units_in_all, tableau, standing, work, control, course, clock, count)
        if shared and not starting:
            barrier(all, counters)
            going, ratio = common_error(clock[ERROR + turn])
            if going == 0:
                return
        kept = 0
        for r in range(m):
            b = samples[r]
            if starting:
                goes = goes_on(b, rest, standing, clock)
            elif r < now:
                own = ratio if shared else np.sqrt(clock[ERROR + turn, b])
                goes = settle(b, own, rest, tableau, standing, control, course, clock, count, spans, path, spare)
            else:
                goes = True
            if goes:
                samples[kept] = b
                kept += 1
        m, turn, starting = kept, 1 - turn, False


def integrator(rate: Unit, slope: Unit) -> Any:
    """`integrate`, compiled for an activation."""
    return compiled_for(rate, slope, (*STEPS, integrate), twin(rate, slope), counted=False)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let kernels use `count` threads inside the block (None: as before); no result depends on it.

    At most NUMBA_NUM_THREADS, which is the number of processors unless the environment says
    otherwise.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        numba.set_num_threads(before)
