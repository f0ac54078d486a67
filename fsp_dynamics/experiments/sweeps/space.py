"""The points of a sweep: every value of a grid with every other, values in pairs, and random draws.

=========================  =======================================================================
given                      points
=========================  =======================================================================
grid                       every value of each key with every value of the others
pairs                      the first values of all keys together, then the second, and so on
random                     so many draws, of all keys together
=========================  =======================================================================

All of one kind are combined with all of the others. A draw depends on its number, the seed of the
draws and the key alone, so that more draws are the same ones and more.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_choice, is_whole
from fsp_dynamics.experiments import former_names
from fsp_dynamics.experiments.folder import Record
from fsp_dynamics.experiments.sweeps.grid import columns_of, values_of

KINDS = ("uniform", "log", "integer", "choice")
DRAWS = 20
DIGITS = 4  # of a number that is drawn, so that names stay legible
TRIES = 100  # for each draw, where many draws are alike


@dataclass(frozen=True, slots=True)
class Distribution:
    """From what a value is drawn.

    kind : uniform between low and high; log, uniform in the logarithm; integer, low to high
        inclusive; choice, one of `values`.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[Any, ...] = ()

    def draw(self, rng: np.random.Generator) -> Any:
        """One value, a number with `DIGITS` significant digits."""
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        if self.kind == "integer":
            return int(rng.integers(int(self.low), int(self.high) + 1))
        share = rng.random()
        if self.kind == "log":
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True, slots=True)
class Draws:
    """Random points.

    random : {key: text of a distribution} (`read_distribution`). count : how many points. seed :
        of the draws.
    """

    random: Mapping[str, str] = field(default_factory=dict)
    count: int = DRAWS
    seed: int = 0

    def as_record(self) -> Record:
        """As sweep.json keeps it."""
        return {"random": dict(self.random), "draws": self.count, "draw_seed": self.seed}


def space(
    grid: Mapping[str, Iterable[Any]], pairs: Mapping[str, Iterable[Any]], draws: Draws, known: list[str]
) -> tuple[list[str], list[Record]]:
    """(dotted keys in the order of the configuration, {key: value} of each point). known : all
    dotted keys. Raises ConfigurationError for a key that is none, or given twice, and for pairs of
    different length.
    """
    columns, paired = columns_of(grid, known), columns_of(pairs, known, "pairs")
    drawn = {
        key: read_distribution(key, text)
        for key, (text,) in columns_of({key: [text] for key, text in draws.random.items()}, known, "random").items()
    }
    parts: tuple[Mapping[str, Any], ...] = (columns, paired, drawn)
    for one, other in itertools.combinations(parts, 2):
        for key in one:
            if key in other:
                raise ConfigurationError(f"{key} is given twice, in two of grid, pairs and random; leave one out")
    lengths = {key: len(values) for key, values in paired.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} has {count}" for key, count in lengths.items())
        raise ConfigurationError(f"pairs of different length: {listed} values; give as many of each")
    for name, value, least in (("draws", draws.count, 1), ("draw_seed", draws.seed, 0)):
        if not is_whole(value, least):
            raise ConfigurationError(f"{name} = {value!r}, expected a whole number, {least} or more")
    combined = itertools.product(
        [dict(zip(columns, values, strict=True)) for values in itertools.product(*columns.values())],
        [dict(zip(paired, values, strict=True)) for values in zip(*paired.values(), strict=True)] or [{}],
        list(_drawn(drawn, draws)) or [{}],
    )
    given = sorted([*columns, *paired, *drawn], key=lambda key: known.index(former_names.key(key)))
    return given, [{key: {**one, **two, **three}[key] for key in given} for one, two, three in combined]


def read_random(texts: Iterable[str]) -> dict[str, str]:
    """{key: distribution} of a command line, FIELD=KIND:VALUES each. Raises ConfigurationError.

    >>> read_random(["beta=log:0.1,10"])
    {'beta': 'log:0.1,10'}
    """
    found: dict[str, str] = {}
    for text in texts:
        key, sign, distribution = text.partition("=")
        if not (key and sign):
            raise ConfigurationError(f"random {text!r}, expected FIELD=KIND:VALUES; give such as beta=log:0.1,10")
        if key in found:
            raise ConfigurationError(f"random field {key!r} is given twice; give it once")
        found[key] = distribution
    return found


def read_distribution(key: str, text: str) -> Distribution:
    """The distribution that a text describes. Raises ConfigurationError.

    >>> read_distribution("learning.beta", "log:0.1,10")
    Distribution(kind='log', low=0.1, high=10.0, values=())
    >>> read_distribution("learning.rule", "choice:hebbian,gradient").values
    ('hebbian', 'gradient')
    """
    kind, sign, rest = str(text).partition(":")
    if not sign:
        raise ConfigurationError(
            f"random {key} = {text!r}, expected KIND:VALUES; give such as uniform:0.5,2, log:1,100, integer:5,50 "
            "or choice:hebbian,gradient"
        )
    check_choice(f"random {key}", kind, KINDS)
    values = values_of(rest)
    if kind == "choice":
        if not values:
            raise ConfigurationError(f"random {key} = {text!r} has no values; give one or more, with commas")
        return Distribution(kind, values=tuple(values))
    numeric = len(values) == 2 and all(type(v) in (int, float) and math.isfinite(v) for v in values)
    if not numeric or not values[0] < values[1] or (kind == "log" and values[0] <= 0):
        above = " above 0" if kind == "log" else ""
        raise ConfigurationError(
            f"random {key} = {text!r}, expected two numbers{above} after {kind}:, the smaller first; "
            f"give such as {kind}:1,10"
        )
    if kind == "integer" and not all(type(v) is int for v in values):
        raise ConfigurationError(
            f"random {key} = {text!r}, expected whole numbers after integer:; give uniform: for others"
        )
    return Distribution(kind, float(values[0]), float(values[1]))


def _drawn(columns: Mapping[str, Distribution], draws: Draws) -> Iterator[Record]:
    """So many different points, or all that there are."""
    if not columns:
        return
    seen: set[str] = set()
    for number in range(TRIES * draws.count):
        point = {
            key: each.draw(np.random.default_rng([draws.seed, number, *key.encode()])) for key, each in columns.items()
        }
        text = json.dumps(point)
        if text not in seen:
            seen.add(text)
            yield point
        if len(seen) == draws.count:
            return
