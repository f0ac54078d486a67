"""Explicit Runge-Kutta methods as data (Butcher tableaux): a new method costs one entry.

==========  =====  ======  ==============  =======================================================
name        order  stages  error estimate  use
==========  =====  ======  ==============  =======================================================
``euler``     1      1     none            the paper's plain iteration; constant steps only
``heun``      2      2     with Euler      a step size control simple enough to follow by hand
``rk4``       4      4     none            smooth paths with constant steps
``bosh3``     3      4     order 2 (FSAL)  controlled steps, path with kinks (Bogacki-Shampine)
``dopri5``    5      7     order 4 (FSAL)  controlled steps, smooth path (Dormand-Prince); default
==========  =====  ======  ==============  =======================================================

At a kink of the hard sigmoid every method has order 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsp_dynamics.arrays import Array

Row = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Tableau:
    """One explicit method, k_i = f(s + h sum_j a[i][j] k_j), s <- s + h sum_i b[i] k_i.

    a : stage i has the i weights of the stages before it.
    b, c : weights of the step; times of the stages in units of h.
    error : b minus the weights of the embedded method of order `order` - 1, or None where there is
        none.
    order : the local error of the step is O(h^(order + 1)).
    fsal : the last stage is the first of the next step.
    middle : s + h sum_i middle[i] k_i approximates the state half-way through the step to order 4;
        None where there are no such weights.

    >>> rk4 = TABLEAUX["rk4"]
    >>> rk4.order, len(rk4.b), rk4.error is None
    (4, 4, True)
    >>> rk4.amplification.round(4).tolist()
    [1.0, 1.0, 0.5, 0.1667, 0.0417]
    """

    name: str
    a: tuple[Row, ...]
    b: Row
    c: Row
    error: Row | None
    order: int
    fsal: bool = False
    middle: Row | None = None

    @property
    def amplification(self) -> Array:
        """c_0 = 1, c_i = b^T A^(i-1) 1: the coefficients of R(z) = sum_i c_i z^i, by which one step
        multiplies a mode of eigenvalue z / h; without trailing zeros.
        """
        stages = len(self.b)
        A, c, power = np.zeros((stages, stages)), [1.0], np.ones(stages)
        for i, row in enumerate(self.a):
            A[i, : len(row)] = row
        for _ in range(stages):
            c.append(float(np.array(self.b) @ power))
            power = A @ power
        return np.trim_zeros(np.where(np.abs(c) < 1e-14, 0, c), "b")


EULER = Tableau("euler", a=((),), b=(1.0,), c=(0.0,), error=None, order=1)

HEUN = Tableau("heun", a=((), (1.0,)), b=(1 / 2, 1 / 2), c=(0.0, 1.0), error=(-1 / 2, 1 / 2), order=2)

RK4 = Tableau(
    "rk4",
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    error=None,
    order=4,
)

BOSH3 = Tableau(
    "bosh3",
    a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0.0),
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    error=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    order=3,
    fsal=True,
)

DOPRI5 = Tableau(
    "dopri5",
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    order=5,
    fsal=True,
    middle=(  # L. F. Shampine, "Some practical Runge-Kutta formulas", Mathematics of Computation 46, 1986
        6025192743 / 60171106304,
        0.0,
        51252292925 / 130801643196,
        -2691868925 / 90256659456,
        187940372067 / 3189068634112,
        -1776094331 / 39487288512,
        11237099 / 470086768,
    ),
)

TABLEAUX = {tableau.name: tableau for tableau in (EULER, HEUN, RK4, BOSH3, DOPRI5)}
