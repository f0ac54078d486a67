"""The gradient against finite differences of the cost, the rule against the gradient, and what is
promised of their angle.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from problems import NAMES, problem, random_network

from fsp_dynamics.analysis.alignment import angle
from fsp_dynamics.analysis.gradients import SOURCES, compare, exact_nudged, limit_update, true_gradient
from fsp_dynamics.errors import ConfigurationError, NotConvergedError, ShapeError
from fsp_dynamics.learning import phases
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.learning.rules import Contrast
from fsp_dynamics.learning.rules.gradient import GradientRule
from fsp_dynamics.learning.rules.hebbian import HEBBIAN
from fsp_dynamics.learning.rules.update import assemble, update
from fsp_dynamics.models.rate import Nudge, drive
from fsp_dynamics.solvers import relax
from fsp_dynamics.solvers.equilibrium import Equilibrium, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.response import adjoint, gains, loop_matrix, response
from fsp_dynamics.solvers.transposed import relax_transposed
from fsp_dynamics.training.recipe import Recipe

TIGHT = Tolerance(1e-13)
SMOOTH_ENOUGH = [
    name for name in NAMES if name not in ("silent", "saturated", "satisfied")
]  # on kinks, or without any gradient


def setting(name):
    p = problem(name)
    return p, p.nudges["nudged"].target, relax(p.network, p.images, tolerance=TIGHT)


def recipe_of(network, **options):
    rates = LearningRates(
        1.0, (1.0,) * (network.depth - 1), 1.0, (1.0,) * (network.depth - 1) if network.backward else ()
    )
    return Recipe(Sgd(rates), FixedPointSolver(max_passes=200), **{"tolerance": Tolerance(1e-4), "beta": 0.5} | options)


def cost(network, images, target, start):
    """mean_B 1/2 ||s_L - d||^2 at the free equilibrium."""
    equilibrium = relax(network, images, start=start, tolerance=TIGHT).require_converged()
    return 0.5 * ((equilibrium.output - target) ** 2).sum(1).mean()


@pytest.mark.parametrize("name", SMOOTH_ENOUGH)
def test_the_gradient_is_that_of_finite_differences(name) -> None:
    """Along the gradient itself and along a random direction of every parameter: relative error
    below 1e-6 of the steepest slope.
    """
    p, target, free = setting(name)
    found, rng, step = true_gradient(p.network, p.images, target, free).parameters(), np.random.default_rng(0), 1e-5
    for parameter, g in found.items():
        steepest = np.linalg.norm(g)
        if steepest < 1e-9:
            continue
        for direction in (g / steepest, (lambda w: w / np.linalg.norm(w))(rng.normal(size=g.shape))):
            w = p.network.parameters()[parameter]
            up, down = (
                cost(p.network.with_parameters({parameter: w + sign * step * direction}), p.images, target, free)
                for sign in (1, -1)
            )
            assert (down - up) / (2 * step) == pytest.approx(np.vdot(g, direction), abs=1e-6 * max(steepest, 0.1)), (
                parameter
            )


@pytest.mark.parametrize("name", SMOOTH_ENOUGH)
def test_the_limit_of_eq_14(name) -> None:
    p, target, free = setting(name)
    beta, found = 1e-6, limit_update(p.network, p.images, target, free).parameters()
    both = phases.run(
        p.network, p.drive, target, beta, FixedPointSolver(max_passes=300), kind="centred", tolerance=TIGHT
    )
    for parameter, w in update(HEBBIAN, p.network, p.images, both).parameters().items():
        np.testing.assert_allclose(found[parameter], w, atol=1e-6)


@pytest.mark.parametrize("name", SMOOTH_ENOUGH)
def test_the_gradient_rule_follows_the_gradient(name) -> None:
    """Fact 11: below 0.1 degrees at a small beta, by the transposed equilibrium and by the oracle
    that adds (J^T - J)(s - s0) to the whole field.
    """
    p, target, free = setting(name)
    gradient, rate = true_gradient(p.network, p.images, target, free).parameters(), p.network.rho.rate
    before = tuple(rate(s) for s in free.state)
    for beta, state in (
        (1e-4, relax_transposed(p.network, p.drive, free, Nudge(1e-4, target)).require_converged().state),
        (1e-6, exact_nudged(p.network, p.drive, free, Nudge(1e-6, target))),
    ):
        after = tuple(rate(s) for s in state)
        change = tuple((a - r) / beta for a, r in zip(after, before, strict=True))
        seen = Contrast(before, after, before, change, np.arange(p.batch))
        for parameter, w in assemble(GradientRule(), p.network, p.images, seen, p.batch).items():
            assert not angle(w, gradient[parameter]) >= 0.1, (parameter, beta)
            np.testing.assert_allclose(w, gradient[parameter], atol=1e-3 * max(1, np.abs(gradient[parameter]).max()))


def test_the_error_of_the_gradient_rule_vanishes_with_beta() -> None:
    """One-sided: proportional to beta; centred: to its square (where nothing has a kink)."""
    p, target, free = setting("interior")
    gradient = true_gradient(p.network, p.images, target, free).parameters()

    def miss(beta, kind):
        both = phases.run(
            p.network, p.drive, target, beta, FixedPointSolver(), kind=kind, rule=GradientRule(), tolerance=TIGHT
        )
        return max(
            np.abs(w - gradient[name]).max()
            for name, w in update(GradientRule(), p.network, p.images, both).parameters().items()
        )

    for kind, order in (("one-sided", 1), ("centred", 2)):
        slope = np.log(miss(0.02, kind) / miss(0.01, kind)) / np.log(2)
        assert slope == pytest.approx(order, abs=0.05)


def test_the_angle_at_the_output_is_bounded_by_the_loop_matrix() -> None:
    """Fact 10: angle(update of the output layer, -dC/dW) <= 2 arcsin ||G_D|| for each of 10,000
    samples of 200 random networks; none violates it.
    """
    rng, worst = np.random.default_rng(0), 0.0
    for seed in range(200):
        network = random_network(
            seed, rng.integers(2, 7, rng.integers(3, 6)), rng.uniform(0.05, 0.99), low=0.1, high=0.6
        )
        images = rng.random((50, network.sizes[0]))
        free = relax(network, images, tolerance=Tolerance(1e-12))
        found = gains(network, free.state, None, drive(network, images))
        bound = np.degrees(2 * np.arcsin(np.minimum(np.linalg.norm(loop_matrix(network, found), 2, axis=(1, 2)), 1)))
        push = rng.random(free.output.shape) - free.output
        for q, v, most in zip(
            response(network, found, push)[-1], adjoint(network, found, push)[-1], bound, strict=True
        ):
            if np.linalg.norm(q) > 0 and np.linalg.norm(v) > 0:
                assert angle(q, v) <= most + 1e-9
                worst = max(worst, angle(q, v) / max(most, 1e-9))
    assert worst > 0.5  # the bound is informative


def test_the_three_sources_add_up_and_each_can_be_switched_off() -> None:
    p, target, _ = setting("strong")
    whole = compare(p.network.astype(np.float32), p.images, target, recipe_of(p.network))
    assert tuple(whole.sources) == tuple(whole.stages) == SOURCES
    assert whole.stages["unfinished relaxation"] == whole.degrees
    assert whole.used == p.batch
    assert min(share for shares in whole.sources.values() for name, share in shares.items() if name != "forward[1]") > 0
    exact = compare(p.network, p.images, target, recipe_of(p.network, rule=GradientRule()))
    assert max(exact.sources["non-reciprocity"].values()) == 0
    small = compare(p.network, p.images, target, recipe_of(p.network, beta=1e-4))
    for name, share in small.sources["finite beta"].items():
        assert share < 0.01 * max(whole.sources["finite beta"][name], 0.01), name
    settled = compare(p.network, p.images, target, recipe_of(p.network, tolerance=Tolerance(1e-12)))
    assert max(settled.sources["unfinished relaxation"].values()) < 1e-9
    assert settled.sources["finite beta"] == pytest.approx(whole.sources["finite beta"], rel=1e-4)


def test_a_tied_network_is_kept_from_the_gradient_by_beta_alone() -> None:
    """Fact 9: equilibrium propagation."""
    p, target, _ = setting("tied")
    found = compare(
        p.network, p.images, target, recipe_of(p.network, beta=1e-3, tolerance=Tolerance(1e-12), phases="centred")
    )
    assert max(found.sources["non-reciprocity"].values()) < 1e-10
    assert max(found.degrees.values()) < 1e-3


def test_refusals() -> None:
    p, target, free = setting("strong")
    unconverged = dataclasses.replace(free, status=np.ones_like(free.status))
    with pytest.raises(NotConvergedError):
        true_gradient(p.network, p.images, target, unconverged)
    assert true_gradient(p.network, p.images, target, unconverged, unconverged=True).loop is not None
    with pytest.raises(ShapeError, match="targets has shape"):
        true_gradient(p.network, p.images, target[:, 1:], free)
    with pytest.raises(ShapeError, match="targets has shape"):
        compare(p.network, p.images, target[:, 1:], recipe_of(p.network))
    happy, goal, _ = setting("satisfied")
    with pytest.raises(ConfigurationError, match="no sample both has an error"):
        compare(happy.network, happy.images, goal, recipe_of(happy.network))


def test_an_unconverged_transposed_equilibrium_is_reported() -> None:
    p, target, free = setting("strong")
    found = relax_transposed(p.network, p.drive, free, Nudge(0.5, target), TIGHT, max_passes=1)
    assert not found.converged.all()
    assert isinstance(found, Equilibrium)
    assert found.beta == 0.5


def test_a_sample_s_transposed_equilibrium_does_not_depend_on_its_neighbours() -> None:
    p, target, free = setting("deep")
    together = relax_transposed(p.network, p.drive, free, Nudge(0.5, target))
    assert len(set(together.steps.tolist())) > 1
    for b in range(p.batch):
        alone = relax_transposed(p.network, p.drive[b : b + 1], free.rows(np.array([b])), Nudge(0.5, target[b : b + 1]))
        assert alone.steps[0] == together.steps[b]
        for one, many in zip(alone.state, together.state, strict=True):
            np.testing.assert_allclose(one[0], many[b], atol=1e-15)


def test_saturated_outputs_move_under_the_exact_nudge() -> None:
    """An output at 0 has no gradient, yet a nudge strong enough moves it, as eq. 14's does."""
    network = random_network(0, [3, 5, 4, 2], 0.3, low=0.1, high=0.4).with_parameters(
        {"biases[2]": np.array([-0.9, 0.2])}
    )
    images, target = np.full((1, 3), 0.5), np.array([[1.0, 0.0]])
    free = relax(network, images, tolerance=TIGHT)
    assert free.output[0, 0] == 0
    moved = relax_transposed(network, drive(network, images), free, Nudge(1.0, target))
    assert moved.output[0, 0] > 0
    assert relax_transposed(network, drive(network, images), free, Nudge(0.1, target)).output[0, 0] == 0
