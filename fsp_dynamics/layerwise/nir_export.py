"""A spiking network as a graph of NIR, the neuromorphic intermediate representation, which
simulators and boards read (``pip install 'fsp_dynamics[nir]'``).

    input - (pixels) - layer1 - layer1_spikes - (layer2_pool - layer2_pooled) - layer2 - ...
    - (flatten) - classifier - output

One time step of the graph is one of the network. The image enters unchanged in every step; the
class is that with the highest mean of the output over the steps, which a reader takes. Spikes are
those of the network, as long as a reader computes in the precision of the arrays, for

    convolutions    batch norm is folded into them, by its running statistics
    pixels          a convolution of 1 x 1, where the network normalises its images: a mean cannot
                    be folded into weights whose input is padded
    units           `nir.IF` fires above its threshold, ours at it: the next number below is written
    pools           NIR has none of maxima: a sum of spikes, 0 or 1, and a threshold of 1/2

What NIR cannot say exactly is refused: a soft reset, as its units are reset to a number, and a
leak, as it has leaks in continuous time alone, whose steps its readers choose.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.layerwise.blocks import Block
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.networks import LayerwiseNetwork, neuron_of
from fsp_dynamics.layerwise.neurons import Neuron
from fsp_dynamics.models.network import Array

OF_A_POOL = 0.5  # between no spike and one


def nir_graph(learner: Learner) -> Any:
    """The network of a learner as a `nir.NIRGraph`, its arrays in the precision of the network.
    Its metadata say how many steps there are and what the threshold is. Raises ConfigurationError
    for what NIR cannot say exactly, ModuleNotFoundError without `nir`.

    Returns
    -------
    nir.NIRGraph

    >>> from fsp_dynamics.layerwise.learners import make_learner
    >>> from fsp_dynamics.layerwise.networks import snn
    >>> graph = nir_graph(make_learner("bp", snn([4, "M"], [6]), (1, 8, 8), 10))
    >>> [after for before, after in graph.edges][:6]
    ['layer1', 'layer1_spikes', 'layer2_pool', 'layer2_pooled', 'flatten', 'layer2']
    >>> threshold = graph.nodes["layer1_spikes"].v_threshold
    >>> threshold.shape, float(threshold.max())  # that of the network is 1
    ((4, 8, 8), 0.9999999403953552)
    """
    import nir

    network, neuron = learner.network, _exact(learner.network)
    nodes = dict(_nodes(network, neuron))
    names = list(nodes)
    metadata = {
        "steps": neuron.steps,
        "threshold": neuron.threshold,
        "input": "the image, unchanged in every step",
        "output": "its mean over the steps; the class is the highest",
    }
    return nir.NIRGraph(nodes, list(itertools.pairwise(names)), metadata=metadata)


def nir_bytes(graph: Any) -> bytes:
    """The graph as `nir.write` writes it, HDF5; the same for the same graph.

    Returns
    -------
    bytes : of a file for `nir.read`.

    >>> from fsp_dynamics.layerwise.learners import make_learner
    >>> from fsp_dynamics.layerwise.networks import snn
    >>> nir_bytes(nir_graph(make_learner("bp", snn([], [6]), (1, 2, 2), 3)))[1:4]
    b'HDF'
    """
    import nir

    file = io.BytesIO()
    nir.write(file, graph)
    return file.getvalue()


def folded(block: Block) -> tuple[Array, Array]:
    """The weights and the bias of a block with its batch norm, by running statistics, folded into
    them: (units, ...) and (units,), in float64.

    >>> block = Block(torch.nn.Conv2d(1, 2, 3, bias=False))
    >>> weight, bias = folded(block)
    >>> weight.shape, bias.tolist()
    ((2, 1, 3, 3), [0.0, 0.0])
    """
    weight, norm = _array(block.weights.weight), block.norm
    bias = np.zeros(len(weight)) if block.weights.bias is None else _array(block.weights.bias)
    if norm is None:
        return weight, bias
    mean, variance, scale, shift = map(_array, (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    factor = scale / np.sqrt(variance + norm.eps)
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), (bias - mean) * factor + shift


def _exact(network: LayerwiseNetwork) -> Neuron:
    """The neuron of a network that NIR can say exactly. Raises ConfigurationError."""
    neuron = neuron_of(network)
    if neuron.leak != 1:
        raise ConfigurationError(
            f"network.leak = {neuron.leak:g} has no exact form in NIR, whose leaks are in continuous time; choose "
            "network.leak = 1 before it is trained"
        )
    if neuron.reset != "hard":
        raise ConfigurationError(
            f"network.reset = {neuron.reset!r} has no form in NIR, whose units are reset to a number; choose "
            "network.reset = 'hard' before it is trained"
        )
    if network.head is None:
        raise ConfigurationError(
            "targets.version = '2a' predicts by closeness to targets, which NIR cannot say; choose 2b, which has a "
            "classification layer, before it is trained"
        )
    if network.shape.layers[0].pool > 1:
        raise ConfigurationError(
            "network.channels begins with M, a pool of pixels, and NIR can pool spikes alone; choose channels that "
            "begin with a convolution before it is trained"
        )
    return neuron


def _nodes(network: LayerwiseNetwork, neuron: Neuron) -> Iterator[tuple[str, Any]]:
    """(name, node) in the order in which a signal passes."""
    import nir

    dtype = next(network.parameters()).dtype
    kind = np.dtype(str(dtype).removeprefix("torch."))
    size: tuple[int, ...] = network.image_shape
    threshold = np.nextafter(kind.type(neuron.threshold), kind.type(-np.inf))
    yield "input", nir.Input({"input": np.array(size)})
    if network.pixel_mean.any() or (network.pixel_scale != 1).any():
        yield "pixels", _pixels(network, kind)
    for k, (block, after) in enumerate(zip(network.blocks, network.sizes, strict=True), 1):
        name = f"layer{k}"
        yield from _entrance(name, block.pool, size, kind, flat=not block.is_conv)
        weight, bias = (each.astype(kind) for each in folded(block))
        if block.is_conv:
            yield name, _convolution(_pooled(size, block.pool), weight, bias, block.weights.padding)
        else:
            yield name, nir.Affine(weight, bias)
        size = after
        yield f"{name}_spikes", nir.IF(np.ones(size, kind), np.full(size, threshold), np.zeros(size, kind))
    yield from _entrance("classifier", network.shape.last_pool, size, kind, flat=True)
    assert network.head is not None
    yield "classifier", nir.Affine(*(_array(p).astype(kind) for p in (network.head.weight, network.head.bias)))
    yield "output", nir.Output({"output": np.array([network.classes])})


def _entrance(
    name: str, side: int, size: tuple[int, ...], kind: np.dtype[Any], *, flat: bool
) -> Iterator[tuple[str, Any]]:
    """(name, node) of what spikes of that shape pass before weights: a pool over squares of `side`,
    and where weights take rows alone, their flattening.
    """
    import nir

    after = _pooled(size, side)
    if side > 1:
        square = np.array([side, side])
        yield f"{name}_pool", nir.SumPool2d(square, square, np.array([0, 0]))
        yield f"{name}_pooled", nir.Threshold(np.full(after, OF_A_POOL, kind))
    if flat and len(after) > 1:
        yield "flatten", nir.Flatten({"input": np.array(after)}, start_dim=0)


def _pooled(size: tuple[int, ...], side: int) -> tuple[int, ...]:
    """Rows and columns that fill no square are left out, as in the network."""
    return (size[0], *(each // side for each in size[1:]))


def _convolution(size: tuple[int, ...], weight: Array, bias: Array, padding: tuple[int, int]) -> Any:
    import nir

    return nir.Conv2d(size[1:], weight, (1, 1), padding, (1, 1), 1, bias)


def _pixels(network: LayerwiseNetwork, kind: np.dtype[Any]) -> Any:
    """Each channel minus its mean, times its scale. No groups: `nir` infers no types of them."""
    mean, scale = _array(network.pixel_mean), _array(network.pixel_scale)
    weight = np.diag(scale)[:, :, None, None].astype(kind)
    return _convolution(network.image_shape, weight, (-mean * scale).astype(kind), (0, 0))


def _array(given: torch.Tensor) -> Array:
    return given.detach().cpu().double().numpy()
