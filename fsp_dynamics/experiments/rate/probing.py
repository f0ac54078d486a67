"""What is measured of a rate network while it learns: the records of probes.jsonl."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fsp_dynamics.analysis.alignment import loop_alignment, loop_angles
from fsp_dynamics.analysis.probe import Probe
from fsp_dynamics.datasets import Dataset, Split
from fsp_dynamics.experiments.rate.config import RateConfig
from fsp_dynamics.models.network import Network
from fsp_dynamics.solvers.packed_loop import PackedLoop
from fsp_dynamics.training.recipe import Recipe

Record = dict[str, Any]


@dataclass(slots=True)
class Probing:
    """Measures the network as `[probes]` of the configuration asks.

    probe : None where probes.samples is 0. every : batches between two records within an
        epoch; 0: none. batches : in an epoch.
    waiting : records of the present epoch, which are written when it is finished.
    """

    probe: Probe | None
    every: int
    batches: int
    waiting: list[Record] = field(default_factory=list)

    @classmethod
    def of(cls, config: RateConfig, data: Dataset, recipe: Recipe) -> Probing:
        """By the configuration, with `first_images` of the data."""
        given, (_, split) = config.probes, first_images(data, config.probes.samples)
        probe = Probe(split.images, split.labels, recipe) if given.samples else None
        return cls(
            probe,
            given.every if config.network.kind == "loop" else 0,
            -(-len(data.train.labels) // config.learning.batch),
        )

    def within(self, epoch: int, resumed: bool = False) -> Callable[[int, Network | PackedLoop], None] | None:
        """The function that training calls between the batches of epoch number `epoch`; None where
        nothing is measured there. resumed : the epoch was left between two batches; the records of
        its first part are kept.
        """
        if not resumed:
            self.waiting = []
        if not self.every:
            return None

        def note(done: int, loop: Network | PackedLoop) -> None:
            if done < self.batches:  # the last batch's record is that of the epoch
                self.waiting.append(
                    {"epoch": epoch - 1 + done / self.batches, "alignment": {"degrees": loop_angles(loop)}}
                )

        return note

    def look(self, epoch: int, network: Network) -> list[Record]:
        """The records of the epoch that has just ended (0: before the first), the complete one
        last.
        """
        found = self.probe.measure(network) if self.probe else {"alignment": {"degrees": angles_of(network)}}
        return [*self.waiting, {"epoch": epoch, **found}]


def first_images(data: Dataset, samples: int) -> tuple[str, Split]:
    """(part, its first images): of the validation set, where there is none of the test set, else
    of the training set.
    """
    part = next(part for part in ("valid", "test", "train") if len(getattr(data, part).labels))
    split: Split = getattr(data, part)
    return part, Split(split.images[:samples], split.labels[:samples])


def angles_of(network: Network) -> dict[str, float]:
    """Degrees by matrix; {} without a loop; NaN for a matrix that is zero."""
    if network.loop is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return loop_alignment(network).degrees
