"""Paths along a protocol: where they lead, what is saved, and what is refused."""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import oracles
import pytest
from problems import problem

from fsp_dynamics.errors import ConfigurationError, NotFiniteError, ShapeError
from fsp_dynamics.learning.simulation import simulate
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.builders import loop_network
from fsp_dynamics.models.rate import Nudge, flatten
from fsp_dynamics.solvers import relax
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.numba_ode import NumbaSolver
from fsp_dynamics.solvers.reference import ReferenceSolver


@pytest.fixture
def p():
    return problem("deep", np.float64)


def protocol(p, free=2.0, nudged=1.0):
    return [(free, None), (nudged, p.nudges["nudged"]), (free, None)]


@pytest.mark.parametrize("name", ["saturated", "tied", "time-constants", "logistic"])
def test_each_piece_leads_to_the_equilibrium_of_its_phase(name):
    p = problem(name)
    path = simulate(p.network, p.images, [(50.0, None), (50.0, p.nudges["nudged"]), (50.0, None)], save=25.0, dt=0.2)
    assert path.times.tolist() == [0, 25, 50, 75, 100, 125, 150]
    for index, phase in ((2, "free"), (4, "nudged"), (6, "free")):
        for s, known in zip(path.states, p.known[phase], strict=True):
            np.testing.assert_allclose(s[index], known, atol=1e-6)
    for s, last in zip(path.states, path.end, strict=True):
        np.testing.assert_array_equal(s[-1], last)


