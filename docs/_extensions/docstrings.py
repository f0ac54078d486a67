"""The docstrings of the package as reStructuredText.

They are written to be read in the source: formulas are indented, fields are `name : meaning`, |x|
is a norm and `x` a name. So everything is escaped here but what is meant as markup:

    `x`, ``x``                    a name, a literal
    an indented block             a formula, shown verbatim
    name : meaning                one entry of a list; several may share a line, and a
                                  "Parameters" section contains nothing else
    Returns                       a section too: type : meaning
    ====  ====                    a table
    >>>                           an example
    - and 1.                      lists

Signatures are shown as written, too: `Array` and not its definition.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

NAMES = r"[A-Za-z_][\w-]*(?:, [A-Za-z_][\w-]*)*"
SHAPE = r"(?: \([^()]*\)(?: u?int\d+)?)?"
ENTRY = re.compile(rf"({NAMES})({SHAPE}) : ")
NEXT_ENTRY = re.compile(rf"(?<=[.;]) (?={NAMES}{SHAPE} : )")
MARKUP = re.compile(r"(``.+?``|`.+?`|\b[A-Z]\w*Error\b|\b(?:\w+/)+\w+\.py\b)")
RULE = re.compile(r"=+(?: +=+)+")


def as_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring, as reStructuredText."""
    out: list[str] = []
    for block in blocks(lines):
        if block[1:] and set(block[1]) == {"-"}:
            out += [f".. rubric:: {block[0]}", "", *(returned if block[0] == "Returns" else entries)(block[2:])]
        elif RULE.fullmatch(block[0]):
            out += table(block)
        elif block[0].startswith(">>>"):
            out += block
        elif block[0].startswith("    "):
            out += [".. code-block:: text", "", *(f"    {formula(line)}".rstrip() for line in block)]
        elif ENTRY.match(block[0]):
            out += entries(block)
        else:
            out += prose(block)
        out.append("")
    return out


def prose(lines: list[str]) -> list[str]:
    """A paragraph or a list; entries at the end of a paragraph are put below it."""
    text, *more = NEXT_ENTRY.split(" ".join(line.strip() for line in lines))
    if not more or re.match(r"- |\d+\. ", lines[0]):
        return [escaped(line) for line in lines]
    return [escaped(text[:-1] + "."), "", *entries(more)]


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """The text between empty lines; consecutive formulas form one block."""
    groups = [list(group) for filled, group in itertools.groupby(lines, key=lambda line: bool(line.strip())) if filled]
    waiting: list[str] = []
    for group in groups:
        if all(line.startswith("    ") for line in group):
            waiting += ["", *group] if waiting else group
            continue
        if waiting:
            yield waiting
            waiting = []
        yield group
    if waiting:
        yield waiting


def entries(lines: list[str]) -> list[str]:
    """`name : meaning` as a definition list."""
    texts: list[str] = []
    for line in lines:
        if ENTRY.match(line) or not texts:
            texts.append(line.strip())
        else:
            texts[-1] += " " + line.strip()
    out = [".. container:: entries", ""]
    for text in (part for whole in texts for part in NEXT_ENTRY.split(whole)):
        found = ENTRY.match(text)
        names = ", ".join(f"``{name}``" for name in found[1].split(", ")) if found else ""
        shown = [names + escaped(found[2]), f"    {escaped(text[found.end() :])}"] if found else [escaped(text)]
        out += [*(f"    {line}" for line in shown), ""]
    return out


def returned(lines: list[str]) -> list[str]:
    """`type : meaning`, the type in words; those of the package are linked."""
    kind, _, meaning = " ".join(line.strip() for line in lines).partition(" : ")
    named = re.sub(r"\b[A-Z]\w+\b", lambda found: f"`{found[0]}`", kind) if "." not in kind else kind
    return [".. container:: entries", "", f"    {escaped(named)}", f"        {escaped(meaning)}"]


def table(lines: list[str]) -> list[str]:
    """A simple table as a list table, in whose cells nothing depends on width."""
    begins = [found.start() for found in re.finditer(r"=+", lines[0])]
    rows: list[list[str]] = []
    for line in lines[1:]:
        if RULE.fullmatch(line):
            continue
        cells = [line[begin:end].strip() for begin, end in itertools.zip_longest(begins, begins[1:])]
        if rows and line[: begins[1]].strip() == "" and any(not cell for cell in cells):
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    out = [".. list-table::", "    :header-rows: 1", ""]
    for row in rows:
        out += [f"    {'* -' if k == 0 else '  -'} {escaped(cell)}".rstrip() for k, cell in enumerate(row)]
    return out


def formula(line: str) -> str:
    """A line of a formula; the name that some have at their end comes nearer."""
    return re.sub(r" {4,}`(.+)`$", r"    [\1]", line[4:])


def escaped(text: str) -> str:
    """The text with all reStructuredText markup escaped except backticks;
    errors and files are linked by their names.
    """
    return "".join(_marked(part) if k % 2 else _plain(part) for k, part in enumerate(MARKUP.split(text)))


def _marked(part: str) -> str:
    if part.startswith("``"):
        return part
    name = part.strip("`")
    return f":py:obj:`{name}`" if re.fullmatch(r"\w[\w./]*(\(\))?", name) else f"``{name}``"


def _plain(part: str) -> str:
    return re.sub(r"([\\*|])|(_)(?!\w)", lambda found: "\\" + found[0], part)


def signature(thing: Any) -> tuple[str, str | None] | None:
    """(arguments, what is returned) of a function or class in the words of its source; None where
    it has no source.
    """
    if inspect.isclass(thing):
        return _made_by(thing)
    node = _written(thing)
    if not isinstance(node, ast.FunctionDef):
        return None
    if node.args.args and node.args.args[0].arg in ("self", "cls"):
        del node.args.args[0]
    return f"({ast.unparse(node.args)})", ast.unparse(node.returns) if node.returns else None


def _made_by(kind: type) -> tuple[str, str | None] | None:
    """How a class is called: a record by its fields, others by their own `__init__`, if they
    have one.
    """
    if not dataclasses.is_dataclass(kind):
        own = signature(kind.__init__) if "__init__" in kind.__dict__ else None  # type: ignore[misc]
        return (own[0] if own else "", None)
    fields: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        node = _written(each)
        for line in node.body if isinstance(node, ast.ClassDef) and dataclasses.is_dataclass(each) else ():
            if isinstance(line, ast.AnnAssign):
                fields[ast.unparse(line.target)] = ast.unparse(line)
    return f"({', '.join(fields.values())})", None


def _written(thing: Any) -> ast.stmt | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    except (OSError, TypeError, SyntaxError):  # no source, or none that can be read alone: of another package
        return None


def _docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    members = (
        [f"{member.name} : {member.value}" for member in thing]
        if inspect.isclass(thing) and issubclass(thing, enum.Enum)
        else []
    )
    lines[:] = as_rst([*lines, "", *members])


def _signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: str | None, returned: str | None
) -> Any:
    return signature(thing) if arguments is not None and what in ("class", "exception", "function", "method") else None


def _skip(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """The fields of a named tuple, which have no docstrings."""
    return True if str(getattr(thing, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Rewrite what autodoc reads."""
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
