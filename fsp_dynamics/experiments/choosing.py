"""Records chosen and put in order: `test_error<2`, `data=mnist`, the columns of a list of runs and
the keys of their configurations.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fsp_dynamics.errors import ConfigurationError, nearest
from fsp_dynamics.experiments.config import all_fields
from fsp_dynamics.experiments.config_io import SHORT, read_value
from fsp_dynamics.experiments.overview import Listed
from fsp_dynamics.experiments.records import ANGLE

COLUMNS = (
    *("run", "family", "learner", "data", "hidden", "seed", "status", "epochs", "best_epoch"),
    *("train_error", "valid_error", "test_error", "seconds"),
)
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}


def chosen(runs: Iterable[Listed], conditions: Sequence[str]) -> list[Listed]:
    """The runs that meet every condition, KEY=VALUE or with one of != < <= > >=.

    KEY is a column (`COLUMNS`, angle_loop), a dotted key of the configuration or the end of one
    that no other has. A text may hold * for anything: run=*s0. `none` is a value that is not
    there, which no < or > is true of. Raises ConfigurationError for a condition that is none.
    """
    tests = [_test(text) for text in conditions]
    return [each for each in runs if all(test(each) for test in tests)]


def in_order(runs: Iterable[Listed], key: str, *, backwards: bool = False) -> list[Listed]:
    """By that column or key, numbers by size before texts; runs without a value come last, either
    way. Raises ConfigurationError for a key that is none.
    """
    runs = list(runs)
    value = _reader(key, "sort")
    with_it = [each for each in runs if value(each) is not None]
    with_it.sort(key=lambda each: _place(value(each)), reverse=backwards)
    return [*with_it, *(each for each in runs if value(each) is None)]


def _test(text: str) -> Callable[[Listed], bool]:
    parts = re.fullmatch(r"([^<>=!]+)(<=|>=|!=|=|<|>)(.+)", text)
    if parts is None:
        raise ConfigurationError(
            f"where = {text!r}, expected KEY=VALUE, or another of != < <= > >= in the place of =; "
            "give such as data=mnist or 'test_error<2'"
        )
    key, sign, given = (part.strip() for part in parts.groups())
    value, wanted = _reader(key, "where"), read_value(given)
    if sign not in ("=", "!=") and not _is_number(wanted):
        raise ConfigurationError(f"where = {text!r} compares with {given!r}, expected a number; give = for a text")
    compare = _SIGNS[sign]

    def meets(run: Listed) -> bool:
        found = value(run)
        if sign not in ("=", "!="):
            return _is_number(found) and compare(found, wanted)
        same = fnmatch.fnmatchcase(found, given) if isinstance(found, str) else _plain(found) == _plain(wanted)
        return same is (sign == "=")

    return meets


def _reader(given: str, option: str) -> Callable[[Listed], Any]:
    """What a key reads from a run; None where it has none."""
    if given in COLUMNS:
        return lambda run: run.record.get(given)
    if given.startswith(ANGLE):
        return lambda run: run.record.get("alignment_degrees", {}).get(given.removeprefix(ANGLE))
    known = list(all_fields())
    whole = SHORT.get(given, given)
    keys = [whole] if whole in known else [key for key in known if key.endswith(f".{given}")]
    if len(keys) > 1:
        raise ConfigurationError(f"{option} = {given!r} is ambiguous; give one of: {', '.join(keys)}")
    if not keys:
        names = [*COLUMNS, f"{ANGLE}loop", *known, *(key.rpartition(".")[2] for key in known)]
        found = nearest(given, names).partition("?")
        hint = f"{found[0]}?" if found[1] else f"give a column ({', '.join(COLUMNS)}) or a key of a configuration"
        raise ConfigurationError(f"{option} = {given!r} is no column and no key of a configuration; {hint}")
    return lambda run: None if run.config is None else run.config.key(keys[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """A list for a tuple; a single item for itself, so that hidden=500 finds [500]."""
    if isinstance(value, list | tuple):
        return value[0] if len(value) == 1 else list(value)
    return value


def _place(value: Any) -> tuple[int, Any]:
    return (0, value) if _is_number(value) else (1, str(value))
