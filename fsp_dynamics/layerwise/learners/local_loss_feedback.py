"""Local learning without backpropagation (Nokland and Eidnes 2019, `bio` of their code): LL-FA.

    L = (1 - beta) BCE(D h, [P onehot > 0]) + beta MSE(R(h), R(P onehot)),    beta = .01

P, fixed and random, projects labels to 128 numbers, whose signs the decoder D predicts, each by
itself. D begins at 0, and its error goes back through fixed random weights (feedback alignment).
There is no similarity layer; maps are averaged as for the decoder before they are compared. All
else is as in `local_loss`. A layer takes an image for the class whose signs its decoder finds
likeliest.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from fsp_dynamics.layerwise.blocks import Block
from fsp_dynamics.layerwise.feedback import Feedback, aligned
from fsp_dynamics.layerwise.learners.local_loss import PLACE, Decoder, LocalLoss, LocalStage, similarity
from fsp_dynamics.layerwise.networks import drawing
from fsp_dynamics.layerwise.properties import Properties
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import Stage

PROJECTED = 128  # numbers to which labels are projected


class ProjectedDecoder(Decoder):
    """A decoder of the signs of projected labels. `projection` : (classes, 128)."""

    def __init__(self, size: tuple[int, ...], classes: int) -> None:
        super().__init__(size, PROJECTED)
        drawn = nn.Linear(classes, PROJECTED, bias=False).weight
        self.register_buffer("projection", drawn.detach().T.contiguous())

    @property
    def signs(self) -> torch.Tensor:
        """(classes, 128), 1 where the projection of a class is positive, else 0."""
        return (self.projection > 0).to(self.projection.dtype)

    def scores(self, h: torch.Tensor) -> torch.Tensor:
        """(B, classes): the log-likelihood of the signs of each class, but for what all share."""
        return self(h) @ self.signs.T


class SignStage(LocalStage):
    """A block and its decoder."""

    beta = 0.01
    decoder: ProjectedDecoder

    def loss(self, signal: Signal, labels: torch.Tensor) -> torch.Tensor:
        """See the module."""
        found = functional.binary_cross_entropy_with_logits(self.decoder(signal.h), self.decoder.signs[labels])
        like = similarity(self.decoder.projection[labels])
        alike = functional.mse_loss(similarity(self.decoder.pooled(signal.h)), like)
        return (1 - self.beta) * found + self.beta * alike


class LocalLossFeedback(LocalLoss):
    """See the module. Blocks learn at `rate`, the classification layer at `output_rate`."""

    name = "ll-fa"
    properties = Properties(
        "LL-FA",
        "f",
        "local",
        "local",
        direct_target=True,
        local_loss=True,
        marks=(("forward_locked", "†"), ("backward_locked", "†"), ("direct_target", "°")),
    )

    def make_stage(self, k: int, block: Block, size: tuple[int, ...]) -> Stage:
        name = f"layer{k}"
        with drawing(self.seed, PLACE, k):
            decoder = ProjectedDecoder(size, self.network.classes)
        feedback = self.add(name, Feedback(decoder.linear, self.seed, PLACE, k, 1))
        decoder.linear = aligned(decoder.linear, feedback)
        return SignStage(name, block, self.add_exit(name, decoder), feedback, self.settings.rate)
