"""The compiled integrator: the reference's path, samples on their own, the same bits in any
company and on any number of threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numba
import numpy as np
import oracles
import problems
import pytest
from problems import problem

from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.kernels.panels import to_panels
from fsp_dynamics.kernels.relax import integrator
from fsp_dynamics.models.activations import Activation
from fsp_dynamics.models.builders import loop_network
from fsp_dynamics.models.rate import Nudge, drive, flatten, zero_state
from fsp_dynamics.solvers.equilibrium import Integrator, Status, Tolerance
from fsp_dynamics.solvers.numba_ode import TOGETHER, NumbaSolver, extended, fill_panels
from fsp_dynamics.solvers.reference import ReferenceSolver
from fsp_dynamics.solvers.tableaux import DOPRI5, TABLEAUX

CONTROLLED = [name for name, tableau in TABLEAUX.items() if tableau.error is not None]
COMPILED = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
BITS = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="NumPy's products, which stand in, depend on the company to rounding"
)


def random_start(p, seed=0, low=0.0, high=1.0):
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(low, high, s.shape).astype(s.dtype) for s in zero_state(p.network, p.batch))


def test_it_is_an_integrator():
    assert isinstance(NumbaSolver(), Integrator)


@pytest.mark.parametrize("form", ["projected", "rate"])
@pytest.mark.parametrize("method", TABLEAUX)
@pytest.mark.parametrize("name", ["saturated", "time-constants", "tied", "untied", "logistic", "deep"])
def test_fifty_constant_steps_are_those_of_the_reference(name, method, form, dtype):
    p = problem(name, dtype)
    start = random_start(p, low=-0.3, high=1.3)
    times = [0, 3.7]  # 50 equal steps of 0.074
    for phase in problems.PHASES:
        path, expected = (
            kind(method, dt=0.075, form=form).follow(p.network, p.drive, start, p.nudges[phase], times)
            for kind in (NumbaSolver, ReferenceSolver)
        )
        np.testing.assert_allclose(path[1], expected[1], rtol=0, atol=3e-6 if dtype == np.float32 else 1e-14 * 50)


@pytest.mark.parametrize("method", CONTROLLED)
def test_controlled_steps_are_those_of_the_reference(method):
    p = problem("strong")
    tolerance = Tolerance(1e-6)
    mine, reference = (
        kind(method).relax(p.network, p.drive, None, p.nudges["nudged"], tolerance)
        for kind in (NumbaSolver, ReferenceSolver)
    )
    assert np.abs(mine.steps - reference.steps).max() <= 2
    np.testing.assert_allclose(flatten(mine.state), flatten(reference.state), atol=2e-6)


@pytest.mark.parametrize("absolute", [1e-2, 1e-5, 1e-8, 1e-11])
def test_the_residual_does_not_stall_at_the_limit_of_stability(absolute):
    """Modes -1 +- 10 i: stable steps are far shorter than a time constant, and only the error
    estimate shows it.
    """
    p = problems.ring(2, 100.0)
    found = NumbaSolver().relax(p.network, p.drive, None, None, Tolerance(absolute)).require_converged()
    assert found.steps.max() < 400


@BITS
@pytest.mark.parametrize(
    "settings", [{}, {"method": "bosh3"}, {"method": "euler", "dt": 0.1}, {"method": "rk4", "dt": 0.2, "form": "rate"}]
)
def test_a_sample_alone_has_the_bits_it_has_in_company(settings, dtype):
    p, solver = problem("strong", dtype), NumbaSolver(**settings)
    nudge, start = p.nudges["nudged"], random_start(p)
    together = solver.relax(p.network, p.drive, start, nudge)
    for i in range(p.batch):
        rows = slice(i, i + 1)
        alone = solver.relax(p.network, p.drive[rows], tuple(s[rows] for s in start), nudge.rows(rows))
        np.testing.assert_array_equal(flatten(alone.state)[0], flatten(together.state)[i])
        assert (alone.residual[0], alone.steps[0], alone.status[0]) == (
            together.residual[i],
            together.steps[i],
            together.status[i],
        )
    assert len(set(together.steps)) > 1 or settings.get("dt"), "each sample has a clock of its own"


THREADED = """
import hashlib, json, numpy as np
from fsp_dynamics.kernels.thread_number import threads
from fsp_dynamics.models.builders import loop_network
from fsp_dynamics.models.rate import drive
from fsp_dynamics.solvers.numba_ode import NumbaSolver

