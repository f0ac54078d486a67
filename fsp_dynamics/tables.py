"""How the command line shows records: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any


def outcome(record: dict[str, Any] | None) -> dict[str, str]:
    """The row of a table for the record of one epoch; dashes for none."""
    columns = ("epoch", "train_error", "valid_error", "test_error", "alignment_degrees", "unconverged", "dead_outputs")
    return {key: shown((record or {}).get(key)) for key in columns}


def shown(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(f"{key} {shown(item)}" for key, item in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_json(content: Any) -> None:
    """The content as JSON, on stdout."""
    from fsp_dynamics.experiments.records import plain

    print(json.dumps(plain(content), indent=2, allow_nan=False))


def print_table(title: str, rows: Iterable[dict[str, str]]) -> None:
    """One line for each row, on stdout; the keys of the first are the columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = list(rows)
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(text.replace("[", r"\[") for text in row.values()))
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(table if rows else f"{title}: nothing to show")
