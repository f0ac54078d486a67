"""Weight noise: how large it is, on which matrices, that it is taken off, and that all engines
learn with the same.
"""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pytest
from epochs import only_plain, trained
from scipy import stats

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning import mirror
from fsp_dynamics.learning.averaging import Averaging
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.recipe import Learner, Recipe
from fsp_dynamics.training.weight_noise import WeightNoise, matrices

compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="takes minutes as plain Python")
DIGITS = fsp.load_dataset("digits").train.limit(70)
SGD = Sgd(LearningRates(0.5, (0.3, 0.2), 0.05))
STILL = Sgd(LearningRates(1e-30, (1e-30, 1e-30), 1e-30))  # learns, by less than rounding


def loop(dtype=np.float64):
    return fsp.loop_network([64, 14, 9, 10], loop_scale=0.5, rng=0, dtype=dtype)


def tied(dtype=np.float64):
    return fsp.reciprocal_network([64, 14, 9, 10], forward_scale=0.3, rng=0, dtype=dtype)


def recipe(sigma, optimiser=SGD, tolerance=1e-12, solver=None, **changes):
    return Recipe(
        optimiser, solver or FixedPointSolver(), Tolerance(tolerance), batch=10, weight_noise=sigma, **changes
    )


def epoch_of(seed, done=0):
    state = EpochState.begin(70, 10, 10, 1.0, "one-sided", np.random.default_rng(0))
    state.seed, state.done = seed, done
    return state


def noise_of(network, seed, done=0, sigma=0.2, optimiser=SGD):
    """What a fresh perturbation adds to each matrix that carries some."""
    noise, noisy = WeightNoise.of(sigma, optimiser, network, epoch_of(seed, done)), network.copy()
    noise.renew(noisy)
    return noise, {name: w - network.parameters()[name] for name, w in noisy.parameters().items()}


def rms(w):
    return np.sqrt(np.mean(np.square(w)))


def test_noise_is_normal_with_the_share_asked_of_each_matrix_and_none_on_biases_and_frozen_ones() -> None:
    network = loop()
    frozen = dataclasses.replace(SGD, frozen=("forward[0]",), rates=LearningRates(0.5, (0.3, 0.2), 0.0))
    _, added = noise_of(network, 2**63 + 5, optimiser=frozen)
    carrying = {name for name, change in added.items() if change.any()}
    assert carrying == {"input", "forward[1]"}, "forward[0] is frozen, the loop has the rate 0"
    share = np.concatenate([(added[n] / rms(network.parameters()[n])).ravel() for n in sorted(carrying)]) / 0.2
    assert share.mean() == pytest.approx(0, abs=4 / np.sqrt(share.size))
    assert share.std() == pytest.approx(1, abs=4 / np.sqrt(2 * share.size))
    assert stats.kstest(share, "norm").pvalue > 1e-3


def test_each_perturbation_matrix_and_epoch_has_its_own_and_their_mean_is_none() -> None:
    network = loop()
    drawn = [noise_of(network, seed, done)[1] for seed in (1, 2) for done in range(0, 100, 2)]
    inputs = np.array([each["input"].ravel() for each in drawn])
    close = np.corrcoef(inputs) - np.eye(len(inputs))
    assert np.abs(close).max() < 6 / np.sqrt(inputs.shape[1])
    assert rms(inputs.mean(0)) == pytest.approx(rms(inputs) / np.sqrt(len(inputs)), rel=0.1)
    one = drawn[0]
    pair = np.corrcoef(one["input"].ravel()[:126], one["forward[0]"].ravel())[0, 1]
    assert abs(pair) < 4 / np.sqrt(126)


def test_it_is_taken_off_as_it_was_put_on_and_found_again_from_a_checkpoint() -> None:
    network = loop()
    noise, added = noise_of(network, 7, done=3)
    again = EpochState.of(noise.state.arrays())
    found = WeightNoise.of(0.2, SGD, network, again)
    assert not found.is_due
    for name, change in found.carried.items():
        assert change.tobytes() == noise.carried[name].tobytes()
        np.testing.assert_allclose(change, added[name], rtol=0, atol=1e-15)
    noisy = network.with_parameters({name: network.parameters()[name] + change for name, change in added.items()})
    for name, w in noise.clean(noisy.parameters()).items():
        np.testing.assert_allclose(w, network.parameters()[name], rtol=0, atol=1e-15)
    found.take_off(noisy)
    assert (found.carried, found.state.noise.size, found.is_due) == ({}, 0, True)
    for name, w in noisy.parameters().items():
        np.testing.assert_allclose(w, network.parameters()[name], rtol=0, atol=1e-15)


