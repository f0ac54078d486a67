"""States on disk: written aside and renamed, named by their content, bound to their run, verified
when they are read.

A checkpoint is a payload (safetensors) and a manifest (JSON) that names it and holds its SHA-256.
The payload is written first, under a name of its own; renaming the manifest into place is what
makes the checkpoint. Until then the previous one is whole, after it the new one is. `last` and
`best` may name one payload. `unfinished` is a state within the epoch after `last`; when that epoch
is complete it is removed, the manifest first. Networks that are kept for good, `kept-00003` after
epoch 3, have each a payload of their own, which holds the network and nothing else; pruning does
not touch them.

The payload holds `TrainingState.arrays`, the manifest `TrainingState.values` (the random stream
under "rng", all else under "values"), its own name, and the run that it belongs to (`binding`).
Formats 1 and 2 were bound to no run; they are read as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import CheckpointError
from fsp_dynamics.experiments import former_names
from fsp_dynamics.experiments.binding import DIGEST, Binding
from fsp_dynamics.experiments.payload import check_arrays, read_payload, write_payload
from fsp_dynamics.experiments.trainer import TrainingState
from fsp_dynamics.reading import MEGABYTE, is_there, parse_json, read_file
from fsp_dynamics.writing import sync_folder, write_aside

FORMAT = 3
UNBOUND = (1, 2)
"""Formats whose manifests do not say to which run they belong."""
NAMES = ("last", "best")
UNFINISHED = "unfinished"
"""The name of a state within an epoch, the one after `last`."""
KEPT = re.compile(r"kept-(\d+)(-.*)?\.(json|safetensors)")
PAYLOAD = re.compile(r"(epoch|kept)-(\d{5,10})-([0-9a-f]{12})\.safetensors")
LONGEST = 16 * MEGABYTE  # manifest, in bytes
LATEST = 10**9  # epoch
NOBODY = Binding()
_KEYS = ("format", "name", "epoch", "payload", "bytes", "sha256", "rng", "values", "run")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was read and verified.

    values : of the state. run : what it is bound to; None in formats that were not. names : of its
    arrays are those of `format`.
    """

    path: Path
    format: int
    epoch: int
    payload: str
    bytes: int
    sha256: str
    values: dict[str, Any]
    run: Binding | None


def save_checkpoint(
    folder: Path, state: TrainingState, names: Sequence[str] = ("last",), run: Binding = NOBODY
) -> None:
    """Make `state` the checkpoint called by each of `names`, in that order, and drop payloads that
    no manifest names any more; one at the end of an epoch ends `unfinished` too. run : to which it
    belongs.

    Raises NotFiniteError for NaN, infinity and numbers beyond `payload.LARGEST`, before anything is
    written, and OSError if the disk refuses; what was there then stays valid.
    """
    manifest = _write_payload(folder, "epoch", state, run)
    for name in names:
        _write_manifest(folder, name, manifest)
    if UNFINISHED not in names:
        (folder / f"{UNFINISHED}.json").unlink(missing_ok=True)
    _prune(folder)


def tidy(folder: Path) -> None:
    """Remove what a process left that was killed while it saved: an unfinished epoch that has been
    finished since, payloads that no manifest names. Raises CheckpointError for a damaged manifest.
    """
    if latest(folder) != UNFINISHED:
        (folder / f"{UNFINISHED}.json").unlink(missing_ok=True)
    _prune(folder)


def latest(folder: Path) -> str:
    """The name of the checkpoint from which a run goes on: `last`, or `unfinished` where the epoch
    after it was begun. Raises CheckpointError for manifests that do not belong together.
    """
    if not has_checkpoint(folder, UNFINISHED):
        return "last"
    finished, begun = (read_manifest(folder, name).epoch for name in ("last", UNFINISHED))
    if begun > finished:
        raise CheckpointError(
            f"{folder / 'last.json'} is that of epoch {finished}, but {UNFINISHED}.json goes on after epoch {begun}: "
            "one of them is of another time or run; restore what belongs together, or train again into another folder"
        )
    return UNFINISHED if begun == finished else "last"  # one of before has been finished since


def keep_network(folder: Path, state: TrainingState, run: Binding = NOBODY) -> None:
    """Keep the network of a state for good. Raises as `save_checkpoint` does."""
    _write_manifest(folder, kept_name(state.epoch), _write_payload(folder, "kept", state.network(), run))


