"""A data set from arrays of your own: what they must be, and how they are split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets.records import Dataset, Split, check_count, check_labels
from fsp_dynamics.errors import ConfigurationError, ShapeError, check_finite, check_shape


class Part(NamedTuple):
    """Images (B, n_in) or (B, h, w), bytes from 0 to 255 or numbers in [0, 1], and labels (B,)."""

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
    image_shape: tuple[int, int] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A data set of your own images, (B, n_in) or (B, h, w): floats in [0, 1], truth values, or
    uint8, which is divided by 255; labels (B,) integers from 0. Lists, data frames and tensors (on
    any device) are taken as arrays; what is kept is a copy.

    test_images, test_labels : without them the last sixth of all images is the test part.
    validation : so many images from the end of the training images (default a sixth; 0: none).
    limit : keep only so many images, the first, of what is then left for training.
    classes : the largest label + 1 if None.
    image_shape : from (B, h, w), else a square if n_in allows one, else one row.

    Order is kept, with one exception: images without a test part, and images sorted by class of
    which a part is cut off, are first put into a fixed shuffled order (raw PCG64 numbers of seed
    0) in which every stretch holds each class in proportion; `Dataset.notes` then holds a sentence
    about it.

    Raises ShapeError, NotFiniteError for NaN pixels, ConfigurationError for empty data and for
    pixels or labels out of range.
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
    image_shape: tuple[int, int] | None = None,
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
    classes = _count_classes(given) if classes is None else check_count("classes", classes, 1, None)
    for field, part in zip(("labels", "valid_labels", "test_labels"), parts, strict=True):
        if part is not None:
            check_labels(field, part.labels, classes)
    train, remark = _in_order(train, test is None, cuts=(valid is None and validation != 0) or limit is not None)
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
    if limit is not None:
        train = _cut(train, len(train.labels) - check_count("limit", limit, 1, len(train.labels)))[0]
    return Dataset(
        name=name,
        classes=classes,
        train=scaled(*train, 255),
        valid=scaled(*valid, 255),
        test=scaled(*test, 255),
        image_shape=shape_of_images(train.images.shape[1:], image_shape),
        source=source,
        digests=dict(digests or {}),
        class_names=class_names,
        notes=notes + remark,
    )


def scaled(pixels: npt.NDArray[Any], labels: npt.NDArray[Any], top: int) -> Split:
    """The split of these images; bytes are divided by `top`, floats are taken as they are."""
    flat = pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))
    images = np.divide(flat, np.float32(top), dtype=np.float32) if flat.dtype == np.uint8 else flat.astype(np.float32)
    return Split(images, labels.astype(np.int64))


def shape_of_images(shape: tuple[int, ...], wanted: tuple[int, int] | None = None) -> tuple[int, int]:
    """(h, w) of images of this shape, (h, w) or (n_in,). Raises ShapeError."""
    pixels = math.prod(shape)
    if wanted is not None:
        if len(wanted) != 2 or min(wanted) < 1 or math.prod(wanted) != pixels:
            raise ShapeError(f"image_shape = {wanted}, expected (h, w) with h w = {pixels}, the pixels of each image")
        return wanted
    side = math.isqrt(pixels)
    square = (side, side) if side * side == pixels else (1, pixels)
    return (shape[0], shape[1]) if len(shape) == 2 else square


def checked_part(field: str, images: npt.ArrayLike, labels: npt.ArrayLike) -> Part:
    """The images and labels as arrays, if they can be a part of a data set. Messages call them
    `field` images and labels. Raises ShapeError, NotFiniteError, ConfigurationError.
    """
    pixels, numbers = _array(f"{field}images", images), _array(f"{field}labels", labels)
    _check_pixels(f"{field}images", pixels)
    if numbers.ndim == 2 and numbers.shape[1] > 1 and len(numbers) == len(pixels):
        raise ShapeError(
            f"{field}labels has shape {numbers.shape}, expected ({len(pixels)},), class numbers; "
            "labels.argmax(1) makes them of one-hot rows"
        )
    check_shape(f"{field}labels", numbers, (len(pixels),))
    if not np.issubdtype(numbers.dtype, np.integer):
        raise ConfigurationError(
            f"{field}labels have dtype {numbers.dtype}, expected integers (class numbers from 0); "
            "np.unique(labels, return_inverse=True)[1] numbers any labels"
        )
    return Part(pixels, numbers)


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


def _in_order(train: Part, no_test: bool, cuts: bool) -> tuple[Part, tuple[str, ...]]:
    """The training images in the order in which they are cut, and a sentence if it is new."""
    by_class = cuts and len(train.labels) > 1 and bool((np.diff(train.labels.astype(np.int64)) >= 0).all())
    by_class = by_class and train.labels[0] != train.labels[-1]
    if not (no_test or by_class):
        return train, ()
    order = spread(train.labels)
    why = "there is no test part, so the last sixth of all images is it" if no_test else "they were sorted by class"
    return Part(train.images[order], train.labels[order]), (f"the images were put into a fixed shuffled order: {why}",)


def _test_count(whole: Part) -> int:
    count = len(whole.labels)
    if count < 2:
        raise ConfigurationError("images holds 1 image, expected at least 2, of which one is the test part")
    return max(1, count // 6)


def _cut(part: Part, count: int) -> tuple[Part, Part]:
    """The part without its last `count` images, and these."""
    end = len(part.labels) - count
    return Part(part.images[:end], part.labels[:end]), Part(part.images[end:], part.labels[end:])


def _count_classes(parts: list[Part]) -> int:
    """The largest label + 1. Raises ConfigurationError for a label that makes more classes than
    there are images.
    """
    largest, images = max(int(part.labels.max()) for part in parts), sum(len(part.labels) for part in parts)
    if largest >= images:
        raise ConfigurationError(
            f"labels reach {largest}, which makes more classes than there are images ({images}); "
            "expected class numbers from 0; give `classes` if so many are meant"
        )
    return max(largest, 0) + 1


def _check_starts_at_0(parts: list[Part]) -> None:
    """Refuse labels that start at 1: class 0 would be an output without images."""
    if min(int(part.labels.min()) for part in parts) == 1:
        largest = max(int(part.labels.max()) for part in parts)
        raise ConfigurationError(
            "labels start at 1, expected class numbers from 0; give labels - 1, "
            f"or classes = {largest + 1} if class 0 has no image"
        )


def _array(field: str, values: Any) -> npt.NDArray[Any]:
    try:
        if hasattr(values, "detach") and hasattr(values, "cpu"):  # a tensor, which may be on a device
            values = values.detach().cpu()
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # such as rows of different lengths
        raise ShapeError(f"{field} is not an array: {error}") from error


def _check_pixels(field: str, pixels: npt.NDArray[Any]) -> None:
    """Refuse what cannot be images (B, n_in) or (B, h, w)."""
    if pixels.ndim not in (2, 3):
        channels = "; take one channel, or flatten them" if pixels.ndim == 4 else ""
        raise ShapeError(f"{field} has shape {pixels.shape}, expected (B, n_in) or (B, h, w){channels}")
    if pixels.size == 0:
        raise ConfigurationError(
            f"{field} has shape {pixels.shape}: there is nothing in it; expected at least one image of one pixel"
        )
    if pixels.dtype in (np.uint8, np.bool_):
        return
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ConfigurationError(
            f"{field} have dtype {pixels.dtype}, expected floats in [0, 1] or uint8; "
            "astype(np.uint8) does for whole numbers from 0 to 255"
        )
    check_finite(field, pixels)
    outside = (pixels < 0) | (pixels > 1)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ConfigurationError(
            f"{field}{list(index)} = {pixels[index]}, expected pixels in [0, 1]; "
            + ("add what is lacking, then " if pixels[index] < 0 else "")
            + "divide by the largest possible value"
        )
