"""`learning.optimisers.Sgd` on tensors: the same step, without a number that has to be read from
the device.
"""

from __future__ import annotations

from typing import Any

import torch

from fsp_dynamics.learning.optimisers import Sgd, presynaptic_norm
from fsp_dynamics.learning.rules.hebbian import Term, terms
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.torch_backend.tensors import array, tensor

Rates = dict[str, torch.Tensor]


class DeviceSgd:
    """One epoch's optimiser. network : tensors, changed in place. velocity : V by name, as
    tensors.

    cut : rows that do not learn are left out; else they learn nothing, so that shapes do not
    depend on numbers.
    """

    def __init__(self, sgd: Sgd, network: Network, velocity: dict[str, Array], epoch: int, cut: bool) -> None:
        self.sgd, self.network, self.cut = sgd, network, cut
        self.parameters: dict[str, Any] = network.parameters()
        device = network.input.device
        names = [name for name in self.parameters if name not in sgd.frozen]
        self.eta = {
            name: torch.tensor(sgd.rate_factor**epoch * sgd.rates.of(name), dtype=torch.float64, device=device)
            for name in names
        }
        self.velocity: Rates = {}
        if sgd.momentum:
            known = {name: w for name, w in velocity.items() if name in names}
            self.velocity = {
                name: tensor(known[name], device) if name in known else torch.zeros_like(self.parameters[name])
                for name in names
            }

    def write_to(self, velocity: dict[str, Array]) -> None:
        """V as arrays."""
        velocity.update({name: array(v) for name, v in self.velocity.items()})

    def step(
        self, images: torch.Tensor, rates: list[torch.Tensor], change: list[torch.Tensor], learns: torch.Tensor
    ) -> None:
        """Learn from a batch, in place: images (B, n_in), the free rates and their changes per
        unit beta (B, n_k), and who learns (B,).
        """
        batch, sgd = len(images), self.sgd
        mean_rates, lr = rates[-2].mean(0), self._learning_rates(images, rates)
        self._shrink(lr)
        if self.cut:
            rows = learns.nonzero()[:, 0]
            images, rates, change = images[rows], [r[rows] for r in rates], [c[rows] for c in change]
        else:
            change = [torch.where(learns[:, None], c, 0) for c in change]
        if len(images):
            weight = None if self.cut else learns.to(images.dtype) / learns.sum().clamp(min=1)
            if sgd.output_step is not None and not sgd.momentum:
                overlap = 1 + self._entering(rates[-2], weight) @ mean_rates
                self._limit_output(lr, overlap @ change[-1] / batch)
            for term in terms(self.network, images, tuple(rates), tuple(change)):
                if sgd.rates.of(term.parameter) and term.parameter in lr:
                    self._add(term, weight, lr[term.parameter], batch)
        if sgd.momentum:
            self._apply(lr, mean_rates)

    def _learning_rates(self, images: torch.Tensor, rates: list[torch.Tensor]) -> Rates:
        """lr of each parameter, 0-d float64."""
        if not self.sgd.normalised:
            return dict(self.eta)
        image_norm, *norms = (_mean_square(each) for each in (images, *rates))
        return {name: eta / (1 + presynaptic_norm(name, image_norm, norms)) for name, eta in self.eta.items()}

    def _shrink(self, lr: Rates) -> None:
        """W <- (1 - lr decay) W, V <- mu V."""
        if self.sgd.decay:
            for name, rate in lr.items():
                if not name.startswith("biases"):
                    self.parameters[name].mul_((1 - rate * self.sgd.decay).to(self.network.dtype))
        for v in self.velocity.values():
            v.mul_(self.sgd.momentum)

    def _entering(self, rates: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """Presynaptic rates (A, n) as they enter the rule; weight (A,) : of each in their mean,
        None where all count the same.
        """
        if self.sgd.presynaptic == "whole":
            return rates
        return rates - (rates.mean(0) if weight is None else weight @ rates)

    def _add(self, term: Term, weight: torch.Tensor | None, rate: torch.Tensor, batch: int) -> None:
        """left.T @ right / batch, into V, or times lr into the parameter."""
        into = self.velocity[term.parameter] if self.sgd.momentum else self.parameters[term.parameter]
        right = term.right * (1 / batch if self.sgd.momentum else (rate / batch).to(into.dtype))
        if term.left is None:
            into += right.sum(0)
        else:
            into.addmm_(self._entering(term.left, weight).T, right)

    def _limit_output(self, lr: Rates, moved: torch.Tensor) -> None:
        """Lower the rates into the output where its mean input would move by more than output_step
        (`Sgd.limit_output`).
        """
        assert self.sgd.output_step is not None
        most, last = self.sgd.output_step / moved.abs().max().double(), self.network.depth - 1
        for name in (f"forward[{last - 1}]", f"biases[{last}]"):
            if name in lr:
                lr[name] = torch.minimum(lr[name], most)

    def _apply(self, lr: Rates, mean_rates: torch.Tensor) -> None:
        """W <- W + lr V."""
        if self.sgd.output_step is not None:
            last = self.network.depth - 1
            matrix, moved = (
                self.velocity.get(f"forward[{last - 1}]"),
                torch.zeros_like(self.parameters[f"biases[{last}]"]),
            )
            if matrix is not None:
                moved = moved + mean_rates @ matrix
            self._limit_output(lr, moved + self.velocity.get(f"biases[{last}]", 0))
        for name, rate in lr.items():
            self.parameters[name].addcmul_(self.velocity[name], rate.to(self.network.dtype))


def _mean_square(rates: torch.Tensor) -> torch.Tensor:
    """mean_B ||rates||^2, 0-d float64."""
    flat = rates.flatten()
    return torch.dot(flat, flat).double() / len(rates)
