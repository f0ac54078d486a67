"""Whether the dynamics stay at an equilibrium. Every solver and engine decides it here.

An equilibrium is stable when all eigenvalues of the field's Jacobian J (solvers/linearisation.py)
have a negative real part. `stable` finds out at the least cost, `abscissa` computes the largest
real part.

A loop with a hard sigmoid is a problem in n_L dimensions: with the loop matrix G_D
(solvers/response.py), the eigenvalues are the roots of prod_k (1 + lambda / kappa_k) = mu for every
eigenvalue mu of G_D, and -kappa_k of saturated units and directions that nothing reaches. Of other
networks J is needed, over the units that are coupled at all. It is not where

    -(H J + J^T H) with H = diag(1 / decay)

is positive definite (a Cholesky factorisation), which is sufficient (Lyapunov), and with H = I
necessary as well where J is symmetric, as for tied weights.

A unit of a hard sigmoid whose input holds it exactly at a bound moves one way at once, and not the
other: it counts as free. Where it is part of what grows the eigenvalues are an upper bound, and a
perturbation decides (solvers/confirmation.py).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, decay_rates, rows_of, total_input
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance
from fsp_dynamics.solvers.linearisation import Linearisation, linearised, loop_eigenvalues, rightmost, ring_eigenvalues
from fsp_dynamics.solvers.response import Gains, clipped_gains, loop_matrix, unsaturated

DENSE = 600  # coupled units up to which all eigenvalues of J are computed
TRACE = 10.0  # default tolerances: what a solver leaves of a unit that is silent at equilibrium
STEP = 1e-4  # of the difference that stands in for a missing curvature of rho


def stable(network: Network, state: State, nudge: Nudge | None, drive: Array, *, bounds: bool = True) -> Array:
    """(B,) bool: whether every small perturbation of these equilibria decays; drive (B, n_1).
    Without `bounds`, units held exactly at a bound count as saturated.
    """
    if network.is_hard_sigmoid_loop:
        return _stable_loop(network, _free(network, state, nudge, drive, bounds), nudge)
    linear = linearised(with_curvature(network), _silenced(network, state), nudge, drive, held=True, bounds=bounds)
    return np.array([_stable_matrix(linear, b) for b in range(len(drive))], bool)


def abscissa(network: Network, state: State, nudge: Nudge | None, drive: Array) -> Array:
    """(B,) the largest real part of the eigenvalues of J at these equilibria, per unit time: the
    rate at which a small perturbation grows (positive) or in the end decays (negative).

    drive (B, n_1). NaN where Arnoldi's method, used for more than DENSE coupled units, does not
    converge.
    """
    if network.is_hard_sigmoid_loop:
        found = _free(network, state, nudge, drive)
        values, uncoupled = loop_eigenvalues(network, found, decay_rates(network, nudge))
        return values.real.max(1, initial=-min((k for k, times in uncoupled if times), default=np.inf))
    linear = linearised(with_curvature(network), _silenced(network, state), nudge, drive, held=True, bounds=True)
    return np.array([max(_abscissa_of(linear, b), _slowest_alone(linear, b)) for b in range(len(drive))])


def certified(network: Network, found: Equilibrium, nudge: Nudge | None, drive: Array) -> Equilibrium:
    """The equilibria with their `abscissa`, NaN for samples that did not converge."""
    values, rows = np.full(len(found.status), np.nan), np.flatnonzero(found.converged)
    if rows.size:
        values[rows] = abscissa(network, found.rows(rows).state, rows_of(nudge, rows), drive[rows])
    return dataclasses.replace(found, abscissa=values)


def always_stable(network: Network, nudge: Nudge | None, drive: Array) -> bool:
    """Whether a bound proves that every equilibrium of the network on these drives is stable.

    Let M (L, L) be c^2 ||W|| / k between layers, with c the largest rho', ||W|| a bound of the
    2-norm and k the least that decay can be. If J x = lambda x with Re lambda >= 0, the norms x_k
    of the layers of x satisfy x_k <= sum_l M_kl x_l, because |lambda + decay| >= decay; so the
    spectral radius of M is 1 or more. Below 1 there is no such lambda.
    """
    rho = network.rho
    if not rho.projected and rho.bounds is None:
        return False
    steepest, bend = (1.0, 0.0) if rho.projected or rho.bounds is None else rho.bounds
    most = [np.abs(b).max(initial=0) for b in network.biases]
    most[0] = np.abs(drive).max(initial=0)
    for _, post, w in network.connections():
        most[post] = most[post] + np.abs(w).sum(0).max(initial=0)  # rates are at most 1
    least = np.array(decay_rates(network, nudge)) - bend * np.array(most, float)
    if not (least > 0).all():
        return False
    bound = np.zeros((network.depth, network.depth))
    for pre, post, w in network.connections():
        size = np.abs(w)
        norm = min(np.linalg.norm(w), (size.sum(0).max(initial=0) * size.sum(1).max(initial=0)) ** 0.5)
        bound[post, pre] += steepest**2 * norm / least[post]
    return bool(np.abs(np.linalg.eigvals(bound)).max() < 1)


def growing_units(network: Network, state: Any, nudge: Nudge | None, drive: Any) -> Any:
    """(B,) bool: whether a unit amplifies its own deviation at these states, decay <= 0. That of a
    hard sigmoid never does. Arrays or tensors.
    """
    curvature, rates = with_curvature(network).rho.curvature, [network.rho.rate(s) for s in state]
    found = drive[:, 0] != drive[:, 0]
    if curvature is None:
        return found
    layers = zip(decay_rates(network, nudge), state, total_input(network, drive, rates), strict=True)
    for kappa, s, a in layers:
        found = found | ~(kappa - curvature(s) * a > 0).all(1)
    return found


def with_curvature(network: Network) -> Network:
    """The network, with a difference of its slopes for rho'' where rho has no curvature."""
    rho = network.rho
    if rho.projected or rho.curvature is not None:
        return network

    def curvature(s: Any) -> Any:
        return (rho.slope(s + STEP) - rho.slope(s - STEP)) / (2 * STEP)

    return dataclasses.replace(network, rho=dataclasses.replace(rho, curvature=curvature))


def silent_layers(network: Network, state: State) -> Array:
    """(B,) bool: whether a layer of a hard sigmoid is silent altogether at these states. The input
    of those that it alone excites is then their bias, and if that is 0 they are at a bound, from
    which passes do not see them move.
    """
    return np.any([~s.any(1) for s in _silenced(network, state)], axis=0)


def _silenced(network: Network, state: State) -> State:
    """The states, with 0 where a solver left next to nothing of a silent unit of a hard sigmoid."""
    if not network.rho.projected:
        return state
    trace = TRACE * Tolerance.default(network.dtype).absolute
    return tuple(np.where(np.abs(s) <= trace, 0, s) for s in state)


def _free(network: Network, state: State, nudge: Nudge | None, drive: Array, bounds: bool = True) -> Gains:
    """p and h of a hard sigmoid's units, with `bounds` those held exactly at a bound included."""
    inside = unsaturated(network, _silenced(network, state), nudge, drive, bounds=bounds)
    return clipped_gains(network, inside, nudge)


