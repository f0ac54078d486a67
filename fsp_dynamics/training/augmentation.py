"""Training images as they are shown: as they are, or changed anew at each visit.

What happens to an image depends on the epoch's seed and on its place in the epoch's order alone
(kernels/augmentation.py). So all engines see the same images, on any number of threads and ranks,
and an epoch that was left goes on with those that it would have seen. Images that are judged
(validation, test), probed or used in a mirror phase are never changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.errors import ConfigurationError, is_whole
from fsp_dynamics.kernels.augmentation import ImageChanges, augment
from fsp_dynamics.kernels.team import Team
from fsp_dynamics.models.network import Array

WORK = 50  # multiplications for each pixel, at most, of what is done to an image


def images_at(images: Array, samples: Array, dtype: Any) -> tuple[Array, Array]:
    """(images in C order and `dtype`, the row of each of the samples there); nothing is copied
    that need not be.
    """
    if images.dtype == dtype and images.flags.c_contiguous:
        return images, samples
    return np.ascontiguousarray(images[samples], dtype), np.arange(len(samples))


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How a training image is changed at each visit: mirrored, turned, moved, made noisy, in this
    order, in a plane that is 0 outside the image. False where nothing is done.

    shift : the largest move in pixels; along each axis every whole number from -shift to shift is
        as likely. rotation : the largest angle in degrees, either way; every angle is as likely.
        The image turns about its centre, with bilinear interpolation.
    noise : standard deviation of a normal number that is added to each pixel; the result is clipped
        to [0, 1]. flip : probability of a left-right mirror image.
    shape : (height, width) of the images, whose pixels lie row by row, or (channels, height, width)
        of planes that lie one after another and are changed alike; None: square ones.

    Raises ConfigurationError for values that are impossible.

    >>> import numpy as np
    >>> change = Augmentation(shift=1, noise=0.1)
    >>> change.check(pixels=64), bool(change), bool(Augmentation())
    (None, True, False)
    >>> shown, rows = change.shown(np.zeros((5, 64)), np.arange(3), np.float32, 0, seed=1)
    >>> shown.shape, rows.tolist()
    ((3, 64), [0, 1, 2])
    """

    shift: int = 0
    rotation: float = 0.0
    noise: float = 0.0
    flip: float = 0.0
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not is_whole(self.shift, 0):
            raise ConfigurationError(f"augmentation.shift = {self.shift!r}, expected a whole number of pixels from 0")
        for name, most, what in (
            ("rotation", 180, "an angle from 0 to 180 degrees"),
            ("noise", math.inf, "a standard deviation, finite and 0 or more"),
            ("flip", 1, "a probability from 0 to 1"),
        ):
            value = getattr(self, name)
            if not (isinstance(value, int | float | np.number) and math.isfinite(value) and 0 <= value <= most):
                raise ConfigurationError(f"augmentation.{name} = {value!r}, expected {what}")

    def __bool__(self) -> bool:
        return bool(self.shift or self.rotation or self.noise or self.flip)

    def check(self, pixels: int) -> None:
        """Refuse what cannot be done to images of so many pixels. Raises ConfigurationError."""
        if self.shape is not None and math.prod(self.shape) != pixels:
            raise ConfigurationError(
                f"augmentation.shape = {self.shape!r}, expected (height, width) of images of {pixels} pixels, "
                "or (channels, height, width)"
            )
        for name in ("shift", "rotation", "flip"):
            value = getattr(self, name)
            if value and min(self._sides(pixels)) < 2:
                raise ConfigurationError(
                    f"augmentation.{name} = {value!r}, but {pixels} numbers in one row are no picture with a height "
                    "and a width; leave it out, or say what they are (image_shape = (height, width) of the data)"
                )
        if self.shift and self.shift >= min(self._sides(pixels)):
            height, width = self._sides(pixels)
            raise ConfigurationError(
                f"augmentation.shift = {self.shift}, expected less than the smaller side of images of "
                f"{height} x {width} pixels"
            )

    def shown(
        self, images: Array, samples: Array, dtype: Any, first: int, seed: int | None, team: Team | None = None
    ) -> tuple[Array, Array]:
        """(images in C order and `dtype`, the row of each of the samples there), as `images_at`:
        changed, if anything is done.

        images (N, n_in), of which `samples` (B,) are shown at places first, first + 1, ... of the
        epoch whose `seed` it is. team : who computes it; None: this thread.

        Returns
        -------
        tuple of two arrays : images (B, n_in), or (N, n_in) where nothing is done, and row numbers
            (B,).
        """
        given, rows = images_at(images, samples, dtype)
        if not self:
            return given, rows
        assert seed is not None
        team, (height, width) = team or Team(1), self._sides(images.shape[1])
        planes = images.shape[1] // (height * width)
        out = np.empty((len(rows), images.shape[1]), dtype)
        framed = np.zeros((team.threads, (height + 3) * (width + 3) if self.rotation else 0), dtype)
        changes = ImageChanges(
            planes, height, width, int(self.shift), math.radians(self.rotation), float(self.noise), float(self.flip)
        )
        team.run(augment, given, rows, np.uint64(seed), first, changes, framed, out, work=WORK * out.size)
        return out, np.arange(len(rows))

    def _sides(self, pixels: int) -> tuple[int, int]:
        """(height, width) of images of so many pixels; one row where that is not known."""
        if self.shape is not None:
            return self.shape[-2], self.shape[-1]
        side = math.isqrt(pixels)
        return (side, side) if side * side == pixels else (1, pixels)


NONE = Augmentation()
