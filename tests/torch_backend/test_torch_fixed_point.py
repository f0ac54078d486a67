"""Fixed points on tensors: those of the oracles, found in as many passes as by the compiled
solver, whether rows leave or are masked.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import oracles
import problems
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.kernels import broyden as compiled_broyden
from fsp_dynamics.kernels import units
from fsp_dynamics.kernels.anderson import anderson, weights
from fsp_dynamics.kernels.field import jit
from fsp_dynamics.models import rate
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.network import Network
from fsp_dynamics.models.rate import flatten
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.solvers.equilibrium import Status, Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver, _Relaxation
from fsp_dynamics.solvers.packed_loop import relax_together
from fsp_dynamics.solvers.passes import CutPasses
from fsp_dynamics.torch_backend import anderson as torch_anderson
from fsp_dynamics.torch_backend import broyden as torch_broyden
from fsp_dynamics.torch_backend import passes as torch_passes
from fsp_dynamics.torch_backend import products as torch_products
from fsp_dynamics.torch_backend import units as torch_units
from fsp_dynamics.torch_backend.fixed_point import METHODS, TorchFixedPointSolver
from fsp_dynamics.torch_backend.tensors import array, tensor

pytestmark = pytest.mark.usefixtures("one_thread")
TIGHT = Tolerance(3e-14)
PASSES_MORE = 1.1  # of those of the compiled solver, summed over a batch, and one
predict = jit(
    lambda y, u, slope, leak, beta, d, z, v, n, accuracy: compiled_broyden.predict(
        y, u, slope, leak, beta, d, z, v, n, accuracy
    )
)
broyden_update = jit(lambda slope, dy, du, n: compiled_broyden.broyden_update(slope, dy, du, n))
may_amplify = jit(
    lambda slope, u, leak, beta, d, n, room: compiled_broyden.may_amplify(slope, u, leak, beta, d, n, room)
)
mean_slope = jit(lambda moments, products, slope, room: compiled_broyden.mean_slope(moments, products, slope, room))


def tight(p) -> Tolerance:
    return Tolerance(2e-6 if p.network.dtype == np.float32 else 2e-14)


def suits(method, p) -> bool:
    return method != "broyden" or (p.network.loop is not None and p.network.rho.projected)


@pytest.mark.parametrize("dtype", problems.DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", problems.NAMES)
@pytest.mark.parametrize("phase", problems.PHASES)
def test_every_method_reaches_the_known_equilibrium_in_as_many_passes_as_the_compiled_one(
    name, phase, dtype, cut
) -> None:
    p = problems.problem(name, dtype)
    nudge = p.nudges[phase]
    before = [a.copy() for a in (*p.network.parameters().values(), p.drive)]
    for method in (m for m in METHODS if suits(m, p)):
        found = (
            make_solver("torch_fixed_point", method=method)
            .relax(p.network, p.drive, None, nudge, tight(p))
            .require_converged()
        )
        assert np.abs(flatten(found.state) - flatten(p.known[phase])).max() <= p.agreement, method
        assert {s.dtype for s in found.state} == {np.dtype(dtype)}
        residual = oracles.residual(p.network, p.images, found.state, nudge)
        assert (residual <= tight(p).absolute + 50 * np.finfo(dtype).eps).all()
        again = TorchFixedPointSolver(method).relax(p.network, p.drive, found.state, nudge, tight(p))
        assert again.steps.tolist() == [0] * p.batch
        assert flatten(again.state).tobytes() == flatten(found.state).tobytes()
        compiled = make_solver("fixed_point", method=method).relax(p.network, p.drive, None, nudge, tight(p))
        assert found.steps.sum() <= PASSES_MORE * compiled.steps.sum() + 1, (method, found.steps, compiled.steps)
    for a, b in zip((*p.network.parameters().values(), p.drive), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(12))
def test_random_loops(seed, cut) -> None:
    """Units saturated at both ends, from a start of their own too; rows that leave and rows that
    are masked go the same way.
    """
    p = problems.random_problem(seed)
    start = tuple(np.random.default_rng(seed).uniform(0, 1, s.shape) for s in p.known["free"])
    for phase, nudge in p.nudges.items():
        for begin in (None, start):
            found = make_solver("torch_fixed_point").relax(p.network, p.drive, begin, nudge, TIGHT).require_converged()
            assert np.abs(flatten(found.state) - flatten(p.known[phase])).max() <= 1e-12
            compiled = make_solver("fixed_point").relax(p.network, p.drive, begin, nudge, TIGHT)
            assert found.steps.sum() <= PASSES_MORE * compiled.steps.sum() + 1


@pytest.mark.parametrize("name", ["saturated", "strong", "tied", "logistic"])
def test_both_treatments_of_rows_make_the_same_passes(name, monkeypatch) -> None:
    p, found = problems.problem(name), []
    for leave in (True, False):
        monkeypatch.setattr(torch_passes, "cuts_down", lambda device, leave=leave: leave)
        for tolerance in (Tolerance(1e-2), Tolerance(0.0, 1e-4), TIGHT):
            found.append(TorchFixedPointSolver().relax(p.network, p.drive, None, p.nudges["nudged"], tolerance))
    for one, other in zip(found[:3], found[3:], strict=True):
        assert one.steps.tolist() == other.steps.tolist()
        assert one.steps.max() < 30
        np.testing.assert_allclose(flatten(one.state), flatten(other.state), atol=1e-13)
        np.testing.assert_allclose(
            one.residual, oracles.residual(p.network, p.images, one.state, p.nudges["nudged"]), rtol=1e-6, atol=1e-13
        )


@pytest.mark.parametrize("name", ["saturated", "strong", "untied", "shifted_tanh"])
def test_a_sample_knows_nothing_of_its_neighbours(name, cut) -> None:
    p = problems.problem(name)
    nudge, solver = p.nudges["nudged"], make_solver("torch_fixed_point")
    whole = solver.relax(p.network, p.drive, None, nudge, TIGHT)
    spoilt = p.drive.copy()
    spoilt[1] = np.nan
    beside = solver.relax(p.network, spoilt, None, nudge, TIGHT)
    assert beside.status.tolist() == [Status.NOT_FINITE if b == 1 else Status.CONVERGED for b in range(p.batch)]
    others = np.arange(p.batch) != 1
    np.testing.assert_allclose(flatten(beside.state)[others], flatten(whole.state)[others], atol=1e-12)
    none = solver.relax(p.network, p.drive[:0], None, nudge.rows(slice(0, 0)), TIGHT)
    assert [s.shape for s in none.state] == [(0, n) for n in p.network.sizes[1:]]


@pytest.mark.parametrize("name", ["tied", "untied", "deep", "logistic", "shifted_tanh"])
def test_mixing_makes_the_passes_of_the_numpy_path(name, cut) -> None:
    """From silence and from a start, as many passes of every sample, and the same states far from
    rest.
    """
    p = problems.problem(name)
    start = tuple(np.random.default_rng(0).random(s.shape) for s in p.known["free"])
    for begin, nudge, tolerance in itertools.product(
        (None, start), p.nudges.values(), (Tolerance(1e-2), Tolerance(0.0, 1e-4), Tolerance(1e-10))
    ):
        found = TorchFixedPointSolver("anderson", max_passes=20).relax(p.network, p.drive, begin, nudge, tolerance)
        slow = by_numpy(p, begin, nudge, tolerance)
        assert found.steps.tolist() == slow.steps.tolist()
        np.testing.assert_allclose(flatten(found.state), flatten(slow.state), atol=1e-9)
        np.testing.assert_allclose(found.residual, slow.residual, rtol=1e-2, atol=1e-12)


@pytest.mark.parametrize("gain", [0.5, 4.0, 12.0, 40.0])
def test_broydens_method_doubts_what_the_compiled_one_doubts(gain, cut) -> None:
    """Loops that amplify, with rises of the residual on the way: most samples go the same way, to
    the same number of doubts and passes.
    """
    rng, seen = np.random.default_rng(int(gain)), 0
    for seed in range(6):
        network = problems.random_network(seed, [4, 9, 7, 3], gain, low=-0.3, high=0.7)
        drive = rate.drive(network, rng.random((5, 4)))
        nudge = None if seed % 2 else fsp.Nudge(0.6, rng.random((5, 3)))
        compiled, doubts = relax_together(network, drive, np.zeros((5, 3)), nudge, Tolerance(1e-8), 30)
        ready = TorchFixedPointSolver(max_passes=30).on_device(network)
        target = torch.zeros((5, 3), dtype=torch.float64) if nudge is None else torch.from_numpy(nudge.target)
        relaxation = torch_broyden.BroydenRelaxation.begin(
            ready.device_network,
            torch.from_numpy(drive),
            target,
            torch.zeros_like(target),
            torch.zeros((5, 3, 3)).double(),
        )
        torch_broyden.relax(ready.device_network, relaxation, rate.beta_of(nudge), ready.criterion(Tolerance(1e-8)))
        rests = (compiled.status == Status.CONVERGED) & (relaxation.status.numpy() == Status.CONVERGED)
        same = rests & (compiled.steps == relaxation.passes.numpy())
        assert 2 * same.sum() > rests.sum()
        assert relaxation.passes.sum() <= PASSES_MORE * compiled.steps.sum() + 5
        assert relaxation.doubts.numpy()[same].tolist() == doubts[same].tolist()
        seen += int(doubts[same].sum())
    assert (seen > 0) == (gain > 1)


def by_numpy(p, start, nudge, tolerance):
    """The same relaxation through solvers/passes.py and kernels/anderson.py."""
    relaxation = _Relaxation(
        p.network, p.drive, rate.zero_state(p.network, p.batch) if start is None else start, nudge, tolerance
    )
    relaxation.iterate(CutPasses(p.network, p.drive, relaxation.start, nudge), 5, 20, start is not None)
    return relaxation.recovery.finish(None)


class Crossings(TorchDispatchMode):
    """Counts what makes a device wait: numbers and shapes that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.met: collections.Counter = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.met[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def read(self) -> dict[str, int]:
        return {
            name: self.met[name]
            for name in ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique")
            if self.met[name]
        }


def test_masked_rows_read_one_flag_in_each_pass(monkeypatch) -> None:
    monkeypatch.setattr(torch_passes, "cuts_down", lambda device: False)
    for name in ("strong", "saturated", "tied", "logistic"):
        p = problems.problem(name)
        ready = TorchFixedPointSolver().on_device(p.network)
        with Crossings() as crossings:
            found = ready.relax(p.drive, None, p.nudges["nudged"], Tolerance(1e-10))
        assert set(crossings.read) == {"_local_scalar_dense"}, name
        assert found.steps.max() <= crossings.read["_local_scalar_dense"] <= found.steps.max() + 1, name


def bistable(gain=3.0) -> Network:
    """One unit a layer with positive feedback around s = 1/2: unstable there, stable at 0 and 1."""
    return Network(
        input=np.ones((1, 1)),
        forward=(np.ones((1, 1)),),
        loop=np.full((1, 1), gain),
        biases=(np.array([(1 - gain) / 2]), np.zeros(1)),
    )


@pytest.mark.parametrize("method", METHODS)
def test_an_unstable_equilibrium_is_left_to_the_dynamics(method, cut) -> None:
    network, images = bistable(), np.zeros((2, 1))
    start = tuple(np.array([[0.52], [0.48]]) for _ in range(2))
    found = make_solver("torch_fixed_point", method=method).relax(
        network, rate.drive(network, images), start, None, TIGHT
    )
    assert found.converged.all()
    np.testing.assert_allclose(np.concatenate(found.state, 1), [[1, 1], [0, 0]], atol=1e-12)


def test_what_oscillates_or_converges_by_chance_is_not_accepted(cut) -> None:
    p = problems.ring(3, 12.0, batch=1)
    still = FixedPointSolver().relax(p.network, p.drive)
    chance = tuple(np.full((1, 1), s) for s in (0.5, p.network.rho.rate(still.state[1])[0, 0], 0.45))
    assert not TorchFixedPointSolver().relax(p.network, p.drive, chance).converged.any()
    steps = []

    class Fallback:
        def relax(self, network, drive, start=None, nudge=None, tolerance=None):
            steps.append(flatten(start).tolist())
            return make_solver("numba_ode", max_steps=30).relax(network, drive, start, nudge, tolerance)

    found = TorchFixedPointSolver(fallback=Fallback()).relax(p.network, p.drive, chance, None, TIGHT)
    assert found.status.tolist() == [Status.OSCILLATES]
    assert steps == [flatten(chance).tolist()]
    calm = problems.ring(3, 4.0, batch=1)
    rest = FixedPointSolver().relax(calm.network, calm.drive)
    assert (
        TorchFixedPointSolver()
        .relax(calm.network, calm.drive, (rest.state[0], rest.state[1], rest.state[2] - 0.05))
        .converged.all()
    )


def test_out_of_passes_is_reported(cut) -> None:
    p = problems.problem("logistic")
    found = TorchFixedPointSolver("picard", max_passes=2).relax(p.network, p.drive, None, None, TIGHT)
    assert set(found.status) == {Status.OUT_OF_STEPS}
    assert set(found.steps) == {2}
    np.testing.assert_allclose(found.residual, oracles.residual(p.network, p.images, found.state), rtol=1e-6)


def batch(rng, n=7, samples=40):
    """(y, u, slope, d) of a batch, as numpy arrays."""
    slope = rng.uniform(-0.8, 0.8, (samples, n, n)) / n
    return rng.uniform(0, 1, (samples, n)), rng.uniform(-2, 2, (samples, n)), slope, rng.uniform(0, 1, (samples, n))


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("beta", [0.0, 1.0, -0.4])
def test_the_prediction_is_the_root_that_the_compiled_one_finds(beta, look) -> None:
    """For a single output also where the model answers its own moves with large ones of the other
    sign.
    """
    rng = np.random.default_rng(0)
    for n in (7, 1):
        y, u, slope, d = batch(rng, n)
        slope = slope - (6.0 if n == 1 else 0.0)
        found = torch_broyden.predict(
            *(torch.from_numpy(a) for a in (y, u, slope)), 1.25, beta, torch.from_numpy(d), look
        ).numpy()
        for b in range(len(y)):
            z, v = np.zeros(n), np.zeros(n)
            predict(y[b], u[b], slope[b], 1.25, beta, d[b], z, v, n, 1e-15)
            np.testing.assert_allclose(found[b], z, atol=1e-12)


def test_update_doubts_and_mean_slope_are_the_compiled_ones() -> None:
    rng, n = np.random.default_rng(1), 7
    y, u, slope, d = batch(rng)
    dy, which = y - d, rng.random(len(y)) < 0.7
    dy[3] = 0
    learned = torch.from_numpy(slope.copy())
    torch_broyden.broyden_update(learned, torch.from_numpy(dy), torch.from_numpy(u), torch.from_numpy(which))
    room = np.zeros((2, n, n))
    for b in range(len(y)):
        expected = slope[b].copy()
        if which[b]:
            broyden_update(expected, dy[b], u[b].copy(), n)
        np.testing.assert_allclose(learned[b].numpy(), expected, atol=1e-13)
    large, walls = slope * rng.uniform(1, 6, (len(y), 1, 1)), np.where(rng.random(y.shape) < 0.3, np.round(y), y)
    entering, pull = 1.5 * walls - 0.25 * d, torch.from_numpy(d)
    doubted = torch_broyden.may_amplify(torch.from_numpy(large), torch.from_numpy(entering), 1.25, 0.25, pull).numpy()
    assert doubted.tolist() == [may_amplify(large[b], entering[b], 1.25, 0.25, d[b], n, room) for b in range(len(y))]
    assert 0 < doubted.sum() < len(y)
    for weight in (1.0, 0.0):
        moments, products, expected = weight * dy.T @ dy, weight * dy.T @ u, np.zeros((n, n))
        mean_slope(moments, products, expected, room)
        np.testing.assert_allclose(
            torch_broyden.mean_slope(torch.from_numpy(moments), torch.from_numpy(products)).numpy(),
            expected,
            atol=1e-12,
        )


def test_where_the_residual_doubled_the_next_trial_is_half_way_from_the_best(cut) -> None:
    """kernels/loop_relaxation.advance: the second sample, not the first; and the third, which is
    not running, stays.
    """
    p = problems.problem("saturated")
    ready, n = TorchFixedPointSolver().on_device(p.network), p.network.sizes[-1]
    drive, target = torch.from_numpy(p.drive), torch.zeros((p.batch, n)).double()
    relaxation = torch_broyden.BroydenRelaxation.begin(
        ready.device_network, drive, target, torch.full_like(target, 0.5), torch.zeros((p.batch, n, n)).double()
    )
    relaxation.base_y, relaxation.u, relaxation.base_u = relaxation.trial - 0.1, relaxation.u + 0.3, relaxation.u + 0.25
    relaxation.best, relaxation.residual = (
        torch.full((p.batch,), 1.0).double(),
        torch.tensor([1.9, 2.1, 0.5, 0.5, 0.5], dtype=torch.float64),
    )
    running = torch.tensor([True, True, False, True, True])
    torch_broyden.advance(ready.device_network, relaxation, running, 0.0, cut)
    assert relaxation.pace.tolist() == [1, 0.5, 1, 1, 1]
    assert relaxation.best.tolist() == [1.9, 1.0, 0.5, 0.5, 0.5]
    assert relaxation.doubts.tolist() == [1, 1, 0, 0, 0]
    z = torch_broyden.predict(
        relaxation.base_y, relaxation.base_u, relaxation.slope, ready.device_network.leaks[-1], 0.0, target, cut
    )
    half = relaxation.base_y + 0.5 * (z - relaxation.base_y)
    np.testing.assert_allclose(relaxation.trial[1].numpy(), half[1].numpy(), atol=1e-15)
    assert (relaxation.trial[0] == z[0]).all()
    assert (relaxation.trial[2] == 0.5).all()


def test_mixing_weights_are_the_compiled_ones_also_where_differences_repeat() -> None:
    rng, m, n = np.random.default_rng(2), 4, 6
    differences, f = rng.normal(size=(30, m, n)), rng.normal(size=(30, n))
    differences[5:10, 2] = differences[5:10, 1]
    differences[10:15, 3] = 0
    found = torch_anderson.mixing_weights(torch.from_numpy(differences), torch.from_numpy(f)).numpy()
    for b in range(30):
        gamma = np.zeros(m)
        weights(differences[b], f[b], np.zeros(n), np.zeros((m, m)), gamma)
        np.testing.assert_allclose(found[b] @ differences[b], gamma @ differences[b], atol=1e-9)


def test_mixing_is_the_compiled_one_pass_after_pass() -> None:
    """Made-up passes, one of which leaps, which empties the history; rows that are not running
    stay as they were.
    """
    rng, (rows, m, n) = np.random.default_rng(4), (6, 3, 5)
    y, running = rng.random((rows, n)), np.array([True] * 5 + [False])
    history, sizes, count, rose = (
        np.zeros((2, rows, m, n)),
        np.full(rows, np.inf),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
    )
    z, risen = torch.from_numpy(y.copy()), np.zeros(rows, np.int64)
    mixing = torch_anderson.History.empty(z, m)
    for k in range(9):
        target = y + (30 if k == 5 else 0.5) * 0.7**k * rng.normal(size=(rows, n))
        boxed, active = k > 6, torch.from_numpy(running)
        following, rose_now = mixing.next(z, torch.from_numpy(target.copy()), active, boxed)
        z = torch.where(active[:, None], following, z)
        risen += (rose_now & active).numpy()
        mixed, which = y[running].copy(), np.flatnonzero(running)
        bounds = (0.0, 1.0) if boxed else (-np.inf, np.inf)
        anderson(which, mixed, target[running], history[0], history[1], sizes, count, rose, *bounds)
        y[running] = mixed
        np.testing.assert_allclose(z.numpy(), y, atol=1e-9)
        assert mixing.count.tolist() == count.tolist()
        assert risen.tolist() == rose.tolist()
    assert count[0] == 4
    assert rose[0] >= 1


@pytest.mark.parametrize("look", [True, False])
def test_smooth_units_rest_where_the_compiled_ones_do(look) -> None:
    """From where they were in the last pass; masked, a few steps at a time."""
    rng, rho = np.random.default_rng(3), ACTIVATIONS["logistic"]
    a, s, d = rng.normal(size=(5, 6)), rng.normal(size=(5, 6)), rng.random((5, 6))
    settled, rates = s.copy(), np.zeros_like(s)
    units.settle_kernel(rho.rate, rho.slope, False)(a, np.zeros(6), settled, 1.2, 0.7, d, rates)
    x = torch.from_numpy(s)
    for _ in range(1 if look else 3):
        x = torch_units.aitken_root(rho.slope, torch.from_numpy(a), x, 1.2, 0.7, torch.from_numpy(d), look)
    np.testing.assert_allclose(x.numpy(), settled, atol=1e-14)


def test_a_network_on_its_device_relaxes_batch_after_batch_and_a_known_slope_saves_passes(cut) -> None:
    network = fsp.loop_network([64, 40, 30, 10], rng=0)
    images = fsp.load_dataset("digits").train.images[:60]
    ready = TorchFixedPointSolver().on_device(network)
    tolerance = Tolerance(1e-5)
    plain = [
        ready.relax(ready.drive(images[at : at + 20]), tolerance=tolerance).require_converged() for at in (0, 20, 40)
    ]
    once = FixedPointSolver().relax(network, rate.drive(network, images), None, None, tolerance)
    np.testing.assert_allclose(np.concatenate([flatten(rest.state) for rest in plain]), flatten(once.state), atol=1e-4)
    jacobian = network.loop @ (network.forward[0] * 0.5) @ (network.forward[1] * 0.5)
    padded = np.zeros((10, 16), np.float32)
    padded[:, :10] = jacobian
    knowing = ready.relax(ready.drive(images), tolerance=tolerance, slope=padded).require_converged()
    assert knowing.steps.sum() < once.steps.sum()


def test_tf32_and_bf16_keep_ten_and_seven_bits_nearest_and_even() -> None:
    ulp = 2.0**-10
    x = torch.tensor(
        [
            1 + 0.49 * ulp,
            1 + 0.5 * ulp,
            1 + 1.5 * ulp,
            1 + 0.51 * ulp,
            -1 - 0.5 * ulp,
            0.0,
            3.4028235e38,
            np.inf,
            -np.inf,
            np.nan,
        ]
    )
    found = torch_products.rounded(x, "tf32").tolist()
    assert found[:6] == [1, 1, 1 + 2 * ulp, 1 + ulp, -1, 0]
    assert found[6:9] == [np.inf, np.inf, -np.inf]
    assert np.isnan(found[9])
    assert torch_products.rounded(torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8]), "bf16").tolist() == [1, 1 + 2.0**-6]


