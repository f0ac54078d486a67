"""A run folder: its lock, its files, its metrics.

    config.toml         the resolved configuration
    environment.json    identity, versions, commit, seed, CPU, threads, SHA-256 of data and
                        configuration; `resumed` holds what differed later
    metrics.jsonl       one object for each epoch
    probes.jsonl        what was measured of the network: before the first epoch, after each, and
                        within them where that was asked for
    summary.json        best epoch (by validation error) and last
    checkpoints/        last, best, the networks that were to be kept (probes.keep), and while an
                        epoch lasts, unfinished
    figures/            drawn while it runs and when it ends (pictures.py)

Every file but the .jsonl ones is written aside and renamed; those only grow. What is read was
perhaps changed by others: it is checked (records.py), and never more of it is read than a limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics import locks
from fsp_dynamics.errors import CheckpointError, ConfigurationError, NotAFileError, RunExistsError, RunLockedError
from fsp_dynamics.experiments import former_names, records
from fsp_dynamics.experiments.binding import Binding, new_identity
from fsp_dynamics.experiments.checkpoint import checkpoint_files, drop_kept, read_manifest, tidy
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.config_io import load_config, to_toml
from fsp_dynamics.experiments.records import METRICS, PROBES, Record
from fsp_dynamics.reading import is_there, open_file, read_file
from fsp_dynamics.writing import append, remove_aside, write_aside


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
        if is_there(self.path / ".lock"):
            with self.locked():
                pass
        self.refuse_run()

    def refuse_run(self) -> None:
        """Raises RunExistsError if a run is already here, or what is left of one."""
        if self.holds_run():
            raise RunExistsError(
                f"{self.path} already holds a run; resume it (resume=True) or give another folder (out=...)"
            )
        left = [f"checkpoints/{name}" for name in checkpoint_files(self.checkpoints)]
        left += [name for name in (METRICS, PROBES) if records.mark(self.path / name)[0]]
        if is_there(self.path / "config.toml") or left:
            what = "its config.toml is no file" if not left else f"{', '.join(left[:3])}, but no config.toml"
            raise RunExistsError(
                f"{self.path} holds what is left of a run: {what}; restore it, or give another folder (out=...)"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone; it is made if need be. Raises RunLockedError if
        another process holds it, NotAFileError where its lock leads elsewhere.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / ".lock"
        with open_file(path, flags=os.O_RDWR | os.O_CREAT | os.O_APPEND, mode="ab+") as file:
            if os.fstat(file.fileno()).st_nlink > 1:
                raise NotAFileError(f"{path} is a second name of another file, expected a file; remove it")
            taken = locks.take(file.fileno())
            if taken is False:
                file.seek(0)
                owner = file.read(200).decode(errors="replace").strip() or "another process"
                raise RunLockedError(
                    f"{self.path} is being written by {owner}; wait for it or give another folder (out=...)"
                )
            if taken is None:
                warnings.warn(
                    f"{self.path}: there are no locks here (the file system or the operating system has none), so "
                    "nothing keeps a second process from writing to this run; start one at a time",
                    UserWarning,
                    stacklevel=2,
                )
            self._refuse_link()
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            file.flush()
            yield

    def _refuse_link(self) -> None:
        """Raises NotAFileError where files would be written, and old ones removed, elsewhere."""
        for folder in (self.checkpoints, self.figures):
            if folder.is_symlink():
                raise NotAFileError(f"{folder} is a link, expected a folder; put the folder itself in its place")

    def begin(self, config: Config, environment: Record) -> None:
        """Write the first files; the configuration last, since it makes the folder a run."""
        self._clean()
        for name in (METRICS, PROBES):
            write_aside(self.path / name, b"")
        self.adopt(config, environment)

    def config(self) -> Config:
        """The run's configuration. Raises ConfigurationError for a file that is none, NotAFileError
        for a link.
        """
        path = self.path / "config.toml"
        if path.is_symlink():
            raise NotAFileError(f"{path} is a link, expected a file; put the file itself in its place")
        return load_config(path)[1]

    def adopt(self, config: Config, environment: Record) -> None:
        """Go on under this configuration; a folder without identity is given one."""
        text = to_toml(config).encode()
        environment = {"identity": new_identity(), **environment, "config_sha256": hashlib.sha256(text).hexdigest()}
        self.write_json("environment.json", environment)
        write_aside(self.path / "config.toml", text)

    def metrics(self) -> list[Record]:
        """One record for each finished epoch. Raises CheckpointError for a damaged line, and for a
        file that is not as it was when the last checkpoint was saved.
        """
        return self._records(METRICS)

    def probes(self) -> list[Record]:
        """What was measured of the network, by `epoch` (0 before the first, fractions within one).
        Raises CheckpointError as `metrics`.
        """
        return self._records(PROBES)

    def _records(self, name: str) -> list[Record]:
        marked = self._marked(name)
        found = records.read_lines(self.path / name, epochs=name == METRICS)
        if marked is not None:
            records.require_marked(self.path / name, self._content(name), marked)
        return found

    def _marked(self, name: str) -> list[Any] | None:
        """How the last checkpoint has a file of records; None where it does not say."""
        try:
            run = read_manifest(self.checkpoints).run
        except (CheckpointError, OSError):
            return None  # which is refused where the network is needed
        return None if run is None else run.records.get(name)

    def _content(self, name: str) -> bytes:
        try:
            return read_file(self.path / name, records.LONGEST)
        except FileNotFoundError:
            return b""

    def binding(self, config: Config) -> Binding:
        """What a checkpoint saved now is bound to. Raises CheckpointError for a folder without
        identity.
        """
        environment = self.environment()
        if "identity" not in environment:
            raise CheckpointError(f"{self.path / 'environment.json'}: identity is missing; {records.REMEDY}")
        marks = {name: records.mark(self.path / name) for name in (METRICS, PROBES)}
        return Binding.to(environment["identity"], config, environment.get("data", {}), marks)

    def append_metrics(self, record: Record) -> None:
        """One more line, on the disk when this returns."""
        self._append(METRICS, [record])

    def append_probes(self, found: list[Record]) -> None:
        """More lines, on the disk when this returns."""
        self._append(PROBES, found)

    def _append(self, name: str, found: list[Record]) -> None:
        append(self.path / name, records.lines(found))

    def rewind(self, epoch: int, marked: Record | None = None) -> list[Record]:
        """Drop the records after `epoch` (a killed process may have written more than its last
        checkpoint) and return the others. marked : the files of records as that checkpoint has
        them.
        """
        kept = [record for record in self.metrics() if record["epoch"] <= epoch]
        if len(kept) != epoch:
            raise CheckpointError(
                f"{self.path / METRICS} does not hold the {epoch} epochs of the checkpoint; restore it or train again"
            )
        probes = [record for record in self.probes() if record["epoch"] <= epoch]
        contents = {METRICS: records.lines(kept), PROBES: records.lines(probes)}
        for name, mark in (marked or {}).items():
            contents[name] = records.require_marked(self.path / name, self._content(name), mark)
        self._clean()
        drop_kept(self.checkpoints, epoch)
        tidy(self.checkpoints)
        for name, content in contents.items():
            write_aside(self.path / name, content)
        return kept

    def start_again(self) -> list[Record]:
        """Empty the records of a run that was stopped before its first checkpoint; there are none.
        Raises CheckpointError for a run whose checkpoints are lost: nothing of it is removed.
        """
        epochs, there = len(self.metrics()), checkpoint_files(self.checkpoints)
        if there or epochs > 1 or (is_there(self.checkpoints) and not self.checkpoints.is_dir()):
            holds = ", ".join([*there[:4], *(["..."] if len(there) > 4 else [])]) or "no checkpoint"
            raise CheckpointError(
                f"{self.path} has lost its last checkpoint: no file {self.checkpoints / 'last.json'}; there are "
                f"{holds} and {epochs} epochs in {METRICS}; restore it, or begin anew: train('{self.path}', out='NEW')"
            )
        self._clean()
        for name in (METRICS, PROBES):
            write_aside(self.path / name, b"")
        return []

    def read_json(self, name: str) -> Record:
        """A JSON file of the run, {} if there is none. Raises CheckpointError where it cannot be
        understood.
        """
        checks = {"environment.json": records.ENVIRONMENT, "summary.json": records.SUMMARY}
        return records.read_table(self.path / name, checks.get(name, {}))

    def environment(self) -> Record:
        """environment.json, as `read_json` reads it."""
        return self.read_json("environment.json")

    def summary(self, metrics: Sequence[Record] = ()) -> Record:
        """summary.json, as `read_json` reads it. Raises CheckpointError also where its epochs are
        not those of the metrics.
        """
        found, path = self.read_json("summary.json"), self.path / "summary.json"
        epochs = {
            key: records.checked(former_names.record(found[key]), records.FIELDS, f"{path}: {key}")
            for key in ("best", "last")
            if isinstance(found.get(key), dict)
        }
        for key, record in epochs.items():
            number = record.get("epoch", 0)
            known = type(number) is int and number >= 1
            if not known or (number <= len(metrics) and record != metrics[number - 1]):
                raise CheckpointError(f"{path}: {key} is not that epoch of {METRICS}; {records.REMEDY}")
        return {**found, **epochs}

    def write_json(self, name: str, content: Record) -> None:
        write_aside(self.path / name, json.dumps(records.plain(content), indent=2, allow_nan=False).encode() + b"\n")

    def _clean(self) -> None:
        for folder in (self.path, self.checkpoints, self.figures):
            remove_aside(folder)


def run_folders(root: Path) -> list[Path]:
    """The folders of the runs at or below `root`, by path; a config.toml of another program makes
    none.
    """
    return sorted(path.parent for path in root.rglob("config.toml") if (path.parent / "environment.json").is_file())


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

    def adopt(self, config: Config, environment: Record) -> None:
        pass

    def write_json(self, name: str, content: Record) -> None:
        pass

    def rewind(self, epoch: int, marked: Record | None = None) -> list[Record]:
        return [record for record in self.metrics() if record["epoch"] <= epoch]

    def start_again(self) -> list[Record]:
        return []

    def _append(self, name: str, found: list[Record]) -> None:
        pass
