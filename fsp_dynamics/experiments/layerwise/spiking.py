"""What a run says of spiking units: their spikes in metrics.jsonl, and warnings about layers of
which most units never spike, or always.
"""

from __future__ import annotations

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.experiments.trainer import Record
from fsp_dynamics.layerwise.learners import Learner
from fsp_dynamics.layerwise.spike_counts import count

IMAGES = 1000
"""The first of the validation images, or of the test images where there are none, are counted."""
MANY = 0.5
"""Of the units of a layer."""
# (what is counted, what such units do, what would change it)
SAID = (("silent", "never spike on", "lower"), ("saturated", "spike at every step of", "raise"))


def spikes_record(learner: Learner, data: Dataset) -> Record:
    """{"spikes": what `layerwise.spike_counts.count` counted}, as metrics.jsonl has it; {} for a
    network without spikes, or without images to judge it.
    """
    shown = (data.valid if len(data.valid.labels) else data.test).images[:IMAGES]
    if learner.network.shape.neuron is None or not len(shown):
        return {}
    found = count(learner, shown)
    layers = {name: own._asdict() for name, own in found.layers.items()}
    return {"spikes": {"images": found.images, "multiply_adds": found.multiply_adds, "layers": layers}}


def about_spikes(record: Record, previous: Record, threshold: float) -> list[str]:
    """A line for each layer of which more than half of the units are silent, or saturated, and
    were not so in the previous epoch.
    """
    now, before, found = record.get("spikes") or {}, previous.get("spikes") or {}, []
    for name, own in now.get("layers", {}).items():
        known = before.get("layers", {}).get(name, {})
        for key, what, remedy in SAID:
            if own[key] > MANY * own["units"] and not known.get(key, 0) > MANY * own["units"]:
                found.append(
                    f"{name}: {own[key]:,} of {own['units']:,} units {what} {now['images']:,} images; "
                    f"{remedy} network.threshold (now {threshold:g})"
                )
    return found
