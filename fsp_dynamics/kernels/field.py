"""The field of models/rate.py over the state of one sample, compiled for one activation, and how
kernels are compiled for activations.

The equations are the one-liners of models/rate.py, compiled and never rewritten. A state is a row
of an array (., P): the layers side by side, each padded with zeros to whole panels
(kernels/panels.py). Kernels get arrays and row numbers, not rows: making a view takes longer than
the work on a small layer. leak (P,) is 1 / r of each unit; the last layer begins at `output`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import numba
import numpy.typing as npt
from numba.core.errors import NumbaError

from fsp_dynamics.kernels.apart import compile_apart
from fsp_dynamics.kernels.disk_cache import keep
from fsp_dynamics.models import activations, rate
from fsp_dynamics.settings import checked_features

Array = npt.NDArray[Any]
Unit = Callable[[Any], Any]

# before anything is compiled
FEATURES = checked_features(getattr(numba.config, "CPU_FEATURES", None))
# x / 0 is inf or NaN, as in arrays: nothing inside a loop can raise
# called from Python
ENTRY: dict[str, Any] = {"error_model": "numpy", "no_cfunc_wrapper": True}
INNER = ENTRY | {"no_cpython_wrapper": True}  # called by kernels
BARE = INNER | {"_nrt": False}
jit = numba.njit(**ENTRY)
inner = numba.njit(**INNER)
# besides, counts no references: each is an atomic operation, several for every view of an array
bare = numba.njit(**BARE)
# a function that counts no references cannot return an array: views are made where they are used
view = numba.njit(**ENTRY, inline="always")
unit_field = jit(rate.unit_field)
unit_target = jit(rate.unit_target)
unit_rate_field = jit(rate.unit_rate_field)
# `compiled_for` replaces these two by those of its activation
rho, rho_slope = activations.hard_sigmoid, activations.hard_sigmoid_slope


class UnitInputs(NamedTuple):
    """What enters each unit whatever the states of the others.

    constant (B, P) : the drive, then the biases of the other layers. target (B, P_L) : d of the
    output under a nudge of strength beta (0 in a free phase).
    """

    constant: Array
    target: Array
    beta: float


def rho_pair(s: Any) -> Any:
    """(rho(s), rho'(s)); `compiled_for` may replace it by a fast twin of kernels/exponential.py."""
    return rho(s), rho_slope(s)


# reassoc lets the sum be vectorised; NaN and infinity keep their meaning
@numba.njit(error_model="numpy", fastmath={"reassoc"})
def dot(weights: Array, rates: Array) -> Any:
    """sum_i weights[i] rates[i]."""
    total = weights.dtype.type(0)
    for i in range(rates.size):
        total += weights[i] * rates[i]
    return total


@jit
def clip(s: Array, b: int) -> None:
    """s[b] <- clip(s[b], 0, 1), in place; min(max(.)) in this order keeps NaN."""
    zero, one = s.dtype.type(0), s.dtype.type(1)
    for i in range(s.shape[1]):
        s[b, i] = min(max(s[b, i], zero), one)


def fill_rates(s: Array, b: int, rates: Array, slopes: Array, r: int) -> None:
    """rates[r] <- rho(s[b]), slopes[r] <- rho'(s[b])."""
    for i in range(s.shape[1]):
        rates[r, i], slopes[r, i] = rho_pair(s[b, i])


def fill_field(
    s: Array,
    b: int,
    a: Array,
    slopes: Array,
    r: int,
    inputs: UnitInputs,
    leak: Array,
    output: int,
    literal: bool,
    out: Array,
    o: int,
) -> None:
    """out[o] <- ds/dt at s[b], with input a[r] from other units: eq. 13 (`literal`, slopes[r] =
    rho'(s[b])) or the rate form of the hard sigmoid.
    """
    constant, d, beta = inputs.constant, inputs.target, s.dtype.type(inputs.beta)
    none, units = s.dtype.type(0), s.shape[1]
    free = units if beta == 0 else output  # without a nudge the output is like the others
    if literal:
        for i in range(free):
            out[o, i] = unit_field(s[b, i], a[r, i] + constant[b, i], slopes[r, i], leak[i], none, none)
        for i in range(free, units):
            out[o, i] = unit_field(s[b, i], a[r, i] + constant[b, i], slopes[r, i], leak[i], beta, d[b, i - output])
    else:
        for i in range(free):
            out[o, i] = unit_rate_field(
                s[b, i], rho(unit_target(a[r, i] + constant[b, i], leak[i], none, none)), leak[i], none
            )
        for i in range(free, units):
            out[o, i] = unit_rate_field(
                s[b, i], rho(unit_target(a[r, i] + constant[b, i], leak[i], beta, d[b, i - output])), leak[i], beta
            )


FIELD = (fill_rates, fill_field)
OURS = frozenset(f for a in activations.ACTIVATIONS.values() for f in (a.rate, a.slope))


@lru_cache(maxsize=64)
def compiled_for(
    rate: Unit, slope: Unit, templates: tuple[Any, ...], pair: Unit | None = None, counted: bool = True
) -> Any:
    """The last of the templates, compiled for one activation together with the others, which it
    calls by their names.

    Copies of the templates share globals in which `rho`, `rho_slope`, `rho_pair` and the
    templates' own names mean the compiled functions; `pair` may be another function for (rho(s),
    rho'(s)). (Closures would do the same, but Numba never finds a closure over compiled functions
    in its disk cache.) Without `counted` the templates count no references, and must not make
    arrays. What is compiled for this package's activations is kept on disk, under a name that
    changes with any source it is made of.
    """
    *others, top = templates
    kept = rate in OURS and slope in OURS
    marks = (rate.__name__, slope.__name__, *([_fingerprint()] if kept else []))
    world: dict[str, Any] = {
        name: value for template in (rho_pair, *templates) for name, value in template.__globals__.items()
    }
    world |= {"rho": jitted(rate), "rho_slope": jitted(slope)}
    world["rho_pair"] = jit(_copy(rho_pair, world, marks)) if pair is None else pair
    for template in others:
        world[template.__name__] = _apart(_copy(template, world, marks), kept, **INNER, _nrt=counted)
    return _apart(_copy(top, world, marks), kept, **ENTRY, nogil=True, _nrt=counted)


def jitted(function: Any, kept: bool = False, nogil: bool = False, counted: bool = True) -> Any:
    """The function compiled; if `kept`, as `_apart` does it."""
    if hasattr(function, "py_func"):
        return function
    if not isinstance(function, FunctionType):
        raise NumbaError(f"{function!r} is not a function written in Python")
    options = ENTRY | {"nogil": nogil, "_nrt": counted}
    return _apart(function, True, **options) if kept else numba.njit(**options)(function)


def _apart(function: Any, kept: bool, **options: Any) -> Any:
    """The function compiled apart from what calls it (kernels/apart.py); if `kept`, also on disk
    (kernels/disk_cache.py), under its name.
    """
    name = f"{function.__module__}.{function.__qualname__}" if kept else None
    compiled = compile_apart(function, name, **options)
    return keep(compiled) if kept else compiled


def _copy(template: Any, world: dict[str, Any], marks: tuple[str, ...]) -> FunctionType:
    """The template with `world` for its globals and the marks in its name.

    Numba names files and machine code after a function: without the marks, code kept for two
    activations by two processes could bear one name, and a third process that loads both would run
    one for the other.
    """
    template = getattr(template, "py_func", template)
    copy = FunctionType(template.__code__, world, template.__name__)
    copy.__module__, copy.__qualname__ = template.__module__, "_".join((template.__name__, *marks))
    return copy


def entry(function: Any) -> Any:
    """The function compiled to be called from Python: it releases the GIL, and is kept on disk
    until the source of any kernel changes.
    """
    return _marked(function, **ENTRY, nogil=True, _nrt=False)


def apart(function: Any) -> Any:
    """The function compiled to be called by kernels, apart from them and kept on disk like an
    `entry`: for whatever takes longer than a call.
    """
    return _marked(function, **BARE)


def _marked(function: Any, **options: Any) -> Any:
    function.__qualname__ = f"{function.__name__}_{_fingerprint()}"
    return _apart(function, True, **options)


@cache
def _fingerprint() -> str:
    """Changes with the sources of the equations, the activations and all kernels; the cache itself
    watches the file of the top function only.
    """
    files = [Path(str(module.__file__)) for module in (rate, activations)] + sorted(Path(__file__).parent.glob("*.py"))
    try:
        sources = b"".join(file.read_bytes() for file in files)
    except OSError:  # no sources: then nothing is kept either
        sources = b""
    return hashlib.sha256(sources).hexdigest()[:16]
