"""`fsp runs` and `fsp compare`: what there is on the disk, and how runs differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fsp_dynamics.cli.messages import report
from fsp_dynamics.cli.options import Json, loading
from fsp_dynamics.experiments.records import ANGLE
from fsp_dynamics.folders import expanded
from fsp_dynamics.tables import print_json, print_table, rounded, shown

if TYPE_CHECKING:
    from fsp_dynamics.experiments.overview import Listed

ALIKE = ("family", "learner", "data", "hidden", "status")
"""Columns that stand in the title where all runs are alike in them."""
FIRST = ("learning.beta", "learning.rates.")
"""How the keys begin that are shown before others."""


def runs(
    *folders: Annotated[Path, Parameter(help="Where to look (default: runs).", show_default=False)],
    where: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            show_default=False,
            metavar="KEY=VALUE",
            help="Only runs of which this is true, such as data=mnist, 'test_error<2' or 'run=*s0'; once for each "
            "condition.",
        ),
    ] = (),
    sort: Annotated[str | None, Parameter(metavar="KEY", help="Column to sort by (default: the folder).")] = None,
    reverse: Annotated[bool, Parameter(negative="", help="The largest first.")] = False,
    as_json: Json = False,
) -> None:
    """List the runs at or below folders: what differs between them, and their results. Columns
    that do not fit the terminal are left out.
    """
    from fsp_dynamics.experiments.choosing import chosen, in_order
    from fsp_dynamics.experiments.overview import differing, listed_runs

    places = folders or (Path("runs"),)
    listed = {Path(each.record["run"]).resolve(): each for folder in places for each in listed_runs(folder)}
    found = chosen(list(listed.values()), where)
    if sort is not None or reverse:
        found = in_order(found, sort or "run", backwards=reverse)
    keys = differing([each.config for each in found])
    if as_json:
        return print_json(
            [
                {**each.record, "differs": {key: values[place] for key, values in keys.items()}}
                for place, each in enumerate(found)
            ]
        )
    _show(found, keys, places, [text.partition("=")[0] for text in (*where, sort or "")])
    for each in found:
        if "problem" in each.record:
            report(f"note: {each.record['run']}: {each.record['problem']}")


def _show(found: Sequence[Listed], keys: dict[str, list[Any]], places: Sequence[Path], wanted: Sequence[str]) -> None:
    """The table. wanted : columns that the user has named, which go last."""
    from fsp_dynamics.experiments.learners.naming import DEFINING

    records = [each.record for each in found]
    alike = {
        key: _value(records[0][key])
        for key in ALIKE
        if len(records) > 1 and key in records[0] and all(record.get(key) == records[0][key] for record in records)
    }
    alike = {key: text for key, text in alike.items() if (key, text) != ("family", "rate") and text != "none"}
    told = {key for key in keys if key in DEFINING and "learner" not in alike and _told(records, keys[key])}
    own = sorted((key for key in keys if key not in told), key=lambda key: not key.startswith(FIRST))
    root = _root(places)
    rows = [
        {**_row(each.record, root), **{_short(key): _value(keys[key][place]) for key in own}}
        for place, each in enumerate(found)
    ]
    angles = list(dict.fromkeys(name for record in records for name in record.get("alignment_degrees", {})))
    for row, record in zip(rows, records, strict=True):
        row |= {f"{ANGLE}{name}": rounded(record.get("alignment_degrees", {}).get(name), 1) for name in angles}
    usual = {"family": "rate", "hidden": "none"}
    order = [*("run", "family", "learner", "data", "hidden"), *map(_short, own), "seed", "status", "epochs"]
    order += [
        "best_epoch",
        "train_error",
        "valid_error",
        "test_error",
        *(f"{ANGLE}{name}" for name in angles),
        "seconds",
    ]
    empty = {key for key in order if key != "run" and all(row.get(key) in ("-", usual.get(key)) for row in rows)}
    columns = [key for key in order if key not in alike and key not in empty]
    first, others = ([_short(key) for key in own if key.startswith(FIRST) is early] for early in (True, False))
    expendable = [
        *("seconds", "train_error", "best_epoch"),
        *(f"{ANGLE}{name}" for name in angles if name != "loop"),
        *reversed(others),
        *("epochs", "status", "angle_loop", "valid_error"),
        *reversed(first),
        *("family", "hidden", "data", "seed", "learner", "test_error"),
    ]
    unreadable = ["status"] if any("problem" in record for record in records) else []
    named = [key for key in expendable if key in (*unreadable, *wanted)]
    title = f"{len(found)} run{'s' * (len(found) != 1)} in {_named(places)}" + (
        f"; all: {', '.join(f'{key} {text}' for key, text in alike.items())}" if alike else ""
    )
    print_table(
        title,
        [{key: row.get(key, "-") for key in columns} for row in rows],
        expendable=[*(key for key in expendable if key not in named), *named],
        one_line=True,
    )


def _told(records: Sequence[dict[str, Any]], values: Sequence[Any]) -> bool:
    """Whether the learner of a run says what that key is."""
    found: dict[Any, Any] = {}
    pairs = zip((record.get("learner") for record in records), values, strict=True)
    return all(found.setdefault(learner, value) == value for learner, value in pairs)


def _root(places: Sequence[Path]) -> Path:
    """The folder to which the names of runs are relative: the one that is listed, or the deepest
    that holds all of them.
    """
    roots = [expanded(place, "folder") for place in places]
    return roots[0] if len(roots) == 1 else Path(os.path.commonpath([root.parent.absolute() for root in roots]))


def _named(places: Sequence[Path]) -> str:
    """What was listed, in a few words."""
    return ", ".join(map(str, places)) if len(places) < 3 else f"{len(places)} folders"


def _row(record: dict[str, Any], root: Path) -> dict[str, str]:
    """The columns that every run has; its folder relative to `root`."""
    path = Path(record["run"])
    name = path.name if path == root else os.path.relpath(path, root)
    errors = ("train_error", "valid_error", "test_error")
    return {
        "run": name,
        **{key: shown(record.get(key)) for key in ("family", "learner", "data", "seed", "status", "epochs")},
        "hidden": _value(record.get("hidden")),
        "best_epoch": shown(record.get("best_epoch")),
        **{key: rounded(record.get(key), 2) for key in errors},
        "seconds": shown(record.get("seconds")),
    }


def _value(value: Any) -> str:
    """A value of a configuration as the command line takes it; a dash for none."""
    from fsp_dynamics.experiments.sweeps.grid import shown_value

    return shown(None) if value is None or value == [] else shown_value(value)


def _short(key: str) -> str:
    """A key as the head of a column."""
    return key.removeprefix("learning.").removeprefix("network.")


def compare(
    *runs: Annotated[Path, Parameter(help="The folders of two or more runs.")],
    out: Annotated[
        Path | None,
        Parameter(
            name=("--out", "--figure"),
            metavar="FILE",
            help="Picture to write (.png, .svg, .pdf): errors and the angle of the loop by epoch, a line for each run.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what differs between runs, and the results of each; with --out, their curves over each
    other.
    """
    from fsp_dynamics.experiments.comparison import labels, plot_runs
    from fsp_dynamics.experiments.overview import compare_runs

    found = compare_runs(*runs)
    if out is not None:
        with loading():
            plot_runs(*runs, path=out)
    if as_json:
        picture = {} if out is None else {"picture": str(out)}
        return print_json({"runs": [str(run) for run in runs], **picture, **found})
    names = labels(runs)
    for part, rows in found.items():
        print_table(
            part,
            [
                {"": key, **{name: _result(key, value) for name, value in zip(names, values, strict=True)}}
                for key, values in rows.items()
            ],
            continued=True,
        )
    if out is not None:
        print(f"picture  {out}")


def _result(key: str, value: Any) -> str:
    """A value of a configuration, or of what came out."""
    if key.endswith("_error") and "." not in key:
        return rounded(value, 2)
    if key.startswith(ANGLE):
        return rounded(value, 1)
    return shown(value) if "." not in key else _value(value)
