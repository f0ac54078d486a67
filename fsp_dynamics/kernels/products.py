"""Matrix products that accumulate in place, by SciPy's BLAS: NumPy's matmul cannot add to its
output.

Meant for updates of weights, where a temporary would have their size. The products of a pass use
`numpy.matmul`: they are small, and NumPy's OpenBLAS was measured at about half the time of SciPy's
on (20 x 500)(500 x 500).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas

Array = npt.NDArray[Any]

_GEMM = {np.dtype(np.float32): blas.sgemm, np.dtype(np.float64): blas.dgemm}


def add_product(out: Array, a: Array, b: Array, alpha: float = 1.0, beta: float = 1.0) -> None:
    """out <- beta out + alpha a @ b, without temporaries.

    out (m, n) in C order; a (m, k) and b (k, n) in C order or transposed views of such arrays
    (others are copied), all of one dtype, float32 or float64.
    """
    if out.size == 0:
        return
    assert out.flags.c_contiguous, "BLAS would change a copy instead of `out`"
    left, transpose_left = _fortran(b.T)  # in BLAS columns come first: out.T = b.T @ a.T
    right, transpose_right = _fortran(a.T)
    _GEMM[out.dtype](
        alpha, left, right, beta=beta, c=out.T, trans_a=transpose_left, trans_b=transpose_right, overwrite_c=True
    )


def _fortran(matrix: Array) -> tuple[Array, bool]:
    """The matrix as a Fortran-ordered array and whether BLAS must transpose it."""
    if matrix.flags.f_contiguous:
        return matrix, False
    return (matrix.T if matrix.flags.c_contiguous else np.ascontiguousarray(matrix).T), True
