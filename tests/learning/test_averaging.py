"""The average of the weights: what its formula says of the weights seen between batches, on every
engine and in any number of ranks; what is learned does not depend on it.
"""

from __future__ import annotations

import dataclasses
import importlib.util

import numba
import numpy as np
import pytest
from crowd import Crowd
from epochs import only_plain, same_bits

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning import mirror
from fsp_dynamics.learning.averaging import Averaging, WeightAverage
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.packed_loop import PackedLoop
from fsp_dynamics.training.checks import check_learner
from fsp_dynamics.training.engine import engine_of
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.ranks import ALONE
from fsp_dynamics.training.recipe import Learner, Recipe

compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="plain Python takes minutes")
TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
DATA = fsp.load_dataset("digits").train.limit(130)  # 13 batches, the last of them complete
EPOCHS, BATCHES = 3, 13
LOOP = fsp.loop_network([64, 12, 9, 10], loop_scale=0.3, rng=1)
TIED = fsp.reciprocal_network([64, 12, 10], rng=1)
SETTINGS = {
    "LoopEngine": (LOOP, {}, {"mirror": 0.3}),
    "ReciprocalEngine": (TIED, {}, {}),
    "PlainEngine": (LOOP, {"method": "anderson"}, {"mirror": 0.3}),
    "TorchEngine": (LOOP, {"name": "torch_fixed_point", "device": "cpu"}, {"mirror": 0.3}),
}
EACH = pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=TORCH if name == "TorchEngine" else ()) for name in SETTINGS]
)
HOW = {
    "equal": Averaging("equal", every=3),
    "late": Averaging("equal", every=4, start=1),
    "exponential": Averaging("exponential", 0.7, every=2),
    "once an epoch": Averaging("exponential", 0.9, every=1000),
}


def recipe_for(engine, average=None, **optimiser):
    network, solver, settings = SETTINGS[engine]
    rates = LearningRates(9.0, (4.0,) * (network.depth - 1), 0.5 if network.loop is not None else 0.0)
    solver = fsp.make_solver(solver.get("name", "fixed_point"), **{k: v for k, v in solver.items() if k != "name"})
    recipe = Recipe(Sgd(rates, **optimiser), solver, Tolerance(1e-4), batch=10, average=average, **settings)
    assert engine_of(network, recipe).__name__ == engine
    return network, recipe


def learned(network, recipe, epochs=EPOCHS, **options):
    learner = Learner.start(network, recipe, 3)
    for _ in range(epochs):
        train_epoch(learner, DATA, recipe, **options)
    return learner


@pytest.fixture(autouse=True)
def mirrored_often(monkeypatch):
    """A mirror phase after every second batch."""
    monkeypatch.setattr(mirror, "PIECE", 20)


def by_definition(samples, how):
    """{name: the average} of a list of {name: weights}, in float64."""
    found = {}
    for name in samples[0]:
        seen = [each[name].astype(np.float64) for each in samples]
        if how.kind == "equal":
            found[name] = sum(seen) / len(seen)
            continue
        found[name] = np.zeros_like(seen[0])
        for n, w in enumerate(seen, 1):
            share = how.factor if 1 - how.factor > 1 / n else 1 - 1 / n
            found[name] = share * found[name] + (1 - share) * w
    return found


