"""The IDX reader gives back what was written and lets nothing damaged through, whatever the
damage.
"""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_data import CONTENTS, IMAGES, IMAGES_SHAPE, NAMES, idx, sha256

from fsp_dynamics.datasets import read_idx
from fsp_dynamics.errors import DatasetError


def refused(tmp_path: Path, content: bytes, shape=IMAGES_SHAPE, digest=None) -> str:
    """The message with which this file is refused: a DatasetError of one line that names it,
    without much memory.
    """
    path = tmp_path / "some-file"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError) as caught:
            read_idx(path, shape, digest)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


PROPERTY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
arrays = st.lists(st.integers(1, 6), min_size=1, max_size=3).flatmap(
    lambda shape: st.binary(min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
        lambda b: np.frombuffer(b, np.uint8).reshape(shape)
    )
)


@PROPERTY
@given(array=arrays, packed=st.booleans())
def test_what_was_written_is_read(tmp_path, array, packed) -> None:
    content = idx(array)
    (tmp_path / "a").write_bytes(gzip.compress(content) if packed else content)
    for shape in (array.shape, (None,) * array.ndim):
        np.testing.assert_array_equal(read_idx(tmp_path / "a", shape, sha256(content)), array)


@PROPERTY
@given(array=arrays, packed=st.booleans(), data=st.data())
def test_a_file_cut_anywhere_is_refused(tmp_path, array, packed, data) -> None:
    content = gzip.compress(idx(array)) if packed else idx(array)
    refused(tmp_path, content[: data.draw(st.integers(0, len(content) - 1))], (None,) * array.ndim)


@PROPERTY
@given(array=arrays, packed=st.booleans(), data=st.data())
def test_a_changed_header_is_refused(tmp_path, array, packed, data) -> None:
    """Even where no shape is expected: no other header promises the bytes that follow."""
    content = bytearray(idx(array))
    content[data.draw(st.integers(0, 3 + 4 * array.ndim))] ^= data.draw(st.integers(1, 255))
    refused(tmp_path, gzip.compress(content) if packed else bytes(content), (None,) * array.ndim)


@PROPERTY
@given(array=arrays, data=st.data())
def test_a_changed_byte_of_a_gzip_file_is_refused_or_changes_nothing(tmp_path, array, data) -> None:
    """What a gzip header says of time and system does not matter; everything else is under its
    checksum.
    """
    content = bytearray(gzip.compress(idx(array)))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "a").write_bytes(content)
    try:
        found = read_idx(tmp_path / "a", array.shape)
    except DatasetError:
        return
    np.testing.assert_array_equal(found, array)


@PROPERTY
@given(array=arrays, packed=st.booleans(), more=st.binary(min_size=1, max_size=40))
def test_trailing_bytes_are_refused(tmp_path, array, packed, more) -> None:
    shape = (None,) * array.ndim
    if packed:
        refused(tmp_path, gzip.compress(idx(array)) + more, shape)
        refused(tmp_path, gzip.compress(idx(array) + more), shape)
    else:
        assert "trailing" in refused(tmp_path, idx(array) + more, shape)


def test_trailing_bytes_beyond_all_reading_are_refused(tmp_path) -> None:
    assert "trailing" in refused(tmp_path, gzip.compress(IMAGES) + bytes(1 << 20))


@pytest.mark.parametrize("second", [b"", b"more", IMAGES])
def test_a_second_gzip_member_is_refused(tmp_path, second) -> None:
    """`gzip.decompress` would join the two in silence."""
    assert "second gzip member" in refused(tmp_path, gzip.compress(IMAGES) + gzip.compress(second))
    half = len(IMAGES) // 2
    refused(tmp_path, gzip.compress(IMAGES[:half]) + gzip.compress(IMAGES[half:]))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "dims", [(2**32 - 1, 2**32 - 1, 2**32 - 1), (2**30, 1, 1), (2**20, 2**5, 2**5), (60_000, 28, 28)]
)
def test_claimed_gigabytes_are_not_allocated(tmp_path, dims, packed) -> None:
    content = bytes([0, 0, 8, 3]) + struct.pack(">3I", *dims) + b"few"
    refused(tmp_path, gzip.compress(content) if packed else content, (None, None, None))


def test_a_gzip_bomb_is_not_unpacked(tmp_path) -> None:
    """30 MB of zeros behind a header that promises 72 bytes."""
    assert "trailing" in refused(tmp_path, gzip.compress(IMAGES + bytes(30_000_000)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "starts with nothing, expected 00 00 08 03"),
        (b"<html>not here</html>", "starts with 3c 68 74 6d"),
        # floats
        (bytes([0, 0, 13, 3]) + IMAGES[4:], "starts with 00 00 0d 03, expected 00 00 08 03"),
        (CONTENTS[NAMES[1]], "starts with 00 00 08 01"),  # labels
        (idx(np.zeros((12, 2, 3))), "12 x 2 x 3 bytes, expected 12 x 3 x 2"),
        (idx(np.zeros((0, 3, 2))), "expected 12 x 3 x 2"),
        (IMAGES[:-1], "ends after 87 of 88 bytes"),
        (gzip.compress(IMAGES, mtime=0)[:-4], "before its checksum"),
        (gzip.compress(IMAGES, mtime=0)[:-8] + bytes(8), "incorrect data check"),
    ],
)
def test_the_message_tells_what_came_and_what_was_expected(tmp_path, content, said) -> None:
    message = refused(tmp_path, content)
    assert said in message
    assert "fetch it again" in message


def test_no_images_are_no_data(tmp_path) -> None:
    assert "expected 1 to" in refused(tmp_path, idx(np.zeros((0, 3, 2))), (None, 3, 2))


def test_other_bytes_of_the_right_shape_are_refused_by_their_hash(tmp_path) -> None:
    other = IMAGES[:-1] + bytes([IMAGES[-1] ^ 1])
    for content in (other, gzip.compress(other)):
        message = refused(tmp_path, content, digest=sha256(IMAGES))
        assert sha256(IMAGES) in message
        assert sha256(other) in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(DatasetError, match="cannot be read"):
            read_idx(path, IMAGES_SHAPE)
