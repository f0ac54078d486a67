"""Published data sets of four IDX files: training images and labels, test images and labels."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets.downloads import Progress, fetch_file
from fsp_dynamics.datasets.idx import GZIP, SLACK, parse_idx, read_idx
from fsp_dynamics.datasets.published import Pixels
from fsp_dynamics.errors import DatasetError

OTHER_SUFFIXES = (".csv", ".csv.gz", ".npz", ".parquet", ".pkl", ".pkl.gz", ".mat", ".zip", ".arff")


@dataclass(frozen=True, slots=True)
class File:
    """A published IDX file: the dimensions in its header, and the SHA-256 of its unpacked bytes."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    def check(self, received: BinaryIO, url: str) -> str:
        """Refuse an open download of other bytes. Raises DatasetError. Returns the name under
        which it is kept: a server may have unpacked it on the way.
        """
        parse_idx(received, url, self.shape, self.sha256)
        received.seek(0)
        return f"{self.name}.gz" if received.read(2) == GZIP else self.name


@dataclass(frozen=True, slots=True)
class IdxSet:
    """Where the files of one data set of ten classes may be. Each mirror is the beginning of an
    address that ends in ``FILE.gz``.
    """

    name: str
    folders: tuple[str, ...]  # below the data folder
    system: tuple[str, ...]
    mirrors: tuple[str, ...]
    files: tuple[File, ...]  # training images, training labels, test images, test labels
    classes: int = 10

    @property
    def counts(self) -> tuple[int, int]:
        return self.files[0].shape[0], self.files[2].shape[0]

    @property
    def wanted(self) -> str:
        names = ", ".join(file.name for file in self.files)
        return f"its {len(self.files)} IDX files ({names}; .gz or not)"

    def below(self, root: Path) -> Iterator[Path]:
        """Its own folders, then the data folder itself and ``raw`` if the files there are those of
        this set.
        """
        yield from (root / folder for folder in self.folders)
        yield from (folder for folder in (root, root / "raw") if self._owns(folder))

    def lacking(self, folder: Path) -> str:
        """The files that `folder` does not hold."""
        names = [file.name for file in self.files if _held(folder, file.name) is None]
        return ", ".join(names) if len(names) < len(self.files) else "all of its files"

    def is_other(self, file: str, shared: bool) -> bool:
        """Tables and packed arrays; a file in a folder of other sets must have this set's name."""
        words = file.lower().replace("_", "-")
        named = "mnist" in words and ("fashion" in words) == ("fashion" in self.name)
        return words.endswith(OTHER_SUFFIXES) and (named or not shared)

    def verify(self, folder: Path) -> str:
        """Read the files, whose SHA-256 are known."""
        self._arrays(folder)
        return ""

    def read(self, folder: Path) -> Pixels:
        """The verified arrays."""
        digests = {file.name: file.sha256 for file in self.files}
        images, labels, test_images, test_labels = self._arrays(folder)
        return Pixels(images, labels, test_images, test_labels, 255, str(folder), digests)

    def complete(self, folder: Path, progress: Progress) -> None:
        """From the mirrors in turn, the last that answered first."""
        mirrors = self.mirrors
        for file in self.files:
            held = _held(folder, file.name)
            with contextlib.suppress(DatasetError):  # what is damaged is replaced below
                if held is not None:
                    read_idx(held, file.shape, file.sha256)
                    continue
            urls = [f"{mirror}{file.name}.gz" for mirror in mirrors]
            new, used = fetch_file(file.name, urls, folder, file.size + SLACK, file.check, progress)
            if held is not None and held != new:
                held.unlink()
            mirrors = (mirrors[used], *mirrors[:used], *mirrors[used + 1 :])

    def _arrays(self, folder: Path) -> list[npt.NDArray[np.uint8]]:
        return [
            read_idx(_held(folder, file.name) or folder / file.name, file.shape, file.sha256) for file in self.files
        ]

    def _owns(self, folder: Path) -> bool:
        """Whether the smallest file there is that of this set: other sets have the same names."""
        labels = self.files[3]
        held = _held(folder, labels.name)
        if held is None:
            return False
        try:
            read_idx(held, labels.shape, labels.sha256)
        except DatasetError:
            return False
        return True


def _held(folder: Path, name: str) -> Path | None:
    """The unpacked or else the gzipped file of that name, if there is one; also with a dot before
    `idx`, and within a folder of its own name, as archives of others unpack.
    """
    dotted = name.replace("-idx", ".idx")
    names = (name, f"{name}.gz", dotted, f"{dotted}.gz", f"{name}/{name}", f"{dotted}/{dotted}")
    return next((folder / each for each in names if os.path.isfile(folder / each)), None)


def mnist_like(name: str, torchvision: str, system: tuple[str, ...], mirrors: tuple[str, ...], *sha256: str) -> IdxSet:
    """A set of 60,000 and 10,000 images of 28 x 28 pixels under MNIST's names of files. torchvision
    : the folder in which that package puts it.
    """
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    shapes: tuple[tuple[int, ...], ...] = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))
    files = tuple(File(*each) for each in zip(names, shapes, sha256, strict=True))
    return IdxSet(name, (name, f"{torchvision}/raw"), system, mirrors, files)
