"""What the network is: layers, connections, time constants and a firing-rate function. It does not
run; a solver runs it.

Layers are numbered 0 .. L-1 in code (layer k of the paper is k-1 here), the last is the output.
Every matrix is pre x post, w_ij is i -> j as in eq. 13.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fsp_dynamics.arrays import numbers
from fsp_dynamics.display import html_table
from fsp_dynamics.errors import ConfigurationError, check_positive, check_shape
from fsp_dynamics.models.activations import ACTIVATIONS, Activation, activation

if TYPE_CHECKING:
    from fsp_dynamics.torch_backend.module import RateModule

Array = npt.NDArray[Any]


class Connection(NamedTuple):
    """The firing rates of layer `pre` enter layer `post` through `weight` (n_pre, n_post).

    >>> import fsp_dynamics as fsp
    >>> network = fsp.loop_network([4, 8, 3], rng=0)
    >>> [(c.pre, c.post, c.weight.shape) for c in network.connections()]
    [(0, 1, (8, 3)), (1, 0, (3, 8))]
    """

    pre: int
    post: int
    weight: Array


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The weights and constants of one rate network (eq. 13).

    Two topologies are one record. The feedforward loop has ``loop``; the reciprocal network of
    equilibrium propagation has none, and instead either ``backward`` matrices of its own or
    ``tied=True``, which uses the transposes of ``forward``.

    Parameters
    ----------
    input : (n_in, n_1) image pixels -> first hidden layer.
    forward : L-1 matrices, ``forward[k]`` (n_k+1, n_k+2) in the paper's numbers: each layer -> the
        next.
    biases : L vectors, one for each layer.
    loop : (n_L, n_1) output -> first hidden layer, or None. It has no bias.
    backward : L-1 matrices, ``backward[k]`` has the shape of ``forward[k].T``, or None.
    tied : the reciprocal network whose backward weights are ``forward[k].T``.
    time_constants : r_k > 0 for each layer, in the time unit of the simulation (default 1).
    rho : the activation, or its name.

    Raises ShapeError where the matrices do not fit, ConfigurationError for mixed dtypes,
    contradicting topologies or time constants that are not positive.

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> w = {"input": np.ones((4, 8)), "forward": (np.ones((8, 3)),), "loop": -np.ones((3, 8))}
    >>> network = fsp.Network(**w, biases=(np.zeros(8), np.zeros(3)))
    >>> network
    <Network 4-8-3, loop, hard_sigmoid, float64>
    >>> network.sizes, network.depth, network.dtype, network.is_reciprocal
    ((4, 8, 3), 2, dtype('float64'), False)
    >>> network.is_hard_sigmoid_loop, network.is_hard_sigmoid_reciprocal
    (True, False)
    >>> {name: weight.shape for name, weight in network.parameters().items()}
    {'input': (4, 8), 'forward[0]': (8, 3), 'loop': (3, 8), 'biases[0]': (8,), 'biases[1]': (3,)}
    >>> half = network.with_parameters({"loop": 0.5 * network.loop}).astype(np.float32)
    >>> half.loop[0, 0].item(), half.copy().loop is half.loop, len(half.connections())
    (-0.5, False, 2)
    """

    input: Array
    forward: tuple[Array, ...]
    biases: tuple[Array, ...]
    loop: Array | None = None
    backward: tuple[Array, ...] | None = None
    tied: bool = False
    time_constants: tuple[float, ...] = ()
    rho: Activation = ACTIVATIONS["hard_sigmoid"]

    def __post_init__(self) -> None:
        depth = len(self.biases)
        # the record is frozen; here its fields get their final form
        set_field = object.__setattr__
        for name in ("input", "loop"):
            set_field(self, name, _contiguous(getattr(self, name)))
        for name in ("forward", "biases", "backward"):
            given = getattr(self, name)
            set_field(self, name, None if given is None else tuple(_contiguous(w) for w in given))
        set_field(self, "rho", activation(self.rho))
        set_field(self, "time_constants", tuple(float(r) for r in self.time_constants) or (1.0,) * depth)
        _check_topology(self)
        _check_shapes(self)

    def __repr__(self) -> str:
        return f"<Network {'-'.join(map(str, self.sizes))}, {self._topology}, {self.rho.name}, {self.dtype}>"

    def _repr_html_(self) -> str:
        shapes = {name: " x ".join(map(str, w.shape)) for name, w in self.parameters().items()}
        constants = ", ".join(f"{r:g}" for r in self.time_constants)
        facts = {"topology": self._topology, "rho": self.rho.name, "time constants": constants, "dtype": self.dtype}
        return html_table(f"Network {'-'.join(map(str, self.sizes))}", facts | shapes)

    @property
    def _topology(self) -> str:
        if self.loop is not None:
            return "loop"
        if self.tied:
            return "tied reciprocal"
        return "feedforward" if self.backward is None else "reciprocal"

    @property
    def sizes(self) -> tuple[int, ...]:
        """(n_in, n_1, ..., n_L)."""
        return (self.input.shape[0], *(len(b) for b in self.biases))

    @property
    def depth(self) -> int:
        """L, the number of layers after the images: hidden layers and the output."""
        return len(self.biases)

    @property
    def dtype(self) -> Any:
        return self.input.dtype

    @property
    def is_reciprocal(self) -> bool:
        """Whether neighbouring layers are connected in both directions."""
        return self.tied or self.backward is not None

    @property
    def is_hard_sigmoid_loop(self) -> bool:
        """Whether it is a feedforward loop with a hard sigmoid: a problem in its n_L outputs."""
        return self.loop is not None and self.rho.projected

    @property
    def is_hard_sigmoid_reciprocal(self) -> bool:
        """Whether it is a reciprocal network with a hard sigmoid."""
        return self.is_reciprocal and self.rho.projected

    def connections(self) -> tuple[Connection, ...]:
        """Every matrix between layers, in the order forward, loop, backward (tied ones as
        transposed views).

        Returns
        -------
        tuple of Connection : (pre, post, weight), the numbers of two layers and the matrix (n_pre,
            n_post) between them.
        """
        found = [Connection(k, k + 1, w) for k, w in enumerate(self.forward)]
        if self.loop is not None:
            found.append(Connection(self.depth - 1, 0, self.loop))
        if self.tied:
            found += [Connection(k + 1, k, w.T) for k, w in enumerate(self.forward)]
        elif self.backward is not None:
            found += [Connection(k + 1, k, w) for k, w in enumerate(self.backward)]
        return tuple(found)

    def parameters(self) -> dict[str, Array]:
        """Every array that learning may change, by name: input, forward[0], ..., loop,
        backward[0], ..., biases[0], ...

        Returns
        -------
        dict : {name: array}, the arrays themselves.
        """
        return named_arrays(self)

    def with_parameters(self, named: dict[str, Array]) -> Network:
        """The same network with other arrays, given by the names of `parameters` (each shape is
        checked).

        Returns
        -------
        Network : that shares all arrays which are not `named`.
        """
        merged = self.parameters()
        for name in named:
            if name not in merged:
                raise ConfigurationError(f"the network has no parameter {name!r}; it has {', '.join(merged)}")
        merged |= named
        return dataclasses.replace(
            self,
            input=merged["input"],
            forward=tuple(merged[f"forward[{k}]"] for k in range(self.depth - 1)),
            loop=merged.get("loop"),
            backward=None if self.backward is None else tuple(merged[f"backward[{k}]"] for k in range(self.depth - 1)),
            biases=tuple(merged[f"biases[{k}]"] for k in range(self.depth)),
        )

    def astype(self, dtype: npt.DTypeLike) -> Network:
        """A copy with every array in `dtype`.

        Returns
        -------
        Network : of the same shapes.
        """
        return self.with_parameters({name: w.astype(dtype, copy=True) for name, w in self.parameters().items()})

    def copy(self) -> Network:
        """A network that shares no array with this one.

        Returns
        -------
        Network : of the same shapes and dtype.
        """
        return self.astype(self.dtype)

    def to_torch(
        self,
        passes: int | None = None,
        tolerance: float | None = None,
        max_passes: int | None = None,
        *,
        damping: float = 1.0,
        require_converged: bool = True,
    ) -> RateModule:
        """This network as a `torch.nn.Module`: forward(images (B, n_in)) -> the firing rates of
        the output (B, n_L) at the free equilibrium.

        The module holds copies of the weights, as parameters; `rates(images)` returns all layers,
        `equilibrium(images)` how each sample converged, `to_network()` the network again.
        `torch_backend.module` describes how it relaxes and how gradients are computed.

        Parameters
        ----------
        passes : None: until every sample has converged. A number: exactly so many passes from
            silence, which can be exported (ONNX).
        tolerance : a sample has converged when its residual is within it; None: what
            rounding allows, 1e-12 + 1e-13 ||s|| in float64 and 1e-5 + 1e-6 ||s|| in all else.
            Given passes are made whatever it is; `equilibrium` reports how near they came.
        max_passes : mixed passes for a sample before it is followed through time, in 20 steps for
            each of them (None: 200). Not beside `passes`.
        damping : how much of its way each of `passes` goes, in (0, 1]; below 1 for loops that
            inhibit so strongly that whole passes swing.
        require_converged : refuse samples that did not converge (NotConvergedError), or return
            what was reached. Given passes are never refused.

        Raises ConfigurationError for options that contradict each other and for a smooth rho
        without curvature, ModuleNotFoundError without torch (``pip install
        'fsp_dynamics[torch]'``).

        Returns
        -------
        RateModule : from images (B, n_in) to rates (B, n_L), tensors.

        >>> import torch
        >>> import fsp_dynamics as fsp
        >>> module = fsp.loop_network([4, 8, 3], rng=0).to_torch()
        >>> module(torch.full((2, 4), 0.5)).shape
        torch.Size([2, 3])
        """
        from fsp_dynamics.torch_backend.module import RateModule

        return RateModule(self, passes, tolerance, max_passes, damping=damping, require_converged=require_converged)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Arrays in the shapes of a network's weights: the fields of `Network` that learning may
    change.

    >>> import fsp_dynamics as fsp
    >>> network = fsp.loop_network([4, 8, 3], rng=0)
    >>> zero = Weights.of(network, {name: 0 * w for name, w in network.parameters().items()})
    >>> zero.loop.shape, list(zero.parameters())
    ((3, 8), ['input', 'forward[0]', 'loop', 'biases[0]', 'biases[1]'])
    """

    input: Array
    forward: tuple[Array, ...]
    biases: tuple[Array, ...]
    loop: Array | None = None
    backward: tuple[Array, ...] | None = None

    @classmethod
    def of(cls, network: Network, named: dict[str, Array]) -> Self:
        """The record of these arrays, one for each of `network.parameters()`, by name.

        Returns
        -------
        Weights, or the subclass that it is called on : arrays of the network's shapes.
        """
        shaped = network.with_parameters(named)
        return cls(shaped.input, shaped.forward, shaped.biases, shaped.loop, shaped.backward)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {float(abs(w).max()):.2g}" for name, w in self.parameters().items())
        return f"<{type(self).__name__}, largest entries: {sizes}>"

    def parameters(self) -> dict[str, Array]:
        """The arrays by the names of `Network.parameters`.

        Returns
        -------
        dict : {name: array}.
        """
        return named_arrays(self)


def named_arrays(weights: Any) -> dict[str, Array]:
    """The arrays of a record with a network's weight fields (`input, forward, loop, backward,
    biases`), by name.
    """
    named = {"input": weights.input}
    named |= {f"forward[{k}]": w for k, w in enumerate(weights.forward)}
    if weights.loop is not None:
        named["loop"] = weights.loop
    named |= {f"backward[{k}]": w for k, w in enumerate(weights.backward or ())}
    return named | {f"biases[{k}]": b for k, b in enumerate(weights.biases)}


def loop_gain(network: Network) -> float:
    """||loop|| prod_k ||forward[k]|| in 2-norms (float64); below 1 the equilibrium is unique and
    reached (time constants 1).

    Sufficient only. Raises ConfigurationError for a network without a loop.

    Returns
    -------
    float : without unit.

    >>> import fsp_dynamics as fsp
    >>> fsp.loop_gain(fsp.loop_network([4, 8, 3], loop_scale=0.1, rng=0)) < 1
    True
    """
    if network.loop is None:
        raise ConfigurationError("loop_gain: the network has no loop (loop = None); give one made by loop_network")
    return float(np.prod([np.linalg.norm(w.astype(np.float64), 2) for w in (network.loop, *network.forward)]))


def cut_layers(network: Network) -> tuple[int, ...]:
    """The layers whose removal leaves no cycle: the output of a feedforward loop, every second
    layer of a reciprocal network.
    """
    return tuple(range(1, network.depth, 2)) if network.is_reciprocal else (network.depth - 1,)


def _contiguous(weight: Any) -> Any:
    """The array in C order, as products that accumulate in place need it (tensors and None are
    left alone).
    """
    if weight is None or hasattr(weight, "detach"):
        return weight
    return np.ascontiguousarray(weight if type(weight) is np.ndarray else numbers("weights", weight))


def _check_topology(network: Network) -> None:
    if sum((network.loop is not None, network.backward is not None, network.tied)) > 1:
        raise ConfigurationError("a network has a loop, or backward matrices, or tied = True; more than one was given")
    if network.depth < 2:
        raise ConfigurationError(
            f"the network has {network.depth} layer(s), expected one hidden layer or more and the output"
        )
    if len(network.time_constants) != network.depth:
        raise ConfigurationError(
            f"time_constants has {len(network.time_constants)} values, expected {network.depth}, one for each layer"
        )
    for k, r in enumerate(network.time_constants):
        check_positive(f"time_constants[{k}]", r)


def _check_shapes(network: Network) -> None:
    sizes = network.sizes
    if len(network.forward) != network.depth - 1:
        raise ConfigurationError(
            f"{len(network.forward)} forward matrices and {network.depth} biases, expected one matrix fewer than biases"
        )
    check_shape("input", network.input, (None, sizes[1]))
    for k, weight in enumerate(network.forward):
        check_shape(f"forward[{k}]", weight, (sizes[k + 1], sizes[k + 2]))
    if network.loop is not None:
        check_shape("loop", network.loop, (sizes[-1], sizes[1]))
    if network.backward is not None:
        if len(network.backward) != network.depth - 1:
            raise ConfigurationError(f"{len(network.backward)} backward matrices, expected {network.depth - 1}")
        for k, weight in enumerate(network.backward):
            check_shape(f"backward[{k}]", weight, (sizes[k + 2], sizes[k + 1]))
    if isinstance(network.input, np.ndarray) and network.input.dtype not in (np.float32, np.float64):
        raise ConfigurationError(f"the weights are {network.input.dtype}, expected float32 or float64")
    for name, array in network.parameters().items():
        if array.dtype != network.input.dtype:
            raise ConfigurationError(f"{name} is {array.dtype}, expected {network.input.dtype} as the input matrix")
