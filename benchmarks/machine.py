"""The machine, and the peak performance of its cores, to which results are related."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numba
import numpy as np

from benchmarks.counting import FLOPS
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.execution import environment, thread_limit
from fsp_dynamics.kernels.panels import aligned, multiply, to_panels
from fsp_dynamics.kernels.registers import REGISTER_BYTES
from fsp_dynamics.kernels.team import Team, partition
from fsp_dynamics.kernels.tiles import PANELS, ROWS


@dataclass(frozen=True, slots=True)
class Peak:
    """float32 products of two large matrices: 1e9 additions and multiplications per second,
    by NumPy and by our kernels; the larger one is the peak.
    """

    threads: int
    numpy: float
    panels: float

    @property
    def best(self) -> float:
        return max(self.numpy, self.panels)


def describe(config: Config) -> dict[str, Any]:
    """CPU, cores, versions, commit, date, and the tiles of products."""
    import torch

    found = environment(config, "bench")
    kept = {name: found[name] for name in ("cpu", "cores", "platform", "versions", "commit")}
    kept["versions"] = {**kept["versions"], "torch": torch.__version__}
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        **kept,
        "tiles": f"{ROWS} rows by {PANELS} panels in registers of {REGISTER_BYTES} bytes",
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def peak(threads: int, size: int = 1536, seconds: float = 1.0) -> Peak:
    """The fastest of several products within about `seconds`, for both implementations."""
    rng = np.random.default_rng(0)
    a, b, c = aligned((size, size), np.float32), rng.random((size, size), np.float32), aligned((size, size), np.float32)
    a[:] = rng.random((size, size), np.float32)
    w, rows = to_panels(b), np.arange(size // 8)
    with thread_limit(threads), Team(threads) as team:
        by_numpy = _fastest(lambda: np.matmul(a, b, out=c), seconds)
        ours = _fastest(lambda: team.run(_product, a, w, c, rows), seconds)
    work = FLOPS * 1e-9 * size**3
    return Peak(threads, work / by_numpy, work / 8 / ours)


def _fastest(work: Any, seconds: float) -> float:
    work()
    end, best = time.perf_counter() + seconds, np.inf
    while time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return float(best)


@numba.njit(error_model="numpy", nogil=True)
def _product(me, all, counters, a, w, c, rows):
    """This thread's panels of the product."""
    first, last = partition(w.shape[0], me, all)
    multiply(a, rows, w, c, rows, first, last, False)
