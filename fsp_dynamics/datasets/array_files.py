"""Arrays from files of NumPy and IDX files, of which no more is read than their size and their
header agree on. Nothing is unpickled.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fsp_dynamics.datasets.idx import LARGEST, parse_idx
from fsp_dynamics.errors import DatasetError, NotAFileError
from fsp_dynamics.folders import expanded
from fsp_dynamics.reading import open_file

IMAGES = "images"
_FORMATS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_images(path: str | Path, array: str | None = None) -> npt.NDArray[Any]:
    """The images, without labels, of ``NAME.npy``, of ``NAME.npz`` (its array `array`; None: the
    one called ``images``, or its only one), or of an IDX file (B, h, w) of any name, gzipped or
    not. They are as the file holds them: what they must be is for `ImageFormat.inputs` to say.

    Raises DatasetError for a file that is missing, damaged or none of these, for an array that it
    does not hold, and for `array` where there is but one.
    """
    path = expanded(path, "images")
    if array is not None and path.suffix != ".npz":
        raise DatasetError(
            f"{path}: array = {array!r}, but the file is no .npz, which alone has names; leave array out"
        )
    try:
        if path.suffix == ".npz":
            return _of_npz(path, array)
        with open_file(path, follow=True) as file:
            size = file.seek(0, 2)
            file.seek(0)
            if path.suffix == ".npy":
                return read_npy(file, size, str(path))
            return parse_idx(file, str(path), (None, None, None), None)  # type: ignore[arg-type]
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such file; expected images, .npy, .npz or IDX") from None
    except (NotAFileError, DatasetError) as error:
        what = "" if path.suffix in (".npy", ".npz") else "; give .npy, .npz or IDX images"
        raise DatasetError(f"{error}{what}") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_npy(file: IO[bytes], size: int, label: str) -> npt.NDArray[Any]:
    """The array of an open .npy of `size` bytes, called `label` in messages. Raises
    DatasetError.
    """
    if size > 4 * LARGEST:
        raise DatasetError(f"{label} claims {size} bytes, expected at most {4 * LARGEST}")
    try:
        shape, columns_first, dtype = _FORMATS[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError) as error:
        raise DatasetError(f"{label} is not an array that numpy.savez wrote ({error})") from error
    if dtype.hasobject:
        raise DatasetError(f"{label} has dtype object, expected numbers; nothing is unpickled")
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != held:
        raise DatasetError(f"{label} claims {claimed} bytes, but {held} are there: it is damaged")
    flat = np.frombuffer(file.read(), dtype)
    return flat.reshape(shape, order="F" if columns_first else "C")


def npy_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> npt.NDArray[Any]:
    """One array of an .npz. Raises DatasetError, and what zipfile and zlib raise."""
    label = f"{path}: {info.filename.removesuffix('.npy')}"
    if info.file_size > 4 * LARGEST:  # before any of it is unpacked
        raise DatasetError(f"{label} claims {info.file_size} bytes, expected at most {4 * LARGEST}")
    with archive.open(info) as file:
        return read_npy(file, info.file_size, label)


@contextmanager
def opened_npz(file: Path | IO[bytes], path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """An .npz that is read in the block, and its members by their names. `path` is what messages
    name. Raises DatasetError for one that is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive, {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DatasetError(f"{path}: is not an intact .npz ({error}); save it again with numpy.savez") from error


def _of_npz(path: Path, array: str | None) -> npt.NDArray[Any]:
    with open_file(path, follow=True) as file, opened_npz(file, path) as (archive, held):
        name = array or (IMAGES if IMAGES in held or len(held) != 1 else next(iter(held)))
        if name not in held:
            listed = ", ".join(sorted(held)) or "nothing"
            raise DatasetError(f"{path}: holds {listed}, not {name}; name the images among them (array=...)")
        return npy_member(archive, held[name], path)
