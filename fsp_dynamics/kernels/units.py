"""Where each unit rests while its input stays: the elementwise work of a pass, fused.

`settle(a, bias, s, leak, beta, d, rates)` writes into s (A, n) the rest points for the inputs a + bias (A, n) and into
rates (A, n) their firing rates. The two kernels of that signature are made by `settle_kernel`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from fsp_dynamics.models.rate import unit_target

Array = npt.NDArray[Any]

_target = numba.njit(unit_target)


@numba.njit(cache=True)
def settle_clipped(a: Array, bias: Array, s: Array, leak: float, beta: float, d: Array, rates: Array) -> None:
    """s <- clip((a + bias + beta d) / (leak + beta), 0, 1), in that order so that NaN stays NaN; rates are not written.

    With beta = 0, d may be empty. The states in [0, 1] are their own firing rates.
    """
    for row in range(a.shape[0]):
        for i in range(a.shape[1]):
            pull = _target(a[row, i] + bias[i], leak, beta, d[row, i] if beta != 0 else a.dtype.type(0))
            s[row, i] = min(max(pull, 0.0), 1.0)


@lru_cache(maxsize=16)
def settle_kernel(rate: Callable[[Any], Any], slope: Callable[[Any], Any], projected: bool) -> Callable[..., None]:
    """The kernel for an activation: `settle_clipped`, or for a smooth one a root search in each unit.

    The root of (leak + beta) s = slope(s) (a + bias) + beta d, sought from the s that comes in by fixed-point steps with
    Aitken's extrapolation (no second derivative needed). Whether it was found shows in the residual of the field.
    """
    if projected:
        return settle_clipped
    rho, rho_slope = numba.njit(rate), numba.njit(slope)

    @numba.njit
    def settle(a: Array, bias: Array, s: Array, leak: float, beta: float, d: Array, rates: Array) -> None:
        for row in range(a.shape[0]):
            for i in range(a.shape[1]):
                total = np.float64(a[row, i]) + bias[i]
                pull = np.float64(d[row, i]) if beta != 0 else 0.0
                x = np.float64(s[row, i])
                for _ in range(50):
                    first = _target(rho_slope(x) * total, leak, beta, pull)
                    second = _target(rho_slope(first) * total, leak, beta, pull)
                    bend = second - 2 * first + x
                    better = x - (first - x) ** 2 / bend if bend != 0 else second
                    moved = abs(better - x)
                    x = better if np.isfinite(better) else second
                    if not moved > 1e-15 * (1 + abs(x)):
                        break
                s[row, i] = x
                rates[row, i] = rho(x)

    return settle
