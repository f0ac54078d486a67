"""Import paths, ``"package.module:name"``: how a file names what it cannot hold, such as a rule or
an activation of one's own.

The current folder is never searched on its own: a module must be installed, or lie in a folder that
PYTHONPATH (or sys.path, beside the entry for the current folder) names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.machinery
import os
import re
import site
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from fsp_dynamics.errors import ConfigurationError

SCRIPT = ("__main__", "__mp_main__")  # multiprocessing gives the script a second name
PATH = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)")


def is_import_path(text: str) -> bool:
    """Whether the text has the form ``package.module:name``."""
    return PATH.fullmatch(text) is not None


def as_modules(allowed: str | Sequence[str]) -> tuple[str, ...]:
    """The names of modules; one name alone is taken as it is."""
    return (allowed,) if isinstance(allowed, str) else tuple(allowed)


def import_object(path: str, allowed: Sequence[str] | None = None, *, field: str = "import path") -> Any:
    """What the import path names; its module is imported.

    allowed : modules whose names (and those of modules below them) may be imported; None: any.
    field : what messages call the path, such as a configuration key.

    Raises ConfigurationError: not of the form ``package.module:name``, not allowed, no such module
    or name, or a module that fails when it is imported.
    """
    match = PATH.fullmatch(path) if isinstance(path, str) else None
    if match is None:
        raise ConfigurationError(f"{field} = {path!r}, expected the form package.module:name")
    module_name, name = match["module"], match["name"]
    trusted = None if allowed is None else as_modules(allowed)
    if trusted is not None and not any(module_name == m or module_name.startswith(f"{m}.") for m in trusted):
        top = module_name.partition(".")[0]
        raise ConfigurationError(
            f"{field} = {path!r} would import the module {module_name}, which was not allowed; if you trust it, "
            f"give allow_import=({top!r},)"
        )
    try:
        return functools.reduce(getattr, name.split("."), _module(module_name, field, path))
    except AttributeError:
        raise ConfigurationError(
            f"{field} = {path!r}: the module {module_name} has no {name}; see how it is called there"
        ) from None


def import_path_of(thing: Any) -> str:
    """The import path that gives back this very object in another process.

    Functions and classes are looked for in their own module, other objects, such as an
    `Activation`, in the modules of their functions and of their type, then in every module that
    has been imported.

    Raises ConfigurationError for what has no such name: a lambda or a function within a function,
    what was defined in ``__main__`` (a script, a notebook), and what lies in a module that is found
    in the current folder alone.
    """
    what = getattr(thing, "__qualname__", None) or f"{type(thing).__name__} {getattr(thing, 'name', '')!r}"
    remedy = "; define it at the top of a module that is installed or on PYTHONPATH"
    homes = list(dict.fromkeys(_homes(thing)))
    for home in homes:
        for name in _names_in(home, thing):
            if home not in SCRIPT and _findable(home):
                return f"{home}:{name}"
    if "__main__" in homes and not any(home not in SCRIPT and list(_names_in(home, thing)) for home in homes):
        reason = "was defined in a script or a notebook (__main__), which cannot be imported"
    elif named := [home for home in homes if list(_names_in(home, thing))]:
        reason = f"is defined in {named[0]}, which is not found outside the current folder"
    else:
        reason = f"has no name in {', '.join(homes) or 'any module'}"
    raise ConfigurationError(f"{what} {reason}, so no import path leads back to it{remedy}")


@contextlib.contextmanager
def search_without_current_folder() -> Iterator[None]:
    """Within it, sys.path has no entry for the current folder, but those that PYTHONPATH or a
    ``.pth`` file of an installed package names.
    """
    before = list(sys.path)
    sys.path[:] = _trusted(before)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        added = [entry for entry in sys.path if entry not in before]
        sys.path[:] = before + added


def _trusted(entries: Sequence[str]) -> list[str]:
    here = os.path.realpath(os.curdir)
    named = {os.path.realpath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p not in ("", ".")}
    packages = {os.path.realpath(p) for p in (*site.getsitepackages(), site.getusersitepackages())}
    kept, after_packages = [], False
    for entry in entries:
        real = os.path.realpath(entry)
        after_packages |= real in packages
        if real != here or (entry and (here in named or after_packages)):
            kept.append(entry)
    return kept


def _module(name: str, field: str, path: str) -> ModuleType:
    """The imported module. Raises ConfigurationError."""
    if name in SCRIPT:
        raise ConfigurationError(
            f"{field} = {path!r}: __main__ is another script each time; expected an importable module"
        )
    try:
        with search_without_current_folder():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"{field} = {path!r}: there is no module {error.name}; install it, or name its folder in PYTHONPATH "
                "(the current folder is not searched on its own)"
            ) from error
        raise ConfigurationError(_failed(field, path, name, error)) from error
    except Exception as error:
        raise ConfigurationError(_failed(field, path, name, error)) from error


def _failed(field: str, path: str, module: str, error: Exception) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{field} = {path!r}: importing {module} failed ({reason}); mend that module first"


def _homes(thing: Any) -> Iterator[str]:
    """The names of the modules in which it may have been defined, likeliest first."""
    if hasattr(thing, "__qualname__"):  # a function or a class
        yield thing.__module__
        return
    fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
    for value in (getattr(thing, field.name) for field in fields):
        if callable(value) and isinstance(module := getattr(value, "__module__", None), str):
            yield module
    yield type(thing).__module__
    yield from sorted(name for name, module in list(sys.modules.items()) if _holds(module, thing))


def _holds(module: Any, thing: Any) -> bool:
    return isinstance(module, ModuleType) and any(value is thing for value in list(vars(module).values()))


def _names_in(module: str, thing: Any) -> Iterator[str]:
    """The names under which the imported module holds this very object, its own name first."""
    held = sys.modules.get(module)
    own = getattr(thing, "__qualname__", "")
    if held is None:
        return
    if own and "<" not in own:
        with contextlib.suppress(AttributeError):
            if functools.reduce(getattr, own.split("."), held) is thing:
                yield own
    yield from sorted(name for name, value in vars(held).items() if value is thing and name.isidentifier())


def _findable(module: str) -> bool:
    """Whether another process finds the module without the current folder."""
    top = module.partition(".")[0]
    held = sys.modules.get(top)
    with search_without_current_folder():
        spec = importlib.machinery.PathFinder.find_spec(top)
        if spec is None:  # a finder of its own (an editable installation), or built in
            spec = next((found for f in sys.meta_path if (found := _ask(f, top)) is not None), None)
    if spec is None:
        return False
    return held is None or getattr(held.__spec__, "origin", None) in (None, spec.origin) or _same(held, spec.origin)


def _ask(finder: Any, name: str) -> Any:
    find = getattr(finder, "find_spec", None)
    return find(name, None) if find is not None else None


def _same(module: ModuleType, origin: str | None) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file and origin) and os.path.realpath(str(file)) == os.path.realpath(str(origin))
