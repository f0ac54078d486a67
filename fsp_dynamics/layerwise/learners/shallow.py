"""Shallow: the blocks stay as they were drawn, and the classification layer alone learns. What any
learner of hidden layers must beat.
"""

from __future__ import annotations

from fsp_dynamics.layerwise.blocks import Block
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import OutputStage, Stage


class FixedStage(Stage):
    """A block that learns nothing; the running statistics of its batch norm follow the images."""

    def __init__(self, name: str, block: Block) -> None:
        super().__init__(name, [], 0.0)
        self.block = block

    @property
    def holds(self) -> list[Block]:
        """The block, for its running statistics and masks."""
        return [self.block]

    def forward(self, signal: Signal) -> Signal:
        return Signal(self.block(signal.h))

    def loss(self, signal: Signal, labels: object) -> None:
        return None


class Shallow(Learner):
    """See the module."""

    name = "shallow"
    takes_spikes = True
    is_forward_unlocked = True

    def make_stages(self) -> list[Stage]:
        blocks: list[Stage] = [FixedStage(f"layer{k}", block) for k, block in enumerate(self.network.blocks, 1)]
        return [*blocks, OutputStage(self.network, self.settings.output_rate)]
