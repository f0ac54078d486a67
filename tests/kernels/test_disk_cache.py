"""Compiled code kept on disk: found again, never trusted where others could have written it, and
never the reason why something fails.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import config

from fsp_dynamics import locks
from fsp_dynamics.kernels import cache_places, cache_turns, disk_cache
from fsp_dynamics.kernels.cache_places import Place
from fsp_dynamics.kernels.disk_cache import keep

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")
AS_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
X = np.arange(3.0)


def double(x):
    return 2 * x + 1


def run():
    """(hits, misses, notes) of calling `double` as a process would that has just started."""
    kernel = keep(numba.njit(error_model="numpy")(double))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(kernel(X), [1, 3, 5])
    stats = kernel.stats
    return sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), [str(each.message) for each in caught]


@pytest.fixture
def given(tmp_path, monkeypatch) -> Path:
    """NUMBA_CACHE_DIR is a new folder; no other place is found."""
    start(tmp_path, monkeypatch)
    return tmp_path / "given"


def start(tmp_path, monkeypatch):
    """What a process does not know when it starts is forgotten; every place is below tmp_path."""
    cache_places._places.cache_clear()
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "given"))
    monkeypatch.setattr(cache_places, "KERNELS", tmp_path / "package")
    monkeypatch.setattr(disk_cache, "WAITING", cache_turns.Waiting())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(cache_places.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))


@pytest.fixture
def again(tmp_path, monkeypatch):
    """`run` in what is a new process for the cache."""

    def run_again():
        cache_places._places.cache_clear()
        return run()

    return run_again


def kept(folder: Path) -> Path:
    (found,) = folder.rglob("*.nbc")
    return found


def test_what_was_compiled_is_found_again(given, again) -> None:
    assert run() == (0, 1, [])
    assert again() == (1, 0, [])
    assert [path.suffix for path in given.rglob("*") if path.is_file()] == [".nbc"], "no other file is left"
    assert stat.S_IMODE(kept(given).stat().st_mode) & 0o022 == 0


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_nobody_else_can_write_to_what_is_made_whatever_the_umask(umask, given, again) -> None:
    before = os.umask(umask)
    try:
        assert run() == (0, 1, [])
        assert again() == (1, 0, [])
    finally:
        os.umask(before)
    assert all(path.stat().st_mode & 0o022 == 0 for path in (given, *given.rglob("*")))


@pytest.mark.parametrize("change", ["OPT", "BOUNDSCHECK", "options", "source", "function"])
def test_code_of_other_origin_is_not_taken(change, given, again, monkeypatch) -> None:
    assert run() == (0, 1, [])
    if change in ("OPT", "BOUNDSCHECK"):
        other = config._OptLevel("1") if change == "OPT" else int(not config.BOUNDSCHECK)
        monkeypatch.setattr(config, change, other)
        assert again() == (0, 1, [])
    elif change == "options":
        cache_places._places.cache_clear()
        kernel = keep(numba.njit(error_model="python")(double))
        kernel(X)
        assert not kernel.stats.cache_hits
    elif change == "source":
        monkeypatch.setattr(disk_cache, "_source", lambda path: "another")
        assert again() == (0, 1, [])
    else:
        source = kept(given)
        kernel = keep(numba.njit(error_model="numpy")(lambda x: x))
        key = kernel._cache._key((numba.typeof(X),), kernel.targetctx.codegen())
        source.rename(source.parent / kernel._cache._file(key))
        np.testing.assert_array_equal(kernel(X), X)


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)


def replace_by_fifo(path):
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path):
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def make_huge(path):
    with path.open("r+b") as file:
        file.truncate(1 << 40)


def pickled_by_another(path):
    """What runs a command when it is loaded, but has no digest."""
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(path.parent).encode() + b"/run'\ntR.")


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut in the header": lambda path: cut(path, 0.001),
    "half": lambda path: cut(path, 0.5),
    "without its last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "with a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a fifo": replace_by_fifo,
    "a link": replace_by_link,
    "huge": make_huge,
    "of Numba's own kind": pickled_by_another,
    "writable by the group": lambda path: path.chmod(0o664),
    "writable by all": lambda path: path.chmod(0o666),
    **{f"a bit at {place:.2f}": (lambda path, place=place: flip(path, place)) for place in np.linspace(0, 0.999, 9)},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew_with_one_note(damage, given, again) -> None:
    run()
    DAMAGES[damage](kept(given))
    hits, misses, notes = again()
    assert (hits, misses, len(notes)) == (0, 1, 1)
    assert str(kept(given)) in notes[0]
    assert notes[0].endswith("it is compiled anew")
    assert not list(given.rglob("run"))
    assert again() == (1, 0, [])


def test_no_flipped_bit_and_no_cut_is_taken_for_code(given) -> None:
    """Every byte of the header and of the beginning, and 2,000 of the others."""
    run()
    content = kept(given).read_bytes()
    assert disk_cache.packed(disk_cache.unpacked(content)) == content
    for at in (*range(200), *np.linspace(200, len(content) - 1, 2000).astype(int)):
        flipped = content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :]
        for damaged in (flipped, content[:at]):
            with pytest.raises(disk_cache.DamagedError):
                disk_cache.unpacked(damaged)


def test_a_folder_of_that_name_costs_the_place(given, again) -> None:
    run()
    path = kept(given)
    path.unlink()
    path.mkdir()
    hits, misses, notes = again()
    assert (hits, misses, len(notes)) == (0, 1, 1)


UNTRUSTED = {
    "the folder, by all": lambda given: kept(given).parent.chmod(0o777),
    "the folder, by the group": lambda given: kept(given).parent.chmod(0o775),
    "the folder above": lambda given: given.chmod(0o777),
    "two above": lambda given: given.parent.chmod(0o777),
}


@pytest.mark.parametrize("which", UNTRUSTED)
def test_what_others_can_write_to_is_never_read(which, given, again, monkeypatch, tmp_path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    start(inner, monkeypatch)
    given = inner / "given"
    run()
    UNTRUSTED[which](given)
    if which == "two above":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
        monkeypatch.setattr(cache_places, "KERNELS", tmp_path / "package")
    seen = []
    monkeypatch.setattr(Place, "read", lambda self, name, read=Place.read: seen.append(self.folder) or read(self, name))
    hits, misses, notes = again()
    assert (hits, misses, len(notes)) == (0, 1, 1)
    assert "others can write to it (mode 7" in notes[0]
    assert "NUMBA_CACHE_DIR" in notes[0]
    assert not any(given in folder.parents for folder in seen)
    assert again()[:2] == (1, 0), "it was moved"


@AS_ROOT
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_belongs_to_another_user_is_never_read(what, given, again) -> None:
    run()
    path = kept(given)
    os.chown(path if what == "file" else path.parent, 12345, -1)
    hits, misses, notes = again()
    assert (hits, misses, len(notes)) == (0, 1, 1)
    assert "belongs to user 12345" in notes[0]
    assert again()[:2] == (1, 0)


def test_what_belongs_to_root_is_read_by_all(given) -> None:
    found = os.stat_result((stat.S_IFREG | 0o644, 1, 1, 1, 0, 0, 1, 0, 0, 0))
    assert cache_places.distrust(found) is None


def full(*folders):
    """A `Place.write` for which these folders are full."""

    def write(self, name, content, write=Place.write):
        if any(folder in self.folder.parents for folder in folders):
            self._fail(OSError(errno.ENOSPC, "No space left on device"))
            return False
        return write(self, name, content)

    return write


def test_from_a_full_disk_it_is_moved(given, again, monkeypatch) -> None:
    monkeypatch.setattr(Place, "write", full(given))
    hits, misses, notes = run()
    assert (hits, misses, len(notes)) == (0, 1, 1)
    assert f"{given}" in notes[0]
    assert "No space left on device" in notes[0]
    assert "package/__pycache__/kernels" in notes[0]
    hits, misses, notes = again()
    assert (hits, misses, len(notes)) == (1, 0, 1), "the next process finds it"


def test_a_full_disk_under_the_package_is_told_too(given, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(Place, "write", full(tmp_path / "package"))
    hits, misses, notes = run()
    assert (hits, misses, len(notes)) == (0, 1, 1)


def test_without_any_place_it_is_done_without(given, again, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Place, "write", full(tmp_path))
    hits, misses, notes = run()
    assert (hits, misses, len(notes)) == (0, 1, 1)
    assert "kept nowhere" in notes[0]
    assert all(str(tmp_path / name) in notes[0] for name in ("given", "package", "user", "temporary"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing is left half-written"


def test_a_disk_that_fills_while_a_kernel_is_written(given, again, monkeypatch) -> None:
    """The probe still fits, the kernel does not."""

    def write(self, name, content, write=Place.write):
        if given in self.folder.parents and name.endswith(".nbc"):
            self._fail(OSError(errno.EDQUOT, "Disk quota exceeded"))
            return False
        return write(self, name, content)

    monkeypatch.setattr(Place, "write", write)
    hits, misses, notes = run()
    assert (hits, misses, len(notes)) == (0, 1, 1)
    assert "Disk quota exceeded" in notes[0]


def test_a_package_that_cannot_be_written_to_is_usual(given, again, tmp_path, monkeypatch) -> None:
    """It is read, what it lacks goes to the user's cache, and nothing is said."""
    monkeypatch.setattr(config, "CACHE_DIR", "")
    assert run() == (0, 1, [])
    path = kept(tmp_path / "package")

    def write(self, name, content, write=Place.write):
        if tmp_path / "package" in self.folder.parents:
            self._fail(OSError(errno.EROFS, "Read-only file system"))
            return False
        return write(self, name, content)

    monkeypatch.setattr(Place, "write", write)
    assert again() == (1, 0, [])
    path.unlink()
    assert again() == (0, 1, [])
    assert kept(tmp_path / "user")
    assert again() == (1, 0, [])


