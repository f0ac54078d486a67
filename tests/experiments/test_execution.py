"""What a configuration describes is what is built; threads and signals are given back as they were
found.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numba
import numpy as np
import pytest
import threadpoolctl

import fsp_dynamics.kernels.products  # noqa: F401  (loads numba's kernels)
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.execution import (
    changed_environment,
    environment,
    thread_limit,
)
from fsp_dynamics.experiments.rate.building import build_network, build_recipe
from fsp_dynamics.experiments.stopping import Interrupted, stoppable
from fsp_dynamics.learning.schedules import FactorSchedule


def blas_threads():
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


def test_the_seed_decides_the_network_and_the_stream():
    built = [build_network(load_config("digits", {"seed": seed})[1], 64, 10) for seed in (1, 1, 2)]
    assert np.array_equal(built[0][0].input, built[1][0].input)
    assert not np.array_equal(built[0][0].input, built[2][0].input)
    draws = [rng.random() for _, rng in built]
    assert draws[0] == draws[1] != draws[2]


def test_every_setting_reaches_the_network(tiny):
    table = tiny(
        network={
            "hidden": [5, 6],
            "time_constants": [1.0, 2.0, 0.5],
            "rho": "logistic",
            "dtype": "float64",
            "loop_scale": 0.0,
        }
    )
    network, _ = build_network(
        load_config({**table, "learning": tiny(learning={"rates": {"forward": [1.0, 2.0]}})["learning"]})[1], 64, 10
    )
    assert network.sizes == (64, 5, 6, 10)
    assert network.time_constants == (1.0, 2.0, 0.5)
    assert (network.rho.name, network.dtype) == ("logistic", np.float64)
    assert not network.loop.any()


@pytest.mark.parametrize("kind", ["loop", "reciprocal"])
def test_the_scale_of_the_forward_weights_is_a_setting(kind):
    table = {
        "data": {"name": "digits"},
        "network": {"kind": kind, "hidden": [5]},
        "learning": {"epochs": 1, "rates": {"input": 1, "forward": 1}},
    }
    one, half = (
        build_network(load_config(table, {"network.forward_scale": scale})[1], 64, 10)[0] for scale in (1.0, 0.5)
    )
    assert np.allclose(half.forward[0], 0.5 * one.forward[0], rtol=1e-6)
    assert np.array_equal(half.input, one.input)


def test_every_setting_reaches_the_recipe(tiny):
    learning = {
        "momentum": 0.3,
        "decay": 0.01,
        "rate_factor": 0.9,
        "frozen": ["loop"],
        "beta": 0.5,
        "phases": "centred",
        "normalised": False,
        "rates": {"biases": [2.0, 0.7]},
    }
    recipe = build_recipe(
        load_config(tiny(learning=learning, solver={"method": "picard", "max_passes": 33, "relative": 1e-3}))[1]
    )
    optimiser = recipe.optimiser
    assert (optimiser.momentum, optimiser.decay, optimiser.output_step) == (0.3, 0.01, 0.2)
    assert optimiser.schedule == FactorSchedule(0.9)
    assert (optimiser.frozen, optimiser.normalised) == (("loop",), False)
    assert (optimiser.rates.input, optimiser.rates.forward, optimiser.rates.loop) == (20.0, (7.0,), 0.5)
    assert optimiser.rates.biases == (2.0, 0.7)
    assert (recipe.beta, recipe.phases, recipe.batch) == (0.5, "centred", 20)
    assert (recipe.solver.method, recipe.solver.max_passes) == ("picard", 33)
    assert (recipe.tolerance.absolute, recipe.tolerance.relative) == (1e-4, 1e-3)


def test_threads_are_limited_and_given_back():
    before = blas_threads(), numba.get_num_threads()
    with thread_limit(1):
        assert blas_threads() == {1}
        assert numba.get_num_threads() == 1
    assert (blas_threads(), numba.get_num_threads()) == before
    with thread_limit(None):
        assert blas_threads() == {1}
        assert numba.get_num_threads() == before[1]
    with thread_limit(None, kernels=1):
        assert blas_threads() == {1}
        assert numba.get_num_threads() == 1
    with thread_limit(2):
        scipys = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if "scipy.libs" in pool["filepath"]]
        assert set(scipys) <= {1}
    with thread_limit(10_000):
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    with pytest.raises(ConfigurationError, match="threads = 0"), thread_limit(0):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_acts_where_stopping_is_harmless(number):
    before = signal.getsignal(number)
    with stoppable() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.signum == number
        with pytest.raises(Interrupted) as caught:
            stop.check()
    assert caught.value.signum == number
    assert signal.getsignal(number) is before


def test_a_second_signal_stops_at_once():
    with stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_of_the_outer_block_is_passed_on_to_the_inner_one():
    with stoppable() as outer:
        with stoppable() as inner:
            assert inner.signum is None
        os.kill(os.getpid(), signal.SIGTERM)
        with stoppable() as inner:
            assert inner.signum == outer.signum == signal.SIGTERM
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), signal.SIGTERM)


def test_signals_are_left_alone_outside_the_main_thread():
    failures = []

    def work():
        try:
            with stoppable() as stop:
                stop.check()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def test_the_environment_records_what_a_result_depends_on():
    found = environment(load_config("digits", {"seed": 7})[1], "train")
    assert found["seed"] == 7
    assert found["versions"]["numpy"] == np.__version__
    assert found["threads"]["numba"] == numba.get_num_threads()
    assert found["cpu"]
    assert changed_environment(found, found) == {}
    older = {**found, "versions": {**found["versions"], "numpy": "0.1"}}
    assert changed_environment(older, found) == {"numpy": ("0.1", np.__version__)}


def test_the_environment_names_the_processor_that_kernels_are_compiled_for(monkeypatch):
    monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
    here = environment(load_config("digits")[1], "train")["cpu"]
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert environment(load_config("digits")[1], "train")["cpu"] == f"{here}, compiled for haswell"


@pytest.mark.parametrize("preset", ["digits", "mnist-mlp-fsp"])
def test_the_threads_of_torch_are_afterwards_what_they_were(preset, tmp_path):
    """In a process in which Numba's thread layer is not loaded yet."""
    code = f"""
import warnings, torch
import fsp_dynamics as fsp
warnings.simplefilter("ignore")
before = torch.get_num_threads()
data = {{"name": "digits", "limit": 40, "validation": 100}}
fsp.train({preset!r}, epochs=1, data=data, out="run", progress=False)
assert torch.get_num_threads() == before == 1
"""
    given = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
