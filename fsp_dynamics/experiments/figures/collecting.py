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

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import execution, runner
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.figures import variants
from fsp_dynamics.experiments.folder import Record, RunFolder, run_folders
from fsp_dynamics.experiments.progress import EpochReporter
from fsp_dynamics.experiments.rate.building import require_rate
from fsp_dynamics.experiments.rate.config import RateConfig
from fsp_dynamics.experiments.records import commits_of

PER_EPOCH = 10  # records of the angles within an epoch of a run that is made for a figure
_MAKE = "train_missing() makes what is missing"


@dataclass(frozen=True, slots=True)
class FigureRun:
    """A run in a figure.

    folder : where it is. variant : which (`variants.variant_of`). metrics, probes : its records.
    environment : its environment.json.
    """

    folder: Path
    config: RateConfig
    variant: str
    metrics: list[Record]
    probes: list[Record]
    environment: Record

    @property
    def has_gain(self) -> bool:
        """Whether the gain of its loop is measured: a hard sigmoid makes it piecewise linear."""
        return self.config.network.kind == "loop" and self.config.network.rho == "hard_sigmoid"

    @property
    def epochs(self) -> int:
        """How many it has finished."""
        return len(self.metrics)

    @property
    def commits(self) -> list[str]:
        """The commits of the code it was trained with (`records.commits_of`)."""
        return commits_of(self.environment)


def gather(
    folders: Sequence[str | Path], wanted: Callable[[RateConfig], Collection[str]], seeds: Collection[int] | None = None
) -> list[FigureRun]:
    """The runs at or below these folders whose variant is among `wanted` of their configuration;
    of these seeds alone, if given.

    Raises ConfigurationError where a folder is missing, where a run that was itself given is of
    another variant or family, and where nothing is left.
    """
    found: dict[Path, FigureRun] = {}
    for root in map(Path, folders):
        for path in _runs_below(root):
            given = RunFolder(path).config()
            if not isinstance(given, RateConfig) and path != root:
                continue
            config = require_rate(given, "a figure")
            name = variants.variant_of(config)
            if name is None or name not in wanted(config):
                if path == root:
                    raise ConfigurationError(
                        f"{root} is {_described(config, name)}, expected one of: {', '.join(wanted(config))}; "
                        "leave it out, or give a folder of runs"
                    )
                continue
            if seeds is None or config.seed in seeds:
                files = RunFolder(path)
                found.setdefault(
                    path.resolve(),
                    FigureRun(path, config, name, files.metrics(), files.probes(), files.read_json("environment.json")),
                )
    if not found:
        which = "" if seeds is None else f" of seed {', '.join(map(str, seeds))}"
        raise ConfigurationError(f"{', '.join(map(str, folders))}: no run{which} that the figure can show; {_MAKE}")
    return list(found.values())


def check_complete(name: str, members: Sequence[FigureRun], needed: Sequence[str]) -> None:
    """Raises ConfigurationError if a variant that figure `name` needs is not there."""
    missing = [each for each in needed if each not in {m.variant for m in members}]
    if missing:
        keys = "; ".join(f"{each}: {_keys(each)}" for each in missing)
        raise ConfigurationError(
            f"figure {name} lacks {', '.join(missing)} among its {len(members)} runs; {_MAKE}, or train them ({keys})"
        )


def check_alike(members: Sequence[FigureRun], tuned: bool) -> None:
    """Raises ConfigurationError for runs that differ in more than their variant and seed."""
    variants.require_alike([(str(m.folder), m.config) for m in members], tuned)


def default_folder(source: str | Path, overrides: Mapping[str, Any]) -> Path:
    """Where the runs of a preset's figures are kept: runs/figure-PRESET, with a digest for each
    other configuration.
    """
    name, config = load_config(source, overrides)
    _, preset = load_config(source)
    if not set(preset.differences(config)) - {"seed"}:
        return Path("runs") / f"figure-{name}"
    decisive = {key: value for key, value in config.experiment().items() if key != "seed"}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / f"figure-{name}-{digest}"


def provide(
    base: RateConfig,
    names: Sequence[str],
    folder: Path,
    seeds: Sequence[int],
    reporter: EpochReporter,
    *,
    report: Callable[[str], None] = lambda text: None,
    data_dir: str | Path | None = None,
    threads: int | None = None,
) -> list[Path]:
    """Train each variant of `base` with each seed, unless `folder` holds that run, finished; the
    folders of all of them.

    A run that was stopped, or has fewer epochs, is resumed. Angles are recorded about `PER_EPOCH`
    times an epoch unless probes.every is given. report : called with a line for each run that
    begins.

    Raises what `runner.train` raises, and ConfigurationError for a `base` whose loop is not
    learned.
    """
    kind = variants.variant_of(base)
    if kind != variants.LEARNED:
        raise ConfigurationError(
            f"the configuration is {_described(base, kind)}, expected a learned loop, whose variants are trained; "
            "give another preset"
        )
    base = _with_angles(base, data_dir)
    known = {path: RunFolder(path).config() for path in (_runs_below(folder) if folder.is_dir() else ())}
    made = []
    for seed in seeds:
        for name in names:
            config = require_rate(load_config(variants.variant(base, name), {"seed": seed})[1], "a figure")
            path = next(
                (p for p, other in known.items() if not other.differences(config)),
                folder / f"{name.replace(' ', '-')}-{seed}",
            )
            finished = path in known and len(RunFolder(path).metrics()) >= config.learning.epochs
            if not finished:
                report(f"training: {name}, seed {seed}, in {path}")
                runner.run(
                    config, RunFolder(path), reporter, resume=True, data_dir=data_dir, threads=threads, command="figure"
                )
            made.append(path)
    return made


def _with_angles(base: RateConfig, data_dir: str | Path | None) -> RateConfig:
    """`base` with angles recorded within its epochs."""
    if base.probes.every:
        return base
    images = len(execution.load_data(base.data, data_dir).train.labels)
    batches = -(-images // base.learning.batch)
    return require_rate(load_config(base, {"probes.every": max(1, batches // PER_EPOCH)})[1], "a figure")


def _runs_below(root: Path) -> list[Path]:
    """The folder itself if it is a run, else the runs below it."""
    if RunFolder(root).holds_run():
        return [root]
    if not root.is_dir():
        raise ConfigurationError(
            f"{root} is no folder, so there are no runs; give the folder of a run or of runs, or {_MAKE}"
        )
    return run_folders(root)


def _described(config: RateConfig, name: str | None) -> str:
    if name is not None:
        return name
    learning, scale = config.learning, config.network.loop_scale
    return (
        f"no variant of a figure (learning.rule {learning.rule}, learning.frozen {list(learning.frozen)}, "
        f"network.loop_scale {scale})"
    )


def _keys(name: str) -> str:
    """The keys that make a variant."""
    known = {
        variants.LEARNED: "the preset as it is",
        variants.RECIPROCAL: "network.kind = reciprocal",
        variants.EXACT: "learning.rule = gradient",
        variants.PERCEPTRON: "learning.rule = gradient, network.loop_scale = 0, learning.frozen = loop",
        variants.FIXED: "learning.frozen = loop",
    }
    return known.get(name) or f"learning.frozen = forward[{int(name.removeprefix('W').removesuffix(' fixed')) - 1}]"
