"""The files of the page: its script, its style sheet, and the page that `fsp explore` opens.

The script is `script/*.js`, concatenated in the order of the file names into one ES module.
"""

from __future__ import annotations

from importlib.resources import files


def script() -> str:
    """The parts of the script as one ES module."""
    parts = sorted(
        (part for part in (files(__package__) / "script").iterdir() if part.name.endswith(".js")),
        key=lambda part: part.name,
    )
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


def style() -> str:
    """The style sheet."""
    return _text("script", "explorer.css")


def standalone(name: str) -> str:
    """A file of the page without a notebook: index.html or page.js."""
    return _text("page", name)


def _text(folder: str, name: str) -> str:
    return (files(__package__) / folder / name).read_text(encoding="utf-8")
