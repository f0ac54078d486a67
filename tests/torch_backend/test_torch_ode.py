"""torchdiffeq behind the protocol: known equilibria and paths, and each trap of the naive call
beside what the solver does instead.
"""

from __future__ import annotations

import pickle
from functools import cache

import numpy as np
import oracles
import problems
import pytest
from problems import problem
from scipy.integrate import solve_ivp

from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.models import rate
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.network import Network
from fsp_dynamics.models.rate import Nudge, drive, flatten, zero_state
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.solvers.equilibrium import Integrator, Status, Tolerance

torch = pytest.importorskip("torch")
torchdiffeq = pytest.importorskip("torchdiffeq")

from fsp_dynamics.torch_backend import steps as torch_steps
from fsp_dynamics.torch_backend import tensors
from fsp_dynamics.torch_backend.ode import TorchSolver
from fsp_dynamics.torch_backend.steps import CONSTANT, CONTROLLED

pytestmark = pytest.mark.usefixtures("one_thread")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
STEP = {
    "euler": 0.2,
    "midpoint": 0.3,
    "heun2": 0.3,
    "heun3": 0.3,
    "rk4": 0.5,
    "explicit_adams": 0.1,
    "implicit_adams": 0.2,
}
SOLVERS = {name: TorchSolver(name, STEP.get(name)) for name in (*CONTROLLED, *CONSTANT)}
EVERY_SOLVER = pytest.mark.parametrize("name", SOLVERS)
EXPECTED = {  # order, margin, steps of the coarsest of five grids over 3 time units
    "euler": (1, 0.05, 128),
    "midpoint": (2, 0.1, 32),
    "heun2": (2, 0.1, 32),
    "heun3": (3, 0.15, 16),
    "rk4": (4, 0.2, 8),
    "explicit_adams": (4, 0.2, 16),
    "implicit_adams": (5, 0.3, 16),
}


def tight(p):
    return Tolerance(2e-6 if p.network.dtype == np.float32 else 2e-14)


def far(state, known):
    return np.abs(flatten(state) - flatten(known)).max(axis=1)


def inside(p, value=0.35):
    return tuple(np.full(s.shape, value, s.dtype) for s in zero_state(p.network, p.batch))


def repeated(p, rows):
    """The problem with these samples of it, some of them several times."""
    nudges = {phase: None if nudge is None else nudge.rows(rows) for phase, nudge in p.nudges.items()}
    return problems.Problem(p.name, p.network, p.images[rows], nudges)


def naive_field(p, nudge=None):
    """ds/dt as anyone would give it to torchdiffeq."""
    cpu = torch.device("cpu")
    network, inputs = tensors.tensor_network(p.network, cpu), torch.from_numpy(p.drive)
    return lambda t, flat: torch.cat(rate.rate_field(network, inputs, rate.layers(network, flat), nudge), -1)


def residuals(field, flat):
    return torch.linalg.vector_norm(field(None, flat), dim=-1)


def naive_rest(p, start, bound):
    """Where `odeint_event` stops, (B, N), when it is asked for residuals below `bound`."""
    field = naive_field(p)
    call = {
        "event_fn": lambda t, flat: residuals(field, flat) - bound,
        "options": {"max_num_steps": 200},
        "rtol": 1e-9,
        "atol": 1e-9,
    }
    return torchdiffeq.odeint_event(field, torch.from_numpy(flatten(start)), torch.zeros(()), **call)[1][-1]


@cache
def exact_path(name, value, times):
    """(T, B, N) from states that are all `value`, by another integrator on the oracle's field."""
    p = problem(name)

    def right(_, flat):
        return np.concatenate(
            oracles.rate_field(p.network, p.images, oracles.split(p.network, flat.reshape(p.batch, -1))), axis=1
        ).ravel()

    flat = np.full(p.batch * sum(p.network.sizes[1:]), value)
    found = solve_ivp(right, (0, times[-1]), flat, "DOP853", t_eval=times, rtol=1e-11, atol=1e-12)
    return found.y.T.reshape(len(times), p.batch, -1)


def test_it_is_an_integrator_with_a_name():
    assert isinstance(make_solver("torch_ode", method="rk4", dt=0.1), TorchSolver)
    assert isinstance(TorchSolver(), Integrator)
    assert pickle.loads(pickle.dumps(TorchSolver("euler", 0.1))) == TorchSolver("euler", 0.1)


