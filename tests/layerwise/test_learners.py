"""Every learner learns, and each is held to a slow and obvious twin of what makes it itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.layerwise.state import arrays_of, set_arrays
from fsp_dynamics.experiments.layerwise.trainer import LayerwiseTrainer, batches
from fsp_dynamics.layerwise.evaluation import evaluate_exits
from fsp_dynamics.layerwise.learners import Settings, make_learner
from fsp_dynamics.layerwise.learners.direct_feedback_alignment import error_of
from fsp_dynamics.layerwise.learners.local_loss import pool_of, similarity
from fsp_dynamics.layerwise.names import LEARNERS
from fsp_dynamics.layerwise.networks import conv, mlp

IMAGE = (1, 8, 8)
UNITS = {"sg", "dtp", "efp"}
HIDDEN = {"fsp", "bp", "fa", "dfa", "ll-bp", "ll-fa"}  # those that learn hidden layers of convolutions too
DIGITS = {"units": mlp([40, 40]), "maps": conv([6], [20])}
EXACT = Settings(dropout=0.0)


def batch(samples=12, seed=0):
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand(samples, 64, generator=rng, dtype=torch.float64)
    return images, torch.arange(samples) % 5


def made(name, shape=None, settings=EXACT, seed=3):
    return make_learner(name, shape or mlp([7, 6]), IMAGE, 5, settings, seed=seed, dtype=torch.float64)


def gradients(learner, images, labels):
    """{parameter of the network: what the step followed}."""
    learner.learn(images, labels)
    return {name: p.grad.clone() for name, p in learner.network.named_parameters() if p.grad is not None}


def error_after(name, epochs, shape, settings=None):
    """Percent of the digits' test images, after some epochs."""
    data = fsp.load_dataset("digits")
    learner = make_learner(name, shape, IMAGE, 10, settings or Settings(rate=2e-3, output_rate=2e-3), seed=0)
    images, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(labels)))
        for part in batches(len(labels), 50):
            learner.learn(images[order[part]], labels[order[part]])
    return evaluate_exits(learner, data.test.images, data.test.labels).error


@pytest.fixture(scope="module")
def shallow():
    """The errors of the classification layer alone."""
    return {kind: error_after("shallow", 6, shape) for kind, shape in DIGITS.items()}


@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"shallow"}))
def test_every_learner_of_hidden_layers_of_units_beats_the_classification_layer_alone(name, shallow):
    assert error_after(name, 6, DIGITS["units"]) < 0.6 * shallow["units"]


@pytest.mark.parametrize("name", sorted(HIDDEN))
def test_those_of_convolutions_do_so_there_as_well(name, shallow):
    assert error_after(name, 6, DIGITS["maps"]) < 0.6 * shallow["maps"]


@pytest.mark.parametrize("shape", [mlp([7, 6, 8]), conv([3, "M", 4], [6])], ids=["units", "maps"])
def test_feedback_alignment_whose_feedback_is_the_weights_is_backpropagation(shape):
    images, labels = batch()
    exact, learner = made("bp", shape), made("fa", shape)
    random = gradients(learner, images, labels)
    expected = gradients(exact, images, labels)
    weights = {name for name in expected if name.endswith("weight")}
    assert {name for name in weights if torch.allclose(random[name], expected[name])} == {"head.weight"}
    learner = made("fa", shape)
    for k, block in enumerate(learner.network.blocks[1:], 2):
        learner.auxiliary[f"layer{k}"].weight.copy_(block.weights.weight.detach())
    learner.auxiliary["output"].weight.copy_(learner.network.head.weight.detach())
    found = gradients(learner, images, labels)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_direct_feedback_alignment_of_one_hidden_layer_fed_by_the_head_is_backpropagation():
    images, labels = batch()
    exact, learner = made("bp", mlp([7])), made("dfa", mlp([7]))
    learner.auxiliary["layer1"].weight.copy_(learner.network.head.weight.detach())
    expected, found = gradients(exact, images, labels), gradients(learner, images, labels)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_the_error_at_every_place_of_a_map_is_projected_by_weights_of_its_own():
    images, labels = batch()
    learner = made("dfa", conv([3, "M", 4]), Settings(dropout=0.0, normalised=False))
    assert [learner.auxiliary[f"layer{k}"].weight.shape for k in (1, 2)] == [(5, 3 * 8 * 8), (5, 4 * 4 * 4)]
    h = learner.network.activities(learner.network.images(images))
    error = error_of(learner.network.head(learner.network.last(h[-1])), labels)
    gradient = gradients(learner, images, labels)["blocks.1.weights.bias"]
    projected = torch.stack([sum(e[c] * learner.auxiliary["layer2"].weight[c] for c in range(5)) for e in error])
    slope = torch.where(h[1] > 0, 1.0, 0.01)
    torch.testing.assert_close(gradient, (projected.reshape(h[1].shape) * slope).sum((0, 2, 3)))


