"""Both phases of a batch on tensors (`learning.phases.run`, kernels/loop_phases.py), part by part
where ranks share it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fsp_dynamics.kernels.status import ABSENT, CONVERGED, NOT_FINITE, RUNNING
from fsp_dynamics.learning.rules import Contrast
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.network import Array
from fsp_dynamics.models.rate import Nudge
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance
from fsp_dynamics.solvers.recovery import recover
from fsp_dynamics.solvers.stability import growing_units
from fsp_dynamics.torch_backend import broyden, passes
from fsp_dynamics.torch_backend.broyden import BroydenRelaxation
from fsp_dynamics.torch_backend.fixed_point import SolverOnDevice
from fsp_dynamics.torch_backend.passes import PassRelaxation
from fsp_dynamics.torch_backend.products import DeviceNetwork
from fsp_dynamics.torch_backend.tensors import TensorState, array, tensor


@dataclass(frozen=True, slots=True, eq=False)
class DevicePhases:
    """The free phase and the one or two nudged ones of B samples on the device.

    states : of each phase, the free one first, all layers (B, n_k). status (phases, B), as in
    kernels/status.py. passes (phases, B). residual (B,) of the free phase. entering
    (2, B, n_L) : what enters the outputs, free and nudged; of width 0 without Broyden's method,
    which alone learns from it.
    """

    states: tuple[TensorState, ...]
    status: torch.Tensor
    passes: torch.Tensor
    residual: torch.Tensor
    entering: torch.Tensor

    @property
    def nudged(self) -> torch.Tensor:
        """(B,) bool: which were nudged at all."""
        return self.status[1] >= CONVERGED

    @property
    def learns(self) -> torch.Tensor:
        """(B,) bool: which converged in every phase."""
        return (self.status[1:] == CONVERGED).all(0)

    def contrast(self, rho: Activation, beta: float) -> Contrast:
        """What a learning rule takes; states of a hard sigmoid are their own rates."""
        rates = [tuple(s if rho.projected else rho.rate(s) for s in states) for states in self.states]
        negative, span = (rates[2], 2 * beta) if len(rates) > 2 else (rates[0], beta)
        change: Any = tuple((b - a) / span for a, b in zip(negative, rates[1], strict=True))
        free, positive, other = rates[0], rates[1], negative
        every_row: Any = torch.arange(len(self.residual), device=self.residual.device)
        return Contrast(free, positive, other, change, every_row)

    def message(self, rows: int) -> torch.Tensor:
        """All of it in one matrix of so many rows, zeros after the last sample; whole numbers stay
        exact.
        """
        columns = [s for states in self.states for s in states]
        columns += [
            *self.entering,
            *(row.to(columns[0].dtype)[:, None] for row in (*self.status, *self.passes)),
            self.residual[:, None],
        ]
        whole = torch.cat(columns, 1)
        return torch.cat([whole, whole.new_zeros((rows - len(whole), whole.shape[1]))])

    def read(self, message: torch.Tensor) -> DevicePhases:
        """The phases in a message of phases like these."""
        phases, layers = len(self.states), [s.shape[1] for s in self.states[0]]
        widths = [*layers * phases, *[self.entering.shape[2]] * 2, *[1] * (2 * phases + 1)]
        columns = [c.contiguous() for c in message.split(widths, 1)]
        states = tuple(tuple(columns[k * len(layers) : (k + 1) * len(layers)]) for k in range(phases))
        free, nudged, *numbers = columns[phases * len(layers) :]
        statistics = torch.cat(numbers[:-1], 1).T.long()
        return DevicePhases(
            states, statistics[:phases], statistics[phases:], numbers[-1][:, 0], torch.stack([free, nudged])
        )


class PhaseSolver:
    """Solves the phases of one epoch. `broken` : whether a sample was met that is not finite.

    write_back : called before samples are recovered in arrays, to update the weights there.
    """

    def __init__(
        self, device_solver: SolverOnDevice, tolerance: Tolerance, centred: bool, write_back: Callable[[], None]
    ) -> None:
        self.device_solver, self.network, self.centred = device_solver, device_solver.device_network, centred
        self.criterion, self.write_back, self.broken = device_solver.criterion(tolerance), write_back, False
        self.uses_broyden = device_solver.solver.uses_broyden(device_solver.network)

    def run(
        self, images: torch.Tensor, target: torch.Tensor, beta: float, known: tuple[torch.Tensor, torch.Tensor] | None
    ) -> DevicePhases:
        """The phases of these images (B, n_in). known : outputs and slopes for Broyden's method to
        begin with.
        """
        drive = self.network.drive(images)
        free = self._free(drive, target, known)
        self._recover(free, None, 0.0)
        nudged: list[Any] = [self._nudged(free, signed) for signed in ((beta, -beta) if self.centred else (beta,))]
        phases = (free, *nudged)
        status, counts = (torch.stack([getattr(phase, name) for phase in phases]) for name in ("status", "passes"))
        if isinstance(free, BroydenRelaxation):
            entering = torch.stack([free.u, nudged[0].u])
        else:
            entering = drive.new_zeros((2, len(drive), 0))
        return DevicePhases(tuple(phase.state for phase in phases), status, counts, free.residual, entering)

    def _free(
        self, drive: torch.Tensor, target: torch.Tensor, known: tuple[torch.Tensor, torch.Tensor] | None
    ) -> BroydenRelaxation | PassRelaxation:
        if self.uses_broyden:
            assert known is not None
            begun = BroydenRelaxation.begin(self.network, drive, target, *known)
            broyden.relax(self.network, begun, 0.0, self.criterion)
            return begun
        silence = tuple(drive.new_zeros((len(drive), n)) for n in self.network.sizes)
        found = self._by_passes(PassRelaxation.begin(self.network, drive, target, silence), 0.0, given=False)
        # a short nudged phase ends beside a free equilibrium, which is known to be stable
        found.doubts = found.doubts + (found.passes < 2)
        return found

    def _nudged(self, free: Any, beta: float) -> BroydenRelaxation | PassRelaxation:
        found: BroydenRelaxation | PassRelaxation
        if self.uses_broyden:
            found = begun = broyden.begin_nudge(self.network, free, beta, self.criterion)
            broyden.relax(self.network, begun, beta, self.criterion)
        else:
            start = PassRelaxation.begin(self.network, free.drive, free.target, free.state)
            moves = (free.status == CONVERGED) & (free.state[-1] != free.target).any(1)
            start.status = torch.where(moves, RUNNING, ABSENT)
            found = self._by_passes(start, beta, given=True)
        self._recover(found, free, beta)
        return found

    def _by_passes(self, begun: PassRelaxation, beta: float, given: bool) -> PassRelaxation:
        return passes.relax(self.network, begun, beta, self.criterion, self.device_solver.memory, given)

    def _recover(self, found: Any, free: Any, beta: float) -> None:
        """Recover, in arrays, the samples that passes did not (credibly) bring to convergence; in
        place. free : the phase that the nudge of strength beta started from, None in the free one.
        """
        doubtful = found.doubts > 0
        if not self.network.rho.projected:
            pull = None if free is None else Nudge(beta, found.target)
            doubtful |= growing_units(self.network.weights, found.state, pull, found.drive)
        unconverged = (found.status > CONVERGED) | ((found.status == CONVERGED) & doubtful)
        if not bool(unconverged.any()):
            return
        status, doubts, rows = array(found.status), array(found.doubts), np.flatnonzero(array(unconverged))
        self.broken = self.broken or bool((status == NOT_FINITE).any())
        index = tensor(rows, self.network.device)
        self.write_back()
        reached = Equilibrium(
            tuple(np.array(array(s[index])) for s in found.state),
            array(found.residual)[rows].astype(np.float64),
            status[rows].astype(np.uint8),
            array(found.passes)[rows],
        )
        nudge = None if free is None else Nudge(beta, array(found.target[index]))
        start = None if free is None else tuple(array(s[index]) for s in free.state)
        drive, network, fallback = (
            array(found.drive[index]),
            self.device_solver.network,
            self.device_solver.solver.fallback,
        )
        tolerance = self.criterion.tolerance
        recovered = recover(network, drive, start, reached, doubts[rows], nudge, tolerance, fallback)
        _put(self.network, found, index, recovered)


def _put(network: DeviceNetwork, found: Any, index: torch.Tensor, recovered: Equilibrium) -> None:
    """Put in the rows what was found for them elsewhere."""
    state = network.tensors(recovered.state)
    if isinstance(found, BroydenRelaxation):
        entering = network.entering(len(state) - 1, state[0], state)
        found.hidden = [mine.index_copy(0, index, new) for mine, new in zip(found.hidden, state[:-1], strict=True)]
        found.y, found.trial = found.y.index_copy(0, index, state[-1]), found.trial.index_copy(0, index, state[-1])
        found.u = found.u.index_copy(0, index, entering)
    else:
        found.state = tuple(mine.index_copy(0, index, new) for mine, new in zip(found.state, state, strict=True))
    for name, values in (("residual", recovered.residual), ("status", recovered.status), ("passes", recovered.steps)):
        mine = getattr(found, name)
        setattr(found, name, mine.index_copy(0, index, tensor(values, network.device, mine.dtype)))


def gathered(parts: list[DevicePhases], rows: list[int], longest: int, gather: Any) -> DevicePhases:
    """The phases of a whole batch, of which this rank computed these parts. rows : of every part of
    all ranks; longest : the most of them.
    """
    received = torch.cat(gather(torch.stack([part.message(longest) for part in parts])))
    return parts[0].read(torch.cat([part[:count] for part, count in zip(received, rows, strict=True)]))


def states_of(found: DevicePhases, phase: int, broken: Array) -> tuple[Array, ...]:
    """The states of some samples in one phase, as arrays."""
    return tuple(array(s)[broken] for s in found.states[phase])
