"""Cost of one image against width, depth, batch and threads, untrained networks of the preset
mnist-2x1500: ours, PyTorch, the twin; and memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.learners import Method, Ours, PyTorch, TwinMethod
from benchmarks.training import OURS, PYTORCH, TWIN, Bench, Plan, Say, chunks_of, in_turn

PRESET = "mnist-2x1500"


@dataclass(frozen=True, slots=True)
class Point:
    """Milliseconds for one image, median; `axis` is the one of width, depth, batch, threads that
    `value` belongs to.
    """

    axis: str
    value: int
    method: str
    width: int
    depth: int
    batch: int
    threads: int
    ms: float


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Peak resident memory of a process that loads the data and learns: MB before learning, and at
    the end.
    """

    preset: str
    method: str
    before_mb: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Grid:
    """Which values of each axis; the others stay at width 1000, depth 2, batch 20, one thread.
    seconds : for each chunk.
    """

    width: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    depth: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    batch: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    threads: tuple[int, ...] = (1, 2)
    seconds: float = 2.0
    rounds: int = 3


QUICK = Grid(width=(256, 1024), depth=(1, 3), batch=(1, 128), seconds=0.2)


def measure(grid: Grid, say: Say) -> Iterator[Point]:
    """Every point of every axis."""
    for axis in ("width", "depth", "batch", "threads"):
        for value in getattr(grid, axis):
            say(f"cost against {axis}: {value}")
            at = {"width": 1000, "depth": 2, "batch": 20, "threads": 1, axis: value}
            for method, ms in _cost(at, grid).items():
                yield Point(axis, value, method, ms=ms, **at)


def _cost(at: dict[str, int], grid: Grid) -> dict[str, float]:
    """Milliseconds per image for each method."""
    depth, threads = at["depth"], at["threads"]
    shape = {
        "network.hidden": [at["width"]] * depth,
        "learning.rates.forward": [30.0] * (depth - 1) + [7.0],
        "learning.batch": at["batch"],
    }
    bench = Bench(PRESET, Plan(), shape)
    sizes = bench.learner.network.sizes
    methods: dict[str, Method] = {
        OURS: Ours(bench.learner, bench.recipe, threads, len(bench.train)),
        PYTORCH: PyTorch(sizes, bench.batch, threads),
        TWIN: TwinMethod(bench.twins[TWIN], threads),
    }
    part = chunks_of(bench.train, min(max(2 * bench.batch, 20), len(bench.train)), 2, bench.rng)
    for method in methods.values():
        method.learn(part[0])  # compiles
    slowest = max(method.learn(part[1]).seconds for method in methods.values())
    images = max(1, round(grid.seconds * len(part[0]) / slowest / bench.batch)) * bench.batch
    images = min(images, len(bench.train))
    took = in_turn(methods, chunks_of(bench.train, images, grid.rounds, bench.rng))
    return {name: 1e3 * statistics.median(each.seconds for each in parts) / images for name, parts in took.items()}


def memory(presets: Sequence[str], say: Say, images: int = 2000) -> list[MemoryUse]:
    """The memory of each method, each measured in its own process."""
    rows = []
    for preset in presets:
        for method in (OURS, PYTORCH):
            say(f"memory of {method}, {preset}")
            command = [sys.executable, "-m", "benchmarks.scaling", preset, method, str(images)]
            done = subprocess.run(
                command, cwd=Path(__file__).parents[1], env=dict(os.environ), capture_output=True, text=True, check=True
            )
            rows.append(MemoryUse(preset, method, **json.loads(done.stdout.splitlines()[-1])))
    return rows


def _peak_mb() -> float:
    """Peak resident memory of this process. On Linux getrusage may return that of the
    process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return float(status.read_text().partition("VmHWM:")[2].split()[0]) / 1e3
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _learn_here(preset: str, method: str, images: int) -> None:
    """The process of `memory`: learn, and print the two figures."""
    bench = Bench(preset, Plan(), twins=False)
    part = chunks_of(bench.train, images, 1, np.random.default_rng(0))[0]
    before = _peak_mb()
    who: Method = (
        PyTorch(bench.learner.network.sizes, bench.batch, 1)
        if method == PYTORCH
        else Ours(bench.learner, bench.recipe, 1, len(bench.train))
    )
    who.learn(part)
    print(json.dumps({"before_mb": before, "peak_mb": _peak_mb()}))


if __name__ == "__main__":
    _learn_here(sys.argv[1], sys.argv[2], int(sys.argv[3]))
