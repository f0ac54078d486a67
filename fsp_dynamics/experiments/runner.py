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
from fsp_dynamics.experiments import execution
from fsp_dynamics.experiments.backend import NUMBA, Backend
from fsp_dynamics.experiments.callbacks import Callback
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.folder import ObservedFolder, RunFolder
from fsp_dynamics.experiments.jobs import ranks
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.preparing import arranged, prepared
from fsp_dynamics.experiments.progress import EpochReporter, Output, Progress, RunReporter, in_charge
from fsp_dynamics.experiments.run import Run, open_run
from fsp_dynamics.experiments.session import SAVE_MINUTES, Session
from fsp_dynamics.experiments.stopping import SAME, Interrupted, stoppable
from fsp_dynamics.screen import shown_as


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

    Returns
    -------
    Run : the finished run, read back from its folder.

    >>> import fsp_dynamics as fsp
    >>> given = {"network.hidden": [20], "learning.rates.forward": [7.0], "progress": False}
    >>> run = fsp.train("digits", epochs=2, out="runs/first", **given)
    >>> run.summary["status"], len(run.metrics), run.network().sizes
    ('finished', 2, (64, 20, 10))
    >>> 0 < run.evaluate("test").error < 100
    True
    >>> len(fsp.train("runs/first", epochs=3, resume=True, progress=False).metrics)
    3
    """
    given = arranged(
        source,
        network=network,
        data=data,
        rule=rule,
        activation=activation,
        epochs=epochs,
        callbacks=callbacks,
        out=out,
        resume=resume,
        allow=allow,
        progress=progress,
        data_dir=data_dir,
        threads=threads,
        backend=backend,
        device=device,
        products=products,
        allow_import=allow_import,
        save_minutes=save_minutes,
        **overrides,
    )
    with in_charge(given["reporter"]):
        return run(**given)


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
    config, job = config.of_run(), ranks.job()
    if job.rank > 0:
        folder, reporter = ObservedFolder(folder.path), RunReporter(Output())
    with contextlib.ExitStack() as held:
        if job.rank > 0:
            held.enter_context(shown_as("nothing"))
        stop = held.enter_context(stoppable(at_once=True, patience=SAME if job.count > 1 else 0.0))
        with ranks.refused_together(job):
            made = prepared(
                held,
                job,
                config,
                folder,
                reporter,
                resume=resume,
                allow=allow,
                data_dir=data_dir,
                threads=threads,
                backend=backend,
                objects=objects,
                network=network,
                callbacks=callbacks,
                save_minutes=save_minutes,
            )
            held.enter_context(folder.locked())
            session = Session(
                *(config, folder, made.trainer, reporter, stop, made.data, made.callbacks, made.objects, [], job),
                *(made.allowed, save_minutes),
            )
            environment = functools.partial(
                execution.environment, config, backend=made.trainer.description, ranks=job.count
            )
            if session.writes:
                session.enter(resume, environment, command)
        if not session.writes:
            session.enter(True, environment, command)
        session.work()
    if stop.signum is not None and stop.outer is None:
        raise Interrupted(stop.signum, f"stopped by a signal; the run in {folder.path} is finished")
    return open_run(folder.path, objects=made.objects)
