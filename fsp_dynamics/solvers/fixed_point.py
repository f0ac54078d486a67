"""Equilibria without a time axis: the network as a fixed-point problem in a few of its units.

Cut every cycle of the network at some layers, the cut; given the states y of the cut, all other
layers follow one after the other, and with them where the cut would rest: a pass y -> T(y). The
feedforward loop is cut at its output (n_L units), the reciprocal network at every second layer. At
(y, the layers that follow from y) the field vanishes outside the cut and is (leak + beta) (T(y) -
y) on it, so each pass tells the residual of its own state at no further cost.

===========  ==============================================================================================
method       y <-
===========  ==============================================================================================
`broyden`    the root of a model of T that each sample learns from its own passes, under the exact clip (kernels/broyden.py), all samples walked
             by a team of threads (kernels/loop_relaxation.py); for loops with a hard sigmoid,
             whose default it is
`anderson`   the mixture of the last passes with the smallest combined residual, per sample (the default of all others); reciprocal networks with a
             hard sigmoid make their passes compiled, by a team of threads
             (kernels/layer_relaxation.py)
`picard`     T(y): plain layer sweeps
`newton`     y + (I - J)^-1 (T(y) - y), J the n_L x n_L loop Jacobian with the masks of the present state
===========  ==============================================================================================

A sample that has not converged after `max_passes` is given to Newton's method (loop, hard sigmoid),
then to `fallback`, which integrates it from its start. In a loop with a hard sigmoid, an
equilibrium is doubtful that was found by Newton, or on a way on which the residual once rose, or
where the secants say that the loop amplifies a change of the outputs, or in a single pass from a
start that was given: it is accepted only if the field would hold on to it; otherwise it goes to
the fallback too. Elsewhere (smooth rho, reciprocal networks) and without such signs, stability in
time is not tested: strongly coupled networks may be said to rest where their dynamics would leave.
Integrate (`numba_ode`) where that matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.kernels.anderson import anderson
from fsp_dynamics.kernels.relax import CompilationError
from fsp_dynamics.kernels.status import OUT_OF_STEPS
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, unit_target
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance, judge, prepare
from fsp_dynamics.solvers.integration import uncompilable
from fsp_dynamics.solvers.packed_layers import relax_layers_together
from fsp_dynamics.solvers.packed_loop import PackedLoop, relax_together
from fsp_dynamics.solvers.passes import Passes
from fsp_dynamics.solvers.recovery import Outcome, check_passes

METHODS = ("anderson", "newton", "broyden", "picard")


@dataclass(frozen=True, slots=True)
class FixedPointSolver:
    """Passes around the network until each sample's field is small.

    Parameters
    ----------
    method : "broyden" or "newton" (loops with a hard sigmoid only), "anderson" or "picard"; None:
        "broyden" where it can be, else "anderson".
    max_passes : passes allowed to a sample before Newton and the fallback are asked (method
        "newton" asks after one pass).
    memory : earlier passes that method "anderson" mixes.
    fallback : the solver that integrates the samples no pass brought to convergence, from their start;
        None: they stay as they are, with status OUT_OF_STEPS.
    """

    method: str | None = None
    max_passes: int = 60
    memory: int = 5
    fallback: Solver | None = None

    def __post_init__(self) -> None:
        if self.method is not None:
            check_choice("method", self.method, METHODS)
        check_passes(self.max_passes, self.memory, self.fallback)

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
        begin = prepare(network, drive, start, nudge)
        method = self._method(network)
        tolerance = tolerance or Tolerance.default(network.dtype)
        journey = _Journey(network, drive, begin, nudge, tolerance)
        try:
            if method == "broyden":
                journey.walk_together(self.max_passes, start is not None)
            elif self.uses_picard(network):
                journey.sweep(self.max_passes, self.memory, start is not None)
            else:
                passes = Passes(network, drive, begin, nudge, norms=tolerance.relative > 0)
                memory = self.memory if method == "anderson" else 0
                journey.walk(passes, memory, 1 if method == "newton" else self.max_passes, start is not None)
        except CompilationError as error:
            raise uncompilable(network, error) from error
        return journey.finish(self.fallback)

    def uses_picard(self, network: Network) -> bool:
        """Whether it relaxes this network by compiled sweeps over its layers."""
        return self.method in (None, "anderson") and network.is_hard_sigmoid_reciprocal

    def uses_broyden(self, network: Network) -> bool:
        """Whether it relaxes this network by secants."""
        return self.method in (None, "broyden") and network.is_hard_sigmoid_loop

    def relax_known(
        self, network: Network, drive: Array, known: tuple[PackedLoop, Array | float], tolerance: Tolerance
    ) -> Equilibrium:
        """The free equilibrium by secants, of a network that is packed and whose mean loop
        Jacobian is known: (PackedLoop, (n_L, N_L)).
        """
        journey = _Journey(network, drive, prepare(network, drive, None, None), None, tolerance)
        journey.walk_together(self.max_passes, False, known)
        return journey.finish(self.fallback)

    def _method(self, network: Network) -> str:
        method = self.method or ("broyden" if network.is_hard_sigmoid_loop else "anderson")
        if method in ("newton", "broyden") and not network.is_hard_sigmoid_loop:
            raise ConfigurationError(
                f"method = {method!r} needs a loop and a hard sigmoid; use 'anderson' or 'picard' for this network"
            )
        return method


class _Journey:
    """One relaxation on its way. so_far : what became of each sample."""

    def __init__(self, network: Network, drive: Array, start: State, nudge: Nudge | None, tolerance: Tolerance) -> None:
        self.network, self.drive, self.start, self.nudge, self.tolerance = network, drive, start, nudge, tolerance
        self.so_far = Outcome(network, drive, start, nudge, tolerance)

    def walk_together(
        self, max_passes: int, given: bool, known: tuple[PackedLoop, Array | float] | None = None
    ) -> None:
        """Secants, all samples at once; of a start that was given, those converged keep it."""
        rows, so_far = np.arange(len(self.drive)), self.so_far
        if given:
            so_far.take(rows, tuple(s.astype(self.network.dtype) for s in self.start), np.ones(len(rows), bool))
            rows = np.flatnonzero(so_far.status == OUT_OF_STEPS)
        if rows.size:
            output = self._first_outputs(rows) if given else self.start[-1]
            found, doubts = relax_together(
                self.network, self.drive[rows], output, so_far.nudge_of(rows), self.tolerance, max_passes, known
            )
            for kept, new in zip(so_far.state, found.state, strict=True):
                kept[rows] = new
            so_far.residual[rows], so_far.status[rows], so_far.steps[rows] = (
                found.residual,
                found.status,
                found.steps + given,
            )
            # Outputs that follow from the layer below the start may be a rest by chance, and a
            # single pass has learned nothing of the loop.
            so_far.doubts[rows] = doubts + (given & (found.steps == 1))

    def sweep(self, max_passes: int, memory: int, given: bool) -> None:
        """Compiled passes of a reciprocal network, all samples at once."""
        found = relax_layers_together(
            self.network, self.drive, self.start, given, self.nudge, self.tolerance, max_passes, memory
        )
        self.so_far.reached(found, self.so_far.doubts)

    def _first_outputs(self, rows: Array) -> Array:
        """(A, n_L) where the outputs would rest while the layer below them stays as it was given."""
        network, nudge = self.network, self.so_far.nudge_of(rows)
        a = network.rho.rate(self.start[-2][rows]) @ network.forward[-1] + network.biases[-1]
        beta, d = (0.0, 0.0) if nudge is None else (nudge.beta, nudge.target)
        rest: Array = network.rho.rate(unit_target(a, 1 / network.time_constants[-1], beta, d))
        return rest

    def walk(self, passes: Passes, memory: int, max_passes: int, given: bool) -> None:
        """Pass after pass; a sample leaves as soon as it has converged or no longer finite. Of a
        start that was given, those converged keep it.
        """
        batch, width = len(self.drive), passes.y.shape[1]
        history = np.empty((2, batch, max(memory, 1), width), self.network.dtype)
        sizes, count = np.full(batch, np.inf), np.zeros(batch, np.int64)
        floor, ceiling = (0.0, 1.0) if self.network.rho.projected else (-np.inf, np.inf)
        for k in range(0 if given else 1, max_passes + 1):
            if passes.rows.size == 0:
                return
            target, size, norm = passes.run(given=k == 0)
            status = judge(size, norm, self.tolerance)
            leaving = (status != OUT_OF_STEPS) | (k == max_passes)
            self._arrive(passes, status, leaving, size, 0 if k == 0 else k + int(given))
            if memory:
                anderson(
                    passes.rows,
                    passes.y,
                    target[~leaving],
                    history[0],
                    history[1],
                    sizes,
                    count,
                    self.so_far.doubts,
                    floor,
                    ceiling,
                )
            else:
                passes.y[:] = target[~leaving]

    def finish(self, fallback: Solver | None) -> Equilibrium:
        """Newton's method, then the fallback, for those that are not (credibly) converged."""
        return self.so_far.finish(fallback)

    def _arrive(self, passes: Passes, status: Array, leaving: Array, size: Array, steps: int) -> None:
        """Keep the results of the rows that are leaving and go on with the others."""
        if not leaving.any():
            return
        rows, so_far = passes.rows[leaving], self.so_far
        for kept, present in zip(so_far.state, passes.state(), strict=True):
            kept[rows] = present[leaving]
        so_far.residual[rows], so_far.status[rows], so_far.steps[rows] = size[leaving], status[leaving], steps
        passes.keep(~leaving)
