"""The table of a sweep: for each point of the grid how many seeds, and mean, spread and 95 %
interval of the errors of their best epochs.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fsp_dynamics.experiments.folder import Record
from fsp_dynamics.experiments.records import ANGLE
from fsp_dynamics.experiments.sweeps.grid import shown_value

ERRORS = ("test_error", "valid_error", "train_error")
MEANS = ("best_epoch", "epochs", "seconds")
CONFIDENCE = 0.95


def points(fields: Sequence[str], rows: Iterable[Record]) -> list[Record]:
    """One record for each point of the grid, in the order of the rows, over its members that are
    finished.

    fields : the keys of the grid. rows : one for each member, with these keys, `status`, the
        errors in percent, `best_epoch`, `epochs`, `seconds`, and the same angles in degrees,
        `angle_W1` and so on.
    runs : members. seeds : those of them that count. ERROR, ERROR_sd, ERROR_low, ERROR_high :
    `interval` over the seeds. The others are means.
    """
    rows = list(rows)
    means = [*MEANS, *angles_of(rows)]
    groups: dict[str, list[Record]] = {}
    for row in rows:
        groups.setdefault(json.dumps([row[key] for key in fields]), []).append(row)
    found = []
    for group in groups.values():
        counted = [row for row in group if row["status"] == "finished"]
        record = {**{key: group[0][key] for key in fields}, "runs": len(group), "seeds": len(counted)}
        for key in ERRORS:
            mean, spread, low, high = interval([row[key] for row in counted if row[key] is not None])
            record |= {key: mean, f"{key}_sd": spread, f"{key}_low": low, f"{key}_high": high}
        found.append(
            record | {key: interval([row[key] for row in counted if row[key] is not None])[0] for key in means}
        )
    return found


def angles_of(rows: Iterable[Record]) -> list[str]:
    """The columns of angles in these rows: W1, W2, ..., and the loop last."""
    names = list(dict.fromkeys(key for row in rows for key in row if key.startswith(ANGLE)))
    return sorted(names, key=lambda name: (name == f"{ANGLE}loop", len(name), name))


def with_angles(rows: Iterable[Record], angles: Iterable[Record]) -> list[Record]:
    """The rows with a column for each angle that any of them has, before the reason. angles :
    {matrix: degrees} for each row.
    """
    angles = [{f"{ANGLE}{name}": value for name, value in each.items()} for each in angles]
    names = angles_of(angles)
    found = []
    for row, own in zip(rows, angles, strict=True):
        reason = {key: row[key] for key in ("reason",) if key in row}
        before = {key: value for key, value in row.items() if key not in reason}
        found.append({**before, **{name: own.get(name) for name in names}, **reason})
    return found


def interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None, float | None]:
    """(mean, standard deviation, lower and upper end of the 95 % interval of the mean); None where
    there are too few values.

    s^2 = sum (x - mean)^2 / (n - 1), and the interval is mean +- t s / sqrt(n), t the 97.5 %
    quantile of Student's t of n - 1 degrees of freedom: it holds the mean over all seeds in 95 of
    100 sweeps if the errors are about normal.
    """
    from scipy import stats

    count = len(values)
    if count == 0:
        return None, None, None, None
    mean = float(np.mean(values))
    if count == 1:
        return mean, None, None, None
    spread = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread / math.sqrt(count)
    return mean, spread, mean - half, mean + half


def to_csv(rows: Sequence[Record]) -> bytes:
    """The records as CSV, the keys of the first as columns; numbers keep every digit, what is
    missing is left empty, and a key of the grid (with a dot) that is unset is `none`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value, key) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: Any, key: str) -> Any:
    if value is None and "." not in key:
        return ""
    return shown_value(value) if value is None or isinstance(value, bool | list | tuple) else value
