"""Where a configuration comes from: a preset, a TOML file, a run folder, dotted overrides; and
how a bad one is refused.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fsp_dynamics.errors import ConfigurationError, nearest
from fsp_dynamics.experiments import former_names
from fsp_dynamics.experiments.config import PRESET_NOTES, UNSAID, Config, config_of, fields, flatten
from fsp_dynamics.experiments.toml_file import parse_toml, read_toml
from fsp_dynamics.folders import expanded

PRESETS = Path(__file__).parent / "presets"
SHORT = {"epochs": "learning.epochs"}
UNSET = "none"


def presets(family: str | None = None) -> list[str]:
    """The names of the presets; family: of those of this family alone.

    Returns
    -------
    list of str : in alphabetical order.

    >>> "digits" in presets(), "digits" in presets("layerwise")
    (True, False)
    """
    names = sorted(path.stem for path in PRESETS.glob("*.toml"))
    if family is None:
        return names
    return [name for name in names if _family(read_toml(PRESETS / f"{name}.toml"), {}) == family]


def load_config(
    source: str | Path | Config | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> tuple[str, Config]:
    """(name, configuration) of a preset, a TOML file, a run folder, a nested mapping or another
    configuration.

    overrides : {dotted key, or `epochs`: value}; tables may be given as mappings. None takes back
    what the source gives: the key has its default value again. The notes of the source are about
    it as it is: they are left out where an override makes another experiment of it. Raises
    ConfigurationError, in one line: the source, the key, its value, what was expected and where to
    change it. Former keys and values are read, with a note (former_names.py).

    Returns
    -------
    tuple of str and Config : a name for the run's folder, and the configuration.

    >>> name, config = load_config("digits", {"epochs": 3, "network.hidden": [50, 20]})
    >>> name, config.learning.epochs, config.network.hidden
    ('digits', 3, (50, 20))
    """
    name, label, table = _table_of(source)
    given = flatten(_copy(overrides or {}))
    family = _family(table, given)
    kind = config_of(family)
    flat = _full_keys(given, kind)
    _one_source_of_data(table, flat)
    if any(not key.startswith(UNSAID) for key in flat):
        table.pop("notes", None)
    for key, value in flat.items():
        _put(table, key, value)
    _absolute_path(table, Path())
    if family == "rate":
        former_names.translate(table)
    return name, _validate(kind, label, table, flat)


def config_kind(
    source: str | Path | Config | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> type[Config]:
    """The class of the configuration that `load_config` would return. Raises ConfigurationError
    where the source cannot be read, and for an unknown family.
    """
    return config_of(_family(_table_of(source)[2], flatten(_copy(overrides or {}))))


def to_toml(config: Config) -> str:
    """The whole configuration as TOML; keys without a value, and notes without a word, are left
    out.
    """
    table = config.table(exclude_none=True)
    table["notes"] = {key: value for key, value in table["notes"].items() if value != ""}
    return _table(table, "").lstrip("\n")


def read_value(text: str) -> Any:
    """An override from the command line: a TOML value, a comma-separated list of them, a bare
    string, or `none`, which takes back what the preset or file gives.

    >>> read_value("64,32"), read_value("1e-3"), read_value(".5"), read_value("one-sided")
    ([64, 32], 0.001, 0.5, 'one-sided')
    >>> read_value("none") is None
    True
    """
    if text.lower() == UNSET:
        return None
    # which TOML does not know
    if re.fullmatch(r"[+-]?(\d+\.|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
        return float(text)
    for candidate in (text, f"[{text}]" if "," in text else text):
        try:
            table = parse_toml(f"value = {candidate}")
        except ValueError:
            continue
        if list(table) == ["value"]:
            return table["value"]
    return [read_value(part.strip()) for part in text.split(",")] if "," in text else text


def _table_of(source: str | Path | Config | Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """(name, label for messages, nested table) of a source, which is not modified later."""
    if isinstance(source, Config):
        return source.data.label, "configuration", source.table(exclude_none=True)
    if isinstance(source, Mapping):
        return "custom", "configuration", _copy(source)
    return _read(source)


def _one_source_of_data(table: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """An override of data.name replaces the table's data.path, and the other way round."""
    data = table.get("data")
    for key, other in (("path", "name"), ("name", "path")):
        if overrides.get(f"data.{key}") is not None and f"data.{other}" not in overrides and isinstance(data, dict):
            data.pop(other, None)


def _absolute_path(table: dict[str, Any], folder: Path) -> None:
    """Make data.path absolute, so that the run can be resumed from anywhere."""
    data = table.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str) and data["path"]:
        data["path"] = str((folder / expanded(data["path"], "data.path")).absolute())


