"""Whether a sample that does not converge oscillates, and with what period."""

from __future__ import annotations

import numpy as np

from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, layers, rows_of
from fsp_dynamics.solvers.equilibrium import Integrator

# A ring of many units has a period of twice the sum of their time constants. The window has room
# for several such periods, then for slower ones.
WINDOWS = ((16, 512), (256, 2048))  # (length in sums of the time constants, times looked at)
ALIKE = 0.02  # of the amplitude: how well one period repeats another
# A fast path is sampled too coarsely there to repeat itself but after several of its periods. So it
# is sampled finely: over so many times a part of what was found, then larger parts.
FINE, PARTS = (4.5, 8192), (1 / 64, 1 / 8, 1)
NUMBERS = 2**24  # of the paths that are held at once


def periods(
    integrator: Integrator, network: Network, drive: Array, state: State, nudge: Nudge | None, least: Array
) -> Array:
    """(B,) the period in which the dynamics from these states repeat themselves; NaN where they do
    not, or where their amplitude, the largest distance within a period, is not above `least` (B,).

    The path is followed over a window, and over a longer one where nothing was found. The period is
    that after which the last states have been reached before, to ALIKE of the amplitude, and the
    amplitude must be the same at both ends of the window: a decaying spiral does not oscillate.
    """
    found, rows = np.full(len(drive), np.nan), np.arange(len(drive))
    last = np.empty((len(drive), sum(network.sizes[1:])), network.dtype)
    for length, count in WINDOWS:
        times = np.linspace(0, length * sum(network.time_constants), count)
        together = max(1, NUMBERS // (count * sum(network.sizes[1:])))
        for some in np.array_split(rows, -(-len(rows) // together)) if rows.size else ():
            start = tuple(s[some] for s in state)
            path = integrator.follow(network, drive[some], start, rows_of(nudge, some), times)
            last[some], path = path[-1], path.astype(np.float64)
            found[some] = [recurrence(path[:, b], least[row]) * times[1] for b, row in enumerate(some)]
        rows = rows[np.isnan(found[rows])]
    for row in np.flatnonzero(np.isfinite(found))[:, None]:
        start, pull = layers(network, last[row]), rows_of(nudge, row)
        found[row] = _shortest(integrator, network, drive[row], start, pull, found[row[0]])
    return found


def _shortest(
    integrator: Integrator, network: Network, drive: Array, state: State, nudge: Nudge | None, period: float
) -> float:
    """The period of one sample, of which a multiple may have been found, from its last state."""
    length, count = FINE
    for part in PARTS:
        times = np.linspace(0, length * part * period, count)
        path = integrator.follow(network, drive, state, nudge, times).astype(np.float64)
        shorter = recurrence(path[:, 0], 0.0) * times[1]
        if shorter < 0.9 * period:
            return float(shorter)
    return period


def recurrence(path: Array, least: float) -> float:
    """The period of a path (T, N) in steps between its times, NaN without one (see `periods`)."""
    if not np.isfinite(path).all():
        return float("nan")
    away = np.linalg.norm(path - path[-1], axis=1)
    amplitude = away[len(path) // 2 :].max()
    if not amplitude > least:
        return float("nan")
    left = np.flatnonzero(away > amplitude / 2)
    inside = away[: left[-1] + 1]
    # the times, backwards, at which the path was closest to its end
    lowest = np.flatnonzero((inside[1:-1] <= inside[:-2]) & (inside[1:-1] < inside[2:]))[::-1] + 1
    for i in lowest[inside[lowest] < amplitude / 4]:
        lag = len(path) - 1 - _vertex(i, *inside[i - 1 : i + 2] ** 2)
        if _repeats(path, lag, amplitude):
            return lag
    return float("nan")


def _vertex(i: int, before: float, here: float, after: float) -> float:
    """Where the parabola through three neighbouring values is lowest."""
    return i + 0.5 * (before - after) / (before - 2 * here + after)


def _repeats(path: Array, lag: float, amplitude: float) -> bool:
    """Whether two periods of the path repeat those before them, and the first in the window is as
    large as the last.
    """
    whole = len(path) - 1
    if 4 * lag > whole:
        return False
    now = np.arange(int(whole - 2 * lag), whole + 1)
    before = (now - lag).astype(int)
    share = (now - lag - before)[:, None]
    earlier = (1 - share) * path[before] + share * path[before + 1]
    if np.linalg.norm(path[now] - earlier, axis=1).max() > ALIKE * amplitude:
        return False
    count = int(lag) + 1
    first, last = (part - part.mean(0) for part in (path[:count], path[-count:]))
    sizes = [np.sqrt((part * part).sum(1).mean()) for part in (first, last)]
    return bool(abs(sizes[0] - sizes[1]) <= ALIKE * sizes[1])
