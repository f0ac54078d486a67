"""Spiking networks drawn, one column of a journal wide: membranes, rasters, rates of units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_choice, is_whole
from fsp_dynamics.plotting import COLOURS, GREY, SHADE, axes_for, figure_of, save_figure
from fsp_dynamics.plotting.figures import SMALL, WIDTH

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fsp_dynamics.layerwise.spikes import SpikeRecord, Unit

CHOSEN = 4
"""Units whose membranes are drawn where none are named."""
ROWS = 100
"""Units of a layer in a raster, evenly spaced where it has more."""
BINS = 20
"""Of rates from 0 to 1."""


def plot_membranes(
    record: SpikeRecord,
    ax: Axes | Sequence[Axes] | None = None,
    *,
    layer: str = "layer1",
    image: int = 0,
    units: Sequence[Unit] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Membranes over the steps of one image, a unit in each Axes: a dot where the membrane came to
    at a step, or a triangle where that reached the threshold (dotted) and the unit spiked.

    units : numbers of units, or (channel, row, column) in a convolution. None: of the numbers of
    spikes that there are, up to 4, evenly spaced, the unit with the highest membrane. ax : None for
    a new figure, or an Axes for each unit. path : also save the figure there. Raises
    ConfigurationError for a layer, an image or a unit that is not there, and for another number of
    Axes. Returns the figure.
    """
    check_choice("layer", layer, record.membranes)
    if not is_whole(image, 0) or image >= record.images:
        raise ConfigurationError(f"image = {image!r}, expected 0 to {record.images - 1}")
    membranes, after, fired = (each[layer][:, image] for each in (record.membranes, record.after, record.spikes))
    places = _telling(membranes, fired) if units is None else [_place(unit, membranes.shape[1:]) for unit in units]
    if not places:
        raise ConfigurationError("units is empty, expected one or more")
    size = (WIDTH, 0.65 + 0.85 * len(places))
    with axes_for(ax, size, most=len(places), changed=SMALL, nrows=len(places), sharex=True) as axes:
        _check_each(axes, len(places), "unit")
        for each, place in zip(axes, places, strict=True):
            of_unit: tuple[Any, ...] = (slice(None), *place)
            _draw_trace(each, membranes[of_unit], after[of_unit], fired[of_unit], record.threshold)
            spikes = int(fired[of_unit].sum())
            each.set_title(f"{layer}, {_named(place)}: {spikes} spike{'' if spikes == 1 else 's'}", loc="left")
            each.set_ylabel("membrane")
        axes[-1].set_xlabel(f"step (image {image})")
        if ax is None:
            meaning = axes[-1].get_legend_handles_labels()
            figure_of(axes).legend(*meaning, loc="outside lower center", ncols=len(meaning[0]))
        else:
            axes[-1].legend()
    return _saved(axes, path)


def plot_raster(
    record: SpikeRecord,
    ax: Axes | Sequence[Axes] | None = None,
    *,
    images: int = 8,
    path: str | Path | None = None,
) -> Figure:
    """Which units spike when, an Axes for each layer: a row for each unit, at most 100 of them,
    evenly spaced, and the steps of the first images one after the other, dark where it spikes.

    ax : None for a new figure, or an Axes for each layer. path : also save the figure there. Raises
    ConfigurationError for a number of images that is not there, and for another number of Axes.
    Returns the figure.
    """
    if not is_whole(images, 1):
        raise ConfigurationError(f"images = {images!r}, expected a whole number, 1 or more")
    shown, layers, steps = min(images, record.images), record.spikes, record.neuron.steps
    size = (WIDTH, 0.5 + 1.05 * len(layers))
    with axes_for(ax, size, most=len(layers), changed=SMALL, nrows=len(layers), sharex=True) as axes:
        _check_each(axes, len(layers), "layer")
        for each, (name, fired) in zip(axes, layers.items(), strict=True):
            # (image, step), so that the steps of an image stand together
            rows = np.moveaxis(fired[:, :shown], 1, 0).reshape(shown * steps, -1).T
            chosen = np.unique(np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).round().astype(int))
            _draw_rows(each, rows[chosen], shown, steps)
            some = "" if len(chosen) == len(rows) else f"{len(chosen)} of "
            each.set_title(f"{name}: {some}{len(rows):,} units", loc="left")
            each.set_ylabel("unit")
        axes[-1].set_xticks((np.arange(shown) + 0.5) * steps, [str(k) for k in range(shown)])
        axes[-1].set_xlabel(f"image, {steps} step{'' if steps == 1 else 's'} each")
    return _saved(axes, path)