def _family(table: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    return str(overrides.get("family", table.get("family", "rate")))


def _read(source: str | Path) -> tuple[str, str, dict[str, Any]]:
    path = expanded(source, "source")
    if str(source) in presets():
        return str(source), f"preset {source}", read_toml(PRESETS / f"{source}.toml")
    if path.is_dir() and (path / "config.toml").is_file():
        return path.name, str(path / "config.toml"), read_toml(path / "config.toml")
    if path.is_file():
        table = read_toml(path)
        _absolute_path(table, path.parent)  # a path in a file is relative to that file
        return path.stem, str(path), table
    if path.suffix == ".toml" or len(path.parts) > 1 or path.exists():
        raise ConfigurationError(
            f"{source}: no such file or run folder; give a TOML file, a run folder or a preset ({', '.join(presets())})"
        )
    raise ConfigurationError(
        f"preset {str(source)!r} is unknown; {nearest(str(source), presets())}, or give a file that ends in .toml"
    )


def _copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def _full_keys(given: Mapping[str, Any], kind: type[Config]) -> dict[str, Any]:
    """Overrides by their full dotted keys, each of them known."""
    known, flat = fields(kind), {}
    for name, value in given.items():
        key = SHORT.get(name, name)
        if key in PRESET_NOTES:
            raise ConfigurationError(
                f"option {name!r} is a note of a preset; leave it out: what a run measured is in its summary.json"
            )
        if key not in known and key not in former_names.KEYS:
            close = [full for full in known if full.rpartition(".")[2] == key]
            close = close or difflib.get_close_matches(key, [*known, *SHORT], n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"it begins with one of {', '.join(kind.model_fields)}"
            raise ConfigurationError(f"option {name!r} is unknown; {hint}")
        flat[key] = value
    return flat


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a nested table, or with None remove it."""
    *sections, last = key.split(".")
    for section in sections:
        below = table.setdefault(section, {})
        if not isinstance(below, dict):
            return  # not a table where one must be: the validation refuses it
        table = below
    if value is None:
        table.pop(last, None)
    else:
        table[last] = value


def _validate(kind: type[Config], label: str, table: dict[str, Any], overrides: Iterable[str]) -> Config:
    _refuse_negative_zero(label, table, frozenset(overrides))
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        # a misspelt key first: it is also why another one is missing
        details = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise ConfigurationError(_explain(fields(kind), label, details[0], frozenset(overrides)) + more) from None


def _explain(known: Mapping[str, str], label: str, detail: ErrorDetails, overrides: frozenset[str]) -> str:
    """One line: source, key, value, expected, remedy."""
    location = [str(part) for part in detail["loc"] if isinstance(part, str)]
    key, index = ".".join(location), "".join(f"[{part}]" for part in detail["loc"] if isinstance(part, int))
    if detail["type"] == "value_error":
        message = str(detail["ctx"]["error"])
        own = any(message.startswith(name) for name in overrides)
        return f"{_with(label, own, overrides)}: {message}"
    label = _with(label, key in overrides, ())
    meaning = known.get(key, "")
    if detail["type"] == "extra_forbidden":
        siblings = {
            name.split(".")[len(location) - 1]
            for name in known
            if name.split(".")[: len(location) - 1] == location[:-1]
        }
        return f"{label}: {key} is no key of a configuration; {nearest(location[-1], siblings)}"
    if detail["type"] == "missing":
        return (
            f"{label}: {key} is missing ({meaning}); add it, or override {key}"
            if meaning
            else f"{label}: the table [{key}] is missing; add it"
        )
    if not meaning:
        return f"{label}: {key} = {_shown(detail['input'])}, expected a table; write its keys under [{key}]"
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("Input should have ")
    remedy = "give another value" if key in overrides else f"change it there or override {key}"
    return f"{label}: {key}{index} = {_shown(detail['input'])}, expected {expected} ({meaning}); {remedy}"


def _refuse_negative_zero(label: str, table: Mapping[str, Any], overrides: frozenset[str]) -> None:
    """-0.0 is 0 to every comparison and below it to what draws numbers."""
    for key, value in flatten(table).items():
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(number, float) and number == 0 and math.copysign(1, number) < 0:
                remedy = "give 0.0" if key in overrides else f"write 0.0 there, or override {key}"
                raise ConfigurationError(
                    f"{_with(label, key in overrides, ())}: {key} = -0.0, expected a number without that sign; {remedy}"
                )


def _shown(value: Any) -> str:
    """The value in at most a hundred characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, tables in tables
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= 100 else f"{text[:97]}..."


def _with(label: str, own: bool, overrides: Iterable[str]) -> str:
    """The source as a message names it: an override itself, or the file with the overrides that
    were put into it.
    """
    names = ", ".join(sorted(overrides))
    return "override" if own else f"{label} with {names}" if names else label


def _table(table: Mapping[str, Any], name: str) -> str:
    """TOML of one table: its own keys, then its sub-tables."""
    own = "".join(f"{key} = {_literal(value)}\n" for key, value in table.items() if not isinstance(value, Mapping))
    head = f"\n[{name}]\n" if own and name else ""
    below = "".join(
        _table(value, f"{name}.{key}" if name else key) for key, value in table.items() if isinstance(value, Mapping)
    )
    return head + own + below


def _literal(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
