"""The figures of the effects of learning on the loop, drawn from rows of
experiments/figures/curves.py. Two columns wide, no text smaller than 7 points.

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

WIDTH = 7.0  # inches: two columns
SIZE = 8.0  # points
SMALL = {
    "figure.dpi": 200,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "xtick.labelsize": SIZE - 0.5,
    "ytick.labelsize": SIZE - 0.5,
}
THIN, THICK = 0.8, 1.6
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
    "non-reciprocity": "not reciprocal (β → 0)",
    "finite beta": "and finite β",
    "unfinished relaxation": "and unfinished relaxation: the update",
}
LOOP_ANGLE, SUBSPACE_ANGLE = "angle (degrees)", "angle inside (degrees)"


@styled(SMALL)
def draw_alignment(
    rows: Sequence[Row],
    matrices: Sequence[str],
    above: Sequence[str],
    below: Sequence[str],
    counts: Mapping[str, str],
) -> Figure:
    """Angles, one column per matrix: the variants `above` in the first row, `below`, if any, in the
    second. counts : how many samples of a variant have an angle, for the legend.
    """
    groups = [group for group in (above, below) if group]
    figure, axes = _grid(len(groups), len(matrices), 0.7 + 1.8 * len(groups))
    styles = _styles([*above, *below])
    for line, shown in zip(axes, groups, strict=True):
        for ax, matrix in zip(line, matrices, strict=True):
            _right_angle(ax)
            for variant in shown:
                colour, dash = styles[variant]
                _curve(ax, _chosen(rows, quantity="network", variant=variant, matrix=matrix), colour, dash, THIN)
                _curve(
                    ax, _chosen(rows, quantity="sample", variant=variant, matrix=matrix), colour, dash, THICK, band=0.2
                )
    _titles(axes, matrices, ("loop learned or fixed", "one matrix fixed")[: len(groups)], [LOOP_ANGLE] * len(groups))
    named = {variant: f"{variant} ({counts[variant]} samples)" if variant in counts else variant for variant in styles}
    entries = [(named[variant], *styles[variant], THICK) for variant in styles]
    _legend(figure, [*entries, ("thin: whole matrices", GREY, "-", THIN)])
    return figure


@styled(SMALL)
def draw_subspace(rows: Sequence[Row], matrices: Sequence[str], above: Sequence[str], below: Sequence[str]) -> Figure:
    """Angles inside the subspace of the product for the variants `above` and, if any, `below`; then
    the raw angle and its bound for those `above`.
    """
    lines = [("loop learned or fixed", above, "inside"), ("one matrix fixed", below, "inside")]
    lines = [each for each in (*lines, ("loop learned or fixed", above, "raw")) if each[1]]
    figure, axes = _grid(len(lines), len(matrices), 0.7 + 1.7 * len(lines), sharey="row")
    styles = _styles([*above, *below])
    for line, (_, shown, quantity) in zip(axes, lines, strict=True):
        for ax, matrix in zip(line, matrices, strict=True):
            _right_angle(ax)
            for variant in shown:
                colour, dash = styles[variant]
                _curve(
                    ax, _chosen(rows, quantity=quantity, variant=variant, matrix=matrix), colour, dash, THICK, band=0.2
                )
                if quantity == "raw":
                    _curve(
                        ax, _chosen(rows, quantity="bound", variant=variant, matrix=matrix), colour, ":", THIN, band=0.1
                    )
    _titles(
        axes,
        matrices,
        [label for label, _, _ in lines],
        [SUBSPACE_ANGLE if quantity == "inside" else "raw angle (degrees)" for _, _, quantity in lines],
    )
    entries = [(variant, *styles[variant], THICK) for variant in styles]
    _legend(figure, [*entries, ("bound of the raw angle", GREY, ":", THIN)])
    return figure


@styled(SMALL)
def draw_gradients(rows: Sequence[Row]) -> Figure:
    """Angle between update and gradient by matrix and source; below, norm of the update and
    contribution of each source, relative to the norm of the gradient.
    """
    names = list(dict.fromkeys(row["matrix"] for row in rows))
    figure, axes = _grid(2, len(names), 4.4, sharey="row")
    looks = [
        (COLOURS[1], "-", 2.6),
        (COLOURS[3], "-", 3.0),
        (COLOURS[0], "--", 1.2),
    ]  # later curves are drawn over earlier ones
    sources = list(dict.fromkeys(row["source"] for row in rows if row["source"]))
    for column, name in enumerate(names):
        _right_angle(axes[0][column])
        for source, (colour, dash, width) in zip(sources, looks, strict=False):
            _curve(
                axes[0][column],
                _chosen(rows, quantity="angle", source=source, matrix=name),
                colour,
                dash,
                width,
                band=0.2,
            )
            _curve(
                axes[1][column],
                _chosen(rows, quantity="share", source=source, matrix=name),
                colour,
                dash,
                width,
                band=0.2,
            )
        _curve(axes[1][column], _chosen(rows, quantity="norm", matrix=name), "#000000", "-", 1.2, band=0.15)
        axes[1][column].set_yscale("log")
        axes[0][column].set_title(_parameter(name))
        axes[1][column].set_xlabel("epoch")
    axes[0][0].set_ylim(bottom=0)  # after the curves, since it also fixes the upper limit
    axes[0][0].set_ylabel("angle to the gradient\n(degrees)")
    axes[1][0].set_ylabel("norm, in units\nof the gradient's")
    entries = [(SOURCES.get(source, source), *look) for source, look in zip(sources, looks, strict=False)]
    _legend(figure, [*entries, ("norm of the update", "#000000", "-", 1.2)], columns=2)
    return figure


@styled(SMALL)
def draw_spectra(rows: Sequence[Row]) -> Figure:
    """Eigenvalues in the complex plane, one plot per epoch; below, the gain of the loop and the
    settle time.
    """
    figure = _new(4.4)
    points = _chosen(rows, quantity="eigenvalue")
    epochs = list(dict.fromkeys(row["epoch"] for row in points))
    grid = figure.add_gridspec(2, 6)
    first: Axes | None = None
    for i, epoch in enumerate(epochs):
        ax = figure.add_subplot(grid[0, 2 * i : 2 * i + 2], sharex=first, sharey=first)
        first = first or ax
        _plane(ax, [row for row in points if row["epoch"] == epoch])
        ax.set_title("before learning" if epoch == 0 else f"after epoch {epoch:g}")
        ax.set_xlabel("real part (per unit time)")
        if i == 0:
            ax.set_ylabel("imaginary part")
        else:
            ax.tick_params(labelleft=False)
    gain, settle = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
    for ax, quantity, label in (
        (gain, "loop_norm", "gain of one turn $\\|G_D\\|$"),
        (settle, "settle_time", "time to settle to 1/1000\n(time constants)"),
    ):
        _curve(ax, _chosen(rows, quantity=quantity), COLOURS[0], "-", THICK, band=0.2)
        ax.set_ylabel(label)
        ax.set_xlabel("epoch")
        _whole_epochs(ax)
    _curve(gain, _chosen(rows, quantity="loop_norm_max"), COLOURS[1], "--", THICK, band=0.2)
    gain.axhline(1, color=GREY, linewidth=1, linestyle=":")
    for ax in (gain, settle):
        ax.set_ylim(bottom=0)  # last, since it also fixes the upper limit
    _legend(figure, [("mean over samples", COLOURS[0], "-", THICK), ("largest over samples", COLOURS[1], "--", THICK)])
    return figure


@styled(SMALL)
def draw_errors(rows: Sequence[Row]) -> Figure:
    """Errors in percent by epoch: test error as a thick line with a band, training error thin."""
    figure = _new(3.4)
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
    ax.axvline(0, color="#000000", linewidth=1)
    ax.axvline(-1, color=GREY, linewidth=1, linestyle=":")
    ax.plot(
        [p["real"] for p in points],
        [p["imaginary"] for p in points],
        "o",
        color=COLOURS[0],
        markersize=2,
        alpha=0.5,
        markeredgewidth=0,
    )


def _right_angle(ax: Axes) -> None:
    ax.axhline(90, color=GREY, linewidth=1, linestyle=":")


def _titles(axes: Any, matrices: Sequence[str], lines: Sequence[str], quantities: Sequence[str]) -> None:
    for ax, name in zip(axes[0], matrices, strict=True):
        ax.set_title(_angle_name(name, matrices), fontsize=SIZE + 1)
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    for ax, line, quantity in zip(axes[:, 0], lines, quantities, strict=True):
        ax.set_ylabel(f"{line}\n{quantity}")


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

    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))


def _legend(figure: Figure, entries: Sequence[tuple[str, str, Any, float]], columns: int = 3) -> None:
    """A legend below the axes from (text, colour, dash, width) of each line."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linestyle=dash, linewidth=width, label=text)
        for text, colour, dash, width in entries
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))
