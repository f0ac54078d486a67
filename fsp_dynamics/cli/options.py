"""What the commands share: options that mean the same everywhere, options for every key of a
configuration, and stderr.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from fsp_dynamics.experiments.config import fields
from fsp_dynamics.experiments.config_io import SHORT, read_value

if TYPE_CHECKING:
    from fsp_dynamics.experiments.progress import Reporter

SEVERAL = Parameter(consume_multiple=True, negative="", show_default=False)
"""How an option is read that takes values one after the other."""
Json = Annotated[bool, Parameter(name="--json", negative="", help="Machine-readable, on stdout.")]
Threads = Annotated[
    int | None, Parameter(help="Threads of BLAS and the kernels; by default BLAS gets one, the kernels all.")
]
BackendName = Annotated[
    Literal["numba", "torch"], Parameter(name="--backend", help="What computes; a run may be resumed on another one.")
]
Device = Annotated[
    str | None, Parameter(help="Of backend torch: auto, cpu, cuda, cuda:1 (default: auto, a GPU where there is one).")
]
Products = Annotated[
    Literal["full", "tf32", "bf16"] | None,
    Parameter(help="Of backend torch: how exact the factors of products with weights are (default: full)."),
]
DataDir = Annotated[Path | None, Parameter(help="Where to look for data first (default: $FSP_DATA).")]
ShowProgress = Annotated[bool, Parameter(name="--progress", help="Show a bar for each epoch.")]
Run = Annotated[Path, Parameter(help="The folder of a run.")]


def with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every key of a configuration in place of its `**given`."""
    group = Group("Configuration (in place of what the preset or file says)", sort_key=9)
    short = {key: f"--{name}" for name, key in SHORT.items()}
    options = []
    for key, meaning in fields().items():
        names = (f"--{key}", *([short[key]] if key in short else []))
        option = Parameter(
            name=names, help=meaning, group=group, show_default=False, metavar="VALUE", allow_leading_hyphen=True
        )
        options.append(
            inspect.Parameter(
                key.replace(".", "__"),
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[str | None, option],
            )
        )
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return command


def overrides(given: dict[str, str | None]) -> dict[str, Any]:
    """{dotted key: value} of the keys that were given to a command `with_fields`."""
    return {key.replace("__", "."): read_value(value) for key, value in given.items() if value is not None}


def reporter(progress: bool) -> Reporter:
    """Bars, or lines alone."""
    from fsp_dynamics.experiments.progress import Bars, Lines

    return Bars() if progress else Lines()


def say(text: str) -> None:
    """One line on stderr, now."""
    print(text, file=sys.stderr, flush=True)
