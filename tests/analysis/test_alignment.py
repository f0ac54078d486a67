"""Angles of the loop: the trace identity and the invariances (model facts 12 and 13), and twins
written out by hand.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import problem, random_network

from fsp_dynamics.analysis.alignment import angle, loop_alignment, loop_angles, sample_alignment
from fsp_dynamics.errors import NotConvergedError
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.solvers import relax
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance
from fsp_dynamics.solvers.packed_loop import PackedLoop

DEPTHS = st.lists(st.integers(2, 7), min_size=3, max_size=6)
SEEDS = st.integers(0, 1000)


def ring_of(network):
    """[(name, matrix)] round the loop, from the output on."""
    return [("loop", network.loop), *((f"W{k + 1}", w) for k, w in enumerate(network.forward))]


@given(sizes=DEPTHS, seed=SEEDS)
def test_against_the_full_product_of_the_others(sizes, seed) -> None:
    """Each W against the transposed product of the others in loop order, multiplied out matrix by
    matrix, angle by arccos.
    """
    network = loop_network(sizes, dtype=np.float64, rng=seed)
    ring, found = ring_of(network), loop_alignment(network)
    assert set(found.degrees) == {name for name, _ in ring}
    for k, (name, w) in enumerate(ring):
        others = (
            np.linalg.multi_dot([m for _, m in ring[k + 1 :] + ring[:k]])
            if len(ring) > 2
            else (ring[k + 1 :] + ring[:k])[0][1]
        )
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
    """Fact 13: scaling a matrix and permuting hidden units change no angle; a sign turns every
    angle t into 180 - t.
    """
    network = loop_network([5, 6, 7, 3], dtype=np.float64, rng=seed)
    before = loop_alignment(network).degrees
    order = np.random.default_rng(seed).permutation(7)
    permuted = network.with_parameters(
        {"forward[0]": network.forward[0][:, order], "forward[1]": network.forward[1][order]}
    )
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


def test_a_loop_set_to_the_product_of_the_others_is_aligned_and_the_others_below_90() -> None:
    network = loop_network([5, 6, 7, 3], dtype=np.float64, rng=1)
    aligned = loop_alignment(
        network.with_parameters({"loop": (network.forward[0] @ network.forward[1]).T.copy()})
    ).degrees
    assert aligned["loop"] == pytest.approx(0, abs=1e-6)
    assert max(aligned.values()) < 90


def test_no_loop_is_refused_and_a_zero_matrix_has_no_angle() -> None:
    with pytest.raises(ValueError, match="no loop"):
        loop_alignment(reciprocal_network([4, 3, 2], rng=0))
    network = loop_network([4, 5, 3, 2], rng=0)
    with pytest.warns(RuntimeWarning, match="undefined"):
        found = loop_alignment(network.with_parameters({"forward[0]": np.zeros_like(network.forward[0])}))
    assert all(np.isnan(value) for value in found.degrees.values())


# Inside the subspace


def projected(w, product):
    """(U U' W V V', rank): W in the subspace of the product's columns and rows, from a full SVD."""
    u, sizes, vt = np.linalg.svd(product)
    rank = int((sizes > 1e-10 * sizes[0]).sum())
    u, v = u[:, :rank], vt[:rank].T
    return u @ (u.T @ w @ v) @ v.T, rank


def others_of(ring, k):
    """The transposed product of all matrices but the k-th, multiplied out."""
    others = [m for _, m in ring[k + 1 :] + ring[:k]]
    return (np.linalg.multi_dot(others) if len(others) > 1 else others[0]).T


@given(sizes=DEPTHS, seed=SEEDS)
def test_bound_and_inside_angle_against_a_full_singular_value_decomposition(sizes, seed) -> None:
    """And cos raw = cos bound cos inside (fact 14), for layers thinner than the output too."""
    network = loop_network(sizes, dtype=np.float64, rng=seed)
    ring, found = ring_of(network), loop_alignment(network)
    for k, (name, w) in enumerate(ring):
        product = others_of(ring, k)
        inside, rank = projected(w, product)
        assert rank <= sizes[-1]
        cosine = np.linalg.norm(inside) / np.linalg.norm(w)
        assert found.bound[name] == pytest.approx(np.degrees(np.arccos(min(cosine, 1))), abs=1e-5)
        assert found.inside[name] == pytest.approx(angle(inside, product), abs=1e-5)
        raw, bound, within = (np.cos(np.radians(part[name])) for part in (found.degrees, found.bound, found.inside))
        assert raw == pytest.approx(bound * within, abs=1e-9)
        assert found.degrees[name] >= found.bound[name] - 1e-9
        assert found.z_score[name] == pytest.approx(np.sqrt(w.size) * raw, abs=1e-9)


