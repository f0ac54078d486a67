"""Figures of the package beside those of pyplot.

Where `matplotlib.pyplot` has been imported, a figure that a method `plot` returns is pyplot's
current figure, so that `plt.savefig`, `plt.gcf` and `plt.show` mean it. pyplot itself is never
imported for that. Of the package's own figures pyplot holds fewer than it would warn of
(`figure.max_open_warning`): the oldest leave it, and remain figures that can be saved and shown.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import matplotlib
from matplotlib._pylab_helpers import Gcf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MOST = 20  # figures in pyplot where it warns of none
INLINE = "inline"  # the end of the name of the backend of notebooks

_apart: ContextVar[bool] = ContextVar("_apart", default=False)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """A context whose figures pyplot does not get: those that a run writes on its own account."""
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)


def share(figure: Figure) -> None:
    """Make it pyplot's current figure, if pyplot has been imported. Where its backend has no
    display, and outside the main thread, which alone may open windows, nothing changes.
    """
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or _apart.get() or threading.current_thread() is not threading.main_thread():
        return
    _make_room(type(figure))
    try:
        adopt(figure)
        pyplot.draw_if_interactive()
    except Exception:
        # a backend that cannot open a window; the figure is complete without one
        leave(figure)
        FigureCanvasAgg(figure)


def adopt(figure: Figure) -> None:
    """Give the figure a manager of pyplot's backend and make it the current one."""
    import matplotlib.pyplot as plt

    if matplotlib.__version_info__ >= (3, 11):
        plt.figure(figure)
        return
    backend: Any = plt._get_backend_mod()
    number = max(plt.get_fignums(), default=0) + 1
    Gcf._set_new_active_manager(backend.new_figure_manager_given_figure(number, figure))


def is_shared(figure: Figure) -> bool:
    """Whether pyplot holds it."""
    return any(manager.canvas.figure is figure for manager in Gcf.get_all_fig_managers())


def is_inline() -> bool:
    """Whether pyplot shows its figures at the end of a notebook's cell, and then forgets them."""
    return "matplotlib.pyplot" in sys.modules and str(matplotlib.get_backend()).endswith(INLINE)


def leave(figure: Figure) -> None:
    """Take it from pyplot."""
    Gcf.destroy_fig(figure)


def _make_room(kind: type[Figure]) -> None:
    """Take the oldest figures of this class from pyplot until one more gives no warning."""
    most = int(matplotlib.rcParams["figure.max_open_warning"]) or MOST
    for number in sorted(Gcf.figs):
        if len(Gcf.figs) < most:
            return
        if isinstance(Gcf.figs[number].canvas.figure, kind):
            Gcf.destroy(number)
