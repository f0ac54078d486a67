"""A file is the old one or the new one, and an error of the disk names it."""

from __future__ import annotations

import contextlib
import errno
import os
import resource

import pytest

from fsp_dynamics.plotting import new_figure, save_figure
from fsp_dynamics.writing import append, naming, remove_aside, write_aside


@contextlib.contextmanager
def files_of_at_most(size):
    """The system itself refuses to write more than `size` bytes into a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def draw(path):
    figure = new_figure(2, 2)
    figure.subplots().plot([1, 2])
    return save_figure(figure, path)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


WRITERS = {
    "whole": (lambda path: write_aside(path, bytes(10_000)), "file"),
    "line": (lambda path: append(path, bytes(10_000)), "file"),
    "png": (draw, "picture.png"),
    "pdf": (draw, "picture.pdf"),
}


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_aside(path, b"one")
    write_aside(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["file"]


def test_lines_are_added(tmp_path):
    append(tmp_path / "file", b"one\n")
    append(tmp_path / "file", b"two\n")
    assert (tmp_path / "file").read_bytes() == b"one\ntwo\n"


def test_what_was_added_is_on_the_disk(tmp_path, monkeypatch):
    """All of it, when `append` returns: a power cut loses no line that was reported."""
    sizes, fsync = [], os.fsync

    def synchronised(handle):
        fsync(handle)
        sizes.append(os.fstat(handle).st_size)

    monkeypatch.setattr(os, "fsync", synchronised)
    for _ in range(2):
        append(tmp_path / "file", b"one\n")
    assert sizes == [4, 8]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_that_refuses_is_an_error_that_names_the_file(tmp_path, writer):
    write, name = WRITERS[writer]
    path = tmp_path / name
    path.write_bytes(b"before")
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large") as caught:
        write(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert names(tmp_path) == [name]
    assert path.read_bytes().startswith(b"before")
    if writer != "line":
        assert path.read_bytes() == b"before"


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_that_is_gone_is_named_and_not_made_again(tmp_path, writer):
    write, name = WRITERS[writer]
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "gone" / name)
    assert caught.value.filename == str(tmp_path / "gone" / name)
    assert names(tmp_path) == []


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_picture_is_the_old_one_or_the_new_one(tmp_path, monkeypatch, ending, call):
    path = draw(tmp_path / f"picture.{ending}")
    before = path.read_bytes()

    def refuse(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        draw(path)
    monkeypatch.undo()
    assert caught.value.filename == str(path)
    assert names(tmp_path) == [path.name]
    assert path.read_bytes() == before


def test_an_error_of_the_package_passes_unchanged(tmp_path):
    from fsp_dynamics.errors import DatasetError

    with pytest.raises(DatasetError, match=r"^as it was$"), naming(tmp_path):
        raise DatasetError("as it was")


def test_what_was_left_half_written_is_removed_and_nothing_else(tmp_path):
    for name in (".file.12.tmp", ".lock", "file.tmp"):
        (tmp_path / name).touch()
    remove_aside(tmp_path)
    assert names(tmp_path) == [".lock", "file.tmp"]
