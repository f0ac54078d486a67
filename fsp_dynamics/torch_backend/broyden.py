"""Broyden's method on tensors for a loop with a hard sigmoid: every sample learns a model of the
loop from its own passes (kernels/loop_relaxation.py and kernels/broyden.py, all samples at once).

Converged samples leave the batch or are masked, as described in torch_backend/passes.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from fsp_dynamics.kernels.heed import heed
from fsp_dynamics.kernels.status import ABSENT, CONVERGED, NOT_FINITE, OUT_OF_STEPS, RUNNING
from fsp_dynamics.models.rate import unit_target
from fsp_dynamics.torch_backend.passes import Criterion, NetworkPass
from fsp_dynamics.torch_backend.products import DeviceNetwork
from fsp_dynamics.torch_backend.tensors import TensorState
from fsp_dynamics.torch_backend.units import ConvergedUnits

ROUNDS = 4  # linear systems of one prediction; usually one or two are needed
WORTH = 0.75  # rows are cut away when fewer than this share of them are running
# of no use once the phase has ended
NOT_PUT_BACK = ("drive", "target", "trial", "base_y", "base_u", "best", "pace")


@dataclass(slots=True, eq=False)
class BroydenRelaxation:
    """Samples in one phase, relaxed by Broyden's method; tensors with a row for each, named as in
    kernels/loop_relaxation.py.

    drive (B, n_1), target (B, n_L). trial (B, n_L): the outputs from which the last pass was, or
    the next will be made. y: the outputs, which may be polished; u: what enters them; hidden: the
    states (B, n_k) that follow from trial. base_y, base_u: the best so far. slope (B, n_L, n_L).
    residual: of the last pass; best; pace; passes; status; doubts (B,).
    """

    drive: torch.Tensor
    target: torch.Tensor
    trial: torch.Tensor
    y: torch.Tensor
    u: torch.Tensor
    base_y: torch.Tensor
    base_u: torch.Tensor
    slope: torch.Tensor
    residual: torch.Tensor
    best: torch.Tensor
    pace: torch.Tensor
    passes: torch.Tensor
    status: torch.Tensor
    doubts: torch.Tensor
    hidden: list[torch.Tensor]

    @classmethod
    def begin(
        cls,
        network: DeviceNetwork,
        drive: torch.Tensor,
        target: torch.Tensor,
        output: torch.Tensor,
        slope: torch.Tensor,
    ) -> BroydenRelaxation:
        """All samples RUNNING from these outputs; slope (B, n_L, n_L) is changed in place."""
        count, nothing = len(drive), torch.zeros_like(output)
        residual, best, pace = drive.new_zeros((3, count))
        passes, status, doubts = torch.zeros((3, count), dtype=torch.int64, device=drive.device)
        best[:], pace[:], status[:] = torch.inf, 1, RUNNING
        hidden = [drive.new_zeros((count, n)) for n in network.sizes[:-1]]
        numbers = (residual, best, pace, passes, status, doubts)
        return cls(drive, target, output, output, nothing, nothing, nothing, slope, *numbers, hidden)

    @property
    def state(self) -> TensorState:
        """The states of all layers (B, n_k)."""
        return (*self.hidden, self.y)

    @property
    def running(self) -> torch.Tensor:
        """(B,) bool."""
        return self.status == RUNNING

    def rows(self, index: torch.Tensor) -> BroydenRelaxation:
        """Some of the samples; their hidden states follow from the next pass."""
        return BroydenRelaxation(**{name: getattr(self, name)[index] for name in _NAMES}, hidden=[])

    def put(self, index: torch.Tensor, part: BroydenRelaxation) -> None:
        """Take over the samples at `index` as they are in `part`."""
        for name in _NAMES:
            if name not in NOT_PUT_BACK:
                setattr(self, name, getattr(self, name).index_copy(0, index, getattr(part, name)))
        self.hidden = [mine.index_copy(0, index, new) for mine, new in zip(self.hidden, part.hidden, strict=True)]


_NAMES = tuple(f.name for f in dataclasses.fields(BroydenRelaxation) if f.name != "hidden")


def begin_nudge(
    network: DeviceNetwork, free: BroydenRelaxation, beta: float, criterion: Criterion
) -> BroydenRelaxation:
    """The start of the nudged phase, from the end of the free one: each sample where its model
    predicts that beta takes it (kernels/loop_phases.py).

    ABSENT are samples that did not converge in the free phase, and those whose output is the target
    to the bit: there the nudge moves nothing. Those within the tolerance stay where they are.
    """
    leak, d = network.leaks[-1], free.target
    present = (free.status == CONVERGED) & (free.y != d).any(1)
    size = (torch.linalg.vector_norm(_output_way(free.y, free.u, leak, beta, d), dim=1) ** 2 + free.residual**2) ** 0.5
    stays = present & (size <= criterion.tolerance.absolute)
    moves = present & ~stays
    status = torch.where(moves, RUNNING, torch.where(stays, CONVERGED, ABSENT))
    slope, none = free.slope.clone(), torch.zeros_like(free.passes)
    trial = torch.where(moves[:, None], predict(free.y, free.u, slope, leak, beta, d, criterion.cut), free.trial)
    return dataclasses.replace(
        free, trial=trial, base_y=free.y, base_u=free.u, slope=slope, residual=size, best=size,
        pace=torch.ones_like(size), passes=none, status=status, doubts=none, hidden=list(free.hidden),
    )  # fmt: skip


def relax(network: DeviceNetwork, whole: BroydenRelaxation, beta: float, criterion: Criterion) -> None:
    """Pass after pass from the outputs `trial`, in place, until no sample is RUNNING: each has
    converged, is not finite, or has had all its passes.
    """
    began = running = whole.running
    part, rows, share, passes = whole, None, 1.0, 0
    while bool(running.any()):
        heed()
        if criterion.cut and int(running.sum()) < share * len(running):
            if rows is not None:
                whole.put(rows, part)
            keep = running.nonzero()[:, 0]
            rows = keep if rows is None else rows[keep]
            part, running = part.rows(keep), running[keep]
        if passes > 0:
            advance(network, part, running, beta, criterion.cut)
        one_pass(network, part, running, beta, criterion)
        running, share, passes = part.running, WORTH, passes + 1
    if rows is not None:
        whole.put(rows, part)
    if passes > 0:
        suspect = (
            began
            & (whole.status == CONVERGED)
            & may_amplify(whole.slope, whole.u, network.leaks[-1], beta, whole.target)
        )
        whole.doubts = whole.doubts + suspect


def one_pass(
    network: DeviceNetwork, part: BroydenRelaxation, running: torch.Tensor, beta: float, criterion: Criterion
) -> None:
    """From the trial outputs to the states that follow, what enters the outputs there, and how far
    each sample then is from rest.

    Those not `running` are where they were: what they had is computed once more.
    """
    made = NetworkPass(network, ConvergedUnits(network.rho, criterion.cut), part.drive, [None] * len(network.sizes))
    made.follow(part.trial)
    part.hidden, part.u = made.states[:-1], made.entering(len(network.sizes) - 1)
    size = torch.linalg.vector_norm(_output_way(part.trial, part.u, network.leaks[-1], beta, part.target), dim=1)
    limit = criterion.limit(made.states)
    y, size = polish(network, part, size, limit, beta, running & (size > limit) & (size < 4 * limit), criterion.cut)
    part.y = torch.where(running[:, None], y, part.y)
    part.residual = torch.where(running, size, part.residual)
    part.passes = part.passes + running
    ended = torch.where(size <= limit, CONVERGED, torch.where(part.passes >= criterion.most, OUT_OF_STEPS, RUNNING))
    ended = torch.where(size < torch.inf, ended, NOT_FINITE)
    part.status = torch.where(running, ended, part.status)


def advance(network: DeviceNetwork, part: BroydenRelaxation, running: torch.Tensor, beta: float, look: bool) -> None:
    """The next trial outputs of those `running`, from the pass that was just made
    (kernels/loop_relaxation.advance).
    """
    size, best = part.residual, part.best
    broyden_update(part.slope, part.trial - part.base_y, part.u - part.base_u, running & (best < torch.inf))
    part.doubts = part.doubts + (running & (size > best))
    better = size <= 2 * best
    part.best = torch.where(better, size, best)
    part.pace = torch.where(better, (2 * part.pace).clamp(max=1), part.pace / 2)
    part.base_y = torch.where(better[:, None], part.trial, part.base_y)
    part.base_u = torch.where(better[:, None], part.u, part.base_u)
    z = predict(part.base_y, part.base_u, part.slope, network.leaks[-1], beta, part.target, look)
    part.trial = torch.where(running[:, None], torch.lerp(part.base_y, z, part.pace[:, None]), part.trial)


def polish(
    network: DeviceNetwork,
    part: BroydenRelaxation,
    size: torch.Tensor,
    bound: Any,
    beta: float,
    near: torch.Tensor,
    look: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(outputs, residual): of the samples `near`, part of the way to where the outputs
    rest while nothing else moves, if the whole residual then is within the bound.

    Of all others: the trial outputs and `size`. (kernels/loop_relaxation.polish)
    """
    if look and not bool(near.any()):
        return part.trial, size
    leak, first = network.leaks[-1], network.leaks[0]
    way = rests_at(part.u, leak, beta, part.target) - part.trial
    theta: Any = 1.0
    for _ in range(2):
        moved = part.trial + theta * way
        target = rests_at(network.add(part.drive, moved, network.incoming[0][0]), first, 0.0, 0.0)
        other = torch.linalg.vector_norm(target - part.hidden[0], dim=1)
        if isinstance(theta, float):
            share = size**2 / (size**2 + other**2)
            near = near & (share < 1) & (size * (1 - share) ** 0.5 <= bound)
            theta = share[:, None]
    left = torch.linalg.vector_norm(_output_way(moved, part.u, leak, beta, part.target), dim=1)
    whole = (left**2 + other**2) ** 0.5
    near = near & (whole <= bound)
    return torch.where(near[:, None], moved, part.trial), torch.where(near, whole, size)


