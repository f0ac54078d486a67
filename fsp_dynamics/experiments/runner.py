"""`train` and `open_run`: a run from its configuration to its folder, epoch by epoch, resumable after each of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fsp_dynamics.datasets import Dataset, load_dataset
from fsp_dynamics.errors import ConfigurationError, RunExistsError, check_choice
from fsp_dynamics.experiments import execution
from fsp_dynamics.experiments.checkpoint import Checkpoint, has_checkpoint, keep_network, kept_epochs, load_checkpoint, load_kept, save_checkpoint
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.execution import Interrupted, NoRestError, Stop, restored
from fsp_dynamics.experiments.folder import Record, RunFolder, best_of, flat, plain
from fsp_dynamics.experiments.probing import Probing
from fsp_dynamics.experiments.progress import Progress, Reporter, reporter
from fsp_dynamics.experiments.sources import load_config
from fsp_dynamics.learning.engine import Memory
from fsp_dynamics.learning.sweeps import SweepMemory
from fsp_dynamics.learning.training import EpochReport, Evaluation, Learner, Recipe, evaluate, train_epoch
from fsp_dynamics.models.network import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Which = Literal["best", "last"]
PARTS = ("train", "valid", "test")
UNITS = {
    **dict.fromkeys(("train_error", "valid_error", "test_error"), "%"),
    **{"alignment_degrees": "degrees", "residual": "1 / time", "seconds": "s", "images_per_second": "1 / s"},
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run on disk.

    folder : where it is. config : what it is. metrics : one record for each finished epoch. summary : best epoch and last.
    """

    folder: Path
    config: Config
    metrics: list[Record]
    summary: Record

    @property
    def kept(self) -> tuple[int, ...]:
        """The epochs after which the network was kept (`probes.keep`), in order; 0 is before the first."""
        return kept_epochs(RunFolder(self.folder).checkpoints)

    def network(self, which: Which | int = "best") -> Network:
        """The network of the best epoch (by validation error), of the last one, or of an epoch that was `kept`; verified. Raises CheckpointError."""
        checkpoints = RunFolder(self.folder).checkpoints
        return restored(self.config, load_checkpoint(checkpoints, which) if isinstance(which, str) else load_kept(checkpoints, which))

    def evaluate(
        self, split: str = "test", which: Which | int = "best", *, data_dir: str | Path | None = None, threads: int | None = None
    ) -> Evaluation:
        """What that network does on a part of the data ("train", "valid" or "test"). Raises ConfigurationError for an empty part."""
        network, given = self.network(which), self.config.data
        data = load_dataset(given.name, data_dir=data_dir, validation=given.validation, limit=given.limit)
        with execution.thread_limit(threads):
            return evaluate(network, getattr(data, check_choice("split", split, PARTS)), execution.build_recipe(self.config))

    def to_frame(self) -> DataFrame:
        """A pandas.DataFrame of the metrics, a row for each finished epoch, tables by dotted keys (alignment_degrees.W1). `.to_csv(path)` saves it.

        saturation.LAYER.0 and .1 : shares of its rates at 0 and at 1. dead_outputs : the units, as text. Units are in `attrs["units"]`: errors in
        percent, angles in degrees, residuals per unit time.
        """
        import pandas

        frame = pandas.DataFrame([flat(record) for record in self.metrics])
        frame.attrs["units"] = {key: unit for key in frame.columns for start, unit in UNITS.items() if key.startswith(start)}
        return frame

    def plot(self, ax: Axes | Sequence[Axes] | None = None, *, path: str | Path | None = None) -> Figure:
        """The learning curve and beside it the loop's angles (`plotting.plot_run`); `path`: the picture is also written there."""
        from fsp_dynamics.plotting import plot_run

        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        return plot_run(self.metrics, ax, path=path)


