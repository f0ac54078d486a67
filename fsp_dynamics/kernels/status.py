"""The status of one sample: the package's only definition, for kernels, solvers and training.

0 or more: the relaxation has ended; `solvers.equilibrium.Status` is made from these. Below 0: it
has not ended, or the sample does not take part. Kernels import the integers, because members of an
enum are slow to look up.
"""

from __future__ import annotations

from typing import NamedTuple

CONVERGED, OUT_OF_STEPS, NOT_FINITE, OSCILLATES = 0, 1, 2, 3
RUNNING, ABSENT = -1, -2  # ABSENT: not part of this phase, or relaxed by another rank


class Limits(NamedTuple):
    """When a sample has converged, residual <= absolute + relative ||state||, and after how many
    passes it is out of steps.
    """

    absolute: float
    relative: float
    max_passes: int
