"""Backpropagation: the whole network is one stage."""

from __future__ import annotations

import torch
from torch.nn import functional

from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.networks import LayerwiseNetwork
from fsp_dynamics.layerwise.properties import Properties
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import Stage


class WholeStage(Stage):
    """All blocks and the classification layer, in one graph."""

    is_exit = True

    def __init__(self, network: LayerwiseNetwork, rate: float) -> None:
        super().__init__("output", [network], rate)
        self.network = network

    def forward(self, signal: Signal) -> Signal:
        """The logits (B, classes)."""
        assert self.network.head is not None
        return Signal(self.network.head(self.network.last(self.network.activities(signal.h)[-1])))

    def scores(self, signal: Signal) -> torch.Tensor:
        return signal.h

    def loss(self, signal: Signal, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(signal.h, labels)


class Backpropagation(Learner):
    """The gradient of the cross-entropy of the output, all parameters at `rate`."""

    name = "bp"
    takes_spikes = True
    properties = Properties("BP", "a", "global", "global", backprop_error=True, global_signal=True)

    def make_stages(self) -> list[Stage]:
        return [WholeStage(self.network, self.settings.rate)]
