"""The methods of `solvers.tableaux` compiled: each sample with its own clock, step size and stop, samples in parallel.

Same settings and same meaning as `solvers.reference`, to rounding. The result has the same bits for any number of threads and
any company in the batch. Compiling takes some seconds once (the result is kept on disk for the activations of this package,
and compiled in every process for an activation of your own); with NUMBA_DISABLE_JIT=1 the same code runs as plain Python.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.kernels.relax import CompilationError, integrator, threads
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, layers
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance, judge, prepare
from fsp_dynamics.solvers.integration import MOTION, check_settings, check_times, equal_steps, in_precision, longest_step, uncompilable
from fsp_dynamics.solvers.tableaux import TABLEAUX, Tableau

NEVER = (-1.0, 0.0)  # a rest tolerance that no residual meets
UNLIMITED = 2**62
FEW = 100_000  # products of all samples in one pass, below which waking a second thread costs more than it brings


@dataclass(frozen=True, slots=True)
class NumbaSolver:
    """Compiled Runge-Kutta integration with a constant step or a controlled step for each sample (an `Integrator`).

    Parameters
    ----------
    method : name of a tableau (`solvers.tableaux`).
    dt : constant step, in the time unit of the time constants; None: controlled, for methods with an error estimate.
    max_steps : steps a sample may try, in a relaxation or, controlled, between two saved times.
    form : "rate", "projected" (eq. 13 literally, every state clipped to [0, 1], stages included) or None: projected for
        constant steps, rate for controlled ones. For a smooth rho all mean eq. 13.

    Control: relaxing, a step's error may be MOTION times the distance covered in one fastest time constant at the present
    residual, down to rounding; following, 1e-9 (float32: 1e-6) times 1 + ||s||.

    Raises ConfigurationError for settings that do not fit each other, and for an activation that Numba cannot compile.
    """

    method: str = "dopri5"
    dt: float | None = None
    max_steps: int = 10_000
    form: str | None = None

    def __post_init__(self) -> None:
        check_settings(self.method, self.dt, self.max_steps, self.form)

    def relax(
        self,
        network: Network,
        drive: Array,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
    ) -> Equilibrium:
        """Integrate to rest, as `equilibrium.Solver.relax` says; `steps` counts rejected steps too."""
        start = prepare(network, drive, start, nudge)
        tolerance = tolerance or Tolerance.default(network.dtype)
        longest, eps = longest_step(network, nudge), float(np.finfo(network.dtype).eps)
        rest = (float(tolerance.absolute), float(tolerance.relative))
        control = (eps, eps, MOTION * longest, longest)
        h = np.array([self.dt or 0.1 * longest], np.float64)
        run = self._run(network, drive, start, nudge, np.array([0.0, np.inf]), h, int(self.max_steps), rest, control)
        return Equilibrium(
            layers(network, run.states[:, 0]),
            run.residual,
            judge(run.residual, run.size, tolerance),
            run.steps,
            0.0 if nudge is None else float(nudge.beta),
        )

    def follow(self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array) -> Array:
        """The flat states (T, B, N) at the increasing `times`, each of them hit exactly.

        Constant steps are at most dt long and equal between two times. A sample that stops being finite or, controlled,
        needs more than max_steps between two times is NaN from there on.
        """
        start = prepare(network, drive, start, nudge)
        times = check_times(times)
        longest, accuracy = longest_step(network, nudge), 1e-6 if network.dtype == np.float32 else 1e-9
        h, limit = np.zeros(len(times) - 1), int(self.max_steps)
        if self.dt is None:
            h[:1] = 0.1 * longest
        else:
            h[:], limit = [span / equal_steps(span, self.dt) for span in np.diff(times)], UNLIMITED
        run = self._run(network, drive, start, nudge, times, h, limit, NEVER, (accuracy, accuracy, 0.0, longest))
        path = np.concatenate([run.start[:, None], run.states], axis=1).swapaxes(0, 1)
        path[np.arange(len(times))[:, None] > run.reached] = np.nan
        return path

    def _run(
        self,
        network: Network,
        drive: Array,
        start: State,
        nudge: Nudge | None,
        times: Array,
        h: Array,
        limit: int,
        rest: tuple[float, float],
        control: tuple[float, float, float, float],
    ) -> _Run:
        """Everything as arrays, into the kernel (whose words these are) and out again."""
        drive, flat, nudge = in_precision(network, drive, start, nudge)
        literal = self.form == "projected" or (self.form is None and self.dt is not None) or not network.rho.projected
        run = _Run(flat, np.empty((len(flat), len(h), flat.shape[1]), flat.dtype), *np.zeros((2, len(flat)), np.int64), *np.zeros((2, len(flat))))
        weights, wires, ends = pack_net(network)
        inputs = (*pack_inputs(network, drive, nudge), times, h, limit, rest, (weights, wires, ends))
        units = (*pack_pulls(network, nudge), literal, literal and network.rho.projected)
        try:
            # errstate matters only where the kernel runs as plain Python
            with np.errstate(all="ignore"), threads(1 if len(flat) * weights.size < FEW else None):
                integrator(network.rho.rate, network.rho.slope)(
                    flat, *inputs, units, pack_tableau(TABLEAUX[self.method], self.dt is None), control,
                    run.states, run.reached, run.steps, run.residual, run.size,
                )  # fmt: skip
        except CompilationError as error:
            raise uncompilable(network, error) from error
        return run


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """start (B, N) and what the kernel found: states (B, T-1, N), and per sample the number of times reached, steps, ||field||, ||s||."""

    start: Array
    states: Array
    reached: Array
    steps: Array
    residual: Array
    size: Array


def pack_inputs(network: Network, drive: Array, nudge: Nudge | None) -> tuple[Array, Array]:
    """(constant, d), each (B, N): what enters each unit whatever the others do, and where the nudge pulls it."""
    batch = len(drive)
    constant = np.empty((batch, sum(network.sizes[1:])), network.dtype)
    for part, entering in zip(layers(network, constant), (drive, *network.biases[1:]), strict=True):
        part[:] = entering
    d = np.zeros_like(constant)
    if nudge is not None:
        d[:, -network.sizes[-1] :] = nudge.target
    return constant, d


def pack_net(network: Network) -> tuple[Array, Array, Array]:
    """(weights, wires, ends) of kernels/field.py; a tied matrix is stored once and read both ways."""
    stored: list[Array] = []
    wires: list[tuple[int, int, int, int]] = []
    offset, offsets = 0, dict[int, int]()
    for pre, post, weight in network.connections():
        if network.tied and post < pre:
            wires.append((pre, post, offsets[post], 1))
            continue
        wires.append((pre, post, offset, 0))
        offsets[pre] = offset
        stored.append(weight.ravel())
        offset += weight.size
    return np.concatenate(stored), np.array(wires, np.int64), np.cumsum((0, *network.sizes[1:]))


def pack_pulls(network: Network, nudge: Nudge | None) -> tuple[Array, Array]:
    """(leak, pull) of each unit, (N,)."""
    leak = np.repeat([1 / r for r in network.time_constants], network.sizes[1:]).astype(network.dtype)
    pull = np.zeros_like(leak)
    if nudge is not None:
        pull[-network.sizes[-1] :] = nudge.beta
    return leak, pull


def pack_tableau(tableau: Tableau, controlled: bool) -> tuple[Array, Array, Array, int, bool]:
    """(A, b, e, order, fsal) of kernels/relax.py; e is empty for a constant step."""
    A = np.zeros((len(tableau.b), len(tableau.b)))
    for i, row in enumerate(tableau.a):
        A[i, : len(row)] = row
    error = tableau.error if controlled and tableau.error is not None else ()
    return A, np.array(tableau.b), np.array(error, np.float64), tableau.order, tableau.fsal
