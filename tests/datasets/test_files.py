"""Data sets of your own from files: IDX, npz, class folders of pictures; what is no data set is
refused in one line.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import small_colours
from PIL import Image
from small_data import CONTENTS, NAMES, check_small, idx, sha256, write

from fsp_dynamics.datasets import CLASS_NAMES, Dataset, load_dataset, read_dataset
from fsp_dynamics.errors import ConfigurationError, DatasetError, DataWarning


def refused(path: Path, *said: str, **options) -> str:
    """The one line with which reading is refused; it names the path and holds these words."""
    with pytest.raises(DatasetError) as caught:
        read_dataset(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    assert all(words in line for words in said), line
    return line


# IDX files


def letters(folder: Path, packed: bool = False, images: int = 78) -> np.ndarray:
    """EMNIST's letters: 26 classes from 1, in the names and the layout of its files."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (images, 4, 3), np.uint8)
    labels = (1 + np.arange(images) % 26).astype(np.uint8)[rng.permutation(images)]
    files = {"train": (pixels, labels), "test": (pixels[:26], np.arange(1, 27))}
    folder.mkdir(parents=True, exist_ok=True)
    for part, (x, y) in files.items():
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            content = idx(array)
            name = f"emnist-letters-{part}-{kind}-ubyte" + ".gz" * packed
            (folder / name).write_bytes(gzip.compress(content) if packed else content)
    return labels


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_idx_files_is_the_named_set(tmp_path, packed) -> None:
    data = read_dataset(write(tmp_path / "kuzushiji", packed))
    check_small(data)
    assert (data.name, data.source, data.notes, data.class_names) == ("kuzushiji", str(tmp_path / "kuzushiji"), (), ())
    assert data.digests == {name: sha256(CONTENTS[name]) for name in NAMES}


def test_the_split_is_that_of_the_named_set(world, tmp_path) -> None:
    named = load_dataset("mnist", data_dir=write(world / "place" / "mnist").parent, validation=3, limit=5)
    own = read_dataset(world / "place" / "mnist", validation=3, limit=5)
    for part in ("train", "valid", "test"):
        np.testing.assert_array_equal(getattr(own, part).images, getattr(named, part).images)
        np.testing.assert_array_equal(getattr(own, part).labels, getattr(named, part).labels)
    assert own.image_shape == named.image_shape


@pytest.mark.parametrize("packed", [False, True])
def test_letters_from_1_have_26_classes_from_0(tmp_path, packed) -> None:
    labels = letters(tmp_path, packed)
    for path in (tmp_path, next(tmp_path.glob("*train-images*"))):
        data = read_dataset(path, validation=13)
        assert (data.classes, len(data.train), len(data.valid), len(data.test)) == (26, 65, 13, 26)
        np.testing.assert_array_equal(np.concatenate([data.train.labels, data.valid.labels]), labels - 1)
        np.testing.assert_array_equal(data.test.labels, np.arange(26))
        assert data.class_names == tuple(map(str, range(1, 27)))
        assert data.notes == ("labels start at 1: classes 1 to 26 are outputs 0 to 25",)
        assert data.name == (tmp_path.name if path == tmp_path else "emnist-letters")
        assert set(data.digests) == {
            f"emnist-letters-{part}-{kind}-ubyte"
            for part in ("train", "test")
            for kind in ("images-idx3", "labels-idx1")
        }
        assert repr(data).endswith("4 x 3 pixels, 26 classes>")


def test_a_pair_of_idx_files_gives_the_test_part_too(tmp_path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (60, 2, 2))))
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(np.repeat(np.arange(3), 20)))
    data = read_dataset(tmp_path / "images-idx3-ubyte")
    assert [len(part) for part in (data.train, data.valid, data.test)] == [42, 8, 10]
    for part in (data.train, data.valid, data.test):
        assert set(part.labels) == {0, 1, 2}, "sorted by class in the file, and yet every part holds each class"
    assert "fixed shuffled order" in data.notes[0]
    again = read_dataset(tmp_path)
    np.testing.assert_array_equal(again.train.images, data.train.images)
    assert (data.name, again.name) == (tmp_path.name, tmp_path.name)


