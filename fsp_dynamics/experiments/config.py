"""What every configuration has, whatever the family of its networks: frozen tables with ranges.
Unknown keys are refused, impossible values are refused, nothing is guessed.

A configuration describes the experiment and nothing of the machine: folders, threads and progress
are arguments of `train`. Each family adds the keys it needs in a subclass of `Config`
(`rate.config.RateConfig`), which `config_of` finds by the key `family`. `[notes]` holds what a
preset should give and what was measured; it is no part of the experiment, and no part of a run,
which says itself what it measured (`Config.of_run`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fsp_dynamics.datasets import DATASETS
from fsp_dynamics.errors import check_choice
from fsp_dynamics.experiments.objects import check_name
from fsp_dynamics.experiments.trainer import TRAINERS

ORDER = ("seed", "family", "data", "network", "learning", "solver", "probes", "notes")
"""The order of keys and tables in files, options and the names of a sweep's runs; what another
family adds comes before [probes].
"""
LARGE = 10**9
"""What a whole number of a configuration is at most, where nothing else limits it."""


def one_of(field: str, choices: Iterable[str]) -> AfterValidator:
    """Accepts one of `choices`; refuses others with the nearest one."""
    return AfterValidator(lambda value: check_choice(field, value, choices))


def listing(choices: Iterable[str]) -> str:
    """The choices, for the description of a key."""
    return ", ".join(choices)


def _listed(value: Any) -> Any:
    """A tuple where a list, or one bare value, was given."""
    return value if isinstance(value, dict) else tuple(value) if isinstance(value, (list, tuple)) else (value,)


Listed = BeforeValidator(_listed)
"""Reads a list, or one bare value, as a tuple."""


class Section(BaseModel):
    """A frozen table of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which images: a named set, or a file or folder of one's own."""

    name: Annotated[
        str | None,
        AfterValidator(lambda value: value and check_name("data.name", value, DATASETS)),
        Field(None, description=f"data set: {listing(DATASETS)}"),
    ]
    path: Annotated[
        str | None,
        Field(
            None,
            min_length=1,
            description="in place of data.name: IDX file, .npz, or folder of IDX files, of records (CIFAR) or of class "
            "folders of images",
        ),
    ]
    limit: Annotated[int | None, Field(None, ge=1, le=LARGE, description="keep only so many training images")]
    validation: Annotated[
        int | None, Field(None, ge=0, le=LARGE, description="training images set aside to choose the best epoch")
    ]

    @model_validator(mode="after")
    def _names_one(self) -> DataConfig:
        if (self.name is None) == (self.path is None):
            both = "both" if self.name is not None else "neither of them"
            raise ValueError(f"data.name and data.path: {both} given, expected exactly one; give one of the two")
        return self

    @property
    def label(self) -> str:
        """What tables and folders call it: the name, or the last part of the path."""
        return self.name.removeprefix("given:") if self.name is not None else Path(str(self.path)).name


class LearningConfig(Section):
    """How long it learns; a family adds how."""

    epochs: Annotated[int, Field(ge=1, le=LARGE, description="passes through the training images")]
    patience: Annotated[
        int | None,
        Field(
            None,
            ge=1,
            le=LARGE,
            description="end early after so many epochs without a lower validation error; none: never",
        ),
    ]


class ProbesConfig(Section):
    """What is measured while it learns; it changes nothing, and is no part of the experiment."""

    samples: Annotated[
        int,
        Field(
            50,
            ge=0,
            le=LARGE,
            description="images whose angles, gradients and stability are measured after each epoch; 0: none",
        ),
    ]
    every: Annotated[
        int,
        Field(
            0, ge=0, le=LARGE, description="batches between two records of the loop's angles within an epoch; 0: none"
        ),
    ]
    keep: Annotated[int, Field(0, ge=0, le=LARGE, description="epochs between two kept networks; 0: none")]


class NotesConfig(Section):
    """Free text beside a preset, of which a run keeps what it is about alone."""

    about: Annotated[str, Field("", description="what it is")]
    paper: Annotated[str, Field("", description="the paper's number")]
    measured: Annotated[str, Field("", description="the number measured here")]
    minutes: Annotated[float | None, Field(None, ge=0, description="how long it took")]
    machine: Annotated[str, Field("", description="on what")]


PRESET_NOTES = tuple(f"notes.{key}" for key in NotesConfig.model_fields if key != "about")
"""Keys that only a preset has: what was measured of it."""
UNSAID = ("seed", "learning.epochs", "notes", "probes")
"""Keys and tables that may change while `notes.about` stays right."""


