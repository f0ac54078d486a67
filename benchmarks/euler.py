"""Learning by explicit Euler steps, the simplest way to relax such a network, on our
own kernels.

The projected form of the loop with a hard sigmoid and time constants of 1, every layer at once:

    s_k <- clip(s_k + h (a_k - s_k - beta (s_k - d)), 0, 1)        the nudge on the output only

100 free steps from 0, 20 nudged ones from there for the samples whose output is not their target,
then eq. 14. The distance of the free states from equilibrium is reported with the time: ||clip(a) -
s||, as our own solver measures it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numba
import numpy as np

from benchmarks.twin import COLUMNS
from fsp_dynamics.kernels.panels import add_outer, aligned, multiply, padded, to_panels
from fsp_dynamics.kernels.team import Team, barrier, partition
from fsp_dynamics.models.network import Network

FREE, NUDGED, STEP = 100, 20, 0.5


@dataclass(frozen=True, slots=True)
class EulerReport:
    """One pass over some images: seconds, share of samples nudged, ||field|| at the end of the
    free phase (mean, largest).
    """

    seconds: float
    share: float
    residual: float
    residual_max: float


class Euler:
    """A loop network with weights in panels, a copy; beta = 1."""

    def __init__(self, network: Network, *, batch: int, rate: float = 1e-6) -> None:
        assert network.loop is not None
        assert all(tau == 1 for tau in network.time_constants)
        self.sizes, self.batch, self.rate = network.sizes, batch, rate
        self.weights = tuple(to_panels(w.astype(np.float32)) for w in (network.input, *network.forward, network.loop))
        self.biases = tuple(
            np.pad(b.astype(np.float32), (0, padded(b.size, np.float32) - b.size)) for b in network.biases
        )

    def learn(self, images: np.ndarray, labels: np.ndarray, order: np.ndarray, threads: int = 1) -> EulerReport:
        """One pass over the images in this order. images (B, n_0) float32, labels (B,) and order
        (B,) int64.
        """

        def scratch() -> tuple[np.ndarray, ...]:
            return tuple(aligned((self.batch, padded(n, np.float32)), np.float32) for n in self.sizes[1:])

        net = (
            self.weights,
            self.biases,
            scratch(),
            scratch(),
            scratch(),
            aligned((self.batch, padded(self.sizes[1], np.float32)), np.float32),
        )
        sums = np.zeros(3)
        with Team(threads) as team:
            rows = np.zeros((team.threads, 2, self.batch), np.int64)
            begin = time.perf_counter()
            team.run(
                _learn, images, labels, order, net, rows, self.sizes[-1], np.float32(STEP), np.float32(self.rate), sums
            )
            seconds = time.perf_counter() - begin
        return EulerReport(seconds, float(sums[0]) / len(order), float(sums[1]) / len(order), float(sums[2]))


jit = numba.njit(error_model="numpy", nogil=True)
ZERO, ONE = np.float32(0), np.float32(1)


@jit
def _learn(me, all, counters, images, labels, order, net, rows, classes, step, rate, sums):
    """Batch after batch: drive, free phase, nudged phase, update."""
    weights, biases, states, _, free, drive = net
    batch, last = rows.shape[2], len(biases) - 1
    for i in range(batch):
        rows[me, 0, i] = i
    for first in range(0, order.size, batch):
        samples = order[first : first + batch]
        every, m = rows[me, 0, : samples.size], samples.size
        begin, end = partition(weights[0].shape[0], me, all)
        multiply(images, samples, weights[0], drive, every, begin, end, False)
        for k in range(last + 1):
            low, high = partition(states[k].shape[1], me, all)
            for i in every:
                states[k][i, low:high] = ZERO
        barrier(all, counters)
        for _ in range(FREE):
            _step(me, all, counters, net, every, labels, samples, step, ZERO, classes)
        _inputs(me, all, net, every)
        barrier(all, counters)
        _add_residual(me, net, m, sums)
        active = 0
        for i in range(m):
            if _differs(states[last][i], labels[samples[i]], classes):
                rows[me, 1, active] = i
                active += 1
        for k in range(last + 1):
            low, high = partition(states[k].shape[1], me, all)
            for i in every:
                free[k][i, low:high] = states[k][i, low:high]
        if me == 0:
            sums[0] += active
        barrier(all, counters)
        if active:
            nudged = rows[me, 1, :active]
            for _ in range(NUDGED):
                _step(me, all, counters, net, nudged, labels, samples, step, ONE, classes)
            _update(me, all, counters, net, images, samples, nudged, rate / np.float32(m))
            barrier(all, counters)


@jit
def _inputs(me, all, net, rows):
    """The input of each layer, this thread's panels of each."""
    weights, biases, states, inputs, _, drive = net
    last = len(biases) - 1
    for k in range(last + 1):
        begin, end = partition(inputs[k].shape[1] // COLUMNS, me, all)
        low, high = COLUMNS * begin, COLUMNS * end
        for i in rows:
            for j in range(low, high):
                inputs[k][i, j] = biases[k][j] + (drive[i, j] if k == 0 else ZERO)
        if k == 0:
            multiply(states[last], rows, weights[last + 1], inputs[0], rows, begin, end, True)
        elif begin < end:
            multiply(states[k - 1], rows, weights[k], inputs[k], rows, begin, end, True)


@jit
def _step(me, all, counters, net, rows, labels, samples, step, beta, classes):
    """One Euler step of these rows, every layer from the states before it."""
    states, inputs = net[2], net[3]
    last = len(states) - 1
    _inputs(me, all, net, rows)
    barrier(all, counters)
    for k in range(last + 1):
        begin, end = partition(inputs[k].shape[1] // COLUMNS, me, all)
        for i in rows:
            s, a, label = states[k][i], inputs[k][i], labels[samples[i]]
            if k == last:  # padded columns have no input and stay 0
                for j in range(COLUMNS * begin, min(COLUMNS * end, classes)):
                    pull = beta * (s[j] - (ONE if j == label else ZERO))
                    s[j] = min(max(s[j] + step * (a[j] - s[j] - pull), ZERO), ONE)
            else:
                for j in range(COLUMNS * begin, COLUMNS * end):
                    s[j] = min(max(s[j] + step * (a[j] - s[j]), ZERO), ONE)
    barrier(all, counters)


@jit
def _update(me, all, counters, net, images, samples, rows, scale):
    """Eq. 14: W += scale rho(s_pre^0) (rho(s_post^beta) - rho(s_post^0)); the differences take the
    place of the inputs.
    """
    weights, biases, states, inputs, free, _ = net
    last = len(biases) - 1
    for k in range(last + 1):
        low, high = partition(inputs[k].shape[1], me, all)
        for i in rows:
            for j in range(low, high):
                inputs[k][i, j] = states[k][i, j] - free[k][i, j]
                biases[k][j] += scale * inputs[k][i, j]
    barrier(all, counters)
    for k in range(last + 1):
        begin, end = partition(weights[k].shape[0] * weights[k].shape[1], me, all)
        if k == 0:
            add_outer(images, samples[rows], inputs[0], rows, scale, weights[0], begin, end)
        else:
            add_outer(free[k - 1], rows, inputs[k], rows, scale, weights[k], begin, end)
    begin, end = partition(weights[last + 1].shape[0] * weights[last + 1].shape[1], me, all)
    add_outer(free[last], rows, inputs[0], rows, scale, weights[last + 1], begin, end)


@jit
def _add_residual(me, net, m, sums):
    """Add up ||clip(a) - s|| of the present states and inputs."""
    if me == 0:
        for i in range(m):
            total = 0.0
            for k in range(len(net[2])):
                s, a = net[2][k][i], net[3][k][i]
                for j in range(s.size):
                    total += np.float64(min(max(a[j], ZERO), ONE) - s[j]) ** 2
            sums[1] += np.sqrt(total)
            sums[2] = max(sums[2], np.sqrt(total))


@jit
def _differs(output, label, classes):
    different = False
    for j in range(classes):
        different |= output[j] != (ONE if j == label else ZERO)
    return different
