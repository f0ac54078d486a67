"""Epochs on tensors: what the plain loop over `phases.run` and `Sgd.step` learns, in ranks of any
number to the bit, and nothing doubtful.
"""

from __future__ import annotations

import dataclasses
import itertools

import numba
import numpy as np
import pytest
from crowd import Crowd
from epochs import OPTIMISERS, only_plain, own_biases, same_bits, trained

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError, FspError, NotFiniteError
from fsp_dynamics.kernels.loop_learning import COUNTED
from fsp_dynamics.learning import mirror
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.learning.rules.hebbian import HebbianRule
from fsp_dynamics.learning.schedules import FactorSchedule
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.torch_backend import broyden as torch_broyden
from fsp_dynamics.torch_backend import engine as torch_engine
from fsp_dynamics.torch_backend import passes as torch_passes
from fsp_dynamics.torch_backend import phases as torch_phases
from fsp_dynamics.torch_backend import products as torch_products
from fsp_dynamics.torch_backend.engine import TorchEngine
from fsp_dynamics.torch_backend.fixed_point import TorchFixedPointSolver
from fsp_dynamics.training.engine import engine_of
from fsp_dynamics.training.epoch import interrupts_of, train_epoch
from fsp_dynamics.training.interrupts import Interrupts
from fsp_dynamics.training.loop_engine import LoopEngine
from fsp_dynamics.training.plain_engine import PlainEngine
from fsp_dynamics.training.ranks import ALONE
from fsp_dynamics.training.recipe import Learner, Recipe
from fsp_dynamics.training.report import EpochStatistics
from fsp_dynamics.training.warm_start import LoopWarmStart
from fsp_dynamics.training.weight_noise import WeightNoise

pytestmark = pytest.mark.usefixtures("one_thread")
DIGITS = fsp.load_dataset("digits")
SIZES = [64, 30, 20, 10]
compiled_only = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="takes minutes as plain Python; its twin is compiled"
)


def recipe_for(
    network, kind="one-sided", tolerance=1e-13, solver=None, rate=1.0, mirror=0.0, rule="hebbian", **optimiser
) -> Recipe:
    scale = rate if optimiser.get("normalised", True) else 0.01 * rate
    deep = network.depth - 1
    rates = LearningRates(
        3.0 * scale, (4.0 * scale,) * deep, 0.5 * scale, (2.0 * scale,) * (deep if network.backward else 0)
    )
    solver = solver or TorchFixedPointSolver(fallback=NumbaSolver())
    return Recipe(
        Sgd(rates, **{"schedule": FactorSchedule(0.9), **optimiser}),
        solver,
        Tolerance(tolerance),
        beta=0.5,
        phases=kind,
        batch=20,
        mirror=mirror,
        rule=rule,
    )


def loop(seed=1, dtype=np.float64, sizes=SIZES, **options):
    return fsp.loop_network(sizes, rng=seed, dtype=dtype, loop_scale=0.5, **options)


def epoch_of(learner, data, recipe, ranks=ALONE, report=lambda done, wrong: None, interrupts=()) -> dict[str, float]:
    """One epoch on the engine, as `train_epoch` drives it; what it counted."""
    assert engine_of(learner.network, recipe, ranks) is TorchEngine
    state = learner.begin_epoch(len(data.labels), recipe)
    work = TorchEngine(learner, data, recipe, ranks=ranks)
    progress = lambda: report(state.statistics.samples, state.statistics.wrong)  # noqa: E731
    due = interrupts_of(work, state, recipe, WeightNoise.of(0.0, recipe.optimiser, learner.network, state))
    for every, act in interrupts:
        due.add(every, act)
    work.learn(state, due, progress)
    work.write_back()
    learner.epoch += 1
    return {**dict(zip(COUNTED, state.statistics.counts, strict=True)), "strongest": state.statistics.strongest}


def on_tensors(network, recipe, data, epochs=2, **options):
    learner = Learner.start(network, recipe, 3)
    return learner, [epoch_of(learner, data, recipe, **options) for _ in range(epochs)]


def with_arrays(recipe) -> Recipe:
    """The same recipe with the compiled solver."""
    given = recipe.solver
    return dataclasses.replace(
        recipe, solver=FixedPointSolver(given.method, given.max_passes, given.memory, given.fallback)
    )


