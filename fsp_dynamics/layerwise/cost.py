"""What one batch costs a learner: the bytes kept for the backward pass and the seconds, stage by
stage, as in tables I to IV of the paper.

Bytes are those of the memory that autograd has saved when the loss of a stage is known: every
storage once, parameters left out (they are there anyway). They follow from shapes alone. Seconds
are those of a whole step: forward, loss, backward and Adam.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import torch

from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.stages import Stage


@dataclass(frozen=True, slots=True)
class StageCost:
    """name : of the stage. bytes : kept for the backward pass. seconds : of its step, in every
    round. peak : bytes of the device's memory at most during its step beyond those before it; None
    on a CPU, which does not count them.
    """

    name: str
    bytes: int
    seconds: tuple[float, ...]
    peak: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one batch. stages : in order. A learner of one stage is measured as a whole: it
    is its own sum, mean and largest.
    """

    stages: tuple[StageCost, ...]

    @property
    def layers(self) -> tuple[StageCost, ...]:
        """The stages that are layers, over which tables I and III take means: all but the
        classification layer, or the only one.
        """
        return tuple(each for each in self.stages if each.name != "output") or self.stages

    def total(self, of: Callable[[StageCost], float]) -> float:
        """The sum over all stages."""
        return sum(map(of, self.stages))

    def mean(self, of: Callable[[StageCost], float]) -> float:
        """The mean over the layers."""
        return sum(map(of, self.layers)) / len(self.layers)

    def largest(self, of: Callable[[StageCost], float]) -> float:
        """The largest of all stages."""
        return max(map(of, self.stages))


def kept_bytes(stage: StageCost) -> float:
    """Bytes kept for the backward pass."""
    return stage.bytes


def middle_seconds(stage: StageCost) -> float:
    """The median of the seconds over the rounds."""
    return median(stage.seconds)


def measure(
    learners: Mapping[str, Learner], images: torch.Tensor, labels: torch.Tensor, rounds: int
) -> dict[str, Cost]:
    """{name: cost} of learning from the batch images (B, pixels) with labels (B,), all learners in
    turns. They learn from it: once while bytes are counted, before anything is timed, and once in
    each round.

    Returns
    -------
    dict : in the order of `learners`.

    >>> from fsp_dynamics.layerwise.learners import make_learner
    >>> from fsp_dynamics.layerwise.networks import mlp
    >>> learner = make_learner("bp", mlp([5]), (1, 2, 2), 3)
    >>> cost = measure({"bp": learner}, torch.rand(2, 4), torch.tensor([0, 1]), rounds=1)["bp"]
    >>> [stage.name for stage in cost.stages], len(cost.stages[0].seconds)
    (['output'], 1)
    """
    counted = {name: _counted(learner, images, labels) for name, learner in learners.items()}
    timed: dict[str, list[dict[str, _Step]]] = {name: [] for name in learners}
    for _ in range(rounds):
        for name, learner in learners.items():
            timed[name].append(_timed(learner, images, labels))
    return {
        name: Cost(
            tuple(_stage_cost(stage, size, [each[stage] for each in timed[name]]) for stage, size in each.items())
        )
        for name, each in counted.items()
    }


class _Step(NamedTuple):
    seconds: float
    peak: int | None


def _stage_cost(name: str, size: int, steps: Sequence[_Step]) -> StageCost:
    peaks = [step.peak for step in steps if step.peak is not None]
    return StageCost(name, size, tuple(step.seconds for step in steps), max(peaks, default=None))


def _counted(learner: Learner, images: torch.Tensor, labels: torch.Tensor) -> dict[str, int]:
    """The bytes that each stage keeps for its backward pass."""
    modules = (learner.network, learner.auxiliary)
    known = {p.untyped_storage().data_ptr() for module in modules for p in module.parameters()}
    sizes: dict[str, int] = {}

    @contextmanager
    def counting(stage: Stage) -> Iterator[None]:
        storages: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used again

        def pack(saved: torch.Tensor) -> torch.Tensor:
            storage = saved.untyped_storage()
            if storage.data_ptr() not in known:
                storages[storage.data_ptr()] = storage
            return saved

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            yield
        sizes[stage.name] = sum(storage.nbytes() for storage in storages.values())

    with _around_steps(learner, counting):
        learner.learn(images, labels)
    return sizes


def _timed(learner: Learner, images: torch.Tensor, labels: torch.Tensor) -> dict[str, _Step]:
    """What the step of each stage took."""
    steps: dict[str, _Step] = {}
    device = learner.device if learner.device.type == "cuda" else None

    @contextmanager
    def timing(stage: Stage) -> Iterator[None]:
        if device is not None:
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
        begin = time.perf_counter()
        yield
        if device is not None:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begin
        peak = None if device is None else torch.cuda.max_memory_allocated(device) - before
        steps[stage.name] = _Step(seconds, peak)

    with _around_steps(learner, timing):
        learner.learn(images, labels)
    return steps


@contextmanager
def _around_steps(learner: Learner, around: Callable[[Stage], Any]) -> Iterator[None]:
    """Within the block every step of a stage is done within `around(stage)`."""

    def wrapped(stage: Stage) -> Callable[..., Any]:
        step = stage.step

        def inner(*given: Any) -> Any:
            with around(stage):
                return step(*given)

        return inner

    for stage in learner.stages:
        vars(stage)["step"] = wrapped(stage)
    try:
        yield
    finally:
        for stage in learner.stages:
            del vars(stage)["step"]
