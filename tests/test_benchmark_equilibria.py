"""The census of false equilibria: none among the package's, and its own integration, which finds
those that are planted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import problems
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import root

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import equilibria, verdicts
from benchmarks.independent import assemble, integrate
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.models import rate
from fsp_dynamics.models.builders import reciprocal_network
from fsp_dynamics.solvers.equilibrium import Equilibrium, Status, Tolerance, judge

EACH_KIND = pytest.mark.parametrize("kind", equilibria.KINDS)


def case_of(problem, nudged="nudged"):
    nudge = problem.nudges[nudged]
    return SimpleNamespace(
        number=0, network=problem.network, images=problem.images[:1], beta=nudge.beta, target=nudge.target[:1]
    )


def of_ring(gamma, **options):
    """A ring of three units with loop gain -gamma, stable below 8, and its free equilibrium."""
    systems = assemble([case_of(problems.ring(3, gamma))], [False], **options)
    states = np.linalg.solve(np.diag(systems.kappa[0, 0]) - systems.W[0].T, systems.b[0, 0])[None]
    assert ((states > 0) & (states < 1)).all()
    return systems, states


def nothing_done(rows, s, f):
    return np.ones(s.shape[:2]), np.zeros(s.shape[:2], bool)


class Credulous:
    """A solver that calls every root of the field an equilibrium, whether the dynamics stay there
    or not.
    """

    def relax(self, network, drive, start=None, nudge=None, tolerance=None):
        start = rate.zero_state(network, len(drive)) if start is None else start

        def field(flat):
            return rate.flatten(rate.rate_field(network, drive, rate.layers(network, flat[None]), nudge))[0]

        found = rate.layers(network, root(field, rate.flatten(start)[0], tol=1e-14).x[None])
        residual = rate.residual(network, drive, found, nudge)
        status = judge(residual, np.ones(1), Tolerance(1e-10))
        return Equilibrium(found, residual, status, np.ones(1, int), rate.beta_of(nudge))


class GivesUp:
    """A solver that brings nothing to convergence, or reports a period."""

    def __init__(self, period=None):
        self.period = period

    def relax(self, network, drive, start=None, nudge=None, tolerance=None):
        batch = len(drive)
        state, status = rate.zero_state(network, batch), np.full(batch, Status.OUT_OF_STEPS, np.uint8)
        period = None if self.period is None else np.full(batch, self.period)
        return Equilibrium(state, np.ones(batch), status, np.ones(batch, int), rate.beta_of(nudge), period)


def of_the_kind(notes, *kinds):
    return [(note["number"], note["phase"], note["what"]) for note in notes if note["what"] in kinds]


@EACH_KIND
def test_the_dynamics_stay_where_the_package_says_converged(kind) -> None:
    samples = equilibria.solve_all(kind, range(40))
    assert len(samples) > 60
    assert of_the_kind(equilibria.check_converged(samples), "false") == []


@pytest.mark.rare
@EACH_KIND
def test_they_do_in_400_networks_and_what_oscillates_has_the_period_reported(kind) -> None:
    found = equilibria.chunk(kind, range(400))
    assert sum(found["status"].values()) > 600
    assert of_the_kind(found["notes"], "false", "period wrong") == []


@pytest.mark.parametrize("name", ["default", "numba_ode", "picard"])
def test_silence_is_left_even_where_few_perturbations_grow(name) -> None:
    """Without biases, layers above a silent one have an input of 0, and only perturbations of some
    directions grow: 1 in 3 to 1 in 30 of random ones.
    """
    numbers = {"tied": (83, 4982, 7986), "untied": (7, 127, 1096), "negative beta": (344, 2167)}
    samples = [s for kind in numbers for s in equilibria.solve_all(kind, numbers[kind], name)]
    assert len(samples) > 14
    assert of_the_kind(equilibria.check_converged(samples), "false") == []


def test_a_solver_that_calls_every_root_converged_is_found_out() -> None:
    samples = equilibria.solve_all("untied", range(32), solver=Credulous())
    false = [note for note in equilibria.check_converged(samples) if note["what"] == "false"]
    assert len(false) >= 3
    assert all(note["abscissa"] > 0 for note in false)


@pytest.mark.parametrize(
    ("gamma", "longest", "expected"),
    [(7.0, 10_000, verdicts.RETURNED), (9.0, 10_000, verdicts.LEFT), (8.0, 60, verdicts.MARGINAL)],
)
def test_a_ring_is_left_beyond_its_bound_and_no_earlier(monkeypatch, gamma, longest, expected) -> None:
    monkeypatch.setattr(verdicts, "LONGEST", longest)
    systems, states = of_ring(gamma)
    found = verdicts.perturbed(systems, states, [0])
    np.testing.assert_array_equal(found.after, expected)
    np.testing.assert_allclose(found.abscissa, gamma ** (1 / 3) / 2 - 1, atol=1e-9)
    kinds = [found.false[0], found.small_basin[0], found.marginal[0]]
    assert kinds == [expected == verdicts.LEFT, False, expected == verdicts.MARGINAL]


def silent_pair(threshold):
    """Two units that excite each other twice as strongly as they decay, and silence, which is
    stable as long as the rates stay below the threshold.
    """
    network = reciprocal_network([1, 1, 1], dtype=np.float64, rng=0)
    biases = {f"biases[{k}]": np.full(1, -threshold) for k in (0, 1)}
    network = network.with_parameters({"input": np.zeros((1, 1)), "forward[0]": np.full((1, 1), 2.0), **biases})
    case = SimpleNamespace(network=network, images=np.zeros((1, 1)), beta=1.0, target=np.zeros((1, 1)))
    return assemble([case], [False]), np.zeros((1, 2))


def test_a_basin_smaller_than_the_large_perturbation_is_told_apart() -> None:
    found = verdicts.perturbed(*silent_pair(2e-4), [0])
    np.testing.assert_array_equal(found.after[:, 0], [verdicts.LEFT, verdicts.RETURNED])
    assert (found.small_basin[0], found.false[0]) == (True, False)
    np.testing.assert_allclose(found.abscissa, -1)


def test_units_with_an_input_of_exactly_zero_can_wake() -> None:
    found = verdicts.perturbed(*silent_pair(0.0), [0])
    assert found.false[0]
    np.testing.assert_allclose(found.abscissa, 1)


@pytest.mark.parametrize("nudged", [False, True])
@pytest.mark.parametrize("kind", ["unequal r", "negative beta"])
def test_field_and_jacobian_are_those_of_eq_13(kind, nudged) -> None:
    """Beside the package's equation, and beside differences of the field."""
    for number in range(12):
        case = equilibria.draw(kind, number)
        network, nudge = case.network, case.nudge() if nudged else None
        systems = assemble([case], [nudged])
        s = np.random.default_rng(number).uniform(0.1, 0.9, (1, 1, sum(network.sizes[1:])))
        expected = rate.field(network, rate.drive(network, case.images), rate.layers(network, s[0]), nudge)
        np.testing.assert_allclose(systems.field(s)[0], rate.flatten(expected), atol=1e-11)
        if not systems.hard:
            step = 1e-6 * np.eye(s.shape[2])[None]
            slopes = (systems.field(s + step) - systems.field(s - step)) / 2e-6
            np.testing.assert_allclose(systems.jacobian(s[0])[0], slopes[0].T, rtol=1e-6, atol=1e-6)


