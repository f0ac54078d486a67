"""`Stage`: what learns at once, from a loss of its own; and the step of a network made of stages.

    for each stage:
        signal = forward(detached signal)
        loss(signal, labels).backward()
        its optimiser steps

A gradient never leaves its stage: `step` detaches between stages, and nowhere else. A stage has
learned before the next one has run (it is forward unlocked), and does not depend on the weights of
any later one (backward unlocked). Backpropagation is one stage, forward signal propagation one for
each block.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from fsp_dynamics.errors import ConfigurationError, NotFiniteError
from fsp_dynamics.layerwise.signal import Signal


class Stage:
    """Modules that learn together. A subclass says what they give (`forward`) and what they learn
    from (`loss`).

    name : as tables call it: layer1 ..., output. modules : those that its loss trains; none:
    nothing learns. rate : of Adam. rate and modules are those of `optimiser`.

    >>> class Means(Stage):
    ...     def forward(self, signal):
    ...         return Signal(self.modules[0](signal.h))
    ...     def loss(self, signal, labels):
    ...         return ((signal.h.mean(1) - labels) ** 2).mean()
    >>> stage = Means("layer1", [nn.Linear(3, 2)], rate=0.1)
    >>> images, labels = torch.ones(5, 3), torch.ones(5)
    >>> for _ in range(100):
    ...     signal = stage.step(Signal(images), labels, nullcontext())
    >>> signal.h.mean().round().item()
    1.0
    >>> stage.follow(0.25)  # of its rate
    >>> len(stage.holds)
    1
    >>> stage.learn(stage.loss(stage.forward(Signal(images)), labels))
    """

    is_exit: ClassVar[bool] = False
    """Whether it predicts: whether it has `scores`."""

    def __init__(self, name: str, modules: Sequence[nn.Module], rate: float) -> None:
        self.name, self.modules, self.rate = name, tuple(modules), rate
        parameters = [p for module in self.modules for p in module.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(parameters, lr=rate) if parameters else None
        self.scaler: torch.amp.GradScaler | None = None

    @property
    def holds(self) -> Sequence[nn.Module]:
        """The modules whose state its steps change: those that its loss trains, and where there are
        more (running statistics, streams of masks), also those.

        >>> Stage("layer1", [nn.Linear(2, 3)], rate=1e-3).holds
        (Linear(in_features=2, out_features=3, bias=True),)
        """
        return self.modules

    def forward(self, signal: Signal) -> Signal:
        """What the stage makes of what the one before gave.

        Returns
        -------
        Signal : activity and, in forward signal propagation, targets.
        """
        raise NotImplementedError

    def loss(self, signal: Signal, labels: torch.Tensor) -> torch.Tensor | None:
        """What it learns from, given what it made, and labels (B,).

        Returns
        -------
        tensor or None : a number; None: it learns nothing.
        """
        raise NotImplementedError

    def scores(self, signal: Signal) -> torch.Tensor:
        """What an exit takes images for, given what it made; `OutputStage` has an example.

        Returns
        -------
        tensor : (B, classes), the class with the highest is the prediction.

        >>> from fsp_dynamics.layerwise.networks import LayerwiseNetwork, mlp
        >>> stage = OutputStage(LayerwiseNetwork(mlp([6]), (1, 2, 2), 3), rate=0.01)
        >>> stage.scores(stage.forward(Signal(torch.zeros(5, 6)))).shape
        torch.Size([5, 3])
        """
        raise NotImplementedError

    def step(self, signal: Signal, labels: torch.Tensor, precision: AbstractContextManager[object]) -> Signal:
        """Forward, and learn. Raises NotFiniteError before anything not finite is learned.

        Returns
        -------
        Signal : what it made, before it learned.
        """
        with precision if self.optimiser is not None else torch.no_grad():
            signal = self.forward(signal.detach())
            loss = self.loss(signal, labels)
        if loss is not None:
            self.learn(loss)
        return signal

    def learn(self, loss: torch.Tensor) -> None:
        """Follow the gradient of the loss."""
        if not torch.isfinite(loss.detach()):
            raise NotFiniteError(
                f"the loss of {self.name} is not finite ({loss.item()}); lower learning.rate (now {self.rate:g})"
            )
        assert self.optimiser is not None
        self.optimiser.zero_grad(set_to_none=True)
        if self.scaler is None:
            loss.backward()
            self.optimiser.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimiser)
            self.scaler.update()

    def follow(self, factor: float) -> None:
        """Set the learning rate to that of the schedule."""
        if self.optimiser is not None:
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate * factor


class LateStage(Stage):
    """A block without a loss of its own: it learns `late`, from a gradient that its learner gives
    it.
    """

    def __init__(self, name: str, block: nn.Module, rate: float, *more: nn.Module) -> None:
        super().__init__(name, [block, *more], rate)
        self.block = block

    def forward(self, signal: Signal) -> Signal:
        return Signal(self.block(signal.h))

    def loss(self, signal: Signal, labels: torch.Tensor) -> None:
        return None

    def late(self, h: torch.Tensor, error: torch.Tensor) -> None:
        """Follow the gradient that is `error` at what it made, h, whose graph is still there."""
        self.learn((h * error.detach()).sum())


class OutputStage(Stage):
    """The classification layer of a network, which learns from what enters it alone.

    network : a `LayerwiseNetwork` with a classification layer. rate : of Adam. more : modules that
    learn beside it.

    >>> from fsp_dynamics.layerwise.networks import LayerwiseNetwork, mlp
    >>> stage = OutputStage(LayerwiseNetwork(mlp([6]), (1, 2, 2), 3), rate=0.01)
    >>> logits = stage.forward(Signal(torch.zeros(5, 6)))
    >>> stage.name, logits.h.shape, stage.loss(logits, torch.arange(5) % 3).shape
    ('output', torch.Size([5, 3]), torch.Size([]))
    """

    is_exit = True

    def __init__(self, network: nn.Module, rate: float, *more: nn.Module) -> None:
        super().__init__("output", [network.head, *more], rate)
        self.network = network

    def forward(self, signal: Signal) -> Signal:
        """The logits.

        Returns
        -------
        Signal : h (B, classes).
        """
        return Signal(self.network.head(self.network.last(signal.h)))

    def scores(self, signal: Signal) -> torch.Tensor:
        return signal.h

    def loss(self, signal: Signal, labels: torch.Tensor) -> torch.Tensor:
        """The cross-entropy of the logits.

        Returns
        -------
        tensor : a number.
        """
        return functional.cross_entropy(signal.h, labels)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Where forward passes and losses are computed in 16 bits; it can be entered again and again.
    Raises ConfigurationError for float16 on a CPU.
    """
    if precision == "float32":
        return nullcontext()
    if precision == "float16" and device.type == "cpu":
        raise ConfigurationError(
            "learning.precision = 'float16' on a CPU, whose convolutions are far slower in it; choose bfloat16"
        )
    return torch.autocast(device.type, dtype=getattr(torch, precision))
