"""Eq. 14 against loops over single connections, and against what it must mean (model facts 4, 5, 9
and 10).
"""

from __future__ import annotations

import numpy as np
import oracles
import problems
import pytest

import fsp_dynamics as fsp
from fsp_dynamics.analysis.alignment import angle
from fsp_dynamics.errors import ConfigurationError, NotConvergedError, NotFiniteError, ShapeError
from fsp_dynamics.learning import phases
from fsp_dynamics.learning.rules.hebbian import HEBBIAN
from fsp_dynamics.learning.rules.update import update
from fsp_dynamics.models.rate import Nudge, drive
from fsp_dynamics.solvers.equilibrium import Equilibrium, Status, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver

TIGHT = Tolerance(1e-14, 1e-15)
SOLVER = FixedPointSolver(max_passes=500)


def both_phases(network, images, target, beta, kind="one-sided"):
    return phases.run(network, drive(network, images), target, beta, SOLVER, kind=kind, tolerance=TIGHT)


def update_at(network, images, target, beta, kind="one-sided"):
    return update(HEBBIAN, network, images, both_phases(network, images, target, beta, kind)).parameters()


@pytest.mark.parametrize("name", problems.NAMES)
@pytest.mark.parametrize("phase", ["nudged", "negative"])
def test_eq_14_connection_by_connection(name, phase) -> None:
    p = problems.problem(name)
    nudge = p.nudges[phase]
    found = update_at(p.network, p.images, nudge.target, nudge.beta)
    wanted = oracles.hebbian(p.network, p.images, p.known["free"], p.known[phase], nudge.beta)
    assert found.keys() == wanted.keys() == p.network.parameters().keys()
    for key, change in wanted.items():
        np.testing.assert_allclose(found[key], change, atol=1e-11, err_msg=key)
    assert phase == "negative" or name in ("satisfied", "silent") or any(abs(w).max() > 1e-3 for w in wanted.values())


def test_the_public_verb_takes_equilibria_and_says_the_same() -> None:
    p = problems.problem("saturated")
    nudge = p.nudges["nudged"]
    free = fsp.relax(p.network, p.images, tolerance=TIGHT)
    nudged = fsp.relax(p.network, p.images, nudge=nudge, start=free, tolerance=TIGHT)
    found = fsp.hebbian_update(p.network, p.images, free, nudged).parameters()
    for key, change in oracles.hebbian(p.network, p.images, p.known["free"], p.known["nudged"], nudge.beta).items():
        np.testing.assert_allclose(found[key], change, atol=1e-11, err_msg=key)


def test_the_update_is_local() -> None:
    """Only the rates of its two units enter a connection: what other units did changes nothing."""
    p = problems.problem("one-hidden")
    both = both_phases(p.network, p.images, p.nudges["nudged"].target, 0.7)
    before = update(HEBBIAN, p.network, p.images, both).parameters()
    both.free.state[0][:, 1:] = 0.123
    after = update(HEBBIAN, p.network, p.images, both).parameters()
    np.testing.assert_array_equal(before["forward[0]"][0], after["forward[0]"][0])
    assert not np.array_equal(before["forward[0]"], after["forward[0]"])


def test_a_batch_is_the_mean_of_its_samples() -> None:
    p = problems.problem("deep")
    target = p.nudges["nudged"].target
    whole = update_at(p.network, p.images, target, 0.5)
    parts = [update_at(p.network, p.images[b : b + 1], target[b : b + 1], 0.5) for b in range(p.batch)]
    for key, change in whole.items():
        np.testing.assert_allclose(change, np.mean([part[key] for part in parts], axis=0), atol=1e-13)


def test_closed_form_of_the_nudged_phase() -> None:
    """Fact 4: with masks fixed the nudged rest point is a linear image of d - y0."""
    p = problems.problem("saturated")
    images = np.random.default_rng(0).random((12, 4))
    target = problems.one_hot(np.arange(12), 4)
    both = both_phases(p.network, images, target, 1e-3)
    wanted = oracles.nudged_equilibrium(p.network, images, both.free.state, Nudge(1e-3, target))
    for s, w in zip(both.nudged.state, (w[both.rows] for w in wanted), strict=True):
        np.testing.assert_allclose(s, w, atol=1e-12)


