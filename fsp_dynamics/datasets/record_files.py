"""Files of records: a label or two, then the planes R, G, B of 32 x 32 pixels, row by row, as
CIFAR-10 and CIFAR-100 have them; and folders of your own that hold any number of them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets.arrays import Part
from fsp_dynamics.errors import DatasetError

PLANES = (3, 32, 32)
PIXELS = 3072
MOST_CLASSES = 256  # that a label of one byte can tell apart


class Layout(NamedTuple):
    """How a folder is recognised and read. train : a pattern of names. labels : so many bytes
    stand before the pixels of a record, of which the last is the class. names : the file that holds
    a name for each class, one a line.
    """

    train: str
    test: str
    labels: int
    names: str


LAYOUTS = (
    Layout("data_batch_*.bin", "test_batch.bin", 1, "batches.meta.txt"),
    Layout("train.bin", "test.bin", 2, "fine_label_names.txt"),
)


class RecordFolder(NamedTuple):
    """What a folder holds: parts, digests by file, class names."""

    train: Part
    test: Part | None
    digests: dict[str, str]
    class_names: tuple[str, ...]


def parse_records(content: bytes, labels: int) -> Part:
    """The images (B, 3, 32, 32) and the last label of each record (B,), as views of the bytes."""
    records = np.frombuffer(content, np.uint8).reshape(-1, labels + PIXELS)
    return Part(records[:, labels:].reshape(-1, *PLANES), records[:, labels - 1])


def joined(parts: list[Part]) -> Part:
    """One part of several, one after the other."""
    images, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Part(images, labels)


def check_below(path: Path, labels: npt.NDArray[np.uint8], classes: int, remedy: str) -> None:
    """Refuse a label beyond the classes. Raises DatasetError."""
    if (outside := np.flatnonzero(labels >= classes)).size:
        raise DatasetError(
            f"{path}: the label of record {outside[0]} is {labels[outside[0]]}, expected 0 to {classes - 1}: "
            f"another file or a damaged one{remedy}"
        )


def layout_of(folder: Path) -> Layout | None:
    """How the folder is laid out, if it holds files of records."""
    return next((layout for layout in LAYOUTS if any(folder.glob(layout.train))), None)


def read_records(folder: Path, layout: Layout, largest: int) -> RecordFolder:
    """The records of a folder, of at most `largest` bytes in all; the training files in the order
    of their names. Raises DatasetError, and OSError.
    """
    files = sorted(folder.glob(layout.train))
    test = [folder / layout.test] if (folder / layout.test).is_file() else []
    names = _names(folder / layout.names)
    total = sum(os.path.getsize(file) for file in files + test)
    if total > largest:
        raise DatasetError(f"{folder}: {total} bytes of records, expected at most {largest}")
    digests, parts = dict[str, str](), []
    for file in files + test:
        content = file.read_bytes()
        if not content or len(content) % (layout.labels + PIXELS):
            raise DatasetError(
                f"{file}: {len(content)} bytes long, expected a multiple of {layout.labels + PIXELS} (records of "
                f"{layout.labels} bytes of labels and {PIXELS} pixels): truncated, or another file; "
                "put the undamaged file in its place"
            )
        part = parse_records(content, layout.labels)
        check_below(file, part.labels, len(names) or MOST_CLASSES, "; put the undamaged file in its place")
        digests[file.name] = hashlib.sha256(content).hexdigest()
        parts.append(part)
    return RecordFolder(joined(parts[: len(files)]), parts[-1] if test else None, digests, names)


def _names(file: Path) -> tuple[str, ...]:
    """The names of the classes, if the file is there. Raises DatasetError."""
    if not file.is_file():
        return ()
    try:
        text = file.read_bytes()[: 1 << 16].decode("utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: is no text ({error.reason}), expected the names of the classes") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())
