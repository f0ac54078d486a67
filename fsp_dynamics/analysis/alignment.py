"""The angle between each matrix of the loop and the product of the others (figure 3).

In the paper's names W1 = forward[0], W2 = forward[1], ..., and the loop closes the ring; the input matrix is not part of it. For
each W the others are multiplied in loop order, from the layer W leads to back to the layer it comes from, which gives the shape
of W.T: for two hidden layers loop @ W1 belongs to W2. All of them share one inner product,

    <W, (product of the others).T> = tr(loop @ W1 @ W2 ...)                                               `Alignment.trace`

so all angles are below 90 degrees exactly if that trace is positive.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.network import Array, Network


@dataclass(frozen=True, slots=True)
class Alignment:
    """degrees : {"W1", "W2", ..., "loop": angle in [0, 180]}; NaN where a matrix or a product is zero. trace : tr(loop W1 W2 ...)."""

    degrees: dict[str, float]
    trace: float


def angle(u: Array, v: Array) -> float:
    """The angle between two arrays of one shape, in degrees: 2 atan2(||u' - v'||, ||u' + v'||), u', v' scaled to norm 1.

    Exact where arccos is not: 0 for identical arrays, 180 for opposite ones. NaN if either is zero (no direction).
    """
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    size_u, size_v = np.linalg.norm(u), np.linalg.norm(v)
    if size_u == 0 or size_v == 0:
        return float("nan")
    u, v = u / size_u, v / size_v
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))))


def loop_alignment(network: Network) -> Alignment:
    """The angle of every matrix of the loop to the transposed product of the others, in float64.

    Only products with n_L columns or rows are formed: the ring is cut at the output, where it is thin. Raises ConfigurationError
    for a network without a loop; warns and gives NaN for zero matrices, whose angle is undefined.
    """
    if network.loop is None:
        raise ConfigurationError("loop_alignment: the network has no loop (loop = None); give one made by loop_network")
    ring = [network.loop.astype(np.float64), *(w.astype(np.float64) for w in network.forward)]
    names = ["loop", *(f"W{k + 1}" for k in range(len(network.forward)))]
    before = [np.eye(network.sizes[-1])]  # before[k] = ring[0] @ ... @ ring[k-1], (n_L, n_k)
    for w in ring[:-1]:
        before.append(before[-1] @ w)
    after = [np.eye(network.sizes[-1])]  # after[0] = the identity; each further one has one more matrix on its left, (n_k, n_L)
    for w in ring[:0:-1]:
        after.append(w @ after[-1])
    degrees = {name: angle(w, (end @ start).T) for name, w, start, end in zip(names, ring, before, after[::-1], strict=True)}
    if any(np.isnan(value) for value in degrees.values()):
        warnings.warn("loop_alignment: a matrix of the loop is zero, its angles are undefined (NaN)", RuntimeWarning, stacklevel=2)
    ordered = {name: degrees[name] for name in [*names[1:], "loop"]}
    return Alignment(ordered, float(np.trace(before[-1] @ ring[-1])))
