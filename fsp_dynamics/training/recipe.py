"""How to learn, what is learned from, and what has been learned so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fsp_dynamics.arrays import generator
from fsp_dynamics.errors import ConfigurationError, check_choice, check_finite, is_whole
from fsp_dynamics.learning import phases
from fsp_dynamics.learning.averaging import Averaging, WeightAverage
from fsp_dynamics.learning.optimisers import Sgd
from fsp_dynamics.learning.rules import Rule, require_rule
from fsp_dynamics.learning.rules.hebbian import HEBBIAN
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, pull_of
from fsp_dynamics.solvers.equilibrium import Solver, Tolerance
from fsp_dynamics.training.augmentation import NONE, Augmentation
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.warm_start import WarmStart

# of the largest move under the nudge, the tolerance above which nothing can be learned, and above
# which learning is coarse
DROWNED, COARSE = 0.3, 0.03


class LabelledImages(Protocol):
    """Images (B, n_in) in [0, 1] and their labels (B,), class numbers from 0."""

    @property
    def images(self) -> Array: ...
    @property
    def labels(self) -> Array: ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to learn.

    optimiser : how an update changes the weights. solver, tolerance : how the network converges,
        and when it has.
    beta : strength of the nudge. phases : "one-sided", "random-sign" or "centred"
        (`learning.phases.run`).
    rule : a `learning.rules.Rule`; by default eq. 14. A name of one is taken too.
    batch : samples whose mean update is one step.
    mirror : how far the loop moves in each mirror phase (`learning.mirror`), in [0, 1], before the
        schedule's factor; 0: there are none.
    average : how the weights are averaged (`learning.averaging`); None: they are not. It changes
        nothing of what is learned; `Learner.averaged` is the network to use.
    augmentation : how each training image is changed at each visit.
    weight_noise : standard deviation of the noise that matrices carry while they learn, as a share
        of their root mean square (`training.weight_noise`); 0: there is none.

    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.optimisers import LearningRates
    >>> recipe = Recipe(Sgd(LearningRates(20.0, (7.0,), loop=0.5)), fsp.make_solver(), mirror=0.1)
    >>> recipe.check(fsp.loop_network([4, 8, 3], rng=0))
    >>> recipe.rule.name, recipe.mirror_rate(epoch=3), recipe.draws
    ('hebbian', 0.1, False)
    >>> round(recipe.relaxation_error(fsp.loop_network([4, 8, 3], rng=0)), 6)
    0.0002
    """

    optimiser: Sgd
    solver: Solver
    tolerance: Tolerance = field(default=Tolerance(1e-4))
    beta: float = 1.0
    phases: str = "one-sided"
    rule: Rule = field(default=HEBBIAN)
    batch: int = 20
    mirror: float = 0.0
    average: Averaging | None = None
    augmentation: Augmentation = field(default=NONE)
    weight_noise: float = 0.0

    def __post_init__(self) -> None:
        check_choice("phases", self.phases, phases.KINDS)
        object.__setattr__(self, "rule", require_rule(self.rule))
        if not is_whole(self.batch, 1):
            raise ConfigurationError(f"batch = {self.batch!r}, expected a whole number, 1 or more")
        if not 0 <= self.mirror <= 1:
            raise ConfigurationError(f"mirror = {self.mirror!r}, expected a share from 0 to 1 by which the loop moves")
        if not (
            isinstance(self.weight_noise, int | float) and np.isfinite(self.weight_noise) and self.weight_noise >= 0
        ):
            raise ConfigurationError(f"weight_noise = {self.weight_noise!r}, expected a finite number, 0 or more")
        if not isinstance(self.average, Averaging | None):
            raise ConfigurationError(
                f"average = {self.average!r}, expected learning.averaging.Averaging(...), or None for no average"
            )

    def check(self, network: Network) -> None:
        """Refuse what does not fit the network, before any time is spent. Raises
        ConfigurationError, NotFiniteError.
        """
        self.optimiser.check(network)
        self.rule.check(network)
        self.augmentation.check(network.sizes[0])
        if self.mirror and network.loop is None:
            raise ConfigurationError(
                f"mirror = {self.mirror!r}, but the network has no loop that could follow; leave it out"
            )
        for name, weight in network.parameters().items():
            check_finite(name, weight)
        silence = np.zeros((1, network.sizes[1]), network.dtype)
        self.solver.relax(network, silence, None, None, self.tolerance)  # refuses what it cannot relax
        for beta in (self.beta,) if self.phases == "one-sided" else (self.beta, -self.beta):
            Nudge(beta, np.zeros((0, network.sizes[-1]))).check(network, 0)
        self._check_beta(network)

    @property
    def draws(self) -> bool:
        """Whether an epoch has a seed of its own, from which it draws what happens in it."""
        return bool(self.augmentation or self.weight_noise)

    def mirror_rate(self, epoch: int) -> float:
        """eta of the mirror phases after `epoch` finished epochs: as every rate, it falls with the
        schedule; 1 at most.

        Returns
        -------
        float : in [0, 1].
        """
        return min(1.0, self.mirror * self.optimiser.schedule.factor(epoch))

    def relaxation_error(self, network: Network) -> float:
        """The tolerance as a share of the largest move under the nudge: how much of an update may
        be relaxation error, which is divided by beta as the move is.

        Returns
        -------
        float : a share.
        """
        betas = (self.beta,) if self.phases == "one-sided" else (self.beta, -self.beta)
        return float(self.tolerance.bound(np.ones(()))) / min(pull_of(network, beta) for beta in betas)

    def _check_beta(self, network: Network) -> None:
        """Raises ConfigurationError where relaxation errors drown the nudge."""
        if self.relaxation_error(network) <= DROWNED:
            return
        most = DROWNED * pull_of(network, self.beta)
        raise ConfigurationError(
            f"beta = {self.beta!r} moves an output by at most {pull_of(network, self.beta):.2g}, but with a tolerance "
            f"of {float(self.tolerance.bound(np.ones(()))):g} a state may be wrong by as much, and the errors are "
            f"divided by beta; raise beta, or lower the tolerance below {most:.2g} (in float32 to no less than 1e-6)"
        )


