"""The class of all figures of the package: how a notebook and `show` display them. Imported with
the first figure, since it imports matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import matplotlib.figure
from matplotlib.backend_bases import RendererBase

from fsp_dynamics.plotting import showing
from fsp_dynamics.plotting.style import styled


class StyledFigure(matplotlib.figure.Figure):
    """A Figure in the package's style, `changed` as in `styled`, that a notebook displays as the
    value of a cell.

    A plain matplotlib Figure is displayed only if pyplot has been loaded with the notebook's
    backend; in that case the backend draws this one, too, and once: as the value of the cell, or
    else at its end.
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

    def show(self, warn: bool = True) -> None:
        """Show it in a window of pyplot, which is imported for that, or in the notebook. Warns, as
        any Figure does, where the backend has no windows.
        """
        if showing.is_inline():
            from IPython.display import display

            display(self)
            return
        if not showing.is_shared(self):
            showing.adopt(self)
        super().show(warn)

    def _ipython_display_(self) -> None:
        """Shown by pyplot in a window of its own, or else as what `_repr_png_` returns, and then
        not once more at the end of the cell.
        """
        if showing.is_shared(self):
            if showing.is_inline():
                showing.leave(self)
            elif self.canvas.required_interactive_framework and matplotlib.is_interactive():
                return
        raise NotImplementedError  # IPython's word for: by the other methods
