"""What the command line says on stderr: lines, and messages of Python functions in terms of
options.
"""

from __future__ import annotations

import re
import shlex

from fsp_dynamics.screen import screen


def report(text: str) -> None:
    """One line on stderr, now."""
    screen().write(text)


def in_options(message: str) -> str:
    """A message of a Python function with the options of the command line in place of arguments.

    Messages name arguments that can be given as `name=...`, `name=True` or `name='value'`, and keys
    that can be taken back as `key=None`.

    >>> in_options("a is a run; resume it (resume=True) or give another folder (out=...)")
    'a is a run; resume it (--resume) or give another folder (--out)'
    >>> in_options("begin anew: train('runs/a', out='NEW')")
    'begin anew: fsp train runs/a --out NEW'
    >>> in_options("allow it: train('runs/a', resume=True, allow=['seed', 'data.limit'])")
    'allow it: fsp train runs/a --resume --allow seed data.limit'
    >>> in_options("try the best checkpoint (which='best')")
    'try the best checkpoint (fsp evaluate RUN --checkpoint best)'
    >>> in_options("leave it out (network.loop_scale=None)")
    'leave it out (--network.loop_scale none)'
    """

    def option(found: re.Match[str]) -> str:
        name, value = found[1], found[2].strip("'")
        return _OPTIONS[name] if value in ("True", "...") else f"{_OPTIONS[name]} {value}"

    text = re.sub(rf"\b({'|'.join(_OPTIONS)})=(True|\.\.\.|'[^']*')", option, message)
    text = re.sub(r"\b([a-z_]+(?:\.[a-z_]+)+)=None", r"--\1 none", text)
    text = re.sub(r"\ballow=\[([^]]*)\]", lambda found: "--allow " + re.sub("[',]", "", found[1]), text)
    text = re.sub(r"\btrain\('([^']*)', ([^()]*)\)", _as_command, text)
    text = re.sub(r"\ballow_import=\('([^']*)',\)", r"--allow-import \1", text)
    return text.replace("train_missing()", "--train")


def _as_command(found: re.Match[str]) -> str:
    return f"fsp train {shlex.quote(found[1])} {found[2].replace(',', '')}"


_OPTIONS = {
    name: f"--{name.replace('_', '-')}"
    for name in ("resume", "dry_run", "out", "runs", "seeds", "data_dir", "array", "image_shape", "classes")
} | {"pairs": "--pair", "replacing": "--replace", "which": "fsp evaluate RUN --checkpoint"}
