"""Epochs for tests: a learner trained for some of them, and whether two learners are the same to
the bit.
"""

from __future__ import annotations

import dataclasses
import itertools

from fsp_dynamics.training import engine
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.recipe import Learner

OPTIMISERS = {
    "plain": {},
    "limited": {"output_step": 0.02},
    "momentum": {"momentum": 0.5, "decay": 0.01},
    "limited-momentum": {"momentum": 0.5, "output_step": 0.02, "frozen": ("biases[1]", "forward[0]")},
    "unnormalised": {"normalised": False},
    "mean-subtracted": {"rule": "mean_subtracted", "output_step": 0.02},
    "mean-subtracted-momentum": {"rule": "mean_subtracted", "momentum": 0.5},
}


def own_biases(recipe, factor=3.0):
    """The recipe with rates of biases of their own: `factor` times those they would share in the
    first layer, and less from layer to layer.
    """
    rates = recipe.optimiser.rates
    shared = (rates.of(f"biases[{k}]") for k in range(len(rates.forward) + 1))
    biases = tuple(rate * factor / (1 + 3 * k) for k, rate in enumerate(shared))
    optimiser = dataclasses.replace(recipe.optimiser, rates=dataclasses.replace(rates, biases=biases))
    return dataclasses.replace(recipe, optimiser=optimiser)


def only_plain(monkeypatch) -> None:
    """From here on every network trains on the plain engine."""
    monkeypatch.setattr(engine, "ENGINES", dict.fromkeys(engine.ENGINES, (engine.PLAIN,)))


def trained(network, recipe, data, epochs=2, **options):
    learner = Learner.start(network, recipe, 3)
    return learner, [train_epoch(learner, data, recipe, **options) for _ in range(epochs)]


def same_bits(one: Learner, other: Learner) -> bool:
    pairs = itertools.chain(
        zip(one.network.parameters().values(), other.network.parameters().values(), strict=True),
        zip(one.warm_start.arrays().values(), other.warm_start.arrays().values(), strict=True),
    )
    return all(a.tobytes() == b.tobytes() for a, b in pairs)
