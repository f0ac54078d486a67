"""What the commands share: options that mean the same everywhere, and options for every key of a
configuration.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import former_names
from fsp_dynamics.experiments.config import all_fields
from fsp_dynamics.experiments.config_io import SHORT, read_value
from fsp_dynamics.screen import showing

if TYPE_CHECKING:
    from fsp_dynamics.experiments.progress import RunReporter

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
ShowProgress = Annotated[
    bool, Parameter(name="--progress", help="Show bars for the run and its epochs, on terminals and in notebooks.")
]
AllowImport = Annotated[
    tuple[str, ...],
    SEVERAL,
    Parameter(help="Modules that may be imported where a run names its own rule or firing rate by an import path."),
]
SaveMinutes = Annotated[
    float,
    Parameter(help="Minutes, at most, from one checkpoint to the next within an epoch.", show_default=True),
]
RunPath = Annotated[Path, Parameter(help="The folder of a run.")]


def with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every key of a configuration in place of its `**given`."""
    group = Group("Configuration (overrides the preset or file; none takes a value of it back)", sort_key=9)
    short = {key: f"--{name}" for name, key in SHORT.items()}
    options = []
    for key, meaning in {**all_fields(), **dict.fromkeys(former_names.KEYS, "")}.items():
        names = (f"--{key}", *([short[key]] if key in short else []))
        shown: dict[str, Any] = {"group": group, "show_default": False, "metavar": "VALUE", "show": bool(meaning)}
        option = Parameter(name=names, help=meaning, allow_leading_hyphen=True, **shown)
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


def read_overrides(words: Sequence[str]) -> dict[str, Any]:
    """The overrides of a script's command line, KEY and VALUE in turn. Raises ConfigurationError.

    >>> read_overrides(["--learning.beta", "0.5", "--epochs", "3"])
    {'learning.beta': 0.5, 'epochs': 3}
    """
    if len(words) % 2 or any(not key.startswith("--") for key in words[::2]):
        raise ConfigurationError(f"{' '.join(words)}: expected --KEY VALUE pairs after the options; --help lists those")
    return {key[2:]: read_value(value) for key, value in zip(words[::2], words[1::2], strict=True)}


def numbers(field: str, text: str | None) -> list[int] | None:
    """The whole numbers of a list with commas, in order; None for none given. Raises
    ConfigurationError.

    >>> numbers("seeds", "2,0")
    [0, 2]
    """
    if text is None:
        return None
    value: Any = read_value(text)
    found = value if isinstance(value, list) else [value]
    if not found or not all(type(n) is int and n >= 0 for n in found):
        raise ConfigurationError(
            f"{field} = {text!r}, expected whole numbers from 0 on with commas between them, such as 0,1,2"
        )
    return sorted(set(found))


def reporter(progress: bool) -> RunReporter:
    """Bars, or lines alone."""
    from fsp_dynamics.experiments.progress import RunReporter, StderrOutput

    return RunReporter(StderrOutput(bars=progress))


def loading() -> contextlib.AbstractContextManager[None]:
    """Around the imports of a command that take long: says so where rows move."""
    return showing("loading")
