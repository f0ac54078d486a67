"""Compiled kernels kept on disk (the folders: kernels/cache_places.py). A convenience: whatever is
wrong with a folder or a file costs time and a note, never a result.

Numba has a cache of its own. This one takes its place in a dispatcher because Numba's runs what
anybody wrote, ends at the first damaged file or full disk, and can give the code of one signature
for another when several processes fill it. A file holds one kernel for one signature and one
processor: a digest, then, pickled, what it was compiled from and the code. What of Numba is used
here and is not documented: `Dispatcher._cache`, `CompileResult._reduce` and `_rebuild`,
`Codegen.magic_tuple`, `serialize.dumps`.
"""

from __future__ import annotations

import hashlib
import pickle
from functools import cache
from typing import Any

import llvmlite
import numba
from numba import config
from numba.core import serialize
from numba.core.compiler import CompileResult

from fsp_dynamics.kernels.apart import callees, provide
from fsp_dynamics.kernels.cache_places import Place, Places, describe, places
from fsp_dynamics.kernels.cache_turns import Turn, Waiting
from fsp_dynamics.kernels.compile_watch import install

MAGIC = b"compiled kernel 2\n"
# of Numba's settings, those that change what is compiled
SETTINGS = (
    *("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML", "DEBUG_NRT"),
    *("FULL_TRACEBACKS", "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS", "LLVM_PASS_TIMINGS", "ENABLE_PROFILING"),
)
WAITING = Waiting()


class DamagedError(Exception):
    """The content of a file is not what was written."""


def keep(dispatcher: Any) -> Any:
    """The dispatcher, which from now on looks for compiled code on disk first and leaves what it
    compiles there. Unchanged without the compiler, and where the function's source cannot be read
    or its meaning is not in its source alone.
    """
    install()
    function = getattr(dispatcher, "py_func", None)
    if function is None or function.__closure__ or not _source(function.__code__.co_filename):
        return dispatcher
    kept = KernelCache(dispatcher)
    compile_now = type(dispatcher).compile

    def compile_in_turn(signature: Any) -> Any:
        try:
            return compile_now(dispatcher, signature)
        finally:
            kept.end_turn()

    dispatcher._cache, dispatcher.compile = kept, compile_in_turn
    return dispatcher


class KernelCache:
    """Stands in for Numba's cache of one dispatcher, by its methods."""

    def __init__(self, dispatcher: Any) -> None:
        function = dispatcher.py_func
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._origin = (
            *(numba.__version__, llvmlite.__version__),
            *(function.__module__, function.__qualname__, function.__code__.co_firstlineno),
            _source(function.__code__.co_filename),
            repr(sorted(dispatcher.targetoptions.items())),
        )
        self._turn: Turn | None = None

    @property
    def cache_path(self) -> str:
        """The folder that would be written to now."""
        found = places().writable()
        return "" if found is None else str(found.folder)

    def enable(self) -> None:
        """Always on."""

    def disable(self) -> None:
        """Always on."""

    def flush(self) -> None:
        """Code that is no longer wanted has other names."""

    def load_overload(self, signature: Any, context: Any) -> CompileResult | None:
        """The code for a signature; None if it must be compiled, by this process now."""
        context.refresh()
        known, key = places(), self._key(signature, context.codegen())
        found = self._load(known, key, context)
        place = known.writable() if found is None else None
        if place is not None:
            self._turn = Turn(place.folder / f"{self._file(key)}.lock")
            WAITING.wait(self._turn)
            found = self._load(known, key, context)
        if found is None:
            known.explain()
        return found

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled, if that is possible."""
        known, key = places(), self._key(signature, result.codegen)
        try:
            if result.lifted or result.library.has_dynamic_globals:
                return
            payload = serialize.dumps((key, callees(result), result._reduce()))
        except Exception as error:
            known.tell(f"the compiled kernel {self._name} cannot be kept ({type(error).__name__}: {error})")
            return
        known.write(self._file(key), packed(payload))

    def end_turn(self) -> None:
        """Let other processes compile."""
        if self._turn is not None:
            self._turn.end()
            self._turn = None

    def _key(self, signature: Any, codegen: Any) -> tuple[Any, ...]:
        settings = tuple(repr(getattr(config, name, None)) for name in SETTINGS)
        return (*self._origin, settings, codegen.magic_tuple(), signature)

    def _file(self, key: tuple[Any, ...]) -> str:
        return f"{self._name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"

    def _load(self, known: Places, key: tuple[Any, ...], context: Any) -> CompileResult | None:
        for place in known.readable():
            try:
                return self._rebuilt(place, key, context)
            except FileNotFoundError:
                continue
            except Exception as error:
                place.remove(self._file(key))
                known.tell(
                    f"the compiled kernel {place.folder / self._file(key)} cannot be used ({describe(error)}); "
                    "it is compiled anew"
                )
        return None

    def _rebuilt(self, place: Place, key: tuple[Any, ...], context: Any) -> CompileResult | None:
        """Raises DamagedError, OSError, and whatever a damaged object may raise."""
        own, called, reduced = pickle.loads(unpacked(place.read(self._file(key))))
        if own != key:
            return None
        provide(called)
        return CompileResult._rebuild(context, *reduced)


def packed(payload: bytes) -> bytes:
    """What a file holds."""
    return MAGIC + hashlib.sha256(payload).digest() + payload


def unpacked(content: bytes) -> bytes:
    """The payload of a file. Raises DamagedError if it is not what was written."""
    payload = content[len(MAGIC) + 32 :]
    if content != packed(payload):
        raise DamagedError("it is damaged")
    return payload


@cache
def _source(path: str) -> str:
    """The digest of a file, "" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""
