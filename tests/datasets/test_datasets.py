"""Splits never change, and images of your own are checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_data import sha256, write

from fsp_dynamics.datasets import Split, dataset_from_arrays, load_dataset
from fsp_dynamics.errors import ConfigurationError, DatasetError, NotFiniteError, ShapeError


def test_digits_are_split_the_same_way_every_time() -> None:
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    assert (data.name, data.classes, data.image_shape, data.source[-13:]) == ("digits", 10, (8, 8), "digits.csv.gz")
    parts = (data.train, data.valid, data.test)
    assert [len(part) for part in parts] == [1197, 200, 400]
    images, labels = load_digits(return_X_y=True)
    ours = np.column_stack([np.concatenate([p.images for p in parts]) * 16, np.concatenate([p.labels for p in parts])])
    theirs = np.column_stack([images, labels])
    # every digit once
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])
    for part in parts:
        share = np.bincount(part.labels, minlength=10) / len(part)
        assert abs(share - 0.1).max() < 0.02
    pixels = np.concatenate([part.images * 16 for part in parts]).astype(np.uint8)
    assert sha256(pixels.tobytes()) == "043435c14d2783c0993840feffc78db7f03115702694fb38e0a71fceba7d0b5d"


def test_digits_without_the_table_come_from_scikit_learn_itself(monkeypatch) -> None:
    expected = load_dataset("digits")
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    np.testing.assert_array_equal(load_dataset("digits").train.images, expected.train.images)


def test_digits_without_scikit_learn_tell_the_remedy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DatasetError, match="pip install scikit-learn"):
        load_dataset("digits")


def test_a_damaged_table_of_digits_is_refused(monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(np, "loadtxt", lambda *args, **kwargs: np.full((1797, 65), 17, np.uint8))
        with pytest.raises(DatasetError, match="is not the table"):
            load_dataset("digits")
    monkeypatch.setattr(np, "loadtxt", lambda *args, **kwargs: float("not a number"))
    with pytest.raises(DatasetError, match="cannot be read"):
        load_dataset("digits")


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_validation_is_the_end_and_limit_the_beginning_of_the_training_images(world, name) -> None:
    write(world / "cache" / "mnist")
    whole = load_dataset(name, validation=0)
    assert len(whole.valid) == 0
    assert whole.valid.images.shape == (0, whole.train.images.shape[1])
    cut = load_dataset(name, validation=4, limit=3)
    np.testing.assert_array_equal(cut.train.images, whole.train.images[:3])
    np.testing.assert_array_equal(cut.valid.images, whole.train.images[-4:])
    np.testing.assert_array_equal(cut.valid.labels, whole.train.labels[-4:])
    np.testing.assert_array_equal(cut.test.images, whole.test.images)


def test_a_split_is_what_solvers_expect() -> None:
    split = Split(np.asfortranarray(np.eye(3)), np.array([2, 0, 1], np.uint8))
    assert (split.images.dtype, split.images.flags.c_contiguous, split.labels.dtype, len(split)) == (
        np.float32,
        True,
        np.int64,
        3,
    )
    np.testing.assert_array_equal(split.one_hot(4, np.float64), np.eye(4)[[2, 0, 1]])
    assert split.one_hot(3).dtype == np.float32
    np.testing.assert_array_equal(split.limit(2).labels, [2, 0])
    assert np.shares_memory(split.limit(2).images, split.images)
    with pytest.raises(ConfigurationError, match=r"labels\[0\] = 2, expected 0 to 1"):
        split.one_hot(2)
    for n in (0, 4):
        with pytest.raises(ConfigurationError, match="from 1 to 3"):
            split.limit(n)
    with pytest.raises(ShapeError, match="labels"):
        Split(np.eye(3), np.arange(4))
    with pytest.raises(ShapeError, match="images"):
        Split(np.zeros((3, 2, 2)), np.arange(3))


def test_importing_and_loading_digits_import_nothing_heavy() -> None:
    code = (
        "import sys, fsp_dynamics.datasets as d\n"
        "heavy = {'sklearn', 'pooch', 'requests', 'torch', 'numba', 'scipy', 'pandas'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "d.load_dataset('digits')\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# Users' own images


def own(n: int = 6, **changed):
    """Arguments of a small valid data set."""
    rng = np.random.default_rng(1)
    fields = {
        "images": rng.random((n, 4)),
        "labels": np.arange(n) % 3,
        "test_images": rng.random((2, 4)),
        "test_labels": np.array([2, 0]),
    }
    return fields | changed


def test_own_images_become_a_data_set() -> None:
    given_ = own()
    data = dataset_from_arrays(**given_, name="mine")
    assert (data.name, data.classes, data.image_shape, len(data.train), len(data.valid)) == ("mine", 3, (2, 2), 5, 1)
    np.testing.assert_array_equal(data.train.images, given_["images"][:5].astype(np.float32))
    np.testing.assert_array_equal(data.valid.labels, given_["labels"][5:])
    data.train.images[:] = 0
    assert given_["images"].all()  # a copy


def test_own_bytes_are_divided_and_shapes_kept() -> None:
    images = np.arange(6 * 2 * 3, dtype=np.uint8).reshape(6, 2, 3) * 7
    data = dataset_from_arrays(**own(images=images, test_images=images[:2]), validation=0, classes=5)
    np.testing.assert_array_equal(data.train.images, images.reshape(6, 6) / np.float32(255))
    assert (data.image_shape, data.classes, len(data.valid)) == ((2, 3), 5, 0)
    assert dataset_from_arrays(**own(), image_shape=(4, 1)).image_shape == (4, 1)
    assert dataset_from_arrays(**own(images=np.zeros((6, 5)), test_images=np.zeros((2, 5)))).image_shape == (1, 5)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"images": np.where(np.arange(24).reshape(6, 4) == 9, np.nan, 0.5)}, NotFiniteError, r"images\[2, 1\] = nan"),
        ({"test_images": np.full((2, 4), np.inf)}, NotFiniteError, r"test_images\[0, 0\] = inf"),
        (
            {"images": np.full((6, 4), 255.0)},
            ConfigurationError,
            r"images\[0, 0\] = 255.0, expected pixels in \[0, 1\]",
        ),
        ({"images": np.full((6, 4), -0.1)}, ConfigurationError, "expected pixels in"),
        ({"images": np.zeros((6, 4), int)}, ConfigurationError, "dtype int64, expected floats"),
        ({"images": np.zeros((0, 4)), "labels": np.zeros(0, int)}, ConfigurationError, "nothing in it"),
        ({"images": np.zeros((6, 0)), "test_images": np.zeros((2, 0))}, ConfigurationError, "nothing in it"),
        ({"test_images": np.zeros((0, 4)), "test_labels": np.zeros(0, int)}, ConfigurationError, "test_images"),
        ({"images": np.zeros(6)}, ShapeError, r"images has shape \(6,\)"),
        ({"images": [[0.0, 1.0], [0.0]]}, ShapeError, "images is not an array"),
        ({"test_images": np.zeros((2, 5))}, ShapeError, r"test_images has shape \(2, 5\), expected \(any, 4\)"),
        ({"labels": np.arange(5)}, ShapeError, r"labels has shape \(5,\), expected \(6,\)"),
        ({"labels": np.eye(6)}, ShapeError, "labels"),
        ({"labels": np.zeros(6)}, ConfigurationError, "labels have dtype float64, expected integers"),
        ({"labels": np.array([0, 1, 2, -1, 0, 1])}, ConfigurationError, r"labels\[3\] = -1, expected 0 to 2"),
        ({"labels": np.full(6, -1), "test_labels": np.full(2, -1)}, ConfigurationError, r"labels\[0\] = -1"),
        (
            {"test_labels": np.array([0, 7]), "classes": 3},
            ConfigurationError,
            r"test_labels\[1\] = 7, expected 0 to 2 for 3 classes",
        ),
        ({"classes": 0}, ConfigurationError, "classes = 0"),
        ({"validation": 6}, ConfigurationError, "validation = 6, expected a whole number from 0 to 5"),
        ({"image_shape": (3, 2)}, ShapeError, r"image_shape = \(3, 2\)"),
        ({"image_shape": (-2, -2)}, ShapeError, r"image_shape"),
    ],
)
def test_what_is_no_data_set_is_refused(changed, error, said) -> None:
    with pytest.raises(error, match=said):
        dataset_from_arrays(**own(**changed))
