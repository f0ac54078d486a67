"""The figures of the effects of learning on the loop, drawn from rows of
experiments/figures/curves.py. One column of a journal wide (8.5 cm), no text smaller than 7 points.

Rows are drawn without further computation; rows that differ only in epoch form one curve.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fsp_dynamics.plotting import COLOURS, GREY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

WIDTH = 8.5 / 2.54  # inches: one column
WIDE = 17.8 / 2.54  # two columns with the gap between them
SIZE = 7.0  # points
SMALL = {
    "figure.dpi": 400,
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE,
    "legend.fontsize": SIZE,
    "legend.title_fontsize": SIZE,
    "legend.handlelength": 2.6,
    "legend.labelspacing": 0.3,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.2,
    "ytick.minor.size": 1.2,
    "figure.constrained_layout.w_pad": 0.02,
    "figure.constrained_layout.h_pad": 0.02,
}
THIN, THICK = 0.7, 1.4
_LETTER, _HANDLE = 0.0515, 0.45  # inches that a letter of a legend takes, and a line with its gaps
STYLES: tuple[tuple[str, Any], ...] = (  # dark ones first: thin light lines are hard to see
    *((COLOURS[0], "-"), (COLOURS[1], "--"), (COLOURS[2], "-."), (COLOURS[9], ":")),
    *(
        (COLOURS[6], (0, (5, 1, 1, 1, 1, 1))),
        (COLOURS[4], (0, (8, 2))),
        (COLOURS[7], (0, (2, 1))),
        (COLOURS[8], (0, (1, 3))),
    ),
)
SOURCES = {
    "non-reciprocity": "limit β → 0: the loop is not reciprocal",
    "finite beta": "+ finite β",
    "unfinished relaxation": "+ unfinished relaxation: the update in training",
}
UPDATE = "norm of that update"
ADDED = "eq. 14 beside the gradient; errors added in turn:"


@styled(SMALL)
def draw_alignment(
    rows: Sequence[Row],
    matrices: Sequence[str],
    above: Sequence[str],
    below: Sequence[str],
    counts: Mapping[str, str],
) -> Figure:
    """Angles, one line of axes for each matrix, on a scale of its own: the variants `above` at the
    left, `below`, if any, at the right. counts : how many samples of a variant have an angle, for
    the legend.
    """
    groups = [group for group in (above, below) if group]
    figure, axes = _grid(len(matrices), len(groups), 0.9 + 1.05 * len(matrices), sharey="row")
    styles = _styles([*above, *below])
    for line, matrix in zip(axes, matrices, strict=True):
        for ax, shown in zip(line, groups, strict=True):
            _right_angle(ax)
            for variant in shown:
                colour, dash = styles[variant]
                of = {"variant": variant, "matrix": matrix}
                _curve(ax, _chosen(rows, quantity="network", **of), colour, dash, THIN)
                _curve(ax, _chosen(rows, quantity="sample", **of), colour, dash, THICK, band=0.2)
    _label(axes, matrices, ("angle (°), loop\nlearned or fixed", "angle (°), one\nmatrix fixed")[: len(groups)])
    named = {variant: f"{variant} ({counts[variant]} samples)" if variant in counts else variant for variant in styles}
    entries = [(named[variant], *styles[variant], THICK) for variant in styles]
    _legend(figure, [*entries, ("thick: single samples", GREY, "-", THICK), ("thin: whole matrices", GREY, "-", THIN)])
    return figure


@styled(SMALL)
def draw_subspace(rows: Sequence[Row], matrices: Sequence[str], above: Sequence[str], below: Sequence[str]) -> Figure:
    """One line of axes for each matrix: angles inside the subspace of the product for the variants
    `above` and, if any, `below`; then the raw angle and its bound for those `above`.
    """
    learned = "loop\nlearned or fixed"
    inside = [(f"inside (°), {learned}", above, "inside"), ("inside (°), one\nmatrix fixed", below, "inside")]
    columns = [each for each in (*inside, (f"raw (°), {learned}", above, "raw")) if each[1]]
    figure, axes = _grid(len(matrices), len(columns), 0.9 + 0.95 * len(matrices), sharey=False)
    for ax in axes[:, :-1].ravel()[1:]:
        ax.sharey(axes[0][0])
    styles = _styles([*above, *below])
    for line, matrix in zip(axes, matrices, strict=True):
        for ax, (_, shown, quantity) in zip(line, columns, strict=True):
            _right_angle(ax)
            for variant in shown:
                colour, dash = styles[variant]
                of = {"variant": variant, "matrix": matrix}
                _curve(ax, _chosen(rows, quantity=quantity, **of), colour, dash, THICK, band=0.2)
                if quantity == "raw":
                    _curve(ax, _chosen(rows, quantity="bound", **of), colour, ":", THIN, band=0.1)
    _label(axes, matrices, [label for label, _, _ in columns])
    entries = [(variant, *styles[variant], THICK) for variant in styles]
    _legend(figure, [*entries, ("bound of the raw angle", GREY, ":", THIN)])
    return figure


@styled(SMALL)
def draw_gradients(rows: Sequence[Row]) -> Figure:
    """One line of axes for each matrix: the angle between update and gradient by source; at the
    right the norm of the update and of what each source adds, relative to the norm of the gradient.
    """
    names = list(dict.fromkeys(row["matrix"] for row in rows))
    figure, axes = _grid(len(names), 2, 1.15 + 0.85 * len(names), sharey="col")
    looks = [(COLOURS[1], "-", 1.8), (COLOURS[3], "-", 2.2), (COLOURS[0], "--", 0.9)]  # later ones lie over earlier
    sources = list(dict.fromkeys(row["source"] for row in rows if row["source"]))
    for (angle, norm), name in zip(axes, names, strict=True):
        _right_angle(angle)
        for source, (colour, dash, width) in zip(sources, looks, strict=False):
            for ax, quantity in ((angle, "angle"), (norm, "share")):
                shown = _chosen(rows, quantity=quantity, source=source, matrix=name)
                _curve(ax, shown, colour, dash, width, band=0.2)
        _curve(norm, _chosen(rows, quantity="norm", matrix=name), "#000000", "-", 0.9, band=0.15)
        norm.set_yscale("log")
        angle.set_ylabel(_parameter(name))
    axes[0][0].set_ylim(bottom=0)  # after the curves, since it also fixes the upper limit
    axes[0][0].set_yticks([0, 45, 90])
    axes[0][0].set_title("angle to the gradient (°)")
    axes[0][1].set_title("norm / gradient's norm")
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    entries = [(SOURCES.get(source, source), *look) for source, look in zip(sources, looks, strict=False)]
    _legend(figure, [*entries, (UPDATE, "#000000", "-", 0.9)], title=ADDED)
    return figure


@styled(SMALL)
def draw_spectra(rows: Sequence[Row]) -> Figure:
    """Eigenvalues in the complex plane, one plot per epoch; below, the gain of the loop and the
    settle time.
    """
    figure = _new(3.3)
    points = _chosen(rows, quantity="eigenvalue")
    epochs = list(dict.fromkeys(row["epoch"] for row in points))
    grid = figure.add_gridspec(2, 6)
    first: Axes | None = None
    for i, epoch in enumerate(epochs):
        ax = figure.add_subplot(grid[0, 2 * i : 2 * i + 2], sharex=first, sharey=first)
        first = first or ax
        _plane(ax, [row for row in points if row["epoch"] == epoch])
        ax.set_title("before" if epoch == 0 else f"epoch {epoch:g}")
        if i == len(epochs) // 2:
            ax.set_xlabel("real part (per unit time)")
        if i == 0:
            ax.set_ylabel("imaginary part")
        else:
            ax.tick_params(labelleft=False)
    gain, settle = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
    for ax, quantity, label in (
        (gain, "loop_norm", "gain of one turn\n$\\|G_D\\|$"),
        (settle, "settle_time", "time to settle to 1/1000\n(time constants)"),
    ):
        _curve(ax, _chosen(rows, quantity=quantity), COLOURS[0], "-", THICK, band=0.2)
        ax.set_title(label)
        ax.set_xlabel("epoch")
        _whole_epochs(ax)
    _curve(gain, _chosen(rows, quantity="loop_norm_max"), COLOURS[1], "--", THICK, band=0.2)
    gain.axhline(1, color=GREY, linewidth=THIN, linestyle=":")
    for ax in (gain, settle):
        ax.set_ylim(bottom=0)  # last, since it also fixes the upper limit
    _legend(figure, [("mean over samples", COLOURS[0], "-", THICK), ("largest over samples", COLOURS[1], "--", THICK)])
    return figure


@styled(SMALL)
def draw_errors(rows: Sequence[Row]) -> Figure:
    """Errors in percent by epoch: test error as a thick line with a band, training error thin."""
    figure = _new(2.8)
    ax = figure.subplots()
    styles = _styles(dict.fromkeys(row["variant"] for row in rows))
    for variant, (colour, dash) in styles.items():
        _curve(ax, _chosen(rows, quantity="train_error", variant=variant), colour, dash, THIN)
        _curve(ax, _chosen(rows, quantity="test_error", variant=variant), colour, dash, THICK, band=0.2)
    _whole_epochs(ax)
    ax.set_xlabel("epoch")
    ax.set_ylabel("error (%)")
    entries = [(variant, *style, THICK) for variant, style in styles.items()]
    _legend(figure, [*entries, ("thin: training error", GREY, "-", THIN)])
    return figure


def _new(height: float) -> Figure:
    return new_figure(WIDTH, height, SMALL)


def _grid(lines: int, columns: int, height: float, sharey: Any = True) -> tuple[Figure, Any]:
    figure = _new(height)
    axes = figure.subplots(lines, columns, sharex=True, sharey=sharey, squeeze=False)
    for ax in axes.ravel():
        _whole_epochs(ax)
    return figure, axes


def _styles(names: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """{name: (colour, dash)}."""
    return {name: STYLES[i % len(STYLES)] for i, name in enumerate(dict.fromkeys(names))}


def _chosen(rows: Sequence[Row], **values: Any) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in values.items())]


def _curve(ax: Axes, rows: Sequence[Row], colour: str, dash: Any, width: float, band: float = 0.0) -> None:
    """`value` over `epoch`, with a band of opacity `band` between `low` and `high`."""
    if not rows:
        return
    epochs = [row["epoch"] for row in rows]
    ax.plot(epochs, [row["value"] for row in rows], linestyle=dash, color=colour, linewidth=width)
    if band:
        ax.fill_between(
            epochs, [row["low"] for row in rows], [row["high"] for row in rows], color=colour, alpha=band, linewidth=0
        )


def _plane(ax: Axes, points: Sequence[Row]) -> None:
    ax.axvline(0, color="#000000", linewidth=THIN)
    ax.axvline(-1, color=GREY, linewidth=THIN, linestyle=":")
    ax.plot(
        [p["real"] for p in points],
        [p["imaginary"] for p in points],
        "o",
        color=COLOURS[0],
        markersize=1.6,
        alpha=0.5,
        markeredgewidth=0,
    )


def _right_angle(ax: Axes) -> None:
    ax.axhline(90, color=GREY, linewidth=THIN, linestyle=":")


def _label(axes: Any, matrices: Sequence[str], columns: Sequence[str]) -> None:
    """What each line, of a matrix, and each column of axes shows."""
    for ax, text in zip(axes[0], columns, strict=True):
        ax.set_title(text)
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    for ax, name in zip(axes[:, 0], matrices, strict=True):
        ax.set_ylabel(_angle_name(name, matrices))


def _angle_name(name: str, matrices: Sequence[str]) -> str:
    """The angle of a matrix in the paper's notation: the others in loop order, starting at its
    postsynaptic layer, and the matrix.

    >>> _angle_name("W2", ["W1", "W2", "loop"])
    '$W_{3}W_{1}\\\\angle W_{2}$'
    """
    at, count = list(matrices).index(name), len(matrices)
    others = "".join(f"W_{{{(at + k) % count + 1}}}" for k in range(1, count))
    return f"${others}\\angle W_{{{at + 1}}}$" + (" (loop)" if name == "loop" else "")


def _parameter(name: str) -> str:
    """A matrix by its name in the paper.

    >>> _parameter("forward[0]"), _parameter("input"), _parameter("loop")
    ('$W_{1}$', 'input matrix', 'loop')
    """
    if name.startswith("forward["):
        return f"$W_{{{int(name[8:-1]) + 1}}}$"
    return "input matrix" if name == "input" else name


def _whole_epochs(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))


def _legend(figure: Figure, entries: Sequence[tuple[str, str, Any, float]], title: str | None = None) -> None:
    """A legend below the axes from (text, colour, dash, width) of each line, in as many columns as
    the longest text allows.
    """
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linestyle=dash, linewidth=width, label=text)
        for text, colour, dash, width in entries
    ]
    longest = max(len(text) for text, *_ in entries) * _LETTER + _HANDLE
    columns = max(1, min(len(handles), 3, int(WIDTH / longest)))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, title=title, alignment="left", columnspacing=1.0
    )
