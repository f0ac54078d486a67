"""Parts of the compiled integrator whose faults its paths alone would not show."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from fsp_dynamics.kernels import relax, steps
from fsp_dynamics.kernels.relax import FINISHED
from fsp_dynamics.kernels.step_arrays import FIRST, LAST, MIDDLE, S, X
from fsp_dynamics.kernels.thread_number import threads


def plain(kernel):
    """The Python of a kernel that only kernels can call; the paths in tests/solvers run it
    compiled.
    """
    return getattr(kernel, "py_func", kernel)


next_step = plain(relax.next_step)


def test_the_next_step_aims_below_the_allowed_error():
    for order in (2, 3, 5):
        for ratio in (0.02, 0.5, 1.0, 3.0, 10.0):
            factor = next_step(0.1, 0.1, ratio, order, False, 9.0) / 0.1
            assert factor == pytest.approx(np.clip(0.9 * ratio ** (-1 / order), 0.2, 5))


def test_the_next_step_keeps_its_bounds():
    assert next_step(0.1, 0.1, 0.0, 5, False, 9.0) == pytest.approx(0.5)
    assert next_step(0.1, 0.1, np.inf, 5, False, 9.0) == pytest.approx(0.02)
    assert next_step(0.1, 0.1, np.nan, 5, False, 9.0) == pytest.approx(0.02)
    assert next_step(0.1, 0.1, 1e-9, 5, True, 9.0) == pytest.approx(0.1), "no growth straight after a rejection"
    assert next_step(0.1, 0.1, 1e-9, 5, False, 0.3) == 0.3


def test_a_step_cut_short_to_land_does_not_pull_down_the_next():
    assert next_step(0.1, 1e-7, 0.5, 5, False, 9.0) == 0.1
    assert next_step(0.1, 0.05, 2.0, 5, False, 9.0) < 0.05, "but one that failed does"


@pytest.mark.parametrize("stages", range(1, 8))
def test_stages_are_added_in_the_precision_of_the_state(stages, dtype):
    rng = np.random.default_rng(0)
    s, first, k = (
        rng.normal(size=(3, 16)).astype(dtype),
        rng.normal(size=(3, 16)).astype(dtype),
        rng.normal(size=(6, 2, 16)).astype(dtype),
    )
    c, out = rng.normal(size=7), np.ones((4, 16), dtype)
    plain(steps.add_stages)(0.5, s, first, 1, k, 1, c, stages, 0.3, np.zeros(7, dtype), out, 3)
    expected = 0.5 * s[1] + 0.3 * (c[0] * first[1] + c[1:stages] @ k[: stages - 1, 1])
    np.testing.assert_allclose(out[3], expected, rtol=0, atol=30 * np.finfo(dtype).eps)
    assert (out[:3] == 1).all()


def test_norms_of_float32_are_summed_in_float64():
    v = np.full((2, 100_000), 1e-5, np.float32)
    assert plain(steps.norm)(v, 1) == pytest.approx(np.sqrt((v[1].astype(float) ** 2).sum()), rel=1e-12)


def test_errors_are_weighed_by_the_larger_of_both_states():
    error, s, x = np.array([[1e-3, 2e-3]]), np.array([[1.0, -4.0]]), np.array([[-3.0, 2.0]])
    expected = (1e-3 / (0.1 + 0.01 * 3)) ** 2 + (2e-3 / (0.1 + 0.01 * 4)) ** 2
    assert plain(steps.sum_of_squares)(error, 0, s, x, 0, 0.1, 0.01) == pytest.approx(expected)


def test_what_lies_between_is_exact_for_polynomials_of_degree_four():
    curve = np.polynomial.Polynomial([0.3, -1.0, 2.0, 0.7, -1.3])
    states, out, h = np.zeros((5, 1, 8)), np.zeros((1, 8)), 0.5
    states[S], states[X], states[MIDDLE] = curve(0), curve(h), curve(h / 2)
    states[FIRST], states[LAST] = curve.deriv()(0), curve.deriv()(h)
    for theta in (0.0, 0.1, 0.5, 0.8, 1.0):
        plain(relax.between)(theta, h, states, 0, out)
        np.testing.assert_allclose(out, curve(theta * h), atol=1e-14)


def test_only_running_samples_share_an_error():
    running, ratio = plain(relax.common_error)(np.array([4.0, FINISHED, 16.0, 1.0]))
    assert (running, ratio) == (3, pytest.approx(7**0.5))
    assert np.isnan(plain(relax.common_error)(np.array([4.0, np.nan]))[1])


def test_threads_are_given_back():
    before = numba.get_num_threads()
    with threads(1):
        assert numba.get_num_threads() == 1
        with threads(None):
            assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
