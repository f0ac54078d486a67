"""How the members of a sweep are run: one by one in this process, in processes of their own, or on
a cluster; each failure tried once more.

A worker holds one member at a time. It may die at any moment: what its member has saved is whole,
the lock of its folder ends with it, and the next worker goes on from there to the same bits. While
the sweep goes on there is a file, the permit, that all workers see; when it is gone they stop
where that is harmless, and so does one that everybody had given up.
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
from fsp_dynamics.experiments.execution import Interrupted, Stop
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.progress import Quiet
from fsp_dynamics.experiments.sweeps.plan import Planned

TRIES = 2
POLL = 0.2  # seconds between two looks at the permit, and at the signals
PATIENCE = 60.0  # seconds that a member waits for a folder that another process holds
GRACE = 30.0  # seconds that members are given to stop in
PERMIT = ".running-"

# the threads of BLAS and of the kernels are limited for the whole process
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try of a member ended: finished, failed or interrupted (by `signum`), why, what was
    noted on the way, the run's summary.
    """

    status: str
    reason: str = ""
    notes: tuple[str, ...] = ()
    summary: Record = field(default_factory=dict)
    signum: int | None = None


class Pool(Protocol):
    """Where members run. slots : how many it takes at once, now. here : they run in this process,
    in `submit`.
    """

    @property
    def slots(self) -> int: ...

    @property
    def here(self) -> bool: ...

    def submit(self, *arguments: Any) -> Future[Outcome]:
        """`run_member(*arguments)` begins."""

    def collect(self, future: Future[Outcome]) -> Outcome:
        """How it ended; a worker that died is a failure."""


class Told(Protocol):
    """What is told while members run. label : a member's name."""

    def ended(self, label: str, outcome: Outcome) -> None: ...

    def problem(self, text: str) -> None: ...


def run_member(
    folder: str, config: Config, permit: str, data_dir: str | None, threads: int | None, backend: Backend = NUMBA
) -> Outcome:
    """Train in `folder`, or go on there, as long as the file `permit` is there; never raises. The
    work of one worker on one member.
    """
    told = _Member(Path(permit))
    means: dict[str, Any] = {"data_dir": data_dir, "threads": threads, "backend": backend}
    with _one_at_a_time:
        try:
            run = _patiently(
                lambda: runner.run(config, RunFolder(Path(folder)), told, resume=True, command="sweep", **means), told
            )
        except KeyboardInterrupt as stopped:
            return Outcome(
                "interrupted",
                " ".join(str(stopped).split()),
                tuple(told.notes),
                signum=int(getattr(stopped, "signum", SIGINT)),
            )
        except Exception as error:
            return Outcome(
                "failed", one_line(error), tuple(told.notes), RunFolder(Path(folder)).read_json("summary.json")
            )
    return Outcome("finished", notes=tuple(told.notes), summary=run.summary)


def run_members(
    members: Sequence[Planned],
    pool: Pool,
    out: Path,
    told: Told,
    stop: Stop,
    *,
    data_dir: str | None,
    threads: int | None,
    backend: Backend,
) -> dict[str, Outcome]:
    """{name: how it ended} of all that came to an end. A failure is told and tried once more;
    after a signal (`stop`) nothing begins any more.
    """
    tries: Counter[str] = Counter()
    outcomes: dict[str, Outcome] = {}
    waiting, running = deque(members), dict[Future[Outcome], Planned]()
    with permitted(out) as permit:
        while waiting or running:
            if stop.signum is not None:
                _finish(permit, pool, running, outcomes)
                return outcomes
            while waiting and len(running) < pool.slots and stop.signum is None:
                member = waiting.popleft()
                tries[member.name] += 1
                running[pool.submit(str(out / member.name), member.config, str(permit), data_dir, threads, backend)] = (
                    member
                )
            for future in wait(running, POLL, FIRST_COMPLETED).done:
                member, outcome = running.pop(future), pool.collect(future)
                if outcome.status == "interrupted" and pool.here:
                    stop.signum = outcome.signum
                if stop.signum is not None and outcome.status != "finished":
                    outcomes[member.name] = dataclasses.replace(outcome, status="interrupted")
                elif outcome.status != "finished" and tries[member.name] < TRIES:
                    told.problem(f"{member.name} failed and is tried once more: {outcome.reason}")
                    waiting.append(member)
                else:
                    outcomes[member.name] = (
                        outcome if outcome.status == "finished" else dataclasses.replace(outcome, status="failed")
                    )
                    told.ended(member.name, outcomes[member.name])
    return outcomes


