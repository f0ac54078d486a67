"""Error forward propagation (Kohan, Rietman and Siegelmann 2018), figure 1e: the error of the
output enters the first hidden layer through a loop, and goes forward through the same weights as
images.

    first pass    h_k = f(a_k),  a_k = N(W_k h_k-1),  e = onehot - softmax
    second pass   h'_1 = f(a_1 + beta L e),  h'_k = f(N(W_k h'_k-1)),  the same weights and masks
    block k follows the gradient -(h'_k - h_k) / (beta B) at h_k

What the error changes of an activity is the error there, as between the two phases of eq. 14. Their
networks are recurrent and settle; here, in one pass, what they name stays: forward weights deliver
the error, and one loop from the output to the first layer is all that is added. L is fixed and
random, drawn as a layer from the classes is; beta = .1. The second pass is normalised (N) by the
statistics of the first, and dropped where that was. The classification layer follows the exact
gradient of its cross-entropy, and learns after the error has gone forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from fsp_dynamics.layerwise.blocks import SLOPE, Block
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.learners.direct_feedback_alignment import ErrorFeedback, error_of
from fsp_dynamics.layerwise.properties import Properties
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import LateStage, OutputStage, Stage, autocast

NUDGE = 0.1  # beta


class ErrorForwardPropagation(Learner):
    """See the module. Blocks learn at `rate`, the classification layer at `output_rate`."""

    name = "efp"
    only_units = True
    properties = Properties("EFP", "e", "global", "global", forprop_error=True, global_signal=True)

    def make_stages(self) -> list[Stage]:
        network = self.network
        self.loop = self.add("layer1", ErrorFeedback(network.classes, network.sizes[0], self.seed, 1))
        self.late = [LateStage(f"layer{k}", block, self.settings.rate) for k, block in enumerate(network.blocks, 1)]
        return [*self.late, OutputStage(network, self.settings.output_rate)]

    def learn(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Both passes; then all learn."""
        signal, precision = self.begin(images), autocast(self.settings.precision, self.device)
        entering, made = signal.h, list[Signal]()
        for stage in self.late:
            with precision:
                signal = stage.forward(signal.detach())
            made.append(signal)
        output = self.stages[-1]
        with precision:
            signal = output.forward(signal.detach())
            loss = output.loss(signal, labels)
        errors = self.errors(
            [entering, *(each.h.detach().to(images.dtype) for each in made)], error_of(signal.h, labels)
        )
        for stage, each, error in zip(self.late, made, errors, strict=True):
            stage.late(each.h, error)
        assert loss is not None
        output.learn(loss)
        return self.predicted(signal)

    @torch.no_grad()
    def errors(self, activities: Sequence[torch.Tensor], error: torch.Tensor) -> list[torch.Tensor]:
        """The second pass: the gradient that each block follows, given what entered each block and
        what the last one made, and the gradient (B, classes) at the logits.
        """
        found, nudged = [], activities[0]
        added: torch.Tensor | float = -NUDGE * len(error) * self.loop(error)
        for stage, before, h in zip(self.late, activities, activities[1:], strict=False):
            moved = nudge(stage.block, before, nudged, added) * kept(stage.block, h)
            found.append(-moved / (NUDGE * len(error)))
            nudged, added = h + moved, 0.0
        return found


def nudge(block: Block, h: torch.Tensor, nudged: torch.Tensor, added: torch.Tensor | float) -> torch.Tensor:
    """How much the activity of a block changes, before dropout, where `nudged` enters it in place
    of h, and `added` is added to what enters the activation.
    """
    z, moved = block.weights(h), block.weights(nudged)
    if block.norm is not None:
        variance, mean = torch.var_mean(z, 0, correction=0)
        scale = block.norm.weight / (variance + block.norm.eps).sqrt()
        z, moved = ((each - mean) * scale + block.norm.bias for each in (z, moved))
    return functional.leaky_relu(moved + added, SLOPE) - functional.leaky_relu(z, SLOPE)


def kept(block: Block, h: torch.Tensor) -> torch.Tensor:
    """What dropout multiplied each number of its activity h by."""
    return (h != 0) / (1 - block.dropout.p)
