"""A second family, complete: softmax regression. It shows how little the runner asks of one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.special import softmax

from fsp_dynamics.experiments.config import Config, LearningConfig
from fsp_dynamics.experiments.trainer import TrainingState


class SoftmaxLearning(LearningConfig):
    rate: Annotated[float, Field(0.5, gt=0, description="learning rate")]
    batch: Annotated[int, Field(20, ge=1, description="images for each update")]


class SoftmaxConfig(Config):
    learning: SoftmaxLearning


@dataclass(frozen=True)
class SoftmaxEvaluation:
    error: float


class SoftmaxPrediction(dict):
    table, classes = dict.copy, property(lambda self: self["class"])


class SoftmaxTrainer:
    def __init__(self, config, data, weights):
        self.config, self.data, self.weights = config, data, weights
        self.rng, self.finished, self.place = np.random.default_rng(config.seed), 0, None

    @classmethod
    def check(cls, config, resources):
        pass

    @classmethod
    def build(cls, config, data, resources, network=None):
        shape = data.train.images.shape[1], data.classes
        return cls(config, data, np.zeros(shape) if network is None else network.copy())

    @classmethod
    def network_of(cls, config, parameters, objects):
        return parameters["weights"]

    @classmethod
    def predict(cls, config, network, images, known, resources):
        return SoftmaxPrediction({"class": (images @ network).argmax(1)})

    description = "numpy"
    network = property(lambda self: self.weights)

    def epoch(self, on_batch=None, leave=None):
        split, size, begin = self.data.train, self.config.learning.batch, time.perf_counter()
        order, done, wrong = self.place or (self.rng.permutation(len(split.labels)), 0, 0)
        while done < len(order):
            images, labels = split.images[order[done : done + size]], split.labels[order[done : done + size]]
            logits = images @ self.weights
            excess = softmax(logits, axis=1) - np.eye(self.data.classes)[labels]
            self.weights -= self.config.learning.rate / len(labels) * images.T @ excess
            done, wrong = done + len(labels), wrong + int((logits.argmax(1) != labels).sum())
            self.place = order, done, wrong
            if on_batch is not None:
                on_batch(done, len(order), 100 * wrong / done)
        self.place, self.finished = None, self.finished + 1
        return {"train_error": 100 * wrong / len(order), "seconds": time.perf_counter() - begin}

    def evaluate(self, part):
        split = getattr(self.data, part)
        found = (split.images @ self.weights).argmax(1)
        return SoftmaxEvaluation(100 * float((found != split.labels).mean())) if len(found) else None

    def probe(self):
        return [{"epoch": self.finished, "norm": float(np.linalg.norm(self.weights))}]

    def metrics(self, evaluations, probed):
        return {"norm": probed["norm"]}

    def state(self):
        arrays, values = {"parameters/weights": self.weights.copy()}, {"rng": self.rng.bit_generator.state}
        if self.place is not None:
            arrays["epoch/order"], values["place"] = self.place[0].copy(), list(self.place[1:])
        return TrainingState(self.finished, arrays, values)

    def restore(self, state):
        self.weights, self.finished = state.parameters["weights"].copy(), state.epoch
        self.rng.bit_generator.state = state.values["rng"]
        self.place = (state.arrays["epoch/order"], *state.values["place"]) if "place" in state.values else None

    def warnings(self, record, previous):
        return [f"epoch {record['epoch']}: the weights are large"] if record and record["norm"] > 1e3 else []