def test_the_z_score_is_one_standard_deviation_of_a_random_matrix() -> None:
    """2,000 random matrices of one shape against one product: mean 0, standard deviation 1."""
    network, rng = loop_network([3, 6, 5, 4], dtype=np.float64, rng=0), np.random.default_rng(1)
    scores = [
        loop_alignment(network.with_parameters({"forward[0]": rng.normal(size=(6, 5))})).z_score["W1"]
        for _ in range(2000)
    ]
    assert np.mean(scores) == pytest.approx(0, abs=0.07)
    assert np.std(scores) == pytest.approx(1, abs=0.05)


def test_the_rank_trap_of_a_wide_network() -> None:
    """No product of rank 10 comes nearer than 89.6 degrees to a random 1500 x 1500 matrix (fact
    14).
    """
    found = loop_alignment(loop_network([4, 1500, 1500, 10], rng=0))
    assert found.bound["W1"] == pytest.approx(89.6, abs=0.05)
    assert found.inside["W1"] < 120


# The raw angles alone


@pytest.mark.parametrize("sizes", [[5, 9, 4], [7, 20, 33, 10], [3, 17, 18, 19, 5]])
def test_the_cheap_angles_are_the_same(dtype, sizes) -> None:
    network = loop_network(sizes, dtype=dtype, rng=3)
    known, tolerance = loop_alignment(network).degrees, 1e-3 if dtype == np.float32 else 1e-9
    assert loop_angles(network) == pytest.approx(known, abs=tolerance)
    assert loop_angles(PackedLoop.of(network)) == pytest.approx(known, abs=tolerance)
    assert list(loop_angles(PackedLoop.of(network))) == list(known)


def test_the_cheap_angles_of_zero_matrices_are_undefined() -> None:
    network = loop_network([4, 5, 3, 2], rng=0)
    silent = network.with_parameters({"forward[0]": np.zeros_like(network.forward[0])})
    for loop in (silent, PackedLoop.of(silent)):
        assert np.isnan(list(loop_angles(loop).values())).all()


# Sample by sample


@pytest.mark.parametrize("name", ["one-hidden", "deep", "strong", "time-constants", "logistic"])
def test_each_sample_has_its_own_masks(name) -> None:
    p = problem(name)
    equilibrium = relax(p.network, p.images, tolerance=Tolerance(1e-12))
    found = sample_alignment(p.network, equilibrium)
    slope = p.network.rho.slope if not p.network.rho.projected else lambda s: ((s > 0) & (s < 1)).astype(float)
    for b in range(p.batch):
        ring = [(part, m * slope(s[b])) for (part, m), s in zip(ring_of(p.network), equilibrium.state, strict=True)]
        for k, (part, w) in enumerate(ring):
            expected = angle(w, others_of(ring, k))
            assert found.degrees[part][b] == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_samples_without_an_angle_are_counted_and_left_out_of_mean_and_deviation() -> None:
    network = random_network(0, [4, 6, 5, 3], 0.5, low=-0.1, high=0.6)
    equilibrium = relax(network, np.random.default_rng(0).random((5, 4)), tolerance=Tolerance(1e-12))
    state = tuple(np.array(s) for s in equilibrium.state)
    state[1][2] = 1.0  # sample 2: every unit of the second layer saturated
    found = sample_alignment(network, Equilibrium(state, equilibrium.residual, equilibrium.status, equilibrium.steps))
    assert found.undefined == {"W1": 1, "W2": 1, "loop": 1}
    for part, values in found.degrees.items():
        defined = np.delete(values, 2)
        assert found.mean[part] == pytest.approx(defined.mean())
        assert found.std[part] == pytest.approx(defined.std())
    nothing = Equilibrium(
        tuple(np.ones_like(s) for s in state), equilibrium.residual, equilibrium.status, equilibrium.steps
    )
    assert all(np.isnan(value) for value in sample_alignment(network, nothing).mean.values())


def test_unconverged_equilibria_are_refused_unless_allowed() -> None:
    p = problem("strong")
    equilibrium = relax(p.network, p.images)
    unconverged = Equilibrium(
        equilibrium.state, equilibrium.residual, np.ones_like(equilibrium.status), equilibrium.steps
    )
    with pytest.raises(NotConvergedError, match="not converged"):
        sample_alignment(p.network, unconverged)
    assert set(sample_alignment(p.network, unconverged, unconverged=True).degrees) == {"W1", "W2", "loop"}


def test_no_sample_has_no_angle() -> None:
    network = loop_network([6, 5, 4, 3], rng=0)
    found = sample_alignment(network, relax(network, np.zeros((1, 6), np.float32)).rows(np.array([], int)))
    assert {name: each.shape for name, each in found.degrees.items()} == {"W1": (0,), "W2": (0,), "loop": (0,)}
