"""`Session`: one process's work on a run, from its first epoch to its last."""

from __future__ import annotations

import contextlib
import errno
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.errors import CheckpointError, NoConvergenceError, RankLostError
from fsp_dynamics.experiments.callbacks import Callbacks
from fsp_dynamics.experiments.checkpoint import (
    UNFINISHED,
    has_checkpoint,
    keep_network,
    save_checkpoint,
    save_first,
)
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.jobs import ranks
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.pictures import Pictures
from fsp_dynamics.experiments.progress import EpochReporter
from fsp_dynamics.experiments.records import best_of, plain
from fsp_dynamics.experiments.resuming import resume
from fsp_dynamics.experiments.stopping import Interrupted, Stop
from fsp_dynamics.experiments.trainer import Trainer
from fsp_dynamics.training.ranks import Ranks

PARTS = {"valid": "validation", "test": "test"}
SAVE_MINUTES = 5.0  # from one checkpoint to the next, within an epoch
# seconds that judging an epoch took, from which on the state is saved before the next is judged
LONG = 5.0


class _Pause(BaseException):
    """Leaves the epoch between two batches, to save its state. signum : of the signal that then
    ends the run, or 0. complete : no batch is left. A compiler that it leaves too must not catch
    it.
    """

    def __init__(self, signum: int, complete: bool) -> None:
        self.signum, self.complete = signum, complete


