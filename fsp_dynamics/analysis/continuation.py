"""How one image's equilibrium moves, turns and loses its hold while the nudge, or the loop's gain,
is changed slowly.

Equilibria are the roots of F(y, q) = 0 (analysis/reduced.py), curves in n_L + 1 dimensions. They
are followed by arc length: a step of length h along the tangent t, then Newton's method on F = 0
in the plane across t, which passes round folds (Keller 1977; Allgower and Georg, Introduction to
Numerical Continuation Methods, 2003). A smooth rho turns the tangent steadily. The curve of a hard
sigmoid has pieces, one for each set of units inside (0, 1), and corners where a unit meets 0 or 1:
each piece is followed beyond its end as if its units had no walls, the first corner on it is
found, and the walk goes on from there into the piece behind it, in the direction in which the
determinant of (dF; t) keeps its sign. So folds at corners, as sharp as they may be, are passed and
found to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fsp_dynamics.analysis.reduced import Place, Reduced, beyond, changed
from fsp_dynamics.analysis.spectra import Linear, eigenvalues
from fsp_dynamics.display import brief
from fsp_dynamics.errors import ConfigurationError, check_choice, check_finite, check_positive, check_shape
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import State
from fsp_dynamics.solvers.equilibrium import Equilibrium

PARAMETERS = ("beta", "loop")
LEAST = 1e-9  # the shortest step, in units of the outputs and of the span
TURN = 0.95  # cosine by which the tangent may turn in a step
IDLE = 20  # corners that may lie on one another
# |Re lambda|, per unit time, below which a pair of eigenvalues is said to cross the axis
SURE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """A point of a branch where something happens, found to rounding.

    parameter, output (n_L,) : where. frequency : |Im lambda| of the pair that crosses, radians per
    unit time; 0 at a fold.
    row : the row of the branch that it follows.
    """

    parameter: float
    output: Array
    frequency: float
    row: int

    def __repr__(self) -> str:
        return brief(self)


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """Equilibria of one image in the order in which they were walked through, stable and unstable.

    name : "beta" or "loop". parameter : (P,). states : tuple of (P, n_k). abscissa : (P,) largest
    real part of the eigenvalues, per unit time; at the corner of a hard sigmoid's branch that of
    the piece before it.
    folds : where the parameter turns round. hopf : where a pair of complex eigenvalues crosses the
    imaginary axis. At corners eigenvalues jump, and may jump over the axis: that shows in
    `stable`, and is no mark.
    ended : "span" (its end, or its beginning after a fold, was reached), "points" (as many as
    allowed) or "stuck" (no shorter step was possible).
    """

    name: str
    parameter: Array
    states: State
    abscissa: Array
    folds: tuple[Mark, ...]
    hopf: tuple[Mark, ...]
    ended: str

    def __repr__(self) -> str:
        ends = f"{self.parameter[0]:.3g} to {self.parameter[-1]:.3g}" if len(self.parameter) else "nowhere"
        marks = f"{len(self.folds)} folds, {len(self.hopf)} Hopf points"
        return f"<Branch over {self.name}, {ends}: {len(self.parameter)} points, {marks}; ended: {self.ended}>"

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
    """Follow the equilibrium of one image from span[0] towards span[1], round all folds, until it
    leaves the span at either end.

    Parameters
    ----------
    image : (n_in,). target : (n_L,) of the nudge; needed for "beta", and for it alone.
    parameter : "beta", the strength of the nudge (0: the free phase), or "loop", a factor of the
        loop matrix (1: the network as it is).
    span : where to begin and where to end, in either order.
    start : a state (1, n_k) or an equilibrium of this one image, near which the branch begins,
        stable or not; None: where passes lead from silence.
    step : longest step, sqrt(|dy|^2 + (dp / width)^2); width is the power of two that is nearest
        to the length of the span.
    points : the most rows that the branch may have.

    All of it in float64. Raises ConfigurationError for networks without a loop, activations
    without curvature, unusable settings, or where no equilibrium is found to begin with;
    ShapeError and NotFiniteError for unusable arrays.
    """
    problem, first, last = _checked(network, image, parameter, span, target)
    check_positive("step", step)
    if not (isinstance(points, int | np.integer) and points >= 2):
        raise ConfigurationError(f"points = {points!r}, expected a whole number, 2 or more")
    walk = _Walk(
        problem, problem.begin(first, start), 1.0 if last > first else -1.0, (min(first, last), max(first, last))
    )
    while len(walk.rows) < points and not walk.ended:
        walk.step(step)
    found = walk.rows
    return Branch(
        name=parameter,
        parameter=np.array([row.x[-1] * problem.width for row in found]),
        states=tuple(np.concatenate(layer) for layer in zip(*(row.state for row in found), strict=True)),
        abscissa=np.array(walk.abscissa),
        folds=tuple(walk.folds),
        hopf=tuple(walk.hopf),
        ended=walk.ended or "points",
    )


def _checked(
    network: Network, image: Array, parameter: str, span: tuple[float, float], target: Array | None
) -> tuple[Reduced, float, float]:
    """The problem, and where to begin and end. Raises what `continuation` promises."""
    check_choice("parameter", parameter, PARAMETERS)
    if network.loop is None:
        raise ConfigurationError(
            "continuation: the network has no loop (loop = None), whose outputs it needs; give one made by loop_network"
        )
    if not network.rho.projected and network.rho.curvature is None:
        raise ConfigurationError(
            f"continuation with rho = {network.rho.name!r} needs its curvature: give Activation(..., curvature=...)"
        )
    if len(span) != 2 or not np.isfinite(span).all() or span[0] == span[1]:
        raise ConfigurationError(
            f"span = {span!r}, expected two different finite numbers, where to begin and where to end"
        )
    if (target is None) == (parameter == "beta"):
        wanted = (
            f"(n_L,) = ({network.sizes[-1]},) numbers that the nudge pulls to"
            if target is None
            else "None, as only a nudge has a target"
        )
        raise ConfigurationError(f"target with parameter = {parameter!r} is {type(target).__name__}, expected {wanted}")
    exact, image = network.astype(np.float64), np.asarray(image, np.float64)
    check_shape("image", image, (network.sizes[0],))
    if target is not None:
        target = np.asarray(target, np.float64)
        check_shape("target", target, (network.sizes[-1],))
        check_finite("target", target)
        if min(span) <= -1 / network.time_constants[-1]:
            limit = -1 / network.time_constants[-1]
            raise ConfigurationError(
                f"span = {span!r}, expected betas above {limit:g} (-1/r of the output), where it still leaks"
            )
    return (
        Reduced(exact, rate.drive(exact, image[None]), target, 2.0 ** round(np.log2(abs(span[1] - span[0])))),
        float(span[0]),
        float(span[1]),
    )


class _Walk:
    """One branch on its way: where it stands, where it looks, and what it has met."""

    def __init__(self, problem: Reduced, first: Place, heading: float, bounds: tuple[float, float]) -> None:
        self.problem, self.here = problem, first
        self.low, self.high = (bound / problem.width for bound in bounds)
        self.rows, self.abscissa = [first], [float(eigenvalues(first.linear).abscissa[0])]
        self.folds: list[Mark] = []
        self.hopf: list[Mark] = []
        self.ended, self.h, self.idle = "", 0.02, 0
        t = _null_vector(first.slopes)
        self.t = t * np.sign(t[-1] or 1) * heading
        self.sign = np.linalg.slogdet(np.vstack([first.slopes, self.t]))[0]

    def step(self, longest: float) -> None:
        """To the next row: the end of a step, a corner before it, or an end of the span."""
        self.h = min(self.h, longest)
        new = self.ahead(self.h)
        corner: State = ()
        if new is not None and new.side and beyond(new).max() > 0:
            new, corner = self.first_corner(new)
        if new is not None and not self.low <= new.x[-1] <= self.high:
            new, corner = self.end_of_span(new), ()
        if new is None or np.linalg.norm(new.x - self.here.x) > 2 * self.h or self.heading(new) @ self.t < TURN:
            self.h /= 2
            self.ended = "stuck" if self.h < LEAST else ""
            return
        t = self.heading(new)
        self.idle = self.idle + 1 if np.linalg.norm(new.x - self.here.x) <= 1e-12 else 0
        if not self.idle:
            self.look_for_hopf(new)
            if t[-1] * self.t[-1] < 0:
                self.mark_fold(new)
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

    def ahead(self, h: float) -> Place | None:
        """The point of the branch at distance h along the tangent."""
        return self.problem.corrected(self.here.x + h * self.t, self.t, self.here.side, self.here.state)

    def sure(self, h: float) -> Place:
        """`ahead` within a step that has succeeded."""
        found = self.ahead(h)
        if found is None:
            raise ConfigurationError(
                f"the branch was lost near parameter = {self.here.x[-1] * self.problem.width:g}; take a shorter step"
            )
        return found

    def heading(self, place: Place) -> Array:
        """The unit tangent there, in the direction of the walk."""
        t = _null_vector(place.slopes)
        if place.side:
            return t * np.linalg.slogdet(np.vstack([place.slopes, t]))[0] * self.sign
        return t * np.sign(t @ self.t)

    def first_corner(self, new: Place) -> tuple[Place | None, State]:
        """The first point on the way to `new` where a unit meets 0 or 1, and the sides behind it."""
        low, before, high, after = 0.0, beyond(self.here), self.t @ (new.x - self.here.x), beyond(new)
        for turn in range(60):
            crossing = after > 0
            share = np.maximum(-before[crossing], 0) / (after[crossing] - np.minimum(before[crossing], 0))
            h = low + (high - low) * (0.5 if turn % 3 == 2 else float(share.min()))
            place = self.ahead(h)
            if place is None:
                break
            there = beyond(place)
            if abs(there[crossing].max()) <= 1e-13 or high - low <= 1e-15:
                return place, changed(place.side, place.aims, crossing & (there > -1e-10))
            if there.max() > 0:
                high, after = h, there
            else:
                low, before = h, there
        return None, ()

    def turn_corner(self, side: State) -> None:
        """Stand at the corner, in the piece behind it; a fold if the parameter turns round there."""
        arriving = self.t
        self.here = self.problem.at(self.here.x, side, self.here.state)
        self.t = self.heading(self.here)
        if arriving[-1] * self.t[-1] < 0:
            self.folds.append(self.mark(self.here, len(self.rows) - 1))

    def end_of_span(self, new: Place) -> Place | None:
        """The point on the way to `new` at which the parameter leaves the span, with that very
        value.
        """
        bound = self.low if new.x[-1] < self.low else self.high
        share = (bound - self.here.x[-1]) / (new.x[-1] - self.here.x[-1])
        near = self.here.x + share * (new.x - self.here.x)
        near[-1] = bound
        found = self.problem.corrected(near, np.eye(len(near))[-1], self.here.side, self.here.state)
        if found is not None:
            found.x[-1] = bound
        return found

    def mark_fold(self, new: Place) -> None:
        """Where on the way to `new` the parameter stands still."""
        h = _root(lambda h: self.heading(self.sure(h))[-1], self.t @ (new.x - self.here.x))
        self.folds.append(self.mark(self.sure(h), len(self.rows) - 1))

    def look_for_hopf(self, new: Place) -> None:
        """Pairs of eigenvalues that cross the imaginary axis on the way to `new`, within one
        piece.
        """
        counts = [int((_pairs(place.linear).real > 0).sum()) for place in (self.here, new)]
        for rank in range(min(counts), max(counts)):

            def real_part(h: float, rank: int = rank) -> float:
                pairs = _pairs(self.sure(h).linear)
                return float(pairs[rank].real) if rank < len(pairs) else -1.0

            place = self.sure(_root(real_part, self.t @ (new.x - self.here.x)))
            pairs = _pairs(place.linear)
            # else the pair has become two real ones
            if rank < len(pairs) and abs(pairs[rank].real) < SURE:
                self.hopf.append(self.mark(place, len(self.rows) - 1, float(pairs[rank].imag)))

    def mark(self, place: Place, row: int, frequency: float = 0.0) -> Mark:
        return Mark(float(place.x[-1] * self.problem.width), place.x[:-1].copy(), frequency, row)


def _null_vector(slopes: Array) -> Array:
    """The unit vector that dF/dx (n, n + 1) maps to 0."""
    return np.linalg.svd(slopes)[2][-1]


def _pairs(linear: Linear) -> Array:
    """One eigenvalue of each complex pair, by decreasing real part."""
    values = eigenvalues(linear).values[0]
    return values[values.imag > 1e-8]


def _root(function: Callable[[float], float], high: float) -> float:
    """Where the function, whose signs at 0 and `high` differ, is 0."""
    from scipy.optimize import brentq

    return float(brentq(function, 0.0, high, xtol=1e-14))
