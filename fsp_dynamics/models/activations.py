"""Firing-rate functions rho(s) and their slopes, each one line in operators that NumPy, Numba and
torch take.

================  =================  =============================================================
name              rho(s)             choose it for
================  =================  =============================================================
``hard_sigmoid``  clip(s, 0, 1)      the networks of the paper (the default): piecewise linear
``logistic``      1 / (1 + exp(-s))  a smooth field (adaptive steps, bifurcations)
``shifted_tanh``  (1 + tanh s) / 2   the same, twice as steep
================  =================  =============================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fsp_dynamics.errors import ConfigurationError, check_choice


def hard_sigmoid(s: Any) -> Any:
    """rho(s) = clip(s, 0, 1); NaN stays NaN.

    Returns
    -------
    array : of the shape of `s`, in [0, 1].

    >>> import numpy as np
    >>> hard_sigmoid(np.array([-0.5, 0.25, 2.0])).tolist()
    [0.0, 0.25, 1.0]
    """
    return s * ((s > 0) & (s < 1)) + (s >= 1)


def hard_sigmoid_slope(s: Any) -> Any:
    """rho'(s) = 1 on the CLOSED interval [0, 1], else 0: with an open one a unit at 0 would stay
    there whatever its input.
    """
    return ((s >= 0) & (s <= 1)) + 0 * s


def logistic(s: Any) -> Any:
    """rho(s) = 1 / (1 + exp(-s)), written with exp(-|s|) so that it cannot overflow.

    Returns
    -------
    array : of the shape of `s`, in [0, 1].

    >>> import numpy as np
    >>> logistic(np.array([-1.0, 0.0, 1.0])).round(3).tolist()
    [0.269, 0.5, 0.731]
    """
    return ((s >= 0) + (s < 0) * math.e ** -abs(s)) / (1 + math.e ** -abs(s))


def logistic_slope(s: Any) -> Any:
    """rho'(s) = rho(s) (1 - rho(s)) = exp(-|s|) / (1 + exp(-|s|))^2."""
    return math.e ** -abs(s) / (1 + math.e ** -abs(s)) ** 2


def logistic_curvature(s: Any) -> Any:
    """rho''(s) = rho'(s) (1 - 2 rho(s))."""
    return logistic_slope(s) * (1 - 2 * logistic(s))


def shifted_tanh(s: Any) -> Any:
    """rho(s) = (1 + tanh s) / 2, which is the logistic of 2 s.

    Returns
    -------
    array : of the shape of `s`, in [0, 1].

    >>> import numpy as np
    >>> shifted_tanh(np.array([-1.0, 0.0, 1.0])).round(3).tolist()
    [0.119, 0.5, 0.881]
    """
    return ((s >= 0) + (s < 0) * math.e ** (-2 * abs(s))) / (1 + math.e ** (-2 * abs(s)))


def shifted_tanh_slope(s: Any) -> Any:
    """rho'(s) = (1 - tanh(s)^2) / 2 = 2 exp(-2|s|) / (1 + exp(-2|s|))^2."""
    return 2 * math.e ** (-2 * abs(s)) / (1 + math.e ** (-2 * abs(s))) ** 2


def shifted_tanh_curvature(s: Any) -> Any:
    """rho''(s) = 2 rho'(s) (1 - 2 rho(s))."""
    return 2 * shifted_tanh_slope(s) * (1 - 2 * shifted_tanh(s))


@dataclass(frozen=True, slots=True)
class Activation:
    """One firing-rate function: its rate rho(s), its slope rho'(s), and whether the state is kept
    in [0, 1].

    ``projected`` is true for the hard sigmoid alone: its states are clipped to [0, 1] after every
    step (the projected system of the original equilibrium propagation), and its equilibria have
    the closed form clip(a / leak). ``curvature`` is rho''(s); gradients and spectra of smooth
    networks need it, and tests of stability are more exact with it. ``bounds`` are the largest
    rho' and |rho''|, of a rho with values in [0, 1]; where they are known, some networks are known
    to be stable without a test.

    >>> import fsp_dynamics as fsp
    >>> softsign = fsp.Activation(
    ...     "softsign", lambda s: 0.5 + 0.5 * s / (1 + abs(s)), lambda s: 0.5 / (1 + abs(s)) ** 2
    ... )
    >>> softsign.rate(1.0), softsign.slope(1.0)
    (0.75, 0.125)
    >>> fsp.loop_network([4, 8, 3], rho=softsign)
    <Network 4-8-3, loop, softsign, float32>
    """

    name: str
    rate: Callable[[Any], Any]
    slope: Callable[[Any], Any]
    projected: bool = False
    curvature: Callable[[Any], Any] | None = None
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a projected rate other than the hard sigmoid."""
        for s in (-1.0, 0.0, 0.25, 0.75, 1.0, 2.0) if self.projected else ():
            if self.rate(s) != min(max(s, 0.0), 1.0):
                raise ConfigurationError(
                    f"projected is true of the hard sigmoid alone, but rate({s}) of {self.name!r} is {self.rate(s)}, "
                    f"expected {min(max(s, 0.0), 1.0)}; leave projected out"
                )

    def __repr__(self) -> str:
        projected = ", states kept in [0, 1]" if self.projected else ""
        return f"<Activation {self.name}{projected}>"


ACTIVATIONS = {
    "hard_sigmoid": Activation("hard_sigmoid", hard_sigmoid, hard_sigmoid_slope, projected=True),
    "logistic": Activation(
        "logistic", logistic, logistic_slope, curvature=logistic_curvature, bounds=(1 / 4, 3**0.5 / 18)
    ),
    "shifted_tanh": Activation(
        "shifted_tanh",
        shifted_tanh,
        shifted_tanh_slope,
        curvature=shifted_tanh_curvature,
        bounds=(1 / 2, 2 * 3**0.5 / 9),
    ),
}


def activation(rho: str | Activation) -> Activation:
    """The activation of that name, or `rho` itself. Raises ConfigurationError, offering the
    nearest name.

    Returns
    -------
    Activation : that of the table above, or the one that was given.

    >>> activation("logistic")
    <Activation logistic>
    """
    return rho if isinstance(rho, Activation) else ACTIVATIONS[check_choice("rho", rho, ACTIVATIONS)]
