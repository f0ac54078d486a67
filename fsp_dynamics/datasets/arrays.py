"""A data set from arrays of your own: what they must be, and how they are split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fsp_dynamics.arrays import numbers, warn
from fsp_dynamics.datasets.formats import check_images, plane_by_plane, planes
from fsp_dynamics.datasets.records import ORDER, Dataset, Split, check_count, check_labels
from fsp_dynamics.errors import ConfigurationError, DatasetError, ShapeError, check_shape

SEVERAL = 4  # images that all end among the last sixth of a shuffled order once in 1,300 times
LEAST, DIM = 4 / 255, 64  # pixels and bytes that stay below are probably not out of 1 and of 255


class Part(NamedTuple):
    """Images (B, n_in), (B, h, w) or (B, 3, h, w), bytes from 0 to 255 or numbers in [0, 1], and
    labels (B,).
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any]


def dataset_from_arrays(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    test_images: npt.ArrayLike | None = None,
    test_labels: npt.ArrayLike | None = None,
    *,
    validation: int | None = None,
    limit: int | None = None,
    classes: int | None = None,
    image_shape: tuple[int, ...] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A data set of your own images, (B, n_in), (B, h, w), or in colour (B, 3, h, w) or
    (B, h, w, 3): floats in [0, 1], truth values, or uint8, which is divided by 255 (bytes that are
    only 0 and 1 are truth values); labels (B,) whole numbers from 0. Lists, data frames and tensors
    (on any device) are taken as arrays (`fsp_dynamics.arrays`); what is kept is a copy, in colour
    the planes one after another.

    test_images, test_labels : without them the last sixth of all images is the test part.
    validation : so many images from the end of the training images (default a sixth; 0: none).
    limit : keep only so many images, the first, of what is then left for training.
    classes : the largest label + 1 if None.
    image_shape : (h, w), or (3, h, w) of rows that are in colour; from images that are no rows,
        else a grey square if n_in allows one, else one row.

    Order is kept, with one exception: images without a test part, and images of which a part is
    cut off although their classes come in order, are first put into a fixed shuffled order (raw
    PCG64 numbers of seed 0) in which every stretch holds each class in proportion; `Dataset.notes`
    then holds a sentence about it. Classes come in order where neighbours differ in class less
    than half as often as in a shuffled order, or where all images of a class would be cut off.

    Raises ShapeError, NotFiniteError for NaN pixels, ConfigurationError for empty data and for
    pixels or labels out of range. Warns (DataWarning) of classes without images and of pixels that
    reach only a small part of their range.

    Returns
    -------
    Dataset : train, valid and test, images (B, n_in) float32 in [0, 1] and labels (B,) int64.

    >>> rng = np.random.default_rng(0)
    >>> dataset_from_arrays(rng.random((60, 8, 8)), rng.integers(0, 3, 60))
    <Dataset arrays: 42 train, 8 valid, 10 test; 8 x 8 pixels, 3 classes>
    """
    train, test = checked_part("", images, labels), None
    if (test_images is None) != (test_labels is None):
        lacking = "test_labels" if test_labels is None else "test_images"
        raise ConfigurationError(f"{lacking} = None, expected an array: give test_images and test_labels, or neither")
    if test_images is not None and test_labels is not None:
        test = checked_part("test_", test_images, test_labels)
    if classes is None:
        _check_starts_at_0([train] if test is None else [train, test])
    return assembled(
        Parts(train, None, test),
        name=name,
        classes=classes,
        image_shape=image_shape,
        validation=validation,
        limit=limit,
    )


class Parts(NamedTuple):
    """The checked parts that were given; a part that is None is cut off the training images."""

    train: Part
    valid: Part | None
    test: Part | None


def assembled(
    parts: Parts,
    *,
    name: str,
    classes: int | None = None,
    image_shape: tuple[int, ...] | None = None,
    validation: int | None = None,
    limit: int | None = None,
    source: str = "arrays",
    digests: Mapping[str, str] | None = None,
    class_names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The data set of checked parts, split as `dataset_from_arrays` describes. Raises ShapeError,
    ConfigurationError.
    """
    train, valid, test = parts
    given = [part for part in parts if part is not None]
    for field, part in zip(Parts._fields[1:], parts[1:], strict=True):
        if part is not None:
            check_shape(f"{field}_images", part.images, (None, *train.images.shape[1:]))
    classes = _count_classes(given, source) if classes is None else check_count("classes", classes, 1, None)
    for field, part in zip(("labels", "valid_labels", "test_labels"), parts, strict=True):
        if part is not None:
            check_labels(field, part.labels, classes)
    before = np.unique(train.labels)
    kept = _kept(len(train.labels), valid, validation, limit)
    by_class = kept < len(train.labels) and comes_in_order(train.labels, kept if limit is None else None)
    if test is None or by_class:
        if digests and test is not None and not _is_sorted(train.labels):
            digests = {**digests, ORDER: hashlib.sha256(train.labels.astype("<i8").tobytes()).hexdigest()}
        notes += (_SHUFFLED + (_NO_TEST if test is None else _BY_CLASS),)
        order = spread(train.labels)
        train = Part(train.images[order], train.labels[order])
    top, remark = _top(given, source == "arrays" or source.endswith(".npz"))
    if test is None:
        train, test = _cut(train, _test_count(train))
    if valid is None:
        most = len(train.labels)
        train, valid = _cut(
            train, check_count("validation", most // 6 if validation is None else validation, 0, most - 1)
        )
    elif validation is not None:
        raise ConfigurationError(
            f"validation = {validation!r}, expected None: {source} has validation images of its own"
        )
    untrained = np.setdiff1d(before, train.labels)
    if len(untrained):
        warn(
            f"class {untrained[0]} has no training image, since all of its few are set aside; "
            "give more of it, or a smaller validation"
        )
    if limit is not None:
        train = _cut(train, len(train.labels) - check_count("limit", limit, 1, len(train.labels)))[0]
    return Dataset(
        name=name,
        classes=classes,
        train=scaled(*train, top),
        valid=scaled(*valid, top),
        test=scaled(*test, top),
        image_shape=shape_of_images(train.images.shape[1:], image_shape),
        source=source,
        digests=dict(digests or {}),
        class_names=class_names,
        notes=notes + remark,
        top=top,
    )


def scaled(pixels: npt.NDArray[Any], labels: npt.NDArray[Any], top: int) -> Split:
    """The split of these images; bytes are divided by `top`, floats are taken as they are."""
    flat = pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))
    images = np.divide(flat, np.float32(top), dtype=np.float32) if flat.dtype == np.uint8 else flat.astype(np.float32)
    return Split(images, labels.astype(np.int64))


