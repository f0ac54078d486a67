"""torchdiffeq behind the one protocol: its methods on tensors, on any device, with a step that the
samples of a batch share.

===================  =====  ==========  ====================================================================================================
method               order  step        take it when
===================  =====  ==========  ====================================================================================================
``dopri8``           8      controlled  a smooth rho is to be followed to 1e-10 and better
``dopri5``           5      controlled  the default
``bosh3``            3      controlled  a hard sigmoid is followed: its kinks leave higher orders nothing to gain
``fehlberg2``        2      controlled  results of others are to be compared with
``adaptive_heun``    2      controlled  the same
``euler``            1      dt          the update s + dt ds/dt is meant
``midpoint``         2      dt          two fields a step, one step between two images of the path
``heun2``            2      dt          the same, the slopes of both ends
``heun3``            3      dt          three fields a step
``rk4``              4      dt          a constant step is wanted and nothing else is known
``explicit_adams``   4      dt          fields are dear: one a step, once two steps of rk4 have been taken (Adams and Bashforth)
``implicit_adams``   5      dt          the only implicit one: the same, then corrected until the step stands still (Adams and Moulton)
===================  =====  ==========  ====================================================================================================

Left out: ``fixed_adams``, another name of implicit_adams, and ``scipy_solver``, which hands the
batch to SciPy as one large state, judges its error by one mean over all samples, and tells nothing
of its steps. How samples that share a step are kept from each other, and what of torchdiffeq stood
in the way, is said in `torch_backend.steps`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fsp_dynamics.errors import ConfigurationError, check_choice, check_positive
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, layers
from fsp_dynamics.solvers.equilibrium import OUT_OF_STEPS, Equilibrium, Tolerance, prepare
from fsp_dynamics.solvers.integration import Walk, accuracy, check_settings, check_times, equal_steps
from fsp_dynamics.torch_backend.products import precision
from fsp_dynamics.torch_backend.steps import CONSTANT, CONTROLLED, Batch, StepGroup
from fsp_dynamics.torch_backend.tensors import array, chosen_device

OWN_UNITS = (0.0, 1.0)  # rtol, atol: the norm is told the error itself


@dataclass(frozen=True, slots=True)
class TorchSolver:
    """torchdiffeq's integration of the rate form (an `Integrator`).

    Parameters
    ----------
    method : a name of the table above.
    dt : constant step, in the time unit of the time constants, for the methods that take one; None
        for the controlled ones.
    max_steps : steps a sample may try, in a relaxation or, controlled, between two saved times.
    rtol, atol : error allowed in a controlled step along a path, for each unit atol + rtol |s|, as
        root mean square over the units of each sample; for implicit_adams, how much the last
        correction may change. None: rtol 1e-9 (float32: 1e-6), atol as rtol.
    device : where the tensors are: "auto", "cpu", "cuda" or a numbered one as "cuda:1". What comes
        and goes are arrays.

    Both ways go along `models.rate.rate_field`, whose kinks need no clipping; for a smooth rho it
    is eq. 13 itself. The samples share one step, which the most demanding of them decides, so that
    the error of each is within its own allowance. Relaxing, a step's error may be MOTION times the
    distance covered in one fastest time constant at the present residual, down to rounding, and a
    step is no longer than that time constant. A sample converged is written down where it came to
    rest; it is carried along, unheard, until half of its company has left. One whose step falls
    below rounding is given up, and the others go on. Following, a step ends at each of the saved
    times; Adams methods begin anew there.

    Steps are the tries of torchdiffeq while the sample was on its way, rejected ones among them;
    fields are the evaluations of the right-hand side for it, tests of the residual among them.
    `settle` and `walk` are `relax` and `follow` with these numbers.

    Raises ConfigurationError for settings that do not fit each other, or a device that is not
    there.
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
                f"dt = {self.dt!r} with method = {self.method!r}, which controls its step; leave dt out, or take one of: {able}"
            )
        if self.method in CONSTANT and self.dt is None:
            able = ", ".join(CONTROLLED)
            raise ConfigurationError(
                f"method = {self.method!r} does not control its step; give dt, or take one of: {able}"
            )
        if self.dt is not None:
            check_positive("dt", self.dt)
        corrected = (
            self.method == "implicit_adams"
        )  # it has a constant step, and all the same something to be exact about
        check_settings("dopri5", None if corrected else self.dt, self.max_steps, None, self.rtol, self.atol)
        chosen_device(self.device)

    def relax(
        self,
        network: Network,
        drive: Array,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
    ) -> Equilibrium:
        """Integrate to rest, as `equilibrium.Solver.relax` says."""
        return self.settle(network, drive, start, nudge, tolerance).equilibrium

    def settle(
        self,
        network: Network,
        drive: Array,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
    ) -> Settled:
        """`relax`, with the fields it took.

        `models.rate.residual` of the whole batch decides, before the first step and after the
        last: a sample that it does not find converged goes on while it has steps left.
        """
        start = prepare(network, drive, start, nudge)
        tolerance, limit = tolerance or Tolerance.default(network.dtype), int(self.max_steps)
        exact = OWN_UNITS if self.dt is None else accuracy(network.dtype, self.rtol, self.atol)
        with torch.no_grad(), precision("highest"), np.errstate(over="ignore", invalid="ignore"):
            batch = Batch.of(network, drive, start, nudge, chosen_device(self.device))
            residual, status = batch.judge(tolerance)
            rows = np.flatnonzero(status == OUT_OF_STEPS)
            while rows.size:
                company = StepGroup.of(batch, rows, self.method, self.dt, exact, tolerance)
                company.advance(np.inf, limit - int(batch.steps[rows].max()))
                company.leave(company.going)
                batch.fields[rows] += 1
                residual, status = batch.judge(tolerance)
                rows = np.flatnonzero((status == OUT_OF_STEPS) & (batch.steps < limit) & ~batch.stuck)
            state = layers(network, array(batch.state))
        return Settled(Equilibrium(state, residual, status, batch.steps, beta_of(nudge)), batch.fields + 1)

    def follow(self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array) -> Array:
        """The flat states (T, B, N) at the increasing `times`, each of them hit exactly.

        Constant steps are at most dt long and equal between two times. A sample that stops being
        finite, or whose step falls below rounding, is NaN from there on; so are all that are left
        where controlled steps, which they share, need more than max_steps between two times.
        """
        return self.walk(network, drive, start, nudge, times).states

    def walk(self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array) -> Walk:
        """`follow`, with what it took."""
        start = prepare(network, drive, start, nudge)
        times = check_times(times)
        exact = accuracy(network.dtype, self.rtol, self.atol)
        with torch.no_grad(), precision("highest"):
            batch = Batch.of(network, drive, start, nudge, chosen_device(self.device))
            path = np.full((len(times), *batch.state.shape), np.nan, network.dtype)
            path[0] = array(batch.state)
            company = StepGroup.of(batch, np.arange(len(drive)), self.method, self.dt, exact, None)
            for i, span in enumerate(np.diff(times), 1):
                limit = int(self.max_steps)
                if self.dt is not None:
                    limit = equal_steps(span, self.dt)
                    company.h = span / limit
                if not company.advance(float(span), limit):
                    break
                path[i, company.rows] = array(company.state)
            company.leave(company.going)
        path[1:][~np.isfinite(path[1:]).all(-1)] = np.nan
        return Walk(path, batch.steps, batch.fields)


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """An equilibrium, and how many fields (B,) were evaluated for each sample on the way to it."""

    equilibrium: Equilibrium
    fields: Array
