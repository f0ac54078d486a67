"""torchdiffeq behind the one protocol: its methods on tensors, on any device, with a step that the
samples of a batch share.

================== ===== ========== ================================================================
method             order step       take it when
================== ===== ========== ================================================================
``dopri8``         8     controlled a smooth rho is to be followed to 1e-10 and better
``dopri5``         5     controlled the default
``bosh3``          3     controlled a hard sigmoid is followed: higher orders gain nothing at kinks
``fehlberg2``      2     controlled results of others are to be compared with
``adaptive_heun``  2     controlled the same
``euler``          1     dt         the update s + dt ds/dt is meant
``midpoint``       2     dt         two fields a step, one step between two images of the path
``heun2``          2     dt         the same, the slopes of both ends
``heun3``          3     dt         three fields a step
``rk4``            4     dt         a constant step is wanted and nothing else is known
``explicit_adams`` 4     dt         fields are expensive: one a step, after two steps of rk4 (Adams
                                    and Bashforth)
``implicit_adams`` 5     dt         an implicit method is wanted, the only one here: the same, then
                                    corrected until the step no longer changes (Adams and Moulton)
================== ===== ========== ================================================================

Left out: ``fixed_adams``, another name of implicit_adams, and ``scipy_solver``, which passes the
batch to SciPy as one large state, judges its error by one mean over all samples, and reports
nothing of its steps. `torch_backend.steps` describes how samples that share a step are kept
independent of each other, and what of torchdiffeq prevents it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fsp_dynamics.errors import ConfigurationError, check_choice, check_positive
from fsp_dynamics.kernels.status import OUT_OF_STEPS
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, layers
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.solvers.confirmation import ConfirmedIntegrator
from fsp_dynamics.solvers.equilibrium import Equilibrium, Integrator, Tolerance, prepare
from fsp_dynamics.solvers.integration import (
    IntegrationResult,
    accuracy,
    check_settings,
    check_times,
    equal_steps,
    warn_of_late,
)
from fsp_dynamics.torch_backend.products import precision
from fsp_dynamics.torch_backend.steps import CONSTANT, CONTROLLED, Batch, StepGroup
from fsp_dynamics.torch_backend.tensors import array, chosen_device

OWN_UNITS = (0.0, 1.0)  # rtol, atol: the norm receives the error itself


@dataclass(frozen=True, slots=True)
class TorchSolver(ConfirmedIntegrator):
    """torchdiffeq's integration of the rate form (an `Integrator`).

    Parameters
    ----------
    method : a name of the table above.
    dt : constant step, in the time unit of the time constants, for the methods that take one; None
        for the controlled ones.
    max_steps : steps a sample may try, in a relaxation or between two saved times.
    rtol, atol : error allowed in a controlled step along a path, for each unit atol + rtol |s|, as
        root mean square over the units of each sample; for implicit_adams, how much the last
        correction may change. None: rtol 1e-9 (float32: 1e-6), atol as rtol.
    device : where the tensors are: "auto", "cpu", "cuda" or a numbered one as "cuda:1". Arrays are
        taken and returned.

    Both `relax` and `follow` integrate `models.rate.rate_field`, whose kinks need no clipping; for
    a smooth rho it is eq. 13 itself. The samples share one step, which the most demanding of them
    decides, so that the error of each is within its own allowance.

    While relaxing, a step's error may be MOTION times the distance covered in one fastest time
    constant at the present residual, down to rounding, and a step is no longer than that time
    constant. The state of a sample is recorded where it converged; its row is integrated further,
    without effect, until half of its group has left. A sample whose step falls below rounding is
    given up, and the others continue. While following, a step ends at each of the saved times;
    Adams methods begin anew there.

    Steps are those that torchdiffeq tried while the sample was running, rejected ones included;
    fields are the evaluations of the right-hand side for it, tests of the residual included.
    `relax_counted` and `integrate` are `relax` and `follow` with these numbers.

    Raises ConfigurationError for settings that do not fit each other, or a device that is not
    there.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> fsp.relax(network, images, solver=TorchSolver("rk4", dt=0.2)).converged.tolist()
    [True, True]
    """

    method: str = "dopri5"
    dt: float | None = None
    max_steps: int = 10_000
    rtol: float | None = None
    atol: float | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_choice("method", self.method, (*CONTROLLED, *CONSTANT))
        if self.method in CONTROLLED and self.dt is not None:
            able = ", ".join(CONSTANT)
            raise ConfigurationError(
                f"dt = {self.dt!r} with method = {self.method!r}, which controls its step; leave dt out, or take "
                f"one of: {able}"
            )
        if self.method in CONSTANT and self.dt is None:
            able = ", ".join(CONTROLLED)
            raise ConfigurationError(
                f"method = {self.method!r} does not control its step; give dt, or take one of: {able}"
            )
        if self.dt is not None:
            check_positive("dt", self.dt)
        corrected = self.method == "implicit_adams"  # its step is constant, its correction has an accuracy
        check_settings("dopri5", None if corrected else self.dt, self.max_steps, None, self.rtol, self.atol)
        chosen_device(self.device)

    def follower(self, network: Network) -> Integrator:
        """A path saved at many times is long work for torchdiffeq.

        Returns
        -------
        callable : from a state to the equilibrium that is reached from it.
        """
        found: Any = make_solver("numba_ode") if network.rho in ACTIVATIONS.values() else self
        return found

    def reach(
        self, network: Network, drive: Array, start: State, nudge: Nudge | None, tolerance: Tolerance, max_steps: int
    ) -> Equilibrium:
        """See `confirmation.ConfirmedIntegrator.reach`.

        Returns
        -------
        Equilibrium : of all B samples.
        """
        return self.relax_counted(network, drive, start, nudge, tolerance, max_steps).equilibrium

    def relax_counted(
        self,
        network: Network,
        drive: Array,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
        max_steps: int | None = None,
    ) -> CountedEquilibrium:
        """`reach`, with the number of fields it took.

        `models.rate.residual` of the whole batch decides, before the first step and after the
        last: a sample that has not converged by it continues while it has steps left.

        Returns
        -------
        CountedEquilibrium : see above.
        """
        start = prepare(network, drive, start, nudge)
        tolerance, limit = tolerance or Tolerance.default(network.dtype), int(max_steps or self.max_steps)
        exact = OWN_UNITS if self.dt is None else accuracy(network.dtype, self.rtol, self.atol)
        with torch.no_grad(), precision("highest"), np.errstate(over="ignore", invalid="ignore"):
            batch = Batch.of(network, drive, start, nudge, chosen_device(self.device))
            residual, status = batch.judge(tolerance)
            rows = np.flatnonzero(status == OUT_OF_STEPS)
            while rows.size:
                group = StepGroup.of(batch, rows, self.method, self.dt, exact, tolerance)
                group.advance(np.inf, limit - int(batch.steps[rows].max()))
                group.leave(group.running)
                batch.fields[rows] += 1
                residual, status = batch.judge(tolerance)
                rows = np.flatnonzero((status == OUT_OF_STEPS) & (batch.steps < limit) & ~batch.stuck)
            state = layers(network, array(batch.state))
        return CountedEquilibrium(Equilibrium(state, residual, status, batch.steps, beta_of(nudge)), batch.fields + 1)

    def follow(self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array) -> Array:
        """The flat states (T, B, N) at the increasing `times`, each of them hit exactly.

        Constant steps are at most dt long and equal between two times. A sample that stops being
        finite, or whose step falls below rounding, is NaN from there on; so are all remaining ones
        where controlled steps, which they share, need more than max_steps between two times, of
        which a warning tells. Raises ConfigurationError for more than max_steps constant ones.

        Returns
        -------
        array : (T, B, N).
        """
        return self.integrate(network, drive, start, nudge, times).states

    def integrate(
        self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array
    ) -> IntegrationResult:
        """`follow`, with the numbers of steps and fields it took.

        Returns
        -------
        IntegrationResult : the path (T, B, N), and steps and refused steps of each sample (B,).
        """
        start = prepare(network, drive, start, nudge)
        times = check_times(times)
        exact = accuracy(network.dtype, self.rtol, self.atol)
        with torch.no_grad(), precision("highest"):
            batch = Batch.of(network, drive, start, nudge, chosen_device(self.device))
            path = np.full((len(times), *batch.state.shape), np.nan, network.dtype)
            path[0] = array(batch.state)
            group = StepGroup.of(batch, np.arange(len(drive)), self.method, self.dt, exact, None)
            late, spans, limit = np.zeros(len(drive), bool), np.diff(times), int(self.max_steps)
            counts = np.full(len(spans), limit) if self.dt is None else equal_steps(spans, self.dt, limit)
            for i, (span, count) in enumerate(zip(spans, counts, strict=True), 1):
                if self.dt is not None:
                    group.h = span / count
                if not group.advance(float(span), int(count)):
                    late[group.rows] = group.controlled
                    break
                path[i, group.rows] = array(group.state)
            group.leave(group.running)
        path[1:][~np.isfinite(path[1:]).all(-1)] = np.nan
        warn_of_late(late, limit)
        return IntegrationResult(path, batch.steps, batch.fields)


@dataclass(frozen=True, slots=True, eq=False)
class CountedEquilibrium:
    """An equilibrium, and how many fields (B,) were evaluated for each sample to reach it."""

    equilibrium: Equilibrium
    fields: Array
