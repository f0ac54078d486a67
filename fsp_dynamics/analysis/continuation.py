"""Continuation of one image's equilibrium in the nudge strength or the gain of the loop: branches,
folds and Hopf points.

Equilibria are the roots of F(y, q) = 0 (analysis/reduced.py), curves in n_L + 1 dimensions. They
are followed by pseudo-arclength continuation: a step of length h along the tangent t, then Newton's
method on F = 0 in the plane normal to t, which passes folds (Keller 1977; Allgower and Georg,
Introduction to Numerical Continuation Methods, 2003). For a smooth rho the tangent turns smoothly.
For a hard sigmoid the curve is piecewise smooth, with one piece for each set of units inside (0, 1)
and a corner where a unit reaches 0 or 1. Each piece is followed beyond its end as if its units were
not clipped, the first corner on it is located, and the continuation proceeds into the next piece in
the direction in which the determinant of (dF; t) keeps its sign. So folds at corners are passed,
however sharp, and located to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fsp_dynamics.analysis.reduced import Reduced, ReducedPoint, excess, switched_sides
from fsp_dynamics.analysis.spectra import Linearisation, eigenvalues
from fsp_dynamics.arrays import numbers, pixels
from fsp_dynamics.display import brief
from fsp_dynamics.errors import ConfigurationError, check_choice, check_finite, check_positive, check_shape
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import State
from fsp_dynamics.solvers.equilibrium import Equilibrium

PARAMETERS = ("beta", "loop")
SHORTEST = 1e-9  # step length, in units of the outputs and of the span
TURN = 0.95  # smallest cosine between the tangents of consecutive points
IDLE = 20  # corners that may coincide
# |Re lambda|, per unit time, below which a pair of eigenvalues is taken to be on the axis
ON_AXIS = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Bifurcation:
    """A fold or Hopf point of a branch, located to rounding.

    parameter, output (n_L,) : its position. frequency : |Im lambda| of the crossing pair, radians
    per unit time; 0 at a fold.
    row : the row of the branch just before it.

    >>> Bifurcation(parameter=0.5, output=np.zeros(3), frequency=0.0, row=7).parameter
    0.5
    """

    parameter: float
    output: Array
    frequency: float
    row: int

    def __repr__(self) -> str:
        return brief(self)


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """Equilibria of one image along a branch, in order, stable and unstable.

    name : "beta" or "loop". parameter : (P,). states : tuple of (P, n_k). abscissa : (P,) largest
    real part of the eigenvalues, per unit time; at a corner (hard sigmoid) that of the piece
    before it.
    folds : where the parameter changes direction. hopf : where a complex pair of eigenvalues
    crosses the imaginary axis. At corners eigenvalues jump, possibly across the axis: `stable`
    shows it, but no bifurcation is recorded.
    ended : "span" (either end of the span was reached), "points" (the maximum number was reached)
    or "stuck" (no shorter step was possible).

    >>> import fsp_dynamics as fsp
    >>> network = fsp.loop_network([4, 8, 3], rng=0)
    >>> branch = continuation(network, np.full(4, 0.5), "loop", (0.0, 1.0))
    >>> branch.ended, bool(branch.stable.all()), branch.outputs.shape == (len(branch.parameter), 3)
    ('span', True, True)
    """

    name: str
    parameter: Array
    states: State
    abscissa: Array
    folds: tuple[Bifurcation, ...]
    hopf: tuple[Bifurcation, ...]
    ended: str

    def __repr__(self) -> str:
        ends = f"{self.parameter[0]:.3g} to {self.parameter[-1]:.3g}" if len(self.parameter) else "empty"
        found = f"{len(self.folds)} folds, {len(self.hopf)} Hopf points"
        return f"<Branch in {self.name}, {ends}: {len(self.parameter)} points, {found}; ended: {self.ended}>"

    @property
    def outputs(self) -> Array:
        """(P, n_L)."""
        return self.states[-1]

    @property
    def stable(self) -> Array:
        """(P,) bool."""
        return self.abscissa < 0


def continuation(
    network: Network,
    image: Array,
    parameter: str = "beta",
    span: tuple[float, float] = (0.0, 1.0),
    target: Array | None = None,
    *,
    start: State | Equilibrium | None = None,
    step: float = 0.05,
    points: int = 2000,
) -> Branch:
    """Follow the equilibrium of one image from span[0] towards span[1], through folds, until the
    branch leaves the span at either end.

    Parameters
    ----------
    image : (n_in,). target : (n_L,) of the nudge; required for "beta" only.
    parameter : "beta", the strength of the nudge (0: the free phase), or "loop", a factor of the
        loop matrix (1: the network as it is).
    span : first and last value, in either order.
    start : a state (1, n_k) or an equilibrium of this one image, near which the branch begins,
        stable or not; None: where fixed-point iteration leads from the zero state.
    step : longest step, sqrt(|dy|^2 + (dp / width)^2); width is the power of two nearest to the
        length of the span.
    points : largest number of rows of the branch.

    Computed in float64. Raises ConfigurationError for networks without a loop, activations without
    curvature, invalid settings, or where no initial equilibrium is found; ShapeError and
    NotFiniteError for invalid arrays.

    Returns
    -------
    Branch : parameter (P,), states, L arrays (P, n_k), and its bifurcations.

    >>> import fsp_dynamics as fsp
    >>> network, target = fsp.loop_network([4, 8, 3], rng=0), np.eye(3)[0]
    >>> branch = continuation(network, np.full(4, 0.5), "beta", (0.0, 1.0), target)
    >>> branch.parameter[[0, -1]].tolist()
    [0.0, 1.0]
    """
    problem, first, last = _checked(network, image, parameter, span, target)
    check_positive("step", step)
    if not (isinstance(points, int | np.integer) and points >= 2):
        raise ConfigurationError(f"points = {points!r}, expected a whole number, 2 or more")
    tracer = _BranchTracer(
        problem, problem.initial(first, start), 1.0 if last > first else -1.0, (min(first, last), max(first, last))
    )
    while len(tracer.rows) < points and not tracer.ended:
        tracer.step(step)
    found = tracer.rows
    return Branch(
        name=parameter,
        parameter=np.array([row.x[-1] * problem.width for row in found]),
        states=tuple(np.concatenate(layer) for layer in zip(*(row.state for row in found), strict=True)),
        abscissa=np.array(tracer.abscissa),
        folds=tuple(tracer.folds),
        hopf=tuple(tracer.hopf),
        ended=tracer.ended or "points",
    )


def _checked(
    network: Network, image: Array, parameter: str, span: tuple[float, float], target: Array | None
) -> tuple[Reduced, float, float]:
    """The reduced problem and both ends of the span. Raises as documented in `continuation`."""
    check_choice("parameter", parameter, PARAMETERS)
    if network.loop is None:
        raise ConfigurationError(
            "continuation: the network has no loop (loop = None), expected one made by loop_network"
        )
    if not network.rho.projected and network.rho.curvature is None:
        raise ConfigurationError(
            f"continuation with rho = {network.rho.name!r} needs its curvature: give Activation(..., curvature=...)"
        )
    if len(span) != 2 or not np.isfinite(span).all() or span[0] == span[1]:
        raise ConfigurationError(
            f"span = {span!r}, expected two different finite numbers, the first and the last value"
        )
    if (target is None) == (parameter == "beta"):
        wanted = (
            f"(n_L,) = ({network.sizes[-1]},) target values of the outputs"
            if target is None
            else "None, since only the nudge has a target"
        )
        raise ConfigurationError(f"target with parameter = {parameter!r} is {type(target).__name__}, expected {wanted}")
    exact, image = network.astype(np.float64), pixels("image", image).astype(np.float64)
    check_shape("image", image, (network.sizes[0],))
    if target is not None:
        target = numbers("target", target).astype(np.float64)
        check_shape("target", target, (network.sizes[-1],))
        check_finite("target", target)
        if min(span) <= -1 / network.time_constants[-1]:
            limit = -1 / network.time_constants[-1]
            raise ConfigurationError(
                f"span = {span!r}, expected values above {limit:g} (-1/r of the output), where the output still leaks"
            )
    return (
        Reduced(exact, rate.drive(exact, image[None]), target, 2.0 ** round(np.log2(abs(span[1] - span[0])))),
        float(span[0]),
        float(span[1]),
    )


class _BranchTracer:
    """The state of the continuation: current point, tangent, step length and what was found."""

    def __init__(self, problem: Reduced, first: ReducedPoint, direction: float, bounds: tuple[float, float]) -> None:
        self.problem, self.here = problem, first
        self.low, self.high = (bound / problem.width for bound in bounds)
        self.rows, self.abscissa = [first], [float(eigenvalues(first.linear).abscissa[0])]
        self.folds: list[Bifurcation] = []
        self.hopf: list[Bifurcation] = []
        self.ended, self.h, self.idle = "", 0.02, 0
        t = _null_vector(first.slopes)
        self.t = t * np.sign(t[-1] or 1) * direction
        self.sign = np.linalg.slogdet(np.vstack([first.slopes, self.t]))[0]

    def step(self, longest: float) -> None:
        """Advance to the next row: the end of a step, a corner before it, or an end of the span."""
        self.h = min(self.h, longest)
        new = self.ahead(self.h)
        corner: State = ()
        if new is not None and new.side and excess(new).max() > 0:
            new, corner = self.first_corner(new)
        if new is not None and not self.low <= new.x[-1] <= self.high:
            new, corner = self.end_of_span(new), ()
        if new is None or np.linalg.norm(new.x - self.here.x) > 2 * self.h or self.direction(new) @ self.t < TURN:
            self.h /= 2
            self.ended = "stuck" if self.h < SHORTEST else ""
            return
        t = self.direction(new)
        self.idle = self.idle + 1 if np.linalg.norm(new.x - self.here.x) <= 1e-12 else 0
        if not self.idle:
            self.find_hopf(new)
            if t[-1] * self.t[-1] < 0:
                self.record_fold(new)
            self.rows.append(new)
            self.abscissa.append(float(eigenvalues(new.linear).abscissa[0]))
            self.h *= 1.5 if t @ self.t > 1 - (1 - TURN) / 4 else 1.0
            self.here, self.t = new, t
        self.ended = (
            "stuck"
            if self.idle > IDLE
            else "span"
            if new.x[-1] in (self.low, self.high) and len(self.rows) > 1 and not corner
            else ""
        )
        if corner:
            self.turn_corner(corner)

    def ahead(self, h: float) -> ReducedPoint | None:
        """The point of the branch at distance h along the tangent."""
        return self.problem.corrected(self.here.x + h * self.t, self.t, self.here.side, self.here.state)

    def certain(self, h: float) -> ReducedPoint:
        """`ahead` within a step that is known to succeed. Raises ConfigurationError otherwise."""
        found = self.ahead(h)
        if found is None:
            raise ConfigurationError(
                f"the branch was lost near parameter = {self.here.x[-1] * self.problem.width:g}; use a shorter step"
            )
        return found

    def direction(self, place: ReducedPoint) -> Array:
        """The unit tangent there, in the direction of continuation."""
        t = _null_vector(place.slopes)
        if place.side:
            return t * np.linalg.slogdet(np.vstack([place.slopes, t]))[0] * self.sign
        return t * np.sign(t @ self.t)

    def first_corner(self, new: ReducedPoint) -> tuple[ReducedPoint | None, State]:
        """The first point before `new` where a unit reaches 0 or 1, and the sides beyond it."""
        low, before, high, after = 0.0, excess(self.here), self.t @ (new.x - self.here.x), excess(new)
        for turn in range(60):
            crossing = after > 0
            share = np.maximum(-before[crossing], 0) / (after[crossing] - np.minimum(before[crossing], 0))
            h = low + (high - low) * (0.5 if turn % 3 == 2 else float(share.min()))
            place = self.ahead(h)
            if place is None:
                break
            there = excess(place)
            if abs(there[crossing].max()) <= 1e-13 or high - low <= 1e-15:
                return place, switched_sides(place.side, place.unclipped, crossing & (there > -1e-10))
            if there.max() > 0:
                high, after = h, there
            else:
                low, before = h, there
        return None, ()

    def turn_corner(self, side: State) -> None:
        """Move to the corner, into the next piece; a fold if the parameter changes direction."""
        incoming = self.t
        self.here = self.problem.at(self.here.x, side, self.here.state)
        self.t = self.direction(self.here)
        if incoming[-1] * self.t[-1] < 0:
            self.folds.append(self.bifurcation(self.here, len(self.rows) - 1))

    def end_of_span(self, new: ReducedPoint) -> ReducedPoint | None:
        """The point before `new` at which the parameter equals the end of the span exactly."""
        bound = self.low if new.x[-1] < self.low else self.high
        share = (bound - self.here.x[-1]) / (new.x[-1] - self.here.x[-1])
        near = self.here.x + share * (new.x - self.here.x)
        near[-1] = bound
        found = self.problem.corrected(near, np.eye(len(near))[-1], self.here.side, self.here.state)
        if found is not None:
            found.x[-1] = bound
        return found

    def record_fold(self, new: ReducedPoint) -> None:
        """Record the fold before `new`, where the parameter is stationary."""
        h = _root(lambda h: self.direction(self.certain(h))[-1], self.t @ (new.x - self.here.x))
        self.folds.append(self.bifurcation(self.certain(h), len(self.rows) - 1))

    def find_hopf(self, new: ReducedPoint) -> None:
        """Record complex pairs of eigenvalues that cross the imaginary axis before `new`, within
        one piece.
        """
        counts = [int((_pairs(place.linear).real > 0).sum()) for place in (self.here, new)]
        for rank in range(min(counts), max(counts)):

            def real_part(h: float, rank: int = rank) -> float:
                pairs = _pairs(self.certain(h).linear)
                return float(pairs[rank].real) if rank < len(pairs) else -1.0

            place = self.certain(_root(real_part, self.t @ (new.x - self.here.x)))
            pairs = _pairs(place.linear)
            # otherwise the pair has become two real eigenvalues
            if rank < len(pairs) and abs(pairs[rank].real) < ON_AXIS:
                self.hopf.append(self.bifurcation(place, len(self.rows) - 1, float(pairs[rank].imag)))

    def bifurcation(self, place: ReducedPoint, row: int, frequency: float = 0.0) -> Bifurcation:
        return Bifurcation(float(place.x[-1] * self.problem.width), place.x[:-1].copy(), frequency, row)


def _null_vector(slopes: Array) -> Array:
    """The unit null vector of dF/dx (n, n + 1)."""
    return np.linalg.svd(slopes)[2][-1]


def _pairs(linear: Linearisation) -> Array:
    """One eigenvalue of each complex pair, in order of decreasing real part."""
    values = eigenvalues(linear).values[0]
    return values[values.imag > 1e-8]


def _root(function: Callable[[float], float], high: float) -> float:
    """The root of a function whose signs at 0 and `high` differ."""
    from scipy.optimize import brentq

    return float(brentq(function, 0.0, high, xtol=1e-14))
