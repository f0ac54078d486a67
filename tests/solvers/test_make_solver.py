"""The registry of solvers: import strings, resolved when a solver is made."""

from __future__ import annotations

import ast
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import problems
import pytest

from fsp_dynamics import solvers
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.rate import zero_state
from fsp_dynamics.solvers import SOLVERS, make_solver, relax
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Status
from fsp_dynamics.solvers.numba_ode import NumbaSolver

HAS_TORCH = importlib.util.find_spec("torch") is not None


class Still:
    """A solver of a user's own: every sample stays where it starts."""

    def __init__(self, status: int = 1) -> None:
        self.status = status

    def relax(self, network, drive, start=None, nudge=None, tolerance=None):
        state = zero_state(network, len(drive)) if start is None else start
        numbers = np.zeros(len(drive))
        return Equilibrium(state, numbers, np.full(len(drive), self.status, np.uint8), numbers.astype(int))


@pytest.mark.parametrize("name", SOLVERS)
def test_every_import_string_leads_to_a_solver(name) -> None:
    if name.startswith("torch") and not HAS_TORCH:
        pytest.skip("needs torch")
    solver = make_solver(name)
    assert isinstance(solver, Solver)
    assert f"{type(solver).__module__}:{type(solver).__name__}" == SOLVERS[name]


def test_a_new_solver_is_one_file_and_one_line(monkeypatch) -> None:
    module = types.ModuleType("a_users_module")
    module.Still = Still
    monkeypatch.setitem(sys.modules, "a_users_module", module)
    monkeypatch.setitem(SOLVERS, "still", "a_users_module:Still")
    assert make_solver("still", status=2).status == 2
    with pytest.raises(ConfigurationError, match=r"solver 'still' has no setting 'statsu'.*'status'"):
        make_solver("still", statsu=2)
    p = problems.problem("strong")
    assert relax(p.network, p.images, solver="still").status.tolist() == [Status.OUT_OF_STEPS] * p.batch


def test_an_object_with_a_relax_method_is_a_solver() -> None:
    p = problems.problem("strong")
    found = relax(p.network, p.images, solver=Still())
    assert not any(s.any() for s in found.state)


def test_a_fixed_point_solver_integrates_what_does_not_converge_unless_told_otherwise() -> None:
    assert make_solver("fixed_point").fallback == NumbaSolver()
    assert make_solver("fixed_point", fallback=None).fallback is None


def test_no_import_statement_of_a_solver_leads_to_a_higher_floor() -> None:
    low = {"arrays", "errors", "settings", "models", "kernels", "solvers", "plotting", "display"}
    for file in Path(solvers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                own = name.split(".")[1:2] if name.startswith("fsp_dynamics") else []
                assert set(own) <= low, (file.name, name)