class Config(Section):
    """One experiment, whole; the fields that all families share.

    >>> from fsp_dynamics.experiments.config_io import load_config
    >>> name, config = load_config("digits")
    >>> name, other = load_config("digits", {"learning.beta": 0.5})
    >>> config.key("learning.beta"), config.key("learning.nonsense")
    (1.0, None)
    >>> config.differences(other)
    {'learning.beta': (1.0, 0.5)}
    >>> list(config.table())[:3], "learning.epochs" in config.experiment()
    (['seed', 'family', 'data'], False)
    """

    seed: Annotated[
        int, Field(0, ge=0, lt=1 << 128, description="seed of the initial weights and of the order of the images")
    ]
    family: Annotated[
        str, one_of("family", TRAINERS), Field("rate", description=f"family of networks: {listing(TRAINERS)}")
    ]
    data: DataConfig
    learning: LearningConfig
    probes: Annotated[ProbesConfig, Field(default_factory=ProbesConfig)]
    notes: Annotated[NotesConfig, Field(default_factory=NotesConfig)]

    @model_validator(mode="after")
    def _can_end_early(self) -> Config:
        if self.learning.patience is not None and self.data.validation == 0:
            raise ValueError(
                f"learning.patience = {self.learning.patience}, but data.validation = 0 leaves no validation images "
                "to judge by; give some, or leave patience out (learning.patience=None)"
            )
        return self

    def table(self, *, exclude_none: bool = False, **more: Any) -> dict[str, Any]:
        """The configuration as nested tables, in the order of `ORDER`; more: of `model_dump`.

        Returns
        -------
        dict : {table: {key: value}}.
        """
        dumped = self.model_dump(exclude_none=exclude_none, **more)
        return {key: dumped[key] for key in ordered(dumped)}

    def of_run(self) -> Self:
        """The configuration as a run has it: without what was measured of a preset.

        Returns
        -------
        Config : see above.
        """
        return self.model_copy(update={"notes": NotesConfig.model_validate({"about": self.notes.about})})

    def key(self, dotted: str) -> Any:
        """The value of a dotted key; None for one that this family does not have.

        Returns
        -------
        Any : the value.
        """
        found: Any = self
        for part in dotted.split("."):
            found = getattr(found, part, None)
        return found

    def experiment(self) -> dict[str, Any]:
        """{dotted key: value} of all that decides the result; neither the notes and probes nor the
        number of epochs.

        Returns
        -------
        dict : {dotted key: value}.
        """
        flat = flatten(self.table(exclude={"notes": True, "probes": True, "learning": {"epochs"}}))
        return {key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()}

    def differences(self, other: Config, *, epochs: bool = False) -> dict[str, tuple[Any, Any]]:
        """{dotted key: (here, there)} wherever the two experiments differ; None for a key that one
        of two families does not have. epochs : whether their number counts too.

        Returns
        -------
        dict : {dotted key: (here, there)}; empty where the experiments are the same.
        """
        here, there = self.experiment(), other.experiment()
        if epochs:
            here["learning.epochs"], there["learning.epochs"] = self.learning.epochs, other.learning.epochs
        keys = dict.fromkeys([*here, *there])
        return {key: (here.get(key), there.get(key)) for key in keys if here.get(key) != there.get(key)}


def config_of(family: str) -> type[Config]:
    """The configuration of a family, imported now. Raises ConfigurationError for an unknown one."""
    module, name = TRAINERS[check_choice("family", family, TRAINERS)].config.split(":")
    found: type[Config] = getattr(importlib.import_module(module), name)
    return found


def format_differences(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """What differs, {key: (before, now)}, in one line.

    >>> format_differences({"learning.beta": (0.5, 1.0), "seed": (0, 1)})
    'learning.beta was 0.5, now 1.0, seed was 0, now 1'
    """
    return ", ".join(f"{key} was {old}, now {new}" for key, (old, new) in differing.items())


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted key: value} of a nested table."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def fields(section: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """{dotted key: what it means} of every key of a configuration, in the order of `ORDER`."""
    found: dict[str, str] = {}
    for key in section.model_fields if prefix else ordered(section.model_fields):
        field = section.model_fields[key]
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= fields(kind, f"{prefix}{key}.")
        else:
            found[prefix + key] = field.description or ""
    return found


def all_fields() -> dict[str, str]:
    """{dotted key: what it means} of the keys of all families that a run has: the options of the
    command line.
    """
    found = {key: meaning for family in TRAINERS for key, meaning in fields(config_of(family)).items()}
    return {key: meaning for key, meaning in found.items() if key not in PRESET_NOTES}


def ordered(keys: Iterable[str]) -> list[str]:
    """The top-level keys in the order of `ORDER`."""
    place = {key: 2 * number for number, key in enumerate(ORDER)}
    return sorted(keys, key=lambda key: place.get(key, place["probes"] - 1))
