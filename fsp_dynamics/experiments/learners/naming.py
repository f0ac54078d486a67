"""`learner_of`: what a run's learner is called, from its configuration alone.

=========================  =======================================================================
learner                    configuration
=========================  =======================================================================
eq. 14, loop learned       a loop, learning.rule = "hebbian", nothing frozen, no mirror phases
eq. 14, loop fixed         the same, the loop frozen
eq. 14, mirror phases      the same as the first, with mirror phases
exact gradient             a loop, learning.rule = "gradient", nothing frozen
equilibrium propagation    network.kind = "reciprocal", eq. 14 (or products), tied, nothing frozen
backpropagation            learning.rule = "gradient", network.loop_scale = 0 and the loop frozen:
                           without its loop the network is a multilayer perceptron, and the gradient
                           at its equilibrium is that of backpropagation
=========================  =======================================================================

Anything else is named after its rule, what is frozen and how it is connected, such as "eq. 14, W1
fixed"; discrete networks have names of their own (`layerwise.naming`). A family, or a learner, of
another kind is an entry of `NAMERS`: a function of the configuration that gives a name, or None
where it knows none. The first name counts.
"""

from __future__ import annotations

from collections.abc import Callable

from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.layerwise.naming import DEFINING as LAYERWISE_DEFINING
from fsp_dynamics.experiments.layerwise.naming import NAMES as LAYERWISE_NAMES
from fsp_dynamics.experiments.layerwise.naming import layerwise_learner
from fsp_dynamics.experiments.rate.config import RateConfig

LEARNED, FIXED, MIRROR = "eq. 14, loop learned", "eq. 14, loop fixed", "eq. 14, mirror phases"
GRADIENT, RECIPROCAL, BACKPROPAGATION = "exact gradient", "equilibrium propagation", "backpropagation"
LEARNERS = (LEARNED, FIXED, MIRROR, GRADIENT, RECIPROCAL, BACKPROPAGATION)
"""The learners of `fsp table learners` that are rate networks, in the order of its rows."""
ORDER = (*LEARNERS, *LAYERWISE_NAMES.values())
"""The order of rows of all families; a name that begins with one of these has its place."""
DEFINING = (
    *("network.kind", "network.tied", "network.loop_scale"),
    *("learning.rule", "learning.frozen", "learning.mirror"),
    *LAYERWISE_DEFINING,
)
"""The keys that decide a name."""

_RULES = {"hebbian": "eq. 14", "gradient": GRADIENT, "mean_subtracted": "eq. 14 mean-subtracted"}


def learner_of(config: Config) -> str:
    """The name of what learns in a run of this configuration.

    >>> from fsp_dynamics.experiments.config_io import load_config
    >>> learner_of(load_config("digits")[1])
    'eq. 14, loop learned'
    >>> learner_of(load_config("digits", {"learning.frozen": "forward[0]"})[1])
    'eq. 14, W1 fixed'
    """
    return next(name for namer in NAMERS if (name := namer(config)) is not None)


def _rate(config: Config) -> str | None:
    """Of a rate network."""
    if not isinstance(config, RateConfig):
        return None
    network, learning = config.network, config.learning
    rule, frozen = _RULES.get(learning.rule, learning.rule), list(learning.frozen)
    more = []
    if network.kind == "reciprocal":
        if learning.rule in ("hebbian", "products"):
            rule = RECIPROCAL
        else:
            more.append("reciprocal")
        more += ["not tied"] if network.tied is False else []
    elif network.loop_scale == 0 and "loop" in frozen:
        frozen.remove("loop")
        if learning.rule == "gradient":
            rule = BACKPROPAGATION
        else:
            more.append("no loop")
    elif frozen == ["loop"]:
        frozen = []
        more.append("loop fixed")
    elif learning.rule != "gradient" and not learning.mirror and not frozen:
        more.append("loop learned")
    more += ["mirror phases"] if learning.mirror else []
    return ", ".join([rule, *more, *(f"{_matrix(name)} fixed" for name in frozen)])


def _matrix(parameter: str) -> str:
    """W1 for forward[0], as records name matrices; any other parameter itself."""
    if parameter.startswith("forward["):
        return f"W{int(parameter[8:-1]) + 1}"
    return parameter


def _any(config: Config) -> str | None:
    """Of a family that has no names of its own."""
    return config.family


NAMERS: tuple[Callable[[Config], str | None], ...] = (_rate, layerwise_learner, _any)
"""The namers, in the order in which they are asked."""
