"""The Jacobian of the field at a state: eigenvalues, departure from normality and initial growth.

With p = rho'(s), decay = leak + beta - rho''(s) a (beta at the output only) and W all connections
(pre x post), the Jacobian of the field (N, N) is

    J = diag(p) W^T diag(p) - diag(decay),         J[j, i] = d(ds_j/dt) / d s_i

For a hard sigmoid p is 1 for units strictly inside (0, 1) and 0 for all others, and decay is kappa
= leak + beta: saturated units neither respond nor transmit. The distance of the other units to
saturation is the kink margin. Notation as in solvers/response.py.

===============  =================================================================================
method           how the eigenvalues are found
===============  =================================================================================
``exact``        from n_L x n_L matrices: the roots of prod_k (1 + lambda / kappa_k) = mu for each
                 eigenvalue mu of the loop matrix G_D; all others are -kappa_k. Only for loops with
                 a hard sigmoid, and their default
``dense``        all of them, from J itself: the default of other networks of up to DENSE units
``rightmost``    the few with the largest real parts, by Arnoldi's method on x -> J x: the default
                 of larger networks
===============  =================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fsp_dynamics.display import brief, largest
from fsp_dynamics.errors import ConfigurationError, check_choice, check_finite
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, decay_rates, flatten, layers
from fsp_dynamics.solvers.equilibrium import Equilibrium, prepare
from fsp_dynamics.solvers.response import Gains, gains, loop_matrix

METHODS = ("dense", "exact", "rightmost")
DENSE = 400  # units up to which J is formed


@dataclass(frozen=True, slots=True, eq=False)
class Linearisation:
    """The field linearised at a batch of states, in float64.

    network : in float64. kappa : leak + beta of each layer (L,). slope : p, tuple of (B, n_k).
    decay : tuple of (B, n_k).
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
        ends = np.cumsum((0, *self.network.sizes[1:]))
        out = np.diag(-flatten(tuple(d[sample] for d in self.decay)))
        for pre, post, w in self.network.connections():
            block = self.slope[pre][sample][:, None] * w * self.slope[post][sample]
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


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Eigenvalues of the field's Jacobian, per unit time.

    values : (B, M) complex, by decreasing real part.
    uncoupled : (kappa, multiplicity) of the eigenvalues -kappa that every sample has besides
        `values`.
    complete : False if eigenvalues farther to the left were not computed (method "rightmost").
    """

    values: Array
    uncoupled: tuple[tuple[float, int], ...]
    complete: bool

    def __repr__(self) -> str:
        samples, count = self.values.shape
        extent = "all" if self.complete else "the rightmost"
        found = f"{extent} eigenvalues, {count} each"
        return f"<Spectrum of {samples} samples: {found}; abscissa up to {largest(self.abscissa)}>"

    @property
    def abscissa(self) -> Array:
        """(B,) the largest real part: the asymptotic rate at which a small perturbation decays
        (negative) or grows (positive).
        """
        return np.max(
            [self.values[:, 0].real, *(np.full(len(self.values), -kappa) for kappa, times in self.uncoupled if times)],
            axis=0,
        )

    @property
    def stable(self) -> Array:
        """(B,) bool: whether every small perturbation decays."""
        return self.abscissa < 0

    def all(self) -> Array:
        """Every eigenvalue with its multiplicity (B, N). Raises ConfigurationError if the spectrum
        is incomplete.
        """
        if not self.complete:
            raise ConfigurationError(
                f"spectrum holds the {self.values.shape[1]} rightmost eigenvalues, expected all; use method='dense'"
            )
        known = np.repeat([-kappa for kappa, _ in self.uncoupled], [times for _, times in self.uncoupled])
        return np.concatenate([self.values, np.broadcast_to(known, (len(self.values), known.size))], axis=1)


def linearise(network: Network, images: Array, state: State | Equilibrium, nudge: Nudge | None = None) -> Linearisation:
    """The field linearised at these states, converged or not. Given an `Equilibrium`, units whose
    equilibrium lies outside (0, 1) count as saturated, however close the state came to the bound.

    Raises ShapeError, NotFiniteError, ConfigurationError (rho without curvature).
    """
    drive, converged = rate.drive(network, images), isinstance(state, Equilibrium)
    state = state.state if isinstance(state, Equilibrium) else state
    prepare(network, drive, state, nudge)
    for k, s in enumerate(state):
        check_finite(f"state[{k}]", s)
    if converged and network.rho.projected:
        # an integrator approaches a bound without reaching it; the unclipped equilibrium decides
        aims = rate.resting_inputs(network, drive, [network.rho.rate(s) for s in state], nudge)
        state = tuple(np.where((u > 0) & (u < 1), s, 0) for s, u in zip(state, aims, strict=True))
    found, kappa = gains(network, state, nudge, drive), decay_rates(network, nudge)
    smooth = tuple(1 / h for h in found.answer) if not network.rho.projected else ()
    decay = smooth or tuple(np.full(s.shape, k) for s, k in zip(state, kappa, strict=True))
    return Linearisation(
        network if network.dtype == np.float64 else network.astype(np.float64), kappa, found.slope, decay
    )


def spectrum(
    network: Network,
    images: Array,
    state: State | Equilibrium,
    nudge: Nudge | None = None,
    *,
    method: str | None = None,
    count: int = 6,
) -> Spectrum:
    """The eigenvalues of the Jacobian at these states. `method` as in the table of the module;
    `count` of them with "rightmost".

    Raises as `linearise`, and ConfigurationError for a method that does not apply to the network.
    """
    return eigenvalues(linearise(network, images, state, nudge), method, count)


def eigenvalues(linear: Linearisation, method: str | None = None, count: int = 6) -> Spectrum:
    """`spectrum` of an already linearised field."""
    hard_loop = linear.network.is_hard_sigmoid_loop
    method = method or ("exact" if hard_loop else "dense" if linear.size <= DENSE else "rightmost")
    if check_choice("method", method, METHODS) == "exact":
        if not hard_loop:
            raise ConfigurationError(
                "method = 'exact' needs a loop and a hard sigmoid; use 'dense' or 'rightmost' for this network"
            )
        return _exact(linear)
    samples = range(len(linear.slope[0]))
    if method == "dense":
        solve = np.linalg.eigvalsh if linear.network.tied else np.linalg.eigvals
        values = np.array([solve(linear.dense(b)) for b in samples], complex).reshape(len(samples), linear.size)
        return Spectrum(by_decreasing(values, np.real), (), complete=True)
    if not (isinstance(count, int | np.integer) and 1 <= count <= linear.size - 2):
        raise ConfigurationError(
            f"count = {count!r}, expected 1 to {linear.size - 2} for {linear.size} units; use method='dense' for all"
        )
    values = np.array([_arnoldi(linear, b, count)[0] for b in samples], complex).reshape(len(samples), count)
    return Spectrum(by_decreasing(values, np.real), (), complete=False)


def _exact(linear: Linearisation) -> Spectrum:
    """Every eigenvalue mu of G_D corresponds to a ring of L single units with loop gain mu; there
    are as many non-zero ones as the layer with the fewest unsaturated units has of them.
    """
    network, kappa = linear.network, np.array(linear.kappa)
    mu = by_decreasing(np.linalg.eigvals(loop_matrix(network, linear.gains)), np.abs)[:, : min(network.sizes[1:])]
    rank = np.min([p.sum(1) for p in linear.slope], axis=0)
    mu[np.arange(mu.shape[1]) >= rank[:, None]] = 0  # exactly 0, despite rounding
    values = ring_eigenvalues(np.broadcast_to(kappa, (*mu.shape, len(kappa))), mu * kappa.prod()).reshape(
        len(mu), mu.shape[1] * len(kappa)
    )
    uncoupled = tuple((k, n - mu.shape[1]) for k, n in zip(linear.kappa, network.sizes[1:], strict=True))
    return Spectrum(by_decreasing(values, np.real), uncoupled, complete=True)


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


def _arnoldi(linear: Linearisation, sample: int, count: int) -> tuple[Array, Array]:
    """The `count` rightmost eigenvalues of one sample and their eigenvectors (N, count), from a
    fixed initial vector.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    operator = LinearOperator((linear.size, linear.size), matvec=lambda x: linear.product(sample, x), dtype=np.float64)
    try:
        return eigs(operator, k=count, which="LR", v0=_start(linear))
    except ArpackNoConvergence as error:
        raise ConfigurationError(
            f"the {count} rightmost eigenvalues of sample {sample} did not converge; use method='dense'"
        ) from error


