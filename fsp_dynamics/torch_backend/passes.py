"""A pass y -> T(y) around any network of tensors, and the relaxation of a batch by such passes
(solvers/passes.py, all samples at once).

y (B, n_cut) are the states of the layers at which every cycle is cut; the other layers follow from
them one after the other, each where its units rest. At (y, the layers that follow from y) the
field of a hard sigmoid's network vanishes outside the cut and is leak (T(y) - y) on it.

Converged samples are treated in one of two ways while others are still running. On the CPU their
rows are cut away, and reading numbers costs nothing. On a GPU every row stays, masked, so that all
shapes are known beforehand and a single number is read in each pass: whether any sample is running.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fsp_dynamics.kernels.anderson import GROWTH
from fsp_dynamics.kernels.heed import heed
from fsp_dynamics.kernels.status import CONVERGED, NOT_FINITE, OUT_OF_STEPS, RUNNING
from fsp_dynamics.models.rate import unit_field
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.torch_backend.anderson import History
from fsp_dynamics.torch_backend.products import DeviceNetwork
from fsp_dynamics.torch_backend.tensors import TensorState
from fsp_dynamics.torch_backend.units import ConvergedUnits, Units, UnrolledUnits


def cuts_down(device: torch.device) -> bool:
    """Whether converged rows are cut away, so that shapes follow from numbers; else they stay and
    are masked.
    """
    return device.type == "cpu"


@dataclass(frozen=True, slots=True)
class Criterion:
    """When a sample has converged, how many passes it may have, and whether rows are cut away."""

    tolerance: Tolerance
    most: int
    cut: bool

    def limit(self, state: Sequence[torch.Tensor]) -> Any:
        """The norm of the field within which samples with these states (B, n_k) have converged:
        (B,), or a number where it is the same for all.
        """
        if self.tolerance.relative > 0:
            return self.tolerance.absolute + self.tolerance.relative * sum((s * s).sum(1) for s in state) ** 0.5
        return self.tolerance.absolute


class NetworkPass:
    """The layers in one pass: `states` and their `rates`, lists of (B, n_k).

    drive (B, n_1). states : before the pass, from which smooth units seek their roots. beta,
    target (B, n_L) : of the nudge; beta 0 in the free phase.
    """

    def __init__(
        self,
        network: DeviceNetwork,
        units: Units,
        drive: torch.Tensor,
        states: Sequence[Any],
        beta: float = 0.0,
        target: Any = None,
    ) -> None:
        self.network, self.units, self.drive, self.beta, self.target = network, units, drive, beta, target
        self.states: list[Any] = list(states)
        self.rates: list[Any] = [None] * len(self.states)

    def stand(self) -> None:
        """Take the states as they are."""
        self.rates = [self.network.rho.rate(s) for s in self.states]

    def place(self, y: torch.Tensor) -> None:
        """Set the cut to y (B, n_cut)."""
        cut = self.network.cut
        for k, s in zip(cut, y.split([self.network.sizes[k] for k in cut], 1), strict=True):
            self._put(k, s)

    def follow(self, y: torch.Tensor) -> None:
        """Set the cut to y (B, n_cut), and every other layer to where it then rests."""
        self.place(y)
        for k in range(len(self.states)):
            if k not in self.network.cut:
                self._put(k, self.rest(k))

    def next(self) -> torch.Tensor:
        """T(y) (B, n_cut): where the cut would rest."""
        return torch.cat([self.rest(k) for k in self.network.cut], 1)

    def rest(self, k: int) -> torch.Tensor:
        """Where layer k rests while what enters it stays."""
        beta, d = self._pull(k)
        return self.units.rest(k, self.entering(k), self.states[k], self.network.leaks[k], beta, d)

    def way(self, k: int, rest: torch.Tensor | None) -> torch.Tensor:
        """How far the units of layer k would move under constant input, as in `rate.residual`;
        rest : of a hard sigmoid, as `rest` returns it.
        """
        leak, (beta, d), s = self.network.leaks[k], self._pull(k), self.states[k]
        if self.network.rho.projected:
            return rest - s
        return unit_field(s, self.entering(k), self.network.rho.slope(s), leak, beta, d) / (leak + beta)

    def entering(self, k: int) -> torch.Tensor:
        """What enters layer k."""
        return self.network.entering(k, self.drive, self.rates)

    def _put(self, k: int, s: torch.Tensor) -> None:
        self.states[k], self.rates[k] = s, self.units.rate(s)

    def _pull(self, k: int) -> tuple[float, Any]:
        return (self.beta, self.target) if self.beta and k == len(self.states) - 1 else (0.0, 0.0)


def unrolled(
    network: DeviceNetwork, drive: torch.Tensor, count: int, damping: float
) -> tuple[TensorState, TensorState]:
    """(states, rates) of all layers after `count` passes y <- y + damping (T(y) - y) from silence
    in the free phase, differentiable and without control flow that depends on numbers.

    The cut is where the last pass left it, the other layers as they were in it.
    """
    units = UnrolledUnits(network.rho)
    y = drive.new_zeros((drive.shape[0], sum(network.sizes[k] for k in network.cut)))
    for _ in range(count):
        made = NetworkPass(network, units, drive, [None] * len(network.sizes))
        made.follow(y)
        target = made.next()
        y = target if damping == 1 else y + damping * (target - y)
    made.place(y)
    return tuple(made.states), tuple(made.rates)


@dataclass(slots=True, eq=False)
class PassRelaxation:
    """Samples in one phase, relaxed by passes; tensors with a row for each.

    drive (B, n_1); target (B, n_L); state: all layers (B, n_k). y (B, n_cut): the cut in the next
    pass; aim: T(y) of the last. residual, passes, status, doubts (B,).
    """

    drive: torch.Tensor
    target: torch.Tensor
    state: TensorState
    y: torch.Tensor
    aim: torch.Tensor
    residual: torch.Tensor
    passes: torch.Tensor
    status: torch.Tensor
    doubts: torch.Tensor

    @classmethod
    def begin(
        cls, network: DeviceNetwork, drive: torch.Tensor, target: torch.Tensor, state: TensorState
    ) -> PassRelaxation:
        """All samples RUNNING from this state."""
        y = torch.cat([state[k] for k in network.cut], 1)
        passes, status, doubts = torch.zeros((3, len(drive)), dtype=torch.int64, device=y.device)
        status[:] = RUNNING
        return cls(drive, target, state, y, y, y.new_zeros(len(drive)), passes, status, doubts)

    @property
    def running(self) -> torch.Tensor:
        """(B,) bool."""
        return self.status == RUNNING

    def rows(self, index: torch.Tensor) -> PassRelaxation:
        """Some of the samples."""
        return self._each(lambda mine, _: mine[index], self)

    def with_rows(self, index: torch.Tensor, part: PassRelaxation) -> PassRelaxation:
        """All samples, those at `index` as they are in `part`."""
        return self._each(lambda mine, new: mine.index_copy(0, index, new), part)

    def _each(self, act: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], other: PassRelaxation) -> PassRelaxation:
        """act(mine, other's) for every tensor."""
        states = tuple(act(a, b) for a, b in zip(self.state, other.state, strict=True))
        rest = {name: act(getattr(self, name), getattr(other, name)) for name in self.__slots__ if name != "state"}
        return PassRelaxation(state=states, **rest)


def relax(
    network: DeviceNetwork, whole: PassRelaxation, beta: float, criterion: Criterion, memory: int, given: bool
) -> PassRelaxation:
    """Pass after pass until no sample is RUNNING: each has converged, is not finite, or has had
    all its passes.

    memory : earlier passes that are mixed (`anderson`), 0 for plain ones. given : the start was
    given, and is kept by the samples that have converged there.
    """
    part, rows, first = whole, None, 0 if given else 1
    history = History.empty(part.y, memory) if memory else None
    for k in range(first, criterion.most + 1):
        running = part.running
        if not bool(running.any()):
            break
        heed()
        if criterion.cut and not bool(running.all()):
            whole = part if rows is None else whole.with_rows(rows, part)
            keep = running.nonzero()[:, 0]
            rows, running = keep if rows is None else rows[keep], running[keep]
            part, history = part.rows(keep), history and history.rows(keep)
        if k > first:
            y = part.aim
            if history is not None:
                y, doubtful = history.next(part.y, part.aim, running, network.rho.projected)
                if k > 2:  # a start as it was given, with which the first pass would be compared, is none
                    part.doubts = part.doubts + (running & doubtful)
            part.y = torch.where(running[:, None], y, part.y)
        before = part.residual
        one_pass(network, part, running, beta, criterion, k, given)
        if history is None and k > 1:  # a plain pass moves y by the last residual, and carries on this one
            part.doubts = part.doubts + (running & (part.residual >= GROWTH * before))
    return part if rows is None else whole.with_rows(rows, part)


def one_pass(
    network: DeviceNetwork,
    part: PassRelaxation,
    running: torch.Tensor,
    beta: float,
    criterion: Criterion,
    k: int,
    given: bool,
) -> None:
    """From y to all layers and T(y), and how far each sample then is from rest; k : the number of
    the pass, 0 the start as it stands.

    Those not `running` stay as they were. Outside the cut the field of a hard sigmoid vanishes;
    that of a smooth unit, whose root is found to rounding only, is measured.
    """
    cut, everywhere = network.cut, range(len(network.sizes))
    units = ConvergedUnits(network.rho, criterion.cut)
    made = NetworkPass(network, units, part.drive, part.state, beta, part.target)
    if k > 0:
        made.follow(part.y)
    else:
        made.stand()
    measured = cut if k > 0 and network.rho.projected else everywhere
    rests = {j: made.rest(j) for j in (measured if network.rho.projected else cut)}
    size = torch.linalg.vector_norm(torch.cat([made.way(j, rests.get(j)) for j in measured], 1), dim=1)
    part.aim = torch.cat([rests[j] for j in cut], 1)
    part.state = tuple(
        torch.where(running[:, None], new, old) for new, old in zip(made.states, part.state, strict=True)
    )
    limit = criterion.limit(part.state)
    ended = torch.where(size <= limit, CONVERGED, OUT_OF_STEPS if k == criterion.most else RUNNING)
    ended = torch.where((size + limit).isfinite(), ended, NOT_FINITE)
    part.residual = torch.where(running, size, part.residual)
    part.passes = torch.where(running, k + given if k else 0, part.passes)
    part.status = torch.where(running, ended, part.status)
