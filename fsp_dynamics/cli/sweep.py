"""`fsp sweep`: one configuration with a grid of values and several seeds, side by side, and one
table of the results.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fsp_dynamics.cli.options import (
    AllowImport,
    BackendName,
    DataDir,
    Device,
    Json,
    Products,
    overrides,
    report,
    with_fields,
)
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config_io import presets, read_value
from fsp_dynamics.tables import print_json, print_table, shown

if TYPE_CHECKING:
    from fsp_dynamics.experiments.folder import Record
    from fsp_dynamics.experiments.sweeps.runner import Sweep

FAILED = 4


@with_fields
def sweep(
    source: Annotated[
        str, Parameter(help=f"A preset ({', '.join(presets())}), a TOML file, or the folder of a run of the same kind.")
    ],
    /,
    *,
    seeds: Annotated[str, Parameter(metavar="N|N,N,...")] = "5",
    grid: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, metavar="FIELD=VALUE,...")] = (),
    jobs: int = 1,
    scheduler: Annotated[str | None, Parameter(metavar="tcp://HOST:PORT")] = None,
    out: Path | None = None,
    data_dir: DataDir = None,
    allow_import: AllowImport = (),
    threads: Annotated[
        int | None, Parameter(help="Threads of each worker (default: 1; for a single job, as in fsp train).")
    ] = None,
    backend: BackendName = "numba",
    device: Device = None,
    products: Products = None,
    progress: Annotated[bool, Parameter(name="--progress", help="Show a bar of the runs.")] = True,
    as_json: Json = False,
    **given: str | None,
) -> Any:
    """Run a configuration with every value of a grid and several seeds, and report mean, spread and
    95 % interval of the errors for each.

    Called again it runs what is missing: after a stop, with more seeds, with more values. A run
    that fails is tried once more; if it fails again the exit code is 4, after all the others.

    Parameters
    ----------
    seeds
        How many, from 0 on (5 is 0,1,2,3,4), or which (3,4,7; a single one with a comma behind
        it).
    grid
        A key of the configuration, or its last part, with its values; once for each key. A value
        that is a list stands in brackets.
    jobs
        Processes of this machine that run side by side; 1: this one.
    scheduler
        Of a dask cluster whose workers run them, in place of jobs. They see the same folders.
    out
        Folder of the sweep (default: sweeps/NAME), a run folder in it for each run.
    """
    from fsp_dynamics.experiments.progress import StderrOutput
    from fsp_dynamics.experiments.sweeps.grid import read_grid
    from fsp_dynamics.experiments.sweeps.reporter import SweepReporter
    from fsp_dynamics.experiments.sweeps.runner import sweep as run_sweep

    shown = SweepReporter(StderrOutput(bars=progress))
    where: dict[str, Any] = {"jobs": jobs, "scheduler": scheduler, "data_dir": data_dir, "threads": threads}
    where |= {
        "backend": backend,
        "device": device,
        "products": products,
        "progress": shown,
        "allow_import": allow_import,
    }
    found = run_sweep(source, seeds=_seeds(seeds), grid=read_grid(grid), out=out, **where, **overrides(given))
    print_json(found.points()) if as_json else _show(found)
    for member in found.failed:
        report(f"failed: {member.folder}: {member.reason}")
    return FAILED if found.failed else 0


def _seeds(text: str) -> Any:
    value: Any = read_value(text.removesuffix(","))
    if text.endswith(",") and not isinstance(value, list):
        return [value]
    if value == [] or isinstance(value, str):
        raise ConfigurationError(
            f"seeds = {text!r}, expected how many (5 is 0,1,2,3,4) or which, whole numbers from 0 on (3,4,7)"
        )
    return value


def _show(found: Sweep) -> None:
    finished = sum(member.status == "finished" for member in found.members)
    rows = [{**{key: shown(point[key]) for key in found.fields}, **_outcome(point)} for point in found.points()]
    print_table(
        f"{found.folder}: {finished} of {len(found.members)} runs finished; means over seeds, errors in %", rows
    )


def _outcome(point: Record) -> dict[str, str]:
    """The row of one point of the grid."""
    low, high = (point[f"test_error_{end}"] for end in ("low", "high"))
    return {
        "seeds": f"{point['seeds']}" if point["seeds"] == point["runs"] else f"{point['seeds']} of {point['runs']}",
        "test_error": _brief(point["test_error"]),
        "sd": _brief(point["test_error_sd"]),
        "95 % interval": "-" if low is None else f"{low:.2f} to {high:.2f}",
        "valid_error": _brief(point["valid_error"]),
        "train_error": _brief(point["train_error"]),
        **{key: shown(point[key]) for key in ("best_epoch", "epochs", "seconds")},
    }


def _brief(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
