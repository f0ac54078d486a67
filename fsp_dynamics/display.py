"""How records are shown in notebooks: one small table each."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any


def html_table(title: str, rows: Mapping[str, Any]) -> str:
    """An HTML table with a caption and one row for each name and value, both escaped.

    >>> html_table("Nudge", {"beta": 0.5})
    '<table><caption>Nudge</caption><tbody><tr><th>beta</th><td>0.5</td></tr></tbody></table>'
    """
    lines = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows.items()
    )
    return f"<table><caption>{html.escape(title)}</caption><tbody>{lines}</tbody></table>"


def angles(degrees: Mapping[str, float]) -> str:
    """Angles by name for a one-line repr; "none" for an empty mapping.

    >>> angles({"W1": 12.34, "loop": 90.0})
    'W1 12.3, loop 90.0'
    """
    return ", ".join(f"{name} {value:.1f}" for name, value in degrees.items()) or "none"
