"""The network as a `torch.nn.Module`: from images to the firing rates of the output at
equilibrium, in the free phase.

It relaxes by passes y -> T(y) around the network (`torch_backend.passes`), in one of two ways:

`passes=None`
    Each sample mixes its own last passes (`torch_backend.anderson`) until its residual is within
    the tolerance; one that does not converge in `max_passes` is followed through time. Gradients by
    implicit differentiation at the equilibrium (`torch_backend.adjoint`): they take the memory of
    one pass, and are of first order; a second is refused.
`passes=k`
    Exactly k passes y <- y + damping (T(y) - y) from silence, with no control flow that depends on
    the data: it can be exported. Gradients through the passes, by torch.

Whether the dynamics would stay at the equilibrium that passes found is not examined
(`analysis.stability` does). Activations must be written in operators that torch takes, as those of
the package are; smooth ones need their curvature.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fsp_dynamics.errors import ConfigurationError, NotConvergedError, check_positive, check_shape
from fsp_dynamics.models import rate
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.network import Network
from fsp_dynamics.solvers.equilibrium import CONVERGED, Tolerance
from fsp_dynamics.torch_backend.adjoint import attached
from fsp_dynamics.torch_backend.anderson import MEMORY
from fsp_dynamics.torch_backend.passes import Criterion, PassRelaxation, cuts_down, relax, unrolled
from fsp_dynamics.torch_backend.products import DeviceNetwork, without_autocast
from fsp_dynamics.torch_backend.tensors import TensorState

MAX_PASSES = 200
# where no tolerance is given: what rounding allows
ROUNDING = {torch.float64: Tolerance(1e-12, 1e-13), torch.float32: Tolerance(1e-5, 1e-6)}
FOLLOWED = 20  # steps through time for each of max_passes


@dataclass(frozen=True, slots=True, eq=False)
class ModuleEquilibrium:
    """Where the passes ended, tensors without a graph.

    state : tuple of (B, n_k). residual : (B,) as `models.rate.residual`. converged :
    (B,) bool, within the tolerance. passes : (B,) of each sample; steps through time are counted
    with them. A sample whose images, or whose states on the way, are not finite has NaN states and
    has not converged.

    >>> import fsp_dynamics as fsp
    >>> module = fsp.loop_network([4, 8, 3], rng=0).to_torch()
    >>> found = module.equilibrium(torch.full((2, 4), 0.5))
    >>> found.state[-1].shape, found.converged.tolist()
    (torch.Size([2, 3]), [True, True])
    """

    state: TensorState
    residual: torch.Tensor
    converged: torch.Tensor
    passes: torch.Tensor


class RateModule(nn.Module):
    """A network as a module; `Network.to_torch` makes it and describes its options.

    Parameters and their names in `state_dict` are those of `Network.parameters`, a bracketed
    number after an underscore: `input`, `forward_0`, ..., `loop`, `backward_0`, ..., `biases_0`,
    ... They are pre x post, as in `Network`. Topology, time constants and rho are no parameters:
    load a `state_dict` into a module of a network of the same kind.

    >>> import fsp_dynamics as fsp
    >>> module = fsp.loop_network([4, 8, 3], rng=0).to_torch()
    >>> images = torch.full((2, 4), 0.5, requires_grad=True)
    >>> [rates.shape for rates in module.rates(images)]
    [torch.Size([2, 8]), torch.Size([2, 3])]
    >>> module.equilibrium(images).converged.tolist()
    [True, True]
    >>> module(images).sum().backward()
    >>> images.grad.shape, module.to_network()
    (torch.Size([2, 4]), <Network 4-8-3, loop, hard_sigmoid, float32>)
    >>> [name for name, _ in module.named_parameters()]
    ['input', 'forward_0', 'loop', 'biases_0', 'biases_1']
    """

    def __init__(
        self,
        network: Network,
        passes: int | None = None,
        tolerance: float | None = None,
        max_passes: int | None = None,
        *,
        damping: float = 1.0,
        require_converged: bool = True,
    ) -> None:
        super().__init__()
        _check_options(network.rho, passes, tolerance, max_passes, damping)
        for name, weight in network.parameters().items():
            setattr(self, parameter_name(name), nn.Parameter(torch.tensor(np.asarray(weight))))
        self.depth, self.tied, self.rho = network.depth, network.tied, network.rho
        self.time_constants = network.time_constants
        self.passes, self.tolerance, self.damping, self.require_converged = (
            passes,
            tolerance,
            damping,
            require_converged,
        )
        self.max_passes = max_passes or MAX_PASSES

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The firing rates of the output (B, n_L) for images (B, n_in). Raises as `rates` does.

        Returns
        -------
        Tensor : (B, n_L).
        """
        return self.rates(images)[-1]

    def rates(self, images: torch.Tensor) -> TensorState:
        """The firing rates of all layers, L tensors (B, n_k), differentiable in images and
        parameters, in the precision of the parameters.

        A sample whose images are not finite has NaN rates where it is not refused. Under autocast
        the same is computed as without it. Raises ShapeError for images that do not fit,
        ConfigurationError for what is no tensor and for parameters that are neither float32 nor
        float64; NotConvergedError, whose `equilibrium` is the `ModuleEquilibrium` that was reached,
        if a sample does not converge (`passes=None` and `require_converged`).

        Returns
        -------
        tuple of Tensor : L of them, (B, n_k).
        """
        self._check(images)
        with without_autocast(images.device):
            network, drive = self._tensors(), self._drive(images)
            if self.passes is not None:
                return unrolled(DeviceNetwork(network), drive, self.passes, self.damping)[1]
            reached = equilibrium_of(network, drive, self._tolerance(), self.max_passes)
            if self.require_converged:
                _require_converged(reached)
            return attached(network, drive, reached.state)

    @torch.no_grad()
    def equilibrium(self, images: torch.Tensor) -> ModuleEquilibrium:
        """What the passes reach for each sample, without a graph. Raises ShapeError and
        ConfigurationError as `rates` does.

        Returns
        -------
        ModuleEquilibrium : of all B samples.
        """
        self._check(images)
        with without_autocast(images.device):
            network, drive = self._tensors(), self._drive(images)
            if self.passes is None:
                return equilibrium_of(network, drive, self._tolerance(), self.max_passes)
            state, _ = unrolled(DeviceNetwork(network), drive, self.passes, self.damping)
            residual = rate.residual(network, drive, state)
            converged = residual <= Criterion(self._tolerance(), self.passes, False).limit(state)
            return ModuleEquilibrium(
                state, residual, converged, torch.full_like(residual, self.passes, dtype=torch.int64)
            )

    def to_network(self) -> Network:
        """The network with copies of the parameters as arrays. Raises ConfigurationError where
        they are neither float32 nor float64.

        Returns
        -------
        Network : of the same dtype.
        """
        self._check_precision()
        return self._made_of(lambda weight: weight.detach().cpu().numpy().copy())

    def extra_repr(self) -> str:
        way = (
            f"tolerance={self.tolerance}, max_passes={self.max_passes}"
            if self.passes is None
            else f"passes={self.passes}, damping={self.damping:g}"
        )
        return f"{'-'.join(map(str, self._tensors().sizes))}, {self.rho.name}, {way}"

    def _tolerance(self) -> Tolerance:
        return ROUNDING[self.input.dtype] if self.tolerance is None else Tolerance(self.tolerance)

    def _tensors(self) -> Network:
        """The network of the parameters themselves."""
        return self._made_of(lambda weight: weight)

    def _made_of(self, form: Callable[[torch.Tensor], Any]) -> Network:
        """The network with form(parameter) for its weights."""
        chain = range(self.depth - 1)
        return Network(
            input=form(self.input),
            forward=tuple(form(getattr(self, f"forward_{k}")) for k in chain),
            biases=tuple(form(getattr(self, f"biases_{k}")) for k in range(self.depth)),
            loop=form(self.loop) if hasattr(self, "loop") else None,
            backward=tuple(form(getattr(self, f"backward_{k}")) for k in chain)
            if hasattr(self, "backward_0")
            else None,
            tied=self.tied,
            time_constants=self.time_constants,
            rho=self.rho,
        )

    def _check(self, images: Any) -> None:
        """Refuse images and parameters that nothing can be computed with. Raises
        ConfigurationError, ShapeError.
        """
        if not isinstance(images, torch.Tensor):
            raise ConfigurationError(
                f"images = {type(images).__name__}, expected a tensor; make one with torch.as_tensor"
            )
        check_shape("images", images, (None, self.input.shape[0]))
        self._check_precision()

    def _check_precision(self) -> None:
        """Raises ConfigurationError where the parameters are neither float32 nor float64."""
        if self.input.dtype not in (torch.float32, torch.float64):
            raise ConfigurationError(
                f"the parameters are {self.input.dtype}, expected float32 or float64; call .float() or .double() first"
            )

    def _drive(self, images: torch.Tensor) -> torch.Tensor:
        """images @ input + biases[0], (B, n_1)."""
        return images.to(self.input.dtype) @ self.input + self.biases_0


