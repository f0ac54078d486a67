"""How the members of a sweep are run: one by one in this process, in processes of their own, or on
a cluster; each failure tried once more.

A worker holds one member at a time. It may die at any moment: what its member has saved is whole,
the lock of its folder ends with it, and the next worker resumes from there to the same bits. While
a sweep runs there is a file, the permit, that all workers can see; when it is removed they stop
where that is harmless, and so does one that had been given up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT
from typing import Any, Protocol

from fsp_dynamics.errors import FspError, RunLockedError
from fsp_dynamics.experiments import runner
from fsp_dynamics.experiments.backend import NUMBA, Backend
from fsp_dynamics.experiments.config import Config
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.progress import Output, RunReporter
from fsp_dynamics.experiments.stopping import Interrupted, Stop
from fsp_dynamics.experiments.sweeps import announcing
from fsp_dynamics.experiments.sweeps.plan import Planned
from fsp_dynamics.screen import shown_as

TRIES = 2
POLL = 0.2  # seconds between two checks of the permit, and of signals
PATIENCE = 60.0  # seconds to wait for a folder that another process holds
GRACE = 30.0  # seconds to wait for members to stop
PERMIT = ".running-"

# the threads of BLAS and of the kernels are limited for the whole process
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt at a member ended: finished, failed or interrupted (by `signum`), why, its
    notes, the run's summary.
    """

    status: str
    reason: str = ""
    notes: tuple[str, ...] = ()
    summary: Record = field(default_factory=dict)
    signum: int | None = None


class Pool(Protocol):
    """Where members run. slots : how many run at once, now. local : they run in this process, in
    `submit`.
    """

    @property
    def slots(self) -> int: ...

    @property
    def local(self) -> bool: ...

    def submit(self, *arguments: Any) -> Future[Attempt]:
        """`run_member(*arguments)` begins."""

    def collect(self, future: Future[Attempt]) -> Attempt:
        """How it ended; a worker that died is a failure."""


class AttemptReporter(Protocol):
    """Receives what happens to members. label : a member's name."""

    def end_member(self, label: str, attempt: Attempt) -> None: ...

    def warn(self, text: str) -> None: ...


def run_member(
    folder: str, config: Config, permit: str, data_dir: str | None, threads: int | None, backend: Backend = NUMBA
) -> Attempt:
    """Train in `folder`, or resume there, as long as the file `permit` exists; never raises. The
    work of one worker on one member.
    """
    reporter = _WorkerReporter(Path(permit))
    means: dict[str, Any] = {"data_dir": data_dir, "threads": threads, "backend": backend}
    with _one_at_a_time:
        try:
            run = _when_unlocked(
                lambda: runner.run(config, RunFolder(Path(folder)), reporter, resume=True, command="sweep", **means),
                reporter,
            )
        except KeyboardInterrupt as stopped:
            return Attempt(
                "interrupted",
                " ".join(str(stopped).split()),
                tuple(reporter.notes),
                signum=int(getattr(stopped, "signum", SIGINT)),
            )
        except Exception as error:
            return Attempt("failed", one_line(error), tuple(reporter.notes), RunFolder(Path(folder)).summary())
    return Attempt("finished", notes=tuple(reporter.notes), summary=run.summary)


def run_unseen(folder: str, config: Config, permit: str, *means: Any) -> Attempt:
    """`run_member` in a process of its own: what lasts there is not shown, for the screen belongs
    to the sweep, which hears of kernels being compiled.
    """
    with shown_as("nothing"), announcing.announced(Path(permit)):
        return run_member(folder, config, permit, *means)


def run_members(
    members: Sequence[Planned],
    pool: Pool,
    out: Path,
    reporter: AttemptReporter,
    stop: Stop,
    *,
    data_dir: str | None,
    threads: int | None,
    backend: Backend,
) -> dict[str, Attempt]:
    """{name: how it ended} of all members that ended. A failure is reported and tried once more;
    after a signal (`stop`) no other member starts.
    """
    tries: Counter[str] = Counter()
    outcomes: dict[str, Attempt] = {}
    waiting, running = deque(members), dict[Future[Attempt], Planned]()
    with permitted(out) as permit, announcing.shown(permit) as look:
        while waiting or running:
            look()
            if stop.signum is not None:
                _stop_members(permit, pool, running, outcomes)
                return outcomes
            while waiting and len(running) < pool.slots and stop.signum is None:
                member = waiting.popleft()
                tries[member.name] += 1
                running[pool.submit(str(out / member.name), member.config, str(permit), data_dir, threads, backend)] = (
                    member
                )
            for future in wait(running, POLL, FIRST_COMPLETED).done:
                member, outcome = running.pop(future), pool.collect(future)
                if outcome.status == "interrupted" and pool.local:
                    stop.signum = outcome.signum
                if stop.signum is not None and outcome.status != "finished":
                    outcomes[member.name] = dataclasses.replace(outcome, status="interrupted")
                elif outcome.status != "finished" and tries[member.name] < TRIES:
                    reporter.warn(f"{member.name} failed and is tried once more: {outcome.reason}")
                    waiting.append(member)
                else:
                    outcomes[member.name] = (
                        outcome if outcome.status == "finished" else dataclasses.replace(outcome, status="failed")
                    )
                    reporter.end_member(member.name, outcomes[member.name])
    return outcomes


