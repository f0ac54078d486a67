"""Products with weights in panels: against NumPy's to rounding, and where the compiler is on,
against chains of fused multiply-adds to the bit.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from fractions import Fraction

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsp_dynamics.kernels import panels
from fsp_dynamics.kernels.panels import (
    add_outer,
    aligned,
    from_panels,
    multiply,
    multiply_transposed,
    padded,
    to_panels,
)
from fsp_dynamics.kernels.registers import register_bytes, target_features
from fsp_dynamics.kernels.tiles import ROWS, columns

compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="bits are promised by the compiled tiles only")
DTYPES = st.sampled_from([np.float32, np.float64])
SEEDS = st.integers(0, 2**32 - 1)


class Problem:
    """A matrix (K, N), rates on both of its sides, and lists of rows with gaps and in no order;
    rows may repeat where they are read.
    """

    def __init__(self, seed, dtype, k, n, m):
        rng = np.random.default_rng(seed)
        self.k, self.n, self.m, self.dtype = k, n, m, dtype
        self.matrix = rng.normal(size=(k, n)).astype(dtype)
        self.w, self.wide = to_panels(self.matrix), padded(n, dtype)
        self.before, self.after = rng.normal(size=(m + 3, k + 2)).astype(dtype), np.zeros((m + 2, self.wide), dtype)
        self.after[:, :n] = rng.normal(size=(m + 2, n))
        self.read, self.written = rng.integers(0, m + 2, m), rng.permutation(m + 2)[:m]
        self.scale = dtype(rng.normal())

    def products(self, keep=False, cuts=None, pieces=None):
        """The three results of the kernels: rows, then columns or panels, partitioned at the given
        places.
        """
        forward, backward, weights = (
            np.full((self.m + 2, self.wide), 2, self.dtype),
            np.full((self.m + 2, self.k + 1), 2, self.dtype),
            self.w.copy(),
        )
        rows = [0, self.m] if pieces is None else pieces
        for first, last in itertools.pairwise(rows):
            read, written = self.read[first:last], self.written[first:last]
            for begin, end in ranges(len(self.w), cuts):
                multiply(self.before, read, self.w, forward, written, begin, end, keep)
            for begin, end in ranges(self.k, cuts):
                multiply_transposed(self.after, read, self.w, backward, written, begin, end, keep)
        for begin, end in ranges(len(self.w) * self.k, cuts):
            add_outer(self.before, self.read, self.after, self.read, self.scale, weights, begin, end)
        return forward, backward, weights


def ranges(count, cuts):
    return itertools.pairwise([0, *(sorted(int(cut * count) for cut in cuts or ())), count])


MANY = Problem(
    0, np.float32, 9, columns(np.float32) * (panels.TURNED_PANELS + 2) + 1, panels.TURNED_CHUNK + 7
)  # more than a block, than a chunk
problems = st.builds(Problem, SEEDS, DTYPES, st.integers(0, 40), st.integers(0, 70), st.integers(0, 14))


@settings(deadline=None)
@given(problem=problems, keep=st.booleans())
@example(problem=MANY, keep=False)
def test_they_are_the_textbook_products(problem, keep):
    """For any widths, row lists and start; rows that are not named keep their values."""
    forward, backward, weights = problem.products(keep)
    wanted = [np.full_like(forward, 2), np.full_like(backward, 2)]
    a, b = problem.before[problem.read, : problem.k], problem.after[problem.read, : problem.n]
    wanted[0][problem.written] = 2.0 * keep
    wanted[0][problem.written, : problem.n] += a @ problem.matrix
    wanted[1][problem.written, : problem.k] = 2.0 * keep + b @ problem.matrix.T
    near = {"rtol": 1e-4, "atol": 1e-4} if problem.dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(forward, wanted[0], **near)
    np.testing.assert_allclose(backward, wanted[1], **near)
    changed = np.empty_like(problem.matrix)
    from_panels(weights, changed)
    np.testing.assert_allclose(changed, problem.matrix + problem.scale * (a.T @ b), **near)
    assert not weights.transpose(1, 0, 2).reshape(problem.k, problem.wide)[:, problem.n :].any(), (
        "columns beyond N stay zero"
    )


@compiled
@settings(deadline=None)
@given(problem=problems, keep=st.booleans(), cuts=st.lists(st.floats(0, 1), max_size=4), data=st.data())
def test_no_bit_depends_on_how_the_work_is_partitioned(problem, keep, cuts, data):
    pieces = sorted(data.draw(st.lists(st.integers(0, problem.m), max_size=3)))
    whole = problem.products(keep)
    for one, other in zip(whole, problem.products(keep, cuts, [0, *pieces, problem.m]), strict=True):
        np.testing.assert_array_equal(one, other)


@compiled
def test_many_rows_and_panels_have_the_bits_of_one_row_at_a_time():
    for one, other in zip(MANY.products(), MANY.products(pieces=range(MANY.m + 1)), strict=True):
        np.testing.assert_array_equal(one, other)


def fused(x, y, total, dtype):
    """x y + total, rounded once."""
    return nearest(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(total)), dtype)


def nearest(exact, dtype):
    """The float nearest to a fraction; of two, the even one."""
    guess = dtype(float(exact))
    around = [np.nextafter(guess, dtype(-np.inf)), guess, np.nextafter(guess, dtype(np.inf))]
    return min(
        around, key=lambda value: (abs(Fraction(float(value)) - exact), int(value.view(f"u{value.itemsize}")) & 1)
    )


@compiled
def test_an_element_is_one_chain_of_fused_multiply_adds(dtype):
    """In the order of k in the product, of the rows in the outer product; each rate of the latter
    times the scale first.
    """
    problem = Problem(1, dtype, 11, 19, ROWS + 2)
    forward, _, weights = problem.products(keep=True)
    i, n, k = 4, 17, 6
    total = dtype(2)
    for step in range(problem.k):
        total = fused(problem.before[problem.read[i], step], problem.matrix[step, n], total, dtype)
    assert forward[problem.written[i], n] == total
    total = problem.matrix[k, n]
    for row in problem.read:
        total = fused(problem.before[row, k], problem.scale * problem.after[row, n], total, dtype)
    assert weights[n // columns(dtype), k, n % columns(dtype)] == total


@compiled
def test_an_element_of_the_transposed_product_is_a_chain_for_each_lane_added_in_pairs(dtype):
    lanes = columns(dtype) // 2
    problem = Problem(2, dtype, 7, 6 * lanes - 1, 5)
    _, backward, _ = problem.products()
    i, k = 3, 5
    sums = [dtype(0)] * lanes
    for n in range(problem.n):
        sums[n % lanes] = fused(problem.after[problem.read[i], n], problem.matrix[k, n], sums[n % lanes], dtype)
    while len(sums) > 1:
        sums = [sums[j] + sums[j + 1] for j in range(0, len(sums), 2)]
    assert backward[problem.written[i], k] == sums[0]


def test_a_range_touches_nothing_else(dtype):
    problem = Problem(3, dtype, 10, 5 * columns(dtype), 4)
    wide, rows = columns(dtype), np.arange(4)
    out = np.full((4, problem.wide), np.nan, dtype)
    multiply(problem.before, rows, problem.w, out, rows, 1, 4, False)
    assert np.isfinite(out[:, wide : 4 * wide]).all()
    assert np.isnan(np.delete(out, np.s_[wide : 4 * wide], 1)).all()
    out = np.full((4, 10), np.nan, dtype)
    multiply_transposed(problem.after, rows, problem.w, out, rows, 3, 8, False)
    assert np.isfinite(out[:, 3:8]).all()
    assert np.isnan(np.delete(out, np.s_[3:8], 1)).all()
    before, flat = problem.w.copy(), problem.w.reshape(-1, wide)
    add_outer(problem.before, rows, problem.after, rows, 1.0, problem.w, 7, 23)
    changed = (flat != before.reshape(-1, wide)).any(1)
    assert changed[7:23].all()
    assert not np.delete(changed, np.s_[7:23]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@np.errstate(invalid="ignore")  # NumPy's twins warn
def test_what_is_not_finite_passes_through(dtype, bad):
    problem = Problem(4, dtype, 9, 2 * columns(dtype), 3)
    rows = np.arange(3)
    problem.before[1, 4] = bad
    out = np.zeros((3, problem.wide), dtype)
    multiply(problem.before, rows, problem.w, out, rows, 0, 2, False)
    assert (~np.isfinite(out)).all(1).tolist() == [False, True, False]
    assert np.isfinite(out[[0, 2]]).all()
    problem.after[2, 5] = bad
    back = np.zeros((3, 9), dtype)
    multiply_transposed(problem.after, rows, problem.w, back, rows, 0, 9, False)
    assert (~np.isfinite(back)).all(1).tolist() == [False, False, True]
    add_outer(problem.before, rows, problem.after, rows, 1.0, problem.w, 0, 18)
    changed = np.empty_like(problem.matrix)
    from_panels(problem.w, changed)
    # row 4 and column 5
    assert (~np.isfinite(changed)).nonzero()[0].size == 2 * columns(dtype) + 9 - 1


def test_nothing_to_add_up_is_zero_and_no_rows_are_nothing_to_do(dtype):
    rows, none = np.arange(2), np.arange(0)
    out = np.full((2, columns(dtype)), 3, dtype)
    multiply(np.zeros((2, 0), dtype), rows, to_panels(np.zeros((0, 5), dtype)), out, rows, 0, 1, False)
    assert not out.any()
    out = np.full((2, 5), 3, dtype)
    multiply_transposed(np.zeros((2, 0), dtype), rows, to_panels(np.zeros((5, 0), dtype)), out, rows, 0, 5, False)
    assert not out.any()
    problem = Problem(5, dtype, 4, 5, 2)
    before = problem.w.copy()
    multiply(problem.before, none, problem.w, out, none, 0, 1, False)
    multiply_transposed(problem.after, none, problem.w, out, none, 0, 4, False)
    add_outer(problem.before, none, problem.after, none, 1.0, problem.w, 0, 4)
    assert not out.any()
    assert (problem.w == before).all()


@given(dtype=DTYPES, k=st.integers(0, 5), n=st.integers(0, 40))
def test_panels_and_back(dtype, k, n):
    matrix = np.random.default_rng(0).normal(size=(k, n)).astype(dtype)
    w, back = to_panels(matrix), np.full_like(matrix, np.nan)
    assert w.shape == (padded(n, dtype) // columns(dtype), k, columns(dtype))
    assert w.ctypes.data % 64 == 0 or w.size == 0
    from_panels(w, back)
    np.testing.assert_array_equal(matrix, back)


def test_aligned_arrays_begin_a_cache_line(dtype):
    for shape in ((), (3,), (5, 7), (2, 3, 16)):
        array = aligned(shape, dtype)
        assert array.shape == shape
        assert array.dtype == dtype
        assert not array.any()
        assert array.ctypes.data % 64 == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [1, 4, 5, 7, 13])
def test_products_that_leave_out_zeros_have_the_bits_of_those_that_do_not(m, dtype) -> None:
    """Rows of which most entries are 0, one tile that is full (its list would cost more than it
    saves), an update of a part that cuts panels.
    """
    rng = np.random.default_rng(m)
    a = ((rng.random((20, 50)) < 0.2) * rng.normal(size=(20, 50))).astype(dtype)
    a[:2] = rng.normal(size=(2, 50))
    rows, into = rng.permutation(20)[:m], np.arange(m)
    w = panels.to_panels(rng.normal(size=(50, 37)).astype(dtype))
    wide = w.shape[0] * w.shape[2]
    whole, part = np.zeros((m, wide), dtype), np.zeros((m, wide), dtype)
    used, counts = np.zeros((m, 50), np.int64), np.zeros(m, np.int64)
    panels.find_used(a, rows, 50, panels.USED_ROWS, used, counts)
    for t, tile in enumerate(tiles_of(rows, panels.USED_ROWS)):
        expected = np.flatnonzero(a[tile].any(0))
        assert counts[t] == (panels.ALL if len(expected) >= panels.DENSE * 50 else len(expected))
        if counts[t] != panels.ALL:
            assert used[t, : counts[t]].tolist() == expected.tolist()
    panels.multiply(a, rows, w, whole, into, 0, len(w), False)
    panels.multiply_used(a, rows, w, part, into, 0, len(w), used, counts)
    np.testing.assert_allclose(part, whole, rtol=0, atol=1e-5 if numba.config.DISABLE_JIT else 0)
    change = rng.normal(size=(m, wide)).astype(dtype)
    one, other = w.copy(), w.copy()
    panels.find_used(a, rows, 50, panels.OUTER_ROWS, used, counts)
    panels.add_outer(a, rows, change, into, 0.3, one, 7, 91)
    panels.add_outer_used(a, rows, change, into, 0.3, other, 7, 91, used, counts)
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 if numba.config.DISABLE_JIT else 0)
    assert (one != w).any()


def tiles_of(rows, most):
    """The rows in as few tiles of at most so many as there can be, as equal as can be, the larger
    first.
    """
    return np.array_split(rows, -(-len(rows) // most))


PRODUCTS = """
import hashlib
import numpy as np
from test_panels import Problem, panels
from fsp_dynamics.kernels.registers import REGISTER_BYTES

