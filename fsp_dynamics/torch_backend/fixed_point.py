"""The fixed-point solver on torch tensors, on a CPU or a GPU: the methods of
solvers/fixed_point.py, each pass made for a whole batch at once.

=========== ========================================================================================
method      y <-
=========== ========================================================================================
`broyden`   the root of a model of T that each sample learns from its own passes, under the exact
            clip (torch_backend/broyden.py); for loops with a hard sigmoid, whose default it is
`anderson`  the mixture of the last passes with the smallest combined residual, for each sample
            (torch_backend/anderson.py); the default of all others
`picard`    T(y): plain layer sweeps
=========== ========================================================================================

Samples that passes do not (credibly) bring to convergence are recovered as in
solvers/recovery.py, in arrays on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.kernels.status import RUNNING
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, beta_of, unit_target
from fsp_dynamics.solvers import PRODUCTS
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance, prepare
from fsp_dynamics.solvers.recovery import check_passes, recover
from fsp_dynamics.torch_backend import broyden, passes
from fsp_dynamics.torch_backend.broyden import BroydenRelaxation
from fsp_dynamics.torch_backend.passes import Criterion, PassRelaxation
from fsp_dynamics.torch_backend.products import DeviceNetwork, precision
from fsp_dynamics.torch_backend.tensors import TensorState, array, chosen_device, tensor, tensor_nudge

METHODS = ("anderson", "broyden", "picard")


@dataclass(frozen=True, slots=True)
class TorchFixedPointSolver:
    """Passes around the network until each sample's field is small, on a torch device. It takes and
    returns arrays.

    Parameters
    ----------
    method : "broyden" (loops with a hard sigmoid only), "anderson" or "picard"; None: "broyden"
        where it can be, else "anderson".
    max_passes : passes allowed to a sample before it is recovered (Newton's method, the fallback).
    memory : earlier passes that method "anderson" mixes.
    fallback : the solver that integrates, from their start, samples that did not converge; None:
        they stay as they are, with status OUT_OF_STEPS.
    device : "auto", "cpu", "cuda" or "cuda:1".
    products : how products with weights are made, "full", "tf32" or "bf16"
        (torch_backend/products.py); the last two for float32 networks. A sample has converged when
        the field computed with such products is small; the residual reported is that of the exact
        field.

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> solver = TorchFixedPointSolver(device="cpu")
    >>> fsp.relax(network, images, solver=solver).converged.tolist(), solver.uses_broyden(network)
    ([True, True], True)
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

        Returns
        -------
        Equilibrium : of all B samples.
        """
        return self.on_device(network).relax(drive, start, nudge, tolerance)

    def on_device(self, network: Network) -> SolverOnDevice:
        """The network, brought to the device once, to relax batch after batch there. Raises
        ConfigurationError for settings that do not fit it.

        Returns
        -------
        SolverOnDevice : with drive(images) and relax(drive, ...).
        """
        return SolverOnDevice(self, network)

    def uses_broyden(self, network: Network) -> bool:
        """Whether it relaxes this network by Broyden's method.

        Returns
        -------
        bool : for loops with a hard sigmoid.
        """
        return self.method in (None, "broyden") and network.is_hard_sigmoid_loop


class SolverOnDevice:
    """A solver with one network on its device. `network` is the one that was given,
    `device_network` the same on the device.
    """

    def __init__(self, solver: TorchFixedPointSolver, network: Network) -> None:
        if solver.method == "broyden" and not network.is_hard_sigmoid_loop:
            raise ConfigurationError(
                "method = 'broyden' needs a loop and a hard sigmoid; use 'anderson' or 'picard' for this network"
            )
        self.solver, self.network = solver, network
        self.device_network = DeviceNetwork.of(network, chosen_device(solver.device), solver.products)
        self.memory = 0 if solver.method == "picard" else int(solver.memory)

    @torch.no_grad()
    def drive(self, images: Array) -> torch.Tensor:
        """images @ input + biases[0] (B, n_1), a whole product, which stays on the device: what
        `relax` takes. Raises as `rate.drive` does.
        """
        images, network = rate.checked_images(self.network, images), self.device_network
        with precision("highest"):
            given: Any = tensor(images, network.device, network.dtype)
            return torch.addmm(network.weights.biases[0], given, network.weights.input)

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
        a mean loop Jacobian for Broyden's method to begin with.
        """
        device_network, beta = self.device_network, beta_of(nudge)
        given = prepare(self.network, drive, start, nudge)
        tolerance = tolerance or Tolerance.default(self.network.dtype)
        constant = self._tensor(drive)
        pull = tensor_nudge(nudge, self.network, device_network.device)
        target = constant.new_zeros((len(constant), device_network.sizes[-1])) if pull is None else pull.target
        begun = None if start is None else device_network.tensors(given)
        with precision("highest"):
            found: BroydenRelaxation | PassRelaxation
            if self.solver.uses_broyden(self.network):
                state, found = self._by_broyden(constant, target, begun, beta, self.criterion(tolerance), slope)
            else:
                found = self._by_passes(constant, target, begun, beta, self.criterion(tolerance))
                state = found.state
            rounded = self.solver.products != "full"
            residual = rate.residual(device_network.weights, constant, state, pull) if rounded else found.residual
        reached = _equilibrium(state, residual, found, beta)
        doubts = array(found.doubts).copy()
        return recover(self.network, array(constant), start, reached, doubts, nudge, tolerance, self.solver.fallback)

    def criterion(self, tolerance: Tolerance) -> Criterion:
        """When its relaxations end."""
        return Criterion(tolerance, int(self.solver.max_passes), passes.cuts_down(self.device_network.device))

    def _tensor(self, values: Array | torch.Tensor) -> torch.Tensor:
        """An array or a tensor on the device, in the network's precision."""
        network = self.device_network
        given = values if isinstance(values, torch.Tensor) else tensor(values, network.device)
        return given.to(network.device, network.dtype)

    def _by_passes(
        self, drive: torch.Tensor, target: torch.Tensor, start: TensorState | None, beta: float, criterion: Criterion
    ) -> PassRelaxation:
        """What became of the samples by mixed or plain passes."""
        network = self.device_network
        silence = tuple(drive.new_zeros((len(drive), n)) for n in network.sizes)
        begun = PassRelaxation.begin(network, drive, target, silence if start is None else start)
        found = passes.relax(network, begun, beta, criterion, self.memory, start is not None)
        found.doubts = found.doubts + (found.passes < 2 + (start is not None))
        return found

    def _by_broyden(
        self,
        drive: torch.Tensor,
        target: torch.Tensor,
        start: TensorState | None,
        beta: float,
        criterion: Criterion,
        slope: Array | None,
    ) -> tuple[TensorState, BroydenRelaxation]:
        """(the states (B, n_k), what became of the samples). A start that was given is kept by the
        samples that have converged there.
        """
        network, count, n = self.device_network, len(drive), self.device_network.sizes[-1]
        known = drive.new_zeros((n, n)) if slope is None else self._tensor(np.ascontiguousarray(slope[:, :n]))
        slopes = known.repeat(count, 1, 1)
        if start is None:
            found = BroydenRelaxation.begin(network, drive, target, drive.new_zeros((count, n)), slopes)
            broyden.relax(network, found, beta, criterion)
            return found.state, found
        looked = PassRelaxation.begin(network, drive, target, start)
        passes.one_pass(network, looked, looked.running, beta, criterion, 0, given=True)
        found = BroydenRelaxation.begin(network, drive, target, self._first_outputs(start, beta, target), slopes)
        found.status, found.residual, moved = looked.status, looked.residual, looked.running
        broyden.relax(network, found, beta, criterion)
        # Outputs that follow from the layer below the start may be an equilibrium by chance, and a
        # single pass has learned nothing of the loop.
        found.doubts = found.doubts + ((found.passes == 1) | ~moved)
        found.passes = found.passes + moved
        return tuple(torch.where(moved[:, None], new, old) for new, old in zip(found.state, start, strict=True)), found

    def _first_outputs(self, start: TensorState, beta: float, target: torch.Tensor) -> torch.Tensor:
        """(B, n_L) where the outputs would rest while the layer below them stays as given."""
        network, last = self.device_network, len(self.device_network.sizes) - 1
        a = network.entering(last, start[0], [network.rho.rate(s) for s in start])
        return network.rho.rate(unit_target(a, network.leaks[-1], beta, target if beta else 0.0))


def _equilibrium(
    state: TensorState, residual: torch.Tensor, found: BroydenRelaxation | PassRelaxation, beta: float
) -> Equilibrium:
    """In arrays of its own. No sample is RUNNING at the end."""
    status: Any = array(found.status)
    assert (status != RUNNING).all()
    arrays = tuple(np.array(array(s)) for s in state)
    residuals, steps = array(residual).astype(np.float64), array(found.passes).copy()
    return Equilibrium(arrays, residuals, status.astype(np.uint8), steps, beta)
