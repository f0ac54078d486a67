"""Where the published files are: known folders, the user's cache, mirrors; what they must hold,
and how they are fetched.

Looked for in this order: ``data_dir`` (else ``$FSP_DATA``), in its folders ``NAME`` and
torchvision's ``MNIST/raw``, ``FashionMNIST/raw``, then itself and ``raw`` if the files there are
those of this set; the user's cache;
``/usr/share/datasets/fashion-mnist`` (Debian's dataset-fashion-mnist).
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets.idx import GZIP, SLACK, parse_idx, read_idx
from fsp_dynamics.errors import DatasetError
from fsp_dynamics.folders import NO_HOME, expanded, user_cache

Progress = bool | Callable[[str, int], None]
"""True: a bar on stderr. A callable is given the file's name and the bytes received so far."""

OTHER_SUFFIXES = (".csv", ".csv.gz", ".npz", ".parquet", ".pkl", ".pkl.gz", ".mat", ".zip", ".arff")
TIMEOUT = (10, 30)  # seconds to connect, and between two packets


@dataclass(frozen=True, slots=True)
class File:
    """A published IDX file: the dimensions in its header, and the SHA-256 of its unpacked bytes."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        return 4 + 4 * len(self.shape) + math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the files of one data set may be. Each mirror is the beginning of an address that ends
    in ``FILE.gz``.
    """

    folders: tuple[str, ...]  # below the data folder
    system: tuple[str, ...]
    mirrors: tuple[str, ...]
    files: tuple[File, ...]  # training images, training labels, test images, test labels


def _files(*sha256: str) -> tuple[File, ...]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    shapes: tuple[tuple[int, ...], ...] = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))
    return tuple(File(*each) for each in zip(names, shapes, sha256, strict=True))


