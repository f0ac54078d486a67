"""`train`: a run from its configuration to its folder, epoch by epoch, resumable after each of
them and within them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.errors import ConfigurationError, RunExistsError, check_positive
from fsp_dynamics.experiments import execution, resuming
from fsp_dynamics.experiments.backend import NUMBA, Backend, backend_of
from fsp_dynamics.experiments.callbacks import Callback, Callbacks, EarlyStopping
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.folder import ObservedFolder, RunFolder
from fsp_dynamics.experiments.import_path import as_modules, is_import_path
from fsp_dynamics.experiments.jobs import ranks
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.own import OwnObjects
from fsp_dynamics.experiments.progress import EpochReporter, Output, Progress, RunReporter, run_reporter
from fsp_dynamics.experiments.restoring import check_allowed
from fsp_dynamics.experiments.run import Run, open_run
from fsp_dynamics.experiments.session import SAVE_MINUTES, Session
from fsp_dynamics.experiments.stopping import SAME, Interrupted, stoppable
from fsp_dynamics.experiments.trainer import Resources, trainer_of
from fsp_dynamics.folders import expanded, expanded_source


def train(
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
) -> Run:
    """Train a network and keep everything in a run folder.

    Started by `torchrun` in several processes, all of them train it together
    (experiments/jobs/ranks.py); the first one writes.

    Parameters
    ----------
    source : a preset, a TOML file, a run folder (to resume), a `Config` or a nested mapping. None:
        the preset `digits`, its rates fitted to the layers of `network`.
    network : a `Network` to begin with, in place of one drawn from the seed; it is not modified.
    data : a `Dataset`, the name of a set, or a path (`datasets.read_dataset`), in place of the
        configuration's.
    rule : a learning rule: a name, an object or class (`learning.rules.Rule`), or an import path.
    activation : a firing rate: a name, an `Activation`, or an import path.
    epochs : how many, in all.
    callbacks : called after each epoch with its record and the network; one that returns False or
        raises `StopTraining` ends the run as finished early (experiments/callbacks.py).
    out : the run folder; runs/NAME-SEED if None. One that already holds a run is refused unless
        `resume`.
    resume : go on where the last checkpoint was saved, within an epoch or after one, to the same
        bits as a run that was never stopped; starts a run if there is none. The configuration must
        be the same; only learning.epochs may differ, and what `allow` names.
    allow : dotted keys of the configuration that may be changed where a run is resumed, such as
        "learning.beta"; each change is recorded in environment.json.
    progress : True for bars and lines on stderr, False for silence, or a callable for each epoch's
        record.
    data_dir : where to look for data first. threads : of BLAS and the kernels; None: one for BLAS.
    backend : "numba", or "torch" with device ("auto", "cpu", "cuda", "cuda:1"; None: auto, a GPU
        where there is one) and products ("full", "tf32", "bf16"). A run may be resumed on another
        one.
    allow_import : modules that a run folder (or the config.toml in it) may have imported, where it
        names rules or firing rates by their import path. What any other TOML file or an argument
        names is imported.
    save_minutes : at most so many from one checkpoint to the next, while an epoch is learned. On a
        signal one is saved too: SIGINT, SIGTERM and SIGHUP then stop the run, SIGUSR1 does not.
    overrides : `seed`, tables (learning={"batch": 50}; network= and data= take them too), or
        dotted keys (**{"learning.batch": 50}).

    What no import path leads back to (an object of a notebook, arrays) is reported when the run
    starts; to resume or evaluate such a run, give the object again.

    Raises the package's errors: ConfigurationError, RunExistsError, RunLockedError, DatasetError,
    CheckpointError; NotFiniteError and NoConvergenceError where training fails (what was saved
    before stays); RankLostError where another process of the job is gone; Interrupted, a
    KeyboardInterrupt, after a signal.
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
    means: dict[str, Any] = {"data_dir": data_dir, "threads": threads, "backend": backend}
    reporter = run_reporter(progress)
    if not isinstance(callbacks, Iterable):
        raise ConfigurationError(f"callbacks = {callbacks!r}, expected a list of functions, such as [{callbacks!r}]")
    means |= {"objects": own.objects(config), "network": network, "callbacks": tuple(callbacks)}
    means["save_minutes"] = save_minutes
    return run(config, RunFolder(expanded(out, "out")), reporter, resume=resume, allow=allow, **means)


def _is_from_a_run(source: object) -> bool:
    """Whether the source is a run folder, or the config.toml in one."""
    if not isinstance(source, str | Path):
        return False
    path = Path(source)
    folder = path.parent if path.name == "config.toml" else path
    return RunFolder(folder).holds_run() and (folder / "environment.json").is_file()


def run(
    config: Config,
    folder: RunFolder,
    reporter: EpochReporter,
    *,
    resume: bool = False,
    allow: Sequence[str] = (),
    data_dir: str | Path | None = None,
    threads: int | None = None,
    command: str = "train",
    backend: Backend = NUMBA,
    objects: Objects | None = None,
    network: Any = None,
    callbacks: Sequence[Callback] = (),
    save_minutes: float = SAVE_MINUTES,
) -> Run:
    """Train `config` in `folder`, as in `train`; nothing is written before configuration and data
    are known to be usable. objects : None: what the configuration names may be imported.
    """
    check_positive("save_minutes", save_minutes)
    job, objects = ranks.job(), Objects(None) if objects is None else objects
    if job.rank > 0:
        folder, reporter = ObservedFolder(folder.path), RunReporter(Output())
    with contextlib.ExitStack() as held:
        stop = held.enter_context(stoppable(at_once=True, patience=SAME if job.count > 1 else 0.0))
        with ranks.refused_together(job):
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
            held.enter_context(folder.locked())
            session = Session(
                config, folder, trainer, reporter, stop, data, hooks, objects, [], job, allowed, save_minutes
            )
            environment = functools.partial(execution.environment, config, backend=trainer.description, ranks=job.count)
            if session.writes:
                session.enter(resume, environment, command)
        if not session.writes:
            session.enter(True, environment, command)
        session.work()
    if stop.signum is not None and stop.outer is None:
        raise Interrupted(stop.signum, f"stopped by a signal; the run in {folder.path} is finished")
    return open_run(folder.path, objects=objects)


def _early_stopping(config: Config) -> list[Callback]:
    patience = config.learning.patience
    return [] if patience is None else [EarlyStopping(patience)]
