"""`make`: the figures of what learning does to the loop, from the records of runs alone; no
network is loaded.

Each is four files of its name: the picture (png, svg), the numbers that were drawn (csv, long
form) and a caption (txt) with what is drawn, from which runs, and the command that makes it again.
The rows are computed in curves.py; variants.py decides which runs may stand in one figure.
"""

from __future__ import annotations

import csv
import io
import shlex
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.config_io import load_config, presets
from fsp_dynamics.experiments.figures import collecting, curves, variants
from fsp_dynamics.experiments.figures.collecting import FigureRun
from fsp_dynamics.experiments.figures.curves import Row
from fsp_dynamics.experiments.progress import EpochReporter
from fsp_dynamics.experiments.rate.building import require_rate
from fsp_dynamics.experiments.rate.config import RateConfig
from fsp_dynamics.folders import expanded
from fsp_dynamics.reading import MEGABYTE, read_file
from fsp_dynamics.writing import write_aside


@dataclass(frozen=True, slots=True)
class FigureKind:
    """One kind of figure.

    wanted : the variants it shows, of a configuration. least : those without which it is not
        drawn; by default all. rows : its numbers, from the runs and the last epoch. records : what
        must be in probes.jsonl. shown : what is drawn, for the caption. tuned : each variant may
        have its own rates.
    """

    wanted: Callable[[RateConfig], list[str]]
    rows: Callable[[Sequence[FigureRun], int], list[Row]]
    records: tuple[str, ...]
    shown: str
    least: Callable[[RateConfig], list[str]] | None = None
    tuned: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A figure on disk: files by kind, the folders of its runs, the last epoch drawn."""

    name: str
    files: dict[str, Path]
    runs: list[Path]
    last: int


SINGLE = "single samples"
_ABOVE = (variants.LEARNED, variants.FIXED)  # in the upper row of angles, which is always there


def _in_turn(config: RateConfig) -> list[str]:
    return [*_ABOVE, *(name for name in variants.each_fixed(config) if name not in _ABOVE)]


FIGURES = {
    "alignment": FigureKind(
        _in_turn,
        curves.alignment,
        ("samples", "mean"),
        "The angle of each matrix of the loop to the product of the others (figure 3 of the paper), by epoch, each on "
        "a scale of its own. Left, the loop learned and the loop fixed; right, where there are such runs, each matrix "
        "fixed in turn. Thick lines with bands: the angles in single samples, over the responding units only; mean "
        "over samples and seeds, and one standard deviation over both. Thin lines: the angle of the matrices "
        "themselves, within epochs too, mean over seeds. A sample in which no unit of some layer responds has no angle "
        "and is left out: the legend counts those that have one at the last epoch, and variants are compared over "
        "different samples. The angles of single samples hardly leave 90 degrees where those of the matrices do: few "
        "outputs of a sample respond, often one or two, the product of the others has no higher rank than that, and a "
        "matrix of many responding units can lie along so few directions with a small part of itself alone.",
        least=lambda config: list(_ABOVE),
    ),
    "subspace": FigureKind(
        _in_turn,
        curves.subspace,
        ("alignment", "inside"),
        "The product of the other matrices has no higher rank than there are outputs, so the raw angle of a wide "
        "matrix cannot fall below a bound. Left, the angle inside that subspace, the loop learned and the loop fixed; "
        "then, where there are such runs, the same, each matrix fixed in turn; right, the raw angle (thick), on a "
        "scale of its own for each matrix, and its bound (dotted). Lines are means over seeds, bands reach from the "
        "smallest to the largest.",
        least=lambda config: list(_ABOVE),
    ),
    "gradients": FigureKind(
        lambda config: [variants.LEARNED],
        curves.gradients,
        ("gradient", "degrees"),
        "The update of eq. 14 beside the true gradient -dC/dW, with three errors added in turn: the loop is not "
        "reciprocal (the update in the limit of beta = 0), beta is finite, and phases are relaxed as in training, to a "
        "tolerance (then it is the update in training). Left, the angle of each of these three updates to the "
        "gradient. Right, from the first epoch on, the norm of what each error adds, and of the update in training, "
        "divided by that of the gradient. Lines are means over seeds, bands reach from the smallest to the largest.",
    ),
    "spectra": FigureKind(
        lambda config: [variants.LEARNED],
        curves.spectra,
        ("stability", "loop_norm"),
        "Stability. Above, eigenvalues of the field's Jacobian at the free equilibria of a few samples, all seeds "
        "in one plane; right of 0 an equilibrium is unstable, and at -1 lie all that are not drawn: saturated "
        "units and modes that do not pass the loop. Below, the gain of one turn round the loop ||G_D|| (mean and "
        "largest over samples) and the time in which a small disturbance falls to a thousandth (mean over "
        "samples), by epoch; lines are means over seeds, bands reach from the smallest to the largest.",
    ),
    "errors": FigureKind(
        lambda config: list(variants.LEARNERS),
        curves.errors,
        (),
        "Test error (thick) and training error (thin; of the predictions made while learning) by epoch. "
        "Backpropagation trains the same layers without the loop, which are then a multilayer perceptron. Lines "
        "are means over seeds, bands of the test error reach from the smallest to the largest.",
        least=lambda config: [],
        tuned=True,
    ),
}


def make(name: str, folders: Sequence[str | Path], out: str | Path, *, seeds: Collection[int] | None = None) -> Made:
    """Draw figure `name` from the runs at or below `folders` (of these seeds alone, if given) and
    write its four files to `out`.

    Raises ConfigurationError where something is missing or does not belong together;
    CheckpointError for damaged records.
    """
    kind = FIGURES[check_choice("figure", name, FIGURES)]
    members = collecting.gather(folders, kind.wanted, seeds)
    collecting.check_alike(members, kind.tuned)
    collecting.check_complete(name, members, (kind.least or kind.wanted)(members[0].config))
    last = min(m.epochs for m in members)
    if last == 0:
        idle = next(m.folder for m in members if not m.epochs)
        raise ConfigurationError(f"{idle} has finished no epoch yet; wait for it or leave it out")
    if kind.records:
        curves.require_records(members, *kind.records)
    rows = kind.rows(members, last)
    target = expanded(out, "out")
    target.mkdir(parents=True, exist_ok=True)
    files = {end: target / f"{name}.{end}" for end in ("png", "svg", "csv", "txt")}
    _draw(name, rows, last, [files["png"], files["svg"]])
    write_aside(files["csv"], _table(curves.COLUMNS[name], rows))
    write_aside(files["txt"], caption(name, members, rows, last).encode())
    return Made(name, files, [m.folder for m in members], last)


def train_missing(
    name: str, base: Config, folder: Path, seeds: Sequence[int], reporter: EpochReporter, **how: Any
) -> list[Path]:
    """Train the runs that figure `name` needs of the configuration `base` and `folder` lacks, by
    `collecting.provide`; the folders of all its runs.
    """
    kind = FIGURES[check_choice("figure", name, FIGURES)]
    base = require_rate(base, "a figure")
    return collecting.provide(base, kind.wanted(base), folder, seeds, reporter, **how)


def caption(name: str, members: Sequence[FigureRun], rows: Sequence[Row], last: int) -> str:
    """What is drawn, from which runs, and the command that makes it again, without any folder of
    this machine.
    """
    groups, base = curves.by_variant(members), _base(members)
    config, counts = base.config, sorted({m.epochs for m in members})
    ends = f"; the runs have {_listed(counts)} epochs, drawn is what all of them have" if len(counts) > 1 else ""
    commits = list(dict.fromkeys(commit for m in members for commit in m.commits))
    shape = "-".join(map(str, config.network.hidden))
    lines = [
        *_shown(name),
        "",
        f"Network: hidden layers {shape}, {config.network.rho}; data {config.data.label}; preset {_preset(base)[0]}"
        + "".join(f", {key} {_text(value)}" for key, value in _preset(base)[1].items()),
        f"Epochs: {last}{ends}",
    ]
    for variant, group in groups.items():
        own = {key: value for key, (_, value) in config.differences(group[0].config).items() if key != "seed"}
        what = ", ".join(f"{key} {_text(value)}" for key, value in own.items())
        seeds = sorted(m.config.seed for m in group)
        lines.append(f"{variant}: seed{'s' * (len(seeds) > 1)} {_listed(seeds)}" + (f"; {what}" if what else ""))
    if FIGURES[name].records:
        counted, part = (
            _listed(sorted({m.config.probes.samples for m in members})),
            "test" if config.data.validation == 0 else "validation",
        )
        lines.append(f"Samples: the first {counted} images of the {part} set, those converged")
        lines += [
            f"{variant}: angles of {each} samples at epoch {last}"
            for variant, each in curves.counts(rows, last).items()
        ]
        lines += _angles(rows, last) if name == "alignment" else []
    lines += [f"Commit: {_listed(commits)}", f"Made by: {command(name, members)}", ""]
    return "\n".join(lines)


def command(name: str, members: Sequence[FigureRun]) -> str:
    """The command that trains these runs, where they are missing, and draws the figure."""
    base, found = _base(members), {m.variant for m in members}
    if base.variant != variants.LEARNED or not found.issuperset(FIGURES[name].wanted(base.config)):
        return f"fsp figure {name} --runs FOLDER, the folder that holds these runs"
    preset, changed = _preset(base)
    seeds = ",".join(map(str, sorted({m.config.seed for m in members})))
    words = ["fsp", "figure", name, "--train", "--preset", preset, "--seeds", seeds]
    epochs = max(m.config.learning.epochs for m in members)
    if epochs != load_config(preset)[1].learning.epochs:
        words += ["--epochs", str(epochs)]
    left_out = [key for key, value in changed.items() if value is None]
    for key, value in changed.items():
        words += [f"--{key}", _text(value)] if value is not None else []
    return shlex.join(words) + (f", and without {_listed(left_out)}" if left_out else "")


def redraw(path: str | Path, out: str | Path) -> Made:
    """Draw a figure again from its numbers, NAME.csv, without its runs, in the form that figures of
    that name have now; its four files in `out`.

    The numbers stay as they are, but for those that are no longer drawn. The caption beside the
    CSV, if there is one, keeps all that it says of the runs. Raises ConfigurationError for a file
    that holds no such numbers.
    """
    path, target = expanded(path, "numbers"), expanded(out, "out")
    name = check_choice("figure", path.stem, FIGURES)
    rows, last = read_rows(path, name)
    beside = path.with_suffix(".txt")
    about = beside.read_text(encoding="utf-8").partition("\n\n")[2] if beside.is_file() else ""
    target.mkdir(parents=True, exist_ok=True)
    files = {end: target / f"{name}.{end}" for end in ("png", "svg", "csv", "txt")}
    _draw(name, rows, last, [files["png"], files["svg"]])
    write_aside(files["csv"], _table([key for key in curves.COLUMNS[name] if any(key in row for row in rows)], rows))
    if not about.count(SINGLE) and name == "alignment":
        about = about.replace("Commit", "\n".join([*_angles(rows, last), "Commit"]), 1)
    write_aside(files["txt"], "\n".join([*_shown(name), "", about]).encode())
    return Made(name, files, [], last)


def read_rows(path: Path, name: str) -> tuple[list[Row], int]:
    """(the numbers of figure `name` as they are drawn, the last epoch) from its CSV. Raises
    ConfigurationError.
    """
    text = read_file(path, MEGABYTE * 64, follow=True, error=ConfigurationError, remedy="give the CSV of a figure")
    try:
        found = list(csv.DictReader(io.StringIO(text.decode())))
        rows = [{key: _value(key, value) for key, value in row.items() if value != ""} for row in found]
        wrong = not rows or not {"quantity", "epoch"} <= {*rows[0]} <= {*curves.COLUMNS[name]}
        last = max(int(row["epoch"]) for row in rows if row["epoch"] == int(row["epoch"])) if not wrong else 0
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error):
        wrong, rows, last = True, [], 0
    if wrong:
        raise ConfigurationError(f"{path} does not hold the numbers of figure {name}; give the {name}.csv of one")
    if name == "gradients":
        rows = curves.drawn_gradients([{"source": "", **row} for row in rows])
    return rows, last


def _value(key: str, text: str) -> Any:
    if key in ("quantity", "variant", "matrix", "source"):
        return text
    return int(text) if text.removeprefix("-").isdecimal() else float(text)


def _shown(name: str) -> list[str]:
    return textwrap.wrap(f"{name}: {FIGURES[name].shown}", 120)


def _angles(rows: Sequence[Row], last: int) -> list[str]:
    """The angles of each variant at the last epoch, of single samples and of the matrices."""
    found = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        here = [row for row in rows if row["variant"] == variant and row["epoch"] == last]
        of = {
            quantity: ", ".join(f"{row['matrix']} {row['value']:.1f}" for row in here if row["quantity"] == quantity)
            for quantity in ("sample", "network")
        }
        found.append(f"{variant}, epoch {last}: {SINGLE} {of['sample'] or 'none'}; matrices {of['network']} degrees")
    return found


def _draw(name: str, rows: list[Row], last: int, paths: Sequence[Path]) -> None:
    from fsp_dynamics.plotting import figures, save_figure

    matrices = list(dict.fromkeys(row["matrix"] for row in rows if "matrix" in row))
    found = {row.get("variant") for row in rows}
    below = [each for each in (f"{name} fixed" for name in matrices) if each in found] if found - {*_ABOVE} else []
    draw: dict[str, Callable[[list[Row]], Any]] = {
        "alignment": lambda rows: figures.draw_alignment(rows, matrices, _ABOVE, below, curves.counts(rows, last)),
        "subspace": lambda rows: figures.draw_subspace(rows, matrices, _ABOVE, below),
        "gradients": figures.draw_gradients,
        "spectra": figures.draw_spectra,
        "errors": figures.draw_errors,
    }
    picture = draw[name](rows)
    for path in paths:
        save_figure(picture, path)


def _base(members: Sequence[FigureRun]) -> FigureRun:
    """The run relative to which the others are described: the first with a learned loop, if any."""
    return next((m for m in members if m.variant == variants.LEARNED), members[0])


def _preset(member: FigureRun) -> tuple[str, dict[str, Any]]:
    """The preset that a run was made from, or the nearest to it, and {key: value} of what the run
    changes.
    """
    found = []
    for name in presets():
        config = load_config(name)[1]
        changed = {key: there for key, (_, there) in config.differences(member.config).items() if key != "seed"}
        other = (
            config.notes.about != member.config.notes.about,
            variants.variant_of(config) != member.variant,
            len(changed),
        )
        found.append((*other, name, changed))
    *_, name, changed = min(found, key=lambda each: each[:-1])
    return name, changed


def _table(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    """CSV; missing values are left empty, and numbers keep every digit."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _text(value: Any) -> str:
    """A value as an option of the command line takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value)) or "[]"
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)


def _listed(values: Collection[Any]) -> str:
    return ", ".join(map(str, values))
