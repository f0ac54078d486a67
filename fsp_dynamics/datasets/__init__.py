"""The images: found, fetched, verified, read and split. Nothing is searched or downloaded before a
function is called.

`digits` needs nothing (scikit-learn carries it); `mnist` and `fashion-mnist` are looked for where
`sources` says, then downloaded. Pixels are divided by their maximum (255; 16 for digits); no mean
is removed. `idx` reads the published files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets.digits import PARTS, Pixels, read_digits
from fsp_dynamics.datasets.idx import read_idx
from fsp_dynamics.datasets.registry import SOURCES, Progress, fetch_published, find, read_all, where_it_was_sought
from fsp_dynamics.errors import ConfigurationError, DatasetError, ShapeError, check_choice, check_finite, check_shape

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetRecord",
    "Progress",
    "Split",
    "dataset_from_arrays",
    "fetch",
    "list_datasets",
    "load_dataset",
    "read_idx",
]

DATASETS = {
    "digits": "1,797 handwritten digits, 8 x 8 pixels, 10 classes (bundled with scikit-learn)",
    "mnist": "70,000 handwritten digits, 28 x 28 pixels, 10 classes (LeCun, Cortes and Burges)",
    "fashion-mnist": "70,000 pictures of clothing, 28 x 28 pixels, 10 classes (Xiao, Rasul and Vollgraf, 2017)",
}


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images (B, n_in) float32 in [0, 1], C-contiguous, and their labels (B,) int64. Raises
    ShapeError where they do not fit.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        check_shape("images", self.images, (None, None))
        check_shape("labels", self.labels, (len(self.images),))
        object.__setattr__(self, "images", np.ascontiguousarray(self.images, np.float32))
        object.__setattr__(self, "labels", np.ascontiguousarray(self.labels, np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<Split of {len(self)} images of {self.images.shape[1]} pixels>"

    def one_hot(self, classes: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Targets (B, classes): 1 in the column of the label, 0 elsewhere. Raises
        ConfigurationError for a label >= classes.
        """
        _check_labels("labels", self.labels, classes)
        targets = np.zeros((len(self), classes), dtype)
        targets[np.arange(len(self)), self.labels] = 1
        return targets

    def limit(self, n: int) -> Split:
        """The first `n` images, as views. Raises ConfigurationError unless 1 <= n <= B."""
        _check_count("limit", n, 1, len(self))
        return Split(self.images[:n], self.labels[:n])


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images to train with, to choose with (`valid`, which may be empty) and to report on, all (B,
    n_in) of n_in = h w pixels.

    image_shape : (h, w), row by row. source : the folder or file the images came from.
    """

    name: str
    classes: int
    train: Split
    valid: Split
    test: Split
    image_shape: tuple[int, int]
    source: str

    def __repr__(self) -> str:
        parts = ", ".join(f"{len(getattr(self, part))} {part}" for part in ("train", "valid", "test"))
        return f"<Dataset {self.name}: {parts}; {self.image_shape[0]} x {self.image_shape[1]} pixels, {self.classes} classes>"


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """What `list_datasets` knows: `where` it was found, if it was; `images` in all; `verified`
    bytes, or the `problem`.
    """

    name: str
    description: str
    where: str | None
    images: int
    verified: bool
    problem: str


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    validation: int | None = None,
    limit: int | None = None,
    download: bool = True,
) -> Dataset:
    """The data set `name`, one of `DATASETS`, split the same way every time.

    mnist, fashion-mnist : validation is the last 10,000 of the 60,000 training images, the test
    images are the published 10,000.
    digits : 1197 training, 200 validation and 400 test images, in a fixed shuffled order (raw
    PCG64 numbers of seed 0, which no NumPy release changes) in which the classes take turns, so
    that each part holds every class about equally often.

    Parameters
    ----------
    data_dir : where to look first, in place of ``$FSP_DATA``.
    validation : so many images from the end of the training images; 0 leaves `valid` empty.
    limit : keep only so many images, the first, of what is then left for training.
    download : whether missing files may be fetched; they go where `fetch` puts them.

    Raises ConfigurationError for an unknown name or an impossible number, before anything is read,
    DatasetError for files that are missing or damaged.
    """
    check_choice("dataset", name, DATASETS)
    total = sum(PARTS[:2]) if name == "digits" else SOURCES[name].files[0].shape[0]
    default = PARTS[1] if name == "digits" else total // 6
    validation = _check_count("validation", default if validation is None else validation, 0, total - 1)
    keep = total - validation
    if limit is not None:
        keep = _check_count("limit", limit, 1, keep)
    pixels = read_digits() if name == "digits" else _published(name, data_dir, download)
    start = total - validation
    return Dataset(
        name=name,
        classes=10,
        train=_scaled(pixels.images[:keep], pixels.labels[:keep], pixels.top),
        valid=_scaled(pixels.images[start:], pixels.labels[start:], pixels.top),
        test=_scaled(pixels.test_images, pixels.test_labels, pixels.top),
        image_shape=_image_shape(pixels.images.shape[1:], None),
        source=pixels.source,
    )


def dataset_from_arrays(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    test_images: npt.ArrayLike,
    test_labels: npt.ArrayLike,
    *,
    validation: int | None = None,
    classes: int | None = None,
    image_shape: tuple[int, int] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A data set of your own images, (B, n_in) or (B, h, w): floats in [0, 1], or uint8, which is
    divided by 255; labels (B,) integers.

    validation : so many images from the end of the training images (default a sixth). classes :
        the largest label + 1 if None.
    image_shape : from (B, h, w), else a square if n_in allows one, else one row.

    Raises ShapeError, NotFiniteError for NaN pixels, ConfigurationError for empty data and for
    pixels or labels out of range.
    """
    pixels, numbers = _array("images", images), _array("labels", labels)
    test_pixels, test_numbers = _array("test_images", test_images), _array("test_labels", test_labels)
    for field, part, digits in (("", pixels, numbers), ("test_", test_pixels, test_numbers)):
        _check_pixels(f"{field}images", part)
        check_shape(f"{field}labels", digits, (len(part),))
        if not np.issubdtype(digits.dtype, np.integer):
            raise ConfigurationError(
                f"{field}labels have dtype {digits.dtype}, expected integers (class numbers from 0)"
            )
    check_shape("test_images", test_pixels, (None, *pixels.shape[1:]))
    if classes is None:
        classes = max(int(numbers.max()), int(test_numbers.max()), 0) + 1
    _check_count("classes", classes, 1, None)
    _check_labels("labels", numbers, classes)
    _check_labels("test_labels", test_numbers, classes)
    start = len(pixels) - _check_count(
        "validation", len(pixels) // 6 if validation is None else validation, 0, len(pixels) - 1
    )
    return Dataset(
        name=name,
        classes=classes,
        train=_scaled(pixels[:start], numbers[:start], 255),
        valid=_scaled(pixels[start:], numbers[start:], 255),
        test=_scaled(test_pixels, test_numbers, 255),
        image_shape=_image_shape(pixels.shape[1:], image_shape),
        source="arrays",
    )


