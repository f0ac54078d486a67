"""Membranes and spikes are recorded as the network has them, and counted as a plain loop over the
recorded raster counts them.
"""

from __future__ import annotations

import itertools
import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray

import fsp_dynamics as fsp
from fsp_dynamics.errors import CheckpointError, ConfigurationError, ShapeError
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.layerwise import spiking as reporting
from fsp_dynamics.experiments.layerwise.state import arrays_of
from fsp_dynamics.experiments.overview import compare_runs, list_runs
from fsp_dynamics.experiments.stored import extended, finished_runs, read_stored, seed_record, write_stored
from fsp_dynamics.layerwise import evaluation
from fsp_dynamics.layerwise.learners import Settings, make_learner
from fsp_dynamics.layerwise.networks import conv, mlp, snn
from fsp_dynamics.layerwise.neurons import Neuron
from fsp_dynamics.layerwise.spike_counts import count
from fsp_dynamics.layerwise.spikes import record

IMAGE = (2, 7, 6)  # sides that pools do not divide
LEAKY = Neuron(steps=3, threshold=0.4, leak=0.8, reset="soft")
SHAPES = {
    "maps, pooled": snn([3, "M", 4, "M"], [5], Neuron(steps=3, threshold=0.3)),
    "maps into maps": snn([3, 4], [], LEAKY),
    "units": snn([], [9, 8], Neuron(steps=5, threshold=0.2)),
    "pool before the first": snn(["M", 3], [6], LEAKY),
}


def made(shape, learner="bp", *, image=IMAGE, **settings):
    """A learner whose membranes differ from unit to unit, in float64."""
    found = make_learner(learner, shape, image, 4, Settings(**settings), seed=5, dtype=torch.float64)
    for name, p in found.network.named_parameters():
        if name.endswith("bias"):
            p.data.uniform_(-0.2, 0.3, generator=torch.Generator().manual_seed(len(name)))
    return found


def shown(count=6, image=IMAGE):
    return np.random.default_rng(1).random((count, int(np.prod(image))))


