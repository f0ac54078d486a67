"""Splits never change, and images of your own are checked."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_data import sha256, write

from fsp_dynamics.datasets import Dataset, Split, dataset_from_arrays, load_dataset, read_dataset
from fsp_dynamics.datasets.arrays import spread
from fsp_dynamics.datasets.digits import taking_turns
from fsp_dynamics.datasets.registry import SOURCES
from fsp_dynamics.errors import ConfigurationError, DatasetError, DataWarning, NotFiniteError, ShapeError


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


def test_lists_frames_tensors_and_truth_values_are_arrays() -> None:
    import pandas

    given_ = own()
    expected = dataset_from_arrays(**given_)
    lists = {name: array.tolist() for name, array in given_.items()}
    frames = {name: (pandas.DataFrame if array.ndim == 2 else pandas.Series)(array) for name, array in given_.items()}
    for others in (lists, frames):
        np.testing.assert_array_equal(dataset_from_arrays(**others).train.images, expected.train.images)
    masks = given_["images"] > 0.5
    data = dataset_from_arrays(**own(images=masks, test_images=masks[:2]))
    np.testing.assert_array_equal(data.train.images, masks[:5].astype(np.float32))


def test_a_tensor_that_requires_gradients_is_an_array() -> None:
    torch = pytest.importorskip("torch")
    given_ = own()
    tensor = torch.tensor(given_["images"], requires_grad=True)
    data = dataset_from_arrays(**own(images=tensor, labels=torch.tensor(given_["labels"])))
    np.testing.assert_array_equal(data.train.images, given_["images"][:5].astype(np.float32))


def test_without_a_test_part_the_last_sixth_is_it() -> None:
    labels = np.repeat([0, 1, 2], [12, 24, 36])
    images = np.arange(72, dtype=np.uint8)[:, None].repeat(4, 1)
    data = dataset_from_arrays(images, labels)
    parts = (data.train, data.valid, data.test)
    assert [len(part) for part in parts] == [50, 10, 12]
    assert sorted(np.concatenate([part.images[:, 0] * 255 for part in parts]).round()) == list(range(72))
    for part in parts:
        share = np.bincount(part.labels, minlength=3) / len(part)
        assert abs(share - [1 / 6, 2 / 6, 3 / 6]).max() < 0.09
    assert data.notes == (
        "the images were put into a fixed shuffled order: there is no test part, so the last sixth of all images is it",
    )
    np.testing.assert_array_equal(dataset_from_arrays(images, labels).test.images, data.test.images)
    with pytest.raises(ConfigurationError, match="images holds 1 image, expected at least 2"):
        dataset_from_arrays(images[:1], labels[:1])


def test_images_sorted_by_class_are_spread_before_a_part_is_cut_off() -> None:
    given_ = own(30, labels=np.repeat([0, 1, 2], 10))
    data = dataset_from_arrays(**given_)
    assert set(data.valid.labels) == {0, 1, 2}
    assert data.notes == ("the images were put into a fixed shuffled order: they were sorted by class",)
    assert set(dataset_from_arrays(**given_, validation=0, limit=6).train.labels) == {0, 1, 2}
    whole = dataset_from_arrays(**given_, validation=0)
    np.testing.assert_array_equal(whole.train.images, given_["images"].astype(np.float32))
    assert (whole.notes, len(dataset_from_arrays(**own(30), limit=6).train)) == ((), 6)


def test_spread_is_the_order_of_the_digits_for_classes_of_one_size() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 9))
    np.testing.assert_array_equal(spread(labels), taking_turns(labels))


def test_a_data_set_is_known_again_by_its_images() -> None:
    data, given_ = dataset_from_arrays(**own()), own()
    data.check_fingerprint(dataset_from_arrays(**own()).fingerprint())
    assert (data.digests, set(data.fingerprint())) == ({}, {"train", "valid", "test"})
    given_["images"][5, 0] += 0.1
    with pytest.raises(DatasetError, match=r"arrays: SHA-256 of valid is \w{64}, expected \w{64}: these are not the"):
        dataset_from_arrays(**given_).check_fingerprint(data.fingerprint())
    with pytest.raises(DatasetError, match="SHA-256 of test"):
        dataset_from_arrays(**own(test_labels=np.array([2, 1]))).check_fingerprint(data.fingerprint())


def test_named_sets_have_digests(world) -> None:
    digits = load_dataset("digits")
    assert digits.digests == load_dataset("digits", limit=3).digests
    assert set(digits.digests) == {"digits"}
    write(world / "cache" / "mnist")
    assert load_dataset("mnist").digests == {file.name: file.sha256 for file in SOURCES["mnist"].files}


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"classes": 2}, ConfigurationError, r"train.labels\[2\] = 2, expected 0 to 1 for 2 classes"),
        ({"classes": 0}, ConfigurationError, "classes = 0"),
        (
            {"image_shape": (2, 3)},
            ShapeError,
            r"train.images has 4 pixels, expected 6, those of image_shape = \(2, 3\)",
        ),
        ({"test": Split(np.zeros((0, 4)), np.zeros(0, int))}, ConfigurationError, "test holds no image"),
        ({"class_names": ("a", "b")}, ConfigurationError, "class_names has 2 names, expected 3"),
    ],
)
def test_a_data_set_whose_parts_contradict_is_refused(changed, error, said) -> None:
    with pytest.raises(error, match=said):
        dataclasses.replace(dataset_from_arrays(**own()), **changed)


def test_a_notebook_shows_a_table() -> None:
    shown = dataset_from_arrays(**own(), name="<mine>")._repr_html_()
    assert "<caption>Dataset &lt;mine&gt;</caption>" in shown
    assert "<tr><th>train</th><td>5 images</td></tr>" in shown


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
        ({"images": np.full((6, 4), -0.1)}, ConfigurationError, "add what is lacking, then divide"),
        ({"images": np.zeros((6, 4), int)}, ConfigurationError, "dtype int64, expected floats"),
        ({"images": np.zeros((0, 4)), "labels": np.zeros(0, int)}, ConfigurationError, "nothing in it"),
        ({"images": np.zeros((6, 0)), "test_images": np.zeros((2, 0))}, ConfigurationError, "nothing in it"),
        ({"test_images": np.zeros((0, 4)), "test_labels": np.zeros(0, int)}, ConfigurationError, "test_images"),
        ({"images": np.zeros(6)}, ShapeError, r"images has shape \(6,\)"),
        ({"images": [[0.0, 1.0], [0.0]]}, ShapeError, "images is not an array"),
        ({"test_images": np.zeros((2, 5))}, ShapeError, r"test_images has shape \(2, 5\), expected \(any, 4\)"),
        ({"labels": np.arange(5)}, ShapeError, r"labels has shape \(5,\), expected \(6,\)"),
        ({"labels": np.eye(6)}, ShapeError, r"labels\.argmax\(1\) makes them of one-hot rows"),
        ({"labels": np.zeros(6)}, ConfigurationError, "labels have dtype float64, expected integers"),
        ({"labels": np.array([0, 1, 2, -1, 0, 1])}, ConfigurationError, r"labels\[3\] = -1, expected 0 to 2"),
        ({"labels": np.full(6, -1), "test_labels": np.full(2, -1)}, ConfigurationError, r"labels\[0\] = -1"),
        (
            {"test_labels": np.array([0, 7]), "classes": 3},
            ConfigurationError,
            r"test_labels\[1\] = 7, expected 0 to 2 for 3 classes",
        ),
        (
            {"labels": np.arange(6) % 3 + 1, "test_labels": np.array([1, 3])},
            ConfigurationError,
            "labels start at 1, expected class numbers from 0; give labels - 1, or classes = 4 if class 0 has no image",
        ),
        ({"labels": np.full(6, 10**9)}, ConfigurationError, "labels reach 1000000000, which makes more classes than"),
        ({"labels": list("abcabc")}, ConfigurationError, r"labels have dtype <U1.*return_inverse"),
        ({"test_labels": None}, ConfigurationError, "test_labels = None, expected an array"),
        ({"images": np.zeros((6, 2, 2, 2))}, ShapeError, r"expected \(B, c, h, w\) .* take one channel or three"),
        ({"images": np.zeros((6, 3, 2, 1))}, ShapeError, "of which either may be that of the channels"),
        ({"images": np.zeros((6, 1, 2, 2, 2))}, ShapeError, r"expected \(B, n_in\), \(B, h, w\), or in colour"),
        ({"limit": 6}, ConfigurationError, "limit = 6, expected a whole number from 1 to 5"),
        ({"classes": 0}, ConfigurationError, "classes = 0"),
        ({"validation": 6}, ConfigurationError, "validation = 6, expected a whole number from 0 to 5"),
        ({"image_shape": (3, 2)}, ShapeError, r"image_shape = \(3, 2\)"),
        ({"image_shape": (-2, -2)}, ShapeError, r"image_shape"),
    ],
)
def test_what_is_no_data_set_is_refused(changed, error, said) -> None:
    with pytest.raises(error, match=said):
        dataset_from_arrays(**own(**changed))


ORDERS = {
    "ascending": lambda y: np.argsort(y, kind="stable"),
    "descending": lambda y: np.argsort(-y, kind="stable"),
    "blocks in any order": lambda y: np.argsort((7 * y + 3) % 10, kind="stable"),
    "two sources": lambda y: np.concatenate([2 * np.argsort(y[::2], kind="stable"), 2 * np.argsort(y[1::2]) + 1]),
    "sorted but for a few": lambda y: np.roll(np.argsort(y, kind="stable"), 1),
    "the last class at the end": lambda y: np.concatenate([np.flatnonzero(y != 4), np.flatnonzero(y == 4)]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_classes_that_come_in_order_are_trained_chosen_by_and_tested(name) -> None:
    rng = np.random.default_rng(2)
    images, labels = rng.random((600, 4)), rng.integers(0, 10, 600)
    order = ORDERS[name](labels)
    data = dataset_from_arrays(images[order], labels[order], images[:50], labels[:50])
    for part in (data.train, data.valid):
        share = np.bincount(part.labels, minlength=10) / len(part)
        assert abs(share - np.bincount(labels, minlength=10) / 600).max() < 0.02
    assert data.notes == ("the images were put into a fixed shuffled order: they were sorted by class",)
    again = np.concatenate([data.train.images, data.valid.images])
    assert sorted(map(tuple, again)) == sorted(map(tuple, images.astype(np.float32)))
    limited = dataset_from_arrays(images[order], labels[order], images[:50], labels[:50], validation=0, limit=60)
    if name != "the last class at the end":  # whose first 60 are as good as shuffled
        assert len(np.unique(limited.train.labels)) == 10


def test_shuffled_classes_keep_their_order() -> None:
    rng = np.random.default_rng(3)
    for count, classes in ((60, 2), (60, 10), (600, 3), (5000, 47)):
        images, labels = rng.random((count, 4)), rng.integers(0, classes, count)
        data = dataset_from_arrays(images, labels, images[:5], labels[:5], classes=classes)
        np.testing.assert_array_equal(data.train.images, images[: len(data.train)].astype(np.float32))
        assert data.notes == ()


def test_files_that_are_split_otherwise_than_before_are_known_by_their_digests(tmp_path) -> None:
    rng = np.random.default_rng(2)
    images, labels = rng.random((60, 4)), np.repeat([2, 0, 1], 20)
    for name, order in (("blocks", np.arange(60)), ("sorted", np.argsort(labels)), ("mixed", rng.permutation(60))):
        given = {"images": images[order], "labels": labels[order]}
        np.savez(tmp_path / f"{name}.npz", **given, test_images=images[:4], test_labels=labels[:4])
    blocks, by_class, mixed = (read_dataset(tmp_path / f"{name}.npz") for name in ("blocks", "sorted", "mixed"))
    assert set(blocks.train.labels) == set(blocks.valid.labels) == {0, 1, 2}
    assert [len(data.digests) for data in (blocks, by_class, mixed)] == [2, 1, 1]
    blocks.check_fingerprint(read_dataset(tmp_path / "blocks.npz").fingerprint())
    before = {"blocks.npz": blocks.digests["blocks.npz"]}
    with pytest.raises(DatasetError, match="in their own order, which leaves classes untrained; train from the beginn"):
        blocks.check_fingerprint(before)


def test_bytes_of_0_and_1_are_truth_values() -> None:
    masks = np.random.default_rng(0).random((6, 4)) > 0.5
    data = dataset_from_arrays(**own(images=masks.astype(np.uint8), test_images=masks[:2].astype(np.uint8)))
    np.testing.assert_array_equal(data.train.images, masks[:5].astype(np.float32))
    assert data.notes == ("bytes that are only 0 and 1 were taken as truth values, not divided by 255",)
    assert dataset_from_arrays(**own(images=masks.astype(np.uint8))).train.images.max() == 1
    grey = masks.astype(np.uint8) * 255
    assert dataset_from_arrays(**own(images=masks.astype(np.uint8), test_images=grey[:2])).train.images.max() < 0.01


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": np.full((6, 4), 16, np.uint8)}, "bytes reach only 16 and are divided by 255; .* give images / 16"),
        ({"images": np.full((6, 4), 1 / 255), "test_images": np.zeros((2, 4))}, "pixels reach only 0.0039 of"),
        ({"labels": np.array([0, 1, 3, 0, 1, 3]), "test_labels": np.array([0, 1])}, "1 of 4 classes have no image"),
        ({"labels": np.array([1, 0, 1, 0, 0, 2]), "test_labels": np.array([0, 1])}, "class 2 has no training image"),
    ],
)
def test_what_is_probably_not_meant_is_warned_about(changed, said) -> None:
    with pytest.warns(DataWarning, match=said) as seen:
        dataset_from_arrays(**own(**changed))
    assert {each.filename for each in seen} == {__file__}


def test_sparse_class_numbers_are_refused() -> None:
    labels = 1000 * (np.arange(9100) % 10)
    images = np.zeros((9100, 1))
    with pytest.raises(ConfigurationError, match="labels reach 9000, but hold 10 different numbers") as caught:
        dataset_from_arrays(images, labels)
    assert "np.unique(labels, return_inverse=True)[1]" in str(caught.value)
    data = dataset_from_arrays(images, np.unique(labels, return_inverse=True)[1])  # as the message advises
    assert data.classes == 10


def test_sparse_class_numbers_of_a_file_name_it(tmp_path) -> None:
    np.savez(tmp_path / "own.npz", images=np.zeros((9100, 1)), labels=1000 * (np.arange(9100) % 10))
    with pytest.raises(DatasetError, match=r"own\.npz: labels reach 9000, but hold 10 different"):
        read_dataset(tmp_path / "own.npz")


def test_images_in_colour_are_kept_plane_after_plane() -> None:
    rng = np.random.default_rng(0)
    planes, labels = rng.integers(0, 256, (30, 3, 4, 5)).astype(np.uint8), np.arange(30) % 3
    rows = planes.reshape(30, 60)
    whole = dataset_from_arrays(planes, labels)
    assert (whole.image_shape, whole.planes, repr(whole)[-28:]) == (
        (3, 4, 5),
        (3, 4, 5),
        "3 x 4 x 5 pixels, 3 classes>",
    )
    for images, shape in ((np.moveaxis(planes, 1, 3), None), (rows, (3, 4, 5)), (planes / np.float32(255), None)):
        data = dataset_from_arrays(images, labels, image_shape=shape)
        np.testing.assert_array_equal(data.train.images, whole.train.images)
        assert data.image_shape == (3, 4, 5)
    row = int(np.flatnonzero((whole.test.images[0] * 255 == rows).all(1))[0])
    np.testing.assert_array_equal(whole.test.images[0, 20:40].reshape(4, 5) * 255, planes[row, 1])


@pytest.mark.parametrize("shape", [(30, 1, 4, 5), (30, 4, 5, 1)])
def test_images_of_one_channel_are_grey(shape) -> None:
    images = np.random.default_rng(0).random((30, 4, 5))
    data = dataset_from_arrays(images.reshape(shape), np.arange(30) % 3)
    grey = dataset_from_arrays(images, np.arange(30) % 3)
    assert (data.image_shape, data.planes) == ((4, 5), (1, 4, 5))
    np.testing.assert_array_equal(data.train.images, grey.train.images)


@pytest.mark.parametrize("shape", [(2, 4, 5), (1, 4, 10), (40,), (3, 0, 5), (4, 11)])
def test_a_shape_that_images_cannot_have_is_refused(shape) -> None:
    with pytest.raises(ShapeError, match="image_shape = "):
        dataset_from_arrays(np.zeros((6, 40)), np.arange(6) % 2, image_shape=shape)
    part = Split(np.zeros((6, 40)), np.zeros(6, int))
    with pytest.raises(ShapeError, match="image_shape = "):
        Dataset("own", 1, part, part, part, image_shape=shape, source="arrays")
