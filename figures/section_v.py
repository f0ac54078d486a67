"""The numbers of section V: collected from runs into small files, and shown from these alone.

    python figures/section_v.py collect FOLDER ... [--replace]
    python figures/section_v.py collect FOLDER ... --option NAME [--baseline FOLDER ...] [--replace]
    python figures/section_v.py table [--write]

collect  stores the finished runs at or below the folders (runs, sweeps, folders of them) in
         results/PRESET.json (experiments/stored.py), seed by seed. A run of no preset, or of one
         that has changed since, is refused with what differs, and nothing is stored. A seed that
         is stored stays, unless --replace.
         --option: the runs have other keys than their baseline, by default what is stored of the
         preset that is nearest; both are stored in results/options.json (experiments/paired.py).
table    prints the tables as Markdown; --write puts them between their marks in README.md and
         docs/section-v.md, and what was measured into the [notes] of the presets.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import depth
import section_v_tables as tables

from fsp_dynamics.cli.messages import in_options
from fsp_dynamics.errors import ConfigurationError, FspError
from fsp_dynamics.experiments import config_io
from fsp_dynamics.experiments.config import format_differences
from fsp_dynamics.experiments.paired import read_comparisons, write_comparisons
from fsp_dynamics.experiments.stored import (
    FinishedRun,
    Stored,
    finished_runs,
    nearest_preset,
    read_stored,
)
from fsp_dynamics.experiments.storing import left_out, store
from fsp_dynamics.writing import write_aside

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
OPTIONS = "options.json"
BLOCKS = {"README.md": ("numbers",), "docs/section-v.md": ("numbers", "seeds", "options", "depth")}
"""The pages, and the names of the parts of them that are written here."""


# Collecting


def collect(roots: Sequence[Path], results: Path, *, replacing: bool = False) -> list[str]:
    """Store the runs of presets; a line for each file, and for each run that was left out."""
    runs, left = finished_runs(roots)
    members: dict[str, list[FinishedRun]] = {}
    for run in runs:
        name, differing = nearest_preset(run.config)
        if differing:
            raise ConfigurationError(
                f"{run.folder} is no run of a preset; the nearest, {name}: {format_differences(differing)}; "
                "leave it out, or store such runs with --option NAME"
            )
        members.setdefault(name, []).append(run)
    return store({results / f"{name}.json": group for name, group in members.items()}, left, replacing=replacing)


def collect_option(
    name: str, roots: Sequence[Path], baseline: Sequence[Path], results: Path, *, replacing: bool = False
) -> list[str]:
    """Store the runs of an option beside those of its baseline; lines as `collect`."""
    runs, left = finished_runs(roots)
    if baseline:
        before, out = finished_runs(baseline)
        left |= out
        preset = nearest_preset(before[0].config)[0]
    else:
        preset = nearest_preset(runs[0].config)[0]
        stored = read_stored(results / f"{preset}.json")
        if stored is None:
            raise ConfigurationError(
                f"{results / f'{preset}.json'} is missing, the baseline of option {name!r}; "
                "collect that preset first, or give --baseline FOLDER"
            )
        before = stored.runs(results / f"{preset}.json")
    path = results / OPTIONS
    found, out = read_comparisons(path).with_option(name, preset, before, runs, replacing=replacing)
    results.mkdir(parents=True, exist_ok=True)
    write_comparisons(path, found)
    (new,) = (each for each in found.found if each.name == name)
    seeds = ", ".join(map(str, new.difference().seeds))
    return [f"{path}: {name}, {tables.shown_keys(new.keys)}, pairs of seeds {seeds}", *left_out(left | out)]


def read_results(results: Path = RESULTS) -> dict[str, Stored]:
    """{preset: what is stored of it}, in the order of the rows, other families after them. Raises
    as `read_stored`, and ConfigurationError for a file of no preset.
    """
    found = {}
    names = list(dict.fromkeys([*(row.preset for row in tables.rows()), *config_io.presets()]))
    for path in sorted(results.glob("*.json")):
        if path.name == OPTIONS:
            continue
        stored = read_stored(path)
        if path.stem not in names or stored is None or stored.preset != path.stem:
            raise ConfigurationError(f"{path} is of no preset; there are {', '.join(config_io.presets())}")
        found[path.stem] = stored
    return {name: found[name] for name in names if name in found}


def depth_part(folder: Path) -> str:
    """The picture of depth and its table, where it was drawn."""
    drawn = depth.read_rows(folder / "depth.csv")
    if not drawn:
        return f"*{tables.NOT_RUN.capitalize()}.*"
    return f"![Errors, angles and what limits learning, by depth](../figures/depth.png)\n\n{depth.markdown(drawn)}"


def parts(results: Path = RESULTS) -> dict[str, str]:
    """{name: text} of what the pages hold between marks."""
    found = {name: each for name, each in read_results(results).items() if each.config.family == "rate"}
    return {
        "numbers": tables.numbers_table(found),
        "seeds": tables.seeds_table(found),
        "options": tables.options_table(read_comparisons(results / OPTIONS)),
        "depth": depth_part(results.parent),
    }


# Writing


def with_parts(text: str, names: Sequence[str], content: Mapping[str, str], where: str) -> str:
    """The page with these parts in it. Raises ConfigurationError where their marks are not there
    once each.
    """
    for name in names:
        begin, end = f"<!-- {name}: written by figures/section_v.py -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        if (text.count(begin), text.count(end), rest.count(end)) != (1, 1, 1):
            raise ConfigurationError(f"{where}: expected {begin} and after it {end}, once each")
        text = f"{before}{begin}\n\n{content[name]}\n\n{end}{rest.partition(end)[2]}"
    return text


def with_notes(text: str, found: Mapping[str, Any], where: str) -> str:
    """A preset's TOML with these keys in its last table, [notes]. Raises ConfigurationError where
    that is another one.
    """
    before, mark, own = text.partition("\n[notes]\n")
    if not mark or re.search(r"^\[", own, re.MULTILINE):
        raise ConfigurationError(f"{where}: expected [notes] as the last table")
    for key, value in found.items():
        line = f"{key} = {json.dumps(value, ensure_ascii=False)}"
        own, times = re.subn(rf"^{key} = .*$", lambda _, line=line: line, own, flags=re.MULTILINE)
        own = own if times else f"{own.rstrip()}\n{line}\n"
    return before + mark + own


def write(results: Path, root: Path) -> list[Path]:
    """Write pages and presets; those that changed."""
    content, changed = parts(results), {}
    for page, names in BLOCKS.items():
        changed[root / page] = with_parts((root / page).read_text(encoding="utf-8"), names, content, page)
    for name, stored in read_results(results).items():
        path = config_io.PRESETS / f"{name}.toml"
        changed[path] = with_notes(path.read_text(encoding="utf-8"), tables.notes(stored), str(path))
    changed = {path: text for path, text in changed.items() if path.read_text(encoding="utf-8") != text}
    for path, text in changed.items():
        write_aside(path, text.encode())
    return list(changed)


def command_line() -> argparse.ArgumentParser:
    """Its commands and options."""
    parser = argparse.ArgumentParser(description="The numbers of section V (docs/section-v.md).")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the stored summaries")
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect", help="store what runs gave")
    collecting.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="runs, sweeps, folders of them")
    collecting.add_argument("--option", metavar="NAME", help="the runs are those of an option, of this name")
    collecting.add_argument("--baseline", type=Path, nargs="+", default=[], metavar="FOLDER", help="runs without it")
    collecting.add_argument("--replace", action="store_true", help="new runs take the place of stored ones")
    showing = commands.add_parser("table", help="print the tables")
    showing.add_argument("--write", action="store_true", help="write them into the pages and presets")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    given = command_line().parse_args(arguments)
    try:
        if given.command == "table" and given.write:
            print("\n".join(map(str, write(given.results, ROOT))))
        elif given.command == "table":
            print("\n\n".join(parts(given.results).values()))
        elif given.option:
            folders = given.folders, given.baseline, given.results
            print("\n".join(collect_option(given.option, *folders, replacing=given.replace)))
        elif given.baseline:
            raise ConfigurationError("--baseline belongs to --option NAME; give both, or neither")
        else:
            print("\n".join(collect(given.folders, given.results, replacing=given.replace)))
    except (FspError, OSError) as error:
        print(f"section_v: {in_options(str(error))}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
