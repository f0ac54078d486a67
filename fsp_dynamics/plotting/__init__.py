"""Records into axes; computes nothing. The one room that imports matplotlib, and only inside its functions.

Figures are built from `matplotlib.figure.Figure` and drawn by Agg: no display, no pyplot, no state left behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fsp_dynamics.learning.simulation import Trajectory

# Paul Tol's "muted" set and black: told apart with any kind of colour vision.
COLOURS = ("#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#DDCC77", "#44AA99", "#999933", "#AA4499", "#000000")
DASHES = ("-", "--", ":", "-.")
FORMATS = (".png", ".svg", ".pdf")
GREY = "#666666"
SHADE = "#F0EDE4"


def new_figure(width: float, height: float, dpi: float = 120) -> Figure:
    """An empty white Figure of that size in inches, drawn by Agg, so many pixels to the inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write the figure in the format its extension names. Raises ConfigurationError for another than .png, .svg, .pdf."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ConfigurationError(f"picture {path.name!r} ends in {path.suffix!r}, expected one of: {', '.join(FORMATS)}")
    figure.savefig(path)
    return path


def plot_trajectory(trajectory: Trajectory, ax: Axes | Sequence[Axes] | None = None, *, sample: int = 0) -> Figure:
    """Output rates of one sample over time, the nudged pieces shaded; and below, on a log scale, how the batch settles.

    ax : None for a new figure of both; one Axes for the rates alone; two for both. Returns the figure.
    """
    if not 0 <= sample < trajectory.residual.shape[1]:
        raise ConfigurationError(f"sample = {sample}, expected 0 to {trajectory.residual.shape[1] - 1}")
    if ax is None:
        figure = new_figure(7.2, 5.2)
        axes: Sequence[Axes] = list(figure.subplots(2, 1, sharex=True, height_ratios=(3, 2)))
    else:
        axes = list(np.ravel(np.asarray(ax, object)))
        check_shape("ax", axes, (len(axes) if len(axes) in (1, 2) else 2,))
    _draw_rates(axes[0], trajectory, sample)
    if len(axes) == 2:
        _draw_settling(axes[1], trajectory, sample)
    axes[-1].set_xlabel("time (unit of the time constants)")
    return axes[0].figure.get_figure(root=True)


def plot_run(records: Iterable[Mapping[str, Any]], path: str | Path | None = None) -> Figure:
    """The learning curve, and beside it the loop's alignment angles where there are any.

    records : one mapping for each epoch with `epoch`, `train_error`, `valid_error`, `test_error` in percent and `alignment_degrees`
    {name: degrees}; what is missing or None is left out. The
    legends tell the last values. path : also write the picture there. Returns the figure.
    """
    records = list(records)
    if not records:
        raise ConfigurationError("records is empty, expected one mapping for each epoch: there is nothing to draw yet")
    names = list(dict.fromkeys(name for record in records for name in record.get("alignment_degrees") or {}))
    figure = new_figure(10.4 if names else 5.4, 4.3)
    axes: Sequence[Axes] = figure.subplots(1, 2 if names else 1, squeeze=False)[0]
    _draw_errors(axes[0], records)
    if names:
        _draw_angles(axes[1], records, names)
    if path is not None:
        save_figure(figure, path)
    return figure


