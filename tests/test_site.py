"""How the pages become a site: what the extensions in docs/_extensions make, and that the whole
builds without a warning or a network.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.figure
import pytest
from test_docs import DOCS, PAGES, ROOT

import fsp_dynamics as fsp
from fsp_dynamics.cli import app
from fsp_dynamics.experiments.trainer import TRAINERS

pytestmark = pytest.mark.skipif(importlib.util.find_spec("myst_nb") is None, reason="the extra [docs] is not installed")


def extension(name: str) -> ModuleType:
    """A module of docs/_extensions."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "_extensions" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_docstring_becomes_restructuredtext() -> None:
    rst = extension("docstrings").as_rst
    assert rst(["The norm ||s|| of *all* s_ in `Network`, ``x*y``; ShapeError from a/b.py."]) == [
        "The norm \\|\\|s\\|\\| of \\*all\\* s\\_ in :py:obj:`Network`, ``x*y``; "
        ":py:obj:`ShapeError` from :py:obj:`a/b.py`.",
        "",
    ]
    assert rst(["Text", "", "    a = b           `rule`", "", "    c = |d|", "", "end"])[2:8] == [
        ".. code-block:: text",
        "",
        "    a = b    [rule]",
        "",
        "    c = |d|",
        "",
    ]
    shown = "\n".join(rst(["Parameters", "----------", "a, b : one of", "    them. c : the other `.rows(i)`."]))
    assert shown.startswith(".. rubric:: Parameters")
    assert "    ``a``, ``b``\n        one of them." in shown
    assert "    ``c``\n        the other ``.rows(i)``." in shown
    assert rst(["Returns", "-------", "tuple of Network : two of", "    them, (B, n)."])[2:6] == [
        ".. container:: entries",
        "",
        "    tuple of :py:obj:`Network`",
        "        two of them, (B, n).",
    ]
    assert rst(["Text; k (B, 2) int8 : a", "number. b-c : more."])[:6] == [
        "Text.",
        "",
        ".. container:: entries",
        "",
        "    ``k`` (B, 2) int8",
        "        a number.",
    ]
    assert rst(["1. one : two. three : four"]) == ["1. one : two. three : four", ""]
    table = ["====  =====", "name  what", "====  =====", "``x``  its |norm|", "      goes on", "====  ====="]
    assert "      - its \\|norm\\| goes on" in rst(table)
    assert rst([">>> f(1)", "2"]) == [">>> f(1)", "2", ""]


def test_signatures_are_those_of_the_source() -> None:
    signature = extension("docstrings").signature
    assert signature(fsp.loop_gain) == ("(network: Network)", "float")
    assert signature(fsp.Tolerance) == ("(absolute: float = 1e-06, relative: float = 0.0)", None)
    assert signature(fsp.Network)[0].endswith("rho: Activation = ACTIVATIONS['hard_sigmoid'])")
    assert signature(fsp.Network.with_parameters) == ("(named: dict[str, Array])", "Network")
    assert signature(fsp.Status)[0] == ""
    assert signature(matplotlib.figure.Figure) == ("", None), "its source cannot be read alone"


def test_internal_pages_show_what_public_ones_leave_out(tmp_path: Path) -> None:
    made = extension("othermembers")
    listed = made.public_names(DOCS / "api")
    assert {"Nudge", "drive"} <= set(listed["models.rate"])
    assert listed["models.builders"] == ["loop_network", "reciprocal_network"]
    shown = made.directives("models.rate", listed["models.rate"])
    assert ".. autofunction:: fsp_dynamics.models.rate.pull_of" in shown
    assert not [line for line in shown if "Nudge" in line]
    assert made.directives("errors", ["nearest"])[:3] == [
        ".. autoexception:: fsp_dynamics.errors.FspError",
        "   :members:",
        "",
    ]


