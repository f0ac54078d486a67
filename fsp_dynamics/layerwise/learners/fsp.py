"""Forward signal propagation: every block learns from how close its activity is to its target, and
sends both on (eq. 1 to 4 and 9).
"""

from __future__ import annotations

import torch
from torch import nn

from fsp_dynamics.layerwise.blocks import Block
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.properties import Properties
from fsp_dynamics.layerwise.scores import Closeness
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import OutputStage, Stage
from fsp_dynamics.layerwise.targets import LOOPED, Context, TargetGenerator, context_of, generator_of


class TargetStage(Stage):
    """A block, which makes the activity and the targets of its layer of those of the one before."""

    is_exit = True

    def __init__(self, name: str, block: Block, score: Closeness, rate: float, *more: nn.Module) -> None:
        super().__init__(name, [block, *more], rate)
        self.block, self.score = block, score

    def forward(self, signal: Signal) -> Signal:
        return self.block.signal(signal)

    def scores(self, signal: Signal) -> torch.Tensor:
        return self.score(signal)

    def loss(self, signal: Signal, labels: torch.Tensor) -> torch.Tensor:
        return self.score.loss(signal, labels)


class FirstStage(TargetStage):
    """The first block and the target generator: the loss of the first layer trains both."""

    def __init__(self, block: Block, generator: TargetGenerator, score: Closeness, rate: float) -> None:
        super().__init__("layer1", block, score, rate, generator)
        self.generator = generator
        self.context: Context | None = None

    def forward(self, signal: Signal) -> Signal:
        h = self.block(signal.h)
        return Signal(h, self.block.started(self.generator(h, self.context)))


class ForwardSignalPropagation(Learner):
    """See the module. 2b has a classification layer, 2a predicts by the last layer's score."""

    name = "fsp"
    takes_spikes = True
    has_targets = True
    properties = Properties("FSP", "h", "none", "none", forprop_target=True, local_loss=True, global_signal=True)

    @property
    def is_forward_unlocked(self) -> bool:  # type: ignore[override]
        """Unless the targets listen to the output."""
        return self.settings.generator not in LOOPED

    @property
    def locked_by(self) -> str:  # type: ignore[override]
        return (
            f"targets.generator = {self.settings.generator!r} listens to the output, as target-only and target-input "
            "do not"
        )

    def make_stages(self) -> list[Stage]:
        given = self.settings
        self.generator = generator_of(
            self.network,
            given.generator,
            sparse=given.sparse,
            layer_norm=given.layer_norm,
            eta=given.eta,
            seed=self.seed,
        )
        like = next(self.network.parameters())
        self.network.generator = self.generator.to(like.device, like.dtype)
        first, *later = self.network.blocks
        score = self.network.shape.closeness(given.score, given.compared)
        self.first = FirstStage(first, self.generator, score, given.rate)
        stages: list[Stage] = [self.first]
        for k, block in enumerate(later, 2):
            stages.append(TargetStage(f"layer{k}", block, score, given.rate))
        if self.network.head is not None:
            stages.append(OutputStage(self.network, given.output_rate))
        return stages

    def begin(self, images: torch.Tensor) -> Signal:
        """A forward pass first, where the targets listen to its output."""
        signal = super().begin(images)
        if self.settings.generator in LOOPED:
            self.first.context = context_of(self.network, signal.h)
        return signal
