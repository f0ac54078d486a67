"""The command line and the configuration as the program knows them: directives `commands`, without
arguments, and `configuration-keys`, with that of a family.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cyclopts import App
from cyclopts.argument import Argument
from docutils import nodes
from docutils.parsers.rst import Directive
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from fsp_dynamics.cli import app as fsp
from fsp_dynamics.datasets import DATASETS
from fsp_dynamics.experiments.config import Config, ordered
from fsp_dynamics.experiments.layerwise.config import LayerwiseConfig
from fsp_dynamics.experiments.rate.config import DTYPES, RULES, RateConfig
from fsp_dynamics.experiments.trainer import TRAINERS
from fsp_dynamics.learning.phases import KINDS
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.solvers import SOLVERS

# prefix of the group of options for configuration keys
KEYS = "Configuration"
FAMILIES: dict[str, type[Config]] = {"rate": RateConfig, "layerwise": LayerwiseConfig}
CHOICES: dict[str, Iterable[str]] = {
    "family": TRAINERS,
    "data.name": DATASETS,
    "network.rho": ACTIVATIONS,
    "network.dtype": DTYPES,
    "learning.phases": KINDS,
    "learning.rule": RULES,
    "solver.name": SOLVERS,
}


def command_pages(app: App = fsp, above: tuple[str, ...] = ("fsp",)) -> Iterator[tuple[str, App]]:
    """(its whole name, it) of every command that does something, in alphabetical order, those of a
    group together.
    """
    for name in sorted(name for name in app if not name.startswith("-")):
        command = app[name]
        if command.default_command is None:
            yield from command_pages(command, (*above, name))
        else:
            yield " ".join((*above, name)), command


def described(name: str, command: App) -> str:
    """One command in Markdown: usage, what it does, a table of its options."""
    arguments = [each for each in command.assemble_argument_collection(parse_docstring=True) if each.show]
    own = [each for each in arguments if not _is_key(each)]
    positional = [each.name if each.required else f"[{each.name}]" for each in own if not each.name.startswith("-")]
    usage = " ".join([name, *positional, *(["[OPTIONS]"] if len(positional) < len(arguments) else [])])
    text = inspect.cleandoc(command.default_command.__doc__ or "").partition("\n\nParameters\n")[0]
    rows = [(_names(each), _default(each), _escaped(each.parameter.help or "")) for each in own]
    keys = "\nAnd an option for each of the [configuration keys](#configuration-keys), such as `--learning.batch 50`.\n"
    options = _table(rows) + (keys if len(own) < len(arguments) else "")
    return f"## {name}\n\n```text\n{usage}\n```\n\n{_escaped(text)}\n\n{options}\n"


def keys_of(section: type[BaseModel] = RateConfig, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted key, default, meaning) of every key of a family's configuration."""
    for name in section.model_fields if prefix else ordered(section.model_fields):
        field = section.model_fields[name]
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, f"{prefix}{name}.")
        else:
            key, default = (
                f"{prefix}{name}",
                "required" if field.default is PydanticUndefined else _value(field.default),
            )
            yield f"`{key}`", _of(default, CHOICES.get(key, ())), _escaped(field.description or "")


def _is_key(argument: Argument) -> bool:
    groups: Any = argument.parameter.group
    return any(str(getattr(group, "name", group)).startswith(KEYS) for group in groups)


def _names(argument: Argument) -> str:
    switch = isinstance(argument.field_info.default, bool) or not argument.name.startswith("-")
    value = "" if switch else " " + (argument.parameter.metavar or "VALUE")
    return ", ".join(f"`{name}{value}`" for name in argument.names)


def _default(argument: Argument) -> str:
    default = "required" if argument.required else _value(argument.field_info.default)
    return _of(default, argument.get_choices() or ())


def _of(default: str, choices: Iterable[str]) -> str:
    """The default, and what there is to choose from."""
    listed = ", ".join(f"`{each}`" for each in choices)
    return "; ".join(filter(None, (default, f"one of {listed}" if listed else "")))


def _value(default: Any) -> str:
    if default in (None, (), ""):
        return ""
    if isinstance(default, bool):
        return {True: "on", False: "off"}[default]
    return f"`{' '.join(map(str, default)) if isinstance(default, tuple) else default}`"


def _escaped(text: str) -> str:
    for mark in "\\|*_<$":
        text = text.replace(mark, "\\" + mark)
    return text


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """A table of options."""
    return "\n".join(
        f"| {' | '.join(' '.join(cell.split()) for cell in row)} |"
        for row in [("option", "default", "description"), ("---",) * 3, *rows]
    )


class Generated(SphinxDirective):
    """A directive whose content is Markdown that the program gives; names in it are values and no
    links (links.py).
    """

    def shown(self, text: str, **options: Any) -> list[nodes.Node]:
        found = self.parse_text_to_nodes(text, **options)
        for literal in (each for node in found for each in node.findall(nodes.literal)):
            literal["classes"].append("value")
        return found


class Commands(Generated):
    """Every command, a section each."""

    def run(self) -> list[nodes.Node]:
        return self.shown("\n".join(described(*each) for each in command_pages()), allow_section_headings=True)


class ConfigurationKeys(Generated):
    """Every key of the configuration of a family, in one table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return self.shown(_table(list(keys_of(FAMILIES[self.arguments[0]]))).replace("| option |", "| key |", 1))


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    found: dict[str, type[Directive]] = {"commands": Commands, "configuration-keys": ConfigurationKeys}
    for name, directive in found.items():
        app.add_directive(name, directive)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
