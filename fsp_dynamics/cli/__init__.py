"""The command line `fsp`: parses, calls the package, shows what it returns. Results on stdout, all
else on stderr.

Commands import what they need when they run, so that `fsp --help` answers at once. Every failure
is one line and one of the exit codes of `EXIT_CODES`; FSP_DEBUG=1 shows the traceback.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from fsp_dynamics import errors, streams
from fsp_dynamics.cli import analysis, data, sweep, tools
from fsp_dynamics.cli.options import (
    SEVERAL,
    AllowImport,
    BackendName,
    DataDir,
    Device,
    Json,
    Products,
    RunPath,
    SaveMinutes,
    ShowProgress,
    Threads,
    in_options,
    overrides,
    report,
    reporter,
    with_fields,
)
from fsp_dynamics.experiments.config_io import presets
from fsp_dynamics.experiments.execution import NoConvergenceError
from fsp_dynamics.settings import explained
from fsp_dynamics.tables import outcome, print_json, print_table, shown

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.RunLockedError, 6),
    (errors.RunExistsError, 2),
    (errors.DatasetError, 3),
    (errors.CheckpointError, 5),
    (errors.NotFiniteError, 4),
    (errors.NotConvergedError, 4),
    (NoConvergenceError, 4),
    (errors.RankLostError, 8),
    (errors.NotAFileError, 7),
    (errors.FspError, 2),
    (OSError, 7),
    (MemoryError, 7),
)
"""Which error ends with which exit code: the first that fits. Anything else is an internal error,
1.
"""

RUN_COLUMNS = (
    *("run", "family", "data", "hidden", "seed", "status", "epochs", "best_epoch"),
    *("train_error", "valid_error", "test_error", "alignment_degrees", "seconds"),
)
FOLDERS = ("--out", "--data-dir")

_EPILOGUE = """\
Exit codes: 0 success; 2 usage or configuration; 3 data; 4 diverged, not converged, or a check failed; \
5 checkpoint; 6 run folder locked; 7 disk or I/O; 8 another process of a job is gone; \
130, 143 interrupted (SIGINT, SIGTERM) after saving; \
1 internal error (FSP_DEBUG=1 shows where)."""


def _version() -> str:
    from importlib.metadata import version

    return version("fsp_dynamics")


app = App(
    name="fsp",
    help="Hopfield-style rate networks with a feedforward loop, trained by a contrastive Hebbian rule.",
    help_epilogue=_EPILOGUE,
    help_format="plaintext",
    version=_version,
    suppress_keyboard_interrupt=False,
)
app.command(data.data)
app.command(analysis.figure)
app.command(analysis.stability)
app.command(analysis.gradients)
app.command(sweep.sweep)
app.command(tools.explore)
app.command(tools.check)
app.command(tools.bench)


@app.command
def quickstart(*, out: Path = Path("quickstart"), threads: Threads = None, progress: ShowProgress = True) -> None:
    """Train a first network on small digits, draw its learning curve and loop alignment, and show
    what to try next.

    Parameters
    ----------
    out
        Run folder; an earlier quickstart in it is replaced.
    """
    from fsp_dynamics.experiments.quickstart import quickstart as first_run

    run, picture = first_run(out, reporter(progress), threads)
    best = run.summary["best"]
    epochs, seconds = run.summary["epochs"], run.summary["seconds"]
    print(f"test error {best['test_error']:.2f} % (epoch {best['epoch']} of {epochs}, {seconds:.0f} s of training)")
    print(f"picture    {picture}")
    print("try next   fsp train digits --network.hidden 200,200 --seed 1 --out runs/wider")
    print("           fsp train mnist-2x500 --out runs/a")
    print(
        "           fsp compare quickstart runs/wider"
        if str(out) == "quickstart"
        else f"           fsp compare {out} runs/wider"
    )


@app.command
@with_fields
def train(
    source: Annotated[
        str, Parameter(help=f"A preset ({', '.join(presets())}), a TOML file, or the folder of a run to resume.")
    ],
    /,
    *,
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
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
    """
    from fsp_dynamics.experiments.jobs.ranks import is_first
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
    run = train_run(source, out=out, resume=resume, progress=reporter(progress), **where, **overrides(given))
    if not is_first():
        return
    if as_json:
        return print_json({"folder": str(run.folder), **run.summary})
    print_table(
        f"{run.folder}: {run.summary['status']}",
        [{"": which, **outcome(run.summary[which])} for which in ("best", "last")],
    )


