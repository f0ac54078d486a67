"""CPU seconds of compiling the kernels, all processes counted, and where they go.

    python -m benchmarks.compiling [--repeat 3] [--profile]

Each job runs with an empty cache, then twice with what that left; the cost is the difference to the
faster of these. CPU seconds depend less on what else runs than those of a clock, but not little:
on a busy machine a run may take a third more, so repeat, and compare with a neighbour in time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SIMULATION = """
import numpy as np
import fsp_dynamics as fsp
network, nudge = fsp.loop_network([64, 50, 10], rng=0), fsp.Nudge(1.0, np.eye(10)[[0]])
fsp.simulate(network, np.ones((1, 64)), [(20.0, None), (10.0, nudge)])
"""
TRAINING = """
from fsp_dynamics.cli import main
main(["train", "digits", "--epochs", "2", "--no-progress", "--out", "run"])
"""
JOBS = {"fsp train digits --epochs 2": TRAINING, "simulate, 64-50-10": SIMULATION}
# of LLVM: the methods of Numba's code library that these are
STAGES = {
    "reading its text": "add_ir_module",
    "passes over functions": "_optimize_functions",
    "passes over modules": "_optimize_final_module",
    "machine code": "_finalize_final_module",
}
PYTHON = {"nopython_type_inference": "types", "native_lowering": "lowering"}  # other passes: "other passes"


def cpu_seconds(command: Sequence[str], folder: Path, cache: Path) -> float:
    """Of a command and all processes that it starts and waits for, user and system."""
    import resource  # not on Windows

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    begin = used()
    subprocess.run(command, cwd=folder, env=environment(cache), check=True, capture_output=True)
    return used() - begin


def environment(cache: Path) -> dict[str, str]:
    """Of a process that imports what this one does, and keeps kernels in that folder."""
    return os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}


def costs(job: str, say: Callable[[str], None] = print) -> float:
    """Of one job: seconds with an empty cache less those with a full one."""
    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                seconds.append(cpu_seconds([sys.executable, "-c", JOBS[job]], Path(folder), Path(cache)))
    cost = seconds[0] - min(seconds[1:])
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    say(f"{job:<30} {cost:5.1f}   (cold {seconds[0]:.1f}, warm {seconds[1]:.1f} and {seconds[2]:.1f}{load})")
    return cost


class Profile:
    """Seconds of this thread, each counted once: what a pass or a compilation calls is its own."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self.stages: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()
        self.compilations: Counter[str] = Counter()
        self._clock, self._open, self._kernels = clock, [], []  # type: ignore[var-annotated]

    def begin(self, kernel: str | None = None) -> None:
        """A stage begins, or the compilation of a kernel."""
        self._open.append([self._clock(), 0.0])
        if kernel is not None:
            self._kernels.append(kernel)
            self.compilations[kernel] += 1

    def end(self, stage: str | None = None) -> None:
        """The last one that began and has not ended ends; None: it was a compilation."""
        begin, inside = self._open.pop()
        seconds = self._clock() - begin
        if self._open:
            self._open[-1][1] += seconds
        if stage is not None:
            self.stages[stage] += seconds - inside
        if self._kernels:
            self.kernels[self._kernels[-1]] += seconds - inside
        if stage is None:
            self._kernels.pop()

    def listen(self) -> None:
        """To all that Numba compiles from now on."""
        from numba.core import codegen, event

        profile = self

        class Passes(event.Listener):  # type: ignore[misc]
            def on_start(self, event: Any) -> None:
                profile.begin()

            def on_end(self, event: Any) -> None:
                profile.end(PYTHON.get(event.data["name"].split(" [")[0], "other passes"))

        class Compilations(event.Listener):  # type: ignore[misc]
            def on_start(self, event: Any) -> None:
                function = event.data["dispatcher"].py_func
                profile.begin(f"{function.__module__.removeprefix('fsp_dynamics.kernels.')}.{function.__name__}")

            def on_end(self, event: Any) -> None:
                profile.end()

        def timed(stage: str, method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kws: Any) -> Any:
                profile.begin()
                try:
                    return method(*args, **kws)
                finally:
                    profile.end(f"LLVM: {stage}")

            return call

        event.register("numba:run_pass", Passes())
        event.register("numba:compile", Compilations())
        for stage, name in STAGES.items():
            method = getattr(codegen.CPUCodeLibrary, name, None)
            if method is not None:
                setattr(codegen.CPUCodeLibrary, name, timed(stage, method))

    def table(self, most: int = 15) -> str:
        """Seconds by stage, and of the kernels that take longest."""
        lines = [f"{sum(self.compilations.values())} compilations, {sum(self.kernels.values()):.1f} s"]
        lines += [f"  {seconds:5.2f}  {stage}" for stage, seconds in self.stages.most_common()]
        lines += [
            f"  {seconds:5.2f}  {kernel}"
            + (f" ({self.compilations[kernel]} times)" if self.compilations[kernel] > 1 else "")
            for kernel, seconds in self.kernels.most_common(most)
        ]
        return "\n".join(lines)


def profile(job: str) -> str:
    """The table of one job, in a process of its own with an empty cache."""
    code = "from benchmarks.compiling import run_profiled; import sys; run_profiled(sys.argv[1])"
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "NUMBA_CACHE_DIR": folder,
            "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        }
        done = subprocess.run(
            [sys.executable, "-c", code, job], cwd=folder, env=environment, check=True, capture_output=True, text=True
        )
    return str(json.loads(done.stdout.splitlines()[-1]))


def run_profiled(job: str) -> None:
    """In this process: run the job and print its table, as JSON on the last line."""
    found = Profile()
    found.listen()
    exec(compile(JOBS[job], job, "exec"), {})
    print(json.dumps(found.table()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="how often (3)")
    parser.add_argument("--profile", action="store_true", help="where the seconds go, besides")
    given = parser.parse_args()
    print("CPU seconds of compiling")
    for job in JOBS:
        for _ in range(given.repeat):
            costs(job)
    for job in JOBS if given.profile else ():
        print(f"\n{job}: {profile(job)}")


if __name__ == "__main__":
    main()
