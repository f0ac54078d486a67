"""Ctrl-C is answered at once by everything that lasts: a strong loop finds no equilibrium, so that
each of these computes for ten seconds and more.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import numba
import numpy as np
import pytest

import fsp_dynamics as fsp
from fsp_dynamics.analysis.attractors import attractors
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.solvers.reference import ReferenceSolver

SOON = 2.0
LONG = 20_000
IMAGES = np.random.default_rng(0).random((200, 100), dtype=np.float32)
pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="plain Python hears signals itself")


def loop(sizes=(100, 60, 60, 10), scale=20, **more):
    return fsp.loop_network(list(sizes), rng=0, loop_scale=scale, **more)


def relax(network, solver):
    return lambda: fsp.relax(network, IMAGES[:, : network.sizes[0]], solver=solver)


def simulate(network, duration=1e3, **how):
    images = IMAGES[:50, : network.sizes[0]]
    return lambda: fsp.simulate(network, images, [(duration, None)], **how)


RECIPROCAL = fsp.reciprocal_network([100, 60, 60, 10], rng=0, forward_scale=20, tied=False)
LASTING = {
    "passes": relax(loop(), FixedPointSolver(max_passes=LONG)),
    "reciprocal": relax(RECIPROCAL, FixedPointSolver(max_passes=LONG)),
    "passes in NumPy": relax(loop(), FixedPointSolver("picard", max_passes=LONG)),
    "integration": relax(loop(), NumbaSolver(max_steps=LONG)),
    "integration in one step size": relax(loop(), NumbaSolver(max_steps=LONG, steps="batch")),
    "NumPy": relax(loop(), ReferenceSolver(max_steps=LONG)),
    "a path": simulate(loop()),
    "a path in controlled steps": simulate(loop(), 1e5, rtol=1e-6, max_steps=10**6),
    "a path in NumPy": simulate(loop(), solver=ReferenceSolver("rk4", dt=0.05, max_steps=LONG)),
    "attractors": lambda: attractors(loop(), IMAGES[:1], starts=200, solver=NumbaSolver(max_steps=LONG)),
}


@pytest.mark.parametrize("what", LASTING)
def test_ctrl_c_is_answered(what) -> None:
    _compile()
    sent = []

    def kick() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, kick)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            LASTING[what]()
    finally:
        timer.cancel()
    assert time.monotonic() - sent[0] < SOON


def _compile() -> None:
    """The kernels of a hard sigmoid, in float32."""
    small, images = loop((4, 3, 2), 0.2), IMAGES[:1, :4]
    fsp.relax(small, images)
    fsp.simulate(small, images, [(1.0, None)])
    fsp.relax(small, images, solver="numba_ode")
    fsp.relax(fsp.reciprocal_network([4, 3, 2], rng=0), images)
