"""Explicit Runge-Kutta steps of a few samples at once: every sample its own step, one product of
all of them for each stage.

Arrays as in kernels/step_arrays.py.
"""

from __future__ import annotations

import numba
import numpy as np

from fsp_dynamics.kernels.field import (
    BARE,
    FIELD,
    Array,
    UnitInputs,
    apart,
    clip,
    fill_field,
    fill_rates,
    rho,
    unit_target,
)
from fsp_dynamics.kernels.panels import multiply
from fsp_dynamics.kernels.step_arrays import (
    ADDS,
    FIRST,
    LAST,
    PANELS,
    PLACE,
    POST,
    PRE,
    RATES,
    SLOPES,
    TOTAL,
    UNITS,
    S,
    StepForm,
    StepNet,
    StepScratch,
    StepTableau,
    X,
)
from fsp_dynamics.kernels.views import view_of

# lets sums be vectorised; NaN and infinity keep their meaning
summing = numba.njit(**BARE, fastmath={"reassoc", "contract"})


@apart
def copy(v: Array, b: int, out: Array, o: int) -> None:
    """out[o] <- v[b]."""
    for i in range(out.shape[1]):
        out[o, i] = v[b, i]


@numba.njit(**BARE, fastmath={"contract"})
def add_stages(
    share: float,
    s: Array,
    first: Array,
    b: int,
    k: Array,
    r: int,
    weights: Array,
    stages: int,
    h: float,
    scaled: Array,
    out: Array,
    o: int,
) -> None:
    """out[o] <- share s[b] + h (weights[0] first[b] + sum_i weights[i] k[i - 1, r]) over so many
    stages.

    Two stages at a time: one loop over `out` for both, and LLVM can still prove that no arrays
    overlap.
    """
    for i in range(stages):
        scaled[i] = h * weights[i]
    units, share = out.shape[1], out.dtype.type(share)
    u = scaled[0] if stages > 0 else scaled.dtype.type(0)
    for j in range(units):
        out[o, j] = share * s[b, j] + u * first[b, j]
    for i in range(1, stages - 1, 2):
        u, v = scaled[i], scaled[i + 1]
        for j in range(units):
            out[o, j] += u * k[i - 1, r, j] + v * k[i, r, j]
    if stages > 1 and stages % 2 == 0:
        u = scaled[stages - 1]
        for j in range(units):
            out[o, j] += u * k[stages - 2, r, j]


@summing
def norm(v: Array, b: int) -> float:
    """||v[b]||, summed in float64."""
    total = 0.0
    for i in range(v.shape[1]):
        total += np.float64(v[b, i]) * np.float64(v[b, i])
    return np.sqrt(total)


@summing
def sum_of_squares(error: Array, r: int, s: Array, x: Array, b: int, absolute: float, relative: float) -> float:
    """sum_i (error_i / (absolute + relative max(|s_i|, |x_i|)))^2 of error[r], s[b] and x[b],
    summed in float64.
    """
    total = 0.0
    absolute, relative = s.dtype.type(absolute), s.dtype.type(relative)
    for i in range(s.shape[1]):
        ratio = np.float64(error[r, i] / (absolute + relative * max(abs(s[b, i]), abs(x[b, i]))))
        total += ratio * ratio
    return total


@apart
def add_inputs(rates: Array, a: Array, weights: Array, connections: Array, numbers: Array) -> None:
    """a[r] <- rates[r] @ W for the rows `numbers` of rates and a, (G + 1, P): the views below
    extend into the last row.
    """
    rows, width = a.shape[0] - 1, a.shape[1]
    wide = 64 // a.itemsize
    for c in range(connections.shape[0]):
        pre, post, units = connections[c, PRE], connections[c, POST], connections[c, UNITS]
        panels, place = connections[c, PANELS], connections[c, PLACE]
        w = view_of(weights, place, (panels, units, wide))
        # views whose rows begin where the layer does
        entering = view_of(rates, pre, (rows, width))
        total = view_of(a, post, (rows, width))
        multiply(entering, numbers, w, total, numbers, 0, panels, connections[c, ADDS] != 0)


@summing
def distance(field: Array, b: int, leak: Array, beta: float, output: int) -> float:
    """||field[b] / (leak + beta)||, beta at the outputs only: the residual where the field is
    field[b].
    """
    total = 0.0
    for i in range(output):
        total += (np.float64(field[b, i]) / np.float64(leak[i])) ** 2
    for i in range(output, field.shape[1]):
        total += (np.float64(field[b, i]) / (np.float64(leak[i]) + beta)) ** 2
    return np.sqrt(total)


def rate_form_distance(s: Array, b: int, a: Array, r: int, inputs: UnitInputs, leak: Array, output: int) -> float:
    """||rho((a + beta d) / (leak + beta)) - s||: the residual in the rate form at s[b] with input
    a[r] from other units.
    """
    constant, d, beta = inputs.constant, inputs.target, inputs.beta
    total = 0.0
    for i in range(s.shape[1]):
        pull = beta if i >= output else 0.0
        aim = rho(unit_target(a[r, i] + constant[b, i], leak[i], pull, d[b, max(i - output, 0)]))
        total += np.float64(aim - s[b, i]) ** 2
    return np.sqrt(total)


def attempt(
    samples: Array,
    h: Array,
    begin: int,
    end: int,
    net: StepNet,
    inputs: UnitInputs,
    form: StepForm,
    tableau: StepTableau,
    states: Array,
    scratch: StepScratch,
    residual: Array,
) -> None:
    """The stages begin ... end of steps h[b] of the samples, and residual (B,) <- that of the
    state at the last of them.

    begin = end = 0: FIRST <- the field at S (clipped, if states are). From 1 to the end: X and
    LAST <- the new states and their fields.
    """
    leak, output, A, k = net.leak, net.output, tableau.A, scratch.k
    s, x, first, last = states[S], states[X], states[FIRST], states[LAST]
    rates, slopes, total = scratch.block[RATES], scratch.block[SLOPES], scratch.block[TOTAL]
    for i in range(begin, end + 1):
        for r in range(samples.size):
            b = samples[r]
            add_stages(1.0, s, first, b, k, r, A[i], i, h[b], scratch.scaled, x, b)
            if form.boxed:
                clip(x, b)
            fill_rates(x, b, rates, slopes, r)
        add_inputs(rates, total, net.weights, net.connections, scratch.numbers[: samples.size])
        at_end = i == 0 or i == A.shape[0] - 1
        out = first if i == 0 else last if at_end else k[i - 1]
        for r in range(samples.size):
            b = samples[r]
            fill_field(x, b, total, slopes, r, inputs, leak, output, form.literal, out, b if at_end else r)
    for r in range(samples.size):
        b = samples[r]
        if form.boxed and form.rate_norm:
            residual[b] = rate_form_distance(s if end == 0 else x, b, total, r, inputs, leak, output)
        else:
            residual[b] = distance(first if end == 0 else last, b, leak, inputs.beta, output)


STEPS = (*FIELD, rate_form_distance, attempt)
