"""How far eq. 14 learns in deep networks: 1, 2, 3, 5 and 8 hidden layers of 500 units on MNIST.

python figures/depth.py --runs FOLDER [--train] [--depths 1 2 3 5 8] [--seeds 0 1 2] [--units 500]
    [--forward 30] [--output 5] [--threads N] [--out figures] [--KEY VALUE ...]
python figures/depth.py --redraw [--out figures]

FOLDER contains DEPTH-SEED. With --train missing runs are trained one after the other and unfinished
ones continued, all for equal epochs (--epochs). --forward and --output are the learning rates of
the matrices between hidden layers and of that into the output; any other key of the configuration
applies to all runs. Writes depth.png, .svg, .csv (a line for each number) and .txt, and prints the
table of means as Markdown. --redraw draws again from the .csv, without runs.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import section_v_tables

from fsp_dynamics.cli.options import read_overrides
from fsp_dynamics.errors import ConfigurationError, FspError
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.progress import RunReporter, StderrOutput
from fsp_dynamics.experiments.records import best_of, commits_of
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.plotting import COLOURS, GREY, new_figure, save_figure, styled
from fsp_dynamics.plotting.figures import SMALL, THIN, WIDTH
from fsp_dynamics.writing import write_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRESET = "mnist-2x500"
SETTINGS: dict[str, Any] = {
    "network.forward_scale": 0.3,
    "learning.rate_factor": 0.92,
    "learning.rates.input": 60.0,
    "learning.rates.loop": 0.0,
    "learning.frozen": ["loop"],
}
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.38), "handlelength": 2.2}
"""Where the legend of one plot stands."""
COLUMNS = ("depth", "seed", "quantity", "place", "value")
# last epochs of which the update's median is taken, since it varies between batches
LAST = 3
Row = dict[str, Any]


def folder_of(root: Path, depth: int, seed: int) -> Path:
    """The folder of one run."""
    return root / f"{depth}-{seed}"


def settings(depth: int, units: int, forward: float, output: float) -> dict[str, Any]:
    """The changes of the preset for that many hidden layers."""
    rates = [*[forward] * (depth - 1), output]
    return {**SETTINGS, "network.hidden": [units] * depth, "learning.rates.forward": rates}


# Numbers


def numbers_of(folder: Path) -> Iterator[tuple[str, str, float | None]]:
    """(quantity, place, value) of one run; the place is a matrix, a layer, or nothing; no value
    where nothing could be measured.

    test, validation : errors of the best epoch; training : of the last. angle, inside : each matrix
    of the loop to the product of the others, at the end. norm, direction : of the update in units
    of the gradient's norm, and in degrees to the gradient; medians over the last epochs that have
    them. at 0, at 1 : shares of rates at their bounds on the test images. gain : mean ||G_D||.

    Raises ConfigurationError if the run is missing or not finished.
    """
    files = RunFolder(folder).require_run()
    if files.summary().get("status") != "finished":
        raise ConfigurationError(f"{folder} is not finished; continue it with --train")
    metrics, probes = files.metrics(), [record for record in files.probes() if "samples" in record]
    best, last = best_of(metrics) or {}, metrics[-1]
    yield from (("test", "", best["test_error"]), ("validation", "", best["valid_error"]))
    yield from (("best epoch", "", best["epoch"]), ("training", "", last["train_error"]))
    yield "unconverged", "", sum(record["unconverged"] for record in metrics)
    yield "dead outputs", "", len(last["dead_outputs"])
    for quantity, key in (("angle", "degrees"), ("inside", "inside")):
        yield from ((quantity, name, value) for name, value in probes[-1]["alignment"][key].items())
    updates = [record["gradient"] for record in probes if "gradient" in record][-LAST:]
    for quantity, key in (("norm", "norm_ratio"), ("direction", "degrees")):
        yield from ((quantity, name, value) for name, value in _medians([update[key] for update in updates]))
    for layer, (zero, one) in last["saturation"].items():
        yield from (("at 0", layer, zero), ("at 1", layer, one))
    yield "gain", "", last.get("loop_norm")


def _medians(found: Sequence[Record]) -> Iterator[tuple[str, float]]:
    for name in found[0] if found else ():
        values = [record[name] for record in found if record[name] is not None]
        if values and name != "loop":  # which is fixed
            yield name, statistics.median(values)


def collected(root: Path, depths: Sequence[int], seeds: Sequence[int]) -> list[Row]:
    """All numbers of all runs, in long form."""
    return [
        dict(zip(COLUMNS, (depth, seed, quantity, place, value), strict=True))
        for depth in depths
        for seed in seeds
        for quantity, place, value in numbers_of(folder_of(root, depth, seed))
        if value is not None
    ]


def read_rows(path: Path) -> list[Row]:
    """The numbers of depth.csv; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        kinds = {"depth": int, "seed": int, "value": float}
        return [{key: kinds.get(key, str)(value) for key, value in row.items()} for row in csv.DictReader(file)]


