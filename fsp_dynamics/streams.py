"""Standard output and standard error as they may be found: closed, full, without a reader, unable
to encode a letter.

What is told on the way is never worth a computation, so writing to standard error always succeeds;
a result that cannot be written is an error of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

NULL: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}


class OutputError(OSError):
    """A result cannot be written to standard output. `broken` : whether its reader has gone."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"standard output cannot be written to: {getattr(error, 'strerror', None) or error}")
        self.broken = isinstance(error, BrokenPipeError)


class _Stream:
    """A stream with everything that the other has but for `write` and `flush`. Two around one are
    equal: a bar is cleared for a line on its own stream.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __eq__(self, other: object) -> bool:
        return self.stream is getattr(other, "stream", other)

    def __hash__(self) -> int:
        return hash(id(self.stream))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Unfailing(_Stream):
    """A stream on which what cannot be written is lost."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            try:
                self.stream.write(text)
            except UnicodeEncodeError as error:
                self.stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.stream.flush()


class Results(_Stream):
    """A stream whose errors are OutputError."""

    def write(self, text: str) -> int:
        try:
            return int(self.stream.write(text))
        except (OSError, ValueError) as error:
            raise OutputError(error) from error

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            raise OutputError(error) from error


def stderr() -> Any:
    """Standard error, unfailing; the null device where there is none."""
    if sys.stderr is None:
        return Unfailing(open(os.devnull, "w", **NULL))
    return sys.stderr if isinstance(sys.stderr, Unfailing) else Unfailing(sys.stderr)


def open_missing() -> None:
    """Open the null device for each of the three standard streams that is closed, so that no other
    file gets its number, into which a library may write.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            stream = open(number, "r" if number == 0 else "w", closefd=False, **NULL)  # noqa: SIM115
            setattr(sys, name, stream)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """In the block, letters that standard output cannot encode are written as escapes, its errors
    are OutputError, and those of standard error are lost.
    """
    out, err = sys.stdout, sys.stderr
    errors = getattr(out, "errors", None)
    if hasattr(out, "reconfigure"):
        out.reconfigure(errors="backslashreplace")
    with contextlib.redirect_stdout(Results(out)), contextlib.redirect_stderr(Unfailing(err)):
        try:
            yield
        finally:
            if hasattr(out, "reconfigure"):
                with contextlib.suppress(OSError, ValueError):
                    out.reconfigure(errors=errors)


def give_up_stdout() -> None:
    """Let what is left to be written to standard output go to the null device: Python would try it
    again at its end.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        number = os.open(os.devnull, os.O_WRONLY)
        os.dup2(number, sys.stdout.fileno())
        os.close(number)
