"""The one style of all figures: colours, and matplotlib's settings while a figure is made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

STYLE = "fsp_dynamics.plotting.fsp"  # matplotlib's name for a style file in a package
# Paul Tol's "muted" set and black, distinguishable with any colour vision, in the order of the
# style.
COLOURS = ("#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#DDCC77", "#44AA99", "#999933", "#AA4499", "#000000")
FORMATS = (".png", ".svg", ".pdf")
GREY = "#666666"
SHADE = "#F0EDE4"


@contextlib.contextmanager
def styled(changed: Mapping[str, Any] | None = None) -> Iterator[None]:
    """A context (or decorator) with matplotlib's defaults, the style of the package and the
    settings in `changed`.

    Matplotlib reads its settings when a part of a figure is created, so create whole figures in it.
    """
    import matplotlib.style

    with matplotlib.style.context([STYLE, dict(changed or {})], after_reset=True):
        yield
