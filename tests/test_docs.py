"""The pages of docs/: what they show runs, what they name exists, what they link to is there. (How
they become a site: tests/test_site.py.)
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
from cyclopts import CycloptsError

import fsp_dynamics as fsp
from fsp_dynamics.cli import EXIT_CODES, app
from fsp_dynamics.errors import FspError
from fsp_dynamics.layerwise.names import LEARNERS
from fsp_dynamics.models.activations import ACTIVATIONS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(DOCS)): path.read_text(encoding="utf-8")
    for path in sorted([*DOCS.glob("*.md"), *DOCS.glob("api/*.md"), *DOCS.glob("api/internal/*.md")])
}
EACH_PAGE = pytest.mark.parametrize("page", PAGES)
CODE = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The page's fenced blocks of that language."""
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


# What is shown


def with_blocks(language: str) -> list[str]:
    return [page for page in PAGES if blocks(page, language)]


@pytest.mark.parametrize("page", with_blocks("python"))
def test_the_python_of_a_page_runs(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The blocks run in order, one after the other, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    known = [(registry, dict(registry)) for registry in (ACTIVATIONS, LEARNERS)]
    names: dict[str, object] = {"__name__": "page"}
    try:
        for code in blocks(page, "python"):
            exec(compile(code, page, "exec", dont_inherit=True), names)
    finally:
        for registry, before in known:
            registry.clear()
            registry.update(before)


def test_the_pages_that_must_show_python_do() -> None:
    assert {"index.md", "solvers.md", "extending.md"} <= set(with_blocks("python"))


def commands(text: str) -> list[list[str]]:
    """The arguments of every `fsp` in shell lines."""
    words = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line[1:] for line in words if line and Path(line[0]).name == "fsp"]


@pytest.mark.parametrize("page", with_blocks("sh"))
def test_every_command_of_a_page_is_one(page: str) -> None:
    for arguments in commands("\n".join(blocks(page, "sh"))):
        app.parse_args(arguments, exit_on_error=False, print_error=False)


def test_that_rule_can_fail() -> None:
    assert commands("make\n.venv/bin/fsp train digits --out a  # a comment\n\nfsp check") == [
        ["train", "digits", "--out", "a"],
        ["check"],
    ]
    for wrong in (["trian", "digits"], ["train", "digits", "--epoch", "3"], ["train"], ["figure", "alignmnt"]):
        with pytest.raises(CycloptsError):
            app.parse_args(wrong, exit_on_error=False, print_error=False)


# What is linked


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", CODE.sub("", PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(text: str) -> list[str]:
    """Where the links and pictures of a text lead, addresses of the network left out."""
    return [to for to in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", text)) if not re.match(r"[a-z]+:", to)]


def broken(page: str, to: str) -> bool:
    name, _, anchor = to.partition("#")
    path = (DOCS / page).parent / name if name else DOCS / page
    if not path.is_file():
        return True
    return bool(anchor) and anchor not in anchors(str(path.resolve().relative_to(DOCS)))


@EACH_PAGE
def test_every_link_and_picture_is_there(page: str) -> None:
    assert [to for to in links(PAGES[page]) if broken(page, to)] == []


def test_a_broken_link_is_seen() -> None:
    assert (
        links("[a](model.md#rest) `[no](x)`\n```\n[b](c)\n```\n![d](e.png) [f](https://example.org)")[0]
        == "model.md#rest"
    )
    assert not broken("index.md", "model.md#the-rate-form")
    assert broken("index.md", "model.md#the-rate")
    assert broken("index.md", "modle.md")


def trees(page: str) -> list[str]:
    """The entries of a page's toctrees, as paths below docs/."""
    bodies = re.findall(r"^```\{toctree\}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)
    entries = [line for body in bodies for line in body.splitlines() if line and not line.startswith(":")]
    return [str(Path(page).parent / entry) for entry in entries]


def test_every_page_is_in_the_table_of_contents() -> None:
    reached, waiting = {"index.md"}, ["index.md"]
    while waiting:
        found = {f"{entry}.md" for entry in trees(waiting.pop()) if "*" not in entry} - reached
        assert found <= set(PAGES)
        reached |= found
        waiting += found
    assert reached == set(PAGES)
    assert trees("gallery.md") == ["gallery/*"]


def test_the_gallery_has_every_notebook() -> None:
    notebooks = [f"../notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    found = re.findall(r"\[!\[([^\]]+)\]\(([^)]+)\)\]\(([^)]+)\) \| \[[^\]]+\]\(([^)]+)\)", PAGES["gallery.md"])
    assert [to for *_, to in found] == [to for _, _, to, _ in found] == notebooks
    assert [picture for _, picture, *_ in found] == [f"thumbnails/{Path(to).stem}.png" for to in notebooks]
    assert sorted((DOCS / "thumbnails").iterdir()) == sorted(DOCS / picture for _, picture, *_ in found)
    assert all((DOCS / picture).stat().st_size <= 60_000 for _, picture, *_ in found)
    assert all(alternative for alternative, *_ in found)


