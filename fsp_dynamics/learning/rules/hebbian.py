"""The contrastive Hebbian rule (eq. 14 of the paper), for every matrix and bias.

    dW_ij = 1/beta mean_B rho(s_i^0) (rho(s_j^beta) - rho(s_j^0))
    db_j  = the same with rho(s_i^0) = 1

One-sided, with the presynaptic rate of the FREE phase. Centred nudging takes
(rho(s_j^beta) - rho(s_j^-beta)) / (2 beta) instead. A matrix that is used in both directions (the
tied reciprocal network) collects both of its terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fsp_dynamics.learning.rules import Contrast, Rule, Term
from fsp_dynamics.learning.rules.update import Update, rule_update
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import State
from fsp_dynamics.solvers.equilibrium import Equilibrium


@dataclass(frozen=True, slots=True)
class HebbianRule(Rule):
    """Eq. 14: presynaptic free rate times postsynaptic change.

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> free = fsp.relax(network, images)
    >>> nudged = fsp.relax(network, images, nudge=fsp.Nudge(1.0, np.eye(3)[[0, 1]]), start=free)
    >>> same, update = (
    ...     rule_update(HebbianRule(), network, images, free, nudged),
    ...     fsp.hebbian_update(network, images, free, nudged),
    ... )
    >>> bool((same.loop == update.loop).all())
    True
    """

    name = "hebbian"

    def terms(self, network: Network, images: Array, contrast: Contrast) -> Iterator[Term]:
        return contrastive_terms(network, images, contrast.free, contrast.change)


HEBBIAN = HebbianRule()


def contrastive_terms(network: Network, images: Array, rates: State, change: State) -> Iterator[Term]:
    """pre.T @ post of every matrix, pre the rates of the layer it comes from and post the change of
    the layer it leads to, and the change of every layer for its bias.

    images (A, n_in), rates and change layer by layer (A, n_k).

    Returns
    -------
    iterator of Term : one for each matrix, both ways where it is tied, and one for each bias.

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> rates = change = (np.ones((2, 8)), np.ones((2, 3)))
    >>> terms = contrastive_terms(fsp.loop_network([4, 8, 3]), np.ones((2, 4)), rates, change)
    >>> [term.parameter for term in terms]
    ['input', 'forward[0]', 'loop', 'biases[0]', 'biases[1]']
    """
    yield Term("input", images, change[0])
    for k in range(network.depth - 1):
        yield Term(f"forward[{k}]", rates[k], change[k + 1])
        if network.tied:
            yield Term(f"forward[{k}]", rates[k + 1], change[k], transposed=True)
        if network.backward is not None:
            yield Term(f"backward[{k}]", rates[k + 1], change[k])
    if network.loop is not None:
        yield Term("loop", rates[-1], change[0])
    for k in range(network.depth):
        yield Term(f"biases[{k}]", None, change[k])


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
    beta : that of the nudged phase; None: the one that `nudged` was relaxed under.

    Returns the mean over the batch, learning rate not included.
    Raises NotConvergedError where a sample has not converged, ConfigurationError for phases that
    do not belong together, ShapeError and NotFiniteError for images that do not fit.

    Returns
    -------
    Update : the mean over the batch, in the shapes of the network's weights, learning rate not
        included.

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((1, 4), 0.5)
    >>> free = fsp.relax(network, images)
    >>> nudged = fsp.relax(network, images, nudge=fsp.Nudge(1.0, np.eye(3)[[0]]), start=free)
    >>> hebbian_update(network, images, free, nudged).loop.shape
    (3, 8)
    """
    return rule_update(HEBBIAN, network, images, free, nudged, opposite=opposite, beta=beta)
