"""The parts of the compiled integrator that its paths alone would not betray."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from fsp_dynamics.kernels.relax import add_stages, next_step, norm, threads


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


def test_stages_are_added_in_the_precision_of_the_state(dtype):
    rng = np.random.default_rng(0)
    k, c, out = rng.normal(size=(4, 6)).astype(dtype), rng.normal(size=4), np.ones(6, dtype)
    add_stages(k, c, 3, 0.3, np.empty(4, dtype), out)
    np.testing.assert_allclose(out, 1 + 0.3 * c[:3] @ k[:3], rtol=20 * np.finfo(dtype).eps)


def test_the_norm_of_float32_is_summed_in_float64():
    v = np.full(100_000, 1e-5, np.float32)
    assert norm(v) == pytest.approx(np.sqrt((v.astype(float) ** 2).sum()), rel=1e-12)


def test_threads_are_given_back():
    before = numba.get_num_threads()
    with threads(1):
        assert numba.get_num_threads() == 1
        with threads(None):
            assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
