"""What is recorded of an epoch: the sums over its samples while it runs, and the report at its
end.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.kernels.loop_learning import COUNTED
from fsp_dynamics.learning.phases import Phases
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.solvers.equilibrium import Equilibrium


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch, as it was seen while learning.

    train_error : percent, of the free-phase predictions just before each update. residual,
        residual_max : free phase.
    unconverged : unconverged samples in some phase, which were not learned from. nudged_share :
        share of samples nudged at all.
    passes_free, passes_nudged : mean solver steps per sample, and per nudged sample.
    dead_outputs : outputs with rate 0 for the whole epoch although their class occurs.
    """

    train_error: float
    residual: float
    residual_max: float
    unconverged: int
    nudged_share: float
    passes_free: float
    passes_nudged: float
    dead_outputs: tuple[int, ...]
    seconds: float
    images_per_second: float

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class EpochStatistics:
    """Sums over the samples seen so far."""

    def __init__(self, network: Network) -> None:
        self.rate, classes = network.rho.rate, network.sizes[-1]
        self.samples = self.wrong = self.unconverged = self.nudged = 0
        self.residual = self.residual_max = self.passes_free = self.passes_nudged = 0.0
        self.strongest, self.occurs = np.zeros(classes), np.zeros(classes, bool)

    def add_free(self, rest: Equilibrium, labels: Array) -> None:
        self.samples += len(labels)
        self.wrong += int((rest.output.argmax(1) != labels).sum())
        self.residual += float(rest.residual.sum())
        self.residual_max = float(np.maximum(self.residual_max, rest.residual.max()))  # keeps NaN
        self.passes_free += float(rest.steps.sum())
        self.unconverged += int((~rest.converged).sum())
        self.strongest = np.maximum(self.strongest, self.rate(rest.output).max(0))
        self.occurs[labels] = True

    def add(self, both: Phases, labels: Array) -> None:
        self.add_free(both.free, labels)
        self.unconverged += int((~both.converged).sum())
        self.nudged += len(both.rows)
        self.passes_nudged += float(both.nudged.steps.sum())

    def add_counted(self, count: Array, strongest: Array, labels: Array) -> None:
        """What the engine counted (kernels/loop_learning.COUNTED)."""
        counted = dict(zip(COUNTED, count, strict=True))
        self.samples, self.wrong, self.nudged, self.unconverged = (
            int(counted[key]) for key in ("samples", "wrong", "nudged", "unconverged")
        )
        self.residual, self.residual_max = counted["residual"], counted["residual_max"]
        self.passes_free, self.passes_nudged = counted["passes_free"], counted["passes_nudged"]
        self.strongest = strongest
        self.occurs[labels] = True

    def dead_outputs(self) -> tuple[int, ...]:
        return tuple(int(j) for j in np.flatnonzero(self.occurs & (self.strongest <= 0)))

    def report(self, seconds: float) -> EpochReport:
        return EpochReport(
            train_error=100 * self.wrong / self.samples,
            residual=self.residual / self.samples,
            residual_max=self.residual_max,
            unconverged=self.unconverged,
            nudged_share=self.nudged / self.samples,
            passes_free=self.passes_free / self.samples,
            passes_nudged=self.passes_nudged / max(self.nudged, 1),
            dead_outputs=self.dead_outputs(),
            seconds=seconds,
            images_per_second=self.samples / seconds,
        )
