"""Synthetic gradients (Jaderberg et al. 2017, "decoupled neural interfaces"), figure 1g: beside
every block a linear module predicts the gradient at its activity, and the block follows that
prediction at once.

    g_k = M_k [h_k, onehot] + m_k           predicted, for one sample
    block k follows g_k / B at h_k
    M_k learns from |g_k - G_k|^2, G_k = the gradient that block k + 1 passes back to h_k

G_k is what block k + 1 gets when it follows its own prediction, before its weights move
(bootstrapped); behind the last block it is the exact gradient of the cross-entropy. Modules are
conditioned on the label and begin at 0, as in their experiments with MNIST; a gradient stands for
one sample, so that its size does not depend on the batch. Modules learn at the rate of the blocks.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from fsp_dynamics.layerwise.blocks import Block
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.properties import Properties
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import LateStage, OutputStage, Stage, autocast


class GradientModule(nn.Module):
    """Predicts the gradient of one sample's loss at an activity of so many units."""

    def __init__(self, units: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.linear = nn.Linear(units + classes, units)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(B, units)."""
        h = h.to(self.linear.weight.dtype)
        onehot = functional.one_hot(labels, self.classes).to(h.dtype)
        return self.linear(torch.cat([h, onehot], 1))


class SyntheticStage(LateStage):
    """A block, and the module that predicts its gradient."""

    def __init__(self, name: str, block: Block, gradient: GradientModule, rate: float) -> None:
        super().__init__(name, block, rate, gradient)
        self.gradient = gradient

    def teach(self, h: torch.Tensor, labels: torch.Tensor, passed: torch.Tensor) -> None:
        """Learn to predict the gradients (B, units) that were passed back to the activity h."""
        self.learn(((self.gradient(h, labels) - passed) ** 2).sum(1).mean())


class SyntheticGradients(Learner):
    """See the module. Blocks learn at `rate`, the classification layer at `output_rate`."""

    name = "sg"
    only_units = True
    properties = Properties(
        "SG",
        "g",
        "local",
        "none",
        backprop_error=True,
        direct_target=True,
        marks=(("forward_locked", "*"), ("backward_locked", "*"), ("direct_target", "°"), ("global_signal", "*")),
    )

    def make_stages(self) -> list[Stage]:
        network = self.network
        self.predicted_by = [
            SyntheticStage(
                f"layer{k}",
                block,
                self.add(f"layer{k}", GradientModule(units, network.classes)),
                self.settings.rate,
            )
            for k, (block, (units,)) in enumerate(zip(network.blocks, network.sizes, strict=True), 1)
        ]
        return [*self.predicted_by, OutputStage(network, self.settings.output_rate)]

    def learn(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Each block by its prediction; then the module before it by what it passes back."""
        signal, precision = self.begin(images), autocast(self.settings.precision, self.device)
        for stage, before in zip(self.stages, [None, *self.predicted_by], strict=True):
            entering = signal.h.detach().requires_grad_(before is not None)
            with precision:
                signal = stage.forward(Signal(entering))
                loss = stage.loss(signal, labels)
            scale = 1.0 if stage.scaler is None else stage.scaler.get_scale()
            if isinstance(stage, SyntheticStage):
                with torch.no_grad():
                    predicted = stage.gradient(signal.h, labels)
                stage.late(signal.h, predicted / len(labels))
            elif loss is not None:
                stage.learn(loss)
            if before is not None:
                assert entering.grad is not None
                before.teach(entering.detach(), labels, entering.grad * (len(labels) / scale))
        return self.predicted(signal)
