"""The learners of one base configuration: what each is trained with, and those that are missing
trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.experiments import runner
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.figures import variants
from fsp_dynamics.experiments.folder import RunFolder, run_folders
from fsp_dynamics.experiments.learners.naming import (
    BACKPROPAGATION,
    FIXED,
    GRADIENT,
    LEARNED,
    LEARNERS,
    MIRROR,
    RECIPROCAL,
    learner_of,
)
from fsp_dynamics.experiments.progress import EpochReporter
from fsp_dynamics.experiments.rate.building import require_rate
from fsp_dynamics.experiments.stored import Stored, experiment_differences
from fsp_dynamics.layerwise import names as layerwise

SHARE = 0.05
"""learning.mirror of the learner with mirror phases, where the base configuration has none."""
_VARIANTS = {
    FIXED: variants.FIXED,
    GRADIENT: variants.EXACT,
    RECIPROCAL: variants.RECIPROCAL,
    BACKPROPAGATION: variants.PERCEPTRON,
}


def configuration(base: Config, learner: str) -> Config:
    """The configuration that is `base`, a learned loop, but for what makes it that one of
    `LEARNERS`. Raises ConfigurationError for another base or learner.

    >>> base = load_config("digits")[1]
    >>> learner_of(configuration(base, "backpropagation"))
    'backpropagation'
    """
    check_choice("learner", learner, LEARNERS)
    base = require_rate(base, "a table of learners")
    if learner_of(base) not in (LEARNED, MIRROR):
        raise ConfigurationError(
            f"the configuration is {learner_of(base)}, expected a learned loop, of which the learners are made; "
            "give another preset"
        )
    if learner in _VARIANTS:
        return variants.variant(base, _VARIANTS[learner])
    return load_config(base, {"learning.mirror": 0.0 if learner == LEARNED else base.learning.mirror or SHARE})[1]


def configurations(base: Config) -> dict[str, Config]:
    """{name of a learner: its configuration} of all learners that a table of this base compares.
    Raises as `configuration`.
    """
    return MAKERS[base.family](base)


def _rate(base: Config) -> dict[str, Config]:
    return {learner: configuration(base, learner) for learner in LEARNERS}


def _layerwise(base: Config) -> dict[str, Config]:
    found = {}
    for learner in layerwise.LEARNERS:
        if learner == base.key("learning.learner"):
            config = base
        elif learner in layerwise.ONLY_UNITS and base.key("network.kind") != "mlp":
            continue
        else:
            config = load_config(base, {"targets": None, "learning.learner": learner})[1]
        found[learner_of(config)] = config
    return found


MAKERS: dict[str, Callable[[Config], dict[str, Config]]] = {"rate": _rate, "layerwise": _layerwise}
"""{family: what makes the learners of a table of a base}."""


def is_same(one: Config, other: Config) -> bool:
    """Whether two configurations are one experiment but for the seed: the rate of a loop that is
    frozen has no effect.
    """
    differing = set(experiment_differences(one, other))
    frozen = all("loop" in (config.key("learning.frozen") or ()) for config in (one, other))
    return not differing - ({"learning.rates.loop"} if frozen else set())


def default_folder(source: str | Path, overrides: Mapping[str, Any]) -> Path:
    """Where the runs are kept: runs/learners-PRESET, with a digest for each other configuration."""
    name, config = load_config(source, overrides)
    if is_same(load_config(source)[1], config):
        return Path("runs") / f"learners-{name}"
    decisive = {key: value for key, value in config.experiment().items() if key != "seed"}
    decisive["learning.epochs"] = config.learning.epochs
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / f"learners-{name}-{digest}"


def train_missing(
    base: Config,
    seeds: Sequence[int],
    folder: Path,
    known: Sequence[Stored],
    reporter: EpochReporter,
    *,
    report: Callable[[str], None] = lambda text: None,
    data_dir: str | Path | None = None,
    threads: int | None = None,
) -> list[Path]:
    """Train each of the `configurations` with each seed, unless it is `known` or `folder` holds
    that run, finished; a run that was stopped is resumed. The folders of those that are not known.

    report : called with a line for each run that begins. Raises what `runner.train` raises.
    """
    there = {path: RunFolder(path).config() for path in (run_folders(folder) if folder.is_dir() else ())}
    made = []
    for seed in seeds:
        for learner, made_config in configurations(base).items():
            config = load_config(made_config, {"seed": seed})[1]
            stored = [each for each in known if is_same(each.config, config)]
            if any(record["seed"] == seed for each in stored for record in each.seeds):
                continue
            path = next(
                (p for p, other in there.items() if other.seed == seed and is_same(other, config)),
                folder / f"{learner.replace('.', '').replace(',', '').replace(' ', '-')}-{seed}",
            )
            if path not in there or len(RunFolder(path).metrics()) < config.learning.epochs:
                report(f"training: {learner}, seed {seed}, in {path}")
                files = RunFolder(path)
                runner.run(config, files, reporter, resume=True, data_dir=data_dir, threads=threads, command="table")
            made.append(path)
    return made
