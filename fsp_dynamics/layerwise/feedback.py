"""Weights whose backward pass goes through fixed random weights: feedback alignment (Lillicrap et
al. 2016).

    z = W x + b;    dL/dW = dz x^T,  dL/db = dz,    dL/dx = F^T dz   in place of W^T dz
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fsp_dynamics.layerwise.networks import drawing


class Feedback(nn.Module):
    """Fixed random weights of the shape and the distribution of those of a layer, as part of what a
    learner keeps: `weight`, which no gradient reaches.
    """

    def __init__(self, weights: nn.Linear | nn.Conv2d, seed: int, *place: int) -> None:
        """Draw them from the stream of that place."""
        super().__init__()
        with drawing(seed, *place):
            drawn = nn.Parameter(torch.empty(weights.weight.shape))
            nn.init.kaiming_uniform_(drawn, a=5**0.5)  # as torch draws the weights of layers
        self.register_buffer("weight", drawn.detach())


class AlignedLinear(nn.Linear):
    """A linear layer, with the parameters of another, whose backward pass goes through feedback."""

    def __init__(self, linear: nn.Linear, feedback: Feedback) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.feedback = (feedback,)  # kept with the learner, not with the network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Aligned.apply(x, super().forward(x.detach()), self.feedback[0].weight, None)


class AlignedConv2d(nn.Conv2d):
    """A convolution, with the parameters of another, whose backward pass goes through feedback."""

    def __init__(self, conv: nn.Conv2d, feedback: Feedback) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            padding=conv.padding,
            bias=conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.feedback = (feedback,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = super().forward(x.detach())
        return _Aligned.apply(x, z, self.feedback[0].weight, self.padding)


def aligned(weights: nn.Linear | nn.Conv2d, feedback: Feedback) -> AlignedLinear | AlignedConv2d:
    """The same layer, whose backward pass goes through feedback."""
    return AlignedConv2d(weights, feedback) if isinstance(weights, nn.Conv2d) else AlignedLinear(weights, feedback)


class _Aligned(torch.autograd.Function):
    """z, which was made of a detached x; what reaches z goes on to the parameters, and to x by the
    feedback.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, z: torch.Tensor, feedback: torch.Tensor, padding: Any) -> torch.Tensor:
        ctx.save_for_backward(feedback)
        ctx.size, ctx.padding, ctx.dtype = x.shape, padding, x.dtype
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None, None]:
        (dz,), (feedback,) = given, ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            return None, dz, None, None
        feedback = feedback.to(dz.dtype)
        if ctx.padding is None:
            dx = dz @ feedback
        else:
            dx = torch.nn.grad.conv2d_input(ctx.size, feedback, dz, padding=ctx.padding)
        return dx.to(ctx.dtype), dz, None, None
