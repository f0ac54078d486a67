"""The path in time: a protocol of free and nudged pieces on one time axis -> `Trajectory`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fsp_dynamics.arrays import numbers
from fsp_dynamics.display import html_table
from fsp_dynamics.errors import ConfigurationError, check_choice, check_finite, check_positive
from fsp_dynamics.models import rate
from fsp_dynamics.models.activations import ACTIVATIONS, Activation
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, layers
from fsp_dynamics.plotting import plot_trajectory
from fsp_dynamics.solvers.equilibrium import Equilibrium, Integrator, layer_names, prepare
from fsp_dynamics.solvers.integration import longest_step
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.solvers.reference import ReferenceSolver
from fsp_dynamics.solvers.tableaux import TABLEAUX

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Piece = tuple[float, Nudge | None]

# shortest time constants in a step, where none is chosen and the tableau estimates no error
STEP = 0.05
MOST_STEPS = 10_000  # between two saved times, when not chosen
POINTS = 200  # saved times when none are chosen
MOST_POINTS = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Where a batch was, and when.

    times : (T,) from 0, in the time unit of the time constants.
    states : tuple of (T, B, n_k), the unit states of each layer.
    phase : (T,) index of the piece of the protocol; the border of two pieces belongs to the one
        that ends there.
    betas : strength of the nudge in each piece, 0 in a free one.
    residual : (T, B) as `models.rate.residual`, under the piece's own nudge; NaN where
        the solver gave up.
    rho : the activation of the network.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> protocol = [(2.0, None), (1.0, fsp.Nudge(1.0, np.eye(3)[:2]))]
    >>> path = fsp.simulate(network, images, protocol, save=0.5)
    >>> path.times.tolist(), path.borders.tolist(), path.labels.tolist()[-3:]
    ([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0], [0.0, 2.0, 3.0], ['free', 'nudged', 'nudged'])
    >>> path.states[-1].shape, path.rates[-1].shape, path.end[-1].shape, path.residual.shape
    ((7, 2, 3), (7, 2, 3), (2, 3), (7, 2))
    >>> dict(path.to_xarray()["rate_output"].sizes), path.to_frame().shape, len(path.plot().axes)
    ({'time': 7, 'sample': 2, 'output': 3}, (42, 9), 2)
    """

    times: Array
    states: State
    phase: Array
    betas: tuple[float, ...]
    residual: Array
    rho: Activation

    def __repr__(self) -> str:
        samples, layers = self.residual.shape[1], ", ".join(str(s.shape[2]) for s in self.states)
        span = f"{len(self.times)} times from 0 to {self.times[-1]:g}"
        return f"<Trajectory of {samples} samples, layers {layers}: {self._pieces()}; {span}>"

    def _repr_html_(self) -> str:
        facts = {
            "layers": ", ".join(str(s.shape[2]) for s in self.states),
            "pieces": self._pieces(),
            "rho": self.rho.name,
        }
        times = {"times": f"{len(self.times)} from 0 to {self.times[-1]:g}"}
        return html_table(f"Trajectory of {self.residual.shape[1]} samples", facts | times)

    def _pieces(self) -> str:
        return ", then ".join(f"beta {beta:g}" if beta else "free" for beta in self.betas)

    @property
    def labels(self) -> Array:
        """(T,) "free" or "nudged"."""
        return np.array(["nudged" if beta else "free" for beta in self.betas])[self.phase]

    @property
    def borders(self) -> Array:
        """(P + 1,) times at which the pieces begin and end."""
        return np.array([self.times[0], *(self.times[self.phase == p][-1] for p in range(len(self.betas)))])

    @property
    def rates(self) -> State:
        """Tuple of (T, B, n_k), the firing rates rho(s) of each layer."""
        return tuple(self.rho.rate(s) for s in self.states)

    @property
    def end(self) -> State:
        """Tuple of (B, n_k), the last states: a start for what follows."""
        return tuple(s[-1] for s in self.states)

    def to_xarray(self) -> xarray.Dataset:
        """An xarray.Dataset that saves to NetCDF.

        Variables state_hidden_1, ..., state_output and their rate_... (time, sample, units of that
        layer), residual (time, sample); coordinates time, sample, phase, beta and one index for
        each layer; units in attributes.

        Returns
        -------
        xarray.Dataset : see above.
        """
        import xarray

        names = layer_names(len(self.states))
        variables: dict[str, Any] = {
            "residual": (("time", "sample"), self.residual, {"units": "1", "long_name": "distance left to go"})
        }
        for name, s, r in zip(names, self.states, self.rates, strict=True):
            variables[f"state_{name}"] = (
                ("time", "sample", name),
                s,
                {"units": "1", "long_name": f"unit states, {name}"},
            )
            variables[f"rate_{name}"] = (
                ("time", "sample", name),
                r,
                {"units": "1", "long_name": f"firing rates rho(s), {name}"},
            )
        coordinates: dict[str, Any] = {name: np.arange(s.shape[-1]) for name, s in zip(names, self.states, strict=True)}
        coordinates |= {
            "time": ("time", self.times, {"units": "time unit of the time constants r"}),
            "sample": np.arange(self.residual.shape[1]),
            "phase": ("time", self.labels),
            "beta": (
                "time",
                np.array(self.betas)[self.phase],
                {"units": "1 / time", "long_name": "strength of the nudge"},
            ),
        }
        return xarray.Dataset(variables, coordinates, {"rho": self.rho.name})

    def to_frame(self, *, hidden: bool = False) -> DataFrame:
        """A pandas.DataFrame with a row for each time, sample and output unit; hidden : the units
        of the hidden layers too. `.to_csv(path)` saves it.

        Columns time (unit of the time constants), phase, beta (per unit time), sample, layer,
        unit, state (1), rate (1), residual (1); what belongs to a time and sample
        stands in all of their rows. Units are in `attrs["units"]` too.

        Returns
        -------
        pandas.DataFrame : T B n_L rows, or T B N with the hidden layers.
        """
        import pandas

        data, parts = self.to_xarray(), []
        columns = ["time", "phase", "beta", "sample", "layer", "unit", "state", "rate", "residual"]
        for name in layer_names(len(self.states))[0 if hidden else -1 :]:
            state, rate = f"state_{name}", f"rate_{name}"
            part = data[[state, rate, "residual"]].to_dataframe(["time", "sample", name]).reset_index()
            parts.append(part.assign(layer=name, unit=part[name], state=part[state], rate=part[rate])[columns])
        frame = pandas.concat(parts, ignore_index=True)
        frame.attrs["units"] = {name: data[name].attrs["units"] for name in ("time", "beta", "residual")} | {
            "state": "1",
            "rate": "1",
        }
        return frame

    def plot(self, ax: Axes | Sequence[Axes] | None = None, sample: int = 0) -> Figure:
        """Output rates of one sample, and below them how every sample settles
        (`plotting.plot_trajectory`).

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        return plot_trajectory(self, ax, sample=sample)


def simulate(
    network: Network,
    images: Array,
    protocol: Sequence[Piece],
    *,
    solver: str | Integrator | None = None,
    dt: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int | None = None,
    start: State | Equilibrium | None = None,
    save: float | npt.ArrayLike | None = None,
) -> Trajectory:
    """Follow a batch through the pieces of a protocol.

    Parameters
    ----------
    images : (B, n_in), shown all the time.
    protocol : (duration, nudge) pieces, one after another; nudge None is a free piece. Durations
        are in the time unit of the time constants.
    solver : name of a tableau, or any `Integrator`. None: `dopri5` with controlled steps for a
        smooth rho. A hard sigmoid's network follows eq. 13 as it stands, clipped to [0, 1] after
        every step, in constant steps of `rk4`; with rtol or atol it follows the rate form, which
        has the same equilibria and reaches them on another path, in controlled steps of `bosh3` (at
        kinks the estimate of dopri5 misses too much). With dt it is `rk4` for both.
    dt : constant step of the tableau. None: steps are controlled, or, where the tableau estimates
        no error, a twentieth of the shortest time constant in each piece, 1 / (1/r + beta) of a
        nudged output included.
    rtol, atol : error allowed in a controlled step, for each unit atol + rtol |s|, as root mean
        square; None as in `NumbaSolver`.
    max_steps : steps a sample may take between two saved times; 10,000 if None. Constant steps
        that would need more are refused; controlled ones that did, end in NaN, with a warning.
    start : the states at time 0, an equilibrium, or a trajectory, which goes on; zeros if None.
    save : interval between saved times, or the times themselves, from 0 to the protocol's end.
        Default: 200 intervals. The borders of the pieces are always saved.

    A tableau is integrated by `NumbaSolver` (which compiles for some seconds when an activation is
    first used on a machine), and by `ReferenceSolver`, in NumPy, for an activation of your own,
    for which compiling would be due in every process; give `NumbaSolver(...)` to have it compiled.

    The path of a sample has the same bits in any batch, unless an integrator of other kind is
    given. Raises ConfigurationError, ShapeError or NotFiniteError for unusable input, never for a
    path that ends in NaN.

    Returns
    -------
    Trajectory : times (T,), states, L arrays (T, B, n_k), residual (T, B).

    >>> from fsp_dynamics.models.builders import loop_network
    >>> network, images = loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> nudge = Nudge(1.0, np.eye(3)[[0, 1]])
    >>> path = simulate(network, images, [(20.0, None), (10.0, nudge)], save=5.0)
    >>> path.times.tolist(), path.states[-1].shape, path.labels[-1].item()
    ([0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0], (7, 2, 3), 'nudged')
    """
    drive = rate.drive_of_each(network, images)
    pieces = _check_protocol(network, protocol, len(drive))
    integrators = [_integrator(network, nudge, solver, dt, rtol, atol, max_steps) for _, nudge in pieces]
    state = prepare(network, drive, start, None)
    for k, s in enumerate(state):
        check_finite(f"start[{k}]", s)
    borders = np.concatenate([[0.0], np.cumsum([duration for duration, _ in pieces])])
    times = _saved_times(save, borders)

    paths: list[list[Array]] = []
    residuals: list[Array] = []
    for (_, nudge), integrator, (begin, end) in zip(pieces, integrators, itertools.pairwise(borders), strict=True):
        here = times[(begin <= times) & (times <= end)]
        path = layers(network, integrator.follow(network, drive, state, nudge, here))
        state = tuple(s[-1] for s in path)
        # the first row of a later piece is the last of the one before
        kept = slice(1 if paths else 0, None)
        paths.append([s[kept] for s in path])
        residuals.append(_residual(network, drive, tuple(paths[-1]), nudge))
    return Trajectory(
        times=times,
        states=tuple(np.concatenate(parts) for parts in zip(*paths, strict=True)),
        phase=np.searchsorted(borders[1:], times),
        betas=tuple(beta_of(nudge) for _, nudge in pieces),
        residual=np.concatenate(residuals),
        rho=network.rho,
    )


def _residual(network: Network, drive: Array, path: State, nudge: Nudge | None) -> Array:
    """(T, B) residual along a path, sample by sample: the bits of each are its own."""
    found = np.empty(path[0].shape[:2], network.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for b, constant in enumerate(drive):
            own = tuple(s[:, b] for s in path)
            found[:, b] = rate.residual(network, constant, own, rate.rows_of(nudge, b))
    return found


def _check_protocol(network: Network, protocol: Sequence[Piece], batch: int) -> list[Piece]:
    if not isinstance(protocol, Sequence):
        raise ConfigurationError(
            f"protocol = {protocol!r}, expected a list of (duration, nudge) pieces, such as [(20.0, None)]"
        )
    pieces = list(protocol)
    if not pieces:
        raise ConfigurationError(
            "protocol is empty, expected (duration, nudge) pieces, such as [(20.0, None), (10.0, Nudge(1.0, targets))]"
        )
    for i, piece in enumerate(pieces):
        if not (isinstance(piece, (tuple, list)) and len(piece) == 2 and isinstance(piece[1], Nudge | None)):
            raise ConfigurationError(
                f"protocol[{i}] is {type(piece).__name__}, expected a pair (duration, None or Nudge)"
            )
        check_positive(f"duration of protocol[{i}]", piece[0])
        if piece[1] is not None:
            piece[1].check(network, batch)
    return pieces


def _integrator(
    network: Network,
    nudge: Nudge | None,
    solver: str | Integrator | None,
    dt: float | None,
    rtol: float | None,
    atol: float | None,
    max_steps: int | None,
) -> Integrator:
    """The integrator that the arguments of `simulate` choose for one piece."""
    if solver is not None and not isinstance(solver, str):
        if not isinstance(solver, Integrator):
            raise ConfigurationError(
                f"solver is {type(solver).__name__}, which has no time axis; "
                f"give an Integrator or one of: {', '.join(TABLEAUX)}"
            )
        for name, value in (("dt", dt), ("rtol", rtol), ("atol", atol), ("max_steps", max_steps)):
            if value is not None:
                raise ConfigurationError(
                    f"{name} = {value!r} beside a {type(solver).__name__}, which has settings of its own; set it there"
                )
        return solver
    if solver is None:
        literal = network.rho.projected and rtol is None and atol is None
        solver = "rk4" if dt is not None or literal else "bosh3" if network.rho.projected else "dopri5"
    if dt is None and TABLEAUX[check_choice("solver", solver, TABLEAUX)].error is None:
        dt = STEP * longest_step(network, nudge)
    kind = NumbaSolver if network.rho in ACTIVATIONS.values() else ReferenceSolver
    return kind(solver, dt=dt, rtol=rtol, atol=atol, max_steps=MOST_STEPS if max_steps is None else max_steps)


def _saved_times(save: float | npt.ArrayLike | None, borders: Array) -> Array:
    """(T,) increasing: the chosen times and every border."""
    total = float(borders[-1])
    if save is None or np.ndim(save) == 0:
        interval = total / POINTS if save is None else check_positive("save", save)  # type: ignore[arg-type]
        if total / interval > MOST_POINTS:
            raise ConfigurationError(
                f"save = {save!r} asks for {total / interval:.3g} times, expected at most {MOST_POINTS:,}; "
                "save less often"
            )
        chosen = np.arange(0, total, interval)
    else:
        chosen = numbers("save", save).astype(np.float64)
        if chosen.ndim != 1 or not len(chosen) or not np.isfinite(chosen).all() or (np.diff(chosen) <= 0).any():
            raise ConfigurationError(
                f"save has shape {chosen.shape}, expected an interval, or one axis of finite times, "
                "each above the one before it"
            )
        if chosen[0] < 0 or chosen[-1] > total * (1 + 1e-9):
            raise ConfigurationError(
                f"save runs from {chosen[0]:g} to {chosen[-1]:g}, "
                f"expected times from 0 to {total:g}, the protocol's end"
            )
    apart = (
        np.abs(chosen[:, None] - borders).min(1) > 1e-9 * total
    )  # a time that differs from a border by rounding alone is the border
    return np.sort(np.concatenate([chosen[apart], borders]))
