"""The arrays that each view draws, reduced to what a screen can show."""

from __future__ import annotations

import numpy as np

from fsp_dynamics.analysis.alignment import angle
from fsp_dynamics.analysis.gradients import true_gradient
from fsp_dynamics.analysis.plane import principal_plane, unit_flow
from fsp_dynamics.analysis.spectra import Spectrum, spectrum
from fsp_dynamics.analysis.stability import admissible_dt, growth
from fsp_dynamics.explorer.trial import TOLERANCES, Trial
from fsp_dynamics.learning.rules.update import update
from fsp_dynamics.learning.simulation import Trajectory
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, flatten
from fsp_dynamics.solvers.equilibrium import Equilibrium, layer_names

SHOWN = 160  # units of a layer in the raster, at most
BLOCKS = 48  # rows and columns of the image of an update, at most
GRID = 33  # points per axis of the flow
REGION = 72  # points per axis of the stability region


def shown(units: int) -> Array:
    """Indices of the units of a layer that are drawn: all, or SHOWN evenly spaced ones."""
    return np.unique(np.linspace(0, units - 1, min(units, SHOWN)).round().astype(int))


def rasters(path: Trajectory) -> dict[str, Array]:
    """Rates over time: of the drawn units of all layers, and of the outputs."""
    rates = [r[:, 0] for r in path.rates]
    return {
        "times": path.times,
        "phase": path.phase,
        "rates": np.concatenate([r[:, shown(r.shape[1])] for r in rates], axis=1),
        "output": rates[-1],
    }


def norms(trial: Trial, path: Trajectory) -> Array:
    """(T, L): the norm of ds/dt (rate form) over the decay rate of each layer, under the nudge of
    its phase; over all layers it is the residual.
    """
    drive = rate.drive(trial.network, trial.images)
    found = np.empty((len(path.times), trial.network.depth))
    for piece, (_, nudge) in enumerate(trial.pieces):
        rows = np.flatnonzero(path.phase == piece)
        expanded = None if nudge is None else nudge.rows(np.zeros(len(rows), int))
        with np.errstate(over="ignore", invalid="ignore"):
            field = rate.rate_field(
                trial.network, np.repeat(drive, len(rows), axis=0), tuple(s[rows, 0] for s in path.states), expanded
            )
            norms_of = [
                np.linalg.norm(f, axis=1) / k
                for f, k in zip(field, rate.decay_rates(trial.network, nudge), strict=True)
            ]
            found[rows] = np.stack(norms_of, axis=1)
    return found


def plane(
    trial: Trial, path: Trajectory, equilibria: tuple[Equilibrium, Equilibrium]
) -> tuple[dict[str, Array], dict[str, str]]:
    """(trajectory, equilibria and flow in the phase plane; names of the axes)."""
    states = flatten(tuple(s[:, 0] for s in path.states))
    ends = np.concatenate([flatten(each.state) for each in equilibria])
    ends[~np.array([each.converged[0] for each in equilibria])] = np.nan
    given = trial.parameters
    if given.plane == "two units" and given.unit_x != given.unit_y:
        units = (given.unit_x, given.unit_y)
        names = {axis: unit_name(trial.network, unit) for axis, unit in zip("xy", units, strict=True)}
        return {
            "path": states[:, units],
            "equilibria": ends[:, units],
            **_flow(trial, states, equilibria, units),
        }, names
    if not np.isfinite(states).all(1).any():
        return {"path": np.full((len(states), 2), np.nan), "equilibria": np.full((2, 2), np.nan)}, {"x": "", "y": ""}
    found = principal_plane(states)
    names = {
        axis: f"principal component {k} ({100 * fraction:.0f} %)"
        for axis, k, fraction in zip("xy", (1, 2), found.variance_fraction, strict=True)
    }
    return {"path": found.project(states), "equilibria": found.project(ends)}, names


def unit_name(network: Network, unit: int) -> str:
    """The name of a unit by its flat index, such as "state of hidden 2, unit 7"."""
    ends = np.cumsum(network.sizes[1:])
    layer = int(np.searchsorted(ends, unit, side="right"))
    within = unit - int(ends[layer]) + network.sizes[layer + 1]
    return f"state of {layer_labels(network)[layer]}, unit {within}"


def layer_labels(network: Network) -> list[str]:
    """hidden 1, ..., output."""
    return [name.replace("_", " ") for name in layer_names(network.depth)]


def spectra(
    trial: Trial, equilibria: tuple[Equilibrium, Equilibrium]
) -> tuple[dict[str, Array], list[float | None], float | None]:
    """(eigenvalues at both equilibria and the stability region of the integrator, the abscissa of
    each, the longest stable step; None if unknown).
    """
    found = [_spectrum(trial, each, nudge) for each, nudge in zip(equilibria, (None, trial.nudge), strict=True)]
    points = [np.full((1, 2), np.nan) if each is None else _distinct(each) for each in found]
    window = _window(np.concatenate(points))
    x0, x1, y0, y1 = window.tolist()
    x, y = np.linspace(x0, x1, REGION), np.linspace(y0, y1, REGION)
    region = growth(trial.parameters.integrator, trial.parameters.dt * (x + 1j * y[:, None]))
    limits = [
        float(admissible_dt(each, trial.parameters.integrator)[0])
        for each in found
        if each is not None and each.complete
    ]
    limit = min(limits, default=np.inf)
    arrays = {"eigen_free": points[0], "eigen_nudged": points[1], "window": window, "region": np.minimum(region, 1e6)}
    return (
        arrays,
        [None if each is None else float(each.abscissa[0]) for each in found],
        limit if np.isfinite(limit) else None,
    )


