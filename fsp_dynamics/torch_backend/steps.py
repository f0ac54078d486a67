"""Steps of torchdiffeq, shared by samples that are independent of each other: what it calls for
ds/dt, before a step and for the size of an error.

torchdiffeq integrates one large state. A batch of samples that must not depend on each other needs
more:

- Its event function is not evaluated at the start, and stops a batch at the first sample to arrive.
  Here torchdiffeq runs without an end time, and is stopped by an exception of `callback_step`, at
  a state between two steps: when the last sample has arrived, or one must leave.
- Its error is the root mean square over the batch, in which many samples hide the error of one.
  Here it is the largest of the samples' own errors.
- A sample that is not finite ends the call for all. Here it leaves, and the others continue.
- With a constant allowance the residual stalls. While relaxing, the error allowed falls with each
  sample's own residual, as in the other integrators.
- What it returns at a requested time is interpolated by a polynomial, which rounds up to fifty
  times as much as the state, or by a straight line between two constant steps. Here a step ends
  at each of these times, and the state is that of the step.
- An Adams method with its twelve steps of history has nearly no stable step (explicit of order 11:
  0.003 time constants; of order 4: 0.3), and treats its history as one of equal steps even where
  the last was cut short. Here it has five, and begins anew where the step changes.
- fehlberg2 estimates the error of its first order formula at 1/256 of Heun's. That is too little
  for steps near the limit of stability, so its allowance is as much smaller while relaxing.
- adaptive_heun and fehlberg2 begin a step with the slope of the last stage before it, which is not
  the slope at the state they reached. That is theirs, and left as it is.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torchdiffeq import odeint

from fsp_dynamics.kernels.heed import heed
from fsp_dynamics.kernels.status import CONVERGED, NOT_FINITE
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, layers
from fsp_dynamics.solvers.equilibrium import Tolerance, judge
from fsp_dynamics.solvers.integration import MOTION, in_precision, longest_step
from fsp_dynamics.torch_backend.tensors import array, tensor, tensor_network, tensor_nudge

CONTROLLED = ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun")
CONSTANT = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams")
STRETCH = 1000  # constant steps in one call: torchdiffeq makes a grid of them all before it begins
# torchdiffeq's own four corrections are too few where the field is stiff
ADAMS = {"max_order": 5, "max_iters": 20}
SHARES = {"fehlberg2": 1 / 256}  # of MOTION


class StopIntegration(Exception):
    """Stops torchdiffeq at the state that `callback_step` received: the only way to do so between
    two steps.
    """


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The whole batch on its device, and what is recorded of each sample when it leaves its group.

    state (B, N): its state then. steps, fields (B,): how many it took. stuck (B,): its step fell
    below rounding.
    """

    network: Network
    drive: torch.Tensor
    nudge: Nudge | None
    state: torch.Tensor
    steps: Array
    fields: Array
    stuck: Array

    @staticmethod
    def of(network: Network, drive: Array, start: State, nudge: Nudge | None, device: torch.device) -> Batch:
        """As it is before the first step, in the network's precision."""
        drive, flat, nudge = in_precision(network, drive, start, nudge)
        steps, fields = np.zeros((2, len(flat)), np.int64)
        pull = tensor_nudge(nudge, network, device)
        weights, stuck = tensor_network(network, device), np.zeros(len(flat), bool)
        return Batch(weights, tensor(drive, device), pull, tensor(flat, device), steps, fields, stuck)

    def judge(self, tolerance: Tolerance) -> tuple[Array, Array]:
        """(residual, status) of each sample at present, (B,) each, by `models.rate.residual`."""
        residual = array(rate.residual(self.network, self.drive, layers(self.network, self.state), self.nudge))
        return residual, judge(residual, array(norm(self.state)), tolerance)


