"""The objects that the configuration of a rate network describes: the network, and the recipe by
which it learns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.errors import CheckpointError, ConfigurationError, FspError
from fsp_dynamics.experiments.backend import NUMBA, Backend
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.rate.config import RateConfig, check_weights
from fsp_dynamics.experiments.schedule import schedule_of
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.training.augmentation import Augmentation
from fsp_dynamics.training.recipe import Recipe

NAMED = Objects()  # what the package itself names


def build_network(
    config: Config, pixels: int, classes: int, objects: Objects = NAMED
) -> tuple[Network, np.random.Generator]:
    """The network as it is before learning, and the random stream that training goes on with; both
    from the seed. objects : where a firing rate of one's own comes from.
    """
    config = require_rate(config, "build_network")
    check_weights("network.hidden", pixels, config.network.hidden[0])
    check_weights("network.hidden", config.network.hidden[-1], classes)
    first, second = np.random.SeedSequence(config.seed).spawn(2)
    given = config.network
    settings: dict[str, Any] = given.model_dump(include={"forward_scale", "loop_scale", "tied"}, exclude_none=True)
    make = loop_network if given.kind == "loop" else reciprocal_network
    network = make(
        [pixels, *given.hidden, classes],
        time_constants=config.time_constants,
        rho=objects.activation(given.rho),
        dtype=np.dtype(given.dtype),
        rng=np.random.default_rng(first),
        **settings,
    )
    return network, np.random.default_rng(second)


def network_with(config: RateConfig, parameters: dict[str, Array], objects: Objects = NAMED) -> Network:
    """The network with these parameters, by name, as a checkpoint holds them. Raises
    CheckpointError where they do not belong to the configuration.
    """
    objects.activation(config.network.rho)  # refused as what it is
    try:
        network, _ = build_network(config, *_ends(config, parameters), objects)
    except (FspError, KeyError) as error:
        raise CheckpointError(
            f"the checkpoint does not belong to this configuration: {error}; restore the run's config.toml"
        ) from None
    for name in sorted({*parameters} - {*network.parameters()})[:1]:
        raise CheckpointError(
            f"the checkpoint does not belong to this configuration: it holds {name}, which the network does not have; "
            "restore the run's config.toml"
        )
    for name, expected in network.parameters().items():
        found = parameters.get(name)
        if found is None or (found.shape, found.dtype) != (expected.shape, expected.dtype):
            what = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise CheckpointError(
                f"the checkpoint does not belong to this configuration: {name} is {what}, "
                f"expected {expected.dtype} {expected.shape}; restore the run's config.toml"
            )
    return network.with_parameters(parameters)


def _ends(config: RateConfig, parameters: dict[str, Array]) -> tuple[int, int]:
    """(pixels, classes) of a checkpoint's network, once its ends are known to be whole. Raises
    CheckpointError.
    """
    hidden = config.network.hidden
    first, last = parameters.get("input"), parameters.get(name := f"biases[{len(hidden)}]")
    for key, array, wanted in (("input", first, (None, hidden[0])), (name, last, (None,))):
        shape = () if array is None else array.shape
        if len(shape) != len(wanted) or 0 in shape or shape[1:] != wanted[1:]:
            what = "nothing" if array is None else f"{array.dtype} {shape}"
            raise CheckpointError(f"{key} is {what}, expected {' x '.join(str(n or 'any') for n in wanted)}")
    return len(parameters["input"]), len(parameters[name])


def build_recipe(
    config: Config,
    backend: Backend = NUMBA,
    local_rank: int = 0,
    objects: Objects = NAMED,
    image_shape: tuple[int, ...] | None = None,
) -> Recipe:
    """How to learn, from [learning] and [solver]. objects : where a rule of one's own comes from.
    image_shape : (height, width) of the training images, in colour (3, height, width), which
    decides how they can be changed. Raises ConfigurationError for settings that the solver refuses.
    """
    config = require_rate(config, "build_recipe")
    learning, given = config.learning, config.solver
    kept = {"normalised", "output_step", "momentum", "decay", "frozen"}
    rates, schedule = LearningRates(**learning.rates.model_dump()), schedule_of(learning.schedule, learning.rate_factor)
    optimiser = Sgd(rates, schedule=schedule, **learning.model_dump(include=kept))
    tolerance = asked_tolerance(config).attainable(config.network.dtype, sum(config.network.hidden))
    solver = backend.solver(given, local_rank)
    how = learning.model_dump(include={"beta", "phases", "batch", "mirror", "weight_noise"})
    how["average"] = learning.average.averaging
    how["augmentation"] = Augmentation(**learning.augmentation.model_dump(), shape=image_shape)
    return Recipe(rule=objects.rule(learning.rule), optimiser=optimiser, solver=solver, tolerance=tolerance, **how)


def asked_tolerance(config: RateConfig) -> Tolerance:
    """The tolerance of [solver], which may be below rounding."""
    given = config.solver
    if given.absolute is None and given.relative is None:
        return Tolerance.default(config.network.dtype)
    return Tolerance(given.absolute or 0.0, given.relative or 0.0)


def misfit(network: Network, data: Dataset) -> str | None:
    """Why a network cannot take the images, or tell the classes, of a data set; None if it can."""
    pixels = data.train.images.shape[1]
    if network.sizes[0] == pixels and network.sizes[-1] >= data.classes:
        return None
    return (
        f"{network.sizes[0]} inputs and {network.sizes[-1]} outputs, but the images of {data.name} have {pixels} "
        f"pixels and {data.classes} classes"
    )


def require_rate(config: Config, what: str) -> RateConfig:
    """The configuration, of a rate network. Raises ConfigurationError for another family's, which
    `what` cannot use.
    """
    if not isinstance(config, RateConfig):
        raise ConfigurationError(
            f"family = {config.family!r}, but {what} needs a rate network (family = 'rate'), which has phases and "
            "equilibria; give a run or a preset of one"
        )
    return config
