"""Runs listed and compared: read from the run folders alone, without loading a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError, FspError
from fsp_dynamics.experiments.folder import Record, RunFolder, run_folders
from fsp_dynamics.experiments.records import best_of
from fsp_dynamics.folders import expanded

OUTCOME = ("train_error", "valid_error", "test_error")


def list_runs(folder: str | Path) -> list[Record]:
    """One record for each run at or below `folder`, by path: that of `describe`, or the `problem`
    of one that cannot be read.

    Raises ConfigurationError if there is no such folder.
    """
    root = expanded(folder, "folder")
    if not root.is_dir():
        raise ConfigurationError(f"{root} is no folder; give the folder that holds the runs (by default runs/)")
    records = []
    for path in run_folders(root):
        try:
            records.append(describe(path))
        except (FspError, OSError) as error:
            records.append({"run": str(path), "status": "unreadable", "problem": str(error)})
    return records


def describe(folder: str | Path) -> Record:
    """Family, status, epochs, and the best epoch's errors of one run; its hidden layers and angles
    where the family has them. Raises ConfigurationError if there is no run.
    """
    files = RunFolder(expanded(folder, "run")).require_run()
    config, metrics = files.config(), files.metrics()
    best = best_of(metrics) or {}
    return {
        "run": str(folder),
        "family": config.family,
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


def compare_runs(first: str | Path, second: str | Path) -> dict[str, dict[str, tuple[Any, Any]]]:
    """{"configuration": {dotted key: (first, second)} where they differ, "outcome": {quantity:
    (first, second)}}. The runs may be of two families.
    """
    here, there = (RunFolder(expanded(folder, "run")).require_run().config() for folder in (first, second))
    one, other = describe(first), describe(second)
    differing = here.differences(there, epochs=True)
    keys = ("status", "epochs", "best_epoch", *OUTCOME, "seconds")
    outcome = {key: (one[key], other[key]) for key in keys}
    angles = [record["alignment_degrees"] for record in (one, other)]
    outcome |= {
        f"angle {name}": (angles[0].get(name), angles[1].get(name)) for name in dict.fromkeys([*angles[0], *angles[1]])
    }
    return {"configuration": differing, "outcome": outcome}
