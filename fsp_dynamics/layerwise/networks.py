"""Discrete feedforward networks: blocks one after the other, and a classification layer.

A `Shape` lists the blocks; `build` draws a network of that shape from a seed. The blocks of the
same seed are the same whatever learns them, and each has streams of its own, so that a process that
holds some of the blocks draws what one with all of them does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.layerwise.augmentation import Normalisation
from fsp_dynamics.layerwise.blocks import Block
from fsp_dynamics.layerwise.names import SHAPES
from fsp_dynamics.layerwise.neurons import Neuron
from fsp_dynamics.layerwise.scores import Closeness, Score
from fsp_dynamics.layerwise.spiking import MembraneScore, SpikingBlock

KERNEL = 3  # side of every convolution, padded by 1
_VGG8B = (128, 256, "M", 256, 512, "M", 512, "M", 512, "M")
_VGG8B_UNITS = (1024,)
ITEM = str | int
IMAGES_AND_CLASSES = "images_and_classes"
"""The entry of a network's state that holds (channels, height, width, classes)."""


class Layer(NamedTuple):
    """One block of a shape. conv : whether `size` counts channels, or units. pool : side of the
    squares over which its input is pooled; 1: none.
    """

    size: int
    conv: bool = False
    pool: int = 1


class Shape(NamedTuple):
    """The blocks of a network. last_pool : of what the last block gives, before the classification
    layer. neuron : of spiking units; None: activities.

    >>> Shape((Layer(20), Layer(10))) == mlp([20, 10]), mlp([20]).is_conv, conv([4]).is_conv
    (True, False, True)
    """

    layers: tuple[Layer, ...]
    last_pool: int = 1
    neuron: Neuron | None = None

    @property
    def is_conv(self) -> bool:
        """Whether any block is a convolution."""
        return any(layer.conv for layer in self.layers)

    def block(self, k: int, weights: nn.Linear | nn.Conv2d, *, normalised: bool, **settings: Any) -> Block:
        """The k-th block, with these weights and settings. Of spiking units, only convolutions are
        normalised.

        Returns
        -------
        Block

        >>> mlp([5]).block(0, nn.Linear(3, 5), normalised=True).is_conv
        False
        """
        layer, given = self.layers[k], {"pool": self.layers[k].pool, **settings}
        if self.neuron is None:
            return Block(weights, normalised=normalised, **given)
        return SpikingBlock(weights, neuron=self.neuron, first=k == 0, normalised=normalised and layer.conv, **given)

    def closeness(self, score: Score, compared: str) -> Closeness:
        """How what a block gives is compared with its targets. compared : of spiking units, see
        `spiking.MembraneScore`.

        Returns
        -------
        Closeness

        >>> mlp([5]).closeness(Score("l2"), "voltage")
        Score(name='l2', temperature=20.0)
        """
        return score if self.neuron is None else MembraneScore(score, self.neuron, compared)


def mlp(hidden: Sequence[int]) -> Shape:
    """Blocks of so many units.

    Returns
    -------
    Shape

    >>> mlp([500, 500]).layers
    (Layer(size=500, conv=False, pool=1), Layer(size=500, conv=False, pool=1))
    """
    return Shape(tuple(Layer(size) for size in hidden))


def conv(items: Sequence[ITEM], hidden: Sequence[int] = ()) -> Shape:
    """Convolutions of so many channels, "M" for a pool over squares of 2 x 2, then blocks of units.

    Raises ConfigurationError for other items.

    Returns
    -------
    Shape

    >>> conv([16, "M", 32, "M"]).layers, conv([16, "M", 32, "M"]).last_pool
    ((Layer(size=16, conv=True, pool=1), Layer(size=32, conv=True, pool=2)), 2)
    """
    layers, pool = [], 1
    for item in items:
        if item == "M":
            pool *= 2
        elif isinstance(item, int) and item > 0:
            layers.append(Layer(item, True, pool))
            pool = 1
        else:
            raise ConfigurationError(f"network.channels: {item!r}, expected a number of channels, or M for a pool")
    for size in hidden:
        layers.append(Layer(size, False, pool))
        pool = 1
    if not layers or not layers[0].conv:
        raise ConfigurationError("network.channels names no convolution; give such as 16,M,32, or network.kind = mlp")
    return Shape(tuple(layers), pool)


