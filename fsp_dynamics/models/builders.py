"""Random networks: the feedforward loop, and the network of equilibrium propagation."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fsp_dynamics.arrays import Rng, generator
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.activations import Activation, activation
from fsp_dynamics.models.network import Array, Network


def loop_network(
    sizes: Sequence[int],
    *,
    rho: str | Activation = "hard_sigmoid",
    time_constants: float | Sequence[float] = 1.0,
    forward_scale: float = 1.0,
    loop_scale: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
    rng: Rng = None,
) -> Network:
    """A feedforward loop with Glorot-uniform matrices and zero biases.

    W ~ U(-c, c), c = sqrt(6 / (n_pre + n_post)); the c of the loop and of the matrices between
    layers are multiplied by `loop_scale` and `forward_scale`.

    Parameters
    ----------
    sizes : (n_in, n_1, ..., n_L), at least one hidden layer.
    time_constants : r, one number or one for each of the L layers.
    rng : None, an int or a Generator.

    Returns
    -------
    Network : input (n_in, n_1), forward[k] from layer to layer, loop (n_L, n_1) and biases (n_k,),
        all in `dtype`.

    >>> loop_network([784, 500, 500, 10], rng=0).loop.shape
    (10, 500)
    """
    sizes = _check_sizes(sizes)
    rng = generator(rng)
    return Network(
        **_chain(rng, sizes, forward_scale, dtype),
        loop=_scaled(rng, sizes[-1], sizes[1], loop_scale, dtype),
        time_constants=_per_layer(time_constants, len(sizes) - 1),
        rho=activation(rho),
    )


def reciprocal_network(
    sizes: Sequence[int],
    *,
    tied: bool = True,
    rho: str | Activation = "hard_sigmoid",
    time_constants: float | Sequence[float] = 1.0,
    forward_scale: float = 0.4,
    dtype: npt.DTypeLike = np.float32,
    rng: Rng = None,
) -> Network:
    """The layered network of equilibrium propagation: every layer also receives input from
    the next one.

    With ``tied`` the backward weights are the transposes of the forward ones (the symmetric
    network, which has an energy); otherwise they are drawn on their own. Parameters as for
    `loop_network`; at the full Glorot scale wide reciprocal networks excite themselves into
    saturation before they learn anything, hence the default of `forward_scale`.

    Returns
    -------
    Network : input (n_in, n_1), forward[k] (n_k+1, n_k+2) in the paper's numbers, backward[k] of
        its transposed shape unless tied, and biases (n_k,), all in `dtype`; no loop.

    >>> reciprocal_network([4, 8, 3], tied=False, rng=0).backward[0].shape
    (3, 8)
    """
    sizes = _check_sizes(sizes)
    rng = generator(rng)
    return Network(
        **_chain(rng, sizes, forward_scale, dtype),
        backward=None
        if tied
        else tuple(_scaled(rng, post, pre, forward_scale, dtype) for pre, post in itertools.pairwise(sizes[1:])),
        tied=tied,
        time_constants=_per_layer(time_constants, len(sizes) - 1),
        rho=activation(rho),
    )


def _check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise ConfigurationError(f"sizes = {sizes!r}, expected a list: input, hidden layers, output")
    sizes = tuple(sizes)
    if any(isinstance(n, Iterable) for n in sizes):
        raise ConfigurationError(
            f"sizes = {list(sizes)!r}, expected numbers alone: input, hidden layers, output in one list, "
            "such as [784, 500, 500, 10]"
        )
    whole = all(isinstance(n, int | float | np.number) and not isinstance(n, bool) and n % 1 == 0 for n in sizes)
    if len(sizes) < 3 or not whole or min(sizes) < 1:
        raise ConfigurationError(
            f"sizes = {list(sizes)}, expected input, one hidden layer or more, output, each whole and at least 1"
        )
    return tuple(int(n) for n in sizes)


def _chain(
    rng: np.random.Generator, sizes: tuple[int, ...], forward_scale: float, dtype: npt.DTypeLike
) -> dict[str, Any]:
    """The input matrix, the forward ones and zero biases, by their fields; drawn in this order."""
    first = _scaled(rng, sizes[0], sizes[1], 1.0, dtype)
    forward = tuple(_scaled(rng, pre, post, forward_scale, dtype) for pre, post in itertools.pairwise(sizes[1:]))
    return {"input": first, "forward": forward, "biases": tuple(np.zeros(n, dtype) for n in sizes[1:])}


def _scaled(rng: np.random.Generator, pre: int, post: int, scale: float, dtype: npt.DTypeLike) -> Array:
    """U(-c, c) of shape (pre, post), c = scale sqrt(6 / (pre + post))."""
    if not (isinstance(scale, int | float | np.number) and np.isfinite(scale) and scale >= 0):
        raise ConfigurationError(f"forward_scale or loop_scale = {scale!r}, expected a finite number, 0 or more")
    limit = scale * np.sqrt(6 / (pre + post))
    return rng.uniform(-limit, limit, (pre, post)).astype(dtype)


def _per_layer(value: float | Sequence[float], depth: int) -> tuple[float, ...]:
    return (float(value),) * depth if np.isscalar(value) else tuple(float(v) for v in value)  # type: ignore[arg-type, union-attr]
