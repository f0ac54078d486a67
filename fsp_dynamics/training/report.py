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
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.network import Array


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch, as it was seen while learning.

    train_error : percent, of the free-phase predictions just before each update. residual,
        residual_max : free phase.
    unconverged : unconverged samples in some phase, which were not learned from. nudged_share :
        share of samples nudged at all.
    passes_free, passes_nudged : mean solver steps per sample, and per nudged sample.
    dead_outputs : outputs with rate 0 for the whole epoch although their class occurs.

    >>> import fsp_dynamics as fsp
    >>> run = fsp.train("digits", epochs=1, data={"limit": 40}, progress=False)
    >>> sorted(set(run.metrics[0]) & {"train_error", "residual", "unconverged", "seconds"})
    ['residual', 'seconds', 'train_error', 'unconverged']
    >>> report = EpochReport(10.0, 1e-5, 1e-4, 0, 0.9, 3.7, 2.2, (), 1.0, 40.0)
    >>> report.as_dict()["train_error"]
    10.0
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

    def __repr__(self) -> str:
        dead = ", ".join(map(str, self.dead_outputs)) or "none"
        return (
            f"<EpochReport: training error {self.train_error:.2f} %, residual up to {self.residual_max:.2g}, "
            f"{self.unconverged} unconverged, dead outputs {dead}; {self.seconds:.3g} s>"
        )

    def as_dict(self) -> dict[str, Any]:
        """What the metrics of a run hold of it.

        Returns
        -------
        dict : {field: value}.
        """
        return dataclasses.asdict(self)


class EpochStatistics:
    """Sums over the samples of an epoch so far.

    counts : (8,) float64 in the order of kernels/loop_learning.COUNTED.
    strongest : (n_L,) float64, the largest rate of each output.
    """

    __slots__ = ("counts", "strongest")

    def __init__(self, classes: int) -> None:
        self.counts, self.strongest = np.zeros(len(COUNTED)), np.zeros(classes)

    @property
    def samples(self) -> int:
        """How many have been learned from, or left out."""
        return int(self["samples"])

    @property
    def wrong(self) -> float:
        """How many of them had another class's output as the strongest."""
        return self["wrong"]

    def __getitem__(self, name: str) -> float:
        return float(self.counts[COUNTED.index(name)])

    def add(self, phases: Phases, labels: Array, rho: Activation) -> None:
        """Count the samples of a batch."""
        free, nudged = phases.free, phases.nudged
        rates = rho.rate(free.output)
        batch = {
            "samples": len(labels),
            "wrong": (free.output.argmax(1) != labels).sum(),
            "residual": free.residual.sum(),
            "residual_max": free.residual.max(),
            "passes_free": free.steps.sum(),
            "nudged": len(phases.rows),
            "passes_nudged": nudged.steps.sum(),
            "unconverged": phases.unconverged,
        }
        self.merge(np.array([float(batch[name]) for name in COUNTED]), rates.max(0))

    def merge(self, counts: Array, strongest: Array) -> None:
        """Add the sums over other samples of the same epoch."""
        largest = COUNTED.index("residual_max")
        known = self.counts[largest]
        self.counts += counts
        self.counts[largest] = np.maximum(known, counts[largest])  # keeps NaN
        np.maximum(self.strongest, strongest, out=self.strongest)

    def report(self, labels: Array, seconds: float) -> EpochReport:
        """The epoch as a whole; labels (N,) of all its samples."""
        samples, nudged = self.samples, self["nudged"]
        occurs = np.isin(np.arange(len(self.strongest)), labels)
        return EpochReport(
            train_error=100 * int(self.wrong) / samples,
            residual=self["residual"] / samples,
            residual_max=self["residual_max"],
            unconverged=int(self["unconverged"]),
            nudged_share=int(nudged) / samples,
            passes_free=self["passes_free"] / samples,
            passes_nudged=self["passes_nudged"] / max(int(nudged), 1),
            dead_outputs=tuple(int(j) for j in np.flatnonzero(occurs & (self.strongest <= 0))),
            seconds=seconds,
            images_per_second=samples / seconds,
        )
