"""Passes around any network on tensors, and Anderson's mixing of them: solvers/passes.py and
kernels/anderson.py, all samples at a time.

Samples converged leave or are masked, as torch_backend/broyden.py says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fsp_dynamics.kernels.anderson import RESTART
from fsp_dynamics.kernels.loop_relaxation import CONVERGED, NOT_FINITE, OUT_OF_STEPS, RUNNING
from fsp_dynamics.models.network import cut_layers
from fsp_dynamics.models.rate import unit_field, unit_rate_field, unit_target
from fsp_dynamics.torch_backend.broyden import Rule
from fsp_dynamics.torch_backend.products import DeviceNetwork

SEARCH, MASKED_SEARCH = (
    50,
    8,
)  # steps towards the root of a smooth unit in one pass; where no number may be looked at, a few, and more in the next
PIVOT = 1e-14  # of a diagonal entry: what is left of a direction that the others explain


@dataclass(slots=True, eq=False)
class Pass:
    """Samples on their way in one phase, tensors with a row for each.

    drive (B, n_1); target (B, n_L); state: all layers (B, n_k). y (B, n_cut): the cut in the next
    pass; aim: T(y) of the last. residual, passes, status, doubts (B,). ys, fs (B, m, n_cut): the
    last y and T(y) - y; sizes (B,): ||T(y) - y||^2 of the last pass; count (B,): passes kept.
    """

    drive: torch.Tensor
    target: torch.Tensor
    state: tuple[torch.Tensor, ...]
    y: torch.Tensor
    aim: torch.Tensor
    residual: torch.Tensor
    passes: torch.Tensor
    status: torch.Tensor
    doubts: torch.Tensor
    ys: torch.Tensor
    fs: torch.Tensor
    sizes: torch.Tensor
    count: torch.Tensor

    @property
    def going(self) -> torch.Tensor:
        return self.status == RUNNING

    def each(self, act: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], other: Pass) -> Pass:
        """act(mine, other's) for every tensor."""
        states = tuple(act(a, b) for a, b in zip(self.state, other.state, strict=True))
        rest = {name: act(getattr(self, name), getattr(other, name)) for name in self.__slots__ if name != "state"}
        return Pass(state=states, **rest)


def begin(
    held: DeviceNetwork, drive: torch.Tensor, target: torch.Tensor, state: tuple[torch.Tensor, ...], memory: int
) -> Pass:
    """Everyone RUNNING from this state; memory : passes that are mixed."""
    y = torch.cat([state[k] for k in cut_layers(held.arrays)], 1)
    count, room = len(drive), y.new_zeros((len(drive), max(memory, 1), y.shape[1]))
    statistics = torch.zeros((4, count), dtype=torch.int64, device=y.device)
    statistics[1] = RUNNING
    sizes = y.new_full((count,), torch.inf, dtype=torch.float64)
    passes, status, doubts, kept = statistics
    return Pass(drive, target, state, y, y, y.new_zeros(count), passes, status, doubts, room, room, sizes, kept)


def walk(held: DeviceNetwork, whole: Pass, beta: float, rule: Rule, memory: int, given: bool) -> Pass:
    """Pass after pass until everyone RUNNING has converged, is not finite, or may not go on; of a
    start that was given, those converged keep it.
    """
    part, rows, first = whole, None, 0 if given else 1
    for k in range(first, rule.most + 1):
        going = part.going
        if not bool(going.any()):
            break
        if rule.cut and not bool(going.all()):
            whole = part if rows is None else _put(whole, rows, part)
            keep = going.nonzero()[:, 0]
            rows, going = keep if rows is None else rows[keep], going[keep]
            part = part.each(lambda mine, _: mine[keep], part)  # noqa: B023
        if k > first:
            part.y = torch.where(
                going[:, None], anderson(part, going, held.rho.projected) if memory else part.aim, part.y
            )
        one_pass(held, part, going, beta, rule, k, given)
    return part if rows is None else _put(whole, rows, part)


def _put(whole: Pass, rows: torch.Tensor, part: Pass) -> Pass:
    return whole.each(lambda mine, new: mine.index_copy(0, rows, new), part)


def one_pass(
    held: DeviceNetwork, part: Pass, going: torch.Tensor, beta: float, rule: Rule, k: int, given: bool
) -> None:
    """From y to all layers and T(y), and how far each sample then is from rest; k : the number of
    the pass, 0 the start as it stands.

    Those not `going` stay as they were. Outside the cut the field vanishes with a hard sigmoid,
    and is measured with a smooth one, whose roots are sought.
    """
    cut, everywhere = cut_layers(held.arrays), range(len(held.sizes))
    made = _Layers(held, part, beta, rule.cut, given=k == 0)
    if k > 0:
        made.place(cut, part.y)
        for j in everywhere:
            if j not in cut:
                made.settle(j)
    measured = cut if k > 0 and held.rho.projected else everywhere
    rests = {j: made.rest(j) for j in (measured if held.rho.projected else cut)}
    size = torch.linalg.vector_norm(torch.cat([made.field(j, rests.get(j)) for j in measured], 1), dim=1)
    part.aim = torch.cat([rests[j] for j in cut], 1)
    part.state = tuple(torch.where(going[:, None], new, old) for new, old in zip(made.states, part.state, strict=True))
    limit: Any = rule.tolerance.absolute
    if rule.tolerance.relative > 0:
        limit = limit + rule.tolerance.relative * sum((s * s).sum(1) for s in part.state) ** 0.5
    ended = torch.where(size <= limit, CONVERGED, OUT_OF_STEPS if k == rule.most else RUNNING)
    ended = torch.where((size + limit).isfinite(), ended, NOT_FINITE)
    part.residual = torch.where(going, size, part.residual)
    part.passes = torch.where(going, k + given if k else 0, part.passes)
    part.status = torch.where(going, ended, part.status)


class _Layers:
    """The layers in one pass: states, their rates, and what enters each."""

    def __init__(self, held: DeviceNetwork, part: Pass, beta: float, look: bool, given: bool) -> None:
        self.held, self.drive, self.beta, self.target, self.look = held, part.drive, beta, part.target, look
        self.states = list(part.state)
        self.rates = [held.rho.rate(s) for s in self.states] if given else list(self.states)

    def place(self, cut: tuple[int, ...], y: torch.Tensor) -> None:
        """Split y into the layers of the cut."""
        for j, s in zip(cut, y.split([self.held.sizes[j] for j in cut], 1), strict=True):
            self._put(j, s)

    def settle(self, j: int) -> None:
        """Layer j where it rests."""
        self._put(j, self.rest(j))

    def rest(self, j: int) -> torch.Tensor:
        """Where layer j would rest while what enters it stays; of smooth units the root next to
        where they are.
        """
        leak, (beta, d) = self.held.leaks[j], self._pull(j)
        if self.held.rho.projected:
            return unit_target(self.entering(j), leak, beta, d).clamp_(0, 1)
        return smooth_rest(self.held.rho.slope, self.entering(j), self.states[j], leak, beta, d, self.look)

    def field(self, j: int, rest: torch.Tensor | None) -> torch.Tensor:
        """ds/dt of layer j, in the form that `rate.rate_field` measures residuals in."""
        leak, (beta, d), s = self.held.leaks[j], self._pull(j), self.states[j]
        if self.held.rho.projected:
            return unit_rate_field(s, rest, leak, beta)
        return unit_field(s, self.entering(j), self.held.rho.slope(s), leak, beta, d)

    def entering(self, j: int) -> torch.Tensor:
        """The drive or the bias and the weighted rates that enter layer j."""
        a = self.drive if j == 0 else self.held.network.biases[j]
        for link in self.held.incoming[j]:
            a = self.held.add(a, self.rates[link.pre], link)
        return a

    def _put(self, j: int, s: torch.Tensor) -> None:
        self.states[j], self.rates[j] = s, s if self.held.rho.projected else self.held.rho.rate(s)

    def _pull(self, j: int) -> tuple[float, Any]:
        return (self.beta, self.target) if self.beta and j == len(self.held.sizes) - 1 else (0.0, 0.0)


def smooth_rest(
    slope: Callable[[Any], Any], a: torch.Tensor, s: torch.Tensor, leak: float, beta: float, d: Any, look: bool
) -> torch.Tensor:  # fmt: skip
    """The root x of (leak + beta) x = rho'(x) a + beta d, sought from s with Aitken's
    extrapolation (kernels/units.settle_smooth).

    `look` : until no unit moves, SEARCH steps at most; else MASKED_SEARCH steps.
    """
    x, total = s.double(), a.double()
    for _ in range(SEARCH if look else MASKED_SEARCH):
        first = unit_target(slope(x) * total, leak, beta, d)
        second = unit_target(slope(first) * total, leak, beta, d)
        bend = second - 2 * first + x
        better = x - (first - x) ** 2 / bend
        better = torch.where(better.isfinite(), better, second)
        still = (better - x).abs() <= 1e-15 * (1 + x.abs())
        x = better
        if look and bool(still.all()):
            break
    return x.to(s.dtype)


def anderson(part: Pass, going: torch.Tensor, boxed: bool) -> torch.Tensor:
    """y of the next pass, sum_j alpha_j T(y_j), the alpha of sum 1 minimising ||sum_j alpha_j
    (T(y_j) - y_j)|| (kernels/anderson.anderson).
    """
    target, memory = part.aim, part.ys.shape[1]
    f = target - part.y
    size = (f.double() ** 2).sum(1)
    part.doubts = part.doubts + (going & (size > part.sizes))
    count = torch.where(size > RESTART**2 * part.sizes, 0, part.count)
    slots = torch.arange(memory, device=f.device)
    used = (slots < count.clamp(max=memory)[:, None])[:, :, None]
    gamma = mixing_weights(torch.where(used, part.fs - f[:, None], 0).double(), f.double())
    moved = torch.where(used, part.ys + part.fs - target[:, None], 0).double()
    mixed = target + torch.bmm(gamma[:, None], moved)[:, 0]
    here = (slots == (count % memory)[:, None])[:, :, None] & going[:, None, None]
    part.ys, part.fs = torch.where(here, part.y[:, None], part.ys), torch.where(here, f[:, None], part.fs)
    part.sizes, part.count = torch.where(going, size, part.sizes), torch.where(going, count + 1, part.count)
    return (mixed.clamp(0, 1) if boxed else mixed).to(target.dtype)


def mixing_weights(differences: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """argmin_gamma ||f + sum_j gamma_j differences[j]|| of each sample (B, m), by Cholesky of the
    normal equations (kernels/anderson.solve).

    A ridge of 1e-12 of each diagonal entry; a direction whose pivot is not positive is left out
    (gamma 0).
    """
    gram = differences @ differences.mT
    right = -torch.bmm(differences, f[:, :, None])
    diagonal = gram.diagonal(dim1=1, dim2=2) * (1 + 1e-12)
    gram = gram + torch.diag_embed(diagonal - gram.diagonal(dim1=1, dim2=2))
    columns = []
    for j in range(gram.shape[1]):
        pivot = gram[:, j, j]
        kept = pivot > PIVOT * diagonal[:, j]
        column = torch.where(kept[:, None], gram[:, :, j] / pivot[:, None] ** 0.5, 0)
        gram = gram - column[:, :, None] * column[:, None]
        columns.append(column)
    lower = torch.stack(columns, 2).tril()
    left_out = lower.diagonal(dim1=1, dim2=2) == 0
    lower = torch.where(left_out[:, :, None], torch.eye(lower.shape[1], dtype=lower.dtype, device=lower.device), lower)
    half = torch.linalg.solve_triangular(lower, torch.where(left_out[:, :, None], 0, right), upper=False)
    return torch.linalg.solve_triangular(lower.mT, half, upper=True)[:, :, 0]