def shape_of_images(shape: tuple[int, ...], wanted: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """(h, w) or (3, h, w) of images of this shape, one of these or (n_in,). Raises ShapeError."""
    pixels = math.prod(shape)
    if wanted is not None:
        if math.prod(planes(wanted)) != pixels:
            raise ShapeError(
                f"image_shape = {wanted}, expected (h, w) or (3, h, w) of {pixels} numbers, those of each image"
            )
        return wanted
    side = math.isqrt(pixels)
    return shape if len(shape) > 1 else (side, side) if side * side == pixels else (1, pixels)


def checked_part(field: str, images: npt.ArrayLike, labels: npt.ArrayLike) -> Part:
    """The images and labels as arrays, if they can be a part of a data set. Messages call them
    `field` images and labels. Raises ShapeError, NotFiniteError, ConfigurationError.
    """
    pixels, classes = numbers(f"{field}images", images), _labels(f"{field}labels", labels)
    check_images(f"{field}images", pixels)
    pixels = plane_by_plane(f"{field}images", pixels)
    if classes.ndim == 2 and classes.shape[1] > 1 and len(classes) == len(pixels):
        raise ShapeError(
            f"{field}labels has shape {classes.shape}, expected ({len(pixels)},), class numbers; "
            "labels.argmax(1) makes them of one-hot rows"
        )
    check_shape(f"{field}labels", classes, (len(pixels),))
    return Part(pixels, classes)


def _labels(field: str, labels: Any) -> npt.NDArray[Any]:
    """The labels as integers. Raises ConfigurationError, with a way to number others."""
    remedy = "np.unique(labels, return_inverse=True)[1] numbers any labels"
    try:
        classes = numbers(field, labels)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; {remedy}") from error
    if classes.dtype.kind not in "iu" and classes.ndim == 1:
        raise ConfigurationError(
            f"{field} have dtype {classes.dtype}, expected integers (class numbers from 0); {remedy}"
        )
    return classes


def spread(labels: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """A fixed shuffled order in which every stretch holds each class in proportion: the k-th of
    the n images of a class stands at (k + 1/2) / n of the whole.
    """
    shuffled = np.argsort(np.random.PCG64(0).random_raw(len(labels)), kind="stable")
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = labels[shuffled] == label
        count = int(own.sum())
        place[own] = (np.arange(count) + 0.5) / count
    return shuffled[np.argsort(place, kind="stable")]


_SHUFFLED = "the images were put into a fixed shuffled order: "
_NO_TEST = "there is no test part, so the last sixth of all images is it"
_BY_CLASS = "they were sorted by class"


def comes_in_order(labels: npt.NDArray[Any], kept: int | None = None) -> bool:
    """Whether the labels (B,) come class after class: neighbours differ less than half as often as
    in a shuffled order, or a class of several images is missing among the first `kept`.
    """
    count = len(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    if len(sizes) < 2:
        return False
    if kept is not None and not np.isin(classes[sizes >= SEVERAL], labels[:kept]).all():
        return True
    expected = (count - 1) * (1 - float((sizes * (sizes - 1)).sum()) / (count * (count - 1)))
    return _is_sorted(labels) or int(np.count_nonzero(labels[1:] != labels[:-1])) < expected / 2


def _is_sorted(labels: npt.NDArray[Any]) -> bool:
    return bool((np.diff(labels.astype(np.int64)) >= 0).all())


def _kept(count: int, valid: Part | None, validation: int | None, limit: int | None) -> int:
    """How many of the images, the first, are trained with once the others are cut off."""
    cut = 0 if valid is not None else count // 6 if validation is None else validation
    return count - cut if limit is None else min(count - cut, limit)


def _top(parts: list[Part], own: bool) -> tuple[int, tuple[str, ...]]:
    """What bytes are divided by, and a sentence if it is not 255. Warns of pixels of one's `own`
    arrays that reach only a small part of their range; pictures may be dark.
    """
    tops = {
        kind: max((float(part.images.max()) for part in parts if part.images.dtype.kind == kind), default=0.0)
        for kind in "uf"
    }
    if own and 0 < tops["f"] < LEAST:
        warn(f"pixels reach only {tops['f']:.2g} of [0, 1]; if they were divided twice, divide them once")
    if tops["u"] == 1:
        return 1, ("bytes that are only 0 and 1 were taken as truth values, not divided by 255",)
    if own and 0 < tops["u"] < DIM:
        warn(f"bytes reach only {tops['u']:g} and are divided by 255; if that is white, give images / {tops['u']:g}")
    return 255, ()


def _test_count(whole: Part) -> int:
    count = len(whole.labels)
    if count < 2:
        raise ConfigurationError("images holds 1 image, expected at least 2, of which one is the test part")
    return max(1, count // 6)


def _cut(part: Part, count: int) -> tuple[Part, Part]:
    """The part without its last `count` images, and these."""
    end = len(part.labels) - count
    return Part(part.images[:end], part.labels[:end]), Part(part.images[end:], part.labels[end:])


def _count_classes(parts: list[Part], source: str) -> int:
    """The largest label + 1. Warns of classes without images. Raises ConfigurationError for a
    label that makes more classes than there are images; DatasetError, or for arrays
    ConfigurationError, where most classes would have none.
    """
    largest, images = max(int(part.labels.max()) for part in parts), sum(len(part.labels) for part in parts)
    if largest >= images:
        raise ConfigurationError(
            f"labels reach {largest}, which makes more classes than there are images ({images}); "
            "expected class numbers from 0; give `classes` if so many are meant"
        )
    held = len(np.unique(np.concatenate([part.labels for part in parts])))
    idle = max(largest, 0) + 1 - held
    if idle > held:
        what = f"labels reach {largest}, but hold {held} different numbers: {idle} classes would have no image"
        remedy = "np.unique(labels, return_inverse=True)[1] numbers them from 0"
        if source != "arrays":
            raise DatasetError(f"{source}: {what}; number them from 0 ({remedy})")
        raise ConfigurationError(f"{what}; {remedy}, or give classes = {largest + 1} if these are meant")
    if idle > 0 and min(int(part.labels.min()) for part in parts) >= 0:
        warn(f"{idle} of {largest + 1} classes have no image: their outputs are only taught to be silent")
    return max(largest, 0) + 1


def _check_starts_at_0(parts: list[Part]) -> None:
    """Refuse labels that start at 1: class 0 would be an output without images."""
    if min(int(part.labels.min()) for part in parts) == 1:
        largest = max(int(part.labels.max()) for part in parts)
        raise ConfigurationError(
            "labels start at 1, expected class numbers from 0; give labels - 1, "
            f"or classes = {largest + 1} if class 0 has no image"
        )
