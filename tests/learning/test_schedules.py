"""The factor of the learning rates, kind by kind, written out; and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning.schedules import (
    CONSTANT,
    SCHEDULES,
    CosineSchedule,
    FactorSchedule,
    StepSchedule,
    WarmUp,
    make_schedule,
    settings_of,
)

SETTINGS = {"factor": {"rate_factor": 0.9}, "cosine": {"epochs": 4}, "steps": {"at": (2, 5), "by": 0.1}}


def factors(schedule, epochs=8):
    return [schedule.factor(epoch) for epoch in range(epochs)]


def test_a_factor_is_multiplied_once_for_each_finished_epoch() -> None:
    rate, wanted = 1.0, []
    for _ in range(8):
        wanted.append(rate)
        rate *= 0.9
    assert factors(FactorSchedule(0.9)) == pytest.approx(wanted, rel=1e-14)
    assert factors(CONSTANT) == [1.0] * 8


def test_a_cosine_falls_from_one_and_stays_where_its_last_epoch_was() -> None:
    """Its values by the angles' known cosines: 0, 45, 90 and 135 degrees for four epochs."""
    half = np.sqrt(0.5)
    expected = [1.0, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert factors(CosineSchedule(4)) == pytest.approx(expected + expected[-1:] * 4, abs=1e-15)
    assert factors(CosineSchedule(1), 3) == [1.0, 1.0, 1.0]
    long = factors(CosineSchedule(60), 61)
    assert all(later < earlier for earlier, later in itertools.pairwise(long[:60]))
    assert long[60] == long[59] > 0


def test_steps_multiply_from_each_of_their_epochs_on() -> None:
    wanted = [1.0, 1.0, 0.1, 0.1, 0.1, 0.1 * 0.1, 0.1 * 0.1, 0.1 * 0.1]
    assert factors(StepSchedule((2, 5), 0.1)) == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_warm_up_rises_in_equal_steps_to_the_schedule_itself(kind) -> None:
    without, with_it = make_schedule(kind, **SETTINGS[kind]), make_schedule(kind, warm_up=3, **SETTINGS[kind])
    wanted = [share * factor for share, factor in zip([0.25, 0.5, 0.75] + [1.0] * 5, factors(without), strict=True)]
    assert factors(with_it) == pytest.approx(wanted, rel=1e-14)
    assert make_schedule(kind, warm_up=0, **SETTINGS[kind]) == without


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_kind_names_its_settings(kind) -> None:
    assert set(settings_of(kind)) == set(SETTINGS[kind])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FactorSchedule(0.0), "rate_factor = 0.0, expected a finite number above 0"),
        (lambda: CosineSchedule(0), "epochs = 0, expected a whole number of epochs, 1 or more"),
        (lambda: CosineSchedule(2.5), "epochs = 2.5"),
        (lambda: StepSchedule((), 0.1), r"at = \(\), expected numbers of finished epochs"),
        (lambda: StepSchedule((5, 2), 0.1), r"at = \(5, 2\), expected .* each larger than the one before"),
        (lambda: StepSchedule((2, 2), 0.1), r"at = \(2, 2\)"),
        (lambda: StepSchedule((0,), 0.1), "at = 0, expected a whole number of epochs, 1 or more"),
        (lambda: StepSchedule((2,), 0.0), "by = 0.0"),
        (lambda: WarmUp(-1, CONSTANT), "warm_up = -1, expected a whole number of epochs, 0 or more"),
        (lambda: make_schedule("cosin", epochs=3), "did you mean 'cosine'"),
    ],
)
def test_impossible_schedules_are_refused(make, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()
