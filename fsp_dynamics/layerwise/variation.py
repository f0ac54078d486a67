"""A trained spiking network with weights of a few bits, with other steps of time, or with another
threshold: what becomes of it on hardware that has no more.

Weights are quantised for each unit of a layer (channel of a convolution, class of the classifier)
apart, to n bits, symmetric and uniform:

    Q(w) = s clip(round(w / s), -m, m),   m = 2^(n-1) - 1;  n = 1: s sign(w), s the mean of |w|

where s is that of the steps max |w| / m k / 32, k = 1 ... 32, whose squared error is the least, the
largest of them where several are. A unit's batch norm, its bias and its threshold stay as they are.
A factor c > 0 of a unit's weights passes through, Q(c w) = c Q(w), so it is the same before batch
norm is folded into the weights and after.
"""

from __future__ import annotations

import torch

from fsp_dynamics.errors import ConfigurationError, check_positive, is_whole
from fsp_dynamics.layerwise.learners import Learner, make_learner
from fsp_dynamics.layerwise.names import MOST_STEPS
from fsp_dynamics.layerwise.networks import neuron_of

MOST_BITS = 16
FRACTIONS = 32


def varied(
    learner: Learner, *, bits: int | None = None, steps: int | None = None, threshold: float | None = None
) -> Learner:
    """A copy of a learner of spiking units for predictions, varied; the learner stays as it is.

    bits : of the weights of all layers and of the classification layer, 1 to 16. steps : of time.
    threshold : of all units. None: as trained. Targets pass the same weights and units. What serves
    learning alone is drawn anew.

    Raises ConfigurationError for other values, and for a network without spikes.

    Returns
    -------
    Learner : of the same kind, in the same precision and place.

    >>> from fsp_dynamics.layerwise.networks import snn
    >>> learner = make_learner("bp", snn([], [6]), (1, 2, 2), 3)
    >>> coarse = varied(learner, bits=2, steps=8)
    >>> coarse.network.shape.neuron.steps, learner.network.shape.neuron.steps
    (8, 4)
    >>> [len(row.unique()) <= 3 for row in coarse.network.head.weight]
    [True, True, True]
    """
    network, neuron = learner.network, neuron_of(learner.network)
    if bits is not None:
        check_bits(bits)
    if steps is not None:
        neuron = neuron._replace(steps=check_steps(steps))
    if threshold is not None:
        neuron = neuron._replace(threshold=float(check_positive("threshold", threshold)))
    like = next(network.parameters())
    made = make_learner(
        learner.name,
        network.shape._replace(neuron=neuron),
        network.image_shape,
        network.classes,
        learner.settings,
        seed=learner.seed,
        device=like.device,
        dtype=like.dtype,
    )
    made.network.load_state_dict(network.state_dict())
    if bits is not None:
        with torch.no_grad():
            for weight in _weights(made):
                weight.copy_(quantised(weight, bits))
    return made


def quantised(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Q of weights (units, ...), each unit's apart. Raises ConfigurationError for other bits than 1
    to 16.

    Returns
    -------
    tensor : of the same shape and precision.

    >>> quantised(torch.tensor([[1.0, 0.1, -0.9], [4.0, 2.0, -3.0]]), 2).tolist()
    [[0.9375, 0.0, -0.9375], [3.0, 3.0, -3.0]]
    >>> quantised(torch.tensor([[1.0, 2.0, -3.0]]), 1).tolist()
    [[2.0, 2.0, -2.0]]
    """
    check_bits(bits)
    rows = weight.detach().flatten(1).double()
    if bits == 1:
        found = rows.abs().mean(1, keepdim=True) * torch.where(rows < 0, -1.0, 1.0)
    else:
        most = 2 ** (bits - 1) - 1
        largest = rows.abs().amax(1, keepdim=True) / most
        found, least = torch.zeros_like(rows), torch.full_like(largest, torch.inf)
        for k in range(FRACTIONS, 0, -1):
            step = largest * k / FRACTIONS
            each = step * (rows / step).nan_to_num().round().clamp(-most, most)  # no step where all are 0
            error = ((each - rows) ** 2).sum(1, keepdim=True)
            found, least = torch.where(error < least, each, found), torch.minimum(error, least)
    return found.reshape(weight.shape).to(weight.dtype)


def check_bits(bits: int) -> int:
    """The number, if weights can have so many bits. Raises ConfigurationError."""
    if not is_whole(bits, 1) or bits > MOST_BITS:
        raise ConfigurationError(f"bits = {bits!r}, expected a whole number from 1 to {MOST_BITS}")
    return bits


def check_steps(steps: int) -> int:
    """The number, if a network can run so many steps. Raises ConfigurationError."""
    if not is_whole(steps, 1) or steps > MOST_STEPS:
        raise ConfigurationError(f"steps = {steps!r}, expected a whole number from 1 to {MOST_STEPS}")
    return steps


def _weights(learner: Learner) -> list[torch.Tensor]:
    """Of the layers and the classification layer."""
    network = learner.network
    found = [block.weights.weight for block in network.blocks]
    return found if network.head is None else [*found, network.head.weight]
