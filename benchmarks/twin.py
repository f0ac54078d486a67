"""Backpropagation written on our own kernels: the cost of the same products without relaxation.

ReLU hidden layers, softmax and cross-entropy, plain SGD on the batch mean; weights in panels, one
compiled loop over the batches, panels partitioned among threads; pixels that are 0 cost nothing, as
in our own training. Per batch, with h_0 the images and e = softmax(a_L) - target:

    a_k = h_k-1 W_k + b_k,  h_k = max(a_k, 0)
    d_L = e,  d_k = (d_k+1 W_k+1^T) [h_k > 0]
    W_k -= lr/B h_k-1^T d_k,  b_k -= lr/B sum d_k

Skipping: samples with ||e|| <= `skip` are not backpropagated. Our own training skips a sample whose
output equals its target, where its update is exactly 0; but it computes outputs only to the
tolerance of its solver (1e-4 in the presets). A softmax is almost never exactly right in float32,
so the closest counterpart of our skipping is ||e|| <= that tolerance. With skip = 0 a sample is
left out only if e is exactly 0, which changes nothing; with a negative skip all are backpropagated.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from fsp_dynamics.kernels.panels import (
    USED_ROWS,
    add_outer,
    add_outer_used,
    aligned,
    find_used,
    from_panels,
    multiply,
    multiply_transposed,
    multiply_used,
    padded,
    to_panels,
)
from fsp_dynamics.kernels.team import Team, barrier, partition
from fsp_dynamics.kernels.tiles import OUTER_ROWS

COLUMNS = 16


class Twin:
    """A network of ReLU layers with weights in panels, initialised as in PyTorch, and its
    training.
    """

    def __init__(
        self, sizes: Sequence[int], *, batch: int, rate: float = 0.05, skip: float = -1.0, rng: Any = None
    ) -> None:
        rng, self.sizes, self.batch, self.rate, self.skip = np.random.default_rng(rng), tuple(sizes), batch, rate, skip
        pairs = list(itertools.pairwise(sizes))
        self.weights = tuple(
            to_panels((rng.uniform(-1, 1, pair) / np.sqrt(pair[0])).astype(np.float32)) for pair in pairs
        )
        self.biases = tuple(_row(rng.uniform(-1, 1, post) / np.sqrt(pre)) for pre, post in pairs)

    def copy(self) -> Twin:
        """Another of the same weights, aligned like these."""
        other = copy.copy(self)
        other.weights, other.biases = (
            tuple(aligned(w.shape, w.dtype) for w in self.weights),
            tuple(b.copy() for b in self.biases),
        )
        for mine, its in zip(self.weights, other.weights, strict=True):
            its[:] = mine
        return other

    def matrices(self) -> list[np.ndarray]:
        """The weights as (n_k-1, n_k) matrices, copies."""
        found = [np.empty(pair, np.float32) for pair in itertools.pairwise(self.sizes)]
        for panels, matrix in zip(self.weights, found, strict=True):
            from_panels(panels, matrix)
        return found

    def learn(self, images: np.ndarray, labels: np.ndarray, order: np.ndarray, threads: int = 1) -> tuple[float, float]:
        """(seconds, fraction of samples backpropagated) of one pass over the images in this order.

        images (B, n_0) float32, labels (B,) and order (B,) int64.
        """
        layers = tuple(aligned((self.batch, padded(n, np.float32)), np.float32) for n in self.sizes[1:])
        errors = tuple(np.zeros_like(layer) for layer in layers)
        with Team(threads) as team:
            rows, carried = np.zeros((team.threads, 2, self.batch), np.int64), np.zeros(1, np.int64)
            tiles = -(-self.batch // USED_ROWS)
            pixels = np.zeros((team.threads, tiles, self.sizes[0]), np.int64), np.zeros((team.threads, tiles), np.int64)
            begin = time.perf_counter()
            net = (self.weights, self.biases, layers, errors)
            team.run(
                _learn,
                images,
                labels,
                order,
                net,
                rows,
                pixels,
                self.sizes[-1],
                np.float32(self.rate),
                np.float32(self.skip),
                carried,
            )
            return time.perf_counter() - begin, int(carried[0]) / len(order)


def _row(values: np.ndarray) -> np.ndarray:
    row = np.zeros(padded(values.size, np.float32), np.float32)
    row[: values.size] = values
    return row


jit = numba.njit(error_model="numpy", nogil=True)


@jit
def _learn(me, all, counters, images, labels, order, net, rows, pixels, classes, rate, skip, carried):
    """Batch after batch, as thread `me` of `all`; rows[me] is its scratch: all rows of a batch,
    then those carried backwards.
    """
    batch = rows.shape[2]
    for i in range(batch):
        rows[me, 0, i] = i
    for first in range(0, order.size, batch):
        samples = order[first : first + batch]
        m = samples.size
        _forward(me, all, counters, images, samples, net, rows[me, 0, :m], pixels[0][me], pixels[1][me])
        _output_errors(me, all, labels, samples, net, classes)
        barrier(all, counters)
        active = 0
        for i in range(m):
            if _norm(net[3][-1][i]) > skip:
                rows[me, 1, active] = i
                active += 1
        if me == 0:
            carried[0] += active
        if active:
            _backward(
                me,
                all,
                counters,
                images,
                samples,
                net,
                rows[me, 1, :active],
                -rate / np.float32(m),
                pixels[0][me],
                pixels[1][me],
            )
        barrier(all, counters)


@jit
def _forward(me, all, counters, images, samples, net, rows, used, counts):
    """Layer after layer, this thread's panels of each, and its rows of the output."""
    weights, biases, layers, _ = net
    last = len(weights) - 1
    for k in range(last):
        begin, end = partition(weights[k].shape[0], me, all)
        if k == 0:
            find_used(images, samples, weights[0].shape[1], USED_ROWS, used, counts)
            multiply_used(images, samples, weights[0], layers[0], rows, begin, end, used, counts)
        else:
            multiply(layers[k - 1], rows, weights[k], layers[k], rows, begin, end, False)
        for i in range(rows.size):
            for j in range(COLUMNS * begin, COLUMNS * end):
                layers[k][i, j] = max(layers[k][i, j] + biases[k][j], np.float32(0))
        barrier(all, counters)
    begin, end = partition(rows.size, me, all)
    multiply(
        layers[last - 1],
        rows[begin:end],
        weights[last],
        layers[last],
        rows[begin:end],
        0,
        weights[last].shape[0],
        False,
    )


