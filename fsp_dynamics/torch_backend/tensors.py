"""Networks, states and nudges as torch tensors on a device, and back: the one place where NumPy
and torch meet.

Arrays on the CPU share their buffer with the tensor; nothing is copied that need not be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge

DEVICES = ("auto", "cpu", "cuda")
TensorState = tuple[torch.Tensor, ...]
"""The states, or the rates, of all layers (B, n_k)."""


def chosen_device(name: str) -> torch.device:
    """The device of that name; "auto": CUDA where there is one, else the CPU. Raises
    ConfigurationError for a device that is not there.
    """
    kind, colon, number = name.partition(":")
    check_choice("device", kind, DEVICES)
    if colon and not (kind == "cuda" and number.isdecimal()):
        raise ConfigurationError(f"device = {name!r}, expected auto, cpu, cuda, or a numbered one such as cuda:1")
    if kind == "auto":
        kind = name = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        built = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        raise ConfigurationError(f"device = {name!r}, but {built}; use cpu or auto")
    if number and int(number) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device = {name!r}, but there are {torch.cuda.device_count()} CUDA devices, numbered from 0"
        )
    return torch.device(name)


def describe_device(name: str) -> str:
    """The torch of this process and the device of that name, with the model of a GPU."""
    device = chosen_device(name)
    model = "" if device.type == "cpu" else f" ({torch.cuda.get_device_name(device)})"
    return f"torch {torch.__version__} on {device}{model}"


def tensor(array: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The array as a tensor on `device`, in `dtype` (its own if None); on the CPU it shares the
    array's buffer where it can.
    """
    array = np.asarray(array)
    # torch would warn of the first and refuse the second
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array).to(device=device, dtype=dtype)


def array(tensor: torch.Tensor) -> Array:
    """The tensor as an array; on the CPU it shares the tensor's buffer."""
    return tensor.detach().cpu().numpy()


def tensor_network(network: Network, device: torch.device) -> Network:
    """The network with tensors for its weights: every function of models/rate takes it. On the CPU
    they share the network's buffers.
    """
    return network.with_parameters({name: tensor(w, device) for name, w in network.parameters().items()})


def tensor_nudge(nudge: Nudge | None, network: Network, device: torch.device) -> Nudge | None:
    """The nudge with its target as a tensor in the precision of `network` (of arrays)."""
    return (
        None if nudge is None else Nudge.of(float(nudge.beta), tensor(np.asarray(nudge.target, network.dtype), device))
    )
