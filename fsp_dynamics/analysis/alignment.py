"""The angle between each matrix of the loop and the product of the others (figure 3).

In the paper's notation W1 = forward[0], W2 = forward[1], ..., and the loop closes the ring; the
input matrix is not part of it. For each W the other matrices are multiplied in loop order, from the
postsynaptic layer of W round to its presynaptic layer, which gives the shape of W.T: with two
hidden layers loop @ W1 is compared with W2. The transposed product P has the shape of W, and all
pairs share one inner product,

    <W, P> = tr(loop @ W1 @ W2 ...)        `Alignment.trace`

so all angles are below 90 degrees if and only if that trace is positive (model fact 12).

P has rank n_L at most, so in a wide network the raw angle is near 90 degrees whatever is learned
(model fact 14). With U and V orthonormal bases of P's column and row spaces,

    cos raw = cos bound * cos inside
    bound:  angle(W, U U'W V V'), the smallest angle to any P in that subspace
    inside: angle(U'W V, U'P V)

and `z_score` = sqrt(n_pre n_post) cos raw is the raw angle in standard deviations of a random W of
the same shape and norm: for a direction drawn uniformly on the sphere the cosine has mean 0 and
variance exactly 1 / (n_pre n_post).

Cost: products with n_L columns, 2 n_L multiplications per weight of the loop; `sample_alignment`
costs as much per sample.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fsp_dynamics.arrays import numbers
from fsp_dynamics.display import angles, html_table
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.models.rate import State
from fsp_dynamics.plotting.alignments import plot_alignment, plot_sample_alignment
from fsp_dynamics.solvers.equilibrium import Equilibrium
from fsp_dynamics.solvers.packed_loop import PackedLoop
from fsp_dynamics.solvers.response import chunks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Alignment:
    """Angles in degrees in [0, 180], {"W1", "W2", ..., "loop": .}; NaN where a matrix or a product
    is zero.

    degrees : raw angle between each matrix and the transposed product P of the others.
    trace : tr(loop W1 W2 ...).
    bound : the smallest raw angle possible between the matrix and any P in that subspace.
    inside : the angle within that subspace.
    z_score : the raw cosine in standard deviations for a random matrix of the same shape and norm.

    >>> import fsp_dynamics as fsp
    >>> found = fsp.loop_alignment(fsp.loop_network([4, 8, 6, 3], rng=0))
    >>> list(found.degrees), found.to_frame().shape, len(found.plot().axes)
    (['W1', 'W2', 'loop'], (3, 6), 1)
    >>> all(found.bound[name] <= found.degrees[name] for name in found.degrees)
    True
    """

    degrees: dict[str, float]
    trace: float
    bound: dict[str, float]
    inside: dict[str, float]
    z_score: dict[str, float]

    def __repr__(self) -> str:
        return f"<Alignment, degrees: {angles(self.degrees)}; trace {self.trace:.3g}>"

    def _repr_html_(self) -> str:
        rows = {name: f"{value:.1f} degrees, bound {self.bound[name]:.1f}" for name, value in self.degrees.items()}
        return html_table("Alignment", rows | {"trace": f"{self.trace:.3g}"})

    def to_frame(self) -> DataFrame:
        """A pandas.DataFrame with one row per matrix: matrix, raw_degrees, bound_degrees,
        inside_degrees, z_score, trace. `.to_csv(path)` saves it.

        Returns
        -------
        pandas.DataFrame : a row for each matrix.
        """
        import pandas

        angles = {
            "raw_degrees": self.degrees,
            "bound_degrees": self.bound,
            "inside_degrees": self.inside,
            "z_score": self.z_score,
        }
        columns = {name: list(values.values()) for name, values in angles.items()}
        return pandas.DataFrame({"matrix": list(self.degrees), **columns, "trace": self.trace})

    def plot(self, ax: Axes | None = None) -> Figure:
        """The angles of each matrix, 0 to 180 degrees (`plotting.alignments.plot_alignment`).

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        return plot_alignment(self, ax)


