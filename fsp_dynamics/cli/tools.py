"""`fsp explore`, `fsp check`, `fsp bench`: the explorer, the package measured, and its speed."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fsp_dynamics.cli.messages import report
from fsp_dynamics.cli.options import SEVERAL, DataDir, Device, Json, loading
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.tables import print_json, print_table

Part = Literal["training", "scaling", "memory", "recording", "trajectories"]


def explore(
    run: Annotated[
        Path | None, Parameter(help="The folder of a run, to follow its training (default: a random network).")
    ] = None,
    /,
    *,
    notebook: Annotated[
        bool,
        Parameter(negative="", help="In JupyterLab, as notebooks/02_explore.ipynb (from a source tree)."),
    ] = False,
    port: Annotated[int | None, Parameter(help="Of the page, on this machine (default: its own choice).")] = None,
    browser: Annotated[bool, Parameter(help="Open a browser window.")] = True,
) -> int:
    """Open the interactive explorer as a page in the browser. Ends with Ctrl-C."""
    if notebook:
        from fsp_dynamics.experiments.notebook import explore as open_notebook

        return open_notebook(run, port=port, browser=browser)
    from fsp_dynamics.explorer.model import Model
    from fsp_dynamics.explorer.server import show
    from fsp_dynamics.explorer.session import Session

    show(Model(Session.of(run), ready=set()), report, port=port, browser=browser)
    return 0


def check(
    *,
    backend: Annotated[
        Literal["numba", "torch"], Parameter(help="Whose solvers are compared with the reference.")
    ] = "numba",
    device: Device = None,
    as_json: Json = False,
) -> int:
    """Check the solvers and the learning rule on this machine: orders, agreement, eq. 14,
    equilibrium propagation. Half a minute.
    """
    with loading():
        from fsp_dynamics.experiments.backend import Backend
        from fsp_dynamics.experiments.check import run_checks

    found = list(run_checks(report=lambda group: report(f"measuring: {group}"), backend=Backend(backend, device)))
    rows = [
        {
            "check": m.group,
            "what": m.what,
            "measured": f"{m.value:.4g}",
            "expected": m.expected,
            "": "pass" if m.passed else "FAIL",
        }
        for m in found
    ]
    failed = sum(not m.passed for m in found)
    if as_json:
        print_json([dataclasses.asdict(m) | {"passed": m.passed} for m in found])
    else:
        print_table(f"{len(found)} figures, {failed} failed", rows)
    return 4 if failed else 0


def bench(
    *,
    parts: Annotated[tuple[Part, ...], SEVERAL, Parameter(help="What to measure (default: everything).")] = (),
    presets: Annotated[
        tuple[str, ...],
        SEVERAL,
        Parameter(help="Of the training, memory and recording parts (default: three, one; one if quick)."),
    ] = (),
    threads: Annotated[tuple[int, ...], SEVERAL, Parameter(show_default=True, help="Counts to measure with.")] = (1, 2),
    quick: Annotated[bool, Parameter(negative="", help="A short version of about a minute.")] = False,
    out: Annotated[
        Path | None,
        Parameter(help="Folder for bench.json and bench.png (a run of everything: benchmarks/results; else none)."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Measure the speed of training beside backpropagation on this machine, from a source tree. Up
    to 25 minutes.
    """
    suite = _benchmarks()
    given = {
        "presets": presets,
        "threads": threads,
        "quick": quick,
        "out": out,
        "data_dir": data_dir,
        "say": lambda text: report(f"measuring: {text}"),
    }
    results = suite.run(parts or suite.PARTS, **given)
    if as_json:
        return print_json(dataclasses.asdict(results))
    from rich.console import Console

    suite.show(results, Console(width=None if sys.stdout.isatty() else 200, highlight=False))


def _benchmarks() -> Any:
    """The module benchmarks/suite.py of the source tree that this package stands in. Raises
    ConfigurationError where there is none.
    """
    root = Path(__file__).parents[2]
    if not (root / "benchmarks" / "suite.py").is_file():
        raise ConfigurationError(
            f"{root} holds no benchmarks: they come with the sources alone; run fsp bench from a clone"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module("benchmarks.suite")
