"""The test errors of a sweep by its grid: a dot for every seed, with mean and 95 % interval.

No field in the grid: errors by seed. One: by its values, on a numerical axis if they are numbers
(logarithmic if the largest is `DECADES` times the smallest), otherwise as categories. Two: the one
with more values along the axis, the other by colour and marker. More, or two in pairs: one row per
point, the best at the top.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.plotting import COLOURS, GREY, axes_for, figure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

DECADES = 20
LOOKS = tuple(
    zip(
        (COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[9], COLOURS[6], COLOURS[4], COLOURS[7], COLOURS[8]),
        "os^Dv<>P",
        strict=True,
    )
)
# series up to which a numerical axis is used; more of them would overlap
SCALED = 3
SPACING = 11.0  # points between the dots of two series
LABELLED = 20  # seeds up to which each is labelled
ERROR = "test error (%)"


def plot_sweep(fields: Sequence[str], rows: Sequence[Row], points: Sequence[Row], ax: Axes | None = None) -> Figure:
    """Draw the finished runs that have a test error.

    fields : dotted keys of the grid. rows : a mapping per run with these keys, `seed`,
    `status` and `test_error` in percent. points : one per point of the grid with these keys,
    `test_error`, `test_error_low` and `test_error_high`, or None. ax : None for a
    new figure. Returns the figure. Raises ConfigurationError if no run is finished.
    """
    drawn = [row for row in rows if row["status"] == "finished" and row["test_error"] is not None]
    if not drawn:
        raise ConfigurationError(
            f"none of {len(rows)} runs is finished, so there is nothing to draw; run the sweep again to continue it"
        )
    means = [point for point in points if point["test_error"] is not None]
    along, across = _axes_of(fields, means)
    missing = (
        f"\n{len(rows) - len(drawn)} of {len(rows)} runs are not finished and not drawn"
        if len(drawn) < len(rows)
        else ""
    )
    with axes_for(ax, _size(along, across, fields, means, drawn), most=1) as (only,):
        if not fields:
            _by_seed(only, drawn, means[0], missing)
        elif along is None:
            _by_line(only, fields, drawn, means, missing)
        else:
            _by_value(only, along, across, drawn, means, missing)
        only.autoscale_view()
        if along is None and fields:
            only.set_xlim(_possible(only.get_xlim()))
        else:
            only.set_ylim(_possible(only.get_ylim()))
    return figure_of([only])


def _axes_of(fields: Sequence[str], means: Sequence[Row]) -> tuple[str | None, str | None]:
    """(field along the axis, field shown by colour), or None."""
    if not 1 <= len(fields) <= 2:
        return None, None
    counts = {field: (_numeric(_values(field, means)), len(_values(field, means))) for field in fields}
    along, *others = sorted(fields, key=lambda field: counts[field], reverse=True)
    across = len(_values(others[0], means)) if others else 1
    if across > len(LOOKS) or (across > 1 and len(means) == counts[along][1]):  # or pairs, which do not cross
        return None, None
    return along, others[0] if others else None


def _size(
    along: str | None, across: str | None, fields: Sequence[str], means: Sequence[Row], drawn: Sequence[Row]
) -> tuple[float, float]:
    if along is not None:
        series = len(_values(across, means)) if across else 1
        return min(14.0, max(5.6, 1.4 + (0.3 + 0.16 * series) * len(_values(along, means)))), 4.3
    if fields:
        return 7.2, 1.5 + 0.24 * len(means)
    return min(12.0, max(5.6, 1.4 + 0.3 * min(LABELLED, len(drawn)))), 4.3


def _by_seed(ax: Axes, drawn: Sequence[Row], mean: Row, missing: str) -> None:
    ax.plot(
        range(len(drawn)), [row["test_error"] for row in drawn], "o", color=COLOURS[0], markersize=5, label="a seed"
    )
    ax.axhline(
        mean["test_error"], color="#000000", linewidth=1.2, linestyle="--", label=f"mean ({mean['test_error']:.2f} %)"
    )
    if mean["test_error_low"] is not None:
        low, high = mean["test_error_low"], mean["test_error_high"]
        ax.axhspan(
            low, high, color=GREY, alpha=0.18, linewidth=0, label=f"its 95 % interval ({low:.2f} to {high:.2f} %)"
        )
    if len(drawn) <= LABELLED:
        ax.set_xticks(range(len(drawn)), [str(row["seed"]) for row in drawn])
    else:
        ax.set_xticks([])
    ax.set_xlim(-0.6, len(drawn) - 0.4)
    ax.set_xlabel("seed" + missing)
    ax.set_ylabel(ERROR)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2, borderaxespad=0)


def _by_value(
    ax: Axes, along: str, across: str | None, drawn: Sequence[Row], means: Sequence[Row], missing: str
) -> None:
    values, series = _values(along, means), _values(across, means) if across else [None]
    numeric = _numeric(values) and len(series) <= SCALED
    for k, (look, value) in enumerate(zip(LOOKS, series, strict=False)):
        shift = SPACING * (k - (len(series) - 1) / 2)
        for row in _of(drawn, across, value):
            _dot(ax, row[along] if numeric else values.index(row[along]), row["test_error"], look, (shift, 0))
        own = [(point[along] if numeric else values.index(point[along]), point) for point in _of(means, across, value)]
        if numeric:
            _moved(
                ax,
                [x for x, _ in own],
                [p["test_error"] for _, p in own],
                (shift + 4, 0),
                color=look[0],
                linewidth=0.8,
                alpha=0.6,
            )
        for x, point in own:
            _mean(
                ax,
                ([x, x], [point["test_error_low"], point["test_error_high"]]),
                x,
                point["test_error"],
                look,
                (shift + 4, 0),
            )
    _scale(ax, values) if numeric else _categories(ax, values)
    ax.set_xlabel(along + missing)
    ax.set_ylabel(ERROR)
    _legend(
        ax,
        [(f"{_short(across)} {_text(value)}", *look) for look, value in zip(LOOKS, series, strict=False)]
        if across
        else [],
    )


def _by_line(ax: Axes, fields: Sequence[str], drawn: Sequence[Row], means: Sequence[Row], missing: str) -> None:
    ordered = sorted(means, key=lambda point: point["test_error"], reverse=True)
    places = {repr([point[field] for field in fields]): i for i, point in enumerate(ordered)}
    for row in drawn:
        _dot(ax, row["test_error"], places[repr([row[field] for field in fields])], LOOKS[0], (0, 0))
    for i, point in enumerate(ordered):
        ends = [point["test_error_low"], point["test_error_high"]]
        _mean(ax, (ends, [i, i]), point["test_error"], i, (COLOURS[0], "D"), (0, -5))
    ax.set_yticks(
        range(len(ordered)),
        [", ".join(f"{_short(field)} {_text(point[field])}" for field in fields) for point in ordered],
    )
    ax.set_ylim(-0.7, len(ordered) - 0.3)
    ax.grid(True, axis="both")
    ax.set_xlabel(ERROR + missing)
    _legend(ax, [])


def _possible(limits: tuple[float, float]) -> tuple[float, float]:
    """Limits of an error axis, kept within the range of possible errors: the interval of few seeds
    may exceed it.
    """
    return max(limits[0], -1.0), min(limits[1], 101.0)


def _dot(ax: Axes, x: float, y: float, look: tuple[str, str], shift: tuple[float, float]) -> None:
    _moved(ax, [x], [y], shift, color=look[0], marker=look[1], markersize=4, alpha=0.5, markeredgewidth=0)


def _mean(
    ax: Axes,
    ends: tuple[Sequence[float], Sequence[float]],
    x: float,
    y: float,
    look: tuple[str, str],
    shift: tuple[float, float],
) -> None:
    """A mean with a line between the `ends` of its interval."""
    if None not in (*ends[0], *ends[1]):
        _moved(ax, *ends, shift, color="#000000", linewidth=1.2)
    _moved(ax, [x], [y], shift, color=look[0], marker=look[1], markersize=5.5, markeredgecolor="#000000")


def _moved(ax: Axes, x: Sequence[float], y: Sequence[float], shift: tuple[float, float], **style: Any) -> None:
    """A line or a marker shifted right and up by `shift` points; axis limits follow the unshifted
    data.
    """
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    by = ScaledTranslation(shift[0] / 72, shift[1] / 72, figure_of([ax]).dpi_scale_trans)
    ax.add_artist(Line2D(x, y, linestyle="-", transform=ax.transData + by, **style))
    ax.update_datalim(list(zip(x, y, strict=True)))


def _scale(ax: Axes, values: Sequence[float]) -> None:
    """A numerical axis, logarithmic or not, with ticks at the values if they do not overlap."""
    from matplotlib.ticker import NullFormatter, NullLocator

    ordered = sorted(values)
    logarithmic = ordered[0] > 0 and ordered[-1] / ordered[0] >= DECADES
    if logarithmic:
        ax.set_xscale("log")
        steps, whole = [b / a for a, b in itertools.pairwise(ordered)], ordered[-1] / ordered[0]
        sparse = len(ordered) <= 10 and all(12 * math.log(step) >= math.log(whole) for step in steps)
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        sparse = len(ordered) <= 10 and all(
            12 * (b - a) >= ordered[-1] - ordered[0] for a, b in itertools.pairwise(ordered)
        )
    if sparse:
        ax.set_xticks(ordered, [f"{value:g}" for value in ordered])
        ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(x=0.12)


def _categories(ax: Axes, values: Sequence[Any]) -> None:
    texts = [_text(value) for value in values]
    ax.set_xticks(range(len(values)), texts)
    if sum(map(len, texts)) > 60:
        ax.tick_params(axis="x", labelrotation=30)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")
    ax.set_xlim(-0.6, len(values) - 0.4)


def _legend(ax: Axes, series: Sequence[tuple[str, str, str]]) -> None:
    """A legend above the axes: each series, and the meaning of dots and bars."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5, label=text)
        for text, colour, marker in series
    ]
    handles.append(
        Line2D(
            [],
            [],
            color=GREY if series else COLOURS[0],
            marker="o",
            linestyle="",
            markersize=4,
            alpha=0.5,
            label="a seed",
        )
    )
    handles.append(Line2D([], [], color="#000000", linewidth=1.2, label="mean, 95 % interval"))
    widest = max(len(str(handle.get_label())) for handle in handles)
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        ncols=max(1, min(4, 64 // (widest + 8))),
        borderaxespad=0,
    )


def _values(field: str | None, points: Sequence[Row]) -> list[Any]:
    """The distinct values of a field, in order."""
    found: list[Any] = []
    for point in points:
        if field is not None and point[field] not in found:
            found.append(point[field])
    return found


def _of(rows: Sequence[Row], field: str | None, value: Any) -> Iterator[Row]:
    return (row for row in rows if field is None or row[field] == value)


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _short(field: str | None) -> str:
    return (field or "").rpartition(".")[2]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return (
        f"{value:g}"
        if isinstance(value, float)
        else "none"
        if value is None
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
