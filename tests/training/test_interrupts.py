"""Interrupts between batches: where one must stop, and what is done there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.training.interrupts import Interrupts


@given(periods=st.lists(st.integers(1, 9), max_size=3), most=st.integers(1, 7))
def test_walking_from_stop_to_stop_meets_every_break_once(periods, most) -> None:
    taken: list[tuple[int, int]] = []
    interrupts = Interrupts()
    for index, every in enumerate(periods):
        interrupts.add(every, lambda done, index=index: taken.append((done, index)))
    done = 0
    while done < 40:
        further = interrupts.after(done, most)
        assert done < further <= done + most
        done = further
        assert interrupts.is_due(done) == any(done % every == 0 for every in periods)
        interrupts.run_due(done)
    expected = [(n, index) for n in range(1, done + 1) for index, every in enumerate(periods) if n % every == 0]
    assert sorted(taken) == sorted(expected)


def test_less_than_every_batch_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="every = 0, expected 1 or more"):
        Interrupts().add(0, lambda done: None)
