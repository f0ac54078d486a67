"""Where there is no home folder, no stream, no lock, no working folder, or a setting that means
nothing: it works, or one line says what is needed.
"""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import fsp_dynamics as fsp
from fsp_dynamics import folders, locks, settings, streams
from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError, RunLockedError
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.sweeps.runner import sweep

ROOT = Path(__file__).parents[1]
TINY = [
    "digits",
    "--epochs",
    "1",
    "--data.limit",
    "60",
    "--network.hidden",
    "6",
    "--learning.rates.forward",
    "7.0",
    "--no-progress",
]
SMALL = {"data.limit": 60, "network.hidden": [6], "learning.rates.forward": [7.0]}
pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")


def python(code, *arguments, fsp_command=(), **more):
    """Run code, or a command, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}
    command = [sys.executable, "-m", "fsp_dynamics", *map(str, fsp_command)] if fsp_command else [sys.executable, "-c"]
    command += [] if fsp_command else [code, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.run(command, env=environment, text=True, timeout=240, check=False, **pipes)


def last_line(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fsp: ")]
    assert len(lines) == 1
    return lines[0]


def finished(folder):
    return json.loads((folder / "summary.json").read_text())["status"] == "finished"


# No home folder, and tildes


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """Neither HOME nor an entry for this user; a working folder of its own, in which no folder `~`
    may be made.
    """
    import pwd

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "XDG_CACHE_HOME", "FSP_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.rglob("~*"))


def test_home_is_a_whole_path_or_none(monkeypatch, tmp_path, homeless):
    assert folders.home() is None
    assert folders.user_cache() is None
    for nothing in ("", "relative", "~", "~/x"):
        monkeypatch.setenv("HOME", nothing)
        assert folders.home() is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.home() == tmp_path
    assert folders.expanded("~/a/b", "out") == tmp_path / "a" / "b"
    assert folders.expanded("~", "out") == tmp_path
    assert folders.user_cache() == tmp_path / ".cache" / "fsp_dynamics"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says to ignore
    assert folders.user_cache() == tmp_path / ".cache" / "fsp_dynamics"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    assert folders.user_cache() == tmp_path / "caches" / "fsp_dynamics"


@pytest.mark.parametrize("path", ["a", "a/~", "/~/a", "./a~", "."])
def test_other_paths_are_left_alone(path, homeless):
    assert folders.expanded(path, "out") == Path(path)


@pytest.mark.parametrize("path", ["~", "~/a", "~nobody-of-that-name/a"])
def test_a_tilde_without_a_home_is_refused(path, homeless):
    with pytest.raises(ConfigurationError, match="give the whole path"):
        folders.expanded(path, "out")


TAKE_A_PATH = {
    "train": lambda path: fsp.train("digits", out=path, epochs=1),
    "source": lambda path: fsp.train(path, epochs=1),
    "sweep": lambda path: sweep("digits", seeds=[0], out=path),
    "open_run": lambda path: fsp.open_run(path),
    "data": lambda path: fsp.train("digits", data=path, epochs=1),
    "load_dataset": lambda path: fsp.load_dataset("mnist", data_dir=path),
    "save_network": lambda path: fsp.save_network(path, fsp.loop_network([2, 3, 2], rng=0)),
    "load_network": lambda path: fsp.load_network(path),
}


@pytest.mark.parametrize("function", TAKE_A_PATH)
def test_no_function_makes_a_folder_of_that_name(function, homeless):
    with pytest.raises(ConfigurationError, match="there is no home folder"):
        TAKE_A_PATH[function]("~/a")


@pytest.mark.parametrize(
    "command",
    [
        ["train", *TINY, "--out=~/a"],
        ["train", "~/a.toml"],
        ["runs", "~/a"],
        ["evaluate", "~/a"],
        ["compare", "~/a", "~/b"],
        ["quickstart", "--out=~/a"],
        ["sweep", "digits", "--seeds", "2", "--out=~/a"],
        ["train", "mnist-2x500", "--data-dir=~/a", "--out=a"],
        ["stability", "~/a"],
    ],
)
def test_no_command_makes_a_folder_of_that_name(command, homeless, capsys):
    assert main(command) == 2
    assert "there is no home folder" in last_line(capsys)


def test_a_tilde_in_a_variable(homeless, monkeypatch, capsys):
    monkeypatch.setenv("FSP_DATA", "~/data")
    assert main(["data", "list"]) == 2
    assert "FSP_DATA = '~/data'" in last_line(capsys)
    monkeypatch.setenv("HOME", str(homeless / "home"))
    assert main(["data", "list"]) == 0
    assert str(homeless / "home" / "data" / "mnist") in capsys.readouterr().err


def test_without_a_home_data_are_looked_for_and_their_place_is_asked_for(homeless, capsys):
    assert main(["train", "mnist-2x500", "--out", "a"]) == 3
    line = last_line(capsys)
    assert "FSP_DATA is not set, there is no home folder" in line
    assert "name a folder (--data-dir)" in line
    assert main(["data", "list"]) == 0
    assert main(["data", "fetch", "mnist"]) == 3


def test_without_a_home_a_run_is_as_always(homeless):
    assert main(["train", *TINY, "--out", "run"]) == 0
    assert finished(homeless / "run")
    assert sorted(path.name for path in homeless.iterdir()) == ["run"]


@pytest.mark.rare
@pytest.mark.cli
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_a_user_that_the_system_does_not_know():
    """As in a container that was started with a bare number. What root has compiled is read."""
    bare = ["--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps", "+dac_read_search"]
    bare = ["setpriv", *bare, "--ambient-caps", "+dac_read_search", "env", "-u", "HOME", "-u", "FSP_DATA"]
    command = [*bare, "-u", "NUMBA_CACHE_DIR", sys.executable, "-m", "fsp_dynamics", "train", *TINY, "--out", "run"]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
        assert finished(Path(folder) / "run")
        assert not (Path(folder) / "~").exists()


# Streams


def output(kind, **more):
    """A text stream to a file or device, as Python makes stdout."""
    return io.TextIOWrapper(open(kind, "wb") if isinstance(kind, str) else kind, **{"encoding": "utf-8", **more})


def test_letters_that_cannot_be_encoded_are_escaped(tmp_path, monkeypatch):
    shown, told = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", output(shown, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", output(told, encoding="ascii"))
    monkeypatch.chdir(tmp_path)
    assert main(["train", *TINY, "--out", "Versuch-ü"]) == 0
    assert main(["runs", "."]) == 0
    assert main(["runs", "Übung"]) == 2
    sys.stderr.flush()
    assert b"Versuch-\\xfc: finished" in shown.getvalue()
    assert shown.getvalue().count(b"Versuch-\\xfc") == 2
    assert b"\\xdcbung" in told.getvalue()
    assert sys.stdout.errors == "strict", "as it was"


def test_a_full_stdout_is_told_and_the_run_is_whole(tmp_path, monkeypatch, capsys):
    for number, arguments in enumerate((["train", *TINY, "--out", str(tmp_path / "a")], ["runs", str(tmp_path)])):
        monkeypatch.setattr(sys, "stdout", output("/dev/full"))
        monkeypatch.setattr(streams, "give_up_stdout", lambda: None)
        assert main(arguments) == 7, number
        assert "No space left on device" in last_line(capsys)
        monkeypatch.setattr(sys.stdout.buffer.raw, "write", lambda data: len(data), raising=False)
        monkeypatch.undo()
    assert finished(tmp_path / "a")


class Gone(io.RawIOBase):
    """A pipe whose reader has gone; `left` bytes before."""

    def __init__(self, number=errno.EPIPE):
        self.number = number

    def writable(self):
        return True

    def write(self, data):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF])
def test_stderr_that_cannot_be_written_to_costs_no_run(number, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", output(io.BufferedWriter(Gone(number), 1), write_through=True))
        assert main(["train", *TINY[:-1], "--out", str(tmp_path / "a")]) == 0
        assert main(["runs", str(tmp_path / "nowhere")]) == 2
        patched.setattr(sys.stderr.buffer.raw, "write", len)
    assert finished(tmp_path / "a")


def test_the_same_from_python(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", output(io.BufferedWriter(Gone(), 1), write_through=True))
        fsp.train("digits", out=tmp_path / "a", epochs=1, progress=True, **SMALL)
        patched.setattr(sys.stderr.buffer.raw, "write", len)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", None)  # as under pythonw
        fsp.train("digits", out=tmp_path / "b", epochs=1, progress=True, **SMALL)
    assert finished(tmp_path / "a")
    assert finished(tmp_path / "b")


def test_a_reader_that_has_gone_ends_a_listing_quietly(trained, monkeypatch, capsys):
    monkeypatch.setattr(streams, "give_up_stdout", lambda: None)
    for arguments in (["runs", str(trained)], ["runs", str(trained), "--json"], ["--help"]):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", output(io.BufferedWriter(Gone(), 1), write_through=True))
            assert main(arguments) == 0
            patched.setattr(sys.stdout.buffer.raw, "write", len)
        assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert main(["train", *TINY, "--out", str(folder / "run")]) == 0
    return folder


@pytest.mark.cli
def test_streams_that_are_closed(tmp_path):
    """Nothing is lost, and no file of the run gets the number of a stream."""
    code = """
