"""The table of learners: for each its errors over seeds, and what it differs by from the first row,
seed by seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from fsp_dynamics.errors import check_choice
from fsp_dynamics.experiments.folder import Record
from fsp_dynamics.experiments.learners.naming import DEFINING, ORDER, learner_of
from fsp_dynamics.experiments.paired import Comparison
from fsp_dynamics.experiments.records import ANGLE
from fsp_dynamics.experiments.stored import Stored, experiment_differences
from fsp_dynamics.experiments.sweeps.grid import shown_value
from fsp_dynamics.experiments.sweeps.table import interval

ERRORS = ("test_error", "valid_error", "train_error")
SHORT = {"test": "test_error", "valid": "valid_error", "train": "train_error", "difference": "difference"}
EXPENDABLE = (
    *("seconds", "train 95 %", "valid 95 %", "angle_W", "epochs", "train", "valid"),
    *("angle_", "difference 95 %", "test 95 %", "seeds", "difference"),
)
"""How the columns begin that go where there is no room, the first of them first."""


def learner_rows(found: Iterable[Stored]) -> list[Record]:
    """One record for each summary, in the order of `ORDER`, then by name.

    learner : its name; where several configurations have one, with what differs from the first of
    them. seeds : which. ERROR, ERROR_sd, ERROR_low, ERROR_high : mean, standard deviation (n - 1)
    and 95 % interval (Student's t) over seeds of the errors of the best epoch, percent. difference,
    difference_low, difference_high : of the test error, minus that of the first row, over the seeds
    that both have (pairs). angles : degrees at the end, means. epochs : mean. seconds : median,
    since the first may have compiled. differs :
    {key: (first row, here)} of what is no part of its name.
    """
    ordered = sorted(found, key=lambda each: (_place(learner_of(each.config)), -len(each.seeds), each.digest))
    first_of: dict[str, Stored] = {}
    rows = []
    for each in ordered:
        name = learner_of(each.config)
        before = first_of.setdefault(name, each)
        rows.append({"learner": _name(name, before, each), **_row(ordered[0], each)})
    return rows


def columns(rows: Sequence[Record], chosen: Sequence[str] | None = None) -> list[str]:
    """The columns of the table, or those of them that are chosen, the learner in front; `angles` is
    all of the angles. Raises ConfigurationError for one that there is not.
    """
    angles = list(dict.fromkeys(f"{ANGLE}{name}" for row in rows for name in row["angles"]))
    known = ["seeds"]
    for short in ("test", "difference", "valid", "train"):
        known += [short, f"{short} 95 %"]
    known += [*angles, "epochs", "seconds"]
    if chosen is None:
        return ["learner", *known]
    found = []
    for name in chosen:
        wanted = f"{name.removesuffix('_95')} 95 %" if name.endswith("_95") else name
        if wanted == "angles":
            found += angles
        elif wanted != "learner":
            found.append(check_choice("columns", wanted, [*known, "angles", "learner"]))
    return ["learner", *dict.fromkeys(found)]


def cells(row: Record, names: Sequence[str]) -> dict[str, str]:
    """The row as text: "13.00 ± 0.14", "12.66 to 13.34"; a dash for what is not there."""
    found = {}
    for name in names:
        short, is_interval = name.removesuffix(" 95 %"), name.endswith(" 95 %")
        if short in SHORT:
            found[name] = _error(row, short, is_interval)
        elif name.startswith(ANGLE):
            value = row["angles"].get(name.removeprefix(ANGLE))
            found[name] = "-" if value is None else f"{value:.1f}"
        elif name == "seeds":
            found[name] = str(len(row["seeds"]))
        elif name in ("epochs", "seconds"):
            found[name] = "-" if row[name] is None else f"{row[name]:.0f}"
        else:
            found[name] = str(row[name])
    return found


def notes(rows: Sequence[Record]) -> list[str]:
    """What rows differ in from the first in more than their names say; a sentence for those that
    differ alike.
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["differs"]:
            listed = ", ".join(
                f"{key} {shown_value(here)} (first row: {shown_value(first)})"
                for key, (first, here) in row["differs"].items()
            )
            found.setdefault(listed, []).append(row["learner"])
    return [
        f"{'; '.join(learners)} also {'has' if len(learners) == 1 else 'have'} {listed}."
        for listed, learners in found.items()
    ]


def flat_rows(rows: Sequence[Record]) -> list[Record]:
    """The rows with numbers alone, as CSV holds them; all have the same columns."""
    angles = dict.fromkeys(name for row in rows for name in row["angles"])
    return [
        {
            "learner": row["learner"],
            "seeds": " ".join(map(str, row["seeds"])),
            **{key: value for key, value in row.items() if isinstance(value, int | float | None)},
            **{f"{ANGLE}{name}": row["angles"].get(name) for name in angles},
            "differs": "; ".join(f"{key}={shown_value(here)}" for key, (_, here) in row["differs"].items()),
            "command": row["command"],
        }
        for row in rows
    ]


def _row(first: Stored, each: Stored) -> Record:
    found: Record = {"seeds": [record["seed"] for record in each.seeds]}
    for key in ERRORS:
        mean, spread, low, high = interval(each.values(key))
        found |= {key: mean, f"{key}_sd": spread, f"{key}_low": low, f"{key}_high": high}
    pairs = Comparison("", first, each).difference() if each is not first else None
    found |= {
        "difference": pairs and pairs.mean,
        "difference_low": pairs and pairs.low,
        "difference_high": pairs and pairs.high,
        "pairs": len(pairs.seeds) if pairs else 0,
    }
    names = list(dict.fromkeys(name for record in each.seeds for name in record["alignment_degrees"]))
    angles = {
        name: interval([value for r in each.seeds if (value := r["alignment_degrees"].get(name)) is not None])[0]
        for name in names
    }
    minutes = each.values("minutes")
    differing = experiment_differences(first.config, each.config)
    return {
        **found,
        "angles": angles,
        "epochs": interval(each.values("epochs"))[0],
        "seconds": 60 * statistics.median(minutes) if minutes else None,
        "differs": {key: pair for key, pair in differing.items() if key not in DEFINING},
        "command": each.command,
    }


def _name(name: str, first: Stored, each: Stored) -> str:
    """The learner, and what tells this configuration of it from the first."""
    differing = experiment_differences(first.config, each.config)
    if not differing:
        return name
    listed = ", ".join(f"{key.rpartition('.')[2]} {shown_value(here)}" for key, (_, here) in differing.items())
    return f"{name} ({listed})"


def _place(name: str) -> tuple[int, str]:
    place = ORDER.index(name) if name in ORDER else len(ORDER)
    begun = [k for k, known in enumerate(ORDER) if name.startswith(f"{known} ")]
    return (place, "") if name in ORDER or not begun else (begun[0], name)


def _error(row: Record, short: str, is_interval: bool) -> str:
    key = SHORT[short]
    sign = "+" if short == "difference" else ""
    if is_interval:
        low, high = row[f"{key}_low"], row[f"{key}_high"]
        return "-" if low is None else f"{low:{sign}.2f} to {high:{sign}.2f}"
    if row[key] is None:
        return "-"
    spread = row.get(f"{key}_sd")
    return f"{row[key]:{sign}.2f}" + ("" if spread is None else f" ± {spread:.2f}")
