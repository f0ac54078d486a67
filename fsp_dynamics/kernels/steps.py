"""Explicit Runge-Kutta steps of a few samples at once: every sample its own step, one product of
all of them for each stage.

What the kernels are given, as arrays and tuples:

    net       (weights, wires, leak, output): every matrix in panels (kernels/panels.py), laid end to end; wires (C, 6) a row for each
              connection: where the layers pre and post begin, units of pre, panels, place in
              `weights`, and 0 where it is the first into post; leak (P,); where the output begins
    inputs    (constant (B, P), d (B, P_L), beta): the drive and the biases of the other layers; target and strength of the nudge
    units     (literal, boxed, resting): eq. 13 as it stands or the rate form; clip every state to [0, 1] or not; whether the norm of the
              rate form is asked for where that of the field is another
    tableau   (A, e, middle, order): k_i = field(s + h sum_j A_ij k_j), whose last row leads to the new state: k_last is the first of the next
              step; error h sum_i e_i k_i (e empty: the step is constant); s + h sum_i middle_i k_i
              lies in the middle
    standing  (5, B, P), for each sample: S the state, X the attempted one, FIRST and LAST the
    fields of both, MIDDLE what lies between
    work      (k (stages - 2, G, P), block (3, G + 1, P), numbers (G,), scaled (stages,)), for each of the G samples that step together: the
              stages between; RATES, SLOPES and their TOTAL rates @ W, with a row of zeros at the
              end; 0 ... G - 1; h times coefficients
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from fsp_dynamics.kernels.field import (
    BARE,
    FIELD,
    Array,
    bare,
    clip,
    fill_field,
    fill_rates,
    rho,
    unit_rate_field,
    unit_target,
)
from fsp_dynamics.kernels.panels import multiply

S, X, FIRST, LAST, MIDDLE = 0, 1, 2, 3, 4
RATES, SLOPES, TOTAL = 0, 1, 2
summing = numba.njit(
    **BARE, fastmath={"reassoc", "contract"}
)  # lets sums be vectorised; NaN and infinity keep their meaning


@bare
def copy(v: Array, b: int, out: Array, o: int) -> None:
    """out[o] <- v[b]."""
    for i in range(out.shape[1]):
        out[o, i] = v[b, i]


@numba.njit(**BARE, fastmath={"contract"})
def add_stages(share: float, s: Array, first: Array, b: int, k: Array, r: int, weights: Array, stages: int, h: float, scaled: Array, out: Array,
               o: int) -> None:  # fmt: skip
    """out[o] <- share s[b] + h (weights[0] first[b] + sum_i weights[i] k[i - 1, r]) over so many
    stages.

    Two stages at a time: `out` is gone through once for both, and LLVM can still tell that no
    arrays overlap.
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


@bare
def add_inputs(rates: Array, a: Array, weights: Array, wires: Array, numbers: Array) -> None:
    """a[r] <- rates[r] @ W for the rows `numbers` of rates and a, (G + 1, P) with a last row that
    gives room to the views below.
    """
    rows, width = a.shape[0] - 1, a.shape[1]
    wide = 64 // a.itemsize
    for c in range(wires.shape[0]):
        pre, post, units, panels, place = wires[c, 0], wires[c, 1], wires[c, 2], wires[c, 3], wires[c, 4]
        w = weights[place : place + panels * units * wide].reshape((panels, units, wide))
        entering = rates.reshape(-1)[pre : pre + rows * width].reshape(
            (rows, width)
        )  # rows that begin where the layer does
        total = a.reshape(-1)[post : post + rows * width].reshape((rows, width))
        multiply(entering, numbers, w, total, numbers, 0, panels, wires[c, 5] != 0)


def rest_norm(s: Array, b: int, a: Array, r: int, inputs: Any, leak: Array, output: int) -> float:
    """||ds/dt|| in the rate form at s[b], into which a[r] enters."""
    constant, d, beta = inputs
    total = 0.0
    for i in range(s.shape[1]):
        pull = beta if i >= output else 0.0
        aim = rho(unit_target(a[r, i] + constant[b, i], leak[i], pull, d[b, max(i - output, 0)]))
        total += np.float64(unit_rate_field(s[b, i], aim, leak[i], pull)) ** 2
    return np.sqrt(total)


def attempt(samples: Array, h: Array, begin: int, end: int, net: Any, inputs: Any, units: Any, tableau: Any, standing: Array, work: Any,
            residual: Array) -> None:  # fmt: skip
    """The stages begin ... end of steps h[b] of the samples, and residual (B,) <- ||rate field||
    at the last of them.

    begin = end = 0: FIRST <- the field at S (clipped, if states are). From 1 to the end: X and
    LAST <- the new states and their fields.
    """
    weights, wires, leak, output = net
    literal, boxed, resting = units
    A = tableau[0]
    s, x, first, last = standing[S], standing[X], standing[FIRST], standing[LAST]
    k, block, numbers, scaled = work
    rates, slopes, total = block[RATES], block[SLOPES], block[TOTAL]
    for i in range(begin, end + 1):
        for r in range(samples.size):
            b = samples[r]
            add_stages(1.0, s, first, b, k, r, A[i], i, h[b], scaled, x, b)
            if boxed:
                clip(x, b)
            fill_rates(x, b, rates, slopes, r)
        add_inputs(rates, total, weights, wires, numbers[: samples.size])
        standing_field = i == 0 or i == A.shape[0] - 1
        out = first if i == 0 else last if standing_field else k[i - 1]
        for r in range(samples.size):
            b = samples[r]
            fill_field(x, b, total, slopes, r, inputs, leak, output, literal, out, b if standing_field else r)
    for r in range(samples.size):
        b = samples[r]
        if boxed and resting:
            residual[b] = rest_norm(s if end == 0 else x, b, total, r, inputs, leak, output)
        else:
            residual[b] = norm(first if end == 0 else last, b)


STEPS = (*FIELD, rest_norm, attempt)