@pytest.mark.parametrize(
    ("where", "phase", "dtype"),
    [("saturated", "nudged", np.float64), ("logistic", "negative", np.float64)],  # others: tests/test_solvers_agree.py
)
@EVERY_SOLVER
def test_every_method_reaches_the_known_equilibrium(name, where, phase, dtype):
    """Facts 1 and 7, promises 1, 3 and 4: at kinks, in both topologies, with a smooth rho."""
    p, solver = problem(where, dtype), SOLVERS[name]
    nudge = p.nudges[phase]
    inputs = [*p.network.parameters().values(), p.drive, *([] if nudge is None else [nudge.target])]
    before = [a.copy() for a in inputs]
    found = solver.relax(p.network, p.drive, None, nudge, tight(p)).require_converged()
    assert far(found.state, p.known[phase]).max() <= p.agreement
    assert {s.dtype for s in found.state} == {np.dtype(dtype)}
    assert (
        oracles.residual(p.network, p.images, found.state, nudge) <= tight(p).absolute + 50 * np.finfo(dtype).eps
    ).all()
    assert found.beta == rate.beta_of(nudge)
    again = solver.relax(p.network, p.drive, found.state, nudge, tight(p))
    assert again.steps.tolist() == [0] * p.batch
    np.testing.assert_array_equal(flatten(again.state), flatten(found.state))
    for a, b in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["dopri5", "fehlberg2"])
def test_a_ring_below_its_threshold_is_not_made_to_oscillate(name):
    """Fact 8: it rests for a gain below 8. What fehlberg2 says of its error does not tell of steps
    too long for a slow spiral (here for 6.5).
    """
    p = problems.ring(3, 6.5)
    assert TorchSolver(name, max_steps=1000).relax(p.network, p.drive, None, None, Tolerance(0.1)).converged.all()


def test_a_sample_at_rest_beside_others_keeps_its_bits_and_takes_no_step(dtype):
    """torchdiffeq does not ask an event at the start: a state converged runs on, here until its
    steps are used up.
    """
    silent = problem("silent", dtype)
    with pytest.raises(AssertionError, match=r"max_num_steps exceeded|underflow in dt"):
        naive_rest(silent, zero_state(silent.network, silent.batch), 1e-6)
    assert TorchSolver().relax(silent.network, silent.drive).steps.tolist() == [0] * silent.batch
    p = problem("saturated", dtype)
    rest = TorchSolver().relax(p.network, p.drive)
    mixed = tuple(s.copy() for s in rest.state)
    mixed[0][2] += 0.1
    found = TorchSolver().relax(p.network, p.drive, mixed)
    assert (found.steps > 0).tolist() == [False, False, True, False, False]
    kept = np.array([0, 1, 3, 4])
    np.testing.assert_array_equal(flatten(found.rows(kept).state), flatten(rest.rows(kept).state))


def test_the_slowest_sample_is_waited_for():
    """torchdiffeq stops a batch at the first sample whose event comes."""
    p = problem("strong")
    near = tuple(
        k + (1e-5 if i == 0 else 0.3) * np.eye(p.batch)[i % p.batch][:, None] for i, k in enumerate(p.known["free"])
    )
    start = tuple(s + 0.2 * (np.arange(p.batch) > 0)[:, None] for s in near)
    stopped = naive_rest(p, start, 1e-7)
    assert (residuals(naive_field(p), stopped) > 1e-4).sum() >= p.batch - 1
    found = TorchSolver().relax(p.network, p.drive, start, None, Tolerance(1e-7)).require_converged()
    assert (oracles.residual(p.network, p.images, found.state) <= 1e-7).all()
    assert found.steps[0] < found.steps[1:].min()
    assert (found.residual > 1e-10).all(), "nobody went on after it had converged"


def crowd(p, quiet=400):
    """(problem, start): the first sample of p, from inside, in a crowd of others that rest from
    the start.
    """
    crowded = repeated(p, np.array([0] + [1] * quiet))
    rest = TorchSolver().relax(crowded.network, crowded.drive, None, None, tight(p))
    start = tuple(s.copy() for s in rest.state)
    for s in start:
        s[0] = 0.8
    return crowded, start


