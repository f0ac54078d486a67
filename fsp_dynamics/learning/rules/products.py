"""The classical contrastive difference of products.

    dW_ij = 1/beta mean_B (rho(s_i^beta) rho(s_j^beta) - rho(s_i^0) rho(s_j^0))
    db_j  = 1/beta mean_B (rho(s_j^beta) - rho(s_j^0))

In a reciprocal network with tied weights it is the update of equilibrium propagation (Scellier and
Bengio, 2017). In the feedforward loop it was seen to be unstable. With change c and m the mean of
the two phases' rates, both sides of centred nudging alike, the difference is exactly

    rho_i^+ rho_j^+ - rho_i^- rho_j^- = m_i c_j + c_i m_j        (per unit beta)

which is how it is summed here: small differences are not lost in large products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fsp_dynamics.learning.rules import Contrast, Rule, Term
from fsp_dynamics.models.network import Array, Network


@dataclass(frozen=True, slots=True)
class ProductsRule(Rule):
    """Difference of the products of pre- and postsynaptic rates.

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.rules.update import rule_update
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> free = fsp.relax(network, images)
    >>> nudged = fsp.relax(network, images, nudge=fsp.Nudge(1.0, np.eye(3)[[0, 1]]), start=free)
    >>> rule_update(ProductsRule(), network, images, free, nudged).forward[0].shape
    (8, 3)
    """

    name = "products"

    def terms(self, network: Network, images: Array, contrast: Contrast) -> Iterator[Term]:
        change, middle = contrast.change, contrast.middle
        yield Term("input", images, change[0])  # the image is the same in both phases
        matrices = [(f"forward[{k}]", k, k + 1) for k in range(network.depth - 1)]
        if network.backward is not None:
            matrices += [(f"backward[{k}]", k + 1, k) for k in range(network.depth - 1)]
        if network.loop is not None:
            matrices.append(("loop", network.depth - 1, 0))
        for name, i, j in matrices:
            yield Term(name, middle[i], change[j])
            yield Term(name, change[i], middle[j])
        for k in range(network.depth):
            yield Term(f"biases[{k}]", None, change[k])
