"""All methods behind one interface: `learn(part)` makes one pass over these images and returns time
and cost.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from benchmarks import counting
from benchmarks.euler import FREE, NUDGED, Euler
from benchmarks.twin import Twin
from fsp_dynamics.datasets import Split
from fsp_dynamics.experiments.execution import thread_limit
from fsp_dynamics.models.network import Network
from fsp_dynamics.training.engine import engine_of
from fsp_dynamics.training.epoch import Probe, train_epoch
from fsp_dynamics.training.loop_engine import LoopEngine
from fsp_dynamics.training.recipe import Learner, Recipe
from fsp_dynamics.training.warm_start import LoopWarmStart


@dataclass(frozen=True, slots=True)
class Took:
    """One chunk: seconds, multiplications per image (benchmarks/counting.py), further numbers."""

    seconds: float
    products: float
    notes: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some of the training images: images (B, n_0), labels (B,), and their indices among all of
    them, for warm starts.
    """

    images: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(cls, split: Split, numbers: np.ndarray) -> Part:
        return cls(split.images[numbers], split.labels[numbers], numbers)

    def __len__(self) -> int:
        return len(self.labels)


class Method(Protocol):
    """A method of learning."""

    def learn(self, part: Part) -> Took: ...


class Ours:
    """`train_epoch`, as a run calls it, with the warm starts of the images of each part; all :
    number of images.

    probe : called after every `every` batches.
    """

    def __init__(
        self, learner: Learner, recipe: Recipe, threads: int, all: int, probe: Probe | None = None, every: int = 1
    ) -> None:
        self.learner, self.recipe, self.threads, self.all = learner, recipe, threads, all
        self.probe, self.every = probe, every
        if learner.warm_start is None and engine_of(learner.network, recipe) is LoopEngine:
            learner.warm_start = LoopWarmStart.empty(all, learner.network)

    def learn(self, part: Part) -> Took:
        learner, epoch, warm = self.learner, self.learner.epoch, self.learner.warm_start
        of_images = (
            {} if warm is None else {name: array for name, array in warm.arrays().items() if len(array) == self.all}
        )
        if warm is not None:
            learner.warm_start = dataclasses.replace(
                warm, **{name: array[part.numbers] for name, array in of_images.items()}
            )
        with thread_limit(self.threads):
            report = train_epoch(learner, part, self.recipe, threads=self.threads, probe=self.probe, every=self.every)
        for name, array in of_images.items():
            array[part.numbers] = getattr(learner.warm_start, name)
        if learner.warm_start is not None:
            learner.warm_start = dataclasses.replace(learner.warm_start, **of_images)
        learner.epoch = epoch  # a part is not an epoch: the rates stay
        counts = report.passes_free, report.passes_nudged, report.nudged_share
        notes = dict(zip(("passes_free", "passes_nudged", "nudged_share"), counts, strict=True)) | {
            "residual": report.residual
        }
        return Took(report.seconds, counting.equilibrium(learner.network.sizes, *counts), notes)


class PyTorch:
    """Eager backpropagation: ReLU hidden layers, cross-entropy, plain SGD."""

    def __init__(self, sizes: tuple[int, ...], batch: int, threads: int) -> None:
        import torch

        torch.manual_seed(0)
        layers: list[Any] = []
        for pre, post in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(pre, post), torch.nn.ReLU()]
        self.torch, self.model, self.sizes = torch, torch.nn.Sequential(*layers[:-1]), sizes
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.batch, self.threads, self.rng = batch, threads, np.random.default_rng(0)

    def learn(self, part: Part) -> Took:
        torch, order = self.torch, self.rng.permutation(len(part))
        torch.set_num_threads(self.threads)
        images, labels = torch.from_numpy(part.images), torch.from_numpy(part.labels)
        begin = time.perf_counter()
        for first in range(0, len(order), self.batch):
            index = torch.from_numpy(order[first : first + self.batch])
            self.optimiser.zero_grad()
            torch.nn.functional.cross_entropy(self.model(images[index]), labels[index]).backward()
            self.optimiser.step()
        return Took(
            time.perf_counter() - begin, counting.backprop(self.sizes), {"batch": self.batch, "threads": self.threads}
        )


class TwinMethod:
    """The hand-written backpropagation of benchmarks/twin.py."""

    def __init__(self, twin: Twin, threads: int) -> None:
        self.twin, self.threads, self.rng = twin, threads, np.random.default_rng(0)

    def learn(self, part: Part) -> Took:
        seconds, share = self.twin.learn(part.images, part.labels, self.rng.permutation(len(part)), self.threads)
        return Took(seconds, counting.backprop(self.twin.sizes, share), {"share": share})


class EulerMethod:
    """Explicit Euler on a copy of the network and the first images of a part only: it is slow."""

    def __init__(self, network: Network, batch: int, threads: int, images: int = 200) -> None:
        self.euler, self.threads, self.images = Euler(network, batch=batch), threads, images

    def learn(self, part: Part) -> Took:
        images = min(self.images, len(part))
        report = self.euler.learn(part.images, part.labels, np.arange(images), self.threads)
        notes = {"residual": report.residual, "residual_max": report.residual_max, "nudged_share": report.share}
        products = counting.equilibrium(self.euler.sizes, FREE, NUDGED, report.share)
        return Took(report.seconds * len(part) / images, products, notes)


def best_pytorch(
    sizes: tuple[int, ...], part: Part, threads: tuple[int, ...], batches: tuple[int, ...] = (64, 256, 1024)
) -> PyTorch:
    """PyTorch with the batch size and threads that are fastest on these images, tried twice."""
    tried = [PyTorch(sizes, batch, count) for batch in batches for count in threads]
    for method in tried:
        method.learn(part)
    return min(tried, key=lambda method: method.learn(part).seconds)
