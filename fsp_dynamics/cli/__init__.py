"""The command line `fsp`: parses, calls the package, shows what it returns. Results on stdout, all
else on stderr.

A command is imported when it is called, and what it needs when it runs, so that `fsp --help`
answers at once. Every failure is one line and one of the exit codes of `EXIT_CODES`; FSP_DEBUG=1
shows the traceback.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from cyclopts import App, CycloptsError, UnusedCliTokensError

from fsp_dynamics import errors, streams
from fsp_dynamics.cli.messages import in_options, report
from fsp_dynamics.settings import explained

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.RunLockedError, 6),
    (errors.RunExistsError, 2),
    (errors.DatasetError, 3),
    (errors.CheckpointError, 5),
    (errors.NotFiniteError, 4),
    (errors.NotConvergedError, 4),
    (errors.NoConvergenceError, 4),
    (errors.RankLostError, 8),
    (errors.NotAFileError, 7),
    (errors.FspError, 2),
    (OSError, 7),
    (MemoryError, 7),
)
"""Which error ends with which exit code: the first that fits. Anything else is an internal error,
1.
"""

FOLDERS = ("--out", "--data-dir")
_LISTING: tuple[list[str], ...] = ([], ["--help"], ["-h"])
"""The words that list the commands."""

_EPILOGUE = """\
Exit codes: 0 success; 2 usage or configuration; 3 data; 4 diverged, not converged, or a check failed; \
5 checkpoint; 6 run folder locked; 7 disk or I/O; 8 another process of a job is gone; \
130, 143 interrupted (SIGINT, SIGTERM) after saving; \
1 internal error (FSP_DEBUG=1 shows where)."""


def _version() -> str:
    from importlib.metadata import version

    return version("fsp_dynamics")


COMMANDS: dict[str, tuple[str, str]] = {
    "bench": ("tools", "Measure the speed of training beside backpropagation on this machine, from a source tree."),
    "check": (
        "tools",
        "Check the solvers and the learning rule on this machine: orders, agreement, eq. 14, equilibrium propagation.",
    ),
    "compare": (
        "listing",
        "Show what differs between runs, and the results of each; with --out, their curves over each other.",
    ),
    "cost": (
        "cost",
        "Measure what a batch costs each learner of a discrete network, stage by stage: bytes kept for the backward "
        "pass, and seconds.",
    ),
    "data": ("data", "List the images on this machine, and download more."),
    "evaluate": (
        "judging",
        "Evaluate a trained network on a part of the data: error, also of each class, which classes are taken for "
        "which, convergence, saturation, units that are stuck, dead outputs.",
    ),
    "explore": ("tools", "Open the interactive explorer as a page in the browser."),
    "figure": (
        "analysis",
        "Draw a figure from the records of runs: NAME.png, NAME.svg, the numbers drawn (NAME.csv) and a caption "
        "(NAME.txt).",
    ),
    "gradients": (
        "analysis",
        "Compare a trained network's update with the true gradient, for each matrix and source of deviation.",
    ),
    "predict": (
        "judging",
        "Classify images with a trained network: class, score of each output, whether it converged.",
    ),
    "quickstart": (
        "training",
        "Train a first network on small digits, draw its learning curve and loop alignment, and show what to try next.",
    ),
    "runs": ("listing", "List the runs at or below folders: what differs between them, and their results."),
    "spikes": (
        "spikes",
        "Evaluate a trained spiking network and count its spikes, as it is, and with weights of fewer bits, with other "
        "steps of time, or with other thresholds, one at a time; write it as NIR.",
    ),
    "stability": (
        "analysis",
        "Analyse the stability of a trained network: the gain of the loop, how fast disturbances decay, which beta "
        "and dt are stable.",
    ),
    "sweep": (
        "sweep",
        "Run a configuration with every value of a grid, with values in pairs or drawn at random, and several seeds; "
        "report mean, spread and 95 % interval of the errors and the angles for each.",
    ),
    "table": ("table", "Print results of several runs as a table for a paper."),
    "train": ("training", "Train a network and keep configuration, metrics and checkpoints in a run folder."),
    "watch": (
        "watching",
        "Watch runs that are being trained, or are finished: curves of errors, angles, residual and images per "
        "second, in the terminal or as a page in the browser (--browser).",
    ),
}
"""Each command: its module in this package, and what it does, as its own help begins."""


def _app(listing: bool = False) -> App:
    """The command line. listing : with what each command does, without importing it; its own help
    is then no more than that.
    """
    made = App(
        name="fsp",
        help="Hopfield-style rate networks with a feedforward loop, trained by a contrastive Hebbian rule.",
        help_epilogue=_EPILOGUE,
        help_format="plaintext",
        version=_version,
        suppress_keyboard_interrupt=False,
    )
    for name, (module, does) in COMMANDS.items():
        made.command(f"fsp_dynamics.cli.{module}:{name}", name=name, **({"help": does} if listing else {}))
    return made


app = _app()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Raises nothing, except under FSP_DEBUG=1."""
    streams.open_missing()
    with warnings.catch_warnings(), streams.guarded():
        warnings.showwarning = lambda message, *rest, **more: report(f"note: {in_options(_first_line(message))}")
        try:
            words = sys.argv[1:] if arguments is None else arguments
            _check_arguments(words)
            called = _app(listing=True) if list(words) in _LISTING else app
            code = called(words, exit_on_error=False, print_error=False, result_action="return_value")
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
    if isinstance(error, UnusedCliTokensError):
        text = f"too many arguments: {' '.join(error.unused_tokens or ())}"
    if isinstance(error, CycloptsError):
        report(f"fsp: {text} (fsp {' '.join(error.command_chain or ())} --help shows more)".replace("  ", " "))
        return 2
    for kind, code in EXIT_CODES:
        if isinstance(error, kind):
            report(f"fsp: {text}")
            return code
    report(f"fsp: internal error, {type(error).__name__}: {text}; please report it with what FSP_DEBUG=1 shows")
    return 1
