"""How the command line shows records: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def outcome(record: dict[str, Any] | None) -> dict[str, str]:
    """The row of a table for the record of one epoch, a column for each angle; dashes for none."""
    from fsp_dynamics.experiments.records import ANGLE

    found = record or {}
    return {
        "epoch": shown(found.get("epoch")),
        **{key: rounded(found.get(key), 2) for key in ("train_error", "valid_error", "test_error")},
        **{f"{ANGLE}{name}": rounded(angle, 1) for name, angle in (found.get("alignment_degrees") or {}).items()},
        **{key: shown(found.get(key)) for key in ("unconverged", "dead_outputs")},
    }


def shown(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(f"{key} {shown(item)}" for key, item in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rounded(value: float | None, digits: int) -> str:
    """A number with so many decimals; a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def print_json(content: Any) -> None:
    """The content as JSON, on stdout."""
    from fsp_dynamics.experiments.records import plain

    print(json.dumps(plain(content), indent=2, allow_nan=False))


def width() -> int | None:
    """The letters of a line on stdout; None where it is no terminal, and lines have no end."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else None


def print_table(
    title: str,
    rows: Iterable[dict[str, str]],
    *,
    expendable: Sequence[str] = (),
    one_line: bool = False,
    continued: bool = False,
) -> None:
    """The rows on stdout; the keys of the first are the columns. On a terminal columns that do not
    fit are left out, and named below the table.

    expendable : columns that go first, in this order; then others, from the right, but for the
        first. one_line : each row is one line; else text is wrapped between words. continued :
        columns that do not fit follow in more tables, and none is left out.
    """
    from fsp_dynamics.tables.layout import blocks, laid, left_out

    rows, room = list(rows), width()
    if not rows:
        return _print(f"{title}: nothing to show", "", room)
    _print(title, "bold", room)
    for part in blocks(rows, room) if continued else [rows]:
        found = laid(part, room, expendable=expendable, wrap=not one_line)
        _print("\n".join(["", *found.head]), "bold")
        _print("\n".join([found.rule, *found.body]), "")
        if found.left_out:
            _print(left_out(found.left_out, room), "dim")
    _print("", "")


def _print(text: str, style: str, room: int | None = None) -> None:
    """The text on stdout, in lines of at most `room` letters."""
    from rich.console import Console

    from fsp_dynamics.tables.layout import wrapped

    lines = text if room is None else "\n".join(wrapped(text, room))
    Console(highlight=False, soft_wrap=True, markup=False, emoji=False).print(lines, style=style)
