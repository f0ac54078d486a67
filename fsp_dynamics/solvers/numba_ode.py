"""The methods of `solvers.tableaux` compiled: samples step together, each with its own clock, step
size and stop, and share only the products.

Same settings and same meaning as `solvers.reference`, to rounding. With steps="sample" the result
has the same bits for any number of threads and any company in the batch; with steps="batch" for
any number of threads. Compiling takes some seconds once (the result is kept on disk for the
activations of this package, and compiled in every process for an activation of your own); with
NUMBA_DISABLE_JIT=1 the same code runs as plain Python, the same to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.errors import check_choice
from fsp_dynamics.kernels.panels import fill_panels, padded
from fsp_dynamics.kernels.relax import LEFT, REACHED, RESIDUAL, SIZE, STEPS_IN_ALL, CompilationError, H, integrator
from fsp_dynamics.kernels.steps import S
from fsp_dynamics.kernels.team import Team, available
from fsp_dynamics.kernels.tiles import columns
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, layers
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance, judge, prepare
from fsp_dynamics.solvers.integration import (
    MOTION,
    Walk,
    accuracy,
    check_settings,
    check_times,
    equal_steps,
    longest_step,
    uncompilable,
)
from fsp_dynamics.solvers.tableaux import TABLEAUX, Tableau

NEVER = (-1.0, 0.0)  # a rest tolerance that no residual meets
UNLIMITED = 2**62
# units and weights of all samples, below which a second thread costs more than it brings
FEW = 8_000
TOGETHER = 48  # samples that step together, as `NumbaSolver` says; eight tiles of a product
STEPS = ("sample", "batch")


@dataclass(frozen=True, slots=True)
class NumbaSolver:
    """Compiled Runge-Kutta integration with a constant step or a controlled step for each sample
    (an `Integrator`).

    Parameters
    ----------
    method : name of a tableau (`solvers.tableaux`).
    dt : constant step, in the time unit of the time constants; None: controlled, for methods with
        an error estimate.
    max_steps : steps a sample may try, in a relaxation or, controlled, between two saved times.
    form : "rate", "projected" (eq. 13 literally, every state clipped to [0, 1], stages included)
        or None: projected for constant steps, rate for controlled ones. For a smooth rho all mean
        eq. 13.
    rtol, atol : error allowed in a controlled step along a path, for each unit atol + rtol |s|, as
        root mean square over the units. None: rtol 1e-9 (float32: 1e-6), atol as rtol. At the
        kinks of a hard sigmoid errors of 200 times that were seen with dopri5, and of 15 times
        with bosh3.
    steps : "sample": each sample has a step size of its own. "batch": one for all samples still on
        their way, allowed when the root mean square over all of them is, as where the batch is
        integrated as one large state; a sample that fails then fails the batch.

    Relaxing, a step's error may be MOTION times the distance covered in one fastest time constant
    at the present residual, down to rounding, and a step no longer than that time constant.
    Following, controlled steps are as long as their error allows and run over the saved times,
    where a polynomial of degree 4 through the step (3 for methods of lower order) is read off;
    constant steps land on each, and so do controlled ones of a hard sigmoid, at whose kinks a
    polynomial would be less exact than the step.

    How it runs: up to TOGETHER samples step together, each its own step, and what enters their
    units is one product for each matrix and stage; where one arrives, the next of the batch takes
    its place. Small nets need no way of their own. Microseconds for a step of Dormand and Prince
    and a sample (batch 192, logistic, float64, one thread of an AMD EPYC), by how many step
    together:

    ======  =====  =====  =====  =====  =====  =====
    units     1      6     12     24     48     96
    ======  =====  =====  =====  =====  =====  =====
        30    4.6    2.2    1.9    1.8    1.7    1.6
       300          14.7   14.6   14.7   15.0   16.0
      3000           900    870    816    782    774
    ======  =====  =====  =====  =====  =====  =====

    Raises ConfigurationError for settings that do not fit each other, and for an activation that
    Numba cannot compile.
    """

    method: str = "dopri5"
    dt: float | None = None
    max_steps: int = 10_000
    form: str | None = None
    rtol: float | None = None
    atol: float | None = None
    steps: str = "sample"

    def __post_init__(self) -> None:
        check_settings(self.method, self.dt, self.max_steps, self.form, self.rtol, self.atol)
        check_choice("steps", self.steps, STEPS)

    def relax(
        self,
        network: Network,
        drive: Array,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
    ) -> Equilibrium:
        """Integrate to rest, as `equilibrium.Solver.relax` says; `steps` counts rejected steps
        too.
        """
        start = prepare(network, drive, start, nudge)
        tolerance = tolerance or Tolerance.default(network.dtype)
        longest, eps = longest_step(network, nudge), float(np.finfo(network.dtype).eps)
        rest = (float(tolerance.absolute), float(tolerance.relative))
        control = (eps, eps, MOTION * longest, longest, eps * longest)
        run = _Run.of(network, start, np.array([0.0, np.inf]), self.dt or 0.1 * longest, keep=False)
        self._integrate(run, network, drive, nudge, rest, control, np.zeros(1), False, int(self.max_steps))
        return Equilibrium(
            layers(network, unpad(network, run.standing[S])),
            run.clock[RESIDUAL],
            judge(run.clock[RESIDUAL], run.clock[SIZE], tolerance),
            run.count[STEPS_IN_ALL],
            beta_of(nudge),
        )

    def follow(self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array) -> Array:
        """The flat states (T, B, N) at the increasing `times`.

        Constant steps are at most dt long and equal between two times. A sample that stops being
        finite or, controlled, needs more than max_steps between two times is NaN from there on.
        """
        return self.walk(network, drive, start, nudge, times).states

    def walk(self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array) -> Walk:
        """`follow`, with what it took."""
        start = prepare(network, drive, start, nudge)
        times = check_times(times)
        longest, eps = longest_step(network, nudge), float(np.finfo(network.dtype).eps)
        rtol, atol = accuracy(network.dtype, self.rtol, self.atol)
        dt, limit = np.zeros(len(times) - 1), int(self.max_steps)
        if self.dt is not None:
            dt[:], limit = [span / equal_steps(span, self.dt) for span in np.diff(times)], UNLIMITED
        run = _Run.of(network, start, times, dt[0] if self.dt is not None and len(dt) else 0.1 * longest, keep=True)
        if len(dt):
            # at a kink no polynomial is as exact as the step
            dense = self.dt is None and not network.rho.projected
            self._integrate(
                run, network, drive, nudge, NEVER, (atol, rtol, 0.0, np.inf, eps * longest), dt, dense, limit
            )
        run.path[np.arange(len(times))[:, None] > run.count[REACHED]] = np.nan
        steps = run.count[STEPS_IN_ALL]
        stages = len(extended(TABLEAUX[self.method], False)[0]) - 1
        return Walk(run.path, steps, len(dt[:1]) + stages * steps)

    def _units(self, network: Network) -> tuple[bool, bool]:
        """(literal, boxed) of kernels/steps.py."""
        literal = self.form == "projected" or (self.form is None and self.dt is not None) or not network.rho.projected
        return literal, literal and network.rho.projected

    def _integrate(
        self,
        run: _Run,
        network: Network,
        drive: Array,
        nudge: Nudge | None,
        rest: tuple[float, float],
        control: tuple[float, float, float, float, float],
        dt: Array,
        dense: bool,
        limit: int,
    ) -> None:
        """Everything as arrays, into the kernel, whose words these are."""
        net, spans = pack_net(network)
        batch, size = len(drive), sum(network.sizes[1:])
        tableau = extended(TABLEAUX[self.method], self.dt is None)
        course = (np.append(run.times[-1] - run.times[:-1], 0.0), np.diff(run.times), dt, dense, limit)
        run.clock[LEFT] = course[0][0] if dense else course[1][0]
        members = team_size(batch, size + sum(w.size for _, _, w in network.connections()))
        together = max(1, min(TOGETHER, -(-batch // members)))
        arguments = (
            self.steps == "batch", size, rest, net, pack_inputs(network, drive, nudge), (*self._units(network), rest[0] >= 0), tableau,
            run.standing, make_work(members, together, batch, len(tableau[0]), net[2]), control, course, run.clock, run.count, spans, run.path,
        )  # fmt: skip
        try:
            # errstate matters only where the kernel runs as plain Python
            with np.errstate(all="ignore"), Team(members) as team:
                team.run(integrator(network.rho.rate, network.rho.slope), *arguments)
        except CompilationError as error:
            raise uncompilable(network, error) from error


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What the kernel writes (kernels/relax.py): the standing rows, the path (T, B, N), clock and
    count of each sample.
    """

    times: Array
    standing: Array
    path: Array
    clock: Array
    count: Array

    @staticmethod
    def of(network: Network, start: State, times: Array, h: float, keep: bool) -> _Run:
        """As it is before the first step; without `keep` there is no path, only where the samples
        are in the end.
        """
        batch = len(start[0])
        path = np.empty((len(times), batch if keep else 0, sum(network.sizes[1:])), network.dtype)
        standing = np.zeros((5, batch, begins(network)[-1]), network.dtype)
        pad(network, start, standing[S])
        if keep:
            path[0] = np.concatenate(start, axis=-1)
        clock = np.zeros((8, batch))
        clock[H] = h
        return _Run(times, standing, path, clock, np.zeros((4, batch), np.int64))


