"""Screenshots of the explorer, as `fsp explore` opens it: docs/explorer-light.png and -dark.png
(1400 x 900), docs/explorer-narrow.png (900 x 700).

    python -m figures.explorer [RUN]

It shows a run like that of `fsp quickstart` (trained in a temporary folder unless one is given).
Needs Debian's chromium.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import lab
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.explorer.model import Model
from fsp_dynamics.explorer.session import Session

ROOT = Path(__file__).parents[1]
# width, height, dark
PICTURES = {"light": (1400, 900, False), "dark": (1400, 900, True), "narrow": (900, 700, False)}


def main(run: str | None = None, out: Path = ROOT / "docs", names: Sequence[str] = tuple(PICTURES)) -> None:
    """Take the screenshots with these names."""
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(run) if run else train("digits", out=Path(folder) / "quickstart", progress=False).folder
        with lab.served(Model(Session.of(shown))) as server:
            for name in names:
                width, height, dark = PICTURES[name]
                with lab.window(width, height, dark) as page:
                    page.visit(server.address)
                    page.page.wait_for_timeout(500)
                    page.page.screenshot(path=out / f"explorer-{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:2])
