"""How an epoch is computed: one protocol, one function that chooses.

===================  =============================================================================
engine               trains
===================  =============================================================================
`LoopEngine`         loops with a hard sigmoid by Broyden's method: whole batches compiled
`ReciprocalEngine`   reciprocal networks with a hard sigmoid by Anderson's or Picard's iteration:
                     relaxation and update compiled
`TorchEngine`        every network whose solver runs on torch
`PlainEngine`        everything: `phases.run` and `Sgd.step`, batch by batch, which the others
                     repeat
===================  =============================================================================

All of them learn the same, to rounding and to the tolerance of convergence. An engine of your own
is one file behind `Engine` and one line in `ENGINES`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol

from fsp_dynamics.learning.rules import make_rule
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.settings import imported
from fsp_dynamics.solvers.packed_loop import PackedLoop
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.interrupts import Interrupts
from fsp_dynamics.training.ranks import ALONE, Ranks
from fsp_dynamics.training.recipe import LabelledImages, Learner, Recipe

PLAIN = "fsp_dynamics.training.plain_engine:PlainEngine"
ENGINES = {  # by what the solver computes with; the first that supports the training takes it
    "numba": (
        "fsp_dynamics.training.loop_engine:LoopEngine",
        "fsp_dynamics.training.reciprocal_engine:ReciprocalEngine",
        PLAIN,
    ),
    "torch": ("fsp_dynamics.torch_backend.engine:TorchEngine", PLAIN),
}


class Engine(Protocol):
    """One epoch's arrays, and how its batches are learned. `learner` is changed in place."""

    def __init__(
        self, learner: Learner, split: LabelledImages, recipe: Recipe, threads: int | None, ranks: Ranks
    ) -> None: ...

    learner: Learner
    in_shards: ClassVar[bool]
    """Whether ranks compute shards of each batch, whose number decides the last bits."""

    @classmethod
    def supports(cls, network: Network, recipe: Recipe, ranks: Ranks) -> bool:
        """Whether it can train this network in this way. A rule that inherits one of the package is
        another rule.
        """
        ...

    @property
    def weights(self) -> Network | PackedLoop:
        """What holds the weights of the moment between two batches."""
        ...

    def learn(self, state: EpochState, interrupts: Interrupts, progress: Callable[[], None]) -> None:
        """Learn the batches that are left in `state`, which moves on with them, from the images as
        `recipe.augmentation` shows them.

        Between two batches `interrupts` are run where they are due, then, every few batches,
        `progress`; either may raise, and the epoch can go on from `state` after `write_back`.
        So it can where the phases of a batch are left, which relax in `interrupts.relaxing()`:
        nothing but `state.done` says whether a batch is learned. What changes the learner is done
        in `state.changing()`.
        Raises NotFiniteError, naming layer and batch, before a NaN or infinity is learned.
        """
        ...

    def mirror(self, samples: Array) -> None:
        """One mirror phase with these samples (`learning.mirror`), between two batches."""
        ...

    def change(self, act: Callable[[Network], None]) -> None:
        """Let `act` change the weights of the moment in the learner's network, in place, between
        two batches.
        """
        ...

    def write_back(self) -> None:
        """Give the learner the weights, velocity and warm start of the moment, between two
        batches.
        """
        ...


def engine_of(network: Network, recipe: Recipe, ranks: Ranks = ALONE) -> type[Engine]:
    """The engine that trains this network in this way."""
    backend = getattr(recipe.solver, "backend", "numba")
    kinds = (_load(path) for path in ENGINES.get(backend, (PLAIN,)))
    return next(kind for kind in kinds if kind.supports(network, recipe, ranks))


def choose_engine(
    learner: Learner, split: LabelledImages, recipe: Recipe, threads: int | None = None, ranks: Ranks = ALONE
) -> Engine:
    """The engine for one epoch over `split`. threads, ranks : as in `epoch.train_epoch`."""
    return engine_of(learner.network, recipe, ranks)(learner, split, recipe, threads, ranks)


def slow_rule(network: Network, recipe: Recipe, ranks: Ranks = ALONE) -> str | None:
    """A sentence for the user where only the rule keeps training from a compiled engine; else
    None.
    """
    chosen = engine_of(network, recipe, ranks)
    usual = engine_of(network, dataclasses.replace(recipe, rule=make_rule("hebbian")), ranks)
    if chosen is usual:
        return None
    return (
        f"rule {recipe.rule.name!r} has no compiled engine for this network; it trains on the plain one, "
        "many times slower"
    )


def _load(path: str) -> type[Engine]:
    module, _, name = path.partition(":")
    kind: type[Engine] = getattr(imported(module), name)
    return kind