@dataclass(slots=True)
class Session:
    """One process's work on a run. save_minutes : at most so many from one checkpoint to the next,
    while batches are learned.
    """

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
    allow: Sequence[str] = ()
    save_minutes: float = SAVE_MINUTES
    # when a state was saved, how long it took to judge the last epoch, whether the present one was
    # saved after its last batch, whether all ranks have agreed to end, whether batches were learned
    # since it was last left because it was late
    saved: float = field(default_factory=lambda: time.monotonic())
    judging: float = math.inf
    complete: bool = False
    ends: bool = False
    advanced: bool = False
    identity: Any = None  # of the run in the folder
    judged: Any = None  # what the last evaluation on the test images found
    pictures: Pictures = field(init=False)

    def __post_init__(self) -> None:
        self.pictures = Pictures(self.folder, self.reporter)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.ranks.rank == 0

    def enter(self, resumed: bool, environment: Callable[[str], Record], command: str) -> None:
        """Begin the run or resume it; environment(command) is the record of this process. Other
        ranks resume from what the first has written.
        """
        if resumed and self.folder.holds_run():
            now = environment("resume")
            self.metrics = resume(
                self.config, self.folder, self.trainer, self.data, self.reporter, now, allow=self.allow
            )
        else:
            self.folder.refuse_run()
            now = environment(command)
            given = {"data": self.data.fingerprint(), "images": self.data.format.as_record()}
            self.folder.begin(self.config, {**now, **given})
        for text in (*self.data.notes, *self.objects.unreadable.values()):
            self.reporter.note(text)
        if self.writes and not has_checkpoint(self.folder.checkpoints):
            self.begin()
        if now["backend"] != "numba" or self.ranks.count > 1:
            processes = f", {self.ranks.count} processes" if self.ranks.count > 1 else ""
            self.reporter.report(f"training on {now['backend']}{processes}")

    def begin(self) -> None:
        """Measure the network as it is before learning, and save it."""
        self.reporter.stage("measuring the network before it learns")
        self.folder.append_probes(self.trainer.probe())
        state, keep = self.trainer.state(), bool(self.config.probes.keep)
        save_first(self.folder.checkpoints, state, self.folder.binding(self.config), keep=keep)

    def work(self) -> None:
        """Epoch after epoch to the last one; each ends with its metrics and checkpoint on the
        disk. Raises FileNotFoundError where the folder was removed meanwhile, or is another run's
        by now.
        """
        self.identity = self.folder.environment().get("identity")
        try:
            self._work()
        except Exception:
            self._require_own()
            raise

    def _require_own(self) -> None:
        """Raises FileNotFoundError where the folder is no longer that of the run."""
        if not self.writes:
            return
        try:
            own = self.folder.holds_run() and self.folder.environment().get("identity") == self.identity
        except (CheckpointError, OSError):
            own = False
        if not own:
            what = "it is no longer the folder of this run: it was removed, moved or replaced while it trained"
            raise FileNotFoundError(errno.ENOENT, what, str(self.folder.path)) from None

    def _work(self) -> None:
        if self.ranks.count > 1:
            self.stop.at_once = False  # the others would wait for this one
        try:
            self._note(None)
            reason = self._agreed(lambda: self.callbacks.resumed(self.metrics))
            while reason is None and self.trainer.finished < self.config.learning.epochs:
                self._check_stop()
                self._epoch()
                reason = self._agreed(lambda: self.callbacks.after_epoch(self.metrics[-1], self.trainer.network))
        except Interrupted as interrupted:
            self.summarise("interrupted")
            if self.ends:
                self._together()
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
        with self.stop.postponed():
            if reason:
                self.reporter.report(f"finished early after epoch {len(self.metrics)}: {reason}")
            self.summarise("finished early" if reason is not None else "finished", reason)
            if self.metrics and self.writes:
                self.pictures.draw(now=True)
            self.reporter.close()
            self._together()  # from here on the others may read what the first has written

    def _agreed(self, ask: Callable[[], str | None]) -> str | None:
        """The reason to end that the callbacks of the first process give; "" in the others."""
        reason = ask() if self.writes else None
        if not ranks.largest(self.ranks, int(reason is not None)):
            return None
        return reason or ""

    def _remaining(self) -> str:
        holds = f"the {len(self.metrics)} finished epochs" if self.writes else "what its first process has saved"
        if self.writes and has_checkpoint(self.folder.checkpoints, UNFINISHED):
            holds += " and a part of the next"
        return f"{self.folder.path} holds {holds}, resume with resume=True"

    def _check_stop(self) -> None:
        """Raises Interrupted, in all ranks at the same place, once a signal has reached one of
        them.
        """
        signum, _ = self._asked()
        if signum:
            self._stop(signum)

    def _stop(self, signum: int) -> None:
        """Raises Interrupted, as all ranks do."""
        self.ends = True
        raise Interrupted(signum)

    def _asked(self, due: bool = False) -> tuple[int, bool]:
        """(the signal that asks to stop, or 0; whether the state is to be saved), alike in all
        ranks: what is due, and when, is decided by the first of them.
        """
        late = self.writes and (due or self._is_late())
        asked = ranks.largest(self.ranks, 2 * (self.stop.signum or 0) + int(self.stop.save or late))
        return asked // 2, asked > 0

    def _together(self) -> None:
        """Wait for all ranks: the end of one ends the job, and the first must have written all."""
        with contextlib.suppress(RankLostError):
            ranks.largest(self.ranks, 0)

    def _note(self, record: Record | None) -> None:
        for text in self.trainer.warnings(record, self.metrics[-1] if self.metrics else None):
            self.reporter.note(text)

    def save(self, names: list[str]) -> None:
        """Write the checkpoint, under these names."""
        if self.writes:
            self._require_own()
            save_checkpoint(self.folder.checkpoints, self.trainer.state(), names, self.folder.binding(self.config))
        self.saved, self.stop.save = time.monotonic(), False

    def keep(self) -> None:
        """Keep the network for good, if it is its turn. Before `save`: what was kept without being
        saved is dropped and done again on resuming.
        """
        every = self.config.probes.keep
        if self.writes and every and self.trainer.finished % every == 0:
            keep_network(self.folder.checkpoints, self.trainer.state(), self.folder.binding(self.config))

    def summarise(self, status: str, reason: str | None = None) -> None:
        """Write summary.json. reason : why it finished early."""
        self.folder.write_json(
            "summary.json",
            {
                "status": status,
                **({"reason": reason} if reason else {}),
                "epochs": len(self.metrics),
                "epochs_asked": self.config.learning.epochs,
                "seconds": sum(record.get("seconds", 0.0) for record in self.metrics),
                "best": best_of(self.metrics),
                "last": self.metrics[-1] if self.metrics else None,
            },
        )

    def _epoch(self) -> None:
        trainer, epoch = self.trainer, self.trainer.finished + 1
        self.reporter.start_epoch(epoch, self.config.learning.epochs, len(self.data.train.labels))
        with self.stop.postponed():
            report = self._learn()
        begin = time.monotonic()
        if self.complete:
            self._check_stop()
        with contextlib.nullcontext() if self.complete else self.stop.postponed():
            self.reporter.stage("measuring angles and stability")
            probed = trainer.probe()
            record = plain(self._record(epoch, report, probed[-1]))
        self.judging = time.monotonic() - begin
        with self.stop.postponed():
            self._write(record, probed)

    def _learn(self) -> Record:
        """Learn the batches of an epoch, or those that are left of it, and save its state between
        them when it is time; its report.
        """
        self.complete = False
        while True:
            try:
                # in a job all ranks leave at the same batch
                return self.trainer.epoch(self._on_batch, self._leave if self.ranks.count == 1 else None)
            except _Pause as left:
                pause = left
            self.save([UNFINISHED])
            self.complete = pause.complete
            if pause.signum:
                self._stop(pause.signum)

    def _on_batch(self, done: int, total: int, error: float) -> None:
        """Raises _Pause where the state is to be saved: when it is late, on a signal, and after
        the last batch where judging the network may take long.
        """
        if self.complete:
            return
        self.advanced = True
        try:
            self.reporter.batch(done, total, error)
        except KeyboardInterrupt as stopped:  # a sweep was stopped
            raise _Pause(int(getattr(stopped, "signum", signal.SIGINT)), done == total) from None
        signum, due = self._asked(done == total and self.judging > LONG)
        if due:
            raise _Pause(signum, done == total)

    def _leave(self) -> None:
        """Raises _Pause while phases relax, on a signal or because it is late; the batch is then
        begun again, for nothing of it was kept.
        """
        late = self.advanced and self._is_late()
        if self.stop.signum or self.stop.save or late:
            self.advanced = False
            raise _Pause(self.stop.signum or 0, False)

    def _is_late(self) -> bool:
        return time.monotonic() - self.saved >= 60 * self.save_minutes

    def _write(self, record: Record, probed: list[Record]) -> None:
        """Bring what an epoch has yielded to the disk."""
        self._require_own()
        self.reporter.stage("saving")
        self._note(record)
        self.folder.append_probes(probed)
        self.folder.append_metrics(record)
        self.metrics.append(record)
        best = best_of(self.metrics)
        is_best = best is not None and best["epoch"] == record["epoch"]
        self.keep()
        if is_best and self.writes:  # before the checkpoint, after which nobody has it to judge again
            self.pictures.keep(self.judged, record["epoch"])
        self.save(["best", "last"] if is_best else ["last"])
        self.summarise("unfinished")
        self.reporter.end_epoch(record)
        if self.writes:
            self.pictures.draw()

    def _record(self, epoch: int, report: Record, probed: Record) -> Record:
        """The epoch's line of metrics.jsonl."""
        found = {}
        for part, name in PARTS.items():
            self.reporter.stage(f"evaluating the {name} images")
            found[part] = self.trainer.evaluate(part)
        self.judged = found["test"]
        errors = {f"{part}_error": each.error if each else None for part, each in found.items()}
        return {"epoch": epoch, **report, **errors, **self.trainer.metrics(found, probed)}
