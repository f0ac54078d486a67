"""`learning.optimisers.Sgd` on tensors: the same step, without a number that has to be read from
the device.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from fsp_dynamics.learning.optimisers import Sgd, output_move, presynaptic_norm, velocity_move
from fsp_dynamics.learning.rules import Contrast, Rule, Term
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.torch_backend.tensors import array, tensor


class DeviceSgd:
    """One epoch's optimiser. network : tensors, changed in place. velocity : V by name, as
    tensors.

    cut : samples that do not learn are left out; else they count as zeros, so that shapes do not
    depend on numbers.
    """

    def __init__(self, sgd: Sgd, network: Network, velocity: dict[str, Array], epoch: int, cut: bool) -> None:
        self.sgd, self.network, self.cut = sgd, network, cut
        self.parameters: dict[str, Any] = network.parameters()
        device = network.input.device
        rates, self.shares = sgd.scheduled(self.parameters, epoch), sgd.output_shares(network.depth)
        self.eta = {name: torch.tensor(eta, dtype=torch.float64, device=device) for name, eta in rates.items()}
        self.velocity: dict[str, torch.Tensor] = {}
        if sgd.momentum:
            known = {name: w for name, w in velocity.items() if name in rates}
            self.velocity = {
                name: tensor(known[name], device) if name in known else torch.zeros_like(self.parameters[name])
                for name in rates
            }

    def write_to(self, velocity: dict[str, Array]) -> None:
        """Put V into the dictionary, as arrays."""
        velocity.update({name: array(v) for name, v in self.velocity.items()})

    def step(self, rule: Rule, images: torch.Tensor, contrast: Contrast, learns: torch.Tensor) -> None:
        """Learn from a batch, in place: images (B, n_in), the contrast of all B samples, and which
        of them learn (B,).
        """
        batch, sgd, free = len(images), self.sgd, contrast.free
        mean_rates, lr = free[-2].mean(0), self._learning_rates(images, free)
        self._shrink(lr)
        if self.cut:
            rows = learns.nonzero()[:, 0]
            images, contrast = images[rows], _rows(contrast, rows)
        else:
            contrast = _masked(contrast, learns, images.dtype)
        if len(images):
            terms = list(rule.terms(self.network, images, contrast))
            if sgd.output_step is not None and not sgd.momentum:
                self._limit_output(lr, output_move(terms, self.network.depth - 1, mean_rates, self.shares) / batch)
            for term in terms:
                if sgd.rates.of(term.parameter) and term.parameter in lr:
                    self._add(term, lr[term.parameter], batch)
        if sgd.momentum:
            self._apply(lr, mean_rates)

    def _learning_rates(self, images: torch.Tensor, rates: tuple[Any, ...]) -> dict[str, torch.Tensor]:
        """lr of each parameter, 0-d float64."""
        if not self.sgd.normalised:
            return dict(self.eta)
        image_norm, *norms = (_mean_square(each) for each in (images, *rates))
        return {name: eta / (1 + presynaptic_norm(name, image_norm, norms)) for name, eta in self.eta.items()}

    def _shrink(self, lr: dict[str, torch.Tensor]) -> None:
        """W <- (1 - lr decay) W, V <- mu V."""
        if self.sgd.decay:
            for name, rate in lr.items():
                if not name.startswith("biases"):
                    self.parameters[name].mul_((1 - rate * self.sgd.decay).to(self.network.dtype))
        for v in self.velocity.values():
            v.mul_(self.sgd.momentum)

    def _add(self, term: Term, rate: torch.Tensor, batch: int) -> None:
        """pre.T @ post / batch, into V, or times lr into the parameter."""
        into = self.velocity[term.parameter] if self.sgd.momentum else self.parameters[term.parameter]
        scale: Any = 1 / batch if self.sgd.momentum else (rate / batch).to(into.dtype)
        if term.pre is None:
            into += (term.post * scale).sum(0)
        elif term.transposed:
            into.addmm_(term.post.T, term.pre * scale)
        else:
            into.addmm_(term.pre.T, term.post * scale)

    def _limit_output(self, lr: dict[str, torch.Tensor], moved: torch.Tensor) -> None:
        """Lower the rates into the output where its mean input would move by more than output_step
        (`Sgd.limit_output`).
        """
        assert self.sgd.output_step is not None
        most, last = self.sgd.output_step / moved.abs().max().double(), self.network.depth - 1
        for name, share in zip((f"forward[{last - 1}]", f"biases[{last}]"), self.shares, strict=True):
            if name in lr and share:  # else the rate is 0, and `most` may be infinite
                lr[name] = torch.minimum(lr[name], share * most)

    def _apply(self, lr: dict[str, torch.Tensor], mean_rates: torch.Tensor) -> None:
        """W <- W + lr V."""
        if self.sgd.output_step is not None:
            self._limit_output(lr, velocity_move(self.parameters, self.velocity, mean_rates, self.shares))
        for name, rate in lr.items():
            self.parameters[name].addcmul_(self.velocity[name], rate.to(self.network.dtype))


def _rows(contrast: Contrast, rows: Any) -> Contrast:
    """The contrast of some of the samples."""
    names = ("free", "positive", "negative", "change")
    parts: dict[str, Any] = {name: tuple(s[rows] for s in getattr(contrast, name)) for name in names}
    return Contrast(rows=rows, **parts)


def _masked(contrast: Contrast, learns: torch.Tensor, dtype: torch.dtype) -> Contrast:
    """The contrast with the change 0, and no weight in a mean, where a sample does not learn."""
    change: Any = tuple(torch.where(learns[:, None], c, 0) for c in contrast.change)
    weights: Any = learns.to(dtype) / learns.sum().clamp(min=1)
    return dataclasses.replace(contrast, change=change, weights=weights)


def _mean_square(rates: torch.Tensor) -> torch.Tensor:
    """mean_B ||rates||^2, 0-d float64."""
    flat = rates.flatten()
    return torch.dot(flat, flat).double() / len(rates)
