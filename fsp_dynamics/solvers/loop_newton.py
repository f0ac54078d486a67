"""The n_L-dimensional problem of a loop with a hard sigmoid: its Jacobian, and Newton's method.

With D_k the 0/1 masks of the unsaturated units and kappa_k = leak_k (+ beta at the output),

    J = loop D_1/kappa_1 forward[0] D_2/kappa_2 ... forward[L-2] D_L/kappa_L       (n_L, n_L)

is dT/dy for a row vector y. With constant masks T is affine, so that one Newton step is exact.
"""

from __future__ import annotations

import numpy as np

from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, rows_of
from fsp_dynamics.solvers.equilibrium import Status, Tolerance, judge
from fsp_dynamics.solvers.passes import CutPasses
from fsp_dynamics.solvers.response import gains, loop_matrix


def newton(
    network: Network, drive: Array, start: State, nudge: Nudge | None, tolerance: Tolerance, max_steps: int = 50
) -> tuple[State, Array]:
    """Newton's method on T(y) - y = 0 with halved steps where the residual would rise -> (state,
    passes (B,)).

    Returns for each sample the state with the smallest residual, converged or not.
    """
    best = tuple(np.array(s) for s in start)
    best_size, steps = np.full(len(drive), np.inf), np.zeros(len(drive), np.int64)
    passes = CutPasses(network, drive, start, nudge)
    scale = np.ones(len(drive))
    base, direction = passes.y.copy(), np.zeros_like(passes.y)
    for _ in range(max_steps):
        rows = passes.rows
        if rows.size == 0:
            break
        target, size, norm = passes.run()
        steps[rows] += 1
        state = passes.state()
        better = size < best_size[rows]
        for kept, present in zip(best, state, strict=True):
            kept[rows[better]] = present[better]
        best_size[rows[better]] = size[better]
        scale[rows] = np.where(better, 1.0, scale[rows] / 2)
        base[rows[better]] = passes.y[better]
        if better.any():
            jacobian = loop_jacobian(
                network,
                tuple(s[better] for s in state),
                rows_of(nudge, rows[better]),
                drive[rows[better]],
            )
            direction[rows[better]] = _solve(jacobian, target[better] - passes.y[better])
        running = (judge(size, norm, tolerance) == Status.OUT_OF_STEPS) & (scale[rows] > 1e-3)
        passes.keep(running)
        rows = rows[running]
        passes.y[:] = np.clip(base[rows] + scale[rows, None] * direction[rows], 0, 1)
    return best, steps


def loop_jacobian(network: Network, state: State, nudge: Nudge | None, drive: Array) -> Array:
    """J = dT/dy at these states (B, n_L, n_L), float64, with the masks of the units whose input
    holds them strictly inside (0, 1).
    """
    return loop_matrix(network, gains(network, state, nudge, drive))


def _solve(jacobian: Array, f: Array) -> Array:
    """(I - J)^-1 f for row vectors; the plain pass f where I - J is singular."""
    step = np.empty_like(f)
    for i, (j, right) in enumerate(zip(jacobian, f, strict=True)):
        try:
            step[i] = np.linalg.solve(np.eye(len(j)) - j.T, right)
        except np.linalg.LinAlgError:
            step[i] = right
    return step
