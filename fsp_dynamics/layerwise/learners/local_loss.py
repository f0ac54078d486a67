"""Local learning (Nokland and Eidnes 2019), figure 1f: every block learns from a loss of its own,
by backpropagation through an auxiliary network; `predsim` of their code.

    L = (1 - beta) CE(D h, y) + beta MSE(R(V h), R(onehot)),    beta = .99

R(x) holds the cosine of every pair of samples, of x less its mean over features; of the standard
deviation over each map, where there are maps. V is as wide as the layer: linear, or a convolution
of 3 x 3, without bias. D, the decoder, begins at 0; before it, maps are averaged until no more
than 2048 numbers are left (their setting for VGG8b on CIFAR-10).

Activities are detached between blocks, and the classification layer learns from the last one. As
with every learner here the loss is taken after dropout, where their code takes it before. Each
layer is an exit: its decoder predicts.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from fsp_dynamics.layerwise.blocks import Block
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.networks import KERNEL, drawing
from fsp_dynamics.layerwise.properties import Properties
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import OutputStage, Stage

DECODED = 2048  # numbers that enter a decoder, at most
PLACE = 3000  # of the auxiliary networks' streams, beyond any block


class Decoder(nn.Module):
    """What one block is read by. size : shape of its activity. outputs : numbers that it gives."""

    def __init__(self, size: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.pool = pool_of(size)
        self.linear: nn.Linear = nn.Linear(decoded(size, self.pool), outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def pooled(self, h: torch.Tensor) -> torch.Tensor:
        """Maps averaged to the windows of the decoder."""
        return h if h.ndim == 2 or self.pool == (1, 1) else functional.avg_pool2d(h, self.pool, ceil_mode=True)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(B, outputs)."""
        return self.linear(self.pooled(h).flatten(1))

    def scores(self, h: torch.Tensor) -> torch.Tensor:
        """(B, classes), what it takes images for."""
        found: torch.Tensor = self(h)
        return found


class LocalStage(Stage):
    """A block, its decoder, and the layer through which its activities are compared."""

    is_exit = True
    beta = 0.99
    """Share of the similarity."""

    def __init__(self, name: str, block: Block, decoder: Decoder, compared: nn.Module, rate: float) -> None:
        super().__init__(name, [block, decoder, compared], rate)
        self.block, self.decoder, self.compared = block, decoder, compared

    def forward(self, signal: Signal) -> Signal:
        return Signal(self.block(signal.h))

    def scores(self, signal: Signal) -> torch.Tensor:
        return self.decoder.scores(signal.h)

    def loss(self, signal: Signal, labels: torch.Tensor) -> torch.Tensor:
        """See the module."""
        logits = self.decoder(signal.h)
        like = similarity(functional.one_hot(labels, logits.shape[1]).to(logits.dtype))
        alike = functional.mse_loss(similarity(self.compared(signal.h)), like)
        return (1 - self.beta) * functional.cross_entropy(logits, labels) + self.beta * alike


class LocalLoss(Learner):
    """See the module. Blocks learn at `rate`, the classification layer at `output_rate`."""

    name = "ll-bp"
    properties = Properties(
        "LL-BP",
        "f",
        "local",
        "local",
        backprop_error=True,
        direct_target=True,
        local_loss=True,
        marks=(("forward_locked", "†"), ("backward_locked", "†"), ("direct_target", "°")),
    )
    is_forward_unlocked = True

    def make_stages(self) -> list[Stage]:
        sized = enumerate(zip(self.network.blocks, self.network.sizes, strict=True), 1)
        blocks = [self.make_stage(k, block, size) for k, (block, size) in sized]
        return [*blocks, OutputStage(self.network, self.settings.output_rate)]

    def make_stage(self, k: int, block: Block, size: tuple[int, ...]) -> Stage:
        """Block k, whose activity has that shape, with its decoder."""
        name = f"layer{k}"
        with drawing(self.seed, PLACE, k):
            compared = (
                nn.Conv2d(size[0], size[0], KERNEL, padding=1, bias=False)
                if block.is_conv
                else nn.Linear(size[0], size[0], bias=False)
            )
        decoder = self.add_exit(name, Decoder(size, self.network.classes))
        return LocalStage(name, block, decoder, self.add(name, compared), self.settings.rate)


def similarity(x: torch.Tensor) -> torch.Tensor:
    """(B, B), the cosine of every pair of samples x (B, n) or (B, channels, height, width), each
    less its mean. Of maps in more than three channels, each channel counts by its standard
    deviation.

    >>> similarity(torch.tensor([[1.0, 0.0], [3.0, 1.0], [0.0, 2.0]])).round().int().tolist()
    [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
    """
    if x.ndim == 4:
        x = x.flatten(2).std(2) if x.shape[1] > 3 and x.shape[2] > 1 else x.flatten(1)
    x = x - x.mean(1, keepdim=True)
    x = x / (1e-8 + torch.linalg.vector_norm(x, dim=1, keepdim=True))
    return (x @ x.T).clamp(-1, 1)


def pool_of(size: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of the windows over which maps are averaged, doubled in turns until no more
    than DECODED numbers are left.

    >>> pool_of((128, 32, 32)), pool_of((512, 4, 4)), pool_of((500,))
    ((8, 8), (2, 2), (1, 1))
    """
    pool = [1, 1]
    while len(size) == 3 and decoded(size, (pool[0], pool[1])) > DECODED and pool[1] < size[2]:
        pool[0 if pool[0] == pool[1] else 1] *= 2
    return pool[0], pool[1]


def decoded(size: tuple[int, ...], pool: tuple[int, int]) -> int:
    """The numbers that are left."""
    return size[0] * math.prod(math.ceil(side / each) for side, each in zip(size[1:], pool, strict=False))
