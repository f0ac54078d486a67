"""Epochs: what is learned is eq. 14 batch by batch, what is reported is what happened, and nothing
impossible is learned from.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass

import numpy as np
import pytest

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError, NotFiniteError, ShapeError
from fsp_dynamics.kernels.loop_learning import COUNTED
from fsp_dynamics.learning import phases
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.learning.rules.hebbian import HEBBIAN
from fsp_dynamics.learning.rules.update import update
from fsp_dynamics.models.rate import drive
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.training.checks import check_learner
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.evaluation import evaluate
from fsp_dynamics.training.recipe import Learner, Recipe
from fsp_dynamics.training.report import EpochStatistics

SGD = Sgd(LearningRates(2.0, (2.0, 1.0), 0.1), output_step=0.1)
RECIPE = Recipe(SGD, FixedPointSolver(), Tolerance(1e-6), batch=10)


@dataclass
class Labelled:
    images: np.ndarray
    labels: np.ndarray


def prototypes(seed=0, samples=103, pixels=12, classes=4, noise=0.15):
    """Noisy copies of one random image for each class."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).random((classes, pixels))
    labels = rng.integers(0, classes, samples)
    return Labelled(np.clip(centres[labels] + rng.normal(0, noise, (samples, pixels)), 0, 1).astype(np.float32), labels)


def network(seed=0, dtype=np.float32):
    return fsp.loop_network([12, 30, 20, 4], dtype=dtype, rng=seed)


def test_an_epoch_is_eq_14_batch_after_batch() -> None:
    """The fast, in-place path against Update records added by hand, in the order the rng gives;
    the last batch is smaller.
    """
    data, rates = prototypes(), LearningRates(0.3, (0.2, 0.1), 0.05)
    recipe = dataclasses.replace(RECIPE, optimiser=Sgd(rates, normalised=False), tolerance=Tolerance(1e-12))
    learner = Learner.start(network(dtype=np.float64), recipe, 5)
    train_epoch(learner, data, recipe)
    slow, order = network(dtype=np.float64), np.random.default_rng(5).permutation(103)
    for first in range(0, 103, 10):
        index = order[first : first + 10]
        images, target = data.images[index].astype(np.float64), np.eye(4)[data.labels[index]]
        both = phases.run(
            slow, drive(slow, images), target, 1.0, FixedPointSolver("newton"), tolerance=Tolerance(1e-13)
        )
        change = update(HEBBIAN, slow, images, both).parameters()
        slow = slow.with_parameters({name: w + rates.of(name) * change[name] for name, w in slow.parameters().items()})
    for name, w in slow.parameters().items():
        np.testing.assert_allclose(learner.network.parameters()[name], w, atol=1e-9, err_msg=name)


def test_it_learns_and_the_given_network_stays_as_it_was() -> None:
    given = network()
    before = {name: w.copy() for name, w in given.parameters().items()}
    learner = Learner.start(given, RECIPE, 0)
    reports = [train_epoch(learner, prototypes(), RECIPE) for _ in range(10)]
    assert reports[-1].train_error < 10 < reports[0].train_error
    assert evaluate(learner.network, prototypes(seed=1), RECIPE).error < 10
    assert learner.epoch == 10
    for name, w in given.parameters().items():
        assert w.tobytes() == before[name].tobytes()


def test_same_seed_same_bits_and_resuming_between_epochs_changes_nothing() -> None:
    data = prototypes()
    recipe = dataclasses.replace(
        RECIPE, optimiser=dataclasses.replace(SGD, momentum=0.5), phases="random-sign", beta=0.5
    )
    unbroken = Learner.start(network(), recipe, 3)
    for _ in range(4):
        train_epoch(unbroken, data, recipe)
    first = Learner.start(network(), recipe, 3)
    for _ in range(2):
        train_epoch(first, data, recipe)
    rng = np.random.default_rng()
    rng.bit_generator.state = first.rng.bit_generator.state
    second = Learner(
        first.network.copy(), rng, {name: v.copy() for name, v in first.velocity.items()}, first.epoch, first.warm_start
    )
    for _ in range(2):
        train_epoch(second, data, recipe)
    for name, w in unbroken.network.parameters().items():
        assert w.tobytes() == second.network.parameters()[name].tobytes()


