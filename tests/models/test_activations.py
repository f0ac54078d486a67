"""The firing-rate functions: right values, right slopes, and the same in NumPy, Numba and torch."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.activations import ACTIVATIONS, Activation, activation, hard_sigmoid, hard_sigmoid_slope

EVERY = pytest.mark.parametrize("rho", ACTIVATIONS.values(), ids=lambda a: a.name)
SMOOTH = pytest.mark.parametrize("rho", [a for a in ACTIVATIONS.values() if not a.projected], ids=lambda a: a.name)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])

# Saturation, kinks, signed zero, the smallest and the largest arguments anything should meet.
POINTS = np.array(
    [-1000, -88.8, -1.5, -1, -1e-30, -0.0, 0.0, 1e-30, 0.25, 0.5, 1 - 2**-24, 1, 1 + 2**-23, 1.5, 20, 88.8, 1000]
)

TEXTBOOK = {
    "hard_sigmoid": lambda s: min(max(s, 0.0), 1.0),
    "logistic": lambda s: 1 / (1 + math.exp(-s)) if s > -700 else 0.0,
    "shifted_tanh": lambda s: (1 + math.tanh(s)) / 2,
}


def states(dtype, bound=50.0):
    """Arrays of ordinary states."""
    width = np.dtype(dtype).itemsize * 8
    return hnp.arrays(dtype, hnp.array_shapes(max_dims=2, max_side=6), elements=st.floats(-bound, bound, width=width))


def assert_equal_up_to_rounding(got: np.ndarray, expected: np.ndarray, s: np.ndarray) -> None:
    """Some compute e ** x with e rounded to float32: a relative error of |x| eps in the
    exponential tails.
    """
    limits = np.finfo(s.dtype)
    np.testing.assert_array_less(
        abs(got - expected), 2 * limits.eps * (4 + 2 * abs(s)) * abs(expected) + 2 * limits.tiny
    )


@EVERY
def test_each_is_registered_under_its_own_name(rho: Activation) -> None:
    assert ACTIVATIONS[rho.name] is rho
    assert activation(rho.name) is rho
    assert activation(rho) is rho


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"rho = 'hard_sigmod' is unknown; did you mean 'hard_sigmoid'\?"):
        activation("hard_sigmod")


def test_only_the_hard_sigmoid_is_projected() -> None:
    assert [a.name for a in ACTIVATIONS.values() if a.projected] == ["hard_sigmoid"]
    with pytest.raises(ConfigurationError, match=r"rate\(0\.25\) of 'steep' is 0\.5, expected 0\.25; leave projected"):
        Activation("steep", lambda s: min(max(2 * s, 0.0), 1.0), lambda s: 2 * (0 <= s <= 0.5), projected=True)


@EVERY
def test_rate_is_the_textbook_formula(rho: Activation) -> None:
    expected = [TEXTBOOK[rho.name](s) for s in POINTS]
    np.testing.assert_allclose(rho.rate(POINTS), expected, rtol=1e-13, atol=1e-16)


@EVERY
@DTYPES
def test_nothing_overflows_and_the_dtype_is_kept(rho: Activation, dtype: type) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        rates, slopes = rho.rate(POINTS.astype(dtype)), rho.slope(POINTS.astype(dtype))
    for values in (rates, slopes):
        assert values.dtype == dtype
        assert np.isfinite(values).all()


@EVERY
@DTYPES
def test_rates_end_at_zero_and_one(rho: Activation, dtype: type) -> None:
    assert rho.rate(np.array([-1000, 1000], dtype)).tolist() == [0.0, 1.0]


@EVERY
@DTYPES
def test_nan_stays_nan(rho: Activation, dtype: type) -> None:
    s = np.array([0.5, np.nan, 2.0], dtype)
    for values in (rho.rate(s), rho.slope(s)):
        assert np.isnan(values).tolist() == [False, True, False]


@DTYPES
def test_the_hard_sigmoid_is_clip(dtype: type) -> None:
    @given(states(dtype))
    def check(s: np.ndarray) -> None:
        np.testing.assert_array_equal(hard_sigmoid(s), np.clip(s, 0, 1))

    check()


@DTYPES
def test_the_slope_of_the_hard_sigmoid_is_one_on_the_closed_interval(dtype: type) -> None:
    below, above = np.nextafter(dtype(0), dtype(-1)), np.nextafter(dtype(1), dtype(2))
    s = np.array([below, 0, 0.5, 1, above], dtype)
    assert hard_sigmoid_slope(s).tolist() == [0, 1, 1, 1, 0]


@EVERY
@given(s=states(np.float64))
def test_rates_lie_in_the_unit_interval_and_never_fall(rho: Activation, s: np.ndarray) -> None:
    rates = rho.rate(np.sort(s, axis=None))
    assert (rates >= 0).all()
    assert (rates <= 1).all()
    assert (np.diff(rates) >= -1e-15).all()


@EVERY
@given(s=states(np.float64, bound=20))
def test_slope_agrees_with_central_differences(rho: Activation, s: np.ndarray) -> None:
    h = 1e-5
    if rho.projected:  # the difference quotient means nothing across a kink
        s = s[(abs(s) > 2 * h) & (abs(s - 1) > 2 * h)]
    quotient = (rho.rate(s + h) - rho.rate(s - h)) / (2 * h)
    np.testing.assert_allclose(rho.slope(s), quotient, rtol=0, atol=2e-10)


@SMOOTH
def test_small_slopes_keep_their_relative_accuracy(rho: Activation) -> None:
    """Far out rho (1 - rho) would cancel to 0; the slope must still be the exponential tail."""
    steepness = {"logistic": 1, "shifted_tanh": 2}[rho.name]
    s = np.array([20.0, 30.0]) / steepness
    np.testing.assert_allclose(rho.slope(s), steepness * np.exp(-steepness * s), rtol=1e-7)
    np.testing.assert_allclose(rho.slope(-s), rho.slope(s), rtol=0)


@EVERY
@DTYPES
def test_numba_compiles_it_to_the_same_numbers(rho: Activation, dtype: type) -> None:
    numba = pytest.importorskip("numba")

    def each(function):
        @numba.njit
        def loop(s, out):
            for i in range(s.size):
                out[i] = function(s[i])
            return out

        return loop

    s = POINTS.astype(dtype)
    for function in (rho.rate, rho.slope):
        assert_equal_up_to_rounding(each(numba.njit(function))(s, np.empty_like(s)), function(s), s)
        assert np.isnan(each(numba.njit(function))(np.full(1, np.nan, dtype), np.empty(1, dtype))).all()


@EVERY
@DTYPES
def test_torch_takes_it_too(rho: Activation, dtype: type) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed; it comes with the [torch] extra")
    s = POINTS.astype(dtype)
    for function in (rho.rate, rho.slope):
        tensor = function(torch.from_numpy(s))
        assert tensor.numpy().dtype == dtype
        assert_equal_up_to_rounding(tensor.numpy(), function(s), s)