def broyden_update(slope: torch.Tensor, dy: torch.Tensor, du: torch.Tensor, which: torch.Tensor) -> None:
    """S <- S + dy^T (du - dy S) / ||dy||^2 of those samples, in place
    (kernels/broyden.broyden_update).
    """
    size = (dy * dy).sum(1)
    which = which & (size > 0) & (size < torch.inf)
    wrong = torch.where(which[:, None], du - times(dy, slope), 0)
    share = torch.where(which[:, None], dy / size[:, None], 0)
    slope.addcmul_(share[:, :, None], wrong[:, None])


def predict(
    y: torch.Tensor, u: torch.Tensor, slope: torch.Tensor, leak: float, beta: float, d: torch.Tensor, look: bool
) -> torch.Tensor:
    """The root z of z = clip((u + (z - y) S + beta d) / kappa) of each sample.

    A semismooth Newton method: outputs inside (0, 1) solve their linear system while the others
    stay at their walls, until none changes sides; ROUNDS at most. `look` : end when that is so. An
    output's side is decided with its own slope solved for, except where this leaves it no leak
    (kernels/broyden.predict). Where the system has no solution, the plain pass.
    """
    gain, plain = slope / (leak + beta), unit_target(u, leak, beta, d if beta else 0.0)
    own = gain.diagonal(dim1=1, dim2=2)
    own = torch.where(own < 0.9, own, 0)
    left = 1 - own
    constant = (plain - times(y, gain)) / left
    gain.diagonal(dim1=1, dim2=2).sub_(own)
    gain.div_(left[:, None])
    v = constant + times(y, gain)
    wall = v.clamp(0, 1)
    for _ in range(ROUNDS):
        inside, before = wall == v, wall
        system = gain * -inside.to(y.dtype)[:, None]
        system.diagonal(dim1=1, dim2=2).add_(1)
        z = torch.linalg.solve_ex(system, torch.where(inside, constant, wall)[:, None], left=False).result[:, 0]
        v = constant + times(z, gain)
        wall = v.clamp(0, 1)
        if look and bool(((wall == before) | (inside & (wall == v))).all()):
            break
    return torch.where(v.isnan(), plain, v).clamp_(0, 1)


