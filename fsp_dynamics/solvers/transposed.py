"""The exact-gradient nudged phase: the nudge acts through the transposed connections (model fact
11).

Adding (J^T - J)(s - s^0) to the nudged field, J the free field's Jacobian at the free equilibrium
s^0, turns the linear part of the field into J^T. With p = rho'(s^0) and a^0 the input at s^0, the
equilibrium of a hard sigmoid is then (beta and d at the output only)

    s_j = rho((a^0_j + p_j sum_k w_jk p_k (s_k - s^0_k) + beta d_j) / (leak + beta))

and eq. 14 between s^0 and s becomes -dC/dW of C = 1/2 ||s_L - d||^2 as beta -> 0, for any
connections. Higher orders of the field in s - s^0, which do not affect the limit, are left out. It
is an oracle and a standard of comparison for learning rules: no neuron has access to the
transposed weights.
"""

from __future__ import annotations

import numpy as np

from fsp_dynamics.kernels.status import CONVERGED
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, decay_rates, state_norm, total_input
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance, judge
from fsp_dynamics.solvers.response import Gains, adjoint, gains


def relax_transposed(
    network: Network,
    drive: Array,
    free: Equilibrium,
    nudge: Nudge,
    tolerance: Tolerance | None = None,
    max_passes: int = 200,
) -> Equilibrium:
    """The equilibria of the exact-gradient nudged phase from the free equilibria of the same
    samples, by passes from the output back to the first layer.

    Samples that `max_passes` passes do not bring to convergence are started again at the
    equilibrium of the linear field. drive (B, n_1). `steps` counts passes; `residual` is ||s^new -
    s|| over the units of a sample. Raises ConfigurationError for an impossible nudge
    or a smooth rho without curvature.
    """
    nudge.check(network, len(drive))
    tolerance = tolerance or Tolerance.default(network.dtype)
    backward, rows = _TransposedPass(network, drive, free.state, nudge), np.arange(len(drive))
    moved = [np.zeros_like(s) for s in free.state]
    norm = state_norm(free.state)
    residual, status, steps = np.zeros(len(drive)), np.zeros(len(drive), np.uint8), np.zeros(len(drive), np.int64)
    for number in range(max_passes + 1):
        if number == max_passes:
            _begin_linearly(network, free.state, drive, nudge, moved, rows)
        with np.errstate(over="ignore", invalid="ignore"):
            residual[rows] = backward.run(moved, rows)
        status[rows] = judge(residual[rows], norm[rows], tolerance)
        rows = rows[status[rows] != CONVERGED]
        steps[rows] += 1
        if rows.size == 0:
            break
    return Equilibrium(
        tuple(s + m for s, m in zip(free.state, moved, strict=True)), residual, status, steps, nudge.beta
    )


def _begin_linearly(
    network: Network, state: State, drive: Array, nudge: Nudge, moved: list[Array], rows: Array
) -> None:
    """Put beta lambda, the adjoint under the nudge's own leak, in these rows: the equilibrium where
    no unit meets a kink.
    """
    of, pull = tuple(s[rows] for s in state), nudge.rows(rows)
    found = _gains(network, of, pull, drive[rows])
    push = nudge.beta * (pull.target - of[-1]).astype(np.float64)
    for into, v, p in zip(moved, adjoint(network, found, push), found.slope, strict=True):
        into[rows] = np.divide(v, p, out=np.zeros_like(v), where=p > 0)


def _gains(network: Network, free: State, nudge: Nudge, drive: Array) -> Gains:
    """p and h at the free equilibria, the outputs with the leak that the nudge gives them."""
    found = gains(network, free, None, drive)
    return Gains(found.slope, (*found.answer[:-1], found.answer[-1] / (1 + nudge.beta * found.answer[-1])))


class _TransposedPass:
    """One pass against the direction of the weights, and what is constant in it."""

    def __init__(self, network: Network, drive: Array, state: State, nudge: Nudge) -> None:
        dtype, found = network.dtype, _gains(network, state, nudge, drive)
        self.network, self.state = network, state
        self.slope = [p.astype(dtype) for p in found.slope]
        self.kappa = decay_rates(network, nudge)
        self.answer = [h.astype(dtype) for h in found.answer]
        self.links: list[list[tuple[int, Array]]] = [
            [(c.post, c.weight.T) for c in network.connections() if c.pre == k] for k in range(network.depth)
        ]
        self.push = (nudge.beta * (nudge.target - state[-1])).astype(dtype)
        a = total_input(network, drive, [network.rho.rate(s) for s in state])[-1]
        # the distance of a saturated output's input from the kink
        self.below = np.where(self.slope[-1] > 0, 0, a - state[-1] / network.time_constants[-1])

    def run(self, moved: list[Array], rows: Array) -> Array:
        """One pass of these rows, from the output back to the first layer, in place; the residual
        of each before it (A,).
        """
        squares = np.zeros(len(rows))
        for k in range(self.network.depth - 1, -1, -1):
            new = self._target(k, moved, rows)
            squares += ((new - moved[k][rows]).astype(np.float64) ** 2).sum(1)
            moved[k][rows] = new
        return np.sqrt(squares)

    def _target(self, k: int, moved: list[Array], rows: Array) -> Array:
        """s_j - s^0_j of the fixed point of layer k."""
        slope = self.slope[k][rows]
        push = slope * sum((moved[post][rows] * self.slope[post][rows]) @ weight for post, weight in self.links[k])
        if k == self.network.depth - 1:
            push = push + self.push[rows] + (self.below[rows] if self.network.rho.projected else 0)
        if not self.network.rho.projected:
            return self.answer[k][rows] * push
        s = self.state[k][rows]
        moved_to: Array = np.clip(s + push / self.kappa[k], 0, 1) - s
        return moved_to if k == self.network.depth - 1 else moved_to * slope
