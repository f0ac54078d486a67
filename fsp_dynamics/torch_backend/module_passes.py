"""A pass y -> T(y) through a network of tensors, and how passes bring it to convergence.

y (A, n_cut) are the states of the layers at which every cycle is cut; the other layers follow from
them one after the other. At (y, the layers that follow from y) the field of a hard sigmoid's
network vanishes outside the cut and is leak (T(y) - y) on it.

A smooth unit with c = r a rests at s = c x, where x = rho'(c x). The root is found by Newton's
method in log x: log x - log rho'(c x) rises everywhere, and is convex in log x where rho' falls on
both sides of 0 (logistic, tanh), so that no c, however large, makes the steps go in circles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from fsp_dynamics.models import rate
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.network import Network, cut_layers
from fsp_dynamics.models.rate import unit_field, unit_rate_field, unit_target
from fsp_dynamics.torch_backend.module_mixing import Layers, Step, mix

# ||ds/dt|| <= absolute + relative ||s|| where no tolerance is given
ROUNDING = {torch.float64: (1e-12, 1e-13)}
ROUNDING_ELSE = (1e-5, 1e-6)
FOLLOWED = 20  # steps through time for each of max_passes
NEWTON = 50  # steps to the root of a smooth unit, at most
FAR = 40.0  # no root of a smooth unit is sought beyond it: rho' is 0 there to rounding
Settle = Callable[[int, torch.Tensor], torch.Tensor]
"""(layer, a (A, n_k)) -> where the units of the layer rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """Where the passes ended, tensors without a graph.

    state : tuple of (B, n_k). residual : (B,) ||ds/dt||, rate form, per unit time. converged :
    (B,) bool, within the tolerance. passes : (B,) of each sample; steps through time are counted
    with them. A sample whose images, or whose way, are not finite has NaN states and is not at
    rest.
    """

    state: Layers
    residual: torch.Tensor
    converged: torch.Tensor
    passes: torch.Tensor


@torch.no_grad()
def settle(network: Network, drive: torch.Tensor, tolerance: float | None, max_passes: int) -> Rest:
    """The rest reached from silence under a drive (B, n_1): by mixed passes, and for samples that
    these do not bring there, through time.
    """
    passes = Passes(network, drive)
    found, converged, count = mix(passes.step(tolerance), passes.silence(), max_passes, boxed=network.rho.projected)
    reached = Rest(found[:-1], found[-1], converged, count)
    return reached if converged.all() else _marked(_followed(network, drive, reached, tolerance, FOLLOWED * max_passes))


def unmixed(device: torch.device) -> AbstractContextManager[Any]:
    """Where products keep the precision of the weights: autocast, if it is on, is off in here."""
    kind = device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