def test_what_is_no_set_of_idx_files_is_refused(tmp_path) -> None:
    write(tmp_path / "a")
    letters(tmp_path / "a")
    refused(tmp_path / "a", "2 sets", "train-images-idx3-ubyte", "emnist-letters-train-images-idx3-ubyte")
    assert read_dataset(tmp_path / "a" / NAMES[0]).classes == 10
    refused(tmp_path / "a" / NAMES[2], "test images")
    refused(tmp_path / "a" / NAMES[1], "not the name of a data set", "NAME.npz")
    refused(tmp_path / "none", "no such file or folder")
    (write(tmp_path / "b") / NAMES[1]).unlink()
    refused(tmp_path / "b", "labels are missing", NAMES[1])
    write(tmp_path / "c", **{NAMES[1]: idx(np.arange(11) % 10)})
    refused(tmp_path / "c", "holds 11 labels, expected 12")
    write(tmp_path / "d", **{NAMES[2]: idx(np.zeros((5, 2, 2)))})
    refused(tmp_path / "d", "the test images have 2 x 2 pixels, expected 3 x 2 pixels")
    write(tmp_path / "e", **{NAMES[0]: CONTENTS[NAMES[0]][:-1]})
    assert "fsp data fetch" not in refused(tmp_path / "e", "truncated", "undamaged")
    write(tmp_path / "f", **{NAMES[1]: idx(np.full(12, 200))})
    refused(tmp_path / "f", "labels run from 200 to 200", "fewer than the 17 images")
    (tmp_path / "g").mkdir()
    refused(tmp_path / "g", "neither IDX files")
    write(tmp_path / "h", **{NAMES[0]: bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 28, 28)})
    refused(tmp_path / "h", "claims")
    with pytest.raises(ConfigurationError, match="validation = 12, expected a whole number from 0 to 11"):
        read_dataset(write(tmp_path / "i"), validation=12)
    with pytest.raises(ConfigurationError, match="limit = 11, expected a whole number from 1 to 10"):
        read_dataset(tmp_path / "i", limit=11)


# npz


