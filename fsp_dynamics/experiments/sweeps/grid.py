"""The grid of a sweep and its seeds, as they are given: which keys they name, and the values of
each.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import former_names
from fsp_dynamics.experiments.config import Config, fields
from fsp_dynamics.experiments.config_io import SHORT, read_value


def full_key(given: str, known: Sequence[str], what: str = "grid") -> str:
    """The one of the `known` dotted keys that ends in `given`; `epochs` are those of the run
    wherever a key may be given. Raises ConfigurationError if there are several or none, with those
    that are near. what : where the key is given, for messages.

    >>> full_key("beta", ["learning.beta", "learning.rates.forward"])
    'learning.beta'
    """
    if given == "seed":
        raise ConfigurationError(
            f"{what} field 'seed': every point of the grid is run with each of the seeds; "
            "give them as seeds (seeds=...)"
        )
    whole = SHORT.get(given, given)
    if whole in known:
        return whole
    ends = [key for key in known if key.endswith(f".{given}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigurationError(f"{what} field {given!r} is ambiguous; give one of: {', '.join(ends)}")
    close = difflib.get_close_matches(given, [*map(_last, known), *known], n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else "expected a key of a configuration, such as learning.beta"
    raise ConfigurationError(f"{what} field {given!r} is unknown; {hint}")


def read_grid(texts: Iterable[str], what: str = "grid") -> dict[str, list[Any]]:
    """The grid of a command line, FIELD=VALUE,VALUE,... each; a value that is a list stands in
    brackets. what : the option, for messages.

    >>> read_grid(["beta=0.5,1", "rates.forward=[20,7],[30,7]"])
    {'beta': [0.5, 1], 'rates.forward': [[20, 7], [30, 7]]}
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        field, sign, values = text.partition("=")
        pieces = _pieces(values)
        if not (field and sign and all(pieces)):
            raise ConfigurationError(
                f"{what} {text!r}, expected FIELD=VALUE,VALUE,... such as beta=0.5,1.0; "
                "a list in brackets: forward=[20,7],[30,7]"
            )
        if field in grid:
            raise ConfigurationError(f"{what} field {field!r} is given twice; give all its values at once")
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
    same last part and `full_key` would not know which is meant.

    >>> known = ["learning.beta", "data.name", "solver.name"]
    >>> short_key("learning.beta", known), short_key("data.name", known)
    ('beta', 'data.name')
    """
    last = _last(key)
    if SHORT.get(last) == key:
        return last
    return last if sum(_last(other) == last for other in known) == 1 else key


def values_of(text: str) -> list[Any]:
    """Values with commas between them, as `read_grid` has them; [] for none.

    >>> values_of("0.5,[20,7]")
    [0.5, [20, 7]]
    """
    pieces = _pieces(text)
    return [_value(piece) for piece in pieces] if all(pieces) else []


def columns_of(grid: Mapping[str, Iterable[Any]], known: Sequence[str], what: str = "grid") -> dict[str, list[Any]]:
    """{dotted key: values} in the order of the configuration. what : where they are given, for
    messages.
    """
    columns: dict[str, list[Any]] = {}
    if not isinstance(grid, Mapping):
        raise ConfigurationError(
            f"{what} = {grid!r}, expected fields with their values, such as {{'beta': [0.5, 1.0]}}"
        )
    for given, values in grid.items():
        key = full_key(given, [*known, *former_names.KEYS], what)
        if key in columns:
            raise ConfigurationError(f"{what} field {key} is given twice; give all its values at once")
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
            raise ConfigurationError(
                f"{what} field {given!r} has the values {values!r}, expected a list of values, such as [0.5, 1.0]"
            )
        columns[key] = [value.tolist() if hasattr(value, "tolist") else value for value in values]
        if not columns[key]:
            raise ConfigurationError(f"{what} field {given!r} has no values; give one or more, or leave it out")
    return {key: columns[key] for place in known for key in columns if former_names.key(key) == place}


def grid_keys(kind: type[Config]) -> list[str]:
    """The keys of a grid: all but the seed, the family and the notes, which are no part of the
    experiment.
    """
    return [key for key in fields(kind) if key not in ("seed", "family") and not key.startswith("notes.")]


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


def _last(key: str) -> str:
    return key.rpartition(".")[2]
