"""Every record can be drawn, into a figure of its own or into axes that are given, and its table,
saved as CSV, holds what is drawn.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas
import pytest
from pictures import assert_legible, drawn, texts
from problems import problem

from fsp_dynamics.analysis.alignment import Alignment, SampleAlignment, loop_alignment, sample_alignment
from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.learning.simulation import simulate
from fsp_dynamics.models.builders import loop_network
from fsp_dynamics.plotting import new_figure, plot_run
from fsp_dynamics.solvers import relax
from fsp_dynamics.solvers.equilibrium import Status


@pytest.fixture(scope="module")
def network():
    return loop_network([9, 12, 8, 4], loop_scale=0.5, rng=2)


@pytest.fixture(scope="module")
def equilibrium(network):
    return relax(network, np.random.default_rng(0).random((10, 9)))


@pytest.fixture(scope="module")
def mixed(equilibrium):
    """The same batch with a residual of 0 (sample 1), two samples out of steps (2, 5), two not
    finite (7 and 8), and a state below 0 (sample 4).
    """
    residual, status, state = (
        np.geomspace(1e-7, 1e-5, 10, dtype=np.float32),
        equilibrium.status.copy(),
        tuple(s.copy() for s in equilibrium.state),
    )
    residual[[1, 2, 5, 7, 8]] = 0, 0.5, 1e-2, np.nan, np.inf
    status[[1, 2, 5, 7, 8]] = 0, *[Status.OUT_OF_STEPS] * 2, *[Status.NOT_FINITE] * 2
    for s in state:
        s[7] = np.nan
    state[-1][4, 1] = -0.3
    return dataclasses.replace(equilibrium, residual=residual, status=status, state=state, beta=0.5)


@pytest.fixture(scope="module")
def path():
    p = problem("strong", np.float32)
    return simulate(p.network, p.images, [(6.0, None), (4.0, p.nudges["nudged"])], save=0.1)


@pytest.fixture(scope="module")
def angles(network):
    return loop_alignment(network)


@pytest.fixture(scope="module")
def sampled():
    """The angles of a batch in a network without kinks; sample 3 has none."""
    network = loop_network([9, 12, 8, 4], rho="logistic", rng=2)
    found = sample_alignment(network, relax(network, np.random.default_rng(0).random((10, 9))))
    return SampleAlignment(
        {name: np.where(np.arange(10) == 3, np.nan, values) for name, values in found.degrees.items()}
    )


@pytest.fixture
def saved(tmp_path):
    """saved(frame) -> what another program reads from its CSV file."""

    def read(frame):
        frame.to_csv(tmp_path / "table.csv", index=False)
        return pandas.read_csv(tmp_path / "table.csv")

    return read


def points(ax):
    """{label up to its count: (x, y) of its points}."""
    return {label.split(" (")[0]: np.array(data, float) for label, data in drawn(ax).items()}


# Tables and pictures


def test_the_table_of_a_trajectory_is_what_is_drawn(path, saved):
    table = saved(path.to_frame())
    rates, settling = path.plot(sample=2).axes
    for unit, (times, values) in drawn(rates).items():
        own = table.query(f"sample == 2 and unit == {unit}")
        np.testing.assert_array_equal(own.time, times)
        np.testing.assert_array_equal(own.rate.astype(np.float32), values)
    lines = [line for line in settling.lines if len(line.get_xdata()) == len(path.times)]
    residual = (
        table.drop_duplicates(["time", "sample"])
        .pivot(index="sample", columns="time", values="residual")
        .astype(np.float32)
    )
    assert {tuple(line.get_ydata()) for line in lines} == {tuple(values) for values in residual.to_numpy()}
    assert table.phase.tolist() == np.repeat(path.labels, 4 * 3).tolist()
    assert set(table.beta) == {0.0, 0.7}


def test_hidden_layers_are_in_the_table_when_asked_for(path, saved):
    table = saved(path.to_frame(hidden=True))
    assert list(table.layer.unique()) == [*(f"hidden_{k + 1}" for k in range(len(path.states) - 1)), "output"]
    for name, states, rates in zip(table.layer.unique(), path.states, path.rates, strict=True):
        own = table[table.layer == name]
        np.testing.assert_array_equal(own.state.to_numpy(np.float32).reshape(states.shape), states)
        np.testing.assert_array_equal(own.rate.to_numpy(np.float32).reshape(states.shape), rates)
    assert set(path.to_frame().layer) == {"output"}


def test_the_table_of_an_equilibrium_is_what_is_drawn(mixed, saved):
    table = saved(mixed.to_frame())
    residuals, outputs = mixed.plot().axes[:2]
    own = table.drop_duplicates("sample").set_index("sample")
    shown = points(residuals)
    assert list(shown) == ["converged", "out of steps", "not finite, above", "residual 0, below"]
    for ended in ("converged", "out of steps"):
        (samples, values), expected = shown[ended], own[(own.status == ended) & (own.residual > 0)]
        np.testing.assert_array_equal(samples, expected.index)
        np.testing.assert_array_equal(values.astype(np.float32), expected.residual.astype(np.float32))
    assert shown["not finite, above"].tolist() == [[7, 8], [1, 1]]
    assert shown["residual 0, below"].tolist() == [[1], [0]]
    assert own.status[7] == "not finite"
    assert set(table.beta) == {0.5}
    picture = outputs.images[0].get_array().filled(np.nan)
    np.testing.assert_array_equal(
        picture, table.pivot(index="unit", columns="sample", values="state").astype(np.float32)
    )
    np.testing.assert_array_equal(own.steps, mixed.steps)


def test_the_table_of_one_sample_is_what_is_drawn(equilibrium, saved):
    table = saved(equilibrium.to_frame(hidden=True)).query("sample == 6")
    output, layers = equilibrium.plot(sample=6).axes
    bars = [bar.get_height() for bar in output.patches]
    np.testing.assert_array_equal(bars, table[table.layer == "output"].state.to_numpy(np.float32))
    shown = points(layers)
    assert list(shown) == ["hidden 1", "hidden 2", "output"]
    for name, (share, states) in shown.items():
        own = table[table.layer == name.replace(" ", "_")].state.to_numpy(np.float32)
        np.testing.assert_array_equal(states, np.sort(own))
        np.testing.assert_allclose(share, (np.arange(len(own)) + 0.5) / len(own))


def test_the_table_of_an_alignment_is_what_is_drawn(angles, saved):
    table = saved(angles.to_frame()).set_index("matrix")
    (ax,) = angles.plot().axes
    shown = points(ax)
    for name in ("raw", "bound", "inside"):
        np.testing.assert_array_equal(shown[name], [table[f"{name}_degrees"], [0, 1, 2]])
    assert (
        [label.get_text().split(":")[0] for label in ax.get_yticklabels()] == list(table.index) == ["W1", "W2", "loop"]
    )
    reach = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    np.testing.assert_allclose(
        reach, [*((0, b) for b in table.bound_degrees), *((180 - b, 180) for b in table.bound_degrees)]
    )
    assert set(table.trace) == {angles.trace}
    assert table.z_score.to_dict() == angles.z_score
    assert any(np.array_equal(line.get_xdata(), [90, 90]) for line in ax.lines)


def test_the_table_of_angles_by_sample_is_what_is_drawn(sampled, saved):
    table = saved(sampled.to_frame())
    (ax,) = sampled.plot().axes
    clouds = [line for line in ax.lines if len(line.get_xdata()) == 10]
    for line, (name, own) in zip(clouds, table.groupby("matrix", sort=False), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), own.degrees)
        assert own["sample"].tolist() == list(range(10))
        container = ax.containers[list(sampled.degrees).index(name)]
        assert container[0].get_xdata()[0] == pytest.approx(own.degrees.mean())
        ((left, _), (right, _)) = container[2][0].get_segments()[0]
        assert (right - left) / 2 == pytest.approx(own.degrees.std(ddof=0))
    assert all(label.get_text().endswith("\n1 undefined") for label in ax.get_yticklabels())
    assert all(abs(y - round(y)) < 0.3 for line in clouds for y in line.get_ydata())


def test_units_are_named(path, equilibrium):
    assert path.to_frame().attrs["units"]["time"] == "time unit of the time constants r"
    assert path.to_frame().attrs["units"]["residual"] == equilibrium.to_frame().attrs["units"]["residual"] == "1"


# What is written in them


def test_the_legend_counts_how_samples_ended(equilibrium, mixed):
    def written(figure):
        return [text for text, _ in texts(figure)]

    assert "free: 10 of 10 samples converged" in written(equilibrium.plot())
    assert {"nudged, β = 0.5: 6 of 10 samples converged", "converged (5)", "out of steps (2)"} <= set(
        written(mixed.plot())
    )
    assert "state\n(grey: not finite)" in written(mixed.plot())
    assert "state" in written(equilibrium.plot())
    assert any(
        text.startswith("nudged, β = 0.5, sample 5: out of steps, residual 0.01 after ")
        for text in written(mixed.plot(sample=5))
    )
    assert any("not finite, residual nan" in text for text in written(mixed.plot(sample=7)))


def test_colours_span_all_states(equilibrium, mixed):
    assert equilibrium.plot().axes[1].images[0].get_clim() == (0, 1)
    assert mixed.plot().axes[1].images[0].get_clim() == (pytest.approx(-0.3), 1)


def test_a_matrix_without_an_angle_is_named(angles, sampled):
    nan = float("nan")
    given = {field.name: getattr(angles, field.name) for field in dataclasses.fields(Alignment)}
    bare = Alignment(**given | {key: given[key] | {"W1": nan} for key in ("degrees", "bound", "inside", "z_score")})
    assert bare.plot().axes[0].get_yticklabels()[0].get_text().startswith("W1: no angle")
    empty = SampleAlignment({name: np.full(10, nan) for name in sampled.degrees})
    assert empty.plot().axes[0].get_yticklabels()[0].get_text().startswith("W1: no angle")


def test_nothing_written_overlaps(equilibrium, mixed, angles, sampled):
    for figure in (
        equilibrium.plot(),
        mixed.plot(),
        equilibrium.plot(sample=0),
        mixed.plot(sample=7),
        angles.plot(),
        sampled.plot(),
    ):
        assert_legible(figure)


# Axes of one's own


def test_records_are_drawn_into_given_axes(equilibrium, angles, sampled):
    figure = new_figure(6, 6)
    upper, lower = figure.subplots(2, 1)
    for plot, one in (
        (equilibrium.plot, lambda ax: ax.get_yscale() == "log"),
        (lambda ax: equilibrium.plot(ax, sample=1), lambda ax: len(ax.patches) == 4),
        (angles.plot, lambda ax: ax.get_xlim() == (0, 180)),
        (sampled.plot, lambda ax: ax.get_xlim() == (0, 180)),
    ):
        upper.clear()
        assert plot(upper) is figure
        assert one(upper)
        assert not lower.has_data()
    assert equilibrium.plot([upper, lower]) is figure
    assert len(lower.images) == 1


@pytest.mark.parametrize("count", [0, 3])
def test_other_numbers_of_axes_are_refused(equilibrium, count):
    axes = list(new_figure(6, 6).subplots(3, 1))[:count]
    with pytest.raises(ShapeError, match=rf"ax has shape \({count},\), expected \(2,\)"):
        equilibrium.plot(axes)


def test_anything_but_axes_is_refused(equilibrium, angles):
    with pytest.raises(ConfigurationError, match=r"ax is str, expected matplotlib's Axes, at most 2 of them"):
        plot_run([{"epoch": 1}], "run.png")
    with pytest.raises(ConfigurationError, match=r"ax is StyledFigure, expected matplotlib's Axes, at most 1 of them"):
        angles.plot(new_figure(3, 3))


@pytest.mark.parametrize("sample", [-1, 10])
def test_a_sample_that_is_not_there_is_refused(equilibrium, sample):
    with pytest.raises(ConfigurationError, match=f"sample = {sample}, expected 0 to 9, or None"):
        equilibrium.plot(sample=sample)
