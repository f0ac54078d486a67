"""The curves of several runs over each other: errors and the angle of the loop, by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.plotting import COLOURS, GREY, new_figure, styled
from fsp_dynamics.plotting.figures import SIZE, SMALL, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (
    ("test_error", "test error (%)"),
    ("valid_error", "validation error (%)"),
    ("train_error", "training error (%)"),
    ("angle_loop", "angle of the loop (degrees)"),
)
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":")
LOOKS = tuple((colour, dash) for dash in DASHES for colour in COLOURS if colour != "#DDCC77")  # too light for a line
LINE, LETTERS = 0.17, 78  # inches of a line of the legend, letters in one


@styled(SMALL)
def draw_comparison(curves: Sequence[Mapping[str, Any]]) -> Figure:
    """One panel for each quantity that any run has, in two columns. Runs of one name have one
    colour and dash, and one entry in the legend.

    curves : one for each run: `name`, and for each of `PANELS` (epochs, values). Raises
        ConfigurationError where no run has an epoch.
    """
    panels = [(key, label) for key, label in PANELS if any(curve[key][0] for curve in curves)]
    if not panels:
        raise ConfigurationError(f"none of {len(curves)} runs has finished an epoch; wait for one")
    names = list(dict.fromkeys(curve["name"] for curve in curves))
    looks = {name: LOOKS[place % len(LOOKS)] for place, name in enumerate(names)}
    columns = max(1, min(4, LETTERS // (max(map(len, names)) + 8)))
    lines = -(-len(names) // columns)
    height = 2.1 * -(-len(panels) // 2) + 0.15 + LINE * lines
    figure = new_figure(WIDTH, height, SMALL)
    axes = figure.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False).ravel()
    for ax, (key, label) in zip(axes, panels, strict=False):
        _panel(ax, curves, key, looks)
        ax.set_ylabel(label)
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax in axes[max(0, len(panels) - 2) : len(panels)]:
        ax.set_xlabel("epoch")
    _legend(figure, curves, looks, columns)
    return figure


def _panel(ax: Axes, curves: Sequence[Mapping[str, Any]], key: str, looks: Mapping[str, tuple[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    if key.startswith("angle"):
        ax.axhline(90, color=GREY, linewidth=1, linestyle=":")
    for curve in curves:
        (epochs, values), (colour, dash) = curve[key], looks[curve["name"]]
        single = "o" if len(epochs) == 1 else ""
        ax.plot(epochs, values, color=colour, linestyle=dash, linewidth=1.1, marker=single, markersize=3)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _legend(
    figure: Figure, curves: Sequence[Mapping[str, Any]], looks: Mapping[str, tuple[str, Any]], columns: int
) -> None:
    """Below the panels; how many seeds a line stands for, where they are several."""
    from matplotlib.lines import Line2D

    counts = {name: sum(curve["name"] == name for curve in curves) for name in looks}
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            linestyle=dash,
            linewidth=1.4,
            label=name if counts[name] == 1 else f"{name} ({counts[name]} seeds)",
        )
        for name, (colour, dash) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=SIZE - 0.5)
