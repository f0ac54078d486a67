"""Shared by all integrators of a network: checks of their settings, step control, inputs in one
precision.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fsp_dynamics.display import brief
from fsp_dynamics.errors import ConfigurationError, check_choice, check_positive
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import Nudge, State, decay_rates, flatten
from fsp_dynamics.solvers.tableaux import TABLEAUX, Tableau

FORMS = ("projected", "rate")
# error allowed in one step of a relaxation, relative to the residual
MOTION = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class IntegrationResult:
    """A path and its cost: states (T, B, N) at the saved times; steps (B,) tried by each
    sample; fields (B,) evaluated for it.
    """

    states: Array
    steps: Array
    fields: Array

    def __repr__(self) -> str:
        return brief(self)


def check_settings(
    method: str,
    dt: float | None,
    max_steps: int,
    form: str | None,
    rtol: float | None = None,
    atol: float | None = None,
) -> Tableau:
    """The tableau of `method`, if the settings fit each other. Raises ConfigurationError."""
    tableau = TABLEAUX[check_choice("method", method, TABLEAUX)]
    if form is not None:
        check_choice("form", form, FORMS)
    if dt is not None:
        check_positive("dt", dt)
    elif tableau.error is None:
        able = ", ".join(t.name for t in TABLEAUX.values() if t.error is not None)
        raise ConfigurationError(
            f"method = {method!r} estimates no error to control its step by; give dt, or take one of: {able}"
        )
    if check_positive("max_steps", max_steps) != int(max_steps):
        raise ConfigurationError(f"max_steps = {max_steps!r}, expected a whole number")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not (isinstance(value, int | float | np.number) and np.isfinite(value) and value >= 0):
            raise ConfigurationError(f"{name} = {value!r}, expected a finite number, 0 or more")
        if value is not None and dt is not None:
            raise ConfigurationError(
                f"{name} = {value!r} with dt = {dt!r}, but constant steps estimate no error; leave out one of them"
            )
    if rtol == 0 and not atol:
        raise ConfigurationError(
            f"rtol = {rtol!r} with atol = {atol!r} allows no error at all; give one of them a positive value"
        )
    return tableau


def accuracy(dtype: npt.DTypeLike, rtol: float | None, atol: float | None) -> tuple[float, float]:
    """(rtol, atol) of a path: 1e-9 (float32: 1e-6) where rtol is None, rtol where atol is. Raises
    ConfigurationError for less than rounding.
    """
    dtype = np.dtype(dtype)
    rtol = (1e-6 if dtype == np.float32 else 1e-9) if rtol is None else float(rtol)
    atol = rtol if atol is None else float(atol)
    least = 2 * float(np.finfo(dtype).eps)
    if rtol + atol < least:
        raise ConfigurationError(
            f"rtol = {rtol:g} with atol = {atol:g} is below the rounding of {dtype}, "
            f"expected at least {least:.1g} in sum"
        )
    return rtol, atol


def uncompilable(network: Network, error: Exception) -> ConfigurationError:
    """The error for an activation that Numba cannot compile."""
    reason = str(error).strip().splitlines()[-1]
    return ConfigurationError(
        f"rho = {network.rho.name!r} cannot be compiled by Numba ({reason}); write rate and slope as one line of "
        "operators each, or use the solver 'reference'"
    )


def longest_step(network: Network, nudge: Nudge | None) -> float:
    """1 / (largest leak + beta): one fastest time constant."""
    return 1 / max(decay_rates(network, nudge))


def in_precision(
    network: Network, drive: Array, start: State, nudge: Nudge | None
) -> tuple[Array, Array, Nudge | None]:
    """Drive, a fresh flat state (B, N) in C order and the nudge in the network's dtype."""
    if nudge is not None:
        nudge = Nudge(float(nudge.beta), np.asarray(nudge.target, network.dtype))
    return np.asarray(drive, network.dtype), flatten(start).astype(network.dtype, order="C"), nudge


def check_times(times: Array) -> Array:
    """`times` as float64. Raises ConfigurationError unless they are finite and increase."""
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise ConfigurationError(
            f"times has shape {times.shape}, expected one axis of finite numbers, each above the one before it"
        )
    return times


def equal_steps(durations: Array, dt: float, max_steps: int) -> Array:
    """How many equal steps of at most dt fill each of the durations, to one part in 1e9
    (rounding). Raises ConfigurationError for more than max_steps.
    """
    counts = np.maximum(1, np.ceil(durations / dt * (1 - 1e-9)))
    if counts.size and counts.max() > max_steps:
        raise ConfigurationError(
            f"{counts.max():.6g} steps of dt = {dt:.3g} lie between two of the times, expected at most max_steps = "
            f"{max_steps:,}; follow a shorter time, save more often, take longer steps (dt) or allow more (max_steps)"
        )
    return counts.astype(np.int64)


def warn_of_late(late: Array, max_steps: int) -> None:
    """Warn of the samples that were `late` (B,): whose controlled steps did not suffice."""
    if late.any():
        warnings.warn(
            f"{int(late.sum())} of {late.size} samples needed more than {max_steps:,} steps between two of the times "
            "and are NaN from there on; save more often, or allow more (max_steps)",
            UserWarning,
            stacklevel=3,
        )
