"""The gradient of the cost: eq. 14 with a nudge that acts through the transposed connections.

    dW = -dC/dW as beta -> 0,    C = 1/2 ||s_L - d||^2 at the free equilibrium   (model fact 11)

A yardstick for learning rules and, in a network without its loop, backpropagation: no neuron could
know the transposed weights (solvers/transposed.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fsp_dynamics.learning.rules import Contrast, Rule, Term
from fsp_dynamics.learning.rules.hebbian import contrastive_terms
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance
from fsp_dynamics.solvers.response import Gains, adjoint
from fsp_dynamics.solvers.transposed import relax_transposed


@dataclass(frozen=True, slots=True)
class GradientRule(Rule):
    """Eq. 14 between the free phase and one nudged through the transposed connections.

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.phases import run
    >>> from fsp_dynamics.models.rate import drive
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> constant, target = drive(network, images), np.eye(3)[[0, 1]]
    >>> found = run(network, constant, target, 0.1, fsp.make_solver(), rule=GradientRule())
    >>> found.nudged.converged.tolist()
    [True, True]
    """

    name = "gradient"

    def terms(self, network: Network, images: Array, contrast: Contrast) -> Iterator[Term]:
        return contrastive_terms(network, images, contrast.free, contrast.change)

    def relax_nudged(
        self,
        network: Network,
        drive: Array,
        free: Equilibrium,
        nudge: Nudge,
        solver: Solver,
        tolerance: Tolerance | None,
    ) -> Equilibrium:
        """The nudged equilibrium through the transposed connections; `solver` has no part in it.

        Returns
        -------
        Equilibrium : of the same samples.
        """
        return relax_transposed(network, drive, free, nudge, tolerance)

    def limit_change(self, network: Network, gains: Gains, push: Array) -> State:
        """The adjoint of the free equilibrium, which makes the update -dC/dW.

        Returns
        -------
        tuple of arrays : L of them, (A, n_k).
        """
        return adjoint(network, gains, push)
