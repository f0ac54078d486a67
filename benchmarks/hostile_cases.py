"""Run folders changed from outside, each with the exit code that it must end with.

A case changes a copy of a finished run (`Bench`) as somebody, or a disk, might: edits that keep
every digest right, files of other runs, things that are no files. `CASES` lists them all; what a
command then does with the folder is measured in hostile.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from fsp_dynamics.experiments.binding import Binding
from fsp_dynamics.experiments.payload import write_payload

RESUME, EVALUATE, STABILITY, GRADIENTS, EXPLORE = "resume", "evaluate", "stability", "gradients", "explore"
LOADING = (RESUME, EVALUATE, STABILITY, GRADIENTS, EXPLORE)
OPENING = (RESUME, EVALUATE)
Change = Callable[["Bench"], None]


@dataclass(frozen=True)
class Case:
    """One changed folder. change : what is done to it. codes : exit codes that are right; 0 where
    what is odd is told (`noted`) or harmless (`same`: to the bits of the run that was left alone).
    commands : what is run on it. run : of which run it is a copy.
    """

    name: str
    change: Change
    codes: tuple[int, ...] = (5,)
    commands: tuple[str, ...] = OPENING
    words: tuple[str, ...] = ()
    noted: bool = False
    same: bool = False
    run: str = "loop"


@dataclass
class Bench:
    """A copy of a run in `folder`, and the other runs (`others`) to take files from. names : of the
    checkpoints whose arrays are changed.
    """

    folder: Path
    others: dict[str, Path] = field(default_factory=dict)
    names: tuple[str, ...] = ("last", "best")

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def manifest(self, name: str = "last") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.checkpoints / f"{name}.json").read_text())
        return found

    def payload(self, name: str = "last") -> Path:
        return self.checkpoints / self.manifest(name)["payload"]

    def write_manifest(self, found: dict[str, Any], name: str = "last") -> None:
        """With a digest of itself that is right."""
        found.pop("manifest_sha256", None)
        digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
        text = json.dumps({**found, "manifest_sha256": digest}, indent=1)
        (self.checkpoints / f"{name}.json").write_text(text)

    def set(self, *path: str, to: Any, name: str = "last") -> None:
        """One field of a manifest; ... removes it."""
        found = self.manifest(name)
        inner = found
        for key in path[:-1]:
            inner = inner[key]
        if to is ...:
            del inner[path[-1]]
        else:
            inner[path[-1]] = to
        self.write_manifest(found, name)

    def put(self, content: bytes, name: str = "last") -> None:
        """Another payload, named and described as it must be."""
        found, digest = self.manifest(name), hashlib.sha256(content).hexdigest()
        file = f"epoch-{found['epoch']:05d}-{digest[:12]}.safetensors"
        (self.checkpoints / file).write_bytes(content)
        self.write_manifest({**found, "payload": file, "bytes": len(content), "sha256": digest}, name)

    def arrays(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """The arrays of both checkpoints changed in place, bound to the run as they must be."""
        for name in self.names:
            found, arrays = self.manifest(name), safetensors.numpy.load_file(self.payload(name))
            arrays = {key: np.array(array) for key, array in arrays.items()}
            change(arrays)
            run, values = Binding.of(found["run"]), {"rng": found["rng"], **found["values"]}
            self.put(write_payload(arrays, run.digest(found["epoch"], values)), name)

    def text(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        content = path.read_text()
        assert old in content, f"{file} does not hold {old!r}"
        path.write_text(content.replace(old, new, 1))

    def json(self, file: str, change: Callable[[Any], Any]) -> None:
        path = self.folder / file
        found = json.loads(path.read_text())
        path.write_text(json.dumps(change(found) or found))

    def line(self, file: str, number: int, **changes: Any) -> None:
        """Fields of one line of a file of records; ... removes them."""
        path = self.folder / file
        lines = path.read_text().splitlines()
        record = {**json.loads(lines[number - 1]), **changes}
        lines[number - 1] = json.dumps({key: value for key, value in record.items() if value is not ...})
        path.write_text("\n".join(lines) + "\n")

    def replace(self, file: str, kind: str) -> None:
        """Something that is no file in the place of one."""
        path = self.folder / file if file != "payload" else self.payload()
        kept = path.with_name(f"{path.name}.elsewhere") if path.parent == self.folder else self.folder / "elsewhere"
        path.rename(kept) if path.exists() else kept.write_bytes(b"precious")
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "socket":
            here = os.getcwd()
            os.chdir(path.parent)  # the names of sockets are short
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(path.name)
            os.chdir(here)
        elif kind != "nothing":
            path.symlink_to({"link": kept, "broken link": self.folder / "nowhere", "device": Path("/dev/zero")}[kind])

    def sparse(self, path: Path, size: int) -> None:
        with path.open("r+b") as file:
            file.truncate(size)


def both(change: Callable[[Bench, str], Any]) -> Change:
    """The same change of the last checkpoint and of the best one."""

    def do(bench: Bench) -> None:
        for name in ("last", "best"):
            change(bench, name)

    return do


def set_to(*path: str, to: Any) -> Change:
    return both(lambda bench, name: bench.set(*path, to=to, name=name))


def copy_from(run: str, *files: str) -> Change:
    """Files of another run in the place of the own ones; checkpoints: all of them."""

    def do(bench: Bench) -> None:
        for file in files:
            source, target = bench.others[run] / file, bench.folder / file
            if source.is_dir():
                shutil.rmtree(target)
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)

    return do


def manifests() -> Iterator[Case]:
    """Manifests that match their own digest and say what no manifest does."""
    wrong: dict[tuple[str, ...], list[Any]] = {
        ("epoch",): ["2", True, 2.0, 2**70, -1, None, [2], 10**9 + 1, 0],
        ("payload",): ["../secret.safetensors", "/etc/passwd", "x/y.safetensors", "", ".", None, 3, "last.json"],
        ("bytes",): [-1, "12", 1e15, 2**60, 7, True, None],
        ("sha256",): ["", "0" * 64, "G" * 64, None, 5],
        ("format",): [4, "3", 3.0, True, None, 0, -1],
        ("values",): [[], None, "x"],
        ("rng",): [None, {}, [], "PCG64", {"bit_generator": "PCG64"}],
        ("rng", "bit_generator"): ["MT19937", "Philox", "PCG64DXSM", 1, ...],
        ("rng", "state"): [{}, None, ..., {"state": 1}, {"state": 1, "inc": 2}, {"state": -1, "inc": 3}],
        ("rng", "state", "inc"): [2**128 + 1, 4, "5", 1.0, ...],
        ("rng", "state", "state"): [2**130, True, None],
        ("rng", "has_uint32"): [2, -1, True, ...],
        ("rng", "uinteger"): [2**32, -1, 0.5, ...],
        ("run",): [..., {}, None, [], "x"],
        ("run", "identity"): [..., "", "0" * 32, None, 3],
        ("run", "config"): [..., {}, [], {"seed": 0}, {"family": "other"}],
        ("run", "config", "learning", "beta"): [0.125, "1", None],
        ("run", "data"): [..., {}, {"x": "y"}],
        ("run", "records"): [..., {}, {"metrics.jsonl": [1, "x"]}, {"metrics.jsonl": [0, "0" * 64]}],
        ("name",): ["best", "other", None, ...],
        ("more",): [1],
    }
    for path, values in wrong.items():
        for value in values:
            name = f"manifest {'.'.join(path)} {'missing' if value is ... else repr(value)[:40]}"
            alone = path[0] == "rng" or value == "best"
            yield Case(name, set_to(*path, to=value), commands=(RESUME,) if alone else OPENING)

    def text(content: bytes) -> Change:
        return both(lambda bench, name: (bench.checkpoints / f"{name}.json").write_bytes(content))

    for name, content in {
        "empty": b"",
        "a list": b"[]",
        "a number": b"3",
        "of 100,000 levels": b"[" * 100_000,
        "of 500 levels": b'{"a":' * 500 + b"1" + b"}" * 500,
        "NaN": b'{"format": NaN}',
        "5,000 digits": b'{"format": ' + b"9" * 5000 + b"}",
        "of 16-bit letters": '{"format": 3}'.encode("utf-16"),
        "of binary": bytes(range(256)) * 10,
        "without digest": b'{"format": 3, "epoch": 2}',
    }.items():
        yield Case(f"manifest {name}", text(content), words=("is damaged",))
    huge = both(lambda bench, name: bench.sparse(bench.checkpoints / f"{name}.json", 300_000_000))
    yield Case("manifest of 300 MB", huge, words=("expected at most",))
    otherwise = both(
        lambda bench, name: (bench.checkpoints / f"{name}.json").write_text(json.dumps(bench.manifest(name), indent=2))
    )
    yield Case("manifest laid out otherwise", otherwise, words=("SHA-256",))
    yield Case("manifest of the best as the last", copy_within("best", "last"), commands=(RESUME,))
    yield Case("manifest of the last as the best", copy_within("last", "best"), commands=(EVALUATE,))

    def without_binding(bench: Bench) -> None:
        for name in ("last", "best"):
            found = bench.manifest(name)
            values = {"rng": found.pop("rng"), **found.pop("values")}
            former = {key: value for key, value in found.items() if key not in ("run", "name")}
            bench.write_manifest({**former, "format": 2, "values": values}, name)

    yield Case("manifest of the format of before", without_binding, words=("format 2",))


def copy_within(source: str, target: str) -> Change:
    return lambda b: shutil.copy(b.checkpoints / f"{source}.json", b.checkpoints / f"{target}.json") and None
