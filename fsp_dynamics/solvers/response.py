"""Linear response of an equilibrium to a small push on its outputs: the field, linearised there.

With leak = 1/r and, at the output, the beta of the nudge, a small constant push e on the outputs'
field moves the equilibrium by delta s:

    p = rho'(s),  1/h = leak + beta - rho''(s) a
    delta s_j = h_j (e_j + p_j sum_i w_ij p_i delta s_i)          (the response)
    lambda_j  = h_j (e_j + p_j sum_k w_jk p_k lambda_k)           (the adjoint)

For a hard sigmoid p is 1 for units that their input holds strictly inside (0, 1) and 0 for all
others (`unsaturated`), and h = p / (leak + beta): saturated units do not respond. The two differ
only in the direction of the weights. With e = d - s_L the adjoint is the gradient, -dC/da_j = p_j
lambda_j for the cost C = 1/2 ||s_L - d||^2, and the response is the change of eq. 14 as beta -> 0:
d rho(s_j) / d beta = p_j delta s_j (model fact 10).

In a feedforward loop both are n_L x n_L problems. With gamma = h p^2 and the chain round the loop,
cut at the output,

    C = loop gamma_1 forward[0] gamma_2 ... gamma_L-1 forward[L-2]     (n_L, n_L)
    q_L (I - C gamma_L) = p_L h_L e                                    (response, q = p delta s)
    (I - gamma_L C) v_L = p_L h_L e                                    (adjoint, v = p lambda)

G_D = C gamma_L, the loop matrix, maps a small change of the output rates to their change after one
round of the loop. Reciprocal networks are solved iteratively (GMRES).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fsp_dynamics.display import brief
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, decay_rates, flatten, layers, resting_inputs, total_input

CHUNK = 64  # samples whose (n_L, n_k) chains are held at once


@dataclass(frozen=True, slots=True, eq=False)
class Gains:
    """slope : p of each layer (B, n_k). answer : h of each layer (B, n_k). Both float64."""

    slope: State
    answer: State

    def __repr__(self) -> str:
        return brief(self)

    @property
    def round_trip(self) -> State:
        """gamma = h p^2 of each layer (B, n_k)."""
        return tuple(h * p * p for h, p in zip(self.answer, self.slope, strict=True))

    def rows(self, index: slice | Array) -> Gains:
        """Those of some samples."""
        return Gains(tuple(p[index] for p in self.slope), tuple(h[index] for h in self.answer))


def unsaturated(network: Network, state: State, nudge: Nudge | None, drive: Array, *, bounds: bool = False) -> State:
    """p of a hard sigmoid's units at these equilibria, (B, n_k) float64: 1 where the input of a
    unit, drive (B, n_1) and the nudge included, holds it strictly inside (0, 1), else 0. With
    `bounds` also where it holds it exactly at 0 or 1, from which it moves one way at once: so are
    the units above a silent layer, if their bias is 0.

    The input decides, not the state: an integrator approaches a bound without reaching it, and
    leaves 1e-20 where an equilibrium has 0.
    """
    aims = resting_inputs(network, drive, [network.rho.rate(s) for s in state], nudge)
    inside = (((u >= 0) & (u <= 1)) if bounds else ((u > 0) & (u < 1)) for u in aims)
    return tuple(each.astype(np.float64) for each in inside)


def gains(network: Network, state: State, nudge: Nudge | None, drive: Array) -> Gains:
    """p and h of every unit at these equilibria under `nudge`; drive (B, n_1).

    Raises ConfigurationError for a smooth rho without curvature.
    """
    if network.rho.projected:
        return clipped_gains(network, unsaturated(network, state, nudge, drive), nudge)
    if network.rho.curvature is None:
        raise ConfigurationError(
            f"the linear response of a network with rho = {network.rho.name!r} needs the curvature of rho: "
            "give Activation(..., curvature=...)"
        )
    exact, kappa = tuple(s.astype(np.float64) for s in state), decay_rates(network, nudge)
    a = total_input(network, drive, [network.rho.rate(s) for s in exact])
    slope = tuple(network.rho.slope(s) for s in exact)
    bend = (k - network.rho.curvature(s) * a_k for k, s, a_k in zip(kappa, exact, a, strict=True))
    return Gains(slope, tuple(1 / b for b in bend))


def clipped_gains(network: Network, inside: State, nudge: Nudge | None) -> Gains:
    """p and h of a hard sigmoid's units, given which of them are `inside` (0, 1)."""
    return Gains(inside, tuple(p / k for p, k in zip(inside, decay_rates(network, nudge), strict=True)))


