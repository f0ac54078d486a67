"""Multiplications per sample, counted from the sizes of the matrices; no timing.

Biases, activations and operations on the n_L outputs alone are left out: they are of order n, the
matrices of order n^2. With layers n_0 (pixels), n_1 ... n_L (outputs):

    input    I = n_0 n_1
    forward  F = sum_k n_k n_k+1, k = 1 ... L - 1
    loop     C = n_L n_1

    ours     I + p_free (F + C) + share (p_nudged (F + C) + I + F + C)
             drive, passes of both phases, eq. 14 on the nudged samples
    Euler    the same with its steps as p_free and p_nudged
    backprop (I + F) + share (F + I + F)
             forward, errors back through all but the input, gradients
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

FLOPS = 2  # one multiplication and one addition


def parts(sizes: Sequence[int]) -> tuple[int, int, int]:
    """(I, F, C) of a network with these layers, n_0 ... n_L."""
    forward = sum(pre * post for pre, post in itertools.pairwise(sizes[1:]))
    return sizes[0] * sizes[1], forward, sizes[-1] * sizes[1]


def equilibrium(sizes: Sequence[int], passes_free: float, passes_nudged: float, share: float) -> float:
    """Multiplications to learn from one sample by two equilibria.

    passes_free per sample, passes_nudged per nudged sample, share : fraction of samples that are
    nudged and learned from.
    """
    into, forward, loop = parts(sizes)
    return into + passes_free * (forward + loop) + share * (passes_nudged * (forward + loop) + into + forward + loop)


def backprop(sizes: Sequence[int], share: float = 1.0) -> float:
    """Multiplications to learn from one sample by backpropagation; share : fraction of
    samples that are backpropagated.
    """
    into, forward, _ = parts(sizes)
    return into + forward + share * (into + 2 * forward)