def test_names_are_linked_where_they_mean_one_thing() -> None:
    links_ = extension("links")
    kinds = {
        "fsp_dynamics.solvers.relax": "function",
        "fsp_dynamics.models.rate": "module",
        "fsp_dynamics.models.rate.rate_field": "function",
        "fsp_dynamics.solvers.equilibrium.Equilibrium": "class",
        "fsp_dynamics.solvers.equilibrium.Equilibrium.converged": "property",
        "fsp_dynamics.learning.phases.Phases.converged": "property",
        "fsp_dynamics.a.Same": "class",
        "fsp_dynamics.b.Same": "class",
    }
    objects = {name: type("Entry", (), {"objtype": kind}) for name, kind in kinds.items()}
    for text, name in {
        "relax": "solvers.relax",
        "fsp.relax": "solvers.relax",
        "fsp_dynamics.solvers.relax": "solvers.relax",
        "models/rate.py": "models.rate",
        "rate_field": "models.rate.rate_field",
        "Equilibrium.converged": "solvers.equilibrium.Equilibrium.converged",
    }.items():
        assert links_.target(objects, text) == f"fsp_dynamics.{name}"
    for text in (
        "rate",
        "converged",
        "Same",
        "network",
        "numpy.ndarray",
        "relax(x)",
        "fsp train",
        "tests/models/rate.py",
    ):
        assert links_.target(objects, text) is None
    assert links_.imported("fsp_dynamics.solvers.equilibrium")["Network"] == "fsp_dynamics.models.network.Network"


def test_every_command_and_key_is_shown() -> None:
    made = extension("commands")
    names = [name for name, _ in made.command_pages()]
    assert {"fsp train", "fsp data fetch", "fsp explore", "fsp bench"} <= set(names)
    train = made.described("fsp train", app["train"])
    assert "| `--resume` | off |" in train
    assert "| `SOURCE` | required |" in train
    assert "--learning.batch 50" in train
    assert "| `--learning.batch" not in train
    keys = {key: (default, meaning) for key, default, meaning in made.keys_of()}
    assert keys["`learning.batch`"] == ("`20`", "images for each weight update")
    assert made.FAMILIES.keys() == TRAINERS.keys()
    assert "`network.threshold`" in {key for key, _, _ in made.keys_of(made.FAMILIES["layerwise"])}
    assert keys["`data.name`"][0] == "one of `digits`, `mnist`, `fashion-mnist`, `cifar10`, `cifar100`, `svhn`"


def test_notebooks_are_copied_with_their_links(tmp_path: Path) -> None:
    made = extension("notebooks")
    cell = {"cell_type": "markdown", "source": ["[a](../docs/model.md) [b](03_x.ipynb) [c](../README.md)"]}
    code = {"cell_type": "code", "source": ["'](../docs/'"]}
    source, target = tmp_path / "notebooks", tmp_path / "gallery"
    source.mkdir()
    (source / "01_x.ipynb").write_text(json.dumps({"cells": [cell, code]}))
    target.mkdir()
    (target / "00_old.ipynb").write_text("{}")
    assert made.copy_notebooks(source, target) == ["01_x.ipynb"]
    assert [path.name for path in target.iterdir()] == ["01_x.ipynb"]
    cells = json.loads((target / "01_x.ipynb").read_text())["cells"]
    assert cells[0]["source"] == ["[a](../model.md) [b](03_x.ipynb) [c](../../README.md)"]
    assert cells[1] == code
    os.utime(target / "01_x.ipynb", (1, 1))
    made.copy_notebooks(source, target)
    assert (target / "01_x.ipynb").stat().st_mtime == 1


