"""How many samples of a loop with a hard sigmoid converge together, on tensors:
kernels/loop_relaxation.py and kernels/broyden.py, all at a time.

Two ways to treat those already converged while others are on their way. On the CPU rows are cut down
to those that go, and a look at the numbers costs nothing. On a GPU every row stays, masked, so
that all shapes are known and one number alone is read in each pass: whether anybody still goes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from fsp_dynamics.kernels.loop_relaxation import ABSENT, CONVERGED, NOT_FINITE, OUT_OF_STEPS, RUNNING
from fsp_dynamics.models.rate import unit_rate_field, unit_target
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.torch_backend.products import DeviceNetwork

ROUNDS = 4  # linear systems of one prediction; one or two are the rule
WORTH = 0.75  # rows are cut down when fewer than this share of them still go
# they matter on the way alone
NOT_PUT_BACK = ("drive", "target", "trial", "base_y", "base_u", "best", "pace")


def cuts_down(device: torch.device) -> bool:
    """Whether rows converged leave, so that shapes follow from numbers; else they stay and are
    masked.
    """
    return device.type == "cpu"


@dataclass(frozen=True, slots=True)
class Rule:
    """When a sample has converged, how many passes it may have, and whether rows are cut down."""

    tolerance: Tolerance
    most: int
    cut: bool


@dataclass(slots=True, eq=False)
class Walk:
    """Samples on their way in one phase, tensors with a row for each; names as in
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
        cls, held: DeviceNetwork, drive: torch.Tensor, target: torch.Tensor, output: torch.Tensor, slope: torch.Tensor
    ) -> Walk:
        """Everyone RUNNING from these outputs; slope (B, n_L, n_L) is theirs to change."""
        count = len(drive)
        numbers, statistics = (
            drive.new_zeros((3, count)),
            torch.zeros((3, count), dtype=torch.int64, device=drive.device),
        )
        numbers[1], numbers[2], statistics[1] = torch.inf, 1, RUNNING
        nothing = torch.zeros_like(output)
        hidden = [drive.new_zeros((count, n)) for n in held.sizes[:-1]]
        residual, best, pace = numbers
        passes, status, doubts = statistics
        return cls(
            drive,
            target,
            output,
            output,
            nothing,
            nothing,
            nothing,
            slope,
            residual,
            best,
            pace,
            passes,
            status,
            doubts,
            hidden,
        )

    @property
    def state(self) -> tuple[torch.Tensor, ...]:
        """The states of all layers (B, n_k)."""
        return (*self.hidden, self.y)

    @property
    def going(self) -> torch.Tensor:
        return self.status == RUNNING

    def rows(self, index: torch.Tensor) -> Walk:
        """Some of the samples; their hidden states follow from the next pass."""
        return Walk(**{name: getattr(self, name)[index] for name in _NAMES}, hidden=[])

    def put(self, index: torch.Tensor, part: Walk) -> None:
        """What became of some of the samples."""
        for name in _NAMES:
            if name not in NOT_PUT_BACK:
                setattr(self, name, getattr(self, name).index_copy(0, index, getattr(part, name)))
        self.hidden = [mine.index_copy(0, index, new) for mine, new in zip(self.hidden, part.hidden, strict=True)]


_NAMES = tuple(f.name for f in dataclasses.fields(Walk) if f.name != "hidden")


def begin_nudge(held: DeviceNetwork, free: Walk, beta: float, rule: Rule) -> Walk:
    """The nudged phase of samples at the end of their free one, each where its model of that says
    that beta takes it (as kernels/loop_phases.py).

    ABSENT are those that never converged, and those whose output is the target to the bit:
    there the nudge moves nothing. Those within the tolerance stay where they are.
    """
    leak, d = held.leaks[-1], free.target
    positive = (free.status == CONVERGED) & (free.y != d).any(1)
    size = (
        torch.linalg.vector_norm(_output_field(free.y, free.u, leak, beta, d), dim=1) ** 2 + free.residual**2
    ) ** 0.5
    stays = positive & (size <= rule.tolerance.absolute)
    goes = positive & ~stays
    status = torch.where(goes, RUNNING, torch.where(stays, CONVERGED, ABSENT))
    slope, none = free.slope.clone(), torch.zeros_like(free.passes)
    trial = torch.where(goes[:, None], predict(free.y, free.u, slope, leak, beta, d, rule.cut), free.trial)
    pace = torch.ones_like(size)
    return Walk(
        free.drive,
        d,
        trial,
        free.y,
        free.u,
        free.y,
        free.u,
        slope,
        size,
        size,
        pace,
        none,
        status,
        none,
        list(free.hidden),
    )


def come_to_rest(held: DeviceNetwork, walk: Walk, beta: float, rule: Rule) -> None:
    """Every sample RUNNING from its outputs `trial` to rest, or until it interrupts or may not go
    on.
    """
    began = going = walk.going
    part, rows, share, passes = walk, None, 1.0, 0
    while bool(going.any()):
        if rule.cut and int(going.sum()) < share * len(going):
            if rows is not None:
                walk.put(rows, part)
            keep = going.nonzero()[:, 0]
            rows = keep if rows is None else rows[keep]
            part, going = part.rows(keep), going[keep]
        if passes > 0:
            advance(held, part, going, beta, rule.cut)
        one_pass(held, part, going, beta, rule)
        going, share, passes = part.going, WORTH, passes + 1
    if rows is not None:
        walk.put(rows, part)
    if passes > 0:
        suspect = began & (walk.status == CONVERGED) & may_amplify(walk.slope, walk.y, held.leaks[-1] + beta)
        walk.doubts = walk.doubts + suspect


