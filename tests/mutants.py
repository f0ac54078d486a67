"""Planted defects: each of those in mutants.toml is put into a copy of the package, alone, and the
test named beside it must fail there and pass without it.

    make mutants                        all of them (outside the continuous integration)
    make mutants MUTANTS="-j 2 --only rho"

A defect of mutants.toml:

    name     unique; --only takes it, or the beginning of it
    file     below fsp_dynamics/
    old, new the text that is replaced; `old` occurs exactly once in the file
    test     the test that notices (a pytest address)
    means    what is wrong then, in one line
    python   true: kernels run as plain Python (NUMBA_DISABLE_JIT=1), which spares their compilation

Copies and results are kept in .mutants, so that a run which was stopped goes on where it was: a
result counts while the defect, its file and the file of its test are what they were. Exit code 0:
all killed; 1: some survived, or do not apply (the text is not there once, or the test does not
pass without the defect).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "mutants.toml"
RESULTS = ROOT / ".mutants" / "results.jsonl"
PLACES = ROOT / ".mutants" / "places"
COPIED = ("fsp_dynamics", "tests", "benchmarks", "figures", "docs")  # what tests read
ALSO = ("pyproject.toml", "setup.cfg", "constraints.txt", "README.md", "Makefile")
LIMIT = 400  # seconds for one test with a defect; one that takes longer has noticed it
KILLED, SURVIVED, NOT_APPLICABLE = "killed", "survived", "not applicable"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect; the fields are those of mutants.toml."""

    name: str
    file: str
    old: str
    new: str
    test: str
    means: str
    python: bool = False

    @property
    def path(self) -> str:
        """The file, from the root of the sources."""
        return f"fsp_dynamics/{self.file}"

    def planted(self, text: str) -> str | None:
        """The text of the file with the defect; None where it does not apply."""
        return text.replace(self.old, self.new) if text.count(self.old) == 1 and self.old != self.new else None

    def key(self) -> str:
        """Changes with the defect, its file and the file of its test."""
        parts = [repr(self).encode(), *((ROOT / name).read_bytes() for name in (self.path, self.test.split("::")[0]))]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()


def read_mutants(path: Path = LIST) -> list[Mutant]:
    """The defects of the list, in its order."""
    return [Mutant(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]]


class Workplace:
    """A copy of the sources in which one defect at a time is planted. It is made anew, but its path
    and the kernels compiled there stay, so that those which a defect leaves alone are compiled
    once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.original = folder, folder / "original"
        for name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "_build", "gallery")
            shutil.rmtree(folder / name, ignore_errors=True)
            shutil.copytree(ROOT / name, folder / name, ignore=ignored, dirs_exist_ok=True)
        for name in ALSO:
            shutil.copy2(ROOT / name, folder / name)

    def plant(self, mutant: Mutant) -> bool:
        """Whether the defect could be planted. The file as it was is kept beside the copy, which
        does not follow the sources while they are worked on.
        """
        path = self.folder / mutant.path
        text = mutant.planted(path.read_text(encoding="utf-8"))
        if text is not None:
            shutil.copy2(path, self.original)
            self._put(path, lambda: path.write_text(text, encoding="utf-8"))
        return text is not None

    def restore(self, mutant: Mutant) -> None:
        """The file as it was, with its time of change, by which compiled code is found again."""
        path = self.folder / mutant.path
        self._put(path, lambda: shutil.copy2(self.original, path))

    def _put(self, path: Path, write: Callable[[], Any]) -> None:
        write()
        for stale in (path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc"):
            stale.unlink()

    def run(self, tests: Iterable[str], python: bool, *, first: bool, limit: float) -> dict[str, str] | None:
        """{address: outcome} of these tests here, "passed", "failed", "skipped"; None past the
        limit. An address of several cases passes when all of them do. first : stop at a failure.
        """
        report, wanted = self.folder / "report.xml", list(tests)
        report.unlink(missing_ok=True)
        options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "junit_family=xunit1"]
        words = [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", *(["-x"] if first else []), *wanted]
        given = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTEST_"))}
        settings = given | {
            "PYTHONPATH": str(self.folder),
            "NUMBA_CACHE_DIR": str(self.folder / "compiled"),
            "MPLBACKEND": "Agg",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # none is needed, and they take longer than most tests
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            **({"NUMBA_DISABLE_JIT": "1"} if python else {}),
        }
        log = self.folder / "log.txt"
        with log.open("wb") as out:
            try:
                subprocess.run(words, cwd=self.folder, env=settings, stdout=out, stderr=out, timeout=limit, check=False)
            except subprocess.TimeoutExpired:
                return None
        if not report.is_file():
            return {}
        seen: dict[str, set[str]] = {}
        for case in ElementTree.parse(report).iter("testcase"):
            kinds = {each.tag for each in case}
            outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            file = case.get("file") or f"{case.get('classname', '').replace('.', '/')}.py"
            name = f"{file}::{case.get('name', '')}"
            for address in wanted:
                if name == address or name.startswith(f"{address}["):
                    seen.setdefault(address, set()).add(outcome)
        order = ("failed", "passed", "skipped")
        return {address: next(each for each in order if each in outcomes) for address, outcomes in seen.items()}


def judge(mutant: Mutant, place: Workplace) -> tuple[str, str]:
    """(killed, survived or not applicable, why) for a defect whose test passes without it."""
    if not place.plant(mutant):
        return NOT_APPLICABLE, "the text does not occur exactly once in the file"
    try:
        found = place.run([mutant.test], mutant.python, first=True, limit=LIMIT)
    finally:
        place.restore(mutant)
    if found is None:
        return KILLED, f"no end within {LIMIT} s"
    outcome = found.get(mutant.test)
    if outcome is None:
        tail = (place.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        return NOT_APPLICABLE, "the test was not run: " + " ".join(tail)
    return (KILLED, "") if outcome == "failed" else (SURVIVED, "the test passes with it")


def known_results() -> dict[str, dict[str, Any]]:
    """{key: result} of earlier runs."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
    results = [json.loads(line) for line in lines if line.endswith("}")]
    return {result["key"]: result for result in results}