def plot_rates(
    rates: Mapping[str, npt.NDArray[Any]],
    ax: Axes | Sequence[Axes] | None = None,
    *,
    path: str | Path | None = None,
) -> Figure:
    """How many units spike how often, an Axes for each layer: the share of its units, on a log
    scale, in each of 20 bins of the rate; titles give the mean, and the shares that never or always
    spike.

    rates : {layer: spikes of each unit per step, from 0 to 1}. ax : None for a new figure, or an
    Axes for each layer. path : also save the figure there. Raises ConfigurationError where there
    are none, and for another number of Axes. Returns the figure.
    """
    if not rates or any(not np.size(each) for each in rates.values()):
        raise ConfigurationError("rates is empty, expected those of one or more layers")
    size = (WIDTH, 0.5 + 0.9 * len(rates))
    with axes_for(ax, size, most=len(rates), changed=SMALL, nrows=len(rates), sharex=True, sharey=True) as axes:
        _check_each(axes, len(rates), "layer")
        for each, (name, own) in zip(axes, rates.items(), strict=True):
            _draw_rates(each, own)
            never, always = (100 * float((own == extreme).mean()) for extreme in (0, 1))
            told = f"{name}: mean {own.mean():.3f}, {never:.1f} % silent, {always:.1f} % saturated"
            each.set_title(told, loc="left")
            each.set_ylabel("units (%)")
        axes[-1].set_xlabel("rate of a unit (spikes per step)")
    return _saved(axes, path)


def _draw_trace(ax: Axes, before: npt.NDArray[Any], after: npt.NDArray[Any], fired: Any, threshold: float) -> None:
    """A line that stays where the last step left the membrane and jumps at each step; then to where
    its reset puts it.
    """
    steps = np.arange(1, len(before) + 1)
    x, y = [0.0, *np.repeat(steps, 3).tolist(), len(before) + 0.5], [0.0]
    for reached, left in zip(before.tolist(), after.tolist(), strict=True):
        y += [y[-1], reached, left]
    marks: dict[str, Any] = {"linestyle": "none"}
    side = min(1.0, (24 / len(steps)) ** 0.5)  # of marks, so that those of many steps stand apart
    ax.axhline(threshold, color=GREY, linewidth=0.7, linestyle=":", label="threshold")
    ax.plot(x, [*y, y[-1]], color=COLOURS[0], linestyle="-", linewidth=0.9)
    ax.plot(
        steps[~fired], before[~fired], color=COLOURS[0], marker="o", markersize=2.5 * side, label="no spike", **marks
    )
    ax.plot(steps[fired], before[fired], color=COLOURS[1], marker="^", markersize=5 * side, label="spike", **marks)
    low, high = min(0.0, before.min()), max(threshold, before.max())
    ax.set_ylim(low - 0.12 * (high - low), high + 0.2 * (high - low))
    ax.set_xlim(0, steps[-1] + 0.5)
    if len(steps) <= 16:
        ax.set_xticks(steps)


def _draw_rows(ax: Axes, rows: npt.NDArray[np.bool_], images: int, steps: int) -> None:
    """(units, images * steps), units from the top."""
    extent = (0, rows.shape[1], len(rows), 0)
    ax.imshow(rows, cmap="binary", vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=extent)
    for k in range(1, images):
        ax.axvline(k * steps, color=COLOURS[1], linewidth=0.5)
    ax.set_facecolor(SHADE)
    ax.grid(visible=False)
    ax.set_yticks([])


def _draw_rates(ax: Axes, rates: npt.NDArray[Any]) -> None:
    edges = np.linspace(0, 1, BINS + 1)
    # a rate at an edge, of few steps, belongs to the bin above it whatever its last bit is
    share = 100 * np.histogram(np.round(rates, 9), np.round(edges, 9))[0] / rates.size
    ax.stairs(share, edges, fill=True, color=COLOURS[0])
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_ylim(min(ax.get_ylim()[0], 0.5 * float(share[share > 0].min())), 150)
    ax.set_xlim(0, 1)


def _telling(membranes: npt.NDArray[Any], fired: npt.NDArray[Any]) -> list[tuple[int, ...]]:
    """For each of some numbers of spikes, most first, the place of the unit with the highest
    membrane.
    """
    spikes, highest = fired.sum(0).ravel(), membranes.max(0).ravel()
    there = np.unique(spikes)[::-1]
    chosen = there[np.unique(np.linspace(0, len(there) - 1, min(CHOSEN, len(there))).round().astype(int))]
    of_each = [np.flatnonzero(spikes == number) for number in chosen]
    best = [int(own[highest[own].argmax()]) for own in of_each]
    return [tuple(int(i) for i in np.unravel_index(k, membranes.shape[1:])) for k in best]


def _place(unit: Unit, size: tuple[int, ...]) -> tuple[int, ...]:
    """The unit as an index of a layer of that size. Raises ConfigurationError."""
    place = (unit,) if isinstance(unit, int | np.integer) else tuple(unit)
    whole = len(place) == len(size) and all(is_whole(i, 0) and i < n for i, n in zip(place, size, strict=True))
    if not whole:
        expected = f"0 to {size[0] - 1}" if len(size) == 1 else f"(channel, row, column) below {size}"
        raise ConfigurationError(f"units holds {unit!r}, expected {expected}")
    return place


def _named(place: tuple[int, ...]) -> str:
    if len(place) == 1:
        return f"unit {place[0]}"
    channel, row, column = place
    return f"channel {channel}, row {row}, column {column}"


def _check_each(axes: Sequence[Axes], expected: int, what: str) -> None:
    """Raises ConfigurationError unless there is an Axes for each."""
    if len(axes) != expected:
        raise ConfigurationError(f"ax holds {len(axes)} Axes, expected {expected}, one for each {what}")


def _saved(axes: Sequence[Axes], path: str | Path | None) -> Figure:
    figure = figure_of(axes)
    if path is not None:
        save_figure(figure, path)
    return figure
