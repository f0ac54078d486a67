"""Nothing hostile in a run folder is taken for a run: every case of benchmarks/hostile*.py ends
with its exit code, in one line, soon, and leaves the folder and what lies elsewhere alone.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from benchmarks import hostile
from benchmarks.hostile_cases import RESUME, Bench, Case
from fsp_dynamics.cli import main
from fsp_dynamics.errors import CheckpointError, ConfigurationError, NotAFileError, NotFiniteError
from fsp_dynamics.experiments.config_io import load_config, read_value
from fsp_dynamics.experiments.network_file import load_network, save_network
from fsp_dynamics.experiments.payload import LARGEST, write_payload
from fsp_dynamics.experiments.runner import open_run
from fsp_dynamics.experiments.sweeps.plan import read_sweep
from fsp_dynamics.models.builders import loop_network
from fsp_dynamics.reading import open_file, parse_json, read_file

# one or two of each kind; all of them in make test-all
EVERY_DAY = (
    "manifest epoch True",
    "manifest epoch 1180591620717411303424",
    "manifest payload '../secret.safetensors'",
    "manifest payload '/etc/passwd'",
    "manifest rng None",
    "manifest rng.bit_generator 'MT19937'",
    "manifest run missing",
    "manifest run.config.learning.beta 0.125",
    "manifest of 100,000 levels",
    "manifest of 300 MB",
    "manifest of the best as the last",
    "manifest of the format of before",
    "loop: parameters/loop missing",
    "loop: parameters/input with nan",
    "loop: parameters/forward[0] with 3e+38",
    "loop: velocity/input of another dtype",
    "loop: velocity/loop with inf",
    "loop: warm_start/outputs of half the samples",
    "tied: warm_start/seen out of range",
    "array warm_start/extra that no state has",
    "averaged: raw/loop missing",
    "averaged: raw/input with nan",
    "averaged: raw/forward[0] of another shape",
    "left: epoch/order with 3",
    "left: epoch/position with 99",
    "left: epoch/betas of half the samples",
    "no velocity",
    "payload whose header claims 1e15 bytes of one array",
    "payload whose header has 2^63 bytes",
    "payload of 1024 GB of holes",
    "payload of another seed under the own manifest",
    "checkpoints/last.json is a pipe",
    "checkpoints/last.json is a broken link",
    "payload is a device",
    "payload is a link",
    "environment.json is a pipe",
    ".lock is a link",
    ".lock is a second name of a file",
    "config.toml: 5,000 digits",
    "config.toml: 100,000 levels of a key",
    "config.toml: a billion units in whole numbers",
    "config.toml: a loop of -0.0",
    "metrics: valid_error -5",
    "metrics: valid_error nan",
    "metrics: valid_error 50.0",
    "environment: data removed",
    "temporary files of a killed process",
    "checkpoints of the twin",
    "checkpoints and metrics.jsonl and probes.jsonl of the twin",
    "checkpoints of an earlier time",
    "summary.json of the twin",
    "checkpoints and environment.json of the twin",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return hostile.make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def cases(runs):
    return {case.name: case for case in hostile.all_cases(runs)}


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    return hostile.wholes(runs, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def ends(runs, cases, whole, tmp_path):
    """ends(name) -> what is wrong with how that case ends, by command."""

    def tried(name, commands=None):
        case = cases[name] if isinstance(name, str) else name
        found = {}
        for command in commands or case.commands:
            found[command] = hostile.try_case(case, command, runs, tmp_path / "copy", whole)
        return {command: problem for command, problem in found.items() if problem}

    return tried


@pytest.mark.parametrize("name", EVERY_DAY)
def test_a_hostile_folder_ends_as_it_must(ends, cases, name):
    assert ends(name, cases[name].commands[:1]) == {}


@pytest.mark.parametrize(
    "name", ["loop: parameters/input with inf", "config.toml: beta edited", "checkpoints of the seed"]
)
def test_so_it_does_in_every_command_that_loads_a_network(ends, cases, name):
    assert len(cases[name].commands) == 5
    assert ends(name) == {}


@pytest.mark.rare
def test_every_hostile_folder_ends_as_it_must(ends, cases):
    wrong = {name: problems for name in cases if (problems := ends(name))}
    assert wrong == {}


def test_there_are_enough_cases_and_no_two_have_one_name(runs, cases):
    assert len(cases) == len(hostile.all_cases(runs)) >= 500


def test_a_case_that_ends_otherwise_is_seen(ends, runs):
    """What judges the cases can fail: code, words, silence, changes of the folder."""
    assert "code 0, expected (5,)" in ends(Case("x", lambda bench: None, commands=(RESUME,)))[RESUME]

    def lost(bench):
        (bench.checkpoints / "last.json").unlink()

    assert "does not name" in ends(Case("x", lost, commands=(RESUME,), words=("nonsense",)))[RESUME]
    assert "taken in silence" in ends(Case("x", lambda bench: None, (0,), (RESUME,), noted=True))[RESUME]

    def shorter(bench):
        path = bench.folder / "metrics.jsonl"
        path.write_text(path.read_text().splitlines()[0] + "\n")
        for name in ("last", "best"):
            shutil.copy(bench.checkpoints / "kept-00001.json", bench.checkpoints / f"{name}.json")

    assert ends(Case("x", shorter, (5,), (RESUME,))) == {}, "a kept network is no checkpoint to go on from"


def test_flipped_bits_are_never_taken_in_silence(monkeypatch, capsys, runs):
    """A few of the 10,000 of `python -m benchmarks.hostile flips`."""
    monkeypatch.setattr(
        hostile, "make_runs", lambda folder: {"loop": Path(shutil.copytree(runs["loop"], folder / "run"))}
    )
    assert hostile.try_flips(240, 1) == 0
    assert "240 flips, 0 taken in silence" in capsys.readouterr().out
    monkeypatch.setattr(hostile, "taken_in_silence", lambda folder: True)
    assert hostile.try_flips(6, 1) == 6


# In processes of their own


def fsp(*arguments, timeout=60):
    return subprocess.run(
        [sys.executable, "-m", "fsp_dynamics", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.cli
@pytest.mark.parametrize("file", ["checkpoints/best.json", "payload"])
def test_a_pipe_holds_no_process_up(runs, tmp_path, file):
    bench = Bench(Path(shutil.copytree(runs["loop"], tmp_path / "run")))
    bench.replace(file, "pipe")
    begin = time.monotonic()
    done = fsp("evaluate", tmp_path / "run")
    assert time.monotonic() - begin < 30, "most of it is the interpreter's start"
    assert done.returncode == 7
    assert done.stderr.startswith("fsp: ")
    assert "is a pipe, expected a file" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.cli
def test_a_terabyte_of_holes_fills_no_memory(runs, tmp_path):
    bench = Bench(Path(shutil.copytree(runs["loop"], tmp_path / "run")))
    for name in ("last", "best"):
        bench.sparse(bench.payload(name), 1 << 40)
        bench.set("bytes", to=1 << 40, name=name)
    done = fsp("evaluate", tmp_path / "run")
    assert done.returncode == 5
    assert "most of them holes" in done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 6e6  # kB, the largest child so far


# What all of it stands on


def test_only_a_file_is_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "file", 5) == b"12345"
    assert read_file(tmp_path / "link", 5, follow=True) == b"12345"
    with pytest.raises(CheckpointError, match="has 5 bytes, expected at most 4"):
        read_file(tmp_path / "file", 4)
    for name, what in {"link": "a link", "folder": "a folder", "pipe": "a pipe"}.items():
        with pytest.raises(NotAFileError, match=f"{name} is {what}, expected a file"):
            read_file(tmp_path / name, 10)
    with pytest.raises(NotAFileError, match="is a pipe"), open_file(tmp_path / "pipe", flags=os.O_RDWR):
        pass
    with pytest.raises(NotAFileError, match="is a device"):
        read_file(Path("/dev/zero"), 10)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing", 10)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 60 + "1" + "}" * 60, "NaN", "[Infinity]", '{"a": 1, "a": 2}', "9" * 5000, "", "{"],
    ids=range(8),
)
def test_what_is_no_json_is_none(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
    with pytest.raises(ValueError, match=r"."):
        parse_json(text.encode())


def test_json_of_a_few_levels_is_read():
    assert parse_json(b'{"a": [[[1, 2.5, null, true]]]}') == {"a": [[[1, 2.5, None, True]]]}
    assert parse_json("[NaN]", finite=False)[0] != 0


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{a = " * 500 + "1" + "}" * 500], ids=range(3))
def test_an_override_of_thousands_of_levels_or_digits_is_a_text(text):
    """Which no key takes."""
    assert read_value(text) == text
    with pytest.raises(ConfigurationError, match=r"network\.hidden") as caught:
        load_config("digits", {"network.hidden": read_value(text)})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [10**5000, "x" * 10**6, [[[1] * 1000]] * 1000], ids=["digits", "letters", "lists"])
def test_a_message_about_a_long_value_is_short(value):
    with pytest.raises(ConfigurationError) as caught:
        load_config("digits", {"learning.batch": value})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("key", "value"), [("network.loop_scale", -0.0), ("learning.rates.forward", [-0.0])])
def test_a_zero_with_a_sign_is_refused_by_name(key, value):
    with pytest.raises(ConfigurationError, match=rf"override: {key} = -0\.0, expected a number without that sign"):
        load_config("digits", {key: value})


def test_layers_that_no_memory_holds_are_refused(tmp_path, capsys):
    with pytest.raises(ConfigurationError, match=r"1000000 units into 1000000 are 1000000000000 weights"):
        load_config("digits", {"network.hidden": [10**6, 10**6], "learning.rates.forward": [1.0, 1.0]})
    begin = time.monotonic()
    for value in ("1e9", "1000000000", str(10**100)):
        assert main(["train", "digits", "--network.hidden", value, "--out", str(tmp_path / "run")]) == 2
    assert time.monotonic() - begin < 3
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err.count("network.hidden") == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_network_file_of_such_weights_is_refused(tmp_path, value):
    network = loop_network([4, 3, 2], rng=0)
    path = save_network(tmp_path / "n.safetensors", network)
    network.forward[0][0, 0] = value
    with pytest.raises(NotFiniteError, match=r"forward\[0\] .*the network is not saved"):
        save_network(path, network)
    from fsp_dynamics.experiments import network_file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_file, "check_arrays", lambda *given, **more: None)
        save_network(path, network)
    with pytest.raises(NotFiniteError, match=r"n\.safetensors: forward\[0\]"):
        load_network(path)


def test_large_weights_that_are_no_danger_are_loaded(tmp_path):
    network = loop_network([4, 3, 2], rng=0)
    network.forward[0][0, 0] = LARGEST[4]
    assert load_network(save_network(tmp_path / "n.safetensors", network)).forward[0][0, 0] == np.float32(LARGEST[4])


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_network_file_that_is_none(tmp_path, kind):
    os.mkfifo(tmp_path / "n") if kind == "pipe" else (tmp_path / "n").mkdir()
    with pytest.raises(NotAFileError, match=f"is a {kind}, expected a file"):
        load_network(tmp_path / "n")


def test_a_network_file_may_be_a_link(tmp_path):
    save_network(tmp_path / "n", loop_network([4, 3, 2], rng=0))
    (tmp_path / "link").symlink_to("n")
    assert load_network(tmp_path / "link").sizes == (4, 3, 2)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"[]", b'{"fields": 3}', b"\xff", b'{"configuration": []}'], ids=range(5)
)
def test_a_damaged_sweep_is_named(tmp_path, content):
    (tmp_path / "sweep.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"sweep\.json is damaged"):
        read_sweep(tmp_path)
    (tmp_path / "sweep.json").unlink()
    os.mkfifo(tmp_path / "sweep.json")
    with pytest.raises(NotAFileError, match=r"sweep\.json is a pipe"):
        read_sweep(tmp_path)


def test_equal_arrays_give_equal_bytes():
    """Or a resumed run would have other files than an unbroken one."""
    arrays = {name: np.arange(5.0) for name in ("b", "a", "c")}
    assert len({write_payload(dict(sorted(arrays.items(), reverse=turn)), "x") for turn in (False, True)}) == 1


def test_an_untouched_run_is_read_without_a_word(runs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = open_run(runs["loop"])
        assert [run.network(which).sizes for which in ("last", "best", 0, 1, 2)] == [(64, 6, 10)] * 5
