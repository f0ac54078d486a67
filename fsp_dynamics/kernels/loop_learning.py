"""Batch after batch of a loop with a hard sigmoid by several threads together: both phases, eq. 14,
the weights changed in place.

The same in plain words: `learning.phases.run` and `learning.optimisers.Sgd.step`. Arrays
as in kernels/loop_arrays.py and kernels/loop_phases.py.
"""

from __future__ import annotations

from typing import NamedTuple

from fsp_dynamics.kernels.field import Array, apart, bare, entry
from fsp_dynamics.kernels.loop_arrays import PASSES, RESIDUAL, STATUS, LoopBuffers, LoopNet, LoopScratch, Y
from fsp_dynamics.kernels.loop_optimiser import LearningSettings, LoopVelocity, learn
from fsp_dynamics.kernels.loop_phases import (
    FREE,
    POSITIVE,
    LoopData,
    LoopStarts,
    begin_batch,
    begin_nudge,
    contrast,
    learns,
    mean_below,
    needs_recovery,
    update_starts,
)
from fsp_dynamics.kernels.loop_relaxation import relax_batch
from fsp_dynamics.kernels.status import CONVERGED, Limits
from fsp_dynamics.kernels.team import barrier, has_stopped, is_lost, partition

COUNTED = ("samples", "wrong", "residual", "residual_max", "passes_free", "nudged", "passes_nudged", "unconverged")
SAMPLES, WRONG, SUM, MAX, PASSES_FREE, NUDGED, PASSES_NUDGED, UNCONVERGED = range(len(COUNTED))
BATCH, STAGE, PHASE = 0, 1, 2  # of the cursor
DONE, EXCHANGE, LEFT = -1, -2, -3  # in place of a phase in the cursor
EXCHANGED = 4  # the stage in which a batch has converged in all ranks


class LoopTotals(NamedTuple):
    """Totals of all batches: sums in the order of COUNTED; strongest (n_L,) the largest rate of
    each output.
    """

    sums: Array
    strongest: Array


class RankPart(NamedTuple):
    """Which part of each batch this rank relaxes: number `rank` of `ranks`."""

    rank: int
    ranks: int


@apart
def count_batch(
    data: LoopData, buffers: LoopBuffers, centred: bool, first: int, rows: int, n: int, totals: LoopTotals
) -> None:
    """Add a batch to the totals."""
    sums, strongest = totals.sums, totals.strongest
    residual, free = buffers.progress[FREE, RESIDUAL], buffers.statistics[FREE]
    positive = buffers.statistics[POSITIVE]
    for b in range(rows):
        y, best = buffers.outputs[FREE, Y, b], 0
        for j in range(n):
            strongest[j] = max(strongest[j], y[j])
            if y[j] > y[best]:
                best = j
        sums[SAMPLES] += 1
        sums[WRONG] += best != data.labels[first + b]
        sums[SUM] += residual[b]
        sums[MAX] = max(sums[MAX], residual[b])
        sums[PASSES_FREE] += free[PASSES, b]
        sums[UNCONVERGED] += free[STATUS, b] != CONVERGED
        if positive[STATUS, b] >= CONVERGED:
            sums[NUDGED] += 1
            sums[PASSES_NUDGED] += positive[PASSES, b]
            sums[UNCONVERGED] += not learns(buffers, centred, b)


@bare
def pause(thread: int, cursor: Array, batch: int, stage: int, phase: int) -> None:
    """Return to the caller for now; the next call continues this batch at `stage`."""
    if thread == 0:
        cursor[BATCH], cursor[STAGE], cursor[PHASE] = batch, stage, phase


@entry
def learn_batches(
    thread: int,
    threads: int,
    counters: Array,
    net: LoopNet,
    data: LoopData,
    starts: LoopStarts,
    buffers: LoopBuffers,
    settings: LearningSettings,
    velocity: LoopVelocity | None,
    scratch: LoopScratch,
    limits: Limits,
    totals: LoopTotals,
    part: RankPart,
    cursor: Array,
) -> None:
    """Every batch from the cursor on; returns early where a sample needs recovery, where ranks
    have to exchange what they computed, and where the team shall stop.

    The stages of a batch are its phases, FREE, POSITIVE and (centred) NEGATIVE, and then learning
    from them. cursor (BATCH, STAGE, PHASE) : where to continue; PHASE is the phase whose samples
    need recovery, EXCHANGE, LEFT (of the batch at hand nothing is kept), or DONE.
    """
    betas, centred = settings.betas, settings.centred
    samples, capacity, n = data.places.size, scratch.drive.shape[0], net.loop.shape[0]
    start, stage = cursor[BATCH], cursor[STAGE]
    barrier(threads, counters)
    for batch in range(start, betas.size):
        first = batch * capacity
        rows = min(capacity, samples - first)
        begin, end = partition(rows, part.rank, part.ranks)
        for phase in range(stage, 3 if centred else 2):
            beta = 0.0 if phase == FREE else betas[batch] if phase == POSITIVE else -betas[batch]
            if phase == FREE:
                begin_batch(thread, threads, net, data, starts, buffers, scratch, first, begin, end)
            else:
                begin_nudge(thread, threads, net, buffers, scratch, phase, beta, limits, rows)
            barrier(threads, counters)
            relax_batch(thread, threads, counters, net, buffers, scratch, phase, beta, limits)
            if has_stopped(counters, 0) or (threads > 1 and is_lost(counters)):
                return pause(thread, cursor, batch, 0, LEFT)
            if needs_recovery(buffers.statistics[phase]):
                return pause(thread, cursor, batch, phase + 1, phase)
        if stage != EXCHANGED:
            contrast(thread, threads, net, buffers, scratch, centred, begin, end)
            if part.ranks > 1:
                barrier(threads, counters)
                return pause(thread, cursor, batch, EXCHANGED, EXCHANGE)
        stage = 0
        if thread == 0:
            update_starts(data, starts, buffers, scratch.matrices[thread], first, rows)
            count_batch(data, buffers, centred, first, rows, n, totals)
        mean_below(thread, threads, net, buffers, scratch, rows)
        barrier(threads, counters)
        learn(thread, threads, counters, net, data, buffers, settings, velocity, scratch, first, rows, betas[batch])
        barrier(threads, counters)
    return pause(thread, cursor, betas.size, 0, DONE)
