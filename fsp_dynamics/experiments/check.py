"""`fsp check`: the solvers and the learning rule measured on this machine against what must be
true of them.

Four questions, each answered by figures with limits: does every method converge with its order; do
all solvers find the same equilibria; does eq. 14 agree with the closed form of the nudged phase;
does the update of the reciprocal network become the gradient as beta goes to 0. With backend torch
its solvers are measured beside the reference. Nothing here is shared with the test suite, so that
an installed package can be checked alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.experiments.backend import NUMBA, Backend
from fsp_dynamics.learning.rules.hebbian import hebbian_update
from fsp_dynamics.models import rate
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.network import Array, Network, loop_gain
from fsp_dynamics.models.rate import Nudge, State, drive, flatten
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.solvers.equilibrium import Equilibrium, Integrator, Tolerance
from fsp_dynamics.solvers.tableaux import TABLEAUX

ORDER_SLACK = {1: 0.05, 2: 0.1, 3: 0.2, 4: 0.2, 5: 0.3}
# steps per unit of time; four halvings follow and stay above rounding
COARSEST = {1: 64, 2: 32, 3: 16, 4: 8, 5: 4}
SETTLED = {"float64": Tolerance(1e-14, 1e-14), "float32": Tolerance(1e-6, 2e-7)}
AGREEMENT = {"float64": 1e-12, "float32": 1e-5}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "anderson": ("fixed_point", {"method": "anderson"}),
    "picard": ("fixed_point", {"method": "picard", "max_passes": 2000}),
    "newton": ("fixed_point", {"method": "newton"}),
    "numba": ("numba_ode", {"method": "dopri5"}),
    "reference": ("reference", {"method": "dopri5"}),
}
TORCH_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "torch passes": ("torch_fixed_point", {}),
    "torch anderson": ("torch_fixed_point", {"method": "anderson"}),
    "torch dopri5": ("torch_ode", {"method": "dopri5"}),
    "torch implicit_adams": ("torch_ode", {"method": "implicit_adams", "dt": 0.2}),
}
TORCH_ORDERS = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
# compared on the first tenth of the random networks
SLOW = ("reference", "torch dopri5", "torch implicit_adams")


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure: what was measured, its value, and the interval [low, high] it must lie in."""

    group: str
    what: str
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        return self.low <= self.value <= self.high

    @property
    def expected(self) -> str:
        """The interval as a text.

        >>> Measured("", "", 1.0, 0.95, 1.05).expected, Measured("", "", 0.0, 0.0, 1e-12).expected
        ('1 +- 0.05', '<= 1e-12')
        """
        if self.low <= 0:
            return f"<= {self.high:g}"
        return f"{(self.low + self.high) / 2:g} +- {(self.high - self.low) / 2:g}"


def run_checks(
    nets: int = 100, report: Callable[[str], None] = lambda text: None, backend: Backend = NUMBA
) -> Iterator[Measured]:
    """Every figure, in turn. nets : random networks for the agreement. report : called with the
    name of each group as it begins. backend : whose solvers are measured.

    Raises ConfigurationError where the backend or its device is missing.
    """
    device = None if backend.name == "numba" else backend.device_name()
    solver = "anderson" if device is None else "torch passes"
    groups: dict[str, Callable[[], Iterator[Measured]]] = {
        "order": lambda: orders(device),
        "agreement": lambda: agreement(nets, device),
        "eq. 14": lambda: closed_form(solver, device),
        "equilibrium propagation": lambda: theorem(solver, device),
    }
    for name, group in groups.items():
        report(name)
        yield from group()


