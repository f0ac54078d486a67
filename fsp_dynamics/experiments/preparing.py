"""What a run is made of, from the arguments of `runner.train` to a trainer before its first epoch.
Everything is checked here, and nothing is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.errors import ConfigurationError, RunExistsError, check_positive
from fsp_dynamics.experiments import execution, resuming
from fsp_dynamics.experiments.backend import NUMBA, Backend, backend_of
from fsp_dynamics.experiments.callbacks import Callback, Callbacks, EarlyStopping
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.import_path import as_modules, is_import_path
from fsp_dynamics.experiments.jobs import ranks
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.own import OwnObjects
from fsp_dynamics.experiments.progress import EpochReporter, Progress, run_reporter
from fsp_dynamics.experiments.restoring import check_allowed
from fsp_dynamics.experiments.session import SAVE_MINUTES
from fsp_dynamics.experiments.trainer import Resources, Trainer, trainer_of
from fsp_dynamics.folders import expanded, expanded_source
from fsp_dynamics.training.ranks import Ranks


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A run that could begin. restored : a state of the folder is to be restored. allowed : keys
    of the configuration that may differ from it.
    """

    trainer: Trainer
    data: Dataset
    callbacks: Callbacks
    objects: Objects
    restored: bool
    allowed: tuple[str, ...]


def arranged(
    source: str | Path | Config | Mapping[str, Any] | None = None,
    *,
    network: Any = None,
    data: Dataset | str | Path | Mapping[str, Any] | None = None,
    rule: Any = None,
    activation: Any = None,
    epochs: int | None = None,
    callbacks: Iterable[Callback] = (),
    out: str | Path | None = None,
    resume: bool = False,
    allow: Sequence[str] = (),
    progress: Progress | EpochReporter = True,
    data_dir: str | Path | None = None,
    threads: int | None = None,
    backend: Backend | str = NUMBA,
    device: str | None = None,
    products: str | None = None,
    allow_import: Sequence[str] = (),
    save_minutes: float = SAVE_MINUTES,
    **overrides: Any,
) -> dict[str, Any]:
    """The arguments of `runner.train` as those of `runner.run`: all but `command`. Raises
    ConfigurationError, RunExistsError.
    """
    backend, source = backend_of(backend, device, products), expanded_source(source, "source")
    is_run = isinstance(source, str | Path) and RunFolder(Path(source)).holds_run()
    if isinstance(network, Mapping):  # the table [network] of the configuration
        network, overrides = None, {**overrides, "network": network}
    if isinstance(data, Mapping):
        data, overrides = None, {**overrides, "data": data}
    named = [each.partition(":")[0] for each in (rule, activation) if isinstance(each, str) and is_import_path(each)]
    allowed = (*as_modules(allow_import), *named) if _is_from_a_run(source) else None
    own = OwnObjects(network, data, rule, activation, allowed)
    more = overrides if epochs is None else {**overrides, "epochs": epochs}
    name, config = own.configure(source, more)
    if out is None and is_run and not resume:
        raise RunExistsError(
            f"{source} is a run; resume it (resume=True) or give a folder for another one of the same kind (out=...)"
        )
    if out is None:
        out = Path(source) if is_run else Path("runs") / f"{name}-{config.seed}"  # type: ignore[arg-type]
    if not isinstance(callbacks, Iterable):
        raise ConfigurationError(f"callbacks = {callbacks!r}, expected a list of functions, such as [{callbacks!r}]")
    return {
        "config": config,
        "folder": RunFolder(expanded(out, "out")),
        "reporter": run_reporter(progress),
        "resume": resume,
        "allow": allow,
        "data_dir": data_dir,
        "threads": threads,
        "backend": backend,
        "objects": own.objects(config),
        "network": network,
        "callbacks": tuple(callbacks),
        "save_minutes": save_minutes,
    }


def _is_from_a_run(source: object) -> bool:
    """Whether the source is a run folder, or the config.toml in one."""
    if not isinstance(source, str | Path):
        return False
    path = Path(source)
    folder = path.parent if path.name == "config.toml" else path
    return RunFolder(folder).holds_run() and (folder / "environment.json").is_file()


def prepared(
    held: contextlib.ExitStack,
    job: Ranks,
    config: Config,
    folder: RunFolder,
    reporter: EpochReporter,
    *,
    resume: bool,
    allow: Sequence[str],
    data_dir: str | Path | None,
    threads: int | None,
    backend: Backend,
    objects: Objects | None,
    network: Any,
    callbacks: Sequence[Callback],
    save_minutes: float,
) -> Prepared:
    """Refuse what cannot be trained, in the order of what it costs to find out, and build the
    trainer. held : until it is closed, threads are limited, and then the reporter is closed too.
    Arguments and errors are those of `runner.train`.
    """
    check_positive("save_minutes", save_minutes)
    held.callback(reporter.close)
    reporter.stage("loading")
    objects = Objects(None) if objects is None else objects
    if not resume:
        folder.refuse_occupied()
    backend.refuse_one_gpu_for_several(job.count)
    restored = resume and folder.holds_run()
    kind, allowed = trainer_of(config.family), check_allowed(allow, type(config))
    if restored and job.rank == 0:
        resuming.check(config, folder, allowed, reporter.note)
    resources = Resources(backend, job, ranks.local_rank(), objects=objects, restored=restored)
    kind.check(config, resources)
    hooks = Callbacks((*_early_stopping(config), *callbacks))
    data = execution.load_data(config.data, data_dir, objects)
    trainer = kind.build(config, data, resources, None if restored else network)
    kernels = ranks.local_share(execution.cores()) if job.count > 1 else None
    held.enter_context(execution.thread_limit(threads, kernels))
    return Prepared(trainer, data, hooks, objects, restored, allowed)


def _early_stopping(config: Config) -> list[Callback]:
    patience = config.learning.patience
    return [] if patience is None else [EarlyStopping(patience)]
