"""The mirror phase: a loop that follows what the forward matrices do to noise.

The loop sends the output's error to the first hidden layer; the gradient would send it through the
transposed product of the forward matrices. Let the free network converge with a small noise on the
drive of the first hidden layer, once with each sign; with delta the difference of the two
equilibria,

    M_ji = mean_B delta rho(s_L,j) delta rho(s_1,i)                                 (n_L, n_1)

points, in expectation, where the loop would have to point. After each PIECE samples the loop turns
towards it and keeps its norm:

    loop <- ||loop|| L / ||L||,    L = (1 - eta) loop / ||loop|| + eta M / ||M||

All of it is local to a synapse, its two ends in two states, but for the norm, one number for the
loop. The paper has no such phase; it is one of the ways to align that docs/alignment-study.md
compares. The idea is that of weight mirrors (Akrout et al., "Deep learning without weight
transport", NeurIPS 2019).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import drive
from fsp_dynamics.solvers.equilibrium import Equilibrium

# standard deviation: few units change sides, and differences stand far above a tolerance of 1e-4
NOISE = 0.01
SAMPLES = 256  # of those last learned from, for one mirror phase
PIECE = 1024  # samples between two of them


def every(batch: int) -> int:
    """Batches of that size between two mirror phases."""
    return max(1, PIECE // batch)


def run(
    network: Network, images: Array, relax: Callable[[Array], Equilibrium], rate: float, rng: np.random.Generator
) -> None:
    """One mirror phase of the loop, in place, with the last of these images (A, n_in); `relax` as
    in `correlation`, `rate` as in `follow`.
    """
    assert network.loop is not None
    follow(network.loop, correlation(network, drive(network, images[-SAMPLES:]), relax, rng), rate)


def correlation(
    network: Network, constant: Array, relax: Callable[[Array], Equilibrium], rng: np.random.Generator
) -> Array:
    """M (n_L, n_1) of these samples, from two equilibria each; those that do not converge are left
    out (zeros if none is left).

    constant (B, n_1), the drive. relax : drive -> the free equilibrium.
    """
    noise = (NOISE * rng.standard_normal(constant.shape)).astype(constant.dtype)
    plus, minus = relax(constant + noise), relax(constant - noise)
    kept = plus.converged & minus.converged
    first, last = (network.rho.rate(plus.state[k][kept]) - network.rho.rate(minus.state[k][kept]) for k in (0, -1))
    return np.asarray(last.T @ first / max(int(kept.sum()), 1))


def follow(loop: Array, found: Array, rate: float) -> None:
    """Turn the loop towards M = `found` by the share eta = `rate`, in place, its norm kept;
    nothing where one of them is zero or they cancel.
    """
    size, other = float(np.linalg.norm(loop)), float(np.linalg.norm(found))
    if size > 0 and other > 0:
        turned = (1 - rate) / size * loop.astype(np.float64) + rate / other * found
        norm = float(np.linalg.norm(turned))
        if norm > 0:
            loop[:] = size / norm * turned
