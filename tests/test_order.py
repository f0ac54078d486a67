"""The methods have the order they state: by their coefficients, and as observed against exact
solutions (model fact 6).
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import oracles
import pytest
from problems import problem
from scipy.integrate import solve_ivp

from fsp_dynamics.models.rate import layers
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.solvers.reference import ReferenceSolver
from fsp_dynamics.solvers.tableaux import TABLEAUX

ALL = list(TABLEAUX.values())
EMBEDDED = [t for t in ALL if t.error is not None]
EXPECTED = {"euler": (1, 0.05), "heun": (2, 0.1), "bosh3": (3, 0.15), "rk4": (4, 0.2), "dopri5": (5, 0.3)}
EVERY_KIND = pytest.mark.parametrize("kind", [ReferenceSolver, NumbaSolver])
# coarsest of five grids, each half the last
STEPS = {"euler": 128, "heun": 32, "bosh3": 16, "rk4": 8, "dopri5": 8}


@cache
def trees(order):
    """All rooted trees with `order` vertices, as nested sorted tuples of subtrees."""
    if order == 1:
        return {()}
    found = set()
    for first in range(1, order):
        for branch, rest in itertools.product(trees(first), trees(order - first)):
            found.add(tuple(sorted((*rest, branch))))
    return found


def size(tree):
    return 1 + sum(map(size, tree))


def density(tree):
    return size(tree) * np.prod([density(branch) for branch in tree])


def weights(tree, a):
    """Elementary weight of each stage: the product over the branches of a @ weights(branch)."""
    return np.prod([np.ones(len(a)), *(a @ weights(branch, a) for branch in tree)], axis=0)


def defects(tableau, b, order):
    """b . Phi(tree) - 1 / density(tree) for every tree with `order` vertices: 0 for a method of
    that order.
    """
    a = np.array([[*row, *[0.0] * (len(tableau.b) - len(row))] for row in tableau.a])
    return np.array([b @ weights(tree, a) - 1 / density(tree) for tree in trees(order)])


def test_there_are_as_many_trees_as_order_conditions():
    assert [len(trees(n)) for n in range(1, 7)] == [1, 1, 2, 4, 9, 20]


@pytest.mark.parametrize("tableau", ALL, ids=lambda t: t.name)
def test_coefficients_meet_the_conditions_of_their_order_and_of_no_higher_one(tableau):
    b = np.array(tableau.b)
    for order in range(1, tableau.order + 1):
        assert np.abs(defects(tableau, b, order)).max() < 1e-14
    assert np.abs(defects(tableau, b, tableau.order + 1)).max() > 1e-5


@pytest.mark.parametrize("tableau", EMBEDDED, ids=lambda t: t.name)
def test_embedded_methods_have_one_order_less(tableau):
    b = np.array(tableau.b) - np.array(tableau.error)
    for order in range(1, tableau.order):
        assert np.abs(defects(tableau, b, order)).max() < 1e-14
    assert np.abs(defects(tableau, b, tableau.order)).max() > 1e-5


@pytest.mark.parametrize("tableau", ALL, ids=lambda t: t.name)
def test_tableaux_are_explicit_and_consistent(tableau):
    assert [len(row) for row in tableau.a] == list(range(len(tableau.b)))
    assert tableau.c == pytest.approx([sum(row) for row in tableau.a], abs=1e-14)
    same = (*tableau.a[-1], 0.0) == tableau.b and tableau.c[-1] == 1
    assert tableau.fsal == same, "the last stage is the next step's first exactly when its row is b"


def slopes(kind, method, p, start, exact, span):
    """log2 of how much the error falls in each of four halvings of the step."""
    errors = []
    for halving in range(5):
        solver = kind(method, dt=span / (STEPS[method] * 2**halving))
        errors.append(np.abs(solver.follow(p.network, p.drive, start, None, [0.0, span])[-1] - exact).max())
    return np.log2(np.array(errors[:-1]) / errors[1:])


@EVERY_KIND
@pytest.mark.parametrize("method", TABLEAUX)
def test_observed_order_inside_the_box(method, kind):
    p = problem("interior")
    start = tuple(np.full(s.shape, 0.35) for s in p.known["free"])
    exact = oracles.interior_path(p.network, p.images, start, [3.0])[0]
    order, margin = EXPECTED[method]
    assert slopes(kind, method, p, start, exact, 3.0).mean() == pytest.approx(order, abs=margin)


@EVERY_KIND
@pytest.mark.parametrize("method", TABLEAUX)
def test_observed_order_on_a_nonlinear_field(method, kind):
    p = problem("shifted_tanh")
    start = tuple(np.full(s.shape, 0.5) for s in p.known["free"])
    order, margin = EXPECTED[method]
    assert slopes(kind, method, p, start, _fine_path(2.0), 2.0).mean() == pytest.approx(order, abs=2 * margin)


@cache
def _fine_path(span):
    """The flat states of the shifted_tanh problem at `span`, from 0.5, by another integrator on
    the oracle's field.
    """
    p = problem("shifted_tanh")

    def right(_, flat):
        return np.concatenate(
            oracles.field(p.network, p.images, layers(p.network, flat.reshape(p.batch, -1))), axis=1
        ).ravel()

    flat = np.full(p.batch * sum(p.network.sizes[1:]), 0.5)
    return solve_ivp(right, (0, span), flat, "DOP853", rtol=1e-13, atol=1e-14).y[:, -1].reshape(p.batch, -1)


@pytest.mark.parametrize("method", TABLEAUX)
def test_a_kink_leaves_order_one(method):
    p = problem("saturated")
    start = tuple(np.full(s.shape, 0.5) for s in p.known["free"])
    exact = ReferenceSolver("dopri5", form="rate").follow(p.network, p.drive, start, None, [0.0, 2.0])[-1]
    errors = []
    for dt in (0.2, 0.1, 0.05, 0.025):
        found = ReferenceSolver(method, dt=dt, form="rate").follow(p.network, p.drive, start, None, [0.0, 2.0])[-1]
        errors.append(np.abs(found - exact).max())
    assert np.log2(errors[0] / errors[-1]) / 3 > 0.9
