"""The one place where a checkpoint of a run is loaded: it is taken only by the run that it belongs
to, and what differs is named.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fsp_dynamics.errors import CheckpointError, ConfigurationError, NotAFileError, nearest
from fsp_dynamics.experiments.binding import Binding, without
from fsp_dynamics.experiments.checkpoint import (
    FORMAT,
    NAMES,
    Manifest,
    kept_name,
    load_state_of,
    read_manifest,
    require_kept,
)
from fsp_dynamics.experiments.config import Config, fields, flatten, format_differences
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.records import METRICS, PROBES, best_of
from fsp_dynamics.experiments.trainer import TrainingState
from fsp_dynamics.reading import read_file

CONFIG = "config.toml"
CONFIG_LONGEST = 1 << 20


def load_state(
    files: RunFolder,
    which: str | int,
    config: Config,
    *,
    allow: Iterable[str] = (),
    note: Callable[[str], None] = warnings.warn,
) -> tuple[TrainingState, Manifest]:
    """The state of a checkpoint ("last", "best", "unfinished") or of a kept network (its epoch),
    with its manifest. Raises as `read_bound` and as `checkpoint.load_checkpoint`.
    """
    manifest, changed = read_bound(files, which, config, allow=allow, note=note)
    state = load_state_of(manifest)
    return TrainingState(state.epoch, state.arrays, state.values, changed), manifest


def read_bound(
    files: RunFolder,
    which: str | int,
    config: Config,
    *,
    allow: Iterable[str] = (),
    note: Callable[[str], None] = warnings.warn,
) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest of a checkpoint, and the keys of the configuration that differ and may.

    config : that of the run, now. allow : dotted keys of it that may differ from the one that the
    checkpoint was saved under. note : is told what is odd, and not refused.

    Raises CheckpointError where the checkpoint belongs to another run, other data or another
    configuration, and as `checkpoint.read_manifest`.
    """
    if files.checkpoints.is_symlink():
        raise NotAFileError(f"{files.checkpoints} is a link, expected a folder; put the folder itself in its place")
    if isinstance(which, int):
        require_kept(files.checkpoints, which)
    manifest = read_manifest(files.checkpoints, which if isinstance(which, str) else kept_name(which))
    environment = files.environment()
    if manifest.run is None:
        _check_unbound(files, manifest, environment, note)
        return manifest, ()
    changed = _check_bound(files, manifest, manifest.run, environment, config, {*allow})
    _note_edited(files, environment, manifest.run, note)
    _note_other_epoch(files, manifest, note)
    return manifest, changed


def check_allowed(allow: Iterable[str], kind: type[Config]) -> tuple[str, ...]:
    """The keys, if a configuration of that kind has them all. Raises ConfigurationError."""
    keys, known = tuple([allow] if isinstance(allow, str) else allow), fields(kind)
    for key in keys:
        if key not in known:
            raise ConfigurationError(f"allow = {key!r} is no key of a configuration; {nearest(str(key), known)}")
    return keys


def _check_unbound(files: RunFolder, manifest: Manifest, environment: Record, note: Callable[[str], None]) -> None:
    until = environment.get("unbound_until", -1) if "identity" in environment else manifest.epoch
    if manifest.epoch > until:
        raise CheckpointError(
            f"{manifest.path} has format {manifest.format}, expected {FORMAT}, in which {files.path} was begun: "
            "it belongs to another run; put its own one back"
        )
    note(
        f"{manifest.path} has format {manifest.format}, which names no run: configuration, data and records "
        "are read as they are now"
    )


def _check_bound(
    files: RunFolder, manifest: Manifest, run: Binding, environment: Record, config: Config, allow: set[str]
) -> tuple[str, ...]:
    """The keys that differ and may. Raises CheckpointError."""
    path, where = manifest.path, files.path / "environment.json"
    identity = environment.get("identity")
    if identity is None:
        raise CheckpointError(f"{where}: identity is missing, so {path} cannot be verified; restore it")
    differing = run.differences(config)
    if run.identity != identity:
        more = f" ({format_differences(differing)})" if differing else ""
        raise CheckpointError(
            f"{path} belongs to another run{more}: its identity is {run.identity[:12]}, that of {files.path} is "
            f"{identity[:12]}; put its own checkpoints back"
        )
    if run.data != environment.get("data", {}):
        keys = sorted(
            key
            for key in {*run.data, *environment.get("data", {})}
            if run.data.get(key) != environment.get("data", {}).get(key)
        )
        raise CheckpointError(f"{where}: data.{keys[0]} is not that of {path}; restore it")
    if set(run.records) != {METRICS, PROBES}:
        raise CheckpointError(f"{path}: run.records is not of {METRICS} and {PROBES}: it is damaged; restore it")
    recorded = _recorded(environment, manifest.epoch)
    refused = without({key: pair for key, pair in differing.items() if pair not in recorded.get(key, ())}, allow)
    if refused:
        raise CheckpointError(
            f"{files.path / CONFIG} is not the configuration that {path} was saved under: "
            f"{format_differences(refused)}; put it back, "
            f"or allow the change: train('{files.path}', resume=True, allow={[*refused]})"
        )
    return tuple(differing)


def _recorded(environment: Record, epoch: int) -> dict[str, list[tuple[Any, Any]]]:
    """{dotted key: [(value before, value now)]} of the changes that were allowed after that epoch
    or later.
    """
    found: dict[str, list[tuple[Any, Any]]] = {}
    for record in environment.get("resumed", []):
        allowed = record.get("allowed", {})
        if not isinstance(allowed, Mapping) or not isinstance(record.get("epoch"), int) or record["epoch"] < epoch:
            continue
        for key, pair in allowed.items():
            if isinstance(pair, list) and len(pair) == 2:
                # two changes of one key are one from the first value to the last
                before = [first for first, last in found.get(key, []) if last == pair[0]]
                found.setdefault(key, []).extend((first, pair[1]) for first in [pair[0], *before])
    return found


def _note_edited(files: RunFolder, environment: Record, run: Binding, note: Callable[[str], None]) -> None:
    """Tell that config.toml has other bytes than the run has written."""
    path, written = files.path / CONFIG, environment.get("config_sha256")
    if written is None or hashlib.sha256(read_file(path, CONFIG_LONGEST)).hexdigest() == written:
        return
    before, now = (flatten(each.of_run().table()) for each in (run.restored(), files.config()))
    differing = {key: (before.get(key), now.get(key)) for key in {**before, **now} if before.get(key) != now.get(key)}
    what = format_differences(differing) if differing else "its values are the same"
    note(f"{path} was edited since the run wrote it: {what}")


def _note_other_epoch(files: RunFolder, manifest: Manifest, note: Callable[[str], None]) -> None:
    """Tell that the last or best checkpoint is not of the epoch that the metrics give: a copy of
    another time. A run that was killed, or trains now, may be an epoch ahead in either.
    """
    name, metrics = manifest.path.stem, files.metrics()
    if name not in NAMES:
        return
    here, before = (_epoch_of(name, found) for found in (metrics, metrics[:-1]))
    right = {here, before, *([len(metrics) + 1] if name == "best" else [])}
    if manifest.epoch not in right:
        note(
            f"{manifest.path} is of epoch {manifest.epoch}, but the {name} of {files.path / METRICS} is epoch {here}: "
            "it is a copy of another time"
        )


def _epoch_of(name: str, metrics: list[Record]) -> int:
    """The epoch of that checkpoint by the metrics; 0 before the first."""
    found = best_of(metrics) if name == "best" else metrics[-1] if metrics else None
    return int(found["epoch"]) if found else 0