def train(
    source: str | Path | Config | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | Reporter = True,
    data_dir: str | Path | None = None,
    threads: int | None = None,
    **overrides: Any,
) -> Run:
    """Train a network and keep everything in a run folder.

    Parameters
    ----------
    source : a preset, a TOML file, a run folder (to go on with), a `Config` or a nested mapping.
    out : the run folder; runs/NAME-SEED if None. One that already holds a run is refused unless `resume`.
    resume : go on after the last finished epoch, to the same bits as a run that was never stopped; starts a run if there is none.
        The configuration must be the same; only learning.epochs may differ.
    progress : True for bars and lines on stderr, False for silence, or a callable for each epoch's record.
    data_dir : where to look for data first. threads : of BLAS and the kernels; None: one for BLAS.
    overrides : `epochs`, `seed`, tables (learning={"batch": 50}), or dotted keys (**{"learning.batch": 50}).

    Raises the package's errors: ConfigurationError, RunExistsError, RunLockedError, DatasetError, CheckpointError; NotFiniteError
    and NoRestError where training fails (what was saved before stays); Interrupted, a KeyboardInterrupt, after a signal.
    """
    name, config = load_config(source, overrides)
    if out is None and not resume and isinstance(source, str | Path) and RunFolder(Path(source)).holds_run():
        raise RunExistsError(f"{source} is a run; go on with it (--resume) or give a folder for another one of the same kind (--out)")
    if out is None:
        resuming_there = resume and isinstance(source, (str, Path)) and RunFolder(Path(source)).holds_run()
        out = Path(source) if resuming_there else Path("runs") / f"{name}-{config.seed}"  # type: ignore[arg-type]
    told = reporter(progress) if isinstance(progress, bool) or callable(progress) else progress
    return run(config, RunFolder(Path(out)), told, resume=resume, data_dir=data_dir, threads=threads)


def open_run(folder: str | Path) -> Run:
    """The run in that folder. Raises ConfigurationError if there is none."""
    files = RunFolder(Path(folder)).require_run()
    return Run(files.path, files.config(), files.metrics(), files.read_json("summary.json"))


def run(
    config: Config,
    folder: RunFolder,
    told: Reporter,
    *,
    resume: bool = False,
    data_dir: str | Path | None = None,
    threads: int | None = None,
    command: str = "train",
) -> Run:
    """Train `config` in `folder`, as `train` says; nothing is written before configuration and data are known to be usable."""
    if not resume:
        folder.refuse_occupied()
    recipe = execution.build_recipe(config)
    data = load_dataset(config.data.name, data_dir=data_dir, validation=config.data.validation, limit=config.data.limit)
    network, rng = execution.build_network(config, data.train.images.shape[1], data.classes)
    learner = Learner.start(network, recipe, rng)
    with execution.thread_limit(threads), folder.locked(), execution.stoppable() as stop:
        if resume and folder.holds_run():
            metrics = _go_on(config, folder, learner, told)
        else:
            folder.refuse_run()
            metrics = []
            folder.begin(config, execution.environment(config, command))
        session = _Session(config, folder, data, recipe, learner, told, stop, metrics, Probing.of(config, data, recipe))
        if not has_checkpoint(folder.checkpoints):
            session.begin()
        session.work()
    return open_run(folder.path)


def _go_on(config: Config, folder: RunFolder, learner: Learner, told: Reporter) -> list[Record]:
    """Bring the learner where the run stopped and return the metrics so far."""
    _check_same(folder, config)
    if not has_checkpoint(folder.checkpoints):
        return folder.rewind(0)
    saved = load_checkpoint(folder.checkpoints)
    if config.learning.epochs < saved.epoch:
        raise ConfigurationError(f"learning.epochs = {config.learning.epochs}, but {folder.path} has finished {saved.epoch}; ask for as many or more")
    metrics = folder.rewind(saved.epoch)
    learner.network = restored(config, saved)
    learner.velocity.clear()
    learner.velocity.update(saved.velocity)
    learner.memory = Memory.of(saved.memory) or SweepMemory.of(saved.memory)
    learner.rng.bit_generator.state = saved.rng
    learner.epoch = saved.epoch
    before, now = folder.read_json("environment.json"), execution.environment(config, "resume")
    changed = execution.changed_environment(before, now)
    if changed:
        told.note("this is not the environment the run began in; the last bits may differ: " + _listed(changed))
    folder.write_json("environment.json", {**before, "resumed": [*before.get("resumed", []), {**now, "epoch": saved.epoch}]})
    folder.write_config(config)
    return metrics


