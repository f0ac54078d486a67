"""Runs listed and compared: read from the run folders alone, without loading a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError, FspError
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.folder import Record, RunFolder, run_folders
from fsp_dynamics.experiments.learners.naming import learner_of
from fsp_dynamics.experiments.records import ANGLE, best_of
from fsp_dynamics.folders import expanded

OUTCOME = ("train_error", "valid_error", "test_error")
NAMED = ("seed", "family", "data.name", "data.path", "network.hidden")
"""Keys of a configuration that a record of `describe` holds under other names."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A run in a list. record : that of `describe`. config : None where it cannot be read."""

    record: Record
    config: Config | None


def list_runs(folder: str | Path) -> list[Record]:
    """One record for each run at or below `folder`, by path: that of `describe`, or the `problem`
    of one that cannot be read.

    Raises ConfigurationError if there is no such folder.

    Returns
    -------
    list of dict : one for each run.

    >>> import fsp_dynamics as fsp
    >>> run = fsp.train("digits", epochs=1, data={"limit": 40}, out="runs/a", progress=False)
    >>> [(record["run"], record["epochs"]) for record in list_runs("runs")]
    [('runs/a', 1)]
    """
    return [each.record for each in listed_runs(folder)]


def listed_runs(folder: str | Path) -> list[Listed]:
    """As `list_runs`, each with its configuration."""
    root = expanded(folder, "folder")
    if not root.is_dir():
        raise ConfigurationError(f"{root} is no folder; give the folder that holds the runs (by default runs/)")
    found = []
    for path in run_folders(root):
        try:
            found.append(Listed(describe(path), RunFolder(path).config()))
        except (FspError, OSError) as error:
            found.append(Listed({"run": str(path), "status": "unreadable", "problem": str(error)}, None))
    return found


def describe(folder: str | Path) -> Record:
    """Family, learner, status, epochs, and the best epoch's errors of one run; its hidden layers
    and angles where the family has them. Raises ConfigurationError if there is no run.
    """
    files = RunFolder(expanded(folder, "run")).require_run()
    config, metrics = files.config(), files.metrics()
    best = best_of(metrics) or {}
    return {
        "run": str(folder),
        "family": config.family,
        "learner": learner_of(config),
        "data": config.data.label,
        "hidden": list(config.experiment().get("network.hidden", [])),
        "seed": config.seed,
        "status": files.summary().get("status", "unfinished"),
        "epochs": len(metrics),
        "best_epoch": best.get("epoch"),
        **{key: best.get(key) for key in OUTCOME},
        "alignment_degrees": best.get("alignment_degrees") or {},
        "seconds": sum(record.get("seconds", 0.0) for record in metrics),
    }


def differing(configs: Sequence[Config | None]) -> dict[str, list[Any]]:
    """{dotted key: the value of each} of the keys in which these configurations differ, in the
    order of the first that has them; None for one that has no such key, or cannot be read. Not
    those of `NAMED`.
    """
    found = [{} if config is None else config.experiment() for config in configs]
    keys = dict.fromkeys(key for each in found for key in each if key not in NAMED)
    readable = [each for each in found if each]
    return {
        key: [each.get(key) for each in found]
        for key in keys
        if any(each.get(key) != readable[0].get(key) for each in readable)
    }


def compare_runs(*folders: str | Path) -> dict[str, dict[str, tuple[Any, ...]]]:
    """{"configuration": {dotted key: its value in each run} where they differ, "outcome":
    {quantity: its value in each}}, in the order of the runs, which may be of several families.

    Raises ConfigurationError for fewer than two.

    Returns
    -------
    dict : of two dicts.

    >>> import fsp_dynamics as fsp
    >>> given = {"epochs": 1, "data": {"limit": 40}, "progress": False}
    >>> runs = [fsp.train("digits", seed=seed, out=f"runs/{seed}", **given) for seed in (0, 1)]
    >>> compare_runs("runs/0", "runs/1")["configuration"]
    {'seed': (0, 1)}
    """
    if len(folders) < 2:
        raise ConfigurationError(f"{len(folders)} run{'s' * (len(folders) != 1)} to compare; give two or more")
    configs = [RunFolder(expanded(folder, "run")).require_run().config() for folder in folders]
    records = [describe(folder) for folder in folders]
    keys = {key for config in configs[1:] for key in configs[0].differences(config, epochs=True)}
    experiments = [{**config.experiment(), "learning.epochs": config.learning.epochs} for config in configs]
    ordered = dict.fromkeys(key for experiment in experiments for key in experiment)
    outcome = {
        key: tuple(record[key] for record in records)
        for key in ("learner", "status", "epochs", "best_epoch", *OUTCOME, "seconds")
    }
    angles = [record["alignment_degrees"] for record in records]
    outcome |= {
        f"{ANGLE}{name}": tuple(each.get(name) for each in angles)
        for name in dict.fromkeys(name for each in angles for name in each)
    }
    return {
        "configuration": {key: tuple(each.get(key) for each in experiments) for key in ordered if key in keys},
        "outcome": outcome,
    }
