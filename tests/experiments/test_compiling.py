"""Kernels are compiled by another process, into the cache that this one loads from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fsp_dynamics.experiments import compiling
from fsp_dynamics.kernels.compile_watch import COMPILING
from fsp_dynamics.models.builders import loop_network, reciprocal_network


@pytest.mark.parametrize("loop", [True, False])
def test_the_other_process_compiles_for_this_network(loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    make = loop_network if loop else reciprocal_network
    caught: list = []
    monkeypatch.setattr(
        compiling, "compile_for", lambda rho, loop, dtype: caught.append((getattr(rho, "name", rho), loop, dtype))
    )

    def run(command: list, **_: object) -> None:
        assert command[:2] == [sys.executable, "-c"]
        exec(command[2].split("; ")[1], {"compile_for": compiling.compile_for})

    monkeypatch.setattr(subprocess, "run", run)
    compiling.compile_aside(make([3, 4, 2], rho="logistic", dtype=np.float64, rng=0))
    assert caught == [("logistic", loop, "float64")] * 2


@pytest.mark.cli
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
@pytest.mark.rare
def test_what_the_other_process_compiles_is_loaded_here(tmp_path: Path) -> None:
    code = (
        "from numba.core import event\n"
        "from fsp_dynamics.experiments import compiling\n"
        "from fsp_dynamics.models.builders import loop_network\n"
        "with event.install_recorder('numba:compile') as seen:\n"
        "    compiling.compile_aside(loop_network([3, 4, 2], rng=0))\n"
        "names = {e.data['dispatcher'].__name__ for _, e in seen.buffer if e.is_start}\n"
        "print('integrate' in names, 'follow_layers' in names, len(names))\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    assert any(tmp_path.rglob("*.nbc")), "the cache is filled"
    assert done.stdout.split()[-1] == "0", done.stdout


@pytest.mark.cli
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
@pytest.mark.rare
def test_the_set_up_compiles_all_that_the_first_run_needs(tmp_path: Path) -> None:
    """What the Makefile runs while it installs; so that the first epoch starts at once."""
    cache, out = tmp_path / "cache", tmp_path / "q"
    environment = {key: value for key, value in os.environ.items() if key != "FSP_QUIET"}
    environment |= {"NUMBA_CACHE_DIR": str(cache)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fsp_dynamics", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580, check=True)

    assert COMPILING in run("train", "digits", "--dry-run", "--no-progress").stderr
    made = {path.name for path in cache.rglob("*.nbc")}
    assert made
    assert COMPILING not in run("quickstart", "--out", str(out)).stderr
    assert {path.name for path in cache.rglob("*.nbc")} == made
