"""Every rule against its formula written out connection by connection, and what all rules share."""

from __future__ import annotations

import numpy as np
import problems
import pytest

import fsp_dynamics as fsp
from fsp_dynamics.analysis.alignment import angle
from fsp_dynamics.analysis.gradients import compare, limit_update, true_gradient
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning import phases
from fsp_dynamics.learning.optimisers import LearningRates, Sgd, output_move
from fsp_dynamics.learning.rules import RULES, Rule, make_rule, require_rule
from fsp_dynamics.learning.rules.hebbian import contrastive_terms, hebbian_update
from fsp_dynamics.learning.rules.update import contrast, rule_update, update
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.training.recipe import Recipe

TIGHT = Tolerance(1e-13)
NETWORKS = ("interior", "saturated", "one-hidden", "deep", "untied", "logistic")


def both_phases(p, rule, kind="one-sided", beta=0.5):
    target = p.nudges["nudged"].target
    solver = FixedPointSolver(max_passes=300)
    return phases.run(p.network, p.drive, target, beta, solver, kind=kind, rule=rule, tolerance=TIGHT)


def ends(network, name):
    """(layer before, layer after) of a matrix, hidden layers from 0; the image is layer -1."""
    kind, _, index = name.partition("[")
    k = int(index[:-1]) if index else 0
    return {"input": (-1, 0), "forward": (k, k + 1), "backward": (k + 1, k), "loop": (network.depth - 1, 0)}[kind]


def written_out(p, both, rule):
    """dW of each matrix and bias by loops over samples and connections."""
    rho, rows = p.network.rho.rate, both.rows
    free = [rho(s[rows]) for s in both.free.state]
    plus = [rho(s) for s in both.nudged.state]
    minus, span = free, both.beta
    if both.opposite is not None:
        minus, span = [rho(s) for s in both.opposite.state], 2 * both.beta
    for layers in (free, plus, minus):
        layers.append(p.images[rows])  # so that layer -1 is the image
    sums = {name: np.zeros_like(w) for name, w in p.network.parameters().items()}
    mean = [layer.mean(0) for layer in free]
    for name, dw in sums.items():
        if name.startswith("biases"):
            k = int(name[7:-1])
            dw += (plus[k] - minus[k]).sum(0) / span / p.batch
            continue
        i, j = ends(p.network, name)
        for b in range(len(rows)):
            change = (plus[j][b] - minus[j][b]) / span
            if rule == "mean_subtracted":
                dw += np.outer(free[i][b] - mean[i], change) / p.batch
            elif rule == "products":
                dw += (np.outer(plus[i][b], plus[j][b]) - np.outer(minus[i][b], minus[j][b])) / span / p.batch
            else:
                dw += np.outer(free[i][b], change) / p.batch
    return sums


