"""A kernel compiled in the thread that listens, before others run it (kernels/team.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numba
import numpy as np
from numba.core.event import Listener, install_listener

from fsp_dynamics.kernels.heed import heed, heeded

_compiled: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()  # for which dtypes


class _Left(BaseException):
    """What a check raised, past all that the compiler does with an Exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Heeding(Listener):
    """Makes the check before each pass of the compiler."""

    def on_start(self, event: Any) -> None:
        try:
            heed()
        except Exception as error:
            raise _Left(error) from error

    def on_end(self, event: Any) -> None:
        pass


def compile_heeding(kernel: Any, *args: Any) -> None:
    """Compile the kernel for such arguments, or load it, in this thread: between two passes of the
    compiler signals are heard, and what the caller heeds.
    """
    if not hasattr(kernel, "py_func"):
        return
    # Numba's own look at the types takes longer than many a kernel
    kind, known = "".join(_dtypes(args)), _compiled.setdefault(kernel, set())
    if kind not in known:
        types_ = tuple(numba.typeof(arg) for arg in args)
        try:
            with install_listener("numba:run_pass", _Heeding()) if heeded() else nullcontext():
                kernel.compile(types_)
        except _Left as left:
            raise left.error from None
        known.add(kind)


def _dtypes(args: tuple[Any, ...]) -> Iterator[str]:
    for arg in args:
        if isinstance(arg, tuple):
            yield from _dtypes(arg)
        elif isinstance(arg, np.ndarray):
            yield arg.dtype.char
