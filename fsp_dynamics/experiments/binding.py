"""To which run a checkpoint belongs: its identity, configuration, data and records.

The manifest of a checkpoint holds all four; its payload holds a digest of all but the identity and
the records, so that two runs of one experiment have equal payloads.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from fsp_dynamics.errors import CheckpointError, FspError
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.records import Record

DIGEST = re.compile(r"[0-9a-f]{64}")
ELSEWHERE = "data.path"
"""Where images lie may change; which they are is bound by their digests."""


def new_identity() -> str:
    """The identity of a new run folder, which no other has."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Binding:
    """What a checkpoint is bound to.

    identity : of the run folder (`new_identity`). config : the whole configuration, as a table.
    data : `Dataset.fingerprint` of the images. records : {file: [bytes, SHA-256]} of the files of
        records as they were.
    """

    identity: str = ""
    config: Record = field(default_factory=dict)
    data: Record = field(default_factory=dict)
    records: Record = field(default_factory=dict)

    @classmethod
    def to(cls, identity: str, config: Config, data: Record, records: Record) -> Self:
        """The binding to a run with that configuration."""
        return cls(identity, as_json(config.table(exclude_none=True)), dict(data), records)

    def as_record(self) -> Record:
        """As a manifest holds it."""
        return {"identity": self.identity, "config": self.config, "data": self.data, "records": self.records}

    @classmethod
    def of(cls, found: Any) -> Self:
        """From a manifest. Raises ValueError naming the field that is wrong."""
        keys = ("identity", "config", "data", "records")
        if not isinstance(found, dict) or set(found) != set(keys):
            raise ValueError(f"run holds {sorted(found) if isinstance(found, dict) else found!r}, expected {keys}")
        if not isinstance(found["identity"], str):
            raise ValueError(f"run.identity is {found['identity']!r}, expected a text")
        for key in keys[1:]:
            if not isinstance(found[key], dict):
                raise ValueError(f"run.{key} is {found[key]!r}, expected a table")
        for key, mark in found["records"].items():
            whole = isinstance(mark, list) and len(mark) == 2 and type(mark[0]) is int and mark[0] >= 0
            if not whole or not isinstance(mark[1], str) or not DIGEST.fullmatch(mark[1]):
                raise ValueError(f"run.records.{key} is {mark!r}, expected bytes and a SHA-256")
        return cls(*(found[key] for key in keys))

    def digest(self, epoch: int, values: Record) -> str:
        """SHA-256 of the experiment, the data, the epoch and the values of a state: what a payload
        is bound to.
        """
        experiment = copy.deepcopy(self.config)
        for section, key in (("notes", None), ("probes", None), ("learning", "epochs"), ("data", "path")):
            if key is None:
                experiment.pop(section, None)
            elif isinstance(experiment.get(section), dict):
                experiment[section].pop(key, None)
        text = json.dumps([experiment, self.data, epoch, values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, config: Config) -> dict[str, tuple[Any, Any]]:
        """{dotted key: (bound, in `config`)} wherever the experiments differ. Raises
        CheckpointError for a configuration that cannot be understood.
        """
        found = self.restored().differences(config)
        return {key: pair for key, pair in found.items() if key != ELSEWHERE}

    def restored(self) -> Config:
        """The bound configuration. Raises CheckpointError where it cannot be understood."""
        try:
            return load_config(self.config)[1]
        except FspError as error:
            raise CheckpointError(f"the configuration in the manifest cannot be understood ({error})") from None


def without(differing: dict[str, tuple[Any, Any]], allowed: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """The differences that are not allowed."""
    names = set(allowed)
    return {key: pair for key, pair in differing.items() if key not in names}


def as_json(value: Any) -> Any:
    """The value as it comes back from JSON: tuples as lists."""
    if isinstance(value, dict):
        return {str(key): as_json(each) for key, each in value.items()}
    return [as_json(each) for each in value] if isinstance(value, (list, tuple)) else value
