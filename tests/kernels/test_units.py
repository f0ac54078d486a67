"""Where units rest while their input stays, against the equation's own operators and scipy's root
finder.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from fsp_dynamics.kernels.units import settle_kernel
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.rate import unit_field, unit_target


def settle(rho, a, bias, leak, beta, d, start=0.0):
    kind = ACTIVATIONS[rho]
    s, rates = np.full_like(a, start), np.full_like(a, -1.0)
    settle_kernel(kind.rate, kind.slope, kind.projected)(a, bias, s, leak, beta, d, rates)
    return s, rates


@pytest.mark.parametrize("beta", [0.0, 0.7, -0.3])
def test_the_hard_sigmoid_rests_where_it_is_clipped(beta, dtype) -> None:
    rng = np.random.default_rng(0)
    a, bias, d = (
        rng.normal(0, 2, (5, 7)).astype(dtype),
        rng.normal(size=7).astype(dtype),
        rng.random((5, 7)).astype(dtype),
    )
    s, _ = settle("hard_sigmoid", a, bias, 0.8, beta, d)
    np.testing.assert_allclose(
        s, np.clip(unit_target(a.astype(float) + bias, 0.8, beta, d), 0, 1), rtol=1e-6 if dtype == np.float32 else 1e-14
    )
    assert {0.0, 1.0} <= set(s.ravel().tolist())


def test_nan_stays_nan() -> None:
    s, _ = settle("hard_sigmoid", np.array([[np.nan, 0.5]]), np.zeros(2), 1.0, 0.0, np.zeros((0, 0)))
    assert np.isnan(s[0, 0])
    assert s[0, 1] == 0.5


@pytest.mark.parametrize("rho", ["logistic", "shifted_tanh"])
@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_smooth_units_rest_where_the_field_vanishes(rho, beta) -> None:
    rng = np.random.default_rng(1)
    a, bias, d = rng.normal(0, 1.5, (4, 6)), rng.normal(size=6), rng.random((4, 6))
    s, rates = settle(rho, a, bias, 0.8, beta, d)
    kind = ACTIVATIONS[rho]
    for index in np.ndindex(a.shape):

        def field(x, index=index):
            return float(unit_field(x, a[index] + bias[index[1]], kind.slope(x), 0.8, beta, d[index]))

        assert s[index] == pytest.approx(brentq(field, -20, 20, xtol=1e-14), abs=1e-12)
        assert rates[index] == pytest.approx(float(kind.rate(s[index])), abs=1e-15)
