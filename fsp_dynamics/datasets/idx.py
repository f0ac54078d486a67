"""IDX, the file format MNIST is published in: a strict reader of unsigned bytes.

A header of big-endian numbers (00 00, type 08, number of dimensions, the dimensions as 32-bit
numbers), then the bytes. Files may be gzipped or not; hashes are of the unpacked bytes, since gzip
files of different packagers differ.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from fsp_dynamics.errors import DatasetError

GZIP = b"\x1f\x8b"
SLACK = 1 << 16  # what a gzip file may be longer than its content (headers, stored blocks)
LARGEST = 1 << 30  # bytes; no file whose header claims more is read


def read_idx(path: str | Path, shape: Sequence[int | None], sha256: str | None = None) -> npt.NDArray[np.uint8]:
    """The unsigned bytes of an IDX file, gzipped or not (known by its first bytes), as a read-only
    array.

    shape : the expected dimensions (None: any length). sha256 : of the unpacked
        bytes, checked if given.

    Strict: another magic number, type or shape, missing or trailing bytes, a damaged gzip stream
    or a second gzip member is refused, and no more is read or unpacked than the header may
    claim. Raises DatasetError, and only that.

    Returns
    -------
    array : of the shape in the header, uint8 for the published sets.

    >>> import struct
    >>> _ = Path("labels").write_bytes(struct.pack(">HBBI", 0, 8, 1, 3) + bytes([7, 2, 1]))
    >>> read_idx("labels", (3,)).tolist()
    [7, 2, 1]
    """
    try:
        with open(path, "rb") as file:
            return parse_idx(file, str(path), shape, sha256)
    except DatasetError as error:
        raise DatasetError(f"{error}; delete it and fetch it again (fsp data fetch NAME)") from error.__cause__
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); see that it exists and may be read") from error


def parse_idx(file: BinaryIO, label: str, shape: Sequence[int | None], sha256: str | None) -> npt.NDArray[np.uint8]:
    """`read_idx` of an open file on disk, called `label` in messages, which leave the remedy to
    the caller.
    """
    held = os.fstat(file.fileno()).st_size
    start = file.read(SLACK)
    packed = start.startswith(GZIP)
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    length = 4 + 4 * len(shape)
    try:
        header = stream.decompress(start, length) if packed else start[:length]
        dims = _header(header, label, shape)
        size = math.prod(dims)
        most = size + size // 1000 + SLACK if packed else length + size
        if held > most:
            raise DatasetError(
                f"{label}: {held} bytes long, expected at most {most} for {dims} unsigned bytes: trailing bytes"
            )
        rest = (stream.unconsumed_tail if packed else start[length:]) + file.read(max(0, held - len(start)))
        body = stream.decompress(rest, size) if packed else rest
        after = (stream.decompress(stream.unconsumed_tail, 1) or stream.unused_data) if packed else b""
    except zlib.error as error:
        raise DatasetError(f"{label}: damaged gzip stream ({error})") from error
    if len(body) < size:
        raise DatasetError(f"{label}: ends after {length + len(body)} of {length + size} bytes: truncated")
    if after:
        what = "a second gzip member" if stream.unused_data.startswith(GZIP) else "trailing bytes"
        raise DatasetError(f"{label}: {what} after the {length + size} bytes its header claims")
    if packed and not stream.eof:
        raise DatasetError(f"{label}: the gzip stream ends before its checksum: truncated")
    if sha256 is not None:
        _check_sha256(label, header, body, sha256)
    return np.frombuffer(body, np.uint8).reshape(dims)


def digest_of(array: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of the unpacked IDX file that holds these bytes, whether it was gzipped or not."""
    digest = hashlib.sha256(bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape))
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _header(header: bytes, label: str, shape: Sequence[int | None]) -> tuple[int, ...]:
    """The dimensions an IDX header gives, if they are the expected ones and none is 0."""
    magic = bytes((0, 0, 8, len(shape)))  # 8: unsigned bytes
    if header[:4] != magic:
        raise DatasetError(
            f"{label}: starts with {header[:4].hex(' ') or 'nothing'}, "
            f"expected {magic.hex(' ')} (IDX, {len(shape)} dimensions)"
        )
    if len(header) < 4 + 4 * len(shape):
        raise DatasetError(f"{label}: ends within its header of {4 + 4 * len(shape)} bytes: truncated")
    dims = struct.unpack(f">{len(shape)}I", header[4:])
    if any(want is not None and want != n for want, n in zip(shape, dims, strict=True)):
        wanted = " x ".join("any" if n is None else str(n) for n in shape)
        raise DatasetError(f"{label}: holds {' x '.join(map(str, dims))} bytes, expected {wanted}")
    if not 0 < math.prod(dims) <= LARGEST:
        raise DatasetError(f"{label}: claims {' x '.join(map(str, dims))} bytes, expected 1 to {LARGEST} in all")
    return dims


def _check_sha256(label: str, header: bytes, body: bytes, sha256: str) -> None:
    """Refuse bytes that are not the published ones. Raises DatasetError."""
    digest = hashlib.sha256(header)
    digest.update(body)
    if digest.hexdigest() != sha256:
        raise DatasetError(
            f"{label}: SHA-256 of the unpacked bytes is {digest.hexdigest()}, "
            f"expected {sha256}: another file or a damaged one"
        )
