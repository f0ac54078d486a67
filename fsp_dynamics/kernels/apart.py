"""Kernels compiled apart: what calls one is given its address, never its body.

Numba links the body of whatever a kernel calls into it and optimises the whole anew, level of calls
by level. Where a call costs nothing beside the work it does, that gains nothing, and takes most of
the time of a first compilation. What calls a kernel made by `compile_apart` gets a declaration; the
code is found under a symbol whose name depends on the kernel's source and on the types of its
arguments, never on the process. So a caller kept on disk (kernels/disk_cache.py) can be linked in
another process, once that has the kernels it calls: `callees`, `provide`.

What is used here of Numba and is not documented: `CPUDispatcher` with `add_overload` and
`get_call_template`, `insert_user_function` and `remove_user_function` of its context, the
`mangled_name` of a function's description, a library's `get_pointer_to_function` and
`_final_module`. Where one is missing, bodies are linked into callers as usual: that costs time and
one note.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numba
from llvmlite import binding
from numba import types
from numba.core import registry

from fsp_dynamics.kernels.compile_watch import off_the_clock

CPUDispatcher: Any = getattr(registry, "CPUDispatcher", None)
PREFIX = "fsp_dynamics."
_kernels: dict[str, Any] = {}  # by their names
_defined: dict[str, tuple[str, Any]] = {}  # of each symbol, the name of its kernel and the signature
_numbers = itertools.count()
_told: set[str] = set()


def compile_apart(function: Any, name: str | None = None, **options: Any) -> Any:
    """`numba.njit(**options)(function)`, compiled apart from what calls it; without the compiler
    the function itself.

    name : tells its code from that of any other kernel, in all processes; None: for this process
        only.
    """
    plain = numba.njit(**options)(function)
    if not hasattr(plain, "py_func"):
        return plain
    if CPUDispatcher is None:
        _tell("it has no CPUDispatcher")
        return plain
    wrapped = not options.get("no_cpython_wrapper")
    kernel = (_Apart if wrapped else _Inner)(function, targetoptions=plain.targetoptions)
    kernel.name = name or f"{function.__qualname__}.{next(_numbers)}"
    if name is not None:
        _kernels[name] = kernel
    return kernel


def callees(result: Any) -> tuple[tuple[str, Any], ...]:
    """(name, signature) of each kernel compiled apart that the result of a compilation calls.
    Raises KeyError for one without a name.
    """
    declared = (each.name for each in result.library._final_module.functions if each.is_declaration)
    return tuple(_defined[symbol] for symbol in declared if symbol.startswith(PREFIX))


def provide(called: tuple[tuple[str, Any], ...]) -> None:
    """Load or compile these, before what calls them is linked. Raises KeyError for one that this
    process does not know, ValueError for one that now returns something else.
    """
    for name, signature in called:
        _kernels[name].compile(signature.args)
        if _kernels[name].overloads[signature.args].signature != signature:
            raise ValueError(f"{name} has changed")


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is collected meanwhile: while a kernel is compiled there is little of it, and
    looking for it takes a tenth of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            with off_the_clock():  # it is due now, and belongs to what has left the garbage
                gc.enable()
                gc.collect(0)


class _Apart(CPUDispatcher or object):  # type: ignore[misc]
    """A dispatcher whose code is called by its address."""

    name: str

    def compile(self, sig: Any) -> Any:
        with uncollected():
            return super().compile(sig)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Of a literal number only the type: else there would be code for each number."""
        return super().get_call_template(tuple(map(types.unliteral, args)), kws)

    def add_overload(self, cres: Any) -> None:
        super().add_overload(cres)
        try:
            self._define(cres)
        except Exception as error:
            _tell(f"{type(error).__name__}: {error}")

    def _define(self, result: Any) -> None:
        """From now on calls refer to a symbol."""
        signature, context = result.signature, self.targetctx
        symbol = f"{PREFIX}{self.name}.{hashlib.sha256(repr(signature.args).encode()).hexdigest()[:16]}"
        address = result.library.get_pointer_to_function(result.fndesc.mangled_name)
        if not address:
            raise ValueError(f"no address of {result.fndesc.mangled_name}")
        binding.add_symbol(symbol, address)
        outside = copy.copy(result.fndesc)
        outside.mangled_name = symbol
        context.remove_user_function(result.entry_point)
        context.insert_user_function(result.entry_point, outside)
        if self.name in _kernels:
            _defined[symbol] = self.name, signature


class _Inner(_Apart):
    """One that kernels call. What lets Python call it is compiled when it does."""

    def __call__(self, *args: Any) -> Any:
        return self._wrapped(*args)

    @cached_property
    def _wrapped(self) -> Any:
        return numba.njit(lambda *args: self(*args))


def _tell(reason: str) -> None:
    """A note, the first time."""
    if not _told:
        _told.add(reason)
        text = f"kernels are compiled into each other, which takes twice as long: Numba has changed ({reason})"
        warnings.warn(text, UserWarning, stacklevel=2)
