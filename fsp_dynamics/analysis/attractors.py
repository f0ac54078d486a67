"""The attractors of a network for an image, found by integrating the dynamics from random initial
states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.arrays import Rng
from fsp_dynamics.arrays import generator as make_generator
from fsp_dynamics.errors import ConfigurationError, check_positive
from fsp_dynamics.models import rate
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import State, flatten, layers
from fsp_dynamics.solvers.equilibrium import Equilibrium, Integrator, Tolerance
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.solvers.reference import ReferenceSolver


def integrator_of(network: Network, solver: Integrator | None, rtol: float | None = None) -> Integrator:
    """`solver` if it integrates in time; None: dopri5 with adaptive steps (in NumPy for a custom
    activation).
    """
    if solver is None:
        return (NumbaSolver if network.rho in ACTIVATIONS.values() else ReferenceSolver)(rtol=rtol)
    if not isinstance(solver, Integrator):
        raise ConfigurationError(
            f"solver is {type(solver).__name__}, expected an integrator in time such as NumbaSolver(), or None"
        )
    return solver


@dataclass(frozen=True, slots=True, eq=False)
class Attractors:
    """The distinct equilibria reached for one image, the most frequent first.

    states : tuple of (A, n_k). fraction : (A,) of initial states that converged to each.
    unconverged : number of initial states from which the dynamics did not converge.

    >>> import fsp_dynamics as fsp
    >>> (found,) = attractors(fsp.loop_network([4, 8, 3], rng=0), np.full((1, 4), 0.5), starts=10)
    >>> found.count, found.fraction.tolist(), found.states[-1].shape, found.unconverged
    (1, [1.0], (1, 3), 0)
    """

    states: State
    fraction: Array
    unconverged: int

    def __repr__(self) -> str:
        fractions = ", ".join(f"{100 * each:.3g} %" for each in self.fraction) or "none"
        return f"<Attractors: {self.count}, reached by {fractions}; {self.unconverged} initial states unconverged>"

    @property
    def count(self) -> int:
        """A, the number of distinct equilibria."""
        return len(self.fraction)


def attractors(
    network: Network,
    images: Array,
    starts: int = 100,
    rng: Rng = 0,
    solver: Integrator | None = None,
    tolerance: Tolerance | None = None,
    *,
    separation: float = 1e-3,
) -> tuple[Attractors, ...]:
    """The free-phase equilibria of each image, reached from random initial states. Only stable
    equilibria are found, since the field is integrated in time.

    Initial states are uniform in [0, 1] for a hard sigmoid. For a smooth rho they are normal with
    standard deviation rho'(0) r max|a| / 2 for each unit, max|a| over all rates in [0, 1]: half
    the largest possible equilibrium state. All images share the same initial states.

    Parameters
    ----------
    starts : number of initial states. solver : an `Integrator`; None: dopri5 with adaptive steps.
    tolerance : convergence criterion.
    separation : two equilibria are the same if no unit differs by more than this.

    Raises ShapeError, NotFiniteError, ConfigurationError.

    Returns
    -------
    tuple of Attractors : one for each of the B images.

    >>> import fsp_dynamics as fsp
    >>> len(attractors(fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5), starts=5))
    2
    """
    if not (isinstance(starts, int | np.integer) and starts >= 1):
        raise ConfigurationError(f"starts = {starts!r}, expected a whole number, 1 or more")
    check_positive("separation", separation)
    integrator, drive = integrator_of(network, solver), rate.drive(network, images)
    generator, shape = make_generator(rng), (starts, sum(network.sizes[1:]))
    drawn = generator.random(shape) if network.rho.projected else generator.normal(size=shape)
    found = []
    for row in drive:
        begin = drawn if network.rho.projected else drawn * _reach(network, row) / 2
        equilibrium = integrator.relax(
            network, np.tile(row, (starts, 1)), layers(network, begin.astype(network.dtype)), None, tolerance
        )
        found.append(_grouped(network, equilibrium, separation))
    return tuple(found)


def _reach(network: Network, drive: Array) -> Array:
    """(N,) rho'(0) r max|a| of each unit, for one image's drive (n_1,)."""
    least, most = ([b.astype(np.float64) for b in (drive, *network.biases[1:])] for _ in range(2))
    for _, post, w in network.connections():
        least[post] = least[post] + np.minimum(w, 0).sum(0)
        most[post] = most[post] + np.maximum(w, 0).sum(0)
    slope = float(network.rho.slope(np.zeros(1))[0])
    return np.concatenate(
        [slope * r * np.maximum(-low, high) for low, high, r in zip(least, most, network.time_constants, strict=True)]
    )


def _grouped(network: Network, equilibrium: Equilibrium, separation: float) -> Attractors:
    """The distinct equilibria of one image: states within `separation` of the first of a group
    belong to it; the one with the smallest residual represents the group.
    """
    converged = np.flatnonzero(equilibrium.converged)
    flat, residual = flatten(equilibrium.state)[converged], equilibrium.residual[converged]
    groups, remaining = [], np.arange(len(flat))
    while remaining.size:
        same = np.abs(flat[remaining] - flat[remaining[0]]).max(1) <= separation
        groups.append(remaining[same])
        remaining = remaining[~same]
    groups.sort(key=len, reverse=True)
    chosen = np.array([group[np.argmin(residual[group])] for group in groups], int)
    fraction = np.array([len(group) for group in groups]) / len(equilibrium.status)
    return Attractors(layers(network, flat[chosen]), fraction, len(equilibrium.status) - len(flat))
