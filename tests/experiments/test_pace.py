"""How far a run has come and how long it will still take, against times known beforehand."""

from __future__ import annotations

import pytest

from fsp_dynamics.experiments.pace import LEARNING, Pace


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def learn(pace, clock, epoch, seconds, besides, compiling=0.0, steps=10, images=1000):
    """An epoch; compiling comes before its first batches are done, and in what is done besides."""
    pace.start(epoch)
    clock.now += compiling
    for step in range(1, steps + 1):
        clock.now += seconds / steps
        pace.batch(images * step / steps, images)
    clock.now += besides + compiling
    pace.end(seconds)


def test_a_run_of_equal_epochs_ends_when_it_was_said(clock):
    pace = Pace(10, 1000, clock)
    for epoch in range(1, 11):
        learn(pace, clock, epoch, 20.0, 5.0)
        assert pace.left() == pytest.approx((10 - epoch) * 25.0)
        assert pace.share() == pytest.approx(epoch / 10)
    assert pace.text() == "0:00 left"


def test_compiling_happens_once_and_is_not_expected_again(clock):
    pace = Pace(10, 1000, clock)
    learn(pace, clock, 1, 2.0, 1.0, compiling=60.0)
    learn(pace, clock, 2, 2.0, 1.0)
    assert pace.left() == pytest.approx(8 * 3.0)
    learn(pace, clock, 3, 2.0, 9.0)
    assert pace.left() == pytest.approx(7 * 3.0), "pictures are not drawn after every epoch"


def test_within_the_first_epoch_its_own_batches_tell(clock):
    pace = Pace(4, 1000, clock)
    assert (pace.left(), pace.text(), pace.share()) == (None, "", 0.0)
    pace.start(1)
    clock.now += 60
    pace.batch(100, 1000)
    assert pace.left() is None, "nothing is known but that it has begun"
    clock.now += 1
    pace.batch(200, 1000)
    assert pace.left() == pytest.approx(4 * 10.0 - 2.0)
    assert pace.share() == pytest.approx(0.2 / 4)


def test_time_passes_between_batches_too_and_never_below_nothing(clock):
    pace = Pace(2, 1000, clock)
    learn(pace, clock, 1, 20.0, 5.0)
    clock.now += 10
    assert pace.left() == pytest.approx(15.0)
    clock.now += 1000
    assert pace.left() == 0.0


def test_within_an_epoch_its_share_grows_with_the_images_and_leaves_room_for_what_follows(clock):
    pace = Pace(2, 1000, clock)
    assert LEARNING < 1
    learn(pace, clock, 1, 15.0, 5.0)
    pace.start(2)
    pace.batch(500, 1000)
    assert pace.share() == pytest.approx((1 + 0.75 / 2) / 2)
    pace.batch(1000, 1000)
    assert pace.share() == pytest.approx((1 + 0.75) / 2)


def test_a_resumed_run_begins_where_it_was(clock):
    pace = Pace(10, 1000, clock)
    pace.start(8)
    assert pace.share() == pytest.approx(0.7)
    learn(pace, clock, 8, 20.0, 5.0)
    assert pace.left() == pytest.approx(2 * 25.0)


def test_trainers_that_tell_little_are_no_trouble(clock):
    pace = Pace(0, 0, clock)
    pace.start(1)
    pace.end()
    assert pace.share() == 1.0
    assert pace.left() is None