@pytest.mark.parametrize("name", ["dopri5", "bosh3", "adaptive_heun"])
def test_quiet_neighbours_do_not_hide_an_error(name):
    """torchdiffeq takes the mean over the batch: beside 400 quiet samples an error twenty times as
    large passes.
    """
    p, start = crowd(problem("interior"))
    exact = oracles.interior_path(p.network, p.images[:1], tuple(s[:1] for s in start), [2.0])[0]
    alone = TorchSolver(name, rtol=1e-6).follow(p.network, p.drive[:1], tuple(s[:1] for s in start), None, [0.0, 2.0])[
        -1
    ]
    together = TorchSolver(name, rtol=1e-6).follow(p.network, p.drive, start, None, [0.0, 2.0])[-1, :1]
    naive = torchdiffeq.odeint(
        naive_field(p), torch.from_numpy(flatten(start)), torch.tensor([0.0, 2.0]), rtol=1e-6, atol=1e-6, method=name
    )[-1, :1]
    error = np.abs(alone - exact).max()
    assert np.abs(naive.numpy() - exact).max() > 5 * error
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-3 * error)


def test_a_constant_allowance_stalls_and_ours_does_not():
    """At a rest that is approached in fast spirals the step rides the limit of stability, and the
    residual stays at what the allowance lets pass.
    """
    p = problems.ring(2, 100.0)
    field, start = naive_field(p), torch.from_numpy(flatten(zero_state(p.network, p.batch)))
    naive = torchdiffeq.odeint(field, start, torch.tensor([0.0, 60.0]), rtol=1e-6, atol=1e-6)[-1]
    assert (residuals(field, naive) > 1e-8).all(), "after 60 time constants; e^-60 is 1e-26"
    found = TorchSolver().relax(p.network, p.drive, None, None, Tolerance(1e-12)).require_converged()
    assert found.steps.max() < 800


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["dopri5", "implicit_adams"])
def test_a_sample_that_is_not_finite_is_reported_and_does_not_affect_the_others(name, bad, dtype):
    """torchdiffeq ends the call for all samples (controlled), or doubts the steps of all for ever
    (implicit_adams).
    """
    p, solver = problem("strong", dtype), SOLVERS[name]
    whole = solver.relax(p.network, p.drive, None, p.nudges["nudged"], tight(p))
    start = tuple(s.copy() for s in zero_state(p.network, p.batch))
    start[1][2, 0] = bad
    if name == "dopri5" and np.isnan(bad):
        with pytest.raises(AssertionError, match="underflow in dt"):
            torchdiffeq.odeint(naive_field(p), torch.from_numpy(flatten(start)), torch.tensor([0.0, 1.0]))
    found = solver.relax(p.network, p.drive, start, p.nudges["nudged"], tight(p))
    others = [0, 1, 3]
    assert found.status.tolist() == [Status.NOT_FINITE if i == 2 else Status.CONVERGED for i in range(4)]
    assert found.steps[2] == 0
    assert far(found.state, whole.state)[others].max() <= p.agreement
    path = solver.follow(p.network, p.drive, start, None, [0.0, 0.5, 1.0])
    alone = solver.follow(p.network, p.drive[others], tuple(s[others] for s in start), None, [0.0, 0.5, 1.0])
    assert np.isnan(path[1:, 2]).all()
    np.testing.assert_allclose(path[:, others], alone, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-8)


@pytest.mark.parametrize("name", ["dopri5", "euler", "rk4", "implicit_adams"])
def test_a_sample_that_explodes_leaves_the_others_alone(name):
    """rho = s^2 leads away from rest to infinity within a finite time, where every controlled step
    becomes too long.
    """
    square = Activation("square", lambda s: s * s, lambda s: 2 * s)
    network = Network(np.ones((1, 1)), (np.ones((1, 1)),), (np.zeros(1), np.zeros(1)), loop=np.ones((1, 1)), rho=square)
    start = (np.array([[0.2], [5.0], [0.3]]), np.array([[0.1], [5.0], [0.2]]))
    inputs = drive(network, np.zeros((3, 1)))
    found = SOLVERS[name].relax(network, inputs, start, None, Tolerance(1e-8))
    assert (found.status == Status.CONVERGED).tolist() == [True, False, True]
    assert np.abs(flatten(found.state)[[0, 2]]).max() < 1e-7
    assert found.steps[1] < 2000, "it is given up, not dragged along"
    follower = TorchSolver(name, STEP.get(name), rtol=1e-4 if name in CONTROLLED else None)
    path = follower.follow(network, inputs, start, None, [0.0, 0.5, 3.0])
    assert np.isnan(path[-1, 1]).all()
    often = follower.follow(network, inputs, start, None, np.linspace(0, 3, 31))
    gone = np.isnan(often).all(-1)
    assert gone[:, 1].any()
    last = follower.follow(network, inputs, tuple(np.where(s > 1, 1e120, s) for s in start), None, [0.0, 0.1])[-1]
    assert np.isnan(last).all(-1).tolist() == [False, True, False], "a last step to infinity"
    assert (np.diff(gone.astype(int), axis=0) >= 0).all(), "whoever is gone stays away"
    alone = follower.follow(network, inputs[:1], tuple(s[:1] for s in start), None, [0.0, 0.5, 3.0])
    np.testing.assert_allclose(path[:, :1], alone, rtol=0, atol=1e-3)


