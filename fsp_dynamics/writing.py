"""Files written whole: aside, to the disk, and renamed into place; a file that grows, line by line.

Errors of the disk name the file. The system names it where a file is opened; where it is written
to (a full disk, a quota, a limit on its size, a lost share) it does not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fsp_dynamics.reading import open_file


def write_aside(path: Path, content: bytes) -> None:
    """Write `content` to a file beside `path`, to the disk, and rename it into place: `path` is
    the old one or the new one, never half.

    Raises OSError, which names `path`, if the disk refuses; nothing is then left behind.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        try:
            aside.unlink(missing_ok=True)
            with open_file(aside, flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode="wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):  # it may be gone with its folder, or the disk with it
                aside.unlink()
            raise
    sync_folder(path.parent)


def append(path: Path, content: bytes) -> None:
    """Add `content` to the end of a file, which is made if there is none; on the disk when this
    returns. Raises OSError, which names `path`; a link is not followed (NotAFileError).
    """
    with naming(path), open_file(path, flags=os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode="ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remove_aside(folder: Path) -> None:
    """Remove what a killed process left half written. Only while no other process writes here."""
    for aside in folder.glob(".*.tmp"):
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """OSErrors of the block name `path`, in place of no file or of the one beside it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename == os.fspath(path):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # folders cannot be opened on every system
    try:
        # nor synchronised on every file system; the rename itself is done
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
