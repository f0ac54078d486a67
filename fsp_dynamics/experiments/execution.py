"""What a run needs of the machine: data, threads, and a record of where it ran."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsp_dynamics.datasets import Dataset, load_dataset, read_dataset
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config import Config, DataConfig
from fsp_dynamics.experiments.objects import GIVEN, Objects

KERNELS = "fsp_dynamics.kernels.thread_number"
PACKAGES = ("numpy", "scipy", "numba", "safetensors", "scikit-learn", "threadpoolctl")


def load_data(given: DataConfig, data_dir: str | Path | None = None, objects: Objects | None = None) -> Dataset:
    """The images of a configuration. data_dir : where to look first. objects : where a data set
    given in Python comes from. Raises DatasetError, ConfigurationError.
    """
    if given.path is not None:
        return read_dataset(given.path, validation=given.validation, limit=given.limit)
    name = str(given.name)
    if name.startswith(GIVEN):
        found: Dataset = (objects or Objects()).data(name)
        return found
    return load_dataset(name, data_dir=data_dir, validation=given.validation, limit=given.limit)


def check_threads(threads: int | None) -> None:
    """Raises ConfigurationError for what is no number of threads."""
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ConfigurationError(f"threads = {threads!r}, expected a whole number, 1 or more")


@contextlib.contextmanager
def thread_limit(threads: int | None, kernels: int | None = None) -> Iterator[None]:
    """BLAS, the compiled kernels and torch use at most so many threads in the block; None: one for
    BLAS and torch, `kernels` for the kernels (None: as they are). Last bits depend on the number
    in BLAS and torch, in the kernels they do not.

    A batch's products are too small to gain: two threads were measured 1.0-1.1 times as fast as
    one. SciPy's BLAS, which adds the updates to the weights, always gets one thread: its idle
    threads compete with NumPy's for the cores (training was 2 to 20 times slower, on two cores).
    """
    check_threads(threads)
    import threadpoolctl

    compiled = sys.modules.get(KERNELS)  # loaded with the kernels, or there is nothing to limit
    torch = sys.modules.get("torch")
    before_torch = torch.get_num_threads() if torch else 0
    pools = threadpoolctl.ThreadpoolController()
    of_scipy = [pool.filepath for pool in pools.lib_controllers if Path(pool.filepath).parent.name == "scipy.libs"]
    limit = pools.limit(limits=min(threads or 1, os.cpu_count() or 1), user_api="blas" if threads is None else None)
    with limit, pools.select(filepath=of_scipy).limit(limits=1):
        # asked here, since it may load Numba's thread layer, which changes the number of torch
        before = compiled.number_of_threads() if compiled else 0
        if compiled and (given := threads or kernels):
            compiled.set_number_of_threads(min(given, compiled.most_threads()))
        if torch:
            torch.set_num_threads(min(threads or 1, os.cpu_count() or 1))
        try:
            yield
        finally:
            if compiled:
                compiled.set_number_of_threads(before)
            if torch:
                torch.set_num_threads(before_torch)


def environment(config: Config, command: str, backend: str = "numba", ranks: int = 1) -> dict[str, Any]:
    """Where a run began: versions, commit, seed, CPU, threads, what computed
    (`Trainer.description`) and in how many processes.
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
            [
                "git",
                "--no-optional-locks",
                "-C",
                str(root),
                "describe",
                "--always",
                "--abbrev=12",
                "--dirty=+",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _cpu() -> str:
    """The processor, and the one that kernels are compiled for where NUMBA_CPU_NAME names one."""
    named = os.environ.get("NUMBA_CPU_NAME")
    return _processor() + (f", compiled for {named}" if named else "")


def _processor() -> str:
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
    compiled = sys.modules.get(KERNELS)
    return found | ({"numba": compiled.number_of_threads()} if compiled else {})
