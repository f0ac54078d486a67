"""One pass around a network: from the states of the cut to all other layers and back to the fixed
point of the cut with these as input.

Products are those of kernels/panels.py, in which a row has the same bits beside any others: whether
a sample converges, and where, does not depend on the rest of its batch.
"""

from __future__ import annotations

import numpy as np

from fsp_dynamics.kernels.loop_products import times
from fsp_dynamics.kernels.panels import padded, to_panels
from fsp_dynamics.kernels.units import settle_kernel
from fsp_dynamics.models.network import Array, Network, cut_layers
from fsp_dynamics.models.rate import Nudge, State, beta_of, unit_field


class CutPasses:
    """The samples that are still running, packed in the first rows of buffers made once, and the
    pass that changes them.

    rows (A,) sample numbers; y (A, n_cut) the states of the cut, side by side.
    """

    def __init__(self, network: Network, drive: Array, start: State, nudge: Nudge | None, norms: bool = True) -> None:
        self.network, self._norms = network, norms
        self.rows = np.arange(len(drive))
        self._cut = cut_layers(network)
        self._sizes = network.sizes[1:]
        self._inner = tuple(k for k in range(network.depth) if k not in self._cut)
        self.y = np.concatenate([start[k] for k in self._cut], axis=1, dtype=network.dtype)
        self._drive = drive.astype(network.dtype, copy=False)
        self._beta = beta_of(nudge)
        self._d = np.zeros((0, 0), network.dtype) if nudge is None else nudge.target.astype(network.dtype, copy=False)
        # the drive contains the first bias
        self._biases = (np.zeros(network.sizes[1], network.dtype), *network.biases[1:])
        self._incoming = [
            [(c.pre, to_panels(c.weight)) for c in network.connections() if c.post == k] for k in range(network.depth)
        ]
        self._settle = settle_kernel(network.rho.rate, network.rho.slope, network.rho.projected)
        self._inputs = [np.empty((len(drive), n), network.dtype) for n in network.sizes[1:]]
        self._products = [np.empty((len(drive), padded(n, network.dtype)), network.dtype) for n in network.sizes[1:]]
        # the root of a smooth unit is sought from its last state
        self._states = [np.array(s, network.dtype, order="C") for s in start]
        self._rates = self._states if network.rho.projected else [np.empty_like(s) for s in self._states]

    def run(self, given: bool = False) -> tuple[Array, Array, Array]:
        """T(y) (A, n_cut), the residual (A,) and ||state|| (A,) of the present rows (zeros without
        `norms`).

        The layers outside the cut follow from y; with `given` they are taken as they are (the
        start, before any pass).
        """
        count = len(self.rows)
        self._place_cut(count)
        if given and not self.network.rho.projected:
            for k in self._inner:
                self._rates[k][:count] = self.network.rho.rate(self._states[k][:count])
        for k in self._inner:
            self._input(k, count)
            if not given:
                self._settle_layer(k, count, self._states[k][:count], self._rates[k][:count])
        target = self._cut_target(count)
        measured = range(self.network.depth) if given or not self.network.rho.projected else self._cut
        squares = np.zeros(count)
        for k in measured:
            way = self._way(k, count, target)
            squares += np.einsum("ij,ij->i", way, way, dtype=np.float64)
        norms = np.zeros(count)
        for s in self.state() if self._norms else ():
            norms += np.einsum("ij,ij->i", s, s)
        return target, np.sqrt(squares), np.sqrt(norms)

    def state(self) -> State:
        """Every layer of the present rows, views (A, n_k)."""
        return tuple(s[: len(self.rows)] for s in self._states)

    def keep(self, mask: Array) -> None:
        """Keep only these rows."""
        if mask.all():
            return
        for array in self._states:
            array[: int(mask.sum())] = array[: len(mask)][mask]
        self.rows, self.y, self._drive = self.rows[mask], self.y[mask], self._drive[mask]
        if self._beta != 0:
            self._d = self._d[mask]

    def _place_cut(self, count: int) -> None:
        """Split y into the layers of the cut, with their rates."""
        end = 0
        for k in self._cut:
            begin, end = end, end + self._sizes[k]
            self._states[k][:count] = self.y[:, begin:end]
            if not self.network.rho.projected:
                self._rates[k][:count] = self.network.rho.rate(self.y[:, begin:end])

    def _input(self, k: int, count: int) -> None:
        """The drive and the weighted rates that enter layer k (its bias is added later)."""
        a, everyone = self._inputs[k][:count], np.arange(count)
        a[:] = self._drive if k == 0 else 0
        for pre, weight in self._incoming[k]:
            times(self._rates[pre], everyone, weight, self._products[k])
            a += self._products[k][:count, : a.shape[1]]

    def _settle_layer(self, k: int, count: int, s: Array, rates: Array) -> None:
        beta, d = self._nudge_of(k)
        self._settle(self._inputs[k][:count], self._biases[k], s, 1 / self.network.time_constants[k], beta, d, rates)

    def _cut_target(self, count: int) -> Array:
        """T(y): the fixed points of the layers of the cut."""
        parts = []
        for k in self._cut:
            self._input(k, count)
            part = self._states[k][:count].copy()
            self._settle_layer(k, count, part, np.empty_like(part))
            parts.append(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _way(self, k: int, count: int, target: Array) -> Array:
        """How far the units of layer k would move under constant input (A, n_k), as in
        `rate.residual`.
        """
        leak, s = 1 / self.network.time_constants[k], self._states[k][:count]
        beta, d = self._nudge_of(k)
        if not self.network.rho.projected:
            a = self._inputs[k][:count] + self._biases[k]
            field: Array = unit_field(s, a, self.network.rho.slope(s), leak, beta, d if beta else 0.0)
            return field / (leak + beta)
        if k in self._cut:
            begin = sum(self._sizes[c] for c in self._cut if c < k)
            rest = target[:, begin : begin + self._sizes[k]]
        else:
            rest = np.empty_like(s)
            self._settle_layer(k, count, rest, rest)
        return rest - s

    def _nudge_of(self, k: int) -> tuple[float, Array]:
        output = k == self.network.depth - 1
        return (self._beta, self._d) if output else (0.0, self._d[:0])
