"""`Block`: one layer of a discrete network, the same for activities and for their targets.

    pool -> weights -> batch norm -> leaky ReLU (slope .01) -> dropout

The loss is taken of what a block gives. The pool stands before the weights: it belongs to the way
from the last block, whose loss sees the activity before it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from fsp_dynamics.errors import ShapeError
from fsp_dynamics.layerwise.signal import Signal

SLOPE = 0.01  # of the leaky ReLU, section IV


class Drawing(nn.Module):
    """Draws from `generator`, whose state `generator.get_state()` belongs to a checkpoint."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator()
        self.generator.manual_seed(seed)


class Noise(Drawing):
    """Adds normal noise of that deviation, also to predictions."""

    def __init__(self, deviation: float, seed: int) -> None:
        super().__init__(seed)
        self.deviation = deviation

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        drawn = torch.randn(h.shape, generator=self.generator)
        return h + self.deviation * drawn.to(h.device, h.dtype)


class Dropout(Drawing):
    """Sets activities to 0 with probability `p` while learning, the others to 1 / (1 - p) of what
    they are. torch's own dropout has no generator of its own.
    """

    def __init__(self, p: float, seed: int) -> None:
        super().__init__(seed)
        self.p = p

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return h
        # from the CPU's stream on every device, so that a run may change its device
        kept = (torch.rand(h.shape, generator=self.generator) >= self.p).to(h.device)
        return h * kept / (1 - self.p)


class Block(nn.Module):
    """One layer. weights : `nn.Linear` or `nn.Conv2d`. pool : side of the squares of the input
    whose maximum is taken; 1: none. dropout : probability. normalised : whether there is batch
    norm. sparse : whether targets that are maps stand for whole ones (section III-E): they skip the
    pool, and one of the kernel's size is taken with it once. seed : of the dropout's masks.
    """

    def __init__(
        self,
        weights: nn.Linear | nn.Conv2d,
        *,
        pool: int = 1,
        dropout: float = 0.0,
        normalised: bool = True,
        sparse: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.weights, self.pool, self.sparse = weights, pool, sparse
        size = weights.weight.shape[0]
        kind = nn.BatchNorm2d if self.is_conv else nn.BatchNorm1d
        self.norm = kind(size) if normalised else None
        if self.norm is not None:
            self.norm.num_batches_tracked = None  # counts for nothing
        self.dropout = Dropout(dropout, seed)

    @property
    def is_conv(self) -> bool:
        """Whether the weights are a convolution."""
        return isinstance(self.weights, nn.Conv2d)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """The activity of the input h (B, ...); while learning, running statistics follow it."""
        z = self.weights(self._shaped(functional.max_pool2d(h, self.pool) if self.pool > 1 else h))
        return self.dropout(self._activated(z if self.norm is None else self.norm(z)))

    def target(self, t: torch.Tensor, *, per_sample: bool) -> torch.Tensor:
        """The target that the weights make of the targets t, (classes, ...), or (B, classes, ...)
        where per_sample. They are normalised by statistics of their own, of all classes together
        (of each sample apart, where it has its own), and never dropped.

        Into a layer of units a target with fewer numbers is filled up with zeros.
        """
        if per_sample:
            return self._own_normed(self._weighted(t.flatten(0, 1)).unflatten(0, t.shape[:2]))
        return self._own_normed(self._weighted(t)[None])[0]

    def _weighted(self, t: torch.Tensor) -> torch.Tensor:
        """Weights, for targets (N, ...)."""
        if not isinstance(self.weights, nn.Conv2d):
            return self.weights(filled(self._pooled(t).flatten(1), self.weights.in_features))
        if self.sparse and t.shape[-2:] == self.weights.kernel_size:
            return functional.conv2d(t, self.weights.weight, self.weights.bias)
        return self.weights(self._pooled(t))

    def _pooled(self, t: torch.Tensor) -> torch.Tensor:
        if self.pool == 1 or self.sparse:
            return t
        return functional.max_pool2d(t, self.pool)

    def _own_normed(self, z: torch.Tensor) -> torch.Tensor:
        """Batch norm by their own statistics, over the classes of each sample; z (samples, classes,
        units, ...), and activation.
        """
        if self.norm is None:
            return self._activated(z)
        samples, classes, units = z.shape[:3]
        if classes == 1 and z[0, 0, 0].numel() == 1:
            raise ShapeError("targets of one class alone cannot be normalised; give two or more classes")
        # the samples stand beside the units, so that each has statistics of its own
        wide = z.transpose(0, 1).reshape(classes, samples * units, *z.shape[3:])
        scale, shift = (p.repeat(samples) for p in (self.norm.weight, self.norm.bias))
        wide = functional.batch_norm(wide, None, None, scale, shift, training=True, eps=self.norm.eps)
        return self._activated(wide.reshape(classes, samples, units, *z.shape[3:]).transpose(0, 1))

    def started(self, t: torch.Tensor) -> torch.Tensor:
        """The targets of the first block, of what the generator makes."""
        return t

    def last(self, h: torch.Tensor, pool: int) -> torch.Tensor:
        """What it gives, h (B, ...), pooled, as a classification layer takes it: (B, n)."""
        return (functional.max_pool2d(h, pool) if pool > 1 else h).flatten(1)

    def signal(self, given: Signal) -> Signal:
        """Both ways at once, (eq. 2): the activity, and the targets where there are any."""
        t = None if given.t is None else self.target(given.t, per_sample=given.per_sample)
        return Signal(self(given.h), t)

    def _shaped(self, h: torch.Tensor) -> torch.Tensor:
        return h if self.is_conv else h.flatten(1)

    def _activated(self, z: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(z, SLOPE)


def filled(t: torch.Tensor, size: int) -> torch.Tensor:
    """t (N, k) with zeros after it, (N, size). Raises ShapeError where k is larger."""
    if t.shape[1] > size:
        raise ShapeError(f"targets have {t.shape[1]} numbers, the next weights take {size}; give a smaller sparse size")
    return t if t.shape[1] == size else functional.pad(t, (0, size - t.shape[1]))
