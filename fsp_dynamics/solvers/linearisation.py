"""The field linearised at a state. With p = rho'(s), decay = leak + beta - rho''(s) a (beta at the
output only) and W all connections (pre x post), its Jacobian (N, N) is

    J = diag(p) W^T diag(p) - diag(decay),         J[j, i] = d(ds_j/dt) / d s_i

For a hard sigmoid p is 1 for units strictly inside (0, 1) and 0 for all others, and decay is kappa
= leak + beta: saturated units neither respond nor transmit. Notation as in solvers/response.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.display import brief
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, decay_rates, flatten, layers
from fsp_dynamics.solvers.response import Gains, clipped_gains, gains, loop_matrix, unsaturated


@dataclass(frozen=True, slots=True, eq=False)
class Linearisation:
    """The field linearised at a batch of states, in float64.

    network : in float64 for `product` and `square`. kappa : leak + beta of each layer (L,). slope :
        p, tuple of (B, n_k). decay : tuple of (B, n_k).
    """

    network: Network
    kappa: tuple[float, ...]
    slope: State
    decay: State

    def __repr__(self) -> str:
        return brief(self)

    @property
    def size(self) -> int:
        """N, the number of units."""
        return sum(self.network.sizes[1:])

    @property
    def gains(self) -> Gains:
        """p and h = 1 / decay, 0 where p is 0, as solvers/response.py takes them."""
        return Gains(self.slope, tuple((p != 0) / d for p, d in zip(self.slope, self.decay, strict=True)))

    def dense(self, sample: int) -> Array:
        """J of one sample (N, N)."""
        return self._block(sample, [slice(None)] * self.network.depth)

    def coupled(self, sample: int) -> Array:
        """J of one sample over the units that are coupled to others at all, p != 0. All other
        eigenvalues of J are those of single units, -decay.
        """
        return self._block(sample, [np.flatnonzero(p[sample]) for p in self.slope])

    def _block(self, sample: int, units: Sequence[Any]) -> Array:
        """J over these units of each layer."""
        p = [each[sample][chosen] for each, chosen in zip(self.slope, units, strict=True)]
        ends = np.cumsum((0, *map(len, p)))
        out = np.diag(-np.concatenate([d[sample][chosen] for d, chosen in zip(self.decay, units, strict=True)]))
        for pre, post, w in self.network.connections():
            block = p[pre][:, None] * w[units[pre]][:, units[post]] * p[post]
            out[ends[post] : ends[post + 1], ends[pre] : ends[pre + 1]] += block.T
        return out

    def product(self, sample: int, x: Array, transposed: bool = False) -> Array:
        """J x of one sample, or J^T x, for x (N,)."""
        p = [each[sample] for each in self.slope]
        sent = [each * part for each, part in zip(p, layers(self.network, x.ravel()), strict=True)]
        got = [-d[sample] * part for d, part in zip(self.decay, layers(self.network, x.ravel()), strict=True)]
        for pre, post, w in self.network.connections():
            if transposed:
                got[pre] += p[pre] * (sent[post] @ w.T)
            else:
                got[post] += p[post] * (sent[pre] @ w)
        return flatten(tuple(got))

    def square(self, shift: Array | float = 0.0) -> Array:
        """||J + shift I||_F^2 of each sample (B,), from the squared weights, without forming J."""
        total = sum(((d - np.reshape(shift, (-1, 1))) ** 2).sum(1) for d in self.decay)
        for pre, post, w in self.network.connections():
            total = total + np.einsum("bi,ij,bj->b", self.slope[pre] ** 2, w * w, self.slope[post] ** 2, optimize=True)
        return np.asarray(total)


def linearised(
    network: Network, state: State, nudge: Nudge | None, drive: Array, *, held: bool, bounds: bool = False
) -> Linearisation:
    """The field linearised at these states (B, n_k); drive (B, n_1).

    held : they are equilibria, so that units of a hard sigmoid are inside (0, 1) where their input
    holds them there; else where their state is. bounds : and where it holds them exactly at a bound
    (`response.unsaturated`).

    Raises ConfigurationError for a rho without curvature.
    """
    if network.rho.projected and not held:
        found = clipped_gains(network, tuple(((s > 0) & (s < 1)).astype(np.float64) for s in state), nudge)
    elif network.rho.projected:
        found = clipped_gains(network, unsaturated(network, state, nudge, drive, bounds=bounds), nudge)
    else:
        found = gains(network, state, nudge, drive)
    kappa = decay_rates(network, nudge)
    if network.rho.projected:
        decay = tuple(np.full(s.shape, k) for s, k in zip(state, kappa, strict=True))
    else:
        decay = tuple(1 / h for h in found.answer)
    return Linearisation(network, kappa, found.slope, decay)


def loop_eigenvalues(network: Network, found: Gains, kappa: Sequence[float]) -> tuple[Array, list[tuple[float, int]]]:
    """All eigenvalues of J of a loop with a hard sigmoid, from n_L x n_L matrices: (values (B, M)
    complex, [(kappa, multiplicity)] of the eigenvalues -kappa that every sample has besides).

    Every eigenvalue mu of G_D corresponds to a ring of L single units with loop gain mu; there are
    as many non-zero ones as the layer with the fewest unsaturated units has of them.
    """
    sizes, rates = network.sizes[1:], np.array(kappa)
    mu: Array = np.linalg.eigvals(loop_matrix(network, found))
    mu = np.take_along_axis(mu, np.argsort(-np.abs(mu), axis=1, kind="stable"), axis=1)[:, : min(sizes)]
    rank = np.min([p.sum(1) for p in found.slope], axis=0)
    mu[np.arange(mu.shape[1]) >= rank[:, None]] = 0  # exactly 0, despite rounding
    values = ring_eigenvalues(np.broadcast_to(rates, (*mu.shape, len(rates))), mu * rates.prod())
    uncoupled = [(k, n - mu.shape[1]) for k, n in zip(kappa, sizes, strict=True)]
    return values.reshape(len(mu), mu.shape[1] * len(rates)), uncoupled


def ring_eigenvalues(kappa: Array, gain: Array) -> Array:
    """The L roots of prod_k (kappa_k + lambda) = gain, for kappa (..., L) and gain (...).

    They are the eigenvalues of a ring of L units with decay rates kappa and weights gain^(1/L), a
    normal matrix for equal kappa, and so more accurate than the roots of the expanded polynomial.
    """
    L = kappa.shape[-1]
    ring = np.zeros((*gain.shape, L, L), complex)
    k = np.arange(L)
    ring[..., k, k] = -kappa
    ring[..., k, k - 1] = (gain.astype(complex) ** (1 / L))[..., None]
    return np.linalg.eigvals(ring)


def rightmost(linear: Linearisation, sample: int, count: int) -> tuple[Array, Array]:
    """The `count` rightmost eigenvalues of one sample and their eigenvectors (N, count), by
    Arnoldi's method from a fixed vector. Raises scipy's ArpackNoConvergence.
    """
    from scipy.sparse.linalg import LinearOperator, eigs

    operator = LinearOperator((linear.size, linear.size), matvec=lambda x: linear.product(sample, x), dtype=np.float64)
    return eigs(operator, k=count, which="LR", v0=fixed_vector(linear.size))


def fixed_vector(size: int) -> Array:
    """The vector (N,) with which iterations begin, for reproducible results."""
    return np.random.default_rng(0).normal(size=size)
