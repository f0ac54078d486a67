"""A run folder: its lock, its files, its metrics.

    config.toml         the resolved configuration
    environment.json    versions, commit, seed, CPU, threads; `resumed` holds what differed later
    metrics.jsonl       one object for each epoch
    probes.jsonl        what was measured of the network: before the first epoch, after each, and
                        within them where that was asked for
    summary.json        best epoch (by validation error) and last
    checkpoints/        last, best, and the networks that were to be kept (probes.keep)
    figures/            drawn while it runs and when it ends

Every file but the .jsonl ones is written aside and renamed; those only grow.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import CheckpointError, ConfigurationError, RunExistsError, RunLockedError
from fsp_dynamics.experiments import former_names
from fsp_dynamics.experiments.checkpoint import drop_kept
from fsp_dynamics.experiments.config import Config, flatten
from fsp_dynamics.experiments.config_io import load_config, to_toml
from fsp_dynamics.writing import append, remove_aside, write_aside

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run, below `path`."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def holds_run(self) -> bool:
        """Whether a run was ever begun here."""
        return (self.path / "config.toml").is_file()

    def require_run(self) -> RunFolder:
        """This folder, if it holds a run. Raises ConfigurationError otherwise."""
        if not self.holds_run():
            what = "holds no run (no config.toml)" if self.path.is_dir() else "is no folder"
            raise ConfigurationError(f"{self.path} {what}; give the folder of a run")
        return self

    def refuse_occupied(self) -> None:
        """Raises RunLockedError if another process writes here, RunExistsError if a run is already
        here.
        """
        if (self.path / ".lock").exists():
            with self.locked():
                pass
        self.refuse_run()

    def refuse_run(self) -> None:
        """Raises RunExistsError if a run is already here."""
        if self.holds_run():
            raise RunExistsError(
                f"{self.path} already holds a run; resume it (resume=True) or give another folder (out=...)"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone; it is made if need be. Raises RunLockedError if
        another process holds it.
        """
        import fcntl

        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise RunLockedError(
                    f"{self.path} is being written by {owner}; wait for it or give another folder (out=...)"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

    def begin(self, config: Config, environment: Record) -> None:
        """Write the first files; the configuration last, since it makes the folder a run."""
        self._clean()
        self.write_json("environment.json", environment)
        for name in ("metrics.jsonl", "probes.jsonl"):
            write_aside(self.path / name, b"")
        self.write_config(config)

    def config(self) -> Config:
        """The run's configuration. Raises ConfigurationError for a file that is none."""
        return load_config(self.path / "config.toml")[1]

    def write_config(self, config: Config) -> None:
        write_aside(self.path / "config.toml", to_toml(config).encode())

    def metrics(self) -> list[Record]:
        """One record for each finished epoch. Raises CheckpointError for a damaged line."""
        return self._records("metrics.jsonl")

    def probes(self) -> list[Record]:
        """What was measured of the network, by `epoch` (0 before the first, fractions within one).
        Raises CheckpointError as `metrics`.
        """
        return self._records("probes.jsonl")

    def _records(self, name: str) -> list[Record]:
        path = self.path / name
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        records: list[Record] = []
        # what follows the last line end was cut short
        for number, line in enumerate(lines[:-1], 1):
            try:
                record = json.loads(line)
                record["epoch"]
            except (ValueError, KeyError, TypeError):
                raise CheckpointError(
                    f"{path}:{number} is no record of an epoch; the file is damaged, restore it or train again"
                ) from None
            records.append(former_names.record(record))
        return records

    def append_metrics(self, record: Record) -> None:
        """One more line, on the disk when this returns."""
        self._append("metrics.jsonl", [record])

    def append_probes(self, records: list[Record]) -> None:
        """More lines, on the disk when this returns."""
        self._append("probes.jsonl", records)

    def _append(self, name: str, records: list[Record]) -> None:
        append(self.path / name, _lines(records))

    def rewind(self, epoch: int) -> list[Record]:
        """Drop the records after `epoch` (a killed process may have written more than its last
        checkpoint) and return the others.
        """
        self._clean()
        kept = [record for record in self.metrics() if record["epoch"] <= epoch]
        if [record["epoch"] for record in kept] != list(range(1, epoch + 1)):
            raise CheckpointError(
                f"{self.path / 'metrics.jsonl'} does not hold the {epoch} epochs of the checkpoint; "
                "restore it or train again"
            )
        drop_kept(self.checkpoints, epoch)
        write_aside(self.path / "metrics.jsonl", _lines(kept))
        write_aside(
            self.path / "probes.jsonl", _lines([record for record in self.probes() if record["epoch"] <= epoch])
        )
        return kept

    def read_json(self, name: str) -> Record:
        """A JSON file of the run, {} if there is none or it cannot be understood: nothing depends
        on it.
        """
        try:
            found = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def summary(self) -> Record:
        """summary.json, as `read_json` reads it."""
        found = self.read_json("summary.json")
        epochs = {key: former_names.record(found[key]) for key in ("best", "last") if isinstance(found.get(key), dict)}
        return {**found, **epochs}

    def write_json(self, name: str, content: Record) -> None:
        write_aside(self.path / name, json.dumps(plain(content), indent=2, allow_nan=False).encode() + b"\n")

    def _clean(self) -> None:
        for folder in (self.path, self.checkpoints, self.figures):
            remove_aside(folder)


class ObservedFolder(RunFolder):
    """The folder of a run that another rank writes: it is read, and methods that would change it do
    nothing.
    """

    __slots__ = ()

    def refuse_run(self) -> None:
        pass

    def refuse_occupied(self) -> None:
        pass

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def begin(self, config: Config, environment: Record) -> None:
        pass

    def write_config(self, config: Config) -> None:
        pass

    def write_json(self, name: str, content: Record) -> None:
        pass

    def rewind(self, epoch: int) -> list[Record]:
        return [record for record in self.metrics() if record["epoch"] <= epoch]

    def _append(self, name: str, records: list[Record]) -> None:
        pass


def _lines(records: list[Record]) -> bytes:
    return b"".join(json.dumps(plain(record), allow_nan=False).encode() + b"\n" for record in records)


def best_of(metrics: list[Record]) -> Record | None:
    """The epoch with the lowest validation error (the first of equals); the last one where there
    are no validation images.
    """
    judged = [record for record in metrics if record.get("valid_error") is not None]
    if judged:
        return min(judged, key=lambda record: record["valid_error"])
    return metrics[-1] if metrics else None


def flat(record: Record) -> Record:
    """The record as one row of a table: {dotted key: value}, items of lists by their index
    (saturation.output.0), dead outputs as one text.
    """
    row: Record = {}
    for key, value in flatten(record).items():
        if key == "dead_outputs":
            row[key] = " ".join(map(str, value))
        elif isinstance(value, list):
            row |= {f"{key}.{place}": item for place, item in enumerate(value)}
        else:
            row[key] = value
    return row


def plain(value: Any) -> Any:
    """The value as JSON can hold it: NumPy's numbers as Python's, arrays and tuples as lists,
    numbers that are not finite as null.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
