"""The learners of discrete networks, one file each, behind one protocol.

A learner is a network, what else it needs to learn (`auxiliary`), and its `stages`. One of your own
inherits `Learner`, and a line of `names.LEARNERS` lets a configuration name it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import torch
from torch import nn

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.layerwise.names import LEARNERS, VERSIONS
from fsp_dynamics.layerwise.networks import LayerwiseNetwork, Shape
from fsp_dynamics.layerwise.properties import Properties
from fsp_dynamics.layerwise.scores import Score
from fsp_dynamics.layerwise.signal import Signal
from fsp_dynamics.layerwise.stages import Stage, autocast

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a learner learns.

    rate, output_rate : of Adam, in the blocks and in the classification layer. version : of figure
    2, "2a" without a classification layer, "2b" with one (forward signal propagation alone).
    generator, sparse, layer_norm, eta : of the targets (`targets.TargetGenerator`). score : of an
    activity and the targets; compared : of those of a spiking network (`spiking.MembraneScore`).
    dropout, normalised : of the blocks (`blocks.Block`). precision : of
    forward passes and losses, one of `names.PRECISIONS`.

    >>> Settings(rate=1e-3).output_rate
    0.005
    """

    rate: float = 5e-4
    output_rate: float = 5e-3
    version: str = "2b"
    generator: str = "target-only"
    sparse: int | None = None
    layer_norm: bool = True
    eta: float = 1.0
    score: Score = field(default_factory=Score)
    compared: str = "voltage"
    dropout: float = 0.1
    normalised: bool = True
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_choice("targets.version", self.version, VERSIONS)


