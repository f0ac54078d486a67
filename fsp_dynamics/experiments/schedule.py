"""[learning.schedule]: how the learning rates change from epoch to epoch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config import LARGE, Listed, Section, listing, one_of
from fsp_dynamics.learning.schedules import SCHEDULES, Schedule, make_schedule, settings_of

_Epochs = Annotated[int, Field(ge=1, le=LARGE)]


class ScheduleConfig(Section):
    """A kind, the keys of that kind, and a warm-up before any of them. `learning.rate_factor`, the
    key of the kind `factor`, stands outside of the table.
    """

    kind: Annotated[
        str,
        one_of("learning.schedule.kind", SCHEDULES),
        Field("factor", description=f"how learning rates change from epoch to epoch: {listing(SCHEDULES)}"),
    ]
    epochs: Annotated[
        int | None, Field(None, ge=1, le=LARGE, description="cosine: epochs over which rates fall towards 0")
    ]
    at: Annotated[
        tuple[_Epochs, ...],
        Listed,
        Field((), max_length=1000, description="steps: numbers of finished epochs from which on rates are lower"),
    ]
    by: Annotated[float | None, Field(None, gt=0, lt=1, description="steps: factor of all rates at each of them")]
    warm_up: Annotated[int, Field(0, ge=0, le=LARGE, description="epochs over which rates rise at first; any kind")]


def check_schedule(given: ScheduleConfig, rate_factor: float) -> None:
    """Refuse keys of another kind than the one that is chosen, and a kind without its own. Raises
    ValueError naming the key.
    """
    values = _values(given, rate_factor)
    own = settings_of(given.kind)
    for owner in SCHEDULES:
        for name in settings_of(owner):
            key, value = _key(name), values[name]
            left_out = value in (None, ()) or (name, value) == ("rate_factor", 1)
            if name not in own and not left_out:
                raise ValueError(
                    f"{key} = {value!r} belongs to learning.schedule.kind = {owner!r}, not to {given.kind!r}; "
                    f"leave it out ({key}=None)"
                )
            if name in own and value in (None, ()):
                raise ValueError(f"{key} is missing, which learning.schedule.kind = {given.kind!r} needs; give it")
    try:
        schedule_of(given, rate_factor)
    except ConfigurationError as error:
        raise ValueError(f"learning.schedule.{error}") from None


def schedule_of(given: ScheduleConfig, rate_factor: float) -> Schedule:
    """The schedule that the keys describe. Raises ConfigurationError where they do not fit."""
    values = _values(given, rate_factor)
    return make_schedule(given.kind, given.warm_up, **{name: values[name] for name in settings_of(given.kind)})


def _values(given: ScheduleConfig, rate_factor: float) -> dict[str, Any]:
    return {**given.model_dump(exclude={"kind", "warm_up"}), "rate_factor": rate_factor}


def _key(name: str) -> str:
    return f"learning.{name}" if name == "rate_factor" else f"learning.schedule.{name}"