def _stable_loop(network: Network, found_gains: Gains, nudge: Nudge | None) -> Array:
    matrices = loop_matrix(network, found_gains)
    # below 1 every |mu| < 1, and so is every product of |1 + lambda / kappa_k|
    found = np.einsum("bij,bij->b", matrices, matrices) < 1
    kappa = np.array(decay_rates(network, nudge))
    for b in np.flatnonzero(~found & np.isfinite(matrices).all((1, 2))):
        mu = np.linalg.eigvals(matrices[b])
        large = mu[np.abs(mu) >= 1]
        roots = ring_eigenvalues(np.broadcast_to(kappa, (len(large), len(kappa))), large * kappa.prod())
        found[b] = (roots.real < 0).all()
    return found


def _stable_matrix(linear: Linearisation, sample: int) -> bool:
    """Whether J of one sample has eigenvalues with negative real parts only."""
    matrix = linear.coupled(sample)
    if not np.isfinite(matrix).all():
        return False
    decay = -np.diag(matrix)  # no unit is connected to itself
    if (decay > 0).all():
        symmetric = matrix if linear.network.tied else matrix / decay[:, None]
        try:
            np.linalg.cholesky(-(symmetric + symmetric.T))
            return True
        except np.linalg.LinAlgError:
            pass
    return not linear.network.tied and _abscissa_of(linear, sample) < 0


def _slowest_alone(linear: Linearisation, sample: int) -> float:
    """-decay of the slowest unit of one sample that is coupled to none; -inf without any."""
    alone = [d[sample][p[sample] == 0] for p, d in zip(linear.slope, linear.decay, strict=True)]
    return -float(np.concatenate(alone).min(initial=np.inf))


def _abscissa_of(linear: Linearisation, sample: int) -> float:
    """The largest real part over the coupled units of one sample; -inf where there are none."""
    matrix = linear.coupled(sample)
    if len(matrix) <= DENSE:
        values = np.linalg.eigvalsh(matrix) if linear.network.tied else np.linalg.eigvals(matrix)
        return float(values.real.max(initial=-np.inf))
    from scipy.sparse.linalg import ArpackNoConvergence

    try:
        exact = dataclasses.replace(linear, network=linear.network.astype(np.float64))
        return float(rightmost(exact, sample, 1)[0].real.max())
    except ArpackNoConvergence:
        return float("nan")
