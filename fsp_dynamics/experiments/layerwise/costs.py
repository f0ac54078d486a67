"""What a batch costs the learners of tables I to IV, for the network of a configuration and random
images: no data are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fsp_dynamics.errors import ConfigurationError, check_choice, is_whole
from fsp_dynamics.experiments.backend import Backend
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.execution import thread_limit
from fsp_dynamics.experiments.layerwise.config import MAP_NUMBERS, LayerwiseConfig
from fsp_dynamics.experiments.layerwise.trainer import settings_of, shape_of_config
from fsp_dynamics.layerwise.cost import Cost, StageCost, kept_bytes, measure, middle_seconds
from fsp_dynamics.layerwise.learners import Learner, make_learner
from fsp_dynamics.layerwise.names import LEARNERS
from fsp_dynamics.layerwise.paper import layers_of
from fsp_dynamics.torch_backend.tensors import describe_device

NAMES = {"bp": "BP", "ll-bp": "LL-BP", "ll-fa": "LL-FA", "fsp": "FSP", "fsp-sparse": "FSP sparse"}
"""What is compared, as tables call it: learners, and forward signal propagation with sparse
targets.
"""
IMAGES = {
    "digits": ((1, 8, 8), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "svhn": ((3, 32, 32), 10),
}
"""(channels, height, width) and classes of the data sets that a name finds."""
MIB = 2**20
SUMMARIES: dict[str, Callable[[Cost, Callable[[StageCost], float]], float]] = {
    "mean layer": Cost.mean,
    "largest": Cost.largest,
    "sum": Cost.total,
}
"""The mean is what tables I and III say of the layers; they leave the others out."""
_RATIOS = (
    ("ll-bp", "bp"),
    ("ll-fa", "bp"),
    ("fsp", "bp"),
    ("fsp-sparse", "bp"),
    ("fsp-sparse", "ll-bp"),
    ("fsp-sparse", "ll-fa"),
    ("fsp-sparse", "fsp"),
)


@dataclass(frozen=True, slots=True)
class Costs:
    """costs : by name (`NAMES`). network, device : in words. batch : images. is_vgg8b : whether the
    paper has such a network.
    """

    costs: dict[str, Cost]
    network: str
    device: str
    batch: int
    is_vgg8b: bool = False

    @property
    def stages(self) -> list[str]:
        """The names of all stages, in order; those of one learner need not be another's."""
        found = dict.fromkeys(stage.name for cost in self.costs.values() for stage in cost.stages)
        return [*(name for name in found if name != "output"), "output"]

    def rows(
        self, of: Callable[[StageCost], float], shown: Callable[[StageCost], str], digits: int
    ) -> list[dict[str, str]]:
        """A table: a row for each stage, then their mean, largest and sum; a column for each
        learner. Backpropagation has one stage, which is all three.
        """
        rows = []
        for name in self.stages:
            row = {"stage": name}
            for learner, cost in self.costs.items():
                stage = next((each for each in cost.stages if each.name == name and len(cost.stages) > 1), None)
                row[NAMES[learner]] = "-" if stage is None else shown(stage)
            rows.append(row)
        for name, summary in SUMMARIES.items():
            values = {
                NAMES[learner]: shown(cost.stages[0]) if len(cost.stages) == 1 else f"{summary(cost, of):.{digits}f}"
                for learner, cost in self.costs.items()
            }
            rows.append({"stage": name, **values})
        return rows

    def kept(self) -> list[dict[str, str]]:
        """The bytes kept for the backward pass, in MiB."""
        return self.rows(_mib, lambda stage: f"{_mib(stage):.2f}", 2)

    def peaks(self) -> list[dict[str, str]]:
        """The device's memory at most during a step, in MiB; no rows where it is not counted."""
        if any(stage.peak is None for cost in self.costs.values() for stage in cost.stages):
            return []
        return self.rows(_peak_mib, lambda stage: f"{_peak_mib(stage):.2f}", 2)

    def seconds(self) -> list[dict[str, str]]:
        """Milliseconds: the median over the rounds, and the range."""
        return self.rows(_milliseconds, _spread, 1)

    def ratios(self) -> list[dict[str, str]]:
        """One learner over another, in brackets the same of the paper where it has such a
        network.
        """
        rows = []
        for one, other in _RATIOS:
            if one in self.costs and other in self.costs:
                ours, theirs = (self.costs[one], self.costs[other]), layers_of(one, other) if self.is_vgg8b else None
                row = {"": f"{NAMES[one]} / {NAMES[other]}"}
                for what, of, field in (("bytes", kept_bytes, "mib"), ("seconds", middle_seconds, "seconds")):
                    for name, summary in SUMMARIES.items():
                        known = (
                            None if theirs is None else _ratio(*(_of_paper(name, getattr(e, field)) for e in theirs))
                        )
                        row[f"{what}, {name}"] = _beside(_ratio(*(summary(each, of) for each in ours)), known)
                rows.append(row)
        return rows

    def flat(self) -> list[dict[str, Any]]:
        """A record for each stage of each learner, and for their mean, largest and sum."""
        rows = []
        for learner, cost in self.costs.items():
            for stage in cost.stages:
                times = {"seconds_low": min(stage.seconds), "seconds_high": max(stage.seconds)}
                known = {"bytes": stage.bytes, "seconds": middle_seconds(stage), **times, "peak_bytes": stage.peak}
                rows.append({"learner": learner, "stage": stage.name, **known})
            for name, summary in SUMMARIES.items():
                known = {"bytes": summary(cost, kept_bytes), "seconds": summary(cost, middle_seconds)}
                rows.append({"learner": learner, "stage": name, **known})
        return rows

    @property
    def title(self) -> str:
        """What was measured, and on what."""
        return f"{self.network}, batch {self.batch}, {self.device}"