def test_the_report_counts_what_happened() -> None:
    data, seen = prototypes(), []
    learner = Learner.start(network(), RECIPE, 0)
    report = train_epoch(learner, data, RECIPE, on_batch=lambda done, total, wrong: seen.append((done, total, wrong)))
    assert [done for done, _, _ in seen] == [103]  # a thousand samples or so at a time
    plain, seen_by_batch = dataclasses.replace(RECIPE, solver=FixedPointSolver("anderson")), []
    train_epoch(
        Learner.start(network(), plain, 0), data, plain, on_batch=lambda done, total, wrong: seen_by_batch.append(done)
    )
    assert seen_by_batch == [*range(10, 101, 10), 103]
    assert seen[-1][1:] == (103, report.train_error)
    assert report.unconverged == 0
    assert 0 < report.residual <= report.residual_max <= 1e-6
    assert report.passes_free > 1
    assert report.images_per_second == pytest.approx(103 / report.seconds)
    assert report.as_dict()["train_error"] == report.train_error


def test_evaluation_is_what_relax_says() -> None:
    data, net = prototypes(samples=57), network(3)
    rest = fsp.relax(net, data.images, tolerance=Tolerance(1e-6))
    found = evaluate(net, data, RECIPE, batch=20)
    assert found.error == pytest.approx(100 * np.mean(rest.output.argmax(1) != data.labels))
    assert list(found.saturation) == ["hidden1", "hidden2", "output"]
    for s, (zero, one) in zip(rest.state, found.saturation.values(), strict=True):
        assert zero == pytest.approx(np.mean(s == 0), abs=0.01)
        assert one == pytest.approx(np.mean(s == 1), abs=0.01)


def test_stuck_units_are_those_at_one_end_on_every_image() -> None:
    """Unit by unit and image by image; some are at 0, or at 1, in whole batches only. In any
    batches, on arrays and on tensors.
    """
    data, net = prototypes(samples=57), network(3, np.float64)
    data.images[:20, 0] = 1.0  # the first batch of 20
    data.images[20:, 0] = 0.0
    net.input[:] *= 0.2
    net.input[0, :4] = (50.0, -50.0, -100.0, 100.0)
    net.biases[0][:8] = (-20.0, 20.0, 50.0, -50.0, -50.0, -50.0, 50.0, 0.0)
    net.biases[1][:3] = (60.0, 60.0, -60.0)
    rest = fsp.relax(net, data.images, tolerance=Tolerance(1e-6))
    expected = {}
    for k in (0, 1):
        units = [[float(rest.state[k][b, j]) for b in range(57)] for j in range(rest.state[k].shape[1])]
        expected[f"hidden{k + 1}"] = tuple(sum(all(s == end for s in unit) for unit in units) for end in (0, 1))
    assert min(expected["hidden1"] + expected["hidden2"]) >= 1
    first = rest.state[0][:, :4]
    assert set(first[:20].flat) == set(first[20:].flat) == {0.0, 1.0}, "in one batch they are all at an end"
    solvers = {"numba": RECIPE.solver}
    if importlib.util.find_spec("torch") is not None:
        solvers["torch"] = fsp.make_solver("torch_fixed_point", device="cpu")
    for solver in solvers.values():
        for batch in (1, 20, 57):
            found = evaluate(net, data, dataclasses.replace(RECIPE, solver=solver), batch=batch)
            assert found.stuck == expected
    assert "stuck units hidden1 {} at 0, {} at 1, hidden2".format(*expected["hidden1"]) in repr(found)
    smooth = dataclasses.replace(network(3, np.float64), rho="logistic")
    assert set(evaluate(smooth, data, RECIPE).stuck.values()) == {(0, 0)}


