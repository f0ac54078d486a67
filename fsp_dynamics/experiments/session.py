"""`Session`: one process's work on a run, from its first epoch to its last."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.errors import RankLostError
from fsp_dynamics.experiments.callbacks import Callbacks
from fsp_dynamics.experiments.checkpoint import has_checkpoint, keep_network, save_checkpoint, save_first
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.execution import Interrupted, NoConvergenceError, Stop
from fsp_dynamics.experiments.folder import Record, RunFolder, best_of, plain
from fsp_dynamics.experiments.jobs import ranks
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.progress import EpochReporter
from fsp_dynamics.experiments.resuming import resume
from fsp_dynamics.experiments.run import open_run
from fsp_dynamics.experiments.trainer import Trainer
from fsp_dynamics.training.ranks import Ranks

PARTS = ("valid", "test")
# of the time it takes to draw passes before the picture is drawn again, so that drawing costs at
# most a twentieth
DRAW_EVERY = 20


@dataclass(slots=True)
class Session:
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
    allow: Sequence[str] = ()
    # when the last picture was ready, and how long it took
    drawn: tuple[float, float] = (0.0, 0.0)

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
        state, keep = self.trainer.state(), bool(self.config.probes.keep)
        save_first(self.folder.checkpoints, state, self.folder.binding(self.config), keep=keep)

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
            save_checkpoint(self.folder.checkpoints, self.trainer.state(), names, self.folder.binding(self.config))

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
