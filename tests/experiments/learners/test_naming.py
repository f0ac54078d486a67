"""Every learner has one name, read from the configuration of its runs."""

from __future__ import annotations

import pytest

from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.config_io import load_config, presets
from fsp_dynamics.experiments.figures import variants
from fsp_dynamics.experiments.learners import naming
from fsp_dynamics.experiments.learners.naming import LEARNERS, ORDER, learner_of

RECIPROCAL = {"network.kind": "reciprocal", "network.loop_scale": None, "learning.rates.loop": 0.0}


def named(**changes):
    return learner_of(load_config("digits", {key.replace("__", "."): value for key, value in changes.items()})[1])


def test_the_learners_of_the_table_are_the_variants_of_figures_with_mirror_phases_apart():
    base = load_config("fashion-2x500")[1]
    found = {name: learner_of(variants.variant(base, name)) for name in variants.LEARNERS}
    mirror = learner_of(load_config("fashion-2x500", {"learning.mirror": 0.05})[1])
    assert {*found.values(), mirror} == set(LEARNERS)
    assert found[variants.FIXED] == "eq. 14, loop fixed"
    assert found[variants.PERCEPTRON] == "backpropagation"
    assert mirror == "eq. 14, mirror phases"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"learning__frozen": ["forward[0]"]}, "eq. 14, W1 fixed"),
        ({"learning__frozen": ["loop", "input"]}, "eq. 14, loop fixed, input fixed"),
        ({"learning__mirror": 0.1, "learning__frozen": "forward[1]"}, "eq. 14, mirror phases, W2 fixed"),
        ({"learning__rule": "mean_subtracted"}, "eq. 14 mean-subtracted, loop learned"),
        ({"learning__rule": "products", "learning__frozen": "loop"}, "products, loop fixed"),
        ({"learning__rule": "gradient", "learning__frozen": "loop"}, "exact gradient, loop fixed"),
        ({"network__loop_scale": 0.0, "learning__frozen": "loop"}, "eq. 14, no loop"),
        ({"learning__rule": "my_rules:Rule"}, "my_rules:Rule, loop learned"),
    ],
)
def test_what_is_none_of_them_is_named_after_what_it_does(changes, name):
    assert named(**changes) == name


def test_reciprocal_networks():
    assert named(**RECIPROCAL) == "equilibrium propagation"
    assert named(**RECIPROCAL, learning__rule="products") == "equilibrium propagation"
    assert named(**RECIPROCAL, learning__rule="gradient") == "exact gradient, reciprocal"
    backward = {"network__tied": False, "learning__rates__backward": [1.0, 1.0]}
    assert named(**RECIPROCAL, **backward) == "equilibrium propagation, not tied"


def test_every_preset_has_a_learner_of_the_table():
    assert {learner_of(load_config(name)[1]) for name in presets("rate")} <= set(LEARNERS)
    for name in set(presets()) - set(presets("rate")):
        assert learner_of(load_config(name)[1]).startswith(ORDER), name


def test_a_namer_before_the_others_names_a_family_of_its_own(monkeypatch):
    plain = Config.model_validate({"data": {"name": "digits"}, "learning": {"epochs": 1}})
    assert learner_of(plain) == "rate"  # the key `family`, which no namer has refined
    own = lambda config: "softmax regression" if type(config) is Config else None  # noqa: E731
    monkeypatch.setattr(naming, "NAMERS", (own, *naming.NAMERS))
    assert learner_of(plain) == "softmax regression"
    assert named() == "eq. 14, loop learned"
