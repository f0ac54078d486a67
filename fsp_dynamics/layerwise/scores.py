"""How close the activity of a sample is to the target of each class, and the loss made of that.

    scaled_dot        h . t / sqrt(n)                       O_dot of eq. 6
    l2                -|h - t|^2                            minus O_l2 of eq. 7
    cosine            temperature h . t / (|h| |t|)
    centred_cosine    the same of h and t, each minus its mean over the n features

The logits of eq. 9 are +O_dot: with the minus that stands there, training and prediction would have
to agree on the sign, and the errors are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional

from fsp_dynamics.errors import check_choice, check_positive
from fsp_dynamics.layerwise.signal import Signal


def scaled_dot(h: torch.Tensor, t: torch.Tensor, temperature: float) -> torch.Tensor:
    """h . t / sqrt(n)."""
    return dot(h, t) / math.sqrt(h.shape[1])


def l2(h: torch.Tensor, t: torch.Tensor, temperature: float) -> torch.Tensor:
    """-|h - t|^2, as 2 h . t - |h|^2 - |t|^2."""
    return 2 * dot(h, t) - h.square().sum(-1, keepdim=True) - t.square().sum(-1)


def cosine(h: torch.Tensor, t: torch.Tensor, temperature: float) -> torch.Tensor:
    """temperature h . t / (|h| |t|)."""
    return temperature * dot(functional.normalize(h, dim=-1), functional.normalize(t, dim=-1))


def centred_cosine(h: torch.Tensor, t: torch.Tensor, temperature: float) -> torch.Tensor:
    """The cosine of h and t, each minus its mean over the features: their correlation."""
    return cosine(h - h.mean(-1, keepdim=True), t - t.mean(-1, keepdim=True), temperature)


def dot(h: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """(B, classes), h (B, n) with every target: t (classes, n), or (B, classes, n) of its own."""
    return h @ t.T if t.ndim == 2 else torch.einsum("bn,bcn->bc", h, t)


class Closeness(Protocol):
    """How close what a stage made is to the targets of the classes."""

    def __call__(self, signal: Signal) -> torch.Tensor:
        """(B, classes)."""
        ...

    def loss(self, signal: Signal, labels: torch.Tensor) -> torch.Tensor:
        """What is learned from it, with labels (B,).

        Returns
        -------
        tensor : a number.
        """
        ...


SCORES: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "scaled_dot": scaled_dot,
    "l2": l2,
    "cosine": cosine,
    "centred_cosine": centred_cosine,
}
"""The scores, by the names that a configuration gives them: functions of h (B, n), t (classes, n)
or (B, classes, n), and the temperature.
"""


@dataclass(frozen=True, slots=True)
class Score:
    """One of `SCORES`, with its temperature. Raises ConfigurationError for an unknown name and for
    a temperature that is not positive.

    >>> h, t = torch.eye(3)[:1], torch.eye(3)
    >>> Score("cosine", 20.0)(Signal(h, t)).tolist()
    [[20.0, 0.0, 0.0]]
    >>> round(Score("cosine", 1.0).loss(Signal(h, t), torch.tensor([0])).item(), 4)
    0.5514
    """

    name: str = "centred_cosine"
    temperature: float = 20.0

    def __post_init__(self) -> None:
        check_choice("score", self.name, SCORES)
        check_positive("temperature", self.temperature)

    def __call__(self, signal: Signal) -> torch.Tensor:
        """(B, classes): the closeness of every activity to the target of each class (eq. 8). Where
        targets are smaller maps than activities, the activities are averaged to their size.
        """
        assert signal.t is not None
        h = averaged(signal.h, signal.t) if signal.h.ndim == 4 else signal.h
        t = signal.t.flatten(signal.t.ndim - h.ndim + 1)
        return SCORES[self.name](h.flatten(1), t, self.temperature)

    def loss(self, signal: Signal, labels: torch.Tensor) -> torch.Tensor:
        """L_pred, eq. 9: the cross-entropy of the scores as logits.

        Returns
        -------
        tensor : a number.
        """
        return functional.cross_entropy(self(signal), labels)


def averaged(h: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """h (B, channels, H, W), averaged to the height and width of the targets."""
    size = t.shape[-2:]
    if h.shape[-2:] == size:
        return h
    # a mean keeps nothing for the backward pass, where pooling would keep its whole input
    return h.mean((-2, -1), keepdim=True) if size == (1, 1) else functional.adaptive_avg_pool2d(h, size)
