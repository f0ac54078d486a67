"""Breaks between batches: where one must stop, and what is done there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning.breaks import Breaks


@given(periods=st.lists(st.integers(1, 9), max_size=3), most=st.integers(1, 7))
def test_walking_from_stop_to_stop_meets_every_break_once(periods, most) -> None:
    taken: list[tuple[int, int]] = []
    breaks = Breaks()
    for index, every in enumerate(periods):
        breaks.add(every, lambda done, index=index: taken.append((done, index)))
    done = 0
    while done < 40:
        further = breaks.after(done, most)
        assert done < further <= done + most
        done = further
        assert breaks.is_due(done) == any(done % every == 0 for every in periods)
        breaks.take(done)
    expected = [(n, index) for n in range(1, done + 1) for index, every in enumerate(periods) if n % every == 0]
    assert sorted(taken) == sorted(expected)


def test_less_than_every_batch_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="every = 0, expected 1 or more"):
        Breaks().add(0, lambda done: None)
