"""What is on the screen, second by second: a command in a terminal of 100 columns, with or without
compiled kernels.

    python -m benchmarks.screens [--cold] [--at 1 5 10 20 40] [--columns 100] -- COMMAND ARGUMENT

`--cold` gives the command an empty folder for compiled kernels. The terminal is emulated as far as
programs here use one: text, carriage returns, the cursor moved and lines or the screen erased.
"""

from __future__ import annotations

import argparse
import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

TIMES = (1.0, 5.0, 10.0, 20.0, 40.0)
SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b[=>()][0AB]?|\x1b\][^\x07]*\x07")
RATE = 0.05  # seconds between two looks at the command


@dataclass(slots=True)
class Screen:
    """A terminal: `feed` it what a program writes, and `lines` are what is on it."""

    columns: int = 100
    rows: list[list[str]] = field(default_factory=lambda: [[]])
    row: int = 0
    column: int = 0
    left: str = ""  # the beginning of a sequence that is not yet whole

    def feed(self, text: str) -> None:
        """What the program wrote."""
        text, self.left = self.left + text, ""
        at = 0
        while at < len(text):
            found = SEQUENCE.match(text, at)
            if found:
                at = found.end()
                if found[2]:
                    self._move(found[1], found[2])
            elif text[at] == "\x1b" and len(text) - at < 16:
                self.left = text[at:]
                return
            else:
                self._write(text[at])
                at += 1

    def _write(self, letter: str) -> None:
        if letter == "\r":
            self.column = 0
        elif letter == "\n":
            self._go(self.row + 1)
        elif letter == "\b":
            self.column = max(self.column - 1, 0)
        elif letter >= " ":
            if self.column >= self.columns:
                self.column = 0
                self._go(self.row + 1)
            line = self.rows[self.row]
            line.extend(" " * (self.column + 1 - len(line)))
            line[self.column] = letter
            self.column += 1

    def _go(self, row: int) -> None:
        self.row = max(row, 0)
        while len(self.rows) <= self.row:
            self.rows.append([])

    def _move(self, given: str, letter: str) -> None:
        number = int(given) if given.isdigit() else 0
        if letter == "A":
            self._go(self.row - max(number, 1))
        elif letter == "B":
            self._go(self.row + max(number, 1))
        elif letter == "C":
            self.column = min(self.column + max(number, 1), self.columns - 1)
        elif letter == "D":
            self.column = max(self.column - max(number, 1), 0)
        elif letter == "G":
            self.column = max(number, 1) - 1
        elif letter == "K":
            line = self.rows[self.row]
            self.rows[self.row] = [] if number == 2 else [" "] * self.column if number == 1 else line[: self.column]
        elif letter == "J":
            self.rows[self.row + 1 :] = []
            self._move("", "K")

    @property
    def lines(self) -> list[str]:
        """From the top, without what is empty at the end."""
        found = ["".join(row).rstrip() for row in self.rows]
        while found and not found[-1]:
            found.pop()
        return found


def record(
    command: Sequence[str], times: Sequence[float], columns: int = 100, environment: dict[str, str] | None = None
) -> tuple[dict[float, list[str]], float, int]:
    """({second: lines on the screen then}, seconds until the command ended, its exit code). Seconds
    after the end have no entry.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env={**(os.environ if environment is None else environment), "TERM": "xterm-256color"},
    )
    os.close(follower)
    screen, decoder, found = Screen(columns), codecs.getincrementaldecoder("utf-8")("replace"), {}
    waiting = sorted(times)
    ended = False
    while not ended:
        ready, _, _ = select.select([leader], [], [], RATE)
        now = time.monotonic() - begin
        while waiting and now >= waiting[0]:
            found[waiting.pop(0)] = screen.lines
        if ready:
            try:
                text = os.read(leader, 1 << 16)
            except OSError:  # nobody writes to it any more
                text = b""
            ended = not text
            screen.feed(decoder.decode(text))
    code = process.wait()
    os.close(leader)
    seconds = time.monotonic() - begin
    found[seconds] = screen.lines
    return found, seconds, code


def main(words: Sequence[str] | None = None) -> int:
    """Record one command and print its screens; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", action="store_true", help="with an empty folder for compiled kernels")
    parser.add_argument("--at", type=float, nargs="+", default=list(TIMES), metavar="SECOND")
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("command", nargs="+", help="after --")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **({"NUMBA_CACHE_DIR": folder} if given.cold else {})}
        screens, seconds, code = record(given.command, given.at, given.columns, environment)
    for second, lines in screens.items():
        what = f"end, {second:.1f} s, exit code {code}" if second == seconds else f"{second:g} s"
        print(f"--- {what} ".ljust(given.columns, "-"))
        print("\n".join(lines) if lines else "(nothing)")
    return code


if __name__ == "__main__":
    sys.exit(main())
