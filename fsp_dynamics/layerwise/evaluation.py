"""What a discrete network does on a set of labelled images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsp_dynamics.display import html_table
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.models.network import Array
from fsp_dynamics.torch_backend.tensors import tensor
from fsp_dynamics.training.evaluation import class_errors, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BATCH = 500
"""Images at a time; no result depends on it, but for the last bits."""
STEPS = 4
"""Of time for which there is room for so many images; with more steps there are fewer at a time."""


@dataclass(frozen=True, slots=True)
class LayerwiseEvaluation:
    """error : percent of images whose highest score is not their label. exits : {layer: percent},
    the same of what each layer would predict by itself (early exits, eq. 8), the output last.
    confusion : how many images of each class (row) are taken for which (column). class_names : the
    name of each class, or empty where they have none but their numbers.
    """

    error: float
    exits: dict[str, float]
    confusion: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    class_names: tuple[str, ...] = ()

    @property
    def class_errors(self) -> tuple[float | None, ...]:
        """Percent of each class that is taken for another; None for a class without images."""
        return class_errors(self.confusion)

    def plot(self, ax: Axes | None = None, *, path: str | Path | None = None) -> Figure:
        """The confusion matrix, with the error of each class; `path`: it is also written there."""
        from fsp_dynamics.plotting.confusion import plot_confusion

        return plot_confusion(self.confusion, self.class_names, ax, path=path)

    def _repr_html_(self) -> str:
        worst = max(((each, k) for k, each in enumerate(self.class_errors) if each is not None), default=None)
        facts = {"error": f"{self.error:.2f} %", **{name: f"{each:.2f} %" for name, each in self.exits.items()}}
        if worst and worst[0]:
            facts["worst class"] = f"{named(worst[1], self.class_names)} ({worst[0]:.2f} %)"
        return html_table("Evaluation", facts)


def evaluate_exits(
    learner: Learner, images: Array, labels: Array, class_names: tuple[str, ...] = ()
) -> LayerwiseEvaluation:
    """The errors of all exits on images (B, pixels) with labels (B,)."""
    classes = learner.network.classes
    confusion, wrong = np.zeros((classes, classes), np.int64), dict.fromkeys(exits_of(learner), 0)
    for part in parts_of(learner, len(labels)):
        for name, scores in scores_of(learner, images[part]).items():
            found = scores.argmax(1)
            wrong[name] += int((found != labels[part]).sum())
        np.add.at(confusion, (labels[part], found), 1)  # of the last exit, which is the prediction
    percent = {name: 100 * count / len(labels) for name, count in wrong.items()}
    return LayerwiseEvaluation(
        percent[exits_of(learner)[-1]], percent, tuple(map(tuple, confusion.tolist())), class_names
    )


def parts_of(learner: Learner, images: int) -> list[slice]:
    """So many images, as many at a time as there is room for.

    >>> from fsp_dynamics.layerwise.learners import make_learner
    >>> from fsp_dynamics.layerwise.networks import Neuron, snn
    >>> long = make_learner("bp", snn([], [5], Neuron(steps=8)), (1, 2, 2), 3)
    >>> parts_of(long, 600)
    [slice(0, 250, None), slice(250, 500, None), slice(500, 750, None)]
    """
    neuron = learner.network.shape.neuron
    size = BATCH if neuron is None else max(1, BATCH * STEPS // max(neuron.steps, STEPS))
    return [slice(first, first + size) for first in range(0, images, size)]


def exits_of(learner: Learner) -> list[str]:
    """The names of the stages that predict."""
    return [stage.name for stage in learner.stages if stage.is_exit]


def scores_of(learner: Learner, images: Array) -> dict[str, Array]:
    """{exit: scores (B, classes)} as arrays, of images (B, pixels)."""
    like = next(learner.network.parameters())
    given = tensor(images, like.device, like.dtype)
    return {name: scores.float().cpu().numpy() for name, scores in learner.scores(given).items()}
