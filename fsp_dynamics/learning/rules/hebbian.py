"""The contrastive Hebbian update (eq. 14), for every matrix and bias.

    dW_ij = 1/beta mean_B rho(s_i^0) (rho(s_j^beta) - rho(s_j^0))              db_j: the same with rho(s_i^0) = 1

One-sided, with the presynaptic rate of the FREE phase. Centred nudging takes (rho(s_j^beta) -
rho(s_j^-beta)) / (2 beta) instead. A matrix that is used in both directions (the tied reciprocal
network) collects both of its terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_finite, check_shape
from fsp_dynamics.kernels.products import add_product
from fsp_dynamics.learning.phases import Phases
from fsp_dynamics.models.network import Array, Network, Weights
from fsp_dynamics.models.rate import State
from fsp_dynamics.solvers.equilibrium import Equilibrium


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Update(Weights):
    """A weight change: the fields of `Network`'s weights, learning rate not included. It is not a
    gradient.
    """


class Term(NamedTuple):
    """One outer product of the rule: `parameter` += left.T @ right (a bias: the column sums of
    right).
    """

    parameter: str
    left: Array | None
    right: Array


def terms(network: Network, images: Array, free: State, change: State) -> Iterator[Term]:
    """Every outer product of eq. 14, given the free rates and the rates' changes, layer by layer
    (A, n_k).

    images (A, n_in). The scale 1/(beta B) is not included.
    """
    yield Term("input", images, change[0])
    for k in range(network.depth - 1):
        yield Term(f"forward[{k}]", free[k], change[k + 1])
        if network.tied:
            yield Term(f"forward[{k}]", change[k], free[k + 1])
        if network.backward is not None:
            yield Term(f"backward[{k}]", free[k + 1], change[k])
    if network.loop is not None:
        yield Term("loop", free[-1], change[0])
    for k in range(network.depth):
        yield Term(f"biases[{k}]", None, change[k])


def accumulate(into: Array, term: Term, scale: float) -> None:
    """into += scale * left.T @ right, in place."""
    if term.left is None:
        into += np.asarray(scale, into.dtype) * term.right.sum(0)
    else:
        add_product(into, term.left.T, term.right, alpha=scale)


def contrast(network: Network, phases: Phases) -> tuple[Array, State, State]:
    """(rows (A,), free rates, change of the rates per unit beta) of the samples that had converged
    in every phase.
    """
    rho = network.rho.rate
    kept = phases.converged
    rows = phases.rows[kept]
    free = tuple(rho(s[rows]) for s in phases.free.state)
    nudged = tuple(rho(s[kept]) for s in phases.nudged.state)
    if phases.opposite is None:
        return rows, free, tuple((b - a) / phases.beta for a, b in zip(free, nudged, strict=True))
    opposite = tuple(rho(s[kept]) for s in phases.opposite.state)
    return rows, free, tuple((b - a) / (2 * phases.beta) for a, b in zip(opposite, nudged, strict=True))


def assemble(network: Network, images: Array, free: State, change: State, batch: int) -> dict[str, Array]:
    """1/batch sum over the rows of rho(s_i^0) change_j, for every matrix and bias by name.

    images (A, n_in), free rates and their changes (A, n_k); the result has the network's dtype.
    """
    sums = {name: np.zeros_like(w) for name, w in network.parameters().items()}
    for term in terms(network, images.astype(network.dtype, copy=False), free, change):
        accumulate(sums[term.parameter], term, 1 / batch)
    return sums


def update(network: Network, images: Array, phases: Phases) -> Update:
    """Eq. 14 over one batch of B samples; those not converged contribute nothing.

    images (B, n_in). Returns the mean over all B, learning rate not included.
    """
    check_shape("images", images, (len(phases.free.status), network.sizes[0]))
    check_finite("images", images)
    rows, free, change = contrast(network, phases)
    return Update.of(network, assemble(network, images[rows], free, change, len(images)))


def hebbian_update(
    network: Network,
    images: Array,
    free: Equilibrium,
    nudged: Equilibrium,
    *,
    opposite: Equilibrium | None = None,
    beta: float | None = None,
) -> Update:
    """Eq. 14 from equilibria of the whole batch, as `fsp.relax` returns them.

    Parameters
    ----------
    images : (B, n_in). free, nudged : the two equilibria.
    opposite : the equilibrium under -beta, for the centred rule.
    beta : that of the nudged phase; what `nudged` says of itself if None.

    Raises NotConvergedError where a sample has not converged, ConfigurationError for phases that do
    not belong together, ShapeError and NotFiniteError for images that do not fit.
    """
    beta = nudged.beta if beta is None else beta
    if not np.isfinite(beta) or beta == 0:
        raise ConfigurationError(
            f"beta = {beta:g}, expected the strength of the nudged phase; relax with nudge=Nudge(beta, target)"
        )
    if free.beta != 0:
        raise ConfigurationError(f"the free phase was relaxed under beta = {free.beta:g}, expected no nudge")
    if opposite is not None and opposite.beta != -beta:
        raise ConfigurationError(f"the opposite phase was relaxed under beta = {opposite.beta:g}, expected {-beta:g}")
    for name, phase in (("free", free), ("nudged", nudged), ("opposite", opposite)):
        if phase is not None:
            check_shape(f"{name} output", phase.output, (len(images), network.sizes[-1]))
            phase.require_converged()
    return update(network, images, Phases(beta, free, np.arange(len(free.status)), nudged, opposite))