def _check_same(folder: RunFolder, config: Config) -> None:
    differing = folder.config().differences(config)
    if differing:
        raise ConfigurationError(
            f"{folder.path} was begun with another configuration: {_listed(differing)}; resume with the same one, or give another folder (--out)"
        )


def _listed(differing: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} was {old}, now {new}" for key, (old, new) in differing.items())


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
    drawn: tuple[float, float] = (0.0, 0.0)  # when the last picture was ready, and how long it took

    def begin(self) -> None:
        """Look at the network as it is before learning, and save it."""
        self.folder.append_probes(self.probing.look(0, self.learner.network))
        self.keep()
        self.save(["last"])

    def work(self) -> None:
        """Epoch after epoch to the last one; each ends with its metrics and checkpoint on the disk."""
        if self.config.learning.beta < 0 and self.config.learning.phases == "one-sided":
            self.told.note(f"learning.beta = {self.config.learning.beta}: a negative beta alone tends to silence the outputs; watch dead_outputs")
        try:
            while self.learner.epoch < self.config.learning.epochs:
                self.stop.check()
                self._epoch()
        except Interrupted as interrupted:
            done = f"stopped by a signal in epoch {len(self.metrics) + 1}; {self.folder.path} holds the {len(self.metrics)} finished epochs"
            self.summarise("interrupted")
            raise Interrupted(interrupted.signum, f"{done}, go on with --resume") from None
        except (ArithmeticError, NoRestError):
            self.summarise("failed")
            raise
        finally:
            self.told.close()
        self.summarise("finished")
        if self.metrics:
            self._draw()

    def save(self, names: list[str]) -> None:
        learner = self.learner
        state = dict(learner.rng.bit_generator.state)
        memory = {} if learner.memory is None else learner.memory.arrays()
        save_checkpoint(self.folder.checkpoints, Checkpoint(learner.epoch, learner.network.parameters(), learner.velocity, state, memory), names)

    def keep(self) -> None:
        """Keep the network for good, if it is its turn. Before `save`: what was kept without being saved is dropped and done again on resuming."""
        every, epoch = self.config.probes.keep, self.learner.epoch
        if every and epoch % every == 0:
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
        report = train_epoch(self.learner, self.data.train, self.recipe, self._on_batch, probe=probe, every=every)
        if report.unrested >= images:
            raise NoRestError(f"no sample of epoch {epoch} came to rest, nothing was learned; {_REST}")
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
        begin = time.monotonic()
        open_run(self.folder.path).plot(path=self.folder.figures / "learning.png")
        self.drawn = (time.monotonic(), time.monotonic() - begin)

    def _on_batch(self, done: int, total: int, error: float) -> None:
        self.stop.check()
        self.told.batch(done, total, error)

    def _record(self, epoch: int, report: EpochReport, probed: Record) -> Record:
        seen = {part: self._evaluate(part) for part in ("valid", "test")}
        test = seen["test"]
        return {
            "epoch": epoch,
            **report.as_dict(),
            **{f"{part}_error": found.error if found else None for part, found in seen.items()},
            **{f"{part}_unrested": found.unrested if found else None for part, found in seen.items()},
            "alignment_degrees": probed.get("alignment", {}).get("degrees", {}),
            **{key: probed["stability"][key] for key in ("loop_norm", "loop_norm_max", "kink_margin") if "stability" in probed},
            "saturation": test.saturation if test else {},
        }

    def _evaluate(self, part: str) -> Evaluation | None:
        split = getattr(self.data, part)
        return evaluate(self.learner.network, split, self.recipe, memory=self.learner.memory) if len(split.labels) else None

    def _warn(self, record: Record, images: int) -> None:
        rates = self.config.learning.rates.forward
        if 2 * record["unrested"] >= images:
            self.told.note(f"epoch {record['epoch']}: {record['unrested']} of {images} samples did not come to rest and taught nothing; {_REST}")
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
DRAW_EVERY = 20  # of the time it takes to draw passes before the picture is drawn again, so that drawing costs at most a twentieth
_REST = "weaken the loop (network.loop_scale, learning.rates.loop) or loosen solver.absolute"
