"""Eight kinds of small random networks, each network with an image and a nudge.

2 to 4 layers of 2 to 12 units, weights of Glorot's size times .4 to 40 (log-uniform), time
constants of .1 to 10 where they are unequal. One network in four has zero biases, so that layers
above silent ones have an input of exactly 0; the others have biases within [-1, 1].
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.network import Network
from fsp_dynamics.models.rate import Nudge

HARD, SMOOTH = "hard_sigmoid", ("logistic", "shifted_tanh")
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "hard loop": (("loop",), (HARD,)),
    "logistic loop": (("loop",), ("logistic",)),
    "tanh loop": (("loop",), ("shifted_tanh",)),
    "tied": (("tied",), (HARD,)),
    "untied": (("untied",), (HARD,)),
    "smooth reciprocal": (("tied", "untied"), SMOOTH),
    "unequal r": (("loop", "tied", "untied"), (HARD, *SMOOTH)),
    "negative beta": (("loop", "tied", "untied"), (HARD, *SMOOTH)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Network `number` of a kind, one image (1, n_in), and its nudge: beta, target (1, n_L)."""

    kind: str
    number: int
    network: Network
    images: np.ndarray
    beta: float
    target: np.ndarray

    def nudge(self) -> Nudge:
        return Nudge(self.beta, self.target)


def draw(kind: str, number: int) -> Case:
    """The case of that number of a kind, always the same."""
    rng = np.random.default_rng((zlib.crc32(kind.encode()), number))
    topologies, rhos = KINDS[kind]
    topology, rho = topologies[rng.integers(len(topologies))], rhos[rng.integers(len(rhos))]
    sizes = rng.integers(2, 13, rng.integers(2, 5) + 1)
    depth = len(sizes) - 1
    scale = float(0.4 * 100 ** rng.random())
    constants = tuple(10 ** rng.uniform(-1, 1, depth)) if kind == "unequal r" else (1.0,) * depth
    options: dict[str, Any] = {"rho": rho, "time_constants": constants, "dtype": np.float64, "rng": rng}
    if topology == "loop":
        network = loop_network(sizes, forward_scale=scale, loop_scale=scale, **options)
    else:
        network = reciprocal_network(sizes, tied=topology == "tied", forward_scale=scale, **options)
    if rng.random() < 0.75:
        biases = {f"biases[{k}]": rng.uniform(-1, 1, n) for k, n in enumerate(network.sizes[1:])}
        network = network.with_parameters(biases)
    beta = float(10 ** rng.uniform(-1, 0.5))
    if kind == "negative beta":
        beta = -float(rng.uniform(0.05, 0.95)) / constants[-1]
    target = np.eye(sizes[-1])[[rng.integers(sizes[-1])]]
    return Case(kind, number, network, rng.random((1, sizes[0])), beta, target)