found = hashlib.sha256()
for dtype in (np.float32, np.float64):
    for k, n, m in ((37, 100, 1), (40, 31, 11), (25, 16, 12), (64, 97, 29), (9, 50, 100)):
        problem = Problem(k, dtype, k, n, m)
        for array in problem.products(keep=True, cuts=[0.37]):
            found.update(array.tobytes())
        sparse = np.where(np.random.default_rng(n).random(problem.before.shape) < 0.2, problem.before, 0).astype(dtype)
        used, counts = np.zeros((m, k), np.int64), np.zeros(m, np.int64)
        out, weights = np.zeros((m, problem.wide), dtype), problem.w.copy()
        panels.find_used(sparse, problem.read, k, panels.USED_ROWS, used, counts)
        panels.multiply_used(sparse, problem.read, weights, out, np.arange(m), 0, len(weights), used, counts)
        panels.find_used(sparse, problem.read, k, panels.OUTER_ROWS, used, counts)
        end = len(weights) * k
        panels.add_outer_used(
            sparse, problem.read, problem.after, problem.read, 0.3, weights, 3, end, used, counts
        )
        found.update(out.tobytes() + weights.tobytes())
print(REGISTER_BYTES, found.hexdigest())
"""


@compiled
@pytest.mark.cli
@pytest.mark.skipif(register_bytes(target_features()) == 32, reason="this processor has registers of one width only")
def test_registers_of_32_bytes_have_the_bits_of_those_of_64(tmp_path):
    """One cache of compiled kernels for both: none is taken for the other."""
    narrow = target_features().replace("+avx512", "-avx512")
    answers = []
    for features in ({}, {"NUMBA_CPU_FEATURES": narrow}, {}):
        place = {
            "NUMBA_CACHE_DIR": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
        }
        done = subprocess.run(
            [sys.executable, "-c", PRODUCTS],
            env=os.environ | place | features,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout.split())
    assert [width for width, _ in answers] == ["64", "32", "64"]
    assert len({bits for _, bits in answers}) == 1
