"""Input and result of a solver, and the promises that every solver keeps.

1. Converged means a small RESIDUAL, the distance that the field would still move the units, at an
   equilibrium that is stable: the dynamics stay there. The status is the reason for stopping; a
   tighter tolerance tightens the residual.
2. A sample's equilibrium does not depend on its neighbours in the batch.
3. A start that has already converged returns with zero steps.
4. Inputs are never modified.
5. Failure is data: `Equilibrium.require_converged` raises NotConvergedError, which carries the
   equilibrium.

`tests/test_solvers_agree.py` holds every solver to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fsp_dynamics.arrays import floats
from fsp_dynamics.display import html_table, largest
from fsp_dynamics.errors import ConfigurationError, NotConvergedError, check_shape
from fsp_dynamics.kernels.status import CONVERGED, NOT_FINITE, OSCILLATES, OUT_OF_STEPS, Limits
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, zero_state
from fsp_dynamics.plotting.equilibria import plot_equilibrium

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Status(IntEnum):
    """How the relaxation of one sample ended (the integers of kernels/status.py).

    >>> Status(0), Status.OSCILLATES.name
    (<Status.CONVERGED: 0>, 'OSCILLATES')
    """

    CONVERGED = CONVERGED
    OUT_OF_STEPS = OUT_OF_STEPS
    NOT_FINITE = NOT_FINITE
    OSCILLATES = OSCILLATES


FLOOR = 2.0  # residual of a state rounded to its precision, in eps for each unit

ENDINGS = np.array([status.name.lower().replace("_", " ") for status in Status])


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A sample has converged when its residual ||field / (leak + beta)|| is at most absolute +
    relative ||state|| (2-norms over all its units), at a stable equilibrium.

    The residual is a distance, in units of the state, so that convergence does not depend on the
    unit of time.

    >>> import fsp_dynamics as fsp
    >>> tolerance = fsp.Tolerance(1e-4, relative=1e-3)
    >>> tolerance.bound(np.array([0.0, 10.0])).round(6).tolist()
    [0.0001, 0.0101]
    >>> Tolerance.default(np.float64)
    Tolerance(absolute=1e-12, relative=1e-13)
    >>> Tolerance(1e-9).attainable(np.float32, units=100).absolute > 1e-7
    True
    >>> tolerance.limits(50).max_passes
    50
    """

    absolute: float = 1e-6
    relative: float = 0.0

    def __post_init__(self) -> None:
        for name in ("absolute", "relative"):
            value = getattr(self, name)
            if not (isinstance(value, int | float | np.number) and np.isfinite(value) and value >= 0):
                raise ConfigurationError(f"tolerance {name} = {value!r}, expected a finite number, 0 or more")
        if self.absolute == self.relative == 0:
            raise ConfigurationError(
                "tolerance absolute = relative = 0 can never be met; give one of them a positive value"
            )

    @staticmethod
    def default(dtype: npt.DTypeLike) -> Tolerance:
        """What rounding allows: (1e-5, 1e-6) in float32, (1e-12, 1e-13) in float64.

        Returns
        -------
        Tolerance : of that precision.
        """
        return Tolerance(1e-5, 1e-6) if np.dtype(dtype) == np.float32 else Tolerance(1e-12, 1e-13)

    def attainable(self, dtype: npt.DTypeLike, units: int) -> Tolerance:
        """This tolerance, or what rounding allows a network of so many units where it is less:
        FLOOR eps sqrt(units).

        Returns
        -------
        Tolerance : this one, or a wider one.
        """
        floor = FLOOR * float(np.finfo(np.dtype(dtype)).eps) * units**0.5
        return self if self.absolute + self.relative >= floor else Tolerance(floor, self.relative)

    def bound(self, state_norm: Array) -> Array:
        """absolute + relative ||state||, (B,).

        Returns
        -------
        array : (B,).
        """
        return self.absolute + self.relative * state_norm

    def limits(self, max_passes: int) -> Limits:
        """This tolerance and the most passes a sample may have, as kernels take them.

        Returns
        -------
        Limits : (absolute, relative, passes).
        """
        return Limits(float(self.absolute), float(self.relative), int(max_passes))


