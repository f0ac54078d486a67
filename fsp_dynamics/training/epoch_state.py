"""Where an epoch stands: its batches in order, how many are done, and what was counted so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from fsp_dynamics.learning.phases import signed_betas
from fsp_dynamics.models.network import Array
from fsp_dynamics.training.report import EpochStatistics


@dataclass(slots=True, eq=False)
class EpochState:
    """An epoch between two batches. With the learner's weights, velocity, warm start and random
    stream of that moment it goes on to the same bits.

    order : (N,) the samples in the order in which they are learned, drawn at the epoch's start.
    betas : (batches,) the nudge of each batch, its sign drawn there too where it is random.
    batch : samples of a batch; the last may have fewer. done : finished batches.
    statistics : sums over their samples. seconds : spent on them. whole : False where the epoch
        was left with the learner half changed, and cannot go on. owed : what is due after so many
        batches (`training.interrupts`) has not been done yet.
    seed : what happens to images and weights in this epoch is drawn from it
        (`training.augmentation`, `training.weight_noise`); None where nothing does.
    noise : (1 + M,) number and scales of the noise that the M matrices carry; of no size where they
        carry none.
    """

    order: Array
    betas: Array
    batch: int
    statistics: EpochStatistics
    done: int = 0
    seconds: float = field(default=0.0)
    whole: bool = field(default=True)
    owed: bool = field(default=False)
    seed: int | None = field(default=None)
    noise: Array = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def begin(
        cls, samples: int, classes: int, batch: int, beta: float, phases: str, rng: np.random.Generator
    ) -> EpochState:
        """A new epoch over so many samples; `phases` is the recipe's kind of phases."""
        order = rng.permutation(samples)
        betas = signed_betas(beta, phases, -(-samples // batch), rng)
        return cls(order, betas, batch, EpochStatistics(classes))

    def draw_seed(self, rng: np.random.Generator) -> None:
        """Give it a seed: one number of 64 bits."""
        self.seed = int(rng.integers(1 << 64, dtype=np.uint64))

    @property
    def finished(self) -> bool:
        """Whether every batch is done."""
        return self.done == len(self.betas)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """The block in which an engine changes the learner; one who leaves it cannot go on."""
        self.whole = False
        yield
        self.whole = True

    def samples(self, first: int, last: int) -> Array:
        """The samples of batches first, ..., last - 1."""
        return self.order[first * self.batch : last * self.batch]

    def arrays(self) -> dict[str, Array]:
        """Everything as arrays by name, for a checkpoint."""
        return {
            "order": self.order,
            "betas": self.betas,
            "counts": self.statistics.counts,
            "strongest": self.statistics.strongest,
            "position": np.array([self.batch, self.done, self.owed], np.int64),
            "seconds": np.array([self.seconds]),
            **({} if self.seed is None else {"seed": np.array([self.seed], np.uint64)}),
            **({"noise": self.noise} if self.noise.size else {}),
        }

    @classmethod
    def of(cls, arrays: dict[str, Array]) -> EpochState:
        """The state that `arrays` were taken from. Raises KeyError if one is missing."""
        statistics = EpochStatistics(len(arrays["strongest"]))
        statistics.merge(arrays["counts"], arrays["strongest"])
        batch, done, *owed = (int(n) for n in arrays["position"])
        order, betas = (np.array(arrays[name]) for name in ("order", "betas"))
        seed = int(arrays["seed"][0]) if "seed" in arrays else None
        state = cls(order, betas, batch, statistics, done, float(arrays["seconds"][0]), owed=any(owed), seed=seed)
        state.noise = np.array(arrays.get("noise", state.noise))
        return state
