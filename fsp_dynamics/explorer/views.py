"""What each view draws: arrays, worked out by the floors below, and cut to what a screen can show."""

from __future__ import annotations

import numpy as np

from fsp_dynamics.analysis.alignment import angle
from fsp_dynamics.analysis.gradients import true_gradient
from fsp_dynamics.analysis.plane import principal_plane, unit_flow
from fsp_dynamics.analysis.spectra import Spectrum, spectrum
from fsp_dynamics.analysis.stability import admissible_dt, growth
from fsp_dynamics.explorer.scene import SETTLED, Scene
from fsp_dynamics.learning.rules.update import update
from fsp_dynamics.learning.simulation import Trajectory
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, flatten
from fsp_dynamics.solvers.equilibrium import Equilibrium, layer_names

SHOWN = 160  # units of a layer that the raster has room for
BLOCKS = 48  # rows and columns of an update's picture, at most
GRID = 33  # points on each axis of the flow
REGION = 72  # and of the integrator's region


def shown(units: int) -> Array:
    """Which units of a layer are drawn: all, or SHOWN of them, evenly picked."""
    return np.unique(np.linspace(0, units - 1, min(units, SHOWN)).round().astype(int))


def rasters(path: Trajectory) -> dict[str, Array]:
    """Rates over time: of the shown units side by side, and of the outputs."""
    rates = [r[:, 0] for r in path.rates]
    return {
        "times": path.times,
        "phase": path.phase,
        "rates": np.concatenate([r[:, shown(r.shape[1])] for r in rates], axis=1),
        "output": rates[-1],
    }


def norms(scene: Scene, path: Trajectory) -> Array:
    """(T, L): the norm of ds/dt (rate form) of each layer, under the nudge of its phase."""
    drive = rate.drive(scene.network, scene.images)
    found = np.empty((len(path.times), scene.network.depth))
    for piece, (_, nudge) in enumerate(scene.pieces):
        rows = np.flatnonzero(path.phase == piece)
        positive = None if nudge is None else nudge.rows(np.zeros(len(rows), int))
        with np.errstate(over="ignore", invalid="ignore"):
            field = rate.rate_field(
                scene.network, np.repeat(drive, len(rows), axis=0), tuple(s[rows, 0] for s in path.states), positive
            )
            found[rows] = np.stack([np.linalg.norm(f, axis=1) for f in field], axis=1)
    return found


def settle_times(path: Trajectory) -> list[float | None]:
    """For each phase, after how long its residual stays below SETTLED; None where it does not."""
    times: list[float | None] = []
    for piece, begin in enumerate(path.borders[:-1]):
        rows = np.flatnonzero(path.phase == piece)
        moving = np.flatnonzero(~(path.residual[rows, 0] <= SETTLED))  # NaN is moving
        if not moving.size:
            times.append(0.0)
        else:
            times.append(float(path.times[rows[moving[-1] + 1]] - begin) if moving[-1] + 1 < len(rows) else None)
    return times


def plane(
    scene: Scene, path: Trajectory, rests: tuple[Equilibrium, Equilibrium]
) -> tuple[dict[str, Array], dict[str, str]]:
    """(path, points of rest and flow in the phase plane; what its axes are)."""
    states = flatten(tuple(s[:, 0] for s in path.states))
    ends = np.concatenate([flatten(rest.state) for rest in rests])
    ends[~np.array([rest.converged[0] for rest in rests])] = np.nan
    given = scene.parameters
    if given.plane == "two units" and given.unit_x != given.unit_y:
        units = (given.unit_x, given.unit_y)
        names = {axis: unit_name(scene.network, unit) for axis, unit in zip("xy", units, strict=True)}
        return {"path": states[:, units], "rests": ends[:, units], **_flow(scene, states, rests, units)}, names
    if not np.isfinite(states).all(1).any():
        return {"path": np.full((len(states), 2), np.nan), "rests": np.full((2, 2), np.nan)}, {"x": "", "y": ""}
    found = principal_plane(states)
    names = {
        axis: f"principal component {k} ({100 * share:.0f} %)"
        for axis, k, share in zip("xy", (1, 2), found.share, strict=True)
    }
    return {"path": found.project(states), "rests": found.project(ends)}, names


def unit_name(network: Network, unit: int) -> str:
    """state of hidden 2, unit 7: what a flat index is."""
    ends = np.cumsum(network.sizes[1:])
    layer = int(np.searchsorted(ends, unit, side="right"))
    within = unit - int(ends[layer]) + network.sizes[layer + 1]
    return f"state of {layers_in_words(network)[layer]}, unit {within}"


def layers_in_words(network: Network) -> list[str]:
    """hidden 1, ..., output."""
    return [name.replace("_", " ") for name in layer_names(network.depth)]


