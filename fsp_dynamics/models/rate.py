"""The equation, once (eq. 13): in operators that NumPy, Numba and torch take.

With a_j the weighted rates entering unit j, leak = 1 / r and the pull of the nudge on the output
layer alone:

    ds/dt = rho'(s) a - leak s - beta (s - d)                                   `unit_field`

The literal sum over all outputs in eq. 13 would give each output the same pull and carry no class,
so the pull is per neuron. For the hard sigmoid rho' is 1 on the closed interval [0, 1] and solvers
clip the state to it after every step. That projected system has exactly the equilibria of the
rate form, whose right-hand side is continuous:

    ds/dt = (leak + beta) (rho((a + beta d) / (leak + beta)) - s)               `unit_rate_field`

There is no energy: the loop is not symmetric. Only the reciprocal network has one, and nothing
here uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.arrays import floats, pixels
from fsp_dynamics.errors import ConfigurationError, ShapeError, check_finite, check_shape
from fsp_dynamics.models.network import Array, Network

State = tuple[Array, ...]


def unit_field(s: Any, a: Any, slope: Any, leak: Any, beta: Any, d: Any) -> Any:
    """ds/dt = rho'(s) a - leak s - beta (s - d), with slope = rho'(s)."""
    return slope * a - leak * s - beta * (s - d)


def unit_target(a: Any, leak: Any, beta: Any, d: Any) -> Any:
    """(a + beta d) / (leak + beta): where a unit with rho'(s) = 1 settles under constant input."""
    return (a + beta * d) / (leak + beta)


def unit_rate_field(s: Any, rest: Any, leak: Any, beta: Any) -> Any:
    """ds/dt = (leak + beta) (rest - s), with rest = rho((a + beta d) / (leak + beta))."""
    return (leak + beta) * (rest - s)


@dataclass(frozen=True, slots=True, eq=False)
class Nudge:
    """The pull beta (d - s) on the output layer during the nudged phase.

    Parameters
    ----------
    beta : strength and sign, per unit time; not 0. It must stay above -leak of the output (=
        -1/r_L), where the output's leak would change sign.
    target : (B, n_L) target firing rates d, one-hot in classification; anything that `arrays` takes
        for numbers.

    >>> import numpy as np
    >>> import fsp_dynamics as fsp
    >>> nudge = fsp.Nudge(0.5, np.eye(3))
    >>> nudge, nudge.rows([0]).target.tolist()
    (<Nudge of beta 0.5, target (3 x 3)>, [[1.0, 0.0, 0.0]])
    >>> nudge.check(fsp.loop_network([4, 8, 3]), batch=3)
    >>> Nudge.of(1.0, nudge.target).beta
    1.0
    """

    beta: float
    target: Array

    def __repr__(self) -> str:
        return f"<Nudge of beta {self.beta:g}, target ({' x '.join(map(str, self.target.shape))})>"

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", floats("nudge target", self.target))
        if not (isinstance(self.beta, int | float | np.number) and np.isfinite(self.beta)) or self.beta == 0:
            raise ConfigurationError(
                f"beta = {self.beta!r}, expected a finite number other than 0; leave the nudge out for a free phase"
            )

    @classmethod
    def of(cls, beta: float, target: Any) -> Nudge:
        """A nudge whose target is left as it is, such as a tensor on a device.

        Returns
        -------
        Nudge : unchecked.
        """
        found = object.__new__(cls)
        object.__setattr__(found, "beta", beta)
        object.__setattr__(found, "target", target)
        return found

    def check(self, network: Network, batch: int) -> None:
        """Refuse a nudge that does not fit the network. Raises ConfigurationError, ShapeError,
        NotFiniteError.
        """
        limit = -1 / network.time_constants[-1]
        if self.beta <= limit:
            raise ConfigurationError(
                f"beta = {self.beta!r}, expected above {limit:g} (-1/r of the output): "
                "at or below it the output no longer leaks"
            )
        if self.target.ndim == 1 and len(self.target) == batch:
            raise ShapeError(
                f"nudge target has shape ({batch},), expected ({batch}, {network.sizes[-1]}), a row for each sample; "
                f"np.eye({network.sizes[-1]})[labels] makes them of class numbers"
            )
        check_shape("nudge target", self.target, (batch, network.sizes[-1]))
        check_finite("nudge target", self.target)

    def rows(self, index: Any) -> Nudge:
        """The nudge of some samples of the batch.

        Returns
        -------
        Nudge : of the same beta, with a target (A, n_L).
        """
        return Nudge.of(self.beta, self.target[index])


