"""The curves of runs over each other, from their metrics alone: `fsp compare --out`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.learners.naming import learner_of
from fsp_dynamics.experiments.overview import differing
from fsp_dynamics.experiments.records import ANGLE
from fsp_dynamics.experiments.sweeps.grid import shown_value
from fsp_dynamics.folders import expanded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 60  # letters of a name that says what differs


def plot_runs(*folders: str | Path, path: str | Path | None = None) -> Figure:
    """Errors and the angle of the loop by epoch, a line for each run; runs that differ in their
    seed alone have one colour. path : where the picture is also written (.png, .svg, .pdf).

    Raises ConfigurationError for a folder that holds no run, for runs without an epoch, and for
    another ending of `path`; CheckpointError for damaged records.
    """
    from fsp_dynamics.plotting import save_figure
    from fsp_dynamics.plotting.comparison import draw_comparison

    figure = draw_comparison(curves(folders))
    if path is not None:
        path = expanded(path, "out")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(figure, path)
    return figure


def curves(folders: Sequence[str | Path]) -> list[Record]:
    """One record for each run: its `name` in a legend (`names`), and ([epochs], [values]) of
    train_error, valid_error, test_error and angle_loop.
    """
    runs = [RunFolder(expanded(folder, "run")).require_run() for folder in folders]
    found = names([run.config() for run in runs], labels(folders))
    return [{"name": name, **_curves(run.metrics())} for name, run in zip(found, runs, strict=True)]


def labels(folders: Sequence[str | Path]) -> list[str]:
    """What each folder is called beside the others: its path below the folder that all share.

    >>> labels(["runs/a", "runs/deep/b"])
    ['a', 'deep/b']
    """
    paths = [str(folder) for folder in folders]
    parents = {os.path.dirname(os.path.abspath(path)) for path in paths}
    shared = os.path.commonpath(parents)
    found = [os.path.relpath(os.path.abspath(path), shared) for path in paths]
    return found if len(set(found)) == len(set(paths)) else paths


def names(configs: Sequence[Config], labels: Sequence[str]) -> list[str]:
    """What the legend calls each run. Runs that differ in their seed alone share a name: their
    learner where that tells them from the others, else what differs; a run without others of its
    kind has its label.
    """
    kinds = [json.dumps({key: value for key, value in c.experiment().items() if key != "seed"}) for c in configs]
    of_kind = {kind: [place for place, other in enumerate(kinds) if other == kind] for kind in kinds}
    if len(of_kind) == len(kinds):
        return list(labels)
    learners = {kind: learner_of(configs[places[0]]) for kind, places in of_kind.items()}
    if len(set(learners.values())) == len(of_kind):
        return [learners[kind] for kind in kinds]
    keys = differing(configs)
    found = {}
    for kind, places in of_kind.items():
        values = ", ".join(f"{key.rpartition('.')[2]} {shown_value(values[places[0]])}" for key, values in keys.items())
        alone = len(places) == 1 or len(values) > LONGEST
        found[kind] = labels[places[0]] if alone else values
    return [found[kind] for kind in kinds]


def _curves(metrics: Sequence[Record]) -> Record:
    found: Record = {}
    for key in ("train_error", "valid_error", "test_error"):
        found[key] = _curve([(record["epoch"], record.get(key)) for record in metrics])
    angles = [(record["epoch"], (record.get("alignment_degrees") or {}).get("loop")) for record in metrics]
    return {**found, f"{ANGLE}loop": _curve(angles)}


def _curve(points: Sequence[tuple[int, float | None]]) -> tuple[list[int], list[float]]:
    there = [(epoch, value) for epoch, value in points if value is not None]
    return [epoch for epoch, _ in there], [value for _, value in there]
