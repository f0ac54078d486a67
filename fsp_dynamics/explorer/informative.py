"""Which images tell something about a network: those it gets wrong, or right by a small margin.

An image that is classified exactly (rate 1 for its class, 0 for the others) has reached its target:
the nudge vanishes, nothing moves, and there is no update.
"""

from __future__ import annotations

import math

import numpy as np

from fsp_dynamics.explorer.controls import Parameters
from fsp_dynamics.explorer.session import Session
from fsp_dynamics.explorer.trial import shown_images
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array

SMALL = 0.5  # margin up to which an image is informative
FIRST, MOST = 32, 256  # images that are judged together: so many at first, then more and more
REACH = 2000  # images that are judged at most


def informative(session: Session, parameters: Parameters, begin: int) -> int:
    """`sample` of the first informative image of class `label`, from `begin` on and then from the
    front: its margin is at most SMALL, or not a number. If there is none among REACH images, the
    one of them with the smallest margin.
    """
    rows = session.rows(parameters.label)
    order = np.roll(np.arange(len(rows)), -begin)[:REACH]
    seen: list[Array] = []
    done, size = 0, FIRST
    while done < len(order):
        found = margins(session, parameters, rows[order[done : done + size]])
        informing = np.flatnonzero(~(found > SMALL))
        if informing.size:
            return int(order[done + informing[0]])
        seen.append(found)
        done, size = done + size, min(2 * size, MOST)
    return int(order[np.concatenate(seen).argmin()])


def margins(session: Session, parameters: Parameters, rows: Array) -> Array:
    """(B,) the margin of each of these test images after the free phase, from the silent state: the
    rate of its class minus the highest other rate; NaN where that is not finite.

    Found by steps of half the shortest time constant in NumPy, which suffices to choose images.
    """
    network = session.network(parameters)
    images, labels = shown_images(session, parameters, rows).astype(network.dtype), session.data.test.labels[rows]
    drive, state = rate.drive(network, images), rate.zero_state(network, len(rows))
    step = min(network.time_constants) / 2
    with np.errstate(over="ignore", invalid="ignore"):  # a loop may diverge
        for _ in range(math.ceil(parameters.free / step)):
            state = tuple(s + step * f for s, f in zip(state, rate.rate_field(network, drive, state), strict=True))
        rates = network.rho.rate(state[-1])
        own = np.arange(session.classes) == labels[:, None]
        return np.asarray(rates[own] - np.where(own, -np.inf, rates).max(1))