def save_first(folder: Path, state: TrainingState, run: Binding = NOBODY, *, keep: bool = False) -> None:
    """Make the folder of checkpoints with `state` as the last, and kept too if so asked: all of it
    or nothing. Raises as `save_checkpoint`, and OSError where the folder holds anything.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        save_checkpoint(aside, state, run=run)
        if keep:
            keep_network(aside, state, run)
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def kept_epochs(folder: Path) -> tuple[int, ...]:
    """The epochs, in order, after which a network was kept; 0 is before the first."""
    return tuple(sorted(epoch for path, epoch in _kept_files(folder) if path.suffix == ".json"))


def require_kept(folder: Path, epoch: int) -> None:
    """Raises CheckpointError for an epoch whose network was not kept."""
    epochs = kept_epochs(folder)
    if epoch not in epochs:
        there = (
            f"there are those of {', '.join(map(str, epochs))}"
            if epochs
            else "none was kept; train with probes.keep = 1 or more to keep them"
        )
        raise CheckpointError(f"{folder} holds no network of epoch {epoch}; {there}")


def drop_kept(folder: Path, after: int) -> None:
    """Remove the networks kept later than epoch `after`, manifests first."""
    for path, epoch in sorted(_kept_files(folder), key=lambda file: file[0].suffix):
        if epoch > after:
            path.unlink(missing_ok=True)


def load_checkpoint(folder: Path, name: str = "last") -> TrainingState:
    """The state saved under that name, verified to the byte; to which run it belongs is not asked
    (`restoring.load_state`). Raises CheckpointError: missing, damaged, or of another format;
    NotFiniteError for numbers that no network can have; NotAFileError.
    """
    return load_state_of(read_manifest(folder, name))


def read_manifest(folder: Path, name: str = "last") -> Manifest:
    """The manifest of that name, verified. Raises as `load_checkpoint`."""
    path = folder / f"{name}.json"
    found = _verified(path)
    try:
        return _checked(path, found)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}: it is damaged; {_remedy(path.stem)}") from None


def load_state_of(manifest: Manifest) -> TrainingState:
    """The state that a manifest describes. Raises as `load_checkpoint`."""
    path, remedy = manifest.path.parent / manifest.payload, _remedy(manifest.path.stem)
    try:
        arrays, bound = read_payload(path, manifest.bytes, manifest.sha256, remedy)
    except FileNotFoundError:
        raise CheckpointError(f"the {manifest.path.stem} checkpoint is missing: no file {path}") from None
    if manifest.run is not None and bound != manifest.run.digest(manifest.epoch, manifest.values):
        raise CheckpointError(f"{path} belongs to another run or epoch than its manifest; {remedy}")
    check_arrays(arrays, f"; {remedy}", start=f"{path}: ")
    if manifest.format == 1:
        arrays = {former_names.array_name(key): array for key, array in arrays.items()}
    return TrainingState(manifest.epoch, arrays, manifest.values)


def _write_payload(folder: Path, kind: str, state: TrainingState, run: Binding) -> dict[str, Any]:
    """Write the arrays to a file that is named by kind, epoch and content; the manifest that
    describes it, but for its name.
    """
    when = f"in epoch {state.epoch + 1}" if state.part("epoch") else f"after epoch {state.epoch}"
    check_arrays(state.arrays, f" {when}; it is not saved")
    values: dict[str, Any] = json.loads(json.dumps(state.values))
    payload = write_payload(state.arrays, run.digest(state.epoch, values))
    digest = hashlib.sha256(payload).hexdigest()
    file = f"{kind}-{state.epoch:05d}-{digest[:12]}.safetensors"
    folder.mkdir(exist_ok=True)  # not the run's folder too, which may have been removed
    write_aside(folder / file, payload)
    return {
        "epoch": state.epoch,
        "payload": file,
        "bytes": len(payload),
        "sha256": digest,
        "rng": values.pop("rng", None),
        "values": values,
        "run": run.as_record(),
    }


def _write_manifest(folder: Path, name: str, manifest: dict[str, Any]) -> None:
    whole = {"format": FORMAT, "name": name, **manifest}
    whole["manifest_sha256"] = _digest(whole)
    write_aside(folder / f"{name}.json", _text(whole))


def has_checkpoint(folder: Path, name: str = "last") -> bool:
    """Whether anything stands under the name of that checkpoint, readable or not."""
    return is_there(folder / f"{name}.json")


def checkpoint_files(folder: Path) -> list[str]:
    """The names of all manifests and payloads in the folder, readable or not."""
    return sorted(path.name for path in folder.glob("*") if path.suffix in (".json", ".safetensors"))


def kept_name(epoch: int) -> str:
    """The name under which the network after that epoch is kept."""
    return f"kept-{epoch:05d}"


def _kept_files(folder: Path) -> list[tuple[Path, int]]:
    """(path, epoch) of the manifests and payloads of kept networks."""
    found = ((path, KEPT.fullmatch(path.name)) for path in folder.glob("kept-*"))
    return [(path, int(match[1])) for path, match in found if match]


def _prune(folder: Path) -> None:
    try:
        names = (name for name in (*NAMES, UNFINISHED) if has_checkpoint(folder, name))
        kept = {read_manifest(folder, name).payload for name in names}
    except (CheckpointError, OSError):
        return  # a damaged manifest may need any of the payloads: keep them all
    for path in folder.glob("epoch-*.safetensors"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _verified(path: Path) -> dict[str, Any]:
    """The content of a manifest that matches its own digest. Raises CheckpointError."""
    remedy = _remedy(path.stem)
    try:
        content = read_file(path, LONGEST, remedy=remedy)
    except FileNotFoundError:
        raise CheckpointError(f"the {path.stem} checkpoint is missing: no file {path}") from None
    try:
        found = parse_json(content)
        stated, number = found["manifest_sha256"], found["format"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path} is not the manifest of a checkpoint: it is damaged; {remedy}") from None
    del found["manifest_sha256"]
    if number == FORMAT and type(number) is int:
        whole = _text({**found, "manifest_sha256": _digest(found)}) == content
    else:
        whole = stated == _digest(found)
    if not whole:
        raise CheckpointError(f"{path} does not match its own SHA-256: it is damaged; {remedy}")
    if type(number) is not int or number not in (*UNBOUND, FORMAT):
        raise CheckpointError(
            f"{path} has format {number!r}, expected {', '.join(map(str, UNBOUND))} or {FORMAT}; "
            "use the version of fsp_dynamics that wrote it"
        )
    return dict(found)


def _checked(path: Path, found: dict[str, Any]) -> Manifest:
    """The manifest, each field of it what it must be. Raises ValueError."""
    number = found["format"]
    expected = {1: {"rng"}, 2: {"values"}}.get(number, set(_KEYS))
    missing = sorted(({"epoch", "payload", "bytes", "sha256"} | expected) - set(found))
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    epoch, file, size, digest = (found[key] for key in ("epoch", "payload", "bytes", "sha256"))
    if type(epoch) is not int or not 0 <= epoch <= LATEST:
        raise ValueError(f"epoch is {epoch!r}, expected a whole number from 0 to {LATEST}")
    if type(size) is not int or not 8 <= size <= 1 << 50:
        raise ValueError(f"bytes is {size!r}, expected a number of bytes")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ValueError(f"sha256 is {digest!r}, expected 64 hexadecimal digits")
    parts = PAYLOAD.fullmatch(file) if isinstance(file, str) else None
    if parts is None or int(parts[2]) != epoch or parts[3] != digest[:12]:
        raise ValueError(f"payload is {file!r}, expected the name of a file of epoch {epoch} beside the manifest")
    values, rng = found.get("values", {}), found.get("rng")
    if not isinstance(values, dict) or not isinstance(rng, dict | None):
        raise ValueError("values or rng is no table")
    if number in UNBOUND:
        return Manifest(path, number, epoch, file, size, digest, values if number == 2 else {"rng": rng}, None)
    if set(found) != set(_KEYS):
        raise ValueError(f"{sorted(set(found) - set(_KEYS))[0]} is no key of a manifest")
    if found["name"] != path.stem:
        raise ValueError(f"name is {found['name']!r}, expected {path.stem!r}")
    match = re.fullmatch(r"kept-(\d+)", path.stem)
    if match and int(match[1]) != epoch:
        raise ValueError(f"epoch is {epoch}, expected {int(match[1])}")
    whole = values if rng is None else {"rng": rng, **values}
    return Manifest(path, number, epoch, file, size, digest, whole, Binding.of(found["run"]))


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _text(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1).encode()


def _remedy(name: str) -> str:
    if name == UNFINISHED:
        return f"remove {UNFINISHED}.json to go on after the last finished epoch, or train again into another folder"
    if name not in NAMES:
        return "take the network of another epoch, or train again into another folder"
    other = "best" if name == "last" else "last"
    return f"try the {other} checkpoint (which={other!r}), or train again into another folder"
