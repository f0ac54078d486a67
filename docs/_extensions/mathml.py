"""Formulas as MathML, which browsers draw themselves: no script, no font and no network. docutils
translates; what it cannot is a warning.
"""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

OTHER_NAMES = (
    (re.compile(r"\\[bB]igg?(?![A-Za-z])"), r"\\Bigl"),
    (re.compile(r"\\dots(?![A-Za-z])"), r"\\ldots"),
    (re.compile(r"'"), r"^{\\prime}"),
)
"""What docutils does not know, or not so well, and what it knows in its place."""


def inline(translator: Any, node: nodes.math) -> None:
    """A formula within a line."""
    translator.body.append(_translated(node, as_block=False))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """A formula on lines of its own."""
    translator.body.append(f'<div class="math">{_translated(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def _translated(node: nodes.Element, as_block: bool) -> str:
    text = node.astext()
    for unknown, known in OTHER_NAMES:
        text = unknown.sub(known, text)
    try:
        return str(tex2mathml(text, as_block=as_block))
    except MathError as error:
        logger.warning("formula cannot be written as MathML: %s", error, location=node)
        return f"<code>{html.escape(text)}</code>"


def setup(app: Sphinx) -> dict[str, Any]:
    """Offer the renderer `mathml` to html_math_renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