def test_the_update_of_a_batch_has_at_most_the_rank_of_the_output() -> None:
    """Fact 4: while no mask changes, every hidden move is a linear image of the output's, so 20
    samples teach n_L = 3 directions.
    """
    p = problems.problem("interior")
    images = np.random.default_rng(1).random((20, 5))
    update = update_at(p.network, images, 0.3 + 0.4 * problems.one_hot(np.arange(20), 3), 0.5)
    for key in ("input", "forward[0]"):
        values = np.linalg.svd(update[key], compute_uv=False)
        assert (values[:3] > 1e-6).all()
        assert (values[3:] < 1e-12).all()


def test_a_saturated_correct_output_teaches_exactly_nothing() -> None:
    """Fact 5: such samples are not even nudged, and nudging them by hand moves nothing to the last
    bit.
    """
    p = problems.problem("satisfied")
    target = p.nudges["nudged"].target
    both = both_phases(p.network, p.images, target, 0.7)
    assert both.rows.size == 0
    assert all(not change.any() for change in update(HEBBIAN, p.network, p.images, both).parameters().values())
    nudged = phases.nudged(p.network, p.drive, both.free, target, 0.7, SOLVER, TIGHT)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(nudged.state, both.free.state, strict=True))


def interior_tied(seed):
    """A tied reciprocal network whose units all rest well inside (0, 1)."""
    rng = np.random.default_rng(seed)
    network = fsp.reciprocal_network([4, 6, 5, 3], forward_scale=1.0, dtype=np.float64, rng=rng)
    small = {f"forward[{k}]": 0.25 * w for k, w in enumerate(network.forward)} | {"input": 0.15 * network.input}
    return network.with_parameters(small | {f"biases[{k}]": np.full(n, 0.4) for k, n in enumerate(network.sizes[1:])})


def test_the_gradient_oracle_is_the_slope_of_the_cost() -> None:
    """The judge of the next tests, itself held by central differences of the cost."""
    network, images, target = (
        interior_tied(0),
        np.random.default_rng(1).random((3, 4)),
        problems.one_hot(np.arange(3), 3),
    )
    rest = fsp.relax(network, images, tolerance=TIGHT)
    wanted = oracles.gradient(network, images, rest.state, target)

    def cost(key, index, shift):
        weight = network.parameters()[key].copy()
        weight[index] += shift
        moved = fsp.relax(network.with_parameters({key: weight}), images, tolerance=TIGHT)
        return 0.5 * ((moved.output - target) ** 2).sum(1).mean()

    for key, index in [
        ("input", (1, 2)),
        ("forward[0]", (3, 1)),
        ("forward[1]", (2, 0)),
        ("biases[0]", (4,)),
        ("biases[2]", (1,)),
    ]:
        slope = (cost(key, index, 1e-5) - cost(key, index, -1e-5)) / 2e-5
        assert wanted[key][index] == pytest.approx(-slope, abs=2e-9)


@pytest.mark.parametrize(
    ("kind", "order", "betas"), [("one-sided", 1, (4e-3, 2e-3, 1e-3)), ("centred", 2, (8e-2, 4e-2, 2e-2))]
)
def test_equilibrium_propagation_theorem(kind, order, betas) -> None:
    """Fact 9: in the tied network eq. 14, both directions summed, tends to -dC/dW; the error falls
    like beta or beta^2.
    """
    network, images, target = (
        interior_tied(2),
        np.random.default_rng(3).random((4, 4)),
        0.3 + 0.4 * problems.one_hot(np.arange(4), 3),
    )
    wanted = oracles.gradient(network, images, fsp.relax(network, images, tolerance=TIGHT).state, target)
    errors = []
    for beta in betas:
        found = update_at(network, images, target, beta, kind)
        errors.append(np.sqrt(sum(((found[key] - w) ** 2).sum() for key, w in wanted.items())))
    slopes = np.diff(np.log(errors)) / np.diff(np.log(betas))
    np.testing.assert_allclose(slopes, order, atol=0.05)


