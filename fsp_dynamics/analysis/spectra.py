"""The field's Jacobian at a state: its eigenvalues, how far it is from normal, and how fast
anything can grow at first.

With p = rho'(s), decay = leak + beta - rho''(s) a (beta at the output only) and W all connections,
pre x post, the field's Jacobian (N, N) is

    J = diag(p) W^T diag(p) - diag(decay),         J[j, i] = d(ds_j/dt) / d s_i

For a hard sigmoid p is 1 for units strictly inside (0, 1), 0 for all others, and decay is kappa =
leak + beta: units at a wall neither answer nor pass anything on, and how near the others are to
one is the kink margin. The letters are those of solvers/response.py.

===============  ======================================================================================================================
method           how the eigenvalues are found
===============  ======================================================================================================================
``exact``        from n_L x n_L matrices: the roots of prod_k (1 + lambda / kappa_k) = mu for each eigenvalue mu of the loop matrix G_D,
                 and -kappa_k for the rest. The default of loops with a hard sigmoid, and for them
                 alone
``dense``        all of them, from J itself: the default of all other networks of up to DENSE units
``rightmost``    the few with the largest real parts, by Arnoldi's method on x -> J x: the default of all others that are larger
===============  ======================================================================================================================
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
class Linear:
    """The field, linearised at a batch of states, all in float64.

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
        """p and h = 1 / decay, 0 where p is 0, as solvers/response.py wants them."""
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
        """||J + shift I||_F^2 of each sample (B,), from the weights' squares: no J is formed."""
        total = sum(((d - np.reshape(shift, (-1, 1))) ** 2).sum(1) for d in self.decay)
        for pre, post, w in self.network.connections():
            total = total + np.einsum("bi,ij,bj->b", self.slope[pre] ** 2, w * w, self.slope[post] ** 2, optimize=True)
        return np.asarray(total)


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Eigenvalues of the field's Jacobian, per unit time.

    values : (B, M) complex, by decreasing real part.
    rest : (kappa, multiplicity) of eigenvalues -kappa that every sample has besides `values`.
    complete : False where there are others, farther left, that were not computed (method
    "rightmost").
    """

    values: Array
    rest: tuple[tuple[float, int], ...]
    complete: bool

    def __repr__(self) -> str:
        samples, count = self.values.shape
        extent = "all" if self.complete else "the rightmost"
        found = f"{extent} eigenvalues, {count} each"
        return f"<Spectrum of {samples} samples: {found}; abscissa up to {largest(self.abscissa)}>"

    @property
    def abscissa(self) -> Array:
        """(B,) the largest real part: the rate at which a small disturbance dies out in the end
        (negative) or grows (positive).
        """
        return np.max(
            [self.values[:, 0].real, *(np.full(len(self.values), -kappa) for kappa, times in self.rest if times)],
            axis=0,
        )

    @property
    def stable(self) -> Array:
        """(B,) bool: does every small disturbance die out?"""
        return self.abscissa < 0

    def all(self) -> Array:
        """Every eigenvalue with its multiplicity (B, N). Raises ConfigurationError where not all
        are known.
        """
        if not self.complete:
            raise ConfigurationError(
                f"spectrum holds the {self.values.shape[1]} rightmost eigenvalues, expected all of them; use method='dense'"
            )
        known = np.repeat([-kappa for kappa, _ in self.rest], [times for _, times in self.rest])
        return np.concatenate([self.values, np.broadcast_to(known, (len(self.values), known.size))], axis=1)


def linearise(network: Network, images: Array, state: State | Equilibrium, nudge: Nudge | None = None) -> Linear:
    """The field linearised at these states, converged or not; at an `Equilibrium` saturated units
    count as on their walls, however near they came.

    Raises ShapeError, NotFiniteError, ConfigurationError (rho without curvature).
    """
    drive, converged = rate.drive(network, images), isinstance(state, Equilibrium)
    state = state.state if isinstance(state, Equilibrium) else state
    prepare(network, drive, state, nudge)
    for k, s in enumerate(state):
        check_finite(f"state[{k}]", s)
    if (
        converged and network.rho.projected
    ):  # integrators come ever nearer to a wall without being there: who is negative beyond it rests on it
        aims = rate.resting_inputs(network, drive, [network.rho.rate(s) for s in state], nudge)
        state = tuple(np.where((u > 0) & (u < 1), s, 0) for s, u in zip(state, aims, strict=True))
    found, kappa = gains(network, state, nudge, drive), decay_rates(network, nudge)
    smooth = tuple(1 / h for h in found.answer) if not network.rho.projected else ()
    decay = smooth or tuple(np.full(s.shape, k) for s, k in zip(state, kappa, strict=True))
    return Linear(network if network.dtype == np.float64 else network.astype(np.float64), kappa, found.slope, decay)


def spectrum(
    network: Network,
    images: Array,
    state: State | Equilibrium,
    nudge: Nudge | None = None,
    *,
    method: str | None = None,
    count: int = 6,
) -> Spectrum:
    """The eigenvalues of the field's Jacobian at these states. `method` as the room's docstring
    says; `count` of them with "rightmost".

    Raises as `linearise`, and ConfigurationError for a method that the network does not have.
    """
    return eigenvalues(linearise(network, images, state, nudge), method, count)


def eigenvalues(linear: Linear, method: str | None = None, count: int = 6) -> Spectrum:
    """`spectrum` of a field that is linearised already."""
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
            f"count = {count!r}, expected 1 to {linear.size - 2} for {linear.size} units; use method='dense' for all of them"
        )
    values = np.array([_arnoldi(linear, b, count)[0] for b in samples], complex).reshape(len(samples), count)
    return Spectrum(by_decreasing(values, np.real), (), complete=False)


def _exact(linear: Linear) -> Spectrum:
    """Every eigenvalue mu of G_D is a ring of L single units with loop gain mu; as many count as
    the narrowest layer has unsaturated units.
    """
    network, kappa = linear.network, np.array(linear.kappa)
    mu = by_decreasing(np.linalg.eigvals(loop_matrix(network, linear.gains)), np.abs)[:, : min(network.sizes[1:])]
    rank = np.min([p.sum(1) for p in linear.slope], axis=0)
    mu[np.arange(mu.shape[1]) >= rank[:, None]] = 0  # exactly, where rounding says almost
    values = ring_eigenvalues(np.broadcast_to(kappa, (*mu.shape, len(kappa))), mu * kappa.prod()).reshape(
        len(mu), mu.shape[1] * len(kappa)
    )
    rest = tuple((k, n - mu.shape[1]) for k, n in zip(linear.kappa, network.sizes[1:], strict=True))
    return Spectrum(by_decreasing(values, np.real), rest, complete=True)


def ring_eigenvalues(kappa: Array, gain: Array) -> Array:
    """The L roots of prod_k (kappa_k + lambda) = gain, for kappa (..., L) and gain (...).

    They are the eigenvalues of a ring of L units with decays kappa and weights gain^(1/L): a
    normal matrix for equal kappa, so that the roots keep the precision which the polynomial's
    coefficients would lose.
    """
    L = kappa.shape[-1]
    ring = np.zeros((*gain.shape, L, L), complex)
    k = np.arange(L)
    ring[..., k, k] = -kappa
    ring[..., k, k - 1] = (gain.astype(complex) ** (1 / L))[..., None]
    return np.linalg.eigvals(ring)


def _arnoldi(linear: Linear, sample: int, count: int) -> tuple[Array, Array]:
    """The `count` rightmost eigenvalues of one sample and their vectors (N, count), from a fixed
    start.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    operator = LinearOperator((linear.size, linear.size), matvec=lambda x: linear.product(sample, x), dtype=np.float64)
    try:
        return eigs(operator, k=count, which="LR", v0=_start(linear))
    except ArpackNoConvergence as error:
        raise ConfigurationError(
            f"the {count} rightmost eigenvalues of sample {sample} did not converge; use method='dense'"
        ) from error