@dataclass(frozen=True, slots=True, eq=False)
class SampleAlignment:
    """Alignment angles per sample, computed from the masked matrices W D, where D holds the slopes
    rho'(s) of the postsynaptic units at that sample's equilibrium.

    degrees : {"W1", ..., "loop": (B,)}; NaN for a sample whose mask makes a matrix or a product
        zero.

    >>> import fsp_dynamics as fsp
    >>> network = fsp.loop_network([4, 8, 6, 3], rng=0)
    >>> images = np.random.default_rng(0).random((5, 4))
    >>> found = sample_alignment(network, fsp.relax(network, images))
    >>> {name: degrees.shape for name, degrees in found.degrees.items()}
    {'W1': (5,), 'W2': (5,), 'loop': (5,)}
    >>> sorted(found.mean) == sorted(found.std) == sorted(found.undefined)
    True
    >>> found.to_frame().shape, len(found.plot().axes)
    ((15, 3), 1)
    """

    degrees: dict[str, Array]

    def __repr__(self) -> str:
        samples = len(next(iter(self.degrees.values()), ()))
        return f"<SampleAlignment of {samples} samples, mean degrees: {angles(self.mean)}>"

    @property
    def mean(self) -> dict[str, float]:
        """Mean over the samples with a defined angle; NaN if there is none."""
        return _over_samples(np.mean, self.degrees)

    @property
    def std(self) -> dict[str, float]:
        """Standard deviation over the samples with a defined angle."""
        return _over_samples(np.std, self.degrees)

    @property
    def undefined(self) -> dict[str, int]:
        """Number of samples without a defined angle."""
        return {name: int(np.isnan(values).sum()) for name, values in self.degrees.items()}

    def to_frame(self) -> DataFrame:
        """A pandas.DataFrame with one row per matrix and sample: matrix, sample, degrees (NaN:
        undefined). `.to_csv(path)` saves it.

        Returns
        -------
        pandas.DataFrame : B rows for each matrix.
        """
        import pandas

        count = len(self.degrees["loop"])
        matrix, sample = np.repeat(list(self.degrees), count), np.tile(np.arange(count), len(self.degrees))
        return pandas.DataFrame(
            {"matrix": matrix, "sample": sample, "degrees": np.concatenate(list(self.degrees.values()))}
        )

    def plot(self, ax: Axes | None = None) -> Figure:
        """The angles of all samples with mean and standard deviation, for each matrix
        (`plotting.alignments.plot_sample_alignment`).

        Returns
        -------
        matplotlib.figure.Figure : that of the axes.
        """
        return plot_sample_alignment(self, ax)


def angle(u: Array, v: Array) -> float:
    """The angle between two arrays of equal shape, in degrees:
    2 atan2(||u' - v'||, ||u' + v'||), where u', v' are scaled to norm 1.

    Accurate where arccos is not: 0 for identical arrays, 180 for opposite ones. NaN if either is
    zero.

    Returns
    -------
    float : degrees, from 0 to 180.

    >>> round(angle(np.array([1.0, 0.0]), np.array([1.0, 1.0])), 6)
    45.0
    """
    u, v = (numbers(name, each).astype(np.float64) for name, each in (("u", u), ("v", v)))
    size_u, size_v = np.linalg.norm(u), np.linalg.norm(v)
    if size_u == 0 or size_v == 0:
        return float("nan")
    u, v = u / size_u, v / size_v
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))))


