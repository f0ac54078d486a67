"""Plots of alignment angles, one row per matrix of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fsp_dynamics.plotting import COLOURS, GREY, SHADE, axes_for, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fsp_dynamics.analysis.alignment import Alignment, SampleAlignment

SPREAD = 0.56  # fraction of the height of a row over which its samples are spread


def plot_alignment(alignment: Alignment, ax: Axes | None = None) -> Figure:
    """For each matrix the raw angle, the angle inside the subspace of the product, and the bound
    (no raw angle can lie in the shaded ranges).

    z : the raw cosine in standard deviations of a random matrix. ax : None for a new figure, or
    one Axes. Returns the figure.
    """
    names = list(alignment.degrees)
    raw, bound, inside = (
        np.array([angles[name] for name in names]) for angles in (alignment.degrees, alignment.bound, alignment.inside)
    )
    lines = np.arange(len(names))
    with axes_for(ax, (7.2, 1.6 + 0.5 * len(names)), most=1) as axes:
        axes[0].barh(
            [*lines, *lines],
            [*bound, *bound],
            0.7,
            [*(0 * bound), *(180 - bound)],
            color=SHADE,
            label="no raw angle here",
        )
        axes[0].plot(bound, lines, "|", color=GREY, markersize=14, markeredgewidth=1.6, label="bound")
        axes[0].plot(inside, lines, "D", color=COLOURS[1], markersize=7, markerfacecolor="none", label="inside")
        axes[0].plot(raw, lines, "o", color=COLOURS[0], markersize=6, label="raw")
        _lines(
            axes[0], [f"{name}: {_angle(alignment.degrees[name])}\nz = {alignment.z_score[name]:.3g}" for name in names]
        )
    return figure_of(axes)


def plot_sample_alignment(alignment: SampleAlignment, ax: Axes | None = None) -> Figure:
    """For each matrix the angle of every sample, from top to bottom in order, with mean and
    standard deviation.

    The labels give mean, deviation and the number of samples without a defined angle. ax : None
    for a new figure, or one Axes. Returns the figure.
    """
    mean, std, undefined = alignment.mean, alignment.std, alignment.undefined
    labels = []
    with axes_for(ax, (7.2, 1.6 + 0.8 * len(mean)), most=1) as axes:
        for line, (name, degrees) in enumerate(alignment.degrees.items()):
            places = line + SPREAD * (np.arange(len(degrees)) / max(len(degrees) - 1, 1) - 0.5)
            axes[0].plot(degrees, places, "o", color=COLOURS[3], markersize=3, label="_" if line else "sample")
            what = "_" if line else "mean, standard deviation"
            axes[0].errorbar([mean[name]], [line], xerr=[std[name]], fmt="D", color="#000000", capsize=4, label=what)
            without = f"\n{undefined[name]} undefined" if undefined[name] else ""
            labels.append(f"{name}: {_angle(mean[name])} ± {std[name]:.1f}°{without}")
        _lines(axes[0], labels)
    return figure_of(axes)


def _lines(ax: Axes, labels: Sequence[str]) -> None:
    """One row per label, from top to bottom, over 0 to 180 degrees with 90 marked."""
    ax.axvline(90, color=GREY, linewidth=1, linestyle=":")
    ax.annotate(
        "90°: no alignment",
        (90, 1),
        (0, 4),
        ("data", "axes fraction"),
        "offset points",
        ha="center",
        fontsize=8,
        color=GREY,
    )
    ax.set_xlim(0, 180)
    ax.set_xticks(range(0, 181, 30))
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_xlabel("angle to the product of the others (degrees)")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), labelspacing=1)


def _angle(degrees: float) -> str:
    return "no angle" if np.isnan(degrees) else f"{degrees:.1f}°"
