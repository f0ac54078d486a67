"""What a sweep is: its grid, its seeds, its members with their names; and `sweep.json`, which
records them in its folder.

A member is one configuration of the grid with one seed, in a folder of its own that is named from
both (`beta=0.5-seed=0`). Keys in a name are the last parts of dotted keys where these are
unambiguous, in the order of the configuration, values as the configuration holds them.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import CheckpointError, ConfigurationError, RunExistsError
from fsp_dynamics.experiments import former_names
from fsp_dynamics.experiments.config import Config, fields, flatten, format_differences
from fsp_dynamics.experiments.config_io import SHORT, config_kind, load_config, read_value
from fsp_dynamics.experiments.folder import Record, RunFolder, plain
from fsp_dynamics.reading import parse_json, read_file
from fsp_dynamics.writing import write_aside

FILE = "sweep.json"
# letters of a name before its end is replaced by a digest; file systems take 255 bytes
LONGEST = 120
DEPTH, RATES, EPOCHS = "network.hidden", "learning.rates.forward", "learning.epochs"


@dataclass(frozen=True, slots=True)
class Planned:
    """A member before it runs: its name, its values by dotted key, its seed, its configuration."""

    name: str
    values: Record
    seed: int
    config: Config


@dataclass(frozen=True, slots=True)
class Plan:
    """The members of a sweep that was requested.

    source : its name. fields : the dotted keys of the grid, in the order of the configuration.
    members : all of them, checked.
    """

    source: str
    fields: tuple[str, ...]
    members: tuple[Planned, ...]


def make_plan(
    source: str | Path | Config | Mapping[str, Any],
    seeds: int | Sequence[int],
    grid: Mapping[str, Iterable[Any]],
    overrides: Mapping[str, Any],
) -> Plan:
    """Every value of the grid with every other and with every seed. Raises ConfigurationError for
    the first that is no configuration.

    seeds : how many, from 0 on, or which. grid : {dotted key, or the end of one that no other key
    has: values}.
    """
    given = {SHORT.get(key, key) for key, value in flatten(dict(overrides)).items() if value is not None}
    if "seed" in given:
        raise ConfigurationError(
            "seed is given for the whole sweep, whose members differ in it; give seeds (seeds=...)"
        )
    known = _keys(config_kind(source, overrides))
    columns = _columns(grid, known)
    keys = tuple(dict.fromkeys(map(former_names.key, columns)))
    for key in columns:
        if key in given:
            raise ConfigurationError(f"{key} is given twice, by the grid and beside it; leave one out")
    members: dict[str, Planned] = {}
    for values in itertools.product(*columns.values()):
        for seed in read_seeds(seeds):
            point = dict(zip(columns, values, strict=True))
            name, config = _member_config(source, {**overrides, **point, "seed": seed}, keys)
            member = _planned(keys, seed, config, known)
            if member.name in members:
                raise ConfigurationError(f"the grid holds {member.name} twice; give each value once")
            members[member.name] = member
    return Plan(name, keys, tuple(members.values()))


def _member_config(
    source: str | Path | Config | Mapping[str, Any], overrides: Mapping[str, Any], keys: Iterable[str]
) -> tuple[str, Config]:
    """`load_config`; where the grid changes the depth, the message says how depths are compared."""
    try:
        return load_config(source, overrides)
    except ConfigurationError as error:
        if DEPTH not in keys or RATES not in str(error):
            raise
        raise ConfigurationError(
            f"{error}; the rates fit one depth, so compare depths in one sweep each (out=...), "
            f"with {RATES} for that depth"
        ) from None


def full_key(given: str, known: Sequence[str]) -> str:
    """The one of the `known` dotted keys that ends in `given`. Raises ConfigurationError if there
    are several or none, with those that are near.

    >>> full_key("beta", ["learning.beta", "learning.rates.forward"])
    'learning.beta'
    """
    if given == "seed":
        raise ConfigurationError(
            "grid field 'seed': every point of the grid is run with each of the seeds; give them as seeds (seeds=...)"
        )
    if given in known:
        return given
    ends = [key for key in known if key.endswith(f".{given}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigurationError(f"grid field {given!r} is ambiguous; give one of: {', '.join(ends)}")
    close = difflib.get_close_matches(given, [*map(_last, known), *known], n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else "expected a key of a configuration, such as learning.beta"
    raise ConfigurationError(f"grid field {given!r} is unknown; {hint}")


def read_grid(texts: Iterable[str]) -> dict[str, list[Any]]:
    """The grid of a command line, FIELD=VALUE,VALUE,... each; a value that is a list stands in
    brackets.

    >>> read_grid(["beta=0.5,1", "rates.forward=[20,7],[30,7]"])
    {'beta': [0.5, 1], 'rates.forward': [[20, 7], [30, 7]]}
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        field, sign, values = text.partition("=")
        pieces = _pieces(values)
        if not (field and sign and all(pieces)):
            raise ConfigurationError(
                f"grid {text!r}, expected FIELD=VALUE,VALUE,... such as beta=0.5,1.0; "
                "a list in brackets: forward=[20,7],[30,7]"
            )
        if field in grid:
            raise ConfigurationError(f"grid field {field!r} is given twice; give all its values at once")
        grid[field] = [_value(piece) for piece in pieces]
    return grid


