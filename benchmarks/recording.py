"""The cost of recording the angles of the loop every `EVERY` batches."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.learners import Ours, Part
from benchmarks.training import Bench, Plan, Say
from fsp_dynamics.analysis.alignment import loop_angles

EVERY = 100  # batches


@dataclass(frozen=True, slots=True)
class Recording:
    """Medians over epochs of one preset, one thread: seconds of an epoch with records and without,
    ms per record, and the fraction of the epoch spent on records.
    """

    preset: str
    state: str
    every: int
    records: int
    seconds: float
    seconds_without: float
    ms: float
    share: float


@dataclass(slots=True)
class Stopwatch:
    """A probe that computes the angles and measures the time this takes."""

    times: list[float] = field(default_factory=list)

    def __call__(self, done: int, loop: Any) -> None:
        begin = time.perf_counter()
        loop_angles(loop)
        self.times.append(time.perf_counter() - begin)


def measure(presets: Sequence[str], plan: Plan, say: Say) -> list[Recording]:
    """Epochs with records and without, in turn, from the same state: untrained, and after
    `plan.epochs` epochs, when epochs are cheap.
    """
    rows = []
    for preset in presets:
        bench = Bench(preset, plan)
        whole = Part.of(
            bench.train, np.arange(len(bench.train) if plan.epochs > 1 else min(plan.chunk, len(bench.train)))
        )
        warm = Part.of(bench.train, np.arange(2 * bench.batch))
        # compiles
        Ours(copy.deepcopy(bench.learner), bench.recipe, 1, len(bench.train), Stopwatch(), 1).learn(warm)
        for state in ("epoch 1", f"epoch {plan.epochs + 1}"):
            if state != "epoch 1":
                bench.train_on(plan.epochs, 1)
            say(f"records of {preset}, {state}")
            rows.append(_one(bench, state, whole, max(1, plan.rounds - 2)))
    return rows


def _one(bench: Bench, state: str, part: Part, rounds: int) -> Recording:
    recorded, plain, watch = [], [], Stopwatch()
    for _ in range(rounds):
        for seconds, probe in ((recorded, watch), (plain, None)):
            ours = Ours(copy.deepcopy(bench.learner), bench.recipe, 1, len(bench.train), probe, EVERY)
            seconds.append(ours.learn(part).seconds)
    share = sum(watch.times) / sum(recorded)
    return Recording(
        bench.preset,
        state,
        EVERY,
        len(watch.times) // rounds,
        *map(statistics.median, (recorded, plain)),
        1e3 * statistics.median(watch.times),
        share,
    )
