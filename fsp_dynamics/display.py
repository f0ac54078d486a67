"""How records are shown: in one line, and in notebooks as one small table."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from typing import Any

import numpy as np


def html_table(title: str, rows: Mapping[str, Any]) -> str:
    """An HTML table with a caption and one row for each name and value, both escaped.

    >>> html_table("Nudge", {"beta": 0.5})
    '<table><caption>Nudge</caption><tbody><tr><th>beta</th><td>0.5</td></tr></tbody></table>'
    """
    cells = ((html.escape(str(name)), html.escape(str(value))) for name, value in rows.items())
    body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in cells)
    return f"<table><caption>{html.escape(title)}</caption><tbody>{body}</tbody></table>"


def angles(degrees: Mapping[str, float]) -> str:
    """Angles by name; "none" for an empty mapping.

    >>> angles({"W1": 12.34, "loop": 90.0})
    'W1 12.3, loop 90.0'
    """
    return ", ".join(f"{name} {value:.1f}" for name, value in degrees.items()) or "none"


def largest(values: Any) -> str:
    """The largest of the values that are numbers, in two digits; nan if there is none.

    >>> largest([1.0, 2.345, float("nan")])
    '2.3'
    """
    numbers = np.asarray(values, float)
    numbers = numbers[~np.isnan(numbers)]
    return f"{numbers.max():.2g}" if numbers.size else "nan"


def brief(record: Any) -> str:
    """A dataclass in one line, with the shapes of its arrays in place of their values."""
    shown = (f"{field.name} {_brief(getattr(record, field.name))}" for field in dataclasses.fields(record))
    return f"<{type(record).__name__}: {', '.join(shown)}>"


def _brief(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"({' x '.join(map(str, value.shape))})" if value.shape else f"{value:g}"
    if isinstance(value, Mapping):
        return f"of {len(value)}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_brief, value))}]"
    return f"{value:g}" if isinstance(value, float) else repr(value)
