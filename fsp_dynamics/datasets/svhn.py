"""SVHN, the cropped digits of house numbers: ``train_32x32.mat`` and ``test_32x32.mat``, MATLAB 5
files of X (32, 32, 3, B) and y (B, 1), in which digit 0 has the label 10. Both are verified by
their SHA-256. The 531,131 easier images of ``extra_32x32.mat`` are not read.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets import published
from fsp_dynamics.datasets.downloads import Progress
from fsp_dynamics.datasets.published import Pinned, Pixels
from fsp_dynamics.errors import DatasetError

ZERO = 10  # the label of digit 0


@dataclass(frozen=True, slots=True)
class SvhnSet:
    """Where the two files may be. mirrors : the beginnings of addresses that end in their names."""

    name: str
    files: tuple[Pinned, Pinned]  # training, test
    mirrors: tuple[str, ...]
    counts: tuple[int, int]
    classes: int = 10
    system: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        return " and ".join(file.name for file in self.files)

    def below(self, root: Path) -> Iterator[Path]:
        """The folder of its name, then the data folder itself, as torchvision's root."""
        yield from (root / self.name, root)

    def lacking(self, folder: Path) -> str:
        """The files that `folder` does not hold."""
        return " and ".join(file.name for file in self.files if not os.path.isfile(folder / file.name))

    def is_other(self, file: str, shared: bool) -> bool:
        """The whole pictures of house numbers have names that say nothing of them."""
        return False

    def verify(self, folder: Path) -> str:
        """By the SHA-256 of the files."""
        for file in self.files:
            with file.opened(folder / file.name):
                pass
        return ""

    def read(self, folder: Path) -> Pixels:
        """The verified arrays."""
        train, test = (
            _part(folder / file.name, file, count) for file, count in zip(self.files, self.counts, strict=True)
        )
        return Pixels(*train, *test, 255, str(folder), {file.name: file.sha256 for file in self.files})

    def complete(self, folder: Path, progress: Progress) -> None:
        """Download the files that are missing or damaged."""
        published.complete(self.files, self.mirrors, folder, progress)


def _part(path: Path, known: Pinned, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """(images (B, 3, 32, 32), labels (B,)). Raises DatasetError."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    with known.opened(path) as file:
        try:
            held = loadmat(cast(Any, file), variable_names=["X", "y"])
        except (MatReadError, ValueError, TypeError, NotImplementedError, OSError, zlib.error) as error:
            raise DatasetError(f"{path}: is no intact MATLAB 5 file ({error})") from error
        for name, shape in (("X", (32, 32, 3, count)), ("y", (count, 1))):
            array = held.get(name)
            if array is None or array.shape != shape or array.dtype != np.uint8:
                found = "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
                raise DatasetError(f"{path}: holds {found} as {name}, expected uint8 of shape {shape}")
        labels = held["y"][:, 0]
        if (outside := np.flatnonzero((labels < 1) | (labels > ZERO))).size:
            raise DatasetError(f"{path}: y[{outside[0]}] = {labels[outside[0]]}, expected 1 to {ZERO}")
    return held["X"].transpose(3, 2, 0, 1), labels % ZERO
