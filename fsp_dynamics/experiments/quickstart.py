"""A first run: digits, a minute at most, one picture. Called again, it replaces its own earlier run
and nothing else.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from fsp_dynamics.errors import RunExistsError
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.progress import EpochReporter, in_charge
from fsp_dynamics.experiments.runner import Run, run
from fsp_dynamics.folders import expanded
from fsp_dynamics.screen import showing

PICTURE = "quickstart.png"
_OWN = (
    "metrics.jsonl",
    "probes.jsonl",
    "summary.json",
    "checkpoints",
    "figures",
    PICTURE,
    "config.toml",
    "environment.json",
)


def quickstart(out: str | Path, reporter: EpochReporter, threads: int | None = None) -> tuple[Run, Path]:
    """Train the preset `digits` in `out` and draw `out`/quickstart.png: the run, and where the
    picture is.

    Raises RunExistsError if `out` holds a run that is no quickstart.
    """
    folder = RunFolder(expanded(out, "out"))
    _, config = load_config("digits")
    if folder.holds_run():
        _clear(folder)
    with in_charge(reporter):
        finished = run(config, folder, reporter, threads=threads, command="quickstart")
    picture = folder.path / PICTURE
    from fsp_dynamics.plotting.showing import apart

    with apart(), in_charge(reporter), showing("drawing the picture"):
        finished.plot(path=picture)
    return finished, picture


def _clear(folder: RunFolder) -> None:
    """Remove an earlier quickstart; environment.json, which identifies it, goes last, so that a
    clearing that was interrupted can be repeated.
    """
    with folder.locked():
        if folder.read_json("environment.json").get("command") != "quickstart":
            raise RunExistsError(f"{folder.path} holds a run that is no quickstart; give another folder (out=...)")
        for name in _OWN:
            path = folder.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