def loop_alignment(network: Network) -> Alignment:
    """Alignment of each matrix of the loop with the transposed product of the others, in float64.

    Only products with n_L columns or rows are formed: the ring is cut at the output, its narrowest
    layer. Raises ConfigurationError for a network without a loop; warns and gives NaN for zero
    matrices, whose angle is undefined.

    Returns
    -------
    Alignment : degrees, bound, inside and z_score of each matrix, and the trace.

    >>> import fsp_dynamics as fsp
    >>> network = fsp.loop_network([4, 8, 3], rng=0)
    >>> aligned = network.with_parameters({"loop": network.forward[0].T})
    >>> {name: round(degrees, 3) for name, degrees in loop_alignment(aligned).degrees.items()}
    {'W1': 0.0, 'loop': 0.0}
    """
    ring = [w.astype(np.float64) for w in _ring(network)]
    before, after = _products(ring)
    degrees = [angle(w, start.T @ end.T) for w, start, end in zip(ring, before, after, strict=True)]
    subspace = [_subspace_angles(w, start, end) for w, start, end in zip(ring, before, after, strict=True)]
    if np.isnan(degrees).any():
        warnings.warn(
            "loop_alignment: a matrix of the loop is zero, so its angles are undefined (NaN)",
            RuntimeWarning,
            stacklevel=2,
        )
    z_score = [float(np.sqrt(w.size) * np.cos(np.radians(each))) for w, each in zip(ring, degrees, strict=True)]
    bound, inside = zip(*subspace, strict=True)
    return Alignment(
        _named(degrees), float(np.trace(before[-1] @ ring[-1])), _named(bound), _named(inside), _named(z_score)
    )


def loop_angles(loop: Network | PackedLoop) -> dict[str, float]:
    """The raw angles only, in the network's own precision (float32: accurate to about 0.001
    degrees), cheap enough to compute every few batches.

    No array as large as a wide matrix is allocated: the product's norm follows from Gram matrices,
    ||A B||^2 = <A'A, B B'>. NaN for zero matrices. Raises ConfigurationError for a network without
    a loop.

    Returns
    -------
    dict : {"W1": degrees, ..., "loop": degrees}.

    >>> import fsp_dynamics as fsp
    >>> list(loop_angles(fsp.loop_network([4, 8, 6, 3], rng=0)))
    ['W1', 'W2', 'loop']
    """
    if isinstance(loop, PackedLoop):
        before, after, norms = loop.products()
        trace = float(np.vdot(loop.loop, after[0]))
    else:
        ring = _ring(loop)
        before, ends = _products(ring)
        after, norms = [end.T for end in ends], [float(np.linalg.norm(w)) for w in ring]
        trace = float(np.vdot(ring[0], after[0]))
    squares = [float(np.vdot(start @ start.T, end @ end.T)) for start, end in zip(before, after, strict=True)]
    sizes = [norm * max(square, 0.0) ** 0.5 for norm, square in zip(norms, squares, strict=True)]
    return _named([float(_degrees(trace / size)) if size else float("nan") for size in sizes])


def sample_alignment(network: Network, equilibrium: Equilibrium, *, unconverged: bool = False) -> SampleAlignment:
    """Alignment angles per sample, from the free equilibria of a batch (the paper's "taken for
    every sample").

    unconverged : if True, use the states of unconverged samples as they are; otherwise they raise
    NotConvergedError. Raises ConfigurationError without a loop.

    Returns
    -------
    SampleAlignment : degrees, (B,) for each matrix.

    >>> import fsp_dynamics as fsp
    >>> network = fsp.loop_network([4, 8, 6, 3], rng=0)
    >>> free = fsp.relax(network, np.random.default_rng(0).random((5, 4)))
    >>> sample_alignment(network, free).degrees["loop"].shape
    (5,)
    """
    if not unconverged:
        equilibrium.require_converged()
    ring, slopes = [w.astype(np.float64) for w in _ring(network)], _slopes(network, equilibrium.state)
    parts = [_sample_cosines(ring, [p[rows] for p in slopes]) for rows in chunks(len(slopes[0]))] or [
        [np.zeros(0)] * len(ring)
    ]
    return SampleAlignment(_named([_degrees(np.concatenate(each)) for each in zip(*parts, strict=True)]))