found = {}
for rho in ("hard_sigmoid", "logistic"):
    network = loop_network([20, 80, 60, 5], rho=rho, dtype=np.float64, rng=0)
    inputs = drive(network, np.random.default_rng(1).random((131, 20)))
    for steps in ("sample", "batch"):
        for count in (1, 2, 4, 8):
            with threads(count):
                solver = NumbaSolver(steps=steps)
                e = solver.relax(network, inputs)
                path = solver.follow(network, inputs, tuple(0.3 * s for s in e.state), None, [0.0, 0.7, 3.0])
            bits = b"".join(a.tobytes() for a in (*e.state, e.residual, e.steps, path))
            found.setdefault(f"{rho} {steps}", []).append(hashlib.sha256(bits).hexdigest())
print(json.dumps(found))
"""


def run(script, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@COMPILED
def test_the_bits_do_not_depend_on_the_number_of_threads():
    found = run(THREADED, NUMBA_NUM_THREADS="8")
    assert len(found) == 4
    assert {name: len(set(bits)) for name, bits in found.items()} == dict.fromkeys(found, 1)


CACHED = """
import json, sys, time
import numpy as np
from fsp_dynamics.kernels.panels import to_panels
from fsp_dynamics.kernels.relax import integrator
from fsp_dynamics.models.activations import ACTIVATIONS
from fsp_dynamics.models.builders import loop_network, reciprocal_network
from fsp_dynamics.models.rate import drive
from fsp_dynamics.solvers.numba_ode import NumbaSolver

answers, stats, begin = {}, {}, time.perf_counter()
for rho in sys.argv[1:]:
    for network in (loop_network([3, 4, 2], rho=rho, rng=0), reciprocal_network([3, 4, 5, 2], rho=rho, rng=0)):
        found = NumbaSolver().relax(network, drive(network, np.ones((1, 3), np.float32)))
        answers.setdefault(rho, []).extend([found.steps.tolist(), found.state[0].tolist()])
    kernel = integrator(ACTIVATIONS[rho].rate, ACTIVATIONS[rho].slope)
    stats[rho] = [sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())]
