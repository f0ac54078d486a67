"""Which engine trains what, and that an epoch left between two batches goes on to the same bits."""

from __future__ import annotations

import dataclasses
import signal

import numba
import numpy as np
import pytest
from epochs import only_plain

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.kernels import team
from fsp_dynamics.kernels.heed import heeding
from fsp_dynamics.learning import mirror
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.learning.rules import Rule, make_rule
from fsp_dynamics.learning.rules.hebbian import HebbianRule, contrastive_terms
from fsp_dynamics.learning.rules.mean_subtracted import MeanSubtractedRule
from fsp_dynamics.learning.rules.products import ProductsRule
from fsp_dynamics.learning.schedules import make_schedule
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.reference import ReferenceSolver
from fsp_dynamics.training.augmentation import NONE, Augmentation
from fsp_dynamics.training.engine import engine_of, slow_rule
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.epoch_state import EpochState
from fsp_dynamics.training.loop_engine import LoopEngine
from fsp_dynamics.training.plain_engine import PlainEngine
from fsp_dynamics.training.recipe import Learner, Recipe
from fsp_dynamics.training.reciprocal_engine import ReciprocalEngine

DIGITS = fsp.load_dataset("digits").train.limit(130)
compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="takes minutes as plain Python")


def network_of(kind):
    if kind == "loop":
        return fsp.loop_network([64, 12, 9, 10], rng=1, loop_scale=0.5)
    if kind == "logistic":
        return fsp.loop_network([64, 8, 10], rng=1, rho="logistic")
    return fsp.reciprocal_network([64, 12, 9, 10], forward_scale=0.3, rng=2, tied=kind == "tied")


EVERYTHING = Augmentation(shift=1, rotation=10.0, noise=0.05, flip=0.2)


def recipe_for(
    network,
    solver=None,
    rule="hebbian",
    kind="one-sided",
    mirror=0.0,
    batch=20,
    augmentation=NONE,
    weight_noise=0.0,
    **optimiser,
):
    chain = len(network.forward)
    rates = LearningRates(
        3.0, (4.0,) * chain, 0.5 if network.loop is not None else 0.0, (1.0,) * len(network.backward or ())
    )
    how = {
        "beta": 0.5, "phases": kind, "rule": rule, "mirror": mirror, "batch": batch, "augmentation": augmentation,
        "weight_noise": weight_noise,
    }  # fmt: skip
    return Recipe(Sgd(rates, **optimiser), solver or FixedPointSolver(), Tolerance(1e-4), **how)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("loop", {}, LoopEngine),
        ("loop", {"rule": "mean_subtracted"}, LoopEngine),
        ("loop", {"rule": "products"}, PlainEngine),
        ("loop", {"rule": "gradient"}, PlainEngine),
        ("loop", {"solver": FixedPointSolver("anderson")}, PlainEngine),
        ("loop", {"solver": ReferenceSolver("rk4", dt=0.1)}, PlainEngine),
        ("logistic", {}, PlainEngine),
        ("tied", {}, ReciprocalEngine),
        ("tied", {"rule": "products"}, ReciprocalEngine),
        ("tied", {"rule": "gradient"}, PlainEngine),
        ("untied", {"rule": "mean_subtracted"}, ReciprocalEngine),
    ],
)
def test_the_engine_of(kind, options, expected) -> None:
    network = network_of(kind)
    assert engine_of(network, recipe_for(network, **options)) is expected


class Halved(Rule):
    """Eq. 14, half as fast."""

    name = "halved"

    def terms(self, network, images, contrast):
        for term in contrastive_terms(network, images, contrast.free, contrast.change):
            yield term._replace(post=term.post / 2)


def test_a_rule_without_a_compiled_engine_trains_on_the_plain_one_and_says_so() -> None:
    network = network_of("loop")
    assert engine_of(network, recipe_for(network, rule=Halved())) is PlainEngine
    assert "rule 'halved' has no compiled engine" in slow_rule(network, recipe_for(network, rule=Halved()))
    assert slow_rule(network, recipe_for(network)) is None
    logistic = network_of("logistic")
    assert slow_rule(logistic, recipe_for(logistic, rule=Halved())) is None, "the network is why, not the rule"


@pytest.mark.parametrize(
    ("kind", "base"), [("loop", HebbianRule), ("loop", MeanSubtractedRule), ("tied", ProductsRule)]
)
def test_a_rule_that_inherits_one_of_the_package_is_not_trained_as_that_one(kind, base) -> None:
    class Silent(base):
        name = "silent"

        def terms(self, network, images, contrast):
            return iter(())

    network = network_of(kind)
    recipe = recipe_for(network, rule=Silent())
    learner = Learner.start(network, recipe, 0)
    train_epoch(learner, DIGITS.limit(20), recipe)
    for name, w in learner.network.parameters().items():
        assert np.array_equal(w, network.parameters()[name]), name
    assert "rule 'silent' has no compiled engine" in slow_rule(network, recipe)


