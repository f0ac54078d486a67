"""Numbers found by their place: those of splitmix64, and as random as they claim to be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fsp_dynamics.kernels import counter_stream as kernels
from fsp_dynamics.kernels.field import jit

# The kernels themselves have no way in from Python; these have one.
value = jit(lambda key, k: kernels.value(key, k))
normal = jit(lambda drawn: kernels.normal(drawn))
MASK = (1 << 64) - 1


@jit
def normals(key, out):
    for k in range(out.size):
        out[k] = kernels.normal(kernels.value(key, k))


@jit
def uniforms(key, out):
    for k in range(out.size):
        out[k] = kernels.uniform(kernels.value(key, k))


@jit
def wholes(key, count, out):
    for k in range(out.size):
        out[k] = kernels.whole(kernels.value(key, k), count)


@pytest.fixture(autouse=True)
def modulo():
    """As plain Python, NumPy tells of every product modulo 2^64."""
    with np.errstate(over="ignore"):
        yield


def splitmix64(state):
    """Its numbers, one after the other, in Python's whole numbers."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


@pytest.mark.parametrize("seed", [0, 1234567, MASK])
def test_the_values_are_those_of_splitmix64_at_any_place(seed) -> None:
    expected = [each for _, each in zip(range(200), splitmix64(seed), strict=False)]
    assert [int(value(np.uint64(seed), k)) for k in reversed(range(200))] == expected[::-1]
    assert seed != 1234567 or expected[:2] == [6457827717110365317, 3203168211198807973], "as published"


def test_normal_numbers_are_normal() -> None:
    """Mean, deviation, kurtosis and the whole distribution of 20,000; the tail of the ziggurat
    (3.44, one in 1,700) on both sides.
    """
    out = np.empty(20_000)
    normals(np.uint64(7), out)
    assert abs(out.mean()) < 4 / np.sqrt(out.size)
    assert out.std() == pytest.approx(1, abs=4 / np.sqrt(2 * out.size))
    assert stats.kurtosis(out) == pytest.approx(0, abs=4 * np.sqrt(24 / out.size))
    assert stats.kstest(out, "norm").pvalue > 1e-3
    assert np.corrcoef(out[1:], out[:-1])[0, 1] == pytest.approx(0, abs=4 / np.sqrt(out.size))
    assert out.min() < -kernels.TAIL
    assert out.max() > kernels.TAIL
    beyond = np.abs(out[np.abs(out) > kernels.TAIL])
    assert len(beyond) == pytest.approx(2 * stats.norm.sf(kernels.TAIL) * out.size, abs=4 * np.sqrt(12))


def test_uniform_and_whole_numbers_are_as_likely_everywhere() -> None:
    out, chosen = np.empty(20_000), np.empty(20_000, np.int64)
    uniforms(np.uint64(8), out)
    wholes(np.uint64(9), 7, chosen)
    assert 0 <= out.min() < 1e-3
    assert 1 - 1e-3 < out.max() < 1
    assert stats.kstest(out, "uniform").pvalue > 1e-3
    assert stats.chisquare(np.bincount(chosen, minlength=7)).pvalue > 1e-3
    assert set(chosen) == set(range(7))
