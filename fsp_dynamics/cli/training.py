"""`fsp quickstart` and `fsp train`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fsp_dynamics.cli.options import (
    SEVERAL,
    AllowImport,
    BackendName,
    DataDir,
    Device,
    Json,
    Products,
    SaveMinutes,
    ShowProgress,
    Threads,
    loading,
    overrides,
    reporter,
    with_fields,
)
from fsp_dynamics.experiments.config_io import presets
from fsp_dynamics.experiments.records import ANGLE
from fsp_dynamics.tables import outcome, print_json, print_table

if TYPE_CHECKING:
    from fsp_dynamics.experiments.rehearsal import Forecast


def quickstart(*, out: Path = Path("quickstart"), threads: Threads = None, progress: ShowProgress = True) -> None:
    """Train a first network on small digits, draw its learning curve and loop alignment, and show
    what to try next.

    Parameters
    ----------
    out
        Run folder; an earlier quickstart in it is replaced.
    """
    with loading():
        from fsp_dynamics.experiments.quickstart import quickstart as first_run

    run, picture = first_run(out, reporter(progress), threads)
    best = run.summary["best"]
    epochs, seconds = run.summary["epochs"], run.summary["seconds"]
    trained = f"{seconds:.{0 if seconds >= 10 else 2}f} s"
    print(f"test error {best['test_error']:.2f} % (epoch {best['epoch']} of {epochs}, {trained} of training)")
    print(f"picture    {picture}")
    print("try next   fsp train digits --network.hidden 200,200 --seed 1 --out runs/wider")
    print("           fsp train mnist-2x500 --out runs/a")
    print(
        "           fsp compare quickstart runs/wider"
        if str(out) == "quickstart"
        else f"           fsp compare {out} runs/wider"
    )


@with_fields
def train(
    source: Annotated[
        str, Parameter(help=f"A preset ({', '.join(presets())}), a TOML file, or the folder of a run to resume.")
    ],
    /,
    *,
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    allow: Annotated[
        tuple[str, ...],
        SEVERAL,
        Parameter(help="With --resume: keys of the configuration that may differ, such as learning.beta; recorded."),
    ] = (),
    data_dir: DataDir = None,
    threads: Threads = None,
    backend: BackendName = "numba",
    device: Device = None,
    products: Products = None,
    allow_import: AllowImport = (),
    save_minutes: SaveMinutes = 5.0,
    tensorboard: Annotated[
        Path | None, Parameter(help="Also write event files for TensorBoard into this folder (needs tensorboardX).")
    ] = None,
    progress: ShowProgress = True,
    as_json: Json = False,
    **given: str | None,
) -> None:
    """Train a network and keep configuration, metrics and checkpoints in a run folder. Started by
    torchrun, in several processes together.

    Parameters
    ----------
    out
        Run folder (default: runs/NAME-SEED).
    resume
        Continue from the last checkpoint, within an epoch or after one, to the same bits as an
        uninterrupted run.
    dry_run
        Write nothing: show parameters, minutes, memory, disk and files, from some batches.
    """
    with loading():
        from fsp_dynamics.experiments.jobs.ranks import is_first
        from fsp_dynamics.experiments.rehearsal import forecast
        from fsp_dynamics.experiments.runner import train as train_run

    where: dict[str, Any] = {
        "data_dir": data_dir,
        "threads": threads,
        "backend": backend,
        "device": device,
        "products": products,
        "allow_import": allow_import,
        "allow": allow,
        "save_minutes": save_minutes,
    }
    where |= {"out": out, "resume": resume, "progress": reporter(progress), **overrides(given)}
    if dry_run:
        found = forecast(source, **where)
        return print_json(found.as_dict()) if as_json else _show(found)
    held = contextlib.ExitStack()
    if tensorboard is not None:
        from fsp_dynamics.experiments.tensorboard import TensorBoard

        where["callbacks"] = [board := TensorBoard(tensorboard)]
        held.callback(board.close)
    with held:
        run = train_run(source, **where)
    if not is_first():
        return
    if as_json:
        return print_json({"folder": str(run.folder), **run.summary})
    rows = [{"": which, **outcome(run.summary[which])} for which in ("best", "last")]
    angles = [key for key in rows[0] if key.startswith(ANGLE) and key != f"{ANGLE}loop"]
    print_table(f"{run.folder}: {run.summary['status']}", rows, expendable=angles)


def _show(found: Forecast) -> None:
    """A forecast as a table."""
    learning, besides = duration_words(found.learning), duration_words(found.besides)
    after = f" after {found.finished}" if found.finished else ""
    memory = "not known here" if found.memory is None else f"{found.memory / 1e6:.0f} MB, data included"
    rows = {
        "parameters": f"{found.parameters:,}",
        "epochs": f"{found.epochs}{after}, each of {found.images:,} images",
        "time": f"{duration_words(found.seconds)}: an epoch {learning}, its evaluation {besides}",
        "memory": memory,
        "disk": f"up to {found.disk / 1e6:.1f} MB, {found.most_disk / 1e6:.1f} MB while it runs",
        "would write": ", ".join(found.writes),
    }
    print_table(f"{found.folder}: nothing is written", [{"": key, "value": value} for key, value in rows.items()])


def duration_words(seconds: float) -> str:
    """Seconds, minutes or hours.

    >>> duration_words(0.0123), duration_words(12.3), duration_words(500), duration_words(20000)
    ('0.012 s', '12 s', '8.3 minutes', '5.6 hours')
    """
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
