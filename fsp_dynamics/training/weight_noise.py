"""Weight noise: while a network learns, its matrices carry a random perturbation, another one every
thousand images.

    W -> W + sigma rms(W) xi,      xi_ij from the standard normal distribution

with rms(W) the root mean square of the matrix at that moment. Before a perturbation is put on, the
one before is taken off, and the last one at the end of the epoch: updates are found with noise on
the weights, and added to the weights without it. Biases, and matrices that do not learn, carry
none. The idea is that of Murray and Edwards ("Enhanced MLP performance and fault tolerance
resulting from synaptic weight noise during training", IEEE Transactions on Neural Networks 5,
1994): what is learned must not lean on the exact value of single weights.

A perturbation is computed from the epoch's seed and the number of batches that were done when it
was put on. So a checkpoint holds that number and the scale for each matrix, not the noise, and all
engines, threads and ranks put on the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fsp_dynamics.kernels.counter_stream import fill_normal
from fsp_dynamics.kernels.team import Team
from fsp_dynamics.learning.optimisers import Sgd
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.training.epoch_state import EpochState

WORK = 20  # multiplications for each weight, at most


def matrices(network: Network) -> list[str]:
    """The names of the parameters that are no biases."""
    return [name for name in network.parameters() if not name.startswith("biases")]


@dataclass(slots=True, eq=False)
class WeightNoise:
    """The noise of one epoch.

    sigma : its standard deviation as a share of rms(W); 0: none. noisy : the matrices that learn.
    state : the epoch; `state.noise` says what is carried.
    carried : the noise on each matrix at the moment, by name; {} where there is none.
    """

    sigma: float
    noisy: tuple[str, ...]
    state: EpochState
    carried: dict[str, Array] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<WeightNoise of {self.sigma:g} rms on {len(self.carried)} of {len(self.noisy)} matrices>"

    @classmethod
    def of(cls, sigma: float, optimiser: Sgd, network: Network, state: EpochState) -> WeightNoise:
        """The noise of an epoch; of one that was left, with what its matrices carry."""
        names = matrices(network)
        learning = tuple(name for name in names if name not in optimiser.frozen and optimiser.rates.of(name) > 0)
        found = cls(sigma, learning, state)
        if state.noise.size:
            found.carried = found._drawn(network, state.noise)
        return found

    @property
    def is_due(self) -> bool:
        """Whether matrices carry none and should, or carry some and should not."""
        return bool(self.carried) != bool(self.sigma)

    def renew(self, network: Network) -> None:
        """Take the noise off the network's weights, in place, and put on another, if there is
        any.
        """
        self.take_off(network)
        if self.sigma:
            self.put_on(network)

    def take_off(self, network: Network) -> None:
        """Take the noise off the network's weights, in place."""
        weights = network.parameters()
        for name, noise in self.carried.items():
            weights[name] -= noise
        self.carried, self.state.noise = {}, np.zeros(0)

    def put_on(self, network: Network) -> None:
        """Put noise on the network's weights, in place, which carry none."""
        weights = network.parameters()
        scales = [self.sigma * _root_mean_square(weights[n]) if n in self.noisy else 0.0 for n in matrices(network)]
        self.state.noise = np.array([self.state.done, *scales])
        self.carried = self._drawn(network, self.state.noise)
        for name, noise in self.carried.items():
            weights[name] += noise

    def clean(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """The parameters without the noise that they carry; copies where they carry some."""
        return {name: w - self.carried[name] if name in self.carried else w for name, w in weights.items()}

    def _drawn(self, network: Network, noise: Array) -> dict[str, Array]:
        """What the matrices carry: noise (1 + M,) the number of the perturbation, then the scale of
        each of the M matrices.

        They come from the complement of the seed; the images of the epoch are drawn from the seed.
        """
        seed, weights, team, found = self.state.seed, network.parameters(), Team(1), {}
        assert seed is not None
        with np.errstate(over="ignore"):  # as plain Python, of products modulo 2^64
            for number, name in enumerate(matrices(network)):
                if noise[1 + number] > 0:
                    found[name] = np.empty_like(weights[name], order="C")
                    flat = found[name].reshape(-1)
                    scale, done = float(noise[1 + number]), int(noise[0])
                    team.run(fill_normal, ~np.uint64(seed), done, number, scale, flat, work=WORK * flat.size)
        return found


def _root_mean_square(weights: Array) -> float:
    """Summed in one order, by one thread."""
    return math.sqrt(float(np.einsum("ij,ij->", weights, weights, dtype=np.float64)) / weights.size)
