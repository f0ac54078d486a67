"""What tables are made of: stored summaries, or runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fsp_dynamics.cli.messages import report
from fsp_dynamics.cli.options import SEVERAL
from fsp_dynamics.folders import expanded

if TYPE_CHECKING:
    from fsp_dynamics.experiments.stored import Stored

Runs = Annotated[
    tuple[Path, ...],
    SEVERAL,
    Parameter(help="Runs, or folders of runs (default: the summaries that the source tree keeps)."),
]


def stored_summaries(runs: Sequence[Path]) -> list[Stored]:
    """The summaries of the source tree, or of runs."""
    from fsp_dynamics.experiments.learners import summaries

    if not runs:
        return summaries.read_summaries()
    found, left = summaries.summaries_of([expanded(folder, "--runs") for folder in runs])
    for folder, why in left.items():
        report(f"note: left out: {folder} {why}")
    return found