# What is named


def test_the_api_page_lists_the_face() -> None:
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGES["api/index.md"], re.MULTILINE)) == sorted(fsp.__all__)


def test_every_module_is_on_one_page_of_the_api() -> None:
    shown = [
        name for page in PAGES for name in re.findall(r"automodule:: fsp_dynamics\.(\S+)$", PAGES[page], re.MULTILINE)
    ]
    found = list(pkgutil.walk_packages(fsp.__path__, "fsp_dynamics."))
    rooms = {module.name.removeprefix("fsp_dynamics."): module.ispkg for module in found}
    public = {
        name for name in rooms if name.split(".")[0] not in ("kernels", "cli", "__main__", "tables")
    }  # the others have no readers in Python
    assert len(shown) == len(set(shown))
    assert set(shown) <= public
    assert {name for name in public if not rooms[name]} <= set(shown)
    assert {room.split(".")[0] for room in fsp._ROOM_OF.values()} <= {name.split(".")[0] for name in shown}


def listed(page: str) -> dict[str, list[str]]:
    """{module: the names that a page lists of it}; not of the modules that it shows whole."""
    found = re.findall(r"automodule:: fsp_dynamics\.(\S+)\n   :members: (.+)$", PAGES[page], re.MULTILINE)
    return {module: names.split(", ") for module, names in found}


def defined_in(module: str) -> list[str]:
    """The functions and classes that a module defines and does not hide."""
    room = importlib.import_module(f"fsp_dynamics.{module}")
    return [
        name
        for name, thing in vars(room).items()
        if not name.startswith("_")
        and getattr(thing, "__module__", None) == room.__name__
        and (inspect.isclass(thing) or inspect.isroutine(thing))
    ]


def test_public_pages_list_names_and_internal_pages_show_all_others() -> None:
    inner = {page for page in PAGES if page.startswith("api/internal/")}
    public = {page for page in PAGES if page.startswith("api/")} - inner
    names = {module: each for page in public for module, each in listed(page).items()}
    whole = re.compile(r"automodule:: (\S+)\n   :members:$", re.MULTILINE)
    assert {page: whole.findall(PAGES[page]) for page in public if whole.search(PAGES[page])} == {}, (
        "a public page lists the names that users call; modules for authors alone stand on a page of api/internal/"
    )
    assert {page: listed(page) for page in inner if listed(page)} == {}
    text = "\n".join(PAGES[page] for page in inner)
    left = re.findall(r"othermembers:: fsp_dynamics\.(\S+)$", text, re.MULTILINE)
    assert sorted(left) == sorted(module for module in names if set(defined_in(module)) - set(names[module]))
    for module, each in names.items():
        room = importlib.import_module(f"fsp_dynamics.{module}")
        assert [name for name in each if not hasattr(room, name)] == [], module
    elsewhere = re.findall(
        r"automodule:: fsp_dynamics\.(\S+)\n   :members:\n   :exclude-members: (.+)$", text, re.MULTILINE
    )
    for module, hidden in elsewhere:  # shown where another module offers them
        assert set(hidden.split(", ")) <= set(names[module.split(".")[0]]), module


