"""What becomes of the spiking network of a run with weights of a few bits, with other steps of time
or another threshold (`fsp spikes`). One thing is varied at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError, check_choice, check_positive, is_whole
from fsp_dynamics.experiments.backend import Backend
from fsp_dynamics.experiments.execution import thread_limit
from fsp_dynamics.experiments.layerwise.config import LayerwiseConfig
from fsp_dynamics.experiments.run import PARTS, Run, Which
from fsp_dynamics.layerwise.evaluation import evaluate_exits
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.networks import neuron_of
from fsp_dynamics.layerwise.spike_counts import SpikeCount, count
from fsp_dynamics.layerwise.variation import check_bits, check_steps, varied

AS_TRAINED = "as trained"


@dataclass(frozen=True, slots=True)
class Variation:
    """One row. what : in words. bits : of the weights; None: those of the precision. steps,
    threshold : of the units. error : percent. difference : of the error to that of the network as
    trained, in points. spikes : of its units, on the same images.
    """

    what: str
    bits: int | None
    steps: int
    threshold: float
    error: float
    spikes: SpikeCount
    difference: float = 0.0

    def flat(self, split: str) -> dict[str, Any]:
        """The row as numbers, the error by the name of the part; spikes and operations are per
        image.
        """
        found: dict[str, Any] = {
            "variation": self.what,
            "bits": self.bits,
            "steps": self.steps,
            "threshold": self.threshold,
            f"{split}_error": self.error,
            "difference": self.difference,
            "spikes": self.spikes.per_image,
            "operations": self.spikes.operations_per_image,
        }
        for name, own in self.spikes.layers.items():
            found |= {
                f"{name}.spikes": own.per_image,
                f"{name}.operations": own.operations,
                f"{name}.silent": own.silent,
                f"{name}.saturated": own.saturated,
            }
        return found

    def cells(self, split: str) -> dict[str, str]:
        """The row as texts."""
        layers = self.spikes.layers
        return {
            "": self.what,
            f"{split} error (%)": f"{self.error:.2f}",
            "difference": "" if self.what == AS_TRAINED else f"{self.difference:+.2f}",
            **{f"spikes {name}": f"{own.per_image:,.1f}" for name, own in layers.items()},
            "operations": f"{self.spikes.operations_per_image:,.0f}",
            "silent": " / ".join(f"{own.silent:,}" for own in layers.values()),
            "saturated": " / ".join(f"{own.saturated:,}" for own in layers.values()),
        }


def notes_of(rows: Sequence[Variation]) -> list[str]:
    """What the columns of `Variation.cells` are."""
    seen = rows[0].spikes
    units = " / ".join(f"{own.units:,}" for own in seen.layers.values())
    return [
        f"spikes and synaptic operations are per image; {seen.multiply_adds:,} multiply-adds of the image itself are "
        "not among these",
        f"silent: units of each layer, of {units}, that spike on no image; saturated: at every step of every image",
    ]


def spiking_learner(run: Run, which: Which = "best") -> Learner:
    """The learner of a run of spiking units, with the network of that checkpoint. Raises
    ConfigurationError for another run, and what `Run.network` raises.
    """
    config = run.config
    kind = f"network.kind = {config.network.kind!r}" if isinstance(config, LayerwiseConfig) else ""
    if kind != "network.kind = 'snn'":
        kind = kind or f"family = {config.family!r}"
        raise ConfigurationError(f"{run.folder} has {kind}, without spikes; give a run of network.kind = 'snn'")
    learner: Learner = run.network(which)
    return learner


def variations_of(
    run: Run,
    *,
    bits: Sequence[int] = (),
    steps: Sequence[int] = (),
    thresholds: Sequence[float] = (),
    which: Which = "best",
    split: str = "test",
    limit: int | None = None,
    data_dir: str | Path | None = None,
    threads: int | None = None,
    device: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Variation]:
    """Evaluate the network as trained, and with each of these numbers (`layerwise.variation`), and
    count its spikes.

    split : which part of the data. limit : only its first images. device : of torch; None: a GPU
    where there is one. threads : of torch; None: one. say : told what is being done.

    Raises ConfigurationError for numbers that no network has, for a part without images and for a
    run without spikes, before anything is evaluated; and what `Run.network` and `Run.data` raise.
    """
    check_choice("split", split, PARTS)
    if limit is not None and not is_whole(limit, 1):
        raise ConfigurationError(f"limit = {limit!r}, expected a whole number, 1 or more")
    asked: list[dict[str, Any]] = [{"bits": check_bits(n)} for n in bits]
    asked += [{"steps": check_steps(n)} for n in steps]
    asked += [{"threshold": check_positive("threshold", value)} for value in thresholds]
    learner = spiking_learner(run, which)
    part = getattr(run.data(data_dir), split)
    images, labels = part.images[:limit], part.labels[:limit]
    if not len(labels):
        raise ConfigurationError(f"split = {split!r} has no images in {run.folder}; choose another part")
    learner.network.to(Backend("torch", device).device_name())
    found: list[Variation] = []
    with thread_limit(threads):
        for given in [{}, *asked]:
            what = _words(given)
            say(f"{what}, {len(labels)} images")
            changed = varied(learner, **given)
            neuron = neuron_of(changed.network)
            error = evaluate_exits(changed, images, labels).error
            spikes = count(changed, images)
            row = Variation(what, given.get("bits"), neuron.steps, neuron.threshold, error, spikes)
            found.append(replace(row, difference=error - (found or [row])[0].error))
    return found


def _words(given: dict[str, Any]) -> str:
    """What is varied."""
    for key, value in given.items():
        unit = key.removesuffix("s") if value == 1 else key
        return f"threshold {value:g}" if key == "threshold" else f"{value} {unit}"
    return AS_TRAINED