def vgg8b(width: float = 1.0) -> Shape:
    """VGG8b: convolutions of 128, 256, M, 256, 512, M, 512, M, 512, M channels and 1024 units, all
    sizes times `width`. At width 1, 8.89 million parameters on images of 3 x 32 x 32.

    Returns
    -------
    Shape

    >>> [layer.size for layer in vgg8b(0.25).layers]
    [32, 64, 64, 128, 128, 128, 256]
    """
    sized = [item if isinstance(item, str) else max(1, round(item * width)) for item in _VGG8B]
    return conv(sized, [max(1, round(size * width)) for size in _VGG8B_UNITS])


def snn(channels: Sequence[ITEM], hidden: Sequence[int] = (), neuron: Neuron | None = None) -> Shape:
    """Convolutions and blocks of units as in `conv`, or blocks of units alone, all of spiking
    neurons; None: those of `Neuron`. Convolutions have no bias.

    Returns
    -------
    Shape

    >>> snn([16, "M", 16, "M"], [2048]).last_pool, snn([], [20]).neuron
    (1, Neuron(steps=4, threshold=1.0, leak=1.0, reset='hard'))
    """
    shape = conv(channels, hidden) if channels else mlp(hidden)
    return shape._replace(neuron=(neuron or Neuron()).check())


def shape_of(
    kind: str, hidden: Sequence[int], channels: Sequence[ITEM], width: float, neuron: Neuron | None = None
) -> Shape:
    """The shape of a configuration's keys. Raises ConfigurationError for an unknown kind."""
    makers: dict[str, Callable[[], Shape]] = {
        "mlp": lambda: mlp(hidden),
        "conv": lambda: conv(channels, hidden),
        "vgg8b": lambda: vgg8b(width),
        "snn": lambda: snn(channels, hidden, neuron),
    }
    return makers[check_choice("network.kind", kind, SHAPES)]()


