"""Links to the API from plain names: `relax` or `models/rate.py` in a page,
`Equilibrium.require_converged` in a docstring, types in signatures.

A name is linked where it is unambiguous. In a docstring or a signature it means what its
module imports under that name. Elsewhere: a public name of the package; a file or a dotted name; a
class or function of which there is one, if it looks like one (it has a capital, an underscore or
brackets). Everything else is left unchanged.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

import fsp_dynamics

PUBLIC = {name: f"fsp_dynamics.{module}.{name}" for name, module in fsp_dynamics._ROOM_OF.items()}
PLAIN = re.compile(r"[A-Za-z_][\w.]*(?:\(\))?|[\w/]+\.py")
DEFINED = ("function", "class", "exception", "data")


def target(objects: Any, text: str) -> str | None:
    """The whole name of what the text names, among `objects` (those of the Python domain); None
    where that is nothing, or not sure.
    """
    if not PLAIN.fullmatch(text):
        return None
    name = text.removesuffix(".py").removesuffix("/__init__").replace("/", ".").removesuffix("()").removeprefix("fsp.")
    if name in PUBLIC:
        name = PUBLIC[name]
    for whole in (name, f"fsp_dynamics.{name}"):
        if whole in objects and whole.startswith("fsp_dynamics."):
            # such as rate or errors
            word = objects[whole].objtype == "module" and text == whole.rpartition(".")[2]
            return None if word else whole
    dotted = "." in name
    if not (dotted or "_" in name or name != text or re.search("[A-Z]", name)):
        return None
    kinds = ("module", *DEFINED) if "_" in name else DEFINED
    found = [
        whole for whole, entry in objects.items() if whole.endswith(f".{name}") and (dotted or entry.objtype in kinds)
    ]
    return found[0] if len(found) == 1 else None


@functools.cache
def imported(module: str) -> dict[str, str]:
    """{name: whole name} of what a module imports by name, also what only type checkers see."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    lines = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: f"{line.module}.{alias.name}" for line in lines for alias in line.names}


class LinkNames(SphinxPostTransform):
    """Inline code of the written pages."""

    default_priority = 300

    def run(self, **options: Any) -> None:
        docname, objects = self.env.docname, self.env.domains.python_domain.objects
        if docname.startswith("api/") and docname != "api/index":
            return  # docstrings mark names as `x`
        for literal in list(self.document.findall(nodes.literal)):
            if "value" in literal["classes"] or any(
                isinstance(above, (nodes.reference, nodes.title)) for above in _above(literal)
            ):
                continue
            name = target(objects, literal.astext())
            if name:
                literal.replace_self(
                    make_refnode(
                        self.app.builder,
                        docname,
                        objects[name].docname,
                        objects[name].node_id,
                        literal.deepcopy(),
                        name,
                    )
                )


class NoGuesses(SphinxPostTransform):
    """Sphinx takes a type in a signature for anything that ends in its name, were it another
    module's. Here it asks `_missing` instead.
    """

    default_priority = 5  # before references are resolved

    def run(self, **options: Any) -> None:
        for node in self.document.findall(addnodes.pending_xref):
            if node.get("refspecific") is False:
                del node["refspecific"]


def _above(node: nodes.Element) -> list[nodes.Element]:
    return [] if node.parent is None else [node.parent, *_above(node.parent)]


def _missing(app: Sphinx, env: BuildEnvironment, node: Any, shown: nodes.Element) -> nodes.reference | None:
    """A reference to something outside the current module."""
    if node.get("refdomain") != "py":
        return None
    objects, text, module = env.domains.python_domain.objects, node.get("reftarget", ""), node.get("py:module")
    first, dot, remainder = text.partition(".")
    names = imported(module) if module else {}
    if first in names:
        name: str | None = names[first] + dot + remainder
        if name not in objects:  # shown where another module offers it
            name = target(objects, text)
    else:
        name = target(objects, text) if node["reftype"] == "obj" else None
    if name not in objects:
        return None
    return make_refnode(app.builder, node["refdoc"], objects[name].docname, objects[name].node_id, shown, name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Link names."""
    app.add_post_transform(NoGuesses)
    app.add_post_transform(LinkNames)
    app.connect("missing-reference", _missing)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
