"""Layers in parallel: each rank of a job learns consecutive stages, and sends what they give on to
the next rank while it works on the next batch.

    turn    rank 0     rank 1     rank 2
    1       batch 1
    2       batch 2    batch 1
    3       batch 3    batch 2    batch 1

A stage learns from the same signals in the same order as in one process, so that its weights have
the same bits. Between two turns all ranks meet. When an epoch is left or ends, the batches on the
way are learned to the end, and all ranks get the whole state.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import safetensors.numpy
import torch
from torch import nn

from fsp_dynamics.errors import ConfigurationError, NotFiniteError, RankLostError
from fsp_dynamics.experiments.layerwise.state import set_stage_arrays, stage_arrays
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import Stage, autocast
from fsp_dynamics.models.network import Array
from fsp_dynamics.training.ranks import Expected, Ranks

Batch = Callable[[slice], tuple[torch.Tensor, torch.Tensor]]
"""Images (B, pixels) and labels (B,) of a batch. It is called for every batch, in order."""
MOST_DIMENSIONS = 6  # of a signal's tensors
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Seen(NamedTuple):
    """Of the batches of an epoch that are learned to the end: images, and those taken for another
    class than theirs.
    """

    images: int = 0
    wrong: int = 0


class After(Protocol):
    """Called between two batches. done : images, as if none were on the way. seen : of those that
    are learned. It may raise.
    """

    def __call__(self, done: int, seen: Seen) -> None: ...


class Course(Protocol):
    """How the batches of an epoch are learned."""

    def learn(self, parts: Sequence[slice], batch: Batch, seen: Seen, after: After) -> Seen:
        """Learn the batches, and call `after` between them and after the last. Where that raises,
        all batches that were begun are learned to the end, and `seen` of them is that of the
        attribute `seen`.
        """
        ...

    @property
    def seen(self) -> Seen:
        """Up to now."""
        ...


class OneProcess:
    """One process, one batch after the other."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.seen = learner, Seen()

    def learn(self, parts: Sequence[slice], batch: Batch, seen: Seen, after: After) -> Seen:
        """See `Course.learn`."""
        self.seen = seen
        for part in parts:
            images, labels = batch(part)
            wrong = int((self.learner.learn(images, labels).argmax(1) != labels).sum())
            self.seen = Seen(part.stop, self.seen.wrong + wrong)
            after(part.stop, self.seen)
        return self.seen