def _sample_cosines(ring: Sequence[Array], slopes: Sequence[Array]) -> list[Array]:
    """Cosine of the angle between each of loop D_1, W1 D_2, ... and the transposed product of the
    others, (b,) each.
    """
    identity = np.broadcast_to(np.eye(len(ring[0])), (len(slopes[0]), len(ring[0]), len(ring[0])))
    before = [identity]  # before[k]: the masked product of ring[:k], (b, n_L, n_k)
    for w, p in zip(ring, slopes, strict=True):
        before.append(_times(before[-1], w) * p[:, None, :])
    after = [identity]  # that of ring[k + 1:], transposed (b, n_L, n_k+1), the last k first
    for w, p in zip(ring[:0:-1], slopes[:0:-1], strict=True):
        after.append(_times(after[-1] * p[:, None, :], w.T))
    trace, found = np.einsum("bii->b", before[-1]), []
    for w, p, start, end in zip(ring, slopes, before[:-1], after[::-1], strict=True):
        product = np.einsum("bij,bij->b", start @ start.transpose(0, 2, 1), end @ end.transpose(0, 2, 1))
        squares = product * (p * p @ (w * w).sum(0))
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.where(squares > 0, trace / np.sqrt(squares), np.nan))
    return found


def _subspace_angles(w: Array, start: Array, end: Array) -> tuple[float, float]:
    """(bound, inside) of W to the product P = start' end', from orthonormal bases U, V of its
    columns and rows; NaN if either is zero.
    """
    (q_pre, r_pre), (q_post, r_post) = np.linalg.qr(start.T), np.linalg.qr(end)
    u, sizes, vt = np.linalg.svd(r_pre @ r_post.T)
    rank = int((sizes > sizes[0] * max(w.shape) * np.finfo(sizes.dtype).eps).sum()) if sizes[0] > 0 else 0
    if rank == 0 or not w.any():
        return float("nan"), float("nan")
    columns, rows = q_pre @ u[:, :rank], q_post @ vt[:rank].T
    core = columns.T @ w @ rows
    outside = np.linalg.norm(w - columns @ core @ rows.T)
    return float(np.degrees(np.arctan2(outside, np.linalg.norm(core)))), angle(core, np.diag(sizes[:rank]))


def _products(ring: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """(ring[0] ... ring[k-1], (n_L, n_k)) and (ring[k+1] ... ring[-1], (n_k+1, n_L)) for each k."""
    identity = np.eye(len(ring[0]), dtype=ring[0].dtype)
    before, after = [identity], [identity]
    for w in ring[:-1]:
        before.append(before[-1] @ w)
    for w in ring[:0:-1]:
        after.append(w @ after[-1])
    return before, after[::-1]


def _ring(network: Network) -> list[Array]:
    """loop, W1, W2, ...: the matrices in loop order, starting at the output. Raises
    ConfigurationError without a loop.
    """
    if network.loop is None:
        raise ConfigurationError(
            "loop_alignment: the network has no loop (loop = None), expected one made by loop_network"
        )
    return [network.loop, *network.forward]


def _named(values: Sequence[Value]) -> dict[str, Value]:
    """{"W1", "W2", ..., "loop": value} from values in loop order."""
    return {f"W{k}": value for k, value in enumerate(values) if k} | {"loop": values[0]}


def _times(stack: Array, w: Array) -> Array:
    """stack @ w for (b, n, k) and (k, m), as one product."""
    return (stack.reshape(-1, len(w)) @ w).reshape(*stack.shape[:2], w.shape[1])


def _slopes(network: Network, state: State) -> State:
    """rho'(s) of each layer (B, n_k); for a hard sigmoid 1 strictly inside (0, 1), otherwise 0."""
    if network.rho.projected:
        return tuple(((s > 0) & (s < 1)).astype(np.float64) for s in state)
    return tuple(network.rho.slope(s.astype(np.float64)) for s in state)


def _degrees(cosine: Any) -> Array:
    """The angle with this cosine, which rounding may have made slightly larger than 1."""
    return np.degrees(2 * np.arctan2(np.sqrt(np.maximum(1 - cosine, 0)), np.sqrt(np.maximum(1 + cosine, 0))))


def _over_samples(of: Callable[[Array], Any], degrees: dict[str, Array]) -> dict[str, float]:
    """`of` applied to the defined angles; NaN where there are none."""
    defined = {name: values[~np.isnan(values)] for name, values in degrees.items()}
    return {name: float(of(values)) if values.size else float("nan") for name, values in defined.items()}
