"""Eq. 14 with presynaptic rates as deviations from their mean over the batch.

    dW_ij = mean_B (rho(s_i^0) - m_i) c_j,    m_i = mean rho(s_i^0),    db_j = mean_B c_j

with c_j the change of eq. 14. Hidden rates have a large common part, which here is left to the
biases. The mean is over the samples that the batch learns from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning.rules import Contrast, Rule, Term
from fsp_dynamics.learning.rules.hebbian import contrastive_terms
from fsp_dynamics.models.network import Array, Network


@dataclass(frozen=True, slots=True)
class MeanSubtractedRule(Rule):
    """Eq. 14 with mean-subtracted presynaptic rates.

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.rules.update import rule_update
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.eye(4)[:2]
    >>> free = fsp.relax(network, images)
    >>> nudged = fsp.relax(network, images, nudge=fsp.Nudge(1.0, np.eye(3)[[0, 1]]), start=free)
    >>> rule_update(MeanSubtractedRule(), network, images, free, nudged).loop.shape
    (3, 8)
    """

    name = "mean_subtracted"

    def terms(self, network: Network, images: Array, contrast: Contrast) -> Iterator[Term]:
        for term in contrastive_terms(network, images, contrast.free, contrast.change):
            yield term if term.pre is None else term._replace(pre=term.pre - contrast.mean(term.pre))

    def check(self, network: Network) -> None:
        """Refuse a tied matrix, which is presynaptic at both ends. Raises ConfigurationError."""
        if network.tied:
            raise ConfigurationError(
                "rule = 'mean_subtracted': a tied matrix is presynaptic at both ends; "
                "use rule 'hebbian', or a network with tied = False"
            )