def test_saturated_units_are_no_part_of_the_jacobian() -> None:
    """Masks come from the input at equilibrium, whatever rounding left in the state."""
    problem = problems.problem("saturated")
    systems = assemble([case_of(problem)], [False])
    s = np.concatenate(problem.known["free"], axis=1)[:1]
    expected = systems.jacobian(s)
    np.testing.assert_array_equal(systems.jacobian(np.where(s == 0, 1e-20, s)), expected)
    free = (s > 0) & (s < 1)
    assert 0 < free.sum() < s.size
    np.testing.assert_array_equal(expected[0][~free[0]], -np.diag(systems.kappa[0, 0])[~free[0]])


@pytest.mark.parametrize(("kind", "number"), [("unequal r", 0), ("unequal r", 1), ("hard loop", 4), ("tanh loop", 2)])
def test_paths_are_those_of_scipy(kind, number) -> None:
    case = equilibria.draw(kind, number)
    systems = assemble([case], [False], rate=True)
    start, width = np.full((1, 1, systems.W.shape[1]), 0.4), systems.W.shape[1]
    expected = solve_ivp(
        lambda t, s: systems.field(s[None, None])[0, 0], (0, 3), start[0, 0], rtol=1e-10, atol=1e-12, max_step=0.05
    )
    found = integrate(systems, start, np.full(1, 3.0), nothing_done, tolerance=1e-7)
    assert found.states.shape == (1, 1, width)
    np.testing.assert_allclose(found.states[0, 0], expected.y[:, -1], atol=1e-4)


def test_projected_paths_are_those_of_small_clipped_steps() -> None:
    case = equilibria.draw("hard loop", 4)
    systems = assemble([case], [True])
    s = np.full((1, 1, systems.W.shape[1]), 0.4)
    found = integrate(systems, s, np.full(1, 1.0), nothing_done, tolerance=1e-6)
    dt = 2e-5
    for _ in range(round(1 / dt)):
        a = s @ systems.W + systems.b
        s = np.clip(s + dt * (a - systems.kappa * s), 0, 1)
    np.testing.assert_allclose(found.states, s, atol=5e-3)


