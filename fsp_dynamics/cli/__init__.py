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

from fsp_dynamics import errors
from fsp_dynamics.cli import analysis, data, sweep
from fsp_dynamics.cli.options import (
    SEVERAL,
    BackendName,
    DataDir,
    Device,
    Json,
    Products,
    RunPath,
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
    (errors.FspError, 2),
    (OSError, 7),
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
5 checkpoint; 6 run folder locked; 7 disk or I/O; 8 another process of a job is gone; 130, 143 interrupted (SIGINT, SIGTERM) after saving; \
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

Part = Literal["training", "scaling", "memory", "recording", "trajectories"]


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
    data_dir: DataDir = None,
    threads: Threads = None,
    backend: BackendName = "numba",
    device: Device = None,
    products: Products = None,
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
        Continue after the last finished epoch, to the same bits as an uninterrupted run.
    """
    from fsp_dynamics.experiments.jobs.ranks import is_first
    from fsp_dynamics.experiments.runner import train as train_run

    where: dict[str, Any] = {
        "data_dir": data_dir,
        "threads": threads,
        "backend": backend,
        "device": device,
        "products": products,
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
    as_json: Json = False,
) -> None:
    """Evaluate a trained network on a part of the data: error, convergence, saturation, dead
    outputs.
    """
    from fsp_dynamics.experiments.runner import open_run

    where: dict[str, Any] = {
        "data_dir": data_dir,
        "threads": threads,
        "backend": backend,
        "device": device,
        "products": products,
    }
    found = dataclasses.asdict(open_run(run).evaluate(split, checkpoint, **where))
    if as_json:
        return print_json({"run": str(run), "split": split, "checkpoint": checkpoint, **found})
    saturation = found.pop("saturation", {})
    rows = [{"": key, "value": shown(value)} for key, value in found.items()]
    rows += [
        {"": f"{layer}: share at 0, at 1", "value": f"{zero:.3f}, {one:.3f}"}
        for layer, (zero, one) in saturation.items()
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
    columns = [key for key in RUN_COLUMNS if any(record.get(key) not in (None, [], {}) for record in found)]
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


@app.command
def explore(
    run: Annotated[
        Path | None, Parameter(help="The folder of a run, to follow its training (default: a random network).")
    ] = None,
    /,
    *,
    port: Annotated[int | None, Parameter(help="Of JupyterLab, on this machine (default: its own choice).")] = None,
    browser: Annotated[bool, Parameter(help="Open a browser window.")] = True,
) -> int:
    """Open JupyterLab on notebooks/02_explore.ipynb, the interactive explorer, from a source tree.
    Ends when JupyterLab does.
    """
    from fsp_dynamics.experiments.notebook import explore as open_notebook

    return open_notebook(run, port=port, browser=browser)


@app.command
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


@app.command
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
    import importlib

    root = Path(__file__).parents[2]
    if not (root / "benchmarks" / "suite.py").is_file():
        raise errors.ConfigurationError(
            f"{root} holds no benchmarks: they come with the sources alone; run fsp bench from a clone"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module("benchmarks.suite")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Raises nothing, except under FSP_DEBUG=1."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest, **more: report(f"note: {in_options(str(message))}")
        try:
            _check_arguments(sys.argv[1:] if arguments is None else arguments)
            code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except BrokenPipeError:
            # the reader of the pipe has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("FSP_DEBUG") == "1":
                raise
            return _refuse(error)


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


def _refuse(error: BaseException) -> int:
    """Report in one line what was wrong; the exit code."""
    text = in_options(" ".join(str(error).split()))
    if isinstance(error, KeyboardInterrupt):
        report(f"fsp: {text or 'stopped'}")
        return 128 + int(getattr(error, "signum", signal.SIGINT))
    if isinstance(error, CycloptsError):
        report(f"fsp: {text} (fsp {' '.join(error.command_chain or ())} --help shows more)".replace("  ", " "))
        return 2
    for kind, code in EXIT_CODES:
        if isinstance(error, kind):
            report(f"fsp: {text}")
            return code
    report(f"fsp: internal error, {type(error).__name__}: {text}; please report it with what FSP_DEBUG=1 shows")
    return 1