def make_work(members: int, together: int, batch: int, stages: int, row: Array) -> tuple[Array, ...]:
    """What the members of a team work with, as kernels/relax.py says."""
    width, dtype = row.size, row.dtype
    return (
        np.zeros((members, max(stages - 2, 1), together, width), dtype),
        np.zeros((members, 3, together + 1, width), dtype),
        np.tile(np.arange(together), (members, 1)),
        np.zeros((members, stages), dtype),
        np.zeros((members, batch), np.int64),
        np.zeros((members, 1, width), dtype),
    )


def team_size(batch: int, each: int) -> int:
    """How many threads to share the samples among; `each` is the units and weights of a network."""
    return 1 if batch * each < FEW else min(available(), batch)


def begins(network: Network) -> list[int]:
    """Where each layer begins in a padded row, and where the row ends."""
    return [0, *(int(end) for end in np.cumsum([padded(n, network.dtype) for n in network.sizes[1:]]))]


def pad(network: Network, state: State, rows: Array) -> Array:
    """rows (B, P), zeros until now, <- the layers side by side, each padded to whole panels; in
    the network's dtype.
    """
    for s, begin, n in zip(state, begins(network), network.sizes[1:], strict=False):
        rows[:, begin : begin + n] = s
    return rows


def unpad(network: Network, rows: Array) -> Array:
    """(B, N) of padded rows."""
    return np.concatenate(
        [rows[:, begin : begin + n] for begin, n in zip(begins(network), network.sizes[1:], strict=False)], axis=1
    )