class LayerwiseNetwork(nn.Module):
    """Blocks one after the other, then a classification layer (version 2b of figure 2), or none
    (2a).

    image_shape : (channels, height, width) of an image. `generator` is added by the learners that
    have targets, `exits` by those whose layers predict by modules of their own.

    >>> network = LayerwiseNetwork(conv([4, "M", 6]), (1, 8, 8), 10)
    >>> network.sizes, network.outputs
    (((4, 8, 8), (6, 4, 4)), ((1, 8, 8), (4, 4, 4), (96,)))
    >>> activities = network.activities(network.images(torch.zeros(3, 64)))
    >>> [tuple(h.shape) for h in activities], tuple(network.last(activities[-1]).shape)
    ([(3, 4, 8, 8), (3, 6, 4, 4)], (3, 96))
    """

    def __init__(
        self,
        shape: Shape,
        image_shape: tuple[int, int, int],
        classes: int,
        *,
        head: bool = True,
        dropout: float = 0.0,
        normalised: bool = True,
        sparse: bool = False,
        seed: int = 0,
    ) -> None:
        """Draw the weights. sparse : see `Block`. Raises ConfigurationError where the images are
        too small for the pools.
        """
        super().__init__()
        self.shape, self.image_shape, self.classes = shape, image_shape, classes
        self.register_buffer(IMAGES_AND_CLASSES, torch.tensor([*image_shape, classes]))
        self.pixel_mean: torch.Tensor
        self.pixel_scale: torch.Tensor
        self.register_buffer("pixel_mean", torch.zeros(image_shape[0]))
        self.register_buffer("pixel_scale", torch.ones(image_shape[0]))
        self.blocks = nn.ModuleList()
        for k, (layer, before) in enumerate(zip(shape.layers, _inputs(shape, image_shape), strict=False)):
            with drawing(seed, k):
                weights = _weights(layer, before, bias=shape.neuron is None or not layer.conv)
            settings = {"dropout": dropout, "sparse": sparse, "seed": seed_of(seed, k, 1)}
            self.blocks.append(shape.block(k, weights, normalised=normalised, **settings))
        self.head: nn.Linear | None = None
        if head:
            with drawing(seed, len(shape.layers)):
                self.head = nn.Linear(math.prod(self.outputs[-1]), classes)
        self.generator: nn.Module | None = None
        self.exits = nn.ModuleDict()

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each block's activity: (units,), or (channels, height, width)."""
        return tuple(_output(layer, before) for layer, before in zip(self.shape.layers, self.outputs, strict=False))

    @property
    def outputs(self) -> tuple[tuple[int, ...], ...]:
        """The shape of what enters each block, pooled; last, of what enters the classification
        layer.
        """
        return tuple(_inputs(self.shape, self.image_shape))

    def images(self, rows: torch.Tensor) -> torch.Tensor:
        """Images as rows of pixels, (B, pixels), in the shape that the first block takes, each
        channel minus `pixel_mean`, times `pixel_scale` (0 and 1, unless `normalise` was called).

        Returns
        -------
        tensor : (B, pixels), or (B, channels, height, width) for a convolution.
        """
        planes = rows.unflatten(1, self.image_shape)
        planes = (planes - self.pixel_mean[:, None, None]) * self.pixel_scale[:, None, None]
        return planes if self.shape.layers[0].conv else planes.flatten(1)

    def normalise(self, usual: Normalisation) -> None:
        """Let every image be normalised by these numbers of each channel: they belong to the
        network, and to its checkpoints.

        >>> network = LayerwiseNetwork(mlp([5]), (1, 2, 2), 10)
        >>> network.normalise(Normalisation(mean=np.array([0.5]), deviation=np.array([0.25])))
        >>> network.images(torch.ones(1, 4)).tolist()
        [[2.0, 2.0, 2.0, 2.0]]
        """
        for own, given in ((self.pixel_mean, usual.mean), (self.pixel_scale, usual.scale)):
            own.copy_(torch.from_numpy(given))

    def last(self, h: torch.Tensor) -> torch.Tensor:
        """What the last block gives, (B, ...), as the classification layer takes it.

        Returns
        -------
        tensor : (B, n).
        """
        found: torch.Tensor = self.blocks[-1].last(h, self.shape.last_pool)
        return found

    def activities(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The activity of every block, for images in the shape of `images`.

        Returns
        -------
        list of tensors : (B, ...) each.
        """
        return list(itertools.accumulate(self.blocks, lambda h, block: block(h), initial=images))[1:]


def neuron_of(network: LayerwiseNetwork) -> Neuron:
    """The units of a spiking network. Raises ConfigurationError where it has none that spike.

    >>> neuron_of(LayerwiseNetwork(snn([], [5]), (1, 2, 2), 3)).steps
    4
    """
    if network.shape.neuron is None:
        raise ConfigurationError("the network has no spiking units; give one of network.kind = 'snn'")
    return network.shape.neuron


def _inputs(shape: Shape, image_shape: tuple[int, int, int]) -> Iterator[tuple[int, ...]]:
    """The shape of what enters each block and the classification layer."""
    size: tuple[int, ...] = image_shape
    for layer in shape.layers:
        size = _pooled(size, layer.pool) if layer.conv else (math.prod(_pooled(size, layer.pool)),)
        yield size
        size = _output(layer, size)
    yield (math.prod(_pooled(size, shape.last_pool)),)


def _pooled(size: tuple[int, ...], pool: int) -> tuple[int, ...]:
    if pool == 1:
        return size
    channels, *sides = size
    if min(sides) < pool:
        raise ConfigurationError(
            f"network: a map of {sides[0]} x {sides[1]} is pooled over squares of {pool}, which are larger; "
            "give larger images or fewer pools"
        )
    return (channels, *(side // pool for side in sides))


def _output(layer: Layer, before: tuple[int, ...]) -> tuple[int, ...]:
    return (layer.size, *before[1:]) if layer.conv else (layer.size,)


def _weights(layer: Layer, before: tuple[int, ...], *, bias: bool) -> nn.Linear | nn.Conv2d:
    if layer.conv:
        return nn.Conv2d(before[0], layer.size, KERNEL, padding=1, bias=bias)
    return nn.Linear(math.prod(before), layer.size, bias=bias)


def seed_of(seed: int, *place: int) -> int:
    """A seed of its own for each place of a network."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def drawing(seed: int, *place: int) -> Iterator[None]:
    """Within the block torch draws initial weights from the stream of that place; its own stream
    goes on afterwards as if nothing had been drawn.

    Returns
    -------
    context manager

    >>> with drawing(0, 5000, 1):
    ...     one = torch.rand(2)
    >>> with drawing(0, 5000, 1):
    ...     print(torch.equal(torch.rand(2), one))
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, *place))
        yield
