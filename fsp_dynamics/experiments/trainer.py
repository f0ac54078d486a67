"""`Trainer`: what the runner needs of a family of networks, and nothing else. One file behind this
protocol, with its configuration, makes a family that is trained, resumed, listed, compared and
swept like any other.

The runner calls, in this order:

    kind = trainer_of(config.family)
    kind.check(config, resources)                   # before anything is read or written
    trainer = kind.build(config, data, resources)
    trainer.restore(state)                          # where a run is resumed
    for each epoch:
        report = trainer.epoch(on_batch, leave)
        probed = trainer.probe()
        seen = {part: trainer.evaluate(part) for part in ("valid", "test")}
        record = {**report, valid_error, test_error, **trainer.metrics(seen, probed[-1])}
        notes = trainer.warnings(record, previous)
        trainer.state()                             # goes into the checkpoint

A family is registered in `TRAINERS` and named by the key `family` of a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from fsp_dynamics.errors import check_choice
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.settings import imported

if TYPE_CHECKING:
    from fsp_dynamics.datasets import Dataset
    from fsp_dynamics.datasets.formats import ImageFormat
    from fsp_dynamics.experiments.backend import Backend
    from fsp_dynamics.models.network import Array
    from fsp_dynamics.training.ranks import Ranks

Record = dict[str, Any]
OnBatch = Callable[[int, int, float], None]
"""on_batch(images done, images in all, percent wrong so far), between two batches; it may raise."""
Leave = Callable[[], None]
"""leave(), where a batch can be left as if it had never begun; it may raise."""

PARAMETERS = "parameters/"
"""How the names of the arrays begin that are the network a run gives, which need not be the weights
that go on learning; all others serve the next epoch alone.
"""


class Family(NamedTuple):
    """Where a family is, as "package.module:name": its configuration, which is light to import, and
    its trainer, which is not.
    """

    config: str
    trainer: str


TRAINERS: dict[str, Family] = {
    "rate": Family(
        "fsp_dynamics.experiments.rate.config:RateConfig", "fsp_dynamics.experiments.rate.trainer:RateTrainer"
    ),
    "layerwise": Family(
        "fsp_dynamics.experiments.layerwise.config:LayerwiseConfig",
        "fsp_dynamics.experiments.layerwise.trainer:LayerwiseTrainer",
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class TrainingState:
    """All that the rest of a run depends on, beside the configuration: what a checkpoint holds.

    epoch : finished epochs.
    arrays : {name: array}. Names that begin with "parameters/" are the network; kept networks hold
        these alone.
    values : what JSON can hold to the bit: the state of random streams, the place in an epoch.
    changed : keys of the configuration that differ, as the user allowed, from those under which the
        state was saved.
    """

    epoch: int
    arrays: dict[str, Array]
    values: dict[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        values = ", ".join(self.values) or "none"
        return f"<TrainingState after epoch {self.epoch}: {len(self.arrays)} arrays, values {values}>"

    @property
    def parameters(self) -> dict[str, Array]:
        """The arrays that are the network, without "parameters/" before their names."""
        return self.part("parameters")

    def part(self, name: str) -> dict[str, Array]:
        """The arrays whose names begin with `name`/, without it."""
        return {key.removeprefix(f"{name}/"): a for key, a in self.arrays.items() if key.startswith(f"{name}/")}

    def network(self) -> TrainingState:
        """The network alone, as it is kept."""
        return TrainingState(self.epoch, {key: a for key, a in self.arrays.items() if key.startswith(PARAMETERS)})


@dataclass(frozen=True, slots=True)
class Resources:
    """What computes; nothing here is part of the experiment.

    backend : kernels or torch, and the device. ranks : the processes that train together.
    local_rank : the number of this process on its machine.
    elsewhere : another process will train, so that what is registered in this one alone cannot be
        used.
    objects : where rules and firing rates come from that a configuration names.
    restored : a state will be restored, so that the network before the first epoch is not needed.
    """

    backend: Backend
    ranks: Ranks
    local_rank: int = 0
    elsewhere: bool = False
    objects: Objects = field(default_factory=Objects)
    restored: bool = False


class EvaluationRecord(Protocol):
    """What a network does on a set of images: a dataclass, of which `fsp evaluate` shows every
    field. error : percent.
    """

    @property
    def error(self) -> float: ...


class PredictionRecord(Protocol):
    """What a network takes images for: a dataclass with these fields, as in
    `training.prediction.Prediction`, which `fsp predict` writes.
    """

    @property
    def classes(self) -> Array: ...

    def table(self) -> dict[str, Any]: ...


class Trainer(Protocol):
    """One family's part of a run: a network that learns, and what is measured of it.

    It holds the network, the data and the random streams. It writes no file, prints nothing and
    handles no signal; all of that is the runner's.
    """

    @classmethod
    def check(cls, config: Any, resources: Resources) -> None:
        """Refuse what cannot be trained, without data and quickly. Raises ConfigurationError."""
        ...

    @classmethod
    def build(cls, config: Any, data: Dataset, resources: Resources, network: Any = None) -> Self:
        """The trainer before its first epoch. network : to begin with, in place of the one that the
        seed gives; it is not modified. Raises ConfigurationError, ShapeError.
        """
        ...

    @classmethod
    def network_of(cls, config: Any, parameters: dict[str, Array], objects: Objects) -> Any:
        """The network with these parameters (`TrainingState.parameters`). Raises CheckpointError
        where they do not belong to the configuration.
        """
        ...

    @classmethod
    def predict(
        cls, config: Any, network: Any, images: Array, known: ImageFormat, resources: Resources
    ) -> PredictionRecord:
        """What a network of `network_of` takes images (B, n_in) for, without the data of the run,
        of which `known` tells the size of images and the names of classes. For `Run.predict`
        alone, which refuses a family that has no such method.
        """
        ...

    @property
    def description(self) -> str:
        """What computes, in words for environment.json: all that may change the last bits."""
        ...

    @property
    def network(self) -> Any:
        """The network of the moment, for callbacks, which must not change it."""
        ...

    @property
    def finished(self) -> int:
        """Finished epochs."""
        ...

    def epoch(self, on_batch: OnBatch | None = None, leave: Leave | None = None) -> Record:
        """One pass over the training images, or the rest of the one that was left between two
        batches; its report.

        on_batch may raise whatever it likes. Then the epoch is left there: `state` gives the state
        between those two batches, and the next call of `epoch`, here or in another process after
        `restore`, finishes the epoch to the same bits and the same report. So it is with `leave`,
        which a trainer calls several times a second where its batches last longer than that, and
        need not call otherwise.

        The report holds `train_error` (percent, of the predictions made while learning), `seconds`,
        `images_per_second`, and what else the family wants in metrics.jsonl. Raises NotFiniteError
        before anything not finite is learned, NoConvergenceError where nothing could be learned.
        """
        ...

    def evaluate(self, part: str) -> EvaluationRecord | None:
        """What the network does on a part of the data, "train", "valid" or "test"; None for a part
        without images. All ranks call it.
        """
        ...

    def probe(self) -> list[Record]:
        """The records of probes.jsonl since the last call, with `epoch` (0 before the first,
        fractions within one); the last is that of the network as it is now. It changes nothing.
        """
        ...

    def metrics(self, evaluations: Mapping[str, Any], probed: Record) -> Record:
        """What the line of an epoch holds beside the report and the errors. evaluations : by part,
        as `evaluate` gave them. probed : the last record of `probe`.
        """
        ...

    def state(self) -> TrainingState:
        """All that the rest of the run depends on, copied: between two epochs, or between two
        batches once `on_batch` has raised and the epoch was left.
        """
        ...

    def restore(self, state: TrainingState) -> None:
        """Go on from a state, to the same bits. Raises CheckpointError where it does not belong to
        the configuration.
        """
        ...

    def warnings(self, record: Record | None, previous: Record | None) -> list[str]:
        """What a user should know, a line each. record : the epoch that has just ended, as in
        metrics.jsonl; None before the first epoch of a session. previous : the one before it.
        """
        ...


def trainer_of(family: str) -> type[Trainer]:
    """The trainer of a family, imported now. Raises ConfigurationError for an unknown one."""
    module, name = TRAINERS[check_choice("family", family, TRAINERS)].trainer.split(":")
    found: type[Trainer] = getattr(imported(module), name)
    return found