def test_the_error_of_the_output_is_the_gradient_of_its_mean_cross_entropy():
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    functional.cross_entropy(logits, torch.arange(6) % 5).backward()
    torch.testing.assert_close(error_of(logits, torch.arange(6) % 5), logits.grad)


@pytest.mark.parametrize("name", sorted(set(LEARNERS)))
def test_fixed_and_auxiliary_weights_are_drawn_from_the_seed(name):
    one, same, other = (made(name, seed=seed).auxiliary.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    drawn = [key for key, value in one.items() if key.endswith("weight") and value.any()]
    assert all(not torch.equal(one[key], other[key]) for key in drawn)


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_what_a_run_keeps_of_the_network_predicts_at_every_exit_as_the_learner_does(name):
    _, config = load_config(
        {
            "family": "layerwise",
            "data": {"name": "digits"},
            "network": {"hidden": [7, 6]},
            "learning": {"epochs": 1, "learner": name},
        }
    )
    learner, (images, labels) = make_learner(name, mlp([7, 6]), IMAGE, 5, seed=config.seed), batch()
    images = images.float()
    for _ in range(3):
        learner.learn(images, labels)
    arrays = {key.removeprefix("parameters/"): a for key, a in arrays_of(learner).items() if key[:11] == "parameters/"}
    found, expected = LayerwiseTrainer.network_of(config, arrays, None).scores(images), learner.scores(images)
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], scores) for key, scores in expected.items())


def test_the_similarity_of_samples_is_the_correlation_over_their_features():
    x = torch.rand(5, 7, dtype=torch.float64)
    torch.testing.assert_close(similarity(x), torch.from_numpy(np.corrcoef(x.numpy())))


@pytest.mark.parametrize("channels", [3, 4])
def test_the_similarity_of_maps_is_that_of_their_deviations(channels):
    """Each number of a pair by itself; in three channels or fewer, of all pixels."""
    x = torch.rand(4, channels, 5, 6, dtype=torch.float64).numpy()
    features = x.std(axis=(2, 3), ddof=1) if channels > 3 else x.reshape(4, -1)
    for i, one in enumerate(features):
        for j, other in enumerate(features):
            a, b = one - one.mean(), other - other.mean()
            cosine = sum(p * q for p, q in zip(a, b, strict=True)) / np.sqrt(
                sum(p * p for p in a) * sum(q * q for q in b)
            )
            assert float(similarity(torch.from_numpy(x))[i, j]) == pytest.approx(cosine, abs=1e-5)


