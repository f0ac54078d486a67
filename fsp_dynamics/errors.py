"""The exceptions of the package, and checks that raise them.

Each exception also derives from the built-in a Python user would expect to catch. A message names
the field or file, the value found, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fsp_dynamics.solvers.equilibrium import Equilibrium


class FspError(Exception):
    """Base class of all exceptions that this package raises deliberately.

    >>> try:
    ...     check_positive("dt", -1.0)
    ... except FspError as error:
    ...     print(type(error).__name__)
    ConfigurationError
    """


class ConfigurationError(FspError, ValueError):
    """An argument, an option or a configuration key cannot be used as given.

    >>> check_positive("dt", -1.0)
    Traceback (most recent call last):
    ...
    fsp_dynamics.errors.ConfigurationError: dt = -1.0, expected a finite number above 0
    """


class ShapeError(FspError, ValueError):
    """An array has another shape than the network needs.

    >>> check_shape("images", np.zeros((2, 3)), (None, 4))
    Traceback (most recent call last):
    ...
    fsp_dynamics.errors.ShapeError: images has shape (2, 3), expected (any, 4)
    """


class NotFiniteError(FspError, ArithmeticError):
    """NaN or infinity where a finite number is needed.

    >>> check_finite("images", np.array([0.0, np.nan]))
    Traceback (most recent call last):
    ...
    fsp_dynamics.errors.NotFiniteError: images[1] = nan, expected finite numbers (1 are not); ...
    """


class DataWarning(UserWarning):
    """Images or labels can be used as given, and are probably not what was meant.

    >>> import warnings
    >>> import fsp_dynamics as fsp
    >>> with warnings.catch_warnings(record=True) as seen:
    ...     free = fsp.relax(fsp.loop_network([4, 8, 3], rng=0), np.full((1, 4), 200.0))
    >>> [issubclass(each.category, DataWarning) for each in seen]
    [True]
    """


class DatasetError(FspError, OSError):
    """A data set is missing, truncated, corrupt or not the one named.

    >>> import fsp_dynamics as fsp
    >>> try:
    ...     fsp.load_dataset("mnist", data_dir="nowhere", download=False)
    ... except DatasetError as error:
    ...     print(str(error)[:19])
    mnist was not found
    """


class CheckpointError(FspError, ValueError):
    """A checkpoint is missing, damaged or belongs to another configuration.

    >>> import fsp_dynamics as fsp
    >>> fsp.load_network("missing.safetensors")
    Traceback (most recent call last):
    ...
    fsp_dynamics.errors.CheckpointError: the network is missing: no file missing.safetensors
    """


class NotAFileError(FspError, OSError):
    """A folder, a link, a pipe or a device stands where a file must be.

    >>> import fsp_dynamics as fsp
    >>> try:
    ...     fsp.load_network(".")
    ... except NotAFileError as error:
    ...     print(isinstance(error, OSError))
    True
    """


class RunExistsError(FspError, FileExistsError):
    """The run folder already holds a run and neither resuming nor another folder was asked for.

    >>> import fsp_dynamics as fsp
    >>> run = fsp.train("digits", epochs=1, data={"limit": 40}, out="a", progress=False)
    >>> try:
    ...     fsp.train("digits", epochs=1, data={"limit": 40}, out="a", progress=False)
    ... except RunExistsError as error:
    ...     print(isinstance(error, FileExistsError))
    True
    """


class RunLockedError(FspError, BlockingIOError):
    """Another process is writing to this run folder.

    >>> issubclass(RunLockedError, BlockingIOError)
    True
    """


class RankLostError(FspError, ConnectionError):
    """Another process of the same job has ended, so this one cannot continue.

    >>> issubclass(RankLostError, ConnectionError)
    True
    """


class NotConvergedError(FspError, RuntimeError):
    """A sample that must have converged has not; `equilibrium` is what was reached.

    >>> import fsp_dynamics as fsp
    >>> network = fsp.loop_network([4, 8, 3], rng=0)
    >>> solver = fsp.make_solver("reference", dt=0.01, method="euler", max_steps=2)
    >>> try:
    ...     fsp.relax(network, np.full((2, 4), 0.5), solver=solver).require_converged()
    ... except NotConvergedError as error:
    ...     print(error.equilibrium.converged.tolist())
    [False, False]
    """

    def __init__(self, message: str, equilibrium: Equilibrium) -> None:
        super().__init__(message)
        self.equilibrium = equilibrium

    def __reduce__(self) -> tuple[Any, ...]:
        # so that a worker process can raise it to its parent
        return type(self), (str(self), self.equilibrium)


class NoConvergenceError(FspError, RuntimeError):
    """No sample of a whole epoch converged, so nothing could be learned.

    >>> issubclass(NoConvergenceError, RuntimeError)
    True
    """


def nearest(name: str, choices: Iterable[str]) -> str:
    """The end of an error message: the closest valid name, if there is one, and all of them.

    >>> nearest("rk5", ["euler", "rk4"])
    "did you mean 'rk4'? (euler, rk4)"
    """
    names = sorted(choices)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listing = ", ".join(names)
    return f"did you mean {close[0]!r}? ({listing})" if close else f"choose one of: {listing}"


def check_choice(field: str, name: str, choices: Iterable[str]) -> str:
    """`name` if it is among `choices`. Raises ConfigurationError with the closest one otherwise."""
    choices = list(choices)
    if name not in choices:
        raise ConfigurationError(f"{field} = {name!r} is unknown; {nearest(str(name), choices)}")
    return name


def check_shape(field: str, array: Any, expected: tuple[int | None, ...]) -> None:
    """Raise ShapeError for an array whose shape is not `expected` (None: any length)."""
    shape = tuple(np.shape(array))
    if len(shape) != len(expected) or any(e is not None and e != n for e, n in zip(expected, shape, strict=True)):
        wanted = (
            "("
            + ", ".join("any" if e is None else str(e) for e in expected)
            + ("," if len(expected) == 1 else "")
            + ")"
        )
        raise ShapeError(f"{field} has shape {shape}, expected {wanted}")


def check_positive(field: str, value: float) -> float:
    """`value` if it is a finite number above zero. Raises ConfigurationError."""
    if not (isinstance(value, (int, float, np.number)) and np.isfinite(value) and value > 0):
        raise ConfigurationError(f"{field} = {value!r}, expected a finite number above 0")
    return value


def is_whole(value: Any, least: int) -> bool:
    """Whether this is a whole number of Python or NumPy, `least` or more; not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def check_finite(field: str, array: Any) -> None:
    """Raise NotFiniteError for NaN or infinity, naming the first such element."""
    array = np.asarray(array)
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f"[{', '.join(map(str, index))}]" if index else ""
        raise NotFiniteError(
            f"{field}{where} = {array[index]}, expected finite numbers ({int(bad.sum())} are not); clean the data first"
        )
