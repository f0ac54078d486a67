"""Nothing hostile in a run folder is taken for a run.

    python -m benchmarks.hostile cases [--only TEXT]    changed copies of a run, each case alone
    python -m benchmarks.hostile flips [--count 10000]  one flipped bit after the other

`cases` runs commands on changed copies of a finished run and counts those that end otherwise than
they must: with the documented exit code, in one line, within 10 s and 6 GB, with nothing elsewhere
changed. `flips` flips bits of manifests, payloads, configuration and records, and counts those
that are taken in silence. Both end with 1 if they count any.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from benchmarks import hostile_folders as folders
from benchmarks import hostile_payloads
from benchmarks.hostile_cases import EVALUATE, EXPLORE, GRADIENTS, RESUME, STABILITY, Bench, Case, manifests
from fsp_dynamics.cli import _refuse, main
from fsp_dynamics.experiments.progress import Output, RunReporter
from fsp_dynamics.experiments.runner import open_run, train

SECONDS, GIGABYTES = 10, 6
TOLD = ("was edited", "is lost", "of another time")  # in notes
SMALL: dict[str, Any] = {
    "data": {"name": "digits", "limit": 60, "validation": 200},
    "network": {"hidden": [6], "loop_scale": 0.3},
    "learning": {"epochs": 2, "batch": 20, "momentum": 0.5, "rates": {"input": 9.0, "forward": [3.0], "loop": 0.5}},
    "solver": {"absolute": 1e-4},
    "probes": {"samples": 5, "keep": 1},
}
RECIPROCAL: dict[str, Any] = {
    **SMALL,
    "network": {"kind": "reciprocal", "hidden": [6]},
    "learning": {**SMALL["learning"], "rates": {"input": 9.0, "forward": [3.0]}},
}
AVERAGED: dict[str, Any] = {
    **SMALL,
    "learning": {**SMALL["learning"], "average": {"kind": "equal", "every": 2}},
}
RUNS = {"loop": SMALL, "twin": SMALL, "seed": {**SMALL, "seed": 1}, "tied": RECIPROCAL, "averaged": AVERAGED}


@dataclass
class Outcome:
    """How a command ended. text : what it wrote to stderr."""

    code: int
    text: str
    seconds: float
    gigabytes: float


def make_runs(folder: Path) -> dict[str, Path]:
    """The finished runs of `RUNS`, below the folder; "earlier" is the first after one
    epoch, "left" the first within its third.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(SMALL, out=folder / "loop", progress=False, epochs=1)
        shutil.copytree(folder / "loop", folder / "earlier")
        made = {name: train(table, out=folder / name, progress=False, resume=True) for name, table in RUNS.items()}
        shutil.copytree(folder / "loop", folder / "left")
        with contextlib.suppress(KeyboardInterrupt):
            train(folder / "left", resume=True, epochs=3, progress=Leaving(Output()))
        found = {name: run.folder for name, run in made.items()}
        return {"earlier": folder / "earlier", "left": folder / "left", **found}


