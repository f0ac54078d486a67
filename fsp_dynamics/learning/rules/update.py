"""From the phases of a batch to an update, whatever the rule."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_finite, check_shape
from fsp_dynamics.kernels.products import add_product
from fsp_dynamics.learning.phases import Phases
from fsp_dynamics.learning.rules import Contrast, Rule, Term, checked_terms
from fsp_dynamics.models.network import Array, Network, Weights
from fsp_dynamics.models.rate import checked_images
from fsp_dynamics.solvers.equilibrium import Equilibrium

NOISE = 0.3  # of the outputs' move: residuals above which an update is called noisy


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Update(Weights):
    """A weight change: the fields of `Network`'s weights, learning rate not included. It is not a
    gradient.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> free = fsp.relax(network, images)
    >>> nudged = fsp.relax(network, images, nudge=fsp.Nudge(1.0, np.eye(3)[[0, 1]]), start=free)
    >>> update = fsp.hebbian_update(network, images, free, nudged)
    >>> {name: change.shape for name, change in update.parameters().items()}
    {'input': (4, 8), 'forward[0]': (8, 3), 'loop': (3, 8), 'biases[0]': (8,), 'biases[1]': (3,)}
    """


def contrast(network: Network, phases: Phases) -> Contrast:
    """The rates of the samples that converged in every phase, and their change per unit beta."""
    rho = network.rho.rate
    kept = phases.converged
    rows = phases.rows[kept]
    free = tuple(rho(s[rows]) for s in phases.free.state)
    positive = tuple(rho(s[kept]) for s in phases.nudged.state)
    negative, span = free, phases.beta
    if phases.opposite is not None:
        negative, span = tuple(rho(s[kept]) for s in phases.opposite.state), 2 * phases.beta
    change = tuple((b - a) / span for a, b in zip(negative, positive, strict=True))
    return Contrast(free, positive, negative, change, rows)


def accumulate(into: Array, term: Term, scale: float) -> None:
    """into += scale * pre.T @ post, in place (a bias: the column sums of post)."""
    if term.pre is None:
        into += np.asarray(scale, into.dtype) * term.post.sum(0)
    elif term.transposed:
        add_product(into, term.post.T, term.pre, alpha=scale)
    else:
        add_product(into, term.pre.T, term.post, alpha=scale)


def assemble(rule: Rule, network: Network, images: Array, seen: Contrast, batch: int) -> dict[str, Array]:
    """1/batch sum over the samples of `seen`, for every matrix and bias by name.

    images (A, n_in) of these samples; the result has the network's dtype.
    """
    sums = {name: np.zeros_like(w) for name, w in network.parameters().items()}
    for term in checked_terms(rule, network, images.astype(network.dtype, copy=False), seen):
        accumulate(sums[term.parameter], term, 1 / batch)
    return sums


def update(rule: Rule, network: Network, images: Array, phases: Phases) -> Update:
    """The update of one batch of B samples; those that did not converge contribute nothing.

    images (B, n_in). Returns the mean over all B, learning rate not included.
    """
    check_shape("images", images, (len(phases.free.status), network.sizes[0]))
    check_finite("images", images)
    seen = contrast(network, phases)
    return Update.of(network, assemble(rule, network, images[seen.rows], seen, len(images)))


def _warn_of_noise(beta: float, free: Equilibrium, nudged: Equilibrium) -> None:
    """Warn where the outputs moved little beside the residuals, which are divided by beta too."""
    moved = np.linalg.norm(nudged.output.astype(np.float64) - free.output, axis=1).sum()
    noise = float(free.residual.sum() + nudged.residual.sum())
    # no move at all is that of outputs on their targets, unless beta is what it drowns
    if noise > NOISE * (moved if moved > 0 else abs(beta) * len(free.status)):
        warnings.warn(
            f"beta = {beta:g} moved the outputs by {moved / len(free.status):.2g} in the mean, and residuals are "
            f"{noise / len(free.status):.2g}: much of the update is relaxation error; raise beta, or relax both phases "
            "with a lower tolerance",
            RuntimeWarning,
            stacklevel=4,
        )


def rule_update(
    rule: Rule,
    network: Network,
    images: Array,
    free: Equilibrium,
    nudged: Equilibrium,
    *,
    opposite: Equilibrium | None = None,
    beta: float | None = None,
) -> Update:
    """The update of a rule from equilibria of the whole batch. The nudged ones must have been
    reached as the rule nudges (`Rule.relax_nudged`).

    Takes and raises what `rules.hebbian.hebbian_update` does; ConfigurationError also for a network
    that the rule cannot train.

    Returns
    -------
    Update : the mean over the batch, in the shapes of the network's weights.

    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.rules import make_rule
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> free = fsp.relax(network, images)
    >>> nudged = fsp.relax(network, images, nudge=fsp.Nudge(1.0, np.eye(3)[[0, 1]]), start=free)
    >>> rule_update(make_rule("mean_subtracted"), network, images, free, nudged).loop.shape
    (3, 8)
    """
    rule.check(network)
    images = checked_images(network, images)
    for name, phase in (("free", free), ("nudged", nudged), ("opposite", opposite)):
        if not isinstance(phase, Equilibrium) and not (phase is None and name == "opposite"):
            raise ConfigurationError(f"{name} is of type {type(phase).__name__}, expected an Equilibrium; relax it")
    beta = nudged.beta if beta is None else beta
    if not np.isfinite(beta) or beta == 0:
        raise ConfigurationError(
            f"beta = {beta:g}, expected the strength of the nudged phase; relax with nudge=Nudge(beta, target)"
        )
    if free.beta != 0:
        raise ConfigurationError(f"the free phase was relaxed under beta = {free.beta:g}, expected no nudge")
    if opposite is not None and opposite.beta != -beta:
        raise ConfigurationError(f"the opposite phase was relaxed under beta = {opposite.beta:g}, expected {-beta:g}")
    for name, phase in (("free", free), ("nudged", nudged), ("opposite", opposite)):
        if phase is not None:
            check_shape(f"{name} output", phase.output, (len(images), network.sizes[-1]))
            phase.require_converged()
    _warn_of_noise(beta, free, nudged)
    return update(rule, network, images, Phases(beta, free, np.arange(len(free.status)), nudged, opposite))
