"""Summaries of learners: those stored in the source tree, those of runs, and those of one data set
and one size among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.records import read_table
from fsp_dynamics.experiments.stored import (
    FinishedRun,
    Stored,
    configuration_of,
    digest_of,
    extended,
    finished_runs,
    nearest_preset,
    read_stored,
)

RESULTS = Path(__file__).parents[3] / "figures" / "results"
"""The stored summaries of the source tree: of presets, and in learners/ of other learners."""


def read_summaries(results: Path | None = None) -> list[Stored]:
    """Every summary in that folder (None: `RESULTS`) and the ones below it; what holds comparisons
    of options is passed over.

    Raises ConfigurationError where there is no such folder, CheckpointError for a damaged file.
    """
    results = RESULTS if results is None else results
    if not results.is_dir():
        raise ConfigurationError(
            f"{results} is no folder: the stored summaries come with the sources alone; run it from a clone, or give "
            "runs (runs=...)"
        )
    found = []
    for path in sorted(results.rglob("*.json")):
        if "variants" not in read_table(path, {}):
            stored = read_stored(path)
            found += [stored] if stored else []
    return found


def summaries_of(roots: Iterable[Path]) -> tuple[list[Stored], dict[Path, str]]:
    """(one summary for each configuration among the finished runs at or below these folders,
    {folder: why it was left out}). Raises as `stored.finished_runs` and `stored.extended`.
    """
    runs, left = finished_runs(roots)
    return with_runs([], runs), left


def with_runs(known: Sequence[Stored], runs: Iterable[FinishedRun]) -> list[Stored]:
    """The summaries with these runs in them; a seed that is known stays. Raises as
    `stored.extended`.
    """
    found = {each.digest: each for each in known}
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(digest_of(configuration_of(run.config)), []).append(run)
    for digest, group in groups.items():
        before = found.get(digest)
        preset = before.preset if before else nearest_preset(group[0].config)[0]
        found[digest] = extended(before, preset, group)[0]
    return list(found.values())


_OF_THE_TASK = ("family", "network.hidden", "network.channels", "network.width")


def task(config: Config) -> dict[str, Any]:
    """What the learners of one table share: the family, the data and the layers."""
    return {key: value for key, value in config.experiment().items() if key.startswith("data.") or key in _OF_THE_TASK}


def of_task(found: Iterable[Stored], wanted: Mapping[str, Any]) -> list[Stored]:
    """The summaries of that `task`. Raises ConfigurationError where there are none, with those that
    there are, and where the images of two differ.
    """
    found = list(found)
    kept = [each for each in found if task(each.config) == wanted]
    if not kept:
        there = "; ".join(dict.fromkeys(task_text(task(each.config)) for each in found)) or "none at all"
        raise ConfigurationError(f"no results of {task_text(wanted)}; there are: {there}; give another preset")
    first = kept[0]
    for other in kept[1:]:
        if other.data != first.data:
            raise ConfigurationError(
                f"{first.command} and {other.command} were of different images under one name; leave one of them out"
            )
    return kept


def only_task(found: Sequence[Stored]) -> dict[str, Any]:
    """The `task` that all of these have. Raises ConfigurationError where they have several."""
    tasks = [task(each.config) for each in found]
    if any(each != tasks[0] for each in tasks):
        there = "; ".join(dict.fromkeys(map(task_text, tasks)))
        raise ConfigurationError(
            f"the runs are of several data sets or sizes ({there}); give a preset of those that are meant"
        )
    return tasks[0]


def task_text(wanted: Mapping[str, Any]) -> str:
    """The data and the hidden layers in words.

    >>> task_text({"data.name": "digits", "network.hidden": [100, 100]})
    'digits, hidden layers 100-100'
    """
    label = Path(str(wanted.get("data.name") or wanted.get("data.path"))).name
    kept = [
        f"{key.removeprefix('data.')} {wanted[key]}"
        for key in ("data.limit", "data.validation")
        if wanted.get(key) is not None
    ]
    layers = {"hidden layers": wanted.get("network.hidden"), "channels": wanted.get("network.channels")}
    shape = [f"{name} {'-'.join(map(str, sizes))}" for name, sizes in layers.items() if sizes]
    if wanted.get("family", "rate") != "rate":
        shape.append("layer by layer" if shape else f"vgg8b of width {wanted['network.width']:g}, layer by layer")
    return ", ".join([label, *kept, *shape])