def times(rows: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """The product of each row (B, n) with its own matrix (B, n, n)."""
    return torch.bmm(rows[:, None], matrices)[:, 0]


def may_amplify(slope: torch.Tensor, u: torch.Tensor, leak: float, beta: float, d: torch.Tensor) -> torch.Tensor:
    """Whether a change of the outputs may come back larger (kernels/broyden.may_amplify), (B,)."""
    aim, kappa = unit_target(u, leak, beta, d if beta else 0.0), leak + beta
    free = ((aim > 0) & (aim < 1)).to(u.dtype)
    power = slope * free[:, :, None] * free[:, None] / kappa
    found = torch.ones_like(u[:, 0], dtype=torch.bool)
    for m in range(3):
        power = power @ power if m else power
        found = found & ~((power * power).sum((1, 2)) < 1)
    return found


def mean_slope(moments: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
    """The regression of du on dy from sum dy^T dy and sum dy^T du (kernels/broyden.mean_slope),
    (n_L, n_L) float64.
    """
    ridge = 1e-30 + 0.01 * moments.diagonal().mean()
    return torch.linalg.solve_ex(
        moments + ridge * torch.eye(len(moments), dtype=moments.dtype, device=moments.device), products
    ).result


def rests_at(u: torch.Tensor, leak: float, beta: float, d: Any) -> torch.Tensor:
    """clip((u + beta d) / (leak + beta)): where units rest while what enters them stays."""
    return unit_target(u, leak, beta, d if beta else 0.0).clamp_(0, 1)


def _output_way(y: torch.Tensor, u: torch.Tensor, leak: float, beta: float, d: torch.Tensor) -> torch.Tensor:
    """How far the outputs are from where they rest (B, n_L), all that the network is at states that
    follow from y.
    """
    return rests_at(u, leak, beta, d) - y
