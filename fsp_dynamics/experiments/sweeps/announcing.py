"""That a worker of a sweep compiles kernels is shown by the process of the sweep: while it does so,
it keeps a file beside the permit, which that process looks for.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from fsp_dynamics.kernels import compile_watch


@contextlib.contextmanager
def announced(permit: Path) -> Iterator[None]:
    """In a worker: there is a file of its own beside `permit` whenever it waits for a compiler in
    the block. A folder that takes none costs the word alone.
    """
    mark = permit.with_name(f"{permit.name}.{secrets.token_hex(4)}")

    def heard(waits: bool) -> None:
        with contextlib.suppress(OSError):
            if waits and permit.exists():
                mark.touch()
            else:
                mark.unlink(missing_ok=True)

    with compile_watch.heard_by(heard):
        try:
            yield
        finally:
            heard(False)


@contextlib.contextmanager
def shown(permit: Path) -> Iterator[Callable[[], None]]:
    """In the process of the sweep: a function, to be called again and again, that shows whether
    workers have announced that they compile, as if this process did.
    """
    with contextlib.ExitStack() as telling:
        told = False

        def look() -> None:
            nonlocal told
            waits = any(permit.parent.glob(f"{permit.name}.*"))
            if waits and not told:
                telling.enter_context(compile_watch.compiling())
            elif told and not waits:
                telling.close()
            told = waits

        yield look
