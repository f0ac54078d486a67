"""What a sweep is: its grid, its seeds, its members with their names; and `sweep.json`, which
records them in its folder.

A member is one point of the space (space.py) with one seed, in a folder of its own that is named
from both (`beta=0.5-seed=0`). Keys in a name are the last parts of dotted keys where these are
unambiguous, in the order of the configuration, values as the configuration holds them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import CheckpointError, ConfigurationError, RunExistsError
from fsp_dynamics.experiments import former_names
from fsp_dynamics.experiments.config import Config, flatten, format_differences
from fsp_dynamics.experiments.config_io import SHORT, config_kind, load_config
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.records import plain
from fsp_dynamics.experiments.sweeps.grid import grid_keys, read_seeds, short_key, shown_value
from fsp_dynamics.experiments.sweeps.space import Draws, space
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

    source : its name. fields : the dotted keys in which members differ, in the order of the
    configuration. members : all of them, checked. drawn : from what values were drawn; {} if none
    were.
    """

    source: str
    fields: tuple[str, ...]
    members: tuple[Planned, ...]
    drawn: Record = field(default_factory=dict)


def make_plan(
    source: str | Path | Config | Mapping[str, Any],
    seeds: int | Sequence[int],
    grid: Mapping[str, Iterable[Any]],
    overrides: Mapping[str, Any],
    pairs: Mapping[str, Iterable[Any]] | None = None,
    draws: Draws | None = None,
) -> Plan:
    """Every point of the space (space.py) with every seed. Raises ConfigurationError for the first
    that is no configuration.

    seeds : how many, from 0 on, or which. grid, pairs : {dotted key, or the end of one that no
    other key has: values}. draws : random points; None: none.
    """
    given = {SHORT.get(key, key) for key, value in flatten(dict(overrides)).items() if value is not None}
    if "seed" in given:
        raise ConfigurationError(
            "seed is given for the whole sweep, whose members differ in it; give seeds (seeds=...)"
        )
    known = grid_keys(config_kind(source, overrides))
    draws = draws or Draws()
    columns, found = space(grid, pairs or {}, draws, known)
    keys = tuple(dict.fromkeys(map(former_names.key, columns)))
    for key in columns:
        if key in given:
            raise ConfigurationError(f"{key} is given twice, by the grid and beside it; leave one out")
    members: dict[str, Planned] = {}
    for point in found:
        for seed in read_seeds(seeds):
            name, config = _member_config(source, {**overrides, **point, "seed": seed}, keys)
            member = _planned(keys, seed, config, known)
            if member.name in members:
                raise ConfigurationError(f"the grid holds {member.name} twice; give each value once")
            members[member.name] = member
    return Plan(name, keys, tuple(members.values()), draws.as_record() if draws.random else {})


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
            f"{error}; the rates fit one depth, so give both as pairs (pairs=...): {DEPTH} with {RATES} for each depth"
        ) from None


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
    members, drawn = {}, [plan.drawn] if plan.drawn else []
    if (out / FILE).is_file():
        stored = read_sweep(out)
        _check_same(out, stored, plan)
        members = {member["name"]: member for member in stored["members"]}
        drawn = [*stored.get("drawn", []), *(each for each in drawn if each not in stored.get("drawn", []))]
        _check_lengths(out, members, plan)
    for member in plan.members:
        _check_member(out / member.name, member.config)
        members[member.name] = {
            "name": member.name,
            "values": member.values,
            "seed": member.seed,
            "epochs": member.config.learning.epochs,
        }
    content: Record = {
        "source": plan.source,
        "fields": plan.fields,
        "configuration": plan.members[0].config.table(exclude_none=True),
    }
    content |= {"drawn": drawn} if drawn else {}
    text = json.dumps(plain({**content, "members": list(members.values())}), indent=1, allow_nan=False)
    write_aside(out / FILE, text.encode() + b"\n")
    return plan.fields, _in_order(plan.fields, members.values())


def read_sweep(out: Path) -> Record:
    """The content of `sweep.json`: source, fields, configuration (of one member), members (name,
    values, seed, epochs) in the order of their values, and drawn (`Draws`), where any were.

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


def _identity(values: Record, seed: int) -> str:
    return json.dumps([plain(values), seed], sort_keys=True)


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(keys) or "none"
