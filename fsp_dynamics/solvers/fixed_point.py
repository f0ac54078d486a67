"""Equilibria without a time axis: the network as a fixed-point problem in a few of its units.

Cut every cycle of the network at some layers, the cut; given the states y of the cut, all other layers follow one after
the other, and with them where the cut would rest: a pass y -> T(y). The feedforward loop is cut at its output (n_L units),
the reciprocal network at every second layer. At (y, the layers that follow from y) the field vanishes outside the cut and
is (leak + beta) (T(y) - y) on it, so each pass tells the residual of its own state at no further cost.

===========  ==============================================================================================
method       y <-
===========  ==============================================================================================
`sweeps`     T(y): plain layer sweeps
`anderson`   the mixture of the last passes with the smallest combined residual, per sample (the default)
`newton`     y + (I - J)^-1 (T(y) - y), J the n_L x n_L loop Jacobian with the masks of the present state
===========  ==============================================================================================

A sample that is not at rest after `max_passes` is given to Newton's method (loop, hard sigmoid), then to `fallback`, which
integrates it from its start. In a loop with a hard sigmoid, an equilibrium that was found by Newton, or on a way on which the
residual once rose, is accepted only if the field would hold on to it; otherwise it goes to the fallback too. Elsewhere (smooth rho,
reciprocal networks) and where no residual ever rose, stability in time is not tested: strongly coupled networks may be said to rest where
their dynamics would leave. Integrate (`numba_ode`) where that matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.kernels.mixing import anderson
from fsp_dynamics.kernels.relax import CompilationError
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, residual
from fsp_dynamics.solvers.equilibrium import AT_REST, OUT_OF_STEPS, Equilibrium, Solver, Tolerance, judge, prepare
from fsp_dynamics.solvers.integration import uncompilable
from fsp_dynamics.solvers.loop_newton import newton, stable
from fsp_dynamics.solvers.passes import Passes

METHODS = ("anderson", "newton", "sweeps")


@dataclass(frozen=True, slots=True)
class FixedPointSolver:
    """Passes around the network until each sample's field is small.

    Parameters
    ----------
    method : "anderson", "newton" (loops with a hard sigmoid only) or "sweeps".
    max_passes : passes allowed to a sample before Newton and the fallback are asked (method "newton" asks after one pass).
    memory : earlier passes that method "anderson" mixes.
    fallback : the solver that integrates the samples no pass brought to rest, from their start; None: they stay as they are,
        with status OUT_OF_STEPS.
    """

    method: str = "anderson"
    max_passes: int = 60
    memory: int = 5
    fallback: Solver | None = None

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        for name in ("max_passes", "memory"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ConfigurationError(f"{name} = {value!r}, expected a whole number, 1 or more")
        if not (self.fallback is None or isinstance(self.fallback, Solver)):
            raise ConfigurationError(f"fallback = {self.fallback!r}, expected a solver or None")

    def relax(
        self,
        network: Network,
        drive: Array,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
    ) -> Equilibrium:
        """The equilibrium reached from `start`; see `equilibrium.Solver.relax`. `steps` counts passes."""
        begin = prepare(network, drive, start, nudge)
        if self.method == "newton" and not _has_newton(network):
            raise ConfigurationError("method = 'newton' needs a loop and a hard sigmoid; use 'anderson' or 'sweeps' for this network")
        tolerance = tolerance or Tolerance.default(network.dtype)
        try:
            journey = _Journey(network, drive, begin, nudge, tolerance)
            if start is not None:
                journey.leave_those_at_rest()
            journey.walk(self.memory if self.method == "anderson" else 0, 1 if self.method == "newton" else self.max_passes)
        except CompilationError as error:
            raise uncompilable(network, error) from error
        suspects = journey.restless()
        if _has_newton(network):
            journey.try_newton(suspects)
            suspects = journey.restless()
        if self.fallback is not None and suspects.size:
            journey.hand_over(self.fallback, suspects)
        return Equilibrium(journey.state, journey.residual, journey.status, journey.steps, 0.0 if nudge is None else float(nudge.beta))


def _has_newton(network: Network) -> bool:
    return network.loop is not None and network.rho.projected


class _Journey:
    """One relaxation: the samples still on their way, and the results of those that arrived."""

    def __init__(self, network: Network, drive: Array, start: State, nudge: Nudge | None, tolerance: Tolerance) -> None:
        batch = len(drive)
        self.network, self.drive, self.start, self.nudge, self.tolerance = network, drive, start, nudge, tolerance
        self.passes = Passes(network, drive, start, nudge, norms=tolerance.relative > 0)
        self.state: State = tuple(np.empty_like(s, network.dtype) for s in start)
        self.residual = np.empty(batch)
        self.status = np.full(batch, OUT_OF_STEPS, np.uint8)
        self.steps = np.zeros(batch, np.int64)
        self.rose = np.zeros(batch, np.int64)
        self.first: Array | None = None  # T(y) at the start, where it is known

    def leave_those_at_rest(self) -> None:
        """Samples whose start is at rest keep it, with zero steps; the others have their first pass done."""
        target, size, norm = self.passes.run(given=True)
        status = judge(size, norm, self.tolerance)
        self._arrive(status, status != OUT_OF_STEPS, size, 0)
        self.first = target[status == OUT_OF_STEPS]

    def walk(self, memory: int, max_passes: int) -> None:
        """Pass after pass; a sample leaves as soon as it is at rest or no longer finite."""
        passes, batch, width = self.passes, len(self.drive), self.passes.y.shape[1]
        history = np.empty((2, batch, max(memory, 1), width), self.network.dtype)
        sizes, count = np.full(batch, np.inf), np.zeros(batch, np.int64)
        floor, ceiling = (0.0, 1.0) if self.network.rho.projected else (-np.inf, np.inf)

        def mix(target: Array) -> None:
            if memory:
                anderson(passes.rows, passes.y, target, history[0], history[1], sizes, count, self.rose, floor, ceiling)
            else:
                passes.y[:] = target

        done_before = 0
        if self.first is not None:
            mix(self.first)
            done_before = 1
        for k in range(1, max_passes + 1):
            if passes.rows.size == 0:
                return
            target, size, norm = passes.run()
            status = judge(size, norm, self.tolerance)
            leaving = (status != OUT_OF_STEPS) | (k == max_passes)
            self._arrive(status, leaving, size, done_before + k)
            mix(target[~leaving])

    def restless(self) -> Array:
        """Sample numbers that are not (credibly) at rest: out of steps, or at rest on a path whose residual once rose and unstable."""
        doubtful = np.flatnonzero((self.rose > 0) & (self.status == AT_REST))
        if doubtful.size and _has_newton(self.network):
            held = stable(self.network, tuple(s[doubtful] for s in self.state), self._nudge_of(doubtful))
            self.status[doubtful[~held]] = OUT_OF_STEPS
            self.rose[doubtful] = 0
        return np.flatnonzero(self.status == OUT_OF_STEPS)

    def try_newton(self, rows: Array) -> None:
        """Newton's method from where the passes ended; only equilibria that are stable in time are taken."""
        if rows.size == 0:
            return
        found, steps = newton(self.network, self.drive[rows], tuple(s[rows] for s in self.state), self._nudge_of(rows), self.tolerance)
        self.steps[rows] += steps
        self._take(rows, found, stable(self.network, found, self._nudge_of(rows)))

    def hand_over(self, fallback: Solver, rows: Array) -> None:
        """Integrate these samples from their start."""
        start = tuple(s[rows] for s in self.start)
        found = fallback.relax(self.network, self.drive[rows], start, self._nudge_of(rows), self.tolerance)
        self.steps[rows] += found.steps
        self._take(rows, found.state, np.ones(rows.size, bool))

    def _arrive(self, status: Array, leaving: Array, size: Array, steps: int) -> None:
        """Keep the results of the rows that are leaving and go on with the others."""
        if not leaving.any():
            return
        rows = self.passes.rows[leaving]
        for kept, present in zip(self.state, self.passes.state(), strict=True):
            kept[rows] = present[leaving]
        self.residual[rows], self.status[rows], self.steps[rows] = size[leaving], status[leaving], steps
        self.passes.keep(~leaving)

    def _take(self, rows: Array, state: State, accepted: Array) -> None:
        rows, state = rows[accepted], tuple(s[accepted] for s in state)
        for kept, new in zip(self.state, state, strict=True):
            kept[rows] = new
        self.residual[rows] = residual(self.network, self.drive[rows], state, self._nudge_of(rows))
        norm = np.sqrt(sum((s.astype(np.float64) ** 2).sum(1) for s in state))
        self.status[rows] = judge(self.residual[rows], norm, self.tolerance)

    def _nudge_of(self, rows: Array) -> Nudge | None:
        return None if self.nudge is None else self.nudge.rows(rows)
