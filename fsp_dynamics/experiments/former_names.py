"""What keys, values and records were called before, and how they are read now, each with a note:

=============================================  ===================================================
before                                         now
=============================================  ===================================================
solver.method = "secants"                      "broyden"
solver.method = "sweeps"                       "picard"
learning.rule = "exact"                        "gradient"
learning.presynaptic = "deviation"             learning.rule = "mean_subtracted"
learning.presynaptic = "whole"                 left out
unrested, valid_unrested, test_unrested        unconverged, valid_unconverged, test_unconverged
rested in probes.jsonl                         converged
memory/... in a checkpoint                     warm_start/...
=============================================  ===================================================

A configuration without `family` is one of rate networks. Python shows a note once in a process.
"""

from __future__ import annotations

import warnings
from typing import Any

from fsp_dynamics.errors import ConfigurationError

PRESYNAPTIC = "learning.presynaptic"
KEYS = (PRESYNAPTIC,)
"""Dotted keys that are read although no configuration has them."""
VALUES = {
    ("solver", "method"): {"secants": "broyden", "sweeps": "picard"},
    ("learning", "rule"): {"exact": "gradient"},
}
RECORDS = {
    "rested": "converged",
    "unrested": "unconverged",
    "valid_unrested": "valid_unconverged",
    "test_unrested": "test_unconverged",
}

_shown: dict[Any, Any] = {}  # the registry of `warnings`


def translate(table: dict[str, Any]) -> None:
    """Replace former keys and values of a configuration in place, with a note for each. Raises
    ConfigurationError where two of them have become one key and do not agree.
    """
    for (section, key), values in VALUES.items():
        found = table.get(section)
        value = found.get(key) if isinstance(found, dict) else None
        if isinstance(value, str) and value in values:
            found[key] = values[value]  # type: ignore[index]
            _note(f"{section}.{key} = {value!r} is called {values[value]!r} now")
    learning = table.get("learning")
    if isinstance(learning, dict) and "presynaptic" in learning:
        _translate_presynaptic(learning)


def _translate_presynaptic(learning: dict[str, Any]) -> None:
    value, rule = learning.pop("presynaptic"), learning.get("rule", "hebbian")
    if value == "whole":
        _note(f"{PRESYNAPTIC} = 'whole' is what learning.rule = 'hebbian' does; it is left out now")
    elif value != "deviation":
        raise ConfigurationError(
            f"{PRESYNAPTIC} = {value!r}: the key has become learning.rule; "
            "give learning.rule = 'hebbian' or 'mean_subtracted'"
        )
    elif rule in ("hebbian", "mean_subtracted"):
        learning["rule"] = "mean_subtracted"
        _note(f"{PRESYNAPTIC} = 'deviation' is called learning.rule = 'mean_subtracted' now")
    else:
        raise ConfigurationError(
            f"{PRESYNAPTIC} = 'deviation' is learning.rule = 'mean_subtracted' now, "
            f"which cannot be combined with {rule!r}; choose one of the two rules"
        )


def key(given: str) -> str:
    """Today's dotted key of a former one; any other key itself."""
    return "learning.rule" if given == PRESYNAPTIC else given


def sweep(found: dict[str, Any]) -> dict[str, Any]:
    """The content of sweep.json under today's names; its members keep their names."""
    rule = found["configuration"].get("learning", {}).get("rule", "hebbian")
    members = [{**member, "values": _values(member["values"], rule)} for member in found["members"]]
    return {**found, "fields": list(dict.fromkeys(map(key, found["fields"]))), "members": members}


def _values(given: dict[str, Any], rule: str) -> dict[str, Any]:
    """The values of a member of a sweep; rule : what its configuration holds."""
    table: dict[str, Any] = {}
    for name, value in given.items():
        section, _, last = name.rpartition(".")
        table.setdefault(section, {})[last] = value
    if PRESYNAPTIC in given:
        table["learning"].setdefault("rule", rule)
    translate(table)
    return {key(name): table[key(name).rpartition(".")[0]][key(name).rpartition(".")[2]] for name in given}


def record(found: dict[str, Any]) -> dict[str, Any]:
    """A record of metrics.jsonl or probes.jsonl under today's names."""
    former = RECORDS.keys() & found.keys()
    for key in sorted(former):
        _note(f"{key!r} in the records of a run is called {RECORDS[key]!r} now")
    return {RECORDS.get(key, key): value for key, value in found.items()} if former else found


def array_name(key: str) -> str:
    """The name of an array in a checkpoint of format 1, under today's names."""
    part, _, name = key.partition("/")
    return f"{'warm_start' if part == 'memory' else part}/{name}"


def _note(text: str) -> None:
    # at one place, wherever it was read, so that each note is shown once
    warnings.warn_explicit(f"former name: {text}", UserWarning, __file__, 1, __name__, _shown)