def test_a_step_that_overflows_is_tried_again_and_shorter():
    """Two units that damp each other with the square of their states: from 1000 the stages of a
    first step run to infinity.
    """
    square = Activation("square", lambda s: s * s, lambda s: 2 * s)
    network = Network(
        np.ones((1, 1)), (-np.ones((1, 1)),), (np.zeros(1), np.zeros(1)), loop=-np.ones((1, 1)), rho=square
    )
    start = (np.array([[1e3], [0.1]]), np.array([[1e3], [0.2]]))
    inputs = drive(network, np.zeros((2, 1)))
    assert TorchSolver().relax(network, inputs, start, None, Tolerance(1e-6)).converged.all()
    path = TorchSolver().follow(network, inputs, start, None, [0.0, 1.0])
    right = lambda _, s: -2 * s * s[::-1] ** 2 - s  # noqa: E731
    exact = [
        solve_ivp(right, (0, 1), [a[0], b[0]], "Radau", rtol=1e-10, atol=1e-12).y[:, -1]
        for a, b in zip(*start, strict=True)
    ]
    np.testing.assert_allclose(path[-1], exact, rtol=1e-6)


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_an_equilibrium_does_not_depend_on_the_neighbours(name, dtype):
    """Promise 2: alone, in another order, and many together of which half leave early."""
    p = problem("strong", dtype)
    rows = np.arange(23) % p.batch
    many = repeated(p, rows)
    found = SOLVERS[name].relax(many.network, many.drive, None, many.nudges["nudged"], tight(p)).require_converged()
    known = np.concatenate([s[rows] for s in p.known["nudged"]], axis=1)
    assert np.abs(flatten(found.state) - known).max() <= p.agreement
    for i in range(p.batch):
        one = repeated(p, np.array([i]))
        alone = SOLVERS[name].relax(one.network, one.drive, None, one.nudges["nudged"], tight(p)).require_converged()
        assert np.abs(flatten(alone.state) - flatten(found.state)[i]).max() <= p.agreement


@EVERY_SOLVER
def test_no_rest_is_reported_with_what_was_reached(name):
    """Promise 5: a ring beyond its threshold oscillates for ever."""
    p = problems.ring(3, 20.0)
    start = tuple(np.linspace(0.2, 0.4, p.batch)[:, None] + k / 10 for k in range(3))
    found = TorchSolver(name, STEP.get(name), max_steps=70).relax(p.network, p.drive, start)
    assert set(found.status) == {Status.OSCILLATES}
    np.testing.assert_allclose(found.period, 3.439, rtol=0.02)
    assert found.steps.tolist() == [70] * p.batch
    np.testing.assert_allclose(found.residual, oracles.residual(p.network, p.images, found.state), rtol=1e-9)
    assert (found.residual > 0.01).all()


