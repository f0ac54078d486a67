"""Epochs of reciprocal networks by sweeps: they learn what the plain loop over `phases.run` and
`Sgd.step` learns, in fewer passes.
"""

from __future__ import annotations

import copy

import numba
import numpy as np
import pytest
from epochs import only_plain, own_biases, same_bits, trained

import fsp_dynamics as fsp
from fsp_dynamics.errors import NotFiniteError
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.learning.schedules import FactorSchedule
from fsp_dynamics.models.builders import reciprocal_network
from fsp_dynamics.solvers.equilibrium import Status, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.training.engine import engine_of
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.recipe import Learner, Recipe
from fsp_dynamics.training.reciprocal_engine import ReciprocalEngine
from fsp_dynamics.training.warm_start import UNSEEN, ReciprocalWarmStart

DIGITS = fsp.load_dataset("digits")
OPTIMISERS = {
    "plain": {},
    "limited": {"output_step": 0.02},
    "momentum": {"momentum": 0.5, "decay": 0.01},
    "frozen": {"frozen": ("biases[1]", "forward[0]")},
    "unnormalised": {"normalised": False},
}
compiled_only = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="takes minutes as plain Python; bits are the compiler's"
)


def network_of(sizes, tied=True, dtype=np.float64):
    return reciprocal_network([64, *sizes, 10], tied=tied, dtype=dtype, rng=1)


def recipe_for(network, kind="one-sided", tolerance=1e-13, solver=None, beta=0.5, rule="hebbian", **optimiser):
    scale = 1.0 if optimiser.get("normalised", True) else 0.02
    rates = LearningRates(
        3.0 * scale, (2.0 * scale,) * len(network.forward), backward=(scale,) * len(network.backward or ())
    )
    solver = solver or FixedPointSolver(fallback=NumbaSolver())
    return Recipe(
        Sgd(rates, **{"schedule": FactorSchedule(0.9), **optimiser}),
        solver,
        Tolerance(tolerance),
        beta=beta,
        phases=kind,
        rule=rule,
        batch=20,
    )


def check_twins(network, recipe, data, monkeypatch) -> None:
    assert engine_of(network, recipe) is ReciprocalEngine
    fast, seen = trained(network, recipe, data)
    only_plain(monkeypatch)
    slow, expected = trained(network, recipe, data)
    assert slow.warm_start is None
    for name, w in slow.network.parameters().items():
        moved = np.abs(w - network.parameters()[name]).max()
        assert np.abs(fast.network.parameters()[name] - w).max() <= 1e-9 * moved, name
        assert (moved == 0) == (name in recipe.optimiser.frozen), name
    for name, v in slow.velocity.items():
        np.testing.assert_allclose(fast.velocity[name], v, atol=1e-9 * np.abs(v).max(), err_msg=name)
    for found, twin in zip(seen, expected, strict=True):
        for field in ("train_error", "nudged_share", "unconverged", "dead_outputs"):
            assert getattr(found, field) == getattr(twin, field), field
    assert fast.rng.bit_generator.state == slow.rng.bit_generator.state


def test_a_small_epoch_is_that_of_the_plain_loop(monkeypatch) -> None:
    """As below, small enough to run without the compiler too."""
    network = network_of([9, 7])
    check_twins(network, recipe_for(network), DIGITS.train.limit(25), monkeypatch)


