"""What an integrator reached, confirmed: it stays where it converged, and where it did not converge
it says whether it oscillates.

An integrator ends where the field is small. That is also so beside a saddle, which the dynamics
pass slowly or, started on a line that leads into it, approach. There the smallest perturbation
decides: the sample is moved by KICK and integrated on.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.kernels.status import CONVERGED, OSCILLATES, OUT_OF_STEPS
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, flatten, layers, rows_of, state_norm
from fsp_dynamics.solvers.equilibrium import Equilibrium, Integrator, Tolerance, judge, prepare
from fsp_dynamics.solvers.linearisation import fixed_vector
from fsp_dynamics.solvers.oscillation import periods
from fsp_dynamics.solvers.stability import always_stable, stable

SOON = 1000  # steps after which a sample is asked for the first time whether it oscillates
KICK = 1e-3  # 2-norm of the perturbation that leaves an unstable equilibrium
BACK = 0.1  # of the kick: distance of a sample that has come back
MANY = 64  # directions of kicks from which a sample must come back
KICKS = 3  # unstable equilibria that a sample may leave
LARGE = 100.0  # tolerances that an oscillation must exceed, lest rounding be one


class ConfirmedIntegrator(ABC):
    """An integrator whose equilibria are confirmed. What is left to it is to `reach` them."""

    __slots__ = ()

    @property
    @abstractmethod
    def max_steps(self) -> int:
        """Steps that a sample may try."""

    @abstractmethod
    def follow(self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array) -> Array:
        """See `equilibrium.Integrator.follow`."""

    @abstractmethod
    def reach(
        self, network: Network, drive: Array, start: State, nudge: Nudge | None, tolerance: Tolerance, max_steps: int
    ) -> Equilibrium:
        """Integrate until each sample has converged or has tried `max_steps` steps; `steps` counts
        rejected ones too. Nothing is confirmed.
        """

    def follower(self, network: Network) -> Integrator:
        """The integrator that follows the paths of samples which may oscillate."""
        return self

    def relax(
        self,
        network: Network,
        drive: Array,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
    ) -> Equilibrium:
        """The stable equilibria that are reached from `start` (see `equilibrium.Solver.relax`);
        samples that repeat themselves end with status OSCILLATES and their period.
        """
        begin, tolerance = prepare(network, drive, start, nudge), tolerance or Tolerance.default(network.dtype)
        work, most = _Work(self, network, drive, nudge, tolerance), int(self.max_steps)
        found = work.mark_oscillations(self.reach(network, drive, begin, nudge, tolerance, min(most, SOON)))
        rows = np.flatnonzero(found.status == OUT_OF_STEPS)
        if rows.size and most > SOON:
            found = work.go_on(found, rows, tuple(s[rows] for s in found.state), tolerance, most - SOON)
            found = work.mark_oscillations(found)
        return work.leave_unstable(found)


class _Work:
    """One relaxation: its arguments, and the steps in which its result is confirmed."""

    def __init__(
        self, integrator: ConfirmedIntegrator, network: Network, drive: Array, nudge: Nudge | None, tolerance: Tolerance
    ) -> None:
        self.integrator, self.network, self.drive = integrator, network, drive
        self.nudge, self.tolerance = nudge, tolerance

    def go_on(self, found: Equilibrium, rows: Array, state: State, tolerance: Tolerance, steps: int) -> Equilibrium:
        """The result with these rows integrated on from `state` (A, n_k)."""
        more = self.integrator.reach(self.network, self.drive[rows], state, self._pull(rows), tolerance, steps)
        return found.with_rows(rows, replace(more, steps=found.steps[rows] + more.steps))

    def mark_oscillations(self, found: Equilibrium) -> Equilibrium:
        """The result, in which samples out of steps that repeat themselves are OSCILLATES."""
        rows = np.flatnonzero(found.status == OUT_OF_STEPS)
        if not rows.size:
            return found
        part = found.rows(rows)
        least = LARGE * self.tolerance.bound(state_norm(part.state))
        follower = self.integrator.follower(self.network)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of paths that were not followed to their end
                period = periods(follower, self.network, self.drive[rows], part.state, self._pull(rows), least)
        except ConfigurationError:  # so short a step and so few of them follow no path
            return found
        status = np.where(np.isfinite(period), OSCILLATES, part.status).astype(np.uint8)
        return found.with_rows(rows, replace(part, status=status, period=period))

    def leave_unstable(self, found: Equilibrium) -> Equilibrium:
        """The result, in which unstable equilibria were left for what the dynamics reach from
        beside them.
        """
        if not found.converged.any() or always_stable(self.network, self.nudge, self.drive):
            return found
        rows = np.flatnonzero(found.converged)
        before = np.full((len(found.status), sum(self.network.sizes[1:])), np.inf)
        for kick in range(KICKS + 1):
            part = found.rows(rows)
            held = stable(self.network, part.state, self._pull(rows), self.drive[rows])
            flat = flatten(part.state)
            for i in np.flatnonzero(~held & (np.linalg.norm(flat - before[rows], axis=1) < BACK * KICK)):
                held[i], flat[i] = self._comes_back(rows[i : i + 1], flat[i : i + 1])
            before[rows] = flat
            rows, part = rows[~held], part.rows(~held)
            if not rows.size:
                break
            if kick == KICKS:
                unsettled = np.full(rows.size, OUT_OF_STEPS, np.uint8)
                return found.with_rows(rows, replace(part, status=unsettled))
            tight, moved = self._tight(), self._beside(layers(self.network, before[rows]))
            found = self.go_on(found, rows, moved, tight, int(self.integrator.max_steps))
            found = self.mark_oscillations(self._judged(found, rows))
            rows = rows[found.status[rows] == CONVERGED]
        return found

    def _comes_back(self, row: Array, flat: Array) -> tuple[bool, Array]:
        """Whether a sample that came back to its state (1, N) after a kick does so after kicks in
        MANY directions, as it may where units at a bound cannot move the way that grows; and its
        state, or else one of those it left for (N,).
        """
        if not stable(self.network, layers(self.network, flat), self._pull(row), self.drive[row], bounds=False):
            return False, flat[0]
        ways = np.random.default_rng(0).normal(size=(MANY, flat.shape[1]))
        kicked = flat + KICK / np.linalg.norm(ways, axis=1, keepdims=True) * ways
        start, rows = layers(self.network, kicked.clip(0, 1).astype(flat.dtype)), np.repeat(row, MANY)
        found = self.integrator.reach(self.network, self.drive[rows], start, self._pull(rows), self._tight(), SOON)
        ends = flatten(found.state)
        gone = np.flatnonzero(~(np.linalg.norm(ends - flat, axis=1) < BACK * KICK))
        return not gone.size, ends[gone[0]] if gone.size else flat[0]

    def _tight(self) -> Tolerance:
        """A tolerance far below the kick, so that the sample must move."""
        return Tolerance(min(self.tolerance.absolute, 1e-2 * KICK), 0.0)

    def _beside(self, state: State) -> State:
        """The states moved by KICK in a fixed direction, which has a part along every other."""
        flat = flatten(state)
        way = fixed_vector(flat.shape[1])
        moved = flat + (KICK / np.linalg.norm(way) * way).astype(flat.dtype)
        return layers(self.network, moved.clip(0, 1) if self.network.rho.projected else moved)

    def _judged(self, found: Equilibrium, rows: Array) -> Equilibrium:
        """The result with these rows judged by the tolerance that was asked for."""
        part = found.rows(rows)
        status = judge(part.residual, state_norm(part.state), self.tolerance)
        return found.with_rows(rows, replace(part, status=status))

    def _pull(self, rows: Array) -> Nudge | None:
        return rows_of(self.nudge, rows)
