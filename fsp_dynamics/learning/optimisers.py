"""Stochastic gradient-like descent for an update that is not a gradient: rates per matrix,
momentum, decay, two safeguards.

Rates transfer across widths when each is divided by the mean squared norm of the rates it
multiplies (normalised LMS):

    lr_W = eta_W / (1 + mean_B ||rho(s_pre^0)||^2)

where the 1 is the constant presynaptic rate of the bias, which shares lr_W with the matrix into
its layer, or has an eta of its own that is divided likewise. Hidden rates have a large common
part, so a batch can still move the input of every sample of an output together and silence it for
good: where the rate is 0 and its input below -beta, no nudge wakes it. Hence `output_step`, the
largest change of an output's mean input that one batch may cause; the output's rates are lowered
in batches that would exceed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsp_dynamics.errors import ConfigurationError, check_positive, nearest
from fsp_dynamics.learning.phases import Phases
from fsp_dynamics.learning.rules import Rule, Term, checked_terms
from fsp_dynamics.learning.rules.update import accumulate, contrast
from fsp_dynamics.learning.schedules import CONSTANT, Schedule
from fsp_dynamics.models.network import Array, Network


@dataclass(frozen=True, slots=True)
class LearningRates:
    """Learning rates eta, one for each matrix, and one for each layer's biases, the output's last;
    without the latter a bias shares the rate of the matrix into its layer.

    >>> rates = LearningRates(20.0, (7.0,), loop=0.5)
    >>> rates.of("input"), rates.of("biases[1]"), rates.scaled(2.0).of("loop")
    (20.0, 7.0, 1.0)
    """

    input: float
    forward: tuple[float, ...]
    loop: float = 0.0
    backward: tuple[float, ...] = ()
    biases: tuple[float, ...] = ()

    def of(self, parameter: str) -> float:
        """The rate of a parameter, by its name in `Network.parameters`.

        Returns
        -------
        float : eta of it.
        """
        name, _, index = parameter.partition("[")
        k = int(index[:-1]) if index else 0
        if name == "biases" and not self.biases:
            return self.input if k == 0 else self.forward[k - 1]
        single = {"input": (self.input,), "loop": (self.loop,)}
        return {**single, "forward": self.forward, "backward": self.backward, "biases": self.biases}[name][k]

    def scaled(self, factor: float) -> LearningRates:
        """All of them times a factor.

        Returns
        -------
        LearningRates : of the same matrices.
        """
        lists = (tuple(factor * rate for rate in each) for each in (self.forward, self.backward, self.biases))
        forward, backward, biases = lists
        return LearningRates(factor * self.input, forward, factor * self.loop, backward, biases)


@dataclass(frozen=True, slots=True)
class Sgd:
    """How an update changes the network.

    Parameters
    ----------
    rates : eta for each matrix, and for biases.
    normalised : divide each rate by 1 + mean_B ||rho(s_pre^0)||^2.
    output_step : the largest change of an output's mean input in one batch (same unit as the
        state); None: no limit.
    momentum : mu in V <- mu V + dW, W <- W + lr V, in [0, 1).
    decay : W <- (1 - lr decay) W before each step, matrices only.
    schedule : the factor of all rates in each epoch.
    frozen : parameters that never change, by their names in `Network.parameters`.

    >>> import fsp_dynamics as fsp
    >>> sgd = Sgd(LearningRates(20.0, (7.0,), loop=0.5), momentum=0.9, frozen=("loop",))
    >>> sgd.check(fsp.loop_network([4, 8, 3]))
    >>> sgd.scheduled(["input", "loop", "forward[0]"], epoch=0)
    {'input': 20.0, 'forward[0]': 7.0}
    """

    rates: LearningRates
    normalised: bool = True
    output_step: float | None = None
    momentum: float = 0.0
    decay: float = 0.0
    schedule: Schedule = CONSTANT
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ConfigurationError(f"momentum = {self.momentum!r}, expected a number in [0, 1)")
        if not (np.isfinite(self.decay) and self.decay >= 0):
            raise ConfigurationError(f"decay = {self.decay!r}, expected a finite number, 0 or more")
        if not callable(getattr(self.schedule, "factor", None)):
            raise ConfigurationError(
                f"schedule = {self.schedule!r}, expected a learning.schedules.Schedule, such as FactorSchedule(0.9)"
            )
        if self.output_step is not None:
            check_positive("output_step", self.output_step)

    def check(self, network: Network) -> None:
        """Refuse rates or frozen names that do not fit the network. Raises ConfigurationError."""
        names = list(network.parameters())
        for name in self.frozen:
            if name not in names:
                raise ConfigurationError(
                    f"frozen names {name!r}, which the network does not have; {nearest(name, names)}"
                )
        for field, rates, matrices in (
            ("forward", self.rates.forward, network.forward),
            ("backward", self.rates.backward, network.backward or ()),
        ):
            if len(rates) != len(matrices):
                raise ConfigurationError(
                    f"rates.{field} has {len(rates)} values, expected {len(matrices)}, one for each {field} matrix"
                )
        if self.rates.biases and len(self.rates.biases) != network.depth:
            raise ConfigurationError(
                f"rates.biases has {len(self.rates.biases)} values, expected {network.depth}, "
                "one for each layer, or none"
            )
        for name in names:
            rate = self.rates.of(name)
            if not (np.isfinite(rate) and rate >= 0):
                raise ConfigurationError(f"the rate of {name} is {rate!r}, expected a finite number, 0 or more")

    def scheduled(self, names: Iterable[str], epoch: int) -> dict[str, float]:
        """eta of each of these parameters after `epoch` finished epochs; none of a frozen one.

        Returns
        -------
        dict : {name: eta}.
        """
        factor = self.schedule.factor(epoch)
        return {name: factor * self.rates.of(name) for name in names if name not in self.frozen}

    def output_shares(self, depth: int) -> tuple[float, float]:
        """(a_W, a_b): the rates of the matrix into the output and of its biases, in units of the
        larger one; (1, 1) where biases share the rate of their matrix.

        Returns
        -------
        tuple of two floats : the larger is 1.
        """
        if not self.rates.biases:
            return 1.0, 1.0
        names = (f"forward[{depth - 2}]", f"biases[{depth - 1}]")
        matrix, biases = (0.0 if name in self.frozen else self.rates.of(name) for name in names)
        largest = max(matrix, biases) or 1.0
        return matrix / largest, biases / largest

    def learning_rates(self, network: Network, phases: Phases, image_norm: float, epoch: int) -> dict[str, float]:
        """lr of each parameter for one batch; `image_norm` is its mean_B ||image||^2, `epoch` the
        number of finished epochs.

        Returns
        -------
        dict : {name: lr}; none of a frozen parameter.
        """
        lr = self.scheduled(network.parameters(), epoch)
        if self.normalised:
            norms = [_mean_square(network.rho.rate(s)) for s in phases.free.state]
            for name in lr:
                lr[name] /= 1 + presynaptic_norm(name, image_norm, norms)
        return lr

    def step(
        self,
        network: Network,
        velocity: dict[str, Array],
        rule: Rule,
        images: Array,
        phases: Phases,
        image_norm: float,
        epoch: int,
    ) -> None:
        """Learn from one batch, in place. `velocity` holds V by name and stays empty without
        momentum.

        images (B, n_in); `image_norm` and `epoch` as in `learning_rates`. Raises ConfigurationError
        for a term of the rule whose parameter the network does not have.
        """
        seen, parameters = contrast(network, phases), network.parameters()
        mean_rates = network.rho.rate(phases.free.state[-2]).mean(0)  # of the layer below the output
        lr, shares = self.learning_rates(network, phases, image_norm, epoch), self.output_shares(network.depth)
        self._decay(parameters, lr)
        if self.momentum:
            for name in lr:
                if name not in velocity:
                    velocity[name] = np.zeros_like(parameters[name])
                velocity[name] *= np.asarray(self.momentum, velocity[name].dtype)
        if seen.rows.size:
            active = images if seen.rows.size == len(images) else images[seen.rows]
            terms = checked_terms(rule, network, active, seen)
            if self.output_step is not None and not self.momentum:
                moved = output_move(terms, network.depth - 1, mean_rates, shares) / len(images)
                self.limit_output(lr, network.depth - 1, moved)
            for term in terms:
                if lr.get(term.parameter, 0.0):
                    self._learn(parameters[term.parameter], velocity, term, lr[term.parameter], len(images))
        if self.momentum:
            if self.output_step is not None:
                self.limit_output(lr, network.depth - 1, velocity_move(parameters, velocity, mean_rates, shares))
            for name, rate in lr.items():
                parameters[name] += np.asarray(rate, velocity[name].dtype) * velocity[name]

    def _learn(self, parameter: Array, velocity: dict[str, Array], term: Term, rate: float, batch: int) -> None:
        if self.momentum:
            accumulate(velocity[term.parameter], term, 1 / batch)
        else:
            accumulate(parameter, term, rate / batch)

    def limit_output(self, lr: dict[str, float], layer: int, moved: Array) -> None:
        """Lower the rates into the output where its input, averaged over the batch, would move by
        more than `output_step`.

        moved (n_L,) is that move where the larger of the two rates is 1: with h_b the free rates
        below the output, h their mean over the batch and (a_W, a_b) the `output_shares`, unit j
        moves by lr/B sum_b (a_b + a_W h.h_b) change_bj; with momentum by
        lr (a_W h @ V_W + a_b V_b)_j.
        """
        largest, names = float(np.abs(moved).max()), (f"forward[{layer - 1}]", f"biases[{layer}]")
        for name, share in zip(names, self.output_shares(layer + 1), strict=True):
            if self.output_step is not None and name in lr and lr[name] * largest > share * self.output_step:
                lr[name] = share * self.output_step / largest

    def _decay(self, parameters: dict[str, Array], lr: dict[str, float]) -> None:
        if self.decay:
            for name, rate in lr.items():
                if not name.startswith("biases"):
                    parameters[name] *= np.asarray(1 - rate * self.decay, parameters[name].dtype)


def output_move(terms: Sequence[Term], layer: int, mean_rates: Any, shares: tuple[float, float] = (1.0, 1.0)) -> Any:
    """How far the output's mean input would move for learning rates `shares` = (a_W, a_b) of its
    matrix and biases and a batch of 1, (n_L,).

        sum_b (a_b + a_W h . x_b) y_b    over the terms x^T y into layer number `layer`, the output

    with a_b for the bias and h = `mean_rates` (n_L-1,) the mean free rates below the output. Takes
    arrays or tensors.
    """
    # by the postsynaptic factor, which matrix and bias often share
    overlaps: dict[int, tuple[Any, Any]] = {}
    matrix, bias = shares
    for term in terms:
        if term.parameter == f"forward[{layer - 1}]" and term.pre is not None and not term.transposed:
            overlap = matrix * (term.pre @ mean_rates)
        elif term.parameter == f"biases[{layer}]":
            overlap = bias
        else:
            continue
        _, known = overlaps.get(id(term.post), (None, 0))
        overlaps[id(term.post)] = term.post, known + overlap
    moves = [
        overlap * post.sum(0) if isinstance(overlap, float) else overlap @ post for post, overlap in overlaps.values()
    ]
    return sum(moves[1:], start=moves[0]) if moves else 0 * mean_rates[:1]


def velocity_move(
    parameters: dict[str, Any], velocity: dict[str, Any], mean_rates: Any, shares: tuple[float, float]
) -> Any:
    """How far the output's mean input would move for learning rates `shares` = (a_W, a_b) of its
    matrix and biases, (n_L,): a_W h @ V_W + a_b V_b.

    Arrays or tensors; V is 0 where a parameter has none.
    """
    last = sum(name.startswith("biases") for name in parameters) - 1
    moved = 0 * parameters[f"biases[{last}]"]
    if f"forward[{last - 1}]" in velocity:
        moved = moved + shares[0] * (mean_rates @ velocity[f"forward[{last - 1}]"])
    return moved + shares[1] * velocity.get(f"biases[{last}]", 0)


def presynaptic_norm(parameter: str, image_norm: float, norms: list[float]) -> float:
    """mean_B ||rho(s_pre)||^2 of the layer that `parameter` (a bias: the matrix into its layer)
    comes from.
    """
    name, _, index = parameter.partition("[")
    k = int(index[:-1]) if index else 0
    if name == "input" or (name == "biases" and k == 0):
        return image_norm
    return {
        "loop": norms[-1],
        "forward": norms[k],
        "backward": norms[min(k + 1, len(norms) - 1)],
        "biases": norms[k - 1],
    }[name]


def _mean_square(rates: Array) -> float:
    return float(np.einsum("ij,ij->", rates, rates)) / len(rates)
