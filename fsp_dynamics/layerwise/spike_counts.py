"""How many spikes the units of a spiking network make on images, and what they cost (`count`).

A spike reaches the weights that take it in: in a layer of units, or in the classification layer,
one for each unit; in a convolution, one for each output channel at each place whose kernel covers
it, fewer at a border. A max pool lets one spike through where any of its square spikes, and that
one is counted; what falls beside its last whole square reaches nothing. The sum over all steps is
the number of synaptic operations. The current that an image puts into the first layer is computed
once, for all steps: it takes multiply-adds, one for each weight and place, and no spike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from fsp_dynamics.display import html_table
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.networks import LayerwiseNetwork, neuron_of
from fsp_dynamics.layerwise.spikes import batches_of, layer_names, membranes_of
from fsp_dynamics.models.network import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, eq=False)
class SpikeCount:
    """How often units spiked, and what that cost.

    images, steps : how many of each. units : {layer: spikes of each unit in all steps of all
    images}, int64, (units,) or (channels, rows, columns). operations : {layer: synaptic operations
    that its spikes cause in the next one, on all images}, in whole numbers; 0 where nothing follows
    (version 2a predicts by the membranes of the last layer). multiply_adds : of the current that
    one image puts into the first layer, pixels of 0 included.

    >>> from fsp_dynamics.layerwise.learners import make_learner
    >>> from fsp_dynamics.layerwise.networks import snn
    >>> from fsp_dynamics.layerwise.neurons import Neuron
    >>> learner = make_learner("bp", snn([], [2], Neuron(steps=4, threshold=0.5)), (1, 1, 1), 3)
    >>> weights = learner.network.blocks[0].weights
    >>> _ = weights.weight.data.copy_(torch.tensor([[1.0], [-1.0]])), weights.bias.data.zero_()
    >>> found = count(learner, np.array([[1.0], [0.25]]))  # the first unit spikes 4 times, then 2
    >>> found.units["layer1"].tolist(), found.operations, found.multiply_adds
    ([6, 0], {'layer1': 18}, 2)
    >>> found.layers["layer1"]
    LayerSpikes(units=2, per_image=3.0, rate=0.375, silent=1, saturated=0, operations=9.0)
    >>> found.layers["layer1"].silent_share, found.layers["layer1"].saturated_share
    (0.5, 0.0)
    >>> found.per_image, found.operations_per_image, found.rates["layer1"].tolist()
    (3.0, 9.0, [0.75, 0.0])
    >>> len(found.plot().axes)
    1
    """

    images: int
    steps: int
    units: dict[str, npt.NDArray[np.int64]]
    operations: dict[str, int]
    multiply_adds: int

    def __repr__(self) -> str:
        return (
            f"<SpikeCount of {self.images} images, {self.steps} steps: {self.per_image:,.1f} spikes and "
            f"{self.operations_per_image:,.1f} synaptic operations per image>"
        )

    def _repr_html_(self) -> str:
        facts = {
            name: f"{own.per_image:,.1f} spikes per image, rate {own.rate:.3f}, {own.silent:,} of {own.units:,} units "
            f"silent, {own.saturated:,} saturated, {own.operations:,.0f} synaptic operations"
            for name, own in self.layers.items()
        }
        return html_table(
            f"Spikes on {self.images} images in {self.steps} steps",
            facts | {"image into layer1": f"{self.multiply_adds:,} multiply-adds"},
        )

    @property
    def layers(self) -> dict[str, LayerSpikes]:
        """{layer: its numbers}."""
        most = self.images * self.steps
        return {
            name: LayerSpikes(
                units=own.size,
                per_image=int(own.sum()) / self.images,
                rate=int(own.sum()) / (own.size * most),
                silent=int((own == 0).sum()),
                saturated=int((own == most).sum()),
                operations=self.operations[name] / self.images,
            )
            for name, own in self.units.items()
        }

    @property
    def per_image(self) -> float:
        """Spikes of all layers per image."""
        return sum(int(own.sum()) for own in self.units.values()) / self.images

    @property
    def operations_per_image(self) -> float:
        """Synaptic operations of all layers per inference; the image's multiply-adds are apart."""
        return sum(self.operations.values()) / self.images

    @property
    def rates(self) -> dict[str, Array]:
        """{layer: spikes of each unit per step}, from 0 to 1, in the shapes of `units`."""
        return {name: own / (self.images * self.steps) for name, own in self.units.items()}

    def plot(self, ax: Axes | Sequence[Axes] | None = None, *, path: str | Path | None = None) -> Figure:
        """How many units of each layer spike how often (`plotting.spikes.plot_rates`).

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        from fsp_dynamics.plotting.spikes import plot_rates

        return plot_rates(self.rates, ax, path=path)


class LayerSpikes(NamedTuple):
    """The numbers of one layer. per_image : spikes. rate : spikes per unit and step. silent :
    units that spike on no image. saturated : units that spike at every step of every image.
    operations : synaptic ones that its spikes cause, per image.

    >>> own = LayerSpikes(8, per_image=6.0, rate=0.1875, silent=2, saturated=1, operations=60.0)
    >>> own.silent_share, own.saturated_share
    (0.25, 0.125)
    """

    units: int
    per_image: float
    rate: float
    silent: int
    saturated: int
    operations: float

    @property
    def silent_share(self) -> float:
        """Of the units, from 0 to 1."""
        return self.silent / self.units

    @property
    def saturated_share(self) -> float:
        """Of the units, from 0 to 1."""
        return self.saturated / self.units


def count(learner: Learner, images: Array) -> SpikeCount:
    """The spikes and synaptic operations on images (B, pixels), any number of them: nothing is
    kept but sums. Raises what `record` raises.

    Returns
    -------
    SpikeCount : its sums are of the spikes of `record` on the same images.

    >>> from fsp_dynamics.layerwise.learners import make_learner
    >>> from fsp_dynamics.layerwise.networks import snn
    >>> from fsp_dynamics.layerwise.neurons import Neuron
    >>> learner = make_learner("bp", snn([2, "M"], [5], Neuron()), (1, 6, 6), 3)
    >>> found = count(learner, np.zeros((7, 36)))
    >>> found.images, {name: own.shape for name, own in found.units.items()}
    (7, {'layer1': (2, 6, 6), 'layer2': (5,)})
    >>> found.multiply_adds  # 2 channels, each of 16 places with 9 pixels, 16 with 6, 4 with 4
    512
    """
    neuron, network = neuron_of(learner.network), learner.network
    names, following = layer_names(network), _following(network)
    units = {name: np.zeros(size, np.int64) for name, size in zip(names, network.sizes, strict=True)}
    operations, shown = dict.fromkeys(names, 0), 0
    with learner.predicting(), torch.no_grad():
        for part in batches_of(learner, images):
            shown += len(part)
            for name, membranes, (pool, weights) in zip(names, membranes_of(network, part), following, strict=True):
                fired = neuron.fire(membranes).flatten(0, 1)
                units[name] += _summed(fired)
                if weights is not None:
                    passed = _summed(functional.max_pool2d(fired, pool) if pool > 1 else fired)
                    operations[name] += int((passed * reached(weights, passed.shape)).sum())
    first = network.blocks[0].weights
    multiply_adds = int(reached(first, network.outputs[0]).sum())
    return SpikeCount(shown, neuron.steps, units, operations, multiply_adds)


def reached(weights: nn.Module, size: Sequence[int]) -> npt.NDArray[np.int64]:
    """How many weights a spike at each place reaches, of what enters them, (units,) or
    (channels, rows, columns); in a convolution, places of the output times its channels.

    Returns
    -------
    array : of that size, whole numbers.

    >>> reached(nn.Linear(4, 10), (4,)).tolist()
    [10, 10, 10, 10]
    >>> reached(nn.Conv2d(1, 2, 3, padding=1), (1, 2, 4)).tolist()
    [[[8, 12, 12, 8], [8, 12, 12, 8]]]
    """
    if isinstance(weights, nn.Linear):
        return np.full(size, weights.out_features, np.int64)
    assert isinstance(weights, nn.Conv2d)
    one = torch.ones(1, 1, *weights.kernel_size, dtype=torch.float64)
    places = functional.conv2d(torch.ones(1, 1, *size[1:], dtype=one.dtype), one, None, 1, weights.padding)
    covering = functional.conv_transpose2d(torch.ones_like(places), one, None, 1, weights.padding)
    counts = covering[0, 0].numpy().round().astype(np.int64)
    return np.broadcast_to(weights.out_channels * counts, tuple(size))


def _following(network: LayerwiseNetwork) -> list[tuple[int, nn.Module | None]]:
    """(pool, weights) that the spikes of each layer pass; weights None: nothing takes them in."""
    later: list[tuple[int, nn.Module | None]] = [(block.pool, block.weights) for block in network.blocks][1:]
    return [*later, (network.shape.last_pool, network.head)]


def _summed(fired: torch.Tensor) -> npt.NDArray[np.int64]:
    """Sums over steps and images, exact: a batch has far fewer than 2^24 of them."""
    return fired.sum(0).cpu().numpy().astype(np.int64)
