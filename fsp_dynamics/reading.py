"""Files from elsewhere are read with a limit, and only where they are files.

What stands under a name may have been replaced since it was written: by a link, a pipe that never
ends, a device, or gigabytes of zeros. Such a thing is refused before anything of it is read, and
JSON that is nested too deeply or holds what JSON does not know is no JSON.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fsp_dynamics.errors import CheckpointError, FspError, NotAFileError

MEGABYTE = 1 << 20
DEEPEST = 40  # levels of tables and lists in JSON
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def open_file(path: Path, *, follow: bool = False, flags: int = os.O_RDONLY, mode: str = "rb") -> Iterator[IO[bytes]]:
    """The file at `path`, open for the block. follow : a link to a file is taken for the file.

    Raises NotAFileError for anything that is no file, FileNotFoundError, and what else the system
    raises.
    """
    # a pipe would wait for its other end
    more = os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        number = os.open(path, flags | more, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV):
            raise NotAFileError(_no_file(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise NotAFileError(_no_file(path))
    with os.fdopen(number, mode) as file:
        yield file


def read_file(
    path: Path, limit: int, *, follow: bool = False, error: type[FspError] = CheckpointError, remedy: str = "restore it"
) -> bytes:
    """The content of a file of at most `limit` bytes. Raises `error` for a longer one, and as
    `open_file`.
    """
    with open_file(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > limit else file.read(limit + 1)
        if size > limit or len(content) > limit:
            raise error(f"{path} has {max(size, len(content))} bytes, expected at most {limit}; {remedy}")
        return content


def parse_json(content: bytes | str, *, finite: bool = True) -> Any:
    """What the JSON says. Raises ValueError for what is none: NaN and infinity (unless finite is
    False), one key twice, and more than `DEEPEST` levels included.
    """
    try:
        found = json.loads(content, parse_constant=_refuse_constant if finite else float, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not is_shallow(found, DEEPEST):
        raise ValueError("it is nested too deeply")
    return found


def is_there(path: Path) -> bool:
    """Whether anything stands under that name, were it a link to nothing."""
    return os.path.lexists(path)


def _no_file(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
        what = next((name for test, name in _KINDS if test(mode)), "no file")
    except OSError:
        what = "no file"
    return f"{path} is {what}, expected a file; put the file itself in its place"


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def is_shallow(value: Any, levels: int) -> bool:
    """Whether tables and lists are nested in at most so many levels."""
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(is_shallow(each, levels - 1) for each in inner)
