"""Rows that move at the end of what is shown, while something lasts, and leave nothing behind.

There is one `Screen` in a process: whoever lasts adds a row to it and removes it at the end, and
lines of text are written above the rows. Rows move on terminals and in notebooks; elsewhere `add`
says that nobody sees them, and a line must do. Everything goes to stderr.
"""

from __future__ import annotations

import contextlib
import html
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal, Protocol

from fsp_dynamics import streams

Row = Callable[[int], str]
"""row(columns): the text of the moment, in at most so many columns."""
Manner = Literal["rows", "lines", "nothing"]

QUIET = "FSP_QUIET"  # a variable: nothing moves and nothing is announced
COLUMNS = 80  # where the number is unknown
_manner: ContextVar[Manner] = ContextVar("_manner", default="rows")


@contextlib.contextmanager
def shown_as(manner: Manner) -> Iterator[None]:
    """What lasts in the block, in this thread, is shown by rows where they can move, by lines
    alone, or not at all.
    """
    token = _manner.set(manner)
    try:
        yield
    finally:
        _manner.reset(token)


def manner() -> Manner:
    """How what lasts is to be shown here."""
    return "nothing" if os.environ.get(QUIET, "0") not in ("", "0") else _manner.get()


class Canvas(Protocol):
    """Where rows are drawn. interval : seconds from one drawing to the next. plain : whether only
    ASCII can be shown. draw : the rows in place of those of before, and a line above them.
    """

    interval: float
    plain: bool

    def columns(self) -> int: ...

    def draw(self, rows: list[str], line: str | None = None) -> None: ...

    def erase(self) -> None: ...


class Terminal:
    """A terminal: the cursor waits at the beginning of the first row."""

    interval = 0.125

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        try:
            "━⠋".encode(getattr(stream, "encoding", None) or "utf-8")
            self.plain = False
        except (UnicodeEncodeError, LookupError):
            self.plain = True

    def columns(self) -> int:
        """A row must not reach the last column: some terminals would begin another line."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return max((os.get_terminal_size(self.stream.fileno()).columns or COLUMNS) - 1, 1)
        return COLUMNS - 1

    def draw(self, rows: list[str], line: str | None = None) -> None:
        above = "" if line is None else f"\x1b[J{line}\n"
        up = f"\x1b[{len(rows) - 1}A" if len(rows) > 1 else ""
        self._write(f"\r{above}" + "\n".join(f"{row}\x1b[K" for row in rows) + f"\x1b[J\r{up}")

    def erase(self) -> None:
        self._write("\r\x1b[J")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class Notebook:
    """The output of a notebook's cell."""

    interval, plain = 0.5, False

    def __init__(self, shell: Any) -> None:
        self.shell, self.handle, self.cell = shell, None, None

    def columns(self) -> int:
        return COLUMNS

    def draw(self, rows: list[str], line: str | None = None) -> None:
        if line is not None:
            print(line, file=streams.stderr(), flush=True)
        text = "\n".join(row.rstrip() for row in rows)
        self._show({"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"})

    def erase(self) -> None:
        if self.handle is not None:
            self._show({"text/plain": "", "text/html": ""})

    def _show(self, content: dict[str, str]) -> None:
        """In the place of before, or in another cell anew."""
        if self.handle is None or self.cell != self.shell.execution_count:
            display = sys.modules["IPython"].display.display
            self.handle, self.cell = display(content, raw=True, display_id=True), self.shell.execution_count
        else:
            self.handle.update(content, raw=True)


_notebooks: dict[int, Notebook] = {}


def canvas() -> Canvas | None:
    """Where rows can move: the notebook whose kernel this process is, or the terminal that stderr
    is; None where there is neither.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and hasattr(shell, "kernel"):
        return _notebooks.setdefault(id(shell), Notebook(shell))
    stream = streams.stderr()
    if not _is_terminal(stream) or os.environ.get("TERM") == "dumb" or (os.name == "nt" and _is_legacy_windows()):
        return None
    return Terminal(stream)


def _is_terminal(stream: Any) -> bool:
    """False also for what is closed, or is no stream at all."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return bool(stream.isatty())
    return False


