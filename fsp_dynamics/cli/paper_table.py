"""`fsp table I` to `fsp table V`: the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsp_dynamics.cli.formatted import Format, print_formatted
from fsp_dynamics.cli.options import loading
from fsp_dynamics.cli.stored import stored_summaries
from fsp_dynamics.tables import print_json

_COST = "seconds and MiB are those of the authors' machine; fsp cost measures them on this one."
_SHORT = "the paper's networks learn for 64 epochs, those of 16 channels for 5."


def show(number: str, runs: Sequence[Path], format: Format, as_json: bool) -> None:
    """Print a table of the paper, "I" to "V", with what runs, or stored summaries, have of it."""
    with loading():
        from fsp_dynamics.experiments.learners.paper import TITLES, paper_rows

    title = f"table {number} of the paper: {TITLES[number]}"
    rows = paper_rows(number, {each.preset: each for each in stored_summaries(runs)})
    if as_json or format == "json":
        print_json({"table": number, "rows": rows})
    else:
        _show(format, title, rows, _SHORT if number == "V" else _COST)


def _show(format: Format, title: str, rows: list[dict[str, Any]], note: str) -> None:
    shown = [_cells(row) for row in rows]
    if not any(row["layer"] for row in shown):
        shown = [{key: text for key, text in row.items() if key != "layer"} for row in shown]
    flat = [{**row, "seeds": " ".join(map(str, row["seeds"]))} for row in rows]
    layout = {"expendable": ["ours 95 %", "seeds"], "one_line": True}
    print_formatted(format, title, shown, flat, [note], "tab:paper", **layout)


def _cells(row: dict[str, Any]) -> dict[str, str]:
    def number(key: str, sign: str = "") -> str:
        return "" if row[key] is None else f"{row[key]:{sign}.2f}"

    return {
        **{key: row[key] for key in ("quantity", "data", "layer", "learner")},
        "paper": str(row["paper"]) if isinstance(row["paper"], int) else number("paper"),
        "ours": number("ours"),
        "ours 95 %": "" if row["low"] is None else f"{number('low')} to {number('high')}",
        "difference": number("difference", "+"),
        "seeds": str(len(row["seeds"]) or ""),
    }
