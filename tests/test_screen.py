"""Rows that move while something lasts: on terminals, in notebooks, nowhere else; and nothing of
them stays.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fsp_dynamics import screen as room
from fsp_dynamics import streams
from fsp_dynamics.screen import QUIET, Notebook, Screen, ascii_only, canvas, duration, showing, shown_as

sys.path.insert(0, str(Path(__file__).parents[1]))  # the benchmarks are a package of the source tree

from benchmarks import screens


class Terminal(io.StringIO):
    """A terminal that remembers what was on it after each write."""

    encoding = "utf-8"

    def __init__(self, columns=room.COLUMNS):
        super().__init__()
        self.seen = screens.Screen(columns)
        self.history = []

    def isatty(self):
        return True

    def write(self, text):
        self.seen.feed(text.replace("\n", "\r\n"))  # as a terminal's driver does
        self.history.append(self.seen.lines)
        return super().write(text)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.delenv(QUIET)
    monkeypatch.setenv("TERM", "xterm")
    shown = Terminal()
    monkeypatch.setattr(streams, "stderr", lambda: shown)  # pytest replaces sys.stderr between a fixture and its test
    yield shown
    room._screen_of.cache_clear()


def still(text):
    return lambda columns: text


def test_rows_stand_below_the_lines_and_nothing_of_them_stays(terminal):
    mine, first, second = Screen(), still("one"), still("two")
    mine.write("a line")
    assert mine.add(first)
    assert mine.add(second)
    assert terminal.seen.lines == ["a line", "one", "two"]
    mine.write("another line")
    assert terminal.seen.lines == ["a line", "another line", "one", "two"]
    mine.remove(first)
    assert terminal.seen.lines == ["a line", "another line", "two"]
    assert all(terminal.history), "never blank for a moment"
    mine.remove(second)
    mine.remove(second)
    mine.write("the last line")
    assert terminal.seen.lines == ["a line", "another line", "the last line"]


def test_rows_move_by_themselves(terminal):
    begin = time.monotonic()
    with showing("waiting"):
        while len({"".join(lines) for lines in terminal.history if lines}) < 3:
            assert time.monotonic() - begin < 60, "it stands still"
            time.sleep(0.01)
    assert terminal.seen.lines == []
    assert all("waiting" in lines[0] for lines in terminal.history if lines)


def test_a_row_never_reaches_the_end_of_a_line(terminal):
    mine, wide = Screen(), still("x" * 500)
    mine.add(wide)
    assert terminal.seen.lines == ["x" * (room.COLUMNS - 1)]
    mine.remove(wide)
    assert terminal.seen.lines == []


@pytest.mark.parametrize("why", ["quiet", "lines", "nothing", "file", "dumb"])
def test_elsewhere_nothing_moves_and_that_is_said(terminal, monkeypatch, why):
    if why == "quiet":
        monkeypatch.setenv(QUIET, "1")
    if why == "file":
        monkeypatch.setattr(terminal, "isatty", lambda: False)
    if why == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    with shown_as(why if why in ("lines", "nothing") else "rows"):
        assert not Screen().add(still("one"))
        assert room.manner() == {"quiet": "nothing", "file": "rows", "dumb": "rows"}.get(why, why)
    assert terminal.history == []
    Screen().write("a line is a line")
    assert terminal.seen.lines == ["a line is a line"]


@pytest.mark.parametrize("broken", ["closed", "no stream", "none"])
def test_a_stream_that_cannot_be_written_to_is_no_trouble(monkeypatch, broken):
    stream = io.StringIO()
    stream.close()
    monkeypatch.delenv(QUIET)
    monkeypatch.setattr(sys, "stderr", {"closed": stream, "no stream": object(), "none": None}[broken])
    with showing("waiting"):
        assert canvas() is None
        if broken != "no stream":
            Screen().write("a line")


def test_a_terminal_that_knows_ascii_alone_gets_nothing_else(terminal, monkeypatch):
    monkeypatch.setattr(Terminal, "encoding", "ascii")
    with showing("Ångström"):
        assert terminal.seen.lines[0].endswith("?ngstr?m")
        assert terminal.seen.lines[0].isascii()
    assert ascii_only(room.bar(0.3, 10)) == "###-------"


def test_threads_share_the_screen(terminal):
    mine, rows = Screen(), [still(f"row {i}") for i in range(8)]

    def work(row):
        mine.add(row)
        for _ in range(50):
            mine.write(f"line of {row(0)}")
        mine.remove(row)

    threads = [threading.Thread(target=work, args=[row]) for row in rows]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(terminal.seen.lines) == sorted(f"line of row {i}" for i in range(8) for _ in range(50))


def test_durations():
    assert [duration(s) for s in (0, 59.4, 59.6, 3599.6, 86400)] == ["0:00", "0:59", "1:00", "1:00:00", "24:00:00"]


class Display:
    """In place of IPython.display: what a front end would show."""

    def __init__(self):
        self.outputs, self.display = [], self._display

    def _display(self, content, raw, display_id):
        assert raw
        assert display_id
        self.outputs.append(content)
        return Handle(self.outputs, len(self.outputs) - 1)


class Handle:
    def __init__(self, outputs, at):
        self.outputs, self.at = outputs, at

    def update(self, content, raw):
        assert raw
        self.outputs[self.at] = content


class Shell:
    kernel, execution_count = object(), 1


class IPython:
    def __init__(self):
        self.display, self.shell = Display(), Shell()

    def get_ipython(self):
        return self.shell


def test_in_a_notebook_a_cell_has_one_output_which_is_empty_at_the_end(monkeypatch):
    monkeypatch.delenv(QUIET)
    monkeypatch.setitem(sys.modules, "IPython", ipython := IPython())
    monkeypatch.setattr(room, "_notebooks", {})
    assert isinstance(canvas(), Notebook)
    mine, outputs = Screen(), ipython.display.outputs
    for text in ("one & only", "again"):
        mine.add(row := still(text))
        (output,) = outputs
        assert output["text/plain"] == text
        assert output["text/html"] == f"<pre>{text.replace('&', '&amp;')}</pre>"
        mine.remove(row)
        assert outputs == [{"text/plain": "", "text/html": ""}]
    ipython.shell.execution_count = 2
    mine.add(row := still("in another cell"))
    assert [output["text/plain"] for output in outputs] == ["", "in another cell"]
    mine.remove(row)


CELL = """
import time
from fsp_dynamics.screen import showing
with showing("waiting"):
    time.sleep(1.6)