@pytest.mark.parametrize("name", EXPECTED)
def test_observed_order_inside_the_box(name):
    """Fact 6; the history of an Adams method begins with steps of order 4, which leaves it its
    order.
    """
    p = problem("interior")
    exact = oracles.interior_path(p.network, p.images, inside(p), [3.0])[0]
    order, margin, coarsest = EXPECTED[name]
    errors = []
    for halving in range(4 if name == "implicit_adams" else 5):  # its fifth is at rounding
        solver = TorchSolver(name, 3 / (coarsest * 2**halving), rtol=1e-14 if name == "implicit_adams" else None)
        errors.append(np.abs(solver.follow(p.network, p.drive, inside(p), None, [0.0, 3.0])[-1] - exact).max())
    assert np.log2(np.array(errors[:-1]) / errors[1:]).mean() == pytest.approx(order, abs=margin)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_kink_leaves_order_one(name):
    p = problem("saturated")
    exact = exact_path("saturated", 0.5, (2.0,))[-1]
    errors = [
        np.abs(TorchSolver(name, dt).follow(p.network, p.drive, inside(p, 0.5), None, [0.0, 2.0])[-1] - exact).max()
        for dt in (0.2, 0.025)
    ]
    assert np.log2(errors[0] / errors[1]) / 3 > 0.9


@pytest.mark.parametrize(
    ("name", "rtol", "within"),
    [
        ("dopri8", 1e-12, 1e-12),
        ("dopri5", None, 2e-9),
        ("bosh3", 1e-8, 1e-7),
        ("fehlberg2", 1e-6, 1e-3),
        ("adaptive_heun", 1e-6, 1e-5),
    ],
)
def test_controlled_steps_are_as_exact_as_they_were_asked_to_be_at_every_time(name, rtol, within):
    """What torchdiffeq returns between the ends of two steps is a polynomial of degree 4, whatever
    the order of the method.
    """
    p = problem("interior")
    times = [0.0, 0.31, 0.3100001, 1.0, 3.0]
    exact = oracles.interior_path(p.network, p.images, inside(p), times[1:])
    walk = TorchSolver(name, rtol=rtol).integrate(p.network, p.drive, inside(p), None, times)
    np.testing.assert_array_equal(walk.states[0], flatten(inside(p)))
    assert np.abs(walk.states[1:] - exact).max() <= within
    if name == "dopri8":
        t = torch.tensor(times, dtype=torch.float64)
        naive = torchdiffeq.odeint(
            naive_field(p), torch.from_numpy(flatten(inside(p))), t, rtol=rtol, atol=rtol, method=name
        )
        assert np.abs(naive[1:].numpy() - exact).max() > 1000 * within


@pytest.mark.parametrize(
    ("where", "name", "within"),
    [("saturated", "bosh3", 3e-8), ("saturated", "dopri5", 1e-6), ("shifted_tanh", "dopri5", 3e-9)],
)
def test_a_path_is_the_one_of_another_integrator(where, name, within):
    p, times = problem(where), (0.2, 0.7, 2.0)
    found = TorchSolver(name).follow(p.network, p.drive, inside(p, 0.5), None, [0.0, *times])[1:]
    assert np.abs(found - exact_path(where, 0.5, times)).max() <= within


def test_constant_steps_end_at_each_time():
    """torchdiffeq draws a straight line between the ends of two steps, and lets a last one be
    shorter.
    """
    p = problem("interior")
    times = [0.0, 0.3, 1.0]
    exact = oracles.interior_path(p.network, p.images, inside(p), times[1:])
    walk = TorchSolver("rk4", 0.2).integrate(p.network, p.drive, inside(p), None, times)
    assert np.abs(walk.states[1:] - exact).max() < 1e-5
    assert walk.steps.tolist() == [2 + 4] * p.batch
    t = torch.tensor(times, dtype=torch.float64)
    naive = torchdiffeq.odeint(
        naive_field(p), torch.from_numpy(flatten(inside(p))), t, method="rk4", options={"step_size": 0.2}
    )
    assert np.abs(naive[1].numpy() - exact[0]).max() > 1e-4


def test_adams_methods_have_stable_steps():
    """torchdiffeq keeps twelve steps of history, with which a tenth of a time constant is too long
    for an explicit method.
    """
    p = problem("interior")
    field, start = naive_field(p), torch.from_numpy(flatten(inside(p)))
    naive = torchdiffeq.odeint(
        field, start, torch.tensor([0.0, 20.0]), method="explicit_adams", options={"step_size": 0.1}
    )[-1]
    assert not (residuals(field, naive) < 1e6).any()
    assert TorchSolver("explicit_adams", 0.1).relax(p.network, p.drive, inside(p)).converged.all()


