"""CPU seconds of compiling: all processes are counted, every second once."""

from __future__ import annotations

import os
import sys

import pytest

from benchmarks.compiling import Profile, cpu_seconds

BURN = "import time\nwhile time.process_time() < {}: pass\n"


@pytest.mark.skipif(os.name != "posix", reason="CPU seconds of children are not counted here")
def test_what_a_process_starts_is_counted(tmp_path) -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN.format(0.3)!r}])\n" + BURN.format(
        0.2
    )
    assert cpu_seconds([sys.executable, "-c", parent], tmp_path, tmp_path) >= 0.5


def test_every_second_is_counted_once() -> None:
    """A caller of 10 s, in whose inference of types (6 s) a callee is compiled for 4."""
    now = [0.0]
    profile = Profile(lambda: now[0])

    def after(seconds):
        now[0] += seconds
        return profile

    after(0).begin("caller")
    after(1).begin()  # types of the caller
    after(1).begin("callee")
    after(1).begin()  # its lowering
    after(2).end("lowering")
    after(1).end()
    after(1).end("types")
    after(3).end()
    assert profile.stages == {"types": 2, "lowering": 2}
    assert profile.kernels == {"caller": 6, "callee": 4}
    assert profile.compilations == {"caller": 1, "callee": 1}
    assert profile.table().startswith("2 compilations, 10.0 s")
