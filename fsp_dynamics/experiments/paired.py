"""Options compared with a baseline, seed by seed, in one JSON file.

    variants    stored summaries (stored.py): baselines, and options in the place of some of their
                keys
    options     {name, baseline, option}: what is compared, the variants by the digest of their
                configuration
    sha256      of both

A seed draws the same initial weights for both, and the same order of images where both draw as many
random numbers in an epoch (augmentation, weight noise and mirror phases draw more). So what both
have in common leaves the difference d = error(option) - error(baseline) of a seed; its mean and
95 % interval over seeds are those of `sweeps.table.interval`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fsp_dynamics.errors import CheckpointError, ConfigurationError
from fsp_dynamics.experiments.config import format_differences
from fsp_dynamics.experiments.records import ENVIRONMENT, REMEDY, Check, Record, checked, read_table
from fsp_dynamics.experiments.stored import FinishedRun, Stored, digest_of, experiment_differences, extended
from fsp_dynamics.experiments.sweeps.table import interval
from fsp_dynamics.writing import write_aside

FILE: dict[str, Check] = {
    **dict.fromkeys(("variants", "options"), ENVIRONMENT["resumed"]),
    "sha256": ENVIRONMENT["config_sha256"],
}
OPTION: dict[str, Check] = {
    "name": ENVIRONMENT["command"],
    **dict.fromkeys(("baseline", "option"), ENVIRONMENT["config_sha256"]),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One error with and without an option, in percent, over the seeds that both have.

    baseline, option : means. mean, low, high : of the difference, option minus baseline, with the
        95 % interval of the mean; None where there are too few seeds.
    """

    seeds: tuple[int, ...]
    baseline: float | None
    option: float | None
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """An option and its baseline."""

    name: str
    baseline: Stored
    option: Stored

    @property
    def keys(self) -> dict[str, tuple[Any, Any]]:
        """{dotted key: (baseline, option)} of what the option changes."""
        return experiment_differences(self.baseline.config, self.option.config)

    def difference(self, key: str = "test_error") -> Difference:
        """`Difference` of that field of the seeds' records."""
        before, after = (
            {record["seed"]: record[key] for record in each.seeds if record.get(key) is not None} for each in self.both
        )
        seeds = tuple(seed for seed in before if seed in after)
        mean, _, low, high = interval([after[seed] - before[seed] for seed in seeds])
        without, with_it = (interval([found[seed] for seed in seeds])[0] for found in (before, after))
        return Difference(seeds, without, with_it, mean, low, high)

    @property
    def both(self) -> tuple[Stored, Stored]:
        """The baseline, and what it is compared with."""
        return self.baseline, self.option

    def check(self) -> None:
        """Raises ConfigurationError where nothing can be compared."""
        if not self.keys:
            raise ConfigurationError(
                f"option {self.name!r} changes no key of its baseline; give the runs of another configuration"
            )
        if self.baseline.data != self.option.data:
            raise ConfigurationError(
                f"option {self.name!r} was trained with other images than its baseline; train both with the same"
            )
        if not self.difference().seeds:
            raise ConfigurationError(
                f"option {self.name!r} and its baseline have no seed in common; train both with the same seeds"
            )

    def require_same(self, other: Comparison) -> None:
        """Raises ConfigurationError, with what differs, where `other` compares something else."""
        for what, here, there in zip(("baseline", "option"), self.both, other.both, strict=True):
            differing = experiment_differences(here.config, there.config)
            if differing:
                raise ConfigurationError(
                    f"option {self.name!r} is stored with another {what}: {format_differences(differing)}; "
                    "give it another name"
                )


@dataclass(frozen=True, slots=True)
class Comparisons:
    """All that the file holds, in the order in which it came."""

    found: tuple[Comparison, ...] = ()

    def as_record(self) -> Record:
        """As the file holds it; each variant once."""
        variants = {each.digest: each for comparison in self.found for each in comparison.both}
        options = [
            {"name": each.name, "baseline": each.baseline.digest, "option": each.option.digest} for each in self.found
        ]
        content: Record = {"variants": [each.as_record() for each in variants.values()], "options": options}
        return {**content, "sha256": digest_of(content)}

    @classmethod
    def of(cls, found: Record, where: str) -> Self:
        """From the file. Raises as `Stored.of`."""
        for part, checks in ((found, FILE), *((each, OPTION) for each in found.get("options", []))):
            missing = [key for key in checks if key not in part]
            if missing:
                raise CheckpointError(f"{where}: {missing[0]} is missing; {REMEDY}")
            checked(part, checks, where)
        if found["sha256"] != digest_of({key: value for key, value in found.items() if key != "sha256"}):
            raise CheckpointError(f"{where}: sha256 is not that of what it holds; {REMEDY}")
        variants = [Stored.of(each, f"{where}: variants[{place}]") for place, each in enumerate(found["variants"])]
        known = {each.digest: each for each in variants}
        try:
            pairs = [Comparison(o["name"], known[o["baseline"]], known[o["option"]]) for o in found["options"]]
        except KeyError as error:
            raise CheckpointError(f"{where}: no variant has the digest {error}; {REMEDY}") from None
        return cls(tuple(pairs))

    def with_option(
        self,
        name: str,
        preset: str,
        baseline: Sequence[FinishedRun],
        option: Sequence[FinishedRun],
        *,
        replacing: bool = False,
    ) -> tuple[Self, dict[Path, str]]:
        """(these and that option, {folder: why it was left out}); more seeds of one that is there
        are added to it, and to every option that has the same baseline.

        preset : of the baseline. replacing : as `stored.extended` has it; an option of that name
        that was another makes way. Raises ConfigurationError for runs that do not belong together,
        for an option that changes nothing, and for one that shares no seed with its baseline.
        """
        sides: list[Stored] = []
        left: dict[Path, str] = {}
        for runs in (baseline, option):
            known = [each for comparison in self.found for each in comparison.both]
            same = [each for each in known if not experiment_differences(each.config, runs[0].config)]
            side, out = extended(same[0] if same else None, preset, runs, replacing=replacing)
            sides.append(side)
            left |= out
        new = Comparison(name, *sides)
        new.check()
        before = next((each for each in self.found if each.name == name), None)
        if before and not replacing:
            before.require_same(new)
        updated = {side.digest: side for side in sides}
        found = {
            each.name: Comparison(each.name, *(updated.get(side.digest, side) for side in each.both))
            for each in self.found
        }
        return type(self)(tuple({**found, name: new}.values())), left


def read_comparisons(path: Path) -> Comparisons:
    """What that file holds; nothing if there is none. Raises as `Comparisons.of`."""
    found = read_table(path, FILE)
    return Comparisons.of(found, str(path)) if found else Comparisons()


def write_comparisons(path: Path, content: Comparisons) -> None:
    """Write the file; it is the old one or the new one, never half."""
    write_aside(path, json.dumps(content.as_record(), indent=1, allow_nan=False).encode() + b"\n")
