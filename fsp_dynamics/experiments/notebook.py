"""The explorer in JupyterLab: the notebook of the source tree, opened by a process of its own, as
a single document without the file browser.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.folders import expanded

NOTEBOOK = Path("notebooks") / "02_explore.ipynb"
RUN = "FSP_RUN"  # where the notebook looks for the run to explore


def explore(run: str | Path | None = None, *, port: int | None = None, browser: bool = True) -> int:
    """Open the explorer's notebook in JupyterLab, on `run` if one is given, and wait until it is
    closed; its exit code.

    Raises ConfigurationError for what is no run, where there is no source tree, and where
    JupyterLab or anywidget is not installed.
    """
    command, environment = prepared(run, port=port, browser=browser)
    try:
        return subprocess.call(command, env=environment)
    except KeyboardInterrupt:  # JupyterLab receives Ctrl-C too, asks for confirmation and ends
        return 0


def prepared(
    run: str | Path | None = None, *, port: int | None = None, browser: bool = True
) -> tuple[Sequence[str], dict[str, str]]:
    """(command, environment) of `explore`."""
    root = Path(__file__).parents[2]
    if not (root / NOTEBOOK).is_file():
        raise ConfigurationError(
            f"{root} holds no {NOTEBOOK}: notebooks come with the sources, not with the package; open the explorer as "
            "a page (`fsp explore`), or write `import fsp_dynamics as fsp; fsp.explore()` in a notebook of your own"
        )
    for module in ("jupyterlab", "anywidget"):
        if importlib.util.find_spec(module) is None:
            raise ConfigurationError(
                f"the explorer in a notebook needs {module}, which is not installed; "
                "install fsp_dynamics[notebook], or open it as a page (`fsp explore`)"
            )
    environment = dict(os.environ)
    environment.pop(RUN, None)
    if run is not None:
        environment[RUN] = str(RunFolder(expanded(run, "run")).require_run().path.resolve())
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        str(root / NOTEBOOK),
        f"--LabApp.default_url=/doc/tree/{NOTEBOOK.name}",
    ]
    command += [] if port is None else [f"--ServerApp.port={port}"]
    command += [] if browser else ["--no-browser"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # as in a container, where JupyterLab would refuse to start
    return command, environment
