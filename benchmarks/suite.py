"""All benchmarks: which parts to measure, in one run on one machine; tables on stdout, a JSON
file and a figure in a folder.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fsp_dynamics.errors import ConfigurationError, check_choice

PARTS = ("training", "scaling", "memory", "recording", "trajectories")
RESULTS = Path(__file__).parent / "results"


def run(
    parts: Sequence[str] = PARTS,
    *,
    quick: bool = False,
    presets: Sequence[str] = (),
    threads: Sequence[int] = (1, 2),
    out: Path | None = None,
    data_dir: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Any:
    """Measure, and write `bench.json` and `bench.png`; returns the `report.Results`.

    Parameters
    ----------
    parts : of PARTS. presets : of the training, memory and recording parts; all of
        `training.PRESETS`, or one if `quick`.
    quick : a minute or so, for a look; the figures are rough.
    threads : counts to measure with, no more than there are cores.
    out : the folder; if None, benchmarks/results for a whole run, and none for a part of it or a
        quick one.
    data_dir : where to look for data first; set as $FSP_DATA, for this process and those it
        starts.

    Raises ConfigurationError for unknown parts, impossible thread counts, or where PyTorch is
    missing.
    """
    for part in parts:
        check_choice("parts", part, PARTS)
    _check_threads(threads)
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError(
            "the benchmarks need PyTorch to compare with; install it: pip install 'fsp_dynamics[torch]'"
        )
    if data_dir is not None:
        os.environ["FSP_DATA"] = str(data_dir)
    from benchmarks import machine, recording, report, scaling, training
    from fsp_dynamics.experiments.config_io import load_config

    plan, grid = (training.QUICK, scaling.QUICK) if quick else (training.Plan(), scaling.Grid())
    grid = dataclasses.replace(grid, threads=tuple(threads))
    chosen = list(presets) or list(training.PRESETS[: 1 if quick else None])
    settings = {
        "parts": list(parts),
        "presets": chosen,
        "threads": list(threads),
        "quick": quick,
        "plan": dataclasses.asdict(plan),
        "grid": dataclasses.asdict(grid),
    }
    results = report.Results(machine.describe(load_config(chosen[0])[1]), settings)
    counts = sorted({1, *threads})
    say("peak of the cores")
    peaks = [machine.peak(count) for count in counts]
    rows = training.measure(chosen, threads, plan, say) if "training" in parts else []
    # again, since other programs may have been running the first time
    peaks += [machine.peak(count) for count in counts if rows]
    results.peaks.extend(
        max((peak for peak in peaks if peak.threads == count), key=lambda peak: peak.best) for count in counts
    )
    results.training.extend(training.with_shares(rows, results.peaks))
    if "scaling" in parts:
        results.scaling.extend(scaling.measure(grid, say))
    if "memory" in parts:
        results.memory.extend(scaling.memory(chosen, say))
    if "recording" in parts:
        results.recording.extend(recording.measure(chosen if presets or quick else [scaling.PRESET], plan, say))
    if "trajectories" in parts:
        results.trajectories.extend(_trajectories(say))
    if out is None and not quick and set(parts) == set(PARTS):
        out = RESULTS
    if out is not None:
        _keep(results, out)
    return results


def show(results: Any, console: Console) -> None:
    """The tables."""
    from benchmarks import report

    for table in report.tables(results):
        console.print(table)


def _check_threads(threads: Sequence[int]) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for count in threads:
        if not 1 <= count <= cores:
            raise ConfigurationError(f"threads = {count}, expected 1 to {cores}, the cores of this machine")


def _trajectories(say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Rows of benchmarks/trajectories.py."""
    if importlib.util.find_spec("benchmarks.trajectories") is None:
        say("trajectories: benchmarks/trajectories.py is missing; skipped")
        return []
    say("trajectories")
    return [dataclasses.asdict(row) for row in importlib.import_module("benchmarks.trajectories").measure()]


def _keep(results: Any, out: Path) -> None:
    from benchmarks import report

    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(results.to_json(), encoding="utf-8")
    report.draw(results, out / "bench.png")