def _is_legacy_windows() -> bool:
    """Whether the console of Windows is one that cannot move its cursor on request."""
    from rich.console import detect_legacy_windows

    return detect_legacy_windows()


class Screen:
    """The rows of this process, and the lines above them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._rows: list[Row] = []
        self._canvas: Canvas | None = None
        self._moving: threading.Event | None = None

    def add(self, row: Row) -> bool:
        """Show the row below the others until it is removed; False, and nothing is shown, where
        rows do not move.
        """
        if manner() != "rows":
            return False
        with self._lock:
            if not self._rows:
                self._canvas = canvas()
            if self._canvas is None:
                return False
            self._rows.append(row)
            self._draw()
            if self._moving is None:
                self._moving = threading.Event()
                threading.Thread(target=self._move, args=(self._moving, self._canvas.interval), daemon=True).start()
        return True

    def remove(self, row: Row) -> None:
        """Show the row no longer, if it is shown."""
        with self._lock:
            if row not in self._rows:
                return
            self._rows.remove(row)
            if self._rows:
                self._draw()
                return
            if self._moving is not None:
                self._moving.set()
                self._moving = None
            if self._canvas is not None:
                self._canvas.erase()
                self._canvas = None

    def write(self, text: str) -> None:
        """A line on stderr, above the rows."""
        with self._lock:
            if self._canvas is not None:
                self._draw(text)
            else:
                print(text, file=streams.stderr(), flush=True)

    def draw(self) -> None:
        """Show the rows as they are at this moment."""
        with self._lock:
            self._draw()

    def _draw(self, line: str | None = None) -> None:
        if self._canvas is not None and self._rows:
            columns = self._canvas.columns()
            rows = [row(columns)[:columns] for row in self._rows]
            self._canvas.draw([ascii_only(row) for row in rows] if self._canvas.plain else rows, line)

    def _move(self, ended: threading.Event, interval: float) -> None:
        while not ended.wait(interval):
            with self._lock:
                if not ended.is_set():
                    self._draw()


def screen() -> Screen:
    """That of this process; in one that was forked, rows and their thread are the other's."""
    return _screen_of(os.getpid())


@cache
def _screen_of(process: int) -> Screen:
    return Screen()


@contextlib.contextmanager
def showing(text: str) -> Iterator[None]:
    """A row that says what lasts in the block, where rows move."""
    begin = time.monotonic()

    def row(columns: int) -> str:
        return f"{spinner(time.monotonic() - begin)} {text}"

    screen().add(row)
    try:
        yield
    finally:
        screen().remove(row)


def spinner(seconds: float) -> str:
    """One letter that turns.

    >>> spinner(0.0), spinner(0.25)
    ('⠋', '⠹')
    """
    return "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(8 * seconds) % 10]


def bar(share: float, columns: int) -> str:
    """A share of 1 as a bar.

    >>> bar(0.5, 4), bar(0.7, 4)
    ('━━──', '━━╸─')
    """
    halves = int(2 * columns * min(max(share, 0.0), 1.0))
    return ("━" * (halves // 2) + "╸" * (halves % 2)).ljust(columns, "─")


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours.

    >>> duration(7.4), duration(3700)
    ('0:07', '1:01:40')
    """
    whole = round(seconds)
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes


def ascii_only(text: str) -> str:
    """A row where nothing else can be shown.

    >>> ascii_only("⠹ ━╸─")
    '/ #=-'
    """
    letters = dict(zip("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|//--\\\\||/", strict=True)) | {"━": "#", "╸": "=", "─": "-"}
    return "".join(letters.get(letter, letter) for letter in text).encode("ascii", "replace").decode()
