"""When each phase settles, and how much longer one would need that does not."""

from __future__ import annotations

import math

import numpy as np

from fsp_dynamics.explorer.trial import SETTLED
from fsp_dynamics.learning.simulation import Trajectory


def settle_times(path: Trajectory) -> list[float | None]:
    """For each phase the time after which its residual stays below SETTLED; None if it does not."""
    times: list[float | None] = []
    for piece, begin in enumerate(path.borders[:-1]):
        rows = np.flatnonzero(path.phase == piece)
        moving = np.flatnonzero(~(path.residual[rows, 0] <= SETTLED))  # NaN counts as moving
        if not moving.size:
            times.append(0.0)
        else:
            times.append(float(path.times[rows[moving[-1] + 1]] - begin) if moving[-1] + 1 < len(rows) else None)
    return times


def missing_times(
    path: Trajectory, abscissas: list[float | None], step: float, limit: float | None
) -> list[float | None]:
    """For each phase about how much longer it would need to settle: ln(residual / SETTLED) /
    -abscissa, as the slowest mode decays. None where it has settled, and where it never does: the
    slowest mode does not decay (its abscissa is None without an equilibrium), or the step is above
    the stability limit.
    """
    found: list[float | None] = []
    for piece, (settled, abscissa) in enumerate(zip(settle_times(path), abscissas, strict=False)):
        residual = float(path.residual[np.flatnonzero(path.phase == piece)[-1], 0])
        never = abscissa is None or abscissa >= 0 or (limit is not None and step > limit)
        if settled is not None or abscissa is None or never or not math.isfinite(residual):
            found.append(None)
        else:
            found.append(math.log(residual / SETTLED) / -abscissa)
    return found
