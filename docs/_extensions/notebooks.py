"""The notebooks of the source tree as pages: copied to docs/gallery/ before every build, since
Sphinx reads nothing from outside its own folder.

Links between notebooks and pages are written as they work in the source tree, and bent to where
the copies are.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms import SphinxTransform

# how the explorer is written where there is no page to live in
LIVE = "<fsp_dynamics.explorer.widget.Explorer object"
PICTURES = ("explorer-light.png", "explorer-dark.png")


def copy_notebooks(source: Path, target: Path) -> list[str]:
    """Make `target` hold the notebooks of `source` and no others; the names. What has not changed
    keeps its date, so that it is not read again.
    """
    target.mkdir(exist_ok=True)
    found = {path.name: moved(path.read_text(encoding="utf-8")) for path in sorted(source.glob("*.ipynb"))}
    for old in target.glob("*.ipynb"):
        if old.name not in found:
            old.unlink()
    for name, text in found.items():
        if not (target / name).is_file() or (target / name).read_text(encoding="utf-8") != text:
            aside = target / f".{name}.{os.getpid()}"  # another build may be reading
            aside.write_text(text, encoding="utf-8")
            aside.replace(target / name)
    return list(found)


def moved(text: str) -> str:
    """The notebook with the relative links of its texts as they are seen from docs/gallery/."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            lines = cell["source"] if isinstance(cell["source"], list) else [cell["source"]]
            cell["source"] = [
                re.sub(r"\]\(\.\./(docs/)?", lambda link: "](../" if link[1] else "](../../", line) for line in lines
            ]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


class StandStill(SphinxTransform):
    """In place of the explorer, which needs a kernel, a screenshot if there is one in docs/, and
    how to open it.
    """

    default_priority = 100

    def apply(self, **options: Any) -> None:
        for block in list(self.document.findall(nodes.literal_block)):
            if block.astext().startswith(LIVE):
                seen = [name for name in PICTURES if (Path(self.env.srcdir) / name).is_file()]
                shown: list[nodes.Node] = [
                    nodes.image(
                        uri=f"../{name}", alt="The explorer", classes=[f"only-{name[9:-4]}"] if len(seen) > 1 else []
                    )
                    for name in seen
                ]
                shown.append(
                    nodes.paragraph(
                        "",
                        "",
                        nodes.emphasis("", "The explorer needs Python: "),
                        nodes.literal("", "fsp explore"),
                        nodes.emphasis("", " opens it in the browser."),
                    )
                )
                block.replace_self(shown)


def _copy(app: Sphinx, config: Config) -> None:
    copy_notebooks(Path(app.srcdir).parent / "notebooks", Path(app.srcdir) / "gallery")


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    """A page may link to a notebook where it really is, as a reader of the sources sees it."""
    source[0] = source[0].replace("](../notebooks/", "](gallery/")


def setup(app: Sphinx) -> dict[str, Any]:
    """Copy first of all; bend links when pages are read."""
    app.add_transform(StandStill)
    app.connect("config-inited", _copy)
    app.connect("source-read", _read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