def npz(path: Path, **changed) -> Path:
    """An archive of 30 + 6 images of 5 x 3 pixels in 4 classes (None: that array is left out)."""
    rng = np.random.default_rng(2)
    arrays = {
        "images": rng.integers(0, 256, (30, 5, 3), np.uint8),
        "labels": np.arange(30) % 4,
        "test_images": rng.integers(0, 256, (6, 5, 3), np.uint8),
        "test_labels": np.arange(6) % 4,
    } | changed
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_an_npz_is_a_data_set(tmp_path) -> None:
    path = npz(tmp_path / "usps.npz")
    data, held = read_dataset(path), np.load(path)
    assert (data.name, data.classes, data.image_shape, data.notes) == ("usps", 4, (5, 3), ())
    assert [len(part) for part in (data.train, data.valid, data.test)] == [25, 5, 6]
    np.testing.assert_array_equal(data.train.images, held["images"][:25].reshape(25, 15) / np.float32(255))
    np.testing.assert_array_equal(data.test.labels, held["test_labels"])
    assert data.digests == {"usps.npz": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_the_names_of_other_collections_are_read(tmp_path) -> None:
    held = np.load(npz(tmp_path / "a.npz"))
    x, y, x_test, y_test = (held[key] for key in ("images", "labels", "test_images", "test_labels"))
    np.savez(tmp_path / "keras.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    column = {"train_labels": y[:, None], "val_labels": y_test[:, None], "test_labels": y_test[:, None]}
    np.savez(tmp_path / "medical.npz", train_images=x, val_images=x_test, test_images=x_test, extra=y, **column)
    np.testing.assert_array_equal(
        read_dataset(tmp_path / "keras.npz").train.images, read_dataset(tmp_path / "a.npz").train.images
    )
    data = read_dataset(tmp_path / "medical.npz")
    assert [len(part) for part in (data.train, data.valid, data.test)] == [30, 6, 6]
    assert data.notes == ("medical.npz also holds extra, which was not read",)
    with pytest.raises(ConfigurationError, match="validation = 3, expected None"):
        read_dataset(tmp_path / "medical.npz", validation=3)


def test_a_folder_of_records_of_any_number_is_a_data_set(tmp_path) -> None:
    """Names of the classes are taken from the file beside them; labels are never shifted."""
    place = small_colours.write(tmp_path, "cifar10", **{"batches.meta.txt": b"a\nb\n\n"})
    with pytest.raises(DatasetError, match=r"the label of record .* expected 0 to 1"):
        read_dataset(place)
    (place / "batches.meta.txt").write_text("\n".join(CLASS_NAMES["cifar10"]) + "\n\n")
    data, (images, labels) = read_dataset(place), small_colours.part("cifar10")
    assert repr(data) == "<Dataset cifar-10-batches-bin: 17 train, 3 valid, 20 test; 3 x 32 x 32 pixels, 10 classes>"
    assert data.class_names == CLASS_NAMES["cifar10"]
    assert list(data.digests) == [*small_colours.TRAIN["cifar10"], "test_batch.bin"]
    np.testing.assert_array_equal(data.train.images, images[:17].reshape(17, 3072) / np.float32(255))
    np.testing.assert_array_equal(data.train.labels, labels[:17])
    for file in place.iterdir():
        file.unlink()
    from_1 = small_colours.Part(images[:6], np.array([1, 2, 1, 2, 1, 2]))
    (place / "data_batch_1.bin").write_bytes(small_colours.records("cifar10", from_1))
    with pytest.warns(DataWarning, match="1 of 3 classes have no image"):
        data = read_dataset(place)
    assert (len(data.train), len(data.test), data.class_names) == (5, 1, ())
    assert set(data.train.labels) == {1, 2}


@pytest.mark.parametrize("content", [b"", b"?" * 3073, small_colours.contents("cifar100")["test.bin"][:-1]])
def test_what_are_no_records_is_refused(tmp_path, content) -> None:
    place = small_colours.write(tmp_path, "cifar100", **{"test.bin": content})
    said = f"test.bin: {len(content)} bytes long, expected a multiple of 3074 (records of 2 bytes of labels and 3072"
    refused(place, said)
    small_colours.write(tmp_path, "cifar100", **{"fine_label_names.txt": b"\xff"})
    refused(place, "fine_label_names.txt: is no text")


def test_images_in_colour_are_read(tmp_path) -> None:
    """With the channels last, as Keras has them, or first."""
    images = np.random.default_rng(0).integers(0, 256, (30, 5, 4, 3)).astype(np.uint8)
    last = read_dataset(npz(tmp_path / "last.npz", images=images, test_images=images[:6]))
    first = np.moveaxis(images, 3, 1)
    data = read_dataset(npz(tmp_path / "first.npz", images=first, test_images=first[:6]))
    assert data.image_shape == last.image_shape == (3, 5, 4)
    np.testing.assert_array_equal(data.train.images, last.train.images)
    np.testing.assert_array_equal(data.test.images, first[:6].reshape(6, 60) / np.float32(255))


def test_floats_and_columns_first_are_read(tmp_path) -> None:
    images = np.asfortranarray(np.random.default_rng(0).random((30, 15)))
    data = read_dataset(npz(tmp_path / "a.npz", images=images, test_images=images[:6]))
    np.testing.assert_array_equal(data.train.images, images[:25].astype(np.float32))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": None}, "lacks the array images"),
        ({"images": None, "labels": None}, "expected arrays images and labels, or train_images and train_labels"),
        ({"test_labels": None}, "lacks the array test_labels"),
        ({"x_train": np.zeros(1)}, "holds images and x_train, expected one of them"),
        ({"images": np.full((30, 5, 3), 255.0)}, "images[0, 0, 0] = 255.0, expected pixels in [0, 1]"),
        ({"images": np.full((30, 5, 3), np.nan)}, "images[0, 0, 0] = nan"),
        ({"images": np.zeros((30, 5, 3), int)}, "dtype int64, expected floats in [0, 1] or uint8"),
        ({"images": np.zeros((30, 5, 4, 2), np.uint8)}, "expected (B, c, h, w) or (B, h, w, c) with c = 1 or 3"),
        ({"labels": np.arange(29)}, "labels has shape (29,), expected (30,)"),
        ({"labels": np.zeros(30)}, "dtype float64, expected integers"),
        ({"labels": np.array(["a"] * 30, object)}, "dtype object, expected numbers; nothing is unpickled"),
        ({"labels": np.arange(30) - 1}, "labels run from -1 to 28"),
        ({"labels": np.full(30, 10**9)}, "labels run from 1000000000 to 1000000000"),
        ({"test_images": np.zeros((6, 15), np.uint8)}, "the test images have 15 pixels, expected 5 x 3 pixels"),
    ],
)
def test_what_is_no_npz_of_images_is_refused(tmp_path, changed, said) -> None:
    refused(npz(tmp_path / "a.npz", **changed), said)


