"""Ranks: however many train together, they learn the same, to the bit; what they tell each other
is all they need.
"""

from __future__ import annotations

import numba
import numpy as np
import pytest
from crowd import Crowd
from epochs import own_biases, same_bits

import fsp_dynamics as fsp
from fsp_dynamics.datasets import Split
from fsp_dynamics.errors import NotFiniteError
from fsp_dynamics.kernels.team import partition
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.learning.schedules import CosineSchedule, FactorSchedule, WarmUp
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.training.augmentation import Augmentation
from fsp_dynamics.training.engine import engine_of
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.evaluation import evaluate
from fsp_dynamics.training.loop_engine import LoopEngine
from fsp_dynamics.training.ranks import ALONE
from fsp_dynamics.training.recipe import Learner, Recipe

DIGITS = fsp.load_dataset("digits")
compiled_only = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="bits are the compiler's, and plain Python takes minutes"
)
HOW = {
    "plain": ({}, {}),
    "limited": ({}, {"output_step": 0.02}),
    "centred": ({"phases": "centred"}, {"output_step": 0.02}),
    "random-sign": ({"phases": "random-sign"}, {}),
    "own-biases": ({}, {"output_step": 0.02}),
    "scheduled": ({}, {"schedule": WarmUp(2, CosineSchedule(3))}),
    "momentum": ({}, {"momentum": 0.5, "decay": 0.01}),
    "limited-momentum": ({}, {"momentum": 0.5, "output_step": 0.02, "frozen": ("biases[1]", "forward[0]")}),
    "augmented": ({"augmentation": Augmentation(shift=1, rotation=10.0, noise=0.05, flip=0.2)}, {}),
    "noisy": ({"weight_noise": 0.1, "mirror": 0.05}, {"decay": 0.01}),
    "mean-subtracted-mirror": ({"mirror": 0.05, "rule": "mean_subtracted"}, {"output_step": 0.02}),
}


def recipe_for(hidden, settings=(), optimiser=(), tolerance=1e-6):
    rates = LearningRates(20.0, (9.0,) * hidden, 0.5)
    how = {"beta": 0.5, "batch": 14, **dict(settings)}
    return Recipe(
        Sgd(rates, **{"schedule": FactorSchedule(0.9), **dict(optimiser)}),
        FixedPointSolver(fallback=NumbaSolver()),
        Tolerance(tolerance),
        **how,
    )


def learned(network, recipe, data, ranks=ALONE, epochs=2, threads=1):
    learner = Learner.start(network, recipe, 3)
    reports = [train_epoch(learner, data, recipe, threads=threads, ranks=ranks) for _ in range(epochs)]
    return (
        learner,
        reports,
        evaluate(learner.network, DIGITS.test, recipe, 100, warm_start=learner.warm_start, ranks=ranks),
    )


def without_time(report):
    return {key: value for key, value in report.as_dict().items() if key not in ("seconds", "images_per_second")}


@compiled_only
@pytest.mark.parametrize("sizes", [[64, 30, 10], [64, 30, 20, 10]], ids=lambda s: f"{len(s) - 2}-hidden")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("sharing", [True, False], ids=["shared-memory", "messages"])
def test_any_number_of_ranks_learns_the_same_bits(sharing, how, sizes) -> None:
    """Weights, velocity, memory, reports and evaluation: of a loop, those of one process without
    ranks too. The last batch has 11 of 14 images, so the shares are uneven.
    """
    network, recipe, data = (
        fsp.loop_network(sizes, rng=1, loop_scale=0.5),
        recipe_for(len(sizes) - 2, *HOW[how]),
        DIGITS.train.limit(81),
    )
    recipe = own_biases(recipe) if how == "own-biases" else recipe
    assert engine_of(network, recipe) is LoopEngine
    alone, reports, seen = learned(network, recipe, data)
    assert any(
        (w != v).any() for w, v in zip(alone.network.parameters().values(), network.parameters().values(), strict=True)
    )
    for count in (2, 3, 4):
        for learner, told, found in Crowd(count, sharing=sharing).run(
            lambda ranks: learned(network, recipe, data, ranks)
        ):
            assert same_bits(learner, alone)
            assert sorted(learner.velocity) == sorted(alone.velocity)
            assert all((learner.velocity[name] == v).all() for name, v in alone.velocity.items())
            assert [without_time(each) for each in told] == [without_time(each) for each in reports]
            assert found == seen