def values(rows: Sequence[Row], quantity: str, depth: int, place: str = "") -> list[float]:
    """Those numbers, a seed each."""
    return [row["value"] for row in rows if (row["quantity"], row["depth"], row["place"]) == (quantity, depth, place)]


def places(rows: Sequence[Row], quantity: str, depth: int) -> list[str]:
    """The matrices or layers that have the quantity, from the input on."""
    return list(dict.fromkeys(row["place"] for row in rows if (row["quantity"], row["depth"]) == (quantity, depth)))


def depths_of(rows: Sequence[Row]) -> list[int]:
    """The depths, in order."""
    return sorted({row["depth"] for row in rows})


# The picture


@styled(SMALL)
def draw(rows: Sequence[Row]) -> Figure:
    """Above by depth: errors and angles, then the gain. By layer: norm and direction of the update,
    and saturation. Dots are runs, lines means; of the gain and by layer, medians. One column of a
    journal wide.
    """
    figure = new_figure(WIDTH, 6.0, SMALL)
    axes = figure.subplots(3, 2)
    (errors, angles), (gain, norm), (direction, rates) = axes
    _draw_errors(errors, rows)
    _draw_angles(angles, rows)
    _by_depth(gain, rows, "gain", "", COLOURS[0], "", centre=statistics.median)
    gain.set(title="gain of the loop, $\\|G_D\\|$", yscale="log")
    _by_layer(norm, rows, lambda depth, place: values(rows, "norm", depth, place), "norm")
    norm.axhline(1, color=GREY, linewidth=THIN, linestyle=":")
    norm.set(title="norm of the update /\ngradient's norm", yscale="log", xlabel="matrix (0: of the input)")
    _by_layer(direction, rows, lambda depth, place: values(rows, "direction", depth, place), "direction")
    direction.axhline(90, color=GREY, linewidth=THIN, linestyle=":")
    direction.set(title="angle of the update\nto the gradient (°)", xlabel="matrix (0: of the input)")

    def saturated(depth: int, place: str) -> list[float]:
        ends = (values(rows, end, depth, place) for end in ("at 0", "at 1"))
        return [100 * sum(shares) for shares in zip(*ends, strict=True)]

    _by_layer(rates, rows, saturated, "at 0", first=1)
    rates.set(title="rates at 0 or 1 (%)", xlabel="layer (last: output)")
    lines = [line for line in rates.lines if not line.get_label().startswith("_")]
    title = "curves by layer: hidden layers of the network"
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), title=title)
    return figure