@pytest.mark.parametrize("products", ["tf32", "bf16"])
def test_rounded_products_move_the_equilibrium_a_little_and_the_residual_shows_it(products, cut) -> None:
    """The equilibrium is that of a network whose wide matrices and rates are rounded; the reported
    residual is that of the exact field there.
    """
    network = fsp.loop_network([64, 120, 90, 10], rng=0)
    images = fsp.load_dataset("digits").train.images[:40]
    constant = rate.drive(network, images)
    exact = TorchFixedPointSolver().relax(network, constant, None, None, Tolerance(1e-6)).require_converged()
    found = (
        TorchFixedPointSolver(products=products)
        .relax(network, constant, None, None, Tolerance(1e-4))
        .require_converged()
    )
    step = 2.0 ** -(11 if products == "tf32" else 8)
    moved = np.abs(found.output - exact.output).max()
    assert 0.001 * step < moved < step
    # atol: the field's own rounding, sums of 120 products in float32, where all units are exact
    np.testing.assert_allclose(found.residual, rate.residual(network, constant, found.state), rtol=1e-3, atol=2e-6)
    assert found.residual.max() > 2e-4 if products == "bf16" else found.residual.max() > 1e-5
    ready = TorchFixedPointSolver(products=products).on_device(network)
    np.testing.assert_allclose(
        array(ready.drive(images)), constant, atol=1e-5
    )  # a whole product, as the reported field
    drive = array(ready.device_network.drive(tensor(images, torch.device("cpu"))))
    half = [tensor(np.array(each), torch.device("cpu")) for each in (images, network.input)]
    slow = torch_products.rounded(half[0], products) @ torch_products.rounded(half[1], products) + torch.from_numpy(
        network.biases[0]
    )
    np.testing.assert_allclose(drive, slow.numpy(), atol=1e-5)