@dataclass(frozen=True, slots=True, eq=False)
class Equilibrium:
    """The result of a relaxation.

    state : tuple of (B, n_k), the unit states of each layer.
    residual : (B,) ||field / (leak + beta)|| of each sample there (`models.rate.residual`): how far
        its units would still move.
    status : (B,) uint8 values of `Status`.
    steps : (B,) passes or integration steps of each sample.
    beta : strength of the nudge it was relaxed under; 0 in the free phase.
    period : (B,) of the samples that oscillate, else NaN; None where no sample does.
    abscissa : (B,) on request (`relax(..., certify=True)`), else None: the largest real part of the
        eigenvalues of the field's Jacobian there, per unit time. Below 0 the equilibrium is
        certified to be stable; NaN where a sample did not converge.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> free = fsp.relax(network, images).require_converged()
    >>> free.layers, [s.shape for s in free.state], free.output.shape
    (['hidden_1', 'output'], [(2, 8), (2, 3)], (2, 3))
    >>> free.converged.tolist(), free.endings.tolist()
    ([True, True], ['converged', 'converged'])
    >>> one = free.rows(np.array([0]))
    >>> one.output.shape, free.with_rows(np.array([1]), one).steps.shape
    ((1, 3), (2,))
    >>> free.to_frame().shape, len(free.plot().axes)
    ((6, 9), 3)
    """

    state: State
    residual: Array
    status: Array
    steps: Array
    beta: float = 0.0
    period: Array | None = None
    abscissa: Array | None = None

    def __repr__(self) -> str:
        furthest = (
            f"; residual up to {self.residual.max():.2g}, steps up to {self.steps.max()}" if len(self.status) else ""
        )
        layers = ", ".join(str(s.shape[1]) for s in self.state)
        return f"<Equilibrium of layers {layers}: {self._ended()}{furthest}; beta {self.beta:g}>"

    def _repr_html_(self) -> str:
        rows = {
            "layers": ", ".join(str(s.shape[1]) for s in self.state),
            "beta": f"{self.beta:g}",
            "samples": self._ended(),
        }
        return html_table(
            "Equilibrium", rows | {"residual up to": largest(self.residual), "steps up to": self.steps.max(initial=0)}
        )

    def _ended(self) -> str:
        """How many samples ended in each way."""
        counts = zip(np.bincount(self.status, minlength=len(ENDINGS)), ENDINGS, strict=True)
        return ", ".join(f"{count} {ending}" for count, ending in counts if count) or "no sample"

    @property
    def output(self) -> Array:
        """(B, n_L) state of the output layer."""
        return self.state[-1]

    @property
    def layers(self) -> list[str]:
        """The names of the layers: hidden_1, ..., output."""
        return layer_names(len(self.state))

    @property
    def converged(self) -> Array:
        """(B,) bool."""
        return self.status == Status.CONVERGED

    @property
    def endings(self) -> Array:
        """(B,) the status in words: "converged", "out of steps", "not finite" or "oscillates"."""
        return ENDINGS[self.status]

    def rows(self, index: Array) -> Equilibrium:
        """The equilibria of some samples.

        Returns
        -------
        Equilibrium : of A samples.
        """
        state = tuple(s[index] for s in self.state)
        period, abscissa = (None if each is None else each[index] for each in (self.period, self.abscissa))
        return Equilibrium(
            state, self.residual[index], self.status[index], self.steps[index], self.beta, period, abscissa
        )

    def with_rows(self, index: Array, part: Equilibrium) -> Equilibrium:
        """A copy in which the samples `index` are as in `part`, a certificate left out.

        Returns
        -------
        Equilibrium : of all B samples.
        """
        state = tuple(s.copy() for s in self.state)
        residual, status, steps = self.residual.copy(), self.status.copy(), self.steps.copy()
        period = np.full(len(status), np.nan) if self.period is None else self.period.copy()
        for kept, new in zip(state, part.state, strict=True):
            kept[index] = new
        residual[index], status[index], steps[index] = part.residual, part.status, part.steps
        period[index] = np.nan if part.period is None else part.period
        return Equilibrium(state, residual, status, steps, self.beta, period if np.isfinite(period).any() else None)

    def require_converged(self) -> Equilibrium:
        """This equilibrium, if every sample has converged; else raises NotConvergedError, which
        carries it.

        Returns
        -------
        Equilibrium : itself.
        """
        if self.converged.all():
            return self
        unconverged = np.flatnonzero(~self.converged)
        first = int(unconverged[0])
        raise NotConvergedError(
            f"{len(unconverged)} of {len(self.status)} samples have not converged (first: sample {first}, "
            f"{Status(int(self.status[first])).name}, residual {self.residual[first]:.3g} after "
            f"{int(self.steps[first])} steps); allow more steps, a looser tolerance or a weaker loop",
            self,
        )

    def to_frame(self, *, hidden: bool = False) -> DataFrame:
        """A pandas.DataFrame with a row for each sample and output unit; hidden : the units of the
        hidden layers too. `.to_csv(path)` saves it.

        Columns sample, layer, unit, state (1), residual (1), status, steps, beta (per unit time),
        period (time; NaN where nothing oscillates), and abscissa (per unit time) where it was asked
        for; values of a sample are repeated in all of its rows. An equilibrium has no activation:
        rates are `network.rho.rate` of the states. Units are in `attrs["units"]` too.

        Returns
        -------
        pandas.DataFrame : B n_L rows, or B N with the hidden layers.
        """
        import pandas

        chosen = list(zip(self.layers, self.state, strict=True))[0 if hidden else -1 :]
        unit = np.concatenate([np.arange(s.shape[1]) for _, s in chosen])
        layer = np.concatenate([[name] * s.shape[1] for name, s in chosen])
        count = len(self.status)
        frame = pandas.DataFrame(
            {
                "sample": np.repeat(np.arange(count), len(unit)),
                "layer": np.tile(layer, count),
                "unit": np.tile(unit, count),
                "state": np.concatenate([s for _, s in chosen], axis=1).ravel(),
            }
        )
        per_sample = {
            "residual": self.residual,
            "status": self.endings,
            "steps": self.steps,
            "beta": np.full(count, self.beta),
            "period": np.full(count, np.nan) if self.period is None else self.period,
        }
        if self.abscissa is not None:
            per_sample["abscissa"] = self.abscissa
        frame = frame.assign(**{name: np.repeat(values, len(unit)) for name, values in per_sample.items()})
        units = {"state": "1", "residual": "1", "beta": "1 / time", "period": "time", "abscissa": "1 / time"}
        frame.attrs["units"] = {name: unit for name, unit in units.items() if name in frame}
        return frame

    def plot(self, ax: Axes | Sequence[Axes] | None = None, *, sample: int | None = None) -> Figure:
        """Residuals and outputs of the batch, or the states of one sample
        (`plotting.equilibria.plot_equilibrium`).

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        return plot_equilibrium(self, ax, sample=sample)


def layer_names(depth: int) -> list[str]:
    """hidden_1, ..., output: a name for each of so many layers."""
    return [*(f"hidden_{k + 1}" for k in range(depth - 1)), "output"]


@runtime_checkable
class Solver(Protocol):
    """Anything that computes equilibria. A solver is an immutable record of its settings.

    >>> import fsp_dynamics as fsp
    >>> isinstance(fsp.make_solver(), Solver), isinstance(fsp.make_solver("reference"), Integrator)
    (True, True)
    >>> network = fsp.loop_network([4, 8, 3], rng=0)
    >>> fsp.make_solver().relax(network, np.zeros((2, 8), np.float32)).output.shape
    (2, 3)
    """

    def relax(
        self,
        network: Network,
        drive: Array,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
    ) -> Equilibrium:
        """The equilibria of the field that belong to `start` (zeros if None).

        drive : (B, n_1) from `models.rate.drive`. nudge : None in the free phase. tolerance :
        `Tolerance.default` of the network's dtype if None. Raises ShapeError and
        ConfigurationError for unusable input, never for a sample that does not converge; one
        whose drive or start is NaN has status NOT_FINITE.

        Returns
        -------
        Equilibrium : of all B samples.
        """
        ...


@runtime_checkable
class Integrator(Solver, Protocol):
    """A solver that integrates in time, and can therefore also return the path.

    >>> import fsp_dynamics as fsp
    >>> network, solver = fsp.loop_network([4, 8, 3], rng=0), fsp.make_solver("reference")
    >>> silent, times = zero_state(network, 2), np.linspace(0, 1, 5)
    >>> solver.follow(network, np.zeros((2, 8), np.float32), silent, None, times).shape
    (5, 2, 11)
    """

    def follow(self, network: Network, drive: Array, start: State, nudge: Nudge | None, times: Array) -> Array:
        """The flat states (T, B, N) at the increasing `times`, the first of which is the time of
        `start`.

        Returns
        -------
        array : (T, B, N).
        """
        ...


def prepare(network: Network, drive: Array, start: State | Equilibrium | None, nudge: Nudge | None) -> State:
    """Check the input of a solver and return the start (zeros if None).

    Raises ShapeError for shapes that do not fit the network, ConfigurationError for an impossible
    nudge.

    Returns
    -------
    tuple of arrays : L of them, (B, n_k).

    >>> import fsp_dynamics as fsp
    >>> [s.shape for s in prepare(fsp.loop_network([4, 8, 3]), np.zeros((2, 8)), None, None)]
    [(2, 8), (2, 3)]
    """
    check_shape("drive", drive, (None, network.sizes[1]))
    if nudge is not None:
        nudge.check(network, len(drive))
    return zero_state(network, len(drive)) if start is None else state_of(network, start, len(drive))


def state_of(network: Network, start: Any, batch: int, field: str = "start") -> State:
    """The layers (B, n_k) of an equilibrium, of the end of a trajectory, or as they were given, in
    anything that `arrays` takes for numbers. Raises ConfigurationError, ShapeError.
    """
    found = getattr(start, "state", getattr(start, "end", start))
    if not isinstance(found, Sequence | np.ndarray):
        raise ConfigurationError(
            f"{field} is of type {type(start).__name__}, expected an equilibrium, a trajectory or a list of layers"
        )
    if len(found) != network.depth:
        raise ConfigurationError(
            f"{field} has {len(found)} layers, expected {network.depth}, an array (B, n_k) for each"
        )
    state = tuple(floats(f"{field}[{k}]", s) for k, s in enumerate(found))
    for k, (s, n) in enumerate(zip(state, network.sizes[1:], strict=True)):
        check_shape(f"{field}[{k}]", s, (batch, n))
    return state


def judge(residual: Array, state_norm: Array, tolerance: Tolerance) -> Array:
    """(B,) uint8 status: CONVERGED within tolerance, NOT_FINITE for NaN or infinity, else
    OUT_OF_STEPS.

    Returns
    -------
    array : (B,) uint8.

    >>> judge(np.array([1e-7, 0.1, np.nan]), np.ones(3), Tolerance(1e-6)).tolist()
    [0, 1, 2]
    """
    status = np.full(len(residual), OUT_OF_STEPS, np.uint8)
    status[residual <= tolerance.bound(state_norm)] = CONVERGED
    status[~np.isfinite(residual + state_norm)] = NOT_FINITE
    return status
