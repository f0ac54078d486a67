"""Networks whose equilibria are known, by name: every solver meets every one of them.

    p = problem("saturated", np.float64)
    p.network, p.images, p.drive   what a solver is given
    p.nudges["negative"]           phases "free" (None), "nudged" (beta > 0), "negative" (beta < 0)
    p.known["negative"]            tuple of (B, n_k) float64: the equilibrium, from tests/oracles.py
    random_problem(seed, dtype)    one of endlessly many, loop gain below 1

Known equilibria belong to the network in ITS precision: a float32 problem is solved in float64
from the float32 weights, so a float32 solver may be held to 1e-5 of them and a float64 solver to
1e-12.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
import oracles

from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.network import Network, loop_gain
from fsp_dynamics.models.rate import Nudge, drive

PHASES = ("free", "nudged", "negative")
DTYPES = (np.float32, np.float64)
# how close two solvers' equilibria must be
AGREEMENT = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}


@dataclass(frozen=True, eq=False)
class Problem:
    """A network, images, and the nudge of each phase."""

    name: str
    network: Network
    images: np.ndarray
    nudges: dict[str, Nudge | None] = field(repr=False)

    @cached_property
    def drive(self):
        return drive(self.network, self.images)

    @cached_property
    def known(self):
        """{phase: equilibrium, tuple of (B, n_k) float64}."""
        return {phase: oracles.equilibrium(self.network, self.images, nudge) for phase, nudge in self.nudges.items()}

    @property
    def batch(self):
        return len(self.images)

    @property
    def agreement(self):
        """1e-5 or 1e-12, by precision."""
        return AGREEMENT[self.network.dtype]


def one_hot(labels, classes):
    return np.eye(classes)[np.asarray(labels) % classes]


def _problem(name, network, images, dtype, target=None, beta=0.7, negative=-0.4):
    network, images = network.astype(dtype), images.astype(dtype)
    target = one_hot(np.arange(len(images)), network.sizes[-1]) if target is None else target
    target = target.astype(dtype)
    return Problem(
        name, network, images, {"free": None, "nudged": Nudge(beta, target), "negative": Nudge(negative, target)}
    )


def _rescaled(network, gain):
    """Forward and loop matrices scaled to 2-norms whose product is `gain`, all equal."""
    each = gain ** (1 / network.depth)
    scaled = {
        n: w * (each / np.linalg.norm(w, 2))
        for n, w in network.parameters().items()
        if n.startswith(("forward", "loop", "backward"))
    }
    return network.with_parameters(scaled)


def _biased(network, rng, low, high):
    return network.with_parameters({f"biases[{k}]": rng.uniform(low, high, n) for k, n in enumerate(network.sizes[1:])})


def random_network(rng, sizes, gain, *, low=-0.7, high=1.5, rho="hard_sigmoid", time_constants=1.0, dtype=np.float64):
    """A loop network with the given loop gain, biases uniform in [low, high]: the default
    saturates units at 0 and at 1.
    """
    rng = np.random.default_rng(rng)
    network = loop_network(sizes, rho=rho, time_constants=time_constants, dtype=np.float64, rng=rng)
    return _biased(_rescaled(network, gain), rng, low, high).astype(dtype)


def random_problem(seed, dtype=np.float64):
    """Loop network of 1 to 4 hidden layers with 2 to 9 units each, gain in (0.05, 0.9): unique
    equilibrium, units saturated at both ends.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 10, rng.integers(3, 7))
    network = random_network(rng, sizes, rng.uniform(0.05, 0.9))
    return _problem(f"random-{seed}", network, rng.random((rng.integers(1, 6), sizes[0])), dtype)


def ring(n, gamma, dtype=np.float64, batch=3):
    """n layers of one unit, loop gain -gamma shared equally: rests inside near s = 1/2, stable iff
    gamma < sec(pi/n)^n (model fact 8).
    """
    size = gamma ** (1 / n)
    network = Network(
        input=np.full((1, 1), 0.1),
        forward=tuple(np.full((1, 1), size) for _ in range(n - 1)),
        loop=np.full((1, 1), -size),
        biases=(np.full(1, 0.5 + 0.5 * size - 0.05), *(np.full(1, 0.5 - 0.5 * size) for _ in range(n - 1))),
    )
    images = np.linspace(0.3, 0.7, batch)[:, None]
    return _problem(f"ring-{n}-{gamma:g}", network, images, dtype, target=np.full((batch, 1), 0.6), negative=-0.2)


