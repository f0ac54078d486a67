"""Equilibria found from random initial states, in networks with known attractors, saddles and
cycles.
"""

from __future__ import annotations

import numpy as np
import oracles
import problems
import pytest

from fsp_dynamics.analysis.attractors import attractors
from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.models.activations import Activation, logistic, logistic_slope
from fsp_dynamics.models.builders import reciprocal_network
from fsp_dynamics.models.network import Network
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.reference import ReferenceSolver

NUMPY = ReferenceSolver()
ONE = np.ones((1, 1))


def switch(loop=0.8):
    """s_1 = clip(loop y - 0.2), y = clip(2 s_1 + 0.1): stable at y = 0.1 and 1, a saddle at 0.3 /
    (2 loop - 1) between them (loop 0.65 to 2).
    """
    return Network(input=0 * ONE, forward=(2 * ONE,), loop=loop * ONE, biases=(np.array([-0.2]), np.array([0.1])))


def smooth_switch(w=60.0, rho="logistic"):
    """Two equal units that excite each other, symmetric round s = 0 but for a bias of 3."""
    return Network(
        input=0 * ONE, forward=(w * ONE,), loop=w * ONE, biases=(np.full(1, 3 - w / 2), np.full(1, 3 - w / 2)), rho=rho
    )


def side_of(start, steps=4000, h=0.02):
    """Where explicit Euler in a plain loop takes `switch` from (s_1, y): True for the upper
    equilibrium.
    """
    s, y = start
    for _ in range(steps):
        s, y = (
            s + h * (min(max(0.8 * min(max(y, 0), 1) - 0.2, 0), 1) - s),
            y + h * (min(max(2 * min(max(s, 0), 1) + 0.1, 0), 1) - y),
        )
    return y > 0.5


@pytest.mark.parametrize("solver", [NUMPY, None], ids=("numpy", "default"))
def test_a_switch_has_two_and_its_saddle_is_not_found(solver) -> None:
    (found,) = attractors(switch(), np.zeros((1, 1)), starts=60, rng=3, solver=solver)
    upper = sum(side_of(start) for start in np.random.default_rng(3).random((60, 2)))
    assert 0 < upper < 60
    order = np.argsort(found.states[1][:, 0])
    assert found.states[1][order, 0] == pytest.approx([0.1, 1.0], abs=1e-10)
    assert found.states[0][order, 0] == pytest.approx([0.0, 0.6], abs=1e-10)
    assert found.fraction[order] == pytest.approx([1 - upper / 60, upper / 60], abs=1e-12)
    assert (np.diff(found.fraction) <= 0).all()
    assert (found.count, found.unconverged) == (2, 0)


def test_a_smooth_switch() -> None:
    """Both equilibria solve eq. 13, on either side of 0, and they are stable: the slope of the
    field through them is negative.
    """
    network = smooth_switch()
    (found,) = attractors(network, np.zeros((1, 1)), starts=30, solver=NUMPY)
    assert found.count == 2
    assert sorted(np.sign(found.states[1][:, 0])) == [-1, 1]
    images = np.zeros((2, 1))
    assert oracles.residual(network, images, found.states).max() < 1e-10
    assert (np.linalg.eigvals(oracles.jacobian(network, images, found.states)).real < 0).all()
    assert found.fraction.sum() == pytest.approx(1)


def test_an_image_does_not_depend_on_the_other_images() -> None:
    p = problems.problem("strong")
    both = attractors(p.network, p.images[:2], starts=8, solver=NUMPY)
    alone = attractors(p.network, p.images[1:2], starts=8, solver=NUMPY)
    assert [a.count for a in both] == [1, 1]
    for k in range(p.network.depth):
        assert both[1].states[k] == pytest.approx(p.known["free"][k][1:2], abs=1e-10)
        assert both[1].states[k] == pytest.approx(alone[0].states[k], abs=1e-12)


def test_a_limit_cycle_has_no_equilibrium() -> None:
    p = problems.ring(3, 12.0)
    (found,) = attractors(p.network, p.images[:1], starts=5, solver=ReferenceSolver("rk4", dt=0.2, max_steps=400))
    assert (found.count, found.unconverged, found.fraction.size) == (0, 5, 0)
    assert [s.shape for s in found.states] == [(0, 1)] * 3


def test_equilibria_closer_than_the_separation_are_one() -> None:
    """The two equilibria differ by 0.6 and 0.9 in their units."""
    assert attractors(switch(), np.zeros((1, 1)), starts=30, solver=NUMPY, separation=0.85)[0].count == 2
    assert attractors(switch(), np.zeros((1, 1)), starts=30, solver=NUMPY, separation=0.95)[0].count == 1


def test_the_tolerance_is_the_solver_s() -> None:
    """A loose one stops early, at as many states as there are initial states."""
    found = attractors(switch(), np.zeros((1, 1)), starts=20, solver=NUMPY, tolerance=Tolerance(0.3), separation=1e-6)[
        0
    ]
    assert found.count > 5


def test_reciprocal_networks_and_custom_activations() -> None:
    own = Activation("own", logistic, logistic_slope)
    found = attractors(smooth_switch(rho=own), np.zeros((1, 1)), starts=30)[0]
    named = attractors(smooth_switch(), np.zeros((1, 1)), starts=30, solver=NUMPY)[0]
    assert np.array_equal(found.fraction, named.fraction)
    tied = reciprocal_network([1, 1, 1], dtype=np.float64)
    tied = tied.with_parameters({"forward[0]": 3 * ONE, "biases[0]": np.full(1, -1.0), "biases[1]": np.full(1, -1.0)})
    assert attractors(tied, np.zeros((1, 1)), starts=30, solver=NUMPY)[0].count == 2


def test_unusable_input_is_named() -> None:
    with pytest.raises(ConfigurationError, match="starts = 0, expected a whole number"):
        attractors(switch(), np.zeros((1, 1)), starts=0)
    with pytest.raises(ConfigurationError, match="FixedPointSolver, expected an integrator in time"):
        attractors(switch(), np.zeros((1, 1)), solver=FixedPointSolver())
    with pytest.raises(ConfigurationError, match="separation = 0"):
        attractors(switch(), np.zeros((1, 1)), separation=0)
    with pytest.raises(ShapeError):
        attractors(switch(), np.zeros((1, 2)))