def test_public_pages_hold_the_face_and_all_that_pages_and_notebooks_import() -> None:
    names = {
        f"{module}.{name}"
        for page in PAGES
        if not page.startswith("api/internal/")
        for module, each in listed(page).items()
        for name in each
    }
    assert {f"{room}.{name}" for name, room in fsp._ROOM_OF.items()} <= names
    notebooks = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "notebooks").glob("*.ipynb")]
    cells = ["".join(cell["source"]) for book in notebooks for cell in book["cells"] if cell["cell_type"] == "code"]
    shown = [*cells, *(code for page in PAGES for code in blocks(page, "python"))]
    found = [
        pair for code in shown for pair in re.findall(r"from fsp_dynamics\.(\S+) import (.+)$", code, re.MULTILINE)
    ]
    used = {f"{module}.{name.split(' as ')[0].strip()}" for module, line in found for name in line.split(",")}
    # neither function nor class
    objects = {"models.rate", "models.activations.ACTIVATIONS", "explorer.model.PIECES", "layerwise.names.LEARNERS"}
    assert len(used) > 25
    assert sorted(used - names - objects) == []


def test_every_test_that_a_page_names_exists() -> None:
    text, where = PAGES["reliability.md"], ""
    found = re.findall(r"`(tests/[\w/]+\.py)`|`(test_\w+)`", text)
    assert len(found) > 40
    for file, name in found:
        where = file or where
        assert name == "" or re.search(rf"^def {name}\(", (ROOT / where).read_text(encoding="utf-8"), re.MULTILINE), (
            where,
            name,
        )


def cited_facts(text: str) -> set[int]:
    """The numbers of the facts of the model that a text cites: "fact 12", "facts 4 and 8"."""
    found = re.findall(r"\bfacts? (\d+(?:(?:, | and | to |, and )\d+)*)", text, re.IGNORECASE)
    return {int(number) for each in found for number in re.findall(r"\d+", each)}


def test_every_fact_that_the_code_cites_is_on_the_page_of_the_model() -> None:
    section = re.search(r"^## Facts\n(.*?)^## ", PAGES["model.md"], re.MULTILINE | re.DOTALL)
    assert section is not None
    listed = [int(number) for number in re.findall(r"^(\d+)\. \*\*", section[1], re.MULTILINE)]
    assert listed == list(range(1, 16))
    files = [path for folder in ("fsp_dynamics", "tests") for path in (ROOT / folder).rglob("*.py")]
    cited = {path: cited_facts(path.read_text(encoding="utf-8")) for path in files if path != Path(__file__)}
    assert {12, 14} <= cited[ROOT / "fsp_dynamics" / "analysis" / "alignment.py"]
    assert {path: wrong for path, numbers in cited.items() if (wrong := numbers - set(listed))} == {}


def test_that_facts_are_found() -> None:
    assert cited_facts("(model fact 16), Facts 1, 2 and 7, a fact, facts of 3") == {16, 1, 2, 7}


def test_the_exit_codes_are_those_of_the_program() -> None:
    rows = re.findall(r"^\| (\d+) \| [^|]* \| (`[^|]*`) \|$", PAGES["cli.md"], re.MULTILINE)
    listed_codes = {name: int(code) for code, names in rows for name in re.findall(r"`(\w+)`", names)}
    raised = {kind.__name__: code for kind, code in EXIT_CODES if kind is not FspError}
    assert {name: code for name, code in listed_codes.items() if name in raised} == raised
    assert {code for name, code in listed_codes.items() if name not in raised} == {dict(EXIT_CODES)[FspError]}


def test_the_version_that_is_cited_is_this_one() -> None:
    assert f"version = {{{fsp.__version__}}}" in PAGES["citing.md"]
