"""`Signal`: what goes forward from layer to layer."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Signal(NamedTuple):
    """The activity h of a layer and its targets t, both outputs of the same weights (eq. 2, 3).

    h : (B, n) or (B, channels, height, width). t : one target for each class, (classes, ...), or
    one for each sample and class, (B, classes, ...); None where a learner has none.

    >>> h = torch.zeros(5, 3)
    >>> Signal(h).per_sample, Signal(h, torch.zeros(5, 10, 3)).per_sample
    (False, True)
    >>> Signal(h.requires_grad_()).detach().h.requires_grad
    False
    """

    h: torch.Tensor
    t: torch.Tensor | None = None

    @property
    def per_sample(self) -> bool:
        """Whether every sample has targets of its own."""
        return self.t is not None and self.t.ndim > self.h.ndim

    def detach(self) -> Signal:
        """The same numbers, through which no gradient passes.

        Returns
        -------
        Signal : of the same shapes.
        """
        return Signal(self.h.detach(), None if self.t is None else self.t.detach())
