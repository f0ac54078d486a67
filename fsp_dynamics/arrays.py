"""What is taken for an array of numbers, in every public function: one conversion, at the entrance.

NumPy arrays of numbers or truth values are taken as they are, at the cost of one comparison.
Lists, data frames (nullable ones too), object arrays of numbers and tensors (of any device and
precision, with gradients or not) become arrays of the same numbers. All else is refused by name:
masked, missing and complex values, text, sparse matrices, rows of different lengths.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from fsp_dynamics.errors import ConfigurationError, DataWarning, ShapeError, check_finite

Array = npt.NDArray[Any]

FAR = 10.0
"""Pixels and targets are rates in [0, 1]; what lies further away than this is probably none."""
NUMBERS = "fiub"  # kinds of dtypes


def numbers(field: str, values: Any) -> Array:
    """The values as an array of real numbers or truth values, in native byte order.

    Raises ConfigurationError, naming `field`, for what holds anything else, ShapeError for rows of
    different lengths.
    """
    if type(values) is np.ndarray and values.dtype.kind in NUMBERS and values.dtype.isnative:
        return values
    found = _unmasked(field, values)
    if hasattr(found, "detach") and hasattr(found, "cpu"):
        found = _of_tensor(field, found)
    if isinstance(found, dict | set | frozenset | str | bytes) or found is None or hasattr(found, "toarray"):
        dense = "; .toarray() makes one of a sparse matrix" if hasattr(found, "toarray") else ""
        raise ConfigurationError(f"{field} is of type {type(found).__name__}, expected an array of numbers{dense}")
    try:
        array = np.asarray(found)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"{field} is not an array: {' '.join(str(error).split())}; give rows of one length, of numbers"
        ) from error
    if array.dtype.kind == "O":
        array = _of_objects(field, array)
    if array.dtype.kind not in NUMBERS:
        raise ConfigurationError(f"{field} have dtype {array.dtype}, expected numbers; convert them first")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def floats(field: str, values: Any) -> Array:
    """`numbers` as float32 or float64; half precision, truth values and integers become float32,
    which holds them exactly below 2^24.
    """
    array = numbers(field, values)
    if array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)


def class_numbers(field: str, values: Any) -> npt.NDArray[np.int64]:
    """Labels as int64; truth values are the classes 0 and 1. Raises ConfigurationError for labels
    that are no whole numbers.
    """
    array = numbers(field, values)
    if array.dtype.kind == "f":
        broken = np.argwhere(~(array == np.floor(array)))
        if len(broken):
            index = tuple(map(int, broken[0]))
            raise ConfigurationError(
                f"{field}[{', '.join(map(str, index))}] = {array[index]}, expected whole numbers, the classes from 0 "
                "on; np.unique(labels, return_inverse=True)[1] numbers any labels"
            )
    return array.astype(np.int64, copy=False)


def pixels(field: str, values: Any) -> Array:
    """Images as finite numbers, with a `DataWarning` where they lie far outside [0, 1].

    Raises ConfigurationError for bytes above 1 and as `numbers`, NotFiniteError.
    """
    array = numbers(field, values)
    check_pixels(field, array, finite=True)
    return array


def check_pixels(field: str, array: Array, finite: bool = False) -> None:
    """What `pixels` does with an array; finite : NaN and infinity are refused here too."""
    if array.size == 0:
        return
    low, high = array.min(), array.max()
    if finite and not (low >= -FAR and high <= FAR):
        check_finite(field, array)
    if array.dtype.kind in "iu" and high > 1:
        if array.dtype == np.uint8:
            raise ConfigurationError(f"{field} are bytes up to {high}, expected numbers in [0, 1]; give {field} / 255")
        warn(f"{field} are whole numbers above 1, expected numbers in [0, 1]; divide by the largest possible value")
    elif low < -FAR or high > FAR:
        warn(f"{field} reach beyond {FAR:g}, expected numbers in [0, 1]; divide by the largest possible value")


Rng = np.random.Generator | int | None
"""What a random stream is asked for with: a seed, or the stream itself; None: another each time."""


def generator(rng: Any, field: str = "rng") -> np.random.Generator:
    """The random stream of a seed, or the Generator itself. Raises ConfigurationError."""
    whole = isinstance(rng, int | np.integer) and not isinstance(rng, bool)
    if rng is None or (whole and rng >= 0) or isinstance(rng, np.random.Generator | np.random.BitGenerator):
        return np.random.default_rng(rng)
    if isinstance(rng, np.random.SeedSequence):
        return np.random.default_rng(rng)
    remedy = ""
    if hasattr(rng, "initial_seed"):
        remedy = f"; give {field}=generator.initial_seed()"
    elif isinstance(rng, np.random.RandomState):
        remedy = f"; give {field}=state.randint(2**31)"
    raise ConfigurationError(
        f"{field} = {rng!r}, expected None, a whole number from 0 on, or a numpy.random.Generator{remedy}"
    )


def warn(text: str) -> None:
    """A `DataWarning` at the line outside this package from which it was called."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fsp_dynamics":
        level, frame = level + 1, frame.f_back
    warnings.warn(text, DataWarning, stacklevel=level)


def _unmasked(field: str, values: Any) -> Any:
    """A masked array of which nothing is masked is an array. Raises ConfigurationError."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    count = int(np.ma.count_masked(values))
    if count:
        raise ConfigurationError(
            f"{field} is a masked array of which {count} values are masked, expected numbers everywhere; "
            "give .filled(0), or leave those samples out"
        )
    return values.data


def _of_tensor(field: str, tensor: Any) -> Any:
    """A tensor as an array. Raises ConfigurationError."""
    tensor = tensor.detach().cpu()
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError):  # a precision that NumPy lacks, or a sparse layout
        try:
            return tensor.float().numpy()
        except (TypeError, RuntimeError) as error:
            raise ConfigurationError(
                f"{field} is a tensor that cannot be read as an array ({' '.join(str(error).split())}); "
                "give a dense tensor of numbers"
            ) from error


def _of_objects(field: str, array: Array) -> Array:
    """An array of Python objects as one of numbers. Raises ConfigurationError for the first object
    that is none, ShapeError for rows of different lengths.
    """
    try:
        natural = np.array(array.tolist())
    except ValueError:  # rows of different lengths, which are named below
        natural = array
    if natural.shape == array.shape and natural.dtype.kind in NUMBERS:
        return natural
    for index, value in np.ndenumerate(array):
        if isinstance(value, list | tuple | np.ndarray):
            raise ShapeError(f"{field} is not an array: it holds rows of different lengths; give rows of one length")
        if isinstance(value, str | bytes) or value is None or not hasattr(value, "__float__"):
            where = f"[{', '.join(map(str, index))}]" if index else ""
            raise ConfigurationError(
                f"{field}{where} = {value!r} of type {type(value).__name__}, expected numbers; clean the data first"
            )
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(f"{field} holds what is no number ({error}); clean the data first") from error
