"""Training images as a learner's recipe shows them: cropped at random, mirrored at random, then
normalised. NumPy alone; what is drawn comes from a generator of the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fsp_dynamics.errors import ConfigurationError, check_shape, is_whole
from fsp_dynamics.models.network import Array

CHUNK = 1024  # images of which sums are formed at a time


def augment(images: Array, rng: np.random.Generator, *, crop: int, flip: float) -> Array:
    """The images (B, C, H, W), each moved and mirrored by chance, all its channels alike.

    crop : the image is cut out of itself in a frame of so many zeros on every side, so that it
        moves by -crop to crop pixels along each axis, every whole number as likely; 0: not at all.
    flip : probability that it is mirrored left-right.

    For B images 2 B moves (down, then right, image after image) and then B coins are drawn, of what
    is asked for; nothing else draws from `rng`. The images given stay as they are.

    Raises ShapeError for other than four axes, ConfigurationError for a crop that is no whole
    number or that may leave nothing of an image.

    Returns
    -------
    array : (B, C, H, W), a new one, of the same dtype.

    >>> image = np.arange(12.0).reshape(1, 1, 3, 4)
    >>> augment(image, np.random.default_rng(0), crop=1, flip=0.5)[0, 0].tolist()
    [[7.0, 6.0, 5.0, 4.0], [11.0, 10.0, 9.0, 8.0], [0.0, 0.0, 0.0, 0.0]]
    """
    check_shape("images", images, (None, None, None, None))
    count, _, height, width = images.shape
    if not is_whole(crop, 0) or (crop and crop >= min(height, width)):
        raise ConfigurationError(
            f"crop = {crop!r}, expected a whole number from 0 to {max(min(height, width) - 1, 0)}, less than the "
            f"smaller side of images of {height} x {width} pixels"
        )
    if crop:
        framed = np.pad(images, ((0, 0), (0, 0), (crop, crop), (crop, crop)))
        windows = sliding_window_view(framed, (height, width), axis=(2, 3))
        down, right = rng.integers(0, 2 * crop, (count, 2), endpoint=True).T
        shown: Array = windows[np.arange(count), :, down, right]
    else:
        shown = images.copy()
    if flip:
        mirrored = rng.random(count) < flip
        shown[mirrored] = shown[mirrored, :, :, ::-1]
    return shown


@dataclass(frozen=True, slots=True, eq=False)
class Normalisation:
    """What images (B, C, H, W) are normalised by: (images - mean) scale, channel by channel.

    mean, deviation : (C,), float64, over all pixels of the training images. A channel that is the
    same everywhere has deviation 0 and is not divided. `LayerwiseNetwork.normalise` takes it.

    >>> training = np.array([[0.0, 1.0, 0.5, 0.5], [1.0, 0.0, 0.5, 0.5]])  # two channels of 1 x 2
    >>> usual = Normalisation.of(training, (2, 1, 2))
    >>> usual.mean.tolist(), usual.deviation.tolist(), usual.scale.tolist()
    ([0.5, 0.5], [0.5, 0.0], [2.0, 1.0])
    """

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, images: Array, planes: tuple[int, int, int]) -> Self:
        """That of training images (B, C H W), whose planes (C, H, W) lie one after another
        (`Dataset.planes`). Raises ShapeError.
        """
        channels, height, width = planes
        check_shape("images", images, (None, channels * height * width))
        parts = [
            images[first : first + CHUNK].reshape(-1, channels, height * width)
            for first in range(0, len(images), CHUNK)
        ]
        count = max(len(images) * height * width, 1)
        mean = sum((part.sum((0, 2), np.float64) for part in parts), np.zeros(channels)) / count
        squares = (np.square(part - mean[:, None]).sum((0, 2), np.float64) for part in parts)
        return cls(mean, np.sqrt(sum(squares, np.zeros(channels)) / count))

    @property
    def scale(self) -> Array:
        """(C,), one over the deviation; 1 where that is 0."""
        scale: Array = 1 / np.where(self.deviation > 0, self.deviation, 1)
        return scale
