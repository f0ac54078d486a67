"""A census of false equilibria: thousands of random networks, checked without the package's code.

    python -m benchmarks.equilibria --networks 8000 --out FOLDER
    python -m benchmarks.equilibria --networks 400 --solver picard --kinds tied --out FOLDER

The package relaxes each network on one image, in float64 at its default tolerance: the free phase
from zeros, then the nudged phase from the free equilibrium. Then, by benchmarks/verdicts.py, which
integrates eq. 13 on its own (benchmarks/independent.py):

converged    the state is moved by 1e-3 and by 1e-6, in four random directions and in the most
             unstable one, and followed. `false`: it is left after 1e-6 already. `small basin`:
             after 1e-3 alone. `marginal`: in 10,000 of its slowest time constants neither left nor
             returned to
oscillates   the path from the start must repeat itself in the period reported, within 5 %: `period
             right`. `other cycle`: it comes to another cycle, but that from the state returned has
             the period
unconverged  whether the path from the start comes to a standstill: `settles`. A hard sigmoid's path
             is that of the rate form, which adaptive solvers integrate; `settles projected`: it
             does in the projected form alone

The networks are those of benchmarks/kinds.py; network i of a kind is always the same. Results are
kept in FOLDER, 500 networks in a file, as they come: the same command goes on where it was
interrupted. When all are there, a summary is written: benchmarks/results/equilibria.json if it has
all kinds, by the default solver. Exit code 1 if there are false ones.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fsp_dynamics
from benchmarks.independent import Array, Systems, assemble
from benchmarks.kinds import KINDS, Case, draw
from benchmarks.verdicts import TRIAL, periods, perturbed, settled
from fsp_dynamics.models.network import Network
from fsp_dynamics.solvers import SOLVERS, make_solver, relax
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver

METHODS = ("broyden", "newton", "anderson", "picard")
CHUNK = 500
WIDTHS = 6  # networks whose units fill up the same multiple of this are followed together
TOGETHER = 100  # unconverged samples that are followed together
PERIOD = 0.05  # by how much of itself a period may be wrong
SUMMARY = Path(__file__).parent / "results" / "equilibria.json"
DECIDES = ("models", "kernels", "solvers", "torch_backend", "analysis")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What the package returned for one phase of a case. start (N,) : where its dynamics begin."""

    case: Case
    nudged: bool
    start: Array
    found: Equilibrium

    @property
    def state(self) -> Array:
        return np.concatenate(self.found.state, axis=1)[0]

    @property
    def status(self) -> str:
        return str(self.found.endings[0])

    @property
    def phase(self) -> str:
        return "nudged" if self.nudged else "free"

    @property
    def period(self) -> float:
        """NaN unless the package reported one."""
        return np.nan if self.found.period is None else float(self.found.period[0])

    @property
    def hard(self) -> bool:
        return self.case.network.rho.projected


def solver_of(name: str) -> Solver:
    """The solver, or the fixed-point method, of that name."""
    return make_solver("fixed_point", method=name) if name in METHODS else make_solver(name)


def applies(name: str, network: Network) -> bool:
    """Whether the solver of that name takes the network."""
    return name not in ("broyden", "newton") or network.is_hard_sigmoid_loop


def solve(case: Case, solver: Solver | None) -> list[Sample]:
    """The free phase, and the nudged one from its equilibrium, if it has one."""
    try:
        free = relax(case.network, case.images, solver=solver)
        samples = [Sample(case, False, np.zeros(sum(case.network.sizes[1:])), free)]
        if free.converged[0]:
            nudged = relax(case.network, case.images, nudge=case.nudge(), start=free, solver=solver)
            samples.append(Sample(case, True, samples[0].state, nudged))
    except Exception as error:
        error.add_note(f"network {case.number} of kind {case.kind!r}: benchmarks.equilibria.draw")
        raise
    return samples