def rows_of(nudge: Nudge | None, index: Any) -> Nudge | None:
    """The nudge of some samples of the batch; None in a free phase."""
    return None if nudge is None else nudge.rows(index)


def beta_of(nudge: Nudge | None) -> float:
    """Strength of the nudge; 0 in a free phase.

    Returns
    -------
    float : per unit time.

    >>> beta_of(None), beta_of(Nudge(0.5, np.eye(3)))
    (0.0, 0.5)
    """
    return 0.0 if nudge is None else float(nudge.beta)


def drive(network: Network, images: Array) -> Array:
    """images @ input + biases[0], (B, n_1): the constant input to the first hidden layer, shared
    by both phases.

    Raises ShapeError for images that are not (B, n_in), NotFiniteError for NaN or infinite pixels,
    ConfigurationError for what is no array of numbers and for bytes above 1. Warns (DataWarning)
    of pixels far outside [0, 1].

    Returns
    -------
    array : (B, n_1), in the dtype of the network.

    >>> import fsp_dynamics as fsp
    >>> drive(fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)).shape
    (2, 8)
    """
    images = checked_images(network, images)
    return images.astype(network.dtype, copy=False) @ network.input + network.biases[0]


def drive_of_each(network: Network, images: Array) -> Array:
    """`drive`, with a product for each image, so that no bit of its row depends on the others. Two
    to four times the time of one product, a hundredth of what it takes to converge.
    """
    images = np.ascontiguousarray(checked_images(network, images), network.dtype)
    return (images[:, None] @ network.input)[:, 0] + network.biases[0]


def checked_images(network: Network, images: Array) -> Array:
    """The images (B, n_in) as an array, whatever `arrays` takes for one. Raises as `drive` does."""
    images = pixels("images", images)
    check_shape("images", images, (None, network.sizes[0]))
    return images


def zero_state(network: Network, batch: int) -> State:
    """All units silent: L arrays (B, n_k) of zeros.

    Returns
    -------
    tuple of arrays : L of them, (B, n_k).

    >>> import fsp_dynamics as fsp
    >>> [s.shape for s in zero_state(fsp.loop_network([4, 8, 3]), batch=2)]
    [(2, 8), (2, 3)]
    """
    return tuple(np.zeros((batch, n), network.dtype) for n in network.sizes[1:])


def state_norm(state: State) -> Array:
    """||s|| over all units of a sample, (B,) float64.

    Returns
    -------
    array : (B,) float64.

    >>> state_norm((np.full((1, 3), 2.0), np.full((1, 1), 2.0))).tolist()
    [4.0]
    """
    total: Array = np.sqrt(sum((s.astype(np.float64) ** 2).sum(1) for s in state))
    return total


def flatten(state: State) -> Array:
    """The layers side by side, (B, N): how solvers hold a state.

    Returns
    -------
    array : (B, N), N the sum of all n_k.

    >>> flatten((np.zeros((2, 8)), np.zeros((2, 3)))).shape
    (2, 11)
    """
    return np.concatenate(state, axis=-1)


def layers(network: Network, flat: Array) -> State:
    """Views of a flat state (..., N), one for each layer (..., n_k).

    Returns
    -------
    tuple of arrays : L views, (..., n_k).

    >>> import fsp_dynamics as fsp
    >>> [s.shape for s in layers(fsp.loop_network([4, 8, 3]), np.zeros((2, 11)))]
    [(2, 8), (2, 3)]
    """
    ends = np.cumsum(network.sizes[1:])
    return tuple(flat[..., end - n : end] for n, end in zip(network.sizes[1:], ends, strict=True))


def total_input(network: Network, drive: Array, rates: Sequence[Array]) -> list[Array]:
    """a_k for each layer: the drive or the bias, plus rates[pre] @ weight over every connection
    into layer k (B, n_k).
    """
    a: list[Array] = [drive, *network.biases[1:]]
    for pre, post, weight in network.connections():
        a[post] = a[post] + rates[pre] @ weight
    return a


