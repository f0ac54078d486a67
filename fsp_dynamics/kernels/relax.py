"""Integration in time, until samples have converged or along a path: which samples step, how far,
and which have finished.

`integrate` runs in several threads (kernels/team.py), each with a part of the batch. A thread
integrates up to G samples at once (kernels/steps.py), each with its own clock, step size and stop;
where one finishes, the next of the batch takes its place. With `shared`, all samples of the batch
take steps of one size instead, with a barrier at each. Arrays as in kernels/step_arrays.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core.errors import NumbaError as CompilationError

from fsp_dynamics.kernels.exponential import twin
from fsp_dynamics.kernels.field import Array, Unit, UnitInputs, apart, bare, compiled_for
from fsp_dynamics.kernels.step_arrays import (
    BEGINS,
    ERROR,
    FIRST,
    FIRST_UNIT,
    FOUND,
    LAST,
    LEFT,
    MIDDLE,
    RATES,
    REACHED,
    REJECTED,
    RESIDUAL,
    SIZE,
    STEP,
    STEPS_IN_ALL,
    TRIED,
    WIDTH,
    H,
    IntegrationScratch,
    S,
    SavedTimes,
    StepControl,
    StepForm,
    StepNet,
    StepScratch,
    StepTableau,
    StopBound,
    X,
)
from fsp_dynamics.kernels.steps import STEPS, add_stages, attempt, copy, norm, sum_of_squares
from fsp_dynamics.kernels.team import announce_stop, barrier, has_stopped, must_stop, partition

__all__ = ["CompilationError", "integrator"]

FINISHED = -1.0  # in place of an error


@apart
def next_step(h: float, step: float, ratio: float, order: int, rejected: bool, longest: float) -> float:
    """The step size to take after a step whose error was `ratio` times what is allowed.

    0.9 ratio^(-1/order) times the step, between a fifth and five times; no growth straight after a
    rejection. A step that was cut short to land on a time (step < h) does not pull down h.
    """
    factor = 0.9 * ratio ** (-1 / order) if ratio > 0 else 5.0 if ratio == 0 else 0.2
    factor = min(max(factor, 0.2), 1.0 if rejected else 5.0)
    wanted = max(h, step * factor) if ratio <= 1 and step < h else step * factor
    return min(wanted, longest)


@apart
def save(rows: Array, r: int, spans: Array, path: Array, here: int, b: int) -> bool:
    """path[here, b] <- the units of the padded rows[r]; whether all are finite."""
    zero = rows.dtype.type(0)
    for layer in range(spans.shape[0]):
        there, to = spans[layer, BEGINS], spans[layer, FIRST_UNIT]
        for i in range(spans[layer, WIDTH]):
            path[here, b, to + i] = rows[r, there + i]
            zero += rows[r, there + i] * rows.dtype.type(0)
    return zero == 0


@apart
def between(theta: float, h: float, states: Array, b: int, out: Array) -> None:
    """out[0] <- the polynomial of degree 4 through S, MIDDLE and X of sample b at theta = 0, 1/2,
    1 with the slopes FIRST and LAST at its ends.
    """
    t2, t3, t4 = theta * theta, theta * theta * theta, theta * theta * theta * theta
    of_x, of_middle = out.dtype.type(-8 * t4 + 14 * t3 - 5 * t2), out.dtype.type(16 * (t4 - 2 * t3 + t2))
    of_first = out.dtype.type(h * (-2 * t4 + 5 * t3 - 4 * t2 + theta))
    of_last = out.dtype.type(h * (2 * t4 - 3 * t3 + t2))
    for i in range(out.shape[1]):
        s = states[S, b, i]
        out[0, i] = s + of_x * (states[X, b, i] - s) + of_middle * (states[MIDDLE, b, i] - s)
    for i in range(out.shape[1]):
        out[0, i] += of_first * states[FIRST, b, i] + of_last * states[LAST, b, i]


@apart
def add_all_stages(
    share: float,
    s: Array,
    first: Array,
    last: Array,
    b: int,
    k: Array,
    r: int,
    weights: Array,
    h: float,
    scaled: Array,
    out: Array,
    o: int,
) -> None:
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
    """STEP <- the step size to try, or what is left to the time on which the sample must land."""
    for r in range(samples.size):
        b = samples[r]
        clock[STEP, b] = clock[LEFT, b] if clock[LEFT, b] <= clock[H, b] * (1 + 1e-9) else clock[H, b]


@apart
def estimate_errors(
    samples: Array,
    turn: int,
    units: int,
    tableau: StepTableau,
    states: Array,
    scratch: StepScratch,
    control: StepControl,
    times: SavedTimes,
    clock: Array,
    count: Array,
) -> None:
    """The error of each step that was attempted and, where a saved time lies inside, the state
    half-way.
    """
    k, scaled = scratch.k, scratch.scaled
    s, x, first, last = states[S], states[X], states[FIRST], states[LAST]
    error = scratch.block[RATES]
    for r in range(samples.size):
        b = samples[r]
        h, found = clock[STEP, b], 0.0
        inside = times.dense and times.after[count[REACHED, b] + 1] > clock[LEFT, b] - h
        # one call, in a loop, of what takes LLVM a second to compile
        for turned in range(0 if inside else 1, 2 if tableau.error.size > 0 else 1):
            weights = tableau.middle if turned == 0 else tableau.error
            out, o = (states[MIDDLE], b) if turned == 0 else (error, r)
            add_all_stages(1.0 - turned, s, first, last, b, k, r, weights, h, scaled, out, o)
        if tableau.error.size > 0:
            found = mean_square(error, r, s, x, b, units, control, clock)
        clock[ERROR + turn, b] = found


@apart
def mean_square(
    error: Array, r: int, s: Array, x: Array, b: int, units: int, control: StepControl, clock: Array
) -> float:
    """The mean square over the units of error / allowed."""
    absolute, relative, motion = control.absolute, control.relative, control.motion
    if motion > 0:
        return (norm(error, r) / max(absolute + relative * clock[SIZE, b], motion * clock[RESIDUAL, b])) ** 2
    return sum_of_squares(error, r, s, x, b, absolute, relative) / units


@apart
def save_passed(
    b: int,
    remaining: float,
    times: SavedTimes,
    states: Array,
    clock: Array,
    count: Array,
    spans: Array,
    path: Array,
    spare: Array,
) -> bool:
    """Save sample b at the saved times of the step it took, after which `remaining` is left;
    whether all of it was finite.
    """
    after, dense = times.after, times.dense
    while count[REACHED, b] + 1 < after.size:
        here = count[REACHED, b] + 1
        ahead = after[here] if dense else 0.0
        if ahead < remaining:
            break
        rows, r = states[X], b
        if ahead > remaining:
            between((clock[LEFT, b] - ahead) / clock[STEP, b], clock[STEP, b], states, b, spare)
            rows, r = spare, 0
        if not save(rows, r, spans, path, here, b):
            return False
        count[TRIED, b], count[REACHED, b] = 0, here
        if not dense:
            break
    return True


@apart
def end_step(
    b: int,
    ratio: float,
    bound: StopBound,
    tableau: StepTableau,
    states: Array,
    control: StepControl,
    times: SavedTimes,
    clock: Array,
    count: Array,
    spans: Array,
    path: Array,
    spare: Array,
) -> bool:
    """Accept or reject the step that sample b attempted, whose error was `ratio` times what is
    allowed; whether it is still running.
    """
    limit = times.limit
    count[TRIED, b] += 1
    count[STEPS_IN_ALL, b] += 1
    if tableau.error.size > 0:
        rejected, longest = count[REJECTED, b] > 0, control.longest
        clock[H, b] = next_step(clock[H, b], clock[STEP, b], ratio, tableau.order, rejected, longest)
        count[REJECTED, b] = 0 if ratio <= 1 else 1
        if count[REJECTED, b] > 0:
            return clock[H, b] > control.shortest and count[TRIED, b] < limit
    remaining = clock[LEFT, b] - clock[STEP, b] if clock[STEP, b] < clock[LEFT, b] else 0.0
    if not save_passed(b, remaining, times, states, clock, count, spans, path, spare):
        return False
    copy(states[X], b, states[S], b)
    copy(states[LAST], b, states[FIRST], b)
    clock[LEFT, b], clock[RESIDUAL, b] = remaining, clock[FOUND, b]
    if remaining == 0:
        here = count[REACHED, b]
        if here >= times.spans.size:
            return False
        clock[LEFT, b] = times.spans[here]
        if times.dt[here] > 0:
            clock[H, b] = times.dt[here]
    return is_running(b, bound, states, clock) and count[TRIED, b] < limit


@bare
def is_running(b: int, bound: StopBound, states: Array, clock: Array) -> bool:
    """Whether sample b is finite and not converged, by its RESIDUAL."""
    if bound.absolute >= 0:
        clock[SIZE, b] = norm(states[S], b)
    return clock[RESIDUAL, b] > bound.absolute + bound.relative * clock[SIZE, b] and clock[RESIDUAL, b] < np.inf


@bare
def common_error(errors: Array) -> tuple[int, float]:
    """How many samples are still running, and the root mean square of their errors, added in the
    order of the batch.
    """
    running, total = 0, 0.0
    for b in range(errors.size):
        if errors[b] != FINISHED:
            running += 1
            total += errors[b]
    return running, np.sqrt(total / max(running, 1))


def integrate(
    thread: int,
    threads: int,
    counters: Array,
    shared: bool,
    units_in_all: int,
    bound: StopBound,
    net: StepNet,
    inputs: UnitInputs,
    form: StepForm,
    tableau: StepTableau,
    states: Array,
    scratch: IntegrationScratch,
    control: StepControl,
    times: SavedTimes,
    clock: Array,
    count: Array,
    spans: Array,
    path: Array,
) -> None:
    """Each sample from the first of the saved times to each later one, or until it has converged
    or the team shall stop.

    Row i > 0 of path (T, B, N) takes the state at the i-th saved time, and count[REACHED] how many
    rows were reached; the last state of each sample is in states[S].
    """
    begin, end = partition(states.shape[1], thread, threads)
    own = StepScratch(scratch.k[thread], scratch.block[thread], scratch.numbers[thread], scratch.scaled[thread])
    samples, spare = scratch.lists[thread], scratch.spare[thread]
    together, final = own.numbers.size, tableau.A.shape[0] - 1
    m, turn, starting, ratio = end - begin, 0, True, 0.0
    for r in range(m):
        samples[r] = begin + r
    while shared or (m > 0 and not must_stop(counters)):
        now = m if shared or starting else min(m, together)  # the others wait
        for b in range(begin, end):
            clock[ERROR + turn, b] = FINISHED
        for at in range(0, now, together):
            some = samples[at : min(at + together, now)]
            choose_steps(some, clock)
            if starting:
                first, last, residual = 0, 0, clock[RESIDUAL]
            else:
                first, last, residual = 1, final, clock[FOUND]
            attempt(some, clock[STEP], first, last, net, inputs, form, tableau, states, own, residual)
            if not starting:
                estimate_errors(some, turn, units_in_all, tableau, states, own, control, times, clock, count)
        if shared and not starting:
            announce_stop(thread, counters, turn)
            barrier(threads, counters)
            running, ratio = common_error(clock[ERROR + turn])
            if running == 0 or has_stopped(counters, turn):
                return
        kept = 0
        for r in range(m):
            b = samples[r]
            if starting:
                runs = is_running(b, bound, states, clock)
            elif r < now:
                error = ratio if shared else np.sqrt(clock[ERROR + turn, b])
                runs = end_step(b, error, bound, tableau, states, control, times, clock, count, spans, path, spare)
            else:
                runs = True
            if runs:
                samples[kept] = b
                kept += 1
        m, turn, starting = kept, 1 - turn, False


def integrator(rate: Unit, slope: Unit) -> Any:
    """`integrate`, compiled for an activation."""
    return compiled_for(rate, slope, (*STEPS, integrate), twin(rate, slope), counted=False)
