"""A table in the format that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from fsp_dynamics.cli.messages import report
from fsp_dynamics.tables import print_table

Format = Literal["text", "markdown", "latex", "csv", "json"]
Formatted = Annotated[Format, Parameter(help="text is for people; latex needs the package booktabs.")]


def print_formatted(
    format: Format,
    title: str,
    shown: Sequence[dict[str, str]],
    flat: Sequence[dict[str, Any]],
    notes: Sequence[str],
    label: str,
    **layout: Any,
) -> None:
    """Print rows of text, with notes below them; as CSV, `flat`, the same as numbers. label : of
    LaTeX. layout : of `tables.print_table`, which prints text for people.
    """
    from fsp_dynamics.tables import formats

    if format == "markdown":
        print("\n\n".join([formats.markdown(shown), *notes]))
    elif format == "latex":
        print(formats.latex(shown, title, label, notes))
    elif format == "csv":
        from fsp_dynamics.experiments.sweeps.table import to_csv

        print(to_csv(flat).decode(), end="")
    else:
        print_table(title, shown, **layout)
        for note in notes:
            report(f"note: {note}")
