"""The small pictures of docs/gallery.md, docs/thumbnails/NAME.png: one of those that a notebook
draws, named here by its cell. `python figures/thumbnails.py [NAME ...]` runs the notebooks in a
temporary folder and makes them anew; look at them before they are committed.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
THUMBNAILS = ROOT / "docs" / "thumbnails"
SIZE = (440, 240)
COLOURS = 64  # of a palette, which keeps lines sharp and files small
CELLS = {
    "01_quickstart": "train",
    "03_two_phases": "closed-plot",
    "04_alignment": "figure-three",
    "05_stability": "cycles-plot",
    "06_mnist_fashion": "wrong",
    "07_your_own": "rules",
    "08_layer_by_layer": "layer-plot",
    "09_spikes": "raster",
}
SCREENSHOTS = {
    "02_explore": ROOT / "docs" / "explorer-light.png"
}  # a widget, which a kernel without a page cannot draw


def executed(name: str) -> Any:
    """The notebook with its outputs."""
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(book, timeout=1200, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return book


def picture_of(book: Any, cell: str) -> Image.Image:
    """The last picture that the cell of that id shows."""
    (found,) = [each for each in book.cells if each["id"] == cell]
    shown = [each["data"]["image/png"] for each in found["outputs"] if "image/png" in each.get("data", {})]
    return Image.open(io.BytesIO(base64.b64decode(shown[-1])))


def thumbnail(picture: Image.Image) -> Image.Image:
    """The whole picture in the middle of SIZE on white."""
    small = picture.convert("RGB")
    small.thumbnail(SIZE, Image.Resampling.LANCZOS)
    out = Image.new("RGB", SIZE, "white")
    out.paste(small, ((SIZE[0] - small.width) // 2, (SIZE[1] - small.height) // 2))
    return out.quantize(COLOURS)


def main(names: list[str]) -> None:
    """Make the thumbnails of these notebooks, or of all."""
    THUMBNAILS.mkdir(exist_ok=True)
    for name in names or [*CELLS, *SCREENSHOTS]:
        picture = Image.open(SCREENSHOTS[name]) if name in SCREENSHOTS else picture_of(executed(name), CELLS[name])
        thumbnail(picture).save(THUMBNAILS / f"{name}.png", optimize=True)
        print(THUMBNAILS / f"{name}.png", f"{(THUMBNAILS / f'{name}.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