def build(source: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """Build the site, warnings as errors, without running the notebooks."""
    options = ["-W", "--keep-going", "-q", "-D", "nb_execution_mode=off", "-b", "html", "-d", str(into / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(into / "html")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.rare
@pytest.mark.slow
def test_the_site_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    done = build(DOCS, tmp_path)
    assert done.returncode == 0, done.stderr
    site = {
        str(path.relative_to(tmp_path / "html")): path.read_text(encoding="utf-8")
        for path in (tmp_path / "html").rglob("*.html")
    }
    notebooks = [f"gallery/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert {page.replace(".md", ".html") for page in PAGES} | set(notebooks) <= set(site)
    for page, html in site.items():
        loaded = re.findall(
            r"<(?:script|img|iframe)[^>]* src=\"([^\"]+)\"|<link[^>]* rel=\"stylesheet\"[^>]* href=\"([^\"]+)\"", html
        )
        assert not [address for pair in loaded for address in pair if re.match(r"(?:https?:)?//", address)], page
        assert "system-message" not in html, page
    assert "<img" in site["index.html"]
    assert "{{" not in site["index.html"]
    assert site["model.html"].count('display="block"') >= 4
    assert 'href="api/solvers.html#fsp_dynamics.solvers.relax"' in site["solvers.html"]
    for name, room in fsp._ROOM_OF.items():
        assert any(
            path.startswith("api/") and f'id="fsp_dynamics.{room}.{name}"' in html for path, html in site.items()
        ), name
        assert f"#fsp_dynamics.{room}.{name}" in site["api/index.html"]
    for shown in ("fsp train", "fsp data fetch", "fsp stability", "learning.rates.forward"):
        assert shown in site["cli.html"]
    assert ">ndarray<" not in site["api/solvers.html"]  # properties say Array too


@pytest.mark.rare
@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "warned"),
    [("[gone](nowhere.md)", "cross-reference target not found"), (r"$\nonsense$", "MathML"), ("$x_j$", "")],
)
def test_a_fault_in_a_page_stops_the_build(text: str, warned: str, tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    (source / "index.md").write_text(f"# Page\n\n{text}\n")
    settings = (
        "extensions = ['myst_nb', 'mathml']\nhtml_math_renderer = 'mathml'\nmyst_enable_extensions = ['dollarmath']\n"
    )
    (source / "conf.py").write_text(f"import sys\nsys.path.insert(0, {str(DOCS / '_extensions')!r})\n{settings}")
    done = build(source, tmp_path)
    assert done.returncode == (1 if warned else 0), done.stderr
    assert warned in done.stderr


@pytest.mark.rare
@pytest.mark.slow
def test_the_explorer_stands_still_in_a_page(tmp_path: Path) -> None:
    """A notebook with the output that a widget leaves where no kernel is, and a picture to put in
    its place.
    """
    output = {
        "output_type": "display_data",
        "metadata": {},
        "data": {"text/plain": "<fsp_dynamics.explorer.widget.Explorer object at 0x7f>"},
    }
    text = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Live"}
    code = {
        "cell_type": "code",
        "id": "b",
        "metadata": {},
        "execution_count": 1,
        "source": "explorer",
        "outputs": [output],
    }
    for folder in ("docs", "notebooks"):
        (tmp_path / folder).mkdir()
    language = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python", "pygments_lexer": "python"},
    }
    notebook = {"cells": [text, code], "metadata": language, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "notebooks" / "01_live.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "docs" / "index.md").write_text(
        "# Page\n\n[live](../notebooks/01_live.ipynb)\n\n```{toctree}\n:hidden:\n\ngallery/01_live\n```\n"
    )
    (tmp_path / "docs" / "explorer-light.png").write_bytes((ROOT / "figures" / "quickstart.png").read_bytes())
    settings = "extensions = ['myst_nb', 'notebooks']\n"
    (tmp_path / "docs" / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(DOCS / '_extensions')!r})\n{settings}"
    )
    done = build(tmp_path / "docs", tmp_path)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "html" / "gallery" / "01_live.html").read_text(encoding="utf-8")
    assert "0x7f" not in html
    assert "explorer-light.png" in html
    assert "The explorer needs Python" in html
    assert "gallery/01_live.html" in (tmp_path / "html" / "index.html").read_text(encoding="utf-8")


def test_the_picture_of_the_front_page_is_the_explorer_where_there_is_one(tmp_path: Path) -> None:
    """conf.py, read with and without screenshots in its folder."""
    code = (DOCS / "conf.py").read_text(encoding="utf-8")
    tree = ast.parse(code)
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "front_picture")
    names: dict[str, Any] = {"HERE": tmp_path}
    exec(compile(ast.Module([function], []), "conf.py", "exec"), names)
    assert "figures/quickstart.png" in names["front_picture"]()
    (tmp_path / "explorer-light.png").touch()
    assert "](explorer-light.png)\n" in names["front_picture"]()
    (tmp_path / "explorer-dark.png").touch()
    assert "](explorer-dark.png){.only-dark}" in names["front_picture"]()
    assert "](explorer-light.png){.only-light}" in names["front_picture"]()
