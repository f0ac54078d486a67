"""What becomes of an update: rates, normalisation, momentum, decay, frozen matrices, and the limit
that keeps outputs alive.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import oracles
import problems
import pytest

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.learning import phases
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.learning.rules.hebbian import HEBBIAN
from fsp_dynamics.learning.rules.update import update
from fsp_dynamics.learning.schedules import FactorSchedule
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver

RATES = LearningRates(0.3, (0.2, 0.1), 0.05)
PLAIN = Sgd(RATES, normalised=False)


def batch(name="interior", beta=0.5):
    p = problems.problem(name)
    target = p.nudges["nudged"].target
    both = phases.run(p.network, p.drive, target, beta, FixedPointSolver(), tolerance=Tolerance(1e-13))
    return p, both, update(HEBBIAN, p.network, p.images, both).parameters()


def stepped(sgd, p, both, steps=1, epoch=0, velocity=None):
    network = p.network.copy()
    for _ in range(steps):
        sgd.step(
            network,
            {} if velocity is None else velocity,
            HEBBIAN,
            p.images,
            both,
            float((p.images**2).sum(1).mean()),
            epoch,
        )
    return network.parameters()


def rate_of(name):
    return {
        "input": 0.3,
        "forward[0]": 0.2,
        "forward[1]": 0.1,
        "loop": 0.05,
        "biases[0]": 0.3,
        "biases[1]": 0.2,
        "biases[2]": 0.1,
    }[name]


def test_a_plain_step_adds_rate_times_update_and_biases_share_the_rate_into_their_layer() -> None:
    p, both, update = batch()
    for name, w in stepped(PLAIN, p, both).items():
        np.testing.assert_allclose(w, p.network.parameters()[name] + rate_of(name) * update[name], atol=1e-15)


def test_normalised_rates_are_divided_by_one_plus_the_presynaptic_square() -> None:
    """lr_W = eta_W / (1 + mean_B ||rho(s_pre^0)||^2), sample by sample."""
    p, both, update = batch()
    layers = {"input": p.images, "biases[0]": p.images, "loop": both.free.state[2]}
    layers |= {key: both.free.state[k] for k in (0, 1) for key in (f"forward[{k}]", f"biases[{k + 1}]")}
    for name, w in stepped(dataclasses.replace(PLAIN, normalised=True), p, both).items():
        lr = rate_of(name) / (1 + np.mean([sum(x * x for x in row) for row in layers[name]]))
        np.testing.assert_allclose(w, p.network.parameters()[name] + lr * update[name], atol=1e-15)


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_reciprocal_networks_learn_in_both_directions(name) -> None:
    p, both, update = batch(name)
    rates = LearningRates(0.3, (0.2, 0.1), backward=() if p.network.tied else (0.07, 0.08))
    for key, w in stepped(Sgd(rates, normalised=False), p, both).items():
        np.testing.assert_allclose(w, p.network.parameters()[key] + rates.of(key) * update[key], atol=1e-15)
    assert np.abs(oracles.hebbian(p.network, p.images, p.known["free"], p.known["nudged"], 0.7)["forward[1]"]).max() > 0


def test_frozen_parameters_keep_their_bits() -> None:
    p, both, _ = batch()
    frozen = ("loop", "forward[0]", "biases[2]")
    after = stepped(dataclasses.replace(PLAIN, frozen=frozen, momentum=0.5, decay=0.1), p, both, steps=3)
    for name, w in p.network.parameters().items():
        assert (after[name].tobytes() == w.tobytes()) == (name in frozen)


def test_momentum_is_the_recursion_written_out() -> None:
    """V <- mu V + dW, W <- W + lr V."""
    p, both, update = batch()
    velocity: dict = {}
    after = stepped(dataclasses.replace(PLAIN, momentum=0.9), p, both, steps=3, velocity=velocity)
    for name, w in p.network.parameters().items():
        v, wanted = np.zeros_like(w), w.copy()
        for _ in range(3):
            v = 0.9 * v + update[name]
            wanted = wanted + rate_of(name) * v
        np.testing.assert_allclose(after[name], wanted, atol=1e-14)
        np.testing.assert_allclose(velocity[name], v, atol=1e-14)


def test_decay_shrinks_matrices_and_spares_biases() -> None:
    p, both, update = batch()
    for name, w in stepped(dataclasses.replace(PLAIN, decay=0.5), p, both).items():
        kept = 1.0 if name.startswith("biases") else 1 - 0.5 * rate_of(name)
        np.testing.assert_allclose(w, kept * p.network.parameters()[name] + rate_of(name) * update[name], atol=1e-15)


def test_rates_shrink_by_their_factor_each_epoch() -> None:
    p, both, update = batch()
    for name, w in stepped(dataclasses.replace(PLAIN, schedule=FactorSchedule(0.5)), p, both, epoch=3).items():
        np.testing.assert_allclose(w, p.network.parameters()[name] + rate_of(name) / 8 * update[name], atol=1e-15)


def test_no_output_moves_further_than_output_step() -> None:
    """The largest change of an output's mean input by its own matrix and bias is exactly the
    limit, where the plain step exceeds it.
    """
    p, both, _ = batch()
    rates = np.clip(both.free.state[-2], 0, 1)

    def moved(sgd):
        after = stepped(sgd, p, both)
        change = {name: after[name] - p.network.parameters()[name] for name in ("forward[1]", "biases[2]")}
        return np.abs((rates @ change["forward[1]"] + change["biases[2]"]).mean(0)).max()

    free = moved(PLAIN)
    assert moved(dataclasses.replace(PLAIN, output_step=0.25 * free)) == pytest.approx(0.25 * free, rel=1e-12)
    assert moved(dataclasses.replace(PLAIN, output_step=1.5 * free)) == pytest.approx(free, rel=1e-12)


OWN = (0.15, 0.6, 0.4)  # of biases; the last of them is four times the rate of the matrix


@pytest.mark.parametrize("normalised", [False, True])
def test_biases_may_have_rates_of_their_own(normalised) -> None:
    """dW / lr_W = db / lr_b: biases move as they do at the rate of their matrix, times the quotient
    of the two; matrices as without.
    """
    p, both, _ = batch()
    shared = dataclasses.replace(PLAIN, normalised=normalised)
    own = dataclasses.replace(shared, rates=dataclasses.replace(RATES, biases=OWN))
    before, after = p.network.parameters(), stepped(own, p, both)
    for name, w in stepped(shared, p, both).items():
        factor = OWN[int(name[-2])] / rate_of(name) if name.startswith("biases") else 1.0
        np.testing.assert_allclose(after[name] - before[name], factor * (w - before[name]), atol=1e-15)
    same = dataclasses.replace(RATES, biases=(0.3, 0.2, 0.1))
    for name, w in stepped(dataclasses.replace(own, rates=same), p, both).items():
        assert np.array_equal(w, stepped(shared, p, both)[name]), name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("matrix", "bias"), [(0.1, 0.4), (0.4, 0.1), (0.0, 0.4), (0.4, 0.0)])
def test_the_limit_counts_matrix_and_biases_at_the_rates_they_have(matrix, bias, momentum) -> None:
    """The move is exactly the limit, and the two rates keep their quotient."""
    p, both, _ = batch()
    rates = dataclasses.replace(RATES, forward=(0.2, matrix), biases=(*OWN[:2], bias))
    free = np.clip(both.free.state[-2], 0, 1).mean(0)

    def changes(output_step):
        sgd = dataclasses.replace(PLAIN, rates=rates, output_step=output_step, momentum=momentum)
        after = stepped(sgd, p, both)
        return [after[name] - p.network.parameters()[name] for name in ("forward[1]", "biases[2]")]

    plain = changes(None)
    largest = np.abs(free @ plain[0] + plain[1]).max()
    limited = changes(0.25 * largest)
    assert np.abs(free @ limited[0] + limited[1]).max() == pytest.approx(0.25 * largest, rel=1e-12)
    for few, many in zip(limited, plain, strict=True):
        np.testing.assert_allclose(few, 0.25 * many, atol=1e-15)


def test_all_rates_times_a_factor() -> None:
    rates = LearningRates(1.0, (2.0, 3.0), 4.0, (5.0,), (6.0, 7.0, 8.0))
    assert rates.scaled(0.5) == LearningRates(0.5, (1.0, 1.5), 2.0, (2.5,), (3.0, 3.5, 4.0))


def test_the_limit_holds_for_the_momentum_of_earlier_batches_too() -> None:
    p, both, _ = batch()
    sgd = dataclasses.replace(PLAIN, momentum=0.9, output_step=0.01)
    network, velocity = p.network.copy(), {}
    rates = np.clip(both.free.state[-2], 0, 1).mean(0)
    for _ in range(6):
        before = {name: w.copy() for name, w in network.parameters().items()}
        sgd.step(network, velocity, HEBBIAN, p.images, both, 1.0, 0)
        change = {name: w - before[name] for name, w in network.parameters().items()}
        assert np.abs(rates @ change["forward[1]"] + change["biases[2]"]).max() <= 0.01 * (1 + 1e-12)
    assert np.abs(velocity["forward[1]"]).max() > 0


def test_the_limit_touches_the_output_alone() -> None:
    p, both, _ = batch()
    plain, limited = stepped(PLAIN, p, both), stepped(dataclasses.replace(PLAIN, output_step=1e-6), p, both)
    for name in plain:
        assert np.array_equal(plain[name], limited[name]) == (name not in ("forward[1]", "biases[2]"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"decay": -0.1}, "decay = -0.1"),
        ({"schedule": 0.9}, "schedule = 0.9, expected a learning.schedules.Schedule"),
        ({"output_step": -1.0}, "output_step = -1.0"),
    ],
)
def test_refused_settings(settings, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Sgd(RATES, **settings)


@pytest.mark.parametrize(
    ("sgd", "message"),
    [
        (Sgd(LearningRates(0.1, (0.1,), 0.1)), r"rates.forward has 1 values, expected 2"),
        (Sgd(LearningRates(0.1, (0.1, 0.1), 0.1, (0.1,))), r"rates.backward has 1 values, expected 0"),
        (Sgd(dataclasses.replace(RATES, biases=(0.1,))), r"rates.biases has 1 values, expected 3, one for each layer"),
        (Sgd(dataclasses.replace(RATES, biases=(0.1, 0.1, -1.0))), r"rate of biases\[2\] is -1.0"),
        (Sgd(LearningRates(0.1, (0.1, -0.1), 0.1)), r"rate of forward\[1\] is -0.1"),
        (Sgd(LearningRates(float("nan"), (0.1, 0.1), 0.1)), "rate of input is nan"),
        (Sgd(RATES, frozen=("lop",)), "did you mean 'loop'"),
    ],
)
def test_rates_that_do_not_fit_the_network(sgd, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        sgd.check(problems.problem("interior").network)
