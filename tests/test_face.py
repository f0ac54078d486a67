"""What a stranger meets first: the public names, the README, the examples in docstrings, the
project's own files.
"""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from test_docs import PAGES, listed

import fsp_dynamics as fsp

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = {"torch", "matplotlib", "numba", "pydantic", "sklearn", "scipy", "xarray", "numpy", "pandas", "anywidget"}


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code, or `-m module`, in a fresh process."""
    command = [sys.executable, *(["-c", code] if "\n" in code or " " in code else ["-m", code]), *arguments]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False
    )


# Names


@pytest.mark.parametrize("name", fsp.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    found = getattr(fsp, name)
    assert name in dir(fsp)
    if name != "__version__":
        assert found.__module__.startswith("fsp_dynamics.")
        assert found.__name__ == name
        assert found.__doc__
        assert not re.match(rf"{name}\(", found.__doc__), "a signature that dataclass wrote is no docstring"
        assert f"\n| `{name}` | " in PAGES["api/index.md"]


def test_the_face_is_small_and_knows_nothing_else() -> None:
    assert len(fsp.__all__) <= 25
    assert fsp.__all__ == sorted(fsp.__all__)
    fsp.load_dataset, fsp.train  # noqa: B018  # what has been loaded for a name is not offered itself
    assert dir(fsp) == fsp.__all__
    with pytest.raises(AttributeError, match="module 'fsp_dynamics' has no attribute 'forward'"):
        fsp.forward  # noqa: B018


def test_type_checkers_see_the_same_names_in_the_same_rooms() -> None:
    tree = ast.parse(Path(fsp.__file__).read_text(encoding="utf-8"))
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == {name: f"fsp_dynamics.{room}" for name, room in fsp._ROOM_OF.items()}
    assert {*seen, "__version__"} == set(fsp.__all__)


@pytest.mark.cli
def test_importing_the_face_loads_nothing_heavy() -> None:
    done = python(
        "import json, sys; import fsp_dynamics; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(json.loads(done.stdout))


@pytest.mark.cli
def test_a_network_needs_neither_torch_nor_the_compiler() -> None:
    done = python(
        "import sys, fsp_dynamics as f; f.loop_network([4, 3, 2]); print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert done.returncode == 0, done.stderr
    assert not {"torch", "matplotlib", "numba", "pydantic", "sklearn", "xarray"} & set(done.stdout.split())


# Examples


PUBLIC = [
    f"{module}.{name}"
    for page in PAGES
    if not page.startswith("api/internal/")
    for module, names in listed(page).items()
    for name in names
]
# Methods that engines and solvers call, and users do not.
CALLED_INSIDE = {
    *("Sgd.learning_rates", "Sgd.limit_output", "Sgd.output_shares", "Sgd.step", "Learner.begin_epoch"),
    *("Rule.check", "Rule.limit_change", "MeanSubtractedRule.check", "GradientRule.limit_change"),
    *("FixedPointSolver.relax_known", "NumbaSolver.reach", "ReferenceSolver.reach", "TorchSolver.reach"),
    *("NumbaSolver.follow", "ReferenceSolver.follow", "TorchSolver.follow", "TorchFixedPointSolver.on_device"),
    *("NumbaSolver.integrate", "TorchSolver.integrate", "TorchSolver.follower", "TorchSolver.relax_counted"),
    *("Rule.relax_nudged", "GradientRule.relax_nudged", "RateModule.forward", "Config.of_run"),
}
SECTION = re.compile(r"^ *Returns\n *-------\n *\S", re.MULTILINE)


def public(name: str) -> Any:
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(f"fsp_dynamics.{module}"), last)


def examples(thing: Any) -> str:
    """The source of the examples in a docstring."""
    return "".join(example.source for example in doctest.DocTestParser().get_examples(thing.__doc__ or ""))


def methods(kind: type) -> dict[str, Any]:
    """The methods and properties of a class that have a docstring of their own, by name."""
    found = {name: getattr(each, "__func__", each) for name, each in vars(kind).items() if not name.startswith("_")}
    own = {name: each for name, each in found.items() if inspect.isroutine(each) or isinstance(each, property)}
    return {name: each for name, each in own.items() if each.__doc__ and not name.startswith("set_")}  # scikit-learn's


def returns(function: Any) -> bool:
    """Whether a function returns something."""
    return inspect.signature(function).return_annotation not in (None, "None", "Never")


def without_example(name: str) -> list[str]:
    """What lacks an example of a public name: itself, or methods that its example does not use and
    that have none themselves.
    """
    thing = public(name)
    if not callable(thing) or isinstance(thing, dict):
        return []
    shown = examples(thing)
    lacking = [] if shown else [name]
    for member, method in methods(thing).items() if inspect.isclass(thing) else ():
        used = re.search(rf"(\.|def ){member}\b", shown) or examples(method)
        if not used and f"{thing.__name__}.{member}" not in CALLED_INSIDE:
            lacking.append(f"{name}.{member}")
    return lacking


def without_returns(name: str) -> list[str]:
    """What returns something and has no section Returns: a public function, methods of a class.
    Where "See `Other.method`" is all that is said, it is said there.
    """
    thing = public(name)
    found = {name: thing} if inspect.isfunction(thing) else {}
    if inspect.isclass(thing):
        found = {f"{name}.{each}": method for each, method in methods(thing).items() if inspect.isfunction(method)}
    return [
        each
        for each, function in found.items()
        if returns(function) and not function.__doc__.startswith("See `")
        if not SECTION.search(function.__doc__)
    ]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example(name: str) -> None:
    assert without_example(name) == []


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_returns(name: str) -> None:
    assert without_returns(name) == []


def test_those_rules_can_fail() -> None:
    assert len(PUBLIC) > 120
    assert without_example("errors.nearest") == []
    assert without_example("errors.check_shape") == ["errors.check_shape"]
    assert without_returns("errors.check_shape") == []
    assert without_returns("errors.nearest") == ["errors.nearest"]
    assert without_example("solvers.response.Gains") == [
        "solvers.response.Gains",
        "solvers.response.Gains.round_trip",
        "solvers.response.Gains.rows",
    ]
    assert without_returns("solvers.response.Gains") == ["solvers.response.Gains.rows"]


@pytest.mark.parametrize(
    "module", [m.name for m in pkgutil.walk_packages(fsp.__path__, "fsp_dynamics.") if not m.name.endswith("__main__")]
)
def test_examples_in_docstrings(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of each docstring run in an empty folder, since some of them write."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for number, found in enumerate(doctest.DocTestFinder().find(importlib.import_module(module))):
        if found.examples:
            (tmp_path / str(number)).mkdir()
            monkeypatch.chdir(tmp_path / str(number))
            runner.run(found)
    assert runner.summarize(verbose=False).failed == 0


def test_the_python_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks run in order, one after the other, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    assert blocks("python")
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    assert "W1" in capsys.readouterr().out


def test_records_say_in_one_line_what_they_are() -> None:
    data = fsp.load_dataset("digits")
    network = fsp.loop_network([64, 12, 10], loop_scale=0.3, rng=0)
    images, nudge = data.train.images[:5], fsp.Nudge(1.0, np.eye(10)[:5])
    free, nudged = fsp.relax(network, images), fsp.relax(network, images, nudge=nudge)
    update = fsp.hebbian_update(network, images, free, nudged)
    assert repr(data) == "<Dataset digits: 1197 train, 200 valid, 400 test; 8 x 8 pixels, 10 classes>"
    assert repr(data.valid) == "<Split of 200 images of 64 pixels>"
    assert repr(network) == "<Network 64-12-10, loop, hard_sigmoid, float32>"
    assert (
        repr(fsp.reciprocal_network([4, 3, 2], rho="logistic", dtype=np.float64))
        == "<Network 4-3-2, tied reciprocal, logistic, float64>"
    )
    far = dataclasses.replace(nudged, status=np.array([0, 1, 0, 1, 1], np.uint8))
    residual, steps = f"{nudged.residual.max():.2g}", nudged.steps.max()
    ended = "2 converged, 3 out of steps"
    furthest = f"residual up to {residual}, steps up to {steps}"
    assert repr(far) == f"<Equilibrium of layers 12, 10: {ended}; {furthest}; beta 1>"
    assert repr(free.rows(np.array([], int))) == "<Equilibrium of layers 12, 10: no sample; beta 0>"
    largest = {name: f"{np.abs(change).max():.2g}" for name, change in update.parameters().items()}
    assert repr(update) == f"<Update, largest entries: {', '.join(f'{name} {size}' for name, size in largest.items())}>"
    path = fsp.simulate(network, images, [(3.0, None), (2.0, nudge)], save=1.0)
    assert (
        repr(path)
        == f"<Trajectory of 5 samples, layers 12, 10: free, then beta 1; {len(path.times)} times from 0 to 5>"
    )


COMMANDS = sorted(
    {
        m
        for block in blocks("sh")
        for m in re.findall(r"(?:^|[ /;])fsp ((?:[a-z]+)(?: (?:list|fetch|learners))?)\b", block, re.MULTILINE)
    }
)


def test_the_readme_shows_the_command_line() -> None:
    shown = {"train", "evaluate", "watch", "explore", "sweep", "figure", "table learners"}
    assert shown == set(COMMANDS)


@pytest.mark.cli
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_exists(command: str) -> None:
    done = python("fsp_dynamics", *command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert command.split()[-1] in done.stdout


@pytest.mark.cli
def test_a_command_that_does_not_exist_is_refused() -> None:
    done = python("fsp_dynamics", "trian")
    assert done.returncode == 2
    assert "train" in done.stdout + done.stderr


def test_every_preset_of_the_readme_exists() -> None:
    presets = {path.stem for path in (ROOT / "fsp_dynamics" / "experiments" / "presets").glob("*.toml")}
    named = set(re.findall(r"\b(?:mnist|fashion)-(?:ep-)?\dx\d+[a-z-]*", README))
    assert named
    assert named <= presets


# The project's own files


def tracked_texts() -> list[Path]:
    """Every file under version control that is text (all but what .gitignore names, where there is
    no git).
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files are tracked is unknown")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:1024]]


