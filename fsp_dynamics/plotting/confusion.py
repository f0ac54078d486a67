"""The confusion matrix of a classifier, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_shape
from fsp_dynamics.plotting import axes_for, figure_of, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERS = 30  # classes beyond which the numbers in the cells could not be read
_CELL = 0.46  # inches


def plot_confusion(
    confusion: Sequence[Sequence[int]],
    class_names: Sequence[str] = (),
    ax: Axes | None = None,
    *,
    path: str | Path | None = None,
) -> Figure:
    """How many images of each class (row) are taken for which (column), with the error of each
    class at the right. Classes of which there are no images, and that are taken for none, are left
    out.

    Colours show shares of a row; the diagonal, which would hide all others, is left white. ax :
    None for a new figure, or one Axes. path : also save the figure there. Raises
    ConfigurationError for an empty matrix, ShapeError for one that is not square. Returns the
    figure.
    """
    counts = np.asarray(confusion, np.int64)
    if counts.size == 0 or not counts.any():
        raise ConfigurationError("confusion is empty, expected counts of at least one image")
    check_shape("confusion", counts, (len(counts), len(counts)))
    shown = np.flatnonzero(counts.sum(0) + counts.sum(1))
    counts = counts[np.ix_(shown, shown)]
    names = [class_names[k] if k < len(class_names) else str(k) for k in shown.tolist()]
    side = min(1.6 + _CELL * len(names), 12.0)
    with axes_for(ax, (side + 1.3, side + 0.6), most=1) as axes:
        _draw(axes[0], counts, names)
    figure = figure_of(axes)
    if path is not None:
        save_figure(figure, path)
    return figure


def _draw(ax: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    totals = counts.sum(1)
    wrong = np.where(np.eye(len(names), dtype=bool), 0, counts)
    share = wrong / np.maximum(totals, 1)[:, None]
    ax.imshow(share, cmap="OrRd", vmin=0, vmax=max(1.6 * float(share.max()), 1e-9), aspect="equal")
    if len(names) <= MOST_NUMBERS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            weight = "bold" if row == column else "normal"
            ax.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, fontweight=weight)
    places = range(len(names))
    many = len(names) > MOST_NUMBERS
    lying = many or max(map(len, names)) > 3
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if lying else {}
    ax.set_xticks(places, names, **turned)
    ax.set_yticks(places, names)
    ax.tick_params(length=0, labelsize=7 if many else 10)
    ax.grid(visible=False)
    ax.set_xlabel("taken for")
    ax.set_ylabel("class")
    errors = ax.secondary_yaxis("right")
    errors.set_yticks(
        places,
        [f"{100 * lost / total:.1f} %" if total else "none" for lost, total in zip(wrong.sum(1), totals, strict=True)],
    )
    errors.tick_params(length=0, labelsize=7 if many else 10)
    errors.set_ylabel("error of the class")
    ax.set_title(f"error {100 * wrong.sum() / totals.sum():.2f} %: {wrong.sum():,} of {totals.sum():,} images")
