"""Latency of the explorer in a real browser, from moving a slider to new pixels, all views drawn.

    python -m benchmarks.interaction [RUN ...]

measures the small random network and each given run, and writes
benchmarks/results/interaction.json. Times are from the browser: from the input event to the first
animation frame after drawing. Milliseconds; the page is 1400 x 900.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import lab, machine
from fsp_dynamics.experiments.config_io import load_config

# slider, presses of an arrow key
MOVES = (("gain", 30), ("beta", 20), ("noise", 20), ("dt", 20), ("sample", 20))
RESULTS = Path(__file__).parent / "results" / "interaction.json"


@dataclass(frozen=True, slots=True)
class Interaction:
    """For one network: seconds from running the cell to the first frame, then ms from slider to
    pixels over `moves` moves, of which Python and drawing (medians).
    """

    title: str
    first_picture: float
    moves: int
    median: float
    p95: float
    worst: float
    python: float
    drawing: float


def measure(run: Path | None = None) -> Interaction:
    """Every slider of MOVES, one arrow key after another, after the kernels are compiled."""
    with tempfile.TemporaryDirectory() as folder, lab.started(Path(folder), run=run) as server, lab.window() as page:
        page.open(server)
        first = page.run_explorer()
        page.page.wait_for_timeout(3000)
        while page.after(lambda: page.control("noise").press("ArrowRight")) > 1000:
            pass
        waits, python, drawing = [], [], []
        for name, presses in MOVES:
            slider = page.control(name)
            for _ in range(presses):
                waits.append(page.after(lambda slider=slider: slider.press("ArrowRight")))
                python.append(float(page.page.locator('[data-role="speed"]').first.inner_text().split()[1]))
                drawing.append(float(page.data("draw")))
                page.page.wait_for_timeout(30)
            page.after(lambda: page.button("reset").click())
        title = str(
            page.page.locator('[role="region"][aria-label^="Explorer"]').first.get_attribute("aria-label")
        ).removeprefix("Explorer: ")
        ordered = sorted(waits)
        return Interaction(
            title,
            first,
            len(waits),
            statistics.median(waits),
            ordered[round(0.95 * (len(ordered) - 1))],
            ordered[-1],
            statistics.median(python),
            statistics.median(drawing),
        )


def main(runs: list[str]) -> None:
    """Measure, print and write the results."""
    found = [measure(None), *(measure(Path(run)) for run in runs)]
    for each in found:
        print(
            f"{each.title}: first frame {each.first_picture:.1f} s; slider to pixels: median {each.median:.0f}, "
            f"95 % {each.p95:.0f}, worst {each.worst:.0f} ms of {each.moves}; "
            f"Python {each.python:.0f}, drawing {each.drawing:.1f}"
        )
    described = machine.describe(load_config("digits", {})[1])
    RESULTS.write_text(
        json.dumps({"machine": described, "measured": [asdict(each) for each in found]}, indent=1) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