class Pipeline:
    """The ranks of a job, each with its stages."""

    def __init__(self, learner: Learner, ranks: Ranks) -> None:
        self.learner, self.ranks, self.seen = learner, ranks, Seen()
        ends = [0, *itertools.accumulate(map(len, shares(learner, ranks.count)))]
        self.owners = [learner.stages[a:b] for a, b in itertools.pairwise(ends)]
        self.own = self.owners[ranks.rank]
        self.is_last = ranks.rank == ranks.count - 1
        self.precision = autocast(learner.settings.precision, learner.device)
        self.sent: Signal | None = None
        self.waiting: Signal | None = None

    def learn(self, parts: Sequence[slice], batch: Batch, seen: Seen, after: After) -> Seen:
        """See `Course.learn`. All ranks call it alike."""
        self.seen = seen
        for turn in range(len(parts) - 1):
            self._turn(parts, batch, turn, len(parts))
            try:
                after(parts[turn].stop, self.seen)
            except (RankLostError, KeyboardInterrupt):
                raise  # nobody to go on with
            except BaseException:
                self._finish(parts[: turn + 1], batch, turn + 1)
                raise
        if parts:
            self._finish(parts, batch, len(parts) - 1)
            after(parts[-1].stop, self.seen)
        return self.seen

    def _finish(self, parts: Sequence[slice], batch: Batch, turn: int) -> None:
        """The turns from that one on in which these batches, and no more, are learned to the end;
        then all ranks have the whole state.
        """
        for late in range(turn, len(parts) + self.ranks.count - 1):
            self._turn(parts, batch, late, len(parts))
        self._share()

    def _turn(self, parts: Sequence[slice], batch: Batch, turn: int, count: int) -> None:
        """Every rank learns its batch of a turn, if it has one, and sends what it made on. Raises
        NotFiniteError in all ranks where it is raised in one.
        """
        place, failed, error = turn - self.ranks.rank, 0, None
        self.sent = None
        if 0 <= place < count:
            try:
                self._learn(parts[place], batch)
            except NotFiniteError as refused:
                failed, error = 1, refused
        heads = self.ranks.gather(self._head(failed))
        for rank, head in enumerate(heads):
            if head[0]:
                if error is not None:
                    raise error
                names = ", ".join(stage.name for stage in self.owners[rank])
                raise NotFiniteError(
                    f"a loss of {names}, in rank {rank}, is not finite; lower learning.rate "
                    f"(now {self.owners[rank][0].rate:g})"
                )
        self.seen = Seen(int(heads[-1][1]), int(heads[-1][2]))
        given: list[torch.Tensor] = [] if self.sent is None else [_flat(each) for each in self.sent if each is not None]
        forms = [] if self.ranks.rank == 0 else _forms(heads[self.ranks.rank - 1])
        wanted = [Expected((_numbers(shape),), dtype, self.learner.device) for shape, _, dtype in forms]
        received = self.ranks.shift(given, wanted)
        tensors = [_formed(flat, form) for flat, form in zip(received, forms, strict=True)]
        self.waiting = Signal(*tensors) if tensors else None

    def _learn(self, part: slice, batch: Batch) -> None:
        images, labels = batch(part)
        signal = self.learner.begin(images) if self.ranks.rank == 0 else self.waiting
        assert signal is not None
        for stage in self.own:
            signal = stage.step(signal, labels, self.precision)
        signal = signal.detach()
        if self.is_last:
            wrong = int((self.learner.predicted(signal).argmax(1) != labels).sum())
            self.seen = Seen(part.stop, self.seen.wrong + wrong)
        else:
            self.sent = Signal(_dense(signal.h), None if signal.t is None else _dense(signal.t))

    def _head(self, failed: int) -> Array:
        """What a rank tells the others in a turn: whether it failed, what it has seen, the number,
        the kinds, sizes and strides of the tensors it sends.
        """
        head = np.zeros(4 + 2 * (2 + 2 * MOST_DIMENSIONS), np.int64)
        tensors = [] if self.sent is None else [each for each in self.sent if each is not None]
        head[:4] = failed, *self.seen, len(tensors)
        for k, each in enumerate(tensors):
            form = head[4 + k * (2 + 2 * MOST_DIMENSIONS) :]
            form[:2] = DTYPES.index(each.dtype), each.ndim
            form[2 : 2 + each.ndim] = each.shape
            form[2 + each.ndim : 2 + 2 * each.ndim] = each.stride()
        return head

    def _share(self) -> None:
        """Every rank gets the state of every stage from the rank that learns it."""
        for rank, stages in enumerate(self.owners):
            own = _packed(stages) if rank == self.ranks.rank else np.zeros(0, np.uint8)
            size = int(self.ranks.gather(np.array([own.nbytes]))[rank][0])
            packed = self.ranks.broadcast(own if rank == self.ranks.rank else np.zeros(size, np.uint8), rank)
            if rank != self.ranks.rank:
                _unpack(stages, packed)


def course_of(learner: Learner, ranks: Ranks) -> Course:
    """One process, or a rank of a job."""
    return OneProcess(learner) if ranks.count == 1 else Pipeline(learner, ranks)


