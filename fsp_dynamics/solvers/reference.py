"""The methods in plain NumPy, to be read, extended and checked against; flat states (B, N), the
layers side by side.

Two fields lead to the same equilibria. ``rate``: the rate form, whose right-hand side is
continuous, so that its error can be estimated. ``projected``: eq. 13 literally, every state
clipped to [0, 1], the stages of a step included: a unit held at 1 by its input would otherwise
have rho' = 0 in the next stage, and its equilibrium would depend on the step size. For a smooth
rho both names mean eq. 13 itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fsp_dynamics.kernels.heed import heed
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, flatten, layers
from fsp_dynamics.solvers.confirmation import ConfirmedIntegrator
from fsp_dynamics.solvers.equilibrium import Equilibrium, Status, Tolerance, judge, prepare
from fsp_dynamics.solvers.integration import (
    MOTION,
    accuracy,
    check_settings,
    check_times,
    equal_steps,
    in_precision,
    longest_step,
    warn_of_late,
)
from fsp_dynamics.solvers.tableaux import TABLEAUX, Tableau

Field = Callable[[Array], Array]

# step size control: aim below the allowed error, change h at most by these factors
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0


def step(tableau: Tableau, field: Field, state: Array, h: float | Array) -> tuple[Array, Array | None]:
    """One step of size h from `state` (B, N): k_i = field(s + h sum_j a_ij k_j), s + h sum_i b_i
    k_i.

    h is a number, or (B, 1) with a step for each sample. Returns the new state and the error
    estimate h sum_i e_i k_i (B, N), None for a method without one. `state` is not modified.
    """
    h = np.asarray(h, state.dtype)
    slopes: list[Array] = []
    for row in tableau.a:
        slopes.append(field(state + h * _combine(row, slopes)))
    error = None if tableau.error is None else h * _combine(tableau.error, slopes)
    return state + h * _combine(tableau.b, slopes), error


def flat_field(network: Network, drive: Array, nudge: Nudge | None, form: str) -> Field:
    """ds/dt as a function (B, N) -> (B, N): the rate form, or eq. 13 at the state clipped to [0,
    1] (``projected``).
    """
    if form == "rate" or not network.rho.projected:
        return lambda flat: flatten(rate.rate_field(network, drive, layers(network, flat), nudge))
    return lambda flat: flatten(rate.field(network, drive, layers(network, flat.clip(0, 1)), nudge))


@dataclass(frozen=True, slots=True)
class ReferenceSolver(ConfirmedIntegrator):
    """Runge-Kutta integration in NumPy, with a constant step or with a controlled step for each
    sample (an `Integrator`).

    Parameters
    ----------
    method : name of a tableau (`solvers.tableaux`).
    dt : constant step, in the time unit of the time constants; None: controlled. Then each sample
        has its own step size, clock and stop; it needs a method with an error estimate.
    max_steps : steps a sample may try, in a relaxation or between two saved times.
    form : "rate", "projected", or None: projected for constant steps, rate for controlled ones. A
        controlled step in the projected form creeps at kinks.
    rtol, atol : error allowed in a controlled step along a path, for each unit atol + rtol |s|, as
        root mean square over the units. None: rtol 1e-9 (float32: 1e-6), atol as rtol.

    Control: h stays below 1 / (largest leak + beta). In a relaxation the 2-norm of the error
    estimate may be MOTION times the residual, so that the error vanishes together with the motion:
    with a constant allowance h would grow to the limit of stability and the residual stall there.
    Along a path rtol and atol decide.

    Raises ConfigurationError for an unknown method or form, dt or max_steps not above 0, no dt
    where the method cannot control it, or rtol and atol that do not fit.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> solver = ReferenceSolver("rk4", dt=0.1)
    >>> solver.tableau.order, fsp.relax(network, images, solver=solver).converged.tolist()
    (4, [True, True])
    >>> fsp.simulate(network, images, [(2.0, None)], solver=solver, save=0.5).states[-1].shape
    (5, 2, 3)
    """

    method: str = "dopri5"
    dt: float | None = None
    max_steps: int = 10_000
    form: str | None = None
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        check_settings(self.method, self.dt, self.max_steps, self.form, self.rtol, self.atol)

    @property
    def tableau(self) -> Tableau:
        return TABLEAUX[self.method]

    def reach(
        self, network: Network, drive: Array, start: State, nudge: Nudge | None, tolerance: Tolerance, max_steps: int
    ) -> Equilibrium:
        """See `confirmation.ConfirmedIntegrator.reach`.

        Returns
        -------
        Equilibrium : of all B samples.
        """
        drive, state, nudge = in_precision(network, drive, start, nudge)
        with np.errstate(over="ignore", invalid="ignore"):
            residual = rate.residual(network, drive, layers(network, state), nudge)
            status = judge(residual, _norm(state), tolerance)
            steps = np.zeros(len(state), np.int64)
            h = np.full((len(state), 1), self.dt or 0.1 * longest_step(network, nudge), state.dtype)
            rows = np.flatnonzero(status == Status.OUT_OF_STEPS)
            for taken in range(1, max_steps + 1):
                if not rows.size:
                    break
                heed()
                working = _RunningRows(self, network, drive[rows], None if nudge is None else nudge.rows(rows))
                allowed = working.allowance(state[rows], residual[rows])
                state[rows], h[rows], _ = working.advance(state[rows], h[rows], allowed)
                residual[rows] = working.residual(state[rows])
                status[rows] = judge(residual[rows], _norm(state[rows]), tolerance)
                steps[rows] = taken
                rows = rows[status[rows] == Status.OUT_OF_STEPS]
        return Equilibrium(layers(network, state), residual, status, steps, beta_of(nudge))

    def follow(self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array) -> Array:
        """The flat states (T, B, N) at the increasing `times`, each of them hit exactly.

        Constant steps are at most dt long and equal between two times. A sample that stops being
        finite or, controlled, needs more than max_steps between two times, of which a warning
        tells, is NaN from there on. Raises ConfigurationError for more than max_steps constant
        ones.

        Returns
        -------
        array : (T, B, N).
        """
        start = prepare(network, drive, start, nudge)
        times = check_times(times)
        drive, state, nudge = in_precision(network, drive, start, nudge)
        path = np.empty((len(times), *state.shape), state.dtype)
        path[0] = state
        h = np.full((len(state), 1), 0.1 * longest_step(network, nudge), state.dtype)
        late, spans = np.zeros(len(state), bool), np.diff(times)
        counts = None if self.dt is None else equal_steps(spans, self.dt, int(self.max_steps))
        with np.errstate(over="ignore", invalid="ignore"):
            for i, span in enumerate(spans):
                if counts is None:
                    path[i + 1] = self._controlled(network, drive, nudge, path[i], float(span), h, late)
                else:
                    path[i + 1] = self._constant(network, drive, nudge, path[i], float(span), int(counts[i]))
        warn_of_late(late, int(self.max_steps))
        return path

    def _constant(
        self, network: Network, drive: Array, nudge: Nudge | None, state: Array, duration: float, count: int
    ) -> Array:
        """The state `duration` later, by so many equal steps; NaN for a sample that stops being
        finite.
        """
        working = _RunningRows(self, network, drive, nudge)
        h = np.full((len(state), 1), duration / count, state.dtype)
        for _ in range(count):
            heed()
            state, _, _ = working.advance(state, h)
        state[~np.isfinite(state).all(-1)] = np.nan
        return state

    def _controlled(
        self, network: Network, drive: Array, nudge: Nudge | None, state: Array, duration: float, h: Array, late: Array
    ) -> Array:
        """The state `duration` later; `h` (B, 1), each sample's step size, is carried on in place
        from call to call. late (B,) <- True where max_steps do not suffice.
        """
        state = state.copy()
        left = np.full((len(state), 1), duration)
        shortest = np.finfo(state.dtype).eps * longest_step(network, nudge)
        for _ in range(int(self.max_steps)):
            rows = np.flatnonzero((left > 0) & (h > shortest))
            if not rows.size:
                break
            heed()
            working = _RunningRows(self, network, drive[rows], None if nudge is None else nudge.rows(rows))
            last = h[rows] >= left[rows]
            trial = np.where(last, left[rows], h[rows])
            state[rows], proposed, accepted = working.advance(state[rows], trial)
            left[rows] = np.where(accepted, np.where(last, 0, left[rows] - trial), left[rows])
            # the size of a step that was cut short is no estimate
            h[rows] = np.where(last & accepted, np.maximum(h[rows], proposed), proposed)
        late |= ((left > 0) & (h > shortest))[:, 0]
        state[(left > 0)[:, 0]] = np.nan
        return state


@dataclass(frozen=True, slots=True, eq=False)
class _RunningRows:
    """The samples that are still running, their drive, and the steps of the solver."""

    solver: ReferenceSolver
    network: Network
    drive: Array
    nudge: Nudge | None

    def advance(self, state: Array, h: Array, allowed: Array | None = None) -> tuple[Array, Array, Array]:
        """One step each: (state, next h, accepted), (b, N), (b, 1), (b, 1). A rejected sample
        keeps its state.

        allowed (b, 1) is the 2-norm that the error may have; None: what rtol and atol allow.
        """
        solver = self.solver
        form = solver.form or ("rate" if solver.dt is None else "projected")
        moved, error = step(solver.tableau, flat_field(self.network, self.drive, self.nudge, form), state, h)
        if form == "projected" and self.network.rho.projected:
            moved = moved.clip(0, 1)
        if solver.dt is not None or error is None:
            return moved, h, np.ones_like(h, bool)
        ratio = self.along_a_path(error, state, moved) if allowed is None else _norm(error)[:, None] / allowed
        ratio = np.where(
            np.isfinite(ratio) & np.isfinite(moved).all(-1, keepdims=True), np.maximum(ratio, 1e-9), np.inf
        )
        accepted = ratio <= 1
        factor = np.clip(SAFETY * ratio ** (-1 / solver.tableau.order), SHRINK, GROW)
        return (
            np.where(accepted, moved, state),
            np.minimum(h * factor, longest_step(self.network, self.nudge)),
            accepted,
        )

    def residual(self, state: Array) -> Array:
        """That of `models.rate.residual`, (b,)."""
        return rate.residual(self.network, self.drive, layers(self.network, state), self.nudge)

    def allowance(self, state: Array, residual: Array) -> Array:
        """Error allowed in one step of a relaxation, (b, 1): proportional to the residual down to
        rounding.
        """
        return np.maximum(MOTION * residual, np.finfo(state.dtype).eps * (1 + _norm(state)))[:, None]

    def along_a_path(self, error: Array, state: Array, moved: Array) -> Array:
        """Root mean square over the units of error / (atol + rtol max(|s|, |moved s|)), (b, 1)."""
        rtol, atol = accuracy(state.dtype, self.solver.rtol, self.solver.atol)
        return _norm(error / (atol + rtol * np.maximum(abs(state), abs(moved))))[:, None] / error.shape[1] ** 0.5


def _combine(weights: Sequence[float], slopes: Sequence[Array]) -> Array | float:
    """sum_j weights[j] slopes[j]; 0 for no slopes."""
    terms = [w * k for w, k in zip(weights, slopes, strict=True) if w]
    return sum(terms[1:], terms[0]) if terms else 0.0


def _norm(flat: Array) -> Array:
    """2-norm of each sample, (B,)."""
    return (flat * flat).sum(-1) ** 0.5
