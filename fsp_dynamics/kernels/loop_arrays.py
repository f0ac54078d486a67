"""The arrays of a loop with a hard sigmoid that kernels work on, and how layers and matrices lie in
them.

L layers; N_k is the size of layer k padded to whole panels (kernels/panels.py); rows are the
samples of a batch.
"""

from __future__ import annotations

from typing import NamedTuple

from fsp_dynamics.kernels.field import Array, bare, view
from fsp_dynamics.kernels.views import view_of

Y, U, BASE_Y, BASE_U = 0, 1, 2, 3  # of LoopBuffers.outputs
RESIDUAL, BEST, DAMPING = 0, 1, 2  # of LoopBuffers.progress
PASSES, STATUS, DOUBTS = 0, 1, 2  # of LoopBuffers.statistics
ACTIVE, CHOSEN, IMAGES, ALL_ROWS = 0, 1, 2, 3  # of LoopScratch.lists


class LoopNet(NamedTuple):
    """The weights of a loop.

    weights : every forward matrix, the input first, in panels and laid end to end. shapes (L, 3) :
        of row k, the matrix into layer k: where it begins in `weights`, K and P.
    loop (n_L, N_1). biases : of all layers, padded and laid end to end. leaks (L,) : 1 / r.
    """

    weights: Array
    shapes: Array
    loop: Array
    biases: Array
    leaks: Array


class LoopBuffers(NamedTuple):
    """What is computed of a batch; the first axis of each array is the phase.

    states (., sum_k rows N_k) : the hidden layers, one after the other.
    outputs (., 4, rows, N_L) : outputs under trial Y and what enters them there U, and the same of
        the best so far, BASE_Y and BASE_U.
    slopes (., rows, n_L, N_L) : each sample's model S of du/dy.
    progress (., 3, rows) : RESIDUAL of the last pass, BEST residual so far, DAMPING: the fraction
        of a step that is taken.
    statistics (., 3, rows) : PASSES, STATUS, and DOUBTS: how often the residual rose, and once
        more where the outputs may amplify their own changes.
    """

    states: Array
    outputs: Array
    slopes: Array
    progress: Array
    statistics: Array


class LoopScratch(NamedTuple):
    """Inputs of a batch, and arrays for intermediate results; from `lists` on each thread has its
    own along the first axis.

    drive (rows, N_1). targets (rows, N_L). norms (rows, L) : ||rho||^2 of each free layer.
    mean_rates (N_L-1,) : batch mean of the free rates below the output.
    lists (., 4, rows) : sample numbers ACTIVE and CHOSEN, the places of IMAGES, and ALL_ROWS: 0,
        1, ...
    output_pairs (., 2, N_L). hidden (., N_1). matrices (., 2, n_L, n_L).
    learning_rates (., 3, .) : as kernels/loop_learning.py has them.
    pixels, pixel_counts : of `kernels.panels.find_used` for the images. layer_pairs (., 2, widest).
    """

    drive: Array
    targets: Array
    norms: Array
    mean_rates: Array
    lists: Array
    output_pairs: Array
    hidden: Array
    learning_rates: Array
    matrices: Array
    pixels: Array
    pixel_counts: Array
    layer_pairs: Array


@view
def matrix(weights: Array, shapes: Array, k: int) -> Array:
    """The matrix into layer k, in panels (P, K, COLUMNS), a view."""
    at, steps, panels = shapes[k, 0], shapes[k, 1], shapes[k, 2]
    wide = 64 // weights.itemsize
    return view_of(weights, at, (panels, steps, wide))


@bare
def first_unit(shapes: Array, k: int, wide: int) -> int:
    """Where layer k begins when the padded layers of one sample are laid end to end."""
    at = 0
    for j in range(k):
        at += shapes[j, 2] * wide
    return at


@view
def layer(states: Array, shapes: Array, k: int, rows: int) -> Array:
    """The states of hidden layer k (rows, N_k) of one phase, a view."""
    wide = 64 // states.itemsize
    at, n = rows * first_unit(shapes, k, wide), shapes[k, 2] * wide
    return view_of(states, at, (rows, n))
