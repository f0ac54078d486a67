"""What is refused before an epoch, and what ends one: data that do not fit, states and weights
that are not finite.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fsp_dynamics.arrays import check_pixels, numbers
from fsp_dynamics.errors import ConfigurationError, NotFiniteError, check_finite, check_shape
from fsp_dynamics.learning import phases
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import State
from fsp_dynamics.training.recipe import LabelledImages, Learner


class Arrays(NamedTuple):
    """Labelled images as arrays."""

    images: Array
    labels: Array


def checked_split(network: Network, split: LabelledImages) -> LabelledImages:
    """The images and labels as arrays, if the network can learn from them or be judged by them.

    Raises ConfigurationError, ShapeError, NotFiniteError for infinite pixels; warns (DataWarning)
    of pixels far outside [0, 1].
    """
    if not (hasattr(split, "images") and hasattr(split, "labels")):
        raise ConfigurationError(
            f"the data are of type {type(split).__name__}, expected labelled images; "
            "give datasets.Split(images, labels)"
        )
    split = Arrays(numbers("images", split.images), numbers("labels", split.labels))
    if len(split.labels) == 0:
        raise ConfigurationError("the data hold no images; give at least one")
    check_shape("labels", split.labels, (None,))
    if split.labels.dtype.kind not in "iu":
        raise ConfigurationError(f"labels are {split.labels.dtype}, expected whole numbers, the classes from 0 on")
    check_shape("images", split.images, (len(split.labels), network.sizes[0]))
    if np.isinf(split.images).any():  # NaN is found by its batch, but states that infinity saturates are finite
        check_finite("images", split.images)
    check_pixels("images", split.images)
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= network.sizes[-1]:
        raise ConfigurationError(
            f"labels run from {low} to {high}, expected 0 to {network.sizes[-1] - 1}: "
            f"the network has {network.sizes[-1]} outputs"
        )
    return split


def check_phases(both: phases.Phases, batch: int, images: Array) -> None:
    """Refuse to learn from states that are not finite. Raises NotFiniteError."""
    for name, found in zip(phases.NAMES, (both.free, both.nudged, both.opposite), strict=True):
        if found is not None and not np.isfinite(found.residual).all():
            refuse_not_finite(name, batch, images, found.state)


def refuse_not_finite(phase: str, batch: int, images: Array, state: State) -> None:
    """End the epoch at a batch with states that are not finite, naming the first such layer, or its
    images where they are the cause. Raises NotFiniteError.

    images (B, n_in) of the batch; state : layers (A, n_k) of its samples, or of those that broke.
    """
    check_finite(f"images of batch {batch}", images)
    bad = [k for k, s in enumerate(state) if not np.isfinite(s).all()] or [len(state) - 1]
    raise NotFiniteError(
        f"the {phase} phase of batch {batch} is not finite from layer {bad[0] + 1} on; lower the learning rates"
    )


def check_learner(learner: Learner) -> None:
    """Raise NotFiniteError, naming the first, for weights that are not finite after an epoch, and
    for what the next one would begin with: velocity, warm start, average.
    """
    for name, weight in learner.network.parameters().items():
        if not np.isfinite(weight).all():
            raise NotFiniteError(f"{name} is not finite after epoch {learner.epoch}; lower its learning rate")
    warm_start = {} if learner.warm_start is None else learner.warm_start.arrays()
    parts = (("velocity", learner.velocity), ("warm start", warm_start), ("average", learner.average.arrays))
    for part, arrays in parts:
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise NotFiniteError(
                    f"the {part} of {name} is not finite after epoch {learner.epoch}; lower the learning rates"
                )
