"""Spiking networks: units against plain loops, losses before the spike, and gradients as they must
be.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.backend import NUMBA
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.execution import load_data
from fsp_dynamics.experiments.layerwise.trainer import LayerwiseTrainer
from fsp_dynamics.experiments.trainer import Resources
from fsp_dynamics.layerwise.learners import Settings, make_learner
from fsp_dynamics.layerwise.networks import snn
from fsp_dynamics.layerwise.neurons import Neuron, Spike
from fsp_dynamics.training.ranks import ALONE

SMALL = {
    "data.name": "digits",
    "data.limit": 300,
    "data.validation": 100,
    "network.channels": [4, "M", 6, "M"],
    "network.hidden": [20],
    "epochs": 2,
    "learning.precision": "float32",
}
LEARNERS = ("bp", "shallow", "fsp-surrogate", "fsp-voltage")
NEURONS = [Neuron(6, 0.7, leak, reset) for leak in (1.0, 0.9) for reset in ("hard", "soft")]


def plain(neuron, current):
    """Membranes before the reset and spikes, by loops over units and steps."""
    membranes, spikes = np.zeros(current.shape), np.zeros(current.shape)
    for unit in np.ndindex(current.shape[1:]):
        v = 0.0
        for step in range(len(current)):
            v = v * neuron.leak + current[(step, *unit)]
            membranes[(step, *unit)] = v
            if v >= neuron.threshold:
                spikes[(step, *unit)] = 1
                v = 0.0 if neuron.reset == "hard" else v - neuron.threshold
    return membranes, spikes


def learner_of(name="fsp", shape=None, dtype=torch.float64, classes=3, image=(1, 4, 4), **settings):
    shape = shape or snn([3, "M", 4], [7], Neuron(4, 0.5))
    return make_learner(name, shape, image, classes, Settings(dropout=0.0, **settings), dtype=dtype)


def batch(count=8, pixels=16, classes=3):
    stream = torch.Generator().manual_seed(1)
    return 3 * torch.rand(count, pixels, generator=stream, dtype=torch.float64), torch.arange(count) % classes


@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: f"{n.leak} {n.reset}")
def test_units_are_those_of_a_plain_loop_to_the_bit(neuron):
    current = np.random.default_rng(0).normal(0.3, 0.8, (6, 5, 7))
    membranes, spikes = plain(neuron, current)
    found = neuron.membranes(torch.from_numpy(current))
    assert np.array_equal(found.numpy(), membranes)
    assert np.array_equal(neuron.fire(found).numpy(), spikes)
    assert 0.1 < spikes.mean() < 0.9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 2.5}, "network.steps = 2.5, expected a whole number of steps"),
        ({"steps": 0}, "network.steps = 0, expected a finite number above 0"),
        ({"leak": 1.1}, "network.leak = 1.1, expected at most 1: no membrane grows by itself"),
        ({"leak": -0.5}, "network.leak = -0.5, expected a finite number above 0"),
        ({"threshold": math.inf}, "network.threshold = inf, expected a finite number above 0"),
        ({"reset": "sfot"}, "did you mean 'soft'?"),
    ],
)
def test_what_no_neuron_has_is_refused_in_python_too(values, message):
    with pytest.raises(ConfigurationError) as refused:
        snn([4], [7], Neuron(**values))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("reset", "current", "membranes"),
    [
        ("hard", [0.5, 0.5, 0.25], [0.5, 1.0, 0.25]),  # at the threshold it spikes
        ("soft", [0.5, 0.5, 0.25], [0.5, 1.0, 0.25]),
        ("hard", [3.5, 0.25, -1.0], [3.5, 0.25, -0.75]),  # several thresholds in one step: one spike, and 0
        ("soft", [3.5, 0.25, -1.0], [3.5, 2.75, 0.75]),  # one spike, and one threshold less
    ],
)
def test_edges_of_the_threshold(reset, current, membranes):
    neuron = Neuron(3, 1.0, reset=reset)
    found = neuron.membranes(torch.tensor(current))
    assert found.tolist() == membranes
    assert neuron.fire(found).tolist() == [float(v >= 1.0) for v in membranes]


def test_just_below_the_threshold_is_no_spike():
    below = np.nextafter(1.0, 0.0)
    assert Neuron().fire(torch.tensor([below, 1.0], dtype=torch.float64)).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("compared", ["voltage", "surrogate"])
@pytest.mark.parametrize(
    "how",
    [{}, {"version": "2a"}, {"generator": "target-loop"}, {"generator": "target-error"}, {"sparse": 9}],
    ids=str,
)
def test_forward_signal_propagation_never_differentiates_a_spike(compared, how, monkeypatch):
    """The derivative of the spike is replaced by one that raises; backpropagation meets it."""

    def refuse(ctx, *gradients):
        raise AssertionError("a spike was differentiated")

    monkeypatch.setattr(Spike, "backward", staticmethod(refuse))
    images, labels = batch()
    learner = learner_of("fsp", compared=compared, **how)
    before = [block.weights.weight.detach().clone() for block in learner.network.blocks]
    learner.learn(images, labels)
    for weights, block in zip(before, learner.network.blocks, strict=True):
        assert not torch.equal(weights, block.weights.weight)
    with pytest.raises(AssertionError, match="a spike was differentiated"):
        learner_of("bp").learn(images, labels)


@pytest.mark.parametrize("compared", ["voltage", "surrogate"])
def test_the_gradient_of_a_layer_is_that_of_its_loss(compared):
    """Against differences of the loss, in every weight of the second block: of units that integrate
    and fire, whose membranes are what is compared.
    """
    images, labels = batch()
    learner = learner_of(shape=snn([], [6, 5], Neuron(4, 0.5)), compared=compared)
    signal = learner.stages[0].forward(learner.begin(images)).detach()
    stage, weights = learner.stages[1], learner.network.blocks[1].weights.weight
    stage.loss(stage.forward(signal), labels).backward()

    def loss(change, place):
        with torch.no_grad():
            weights[place] += change
            found = stage.loss(stage.forward(signal), labels).item()
            weights[place] -= change
        return found

    assert weights.grad.abs().max() > 1e-3
    for place in np.ndindex(*weights.shape):
        slope = (loss(1e-7, place) - loss(-1e-7, place)) / 2e-7
        assert weights.grad[place].item() == pytest.approx(slope, abs=1e-6)


def test_backpropagation_takes_the_surrogate_for_the_spike():
    """A spike that is written as its surrogate plus what is missing, as a constant, has the same
    value and, by autograd, the derivative of eq. 16.
    """
    images, labels = batch()
    shape = snn([3, "M", 4], [7], Neuron(4, 1.0))
    learner, other = learner_of("bp", shape), learner_of("bp", shape)

    class Written(Neuron):
        def fire(self, membranes):
            smooth = torch.arctan(math.pi * (membranes - self.threshold)) / math.pi + 0.5
            return smooth + ((membranes >= self.threshold).to(membranes.dtype) - smooth).detach()

    for block in other.network.blocks:
        block.neuron = Written(*block.neuron)
    for each in (learner, other):
        stage = each.stages[0]
        stage.loss(stage.forward(each.begin(images)), labels).backward()
    for one, two in zip(learner.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-12)
    assert learner.network.blocks[0].weights.weight.grad.abs().max() > 1e-6


def test_the_output_is_that_of_the_classification_layer_averaged_over_the_steps():
    images, _ = batch()
    learner = learner_of("bp")
    network = learner.network
    with learner.predicting(), torch.no_grad():
        h = network.activities(network.images(images))[-1]
        spikes = (h >= 0.5).double()
        averaged = sum(network.head(step) for step in spikes) / len(spikes)
        torch.testing.assert_close(learner.scores(images)["output"], averaged)
    assert 0.02 < spikes.mean() < 0.98


def test_a_layer_is_what_its_plain_equations_say():
    """Convolution of pooled spikes, batch norm by running statistics, membranes; then units."""
    images, _ = batch()
    learner = learner_of("bp")
    network = learner.network
    for _ in range(3):
        learner.learn(*batch())
    first, second, third = network.blocks
    with learner.predicting(), torch.no_grad():
        found = network.activities(network.images(images))
        h = torch.nn.functional.conv2d(images.unflatten(1, (1, 4, 4)), first.weights.weight, padding=1)
        currents = first.norm(h).numpy()
        membranes, spikes = plain(first.neuron, np.broadcast_to(currents, (4, *currents.shape)))
        np.testing.assert_allclose(found[0].numpy(), membranes, rtol=1e-12, atol=1e-12)
        pooled = spikes.reshape(4, 8, 3, 2, 2, 2, 2).max((4, 6))
        z = [torch.nn.functional.conv2d(torch.from_numpy(s), second.weights.weight, padding=1) for s in pooled]
        membranes, spikes = plain(second.neuron, torch.stack([second.norm(each) for each in z]).numpy())
        np.testing.assert_allclose(found[1].numpy(), membranes, rtol=1e-12, atol=1e-12)
        weights, bias = third.weights.weight.numpy(), third.weights.bias.numpy()
        membranes, _ = plain(third.neuron, spikes.reshape(4, 8, -1) @ weights.T + bias)
        np.testing.assert_allclose(found[2].numpy(), membranes, rtol=1e-12, atol=1e-12)
    assert first.weights.bias is None
    assert third.norm is None


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_run_that_is_left_goes_on_to_the_same_bits(learner):
    _, config = load_config(f"fashion-snn-{learner}", SMALL)
    data = load_data(config.data)

    class Left(Exception):
        pass

    def leave(done, total, error):
        if done == 128:
            raise Left

    whole, part, later = (LayerwiseTrainer.build(config, data, Resources(NUMBA, ALONE)) for _ in range(3))
    for _ in range(2):
        whole.epoch()
    with pytest.raises(Left):
        part.epoch(leave)
    later.restore(part.state())
    while later.finished < 2:
        later.epoch()
    expected, found = whole.state().arrays, later.state().arrays
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert array.tobytes() == found[name].tobytes(), name


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_prediction_is_that_of_the_image_alone(learner):
    _, config = load_config(f"fashion-snn-{learner}", SMALL)
    trainer = LayerwiseTrainer.build(config, load_data(config.data), Resources(NUMBA, ALONE))
    trainer.epoch()
    images = torch.from_numpy(trainer.data.test.images[:6])
    together = trainer.learner.scores(images)["output"]
    alone = torch.cat([trainer.learner.scores(image[None])["output"] for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_sixteen_bits_learn_what_thirty_two_do_nearly():
    """bfloat16 has eight bits of a number: the loss of a batch agrees to a percent or two."""
    images, labels = batch(64)
    losses = []
    for precision in ("float32", "bfloat16"):
        learner = learner_of("bp", dtype=torch.float32, precision=precision, rate=5e-3)
        for _ in range(60):
            logits = learner.learn(images.float(), labels)
        losses.append(torch.nn.functional.cross_entropy(logits.float(), labels).item())
    assert losses[0] < 1.0
    assert losses[1] == pytest.approx(losses[0], rel=0.2)
