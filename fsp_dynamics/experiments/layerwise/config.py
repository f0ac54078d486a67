"""The configuration of discrete networks: which network, which learner, what it learns from. Torch
is not imported here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from fsp_dynamics.experiments.config import LARGE, Config, LearningConfig, Listed, Section, listing, one_of
from fsp_dynamics.experiments.schedule import ScheduleConfig, check_schedule
from fsp_dynamics.layerwise.names import (
    COMPARED,
    GENERATORS,
    LEARNERS,
    MOST_STEPS,
    PRECISIONS,
    RESETS,
    SCORES,
    SHAPES,
    VERSIONS,
)

MOST_UNITS = 10**6  # of one layer
MAP_NUMBERS = 9  # of a sparse target in one channel of a convolution
_Sizes = Annotated[tuple[Annotated[int, Field(ge=1, le=MOST_UNITS)], ...], Listed]
_Item = Annotated[int | str, BeforeValidator(lambda item: item.upper() if isinstance(item, str) else item)]


class LayerwiseNetworkConfig(Section):
    """Which network. `hidden` belongs to mlp, conv and snn, `channels` to conv and snn, `width` to
    vgg8b, `steps`, `threshold`, `leak` and `reset` to snn.
    """

    kind: Annotated[str, one_of("network.kind", SHAPES), Field("mlp", description=f"network: {listing(SHAPES)}")]
    hidden: Annotated[_Sizes, Field((), max_length=1000, description="units of each hidden layer")]
    channels: Annotated[
        tuple[_Item, ...],
        Listed,
        Field((), max_length=1000, description="conv, snn: channels of each convolution, M: a pool over squares of 2"),
    ]
    width: Annotated[float, Field(1.0, gt=0, le=100, description="vgg8b: factor of all its sizes")]
    steps: Annotated[int, Field(4, ge=1, le=MOST_STEPS, description="snn: steps of time")]
    threshold: Annotated[float, Field(1.0, gt=0, description="snn: membrane at which a unit spikes")]
    leak: Annotated[
        float, Field(1.0, gt=0, le=1, description="snn: share of a membrane that is left after a step; 1: no leak")
    ]
    reset: Annotated[
        str,
        one_of("network.reset", RESETS),
        Field("hard", description="snn: a spike sets the membrane to 0 (hard), or takes the threshold from it (soft)"),
    ]
    batch_norm: Annotated[
        bool, Field(True, description="batch norm before each activation; snn: after convolutions alone")
    ]
    dropout: Annotated[float, Field(0.1, ge=0, lt=1, description="probability that an activity is dropped")]

    @model_validator(mode="after")
    def _fits(self) -> LayerwiseNetworkConfig:
        owners = {"hidden": ("mlp", "conv", "snn"), "channels": ("conv", "snn"), "width": ("vgg8b",)}
        owners |= dict.fromkeys(("steps", "threshold", "leak", "reset"), ("snn",))
        for key, kinds in owners.items():
            value = getattr(self, key)
            if self.kind not in kinds and value != type(self).model_fields[key].default:
                raise ValueError(
                    f"network.{key} = {value!r} belongs to network.kind = {' or '.join(map(repr, kinds))}, "
                    f"not to {self.kind!r}; leave it out (network.{key}=None)"
                )
        needed = {"mlp": "hidden", "conv": "channels"}.get(self.kind)
        if self.kind == "snn" and not self.channels and not self.hidden:
            raise ValueError("network.channels and network.hidden are empty, expected layers in either; give them")
        if needed and not getattr(self, needed):
            raise ValueError(f"network.{needed} is missing, which network.kind = {self.kind!r} needs; give it")
        return self


class TargetsConfig(Section):
    """What the layers are compared with, in forward signal propagation."""

    version: Annotated[
        str,
        one_of("targets.version", VERSIONS),
        Field("2b", description="of figure 2: 2a predicts by the last layer's targets, 2b by a classification layer"),
    ]
    generator: Annotated[
        str,
        one_of("targets.generator", GENERATORS),
        Field("target-only", description=f"what makes the first targets: {listing(GENERATORS)}"),
    ]
    sparse: Annotated[
        int | None,
        Field(
            None,
            ge=1,
            le=MOST_UNITS,
            description="numbers of a target that are not 0, fewer than the units of the first layer; in a "
            f"convolution {MAP_NUMBERS}, a map of 3 x 3 in each channel; none: dense",
        ),
    ]
    layer_norm: Annotated[bool, Field(True, description="layer norm in the target generator")]
    eta: Annotated[float, Field(1.0, description="share of the error in target-error")]
    score: Annotated[
        str,
        one_of("targets.score", SCORES),
        Field("centred_cosine", description=f"closeness of activities and targets: {listing(SCORES)}"),
    ]
    temperature: Annotated[float, Field(20.0, gt=0, description="factor of the cosines")]
    compared: Annotated[
        str,
        one_of("targets.compared", COMPARED),
        Field("voltage", description="snn: what is compared, membranes (voltage) or eq. 16 of them (surrogate)"),
    ]


class ShownConfig(Section):
    """How each training image is changed at each visit; those of validation and test never are."""

    crop: Annotated[
        int,
        Field(0, ge=0, le=LARGE, description="cut training images out of a frame of so many zeros, anew at each visit"),
    ]
    flip: Annotated[float, Field(0.0, ge=0, le=1, description="probability of a left-right mirror image")]


class LayerwiseLearningConfig(LearningConfig):
    """How it learns."""

    learner: Annotated[
        str, one_of("learning.learner", LEARNERS), Field("fsp", description=f"learner: {listing(LEARNERS)}")
    ]
    batch: Annotated[int, Field(128, ge=2, le=LARGE, description="images for each weight update")]
    rate: Annotated[float, Field(5e-4, gt=0, description="learning rate of Adam")]
    output_rate: Annotated[
        float | None,
        Field(None, gt=0, description="learning rate of a classification layer that learns apart; none: learning.rate"),
    ]
    rate_factor: Annotated[float, Field(1.0, gt=0, le=1, description="factor of all rates after each epoch")]
    schedule: Annotated[ScheduleConfig, Field(default_factory=ScheduleConfig)]
    normalise: Annotated[
        bool, Field(False, description="each channel of images minus its mean, divided by its standard deviation")
    ]
    augmentation: Annotated[ShownConfig, Field(default_factory=ShownConfig)]
    precision: Annotated[
        str,
        one_of("learning.precision", PRECISIONS),
        Field("float32", description=f"of forward passes and losses: {listing(PRECISIONS)}"),
    ]

    @model_validator(mode="after")
    def _is_scheduled(self) -> LayerwiseLearningConfig:
        check_schedule(self.schedule, self.rate_factor)
        return self


class LayerwiseConfig(Config):
    """One experiment with a discrete network, whole."""

    network: LayerwiseNetworkConfig
    learning: LayerwiseLearningConfig
    targets: Annotated[TargetsConfig, Field(default_factory=TargetsConfig)]

    @model_validator(mode="after")
    def _is_consistent(self) -> LayerwiseConfig:
        if self.learning.learner != "fsp":
            for key, field in TargetsConfig.model_fields.items():
                if (value := getattr(self.targets, key)) != field.default:
                    raise ValueError(
                        f"targets.{key} = {value!r} belongs to learning.learner = 'fsp', not to "
                        f"{self.learning.learner!r}; leave it out (targets.{key}=None)"
                    )
        if self.targets.compared != "voltage" and self.network.kind != "snn":
            raise ValueError(
                f"targets.compared = {self.targets.compared!r} belongs to network.kind = 'snn', not to "
                f"{self.network.kind!r}; leave it out (targets.compared=None)"
            )
        sparse = self.targets.sparse
        if sparse is not None and (self.network.channels or self.network.kind == "vgg8b") and sparse != MAP_NUMBERS:
            raise ValueError(
                f"targets.sparse = {sparse}, expected {MAP_NUMBERS} where the first layer is a convolution: a map of "
                "3 x 3 in each channel"
            )
        return self