def test_pieces_follow_each_other_without_a_seam(p):
    whole = simulate(p.network, p.images, [(3.0, None)], save=0.5)
    parts = simulate(p.network, p.images, [(1.0, None), (0.5, None), (1.5, None)], save=0.5)
    np.testing.assert_array_equal(parts.times, whole.times)
    for a, b in zip(parts.states, whole.states, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
    assert parts.phase.tolist() == [0, 0, 0, 1, 2, 2, 2]


def test_an_exact_path_with_a_nudge_in_the_middle():
    p = problem("interior")
    start = tuple(np.full(s.shape, 0.35) for s in p.known["free"])
    path = simulate(p.network, p.images, [(1.0, None), (2.0, p.nudges["nudged"])], start=start, dt=0.02, save=0.25)
    first = oracles.interior_path(p.network, p.images, start, path.times[:5])
    second = oracles.interior_path(
        p.network, p.images, oracles.split(p.network, first[-1]), path.times[4:] - 1, p.nudges["nudged"]
    )
    np.testing.assert_allclose(flatten(path.states), np.concatenate([first, second[1:]]), atol=1e-8)


def test_the_residual_is_that_of_the_piece_a_time_belongs_to(p):
    path = simulate(p.network, p.images, protocol(p), save=1.0)
    assert path.times.tolist() == [0, 1, 2, 3, 4, 5]
    assert path.labels.tolist() == ["free", "free", "free", "nudged", "free", "free"]
    assert path.phase.tolist() == [0, 0, 0, 1, 2, 2]
    assert path.betas == (0.0, 0.7, 0.0)
    assert path.borders.tolist() == [0, 2, 3, 5]
    for t in range(6):
        nudge = p.nudges["nudged"] if path.labels[t] == "nudged" else None
        twin = oracles.residual(p.network, p.images, tuple(s[t] for s in path.states), nudge)
        np.testing.assert_allclose(path.residual[t], twin, atol=1e-13)


def test_rates_are_rho_of_the_states():
    p = problem("logistic")
    path = simulate(p.network, p.images, [(2.0, None)], save=1.0)
    for s, r in zip(path.states, path.rates, strict=True):
        np.testing.assert_allclose(r, 1 / (1 + np.exp(-s)), atol=1e-15)


def test_a_solver_may_be_a_name_or_an_integrator(p):
    named = simulate(p.network, p.images, protocol(p), solver="heun", dt=0.1)
    given = simulate(p.network, p.images, protocol(p), solver=ReferenceSolver("heun", dt=0.1), dt=None)
    np.testing.assert_allclose(flatten(named.states), flatten(given.states), rtol=0, atol=1e-13)
    fine = simulate(p.network, p.images, protocol(p), solver="dopri5", dt=None)
    rated = simulate(p.network, p.images, protocol(p), solver=ReferenceSolver("rk4", dt=0.01, form="rate"))
    np.testing.assert_allclose(flatten(fine.states), flatten(rated.states), atol=1e-4)


def test_it_starts_at_zero_or_where_it_is_told(p):
    images, nudge = p.images, p.nudges["nudged"]
    assert not flatten(simulate(p.network, images, [(1.0, None)]).states)[0].any()
    free = ReferenceSolver().relax(p.network, p.drive, tolerance=Tolerance(1e-13))
    resting = simulate(p.network, images, [(5.0, None)], start=free)
    assert np.ptp(flatten(resting.states), axis=0).max() < 1e-12
    moved = simulate(p.network, images, [(5.0, nudge)], start=free.state)
    np.testing.assert_array_equal(flatten(moved.states)[0], flatten(free.state))


def test_about_two_hundred_times_are_saved_when_none_are_chosen(p):
    path = simulate(p.network, p.images, [(1.0, None), (np.pi, p.nudges["nudged"])])
    assert 200 <= len(path.times) <= 203
    assert (np.diff(path.times) > 0).all()
    assert 1.0 in path.times
    assert path.times[-1] == 1 + np.pi


def test_chosen_times_are_kept_and_the_borders_added(p):
    path = simulate(p.network, p.images, protocol(p), save=[0.5, 0.75, 2.0 + 1e-12, 4.0])
    assert path.times.tolist() == [0, 0.5, 0.75, 2, 3, 4, 5]
    assert simulate(p.network, p.images, [(0.3, None)], save=0.1).times.tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert simulate(p.network, p.images, [(1.0, None)], save=5).times.tolist() == [0, 1]


def test_shapes_precision_and_inputs(dtype):
    p = problem("deep", dtype)
    p.images.flags.writeable = False
    path = simulate(p.network, p.images, protocol(p), save=1.0)
    assert [s.shape for s in path.states] == [(6, 3, n) for n in p.network.sizes[1:]]
    assert {s.dtype for s in path.states} == {np.dtype(dtype)}
    assert path.residual.shape == (6, 3)


def test_a_path_that_leaves_the_numbers_is_told_not_raised(p):
    path = simulate(p.network, p.images, [(1e4, None)], solver=ReferenceSolver("rk4", dt=50.0, form="rate"), save=100.0)
    assert np.isnan(path.residual[-1]).all()
    assert np.isnan(flatten(path.states)[-1]).all()


def test_xarray_names_its_dimensions(p):
    path = simulate(p.network, p.images, protocol(p), save=0.5)
    data = path.to_xarray()
    assert data.sizes == {
        "time": 11,
        "sample": 3,
        **{f"hidden_{k + 1}": n for k, n in enumerate(p.network.sizes[1:-1])},
        "output": 3,
    }
    assert data.state_output.dims == ("time", "sample", "output")
    np.testing.assert_array_equal(data.state_hidden_2, path.states[1])
    np.testing.assert_array_equal(data.rate_output, path.rates[-1])
    np.testing.assert_array_equal(data.phase, path.labels)
    assert all(
        "units" in variable.attrs
        for name, variable in data.variables.items()
        if name in (*data.data_vars, "time", "beta")
    )
    resting = data.swap_dims(time="phase").residual.sel(phase="nudged")
    assert resting.shape == (2, 3)


@pytest.mark.parametrize(("engine", "needs"), [("scipy", "scipy"), ("h5netcdf", "h5py")])
def test_xarray_comes_back_from_netcdf(p, tmp_path, engine, needs):
    pytest.importorskip(needs)
    xarray = pytest.importorskip("xarray")
    data = simulate(p.network, p.images, protocol(p), save=0.5).to_xarray()
    data.to_netcdf(tmp_path / "path.nc", engine=engine)
    with xarray.open_dataset(tmp_path / "path.nc", engine=engine) as again:
        xarray.testing.assert_identical(again.load(), data)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"protocol": []}, "protocol is empty"),
        ({"protocol": 20.0}, "protocol = 20.0, expected a list"),
        ({"protocol": [(0.0, None)]}, r"duration of protocol\[0\] = 0\.0, expected a finite number above 0"),
        ({"protocol": [(1.0, None), (-1.0, None)]}, r"duration of protocol\[1\]"),
        ({"protocol": [(np.nan, None)]}, "duration"),
        ({"protocol": [("long", None)]}, "duration"),
        ({"protocol": [3.0]}, r"protocol\[0\] is float, expected a pair"),
        ({"protocol": [(3.0, 1.0)]}, r"protocol\[0\] is tuple, expected a pair \(duration, None or Nudge\)"),
        ({"protocol": [(1.0, Nudge(-1.0, np.zeros((3, 3))))]}, r"beta = -1\.0"),
        ({"solver": "rk5"}, "did you mean 'rk4'"),
        ({"solver": object()}, "solver is object, which has no time axis"),
        ({"dt": 0}, "dt = 0"),
        ({"dt": 0.1, "rtol": 1e-6}, "rtol = 1e-06 with dt = 0.1, but constant steps estimate no error"),
        ({"rtol": -1e-6}, "rtol = -1e-06, expected a finite number, 0 or more"),
        ({"atol": np.nan, "rtol": 1e-3}, "atol = nan"),
        ({"rtol": 0}, "allows no error at all"),
        ({"rtol": 1e-17, "atol": 0}, "below the rounding of float64"),
        ({"solver": ReferenceSolver(), "rtol": 1e-6}, "beside a ReferenceSolver, which has settings of its own"),
        ({"solver": ReferenceSolver(), "dt": 0.1}, "beside a ReferenceSolver"),
        ({"save": 0}, "save = 0"),
        ({"save": 1e-9}, "expected at most 1,000,000"),
        ({"save": [0.5, 0.5]}, "each above the one before"),
        ({"save": []}, "finite times"),
        ({"save": [0.0, np.nan]}, "finite times"),
        ({"save": [-0.1, 0.5]}, "expected times from 0 to 1"),
        ({"save": [0.5, 1.5]}, "expected times from 0 to 1"),
        ({"start": (np.zeros((3, 6)),)}, "start has 1 layers, expected 6"),
    ],
)
def test_unusable_arguments_are_refused(p, given, message):
    with pytest.raises(ConfigurationError, match=message):
        simulate(p.network, p.images, **({"protocol": [(1.0, None)]} | given))