def spectra(
    scene: Scene, rests: tuple[Equilibrium, Equilibrium]
) -> tuple[dict[str, Array], list[float | None], float | None]:
    """(eigenvalues at both rests and the integrator's region, the abscissa of each, the longest
    stable step; None where unknown).
    """
    found = [_spectrum(scene, rest, nudge) for rest, nudge in zip(rests, (None, scene.nudge), strict=True)]
    points = [np.full((1, 2), np.nan) if each is None else _distinct(each) for each in found]
    window = _window(np.concatenate(points))
    x0, x1, y0, y1 = window.tolist()
    x, y = np.linspace(x0, x1, REGION), np.linspace(y0, y1, REGION)
    region = growth(scene.parameters.integrator, scene.parameters.dt * (x + 1j * y[:, None]))
    limits = [
        float(admissible_dt(each, scene.parameters.integrator)[0])
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
    scene: Scene, rests: tuple[Equilibrium, Equilibrium]
) -> tuple[dict[str, Array], list[dict[str, float | str | None]]]:
    """(a picture of the rule's update of each matrix, its norm and its angle to the gradient); zeros
    and None where there is no update.
    """
    names = [name for name in scene.network.parameters() if not name.startswith("biases")]
    if scene.target is None or scene.obstacle(*rests) is not None:
        shapes = [picture_shape(scene.network.parameters()[name]) for name in names]
        return {f"update_{i}": np.zeros(shape) for i, shape in enumerate(shapes)}, [
            {"name": name, "degrees": None, "norm": 0.0} for name in names
        ]
    change = update(scene.rule, scene.network, scene.images, scene.phases(*rests)).parameters()
    gradient = true_gradient(scene.network, scene.images, scene.target, rests[0]).parameters()
    said: list[dict[str, float | str | None]] = []
    for name in names:
        degrees = angle(change[name], gradient[name])
        said.append(
            {
                "name": name,
                "degrees": degrees if np.isfinite(degrees) else None,
                "norm": float(np.linalg.norm(change[name])),
            }
        )
    return {f"update_{i}": picture(change[name]) for i, name in enumerate(names)}, said


def picture(matrix: Array) -> Array:
    """The matrix as it is up to BLOCKS x BLOCKS, else the means of as many blocks."""
    for axis in (0, 1):
        edges = np.linspace(0, matrix.shape[axis], min(BLOCKS, matrix.shape[axis]) + 1).round().astype(int)
        sizes = np.diff(edges)
        matrix = np.add.reduceat(matrix, edges[:-1], axis=axis) / (sizes[:, None] if axis == 0 else sizes)
    return matrix


def picture_shape(matrix: Array) -> tuple[int, int]:
    """(rows, columns) of its picture."""
    rows, columns = matrix.shape
    return min(BLOCKS, rows), min(BLOCKS, columns)


def _flow(
    scene: Scene, states: Array, rests: tuple[Equilibrium, Equilibrium], units: tuple[int, int]
) -> dict[str, Array]:
    """The flow of two units, the others as they rest in each phase (or as the path ended), on a
    grid that holds the path.
    """
    seen = states[np.isfinite(states).all(1)][:, units]
    low, high = (seen.min(0), seen.max(0)) if len(seen) else (np.zeros(2), np.ones(2))
    if scene.network.rho.projected:
        low, high = np.minimum(low, 0), np.maximum(high, 1)
    pad = 0.08 * np.maximum(high - low, 0.5)
    x, y = (np.linspace(low[k] - pad[k], high[k] + pad[k], GRID) for k in (0, 1))
    flows = {}
    for name, rest, nudge in zip(("free", "nudged"), rests, (None, scene.nudge), strict=True):
        state = flatten(rest.state)[0]
        finite = np.where(np.isfinite(state), state, 0)
        flows[f"flow_{name}"] = unit_flow(scene.network, scene.images, finite, nudge, units, x, y)
    return {"grid_x": x, "grid_y": y, **flows}


def _spectrum(scene: Scene, rest: Equilibrium, nudge: Nudge | None) -> Spectrum | None:
    """Each eigenvalue -kappa that many units share is counted once: what is drawn, and the longest
    step, need it no oftener.
    """
    if not rest.converged.all():
        return None
    found = spectrum(scene.network, scene.images, rest, nudge)
    return Spectrum(found.values, tuple((kappa, min(times, 1)) for kappa, times in found.uncoupled), found.complete)


def _distinct(found: Spectrum) -> Array:
    """(K, 2) real and imaginary parts of every eigenvalue, those of many units once."""
    values = np.concatenate([found.values[0], [-kappa for kappa, times in found.uncoupled if times]])
    values = np.unique(np.round(values, 6))
    return np.stack([values.real, values.imag], axis=1)


def _window(points: Array) -> Array:
    """(4,) x0, x1, y0, y1 that hold these eigenvalues (K, 2), 0 and some room; twice as wide as
    high, as the picture is.
    """
    points = np.concatenate([points[np.isfinite(points).all(1)], [[0.0, 0.0], [-1.0, 0.0]]])
    x0, x1, y1 = points[:, 0].min(), points[:, 0].max(), np.abs(points[:, 1]).max()
    half = max(0.7 * (x1 - x0), 2.8 * y1)
    middle = (x0 + x1) / 2
    return np.array([middle - half, middle + half, -half / 2, half / 2])
