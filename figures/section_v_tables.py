"""The tables of docs/section-v.md and README.md, from the stored summaries alone: Markdown, one row
for each preset, seed or option. figures/section_v.py writes them into the pages.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsp_dynamics.experiments.config_io import load_config, presets
from fsp_dynamics.experiments.folder import Record
from fsp_dynamics.experiments.paired import Comparisons, Difference
from fsp_dynamics.experiments.stored import Stored, command_of
from fsp_dynamics.experiments.sweeps.grid import shown_value
from fsp_dynamics.experiments.sweeps.table import interval

SEEDS = (0, 1, 2)  # of the command where nothing is stored
NOT_RUN = "not yet run"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table of numbers. paper : its test, validation and training error."""

    preset: str
    what: str
    paper: tuple[str, str, str] = ("", "", "")


_MNIST = ("1.85-1.90 %", "1.76-1.80 %", "0.00 %")
ROWS = (
    Row("mnist-2x1500", "MNIST, two hidden layers of 1500", _MNIST),
    Row("mnist-2x1500-fixed-loop", "the same, the loop fixed"),
    Row("mnist-3x1500", "MNIST, three hidden layers of 1500", _MNIST),
    Row("mnist-3x1500-fixed-loop", "the same, the loop fixed"),
    Row("fashion-2x1500", "Fashion-MNIST, two hidden layers of 1500", ("11.00 %", "10.95 %", "2 %")),
    Row("fashion-2x1500-fixed-loop", "the same, the loop fixed"),
    Row("mnist-2x1500-best", "MNIST, two of 1500, images moved and turned"),
    Row("mnist-ep-2x500", "MNIST by equilibrium propagation, two of 500", ("2-3 %", "", "")),
    Row("mnist-2x500", "MNIST, two hidden layers of 500"),
    Row("fashion-2x500", "Fashion-MNIST, two hidden layers of 500"),
    Row("digits", "8 x 8 digits, two hidden layers of 100"),
)


def rows() -> list[Row]:
    """`ROWS`, and a row for each preset that is not among them."""
    known = {row.preset for row in ROWS}
    return [*ROWS, *(Row(name, load_config(name)[1].notes.about) for name in presets("rate") if name not in known)]


# Numbers as text


def percent(values: Sequence[float]) -> str:
    """Their mean; nothing if there are none."""
    return f"{statistics.fmean(values):.2f} %" if values else ""


def with_interval(values: Sequence[float]) -> str:
    """Their mean, its 95 % interval, and how many they are."""
    _, _, low, high = interval(values)
    between = "" if low is None else f" ({low:.2f} to {high:.2f})"
    return f"{percent(values)}{between}, {_count(len(values), 'seed')}"


def minutes(stored: Stored) -> float:
    """The median over seeds, of which the first may have compiled; to two digits."""
    return float(f"{statistics.median(stored.values('minutes')):.2g}")


def machines(stored: Stored) -> str:
    """Processors, cores and threads."""
    found = {
        f"{record['cpu']}, {_count(record['cores'], 'core')}, {_count(record['threads'], 'thread')}"
        for record in stored.seeds
    }
    return "; ".join(sorted(found))


def measured(stored: Stored) -> str:
    """The sentence that the [notes] of its preset hold."""
    values = stored.values("test_error")
    _, _, low, high = interval(values)
    between = "" if low is None else f" (95 % interval {low:.2f} to {high:.2f})"
    numbers = ", ".join(str(record["seed"]) for record in stored.seeds)
    return (
        f"test {percent(values)}{between}, validation {percent(stored.values('valid_error'))} at the best epoch of "
        f"{stored.config.learning.epochs}; training {percent(stored.values('last_train_error'))} at the end; "
        f"seed{'s' * (len(values) != 1)} {numbers}"
    )


def notes(stored: Stored) -> dict[str, Any]:
    """What the [notes] of its preset hold of it."""
    return {"measured": measured(stored), "minutes": minutes(stored), "machine": machines(stored)}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def shown_keys(keys: Mapping[str, tuple[Any, Any]]) -> str:
    """What an option changes."""
    return ", ".join(f"`{key}` {shown_value(old)} → {shown_value(new)}" for key, (old, new) in keys.items())


