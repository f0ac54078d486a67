"""`train`: a run from its configuration to its folder, epoch by epoch, resumable after each of
them.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsp_dynamics.datasets import Dataset, load_dataset
from fsp_dynamics.errors import ConfigurationError, RankLostError, RunExistsError
from fsp_dynamics.experiments import execution
from fsp_dynamics.experiments.backend import NUMBA, Backend, backend_of
from fsp_dynamics.experiments.checkpoint import (
    Checkpoint,
    has_checkpoint,
    keep_network,
    load_checkpoint,
    save_checkpoint,
)
from fsp_dynamics.experiments.config import Config, format_differences
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.execution import Interrupted, NoConvergenceError, Stop, restored
from fsp_dynamics.experiments.folder import Record, RunFolder, SeenFolder, best_of, plain
from fsp_dynamics.experiments.jobs import ranks
from fsp_dynamics.experiments.probing import Probing
from fsp_dynamics.experiments.progress import Mute, Progress, Reporter, reporter
from fsp_dynamics.experiments.run import Run, open_run
from fsp_dynamics.training.engine import engine_of
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.evaluation import Evaluation, evaluate
from fsp_dynamics.training.ranks import Ranks
from fsp_dynamics.training.recipe import Learner, Recipe
from fsp_dynamics.training.report import EpochReport
from fsp_dynamics.training.warm_start import warm_start_of


def train(
    source: str | Path | Config | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | Reporter = True,
    data_dir: str | Path | None = None,
    threads: int | None = None,
    backend: Backend | str = NUMBA,
    device: str | None = None,
    products: str | None = None,
    **overrides: Any,
) -> Run:
    """Train a network and keep everything in a run folder.

    Started by `torchrun` in several processes, all of them train it together
    (experiments/jobs/ranks.py); the first one writes.

    Parameters
    ----------
    source : a preset, a TOML file, a run folder (to go on with), a `Config` or a nested mapping.
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
    overrides : `epochs`, `seed`, tables (learning={"batch": 50}), or dotted keys
        (**{"learning.batch": 50}).

    Raises the package's errors: ConfigurationError, RunExistsError, RunLockedError, DatasetError,
    CheckpointError; NotFiniteError and NoConvergenceError where training fails (what was saved
    before stays); RankLostError where another process of the job is gone; Interrupted, a
    KeyboardInterrupt, after a signal.
    """
    backend = backend_of(backend, device, products)
    name, config = load_config(source, overrides)
    if out is None and not resume and isinstance(source, str | Path) and RunFolder(Path(source)).holds_run():
        raise RunExistsError(
            f"{source} is a run; go on with it (--resume) or give a folder for another one of the same kind (--out)"
        )
    if out is None:
        resuming_there = resume and isinstance(source, (str, Path)) and RunFolder(Path(source)).holds_run()
        out = Path(source) if resuming_there else Path("runs") / f"{name}-{config.seed}"  # type: ignore[arg-type]
    told = reporter(progress) if isinstance(progress, bool) or callable(progress) else progress
    return run(config, RunFolder(Path(out)), told, resume=resume, data_dir=data_dir, threads=threads, backend=backend)


def run(
    config: Config,
    folder: RunFolder,
    told: Reporter,
    *,
    resume: bool = False,
    data_dir: str | Path | None = None,
    threads: int | None = None,
    command: str = "train",
    backend: Backend = NUMBA,
) -> Run:
    """Train `config` in `folder`, as `train` says; nothing is written before configuration and
    data are known to be usable.
    """
    together = ranks.job()
    if together.rank > 0:
        folder, told = SeenFolder(folder.path), Mute()
    with contextlib.ExitStack() as held:
        with ranks.all_or_none(together):
            if not resume:
                folder.refuse_occupied()
            backend.refuse_one_gpu_for_several(together.count)
            recipe = execution.build_recipe(config, backend, ranks.local_rank())
            data = load_dataset(
                config.data.name, data_dir=data_dir, validation=config.data.validation, limit=config.data.limit
            )
            network, rng = execution.build_network(config, data.train.images.shape[1], data.classes)
            learner = Learner.start(network, recipe, rng)
            held.enter_context(
                execution.thread_limit(threads, ranks.local_share(execution.cores()) if together.count > 1 else None)
            )
            held.enter_context(folder.locked())
            stop = held.enter_context(execution.stoppable())
            session = _Session(
                config, folder, data, recipe, learner, told, stop, [], Probing.of(config, data, recipe), together
            )
            computes = backend.described(
                ranks.local_rank(), together.shards if engine_of(network, recipe, together).in_shards else 1
            )
            environment = functools.partial(execution.environment, config, backend=computes, ranks=together.count)
            if session.writes:
                session.enter(resume, environment, command)
        if not session.writes:
            session.enter(True, environment, command)
        session.work()
    return open_run(folder.path)


def _go_on(config: Config, folder: RunFolder, learner: Learner, told: Reporter, now: Record) -> list[Record]:
    """Bring the learner where the run stopped and return the metrics so far; `now` is the
    environment.
    """
    _check_same(folder, config)
    if not has_checkpoint(folder.checkpoints):
        return folder.rewind(0)
    saved = load_checkpoint(folder.checkpoints)
    if config.learning.epochs < saved.epoch:
        raise ConfigurationError(
            f"learning.epochs = {config.learning.epochs}, but {folder.path} has finished {saved.epoch}; ask for as many or more"
        )
    metrics = folder.rewind(saved.epoch)
    learner.network = restored(config, saved)
    learner.velocity.clear()
    learner.velocity.update(saved.velocity)
    learner.warm_start = warm_start_of(saved.warm_start)
    learner.rng.bit_generator.state = saved.rng
    learner.epoch = saved.epoch
    before = folder.read_json("environment.json")
    changed = execution.changed_environment(before, now)
    if changed:
        told.note(
            "this is not the environment the run began in; the last bits may differ: " + format_differences(changed)
        )
    folder.write_json(
        "environment.json", {**before, "resumed": [*before.get("resumed", []), {**now, "epoch": saved.epoch}]}
    )
    folder.write_config(config)
    return metrics


def _check_same(folder: RunFolder, config: Config) -> None:
    differing = folder.config().differences(config)
    if differing:
        raise ConfigurationError(
            f"{folder.path} was begun with another configuration: {format_differences(differing)}; resume with the same one, or give another folder (--out)"
        )


@dataclass(slots=True)
class _Session:
    """One process's work on a run."""

    config: Config
    folder: RunFolder
    data: Dataset
    recipe: Recipe
    learner: Learner
    told: Reporter
    stop: Stop
    metrics: list[Record]
    probing: Probing
    ranks: Ranks
    # when the last picture was ready, and how long it took
    drawn: tuple[float, float] = (0.0, 0.0)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.ranks.rank == 0

    def enter(self, resume: bool, environment: Callable[[str], Record], command: str) -> None:
        """Begin the run or go on with it; environment(command) is the record of this process.
        Other ranks go on from what the first has written.
        """
        if resume and self.folder.holds_run():
            now = environment("resume")
            self.metrics = _go_on(self.config, self.folder, self.learner, self.told, now)
        else:
            self.folder.refuse_run()
            now = environment(command)
            self.folder.begin(self.config, now)
        if self.writes and not has_checkpoint(self.folder.checkpoints):
            self.begin()
        if now["backend"] != "numba" or self.ranks.count > 1:
            self.told.tell(
                f"training on {now['backend']}" + (f", {self.ranks.count} processes" if self.ranks.count > 1 else "")
            )

    def begin(self) -> None:
        """Look at the network as it is before learning, and save it."""
        self.folder.append_probes(self.probing.look(0, self.learner.network))
        self.keep()
        self.save(["last"])

    def work(self) -> None:
        """Epoch after epoch to the last one; each ends with its metrics and checkpoint on the
        disk.
        """
        if self.config.learning.beta < 0 and self.config.learning.phases == "one-sided":
            self.told.note(
                f"learning.beta = {self.config.learning.beta}: a negative beta alone tends to silence the outputs; watch dead_outputs"
            )
        try:
            while self.learner.epoch < self.config.learning.epochs:
                self._check_stop()
                self._epoch()
        except Interrupted as interrupted:
            self.summarise("interrupted")
            raise Interrupted(
                interrupted.signum, f"stopped by a signal in epoch {len(self.metrics) + 1}; {self._left()}"
            ) from None
        except RankLostError as error:
            self.summarise("interrupted")
            raise RankLostError(f"{error} in epoch {len(self.metrics) + 1}; {self._left()}") from None
        except (ArithmeticError, NoConvergenceError):
            self.summarise("failed")
            raise
        finally:
            self.told.close()
        self.summarise("finished")
        if self.metrics:
            self._draw()
        ranks.agreed(self.ranks, 0)  # now the others may read what the first has written

    def _left(self) -> str:
        holds = f"the {len(self.metrics)} finished epochs" if self.writes else "what its first process has saved"
        return f"{self.folder.path} holds {holds}, go on with --resume"

    def _check_stop(self) -> None:
        """Raises Interrupted, in all ranks at the same place, once a signal has asked one of them
        to stop.
        """
        signum = ranks.agreed(self.ranks, self.stop.signum or 0)
        if signum:
            raise Interrupted(signum)

    def save(self, names: list[str]) -> None:
        if not self.writes:
            return
        learner = self.learner
        state = dict(learner.rng.bit_generator.state)
        memory = {} if learner.warm_start is None else learner.warm_start.arrays()
        save_checkpoint(
            self.folder.checkpoints,
            Checkpoint(learner.epoch, learner.network.parameters(), learner.velocity, state, memory),
            names,
        )

    def keep(self) -> None:
        """Keep the network for good, if it is its turn. Before `save`: what was kept without being
        saved is dropped and done again on resuming.
        """
        every, epoch = self.config.probes.keep, self.learner.epoch
        if self.writes and every and epoch % every == 0:
            keep_network(self.folder.checkpoints, epoch, self.learner.network.parameters())

    def summarise(self, status: str) -> None:
        """Write summary.json."""
        self.folder.write_json(
            "summary.json",
            {
                "status": status,
                "epochs": len(self.metrics),
                "epochs_asked": self.config.learning.epochs,
                "seconds": sum(record["seconds"] for record in self.metrics),
                "best": best_of(self.metrics),
                "last": self.metrics[-1] if self.metrics else None,
            },
        )

    def _epoch(self) -> None:
        images, epoch = len(self.data.train.labels), self.learner.epoch + 1
        self.told.start_epoch(epoch, self.config.learning.epochs, images)
        probe, every = self.probing.within(epoch), self.probing.every or 1
        report = train_epoch(
            self.learner, self.data.train, self.recipe, self._on_batch, probe=probe, every=every, ranks=self.ranks
        )
        if report.unconverged >= images:
            raise NoConvergenceError(f"no sample of epoch {epoch} converged, nothing was learned; {_REST}")
        probed = self.probing.look(epoch, self.learner.network)
        record = plain(self._record(epoch, report, probed[-1]))
        self._warn(record, images)
        self.folder.append_probes(probed)
        self.folder.append_metrics(record)
        self.metrics.append(record)
        best = best_of(self.metrics)
        self.keep()
        self.save(["best", "last"] if best is not None and best["epoch"] == epoch else ["last"])
        self.summarise("unfinished")
        self.told.end_epoch(record)
        ready, took = self.drawn
        if time.monotonic() - ready >= DRAW_EVERY * took:
            self._draw()

    def _draw(self) -> None:
        if not self.writes:
            return
        begin = time.monotonic()
        open_run(self.folder.path).plot(path=self.folder.figures / "learning.png")
        self.drawn = (time.monotonic(), time.monotonic() - begin)

    def _on_batch(self, done: int, total: int, error: float) -> None:
        self._check_stop()
        self.told.batch(done, total, error)

    def _record(self, epoch: int, report: EpochReport, probed: Record) -> Record:
        seen = {part: self._evaluate(part) for part in ("valid", "test")}
        test = seen["test"]
        return {
            "epoch": epoch,
            **report.as_dict(),
            **{f"{part}_error": found.error if found else None for part, found in seen.items()},
            **{f"{part}_unrested": found.unconverged if found else None for part, found in seen.items()},
            "alignment_degrees": probed.get("alignment", {}).get("degrees", {}),
            **{
                key: probed["stability"][key]
                for key in ("loop_norm", "loop_norm_max", "kink_margin")
                if "stability" in probed
            },
            "saturation": test.saturation if test else {},
        }

    def _evaluate(self, part: str) -> Evaluation | None:
        split = getattr(self.data, part)
        return (
            evaluate(self.learner.network, split, self.recipe, warm_start=self.learner.warm_start, ranks=self.ranks)
            if len(split.labels)
            else None
        )

    def _warn(self, record: Record, images: int) -> None:
        rates = self.config.learning.rates.forward
        if 2 * record["unconverged"] >= images:
            self.told.note(
                f"epoch {record['epoch']}: {record['unconverged']} of {images} samples did not converge and taught nothing; {_REST}"
            )
        known = self.metrics[-1]["dead_outputs"] if self.metrics else []
        before = self.metrics[-1].get("loop_norm_max") if self.metrics else None
        if (record.get("loop_norm_max") or 0) > NEAR_ONE >= (before or 0):
            self.told.note(
                f"epoch {record['epoch']}: up to {record['loop_norm_max']:.2f} of a small change of the outputs comes back round the loop (||G_D||), "
                "so phases grow long and may end in oscillation; weaken the loop (network.loop_scale, learning.rates.loop)"
            )
        dead = [unit for unit in record["dead_outputs"] if unit not in known]
        if dead:
            units = ", ".join(map(str, dead))
            self.told.note(
                f"epoch {record['epoch']}: output {units} had rate 0 for every image although its class occurs, and may never recover; "
                f"lower learning.rates.forward[{len(rates) - 1}] (now {rates[-1]:g})"
            )


NEAR_ONE = 0.9
# of the time it takes to draw passes before the picture is drawn again, so that drawing costs at
# most a twentieth
DRAW_EVERY = 20
_REST = "weaken the loop (network.loop_scale, learning.rates.loop) or loosen solver.absolute"