@jit
def _output_errors(me, all, labels, samples, net, classes):
    """softmax(a + b) - target, of this thread's rows."""
    _, biases, layers, errors = net
    bias, out, error = biases[-1], layers[-1], errors[-1]
    begin, end = partition(samples.size, me, all)
    for i in range(begin, end):
        most = -np.float32(np.inf)
        for j in range(classes):
            out[i, j] += bias[j]
            most = max(most, out[i, j])
        total = np.float32(0)
        for j in range(classes):
            error[i, j] = np.exp(out[i, j] - most)
            total += error[i, j]
        for j in range(classes):
            error[i, j] /= total
        error[i, labels[samples[i]]] -= np.float32(1)


@jit
def _backward(me, all, counters, images, samples, net, rows, scale, used, counts):
    """Backpropagate errors and apply gradients, from the output on; a matrix is changed after all
    threads have read it.
    """
    weights, biases, layers, errors = net
    for k in range(len(weights) - 1, -1, -1):
        if k > 0:
            begin, end = partition(weights[k].shape[1], me, all)
            multiply_transposed(errors[k], rows, weights[k], errors[k - 1], rows, begin, end, False)
            for i in rows:
                for j in range(begin, end):
                    if layers[k - 1][i, j] <= 0:
                        errors[k - 1][i, j] = np.float32(0)
            barrier(all, counters)
        begin, end = partition(weights[k].shape[0] * weights[k].shape[1], me, all)
        if k > 0:
            add_outer(layers[k - 1], rows, errors[k], rows, scale, weights[k], begin, end)
        else:
            chosen = samples[rows]
            find_used(images, chosen, weights[0].shape[1], OUTER_ROWS, used, counts)
            add_outer_used(images, chosen, errors[0], rows, scale, weights[0], begin, end, used, counts)
        begin, end = partition(biases[k].size, me, all)
        for i in rows:
            for j in range(begin, end):
                biases[k][j] += scale * errors[k][i, j]


@jit
def _norm(error):
    total = np.float64(0)
    for x in error:
        total += np.float64(x) ** 2
    return np.sqrt(total)