def departure(linear: Linear, found: Spectrum) -> Array:
    """(B,) Henrici's departure from normality sqrt(||J||_F^2 - sum |lambda|^2), NaN for an
    incomplete spectrum (Henrici 1962).

    It does not change when J is shifted by a multiple of I, so both sums are taken round the mean
    decay, where less cancels.
    """
    if not found.complete:
        return np.full(len(found.values), np.nan)
    shift = np.mean(flatten(linear.decay), axis=1)
    coupled = (np.abs(found.values + shift[:, None]) ** 2).sum(1)
    rest = sum((times * (shift - kappa) ** 2 for kappa, times in found.rest), np.zeros(len(shift)))
    return np.sqrt(np.maximum(linear.square(shift) - coupled - rest, 0))


def numerical_abscissa(linear: Linear) -> Array:
    """(B,) the largest eigenvalue of (J + J^T) / 2: d/dt ln ||ds|| never exceeds it, and reaches
    it at first.
    """
    if linear.size <= DENSE:
        return np.array([np.linalg.eigvalsh((j + j.T) / 2)[-1] for j in map(linear.dense, range(len(linear.slope[0])))])
    from scipy.sparse.linalg import LinearOperator, eigsh

    def symmetric(sample: int) -> float:
        def product(x: Array) -> Array:
            return (linear.product(sample, x) + linear.product(sample, x, transposed=True)) / 2

        operator = LinearOperator((linear.size, linear.size), matvec=product, dtype=np.float64)
        return float(eigsh(operator, k=1, which="LA", v0=_start(linear), tol=1e-10, return_eigenvectors=False)[0])

    return np.array([symmetric(b) for b in range(len(linear.slope[0]))])


def _start(linear: Linear) -> Array:
    """The vector (N,) that the iterations start from: always the same, so that results are."""
    return np.random.default_rng(0).normal(size=linear.size)


def slowest_mode(linear: Linear, sample: int) -> Array:
    """(N,) of norm 1: the real part of the eigenvector of J that belongs to the rightmost
    eigenvalue; what remains last of a disturbance.
    """
    if linear.size <= DENSE:
        values, vectors = np.linalg.eig(linear.dense(sample))
    else:
        values, vectors = _arnoldi(linear, sample, 1)
    mode = vectors[:, np.argmax(values.real)].real
    return mode / np.linalg.norm(mode)


def by_decreasing(values: Array, key: Callable[[Array], Array]) -> Array:
    """Each row (B, M) in the order of decreasing key."""
    return np.take_along_axis(values, np.argsort(-key(values), axis=1, kind="stable"), axis=1)