def pooled_by_hand(fired, side):
    """Of one step of one image: (channels, rows, columns), whether any of a whole square spikes."""
    channels, rows, columns = fired.shape
    found = np.zeros((channels, rows // side, columns // side), bool)
    for c, y, x in np.ndindex(*found.shape):
        for dy, dx in itertools.product(range(side), range(side)):
            found[c, y, x] |= fired[c, side * y + dy, side * x + dx]
    return found


def weights_seen(layer, size):
    """{place of a number that enters: how many weights take it}, counted where they are applied."""
    seen = dict.fromkeys(np.ndindex(*size), 0)
    if isinstance(layer, torch.nn.Linear):
        for _, place in itertools.product(range(layer.out_features), seen):
            seen[place] += 1
        return seen
    for _, c, y, x in np.ndindex(layer.out_channels, *size):  # of the output, which has the same sides
        for dy, dx in itertools.product((-1, 0, 1), (-1, 0, 1)):
            if (c, y + dy, x + dx) in seen:
                seen[c, y + dy, x + dx] += 1
    return seen


def recounted(learner, raster):
    """({layer: spikes of each unit}, {layer: operations}), by loops over the raster."""
    network, units, operations = learner.network, {}, {}
    later = [(b.pool, b.weights) for b in list(network.blocks)[1:]] + [(network.shape.last_pool, network.head)]
    for (name, fired), (pool, weights) in zip(raster.items(), later, strict=True):
        units[name], operations[name] = np.zeros(fired.shape[2:], int), 0
        for step, image in np.ndindex(*fired.shape[:2]):
            for unit in np.ndindex(*fired.shape[2:]):
                units[name][unit] += int(fired[(step, image, *unit)])
            passed = pooled_by_hand(fired[step, image], pool) if pool > 1 else fired[step, image]
            if weights is not None:
                seen = weights_seen(weights, passed.shape)
                operations[name] += sum(seen[place] for place in seen if passed[place])
    return units, operations


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("learner", ["bp", "fsp", "shallow"])
def test_the_count_is_a_recount_of_the_recorded_raster(shape, learner):
    learner = made(shape, learner)
    found, (units, operations) = count(learner, shown()), recounted(learner, record(learner, shown()).spikes)
    for name, own in units.items():
        np.testing.assert_array_equal(found.units[name], own)
    assert found.operations == operations
    assert min(operations.values()) > 0
    assert (found.images, found.steps) == (6, shape.neuron.steps)
    assert found.multiply_adds == sum(
        weights_seen(learner.network.blocks[0].weights, learner.network.outputs[0]).values()
    )


def test_without_a_classification_layer_the_last_spikes_reach_nothing():
    learner = made(SHAPES["maps, pooled"], "fsp", version="2a")
    found = count(learner, shown())
    assert found.operations == recounted(learner, record(learner, shown()).spikes)[1]
    assert (found.operations["layer3"], found.layers["layer3"].per_image > 0) == (0, True)


@pytest.mark.parametrize("size", [1, 4])
def test_neither_depends_on_how_images_are_divided_into_batches(size, monkeypatch):
    learner = made(SHAPES["maps, pooled"], "fsp")
    whole, raster = count(learner, shown(9)), record(learner, shown(9))
    monkeypatch.setattr(evaluation, "BATCH", size)
    parts, again = count(learner, shown(9)), record(learner, shown(9))
    assert (parts.images, parts.operations) == (whole.images, whole.operations)
    for name, own in whole.units.items():
        np.testing.assert_array_equal(parts.units[name], own)
        np.testing.assert_array_equal(again.spikes[name], raster.spikes[name])
        np.testing.assert_allclose(again.membranes[name], raster.membranes[name], rtol=1e-12)


def test_what_is_recorded_is_what_predicts():
    """Membranes are those of the blocks in evaluation mode; the scores follow from the spikes."""
    learner = made(SHAPES["maps, pooled"])
    network, seen = learner.network, record(learner, shown())
    with learner.predicting(), torch.no_grad():
        expected = network.activities(network.images(torch.from_numpy(shown())))
        scores = learner.scores(torch.from_numpy(shown()))["output"]
    for own, h in zip(seen.membranes.values(), expected, strict=True):
        np.testing.assert_array_equal(own, h.numpy())
    last = torch.from_numpy(seen.spikes["layer3"]).double().mean(0)
    np.testing.assert_allclose(network.head(last).detach(), scores, rtol=1e-12)


@pytest.mark.parametrize("look", [record, count])
def test_looking_changes_nothing_of_a_learner(look):
    learner = made(SHAPES["maps, pooled"], dropout=0.5)
    before = {name: np.array(each) for name, each in arrays_of(learner).items()}
    look(learner, shown())
    assert learner.network.training
    after = arrays_of(learner)
    for name, each in before.items():
        np.testing.assert_array_equal(each, after[name])


@pytest.mark.parametrize(("below", "spikes_then"), [(0, True), (1, False)])
def test_a_membrane_at_the_threshold_spikes_in_the_precision_of_the_network(below, spikes_then):
    """0.1 is no number of float32: the threshold is the nearest one, here as in the network."""
    learner = make_learner("bp", snn([], [1], Neuron(steps=1, threshold=0.1)), (1, 1, 1), 2)
    weights = learner.network.blocks[0].weights
    weights.weight.data.fill_(1)
    weights.bias.data.zero_()
    pixel = np.float32(0.1)
    for _ in range(below):
        pixel = np.nextafter(pixel, np.float32(0))
    seen = record(learner, np.array([[pixel]]))
    assert seen.membranes["layer1"].dtype == np.float32
    assert seen.spikes["layer1"].item() is spikes_then
    assert count(learner, np.array([[pixel]])).units["layer1"].item() == spikes_then


@pytest.mark.parametrize("neuron", [LEAKY, LEAKY._replace(reset="hard"), LEAKY._replace(leak=1.0)])
def test_a_membrane_goes_on_from_what_its_reset_left(neuron):
    """v[s] - leak v[s-1 after its reset] is the current, the same at all steps of layer 1."""
    seen = record(made(snn([3], [], neuron)), shown())
    before, after = seen.membranes["layer1"], seen.after["layer1"]
    assert seen.spikes["layer1"][:-1].any()
    for step in range(1, neuron.steps):
        np.testing.assert_allclose(before[step] - neuron.leak * after[step - 1], before[0], atol=1e-12)


def test_silent_and_saturated_units_are_those_on_all_images():
    """Weights of 1, -1 and 0.6: always; never; at every step of the second image alone."""
    learner = make_learner("bp", snn([], [3], Neuron(steps=4)), (1, 1, 1), 2, dtype=torch.float64)
    weights = learner.network.blocks[0].weights
    weights.weight.data.copy_(torch.tensor([[1.0], [-1.0], [0.6]]))
    weights.bias.data.zero_()
    found = count(learner, np.array([[1.0], [2.0]]))
    assert found.units["layer1"].tolist() == [8, 0, 2 + 4]
    own = found.layers["layer1"]
    assert (own.silent, own.saturated, own.per_image, own.rate) == (1, 1, 7, 14 / 24)
    assert (own.silent_share, own.saturated_share) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert own.operations == 7 * 2
    np.testing.assert_array_equal(found.rates["layer1"], [1, 0, 6 / 8])
    np.testing.assert_array_equal(found.rates["layer1"], record(learner, np.array([[1.0], [2.0]])).rates["layer1"])


def test_a_record_is_a_dataset_that_is_saved_and_read(tmp_path):
    seen = record(made(SHAPES["maps, pooled"]), shown())
    seen.to_xarray().to_netcdf(tmp_path / "spikes.nc")
    with xarray.open_dataset(tmp_path / "spikes.nc") as found:
        assert found["membrane_layer1"].dims == ("step", "image", "layer1_channel", "layer1_row", "layer1_column")
        assert found["spikes_layer3"].dims == ("step", "image", "layer3_unit")
        assert found["step"].values.tolist() == [1, 2, 3]
        assert (found.attrs["threshold"], found.attrs["leak"], found.attrs["reset"]) == (0.3, 1.0, "hard")
        for name, own in seen.membranes.items():
            np.testing.assert_array_equal(found[f"membrane_{name}"], own)
            np.testing.assert_array_equal(found[f"spikes_{name}"], seen.spikes[name])


@pytest.mark.parametrize("look", [record, count])
@pytest.mark.parametrize("shape", [mlp([5]), conv([3, "M", 4])], ids=["mlp", "conv"])
def test_a_network_without_spikes_is_refused_in_one_line(look, shape):
    with pytest.raises(ConfigurationError, match=r"no spiking units; give one of network\.kind = 'snn'") as refused:
        look(make_learner("fsp", shape, IMAGE, 4), shown())
    assert "\n" not in str(refused.value)
    look(make_learner("fsp", snn([], [5], Neuron()), IMAGE, 4), shown())  # what it advises


@pytest.mark.parametrize("look", [record, count])
def test_images_that_do_not_fit_are_refused(look):
    learner = made(SHAPES["units"])
    with pytest.raises(ShapeError, match=r"images has shape \(6, 83\), expected \(any, 84\)"):
        look(learner, shown()[:, 1:])
    with pytest.raises(ConfigurationError, match="images has 0 rows"):
        look(learner, shown()[:0])


# In a run


CHANGES = {
    "data.name": "digits",
    "data.limit": 100,
    "data.validation": 60,
    "network.channels": [4, "M", 6, "M"],
    "network.hidden": [12],
    "learning.epochs": 2,
}


def trained(folder, preset="fashion-snn-fsp-voltage", **changes):
    """(the run, the warnings about spikes that it gave)."""
    _, config = load_config(preset, {**CHANGES, **changes})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run = fsp.train(config, out=folder, progress=False)
    return run, [str(each.message) for each in told if "network.threshold" in str(each.message)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("spiking") / "run")[0]


def counted(run, images):
    """What metrics.jsonl should hold of these images, of the network at the last epoch."""
    found = count(run.network("last"), images)
    raster = record(run.network("last"), images).spikes
    assert {name: int(fired.sum()) for name, fired in raster.items()} == {
        name: int(own.sum()) for name, own in found.units.items()
    }
    layers = {name: own._asdict() for name, own in found.layers.items()}
    return {"images": len(images), "multiply_adds": found.multiply_adds, "layers": layers}


def test_the_metrics_of_a_run_are_the_count_on_its_validation_images(run):
    assert all("spikes" in record for record in run.metrics)
    assert run.metrics[-1]["spikes"] == counted(run, run.data().valid.images)
    frame = run.to_frame()
    assert frame["spikes.layers.layer3.rate"].tolist() == [
        record["spikes"]["layers"]["layer3"]["rate"] for record in run.metrics
    ]


def test_without_validation_images_it_is_the_count_on_the_first_test_images(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "IMAGES", 50)
    found = trained(tmp_path / "run", **{"data.validation": 0, "learning.epochs": 1})[0]
    assert found.metrics[-1]["spikes"] == counted(found, found.data().test.images[:50])


def test_a_run_that_is_resumed_has_the_same_counts(run, tmp_path):
    trained(tmp_path / "run", **{"learning.epochs": 1})
    again = fsp.train(tmp_path / "run", resume=True, epochs=2, progress=False)
    assert [each["spikes"] for each in again.metrics] == [each["spikes"] for each in run.metrics]


def test_runs_are_listed_and_compared(run):
    (row,) = list_runs(run.folder.parent)
    assert row["status"] == "finished"
    assert compare_runs(run.folder, run.folder)


def test_a_stored_summary_has_the_counts_of_the_best_epoch(run, tmp_path):
    (finished,), _ = finished_runs([run.folder])
    stored, _ = extended(None, "fashion-snn-fsp-voltage", [finished])
    write_stored(tmp_path / "stored.json", stored)
    (seed,) = read_stored(tmp_path / "stored.json").seeds
    best = run.metrics[run.summary["best"]["epoch"] - 1]
    assert seed["spikes"] == best["spikes"]
    seed["spikes"]["images"] = "many"
    write_stored(tmp_path / "stored.json", replace(stored, seeds=(seed,)))
    with pytest.raises(CheckpointError, match="spikes is dict, expected a table of images, multiply_adds"):
        read_stored(tmp_path / "stored.json")


def test_runs_without_spikes_have_no_counts(tmp_path):
    table = {
        "family": "layerwise",
        "data": {"name": "digits", "limit": 60, "validation": 50},
        "network": {"hidden": [20]},
        "learning": {"epochs": 1, "batch": 20},
    }
    bare = fsp.train(table, out=tmp_path / "run", progress=False)
    assert "spikes" not in bare.metrics[-1]
    assert "spikes" not in seed_record(RunFolder(bare.folder))


@pytest.mark.parametrize(
    ("damage", "value"),
    [
        ("images", -1),
        ("multiply_adds", 0.5),
        ("layers", {"layer1": {"units": 3, "silent": 1}}),
        ("layers", {"layer1": {"units": 3, "silent": 1, "saturated": 0, "rate": "fast"}}),
        ("layers", None),
    ],
)
def test_damaged_counts_are_refused_by_name(run, tmp_path, damage, value):
    shutil.copytree(run.folder, tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    lines[0]["spikes"][damage] = value
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl:1: spikes is dict, expected a table of images"):
        RunFolder(tmp_path / "run").metrics()


def test_layers_that_are_mostly_silent_are_told_once_and_a_lower_threshold_helps(tmp_path):
    high, told = trained(tmp_path / "high", **{"network.threshold": 1000.0})
    assert told == [
        f"epoch 1: layer{k}: {units} of {units} units never spike on 60 images; lower network.threshold (now 1000)"
        for k, units in ((1, 256), (2, 96), (3, 12))
    ]
    assert [each["spikes"]["layers"]["layer1"]["silent"] for each in high.metrics] == [256, 256]
    assert trained(tmp_path / "low", **{"network.threshold": 0.3})[1] == []


def test_layers_that_are_mostly_saturated_are_told_too():
    """Half of the units is no reason yet; one more is; and it is not said again."""
    layers = {"layer1": {"units": 10, "silent": 5, "saturated": 5}, "layer2": {"units": 2048, "silent": 0}}
    layers["layer2"]["saturated"] = 1800
    now = {"epoch": 3, "spikes": {"images": 1000, "layers": layers}}
    told = ["layer2: 1,800 of 2,048 units spike at every step of 1,000 images; raise network.threshold (now 0.5)"]
    assert reporting.about_spikes(now, {}, 0.5) == told
    assert reporting.about_spikes(now, now, 0.5) == []
    before = {"spikes": {"images": 1000, "layers": {"layer2": {"units": 2048, "silent": 1800, "saturated": 0}}}}
    assert reporting.about_spikes(now, before, 0.5) == told
    assert reporting.about_spikes({"epoch": 3}, {}, 0.5) == []