def parameter_name(name: str) -> str:
    """The module's name for a parameter of `Network.parameters`.

    >>> parameter_name("forward[0]")
    'forward_0'
    """
    return name.replace("[", "_").removesuffix("]")


@torch.no_grad()
def equilibrium_of(network: Network, drive: torch.Tensor, tolerance: Tolerance, max_passes: int) -> ModuleEquilibrium:
    """The equilibrium of a network of tensors reached from silence under a drive (B, n_1): by mixed
    passes, and through time for samples that do not converge in `max_passes`.
    """
    device_network = DeviceNetwork(network)
    criterion = Criterion(tolerance, max_passes, cuts_down(drive.device))
    silence = tuple(drive.new_zeros((len(drive), n)) for n in device_network.sizes)
    # a clip would hide an infinite input
    usable = torch.where(drive.isfinite().all(1, keepdim=True), drive, torch.nan)
    begun = PassRelaxation.begin(device_network, usable, silence[-1], silence)
    found = relax(device_network, begun, 0.0, criterion, MEMORY, given=False)
    reached = ModuleEquilibrium(found.state, found.residual, found.status == CONVERGED, found.passes)
    if reached.converged.all():
        return reached
    _follow(network, usable, reached, criterion, silence, FOLLOWED * max_passes)
    finite = reached.residual.isfinite()[:, None]
    return dataclasses.replace(reached, state=tuple(torch.where(finite, s, torch.nan) for s in reached.state))


