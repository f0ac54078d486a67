"""Who is nudged, with which sign, from where."""

from __future__ import annotations

import numpy as np
import problems
import pytest

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning import phases
from fsp_dynamics.solvers.equilibrium import Tolerance
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


def test_a_sign_that_removes_the_leak_is_refused() -> None:
    p = problems.problem("interior")
    with pytest.raises(ConfigurationError, match="no longer leaks"):
        run(p, 1.0, kind="centred")
