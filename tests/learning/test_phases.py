"""Who is nudged, with which sign, from where."""

from __future__ import annotations

import numpy as np
import problems
import pytest

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning import phases
from fsp_dynamics.learning.rules.hebbian import HEBBIAN
from fsp_dynamics.solvers.equilibrium import Equilibrium, Status, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver

SOLVER = FixedPointSolver(max_passes=300)
TIGHT = Tolerance(1e-13)


def run(p, beta=0.5, **settings):
    return phases.run(p.network, p.drive, p.nudges["nudged"].target, beta, SOLVER, tolerance=TIGHT, **settings)


def test_free_and_nudged_are_the_known_equilibria() -> None:
    p = problems.problem("saturated")
    both = run(p, 0.7)
    for s, wanted in zip(both.free.state, p.known["free"], strict=True):
        np.testing.assert_allclose(s, wanted, atol=1e-12)
    for s, wanted in zip(both.nudged.state, p.known["nudged"], strict=True):
        np.testing.assert_allclose(s, wanted[both.rows], atol=1e-12)


def test_only_samples_with_something_to_learn_are_nudged() -> None:
    p = problems.problem("satisfied")
    target = p.nudges["nudged"].target.copy()
    target[1] = 0.5
    both = phases.run(p.network, p.drive, target, 0.5, SOLVER, tolerance=TIGHT)
    assert both.rows.tolist() == [1]
    assert len(both.nudged.status) == 1


def test_one_output_that_differs_is_something_to_learn() -> None:
    p = problems.problem("satisfied")
    target = p.nudges["nudged"].target.copy()
    target[2, 1] = 0.5
    assert phases.run(p.network, p.drive, target, 0.5, SOLVER, tolerance=TIGHT).rows.tolist() == [2]


def test_what_did_not_converge_in_one_phase_or_another_is_left_out() -> None:
    def ended(*status):
        count = len(status)
        return Equilibrium((np.zeros((count, 2)),) * 2, np.zeros(count), np.array(status, np.uint8), np.ones(count))

    good, bad = Status.CONVERGED, Status.OUT_OF_STEPS
    rows, free = np.array([0, 1, 3, 4]), ended(good, good, bad, good, good)
    both = phases.Phases(0.5, free, rows, ended(good, bad, good, good))
    assert (both.converged.tolist(), both.unconverged) == ([True, False, True, True], 2)
    three = phases.Phases(0.5, free, rows, ended(good, bad, good, good), ended(good, good, bad, good))
    assert (three.converged.tolist(), three.unconverged) == ([True, False, False, True], 3)


def test_centred_takes_both_signs_from_the_free_state() -> None:
    p = problems.problem("interior")
    both = run(p, kind="centred")
    assert both.opposite is not None
    pull = both.nudged.output - both.free.output
    push = both.opposite.output - both.free.output
    assert (pull * push <= 0).all()
    assert abs(push).max() > 1e-3


def test_random_sign_draws_one_sign_for_a_batch_from_the_rng() -> None:
    p = problems.problem("interior")
    signs = {run(p, kind="random-sign", rng=np.random.default_rng(seed)).beta for seed in range(20)}
    assert signs == {0.5, -0.5}
    with pytest.raises(ConfigurationError, match="rng"):
        run(p, kind="random-sign")


def test_signs_of_an_epoch_are_drawn_from_the_rng() -> None:
    """One for each batch, both about equally often; the other kinds draw nothing."""
    drawn = phases.signed_betas(0.5, "random-sign", 1000, np.random.default_rng(3))
    assert set(drawn) == {0.5, -0.5}
    assert abs(drawn.mean()) < 5 * 0.5 / np.sqrt(1000)
    np.testing.assert_array_equal(drawn, phases.signed_betas(0.5, "random-sign", 1000, np.random.default_rng(3)))
    for kind in ("one-sided", "centred"):
        rng = np.random.default_rng(3)
        assert set(phases.signed_betas(0.5, kind, 1000, rng)) == {0.5}
        assert rng.bit_generator.state == np.random.default_rng(3).bit_generator.state


class Starts:
    """The solver above, and the nudge and the start that it was given each time."""

    def __init__(self) -> None:
        self.given = []

    def relax(self, network, drive, start=None, nudge=None, tolerance=None):
        self.given.append((0.0 if nudge is None else nudge.beta, start))
        return SOLVER.relax(network, drive, start, nudge, tolerance)


@pytest.mark.parametrize("rule", [None, HEBBIAN], ids=["through the field", "as a rule nudges"])
def test_the_nudged_phase_starts_at_the_free_equilibrium(rule) -> None:
    """It does not begin at silence again, from where another equilibrium may be reached."""
    p, solver = problems.problem("saturated"), Starts()
    target = p.nudges["nudged"].target
    both = phases.run(p.network, p.drive, target, 0.7, solver, kind="centred", rule=rule, tolerance=TIGHT)
    assert [beta for beta, _ in solver.given] == [0.0, 0.7, -0.7]
    assert solver.given[0][1] is None
    for _, start in solver.given[1:]:
        for s, free in zip(start, both.free.state, strict=True):
            np.testing.assert_array_equal(s, free[both.rows])
    assert any(free.any() for free in both.free.state)


def test_a_sign_that_removes_the_leak_is_refused() -> None:
    p = problems.problem("interior")
    with pytest.raises(ConfigurationError, match="no longer leaks"):
        run(p, 1.0, kind="centred")