print(json.dumps({"answers": answers, "stats": stats, "seconds": time.perf_counter() - begin}))
"""


@COMPILED
@pytest.mark.slow
@pytest.mark.rare
def test_one_compilation_for_every_topology_is_kept_on_disk_for_each_activation(tmp_path):
    """Compiled by two processes, loaded together by a third: machine code of the same name must
    not be mixed up.
    """
    names = ("hard_sigmoid", "logistic")
    first = {rho: run(CACHED, rho, NUMBA_CACHE_DIR=str(tmp_path)) for rho in names}
    both = run(CACHED, *names, NUMBA_CACHE_DIR=str(tmp_path))
    assert [first[rho]["stats"] for rho in names] == [{rho: [0, 1]} for rho in names]
    assert both["stats"] == {rho: [1, 0] for rho in names}
    assert both["answers"] == {rho: first[rho]["answers"][rho] for rho in names}
    assert both["seconds"] < min(first[rho]["seconds"] for rho in names) / 2


@pytest.mark.parametrize("form", ["projected", "rate"])
def test_a_start_at_rest_is_left_alone_and_the_others_go_on(form, dtype):
    p, solver = problem("saturated", dtype), NumbaSolver(form=form)
    rest = solver.relax(p.network, p.drive)
    again = solver.relax(p.network, p.drive, rest.state)
    assert again.steps.tolist() == [0] * p.batch
    np.testing.assert_array_equal(flatten(again.state), flatten(rest.state))
    mixed = tuple(s.copy() for s in rest.state)
    mixed[0][2] += 0.1
    assert (solver.relax(p.network, p.drive, mixed).steps > 0).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("settings", [{}, {"method": "euler", "dt": 0.1}])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_reported_and_affects_no_other(settings, bad, dtype):
    p, solver = problem("strong", dtype), NumbaSolver(**settings)
    start = random_start(p)
    well = solver.relax(p.network, p.drive, start)
    start[1][1, 2] = bad
    found = solver.relax(p.network, p.drive, start)
    assert found.status.tolist() == [Status.CONVERGED, Status.NOT_FINITE, Status.CONVERGED, Status.CONVERGED]
    assert found.steps[1] == 0
    atol = (1e-5 if dtype == np.float32 else 1e-12) if numba.config.DISABLE_JIT else 0
    np.testing.assert_allclose(
        np.delete(flatten(found.state), 1, 0), np.delete(flatten(well.state), 1, 0), rtol=0, atol=atol
    )


def test_an_unstable_step_ends_as_not_finite_or_out_of_steps():
    p = problem("interior")
    assert set(NumbaSolver("euler", dt=3.0, form="rate").relax(p.network, p.drive).status) == {Status.NOT_FINITE}
    bounded = NumbaSolver("euler", dt=3.0, max_steps=200).relax(p.network, p.drive)
    assert set(bounded.status) == {Status.OUT_OF_STEPS}
    assert bounded.steps.tolist() == [200] * p.batch


def test_a_ring_that_oscillates_is_reported():
    p = problems.ring(3, 20.0)
    start = tuple(np.linspace(0.2, 0.4, p.batch)[:, None] + k / 10 for k in range(3))
    found = NumbaSolver(max_steps=500).relax(p.network, p.drive, start)
    assert set(found.status) == {Status.OSCILLATES}
    assert found.steps.tolist() == [500] * p.batch
    assert found.residual.min() > 1e-2
    np.testing.assert_allclose(found.residual, oracles.residual(p.network, p.images, found.state), rtol=1e-12)


@pytest.mark.parametrize("phase", problems.PHASES)
@pytest.mark.parametrize("method", ["dopri5"] if numba.config.DISABLE_JIT else CONTROLLED)
def test_the_controlled_path_is_the_exact_one(method, phase):
    p = problem("interior")
    start = tuple(np.full_like(s, 0.45) for s in zero_state(p.network, p.batch))
    times = np.array([2.0, 2.3, 2.30001, 4.0, 11.0])
    path = NumbaSolver(method, max_steps=10**6).follow(p.network, p.drive, start, p.nudges[phase], times)
    np.testing.assert_allclose(
        path, oracles.interior_path(p.network, p.images, start, times - 2.0, p.nudges[phase]), atol=2e-7
    )


def test_constant_steps_land_on_the_times():
    p = problem("interior")
    start = random_start(p, low=0.4, high=0.5)
    times = np.array([0.0, 0.05, 0.33, 1.0, 1.7])
    path = NumbaSolver("rk4", dt=0.1).follow(p.network, p.drive, start, None, times)
    assert path.shape == (5, p.batch, sum(p.network.sizes[1:]))
    np.testing.assert_array_equal(path[0], flatten(start))
    np.testing.assert_allclose(path, oracles.interior_path(p.network, p.images, start, times), atol=1e-6)
    np.testing.assert_array_equal(
        NumbaSolver().follow(p.network, p.drive, start, None, times[:1]), flatten(start)[None]
    )


def test_a_path_that_ends_early_is_nan_from_there_on():
    p = problem("strong")
    path = NumbaSolver(max_steps=12).follow(p.network, p.drive, random_start(p), None, [0.0, 1e-3, 9.0, 9.1])
    assert np.isfinite(path[:2]).all()
    assert np.isnan(path[2:]).all()
    bad = p.drive.copy()
    bad[2] = np.nan
    path = NumbaSolver().follow(p.network, bad, random_start(p), None, [0.0, 1.0, 2.0])
    assert np.isnan(path[1:, 2]).all()
    assert np.isfinite(path[:, [0, 1, 3]]).all()


def test_a_path_in_pieces_is_the_path(dtype):
    p = problem("tied", dtype)
    whole = NumbaSolver().follow(p.network, p.drive, random_start(p), p.nudges["nudged"], [0, 3])
    pieces = NumbaSolver().follow(p.network, p.drive, random_start(p), p.nudges["nudged"], np.linspace(0, 3, 50))
    np.testing.assert_allclose(pieces[-1], whole[-1], atol=2e-5 if dtype == np.float32 else 1e-6)


def bright_and_faint(p, batch, seed=0):
    """The drive of so many images that take unequal numbers of steps."""
    rng = np.random.default_rng(seed)
    return drive(
        p.network, (rng.random((batch, p.network.sizes[0])) * rng.uniform(0, 4, (batch, 1))).astype(p.network.dtype)
    )


@BITS
@pytest.mark.parametrize(
    "settings", [{}, {"rtol": 1e-4}, {"method": "heun", "rtol": 1e-3}, {"method": "rk4", "dt": 0.5}]
)
@pytest.mark.parametrize("name", ["shifted_tanh", "tied"])
def test_a_path_alone_has_the_bits_it_has_in_company(name, settings, dtype):
    """More samples than step together, so that some wait for others to arrive."""
    p, solver, times = problem(name, dtype), NumbaSolver(**settings), [0.0, 0.4, 2.0, 2.1]
    inputs = bright_and_faint(p, 2 * TOGETHER + 7)
    together = solver.integrate(p.network, inputs, zero_state(p.network, len(inputs)), None, times)
    for i in range(0, len(inputs), 3):
        alone = solver.integrate(p.network, inputs[i : i + 1], zero_state(p.network, 1), None, times)
        np.testing.assert_array_equal(alone.states[:, 0], together.states[:, i])
        assert (alone.steps[0], alone.fields[0]) == (together.steps[i], together.fields[i])
    assert len(set(together.steps)) > 1 or settings.get("dt"), "each sample has a clock of its own"


@pytest.mark.parametrize("steps", ["sample", "batch"])
@pytest.mark.parametrize("method", ["dopri5"] if numba.config.DISABLE_JIT else CONTROLLED)
@pytest.mark.parametrize("name", ["logistic", "shifted_tanh", "strong"])
def test_a_path_is_as_exact_as_asked_also_between_steps(name, method, steps):
    """Against the reference at 1e-10, with more saved times than steps; a looser path takes fewer
    steps and is less exact.
    """
    p, times = problem(name), np.linspace(0, 4, 23)
    start = random_start(p)
    exact = ReferenceSolver(rtol=1e-10).follow(p.network, p.drive, start, p.nudges["nudged"], times)
    errors, taken = [], []
    for rtol in (1e-3, 1e-6):
        found = NumbaSolver(method, rtol=rtol, steps=steps, max_steps=10**6).integrate(
            p.network, p.drive, start, p.nudges["nudged"], times
        )
        errors.append(np.abs(found.states - exact).max())
        taken.append(found.steps.max())
        assert errors[-1] < (300 if p.network.rho.projected else 30) * rtol, (
            "at kinks an estimate of high order sees less"
        )
    assert errors[0] > errors[1]
    assert taken[0] < taken[1]
    assert taken[0] < 22 or method == "heun" or p.network.rho.projected, "a smooth path does not land on every time"


def test_one_step_for_the_batch_is_decided_by_the_mean_of_all():
    p = problem("shifted_tanh")
    inputs = np.repeat(bright_and_faint(p, 1), 4, axis=0)
    equal, own = (
        NumbaSolver(steps=s).integrate(p.network, inputs, zero_state(p.network, 4), None, [0.0, 3.0])
        for s in ("batch", "sample")
    )
    np.testing.assert_array_equal(equal.states, own.states)
    inputs[1:] = bright_and_faint(p, 3, seed=3)
    mixed = NumbaSolver(steps="batch", rtol=1e-6).integrate(
        p.network, inputs, zero_state(p.network, 4), None, [0.0, 3.0]
    )
    own = NumbaSolver(rtol=1e-6).integrate(p.network, inputs, zero_state(p.network, 4), None, [0.0, 3.0])
    assert len(set(mixed.steps)) == 1
    assert own.steps.min() <= mixed.steps[0] <= own.steps.max() + 3
    np.testing.assert_allclose(mixed.states, own.states, atol=1e-5)
    alone = (NumbaSolver(steps=s).relax(p.network, inputs[:1]) for s in ("batch", "sample"))
    np.testing.assert_array_equal(*(flatten(e.state) for e in alone))


def test_the_batch_comes_to_rest_with_one_step_too():
    p = problem("strong")
    found = NumbaSolver(steps="batch").relax(p.network, p.drive, None, p.nudges["nudged"]).require_converged()
    np.testing.assert_allclose(flatten(found.state), flatten(p.known["nudged"]), atol=1e-11)
    assert len(set(found.steps)) > 1, "samples that have converged take no more steps"


def test_fields_are_counted():
    p, times = problem("logistic"), [0.0, 1.0, 1.5]
    for method, steps in (("euler", 15), ("rk4", 15), ("dopri5", 15)):
        found = NumbaSolver(method, dt=0.1).integrate(p.network, p.drive, zero_state(p.network, p.batch), None, times)
        stages = len(TABLEAUX[method].b) - TABLEAUX[method].fsal
        assert found.steps.tolist() == [steps] * p.batch
        assert found.fields.tolist() == [1 + stages * steps] * p.batch
    still = NumbaSolver().integrate(p.network, p.drive, zero_state(p.network, p.batch), None, times[:1])
    assert (still.steps.tolist(), still.fields.tolist()) == ([0] * p.batch, [0] * p.batch)


@pytest.mark.parametrize("shape", [(5, 3), (4, 16), (3, 17), (1, 40)])
def test_matrices_are_laid_into_panels_in_place(shape, dtype):
    matrix = np.random.default_rng(0).normal(size=shape).astype(dtype)
    for given in (matrix, np.asfortranarray(matrix)):
        panels = np.full_like(to_panels(matrix), np.nan)
        fill_panels(given, panels)
        np.testing.assert_array_equal(panels, to_panels(matrix))


def test_the_middle_of_a_step_is_that_of_the_dense_output_in_scipy():
    from scipy.integrate import RK45

    half = RK45.P @ np.array([0.5, 0.25, 0.125, 0.0625])
    np.testing.assert_allclose(DOPRI5.middle, half, atol=1e-15)
    assert sum(extended(TABLEAUX["bosh3"], True)[2]) == pytest.approx(0.5)


def test_inputs_may_be_read_only_and_in_any_order_without_a_new_compilation(dtype):
    p = problem("untied", dtype)
    start, nudge = random_start(p), p.nudges["nudged"]
    plain = NumbaSolver().relax(p.network, p.drive, start, nudge)
    kernel = integrator(p.network.rho.rate, p.network.rho.slope)
    compiled = list(getattr(kernel, "signatures", []))
    arrays = {n: np.asfortranarray(w) for n, w in p.network.parameters().items()}
    start = tuple(np.asfortranarray(s) for s in start)
    for array in (*arrays.values(), *start):
        array.flags.writeable = False
    found = NumbaSolver().relax(p.network.with_parameters(arrays), np.asfortranarray(p.drive), start, nudge)
    np.testing.assert_array_equal(flatten(found.state), flatten(plain.state))
    assert list(getattr(kernel, "signatures", [])) == compiled


def test_an_empty_batch_is_an_empty_answer():
    p = problem("interior")
    found = NumbaSolver().relax(p.network, p.drive[:0])
    assert [s.shape for s in found.state] == [(0, n) for n in p.network.sizes[1:]]
    assert found.require_converged() is found
    assert NumbaSolver().follow(p.network, p.drive[:0], found.state, None, [0.0, 1.0]).shape == (2, 0, 13)


def test_an_activation_of_ones_own():
    rho = Activation("square", lambda s: s * s / (1 + s * s), lambda s: 2 * s / (1 + s * s) ** 2)
    network = loop_network([3, 5, 4, 2], rho=rho, dtype=np.float64, rng=1)
    inputs = drive(network, np.random.default_rng(0).random((2, 3)))
    start = tuple(np.full((2, n), 0.5) for n in network.sizes[1:])
    mine, reference = (
        kind().relax(network, inputs, start).require_converged() for kind in (NumbaSolver, ReferenceSolver)
    )
    np.testing.assert_allclose(flatten(mine.state), flatten(reference.state), atol=1e-11)
    assert integrator(rho.rate, rho.slope) is integrator(rho.rate, rho.slope)


@COMPILED
def test_an_activation_that_cannot_be_compiled_is_refused():
    rho = Activation("listed", lambda s: [s].pop(), lambda s: {"one": 1.0}.get("one", object()))
    network = loop_network([2, 3, 2], rho=rho, rng=0)
    with pytest.raises(ConfigurationError, match="rho = 'listed' cannot be compiled"):
        NumbaSolver().relax(network, np.zeros((1, 3), np.float32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "rk5"}, "did you mean 'rk4'"),
        ({"method": "euler"}, "give dt"),
        ({"dt": 0.0}, "dt = 0.0"),
        ({"dt": -1.0}, "dt = -1.0"),
        ({"max_steps": 0}, "max_steps = 0"),
        ({"max_steps": 2.5}, "max_steps = 2.5"),
        ({"form": "rat"}, "did you mean 'rate'"),
        ({"steps": "samples"}, "did you mean 'sample'"),
        ({"rtol": -1.0}, "rtol = -1.0, expected a finite number, 0 or more"),
        ({"atol": np.inf}, "atol = inf"),
        ({"rtol": "small"}, "rtol = 'small'"),
        ({"rtol": 0.0}, "rtol = 0.0 with atol = None allows no error at all"),
        ({"rtol": 1e-3, "method": "rk4", "dt": 0.1}, "rtol = 0.001 with dt = 0.1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        NumbaSolver(**settings)


@pytest.mark.parametrize("kind", [NumbaSolver, ReferenceSolver])
def test_a_tolerance_below_rounding_is_refused_where_the_precision_is_known(kind):
    p = problem("interior", np.float32)
    with pytest.raises(
        ConfigurationError,
        match=r"rtol = 1e-08 with atol = 1e-08 is below the rounding of float32, expected at least 2e-07",
    ):
        kind(rtol=1e-8).follow(p.network, p.drive, zero_state(p.network, p.batch), None, [0.0, 1.0])


def test_unusable_input_is_refused():
    p, solver = problem("interior"), NumbaSolver()
    with pytest.raises(ShapeError):
        solver.relax(p.network, p.drive[:, 1:])
    with pytest.raises(ConfigurationError, match="beta"):
        solver.relax(p.network, p.drive, None, Nudge(-1.0, p.nudges["nudged"].target))
    for times in ([0.0, 0.0], [1.0, 0.5], [0.0, np.nan], []):
        with pytest.raises(ConfigurationError, match="times"):
            solver.follow(p.network, p.drive, zero_state(p.network, p.batch), None, times)