def test_rounded_weights_follow_the_network_on_refresh() -> None:
    network = fsp.loop_network([64, 12, 9, 10], rng=0)
    ready = TorchFixedPointSolver(products="bf16").on_device(network)
    images = tensor(fsp.load_dataset("digits").train.images[:3], torch.device("cpu"))
    before = array(ready.device_network.drive(images)).copy()
    ready.device_network.weights.input.mul_(2)
    ready.device_network.refresh()
    np.testing.assert_allclose(array(ready.device_network.drive(images)), 2 * before, rtol=1e-6)


def test_the_precision_of_the_process_is_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch_products.precision("highest"):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
        with pytest.raises(KeyError), torch_products.precision("highest"):
            raise KeyError
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "broiden"}, "did you mean 'broyden'"),
        ({"method": "newton"}, "anderson, broyden, picard"),
        ({"max_passes": 0}, "max_passes = 0"),
        ({"memory": 2.5}, r"memory = 2\.5"),
        ({"fallback": "numba_ode"}, "expected a solver or None"),
        ({"products": "float32"}, "bf16, full, tf32"),
        ({"device": "gpu"}, "auto, cpu, cuda"),
    ],
)
def test_refused_settings(settings, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TorchFixedPointSolver(**settings)


def test_what_does_not_fit_the_network_is_refused() -> None:
    p = problems.problem("tied")
    with pytest.raises(ConfigurationError, match="broyden"):
        TorchFixedPointSolver("broyden").relax(p.network, p.drive)
    with pytest.raises(ConfigurationError, match="products = 'tf32' with float64 weights, expected float32"):
        TorchFixedPointSolver(products="tf32").relax(p.network, p.drive)
    with pytest.raises(ShapeError, match="drive"):
        TorchFixedPointSolver().relax(p.network, p.drive[:, :-1])
    assert make_solver("torch_fixed_point").fallback == make_solver("numba_ode")
    assert dataclasses.replace(TorchFixedPointSolver(), max_passes=3).max_passes == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("products", torch_products.PRODUCTS)
@pytest.mark.parametrize("name", problems.NAMES)
def test_a_gpu_finds_what_the_cpu_finds(name, products) -> None:
    p = problems.problem(name, np.float32)
    for nudge in p.nudges.values():
        solvers = [TorchFixedPointSolver(device=device, products=products) for device in ("cpu", "cuda")]
        cpu, gpu = (solver.relax(p.network, p.drive, None, nudge, Tolerance(1e-4)) for solver in solvers)
        np.testing.assert_allclose(flatten(gpu.state), flatten(cpu.state), atol=1e-3 if products == "full" else 2e-2)


@pytest.mark.cli
def test_either_of_torchs_settings_of_precision_is_respected() -> None:
    """torch forbids asking the older one once the newer was used: in a process of its own, for it
    cannot be undone.
    """
    code = """
import numpy as np, torch, fsp_dynamics as fsp
from fsp_dynamics.torch_backend.products import precision
matmul = torch.backends.cuda.matmul
matmul.fp32_precision = "tf32"
with precision("highest"):
    within = [matmul.fp32_precision]
    with precision("high"):
        within.append(matmul.fp32_precision)
    within.append(matmul.fp32_precision)
assert within == ["ieee", "tf32", "ieee"], within
network, images = fsp.loop_network((4, 5, 3), rng=0), np.zeros((2, 4), np.float32)
assert fsp.relax(network, images, solver="torch_fixed_point").converged.all()
assert matmul.fp32_precision == "tf32"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