class Leaving(RunReporter):
    """Stops the run, as Ctrl-C does, in the first epoch that it sees."""

    def batch(self, done: int, total: int, error: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def all_cases(runs: dict[str, Path]) -> list[Case]:
    """Every case; arrays are those of the runs."""
    where = {"loop": "last", "tied": "last", "left": "unfinished", "averaged": "last"}
    names = {run: sorted(safetensors.numpy.load_file(Bench(runs[run]).payload(name))) for run, name in where.items()}
    names["left"] = [name for name in names["left"] if name.startswith("epoch/")]
    names["averaged"] = [name for name in names["averaged"] if name.startswith("raw/")]
    found = [*manifests(), *hostile_payloads.arrays(names), *hostile_payloads.payloads()]
    parts = (folders.no_files, folders.lost, folders.configurations, folders.records, folders.others)
    return [*found, *(case for part in parts for case in part())]


def run_command(command: str, folder: Path) -> Outcome:
    """The command on the run in this process."""
    out, begin = io.StringIO(), time.monotonic()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the largest memory so far is forgotten
    words = {
        RESUME: ["train", str(folder), "--resume", "--epochs", "3", "--no-progress"],
        EVALUATE: ["evaluate", str(folder)],
        STABILITY: ["stability", str(folder), "--samples", "2"],
        GRADIENTS: ["gradients", str(folder), "--samples", "20"],
    }
    with alarm(3 * SECONDS), contextlib.redirect_stderr(out), contextlib.redirect_stdout(io.StringIO()):
        code = _explore(folder) if command == EXPLORE else main(words[command])
    return Outcome(code, out.getvalue(), time.monotonic() - begin, _largest())


def _explore(folder: Path) -> int:
    """What `fsp explore` reads, without its browser."""
    from fsp_dynamics.explorer.session import Session

    try:
        Session.of(folder)
    except Exception as error:
        return _refuse(error)
    return 0


@contextlib.contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in the block after so many seconds."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _largest() -> float:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return float(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1e6
    return 0.0


def contents(folder: Path) -> dict[str, Any]:
    """{name: what stands there} of all that a refused command must leave alone."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        held = path.lstat()
        own = path.is_file() and not path.is_symlink() and held.st_size < 1 << 22
        found[str(path.relative_to(folder))] = (held.st_mode, path.read_bytes() if own else held.st_ino)
    found.pop(".lock", None)
    return found


def wrong(case: Case, command: str, outcome: Outcome, folder: Path, before: Any, whole: Any) -> str | None:
    """What is wrong with how a case ended; None if nothing is. before : contents of the folder.
    whole : metrics of the same run, resumed without the change.
    """
    lines = [line for line in outcome.text.splitlines() if line.startswith("fsp: ")]
    notes = [line for line in outcome.text.splitlines() if line.startswith("note: ")]
    if outcome.seconds > SECONDS or outcome.gigabytes > GIGABYTES:
        return f"{outcome.seconds:.1f} s, {outcome.gigabytes:.1f} GB"
    if outcome.code not in case.codes:
        return f"code {outcome.code}, expected {case.codes}: {outcome.text[-300:]}"
    if outcome.code and (len(lines) != 1 or "internal error" in lines[0] or "Traceback" in outcome.text):
        return f"not one line: {outcome.text[-500:]}"
    if outcome.code and not all(word in lines[0] for word in case.words):
        return f"does not name {case.words}: {lines[0]}"
    if outcome.code == 0 and case.noted and not any(word in note for word in TOLD for note in notes):
        return f"taken in silence: {outcome.text[-300:]}"
    if outcome.code == 0 and case.same and command == RESUME and folders.edited(folder) != whole:
        return "other metrics than the run that was left alone"
    if outcome.code and contents(folder) != before:
        return "what was refused was changed"
    return None if folders.precious(folder) else "what lay elsewhere was overwritten"


def try_case(case: Case, command: str, runs: dict[str, Path], place: Path, whole: dict[str, Any]) -> str | None:
    """A case and one of its commands in a fresh copy; what is wrong, or None."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(runs[case.run], place / "run")
    case.change(Bench(place / "run", runs, ("unfinished",) if case.run == "left" else ("last", "best")))
    before = contents(place / "run")
    return wrong(case, command, run_command(command, place / "run"), place / "run", before, whole[case.run])


def wholes(runs: dict[str, Path], place: Path) -> dict[str, Any]:
    """The metrics of runs that were resumed without a change."""
    found = {}
    for name in ("loop", "tied", "left", "averaged"):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(runs[name], place / "run")
        outcome = run_command(RESUME, place / "run")
        assert outcome.code == 0, outcome.text
        found[name] = folders.edited(place / "run")
    return found


def try_cases(only: str) -> int:
    """Print every case that ends wrongly and their number, which is returned."""
    failures = total = 0
    slowest, largest = 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        runs, place = make_runs(Path(folder)), Path(folder) / "copy"
        whole = wholes(runs, place)
        cases = [case for case in all_cases(runs) if only in case.name]
        for case in cases:
            for command in case.commands:
                begin, total = time.monotonic(), total + 1
                problem = try_case(case, command, runs, place, whole)
                slowest, largest = max(slowest, time.monotonic() - begin), max(largest, _largest())
                if problem:
                    failures += 1
                    print(f"WRONG {case.name} [{command}]: {problem}", flush=True)
    print(f"{len(cases)} cases, {total} commands, {failures} wrong; at most {slowest:.1f} s and {largest:.2f} GB")
    return failures


def try_flips(count: int, seed: int) -> int:
    """Print how many flipped bits of each file were taken in silence; their number in all."""
    rng, silent = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as folder:
        (run,) = [make_runs(Path(folder))["loop"]]
        payload = Bench(run).payload().relative_to(run)
        files = [
            "checkpoints/last.json",
            "checkpoints/best.json",
            str(payload),
            "config.toml",
            "metrics.jsonl",
            "probes.jsonl",
        ]
        for file in files:
            path, taken = run / file, 0
            content = path.read_bytes()
            tried = -(-count // len(files))
            for _ in range(tried):
                place = rng.randrange(len(content))
                changed = bytearray(content)
                changed[place] ^= 1 << rng.randrange(8)
                path.write_bytes(changed)
                if taken_in_silence(run):
                    taken += 1
                    print(f"SILENT {file}: byte {place}, {content[place : place + 1]!r}", flush=True)
            path.write_bytes(content)
            silent += taken
            print(f"{file}: {tried} flips, {taken} taken in silence", flush=True)
        assert taken_in_silence(run), "the run itself is taken without a word"
    print(f"{-(-count // len(files)) * len(files)} flips, {silent} taken in silence")
    return silent


def taken_in_silence(folder: Path) -> bool:
    """Whether all of a run is read, as resuming and evaluating read it, without an error or a
    note.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run = open_run(folder)
            read = [run.network("last"), run.network("best"), run.probes]
        except (ValueError, OSError, ArithmeticError):
            return False
        return bool(read) and not caught


def run(arguments: list[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("cases", "flips"))
    parser.add_argument("--only", default="", help="cases whose names hold this text")
    parser.add_argument("--count", type=int, default=10_000, help="flips")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with np.errstate(all="ignore"):
        failures = try_cases(given.only) if given.what == "cases" else try_flips(given.count, given.seed)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(run())
