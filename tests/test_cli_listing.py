"""`fsp runs` and `fsp compare`: one line for each run at any width, and any number of runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import made_run
from pictures import assert_legible, drawn, texts

from fsp_dynamics import tables
from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.comparison import curves, labels, names, plot_runs
from fsp_dynamics.experiments.folder import RunFolder

ROOT = Path(__file__).parents[1]
MIRROR = {"learning.mirror": 0.05}
WIDTHS = (40, 80, 100, 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two seeds of digits, two with mirror phases, one with another beta and a fixed loop."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        made_run(root / f"plain-{seed}", seed=seed, test=4.0 + seed / 8)
        made_run(root / f"mirror-{seed}", seed=seed, test=3.0 + seed / 8, **MIRROR)
    other = {"learning.beta": 0.5, "learning.frozen": "loop", "learning.rates.forward": [12.5, 3.25]}
    made_run(root / "deep" / "fixed", test=12.625, **other)
    return root


def listed(capsys, *arguments):
    assert main(["runs", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [*WIDTHS, None])
def test_one_run_is_one_line_that_fits(monkeypatch, capsys, folder, width):
    monkeypatch.setattr(tables, "width", lambda: width)
    lines = listed(capsys, folder)
    assert width is None or max(map(len, lines)) <= width
    for name, error in (("plain-0", "4.00"), ("mirror-1", "3.12"), ("deep/fixed", "12.62")):
        (line,) = [line for line in lines if line.startswith(name)]
        assert error in line.split()
    left = [line for line in lines if line.startswith("no room for")]
    assert bool(left) is (width is not None and width < 200)


def test_the_list_shows_what_differs_and_says_once_what_does_not(monkeypatch, capsys, folder):
    monkeypatch.setattr(tables, "width", lambda: None)
    lines = listed(capsys, folder)
    assert lines[0].startswith("5 runs in ")
    assert lines[0].endswith("all: data digits, hidden 100,100, status finished")
    heads = lines[2].split()
    assert {"run", "learner", "beta", "rates.forward", "test_error", "angle_loop", "seconds"} <= set(heads)
    assert not {"data", "hidden", "status", "family", "rule", "frozen"} & set(heads)
    (fixed,) = [line for line in lines if line.startswith("deep/fixed")]
    assert re.search(r"eq\. 14, loop fixed +0\.5 +12\.5,3\.25 ", fixed)


def test_several_folders_are_one_list_without_a_run_twice(monkeypatch, capsys, folder):
    monkeypatch.setattr(tables, "width", lambda: None)
    given = [folder / "plain-0", folder / "mirror-1", folder / "deep", folder / "deep" / ".." / "plain-0"]
    lines = listed(capsys, *given)
    assert lines[0].startswith("3 runs in 4 folders; all: data digits")
    names = [line.split()[0] for line in lines if re.match(r"plain|mirror|deep", line)]
    assert names == ["plain-0", "mirror-1", "deep/fixed"]
    assert listed(capsys, *given[:2])[0].startswith(f"2 runs in {given[0]}, {given[1]}; all: ")
    assert main(["runs", str(folder), str(folder / "nowhere")]) == 2
    assert "nowhere is no folder" in capsys.readouterr().err


def test_runs_are_filtered_and_sorted(monkeypatch, capsys, folder):
    monkeypatch.setattr(tables, "width", lambda: 80)
    lines = listed(capsys, folder, "--where", "test_error<5", "--where", "seed=0", "--sort", "test_error")
    assert [line.split()[0] for line in lines if re.match(r"plain|mirror|deep", line)] == ["mirror-0", "plain-0"]
    lines = listed(capsys, folder, "--sort", "best_epoch", "--reverse")
    assert "best_epoch" in lines[3]  # what is sorted by is shown
    assert main(["runs", str(folder), "--sort", "test_error", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [record["test_error"] for record in found] == [3.0, 3.125, 4.0, 4.125, 12.625]
    assert found[-1]["differs"]["learning.beta"] == 0.5
    assert found[-1]["learner"] == "eq. 14, loop fixed"
    assert main(["runs", str(folder), "--where", "test_eror<5"]) == 2
    assert "did you mean 'test_error'" in capsys.readouterr().err
    assert listed(capsys, folder, "--where", "data=mnist")[0].endswith("nothing to show")


def test_a_bad_run_does_not_hide_the_others(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tables, "width", lambda: 80)
    made_run(tmp_path / "a")
    (made_run(tmp_path / "b") / "config.toml").write_text("seed = ")
    assert main(["runs", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "4.00" in next(line for line in shown.out.splitlines() if line.startswith("a "))
    assert "unreadable" in next(line for line in shown.out.splitlines() if line.startswith("b "))
    assert "not valid TOML" in shown.err


@pytest.mark.parametrize("width", [*WIDTHS, None])
def test_every_run_that_is_compared_is_shown(monkeypatch, capsys, folder, width):
    monkeypatch.setattr(tables, "width", lambda: width)
    runs = [str(folder / name) for name in ("plain-0", "plain-1", "mirror-0", "mirror-1", "deep/fixed")]
    assert main(["compare", *runs]) == 0
    shown = capsys.readouterr().out
    assert width is None or max(map(len, shown.splitlines())) <= width
    assert "no room" not in shown
    for name in ("plain-0", "plain-1", "mirror-0", "mirror-1", "deep/fixed"):
        assert len(re.findall(rf"(?<!\S){name}(?!\S)", shown)) == 2  # in both tables
    errors = [number for line in shown.splitlines() if line.startswith("test_error") for number in line.split()[1:]]
    assert errors == ["4.00", "4.12", "3.00", "3.12", "12.62"]
    angles = [line.split()[1:] for line in shown.splitlines() if line.startswith("angle_loop ")]  # as in other tables
    assert [number for line in angles for number in line] == ["60.0"] * 5


def test_the_picture_has_a_line_for_each_run_and_a_name_for_each_kind(folder, tmp_path, capsys):
    runs = [folder / name for name in ("plain-0", "plain-1", "mirror-0", "mirror-1", "deep/fixed")]
    figure = plot_runs(*runs, path=tmp_path / "new" / "runs.png")
    assert_legible(figure)
    assert [ax.get_ylabel() for ax in figure.axes] == [
        *("test error (%)", "validation error (%)", "training error (%)"),
        "angle of the loop (degrees)",
    ]
    test = figure.axes[0]
    assert len(test.lines) == 5
    metrics = RunFolder(runs[4]).metrics()
    assert list(test.lines[4].get_ydata()) == [record["test_error"] for record in metrics]
    assert {line.get_color() for line in test.lines[:2]} != {line.get_color() for line in test.lines[2:4]}
    assert len({line.get_color() for line in test.lines[:2]}) == 1
    words = {text for text, _ in texts(figure)}
    assert {"eq. 14, loop learned (2 seeds)", "eq. 14, mirror phases (2 seeds)", "eq. 14, loop fixed"} <= words
    assert (tmp_path / "new" / "runs.png").stat().st_size > 10_000
    arguments = ["compare", *map(str, runs), "--out", str(tmp_path / "runs.svg"), "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["picture"] == str(tmp_path / "runs.svg")
    assert (tmp_path / "runs.svg").read_text().startswith("<?xml")
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "runs.gif")]) == 2
    assert "'.gif'" in capsys.readouterr().err


def test_many_kinds_of_runs_have_a_legible_legend(tmp_path):
    runs = [made_run(tmp_path / f"beta-{k}", **{"learning.beta": 0.1 + k / 10}) for k in range(24)]
    figure = plot_runs(*runs)
    assert_legible(figure)
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 24
    assert drawn(figure.axes[0]) == {}  # named in the one legend


def test_runs_without_an_epoch_are_not_drawn(tmp_path):
    runs = [made_run(tmp_path / name, done=0, status="unfinished") for name in "ab"]
    with pytest.raises(ConfigurationError, match="none of 2 runs has finished an epoch"):
        plot_runs(*runs)


def test_names_in_a_legend(tmp_path):
    folders = [
        made_run(tmp_path / "x" / "a"),
        made_run(tmp_path / "x" / "b", seed=1),
        made_run(tmp_path / "y", **{"learning.beta": 0.5}),
        made_run(tmp_path / "z", seed=1, **{"learning.beta": 0.5}),
    ]
    assert labels(folders) == ["x/a", "x/b", "y", "z"]
    assert labels(folders[:1]) == ["a"]
    assert [curve["name"] for curve in curves(folders)] == ["beta 1"] * 2 + ["beta 0.5"] * 2
    assert [curve["name"] for curve in curves(folders[::2])] == ["x/a", "y"]
    assert names([], []) == []


@pytest.mark.cli
@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_on_a_terminal_of_80_columns(folder):
    """In a process of its own, on a terminal that says how wide it is."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "fsp_dynamics", "runs", str(folder)]
    environment |= {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    content = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        content += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", content.decode()).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(("plain", "mirror", "deep")) for line in lines) == 5
    assert any(line.startswith("no room for") for line in lines)
