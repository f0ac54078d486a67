"""The runs of docs/alignment-study.md: options that may align the loop, each with the same preset
and seeds.

python figures/alignment_study.py --runs FOLDER [--train] [--seeds 0 1 2] [--out figures] [--KEY
VALUE ...]
python figures/alignment_study.py --redraw [--out figures]

FOLDER contains NAME-SEED for each option of STUDY. With --train missing runs are trained; a
configuration key applies to all of them. Writes alignment_study.png, .svg, .csv (one line per run)
and .txt, and prints the table of means as Markdown. --redraw draws again from the .csv, without
runs.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsp_dynamics.cli.options import read_overrides
from fsp_dynamics.errors import ConfigurationError, FspError
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.progress import RunReporter, StderrOutput
from fsp_dynamics.experiments.records import best_of
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.plotting import COLOURS, GREY, new_figure, save_figure, styled
from fsp_dynamics.plotting.figures import SMALL, WIDE
from fsp_dynamics.writing import write_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRESET = "fashion-2x500"
_WEAK = {"network.forward_scale": 0.2}
_DEVIATION = {"learning.rule": "mean_subtracted"}
_MIRROR = {"learning.mirror": 0.05}
STUDY: dict[str, dict[str, Any]] = {
    "base": {},
    "fixed loop": {"learning.frozen": ["loop"]},
    "weak loop": {"network.loop_scale": 0.2},
    "weak forward weights": _WEAK,
    "decay": {"learning.decay": 3e-4},
    "centred nudging": {"learning.phases": "centred", "learning.beta": 0.5},
    "higher hidden rates": {"learning.rates.input": 60.0, "learning.rates.forward": [90.0, 7.0]},
    "deviations": _DEVIATION,
    "deviations, weak forward": _DEVIATION | _WEAK,
    "deviations, weak forward, fixed loop": _DEVIATION | _WEAK | {"learning.frozen": ["loop"]},
    "mirror": _MIRROR,
    "mirror, weak forward": _MIRROR | _WEAK,
    "mirror, deviations, weak forward": _MIRROR | _DEVIATION | _WEAK,
}
# last epochs over which angles to the gradient are averaged, since they vary between batches
LAST = 3
NUMBERS = {
    "test": "test error (%)",
    "W1 inside": "W1 to the others, inside (°)",
    "W2 inside": "W2 to the others, inside (°)",
    "loop inside": "loop to the others, inside (°)",
    "W1": "W1 to the others (°)",
    "W2": "W2 to the others (°)",
    "loop": "loop to the others (°)",
    "input to gradient": "update of the input to the gradient (°)",
    "W1 to gradient": "update of W1 to the gradient (°)",
    "W2 to gradient": "update of W2 to the gradient (°)",
    "seconds": "training time of an epoch (s)",
}
FAR = 1.2  # factor of the error of `base` above which an error is printed and not drawn
LABEL = 20  # letters of an option's name in one line
DRAWN = ("input to gradient", "W1 to gradient", "W1 inside", "test")


def folder_of(root: Path, name: str, seed: int) -> Path:
    return root / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"


def numbers_of(folder: Path) -> dict[str, float]:
    """The numbers of one run. Raises ConfigurationError if it is missing or not finished."""
    files = RunFolder(folder).require_run()
    if files.read_json("summary.json").get("status") != "finished":
        raise ConfigurationError(f"{folder} is not finished; continue it with --train")
    metrics = files.metrics()
    whole = [record for record in files.probes() if "samples" in record]
    last, alignment = [record["gradient"]["degrees"] for record in whole[-LAST:]], whole[-1]["alignment"]
    best = best_of(metrics)
    assert best is not None

    def to_gradient(parameter: str) -> float:
        return statistics.fmean(degrees[parameter] for degrees in last if degrees[parameter] is not None)

    found = {"test": best["test_error"], "seconds": statistics.median(record["seconds"] for record in metrics)}
    for matrix in ("W1", "W2", "loop"):
        found |= {matrix: alignment["degrees"][matrix], f"{matrix} inside": alignment["inside"][matrix]}
    return found | {
        "input to gradient": to_gradient("input"),
        "W1 to gradient": to_gradient("forward[0]"),
        "W2 to gradient": to_gradient("forward[1]"),
    }


def make(root: Path, seeds: Sequence[int], changes: dict[str, Any]) -> None:
    """Train missing runs and continue unfinished ones."""
    for seed in seeds:
        for name, options in STUDY.items():
            table = {**options, **changes, "seed": seed}
            train(
                PRESET,
                out=folder_of(root, name, seed),
                resume=True,
                progress=RunReporter(StderrOutput(bars=False)),
                **table,
            )


@styled(SMALL)
def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """One panel per number in DRAWN: a dot for every run, a bar for the mean, a line at the mean of
    `base`; errors far above it are printed as numbers. Two columns of a journal wide.
    """
    names = list(dict.fromkeys(row["option"] for row in rows))
    figure = new_figure(WIDE, 0.245 * len(names) + 0.55, SMALL)
    axes = figure.subplots(1, len(DRAWN), sharey=True)
    for ax, number, colour in zip(axes, DRAWN, (*COLOURS[:3], COLOURS[4]), strict=True):
        means = {name: statistics.fmean(row[number] for row in rows if row["option"] == name) for name in names}
        far = FAR * means[names[0]] if number == "test" else float("inf")
        for place, (name, mean) in enumerate(means.items()):
            if mean > far:
                ax.annotate(
                    f"{mean:.1f} →",
                    (1, place),
                    xycoords=("axes fraction", "data"),
                    ha="right",
                    va="center",
                    color=colour,
                )
                continue
            values = [row[number] for row in rows if row["option"] == name]
            ax.plot(values, [place] * len(values), "o", color=colour, markersize=2.5, alpha=0.7, markeredgewidth=0)
            ax.plot([mean, mean], [place - 0.3, place + 0.3], "-", color=colour, linewidth=1.4)
        ax.axvline(means[names[0]], color=GREY, linewidth=0.7, linestyle=":")
        ax.set_xlabel(NUMBERS[number].replace(" to the ", "\nto the "))
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#E5E5E5", linewidth=0.5)
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(names)), [textwrap.fill(name, LABEL) for name in names])
    axes[0].invert_yaxis()
    return figure


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of means, with the standard deviation over seeds of the test error."""
    shown = (
        "test",
        "W1",
        "W1 inside",
        "W2",
        "W2 inside",
        "loop",
        "loop inside",
        "input to gradient",
        "W1 to gradient",
        "W2 to gradient",
        "seconds",
    )
    lines = ["| option | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for name in dict.fromkeys(row["option"] for row in rows):
        of = [row for row in rows if row["option"] == name]
        cells = [f"{statistics.fmean(row[number] for row in of):.1f}" for number in shown]
        errors = [row["test"] for row in of]
        cells[0] = f"{statistics.fmean(errors):.2f}" + (f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def caption(root: Path, seeds: Sequence[int], config: Any) -> str:
    """The caption: the runs and the commits of the code."""
    commits = {
        RunFolder(folder_of(root, name, seed)).read_json("environment.json").get("commit")
        for name in STUDY
        for seed in seeds
    }
    shape = "-".join(map(str, config.network.hidden))
    return (
        "Aligning the loop: dots are runs, bars are means, dotted lines the mean of base. "
        f"{config.data.name}, hidden layers {shape}, {config.learning.epochs} epochs, "
        f"seeds {', '.join(map(str, seeds))}; final angles, those to the gradient over the last {LAST} epochs; "
        "the test error is that of the epoch with the best validation error. "
        f"Commits {', '.join(sorted(map(str, commits)))}.\n"
        "python figures/alignment_study.py --runs FOLDER --train\n"
    )


def stored(path: Path) -> list[dict[str, Any]]:
    """The rows of alignment_study.csv. Raises ConfigurationError if there is no such file."""
    if not path.is_file():
        raise ConfigurationError(f"{path} is no file; give the folder that has it (--out), or the runs (--runs)")
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {key: value if key == "option" else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def _save(figure: Figure, out: Path) -> None:
    for ending in ("png", "svg"):
        save_figure(figure, out / f"alignment_study.{ending}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Options that may align the loop (docs/alignment-study.md).")
    parser.add_argument("--runs", type=Path, default=Path("runs/alignment-study"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for figure and numbers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train", action="store_true", help="train missing runs")
    parser.add_argument("--redraw", action="store_true", help="draw again from OUT/alignment_study.csv alone")
    given, others = parser.parse_known_args(arguments)
    try:
        if given.redraw:
            _save(draw(stored(given.out / "alignment_study.csv")), given.out)
            return 0
        changes = read_overrides(others)
        _, config = load_config(PRESET, changes)
        if given.train:
            make(given.runs, given.seeds, changes)
        rows = [
            {"option": name, "seed": seed, **numbers_of(folder_of(given.runs, name, seed))}
            for name in STUDY
            for seed in given.seeds
        ]
    except FspError as error:
        print(f"alignment_study: {error}", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    _save(draw(rows), given.out)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()} for row in rows
    )
    write_aside(given.out / "alignment_study.csv", text.getvalue().encode())
    write_aside(given.out / "alignment_study.txt", caption(given.runs, given.seeds, config).encode())
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