@compiled_only
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sizes", [[21], [30, 20], [20, 18, 17]], ids=lambda s: f"{len(s)}-hidden")
@pytest.mark.parametrize("kind", ["one-sided", "random-sign", "centred"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_an_epoch_is_that_of_the_plain_loop(optimiser, kind, sizes, tied, monkeypatch) -> None:
    """Two epochs of 70 images in batches of 20, the last of 10."""
    network = network_of(sizes, tied)
    check_twins(network, recipe_for(network, kind, **OPTIMISERS[optimiser]), DIGITS.train.limit(70), monkeypatch)


@compiled_only
@pytest.mark.parametrize("optimiser", ["limited", "frozen", "unnormalised"])
@pytest.mark.parametrize("tied", [True, False])
def test_biases_at_their_own_rates_learn_as_in_the_plain_loop(tied, optimiser, monkeypatch) -> None:
    network = network_of([30, 20], tied)
    recipe = own_biases(recipe_for(network, **OPTIMISERS[optimiser]))
    check_twins(network, recipe, DIGITS.train.limit(70), monkeypatch)


@compiled_only
@pytest.mark.parametrize("kind", ["one-sided", "centred"])
def test_samples_that_passes_leave_on_the_way_are_integrated(kind, monkeypatch) -> None:
    """Both phases, with one pass allowed: what is learned is the same."""
    network = network_of([30, 20])
    check_twins(
        network,
        recipe_for(network, kind, 1e-11, FixedPointSolver(max_passes=1, fallback=NumbaSolver())),
        DIGITS.train.limit(45),
        monkeypatch,
    )


@compiled_only
def test_without_a_fallback_they_teach_nothing(monkeypatch) -> None:
    network = network_of([30, 20])
    recipe = recipe_for(network, tolerance=1e-30, solver=FixedPointSolver(max_passes=2))
    learner, (report, _) = trained(network, recipe, DIGITS.train.limit(45))
    assert report.unconverged == 45
    assert (learner.warm_start.seen == UNSEEN).all()
    for name, w in network.parameters().items():
        assert learner.network.parameters()[name].tobytes() == w.tobytes()


def test_nothing_is_learned_from_a_nudge_that_did_not_come_to_rest(monkeypatch) -> None:
    network, found = network_of([9, 7]), ReciprocalEngine._found

    def tired(engine, room, rows, rest, nudge):
        reached = found(engine, room, rows, rest, nudge)
        if nudge is not None:
            reached[0].status[::2] = Status.OUT_OF_STEPS
        return reached

    monkeypatch.setattr(ReciprocalEngine, "_found", tired)
    data = DIGITS.train.limit(2)
    learner, (report,) = trained(network, recipe_for(network, tolerance=1e-6), data, 1)
    assert report.unconverged == 1
    taught = data.images[np.random.default_rng(3).permutation(2)[1]]
    moved = learner.network.input - network.input
    assert (np.abs(moved).max(1) > 0).tolist() == ((taught > 0) & (np.abs(moved).max() > 0)).tolist()


@compiled_only
@pytest.mark.parametrize("tied", [True, False])
def test_the_number_of_threads_changes_no_bit(tied) -> None:
    network = network_of([70, 40], tied, np.float32)
    recipe = recipe_for(network, tolerance=1e-4, output_step=0.05)
    one, reports = trained(network, recipe, DIGITS.train.limit(130), threads=1)
    for threads in (2, 3):
        more, same = trained(network, recipe, DIGITS.train.limit(130), threads=threads)
        assert same_bits(one, more)
        assert [r.passes_free for r in reports] == [r.passes_free for r in same]


@compiled_only
def test_what_is_remembered_saves_passes_and_changes_nothing_beyond_the_tolerance() -> None:
    network = network_of([60, 40])
    recipe = recipe_for(network, tolerance=1e-4, output_step=0.1)
    learner, _ = trained(network, recipe, DIGITS.train.limit(200), 8)
    forgetful = copy.deepcopy(learner)
    forgetful.warm_start = None
    other = copy.deepcopy(learner)
    other.warm_start = ReciprocalWarmStart.empty(150, network)  # of other images
    known, unknown, strange = (
        train_epoch(each, DIGITS.train.limit(200), recipe) for each in (learner, forgetful, other)
    )
    assert known.passes_free < 0.8 * unknown.passes_free  # 0.74 +- 0.03 over eight seeds
    assert strange.passes_free == unknown.passes_free
    for name, w in learner.network.parameters().items():
        np.testing.assert_allclose(forgetful.network.parameters()[name], w, atol=1e-4, err_msg=name)
    assert (learner.warm_start.seen != UNSEEN).all()


@compiled_only
def test_resuming_with_what_was_remembered_gives_the_same_bits() -> None:
    network = network_of([40, 30], dtype=np.float32)
    recipe, data = recipe_for(network, "random-sign", 1e-3, momentum=0.3), DIGITS.train.limit(90)
    whole, _ = trained(network, recipe, data, 3)
    first, _ = trained(network, recipe, data, 1)
    kept = {name: array.copy() for name, array in first.warm_start.arrays().items()}
    again = Learner(
        first.network.copy(),
        copy.deepcopy(first.rng),
        {n: v.copy() for n, v in first.velocity.items()},
        1,
        ReciprocalWarmStart.of(kept),
    )
    for _ in range(2):
        train_epoch(again, data, recipe)
    assert same_bits(whole, again)
    assert ReciprocalWarmStart.of({"seen": kept["seen"]}) is None


def test_a_start_is_the_mean_of_today_and_the_distance_of_then() -> None:
    network = network_of([5, 3])
    memory = ReciprocalWarmStart.empty(4, network)
    assert [a.dtype for a in memory.arrays().values()] == [np.uint8, np.float64, np.int8]
    np.testing.assert_array_equal(memory.start(np.array([0, 3])), np.zeros((2, 3)))
    cut, output = np.array([[0.2, 1.0, 0.0], [0.4, 0.6, 0.0]]), np.eye(10)[[7, 7]]
    memory.keep(np.array([3, 1]), cut, output)
    memory.means[7] += 0.1
    moved = memory.means[7] + np.rint(cut * 127) / 127
    np.testing.assert_allclose(memory.start(np.array([1, 3])), np.clip(moved[::-1], 0, 1))
    np.testing.assert_allclose(memory.start(np.array([0])), memory.means.mean(0)[None])
    for _ in range(200):  # many of one class in a batch: the mean arrives, and does not overshoot
        memory.keep(np.zeros(300, int), np.full((300, 3), 0.9), np.eye(10)[np.zeros(300, int)])
    np.testing.assert_allclose(memory.means[0], 0.9)


def test_nan_stops_the_epoch_and_names_the_place() -> None:
    data = copy.copy(DIGITS.train.limit(43))
    images = data.images.copy()
    images[20, 3] = np.nan
    spoilt = type(data)(images, data.labels)
    network = network_of([9, 7])
    learner = Learner.start(network, recipe_for(network, tolerance=1e-4), 0)
    batch = int(np.flatnonzero(np.random.default_rng(0).permutation(43) == 20)[0]) // 20
    with pytest.raises(NotFiniteError, match=rf"images of batch {batch}\[\d+, 3\] = nan"):
        train_epoch(learner, spoilt, recipe_for(network, tolerance=1e-4))
    assert all(np.isfinite(w).all() for w in learner.network.parameters().values())
