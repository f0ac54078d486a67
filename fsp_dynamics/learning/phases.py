"""The free phase and the nudged phase, and which samples have anything to learn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance

if TYPE_CHECKING:
    from fsp_dynamics.learning.rules import Rule

KINDS = ("centred", "one-sided", "random-sign")
NAMES = ("free", "nudged", "opposite")


@dataclass(frozen=True, slots=True, eq=False)
class Phases:
    """Two equilibria of one batch, or three.

    beta : the nudge's strength and sign.
    free : the free equilibrium of all B samples.
    rows : (A,) the samples that were nudged: converged in the free phase, with an output that
        differs from the target. Where the two are equal to the bit (a saturated, correct output)
        nudging moves nothing and the update is exactly 0.
    nudged : their equilibrium under +beta.
    opposite : their equilibrium under -beta, in the centred kind; else None.

    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning import phases
    >>> from fsp_dynamics.models.rate import drive
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> constant, target = drive(network, images), np.eye(3)[[0, 1]]
    >>> found = phases.run(network, constant, target, 1.0, fsp.make_solver())
    >>> found.rows.tolist(), found.converged.tolist(), found.unconverged, found.opposite
    ([0, 1], [True, True], 0, None)
    """

    beta: float
    free: Equilibrium
    rows: Array
    nudged: Equilibrium
    opposite: Equilibrium | None = None

    def __repr__(self) -> str:
        kind = "free and nudged" if self.opposite is None else "free and nudged with both signs"
        return (
            f"<Phases of {len(self.free.status)} samples, {kind}, beta {self.beta:g}: "
            f"{len(self.rows)} nudged, {int(self.converged.sum())} of them converged>"
        )

    @property
    def converged(self) -> Array:
        """(A,) bool: which of `rows` converged in every phase; the others are never learned
        from.
        """
        return self.nudged.converged if self.opposite is None else self.nudged.converged & self.opposite.converged

    @property
    def unconverged(self) -> int:
        """How many of the B samples did not converge in one phase or another."""
        return int((~self.free.converged).sum() + (~self.converged).sum())


def free(
    network: Network, drive: Array, solver: Solver, tolerance: Tolerance | None = None, start: State | None = None
) -> Equilibrium:
    """The free equilibrium: no nudge, from `start` or from silence."""
    return solver.relax(network, drive, start, None, tolerance)


def nudged(
    network: Network,
    drive: Array,
    free: Equilibrium,
    target: Array,
    beta: float,
    solver: Solver,
    tolerance: Tolerance | None = None,
    rule: Rule | None = None,
) -> Equilibrium:
    """The equilibrium under Nudge(beta, target), reached from the free one, as `rule` nudges; None:
    through the field.
    """
    nudge = Nudge(beta, target)
    if rule is not None:
        return rule.relax_nudged(network, drive, free, nudge, solver, tolerance)
    return solver.relax(network, drive, free.state, nudge, tolerance)


def signed_betas(beta: float, kind: str, batches: int, rng: np.random.Generator) -> Array:
    """The beta of each batch (batches,): of random sign, drawn from `rng`, in that kind; else as
    it is.
    """
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
    rule: Rule | None = None,
    tolerance: Tolerance | None = None,
    rng: np.random.Generator | None = None,
) -> Phases:
    """Both phases of one batch.

    Parameters
    ----------
    drive : (B, n_1). target : (B, n_L) target firing rates.
    kind : "one-sided" (+beta, the paper), "random-sign" (one sign for the batch, drawn from `rng`;
        the original equilibrium propagation) or "centred" (+beta and -beta, error O(beta^2)).
    rule : how to nudge (`rules.Rule.relax_nudged`); None: through the field, as for eq. 14.

    Raises ConfigurationError for a beta that removes the output's leak (beta <= -1/r_L in either
    sign that is used).

    Returns
    -------
    Phases : free of all B samples, nudged (and opposite, where centred) of the A that were nudged.

    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.models.rate import drive
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> constant, target = drive(network, images), np.eye(3)[[0, 1]]
    >>> run(network, constant, target, 0.5, fsp.make_solver(), kind="centred")
    <Phases of 2 samples, free and nudged with both signs, beta 0.5: 2 nudged, 2 of them converged>
    """
    free_phase = free(network, drive, solver, tolerance)
    if kind == "random-sign":
        if rng is None:
            raise ConfigurationError("kind = 'random-sign' draws the sign of beta and needs an rng")
        beta = beta if rng.random() < 0.5 else -beta
    rows = np.flatnonzero(free_phase.converged & (free_phase.output != target).any(1))
    start = free_phase.rows(rows)
    positive = nudged(network, drive[rows], start, target[rows], beta, solver, tolerance, rule)
    negative = (
        nudged(network, drive[rows], start, target[rows], -beta, solver, tolerance, rule) if kind == "centred" else None
    )
    return Phases(beta, free_phase, rows, positive, negative)
