"""`RateTrainer`: rate networks behind the protocol of the runner (`experiments.trainer`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.datasets.formats import ImageFormat
from fsp_dynamics.errors import ConfigurationError, NoConvergenceError
from fsp_dynamics.experiments.objects import Objects
from fsp_dynamics.experiments.random_state import restore_generator
from fsp_dynamics.experiments.rate.building import asked_tolerance, build_network, build_recipe, misfit, network_with
from fsp_dynamics.experiments.rate.config import RateConfig
from fsp_dynamics.experiments.rate.probing import Probing
from fsp_dynamics.experiments.rate.restoring import average_of, check_state, require_fit
from fsp_dynamics.experiments.rate.stuck import Counts, about_stuck, stuck_before_learning
from fsp_dynamics.experiments.records import plain
from fsp_dynamics.experiments.trainer import Leave, OnBatch, Record, Resources, TrainingState
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.training.engine import engine_of, slow_rule
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.evaluation import Evaluation, evaluate
from fsp_dynamics.training.prediction import Prediction, predict
from fsp_dynamics.training.recipe import COARSE, Learner, Recipe
from fsp_dynamics.training.warm_start import warm_start_of

ACTIVATIONS_HOME = "fsp_dynamics.models.activations"  # where those of the package are defined
NEAR_ONE = 0.9  # ||G_D|| from which on a user is warned
_CONVERGE = "weaken the loop (network.loop_scale, learning.rates.loop) or loosen solver.absolute"


class RateTrainer:
    """A rate network that learns by `training.epoch.train_epoch`."""

    def __init__(
        self, config: RateConfig, data: Dataset, resources: Resources, recipe: Recipe, learner: Learner
    ) -> None:
        self.config, self.data, self.resources, self.recipe, self.learner = config, data, resources, recipe, learner
        self.probing = Probing.of(config, data, recipe)
        self.stuck_at_first: Counts | None = None

    @classmethod
    def check(cls, config: RateConfig, resources: Resources) -> None:
        """Raises ConfigurationError for settings that the solver refuses, for a firing rate that
        another process cannot know, and for mirror phases of a frozen loop, which runs of before
        this was refused go on with.
        """
        objects, name, learning = resources.objects, config.network.rho, config.learning
        if learning.mirror and "loop" in learning.frozen and not resources.restored:
            raise ConfigurationError(
                f"learning.mirror = {learning.mirror!r} moves the loop, which learning.frozen names; leave out one of "
                "them (learning.mirror=None)"
            )
        build_recipe(config, resources.backend, resources.local_rank, objects)
        rho = objects.activation(name)
        if resources.elsewhere and name in ACTIVATIONS and ACTIVATIONS[name].rate.__module__ != ACTIVATIONS_HOME:
            raise ConfigurationError(
                f"network.rho = {name!r} is registered in this process alone; leave out jobs and scheduler"
            )
        if config.probes.samples and not rho.projected and rho.curvature is None:
            raise ConfigurationError(
                f"network.rho = {name!r} has no curvature, which the probes' gradients need; "
                "give Activation(..., curvature=...), or probes.samples = 0"
            )

    @classmethod
    def build(
        cls, config: RateConfig, data: Dataset, resources: Resources, network: Network | None = None
    ) -> RateTrainer:
        """See `Trainer.build`."""
        objects = resources.objects
        recipe = build_recipe(config, resources.backend, resources.local_rank, objects, data.image_shape)
        drawn, rng = build_network(config, data.train.images.shape[1], data.classes, objects)
        if network is None and config.network.initial is not None and not resources.restored:
            raise ConfigurationError(
                f"network.initial = {config.network.initial!r} stands for a network given in Python; "
                "give it again (network=...), or leave the key out to draw one from the seed"
            )
        if network is not None:
            (require_fit if resources.restored else _check_fits)(network, data)
        return cls(config, data, resources, recipe, Learner.start(network or drawn, recipe, rng))

    @classmethod
    def network_of(cls, config: RateConfig, parameters: dict[str, Array], objects: Objects) -> Network:
        """See `Trainer.network_of`."""
        return network_with(config, parameters, objects)

    @classmethod
    def predict(
        cls, config: RateConfig, network: Network, images: Array, known: ImageFormat, resources: Resources
    ) -> Prediction:
        """See `Trainer.predict`."""
        recipe = build_recipe(config, resources.backend, resources.local_rank, resources.objects)
        return predict(network, images, recipe, known)

    @property
    def description(self) -> str:
        """The backend, and the shards into which batches are divided where that changes bits."""
        given = self.resources
        in_shards = engine_of(self.learner.network, self.recipe, given.ranks).in_shards
        return given.backend.described(given.local_rank, given.ranks.shards if in_shards else 1)

    @property
    def network(self) -> Network:
        """The network that the run gives: the average, if one is taken."""
        return self.learner.averaged

    @property
    def finished(self) -> int:
        """Finished epochs."""
        return self.learner.epoch

    def epoch(self, on_batch: OnBatch | None = None, leave: Leave | None = None) -> Record:
        """One epoch; `EpochReport` as a mapping."""
        number, split = self.learner.epoch + 1, self.data.train
        report = train_epoch(
            self.learner,
            split,
            self.recipe,
            on_batch,
            probe=self.probing.within(number, resumed=self.learner.unfinished is not None),
            every=self.probing.every or 1,
            ranks=self.resources.ranks,
            leave=leave,
        )
        if report.unconverged >= len(split.labels):
            raise NoConvergenceError(f"no sample of epoch {number} converged, nothing was learned; {_CONVERGE}")
        return report.as_dict()

    def evaluate(self, part: str) -> Evaluation | None:
        """The free phase on these images, of the average of the weights if one is taken."""
        return self._evaluate(part, self.learner.averaged)

    def _evaluate(self, part: str, network: Network) -> Evaluation | None:
        split = getattr(self.data, part)
        if not len(split.labels):
            return None
        # the warm start of the weights that learn; it only saves passes
        warm_start, ranks = self.learner.warm_start, self.resources.ranks
        found = evaluate(network, split, self.recipe, warm_start=warm_start, ranks=ranks)
        return dataclasses.replace(found, class_names=self.data.class_names)

    def probe(self) -> list[Record]:
        """`analysis.probe.Probe.look`, and the angles within the epoch, of what learns."""
        return self.probing.look(self.learner.epoch, self.learner.network)

    def metrics(self, evaluations: Mapping[str, Evaluation | None], probed: Record) -> Record:
        """Unconverged samples, angles, the gain of the loop, saturation on the test images, and
        units that are stuck on the validation images (on the test images where there are none);
        the errors of the weights that learn, where their average is judged.
        """
        test, stability = evaluations.get("test"), probed.get("stability", {})
        judged = evaluations.get("valid") or test
        return {
            **{f"{part}_unconverged": found.unconverged if found else None for part, found in evaluations.items()},
            "alignment_degrees": probed.get("alignment", {}).get("degrees", {}),
            **{key: stability[key] for key in ("loop_norm", "loop_norm_max", "kink_margin") if stability},
            "saturation": test.saturation if test else {},
            "stuck_units": judged.stuck if judged else {},
            **self._raw_errors(evaluations),
        }

    def _raw_errors(self, evaluations: Mapping[str, Evaluation | None]) -> Record:
        if self.recipe.average is None:
            return {}
        learner = self.learner
        found = {
            part: self._evaluate(part, learner.network) if learner.average.samples else known
            for part, known in evaluations.items()
        }
        return {f"raw_{part}_error": each.error if each else None for part, each in found.items()}

    def state(self) -> TrainingState:
        """Parameters, velocity, warm start and random stream; between two batches also where the
        epoch stands, and what was measured in it. Where the weights are averaged, the parameters
        are the average, beside which the weights that learn are kept ("raw/").
        """
        learner = self.learner
        parts = {
            "parameters": learner.averaged.parameters(),
            "raw": learner.network.parameters() if learner.average.samples else {},
            "velocity": learner.velocity,
            "warm_start": {} if learner.warm_start is None else learner.warm_start.arrays(),
            "epoch": {} if learner.unfinished is None else learner.unfinished.arrays(),
        }
        arrays = {f"{part}/{name}": np.array(a) for part, found in parts.items() for name, a in found.items()}
        values: Record = {"rng": learner.rng.bit_generator.state}
        if self.recipe.average is not None:
            values["averaged"] = learner.average.samples
        if learner.unfinished is not None:
            values["probes"] = plain(self.probing.waiting)
        return TrainingState(learner.epoch, arrays, values)

    def restore(self, state: TrainingState) -> None:
        """See `Trainer.restore`."""
        learner, unfinished = self.learner, state.part("epoch")
        given = {name: np.array(a) for name, a in state.parameters.items()}
        network = network_with(self.config, given, self.resources.objects)
        check_state(state, network, self.recipe, self.data)
        restore_generator(learner.rng, state.values.get("rng"))
        raw, learner.average = state.part("raw"), average_of(state, self.recipe)
        learner.network = network.with_parameters({name: np.array(a) for name, a in raw.items()})
        learner.velocity.clear()
        if self.recipe.optimiser.momentum:
            learner.velocity.update({name: np.array(a) for name, a in state.part("velocity").items()})
        learner.warm_start = warm_start_of(state.part("warm_start"))
        learner.epoch = state.epoch
        learner.unfinished = EpochState.of(unfinished) if unfinished else None
        self.probing.waiting = list(state.values.get("probes", []))

    def warnings(self, record: Record | None, previous: Record | None) -> list[str]:
        """A negative beta alone; a beta or a tolerance too small; a rule without a compiled engine;
        samples that did not converge; a loop near instability; outputs that have fallen silent;
        hidden units that are stuck.
        """
        if record is None:
            if self.learner.epoch == 0 and self.learner.unfinished is None:
                self.stuck_at_first = stuck_before_learning(self.learner.network, self.data, self.recipe)
            slow = slow_rule(self.learner.network, self.recipe, self.resources.ranks)
            notes = [*_about_beta(self.config), *_about_tolerance(self.config, self.learner.network, self.recipe)]
            return notes + ([slow] if slow else [])
        before, images = previous or {}, len(self.data.train.labels)
        epoch, found = f"epoch {record['epoch']}", []
        if 2 * record["unconverged"] >= images:
            found.append(
                f"{epoch}: {record['unconverged']} of {images} samples did not converge and were not learned from; "
                f"{_CONVERGE}"
            )
        if (record.get("loop_norm_max") or 0) > NEAR_ONE >= (before.get("loop_norm_max") or 0):
            found.append(
                f"{epoch}: up to {record['loop_norm_max']:.2f} of a small change of the outputs comes back round the "
                "loop (||G_D||), so phases take long and may end in oscillation; weaken the loop "
                "(network.loop_scale, learning.rates.loop)"
            )
        rates = self.config.learning.rates.forward
        dead = [unit for unit in record["dead_outputs"] if unit not in before.get("dead_outputs", [])]
        if dead:
            found.append(
                f"{epoch}: output {', '.join(map(str, dead))} had rate 0 for every image although its class occurs, "
                f"and may never recover; lower learning.rates.forward[{len(rates) - 1}] (now {rates[-1]:g})"
            )
        known = self.stuck_at_first if previous is None else previous.get("stuck_units")
        return found + [f"{epoch}: {text}" for text in about_stuck(record.get("stuck_units", {}), known, self.config)]


def _check_fits(network: Network, data: Dataset) -> None:
    """Refuse data of other images or of more classes than the network is for. Raises
    ConfigurationError.
    """
    if wrong := misfit(network, data):
        raise ConfigurationError(f"network = {network!r} has {wrong}; give a network for these data")


def _about_tolerance(config: RateConfig, network: Network, recipe: Recipe) -> list[str]:
    notes, asked = [], asked_tolerance(config)
    if asked != recipe.tolerance:
        notes.append(
            f"solver.absolute = {asked.absolute:g} is below the rounding of {network.dtype}; a sample has converged "
            f"within {recipe.tolerance.absolute:.1g}"
        )
    share = recipe.relaxation_error(network)
    if share > COARSE:
        notes.append(
            f"learning.beta = {config.learning.beta:g} moves an output little beside the tolerance: up to "
            f"{100 * share:.0f} % of an update may be relaxation error; raise learning.beta or lower solver.absolute"
        )
    return notes


def _about_beta(config: RateConfig) -> list[str]:
    beta = config.learning.beta
    if beta > 0 or config.learning.phases != "one-sided":
        return []
    return [f"learning.beta = {beta}: a negative beta alone tends to silence the outputs; watch dead_outputs"]