def one_pass(held: DeviceNetwork, walk: Walk, going: torch.Tensor, beta: float, rule: Rule) -> None:
    """From the outputs on trial to the states that follow, what enters the outputs there, and how
    far each sample then is from rest.

    Those not `going` are where they were: they have what they had, made once more.
    """
    leak, d, bound = held.leaks[-1], walk.target, rule.tolerance.absolute
    hidden = [enter_loop(held, walk.drive, walk.trial)]
    for k in range(1, len(held.sizes) - 1):
        hidden.append(settle(_enter(held, k, hidden[-1]), held.leaks[k]))
    walk.hidden, walk.u = hidden, _enter(held, len(hidden), hidden[-1])
    size = torch.linalg.vector_norm(_output_field(walk.trial, walk.u, leak, beta, d), dim=1)
    limit: Any = bound
    if rule.tolerance.relative > 0:
        limit = bound + rule.tolerance.relative * sum((s * s).sum(1) for s in (*hidden, walk.trial)) ** 0.5
    y, size = polish(held, walk, size, limit, beta, going & (size > limit) & (size < 4 * limit), rule.cut)
    walk.y = torch.where(going[:, None], y, walk.y)
    walk.residual = torch.where(going, size, walk.residual)
    walk.passes = walk.passes + going
    ended = torch.where(size <= limit, CONVERGED, torch.where(walk.passes >= rule.most, OUT_OF_STEPS, RUNNING))
    ended = torch.where(size < torch.inf, ended, NOT_FINITE)
    walk.status = torch.where(going, ended, walk.status)


def advance(held: DeviceNetwork, walk: Walk, going: torch.Tensor, beta: float, look: bool) -> None:
    """The next outputs on trial of those `going`, from the pass that was just made
    (kernels/loop_relaxation.advance).
    """
    size, best = walk.residual, walk.best
    broyden_update(walk.slope, walk.trial - walk.base_y, walk.u - walk.base_u, going & (best < torch.inf))
    walk.doubts = walk.doubts + (going & (size > best))
    better = size <= 2 * best
    walk.best = torch.where(better, size, best)
    walk.pace = torch.where(better, (2 * walk.pace).clamp(max=1), walk.pace / 2)
    walk.base_y = torch.where(better[:, None], walk.trial, walk.base_y)
    walk.base_u = torch.where(better[:, None], walk.u, walk.base_u)
    z = predict(walk.base_y, walk.base_u, walk.slope, held.leaks[-1], beta, walk.target, look)
    walk.trial = torch.where(going[:, None], torch.lerp(walk.base_y, z, walk.pace[:, None]), walk.trial)


def polish(
    held: DeviceNetwork, walk: Walk, size: torch.Tensor, bound: Any, beta: float, near: torch.Tensor, look: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs of those `near` part of the way to where they rest while nothing else moves, if
    the whole field then is within the bound; its norm.

    All others: the outputs on trial and `size`. (kernels/loop_relaxation.polish)
    """
    if look and not bool(near.any()):
        return walk.trial, size
    leak, first = held.leaks[-1], held.leaks[0]
    way = rests_at(walk.u, leak, beta, walk.target) - walk.trial
    theta: Any = 1.0
    for _ in range(2):
        moved = walk.trial + theta * way
        field = unit_rate_field(walk.hidden[0], enter_loop(held, walk.drive, moved), first, 0.0)
        other = torch.linalg.vector_norm(field, dim=1)
        if isinstance(theta, float):
            share = size**2 / (size**2 + other**2)
            near = near & (share < 1) & (size * (1 - share) ** 0.5 <= bound)
            theta = share[:, None]
    left = torch.linalg.vector_norm(_output_field(moved, walk.u, leak, beta, walk.target), dim=1)
    whole = (left**2 + other**2) ** 0.5
    near = near & (whole <= bound)
    return torch.where(near[:, None], moved, walk.trial), torch.where(near, whole, size)


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
    stand at their walls, until none changes sides;
    ROUNDS at most. `look` : end when that is so. An output's side is decided with its own slope
    solved for, but for one that its slope leaves no leak (kernels/broyden.predict). Where the
    system has no solution, the plain pass.
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


def may_amplify(slope: torch.Tensor, y: torch.Tensor, kappa: float) -> torch.Tensor:
    """Whether a change of the outputs may come back larger (kernels/broyden.may_amplify), (B,)."""
    free = ((y > 0) & (y < 1)).to(y.dtype)
    power = slope * free[:, :, None] * free[:, None] / kappa
    found = torch.ones_like(y[:, 0], dtype=torch.bool)
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


def enter_loop(held: DeviceNetwork, drive: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """clip((drive + y @ loop) / leak): the first hidden layer."""
    return settle(held.add(drive, y, held.incoming[0][0]), held.leaks[0])


def settle(a: torch.Tensor, leak: float) -> torch.Tensor:
    """clip(a / leak): where hidden units rest while their input stays."""
    return unit_target(a, leak, 0.0, 0.0).clamp_(0, 1)


def rests_at(u: torch.Tensor, leak: float, beta: float, d: torch.Tensor) -> torch.Tensor:
    """clip((u + beta d) / (leak + beta)): where outputs rest while what enters them stays."""
    return unit_target(u, leak, beta, d if beta else 0.0).clamp_(0, 1)


def _enter(held: DeviceNetwork, k: int, rates: torch.Tensor) -> torch.Tensor:
    """What enters layer k from the one below."""
    return held.add(held.network.biases[k], rates, held.incoming[k][0])


def _output_field(y: torch.Tensor, u: torch.Tensor, leak: float, beta: float, d: torch.Tensor) -> torch.Tensor:
    """ds/dt of the outputs (B, n_L), that of the whole network at states that follow from y."""
    return unit_rate_field(y, rests_at(u, leak, beta, d), leak, beta)