@app.command
def evaluate(
    run: RunPath,
    /,
    *,
    split: Annotated[Literal["train", "valid", "test"], Parameter(help="Which images.")] = "test",
    checkpoint: Annotated[Literal["best", "last"], Parameter(help="Which network.")] = "best",
    data_dir: DataDir = None,
    threads: Threads = None,
    backend: BackendName = "numba",
    device: Device = None,
    products: Products = None,
    allow_import: AllowImport = (),
    as_json: Json = False,
) -> None:
    """Evaluate a trained network on a part of the data: error, convergence, saturation, units that
    are stuck, dead outputs.
    """
    from fsp_dynamics.experiments.runner import open_run

    where: dict[str, Any] = {
        "data_dir": data_dir,
        "threads": threads,
        "backend": backend,
        "device": device,
        "products": products,
    }
    found = dataclasses.asdict(open_run(run, allow_import=allow_import).evaluate(split, checkpoint, **where))
    if as_json:
        return print_json({"run": str(run), "split": split, "checkpoint": checkpoint, **found})
    saturation, stuck = found.pop("saturation", {}), found.pop("stuck", {})
    rows = [{"": key, "value": shown(value)} for key, value in found.items()]
    rows += [
        {"": f"{layer}: share at 0, at 1", "value": f"{zero:.3f}, {one:.3f}"}
        for layer, (zero, one) in saturation.items()
    ]
    rows += [
        {"": f"{layer}: units at 0, at 1 on every image", "value": f"{zero}, {one}"}
        for layer, (zero, one) in stuck.items()
    ]
    print_table(f"{run}: {checkpoint} network, {split} images", rows)


@app.command
def runs(folder: Path = Path("runs"), /, *, as_json: Json = False) -> None:
    """List the runs at or below a folder, with their results.

    Parameters
    ----------
    folder
        Where to look.
    """
    from fsp_dynamics.experiments.overview import list_runs

    found = list_runs(folder)
    if as_json:
        return print_json(found)
    usual = {"family": "rate"}  # columns in which all runs are alike tell nothing
    columns = [
        key for key in RUN_COLUMNS if any(record.get(key) not in (None, [], {}, usual.get(key)) for record in found)
    ]
    print_table(
        f"{len(found)} runs in {folder}", [{key: shown(record.get(key)) for key in columns} for record in found]
    )
    for record in found:
        if "problem" in record:
            report(f"note: {record['run']}: {record['problem']}")


@app.command
def compare(first: RunPath, second: RunPath, /, *, as_json: Json = False) -> None:
    """Show what differs between two runs, and the results of both."""
    from fsp_dynamics.experiments.overview import compare_runs

    found = compare_runs(first, second)
    if as_json:
        return print_json(found)
    for part, rows in found.items():
        print_table(
            part, [{"": key, str(first): shown(one), str(second): shown(other)} for key, (one, other) in rows.items()]
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Raises nothing, except under FSP_DEBUG=1."""
    streams.open_missing()
    with warnings.catch_warnings(), streams.guarded():
        warnings.showwarning = lambda message, *rest, **more: report(f"note: {in_options(_first_line(message))}")
        try:
            _check_arguments(sys.argv[1:] if arguments is None else arguments)
            code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except streams.OutputError as error:
            streams.give_up_stdout()
            if error.broken:  # its reader has seen enough
                return 0
            report(f"fsp: {error}; what the command wrote to files is whole")
            return 7
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("FSP_DEBUG") == "1":
                raise
            return _refuse(error)


def _first_line(message: object) -> str:
    """A warning in one line; Numba's go on with a traceback."""
    return str(message).strip().partition("\n")[0]


def _check_arguments(words: Sequence[str]) -> None:
    """Refuse an option whose folder is an empty text, and in a job of several processes every
    command but training. Raises ConfigurationError.
    """
    for option, value in itertools.pairwise(words):
        if option in FOLDERS and not value:
            raise errors.ConfigurationError(
                f"{option} = '', expected a folder; give one, or leave the option out (an unset shell variable?)"
            )
    if os.environ.get("WORLD_SIZE", "1") != "1" and words and words[0] != "train" and not words[0].startswith("-"):
        from fsp_dynamics.experiments.jobs.ranks import is_job

        if is_job():
            raise errors.ConfigurationError(
                f"fsp {words[0]} in a job of {os.environ['WORLD_SIZE']} processes; "
                "only fsp train runs in several, start this one alone"
            )


def _misses_working_folder(error: BaseException) -> bool:
    """Whether the error comes from a working folder that no longer exists."""
    chain: list[BaseException | None] = [error, error.__cause__, error.__context__]
    if not any(isinstance(each, FileNotFoundError) and each.filename is None for each in chain):
        return False
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _refuse(error: BaseException) -> int:
    """Report in one line what was wrong; the exit code."""
    error = explained(error) or error
    text = in_options(" ".join(str(error).split()))
    if isinstance(error, KeyboardInterrupt):
        report(f"fsp: {text or 'stopped'}")
        return 128 + int(getattr(error, "signum", signal.SIGINT))
    if _misses_working_folder(error):
        report("fsp: the working folder has been deleted; change to another one (cd)")
        return 7
    if isinstance(error, CycloptsError):
        report(f"fsp: {text} (fsp {' '.join(error.command_chain or ())} --help shows more)".replace("  ", " "))
        return 2
    for kind, code in EXIT_CODES:
        if isinstance(error, kind):
            report(f"fsp: {text}")
            return code
    report(f"fsp: internal error, {type(error).__name__}: {text}; please report it with what FSP_DEBUG=1 shows")
    return 1