@compiled_only
@pytest.mark.parametrize("make", [loop, tied])
def test_at_the_end_of_an_epoch_the_weights_are_those_without_noise(make, monkeypatch) -> None:
    """Where nothing is learned, those of the beginning, to the rounding of seven perturbations."""
    monkeypatch.setattr(mirror, "PIECE", 10)
    network, seen = make(np.float32), []
    still = STILL if make is loop else dataclasses.replace(STILL, rates=LearningRates(1e-30, (1e-30, 1e-30)))
    how = recipe(0.1, still, tolerance=1e-4, average=Averaging("equal", every=1))
    learner = Learner.start(network, how, 0)

    def look(done, weights):
        current = learner.network.copy()
        if hasattr(weights, "write_to"):
            weights.write_to(current)
        seen.append(current.forward[0] - network.forward[0])

    report = train_epoch(learner, DIGITS, how, probe=look, every=1)
    assert report.unconverged == 0
    carried = np.array([rms(change) / rms(network.forward[0]) for change in seen])
    np.testing.assert_allclose(carried, 0.1, rtol=0.25)
    assert len({change.tobytes() for change in seen}) == 7
    for name, w in network.parameters().items():
        for found in (learner.network, learner.averaged):
            np.testing.assert_allclose(found.parameters()[name], w, rtol=0, atol=1e-6 * max(rms(w), 1e-3), err_msg=name)


@compiled_only
@pytest.mark.parametrize("make", [loop, tied])
def test_every_engine_learns_what_the_slow_twin_learns(make, monkeypatch) -> None:
    """Beside batches learned one by one with noise added and taken off by hand."""
    monkeypatch.setattr(mirror, "PIECE", 20)
    network = make()
    sgd = SGD if make is loop else dataclasses.replace(SGD, rates=LearningRates(0.5, (0.3, 0.2)))
    sgd = dataclasses.replace(sgd, decay=0.01, momentum=0.5)
    how = recipe(0.1, sgd)
    solvers = [how.solver]
    if make is loop:
        pytest.importorskip("torch")
        solvers.append(fsp.make_solver("torch_fixed_point", device="cpu"))
    found = [trained(network, dataclasses.replace(how, solver=solver), DIGITS)[0] for solver in solvers]
    only_plain(monkeypatch)
    found.append(trained(network, how, DIGITS)[0])

    slow, rng = Learner.start(network, recipe(0.0, sgd), 3), np.random.default_rng(3)
    for _ in range(2):
        order, seed = rng.permutation(70), int(rng.integers(1 << 64, dtype=np.uint64))
        for number in range(7):
            if number % 2 == 0:
                _, added = noise_of(slow.network, seed, number, 0.1, sgd)
            index = order[number * 10 : number * 10 + 10]
            slow.network = slow.network.with_parameters(
                {name: w + added[name] for name, w in slow.network.parameters().items()}
            )
            epoch, slow.rng = slow.epoch, np.random.default_rng(0)
            train_epoch(slow, Pictures(DIGITS.images[index], DIGITS.labels[index]), recipe(0.0, sgd))
            slow.network = slow.network.with_parameters(
                {name: w - added[name] for name, w in slow.network.parameters().items()}
            )
            slow.epoch = epoch
    for learner in found:
        for name, w in slow.network.parameters().items():
            np.testing.assert_allclose(learner.network.parameters()[name], w, rtol=0, atol=1e-8, err_msg=name)


@dataclasses.dataclass
class Pictures:
    images: np.ndarray
    labels: np.ndarray


def test_without_noise_nothing_is_drawn() -> None:
    """So weights have the bits that they had before there was any."""
    smooth = fsp.loop_network([64, 6, 10], rho="logistic", rng=0)
    plain = recipe(0.0, Sgd(LearningRates(1.0, (1.0,), 0.1)), tolerance=1e-4)
    learner = Learner.start(smooth, plain, 5)
    train_epoch(learner, DIGITS, plain)
    rng = np.random.default_rng(5)
    rng.permutation(70)
    assert learner.rng.bit_generator.state == rng.bit_generator.state


def test_noise_that_is_no_longer_asked_for_is_taken_off_when_the_epoch_goes_on() -> None:
    """And noise that is asked for now is put on."""
    smooth = fsp.loop_network([64, 6, 10], rho="logistic", rng=0, dtype=np.float64)
    sgd = Sgd(LearningRates(1.0, (1.0,), 0.1))
    without, with_noise = (recipe(sigma, sgd, tolerance=1e-4) for sigma in (0.0, 0.1))
    for first, then in ((with_noise, without), (without, with_noise)):
        learner, sizes = Learner.start(smooth, first, 5), []  # of what is carried

        def leave(done, total, error):
            raise Stop

        with pytest.raises(Stop):
            train_epoch(learner, DIGITS, first, leave)
        assert (learner.unfinished.noise.size > 0) == (first is with_noise)
        state = learner.unfinished

        def look(*place, state=state, sizes=sizes):
            sizes.append(state.noise.size)

        train_epoch(learner, DIGITS, then, look)
        assert sizes[0] == (1 + len(matrices(smooth)) if then is with_noise else 0)
        assert state.noise.size == 0


class Stop(Exception):
    pass


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf"), "much"])
def test_impossible_noise_is_refused(sigma) -> None:
    with pytest.raises(ConfigurationError, match=r"weight_noise = .*, expected a finite number, 0 or more"):
        recipe(sigma)
