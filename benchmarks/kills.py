"""Whether a run that is killed, again and again, ends as one that never was.

    python -m benchmarks.kills --kills 200 --out kills            # hours; called again it goes on
    python -m benchmarks.kills --kills 20 --every 40 --out short  # a look

Small trainings, with momentum and random sign, whose state is saved after every batch, on both
backends. Each is killed (SIGKILL) at random moments until it ends, and at every n-th call that
changes files: killed there, killed with the file half written, or refused by the disk. Then it is
resumed, and its folder compared with that of a run that was left alone.

Trainings run in forks of a process in which everything is compiled. Trials are lines of
OUT/trials.jsonl; those that stand there are not repeated. The exit code is 1 if a folder differs.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.util
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TIMES = {"seconds", "images_per_second", "started"}
# of environment.json: how often and how a run was taken up says nothing of its result
HISTORY = {"resumed", "command", "arguments"}
# of a run folder, and what follows from it or from times
IDENTITY = {"identity", "records", "manifest_sha256"}
IGNORED = TIMES | HISTORY | IDENTITY

SMALL: dict[str, Any] = {
    "data": {"name": "digits", "limit": 120, "validation": 200},
    "network": {"hidden": [12], "loop_scale": 0.3},
    "learning": {
        "epochs": 3,
        "batch": 20,
        "output_step": 0.2,
        "momentum": 0.5,
        "phases": "random-sign",
        "beta": 0.1,
        "rates": {"input": 20.0, "forward": [7.0], "loop": 0.5},
    },
    "solver": {"absolute": 1e-4},
    "probes": {"every": 2, "samples": 20, "keep": 2},
}
RUNS: dict[str, dict[str, Any]] = {"numba": {}, "torch": {"backend": "torch", "device": "cpu"}}
CHUNK = 20  # images between two places where a run may be left
ALWAYS = 1e-9  # minutes
KINDS = ("killed", "torn", "full")
CALLS = ("open", "fsync", "replace", "unlink", "mkdir", "rmdir")
DISK = 7  # exit code
PATIENCE = 120.0  # seconds


def main(words: list[str] | None = None) -> int:
    given = _parser().parse_args(words)
    names = [name for name in given.runs or RUNS if name != "torch" or importlib.util.find_spec("torch")]
    trials = Trials(given.out)
    for name in names:
        prepare(name)
        whole, seconds = _unbroken(name, trials.out)
        with _fresh(trials.out / f"{name}-count") as folder:
            total = calls_of(name, folder)
        for kind, number in itertools.product(KINDS, range(1 + given.first, total + 1, given.every)):
            key = f"{name} {kind} at file call {number}"
            if key not in trials.known:
                with _fresh(trials.out / "trial") as folder:
                    trials.add(key, name, kind, 1, *at_file_call(name, folder, whole, kind, number))
        left = given.kills // len(names) - trials.kills(name)
        while left > 0:
            key = f"{name} killed at random {time.time_ns()}"
            with _fresh(trials.out / "trial") as folder:
                count, found = at_random(name, folder, whole, seconds, min(left, given.most))
            trials.add(key, name, "random", count, "resumed", found)
            left -= count
    return trials.report()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="at random moments, over all runs (default: 200)")
    parser.add_argument("--most", type=int, default=5, help="kills of one run before it is let end (default: 5)")
    parser.add_argument("--every", type=int, default=1, help="file calls from one trial to the next (default: 1)")
    parser.add_argument("--first", type=int, default=0, help="file calls before the first trial (default: 0)")
    parser.add_argument("--runs", nargs="*", choices=list(RUNS), help="which (default: all)")
    parser.add_argument("--out", type=Path, default=Path("kills"), help="where trials are kept (default: kills)")
    return parser


class Trials:
    """The trials of a folder: those that are known, and how they ended."""

    def __init__(self, out: Path) -> None:
        self.out, self.file = out, out / "trials.jsonl"
        out.mkdir(parents=True, exist_ok=True)
        lines = self.file.read_text().splitlines() if self.file.is_file() else []
        self.known: dict[str, dict[str, Any]] = {each["trial"]: each for each in map(json.loads, lines)}

    def add(self, key: str, run: str, kind: str, kills: int, ended: str, found: list[str]) -> None:
        """One more trial, now on the disk."""
        self.known[key] = {
            "trial": key, "run": run, "kind": kind, "kills": kills, "ended": ended, "differences": found,
        }  # fmt: skip
        with self.file.open("a") as file:
            file.write(json.dumps(self.known[key]) + "\n")
        if found:
            print(f"{key}: {'; '.join(found)}", file=sys.stderr, flush=True)

    def kills(self, run: str) -> int:
        """Random kills of a run so far."""
        return sum(each["kills"] for each in self.known.values() if (each["run"], each["kind"]) == (run, "random"))

    def report(self) -> int:
        """A table of all trials; 1 if one of them differs."""
        for run, kind in sorted({(each["run"], each["kind"]) for each in self.known.values()}):
            mine = [each for each in self.known.values() if (each["run"], each["kind"]) == (run, kind)]
            ended = ", ".join(
                f"{count} {how}" for how, count in sorted(Counter(each["ended"] for each in mine).items())
            )
            wrong = sum(bool(each["differences"]) for each in mine)
            kills = sum(each["kills"] for each in mine)
            print(f"{run:8s} {kind:8s} {kills:5d} in {len(mine):4d} folders ({ended}): {wrong} differ")
        return int(any(each["differences"] for each in self.known.values()))


# One run


def learn(name: str, out: Path) -> None:
    """Train in `out`, or go on there."""
    from fsp_dynamics.experiments.runner import train

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(SMALL, out=out, progress=False, resume=True, save_minutes=ALWAYS, **RUNS[name])


def prepare(name: str) -> None:
    """Let engines pause often, and compile everything that the run needs, in this process."""
    from fsp_dynamics.training import loop_engine

    loop_engine.CHUNK = loop_engine.TRIAL = CHUNK
    if name == "torch":
        from fsp_dynamics.torch_backend import engine

        engine.CHUNK = CHUNK
    with _fresh(Path.cwd() / f".kills-{os.getpid()}") as folder:
        learn(name, folder)


def in_fork(work: Callable[[], None], seconds: float = PATIENCE) -> int:
    """The exit status of a fork of this process that does that work, and is killed after so many
    seconds: 0, DISK for an error of the disk, 1 for any other, negative for a signal.
    """
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        except OSError:
            code = DISK
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _unbroken(name: str, out: Path) -> tuple[Path, float]:
    """The folder of the run that is left alone, and how long it took."""
    whole = out / f"{name}-whole"
    shutil.rmtree(whole, ignore_errors=True)
    begin = time.monotonic()
    code = in_fork(lambda: learn(name, whole))
    if code:
        raise SystemExit(f"the run {name} failed without any kill: {code}")
    return whole, time.monotonic() - begin


def at_random(name: str, out: Path, whole: Path, seconds: float, most: int) -> tuple[int, list[str]]:
    """Kill the run up to `most` times at random moments of the time that it takes, then let it end:
    (kills, differences).
    """
    kills = 0
    while kills < most:
        if in_fork(lambda: learn(name, out), random.uniform(0, 1.1 * seconds)) != -signal.SIGKILL:
            break
        kills += 1
    return kills, _ended(name, out, whole)


def at_file_call(name: str, out: Path, whole: Path, kind: str, number: int) -> tuple[str, list[str]]:
    """Let the run end in one of KINDS at its file call of that number, then resume it: (how it
    ended, differences).
    """

    def work() -> None:
        with file_calls(lambda call, count, handle: _fail(kind, call, handle) if count == number else None):
            learn(name, out)

    code = in_fork(work)
    ended = {0: "went on", DISK: "disk error", -signal.SIGKILL: "killed"}.get(code, f"code {code}")
    wrong = [] if code in (0, DISK, -signal.SIGKILL) else [f"ended with {code}"]
    return ended, wrong + _ended(name, out, whole)


def calls_of(name: str, out: Path) -> int:
    """How many file calls the run makes."""
    read, write = os.pipe()

    def work() -> None:
        count = 0

        def note(call: str, number: int, handle: Any) -> None:
            nonlocal count
            count = number

        with file_calls(note):
            learn(name, out)
        os.write(write, str(count).encode())

    if in_fork(work):
        raise SystemExit(f"the run {name} failed where its file calls were counted")
    return int(os.read(read, 100))


@contextlib.contextmanager
def file_calls(note: Callable[[str, int, Any], None]) -> Iterator[None]:
    """Call note(name, how many so far, first argument) before each of CALLS that may change files;
    it may raise.
    """
    count, real = 0, {name: getattr(os, name) for name in CALLS}

    def watched(name: str) -> Callable[..., Any]:
        def call(first: Any, *more: Any, **named: Any) -> Any:
            nonlocal count
            reads = name == "open" and not (more and more[0] & (os.O_WRONLY | os.O_RDWR))
            if not reads:
                count += 1
                note(name, count, first)
            return real[name](first, *more, **named)

        return call

    for name in CALLS:
        setattr(os, name, watched(name))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def _fail(kind: str, call: str, handle: Any) -> None:
    if kind == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if kind == "torn" and call == "fsync":
        with contextlib.suppress(OSError):  # a folder
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def _ended(name: str, out: Path, whole: Path) -> list[str]:
    code = in_fork(lambda: learn(name, out))
    return [f"resuming ended with {code}"] if code else differences(whole, out)


@contextlib.contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """A folder that does not exist, and is removed afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Run folders


