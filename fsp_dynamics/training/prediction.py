"""What a network takes images for that have no labels: the free phase, and its strongest output."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets.formats import ImageFormat
from fsp_dynamics.display import html_table, largest
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.training.evaluation import free_phase_solver, named
from fsp_dynamics.training.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

MOST_CLASSES = 12  # that are counted one by one where a prediction is shown


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a network takes images for.

    classes : (B,), the output with the highest activity in the free equilibrium. scores : (B, n_L),
        the activity of every output there (the state s of the output layer, not a probability).
    converged : (B,), whether the sample converged; the class of one that did not is that of where
        it was left. residual : (B,), ||field|| per unit time.
    class_names : the name of each class, or empty where they have none but their numbers.
    images, image_shape : the images as the network saw them, (B, h w), and (h, w); in colour
        (B, 3 h w) and (3, h, w).

    >>> import fsp_dynamics as fsp
    >>> run = fsp.train("digits", epochs=1, data={"limit": 40}, progress=False)
    >>> found = run.predict(run.data().test.images[:3])
    >>> len(found), found.classes.shape, found.scores.shape, found.converged.tolist()
    (3, (3,), (3, 10), [True, True, True])
    >>> len(found.names), found.margin.shape, list(found.table())[:4]
    (3, (3,), ['class', 'score', 'margin', 'converged'])
    >>> found.to_frame().shape, len(found.plot().axes)
    ((3, 15), 1)
    """

    classes: npt.NDArray[np.int64]
    scores: Array
    converged: npt.NDArray[np.bool_]
    residual: Array
    class_names: tuple[str, ...] = ()
    images: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    image_shape: tuple[int, ...] = (0, 0)

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        facts = "; ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"<Prediction of {len(self)} images: {facts}>"

    def _repr_html_(self) -> str:
        return html_table(f"Prediction of {len(self)} images", self._facts())

    def _facts(self) -> dict[str, str]:
        found, counts = np.unique(self.classes, return_counts=True)
        most = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
        listed = ", ".join(f"{named(int(found[k]), self.class_names)} ({counts[k]})" for k in sorted(most))
        rest = len(found) - len(most)
        return {
            "classes": listed + (f" and {rest} more" if rest else ""),
            "unconverged": str(int((~self.converged).sum())),
            "residual up to": largest(self.residual),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the class of each image, or its number as text."""
        return tuple(named(int(k), self.class_names) for k in self.classes)

    @property
    def margin(self) -> Array:
        """(B,), by how much the strongest output exceeds the second; 0 where there is but one."""
        if self.scores.shape[1] < 2:
            return np.zeros(len(self))
        second, first = np.partition(self.scores, -2, axis=1)[:, -2:].T
        margin: Array = first - second
        return margin

    def to_frame(self) -> DataFrame:
        """A pandas.DataFrame with a row for each image: class, name (where classes have names),
        score, margin, converged, residual, and a column score.NAME for each output. `.to_csv(path)`
        saves it.

        Returns
        -------
        pandas.DataFrame : B rows.
        """
        import pandas

        return pandas.DataFrame(self.table())

    def table(self) -> dict[str, Any]:
        """{column: values} of `to_frame`.

        Returns
        -------
        dict : {column: B values}.
        """
        rows = np.arange(len(self))
        return {
            "class": self.classes,
            **({"name": list(self.names)} if self.class_names else {}),
            "score": self.scores[rows, self.classes],
            "margin": self.margin,
            "converged": self.converged,
            "residual": self.residual,
            **{f"score.{named(k, self.class_names)}": self.scores[:, k] for k in range(self.scores.shape[1])},
        }

    def plot(self, ax: Axes | None = None, *, path: str | Path | None = None) -> Figure:
        """The first images with what they are taken for (`plotting.predictions.plot_prediction`);
        `path`: the picture is also written there.

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        from fsp_dynamics.plotting.predictions import plot_prediction

        return plot_prediction(self, ax, path=path)


def predict(network: Network, images: Array, recipe: Recipe, known: ImageFormat, batch: int = 500) -> Prediction:
    """The free phase over one image or more, (B, n_in) as `known.inputs` gives them, `batch` at a
    time, with the solver and the tolerance of the recipe: to the bit what `evaluation.evaluate`
    does without a warm start.
    """
    driven, relax = free_phase_solver(network, recipe, None)
    found = [relax(driven(images[first : first + batch])) for first in range(0, len(images), batch)]
    scores = np.concatenate([each.output for each in found])
    return Prediction(
        classes=scores.argmax(1),
        scores=scores,
        converged=np.concatenate([each.converged for each in found]),
        residual=np.concatenate([each.residual for each in found]),
        class_names=known.class_names,
        images=images,
        image_shape=known.shape,
    )
