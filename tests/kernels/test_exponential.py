"""The fast twins are the activations of models/activations.py, to a few units in the last place."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from fsp_dynamics.kernels.exponential import TWINS, exponential, fast_logistic, fast_shifted_tanh, twin
from fsp_dynamics.models.activations import (
    ACTIVATIONS,
    hard_sigmoid,
    hard_sigmoid_slope,
    logistic,
    logistic_slope,
    shifted_tanh_slope,
)

ULPS = 4
COMPILED = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT),
    reason="without the compiler they are the equations, which NumPy rounds more coarsely",
)


@numba.njit
def all_exponentials(x, out):
    for i in range(x.size):
        out[i] = exponential(x[i])


@numba.njit
def all_logistics(s, rates, slopes):
    for i in range(s.size):
        rates[i], slopes[i] = fast_logistic(s[i])


@numba.njit
def all_tanhs(s, rates, slopes):
    for i in range(s.size):
        rates[i], slopes[i] = fast_shifted_tanh(s[i])


FILLS = {"logistic": all_logistics, "shifted_tanh": all_tanhs}


def ulps(found, exact):
    """Largest distance in units in the last place of the exact value."""
    return float(np.max(np.abs(found - exact) / np.spacing(exact.astype(found.dtype))))


@COMPILED
def test_the_exponential(dtype):
    most = 87 if dtype == np.float32 else 708
    x = np.linspace(-most, most, 20_001).astype(dtype)
    out = np.empty_like(x)
    all_exponentials(x, out)
    assert ulps(out, np.exp(x.astype(np.longdouble))) <= 2


@COMPILED
@pytest.mark.parametrize("name", FILLS)
def test_rates_and_slopes(name, dtype):
    """Against the equation in extended precision."""
    s = np.concatenate([np.linspace(-40, 40, 8001), np.linspace(-1e-3, 1e-3, 101)]).astype(dtype)
    rates, slopes, long = np.empty_like(s), np.empty_like(s), s.astype(np.longdouble)
    FILLS[name](s, rates, slopes)
    gain = 1 if name == "logistic" else 2
    exact = 1 / (1 + np.exp(-gain * long))
    assert ulps(rates, exact) <= ULPS
    assert ulps(slopes, gain * exact / (1 + np.exp(gain * long))) <= ULPS
    rho = ACTIVATIONS[name]
    rounding = 1e-5 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(rates, rho.rate(s), rtol=rounding)
    np.testing.assert_allclose(slopes, rho.slope(s), rtol=rounding)


@pytest.mark.parametrize("name", FILLS)
def test_far_out_and_not_finite(name, dtype):
    s = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0], dtype)
    rates, slopes = np.empty_like(s), np.empty_like(s)
    with np.errstate(all="ignore"):
        FILLS[name](s, rates, slopes)
    assert np.isnan(rates[0])
    assert np.isnan(slopes[0])
    np.testing.assert_allclose(rates[1:], [1, 0, 1, 0, 0.5], atol=1e-37)
    np.testing.assert_allclose(slopes[1:], [0, 0, 0, 0, 0.25 if name == "logistic" else 0.5], atol=1e-37)


def test_only_the_two_functions_of_one_activation_have_a_twin():
    assert twin(logistic, logistic_slope) is fast_logistic
    assert twin(logistic, shifted_tanh_slope) is None
    assert twin(hard_sigmoid, hard_sigmoid_slope) is None
    assert len(TWINS) == 2