def costs_of(
    config: Config,
    *,
    batch: int | None = None,
    rounds: int = 5,
    learners: Sequence[str] = (),
    image_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Costs:
    """Measure the learners in turns, on one batch of random images.

    batch : images; None: learning.batch. rounds : how often everything is timed. learners : among
    `NAMES`; none: all that there are. image_shape, classes : (channels, height, width) and how many
    classes; None: those of the data set of the configuration. device : of torch; None: a GPU where
    there is one. threads : of torch; None: one. say : told what is being done.

    Raises ConfigurationError for another family, and for what cannot be made of the arguments.
    """
    if not isinstance(config, LayerwiseConfig):
        raise ConfigurationError(
            f"family = {config.family!r} has no stages to measure; choose a preset of family 'layerwise'"
        )
    batch = config.learning.batch if batch is None else batch
    for field, value, least in (("batch", batch, 2), ("rounds", rounds, 1)):
        if not is_whole(value, least):
            raise ConfigurationError(f"{field} = {value!r}, expected a whole number, {least} or more")
    shape, count = _images(config, image_shape, classes)
    names = [check_choice("learners", name, NAMES) for name in learners] or list(NAMES)
    names = [name for name in NAMES if name in names and name.removesuffix("-sparse") in LEARNERS]
    where = Backend("torch", device).device_name()
    stream = torch.Generator().manual_seed(config.seed)
    images = torch.rand(batch, shape[0] * shape[1] * shape[2], generator=stream).to(where)
    labels = torch.randint(count, (batch,), generator=stream).to(where)
    with thread_limit(threads):
        say(f"making {len(names)} learners")
        made = {name: _learner(config, name, shape, count, where) for name in names}
        say(f"learning {1 + rounds} batches of {batch} images with each")
        found = measure(made, images, labels, rounds)
        in_words = describe_device(where) + (f", threads {torch.get_num_threads()}" if where == "cpu" else "")
    return Costs(found, _network_words(config, shape, count), in_words, batch, config.network.kind == "vgg8b")


def _images(
    config: LayerwiseConfig, image_shape: tuple[int, ...] | None, classes: int | None
) -> tuple[tuple[int, int, int], int]:
    """(channels, height, width) and classes."""
    known = IMAGES.get(str(config.data.name))
    if known is None and (image_shape is None or classes is None):
        raise ConfigurationError(
            f"data {config.data.label!r} are not read to measure costs; give image_shape=... and classes=..."
        )
    shape, count = known or ((0, 0, 0), 0)
    if image_shape is not None:
        if len(image_shape) != 3 or not all(is_whole(size, 1) for size in image_shape):
            raise ConfigurationError(
                f"image_shape = {image_shape!r}, expected channels, height and width, such as 3,32,32"
            )
        shape = (image_shape[0], image_shape[1], image_shape[2])
    if classes is not None:
        if not is_whole(classes, 2):
            raise ConfigurationError(f"classes = {classes!r}, expected a whole number, 2 or more")
        count = classes
    return shape, count


def _learner(
    config: LayerwiseConfig, name: str, image_shape: tuple[int, int, int], classes: int, where: str
) -> Learner:
    """One of `NAMES` for the network of a configuration. Sparse targets are those of the
    configuration, or of the kernel's size, or half the units of the first layer.
    """
    shape, settings = shape_of_config(config), settings_of(config)
    first = shape.layers[0]
    sparse = settings.sparse or (MAP_NUMBERS if first.conv else max(1, first.size // 2))
    settings = replace(settings, sparse=sparse if name == "fsp-sparse" else None)
    kind = name.removesuffix("-sparse")
    return make_learner(kind, shape, image_shape, classes, settings, seed=config.seed, device=where)


def _network_words(config: LayerwiseConfig, image_shape: tuple[int, int, int], classes: int) -> str:
    network = config.network
    sizes = {
        "mlp": network.hidden,
        "conv": (*network.channels, *network.hidden),
        "vgg8b": (f"width {network.width:g}",),
    }
    words = "-".join(map(str, sizes[network.kind]))
    return f"{network.kind} {words}, images {' x '.join(map(str, image_shape))}, {classes} classes"


def _mib(stage: StageCost) -> float:
    return stage.bytes / MIB


def _peak_mib(stage: StageCost) -> float:
    return (stage.peak or 0) / MIB


def _milliseconds(stage: StageCost) -> float:
    return 1e3 * middle_seconds(stage)


def _spread(stage: StageCost) -> str:
    low, high = 1e3 * min(stage.seconds), 1e3 * max(stage.seconds)
    alone = f"{_milliseconds(stage):.1f}"
    return alone if len(stage.seconds) == 1 else f"{alone} ({low:.1f} to {high:.1f})"


def _of_paper(summary: str, values: Sequence[float]) -> float:
    whole = {"mean layer": sum(values) / len(values), "largest": max(values), "sum": sum(values)}
    return whole[summary]


def _ratio(one: float, other: float) -> float:
    return one / other if other else float("nan")


def _beside(ours: float, known: float | None) -> str:
    return f"{ours:.2f}" if known is None else f"{ours:.2f} ({known:.2f})"
