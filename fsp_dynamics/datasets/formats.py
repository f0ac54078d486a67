"""What images must be: in general (`check_images`), and to be seen by a network as those it was
trained on (`ImageFormat`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fsp_dynamics.arrays import numbers
from fsp_dynamics.errors import ConfigurationError, ShapeError, check_finite

COLOURS = 3  # channels of an image in colour


def is_image_shape(shape: Sequence[int]) -> bool:
    """Whether it is (h, w), grey, or (3, h, w), in colour."""
    return min(shape, default=0) > 0 and (len(shape) == 2 or (len(shape) == 3 and shape[0] == COLOURS))


def planes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of an image whose shape is (h, w), grey, or (3, h, w), in colour.
    Raises ShapeError for another shape.
    """
    if not is_image_shape(shape):
        raise ShapeError(f"image_shape = {shape}, expected (h, w), or (3, h, w) of images in colour")
    return (shape[0] if len(shape) == 3 else 1), shape[-2], shape[-1]


def plane_by_plane(field: str, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Images (B, c, h, w) or (B, h, w, c) of 1 or 3 channels c as (B, h, w) or (B, 3, h, w); others
    as they are. Raises ShapeError where neither number is 1 or 3, or both are.
    """
    if pixels.ndim != 4:
        return pixels
    first, last = (pixels.shape[axis] in (1, COLOURS) for axis in (1, 3))
    if first == last:
        what = "of which either may be that of the channels" if first else "take one channel or three"
        raise ShapeError(
            f"{field} has shape {pixels.shape}, expected (B, c, h, w) or (B, h, w, c) with c = 1 or 3 channels: "
            f"{what}, or give rows (B, c h w)"
        )
    images = pixels if first else np.moveaxis(pixels, 3, 1)
    return images[:, 0] if images.shape[1] == 1 else images


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """How the images of a data set came to the network.

    shape : (h, w), row by row, or in colour (3, h, w), the planes R, G, B one after another. top :
        what bytes were divided by. class_names : as in a `Dataset`.
    """

    shape: tuple[int, ...]
    top: int = 255
    class_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """From `as_record`."""
        return cls(tuple(record["shape"]), record["top"], tuple(record["class_names"]))

    def as_record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"shape": list(self.shape), "top": self.top, "class_names": list(self.class_names)}

    def inputs(self, images: npt.ArrayLike, field: str = "images") -> npt.NDArray[np.float32]:
        """The images (B, h w) or (B, h, w), in colour (B, 3 h w), (B, 3, h, w) or (B, h, w, 3), as
        the network sees them: (B, h w) or (B, 3 h w) float32, bytes divided by `top`, floats in
        [0, 1] and truth values as they are.

        Raises ShapeError for images of another size, NotFiniteError, ConfigurationError for other
        numbers. field : what messages call them.
        """
        pixels = numbers(field, images)
        channels, *sides = planes(self.shape)
        count, beside = math.prod(self.shape), (*sides, channels)
        kinds = [(count,), self.shape, *([beside] if channels > 1 else [])]
        *others, last = (f"(B, {', '.join(map(str, kind))})" for kind in kinds)
        known = f"expected {', '.join(others)} or {last}, as the images it was trained on"
        if pixels.shape in kinds:
            raise ShapeError(f"{field} has shape {pixels.shape}, {known}; give {field}[None] if it is one image")
        check_images(field, pixels)
        if pixels.shape[1:] == beside and beside != self.shape:
            pixels = np.moveaxis(pixels, 3, 1)
        if pixels.shape[1:] not in kinds and pixels.shape[1:] != planes(self.shape):
            raise ShapeError(f"{field} has shape {pixels.shape}, {known}")
        flat = pixels.reshape(len(pixels), count)
        if flat.dtype != np.uint8:
            return np.ascontiguousarray(flat, np.float32)
        if flat.max() > self.top:
            raise ConfigurationError(
                f"{field} are bytes up to {flat.max()}, expected 0 to {self.top}, by which those of its training "
                "images were divided; give floats in [0, 1]"
            )
        return np.divide(flat, np.float32(self.top), dtype=np.float32)


def check_images(field: str, pixels: npt.NDArray[Any]) -> None:
    """Refuse what cannot be images (B, n_in), (B, h, w) or, with channels, of four axes: bytes,
    truth values or floats in [0, 1]. Raises ShapeError, ConfigurationError, NotFiniteError.
    """
    if pixels.ndim not in (2, 3, 4):
        raise ShapeError(
            f"{field} has shape {pixels.shape}, expected (B, n_in), (B, h, w), "
            "or in colour (B, 3, h, w) or (B, h, w, 3)"
        )
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
