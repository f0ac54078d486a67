"""A small mnist for tests, 12 + 5 images of 3 x 2 pixels, as IDX files written by hand."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.datasets.registry import SOURCES

REAL_SOURCES = dict(SOURCES)  # tests/datasets/conftest.py puts small ones in their place
NAMES = [file.name for file in SOURCES["mnist"].files]


def idx(array: np.ndarray) -> bytes:
    """The IDX file of an array of bytes, written out by hand."""
    return (
        bytes([0, 0, 8, array.ndim])
        + b"".join(struct.pack(">I", n) for n in array.shape)
        + array.astype(np.uint8).tobytes()
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def small_files() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = [(12, 3, 2), (12,), (5, 3, 2), (5,)]
    return {
        name: rng.integers(0, 10 if len(shape) == 1 else 256, shape) for name, shape in zip(NAMES, shapes, strict=True)
    }


CONTENTS = {name: idx(array) for name, array in small_files().items()}
IMAGES = CONTENTS[NAMES[0]]
IMAGES_SHAPE = (12, 3, 2)


def write(folder: Path, packed: bool = False, **changed: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (CONTENTS | changed).items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return folder


def check_small(data: Dataset) -> None:
    images, labels, test_images, test_labels = small_files().values()
    np.testing.assert_array_equal(
        np.concatenate([data.train.images, data.valid.images]), (images.reshape(12, 6) / 255).astype(np.float32)
    )
    np.testing.assert_array_equal(np.concatenate([data.train.labels, data.valid.labels]), labels)
    np.testing.assert_array_equal(data.test.images, (test_images.reshape(5, 6) / 255).astype(np.float32))
    np.testing.assert_array_equal(data.test.labels, test_labels)
    assert (len(data.valid), data.image_shape, data.classes) == (2, (3, 2), 10)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