def _draw_errors(ax: Any, rows: Sequence[Row]) -> None:
    _by_depth(ax, rows, "test", "", COLOURS[0], "test")
    _by_depth(ax, rows, "training", "", GREY, "training, at the end", dash="--")
    if max(row["value"] for row in rows if row["quantity"] in ("test", "training")) > 10:
        ax.set_yscale("symlog", linthresh=1)
        ticks = [0, 0.5, 1, 3, 10, 30, 90]
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    ax.set(title="errors (%)")
    ax.set_ylim(bottom=0)
    ax.legend(**BELOW)


def _draw_angles(ax: Any, rows: Sequence[Row]) -> None:
    """The loop, the first and the last matrix by colour, those between them in grey."""
    depths = depths_of(rows)
    for depth in depths:
        between = [place for place in places(rows, "angle", depth) if place not in ("loop", "W1", f"W{depth}")]
        means = [statistics.fmean(values(rows, "angle", depth, place)) for place in between]
        label = "those between" if depth == max(depths) and means else "_"
        ax.plot([depth] * len(means), means, "_", color=GREY, markersize=5, label=label)
    _by_depth(ax, rows, "angle", lambda depth: f"W{depth}", COLOURS[1], "into the output", dash="-.")
    _by_depth(ax, rows, "angle", "W1", COLOURS[2], "W1", dash="--")
    _by_depth(ax, rows, "angle", "loop", COLOURS[0], "loop")
    ax.axhline(90, color=GREY, linewidth=THIN, linestyle=":")
    ax.set(title="angle of each matrix\nto the others (°)")
    ax.legend(**BELOW)


def _by_depth(
    ax: Any,
    rows: Sequence[Row],
    quantity: str,
    place: str | Callable[[int], str],
    colour: str,
    label: str,
    *,
    dash: str = "-",
    centre: Callable[[Sequence[float]], float] = statistics.fmean,
) -> None:
    depths = depths_of(rows)
    found = [values(rows, quantity, d, place(d) if callable(place) else place) for d in depths]
    for depth, group in zip(depths, found, strict=True):
        ax.plot([depth] * len(group), group, "o", color=colour, markersize=2.5, alpha=0.6, markeredgewidth=0)
    ax.plot(
        depths,
        [centre(group) if group else math.nan for group in found],
        dash,
        color=colour,
        label=label,
        linewidth=1.1,
    )
    ax.set_xticks(depths)
    ax.set_xlabel("hidden layers")


def _by_layer(
    ax: Any, rows: Sequence[Row], of: Callable[[int, str], list[float]], quantity: str, first: int = 0
) -> None:
    looks = zip(depths_of(rows), COLOURS, "os^Dv<>P*X", strict=False)
    longest = 0
    for depth, colour, marker in looks:
        found = [of(depth, place) for place in places(rows, quantity, depth)]
        longest = max(longest, len(found))
        ax.plot(
            range(first, first + len(found)),
            [statistics.median(group) for group in found],
            color=colour,
            linestyle="-",
            marker=marker,
            markersize=2.5,
            linewidth=0.9,
            label=str(depth),
        )
    ax.set_xticks(range(first, first + longest))


# The table and the files


def markdown(rows: Sequence[Row]) -> str:
    """The table: means of errors over seeds with the range of the test error, else medians."""
    head = (
        "hidden layers",
        "test",
        "training at the end",
        "W1",
        "into the output",
        "loop",
        "gain",
        "update of the first to that of the gradient",
        "of the last",
    )
    lines = []
    for depth in depths_of(rows):
        test = values(rows, "test", depth)
        norms = [values(rows, "norm", depth, place) for place in ("input", f"forward[{depth - 1}]")]
        lines.append(
            [
                str(depth),
                f"{statistics.fmean(test):.2f} % ({min(test):.2f} to {max(test):.2f})",
                f"{statistics.fmean(values(rows, 'training', depth)):.2f} %",
                *(_shown(values(rows, "angle", depth, name), ".1f", "°") for name in ("W1", f"W{depth}", "loop")),
                *(_shown(found, ".2g") for found in (values(rows, "gain", depth), *norms)),
            ]
        )
    return section_v_tables.markdown(head, lines)


