"""A data set from files of your own: IDX files, an ``.npz``, records, or a folder of pictures."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fsp_dynamics.datasets.array_files import npy_member, opened_npz
from fsp_dynamics.datasets.arrays import Part, Parts, assembled, checked_part
from fsp_dynamics.datasets.idx import LARGEST, digest_of, parse_idx
from fsp_dynamics.datasets.pictures import has_class_folders, read_pictures
from fsp_dynamics.datasets.record_files import layout_of, read_records
from fsp_dynamics.datasets.records import Dataset
from fsp_dynamics.errors import ConfigurationError, DatasetError, NotFiniteError, ShapeError
from fsp_dynamics.folders import expanded

IDX_IMAGES = re.compile(r"(?P<set>.*?)[-_]?(?P<part>train|t10k|test)?[-_]?images[-._]idx3[-._]ubyte(?:\.gz)?")
NPZ_KEYS = {
    "train": (("images", "labels"), ("train_images", "train_labels"), ("x_train", "y_train")),
    "valid": (("valid_images", "valid_labels"), ("val_images", "val_labels"), ("x_valid", "y_valid")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}


def read_dataset(
    path: str | Path, *, name: str | None = None, validation: int | None = None, limit: int | None = None
) -> Dataset:
    """The data set in `path`, of any number of classes and pixels; what the path is decides how it
    is read.

    ``NAME.npz`` : arrays ``images`` (B, n_in), (B, h, w), (B, 3, h, w) or (B, h, w, 3), uint8 or
        floats in [0, 1], and ``labels`` (B,) integers; ``test_images``, ``test_labels`` and
        ``valid_images``, ``valid_labels`` if there are such parts. ``train_images``,
        ``val_images`` and Keras' ``x_train``, ``y_train`` are read as well. Nothing is unpickled.
    an IDX file : the images, ``[SET-][train-]images-idx3-ubyte``, gzipped or not; the labels
        (``labels-idx1-ubyte``) lie beside it, and so do the test images (``t10k`` or ``test`` in
        place of ``train``) if there are any.
    a folder : IDX files of one set under these names (as MNIST, KMNIST and EMNIST have), in it or
        in its folder ``raw``; or any number of records under the names of CIFAR-10
        (``data_batch_*.bin``, ``test_batch.bin``) or CIFAR-100 (``train.bin``, ``test.bin``), the
        names of their classes beside them or not; or folders
        ``train`` and, if there are such parts, ``test`` and ``valid``, or no such folders but
        those of the classes. Each class is a folder of pictures (PNG, JPEG, BMP, PGM, TIFF), all
        of one size; colours are turned into grey.

    Labels that start at 1 (EMNIST letters) are shifted by one, and the class names remember them.
    The classes of a folder are its class folders, sorted: by number if all are numbers, else by
    name. Files without a test part, and files that are sorted by class, are split as
    `dataset_from_arrays` describes; `Dataset.notes` holds what was done, `Dataset.digests` the
    SHA-256 of every file (of IDX files: unpacked; of a folder: of the list that `sha256sum`
    would write of its files, in the order of their paths).

    Parameters
    ----------
    name : what the data set is called; from the path if None.
    validation : so many images from the end of the training images (default a sixth).
    limit : keep only so many images, the first, of what is then left for training.

    Raises DatasetError for files that are missing, damaged or not as described,
    ConfigurationError for an impossible number.

    Returns
    -------
    Dataset : train, valid and test, images (B, n_in) float32 in [0, 1] and labels (B,) int64.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> np.savez("own.npz", images=rng.random((60, 8, 8)), labels=rng.integers(0, 3, 60))
    >>> read_dataset("own.npz")
    <Dataset own: 42 train, 8 valid, 10 test; 8 x 8 pixels, 3 classes>
    """
    path = expanded(path, "path")
    kind, given, digests, class_names, notes = _read(path)
    parts, known = Parts(*given), len(class_names) if kind == "records" and class_names else None
    _check(parts, path, known)
    if kind in ("idx", "npz"):
        parts, class_names, remark = _from_0(parts)
        notes += remark
    return assembled(
        parts,
        name=name or _name_of(path),
        classes=known,
        validation=validation,
        limit=limit,
        source=str(path),
        digests=digests,
        class_names=class_names,
        notes=notes,
    )


Found = tuple[str, tuple[Part, Part | None, Part | None], dict[str, str], tuple[str, ...], tuple[str, ...]]
"""Kind, (train, valid, test), digests, class names, notes."""


def _read(path: Path) -> Found:
    """What the path holds, unsplit. Raises DatasetError."""
    try:
        if path.is_dir():
            return _read_folder(path)
        if not path.exists():
            raise DatasetError(f"{path}: there is no such file or folder; expected IDX files, .npz or class folders")
        if path.suffix == ".npz":
            return _read_npz(path)
        return _read_idx_files(path)
    except DatasetError:
        raise
    except (ConfigurationError, ShapeError, NotFiniteError) as error:
        raise DatasetError(f"{path}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read_folder(folder: Path) -> Found:
    """IDX files if there are any, else pictures."""
    matches = ((_unnested(file), IDX_IMAGES.fullmatch(file.name)) for file in sorted(folder.iterdir()))
    idx = {file: match for file, match in matches if match and file.is_file()}
    sets: dict[str, Path] = {}
    for file, match in idx.items():
        if match["part"] in (None, "train") and match["set"] not in sets:
            sets[match["set"]] = file
    if len(sets) > 1:
        listed = ", ".join(file.name for file in sets.values())
        raise DatasetError(f"{folder}: holds {len(sets)} sets of IDX files; give one of these files: {listed}")
    if sets:
        return _read_idx_files(next(iter(sets.values())))
    if idx:
        raise DatasetError(
            f"{folder}: holds {next(iter(idx)).name}, expected training images (train-images-idx3-ubyte)"
        )
    raw = folder / "raw"  # where torchvision puts them
    if raw.is_dir() and any(IDX_IMAGES.fullmatch(file.name) for file in raw.iterdir()):
        return _read_folder(raw)
    if layout := layout_of(folder):
        records = read_records(folder, layout, LARGEST)
        return "records", (records.train, None, records.test), records.digests, records.class_names, ()
    if not has_class_folders(folder):
        raise DatasetError(
            f"{folder}: holds neither IDX files (train-images-idx3-ubyte, .gz or not), records (data_batch_1.bin) nor "
            "class folders of pictures; give the folder or file that does"
        )
    read = read_pictures(folder, LARGEST)
    return "pictures", (read.train, read.valid, read.test), read.digests, read.class_names, read.notes


def _read_idx_files(images: Path) -> Found:
    """The IDX files of the set to which the file of images belongs."""
    match = IDX_IMAGES.fullmatch(images.name)
    if match is None:
        raise DatasetError(
            f"{images}: not the name of a data set; expected NAME.npz, a folder, "
            "or IDX images (train-images-idx3-ubyte, .gz or not)"
        )
    if match["part"] in ("t10k", "test"):
        raise DatasetError(f"{images}: these are test images; give the file of the training images, or the folder")
    digests: dict[str, str] = {}
    train, test = _idx_part(images, digests), None
    if match["part"]:
        at = match.start("part")
        for word in ("t10k", "test"):
            beside = _beside(images, images.name[:at] + word + images.name[match.end("part") :])
            test = _idx_part(beside, digests) if beside and test is None else test
    return "idx", (train, None, test), digests, (), ()


def _idx_part(images: Path, digests: dict[str, str]) -> Part:
    """The images of that file and the labels beside it; `digests` gains both."""
    wanted = "labels".join(images.name.rsplit("images", 1)).replace("idx3", "idx1")
    labels = _beside(images, wanted)
    if labels is None:
        raise DatasetError(
            f"{images}: its labels are missing; expected the file {wanted.removesuffix('.gz')} beside it"
        )
    found = []
    for file, shape in ((images, (None, None, None)), (labels, (None,))):
        try:
            with file.open("rb") as opened:
                found.append(parse_idx(opened, str(file), shape, None))
        except DatasetError as error:
            raise DatasetError(f"{error}; put the undamaged file in its place") from error
        digests[file.name.removesuffix(".gz")] = digest_of(found[-1])
    if len(found[0]) != len(found[1]):
        raise DatasetError(f"{labels}: holds {len(found[1])} labels, expected {len(found[0])}, one for each image")
    return Part(*found)


def _beside(file: Path, name: str) -> Path | None:
    """The file of that name in the same folder, unpacked or else gzipped, if there is one; of a
    file within a folder of its own name: in the folder that holds this one.
    """
    bare = (file.parent if file.parent.name == file.name else file).with_name(name.removesuffix(".gz"))
    return next((path for path in (_unnested(bare), bare.with_name(f"{bare.name}.gz")) if path.is_file()), None)


def _unnested(path: Path) -> Path:
    """The file of the same name within a folder, as some archives unpack; else the path itself."""
    return path / path.name if (path / path.name).is_file() else path


def _read_npz(path: Path) -> Found:
    """The arrays of an .npz, by their documented names; others are left unread, with a note."""
    content = _limited(path)
    with opened_npz(path, path) as (archive, held):
        taken = {part: _pair(part, held, path) for part in NPZ_KEYS}
        arrays = {key: npy_member(archive, held[key], path) for pair in taken.values() for key in pair}
    parts = {part: _npz_part(part, pair, arrays, path) for part, pair in taken.items()}
    others = sorted(set(held) - set(arrays))
    notes = (f"{path.name} also holds {', '.join(others)}, which was not read",) if others else ()
    assert parts["train"] is not None
    return "npz", (parts["train"], parts["valid"], parts["test"]), {path.name: content}, (), notes


def _limited(path: Path) -> str:
    """SHA-256 of a file that is not larger than allowed."""
    if path.stat().st_size > LARGEST:
        raise DatasetError(f"{path}: {path.stat().st_size} bytes long, expected at most {LARGEST}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pair(part: str, held: dict[str, zipfile.ZipInfo], path: Path) -> tuple[str, ...]:
    """The names of images and labels of that part, or none. Raises DatasetError."""
    present = [pair for pair in NPZ_KEYS[part] if set(pair) & set(held)]
    known = ", or ".join(" and ".join(pair) for pair in NPZ_KEYS[part])
    if len(present) > 1:
        raise DatasetError(f"{path}: holds {' and '.join(pair[0] for pair in present)}, expected one of them")
    if not present and part == "train":
        raise DatasetError(f"{path}: holds {', '.join(sorted(held)) or 'nothing'}; expected arrays {known}")
    lacking = [key for pair in present for key in pair if key not in held]
    if lacking:
        raise DatasetError(f"{path}: lacks the array {lacking[0]}; expected {known}")
    return present[0] if present else ()


def _npz_part(part: str, pair: tuple[str, ...], arrays: dict[str, npt.NDArray[Any]], path: Path) -> Part | None:
    """The checked part, whose labels may be a column (B, 1)."""
    if not pair:
        return None
    images, labels = (arrays[key] for key in pair)
    return checked_part(
        "" if part == "train" else f"{part}_", images, labels[:, 0] if labels.shape[1:] == (1,) else labels
    )


def _from_0(parts: Parts) -> tuple[Parts, tuple[str, ...], tuple[str, ...]]:
    """The parts with labels from 0, and, where they started at 1, the class names and a note."""
    given = [part for part in parts if part is not None]
    if min(int(part.labels.min()) for part in given) != 1:
        return parts, (), ()
    largest = max(int(part.labels.max()) for part in given)
    train, valid, test = (part and Part(part.images, part.labels - 1) for part in parts)
    assert train is not None
    names = tuple(str(label) for label in range(1, largest + 1))
    note = f"labels start at 1: classes 1 to {largest} are outputs 0 to {largest - 1}"
    return Parts(train, valid, test), names, (note,)


def _check(parts: Parts, path: Path, known: int | None) -> None:
    """Refuse parts whose images differ in size, labels that are no class numbers, and too few
    images. known : so many classes there are; None: fewer than images. Raises DatasetError.
    """
    given = [part for part in parts if part is not None]
    count, start = sum(len(part.labels) for part in given), min(int(part.labels.min()) for part in given)
    for name, part in zip(Parts._fields, parts, strict=True):
        if part is None:
            continue
        if part.images.shape[1:] != parts.train.images.shape[1:]:
            raise DatasetError(
                f"{path}: the {name} images have {_by(part)}, expected {_by(parts.train)} as the training images"
            )
        low, high = int(part.labels.min()), int(part.labels.max())
        if known is None and (low < 0 or high - (start == 1) >= count):
            raise DatasetError(
                f"{path}: the {name} labels run from {low} to {high}, expected class numbers from 0 or 1, "
                f"fewer than the {count} images"
            )
    if parts.test is None and count < 2:
        raise DatasetError(f"{path}: holds 1 image, expected at least 2, of which one is the test part")


def _by(part: Part) -> str:
    return " x ".join(map(str, part.images.shape[1:])) + " pixels"


def _name_of(path: Path) -> str:
    """EMNIST's set, the name of the file, or that of the folder."""
    match = IDX_IMAGES.fullmatch(path.name)
    if match:
        return match["set"] or path.absolute().parent.name
    return path.absolute().name if path.is_dir() else path.stem
