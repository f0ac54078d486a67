"""`SpikingBlock`: one layer of a network of spiking units, and how its membranes are compared.

    spikes of the layer before -> pool -> weights -> batch norm -> membranes

A block gives the membranes of its units, (steps, B, ...): the loss is taken there, before any
spike. The next block fires first. Into the first block the image goes as a current that is the same
in every step, as do the targets that the generator makes. Targets go through the same weights and
the same units, as (steps, classes, ...).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from fsp_dynamics.errors import check_choice
from fsp_dynamics.layerwise.blocks import Block
from fsp_dynamics.layerwise.names import COMPARED
from fsp_dynamics.layerwise.neurons import Neuron
from fsp_dynamics.layerwise.scores import Score
from fsp_dynamics.layerwise.signal import Signal


class SpikingBlock(Block):
    """A `Block` of units that integrate and fire. first : whether its input is a current, (B, ...),
    and not membranes, (steps, B, ...).

    >>> block = SpikingBlock(nn.Linear(3, 2), neuron=Neuron(steps=4), first=True, normalised=False)
    >>> membranes = block.forward(torch.rand(5, 3))
    >>> membranes.shape, block.last(membranes, pool=1).shape
    (torch.Size([4, 5, 2]), torch.Size([5, 2]))
    >>> later = SpikingBlock(nn.Linear(2, 6), neuron=Neuron(steps=4), first=False, normalised=False)
    >>> later.target(block.started(torch.rand(10, 2)), per_sample=False).shape
    torch.Size([4, 10, 6])
    """

    def __init__(self, weights: nn.Linear | nn.Conv2d, *, neuron: Neuron, first: bool, **settings: object) -> None:
        super().__init__(weights, **settings)  # type: ignore[arg-type]
        self.neuron, self.first = neuron, first

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """The membranes; while learning, running statistics follow the currents.

        Returns
        -------
        tensor : (steps, B, ...).
        """
        if self.first:
            return self.neuron.steady(super().forward(h))
        return self.neuron.membranes(super().forward(self._spikes(h)).unflatten(0, h.shape[:2]))

    def target(self, t: torch.Tensor, *, per_sample: bool) -> torch.Tensor:
        """The membranes of targets (steps, classes, ...), or (steps, B, classes, ...) where
        per_sample, of those of the layer before. Their currents are normalised over all steps and
        classes together; where samples have targets of their own, over the classes of each.

        Returns
        -------
        tensor : (steps, classes, ...), or (steps, B, classes, ...).
        """
        current = super().target(self._spikes(t), per_sample=per_sample)
        return self.neuron.membranes(current.unflatten(0, t.shape[:2]))

    def started(self, t: torch.Tensor) -> torch.Tensor:
        return self.neuron.steady(t)

    def last(self, h: torch.Tensor, pool: int) -> torch.Tensor:
        """The mean of the spikes over the steps.

        Returns
        -------
        tensor : (B, n).
        """
        return super().last(self._spikes(h), pool).unflatten(0, h.shape[:2]).mean(0)

    def _spikes(self, h: torch.Tensor) -> torch.Tensor:
        """The spikes of all steps, one after the other: (steps B, ...)."""
        return self.neuron.fire(h).flatten(0, 1)

    def _activated(self, z: torch.Tensor) -> torch.Tensor:
        return z  # a current: the membranes are what is not linear


@dataclass(frozen=True, slots=True)
class MembraneScore:
    """How close membranes are to those of the targets: a `Score` at each step, averaged over the
    steps. compared : "voltage", the membranes themselves, or "surrogate", eq. 16 of them. In
    neither is a spike differentiated.

    >>> score = MembraneScore(Score("scaled_dot"), Neuron(steps=2), "voltage")
    >>> score(Signal(torch.ones(2, 1, 4), torch.ones(2, 3, 4))).tolist()
    [[2.0, 2.0, 2.0]]
    >>> score.loss(Signal(torch.ones(2, 1, 4), torch.ones(2, 3, 4)), torch.tensor([0])).shape
    torch.Size([])
    """

    score: Score
    neuron: Neuron
    compared: str = field(default="voltage")

    def __post_init__(self) -> None:
        check_choice("targets.compared", self.compared, COMPARED)

    def __call__(self, signal: Signal) -> torch.Tensor:
        """(B, classes), averaged over the steps."""
        assert signal.t is not None
        steps = zip(self._read(signal.h), self._read(signal.t), strict=True)
        return torch.stack([self.score(Signal(h, t)) for h, t in steps]).mean(0)

    def loss(self, signal: Signal, labels: torch.Tensor) -> torch.Tensor:
        """L_pred, eq. 9, of the averaged scores.

        Returns
        -------
        tensor : a number.
        """
        return functional.cross_entropy(self(signal), labels)

    def _read(self, membranes: torch.Tensor) -> torch.Tensor:
        return self.neuron.surrogate(membranes) if self.compared == "surrogate" else membranes