def list_datasets(data_dir: str | Path | None = None) -> list[DatasetRecord]:
    """One record for each of `DATASETS`; what is found is read and verified (a second or so).
    Nothing is downloaded.
    """
    records = []
    for name, description in DATASETS.items():
        count = sum(PARTS) if name == "digits" else sum(file.shape[0] for file in SOURCES[name].files[::2])
        where, problem = None, ""
        try:
            if name == "digits":
                where = read_digits().source
            elif (folder := find(name, data_dir)) is None:
                problem = "not found; " + where_it_was_sought(name, data_dir)
            else:
                where = str(folder)
                read_all(name, folder)
        except DatasetError as error:
            problem = str(error)
        records.append(DatasetRecord(name, description, where, count, where is not None and not problem, problem))
    return records


def fetch(name: str, data_dir: str | Path | None = None, progress: Progress = False) -> Path:
    """The folder (digits: the file) that holds `name`, verified, after downloading what is missing
    or damaged.

    Downloads go to ``data_dir/NAME``, or to the user's cache if that is None, in which case files
    found elsewhere are taken as they are.
    progress : True for a bar on stderr, or a callable that is given the file's name and the bytes
        received so far.

    Raises ConfigurationError for an unknown name, DatasetError if no mirror gives the files, or if
    files elsewhere than in the destination are damaged.
    """
    check_choice("dataset", name, DATASETS)
    return Path(read_digits().source) if name == "digits" else fetch_published(name, data_dir, progress)


