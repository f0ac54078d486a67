"""Both phases of a batch on tensors (`learning.phases.run`, kernels/loop_phases.py), part by part
where ranks share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fsp_dynamics.kernels.loop_relaxation import ABSENT, CONVERGED, NOT_FINITE, RUNNING
from fsp_dynamics.learning.rules import Contrast
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.network import Array
from fsp_dynamics.models.rate import Nudge
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance
from fsp_dynamics.solvers.packed_loop import is_packable
from fsp_dynamics.solvers.recovery import recover
from fsp_dynamics.torch_backend import broyden as torch_loop
from fsp_dynamics.torch_backend import passes as torch_passes
from fsp_dynamics.torch_backend.broyden import Walk
from fsp_dynamics.torch_backend.fixed_point import OnDevice
from fsp_dynamics.torch_backend.passes import Pass
from fsp_dynamics.torch_backend.tensors import array, tensor

States = tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The phases of B samples, tensors.

    states : of each phase, the free one first, all layers (B, n_k). status (phases, B) : in the
        words of kernels/loop_relaxation.py. passes (phases, B).
    residual (B,) of the free phase. entering (2, B, n_L) : what enters the outputs, free and
    nudged; of no size where no secants learn from it.
    """

    states: tuple[States, ...]
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
        """(B,) bool: which had converged in every phase."""
        return (self.status[1:] == CONVERGED).all(0)

    def contrast(self, rho: Activation, beta: float) -> Contrast:
        """What a rule is given, of all samples; states of a hard sigmoid are their own rates."""
        rates = [tuple(s if rho.projected else rho.rate(s) for s in states) for states in self.states]
        negative, span = (rates[2], 2 * beta) if len(rates) > 2 else (rates[0], beta)
        change: Any = tuple((b - a) / span for a, b in zip(negative, rates[1], strict=True))
        free, positive, other = rates[0], rates[1], negative
        everyone: Any = torch.arange(len(self.residual), device=self.residual.device)
        return Contrast(free, positive, other, change, everyone)

    def message(self, rows: int) -> torch.Tensor:
        """All of it in one matrix of so many rows, the last of them empty; whole numbers stay
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

    def read(self, message: torch.Tensor) -> Found:
        """The phases in a message of phases like these."""
        phases, layers = len(self.states), [s.shape[1] for s in self.states[0]]
        widths = [*layers * phases, *[self.entering.shape[2]] * 2, *[1] * (2 * phases + 1)]
        columns = [c.contiguous() for c in message.split(widths, 1)]
        states = tuple(tuple(columns[k * len(layers) : (k + 1) * len(layers)]) for k in range(phases))
        free, nudged, *numbers = columns[phases * len(layers) :]
        statistics = torch.cat(numbers[:-1], 1).T.long()
        return Found(states, statistics[:phases], statistics[phases:], numbers[-1][:, 0], torch.stack([free, nudged]))


class Phases:
    """What runs the phases of one epoch. `broken` : whether a sample was met that is not finite."""

    def __init__(self, ready: OnDevice, tolerance: Tolerance, centred: bool, write_back: Any) -> None:
        self.ready, self.held, self.rule, self.centred = ready, ready.held, ready.rule(tolerance), centred
        self.secants, self.write_back, self.broken = ready.solver.uses_broyden(ready.network), write_back, False
        self.doubted = is_packable(
            ready.network
        )  # of others nobody can say whether a rest is stable (solvers/recovery.py)

    def run(
        self, images: torch.Tensor, target: torch.Tensor, beta: float, known: tuple[torch.Tensor, torch.Tensor] | None
    ) -> Found:
        """The phases of these images (B, n_in). known : outputs and slopes to begin the secants
        with.
        """
        drive = self.held.drive(images)
        rest = self._free(drive, target, known)
        self._recover(rest, None, 0.0)
        positive: list[Any] = [self._nudged(rest, signed) for signed in ((beta, -beta) if self.centred else (beta,))]
        all_phases = (rest, *positive)
        status, passes = (torch.stack([getattr(phase, name) for phase in all_phases]) for name in ("status", "passes"))
        entering = (
            torch.stack([rest.u, positive[0].u]) if isinstance(rest, Walk) else drive.new_zeros((2, len(drive), 0))
        )
        return Found(tuple(phase.state for phase in all_phases), status, passes, rest.residual, entering)

    def _free(
        self, drive: torch.Tensor, target: torch.Tensor, known: tuple[torch.Tensor, torch.Tensor] | None
    ) -> Walk | Pass:
        if self.secants:
            assert known is not None
            walk = Walk.begin(self.held, drive, target, *known)
            torch_loop.come_to_rest(self.held, walk, 0.0, self.rule)
            return walk
        silence = tuple(drive.new_zeros((len(drive), n)) for n in self.held.sizes)
        begin = torch_passes.begin(self.held, drive, target, silence, self.ready.memory)
        return torch_passes.walk(self.held, begin, 0.0, self.rule, self.ready.memory, given=False)

    def _nudged(self, rest: Any, beta: float) -> Walk | Pass:
        found: Walk | Pass
        if self.secants:
            found = walk = torch_loop.begin_nudge(self.held, rest, beta, self.rule)
            torch_loop.come_to_rest(self.held, walk, beta, self.rule)
        else:
            begin = torch_passes.begin(self.held, rest.drive, rest.target, rest.state, self.ready.memory)
            goes = (rest.status == CONVERGED) & (rest.state[-1] != rest.target).any(1)
            begin.status = torch.where(goes, RUNNING, ABSENT)
            found = torch_passes.walk(self.held, begin, beta, self.rule, self.ready.memory, given=True)
        self._recover(found, rest, beta)
        return found

    def _recover(self, found: Any, rest: Any, beta: float) -> None:
        """Samples that passes did not (credibly) bring to convergence are given to the solver's other
        ways, in arrays.
        """
        restless = found.status > CONVERGED
        if self.doubted:
            restless |= (found.status == CONVERGED) & (found.doubts > 0)
        if not bool(restless.any()):
            return
        status, doubts, rows = array(found.status), array(found.doubts), np.flatnonzero(array(restless))
        self.broken = self.broken or bool((status == NOT_FINITE).any())
        index = tensor(rows, self.held.device)
        self.write_back()
        of = [np.array(array(s[index])) for s in found.state]
        reached = Equilibrium(
            tuple(of),
            array(found.residual)[rows].astype(np.float64),
            status[rows].astype(np.uint8),
            array(found.passes)[rows],
        )
        nudge = None if rest is None else Nudge(beta, array(found.target[index]))
        start = None if rest is None else tuple(array(s[index]) for s in rest.state)
        drive, network = array(found.drive[index]), self.ready.network
        recovered = recover(
            network, drive, start, reached, doubts[rows], nudge, self.rule.tolerance, self.ready.solver.fallback
        )
        _place(found, index, recovered, self.ready)


def _place(found: Any, index: torch.Tensor, recovered: Equilibrium, ready: OnDevice) -> None:
    """Put in the rows what was found for them elsewhere."""
    held, state = ready.held, ready.held.tensors(recovered.state)
    if isinstance(found, Walk):
        last, below = len(held.sizes) - 1, state[-2]
        found.hidden = [mine.index_copy(0, index, new) for mine, new in zip(found.hidden, state[:-1], strict=True)]
        found.y, found.trial = found.y.index_copy(0, index, state[-1]), found.trial.index_copy(0, index, state[-1])
        found.u = found.u.index_copy(0, index, held.add(held.network.biases[last], below, held.incoming[last][0]))
    else:
        found.state = tuple(mine.index_copy(0, index, new) for mine, new in zip(found.state, state, strict=True))
    for name, values in (("residual", recovered.residual), ("status", recovered.status), ("passes", recovered.steps)):
        mine = getattr(found, name)
        setattr(found, name, mine.index_copy(0, index, tensor(values, held.device, mine.dtype)))


def gathered(parts: list[Found], rows: list[int], longest: int, gather: Any) -> Found:
    """The phases of a whole batch of which this rank made these parts. rows : of every part of all
    ranks; longest : the most of them.
    """
    told = torch.cat(gather(torch.stack([part.message(longest) for part in parts])))
    return parts[0].read(torch.cat([part[:count] for part, count in zip(told, rows, strict=True)]))


def states_of(found: Found, phase: int, broken: Array) -> tuple[Array, ...]:
    """The states of some samples in one phase, as arrays."""
    return tuple(array(s)[broken] for s in found.states[phase])