def differences(one: Path, other: Path) -> list[str]:
    """What distinguishes two run folders beside times and the history of their sessions, a line
    each; files that are no text byte by byte.
    """
    here, there = (_files(folder) for folder in (one, other))
    found = [f"only in {one if name in here else other}: {name}" for name in sorted(here ^ there)]
    for name in sorted(here & there):
        first, second = (_content(folder / name) for folder in (one, other))
        if first != second:
            found.append(f"{name} differs: {_first_difference(first, second)}")
    return found


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def _content(path: Path) -> Any:
    """Bytes, or records without what may differ."""
    content = path.read_bytes()
    if path.suffix == ".json":
        return _timeless(json.loads(content))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in content.splitlines()]
    return content


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in IGNORED}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _first_difference(one: Any, other: Any) -> str:
    if isinstance(one, bytes):
        return f"{len(one)} and {len(other)} bytes"
    if isinstance(one, list):
        pairs = [f"{a} and {b}" for a, b in zip(one, other, strict=False) if a != b]
        return pairs[0][:200] if pairs else f"{len(one)} and {len(other)} records"
    changed = (key for key in one | other if one.get(key) != other.get(key))
    return ", ".join(f"{key}: {one.get(key)} and {other.get(key)}" for key in changed)[:200]


if __name__ == "__main__":
    raise SystemExit(main())