def test_a_term_for_no_parameter_is_refused() -> None:
    class Misspelt(Rule):
        name = "misspelt"

        def terms(self, network, images, contrast):
            for term in contrastive_terms(network, images, contrast.free, contrast.change):
                yield term._replace(parameter=term.parameter.replace("forward", "foward"))

    network = network_of("loop")
    recipe = recipe_for(network, rule=Misspelt())
    with pytest.raises(ConfigurationError, match=r"rule 'misspelt' has a term for 'foward\[0\]'.*'forward\[0\]'"):
        train_epoch(Learner.start(network, recipe, 0), DIGITS.limit(20), recipe)


def test_half_an_update_is_half_the_learning_rate(monkeypatch) -> None:
    """A rule of one's own is what is learned, through the optimiser, on whatever engine."""
    only_plain(monkeypatch)
    network, data = network_of("loop"), DIGITS.limit(40)
    mine = Learner.start(network, recipe_for(network, rule=Halved(), normalised=False), 3)
    theirs = Learner.start(network, recipe_for(network, normalised=False), 3)
    whole = recipe_for(network, normalised=False)
    half = LearningRates(1.5, (2.0, 2.0), 0.25)
    train_epoch(mine, data, recipe_for(network, rule=Halved(), normalised=False))
    train_epoch(theirs, data, dataclasses.replace(whole, optimiser=Sgd(half, normalised=False)))
    for name, w in mine.network.parameters().items():
        np.testing.assert_allclose(w, theirs.network.parameters()[name], rtol=0, atol=1e-5, err_msg=name)


@compiled_only
@pytest.mark.parametrize(
    "case", ["loop", "loop-momentum-sign-mirror", "tied", "plain", "plain-mirror", "torch-noisy", "torch-tied"]
)
def test_a_schedule_is_other_rates_in_every_epoch(case, monkeypatch) -> None:
    """Three epochs, against epochs without a schedule whose rates, that of mirror phases too, are
    multiplied by hand.
    """
    monkeypatch.setattr(mirror, "PIECE", 40)
    kind, options = CASES[case]
    if options.get("solver") == "torch":
        pytest.importorskip("torch")
        options = {**options, "solver": fsp.make_solver("torch_fixed_point", device="cpu")}
    network, data = network_of(kind), DIGITS.limit(60)
    recipe = recipe_for(network, **options)
    rates = recipe.optimiser.rates
    scheduled, by_hand = Learner.start(network, recipe, 3), Learner.start(network, recipe, 3)
    schedule = make_schedule("steps", warm_up=1, at=(2,), by=0.25)
    for factor in (0.5, 1.0, 0.25):
        once = LearningRates(
            factor * rates.input, tuple(factor * rate for rate in rates.forward), factor * rates.loop, rates.backward
        )
        for learner, share, changes in ((scheduled, 1.0, {"schedule": schedule}), (by_hand, factor, {"rates": once})):
            optimiser = dataclasses.replace(recipe.optimiser, **changes)
            same = dataclasses.replace(recipe, optimiser=optimiser, mirror=share * recipe.mirror)
            train_epoch(learner, data, same, threads=1)
        for name, w in scheduled.network.parameters().items():
            assert np.array_equal(w, by_hand.network.parameters()[name]), (factor, name)


class Stop(Exception):
    pass


CASES = {
    "loop": ("loop", {}),
    "loop-momentum-sign-mirror": ("loop", {"momentum": 0.5, "kind": "random-sign", "mirror": 0.2, "batch": 10}),
    "tied": ("tied", {"kind": "centred"}),
    "tied-momentum": ("tied", {"momentum": 0.5, "kind": "random-sign"}),
    "plain": ("loop", {"rule": "gradient", "momentum": 0.5, "kind": "random-sign"}),
    "plain-mirror": ("loop", {"solver": FixedPointSolver("anderson"), "mirror": 0.2, "kind": "random-sign"}),
    "torch": ("loop", {"solver": "torch", "momentum": 0.5, "kind": "random-sign", "mirror": 0.2}),
    "torch-tied": ("tied", {"solver": "torch", "output_step": 0.05}),
    "loop-augmented": ("loop", {"augmentation": EVERYTHING, "kind": "random-sign"}),
    "tied-augmented": ("tied", {"augmentation": EVERYTHING}),
    "plain-augmented": ("loop", {"rule": "gradient", "augmentation": EVERYTHING}),
    "torch-augmented": ("loop", {"solver": "torch", "augmentation": EVERYTHING, "momentum": 0.5}),
    "loop-noisy": ("loop", {"weight_noise": 0.1, "mirror": 0.2, "momentum": 0.5}),
    "tied-noisy": ("tied", {"weight_noise": 0.1}),
    "untied-noisy": ("untied", {"weight_noise": 0.1, "momentum": 0.5}),
    "plain-noisy": ("loop", {"rule": "gradient", "weight_noise": 0.1, "augmentation": EVERYTHING}),
    "torch-noisy": ("loop", {"solver": "torch", "weight_noise": 0.1, "mirror": 0.2}),
}


