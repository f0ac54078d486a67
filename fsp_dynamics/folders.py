"""The user's folders: home, cache, and paths that begin with a tilde.

All of it works without a home folder; nothing is looked for, or made, in a folder called `~`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError

NO_HOME = "there is no home folder (HOME is not set to one, and the system knows none for this user)"


def home() -> Path | None:
    """The home folder: $HOME if it is an absolute path, else the system's entry for this user; None
    if there is neither.
    """
    given = os.environ.get("USERPROFILE" if os.name == "nt" else "HOME", "")
    if os.path.isabs(given):
        return Path(given)
    try:
        import pwd

        found = pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):
        return None
    return Path(found) if os.path.isabs(found) else None


def expanded(path: str | Path, field: str) -> Path:
    """The path with `~` and `~user` at its beginning replaced. field : where the path comes from,
    for the message. Raises ConfigurationError if there is no such folder.

    >>> expanded("runs/a", "out").parts
    ('runs', 'a')
    """
    first, *rest = Path(path).parts or (".",)
    if not first.startswith("~"):
        return Path(path)
    if first == "~":
        found, why = home(), NO_HOME
    else:
        named = Path(os.path.expanduser(first))
        found, why = (named if named.is_absolute() else None), f"the system knows no user {first[1:]!r}"
    if found is None:
        raise ConfigurationError(f"{field} = {str(path)!r}, but {why}; give the whole path")
    return found.joinpath(*rest)


def expanded_source(source: Any, field: str) -> Any:
    """What may be a path or something else, a path with its tilde replaced. Raises
    ConfigurationError.
    """
    return expanded(source, field) if isinstance(source, str | Path) and str(source).startswith("~") else source


def user_cache() -> Path | None:
    """The user's cache folder of this package, which may not exist yet; None without a home folder
    and without a variable of the system that names another.
    """
    if os.name == "nt":
        return _below("LOCALAPPDATA", "AppData/Local", "fsp_dynamics/fsp_dynamics/Cache")
    if sys.platform == "darwin":
        return _below("", "Library/Caches", "fsp_dynamics")
    return _below("XDG_CACHE_HOME", ".cache", "fsp_dynamics")


def _below(variable: str, usual: str, name: str) -> Path | None:
    """`name` in the folder that the variable names, if that is an absolute path, else in the usual
    one of the home folder.
    """
    given = os.environ.get(variable, "")
    try:
        root = expanded(given, variable)
    except ConfigurationError:
        root = Path()
    if root.is_absolute():
        return root / name
    own = home()
    return None if own is None else own / usual / name
