"""`fsp sweep`: one configuration with a grid of values and several seeds, side by side, and one
table of the results.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fsp_dynamics.cli.messages import report
from fsp_dynamics.cli.options import (
    AllowImport,
    BackendName,
    DataDir,
    Device,
    Json,
    Products,
    loading,
    overrides,
    with_fields,
)
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config_io import presets, read_value
from fsp_dynamics.experiments.records import ANGLE
from fsp_dynamics.tables import print_json, print_table, rounded, shown

if TYPE_CHECKING:
    from fsp_dynamics.experiments.folder import Record
    from fsp_dynamics.experiments.sweeps.runner import Sweep

FAILED = 4
EXPENDABLE = ("seconds", "epochs", "best_epoch", "train_error")
"""Columns that go first where there is no room."""


@with_fields
def sweep(
    source: Annotated[
        str, Parameter(help=f"A preset ({', '.join(presets())}), a TOML file, or the folder of a run of the same kind.")
    ],
    /,
    *,
    seeds: Annotated[str, Parameter(metavar="N|N,N,...")] = "5",
    grid: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, metavar="FIELD=VALUE,...")] = (),
    pair: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, metavar="FIELD=VALUE,...")] = (),
    random: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, metavar="FIELD=KIND:VALUES")] = (),
    draws: int = 20,
    draw_seed: int = 0,
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
    """Run a configuration with every value of a grid, with values in pairs or drawn at random, and
    several seeds; report mean, spread and 95 % interval of the errors and the angles for each.

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
    pair
        As grid, once for each of several keys with as many values: the first values go together,
        the second ones, and so on. All of these are combined with the grid.
    random
        A key with what its values are drawn from: uniform:0.5,2, log:1,100 (uniform in the
        logarithm), integer:5,50 or choice:hebbian,gradient. All of these are combined with the
        grid.
    draws
        How many random points; more of them are the same ones and more.
    draw_seed
        Seed of the draws.
    jobs
        Processes of this machine that run side by side; 1: this one.
    scheduler
        Of a dask cluster whose workers run them, in place of jobs. They see the same folders.
    out
        Folder of the sweep (default: sweeps/NAME), a run folder in it for each run.
    """
    with loading():
        from fsp_dynamics.experiments.progress import StderrOutput
        from fsp_dynamics.experiments.sweeps.grid import read_grid
        from fsp_dynamics.experiments.sweeps.reporter import SweepReporter
        from fsp_dynamics.experiments.sweeps.runner import sweep as run_sweep
        from fsp_dynamics.experiments.sweeps.space import read_random

    shown = SweepReporter(StderrOutput(bars=progress))
    where: dict[str, Any] = {"jobs": jobs, "scheduler": scheduler, "data_dir": data_dir, "threads": threads}
    where |= {
        "backend": backend,
        "device": device,
        "products": products,
        "progress": shown,
        "allow_import": allow_import,
    }
    points: dict[str, Any] = {
        "grid": read_grid(grid),
        "pairs": read_grid(pair, "pair"),
        "random": read_random(random),
        "draws": draws,
        "draw_seed": draw_seed,
    }
    found = run_sweep(source, seeds=_seeds(seeds), **points, out=out, **where, **overrides(given))
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
    from fsp_dynamics.experiments.sweeps.grid import shown_value

    finished = sum(member.status == "finished" for member in found.members)
    rows = [{**{key: shown_value(point[key]) for key in found.fields}, **_outcome(point)} for point in found.points()]
    angles = [key for key in (rows[0] if rows else ()) if key.startswith(ANGLE)]
    print_table(
        f"{found.folder}: {finished} of {len(found.members)} runs finished; means over seeds, errors in %",
        rows,
        expendable=[*EXPENDABLE, *angles[:-1], "seeds", *angles[-1:], "valid_error", "sd", "95 % interval"],
        one_line=True,
    )


def _outcome(point: Record) -> dict[str, str]:
    """The row of one point of the grid."""
    low, high = (point[f"test_error_{end}"] for end in ("low", "high"))
    return {
        "seeds": f"{point['seeds']}" if point["seeds"] == point["runs"] else f"{point['seeds']} of {point['runs']}",
        "test_error": rounded(point["test_error"], 2),
        "sd": rounded(point["test_error_sd"], 2),
        "95 % interval": "-" if low is None else f"{low:.2f} to {high:.2f}",
        **{key: rounded(point[key], 2) for key in ("valid_error", "train_error")},
        **{key: rounded(value, 1) for key, value in point.items() if key.startswith(ANGLE)},
        **{key: shown(point[key]) for key in ("best_epoch", "epochs", "seconds")},
    }
