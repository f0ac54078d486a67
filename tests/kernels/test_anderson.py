"""Anderson mixing, against least squares written out with NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from fsp_dynamics.kernels.anderson import anderson


def history(batch, memory, n, dtype=np.float64):
    return {
        "ys": np.empty((batch, memory, n), dtype),
        "fs": np.empty((batch, memory, n), dtype),
        "sizes": np.full(batch, np.inf),
        "count": np.zeros(batch, np.int64),
        "rose": np.zeros(batch, np.int64),
    }


def mix(kept, y, target, rows=None, floor=-np.inf, ceiling=np.inf):
    rows = np.arange(len(y)) if rows is None else rows
    anderson(rows, y, target, kept["ys"], kept["fs"], kept["sizes"], kept["count"], kept["rose"], floor, ceiling)


def mixed_by_numpy(ys, fs):
    """sum_j alpha_j (y_j + f_j), alpha of sum 1 and least ||sum_j alpha_j f_j||, from all iterates
    at once.
    """
    newest_y, newest_f = ys[-1], fs[-1]
    differences = np.array([f - newest_f for f in fs[:-1]]).T
    gamma = np.linalg.lstsq(differences, -newest_f, rcond=None)[0] if len(ys) > 1 else []
    return newest_y + newest_f + sum(g * (y + f - newest_y - newest_f) for g, y, f in zip(gamma, ys, fs, strict=False))


def affine(rng, n, radius):
    matrix = rng.normal(size=(n, n))
    return radius * matrix / np.linalg.norm(matrix, 2), rng.normal(size=n)


@pytest.mark.parametrize("passes", [1, 2, 3, 4])
def test_each_step_is_the_least_squares_mixture(passes) -> None:
    rng = np.random.default_rng(0)
    matrix, shift = affine(rng, 6, 0.7)
    kept, y = history(1, 5, 6), rng.normal(size=(1, 6))
    ys, fs = [], []
    for _ in range(passes):
        ys.append(y[0].copy())
        fs.append(y[0] @ matrix + shift - y[0])
        mix(kept, y, y @ matrix + shift)
        np.testing.assert_allclose(y[0], mixed_by_numpy(ys, fs), rtol=1e-8, atol=1e-10)


def test_an_affine_map_is_solved_in_as_many_passes_as_it_has_dimensions() -> None:
    """GMRES in disguise: n + 1 residuals span the space. The map expands (radius 3), where plain
    passes would run away.
    """
    rng = np.random.default_rng(1)
    matrix, shift = affine(rng, 3, 3.0)
    kept, y = history(1, 8, 3), rng.normal(size=(1, 3))
    for _ in range(5):
        mix(kept, y, y @ matrix + shift)
    np.testing.assert_allclose(y[0], shift @ np.linalg.inv(np.eye(3) - matrix), rtol=1e-9)


def test_a_residual_that_jumps_empties_the_history_and_is_counted() -> None:
    kept, y = history(1, 4, 2), np.array([[0.0, 0.0]])
    mix(kept, y, np.array([[0.1, 0.0]]))
    mix(kept, y, y + 5.0)
    assert kept["rose"][0] == 1
    assert kept["count"][0] == 1
    np.testing.assert_allclose(y, [[5.1, 5.0]])  # that step was a plain pass


def test_samples_do_not_mix_with_each_other(dtype) -> None:
    """A sample in company takes the same steps, to the bit, as alone."""
    rng = np.random.default_rng(2)
    matrix, shift = (x.astype(dtype) for x in affine(rng, 4, 0.8))
    start = rng.normal(size=(3, 4)).astype(dtype)
    together, kept = start.copy(), history(3, 3, 4, dtype)
    alone, kept_alone = start[2:].copy(), history(3, 3, 4, dtype)
    for _ in range(5):
        target = np.array([np.einsum("i,ij->j", y, matrix) + shift for y in together])
        target_alone = np.array([np.einsum("i,ij->j", y, matrix) + shift for y in alone])
        mix(kept, together, target)
        mix(kept_alone, alone, target_alone, rows=np.array([2]))
    assert together[2].tobytes() == alone[0].tobytes()


def test_the_box_is_kept_and_nan_is_not_hidden() -> None:
    kept, y = history(2, 2, 2), np.array([[0.5, 0.5], [0.5, 0.5]])
    mix(kept, y, np.array([[3.0, -2.0], [np.nan, 0.2]]), floor=0.0, ceiling=1.0)
    assert y[0].tolist() == [1.0, 0.0]
    assert np.isnan(y[1, 0])


def test_parallel_differences_do_not_blow_up() -> None:
    """A one-dimensional map seen through two equal coordinates: the Gram matrix is singular from
    the second difference on.
    """
    kept, y = history(1, 5, 2), np.zeros((1, 2))
    for _ in range(6):
        mix(kept, y, 0.5 * y + 1.0)
        assert np.isfinite(y).all()
    np.testing.assert_allclose(y, 2.0, rtol=1e-12)
