"""`make test` and `make test-all`: every test is run, and with the compiler exactly once."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

ROOT = Path(__file__).parents[1]
MARKERS = {
    line.split(":")[0]
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
}
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def commands(target):
    """The commands that the target would run, each as words; settings come first."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "-n", target], cwd=ROOT, env=given, capture_output=True, text=True, check=True, timeout=60
    )
    return [shlex.split(line) for line in done.stdout.splitlines() if "pytest" in line or "coverage" in line]


def passes(target):
    """(settings, marker expression, paths, other options) of every run of pytest."""
    found = []
    for words in commands(target):
        if "pytest" not in words:
            continue
        at = words.index("pytest")
        settings = {word for word in words[:at] if re.match(r"[A-Z_]+=", word)}
        options = words[at + 1 :]
        wanted = options[options.index("-m") + 1] if "-m" in options else ""
        paths = [word for word in options if word.startswith("tests")]
        found.append((settings, wanted, paths, options))
    return found


def compiled(settings):
    return not any(word.startswith(("NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK")) for word in settings)


def chosen(expression, marks):
    return not expression or Expression.compile(expression).evaluate(lambda name, **_: name in marks)


def test_every_test_is_run_exactly_once_with_the_compiler():
    """Whatever marks it has; no path is named and none is ignored, so no file is forgotten."""
    whole = [each for each in passes("test-all") if compiled(each[0])]
    assert all(paths == [] and not re.search("--ignore|--deselect| -k ", " ".join(o)) for _, _, paths, o in whole)
    for marks in [set(), *({m} for m in MARKERS), *(MARKERS - {m} for m in MARKERS), MARKERS]:
        assert sum(chosen(wanted, marks) for _, wanted, _, _ in whole) == 1, marks


def test_make_test_is_the_first_part_of_it_and_runs_what_is_not_rare():
    (only,) = passes("test")
    assert (chosen(only[1], {"slow", "cli"}), chosen(only[1], {"rare"})) == (True, False)
    assert "--cov" not in only[3], "coverage is counted in test-all"
    uncounted = [[word for word in options if not word.startswith("--cov")] for *_, options in passes("test-all")]
    assert uncounted == [only[3], *(options for *_, options in passes("rest"))]


def test_kernels_are_run_as_plain_python_and_with_checked_indices():
    special = [each for each in passes("test-all") if not compiled(each[0])]
    assert len(special) == 2
    for settings, _, paths, options in special:
        assert "tests/kernels" in paths
        assert all((ROOT / path).exists() for path in paths), paths
        checked = "NUMBA_BOUNDSCHECK=1" in settings
        assert checked == any(word.startswith("NUMBA_CACHE_DIR=") for word in settings), (
            "unchecked code would be loaded"
        )
        assert ("--cov" in options) != checked


def test_coverage_has_its_floor_where_all_is_counted():
    words = [each for each in commands("test-all") if "coverage" in " ".join(each[:1])]
    assert ["--fail-under=90" in each for each in words] == [True]
    assert not any("coverage" in " ".join(each[:1]) for each in commands("test"))


def test_help_lists_the_targets_and_the_continuous_integration_runs_all_of_them():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    for target in ("test", "test-all", "lint", "docs"):
        assert f"make {target} " in done.stdout
    script = (ROOT / ".ci" / "run").read_text()
    assert script.rstrip().endswith("exec make test-all")


def test_the_files_that_come_first_are_there():
    first = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["FIRST"]
    assert [name for name in first if not (ROOT / name).is_file()] == []


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them by name, and `--dist loadfile` deals them out by file."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
    assert not list((ROOT / "tests").rglob("*_test.py"))


@pytest.fixture
def venv(tmp_path):
    """A set-up in which all but the packages is there; its Python notes what it is asked, and fails
    where that holds `fails`.
    """
    (tmp_path / "bin").mkdir()
    (tmp_path / "made").touch()
    python = tmp_path / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$@" >> "$LOG"\ncase "$*" in *$FAILS*) exit 3;; esac\n')
    python.chmod(0o755)

    def make(fails="nothing"):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        given = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        command = ["make", "-s", f"VENV={tmp_path}", "FACTS=", str(tmp_path / "ready")]
        given |= {"LOG": str(log), "FAILS": fails}
        done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, log.read_text().splitlines(), (tmp_path / "ready").exists()

    return make


def test_the_set_up_compiles_while_it_installs(venv):
    """Once the package is there, and before its largest dependency is."""
    code, asked, ready = venv()
    assert (code, ready) == (0, True)
    assert asked[0].endswith("-e .")
    assert sorted(line.split()[1] for line in asked[1:]) == ["fsp_dynamics", "pip"]
    assert any("train digits --dry-run" in line for line in asked)
    assert any(line.endswith("-e .[torch]") for line in asked)


@pytest.mark.parametrize("stamp", ["ready", "ready-for-tests", "ready-for-fuzzing"])
def test_every_step_of_the_set_up_is_named_before_it_begins(tmp_path, stamp):
    """Each takes up to minutes, and pip says nothing."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-n", f"VENV={tmp_path / 'new'}", "PYTHON=python3", str(tmp_path / "new" / stamp)]
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    steps = [at for at, line in enumerate(lines) if re.search(r"-m (venv|pip)\b", line)]
    assert len(steps) >= 2
    assert all(lines[at - 1].startswith("echo ") for at in steps), lines
    assert len({lines[at - 1] for at in steps}) == len(steps)


def test_kernels_that_cannot_be_compiled_now_are_compiled_later(venv):
    assert venv("dry-run")[::2] == (0, True)


def test_what_cannot_be_installed_is_an_error(venv):
    for part in ("torch", "pip"):
        code, _, ready = venv(part)
        assert code != 0, part
        assert not ready
