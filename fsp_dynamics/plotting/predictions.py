"""Images with what a network takes them for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.plotting import COLOURS, GREY, axes_for, figure_of, save_figure

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fsp_dynamics.training.prediction import Prediction

MOST = 24
ACROSS = 6
_ABOVE = 0.5  # of the height of an image: its two lines of text
_STEP = 1.15  # from one image to the next, in widths


def plot_prediction(prediction: Prediction, ax: Axes | None = None, *, path: str | Path | None = None) -> Figure:
    """The first images, at most 24, each below its class and the score of that class; those that
    did not converge say so.

    ax : None for a new figure, or one Axes. path : also save the figure there. Raises
    ConfigurationError for a prediction that holds no images. Returns the figure.
    """
    count = min(len(prediction.images), MOST)
    if not count:
        raise ConfigurationError("the prediction holds no images to draw; expected those that were predicted")
    height, width = prediction.image_shape[-2:]
    across = min(ACROSS, count)
    down = -(-count // across)
    side = 1.3 * across
    with axes_for(ax, (side, side * down * (1 + _ABOVE) * height / (across * _STEP * width) + 0.5), most=1) as axes:
        _draw(axes[0], prediction, count, across)
    figure = figure_of(axes)
    if path is not None:
        save_figure(figure, path)
    return figure


def _draw(ax: Axes, prediction: Prediction, count: int, across: int) -> None:
    height, width = prediction.image_shape[-2:]
    scores = prediction.scores[np.arange(len(prediction)), prediction.classes]
    step, row_height = _STEP * width, height * (1 + _ABOVE)
    for k in range(count):
        left, top = (k % across) * step, (k // across) * row_height + _ABOVE * height
        ax.imshow(
            _picture(prediction.images[k], prediction.image_shape),
            cmap="gray_r",
            vmin=0,
            vmax=1,
            extent=(left, left + width, top + height, top),
        )
        settled = bool(prediction.converged[k])
        ax.annotate(
            f"{prediction.names[k]}\n{scores[k]:.2f}" + ("" if settled else ", unconverged"),
            (left + width / 2, top),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color="black" if settled else COLOURS[1],
        )
    ax.set_xlim(-0.1 * width, across * step)
    ax.set_ylim(-(-count // across) * row_height + 0.05 * height, -0.05 * height)
    ax.set_axis_off()
    ax.set_title(f"what {count} of {len(prediction)} images are taken for, and the score", color=GREY)


def _picture(pixels: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """(h, w), or (h, w, 3) of an image in colour, whose planes lie one after another."""
    image = pixels.reshape(shape)
    return image if image.ndim == 2 else np.clip(np.moveaxis(image, 0, 2), 0, 1)
