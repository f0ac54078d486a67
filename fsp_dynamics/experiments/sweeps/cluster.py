"""The workers of a dask scheduler as a pool for the members of a sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.progress import Reporter
from fsp_dynamics.experiments.sweeps.workers import Attempt, attempt_of, run_unseen

CONNECT = 10  # seconds


class Cluster:
    """The workers of a dask scheduler, with one member each: dask counts the death of a worker
    against every member that waits for it.
    """

    local = False

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address, self._executor = client, address, client.get_executor(pure=False)

    @property
    def slots(self) -> int:
        self._require_scheduler()
        with contextlib.suppress(OSError, TimeoutError):
            return max(1, len(_workers(self._client)))
        raise self._gone()

    def submit(self, *arguments: Any) -> Future[Attempt]:
        future: Future[Attempt] = self._executor.submit(run_unseen, *arguments)
        return future

    def collect(self, future: Future[Attempt]) -> Attempt:
        self._require_scheduler()
        return attempt_of(future)

    def _require_scheduler(self) -> None:
        if self._client.status != "running":
            raise self._gone()

    def _gone(self) -> ConnectionError:
        return ConnectionError(
            f"the scheduler at {self._address} is gone; finished runs are kept, "
            "and the same sweep can be continued with another one"
        )


@contextlib.contextmanager
def connected(address: str, reporter: Reporter) -> Iterator[Any]:
    """A client of the scheduler. Raises ConfigurationError where there is no dask, no scheduler,
    or a worker with several threads.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ConfigurationError(
            f"scheduler = {address!r} needs dask and distributed, which are not installed; "
            "pip install 'fsp_dynamics[cluster]', or give jobs"
        ) from None
    try:
        client = Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        why = " ".join(str(error).split())
        raise ConfigurationError(
            f"scheduler = {address!r} cannot be reached ({why}); start one (dask scheduler) and give its address"
        ) from None
    with client:
        workers = _workers(client)
        for name, worker in workers.items():
            if worker["nthreads"] > 1:
                raise ConfigurationError(
                    f"the worker {name} has {worker['nthreads']} threads, expected 1; start workers with --nthreads 1"
                )
        if not workers:
            reporter.note(
                f"{address} has no workers yet; members begin when there are (dask worker {address} --nthreads 1)"
            )
        yield client


def _workers(client: Any) -> dict[str, Any]:
    """{address: what the scheduler knows} of the workers."""
    return dict(client.scheduler_info(n_workers=-1)["workers"])
