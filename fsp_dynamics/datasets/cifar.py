"""CIFAR-10 and CIFAR-100, the binary version: records of the label (CIFAR-100: the coarse, then
the fine one) and of 3072 bytes, the planes R, G, B of 32 x 32 pixels, row by row.

The archive is verified by its SHA-256. Of a folder that was extracted from it the sizes of the
files are known, no more: it is read, and called unverified.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fsp_dynamics.datasets import published
from fsp_dynamics.datasets.downloads import Progress
from fsp_dynamics.datasets.published import REMEDY, Pinned, Pixels
from fsp_dynamics.datasets.record_files import PIXELS, check_below, joined, parse_records
from fsp_dynamics.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Records:
    """A file of so many records."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class CifarSet:
    """Where the archive of one data set, or the folder that it unpacks to, may be.

    mirrors : the beginnings of addresses that end in the archive's name. labels : so many bytes
        stand before the pixels of a record, of which the last is the class. others : names of the
        versions that are not read.
    """

    name: str
    archive: Pinned
    folder: str
    mirrors: tuple[str, ...]
    train: tuple[Records, ...]
    test: Records
    labels: int
    classes: int
    others: tuple[str, ...]
    system: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[int, int]:
        return sum(file.count for file in self.train), self.test.count

    @property
    def wanted(self) -> str:
        return f"{self.archive.name} or the folder {self.folder} that it unpacks to"

    def below(self, root: Path) -> Iterator[Path]:
        """The folder of its name, then the data folder itself, as torchvision's root."""
        yield from (root / self.name, root)

    def lacking(self, folder: Path) -> str:
        """The archive and the folder, or the files that the folder does not hold."""
        if os.path.isfile(folder / self.archive.name):
            return ""
        places = {place: self._absent(place) for place in self._unpacked(folder)}
        if not all(places.values()):
            return ""
        for place, absent in places.items():
            if len(absent) < len(self._files):
                return f"{place.name}/" + f", {place.name}/".join(absent)
        return f"{self.archive.name} and the folder {self.folder}"

    def is_other(self, file: str, shared: bool) -> bool:
        """The versions for Python, which are pickled, and for MATLAB."""
        return file in self.others

    def verify(self, folder: Path) -> str:
        """By the SHA-256 of the archive, or else by the sizes of the files."""
        path = folder / self.archive.name
        if os.path.isfile(path):
            with self.archive.opened(path):
                return ""
        place = self._found(folder)
        for file in self._files:
            self._check(place / file.name, file)
        return self._unverified(place)

    def read(self, folder: Path) -> Pixels:
        """The archive where there is one, else the extracted files."""
        path = folder / self.archive.name
        if os.path.isfile(path):
            return self._pixels(path, self._members(path), "")
        place = self._found(folder)
        return self._pixels(place, self._contents(place), self._unverified(place))

    def complete(self, folder: Path, progress: Progress) -> None:
        """Download the archive, unless extracted files of the right sizes are there."""
        if not os.path.isfile(folder / self.archive.name) and not self.lacking(folder):
            self.verify(folder)
            return
        published.complete((self.archive,), self.mirrors, folder, progress)

    @property
    def _files(self) -> tuple[Records, ...]:
        return *self.train, self.test

    def _size(self, file: Records) -> int:
        return file.count * (self.labels + PIXELS)

    def _unpacked(self, folder: Path) -> tuple[Path, ...]:
        return folder / self.folder, folder

    def _absent(self, place: Path) -> list[str]:
        return [file.name for file in self._files if not os.path.isfile(place / file.name)]

    def _found(self, folder: Path) -> Path:
        return next(place for place in self._unpacked(folder) if not self._absent(place))

    def _unverified(self, place: Path) -> str:
        return (
            f"{place} is unverified: its files have the published sizes, but SHA-256 is known of "
            f"{self.archive.name} alone, which is not beside them"
        )

    def _members(self, path: Path) -> dict[str, bytes]:
        """The files of the archive."""
        wanted, found = {file.name: file for file in self._files}, dict[str, bytes]()
        with self.archive.opened(path) as file:
            try:
                with tarfile.open(fileobj=file, mode="r:gz") as archive:
                    for member in archive:
                        name = PurePosixPath(member.name).name
                        content = archive.extractfile(member) if name in wanted else None
                        if content is not None:
                            _check_size(path / member.name, member.size, self._size(wanted[name]))
                            found[name] = content.read()
            except (EOFError, tarfile.TarError, zlib.error) as error:
                raise DatasetError(f"{path}: is no intact .tar.gz ({error})") from error
            if missing := [name for name in wanted if name not in found]:
                raise DatasetError(f"{path}: holds no {missing[0]}")
        return found

    def _contents(self, place: Path) -> dict[str, bytes]:
        """The extracted files."""
        found = {}
        for each in self._files:
            path = place / each.name
            self._check(path, each)
            try:
                found[each.name] = path.read_bytes()
            except OSError as error:
                raise DatasetError(f"{path}: cannot be read ({error.strerror}){REMEDY}") from error
        return found

    def _check(self, path: Path, file: Records) -> None:
        """Refuse an extracted file of another size. Raises DatasetError."""
        try:
            _check_size(path, os.path.getsize(path), self._size(file))
        except DatasetError as error:
            raise DatasetError(f"{error}{REMEDY}") from None
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror}){REMEDY}") from error

    def _pixels(self, source: Path, contents: Mapping[str, bytes], unverified: str) -> Pixels:
        parts = {name: parse_records(content, self.labels) for name, content in contents.items()}
        for name, part in parts.items():
            check_below(source / name, part.labels, self.classes, REMEDY)
        train, test = joined([parts[file.name] for file in self.train]), parts[self.test.name]
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        return Pixels(*train, *test, 255, str(source), digests, unverified)


def _check_size(path: Path, size: int, expected: int) -> None:
    """Refuse a file of another size. Raises DatasetError, which leaves the remedy to the caller."""
    if size != expected:
        what = "truncated" if size < expected else "another file"
        raise DatasetError(f"{path}: {size} bytes long, expected {expected}: {what}")
