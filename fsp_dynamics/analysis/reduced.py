"""The equilibrium of one image reduced to n_L equations for its outputs, with a parameter.

An equilibrium of a feedforward loop is an output vector y (n_L,) at which the field F of the
outputs vanishes when all hidden layers are at the equilibrium that y determines. The roots for all
values of a parameter form curves in n_L + 1 dimensions,

    F(y, q) = 0,    q = parameter / width,    dF/dy = diag(p_L) C^T diag(p_L) - diag(decay_L)

(notation of solvers/response.py). For a hard sigmoid F is restricted to one piece at a time: each
unit has a side, -1 (at 0), 0 (inside) or 1 (at 1), and keeps it however far its unclipped
equilibrium u = (a + beta d) / kappa lies beyond the corresponding interval, so that F is smooth.
Everything is computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.analysis.spectra import Linearisation
from fsp_dynamics.display import brief
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, decay_rates, resting_inputs, unit_target
from fsp_dynamics.solvers.equilibrium import Equilibrium, prepare
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.response import chain


@dataclass(frozen=True, slots=True, eq=False)
class ReducedPoint:
    """The reduced problem at one point.

    x : (n_L + 1,) outputs and parameter / width. side : -1, 0, 1 for units at 0, inside, at 1,
        tuple of (1, n_k); empty for a smooth rho.
    state : tuple of (1, n_k). unclipped : u of each unit, for a hard sigmoid. linear : the
        linearised field.
    field : F (n_L,). slopes : dF/dx (n_L, n_L + 1).
    """

    x: Array
    side: State
    state: State
    unclipped: State
    linear: Linearisation
    field: Array
    slopes: Array


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """F(y, q) for one image with drive (1, n_1). target : (n_L,) if the parameter is beta, None if
    it is the factor of the loop.
    """

    network: Network
    drive: Array
    target: Array | None
    width: float

    def __repr__(self) -> str:
        return brief(self)

    def setting(self, q: float) -> tuple[Network, Nudge | None]:
        """The network and the nudge at q."""
        value = q * self.width
        if self.target is None:
            assert self.network.loop is not None
            return self.network.with_parameters({"loop": float(value) * self.network.loop}), None
        return self.network, None if value == 0 else Nudge(value, self.target[None])

    def at(self, x: Array, side: State, guess: State) -> ReducedPoint:
        """The reduced problem at x, with the units on these sides; for a smooth rho the hidden
        equilibrium is searched near `guess`.
        """
        network, nudge = self.setting(x[-1])
        rho, y, kappa = network.rho, x[None, :-1], decay_rates(network, nudge)
        state, slope, decay, unclipped = [], [], [], []
        rates, last = y if rho.projected else rho.rate(y), network.depth - 1
        for k, weight in enumerate((network.loop, *network.forward)):
            a = rates @ weight + (self.drive if k == 0 else network.biases[k])
            beta, d = (0.0, 0.0) if nudge is None or k < last else (nudge.beta, nudge.target)
            if rho.projected:
                unclipped.append(unit_target(a, kappa[k] - beta, beta, d))
                state.append(np.where(side[k] == 0, unclipped[k], side[k] > 0))
                slope.append((side[k] == 0).astype(float))
                decay.append(np.full(a.shape, kappa[k]))
                rates = state[k]
            else:
                state.append(y if k == last else _equilibrium_state(network, a, kappa[k], guess[k]))
                slope.append(rho.slope(state[k]))
                decay.append(kappa[k] - rho.curvature(state[k]) * a)  # type: ignore[misc]
                rates = rho.rate(state[k])
        linear = Linearisation(network, kappa, tuple(slope), tuple(decay))
        field = (
            kappa[last] * (state[last] - y)
            if rho.projected
            else slope[last] * a - (kappa[last] - beta) * y - beta * (y - d)
        )
        return ReducedPoint(
            x, side, tuple(state), tuple(unclipped), linear, field[0], self._slopes(linear, y, state[last])
        )

    def _slopes(self, linear: Linearisation, y: Array, output: Array) -> Array:
        """dF/dx (n_L, n_L + 1), the last column for q."""
        network, gamma, p = linear.network, linear.gains.round_trip, linear.slope[-1][0]
        hard = network.rho.projected
        by_outputs = p[:, None] * chain(network, linear.gains)[0].T * (1.0 if hard else p) - np.diag(
            linear.decay[-1][0]
        )
        if self.target is not None:
            by_parameter = np.where(p != 0, self.target - y, output - y)[0] if hard else self.target - y[0]
        else:
            moved = (y if hard else network.rho.rate(y)) @ self.network.loop
            for k, weight in enumerate(network.forward):
                moved = (gamma[k] * moved) @ weight
            by_parameter = p * moved[0]
        return np.column_stack([by_outputs, self.width * by_parameter])

    def corrected(self, x: Array, normal: Array, side: State, guess: State) -> ReducedPoint | None:
        """The root of F in the plane through x with this normal, by Newton's method; None if it
        does not converge.
        """
        with np.errstate(all="ignore"):  # diverging iterates may overflow; they are checked below
            here = self.at(x, side, guess)
            for _ in range(12):
                matrix, right = np.vstack([here.slopes, normal]), -np.append(here.field, normal @ (here.x - x))
                if not (np.isfinite(matrix).all() and np.isfinite(right).all()):
                    return None
                try:
                    move = np.linalg.solve(matrix, right)
                except np.linalg.LinAlgError:
                    return None
                here = self.at(here.x + move, side, here.state)
                if np.linalg.norm(move) <= 1e-11 * (1 + np.linalg.norm(here.x)):
                    return here if np.isfinite(here.field).all() else None
        return None

    def initial(self, value: float, start: State | Equilibrium | None) -> ReducedPoint:
        """An equilibrium at this value of the parameter, stable or not: near `start`, or where
        fixed-point iteration leads from it (None: from the zero state).

        Newton's method is tried from the start first, since fixed-point iteration would leave an
        unstable equilibrium. Raises ConfigurationError if none is found.
        """
        network, nudge = self.setting(value / self.width)
        given = prepare(network, self.drive, start, nudge)
        found = None if start is None else self._polished(given, value / self.width)
        found = found or self._polished(
            FixedPointSolver().relax(network, self.drive, given, nudge).state, value / self.width
        )
        if found is None:
            raise ConfigurationError(
                f"no equilibrium was found at span[0] = {value:g}; pass start = a state near one, or another span"
            )
        return found

    def _polished(self, near: State, q: float) -> ReducedPoint | None:
        """The equilibrium at q found by Newton's method from a state, including the side of each
        unit of a hard sigmoid.
        """
        network, nudge = self.setting(q)
        for _ in range(20):
            side = (
                tuple(_sides(u) for u in resting_inputs(network, self.drive, near, nudge))
                if network.rho.projected
                else ()
            )
            found = self.corrected(np.append(near[-1][0], q), np.eye(len(near[-1][0]) + 1)[-1], side, near)
            if found is None or not side or excess(found).max() <= 1e-12:
                break
            near = tuple(np.clip(s, 0, 1) for s in found.state)
        else:
            return None
        if found is not None:
            found.x[-1] = q
        return found


def _equilibrium_state(network: Network, a: Array, leak: float, guess: Array) -> Array:
    """The root of leak s = rho'(s) a near `guess` for each unit, by Newton's method; NaN if it
    does not converge.
    """
    s, rho = guess, network.rho
    for _ in range(50):
        move = (rho.slope(s) * a - leak * s) / (leak - rho.curvature(s) * a)  # type: ignore[misc]
        s = s + move
        if (np.abs(move) <= 1e-14 * (1 + np.abs(s))).all():
            return s
    return np.where(np.abs(move) <= 1e-12 * (1 + np.abs(s)), s, np.nan)


def _sides(u: Array) -> Array:
    """-1 where u <= 0, 1 where u >= 1, otherwise 0."""
    return (u >= 1).astype(np.int8) - (u <= 0)


def excess(place: ReducedPoint) -> Array:
    """(N,) how far u of each unit lies outside the interval of its side; negative inside it."""
    u, side = np.concatenate(place.unclipped, axis=1)[0], np.concatenate(place.side, axis=1)[0]
    return np.where(side == 0, np.maximum(-u, u - 1), np.where(side < 0, u, 1 - u))


def switched_sides(side: State, unclipped: State, units: Array) -> State:
    """The sides after these units (N,) switch: from inside to the nearer bound, from a bound to
    inside.
    """
    masks = np.split(units[None], np.cumsum([s.shape[1] for s in side])[:-1], axis=1)
    return tuple(
        np.where(m, np.where(s == 0, np.where(u < 0.5, -1, 1), 0), s)
        for s, u, m in zip(side, unclipped, masks, strict=True)
    )
