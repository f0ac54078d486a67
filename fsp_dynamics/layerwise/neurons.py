"""`Neuron`: integrate-and-fire units in steps of time (section VI).

    v[s] = leak v[s-1] + z[s]               eq. 15 with leak 1; v before the first step is 0
    o[s] = 1 where v[s] >= threshold        a spike
    v[s] becomes 0 there                    hard reset, or v[s] - threshold: soft

v[s] before its reset is the membrane, on which losses are taken: a gradient goes from a membrane
back through earlier ones, and the reset is a constant to it. Only `fire` has a derivative that a
spike does not have, that of the surrogate

    g(x) = arctan(pi x) / pi + 1/2          eq. 16
    g'(x) = 1 / (1 + (pi x)^2)              eq. 17

with x = v - threshold.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from fsp_dynamics.errors import ConfigurationError, check_choice, check_positive
from fsp_dynamics.layerwise.names import RESETS


class Neuron(NamedTuple):
    """Units that integrate and fire. steps : of time. threshold : of the membrane. leak : share of
    a membrane that is left after a step, above 0; 1: no leak. reset : one of `names.RESETS`.

    >>> neuron = Neuron(steps=4, threshold=1.0)
    >>> membranes = neuron.membranes(torch.full((4, 1), 0.6))
    >>> [round(v, 1) for v in membranes[:, 0].tolist()], neuron.fire(membranes)[:, 0].tolist()
    ([0.6, 1.2, 0.6, 1.2], [0.0, 1.0, 0.0, 1.0])
    >>> torch.equal(neuron.steady(torch.tensor([0.6])), membranes)
    True
    >>> [round(g, 2) for g in neuron.surrogate(torch.tensor([0.0, 1.0, 2.0])).tolist()]
    [0.1, 0.5, 0.9]
    """

    steps: int = 4
    threshold: float = 1.0
    leak: float = 1.0
    reset: str = "hard"

    def check(self) -> Neuron:
        """Itself. Raises ConfigurationError for values that no neuron has.

        Returns
        -------
        Neuron

        >>> Neuron(steps=8).check().steps
        8
        """
        check_choice("network.reset", self.reset, RESETS)
        for name in ("steps", "threshold", "leak"):
            check_positive(f"network.{name}", getattr(self, name))
        if self.steps != int(self.steps):
            raise ConfigurationError(f"network.steps = {self.steps!r}, expected a whole number of steps")
        if self.leak > 1:
            raise ConfigurationError(f"network.leak = {self.leak!r}, expected at most 1: no membrane grows by itself")
        return self

    def membranes(self, current: torch.Tensor) -> torch.Tensor:
        """The membrane of every step before its reset, (steps, ...), of currents z (steps, ...).

        Returns
        -------
        tensor : of the same shape.
        """
        v, found = torch.zeros_like(current[0]), []
        for z in current:
            v = (v if self.leak == 1 else self.leak * v) + z
            found.append(v)
            fired = (v.detach() >= self.threshold).to(v.dtype)
            v = v * (1 - fired) if self.reset == "hard" else v - self.threshold * fired
        return torch.stack(found)

    def steady(self, current: torch.Tensor) -> torch.Tensor:
        """The membranes under a current (...) that is the same in all steps.

        Returns
        -------
        tensor : (steps, ...).
        """
        return self.membranes(current.expand(self.steps, *current.shape))

    def fire(self, membranes: torch.Tensor) -> torch.Tensor:
        """The spikes, 0 or 1, of membranes before their reset; backwards, eq. 17.

        Returns
        -------
        tensor : of the same shape.
        """
        fired: torch.Tensor = Spike.apply(membranes, self.threshold)
        return fired

    def surrogate(self, membranes: torch.Tensor) -> torch.Tensor:
        """g(v - threshold), eq. 16.

        Returns
        -------
        tensor : of the same shape, between 0 and 1.
        """
        return torch.arctan(math.pi * (membranes - self.threshold)) * (1 / math.pi) + 0.5


class Spike(torch.autograd.Function):
    """1 where a membrane is at the threshold or above it, else 0; its derivative is eq. 17."""

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor, threshold: float) -> torch.Tensor:
        """The spikes of membranes v, 0 or 1."""
        ctx.save_for_backward(v)
        ctx.threshold = threshold
        return (v >= threshold).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient at the spikes, times eq. 17."""
        (v,) = ctx.saved_tensors
        return gradients[0] * slope(v - ctx.threshold), None


def slope(x: torch.Tensor) -> torch.Tensor:
    """g'(x), eq. 17.

    Returns
    -------
    tensor : of the same shape, above 0 and at most 1.

    >>> slope(torch.zeros(1)).item()
    1.0
    """
    return 1 / (1 + (math.pi * x) ** 2)
