"""[learning.average]: whether, how and from when on the weights are averaged."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fsp_dynamics.experiments.config import LARGE, Section, listing, one_of
from fsp_dynamics.learning.averaging import EVERY, FACTOR, KINDS, Averaging

NONE = "none"
CHOICES = (NONE, *KINDS)


class AverageConfig(Section):
    """An average of the weights, which is then the network of the run (`learning.averaging`)."""

    kind: Annotated[
        str,
        one_of("learning.average.kind", CHOICES),
        Field(NONE, description=f"average of the weights, which is what the run gives: {listing(CHOICES)}"),
    ]
    factor: Annotated[
        float, Field(FACTOR, ge=0, lt=1, description="share of the exponential average that stays at each sample")
    ]
    every: Annotated[
        int,
        Field(EVERY, ge=1, le=LARGE, description="batches between two samples, from the beginning of each epoch"),
    ]
    start: Annotated[int, Field(0, ge=0, le=LARGE, description="finished epochs from which on samples are taken")]

    @property
    def averaging(self) -> Averaging | None:
        """How weights are averaged; None: they are not."""
        return None if self.kind == NONE else Averaging(self.kind, self.factor, self.every, self.start)

    @model_validator(mode="after")
    def _fits(self) -> AverageConfig:
        unused = {NONE: ("factor", "every", "start"), "equal": ("factor",)}.get(self.kind, ())
        for key in unused:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"learning.average.{key} = {getattr(self, key)!r} is no setting of "
                    f"learning.average.kind = {self.kind!r}; leave it out (learning.average.{key}=None) "
                    "or choose another kind"
                )
        return self

    def check_start(self, epochs: int) -> None:
        """Raises ValueError where an average would never begin."""
        if self.start >= epochs:
            raise ValueError(
                f"learning.average.start = {self.start}, but learning.epochs = {epochs}, so nothing would be averaged; "
                f"give {epochs - 1} or less"
            )
