"""The images and networks of one explorer, with manually applied updates."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from fsp_dynamics.datasets import Dataset, load_dataset
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.own import fitted_rates
from fsp_dynamics.experiments.rate.building import build_recipe, require_rate
from fsp_dynamics.experiments.rate.restoring import require_fit
from fsp_dynamics.experiments.run import Run, Which, open_run
from fsp_dynamics.explorer.controls import ANY, RANDOM, Parameters
from fsp_dynamics.learning.optimisers import Sgd
from fsp_dynamics.learning.phases import Phases
from fsp_dynamics.learning.rules import Rule
from fsp_dynamics.learning.rules.hebbian import HEBBIAN
from fsp_dynamics.learning.schedules import CONSTANT
from fsp_dynamics.models.activations import ACTIVATIONS, Activation, activation
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.network import Array, Network

HIDDEN = (48, 32)  # of the default random network: small enough to see every unit
LOOP_SCALE = 0.2
PRECISE = 100_000  # number of weights up to which float64 is used
GIVEN, TRAINED = "given", "trained"
Key = tuple[str, int]


@dataclass(slots=True)
class Session:
    """The images and networks of one explorer, and the updates applied to them.

    data : the data set; its test images are shown. source : "given", "trained" (a run) or
        "random". run : the run, or None.
    template : the network explored, or one like it. optimiser : applies updates of `rule` (that of
        the run, or eq. 14), with rates divided by `batch`.
    """

    data: Dataset
    source: str
    template: Network
    optimiser: Sgd
    rule: Rule
    batch: int
    run: Run | None = None
    learned: dict[Key, tuple[Network, int]] = field(default_factory=dict)
    loaded: dict[Key, Network] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Network | Run | str | Path | None, dataset: str | Dataset | None = None) -> Session:
        """A network, a run or its folder, or None for a random network of 48 and 32 hidden units;
        a data set or its name.

        None as data set: the run's, otherwise digits. Raises ConfigurationError if images and
        network do not match, and the package's errors for runs or data that cannot be read.
        """
        run = open_run(given) if isinstance(given, str | Path) else given if isinstance(given, Run) else None
        data = (
            dataset
            if isinstance(dataset, Dataset)
            else run.data()
            if run is not None and dataset is None
            else load_dataset(dataset or "digits")
        )
        if run is not None:
            recipe = build_recipe(run.config, objects=run.objects)
            network = run.network()
            if dataset is None:
                require_fit(network, data)
            return cls(data, TRAINED, network, recipe.optimiser, recipe.rule, recipe.batch, run)._fitting()
        pixels = data.test.images.shape[1]
        network = (
            given if given is not None else loop_network([pixels, *HIDDEN, data.classes], loop_scale=LOOP_SCALE, rng=0)
        )
        if not isinstance(network, Network):
            raise ConfigurationError(
                f"explore was given a {type(network).__name__}, expected a Network, a run or its folder, or None"
            )
        config = require_rate(load_config("digits", {})[1], "explore").learning
        backward = 0 if network.backward is None else network.depth - 1
        own = fitted_rates(network.depth - 1, network.loop is not None, backward)
        optimiser = Sgd(own, output_step=config.output_step)
        return cls(data, RANDOM if given is None else GIVEN, network, optimiser, HEBBIAN, config.batch)._fitting()

    def _fitting(self) -> Session:
        pixels = self.data.test.images.shape[1]
        if self.template.sizes[0] != pixels or self.template.sizes[-1] != self.data.classes:
            raise ConfigurationError(
                f"the network is {self.template.sizes[0]} - {self.template.sizes[-1]}, "
                f"expected {pixels} pixels and {self.data.classes} classes "
                f"as in {self.data.name}; pass dataset= the matching name or Dataset"
            )
        return self

    @property
    def images(self) -> Array:
        """(B, n_in) the test images."""
        return self.data.test.images

    @property
    def classes(self) -> int:
        return self.data.classes

    @property
    def side(self) -> int | None:
        """Pixels per side of an image; None if it is not square."""
        _, height, width = self.data.planes
        return height if height == width else None

    @property
    def coloured(self) -> bool:
        """Whether an image is three planes."""
        return self.data.planes[0] > 1

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.template.sizes

    @property
    def has_loop(self) -> bool:
        return self.template.loop is not None

    @property
    def rho(self) -> Activation:
        return self.template.rho

    @property
    def activations(self) -> tuple[str, ...]:
        """Names of the available firing-rate functions, including the network's own."""
        return tuple(dict.fromkeys([*ACTIVATIONS, self.rho.name]))

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs whose networks the run has kept, in order; empty without a run."""
        if self.run is None:
            return ()
        ends = {record["epoch"] for record in (self.run.summary["best"], self.run.summary["last"]) if record}
        return tuple(sorted({*self.run.kept, *ends}))

    @property
    def start_epoch(self) -> int:
        """The epoch shown first: the best."""
        best = self.run.summary["best"] if self.run else None
        return int(best["epoch"]) if best else (self.epochs or (0,))[-1]

    def which(self, epoch: int) -> Which | int:
        """The argument of `Run.network` for that epoch."""
        ends: dict[int, Which] = {}
        for which in get_args(Which):
            record = self.run.summary[which] if self.run else None
            if record:
                ends.setdefault(record["epoch"], which)
        return ends.get(epoch, epoch)

    def rows(self, label: str) -> Array:
        """Indices of the test images of that class, or of all images."""
        labels = self.data.test.labels
        return np.arange(len(labels)) if label == ANY else np.flatnonzero(labels == int(label))

    def key(self, parameters: Parameters) -> Key:
        """The key of the weights that the parameters select."""
        if parameters.source == RANDOM:
            return RANDOM, parameters.seed
        return parameters.source, parameters.epoch if parameters.source == TRAINED else 0

    def weights(self, parameters: Parameters) -> tuple[Network, int]:
        """(network with the selected weights, number of manually applied updates)."""
        key = self.key(parameters)
        if key in self.learned:
            return self.learned[key]
        if key not in self.loaded:
            self.loaded[key] = self._precise(self._made(key))
        return self.loaded[key], 0

    def network(self, parameters: Parameters) -> Network:
        """That network with the loop, time constants and firing-rate function of the parameters."""
        base, _ = self.weights(parameters)
        return dataclasses.replace(
            base,
            loop=None if base.loop is None else base.loop * parameters.gain,
            time_constants=tuple(parameters.r * r for r in base.time_constants),
            rho=self.rho if parameters.rho == self.rho.name else activation(parameters.rho),
        )

    def learn(self, parameters: Parameters, images: Array, phases: Phases) -> None:
        """Apply one update from these phases to the selected weights, scaled as one image of a
        batch.
        """
        base, times = self.weights(parameters)
        smaller = self.optimiser.rates.scaled(parameters.learning_rate / self.batch)
        optimiser = dataclasses.replace(self.optimiser, rates=smaller, momentum=0.0, decay=0.0, schedule=CONSTANT)
        changed = base.copy()
        optimiser.step(changed, {}, self.rule, images, phases, float((images**2).sum()) / len(images), 0)
        self.learned[self.key(parameters)] = changed, times + 1

    def forget(self, parameters: Parameters) -> None:
        """Restore the selected weights from before any update."""
        self.learned.pop(self.key(parameters), None)

    def _made(self, key: Key) -> Network:
        source, number = key
        if source == RANDOM:
            return self._random(number)
        if self.run is None or number == self.start_epoch:
            return self.template
        return self.run.network(self.which(number))

    def _random(self, seed: int) -> Network:
        like = self.template
        if like.loop is None:
            return reciprocal_network(
                like.sizes, tied=like.tied, time_constants=like.time_constants, dtype=like.dtype, rng=seed
            )
        return loop_network(
            like.sizes, loop_scale=LOOP_SCALE, time_constants=like.time_constants, dtype=like.dtype, rng=seed
        )

    def _precise(self, network: Network) -> Network:
        size = sum(w.size for w in network.parameters().values())
        return network.astype(np.float64) if size <= PRECISE else network
