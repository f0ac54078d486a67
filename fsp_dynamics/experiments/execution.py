"""What a run needs beside its loop: the objects a configuration describes, threads, signals, and a
record of the machine.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from fsp_dynamics.errors import CheckpointError, ConfigurationError, FspError
from fsp_dynamics.experiments.backend import NUMBA, Backend
from fsp_dynamics.experiments.config import Config

if TYPE_CHECKING:
    from fsp_dynamics.experiments.checkpoint import Checkpoint
    from fsp_dynamics.models.network import Network
    from fsp_dynamics.training.recipe import Recipe

PACKAGES = ("numpy", "scipy", "numba", "safetensors", "scikit-learn", "threadpoolctl")


class NoConvergenceError(FspError, RuntimeError):
    """No sample of a whole epoch converged, so nothing could be learned."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; what was saved last is whole. `signum` is the signal."""

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message or f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Stop:
    """Whether a signal asked to stop; `check` raises Interrupted where stopping is harmless."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def ask(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler. A second signal stops at once."""
        if self.signum is not None:
            raise Interrupted(signum)
        self.signum = signum

    def check(self) -> None:
        if self.signum is not None:
            raise Interrupted(self.signum)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """SIGINT and SIGTERM ask the yielded `Stop` while the block runs; outside the main thread they
    are left alone.

    In a block within another one the outer `Stop` hears nothing; what it has heard before is told
    the inner one.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    outer = getattr(before[signal.SIGINT], "__self__", None)
    if isinstance(outer, Stop):
        stop.signum = outer.signum
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_threads(threads: int | None) -> None:
    """Raises ConfigurationError for what is no number of threads."""
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ConfigurationError(f"threads = {threads!r}, expected a whole number, 1 or more")


@contextlib.contextmanager
def thread_limit(threads: int | None, kernels: int | None = None) -> Iterator[None]:
    """BLAS, the compiled kernels and torch use at most so many threads in the block; None: one for
    BLAS and torch, `kernels` for the kernels (None: as they are). Last bits depend on the number
    in BLAS and torch, in the kernels they do not.

    A batch's products are too small to share: two threads were measured 1.0-1.1 times as fast as
    one. SciPy's BLAS, which adds the updates to the weights, always gets one thread: its idle
    threads spin in the way of NumPy's (training was 2 to 20 times slower so, on two cores).
    """
    check_threads(threads)
    import threadpoolctl

    numba = sys.modules.get("numba")  # loaded with the kernels, or there is nothing to limit
    torch = sys.modules.get("torch")
    before, before_torch = numba.get_num_threads() if numba else 0, torch.get_num_threads() if torch else 0
    pools = threadpoolctl.ThreadpoolController()
    of_scipy = [pool.filepath for pool in pools.lib_controllers if Path(pool.filepath).parent.name == "scipy.libs"]
    limit = pools.limit(limits=min(threads or 1, os.cpu_count() or 1), user_api="blas" if threads is None else None)
    with limit, pools.select(filepath=of_scipy).limit(limits=1):
        if numba and (given := threads or kernels):
            numba.set_num_threads(min(given, numba.config.NUMBA_NUM_THREADS))
        if torch:
            torch.set_num_threads(min(threads or 1, os.cpu_count() or 1))
        try:
            yield
        finally:
            if numba:
                numba.set_num_threads(before)
            if torch:
                torch.set_num_threads(before_torch)


def build_network(config: Config, pixels: int, classes: int) -> tuple[Network, np.random.Generator]:
    """The network as it is before learning, and the random stream that training goes on with; both
    from the seed.
    """
    from fsp_dynamics.models.network import loop_network, reciprocal_network

    first, second = np.random.SeedSequence(config.seed).spawn(2)
    given = config.network
    settings: dict[str, Any] = given.model_dump(
        include={"rho", "forward_scale", "loop_scale", "tied"}, exclude_none=True
    )
    make = loop_network if given.kind == "loop" else reciprocal_network
    network = make(
        [pixels, *given.hidden, classes],
        time_constants=config.time_constants,
        dtype=np.dtype(given.dtype),
        rng=np.random.default_rng(first),
        **settings,
    )
    return network, np.random.default_rng(second)


def restored(config: Config, checkpoint: Checkpoint) -> Network:
    """The network of a checkpoint. Raises CheckpointError if it does not belong to the
    configuration.
    """
    parameters = checkpoint.parameters
    try:
        network, _ = build_network(config, *_ends(parameters))
    except (FspError, KeyError) as error:
        raise CheckpointError(
            f"the checkpoint does not belong to this configuration: {error}; restore the run's config.toml"
        ) from None
    for name, expected in network.parameters().items():
        found = parameters.get(name)
        if found is None or (found.shape, found.dtype) != (expected.shape, expected.dtype):
            what = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise CheckpointError(
                f"the checkpoint does not belong to this configuration: {name} is {what}, expected {expected.dtype} {expected.shape}; "
                "restore the run's config.toml"
            )
    return network.with_parameters(parameters)


def _ends(parameters: dict[str, Any]) -> tuple[int, int]:
    """(pixels, classes) of a checkpoint's network."""
    depth = sum(name.startswith("biases") for name in parameters)
    return len(parameters["input"]), len(parameters[f"biases[{depth - 1}]"])


