"""What a learner of a discrete network is called, from its configuration alone."""

from __future__ import annotations

from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.layerwise.config import LayerwiseConfig, TargetsConfig

NAMES = {
    "bp": "backpropagation",
    "fsp": "FSP",
    "ll-bp": "local learning, BP",
    "ll-fa": "local learning, FA",
    "fa": "feedback alignment",
    "dfa": "direct feedback alignment",
    "sg": "synthetic gradients",
    "dtp": "difference target propagation",
    "efp": "error forward propagation",
    "shallow": "classification layer alone",
}
"""{learning.learner: its name}; of any other, the learner itself."""
DEFINING = ("learning.learner", *(f"targets.{key}" for key in TargetsConfig.model_fields))
"""The keys that decide a name."""


def layerwise_learner(config: Config) -> str | None:
    """The name, with the version of figure 2 and what else is not as usual of the targets; None for
    another family.

    >>> from fsp_dynamics.experiments.config_io import load_config
    >>> layerwise_learner(load_config("fashion-conv-fsp-sparse")[1])
    'FSP 2b, sparse 9'
    >>> layerwise_learner(load_config("fashion-snn-fsp-voltage")[1])
    'FSP 2b, voltage'
    """
    if not isinstance(config, LayerwiseConfig):
        return None
    name = NAMES.get(config.learning.learner, config.learning.learner)
    if config.learning.learner != "fsp":
        return name
    more = [f"{name} {config.targets.version}"]
    if config.network.kind == "snn":
        more.append(config.targets.compared)
    for key, field in TargetsConfig.model_fields.items():
        value = getattr(config.targets, key)
        if key not in ("version", "compared") and value != field.default:
            more.append(str(value) if key in ("generator", "score") else f"{key.replace('_', ' ')} {value}".lower())
    return ", ".join(more)
