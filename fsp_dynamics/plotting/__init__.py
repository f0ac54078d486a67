"""Plots of the records of the package. The only package that imports matplotlib, and only inside
its functions; computes nothing.

Figures are instances of `matplotlib.figure.Figure` drawn by Agg: no display, no pyplot, no global
state; a notebook displays the returned figure. Where you have imported pyplot, a figure that is
returned is also its current one (`plotting.showing`): `plt.savefig` saves it and `plt.show` shows
it. All use the style `fsp.mplstyle`, whatever matplotlib's current settings are. To use it for
your own figures:

    matplotlib.style.use(plotting.STYLE)  # "fsp_dynamics.plotting.fsp"

Axes passed as `ax` keep the style in which they were created, including colours and dashes. Figures
of pyplot are shown by pyplot: end such a line of a notebook with a semicolon, otherwise the figure
appears twice, once from pyplot and once as the value of the cell.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_shape
from fsp_dynamics.folders import expanded
from fsp_dynamics.plotting.style import COLOURS as COLOURS
from fsp_dynamics.plotting.style import FORMATS, GREY, SHADE, styled
from fsp_dynamics.plotting.style import STYLE as STYLE
from fsp_dynamics.writing import write_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fsp_dynamics.learning.simulation import Trajectory


def new_figure(width: float, height: float, changed: Mapping[str, Any] | None = None) -> Figure:
    """An empty Figure of this size in inches, drawn by Agg, in the package's style with the
    settings in `changed`; a notebook displays it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from fsp_dynamics.plotting.notebook import StyledFigure

    with styled(changed):
        figure = StyledFigure(changed, figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


@contextlib.contextmanager
def axes_for(
    ax: Axes | Sequence[Axes] | None,
    size: tuple[float, float],
    most: int = 2,
    changed: Mapping[str, Any] | None = None,
    **grid: Any,
) -> Iterator[Sequence[Axes]]:
    """Axes to draw into: those given, unchanged; otherwise those of a new figure of this size in
    the package's style with the settings in `changed`, with `grid` passed to `Figure.subplots`,
    which pyplot gets once drawn.

    Raises ConfigurationError for anything but Axes, ShapeError for more than `most` of them.
    """
    if ax is None:
        from fsp_dynamics.plotting.showing import share

        with styled(changed):
            figure = new_figure(*size, changed)
            yield list(figure.subplots(squeeze=False, **grid).ravel())
        share(figure)
        return
    from matplotlib.axes import Axes

    given = list(np.ravel(np.asarray(ax, object)))
    for each in given:
        if not isinstance(each, Axes):
            raise ConfigurationError(f"ax is {type(each).__name__}, expected matplotlib's Axes, at most {most} of them")
    check_shape("ax", given, (len(given) if 1 <= len(given) <= most else most,))
    yield given


def figure_of(axes: Sequence[Axes]) -> Figure:
    """The Figure that contains these axes."""
    return axes[0].figure.get_figure(root=True)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Save a figure of the package in the format given by the extension; a file that was there is
    replaced whole or not at all. Raises ConfigurationError unless it is .png, .svg or .pdf.
    """
    path = expanded(path, "path")
    if path.suffix.lower() not in FORMATS:
        raise ConfigurationError(f"figure {path.name!r} ends in {path.suffix!r}, expected one of: {', '.join(FORMATS)}")
    drawn = io.BytesIO()
    with styled():
        figure.savefig(drawn, format=path.suffix[1:].lower())
    write_aside(path, drawn.getvalue())
    return path


def plot_trajectory(trajectory: Trajectory, ax: Axes | Sequence[Axes] | None = None, *, sample: int = 0) -> Figure:
    """Output rates of one sample over time, with nudged phases shaded; below, on a log scale, the
    residuals of the batch.

    ax : None for a new figure with both; one Axes for the rates only; two for both. Returns the
    figure.
    """
    if not 0 <= sample < trajectory.residual.shape[1]:
        raise ConfigurationError(f"sample = {sample}, expected 0 to {trajectory.residual.shape[1] - 1}")
    with axes_for(ax, (7.2, 5.2), nrows=2, sharex=True, height_ratios=(3, 2)) as axes:
        _draw_rates(axes[0], trajectory, sample)
        if len(axes) == 2:
            _draw_settling(axes[1], trajectory, sample)
        axes[-1].set_xlabel("time (unit of the time constants)")
    return figure_of(axes)


def plot_run(
    records: Iterable[Mapping[str, Any]], ax: Axes | Sequence[Axes] | None = None, *, path: str | Path | None = None
) -> Figure:
    """The learning curve and, if present, the alignment angles of the loop.

    records : one mapping per epoch with `epoch`, `train_error`, `valid_error`, `test_error` in
    percent and `alignment_degrees` {name: degrees}; missing values and None are left out. The
    legends give the last values. ax : None for a new figure; one Axes for the learning curve only;
    two for both. path : also save the figure there. Returns the figure.
    """
    records = list(records)
    if not records:
        raise ConfigurationError("records is empty, expected one mapping per epoch")
    names = list(dict.fromkeys(name for record in records for name in record.get("alignment_degrees") or {}))
    with axes_for(ax, (7.0 if names else 3.5, 3.5), ncols=2 if names else 1) as axes:
        _draw_errors(axes[0], records)
        if len(axes) == 2:
            _draw_angles(axes[1], records, names)
    figure = figure_of(axes)
    if path is not None:
        save_figure(figure, path)
    return figure


def _draw_rates(ax: Axes, trajectory: Trajectory, sample: int) -> None:
    rates = trajectory.rates[-1][:, sample]
    for unit in range(rates.shape[1]):
        ax.plot(trajectory.times, rates[:, unit], label=str(unit))
    ax.set_ylim(-0.04, 1.04)
    ax.set_ylabel(f"output firing rate, sample {sample}")
    _shade_pieces(ax, trajectory, named=True)
    if rates.shape[1] <= 20:
        ax.legend(title="unit", loc="center left", bbox_to_anchor=(1.01, 0.5), ncols=1 + (rates.shape[1] > 10))


def _draw_settling(ax: Axes, trajectory: Trajectory, sample: int) -> None:
    # 0 cannot be drawn on a log axis
    positive = np.where(trajectory.residual > 0, trajectory.residual, np.nan)
    for other in range(positive.shape[1]):
        if other != sample:
            ax.plot(
                trajectory.times,
                positive[:, other],
                color="#AAAAAA",
                linestyle="-",
                linewidth=0.8,
                label="_" if ax.lines else "others",
            )
    ax.plot(trajectory.times, positive[:, sample], label=str(sample))
    ax.set_yscale("log")
    ax.set_ylabel("residual\n‖ds/dt / (1/r + β)‖")
    ax.legend(title="sample", loc="center left", bbox_to_anchor=(1.01, 0.5))
    _shade_pieces(ax, trajectory, named=False)


def _shade_pieces(ax: Axes, trajectory: Trajectory, named: bool) -> None:
    """Shade nudged phases, draw a line at each boundary and name the phases above the axes where
    space permits.
    """
    borders = trajectory.borders
    total = borders[-1] - borders[0]
    ax.set_xlim(borders[0], borders[-1])
    for begin, end, beta in zip(borders[:-1], borders[1:], trajectory.betas, strict=True):
        if beta:
            ax.axvspan(begin, end, color=SHADE, zorder=0)
        if end < borders[-1]:
            ax.axvline(end, color=GREY, linewidth=0.8, linestyle=":")
        fitting = [
            t
            for t in ((f"nudged, β = {beta:g}", f"β = {beta:g}") if beta else ("free",))
            if 0.014 * len(t) < (end - begin) / total
        ]
        if named and fitting:
            ax.annotate(
                fitting[0],
                ((begin + end) / 2, 1),
                (0, 4),
                ("data", "axes fraction"),
                "offset points",
                ha="center",
                fontsize=9,
                color=GREY,
            )


def _draw_errors(ax: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    for key, colour, dash in (
        ("train_error", GREY, "--"),
        ("valid_error", COLOURS[1], "-."),
        ("test_error", COLOURS[0], "-"),
    ):
        epochs, errors = _series(records, lambda record, key=key: record.get(key))
        if epochs:
            ax.plot(
                epochs,
                errors,
                dash,
                color=colour,
                marker="o",
                label=f"{key.removesuffix('_error')} ({errors[-1]:.2f} %)",
            )
    ax.set_title("learning curve")
    ax.set_ylabel("error (%)")
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    _epochs(ax)


def _draw_angles(ax: Axes, records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    ax.axhline(90, color=GREY, linewidth=1.0, linestyle=":")
    ax.annotate(
        "90°: no alignment",
        (1, 90),
        (0, 3),
        ("axes fraction", "data"),
        "offset points",
        ha="right",
        va="bottom",
        fontsize=8,
        color=GREY,
    )
    for name in names:
        epochs, degrees = _series(records, lambda record, name=name: (record.get("alignment_degrees") or {}).get(name))
        last = f"{degrees[-1]:.1f}°" if degrees else "no angle"  # such as that of a zero matrix
        ax.plot(epochs, degrees, marker="o", label=f"{name} ({last})")
    ax.set_title("loop alignment")
    ax.set_ylabel("angle to the product\nof the others (degrees)")
    ax.margins(y=0.08)
    _epochs(ax)


def _series(records: Sequence[Mapping[str, Any]], value: Any) -> tuple[list[float], list[float]]:
    """(epochs, values) of the records in which the value is present and finite."""
    pairs = [(float(record["epoch"]), value(record)) for record in records]
    kept = [(epoch, float(v)) for epoch, v in pairs if v is not None and np.isfinite(v)]
    return [epoch for epoch, _ in kept], [v for _, v in kept]


def _epochs(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=min(2, len(labels)))