def departure(linear: Linearisation, found: Spectrum) -> Array:
    """(B,) Henrici's departure from normality sqrt(||J||_F^2 - sum |lambda|^2), NaN for an
    incomplete spectrum (Henrici 1962).

    It is invariant under shifts of J by a multiple of I, so both sums are computed about the mean
    decay rate, which reduces cancellation.
    """
    if not found.complete:
        return np.full(len(found.values), np.nan)
    shift = np.mean(flatten(linear.decay), axis=1)
    coupled = (np.abs(found.values + shift[:, None]) ** 2).sum(1)
    uncoupled = sum((times * (shift - kappa) ** 2 for kappa, times in found.uncoupled), np.zeros(len(shift)))
    return np.sqrt(np.maximum(linear.square(shift) - coupled - uncoupled, 0))


def numerical_abscissa(linear: Linearisation) -> Array:
    """(B,) the largest eigenvalue of (J + J^T) / 2: the largest possible d/dt ln ||ds||."""
    if linear.size <= DENSE:
        return np.array([np.linalg.eigvalsh((j + j.T) / 2)[-1] for j in map(linear.dense, range(len(linear.slope[0])))])
    from scipy.sparse.linalg import LinearOperator, eigsh

    def symmetric(sample: int) -> float:
        def product(x: Array) -> Array:
            return (linear.product(sample, x) + linear.product(sample, x, transposed=True)) / 2

        operator = LinearOperator((linear.size, linear.size), matvec=product, dtype=np.float64)
        return float(eigsh(operator, k=1, which="LA", v0=_start(linear), tol=1e-10, return_eigenvectors=False)[0])

    return np.array([symmetric(b) for b in range(len(linear.slope[0]))])


def _start(linear: Linearisation) -> Array:
    """The fixed initial vector (N,) of the iterations, for reproducible results."""
    return np.random.default_rng(0).normal(size=linear.size)


def slowest_mode(linear: Linearisation, sample: int) -> Array:
    """(N,) of norm 1: the real part of the eigenvector of the rightmost eigenvalue of J, the
    direction in which a perturbation decays last.
    """
    if linear.size <= DENSE:
        values, vectors = np.linalg.eig(linear.dense(sample))
    else:
        values, vectors = _arnoldi(linear, sample, 1)
    mode = vectors[:, np.argmax(values.real)].real
    return mode / np.linalg.norm(mode)


def by_decreasing(values: Array, key: Callable[[Array], Array]) -> Array:
    """Each row (B, M) sorted by decreasing key."""
    return np.take_along_axis(values, np.argsort(-key(values), axis=1, kind="stable"), axis=1)