def test_what_is_counted_of_parts_is_that_of_the_whole() -> None:
    """An evaluation in small batches, and sums over parts of an epoch: largest values stay the
    largest.
    """
    data, net = prototypes(samples=57), network(3)
    loose = dataclasses.replace(RECIPE, solver=FixedPointSolver("picard"), tolerance=Tolerance(1e-2))
    whole, small = (evaluate(net, data, loose, batch=batch) for batch in (57, 8))
    assert small.residual_max == pytest.approx(whole.residual_max, rel=1e-4) != 0
    assert (small.error, small.unconverged, small.dead_outputs) == (whole.error, whole.unconverged, whole.dead_outputs)
    assert small.residual == pytest.approx(whole.residual, rel=1e-4)
    statistics, largest = EpochStatistics(2), COUNTED.index("residual_max")
    for residual, strongest in ((0.25, [0.5, 0.0]), (0.5, [0.25, 0.0]), (0.125, [0.0, 0.0])):
        counts = np.ones(len(COUNTED))
        counts[largest] = residual
        statistics.merge(counts, np.array(strongest))
    assert statistics.samples == 3
    assert statistics["residual_max"] == 0.5
    report = statistics.report(np.array([0, 0, 0]), 1.0)
    assert (report.residual_max, report.dead_outputs) == (0.5, ())
    assert statistics.report(np.array([0, 1, 1]), 1.0).dead_outputs == (1,)


def test_a_dead_output_is_named_and_one_whose_class_is_absent_is_not() -> None:
    data, net = prototypes(), network()
    bias = np.array([-50, 0.5, 0.5, -50], np.float32)
    silenced = net.with_parameters({"biases[2]": bias})
    assert evaluate(silenced, data, RECIPE).dead_outputs == (0, 3)
    without = Labelled(data.images[data.labels != 3], data.labels[data.labels != 3])
    assert evaluate(silenced, without, RECIPE).dead_outputs == (0,)
    frozen = dataclasses.replace(RECIPE, optimiser=Sgd(LearningRates(0.0, (0.0, 0.0), 0.0)))
    assert train_epoch(Learner.start(silenced, frozen, 0), data, frozen).dead_outputs == (0, 3)


def test_a_smooth_output_below_zero_is_not_dead() -> None:
    """Dead is a RATE of 0; a logistic unit with a negative state still fires."""
    smooth = fsp.loop_network([12, 8, 6, 4], rho="logistic", rng=0)
    assert fsp.relax(smooth, prototypes().images).output.max(0).min() < 0
    assert evaluate(smooth, prototypes(), RECIPE).dead_outputs == ()


def test_what_the_solver_refuses_is_refused_before_any_time_is_spent() -> None:
    newton = dataclasses.replace(RECIPE, solver=FixedPointSolver("newton"))
    with pytest.raises(ConfigurationError, match="newton"):
        Learner.start(fsp.loop_network([12, 8, 6, 4], rho="logistic", rng=0), newton, 0)
    wild = network().with_parameters({"loop": np.full((4, 30), np.inf, np.float32)})
    with pytest.raises(NotFiniteError, match="loop"):
        Learner.start(wild, RECIPE, 0)


def test_samples_out_of_passes_are_counted_and_teach_nothing() -> None:
    hasty = dataclasses.replace(RECIPE, solver=FixedPointSolver("picard", max_passes=1), tolerance=Tolerance(1e-30))
    smooth = fsp.loop_network([12, 8, 6, 4], rho="logistic", rng=0)
    learner = Learner.start(smooth, hasty, 0)
    report = train_epoch(learner, prototypes(), hasty)
    assert report.unconverged == 103
    for name, w in smooth.parameters().items():
        assert learner.network.parameters()[name].tobytes() == w.tobytes()


