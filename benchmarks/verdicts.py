"""What the dynamics do with a state that a solver returned: whether they come back to it after a
perturbation, settle from where they would have started, or oscillate, and with what period.

All of it integrates eq. 13 with benchmarks/independent.py; the Jacobian only says how long, how
exactly and in which direction besides the random ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from benchmarks.independent import Array, Systems, Watch, integrate

SIZES = (1e-3, 1e-6)  # of perturbations, in the 2-norm over all units
RETURNED, LEFT, MARGINAL = 0, 1, 2
DIRECTIONS = 5  # the last one along the most unstable mode
NEAR, FAR = 0.01, 10.0  # of the perturbation: returned, left
FIRST, LONGEST = 30.0, 10_000.0  # slowest time constants that a path is followed
ENOUGH = 15.0  # time constants of the slowest mode, in which it decides
CLEAR = 1e-3  # growth or decay per slowest time constant that the first round measures
TRIAL = 100.0  # slowest time constants in which a path settles, or is seen to be settling
SETTLING = 3000.0  # those in which one that is settling does so
STEPS = 200_000
REPEATS = 0.02  # of how far a path goes: how well a period repeats another
STANDSTILL = 1e-9  # ||field / kappa|| of a path that has settled


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """What became of B states.

    after (2, B) : RETURNED, LEFT or MARGINAL after perturbations of each of SIZES, the worst of all
    directions. abscissa (B,) : largest real part of the Jacobian's eigenvalues.
    """

    after: Array
    abscissa: Array

    @property
    def false(self) -> Array:
        """(B,) left after the small perturbation: no equilibrium of the dynamics."""
        return self.after[1] == LEFT

    @property
    def small_basin(self) -> Array:
        """(B,) left after the large perturbation alone."""
        return (self.after[0] == LEFT) & ~self.false

    @property
    def marginal(self) -> Array:
        """(B,) neither left nor returned."""
        return (self.after == MARGINAL).any(0) & ~self.false & ~self.small_basin


def perturbed(systems: Systems, states: Array, seeds: Sequence[Any]) -> Verdicts:
    """Whether the dynamics come back to the `states` (B, N) after perturbations of SIZES in random
    directions, the same for the same seed, and in the most unstable one.

    A path is followed for FIRST slowest time constants. Where that does not decide, by the path
    itself or against what the Jacobian says, it is followed again, a hundred times as exactly,
    until the slowest mode has had the time to decide, LONGEST at most.
    """
    batch = len(states)
    values, vectors = np.linalg.eig(systems.jacobian(states))
    worst = values.real.argmax(1)
    abscissa = values.real[np.arange(batch), worst]
    away = _directions(systems, states, seeds, vectors.real[np.arange(batch), :, worst])
    starts = np.concatenate([states[:, None] + size * away for size in SIZES], axis=1)
    if systems.kept:
        np.clip(starts, 0, 1, out=starts)
    size, slow = np.repeat(SIZES, DIRECTIONS), 1 / systems.kappa.min((1, 2))
    growth = abscissa * slow

    distance, returned = _follow(systems, states, starts, size, FIRST * slow, 1e-3)
    decided = returned | ((distance > FAR * size) & (growth > CLEAR)[:, None])
    again = np.flatnonzero(~decided.all(1) | (np.abs(growth) < CLEAR))
    for horizon in (ENOUGH / np.maximum(np.abs(growth), ENOUGH / LONGEST), np.full(batch, LONGEST)):
        if again.size:
            until = np.maximum(horizon, FIRST)[again] * slow[again]
            distance[again], returned[again] = _follow(
                systems.rows(again), states[again], starts[again], size, until, 1e-5
            )
        decided = returned | (distance > FAR * size)
        again = again[~decided[again].all(1) & (np.maximum(horizon, FIRST) < LONGEST)[again]]
    verdict = np.where(returned, RETURNED, np.where(distance > FAR * size, LEFT, MARGINAL))
    split = verdict.reshape(batch, len(SIZES), DIRECTIONS)
    return Verdicts(np.where((split == LEFT).any(2), LEFT, split.max(2)).T, abscissa)


def _directions(systems: Systems, states: Array, seeds: Sequence[Any], mode: Array) -> Array:
    """(B, DIRECTIONS, N) of norm 1: random ones and the `mode`; inwards where a unit is at a bound,
    and 0 for the silent units of the padding.
    """
    batch, width = states.shape
    away = np.zeros((batch, DIRECTIONS, width))
    for row, seed in enumerate(seeds):
        away[row, :-1, : systems.units[row]] = np.random.default_rng(seed).normal(
            size=(DIRECTIONS - 1, systems.units[row])
        )
    away[:, -1] = mode
    if systems.kept:
        away = np.where(states[:, None] <= 0, np.abs(away), np.where(states[:, None] >= 1, -np.abs(away), away))
    return away / np.linalg.norm(away, axis=2, keepdims=True)


def _follow(
    systems: Systems, states: Array, starts: Array, size: Array, until: Array, tolerance: float
) -> tuple[Array, Array]:
    """How far the paths from `starts` (B, D, N) are from the states (B, N) in the end, and whether
    they came back within NEAR of the perturbations `size` (D,); both (B, D).
    """

    def measure(rows: Array, s: Array, f: Array) -> tuple[Array, Array]:
        gap = s - states[rows, None]
        distance = np.sqrt(np.einsum("bdn,bdn->bd", gap, gap))
        return np.maximum(distance, NEAR * size), distance <= NEAR * size

    paths = integrate(systems, starts, until, measure, tolerance=tolerance, max_steps=STEPS)
    return np.linalg.norm(paths.states - states[:, None], axis=2), paths.done


def settled(systems: Systems, starts: Array) -> tuple[Array, Array]:
    """Whether the dynamics come to a standstill from the `starts` (B, N): (B,) bool, and where they
    have come (B, N).

    They are followed for TRIAL slowest time constants, twice; then, those whose largest field still
    falls from the second half of one to that of the other, for SETTLING more. Those that settle are
    followed again, a thousand times as exactly: a path that errors brought into another basin is
    none of theirs.
    """
    slow = 1 / systems.kappa.min((1, 2))
    ends, still = starts[:, None].copy(), np.zeros(len(starts), bool)
    highest = np.zeros((2, len(starts)))
    for window in range(2):
        _run(systems, ends, still, np.flatnonzero(~still), TRIAL * slow, 1e-3, highest[window])
    _run(systems, ends, still, np.flatnonzero(~still & (highest[1] < 0.7 * highest[0])), SETTLING * slow, 1e-3)
    again = np.flatnonzero(still)
    ends[again], still[again] = starts[again, None], False
    _run(systems, ends, still, again, (2 * TRIAL + SETTLING) * slow, 1e-6)
    return still, ends[:, 0]


def _run(
    systems: Systems,
    ends: Array,
    still: Array,
    chosen: Array,
    until: Array,
    tolerance: float,
    highest: Array | None = None,
) -> None:
    """Follow the `chosen` networks from their `ends`, which are moved on, with `still`; `highest`
    is set to their largest ||field / kappa|| in the second half of the time.
    """
    if not chosen.size:
        return
    kappa, part = systems.kappa[chosen], until[chosen]

    def size_of(rows: Array, f: Array) -> Array:
        return np.sqrt(np.square(f / kappa[rows]).sum(2))

    def measure(rows: Array, s: Array, f: Array) -> tuple[Array, Array]:
        size = size_of(rows, f)
        return np.clip(size, STANDSTILL, 1.0), size <= STANDSTILL

    def watch(rows: Array, t: Array, s: Array, f: Array) -> None:
        if highest is not None:
            late = np.where(t > part[rows, None] / 2, size_of(rows, f), 0.0)[:, 0]
            highest[chosen[rows]] = np.maximum(highest[chosen[rows]], late)

    paths = integrate(
        systems.rows(chosen), ends[chosen], part, measure, tolerance=tolerance, max_steps=STEPS, watch=watch
    )
    ends[chosen], still[chosen] = paths.states, paths.done[:, 0]


def periods(systems: Systems, states: Array, expected: Array, *, transient: float = 0.0) -> Array:
    """(B,) the shortest time after which the path from each of the `states` (B, N) repeats itself,
    within a fiftieth of how far it goes; NaN without one below 1.5 times the `expected` (B,).

    It is looked for after ten of these, and after `transient` slowest time constants.
    """

    def measure(rows: Array, s: Array, f: Array) -> tuple[Array, Array]:
        return np.ones(s.shape[:2]), np.zeros(s.shape[:2], bool)

    def follow(states: Array, until: Array, watch: Watch | None = None) -> Array:
        return integrate(systems, states, until, measure, tolerance=1e-6, max_steps=STEPS, watch=watch).states

    def keep(rows: Array, t: Array, s: Array, f: Array) -> None:
        for place, row in enumerate(rows):
            if t[place, 0] > path[row][-1][0]:
                path[row].append((t[place, 0], s[place, 0], f[place, 0]))

    start = follow(states[:, None], np.maximum(10 * expected, transient / systems.kappa.min((1, 2))))
    field = systems.field(start)
    path = [[(0.0, start[row, 0], field[row, 0])] for row in range(len(states))]
    follow(start, 3.0 * expected, keep)
    return np.array([_shortest(*map(np.array, zip(*each, strict=True))) for each in path])


def _shortest(t: Array, s: Array, f: Array) -> float:
    """The period of a path, up to half of its length: times (T,), states and fields (T, N)."""
    fine = np.linspace(0, t[-1], 20_001)
    path = CubicHermiteSpline(t, s, f)(fine)
    half = len(fine) // 2
    gap = np.linalg.norm(path - path[0], axis=1)
    low = gap[1:-1] <= np.minimum(gap[:-2], gap[2:])
    for lag in 1 + np.flatnonzero(low & (gap[1:-1] < gap.max() * REPEATS)):
        if lag > half:
            break
        left = gap[:lag].max() > gap.max() / 4
        if left and np.linalg.norm(path[lag : lag + half] - path[:half], axis=1).max() < gap.max() * REPEATS:
            return float(fine[lag])
    return np.nan
