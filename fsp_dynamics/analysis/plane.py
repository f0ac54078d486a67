"""The phase plane: a trajectory projected onto two dimensions, and the flow of two units with all
others resolved fixed.

The nullcline of a unit is where its flow is zero. Where the nullclines of both units cross, neither
moves; the network's own equilibrium is such a crossing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.arrays import numbers
from fsp_dynamics.display import brief
from fsp_dynamics.errors import ConfigurationError, check_shape
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, flatten, layers


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """A two-dimensional projection of the state space.

    centre : (N,) the state at (0, 0). axes : (2, N), orthonormal. variance_fraction : (2,)
    fraction of the trajectory's variance along each axis.
    """

    centre: Array
    axes: Array
    variance_fraction: Array

    def __repr__(self) -> str:
        return brief(self)

    def project(self, states: Array) -> Array:
        """(..., 2) coordinates of states (..., N)."""
        check_shape("last axis of states", states[(0,) * (states.ndim - 1)], (len(self.centre),))
        return (states - self.centre) @ self.axes.T


def principal_plane(states: Array) -> Plane:
    """The plane of the first two principal components of a trajectory (T, N).

    The sign of each axis makes its largest entry positive, so that plots of neighbouring
    parameters do not flip. An axis along which nothing moves has a variance fraction of 0. Raises
    ShapeError for anything but (T, N), ConfigurationError for N < 2 or a trajectory without finite
    points.
    """
    check_shape("states", states, (None, None))
    if states.shape[1] < 2:
        raise ConfigurationError(f"states has {states.shape[1]} units, expected 2 or more to span a plane")
    states = states[np.isfinite(states).all(1)].astype(np.float64)
    if not len(states):
        raise ConfigurationError(
            "states has no finite point and so spans no plane; use a smaller step or a weaker loop"
        )
    centre = states.mean(0)
    moved = states - centre
    # the smaller of the two Gram matrices suffices
    if len(moved) < states.shape[1]:
        values, vectors = np.linalg.eigh(moved @ moved.T)
        axes = vectors.T @ moved
    else:
        values, axes = np.linalg.eigh(moved.T @ moved)
        axes = axes.T
    values = np.maximum(values[::-1], 0)
    resolved = (
        values > values[0] * np.finfo(np.float64).eps * max(states.shape)
        if values[0] > 0
        else np.zeros(len(values), bool)
    )
    axes = _orthonormal(axes[::-1][: min(2, resolved.sum())], states.shape[1])
    axes *= np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])[:, None]
    variance_fraction = np.append(np.where(resolved, values, 0), (0, 0))[:2] / max(values.sum(), np.finfo(float).tiny)
    return Plane(centre, axes, variance_fraction)


def unit_flow(
    network: Network, images: Array, state: Array, nudge: Nudge | None, units: tuple[int, int], x: Array, y: Array
) -> Array:
    """(2, len(y), len(x)): ds/dt (rate form) of two units with states (x, y), all others held at
    `state`.

    Parameters
    ----------
    images : (1, n_in). state : (N,) of one sample, flat. nudge : of that sample, or None.
    units : flat indices of the two different units on the x and y axes.

    Raises ConfigurationError for invalid units, ShapeError for arrays of the wrong shape.
    """
    total = sum(network.sizes[1:])
    images, state, x, y = (
        numbers(name, each) for name, each in (("images", images), ("state", state), ("x", x), ("y", y))
    )
    check_shape("images", images, (1, network.sizes[0]))
    check_shape("state", state, (total,))
    for name, unit in zip("xy", units, strict=True):
        if not 0 <= unit < total:
            raise ConfigurationError(f"unit {name} = {unit}, expected 0 to {total - 1}")
    if units[0] == units[1]:
        raise ConfigurationError(f"units = {units}, expected two different units")
    points = np.repeat(state[None].astype(network.dtype), len(y) * len(x), axis=0)
    points[:, units[0]] = np.tile(x, len(y))
    points[:, units[1]] = np.repeat(y, len(x))
    drive = np.repeat(rate.drive(network, images), len(points), axis=0)
    repeated = None if nudge is None else Nudge(nudge.beta, np.repeat(nudge.target, len(points), axis=0))
    flow = flatten(rate.rate_field(network, drive, layers(network, points), repeated))
    return flow[:, list(units)].T.reshape(2, len(y), len(x))


def _orthonormal(axes: Array, size: int) -> Array:
    """These directions (K <= 2, N) normalised, completed to two orthonormal vectors."""
    basis = np.concatenate([axes, np.eye(2, size), np.eye(2, size)[:, ::-1]])
    found: list[Array] = []
    for axis in basis:
        remainder = axis - sum(((axis @ f) * f for f in found), np.zeros(size))
        norm = np.linalg.norm(remainder)
        if norm > 1e-8 * max(np.linalg.norm(axis), np.finfo(float).tiny) and len(found) < 2:
            found.append(remainder / norm)
    return np.array(found)
