"""What was run, what came out, what differs: read from the run folders alone, without loading a
network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError, FspError
from fsp_dynamics.experiments.folder import Record, RunFolder, best_of

OUTCOME = ("train_error", "valid_error", "test_error")


def list_runs(folder: str | Path) -> list[Record]:
    """One record for each run at or below `folder`, by path: what `describe` says, or the
    `problem` of one that cannot be read.

    Raises ConfigurationError if there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigurationError(
            f"{root} is no folder; give the folder that holds the runs (fsp train writes to runs/)"
        )
    records = []
    for path in sorted(found.parent for found in root.rglob("config.toml")):
        if not (path / "environment.json").is_file():
            continue  # somebody else's config.toml
        try:
            records.append(describe(path))
        except (FspError, OSError) as error:
            records.append({"run": str(path), "status": "unreadable", "problem": str(error)})
    return records


def describe(folder: str | Path) -> Record:
    """Status, epochs, and the best epoch's errors and angles of one run. Raises ConfigurationError
    if there is none.
    """
    files = RunFolder(Path(folder)).require_run()
    config, metrics = files.config(), files.metrics()
    best = best_of(metrics) or {}
    return {
        "run": str(folder),
        "data": config.data.name,
        "hidden": list(config.network.hidden),
        "seed": config.seed,
        "status": files.read_json("summary.json").get("status", "unfinished"),
        "epochs": len(metrics),
        "best_epoch": best.get("epoch"),
        **{key: best.get(key) for key in OUTCOME},
        "alignment_degrees": best.get("alignment_degrees") or {},
        "seconds": sum(record["seconds"] for record in metrics),
    }


def compare_runs(first: str | Path, second: str | Path) -> dict[str, dict[str, tuple[Any, Any]]]:
    """{"configuration": {dotted key: (first, second)} where they differ, "outcome": {figure:
    (first, second)}}.
    """
    here, there = (RunFolder(Path(folder)).require_run().config() for folder in (first, second))
    one, other = describe(first), describe(second)
    differing = here.differences(there)
    if here.learning.epochs != there.learning.epochs:
        differing["learning.epochs"] = (here.learning.epochs, there.learning.epochs)
    keys = ("status", "epochs", "best_epoch", *OUTCOME, "seconds")
    outcome = {key: (one[key], other[key]) for key in keys}
    angles = [record["alignment_degrees"] for record in (one, other)]
    outcome |= {
        f"angle {name}": (angles[0].get(name), angles[1].get(name)) for name in dict.fromkeys([*angles[0], *angles[1]])
    }
    return {"configuration": differing, "outcome": outcome}