def chain(network: Network, found: Gains) -> Array:
    """C = loop gamma_1 forward[0] ... gamma_L-1 forward[L-2] of each sample, (B, n_L, n_L)
    float64. Raises ConfigurationError without a loop.
    """
    if network.loop is None:
        raise ConfigurationError("the network has no loop (loop = None); give one made by loop_network")
    loop, forward = network.loop.astype(np.float64), [w.astype(np.float64) for w in network.forward]
    out = np.empty((len(found.slope[0]), len(loop), len(loop)))
    for rows in chunks(len(out)):
        gamma, product = found.rows(rows).round_trip, loop[None]
        for weight, each in zip(forward, gamma[:-1], strict=True):
            product = (product * each[:, None, :]).reshape(-1, len(weight)) @ weight
            product = product.reshape(-1, len(loop), weight.shape[1])
        out[rows] = product
    return out


def loop_matrix(network: Network, found: Gains) -> Array:
    """G_D = C gamma_L of each sample, (B, n_L, n_L): row i is the effect of output i's rate on all
    outputs after one round. Raises as `chain`.
    """
    return chain(network, found) * found.round_trip[-1][:, None, :]


def response(network: Network, found: Gains, push: Array) -> State:
    """delta rho = p delta s of every layer (B, n_k) for a constant push (B, n_L) on the outputs'
    field, per unit of it.
    """
    first = found.slope[-1] * found.answer[-1] * push
    if network.loop is None:
        return _iterated(network, found, first, forwards=True)
    identity, gamma = np.eye(push.shape[1]), found.round_trip
    output = _solve(identity - (chain(network, found) * gamma[-1][:, None, :]).transpose(0, 2, 1), first)
    state = [gamma[0] * (output @ network.loop)]
    for weight, each in zip(network.forward[:-1], gamma[1:], strict=False):
        state.append(each * (state[-1] @ weight))
    return (*state, output)


def adjoint(network: Network, found: Gains, push: Array) -> State:
    """v = p lambda of every layer (B, n_k): with push = d - s_L (B, n_L) it is -dC/da, C = 1/2
    ||s_L - d||^2.
    """
    first = found.slope[-1] * found.answer[-1] * push
    if network.loop is None:
        return _iterated(network, found, first, forwards=False)
    identity, gamma = np.eye(push.shape[1]), found.round_trip
    state = [_solve(identity - gamma[-1][:, :, None] * chain(network, found), first)]
    for weight, each in zip(network.forward[::-1], gamma[-2::-1], strict=True):
        state.append(each * (state[-1] @ weight.T))
    return tuple(state[::-1])


def chunks(count: int) -> Iterator[slice]:
    """Slices of at most CHUNK samples that cover `count`."""
    return (slice(first, first + CHUNK) for first in range(0, count, CHUNK))


def _solve(matrices: Array, right: Array) -> Array:
    """Each matrix's solution (B, n); NaN where it is singular."""
    out = np.full_like(right, np.nan)
    for b, (matrix, side) in enumerate(zip(matrices, right, strict=True)):
        try:
            out[b] = np.linalg.solve(matrix, side)
        except np.linalg.LinAlgError:
            continue
    return out


def _iterated(network: Network, found: Gains, first: Array, forwards: bool) -> State:
    """x = first + gamma W^T x, or W x, by GMRES over the whole batch. Raises ConfigurationError
    where it does not converge.
    """
    from scipy.sparse.linalg import LinearOperator, gmres

    gamma, batch = found.round_trip, len(first)
    links = [(c.pre, c.post, c.weight) if forwards else (c.post, c.pre, c.weight.T) for c in network.connections()]

    def operate(flat: Array) -> Array:
        x = layers(network, flat.reshape(batch, -1))
        y = [np.array(each) for each in x]
        for source, target, weight in links:
            y[target] -= gamma[target] * (x[source] @ weight)
        return flatten(tuple(y)).ravel()

    right = flatten((*(np.zeros_like(p) for p in found.slope[:-1]), first)).ravel()
    operator = LinearOperator((right.size, right.size), matvec=operate, dtype=np.float64)
    solution, failed = gmres(operator, right, rtol=1e-12, atol=0.0, restart=60, maxiter=50)
    if failed:
        raise ConfigurationError(
            "the linear response did not converge: the network amplifies a small change at this equilibrium; "
            "weaken its weights"
        )
    return layers(network, solution.reshape(batch, -1))
