"""Where the units of a layer rest while what enters them stays, on tensors.

A hard sigmoid's unit rests at clip((a + beta d) / (leak + beta)), a smooth one at a root x of
(leak + beta) x = rho'(x) a + beta d. Two ways lead to that root, because no single one can serve:

- `ConvergedUnits`, in every relaxation, seek the root anew in each pass by Aitken's extrapolation,
  as kernels/units.py does: it takes any nudge and needs no curvature. It cannot be differentiated
  step by step: at the root both the numerator and the denominator of the extrapolation vanish.
- `UnrolledUnits`, where torch differentiates through a given number of passes, make one step of
  Newton's method in each pass. Its derivative at the root is that of the root.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.rate import unit_target

AITKEN, MASKED_AITKEN = 50, 8  # steps in one pass; a few where the numbers may not be read, then more in the next pass
FAR = 40.0  # no root of a smooth unit is sought beyond it: rho' is 0 there to rounding


class Units(Protocol):
    """The units of all layers, in one phase."""

    def rest(self, k: int, a: torch.Tensor, s: Any, leak: float, beta: float, d: Any) -> torch.Tensor:
        """Where the units of layer k rest under the input a (B, n_k); s : their present states."""

    def rate(self, s: torch.Tensor) -> torch.Tensor:
        """rho(s) of units that rest at s."""


class ConvergedUnits:
    """Units that rest, to rounding, in every pass. look : whether numbers may be read meanwhile."""

    def __init__(self, rho: Activation, look: bool) -> None:
        self.rho, self.look = rho, look

    def rest(self, k: int, a: torch.Tensor, s: Any, leak: float, beta: float, d: Any) -> torch.Tensor:
        """As `Units.rest`; the root of a smooth unit is sought from s."""
        if self.rho.projected:
            return unit_target(a, leak, beta, d).clamp_(0, 1)
        return aitken_root(self.rho.slope, a, s, leak, beta, d, self.look)

    def rate(self, s: torch.Tensor) -> torch.Tensor:
        """rho(s); a resting hard sigmoid's state is its own rate."""
        return s if self.rho.projected else self.rho.rate(s)


class UnrolledUnits:
    """Units of the free phase that torch can differentiate: a smooth one comes one step of
    Newton's method nearer to its root each time its layer is visited.
    """

    def __init__(self, rho: Activation) -> None:
        self.rho = rho
        self.shares: dict[int, torch.Tensor] = {}

    def rest(self, k: int, a: torch.Tensor, s: Any, leak: float, beta: float, d: Any) -> torch.Tensor:
        """As `Units.rest`, without a nudge (beta 0) and whatever s is."""
        c = unit_target(a, leak, beta, d)
        if self.rho.projected:
            return self.rho.rate(c)
        self.shares[k] = newton_step(self.rho, c, self.shares.get(k))
        return c * self.shares[k]

    def rate(self, s: torch.Tensor) -> torch.Tensor:
        """rho(s), differentiable also at s = 0."""
        return s if self.rho.projected else _SmoothRate.apply(s, self.rho)


def aitken_root(
    slope: Callable[[Any], Any], a: torch.Tensor, s: torch.Tensor, leak: float, beta: float, d: Any, look: bool
) -> torch.Tensor:
    """The root x of (leak + beta) x = rho'(x) a + beta d, sought from s with Aitken's
    extrapolation (kernels/units.settle_smooth).

    look : until no unit moves, AITKEN steps at most; else MASKED_AITKEN steps.
    """
    x, total = s.double(), a.double()
    for _ in range(AITKEN if look else MASKED_AITKEN):
        first = unit_target(slope(x) * total, leak, beta, d)
        second = unit_target(slope(first) * total, leak, beta, d)
        bend = second - 2 * first + x
        better = x - (first - x) ** 2 / bend
        better = torch.where(better.isfinite(), better, second)
        still = (better - x).abs() <= 1e-15 * (1 + x.abs())
        x = better
        if look and bool(still.all()):
            break
    return x.to(s.dtype)


def newton_step(rho: Activation, c: torch.Tensor, x: torch.Tensor | None) -> torch.Tensor:
    """A step of Newton's method in log x towards x = rho'(c x); c x is then the root of s = rho'(s)
    c. None : the first step.

    log x - log rho'(c x) rises everywhere, and is convex in log x where rho' falls on both sides of
    0 (logistic, tanh), so that no c, however large, makes the steps go in circles.
    """
    curvature: Any = rho.curvature
    most = FAR / abs(c).clamp(min=FAR)  # 1 at least for every c below FAR
    if x is None:
        x = torch.minimum(rho.slope(torch.zeros_like(c)), most)
    s = c * x
    slope = rho.slope(s)
    rise = (1 - s * curvature(s) / slope).clamp(min=1.0)
    return torch.minimum(x * (slope / x) ** (1 / rise), most)


class _SmoothRate(torch.autograd.Function):
    """rho(s) with the derivative rho'(s). Torch by itself would take the derivative of |s|, in
    which rho is written, for 0 at s = 0.
    """

    @staticmethod
    def forward(ctx: Any, s: torch.Tensor, rho: Activation) -> Any:
        ctx.save_for_backward(s)
        ctx.rho = rho
        return rho.rate(s)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (s,) = ctx.saved_tensors
        return gradient * ctx.rho.slope(s), None