def check_twins(network, recipe, data, monkeypatch) -> None:
    """Weights, velocities and what is counted after two epochs, against the plain loop, which
    knows none of the engines.
    """
    fast, seen = on_tensors(network, recipe, data)
    only_plain(monkeypatch)
    slow, expected = trained(network, with_arrays(recipe), data)
    for name, w in slow.network.parameters().items():
        moved = np.abs(w - network.parameters()[name]).max()
        assert np.abs(fast.network.parameters()[name] - w).max() <= 1e-10 * moved, name
        assert (moved == 0) == (name in recipe.optimiser.frozen), name
    assert sorted(fast.velocity) == sorted(slow.velocity)
    for name, v in slow.velocity.items():
        np.testing.assert_allclose(fast.velocity[name], v, atol=1e-11, err_msg=name)
    for one, other in zip(seen, expected, strict=True):
        assert one["samples"] == len(data.labels)
        assert 100 * one["wrong"] / one["samples"] == other.train_error
        assert one["nudged"] / one["samples"] == other.nudged_share
        assert one["unconverged"] == other.unconverged
        assert one["residual_max"] <= recipe.tolerance.absolute
        assert tuple(np.flatnonzero(one["strongest"] <= 0)) == other.dead_outputs


@compiled_only
@pytest.mark.parametrize("kind", ["one-sided", "random-sign", "centred"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_an_epoch_is_that_of_the_plain_loop(optimiser, kind, cut, monkeypatch) -> None:
    """70 images in batches of 20, the last of 10."""
    network = loop()
    check_twins(network, recipe_for(network, kind, **OPTIMISERS[optimiser]), DIGITS.train.limit(70), monkeypatch)


@compiled_only
@pytest.mark.parametrize("optimiser", ["limited", "limited-momentum", "mean-subtracted"])
def test_biases_at_their_own_rates_learn_as_in_the_plain_loop(optimiser, cut, monkeypatch) -> None:
    network = loop()
    recipe = own_biases(recipe_for(network, **OPTIMISERS[optimiser]))
    check_twins(network, recipe, DIGITS.train.limit(70), monkeypatch)


@compiled_only
@pytest.mark.parametrize("sizes", [[64, 30, 10], [64, 30, 25, 20, 10]], ids=["shallow", "deep"])
def test_other_depths_too(sizes, cut, monkeypatch) -> None:
    network = loop(sizes=sizes)
    check_twins(
        network, recipe_for(network, "centred", momentum=0.3, output_step=0.1), DIGITS.train.limit(70), monkeypatch
    )


OTHERS = {
    "tied": lambda: (fsp.reciprocal_network(SIZES, forward_scale=0.3, dtype=np.float64, rng=2), None),
    "untied": lambda: (fsp.reciprocal_network(SIZES, tied=False, forward_scale=0.3, dtype=np.float64, rng=2), None),
    "logistic": lambda: (loop(rho="logistic"), None),
    "anderson": lambda: (loop(), "anderson"),
    "picard": lambda: (loop(), "picard"),
}


@compiled_only
@pytest.mark.parametrize("which", OTHERS)
def test_other_networks_and_methods_too(which, cut, monkeypatch) -> None:
    network, method = OTHERS[which]()
    solver = TorchFixedPointSolver(method, fallback=NumbaSolver(), max_passes=200)
    check_twins(
        network, recipe_for(network, "centred", 1e-12, solver, 0.3, momentum=0.5), DIGITS.train.limit(50), monkeypatch
    )


@compiled_only
@pytest.mark.parametrize("optimiser", ["plain", "mean-subtracted", "mean-subtracted-momentum"])
def test_samples_with_nothing_to_learn_stand_aside(optimiser, cut, monkeypatch) -> None:
    """Outputs that rest at their walls are already right for the samples of one class, which the
    others' mean must not see.
    """
    network = loop()
    bias = np.where(np.arange(10) == 4, 1.8, -0.35)
    network = network.with_parameters({"biases[2]": bias, "forward[1]": 0.1 * network.forward[1]})
    data = DIGITS.train.limit(40)
    data = dataclasses.replace(data, labels=np.where(np.arange(40) % 2, 4, data.labels))
    # The rates that enter the loop are all the same at their walls: nothing is left of them as
    # deviations.
    recipe = recipe_for(
        network, "one-sided", rate=0.1, **OPTIMISERS[optimiser], frozen=("loop",) if optimiser != "plain" else ()
    )
    _, (seen,) = on_tensors(network, recipe, data, 1)
    assert 10 <= seen["nudged"] <= 30
    check_twins(network, recipe, data, monkeypatch)


@compiled_only
def test_samples_that_passes_leave_to_newton_teach_as_the_others_do(cut, monkeypatch) -> None:
    network = loop()
    solver = TorchFixedPointSolver(max_passes=3, fallback=NumbaSolver())
    check_twins(network, recipe_for(network, "centred", 1e-13, solver), DIGITS.train.limit(40), monkeypatch)


@compiled_only
@pytest.mark.parametrize("kind", ["one-sided", "centred"])
def test_samples_out_of_passes_in_some_phase_are_counted_and_teach_nothing(kind, cut, monkeypatch) -> None:
    """As many as in the plain loop, when its passes are those through NumPy; of a network that
    Newton's method does not take.
    """
    network, _ = OTHERS["tied"]()
    recipe = recipe_for(network, kind, 1e-5, TorchFixedPointSolver(max_passes=6))
    data = DIGITS.train.limit(60)
    fast, (seen,) = on_tensors(network, recipe, data, 1)
    only_plain(monkeypatch)
    monkeypatch.setattr(FixedPointSolver, "uses_compiled_layers", lambda solver, network: False)
    slow, (expected,) = trained(network, with_arrays(recipe), data, epochs=1)
    assert 0 < seen["unconverged"] < seen["samples"]
    assert seen["unconverged"] == expected.unconverged
    for name, w in slow.network.parameters().items():
        moved = np.abs(w - network.parameters()[name]).max()
        assert np.abs(fast.network.parameters()[name] - w).max() <= 1e-6 * moved, name


@compiled_only
@pytest.mark.parametrize("kind", ["one-sided", "centred"])
def test_the_compiled_engine_learns_the_same(kind, cut) -> None:
    """In float32 and at the tolerance of training: as many passes to a hundredth, and weights as
    near as the tolerance lets them be.
    """
    network = loop(dtype=np.float32)
    recipe, data = recipe_for(network, kind, 1e-4), DIGITS.train.limit(200)
    compiled, reports = trained(network, with_arrays(recipe), data)
    found, seen = on_tensors(network, recipe, data)
    for one, other in zip(seen, reports, strict=True):
        assert one["passes_free"] / one["samples"] == pytest.approx(other.passes_free, rel=0.01)
        assert one["passes_nudged"] / one["nudged"] == pytest.approx(other.passes_nudged, rel=0.01)
        assert one["residual"] / one["samples"] == pytest.approx(other.residual, rel=0.1)
    for name, w in compiled.network.parameters().items():
        moved = np.linalg.norm(w - network.parameters()[name])
        assert np.linalg.norm(found.network.parameters()[name] - w) <= 0.01 * moved, name


@compiled_only
def test_a_run_continues_with_either_engine(cut) -> None:
    """One record of warm starts: after an epoch it holds the same, and the next begins with it,
    whichever engine wrote it.
    """
    network = loop()
    recipe, data = recipe_for(network), DIGITS.train.limit(70)
    arrays = with_arrays(recipe)
    learners = [Learner.start(network, recipe, 3) for _ in range(4)]
    choices: list[list[bool]] = [[True, True], [False, False], [True, False], [False, True]]
    passes = []
    for learner, choice in zip(learners, choices, strict=True):
        for tensors in choice:
            if tensors:
                seen = epoch_of(learner, data, recipe)
                passes.append(seen["passes_free"])
            else:
                passes.append(train_epoch(learner, data, arrays).passes_free * 70)
            learner.warm_start = LoopWarmStart.of({name: a.copy() for name, a in learner.warm_start.arrays().items()})
    for learner in learners[1:]:
        for name, w in learners[0].network.parameters().items():
            np.testing.assert_allclose(learner.network.parameters()[name], w, rtol=0, atol=1e-11, err_msg=name)
        for name, a in learners[0].warm_start.arrays().items():
            np.testing.assert_allclose(learner.warm_start.arrays()[name], a, rtol=0, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(passes[::2], passes[0], rtol=0.01)
    np.testing.assert_allclose(passes[1::2], passes[1], rtol=0.01)


RANKED = {
    "plain": (loop, {}),
    "momentum": (loop, {"kind": "centred", "momentum": 0.4, "decay": 0.01, "output_step": 0.1}),
    "random-sign": (loop, {"kind": "random-sign", "rule": "mean_subtracted"}),
    "mirror": (loop, {"mirror": 0.2}),
    "tied": (lambda dtype: fsp.reciprocal_network(SIZES, forward_scale=0.3, dtype=dtype, rng=2), {}),
}


@pytest.mark.parametrize("which", RANKED)
def test_any_number_of_ranks_learns_the_same_bits(which, cut, monkeypatch) -> None:
    """1, 2 and 4 ranks, float32; the last batch has 3 samples for 4 shards. All ranks hold the
    same, and count the same.
    """
    monkeypatch.setattr(mirror, "PIECE", 40)
    build, options = RANKED[which]
    network = build(dtype=np.float32)
    recipe, data = recipe_for(network, tolerance=1e-4, **options), DIGITS.train.limit(63)
    (alone, counted), *others = [
        found
        for count in (1, 2, 4)
        for found in Crowd(count, sharing=False).run(lambda ranks: on_tensors(network, recipe, data, ranks=ranks))
    ]
    for learner, seen in others:
        for mine, other in (
            (learner.network.parameters(), alone.network.parameters()),
            (learner.velocity, alone.velocity),
        ):
            assert all(mine[name].tobytes() == w.tobytes() for name, w in other.items())
        assert alone.warm_start is None or same_bits(alone, learner)
        assert repr(seen) == repr(counted)
    whole, _ = on_tensors(network, recipe, data)
    for name, w in alone.network.parameters().items():
        moved = np.linalg.norm(w - network.parameters()[name])
        assert np.linalg.norm(whole.network.parameters()[name] - w) <= 0.01 * moved, name


def test_what_one_rank_finds_not_finite_ends_the_epoch_in_all() -> None:
    network = loop(dtype=np.float32)
    images = DIGITS.train.images[:60].copy()
    images[17, 3] = np.nan
    data = dataclasses.replace(DIGITS.train.limit(60), images=images)
    recipe = recipe_for(network, tolerance=1e-4)

    def one(ranks):
        with pytest.raises(NotFiniteError, match=r"images of batch \d") as refusal:
            on_tensors(network, recipe, data, 1, ranks=ranks)
        return str(refusal.value)

    here, there = Crowd(2, sharing=False).run(one)
    assert here == there


def test_a_sample_at_its_target_teaches_nothing_to_the_bit(cut) -> None:
    """Fact 5. Outputs that biases drive into saturation, with the labels they then show: no weight
    moves, not even by a rounding.
    """
    network = loop(dtype=np.float32)
    bias = np.full(10, -50, np.float32)
    bias[4] = 50
    network = network.with_parameters({"biases[2]": bias})
    data = dataclasses.replace(DIGITS.train.limit(40), labels=np.full(40, 4))
    learner, (seen, _) = on_tensors(network, recipe_for(network, tolerance=1e-4), data)
    assert (seen["nudged"], seen["wrong"]) == (0, 0)
    for name, w in network.parameters().items():
        assert learner.network.parameters()[name].tobytes() == w.tobytes(), name


@compiled_only
def test_what_does_not_contract_falls_back_is_counted_and_teaches_only_where_it_rests(cut, monkeypatch) -> None:
    """A loop that inhibits itself strongly: the fallback decides which samples rest, the others
    are counted and left out, as in the plain loop.
    """
    network = fsp.loop_network(SIZES, rng=0, dtype=np.float64)
    network = network.with_parameters(
        {"loop": -12 * np.abs(network.loop), **{f"forward[{k}]": np.abs(w) for k, w in enumerate(network.forward)}}
    )
    handed_over = []
    solver = TorchFixedPointSolver(max_passes=12, fallback=NumbaSolver(max_steps=60))
    relax = NumbaSolver.relax
    monkeypatch.setattr(
        NumbaSolver,
        "relax",
        lambda self, network, drive, *rest: handed_over.append(len(drive)) or relax(self, network, drive, *rest),
    )
    recipe, data = recipe_for(network, tolerance=1e-9, solver=solver, rate=0.01), DIGITS.train.limit(40)
    fast, (seen,) = on_tensors(network, recipe, data, 1)
    assert sum(handed_over) > 0
    assert seen["unconverged"] > 0
    assert all(np.isfinite(w).all() for w in fast.network.parameters().values())
    only_plain(monkeypatch)
    slow, (expected,) = trained(network, with_arrays(recipe), data, epochs=1)
    assert seen["unconverged"] == expected.unconverged
    for name, w in slow.network.parameters().items():
        np.testing.assert_allclose(fast.network.parameters()[name], w, atol=1e-9, err_msg=name)


def test_nothing_that_is_not_finite_is_learned(cut) -> None:
    network = loop(dtype=np.float32)
    recipe = recipe_for(network, tolerance=1e-4)
    images = DIGITS.train.images[:60].copy()
    images[17, 3] = np.nan
    with pytest.raises(FspError, match=r"images of batch \d"):
        on_tensors(network, recipe, dataclasses.replace(DIGITS.train.limit(60), images=images))
    wild = recipe_for(network, tolerance=1e-4, rate=1e42)
    with pytest.raises(
        FspError, match=r"the \w+ phase of batch \d is not finite from layer \d on; lower the learning rates"
    ):
        on_tensors(network, wild, DIGITS.train.limit(60))


def test_it_reports_its_progress_and_may_be_stopped_there() -> None:
    network, data, seen = loop(dtype=np.float32), DIGITS.train.limit(1190), []
    recipe = dataclasses.replace(recipe_for(network, tolerance=1e-2), batch=120)
    _, (counted,) = on_tensors(network, recipe, data, 1, report=lambda done, wrong: seen.append((done, wrong)))
    assert [done for done, _ in seen] == [1080, 1190]
    assert seen[-1] == (1190, counted["wrong"])

    def stop(done, wrong):
        raise KeyboardInterrupt

    learner = Learner.start(network, recipe, 3)
    with pytest.raises(KeyboardInterrupt):
        epoch_of(learner, data, recipe, report=stop)
    assert learner.epoch == 0


def test_at_a_break_the_network_has_the_weights_of_the_moment_and_looking_changes_nothing(monkeypatch) -> None:
    """Also where the device's memory is another, which copies stand for here; and with mirror
    phases, which change the loop between batches.
    """
    monkeypatch.setattr(mirror, "PIECE", 40)
    network, data = loop(dtype=np.float32), DIGITS.train.limit(60)
    recipe = recipe_for(network, tolerance=1e-4, mirror=0.2, momentum=0.5)
    plain, _ = on_tensors(network, recipe, data, 1)
    monkeypatch.setattr(
        "fsp_dynamics.torch_backend.tensors.np.asarray", lambda array, dtype=None: np.array(array, dtype)
    )
    learner, seen = Learner.start(network, recipe, 3), []
    epoch_of(
        learner,
        data,
        recipe,
        interrupts=[(1, lambda done: seen.append((done, learner.network.loop.copy())))],
    )
    assert [done for done, _ in seen] == [1, 2, 3]
    assert all((a != b).any() for (_, a), (_, b) in itertools.pairwise(seen))
    assert (seen[0][1] != network.loop).any()
    assert seen[-1][1].tobytes() == plain.network.loop.tobytes() == learner.network.loop.tobytes()
    assert same_bits(plain, learner)
    assert all(learner.velocity[name].tobytes() == v.tobytes() for name, v in plain.velocity.items())


@compiled_only
def test_mirror_phases_fall_where_they_do_in_the_plain_loop(cut, monkeypatch) -> None:
    monkeypatch.setattr(mirror, "PIECE", 40)
    monkeypatch.setattr(mirror, "SAMPLES", 30)
    network = loop()
    check_twins(network, recipe_for(network, mirror=0.2), DIGITS.train.limit(70), monkeypatch)


class Reads(TorchDispatchMode):
    """Counts the numbers read from tensors, and refuses shapes that follow from numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ("nonzero", "masked_select", "unique", "equal"), name
        self.numbers += name == "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["one-sided", "centred"])
def test_masked_batches_read_flags_and_nothing_else(kind, monkeypatch) -> None:
    """One for each pass, one more for each phase's end and one for its attention; no array
    crosses.
    """
    monkeypatch.setattr(torch_passes, "cuts_down", lambda device: False)
    network, data, crossed = loop(dtype=np.float32), DIGITS.train.limit(60), []
    passes = []
    make = torch_broyden.one_pass
    monkeypatch.setattr(torch_broyden, "one_pass", lambda *given: passes.append(1) or make(*given))
    for module in (torch_phases, torch_engine):
        monkeypatch.setattr(module, "array", lambda tensor, cross=module.array: crossed.append(1) or cross(tensor))
    recipe = recipe_for(network, kind, 1e-4, momentum=0.5, output_step=0.1)
    learner = Learner.start(network, recipe, 3)
    work = TorchEngine(learner, data, recipe)
    statistics = torch_engine.DeviceStatistics(EpochStatistics(10), work.device_network.device)
    passes.clear()
    state = learner.begin_epoch(60, recipe)
    with Reads() as reads:
        for number in range(3):
            work._batch(torch.arange(20 * number, 20 * number + 20), state, statistics, Interrupts())
    phases_made = 3 * (3 if kind == "centred" else 2)
    assert reads.numbers == len(passes) + 2 * phases_made
    assert not crossed


@pytest.mark.parametrize("products", ["tf32", "bf16"])
def test_rounded_products_learn_nearly_the_same_with_weights_rounded_after_each_update(products, cut) -> None:
    network, data = loop(dtype=np.float32), DIGITS.train.limit(100)
    exact, _ = on_tensors(network, recipe_for(network, tolerance=1e-4), data, 1)
    recipe = recipe_for(network, tolerance=1e-3, solver=TorchFixedPointSolver(products=products))
    learner = Learner.start(network, recipe, 3)
    work = TorchEngine(learner, data, recipe)
    work.learn(learner.begin_epoch(100, recipe), Interrupts(), lambda: None)
    work.write_back()
    there = work.device_network
    assert torch.equal(there.images.taken, torch_products.rounded(there.weights.input, products))
    before = learner.network.input.copy()
    work.change(lambda changed: np.negative(changed.input, out=changed.input))
    assert np.array_equal(there.weights.input.numpy(), -before)
    assert torch.equal(there.images.taken, torch_products.rounded(there.weights.input, products))
    learner.network.input[:] = before
    moved = np.linalg.norm(exact.network.input - network.input)
    apart = np.linalg.norm(learner.network.input - exact.network.input)
    assert 0 < apart < 0.1 * moved
    with pytest.raises(ConfigurationError, match=f"products = '{products}' with float64 weights"):
        Learner.start(loop(), recipe, 0)


def test_where_nothing_raises_a_doubt_no_batch_leaves_the_device(cut, monkeypatch) -> None:
    """In a weak reciprocal network every pass shrinks what it is given: only samples that a single
    pass brought to convergence, which says nothing, are tested on the host.
    """

    def tested(network, drive, start, reached, *rest):
        assert (reached.steps < 2).all(), "a sample converged was handed to the host"
        return recover(network, drive, start, reached, *rest)

    network = fsp.reciprocal_network(SIZES, forward_scale=0.3, rng=2)
    recover = torch_phases.recover
    monkeypatch.setattr(torch_phases, "recover", tested)
    _, (seen,) = on_tensors(network, recipe_for(network, tolerance=1e-4), DIGITS.train.limit(60), 1)
    assert (seen["samples"], seen["unconverged"]) == (60, 0)


def test_the_number_of_threads_is_that_of_the_epoch_and_put_back() -> None:
    network, data, seen = loop(dtype=np.float32), DIGITS.train.limit(40), []
    recipe = recipe_for(network, tolerance=1e-2)
    learner = Learner.start(network, recipe, 3)
    work = TorchEngine(learner, data, recipe, threads=2)
    work.learn(learner.begin_epoch(40, recipe), Interrupts(), lambda: seen.append(torch.get_num_threads()))
    assert seen == [2]
    assert torch.get_num_threads() == 1
    assert TorchEngine(Learner.start(network, recipe, 3), data, recipe).threads == 1


def test_what_it_supports() -> None:
    network = loop()
    assert engine_of(network, recipe_for(network)) is TorchEngine
    assert engine_of(network, with_arrays(recipe_for(network))) is LoopEngine
    assert engine_of(network, recipe_for(network, rule="gradient")) is PlainEngine

    class Nudged(HebbianRule):
        """May nudge as it likes."""

    assert engine_of(network, recipe_for(network, rule=Nudged())) is PlainEngine


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("products", torch_products.PRODUCTS)
def test_a_gpu_learns_what_the_cpu_learns(products) -> None:
    network, data = loop(dtype=np.float32), DIGITS.train.limit(200)
    found = []
    for device in ("cpu", "cuda"):
        recipe = recipe_for(
            network,
            tolerance=1e-4,
            solver=TorchFixedPointSolver(device=device, products=products, fallback=NumbaSolver()),
        )
        found.append(on_tensors(network, recipe, data)[0])
    for name, w in found[0].network.parameters().items():
        moved = np.linalg.norm(w - network.parameters()[name])
        assert (
            np.linalg.norm(found[1].network.parameters()[name] - w) <= (0.01 if products == "full" else 0.1) * moved
        ), name