import os, sys
from fsp_dynamics.__main__ import main
sys.argv = ["fsp", "train", *sys.argv[1:]]
code = main()
names = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)] if os.path.exists("/proc/self/fd") else []
open("names", "w").write(f"{code} {' '.join(names)}")
"""
    shell = 'exec "$@" <&- >&- 2>&-'
    command = ["sh", "-c", shell, "sh", sys.executable, "-c", code, *TINY, "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=240, check=False).returncode == 0
    assert (tmp_path / "names").read_text().split() == ["0", *["/dev/null"] * 3]
    assert finished(tmp_path / "run")


@pytest.mark.cli
@pytest.mark.parametrize(("shell", "code"), [('"$@" | head -1', 0), ('"$@" > /dev/full', 7), ('"$@" 2> /dev/full', 0)])
def test_the_end_of_a_pipe_and_full_devices(shell, code, trained):
    """In a process that ends: Python writes what is left once more."""
    command = [sys.executable, "-m", "fsp_dynamics", "runs", str(trained), "--json"]
    script = f"set -o pipefail; {shell}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == (1 if code else 0), done.stderr


# Locks


class Fcntl:
    """An operating system or a file system that has `fcntl`, but no locks."""

    LOCK_EX, LOCK_NB, LOCK_UN = 2, 4, 8

    def __init__(self, number):
        self.number = number

    def flock(self, file, how):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, None])
def test_without_locks_a_run_goes_on_with_a_note(number, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "_fcntl", lambda: None if number is None else Fcntl(number))
    assert main(["train", *TINY, "--out", str(tmp_path / "run")]) == 0
    assert finished(tmp_path / "run")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len([line for line in told if "there are no locks here" in line]) == 1


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_is_held_is_respected(number, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_fcntl", lambda: Fcntl(number))
    with pytest.raises(RunLockedError), RunFolder(tmp_path).locked():
        pass


def test_a_lock_is_taken_once_and_given_back(tmp_path):
    with open(tmp_path / "lock", "w") as one, open(tmp_path / "lock", "w") as other:
        assert locks.take(one.fileno()) is True
        assert locks.take(other.fileno()) is False
        locks.release(one.fileno())
        assert locks.take(other.fileno()) is True


# The working folder


def test_a_working_folder_that_was_deleted(tmp_path, monkeypatch, capsys, trained):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["runs", str(trained)]) == 0
    assert main(["train", *TINY]) == 7
    assert last_line(capsys) == "fsp: the working folder has been deleted; change to another one (cd)"


# Settings of the libraries

COMPILED = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
RELAX = """
import numpy as np, fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError
try:
    found = fsp.relax(fsp.loop_network([6, 5, 4, 3], rng=0), np.ones((3, 6)))
    print([array.tobytes().hex() for array in found.state])
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.cli
@COMPILED
def test_settings_of_numba_that_it_does_without():
    """The same answer, to the bit."""
    wanted = python(RELAX)
    found = python(
        RELAX,
        env={
            "NUMBA_THREADING_LAYER": "nonsense",
            "NUMBA_THREADING_LAYER_PRIORITY": "x",
            "NUMBA_NUM_THREADS": "999999999999",
            "NUMBA_CACHE_LOCATOR_CLASSES": "nonsense",
            "OMP_NUM_THREADS": "abc",
            "OPENBLAS_NUM_THREADS": "abc",
            "KMP_AFFINITY": "nonsense",
            "OMP_PLACES": "nonsense",
        },
    )
    assert (found.returncode, found.stdout) == (0, wanted.stdout), found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.cli