def _draw_rates(ax: Axes, trajectory: Trajectory, sample: int) -> None:
    rates = trajectory.rates[-1][:, sample]
    for unit in range(rates.shape[1]):
        colour, dash = COLOURS[unit % len(COLOURS)], DASHES[unit // len(COLOURS) % len(DASHES)]
        ax.plot(trajectory.times, rates[:, unit], dash, color=colour, linewidth=1.6, label=str(unit))
    ax.set_ylim(-0.04, 1.04)
    ax.set_ylabel(f"output firing rate, sample {sample}")
    _shade_pieces(ax, trajectory, named=True)
    if rates.shape[1] <= 20:
        ax.legend(title="unit", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, ncols=1 + (rates.shape[1] > 10))
    _tidy(ax)


def _draw_settling(ax: Axes, trajectory: Trajectory, sample: int) -> None:
    positive = np.where(trajectory.residual > 0, trajectory.residual, np.nan)  # a log axis has no place for 0
    for other in range(positive.shape[1]):
        if other != sample:
            ax.plot(trajectory.times, positive[:, other], color="#AAAAAA", linewidth=0.8, label="_" if ax.lines else "others")
    ax.plot(trajectory.times, positive[:, sample], color=COLOURS[0], linewidth=1.6, label=str(sample))
    ax.set_yscale("log")
    ax.set_ylabel("residual ‖ds/dt‖\n(per unit time)")
    ax.legend(title="sample", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    _shade_pieces(ax, trajectory, named=False)
    _tidy(ax)


def _shade_pieces(ax: Axes, trajectory: Trajectory, named: bool) -> None:
    """Nudged pieces shaded, a line at each border, and above the axes their names, as long as there is room for."""
    borders = trajectory.borders
    total = borders[-1] - borders[0]
    ax.set_xlim(borders[0], borders[-1])
    for begin, end, beta in zip(borders[:-1], borders[1:], trajectory.betas, strict=True):
        if beta:
            ax.axvspan(begin, end, color=SHADE, zorder=0)
        if end < borders[-1]:
            ax.axvline(end, color=GREY, linewidth=0.8, linestyle=":")
        fitting = [t for t in ((f"nudged, β = {beta:g}", f"β = {beta:g}") if beta else ("free",)) if 0.014 * len(t) < (end - begin) / total]
        if named and fitting:
            ax.annotate(fitting[0], ((begin + end) / 2, 1), (0, 4), ("data", "axes fraction"), "offset points", ha="center", fontsize=9, color=GREY)


def _draw_errors(ax: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    for key, colour, dash in (("train_error", GREY, "--"), ("valid_error", COLOURS[1], "-."), ("test_error", COLOURS[0], "-")):
        epochs, errors = _series(records, lambda record, key=key: record.get(key))
        if epochs:
            ax.plot(epochs, errors, dash, color=colour, marker="o", markersize=3.5, label=f"{key.removesuffix('_error')} ({errors[-1]:.2f} %)")
    ax.set_title("learning curve", fontsize=10)
    ax.set_ylabel("error (%)")
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    _epochs(ax)
    _tidy(ax)


def _draw_angles(ax: Axes, records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    ax.axhline(90, color=GREY, linewidth=1.0, linestyle=":")
    ax.annotate("90°: no alignment", (1, 90), (0, 3), ("axes fraction", "data"), "offset points", ha="right", va="bottom", fontsize=8, color=GREY)
    for i, name in enumerate(names):
        epochs, degrees = _series(records, lambda record, name=name: (record.get("alignment_degrees") or {}).get(name))
        if not epochs:  # a matrix that is zero has no angle
            continue
        colour = COLOURS[i % len(COLOURS)]
        ax.plot(epochs, degrees, DASHES[i % len(DASHES)], color=colour, marker="o", markersize=3.5, label=f"{name} ({degrees[-1]:.1f}°)")
    ax.set_title("loop alignment: each matrix against the product of the others", fontsize=10)
    ax.set_ylabel("angle (degrees)")
    ax.margins(y=0.08)
    _epochs(ax)
    _tidy(ax)


def _series(records: Sequence[Mapping[str, Any]], value: Any) -> tuple[list[float], list[float]]:
    """(epochs, values) of the records in which the value is there and finite."""
    pairs = [(float(record["epoch"]), value(record)) for record in records]
    kept = [(epoch, float(v)) for epoch, v in pairs if v is not None and np.isfinite(v)]
    return [epoch for epoch, _ in kept], [v for _, v in kept]


def _epochs(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(3, len(labels)), frameon=False, fontsize=8)


def _tidy(ax: Axes) -> None:
    ax.set_facecolor("white")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#E5E5E5", linewidth=0.6)
    ax.set_axisbelow(True)
