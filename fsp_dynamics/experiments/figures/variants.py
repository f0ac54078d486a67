"""Which variant of a figure a run is, decided from its configuration alone; the changes that make a
variant; and whether runs may stand in one figure.

=========================  =======================================================================
variant                    configuration
=========================  =======================================================================
loop learned               a loop, eq. 14, nothing frozen
loop fixed, W1 fixed, ...  the same, that one matrix frozen (W1 = forward[0], W2 = forward[1], ...);
                           a fixed loop has no mirror phases, which would move it, and a rate of
                           no effect
equilibrium propagation    network.kind = "reciprocal", eq. 14, nothing frozen
exact gradient             a loop, learning.rule = "gradient", nothing frozen
backpropagation            learning.rule = "gradient", network.loop_scale = 0 and the loop frozen:
                           without its loop the network is a multilayer perceptron, and the gradient
                           at its equilibrium is that of backpropagation
=========================  =======================================================================

The variants of eq. 14 (learning.rule = "mean_subtracted") count as eq. 14; runs that differ in it
do not stand in one figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.rate.building import require_rate
from fsp_dynamics.experiments.rate.config import RateConfig

LEARNED, FIXED = "loop learned", "loop fixed"
RECIPROCAL, EXACT, PERCEPTRON = "equilibrium propagation", "exact gradient", "backpropagation"
LEARNERS = (LEARNED, FIXED, RECIPROCAL, EXACT, PERCEPTRON)

_KIND = frozenset({"network.kind", "network.tied", "network.loop_scale", "network.forward_scale", "learning.frozen"})
_DEFINING = {
    LEARNED: frozenset[str](),
    FIXED: frozenset({"learning.frozen", "learning.mirror", "learning.rates.loop"}),
    RECIPROCAL: _KIND | {"learning.mirror"},
    EXACT: frozenset({"learning.rule", "learning.mirror"}),
    PERCEPTRON: frozenset({"learning.rule", "network.loop_scale", "learning.frozen", "learning.mirror"}),
}
TUNED = (
    "learning.rates.", "learning.output_step", "learning.beta", "learning.batch", "learning.rate_factor",
    "learning.schedule.",
)  # fmt: skip
"""Keys whose values may differ between learning rules, where rules are compared by their errors."""


def matrices(config: RateConfig) -> list[str]:
    """W1, W2, ..., loop: the matrices of the loop as records name them."""
    return [f"W{k}" for k in range(1, len(config.network.hidden) + 1)] + ["loop"]


def each_fixed(config: RateConfig) -> list[str]:
    """The variants in which one matrix of the loop is fixed, in turn."""
    return [f"{name} fixed" for name in matrices(config)]


def variant_of(config: Config) -> str | None:
    """Which variant a configuration is; None if it is none of them."""
    if not isinstance(config, RateConfig):
        return None
    network, rule, frozen = config.network, config.learning.rule, config.learning.frozen
    if network.kind == "reciprocal":
        return RECIPROCAL if rule != "gradient" and not frozen else None
    if rule == "gradient":
        if network.loop_scale == 0:
            return PERCEPTRON if frozen == ("loop",) else None
        return None if frozen else EXACT
    fixed: dict[tuple[str, ...], str] = {
        ("loop",): FIXED,
        **{(f"forward[{k}]",): f"W{k + 1} fixed" for k in range(len(network.hidden))},
    }
    return fixed.get(frozen) if frozen else LEARNED


def variant(base: RateConfig, name: str) -> RateConfig:
    """The configuration that is `base`, a learned loop, but for what makes it that variant.

    Equilibrium propagation takes the rates, beta and initial scale of the preset mnist-ep-2x500,
    whatever the depth, and its `rate_factor` unless the base has another kind of schedule. Only
    where eq. 14 trains the loop are there mirror phases.
    """
    if name == LEARNED:
        return base
    changes: dict[str, Any] = {"learning.mirror": 0.0, "learning.rule": "gradient"}
    if name == RECIPROCAL:
        factor = {"learning.rate_factor": 0.85} if base.learning.schedule.kind == "factor" else {}
        changes = {
            "learning.mirror": 0.0,
            **factor,
            **{
                "network.kind": "reciprocal",
                "network.tied": True,
                "network.forward_scale": 0.4,
                "network.loop_scale": None,
            },
            **{"learning.beta": 0.5, "learning.output_step": None},
            **{"learning.rates.input": 20.0, "learning.rates.loop": 0.0, "learning.rates.biases": None},
            **{"learning.rates.forward": [10.0] * (len(base.network.hidden) - 1) + [2.0]},
        }
    elif name == PERCEPTRON:
        changes |= {"network.loop_scale": 0.0, "learning.frozen": ["loop"]}
    elif name != EXACT:
        which = name.removesuffix(" fixed")
        changes = {"learning.frozen": ["loop" if which == "loop" else f"forward[{int(which[1:]) - 1}]"]}
        if name == FIXED:
            changes["learning.mirror"] = 0.0
    return require_rate(load_config(base, changes)[1], "a figure")


def unlike(one: Config, other: Config, tuned: bool = False) -> dict[str, tuple[Any, Any]]:
    """{key: (one, other)} of all in which they differ and may not: neither the seed nor what
    defines their variants.

    tuned : two variants may also differ in the `TUNED` keys.
    """
    here, there = variant_of(one), variant_of(other)
    may: Callable[[str], bool] = {"seed"}.__contains__
    if here != there:
        defining = {"seed", *_defining(here), *_defining(there)}
        may = lambda key: key in defining or (tuned and key.startswith(TUNED))  # noqa: E731
    return {key: values for key, values in one.differences(other).items() if not may(key)}


def require_alike(runs: Sequence[tuple[str, Config]], tuned: bool = False) -> None:
    """Raises ConfigurationError for the first two of these (name, configuration) that differ in
    more than they may, or are the same run.
    """
    for i, (name, config) in enumerate(runs):
        for other, known in runs[:i]:
            found = unlike(known, config, tuned)
            if found:
                what = ", ".join(f"{key} is {old} and {new}" for key, (old, new) in found.items())
                raise ConfigurationError(
                    f"{other} and {name} do not belong in one figure: {what}; "
                    "give runs that share the rest of their configuration"
                )
            if variant_of(known) == variant_of(config) and known.seed == config.seed:
                raise ConfigurationError(
                    f"{other} and {name} are the same experiment ({variant_of(config)}, seed {config.seed}); "
                    "give one of them"
                )


def _defining(name: str | None) -> frozenset[str]:
    return _DEFINING.get(name or "", frozenset({"learning.frozen"}))
