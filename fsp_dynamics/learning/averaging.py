"""An average of the weights, taken while they learn.

The weights of a run that learns at a constant rate wander about a place that they do not reach;
their average lies nearer to it. After every so many batches, with W the weights of the moment and n
the samples taken so far, this one among them,

    A <- A + g (W - A)        "equal":        g = 1/n
                              "exponential":  g = max(1 - f, 1/n),  f the factor

so the first sample is taken whole. "equal" is the mean of all samples: stochastic weight averaging
(Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018) at
the present learning rates, and before it Polyak and Juditsky ("Acceleration of stochastic
approximation by averaging", SIAM J. Control Optim. 1992) and Ruppert. "exponential" is that mean
until it has 1/(1 - f) samples, and A <- f A + (1 - f) W from there on: it never holds more of the
first samples than of others, as one that begins with the initial weights does, and forgets them at
the same pace.

What learns is W alone; A is looked at. It has the dtype of the weights: each sample adds a rounding
of at most half a unit in its last place, which is divided by n with all else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

from fsp_dynamics.errors import ConfigurationError, check_choice, is_whole
from fsp_dynamics.models.network import Array

KINDS = ("exponential", "equal")
FACTOR, EVERY = 0.98, 50


@dataclass(frozen=True, slots=True)
class Averaging:
    """How weights are averaged.

    kind : "exponential" or "equal". factor : f, in [0, 1); of the exponential kind alone.
    every : batches from one sample to the next. They are counted from the beginning of each epoch,
        so that what is left of an epoch after its last sample is in none; of an epoch with fewer
        batches one sample is taken, at its end.
    start : finished epochs from which on samples are taken.

    Raises ConfigurationError.

    >>> how = Averaging("exponential", factor=0.75, every=10)
    >>> [round(how.gain(n), 3) for n in (1, 2, 3, 4, 5)], how.period(batches=4)
    ([1.0, 0.5, 0.333, 0.25, 0.25], 4)
    """

    kind: str = "exponential"
    factor: float = FACTOR
    every: int = EVERY
    start: int = 0

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        real = isinstance(self.factor, Real) and not isinstance(self.factor, bool)
        if not real or not 0 <= self.factor < 1:
            raise ConfigurationError(f"factor = {self.factor!r}, expected a number from 0 to below 1, such as {FACTOR}")
        if self.kind != "exponential" and self.factor != FACTOR:
            raise ConfigurationError(
                f"factor = {self.factor!r} belongs to kind = 'exponential', not to {self.kind!r}; leave it out"
            )
        for name, value, least in (("every", self.every, 1), ("start", self.start, 0)):
            if not is_whole(value, least):
                raise ConfigurationError(f"{name} = {value!r}, expected a whole number, {least} or more")

    def gain(self, samples: int) -> float:
        """g of the sample with that number, from 1 on.

        Returns
        -------
        float : in (0, 1].
        """
        return 1 / samples if self.kind == "equal" else max(1 - self.factor, 1 / samples)

    def period(self, batches: int) -> int:
        """Batches from one sample to the next in an epoch of so many.

        Returns
        -------
        int : batches.
        """
        return min(self.every, batches)


@dataclass(slots=True, eq=False)
class WeightAverage:
    """A : the average, by the names of parameters; {} before the first sample. samples : n.

    >>> import numpy as np
    >>> average = WeightAverage()
    >>> for value in (1.0, 2.0, 3.0):
    ...     average.take({"loop": np.full(2, value)}, Averaging("equal"))
    >>> average.samples, average.arrays["loop"].tolist()
    (3, [2.0, 2.0])
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    samples: int = 0

    def __repr__(self) -> str:
        return f"<WeightAverage of {self.samples} samples>"

    def take(self, weights: Mapping[str, Array], how: Averaging) -> None:
        """One more sample; the weights are copied."""
        self.samples += 1
        gain = how.gain(self.samples)
        if gain == 1:
            self.arrays = {name: w.copy() for name, w in weights.items()}
            return
        for name, w in weights.items():
            average = self.arrays[name]
            change = w - average
            change *= average.dtype.type(gain)
            average += change
