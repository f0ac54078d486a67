"""The methods of `solvers.tableaux` compiled: samples step together, each with its own clock, step
size and stop, and share only the products.

Same settings with the same meaning as in `solvers.reference`, to rounding. With steps="sample" the
result has the same bits for any number of threads and any neighbours in the batch; with
steps="batch" for any number of threads. Compiling takes some seconds once (the code is kept on
disk for the activations of this package, and compiled in every process for an activation of your
own); with NUMBA_DISABLE_JIT=1 the same code runs as plain Python, the same to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.errors import check_choice
from fsp_dynamics.kernels.field import UnitInputs
from fsp_dynamics.kernels.panels import fill_panels, padded
from fsp_dynamics.kernels.relax import CompilationError, integrator
from fsp_dynamics.kernels.step_arrays import (
    LEFT,
    POST,
    REACHED,
    RESIDUAL,
    SIZE,
    STEPS_IN_ALL,
    TRIED,
    H,
    IntegrationScratch,
    S,
    SavedTimes,
    StepControl,
    StepForm,
    StepNet,
    StepTableau,
    StopBound,
)
from fsp_dynamics.kernels.team import Team, available
from fsp_dynamics.kernels.tiles import columns
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, layers
from fsp_dynamics.solvers.confirmation import ConfirmedIntegrator
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance, judge, prepare
from fsp_dynamics.solvers.integration import (
    MOTION,
    IntegrationResult,
    accuracy,
    check_settings,
    check_times,
    equal_steps,
    longest_step,
    uncompilable,
    warn_of_late,
)
from fsp_dynamics.solvers.tableaux import TABLEAUX, Tableau

NEVER = StopBound(-1.0, 0.0)  # a tolerance that no residual meets
# units and weights of all samples, below which a second thread costs more than it gains
FEW = 8_000
STEP_WORK = 20_000  # multiplications that take as long as the rest of a step of one sample
TOGETHER = 48  # samples that step together, as `NumbaSolver` says; eight tiles of a product
STEPS = ("sample", "batch")


@dataclass(frozen=True, slots=True)
class NumbaSolver(ConfirmedIntegrator):
    """Compiled Runge-Kutta integration with a constant step or a controlled step for each sample
    (an `Integrator`).

    Parameters
    ----------
    method : name of a tableau (`solvers.tableaux`).
    dt : constant step, in the time unit of the time constants; None: controlled, for methods with
        an error estimate.
    max_steps : steps a sample may try, in a relaxation or between two saved times.
    form : "rate", "projected" (eq. 13 literally, every state clipped to [0, 1], stages included)
        or None: projected for constant steps, rate for controlled ones. For a smooth rho all mean
        eq. 13.
    rtol, atol : error allowed in a controlled step along a path, for each unit atol + rtol |s|, as
        root mean square over the units. None: rtol 1e-9 (float32: 1e-6), atol as rtol. At the
        kinks of a hard sigmoid errors of 200 times that were seen with dopri5, and of 15 times
        with bosh3.
    steps : "sample": each sample has a step size of its own. "batch": one for all samples still
        running, allowed when the root mean square over all of them is, as where the batch is
        integrated as one large state; a sample that fails then fails the batch.

    In a relaxation, a step's error may be MOTION times the present residual, down to rounding, and
    a step no longer than one fastest time constant. Along a path, controlled steps are as long as
    their error allows and run over the saved times, where a polynomial of degree 4 through the step
    (3 for methods of lower order) is evaluated; constant steps land on each, and so do controlled
    ones of a hard sigmoid, at whose kinks a polynomial would be less exact than the step.

    Up to TOGETHER samples step together, each its own step, with one product for each matrix and
    stage; where one finishes, the next of the batch takes its place. Small nets need no method of
    their own. Microseconds for a step of Dormand and Prince and a sample (batch 192, logistic,
    float64, one thread of an AMD EPYC), by how many step together:

    ======  =====  =====  =====  =====  =====  =====
    units     1      6     12     24     48     96
    ======  =====  =====  =====  =====  =====  =====
        30    4.6    2.2    1.9    1.8    1.7    1.6
       300          14.7   14.6   14.7   15.0   16.0
      3000           900    870    816    782    774
    ======  =====  =====  =====  =====  =====  =====

    Raises ConfigurationError for settings that do not fit each other, and for an activation that
    Numba cannot compile.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> fsp.relax(network, images, solver=NumbaSolver("rk4", dt=0.1)).converged.tolist()
    [True, True]
    >>> path = fsp.simulate(network, images, [(2.0, None)], solver=NumbaSolver(rtol=1e-6), save=0.5)
    >>> path.states[-1].shape
    (5, 2, 3)
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

    def reach(
        self, network: Network, drive: Array, start: State, nudge: Nudge | None, tolerance: Tolerance, max_steps: int
    ) -> Equilibrium:
        """See `confirmation.ConfirmedIntegrator.reach`.

        Returns
        -------
        Equilibrium : of all B samples.
        """
        longest, eps = longest_step(network, nudge), float(np.finfo(network.dtype).eps)
        bound = StopBound(float(tolerance.absolute), float(tolerance.relative))
        control = StepControl(eps, eps, MOTION, longest, eps * longest)
        arrays = _PathArrays.of(network, start, np.array([0.0, np.inf]), self.dt or 0.1 * longest, keep=False)
        self._integrate(arrays, network, drive, nudge, bound, control, np.zeros(1), False, max_steps)
        residual, size = arrays.clock[RESIDUAL], arrays.clock[SIZE]
        state, status = layers(network, unpad(network, arrays.states[S])), judge(residual, size, tolerance)
        return Equilibrium(state, residual, status, arrays.count[STEPS_IN_ALL], beta_of(nudge))

    def follow(self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array) -> Array:
        """The flat states (T, B, N) at the increasing `times`.

        Constant steps are at most dt long and equal between two times. A sample that stops being
        finite or, controlled, needs more than max_steps between two times, of which a warning
        tells, is NaN from there on. Raises ConfigurationError for more than max_steps constant
        ones.

        Returns
        -------
        array : (T, B, N).
        """
        return self.integrate(network, drive, start, nudge, times).states

    def integrate(
        self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array
    ) -> IntegrationResult:
        """`follow`, with the numbers of steps and of fields evaluated.

        Returns
        -------
        IntegrationResult : the path (T, B, N), and steps and refused steps of each sample (B,).
        """
        start = prepare(network, drive, start, nudge)
        times = check_times(times)
        longest, eps = longest_step(network, nudge), float(np.finfo(network.dtype).eps)
        rtol, atol = accuracy(network.dtype, self.rtol, self.atol)
        spans, limit = np.diff(times), int(self.max_steps)
        dt = np.zeros_like(spans) if self.dt is None else spans / equal_steps(spans, self.dt, limit)
        h = dt[0] if self.dt is not None and len(dt) else 0.1 * longest
        arrays = _PathArrays.of(network, start, times, h, keep=True)
        if len(dt):
            # at a kink no polynomial is as exact as the step
            dense = self.dt is None and not network.rho.projected
            control = StepControl(atol, rtol, 0.0, np.inf, eps * longest)
            self._integrate(arrays, network, drive, nudge, NEVER, control, dt, dense, limit)
        arrays.path[np.arange(len(times))[:, None] > arrays.count[REACHED]] = np.nan
        warn_of_late((arrays.count[REACHED] < len(dt)) & (arrays.count[TRIED] >= limit), limit)
        steps = arrays.count[STEPS_IN_ALL]
        stages = len(extended(TABLEAUX[self.method], False).A) - 1
        return IntegrationResult(arrays.path, steps, len(dt[:1]) + stages * steps)

    def _form(self, network: Network, rate_norm: bool) -> StepForm:
        literal = self.form == "projected" or (self.form is None and self.dt is not None) or not network.rho.projected
        return StepForm(literal, literal and network.rho.projected, rate_norm)

    def _integrate(
        self,
        arrays: _PathArrays,
        network: Network,
        drive: Array,
        nudge: Nudge | None,
        bound: StopBound,
        control: StepControl,
        dt: Array,
        dense: bool,
        limit: int,
    ) -> None:
        """Run the kernel of kernels/relax.py on these arrays."""
        net, spans = pack_net(network)
        batch, size = len(drive), sum(network.sizes[1:])
        tableau, clock = extended(TABLEAUX[self.method], self.dt is None), arrays.clock
        after = np.append(arrays.times[-1] - arrays.times[:-1], 0.0)
        times = SavedTimes(after, np.diff(arrays.times), dt, dense, limit)
        clock[LEFT] = times.after[0] if dense else times.spans[0]
        each = size + sum(w.size for _, _, w in network.connections())
        threads, work = threads_for(batch, each), batch * limit * len(dt) * (len(tableau.A) * each + STEP_WORK)
        together = max(1, min(TOGETHER, -(-batch // threads)))
        inputs, form = pack_inputs(network, drive, nudge), self._form(network, bound.absolute >= 0)
        scratch = make_scratch(threads, together, batch, len(tableau.A), net.leak)
        arguments = (
            *(self.steps == "batch", size, bound, net, inputs, form, tableau, arrays.states, scratch),
            *(control, times, clock, arrays.count, spans, arrays.path),
        )
        try:
            # errstate matters only where the kernel runs as plain Python
            with np.errstate(all="ignore"), Team(threads) as team:
                team.run(integrator(network.rho.rate, network.rho.slope), *arguments, work=work)
        except CompilationError as error:
            raise uncompilable(network, error) from error


@dataclass(frozen=True, slots=True, eq=False)
class _PathArrays:
    """What the kernel writes (kernels/step_arrays.py): states, the path (T, B, N), clock and count
    of each sample.
    """

    times: Array
    states: Array
    path: Array
    clock: Array
    count: Array

    @staticmethod
    def of(network: Network, start: State, times: Array, h: float, keep: bool) -> _PathArrays:
        """As they are before the first step; without `keep` there is no path, only the last
        states.
        """
        batch = len(start[0])
        path = np.empty((len(times), batch if keep else 0, sum(network.sizes[1:])), network.dtype)
        states = np.zeros((5, batch, begins(network)[-1]), network.dtype)
        pad(network, start, states[S])
        if keep:
            path[0] = np.concatenate(start, axis=-1)
        clock = np.zeros((8, batch))
        clock[H] = h
        return _PathArrays(times, states, path, clock, np.zeros((4, batch), np.int64))


def make_scratch(threads: int, together: int, batch: int, stages: int, row: Array) -> IntegrationScratch:
    """Scratch of so many threads; `row` has the width and dtype of a padded state."""
    width, dtype = row.size, row.dtype
    return IntegrationScratch(
        k=np.zeros((threads, max(stages - 2, 1), together, width), dtype),
        block=np.zeros((threads, 3, together + 1, width), dtype),
        numbers=np.tile(np.arange(together), (threads, 1)),
        scaled=np.zeros((threads, stages), dtype),
        lists=np.zeros((threads, batch), np.int64),
        spare=np.zeros((threads, 1, width), dtype),
    )


def threads_for(batch: int, each: int) -> int:
    """How many threads a batch is worth; `each` is the units and weights of a network."""
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
    """Padded rows (B, P) -> flat states (B, N)."""
    return np.concatenate(
        [rows[:, begin : begin + n] for begin, n in zip(begins(network), network.sizes[1:], strict=False)], axis=1
    )


def pack_inputs(network: Network, drive: Array, nudge: Nudge | None) -> UnitInputs:
    """Drive, biases and nudge as kernels take them."""
    batch = len(drive)
    constant = pad(network, (drive, *network.biases[1:]), np.zeros((batch, begins(network)[-1]), network.dtype))
    d = np.zeros((batch, padded(network.sizes[-1], network.dtype)), network.dtype)
    if nudge is not None:
        d[:, : network.sizes[-1]] = nudge.target
    return UnitInputs(constant, d, beta_of(nudge))


def pack_net(network: Network) -> tuple[StepNet, Array]:
    """The weights as kernels take them, and the spans of the layers (kernels/step_arrays.py)."""
    places, at, wide = begins(network), 0, columns(network.dtype)
    connections = network.connections()
    weights = np.empty(sum(len(w) * padded(w.shape[1], w.dtype) for _, _, w in connections), network.dtype)
    links: list[tuple[int, ...]] = []
    for pre, post, weight in connections:
        units, panels = len(weight), padded(weight.shape[1], weight.dtype) // wide
        adds = places[post] in [link[POST] for link in links]
        links.append((places[pre], places[post], units, panels, at, adds))
        fill_panels(weight, weights[at : at + panels * units * wide].reshape(panels, units, wide))
        at += panels * units * wide
    leak = np.repeat([1 / r for r in network.time_constants], np.diff(places)).astype(network.dtype)
    sizes = network.sizes[1:]
    spans = np.column_stack([places[:-1], np.cumsum((0, *sizes[:-1])), sizes]).astype(np.int64)
    return StepNet(weights, np.array(links, np.int64), leak, places[-2]), spans


def extended(tableau: Tableau, controlled: bool) -> StepTableau:
    """The tableau as kernels take it, its last row leading to the new state; no error for a
    constant step.
    """
    rows = tableau.a if tableau.fsal else (*tableau.a, tableau.b)
    A = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        A[i, : len(row)] = row
    b = np.array([*tableau.b, *[0.0] * (len(rows) - len(tableau.b))])
    error = np.zeros(len(rows) if controlled and tableau.error is not None else 0)
    error[: len(tableau.b)] = tableau.error if len(error) and tableau.error is not None else ()
    if tableau.middle is not None:
        return StepTableau(A, error, np.array(tableau.middle), tableau.order)
    middle = b / 2  # of the cubic polynomial with the slopes of both ends
    middle[0] += 1 / 8
    middle[-1] -= 1 / 8
    return StepTableau(A, error, middle, tableau.order)