"""


@pytest.mark.cli
def test_a_real_kernel_shows_them_to_its_front_end():
    manager = pytest.importorskip("jupyter_client").KernelManager(kernel_name="python3")
    pytest.importorskip("ipykernel")
    manager.start_kernel(env={name: value for name, value in os.environ.items() if name != QUIET})
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        seen = []
        client.execute_interactive(CELL, timeout=120, output_hook=seen.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    shown = [(m["msg_type"], m["content"]["data"]["text/plain"]) for m in seen if "display_data" in m["msg_type"]]
    assert not [m["content"] for m in seen if m["msg_type"] in ("error", "stream")]
    assert [kind for kind, _ in shown] == ["display_data"] + ["update_display_data"] * (len(shown) - 1)
    assert len({text for _, text in shown}) > 2, "it moves"
    assert all("waiting" in text for _, text in shown[:-1])
    assert shown[-1][1] == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_a_screen_of_its_own():
    """Its parent's rows move in a thread that it does not have, and may be locked for ever."""
    code = (
        "import os, sys, threading; from fsp_dynamics import screen as room\n"
        "before = room.screen(); held = threading.Thread(target=before._lock.acquire); held.start(); held.join()\n"
        "if os.fork() == 0:\n"
        "    room.screen().write('a line'); os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "a line\n")


def test_a_command_is_recorded_as_it_is_seen():
    script = "import sys, time; print('a'); time.sleep(1); sys.stderr.write('b\\rc'); time.sleep(1); print('\\x1b[Kd')"
    found, seconds, code = screens.record([sys.executable, "-uc", script], [0.8, 1.8, 100], columns=20)
    assert code == 0
    assert found[seconds] == ["a", "cd"]
    assert set(found) <= {0.8, 1.8, seconds}


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("12345678901234567890xy", ["12345678901234567890", "xy"]),
        ("one\r\ntwo\x1b[A\x1b[2K!", ["   !", "two"]),
        ("one\r\ntwo\r\x1b[A\x1b[J", []),
        ("abc\x1b[2D\x1b[31mX\x1b[0m", ["aXc"]),
        ("a\tb".replace("\t", "\x1b[3C"), ["a   b"]),
    ],
)
def test_the_emulated_terminal(written, lines):
    for step in (1, 3, 1000):
        shown = screens.Screen(20)
        for at in range(0, len(written), step):
            shown.feed(written[at : at + step])
        assert shown.lines == lines