@compiled_only
@EACH
@pytest.mark.parametrize("how", HOW)
def test_it_is_the_average_of_the_weights_seen_between_batches(engine, how) -> None:
    """Of copies kept by a probe, mirror phases included; what is learned stays to the bit."""
    how, seen = HOW[how], []
    network, recipe = recipe_for(engine, how)
    period = min(how.every, BATCHES)

    def keep(done, weights):
        found = network.copy()
        if isinstance(weights, PackedLoop):
            weights.write_to(found)
        else:
            found = weights.copy()
        seen.append(found.parameters())

    learner = learned(network, recipe, probe=keep, every=period)
    skipped = how.start * (BATCHES // period)
    expected = by_definition(seen[skipped:], how)
    assert learner.average.samples == len(seen) - skipped == (EPOCHS - how.start) * (BATCHES // period)
    for name, w in learner.averaged.parameters().items():
        assert w.dtype == network.dtype
        np.testing.assert_allclose(w, expected[name], atol=2e-6, rtol=0, err_msg=name)
    moved = max(np.abs(w - learner.network.parameters()[name]).max() for name, w in expected.items())
    assert moved > 1e-2
    without = learned(*recipe_for(engine))
    assert without.averaged is without.network
    for name, w in without.network.parameters().items():
        assert w.tobytes() == learner.network.parameters()[name].tobytes(), name


def test_the_beginning_is_forgotten() -> None:
    """Far away at first, then constant: the exponential average is within f^(n - 1/(1 - f)) of the
    constant; the first sample is taken whole, as every one is with factor 0.
    """
    start, end = {"w": np.full(3, 1000.0)}, {"w": np.array([1.0, 2.0, 3.0])}
    average, how = WeightAverage(), Averaging("exponential", 0.9)
    average.take(start, how)
    assert average.arrays["w"].tobytes() == start["w"].tobytes()
    assert average.arrays["w"] is not start["w"]
    for _ in range(99):
        average.take(end, how)
    assert np.abs(average.arrays["w"] - end["w"]).max() < 1000 * 0.9**90
    last = WeightAverage()
    for each in (start, end):
        last.take(each, Averaging("exponential", 0.0))
    assert last.arrays["w"].tobytes() == end["w"].tobytes()
    assert [round(1 / Averaging("exponential", 0.9).gain(n), 9) for n in (1, 2, 9, 10, 11, 500)] == [
        1,
        2,
        9,
        10,
        10,
        10,
    ]


@compiled_only
def test_what_is_frozen_is_averaged_to_the_bit() -> None:
    network, recipe = recipe_for("ReciprocalEngine", Averaging("equal", every=1), frozen=("input",))
    learner = learned(network, recipe, 1)
    assert learner.averaged.input.tobytes() == network.input.tobytes()
    assert learner.averaged.forward[0].tobytes() != learner.network.forward[0].tobytes()


@compiled_only
@pytest.mark.parametrize("sharing", [True, False], ids=["shared-memory", "messages"])
@pytest.mark.parametrize("plain", [False, True], ids=["loop", "plain"])
def test_any_number_of_ranks_averages_the_same_bits(sharing, plain, monkeypatch) -> None:
    if plain:
        only_plain(monkeypatch)
    network, recipe = LOOP, recipe_for("LoopEngine" if not plain else "PlainEngine", HOW["exponential"])[1]
    options = {"epochs": 2, "threads": 1}
    alone = (
        Crowd(1, sharing=sharing).run(lambda ranks: learned(network, recipe, ranks=ranks, **options))[0]
        if plain
        else learned(network, recipe, ranks=ALONE, **options)
    )
    for other in Crowd(2, sharing=sharing).run(lambda ranks: learned(network, recipe, ranks=ranks, **options)):
        assert plain or same_bits(other, alone)
        assert other.average.samples == alone.average.samples == 12
        for name, w in alone.average.arrays.items():
            assert w.tobytes() == other.average.arrays[name].tobytes(), name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "exponental"}, "did you mean 'exponential'"),
        ({"factor": 1}, r"factor = 1, expected a number from 0 to below 1"),
        ({"factor": float("nan")}, "factor = nan, expected"),
        ({"factor": "much"}, "factor = 'much', expected"),
        ({"kind": "equal", "factor": 0.5}, "factor = 0.5 belongs to kind = 'exponential'"),
        ({"every": 0}, "every = 0, expected a whole number, 1 or more"),
        ({"every": 2.5}, "every = 2.5, expected a whole number"),
        ({"start": -1}, "start = -1, expected a whole number, 0 or more"),
        ({"start": True}, "start = True, expected a whole number"),
    ],
)
def test_what_cannot_be_is_refused(given, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Averaging(**given)


def test_a_recipe_takes_an_averaging_and_no_name() -> None:
    _, recipe = recipe_for("ReciprocalEngine")
    with pytest.raises(ConfigurationError, match=r"average = 'equal', expected learning.averaging.Averaging"):
        dataclasses.replace(recipe, average="equal")


def test_an_average_that_is_not_finite_ends_the_epoch() -> None:
    learner = Learner.start(TIED, recipe_for("ReciprocalEngine")[1], 0)
    learner.average.take({"input": np.full(3, np.inf)}, Averaging())
    with pytest.raises(ArithmeticError, match="the average of input is not finite after epoch 0"):
        check_learner(learner)
