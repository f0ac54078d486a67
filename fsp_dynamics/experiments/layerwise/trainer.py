"""`LayerwiseTrainer`: discrete networks behind the protocol of the runner."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.datasets.formats import ImageFormat
from fsp_dynamics.errors import CheckpointError, ConfigurationError
from fsp_dynamics.experiments.layerwise.config import LayerwiseConfig
from fsp_dynamics.experiments.layerwise.pipeline import Seen, check_ranks, course_of
from fsp_dynamics.experiments.layerwise.spiking import about_spikes, spikes_record
from fsp_dynamics.experiments.layerwise.state import arrays_of, load_parameters, parameters_of, set_arrays
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.random_state import restore_generator
from fsp_dynamics.experiments.schedule import schedule_of
from fsp_dynamics.experiments.trainer import Leave, OnBatch, Record, Resources, TrainingState
from fsp_dynamics.layerwise.augmentation import Normalisation, augment
from fsp_dynamics.layerwise.evaluation import LayerwiseEvaluation, evaluate_exits
from fsp_dynamics.layerwise.learners import Learner, Settings, make_learner
from fsp_dynamics.layerwise.networks import IMAGES_AND_CLASSES, Shape, shape_of
from fsp_dynamics.layerwise.neurons import Neuron
from fsp_dynamics.layerwise.prediction import LayerwisePrediction, predict_images
from fsp_dynamics.layerwise.scores import Score
from fsp_dynamics.layerwise.stages import autocast
from fsp_dynamics.models.network import Array
from fsp_dynamics.torch_backend.tensors import describe_device, tensor


class Place(NamedTuple):
    """Where an epoch stands between two batches. order : of the images. done, wrong : images so
    far. seconds : that it took so far.
    """

    order: npt.NDArray[np.int64]
    done: int = 0
    wrong: int = 0
    seconds: float = 0.0


class LayerwiseTrainer:
    """A discrete network that learns batch by batch."""

    def __init__(self, config: LayerwiseConfig, data: Dataset, resources: Resources, learner: Learner) -> None:
        self.config, self.data, self.resources, self.learner = config, data, resources, learner
        self.schedule = schedule_of(config.learning.schedule, config.learning.rate_factor)
        self.rng = np.random.default_rng(config.seed)
        self.finished = 0
        self.place: Place | None = None
        self.course = course_of(learner, resources.ranks)

    @classmethod
    def check(cls, config: LayerwiseConfig, resources: Resources) -> None:
        """Raises ConfigurationError for a device that is not there, for float16 on a CPU, and for a
        shape or a learner that does not suit the rest.
        """
        autocast(config.learning.precision, torch.device(_device(resources)))
        check_ranks(learner_of(config, smallest_image(config), 10), resources.ranks.count)

    @classmethod
    def build(
        cls, config: LayerwiseConfig, data: Dataset, resources: Resources, network: Any = None
    ) -> LayerwiseTrainer:
        """See `Trainer.build`; network : a learner, as `network_of` gives it."""
        if network is not None and not isinstance(network, Learner):
            raise ConfigurationError(
                f"network = {type(network).__name__}, expected what Run.network() gives of a run of family = "
                "'layerwise'; leave it out"
            )
        learner = learner_of(config, data.planes, data.classes, _device(resources))
        if len(data.train.labels) < 2:
            raise ConfigurationError("data has 1 training image, expected 2 or more for batch norm; give more")
        _check_crop(config, data)
        if config.learning.normalise:
            learner.network.normalise(Normalisation.of(data.train.images, data.planes))
        if network is not None:
            load_parameters(learner.network, parameters_of(network))
        return cls(config, data, resources, learner)

    @classmethod
    def network_of(cls, config: LayerwiseConfig, parameters: dict[str, Array], objects: Objects) -> Learner:
        """The learner, whose network has these parameters."""
        known = parameters.get(IMAGES_AND_CLASSES)
        if known is None or known.shape != (4,):
            raise CheckpointError(f"{IMAGES_AND_CLASSES} is missing: this is no network of family = 'layerwise'")
        *image_shape, classes = (int(each) for each in known)
        learner = learner_of(config, tuple(image_shape), classes)
        load_parameters(learner.network, parameters)
        return learner

    @classmethod
    def predict(
        cls, config: LayerwiseConfig, network: Learner, images: Array, known: ImageFormat, resources: Resources
    ) -> LayerwisePrediction:
        """See `Trainer.predict`."""
        return predict_images(network, images, known.class_names)

    @property
    def description(self) -> str:
        """The torch and the device."""
        return describe_device(_device(self.resources))

    @property
    def network(self) -> Learner:
        """The learner."""
        return self.learner

    def epoch(self, on_batch: OnBatch | None = None, leave: Leave | None = None) -> Record:
        """See `Trainer.epoch`."""
        images, labels = self.data.train.images, self.data.train.labels
        for stage in self.learner.stages:
            stage.follow(self.schedule.factor(self.finished))
        place = self.place or Place(self.rng.permutation(len(labels)))
        begin, parts = time.perf_counter() - place.seconds, batches(len(labels), self.config.learning.batch, place.done)

        def batch(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
            chosen = place.order[part]
            given = tensor(self._shown(images[chosen]), self.learner.device)
            return given, tensor(labels[chosen], self.learner.device, torch.int64)

        def after(done: int, seen: Seen) -> None:
            self.place = Place(place.order, done, seen.wrong, time.perf_counter() - begin)
            if on_batch is not None:
                on_batch(done, len(labels), 100 * seen.wrong / max(seen.images, 1))

        try:
            seen = self.course.learn(parts, batch, Seen(place.done, place.wrong), after)
        except BaseException:
            if self.place is not None:
                self.place = self.place._replace(wrong=self.course.seen.wrong)
            raise
        seconds = time.perf_counter() - begin
        self.place, self.finished = None, self.finished + 1
        return {
            "train_error": 100 * seen.wrong / len(labels),
            "seconds": seconds,
            "images_per_second": len(labels) / max(seconds, 1e-9),
        }

    def _shown(self, images: Array) -> Array:
        """The images (B, pixels) of a batch as they are shown to the learner this time."""
        how = self.config.learning.augmentation
        if not how.crop and not how.flip:
            return images
        planes = images.reshape(-1, *self.data.planes)
        return augment(planes, self.rng, crop=how.crop, flip=how.flip).reshape(len(images), -1)

    def evaluate(self, part: str) -> LayerwiseEvaluation | None:
        """See `Trainer.evaluate`."""
        split = getattr(self.data, part)
        if not len(split.labels):
            return None
        return evaluate_exits(self.learner, split.images, split.labels, self.data.class_names)

    def probe(self) -> list[Record]:
        """Nothing but the errors is measured while it learns."""
        return [{"epoch": self.finished}]

    def metrics(self, evaluations: Mapping[str, LayerwiseEvaluation | None], probed: Record) -> Record:
        """The errors of every exit, in percent, for each part; of a spiking network also what its
        units do.
        """
        errors = {part: found.exits for part, found in evaluations.items() if found is not None}
        return {"exit_errors": errors, **spikes_record(self.learner, self.data)}

    def state(self) -> TrainingState:
        """See `Trainer.state`."""
        arrays, values = arrays_of(self.learner), {"rng": self.rng.bit_generator.state}
        if self.place is not None:
            arrays["epoch/order"] = self.place.order.copy()
            values["place"] = {"done": self.place.done, "wrong": self.place.wrong, "seconds": self.place.seconds}
        return TrainingState(self.finished, arrays, values)

    def restore(self, state: TrainingState) -> None:
        """See `Trainer.restore`."""
        set_arrays(self.learner, state.arrays)
        restore_generator(self.rng, state.values.get("rng"))
        self.finished, self.place = state.epoch, None
        if "place" in state.values:
            order = state.arrays.get("epoch/order")
            if order is None or len(order) != len(self.data.train.labels):
                raise CheckpointError("epoch/order does not fit the training images; resume with the data of the run")
            self.place = Place(np.array(order), **state.values["place"])

    def warnings(self, record: Record | None, previous: Record | None) -> list[str]:
        """Layers whose exit tells no classes apart, and those whose units do not tell images apart
        by their spikes, once each.
        """
        if record is None:
            return []
        threshold = self.config.network.threshold
        now, before = _at_chance(record, self.data.classes), _at_chance(previous or {}, self.data.classes)
        return [
            f"epoch {record['epoch']}: {name} tells no classes apart (an error of {error:.1f} %), so later layers "
            f"learn from noise; lower learning.rate (now {self.config.learning.rate:g})"
            for name, error in now.items()
            if name not in before
        ] + [f"epoch {record['epoch']}: {text}" for text in about_spikes(record, previous or {}, threshold)]


def batches(images: int, size: int, done: int = 0) -> list[slice]:
    """The batches of an epoch, from the image `done` on. A last one of a single image, which batch
    norm cannot take, joins the one before.

    >>> batches(5, 2), batches(5, 2, done=2)
    ([slice(0, 2, None), slice(2, 5, None)], [slice(2, 5, None)])
    """
    ends = [*range(size, images, size), images]
    if len(ends) > 1 and images - ends[-2] == 1:
        del ends[-2]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False) if start >= done]


def _at_chance(record: Record, classes: int) -> dict[str, float]:
    """{exit: error} of those that are within a percent of guessing."""
    seen = record.get("exit_errors", {})
    errors = seen.get("valid") or seen.get("test") or {}
    return {name: error for name, error in errors.items() if error > 99 - 100 / classes}


def _check_crop(config: LayerwiseConfig, data: Dataset) -> None:
    """Raises ConfigurationError for a crop that may leave nothing of an image."""
    try:
        augment(np.zeros((1, *data.planes)), np.random.default_rng(0), crop=config.learning.augmentation.crop, flip=0)
    except ConfigurationError as error:
        raise ConfigurationError(f"learning.augmentation.{error}") from None


def _device(resources: Resources) -> str:
    """A GPU with backend torch; else the CPU."""
    given = resources.backend
    return given.device_name(resources.local_rank) if given.name == "torch" else "cpu"


def learner_of(
    config: LayerwiseConfig, image_shape: tuple[int, ...], classes: int, device: str | torch.device = "cpu"
) -> Learner:
    """The learner of a configuration, whose network is drawn from the seed. image_shape :
    (channels, height, width).
    """
    channels, height, width = image_shape
    return make_learner(
        config.learning.learner,
        shape_of_config(config),
        (channels, height, width),
        classes,
        settings_of(config),
        seed=config.seed,
        device=device,
    )


def smallest_image(config: LayerwiseConfig) -> tuple[int, int, int]:
    """The smallest image that the pools of a configuration allow."""
    shape = shape_of_config(config)
    side = shape.last_pool * math.prod(layer.pool for layer in shape.layers)
    return (1, side, side)


def shape_of_config(config: LayerwiseConfig) -> Shape:
    """The blocks that a configuration describes."""
    network = config.network
    neuron = Neuron(network.steps, network.threshold, network.leak, network.reset)
    return shape_of(network.kind, network.hidden, network.channels, network.width, neuron)


def settings_of(config: LayerwiseConfig) -> Settings:
    """How the learner of a configuration learns."""
    network, learning, targets = config.network, config.learning, config.targets
    return Settings(
        rate=learning.rate,
        output_rate=learning.output_rate or learning.rate,
        version=targets.version,
        generator=targets.generator,
        sparse=targets.sparse,
        layer_norm=targets.layer_norm,
        eta=targets.eta,
        score=Score(targets.score, targets.temperature),
        compared=targets.compared,
        dropout=network.dropout,
        normalised=network.batch_norm,
        precision=learning.precision,
    )
