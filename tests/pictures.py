"""What is in a picture: its lines, its words, and whether these can be read."""

from __future__ import annotations

import itertools


def drawn(ax):
    """{label: (x, y)} of the lines that have one."""
    return {line.get_label(): line.get_data() for line in ax.lines if not line.get_label().startswith("_")}


def texts(figure):
    """(text, box in pixels) of all text: titles, labels, ticks in view, notes, legends."""
    figure.canvas.draw()
    written = []
    for ax in figure.axes:
        written += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = axis.get_view_interval()
            written += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        if ax.get_legend():
            written += [ax.get_legend().get_title(), *ax.get_legend().get_texts()]
    for legend in figure.legends:
        written += [legend.get_title(), *legend.get_texts()]
    return [
        (text.get_text(), text.get_window_extent())
        for text in written
        if text.get_visible() and text.get_text().strip()
    ]


def assert_legible(figure):
    written = texts(figure)
    width, height = figure.canvas.get_width_height()
    assert len(written) > 8
    for (one, a), (other, b) in itertools.combinations(written, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
        assert not overlap, f"{one!r} lies on {other!r}"
    for text, box in written:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"{text!r} is cut off"  # noqa: PT018
