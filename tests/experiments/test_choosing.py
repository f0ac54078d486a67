"""Runs are chosen and put in order by what the list shows and by keys of their configurations."""

from __future__ import annotations

import pytest
from made_runs import made_run

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.choosing import chosen, in_order
from fsp_dynamics.experiments.overview import listed_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """a (4.0 %), b (beta 0.5, 3.0 %), c (mnist, 2.0 %, unfinished), d (unreadable)."""
    folder = tmp_path_factory.mktemp("runs")
    made_run(folder / "a")
    made_run(folder / "b", test=3.0, seed=1, **{"learning.beta": 0.5, "learning.frozen": ["loop"]})
    made_run(folder / "c", "mnist-2x500", test=2.0, status="unfinished", done=2)
    (made_run(folder / "d") / "config.toml").write_text("seed = ")
    return listed_runs(folder)


def names(found):
    return [each.record["run"][-1] for each in found]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((), "abcd"),
        (("data=mnist",), "c"),
        (("data!=mnist",), "abd"),
        (("test_error<3.5",), "bc"),
        (("test_error<=3", "data=digits"), "b"),
        (("learning.beta=0.5",), "b"),
        (("beta>0.5",), "ac"),
        (("hidden=500,500",), "c"),
        (("network.hidden=100,100",), "ab"),
        (("learner=*loop fixed",), "b"),
        (("learning.frozen=loop",), "b"),
        (("run=*/a",), "a"),
        (("seed>=1",), "b"),
        (("angle_loop=60",), "abc"),
        (("status!=finished",), "cd"),
        (("output_step=none",), "d"),
        (("epochs=2",), "c"),
    ],
)
def test_conditions_hold_together(runs, conditions, expected):
    assert names(chosen(runs, conditions)) == list(expected)


@pytest.mark.parametrize(
    ("key", "backwards", "expected"),
    [
        ("test_error", False, "cbad"),
        ("test_error", True, "abcd"),
        ("run", True, "dcba"),
        ("beta", False, "bacd"),
        ("learner", False, "bacd"),
        ("angle_W1", False, "abcd"),
    ],
)
def test_runs_are_put_in_order_and_those_without_a_value_come_last(runs, key, backwards, expected):
    assert names(in_order(runs, key, backwards=backwards)) == list(expected)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("data", ["where = 'data'", "KEY=VALUE"]),
        ("=3", ["expected KEY=VALUE"]),
        ("test_eror<3", ["'test_eror'", "did you mean 'test_error'"]),
        ("qqq=red", ["no column and no key", "give a column", "test_error"]),
        ("name=mnist", ["ambiguous", "data.name, solver.name"]),
        ("data<mnist", ["'mnist'", "expected a number"]),
    ],
)
def test_what_is_no_condition_is_refused(runs, condition, words):
    with pytest.raises(ConfigurationError) as caught:
        chosen(runs, [condition])
    for word in words:
        assert word in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"sort = 'tset_error'.*'test_error'"):
        in_order(runs, "tset_error")