def _follow(
    network: Network,
    drive: torch.Tensor,
    reached: ModuleEquilibrium,
    criterion: Criterion,
    start: TensorState,
    steps: int,
) -> None:
    """Follow the unconverged samples of `reached`, in place, through time from `start`: Euler steps
    of half the shortest time constant along the rate form.
    """
    rows = torch.nonzero(~reached.converged)[:, 0]
    drive, state, h = drive[rows], tuple(s[rows] for s in start), 0.5 * min(network.time_constants)
    for number in range(1, steps + 1):
        fields = rate.rate_field(network, drive, state)
        residual: Any = rate.distance(network, fields)
        converged = residual <= criterion.limit(state)
        ended = converged | ~residual.isfinite() if number < steps else torch.ones_like(converged)
        for kept, s in zip((*reached.state, reached.residual), (*state, residual), strict=True):
            kept[rows[ended]] = s[ended]
        reached.converged[rows[ended]] = converged[ended]
        reached.passes[rows[ended]] += number
        if ended.all():
            break
        state = tuple((s + h * f)[~ended] for s, f in zip(state, fields, strict=True))
        rows, drive = rows[~ended], drive[~ended]


def _require_converged(reached: ModuleEquilibrium) -> None:
    """Raises NotConvergedError unless all samples have converged."""
    if reached.converged.all():
        return
    unconverged = torch.nonzero(~reached.converged)[:, 0]
    first = int(unconverged[0])
    residual, passes = float(reached.residual[first]), int(reached.passes[first])
    remedy = (
        "allow more max_passes, a looser tolerance or a weaker loop"
        if np.isfinite(residual)
        else "look for NaN or infinity in its images and in the weights"
    )
    equilibrium: Any = reached
    raise NotConvergedError(
        f"{len(unconverged)} of {len(reached.converged)} samples have not converged (first: sample {first}, "
        f"residual {residual:.3g} after {passes} passes); {remedy}, or take what was reached with "
        "require_converged=False",
        equilibrium,
    )


def _check_options(
    rho: Activation, passes: int | None, tolerance: float | None, max_passes: int | None, damping: float
) -> None:
    """Refuse options that do not fit each other, and a smooth rho without curvature. Raises
    ConfigurationError.
    """
    for name, count in (("passes", passes), ("max_passes", max_passes)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1):
            raise ConfigurationError(f"{name} = {count!r}, expected a whole number, 1 or more, or None")
    if tolerance is not None:
        check_positive("tolerance", tolerance)
    if not 0 < check_positive("damping", damping) <= 1 or (passes is None and damping != 1):
        raise ConfigurationError(
            f"damping = {damping!r} with passes = {passes}, expected a share in (0, 1] of each of a given "
            "number of passes"
        )
    if passes is not None and max_passes is not None:
        raise ConfigurationError(f"passes = {passes} makes exactly so many; leave max_passes = {max_passes} out")
    if not rho.projected and rho.curvature is None:
        raise ConfigurationError(
            f"rho = {rho.name!r} has no curvature, which smooth units need here; give Activation(..., curvature=...)"
        )
