"""`train`: a run from its configuration to its folder, epoch by epoch, resumable after each of
them.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.errors import ConfigurationError, RankLostError, RunExistsError
from fsp_dynamics.experiments import execution
from fsp_dynamics.experiments.backend import NUMBA, Backend, backend_of
from fsp_dynamics.experiments.callbacks import Callback, Callbacks, EarlyStopping
from fsp_dynamics.experiments.checkpoint import has_checkpoint, keep_network, load_checkpoint, save_checkpoint
from fsp_dynamics.experiments.config import Config, format_differences
from fsp_dynamics.experiments.execution import Interrupted, NoConvergenceError, Stop
from fsp_dynamics.experiments.folder import ObservedFolder, Record, RunFolder, best_of, plain
from fsp_dynamics.experiments.import_path import as_modules, is_import_path
from fsp_dynamics.experiments.jobs import ranks
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.own import OwnObjects
from fsp_dynamics.experiments.progress import EpochReporter, Output, Progress, RunReporter, run_reporter
from fsp_dynamics.experiments.run import Run, open_run
from fsp_dynamics.experiments.trainer import Resources, Trainer, trainer_of
from fsp_dynamics.training.ranks import Ranks

PARTS = ("valid", "test")
# of the time it takes to draw passes before the picture is drawn again, so that drawing costs at
# most a twentieth
DRAW_EVERY = 20


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
    progress: Progress | EpochReporter = True,
    data_dir: str | Path | None = None,
    threads: int | None = None,
    backend: Backend | str = NUMBA,
    device: str | None = None,
    products: str | None = None,
    allow_import: Sequence[str] = (),
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
    resume : go on after the last finished epoch, to the same bits as a run that was never stopped;
        starts a run if there is none. The configuration must be the same; only learning.epochs may
        differ.
    progress : True for bars and lines on stderr, False for silence, or a callable for each epoch's
        record.
    data_dir : where to look for data first. threads : of BLAS and the kernels; None: one for BLAS.
    backend : "numba", or "torch" with device ("auto", "cpu", "cuda", "cuda:1"; None: auto, a GPU
        where there is one) and products ("full", "tf32", "bf16"). A run may be resumed on another
        one.
    allow_import : modules that a run folder (or the config.toml in it) may have imported, where it
        names rules or firing rates by their import path. What any other TOML file or an argument
        names is imported.
    overrides : `seed`, tables (learning={"batch": 50}; network= and data= take them too), or
        dotted keys (**{"learning.batch": 50}).

    What no import path leads back to (an object of a notebook, arrays) is reported when the run
    starts; to resume or evaluate such a run, give the object again.

    Raises the package's errors: ConfigurationError, RunExistsError, RunLockedError, DatasetError,
    CheckpointError; NotFiniteError and NoConvergenceError where training fails (what was saved
    before stays); RankLostError where another process of the job is gone; Interrupted, a
    KeyboardInterrupt, after a signal.
    """
    backend = backend_of(backend, device, products)
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
    return run(config, RunFolder(Path(out)), reporter, resume=resume, **means)


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
    data_dir: str | Path | None = None,
    threads: int | None = None,
    command: str = "train",
    backend: Backend = NUMBA,
    objects: Objects | None = None,
    network: Any = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train `config` in `folder`, as in `train`; nothing is written before configuration and data
    are known to be usable. objects : None: what the configuration names may be imported.
    """
    job, objects = ranks.job(), Objects(None) if objects is None else objects
    if job.rank > 0:
        folder, reporter = ObservedFolder(folder.path), RunReporter(Output())
    with contextlib.ExitStack() as held:
        with ranks.refused_together(job):
            if not resume:
                folder.refuse_occupied()
            backend.refuse_one_gpu_for_several(job.count)
            restored = resume and folder.holds_run()
            kind = trainer_of(config.family)
            resources = Resources(backend, job, ranks.local_rank(), objects=objects, restored=restored)
            kind.check(config, resources)
            hooks = Callbacks((*_early_stopping(config), *callbacks))
            data = execution.load_data(config.data, data_dir, objects)
            trainer = kind.build(config, data, resources, None if restored else network)
            kernels = ranks.local_share(execution.cores()) if job.count > 1 else None
            held.enter_context(execution.thread_limit(threads, kernels))
            held.enter_context(folder.locked())
            stop = held.enter_context(execution.stoppable())
            session = _Session(config, folder, trainer, reporter, stop, data, hooks, objects, [], job)
            environment = functools.partial(execution.environment, config, backend=trainer.description, ranks=job.count)
            if session.writes:
                session.enter(resume, environment, command)
        if not session.writes:
            session.enter(True, environment, command)
        session.work()
    return open_run(folder.path, objects=objects)


def _early_stopping(config: Config) -> list[Callback]:
    patience = config.learning.patience
    return [] if patience is None else [EarlyStopping(patience)]


def _resume(
    config: Config, folder: RunFolder, trainer: Trainer, data: Dataset, reporter: EpochReporter, now: Record
) -> list[Record]:
    """Bring the trainer where the run stopped and return the metrics so far; `now` is the
    environment.
    """
    _check_same(folder, config)
    recorded = folder.read_json("environment.json").get("data")
    if recorded:  # runs of before did not record what they read
        data.check_fingerprint(recorded)
    if not has_checkpoint(folder.checkpoints):
        return folder.rewind(0)
    saved = load_checkpoint(folder.checkpoints)
    if config.learning.epochs < saved.epoch:
        raise ConfigurationError(
            f"learning.epochs = {config.learning.epochs}, but {folder.path} has finished {saved.epoch}; "
            "ask for as many or more"
        )
    metrics = folder.rewind(saved.epoch)
    trainer.restore(saved)
    before = folder.read_json("environment.json")
    changed = execution.changed_environment(before, now)
    if changed:
        reporter.note(
            "this is not the environment the run began in; the last bits may differ: " + format_differences(changed)
        )
    folder.write_json(
        "environment.json", {**before, "resumed": [*before.get("resumed", []), {**now, "epoch": saved.epoch}]}
    )
    folder.write_config(config)
    return metrics


def _check_same(folder: RunFolder, config: Config) -> None:
    # where the images lie may change: which images they are is checked by their digests
    differing = {key: pair for key, pair in folder.config().differences(config).items() if key != "data.path"}
    if differing:
        raise ConfigurationError(
            f"{folder.path} was begun with another configuration: {format_differences(differing)}; "
            "resume with the same one, or give another folder (out=...)"
        )


@dataclass(slots=True)
class _Session:
    """One process's work on a run."""

    config: Config
    folder: RunFolder
    trainer: Trainer
    reporter: EpochReporter
    stop: Stop
    data: Dataset
    callbacks: Callbacks
    objects: Objects
    metrics: list[Record]
    ranks: Ranks
    # when the last picture was ready, and how long it took
    drawn: tuple[float, float] = (0.0, 0.0)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.ranks.rank == 0

    def enter(self, resume: bool, environment: Callable[[str], Record], command: str) -> None:
        """Begin the run or resume it; environment(command) is the record of this process. Other
        ranks resume from what the first has written.
        """
        if resume and self.folder.holds_run():
            now = environment("resume")
            self.metrics = _resume(self.config, self.folder, self.trainer, self.data, self.reporter, now)
        else:
            self.folder.refuse_run()
            now = environment(command)
            self.folder.begin(self.config, {**now, "data": self.data.fingerprint()})
        for text in (*self.data.notes, *self.objects.unreadable.values()):
            self.reporter.note(text)
        if self.writes and not has_checkpoint(self.folder.checkpoints):
            self.begin()
        if now["backend"] != "numba" or self.ranks.count > 1:
            processes = f", {self.ranks.count} processes" if self.ranks.count > 1 else ""
            self.reporter.report(f"training on {now['backend']}{processes}")

    def begin(self) -> None:
        """Measure the network as it is before learning, and save it."""
        self.folder.append_probes(self.trainer.probe())
        self.keep()
        self.save(["last"])

    def work(self) -> None:
        """Epoch after epoch to the last one; each ends with its metrics and checkpoint on the
        disk.
        """
        self._note(None)
        try:
            reason = self._agreed(lambda: self.callbacks.resumed(self.metrics))
            while reason is None and self.trainer.finished < self.config.learning.epochs:
                self._check_stop()
                self._epoch()
                reason = self._agreed(lambda: self.callbacks.after_epoch(self.metrics[-1], self.trainer.network))
        except Interrupted as interrupted:
            self.summarise("interrupted")
            raise Interrupted(
                interrupted.signum, f"stopped by a signal in epoch {len(self.metrics) + 1}; {self._remaining()}"
            ) from None
        except RankLostError as error:
            self.summarise("interrupted")
            raise RankLostError(f"{error} in epoch {len(self.metrics) + 1}; {self._remaining()}") from None
        except (ArithmeticError, NoConvergenceError):
            self.summarise("failed")
            raise
        finally:
            self.reporter.close()
        if reason:
            self.reporter.report(f"finished early after epoch {len(self.metrics)}: {reason}")
        self.summarise("finished early" if reason is not None else "finished", reason)
        if self.metrics:
            self._draw()
        ranks.largest(self.ranks, 0)  # from here on the others may read what the first has written

    def _agreed(self, ask: Callable[[], str | None]) -> str | None:
        """The reason to end that the callbacks of the first process give; "" in the others."""
        reason = ask() if self.writes else None
        if not ranks.largest(self.ranks, int(reason is not None)):
            return None
        return reason or ""

    def _remaining(self) -> str:
        holds = f"the {len(self.metrics)} finished epochs" if self.writes else "what its first process has saved"
        return f"{self.folder.path} holds {holds}, resume with resume=True"

    def _check_stop(self) -> None:
        """Raises Interrupted, in all ranks at the same place, once a signal has reached one of
        them.
        """
        signum = ranks.largest(self.ranks, self.stop.signum or 0)
        if signum:
            raise Interrupted(signum)

    def _note(self, record: Record | None) -> None:
        for text in self.trainer.warnings(record, self.metrics[-1] if self.metrics else None):
            self.reporter.note(text)

    def save(self, names: list[str]) -> None:
        """Write the checkpoint, under these names."""
        if self.writes:
            save_checkpoint(self.folder.checkpoints, self.trainer.state(), names)

    def keep(self) -> None:
        """Keep the network for good, if it is its turn. Before `save`: what was kept without being
        saved is dropped and done again on resuming.
        """
        every = self.config.probes.keep
        if self.writes and every and self.trainer.finished % every == 0:
            keep_network(self.folder.checkpoints, self.trainer.state())

    def summarise(self, status: str, reason: str | None = None) -> None:
        """Write summary.json. reason : why it finished early."""
        self.folder.write_json(
            "summary.json",
            {
                "status": status,
                **({"reason": reason} if reason else {}),
                "epochs": len(self.metrics),
                "epochs_asked": self.config.learning.epochs,
                "seconds": sum(record["seconds"] for record in self.metrics),
                "best": best_of(self.metrics),
                "last": self.metrics[-1] if self.metrics else None,
            },
        )

    def _epoch(self) -> None:
        trainer, epoch = self.trainer, self.trainer.finished + 1
        self.reporter.start_epoch(epoch, self.config.learning.epochs, len(self.data.train.labels))
        report = trainer.epoch(self._on_batch)
        probed = trainer.probe()
        record = plain(self._record(epoch, report, probed[-1]))
        self._note(record)
        self.folder.append_probes(probed)
        self.folder.append_metrics(record)
        self.metrics.append(record)
        best = best_of(self.metrics)
        self.keep()
        self.save(["best", "last"] if best is not None and best["epoch"] == epoch else ["last"])
        self.summarise("unfinished")
        self.reporter.end_epoch(record)
        ready, took = self.drawn
        if time.monotonic() - ready >= DRAW_EVERY * took:
            self._draw()

    def _draw(self) -> None:
        if not self.writes:
            return
        begin = time.monotonic()
        from fsp_dynamics.plotting.showing import apart

        with apart():
            open_run(self.folder.path).plot(path=self.folder.figures / "learning.png")
        self.drawn = (time.monotonic(), time.monotonic() - begin)

    def _on_batch(self, done: int, total: int, error: float) -> None:
        self._check_stop()
        self.reporter.batch(done, total, error)

    def _record(self, epoch: int, report: Record, probed: Record) -> Record:
        """The epoch's line of metrics.jsonl."""
        found = {part: self.trainer.evaluate(part) for part in PARTS}
        errors = {f"{part}_error": each.error if each else None for part, each in found.items()}
        return {"epoch": epoch, **report, **errors, **self.trainer.metrics(found, probed)}