def updates(
    trial: Trial, equilibria: tuple[Equilibrium, Equilibrium]
) -> tuple[dict[str, Array], list[dict[str, float | str | None]]]:
    """(an image of the rule's update of each matrix, its norm and angle to the gradient).

    Zeros and None if there is no update, and for a matrix whose update is nowhere above the
    precision of the equilibria (`rounding`).
    """
    names = [name for name in trial.network.parameters() if not name.startswith("biases")]
    pictures = {
        f"update_{i}": np.zeros(picture_shape(trial.network.parameters()[name])) for i, name in enumerate(names)
    }
    statistics: list[dict[str, float | str | None]] = [{"name": name, "degrees": None, "norm": 0.0} for name in names]
    if trial.target is None or trial.obstacle(*equilibria) is not None:
        return pictures, statistics
    change = update(trial.rule, trial.network, trial.images, trial.phases(*equilibria)).parameters()
    gradient = true_gradient(trial.network, trial.images, trial.target, equilibria[0]).parameters()
    least = rounding(trial, equilibria)
    for i, name in enumerate(names):
        if np.abs(change[name]).max() > least:
            degrees = angle(change[name], gradient[name])
            statistics[i]["degrees"] = degrees if np.isfinite(degrees) else None
            statistics[i]["norm"] = float(np.linalg.norm(change[name]))
            pictures[f"update_{i}"] = picture(change[name])
    return pictures, statistics


def rounding(trial: Trial, equilibria: tuple[Equilibrium, Equilibrium]) -> float:
    """The size up to which an entry of an update may come from the tolerance of the equilibria
    alone: the tolerances of both phases over beta.
    """
    tolerance = TOLERANCES[np.dtype(trial.network.dtype)]
    reach = sum(
        tolerance.absolute + tolerance.relative * float(np.linalg.norm(flatten(each.state)[0])) for each in equilibria
    )
    return reach / abs(trial.parameters.beta)


def picture(matrix: Array) -> Array:
    """The matrix itself up to BLOCKS x BLOCKS, otherwise averages over that many blocks."""
    for axis in (0, 1):
        edges = np.linspace(0, matrix.shape[axis], min(BLOCKS, matrix.shape[axis]) + 1).round().astype(int)
        sizes = np.diff(edges)
        matrix = np.add.reduceat(matrix, edges[:-1], axis=axis) / (sizes[:, None] if axis == 0 else sizes)
    return matrix


def picture_shape(matrix: Array) -> tuple[int, int]:
    """(rows, columns) of its image."""
    rows, columns = matrix.shape
    return min(BLOCKS, rows), min(BLOCKS, columns)


def _flow(
    trial: Trial, states: Array, equilibria: tuple[Equilibrium, Equilibrium], units: tuple[int, int]
) -> dict[str, Array]:
    """The flow of two units, the others at the equilibrium of each phase (or the last state), on a
    grid that contains the trajectory.
    """
    seen = states[np.isfinite(states).all(1)][:, units]
    low, high = (seen.min(0), seen.max(0)) if len(seen) else (np.zeros(2), np.ones(2))
    if trial.network.rho.projected:
        low, high = np.minimum(low, 0), np.maximum(high, 1)
    pad = 0.08 * np.maximum(high - low, 0.5)
    x, y = (np.linspace(low[k] - pad[k], high[k] + pad[k], GRID) for k in (0, 1))
    flows = {}
    for name, equilibrium, nudge in zip(("free", "nudged"), equilibria, (None, trial.nudge), strict=True):
        state = flatten(equilibrium.state)[0]
        finite = np.where(np.isfinite(state), state, 0)
        flows[f"flow_{name}"] = unit_flow(trial.network, trial.images, finite, nudge, units, x, y)
    return {"grid_x": x, "grid_y": y, **flows}


def _spectrum(trial: Trial, equilibrium: Equilibrium, nudge: Nudge | None) -> Spectrum | None:
    """The spectrum with each eigenvalue -kappa of many units counted once, which suffices for the
    plot and the longest step.
    """
    if not equilibrium.converged.all():
        return None
    found = spectrum(trial.network, trial.images, equilibrium, nudge)
    return Spectrum(found.values, tuple((kappa, min(times, 1)) for kappa, times in found.uncoupled), found.complete)


def _distinct(found: Spectrum) -> Array:
    """(K, 2) real and imaginary parts of the distinct eigenvalues."""
    values = np.concatenate([found.values[0], [-kappa for kappa, times in found.uncoupled if times]])
    values = np.unique(np.round(values, 6))
    return np.stack([values.real, values.imag], axis=1)


def _window(points: Array) -> Array:
    """(4,) x0, x1, y0, y1: axis limits that contain these eigenvalues (K, 2) and 0 with a margin,
    twice as wide as high, like the view.
    """
    points = np.concatenate([points[np.isfinite(points).all(1)], [[0.0, 0.0], [-1.0, 0.0]]])
    x0, x1, y1 = points[:, 0].min(), points[:, 0].max(), np.abs(points[:, 1]).max()
    half = max(0.7 * (x1 - x0), 2.8 * y1)
    middle = (x0 + x1) / 2
    return np.array([middle - half, middle + half, -half / 2, half / 2])
