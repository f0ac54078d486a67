"""The fixed-point solver on torch tensors, on a CPU or a GPU: the methods of
solvers/fixed_point.py, each pass made for a whole batch at once.

===========  ==============================================================================================
method       y <-
===========  ==============================================================================================
`broyden`    the root of a model of T that each sample learns from its own passes, under the exact clip (torch_backend/broyden.py); for loops with
             a hard sigmoid, whose default it is
`anderson`   the mixture of the last passes with the smallest combined residual, per sample (torch_backend/passes.py); the default of all others
`picard`     T(y): plain layer sweeps
===========  ==============================================================================================

Samples that passes do not (credibly) bring to convergence go the way of solvers/recovery.py, in arrays on
the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.kernels.loop_relaxation import RUNNING
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, unit_target
from fsp_dynamics.solvers import PRODUCTS
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance, prepare
from fsp_dynamics.solvers.packed_loop import is_packable
from fsp_dynamics.solvers.recovery import Outcome, check_passes
from fsp_dynamics.torch_backend import broyden as torch_loop
from fsp_dynamics.torch_backend import passes as torch_passes
from fsp_dynamics.torch_backend.broyden import Rule, Walk
from fsp_dynamics.torch_backend.passes import Pass
from fsp_dynamics.torch_backend.products import DeviceNetwork, check_products, precision
from fsp_dynamics.torch_backend.tensors import array, chosen_device, tensor, tensor_nudge

METHODS = ("anderson", "broyden", "picard")


@dataclass(frozen=True, slots=True)
class TorchFixedPointSolver:
    """Passes around the network until each sample's field is small, on a torch device. What comes
    and goes are arrays.

    Parameters
    ----------
    method : "broyden" (loops with a hard sigmoid only), "anderson" or "picard"; None: "broyden"
        where it can be, else "anderson".
    max_passes : passes allowed to a sample before Newton's method and the fallback are asked.
    memory : earlier passes that method "anderson" mixes.
    fallback : the solver that integrates the samples no pass brought to convergence, from their start;
        None: they stay as they are, with status OUT_OF_STEPS.
    device : "auto", "cpu", "cuda" or "cuda:1".
    products : how products with weights are made, "full", "tf32" or "bf16"
        (torch_backend/products.py); the last two for float32 networks. A sample has converged when
        the field made with such products is small; the residual that is told is that of the exact
        field.
    """

    backend: ClassVar[str] = "torch"

    method: str | None = None
    max_passes: int = 60
    memory: int = 5
    fallback: Solver | None = None
    device: str = "cpu"
    products: str = "full"

    def __post_init__(self) -> None:
        if self.method is not None:
            check_choice("method", self.method, METHODS)
        check_passes(self.max_passes, self.memory, self.fallback)
        check_choice("products", self.products, PRODUCTS)
        chosen_device(self.device)

    def relax(
        self,
        network: Network,
        drive: Array,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
    ) -> Equilibrium:
        """The equilibrium reached from `start`; see `equilibrium.Solver.relax`. `steps` counts
        passes.
        """
        return self.on_device(network).relax(drive, start, nudge, tolerance)

    def on_device(self, network: Network) -> OnDevice:
        """The network, brought to the device once, to relax batch after batch there. Raises
        ConfigurationError for settings that do not fit it.
        """
        return OnDevice(self, network)

    def uses_broyden(self, network: Network) -> bool:
        """Whether it relaxes this network by secants."""
        return self.method in (None, "broyden") and is_packable(network)


class OnDevice:
    """A network on a solver's device. `held` is what products are made with there; `network` the
    one that was given.
    """

    def __init__(self, solver: TorchFixedPointSolver, network: Network) -> None:
        check_products(solver.products, network)
        if solver.method == "broyden" and not is_packable(network):
            raise ConfigurationError(
                "method = 'broyden' needs a loop and a hard sigmoid; use 'anderson' or 'picard' for this network"
            )
        self.solver, self.network = solver, network
        self.held = DeviceNetwork(network, chosen_device(solver.device), solver.products)
        self.memory = 0 if solver.method == "picard" else int(solver.memory)

    @torch.no_grad()
    def drive(self, images: Array) -> torch.Tensor:
        """images @ input + biases[0] (B, n_1), a whole product, which stays on the device: what
        `relax` takes. Raises as `rate.drive` does.
        """
        images, held = rate.checked_images(self.network, images), self.held
        with precision("highest"):
            return torch.addmm(held.network.biases[0], tensor(images, held.device, held.dtype), held.network.input)

    @torch.no_grad()
    def relax(
        self,
        drive: Array | torch.Tensor,
        start: State | None = None,
        nudge: Nudge | None = None,
        tolerance: Tolerance | None = None,
        slope: Array | None = None,
    ) -> Equilibrium:
        """As `equilibrium.Solver.relax`. drive : an array or a tensor (B, n_1). slope (n_L, n_L) :
        a mean loop Jacobian for secants to begin with.
        """
        network, held = self.network, self.held
        given = prepare(network, drive, start, nudge)
        tolerance = tolerance or Tolerance.default(network.dtype)
        constant = (drive if isinstance(drive, torch.Tensor) else tensor(drive, held.device)).to(
            held.device, held.dtype
        )
        positive = tensor_nudge(nudge, network, held.device)
        target = constant.new_zeros((len(constant), held.sizes[-1])) if positive is None else positive.target
        rule = self.rule(tolerance)
        with precision("highest"):
            found: Walk | Pass
            if self.solver.uses_broyden(network):
                state, found = self._by_broyden(
                    constant, target, None if start is None else held.tensors(start), beta_of(nudge), rule, slope
                )
            else:
                began = torch_passes.begin(held, constant, target, held.tensors(given), self.memory)
                found = torch_passes.walk(held, began, beta_of(nudge), rule, self.memory, start is not None)
                state = found.state
            rounded = self.solver.products != "full"
            residual = rate.residual(held.network, constant, state, positive) if rounded else found.residual
        reached = _equilibrium(state, residual, found, beta_of(nudge))
        outcome = Outcome(network, array(constant), given, nudge, tolerance).reached(
            reached, array(found.doubts).copy()
        )
        return outcome.finish(self.solver.fallback)

    def rule(self, tolerance: Tolerance) -> Rule:
        """What decides on the way."""
        return Rule(tolerance, int(self.solver.max_passes), torch_loop.cuts_down(self.held.device))

    def _by_broyden(
        self,
        drive: torch.Tensor,
        target: torch.Tensor,
        start: tuple[torch.Tensor, ...] | None,
        beta: float,
        rule: Rule,
        slope: Array | None,
    ) -> tuple[tuple[torch.Tensor, ...], Walk]:
        """(the states (B, n_k), what became of the samples); of a start that was given, those at
        rest keep it.
        """
        held, count, n = self.held, len(drive), self.held.sizes[-1]
        known = (
            drive.new_zeros((n, n))
            if slope is None
            else tensor(np.ascontiguousarray(slope[:, :n]), held.device, held.dtype)
        )
        slopes = known.repeat(count, 1, 1)
        if start is None:
            walk = Walk.begin(held, drive, target, drive.new_zeros((count, n)), slopes)
            torch_loop.come_to_rest(held, walk, beta, rule)
            return walk.state, walk
        looked = torch_passes.begin(held, drive, target, start, 0)
        torch_passes.one_pass(held, looked, looked.going, beta, rule, 0, given=True)
        walk = Walk.begin(held, drive, target, self._first_outputs(start, beta, target), slopes)
        walk.status, walk.residual, moved = looked.status, looked.residual, looked.going
        torch_loop.come_to_rest(held, walk, beta, rule)
        # Outputs that follow from the layer below the start may be a rest by chance, and a single
        # pass has learned nothing of the loop.
        walk.doubts = walk.doubts + (moved & (walk.passes == 1))
        walk.passes = walk.passes + moved
        return tuple(torch.where(moved[:, None], new, old) for new, old in zip(walk.state, start, strict=True)), walk

    def _first_outputs(self, start: tuple[torch.Tensor, ...], beta: float, target: torch.Tensor) -> torch.Tensor:
        """(B, n_L) where the outputs would rest while the layer below them stays as it was given."""
        held, last = self.held, len(self.held.sizes) - 1
        a = held.add(held.network.biases[last], held.rho.rate(start[-2]), held.incoming[last][0])
        return held.rho.rate(unit_target(a, held.leaks[-1], beta, target if beta else 0.0))


def _equilibrium(
    state: tuple[torch.Tensor, ...], residual: torch.Tensor, found: Walk | Pass, beta: float
) -> Equilibrium:
    """In arrays of its own. A sample RUNNING does not occur at the end."""
    status: Any = array(found.status)
    assert (status != RUNNING).all()
    arrays = tuple(np.array(array(s)) for s in state)
    return Equilibrium(
        arrays, array(residual).astype(np.float64), status.astype(np.uint8), array(found.passes).copy(), beta
    )
