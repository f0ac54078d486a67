"""Runs looked at while they are written: their records are read again and again, as far as they
have come, without a lock. Nothing of a run is changed or held.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from fsp_dynamics.errors import ConfigurationError, FspError
from fsp_dynamics.experiments.folder import Record, RunFolder, run_folders
from fsp_dynamics.experiments.records import METRICS, read_lines
from fsp_dynamics.folders import expanded

ENDED = ("finished", "finished early", "interrupted", "failed")
"""The status of a run on which no process works any more; it may be resumed."""
ANGLE = "alignment_degrees"
LONGEST = 28  # letters of a short name


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a chart shows. keys : fields of the records, drawn in one chart; "alignment_degrees"
    stands for one line for each matrix.
    """

    name: str
    unit: str
    keys: tuple[str, ...]
    logarithmic: bool = False


QUANTITIES = (
    Quantity("error", "%", ("test_error", "valid_error", "train_error")),
    Quantity("angle to the other matrices", "degrees", (ANGLE,)),
    Quantity("residual", "", ("residual",), logarithmic=True),
    Quantity("speed", "images / s", ("images_per_second",)),
)


@dataclass(frozen=True, slots=True)
class Watched:
    """A run as it is now.

    status : of its summary, "no epoch yet" before there is one, "unreadable" with a `problem`.
    asked : epochs in all. age : seconds since an epoch was last written; NaN before the first.
    """

    name: str
    status: str
    asked: int = 0
    age: float = math.nan
    metrics: list[Record] = field(default_factory=list)
    problem: str = ""

    @property
    def ended(self) -> bool:
        """Whether no more is to be expected, unless the run is resumed."""
        return self.status in ENDED

    def lines(self, quantity: Quantity) -> dict[str, list[tuple[float, float]]]:
        """{name: [(epoch, value), ...]} of the lines that it adds to a chart; values that are
        missing, and those that no logarithmic axis has, are left out.
        """
        found: dict[str, list[tuple[float, float]]] = {}
        for record in self.metrics:
            for name, value in _values(record, quantity.keys):
                if isinstance(value, int | float) and (value > 0 or not quantity.logarithmic):
                    found.setdefault(name, []).append((record["epoch"], float(value)))
        return found

    def as_record(self) -> dict[str, Any]:
        """As JSON holds it, with the lines of every chart and the last record."""
        return {
            "run": self.name,
            "status": self.status,
            "problem": self.problem,
            "ended": self.ended,
            "epochs": len(self.metrics),
            "epochs_asked": self.asked,
            "age": None if math.isnan(self.age) else self.age,
            "last": self.metrics[-1] if self.metrics else None,
            "lines": {quantity.name: self.lines(quantity) for quantity in QUANTITIES},
        }


class Watch:
    """The runs at or below these folders. Files that have not changed are not read again.

    A run that appears below a folder later is found; one that cannot be read, or that is gone, is
    shown as unreadable and tried again. Raises ConfigurationError for a folder that is none.
    """

    def __init__(self, folders: Sequence[str | Path]) -> None:
        self.folders = [expanded(each, "run") for each in folders]
        for path in self.folders:
            if not path.is_dir():
                raise ConfigurationError(f"{path} is no folder; give the folder of a run, or of several")
        self._known: dict[Path, tuple[Any, Watched]] = {}

    @property
    def alone(self) -> bool:
        """Whether each folder is a run, so that no other can appear."""
        return all(RunFolder(path).holds_run() for path in self.folders)

    def look(self) -> list[Watched]:
        """Every run as it is now, by folder in the order given."""
        found: dict[Path, None] = {}
        for root in self.folders:
            try:
                below = [root] if RunFolder(root).holds_run() else run_folders(root)
            except OSError:  # a folder below it went while it was searched
                below = [path for path in self._known if root in path.parents]
            found |= dict.fromkeys(below)
        return [self._read(path) for path in found]

    def _read(self, path: Path) -> Watched:
        stamps = [_stamp(path / name) for name in (METRICS, "summary.json", "config.toml")]
        known = self._known.get(path)
        if known is None or known[0] != stamps:
            known = self._known[path] = stamps, _read_run(path)
        run = known[1]
        written = stamps[0][0] if stamps[0] else math.nan
        age = max(0.0, time.time() - written / 1e9) if run.metrics else math.nan
        return Watched(run.name, run.status, run.asked, age, run.metrics, run.problem)


def short_names(runs: Sequence[Watched]) -> list[str]:
    """The folders of the runs below the deepest one that holds all of them, at most `LONGEST`
    letters of their ends.

    >>> short_names([Watched("runs/a/one", ""), Watched("runs/b/one", "")])
    ['a/one', 'b/one']
    """
    paths = [PurePath(os.path.abspath(run.name)) for run in runs]
    shared = os.path.commonpath([path.parent for path in paths])
    found = [str(path.relative_to(shared)) for path in paths]
    return [name if len(name) <= LONGEST else f"\N{HORIZONTAL ELLIPSIS}{name[1 - LONGEST :]}" for name in found]


def _read_run(path: Path) -> Watched:
    files = RunFolder(path)
    try:
        asked = files.config().learning.epochs
        # without the marks of the last checkpoint: a line may be newer, and is whole or not there
        metrics = read_lines(path / METRICS, epochs=True)
        status = files.read_json("summary.json").get("status", "no epoch yet")
    except (FspError, OSError) as error:
        return Watched(str(path), "unreadable", problem=" ".join(str(error).split()))
    return Watched(str(path), status, asked, metrics=metrics)


def _stamp(path: Path) -> tuple[int, int] | None:
    """(when it was written, in nanoseconds, its bytes); None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _values(record: Record, keys: Sequence[str]) -> list[tuple[str, Any]]:
    """(name of a line, value) for each of the fields."""
    found: list[tuple[str, Any]] = []
    for key in keys:
        value = record.get(key)
        if key == ANGLE:
            found += list((value or {}).items())
        else:
            found.append((key.removesuffix("_error").replace("images_per_second", "speed"), value))
    return found
