"""The runs of a figure: found below folders, or trained where they are missing; refused where they
do not belong together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics.datasets import load_dataset
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import runner
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.figures import variants
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.progress import Reporter

PER_EPOCH = 10  # records of the angles within an epoch of a run that is made for a figure
_MAKE = "--train makes what is missing"


@dataclass(frozen=True, slots=True)
class Member:
    """A run in a figure.

    folder : where it is. variant : which (`variants.variant_of`). metrics, probes : its records.
    environment : where it was made.
    """

    folder: Path
    config: Config
    variant: str
    metrics: list[Record]
    probes: list[Record]
    environment: Record

    @property
    def epochs(self) -> int:
        """How many it has finished."""
        return len(self.metrics)

    @property
    def commits(self) -> list[str]:
        """Of the code it was trained with, first to last; + for a changed tree, "unknown" where
        nobody knows.
        """
        parts = [self.environment, *self.environment.get("resumed", [])]
        return list(dict.fromkeys(str(part.get("commit") or "unknown") for part in parts))


def gather(
    folders: Sequence[str | Path], wanted: Callable[[Config], Collection[str]], seeds: Collection[int] | None = None
) -> list[Member]:
    """The runs at or below these folders whose variant is among `wanted` of their configuration;
    of these seeds alone, if given.

    Raises ConfigurationError where a folder is missing, where a run that was itself given is of
    another variant, and where nothing is left.
    """
    found: dict[Path, Member] = {}
    for root in map(Path, folders):
        for path in _runs_below(root):
            config = RunFolder(path).config()
            name = variants.variant_of(config)
            if name is None or name not in wanted(config):
                if path == root:
                    kinds = ", ".join(wanted(config))
                    raise ConfigurationError(
                        f"{root} is {_described(config, name)}, expected one of: {kinds}; leave it out, or give a folder of runs"
                    )
                continue
            if seeds is None or config.seed in seeds:
                files = RunFolder(path)
                found.setdefault(
                    path.resolve(),
                    Member(path, config, name, files.metrics(), files.probes(), files.read_json("environment.json")),
                )
    if not found:
        which = "" if seeds is None else f" of seed {', '.join(map(str, seeds))}"
        raise ConfigurationError(f"{', '.join(map(str, folders))}: no run{which} that the figure can show; {_MAKE}")
    return list(found.values())


def check_complete(name: str, members: Sequence[Member], needed: Sequence[str]) -> None:
    """Raises ConfigurationError if a variant that figure `name` needs is not there."""
    missing = [each for each in needed if each not in {m.variant for m in members}]
    if missing:
        ways = "; ".join(f"{each}: {_way(each)}" for each in missing)
        raise ConfigurationError(
            f"figure {name} lacks {', '.join(missing)} among its {len(members)} runs; {_MAKE}, or fsp train ({ways})"
        )


def check_alike(members: Sequence[Member], tuned: bool) -> None:
    """Raises ConfigurationError for runs that differ in more than their variant and seed."""
    variants.require_alike([(str(m.folder), m.config) for m in members], tuned)


def default_folder(source: str | Path, overrides: Mapping[str, Any]) -> Path:
    """Where the runs of a preset's figures are kept: runs/figure-PRESET, with a mark of its own
    for each other configuration.
    """
    name, config = load_config(source, overrides)
    _, preset = load_config(source)
    if not set(preset.differences(config)) - {"seed"}:
        return Path("runs") / f"figure-{name}"
    decisive = {key: value for key, value in config.experiment().items() if key != "seed"}
    return (
        Path("runs") / f"figure-{name}-{hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]}"
    )


def provide(
    base: Config,
    names: Sequence[str],
    folder: Path,
    seeds: Sequence[int],
    told: Reporter,
    *,
    say: Callable[[str], None] = lambda text: None,
    data_dir: str | Path | None = None,
    threads: int | None = None,
) -> list[Path]:
    """Train each variant of `base` with each seed, unless `folder` holds that run, finished; the
    folders of all of them.

    A run that was stopped, or has fewer epochs, goes on. Angles are recorded about `PER_EPOCH`
    times an epoch unless probes.every says otherwise.
    say : is told what begins.
    Raises what `runner.train` raises, and ConfigurationError for a `base` whose loop is not
    learned.
    """
    kind = variants.variant_of(base)
    if kind != variants.LEARNED:
        raise ConfigurationError(
            f"the configuration is {_described(base, kind)}, expected a learned loop, whose variants are trained; give another preset"
        )
    base = _watched(base, data_dir)
    known = {path: RunFolder(path).config() for path in (_runs_below(folder) if folder.is_dir() else ())}
    made = []
    for seed in seeds:
        for name in names:
            config = load_config(variants.variant(base, name), {"seed": seed})[1]
            path = next(
                (p for p, other in known.items() if not other.differences(config)),
                folder / f"{name.replace(' ', '-')}-{seed}",
            )
            finished = path in known and len(RunFolder(path).metrics()) >= config.learning.epochs
            if not finished:
                say(f"training: {name}, seed {seed}, in {path}")
                runner.run(
                    config, RunFolder(path), told, resume=True, data_dir=data_dir, threads=threads, command="figure"
                )
            made.append(path)
    return made


def _watched(base: Config, data_dir: str | Path | None) -> Config:
    """`base` with angles recorded within its epochs."""
    if base.probes.every:
        return base
    data = load_dataset(base.data.name, data_dir=data_dir, validation=base.data.validation, limit=base.data.limit)
    batches = -(-len(data.train.labels) // base.learning.batch)
    return load_config(base, {"probes.every": max(1, batches // PER_EPOCH)})[1]


def _runs_below(root: Path) -> list[Path]:
    """The folder itself if it is a run, else the runs below it."""
    if RunFolder(root).holds_run():
        return [root]
    if not root.is_dir():
        raise ConfigurationError(
            f"{root} is no folder, so there are no runs; give the folder of a run or of runs (--runs), or {_MAKE}"
        )
    return sorted(path.parent for path in root.rglob("config.toml") if (path.parent / "environment.json").is_file())


def _described(config: Config, name: str | None) -> str:
    if name is not None:
        return name
    learning, scale = config.learning, config.network.loop_scale
    return f"no variant of a figure (learning.rule {learning.rule}, learning.frozen {list(learning.frozen)}, network.loop_scale {scale})"


def _way(name: str) -> str:
    """The options of `fsp train` that make a variant."""
    ways = {
        variants.LEARNED: "the preset as it is",
        variants.RECIPROCAL: "--network.kind reciprocal",
        variants.EXACT: "--learning.rule gradient",
        variants.PERCEPTRON: "--learning.rule gradient --network.loop_scale 0 --learning.frozen loop",
        variants.FIXED: "--learning.frozen loop",
    }
    return ways.get(name) or f"--learning.frozen forward[{int(name.removeprefix('W').removesuffix(' fixed')) - 1}]"