class Learner:
    """A network that learns.

    network : what predicts. auxiliary : modules that serve learning alone. stages : in the order in
    which they run, made by `make_stages`, which every learner has. Where one differs from a pass
    over its stages, it overrides `begin` and `learn`.

    >>> from fsp_dynamics.layerwise.networks import LayerwiseNetwork, mlp
    >>> from fsp_dynamics.layerwise.stages import OutputStage
    >>> class Last(Learner):
    ...     name = "last"
    ...     def make_stages(self):
    ...         self.add("layer1", nn.Linear(6, 6))  # serves learning alone
    ...         self.add_exit("layer1", nn.Linear(6, 3))  # a layer predicts by it
    ...         return [OutputStage(self.network, self.settings.output_rate)]
    >>> learner = Last(LayerwiseNetwork(mlp([6]), (1, 2, 3), 3), Settings())
    >>> learner.begin(torch.zeros(4, 6)).h.shape, learner.device.type
    (torch.Size([4, 6]), 'cpu')
    >>> learner.learn(torch.rand(4, 6), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3])
    >>> {name: tuple(scores.shape) for name, scores in learner.scores(torch.rand(4, 6)).items()}
    {'output': (4, 3)}
    >>> with learner.predicting():
    ...     learner.predicted(Signal(torch.zeros(4, 3))).shape
    torch.Size([4, 3])
    """

    name: ClassVar[str]
    """As configurations name it."""
    only_units: ClassVar[bool] = False
    """Whether it is defined for networks of units alone, without convolutions."""
    takes_spikes: ClassVar[bool] = False
    """Whether it is defined for spiking networks."""
    has_targets: ClassVar[bool] = False
    """Whether [targets] and [score] belong to it."""
    properties: ClassVar[Properties | None] = None
    """Its row of figure 1; None where that has none."""
    is_forward_unlocked: bool = False
    """Whether every stage has learned before the next one runs, and needs nothing of later ones, so
    that stages may learn at the same time from batches one after the other.
    """
    locked_by: str = "its layers wait for an error of the output"
    """Why not, in words."""

    def __init__(self, network: LayerwiseNetwork, settings: Settings, seed: int = 0) -> None:
        """seed : of what the learner draws beside the network. Raises ConfigurationError where the
        network or the settings do not suit it.
        """
        if self.only_units and network.shape.is_conv:
            raise ConfigurationError(
                f"learning.learner = {self.name!r} is for networks of units, and network.kind has convolutions; "
                "choose network.kind = 'mlp', or another learner"
            )
        if network.shape.neuron is not None and not self.takes_spikes:
            raise ConfigurationError(
                f"learning.learner = {self.name!r} is not defined for spiking networks (network.kind = 'snn'); choose "
                "fsp, bp or shallow"
            )
        self.network, self.settings, self.seed = network, settings, seed
        self.auxiliary = nn.ModuleDict()
        self.stages = tuple(self.make_stages())
        if settings.precision == "float16":  # whose gradients would vanish without a scale
            for stage in self.stages:
                stage.scaler = torch.amp.GradScaler(self.device.type)

    def make_stages(self) -> list[Stage]:
        """What learns, in order; modules beside the network are put into `auxiliary` by `add`,
        what layers predict by into the network by `add_exit`.

        Returns
        -------
        list of Stage
        """
        raise NotImplementedError

    def add(self, name: str, module: Module) -> Module:
        """The module, where the network is and in its precision, kept in `auxiliary`.

        Returns
        -------
        Module : the same.
        """
        self.auxiliary[name] = self._placed(module)
        return module

    def add_exit(self, name: str, module: Module) -> Module:
        """The same for what a layer predicts by: it is kept with the network, as predictions need
        it.

        Returns
        -------
        Module : the same.
        """
        self.network.exits[name] = self._placed(module)
        return module

    def _placed(self, module: Module) -> Module:
        like = next(self.network.parameters())
        return module.to(like.device, like.dtype)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def begin(self, images: torch.Tensor) -> Signal:
        """What enters the first stage, of images (B, pixels).

        Returns
        -------
        Signal : h in the shape that the first block takes.
        """
        return Signal(self.network.images(images))

    def learn(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Learn from one batch, images (B, pixels) and labels (B,). Raises NotFiniteError.

        Returns
        -------
        tensor : (B, classes), the scores of the predictions made while learning.
        """
        signal, precision = self.begin(images), autocast(self.settings.precision, self.device)
        for stage in self.stages:
            signal = stage.step(signal, labels, precision)
        return self.predicted(signal)

    def predicted(self, signal: Signal) -> torch.Tensor:
        """The scores that the last stage gives.

        Returns
        -------
        tensor : (B, classes).
        """
        return self.stages[-1].scores(signal.detach())

    def scores(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """What every exit takes images for; no label is needed.

        Returns
        -------
        dict : {exit: scores (B, classes)}, the last that of the prediction.
        """
        found = {}
        with self.predicting(), torch.no_grad():
            signal = self.begin(images)
            for stage in self.stages:
                signal = stage.forward(signal)
                if stage.is_exit:
                    found[stage.name] = stage.scores(signal)
        return found

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """Within the block batch norm takes its running statistics, and nothing is dropped.

        Returns
        -------
        context manager
        """
        self.network.eval()
        self.auxiliary.eval()
        try:
            yield
        finally:
            self.network.train()
            self.auxiliary.train()


def learner_class(name: str) -> type[Learner]:
    """The learner of that name, imported now. Raises ConfigurationError for an unknown one."""
    found: type[Learner] | str = LEARNERS[check_choice("learning.learner", name, LEARNERS)]
    if not isinstance(found, str):
        return found
    module, attribute = found.split(":")
    loaded: type[Learner] = getattr(importlib.import_module(module), attribute)
    return loaded


def make_learner(
    name: str,
    shape: Shape,
    image_shape: tuple[int, int, int],
    classes: int,
    settings: Settings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Learner:
    """A learner of that name, whose network is drawn from the seed: the same blocks for every
    learner. Raises ConfigurationError for an unknown name, and where the images, the shape or the
    settings do not suit it.

    Returns
    -------
    Learner : its network in training mode.

    >>> from fsp_dynamics.layerwise.networks import mlp
    >>> learner = make_learner("fsp", mlp([50, 50]), (1, 8, 8), 10)
    >>> [stage.name for stage in learner.stages], list(learner.scores(torch.zeros(3, 64)))
    (['layer1', 'layer2', 'output'], ['layer1', 'layer2', 'output'])
    """
    kind, given = learner_class(name), settings or Settings()
    network = LayerwiseNetwork(
        shape,
        image_shape,
        classes,
        head=given.version == "2b" or not kind.has_targets,
        dropout=given.dropout,
        normalised=given.normalised,
        sparse=given.sparse is not None and kind.has_targets,
        seed=seed,
    )
    return kind(network.to(device, dtype), given, seed)


def figure1() -> dict[str, Properties]:
    """{learner: its row of figure 1}, in the order of the figure; user-made learners come last.

    >>> {name: row.title for name, row in figure1().items()}["dtp"]
    'TP'
    """
    found = ((name, learner_class(name).properties) for name in LEARNERS)
    return dict(sorted(((name, row) for name, row in found if row is not None), key=lambda each: each[1].figure))