@COMPILED
@pytest.mark.parametrize(
    ("name", "value"), [("NUMBA_NUM_THREADS", "0"), ("NUMBA_NUM_THREADS", "-3"), ("NUMBA_CPU_FEATURES", "nonsense")]
)
def test_settings_with_which_numba_does_not_start(name, value):
    found = python(RELAX, env={name: value})
    assert found.returncode == 0, found.stderr
    assert f"{name} = {value!r}" in found.stdout
    assert "mend or unset" in found.stdout


@pytest.mark.cli
@COMPILED
def test_the_command_line_says_so_too(tmp_path):
    command = ["train", *TINY, "--out", tmp_path / "run"]
    done = python("", fsp_command=command, env={"NUMBA_NUM_THREADS": "0"})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    done = python("", fsp_command=command, env={"NUMBA_OPT": "abc", "MPLBACKEND": "nonsense"})
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert any("'NUMBA_OPT'" in note for note in notes)
    assert any("no pictures are drawn: matplotlib" in note and "MPLBACKEND = 'nonsense'" in note for note in notes)
    assert len(done.stderr.splitlines()) == len(notes) + 1, "and the epoch"
    assert finished(tmp_path / "run")


def test_the_features_of_a_processor_have_a_form():
    assert settings.checked_features(None) == settings.checked_features("") == []
    assert settings.checked_features("+avx2, -fma") == ["+avx2", "-fma"]
    with pytest.raises(ConfigurationError, match="NUMBA_CPU_FEATURES = 'avx2', expected features with"):
        settings.checked_features("avx2")


def test_other_errors_are_not_blamed_on_settings(monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    with pytest.raises(ValueError) as caught:
        np.ones(3).reshape(2)
    assert settings.explained(caught.value) is None


@COMPILED
def test_the_number_of_threads_without_a_thread_layer(monkeypatch):
    import numba

    from fsp_dynamics.kernels import thread_number

    def none():
        raise ValueError("no threading layer")

    monkeypatch.setattr(numba, "get_num_threads", none)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
    assert thread_number.number_of_threads() == 3
    with thread_number.threads(2):
        assert thread_number.number_of_threads() == 2
    assert thread_number.number_of_threads() == 3
    with pytest.raises(ValueError, match="expected 1 to 3"):
        thread_number.set_number_of_threads(4)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 10**12)
    thread_number._own.number = None
    assert thread_number.number_of_threads() == thread_number.MOST
