"""What a computation that lasts listens to besides signals: a check that its caller gives it.

A handler that only notes a signal, as that of a training does, interrupts nothing. Within
`heeding(check)` the check is made several times a second while kernels run (kernels/team.py), and
wherever `heed` is called; it may raise, and what it raises leaves the computation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def heeding(check: Callable[[], None] | None) -> Iterator[None]:
    """Make `check` while the block lasts, in this thread, in place of any outer one; None: make
    none.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def heeded() -> Callable[[], None] | None:
    """The check that is made here, if there is one."""
    return _check.get()


def heed() -> None:
    """Make the check, if there is one. Raises what it raises."""
    check = _check.get()
    if check is not None:
        check()