def test_arrays_that_do_not_fit_are_refused(p):
    with pytest.raises(ShapeError, match="nudge target has shape"):
        simulate(p.network, p.images, [(1.0, Nudge(1.0, np.zeros((3, 2))))])
    with pytest.raises(ShapeError, match="images has shape"):
        simulate(p.network, p.images[0], [(1.0, None)])
    with pytest.raises(NotFiniteError, match=r"images\[0, 0\] = nan"):
        simulate(p.network, np.full_like(p.images, np.nan), [(1.0, None)])
    spoiled = tuple(np.full_like(s, np.inf) for s in p.known["free"])
    with pytest.raises(NotFiniteError, match=r"start\[0\]"):
        simulate(p.network, p.images, [(1.0, None)], start=spoiled)


def test_a_smooth_path_is_as_exact_as_asked_and_by_default_to_what_its_precision_can_tell():
    p = problem("logistic")
    exact = flatten(simulate(p.network, p.images, protocol(p), solver=ReferenceSolver("rk4", dt=0.01)).states)
    for given, allowed in (
        ({"rtol": 1e-4}, 1e-3),
        ({"rtol": 1e-7}, 1e-6),
        ({}, 1e-8),
        ({"solver": "bosh3", "rtol": 1e-6}, 1e-5),
    ):
        path = flatten(simulate(p.network, p.images, protocol(p), **given).states)
        assert np.abs(path - exact).max() < allowed
    loose = flatten(simulate(p.network, p.images, protocol(p), rtol=1e-3).states)
    assert np.abs(loose - exact).max() > 1e-6, "a tolerance is not ignored"


def test_the_path_of_a_hard_sigmoid_is_eq_13_in_small_constant_steps_unless_a_tolerance_is_given(p):
    plain, chosen = (
        simulate(p.network, p.images, protocol(p), **given) for given in ({}, {"solver": "rk4", "dt": 0.05})
    )
    np.testing.assert_array_equal(flatten(plain.states), flatten(chosen.states))
    controlled = simulate(p.network, p.images, protocol(p), rtol=1e-8)
    rated = simulate(p.network, p.images, protocol(p), solver=ReferenceSolver("bosh3", form="rate"))
    np.testing.assert_allclose(flatten(controlled.states), flatten(rated.states), atol=1e-5)


def test_an_activation_of_ones_own_is_not_compiled_unasked(monkeypatch):
    rho = Activation("square", lambda s: s * s / (1 + s * s), lambda s: 2 * s / (1 + s * s) ** 2)
    network = loop_network([3, 5, 4, 2], rho=rho, dtype=np.float64, rng=1)
    images, start = np.random.default_rng(0).random((2, 3)), tuple(np.full((2, n), 0.5) for n in (5, 4, 2))
    known = simulate(network, images, [(2.0, None)], solver=ReferenceSolver("rk4", dt=0.01), start=start)
    monkeypatch.setattr("fsp_dynamics.learning.simulation.NumbaSolver", None)
    path = simulate(network, images, [(2.0, None)], start=start)
    np.testing.assert_allclose(flatten(path.states), flatten(known.states), atol=1e-7)