# Joined here, so that this file does not contain what it forbids.
SLASH = "/"
FORBIDDEN = [
    *(f"{SLASH}{folder}{SLASH}" for folder in ("work", "home", "root", "Users", "tmp")),
    "C:" + "\\",
    *(
        f"{host}.{end}"
        for host, end in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("anaconda", "org"))
    ),
    "download." + "pytorch",
    "--index" + "-url",
    "extra-index" + "-url",
    "find" + "-links",
]


def foreign(text: str) -> list[str]:
    """Paths of one machine and addresses of package registries in a text (a relative path may
    contain the same letters).
    """
    return [
        word
        for word in FORBIDDEN
        if re.search(rf"(?<![\w.*{re.escape(SLASH)}-]){re.escape(word)}", text) or (SLASH not in word and word in text)
    ]


def test_tracked_text_names_no_machine_and_no_registry() -> None:
    found = {
        str(path.relative_to(ROOT)): foreign(path.read_text(encoding="utf-8", errors="replace"))
        for path in tracked_texts()
    }
    assert {path: words for path, words in found.items() if words} == {}


def test_that_rule_can_fail() -> None:
    for word in FORBIDDEN:
        assert foreign(f"data = '{word}x'") == [word]
    assert foreign("checkpoints/tmp/x and src/home/x") == []


def test_one_version_everywhere() -> None:
    version = PROJECT["version"]
    assert fsp.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", changes, re.MULTILINE)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - (unreleased|\d{4}-\d\d-\d\d)", heading) for heading in headings)
    assert headings[0].startswith(f"{version} - ")


def test_constraints_pin_every_dependency_by_name_and_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert all(
        re.fullmatch(r"[A-Za-z0-9_.-]+", name) and re.fullmatch(r"[0-9][0-9a-z.]*", version)
        for name, version in pins.items()
    )
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    extras = PROJECT["optional-dependencies"].values()
    for requirement in map(Requirement, [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]):
        assert pinned[requirement.name.lower().replace("_", "-")] in requirement.specifier


@pytest.mark.skipif(sys.platform == "win32", reason="file modes")
def test_the_continuous_integration_runs_all_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "exec make test-all"