def test_many_constant_steps_are_taken_in_stretches(monkeypatch):
    p = problem("time-constants")
    once = TorchSolver("rk4", 0.1).integrate(p.network, p.drive, inside(p), None, [0.0, 1.0, 4.7])
    rest = TorchSolver("rk4", 0.2).relax(p.network, p.drive, None, None, Tolerance(1e-6))
    monkeypatch.setattr(torch_steps, "STRETCH", 7)
    often = TorchSolver("rk4", 0.1).integrate(p.network, p.drive, inside(p), None, [0.0, 1.0, 4.7])
    np.testing.assert_allclose(often.states, once.states, rtol=0, atol=1e-14)
    assert often.steps.tolist() == once.steps.tolist() == [10 + 37] * p.batch
    again = TorchSolver("rk4", 0.2).relax(p.network, p.drive, None, None, Tolerance(1e-6))
    assert (again.steps > 14).all()
    assert np.abs(again.steps - rest.steps).max() <= 1


@EVERY_SOLVER
def test_fields_and_steps_are_counted(name, monkeypatch):
    """By a field that counts its own evaluations; of one sample, as others leave earlier."""
    p, calls = repeated(problem("strong"), np.array([0])), []
    counted = rate.rate_field
    monkeypatch.setattr(rate, "rate_field", lambda *given: calls.append(1) or counted(*given))
    walk = TorchSolver(name, STEP.get(name), rtol=1e-5 if name in CONTROLLED else None).integrate(
        p.network, p.drive, inside(p), None, [0.0, 0.5, 1.2]
    )
    assert walk.fields.tolist() == [len(calls)]
    calls.clear()
    reached = SOLVERS[name].relax_counted(p.network, p.drive, None, None, Tolerance(1e-3))
    assert reached.fields.tolist() == [len(calls)]
    found = SOLVERS[name].relax(p.network, p.drive, None, None, Tolerance(1e-3))
    np.testing.assert_array_equal(flatten(found.state), flatten(reached.equilibrium.state))
    each = {"dopri5": 6, "bosh3": 3, "dopri8": 13, "euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
    if name in each:
        begun = 1 if name in CONTROLLED else 0
        assert walk.fields.tolist() == [begun + each[name] * walk.steps[0]]


def test_early_leavers_are_not_charged_for_the_others():
    p, start = crowd(problem("strong"), quiet=5)
    found = TorchSolver().relax_counted(p.network, p.drive, start, None, Tolerance(1e-8))
    assert found.equilibrium.steps[0] > 0
    assert found.equilibrium.steps[1:].tolist() == [0] * 5
    assert found.fields[1:].tolist() == [1] * 5


def test_too_few_steps_leave_a_path_that_ends():
    p = problem("logistic")
    walk = TorchSolver(max_steps=12).integrate(p.network, p.drive, inside(p), None, [0.0, 0.1, 20.0, 21.0])
    assert np.isfinite(walk.states[:2]).all()
    assert np.isnan(walk.states[2:]).all()
    assert (walk.steps >= 12).all()
    for times in ([3.0], [3.0, 3.5]):
        path = TorchSolver().follow(p.network, p.drive, inside(p), None, times)
        assert path.shape == (len(times), p.batch, sum(p.network.sizes[1:]))
        np.testing.assert_array_equal(path[0], flatten(inside(p)))


def test_read_only_and_other_arrays_are_taken(dtype):
    """Drive, start and target of another precision or that may not be written to; what comes back
    is in the network's.
    """
    p = problem("interior", dtype)
    other = np.float64 if dtype == np.float32 else np.float32
    inputs, start = p.drive.astype(other), tuple(s.astype(other)[::-1] for s in inside(p))
    for a in (inputs, *start):
        a.flags.writeable = False
    nudge = Nudge(0.5, p.nudges["nudged"].target.tolist())
    found = TorchSolver().relax(p.network, inputs, start, nudge, Tolerance(1e-5)).require_converged()
    assert far(found.state, p.known["nudged"]).max() < 1e-4
    assert {s.dtype for s in found.state} == {np.dtype(dtype)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dopri6"}, "method = 'dopri6' is unknown; did you mean 'dopri8'"),
        ({"method": "fixed_adams", "dt": 0.1}, "method = 'fixed_adams' is unknown; did you mean"),
        ({"method": "rk4"}, "method = 'rk4' does not control its step; give dt, or take one of: dopri8, dopri5"),
        ({"dt": 0.1}, "dt = 0.1 with method = 'dopri5', which controls its step; leave dt out, or take one of: euler"),
        ({"method": "rk4", "dt": 0.0}, "dt = 0.0, expected a finite number above 0"),
        ({"method": "implicit_adams", "dt": np.nan}, "dt = nan, expected a finite number above 0"),
        ({"max_steps": 0}, "max_steps = 0, expected a finite number above 0"),
        ({"max_steps": 1.5}, "max_steps = 1.5, expected a whole number"),
        ({"rtol": -1.0}, "rtol = -1.0, expected a finite number, 0 or more"),
        ({"rtol": 0.0}, "rtol = 0.0 with atol = None allows no error at all"),
        (
            {"method": "rk4", "dt": 0.1, "rtol": 1e-3},
            "rtol = 0.001 with dt = 0.1, but constant steps estimate no error",
        ),
        ({"device": "gpu"}, "device = 'gpu' is unknown; did you mean 'cpu'? (auto, cpu, cuda)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigurationError) as refusal:
        TorchSolver(**settings)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_the_accuracy_of_the_corrector_of_implicit_adams_can_be_set():
    p = problem("logistic")
    walks = [
        TorchSolver("implicit_adams", 0.1, rtol=rtol).integrate(p.network, p.drive, inside(p), None, [0.0, 2.0])
        for rtol in (1e-3, 1e-12)
    ]
    assert walks[0].fields[0] < walks[1].fields[0]
    assert np.abs(walks[0].states - walks[1].states).max() < 1e-3


def test_fields_are_whole_products_whatever_the_process_allows(monkeypatch):
    seen = []
    real = torch_steps.Batch.judge
    monkeypatch.setattr(
        torch_steps.Batch, "judge", lambda *given: seen.append(torch.get_float32_matmul_precision()) or real(*given)
    )
    p, before = problem("interior", np.float32), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        TorchSolver().relax(p.network, p.drive, None, None, tight(p))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {"highest"}


def test_unusable_input_is_refused():
    p, solver = problem("interior"), TorchSolver()
    with pytest.raises(ShapeError):
        solver.relax(p.network, p.drive[:, 1:])
    with pytest.raises(ConfigurationError, match="beta"):
        solver.relax(p.network, p.drive, None, Nudge(-1.0, p.nudges["nudged"].target))
    for times in ([0.0, 0.0], [1.0, 0.5], [0.0, np.nan], []):
        with pytest.raises(ConfigurationError, match="times"):
            solver.follow(p.network, p.drive, inside(p), None, times)
    single = problem("interior", np.float32)
    with pytest.raises(ConfigurationError, match="rtol = 1e-08 with atol = 1e-08 is below the rounding of float32"):
        TorchSolver(rtol=1e-8).follow(single.network, single.drive, inside(single), None, [0.0, 1.0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_and_auto_takes_the_cpu():
    with pytest.raises(ConfigurationError, match="device = 'cuda', but"):
        TorchSolver(device="cuda")
    p = problem("strong")
    states = [TorchSolver(device=device).relax(p.network, p.drive).state for device in ("auto", "cpu")]
    np.testing.assert_array_equal(*map(flatten, states))


@CUDA
@pytest.mark.parametrize("where", ["saturated", "time-constants", "untied", "logistic"])
@pytest.mark.parametrize("name", ["dopri5", "rk4", "implicit_adams"])
def test_a_gpu_reaches_the_known_equilibrium(name, where, dtype):
    p, solver = problem(where, dtype), TorchSolver(name, STEP.get(name), device="cuda")
    for phase in problems.PHASES:
        found = solver.relax(p.network, p.drive, None, p.nudges[phase], tight(p)).require_converged()
        assert far(found.state, p.known[phase]).max() <= p.agreement
        again = solver.relax(p.network, p.drive, found.state, p.nudges[phase], tight(p))
        assert again.steps.tolist() == [0] * p.batch


@CUDA
@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_a_gpu_follows_the_path_of_the_cpu(name):
    p, times = problem("saturated"), [0.0, 0.3, 2.0]
    start = inside(p, 0.5)
    start[0][1, 0] = np.nan
    paths = [
        TorchSolver(name, STEP.get(name), device=device).follow(p.network, p.drive, start, None, times)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(paths[1], paths[0], rtol=0, atol=1e-9)