@pytest.mark.parametrize("kind", ["one-sided", "centred"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rule", RULES)
def test_it_is_its_formula_connection_by_connection(rule, name, kind) -> None:
    p = problems.problem(name, np.float64)
    both = both_phases(p, make_rule(rule), kind)
    found = update(make_rule(rule), p.network, p.images, both).parameters()
    for parameter, expected in written_out(p, both, rule).items():
        np.testing.assert_allclose(found[parameter], expected, atol=1e-12, err_msg=parameter)


def test_the_difference_of_products_in_a_tied_network_is_the_classical_update() -> None:
    """One matrix for both directions takes the difference once, and both terms of eq. 14 to first
    order in beta.
    """
    p = problems.problem("tied", np.float64)
    for beta, close in ((1e-3, 1e-2), (1e-5, 1e-4)):
        both = both_phases(p, None, beta=beta)
        found = update(make_rule("products"), p.network, p.images, both).parameters()
        expected = written_out(p, both, "products")
        hebbian = update(make_rule("hebbian"), p.network, p.images, both).parameters()
        for parameter in found:
            np.testing.assert_allclose(found[parameter], expected[parameter], atol=1e-10, err_msg=parameter)
            size = np.abs(hebbian[parameter]).max()
            np.testing.assert_allclose(found[parameter], hebbian[parameter], atol=close * size, err_msg=parameter)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["interior", "untied", "logistic"])
def test_the_limit_is_where_small_betas_lead(rule, name) -> None:
    p = problems.problem(name, np.float64)
    chosen = make_rule(rule)
    both = both_phases(p, chosen, "centred", beta=1e-5)
    at_beta = update(chosen, p.network, p.images, both).parameters()
    target = p.nudges["nudged"].target
    limit = limit_update(p.network, p.images, target, both.free, rule=chosen).parameters()
    for parameter, w in limit.items():
        np.testing.assert_allclose(at_beta[parameter], w, atol=2e-6 * max(1.0, np.abs(w).max()), err_msg=parameter)


def test_the_gradient_rule_is_the_gradient_and_hebbian_is_not() -> None:
    p = problems.problem("interior", np.float64)
    target, free = p.nudges["nudged"].target, both_phases(p, None).free
    gradient = true_gradient(p.network, p.images, target, free).parameters()
    by_rule = {
        name: limit_update(p.network, p.images, target, free, rule=make_rule(name)).parameters() for name in RULES
    }
    for parameter in ("input", "forward[0]", "loop"):
        np.testing.assert_array_equal(by_rule["gradient"][parameter], gradient[parameter])
        assert angle(by_rule["hebbian"][parameter], gradient[parameter]) > 0.1


class Sleepy(Rule):
    """A rule of one's own: eq. 14, but the loop stays as it is."""

    name = "sleepy"

    def terms(self, network, images, contrast):
        for term in contrastive_terms(network, images, contrast.free, contrast.change):
            if term.parameter != "loop":
                yield term


def test_a_rule_of_ones_own_needs_a_name_and_its_terms() -> None:
    p, rule = problems.problem("interior", np.float64), Sleepy()
    assert require_rule(rule) is rule
    both = both_phases(p, rule)
    mine, theirs = (update(r, p.network, p.images, both).parameters() for r in (rule, make_rule("hebbian")))
    assert not mine["loop"].any()
    assert theirs["loop"].any()
    np.testing.assert_array_equal(mine["forward[0]"], theirs["forward[0]"])


def test_the_analysis_follows_the_rule_of_the_recipe() -> None:
    p = problems.problem("interior", np.float64)
    rates = LearningRates(1.0, (1.0,) * (p.network.depth - 1), 1.0)
    target = p.nudges["nudged"].target

    def compared(rule):
        recipe = Recipe(Sgd(rates), FixedPointSolver(), TIGHT, beta=0.5, rule=rule)
        return compare(p.network, p.images, target, recipe)

    assert np.isnan(compared(Sleepy()).degrees["loop"])
    assert compared(Sleepy()).degrees["forward[0]"] == compared("hebbian").degrees["forward[0]"]
    assert compared("gradient").stages["non-reciprocity"]["input"] == pytest.approx(0, abs=1e-9)
    assert compared("hebbian").stages["non-reciprocity"]["input"] > 0.1
    # of another rule another angle
    assert compared("mean_subtracted").degrees["forward[0]"] != compared("hebbian").degrees["forward[0]"]


def test_an_update_from_equilibria_by_any_rule() -> None:
    p = problems.problem("interior", np.float64)
    nudge = p.nudges["nudged"]
    free = fsp.relax(p.network, p.images, tolerance=TIGHT)
    nudged = fsp.relax(p.network, p.images, nudge=nudge, start=free, tolerance=TIGHT)
    hebbian = hebbian_update(p.network, p.images, free, nudged).parameters()
    for parameter, w in rule_update(make_rule("hebbian"), p.network, p.images, free, nudged).parameters().items():
        np.testing.assert_array_equal(w, hebbian[parameter])
    products = rule_update(make_rule("products"), p.network, p.images, free, nudged).parameters()
    assert not np.allclose(products["loop"], hebbian["loop"])


@pytest.mark.parametrize("rule", ["hebbian", "mean_subtracted", "products"])
def test_the_output_s_move_is_that_of_its_terms(rule) -> None:
    """h @ dW + db of the output layer, h the mean free rates below it."""
    p = problems.problem("deep", np.float64)
    chosen, both = make_rule(rule), both_phases(p, None)
    seen = contrast(p.network, both)
    h = p.network.rho.rate(both.free.state[-2]).mean(0)
    terms = list(chosen.terms(p.network, p.images[seen.rows], seen))
    change = update(chosen, p.network, p.images, both).parameters()
    last = p.network.depth - 1
    moved = h @ change[f"forward[{last - 1}]"] + change[f"biases[{last}]"]
    np.testing.assert_allclose(output_move(terms, last, h) / p.batch, moved, atol=1e-14)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hebian", "rule = 'hebian' is unknown; did you mean 'hebbian'"),
        (3, r"rule = 3, expected a name \(hebbian, gradient, mean_subtracted, products\) or an object"),
        (Sleepy, "expected a name"),
    ],
)
def test_what_is_no_rule_is_refused(given, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        require_rule(given)


def test_a_tied_matrix_has_no_mean_to_subtract() -> None:
    p = problems.problem("tied", np.float64)
    rule = make_rule("mean_subtracted")
    with pytest.raises(ConfigurationError, match="a tied matrix is presynaptic at both ends"):
        rule.check(p.network)
    recipe = Recipe(Sgd(LearningRates(1.0, (1.0,) * len(p.network.forward))), FixedPointSolver(), rule=rule)
    with pytest.raises(ConfigurationError, match="mean_subtracted"):
        recipe.check(p.network)
