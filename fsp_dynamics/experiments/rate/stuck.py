"""Hidden units that have come to rest at 0, or at 1, on every image: when to say so, and which rate
to lower.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.experiments.rate.config import RateConfig
from fsp_dynamics.models.network import Network
from fsp_dynamics.training.evaluation import evaluate
from fsp_dynamics.training.recipe import Recipe

MANY = 0.1  # of a layer's units from which on a user is warned
FIRST = 100  # images on which a network is looked at before it learns

Counts = Mapping[str, Sequence[int]]
"""{layer: (units at 0, units at 1)}, as in `training.evaluation.Evaluation`."""


def stuck_before_learning(network: Network, data: Dataset, recipe: Recipe) -> Counts:
    """Those of a new network, on a few of the images on which they are counted later: as many as
    on all of them, or more. What passes leave unconverged is counted as it is: to integrate it
    could take minutes.
    """
    split, solver = data.valid if len(data.valid) else data.test, recipe.solver
    if not len(split):
        return {}
    if getattr(solver, "fallback", None) is not None:  # of passes, on arrays or on tensors
        recipe = dataclasses.replace(recipe, solver=dataclasses.replace(cast(Any, solver), fallback=None))
    return evaluate(network, split.limit(min(FIRST, len(split))), recipe).stuck


def about_stuck(now: Counts, before: Counts | None, config: RateConfig) -> list[str]:
    """A line for each layer of which more than a tenth has come to be stuck since `before`; None:
    not known, and nothing is said.
    """
    found = []
    for k, size in enumerate(config.network.hidden if before is not None else ()):
        name = f"hidden{k + 1}"
        count, known = sum(now.get(name, ())), sum((before or {}).get(name, ()))
        if count - known > MANY * size:
            found.append(
                f"{count} of {size} units of {name} have rate 0 or 1, the same on every image ({known} before), and "
                f"tell no images apart; lower {_rates_into(k, config)}"
            )
    return found


def _rates_into(k: int, config: RateConfig) -> str:
    """The keys of the rates into hidden layer k, and their values."""
    rates = config.learning.rates
    matrix, value = ("input", rates.input) if k == 0 else (f"forward[{k - 1}]", rates.forward[k - 1])
    keys = [f"learning.rates.{matrix} (now {value:g})"]
    keys += [f"learning.rates.biases[{k}] (now {rates.biases[k]:g})"] if rates.biases else []
    return " and ".join(keys)
