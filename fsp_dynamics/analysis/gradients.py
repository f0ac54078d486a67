"""The deviation of the learning rule from the gradient, and its sources.

The cost of a sample is C = 1/2 ||s_L - d||^2 at its free equilibrium. `true_gradient` is -dC/dW by
implicit differentiation (the adjoint in solvers/response.py). Eq. 14 differs from it for three
reasons, which `compare` separates by computing the update in four stages:

    gradient                 -dC/dW at the exact free equilibrium
    + non-reciprocity        eq. 14 as beta -> 0: the response instead of the adjoint, W instead of
                             W.T (model fact 10)
    + finite beta            eq. 14 at the beta in use, both phases converged to rounding (float64)
    + unfinished relaxation  eq. 14 as used in training: the network's precision, solver, tolerance

The differences between consecutive stages are the three sources; they add up to update - gradient
exactly. At a kink of the hard sigmoid the gradient is the one-sided derivative on the side of the
sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.analysis.alignment import angle
from fsp_dynamics.arrays import floats, pixels
from fsp_dynamics.display import angles, html_table
from fsp_dynamics.errors import ConfigurationError, check_finite, check_shape
from fsp_dynamics.learning import phases
from fsp_dynamics.learning.phases import Phases
from fsp_dynamics.learning.rules import Contrast, Rule
from fsp_dynamics.learning.rules.gradient import GradientRule
from fsp_dynamics.learning.rules.hebbian import HEBBIAN
from fsp_dynamics.learning.rules.update import Update, assemble, contrast, update
from fsp_dynamics.models import rate
from fsp_dynamics.models.network import Array, Network, Weights
from fsp_dynamics.models.rate import Nudge, State, flatten, layers
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.response import Gains, gains
from fsp_dynamics.training.recipe import Recipe

EXACT = Tolerance(1e-12)  # per sample, in float64
SOURCES = ("non-reciprocity", "finite beta", "unfinished relaxation")


class NothingToCompareError(ConfigurationError):
    """No sample both converges and has an error, so there is no update to compare.

    >>> raise NothingToCompareError("no sample has an error")
    Traceback (most recent call last):
    ...
    fsp_dynamics.analysis.gradients.NothingToCompareError: no sample has an error
    """


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Gradient(Weights):
    """-dC/dW averaged over the batch, the direction of steepest descent; the same fields as the
    weights of a `Network`.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> targets = np.eye(3)[:2]
    >>> found = true_gradient(network, images, targets, fsp.relax(network, images))
    >>> {name: w.shape for name, w in found.parameters().items() if w.any()}
    {'input': (4, 8), 'forward[0]': (8, 3), 'loop': (3, 8), 'biases[0]': (8,), 'biases[1]': (3,)}
    """


@dataclass(frozen=True, slots=True)
class Comparison:
    """The update of a learning rule compared with the gradient, by name of each matrix in
    `Network.parameters`.

    degrees : the angle between them; NaN where either is zero. norm_ratio : ||update|| /
        ||gradient||.
    sources : {source: {matrix: ||its contribution to update - gradient|| / ||gradient||}}.
    stages : {source: {matrix: angle to the gradient with this source and the preceding ones
        included}}; the last is `degrees`.
    used : number of samples compared; unconverged samples are left out.

    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.optimisers import LearningRates, Sgd
    >>> recipe = Recipe(Sgd(LearningRates(20.0, (7.0,), loop=0.5)), fsp.make_solver())
    >>> network = fsp.loop_network([4, 8, 3], rng=0)
    >>> found = compare(network, np.random.default_rng(0).random((2, 4)), np.eye(3)[:2], recipe)
    >>> found.used, list(found.sources), list(found.degrees)
    (2, ['non-reciprocity', 'finite beta', 'unfinished relaxation'], ['input', ...])
    """

    degrees: dict[str, float]
    norm_ratio: dict[str, float]
    sources: dict[str, dict[str, float]]
    stages: dict[str, dict[str, float]]
    used: int

    def __repr__(self) -> str:
        return f"<Comparison of {self.used} samples, degrees to the gradient: {angles(self.degrees)}>"

    def _repr_html_(self) -> str:
        rows = {
            name: f"{value:.1f} degrees, norm ratio {self.norm_ratio[name]:.3g}" for name, value in self.degrees.items()
        }
        return html_table(f"Update and gradient, {self.used} samples", rows)


def true_gradient(
    network: Network, images: Array, targets: Array, free: Equilibrium, *, unconverged: bool = False
) -> Gradient:
    """-dC/dW of C = mean_B 1/2 ||s_L - d||^2 at the free equilibria `free`, float64.

    images (B, n_in), targets (B, n_L). unconverged : if True, treat unconverged
        samples as converged; otherwise they raise NotConvergedError.

    Raises ShapeError and NotFiniteError for invalid input, ConfigurationError where the field
    cannot be linearised.

    Returns
    -------
    Gradient : float64, in the shapes of the network's weights.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> targets = np.eye(3)[:2]
    >>> true_gradient(network, images, targets, fsp.relax(network, images)).input.shape
    (4, 8)
    """
    exact, sums = _in_the_limit(GradientRule(), network, images, targets, free, unconverged)
    return Gradient.of(exact, sums)


def limit_update(
    network: Network,
    images: Array,
    targets: Array,
    free: Equilibrium,
    *,
    rule: Rule = HEBBIAN,
    unconverged: bool = False,
) -> Update:
    """The update of a rule as beta -> 0, in closed form, float64; for eq. 14
    mean_B rho(s_i^0) d rho(s_j) / d beta. Arguments and errors as in `true_gradient`.

    Returns
    -------
    Update : float64, in the shapes of the network's weights.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> targets = np.eye(3)[:2]
    >>> limit_update(network, images, targets, fsp.relax(network, images)).loop.shape
    (3, 8)
    """
    return Update.of(*_in_the_limit(rule, network, images, targets, free, unconverged))


def compare(network: Network, images: Array, targets: Array, recipe: Recipe) -> Comparison:
    """Compare the update that `recipe` makes from this batch by its rule with the gradient.

    With random-sign phases the positive beta is used. Raises NothingToCompareError if no sample
    both converges and has an error, ShapeError for targets of the wrong shape.

    Returns
    -------
    Comparison : degrees and norm ratio of each matrix, and what each source contributes.

    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.optimisers import LearningRates, Sgd
    >>> recipe = Recipe(Sgd(LearningRates(20.0, (7.0,), loop=0.5)), fsp.make_solver())
    >>> network = fsp.loop_network([4, 8, 3], rng=0)
    >>> found = compare(network, np.random.default_rng(0).random((2, 4)), np.eye(3)[:2], recipe)
    >>> list(found.stages["non-reciprocity"])
    ['input', 'forward[0]', 'loop']
    """
    images, targets = pixels("images", images), floats("targets", targets)
    check_shape("targets", targets, (len(images), network.sizes[-1]))
    kind = "one-sided" if recipe.phases == "random-sign" else recipe.phases
    exact, rule = network.astype(np.float64), recipe.rule

    def both(which: Network, solver: Solver, tolerance: Tolerance) -> Phases:
        drive = rate.drive(which, images)
        return phases.run(which, drive, targets, recipe.beta, solver, kind=kind, rule=rule, tolerance=tolerance)

    truth = both(exact, FixedPointSolver(max_passes=500), EXACT)
    seen = contrast(exact, truth)
    rows = seen.rows
    if rows.size == 0:
        raise NothingToCompareError(
            "compare: no sample both has an error and converges in both phases; weaken the loop"
        )
    free = truth.free.rows(rows)
    gradient = true_gradient(exact, images[rows], targets[rows], free)
    limit = limit_update(exact, images[rows], targets[rows], free, rule=rule)
    at_beta = Update.of(exact, assemble(rule, exact, images[rows], seen, rows.size))
    used = update(rule, network, images, both(network, recipe.solver, recipe.tolerance))
    return _compared([gradient, limit, at_beta, used], rows.size)


def exact_nudged(network: Network, drive: Array, free: Equilibrium, nudge: Nudge) -> State:
    """The nudged equilibrium of the exact gradient rule at finite beta (model fact 11), states
    (B, n_k), by Newton-Krylov iteration from the free equilibrium.

    It solves field(s) + (J^T - J)(s - s^0) = 0 with the nudged field in the rate form and J the
    Jacobian of the free field at s^0. A reference for small batches; as beta -> 0, (rho(s) -
    rho(s^0)) / beta is the adjoint. Raises ConfigurationError where no equilibrium is found.
    """
    from scipy.optimize import NoConvergence, newton_krylov

    found = gains(network, free.state, None, drive)
    start = flatten(free.state).astype(np.float64)

    def field(flat: Array) -> Array:
        state = layers(network, flat)
        turned = _antisymmetric(network, found, layers(network, flat - start))
        return flatten(tuple(f + t for f, t in zip(rate.rate_field(network, drive, state, nudge), turned, strict=True)))

    try:
        solve: Any = newton_krylov
        return layers(network, solve(field, start, f_tol=1e-13, maxiter=200))
    except NoConvergence:
        raise ConfigurationError(
            f"no nudged equilibrium of the exact gradient rule was found for beta = {nudge.beta:g}; use a smaller beta"
        ) from None


def _antisymmetric(network: Network, found: Gains, moved: State) -> State:
    """(J^T - J) moved, with J_ji = p_j w_ij p_i between units (the diagonal cancels)."""
    seen = [p * m for p, m in zip(found.slope, moved, strict=True)]
    out = [np.zeros_like(m) for m in seen]
    for c in network.connections():
        out[c.pre] += found.slope[c.pre] * (seen[c.post] @ c.weight.T)
        out[c.post] -= found.slope[c.post] * (seen[c.pre] @ c.weight)
    return tuple(out)


def _in_the_limit(
    rule: Rule, network: Network, images: Array, targets: Array, free: Equilibrium, unconverged: bool
) -> tuple[Network, dict[str, Array]]:
    """(network in float64, mean of the rule's terms as beta -> 0 by parameter name), after
    validating the input.
    """
    images, targets = pixels("images", images), floats("targets", targets)
    check_shape("images", images, (len(free.status), network.sizes[0]))
    check_shape("targets", targets, (len(images), network.sizes[-1]))
    check_finite("targets", targets)
    if not unconverged:
        free.require_converged()
    exact = network.astype(np.float64)
    found = gains(exact, free.state, None, rate.drive(exact, images))
    change = rule.limit_change(exact, found, targets - free.output.astype(np.float64))
    rates = tuple(network.rho.rate(s.astype(np.float64)) for s in free.state)
    seen = Contrast(rates, rates, rates, change, np.arange(len(images)))
    return exact, assemble(rule, exact, images, seen, len(images))


def _compared(steps: Sequence[Weights], used: int) -> Comparison:
    """The comparison of gradient, limit, finite beta and update, given in this order."""
    gradient, *others = (
        {name: w.astype(np.float64) for name, w in step.parameters().items() if not name.startswith("biases")}
        for step in steps
    )
    norms = {name: float(np.linalg.norm(w)) for name, w in gradient.items()}
    stages = {
        source: {name: angle(stage[name], w) for name, w in gradient.items()}
        for source, stage in zip(SOURCES, others, strict=True)
    }
    sources = {
        source: {name: _ratio(after[name] - before[name], norms[name]) for name in gradient}
        for source, before, after in zip(SOURCES, [gradient, *others[:-1]], others, strict=True)
    }
    ratios = {name: _ratio(others[-1][name], norms[name]) for name in gradient}
    return Comparison(stages[SOURCES[-1]], ratios, sources, stages, used)


def _ratio(difference: Array, norm: float) -> float:
    return float(np.linalg.norm(difference)) / norm if norm else float("nan")
