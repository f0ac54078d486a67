"""The Jacobian of the field at a state: eigenvalues, departure from normality and initial growth.

J and its notation are those of solvers/linearisation.py. The distance of the units inside (0, 1) to
saturation is the kink margin.

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
from dataclasses import dataclass, replace

import numpy as np

from fsp_dynamics.display import largest
from fsp_dynamics.errors import ConfigurationError, check_choice, check_finite
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, flatten
from fsp_dynamics.solvers.equilibrium import Equilibrium, prepare, state_of
from fsp_dynamics.solvers.linearisation import Linearisation, fixed_vector, linearised, loop_eigenvalues, rightmost

METHODS = ("dense", "exact", "rightmost")
DENSE = 400  # units up to which J is formed


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Eigenvalues of the field's Jacobian, per unit time.

    values : (B, M) complex, by decreasing real part.
    uncoupled : (kappa, multiplicity) of the eigenvalues -kappa that every sample has besides
        `values`.
    complete : False if eigenvalues farther to the left were not computed (method "rightmost").

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> found = spectrum(network, images, fsp.relax(network, images))
    >>> found.complete, found.stable.tolist(), found.abscissa.shape, found.all().shape
    (True, [True, True], (2,), (2, 11))
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

        Returns
        -------
        array : (B, N) complex.
        """
        if not self.complete:
            raise ConfigurationError(
                f"spectrum holds the {self.values.shape[1]} rightmost eigenvalues, expected all; use method='dense'"
            )
        known = np.repeat([-kappa for kappa, _ in self.uncoupled], [times for _, times in self.uncoupled])
        return np.concatenate([self.values, np.broadcast_to(known, (len(self.values), known.size))], axis=1)


def linearise(network: Network, images: Array, state: State | Equilibrium, nudge: Nudge | None = None) -> Linearisation:
    """The field linearised at these states, converged or not. Given an `Equilibrium`, units whose
    input holds them outside (0, 1) count as saturated, however close the state came to the bound.

    Raises ShapeError, NotFiniteError, ConfigurationError (rho without curvature).
    """
    drive, converged = rate.drive(network, images), isinstance(state, Equilibrium)
    state = prepare(network, drive, state_of(network, state, len(drive), "state"), nudge)
    for k, s in enumerate(state):
        check_finite(f"state[{k}]", s)
    linear = linearised(network, state, nudge, drive, held=converged)
    return linear if network.dtype == np.float64 else replace(linear, network=network.astype(np.float64))


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

    Returns
    -------
    Spectrum : values (B, M) complex, by decreasing real part.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> spectrum(network, images, fsp.relax(network, images), method="dense").values.shape
    (2, 11)
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
    """`linearisation.loop_eigenvalues`."""
    values, uncoupled = loop_eigenvalues(linear.network, linear.gains, linear.kappa)
    return Spectrum(by_decreasing(values, np.real), tuple(uncoupled), complete=True)


def _arnoldi(linear: Linearisation, sample: int, count: int) -> tuple[Array, Array]:
    """`linearisation.rightmost`; raises ConfigurationError where it does not converge."""
    from scipy.sparse.linalg import ArpackNoConvergence

    try:
        return rightmost(linear, sample, count)
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
        begin = fixed_vector(linear.size)
        return float(eigsh(operator, k=1, which="LA", v0=begin, tol=1e-10, return_eigenvectors=False)[0])

    return np.array([symmetric(b) for b in range(len(linear.slope[0]))])


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
