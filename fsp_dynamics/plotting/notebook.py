"""The class of all figures of the package. Imported with the first figure, since it imports
matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib.figure
from matplotlib.backend_bases import RendererBase

from fsp_dynamics.plotting.style import styled


class StyledFigure(matplotlib.figure.Figure):
    """A Figure in the package's style, `changed` as in `styled`, that a notebook displays as the
    value of a cell.

    A plain matplotlib Figure is displayed only if pyplot has been loaded with the notebook's
    backend; in that case the backend draws this one, too.
    """

    def __init__(self, changed: Mapping[str, Any] | None, **given: Any) -> None:
        super().__init__(**given)
        self._changed = changed

    def draw(self, renderer: RendererBase) -> None:
        with styled(self._changed):  # some decisions, such as the number of ticks, are made while drawing
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with styled(self._changed):  # the default settings for saving would change the figure
            self.canvas.print_figure(buffer, format="png")
        return buffer.getvalue()
