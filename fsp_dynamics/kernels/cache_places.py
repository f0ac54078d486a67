"""The folders in which compiled kernels are kept between processes.

What is kept there is run, so nothing is read that another user could have written: a folder and its
files belong to this user or to root, and nobody else may write to them. The places, in order: the
folder that NUMBA_CACHE_DIR names; `__pycache__` beside the kernels; the user's cache; the system's
folder for temporary files. Kernels are read from the first in which they are found and written to
the first that can be written to; places beyond that one are not looked into.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from numba import config

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.folders import expanded, user_cache

KERNELS = Path(__file__).parent
# one folder for each place where the package stands
NAME = f"kernels_{hashlib.sha256(str(KERNELS).encode()).hexdigest()[:16]}"
MOST = 1 << 28  # bytes of a file; a kernel has less than a million
PROBE = 1 << 16  # bytes that must find room before a folder is chosen
STALE = 3600.0  # seconds after which a temporary file is one that a killed process left
USUAL = (errno.EACCES, errno.EPERM, errno.EROFS)  # a package that others installed, a home folder of nobody
READING = ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")


class UntrustedError(OSError):
    """A file that must not be run: others could have written it, or it is no file."""


class Place:
    """One folder. given : whether the user named it. refused : why nothing is read from it (None:
    it can be, or is not there yet). unwritable : why nothing is written to it (None: it is, or was
    not tried). unusual : whether the user should know of that.
    """

    def __init__(self, folder: Path, given: bool = False, refused: str | None = None, temporary: bool = False) -> None:
        self.folder, self.temporary = folder, temporary
        self.refused = refused or self._distrust()
        self.unwritable, self._tried = self.refused, self.refused is not None
        self.unusual = given or (self.refused is not None and os.path.isdir(folder))

    def _distrust(self) -> str | None:
        """Why the folder, or one above it, is not to be trusted."""
        try:
            real = Path(os.path.realpath(self.folder))
            for path in (real, *real.parents):
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(path)
                    reason = distrust(found) if path == real else _open_to_all(found)
                    if reason:
                        return reason if path == real else f"{path}: {reason}"
        except OSError as error:
            return describe(error)
        return None

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError, UntrustedError, other OSErrors."""
        flags = os.O_RDONLY
        for each in READING:
            flags |= getattr(os, each, 0)
        with os.fdopen(os.open(self.folder / name, flags), "rb") as file:
            found = os.fstat(file.fileno())
            reason = distrust(found) if stat.S_ISREG(found.st_mode) else "it is no file"
            if reason is None and found.st_size > MOST:
                reason = f"it has {found.st_size} bytes"
            if reason is not None:
                raise UntrustedError(reason)
            return file.read(MOST)

    def remove(self, name: str) -> None:
        """Remove a file, if that is possible."""
        with contextlib.suppress(OSError):
            os.unlink(self.folder / name)

    def write(self, name: str, content: bytes) -> bool:
        """Make a file, whole or not at all; whether that was possible."""
        aside = f".{os.getpid()}-{secrets.token_hex(6)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            with os.fdopen(os.open(self.folder / aside, flags, 0o644), "wb") as file:
                file.write(content)
            os.replace(self.folder / aside, self.folder / name)
        except OSError as error:
            self.remove(aside)
            self._fail(error)
        except BaseException:
            self.remove(aside)
            raise
        return self.unwritable is None

    def _fail(self, error: OSError) -> None:
        self.unwritable = describe(error)
        self.unusual |= error.errno not in USUAL

    def can_write(self) -> bool:
        """Whether there is room for a small file, and nothing was found since that speaks against
        it.
        """
        if not self._tried:
            self._tried = True
            try:
                missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
                for path in reversed(missing):
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(path, 0o755)  # whatever the umask: others must not be able to write
                self.unwritable = self.refused = self._distrust()
                if self.refused is None:
                    self._sweep()
                    probe = f".{os.getpid()}-{secrets.token_hex(6)}.probe.part"
                    self.write(probe, bytes(PROBE))
                    self.remove(probe)
            except OSError as error:
                self._fail(error)
        return self.unwritable is None

    def _sweep(self) -> None:
        """Remove what killed processes left."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.name.endswith((".part", ".lock")) and time.time() - entry.stat().st_mtime > STALE:
                        os.unlink(entry.path)


def distrust(found: os.stat_result) -> str | None:
    """Why this user should not run what is there; None where nothing speaks against it."""
    if not hasattr(os, "geteuid"):
        return None
    if found.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {found.st_uid}, not to you"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write to it (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def _open_to_all(found: os.stat_result) -> str | None:
    """Why nothing below such a folder is safe: everybody can put another in its place."""
    if hasattr(os, "geteuid") and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        return f"others can write to it (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def describe(error: Exception) -> str:
    """What the system says, without the path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Places:
    """The folders in order; at most one note in a process on what is wrong with them."""

    def __init__(self, places: list[Place]) -> None:
        self.places = places
        self._whole = self._told = False

    def _all(self) -> Iterator[Place]:
        """The last place, for temporary files, is looked for only where no other will do."""
        yield from tuple(self.places)
        if not self._whole:
            self._whole = True
            with contextlib.suppress(OSError):
                number = os.geteuid() if hasattr(os, "geteuid") else ""
                folder = Path(tempfile.gettempdir()).absolute() / f"fsp_dynamics-{number}" / "kernels"
                self.places.append(Place(folder, temporary=True))
                yield self.places[-1]

    def readable(self) -> Iterator[Place]:
        """The folders to look into, in order. Whether a folder can be written to is tried
        when what was wanted is not in it.
        """
        for place in self._all():
            if place.refused is None:
                yield place
                if place.can_write():
                    return
            if place.unusual:
                self.explain()

    def writable(self) -> Place | None:
        """The folder to write to; None if there is none."""
        return next((place for place in self._all() if place.can_write()), None)

    def write(self, name: str, content: bytes) -> None:
        """Make a file in the first folder that takes it, if any does."""
        for place in self._all():
            if place.can_write():
                if place.write(name, content):
                    return
                self.explain()

    def explain(self) -> None:
        """Tell the user where kernels are kept if that is not the usual place."""
        kept = self.writable()
        passed = self.places if kept is None else self.places[: self.places.index(kept)]
        reasons = "; ".join(f"{place.folder}: {place.unwritable}" for place in passed)
        if kept is None:
            self.tell(
                f"compiled kernels are kept nowhere and every process compiles its own ({reasons}); "
                "name a folder that you alone can write to in NUMBA_CACHE_DIR"
            )
        elif any(place.unusual for place in passed) or kept.temporary:
            self.tell(
                f"compiled kernels are kept in {kept.folder} ({reasons}); "
                "name a folder that you alone can write to in NUMBA_CACHE_DIR"
            )

    def tell(self, text: str) -> None:
        """A note, the first time."""
        if not self._told:
            self._told = True
            warnings.warn(text, UserWarning, stacklevel=2)


def places() -> Places:
    """The folders of this process, as the environment and Numba's configuration name them now."""
    return _places(str(getattr(config, "CACHE_DIR", "") or ""), str(user_cache() or ""))


@lru_cache(maxsize=8)
def _places(given: str, cache: str) -> Places:
    found = [Place(KERNELS / "__pycache__" / "kernels")]
    if cache:
        found.append(Place(Path(cache) / NAME))
    if given:
        try:
            found.insert(0, Place(expanded(given, "NUMBA_CACHE_DIR").absolute() / NAME, given=True))
        except (ConfigurationError, OSError) as error:
            found.insert(0, Place(Path(given), given=True, refused=describe(error)))
    return Places(found)
