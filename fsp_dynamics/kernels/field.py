"""The field of models/rate.py over one flat state, compiled for one activation, and how kernels are compiled for activations.

The equations are the one-liners of models/rate.py, compiled and never rewritten. A sample is a flat state s (N,), the
layers side by side. What belongs to the network is handed over as arrays, so that one compilation serves every topology:

    weights (W,)     every matrix, flattened, one after the other
    wires (C, 4)     a row for each connection: pre, post, offset in `weights`, 1 where the matrix there is post x pre
    ends (L+1,)      layer k is s[ends[k] : ends[k + 1]]
    leak (N,)        1 / r of each unit
    pull (N,)        beta on the output's units, 0 elsewhere
    d (N,)           the target on the output's units, 0 elsewhere
    constant (N,)    the drive, then the biases of the other layers
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy.typing as npt
from numba.core.errors import NumbaError

from fsp_dynamics.models import activations, rate

Array = npt.NDArray[Any]
Unit = Callable[[Any], Any]

jit = numba.njit(error_model="numpy")  # x / 0 is inf or NaN, as in arrays: nothing inside a loop can raise
inner = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)  # called by kernels only: compiles in half the time
unit_field = jit(rate.unit_field)
unit_target = jit(rate.unit_target)
unit_rate_field = jit(rate.unit_rate_field)
rho, rho_slope = activations.hard_sigmoid, activations.hard_sigmoid_slope  # `compiled_for` puts an activation's own in their place


@numba.njit(error_model="numpy", fastmath={"reassoc"})  # lets the sum be vectorised; NaN and infinity keep their meaning
def dot(weights: Array, rates: Array) -> Any:
    """sum_i weights[i] rates[i]."""
    total = weights.dtype.type(0)
    for i in range(rates.size):
        total += weights[i] * rates[i]
    return total


@jit
def add_inputs(rates: Array, a: Array, weights: Array, wires: Array, ends: Array) -> None:
    """a[j] += sum_i rates[i] w_ij over every connection; silent units cost nothing."""
    for c in range(wires.shape[0]):
        pre, post, offset, transposed = wires[c, 0], wires[c, 1], wires[c, 2], wires[c, 3]
        entering = rates[ends[pre] : ends[pre + 1]]
        total = a[ends[post] : ends[post + 1]]
        if transposed:
            for j in range(total.size):
                total[j] += dot(weights[offset + j * entering.size : offset + (j + 1) * entering.size], entering)
        else:
            for i in range(entering.size):
                r = entering[i]
                if r != 0:
                    row = weights[offset + i * total.size : offset + (i + 1) * total.size]
                    for j in range(total.size):
                        total[j] += r * row[j]


@jit
def clip(s: Array) -> None:
    """s <- clip(s, 0, 1), in place; min(max(.)) in this order keeps NaN."""
    for i in range(s.size):
        s[i] = min(max(s[i], 0.0), 1.0)


def total_input(s: Array, constant: Array, weights: Array, wires: Array, ends: Array, rates: Array, a: Array) -> None:
    """a <- constant + rho(s) @ W, with rates <- rho(s); all (N,)."""
    for i in range(s.size):
        rates[i] = rho(s[i])
        a[i] = constant[i]
    add_inputs(rates, a, weights, wires, ends)


def fill_field(s: Array, a: Array, leak: Array, pull: Array, d: Array, literal: bool, out: Array) -> None:
    """out <- ds/dt (N,), as eq. 13 stands (`literal`) or in the rate form of the hard sigmoid."""
    if literal:
        for i in range(s.size):
            out[i] = unit_field(s[i], a[i], rho_slope(s[i]), leak[i], pull[i], d[i])
    else:
        for i in range(s.size):
            out[i] = unit_rate_field(s[i], rho(unit_target(a[i], leak[i], pull[i], d[i])), leak[i], pull[i])


FIELD = (total_input, fill_field)
OURS = frozenset(f for a in activations.ACTIVATIONS.values() for f in (a.rate, a.slope))


@lru_cache(maxsize=64)
def compiled_for(rate: Unit, slope: Unit, templates: tuple[Any, ...], parallel: bool = False) -> Any:
    """The last of the templates, compiled for one activation together with the others, which it calls by their names.

    Copies of the templates share globals in which `rho`, `rho_slope` and the templates' own names mean the compiled
    functions. (Closures would do the same, but Numba never finds a closure over compiled functions in its disk cache.)
    What is made of this package's activations is kept on disk, under a name that changes with any source it is made of.
    """
    *inner, top = templates
    kept = rate in OURS and slope in OURS
    marks = (rate.__name__, slope.__name__, *([_fingerprint()] if kept else []))
    world: dict[str, Any] = {**globals(), **top.__globals__, "rho": jitted(rate), "rho_slope": jitted(slope)}
    for template in inner:
        world[template.__name__] = jit(_copy(template, world, marks))
    return jitted(_copy(top, world, marks), kept, parallel)


def jitted(function: Any, kept: bool = False, parallel: bool = False, nogil: bool = False) -> Any:
    """The function compiled; if `kept`, also on disk, where a folder for it can be written (the package's, else the user's cache)."""
    if hasattr(function, "py_func"):
        return function
    if not isinstance(function, FunctionType):
        raise NumbaError(f"{function!r} is no function written in Python")
    try:
        return numba.njit(error_model="numpy", parallel=parallel, nogil=nogil, cache=kept)(function)
    except RuntimeError:  # no such folder: compile in every process
        return numba.njit(error_model="numpy", parallel=parallel, nogil=nogil)(function)


def _copy(template: Any, world: dict[str, Any], marks: tuple[str, ...]) -> FunctionType:
    """The template with `world` for its globals and the marks in its name.

    Numba names files and machine code after a function: without the marks, code kept for two activations by two processes
    could bear one name, and a third process that loads both would run one for the other.
    """
    copy = FunctionType(template.__code__, world, template.__name__)
    copy.__module__, copy.__qualname__ = template.__module__, "_".join((template.__name__, *marks))
    return copy


def entry(function: Any) -> Any:
    """The function compiled as a way in from Python: it lets other threads run, and is kept on disk until the source of any kernel changes."""
    function.__qualname__ = f"{function.__name__}_{_fingerprint()}"
    return jitted(function, kept=True, nogil=True)


@cache
def _fingerprint() -> str:
    """Changes with the sources of the equations, the activations and all kernels; Numba itself watches the file of the top function only."""
    files = [Path(str(module.__file__)) for module in (rate, activations)] + sorted(Path(__file__).parent.glob("*.py"))
    try:
        sources = b"".join(file.read_bytes() for file in files)
    except OSError:  # no sources: then Numba keeps nothing either
        sources = b""
    return hashlib.sha256(sources).hexdigest()[:16]
