"""Angles of the loop: the trace identity and the invariances (model facts 12 and 13), and twins written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsp_dynamics.analysis.alignment import angle, loop_alignment
from fsp_dynamics.models.network import loop_network, reciprocal_network

DEPTHS = st.lists(st.integers(2, 7), min_size=3, max_size=6)
SEEDS = st.integers(0, 1000)


def ring_of(network):
    """[(name, matrix)] round the loop, from the output on."""
    return [("loop", network.loop), *((f"W{k + 1}", w) for k, w in enumerate(network.forward))]


@given(sizes=DEPTHS, seed=SEEDS)
def test_against_the_full_product_of_the_others(sizes, seed) -> None:
    """Each W against the transposed product of the others in loop order, multiplied out matrix by matrix, angle by arccos."""
    network = loop_network(sizes, dtype=np.float64, rng=seed)
    ring, found = ring_of(network), loop_alignment(network)
    assert set(found.degrees) == {name for name, _ in ring}
    for k, (name, w) in enumerate(ring):
        others = np.linalg.multi_dot([m for _, m in ring[k + 1 :] + ring[:k]]) if len(ring) > 2 else (ring[k + 1 :] + ring[:k])[0][1]
        cosine = np.vdot(w, others.T) / (np.linalg.norm(w) * np.linalg.norm(others))
        assert found.degrees[name] == pytest.approx(np.degrees(np.arccos(np.clip(cosine, -1, 1))), abs=1e-5)


@given(sizes=DEPTHS, seed=SEEDS)
def test_one_trace_decides_all_signs(sizes, seed) -> None:
    """Fact 12: ||W|| ||others|| cos(angle) is tr(loop W1 W2 ...) for every matrix of the loop."""
    network = loop_network(sizes, dtype=np.float64, rng=seed)
    ring, found = ring_of(network), loop_alignment(network)
    trace = np.trace(np.linalg.multi_dot([m for _, m in ring]) if len(ring) > 2 else ring[0][1] @ ring[1][1])
    assert found.trace == pytest.approx(trace, rel=1e-12, abs=1e-12)
    assert {value < 90 for value in found.degrees.values()} == {trace > 0}
    assert list(found.degrees)[-1] == "loop"


@given(seed=SEEDS, factor=st.floats(0.01, 100))
def test_what_changes_nothing(seed, factor) -> None:
    """Fact 13: scaling a matrix and permuting hidden units change no angle; a sign turns every angle t into 180 - t."""
    network = loop_network([5, 6, 7, 3], dtype=np.float64, rng=seed)
    before = loop_alignment(network).degrees
    order = np.random.default_rng(seed).permutation(7)
    permuted = network.with_parameters({"forward[0]": network.forward[0][:, order], "forward[1]": network.forward[1][order]})
    scaled = network.with_parameters({"forward[0]": factor * network.forward[0]})
    turned = loop_alignment(network.with_parameters({"loop": -network.loop})).degrees
    for name, value in before.items():
        assert loop_alignment(permuted).degrees[name] == pytest.approx(value, rel=1e-6)
        assert loop_alignment(scaled).degrees[name] == pytest.approx(value, rel=1e-6)
        assert turned[name] == pytest.approx(180 - value, rel=1e-6)


def test_identical_matrices_give_exactly_zero() -> None:
    u = np.random.default_rng(0).normal(size=(4, 3))
    assert angle(u, u) == 0
    assert angle(u, 2 * u) == 0
    assert angle(u, -u) == 180
    assert angle([[1.0, 0.0]], [[0.0, 1.0]]) == pytest.approx(90, rel=1e-15)


def test_small_angles_are_not_lost() -> None:
    """arccos would give 0 or NaN here: the cosine of 1e-9 radians is 1 in double precision."""
    assert angle([1.0, 0.0], [1.0, 1e-9]) == pytest.approx(np.degrees(1e-9), rel=1e-6)


def test_a_loop_set_to_the_product_of_the_others_is_aligned_and_the_rest_below_90() -> None:
    network = loop_network([5, 6, 7, 3], dtype=np.float64, rng=1)
    aligned = loop_alignment(network.with_parameters({"loop": (network.forward[0] @ network.forward[1]).T.copy()})).degrees
    assert aligned["loop"] == pytest.approx(0, abs=1e-6)
    assert max(aligned.values()) < 90


def test_no_loop_is_refused_and_a_zero_matrix_has_no_angle() -> None:
    with pytest.raises(ValueError, match="no loop"):
        loop_alignment(reciprocal_network([4, 3, 2], rng=0))
    network = loop_network([4, 5, 3, 2], rng=0)
    with pytest.warns(RuntimeWarning, match="undefined"):
        found = loop_alignment(network.with_parameters({"forward[0]": np.zeros_like(network.forward[0])}))
    assert all(np.isnan(value) for value in found.degrees.values())