@dataclass(slots=True)
class Learner:
    """What training changes: the network (owned, in place), the momentum's velocity, finished
    epochs, the random stream, the warm start.

    unfinished : where an epoch stands that was left between two batches; else None.
    average : that of the weights, where the recipe asks for one.

    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.optimisers import LearningRates
    >>> from fsp_dynamics.training.epoch import train_epoch
    >>> recipe = Recipe(Sgd(LearningRates(20.0, (7.0,), loop=0.5)), fsp.make_solver())
    >>> network = fsp.loop_network([64, 20, 10], loop_scale=0.2, rng=0)
    >>> learner = Learner.start(network, recipe, rng=1)
    >>> report = train_epoch(learner, fsp.load_dataset("digits").train.limit(100), recipe)
    >>> learner.epoch, learner.network.sizes, learner.averaged is learner.network
    (1, (64, 20, 10), True)
    """

    network: Network
    rng: np.random.Generator
    velocity: dict[str, Array] = field(default_factory=dict)
    epoch: int = 0
    warm_start: WarmStart | None = None
    unfinished: EpochState | None = None
    average: WeightAverage = field(default_factory=WeightAverage)

    def __repr__(self) -> str:
        return f"<Learner after epoch {self.epoch}: {self.network!r}>"

    @classmethod
    def start(cls, network: Network, recipe: Recipe, rng: np.random.Generator | int | None = None) -> Learner:
        """A learner with its own copy of `network`. Raises ConfigurationError where the recipe
        does not fit it.

        Returns
        -------
        Learner : before its first epoch.
        """
        recipe.check(network)
        return cls(network.copy(), generator(rng))

    @property
    def averaged(self) -> Network:
        """The network with the average of its weights, not a copy; before the first sample, the
        network itself.
        """
        return self.network.with_parameters(self.average.arrays) if self.average.samples else self.network

    def begin_epoch(self, samples: int, recipe: Recipe) -> EpochState:
        """The epoch that was left unfinished, or a new one drawn from `rng`. Raises
        ConfigurationError for one over other data or in other batches.

        Returns
        -------
        EpochState : of an epoch over so many samples.
        """
        state, self.unfinished = self.unfinished, None
        if state is None:
            classes = self.network.sizes[-1]
            state = EpochState.begin(samples, classes, recipe.batch, recipe.beta, recipe.phases, self.rng)
        elif (len(state.order), state.batch) != (samples, recipe.batch):
            raise ConfigurationError(
                f"an epoch over {len(state.order)} images in batches of {state.batch} is unfinished, but {samples} "
                f"images in batches of {recipe.batch} were given; go on with the same data and recipe"
            )
        if recipe.draws and state.seed is None:
            state.draw_seed(self.rng)
        return state
