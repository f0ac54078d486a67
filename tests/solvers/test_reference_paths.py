"""The NumPy integrator along its path: the saved times, and what lies between them."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from problems import HARD, problem

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models import rate
from fsp_dynamics.models.rate import flatten
from fsp_dynamics.solvers.reference import ReferenceSolver


def test_a_controlled_path_does_not_see_its_neighbours():
    """But for rounding, which the choice of the next step carries on up to the accuracy of the
    path.
    """
    p, solver, times = problem("strong"), ReferenceSolver(), [0.0, 0.7, 2.0]
    start = tuple(s + np.array([0, 1, 0.1, 0.5])[:, None] for s in rate.zero_state(p.network, p.batch))
    together = solver.follow(p.network, p.drive, start, None, times)
    for i in range(p.batch):
        rows = slice(i, i + 1)
        alone = solver.follow(p.network, p.drive[rows], tuple(s[rows] for s in start), None, times)
        np.testing.assert_allclose(alone[:, 0], together[:, i], atol=1e-6)


@pytest.mark.parametrize("phase", ["free", "nudged"])
@pytest.mark.parametrize("name", ["saturated", "tied", "time-constants", "logistic"])
def test_euler_steps_are_those_of_the_loops_in_python(name, phase):
    p = problem(name)
    start = tuple(np.random.default_rng(0).random(s.shape) for s in p.known[phase])
    twin = oracles.euler_path(p.network, p.images, start, p.nudges[phase], 0.1, 12)
    path = ReferenceSolver("euler", dt=0.1).follow(p.network, p.drive, start, p.nudges[phase], np.arange(13) * 0.1)
    np.testing.assert_allclose(path, [flatten(s) for s in twin], atol=1e-13)


@pytest.mark.parametrize(
    "solver", [ReferenceSolver("dopri5"), ReferenceSolver("bosh3")], ids=lambda solver: solver.method
)
def test_a_controlled_path_is_exact_at_the_saved_times(solver):
    p = problem("interior")
    start = tuple(np.full(s.shape, 0.35) for s in p.known["free"])
    times = np.array([2.0, 2.001, 2.5, 4.0, 9.0])
    path = solver.follow(p.network, p.drive, start, p.nudges["nudged"], times)
    exact = oracles.interior_path(p.network, p.images, start, times - 2.0, p.nudges["nudged"])
    np.testing.assert_array_equal(path[0], flatten(start))
    np.testing.assert_allclose(path, exact, atol=3e-8)


def test_saved_times_do_not_bend_a_constant_step_path():
    p = problem("saturated")
    solver, start = ReferenceSolver("rk4", dt=0.05), rate.zero_state(p.network, p.batch)
    coarse = solver.follow(p.network, p.drive, start, None, [0, 1, 3])
    fine = solver.follow(p.network, p.drive, start, None, np.linspace(0, 3, 31))
    np.testing.assert_allclose(fine[[0, 10, 30]], coarse, atol=1e-13)


def test_a_controlled_path_without_steps_left_is_nan_from_there_on():
    p = problem("deep")
    path = ReferenceSolver("bosh3", max_steps=20).follow(
        p.network, p.drive, rate.zero_state(p.network, p.batch), None, [0.0, 0.01, 10.0, 10.1]
    )
    assert np.isfinite(path[:2]).all()
    assert np.isnan(path[2:]).all()


@pytest.mark.parametrize("name", HARD[:3])
def test_a_projected_path_stays_in_the_box_and_starts_at_the_given_state(name):
    p = problem(name)
    start = tuple(np.full(s.shape, 1.5) for s in p.known["free"])
    path = ReferenceSolver("rk4", dt=0.1).follow(p.network, p.drive, start, None, [0.0, 0.1, 1.0])
    assert (path[0] == 1.5).all()
    assert path[1:].min() >= 0
    assert path[1:].max() <= 1


@pytest.mark.parametrize("times", [[], [0.0, 0.0], [1.0, 0.5], [0.0, np.nan], [[0.0, 1.0]], 3.0])
def test_times_must_increase(times):
    p = problem("interior")
    with pytest.raises(ConfigurationError, match="times has shape"):
        ReferenceSolver().follow(p.network, p.drive, rate.zero_state(p.network, p.batch), None, times)
