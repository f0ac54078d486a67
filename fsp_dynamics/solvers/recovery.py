"""What became of each sample of a relaxation by passes, and what is done for those that passes did
not (credibly) bring to convergence.
"""

from __future__ import annotations

import numpy as np

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.kernels.status import CONVERGED, OUT_OF_STEPS
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, residual
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance, judge, prepare
from fsp_dynamics.solvers.loop_newton import newton, stable


class Outcome:
    """One relaxation: what became of each sample so far; before the first pass, nothing.

    state, residual, status, steps : as in `equilibrium.Equilibrium`. doubts (B,) : above 0 where
    the dynamics might leave such a rest.
    """

    def __init__(self, network: Network, drive: Array, start: State, nudge: Nudge | None, tolerance: Tolerance) -> None:
        batch = len(drive)
        self.network, self.drive, self.start, self.nudge, self.tolerance = network, drive, start, nudge, tolerance
        self.state: State = tuple(np.empty_like(s, network.dtype) for s in start)
        self.residual = np.empty(batch)
        self.status = np.full(batch, OUT_OF_STEPS, np.uint8)
        self.steps = np.zeros(batch, np.int64)
        self.doubts = np.zeros(batch, np.int64)

    def reached(self, found: Equilibrium, doubts: Array) -> Outcome:
        """This outcome, with all samples where `found` says they are."""
        self.state, self.residual, self.status, self.steps, self.doubts = (
            found.state,
            found.residual,
            found.status,
            found.steps,
            doubts,
        )
        return self

    def finish(self, fallback: Solver | None) -> Equilibrium:
        """Newton's method, then the fallback, for those that are not (credibly) converged."""
        suspects = self.restless()
        if self.network.is_hard_sigmoid_loop:
            self.try_newton(suspects)
            suspects = self.restless()
        if fallback is not None and suspects.size:
            self.hand_over(fallback, suspects)
        return Equilibrium(self.state, self.residual, self.status, self.steps, beta_of(self.nudge))

    def restless(self) -> Array:
        """Sample numbers that are not (credibly) converged: out of steps, or converged with doubts and
        found unstable.
        """
        doubtful = np.flatnonzero((self.doubts > 0) & (self.status == CONVERGED))
        if doubtful.size and self.network.is_hard_sigmoid_loop:
            held = stable(self.network, tuple(s[doubtful] for s in self.state), self.nudge_of(doubtful))
            self.status[doubtful[~held]] = OUT_OF_STEPS
            self.doubts[doubtful] = 0
        return np.flatnonzero(self.status == OUT_OF_STEPS)

    def try_newton(self, rows: Array) -> None:
        """Newton's method from where the passes ended; only equilibria that are stable in time are
        taken.
        """
        if rows.size == 0:
            return
        found, steps = newton(
            self.network, self.drive[rows], tuple(s[rows] for s in self.state), self.nudge_of(rows), self.tolerance
        )
        self.steps[rows] += steps
        self.take(rows, found, stable(self.network, found, self.nudge_of(rows)))

    def hand_over(self, fallback: Solver, rows: Array) -> None:
        """Integrate these samples from their start."""
        start = tuple(s[rows] for s in self.start)
        found = fallback.relax(self.network, self.drive[rows], start, self.nudge_of(rows), self.tolerance)
        self.steps[rows] += found.steps
        self.take(rows, found.state, np.ones(rows.size, bool))

    def take(self, rows: Array, state: State, accepted: Array) -> None:
        """Keep these states (A, n_k) for the rows that are accepted (A,), judged by the field
        there.
        """
        rows, state = rows[accepted], tuple(s[accepted] for s in state)
        for kept, new in zip(self.state, state, strict=True):
            kept[rows] = new
        self.residual[rows] = residual(self.network, self.drive[rows], state, self.nudge_of(rows))
        norm = np.sqrt(sum((s.astype(np.float64) ** 2).sum(1) for s in state))
        self.status[rows] = judge(self.residual[rows], norm, self.tolerance)

    def nudge_of(self, rows: Array) -> Nudge | None:
        """The nudge of these samples."""
        return None if self.nudge is None else self.nudge.rows(rows)


def recover(
    network: Network,
    drive: Array,
    start: State | None,
    reached: Equilibrium,
    doubts: Array,
    nudge: Nudge | None,
    tolerance: Tolerance,
    fallback: Solver | None,
) -> Equilibrium:
    """What is left for samples that passes brought to `reached`: a look at the doubtful, Newton's
    method, then the fallback from `start`.

    drive (B, n_1); doubts (B,) as in `Outcome`. Raises as `equilibrium.prepare` does.
    """
    outcome = Outcome(network, drive, prepare(network, drive, start, nudge), nudge, tolerance)
    return outcome.reached(reached, doubts).finish(fallback)


def check_passes(max_passes: int, memory: int, fallback: Solver | None) -> None:
    """Refuse settings that no fixed-point solver can have. Raises ConfigurationError."""
    for name, value in (("max_passes", max_passes), ("memory", memory)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ConfigurationError(f"{name} = {value!r}, expected a whole number, 1 or more")
    if not (fallback is None or isinstance(fallback, Solver)):
        raise ConfigurationError(f"fallback = {fallback!r}, expected a solver or None")
