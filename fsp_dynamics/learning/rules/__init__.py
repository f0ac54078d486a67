"""Learning rules: what an update is, given the phases. One file each, behind one protocol.

===================  ===========================================================================
rule                 dW_ij, mean over the batch
===================  ===========================================================================
``hebbian``          rho(s_i^0) c_j, eq. 14, with c_j = (rho(s_j^beta) - rho(s_j^0)) / beta
``mean_subtracted``  (rho(s_i^0) - mean rho(s_i^0)) c_j: the common part is left to the biases
``products``         (rho(s_i^beta) rho(s_j^beta) - rho(s_i^0) rho(s_j^0)) / beta: the classical
                     contrastive difference; unstable in the loop
``gradient``         eq. 14 with a nudge that acts through the transposed connections: -dC/dW
===================  ===========================================================================

A rule of your own is a class that inherits `Rule` and has a `name` and `terms`; what else the
protocol asks for has the defaults of eq. 14. Optimisers, engines, `analysis.gradients` and the
explorer take it from the recipe; a rule without a compiled engine trains on the plain one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from fsp_dynamics.errors import ConfigurationError, ShapeError, check_choice, nearest
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State
from fsp_dynamics.settings import imported
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance
from fsp_dynamics.solvers.response import Gains, response

RULES = {
    "hebbian": "fsp_dynamics.learning.rules.hebbian:HebbianRule",
    "gradient": "fsp_dynamics.learning.rules.gradient:GradientRule",
    "mean_subtracted": "fsp_dynamics.learning.rules.mean_subtracted:MeanSubtractedRule",
    "products": "fsp_dynamics.learning.rules.products:ProductsRule",
}


class Term(NamedTuple):
    """One outer product of an update: `parameter` += pre.T @ post, summed over the samples.

    pre (A, n_pre) : presynaptic factor; None for a bias, which collects the column sums of `post`.
    post (A, n_post) : postsynaptic factor.
    transposed : `parameter` is used against its direction (a tied matrix, from layer k + 1 to k)
        and += post.T @ pre.

    >>> import numpy as np
    >>> Term("loop", np.ones((5, 3)), np.ones((5, 8))).parameter
    'loop'
    """

    parameter: str
    pre: Array | None
    post: Array
    transposed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """What a rule is given: firing rates of the A samples that converged in every phase, layer by
    layer (A, n_k).

    free : rho(s^0). positive : rho(s^beta). negative : rho(s^-beta), or rho(s^0) where there are
        two phases.
    change : (positive - negative) per unit beta; as beta -> 0, its limit.
    rows : (A,) which samples of the batch these are.
    weights : (A,) of each sample in a mean, of sum 1; None: all alike. On a GPU samples that do
        not learn stay in the arrays with the weight and the change 0.

    >>> import numpy as np
    >>> free, nudged = (np.full((2, 3), 0.25),), (np.full((2, 3), 0.75),)
    >>> seen = Contrast(free, nudged, free, (nudged[0] - free[0],), np.arange(2))
    >>> seen.middle[0][0].tolist(), seen.mean(seen.change[0]).tolist()
    ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    """

    free: State
    positive: State
    negative: State
    change: State
    rows: Array
    weights: Array | None = None

    @property
    def middle(self) -> State:
        """(positive + negative) / 2, layer by layer."""
        return tuple((a + b) / 2 for a, b in zip(self.positive, self.negative, strict=True))

    def mean(self, rates: Array) -> Array:
        """The mean over the samples (n,) of rates (A, n).

        Returns
        -------
        array : (n,).
        """
        return rates.mean(0) if self.weights is None else self.weights @ rates


@runtime_checkable
class Rule(Protocol):
    """A learning rule. `name` is what configurations and reports call it.

    Inherit it: only `name` and `terms` must be given.

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> from fsp_dynamics.learning.rules.update import rule_update
    >>> class LoopAlone(fsp.Rule):
    ...     name = "loop alone"
    ...
    ...     def terms(self, network, images, contrast):
    ...         yield Term("loop", contrast.free[-1], contrast.change[0])
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> free = fsp.relax(network, images)
    >>> nudged = fsp.relax(network, images, nudge=fsp.Nudge(1.0, np.eye(3)[[0, 1]]), start=free)
    >>> update = rule_update(LoopAlone(), network, images, free, nudged)
    >>> [name for name, change in update.parameters().items() if change.any()]
    ['loop']
    """

    name: str

    def terms(self, network: Network, images: Array, contrast: Contrast) -> Iterator[Term]:
        """Every outer product of the update, without the scale 1/B and the learning rate.

        images (A, n_in) of the samples of `contrast`. To train on torch tensors as well, use
        operators and methods that arrays and tensors share.

        Returns
        -------
        iterator of Term : pre (A, n_pre) and post (A, n_post) of each.
        """
        ...

    def check(self, network: Network) -> None:
        """Raise ConfigurationError for a network that the rule cannot train."""
        return None

    def relax_nudged(
        self,
        network: Network,
        drive: Array,
        free: Equilibrium,
        nudge: Nudge,
        solver: Solver,
        tolerance: Tolerance | None,
    ) -> Equilibrium:
        """The nudged equilibrium, reached from the free one of the same samples.

        Returns
        -------
        Equilibrium : of the same samples.
        """
        return solver.relax(network, drive, free.state, nudge, tolerance)

    def limit_change(self, network: Network, gains: Gains, push: Array) -> State:
        """d rho(s) / d beta as beta -> 0, layer by layer (A, n_k), in closed form.

        gains : the slopes at the free equilibrium (`solvers.response.gains`). push (A, n_L) :
            d - s_L, what the nudge adds to the output's field per unit beta.

        Returns
        -------
        tuple of arrays : L of them, (A, n_k).
        """
        return response(network, gains, push)


def make_rule(name: str) -> Rule:
    """The rule of that name. Raises ConfigurationError for an unknown one.

    Returns
    -------
    Rule : a new one.

    >>> make_rule("hebbian").name
    'hebbian'
    """
    module, _, kind = RULES[check_choice("rule", name, RULES)].partition(":")
    rule: Rule = getattr(imported(module), kind)()
    return rule


def require_rule(given: Any) -> Rule:
    """The rule of that name, or the rule itself. Raises ConfigurationError for anything else."""
    if isinstance(given, str):
        return make_rule(given)
    if isinstance(given, type) or not isinstance(given, Rule):
        names = ", ".join(RULES)
        raise ConfigurationError(
            f"rule = {given!r}, expected a name ({names}) or an object with the methods of learning.rules.Rule"
        )
    lacks = "name" if not isinstance(getattr(given, "name", None), str) else "terms"
    if lacks == "name" or type(given).terms is Rule.terms:
        raise ConfigurationError(
            f"the rule {type(given).__name__} has no {lacks}; a rule has a name, which is a text, and a method "
            "terms(network, images, contrast), which yields the terms of its update"
        )
    return given


def checked_terms(rule: Rule, network: Network, images: Array, contrast: Contrast) -> list[Term]:
    """`rule.terms`, each of which fits its parameter. Raises ConfigurationError, ShapeError."""
    terms = list(rule.terms(network, images, contrast))
    shapes = {name: weight.shape for name, weight in network.parameters().items()}
    for term in terms:
        if term.parameter not in shapes:
            raise ConfigurationError(
                f"rule {rule.name!r} has a term for {term.parameter!r}, which the network does not have; "
                f"{nearest(term.parameter, shapes)}"
            )
        shape = shapes[term.parameter]
        factors = (term.post,) if term.pre is None else (term.pre, term.post)
        found = tuple(factor.shape[-1] for factor in (reversed(factors) if term.transposed else factors))
        if found != tuple(shape):
            raise ShapeError(
                f"rule {rule.name!r}: the factors of a term have {' and '.join(map(str, found))} units, "
                f"but {term.parameter} has the shape {tuple(shape)}"
            )
    return terms
