"""TOML read from a file: with a limit on its size and on the levels of its tables, and an error of
one line that names the place.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError, NotAFileError
from fsp_dynamics.reading import is_shallow, read_file

LONGEST = 1 << 18  # bytes; a configuration has some two thousand
DEEPEST = 20  # levels of tables and lists
_DOTS = 100  # in one key


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a TOML file; a link to one is followed. Raises ConfigurationError, NotAFileError
    for a folder, pipe or device.
    """
    try:
        text = read_file(path, LONGEST, follow=True, error=ConfigurationError, remedy="give a TOML file").decode(
            "utf-8-sig"
        )
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path}: not a text file in UTF-8 (byte {error.start}); save the TOML file in that encoding"
        ) from None
    except OSError as error:
        if isinstance(error, NotAFileError):
            raise
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); give a readable TOML file") from None
    try:
        return parse_toml(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        where = f"{path}:{place[1]}:{place[2]}" if place else str(path)
        what = str(error).split(" (at ")[0]
        raise ConfigurationError(f"{where}: not valid TOML: {what}; correct that line") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: not a configuration: {error}; correct it") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text. Raises tomllib.TOMLDecodeError; ValueError for numbers of too many
    digits and for tables or lists nested too deeply.
    """
    for number, line in enumerate(text.splitlines(), 1):
        *keys, last = line.split("=")
        if any(part.count(".") > _DOTS for part in (*keys, *([last] if line.lstrip().startswith("[") else []))):
            raise ValueError(f"the key in line {number} is nested too deeply")
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError("its lists or tables are nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:
        raise ValueError("a number has too many digits") from None
    if not is_shallow(found, DEEPEST):
        raise ValueError("its lists or tables are nested too deeply")
    return found