def in_unit(network, unit):
    """The network with time counted in another unit: rates per unit time are so much smaller."""
    scaled = network.with_parameters({name: w / w.dtype.type(unit) for name, w in network.parameters().items()})
    return dataclasses.replace(scaled, time_constants=tuple(r * unit for r in network.time_constants))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rho", "settings"),
    [("hard_sigmoid", {}), ("hard_sigmoid", {"rtol": 1e-4}), ("logistic", {}), ("logistic", {"solver": "euler"})],
)
def test_nothing_depends_on_the_unit_of_time(rho, settings, dtype):
    """Seconds, or units of 2^-10 and 2^7 seconds: the same states to the bit, at times and with a
    residual in that unit.
    """
    network = loop_network([5, 7, 6, 3], rng=3, rho=rho, loop_scale=0.5, dtype=dtype)
    network = dataclasses.replace(network, time_constants=(0.5, 1.0, 0.25))
    images, target = np.random.default_rng(0).random((4, 5)), np.eye(3)[[0, 1, 2, 0]]

    def follow(unit, **more):
        pieces = [(8.0 * unit, None), (4.0 * unit, Nudge(6.0 / unit, target))]
        return simulate(in_unit(network, unit), images, pieces, save=0.5 * unit, **settings, **more)

    here = follow(1.0)
    for unit in (2.0**-10, 2.0**7):
        there = follow(unit)
        np.testing.assert_array_equal(there.times, unit * here.times)
        for a, b in zip(there.states, here.states, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(there.residual, here.residual, rtol=1e-6)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="takes minutes as plain Python")
@pytest.mark.parametrize("save", [None, 0.01])
@pytest.mark.parametrize(("r", "beta"), [(0.01, 1.0), (1.0, 200.0)])
def test_the_default_step_follows_fast_units_and_strong_nudges(r, beta, save):
    network = in_unit(loop_network([5, 7, 3], rng=3, loop_scale=0.2, dtype=np.float64), r)
    images, nudge = np.random.default_rng(0).random((4, 5)), Nudge(beta, np.eye(3)[[0, 1, 2, 0]])
    path = simulate(network, images, [(2.0, None), (20.0 * r, nudge)], save=save, start=relax(network, images))
    last = np.flatnonzero(path.phase == 0)[-1]
    for index, phase in ((last, None), (-1, nudge)):
        for s, known in zip(path.states, relax(network, images, nudge=phase).state, strict=True):
            np.testing.assert_allclose(s[index], known, atol=1e-6)


def test_more_steps_than_allowed_are_refused_or_told_of():
    images = np.full((3, 4), 0.5)
    for kind, settings in (("hard_sigmoid", {}), ("logistic", {"solver": ReferenceSolver("rk4", dt=0.1)})):
        network = loop_network([4, 5, 3], rng=0, rho=kind)
        with pytest.raises(ConfigurationError, match=r"e\+1[01] steps of dt = .* expected at most max_steps = 10,000"):
            simulate(network, images, [(1e12, None)], **settings)
    with pytest.raises(ConfigurationError, match="max_steps = 7"):
        simulate(network, images, [(10.0, None)], solver="rk4", max_steps=7, save=5.0)
    for solver in (NumbaSolver(max_steps=200), ReferenceSolver(max_steps=200)):
        with pytest.warns(UserWarning, match="3 of 3 samples needed more than 200 steps between two of the times"):
            path = simulate(network, images, [(1e6, None)], solver=solver, save=[1.0, 1e6])
        assert np.isfinite(path.states[0][1]).all()
        assert np.isnan(path.states[0][2]).all()


@pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="NumPy's products, which stand in, depend on the company to rounding"
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rho", ["hard_sigmoid", "logistic"])
def test_a_sample_has_the_same_bits_alone_and_in_company(rho, dtype):
    network = loop_network([37, 20, 15, 5], rng=0, rho=rho, loop_scale=0.3, dtype=dtype)
    images, nudge = np.random.default_rng(1).random((23, 37)), Nudge(0.5, np.eye(5)[np.arange(23) % 5])

    def follow(rows):
        return simulate(network, images[rows], [(2.0, None), (1.0, nudge.rows(rows))], save=0.5)

    whole = follow(slice(None))
    found = {solver: relax(network, images, nudge=nudge, solver=solver) for solver in ("numba_ode", "fixed_point")}
    for rows in (slice(4, 5), slice(0, 1), slice(7, 19)):
        part = follow(rows)
        for a, b in zip((*part.states, part.residual), (*whole.states, whole.residual), strict=True):
            np.testing.assert_array_equal(a, b[:, rows])
        for solver, them in found.items():
            if solver == "fixed_point" and rho == "logistic":
                continue  # its passes are products of the whole batch
            own = relax(network, images[rows], nudge=nudge.rows(rows), solver=solver)
            for a, b in zip(
                (*own.state, own.residual, own.steps), (*them.state, them.residual, them.steps), strict=True
            ):
                np.testing.assert_array_equal(a, b[rows])