@pytest.mark.parametrize("folder", ["~/cache", "~nobody-of-that-name/cache"])
def test_a_tilde_in_the_variable_is_the_home_folder_or_refused(folder, given, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "CACHE_DIR", folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    _, _, notes = run()
    if folder == "~/cache":
        assert notes == []
        assert kept(tmp_path / "home" / "cache")
    else:
        assert len(notes) == 1
        assert "no user" in notes[0]
    assert not list(tmp_path.glob("~*"))


def test_without_a_working_folder_a_relative_cache_is_done_without(given, tmp_path, monkeypatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setattr(config, "CACHE_DIR", "relative")
    before = os.getcwd()
    os.chdir(gone)
    try:
        gone.rmdir()
        hits, misses, notes = run()
    finally:
        os.chdir(before)
    assert (hits, misses, len(notes)) == (0, 1, 1)


def test_what_numba_is_not_known_to_do_costs_the_cache_alone(given, again, monkeypatch) -> None:
    monkeypatch.setattr(disk_cache, "serialize", None)
    hits, misses, notes = run()
    assert (hits, misses, len(notes)) == (0, 1, 1)
    assert "cannot be kept" in notes[0]


def test_old_temporary_files_go(given, again) -> None:
    run()
    folder = kept(given).parent
    for name, age in ((".1.part", 7200), (".2.part", 10), ("x.lock", 7200)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    kept(given).unlink()
    again()
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".nbc") == [".2.part"]


# Several processes


def test_the_second_process_waits_and_finds_what_the_first_compiled(given, again, monkeypatch) -> None:
    run()
    path = kept(given)
    content = path.read_bytes()
    path.unlink()
    first = cache_turns.Turn(path.with_name(f"{path.name}.lock"))
    assert first.take() is True

    def sleep(seconds):
        path.write_bytes(content)
        first.end()

    monkeypatch.setattr(cache_turns.time, "sleep", sleep)
    assert again() == (1, 0, [])
    assert [each.suffix for each in path.parent.iterdir()] == [".nbc"]


def test_nobody_waits_for_ever(given, again, monkeypatch) -> None:
    run()
    path = kept(given)
    path.unlink()
    first = cache_turns.Turn(path.with_name(f"{path.name}.lock"))
    assert first.take() is True
    disk_cache.WAITING.left = 0.2
    begin = time.monotonic()
    assert again() == (0, 1, [])
    assert time.monotonic() - begin < 10
    assert disk_cache.WAITING.left == 0
    first.end()


def test_nobody_waits_for_a_process_that_was_stopped(given, again, monkeypatch) -> None:
    """It keeps the lock, and gives no sign of life."""
    monkeypatch.setattr(cache_turns, "SILENCE", 0.3)
    monkeypatch.setattr(cache_turns, "BEAT", 3600)
    run()
    path = kept(given)
    path.unlink()
    first = cache_turns.Turn(path.with_name(f"{path.name}.lock"))
    assert first.take() is True
    assert again() == (0, 1, [])
    assert disk_cache.WAITING.left == 0
    first.end()


def test_a_process_that_lives_is_waited_for(given, again, monkeypatch) -> None:
    """Longer than it may be silent."""
    monkeypatch.setattr(cache_turns, "SILENCE", 0.6)
    monkeypatch.setattr(cache_turns, "BEAT", 0.05)
    run()
    path = kept(given)
    content = path.read_bytes()
    path.unlink()
    first = cache_turns.Turn(path.with_name(f"{path.name}.lock"))
    assert first.take() is True
    ready = threading.Timer(1.5, lambda: (path.write_bytes(content), first.end()))
    ready.start()
    assert again() == (1, 0, [])
    ready.join()
    assert disk_cache.WAITING.left > cache_turns.PATIENCE - 60


@pytest.mark.parametrize("refusal", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, None])
def test_without_locks_nobody_waits(refusal, given, again, monkeypatch) -> None:
    class Fcntl:
        LOCK_EX = LOCK_NB = LOCK_UN = 1

        @staticmethod
        def flock(file, how):
            raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(locks, "_fcntl", lambda: Fcntl if refusal else None)
    assert run() == (0, 1, [])
    assert [each.suffix for each in kept(given).parent.iterdir()] == [".nbc"]


def test_a_turn_ends_when_compiling_fails(given) -> None:
    def wrong(x):
        return x.no_such_thing

    kernel = keep(numba.njit(error_model="numpy")(wrong))
    with pytest.raises(numba.core.errors.TypingError):
        kernel(X)
    assert kernel._cache._turn is None
    assert not list(given.rglob("*.lock"))


def test_a_lock_whose_file_was_removed_is_no_turn(tmp_path) -> None:
    path = tmp_path / "x.lock"
    first, second, third = (cache_turns.Turn(path) for _ in range(3))
    assert first.take() is True
    assert second.take() is False
    first.end()
    assert second.take() is True
    path.unlink()
    path.touch()
    assert third.take() is True, "the file is another"
    second.end()
    third.end()
    assert first.take() is True
    first.end()


MANY = """
import sys
import numba, numpy as np
from fsp_dynamics.kernels.disk_cache import keep
def double(x):
    return 2 * x + 1
kernel = keep(numba.njit(error_model="numpy")(double))
print("ready", flush=True)
sys.stdin.readline()
kernel(np.arange(3.0))
print(sum(kernel.stats.cache_misses.values()))
"""


@pytest.mark.cli
def test_processes_that_start_together_compile_once(tmp_path) -> None:
    script = tmp_path / "many.py"
    script.write_text(MANY)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, str(script)], env=environment, **pipes) for _ in range(3)]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    done = [process.communicate(timeout=120) for process in started]
    assert [err for _, err in done] == [""] * 3
    assert sorted(int(out) for out, _ in done) == [0, 0, 1]
