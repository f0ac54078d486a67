"""Difference target propagation (Lee et al. 2015), figure 1d: every layer gets a target, an
activity that would have made the output better, from the target of the layer after it.

    t_out = z - (softmax - onehot)                    z: the logits
    t_k   = h_k + g_k+1(t_k+1) - g_k+1(h_k+1)         the difference corrects a poor inverse
    block k learns from |h_k - t_k|^2,  g_k from |g_k(f_k(h + noise)) - (h + noise)|^2,  h = h_k-1

f_k is block k without dropout, normalised by the statistics of what it is given; the noise is
normal, with deviation .1. g_k is linear, then a leaky ReLU. Squares are summed over units and
averaged over the batch. The classification layer follows the exact gradient of its cross-entropy.
In their experiments the last hidden layer gets its target by the gradient through the
classification layer; here an inverse of that layer brings it, so that no weight is used backward.
All inverses learn at the rate of the blocks, from the activities of the same batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from fsp_dynamics.layerwise.blocks import SLOPE, Block, Noise
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.learners.direct_feedback_alignment import error_of
from fsp_dynamics.layerwise.networks import LayerwiseNetwork, drawing, seed_of
from fsp_dynamics.layerwise.properties import Properties
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import OutputStage, Stage, autocast

DEVIATION = 0.1  # of the noise
_PLACE = 4000  # of the streams of inverses and noise, beyond any block


class Inverse(nn.Module):
    """What brings a target of one layer, (B, units), to the one before, (B, before)."""

    def __init__(self, units: int, before: int, seed: int, k: int) -> None:
        super().__init__()
        with drawing(seed, _PLACE, k):
            self.linear = nn.Linear(units, before)
        self.noise = Noise(DEVIATION, seed_of(seed, _PLACE, k, 1))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """g(h)."""
        return functional.leaky_relu(self.linear(h), SLOPE)

    def corrected(self, before: torch.Tensor, h: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The target of the layer before, whose activity is `before`: before + g(t) - g(h)."""
        return before + self(t) - self(h)

    def loss(self, before: torch.Tensor, forward: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """How far g(f(h + noise)) is from h + noise, h the activity of the layer before."""
        noisy = self.noise(before)
        with torch.no_grad():
            made = forward(noisy)
        return squared(self(made), noisy)


class TargetedStage(Stage):
    """A block that learns from its target, and, but for the first, the inverse of the block."""

    def __init__(self, name: str, block: Block, inverse: Inverse | None, rate: float) -> None:
        super().__init__(name, [block] if inverse is None else [block, inverse], rate)
        self.block, self.inverse = block, inverse
        self.target: torch.Tensor | None = None

    def forward(self, signal: Signal) -> Signal:
        return Signal(self.block(signal.h))

    def loss(self, signal: Signal, labels: torch.Tensor) -> torch.Tensor | None:
        """How far the activity is from its target, where that has come."""
        return None if self.target is None else squared(signal.h, self.target)


class InvertedOutput(OutputStage):
    """The classification layer, and its inverse."""

    def __init__(self, network: LayerwiseNetwork, inverse: Inverse, rate: float) -> None:
        super().__init__(network, rate, inverse)
        self.inverse = inverse


class TargetPropagation(Learner):
    """See the module. Blocks and inverses learn at `rate`, the classification layer and its inverse
    at `output_rate`.
    """

    name = "dtp"
    only_units = True
    properties = Properties("TP", "d", "global", "global", backprop_target=True, local_loss=True, global_signal=True)

    def make_stages(self) -> list[Stage]:
        network, rate = self.network, self.settings.rate
        units = [size[0] for size in network.sizes]
        self.targeted = []
        for k, block in enumerate(network.blocks, 1):
            inverse = self.add(f"layer{k}", Inverse(units[k - 1], units[k - 2], self.seed, k)) if k > 1 else None
            self.targeted.append(TargetedStage(f"layer{k}", block, inverse, rate))
        inverse = self.add("output", Inverse(network.classes, units[-1], self.seed, 0))
        self.output = InvertedOutput(network, inverse, self.settings.output_rate)
        return [*self.targeted, self.output]

    def learn(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The forward pass, targets from the output to the first layer, then all learn."""
        signal, precision = self.begin(images), autocast(self.settings.precision, self.device)
        made: list[Signal] = []
        for stage in self.stages:
            with precision:
                signal = stage.forward(signal.detach())
            made.append(signal)
        activities = [each.h.detach().to(images.dtype) for each in made]
        self.aim(activities, labels)
        for stage, each in zip(self.stages, made, strict=True):
            loss = stage.loss(each, labels)
            assert loss is not None
            stage.learn(loss)
        for stage in self.targeted:
            stage.target = None
        self.invert(activities)
        return self.predicted(signal)

    @torch.no_grad()
    def aim(self, activities: Sequence[torch.Tensor], labels: torch.Tensor) -> None:
        """Give every block its target, by the activities of all layers and the output."""
        t = activities[-1] - error_of(activities[-1], labels) * len(labels)
        inverse: Inverse | None = self.output.inverse
        for k in reversed(range(len(self.targeted))):
            assert inverse is not None
            t = inverse.corrected(activities[k], activities[k + 1], t)
            self.targeted[k].target, inverse = t, self.targeted[k].inverse

    def invert(self, activities: Sequence[torch.Tensor]) -> None:
        """Each inverse learns from the activities of the layer before its own."""
        for k, stage in enumerate(self.targeted):
            if stage.inverse is not None:
                stage.learn(stage.inverse.loss(activities[k - 1], _map_of(stage.block)))
        self.output.learn(self.output.inverse.loss(activities[-2], self.output.network.head))


def squared(h: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The squared distance, mean over the batch."""
    return ((h - t) ** 2).sum(1).mean()


def _map_of(block: Block) -> Callable[[torch.Tensor], torch.Tensor]:
    """f, as the module says."""
    return lambda h: block.target(h, per_sample=False)
