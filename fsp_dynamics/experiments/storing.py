"""Finished runs are stored beside what is stored already: one file for each group of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config import format_differences
from fsp_dynamics.experiments.stored import (
    FinishedRun,
    Stored,
    experiment_differences,
    extended,
    nearest_preset,
    read_stored,
    write_stored,
)


def store(
    groups: Mapping[Path, Sequence[FinishedRun]], left: Mapping[Path, str], *, replacing: bool = False
) -> list[str]:
    """Add each group of runs, all of one experiment, to the summary in its file; nothing is written
    before all of them are known to fit. A line for each file, and for each folder left out.

    left : {folder: why it was left out} so far. replacing : new runs take the place of stored ones,
        and a summary of another configuration is begun anew. Raises ConfigurationError where a
        file holds results of another configuration, and as `read_stored`.
    """
    content: dict[Path, Stored] = {}
    left = dict(left)
    for path, group in groups.items():
        stored, config = read_stored(path), group[0].config
        differing = experiment_differences(stored.config, config) if stored else {}
        if differing and not replacing:
            raise ConfigurationError(
                f"{path} holds results of another configuration: {format_differences(differing)}; "
                "begin it anew with these runs (replacing=True)"
            )
        known = None if differing else stored
        content[path], out = extended(known, nearest_preset(config)[0], group, replacing=replacing)
        left |= out
    for path, found in content.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_stored(path, found)
    seeds = {path: ", ".join(str(record["seed"]) for record in found.seeds) for path, found in content.items()}
    return [*(f"{path}: seeds {listed}" for path, listed in seeds.items()), *left_out(left)]


def left_out(left: Mapping[Path, str]) -> list[str]:
    """A line for each folder."""
    return [f"left out: {folder} {reason}" for folder, reason in left.items()]