class Passes:
    """The passes of a network of tensors under a drive (B, n_1), in the free phase."""

    def __init__(self, network: Network, drive: torch.Tensor) -> None:
        self.network, self.drive = network, drive
        self.cut = cut_layers(network)
        self.inner = tuple(k for k in range(network.depth) if k not in self.cut)
        self.sizes = [network.sizes[k + 1] for k in self.cut]
        self.leaks = [1 / r for r in network.time_constants]
        self.into = [[(c.pre, c.weight) for c in network.connections() if c.post == k] for k in range(network.depth)]

    def silence(self) -> torch.Tensor:
        """The states 0 of the cut, (B, n_cut)."""
        return self.drive.new_zeros((self.drive.shape[0], sum(self.sizes)))

    def fixed(self, count: int, damping: float) -> tuple[Layers, Layers]:
        """(states, rates) of all layers after so many passes from silence: the cut where the last
        one left it, the others as they were in it.

        In each pass a smooth unit comes one step of Newton's method nearer to its root.
        """
        y, units = (
            self.silence(),
            self._at_once if self.network.rho.projected else _Nearing(self.network.rho, self.leaks),
        )
        for _ in range(count):
            state, rates, _, target = self._run(self.drive, y, units)
            y = target if damping == 1 else y + damping * (target - y)
        for k, s in zip(self.cut, y.split(self.sizes, 1), strict=True):
            state[k], rates[k] = s, _rates(self.network.rho, s)
        return tuple(state), tuple(rates)

    def step(self, tolerance: float | None) -> Step:
        """The pass as `mix` takes it; what belongs to y are the states of all layers and the
        residual.
        """

        def step(rows: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Layers]:
            state, _, a, target = self._run(self.drive[rows], y, self._at_once)
            residual = self._residual(state, a, target)
            return target, residual / bound(tolerance, state), (*state, residual)

        return step

    def _run(
        self, drive: torch.Tensor, y: torch.Tensor, units: Settle
    ) -> tuple[list[Any], list[Any], list[Any], torch.Tensor]:
        """(states, rates, inputs a of all layers, T(y))."""
        state: list[Any] = [None] * self.network.depth
        rates, a = list(state), list(state)
        for k, s in zip(self.cut, y.split(self.sizes, 1), strict=True):
            state[k], rates[k] = s, _rates(self.network.rho, s)
        for k in self.inner:
            a[k] = self._input(k, drive, rates)
            state[k] = units(k, a[k])
            rates[k] = _rates(self.network.rho, state[k])
        for k in self.cut:
            a[k] = self._input(k, drive, rates)
        return state, rates, a, torch.cat([units(k, a[k]) for k in self.cut], 1)

    def _input(self, k: int, drive: torch.Tensor, rates: Sequence[torch.Tensor]) -> torch.Tensor:
        """a_k of rate.total_input, one layer alone, (A, n_k)."""
        a = drive if k == 0 else self.network.biases[k]
        for pre, weight in self.into[k]:
            a = a + rates[pre] @ weight
        return a

    def _at_once(self, k: int, a: torch.Tensor) -> torch.Tensor:
        """Where the units of layer k rest."""
        rho, c = self.network.rho, unit_target(a, self.leaks[k], 0.0, 0.0)
        return rho.rate(c) if rho.projected else c * _root(rho, c)

    def _residual(self, state: Sequence[torch.Tensor], a: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """||ds/dt|| in the rate form (A,)."""
        rho = self.network.rho
        if rho.projected:
            rests = zip(self.cut, target.split(self.sizes, 1), strict=True)
            return norm([unit_rate_field(state[k], rest, self.leaks[k], 0.0) for k, rest in rests])
        layers = zip(state, a, self.leaks, strict=True)
        return norm([unit_field(s, a_k, rho.slope(s), leak, 0.0, 0.0) for s, a_k, leak in layers])


def norm(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """(A,) the 2-norm over all units of the layers."""
    return torch.stack([(s * s).sum(1) for s in layers]).sum(0).sqrt()


def bound(tolerance: float | None, state: Sequence[torch.Tensor]) -> torch.Tensor:
    """(A,) the norm of the field within which a sample has converged."""
    absolute, relative = ROUNDING.get(state[0].dtype, ROUNDING_ELSE) if tolerance is None else (tolerance, 0.0)
    return absolute + relative * norm(state)


def _followed(network: Network, drive: torch.Tensor, reached: Rest, tolerance: float | None, steps: int) -> Rest:
    """`reached`, its restless samples followed through time from silence: Euler steps of half the
    shortest time constant along the rate form.
    """
    rows = torch.nonzero(~reached.converged)[:, 0]
    drive, h = drive[rows], 0.5 * min(network.time_constants)
    state = tuple(drive.new_zeros((len(rows), n)) for n in network.sizes[1:])
    for number in range(1, steps + 1):
        fields = rate.rate_field(network, drive, state)
        residual = norm(fields)
        there = residual <= bound(tolerance, state)
        left = there | ~residual.isfinite() if number < steps else torch.ones_like(there)
        for kept, s in zip((*reached.state, reached.residual), (*state, residual), strict=True):
            kept[rows[left]] = s[left]
        reached.converged[rows[left]] = there[left]
        reached.passes[rows[left]] += number
        if left.all():
            break
        state = tuple((s + h * f)[~left] for s, f in zip(state, fields, strict=True))
        rows, drive = rows[~left], drive[~left]
    return reached


def _marked(reached: Rest) -> Rest:
    """`reached`, with NaN for the states of samples whose residual is not finite."""
    finite = reached.residual.isfinite()[:, None]
    return dataclasses.replace(reached, state=tuple(torch.where(finite, s, torch.nan) for s in reached.state))


class _Nearing:
    """Smooth units that come one step nearer to their roots each time their layer is visited."""

    def __init__(self, rho: Activation, leaks: Sequence[float]) -> None:
        self.rho, self.leaks = rho, leaks
        self.roots: list[Any] = [None] * len(leaks)

    def __call__(self, k: int, a: torch.Tensor) -> torch.Tensor:
        c = unit_target(a, self.leaks[k], 0.0, 0.0)
        x = _first(self.rho, c) if self.roots[k] is None else self.roots[k]
        self.roots[k] = _nearer(self.rho, c, x)
        return c * self.roots[k]


def _root(rho: Activation, c: torch.Tensor) -> torch.Tensor:
    """x = rho'(c x), to rounding."""
    x = _first(rho, c)
    for _ in range(NEWTON):
        better = _nearer(rho, c, x)
        still = abs(better - x) <= 4 * torch.finfo(x.dtype).eps * x
        x = better
        if still.all():
            break
    return x


def _first(rho: Activation, c: torch.Tensor) -> torch.Tensor:
    """rho'(0), or less where c x would be out of reach."""
    return torch.minimum(rho.slope(torch.zeros_like(c)), _most(c))


def _nearer(rho: Activation, c: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A step of Newton's method in log x."""
    curvature: Any = rho.curvature
    s = c * x
    slope = rho.slope(s)
    rise = (1 - s * curvature(s) / slope).clamp(min=1.0)
    return torch.minimum(x * (slope / x) ** (1 / rise), _most(c))


def _most(c: torch.Tensor) -> torch.Tensor:
    """The x above which |c x| > FAR; 1 at least for every c below it."""
    return FAR / abs(c).clamp(min=FAR)


def _rates(rho: Activation, s: torch.Tensor) -> torch.Tensor:
    """rho(s) where units rest: of a hard sigmoid the state itself."""
    return s if rho.projected else _SmoothRate.apply(s, rho)


class _SmoothRate(torch.autograd.Function):
    """rho(s) with the derivative rho'(s). Torch by itself would take the derivative of |s|, in
    which rho is written, for 0 at s = 0.
    """

    @staticmethod
    def forward(ctx: Any, s: torch.Tensor, rho: Activation) -> Any:
        ctx.save_for_backward(s)
        ctx.rho = rho
        return rho.rate(s)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (s,) = ctx.saved_tensors
        return gradient * ctx.rho.slope(s), None