def _interior(dtype):
    """Small weights round s = 1/2: no unit ever saturates, ds/dt is linear."""
    rng = np.random.default_rng(1)
    network = random_network(rng, [5, 6, 4, 3], 0.1, low=0.25, high=0.4)
    network = network.with_parameters({"input": 0.2 * network.input})
    target = 0.3 + 0.4 * one_hot([0, 1, 2, 0], 3)
    return _problem("interior", network, rng.random((4, 5)), dtype, target=target, beta=0.5, negative=-0.2)


def _saturated(dtype):
    """Biases far outside: most units rest exactly at 0 or exactly at 1."""
    rng = np.random.default_rng(2)
    return _problem("saturated", random_network(rng, [4, 12, 9, 4], 0.8, low=-2.0, high=3.0), rng.random((5, 4)), dtype)


def _one_hidden(dtype):
    rng = np.random.default_rng(3)
    return _problem("one-hidden", random_network(rng, [4, 8, 3], 0.5), rng.random((4, 4)), dtype)


def _deep(dtype):
    rng = np.random.default_rng(4)
    return _problem(
        "deep", random_network(rng, [3, 6, 5, 7, 4, 5, 3], 0.6, low=-0.3, high=0.7), rng.random((3, 3)), dtype
    )


def _strong(dtype):
    """Glorot weights enlarged to a loop gain above 1, where no theorem promises rest; it rests all
    the same.
    """
    rng = np.random.default_rng(5)
    return _problem(
        "strong", random_network(rng, [4, 10, 8, 3], 4.0, low=-0.2, high=0.6), rng.random((4, 4)), dtype, negative=-0.2
    )


def _time_constants(dtype):
    rng = np.random.default_rng(6)
    network = random_network(rng, [4, 6, 5, 3], 0.4, low=-0.3, high=0.8, time_constants=(0.5, 2.0, 0.8))
    return _problem("time-constants", network, rng.random((4, 4)), dtype)


def _tied(dtype):
    rng = np.random.default_rng(7)
    network = reciprocal_network([4, 6, 5, 3], dtype=np.float64, rng=rng)
    network = network.with_parameters(
        {f"forward[{k}]": 0.45 * w / np.linalg.norm(w, 2) for k, w in enumerate(network.forward)}
    )
    return _problem("tied", _biased(network, rng, -0.3, 0.7), rng.random((4, 4)), dtype)


def _untied(dtype):
    rng = np.random.default_rng(8)
    network = _rescaled(reciprocal_network([4, 6, 5, 3], tied=False, dtype=np.float64, rng=rng), 0.05)
    return _problem("untied", _biased(network, rng, -0.3, 0.9), rng.random((4, 4)), dtype)


def _smooth(rho):
    def build(dtype):
        rng = np.random.default_rng(9)
        return _problem(
            rho, random_network(rng, [3, 5, 4, 2], 2.0, rho=rho, low=-1.0, high=1.0), rng.random((3, 3)), dtype
        )

    return build


def _silent(dtype):
    """Nothing drives anything: the zero start is the free equilibrium."""
    network = random_network(10, [3, 4, 3, 2], 0.5, low=0.0, high=0.0)
    return _problem("silent", network, np.zeros((3, 3)), dtype)


def _satisfied(dtype):
    """The outputs rest at 0 and 1 exactly where their target is: a nudge moves nothing (model fact
    5).
    """
    rng = np.random.default_rng(11)
    network = random_network(rng, [3, 5, 3], 0.2).with_parameters({"biases[1]": np.array([2.0, -2.0, -2.0])})
    return _problem("satisfied", network, rng.random((3, 3)), dtype, target=one_hot([0, 0, 0], 3))


BUILDERS = {
    "interior": _interior,
    "saturated": _saturated,
    "one-hidden": _one_hidden,
    "deep": _deep,
    "strong": _strong,
    "ring-3": lambda dtype: ring(3, 4.0, dtype),
    "ring-4": lambda dtype: ring(4, 2.0, dtype),
    "time-constants": _time_constants,
    "tied": _tied,
    "untied": _untied,
    "logistic": _smooth("logistic"),
    "shifted_tanh": _smooth("shifted_tanh"),
    "silent": _silent,
    "satisfied": _satisfied,
}
NAMES = tuple(BUILDERS)
# problems of the hard sigmoid
HARD = tuple(n for n in NAMES if n not in ("logistic", "shifted_tanh"))


@cache
def problem(name, dtype=np.float64):
    """The problem of that name in that precision (built once)."""
    return BUILDERS[name](dtype)


def contraction(network):
    """1 - g^(1/L) of a loop network with time constants 1 (model fact 3): error <= residual /
    contraction, in the weighted norm.
    """
    return 1 - loop_gain(network) ** (1 / network.depth)
