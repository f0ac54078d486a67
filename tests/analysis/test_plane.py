"""The phase plane: components as an SVD finds them, and the flow as the field has it."""

from __future__ import annotations

import numpy as np
import pytest
from problems import problem

from fsp_dynamics.analysis.plane import principal_plane, unit_flow
from fsp_dynamics.analysis.stability import growth
from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.models import rate
from fsp_dynamics.solvers import relax
from fsp_dynamics.solvers.tableaux import TABLEAUX


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (2, 2), (30, 2)])
def test_components_are_those_of_the_svd(shape: tuple[int, int]) -> None:
    states = np.random.default_rng(1).normal(size=shape) @ np.diag(np.geomspace(5, 0.1, shape[1]))
    plane = principal_plane(states)
    moved = states - states.mean(0)
    _, sizes, axes = np.linalg.svd(moved, full_matrices=False)
    held = (sizes > 1e-9 * sizes[0])[:2]
    np.testing.assert_allclose(np.abs((plane.axes * axes[:2]).sum(1))[held], 1, atol=1e-9)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(plane.variance_fraction, sizes[:2] ** 2 / (sizes**2).sum(), atol=1e-12)
    np.testing.assert_allclose(plane.project(states), moved @ plane.axes.T, atol=1e-12)
    assert (plane.axes[[0, 1], np.abs(plane.axes).argmax(1)] > 0).all()


@pytest.mark.parametrize(
    "states",
    [np.ones((5, 3)), np.zeros((1, 4)), np.outer(np.arange(6.0), [1, 0, 2.0])],
    ids=["still", "one point", "a line"],
)
def test_a_path_without_two_directions_is_flat(states: np.ndarray) -> None:
    plane = principal_plane(states)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
    seen = plane.project(states)
    np.testing.assert_allclose(np.ptp(seen[:, 1]), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(seen[-1] - seen[0]), np.linalg.norm(states[-1] - states[0]), atol=1e-12)
    assert plane.variance_fraction[1] == 0


def test_points_that_are_not_finite_do_not_span_it() -> None:
    states = np.random.default_rng(2).normal(size=(9, 4))
    broken = np.concatenate([states, [[np.inf, 0, 0, 0], [0, np.nan, 0, 0]]])
    np.testing.assert_allclose(principal_plane(broken).axes, principal_plane(states).axes)
    with pytest.raises(ConfigurationError, match="no finite point"):
        principal_plane(np.full((3, 4), np.nan))
    with pytest.raises(ConfigurationError, match="1 units, expected 2 or more"):
        principal_plane(np.ones((3, 1)))
    with pytest.raises(ShapeError, match="states"):
        principal_plane(np.ones(3))


@pytest.mark.parametrize("name", ["strong", "logistic", "tied", "time-constants"])
@pytest.mark.parametrize("which", ["free", "nudged"])
def test_the_flow_is_the_field_with_two_units_moved(name: str, which: str) -> None:
    p = problem(name)
    images, nudge = p.images[1:2], None if which == "free" else p.nudges["nudged"].rows([1])
    state = rate.flatten(relax(p.network, images, nudge=nudge).state)[0]
    x, y = np.linspace(-0.2, 1.2, 5), np.linspace(0, 1, 4)
    units = (1, len(state) - 1)
    flow = unit_flow(p.network, images, state, nudge, units, x, y)
    assert flow.shape == (2, 4, 5)
    for i, j in np.ndindex(4, 5):
        moved = state.copy()
        moved[list(units)] = x[j], y[i]
        field = rate.flatten(
            rate.rate_field(p.network, rate.drive(p.network, images), rate.layers(p.network, moved[None]), nudge)
        )[0]
        np.testing.assert_allclose(flow[:, i, j], field[list(units)], rtol=1e-12, atol=1e-12)
    still = unit_flow(p.network, images, state, nudge, units, state[[units[0]]], state[[units[1]]])
    assert np.abs(still).max() < 1e-9


@pytest.mark.parametrize(
    ("units", "complaint"),
    [
        ((0, 0), "expected two different units"),
        ((-1, 2), "unit x = -1, expected 0 to"),
        ((0, 99), "unit y = 99, expected 0 to"),
    ],
)
def test_units_that_are_not_there_are_refused(units: tuple[int, int], complaint: str) -> None:
    p = problem("strong")
    state = rate.flatten(relax(p.network, p.images[:1]).state)[0]
    with pytest.raises(ConfigurationError, match=complaint):
        unit_flow(p.network, p.images[:1], state, None, units, np.zeros(2), np.zeros(2))


@pytest.mark.parametrize("name", TABLEAUX)
def test_growth_is_what_one_step_does_to_a_mode(name: str) -> None:
    """The tableau's stages taken one by one on ds/dt = lambda s."""
    method = TABLEAUX[name]
    for z in (-0.5 + 0.3j, -3.0 + 0j, 0.2 + 2j):
        stages: list[complex] = []
        for row in method.a:
            stages.append(z * (1 + sum(a * k for a, k in zip(row, stages, strict=False))))
        step = 1 + sum(b * k for b, k in zip(method.b, stages, strict=False))
        assert growth(name, np.array([z]))[0] == pytest.approx(abs(step), rel=1e-12)
    with pytest.raises(ConfigurationError, match="tableau = 'rk5'"):
        growth("rk5", np.zeros(1))
