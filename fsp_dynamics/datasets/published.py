"""What is known of every published data set: its numbers, and how it is found, read and fetched.

A set is described by an object of one of the kinds beside this module (`idx_sets`, `cifar`,
`svhn`), and stands in `registry.SOURCES` under its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets.downloads import Progress, fetch_file
from fsp_dynamics.errors import DatasetError

REMEDY = "; delete it and fetch it again (fsp data fetch NAME)"


class Pixels(NamedTuple):
    """Images (B, h, w), or (B, 3, h, w) in colour, as published, uint8 from 0 to `top`, their
    labels (B,), and the file or folder they lie in.

    digests : SHA-256 by file. unverified : why the bytes could not be compared with the published
        ones, or nothing.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.uint8]
    top: int
    source: str
    digests: Mapping[str, str]
    unverified: str = ""


class Published(Protocol):
    """A published data set: `counts` training and test images of `classes` classes.

    system : folders outside the user's in which packages of the system put it.
    wanted : its files, for a message.
    """

    @property
    def system(self) -> tuple[str, ...]: ...
    @property
    def counts(self) -> tuple[int, int]: ...
    @property
    def classes(self) -> int: ...
    @property
    def wanted(self) -> str: ...

    def below(self, root: Path) -> Iterator[Path]:
        """The folders to look in below a data folder, in order."""
        ...

    def lacking(self, folder: Path) -> str:
        """What `folder` does not hold of the set, for a message; empty where it holds all."""
        ...

    def is_other(self, file: str, shared: bool) -> bool:
        """Whether a file is of this set by its name, but of a format that is not read. shared : it
        lies beside other sets.
        """
        ...

    def verify(self, folder: Path) -> str:
        """Compare the files with the published ones. Raises DatasetError for others.

        Returns
        -------
        str : empty, or why they cannot be compared.
        """
        ...

    def read(self, folder: Path) -> Pixels:
        """The images of a folder that lacks nothing, verified where that can be. Raises
        DatasetError.
        """
        ...

    def complete(self, folder: Path, progress: Progress) -> None:
        """Download what `folder` lacks or holds damaged. Raises DatasetError."""
        ...


@dataclass(frozen=True, slots=True)
class Pinned:
    """A file that is published as it is: its name, its bytes, their SHA-256."""

    name: str
    size: int
    sha256: str

    def check(self, file: BinaryIO, label: str) -> str:
        """Refuse an open file of other bytes, called `label` in messages. Raises DatasetError.
        Returns the name under which it is kept.
        """
        size = file.seek(0, 2)
        if size != self.size:
            what = "truncated" if size < self.size else "another file"
            raise DatasetError(f"{label}: {size} bytes long, expected {self.size}: {what}")
        file.seek(0)
        digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
        if digest != self.sha256:
            raise DatasetError(f"{label}: SHA-256 is {digest}, expected {self.sha256}: another file or a damaged one")
        file.seek(0)
        return self.name

    @contextmanager
    def opened(self, path: Path) -> Iterator[BinaryIO]:
        """The file, verified, open in the block. Raises DatasetError."""
        try:
            with open(path, "rb") as file:
                self.check(file, str(path))
                yield file
        except DatasetError as error:
            raise DatasetError(f"{error}{REMEDY}") from error.__cause__
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror or error}){REMEDY}") from error


def complete(files: tuple[Pinned, ...], mirrors: tuple[str, ...], folder: Path, progress: Progress) -> None:
    """Download those of `files` that `folder` lacks or holds damaged, from the mirrors in turn,
    the last that answered first. Raises DatasetError.
    """
    for file in files:
        try:
            with open(folder / file.name, "rb") as held:
                file.check(held, file.name)
        except (OSError, DatasetError):
            urls = [mirror + file.name for mirror in mirrors]
            _, used = fetch_file(file.name, urls, folder, file.size, file.check, progress)
            mirrors = (mirrors[used], *mirrors[:used], *mirrors[used + 1 :])
