"""Kernels compiled apart: called by address, found again by other processes, and linked as usual
where Numba lacks what that needs.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numba
import pytest
from numba.core.codegen import JITCodeLibrary

from fsp_dynamics.kernels import apart
from fsp_dynamics.kernels.apart import compile_apart, uncollected

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
ROOT = Path(__file__).parents[2]
ALIVE = []  # what must outlive a Numba that lacks something


@pytest.fixture
def notes(monkeypatch):
    """What was told."""
    monkeypatch.setattr(apart, "_told", set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def made(factor):
    """(callee, caller): the caller adds 1 to `factor` times a number."""

    def callee(x, k):
        return factor * x * k

    callee = compile_apart(callee, error_model="numpy")

    def caller(x):
        return callee(x, 1) + callee(x, 0) + 1

    return callee, compile_apart(caller, error_model="numpy")


def body(kernel):
    """The machine-independent code of what was compiled."""
    (result,) = kernel.overloads.values()
    return result.library.get_llvm_str()


def test_a_caller_has_the_symbol_of_its_callee_and_not_its_body(notes) -> None:
    callee, caller = made(3)
    assert caller(2.0) == 7
    assert f'declare i32 @"{apart.PREFIX}' in body(caller)
    assert "fmul" not in body(caller)
    assert "fmul" in body(callee)
    assert not notes


def test_numbers_that_are_known_make_no_code_of_their_own() -> None:
    callee, caller = made(3)
    caller(2.0)
    assert [tuple(map(str, args)) for args in callee.overloads] == [("float64", "int64")]


def test_functions_of_one_name_keep_their_code_apart() -> None:
    """In this process; both callees are there before either caller."""
    pairs = [made(factor) for factor in (3, 5)]
    for callee, _ in pairs:
        callee(1.0, 1)
    assert [caller(2.0) for _, caller in pairs] == [7, 11]


def test_python_can_call_what_kernels_call() -> None:
    kernel = compile_apart(lambda x, y: x + 2 * y, no_cpython_wrapper=True)
    assert kernel(1.0, 2) == 5
    assert kernel(1, 2) == 5


def test_what_a_callee_raises_leaves_its_caller() -> None:
    def refuse(x):
        if x < 0:
            raise ValueError("negative")
        return x

    refuse = compile_apart(refuse)

    def caller(x):
        return refuse(x)

    with pytest.raises(ValueError, match="negative"):
        compile_apart(caller)(-1.0)


def lack(hook, monkeypatch):
    """Numba, or what it is made of, has no such thing."""

    def gone(*args, **kws):
        raise AttributeError(hook)

    if hook == "CPUDispatcher":
        monkeypatch.setattr(apart, "CPUDispatcher", None)
    elif hook == "add_symbol":
        monkeypatch.setattr(apart, "binding", SimpleNamespace(add_symbol=gone))
    elif hook == "mangled_name":
        monkeypatch.setattr(apart, "copy", SimpleNamespace(copy=gone))
    elif hook == "get_pointer_to_function":
        found = JITCodeLibrary.get_pointer_to_function
        monkeypatch.setattr(JITCodeLibrary, hook, lambda self, name: found(self, name) if "cpython" in name else 0)
    else:
        monkeypatch.setattr(type(made(1)[0].targetctx), hook, gone)


@pytest.mark.parametrize(
    "hook", ["CPUDispatcher", "add_symbol", "mangled_name", "get_pointer_to_function", "remove_user_function"]
)
def test_without_a_hook_bodies_are_linked_with_one_note(hook, monkeypatch, notes) -> None:
    lack(hook, monkeypatch)
    ALIVE.extend(made(3))
    assert ALIVE[-1](2.0) == 7
    assert "fmul" in body(ALIVE[-1])
    assert len(notes) == 1
    assert "compiled into each other" in str(notes[0].message)


def test_a_caller_of_what_has_no_name_is_not_kept() -> None:
    _, caller = made(3)
    caller(2.0)
    (result,) = caller.overloads.values()
    with pytest.raises(KeyError):
        apart.callees(result)


@pytest.mark.parametrize("enabled", [True, False])
def test_collecting_goes_on_as_before(enabled) -> None:
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with suppress(KeyError), uncollected(), uncollected():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


# Other processes

CALLEE = """
def add(x, k):
    for i in range(x.size):
        x[i] += {term}
    return {back}
"""
CALLER = """
import json, warnings
import numpy as np
import callee
from fsp_dynamics.kernels.field import jitted

add = jitted(callee.add, kept=True)


def twice(x):
    return add(x, 1) + add(x, 2)


twice, x = jitted(twice, kept=True), np.zeros(2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    back = twice(x)
print(json.dumps([x.tolist(), back, *[sum(k.stats.cache_hits.values()) for k in (add, twice)], len(caught)]))
"""


@pytest.fixture
def process(tmp_path):
    """What a new process computes: [x, what is returned, hits of callee and caller, notes]."""

    def run(term="k", back="k"):
        (tmp_path / "callee.py").write_text(CALLEE.format(term=term, back=back))
        (tmp_path / "caller.py").write_text(CALLER)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
        command = [sys.executable, "caller.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return run


def test_another_process_links_what_is_on_disk_and_compiles_what_is_lost(process, tmp_path) -> None:
    assert process() == [[3, 3], 3, 0, 0, 0]
    assert process() == [[3, 3], 3, 1, 1, 0]
    (file,) = tmp_path.rglob("callee.add*.nbc")
    file.unlink()
    assert process() == [[3, 3], 3, 0, 1, 0]
    file.write_bytes(file.read_bytes()[:100])
    assert process() == [[3, 3], 3, 0, 1, 1], "with a note on the damaged file"


def test_a_caller_on_disk_runs_the_new_code_of_its_callee(process) -> None:
    process()
    assert process(term="2 * k") == [[6, 6], 3, 0, 1, 0]
    assert process(back="0.5 * k") == [[3, 3], 1.5, 0, 0, 1], "what it calls returns something else: compiled anew"