# Tables


def numbers_table(results: Mapping[str, Stored]) -> str:
    """One row for each preset: the paper's numbers and ours."""
    lines = []
    for row in rows():
        stored = results.get(row.preset)
        test, valid, train = row.paper
        if stored is None:
            cells = [NOT_RUN, *(f"(paper: {paper})" if paper else "" for paper in (valid, train)), ""]
            command = command_of(row.preset, load_config(row.preset)[1], SEEDS)
        else:
            ours = (percent(stored.values(key)) for key in ("valid_error", "last_train_error"))
            beside = (f" (paper: {paper})" if paper else "" for paper in (valid, train))
            cells = [with_interval(stored.values("test_error")), *map("".join, zip(ours, beside, strict=True))]
            cells.append(f"{minutes(stored):g}")
            command = stored.command
        lines.append([row.what, test, *cells, f"`{command}`"])
    head = ["what", "paper: test", "here: test", "best validation", "training at the end", "minutes", "command"]
    groups: dict[str, list[str]] = {}
    for name, stored in results.items():
        groups.setdefault(machines(stored), []).append(f"`{name}`")
    where = "".join(f"\n\nOn {machine}: {', '.join(names)}." for machine, names in groups.items())
    return markdown(head, lines) + where


def seeds_table(results: Mapping[str, Stored]) -> str:
    """One row for each seed."""
    if not results:
        return f"*{NOT_RUN.capitalize()}.*"
    records = [(name, record) for name, stored in results.items() for record in stored.seeds]
    columns: dict[str, Callable[[str, Record], Any]] = {
        "preset": lambda name, _: f"`{name}`",
        "seed": lambda _, record: record["seed"],
        "best epoch": lambda _, record: f"{record['best_epoch']} of {record['epochs']}",
        "test": lambda _, record: percent([record["test_error"]]),
        "without averaging": lambda _, record: percent(_listed((record.get("raw") or {}).get("test_error"))),
        "validation": lambda _, record: percent(_listed(record["valid_error"])),
        "training there": lambda _, record: percent(_listed(record["train_error"])),
        "at the end": lambda _, record: percent(_listed(record["last_train_error"])),
        "unconverged": lambda _, record: f"{record['unconverged']}, {record['evaluated_unconverged']}",
        "dead outputs": lambda _, record: len(record["dead_outputs"]),
        "stuck at 0, at 1": lambda _, record: _stuck(record.get("stuck_units")),
        "angles at the end": lambda _, record: _angles(record["alignment_degrees"]),
        "commit": lambda _, record: ", ".join(record["commits"]),
    }
    cells = {head: [str(cell(*each)) for each in records] for head, cell in columns.items()}
    shown = {head: column for head, column in cells.items() if any(column)}
    return markdown([*shown], [list(line) for line in zip(*shown.values(), strict=True)])


def options_table(found: Comparisons) -> str:
    """One row for each option: the errors with and without it, and the paired difference."""
    if not found.found:
        return f"*{NOT_RUN.capitalize()}.*"
    lines = []
    for each in found.found:
        test, valid = each.difference("test_error"), each.difference("valid_error")
        name, command = f"`{each.baseline.preset}`", f"`{each.option.command}`"
        means = [f"{test.baseline:.2f} %", f"{test.option:.2f} %"]
        lines.append([each.name, name, shown_keys(each.keys), *means, _change(test), _change(valid), command])
    head = ["option", "preset", "keys", "test without", "test with", "difference", "of validation", "command"]
    return markdown(head, lines)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _change(found: Difference) -> str:
    between = "" if found.low is None else f" ({found.low:+.2f} to {found.high:+.2f})"
    return "" if found.mean is None else f"{found.mean:+.2f}{between}, {_count(len(found.seeds), 'pair')}"


def _angles(degrees: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {angle:.0f}°" for name, angle in degrees.items() if angle is not None)


def _listed(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _stuck(found: Mapping[str, Sequence[int]] | None) -> str:
    """How many at 0 and how many at 1, of all hidden layers; nothing if they were not counted."""
    return ", ".join(map(str, map(sum, zip(*found.values(), strict=True)))) if found else ""