def build_recipe(config: Config, backend: Backend = NUMBA, local_rank: int = 0) -> Recipe:
    """How to learn, from [learning] and [solver]. Raises ConfigurationError for settings that the
    solver refuses.
    """
    from fsp_dynamics.learning.optimisers import LearningRates, Sgd
    from fsp_dynamics.learning.rules import make_rule
    from fsp_dynamics.solvers.equilibrium import Tolerance
    from fsp_dynamics.training.recipe import Recipe

    learning, given = config.learning, config.solver
    rates = LearningRates(**learning.rates.model_dump())
    optimiser = Sgd(
        rates,
        **learning.model_dump(include={"normalised", "output_step", "momentum", "decay", "rate_factor", "frozen"}),
    )
    tolerance = Tolerance.default(config.network.dtype)
    if given.absolute is not None or given.relative is not None:
        tolerance = Tolerance(given.absolute or 0.0, given.relative or 0.0)
    solver = backend.solver(given, local_rank)
    how = learning.model_dump(include={"beta", "phases", "batch", "mirror"})
    return Recipe(rule=make_rule(learning.rule), optimiser=optimiser, solver=solver, tolerance=tolerance, **how)


def environment(config: Config, command: str, backend: str = "numba", ranks: int = 1) -> dict[str, Any]:
    """Where a run began: versions, commit, seed, CPU, threads, what computed (`Backend.described`)
    and in how many processes.
    """
    return {
        "command": command,
        "arguments": sys.argv[1:],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("fsp_dynamics", *PACKAGES)},
        },
        "commit": _commit(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "threads": _threads(),
        "backend": backend,
        "processes": ranks,
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def changed_environment(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """{name: (before, now)} of what may change the last bits of a result: versions, CPU, threads,
    backend.
    """
    old, new = (
        {
            **record.get("versions", {}),
            **{key: record.get(key) for key in ("cpu", "threads")},
            "backend": record.get("backend", "numba"),
        }
        for record in (before, now)
    )
    return {key: (old.get(key), new[key]) for key in new if old.get(key) != new[key]}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree this package stands in, with + if it was changed; None where
    there is none.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _threads() -> dict[str, int]:
    """Threads of each BLAS (NumPy and SciPy bring one each) and of the kernels."""
    import threadpoolctl

    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    found = {Path(pool["filepath"]).name.split("-")[0]: int(pool["num_threads"]) for pool in pools}
    numba = sys.modules.get("numba")
    return found | ({"numba": int(numba.get_num_threads())} if numba else {})