def check_ranks(learner: Learner, count: int) -> None:
    """Raises ConfigurationError where the stages of a learner cannot be learned by so many
    processes at once.
    """
    if count == 1:
        return
    if not learner.is_forward_unlocked:
        raise ConfigurationError(
            f"learning.learner = {learner.name!r} in a job of {count} processes: {learner.locked_by}; start it in one "
            "process, or choose fsp, ll-bp, ll-fa or shallow"
        )
    if count > len(learner.stages):
        names = ", ".join(stage.name for stage in learner.stages)
        raise ConfigurationError(
            f"a job of {count} processes for {len(learner.stages)} stages ({names}), of which each process learns one "
            f"or more; start {len(learner.stages)} or fewer"
        )


def shares(learner: Learner, count: int) -> list[tuple[Stage, ...]]:
    """Consecutive stages for each of so many ranks, at least one, so that the largest share of
    multiply-adds is as small as it can be.

    >>> from fsp_dynamics.layerwise.learners import make_learner
    >>> from fsp_dynamics.layerwise.networks import mlp
    >>> learner = make_learner("fsp", mlp([50, 50]), (1, 8, 8), 10)
    >>> [[stage.name for stage in share] for share in shares(learner, 2)]
    [['layer1'], ['layer2', 'output']]
    """
    stages, work = learner.stages, multiply_adds(learner)
    sums = [0, *itertools.accumulate(work)]
    best: dict[tuple[int, int], tuple[int, int]] = {(0, 0): (0, 0)}  # (ranks, stages): (largest, stages before)
    for rank in range(1, count + 1):
        for end in range(rank, len(stages) - (count - rank) + 1):
            tried = [(max(best[rank - 1, a][0], sums[end] - sums[a]), a) for a in range(end) if (rank - 1, a) in best]
            best[rank, end] = min(tried)
    ends = [len(stages)]
    for rank in range(count, 0, -1):
        ends.append(best[rank, ends[-1]][1])
    return [stages[a:b] for a, b in itertools.pairwise(reversed(ends))]


def multiply_adds(learner: Learner) -> list[int]:
    """Of one image going forward, for each stage."""
    sizes = [*learner.network.sizes, (1,)]
    found = []
    for stage, size in zip(learner.stages, sizes, strict=False):
        positions = int(np.prod(size[1:], dtype=np.int64))
        weights = [
            m.weight.numel() * (positions if isinstance(m, nn.Conv2d) else 1)
            for module in stage.holds
            for m in module.modules()
            if isinstance(m, nn.Linear | nn.Conv2d)
        ]
        found.append(sum(weights))
    return found


def _dense(t: torch.Tensor) -> torch.Tensor:
    """The tensor without gaps in memory; its strides as they are, since last bits of products may
    depend on them.
    """
    return t if torch.ops.aten.is_non_overlapping_and_dense(t) else t.contiguous()


def _flat(t: torch.Tensor) -> torch.Tensor:
    """The numbers as they lie in memory."""
    return t.as_strided((t.numel(),), (1,))


Form = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]


def _forms(head: Array) -> list[Form]:
    found = []
    for k in range(int(head[3])):
        form = head[4 + k * (2 + 2 * MOST_DIMENSIONS) :]
        kind, ndim = int(form[0]), int(form[1])
        sizes = tuple(map(int, form[2 : 2 + ndim])), tuple(map(int, form[2 + ndim : 2 + 2 * ndim]))
        found.append((*sizes, DTYPES[kind]))
    return found


def _formed(flat: torch.Tensor, form: Form) -> torch.Tensor:
    return flat.as_strided(form[0], form[1])


def _numbers(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _packed(stages: Sequence[Stage]) -> Array:
    """The state of stages as bytes, in the format of safetensors."""
    arrays = {f"{stage.name}/{name}": a for stage in stages for name, a in stage_arrays(stage).items()}
    return np.frombuffer(
        safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in arrays.items()}), np.uint8
    )


def _unpack(stages: Sequence[Stage], packed: Array) -> None:
    """Go on from such bytes."""
    arrays = safetensors.numpy.load(packed.tobytes())
    for stage in stages:
        own = f"{stage.name}/"
        set_stage_arrays(stage, {key.removeprefix(own): a for key, a in arrays.items() if key.startswith(own)})
