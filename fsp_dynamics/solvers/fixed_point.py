"""Equilibria without a time axis: the network as a fixed-point problem in a few of its units.

Cut every cycle of the network at some layers, the cut; given the states y of the cut, all other
layers follow one after the other, and with them the fixed point of the cut: a pass y -> T(y). The
feedforward loop is cut at its output (n_L units), the reciprocal network at every second layer. At
(y, the layers that follow from y) the field vanishes outside the cut and is (leak + beta) (T(y) -
y) on it, so each pass yields the residual of its own state at no further cost.

===========  ====================================================================
method       y <-
===========  ====================================================================
`broyden`    the root of a model of T that each sample fits to its own passes,
             under the exact clip (kernels/broyden.py, kernels/loop_relaxation.py);
             for loops with a hard sigmoid, and their default
`anderson`   the mixture of the last passes with the smallest combined residual,
             per sample; the default of all others (reciprocal networks with a
             hard sigmoid: compiled, kernels/layer_relaxation.py)
`picard`     T(y): plain Picard iteration
`newton`     y + (I - J)^-1 (T(y) - y), J the n_L x n_L loop Jacobian with the
             masks of the present state
===========  ====================================================================

A sample that has not converged after `max_passes` is recovered (solvers/recovery.py): by Newton's
method (loop, hard sigmoid), then by `fallback`, which integrates it from its start. Passes can also
converge at an equilibrium that the dynamics would leave. It is accepted without a test of its
stability (solvers/stability.py) only where nothing raises a doubt. A doubt is raised by

- a pass that carried a change of y on undiminished (kernels/anderson.GROWTH); with `broyden`, a
  residual that rose, or a model that has the loop amplify a change of the outputs,
- less than two passes, which say nothing about the network's answer to a change,
- Newton's method, which is drawn to unstable equilibria as to stable ones,
- a smooth unit that amplifies its own deviation (decay below 0).

An equilibrium that is not stable goes to the fallback as well. Where a bound proves that every
equilibrium is stable, nothing is tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.kernels.anderson import GROWTH, anderson
from fsp_dynamics.kernels.heed import heed
from fsp_dynamics.kernels.relax import CompilationError
from fsp_dynamics.kernels.status import OUT_OF_STEPS
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, unit_target
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance, judge, prepare
from fsp_dynamics.solvers.integration import uncompilable
from fsp_dynamics.solvers.packed_layers import relax_layers_together
from fsp_dynamics.solvers.packed_loop import PackedLoop, relax_together
from fsp_dynamics.solvers.passes import CutPasses
from fsp_dynamics.solvers.recovery import Recovery, check_passes

METHODS = ("anderson", "newton", "broyden", "picard")


@dataclass(frozen=True, slots=True)
class FixedPointSolver:
    """Passes around the network until each sample's field is small.

    Parameters
    ----------
    method : "broyden" or "newton" (loops with a hard sigmoid only), "anderson" or "picard"; None:
        "broyden" where it can be, else "anderson".
    max_passes : passes of a sample before recovery (method "newton": one pass).
    memory : earlier passes that method "anderson" mixes.
    fallback : the solver that integrates, from their start, the samples that no pass brought to
        convergence; None: they stay as they are, with status OUT_OF_STEPS.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> solver = FixedPointSolver(max_passes=100)
    >>> fsp.relax(network, images, solver=solver).converged.tolist()
    [True, True]
    >>> solver.uses_broyden(network), solver.uses_compiled_layers(network)
    (True, False)
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

        Returns
        -------
        Equilibrium : of all B samples.
        """
        begin = prepare(network, drive, start, nudge)
        method = self._method(network)
        tolerance = tolerance or Tolerance.default(network.dtype)
        relaxation = _Relaxation(network, drive, begin, nudge, tolerance)
        try:
            if method == "broyden":
                relaxation.iterate_broyden(self.max_passes, start is not None)
            elif self.uses_compiled_layers(network):
                relaxation.iterate_layers(self.max_passes, self.memory, start is not None)
            else:
                passes = CutPasses(network, drive, begin, nudge, norms=tolerance.relative > 0)
                memory = self.memory if method == "anderson" else 0
                relaxation.iterate(passes, memory, 1 if method == "newton" else self.max_passes, start is not None)
                relaxation.recovery.doubts += relaxation.recovery.steps < 2 + (start is not None)
        except CompilationError as error:
            raise uncompilable(network, error) from error
        return relaxation.recovery.finish(self.fallback)

    def uses_compiled_layers(self, network: Network) -> bool:
        """Whether it relaxes this network by the passes of kernels/layer_relaxation.py.

        Returns
        -------
        bool : for reciprocal networks with a hard sigmoid.
        """
        return self.method in (None, "anderson") and network.is_hard_sigmoid_reciprocal

    def uses_broyden(self, network: Network) -> bool:
        """Whether it relaxes this network by Broyden's method.

        Returns
        -------
        bool : for loops with a hard sigmoid.
        """
        return self.method in (None, "broyden") and network.is_hard_sigmoid_loop

    def relax_known(
        self, network: Network, drive: Array, known: tuple[PackedLoop, Array | float], tolerance: Tolerance
    ) -> Equilibrium:
        """The free equilibrium by Broyden's method, of a network that is packed and whose mean loop
        Jacobian is known: (PackedLoop, (n_L, N_L)).

        Returns
        -------
        Equilibrium : of all B samples.
        """
        relaxation = _Relaxation(network, drive, prepare(network, drive, None, None), None, tolerance)
        relaxation.iterate_broyden(self.max_passes, False, known)
        return relaxation.recovery.finish(self.fallback)

    def _method(self, network: Network) -> str:
        method = self.method or ("broyden" if network.is_hard_sigmoid_loop else "anderson")
        if method in ("newton", "broyden") and not network.is_hard_sigmoid_loop:
            raise ConfigurationError(
                f"method = {method!r} needs a loop and a hard sigmoid; use 'anderson' or 'picard' for this network"
            )
        return method


class _Relaxation:
    """One relaxation by passes; its results so far are in `recovery`."""

    def __init__(self, network: Network, drive: Array, start: State, nudge: Nudge | None, tolerance: Tolerance) -> None:
        self.network, self.drive, self.start, self.nudge, self.tolerance = network, drive, start, nudge, tolerance
        self.recovery = Recovery(network, drive, start, nudge, tolerance)

    def iterate_broyden(
        self, max_passes: int, given: bool, known: tuple[PackedLoop, Array | float] | None = None
    ) -> None:
        """Broyden's method, all samples at once; those that have converged at a given start keep
        it.
        """
        rows, reached = np.arange(len(self.drive)), self.recovery
        if given:
            reached.accept(rows, tuple(s.astype(self.network.dtype) for s in self.start), np.ones(len(rows), bool))
            rows = np.flatnonzero(reached.status == OUT_OF_STEPS)
        if rows.size:
            output = self._first_outputs(rows) if given else self.start[-1]
            found, doubts = relax_together(
                self.network, self.drive[rows], output, reached.nudge_of(rows), self.tolerance, max_passes, known
            )
            for kept, new in zip(reached.state, found.state, strict=True):
                kept[rows] = new
            reached.residual[rows], reached.status[rows] = found.residual, found.status
            reached.steps[rows] = found.steps + given
            # Outputs that follow from the layer below the start may be an equilibrium by chance,
            # and a single pass contains no information on the loop.
            reached.doubts[rows] = doubts + (given & (found.steps == 1))
        if given:
            reached.doubts[reached.steps == 0] = 1

    def iterate_layers(self, max_passes: int, memory: int, given: bool) -> None:
        """Compiled passes of a reciprocal network, all samples at once."""
        found, doubts = relax_layers_together(
            self.network, self.drive, self.start, given, self.nudge, self.tolerance, max_passes, memory
        )
        self.recovery.set_reached(found, doubts)

    def _first_outputs(self, rows: Array) -> Array:
        """(A, n_L) the fixed points of the outputs with the given layer below them."""
        network, nudge = self.network, self.recovery.nudge_of(rows)
        a = network.rho.rate(self.start[-2][rows]) @ network.forward[-1] + network.biases[-1]
        beta, d = (0.0, 0.0) if nudge is None else (nudge.beta, nudge.target)
        outputs: Array = network.rho.rate(unit_target(a, 1 / network.time_constants[-1], beta, d))
        return outputs

    def iterate(self, passes: CutPasses, memory: int, max_passes: int, given: bool) -> None:
        """Pass after pass of each sample until it has converged or is not finite; those that have
        converged at a given start keep it.
        """
        batch, width = len(self.drive), passes.y.shape[1]
        history = np.empty((2, batch, max(memory, 1), width), self.network.dtype)
        sizes, count = np.full(batch, np.inf), np.zeros(batch, np.int64)
        floor, ceiling = (0.0, 1.0) if self.network.rho.projected else (-np.inf, np.inf)
        for k in range(0 if given else 1, max_passes + 1):
            if passes.rows.size == 0:
                return
            heed()
            target, size, norm = passes.run(given=k == 0)
            status = judge(size, norm, self.tolerance)
            leaving = (status != OUT_OF_STEPS) | (k == max_passes)
            self._store(passes, status, leaving, size, 0 if k == 0 else k + int(given))
            if memory:
                ys, fs = history
                # a start as it was given is no pass
                doubts = np.zeros_like(self.recovery.doubts) if given and k == 1 else self.recovery.doubts
                anderson(passes.rows, passes.y, target[~leaving], ys, fs, sizes, count, doubts, floor, ceiling)
            else:
                # a plain pass moves y by the last residual, and this residual is what it carried on
                rows = passes.rows
                self.recovery.doubts[rows] += size[~leaving] >= GROWTH * sizes[rows]
                sizes[rows] = size[~leaving]
                passes.y[:] = target[~leaving]

    def _store(self, passes: CutPasses, status: Array, leaving: Array, size: Array, steps: int) -> None:
        """Store the results of the rows that are `leaving` and keep the others."""
        if not leaving.any():
            return
        rows, reached = passes.rows[leaving], self.recovery
        for kept, present in zip(reached.state, passes.state(), strict=True):
            kept[rows] = present[leaving]
        reached.residual[rows], reached.status[rows], reached.steps[rows] = size[leaving], status[leaving], steps
        passes.keep(~leaving)
