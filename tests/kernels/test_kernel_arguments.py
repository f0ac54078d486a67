"""What the source of the kernels promises: one definition of each status, and records that are
read by the names of their fields.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fsp_dynamics import kernels
from fsp_dynamics.kernels import status
from fsp_dynamics.solvers.equilibrium import Status

PACKAGE = Path(kernels.__file__).parents[1]
KERNELS = sorted((PACKAGE / "kernels").glob("*.py"))
STATUSES = {"CONVERGED", "OUT_OF_STEPS", "NOT_FINITE", "OSCILLATES", "RUNNING", "ABSENT"}


def records() -> set[str]:
    """The names of all NamedTuples of the kernels."""
    return {
        node.name
        for file in KERNELS
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "NamedTuple" for base in node.bases)
    }


def by_number(source: str, names: set[str]) -> list[str]:
    """Where a parameter annotated as one of these records is indexed or unpacked."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        given = {a.arg for a in function.args.args if a.annotation and ast.unparse(a.annotation) in names}
        for node in ast.walk(function):
            whole = node.value if isinstance(node, ast.Subscript | ast.Assign | ast.Starred) else None
            if isinstance(whole, ast.Name) and whole.id in given:
                found.append(ast.unparse(node))
    return found


def test_the_check_finds_numbers() -> None:
    source = "def f(net: LoopNet, x):\n    a = net[0]\n    b, c = net\n    g(*net)\n    return net.weights[1] + x[2]"
    assert sorted(by_number(source, {"LoopNet"})) == ["*net", "b, c = net", "net[0]"]


@pytest.mark.parametrize("file", KERNELS, ids=lambda file: file.stem)
def test_records_are_read_by_name(file) -> None:
    assert by_number(file.read_text(), records()) == []


def test_the_records_of_the_kernels_are_found() -> None:
    assert {"LoopNet", "LayerBuffers", "StepTableau", "Limits"} <= records()


def test_statuses_are_defined_once() -> None:
    """Elsewhere they are imported, or the members of the enum that is made from them."""
    for file in PACKAGE.rglob("*.py"):
        defined = {
            name.id
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Assign) and not (file.name == "equilibrium.py" and isinstance(node.value, ast.Name))
            for target in node.targets
            for name in ast.walk(target)
            if isinstance(name, ast.Name) and name.id in STATUSES
        }
        assert defined == (STATUSES if file.name == "status.py" else set()), file
    assert {member.name: int(member) for member in Status} == {
        name: getattr(status, name) for name in STATUSES - {"RUNNING", "ABSENT"}
    }
    assert max(status.RUNNING, status.ABSENT) < 0
