"""A training before it is begun: what it will need and write, from some of its batches learned in
memory. Nothing is written but kernels that are compiled.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import resuming
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.jobs import ranks
from fsp_dynamics.experiments.preparing import arranged, prepared
from fsp_dynamics.experiments.progress import in_charge
from fsp_dynamics.experiments.session import PARTS
from fsp_dynamics.experiments.stopping import stoppable
from fsp_dynamics.experiments.trainer import Record, Trainer, TrainingState
from fsp_dynamics.kernels.compile_watch import working_time

MEASURED = 2.0  # seconds of batches that are measured
EPOCHS = 3  # at most so many, of a small set: the first is slower than the others
RECORDS = 8_000  # bytes of the records of an epoch
PICTURES = 400_000  # bytes


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a training will need.

    folder : the run folder. finished : epochs that it holds. epochs : those to be learned.
    parameters : numbers that are learned, or held fixed. images : in an epoch.
    learning, besides : seconds of an epoch, of its batches and of its evaluation and measurements;
        saving, pictures and compiling are not among them.
    memory : bytes of this process so far at most, data included; None where the system does not
        tell.
    disk, most_disk : bytes of the folder at the end and while it runs, at most.
    writes : files, relative to the folder.
    """

    folder: Path
    finished: int
    epochs: int
    parameters: int
    images: int
    learning: float
    besides: float
    memory: int | None
    disk: int
    most_disk: int
    writes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of all epochs that are to be learned."""
        return self.epochs * (self.learning + self.besides)

    def as_dict(self) -> Record:
        """For JSON."""
        return {
            "folder": str(self.folder),
            "finished_epochs": self.finished,
            "epochs": self.epochs,
            "parameters": self.parameters,
            "images": self.images,
            "seconds": self.seconds,
            "seconds_per_epoch": {"learning": self.learning, "besides": self.besides},
            "memory_bytes": self.memory,
            "disk_bytes": self.disk,
            "disk_bytes_meanwhile": self.most_disk,
            "writes": list(self.writes),
        }


def forecast(source: Any = None, **given: Any) -> Forecast:
    """What `runner.train(source, **given)` would need; it refuses what that would refuse, with the
    same errors. Some batches are learned, and forgotten. Raises ConfigurationError in a job of
    several processes too.

    >>> found = forecast("digits", epochs=2, out="runs/never", progress=False)
    >>> found.parameters, found.epochs, found.folder.exists()
    (18610, 2, False)
    """
    if ranks.is_job():
        raise ConfigurationError("a forecast (dry_run=True) in a job of several processes; start it alone")
    how = arranged(source, **given)
    config, folder, reporter = how.pop("config"), how.pop("folder"), how.pop("reporter")
    with in_charge(reporter), contextlib.ExitStack() as held:
        held.enter_context(stoppable(at_once=True))
        made = prepared(held, ranks.job(), config, folder, reporter, **how)
        if made.restored:
            resuming.restore(config, folder, made.trainer, made.data, allow=made.allowed)
        finished = made.trainer.finished
        epochs = max(config.learning.epochs - finished, 0)
        reporter.stage("measuring some batches")
        learning = _learning(made.trainer, epochs)
        reporter.stage("measuring evaluation")
        besides = _besides(made.trainer) if epochs else 0.0
        state = made.trainer.state()
    disk, most = _bytes(config, state)
    return Forecast(
        folder.path,
        finished,
        epochs,
        sum(array.size for array in state.parameters.values()),
        len(made.data.train.labels),
        learning,
        besides,
        peak_memory(),
        disk,
        most,
        _files(config),
    )


class _Enough(BaseException):
    """Leaves an epoch; a compiler that it leaves too must not catch it."""


def _learning(trainer: Trainer, epochs: int) -> float:
    """Seconds in which an epoch is learned."""
    seconds, begin = 0.0, working_time()
    for _ in range(min(epochs, EPOCHS)):
        marks: list[tuple[float, int, int]] = []

        def on_batch(done: int, total: int, error: float, marks: list[tuple[float, int, int]] = marks) -> None:
            marks.append((working_time(), done, total))
            if marks[-1][0] - marks[0][0] > MEASURED:
                raise _Enough

        try:
            seconds = float(trainer.epoch(on_batch)["seconds"])
        except _Enough:
            (first, at, total), (last, done, _) = marks[0], marks[-1]
            return total * (last - first) / (done - at)
        if working_time() - begin > MEASURED:
            break
    return seconds


def _besides(trainer: Trainer) -> float:
    """Seconds in which an epoch is evaluated and measured."""
    begin = working_time()
    trainer.probe()
    for part in PARTS:
        trainer.evaluate(part)
    return working_time() - begin


def _bytes(config: Config, state: TrainingState) -> tuple[int, int]:
    """Bytes of a run folder at the end and while it runs, at most: last and best may be one file;
    while an epoch lasts there is a third, and each is written before it replaces another.
    """
    whole = sum(array.nbytes for array in state.arrays.values())
    network = sum(array.nbytes for array in state.parameters.values())
    kept = 1 + config.learning.epochs // config.probes.keep if config.probes.keep else 0
    end = 2 * whole + kept * network + PICTURES + RECORDS * config.learning.epochs
    return end, end + 2 * whole


def _files(config: Config) -> tuple[str, ...]:
    """What a run folder holds."""
    kept = ("checkpoints/kept-*",) if config.probes.keep else ()
    return (
        *("config.toml", "environment.json", "metrics.jsonl", "probes.jsonl", "summary.json"),
        *("checkpoints/last.json", "checkpoints/best.json", "checkpoints/epoch-*.safetensors", *kept),
        *("figures/learning.png", "figures/confusion.png", "figures/confusion.csv"),
    )


def peak_memory() -> int | None:
    """Bytes of memory that this process has held at most; None where the system does not tell. On
    Linux the usual call may return those of the process that started this one.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    if os.name != "posix":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
