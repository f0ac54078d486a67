"""The configuration of rate networks: which network, how it learns, how it converges."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.experiments.config import LARGE, Config, LearningConfig, Listed, Section, listing, one_of
from fsp_dynamics.experiments.objects import check_name
from fsp_dynamics.experiments.rate.augmentation import AugmentationConfig
from fsp_dynamics.experiments.rate.average import AverageConfig
from fsp_dynamics.experiments.schedule import ScheduleConfig, check_schedule
from fsp_dynamics.learning.phases import KINDS
from fsp_dynamics.learning.rules import RULES
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.solvers import SOLVERS

TOPOLOGIES = ("loop", "reciprocal")
DTYPES = ("float32", "float64")
TRAINING_SOLVERS = tuple(
    name for name in SOLVERS if name != "torch_fixed_point"
)  # which is what backend torch makes of fixed_point

MOST_UNITS = 10**6  # of one layer
MOST_WEIGHTS = 1 << 31  # of one matrix

_Rate = Annotated[float, Field(ge=0)]
_Rates = Annotated[tuple[_Rate, ...], Listed]
_Sizes = Annotated[tuple[Annotated[int, Field(ge=1, le=MOST_UNITS)], ...], Listed]
_Constants = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Listed]
_Names = Annotated[tuple[str, ...], Listed]


class NetworkConfig(Section):
    """Which network. `loop_scale` belongs to the loop, `tied` to the reciprocal network."""

    kind: Annotated[str, one_of("network.kind", TOPOLOGIES), Field("loop", description="loop or reciprocal")]
    hidden: Annotated[_Sizes, Field(min_length=1, max_length=1000, description="units of each hidden layer")]
    rho: Annotated[
        str,
        AfterValidator(lambda text: check_name("network.rho", text, ACTIVATIONS)),
        Field("hard_sigmoid", description=f"firing rate: {listing(ACTIVATIONS)}, or package.module:name of your own"),
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
    initial: Annotated[
        str | None,
        Field(None, description="SHA-256 of the weights of a network given in Python; none: drawn from the seed"),
    ]
    dtype: Annotated[
        str, one_of("network.dtype", DTYPES), Field("float32", description=f"precision: {listing(DTYPES)}")
    ]

    @model_validator(mode="after")
    def _fits(self) -> NetworkConfig:
        stray = "tied" if self.kind == "loop" else "loop_scale"
        if getattr(self, stray) is not None:
            owner = next(kind for kind in TOPOLOGIES if kind != self.kind)
            raise ValueError(
                f"network.{stray} = {getattr(self, stray)!r} belongs to network.kind = {owner!r}, "
                f"not to {self.kind!r}; leave it out (network.{stray}=None)"
            )
        for one, other in itertools.pairwise(self.hidden):
            check_weights("network.hidden", one, other)
        if len(self.time_constants) not in (1, len(self.hidden) + 1):
            raise ValueError(
                f"network.time_constants has {len(self.time_constants)} values, "
                f"expected 1 or {len(self.hidden) + 1} (each hidden layer, the output)"
            )
        return self


def check_weights(field: str, pre: int, post: int) -> None:
    """Raises ConfigurationError for a matrix that no memory holds."""
    if pre * post > MOST_WEIGHTS:
        raise ConfigurationError(
            f"{field}: {pre} units into {post} are {pre * post} weights, expected at most {MOST_WEIGHTS}; "
            "give smaller layers"
        )


class RatesConfig(Section):
    """Learning rate of each matrix, and of biases, which else share that of the matrix into their
    layer.
    """

    input: Annotated[_Rate, Field(description="rate of the input matrix")]
    forward: Annotated[_Rates, Field(description="rate of each forward matrix, the one into the output last")]
    loop: Annotated[_Rate, Field(0.0, description="rate of the loop")]
    backward: Annotated[_Rates, Field((), description="rate of each backward matrix (reciprocal network, not tied)")]
    biases: Annotated[
        _Rates,
        Field((), description="rate of each layer's biases, the output last; none: that of the matrix into the layer"),
    ]


class RateLearningConfig(LearningConfig):
    """How it learns."""

    batch: Annotated[int, Field(20, ge=1, le=LARGE, description="images for each weight update")]
    beta: Annotated[float, Field(1.0, description="strength of the nudge")]
    phases: Annotated[
        str, one_of("learning.phases", KINDS), Field("one-sided", description=f"sign of the nudge: {listing(KINDS)}")
    ]
    rule: Annotated[
        str,
        AfterValidator(lambda text: check_name("learning.rule", text, RULES)),
        Field(
            "hebbian",
            description=f"learning rule: {listing(RULES)} (hebbian is eq. 14), or package.module:name of your own",
        ),
    ]
    mirror: Annotated[
        float,
        Field(
            0.0,
            ge=0,
            le=1,
            description="share by which the loop follows noise sent forward, every thousand images, before the "
            "schedule's factor",
        ),
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
    weight_noise: Annotated[
        float,
        Field(
            0.0,
            ge=0,
            description="noise on each matrix while it learns, as a share of its size, anew every thousand images",
        ),
    ]
    rate_factor: Annotated[float, Field(1.0, gt=0, le=1, description="factor of all rates after each epoch")]
    schedule: Annotated[ScheduleConfig, Field(default_factory=ScheduleConfig)]
    frozen: Annotated[_Names, Field((), description="parameters that do not learn, such as loop or forward[0]")]
    average: Annotated[AverageConfig, Field(default_factory=AverageConfig)]
    augmentation: Annotated[AugmentationConfig, Field(default_factory=AugmentationConfig)]

    @model_validator(mode="after")
    def _averages(self) -> RateLearningConfig:
        self.average.check_start(self.epochs)
        return self

    @model_validator(mode="after")
    def _nudges(self) -> RateLearningConfig:
        if self.beta == 0:
            raise ValueError(
                "learning.beta = 0.0: without a nudge nothing would be learned; give a number other than 0, such as 1.0"
            )
        return self

    @model_validator(mode="after")
    def _is_scheduled(self) -> RateLearningConfig:
        check_schedule(self.schedule, self.rate_factor)
        return self


class SolverConfig(Section):
    """How the network converges. What is left out takes the solver's own default; of absolute
    and relative, one alone sets the other to 0.
    """

    name: Annotated[
        str,
        one_of("solver.name", TRAINING_SOLVERS),
        Field("fixed_point", description=f"solver: {listing(TRAINING_SOLVERS)}"),
    ]
    method: Annotated[str | None, Field(None, description="method of that solver")]
    absolute: Annotated[
        float | None, Field(None, ge=0, description="converged: ||field|| <= absolute + relative ||state||")
    ]
    relative: Annotated[float | None, Field(None, ge=0, description="see absolute")]
    max_passes: Annotated[
        int | None, Field(None, ge=1, le=10**6, description="passes before a fixed point is given up")
    ]
    memory: Annotated[int | None, Field(None, ge=1, le=100, description="earlier passes that Anderson's method mixes")]
    dt: Annotated[float | None, Field(None, gt=0, description="step size, in units of time")]
    max_steps: Annotated[
        int | None, Field(None, ge=1, le=10**12, description="steps before an integration is given up")
    ]
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
                    f"solver.{key} = {self.settings[key]!r} is no setting of solver.name = {self.name!r}; "
                    f"leave it out (solver.{key}=None) or choose another solver"
                )
        if (self.absolute, self.relative) != (None, None) and (self.absolute or 0) + (self.relative or 0) == 0:
            raise ValueError(
                "solver.absolute and solver.relative are both 0, which can never be met; "
                "give one of them a positive value"
            )
        return self


class RateConfig(Config):
    """One experiment with a rate network, whole."""

    network: NetworkConfig
    learning: RateLearningConfig
    solver: Annotated[SolverConfig, Field(default_factory=SolverConfig)]

    @property
    def time_constants(self) -> tuple[float, ...]:
        """r of each layer, the output last."""
        given = self.network.time_constants
        return given * (len(self.network.hidden) + 1) if len(given) == 1 else given

    @model_validator(mode="after")
    def _is_consistent(self) -> RateConfig:
        _check_rates(self)
        _check_beta(self)
        _check_frozen(self)
        _check_extras(self)
        return self


def _parameter_names(config: RateConfig) -> list[str]:
    depth = len(config.network.hidden) + 1
    names = ["input", *(f"forward[{k}]" for k in range(depth - 1))]
    if config.network.kind == "loop":
        names.append("loop")
    elif config.network.tied is False:
        names += [f"backward[{k}]" for k in range(depth - 1)]
    return names + [f"biases[{k}]" for k in range(depth)]


def _check_rates(config: RateConfig) -> None:
    rates, hidden, names = config.learning.rates, len(config.network.hidden), _parameter_names(config)
    if len(rates.forward) != hidden:
        raise ValueError(
            f"learning.rates.forward has {len(rates.forward)} values, "
            f"expected {hidden}: one out of each hidden layer of network.hidden"
        )
    if rates.biases and len(rates.biases) != hidden + 1:
        raise ValueError(
            f"learning.rates.biases has {len(rates.biases)} values, expected {hidden + 1}: one for each hidden layer "
            "and the output; or leave it out (learning.rates.biases=None)"
        )
    backward = sum(name.startswith("backward") for name in names)
    if len(rates.backward) != backward:
        raise ValueError(
            f"learning.rates.backward has {len(rates.backward)} values, "
            f"expected {backward}: one for each backward matrix that learns"
        )
    if rates.loop and "loop" not in names:
        raise ValueError(
            f"learning.rates.loop = {rates.loop!r}, but network.kind = {config.network.kind!r} has no loop; "
            "leave it out (learning.rates.loop=None)"
        )


def _check_beta(config: RateConfig) -> None:
    beta, limit = config.learning.beta, 1 / config.time_constants[-1]
    lowest = beta if config.learning.phases == "one-sided" else -abs(beta)
    if lowest <= -limit:
        used = "" if lowest == beta else f" is also used as {lowest!r} (learning.phases = {config.learning.phases!r})"
        raise ValueError(
            f"learning.beta = {beta!r}{used}, expected above {-limit:g} (-1/r of the output), "
            "where the output no longer leaks"
        )


def _check_frozen(config: RateConfig) -> None:
    names = _parameter_names(config)
    for name in config.learning.frozen:
        check_choice("learning.frozen", name, names)
    if set(names) <= set(config.learning.frozen):
        raise ValueError("learning.frozen names every parameter, so nothing would learn; leave some out")


def _check_extras(config: RateConfig) -> None:
    given, kind = config.learning, config.network.kind
    if given.mirror and kind != "loop":
        raise ValueError(
            f"learning.mirror = {given.mirror!r}, "
            f"but network.kind = {kind!r} has no loop that could follow; leave it out "
            "(learning.mirror=None)"
        )
    if given.rule == "mean_subtracted" and kind == "reciprocal" and config.network.tied is not False:
        raise ValueError(
            "learning.rule = 'mean_subtracted': a tied matrix is presynaptic at both ends; "
            "choose another rule, or network.tied = false"
        )
