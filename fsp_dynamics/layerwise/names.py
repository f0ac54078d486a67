"""What configurations can name, without torch: kinds of network, learners, generators, scores."""

from __future__ import annotations

from typing import Any

SHAPES = ("mlp", "conv", "vgg8b", "snn")
"""The kinds of network."""
MOST_STEPS = 10_000
"""Of time, in a spiking network."""
RESETS = ("hard", "soft")
"""What a spike leaves of a membrane: 0, or the membrane minus the threshold."""
COMPARED = ("voltage", "surrogate")
"""What is compared with the targets in a spiking network: the membranes, or eq. 16 of them."""
VERSIONS = ("2a", "2b")
"""Of figure 2: without a classification layer, and with one."""
GENERATORS = ("target-only", "target-input", "target-loop", "target-error")
"""The target generators (`targets`)."""
SCORES = ("scaled_dot", "l2", "cosine", "centred_cosine")
"""How close an activity is to a target (`scores`)."""
PRECISIONS = ("float32", "bfloat16", "float16")
"""Of forward passes and losses."""
LEARNERS: dict[str, Any] = {
    "fsp": "fsp_dynamics.layerwise.learners.fsp:ForwardSignalPropagation",
    "bp": "fsp_dynamics.layerwise.learners.backpropagation:Backpropagation",
    "fa": "fsp_dynamics.layerwise.learners.feedback_alignment:FeedbackAlignment",
    "dfa": "fsp_dynamics.layerwise.learners.direct_feedback_alignment:DirectFeedbackAlignment",
    "ll-bp": "fsp_dynamics.layerwise.learners.local_loss:LocalLoss",
    "ll-fa": "fsp_dynamics.layerwise.learners.local_loss_feedback:LocalLossFeedback",
    "sg": "fsp_dynamics.layerwise.learners.synthetic_gradients:SyntheticGradients",
    "dtp": "fsp_dynamics.layerwise.learners.target_propagation:TargetPropagation",
    "efp": "fsp_dynamics.layerwise.learners.error_forward:ErrorForwardPropagation",
    "shallow": "fsp_dynamics.layerwise.learners.shallow:Shallow",
}
"""{name: "package.module:class", or a class of your own} of the learners (`learners`)."""
ONLY_UNITS: tuple[str, ...] = ()
"""Learners of networks of units alone, without convolutions."""