def test_a_damaged_npz_is_refused(tmp_path) -> None:
    path = npz(tmp_path / "a.npz")
    content = path.read_bytes()
    for damaged in (b"", b"PK", content[: len(content) // 2], content[:200] + b"\x00" * 8 + content[208:]):
        path.write_bytes(damaged)
        refused(path, "not an intact .npz", "numpy.savez")


def test_no_more_is_read_than_an_npz_holds(tmp_path) -> None:
    """A header that claims 2 TiB, and an archive that claims more than is allowed."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**31, 32, 32)})
    held = np.load(npz(tmp_path / "a.npz"))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + b"\0" * 64)
        with archive.open("labels.npy", "w") as file:
            np.lib.format.write_array(file, held["labels"])
    refused(tmp_path / "b.npz", "images claims 2199023255552 bytes, but 64 are there")


# Pictures


def pictures(root: Path, classes: dict[str, int], size=(4, 6), mode: str = "L", suffix: str = "png") -> Path:
    """So many pictures for each class; those of class k are all of grey value 10 k + 5."""
    for k, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new(mode, size[::-1], (10 * k + 5,) * 3 if mode == "RGB" else 10 * k + 5).save(
                root / name / f"{i:03}.{suffix}"
            )
    return root


def grey(data: Dataset, part: str) -> np.ndarray:
    return np.round(getattr(data, part).images[:, 0] * 255).astype(int)


def test_class_folders_are_a_data_set(tmp_path) -> None:
    data = read_dataset(pictures(tmp_path / "shapes", {"circle": 12, "square": 24, "triangle": 36}))
    assert (data.name, data.classes, data.image_shape) == ("shapes", 3, (4, 6))
    assert data.class_names == ("circle", "square", "triangle")
    assert [len(part) for part in (data.train, data.valid, data.test)] == [50, 10, 12]
    for part in ("train", "valid", "test"):
        np.testing.assert_array_equal(grey(data, part), 10 * getattr(data, part).labels + 5)
        share = np.bincount(getattr(data, part).labels, minlength=3) / len(getattr(data, part))
        assert abs(share - [1 / 6, 2 / 6, 3 / 6]).max() < 0.09, "each part holds each class in proportion"
    assert "no test part" in data.notes[0]


def test_folders_of_parts_are_the_parts(tmp_path) -> None:
    pictures(tmp_path / "train", {"10": 6, "9": 12, "2": 6})
    pictures(tmp_path / "test", {"9": 3, "2": 2})
    data = read_dataset(tmp_path, validation=4)
    assert data.class_names == ("2", "9", "10")
    assert [len(part) for part in (data.train, data.valid, data.test)] == [20, 4, 5]
    assert data.test.labels.tolist() == [0, 0, 1, 1, 1]
    assert set(data.valid.labels) == {0, 1, 2}
    assert set(data.digests) == {"train", "test"}
    listing = subprocess.run(
        "find . -type f | sed 's,^./,,' | LC_ALL=C sort | xargs sha256sum | sha256sum",
        shell=True, cwd=tmp_path / "train", capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert data.digests["train"] == listing.split()[0]
    pictures(tmp_path / "val", {"2": 3})
    assert len(read_dataset(tmp_path).valid) == 3


def test_a_digest_follows_pictures_and_names(tmp_path) -> None:
    before = read_dataset(pictures(tmp_path, {"a": 6, "b": 6})).digests
    assert read_dataset(tmp_path).digests == before
    (tmp_path / "a" / "000.png").rename(tmp_path / "a" / "zzz.png")
    renamed = read_dataset(tmp_path).digests
    Image.new("L", (6, 4), 77).save(tmp_path / "b" / "003.png")
    assert len({tuple(d.values()) for d in (before, renamed, read_dataset(tmp_path).digests)}) == 3


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "pgm"])
def test_each_kind_of_picture_is_read(tmp_path, suffix) -> None:
    data = read_dataset(pictures(tmp_path, {"a": 6, "b": 6}, suffix=suffix))
    np.testing.assert_array_equal(grey(data, "train"), 10 * data.train.labels + 5)


def test_colours_become_grey_with_a_note(tmp_path) -> None:
    grey_in_colour = read_dataset(pictures(tmp_path / "a", {"a": 6, "b": 6}, mode="RGB"))
    assert len(grey_in_colour.notes) == 1
    np.testing.assert_array_equal(grey(grey_in_colour, "train"), 10 * grey_in_colour.train.labels + 5)
    Image.new("RGB", (6, 4), (200, 0, 100)).save(tmp_path / "a" / "a" / "000.png")
    data = read_dataset(tmp_path / "a")
    assert data.notes[0] == "1 of 12 pictures are in colour and were turned into grey"
    luma = round(0.299 * 200 + 0.114 * 100)
    assert luma in np.concatenate([grey(data, part) for part in ("train", "valid", "test")])


def test_what_is_no_folder_of_pictures_is_refused(tmp_path) -> None:
    root = pictures(tmp_path / "a", {"a": 6, "b": 6})
    (root / ".DS_Store").write_bytes(b"x")
    (root / "a" / "Thumbs.db").write_bytes(b"x")
    (root / "README.txt").write_bytes(b"x")
    assert read_dataset(root).classes == 2
    other = root / "a" / "other.png"
    Image.new("L", (5, 4)).save(other)
    assert str(other) in refused(root, "4 x 5 pixels, expected 4 x 6")
    Image.new("RGBA", (6, 4)).save(other)
    refused(root, str(other), "mode RGBA, expected grey")
    Image.new("I;16", (6, 4)).save(other)
    refused(root, str(other), "mode I;16")
    for content in (b"", b"no picture", (root / "a" / "000.png").read_bytes()[:50]):
        other.write_bytes(content)
        refused(root, str(other), "undamaged")
    other.unlink()
    (root / "a" / "notes.txt").write_bytes(b"x")
    refused(root, "notes.txt: expected a picture (.png")
    (root / "a" / "notes.txt").unlink()
    (root / "c").mkdir()
    refused(root, "c: holds no pictures")
    (root / "c").rmdir()
    Image.new("L", (6, 4)).save(root / "loose.png")
    refused(root, "loose.png: a picture outside the class folders")


def test_parts_that_do_not_fit_are_refused(tmp_path) -> None:
    pictures(tmp_path / "train", {"a": 6, "b": 6})
    pictures(tmp_path / "test", {"a": 2, "z": 2})
    refused(tmp_path, str(tmp_path / "test" / "z"), "a class without training images")
    (tmp_path / "test").rename(tmp_path / "more")
    refused(tmp_path, "more: stands beside train")
    (tmp_path / "more").rename(tmp_path / "training")
    refused(tmp_path, "holds train and training, expected one of them")


def test_too_many_pixels_are_refused_before_they_are_read(tmp_path, monkeypatch) -> None:
    from fsp_dynamics.datasets import files

    pictures(tmp_path, {"a": 6, "b": 6})
    monkeypatch.setattr(files, "LARGEST", 12 * 4 * 6 - 1)
    refused(tmp_path, "12 pictures of 4 x 6 pixels are more than 287 bytes")


def test_pillow_is_imported_for_pictures_alone(tmp_path) -> None:
    npz(tmp_path / "a.npz")
    code = (
        "import sys, fsp_dynamics.datasets as d\n"
        f"d.read_dataset({str(tmp_path / 'a.npz')!r})\n"
        "assert not {'PIL', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# What was read is known again


def test_other_images_are_refused_by_their_digests(tmp_path) -> None:
    data = read_dataset(npz(tmp_path / "a.npz"))
    recorded = data.fingerprint()
    assert recorded == data.digests
    data.check_fingerprint(recorded)
    read_dataset(tmp_path / "a.npz", limit=3).check_fingerprint(recorded)
    other = read_dataset(npz(tmp_path / "a.npz", labels=np.arange(30) % 3))
    with pytest.raises(DatasetError, match=r"a\.npz: SHA-256 of a\.npz is \w{64}, expected \w{64}"):
        other.check_fingerprint(recorded)
    with pytest.raises(DatasetError, match="SHA-256 of more is missing"):
        data.check_fingerprint(recorded | {"more": "0"})
