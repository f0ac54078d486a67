"""Import paths lead to what they name, and only there: nothing is found in the current folder, or
imported without leave.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import import_path
from fsp_dynamics.experiments.import_path import (
    import_object,
    import_path_of,
    is_import_path,
    search_without_current_folder,
)
from fsp_dynamics.models.activations import ACTIVATIONS, Activation

ROOT = Path(__file__).parents[2]
MODULE = """
from fsp_dynamics.models.activations import Activation

print("imported")

class Rule:
    class Inner:
        pass

def rate(s):
    return s

def slope(s):
    return 1 + 0 * s

ramp = Activation("ramp", rate, slope)
square = lambda s: s * s
"""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder on sys.path and the current folder; write(folder, name) makes a module there."""
    path, here = tmp_path / "installed", tmp_path / "here"
    path.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def write(folder: str, name: str, content: str = MODULE) -> None:
        file = tmp_path / folder / (name.replace(".", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refused(path, *said: str, **options) -> None:
    with pytest.raises(ConfigurationError) as caught:
        import_object(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert all(words in line for words in said), line


def test_a_path_gives_the_object(places) -> None:
    places("installed", "mine.parts.rules")
    module = import_object("mine.parts.rules:Rule").__module__
    assert module == "mine.parts.rules"
    assert import_object("mine.parts.rules:Rule.Inner").__qualname__ == "Rule.Inner"
    assert import_object("mine.parts.rules:ramp").name == "ramp"
    assert import_object("fsp_dynamics.models.activations:ACTIVATIONS") is ACTIVATIONS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "module",
        "module.name",
        ":name",
        "module:",
        "module:name:more",
        "a..b:c",
        "a b:c",
        "1a:b",
        "a:b()",
        "../a:b",
        None,
    ],
)
def test_what_is_no_path_is_refused(text) -> None:
    assert not text or not is_import_path(text)
    refused(text, "expected the form package.module:name")


def test_what_is_missing_is_named(places) -> None:
    places("installed", "mine.rules")
    refused("mine.rules:Rul", "the module mine.rules has no Rul", field="learning.rule")
    refused("mine.rules:Rule.Outer", "has no Rule.Outer")
    refused("mine.other:Rule", "there is no module mine.other", "PYTHONPATH")
    refused("yours.rules:Rule", "learning.rule = 'yours.rules:Rule': there is no module yours", field="learning.rule")
    refused("__main__:Rule", "__main__ is another script each time")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise RuntimeError('first\\nsecond')", "RuntimeError: first second"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_module_that_fails_is_not_said_to_be_missing(places, content, said) -> None:
    places("installed", "broken", content)
    refused("broken:Rule", "importing broken failed", said)


def test_only_what_is_allowed_is_imported(places, capsys) -> None:
    places("installed", "mine.rules")
    for allowed in ((), ("yours",), ("mine.rule",), ("min",), ("mine.rules.deeper",)):
        refused("mine.rules:Rule", "allow_import=('mine',)", allowed=allowed)
    assert "mine" not in sys.modules
    assert capsys.readouterr().out == ""
    assert import_object("mine.rules:Rule", ("yours", "mine")) is import_object("mine.rules:Rule", ["mine.rules"])
    assert capsys.readouterr().out == "imported\n"
    assert import_object("mine.rules:Rule", "mine").__name__ == "Rule"  # one name alone
    refused("mine.rules:Rule", "was not allowed", allowed=())  # although it has been imported


@pytest.mark.parametrize("entry", ["", ".", "HERE"])
def test_the_current_folder_is_not_searched(places, monkeypatch, entry) -> None:
    places("here", "local_rules")
    monkeypatch.syspath_prepend(os.getcwd() if entry == "HERE" else entry)
    before = list(sys.path)
    refused("local_rules:Rule", "there is no module local_rules", "the current folder is not searched on its own")
    assert sys.path == before
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    sys.path.append(os.getcwd())
    assert import_object("local_rules:Rule").__name__ == "Rule"


def test_a_folder_that_a_pth_file_names_is_searched(monkeypatch, tmp_path) -> None:
    """An editable installation, used in its own folder: its entry follows those of packages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(import_path.site, "getsitepackages", lambda: ["/packages"])
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "/lib", "/packages", str(tmp_path)])
    with search_without_current_folder():
        assert sys.path == ["/lib", "/packages", str(tmp_path)]
        sys.path.append("/new")
    assert sys.path == ["", str(tmp_path), "/lib", "/packages", str(tmp_path), "/new"]


def test_an_object_knows_its_path(places) -> None:
    places("installed", "mine.rules")
    places(
        "installed",
        "holds",
        "from numpy import negative, sign\nfrom fsp_dynamics.models.activations import Activation\n"
        "steep = Activation('steep', negative, sign)",
    )
    assert import_path_of(import_object("holds:steep")) == "holds:steep"
    for name in ("Rule", "Rule.Inner", "rate", "ramp", "square"):
        path = f"mine.rules:{name}"
        assert import_path_of(import_object(path)) == path
        assert import_object(import_path_of(import_object(path))) is import_object(path)
    assert import_path_of(import_path_of) == "fsp_dynamics.experiments.import_path:import_path_of"


def test_what_has_no_path_is_refused_with_the_reason(places, monkeypatch) -> None:
    def inner(s):
        return s

    for thing in (lambda s: s, inner, Activation("own", inner, inner)):
        with pytest.raises(ConfigurationError, match=r"has no name in .*define it at the top of a module"):
            import_path_of(thing)
    places("installed", "mine.rules")
    ramp = import_object("mine.rules:ramp")
    monkeypatch.setattr(sys.modules["mine.rules"], "ramp", None)
    with pytest.raises(ConfigurationError, match=r"Activation 'ramp' has no name in mine\.rules"):
        import_path_of(ramp)


def test_what_lies_in_the_current_folder_alone_is_refused(places, monkeypatch) -> None:
    import importlib

    places("here", "local_module")
    monkeypatch.syspath_prepend("")
    ramp = importlib.import_module("local_module").ramp
    with pytest.raises(ConfigurationError, match="local_module, which is not found outside the current folder"):
        import_path_of(ramp)
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    sys.path.append(os.getcwd())
    assert import_path_of(ramp) == "local_module:ramp"


@pytest.mark.cli
def test_what_a_script_defines_has_no_path_and_a_command_does_not_search_its_folder(tmp_path) -> None:
    (tmp_path / "beside.py").write_text(MODULE)
    script = (
        "from fsp_dynamics.experiments.import_path import import_object, import_path_of\n"
        "import multiprocessing\n"  # gives the script a second name
        "from fsp_dynamics.models.activations import Activation\n"
        "class Own: pass\n"
        "soft = Activation('soft', lambda s: s, lambda s: 1)\n"
        "for call in (lambda: import_path_of(Own), lambda: import_path_of(soft),\n"
        "             lambda: import_object('beside:Rule')):\n"
        "    try: print('NO', call())\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert "Own was defined in a script or a notebook (__main__)" in done[0]
    assert "Activation 'soft' was defined in a script or a notebook (__main__)" in done[1]
    assert "there is no module beside" in done[2]
