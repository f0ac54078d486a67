"""The list of planted defects (mutants.toml, run by `make mutants`) does not rot: every defect
still applies to the sources, and its test is there.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import mutants

ROOT = Path(__file__).parents[1]
LIST = mutants.read_mutants()
# Rooms of the package in which a defect is planted; the others show, and are looked at.
ROOMS = {
    *("models", "kernels", "solvers", "learning", "training", "torch_backend", "analysis", "experiments", "datasets"),
    *("cli", "plotting", "sklearn", "errors"),
}


def functions(file):
    """The names of the tests in a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_defect_applies_to_the_sources_as_they_are():
    """Its text occurs exactly once, and what is put there is Python."""
    for mutant in LIST:
        text = (ROOT / mutant.path).read_text(encoding="utf-8")
        assert text.count(mutant.old) == 1, f"{mutant.name}: {text.count(mutant.old)} times in {mutant.path}"
        ast.parse(mutant.planted(text), mutant.name)


def test_every_defect_has_a_test_that_is_there():
    known = {}
    for mutant in LIST:
        file, _, name = mutant.test.partition("::")
        names = known.setdefault(file, functions(file) if (ROOT / file).is_file() else set())
        assert name.partition("[")[0] in names, f"{mutant.name}: {mutant.test}"


def test_defects_have_names_of_their_own_and_say_what_they_mean():
    assert [name for name, times in Counter(mutant.name for mutant in LIST).items() if times > 1] == []
    assert [mutant.name for mutant in LIST if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", mutant.name)] == []
    assert [mutant.name for mutant in LIST if not mutant.means.strip() or "\n" in mutant.means] == []


def test_there_are_enough_of_them_in_every_room():
    rooms = Counter(mutant.file.split("/")[0].removesuffix(".py") for mutant in LIST)
    assert len(LIST) >= 60
    assert set(rooms) >= ROOMS


def test_a_defect_is_killed_by_a_test_that_fails_and_survives_one_that_passes(tmp_path, monkeypatch):
    source, place = tmp_path / "source", tmp_path / "place"
    for name in (*mutants.COPIED, "fsp_dynamics/room", "tests/room"):
        (source / name).mkdir(parents=True)
    for name in mutants.ALSO:
        (source / name).write_text("[tool]\n" if name.endswith(".toml") else "")
    original = "def double(x):\n    return x + x\n"
    (source / "fsp_dynamics" / "room" / "double.py").write_text(original)
    (source / "tests" / "room" / "test_double.py").write_text(
        "from fsp_dynamics.room.double import double\n\n\n"
        "def test_strict():\n    assert double(2) == 4\n\n\n"
        "def test_lax():\n    assert double(2) > 0\n\n\n"
        "def test_wrong():\n    assert double(2) == 5\n"
    )
    place.mkdir()
    monkeypatch.setattr(mutants, "ROOT", source)

    def planted(name, old="x + x"):
        return mutants.Mutant("tripled", "room/double.py", old, "x + x + x", f"tests/room/test_double.py::{name}", "")

    strict, lax, wrong = (planted(f"test_{name}") for name in ("strict", "lax", "wrong"))
    workplace = mutants.Workplace(place)
    assert mutants.without_defects([strict, lax, wrong], workplace) == {(strict.test, False), (lax.test, False)}
    assert mutants.judge(strict, workplace)[0] == mutants.KILLED
    assert mutants.judge(lax, workplace)[0] == mutants.SURVIVED
    assert mutants.judge(planted("test_strict", "y + y"), workplace)[0] == mutants.NOT_APPLICABLE
    assert mutants.judge(planted("test_missing"), workplace)[0] == mutants.NOT_APPLICABLE
    assert (place / strict.path).read_text() == original, "the defect is taken out again"
