"""Stored summaries: what the runs of one configuration gave, seed by seed, in a small JSON file
that is kept when the runs are gone.

    preset                  the preset that the configuration is, or from which it was changed
    command                 what makes the runs again
    configuration           all that decides the result but the seed: no notes, no probes
    configuration_sha256    its digest
    data                    {file: SHA-256} of the images
    seeds                   a record for each seed, in order (`seed_record`)
    sha256                  of all of the above

A key that is younger than the file has its default value in it. Seeds are added, of later commits
too, each with its own; the configuration and the data stay.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from fsp_dynamics.errors import CheckpointError, ConfigurationError
from fsp_dynamics.experiments.config import Config, format_differences
from fsp_dynamics.experiments.config_io import load_config, presets
from fsp_dynamics.experiments.folder import RunFolder, run_folders
from fsp_dynamics.experiments.records import (
    ENVIRONMENT,
    FIELDS,
    PARTS,
    REMEDY,
    SUMMARY,
    Check,
    Record,
    best_of,
    checked,
    commits_of,
    plain,
    read_table,
)
from fsp_dynamics.experiments.sweeps.grid import shown_value
from fsp_dynamics.writing import write_aside

ERRORS = ("test_error", "valid_error", "train_error")
RAW = "raw_"
FINISHED = ("finished", "finished early")
SEED: dict[str, Check] = {
    "seed": ENVIRONMENT["seed"],
    "run": ENVIRONMENT["identity"],
    "commits": ENVIRONMENT["arguments"],
    "started": ENVIRONMENT["started"],
    **dict.fromkeys(("epochs", "best_epoch"), SUMMARY["epochs"]),
    **dict.fromkeys((*ERRORS, "last_train_error"), FIELDS["train_error"]),
    **dict.fromkeys(("unconverged", "evaluated_unconverged"), FIELDS["unconverged"]),
    "dead_outputs": FIELDS["dead_outputs"],
    "alignment_degrees": FIELDS["alignment_degrees"],
    "minutes": FIELDS["seconds"],
    **dict.fromkeys(("threads", "processes", "cores"), ENVIRONMENT["cores"]),
    **{key: ENVIRONMENT[key] for key in ("backend", "cpu", "versions")},
}
"""What the fields of a seed's record must be: what they are in the run's own files."""
OPTIONAL: dict[str, Check] = {
    "raw": PARTS["alignment"],
    **{key: FIELDS[key] for key in ("stuck_units", "exit_errors", "spikes")},
}
"""Fields of a seed's record that only some runs have."""
FILE: dict[str, Check] = {
    **dict.fromkeys(("preset", "command"), SUMMARY["status"]),
    "configuration": PARTS["alignment"],
    **dict.fromkeys(("configuration_sha256", "sha256"), ENVIRONMENT["config_sha256"]),
    "data": ENVIRONMENT["data"],
    "seeds": ENVIRONMENT["resumed"],
}


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that can be stored.

    folder : where it is. data : the digests of its images. record : `seed_record`.
    """

    folder: Path
    config: Config
    data: Record
    record: Record


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored summary. The fields are those of the file."""

    preset: str
    configuration: Record
    data: Record
    seeds: tuple[Record, ...] = ()

    @property
    def config(self) -> Config:
        """The configuration, with seed 0."""
        return load_config(self.configuration)[1]

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration as it is stored."""
        return digest_of(self.configuration)

    @property
    def command(self) -> str:
        """The command that makes its runs again, with the preset as it is now."""
        return command_of(self.preset, self.config, [record["seed"] for record in self.seeds])

    def values(self, key: str) -> list[float]:
        """That field of each seed, in order; of those that have it."""
        return [record[key] for record in self.seeds if record.get(key) is not None]

    def as_record(self) -> Record:
        """As the file holds it."""
        found = {
            "preset": self.preset,
            "command": self.command,
            "configuration": self.configuration,
            "configuration_sha256": self.digest,
            "data": self.data,
            "seeds": list(self.seeds),
        }
        return {**found, "sha256": digest_of(found)}

    def runs(self, where: Path) -> list[FinishedRun]:
        """What was stored, as the runs it came from. where : for messages."""
        return [FinishedRun(where, self.config, self.data, record) for record in self.seeds]

    @classmethod
    def of(cls, found: Record, where: str) -> Self:
        """From a file. where : for messages. Raises CheckpointError for one that is damaged or was
        changed by hand, ConfigurationError for a configuration that is none.
        """
        _require_keys(found, FILE, where)
        checked(found, FILE, where)
        for key, part in (
            ("configuration_sha256", found["configuration"]),
            ("sha256", {key: value for key, value in found.items() if key != "sha256"}),
        ):
            if found[key] != digest_of(part):
                raise CheckpointError(f"{where}: {key} is not that of what it holds; {REMEDY}")
        for place, record in enumerate(found["seeds"]):
            of_seed = f"{where}: seeds[{place}]"
            _require_keys(record, SEED, of_seed)
            checked(record, {**SEED, **OPTIONAL}, of_seed)
        numbers = [record["seed"] for record in found["seeds"]]
        if not numbers or numbers != sorted(set(numbers)):
            raise CheckpointError(f"{where}: seeds are {numbers}, expected each once, in order; {REMEDY}")
        load_config(found["configuration"])
        return cls(found["preset"], found["configuration"], found["data"], tuple(found["seeds"]))


def read_stored(path: Path) -> Stored | None:
    """The summary in that file; None if there is none. Raises as `Stored.of`."""
    found = read_table(path, FILE)
    return Stored.of(found, str(path)) if found else None


def write_stored(path: Path, content: Stored) -> None:
    """Write the file; it is the old one or the new one, never half."""
    write_aside(path, json.dumps(content.as_record(), indent=1, allow_nan=False).encode() + b"\n")


def finished_runs(roots: Iterable[Path]) -> tuple[list[FinishedRun], dict[Path, str]]:
    """(the finished runs at or below these folders, {folder: why it was left out}). Raises
    ConfigurationError for a folder that is none, and where no run is finished; as `RunFolder`
    for damaged runs.
    """
    kept: dict[Path, FinishedRun] = {}
    left: dict[Path, str] = {}
    for root in roots:
        if not root.is_dir():
            raise ConfigurationError(f"{root} is no folder; give the folder of a run, of a sweep or of several")
        for folder in run_folders(root):
            found = _finished_run(RunFolder(folder))
            if isinstance(found, str):
                left[folder] = found
            else:
                kept.setdefault(folder.resolve(), found)
    if not kept:
        why = "; ".join(f"{folder} {reason}" for folder, reason in left.items()) or "there are none below"
        raise ConfigurationError(f"{', '.join(map(str, roots))}: no finished runs ({why})")
    return list(kept.values()), left


def seed_record(files: RunFolder) -> Record:
    """What is kept of a run: the errors of its best epoch (by validation error) and its training
    error at the last, in percent; unconverged samples, summed over epochs, in training and in
    evaluation; outputs that were dead, units that were stuck and the loop's angles at the end; the
    errors of exits and the spikes of units at the best epoch; minutes of training; where and with
    which commit it ran.

    raw : the errors of the best epoch that have that name in front (those of weights that are not
        averaged). threads : the most of BLAS and the kernels.
    """
    metrics, environment = files.metrics(), files.environment()
    best, last = best_of(metrics) or {}, metrics[-1]
    raw = {key.removeprefix(RAW): value for key, value in best.items() if key.startswith(RAW)}
    judged = ("valid_unconverged", "test_unconverged")
    return {
        "seed": environment.get("seed"),
        "run": environment.get("identity"),
        "commits": commits_of(environment),
        "started": environment.get("started"),
        "epochs": len(metrics),
        "best_epoch": best["epoch"],
        **{key: best.get(key) for key in ERRORS},
        "last_train_error": last.get("train_error"),
        **({"raw": raw} if raw else {}),
        "unconverged": sum(record.get("unconverged") or 0 for record in metrics),
        "evaluated_unconverged": sum(record.get(key) or 0 for record in metrics for key in judged),
        "dead_outputs": last.get("dead_outputs", []),
        **{key: best[key] for key in ("exit_errors", "spikes") if best.get(key)},
        **({"stuck_units": last["stuck_units"]} if last.get("stuck_units") else {}),
        "alignment_degrees": last.get("alignment_degrees") or {},
        "minutes": sum(record.get("seconds", 0.0) for record in metrics) / 60,
        "threads": max(environment.get("threads", {}).values(), default=None),
        **{key: environment.get(key) for key in ("processes", "cores", "backend", "cpu")},
        "versions": environment.get("versions", {}),
    }


def extended(
    stored: Stored | None, preset: str, runs: Sequence[FinishedRun], *, replacing: bool = False
) -> tuple[Stored, dict[Path, str]]:
    """(the summary with these runs in it, {folder: why it was left out}). A seed that is stored
    stays, unless `replacing` lets its new run take its place. stored : None begins one.

    Raises ConfigurationError for a run of another configuration or of other data, and for two runs
    of one seed.
    """
    first = stored or Stored(preset, configuration_of(runs[0].config), runs[0].data)
    seeds, left = {record["seed"]: record for record in first.seeds}, {}
    given: dict[int, Path] = {}
    for run in runs:
        require_same(first, run, "what is stored" if stored else str(runs[0].folder))
        seed = run.record["seed"]
        if seed in given:
            raise ConfigurationError(f"{given[seed]} and {run.folder} are both of seed {seed}; give one of them")
        given[seed] = run.folder
        known = seeds.get(seed)
        if known is None or replacing or known["run"] == run.record["run"]:
            seeds[seed] = run.record
        else:
            left[run.folder] = f"seed {seed} is stored, of commit {', '.join(known['commits'])}"
    return replace(first, seeds=tuple(seeds[seed] for seed in sorted(seeds))), left


def require_same(stored: Stored, run: FinishedRun, what: str) -> None:
    """Raises ConfigurationError, with what differs, for a run that does not belong to the summary.
    what : of which the summary is, for the message.
    """
    differing = experiment_differences(stored.config, run.config)
    differing |= {
        f"data {name}": (stored.data.get(name), run.data.get(name))
        for name in sorted({*stored.data, *run.data})
        if stored.data.get(name) != run.data.get(name)
    }
    if differing:
        raise ConfigurationError(
            f"{run.folder} is of another experiment than {what}: {format_differences(differing)}; leave it out"
        )


def experiment_differences(here: Config, there: Config) -> dict[str, tuple[Any, Any]]:
    """{dotted key: (here, there)} of all that decides a result but the seed."""
    return {key: pair for key, pair in here.differences(there, epochs=True).items() if key != "seed"}


def nearest_preset(config: Config) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """(the preset from which it differs least, {dotted key: (preset, here)}): in no key of the data
    or the network rather than in few.
    """
    found = {name: experiment_differences(load_config(name)[1], config) for name in presets()}
    decisive = {name: sum(key.startswith(("data.", "network.")) for key in found[name]) for name in found}
    name = min(found, key=lambda each: (decisive[each], len(found[each])))
    return name, found[name]


def configuration_of(config: Config) -> Record:
    """The part of a configuration that is stored, as JSON holds it."""
    table = config.table(exclude_none=True, exclude={"seed", "notes", "probes"})
    found: Record = plain(table)
    return found


def command_of(preset: str, config: Config, seeds: Sequence[int]) -> str:
    """The command that runs that configuration with these seeds, as changes of the preset.

    >>> command_of("digits", load_config("digits", {"learning.beta": 0.5})[1], [0, 1, 2])
    'fsp sweep digits --learning.beta 0.5 --seeds 3'
    """
    differing = experiment_differences(load_config(preset)[1], config)
    changes = [f"--{key} {shlex.quote(shown_value(value))}" for key, (_, value) in differing.items()]
    first = list(seeds) == list(range(len(seeds)))
    listed = str(len(seeds)) if first else ",".join(map(str, seeds)) + "," * (len(seeds) == 1)
    return " ".join(["fsp sweep", preset, *changes, f"--seeds {listed}"])


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of a table as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _finished_run(files: RunFolder) -> FinishedRun | str:
    """The run, or why it cannot be stored."""
    config, environment, summary = files.config(), files.environment(), files.summary()
    done, asked = summary.get("epochs", 0), config.learning.epochs
    early = summary.get("status") == FINISHED[1]
    if summary.get("status") not in FINISHED or (done != asked and not early):
        return f"is not finished (epoch {len(files.metrics())} of {asked})"
    changed = [again["allowed"] for again in environment.get("resumed", []) if again.get("allowed")]
    if changed:
        return f"was changed while it ran ({', '.join(key for each in changed for key in each)})"
    missing = [key for key in ("identity", "data", "cpu") if not environment.get(key)]
    if missing:
        return f"does not say on what it ran ({', '.join(missing)} in environment.json)"
    return FinishedRun(files.path, config, environment["data"], plain(seed_record(files)))


def _require_keys(found: Record, keys: Iterable[str], where: str) -> None:
    missing = [key for key in keys if key not in found]
    if missing:
        raise CheckpointError(f"{where}: {missing[0]} is missing; {REMEDY}")
