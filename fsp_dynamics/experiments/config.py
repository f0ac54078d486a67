"""What a run is, as a frozen record with ranges: unknown keys are refused, impossible values are
refused, nothing is guessed.

A configuration describes the experiment and nothing of the machine: folders, threads and progress
are arguments of `train`. `[notes]` says what a preset should give and what was measured; it is no
part of the experiment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fsp_dynamics.datasets import DATASETS
from fsp_dynamics.errors import check_choice
from fsp_dynamics.learning.phases import KINDS
from fsp_dynamics.learning.rules import RULES
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.solvers import SOLVERS

TOPOLOGIES = ("loop", "reciprocal")
DTYPES = ("float32", "float64")
TRAINING_SOLVERS = tuple(
    name for name in SOLVERS if name != "torch_fixed_point"
)  # which is what backend torch makes of fixed_point


def _one_of(field: str, choices: Iterable[str]) -> AfterValidator:
    return AfterValidator(lambda value: check_choice(field, value, choices))


def _listing(choices: Iterable[str]) -> str:
    return ", ".join(choices)


def _listed(value: Any) -> Any:
    """A tuple where a list, or one bare value, was given."""
    return value if isinstance(value, dict) else tuple(value) if isinstance(value, (list, tuple)) else (value,)


_Rate = Annotated[float, Field(ge=0)]
_Rates = Annotated[tuple[_Rate, ...], BeforeValidator(_listed)]
_Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_listed)]
_Constants = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_listed)]
_Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Section(BaseModel):
    """A frozen table of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which images."""

    name: Annotated[str, _one_of("data.name", DATASETS), Field(description=f"data set: {_listing(DATASETS)}")]
    limit: Annotated[int | None, Field(None, ge=1, description="keep only so many training images")]
    validation: Annotated[
        int | None, Field(None, ge=0, description="training images set aside to choose the best epoch")
    ]


class NetworkConfig(Section):
    """Which network. `loop_scale` belongs to the loop, `tied` to the reciprocal network."""

    kind: Annotated[str, _one_of("network.kind", TOPOLOGIES), Field("loop", description="loop or reciprocal")]
    hidden: Annotated[_Sizes, Field(min_length=1, description="units of each hidden layer")]
    rho: Annotated[
        str,
        _one_of("network.rho", ACTIVATIONS),
        Field("hard_sigmoid", description=f"firing-rate function: {_listing(ACTIVATIONS)}"),
    ]
    time_constants: Annotated[
        _Constants, Field((1.0,), min_length=1, description="r: one for all layers, or one for each, the output last")
    ]
    forward_scale: Annotated[
        float | None,
        Field(None, gt=0, description="factor of the initial weights between layers (default 1; reciprocal 0.4)"),
    ]
    loop_scale: Annotated[
        float | None, Field(None, ge=0, description="factor of the loop's initial weights (default 1)")
    ]
    tied: Annotated[
        bool | None, Field(None, description="backward weights are the transposed forward ones (default true)")
    ]
    dtype: Annotated[
        str, _one_of("network.dtype", DTYPES), Field("float32", description=f"precision: {_listing(DTYPES)}")
    ]

    @model_validator(mode="after")
    def _fits(self) -> NetworkConfig:
        stray = "tied" if self.kind == "loop" else "loop_scale"
        if getattr(self, stray) is not None:
            owner = next(kind for kind in TOPOLOGIES if kind != self.kind)
            raise ValueError(
                f"network.{stray} = {getattr(self, stray)!r} belongs to network.kind = {owner!r}, not to {self.kind!r}; leave it out"
            )
        if len(self.time_constants) not in (1, len(self.hidden) + 1):
            raise ValueError(
                f"network.time_constants has {len(self.time_constants)} values, expected 1 or {len(self.hidden) + 1} (each hidden layer, the output)"
            )
        return self


class RatesConfig(Section):
    """Learning rate of each matrix; biases share the rate of the matrix into their layer."""

    input: Annotated[_Rate, Field(description="rate of the input matrix")]
    forward: Annotated[_Rates, Field(description="rate of each forward matrix, the one into the output last")]
    loop: Annotated[_Rate, Field(0.0, description="rate of the loop")]
    backward: Annotated[_Rates, Field((), description="rate of each backward matrix (reciprocal network, not tied)")]


class LearningConfig(Section):
    """How it learns."""

    epochs: Annotated[int, Field(ge=1, description="passes through the training images")]
    batch: Annotated[int, Field(20, ge=1, description="images for each weight update")]
    beta: Annotated[float, Field(1.0, description="strength of the nudge")]
    phases: Annotated[
        str, _one_of("learning.phases", KINDS), Field("one-sided", description=f"sign of the nudge: {_listing(KINDS)}")
    ]
    rule: Annotated[
        str,
        _one_of("learning.rule", RULES),
        Field("hebbian", description=f"learning rule: {_listing(RULES)} (hebbian is eq. 14)"),
    ]
    mirror: Annotated[
        float,
        Field(0.0, ge=0, le=1, description="share by which the loop follows noise sent forward, every thousand images"),
    ]
    rates: Annotated[RatesConfig, Field(description="learning rates")]
    normalised: Annotated[
        bool, Field(True, description="divide rates by 1 + mean squared norm of the presynaptic rates")
    ]
    output_step: Annotated[
        float | None, Field(None, gt=0, description="largest change of an output's mean input in one batch")
    ]
    momentum: Annotated[float, Field(0.0, ge=0, lt=1, description="share of the last change that is kept")]
    decay: Annotated[float, Field(0.0, ge=0, description="weight decay")]
    rate_factor: Annotated[float, Field(1.0, gt=0, le=1, description="factor of all rates after each epoch")]
    frozen: Annotated[_Names, Field((), description="parameters that do not learn, such as loop or forward[0]")]

    @model_validator(mode="after")
    def _pulls(self) -> LearningConfig:
        if self.beta == 0:
            raise ValueError(
                "learning.beta = 0.0 pulls nothing and nothing would be learned; give a number other than 0, such as 1.0"
            )
        return self


class SolverConfig(Section):
    """How the network converges. What is left out takes the solver's own default; of absolute
    and relative, one alone sets the other to 0.
    """

    name: Annotated[
        str,
        _one_of("solver.name", TRAINING_SOLVERS),
        Field("fixed_point", description=f"solver: {_listing(TRAINING_SOLVERS)}"),
    ]
    method: Annotated[str | None, Field(None, description="method of that solver")]
    absolute: Annotated[
        float | None, Field(None, ge=0, description="converged: ||field|| <= absolute + relative ||state||")
    ]
    relative: Annotated[float | None, Field(None, ge=0, description="see absolute")]
    max_passes: Annotated[int | None, Field(None, ge=1, description="passes before a fixed point is given up")]
    memory: Annotated[int | None, Field(None, ge=1, description="earlier passes that Anderson's method mixes")]
    dt: Annotated[float | None, Field(None, gt=0, description="step size, in units of time")]
    max_steps: Annotated[int | None, Field(None, ge=1, description="steps before an integration is given up")]
    form: Annotated[str | None, Field(None, description="form of the field that is integrated")]

    @property
    def settings(self) -> dict[str, Any]:
        """What `make_solver` is given beside the name."""
        return self.model_dump(exclude={"name", "absolute", "relative"}, exclude_none=True)

    @model_validator(mode="after")
    def _fits(self) -> SolverConfig:
        stray: tuple[str, ...] = ("dt", "max_steps", "form") if self.name == "fixed_point" else ("max_passes", "memory")
        stray += ("form",) if self.name == "torch_ode" else ()
        for key in stray:
            if key in self.settings:
                raise ValueError(
                    f"solver.{key} = {self.settings[key]!r} is no setting of solver.name = {self.name!r}; leave it out or choose another solver"
                )
        if (self.absolute, self.relative) != (None, None) and (self.absolute or 0) + (self.relative or 0) == 0:
            raise ValueError(
                "solver.absolute and solver.relative are both 0, which can never be met; give one of them a positive value"
            )
        return self


class ProbesConfig(Section):
    """What is looked at while it learns; it changes nothing, and is no part of the experiment."""

    samples: Annotated[
        int,
        Field(
            50, ge=0, description="images whose angles, gradients and stability are measured after each epoch; 0: none"
        ),
    ]
    every: Annotated[
        int, Field(0, ge=0, description="batches between two records of the loop's angles within an epoch; 0: none")
    ]
    keep: Annotated[int, Field(0, ge=0, description="epochs between two kept networks; 0: none")]


class NotesConfig(Section):
    """Free text beside a preset."""

    about: Annotated[str, Field("", description="what it is")]
    paper: Annotated[str, Field("", description="the paper's number")]
    measured: Annotated[str, Field("", description="the number measured here")]
    minutes: Annotated[float | None, Field(None, ge=0, description="how long it took")]
    machine: Annotated[str, Field("", description="on what")]


class Config(Section):
    """One experiment, whole."""

    seed: Annotated[int, Field(0, ge=0, description="seed of the initial weights and of the order of the images")]
    data: DataConfig
    network: NetworkConfig
    learning: LearningConfig
    solver: Annotated[SolverConfig, Field(default_factory=SolverConfig)]
    probes: Annotated[ProbesConfig, Field(default_factory=ProbesConfig)]
    notes: Annotated[NotesConfig, Field(default_factory=NotesConfig)]

    @property
    def time_constants(self) -> tuple[float, ...]:
        """r of each layer, the output last."""
        given = self.network.time_constants
        return given * (len(self.network.hidden) + 1) if len(given) == 1 else given

    @model_validator(mode="after")
    def _agree(self) -> Config:
        _check_rates(self)
        _check_beta(self)
        _check_frozen(self)
        _check_extras(self)
        return self

    def experiment(self) -> dict[str, Any]:
        """{dotted key: value} of all that decides the result; neither the notes and probes nor the
        number of epochs.
        """
        flat = flatten(self.model_dump(exclude={"notes": True, "probes": True, "learning": {"epochs"}}))
        return {key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()}

    def differences(self, other: Config) -> dict[str, tuple[Any, Any]]:
        """{dotted key: (here, there)} wherever the two experiments differ."""
        here, there = self.experiment(), other.experiment()
        return {key: (here[key], there[key]) for key in here if here[key] != there[key]}


def format_differences(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """What differs, {key: (before, now)}, in one line.

    >>> format_differences({"learning.beta": (0.5, 1.0), "seed": (0, 1)})
    'learning.beta was 0.5, now 1.0, seed was 0, now 1'
    """
    return ", ".join(f"{key} was {old}, now {new}" for key, (old, new) in differing.items())


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted key: value} of a nested table."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def fields(section: type[BaseModel] = Config, prefix: str = "") -> dict[str, str]:
    """{dotted key: what it means} of every key a configuration may have."""
    found: dict[str, str] = {}
    for key, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= fields(kind, f"{prefix}{key}.")
        else:
            found[prefix + key] = field.description or ""
    return found


def _parameter_names(config: Config) -> list[str]:
    depth = len(config.network.hidden) + 1
    names = ["input", *(f"forward[{k}]" for k in range(depth - 1))]
    if config.network.kind == "loop":
        names.append("loop")
    elif config.network.tied is False:
        names += [f"backward[{k}]" for k in range(depth - 1)]
    return names + [f"biases[{k}]" for k in range(depth)]


def _check_rates(config: Config) -> None:
    rates, hidden, names = config.learning.rates, len(config.network.hidden), _parameter_names(config)
    if len(rates.forward) != hidden:
        raise ValueError(
            f"learning.rates.forward has {len(rates.forward)} values, expected {hidden}: one out of each hidden layer of network.hidden"
        )
    backward = sum(name.startswith("backward") for name in names)
    if len(rates.backward) != backward:
        raise ValueError(
            f"learning.rates.backward has {len(rates.backward)} values, expected {backward}: one for each backward matrix that learns"
        )
    if rates.loop and "loop" not in names:
        raise ValueError(
            f"learning.rates.loop = {rates.loop!r}, but network.kind = {config.network.kind!r} has no loop; leave it out"
        )


def _check_beta(config: Config) -> None:
    beta, limit = config.learning.beta, 1 / config.time_constants[-1]
    lowest = beta if config.learning.phases == "one-sided" else -abs(beta)
    if lowest <= -limit:
        used = "" if lowest == beta else f" is also used as {lowest!r} (learning.phases = {config.learning.phases!r})"
        raise ValueError(
            f"learning.beta = {beta!r}{used}, expected above {-limit:g} (-1/r of the output), where the output no longer leaks"
        )


def _check_frozen(config: Config) -> None:
    names = _parameter_names(config)
    for name in config.learning.frozen:
        check_choice("learning.frozen", name, names)
    if set(names) <= set(config.learning.frozen):
        raise ValueError("learning.frozen names every parameter, so nothing would learn; leave some out")


def _check_extras(config: Config) -> None:
    given, kind = config.learning, config.network.kind
    if given.mirror and kind != "loop":
        raise ValueError(
            f"learning.mirror = {given.mirror!r}, but network.kind = {kind!r} has no loop that could follow; leave it out"
        )
    if given.rule == "mean_subtracted" and kind == "reciprocal" and config.network.tied is not False:
        raise ValueError(
            "learning.rule = 'mean_subtracted': a tied matrix is presynaptic at both ends; use 'hebbian', or network.tied = false"
        )
