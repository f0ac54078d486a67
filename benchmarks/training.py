"""Whole chunks of training epochs in turn: ours, PyTorch's backpropagation, its twin on our
kernels, explicit Euler.

All learn the same chunks of images, in turn (ours, theirs, ..., ours, theirs, ...), so that a
machine whose speed drifts slows all of them; evaluation and metrics are left out on all sides. A
ratio is the median over the chunks of seconds / PyTorch's seconds at equal batch for the same
chunk. The network is measured in its first epoch, from no training at all, and in its sixth,
because later epochs have fewer samples to learn from; the twin that skips has then seen as many
epochs as ours. PyTorch's time does not depend on its state, nor does the other twin's.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.counting import FLOPS
from benchmarks.learners import EulerMethod, Method, Ours, Part, PyTorch, Took, TwinMethod, best_pytorch
from benchmarks.machine import Peak
from benchmarks.twin import Twin
from fsp_dynamics.datasets import Split, load_dataset
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.rate.building import build_network, build_recipe
from fsp_dynamics.training.recipe import Learner

PRESETS = ("mnist-2x500", "mnist-2x1500", "fashion-2x1500")
OURS, PYTORCH, BEST, TWIN, SKIPPING, EULER = (
    "ours",
    "PyTorch",
    "PyTorch, its best",
    "twin",
    "twin, skipping",
    "Euler 100 + 20",
)
METHODS = (OURS, PYTORCH, BEST, TWIN, SKIPPING, EULER)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    ms : milliseconds for one image, median. ratio, ratio_min, ratio_max : seconds / PyTorch's at
        equal batch, over the chunks; below 1 is cheaper.
    products : multiplications for one image, counted. peak_share : products per second as a share
        of the measured sgemm peak.
    notes : passes_free, passes_nudged, nudged_share, residual, ... as far as the method has them,
    means.
    """

    preset: str
    state: str
    method: str
    batch: int
    threads: int
    ms: float
    ratio: float
    ratio_min: float
    ratio_max: float
    products: float
    peak_share: float
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure: chunks of so many images, so many times over; epochs of training before
    the later state.
    """

    chunk: int = 5000
    rounds: int = 5
    epochs: int = 5
    euler: int = 200
    batches: tuple[int, ...] = (64, 256, 1024)


QUICK = Plan(chunk=2000, rounds=3, epochs=1, euler=40, batches=(64, 1024))
Say = Callable[[str], None]
_dataset = functools.cache(lambda name, limit, validation: load_dataset(name, limit=limit, validation=validation))


def in_turn(methods: dict[str, Method], chunks: Iterable[Part]) -> dict[str, list[Took]]:
    """Time and cost of each method for each chunk, all methods on one chunk before the next; each
    begins the turn once in a while.
    """
    names, took = list(methods), {name: list[Took]() for name in methods}
    for i, chunk in enumerate(chunks):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            took[name].append(methods[name].learn(chunk))
    return took


def chunks_of(split: Split, size: int, count: int, rng: np.random.Generator) -> list[Part]:
    """`count` parts of the images in random order, starting again from the beginning where they do
    not suffice; none has an image twice.
    """
    size = min(size, len(split))
    whole = len(split) // size
    orders = [rng.permutation(len(split))[: whole * size] for _ in range(-(-count // whole))]
    return [Part.of(split, numbers) for numbers in np.concatenate(orders).reshape(-1, size)[:count]]


def rows_of(took: dict[str, list[Took]], images: int, **where: Any) -> Iterator[Row]:
    """The rows of the table from the measurements, without the fractions of the peak
    (`with_shares`).
    """
    for method, parts in took.items():
        seconds = [part.seconds for part in parts]
        ratios = [mine / theirs.seconds for mine, theirs in zip(seconds, took[PYTORCH], strict=True)]
        notes = {name: statistics.fmean(part.notes[name] for part in parts) for name in parts[0].notes}
        given = {**where, **{name: int(notes.pop(name)) for name in ("batch", "threads") if name in notes}}
        products, ms = statistics.fmean(part.products for part in parts), 1e3 * statistics.median(seconds) / images
        spread = statistics.median(ratios), min(ratios), max(ratios)
        yield Row(
            **given,
            method=method,
            ms=ms,
            ratio=spread[0],
            ratio_min=spread[1],
            ratio_max=spread[2],
            products=products,
            peak_share=0.0,
            notes=notes,
        )


def with_shares(rows: Iterable[Row], peaks: Sequence[Peak]) -> list[Row]:
    """The rows with their share of the peak of as many threads: 2 products / (seconds peak)."""
    best = {peak.threads: peak.best for peak in peaks}
    return [
        dataclasses.replace(row, peak_share=FLOPS * row.products / (1e6 * row.ms * best[row.threads])) for row in rows
    ]


class Bench:
    """One preset with its data and learners: ours and the twins, which are trained between the two
    states.
    """

    def __init__(self, preset: str, plan: Plan, overrides: dict[str, Any] | None = None, twins: bool = True) -> None:
        self.preset, self.plan = preset, plan
        _, config = load_config(preset, overrides or {})
        data = _dataset(config.data.name, config.data.limit, config.data.validation)
        network, rng = build_network(config, data.train.images.shape[1], data.classes)
        self.train, self.recipe = data.train, build_recipe(config)
        self.learner, self.rng = Learner.start(network, self.recipe, rng), np.random.default_rng(0)
        skip = float(self.recipe.tolerance.absolute)
        self.twins = {
            name: Twin(network.sizes, batch=self.batch, skip=s, rng=0)
            for name, s in ((TWIN, -1.0), (SKIPPING, skip))
            if twins
        }

    @property
    def batch(self) -> int:
        return self.recipe.batch

    def train_on(self, epochs: int, threads: int) -> None:
        """Epochs of ours and of the twin that skips, not measured; what the other twin costs does
        not depend on what it knows.
        """
        everything = Part(self.train.images, self.train.labels, np.arange(len(self.train)))
        ours = Ours(self.learner, self.recipe, threads, len(self.train))
        for _ in range(epochs):
            ours.learn(everything)
            self.learner.epoch += 1
            TwinMethod(self.twins[SKIPPING], threads).learn(everything)

    def measure(self, state: str, threads: Sequence[int], say: Say) -> Iterator[Row]:
        """Rows for each number of threads, each from the same state."""
        plan, sizes = self.plan, self.learner.network.sizes
        chunks = chunks_of(self.train, plan.chunk, plan.rounds, self.rng)
        for count in threads:
            say(f"{self.preset}, {state}, {count} thread(s)")
            learner, twins = copy.deepcopy(self.learner), {name: twin.copy() for name, twin in self.twins.items()}
            methods: dict[str, Method] = {
                OURS: Ours(learner, self.recipe, count, len(self.train)),
                PYTORCH: PyTorch(sizes, self.batch, count),
                BEST: best_pytorch(sizes, chunks[0], tuple(t for t in threads if t <= count), plan.batches),
                **{name: TwinMethod(twin, count) for name, twin in twins.items()},
                EULER: EulerMethod(learner.network, self.batch, count, plan.euler),
            }
            yield from rows_of(
                in_turn(methods, chunks),
                len(chunks[0]),
                preset=self.preset,
                state=state,
                batch=self.batch,
                threads=count,
            )

    def warm_up(self, threads: Sequence[int]) -> None:
        """Everything once on a few images and copies, so that compilation is not included in the
        runs.
        """
        part = Part.of(self.train, np.arange(min(2 * self.batch, len(self.train))))
        for count in threads:
            learner = Learner.start(self.learner.network, self.recipe, 0)
            for twin in self.twins.values():
                TwinMethod(twin.copy(), count).learn(part)
            Ours(learner, self.recipe, count, len(self.train)).learn(part)
            PyTorch(learner.network.sizes, self.batch, count).learn(part)
            EulerMethod(learner.network, self.batch, count, 2).learn(part)


def measure(presets: Sequence[str], threads: Sequence[int], plan: Plan, say: Say) -> list[Row]:
    """Rows of every preset, in its first epoch and after `plan.epochs` epochs."""
    rows: list[Row] = []
    for preset in presets:
        bench = Bench(preset, plan)
        bench.warm_up(threads)
        rows += bench.measure("epoch 1", threads, say)
        say(f"{preset}: {plan.epochs} epoch(s) of training")
        bench.train_on(plan.epochs, max(threads))
        rows += bench.measure(f"epoch {plan.epochs + 1}", threads, say)
    return rows
