"""Stability of equilibria: whether perturbations decay, how fast, and how much they may grow first.

    equilibrium = relax(network, images)
    result = stability(network, images, equilibrium)    all quantities, for each sample
    result.abscissa, result.settle_time, result.beta_range, result.dt

The Jacobian of the field and its eigenvalues are in analysis/spectra.py. The analysis is linear, at
one state, with the set of saturated units fixed: `kink_margin` bounds its validity, while
`measured_settle_time` and analysis/attractors.py integrate the nonlinear field.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.analysis.attractors import integrator_of
from fsp_dynamics.analysis.spectra import (
    Linearisation,
    Spectrum,
    by_decreasing,
    departure,
    eigenvalues,
    linearise,
    numerical_abscissa,
    slowest_mode,
)
from fsp_dynamics.arrays import Rng
from fsp_dynamics.arrays import generator as make_generator
from fsp_dynamics.display import html_table, largest
from fsp_dynamics.errors import ConfigurationError, check_choice, check_positive
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, flatten, layers
from fsp_dynamics.solvers.equilibrium import Equilibrium, Integrator
from fsp_dynamics.solvers.linearisation import ring_eigenvalues
from fsp_dynamics.solvers.response import chain, loop_matrix
from fsp_dynamics.solvers.tableaux import TABLEAUX, Tableau

DIRECTIONS = ("random", "slowest")
POINTS = 64  # distances sampled in each segment of a measured trajectory
LONGEST = 2000  # time constants for which a perturbation is followed


@dataclass(frozen=True, slots=True, eq=False)
class Stability:
    """Linear stability of B equilibria.

    loop_matrix : (B, n_L, n_L) G_D, by which a change of the output rates is multiplied in one
        round trip; None in a network without a loop.
    loop_norm : (B,) ||G_D||_2; NaN without a loop.
    loop_eigenvalues : (B, n_L) complex, by decreasing modulus; None without a loop.
    kink_margin : (B,) smallest distance of any (a + beta d) / kappa to 0 or 1;
        inf for a smooth rho.
    spectrum : the eigenvalues of J. abscissa : (B,) the largest real part, per unit time.
    settle_time : (B,) asymptotic time in which a small perturbation decays by `factor`
        (`settle_time`); inf if it does not decay.
    departure : (B,) Henrici's departure from normality, sqrt(||J||_F^2 - sum |lambda|^2); NaN
        if the spectrum is incomplete.
    relative_departure : (B,) the same divided by ||J||_F: 0 for a normal J, always below 1.
    numerical_abscissa : (B,) largest eigenvalue of (J + J^T) / 2: the largest initial growth rate
        of a perturbation. If it is positive and the abscissa negative, perturbations may grow
        transiently before they decay.
    beta_range : (B, 2) nudge strengths at which the equilibrium is stable, saturation masks fixed
        (`admissible_beta`); NaN except for hard-sigmoid loops.
    dt : (B,) longest stable step of `tableau` (`admissible_dt`); NaN if the spectrum is
        incomplete.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> found = stability(network, images, fsp.relax(network, images))
    >>> found.stable.tolist(), found.abscissa.shape, found.loop_matrix.shape, found.beta_range.shape
    ([True, True], (2,), (2, 3, 3), (2, 2))
    """

    loop_matrix: Array | None
    loop_norm: Array
    loop_eigenvalues: Array | None
    kink_margin: Array
    spectrum: Spectrum
    abscissa: Array
    settle_time: Array
    departure: Array
    relative_departure: Array
    numerical_abscissa: Array
    beta_range: Array
    dt: Array
    factor: float
    tableau: str

    def __repr__(self) -> str:
        rows = "; ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"<Stability of {len(self.abscissa)} samples: {rows}>"

    def _repr_html_(self) -> str:
        return html_table(f"Stability of {len(self.abscissa)} samples", self._facts())

    def _facts(self) -> dict[str, str]:
        loop = {} if self.loop_matrix is None else {"||G_D|| up to": largest(self.loop_norm)}
        counts = {"stable": f"{int(self.stable.sum())} of {len(self.abscissa)}"}
        return (
            counts | {"abscissa up to": largest(self.abscissa), "settle time up to": largest(self.settle_time)} | loop
        )

    @property
    def stable(self) -> Array:
        """(B,) bool."""
        return self.abscissa < 0


def stability(
    network: Network,
    images: Array,
    equilibrium: Equilibrium,
    nudge: Nudge | None = None,
    *,
    factor: float = 1000.0,
    tableau: str = "euler",
    method: str | None = None,
    unconverged: bool = False,
) -> Stability:
    """All quantities of `Stability` at these equilibria.

    Parameters
    ----------
    images : (B, n_in). nudge : the nudge of the equilibria, or None.
    factor : by which a perturbation decays within the settle time. tableau : the integration
        method whose longest stable step is computed.
    method : for the eigenvalues, see analysis/spectra.py.
    unconverged : if True, include unconverged samples, linearised at the state reached.

    The numerical abscissa of a network above spectra.DENSE units is found by Lanczos' method,
    sample by sample, which is slow for many samples. Raises NotConvergedError for unconverged
    samples, NotFiniteError for states that are not finite, ShapeError and ConfigurationError.

    Returns
    -------
    Stability : arrays of B samples.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> stability(network, images, fsp.relax(network, images)).stable.tolist()
    [True, True]
    """
    if not isinstance(equilibrium, Equilibrium):
        raise ConfigurationError(
            f"equilibrium is {type(equilibrium).__name__}, expected an Equilibrium, as relax(network, images) returns"
        )
    if equilibrium.beta != beta_of(nudge):
        raise ConfigurationError(
            f"nudge has beta = {beta_of(nudge):g}, expected {equilibrium.beta:g}, the beta of the equilibrium"
        )
    check_choice("tableau", tableau, TABLEAUX)
    if not unconverged:
        equilibrium.require_converged()
    linear = linearise(network, images, equilibrium, nudge)
    found, batch = eigenvalues(linear, method), len(linear.slope[0])
    matrix = None if network.loop is None else loop_matrix(linear.network, linear.gains)
    norm, distance = np.sqrt(linear.square()), departure(linear, found)
    return Stability(
        loop_matrix=matrix,
        loop_norm=np.full(batch, np.nan) if matrix is None else np.linalg.norm(matrix, 2, axis=(1, 2)),
        loop_eigenvalues=None if matrix is None else by_decreasing(np.linalg.eigvals(matrix), np.abs),
        kink_margin=kink_margin(network, images, equilibrium, nudge),
        spectrum=found,
        abscissa=found.abscissa,
        settle_time=settle_time(found.abscissa, factor),
        departure=distance,
        relative_departure=distance / norm,
        numerical_abscissa=numerical_abscissa(linear),
        beta_range=admissible_beta(linear) if network.is_hard_sigmoid_loop else np.full((batch, 2), np.nan),
        dt=admissible_dt(found, tableau) if found.complete else np.full(batch, np.nan),
        factor=factor,
        tableau=tableau,
    )


def kink_margin(network: Network, images: Array, state: State | Equilibrium, nudge: Nudge | None = None) -> Array:
    """(B,) smallest distance over units of (a + beta d) / kappa (r a in the free phase) to 0 or 1;
    inf for a smooth rho.
    """
    state = state.state if isinstance(state, Equilibrium) else state
    if not network.rho.projected:
        return np.full(len(state[0]), np.inf)
    aims = rate.resting_inputs(network, rate.drive(network, images), [network.rho.rate(s) for s in state], nudge)
    return np.min([np.minimum(np.abs(u), np.abs(u - 1)).min(1) for u in aims], axis=0).astype(np.float64)


def settle_time(abscissa: Array, factor: float = 1000.0) -> Array:
    """(B,) ln(factor) / |abscissa|: the asymptotic time in which a small perturbation decays by
    `factor`; inf if it does not decay.
    """
    if not (isinstance(factor, int | float | np.number) and np.isfinite(factor) and factor > 1):
        raise ConfigurationError(
            f"factor = {factor!r}, expected a finite number above 1, by which a perturbation decays"
        )
    with np.errstate(divide="ignore"):
        return np.where(np.asarray(abscissa) < 0, np.log(factor) / np.abs(abscissa), np.inf)


def admissible_beta(linear: Linearisation) -> Array:
    """(B, 2) the interval (low, inf) of nudge strengths, low >= -1/r_L, in which a hard-sigmoid
    loop is stable with its saturation masks fixed.

    With nu the eigenvalues of G_D kappa_L (independent of beta), the roots of (1/r_L + beta +
    lambda) prod_{k<L} (1 + lambda / kappa_k) = nu cross the imaginary axis only leftwards as beta
    grows: there d lambda / d beta = -1 / (1 + sum_{k<L} (kappa_L + lambda) / (kappa_k + lambda)),
    and every term of that sum has a positive real part. So `low` is found by bisection
    between kappa_L = 0 and kappa_L = max |nu|. Raises ConfigurationError for other networks, whose
    stable values of beta need not form an interval.
    """
    if not linear.network.is_hard_sigmoid_loop:
        raise ConfigurationError(
            "admissible_beta needs a loop and a hard sigmoid; compute the spectrum of this network at each beta instead"
        )
    hidden = np.array(linear.kappa[:-1])
    nu = np.linalg.eigvals(chain(linear.network, linear.gains) * linear.slope[-1][:, None, :])
    low, high = np.zeros(len(nu)), np.abs(nu).max(1)

    def unstable(rows: Array, last: Array) -> Array:
        kappa = np.empty((len(rows), nu.shape[1], len(hidden) + 1))
        kappa[..., :-1], kappa[..., -1] = hidden, last[:, None]
        abscissa: Array = ring_eigenvalues(kappa, nu[rows] * hidden.prod()).real.max((1, 2))
        return abscissa >= 0

    rows = np.flatnonzero(high > 0)
    rows = rows[unstable(rows, low[rows])]
    high[np.setdiff1d(np.arange(len(nu)), rows)] = 0
    for _ in range(50):
        middle = (low[rows] + high[rows]) / 2
        left = unstable(rows, middle)
        low[rows[left]], high[rows[~left]] = middle[left], middle[~left]
    return np.column_stack([high - 1 / linear.network.time_constants[-1], np.full(len(nu), np.inf)])


def admissible_dt(found: Spectrum, tableau: str | Tableau = "euler") -> Array:
    """(B,) the longest step h with |R(h' lambda)| <= 1 for all eigenvalues and all 0 < h' <= h; 0
    for an unstable equilibrium.

    The stability function R(z) = 1 + z b^T (I - z A)^-1 1 = sum_i c_i z^i is the factor by which
    one step multiplies a mode. With z = x e^(i theta), |R|^2 - 1 is a polynomial in x whose first
    zero crossing is computed; for Euler that is h = 2 (-Re lambda) / |lambda|^2. Raises
    ConfigurationError for an unknown tableau or an incomplete spectrum.
    """
    c, values = _tableau_of(tableau).amplification, found.all()
    size = np.where(values == 0, 1, np.abs(values))
    direction = np.where(values == 0, -1, values / size)
    terms = c * direction[..., None] ** np.arange(len(c))  # R(x e^(i theta)) = sum_i terms_i x^i
    degree = 2 * len(c) - 3  # of (|R|^2 - 1) / x
    powers = np.zeros((*values.shape, degree + 1))
    for i in range(len(c)):
        for j in range(max(1 - i, 0), len(c)):
            powers[..., i + j - 1] += (terms[..., i] * terms[..., j].conj()).real
    companion = np.zeros((*values.shape, degree, degree))
    companion[..., 1:, :-1] = np.eye(degree - 1)
    companion[..., :, -1] = -powers[..., :-1] / powers[..., -1:]
    roots = np.linalg.eigvals(companion)
    first = np.where((np.abs(roots.imag) < 1e-9) & (roots.real > 0), roots.real, np.inf).min(-1)
    steps = np.where(values.real < 0, first / size, 0.0)
    return np.asarray(steps.min(1))


def growth(tableau: str | Tableau, z: Array) -> Array:
    """|R(z)|: the factor by which one step h multiplies a mode of eigenvalue lambda, z = h lambda
    (complex, any shape); stable where <= 1.

    Raises ConfigurationError for an unknown tableau.

    Returns
    -------
    array : of the shape of `z`, 0 or more.

    >>> growth("euler", np.array([-0.5, -3.0])).tolist()
    [0.5, 2.0]
    """
    return np.abs(np.polynomial.polynomial.polyval(z, _tableau_of(tableau).amplification))


def _tableau_of(given: str | Tableau) -> Tableau:
    """A tableau, or the one of that name. Raises ConfigurationError for an unknown one."""
    return given if isinstance(given, Tableau) else TABLEAUX[check_choice("tableau", given, TABLEAUX)]


def measured_settle_time(
    network: Network,
    images: Array,
    equilibrium: Equilibrium,
    nudge: Nudge | None = None,
    *,
    factor: float = 1000.0,
    size: float = 1e-3,
    direction: str = "slowest",
    rng: Rng = 0,
    solver: Integrator | None = None,
    longest: float | None = None,
) -> Array:
    """(B,) the time in which a perturbation of the equilibrium decays by `factor`, measured by
    integrating the field (rate form).

    Each sample is integrated twice, from its equilibrium and from a perturbed state, and the
    distance is measured. inf if the distance has grown tenfold at the end of a segment (of 4 time
    constants, then 8, 16, ...), if the equilibrium itself was left, or after `longest`.

    Parameters
    ----------
    size : 2-norm of the perturbation, over all units; with a hard sigmoid at most a tenth of the
        kink margin, but at least 1e-5.
    direction : "slowest", the slowest mode; or "random", drawn from `rng`, which also contains
        faster modes.
    solver : the integrator; None: dopri5 with adaptive steps and a tolerance of 1e-11.
    longest : in the unit of the time constants; None: 2000 times the longest of them.

    Raises NotConvergedError, ShapeError, ConfigurationError.

    Returns
    -------
    array : (B,), in the unit of the time constants.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], dtype=np.float64, rng=0), np.full((1, 4), 0.5)
    >>> measured_settle_time(network, images, fsp.relax(network, images), longest=50.0).shape
    (1,)
    """
    settle_time(np.zeros(1), factor)  # checks the factor
    check_positive("size", size)
    longest = LONGEST * max(network.time_constants) if longest is None else check_positive("longest", longest)
    check_choice("direction", direction, DIRECTIONS)
    linear = linearise(network, images, equilibrium.require_converged(), nudge)
    exact, fixed = linear.network, flatten(equilibrium.state).astype(np.float64)
    drive = rate.drive(exact, images)
    if direction == "slowest":
        directions = np.array([slowest_mode(linear, b) for b in range(len(fixed))]).reshape(fixed.shape)
    else:
        directions = make_generator(rng).normal(size=fixed.shape)
    sizes = np.clip(kink_margin(network, images, equilibrium, nudge) / 10, min(1e-5, size), size)
    perturbation = sizes[:, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    pairs = np.stack([fixed, fixed + perturbation])  # (2, B, N)
    integrator = integrator_of(network, solver, 1e-11)
    times, now, duration = np.full(len(fixed), np.inf), 0.0, 4 * max(network.time_constants)
    rows = np.arange(len(fixed))
    while rows.size and now < longest:
        grid = np.linspace(0, duration, POINTS + 1)
        path = _follow_pairs(
            integrator, exact, drive[rows], pairs[:, rows], None if nudge is None else nudge.rows(rows), grid
        )
        distance = np.linalg.norm(path[:, 1] - path[:, 0], axis=-1)  # (T, A)
        goal = sizes[rows] / factor
        hit = (distance <= goal).any(0)
        times[rows[hit]] = now + _crossing(grid, distance[:, hit], goal[hit])
        left = np.linalg.norm(path[-1, 0] - fixed[rows], axis=-1) > sizes[rows]
        active = ~hit & ~left & (distance[-1] < 10 * sizes[rows])  # NaN is not below
        pairs[:, rows] = path[-1]
        rows, now, duration = rows[active], now + duration, 2 * duration
    return np.where(times <= longest, times, np.inf)


def _follow_pairs(
    integrator: Integrator, network: Network, drive: Array, pairs: Array, nudge: Nudge | None, grid: Array
) -> Array:
    """Trajectories (T, 2, A, N) of pairs of initial states (2, A, N) with the same drive and
    nudge.
    """
    both = None if nudge is None else Nudge(nudge.beta, np.concatenate([nudge.target, nudge.target]))
    flat = pairs.reshape(-1, pairs.shape[-1])
    path = integrator.follow(network, np.concatenate([drive, drive]), layers(network, flat), both, grid)
    return path.reshape(len(grid), *pairs.shape)


def _crossing(grid: Array, distance: Array, goal: Array) -> Array:
    """The time at which each column of distance (T, A) first reaches its goal (A,), with
    exponential interpolation.
    """
    i, column = np.argmax(distance <= goal, axis=0), np.arange(distance.shape[1])
    before, after = distance[i - 1, column], np.maximum(distance[i, column], np.finfo(float).tiny)
    return grid[i - 1] + np.log(before / goal) / np.log(before / after) * (grid[i] - grid[i - 1])
