"""Callbacks end a run when they ask for it, and early stopping where it would have ended without
an interruption.
"""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.callbacks import Callbacks, EarlyStopping, StopTraining


def records(errors, metric: str = "valid_error") -> list[dict]:
    return [{"epoch": epoch, metric: error} for epoch, error in enumerate(errors, 1)]


def ends_after(callbacks: Callbacks, seen) -> int | None:
    """The epoch after which the run ends, or None."""
    return next((record["epoch"] for record in seen if callbacks.after_epoch(record, None)), None)


@pytest.mark.parametrize("answer", [None, True, np.True_])
def test_a_run_goes_on(answer) -> None:
    seen = []
    callbacks = Callbacks([lambda record, network: seen.append((record, network)) or answer])
    assert callbacks.after_epoch({"epoch": 1}, "network") is None
    assert seen == [({"epoch": 1}, "network")]
    assert Callbacks().after_epoch({"epoch": 1}, None) is None


def stops(record, network):
    raise StopTraining


def test_each_way_to_end_it_gives_the_reason() -> None:
    def says_why(record, network):
        raise StopTraining("good enough")

    def ends(record, network):
        return np.bool_(False)

    assert Callbacks([says_why]).after_epoch({}, None) == "good enough"
    assert "ends returned False" in Callbacks([ends]).after_epoch({}, None)
    assert Callbacks([stops]).after_epoch({}, None) == "stops asked for it"
    called = []
    both = Callbacks([says_why, lambda record, network: called.append(1), stops])
    assert both.after_epoch({}, None) == "good enough; stops asked for it"
    assert called == [1]


@pytest.mark.parametrize("answer", [0, 1, "stop", np.zeros(2)])
def test_another_answer_is_refused(answer) -> None:
    def odd(record, network):
        return answer

    with pytest.raises(ConfigurationError, match=r"the callback .*odd returned .*expected None, True, or False"):
        Callbacks([odd]).after_epoch({}, None)


def test_what_cannot_be_called_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="callbacks holds 3, expected functions"):
        Callbacks([stops, 3])


def test_other_errors_of_a_callback_are_the_users() -> None:
    with pytest.raises(ZeroDivisionError):
        Callbacks([lambda record, network: 1 / 0]).after_epoch({}, None)


@pytest.mark.parametrize(
    ("errors", "patience", "end"),
    [
        ([5, 4, 3, 2, 1], 1, None),
        ([5, 5], 1, 2),  # as low is not lower
        ([5, 4, 4.5, 4.5, 3], 2, 4),
        ([5, 4, 4.5, 3.9, 4, 4], 2, 6),
        ([5, 6, 7], 3, None),
        ([5, 6, 7, 8], 3, 4),
    ],
)
def test_patience_counts_epochs_since_the_best(errors, patience, end) -> None:
    assert ends_after(Callbacks([EarlyStopping(patience)]), records(errors)) == end
    assert ends_after(Callbacks([EarlyStopping(patience, "test_error")]), records(errors, "test_error")) == end


@given(errors=st.lists(st.integers(0, 5), min_size=1, max_size=15), patience=st.integers(1, 4), data=st.data())
def test_an_interrupted_run_ends_where_the_uninterrupted_one_does(errors, patience, data) -> None:
    end = ends_after(Callbacks([EarlyStopping(patience)]), records(errors))
    seen = records(errors)[:end]
    cut = data.draw(st.integers(0, len(seen)))
    callbacks = Callbacks([EarlyStopping(patience)])
    reason = callbacks.resumed(seen[:cut])
    assert (reason is not None) == (end is not None and cut == end)
    if reason is None:
        assert ends_after(callbacks, seen[cut:]) == end


def test_a_run_that_went_on_beyond_its_end_may_go_on() -> None:
    """The patience of a finished run was raised, or a better epoch came after all."""
    callbacks = Callbacks([EarlyStopping(2)])
    assert callbacks.resumed(records([5, 6, 6, 6, 4])) is None
    assert callbacks.after_epoch({"epoch": 6, "valid_error": 4}, None) is None
    assert "since epoch 5" in callbacks.after_epoch({"epoch": 7, "valid_error": 4}, None)


def test_functions_without_replay_are_left_alone_on_resuming() -> None:
    assert Callbacks([stops]).resumed(records([1, 2])) is None


@pytest.mark.parametrize("patience", [0, -1, 1.5, True, "2", None])
def test_patience_is_a_whole_number(patience) -> None:
    with pytest.raises(ConfigurationError, match=r"patience = .*expected a whole number of epochs, 1 or more"):
        EarlyStopping(patience)


def test_a_metric_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"needs the metric valid_error.*give validation images"):
        EarlyStopping(1)({"epoch": 1, "valid_error": None}, None)
    with pytest.raises(ConfigurationError, match="needs the metric kink, which epoch 1 does not have"):
        EarlyStopping(1, "kink")({"epoch": 1}, None)