def test_the_output_layer_of_a_loop_follows_the_gradient_within_the_bound() -> None:
    """Fact 10: as beta -> 0 the angle to -dC/dW of the matrix into the output is at most 2 arcsin
    ||G_D||; hidden layers have no bound.
    """
    worst = 0.0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        network = problems.random_network(rng, [4, 8, 7, 4], rng.uniform(0.2, 0.95), low=0.0, high=0.5)
        images, target = rng.random((1, 4)), problems.one_hot([seed], 4)
        both = both_phases(network, images, target, 1e-7)
        state = both.free.state
        open_units = [np.diag(((s[0] > 0) & (s[0] < 1)).astype(float)) for s in state]
        gain = network.loop @ open_units[0] @ network.forward[0] @ open_units[1] @ network.forward[1] @ open_units[2]
        found = update(HEBBIAN, network, images, both).parameters()["forward[1]"]
        wanted = oracles.gradient(network, images, state, target)["forward[1]"]
        bound = np.degrees(2 * np.arcsin(np.linalg.norm(open_units[2] @ gain, 2)))
        if not wanted.any():
            continue
        assert angle(found, wanted) <= bound + 1e-4
        worst = max(worst, angle(found, wanted) / bound)
    assert worst > 0.2  # the angles are not all trivially zero


def test_samples_not_at_rest_are_never_learned_from() -> None:
    p = problems.problem("interior")
    both = both_phases(p.network, p.images, p.nudges["nudged"].target, 0.5)
    status = both.nudged.status.copy()
    status[1] = Status.OUT_OF_STEPS
    restless = phases.Phases(
        0.5, both.free, both.rows, Equilibrium(both.nudged.state, both.nudged.residual, status, both.nudged.steps)
    )
    assert restless.unconverged == 1
    found = update(HEBBIAN, p.network, p.images, restless).parameters()
    kept = [0, 2, 3]
    others = update_at(p.network, p.images[kept], p.nudges["nudged"].target[kept], 0.5)
    for key, change in others.items():
        np.testing.assert_allclose(found[key], change * len(kept) / p.batch, atol=1e-13)
    with pytest.raises(NotConvergedError) as refused:
        fsp.hebbian_update(p.network, p.images, both.free, restless.nudged, beta=0.5)
    assert refused.value.equilibrium is restless.nudged


def test_refusals() -> None:
    p = problems.problem("interior")
    free = fsp.relax(p.network, p.images)
    with pytest.raises(ConfigurationError, match="beta = 0"):
        fsp.hebbian_update(p.network, p.images, free, free)
    both = both_phases(p.network, p.images, p.nudges["nudged"].target, 0.5)
    with pytest.raises(ShapeError, match=r"images has shape \(2, 5\), expected \(4, 5\)"):
        update(HEBBIAN, p.network, p.images[:2], both)
    with pytest.raises(ShapeError, match="expected"):
        update(HEBBIAN, p.network, p.images[:, :3], both)
    nudged = fsp.relax(p.network, p.images, nudge=p.nudges["nudged"], start=free)
    assert nudged.beta == p.nudges["nudged"].beta
    with pytest.raises(ConfigurationError, match="expected no nudge"):
        fsp.hebbian_update(p.network, p.images, nudged, nudged)
    with pytest.raises(ConfigurationError, match="opposite phase"):
        fsp.hebbian_update(p.network, p.images, free, nudged, opposite=nudged)
    with pytest.raises(NotFiniteError, match="images"):
        fsp.hebbian_update(p.network, np.where(p.images == p.images[1, 1], np.nan, p.images), free, nudged)