def test_stuck_units_are_those_of_all_ranks_images() -> None:
    """Four batches, so that of three ranks two have one batch, and of five one has none; a unit
    that is at 0 on the images of some ranks only is not stuck.
    """
    network, data = fsp.loop_network([64, 30, 20, 10], rng=1, loop_scale=0.5), DIGITS.test.limit(360)
    network.biases[0][:3] = (-50.0, 50.0, 50.0)
    moved = DIGITS.test.images[:360].copy()
    moved[:, 0] = np.arange(360) < 100  # the first batch
    network.input[0, 3:5] = 60.0, -60.0
    network.biases[0][3:5] = -30.0, 30.0
    data = Split(moved, DIGITS.test.labels[:360])
    alone = evaluate(network, data, recipe_for(2), 100)
    rates = fsp.relax(network, moved).state[0]
    assert alone.stuck["hidden1"] == ((rates == 0).all(0).sum(), (rates == 1).all(0).sum())
    assert set(rates[:, 3]) == {0.0, 1.0}
    assert min(alone.stuck["hidden1"]) >= 1
    for count in (2, 3, 5):
        for found in Crowd(count).run(lambda ranks: evaluate(network, data, recipe_for(2), 100, ranks=ranks)):
            assert found == alone


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        (fsp.reciprocal_network([64, 12, 10], rng=1), {"augmentation": Augmentation(shift=1, noise=0.05)}),
        (fsp.loop_network([64, 12, 10], rng=1, rho="logistic"), {"phases": "centred", "weight_noise": 0.1}),
        (fsp.loop_network([64, 12, 10], rng=1, loop_scale=0.3), {"rule": "gradient"}),
    ],
    ids=["reciprocal", "logistic", "exact"],
)
def test_other_networks_and_rules_share_batches_too(network, settings) -> None:
    """Batches are cut into four shards of fixed size, so that products have the same shapes, and
    bits, in any number of ranks; beside one process without ranks they agree to the tolerance of
    rest.
    """
    recipe, data = recipe_for(1, settings, {"output_step": 0.05}, tolerance=1e-5), DIGITS.train.limit(28)
    alone, reports, _ = learned(network, recipe, data, epochs=1)
    (first, told, _), *_ = Crowd(1).run(lambda ranks: learned(network, recipe, data, ranks, epochs=1))
    assert told[0].train_error == reports[0].train_error
    for name, w in alone.network.parameters().items():
        moved = np.abs(w - network.parameters()[name]).max()
        assert np.abs(first.network.parameters()[name] - w).max() <= 1e-2 * moved, name
    for count in (2, 4):
        for learner, _, _ in Crowd(count).run(lambda ranks: learned(network, recipe, data, ranks, epochs=1)):
            for name, w in first.network.parameters().items():
                assert w.tobytes() == learner.network.parameters()[name].tobytes(), name


@compiled_only
def test_ranks_of_several_threads_are_one_team() -> None:
    network, recipe, data = (
        fsp.loop_network([64, 30, 20, 10], rng=1, loop_scale=0.5),
        recipe_for(2, {}, {"momentum": 0.5}),
        DIGITS.train.limit(81),
    )
    alone, _, _ = learned(network, recipe, data)
    for learner, _, _ in Crowd(2).run(lambda ranks: learned(network, recipe, data, ranks, threads=2)):
        assert same_bits(learner, alone)


@compiled_only
def test_ranks_with_threads_of_other_numbers_agree_on_the_least() -> None:
    network, recipe, data = (
        fsp.loop_network([64, 30, 20, 10], rng=1, loop_scale=0.5),
        recipe_for(2),
        DIGITS.train.limit(81),
    )
    alone, _, _ = learned(network, recipe, data)
    for learner, _, _ in Crowd(2).run(lambda ranks: learned(network, recipe, data, ranks, threads=2 - ranks.rank)):
        assert same_bits(learner, alone)


