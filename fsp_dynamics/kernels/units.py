"""The fixed point of each unit with constant input: the elementwise part of a pass, fused.

A kernel `settle(a, bias, s, leak, beta, d, rates)` writes into s (A, n) the fixed points for the
inputs a + bias (A, n) and into rates (A, n) their firing rates. With beta = 0, d may be empty.
`settle_kernel` compiles the one for an activation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fsp_dynamics.kernels.field import Array, Unit, compiled_for, rho, rho_slope, unit_target


def settle_clipped(a: Array, bias: Array, s: Array, leak: float, beta: float, d: Array, rates: Array) -> None:
    """s <- clip((a + bias + beta d) / (leak + beta), 0, 1), in that order so that NaN stays NaN.

    The states in [0, 1] are their own firing rates, so rates are not written.
    """
    for row in range(a.shape[0]):
        for i in range(a.shape[1]):
            pull = unit_target(a[row, i] + bias[i], leak, beta, d[row, i] if beta != 0 else 0.0)
            s[row, i] = min(max(pull, 0.0), 1.0)


def settle_smooth(a: Array, bias: Array, s: Array, leak: float, beta: float, d: Array, rates: Array) -> None:
    """s <- the root of (leak + beta) s = rho'(s) (a + bias) + beta d, sought from the given s.

    Fixed-point steps with Aitken's extrapolation, which needs no second derivative. Where no root
    was found, the residual of the field is large.
    """
    for row in range(a.shape[0]):
        for i in range(a.shape[1]):
            total = np.float64(a[row, i]) + bias[i]
            pull = np.float64(d[row, i]) if beta != 0 else 0.0
            x = np.float64(s[row, i])
            for _ in range(50):
                first = unit_target(rho_slope(x) * total, leak, beta, pull)
                second = unit_target(rho_slope(first) * total, leak, beta, pull)
                bend = second - 2 * first + x
                better = x - (first - x) ** 2 / bend if bend != 0 else second
                moved = abs(better - x)
                x = better if np.isfinite(better) else second
                if not moved > 1e-15 * (1 + abs(x)):
                    break
            s[row, i] = x
            rates[row, i] = rho(x)


def settle_kernel(rate: Unit, slope: Unit, projected: bool) -> Callable[..., None]:
    """`settle_clipped` for the hard sigmoid, `settle_smooth` for a smooth activation, compiled."""
    kernel: Callable[..., None] = compiled_for(rate, slope, (settle_clipped if projected else settle_smooth,))
    return kernel
