"""The results as one record: to JSON and back, as tables, as a figure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from benchmarks.machine import Peak
from benchmarks.recording import Recording
from benchmarks.scaling import MemoryUse, Point
from benchmarks.training import BEST, EULER, METHODS, OURS, PYTORCH, SKIPPING, TWIN, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "preset",
    "state",
    "method",
    "batch",
    "threads",
    "ms / image",
    "ratio (min - max)",
    "Mmul / image",
    "% of peak",
    "notes",
)
RECORDING = ("preset", "state", "every batches", "records", "epoch (s)", "without (s)", "ms / record", "% of the epoch")
AXES = {
    "width": "units in each of 2 hidden layers",
    "depth": "hidden layers of 1000",
    "batch": "batch",
    "threads": "threads",
}
MARKS = {
    OURS: ("#332288", "o", "-"),
    PYTORCH: ("#CC6677", "s", "--"),
    BEST: ("#DDCC77", "D", ":"),
    TWIN: ("#117733", "^", "-."),
    SKIPPING: ("#88CCEE", "v", ":"),
}


@dataclass(frozen=True, slots=True)
class Results:
    """One run of the benchmarks. `machine` and `settings` are plain; `trajectories` are the other
    part's rows as mappings.
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    peaks: list[Peak] = field(default_factory=list)
    training: list[Row] = field(default_factory=list)
    scaling: list[Point] = field(default_factory=list)
    memory: list[MemoryUse] = field(default_factory=list)
    trajectories: list[dict[str, Any]] = field(default_factory=list)
    recording: list[Recording] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Read the output of `to_json`. Raises TypeError or KeyError for anything else."""
        found = json.loads(text)
        kinds = {"peaks": Peak, "training": Row, "scaling": Point, "memory": MemoryUse, "recording": Recording}
        return cls(
            **{name: [kinds[name](**row) for row in value] if name in kinds else value for name, value in found.items()}
        )


def tables(results: Results) -> list[Table]:
    """Rich tables of the available results."""
    found = []
    if results.peaks:
        rows = [(str(p.threads), f"{p.numpy:.0f}", f"{p.panels:.0f}") for p in results.peaks]
        title = "peak of float32 products, GFLOP/s"
        title += f", tiles of {results.machine['tiles']}" if "tiles" in results.machine else ""
        found.append(_table(title, ("threads", "NumPy", "panels"), rows))
    if results.training:
        title = "training: milliseconds for one image; ratio to PyTorch at equal batch, below 1 is cheaper"
        found.append(_table(title, COLUMNS, map(_cells, results.training)))
    for axis in dict.fromkeys(point.axis for point in results.scaling):
        found.append(_scaling_table(axis, [point for point in results.scaling if point.axis == axis]))
    if results.memory:
        cells = [(m.preset, m.method, f"{m.before_mb:.0f}", f"{m.peak_mb:.0f}") for m in results.memory]
        found.append(_table("peak memory, MB", ("preset", "method", "with the data", "after learning"), cells))
    if results.recording:
        found.append(
            _table(
                "cost of recording the loop's angles, one thread", RECORDING, map(_recording_cells, results.recording)
            )
        )
    if results.trajectories:
        cells = [
            tuple(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
            for row in results.trajectories
        ]
        found.append(_table("trajectories", tuple(results.trajectories[0]), cells))
    return found


def _table(title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table


def _cells(row: Row) -> tuple[str, ...]:
    notes = ", ".join(f"{name} {value:.3g}" for name, value in row.notes.items())
    speed = f"{row.ms:.3g}", f"{row.ratio:.2f} ({row.ratio_min:.2f} - {row.ratio_max:.2f})"
    return (
        row.preset,
        row.state,
        row.method,
        str(row.batch),
        str(row.threads),
        *speed,
        f"{row.products / 1e6:.2f}",
        f"{100 * row.peak_share:.0f}",
        notes,
    )


def _recording_cells(r: Recording) -> tuple[str, ...]:
    numbers = f"{r.seconds:.2f}", f"{r.seconds_without:.2f}", f"{r.ms:.2f}", f"{100 * r.share:.2f}"
    return r.preset, r.state, str(r.every), str(r.records), *numbers


def _scaling_table(axis: str, points: Sequence[Point]) -> Table:
    methods, values = (list(dict.fromkeys(getattr(point, name) for point in points)) for name in ("method", "value"))
    ms = {(point.value, point.method): point.ms for point in points}
    rows = [[str(value), *(f"{ms[value, method]:.3g}" for method in methods)] for value in values]
    return _table(f"milliseconds for one image against {AXES[axis]}", (axis, *methods), rows)


def draw(results: Results, path: Path) -> None:
    """The figure of one run: costs, shares of the peak, and cost against width, depth, batch and
    threads.
    """
    from fsp_dynamics.plotting import GREY, new_figure, save_figure

    figure = new_figure(14, 8.4)
    axes = figure.subplots(2, 3).ravel()
    drawn = [row for row in results.training if row.method != EULER]
    _draw_bars(axes[0], drawn, lambda row: row.ratio, "time / PyTorch's at equal batch")
    if drawn:
        axes[0].axhline(1, color=GREY, linewidth=1, linestyle=":")
    axes[0].set_title("time of a training epoch, one thread", fontsize=10)
    _draw_bars(axes[1], drawn, lambda row: 100 * row.peak_share, "share of the measured peak (%)")
    axes[1].set_title("multiplications per second, one thread", fontsize=10)
    for ax, axis in zip(axes[2:], AXES, strict=True):
        _draw_points(ax, axis, [point for point in results.scaling if point.axis == axis])
    for ax in axes:
        if not ax.has_data():
            ax.set_axis_off()
            ax.text(0.5, 0.5, "not measured", ha="center", color=GREY, transform=ax.transAxes)
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if handles:
        order = [method for method in METHODS if method in handles]
        figure.legend(
            [handles[name] for name in order], order, loc="outside lower center", ncols=len(order), frameon=False
        )
    machine = results.machine
    figure.suptitle(
        f"{machine.get('cpu', '?')}, {machine.get('cores', '?')} cores, {machine.get('date', '?')[:10]}", fontsize=11
    )
    save_figure(figure, path)


def _draw_bars(ax: Axes, rows: Sequence[Row], value: Any, label: str) -> None:
    """Groups of bars: one for each preset and state, with one thread."""
    rows = [row for row in rows if row.threads == 1]
    groups = list(dict.fromkeys((row.preset, row.state) for row in rows))
    methods = [method for method in METHODS if any(row.method == method for row in rows)]
    found: Mapping[Any, Any] = {(row.preset, row.state, row.method): value(row) for row in rows}
    width = 0.8 / max(len(methods), 1)
    for i, method in enumerate(methods):
        places = [g + (i - (len(methods) - 1) / 2) * width for g in range(len(groups))]
        ax.bar(
            places, [found.get((*group, method), 0) for group in groups], width, color=MARKS[method][0], label=method
        )
    ax.set_xticks(
        range(len(groups)), [f"{preset.replace('-', chr(10), 1)}\n{state}" for preset, state in groups], fontsize=8
    )
    ax.set_ylabel(label)
    _tidy(ax)


def _draw_points(ax: Axes, axis: str, points: Sequence[Point]) -> None:
    from matplotlib.ticker import LogLocator

    for method in dict.fromkeys(point.method for point in points):
        colour, marker, dash = MARKS[method]
        line = [(point.value, point.ms) for point in points if point.method == method]
        ax.plot(*zip(*line, strict=True), dash, color=colour, marker=marker, label=method)
    logarithmic = bool(points) and axis in ("width", "batch")
    if logarithmic:
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
    else:
        ax.set_ylim(bottom=0)
    values = sorted({point.value for point in points})
    ax.set_xticks(values, map(str, values))
    ax.minorticks_off()
    ax.set_xlabel(AXES[axis])
    ax.set_ylabel("time for one image (ms)")
    ax.set_title(f"cost against {axis}, epoch 1" + ("" if axis == "threads" else ", one thread"), fontsize=10)
    _tidy(ax)


def _tidy(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#E5E5E5", linewidth=0.6)
    ax.set_axisbelow(True)