def check_converged(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Those that the dynamics leave, or nearly do."""
    notes = []
    for some in _alike([s for s in samples if s.found.converged[0]]):
        seeds = [(s.case.number, s.nudged) for s in some]
        verdicts = perturbed(_systems(some), _stacked([s.state for s in some]), seeds)
        for row, sample in enumerate(some):
            for what in ("false", "small_basin", "marginal"):
                if getattr(verdicts, what)[row]:
                    notes.append(_note(sample, what.replace("_", " "), abscissa=float(verdicts.abscissa[row])))
    return notes


def check_unconverged(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Those whose path from the start comes to a standstill, and those with a period reported."""
    ordered = sorted(samples, key=lambda s: (s.hard, len(s.start)))
    few = [ordered[begin : begin + TOGETHER] for begin in range(0, len(ordered), TOGETHER)]
    parts = [[s for s in some if s.hard == hard] for some in few for hard in (True, False)]
    return [note for part in parts if part for note in _check_paths(part)]


def _check_paths(samples: list[Sample]) -> list[dict[str, Any]]:
    """The notes of unconverged samples that are all smooth or all hard."""
    notes = []
    for rate in (True, False)[: 1 + samples[0].hard]:  # a smooth rho has one form
        systems = _systems(samples, rate)
        still, ends = settled(systems, _stacked([s.start for s in samples]))
        what = "settles" if rate else "settles projected"
        notes += [_note(sample, what) for sample, now in zip(samples, still, strict=True) if now]
        if rate:
            notes += _check_periods(samples, systems, ends, still)
        samples = [sample for sample, now in zip(samples, still, strict=True) if not now]
        if not samples:
            break
    return notes


def _check_periods(samples: Sequence[Sample], systems: Systems, ends: Array, still: Array) -> list[dict[str, Any]]:
    """The periods reported beside those measured from the `ends` of the paths on that are not
    `still`; where they differ, beside those of paths that are followed more exactly from the start;
    and in the end of those from the state that the package returned.
    """
    reported = np.array([s.period for s in samples])
    left = np.flatnonzero(np.isfinite(reported) & ~still)
    notes = []
    for what, states, transient in (
        ("period right", ends, 0.0),
        ("period right", _stacked([s.start for s in samples]), 2 * TRIAL),
        ("other cycle", _stacked([s.state for s in samples]), 0.0),
    ):
        measured = periods(systems.rows(left), states[left], reported[left], transient=transient) if left.size else left
        right = np.abs(reported[left] - measured) <= PERIOD * measured
        facts = [{"reported": reported[row], "measured": one} for row, one in zip(left, measured, strict=True)]
        notes += [_note(samples[row], what, **facts[place]) for place, row in enumerate(left) if right[place]]
        left, facts = left[~right], [fact for fact, now in zip(facts, right, strict=True) if not now]
    return notes + [_note(samples[row], "period wrong", **fact) for row, fact in zip(left, facts, strict=True)]


def _note(sample: Sample, what: str, **facts: float) -> dict[str, Any]:
    facts = {name: float(value) for name, value in facts.items()}
    return {"number": sample.case.number, "phase": sample.phase, "what": what, "status": sample.status, **facts}


def _alike(samples: Sequence[Sample]) -> Iterable[list[Sample]]:
    """Samples that are followed together: of one form and about the same size."""
    groups: dict[tuple[bool, int], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.hard, -(-len(sample.start) // WIDTHS)), []).append(sample)
    return groups.values()


def _systems(samples: Sequence[Sample], rate: bool = False) -> Systems:
    return assemble([s.case for s in samples], [s.nudged for s in samples], rate=rate)


def _stacked(states: Sequence[Array]) -> Array:
    """Flat states, padded with zeros, (B, N)."""
    out = np.zeros((len(states), max(map(len, states))))
    for row, state in zip(out, states, strict=True):
        row[: len(state)] = state
    return out


def solve_all(kind: str, numbers: Iterable[int], name: str = "default", solver: Solver | None = None) -> list[Sample]:
    """The samples of the networks that the solver of that name takes; `solver` in its place."""
    solver = solver or (None if name == "default" else solver_of(name))
    cases = [draw(kind, number) for number in numbers]
    return [sample for case in cases if applies(name, case.network) for sample in solve(case, solver)]


def chunk(kind: str, numbers: range, name: str = "default", solver: Solver | None = None) -> dict[str, Any]:
    """What is kept of some networks: counts by status, notes on single samples, and the processor's
    seconds.
    """
    begin = time.process_time()
    samples = solve_all(kind, numbers, name, solver)
    solved = time.process_time()
    notes = check_converged(samples)
    followed = time.process_time()
    notes += check_unconverged([s for s in samples if not s.found.converged[0]])
    return {
        "status": dict(Counter(s.status for s in samples)),
        "notes": notes,
        "seconds": {
            "package": solved - begin,
            "converged": followed - solved,
            "unconverged": time.process_time() - followed,
        },
    }


class Folder:
    """Where the results of one solver are kept, a JSON file for each chunk of a kind. Refuses
    (SystemExit) a folder that holds those of another solver or of other sources.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, settings = path, {"solver": name, "sources": sources()}
        path.mkdir(parents=True, exist_ok=True)
        file = path / "settings.json"
        if not file.exists():
            _write(file, settings)
        for key, value in json.loads(file.read_text()).items():
            if value != settings[key]:
                raise SystemExit(
                    f"{file}: {key} = {value}, and now {settings[key]}; results of the two do not mix: "
                    "give another --out, or remove the folder"
                )

    def get(self, name: str, compute: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """What is kept under the name, or else computed and kept; and whether it was computed."""
        file = self.path / f"{name}.json"
        if file.exists():
            return json.loads(file.read_text()), False
        found = compute()
        _write(file, found)
        return found, True


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(file)


def sources() -> str:
    """SHA-256 of the package's sources that decide an equilibrium."""
    package, found = Path(fsp_dynamics.__file__).parent, hashlib.sha256()
    for file in sorted(file for part in DECIDES for file in (package / part).rglob("*.py")):
        found.update(str(file.relative_to(package)).encode() + file.read_bytes())
    return found.hexdigest()[:16]


def census(
    kinds: Sequence[str], networks: int, name: str, folder: Folder, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """The summary of all kinds; what the folder holds already is not computed again."""
    found = {kind: _census_of(kind, networks, name, folder, say) for kind in kinds}
    return {"solver": name, "networks": networks, "sources": sources(), "kinds": found}


def _census_of(kind: str, networks: int, name: str, folder: Folder, say: Callable[[str], None]) -> dict[str, Any]:
    place, parts = kind.replace(" ", "-"), []
    for start in range(0, networks, CHUNK):
        numbers = range(start, min(start + CHUNK, networks))
        compute = functools.partial(chunk, kind, numbers, name)
        part, new = folder.get(f"{place}/{numbers.start}-{numbers.stop}", compute)
        parts.append(part)
        if new:
            rate = sum(part["status"].values()) / max(sum(part["seconds"].values()), 1e-9)
            say(f"{kind}: {numbers.stop} of {networks} networks; {rate:.0f} samples per second of the processor")
    summary = counted(parts)
    say(f"{kind}: {', '.join(f'{count} {what}' for what, count in summary['counts'].items())}")
    return summary


def counted(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts of a kind, the notes on its samples, and the processor's seconds."""
    status: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for part in parts:
        status.update(part["status"])
        seconds.update(part["seconds"])
    notes = [note for part in parts for note in part["notes"]]
    counts = {"samples": status.total(), **status, "false": 0, **Counter(note["what"] for note in notes)}
    kept = [note for note in notes if note["what"] != "period right"]
    return {"counts": counts, "seconds": {k: round(v, 1) for k, v in seconds.items()}, "notes": kept}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equilibria", description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=8000, help="of each kind (8000)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--solver", choices=("default", *SOLVERS, *METHODS), default="default")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; goes on with what it holds")
    parser.add_argument("--summary", type=Path, help=f"the summary ({SUMMARY} of all kinds by the default solver)")
    given = parser.parse_args(arguments)
    if given.networks < 1:
        parser.error(f"--networks {given.networks}, expected 1 or more")
    folder = Folder(given.out, given.solver)
    summary = census(given.kinds, given.networks, given.solver, folder, lambda line: print(line, flush=True))
    whole = given.solver == "default" and set(given.kinds) == set(KINDS)
    _write(given.summary or (SUMMARY if whole else given.out / "summary.json"), summary)
    false = sum(kind["counts"]["false"] for kind in summary["kinds"].values())
    if false:
        print(f"{false} converged samples are no equilibria of the dynamics", file=sys.stderr)
    return int(false > 0)


if __name__ == "__main__":
    sys.exit(main())