@compiled_only
@pytest.mark.parametrize("case", CASES)
def test_an_epoch_left_between_two_batches_goes_on_to_the_same_bits(case, monkeypatch) -> None:
    """Weights, velocity, warm start, random stream and report: the state goes through arrays, as a
    checkpoint takes it, into a learner made anew.
    """
    kind, options = CASES[case]
    if options.get("solver") == "torch":
        pytest.importorskip("torch")
        from fsp_dynamics.torch_backend import engine as torch_engine

        monkeypatch.setattr(torch_engine, "CHUNK", 20)
        options = {**options, "solver": fsp.make_solver("torch_fixed_point", device="cpu")}
    from fsp_dynamics.training import loop_engine

    monkeypatch.setattr(loop_engine, "CHUNK", 20)
    monkeypatch.setattr(mirror, "PIECE", 40)
    network = network_of(kind)
    recipe = recipe_for(network, **options)
    whole = Learner.start(network, recipe, 3)
    reports = [train_epoch(whole, DIGITS, recipe) for _ in range(2)]

    left = Learner.start(network, recipe, 3)
    train_epoch(left, DIGITS, recipe)

    def leave(done, total, error):
        if done >= 60:
            raise Stop

    with pytest.raises(Stop):
        train_epoch(left, DIGITS, recipe, leave)
    assert_it_goes_on(left, recipe, whole, reports[1])


@compiled_only
@pytest.mark.parametrize(
    ("case", "how"), [*((case, "check") for case in CASES), ("loop", "Ctrl-C"), ("tied", "Ctrl-C")]
)
def test_a_batch_left_while_it_relaxes_was_never_begun(case, how, monkeypatch) -> None:
    """A check, or a signal, in the middle of some batch, of whichever phase: the epoch goes on to
    the same bits.
    """
    kind, options = CASES[case]
    if options.get("solver") == "torch":
        pytest.importorskip("torch")
        options = {**options, "solver": fsp.make_solver("torch_fixed_point", device="cpu")}
    monkeypatch.setattr(mirror, "PIECE", 40)
    network = network_of(kind)
    # of samples that Newton's method or integration brings to convergence many are left half-way
    solver = options.pop("solver", None) or fsp.make_solver(method="anderson" if kind == "tied" else None, max_passes=4)
    recipe = recipe_for(network, solver, **options)
    whole = Learner.start(network, recipe, 3)
    reports = [train_epoch(whole, DIGITS, recipe) for _ in range(2)]
    monkeypatch.setattr(team, "BRIEF", 0)
    monkeypatch.setattr(team, "POLL", 0)
    for patience in (2, 7):
        left = Learner.start(network, recipe, 3)
        train_epoch(left, DIGITS, recipe)
        calls = []

        def leave(calls=calls, patience=patience):
            calls.append(1)
            if len(calls) == patience:
                if how == "check":
                    raise Stop
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(Stop if how == "check" else KeyboardInterrupt), heeding(leave):
            train_epoch(left, DIGITS, recipe)
        assert_it_goes_on(left, recipe, whole, reports[1])


def assert_it_goes_on(left, recipe, whole, report) -> None:
    """From its state the epoch goes on to what `whole` learned and reported."""
    assert left.unfinished is not None
    assert 0 <= left.unfinished.done < len(left.unfinished.betas)
    assert left.epoch == 1
    rng = np.random.default_rng()
    rng.bit_generator.state = left.rng.bit_generator.state
    arrays = {name: a.copy() for name, a in left.unfinished.arrays().items()}
    velocity = {name: v.copy() for name, v in left.velocity.items()}
    warm_start = None if left.warm_start is None else type(left.warm_start).of(left.warm_start.arrays())
    again = Learner(left.network.copy(), rng, velocity, 1, warm_start, EpochState.of(arrays))
    found_report = train_epoch(again, DIGITS, recipe)
    for name, w in whole.network.parameters().items():
        assert w.tobytes() == again.network.parameters()[name].tobytes(), name
    for name, v in whole.velocity.items():
        assert v.tobytes() == again.velocity[name].tobytes(), name
    if whole.warm_start is not None:
        for name, a in whole.warm_start.arrays().items():
            assert a.tobytes() == again.warm_start.arrays()[name].tobytes(), name
    assert whole.rng.bit_generator.state == again.rng.bit_generator.state
    expected, found = ({k: v for k, v in r.as_dict().items() if "second" not in k} for r in (report, found_report))
    assert found == expected
    assert again.unfinished is None


def test_an_unfinished_epoch_over_other_data_is_refused() -> None:
    network = network_of("loop")
    recipe = recipe_for(network, rule="gradient")
    learner = Learner.start(network, recipe, 0)

    def leave(done, total, error):
        raise Stop

    with pytest.raises(Stop):
        train_epoch(learner, DIGITS.limit(40), recipe, leave)
    with pytest.raises(ConfigurationError, match="an epoch over 40 images in batches of 20 is unfinished, but 60"):
        train_epoch(learner, DIGITS.limit(60), recipe)


def test_an_engine_is_chosen_by_rule_objects_and_names_alike() -> None:
    network = network_of("loop")
    assert recipe_for(network, rule="products").rule == recipe_for(network, rule=make_rule("products")).rule
