"""How many points of rest a network has for an image: random starts, followed in time, and where
they end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_positive
from fsp_dynamics.models import rate
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.network import Array, Network, Rng
from fsp_dynamics.models.rate import State, flatten, layers
from fsp_dynamics.solvers.equilibrium import Equilibrium, Integrator, Tolerance
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.solvers.reference import ReferenceSolver


def integrator_of(network: Network, solver: Integrator | None, rtol: float | None = None) -> Integrator:
    """`solver` if it has a time axis; dopri5 with controlled steps if None, in NumPy for an
    activation of one's own.
    """
    if solver is None:
        return (NumbaSolver if network.rho in ACTIVATIONS.values() else ReferenceSolver)(rtol=rtol)
    if not isinstance(solver, Integrator):
        raise ConfigurationError(
            f"solver is {type(solver).__name__}, which has no time axis; give an Integrator such as NumbaSolver() or None"
        )
    return solver


@dataclass(frozen=True, slots=True, eq=False)
class Attractors:
    """The distinct points of rest that one image's starts ended in, the most visited first.

    states : tuple of (A, n_k). share : (A,) of all starts. unconverged : number of starts that
    never converged.
    """

    states: State
    share: Array
    unconverged: int

    def __repr__(self) -> str:
        shares = ", ".join(f"{100 * share:.3g} %" for share in self.share) or "none"
        return f"<Attractors: {self.count}, of shares {shares}; {self.unconverged} starts unconverged>"

    @property
    def count(self) -> int:
        """A."""
        return len(self.share)


def attractors(
    network: Network,
    images: Array,
    starts: int = 100,
    rng: Rng = 0,
    solver: Integrator | None = None,
    tolerance: Tolerance | None = None,
    *,
    apart: float = 1e-3,
) -> tuple[Attractors, ...]:
    """Where each image's free phase rests, from random starts: only stable points are met, as the
    field is integrated in time.

    Starts are uniform in [0, 1] for a hard sigmoid. For a smooth rho they are normal, of standard
    deviation rho'(0) r max|a| / 2 for each unit, max|a| over all rates in [0, 1]: half of where it
    could rest at most. Every image has the same starts.

    Parameters
    ----------
    starts : how many. solver : an `Integrator`; None: controlled steps of dopri5. tolerance : when
        it counts as rest.
    apart : two points of rest are one where no unit differs by more.

    Raises ShapeError, NotFiniteError, ConfigurationError.
    """
    if not (isinstance(starts, int | np.integer) and starts >= 1):
        raise ConfigurationError(f"starts = {starts!r}, expected a whole number, 1 or more")
    check_positive("apart", apart)
    walker, drive = integrator_of(network, solver), rate.drive(network, images)
    generator, shape = np.random.default_rng(rng), (starts, sum(network.sizes[1:]))
    drawn = generator.random(shape) if network.rho.projected else generator.normal(size=shape)
    found = []
    for row in drive:
        begin = drawn if network.rho.projected else drawn * _reach(network, row) / 2
        rest = walker.relax(
            network, np.tile(row, (starts, 1)), layers(network, begin.astype(network.dtype)), None, tolerance
        )
        found.append(_grouped(network, rest, apart))
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


def _grouped(network: Network, rest: Equilibrium, apart: float) -> Attractors:
    """One image's points of rest, by distance to the first of each group; of a group the one with
    the smallest residual stands for it.
    """
    converged = np.flatnonzero(rest.converged)
    flat, residual = flatten(rest.state)[converged], rest.residual[converged]
    groups, waiting = [], np.arange(len(flat))
    while waiting.size:
        same = np.abs(flat[waiting] - flat[waiting[0]]).max(1) <= apart
        groups.append(waiting[same])
        waiting = waiting[~same]
    groups.sort(key=len, reverse=True)
    chosen = np.array([group[np.argmin(residual[group])] for group in groups], int)
    share = np.array([len(group) for group in groups]) / len(rest.status)
    return Attractors(layers(network, flat[chosen]), share, len(rest.status) - len(flat))
