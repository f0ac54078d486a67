"""Recovery: a second method for samples whose passes did not converge, or at an equilibrium that is
not stable. All solvers and engines use this one.
"""

from __future__ import annotations

import numpy as np

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.kernels.heed import heed
from fsp_dynamics.kernels.status import CONVERGED, OSCILLATES, OUT_OF_STEPS
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, residual, rows_of, state_norm
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance, judge, prepare
from fsp_dynamics.solvers.loop_newton import newton
from fsp_dynamics.solvers.stability import always_stable, growing_units, silent_layers, stable


class Recovery:
    """The state of a relaxation by passes, and the methods for what they did not solve; before the
    first pass every sample is OUT_OF_STEPS.

    state, residual, status, steps, period : as in `equilibrium.Equilibrium`. doubts (B,) : above 0
    where the passes leave a doubt that the equilibrium is stable.
    """

    def __init__(self, network: Network, drive: Array, start: State, nudge: Nudge | None, tolerance: Tolerance) -> None:
        batch = len(drive)
        self.network, self.drive, self.start, self.nudge, self.tolerance = network, drive, start, nudge, tolerance
        self.state: State = tuple(np.empty_like(s, network.dtype) for s in start)
        self.residual = np.empty(batch)
        self.status = np.full(batch, OUT_OF_STEPS, np.uint8)
        self.steps = np.zeros(batch, np.int64)
        self.doubts = np.zeros(batch, np.int64)
        self.period = np.full(batch, np.nan)

    def set_reached(self, reached: Equilibrium, doubts: Array) -> None:
        """Take over what passes reached for all samples."""
        self.state, self.residual, self.status = reached.state, reached.residual, reached.status
        self.steps, self.doubts = reached.steps, doubts

    def finish(self, fallback: Solver | None) -> Equilibrium:
        """Newton's method (loops with a hard sigmoid), then the fallback, for those that have not
        (credibly) converged.
        """
        self.doubt_states()
        rows = self.unconverged()
        if self.network.is_hard_sigmoid_loop:
            self.apply_newton(rows)
            rows = self.unconverged()
        if fallback is not None and rows.size:
            self.apply_fallback(fallback, rows)
        period = self.period if (self.status == OSCILLATES).any() else None
        return Equilibrium(self.state, self.residual, self.status, self.steps, beta_of(self.nudge), period)

    def doubt_states(self) -> None:
        """Raise a doubt about states at which passes cannot see what grows: a smooth unit that
        amplifies its own deviation, units above a silent layer.
        """
        if self.network.rho.projected:
            self.doubts = self.doubts + silent_layers(self.network, self.state)
        else:
            with np.errstate(all="ignore"):
                self.doubts = self.doubts + growing_units(self.network, self.state, self.nudge, self.drive)

    def unconverged(self) -> Array:
        """Sample numbers that have not (credibly) converged: out of steps, or converged with
        doubts and found unstable.
        """
        doubtful = np.flatnonzero((self.doubts > 0) & (self.status == CONVERGED))
        if doubtful.size and not always_stable(self.network, self.nudge, self.drive):
            held = self._stable(doubtful, tuple(s[doubtful] for s in self.state))
            self.status[doubtful[~held]] = OUT_OF_STEPS
        self.doubts[doubtful] = 0
        return np.flatnonzero(self.status == OUT_OF_STEPS)

    def apply_newton(self, rows: Array) -> None:
        """Newton's method from the last states, sample by sample; only equilibria that are stable
        in time are accepted.
        """
        for row in rows[:, None]:
            heed()
            state, nudge = tuple(s[row] for s in self.state), self.nudge_of(row)
            found, steps = newton(self.network, self.drive[row], state, nudge, self.tolerance)
            self.steps[row] += steps
            self.accept(row, found, self._stable(row, found))

    def apply_fallback(self, fallback: Solver, rows: Array) -> None:
        """Integrate these samples from their start."""
        start = tuple(s[rows] for s in self.start)
        found = fallback.relax(self.network, self.drive[rows], start, self.nudge_of(rows), self.tolerance)
        self.steps[rows] += found.steps
        self.accept(rows, found.state, np.ones(rows.size, bool))
        # a small residual alone is not what the fallback means by converged, and one that rounds to
        # a hair above the tolerance here is within it there
        self.residual[rows] = np.where(found.converged, found.residual, self.residual[rows])
        self.status[rows] = found.status
        self.period[rows] = np.nan if found.period is None else found.period

    def accept(self, rows: Array, state: State, accepted: Array) -> None:
        """Keep these states (A, n_k) for the rows that are `accepted` (A,), with the residual and
        status of the field there.
        """
        rows, state = rows[accepted], tuple(s[accepted] for s in state)
        for kept, new in zip(self.state, state, strict=True):
            kept[rows] = new
        for i, row in enumerate(rows[:, None]):
            own = tuple(s[i : i + 1] for s in state)
            self.residual[row] = residual(self.network, self.drive[row], own, self.nudge_of(row))
        self.status[rows] = judge(self.residual[rows], state_norm(state), self.tolerance)

    def _stable(self, rows: Array, state: State) -> Array:
        """Which of these states (A, n_k) of these rows are stable equilibria, (A,) bool."""
        return stable(self.network, state, self.nudge_of(rows), self.drive[rows])

    def nudge_of(self, rows: Array) -> Nudge | None:
        """The nudge of these samples."""
        return rows_of(self.nudge, rows)


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
    """The equilibria after recovery of samples whose passes ended at `reached`: the doubtful are
    tested for stability, then Newton's method, then the fallback from `start`.

    drive (B, n_1); doubts (B,) as in `Recovery`. Raises as `equilibrium.prepare` does.
    """
    recovery = Recovery(network, drive, prepare(network, drive, start, nudge), nudge, tolerance)
    recovery.set_reached(reached, doubts)
    return recovery.finish(fallback)


def check_passes(max_passes: int, memory: int, fallback: Solver | None) -> None:
    """Raises ConfigurationError for settings that no fixed-point solver can have."""
    for name, value in (("max_passes", max_passes), ("memory", memory)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ConfigurationError(f"{name} = {value!r}, expected a whole number, 1 or more")
    if not (fallback is None or isinstance(fallback, Solver)):
        raise ConfigurationError(f"fallback = {fallback!r}, expected a solver or None")
