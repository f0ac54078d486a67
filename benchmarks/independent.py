"""Eq. 13 on its own: many small networks integrated side by side, in NumPy, with none of the
package's equations, kernels or solvers.

Each network is one dense matrix over all of its units, padded with silent units to the width of the
widest: W[i, j] from unit i to unit j, a = rho(s) W + c with the images in c, and

    ds/dt = rho'(s) a - s / r - beta (s - d)                    smooth rho: a logistic of slope g
    ds/dt = P(a - s / r - beta (s - d)), s kept in [0, 1]       hard sigmoid, projected
    ds/dt = kappa (clip((a + beta d) / kappa, 0, 1) - s)        hard sigmoid, the rate form

with kappa = 1/r + beta; P drops what points out of [0, 1] at a bound. Both forms of the hard
sigmoid have the same equilibria and the same Jacobian there, but not the same paths.

Steps are those of Dormand and Prince (5th order), each path on its own clock; stages and states are
clipped where the state is kept in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

Array = np.ndarray

# Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, table II.5.2
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
GAINS = {"logistic": 1.0, "shifted_tanh": 2.0, "hard_sigmoid": 0.0}


@dataclass(frozen=True, slots=True, eq=False)
class Systems:
    """B networks with D paths each; every array is (B, ...), and states are (B, D, N).

    W (B, N, N). kappa (B, 1, N). b (B, 1, N) : c + beta d; of a smooth rho (B, 2, N) : c, and
    beta d, which stands outside rho'. gain (B, 1, 1) : g of the smooth rho, 0 for the hard sigmoid;
    all B are smooth, or all are hard. stiff (B,) : about the norm of the Jacobian. units (B,) : how
    many of the N are no padding. rate : the rate form of the hard sigmoid.
    """

    W: Array
    b: Array
    kappa: Array
    gain: Array
    stiff: Array
    units: Array
    rate: bool = False

    @property
    def hard(self) -> bool:
        return not self.gain.any()

    @property
    def kept(self) -> bool:
        """Whether states are clipped to [0, 1]."""
        return self.hard and not self.rate

    def rows(self, index: Array) -> Systems:
        """Some of the networks."""
        parts = (
            self.W[index],
            self.b[index],
            self.kappa[index],
            self.gain[index],
            self.stiff[index],
            self.units[index],
        )
        return Systems(*parts, self.rate)

    def field(self, s: Array) -> Array:
        """ds/dt (B, D, N)."""
        if not self.hard:
            rho = expit(self.gain * s)
            return self.gain * rho * (1 - rho) * (rho @ self.W + self.b[:, :1]) + self.b[:, 1:] - self.kappa * s
        if self.rate:
            return self.kappa * (np.clip((np.clip(s, 0, 1) @ self.W + self.b) / self.kappa, 0, 1) - s)
        f = s @ self.W + self.b - self.kappa * s
        f[((s <= 0) & (f < 0)) | ((s >= 1) & (f > 0))] = 0
        return f

    def jacobian(self, s: Array) -> Array:
        """J[j, i] = d(ds_j/dt) / d s_i at the states s (B, N), (B, N, N). Units of a hard sigmoid
        are free where their input at equilibrium lies in [0, 1], the bounds included.
        """
        if self.hard:
            aim = (np.clip(s, 0, 1)[:, None] @ self.W + self.b) / self.kappa
            p = ((aim >= 0) & (aim <= 1))[:, 0].astype(float)
            decay = self.kappa[:, 0]
        else:
            g, rho = self.gain[:, 0], expit(self.gain[:, 0] * s)
            p = g * rho * (1 - rho)
            a = (rho[:, None] @ self.W)[:, 0] + self.b[:, 0]
            decay = self.kappa[:, 0] - g * p * (1 - 2 * rho) * a
        J = np.swapaxes(p[:, :, None] * self.W * p[:, None, :], 1, 2)
        units = np.arange(s.shape[1])
        J[:, units, units] -= decay
        return J


def assemble(cases: Sequence[Any], nudged: Sequence[bool], *, rate: bool = False) -> Systems:
    """The systems of these cases (their `network`, `images` of one sample, `beta` and `target`),
    each in its free phase or nudged. They must be all hard or all smooth.
    """
    sizes = [case.network.sizes[1:] for case in cases]
    width, batch = max(map(sum, sizes)), len(cases)
    hard = cases[0].network.rho.name == "hard_sigmoid"
    W, kappa = np.zeros((batch, width, width)), np.zeros((batch, 1, width))
    b, gain = np.zeros((batch, 1 if hard else 2, width)), np.zeros((batch, 1, 1))
    for row, (case, layers) in enumerate(zip(cases, sizes, strict=True)):
        network, ends = case.network, np.cumsum((0, *layers))
        gain[row] = GAINS[network.rho.name]
        place = [slice(ends[k], ends[k + 1]) for k in range(len(layers))]
        for k, weight in enumerate(network.forward):
            W[row, place[k], place[k + 1]] = weight
            if network.tied:
                W[row, place[k + 1], place[k]] = np.transpose(weight)
            elif network.backward is not None:
                W[row, place[k + 1], place[k]] = network.backward[k]
        if network.loop is not None:
            W[row, place[-1], place[0]] = network.loop
        b[row, 0, : ends[-1]] = np.concatenate(network.biases)
        b[row, 0, place[0]] += case.images[0] @ network.input
        for k, r in enumerate(network.time_constants):
            kappa[row, 0, place[k]] = 1 / r
        if nudged[row]:
            kappa[row, 0, place[-1]] += case.beta
            b[row, -1, place[-1]] += case.beta * case.target[0]
    kappa += (kappa == 0) * kappa.max(2, keepdims=True)  # silent units do not slow anything down
    stiff = np.linalg.norm(W, 2, axis=(1, 2)) * (1 if hard else (gain.max() / 4) ** 2)
    return Systems(W, b, kappa, gain, stiff + kappa.max((1, 2)), np.array([sum(layers) for layers in sizes]), rate)


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Where paths have come: states (B, D, N), time (B, D), and whether they are `done`, by the
    measure they were integrated under (B, D). steps (B, D) tried.
    """

    states: Array
    time: Array
    done: Array
    steps: Array


