"""Images cropped and mirrored at random, and normalised, beside slow twins that do it one image and
one pixel at a time.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.layerwise.augmentation import CHUNK, Normalisation, augment
from fsp_dynamics.layerwise.networks import LayerwiseNetwork, conv


def twin(images, rng, crop, flip):
    """The same draws, then one pixel after another."""
    count, _, height, width = images.shape
    moves = rng.integers(0, 2 * crop, (count, 2), endpoint=True) - crop if crop else np.zeros((count, 2), int)
    coins = rng.random(count) if flip else np.ones(count)
    out = np.zeros_like(images)
    for b in range(count):
        for y in range(height):
            for x in range(width):
                down, right = y + moves[b, 0], x + moves[b, 1]
                if 0 <= down < height and 0 <= right < width:
                    to = width - 1 - x if coins[b] < flip else x
                    out[b, :, y, to] = images[b, :, down, right]
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize(("crop", "flip"), [(0, 0.0), (0, 0.5), (1, 0.0), (2, 0.25), (4, 0.5)])
@pytest.mark.parametrize("shape", [(40, 3, 6, 5), (7, 1, 5, 8), (0, 3, 6, 5)])
def test_images_are_moved_and_mirrored_as_the_slow_twin_does(shape, crop, flip, dtype) -> None:
    images = (255 * np.random.default_rng(0).random(shape)).astype(dtype)
    kept = images.copy()
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    found = augment(images, one, crop=crop, flip=flip)
    assert (found.dtype, found.shape) == (images.dtype, shape)
    np.testing.assert_array_equal(found, twin(images, other, crop, flip))
    np.testing.assert_array_equal(images, kept)
    assert not np.shares_memory(found, images)
    assert one.bit_generator.state == other.bit_generator.state


def test_every_move_is_as_likely_and_half_are_mirrored() -> None:
    """Two bright pixels side by side show where an image went, and whether it was mirrored."""
    images = np.zeros((8000, 1, 9, 9), np.float32)
    images[:, 0, 4, 4], images[:, 0, 4, 5] = 1, 0.5
    found = augment(images, np.random.default_rng(0), crop=2, flip=0.5)[:, 0]
    _, rows, columns = np.nonzero(found == 1)
    mirrored = np.nonzero(found == 0.5)[2] < columns
    table = np.zeros((5, 5, 2), int)
    np.add.at(table, (rows - 2, columns - 2, mirrored.astype(int)), 1)
    assert table.min() > 0
    assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_nothing_is_drawn_where_nothing_is_asked() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    augment(np.ones((3, 1, 4, 4)), rng, crop=0, flip=0.0)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("crop", [-1, 4, 1.5, True, None])
def test_a_crop_that_leaves_nothing_is_refused(crop) -> None:
    with pytest.raises(ConfigurationError, match=r"crop = .*, expected a whole number from 0 to 3, .* 4 x 6 pixels"):
        augment(np.ones((3, 1, 4, 6)), np.random.default_rng(0), crop=crop, flip=0.0)


def test_rows_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"images has shape \(3, 24\), expected"):
        augment(np.ones((3, 24)), np.random.default_rng(0), crop=1, flip=0.0)
    with pytest.raises(ShapeError, match=r"images has shape \(3, 24\), expected \(any, 12\)"):
        Normalisation.of(np.ones((3, 24)), (3, 2, 2))


def normalised(usual, images):
    """As a network sees them."""
    network = LayerwiseNetwork(conv([2]), images.shape[1:], 2)
    network.normalise(usual)
    return network.images(torch.from_numpy(images.reshape(len(images), -1))).numpy()


@pytest.mark.parametrize("count", [1, 3, CHUNK, CHUNK + 5])
def test_images_are_normalised_by_the_numbers_of_their_channel(count) -> None:
    """float32 images far from 0, of which sums in float32 would be wrong."""
    rng = np.random.default_rng(0)
    images = (0.9 + 0.01 * rng.standard_normal((count, 3, 4, 5))).astype(np.float32)
    images[:, 1] *= 0.5
    usual = Normalisation.of(images.reshape(count, 60), (3, 4, 5))
    for channel in range(3):
        pixels = [float(value) for value in images[:, channel].ravel()]
        mean = sum(pixels) / len(pixels)
        deviation = (sum((value - mean) ** 2 for value in pixels) / len(pixels)) ** 0.5
        assert usual.mean[channel] == pytest.approx(mean, rel=1e-12)
        assert usual.deviation[channel] == pytest.approx(deviation, rel=1e-9)
    found = normalised(usual, images)
    assert found.dtype == np.float32
    assert found.astype(float).mean((0, 2, 3)) == pytest.approx([0, 0, 0], abs=2e-4)
    assert found.astype(float).std((0, 2, 3)) == pytest.approx([1, 1, 1], abs=2e-4)


def test_a_channel_that_is_the_same_everywhere_becomes_zero() -> None:
    usual = Normalisation.of(np.full((5, 8), 0.25), (2, 2, 2))
    assert (normalised(usual, np.full((3, 2, 2, 2), 0.25, np.float32)) == 0).all()


def test_a_run_keeps_the_normalisation_with_its_network(tmp_path) -> None:
    table = {
        "family": "layerwise",
        "data": {"name": "digits", "limit": 60, "validation": 200},
        "network": {"hidden": [20]},
        "learning": {"epochs": 1, "batch": 20, "normalise": True, "augmentation": {"crop": 1}},
    }
    run = fsp.train(table, out=tmp_path / "run", progress=False)
    images = run.data().train.images
    network = run.network("last").network
    np.testing.assert_allclose(network.pixel_mean, [images.mean()], rtol=1e-5)
    np.testing.assert_allclose(network.pixel_scale, [1 / images.std()], rtol=1e-5)
    assert run.evaluate("test", "last").error == run.metrics[-1]["test_error"]
    labels = run.data().test.labels
    assert 100 * (run.predict(run.data().test.images, "last").classes != labels).mean() == run.metrics[-1]["test_error"]