def test_a_sample_without_deviations_has_a_finite_gradient():
    x = torch.ones(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    similarity(x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", ["ll-bp", "ll-fa"])
def test_a_local_loss_is_its_two_parts_in_their_shares(name):
    learner, (images, labels) = made(name), batch()
    first = learner.stages[0]
    with torch.no_grad():
        for p in first.decoder.parameters():
            p.normal_(generator=torch.Generator().manual_seed(1))
    signal = first.forward(learner.begin(images))
    h, y = signal.h.detach(), torch.eye(5, dtype=torch.float64)[labels]
    z = h @ first.decoder.linear.weight.T + first.decoder.linear.bias
    if name == "ll-bp":
        predicted = -torch.log(z.exp()[range(12), labels] / z.exp().sum(1)).mean()
        alike = ((similarity(h @ first.compared.weight.T) - similarity(y)) ** 2).mean()
    else:
        sign, p = (y @ first.decoder.projection > 0).double(), 1 / (1 + (-z).exp())
        predicted = -(sign * p.log() + (1 - sign) * (1 - p).log()).mean()
        alike = ((similarity(h) - similarity(y @ first.decoder.projection)) ** 2).mean()
    share = {"ll-bp": 0.99, "ll-fa": 0.01}[name]
    torch.testing.assert_close(first.loss(signal, labels), (1 - share) * predicted + share * alike)


def test_the_error_of_a_decoder_goes_back_through_its_feedback_alone():
    """A decoder begins at 0, through which no error would come."""
    learner, (images, labels) = made("ll-fa"), batch()
    first = learner.stages[0]
    first.beta = 0.0
    assert not first.decoder.linear.weight.any()
    signal = first.forward(learner.begin(images))
    (found,) = torch.autograd.grad(first.loss(signal, labels), signal.h)
    error = (0.5 - first.decoder.signs[labels]) / (12 * 128)
    torch.testing.assert_close(found, error @ learner.auxiliary["layer1"].weight)


def test_maps_are_averaged_until_a_decoder_can_take_them():
    assert [pool_of(size) for size in ((256, 16, 16), (512, 8, 8), (512, 2, 2), (20, 8, 8))] == [
        (8, 4),
        (4, 4),
        (1, 1),
        (1, 1),
    ]


@pytest.mark.parametrize("name", ["fa", "dfa", "efp"])
def test_no_step_moves_the_feedback(name):
    learner = made(name)
    before = {key: value.clone() for key, value in learner.auxiliary.state_dict().items()}
    learner.learn(*batch())
    assert before
    assert all(torch.equal(value, before[key]) for key, value in learner.auxiliary.state_dict().items())


@pytest.mark.parametrize("name", sorted(UNITS))
def test_learners_of_units_refuse_convolutions_in_one_line(name):
    with pytest.raises(ConfigurationError, match=rf"learning.learner = '{name}' is for networks of units"):
        made(name, conv([3]))


def forgetful(learner):
    """Optimisers that move nothing, so that what was followed can be computed afterwards."""
    for stage in learner.stages:
        stage.optimiser.step = lambda: None
    return learner


def test_the_module_of_the_last_hidden_layer_learns_from_the_true_gradient(monkeypatch):
    """That of one sample; the module before it from what the last block passes back of its own
    prediction, here of modules that do not predict 0.
    """
    learner, (images, labels) = forgetful(made("sg")), batch()
    for k in (1, 2):
        torch.nn.init.normal_(learner.auxiliary[f"layer{k}"].linear.weight, generator=torch.Generator().manual_seed(k))
    passed = {}
    for stage in learner.predicted_by:
        monkeypatch.setattr(
            stage, "teach", lambda h, y, gradient, name=stage.name: passed.update({name: gradient.clone()})
        )
    learner.learn(images, labels)
    h1 = learner.network.blocks[0](images).detach().requires_grad_()
    h2 = learner.network.blocks[1](h1)
    loss = functional.cross_entropy(learner.network.head(h2), labels)
    (exact,) = torch.autograd.grad(loss, h2, retain_graph=True)
    torch.testing.assert_close(passed["layer2"], exact * 12)
    predicted = learner.auxiliary["layer2"](h2.detach(), labels)
    (bootstrapped,) = torch.autograd.grad(h2, h1, predicted)
    torch.testing.assert_close(passed["layer1"], bootstrapped)


def test_a_block_follows_the_gradient_that_its_module_predicts():
    learner, (images, labels) = forgetful(made("sg")), batch()
    module = learner.auxiliary["layer1"]
    torch.nn.init.normal_(module.linear.weight, generator=torch.Generator().manual_seed(1))
    h = learner.network.blocks[0](images)
    onehot = torch.eye(5, dtype=torch.float64)[labels]
    predicted = torch.cat([h, onehot], 1).detach() @ module.linear.weight.T
    weight = learner.network.blocks[0].weights.weight
    (expected,) = torch.autograd.grad(h, weight, predicted.detach() / 12)
    followed = []
    learner.stages[0].optimiser.step = lambda: followed.append(weight.grad)
    learner.learn(images, labels)
    torch.testing.assert_close(followed[0], expected)
    assert followed[1] is None  # when the module learns, the block does not


def test_a_module_learns_to_predict_what_it_is_taught():
    stage = made("sg").stages[0]
    h, labels = torch.rand(40, 7, dtype=torch.float64), torch.arange(40) % 5
    wanted = h.flip(1) + labels[:, None]
    before = ((stage.gradient(h, labels) - wanted) ** 2).mean()
    stage.optimiser.param_groups[0]["lr"] = 0.1
    for _ in range(500):
        stage.teach(h, labels, wanted)
    assert ((stage.gradient(h, labels) - wanted) ** 2).mean() < 1e-3 * before


def test_targets_are_corrected_by_the_difference_of_an_inverse():
    learner, (images, labels) = made("dtp", mlp([7, 6, 8])), batch()
    h = [a.detach() for a in learner.network.activities(images)]
    z = learner.network.head(h[-1]).detach()

    def inverse(name, value):
        linear = learner.auxiliary[name].linear
        a = value @ linear.weight.T + linear.bias
        return torch.maximum(a, 0.01 * a)

    t_out = z - (z.softmax(1) - torch.eye(5, dtype=torch.float64)[labels])
    t3 = h[2] + inverse("output", t_out) - inverse("output", z)
    t2 = h[1] + inverse("layer3", t3) - inverse("layer3", h[2])
    t1 = h[0] + inverse("layer2", t2) - inverse("layer2", h[1])
    learner.aim([*h, z], labels)
    for stage, expected in zip(learner.targeted, (t1, t2, t3), strict=True):
        torch.testing.assert_close(stage.target, expected)


def test_a_block_learns_from_the_squared_distance_to_its_target_alone():
    learner, (images, labels) = forgetful(made("dtp")), batch()
    blocks = learner.network.blocks
    first = blocks[0](images)
    second = blocks[1](first.detach())
    z = learner.network.head(second)
    learner.aim([first.detach(), second.detach(), z.detach()], labels)
    h, t, weight = first, learner.targeted[0].target, blocks[0].weights.weight
    (expected,) = torch.autograd.grad(sum(((a - b) ** 2).sum() for a, b in zip(h, t, strict=True)) / 12, weight)
    learner.learn(images, labels)
    torch.testing.assert_close(weight.grad, expected)


def test_an_inverse_learns_to_bring_the_noisy_activity_back():
    learner, (images, labels) = forgetful(made("dtp")), batch()
    inverse, block = learner.auxiliary["layer2"], learner.network.blocks[1]
    noisy = learner.network.blocks[0](images) + 0.1 * torch.randn(
        12, 7, generator=torch.Generator().manual_seed(inverse.noise.generator.initial_seed())
    )
    z = block.weights(noisy.detach())
    made_of = functional.leaky_relu((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt(), 0.01).detach()
    (expected,) = torch.autograd.grad(((inverse(made_of) - noisy.detach()) ** 2).sum() / 12, inverse.linear.weight)
    learner.learn(images, labels)
    torch.testing.assert_close(inverse.linear.weight.grad, expected)


def test_error_forward_propagation_brings_the_error_to_the_first_layer_as_direct_feedback_does():
    """By the same matrix; but what is followed is how much the activity changes, which has passed
    the slope of the unit.
    """
    learner, (images, labels) = made("efp"), batch()
    learner.loop.weight.mul_(1e-3)  # no unit changes its side
    h = learner.network.activities(images)
    error = error_of(learner.network.head(h[-1]), labels)
    fed = error @ learner.loop.weight * torch.where(h[0] > 0, 1.0, 0.01)
    expected = torch.autograd.grad(h[0], learner.network.blocks[0].weights.weight, fed)[0]
    torch.testing.assert_close(gradients(learner, images, labels)["blocks.0.weights.weight"], expected)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_error_goes_forward_as_a_change_of_the_activities(dropout):
    """The change of layer 2 is the derivative of its activity along that of layer 1."""
    learner, (images, _) = made("efp", settings=Settings(dropout=dropout)), batch()
    learner.loop.weight.mul_(1e-4)
    blocks = learner.network.blocks
    h1 = blocks[0](images).detach()
    h2 = blocks[1](h1).detach()
    error = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) / 12
    first, second = (-12 * each for each in learner.errors([images, h1, h2], error))
    z = blocks[1].weights(h1)
    scale = 1 / (z.var(0, correction=0) + 1e-5).sqrt()
    slope = torch.where((z - z.mean(0)) * scale > 0, 1.0, 0.01)
    expected = (first @ blocks[1].weights.weight.T) * scale * slope * (h2 != 0) / (1 - dropout)
    torch.testing.assert_close(second, expected)
    if dropout:
        assert 0.1 < (second == 0).double().mean() < 0.6


def scaled(name, scale):
    """A learner whose losses are scaled, as in float16 on a GPU."""
    learner = made(name)
    for stage in learner.stages:
        stage.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    return learner


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_a_scaled_loss_changes_nothing_that_is_learned(name):
    """By powers of 2 it is exact, but for numbers that would have vanished."""
    images, labels = batch()
    plain, other = made(name), scaled(name, 2.0**10)
    for learner in (plain, other):
        for _ in range(5):
            learner.learn(images, labels)
    for one, two in zip(plain.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_the_scale_of_a_loss_belongs_to_the_state():
    images, labels = batch()
    learner, later = scaled("fsp", 4.0), scaled("fsp", 4.0)
    for _ in range(3):
        learner.learn(images, labels)
    set_arrays(later, arrays_of(learner))
    assert [stage.scaler.get_scale() for stage in later.stages] == [8.0, 8.0, 8.0]
    for each in (learner, later):
        each.learn(images, labels)
    assert [stage.scaler.state_dict() for stage in later.stages] == [s.scaler.state_dict() for s in learner.stages]
    for one, two in zip(learner.network.parameters(), later.network.parameters(), strict=True):
        assert torch.equal(one, two)
