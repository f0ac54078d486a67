"""How to learn, what is learned from, and what has been learned so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_choice, check_finite
from fsp_dynamics.learning import phases
from fsp_dynamics.learning.optimisers import Sgd
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge
from fsp_dynamics.solvers.equilibrium import Solver, Tolerance
from fsp_dynamics.training.warm_start import WarmStart


class LabelledImages(Protocol):
    """What can be learned from: images (B, n_in) in [0, 1] and labels (B,), class numbers from 0."""

    @property
    def images(self) -> Array: ...
    @property
    def labels(self) -> Array: ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to learn.

    optimiser : what becomes of an update. solver, tolerance : how and when the network has converged.
    beta : strength of the nudge. phases : "one-sided", "random-sign" or "centred"
        (`learning.phases.run`).
    rule : "hebbian" (the paper) or "exact", whose nudge acts through transposed connections and
        whose update follows the gradient of the cost.
    batch : samples whose mean update is one step.
    mirror : how far the loop moves in each mirror phase (`learning.mirror`), in [0, 1]; 0: there
    are none.
    """

    optimiser: Sgd
    solver: Solver
    tolerance: Tolerance = field(default=Tolerance(1e-4))
    beta: float = 1.0
    phases: str = "one-sided"
    rule: str = "hebbian"
    batch: int = 20
    mirror: float = 0.0

    def __post_init__(self) -> None:
        check_choice("phases", self.phases, phases.KINDS)
        check_choice("rule", self.rule, phases.RULES)
        if not isinstance(self.batch, int | np.integer) or isinstance(self.batch, bool) or self.batch < 1:
            raise ConfigurationError(f"batch = {self.batch!r}, expected a whole number, 1 or more")
        if not 0 <= self.mirror <= 1:
            raise ConfigurationError(f"mirror = {self.mirror!r}, expected a share from 0 to 1 by which the loop moves")

    def check(self, network: Network) -> None:
        """Refuse what does not fit the network, before any time is spent. Raises
        ConfigurationError, NotFiniteError.
        """
        self.optimiser.check(network)
        if self.mirror and network.loop is None:
            raise ConfigurationError(
                f"mirror = {self.mirror!r}, but the network has no loop that could follow; leave it out"
            )
        for name, weight in network.parameters().items():
            check_finite(name, weight)
        self.solver.relax(
            network, np.zeros((1, network.sizes[1]), network.dtype), None, None, self.tolerance
        )  # refuses what it cannot relax
        for beta in (self.beta,) if self.phases == "one-sided" else (self.beta, -self.beta):
            Nudge(beta, np.zeros((0, network.sizes[-1]))).check(network, 0)


@dataclass(slots=True)
class Learner:
    """What training changes: the network (owned, in place), the momentum's velocity, finished
    epochs, the random stream, the warm start.
    """

    network: Network
    rng: np.random.Generator
    velocity: dict[str, Array] = field(default_factory=dict)
    epoch: int = 0
    warm_start: WarmStart | None = None

    @classmethod
    def start(cls, network: Network, recipe: Recipe, rng: np.random.Generator | int | None = None) -> Learner:
        """A learner with its own copy of `network`. Raises ConfigurationError where the recipe
        does not fit it.
        """
        recipe.check(network)
        return cls(network.copy(), np.random.default_rng(rng))