def test_a_batch_of_fewer_samples_than_ranks_is_learned_by_all() -> None:
    """Some ranks have no sample, some none to nudge."""
    recipe, data = recipe_for(1, {"batch": 2}, tolerance=1e-5), DIGITS.train.limit(3)
    for network in (fsp.reciprocal_network([64, 12, 10], rng=1), fsp.loop_network([64, 12, 10], rng=1, rho="logistic")):
        (first, _, _), *others = Crowd(4).run(
            lambda ranks, network=network: learned(network, recipe, data, ranks, epochs=1)
        )
        assert any((w != network.parameters()[name]).any() for name, w in first.network.parameters().items())
        for learner, _, _ in others:
            assert all(
                (w == learner.network.parameters()[name]).all() for name, w in first.network.parameters().items()
            )


@compiled_only
@pytest.mark.parametrize("seed", [3, 4, 5])
@pytest.mark.parametrize("sharing", [True, False], ids=["shared-memory", "messages"])
def test_recovered_samples_have_the_same_bits_in_any_job(sharing, seed) -> None:
    """A strong loop: some samples are doubtful, some are integrated, some never converge; joined
    ranks leave recovery to the first of them, others recover their own samples.
    """
    network = fsp.loop_network([64, 30, 20, 10], rng=seed, loop_scale=3.0, forward_scale=1.5)
    recipe, data = recipe_for(2, {}, {"output_step": 0.02}, tolerance=1e-4), DIGITS.train.limit(56)
    alone, reports, _ = learned(network, recipe, data, epochs=1)
    assert reports[0].passes_free > 8
    crowd = Crowd(2, sharing=sharing)
    for learner, told, _ in crowd.run(lambda ranks: learned(network, recipe, data, ranks, epochs=1)):
        assert same_bits(learner, alone)
        assert told[0].unconverged == reports[0].unconverged


@compiled_only
@pytest.mark.parametrize("sharing", [True, False], ids=["shared-memory", "messages"])
def test_what_breaks_in_one_rank_ends_all_of_them(sharing) -> None:
    """Who has the sample names the layer, the others name the rank that has it; none of them waits
    for ever.
    """
    network, recipe, data = fsp.loop_network([64, 12, 10], rng=1), recipe_for(1), DIGITS.train.limit(14)
    images = data.images.copy()
    order = np.random.default_rng(3).permutation(14)
    images[order[13], 5] = np.nan  # the last of the first batch: in the last rank

    class Spoilt:
        labels = data.labels

    Spoilt.images = images

    def one(ranks):
        with pytest.raises(NotFiniteError) as caught:
            learned(network, recipe, Spoilt, ranks)
        return str(caught.value)

    other, owner = Crowd(2, sharing=sharing).run(one)
    assert ("images of batch 0" if sharing else "rank 1") in other
    assert "images of batch 0" in owner


def test_little_is_told_of_samples_that_teach_nothing() -> None:
    """The short message and, without a limit of the output's step, nothing else of samples at
    their targets.
    """
    network = fsp.loop_network([64, 12, 10], rng=1, loop_scale=0.1)
    biases = {
        "biases[1]": np.where(np.arange(10) == 3, 50.0, -50.0).astype(np.float32)
    }  # every image is a 3, to the bit
    recipe = recipe_for(1)

    class Threes:
        images, labels = DIGITS.train.images[:14], np.full(14, 3)

    sent = []

    def one(ranks):
        train_epoch(Learner.start(network.with_parameters(biases), recipe, 0), Threes, recipe, threads=1, ranks=ranks)
        sent.append(ranks.sent)

    Crowd(2, sharing=False).run(one)
    assert sent == [1, 1]


def test_shares_cover_everything_once() -> None:
    for count in (0, 1, 7, 20):
        for ranks in (1, 2, 3, 4):
            parts = [partition(count, rank, ranks) for rank in range(ranks)]
            assert [i for first, end in parts for i in range(first, end)] == list(range(count))