Measure = Callable[[Array, Array, Array], tuple[Array, Array]]
Watch = Callable[[Array, Array, Array, Array], None]


def integrate(
    systems: Systems,
    states: Array,
    until: Array,
    measure: Measure,
    *,
    tolerance: float = 1e-3,
    max_steps: int = 20_000,
    watch: Watch | None = None,
) -> Paths:
    """Follow the paths from `states` (B, D, N) to the times `until` (B,).

    measure(network numbers, s, f) -> (scale, done), both (b, D): a step's error is kept within
    `tolerance` times the scale, and a path that is done is not followed further. watch(network
    numbers, t, s, f) sees every step of the networks that are still followed. Where a path of a
    hard sigmoid meets a bound its steps are of first order only; they are never cut below what is
    exact enough there, 1/50 of the fastest time at a tolerance of 1e-3.
    """
    batch, number, _ = states.shape
    out = Paths(
        states.copy(), np.zeros((batch, number)), np.zeros((batch, number), bool), np.zeros((batch, number), int)
    )
    rows, s, t = np.arange(batch), states.copy(), np.zeros((batch, number))
    f = systems.field(s)
    h = np.repeat(0.1 / systems.stiff[:, None], number, 1)
    steps = np.zeros((batch, number), int)
    scale, done = measure(rows, s, f)
    floor = (0.02 * (tolerance / 1e-3) ** 0.5 if systems.hard else 1e-9) / systems.stiff[:, None]
    for _ in range(max_steps):
        going = ~done & (t < until[rows, None])
        alive = going.any(1)
        if not alive.all() and (alive.mean() < 0.8 or len(alive) < 8):
            _store(out, rows, s, t, done, steps)
            if not alive.any():
                return out
            rows, s, f, t, h, steps = (each[alive] for each in (rows, s, f, t, h, steps))
            scale, done, going, floor = scale[alive], done[alive], going[alive], floor[alive]
            systems = systems.rows(alive)
        h = np.minimum(h, np.maximum(until[rows, None] - t, 0))
        new, f_new, error = _step(systems, s, f, np.where(going, h, 0.0))
        ratio = error / (tolerance * scale + 1e-300)
        taken = going & ((ratio <= 1) | (h <= floor))
        s = np.where(taken[:, :, None], new, s)
        f = np.where(taken[:, :, None], f_new, f)
        t = np.where(taken, t + h, t)
        steps += going
        h = np.maximum(h * np.clip(0.9 * (ratio + 1e-10) ** -0.2, 0.2, 4.0), floor)
        scale, done = measure(rows, s, f)
        if watch is not None:
            watch(rows, t, s, f)
    _store(out, rows, s, t, done, steps)
    return out


def _store(out: Paths, rows: Array, s: Array, t: Array, done: Array, steps: Array) -> None:
    out.states[rows], out.time[rows], out.done[rows], out.steps[rows] = s, t, done, steps


def _step(systems: Systems, s: Array, f: Array, h: Array) -> tuple[Array, Array, Array]:
    """A step of length h (B, D) from s, where the field is f: the new state, the field there, and
    the error (B, D).
    """
    ks = np.empty((7, *s.shape))
    ks[0] = f * h[:, :, None]
    flat = ks.reshape(7, -1)
    for stage, row in enumerate(STAGES, 1):
        new = s + (np.array(row) @ flat[:stage]).reshape(s.shape)
        if systems.kept:
            np.clip(new, 0, 1, out=new)
        f_new = systems.field(new)
        np.multiply(f_new, h[:, :, None], out=ks[stage])
    other = s + (np.array(FOURTH) @ flat).reshape(s.shape)
    if systems.kept:
        np.clip(other, 0, 1, out=other)
    error = new - other
    return new, f_new, np.sqrt(np.einsum("bdn,bdn->bd", error, error))
