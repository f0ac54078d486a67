"""Feedback alignment (Lillicrap et al. 2016), figure 1b: backpropagation whose error goes back
through fixed random weights, of the same shape as the weights and drawn like them.

Weights alone have a substitute: the gradients of biases, batch norm, activation and pools are
exact. In a convolution the feedback is a kernel.
"""

from __future__ import annotations

from fsp_dynamics.layerwise.feedback import Feedback, aligned
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.learners.backpropagation import WholeStage
from fsp_dynamics.layerwise.properties import Properties
from fsp_dynamics.layerwise.stages import Stage

_PLACE = 2000  # of the feedback's streams, beyond any block


class FeedbackAlignment(Learner):
    """See the module; all parameters learn at `rate`."""

    name = "fa"
    properties = Properties("FA", "b", "global", "global", global_signal=True)

    def make_stages(self) -> list[Stage]:
        network = self.network
        assert network.head is not None
        # no error goes on to the images, so the first block needs no feedback
        for k, block in enumerate(network.blocks[1:], 2):
            feedback = self.add(f"layer{k}", Feedback(block.weights, self.seed, _PLACE, k))
            block.weights = aligned(block.weights, feedback)
        network.head = aligned(network.head, self.add("output", Feedback(network.head, self.seed, _PLACE)))
        return [WholeStage(network, self.settings.rate)]