def _published(name: str, data_dir: str | Path | None, download: bool) -> Pixels:
    """The verified images and labels, fetched if they must and may be. Raises DatasetError naming
    every place looked at.
    """
    folder = find(name, data_dir)
    if folder is None:
        sought, refusal = where_it_was_sought(name, data_dir), "download was not allowed"
        try:
            folder = fetch(name, data_dir) if download else None
        except DatasetError as error:
            refusal = str(error)
        if folder is None:
            raise DatasetError(
                f"{name} was not found; {sought}; {refusal}; put its {len(SOURCES[name].files)} IDX files (.gz or not) into FOLDER/{name} "
                f"and give --data-dir FOLDER or FSP_DATA=FOLDER, or run `fsp data fetch {name}` where there is a network"
            )
    images, labels, test_images, test_labels = read_all(name, folder)
    return Pixels(images, labels, test_images, test_labels, 255, str(folder))


def _scaled(pixels: npt.NDArray[Any], labels: npt.NDArray[Any], top: int) -> Split:
    """The split of these images; bytes are divided by `top`, floats are taken as they are."""
    flat = pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))
    images = np.divide(flat, np.float32(top), dtype=np.float32) if flat.dtype == np.uint8 else flat.astype(np.float32)
    return Split(images, labels.astype(np.int64))


def _image_shape(shape: tuple[int, ...], wanted: tuple[int, int] | None) -> tuple[int, int]:
    """(h, w) of images of this shape, (h, w) or (n_in,). Raises ShapeError."""
    pixels = math.prod(shape)
    if wanted is not None:
        if len(wanted) != 2 or min(wanted) < 1 or math.prod(wanted) != pixels:
            raise ShapeError(f"image_shape = {wanted}, expected (h, w) with h w = {pixels}, the pixels of each image")
        return wanted
    side = math.isqrt(pixels)
    square = (side, side) if side * side == pixels else (1, pixels)
    return (shape[0], shape[1]) if len(shape) == 2 else square


def _array(field: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ShapeError(f"{field} is not an array: {error}") from error


def _check_pixels(field: str, pixels: npt.NDArray[Any]) -> None:
    """Refuse what cannot be images (B, n_in) or (B, h, w)."""
    if pixels.ndim not in (2, 3):
        raise ShapeError(f"{field} has shape {pixels.shape}, expected (B, n_in) or (B, h, w)")
    if pixels.size == 0:
        raise ConfigurationError(
            f"{field} has shape {pixels.shape}: there is nothing in it; expected at least one image of one pixel"
        )
    if pixels.dtype == np.uint8:
        return
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ConfigurationError(f"{field} have dtype {pixels.dtype}, expected floats in [0, 1] or uint8")
    check_finite(field, pixels)
    outside = (pixels < 0) | (pixels > 1)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ConfigurationError(
            f"{field}{list(index)} = {pixels[index]}, expected pixels in [0, 1]; divide by the largest possible value"
        )


def _check_labels(field: str, labels: npt.NDArray[Any], classes: int) -> None:
    """Refuse labels that are not class numbers 0 .. classes - 1. Raises ConfigurationError."""
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise ConfigurationError(
            f"{field}[{outside[0]}] = {labels[outside[0]]}, expected 0 to {classes - 1} for {classes} classes ({len(outside)} are outside)"
        )


def _check_count(field: str, value: int, low: int, high: int | None) -> int:
    """`value` if it is a whole number from `low` to `high`. Raises ConfigurationError."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        raise ConfigurationError(
            f"{field} = {value!r}, expected a whole number from {low}" + ("" if high is None else f" to {high}")
        )
    return int(value)
