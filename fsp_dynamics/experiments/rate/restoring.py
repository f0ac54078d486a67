"""What a checkpoint of a rate network must hold, array by array, before any of it is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.errors import CheckpointError
from fsp_dynamics.experiments.rate.building import misfit
from fsp_dynamics.experiments.trainer import TrainingState
from fsp_dynamics.learning.averaging import WeightAverage
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.recipe import Recipe
from fsp_dynamics.training.warm_start import UNSEEN, LoopWarmStart, ReciprocalWarmStart, WarmStart
from fsp_dynamics.training.weight_noise import matrices

PARTS = ("parameters", "raw", "velocity", "warm_start", "epoch")
_KIND = "learning.average.kind"
REMEDY = "restore the checkpoint, or train again into another folder"


def check_state(state: TrainingState, network: Network, recipe: Recipe, data: Dataset) -> None:
    """Refuse a state that is not whole, or not of this network, recipe and data. Raises
    CheckpointError naming the array.
    """
    require_fit(network, data)
    samples = len(data.train.labels)
    for name in state.arrays:
        if name.partition("/")[0] not in PARTS:
            raise CheckpointError(f"the checkpoint holds {name}, which no state has; {REMEDY}")
    expected = network.parameters()
    _check_same("parameters", state.parameters, expected)
    _check_average(state, expected, recipe)
    _check_velocity(state, expected, recipe)
    _check_warm_start(state, network, samples)
    if part := state.part("epoch"):
        _check_epoch(part, network, recipe, samples, state.changed)
    probes = state.values.get("probes", [])
    if not isinstance(probes, list) or not all(isinstance(each, dict) and "epoch" in each for each in probes):
        raise CheckpointError(f"the checkpoint holds probes that are no records; {REMEDY}")


def require_fit(network: Network, data: Dataset) -> None:
    """Raises CheckpointError for a checkpoint's network that is not for the images of its run."""
    if wrong := misfit(network, data):
        raise CheckpointError(f"the checkpoint holds a network that has {wrong}; {REMEDY}")


def average_of(state: TrainingState, recipe: Recipe) -> WeightAverage:
    """The average in a state that was checked; an empty one where the recipe asks for none, for one
    of another kind than the state has, or for one that begins later.
    """
    samples, how = state.values.get("averaged", 0), recipe.average
    if not samples or how is None or _KIND in state.changed or state.epoch < how.start:
        return WeightAverage()
    return WeightAverage({name: np.array(a) for name, a in state.parameters.items()}, samples)


def _check_average(state: TrainingState, parameters: Mapping[str, Array], recipe: Recipe) -> None:
    """Where weights are averaged it says of how many samples; those that learn are there beside an
    average of some.
    """
    samples = state.values.get("averaged")
    if _KIND not in state.changed and (samples is None) != (recipe.average is None):
        what = "does not say of how many samples its average is" if samples is None else "holds an average"
        raise CheckpointError(f"the checkpoint {what}, which is not what this run has; {REMEDY}")
    if samples is not None and not _is_below(samples, 1 << 62):
        raise CheckpointError(f"the checkpoint holds an average of {samples!r} samples, expected a number; {REMEDY}")
    _check_same("raw", state.part("raw"), parameters if samples else {})


def _check_velocity(state: TrainingState, parameters: Mapping[str, Array], recipe: Recipe) -> None:
    """All that learn have one, or none without momentum and where nothing was learned yet."""
    found = state.part("velocity")
    if {"learning.momentum", "learning.frozen"} & set(state.changed):
        _check_same("velocity", found, {name: parameters[name] for name in found if name in parameters})
        return
    learning = [name for name in parameters if name not in recipe.optimiser.frozen]
    needed = recipe.optimiser.momentum > 0 and (bool(found) or state.epoch > 0)
    _check_same("velocity", found, {name: parameters[name] for name in learning} if needed else {})


def _check_warm_start(state: TrainingState, network: Network, samples: int) -> None:
    found = state.part("warm_start")
    if not found:
        return
    kind: type[LoopWarmStart | ReciprocalWarmStart] = ReciprocalWarmStart if network.is_reciprocal else LoopWarmStart
    expected: WarmStart = kind.empty(samples, network)
    _check_same("warm_start", found, expected.arrays(), any_length="data.limit" in state.changed)
    seen = found.get("seen")
    if seen is not None and ((seen >= network.sizes[-1]) & (seen != UNSEEN)).any():
        raise CheckpointError(f"warm_start/seen names outputs that the network does not have; {REMEDY}")


def _check_epoch(
    found: Mapping[str, Array], network: Network, recipe: Recipe, samples: int, changed: Iterable[str]
) -> None:
    classes, batches, beta = network.sizes[-1], -(-samples // recipe.batch), "learning.beta" not in changed
    rng = np.random.default_rng(0)
    expected = EpochState.begin(samples, classes, recipe.batch, recipe.beta, recipe.phases, rng)
    drawn = ("learning.augmentation", "learning.weight_noise")
    needed = not any(key.startswith(drawn) for key in changed)  # else it may hold them or not
    noisy = "noise" in found or (needed and recipe.weight_noise)
    if noisy or "seed" in found or (needed and recipe.draws):
        expected.draw_seed(rng)
    if noisy:
        expected.noise = np.zeros(1 + len(matrices(network)))
    _check_same("epoch", found, expected.arrays())
    batch, done, owed = (int(n) for n in found["position"])
    right = {
        "order": np.array_equal(np.sort(found["order"]), np.arange(samples)),
        "betas": not beta or bool((np.abs(found["betas"]) == abs(recipe.beta)).all()),
        "position": batch == recipe.batch and 0 <= done <= batches and owed in (0, 1),
        "counts": bool((found["counts"] >= 0).all()),
        "seconds": bool((found["seconds"] >= 0).all()),
        "noise": not noisy or bool((found["noise"] >= 0).all() and 0 <= found["noise"][0] <= done),
    }
    for name, fine in right.items():
        if not fine:
            raise CheckpointError(f"epoch/{name} holds numbers that an unfinished epoch cannot have; {REMEDY}")


def _check_same(
    part: str, found: Mapping[str, Array], expected: Mapping[str, Array], *, any_length: bool = False
) -> None:
    """Refuse other names, shapes or dtypes. any_length : arrays may have more rows or fewer."""
    for name in _first({*found} ^ {*expected}):
        what = "is missing" if name in expected else "is none that this run has"
        raise CheckpointError(f"the checkpoint does not belong to this run: {part}/{name} {what}; {REMEDY}")
    for name, array in found.items():
        shape, wanted = array.shape, expected[name].shape
        alike = shape == wanted or (any_length and shape[1:] == wanted[1:] and len(shape) == len(wanted))
        if not alike or array.dtype != expected[name].dtype:
            raise CheckpointError(
                f"the checkpoint does not belong to this run: {part}/{name} is {array.dtype} {shape}, "
                f"expected {expected[name].dtype} {wanted}; {REMEDY}"
            )


def _first(names: Iterable[str]) -> list[str]:
    return sorted(names)[:1]


def _is_below(value: Any, limit: int) -> bool:
    return type(value) is int and 0 <= value < limit
