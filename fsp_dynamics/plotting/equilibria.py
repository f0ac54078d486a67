"""Plots of the equilibria of a batch, or of one sample: residuals and states. An equilibrium does
not contain firing rates, so states are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.plotting import COLOURS, GREY, axes_for, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fsp_dynamics.solvers.equilibrium import Equilibrium

MARKS = {
    "converged": ("o", 3.5, COLOURS[0]),
    "out of steps": ("X", 6, COLOURS[1]),
    "oscillates": ("D", 4.5, COLOURS[3]),
    "not finite": ("^", 6, "#000000"),
}
ZERO = ("v", 4, COLOURS[2])
FEW = 30  # units up to which each one is marked


def plot_equilibrium(
    equilibrium: Equilibrium, ax: Axes | Sequence[Axes] | None = None, *, sample: int | None = None
) -> Figure:
    """Plot a batch, or one sample of it.

    Batch: the residual of each sample on a log scale, with its status as the marker; below, the
    states of the outputs, one column per sample. One sample: the states of its outputs; below,
    the sorted states of every layer, which shows how many units are silent or saturated. ax : None
    for a new figure with both plots; one Axes for the upper plot only; two for both. Returns the
    figure. Raises ConfigurationError for an invalid sample.
    """
    count = len(equilibrium.status)
    if sample is not None and not 0 <= sample < count:
        raise ConfigurationError(f"sample = {sample}, expected 0 to {count - 1}, or None for the whole batch")
    if sample is None:
        with axes_for(ax, (7.2, 5.2), nrows=2, sharex=True, height_ratios=(3, 2)) as axes:
            _draw_residuals(axes[0], equilibrium)
            if len(axes) == 2:
                _draw_outputs(axes[1], equilibrium)
            axes[-1].set_xlabel("sample")
    else:
        with axes_for(ax, (7.2, 5.2), nrows=2) as axes:
            _draw_output(axes[0], equilibrium, sample)
            if len(axes) == 2:
                _draw_layers(axes[1], equilibrium, sample)
    return figure_of(axes)


def _draw_residuals(ax: Axes, equilibrium: Equilibrium) -> None:
    residual, ended = equilibrium.residual, equilibrium.endings
    sample, drawable = (
        np.arange(len(residual)),
        np.isfinite(residual) & (residual > 0),
    )  # the others cannot be drawn on a log axis
    for name, (marker, size, colour) in MARKS.items():
        chosen = drawable & (ended == name)
        if chosen.any():
            ax.plot(
                sample[chosen],
                residual[chosen],
                marker,
                markersize=size,
                color=colour,
                label=f"{name} ({chosen.sum()})",
            )
    edges = (("not finite", ~np.isfinite(residual), 1.0, "above"), ("residual 0", residual == 0, 0.0, "below"))
    for name, chosen, edge, where in edges:
        if chosen.any():
            (marker, size, colour), place = MARKS.get(name, ZERO), np.full(chosen.sum(), edge)
            look: dict[str, Any] = {
                "markersize": size,
                "color": colour,
                "transform": ax.get_xaxis_transform(),
                "clip_on": False,
            }
            ax.plot(sample[chosen], place, marker, label=f"{name}, {where} ({chosen.sum()})", **look)
    ax.set_yscale("log")
    ax.set_xlim(-0.5, len(residual) - 0.5)
    ax.set_ylabel("residual\n‖ds/dt / (1/r + β)‖")
    title = f"{_phase(equilibrium)}: {equilibrium.converged.sum()} of {len(residual)} samples converged"
    ax.legend(title=title, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)


def _draw_outputs(ax: Axes, equilibrium: Equilibrium) -> None:
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    output = equilibrium.output
    known = output[np.isfinite(output)]
    low, high = min(0.0, known.min(initial=0.0)), max(1.0, known.max(initial=1.0))
    colours = matplotlib.colormaps[matplotlib.rcParams["image.cmap"]].with_extremes(bad=GREY)
    image = ax.imshow(np.ma.masked_invalid(output.T), colours, aspect="auto", origin="lower", vmin=low, vmax=high)
    figure_of([ax]).colorbar(image, ax=ax, label="state" if known.size == output.size else "state\n(grey: not finite)")
    ax.grid(False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("output unit")


def _draw_output(ax: Axes, equilibrium: Equilibrium, sample: int) -> None:
    output = equilibrium.output[sample]
    ax.bar(np.arange(len(output)), output, color=COLOURS[0])
    ax.set_xlim(-0.6, len(output) - 0.4)
    if len(output) <= FEW:
        ax.set_xticks(range(len(output)))
    _from_0_to_1(ax)
    ax.set_xlabel("output unit")
    ax.set_ylabel("state")
    ended, residual = equilibrium.endings[sample], f"residual {equilibrium.residual[sample]:.2g}"
    steps = f"{equilibrium.steps[sample]} steps"
    ax.set_title(f"{_phase(equilibrium)}, sample {sample}: {ended}, {residual} after {steps}")


def _draw_layers(ax: Axes, equilibrium: Equilibrium, sample: int) -> None:
    for name, state in zip(equilibrium.layers, equilibrium.state, strict=True):
        units = np.sort(state[sample])
        share = (np.arange(len(units)) + 0.5) / len(units)
        ax.plot(
            share, units, marker="o" if len(units) <= FEW else None, label=f"{name.replace('_', ' ')} ({len(units)})"
        )
    ax.set_xlim(0, 1)
    _from_0_to_1(ax)
    ax.set_xlabel("fraction of the units of the layer")
    ax.set_ylabel("state, sorted")
    ax.legend(title="layer (units)", loc="center left", bbox_to_anchor=(1.01, 0.5))


def _from_0_to_1(ax: Axes) -> None:
    """Extend the y axis to at least 0 to 1."""
    low, high = ax.get_ylim()
    ax.set_ylim(min(-0.04, low), max(1.04, high))


def _phase(equilibrium: Equilibrium) -> str:
    return f"nudged, β = {equilibrium.beta:g}" if equilibrium.beta else "free"
