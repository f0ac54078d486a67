"""States on disk: written aside and renamed, named by their content, verified when they are read.

A checkpoint is a payload (safetensors) and a manifest (JSON) that names it and holds its SHA-256.
The payload is written first, under a name of its own; renaming the manifest into place is what
makes the checkpoint. Until then the previous one is whole, after it the new one is. `last` and
`best` may name one payload. Networks that are kept for good, `kept-00003` after epoch 3, have each
a payload of their own, which holds the network and nothing else; pruning does not touch them.

The payload holds `TrainingState.arrays`, the manifest `TrainingState.values`. Format 1 had the
random stream alone in its manifest, under "rng"; it is read as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from fsp_dynamics.errors import CheckpointError, NotFiniteError
from fsp_dynamics.experiments import former_names
from fsp_dynamics.experiments.trainer import TrainingState
from fsp_dynamics.writing import write_aside

FORMAT = 2
NAMES = ("last", "best")
KEPT = re.compile(r"kept-(\d+)(-.*)?\.(json|safetensors)")


def save_checkpoint(folder: Path, state: TrainingState, names: Sequence[str] = ("last",)) -> None:
    """Make `state` the checkpoint called by each of `names`, in that order, and drop payloads that
    no manifest names any more.

    Raises NotFiniteError for NaN or infinity, before anything is written, and OSError if the disk
    refuses; what was there then stays valid.
    """
    manifest = _write_payload(folder, "epoch", state)
    for name in names:
        write_aside(folder / f"{name}.json", manifest)
    _prune(folder)


def keep_network(folder: Path, state: TrainingState) -> None:
    """Keep the network of a state for good. Raises as `save_checkpoint` does."""
    manifest = _write_payload(folder, "kept", state.network())
    write_aside(folder / f"{_kept(state.epoch)}.json", manifest)


def kept_epochs(folder: Path) -> tuple[int, ...]:
    """The epochs, in order, after which a network was kept; 0 is before the first."""
    return tuple(sorted(epoch for path, epoch in _kept_files(folder) if path.suffix == ".json"))


def load_kept(folder: Path, epoch: int) -> TrainingState:
    """The network kept after `epoch`, verified as in `load_checkpoint`. Raises CheckpointError
    also for an epoch whose network was not kept.
    """
    epochs = kept_epochs(folder)
    if epoch not in epochs:
        there = (
            f"there are those of {', '.join(map(str, epochs))}"
            if epochs
            else "none was kept; train with probes.keep = 1 or more to keep them"
        )
        raise CheckpointError(f"{folder} holds no network of epoch {epoch}; {there}")
    return load_checkpoint(folder, _kept(epoch))


def drop_kept(folder: Path, after: int) -> None:
    """Remove the networks kept later than epoch `after`, manifests first."""
    for path, epoch in sorted(_kept_files(folder), key=lambda file: file[0].suffix):
        if epoch > after:
            path.unlink(missing_ok=True)


def _write_payload(folder: Path, kind: str, state: TrainingState) -> bytes:
    """Write the arrays to a file that is named by kind, epoch and content; the manifest that
    describes it.
    """
    for name, array in state.arrays.items():
        if not np.isfinite(array).all():
            raise NotFiniteError(f"{name} is not finite after epoch {state.epoch}; it is not saved")
    payload = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in state.arrays.items()})
    digest = hashlib.sha256(payload).hexdigest()
    file = f"{kind}-{state.epoch:05d}-{digest[:12]}.safetensors"
    manifest = {
        "format": FORMAT,
        "epoch": state.epoch,
        "payload": file,
        "bytes": len(payload),
        "sha256": digest,
        "values": state.values,
    }
    manifest["manifest_sha256"] = _digest(manifest)
    folder.mkdir(parents=True, exist_ok=True)
    write_aside(folder / file, payload)
    return json.dumps(manifest, indent=1).encode()


def load_checkpoint(folder: Path, name: str = "last") -> TrainingState:
    """The state saved under that name, verified to the byte. Raises CheckpointError: missing,
    damaged, or of another format.
    """
    manifest = _read_manifest(folder / f"{name}.json")
    path = folder / str(manifest["payload"])
    payload = _read(path, f"the {name} checkpoint")
    if len(payload) != manifest["bytes"]:
        raise CheckpointError(
            f"{path} has {len(payload)} bytes, expected {manifest['bytes']} as in its manifest: "
            f"it is damaged; {_remedy(name)}"
        )
    digest = hashlib.sha256(payload).hexdigest()
    if digest != manifest["sha256"]:
        raise CheckpointError(
            f"{path} has SHA-256 {digest[:12]}..., expected {manifest['sha256'][:12]}... as in its manifest: "
            f"it is damaged; {_remedy(name)}"
        )
    arrays = safetensors.numpy.load(payload)
    if manifest["format"] == 1:
        arrays = {former_names.array_name(key): array for key, array in arrays.items()}
        return TrainingState(manifest["epoch"], arrays, {"rng": manifest["rng"]})
    return TrainingState(manifest["epoch"], arrays, manifest["values"])


def has_checkpoint(folder: Path, name: str = "last") -> bool:
    """Whether a checkpoint of that name was ever completed."""
    return (folder / f"{name}.json").is_file()


def _kept(epoch: int) -> str:
    return f"kept-{epoch:05d}"


def _kept_files(folder: Path) -> list[tuple[Path, int]]:
    """(path, epoch) of the manifests and payloads of kept networks."""
    found = ((path, KEPT.fullmatch(path.name)) for path in folder.glob("kept-*"))
    return [(path, int(match[1])) for path, match in found if match]


def _prune(folder: Path) -> None:
    try:
        kept = {_read_manifest(folder / f"{name}.json")["payload"] for name in NAMES if has_checkpoint(folder, name)}
    except CheckpointError:
        return  # a damaged manifest may need any of the payloads: keep them all
    for path in folder.glob("epoch-*.safetensors"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _read_manifest(path: Path) -> dict[str, Any]:
    content = _read(path, f"the {path.stem} checkpoint")
    try:
        manifest = json.loads(content)
        stated = manifest.pop("manifest_sha256")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise CheckpointError(
            f"{path} is not the manifest of a checkpoint: it is damaged; {_remedy(path.stem)}"
        ) from None
    if stated != _digest(manifest):
        raise CheckpointError(f"{path} does not match its own SHA-256: it is damaged; {_remedy(path.stem)}")
    if manifest["format"] not in (1, FORMAT):
        raise CheckpointError(
            f"{path} has format {manifest['format']}, expected 1 or {FORMAT}; "
            "use the version of fsp_dynamics that wrote it"
        )
    return dict(manifest)


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{what} is missing: no file {path}") from None


def _remedy(name: str) -> str:
    if name not in NAMES:
        return "take the network of another epoch, or train again into another folder"
    other = "best" if name == "last" else "last"
    return f"try the {other} checkpoint (which={other!r}), or train again into another folder"
