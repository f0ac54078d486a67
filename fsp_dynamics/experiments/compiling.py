"""The kernels compiled beforehand: in a process of its own, so that the waiting one stays
responsive, and then loaded from the cache on disk.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from fsp_dynamics.learning.simulation import simulate
from fsp_dynamics.models import rate
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.network import Network
from fsp_dynamics.models.rate import Nudge
from fsp_dynamics.solvers.fixed_point import FixedPointSolver


def compile_aside(network: Network) -> None:
    """`compile_for`, by another process first: here it then takes a moment. Only for the
    activations of this package.

    If that process fails, this one compiles, which takes as long and blocks the interpreter.
    """
    dtype, loop = str(network.dtype), network.loop is not None
    call = f"compile_for({network.rho.name!r}, {loop}, {dtype!r})"
    code = f"from fsp_dynamics.experiments.compiling import compile_for; {call}"
    subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    compile_for(network.rho, loop, dtype)


def compile_for(rho: Activation | str, loop: bool, dtype: str) -> None:
    """Follow and relax a tiny network of that kind, which compiles or loads the kernels that any
    such network needs.
    """
    make = loop_network if loop else reciprocal_network
    network, images = make([2, 3, 2], rho=rho, dtype=dtype, rng=0), np.ones((1, 2))
    nudge = Nudge(1.0, np.eye(2)[[0]])
    simulate(network, images, [(1.0, None), (1.0, nudge)], solver="rk4", dt=0.5)
    FixedPointSolver().relax(network, rate.drive(network, images), None, nudge)
