"""What it costs to write down the loop's angles every so many batches, beside the same epoch
without.
"""

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
    """Medians over the epochs of one preset, one thread: seconds of an epoch with records and
    without, ms of one record, and what share of the epoch the records took, by the clock around
    them.
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
    """A probe that takes the angles, and the time it takes them in."""

    times: list[float] = field(default_factory=list)

    def __call__(self, done: int, loop: Any) -> None:
        begin = time.perf_counter()
        loop_angles(loop)
        self.times.append(time.perf_counter() - begin)


def measure(presets: Sequence[str], plan: Plan, say: Say) -> list[Recording]:
    """Whole epochs in turn, with records and without, from one state: before learning, and after
    `plan.epochs` epochs, where epochs are cheap.
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
    looked, blind, watch = [], [], Stopwatch()
    for _ in range(rounds):
        for seconds, probe in ((looked, watch), (blind, None)):
            ours = Ours(copy.deepcopy(bench.learner), bench.recipe, 1, len(bench.train), probe, EVERY)
            seconds.append(ours.learn(part).seconds)
    share = sum(watch.times) / sum(looked)
    return Recording(
        bench.preset,
        state,
        EVERY,
        len(watch.times) // rounds,
        *map(statistics.median, (looked, blind)),
        1e3 * statistics.median(watch.times),
        share,
    )
