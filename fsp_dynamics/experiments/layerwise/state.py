"""The state of a learner as arrays, and back.

parameters/NAME     the network: what predicts, running statistics included
auxiliary/NAME      what serves learning alone
adam/STAGE/k/NAME   the moments of the k-th parameter of a stage
scaler/STAGE/NAME   in float16, the scale of its loss
dropout/LAYER       the state of the stream of masks
noise/k             the state of the k-th stream of noise in what serves learning alone
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn

from fsp_dynamics.errors import CheckpointError
from fsp_dynamics.layerwise.blocks import Drawing
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.stages import Stage
from fsp_dynamics.models.network import Array


def arrays_of(learner: Learner) -> dict[str, Array]:
    """The state, copied."""
    arrays = {f"parameters/{name}": value for name, value in parameters_of(learner).items()}
    arrays |= {f"auxiliary/{name}": _array(value) for name, value in learner.auxiliary.state_dict().items()}
    for stage in learner.stages:
        arrays |= _moments(stage, f"adam/{stage.name}") | _scale(stage, f"scaler/{stage.name}")
    return arrays | _drawn(_streams(learner))


def parameters_of(learner: Learner) -> dict[str, Array]:
    """{name: array} of the network alone, copied."""
    return {name: _array(value) for name, value in learner.network.state_dict().items()}


def set_arrays(learner: Learner, arrays: Mapping[str, Array]) -> None:
    """Go on from a state. Raises CheckpointError where it does not belong to the learner."""
    load_parameters(learner.network, _part(arrays, "parameters"))
    load_parameters(learner.auxiliary, _part(arrays, "auxiliary"))
    for stage in learner.stages:
        _set_moments(stage, _part(arrays, f"adam/{stage.name}"))
        _set_scale(stage, _part(arrays, f"scaler/{stage.name}"))
    _set_drawn(_streams(learner), arrays)


def stage_arrays(stage: Stage) -> dict[str, Array]:
    """The state of one stage, copied: all that its steps change."""
    arrays = {
        f"module/{k}/{name}": _array(value)
        for k, each in enumerate(stage.holds)
        for name, value in each.state_dict().items()
    }
    return arrays | _moments(stage, "adam") | _scale(stage, "scaler") | _drawn(_numbered("drawn", stage.holds))


def set_stage_arrays(stage: Stage, arrays: Mapping[str, Array]) -> None:
    """Go on from the state of a stage. Raises CheckpointError where it is another one's."""
    for k, module in enumerate(stage.holds):
        load_parameters(module, _part(arrays, f"module/{k}"))
    _set_moments(stage, _part(arrays, "adam"))
    _set_scale(stage, _part(arrays, "scaler"))
    _set_drawn(_numbered("drawn", stage.holds), arrays)


def load_parameters(module: nn.Module, given: Mapping[str, Array]) -> None:
    """Set all parameters and running statistics. Raises CheckpointError where names or shapes are
    not those of the module.
    """
    expected = module.state_dict()
    for name in [*expected, *given]:
        if name not in given or name not in expected:
            raise CheckpointError(f"{name} is {'missing' if name in expected else 'no parameter of this network'}")
        if tuple(given[name].shape) != tuple(expected[name].shape):
            raise CheckpointError(
                f"{name} has shape {tuple(given[name].shape)}, expected {tuple(expected[name].shape)}: it belongs to "
                "another network"
            )
    expected.update({name: torch.from_numpy(np.array(a)) for name, a in given.items()})
    module.load_state_dict(expected)


def _moments(stage: Stage, prefix: str) -> dict[str, Array]:
    """{prefix/k/NAME: array} of the k-th parameter of a stage; none where it learns nothing."""
    known = {} if stage.optimiser is None else stage.optimiser.state_dict()["state"]
    return {f"{prefix}/{k}/{name}": _array(value) for k, each in known.items() for name, value in each.items()}


def _set_moments(stage: Stage, given: Mapping[str, Array]) -> None:
    """Those of `_moments`, without the prefix. Raises CheckpointError for another number."""
    optimiser = stage.optimiser
    if optimiser is None:
        return
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in given.items():
        k, key = name.split("/")
        moment = torch.from_numpy(np.array(value))
        state.setdefault(int(k), {})[key] = moment.reshape(()) if key == "step" else moment
    count = sum(len(group["params"]) for group in optimiser.param_groups)
    if state and len(state) != count:
        raise CheckpointError(f"adam/{stage.name} has moments of {len(state)} parameters, expected {count}")
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _scale(stage: Stage, prefix: str) -> dict[str, Array]:
    """{prefix/NAME: number} of the scaler of a stage's loss; none where it has no scaler."""
    known = {} if stage.scaler is None else stage.scaler.state_dict()
    return {f"{prefix}/{name}": np.array(value) for name, value in known.items()}


def _set_scale(stage: Stage, given: Mapping[str, Array]) -> None:
    """Those of `_scale`, without the prefix; none leave the scaler as it is."""
    if stage.scaler is not None and given:
        stage.scaler.load_state_dict({name: value.item() for name, value in given.items()})


def _streams(learner: Learner) -> dict[str, Drawing]:
    """All that draw while they learn."""
    found: dict[str, Drawing] = {}
    for name, owner in {"dropout": learner.network, "noise": learner.auxiliary}.items():
        found |= _numbered(name, [owner])
    return found


def _numbered(name: str, modules: Iterable[nn.Module]) -> dict[str, Drawing]:
    """{name/k: the k-th module that draws}."""
    drawing = (each for module in modules for each in module.modules() if isinstance(each, Drawing))
    return {f"{name}/{k}": each for k, each in enumerate(drawing)}


def _drawn(streams: Mapping[str, Drawing]) -> dict[str, Array]:
    """The states of these streams."""
    return {name: _array(each.generator.get_state()) for name, each in streams.items()}


def _set_drawn(streams: Mapping[str, Drawing], arrays: Mapping[str, Array]) -> None:
    """Go on from such states. Raises CheckpointError where one is missing."""
    for name, each in streams.items():
        if name not in arrays:
            raise CheckpointError(f"the state of {name} is missing; resume from another checkpoint")
        each.generator.set_state(torch.from_numpy(np.array(arrays[name], np.uint8)))


def _part(arrays: Mapping[str, Array], name: str) -> dict[str, Array]:
    return {key.removeprefix(f"{name}/"): a for key, a in arrays.items() if key.startswith(f"{name}/")}


def _array(value: torch.Tensor) -> Array:
    return np.array(value.detach().cpu().numpy())
