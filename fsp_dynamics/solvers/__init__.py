"""How a network converges: one protocol (`equilibrium.Solver`), several solvers.

=====================  =================================================================
solver                 choose it when
=====================  =================================================================
``fixed_point``        only the equilibrium matters (training): a few passes, no time axis
``numba_ode``          the path in time matters, or passes do not converge; compiled
``reference``          you want to read, extend or check: the same methods in plain NumPy
``torch_fixed_point``  the same passes on torch tensors, on a GPU where there is one
``torch_ode``          torchdiffeq's methods, implicit ones among them, on any device
=====================  =================================================================
"""

from __future__ import annotations

import inspect
from typing import Any

from fsp_dynamics.errors import ConfigurationError, check_choice, nearest
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, drive_of_each
from fsp_dynamics.settings import imported
from fsp_dynamics.solvers.equilibrium import Equilibrium, Solver, Tolerance, state_of
from fsp_dynamics.solvers.stability import certified

SOLVERS = {
    "fixed_point": "fsp_dynamics.solvers.fixed_point:FixedPointSolver",
    "numba_ode": "fsp_dynamics.solvers.numba_ode:NumbaSolver",
    "reference": "fsp_dynamics.solvers.reference:ReferenceSolver",
    "torch_fixed_point": "fsp_dynamics.torch_backend.fixed_point:TorchFixedPointSolver",
    "torch_ode": "fsp_dynamics.torch_backend.ode:TorchSolver",
}
"""The solvers by name, as import strings "module:class": each is imported when it is made. A class
with the method `relax` of `equilibrium.Solver`, whose parameters are its settings, becomes a
solver by one line here.
"""
PRODUCTS = ("bf16", "full", "tf32")
"""Precision of the factors of torch's products with weights (torch_backend/products.py), for
modules that must not import torch.
"""


def make_solver(name: str = "fixed_point", **settings: Any) -> Solver:
    """The solver of that name with these settings, the parameters of its class.

    A fixed-point solver made here integrates, with `NumbaSolver`, the samples whose passes do not
    converge; give ``fallback=None`` to leave them. Raises ConfigurationError for unknown names or
    settings, offering the nearest.

    Returns
    -------
    Solver : with `relax`; one that integrates in time has `follow` too.

    >>> make_solver("reference", method="rk4", dt=0.1).method
    'rk4'
    """
    module, _, class_name = SOLVERS[check_choice("solver", name, SOLVERS)].partition(":")
    kind = getattr(imported(module), class_name)
    known = list(inspect.signature(kind).parameters)
    for key in settings:
        if key not in known:
            raise ConfigurationError(f"solver {name!r} has no setting {key!r}; {nearest(key, known)}")
    if "fallback" in known:
        settings.setdefault("fallback", make_solver("numba_ode"))
    solver: Solver = kind(**settings)
    return solver


def relax(
    network: Network,
    images: Array,
    *,
    nudge: Nudge | None = None,
    start: Equilibrium | State | None = None,
    solver: Solver | str | None = None,
    tolerance: Tolerance | None = None,
    certify: bool = False,
) -> Equilibrium:
    """The equilibria of the network on these images: of the free phase, or with `nudge` of the
    nudged one.

    Parameters
    ----------
    images : (B, n_in), numbers in [0, 1]: arrays, lists, data frames or tensors.
    nudge : None, or `Nudge(beta, target)`.
    start : an equilibrium, a trajectory (its end) or a state to start from; zeros if None.
    solver : a solver or the name of one; `make_solver()` if None.
    tolerance : when a sample has converged; `Tolerance.default` of the network's dtype if None, and
        never below its rounding.
    certify : compute `Equilibrium.abscissa` too, the certificate that each equilibrium is stable.

    Raises ShapeError, NotFiniteError and ConfigurationError for unusable input; warns
    (DataWarning) of images far outside [0, 1]. Samples that do not converge are reported in
    `status`; `Equilibrium.require_converged` raises for them.

    Returns
    -------
    Equilibrium : state, L arrays (B, n_k); residual, status and steps (B,).

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> free = fsp.relax(network, images)
    >>> nudged = fsp.relax(network, images, nudge=fsp.Nudge(1.0, np.eye(3)[[0, 1]]), start=free)
    >>> free.output.shape, free.converged.tolist(), nudged.beta
    ((2, 3), [True, True], 1.0)
    >>> bool(np.abs(nudged.output - free.output).max() > 0.01)
    True
    """
    if tolerance is not None and not isinstance(tolerance, Tolerance):
        raise ConfigurationError(f"tolerance = {tolerance!r}, expected Tolerance(absolute, relative)")
    if not isinstance(nudge, Nudge | None):
        raise ConfigurationError(f"nudge is of type {type(nudge).__name__}, expected Nudge(beta, target) or None")
    if isinstance(solver, type) or not isinstance(solver, Solver | str | None):
        raise ConfigurationError(f"solver = {solver!r}, expected a solver, its name or None")
    if not isinstance(solver, Solver):
        solver = make_solver() if solver is None else make_solver(solver)
    if tolerance is not None:
        tolerance = tolerance.attainable(network.dtype, sum(network.sizes[1:]))
    constant = drive_of_each(network, images)
    state = None if start is None else state_of(network, start, len(constant))
    found = solver.relax(network, constant, state, nudge, tolerance)
    return certified(network, found, nudge, constant) if certify else found