def read_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Seeds from 0 on, as many as given, or those that are listed, in order. Raises
    ConfigurationError.

    >>> read_seeds(3), read_seeds([7, 2])
    ([0, 1, 2], [2, 7])
    """
    try:
        if isinstance(seeds, bool | str):
            raise TypeError
        found = (
            [operator.index(seed) for seed in seeds]
            if isinstance(seeds, Iterable)
            else list(range(operator.index(seeds)))
        )
    except TypeError:
        found = []
    if not found or min(found) < 0:
        raise ConfigurationError(
            f"seeds = {seeds!r}, expected how many (5 is 0,1,2,3,4) or which, whole numbers from 0 on (3,4,7)"
        )
    return sorted(set(found))


def shown_value(value: Any) -> str:
    """A value as names and tables show it.

    >>> shown_value(1.0), shown_value([20.0, 7.0]), shown_value(False), shown_value(None)
    ('1', '20,7', 'false', 'none')
    """
    if isinstance(value, list | tuple):
        return ",".join(map(shown_value, value)) or "[]"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)


def short_key(key: str, known: Sequence[str]) -> str:
    """The last part of a dotted key, or the whole one where another of the `known` keys has the
    same last part.

    >>> known = ["learning.beta", "data.name", "solver.name"]
    >>> short_key("learning.beta", known), short_key("data.name", known)
    ('beta', 'data.name')
    """
    last = _last(key)
    return last if sum(_last(other) == last for other in known) == 1 else key


def with_known_names(out: Path, plan: Plan) -> Plan:
    """The plan with the names that the sweep in `out` has given its members: they remain when keys
    or values are renamed.
    """
    if not (out / FILE).is_file():
        return plan
    names = {_identity(member["values"], member["seed"]): member["name"] for member in read_sweep(out)["members"]}
    known = (names.get(_identity(member.values, member.seed), member.name) for member in plan.members)
    members = [replace(member, name=name) for member, name in zip(plan.members, known, strict=True)]
    return replace(plan, members=tuple(members))


def enter(out: Path, plan: Plan) -> tuple[tuple[str, ...], list[Record]]:
    """Add what is planned to the sweep in `out`, which is begun if there is none; (fields, all its
    members as `read_sweep` gives them).

    Raises ConfigurationError where `out` holds another sweep, or a member another run;
    RunExistsError where `out` is itself a run. Only while it is locked.
    """
    if RunFolder(out).holds_run():
        raise RunExistsError(f"{out} is a run, not the folder of a sweep; give another folder (out=...)")
    members = {}
    if (out / FILE).is_file():
        stored = read_sweep(out)
        _check_same(out, stored, plan)
        members = {member["name"]: member for member in stored["members"]}
        _check_lengths(out, members, plan)
    for member in plan.members:
        _check_member(out / member.name, member.config)
        members[member.name] = {
            "name": member.name,
            "values": member.values,
            "seed": member.seed,
            "epochs": member.config.learning.epochs,
        }
    content = {
        "source": plan.source,
        "fields": plan.fields,
        "configuration": plan.members[0].config.table(exclude_none=True),
    }
    text = json.dumps(plain({**content, "members": list(members.values())}), indent=1, allow_nan=False)
    write_aside(out / FILE, text.encode() + b"\n")
    return plan.fields, _in_order(plan.fields, members.values())


def read_sweep(out: Path) -> Record:
    """The content of `sweep.json`: source, fields, configuration (of one member), and members
    (name, values, seed, epochs) in the order of their values.

    Raises ConfigurationError where there is none, CheckpointError where it cannot be understood.
    """
    try:
        found = former_names.sweep(parse_json(read_file(out / FILE, 1 << 26)))
        return {**found, "members": _in_order(found["fields"], found["members"])}
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(
            f"{out} holds no sweep (no {FILE}); give the folder of one (by default in sweeps/)"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{out / FILE} is damaged; restore it, or remove it and sweep again: finished runs are kept"
        ) from None


def _planned(keys: tuple[str, ...], seed: int, config: Config, known: Sequence[str]) -> Planned:
    flat = flatten(config.table())
    values = {key: list(flat[key]) if isinstance(flat[key], tuple) else flat[key] for key in keys}
    words = "-".join(f"{short_key(key, known)}={shown_value(value)}" for key, value in values.items())
    safe = re.sub(r"[^\w.,=+\[\]-]", lambda match: f"%{ord(match[0]):02x}", words, flags=re.ASCII)
    if len(safe) > LONGEST:
        safe = f"{safe[:LONGEST]}~{hashlib.sha256(safe.encode()).hexdigest()[:10]}"
    return Planned("-".join(filter(None, [safe, f"seed={seed}"])), values, seed, config)


def _columns(grid: Mapping[str, Iterable[Any]], known: Sequence[str]) -> dict[str, list[Any]]:
    """{dotted key: values} in the order of the configuration."""
    columns: dict[str, list[Any]] = {}
    if not isinstance(grid, Mapping):
        raise ConfigurationError(f"grid = {grid!r}, expected fields with their values, such as {{'beta': [0.5, 1.0]}}")
    for given, values in grid.items():
        key = full_key(given, [*known, *former_names.KEYS])
        if key in columns:
            raise ConfigurationError(f"grid field {key} is given twice; give all its values at once")
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
            raise ConfigurationError(
                f"grid field {given!r} has the values {values!r}, expected a list of values, such as [0.5, 1.0]"
            )
        columns[key] = [value.tolist() if hasattr(value, "tolist") else value for value in values]
        if not columns[key]:
            raise ConfigurationError(f"grid field {given!r} has no values; give one or more, or leave it out")
    return {key: columns[key] for place in known for key in columns if former_names.key(key) == place}


def _check_same(out: Path, stored: Record, plan: Plan) -> None:
    differing = (
        {}
        if set(stored["fields"]) == set(plan.fields)
        else {"the grid": (_listed(stored["fields"]), _listed(plan.fields))}
    )
    free = {"seed", *stored["fields"], *plan.fields}
    there = load_config(stored["configuration"])[1].differences(plan.members[0].config)
    differing |= {key: values for key, values in there.items() if key not in free}
    if differing:
        raise ConfigurationError(
            f"{out} holds another sweep: {format_differences(differing)}; "
            "give the same one, with more seeds or values, or another folder (out=...)"
        )


def _check_lengths(out: Path, stored: Mapping[str, Record], plan: Plan) -> None:
    """Refuse to mix runs of different length, of which no mean would mean anything."""
    if EPOCHS in plan.fields:
        return
    epochs = plan.members[0].config.learning.epochs
    left = {name: member for name, member in stored.items() if name not in {each.name for each in plan.members}}
    others = [name for name, member in left.items() if member["epochs"] != epochs]
    if others:
        before = stored[others[0]]["epochs"]
        remedy = "ask for as many" if before > epochs else "give their seeds and values as well, so that all go on"
        raise ConfigurationError(
            f"{EPOCHS} = {epochs}, but {out} holds {len(others)} runs of {before} epochs that are not among those "
            f"asked for now ({others[0]}{', ...' if len(others) > 1 else ''}); {remedy}, "
            "or give another folder (out=...)"
        )


def _check_member(folder: Path, config: Config) -> None:
    files = RunFolder(folder)
    if not files.holds_run():
        return
    differing = files.config().differences(config)
    if differing:
        raise ConfigurationError(
            f"{folder} was begun with another configuration: {format_differences(differing)}; "
            "move it away, or give another folder (out=...)"
        )
    done = len(files.metrics())
    if done > config.learning.epochs:
        raise ConfigurationError(
            f"learning.epochs = {config.learning.epochs}, but {folder} has finished {done}; ask for as many or more"
        )


def _in_order(keys: Iterable[str], members: Iterable[Record]) -> list[Record]:
    """By values, numbers by size and others in the order given, then by seed."""
    members, keys = list(members), list(keys)
    came = {key: list({json.dumps(member["values"][key]): None for member in members}) for key in keys}

    def place(member: Record) -> tuple[Any, ...]:
        each = [(member["values"][key], came[key]) for key in keys]
        return *(
            (0, value) if is_number(value) else (1, known.index(json.dumps(value))) for value, known in each
        ), member["seed"]

    return sorted(members, key=place)


def is_number(value: Any) -> bool:
    """Whether a value of a configuration is a number (true and false are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pieces(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return [piece.strip() for piece in pieces] if depth == 0 else [""]


def _value(piece: str) -> Any:
    if piece.startswith("[") and piece.endswith("]"):
        return [_value(each) for each in _pieces(piece[1:-1]) if each]
    return read_value(piece)


def _keys(kind: type[Config]) -> list[str]:
    """The keys of a grid: all but the seed, the family and the notes, which are no part of the
    experiment.
    """
    return [key for key in fields(kind) if key not in ("seed", "family") and not key.startswith("notes.")]


def _identity(values: Record, seed: int) -> str:
    return json.dumps([plain(values), seed], sort_keys=True)


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(keys) or "none"