def test_periods_are_measured_and_a_wrong_one_is_seen() -> None:
    systems, states = of_ring(12.0, rate=True)
    still, ends = verdicts.settled(systems, states + 0.01)
    assert not still[0]
    path = solve_ivp(
        lambda t, s: systems.field(s[None, None])[0, 0],
        (0, 40),
        ends[0],
        rtol=1e-10,
        atol=1e-12,
        events=lambda t, s: s[0] - 0.5,
        max_step=0.05,
    )
    period = np.diff(path.t_events[0][::2]).mean()
    np.testing.assert_allclose(verdicts.periods(systems, ends, np.array([1.3 * period])), period, rtol=0.01)
    assert np.isnan(verdicts.periods(systems, ends, np.array([0.5 * period]))[0])

    problem = problems.ring(3, 12.0)
    for reported, expected in ((1.04 * period, "period right"), (1.07 * period, "period wrong")):
        network = problem.network
        found = GivesUp(reported).relax(network, np.zeros((1, 1)))
        sample = equilibria.Sample(case_of(problem), False, states[0] + 0.01, found)
        assert [note["what"] for note in equilibria.check_unconverged([sample])] == [expected]


def test_what_oscillates_fast_is_not_reported_with_a_multiple_of_its_period() -> None:
    numbers = {"hard loop": (285, 402), "untied": (229,)}
    samples = [s for kind in numbers for s in equilibria.solve_all(kind, numbers[kind]) if s.status == "oscillates"]
    notes = equilibria.check_unconverged(samples)
    assert sorted(note["number"] for note in notes) == [229, 285, 402]
    assert {note["what"] for note in notes} == {"period right"}


def test_samples_that_were_given_up_and_settle_are_counted() -> None:
    found = equilibria.solve_all("tied", range(6), solver=GivesUp())
    assert len(found) == 6
    assert [note["what"] for note in equilibria.check_unconverged(found)] == ["settles"] * 6


def test_a_census_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(equilibria, "CHUNK", 3)
    command = ["--networks", "7", "--kinds", "tied", "hard loop", "--out"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert equilibria.main([*command, str(whole)]) == 0
    assert "tied: 7 of 7 networks" in capsys.readouterr().out
    computed, compute = [], equilibria.chunk

    def interrupted(kind, numbers, name):
        if computed == [("tied", 0), ("tied", 3)]:
            raise KeyboardInterrupt
        computed.append((kind, numbers.start))
        return compute(kind, numbers, name)

    monkeypatch.setattr(equilibria, "chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        equilibria.main([*command, str(broken)])
    computed += ["interrupted"]
    assert equilibria.main([*command, str(broken)]) == 0
    assert computed[3:] == [("tied", 6), ("hard loop", 0), ("hard loop", 3), ("hard loop", 6)]
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (whole, broken))
    for summary in (first, second):
        for kind in summary["kinds"].values():
            assert set(kind.pop("seconds")) == {"package", "converged", "unconverged"}
    assert first == second
    assert first["kinds"]["tied"]["counts"]["converged"] == 14


def test_results_of_other_solvers_or_sources_are_not_mixed(tmp_path, monkeypatch) -> None:
    equilibria.Folder(tmp_path, "default")
    with pytest.raises(SystemExit, match=r"settings.json: solver = default, and now picard; .* another --out"):
        equilibria.Folder(tmp_path, "picard")
    monkeypatch.setattr(equilibria, "sources", lambda: "other")
    with pytest.raises(SystemExit, match=r"sources = .*, and now other"):
        equilibria.Folder(tmp_path, "default")


@pytest.mark.parametrize("name", ["picard", "newton", "broyden", "numba_ode", "reference"])
def test_every_solver_can_be_examined(name) -> None:
    found = equilibria.chunk("hard loop", range(2), name)
    assert found["status"]["converged"] >= 2
    others = equilibria.chunk("tied", range(1), name)["status"]
    assert (others == {}) == (name in ("newton", "broyden"))


def test_a_network_is_always_the_same_and_an_error_names_it() -> None:
    one, same, other = (equilibria.draw("untied", number) for number in (5, 5, 6))
    assert all(np.array_equal(w, same.network.parameters()[n]) for n, w in one.network.parameters().items())
    assert not np.array_equal(one.images, other.images)

    class Broken:
        def relax(self, *arguments):
            raise ConfigurationError("broken")

    with pytest.raises(ConfigurationError) as error:
        equilibria.solve(one, Broken())
    assert "network 5 of kind 'untied'" in error.value.__notes__[0]