@contextlib.contextmanager
def permitted(out: Path) -> Iterator[Path]:
    """The permit of a sweep in `out`, taken back at the end; workers that a killed sweep left
    behind lose theirs. Only while `out` is locked.
    """
    _take_back(out)
    permit = out / f"{PERMIT}{secrets.token_hex(4)}"
    permit.touch()
    try:
        yield permit
    finally:
        _take_back(out)


def one_line(error: BaseException) -> str:
    """What an error says, in one line, its kind before it unless it is one of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, FspError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")


@dataclass(slots=True)
class Here:
    """This process, one member after the other."""

    slots: int = 1
    here: bool = True

    def submit(self, *arguments: Any) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        future.set_result(run_member(*arguments))
        return future

    def collect(self, future: Future[Outcome]) -> Outcome:
        return future.result()


class Processes:
    """Processes of this machine (joblib's loky), as many as `slots`, each with BLAS and kernels on
    `threads` threads.

    Every worker is an executor of its own: one that is killed interrupts its own, and the members
    of the others do not notice.
    """

    here = False

    def __init__(self, slots: int, threads: int) -> None:
        self.slots = slots
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        self._environment = dict.fromkeys(names, str(threads))
        self._idle: list[Any] = []
        self._busy: dict[Future[Outcome], Any] = {}

    def submit(self, *arguments: Any) -> Future[Outcome]:
        from joblib.externals.loky import ProcessPoolExecutor

        while self._idle:
            executor = self._idle.pop()
            try:
                return self._begin(executor, arguments)
            except BrokenExecutor:  # its process was killed while it had nothing to do
                executor.shutdown(kill_workers=True)
        return self._begin(ProcessPoolExecutor(max_workers=1, env=self._environment), arguments)

    def _begin(self, executor: Any, arguments: tuple[Any, ...]) -> Future[Outcome]:
        future: Future[Outcome] = executor.submit(run_member, *arguments)
        self._busy[future] = executor
        return future

    def collect(self, future: Future[Outcome]) -> Outcome:
        executor = self._busy.pop(future)
        outcome = outcome_of(future)
        if isinstance(future.exception(), BrokenExecutor):
            executor.shutdown(kill_workers=True)
        else:
            self._idle.append(executor)
        return outcome

    def close(self) -> None:
        """End the processes; those that are still at work are killed, which harms nothing."""
        for executor in [*self._idle, *self._busy.values()]:
            executor.shutdown(kill_workers=executor not in self._idle)


def outcome_of(future: Future[Outcome]) -> Outcome:
    """How a future that is done ended: what it returned, or a failure that says what it raised."""
    try:
        return future.result()
    except CancelledError:
        return Outcome("failed", "its worker is gone")
    except BrokenExecutor as error:
        codes = re.search(r"\{.*?\}", str(error), re.DOTALL)
        return Outcome("failed", "its worker was killed" + (f" ({codes[0].strip('{}')})" if codes else ""))
    except Exception as error:
        return Outcome("failed", one_line(error))


class _Member(Quiet):
    """What a run tells its worker: notes are kept for the sweep to say, and without a permit it
    stops.
    """

    def __init__(self, permit: Path) -> None:
        super().__init__()
        self.permit, self.notes, self.looked = permit, list[str](), 0.0

    def batch(self, done: int, total: int, error: float) -> None:
        now = time.monotonic()
        if now - self.looked >= POLL:
            self.looked = now
            self.check()

    def check(self) -> None:
        """Raises Interrupted if the permit is gone."""
        if not self.permit.exists():
            raise Interrupted(SIGINT, "the sweep was stopped before it began")

    def note(self, text: str) -> None:
        self.notes.append(text)


def _patiently(work: Callable[[], runner.Run], told: _Member) -> runner.Run:
    """Do it, once nobody else holds the folder: a process that was given up may still be there for
    a moment.
    """
    end = time.monotonic() + PATIENCE
    while True:
        told.check()
        try:
            return work()
        except RunLockedError:
            if time.monotonic() > end:
                raise
            time.sleep(POLL)


def _finish(permit: Path, pool: Pool, running: dict[Future[Outcome], Planned], outcomes: dict[str, Outcome]) -> None:
    """Have the members that run stop, and wait for them, but not for ever."""
    permit.unlink(missing_ok=True)
    for future in wait(running, GRACE).done:
        outcome = pool.collect(future)
        outcomes[running.pop(future).name] = (
            outcome if outcome.status == "finished" else dataclasses.replace(outcome, status="interrupted")
        )


def _take_back(out: Path) -> None:
    for permit in out.glob(f"{PERMIT}*"):
        permit.unlink(missing_ok=True)