@contextlib.contextmanager
def permitted(out: Path) -> Iterator[Path]:
    """The permit of a sweep in `out`, removed at the end; so are those of an earlier sweep that was
    killed. Only while `out` is locked.
    """
    _remove_permits(out)
    permit = out / f"{PERMIT}{secrets.token_hex(4)}"
    permit.touch()
    try:
        yield permit
    finally:
        _remove_permits(out)


def one_line(error: BaseException) -> str:
    """The message of an error in one line, after its class unless that is one of this package."""
    text = " ".join(str(error).split())
    return text if isinstance(error, FspError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")


@dataclass(slots=True)
class ThisProcess:
    """This process, one member after the other."""

    slots: int = 1
    local: bool = True

    def submit(self, *arguments: Any) -> Future[Attempt]:
        future: Future[Attempt] = Future()
        future.set_result(run_member(*arguments))
        return future

    def collect(self, future: Future[Attempt]) -> Attempt:
        return future.result()


class Processes:
    """Processes of this machine (joblib's loky), as many as `slots`, each with BLAS and kernels on
    `threads` threads.

    Every worker is an executor of its own, so that killing one does not affect the members of the
    others.
    """

    local = False

    def __init__(self, slots: int, threads: int) -> None:
        self.slots = slots
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        self._environment = dict.fromkeys(names, str(threads))
        self._idle: list[Any] = []
        self._busy: dict[Future[Attempt], Any] = {}

    def submit(self, *arguments: Any) -> Future[Attempt]:
        from joblib.externals.loky import ProcessPoolExecutor

        while self._idle:
            executor = self._idle.pop()
            try:
                return self._begin(executor, arguments)
            except BrokenExecutor:  # its process was killed while it had nothing to do
                executor.shutdown(kill_workers=True)
        return self._begin(ProcessPoolExecutor(max_workers=1, env=self._environment), arguments)

    def _begin(self, executor: Any, arguments: tuple[Any, ...]) -> Future[Attempt]:
        future: Future[Attempt] = executor.submit(run_unseen, *arguments)
        self._busy[future] = executor
        return future

    def collect(self, future: Future[Attempt]) -> Attempt:
        executor = self._busy.pop(future)
        outcome = attempt_of(future)
        if isinstance(future.exception(), BrokenExecutor):
            executor.shutdown(kill_workers=True)
        else:
            self._idle.append(executor)
        return outcome

    def close(self) -> None:
        """End the processes; those that still work are killed, which damages nothing."""
        for executor in [*self._idle, *self._busy.values()]:
            executor.shutdown(kill_workers=executor not in self._idle)


def attempt_of(future: Future[Attempt]) -> Attempt:
    """How a future that is done ended: what it returned, or a failure with what it raised."""
    try:
        return future.result()
    except CancelledError:
        return Attempt("failed", "its worker is gone")
    except BrokenExecutor as error:
        codes = re.search(r"\{.*?\}", str(error), re.DOTALL)
        return Attempt("failed", "its worker was killed" + (f" ({codes[0].strip('{}')})" if codes else ""))
    except Exception as error:
        return Attempt("failed", one_line(error))


class _WorkerReporter(RunReporter):
    """A worker's: it collects notes for the sweep to show, and stops the run without a permit."""

    def __init__(self, permit: Path) -> None:
        super().__init__(Output())
        self.permit, self.notes, self.checked = permit, list[str](), 0.0

    def batch(self, done: int, total: int, error: float) -> None:
        now = time.monotonic()
        if now - self.checked >= POLL:
            self.checked = now
            self.check()

    def check(self) -> None:
        """Raises Interrupted if the permit is gone."""
        if not self.permit.exists():
            raise Interrupted(SIGINT, "the sweep was stopped before it began")

    def note(self, text: str) -> None:
        self.notes.append(text)


def _when_unlocked(work: Callable[[], runner.Run], reporter: _WorkerReporter) -> runner.Run:
    """Call `work` once no other process holds the folder: one that was given up may still run for a
    moment.
    """
    end = time.monotonic() + PATIENCE
    while True:
        reporter.check()
        try:
            return work()
        except RunLockedError:
            if time.monotonic() > end:
                raise
            time.sleep(POLL)


def _stop_members(
    permit: Path, pool: Pool, running: dict[Future[Attempt], Planned], outcomes: dict[str, Attempt]
) -> None:
    """Stop the members that run, and wait for them up to GRACE seconds."""
    permit.unlink(missing_ok=True)
    for future in wait(running, GRACE).done:
        outcome = pool.collect(future)
        outcomes[running.pop(future).name] = (
            outcome if outcome.status == "finished" else dataclasses.replace(outcome, status="interrupted")
        )


def _remove_permits(out: Path) -> None:
    for permit in out.glob(f"{PERMIT}*"):
        permit.unlink(missing_ok=True)