def _shown(found: Sequence[float], how: str, unit: str = "") -> str:
    """The median of seeds; nothing if there are none."""
    return f"{statistics.median(found):{how}}{unit}" if found else ""


def caption(root: Path, rows: Sequence[Row], config: Any, command: str) -> str:
    """The caption: what is drawn, the runs, the commits of the code."""
    runs = {(row["depth"], row["seed"]) for row in rows}
    commits = {c for run in runs for c in commits_of(RunFolder(folder_of(root, *run)).environment())}
    learning, seeds = config.learning, ", ".join(map(str, sorted({seed for _, seed in runs})))
    kind = learning.schedule.kind
    falling = f"times {learning.rate_factor:g} each epoch" if kind == "factor" else f"schedule: {kind}"
    return (
        "Depth: dots are runs, lines means over seeds, by layer and of the gain medians. "
        f"{config.data.name}, hidden layers of {config.network.hidden[0]} units, {learning.epochs} epochs, "
        f"seeds {seeds}; test error of the epoch with the best validation error, all else at the end, "
        f"updates and gradients over the last {LAST} epochs. Rates: input {learning.rates.input:g}, "
        f"into the output {learning.rates.forward[-1]:g}, others {learning.rates.forward[0]:g}, "
        f"{falling}; the loop is {'fixed' if learning.frozen else 'learned'}. "
        f"Commits {', '.join(sorted(commits))}.\n{command}\n"
    )


def stored(path: Path) -> list[Row]:
    """The rows of depth.csv. Raises ConfigurationError if there is no such file."""
    rows = read_rows(path)
    if not rows:
        raise ConfigurationError(f"{path} is no file of numbers; give the folder that has it (--out), or runs (--runs)")
    return rows


def _save(figure: Figure, out: Path) -> None:
    for ending in ("png", "svg"):
        save_figure(figure, out / f"depth.{ending}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="How far eq. 14 learns in deep networks (docs/section-v.md).")
    parser.add_argument("--runs", type=Path, default=Path("runs/depth"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for figure and numbers")
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 3, 5, 8], help="hidden layers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--units", type=int, default=500, help="of each hidden layer")
    parser.add_argument("--forward", type=float, default=30.0, help="rate of the matrices between hidden layers")
    parser.add_argument("--output", type=float, default=5.0, help="rate of the matrix into the output")
    parser.add_argument("--threads", type=int, help="threads of each run")
    parser.add_argument("--train", action="store_true", help="train missing runs")
    parser.add_argument("--redraw", action="store_true", help="draw again from OUT/depth.csv alone")
    given, others = parser.parse_known_args(arguments)
    try:
        if given.redraw:
            _save(draw(stored(given.out / "depth.csv")), given.out)
            return 0
        changes = read_overrides(others)
        tables = {depth: settings(depth, given.units, given.forward, given.output) | changes for depth in given.depths}
        configs = {depth: load_config(PRESET, table)[1] for depth, table in tables.items()}
        for depth, table in tables.items() if given.train else ():
            for seed in given.seeds:
                reporter, out = RunReporter(StderrOutput(bars=False)), folder_of(given.runs, depth, seed)
                train(PRESET, out=out, resume=True, progress=reporter, threads=given.threads, seed=seed, **table)
        rows = collected(given.runs, given.depths, given.seeds)
    except FspError as error:
        print(f"depth: {error}", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    _save(draw(rows), given.out)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "value": f"{row['value']:.6g}"} for row in rows)
    write_aside(given.out / "depth.csv", text.getvalue().encode())
    chosen = [f"--units {given.units} --forward {given.forward:g} --output {given.output:g}", *others]
    command = " ".join(["python figures/depth.py --runs FOLDER --train", *chosen])
    write_aside(given.out / "depth.txt", caption(given.runs, rows, configs[max(configs)], command).encode())
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
