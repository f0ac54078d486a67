"""What a discrete network takes images for that have no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fsp_dynamics.layerwise.evaluation import parts_of, scores_of
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.models.network import Array
from fsp_dynamics.training.evaluation import named


@dataclass(frozen=True, slots=True, eq=False)
class LayerwisePrediction:
    """classes : (B,), that with the highest score. scores : (B, classes), of the last exit: logits,
    or closeness to the targets. exits : {layer: (B,)}, the class that each layer would predict by
    itself. class_names : the name of each class, or empty where they have none but their numbers.
    """

    classes: npt.NDArray[np.int64]
    scores: Array
    exits: dict[str, npt.NDArray[np.int64]]
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        return f"<Prediction of {len(self)} images by {', '.join(self.exits)}>"

    def table(self) -> dict[str, Any]:
        """{column: values}, a value for each image: what `fsp predict` writes.

        Returns
        -------
        dict : class, (name,) score, the class of each exit, the score of each class.
        """
        best = self.scores[np.arange(len(self)), self.classes]
        columns: dict[str, Any] = {"class": self.classes}
        if self.class_names:
            columns["name"] = [named(int(k), self.class_names) for k in self.classes]
        columns["score"] = best
        columns |= {f"class.{name}": found for name, found in list(self.exits.items())[:-1]}
        return columns | {f"score.{named(k, self.class_names)}": self.scores[:, k] for k in range(self.scores.shape[1])}


def predict_images(learner: Learner, images: Array, class_names: tuple[str, ...] = ()) -> LayerwisePrediction:
    """What the learner's network takes images (B, pixels) for."""
    parts = [scores_of(learner, images[part]) for part in parts_of(learner, len(images))]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    scores = list(found.values())[-1]
    exits = {name: each.argmax(1) for name, each in found.items()}
    return LayerwisePrediction(scores.argmax(1), scores, exits, class_names)
