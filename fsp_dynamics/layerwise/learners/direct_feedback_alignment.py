"""Direct feedback alignment (Nokland 2016), figure 1c: the error of the output reaches every block
directly, through fixed random weights of its own.

    e = (softmax - onehot) / B;    dh_k = e F_k    for the whole activity of block k

Inside a block the gradient is exact, and the classification layer follows the exact gradient of its
cross-entropy. In a convolution F_k has a number for every place of every map. Blocks learn when the
forward pass has ended, each apart from the others.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from fsp_dynamics.layerwise.blocks import Block
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.networks import drawing
from fsp_dynamics.layerwise.properties import Properties
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import LateStage, OutputStage, Stage, autocast

_PLACE = 2000  # of the feedback's streams, beyond any block


class ErrorFeedback(nn.Module):
    """Fixed random weights from the classes to an activity of shape `size`."""

    def __init__(self, classes: int, size: tuple[int, ...], seed: int, place: int) -> None:
        super().__init__()
        self.size = size
        with drawing(seed, _PLACE, place):
            drawn = torch.empty(classes, math.prod(size)).uniform_(-1, 1) / math.sqrt(classes)
        self.register_buffer("weight", drawn)

    def forward(self, error: torch.Tensor) -> torch.Tensor:
        """(B, classes) -> (B, *size)."""
        return (error @ self.weight).unflatten(1, self.size)


class FedStage(LateStage):
    """A block, and the feedback that brings the error of the output."""

    def __init__(self, name: str, block: Block, feedback: ErrorFeedback, rate: float) -> None:
        super().__init__(name, block, rate)
        self.feedback = feedback


class DirectFeedbackAlignment(Learner):
    """See the module. Blocks learn at `rate`, the classification layer at `output_rate`."""

    name = "dfa"
    properties = Properties("DFA", "c", "global", "none", direct_error=True, global_signal=True)

    def make_stages(self) -> list[Stage]:
        network = self.network
        self.fed = [
            FedStage(
                f"layer{k}",
                block,
                self.add(f"layer{k}", ErrorFeedback(network.classes, size, self.seed, k)),
                self.settings.rate,
            )
            for k, (block, size) in enumerate(zip(network.blocks, network.sizes, strict=True), 1)
        ]
        return [*self.fed, OutputStage(network, self.settings.output_rate)]

    def learn(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The forward pass, in which the classification layer learns; then the blocks."""
        signal, precision = self.begin(images), autocast(self.settings.precision, self.device)
        made: list[Signal] = []
        for stage in self.stages:
            signal = stage.step(signal, labels, precision)
            made.append(signal)
        error = error_of(signal.h, labels)
        for stage, (h, _) in zip(self.fed, made, strict=False):
            stage.late(h, stage.feedback(error).to(h.dtype))
        return self.predicted(signal)


def error_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The gradient of the mean cross-entropy with respect to the logits, (softmax - onehot) / B.

    >>> error_of(torch.zeros(1, 4), torch.tensor([1])).tolist()
    [[0.25, -0.75, 0.25, 0.25]]
    """
    logits = logits.detach()
    return (logits.softmax(1) - functional.one_hot(labels, logits.shape[1]).to(logits.dtype)) / len(labels)
