"""The records of a data set: `Split`, `Dataset`, and what `list_datasets` reports of one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fsp_dynamics.arrays import check_pixels, class_numbers, numbers
from fsp_dynamics.datasets.formats import ImageFormat, planes
from fsp_dynamics.display import html_table
from fsp_dynamics.errors import ConfigurationError, DatasetError, ShapeError, check_shape

PARTS = ("train", "valid", "test")
ORDER = "order of the labels"
"""The entry in the digests of a data set whose classes come in order, but unsorted: it was split
in that order before.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images (B, n_in) float32 in [0, 1], C-contiguous, and their labels (B,) int64, from anything
    that `arrays` takes for numbers.

    Raises ShapeError where they do not fit, ConfigurationError for bytes above 1 and for labels
    that are no whole numbers. Warns (DataWarning) of pixels far outside [0, 1].

    >>> data = Split(np.zeros((3, 4)), [0, 2, 1])
    >>> len(data), data.one_hot(3).tolist()[1], data.limit(2)
    (3, [0.0, 0.0, 1.0], <Split of 2 images of 4 pixels>)
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        images, labels = numbers("images", self.images), class_numbers("labels", self.labels)
        check_shape("images", images, (None, None))
        check_shape("labels", labels, (len(images),))
        check_pixels("images", images)
        object.__setattr__(self, "images", np.ascontiguousarray(images, np.float32))
        object.__setattr__(self, "labels", np.ascontiguousarray(labels, np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<Split of {len(self)} images of {self.images.shape[1]} pixels>"

    def one_hot(self, classes: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Targets (B, classes): 1 in the column of the label, 0 elsewhere. Raises
        ConfigurationError for a label >= classes.

        Returns
        -------
        array : (B, classes).
        """
        check_labels("labels", self.labels, classes)
        targets = np.zeros((len(self), classes), dtype)
        targets[np.arange(len(self)), self.labels] = 1
        return targets

    def limit(self, n: int) -> Split:
        """The first `n` images, as views. Raises ConfigurationError unless 1 <= n <= B.

        Returns
        -------
        Split : of n images.
        """
        check_count("limit", n, 1, len(self))
        return Split(self.images[:n], self.labels[:n])


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images to train with, to choose with (`valid`, which may be empty) and to report on, all (B,
    n_in) of n_in = h w pixels, or 3 h w in colour.

    image_shape : (h, w), row by row, or in colour (3, h, w), the planes R, G, B one after another.
        `planes` is (channels, h, w) for both.
    source : the folder or file the images came from.
    digests : SHA-256 (64 hexadecimal digits) of each file that was read, by its name; empty for
        images that were given as arrays.
    class_names : the name of each class, or empty where a class has no name but its number.
    notes : what was done to the images or labels beside reading them, one sentence each.
    top : what bytes were divided by.

    Raises ConfigurationError for parts that are empty (train, test) and for labels out of range,
    ShapeError where the pixels of a part are not those of image_shape.

    >>> import fsp_dynamics as fsp
    >>> data = fsp.load_dataset("digits")
    >>> data
    <Dataset digits: 1197 train, 200 valid, 400 test; 8 x 8 pixels, 10 classes>
    >>> list(data.fingerprint()), data.format.shape, data.planes
    (['digits'], (8, 8), (1, 8, 8))
    >>> data.check_fingerprint(data.fingerprint())
    """

    name: str
    classes: int
    train: Split
    valid: Split
    test: Split
    image_shape: tuple[int, ...]
    source: str
    digests: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    top: int = 255

    def __post_init__(self) -> None:
        check_count("classes", self.classes, 1, None)
        if self.class_names and len(self.class_names) != self.classes:
            raise ConfigurationError(
                f"class_names has {len(self.class_names)} names, expected {self.classes}, one for each class"
            )
        pixels = math.prod(planes(self.image_shape))
        for part in PARTS:
            split = getattr(self, part)
            if not len(split) and part != "valid":
                raise ConfigurationError(f"{part} holds no image, expected at least one")
            if split.images.shape[1] != pixels:
                raise ShapeError(
                    f"{part}.images has {split.images.shape[1]} pixels, expected {pixels}, "
                    f"those of image_shape = {self.image_shape}"
                )
            check_labels(f"{part}.labels", split.labels, self.classes)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, part))} {part}" for part in PARTS)
        pixels = " x ".join(map(str, self.image_shape))
        return f"<Dataset {self.name}: {counts}; {pixels} pixels, {self.classes} classes>"

    def _repr_html_(self) -> str:
        counts = {part: f"{len(getattr(self, part)):,} images" for part in PARTS}
        names = {"class names": ", ".join(self.class_names)} if self.class_names else {}
        pixels = {"pixels": " x ".join(map(str, self.image_shape)), "classes": self.classes}
        return html_table(f"Dataset {self.name}", counts | pixels | names | {"source": self.source})

    @property
    def planes(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image; grey images have 1 channel."""
        return planes(self.image_shape)

    @property
    def format(self) -> ImageFormat:
        """What further images must be, to be seen as these were."""
        return ImageFormat(self.image_shape, self.top, self.class_names)

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of what the data set was made of: `digests`, or, where nothing was read from
        files, those of its three parts (images and labels as they are kept).

        Returns
        -------
        dict : {file or part: 64 hexadecimal digits}.
        """
        return dict(self.digests) or {part: _split_digest(getattr(self, part)) for part in PARTS}

    def check_fingerprint(self, recorded: Mapping[str, str]) -> None:
        """Refuse images other than those whose `fingerprint` was `recorded`. Raises DatasetError
        naming the first file that differs.
        """
        own = self.fingerprint()
        if len(own) == len(recorded) == 1 and [*own.values()] == [*recorded.values()]:
            return  # one file, whatever it is called now
        if ORDER in own and ORDER not in recorded:
            raise DatasetError(
                f"{self.source}: the run began when images whose classes come one after another were split in their "
                "own order, which leaves classes untrained; train from the beginning in another folder"
            )
        for name in sorted({*own, *recorded}):
            if own.get(name) != recorded.get(name):
                raise DatasetError(
                    f"{self.source}: SHA-256 of {name} is {own.get(name, 'missing')}, "
                    f"expected {recorded.get(name, 'none')}: these are not the images the run began with; "
                    "put the former ones back, or train from the beginning in another folder"
                )


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """What `list_datasets` reports: `where` it was found, if it was; `images` in all; `verified`
    bytes, or the `problem`.

    >>> from fsp_dynamics.datasets import list_datasets
    >>> list_datasets()[0].name, list_datasets()[0].verified
    ('digits', True)
    """

    name: str
    description: str
    where: str | None
    images: int
    verified: bool
    problem: str

    def __repr__(self) -> str:
        state = f"verified in {self.where}" if self.verified else self.problem
        return f"<DatasetRecord {self.name}: {self.images} images, {state}>"


def check_labels(field: str, labels: npt.NDArray[Any], classes: int) -> None:
    """Refuse labels that are not class numbers 0 .. classes - 1. Raises ConfigurationError."""
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise ConfigurationError(
            f"{field}[{outside[0]}] = {labels[outside[0]]}, expected 0 to {classes - 1} for {classes} classes "
            f"({len(outside)} are outside)"
        )


def check_count(field: str, value: int, low: int, high: int | None) -> int:
    """`value` if it is a whole number from `low` to `high`. Raises ConfigurationError."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        raise ConfigurationError(
            f"{field} = {value!r}, expected a whole number from {low}" + ("" if high is None else f" to {high}")
        )
    return int(value)


def _split_digest(split: Split) -> str:
    """SHA-256 of the images (float32) and labels (int64) of a part, little-endian, and of their
    shape.
    """
    digest = hashlib.sha256(repr(split.images.shape).encode())
    for array, kind in ((split.images, "<f4"), (split.labels, "<i8")):
        digest.update(np.ascontiguousarray(array, kind).data)
    return digest.hexdigest()
