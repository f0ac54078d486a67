"""The arrays of a checkpoint in one file: safetensors, read with a limit and believed only where
they are finite.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from fsp_dynamics.errors import CheckpointError, NotFiniteError
from fsp_dynamics.models.network import Array
from fsp_dynamics.reading import MEGABYTE, open_file, parse_json

HEADER = MEGABYTE  # of safetensors, in bytes
BOUND = "run"  # the one key of its metadata
LARGEST = {4: 1e15, 8: 1e150}
"""The largest number that is saved or restored, by bytes of a float: squares of larger ones, summed
over a layer, are not finite.
"""
HOLES = 1 << 30  # from so many bytes on a file must be more than holes


def write_payload(arrays: dict[str, Array], bound: str) -> bytes:
    """The arrays as safetensors. bound : the digest of what they belong to, kept in the metadata.
    Equal arrays give equal bytes.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return safetensors.numpy.save(whole, metadata={BOUND: bound})


def read_payload(path: Path, size: int, sha256: str, remedy: str) -> tuple[dict[str, Array], str | None]:
    """(arrays, what they are bound to, None in files of before), verified to the byte.

    Raises CheckpointError where length, digest or format are wrong, and as `reading.open_file`.
    """
    content = read_whole(path, remedy, size=size)
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise CheckpointError(
            f"{path} has SHA-256 {digest[:12]}..., expected {sha256[:12]}... as in its manifest: "
            f"it is damaged; {remedy}"
        )
    try:
        bound = read_metadata(content).get(BOUND)
        return dict(safetensors.numpy.load(content)), bound
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not hold arrays ({error}); {remedy}") from None


def read_whole(path: Path, remedy: str, *, size: int | None = None, follow: bool = False) -> bytes:
    """The content of a file of arrays. size : what it must have, in bytes. Raises CheckpointError
    for another size and for a large file of holes, and as `reading.open_file`.
    """
    with open_file(path, follow=follow) as file:
        found = os.fstat(file.fileno())
        if size is not None and found.st_size != size:
            raise CheckpointError(
                f"{path} has {found.st_size} bytes, expected {size} as in its manifest: it is damaged; {remedy}"
            )
        if found.st_size > HOLES and found.st_blocks * 512 < found.st_size // 4:
            raise CheckpointError(f"{path} has {found.st_size} bytes, most of them holes: it is damaged; {remedy}")
        return file.read(found.st_size)


def read_metadata(content: bytes) -> dict[str, str]:
    """The metadata in the header of safetensors. Raises ValueError for a header that is none, and
    for one that is longer than `HEADER`.
    """
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(HEADER, len(content) - 8):
        raise ValueError(f"its header has {length} bytes, expected at most {HEADER}")
    header: Any = parse_json(content[8 : 8 + length])
    found = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError("its header has no table of texts as metadata")
    return found


def check_arrays(arrays: dict[str, Array], ending: str, start: str = "") -> None:
    """Refuse numbers that are not finite, or so large that sums of their squares are not. Raises
    NotFiniteError: start, name of the array, what is wrong, ending.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "fc" or not array.size:
            continue
        largest = max(float(array.max()), -float(array.min()))
        if not np.isfinite(largest):
            raise NotFiniteError(f"{start}{name} is not finite{ending}")
        if largest > LARGEST.get(array.dtype.itemsize, 1e4):
            limit = LARGEST.get(array.dtype.itemsize, 1e4)
            raise NotFiniteError(f"{start}{name} holds {largest:.3g}, expected at most {limit:.0e}{ending}")
