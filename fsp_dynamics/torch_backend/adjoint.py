"""Gradients converged by implicit differentiation.

One pass with a graph leads from the images and the weights to what enters the units converged, a_k;
how the rates converged answer a change of the a_k is the adjoint of solvers/response.py:

    v_i = gamma_i (g_i + sum_j w_ij v_j)          v = dL/da, g = dL/d rho, gamma = p^2 / (leak - rho''(s) a), p = rho'(s)

For a hard sigmoid gamma is r for units strictly inside (0, 1) and 0 for all others. In a
feedforward loop it is an n_L x n_L problem for each sample:

    (I - gamma_L C) v_L = v_L of the hidden g alone          C = loop gamma_1 forward[0] ... gamma_L-1 forward[L-2]

Reciprocal networks solve it by Anderson mixing over their cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.network import Network, cut_layers
from fsp_dynamics.models.rate import total_input, unit_target
from fsp_dynamics.torch_backend.module_mixing import Layers, mix
from fsp_dynamics.torch_backend.module_passes import unmixed

MAX_PASSES = 1000
CHUNK = 64  # samples whose (n_L, n_k) chains are held at once
# the weights between layers, on which the adjoint depends
JOINING = ("forward", "loop", "backward")


def attached(network: Network, drive: torch.Tensor, state: Layers) -> Layers:
    """The rates of this rest, with their first derivatives in the drive and the weights of
    `network`. Higher ones are refused.
    """
    rates = tuple(network.rho.rate(s) for s in state)
    a = total_input(network, drive, rates)
    trace = torch.cat(
        [a_k[:0] for a_k in a], 1
    )  # no number, but as much a function of images and weights as all a_k are
    found: Layers = _AtRest.apply(network, state, rates, trace, *a)
    return found


class _AtRest(torch.autograd.Function):
    """The inputs a_k (B, n_k) converged -> the rates there."""

    @staticmethod
    def forward(ctx: Any, network: Network, state: Layers, rates: Layers, trace: torch.Tensor, *a: torch.Tensor) -> Any:
        given: dict[str, Any] = network.parameters()
        detached = {name: weight.detach() for name, weight in given.items()}
        ctx.network, ctx.names = (
            network.with_parameters(detached),
            [name for name in detached if name.startswith(JOINING)],
        )
        weights = [detached[name] for name in ctx.names]
        ctx.save_for_backward(
            trace, *_answers(network, state, a), *weights
        )  # torch refuses weights that were changed in place since
        return rates

    @staticmethod
    def backward(ctx: Any, *g: torch.Tensor) -> Any:
        trace, *saved = ctx.saved_tensors
        gamma, weights = tuple(saved[: len(g)]), saved[len(g) :]
        with torch.no_grad(), unmixed(g[-1].device):
            fixed = ctx.network.with_parameters(dict(zip(ctx.names, weights, strict=True)))
            back = _BackPass(fixed, gamma, g)
            v = back.walk(back.through_loop() if fixed.loop is not None else back.iterated())
        return None, None, None, None, *(_FirstOnly.apply(len(v), *v, *g, trace) if torch.is_grad_enabled() else v)


class _FirstOnly(torch.autograd.Function):
    """The first of these tensors as they are. All are inputs, so that no way to a second
    derivative leads past the refusal.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *given: torch.Tensor) -> Any:
        return tuple(each.clone() for each in given[:count])

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        raise ConfigurationError("to_torch() without passes has first derivatives only; give passes=K for higher ones")


def _answers(network: Network, state: Layers, a: Layers) -> Layers:
    """gamma of each layer (B, n_k): how its rates answer a change of what enters them."""
    rho, layers = network.rho, [(a_k, 1 / r) for a_k, r in zip(a, network.time_constants, strict=True)]
    if (
        rho.projected
    ):  # what the unit aims at tells, not its state: that has come to 0 within the tolerance, and need not be 0
        aims = [(unit_target(a_k, leak, 0.0, 0.0), leak) for a_k, leak in layers]
        return tuple(((aim > 0) & (aim < 1)).to(aim.dtype) / leak for aim, leak in aims)
    curvature: Any = rho.curvature
    return tuple(rho.slope(s) ** 2 / (leak - curvature(s) * a_k) for s, (a_k, leak) in zip(state, layers, strict=True))


class _BackPass:
    """The pass of the adjoint: v of the cut -> v of all other layers -> gamma (g + W v) of the
    cut.
    """

    def __init__(self, network: Network, gamma: Layers, g: Layers) -> None:
        self.network, self.gamma, self.g = network, gamma, g
        self.cut = cut_layers(network)
        self.inner = [k for k in range(network.depth - 1, -1, -1) if k not in self.cut]
        self.sizes = [network.sizes[k + 1] for k in self.cut]
        self.out_of = [[(c.post, c.weight) for c in network.connections() if c.pre == k] for k in range(network.depth)]

    def walk(self, cut: torch.Tensor, rows: Any = slice(None)) -> list[Any]:
        """v of all layers, given that of the cut (A, n_cut)."""
        v: list[Any] = [None] * self.network.depth
        for k, each in zip(self.cut, cut.split(self.sizes, 1), strict=True):
            v[k] = each
        for k in self.inner:
            v[k] = self._layer(k, v, rows)
        return v

    def through_loop(self) -> torch.Tensor:
        """v of the output (B, n_L), by a linear system for each sample."""
        loop: Any = self.network.loop
        out = torch.empty_like(self.g[-1])
        identity = torch.eye(len(loop), dtype=out.dtype, device=out.device)
        for first in range(0, len(out), CHUNK):
            rows = slice(first, first + CHUNK)
            chain = loop.expand(len(out[rows]), -1, -1)
            for weight, gamma in zip(self.network.forward, self.gamma[:-1], strict=True):
                chain = (chain * gamma[rows, None, :]) @ weight
            alone = self._next(torch.zeros_like(out[rows]), rows)
            out[rows] = torch.linalg.solve(identity - self.gamma[-1][rows, :, None] * chain, alone)
        return out

    def iterated(self) -> torch.Tensor:
        """v of the cut (B, n_cut) by mixed passes. Raises ConfigurationError where they do not
        find it.
        """
        nothing = torch.cat([torch.zeros_like(self.g[k]) for k in self.cut], 1)
        alone, limits = self._next(nothing, slice(None)), torch.finfo(nothing.dtype)
        within = 10 * limits.eps * alone.norm(dim=1) + limits.tiny

        def step(rows: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Layers]:
            target = self._next(v, rows)
            return target, (target - v).norm(dim=1) / within[rows], (v,)

        (found,), converged, _ = mix(step, nothing, MAX_PASSES)
        finite = within.isfinite()
        if not (converged | ~finite).all():
            raise ConfigurationError(
                "the gradient did not converge: the network amplifies a small change at this equilibrium; weaken its weights"
            )
        return torch.where(finite[:, None], found, torch.nan)

    def _next(self, cut: torch.Tensor, rows: Any) -> torch.Tensor:
        v = self.walk(cut, rows)
        return torch.cat([self._layer(k, v, rows) for k in self.cut], 1)

    def _layer(self, k: int, v: Sequence[Any], rows: Any) -> torch.Tensor:
        total = self.g[k][rows]
        for post, weight in self.out_of[k]:
            total = total + v[post] @ weight.mT
        return self.gamma[k][rows] * total
