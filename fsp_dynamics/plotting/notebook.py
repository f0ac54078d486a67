"""The Figure that every picture of the package is. Imported when the first one is made, since it
imports matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib.figure
from matplotlib.backend_bases import RendererBase

from fsp_dynamics.plotting import styled


class Figure(matplotlib.figure.Figure):
    """A Figure in the package's style, `changed` as in `styled`, that a notebook shows as the
    value of its cell.

    Matplotlib's own shows its size there and nothing else, unless pyplot has been loaded with the
    notebook's backend. Where it has been, that backend draws it, and its picture takes the place
    of this one.
    """

    def __init__(self, changed: Mapping[str, Any] | None, **given: Any) -> None:
        super().__init__(**given)
        self._changed = changed

    def draw(self, renderer: RendererBase) -> None:
        with styled(self._changed):  # not all is decided before: the number of ticks is not
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with styled(self._changed):  # settings for saving would make it another picture
            self.canvas.print_figure(buffer, format="png")
        return buffer.getvalue()
