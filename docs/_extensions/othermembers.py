"""The names of a module that its public page leaves out, for a page of internal ones:

    .. othermembers:: fsp_dynamics.models.rate

A public page lists what users call, `:members: Nudge, drive`; what else the module defines is found
here, so that nothing has to be listed twice and nothing is forgotten.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

MODULE = re.compile(r"automodule:: fsp_dynamics\.(\S+)\n +:members:(.*)$", re.MULTILINE)


def public_names(pages: Path) -> dict[str, list[str]]:
    """{module: the names that are listed for it} of the public pages in this folder."""
    texts = [page.read_text(encoding="utf-8") for page in sorted(pages.glob("*.md"))]
    found = [pair for text in texts for pair in MODULE.findall(text)]
    return {module: [name.strip() for name in names.split(",") if name.strip()] for module, names in found}


def defined_in(module: str) -> dict[str, Any]:
    """The functions and classes that a module of the package defines and does not hide, by name."""
    room = importlib.import_module(f"fsp_dynamics.{module}")
    return {
        name: thing
        for name, thing in vars(room).items()
        if not name.startswith("_")
        and getattr(thing, "__module__", None) == room.__name__
        and (inspect.isclass(thing) or inspect.isroutine(thing))
    }


def directives(module: str, listed: list[str]) -> list[str]:
    """An autodoc directive for each name of the module that is not listed."""
    lines: list[str] = []
    for name, thing in defined_in(module).items():
        if name not in listed:
            kind = "function" if not inspect.isclass(thing) else "class"
            kind = "exception" if kind == "class" and issubclass(thing, BaseException) else kind
            lines += [f".. auto{kind}:: fsp_dynamics.{module}.{name}", *(["   :members:"] * (kind != "function")), ""]
    return lines


class OtherMembers(SphinxDirective):
    """See the module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = self.arguments[0].removeprefix("fsp_dynamics.")
        pages = Path(self.env.srcdir) / "api"
        for page in pages.glob("*.md"):
            self.env.note_dependency(str(page))
        listed = public_names(pages)
        if not listed.get(module):
            raise self.error(f"no public page lists names of {module}; show the module with automodule")
        return self.parse_text_to_nodes("\n".join(directives(module, listed[module])))


def setup(app: Sphinx) -> dict[str, Any]:
    """The directive."""
    app.add_directive("othermembers", OtherMembers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
