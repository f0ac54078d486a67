"""The NumPy integrator: its equilibria, its steps, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracles
import pytest
from problems import PHASES, contraction, problem, random_network, random_problem, ring

from fsp_dynamics.errors import ConfigurationError, NotConvergedError, ShapeError
from fsp_dynamics.models import rate
from fsp_dynamics.models.rate import Nudge, flatten, layers
from fsp_dynamics.solvers.equilibrium import Integrator, Status, Tolerance
from fsp_dynamics.solvers.integration import equal_steps, longest_step
from fsp_dynamics.solvers.reference import ReferenceSolver, flat_field, step
from fsp_dynamics.solvers.tableaux import TABLEAUX

TIGHT = {np.float32: Tolerance(2e-6), np.float64: Tolerance(3e-14)}
CONTROLLED = [ReferenceSolver("dopri5"), ReferenceSolver("bosh3"), ReferenceSolver("heun")]
CONSTANT = [ReferenceSolver(method, dt=0.15, form=form) for method in TABLEAUX for form in ("projected", "rate")]


def label(solver):
    return f"{solver.method}-{solver.form}" if solver.form else f"{solver.method}-dt={solver.dt}"


def relax(solver, p, phase="free", start=None, tolerance=None):
    return solver.relax(p.network, p.drive, start, p.nudges[phase], tolerance)


def distance(state, known):
    return max(np.abs(s - k).max() for s, k in zip(state, known, strict=True))


def check_rest(solver, p, phase, tolerance):
    found = relax(solver, p, phase, tolerance=tolerance)
    assert found.converged.all()
    assert distance(found.state, p.known[phase]) < p.agreement
    twin = oracles.residual(p.network, p.images, found.state, p.nudges[phase])
    bound = tolerance.bound(np.linalg.norm(np.concatenate(found.state, axis=1), axis=1))
    assert (twin <= bound + 10 * np.finfo(p.network.dtype).eps).all(), "converged means that the field is small"
    np.testing.assert_allclose(found.residual, twin, atol=10 * np.finfo(p.network.dtype).eps)


@pytest.mark.parametrize("name", ["saturated"])  # the default, everywhere: tests/test_solvers_agree.py
@pytest.mark.parametrize("solver", [*CONTROLLED[1:], *CONSTANT], ids=label)
def test_every_method_and_form_reaches_the_same_equilibrium(solver, name):
    check_rest(solver, problem(name, np.float64), "nudged", TIGHT[np.float64])


@pytest.mark.parametrize("seed", range(8))
def test_random_networks(seed):
    p = random_problem(seed)
    for phase in PHASES:
        check_rest(ReferenceSolver(), p, phase, Tolerance(1e-13))


@pytest.mark.parametrize("method", TABLEAUX)
def test_equilibria_do_not_depend_on_dt(method):
    """Model fact 7. With literal stages a unit held at 1 would rest below 1, by an amount that
    depends on dt.
    """
    p = problem("saturated")
    ends = [
        flatten(relax(ReferenceSolver(method, dt=dt), p, tolerance=TIGHT[np.float64]).state) for dt in (0.05, 0.2, 0.6)
    ]
    assert (ends[0] == 1).any()
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], atol=1e-12)


@pytest.mark.parametrize("solver", CONTROLLED[:2], ids=label)
@pytest.mark.parametrize("absolute", [1e-1, 1e-3, 1e-6, 1e-9, 1e-12])
def test_every_rest_tolerance_is_reached_and_costs_few_steps(solver, absolute):
    found = relax(solver, problem("deep"), tolerance=Tolerance(absolute))
    assert found.converged.all()
    assert found.residual.max() <= absolute
    assert found.steps.max() < 130


@pytest.mark.parametrize("absolute", [1e-2, 1e-5, 1e-8, 1e-11])
def test_the_residual_does_not_stall_at_the_limit_of_stability(absolute):
    """Modes -1 +- 10 i: stable steps are far shorter than a time constant, and only the error
    estimate shows it.
    """
    p = ring(2, 100.0)
    found = relax(ReferenceSolver(), p, tolerance=Tolerance(absolute))
    assert found.residual.max() <= absolute
    assert found.steps.max() < 400
    assert distance(found.state, oracles.solve_masked(p.network, p.images, np.zeros((3, 2)))) <= 2 * absolute


def test_default_tolerances_are_reached(dtype):
    for name in ("ring-3", "saturated", "logistic"):
        assert relax(ReferenceSolver(), problem(name, dtype)).converged.all()


def test_where_a_nudge_goes_in_closed_form():
    """Model fact 4."""
    for name in ("interior", "ring-3", "ring-4", "satisfied"):
        p = problem(name)
        for phase in ("nudged", "negative"):
            found = relax(ReferenceSolver(), p, phase, tolerance=TIGHT[np.float64])
            assert (
                distance(found.state, oracles.nudged_equilibrium(p.network, p.images, p.known["free"], p.nudges[phase]))
                < 1e-12
            )


def test_a_satisfied_output_is_not_moved_by_its_nudge(dtype):
    """Model fact 5."""
    p, solver = problem("satisfied", dtype), ReferenceSolver("rk4", dt=0.2)
    free = relax(solver, p)
    nudged = relax(solver, p, "nudged", start=free.state)
    np.testing.assert_array_equal(free.output, p.nudges["nudged"].target)
    assert (nudged.steps == 0).all()
    for f, n in zip(free.state, nudged.state, strict=True):
        np.testing.assert_array_equal(f, n)


@pytest.mark.parametrize("seed", range(4))
def test_distance_from_rest_is_bounded_by_residual_and_by_time(seed):
    """Model fact 3, in the norm max_k ||.|| of a network whose matrices have equal norms."""
    network = random_network(seed, [4, 7, 5, 3], 0.5)
    images = np.random.default_rng(seed).random((3, 4))
    drive, known = rate.drive(network, images), oracles.equilibrium(network, images)

    def block(state):
        return np.max([np.linalg.norm(s - k, axis=-1) for s, k in zip(state, known, strict=True)], axis=0)

    stopped = ReferenceSolver().relax(network, drive, tolerance=Tolerance(0.05))
    assert (block(stopped.state) <= stopped.residual / contraction(network)).all()
    times = np.linspace(0, 12, 13)
    path = layers(network, ReferenceSolver().follow(network, drive, rate.zero_state(network, 3), None, times))
    far = block(path)
    assert (far <= far[0] * np.exp(-contraction(network) * times)[:, None] * (1 + 1e-6) + 1e-8).all()


@pytest.mark.parametrize("solver", [ReferenceSolver(), ReferenceSolver("rk4", dt=0.1)], ids=label)
def test_a_start_at_rest_returns_unchanged_after_no_steps(solver, dtype):
    p = problem("strong", dtype)
    found = relax(solver, p, "nudged")
    again = relax(solver, p, "nudged", start=found.state)
    assert (found.steps > 0).all()
    assert (again.steps == 0).all()
    assert again.converged.all()
    np.testing.assert_array_equal(flatten(again.state), flatten(found.state))
    assert not np.shares_memory(again.state[0], found.state[0])


@pytest.mark.parametrize("solver", [ReferenceSolver(), ReferenceSolver("euler", dt=0.1)], ids=label)
def test_a_sample_does_not_see_its_neighbours(solver):
    """Each has its own step size and stop: alone it takes as many steps, to the same place."""
    p = problem("strong")
    far = np.array([0, 1e-4, 1, 0.5])[:, None]  # the second starts almost converged
    start = tuple((1 - far) * known + far for known in p.known["nudged"])
    together = relax(solver, p, "nudged", start=start)
    assert together.steps[1] < 0.8 * together.steps.max()
    for i in range(p.batch):
        rows = slice(i, i + 1)
        alone = solver.relax(p.network, p.drive[rows], tuple(s[rows] for s in start), p.nudges["nudged"].rows(rows))
        np.testing.assert_allclose(flatten(alone.state)[0], flatten(together.state)[i], atol=1e-12)
        assert abs(int(alone.steps[0]) - int(together.steps[i])) <= 1


def test_a_step_is_at_most_the_fastest_time_constant() -> None:
    network = random_network(0, [3, 4, 4, 2], 0.5, time_constants=[0.5, 4.0, 2.0])
    target = np.zeros((1, 2))
    assert longest_step(network, None) == 0.5
    assert longest_step(network, Nudge(1.0, target)) == 0.5
    assert longest_step(network, Nudge(3.5, target)) == 1 / (1 / 2 + 3.5)


def test_equal_steps_fill_a_duration_and_are_not_longer_than_dt() -> None:
    assert [equal_steps(np.array([1.0]), dt, 4)[0] for dt in (0.3, 0.5, 0.9, 1.0, 7.0)] == [4, 2, 2, 1, 1]
    # 0.3 / 0.1 is 2.9999999999999996 and 0.7 / 0.1 6.999999999999999
    assert equal_steps(np.array([0.3, 0.7]), 0.1, 7).tolist() == [3, 7]
    with pytest.raises(
        ConfigurationError, match=r"7 steps of dt = 0.1 .* at most max_steps = 6; follow a shorter time"
    ):
        equal_steps(np.array([0.3, 0.7]), 0.1, 6)


def test_each_sample_has_its_own_step_size():
    """One oscillates at 10 per unit time, its neighbour is held at the borders and may take steps
    of a whole time constant.
    """
    p, solver = ring(2, 100.0, batch=2), ReferenceSolver()
    drive = p.drive + np.array([[0.0], [200.0]])
    together = solver.relax(p.network, drive)
    alone = [solver.relax(p.network, drive[i : i + 1]).steps[0] for i in range(2)]
    assert alone[1] < 0.4 * alone[0]
    assert np.abs(together.steps - alone).max() <= 2


@pytest.mark.parametrize(
    "solver",
    [ReferenceSolver(), ReferenceSolver("rk4", dt=0.1), ReferenceSolver("heun", dt=0.1, form="rate")],
    ids=label,
)
def test_a_sample_that_is_not_finite_ends_alone(solver):
    p = problem("deep")
    drive = p.drive.copy()
    drive[1, 0] = np.nan
    found = solver.relax(p.network, drive)
    assert found.status.tolist() == [Status.CONVERGED, Status.NOT_FINITE, Status.CONVERGED]
    assert found.steps[1] == 0
    np.testing.assert_allclose(flatten(found.state)[[0, 2]], flatten(p.known["free"])[[0, 2]], atol=1e-11)
    path = solver.follow(p.network, drive, rate.zero_state(p.network, 3), None, [0.0, 1.0, 30.0])
    assert np.isnan(path[1:, 1]).all()
    np.testing.assert_allclose(path[2, [0, 2]], flatten(p.known["free"])[[0, 2]], atol=1e-3)


def test_inputs_are_never_modified():
    p = problem("saturated")
    start = tuple(np.full_like(s, 0.5) for s in p.known["free"])
    nudge = Nudge(0.7, p.nudges["nudged"].target.copy())
    network, drive = p.network.copy(), p.drive.copy()
    for array in (drive, nudge.target, *start, *network.parameters().values()):
        array.flags.writeable = False
    for solver in (ReferenceSolver(), ReferenceSolver("euler", dt=0.1)):
        solver.relax(network, drive, start, nudge)
        solver.follow(network, drive, start, nudge, np.array([0.0, 0.3, 1.0]))


def test_the_networks_precision_is_kept():
    p = problem("saturated", np.float32)
    start = tuple(np.full(s.shape, 0.5) for s in p.known["free"])  # float64
    nudge = Nudge(np.float64(0.7), p.nudges["nudged"].target.astype(np.float64))
    solver = ReferenceSolver()
    found = solver.relax(p.network, p.drive.astype(np.float64), start, nudge)
    assert {s.dtype for s in found.state} == {np.dtype(np.float32)}
    assert solver.follow(p.network, p.drive, start, nudge, [0, 1]).dtype == np.float32


def test_running_out_of_steps_is_reported():
    p = problem("deep")
    found = relax(dataclasses.replace(ReferenceSolver(), max_steps=5), p)
    assert (found.status == Status.OUT_OF_STEPS).all()
    assert (found.steps == 5).all()
    with pytest.raises(NotConvergedError, match="3 of 3 samples have not converged") as caught:
        found.require_converged()
    assert caught.value.equilibrium is found


@pytest.mark.parametrize(
    "solver", [ReferenceSolver(max_steps=400), ReferenceSolver("rk4", dt=0.1, max_steps=400)], ids=label
)
def test_a_ring_that_cannot_rest_does_not_claim_to(solver):
    p = ring(3, 10.0)
    found = relax(solver, p)
    assert (found.status == Status.OSCILLATES).all()
    assert (found.residual > 0.05).all()


@pytest.mark.parametrize("form", ["rate", "projected"])
def test_an_unstable_step_is_reported_not_raised(form):
    p = problem("interior")
    found = relax(ReferenceSolver("rk4", dt=5.0, form=form, max_steps=500), p)
    assert (found.status == (Status.NOT_FINITE if form == "rate" else Status.OUT_OF_STEPS)).all()


def test_for_a_smooth_rho_both_forms_are_eq_13():
    p = problem("logistic")
    ends = [relax(ReferenceSolver("rk4", dt=0.2, form=form), p, "nudged") for form in (None, "rate", "projected")]
    for end in ends[1:]:
        np.testing.assert_array_equal(flatten(end.state), flatten(ends[0].state))
    assert flatten(ends[0].state).min() < 0, "a smooth state is not clipped"


def test_it_is_an_integrator():
    assert isinstance(ReferenceSolver(), Integrator)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ReferenceSolver().dt = 0.1


@pytest.mark.parametrize("tableau", [t for t in TABLEAUX.values() if t.error is not None], ids=lambda t: t.name)
def test_the_error_estimate_is_the_distance_to_the_embedded_method(tableau):
    p = problem("shifted_tanh")
    field = flat_field(p.network, p.drive, None, "rate")
    state = np.full((p.batch, sum(p.network.sizes[1:])), 0.4)
    embedded = dataclasses.replace(
        tableau, b=tuple(b - e for b, e in zip(tableau.b, tableau.error, strict=True)), error=None
    )
    h = np.array([[0.1], [0.2], [0.5]])
    moved, error = step(tableau, field, state, h)
    other, none = step(embedded, field, state, h)
    assert none is None
    np.testing.assert_allclose(error, moved - other, atol=1e-15)
    single, _ = step(tableau, field, state, 0.5)
    np.testing.assert_allclose(single[2], moved[2], atol=1e-15)
    assert (state == 0.4).all()
    assert step(tableau, lambda s: -s, state.astype(np.float32), h)[0].dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "rk5", "dt": 0.1}, "did you mean 'rk4'"),
        ({"form": "rated"}, "did you mean 'rate'"),
        ({"dt": 0.0}, r"dt = 0\.0, expected a finite number above 0"),
        ({"dt": -0.1}, r"dt = -0\.1"),
        ({"dt": np.inf}, "dt = inf"),
        ({"method": "rk4"}, "give dt, or take one of: heun, bosh3, dopri5"),
        ({"method": "euler"}, "estimates no error"),
        ({"max_steps": 0}, "max_steps = 0"),
        ({"max_steps": 2.5}, r"max_steps = 2\.5, expected a whole number"),
    ],
)
def test_unusable_settings_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ReferenceSolver(**settings)


def test_inputs_of_another_shape_are_refused():
    p = problem("interior")
    solver = ReferenceSolver()
    with pytest.raises(ShapeError, match="drive has shape"):
        solver.relax(p.network, p.drive[:, 1:])
    with pytest.raises(ShapeError, match=r"start\[0\] has shape"):
        solver.relax(p.network, p.drive, rate.zero_state(p.network, 2))
    with pytest.raises(ShapeError, match="nudge target has shape"):
        solver.relax(p.network, p.drive, None, Nudge(1.0, np.zeros((2, 3))))
    with pytest.raises(ConfigurationError, match=r"beta = -1\.0"):
        solver.relax(p.network, p.drive, None, Nudge(-1.0, np.zeros((4, 3))))


def test_an_empty_batch_is_at_rest():
    p = problem("interior")
    found = ReferenceSolver().relax(p.network, p.drive[:0])
    assert found.status.shape == (0,)
    assert found.require_converged() is found
