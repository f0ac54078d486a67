"""What the units of a spiking network do on images: their membranes and spikes (`record`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from fsp_dynamics.arrays import numbers
from fsp_dynamics.display import html_table
from fsp_dynamics.errors import ConfigurationError, check_shape
from fsp_dynamics.layerwise.evaluation import parts_of
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.networks import LayerwiseNetwork, neuron_of
from fsp_dynamics.layerwise.neurons import Neuron
from fsp_dynamics.models.network import Array
from fsp_dynamics.torch_backend.tensors import tensor

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Unit = int | tuple[int, int, int]
"""A unit of a layer: its number, or (channel, row, column) in a convolution."""


@dataclass(frozen=True, slots=True, eq=False)
class SpikeRecord:
    """What every unit did at every step.

    membranes : {layer: (steps, B, units) or (steps, B, channels, rows, columns)}, before a reset;
    layers are named layer1, ... neuron : the units, with their threshold.

    >>> from fsp_dynamics.layerwise.learners import make_learner
    >>> from fsp_dynamics.layerwise.networks import snn
    >>> learner = make_learner("bp", snn([2, "M"], [5], Neuron(steps=4)), (1, 6, 6), 3)
    >>> seen = record(learner, np.random.default_rng(0).random((7, 36)))
    >>> {name: v.shape for name, v in seen.membranes.items()}
    {'layer1': (4, 7, 2, 6, 6), 'layer2': (4, 7, 5)}
    >>> last = seen.membranes["layer2"]
    >>> seen.images, np.array_equal(seen.spikes["layer2"], last >= seen.threshold)
    (7, True)
    >>> bool((seen.after["layer2"][seen.spikes["layer2"]] == 0).all()), seen.rates["layer1"].shape
    (True, (2, 6, 6))
    >>> dict(seen.to_xarray()["spikes_layer2"].sizes)
    {'step': 4, 'image': 7, 'layer2_unit': 5}
    >>> len(seen.plot(units=[(0, 3, 3), (1, 3, 3)]).axes), len(seen.plot_raster().axes)
    (2, 2)
    >>> len(seen.plot_rates().axes)
    2
    """

    membranes: dict[str, Array]
    neuron: Neuron

    def __repr__(self) -> str:
        return f"<SpikeRecord of {self.images} images, {self.neuron.steps} steps: {self._layers()}>"

    def _repr_html_(self) -> str:
        facts = {"layers": self._layers(), "steps": self.neuron.steps, "threshold": f"{self.threshold:g}"}
        rates = {f"mean rate of {name}": f"{rate.mean():.3f}" for name, rate in self.rates.items()}
        return html_table(f"Spikes on {self.images} images", facts | rates)

    def _layers(self) -> str:
        return ", ".join(" x ".join(map(str, v.shape[2:])) for v in self.membranes.values())

    @property
    def threshold(self) -> float:
        """A unit spikes where its membrane is at it, or above it."""
        return self.neuron.threshold

    @property
    def images(self) -> int:
        """How many images were shown."""
        return int(next(iter(self.membranes.values())).shape[1])

    @property
    def spikes(self) -> dict[str, npt.NDArray[np.bool_]]:
        """{layer: whether each unit spikes}, in the shapes of `membranes`."""
        return {name: self.neuron.fire(torch.from_numpy(v)).numpy() > 0 for name, v in self.membranes.items()}

    @property
    def after(self) -> dict[str, Array]:
        """{layer: membranes after their reset}, in the shapes of `membranes`."""
        fired = self.spikes
        hard = self.neuron.reset == "hard"
        return {name: np.where(fired[name], 0 if hard else v - self.threshold, v) for name, v in self.membranes.items()}

    @property
    def rates(self) -> dict[str, Array]:
        """{layer: spikes of each unit per step}, from 0 to 1, over all images."""
        return {name: fired.mean((0, 1)) for name, fired in self.spikes.items()}

    def to_xarray(self) -> xarray.Dataset:
        """An xarray.Dataset that saves to NetCDF: variables membrane_layer1, spikes_layer1, ...
        (step, image, unit or channel, row, column of that layer); steps count from 1.

        Returns
        -------
        xarray.Dataset : see above, with threshold, leak and reset as attributes.
        """
        import xarray

        variables: dict[str, Any] = {}
        fired = self.spikes
        for name, v in self.membranes.items():
            places = ("unit",) if v.ndim == 3 else ("channel", "row", "column")
            dims = ("step", "image", *(f"{name}_{place}" for place in places))
            variables[f"membrane_{name}"] = (dims, v, {"units": "1", "long_name": f"membranes before reset, {name}"})
            variables[f"spikes_{name}"] = (dims, fired[name], {"units": "1", "long_name": f"spikes, {name}"})
        coordinates = {"step": np.arange(1, self.neuron.steps + 1), "image": np.arange(self.images)}
        settings = {"threshold": self.threshold, "leak": self.neuron.leak, "reset": self.neuron.reset}
        return xarray.Dataset(variables, coordinates, settings)

    def plot(
        self,
        ax: Axes | Sequence[Axes] | None = None,
        *,
        layer: str = "layer1",
        image: int = 0,
        units: Sequence[Unit] | None = None,
        path: str | Path | None = None,
    ) -> Figure:
        """Membranes of some units of a layer over the steps of one image, with the threshold and
        the spikes (`plotting.spikes.plot_membranes`).

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        from fsp_dynamics.plotting.spikes import plot_membranes

        return plot_membranes(self, ax, layer=layer, image=image, units=units, path=path)

    def plot_raster(
        self, ax: Axes | Sequence[Axes] | None = None, *, images: int = 8, path: str | Path | None = None
    ) -> Figure:
        """Which units of all layers spike when, on the first images
        (`plotting.spikes.plot_raster`).

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        from fsp_dynamics.plotting.spikes import plot_raster

        return plot_raster(self, ax, images=images, path=path)

    def plot_rates(self, ax: Axes | Sequence[Axes] | None = None, *, path: str | Path | None = None) -> Figure:
        """How many units of each layer spike how often (`plotting.spikes.plot_rates`).

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        from fsp_dynamics.plotting.spikes import plot_rates

        return plot_rates(self.rates, ax, path=path)