@dataclass(slots=True, eq=False)
class StepGroup:
    """Samples that step together.

    rows (b,): their places in the batch. drive, nudge, state: theirs. running (b,): those that have
    not left; the others are integrated further, without effect, until half have left. tolerance :
    when a sample has converged; None along a path. allowed (b,): the 2-norm that a sample's error
    may have, in units of `accuracy` (rtol, atol). longest : one fastest time constant. h : the next
    step. time : elapsed in this call of torchdiffeq, which may last for `span`. taken : steps
    tried, of at most `limit`. last : the latest state evaluated and ds/dt there, so that a step's
    end, its residual and the beginning of the next are one evaluation. blamed : the sample with
    the largest error in the last step tried.
    """

    batch: Batch
    method: str
    accuracy: tuple[float, float]
    tolerance: Tolerance | None
    rows: Array
    drive: torch.Tensor
    nudge: Nudge | None
    state: torch.Tensor
    running: Array
    allowed: torch.Tensor
    longest: float
    h: float
    time: float = 0.0
    span: float = math.inf
    taken: int = 0
    limit: int = 0
    fields: int = 0
    last: tuple[torch.Tensor, torch.Tensor] | None = None
    blamed: torch.Tensor | None = None

    @staticmethod
    def of(
        batch: Batch,
        rows: Array,
        method: str,
        dt: float | None,
        accuracy: tuple[float, float],
        tolerance: Tolerance | None,
    ) -> StepGroup:
        """These samples of the batch, where they are."""
        index = tensor(rows, batch.state.device)
        nudge = None if batch.nudge is None else batch.nudge.rows(index)
        state, longest = batch.state[index], longest_step(batch.network, batch.nudge)
        allowed = state.new_full((len(rows),), math.sqrt(state.shape[1]))  # root mean square over the units
        running, drive, h = np.ones(len(rows), bool), batch.drive[index], dt or 0.1 * longest
        return StepGroup(batch, method, accuracy, tolerance, rows, drive, nudge, state, running, allowed, longest, h)

    @property
    def controlled(self) -> bool:
        """Whether the method chooses its steps."""
        return self.method in CONTROLLED

    def advance(self, span: float, limit: int) -> bool:
        """Integrate for `span` (inf: until all have left) or a limit of steps; only running samples
        stay. Returns whether any reached the end.

        Controlled steps end with the span; constant ones, of h each, with the limit.
        """
        self.limit, self.span = self.taken + limit, span if self.controlled else math.inf
        while self.rows.size:
            self.time = 0.0
            self._integrate()
            arrived = self.time >= self.span or (not self.controlled and self.taken >= self.limit)
            self.span -= self.time
            self._cut()
            if arrived or self.taken >= self.limit:
                return arrived and bool(self.rows.size)
        return False

    def _integrate(self) -> None:
        """One call of torchdiffeq from the present state, until it is stopped or has taken its
        constant steps.
        """
        count = min(self.limit - self.taken, STRETCH)
        options = self._control() if self.controlled else self._grid(count)
        end = math.inf if self.controlled else count * self.h
        times = torch.tensor([0.0, end], dtype=torch.float64, device=self.state.device)
        rtol, atol = self.accuracy
        with suppress(StopIntegration):
            self.state = odeint(self, self.state, times, rtol=rtol, atol=atol, method=self.method, options=options)[-1]

    def _control(self) -> dict[str, object]:
        """torchdiffeq's options for controlled steps."""
        landing = None if math.isinf(self.span) else torch.tensor([self.span], dtype=torch.float64)
        return {
            "norm": self.excess,
            "first_step": self.h,
            "max_step": math.inf if self.tolerance is None else self.longest,
            "step_t": landing,
        }

    def _grid(self, count: int) -> dict[str, object]:
        """torchdiffeq's options for `count` constant steps, without a shorter one at the end."""

        def grid(_: object, __: object, t: torch.Tensor) -> torch.Tensor:
            return torch.arange(count + 1, dtype=t.dtype, device=t.device) * self.h

        history = ADAMS if self.method.endswith("adams") else {}
        return {"grid_constructor": grid, **history}

    def __call__(self, _: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """ds/dt (b, N)."""
        if self.last is None or self.last[0] is not state:
            network = self.batch.network
            self.last = state, torch.cat(rate.rate_field(network, self.drive, layers(network, state), self.nudge), -1)
            self.fields += 1
        return self.last[1]

    def excess(self, error: torch.Tensor) -> torch.Tensor:
        """The size of a step's error (b, N), in units of what is allowed: the largest of all
        samples, 1 where it is just allowed.
        """
        ratio = norm(error) / self.allowed
        ratio = torch.where(torch.isfinite(ratio), ratio, math.inf)
        self.blamed = ratio.argmax()
        return ratio.max()

    def callback_step(self, time: torch.Tensor, state: torch.Tensor, dt: torch.Tensor) -> None:
        """Called by torchdiffeq before it tries a step of `dt` from `state` (b, N). Raises
        StopIntegration where it must not.
        """
        heed()
        self.state, self.time = state, float(time)
        if self.time >= self.span:
            self.h = max(self.h, float(dt))  # a step cut short is no guide to the next
            raise StopIntegration
        if self.controlled:
            self.h = float(dt)
        if self._release() or self.taken >= self.limit or 2 * self.running.sum() <= len(self.running):
            raise StopIntegration
        self.taken += 1

    def _release(self) -> bool:
        """Record the samples that have converged, are not finite or can step no more. Returns
        whether there were any of the last two kinds.
        """
        size = norm(self.state)
        if self.tolerance is None:
            lost = ~np.isfinite(array(size))
            self.leave(lost)
        else:
            residual = self._residual(size)
            status = judge(array(residual), array(size), self.tolerance)
            lost = status == NOT_FINITE
            # before the first step `Batch.judge` has decided
            self.leave(lost | ((status == CONVERGED) & (self.taken > 0)))
            self._allow(residual, size)
        if self.controlled and self.blamed is not None and self.h <= self._shortest():
            lost[int(self.blamed)] = self.batch.stuck[self.rows[int(self.blamed)]] = True
            self.leave(lost)
            self.h = 0.1 * self.longest
        return bool(lost.any())

    def _residual(self, size: torch.Tensor) -> torch.Tensor:
        """The residual of each sample at the present state, (b,)."""
        network, field = self.batch.network, layers(self.batch.network, self(size, self.state))
        return rate.distance(network, field, self.nudge)

    def _allow(self, residual: torch.Tensor, size: torch.Tensor) -> None:
        """The error allowed in the next step: a share of each sample's motion, down to rounding;
        any for those that have left.
        """
        allowed = torch.maximum(MOTION * residual, torch.finfo(size.dtype).eps * (1 + size))
        self.allowed = torch.where(tensor(self.running, size.device), SHARES.get(self.method, 1.0) * allowed, math.inf)

    def _shortest(self) -> float:
        """The step below which rounding leaves nothing of it."""
        return max(torch.finfo(self.state.dtype).eps * self.longest, torch.finfo(torch.float64).eps * 2 * self.time)

    def leave(self, which: Array) -> None:
        """Record the state, steps and fields of those of `which` (b,) that are running, and stop
        them.
        """
        which = which & self.running
        if not which.any():  # nearly always; the recording takes ten times as long
            return
        rows = self.rows[which]
        self.batch.state[tensor(rows, self.state.device)] = self.state[tensor(which, self.state.device)]
        self.batch.steps[rows] += self.taken
        self.batch.fields[rows] += self.fields
        self.running = self.running & ~which

    def _cut(self) -> None:
        """Keep the rows of running samples only."""
        if self.running.all():
            return
        keep = tensor(self.running, self.state.device)
        self.rows, self.allowed = self.rows[self.running], self.allowed[keep]
        self.drive, self.state = self.drive[keep], self.state[keep]
        self.nudge = None if self.nudge is None else self.nudge.rows(keep)
        self.running, self.blamed = self.running[self.running], None


def norm(flat: torch.Tensor) -> torch.Tensor:
    """2-norm of each sample, (b,)."""
    return (flat * flat).sum(-1) ** 0.5
