"""The free phase and the nudged phase, and which samples have anything to learn from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.errors import ConfigurationError, NotFiniteError, check_finite
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Status, Tolerance
from fsp_dynamics.solvers.response import adjoint, gains

KINDS = ("centred", "one-sided", "random-sign")
RULES = ("exact", "hebbian")


@dataclass(frozen=True, slots=True, eq=False)
class Phases:
    """Two equilibria of one batch, or three.

    beta : the nudge's strength and sign.
    free : the free equilibrium of all B samples.
    rows : (A,) the samples that were nudged: at rest in the free phase, with an output that differs from the target.
        Where the two are equal to the bit (a saturated, correct output) nudging moves nothing and the update is exactly 0.
    nudged : their equilibrium under +beta.
    opposite : their equilibrium under -beta, in the centred kind; else None.
    change : what the exact rule learns from in place of the rates' change per unit beta, (A, n_k) each; else None.
    """

    beta: float
    free: Equilibrium
    rows: Array
    nudged: Equilibrium
    opposite: Equilibrium | None = None
    change: State | None = None

    @property
    def at_rest(self) -> Array:
        """(A,) bool: which of `rows` came to rest in every phase; the others are never learned from."""
        return self.nudged.at_rest if self.opposite is None else self.nudged.at_rest & self.opposite.at_rest

    @property
    def unrested(self) -> int:
        """How many of the B samples did not come to rest in one phase or another."""
        return int((~self.free.at_rest).sum() + (~self.at_rest).sum())


def free(network: Network, drive: Array, solver: Solver, tolerance: Tolerance | None = None, start: State | None = None) -> Equilibrium:
    """The free equilibrium: no nudge, from `start` or from silence."""
    return solver.relax(network, drive, start, None, tolerance)


def nudged(
    network: Network, drive: Array, rest: Equilibrium, target: Array, beta: float, solver: Solver, tolerance: Tolerance | None = None
) -> Equilibrium:
    """The equilibrium under Nudge(beta, target), reached from the free one."""
    return solver.relax(network, drive, rest.state, Nudge(beta, target), tolerance)


def refuse_broken(phase: str, batch: int, images: Array, state: State) -> None:
    """Say of a batch with a state that is not finite in which layer that begins, and whether its images are why. Raises NotFiniteError.

    images (B, n_in) of the batch; state : layers (A, n_k) of its samples, or of those that broke.
    """
    check_finite(f"images of batch {batch}", images)
    bad = [k for k, s in enumerate(state) if not np.isfinite(s).all()] or [len(state) - 1]
    raise NotFiniteError(f"the {phase} phase of batch {batch} is not finite from layer {bad[0] + 1} on; lower the learning rates")


def signed(beta: float, kind: str, batches: int, rng: np.random.Generator) -> Array:
    """The beta of each batch (batches,): of random sign, drawn from `rng`, in that kind; else as it is."""
    if kind != "random-sign":
        return np.full(batches, beta)
    return np.where(rng.random(batches) < 0.5, beta, -beta)


def run(
    network: Network,
    drive: Array,
    target: Array,
    beta: float,
    solver: Solver,
    *,
    kind: str = "one-sided",
    tolerance: Tolerance | None = None,
    rng: np.random.Generator | None = None,
) -> Phases:
    """Both phases of one batch.

    Parameters
    ----------
    drive : (B, n_1). target : (B, n_L) target firing rates.
    kind : "one-sided" (+beta, the paper), "random-sign" (one sign for the batch, drawn from `rng`; the original equilibrium
        propagation) or "centred" (+beta and -beta, error O(beta^2)).

    Raises ConfigurationError for a beta that removes the output's leak (beta <= -1/r_L in either sign that is used).
    """
    rest = free(network, drive, solver, tolerance)
    if kind == "random-sign":
        if rng is None:
            raise ConfigurationError("kind = 'random-sign' draws the sign of beta and needs an rng")
        beta = beta if rng.random() < 0.5 else -beta
    rows, start = _with_an_error(rest, target)
    pulled = nudged(network, drive[rows], start, target[rows], beta, solver, tolerance)
    pushed = nudged(network, drive[rows], start, target[rows], -beta, solver, tolerance) if kind == "centred" else None
    return Phases(beta, rest, rows, pulled, pushed)


def run_exact(network: Network, drive: Array, target: Array, solver: Solver, *, tolerance: Tolerance | None = None) -> Phases:
    """The free phase, and the exact-gradient nudged phase in the limit of beta -> 0 (model fact 11).

    With (J^T - J)(s - s^0) added to the nudged field, J the field's Jacobian at s^0, the rates move by the adjoint instead of the response
    (solvers/response.py): eq. 14 is then -dC/dW of C = 1/2 ||s_L - d||^2, exactly. An oracle and a yardstick; nothing a neuron could compute.
    A sample whose linearised field is singular counts as not at rest.
    """
    rest = free(network, drive, solver, tolerance)
    rows, start = _with_an_error(rest, target)
    found = gains(network, start.state, None, drive[rows])
    change = tuple(v.astype(network.dtype) for v in adjoint(network, found, (target[rows] - start.output).astype(np.float64)))
    status = np.where(np.isfinite(change[-1]).all(1), start.status, Status.OUT_OF_STEPS).astype(np.uint8)
    still = Equilibrium(start.state, start.residual, status, np.zeros_like(start.steps))
    return Phases(1.0, rest, rows, still, change=change)


def _with_an_error(rest: Equilibrium, target: Array) -> tuple[Array, Equilibrium]:
    """(rows, their equilibria) of the samples at rest whose output is not the target already."""
    rows = np.flatnonzero(rest.at_rest & (rest.output != target).any(1))
    return rows, Equilibrium(tuple(s[rows] for s in rest.state), rest.residual[rows], rest.status[rows], rest.steps[rows])