def record(learner: Learner, images: Array) -> SpikeRecord:
    """The membranes of all units at every step, on images (B, pixels), as in a prediction. It holds
    steps B units numbers: a few images are enough to look at.

    Raises ConfigurationError for a network without spiking units, and where there is no image,
    ShapeError for images of another size.

    Returns
    -------
    SpikeRecord : arrays (steps, B, ...) for each layer, on the CPU, in the network's precision.

    >>> from fsp_dynamics.layerwise.learners import make_learner
    >>> from fsp_dynamics.layerwise.networks import mlp, snn
    >>> record(make_learner("fsp", snn([2, "M"], [5], Neuron()), (1, 6, 6), 3), np.zeros((7, 36)))
    <SpikeRecord of 7 images, 4 steps: 2 x 6 x 6, 5>
    >>> record(make_learner("fsp", mlp([5]), (1, 6, 6), 3), np.zeros((7, 36)))
    Traceback (most recent call last):
    fsp_dynamics.errors.ConfigurationError: the network has no spiking units; give one of ...
    """
    neuron = neuron_of(learner.network)
    found: dict[str, list[Array]] = {}
    with learner.predicting(), torch.no_grad():
        for part in batches_of(learner, images):
            for name, membranes in zip(layer_names(learner.network), membranes_of(learner.network, part), strict=True):
                found.setdefault(name, []).append(membranes.cpu().numpy())
    return SpikeRecord({name: np.concatenate(parts, 1) for name, parts in found.items()}, neuron)


def layer_names(network: LayerwiseNetwork) -> list[str]:
    """layer1, layer2, ..., as stages are named."""
    return [f"layer{k}" for k in range(1, len(network.blocks) + 1)]


def batches_of(learner: Learner, images: Array) -> Iterator[torch.Tensor]:
    """The images, a batch at a time. Raises ConfigurationError, ShapeError."""
    rows = numbers("images", images)
    check_shape("images", rows, (None, int(np.prod(learner.network.image_shape))))
    if not len(rows):
        raise ConfigurationError("images has 0 rows, expected at least one image")
    like = next(learner.network.parameters())
    for part in parts_of(learner, len(rows)):
        yield tensor(rows[part], like.device, like.dtype)


def membranes_of(network: LayerwiseNetwork, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Those of each layer, one at a time."""
    h = network.images(rows)
    for block in network.blocks:
        h = block(h)
        yield h
