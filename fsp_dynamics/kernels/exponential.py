"""rho and rho' of the smooth activations from one exponential, in arithmetic that LLVM turns into
vectors.

The equations are in models/activations.py; these are their fast twins, because the exponential
of the system's library is taken one element at a time: `math.e ** x` was measured at 11 ns an
element, this polynomial at 1.1 (float32: 0.5), and rho with rho' at 2.0 (0.8). With n the whole
number nearest to x / ln 2,

    exp(x) = 2^n exp(r),   r = x - n ln 2,   |r| <= ln(2) / 2

with exp(r) a polynomial of degree 11 (float32: 6), where x / ln 2 + 1.5 2^52 (float32: 1.5 2^23),
rounded, has n in its last bits. Within 2 units in the last place; x is limited to +-708 (87), so
that the result is neither 0 nor infinite. NaN stays NaN.

`twin` returns the function s -> (rho(s), rho'(s)) of an activation. Without the compiler all of
them are the equations themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from fsp_dynamics.models.activations import logistic, logistic_slope, shifted_tanh, shifted_tanh_slope

# polynomials through Chebyshev's nodes on [-ln(2) / 2, ln(2) / 2], by rising powers: relative error
# 4e-18 in float64, 3e-9 in float32
P64 = (
    1.0, 1.0, 0.5000000000000019, 0.1666666666666668, 0.04166666666648795, 0.008333333333319589,
    0.0013888888952352863, 0.00019841269890076403, 2.4801485441561313e-05, 2.755724088722987e-06,
    2.763265472252779e-07, 2.5110049204818658e-08,
)  # fmt: skip
_FLOAT32 = (
    1, 1.0000000377389, 0.50000000471461, 0.16666415414041, 0.041666352771112, 0.0083751347746, 0.0013941118896
)  # fmt: skip
P32 = tuple(np.float32(p) for p in _FLOAT32)
PER_LN2_64, PER_LN2_32 = 1 / math.log(2), np.float32(1 / math.log(2))
# ln 2 in two parts, the first with zeros at its end
HIGH_64, LOW_64 = 0.693147180369123816490, 1.90821492927058770002e-10
HIGH_32, LOW_32 = np.float32(0.693359375), np.float32(-2.12194440e-4)
WHOLE_64, WHOLE_32 = 1.5 * 2.0**52, np.float32(1.5 * 2.0**23)
MOST_64, MOST_32 = 708.0, np.float32(87.0)
ONE_32, TWO_32 = np.float32(1), np.float32(2)  # a plain 1 would turn float32 into float64
FUSED: Any = {"fastmath": {"contract"}, "error_model": "numpy"}


@intrinsic
def _power(typing: Any, whole: Any) -> Any:
    """2^n from n + 1.5 2^52 (float32: n + 1.5 2^23): its last bits, shifted into the exponent."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits, place, bias = (64, 52, 1023) if whole == types.float64 else (32, 23, 127)
        integer = ir.IntType(bits)
        n = builder.bitcast(args[0], integer)
        exponent = builder.shl(builder.add(n, ir.Constant(integer, bias)), ir.Constant(integer, place))
        return builder.bitcast(exponent, args[0].type)

    return whole(whole), generate


two_to: Any = _power


def exponential(x: Any) -> Any:
    """exp(x)."""
    return math.e**x


def _exponential64(x: Any) -> Any:
    x = -MOST_64 if x < -MOST_64 else MOST_64 if x > MOST_64 else x
    whole = x * PER_LN2_64 + WHOLE_64
    n = whole - WHOLE_64
    r = (x - n * HIGH_64) - n * LOW_64
    p = (((P64[11] * r + P64[10]) * r + P64[9]) * r + P64[8]) * r + P64[7]
    p = (((p * r + P64[6]) * r + P64[5]) * r + P64[4]) * r + P64[3]
    return (((p * r + P64[2]) * r + P64[1]) * r + P64[0]) * two_to(whole)


def _exponential32(x: Any) -> Any:
    x = -MOST_32 if x < -MOST_32 else MOST_32 if x > MOST_32 else x
    whole = x * PER_LN2_32 + WHOLE_32
    n = whole - WHOLE_32
    r = (x - n * HIGH_32) - n * LOW_32
    p = ((P32[6] * r + P32[5]) * r + P32[4]) * r + P32[3]
    return (((p * r + P32[2]) * r + P32[1]) * r + P32[0]) * two_to(whole)


@overload(exponential, jit_options=FUSED)
def _compiled_exponential(x: Any) -> Any:
    return _exponential32 if x == types.float32 else _exponential64


def fast_logistic(s: Any) -> Any:
    """(rho(s), rho'(s)) of `logistic`: with e = exp(-s) and q = 1 / (1 + e), these are q and (e q)
    q; neither can overflow.
    """
    return logistic(s), logistic_slope(s)


def _fast_logistic64(s: Any) -> Any:
    e = exponential(-s)
    q = 1.0 / (1.0 + e)
    return q, e * q * q


def _fast_logistic32(s: Any) -> Any:
    e = exponential(-s)
    q = ONE_32 / (ONE_32 + e)
    return q, e * q * q


@overload(fast_logistic, jit_options=FUSED)
def _compiled_logistic(s: Any) -> Any:
    return _fast_logistic32 if s == types.float32 else _fast_logistic64


def fast_shifted_tanh(s: Any) -> Any:
    """(rho(s), rho'(s)) of `shifted_tanh`, which is the logistic of 2 s."""
    return shifted_tanh(s), shifted_tanh_slope(s)


def _fast_shifted_tanh64(s: Any) -> Any:
    rate, slope = fast_logistic(2.0 * s)
    return rate, 2.0 * slope


def _fast_shifted_tanh32(s: Any) -> Any:
    rate, slope = fast_logistic(TWO_32 * s)
    return rate, TWO_32 * slope


@overload(fast_shifted_tanh, jit_options=FUSED)
def _compiled_shifted_tanh(s: Any) -> Any:
    return _fast_shifted_tanh32 if s == types.float32 else _fast_shifted_tanh64


TWINS: dict[Any, Callable[[Any], Any]] = {
    (logistic, logistic_slope): fast_logistic,
    (shifted_tanh, shifted_tanh_slope): fast_shifted_tanh,
}


def twin(rate: Callable[[Any], Any], slope: Callable[[Any], Any]) -> Callable[[Any], Any] | None:
    """The fast s -> (rate(s), slope(s)), None where there is none."""
    return TWINS.get((rate, slope))
