"""The network of section V and its two phases, as README.md shows them: loop.png and loop.svg.

    python figures/loop.py [--out figures]

Above: what drives a layer in the free and in the nudged phase. Below: the output rates of one test
image in both phases, computed by `fsp_dynamics.simulate` in a network trained on `digits` for five
epochs. The image is that whose two strongest outputs differ least among those that are classified
wrongly, so that the nudge has something to change.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fsp_dynamics as fsp
from fsp_dynamics.plotting import COLOURS, GREY, new_figure, save_figure
from fsp_dynamics.plotting.style import styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LAYERS = ("image", "hidden 1", "hidden 2", "output")
AT = (0.0, 1.0, 2.0, 3.0)
HALF_WIDTH, HALF_HEIGHT = 0.27, 0.42
UNITS = (5, 4, 4, 3)
MATRICES = ("input", "W1", "W2")
LOOP, NUDGE, FORWARD = COLOURS[4], COLOURS[1], COLOURS[0]
FREE_TIME, NUDGED_TIME = 12.0, 12.0


def draw_network(ax: Axes, nudged: bool) -> None:
    """The layers and their connections; with `nudged`, the target's pull and the way round of what
    it changes.
    """
    from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

    def arrow(start: tuple[float, float], end: tuple[float, float], colour: str, width: float, **style: Any) -> None:
        ax.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=11, lw=width, color=colour, shrinkA=0, shrinkB=0, **style
            )
        )

    for k, (x, name, units) in enumerate(zip(AT, LAYERS, UNITS, strict=True)):
        edge = NUDGE if nudged and k == len(AT) - 1 else GREY
        box = (x - HALF_WIDTH, -HALF_HEIGHT)
        shape = "round,pad=0,rounding_size=0.08"
        ax.add_patch(FancyBboxPatch(box, 2 * HALF_WIDTH, 2 * HALF_HEIGHT, shape, fc="#F7F6F1", ec=edge, lw=1.2))
        for y in np.linspace(0.29, -0.29, units):
            ax.add_patch(Circle((x, y), 0.052, fc="white" if k else "#CCCCCC", ec=GREY, lw=0.8))
        ax.text(x, HALF_HEIGHT + 0.09, name, ha="center", va="bottom", fontsize=8)
    for k, name in enumerate(MATRICES):
        changed = nudged and k > 0
        colour, width = (LOOP, 2.2) if changed else (FORWARD, 1.4)
        arrow((AT[k] + HALF_WIDTH, 0), (AT[k + 1] - HALF_WIDTH, 0), colour, width)
        ax.text((AT[k] + AT[k + 1]) / 2, 0.07, name, ha="center", va="bottom", fontsize=7.5, color=colour)
    low = -HALF_HEIGHT - 0.34
    colour, width = (LOOP, 2.2) if nudged else (FORWARD, 1.4)
    ax.plot([AT[3], AT[3], AT[1], AT[1]], [-HALF_HEIGHT, low, low, low], color=colour, lw=width, ls="-")
    arrow((AT[1], low), (AT[1], -HALF_HEIGHT), colour, width)
    ax.text((AT[1] + AT[3]) / 2, low - 0.06, "loop", ha="center", va="top", fontsize=7.5, color=colour)
    if nudged:
        arrow((AT[3] + HALF_WIDTH + 0.52, 0), (AT[3] + HALF_WIDTH + 0.02, 0), NUDGE, 2.2)
        ax.text(AT[3] + HALF_WIDTH + 0.56, 0, "target", ha="left", va="center", fontsize=8, color=NUDGE)
        ax.text(AT[3] + HALF_WIDTH + 0.27, 0.07, r"$\beta$", ha="center", va="bottom", fontsize=8, color=NUDGE)
    ax.set(xlim=(-0.3, 4.4), ylim=(-0.98, 0.64), aspect="equal")
    ax.axis("off")


def draw_outputs(ax: Axes) -> None:
    """The rates of the outputs through both phases."""
    data = fsp.load_dataset("digits")
    with tempfile.TemporaryDirectory() as folder:
        network = fsp.train("digits", epochs=5, out=Path(folder) / "run", progress=False).network("last")
    images, labels = data.test.images, data.test.labels
    rates = fsp.relax(network, images).output
    strongest = np.sort(rates, axis=1)
    wrong = np.flatnonzero(rates.argmax(1) != labels)
    shown = wrong[np.argmin((strongest[:, -1] - strongest[:, -2])[wrong])]
    target = np.eye(10, dtype=np.float32)[labels[shown : shown + 1]]
    protocol = [(FREE_TIME, None), (NUDGED_TIME, fsp.Nudge(1.0, target))]
    path = fsp.simulate(network, images[shown : shown + 1], protocol, solver="rk4", dt=0.02, save=0.05)
    output = path.rho.rate(path.states[-1][:, 0])
    label, mistaken = int(labels[shown]), int(rates[shown].argmax())
    for unit in range(10):
        style: dict[str, Any] = {"color": "#BBBBBB", "lw": 0.9, "ls": "-"}
        if unit == label:
            style = {"color": COLOURS[2], "lw": 2.0, "ls": "-", "label": f"the image's class, {label}"}
        elif unit == mistaken:
            style = {"color": COLOURS[1], "lw": 2.0, "ls": "--", "label": f"the strongest before, {mistaken}"}
        ax.plot(path.times, output[:, unit], **style)
    ax.axvline(FREE_TIME, color=GREY, lw=0.8)
    ax.set(
        xlim=(0, FREE_TIME + NUDGED_TIME), ylim=(-0.03, 1.03), xlabel="time, in time constants", ylabel="output rate"
    )
    ax.legend(loc="upper left", fontsize=7.5)


def draw(out: Path) -> None:
    """Write loop.png and loop.svg into the folder `out`."""
    with styled({"font.size": 8.5}):
        figure = new_figure(7.4, 3.7, {"font.size": 8.5, "axes.titlesize": 9})
        grid = figure.add_gridspec(2, 2, height_ratios=[1, 1])
        titles = (
            "free phase: the image drives the network to equilibrium",
            "nudged phase: the output is pulled to the target",
        )
        for column, title in enumerate(titles):
            ax = figure.add_subplot(grid[0, column])
            draw_network(ax, nudged=column == 1)
            ax.set_title(title, fontsize=8.5)
        draw_outputs(figure.add_subplot(grid[1, :]))
        save_figure(figure, out / "loop.png")
        save_figure(figure, out / "loop.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    draw(parser.parse_args().out)
