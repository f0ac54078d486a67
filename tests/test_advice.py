"""Every piece of advice in every message is followed once and helps; none is without an entry."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

import pytest
from advice import ADVICE, ELSEWHERE, TRAINED, UNFOLLOWED

from fsp_dynamics.errors import FspError

ROOT = Path(__file__).parents[1]
VERBS = (
    "add|allow|ask|begin|bring|call|change|choose|clean|compare|compute|convert|correct|define|delete|divide|draw|fill|"
    "follow|free|give|go|install|keep|leave|lower|make|move|name|number|override|pass|pip|put|raise|reinstall|relax|"
    "remove|restart|restore|resume|run|save|send|set|start|sweep|take|train|try|use|wait|weaken|write"
)
IMPERATIVE = re.compile(rf"[;:,.] +(in Python, |if [^;]*, |otherwise |then |or |and |, )*({VERBS})\b")


def template(node: ast.expr) -> str:
    """The text of a message in the source, {} for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    if isinstance(node, ast.IfExp):
        return f"{template(node.body)}|{template(node.orelse)}"
    return "{}"


def messages(tree: ast.AST) -> list[str]:
    """The templates of all that a module raises or warns of."""
    found = []
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call) or not call.args:
            continue
        if isinstance(node, ast.Raise) or ast.unparse(call.func).rpartition(".")[2] == "warn":
            found.append(template(call.args[0]))
    return found


def advising() -> dict[str, str]:
    """{message that gives advice: its module}."""
    return {
        text: path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "fsp_dynamics").rglob("*.py"))
        for text in messages(ast.parse(path.read_text(encoding="utf-8")))
        if IMPERATIVE.search(text)
    }


def each(entries):
    """A parameter for each entry."""
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.says[-60:].strip("; ."))


@pytest.mark.rare
@each(TRAINED)
def test_advice_about_runs_that_is_followed_helps(entry, tmp_path, monkeypatch):
    follow(entry, tmp_path, monkeypatch)


@each([entry for entry in ADVICE if entry not in TRAINED])
def test_advice_that_is_followed_helps(entry, tmp_path, monkeypatch):
    follow(entry, tmp_path, monkeypatch)


def follow(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    warnings.simplefilter("ignore")
    with pytest.raises((FspError, ValueError, OSError)) as caught:
        entry.meet(tmp_path)
    assert entry.says.strip() in str(caught.value)
    entry.follow(tmp_path)


def test_every_message_that_gives_advice_has_an_entry():
    """Follow a new one in `advice.ADVICE`, or name the test that does in `advice.ELSEWHERE`."""
    known = [*(entry.says.strip() for entry in ADVICE), *ELSEWHERE, *UNFOLLOWED]
    missing = [f"{module}: {text}" for text, module in advising().items() if not any(says in text for says in known)]
    assert missing == []


def test_every_entry_is_about_a_message_that_there_is():
    texts = {text for path in (ROOT / "fsp_dynamics").rglob("*.py") for text in messages(ast.parse(path.read_text()))}
    idle = [says for says in (*ELSEWHERE, *UNFOLLOWED) if not any(says in text for text in texts)]
    assert idle == []


@pytest.mark.parametrize("named", sorted(set(ELSEWHERE.values())))
def test_the_tests_that_follow_advice_elsewhere_are_there(named):
    file, _, name = named.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_a_message_with_new_advice_is_seen():
    code = 'raise ConfigurationError(f"x = {x!r} is odd; " + "give an even one")'
    (text,) = messages(ast.parse(code))
    assert text == "x = {} is odd; give an even one"
    assert IMPERATIVE.search(text)
    assert not IMPERATIVE.search("x = {}, expected an even number")