def test_nan_stops_the_epoch_and_names_the_place() -> None:
    data = prototypes()
    data.images[50, 3] = np.nan
    learner = Learner.start(network(), RECIPE, 0)
    batch = int(np.flatnonzero(np.random.default_rng(0).permutation(103) == 50)[0]) // 10
    with pytest.raises(NotFiniteError, match=rf"images of batch {batch}\[\d, 3\] = nan"):
        train_epoch(learner, data, RECIPE)
    assert all(np.isfinite(w).all() for w in learner.network.parameters().values())


@pytest.mark.parametrize(("part", "name"), [("velocity", "loop"), ("warm start", "moves")])
def test_velocity_and_warm_start_that_are_not_finite_end_the_epoch(part, name) -> None:
    """Or the next one would begin with them."""
    learner = Learner.start(network(), RECIPE, 0)
    train_epoch(learner, prototypes(), RECIPE)
    check_learner(learner)
    if part == "velocity":
        learner.velocity[name] = np.full((4, 30), np.inf, np.float32)
    else:
        learner.warm_start.moves[3, 0, 1] = np.nan
    with pytest.raises(NotFiniteError, match=f"the {part} of {name} is not finite after epoch 1"):
        check_learner(learner)


def test_infinite_pixels_are_refused_before_an_epoch() -> None:
    """They would saturate units, whose states are finite."""
    data = prototypes()
    data.images[50, 3] = -np.inf
    learner = Learner.start(network(), RECIPE, 0)
    for act in (lambda: train_epoch(learner, data, RECIPE), lambda: evaluate(learner.network, data, RECIPE)):
        with pytest.raises(NotFiniteError, match=r"images\[50, 3\] = -inf"):
            act()
    assert learner.epoch == 0


def test_weights_that_overflow_are_refused() -> None:
    wild = dataclasses.replace(RECIPE, optimiser=Sgd(LearningRates(1e40, (1e40, 1e40), 1e40), normalised=False))
    learner = Learner.start(network(), wild, 0)
    with pytest.raises(NotFiniteError, match="lower"):
        train_epoch(learner, prototypes(), wild)


def test_weights_that_overflow_in_the_last_batch_do_not_slip_through() -> None:
    once = dataclasses.replace(RECIPE, optimiser=Sgd(LearningRates(1e40, (0.0, 0.0), 0.0), normalised=False), batch=103)
    with pytest.raises(NotFiniteError, match="input is not finite after epoch 1"):
        train_epoch(Learner.start(network(), once, 0), prototypes(), once)


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (np.zeros((0, 12), np.float32), np.zeros(0, int), ConfigurationError, "no images"),
        (
            np.zeros((2, 12), np.float32),
            np.array([0, 4]),
            ConfigurationError,
            "labels run from 0 to 4, expected 0 to 3",
        ),
        (np.zeros((2, 12), np.float32), np.array([0.0, 1.0]), ConfigurationError, "labels are float64"),
        (np.zeros((2, 12), np.float32), np.array([-1, 0]), ConfigurationError, "labels run from -1"),
        (np.zeros((2, 11), np.float32), np.array([0, 1]), ShapeError, r"expected \(2, 12\)"),
    ],
)
def test_unusable_data(images, labels, error, message) -> None:
    learner = Learner.start(network(), RECIPE, 0)
    with pytest.raises(error, match=message):
        train_epoch(learner, Labelled(images, labels), RECIPE)
    with pytest.raises(error, match=message):
        evaluate(learner.network, Labelled(images, labels), RECIPE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": "onesided"}, "one-sided"),
        ({"batch": 0}, "batch = 0"),
        ({"batch": 2.5}, r"batch = 2\.5, expected a whole number"),
        ({"batch": True}, "batch = True"),
        ({"beta": 0.0}, "beta = 0"),
        ({"phases": "centred"}, "no longer leaks"),
    ],
)
def test_recipes_are_refused_before_any_time_is_spent(changes, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Learner.start(network(), dataclasses.replace(RECIPE, **changes), 0)
