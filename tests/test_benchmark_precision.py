"""The benchmark of work and precision, tiny: all methods solve the same task, and the work is
counted as documented. No timing.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

import fsp_dynamics as fsp
from fsp_dynamics.models import rate
from fsp_dynamics.solvers.numba_ode import NumbaSolver

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # the benchmarks are a package of the source tree, not of the installation

from benchmarks.precision import MARKS, Method, Row, Task, all_methods, draw, measure, write

TOLERANCES = (1e-1, 1e-2, 1e-4)


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(1)
    return Task.of(fsp.loop_network([12, 9, 7, 5], rng=0), rng.random((3, 12)))


@pytest.fixture(scope="module")
def rows(task):
    return measure(task, all_methods(), TOLERANCES, turns=1, patience=600)


def by_method(rows):
    found = {}
    for row in rows:
        found.setdefault((row.solver, row.method, row.dt), []).append(row)
    return found


def test_the_error_falls_with_the_tolerance_and_costs_fields(rows):
    methods = by_method(rows)
    assert len(methods) == len(all_methods())
    for name, own in methods.items():
        assert [row.tolerance for row in own] == list(TOLERANCES), name
        assert all(row.converged == 1 and row.residual <= row.tolerance for row in own), name
        assert own[0].error > own[-1].error < 1e-3, name
        assert own[0].fields <= own[1].fields <= own[2].fields > own[0].fields, name


def test_the_reference_equilibrium_is_one(task):
    state = tuple(np.split(task.equilibrium, np.cumsum(task.network.sizes[1:])[:-1], axis=1))
    assert rate.residual(task.network, task.drive, state).max() < 1e-13


@pytest.mark.parametrize(("method", "dt"), [("rk4", 0.5), ("dopri5", None), ("bosh3", None)])
def test_fields_of_the_reference_are_counted(method, dt, task, monkeypatch):
    """For one sample, so that a call is an evaluation."""
    alone, calls = Task(task.network, task.drive[:1], task.equilibrium[:1]), []
    for name in ("field", "rate_field"):
        plain = getattr(rate, name)
        monkeypatch.setattr(rate, name, lambda *given, plain=plain: calls.append(1) or plain(*given))
    _, fields = Method("reference", method, dt).ready(alone)(1e-6)
    assert fields == len(calls)


@pytest.mark.parametrize(
    ("method", "dt"), [("euler", 0.5), ("heun", None), ("rk4", 0.5), ("bosh3", None), ("dopri5", None)]
)
def test_a_compiled_step_has_as_many_fields_as_along_a_path(method, dt, task):
    start = rate.zero_state(task.network, len(task.drive))
    found = NumbaSolver(method, dt=dt).integrate(task.network, task.drive, start, None, np.array([0.0, 2.0]))
    np.testing.assert_array_equal(found.fields, 1 + Method("numba_ode", method, dt).fields_of_a_step() * found.steps)


def test_slow_methods_are_not_run_at_tighter_tolerances(task):
    (row,) = measure(task, [Method("fixed_point", "picard")], TOLERANCES, turns=3, patience=0)
    assert (row.tolerance, row.turns) == (TOLERANCES[0], 3)
    assert 0 < row.seconds <= row.seconds_median


def test_rows_are_written_and_drawn(rows, tmp_path):
    write(rows, tmp_path / "precision.csv")
    with (tmp_path / "precision.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert list(written[0]) == [field.name for field in dataclasses.fields(Row)]
    assert [row["method"] for row in written] == [row.method for row in rows]
    np.testing.assert_allclose([float(row["error"]) for row in written], [row.error for row in rows], rtol=1e-3)
    lost = [dataclasses.replace(row, converged=0.5) if row.method == "dopri5" else row for row in rows]
    for given, left_out in (
        (rows, 0),
        (lost, len({row.solver for row in rows if row.method == "dopri5"} - {"reference"})),
    ):
        drawn = {(row.solver, row.method, row.dt) for row in given if row.method in MARKS and row.solver != "reference"}
        assert [len(ax.lines) for ax in draw(given, "tiny").axes] == 2 * [len(drawn) - left_out]
