"""[learning.augmentation]: how training images are changed at each visit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fsp_dynamics.experiments.config import LARGE, Section


class AugmentationConfig(Section):
    """How each training image is changed at each visit (`training.augmentation`); those of
    validation and test never are.
    """

    shift: Annotated[
        int, Field(0, ge=0, le=LARGE, description="move training images by up to so many pixels, anew at each visit")
    ]
    rotation: Annotated[float, Field(0.0, ge=0, le=180, description="turn them by up to so many degrees, either way")]
    noise: Annotated[
        float, Field(0.0, ge=0, description="standard deviation of noise on their pixels, which stay in [0, 1]")
    ]
    flip: Annotated[float, Field(0.0, ge=0, le=1, description="probability of a left-right mirror image")]
