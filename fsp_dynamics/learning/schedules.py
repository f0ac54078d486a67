"""Schedules: the factor of all learning rates in an epoch e, the number of finished epochs.

    factor    rate_factor^e
    cosine    1/2 (1 + cos(pi min(e, epochs - 1) / epochs))
    steps     by^n, n how many of `at` are e or less
    warm-up   any of these times min(1, (e + 1) / (warm_up + 1))

A factor depends on the epoch alone, not on how long a run is: one that is extended keeps the rates
it had. From the last of its `epochs` on, a cosine stays at the value it has there, above 0.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields
from typing import Any, Protocol

from fsp_dynamics.errors import ConfigurationError, check_choice, check_positive, is_whole


class Schedule(Protocol):
    """How learning rates change from epoch to epoch.

    >>> FactorSchedule(0.5).factor(2)
    0.25
    """

    def factor(self, epoch: int) -> float:
        """The factor of all rates after so many finished epochs.

        Returns
        -------
        float : 0 or more.
        """
        ...


@dataclass(frozen=True, slots=True)
class FactorSchedule:
    """rate_factor^e: every rate is multiplied by `rate_factor` after each epoch; 1: constant.

    >>> [FactorSchedule(0.5).factor(e) for e in range(3)]
    [1.0, 0.5, 0.25]
    """

    rate_factor: float = 1.0

    def __post_init__(self) -> None:
        check_positive("rate_factor", self.rate_factor)

    def factor(self, epoch: int) -> float:
        """See `Schedule.factor`."""
        return float(self.rate_factor**epoch)


CONSTANT = FactorSchedule()


@dataclass(frozen=True, slots=True)
class CosineSchedule:
    """1/2 (1 + cos(pi e / epochs)), from 1 towards 0 over `epochs`; then what it was in the last of
    them.

    >>> [round(CosineSchedule(4).factor(e), 3) for e in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.146]
    """

    epochs: int

    def __post_init__(self) -> None:
        _check_epochs("epochs", self.epochs, least=1)

    def factor(self, epoch: int) -> float:
        """See `Schedule.factor`."""
        return 0.5 * (1 + math.cos(math.pi * min(epoch, self.epochs - 1) / self.epochs))


@dataclass(frozen=True, slots=True)
class StepSchedule:
    """by^n: every rate is multiplied by `by` when each of the epochs `at` is finished.

    >>> [StepSchedule(at=(1, 2), by=0.5).factor(e) for e in range(4)]
    [1.0, 0.5, 0.25, 0.25]
    """

    at: tuple[int, ...]
    by: float

    def __post_init__(self) -> None:
        for epoch in self.at:
            _check_epochs("at", epoch, least=1)
        if not self.at or any(later <= earlier for earlier, later in itertools.pairwise(self.at)):
            raise ConfigurationError(
                f"at = {self.at!r}, expected numbers of finished epochs, each larger than the one before it"
            )
        check_positive("by", self.by)

    def factor(self, epoch: int) -> float:
        """See `Schedule.factor`."""
        return float(self.by ** sum(each <= epoch for each in self.at))


@dataclass(frozen=True, slots=True)
class WarmUp:
    """min(1, (e + 1) / (epochs + 1)) times the factor of `schedule`.

    >>> [WarmUp(3, FactorSchedule()).factor(e) for e in range(4)]
    [0.25, 0.5, 0.75, 1.0]
    """

    epochs: int
    schedule: Schedule

    def __post_init__(self) -> None:
        _check_epochs("warm_up", self.epochs, least=0)

    def factor(self, epoch: int) -> float:
        """See `Schedule.factor`."""
        return min(1.0, (epoch + 1) / (self.epochs + 1)) * self.schedule.factor(epoch)


SCHEDULES: dict[str, type[Any]] = {"factor": FactorSchedule, "cosine": CosineSchedule, "steps": StepSchedule}
"""The kinds of schedules by their names in configurations."""


def settings_of(kind: str) -> tuple[str, ...]:
    """The names of the settings of a kind."""
    return tuple(field.name for field in fields(SCHEDULES[kind]))


def make_schedule(kind: str, warm_up: int = 0, **settings: Any) -> Schedule:
    """The schedule of a kind, after `warm_up` epochs of rising rates. Raises ConfigurationError for
    an unknown kind or impossible settings.

    Returns
    -------
    Schedule : with the method factor(epoch).

    >>> [make_schedule("steps", warm_up=1, at=(2,), by=0.1).factor(e) for e in range(4)]
    [0.5, 1.0, 0.1, 0.1]
    """
    schedule: Schedule = SCHEDULES[check_choice("kind", kind, SCHEDULES)](**settings)
    return WarmUp(warm_up, schedule) if warm_up else schedule


def _check_epochs(name: str, value: Any, least: int) -> None:
    if not is_whole(value, least):
        raise ConfigurationError(f"{name} = {value!r}, expected a whole number of epochs, {least} or more")
