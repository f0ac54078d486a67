"""Hidden units that are stuck: what is recorded, when a user is warned, and of which rate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fsp_dynamics.datasets import load_dataset
from fsp_dynamics.experiments.backend import backend_of
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.rate.building import build_network, build_recipe
from fsp_dynamics.experiments.rate.stuck import about_stuck, stuck_before_learning
from fsp_dynamics.experiments.rate.trainer import RateTrainer
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.training.evaluation import evaluate

CONFIG = load_config("digits")[1]  # two layers of 100


@pytest.mark.parametrize(
    ("now", "before", "layers"),
    [
        ({"hidden1": [5, 6], "hidden2": [0, 0]}, {"hidden1": [1, 0], "hidden2": [0, 0]}, []),  # a tenth, no more
        ({"hidden1": [5, 7], "hidden2": [0, 0]}, {"hidden1": [1, 0], "hidden2": [0, 0]}, ["hidden1"]),
        ({"hidden1": [0, 0], "hidden2": [80, 9]}, {"hidden1": [0, 0], "hidden2": [80, 5]}, []),  # warned of before
        ({"hidden1": [20, 0], "hidden2": [0, 20]}, {}, ["hidden1", "hidden2"]),
        ({"hidden1": [99, 0], "hidden2": [0, 0]}, None, []),  # what came before is not known
        ({}, {"hidden1": [1, 0], "hidden2": [0, 0]}, []),
    ],
)
def test_more_than_a_tenth_of_a_layer_newly_stuck_is_told(now, before, layers):
    found = about_stuck(now, before, CONFIG)
    assert [text.split(" units of ")[1].split()[0] for text in found] == layers


def test_the_rate_into_the_layer_is_named():
    now, before = {"hidden1": [30, 3], "hidden2": [0, 44]}, {"hidden1": [1, 1], "hidden2": [0, 0]}
    first, second = about_stuck(now, before, CONFIG)
    assert first.startswith("33 of 100 units of hidden1 have rate 0 or 1, the same on every image (2 before)")
    assert first.endswith("lower learning.rates.input (now 20)")
    assert second.endswith("lower learning.rates.forward[0] (now 30)")
    own = load_config("digits", {"learning.rates.biases": [1.0, 2.5, 3.0]})[1]
    assert about_stuck(now, before, own)[1].endswith("forward[0] (now 30) and learning.rates.biases[1] (now 2.5)")


@pytest.mark.parametrize("images", ["valid", "test"])
def test_a_run_records_what_an_evaluation_of_these_images_counts(tiny, tmp_path, monkeypatch, images):
    """On the validation images, or on the test images where there are none of them."""
    seen, real = {}, RateTrainer.evaluate

    def evaluated(self, part):
        seen[part] = real(self, part)
        if seen[part] is not None:
            seen[part] = dataclasses.replace(seen[part], stuck={"hidden1": (len(part), 7)})
        return seen[part]

    monkeypatch.setattr(RateTrainer, "evaluate", evaluated)
    table = tiny(data={} if images == "valid" else {"validation": 0})
    run = train(table, out=tmp_path / "run", progress=False, epochs=1)
    assert (seen["valid"] is None) == (images == "test")
    assert run.metrics[-1]["stuck_units"] == {"hidden1": [len(images), 7]}


def test_before_it_learns_a_network_has_as_many_on_a_few_images_or_more():
    data = load_dataset("digits")
    network, _ = build_network(CONFIG, 64, 10)
    recipe = build_recipe(CONFIG)
    few, all_of_them = stuck_before_learning(network, data, recipe), evaluate(network, data.valid, recipe).stuck
    assert few.keys() == all_of_them.keys()
    assert all((np.array(few[name]) >= all_of_them[name]).all() for name in few)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_network_that_never_rests_is_not_integrated_for_that(backend):
    """The solver of the run would integrate each of the images for long."""
    if backend == "torch":
        pytest.importorskip("torch")
    strong = {"network.hidden": [20], "network.loop_scale": 1000.0, "learning.rates.forward": [7.0], "seed": 1}
    _, config = load_config("digits", strong)
    network, _ = build_network(config, 64, 10)
    recipe = build_recipe(config, backend_of(backend, "cpu" if backend == "torch" else None, None))

    class Never:
        def relax(self, network, constant, *rest):
            assert not len(constant), "it was asked to integrate"
            return solver.relax(network, constant, *rest)

    solver = recipe.solver.fallback
    assert solver is not None
    told = dataclasses.replace(recipe, solver=dataclasses.replace(recipe.solver, fallback=Never()))
    data = load_dataset("digits")
    with pytest.raises(AssertionError, match="asked to integrate"):
        evaluate(network, data.valid.limit(1), told)
    assert list(stuck_before_learning(network, data, told)) == ["hidden1"]


def test_high_hidden_rates_are_warned_of_once_and_the_advice_helps(tmp_path):
    """At ten times the hidden rates of the preset much of either layer is stuck after an epoch,
    which is told then, and not again while it stays so.

    Seeds 0 to 7, of 100 units each: 37 to 70 and 54 to 92 after the first epoch and no more in the
    second; at the rates of the preset 2 to 10 and 4 to 16, never more than ten newly in an epoch.
    """
    high = {"learning.rates.input": 200.0, "learning.rates.forward": [300.0, 7.0]}
    with pytest.warns(UserWarning, match="tell no images apart") as caught:
        run = train("digits", out=tmp_path / "high", epochs=2, progress=False, threads=1, **high)
    told = [str(each.message) for each in caught if "no images apart" in str(each.message)]
    assert [text.partition(":")[0] for text in told] == ["epoch 1", "epoch 1"]
    assert all(f"lower {key}" in text for key, text in zip(
        ("learning.rates.input (now 200)", "learning.rates.forward[0] (now 300)"), told, strict=True
    ))  # fmt: skip
    usual = train("digits", out=tmp_path / "usual", epochs=2, progress=False, threads=1)
    for layer in ("hidden1", "hidden2"):
        assert 2 * sum(usual.metrics[-1]["stuck_units"][layer]) < sum(run.metrics[-1]["stuck_units"][layer])
