"""Runs are watched while they are written: whatever is there is shown, nothing is changed or held,
and what cannot be read is said and tried again.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from made_runs import made_run
from rich.console import Console

from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.watching import QUANTITIES, Watch
from fsp_dynamics.watch import terminal
from fsp_dynamics.watch.charts import chart

MORE = {"residual": 2e-5, "images_per_second": 900.0}


def made(folder, **options):
    return made_run(folder, last=MORE, **options)


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def lines_of(runs, width, height):
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, legacy_windows=False)
    console.print(terminal.screen(runs, width, height))
    return console.file.getvalue().splitlines()


# What is read


def test_the_lines_of_a_run_are_its_records(tmp_path):
    (run,) = Watch([made(tmp_path / "a", done=7)]).look()
    records = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    errors, angles, residual, speed = (run.lines(quantity) for quantity in QUANTITIES)
    assert errors["test"] == [(record["epoch"], record["test_error"]) for record in records]
    assert list(errors) == ["test", "valid", "train"]
    assert angles["loop"] == [(epoch, 60.0) for epoch in range(1, 8)]
    assert (residual["residual"][0], speed["speed"][-1]) == ((1, 2e-5), (7, 900.0))
    assert (run.status, run.asked, len(run.metrics)) == ("finished", 20, 7)


def test_what_is_missing_or_cannot_be_drawn_is_left_out(tmp_path):
    (run,) = Watch([made_run(tmp_path / "a", done=2, last={"residual": 0.0, "images_per_second": None})]).look()
    assert run.lines(QUANTITIES[2]) == {}  # no logarithm
    assert run.lines(QUANTITIES[3]) == {}
    json.dumps(run.as_record(), allow_nan=False)


def test_a_run_that_grows_is_seen_to_grow_and_a_line_that_is_half_written_is_not_there_yet(tmp_path):
    folder = made(tmp_path / "a", done=3, status="unfinished")
    watch = Watch([folder])
    line = (folder / "metrics.jsonl").read_text().splitlines()[-1].replace('"epoch": 3', '"epoch": 4')
    for piece, epochs in ((line[:40], 3), (line[40:], 3), ("\n", 4)):
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(piece)
        (run,) = watch.look()
        assert (len(run.metrics), run.ended, run.problem) == (epochs, False, "")
    assert 0 <= run.age < 60


def test_runs_are_read_while_another_process_writes_them(tmp_path):
    """Lines come in pieces, and all files are renamed into place again and again."""
    folder = made(tmp_path / "a", done=1, status="unfinished")
    head, done = (folder / "metrics.jsonl").read_text(), threading.Event()

    def write():
        for epoch in range(2, 60):
            line = head.replace('"epoch": 1,', f'"epoch": {epoch},')
            with (folder / "metrics.jsonl").open("a", buffering=1) as file:
                file.write(line[:50])
                file.flush()
                file.write(line[50:])
            last = json.loads(line)
            RunFolder(folder).write_json("summary.json", {"status": "unfinished", "best": last, "last": last})
        done.set()

    writer, watch, seen = threading.Thread(target=write), Watch([tmp_path]), []
    writer.start()
    while not done.is_set():
        (run,) = watch.look()
        assert run.problem == ""
        seen.append(len(run.metrics))
    writer.join()
    assert seen == sorted(seen)
    assert len(watch.look()[0].metrics) == 59


def test_nothing_is_changed_or_locked(tmp_path):
    folder = made(tmp_path / "a")
    before, watch = files(folder), Watch([tmp_path])
    watch.look()
    with RunFolder(folder).locked():  # as a process that trains holds it
        (folder / ".lock").touch()
        assert watch.look()[0].status == "finished"
    (folder / ".lock").unlink()
    watch.look()
    assert files(folder) == before


def test_files_that_have_not_changed_are_not_read_again(tmp_path, monkeypatch):
    watch = Watch([made(tmp_path / "a")])
    watch.look()
    monkeypatch.setattr(RunFolder, "config", lambda self: pytest.fail("read again"))
    watch.look()


def test_a_run_that_appears_is_found_and_one_that_goes_or_is_damaged_says_so(tmp_path):
    watch = Watch([tmp_path])
    assert watch.look() == []
    assert not watch.alone
    first = made(tmp_path / "a")
    assert [run.status for run in watch.look()] == ["finished"]
    made(tmp_path / "b", seed=1)
    (first / "metrics.jsonl").write_text("{}\n")
    one, other = watch.look()
    assert (one.status, other.status) == ("unreadable", "finished")
    assert "metrics.jsonl:1 is no record of an epoch" in one.problem
    (first / "config.toml").unlink()
    assert [Path(run.name).name for run in watch.look()] == ["b"]


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere is no folder; give the folder of a run, or of several"):
        Watch([tmp_path / "nowhere"])
    assert Watch([tmp_path]).look() == []  # as it was advised


# Charts


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_chart_has_every_point_where_it_belongs(logarithmic):
    points = [(x, 10.0 ** (-x / 4)) for x in range(1, 41)]
    rows = chart([points, [(1, 1.0), (40, 1e-10)]], 50, 10, logarithmic=logarithmic)
    assert {len(row) for row in rows} == {50}
    drawn = {(column, row) for row in range(10) for column in range(10, 50) if rows[row][column].line == 0}
    assert rows[0][10].line >= 0, "the largest value at the left"
    assert rows[9][49].line == 1, "the smallest at the right, of the line drawn last"
    assert (max(row for _, row in drawn if _ < 13) <= 2) is logarithmic  # a straight line, or one that falls at once
    assert "".join(cell.letter for cell in rows[-1]).split() == ["1", "40"]


def test_a_chart_of_one_point_or_of_equal_ones_or_of_none_is_drawn():
    for lines in ([[(3, 0.5)]], [[(1, 2.0), (9, 2.0)]]):
        rows = chart(lines, 30, 4)
        assert any(cell.line == 0 for row in rows for cell in row)
    assert all(cell.letter == " " for row in chart([[]], 30, 4) for cell in row)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (60, 16), (80, 8)])
@pytest.mark.parametrize("count", [1, 3])
def test_the_screen_fits_the_terminal(tmp_path, width, height, count):
    for seed in range(count):
        made(tmp_path / f"run-{seed}", seed=seed)
    runs = Watch([tmp_path]).look()
    lines = lines_of(runs, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "test_error" in text
    assert ("error" in text and "│" in text) is (height > 8)
    assert "\u2026" not in text.replace("\u2026ges", "")
    if (width, height) == (200, 60):
        assert all(quantity.name in text for quantity in QUANTITIES)
        for number in ("60.0", "2.0e-05", "900", "4.25"):
            assert number in text


# The command


def test_once_and_without_a_terminal_the_runs_are_shown_once(tmp_path, capsys):
    folder = made(tmp_path / "a")
    for more in ([], ["--once"]):
        assert main(["watch", str(folder), *more]) == 0
        assert "angle to the other matrices" in capsys.readouterr().out
    assert main(["watch", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["run"], found["status"], found["epochs"]) == (str(folder), "finished", 20)
    assert found["lines"]["error"]["test"][-1] == [20, 4.25]


def test_options_of_the_other_view_are_refused(tmp_path, capsys):
    folder = str(made(tmp_path / "a"))
    assert main(["watch", folder, "--port", "5"]) == main(["watch", folder, "--browser", "--once"]) == 2
    assert main(["watch", folder]) == main(["watch", folder, "--once"]) == 0  # as it was advised


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "nowhere is no folder"),
        ([".", "--port", "5"], "--port belongs to --browser; add that, or leave --port out"),
        ([".", "--no-open"], "--no-open belongs to --browser"),
        ([".", "--browser", "--once"], "--once is for the terminal"),
        ([".", "--every", "0"], "every = 0"),
        ([".", "--brwser"], "--browser"),
    ],
)
def test_what_cannot_be_watched_is_refused_in_one_line(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    assert main(["watch", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert says in shown.err


def in_terminal(words, until, then):
    """(exit code, what a terminal showed) of `fsp watch`, of which `then(process)` is called once
    the terminal has shown `until`.
    """
    main_end, other = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "fsp_dynamics", "watch", *map(str, words)],
        stdin=other,
        stdout=other,
        stderr=other,
        env=env,
    )
    os.close(other)
    shown, told, end = b"", False, time.monotonic() + 120
    try:
        while time.monotonic() < end:
            if select.select([main_end], [], [], 0.1)[0]:
                try:
                    shown += os.read(main_end, 1 << 16)
                except OSError:  # the other end is closed
                    break
            if not told and re.search(until, shown):
                told = True
                then(process)
        return process.wait(10), shown.decode()
    finally:
        process.kill()
        os.close(main_end)


@pytest.mark.cli
def test_a_terminal_shows_a_run_as_it_grows_and_ctrl_c_ends_it_cleanly(tmp_path):
    folder = made(tmp_path / "a", done=2, status="unfinished")

    def grow(process):
        line = (folder / "metrics.jsonl").read_text().splitlines()[-1].replace('"epoch": 2', '"epoch": 3')
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(line + "\n")
        threading.Timer(2.0, process.send_signal, [signal.SIGINT]).start()

    code, shown = in_terminal([folder, "--every", "0.2"], rb"2/20", grow)
    assert code == 0
    assert "3/20" in shown
    assert "Traceback" not in shown
    assert "\x1b[?25h" in shown, "the cursor is back"


@pytest.mark.cli
def test_a_terminal_is_left_when_every_run_that_was_named_has_ended(tmp_path):
    folder = made(tmp_path / "a", done=2, status="unfinished")

    def finish(process):
        summary = json.loads((folder / "summary.json").read_text())
        RunFolder(folder).write_json("summary.json", {**summary, "status": "interrupted"})

    code, shown = in_terminal([folder, "--every", "0.2"], rb"unfinished", finish)
    assert code == 0
    assert "interrupted" in shown