def orders(device: str | None = None) -> Iterator[Measured]:
    """Observed order of each method where no unit saturates: slope of log error over log h, on
    four halvings. device : of torch's methods.
    """
    network, images = _interior_loop(), np.random.default_rng(0).random((2, 4))
    constant = drive(network, images)
    start = tuple(np.full((2, n), 0.5) for n in network.sizes[1:])
    exact = _exact(network, constant, start)
    ours = [(t.name, t.order, solver) for t, solver in itertools.product(TABLEAUX.values(), ("reference", "numba_ode"))]
    for method, order, solver in (
        ours if device is None else [(name, order, "torch_ode") for name, order in TORCH_ORDERS.items()]
    ):
        steps = COARSEST[order] * 2 ** np.arange(5)
        errors = []
        for n in steps:
            integrator = make_solver(
                solver, method=method, dt=1 / int(n), **({} if device is None else {"device": device})
            )
            assert isinstance(integrator, Integrator)
            errors.append(
                np.abs(integrator.follow(network, constant, start, None, np.array([0.0, 1.0]))[-1] - exact).max()
            )
        observed = -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])
        slack = ORDER_SLACK[order]
        yield Measured("order", f"{method}, {solver}", observed, order - slack, order + slack)


def agreement(nets: int, device: str | None = None) -> Iterator[Measured]:
    """Largest distance of any unit between two solvers, over random networks with saturated units;
    and the number of unconverged samples.

    SLOW solvers are compared on the first tenth of the networks.
    """
    solvers = SETTINGS
    if device is not None:
        solvers = {name: SETTINGS[name] for name in ("anderson", "reference")} | TORCH_SETTINGS
    shares = {name: -(-nets // 10) if name in SLOW else nets for name in solvers}
    for dtype in ("float64", "float32"):
        distance, unconverged = dict.fromkeys(solvers, 0.0), 0
        for seed in range(nets):
            network, images, target = _random_loop(seed, dtype)
            for nudge in (None, Nudge(0.7, target)):
                found = {name: _relax(network, images, name, nudge, device) for name in solvers if seed < shares[name]}
                unconverged += sum(int((~rest.converged).sum()) for rest in found.values())
                for name, rest in found.items():
                    gap = np.abs(flatten(rest.state).astype(np.float64) - flatten(found["anderson"].state)).max()
                    distance[name] = max(distance[name], float(gap))
        for name in solvers:
            if name != "anderson":
                what = f"{name} - anderson, {shares[name]} nets, {dtype}"
                yield Measured("agreement", what, distance[name], 0.0, AGREEMENT[dtype])
        yield Measured("agreement", f"unconverged samples, {dtype}", unconverged, 0, 0)


def closed_form(solver: str = "anderson", device: str | None = None) -> Iterator[Measured]:
    """Eq. 14 from two relaxations against the nudged phase in closed form, in a network whose
    saturated units stay saturated.
    """
    for dtype in ("float64", "float32"):
        network, images, target = _steady_masks()
        network, beta = network.astype(dtype), 0.5
        nudge = Nudge(beta, target.astype(dtype))
        free, nudged = (_relax(network, images.astype(dtype), solver, pull, device) for pull in (None, nudge))
        learned = hebbian_update(network, images.astype(dtype), free, nudged, beta=beta).parameters()
        expected = _expected_update(network, images, free.state, target, beta)
        worst = max(float(np.abs(learned[name] - expected[name]).max()) for name in expected)
        yield Measured("eq. 14", f"update - closed form, {dtype}", worst, 0.0, AGREEMENT[dtype])


def theorem(solver: str = "anderson", device: str | None = None) -> Iterator[Measured]:
    """Tied reciprocal network: eq. 14 of both directions against -dC/dW by central differences of
    the cost at equilibrium.
    """
    network, images, target = _interior_reciprocal()
    gradient = _cost_gradient(network, images, target)
    size = max(float(np.abs(g).max()) for g in gradient.values())

    def error(beta: float, centred: bool, halved: float = 0.0) -> float:
        learned = _rule(network, images, target, beta, centred, solver, device)
        if halved:  # Richardson: the error of the centred rule is O(beta^2) + O(beta^4)
            finer = _rule(network, images, target, halved, centred, solver, device)
            learned = {name: (4 * finer[name] - learned[name]) / 3 for name in finer}
        return max(float(np.abs(learned[name] - gradient[name]).max()) for name in gradient) / size

    betas = 0.2 * 0.5 ** np.arange(2, 6)
    for name, centred, slope in (("one-sided", False, 1), ("centred", True, 2)):
        observed = float(np.polyfit(np.log(betas), np.log([error(beta, centred) for beta in betas]), 1)[0])
        yield Measured(
            "equilibrium propagation", f"{name}, slope of the error in beta", observed, slope - 0.05, slope + 0.05
        )
    yield Measured(
        "equilibrium propagation",
        "centred, beta -> 0: relative distance to -dC/dW",
        error(0.004, True, 0.002),
        0.0,
        1e-8,
    )


def _relax(
    network: Network, images: Array, name: str = "anderson", nudge: Nudge | None = None, device: str | None = None
) -> Equilibrium:
    solver, settings = (SETTINGS | TORCH_SETTINGS)[name]
    if solver.startswith("torch"):
        settings = settings | {"device": device}
    return make_solver(solver, **settings).relax(
        network, drive(network, images), None, nudge, SETTLED[str(network.dtype)]
    )


def _interior_loop() -> Network:
    """Small weights round s = 1/2: no unit saturates, nor does what enters it; ds/dt is linear in
    both forms.
    """
    rng = np.random.default_rng(1)
    network = loop_network([4, 5, 4, 3], dtype=np.float64, rng=rng)
    small = {name: 0.15 * w for name, w in network.parameters().items()}
    return network.with_parameters(
        small | {f"biases[{k}]": rng.uniform(0.35, 0.55, n) for k, n in enumerate(network.sizes[1:])}
    )


def _exact(network: Network, constant: Array, start: State) -> Array:
    """The state after one unit of time, by the matrix exponential of the linear field (no unit
    saturates).
    """
    from scipy.linalg import expm

    units = sum(network.sizes[1:])
    zero = rate.layers(network, np.zeros((1, units)))
    shift = flatten(rate.rate_field(network, constant, tuple(np.repeat(s, len(constant), 0) for s in zero)))
    basis = rate.layers(network, np.eye(units))
    matrix = flatten(rate.rate_field(network, np.repeat(constant[:1], units, 0), basis)) - shift[:1]
    rest = -np.linalg.solve(matrix.T, shift.T).T
    return rest + (flatten(start) - rest) @ expm(matrix)


def _random_loop(seed: int, dtype: str) -> tuple[Network, Array, Array]:
    """A loop of 1 to 3 hidden layers, loop gain below 0.8 (a unique equilibrium), biases that
    saturate units at 0 and at 1.
    """
    rng = np.random.default_rng(seed)
    network = loop_network([4, *rng.integers(3, 12, rng.integers(1, 4)), 3], dtype=np.float64, rng=rng)
    factor = (rng.uniform(0.1, 0.8) / loop_gain(network)) ** (1 / network.depth)
    scaled = {name: factor * w for name, w in network.parameters().items() if name.startswith(("forward", "loop"))}
    scaled |= {f"biases[{k}]": rng.uniform(-0.7, 1.3, n) for k, n in enumerate(network.sizes[1:])}
    return (
        network.with_parameters(scaled).astype(dtype),
        rng.random((4, 4)).astype(dtype),
        np.eye(3, dtype=dtype)[rng.integers(0, 3, 4)],
    )


def _steady_masks() -> tuple[Network, Array, Array]:
    """A network, images and targets for which the nudge changes no mask although some hidden units
    are saturated.
    """
    for seed in itertools.count():
        network, images, target = _random_loop(seed, "float64")
        masks = [_masks(network, images, nudge) for nudge in (None, Nudge(0.5, target))]
        hidden = masks[0][:, : -network.sizes[-1]]
        if (
            (masks[0] == masks[1]).all()
            and (hidden == 0).any()
            and hidden.mean() > 0.3
            and masks[0][:, -network.sizes[-1] :].any()
        ):
            return network, images, target
    raise AssertionError


def _masks(network: Network, images: Array, nudge: Nudge | None) -> Array:
    """(B, N) 1 where a unit lies inside (0, 1), 0 where it is saturated."""
    state = flatten(_relax(network, images, "anderson", nudge).state)
    return ((state > 1e-3) & (state < 1 - 1e-3)).astype(float)


def _expected_update(network: Network, images: Array, free: State, target: Array, beta: float) -> dict[str, Array]:
    """Eq. 14 with y^b = y0 + beta ((1 + beta) I - G_D)^-1 D (d - y0), the hidden layers its linear
    images; in float64.
    """
    layers = [s.astype(np.float64) for s in free]
    weights = [w.astype(np.float64) for w in network.forward]
    sums = {name: np.zeros(w.shape) for name, w in network.parameters().items()}
    assert network.loop is not None
    for sample, image in enumerate(np.asarray(images, np.float64)):
        rates = [s[sample] for s in layers]
        masks = [((r > 1e-4) & (r < 1 - 1e-4)).astype(float) for r in rates]
        # a move of the output, row by row -> moves of each layer
        paths = [network.loop.astype(np.float64) * masks[0]]
        for w, mask in zip(weights, masks[1:], strict=True):
            paths.append(paths[-1] @ w * mask)
        pull = masks[-1] * (target[sample] - rates[-1])
        # (y^b - y0) / beta
        output = np.linalg.solve(((1 + beta) * np.eye(len(pull)) - paths[-1]).T, pull)
        moves = [*(output @ path for path in paths[:-1]), output]
        sums["input"] += np.outer(image, moves[0])
        sums["loop"] += np.outer(rates[-1], moves[0])
        for k, move in enumerate(moves):
            sums[f"biases[{k}]"] += move
            if k:
                sums[f"forward[{k - 1}]"] += np.outer(rates[k - 1], move)
    return {name: total / len(images) for name, total in sums.items()}


def _interior_reciprocal() -> tuple[Network, Array, Array]:
    """A small tied network with every unit far from 0 and 1."""
    rng = np.random.default_rng(2)
    network = reciprocal_network([3, 4, 3, 2], dtype=np.float64, rng=rng)
    small = {name: 0.2 * w for name, w in network.parameters().items()}
    small |= {f"biases[{k}]": rng.uniform(0.3, 0.5, n) for k, n in enumerate(network.sizes[1:])}
    return network.with_parameters(small), rng.random((3, 3)), rng.uniform(0.2, 0.8, (3, 2))


def _rule(
    network: Network, images: Array, target: Array, beta: float, centred: bool, solver: str, device: str | None
) -> dict[str, Array]:
    free, nudged = (_relax(network, images, solver, nudge, device) for nudge in (None, Nudge(beta, target)))
    opposite = _relax(network, images, solver, Nudge(-beta, target), device) if centred else None
    return hebbian_update(network, images, free, nudged, opposite=opposite, beta=beta).parameters()


def _cost_gradient(network: Network, images: Array, target: Array, h: float = 1e-3) -> dict[str, Array]:
    """-dC/dW, C = mean_B 1/2 ||s_L - d||^2 at equilibrium: central differences with one Richardson
    step, O(h^4).
    """

    def cost(name: str, weight: Array) -> float:
        output = _relax(network.with_parameters({name: weight}), images).output
        return float(0.5 * ((output - target) ** 2).sum(1).mean())

    def slope(name: str, weight: Array, place: tuple[int, ...], step: float) -> float:
        moved = [weight.copy(), weight.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        return (cost(name, moved[0]) - cost(name, moved[1])) / (2 * step)

    gradient = {name: np.zeros_like(weight) for name, weight in network.parameters().items()}
    for name, weight in network.parameters().items():
        for place in np.ndindex(weight.shape):
            gradient[name][place] = -(4 * slope(name, weight, place, h) - slope(name, weight, place, 2 * h)) / 3
    return gradient
