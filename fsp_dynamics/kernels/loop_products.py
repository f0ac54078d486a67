"""Products of all rows with a matrix in panels, to be called from Python: for probes of a loop
between two batches.
"""

from __future__ import annotations

from fsp_dynamics.kernels.field import Array, entry
from fsp_dynamics.kernels.panels import multiply, multiply_transposed


@entry
def times(a: Array, rows: Array, w: Array, c: Array) -> None:
    """c <- a @ w in these rows (all of them); shapes as in `panels.multiply`."""
    multiply(a, rows, w, c, rows, 0, w.shape[0], False)


@entry
def times_transposed(a: Array, rows: Array, w: Array, c: Array) -> None:
    """c <- a @ w.T in these rows (all of them); shapes as in `panels.multiply_transposed`."""
    multiply_transposed(a, rows, w, c, rows, 0, w.shape[1], False)
