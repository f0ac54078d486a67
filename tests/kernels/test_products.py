"""Products that accumulate in place, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsp_dynamics.kernels.products import add_product

SIZES = st.integers(1, 6)


@given(
    m=SIZES,
    k=SIZES,
    n=SIZES,
    flip=st.tuples(st.booleans(), st.booleans()),
    wide=st.booleans(),
    alpha=st.floats(-2, 2),
    beta=st.sampled_from([0.0, 1.0, -0.5]),
)
def test_it_is_the_textbook_product(m, k, n, flip, wide, alpha, beta) -> None:
    """out <- beta out + alpha a @ b for C-ordered arrays, transposed views and strided columns
    alike.
    """
    rng = np.random.default_rng(m + 10 * k + 100 * n)
    a = rng.normal(size=(k, m)).T if flip[0] else rng.normal(size=(m, k))
    b = rng.normal(size=(n, k)).T if flip[1] else rng.normal(size=(k, n))
    if wide:
        a = np.hstack([a, a])[:, :k]  # rows that lie apart
    out = rng.normal(size=(m, n))
    wanted = beta * out + alpha * (a @ b)
    add_product(out, a, b, alpha, beta)
    np.testing.assert_allclose(out, wanted, rtol=1e-13, atol=1e-13)


def test_nothing_is_copied_aside(dtype) -> None:
    """The array that was given is the one that changes, the operands are not; a beta of 0 does not
    read what stood there.
    """
    a, b, out = np.ones((2, 3), dtype), np.ones((3, 4), dtype), np.full((2, 4), np.nan, dtype)
    add_product(out, a, b, beta=0.0)
    assert (out == 3).all()
    assert (a == 1).all()
    assert (b == 1).all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_an_empty_batch_is_nothing_to_do(shape) -> None:
    out = np.zeros(shape)
    add_product(out, np.zeros((shape[0], 5)), np.zeros((5, shape[1])))
    assert out.shape == shape
