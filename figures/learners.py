"""The table of learners: results of runs stored, and the table of README.md printed into it.

    python figures/learners.py collect FOLDER ... [--replace]
    python figures/learners.py write

collect  stores the finished runs at or below the folders in results/learners/NAME.json
         (experiments/stored.py), one file for each learner of a data set and size, seed by seed. A
         file that holds another configuration is refused with what differs; a seed that is stored
         stays, unless --replace. Runs of a preset are stored by figures/section_v.py.
write    prints the tables into the PAGES, each by the command that stands in front of it there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fsp_dynamics.cli import main as fsp
from fsp_dynamics.cli.messages import in_options
from fsp_dynamics.errors import ConfigurationError, FspError
from fsp_dynamics.experiments.learners.naming import learner_of
from fsp_dynamics.experiments.stored import (
    FinishedRun,
    finished_runs,
    nearest_preset,
)
from fsp_dynamics.experiments.storing import store
from fsp_dynamics.writing import write_aside

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PAGES = ("README.md", "docs/layerwise.md", "docs/spiking.md")
BEGIN, END = "<!-- learners: fsp table learners {options} -->", "<!-- learners: end -->"
_BLOCK = re.compile(r"<!-- learners: fsp (table learners .*?) -->\n\n(.*?)\n\n<!-- learners: end -->", re.DOTALL)


def collect(roots: Sequence[Path], results: Path, *, replacing: bool = False) -> list[str]:
    """Store runs; a line for each file, and for each run that was left out."""
    runs, left = finished_runs(roots)
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        preset, differing = nearest_preset(run.config)
        if differing:
            groups.setdefault(file_name(run), []).append(run)
        else:
            left[run.folder] = f"is of preset {preset}, which figures/section_v.py stores"
    return store({results / "learners" / name: group for name, group in groups.items()}, left, replacing=replacing)


def file_name(run: FinishedRun) -> str:
    """The file of a learner: data, hidden layers, name."""
    hidden = run.config.experiment().get("network.hidden", [])
    words = f"{run.config.data.label} {' '.join(map(str, hidden))} {learner_of(run.config)}"
    return f"{re.sub(r'[^a-z0-9]+', '-', words.lower()).strip('-')}.json"


def blocks(text: str) -> list[tuple[list[str], str]]:
    """(the arguments of fsp, the table that follows) of each table in a page. Raises
    ConfigurationError where there is none, or one that does not end.
    """
    found = _BLOCK.findall(text)
    if not found or len(found) != text.count(BEGIN.partition(" {")[0]):
        raise ConfigurationError(
            f"{len(found)} tables of learners on the page, expected some between {BEGIN} and {END}"
        )
    return [(shlex.split(command), shown) for command, shown in found]


def printed(arguments: Sequence[str]) -> str:
    """What fsp prints for these arguments. Raises ConfigurationError where it fails."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = fsp(arguments)
    if code:
        raise ConfigurationError(f"fsp {shlex.join(arguments)} ended with {code}")
    return out.getvalue().strip()


def write(page: Path) -> None:
    """Print the tables into the page."""
    text = page.read_text(encoding="utf-8")
    tables = iter([printed(arguments) for arguments, _ in blocks(text)])
    new = _BLOCK.sub(lambda found: found[0].replace(f"\n\n{found[2]}\n\n", f"\n\n{next(tables)}\n\n"), text)
    write_aside(page, new.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    parser = argparse.ArgumentParser(description="The table of learners.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the stored summaries")
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect", help="store what runs gave")
    collecting.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="runs, sweeps, folders of them")
    collecting.add_argument("--replace", action="store_true", help="new runs take the place of stored ones")
    commands.add_parser("write", help="print the tables into the pages")
    given = parser.parse_args(arguments)
    try:
        if given.command == "collect":
            print("\n".join(collect(given.folders, given.results, replacing=given.replace)))
        else:
            for page in PAGES:
                write(ROOT / page)
    except (FspError, OSError) as error:
        print(f"learners: {in_options(str(error))}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