def field(network: Network, drive: Array, state: State, nudge: Nudge | None = None) -> State:
    """ds/dt of eq. 13, literally, for each layer (B, n_k). With a hard sigmoid clip the state
    after each step.

    Returns
    -------
    tuple of arrays : L of them, (B, n_k), per unit time.

    >>> import fsp_dynamics as fsp
    >>> network = fsp.loop_network([4, 8, 3], rng=0)
    >>> constant = drive(network, np.full((2, 4), 0.5))
    >>> [f.shape for f in field(network, constant, zero_state(network, 2))]
    [(2, 8), (2, 3)]
    """
    rho = network.rho
    a = total_input(network, drive, [rho.rate(s) for s in state])
    terms = zip(state, a, _pulls(network, nudge), strict=True)
    return tuple(unit_field(s, a_k, rho.slope(s), leak, beta, d) for s, a_k, (leak, beta, d) in terms)


def rate_field(network: Network, drive: Array, state: State, nudge: Nudge | None = None) -> State:
    """ds/dt of the rate form, for each layer (B, n_k): zero exactly at the equilibria, and what a
    residual is measured in.

    For a smooth rho, whose eq. 13 needs no clipping, it is eq. 13 itself.

    Returns
    -------
    tuple of arrays : L of them, (B, n_k), per unit time.

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> free = fsp.relax(network, images)
    >>> fields = rate_field(network, drive(network, images), free.state)
    >>> bool(max(abs(f).max() for f in fields) < 1e-4)
    True
    """
    if not network.rho.projected:
        return field(network, drive, state, nudge)
    rho: Callable[[Any], Any] = network.rho.rate
    aims = resting_inputs(network, drive, [rho(s) for s in state], nudge)
    terms = zip(state, aims, _pulls(network, nudge), strict=True)
    return tuple(unit_rate_field(s, rho(u), leak, beta) for s, u, (leak, beta, _) in terms)


def resting_inputs(network: Network, drive: Array, rates: Sequence[Array], nudge: Nudge | None = None) -> State:
    """u = (a + beta d) / kappa of each layer (B, n_k): where its units would rest, but for rho."""
    terms = zip(total_input(network, drive, rates), _pulls(network, nudge), strict=True)
    return tuple(unit_target(a, *pull) for a, pull in terms)


def residual(network: Network, drive: Array, state: State, nudge: Nudge | None = None) -> Array:
    """How far a state is from equilibrium, (B,): the `distance` of the field in the rate form.

    For a hard sigmoid it is ||rho((a + beta d) / (leak + beta)) - s||. It has the unit of a state,
    so that it does not depend on the unit of time.

    Returns
    -------
    array : (B,).

    >>> import fsp_dynamics as fsp
    >>> network, images = fsp.loop_network([4, 8, 3], rng=0), np.full((2, 4), 0.5)
    >>> constant, free = drive(network, images), fsp.relax(network, images)
    >>> bool((residual(network, constant, free.state) < 1e-4).all())
    True
    >>> bool((residual(network, constant, zero_state(network, 2)) < 1e-4).all())
    False
    """
    return distance(network, rate_field(network, drive, state, nudge), nudge)


def distance(network: Network, field: State, nudge: Nudge | None = None) -> Array:
    """||field / (leak + beta)|| over all units of a sample, (B,): how far its units would move
    under constant input before they settle.

    Returns
    -------
    array : (B,).

    >>> import fsp_dynamics as fsp
    >>> network = fsp.loop_network([4, 2, 1], time_constants=2.0)
    >>> distance(network, (np.ones((1, 2)), np.zeros((1, 1)))).round(3).tolist()
    [2.828]
    """
    squares = [((f / kappa) ** 2).sum(-1) for f, kappa in zip(field, decay_rates(network, nudge), strict=True)]
    return sum(squares[1:], squares[0]) ** 0.5


def decay_rates(network: Network, nudge: Nudge | None = None) -> tuple[float, ...]:
    """leak + beta of each layer: 1 / r_k, and the nudge's beta on top at the output. Its inverse
    is how fast a lone unit settles.
    """
    leaks = [1 / r for r in network.time_constants]
    leaks[-1] += beta_of(nudge)
    return tuple(leaks)


def pull_of(network: Network, beta: float) -> float:
    """|beta| / (leak + beta) of the output: how far a nudge moves an output under constant input,
    per unit of d - s. It does not depend on the unit of time.
    """
    return abs(float(beta)) / decay_rates(network)[-1] / (1 + float(beta) / decay_rates(network)[-1])


def _pulls(network: Network, nudge: Nudge | None) -> list[tuple[float, float, Any]]:
    """(leak, beta, d) of each layer; only the output is nudged."""
    pulls: list[tuple[float, float, Any]] = [(1 / r, 0.0, 0.0) for r in network.time_constants]
    if nudge is not None:
        pulls[-1] = (pulls[-1][0], nudge.beta, nudge.target)
    return pulls
