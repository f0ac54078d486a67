"""Test errors through training, a curve for each exit or learner: what figures/exits.py and
figures/spiking.py share.

Runs of several seeds are averaged, with a band from the lowest to the highest. NAME.png, .svg and
.csv (a line for each number) are written; --redraw draws again from the .csv, without runs;
--add keeps the numbers of other seeds and curves that it has.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsp_dynamics.errors import FspError
from fsp_dynamics.experiments.run import Run
from fsp_dynamics.experiments.runner import open_run
from fsp_dynamics.plotting import COLOURS, new_figure, save_figure, styled
from fsp_dynamics.plotting.figures import SMALL, WIDTH
from fsp_dynamics.reading import read_file
from fsp_dynamics.writing import write_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("seed", "curve", "epoch", "test_error")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)), (0, (1, 3)))
Errors = Callable[[Run, Mapping[str, Any]], Mapping[str, float]]
"""{curve: test error in percent} of a run and the record of an epoch of it."""


def rows_of(folders: Iterable[Path], errors: Errors) -> Iterator[dict[str, Any]]:
    """A row for each seed, curve and epoch."""
    for folder in folders:
        run = open_run(folder)
        for record in run.metrics:
            for name, error in errors(run, record).items():
                yield dict(zip(COLUMNS, (run.config.seed, name, record["epoch"], error), strict=True))


def stored(path: Path) -> list[dict[str, Any]]:
    """The rows of a .csv."""
    found = csv.DictReader(io.StringIO(read_file(path, 1 << 20).decode()))
    kinds = dict(zip(COLUMNS, (int, str, int, float), strict=True))
    return [{key: kinds[key](value) for key, value in row.items()} for row in found]


def merged(old: Iterable[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The new rows, and those old ones whose seed and curve none of them has; curve by curve."""
    replaced = {(row["curve"], row["seed"]) for row in new}
    rows = [row for row in old if (row["curve"], row["seed"]) not in replaced] + list(new)
    order = list(dict.fromkeys(row["curve"] for row in rows))
    return sorted(rows, key=lambda row: (order.index(row["curve"]), row["seed"], row["epoch"]))


@styled(SMALL)
def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """The curves, one column of a journal wide."""
    figure = new_figure(WIDTH, 0.75 * WIDTH, SMALL)
    ax = figure.subplots()
    for place, name in enumerate(dict.fromkeys(row["curve"] for row in rows)):
        epochs = sorted({row["epoch"] for row in rows if row["curve"] == name})
        groups = [[row["test_error"] for row in rows if (row["curve"], row["epoch"]) == (name, e)] for e in epochs]
        means = [sum(group) / len(group) for group in groups]
        label = f"{name} ({means[-1]:.1f} %)"
        ax.plot(epochs, means, linestyle=DASHES[place % len(DASHES)], color=COLOURS[place % len(COLOURS)], label=label)
        lowest, highest = list(map(min, groups)), list(map(max, groups))
        ax.fill_between(epochs, lowest, highest, color=COLOURS[place % len(COLOURS)], alpha=0.15, lw=0)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.07 * (top - bottom) * len(ax.lines))  # room for the legend above them
    ax.set_xlabel("epoch")
    ax.set_ylabel("test error (%)")
    ax.set_xticks(range(1, max(row["epoch"] for row in rows) + 1))
    ax.legend(loc="upper right")
    return figure


def main(name: str, description: str, errors: Errors, arguments: Sequence[str] | None = None) -> int:
    """The command line of the figure of that name."""
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folders, a seed each")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for figure and numbers")
    parser.add_argument("--redraw", action="store_true", help=f"draw again from OUT/{name}.csv alone")
    parser.add_argument("--add", action="store_true", help=f"keep what else is in OUT/{name}.csv")
    given = parser.parse_args(arguments)
    if given.redraw == bool(given.runs):
        parser.error(f"give runs, or --redraw to draw again from OUT/{name}.csv")
    try:
        numbers = given.out / f"{name}.csv"
        rows = list(rows_of(given.runs, errors))
        if given.redraw or given.add:
            rows = merged(stored(numbers), rows)
        if not given.redraw:
            table = io.StringIO()
            writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_aside(numbers, table.getvalue().encode())
        figure = draw(rows)
        for ending in ("png", "svg"):
            save_figure(figure, given.out / f"{name}.{ending}")
    except (FspError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0