SOURCES = {
    "mnist": Source(
        ("mnist", "MNIST/raw"),
        (),
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        _files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": Source(
        ("fashion-mnist", "FashionMNIST/raw"),
        ("/usr/share/datasets/fashion-mnist",),
        (
            "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        _files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
}


def fetch_published(name: str, data_dir: str | Path | None, progress: Progress) -> Path:
    """`fetch` for a name among `SOURCES`. A file is written aside, verified and renamed: nothing
    half-written is ever found.
    """
    destination = _destination(data_dir) / name
    found = find(name, data_dir)
    if found is not None and found != destination and (data_dir is None or destination.parent in found.parents):
        read_all(name, found)
        return found
    new_folders = [folder for folder in (destination, *destination.parents) if not os.path.exists(folder)]
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"{destination}: cannot be made ({error.strerror}); name a folder you may write to (--data-dir)"
        ) from error
    if not os.access(destination, os.W_OK):
        raise DatasetError(f"{destination}: may not be written to; name a folder you may write to (--data-dir)")
    try:
        _complete(name, destination, progress)
    except BaseException:
        for folder in new_folders:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        raise
    return destination


def _destination(data_dir: str | Path | None) -> Path:
    """The folder below which files are put. Raises DatasetError where none was named and there is
    no home folder.
    """
    folder = _cache() if data_dir is None else expanded(data_dir, "data_dir")
    if folder is None:
        raise DatasetError(f"{NO_HOME}, so data have no place of their own; name a folder (--data-dir)")
    return folder


def _complete(name: str, destination: Path, progress: Progress) -> None:
    """Download what `destination` lacks or holds damaged, from the mirrors in turn, the last that
    answered first.
    """
    mirrors = SOURCES[name].mirrors
    for file in SOURCES[name].files:
        held = _held(destination, file.name)
        with contextlib.suppress(DatasetError):  # what is damaged is replaced below
            if held is not None:
                read_idx(held, file.shape, file.sha256)
                continue
        new, used = _fetch_file(file, mirrors, destination, progress)
        if held is not None and held != new:
            held.unlink()
        mirrors = (used, *(m for m in mirrors if m != used))


def read_all(name: str, folder: Path) -> list[npt.NDArray[np.uint8]]:
    """The verified arrays of a folder that has all files. Raises DatasetError."""
    return [
        read_idx(_held(folder, file.name) or folder / file.name, file.shape, file.sha256)
        for file in SOURCES[name].files
    ]


def find(name: str, data_dir: str | Path | None) -> Path | None:
    """The first folder that has every file of `name`, not yet verified."""
    return next((place for place in _places(name, data_dir) if not _lacking(name, place)), None)


def places_searched(name: str, data_dir: str | Path | None) -> str:
    """Every place and what is wrong with it, for a message."""
    places = []
    for place in _places(name, data_dir):
        lacking = _lacking(name, place)
        what = ", ".join(lacking) if len(lacking) < len(SOURCES[name].files) else "all of its files"
        places.append(f"{place} ({f'lacks {what}' if os.path.isdir(place) else 'no such folder'})")
    missing = [] if data_dir or os.environ.get("FSP_DATA") else ["FSP_DATA is not set"]
    missing += [] if _cache() else ["there is no home folder"]
    remark = f" ({', '.join(missing)})" if missing else ""
    return f"looked in {', '.join(places) or 'no folder'}{remark}"


def _places(name: str, data_dir: str | Path | None) -> Iterator[Path]:
    """The folders to look in, in order. Raises ConfigurationError for a tilde without a home."""
    source, root = SOURCES[name], data_dir or os.environ.get("FSP_DATA")
    if root:
        below = expanded(root, "data_dir" if data_dir else "FSP_DATA")
        yield from (below / folder for folder in source.folders)
        yield from (folder for folder in (below, below / "raw") if _is_of(name, folder))
    own = _cache()
    if own is not None:
        yield own / name
    yield from map(Path, source.system)


def _lacking(name: str, folder: Path) -> list[str]:
    """The files of `name` that `folder` does not hold."""
    return [file.name for file in SOURCES[name].files if _held(folder, file.name) is None]


def _held(folder: Path, name: str) -> Path | None:
    """The unpacked or else the gzipped file of that name, if there is one; also with a dot before
    `idx`, and within a folder of its own name, as archives of others unpack.
    """
    dotted = name.replace("-idx", ".idx")
    names = (name, f"{name}.gz", dotted, f"{dotted}.gz", f"{name}/{name}", f"{dotted}/{dotted}")
    return next((folder / each for each in names if os.path.isfile(folder / each)), None)


def _is_of(name: str, folder: Path) -> bool:
    """Whether the smallest file there is that of this set: other sets have the same names."""
    labels = SOURCES[name].files[3]
    held = _held(folder, labels.name)
    if held is None:
        return False
    try:
        read_idx(held, labels.shape, labels.sha256)
    except DatasetError:
        return False
    return True


def other_formats(name: str, data_dir: str | Path | None) -> str:
    """What lies in the data folder under a name of the set but in another format, for a message."""
    root = data_dir or os.environ.get("FSP_DATA")
    if not root:
        return ""
    below, found = expanded(root, "data_dir" if data_dir else "FSP_DATA"), []
    for folder in (below, *(below / each for each in SOURCES[name].folders)):
        with contextlib.suppress(OSError):
            found += [
                folder / each
                for each in sorted(os.listdir(folder))
                if each.lower().endswith(OTHER_SUFFIXES) and _same_set(name, each, folder == below)
            ]
    return f"{found[0]} is of another format; " if found else ""


def _same_set(name: str, file: str, shared: bool) -> bool:
    """Whether a file may be of this set by its name; shared : the folder holds other sets too."""
    words = file.lower().replace("_", "-")
    return not shared or ("mnist" in words and ("fashion" in words) == ("fashion" in name))


def _cache() -> Path | None:
    """The user's cache folder of this package; it may not exist yet, or not at all."""
    return user_cache()


def _fetch_file(file: File, mirrors: Sequence[str], folder: Path, progress: Progress) -> tuple[Path, str]:
    """The verified new file in `folder` and the first mirror that gave it. Raises DatasetError,
    with what each one answered.
    """
    from requests.exceptions import RequestException

    refusals = []
    for mirror in mirrors:
        url = f"{mirror}{file.name}.gz"
        aside = folder / f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}.part"
        try:
            _download(url, aside, file.size + SLACK, progress)
            with open(aside, "rb") as received:
                parse_idx(received, url, file.shape, file.sha256)
                received.seek(0)
                packed = received.read(2) == GZIP  # a server may have unpacked it on the way
            target = folder / (f"{file.name}.gz" if packed else file.name)
            os.replace(aside, target)
            return target, mirror
        except (RequestException, DatasetError, ValueError) as error:
            answer = getattr(error, "response", None)
            reason = type(error).__name__ if answer is None else f"HTTP {answer.status_code}"
            refusals.append(str(error) if isinstance(error, DatasetError) else f"{url}: {reason}")
        finally:
            aside.unlink(missing_ok=True)
    raise DatasetError(f"{file.name} could not be downloaded ({'; '.join(refusals)})")


def _download(url: str, target: Path, most: int, progress: Progress) -> None:
    """Write what `url` gives to the new file `target`. Raises DatasetError above `most` bytes and
    where the server redirects to an address without encryption, what requests raises otherwise.
    """
    import pooch

    with open(target, "xb") as out:
        how: dict[str, Any] = {"timeout": TIMEOUT, "hooks": {"response": _refuse_plain}}
        pooch.HTTPDownloader(progressbar=progress is True, chunk_size=1 << 16, **how)(
            url, _Capped(out, url, most, progress), None
        )


def _refuse_plain(answer: Any, **how: Any) -> None:
    """Called with each answer, before a redirect is followed."""
    there = urllib.parse.urljoin(answer.url, answer.headers.get("location", ""))
    if answer.is_redirect and answer.url.startswith("https:") and not there.startswith("https:"):
        raise DatasetError(f"{answer.url}: redirects to {there}, expected an address with https")


class _Capped:
    """The file a downloader may write to: counts, reports and refuses more than `most` bytes."""

    def __init__(self, out: BinaryIO, url: str, most: int, progress: Progress) -> None:
        self.out, self.url, self.most, self.progress, self.received = out, url, most, progress, 0

    def write(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received > self.most:
            raise DatasetError(f"{self.url}: sends more than {self.most} bytes; the download was stopped")
        self.out.write(chunk)
        if callable(self.progress):
            self.progress(self.url.rsplit("/", 1)[-1], self.received)

    def flush(self) -> None:
        """Nothing to do before the file is closed."""
