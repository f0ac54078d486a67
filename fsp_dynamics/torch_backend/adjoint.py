"""Gradients of the equilibrium by implicit differentiation.

One pass with a graph leads from the images and the weights to what enters the units at equilibrium,
a_k; how the rates there answer a change of the a_k is the adjoint of solvers/response.py:

    v_i = gamma_i (g_i + sum_j w_ij v_j)
    v = dL/da, g = dL/d rho, gamma = p^2 / (leak - rho''(s) a), p = rho'(s)

For a hard sigmoid gamma is r for units strictly inside (0, 1) and 0 for all others. In a
feedforward loop it is an n_L x n_L problem for each sample:

    (I - gamma_L C) v_L = v_L of the hidden g alone
    C = loop gamma_1 forward[0] ... gamma_L-1 forward[L-2]

Reciprocal networks solve it by Anderson mixing over their cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.network import Network, cut_layers
from fsp_dynamics.models.rate import total_input, unit_target
from fsp_dynamics.torch_backend.anderson import History
from fsp_dynamics.torch_backend.products import without_autocast
from fsp_dynamics.torch_backend.tensors import TensorState

MAX_PASSES = 1000
CHUNK = 64  # samples whose (n_L, n_k) chains are in memory at once
# the weights between layers, on which the adjoint depends
JOINING = ("forward", "loop", "backward")


def attached(network: Network, drive: torch.Tensor, state: TensorState) -> TensorState:
    """The rates at this equilibrium, with their first derivatives in the drive and the weights of
    `network`. Higher ones are refused.
    """
    rates = tuple(network.rho.rate(s) for s in state)
    a = total_input(network, drive, rates)
    # no number, but as much a function of images and weights as all a_k are
    trace = torch.cat([a_k[:0] for a_k in a], 1)
    found: TensorState = _AtEquilibrium.apply(network, state, rates, trace, *a)
    return found


class _AtEquilibrium(torch.autograd.Function):
    """The inputs a_k (B, n_k) at equilibrium -> the rates there."""

    @staticmethod
    def forward(
        ctx: Any, network: Network, state: TensorState, rates: TensorState, trace: torch.Tensor, *a: torch.Tensor
    ) -> Any:
        given: dict[str, Any] = network.parameters()
        detached = {name: weight.detach() for name, weight in given.items()}
        ctx.network = network.with_parameters(detached)
        ctx.names = [name for name in detached if name.startswith(JOINING)]
        weights = [detached[name] for name in ctx.names]
        # torch refuses saved weights that were changed in place since
        ctx.save_for_backward(trace, *_answers(network, state, a), *weights)
        return rates

    @staticmethod
    def backward(ctx: Any, *g: torch.Tensor) -> Any:
        trace, *saved = ctx.saved_tensors
        gamma, weights = tuple(saved[: len(g)]), saved[len(g) :]
        with torch.no_grad(), without_autocast(g[-1].device):
            fixed = ctx.network.with_parameters(dict(zip(ctx.names, weights, strict=True)))
            back = _BackPass(fixed, gamma, g)
            v = back.follow(back.through_loop() if fixed.loop is not None else back.iterated())
        return None, None, None, None, *(_FirstOnly.apply(len(v), *v, *g, trace) if torch.is_grad_enabled() else v)


class _FirstOnly(torch.autograd.Function):
    """The first `count` of these tensors, unchanged. All are inputs, so that every path to a
    second derivative meets the refusal.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *given: torch.Tensor) -> Any:
        return tuple(each.clone() for each in given[:count])

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        raise ConfigurationError("to_torch() without passes has first derivatives only; give passes=K for higher ones")


def _answers(network: Network, state: TensorState, a: TensorState) -> TensorState:
    """gamma of each layer (B, n_k): how its rates answer a change of what enters them."""
    rho, layers = network.rho, [(a_k, 1 / r) for a_k, r in zip(a, network.time_constants, strict=True)]
    if rho.projected:  # decided by where the unit would rest: its state is 0 within the tolerance only
        aims = [(unit_target(a_k, leak, 0.0, 0.0), leak) for a_k, leak in layers]
        return tuple(((aim > 0) & (aim < 1)).to(aim.dtype) / leak for aim, leak in aims)
    curvature: Any = rho.curvature
    return tuple(rho.slope(s) ** 2 / (leak - curvature(s) * a_k) for s, (a_k, leak) in zip(state, layers, strict=True))


class _BackPass:
    """The pass of the adjoint: v of the cut -> v of all other layers -> gamma (g + W v) of the
    cut.
    """

    def __init__(self, network: Network, gamma: TensorState, g: TensorState) -> None:
        self.network, self.gamma, self.g = network, gamma, g
        self.cut = cut_layers(network)
        self.inner = [k for k in range(network.depth - 1, -1, -1) if k not in self.cut]
        self.sizes = [network.sizes[k + 1] for k in self.cut]
        self.out_of = [[(c.post, c.weight) for c in network.connections() if c.pre == k] for k in range(network.depth)]

    def follow(self, cut: torch.Tensor, rows: Any = slice(None)) -> list[Any]:
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
        """v of the cut (B, n_cut) by mixed passes (`anderson`), converged samples leaving. Raises
        ConfigurationError where they do not find it.
        """
        v = torch.cat([torch.zeros_like(self.g[k]) for k in self.cut], 1)
        alone, limits = self._next(v, slice(None)), torch.finfo(v.dtype)
        within = 10 * limits.eps * alone.norm(dim=1) + limits.tiny
        found, history = torch.full_like(v, torch.nan), History.empty(v)
        rows = within.isfinite().nonzero()[:, 0]
        v, history = v[rows], history.rows(rows)
        for _ in range(MAX_PASSES):
            target = self._next(v, rows)
            running = ~((target - v).norm(dim=1) <= within[rows])
            found[rows[~running]] = v[~running]
            if not running.any():
                return found
            v = history.next(v, target, running, boxed=False)[0][running]
            rows, history = rows[running], history.rows(running)
        raise ConfigurationError(
            "the gradient did not converge: the network amplifies a small change at this equilibrium; "
            "weaken its weights"
        )

    def _next(self, cut: torch.Tensor, rows: Any) -> torch.Tensor:
        v = self.follow(cut, rows)
        return torch.cat([self._layer(k, v, rows) for k in self.cut], 1)

    def _layer(self, k: int, v: Sequence[Any], rows: Any) -> torch.Tensor:
        total = self.g[k][rows]
        for post, weight in self.out_of[k]:
            total = total + v[post] @ weight.mT
        return self.gamma[k][rows] * total
