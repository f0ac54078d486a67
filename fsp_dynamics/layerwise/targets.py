"""Target generators: the targets of all classes at the first layer, from which the network makes
those of every other layer (section III-D).

    target-only    t = f(LN(S1 c + d1))                                    eq. 1
    target-input   t = h1 f(LN(S1 c + d1)) + f(LN(S2 c + d2))              eq. 10
    target-loop    t = f(LN(S1 y + S1 c + d1)), y = softmax of the output  eq. 11
    target-error   t = f(LN(S1 (hL - eta e) + d1)), e = (y - c) C          eq. 12

c is the one-hot vector of a class, f the leaky ReLU, C the weights of the classification layer and
hL what enters it. The first gives one target for each class; all others one for each sample and
class, compared within each sample, so that no label is needed to predict. LN, the layer norm, is
ours; without it the equations are the paper's.

Sparse targets (section III-E): into units, S gives k numbers, filled up with zeros; into a
convolution, S gives a map of the kernel's size in every channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.layerwise.blocks import SLOPE, filled
from fsp_dynamics.layerwise.names import GENERATORS
from fsp_dynamics.layerwise.networks import KERNEL, LayerwiseNetwork, drawing

LOOPED = ("target-loop", "target-error")
"""The generators that listen to the output of the network, so that a forward pass comes first."""
_PLACE = 1000  # of the generator's stream, beyond any block


class TargetGenerator(nn.Module):
    """One of `names.GENERATORS`.

    size : shape of the first block's activity. features : numbers that enter S1, the number of
    classes, or of what enters the classification layer (target-error). sparse : k for units, True
    for a convolution; None: dense.

    >>> generator = TargetGenerator("target-only", (5,), 3, sparse=2)
    >>> targets = generator.forward(torch.zeros(7, 5))
    >>> targets.shape, targets[:, 2:].abs().sum().item()
    (torch.Size([3, 5]), 0.0)
    >>> generator.normed(generator.scale, torch.eye(3)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        kind: str,
        size: tuple[int, ...],
        classes: int,
        *,
        features: int | None = None,
        sparse: int | None = None,
        layer_norm: bool = True,
        eta: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Draw S1 (and S2). Raises ConfigurationError for an unknown kind, a sparse size that is no
        smaller than the layer, and sparse maps that depend on the input.
        """
        super().__init__()
        check_choice("targets.generator", kind, GENERATORS)
        self.kind, self.size, self.classes, self.layer_norm, self.eta = kind, size, classes, layer_norm, eta
        self.shape = self._shape(sparse)
        self.fills = sparse is not None and len(size) == 1
        with drawing(seed, _PLACE):
            self.scale = nn.Linear(features or classes, math.prod(self.shape))
            self.shift = nn.Linear(classes, math.prod(self.shape)) if kind == "target-input" else None

    def _shape(self, sparse: int | None) -> tuple[int, ...]:
        """The shape of what S gives."""
        if sparse is None:
            return self.size
        if len(self.size) == 3:
            if self.kind == "target-input":
                raise ConfigurationError(
                    "targets.sparse with targets.generator = 'target-input': a target that scales whole maps is not "
                    "sparse in a convolution; choose another generator, or leave targets.sparse out"
                )
            return (self.size[0], KERNEL, KERNEL)
        if sparse >= self.size[0]:
            raise ConfigurationError(
                f"targets.sparse = {sparse}, expected less than the {self.size[0]} units of the first layer; "
                "give a smaller number, or leave it out"
            )
        return (sparse,)

    def forward(self, h: torch.Tensor, context: Context | None = None) -> torch.Tensor:
        """Targets of all classes: (classes, ...), or (B, classes, ...). h : the activity of the
        first block, for target-input. context : of the pass before, for target-loop and
        target-error.

        Returns
        -------
        tensor : (classes, ...), or (B, classes, ...).
        """
        labels = torch.eye(self.classes, dtype=self.scale.weight.dtype, device=self.scale.weight.device)
        t = _MAKERS[self.kind](self, h, labels, context)
        return filled(t.flatten(0, -2), self.size[0]).unflatten(0, t.shape[:-1]) if self.fills else t

    def normed(self, linear: nn.Linear, given: torch.Tensor) -> torch.Tensor:
        """f(LN(S c + d)), in the shape of a target.

        Returns
        -------
        tensor : (..., *shape).
        """
        z = linear(given)
        z = functional.layer_norm(z, z.shape[-1:]) if self.layer_norm else z
        return functional.leaky_relu(z, SLOPE).unflatten(-1, self.shape)


class Context:
    """What a forward pass without a gradient left for the targets of the next.

    y : (B, classes), softmax of the output. h : (B, n), what entered the classification layer.
    weights : C, (classes, n).
    """

    def __init__(self, y: torch.Tensor, h: torch.Tensor, weights: torch.Tensor) -> None:
        self.y, self.h, self.weights = y, h, weights


def _only(self: TargetGenerator, h: torch.Tensor, labels: torch.Tensor, context: Context | None) -> torch.Tensor:
    return self.normed(self.scale, labels)


def _input(self: TargetGenerator, h: torch.Tensor, labels: torch.Tensor, context: Context | None) -> torch.Tensor:
    assert self.shift is not None
    listened = h.detach()[:, None]
    if self.fills:
        listened = listened[..., : self.shape[0]]
    return listened * self.normed(self.scale, labels) + self.normed(self.shift, labels)


def _loop(self: TargetGenerator, h: torch.Tensor, labels: torch.Tensor, context: Context | None) -> torch.Tensor:
    assert context is not None
    return self.normed(self.scale, context.y[:, None] + labels)


def _error(self: TargetGenerator, h: torch.Tensor, labels: torch.Tensor, context: Context | None) -> torch.Tensor:
    assert context is not None
    error = (context.y[:, None] - labels) @ context.weights
    return self.normed(self.scale, context.h[:, None] - self.eta * error)


_MAKERS: dict[str, Callable[[TargetGenerator, torch.Tensor, torch.Tensor, Context | None], torch.Tensor]] = {
    "target-only": _only,
    "target-input": _input,
    "target-loop": _loop,
    "target-error": _error,
}


def generator_of(network: LayerwiseNetwork, kind: str, **settings: object) -> TargetGenerator:
    """The generator of that kind for the first block of a network. Raises ConfigurationError where
    the kind listens to a classification layer that the network lacks.
    """
    if kind in LOOPED and network.head is None:
        raise ConfigurationError(
            f"targets.generator = {kind!r} listens to the classification layer, which version 2a lacks; "
            "choose targets.version = '2b' or another generator"
        )
    if kind == "target-input" and network.shape.neuron is not None:
        raise ConfigurationError(
            "targets.generator = 'target-input' scales activities, and a spiking network (network.kind = 'snn') has "
            "membranes; choose another generator"
        )
    features = network.outputs[-1][0] if kind == "target-error" else None
    return TargetGenerator(kind, network.sizes[0], network.classes, features=features, **settings)  # type: ignore[arg-type]


def context_of(network: LayerwiseNetwork, images: torch.Tensor) -> Context:
    """A forward pass without a gradient, as in a prediction: neither dropout nor running statistics
    are moved by it.
    """
    assert network.head is not None
    learning = network.training
    network.eval()
    with torch.no_grad():
        h = network.last(network.activities(images)[-1])
        y = network.head(h).softmax(1)
    network.train(learning)
    return Context(y, h, network.head.weight.detach())
