"""Small cifar10, cifar100 and svhn for tests, 20 + 20 images of their real size, as the files and
archives in which they are published, written by hand.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.io import savemat

from fsp_dynamics.datasets.cifar import Records
from fsp_dynamics.datasets.published import Pinned
from fsp_dynamics.datasets.registry import SOURCES

COUNT = 20
CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10}
TRAIN = {
    "cifar10": [f"data_batch_{k}.bin" for k in range(1, 6)],
    "cifar100": ["train.bin"],
    "svhn": ["train_32x32.mat"],
}
TEST = {"cifar10": "test_batch.bin", "cifar100": "test.bin", "svhn": "test_32x32.mat"}
ARCHIVES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}
FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
REAL = {name: SOURCES[name] for name in CLASSES}


class Part(NamedTuple):
    """Images (20, 3, 32, 32) of bytes, and labels (20,)."""

    images: np.ndarray
    labels: np.ndarray


def part(name: str, test: bool = False) -> Part:
    """20 images, whose red plane is as bright as their label is large; every class of ten twice."""
    rng = np.random.default_rng([CLASSES[name], test])
    labels = rng.permutation(np.arange(COUNT) * CLASSES[name] // COUNT)
    images = rng.integers(0, 256, (COUNT, 3, 32, 32))
    images[:, 0] = 200 * labels[:, None, None] // CLASSES[name] + images[:, 0] // 8
    return Part(images.astype(np.uint8), labels)


@functools.cache
def contents(name: str) -> dict[str, bytes]:
    """{file: its bytes}, training images first."""
    train, test = part(name), part(name, test=True)
    if name == "svhn":
        return {TRAIN[name][0]: mat(train), TEST[name]: mat(test)}
    each = COUNT // len(TRAIN[name])
    found = {
        file: records(name, Part(train.images[k * each :][:each], train.labels[k * each :][:each]))
        for k, file in enumerate(TRAIN[name])
    }
    return found | {TEST[name]: records(name, test)}


def records(name: str, given: Part) -> bytes:
    """The label (cifar100: a coarse one before it), then red, green and blue, one image after
    another.
    """
    out = b""
    for image, label in zip(given.images, given.labels, strict=True):
        coarse = bytes([19 - label % 20]) if name == "cifar100" else b""
        out += coarse + bytes([label]) + image[0].tobytes() + image[1].tobytes() + image[2].tobytes()
    return out


def mat(given: Part, **changed: Any) -> bytes:
    """X (32, 32, 3, B) and y (B, 1), digit 0 as 10, compressed as the published files are."""
    pixels = np.zeros((32, 32, 3, len(given.labels)), np.uint8)
    for k, image in enumerate(given.images):
        for channel in range(3):
            pixels[:, :, channel, k] = image[channel]
    labels = np.array([[10 if label == 0 else label] for label in given.labels], np.uint8)
    out = io.BytesIO()
    savemat(out, {"X": pixels, "y": labels} | changed, do_compression=True)
    content = bytearray(out.getvalue())
    content[:116] = b"MATLAB 5.0 MAT-file, for tests".ljust(116)  # no date
    return bytes(content)


def archive(name: str, **changed: bytes) -> bytes:
    """The .tar.gz of that folder, with names of the classes among the files as in the published."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for file, content in ({"readme.html": b"<p>"} | contents(name) | changed).items():
            member = tarfile.TarInfo(f"{FOLDERS[name]}/{file}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    packed_bytes = bytearray(out.getvalue())
    packed_bytes[4:8] = bytes(4)  # no time
    return bytes(packed_bytes)


def pinned(name: str, content: bytes) -> Pinned:
    return Pinned(name, len(content), hashlib.sha256(content).hexdigest())


@functools.cache
def sources() -> dict[str, Any]:
    """What stands in SOURCES of the small sets; they have no mirrors."""
    found: dict[str, Any] = {}
    for name, real in REAL.items():
        if name == "svhn":
            files = tuple(pinned(*each) for each in contents(name).items())
            found[name] = dataclasses.replace(real, files=files, counts=(COUNT, COUNT), mirrors=())
        else:
            each = COUNT // len(TRAIN[name])
            found[name] = dataclasses.replace(
                real,
                archive=pinned(ARCHIVES[name], archive(name)),
                train=tuple(Records(file, each) for file in TRAIN[name]),
                test=Records(TEST[name], COUNT),
                mirrors=(),
            )
    return found


def write(folder: Path, name: str, *, packed: bool = False, **changed: bytes) -> Path:
    """The files of that set in `folder` (of a cifar: in the folder that its archive unpacks to), or
    the archive. changed : {file: other bytes}.
    """
    if packed:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ARCHIVES[name]).write_bytes(changed.get(ARCHIVES[name], archive(name)))
        return folder / ARCHIVES[name]
    place = folder / FOLDERS.get(name, "")
    place.mkdir(parents=True, exist_ok=True)
    for file, content in (contents(name) | changed).items():
        (place / file).write_bytes(content)
    return place
