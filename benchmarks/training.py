"""Training images per second of the default solver, beside a PyTorch backpropagation step of an MLP of the same layers and batch.

Both learn the same MNIST images in chunks that take turns (ours, theirs, ours, ...), so that a machine whose speed drifts slows
both; the ratio is the median over the pairs of chunks, with its smallest and largest beside it. Evaluation and metrics are left out on
both sides. The network is measured untrained and after one epoch, because later epochs have fewer samples to learn from.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.datasets import Dataset, Split, load_dataset
from fsp_dynamics.experiments.execution import build_network, build_recipe, thread_limit
from fsp_dynamics.experiments.sources import load_config
from fsp_dynamics.learning.training import Learner, Recipe, train_epoch


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: seconds are for one image, ratios ours / theirs (below 1: cheaper than backpropagation)."""

    network: str
    state: str
    batch: int
    threads: int
    images_per_second: float
    backprop_images_per_second: float
    ratio: float
    ratio_min: float
    ratio_max: float
    passes_free: float
    passes_nudged: float
    nudged_share: float


class Backprop:
    """Eager PyTorch: ReLU hidden layers, cross-entropy, plain SGD."""

    def __init__(self, sizes: tuple[int, ...], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        layers: list[Any] = []
        for pre, post in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(pre, post), torch.nn.ReLU()]
        self.torch, self.model = torch, torch.nn.Sequential(*layers[:-1])
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.05)

    def chunk(self, split: Split, batch: int, rng: np.random.Generator) -> float:
        """Seconds to learn these images once."""
        torch, order = self.torch, rng.permutation(len(split.labels))
        images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
        begin = time.perf_counter()
        for first in range(0, len(order), batch):
            index = torch.from_numpy(order[first : first + batch])
            self.optimiser.zero_grad()
            torch.nn.functional.cross_entropy(self.model(images[index]), labels[index]).backward()
            self.optimiser.step()
        return time.perf_counter() - begin


def measure(preset: str, *, batch: int, threads: int, chunk: int = 2000, pairs: int = 7) -> Iterator[Row]:
    """Rows of one network: untrained, and after an epoch of the training images."""
    _, config = load_config(preset, {"learning.batch": batch})
    data = load_dataset(config.data.name)
    network, rng = build_network(config, data.train.images.shape[1], data.classes)
    recipe = build_recipe(config)
    with thread_limit(threads):
        learner, backprop = Learner.start(network, recipe, rng), Backprop(network.sizes, threads)
        warm_up = data.train.limit(200)
        train_epoch(Learner.start(network, recipe, 0), warm_up, recipe)  # compiles
        backprop.chunk(warm_up, batch, learner.rng)
        yield _pairs(preset, "untrained", learner, recipe, backprop, data, batch, threads, chunk, pairs)
        learner.epoch = 0
        train_epoch(learner, data.train, recipe)
        yield _pairs(preset, "after 1 epoch", learner, recipe, backprop, data, batch, threads, chunk, pairs)


def _pairs(
    preset: str, state: str, learner: Learner, recipe: Recipe, backprop: Backprop, data: Dataset, batch: int, threads: int, chunk: int, pairs: int
) -> Row:
    ours, theirs, reports, epoch = [], [], [], learner.epoch
    for pair in range(pairs):
        part = Split(data.train.images[pair * chunk :][:chunk], data.train.labels[pair * chunk :][:chunk])
        reports.append(train_epoch(learner, part, recipe))
        learner.epoch = epoch  # chunks are no epochs: the rates stay
        ours.append(reports[-1].seconds)
        theirs.append(backprop.chunk(part, batch, learner.rng))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Row(
        network=preset,
        state=state,
        batch=batch,
        threads=threads,
        images_per_second=chunk / statistics.median(ours),
        backprop_images_per_second=chunk / statistics.median(theirs),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        passes_free=statistics.fmean(r.passes_free for r in reports),
        passes_nudged=statistics.fmean(r.passes_nudged for r in reports),
        nudged_share=statistics.fmean(r.nudged_share for r in reports),
    )