def keep(result: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def without_defects(mutants: list[Mutant], place: Workplace) -> set[tuple[str, bool]]:
    """(test, python) of those that pass where nothing is planted."""
    passing = set()
    for python in (False, True):
        tests = sorted({mutant.test for mutant in mutants if mutant.python == python})
        for test, outcome in (place.run(tests, python, first=False, limit=3600) or {} if tests else {}).items():
            if outcome == "passed":
                passing.add((test, python))
    return passing


def run_all(mutants: list[Mutant], jobs: int) -> list[dict[str, Any]]:
    """A result for each, in order; those of earlier runs are taken over."""
    known, keys = known_results(), {mutant.name: mutant.key() for mutant in mutants}
    found = {mutant.name: known[keys[mutant.name]] for mutant in mutants if keys[mutant.name] in known}
    waiting = [mutant for mutant in mutants if mutant.name not in found]
    lock, places = threading.Lock(), []

    def work(mutant: Mutant) -> None:
        with lock:
            place = places.pop()
        begin = time.monotonic()
        try:
            if (mutant.test, mutant.python) in passing:
                outcome, why = judge(mutant, place)
            else:
                outcome, why = NOT_APPLICABLE, "the test does not pass without the defect"
        finally:
            with lock:
                places.append(place)
        seconds = round(time.monotonic() - begin, 1)
        result = {"name": mutant.name, "outcome": outcome, "why": why, "seconds": seconds, "key": keys[mutant.name]}
        with lock:
            found[mutant.name] = result
            if outcome != NOT_APPLICABLE:
                keep(result)
        print(f"{len(found):3}/{len(mutants)} {outcome:14} {seconds:6.1f} s  {mutant.name}  {why}", flush=True)

    if waiting:
        places += [Workplace(PLACES / str(number)) for number in range(jobs)]
        print(f"{len(waiting)} of {len(mutants)} to try; their tests without a defect first", flush=True)
        passing = without_defects(waiting, places[0])
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(work, waiting))
    return [found[mutant.name] for mutant in mutants]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Plant the defects of tests/mutants.toml, one at a time.")
    parser.add_argument("--only", action="append", metavar="NAME", help="this one, or those whose names begin so")
    parser.add_argument("-j", type=int, default=1, dest="jobs", help="so many at a time (each with a copy)")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    given = parser.parse_args(words)
    if given.fresh:
        RESULTS.unlink(missing_ok=True)
    mutants = [m for m in read_mutants() if not given.only or m.name.startswith(tuple(given.only))]
    if not mutants:
        print("no defect has such a name", file=sys.stderr)
        return 2
    results = run_all(mutants, max(1, given.jobs))
    print(f"\n{'defect':34} {'room':14} {'outcome':14} killed by")
    for mutant, result in zip(mutants, results, strict=True):
        room = mutant.file.split("/")[0].removesuffix(".py")
        print(f"{mutant.name:34} {room:14} {result['outcome']:14} {mutant.test.removeprefix('tests/')}")
    counts = {each: sum(result["outcome"] == each for result in results) for each in (KILLED, SURVIVED, NOT_APPLICABLE)}
    print(", ".join(f"{count} {each}" for each, count in counts.items()))
    for result in results:
        if result["outcome"] != KILLED:
            print(f"{result['name']}: {result['outcome']}, {result['why']}")
    return 0 if counts[KILLED] == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
