"""A trained spiking network with coarse weights, other steps and another threshold: against twins
written out, and the original stays as it was.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.layerwise.state import parameters_of
from fsp_dynamics.layerwise.evaluation import evaluate_exits, parts_of
from fsp_dynamics.layerwise.learners import Settings, make_learner
from fsp_dynamics.layerwise.names import MOST_STEPS
from fsp_dynamics.layerwise.networks import mlp, snn
from fsp_dynamics.layerwise.neurons import Neuron
from fsp_dynamics.layerwise.nir_export import folded
from fsp_dynamics.layerwise.variation import quantised, varied

IMAGE, CLASSES = (1, 6, 6), 5
UNITS = snn([], [9, 8], Neuron(steps=4, threshold=0.5))
MAPS = snn([4, "M", 3], [7], Neuron(steps=4, threshold=0.5))


def learned(shape, name="bp", **settings):
    """A learner after a few steps, and images."""
    learner = make_learner(name, shape, IMAGE, CLASSES, Settings(**settings), seed=2, dtype=torch.float64)
    images = torch.rand(20, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in range(4):
        learner.learn(images, (torch.arange(20) + k) % CLASSES)
    return learner, images


def slowly_quantised(row, bits):
    """The numbers of one unit, one after the other."""
    if bits == 1:
        size = sum(abs(w) for w in row) / len(row)
        return [size if w >= 0 else -size for w in row]
    most, best = 2 ** (bits - 1) - 1, None
    for k in range(32, 0, -1):
        step = max(abs(w) for w in row) / most * k / 32
        found = [step * max(-most, min(most, round(w / step))) for w in row]
        error = sum((a - b) ** 2 for a, b in zip(found, row, strict=True))
        if best is None or error < best[0]:
            best = error, found
    return best[1]


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
def test_weights_are_quantised_as_the_slow_twin_does_unit_by_unit(bits):
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(bits), dtype=torch.float64)
    weight *= torch.tensor([1.0, 2.0, 0.1, 5.0, 1.0, 1e-6])[:, None, None, None]
    found = quantised(weight, bits)
    expected = [slowly_quantised(row, bits) for row in weight.flatten(1).tolist()]
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, rtol=1e-12)
    assert all(len(row.unique()) <= max(2, 2**bits - 1) for row in found.flatten(1))


@pytest.mark.parametrize("bits", [1, 2, 4, 16])
def test_a_factor_of_a_units_weights_passes_through_and_no_weights_stay_none(bits):
    weight = torch.randn(3, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factor = torch.tensor([[3.7], [-0.2], [0.0]], dtype=torch.float64)
    found, expected = quantised(factor * weight, bits), factor * quantised(weight, bits)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_every_layer_and_the_classifier_have_so_few_weights(bits):
    network = varied(learned(MAPS, "fsp")[0], bits=bits).network
    for weights in [*(block.weights for block in network.blocks), network.head]:
        assert all(len(row.unique()) <= max(2, 2**bits - 1) for row in weights.weight.flatten(1))


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_weights_with_batch_norm_folded_into_them_have_as_few_levels(bits):
    changed = varied(learned(MAPS)[0], bits=bits)
    for block in changed.network.blocks:
        weight = folded(block)[0]
        for row in weight.reshape(len(weight), -1):
            assert len(np.unique(np.abs(row / np.abs(row).max()).round(9))) <= 2 ** (bits - 1)


def spiking_by_hand(learner, images, steps, threshold):
    """The mean of the logits over the steps, unit by unit."""
    *layers, head = [
        (p.weight.detach().numpy(), p.bias.detach().numpy())
        for p in [*(block.weights for block in learner.network.blocks), learner.network.head]
    ]
    scores = []
    for image in images.numpy():
        membranes, logits = [np.zeros(len(bias)) for _, bias in layers], []
        for _ in range(steps):
            spikes = image
            for v, (weight, bias) in zip(membranes, layers, strict=True):
                v += weight @ spikes + bias
                spikes = np.array([1.0 if each >= threshold else 0.0 for each in v])
                v[spikes == 1] = 0.0
            logits.append(head[0] @ spikes + head[1])
        scores.append(np.mean(logits, 0))
    return np.array(scores)


@pytest.mark.parametrize("given", [{"steps": 1}, {"steps": 7}, {"threshold": 0.2}, {"steps": 3, "threshold": 1.5}, {}])
def test_it_predicts_with_these_steps_and_this_threshold(given):
    learner, images = learned(UNITS)
    expected = spiking_by_hand(learner, images, given.get("steps", 4), given.get("threshold", 0.5))
    found = varied(learner, **given).scores(images)["output"].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("name", "version"), [("bp", "2b"), ("shallow", "2b"), ("fsp", "2b"), ("fsp", "2a")])
def test_the_learner_stays_as_it_was_and_an_unvaried_copy_says_the_same(name, version):
    learner, images = learned(MAPS, name, version=version)
    before, scores = parameters_of(learner), learner.scores(images)
    copy = varied(learner)
    assert {key: each.tolist() for key, each in copy.scores(images).items()} == {
        key: each.tolist() for key, each in scores.items()
    }
    coarse = varied(learner, bits=1, steps=2, threshold=0.1).scores(images)
    assert coarse.keys() == scores.keys()
    assert any(not torch.equal(coarse[key], scores[key]) for key in scores)
    for key, each in parameters_of(learner).items():
        np.testing.assert_array_equal(each, before[key])
    assert learner.network.shape.neuron == Neuron(steps=4, threshold=0.5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"bits": 0}, "bits = 0, expected a whole number from 1 to 16"),
        ({"bits": 17}, "bits = 17, expected a whole number from 1 to 16"),
        ({"bits": 2.5}, "bits = 2.5, expected a whole number from 1 to 16"),
        ({"steps": 0}, "steps = 0, expected a whole number from 1 to 10000"),
        ({"steps": MOST_STEPS + 1}, "steps = 10001, expected a whole number from 1 to 10000"),
        ({"threshold": 0.0}, "threshold = 0.0, expected a finite number above 0"),
        ({"threshold": float("nan")}, "threshold = nan, expected a finite number above 0"),
    ],
)
def test_numbers_that_no_network_has_are_refused(given, says):
    with pytest.raises(ConfigurationError, match=says):
        varied(learned(UNITS)[0], **given)


def test_a_network_without_spikes_is_refused_and_the_advice_helps():
    with pytest.raises(ConfigurationError, match=r"no spiking units; give one of network\.kind = 'snn'"):
        varied(make_learner("bp", mlp([5]), IMAGE, CLASSES), bits=2)
    varied(make_learner("bp", snn([], [5]), IMAGE, CLASSES), bits=2)


def test_more_steps_take_fewer_images_at_a_time_and_the_result_is_the_same():
    learner, images = learned(UNITS)
    long = varied(learner, steps=16)
    assert [part.stop - part.start for part in parts_of(long, 300)] == [125, 125, 125]
    assert [part.stop - part.start for part in parts_of(varied(learner, steps=MOST_STEPS), 2)] == [1, 1]
    shown, labels = np.tile(images.numpy(), (15, 1)), np.tile(np.arange(20) % CLASSES, 15)
    whole = evaluate_exits(long, shown, labels)
    assert whole.error == 100 * np.mean(long.scores(torch.from_numpy(shown))["output"].numpy().argmax(1) != labels)