def pack_inputs(network: Network, drive: Array, nudge: Nudge | None) -> tuple[Array, Array, float]:
    """(constant, d, beta): what enters each unit whatever the others do (B, P); where to (B, P_L)
    and how strongly the nudge pulls the outputs.
    """
    batch = len(drive)
    constant = pad(network, (drive, *network.biases[1:]), np.zeros((batch, begins(network)[-1]), network.dtype))
    d = np.zeros((batch, padded(network.sizes[-1], network.dtype)), network.dtype)
    if nudge is not None:
        d[:, : network.sizes[-1]] = nudge.target
    return constant, d, beta_of(nudge)


def pack_net(network: Network) -> tuple[tuple[Array, Array, Array, int], Array]:
    """((weights, wires, leak, output), spans) of kernels/steps.py and kernels/relax.py."""
    places, at, wide = begins(network), 0, columns(network.dtype)
    connections = network.connections()
    weights = np.empty(sum(len(w) * padded(w.shape[1], w.dtype) for _, _, w in connections), network.dtype)
    wires: list[tuple[int, ...]] = []
    for pre, post, weight in connections:
        units, panels = len(weight), padded(weight.shape[1], weight.dtype) // wide
        wires.append((places[pre], places[post], units, panels, at, places[post] in [wire[1] for wire in wires]))
        fill_panels(weight, weights[at : at + panels * units * wide].reshape(panels, units, wide))
        at += panels * units * wide
    leak = np.repeat([1 / r for r in network.time_constants], np.diff(places)).astype(network.dtype)
    sizes = network.sizes[1:]
    spans = np.column_stack([places[:-1], np.cumsum((0, *sizes[:-1])), sizes]).astype(np.int64)
    return (weights, np.array(wires, np.int64), leak, places[-2]), spans


def extended(tableau: Tableau, controlled: bool) -> tuple[Array, Array, Array, int]:
    """(A, e, middle, order) of kernels/steps.py; e is empty for a constant step."""
    rows = tableau.a if tableau.fsal else (*tableau.a, tableau.b)
    A = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        A[i, : len(row)] = row
    b = np.array([*tableau.b, *[0.0] * (len(rows) - len(tableau.b))])
    error = np.zeros(len(rows) if controlled and tableau.error is not None else 0)
    error[: len(tableau.b)] = tableau.error if len(error) and tableau.error is not None else ()
    if tableau.middle is not None:
        return A, error, np.array(tableau.middle), tableau.order
    middle = b / 2  # of the cubic polynomial with the slopes of both ends
    middle[0] += 1 / 8
    middle[-1] -= 1 / 8
    return A, error, middle, tableau.order
