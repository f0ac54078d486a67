"""Figures show the numbers of their record with labels, and no text overlaps."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import assert_legible, drawn, texts
from PIL import Image
from problems import problem

from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.learning.simulation import simulate
from fsp_dynamics.plotting import figures, new_figure, plot_run, plot_trajectory, save_figure

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def path():
    p = problem("strong")
    return simulate(
        p.network,
        p.images,
        [(6.0, None), (4.0, p.nudges["nudged"]), (5.0, None), (0.1, p.nudges["negative"])],
        save=0.1,
    )


@pytest.fixture
def records():
    return [
        {
            "epoch": e,
            "train_error": 9.0 * 0.6**e,
            "valid_error": 3 + 5.0 * 0.6**e,
            "test_error": 3.1 + 5.0 * 0.6**e,
            "alignment_degrees": {"W1": 89 - e, "W2": 88 - 2.0 * e, "loop": 90 - 4.0 * e},
        }
        for e in range(1, 9)
    ]


def test_a_trajectory_is_drawn_as_it_was(path):
    figure = path.plot(sample=2)
    rates, settling = figure.axes
    lines = drawn(rates)
    assert list(lines) == ["0", "1", "2"]
    for unit in range(3):
        np.testing.assert_array_equal(lines[str(unit)][0], path.times)
        np.testing.assert_array_equal(lines[str(unit)][1], path.rates[-1][:, 2, unit])
    np.testing.assert_array_equal(drawn(settling)["2"][1], path.residual[:, 2])
    assert settling.get_yscale() == "log"
    assert len([line for line in settling.lines if len(line.get_xdata()) == len(path.times)]) == 4


def test_borders_and_phases_are_marked_and_units_named(path):
    figure = plot_trajectory(path)
    rates, settling = figure.axes
    for ax in (rates, settling):
        assert sorted(line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2) == [6, 10, 15]
        shaded = [tuple(patch.get_extents().transformed(ax.transData.inverted()).intervalx) for patch in ax.patches]
        np.testing.assert_allclose(shaded, [(6, 10), (15, 15.1)])
    written = [text for text, _ in texts(figure)]
    assert written.count("free") == 2
    assert "nudged, β = 0.7" in written
    assert not any("β = -" in text for text in written), "a piece of 0.1 has no room for its name"
    assert "time constants" in settling.get_xlabel()
    assert "residual" in settling.get_ylabel()
    assert "rate" in rates.get_ylabel()


def test_nothing_written_overlaps(path, records):
    assert_legible(plot_trajectory(path, sample=1))
    assert_legible(plot_run(records))
    assert_legible(plot_run(records[:1]))
    assert_legible(plot_run([{**r, "test_error": 100.0} | {"epoch": 17 * r["epoch"]} for r in records]))
    assert plot_run(records).get_figwidth() <= figures.WIDE, "printed as it is, without smaller letters"


@pytest.mark.parametrize("path", sorted((ROOT / "figures").rglob("*.png")), ids=lambda path: path.stem)
def test_every_committed_figure_fits_a_page_at_its_own_size(path):
    """In centimetres: one column or two, two thirds of a page high at most; one column is sharp."""
    with Image.open(path) as picture:
        pixels, (dots, _) = picture.size, picture.info["dpi"]
    width, height = (2.54 * each / dots for each in pixels)
    assert width < 19
    assert height < 16
    assert dots > 300 or width > 9


def test_a_trajectory_may_be_drawn_into_given_axes(path):
    figure = new_figure(5, 5)
    upper, lower = figure.subplots(2, 1)
    assert plot_trajectory(path, upper) is figure
    assert list(drawn(upper)) == ["0", "1", "2"]
    assert not lower.lines
    plot_trajectory(path, [upper, lower])
    assert lower.lines
    with pytest.raises(ShapeError, match="ax has shape"):
        plot_trajectory(path, [upper, lower, upper])


@pytest.mark.parametrize("sample", [-1, 4])
def test_a_sample_that_is_not_there_is_refused(path, sample):
    with pytest.raises(ConfigurationError, match=f"sample = {sample}, expected 0 to 3"):
        path.plot(sample=sample)


def test_a_run_is_drawn_as_it_was(records, tmp_path):
    figure = plot_run(records, path=tmp_path / "run.png")
    curve, angles = figure.axes
    lines = drawn(curve)
    assert [label.split()[0] for label in lines] == ["train", "valid", "test"]
    for label, (x, y) in lines.items():
        np.testing.assert_array_equal(x, range(1, 9))
        errors = [r[f"{label.split()[0]}_error"] for r in records]
        np.testing.assert_array_equal(y, errors)
        assert label == f"{label.split()[0]} ({errors[-1]:.2f} %)", "the legend gives the last values"
        assert errors[0] != errors[-1]
    lines = drawn(angles)
    assert [label.split()[0] for label in lines] == ["W1", "W2", "loop"]
    np.testing.assert_array_equal(lines["loop (58.0°)"][1], [r["alignment_degrees"]["loop"] for r in records])
    assert any(np.array_equal(line.get_ydata(), [90, 90]) for line in angles.lines)
    assert "%" in curve.get_ylabel()
    assert "degrees" in angles.get_ylabel()
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_without_alignment_there_is_only_the_curve(records, tmp_path):
    bare = [{k: v for k, v in r.items() if k != "alignment_degrees"} for r in records]
    assert len(plot_run(bare, path=tmp_path / "run.svg").axes) == 1
    assert b"<svg" in (tmp_path / "run.svg").read_bytes()
    assert len(plot_run([{**r, "alignment_degrees": None} for r in bare]).axes) == 1


def test_missing_values_are_left_out(records):
    records[3]["valid_error"] = None
    records[4]["valid_error"] = float("nan")
    for r in records:
        del r["test_error"]
    del records[0]["alignment_degrees"]
    curve, angles = plot_run(records).axes
    assert [label.split()[0] for label in drawn(curve)] == ["train", "valid"]
    assert drawn(curve)["valid (3.08 %)"][0] == pytest.approx([1, 2, 3, 6, 7, 8])
    assert drawn(angles)["W1 (81.0°)"][0] == pytest.approx(range(2, 9))


def test_a_matrix_that_is_zero_has_no_angle_and_leaves_the_others_unchanged(records):
    for r in records:
        r["alignment_degrees"]["W2"] = None
    lines = drawn(plot_run(records).axes[1])
    assert list(lines) == ["W1 (81.0°)", "W2 (no angle)", "loop (58.0°)"]
    assert len(lines["W2 (no angle)"][0]) == 0


def test_a_run_may_be_drawn_into_given_axes(records, tmp_path):
    figure = new_figure(8, 4)
    left, right = figure.subplots(1, 2)
    assert plot_run(records, left) is figure
    assert len(drawn(left)) == 3
    assert not right.has_data()
    left.clear()
    plot_run(records, [left, right], path=tmp_path / "both.svg")
    assert (len(drawn(left)), len(drawn(right))) == (3, 3)
    assert b"<svg" in (tmp_path / "both.svg").read_bytes()


def test_pictures_have_a_known_format_and_something_to_show(records, tmp_path):
    with pytest.raises(ConfigurationError, match=r"run\.bmp.*\.png, \.svg, \.pdf"):
        plot_run(records, path=tmp_path / "run.bmp")
    with pytest.raises(ConfigurationError, match="records is empty"):
        plot_run([])
    assert save_figure(plot_run(records), str(tmp_path / "again.PNG")) == tmp_path / "again.PNG"


def test_no_display_and_no_pyplot_are_needed(path, records, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it fails
    monkeypatch.delenv("DISPLAY", raising=False)
    save_figure(path.plot(), tmp_path / "path.png")
    plot_run(records, path=tmp_path / "run.png")


# What learning does to the loop


def curve(epochs, **keys):
    """Rows of one curve."""
    values = {epoch: 60 + 25 / (1 + epoch) + 5 * (len(keys.get("variant", "")) % 3) for epoch in epochs}
    return [
        {**keys, "epoch": epoch, "value": value, "low": value - 2, "high": value + 2} for epoch, value in values.items()
    ]


COUNTS = {"loop learned": "140 to 151 of 300", "loop fixed": "287 of 300"}


def drawn_figure(name, matrices=("W1", "W2", "loop"), last=12, turns=True):
    """(figure, rows) of made-up numbers; `turns`: each matrix is fixed in turn."""
    whole, fine = range(last + 1), [epoch / 10 for epoch in range(10 * last + 1)]
    above, below = ["loop learned", "loop fixed"], [f"{matrix} fixed" for matrix in matrices if turns]
    shown = [(variant, matrix) for variant in dict.fromkeys([*above, *below]) for matrix in matrices]
    if name == "alignment":
        rows = [
            row
            for v, m in shown
            for q, at in (("network", fine), ("sample", whole))
            for row in curve(at, quantity=q, variant=v, matrix=m)
        ]
        return figures.draw_alignment(rows, matrices, above, below, COUNTS), rows
    if name == "subspace":
        rows = [
            row
            for v, m in shown
            for q in ("inside", "bound", "raw")
            for row in curve(whole, quantity=q, variant=v, matrix=m)
        ]
        return figures.draw_subspace(rows, matrices, above, below), rows
    if name == "gradients":
        names = ["input", *(f"forward[{k}]" for k in range(len(matrices) - 1)), "loop"]
        rows = [
            row
            for m in names
            for s in figures.SOURCES
            for q in ("angle", "share")
            for row in curve(whole, quantity=q, source=s, matrix=m)
        ]
        rows += [row for m in names for row in curve(whole, quantity="norm", source="", matrix=m)]
        return figures.draw_gradients(rows), rows
    if name == "spectra":
        points = [(-1.4 + 0.1 * k, 0.4 * (-1) ** k) for k in range(10)]
        rows = [
            {"quantity": "eigenvalue", "epoch": e, "seed": 0, "real": x, "imaginary": y}
            for e in (0, last // 2, last)
            for x, y in points
        ]
        rows += [row for q in ("loop_norm", "settle_time") for row in curve(whole, quantity=q)]
        rows += [{**row, "value": 300, "low": 250, "high": 400} for row in curve(whole, quantity="loop_norm_max")]
        return figures.draw_spectra(rows), rows
    variants = ["loop learned", "loop fixed", "equilibrium propagation", "exact gradient", "backpropagation"]
    rows = [
        row
        for v in variants
        for q in ("test_error", "train_error")
        for row in curve(range(1, last + 1), quantity=q, variant=v)
    ]
    return figures.draw_errors(rows), rows


NAMES = ("alignment", "subspace", "gradients", "spectra", "errors")


@pytest.mark.parametrize(("name", "columns"), [("alignment", 1), ("subspace", 2)])
def test_without_matrices_fixed_in_turn_there_is_no_empty_column(name, columns):
    figure = drawn_figure(name, turns=False)[0]
    assert len(figure.axes) == 3 * columns
    assert all(len(ax.lines) > 1 for ax in figure.axes), "a right angle, and curves"
    assert_legible(figure)


def test_the_legend_of_the_alignment_counts_samples():
    (legend,) = drawn_figure("alignment")[0].legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:3] == ["loop learned (140 to 151 of 300 samples)", "loop fixed (287 of 300 samples)", "W1 fixed"]


@pytest.mark.parametrize("name", NAMES)
def test_all_rows_are_drawn_and_lie_in_view(name):
    figure, rows = drawn_figure(name)
    drawn = {}
    for ax in figure.axes:
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        for line in ax.lines:
            x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
            if line.get_transform() == ax.transData:
                assert ((left <= x) & (x <= right) & (bottom <= y) & (y <= top)).all()
            drawn.setdefault(tuple(x), []).append(tuple(y))
    curves = {}
    for row in rows:
        if row["quantity"] != "eigenvalue":
            curves.setdefault(tuple(row.get(key) for key in ("quantity", "variant", "source", "matrix")), []).append(
                row
            )
    for own in curves.values():
        if not (
            own[0]["quantity"] == "bound" and own[0]["variant"] not in ("loop learned", "loop fixed")
        ):  # their raw angles are not drawn
            assert tuple(row["value"] for row in own) in drawn[tuple(row["epoch"] for row in own)]
    points = [(row["real"], row["imaginary"]) for row in rows if row["quantity"] == "eigenvalue"]
    if points:
        x, y = zip(*points[:10], strict=True)
        assert drawn[x].count(y) == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("matrices", [("W1", "W2", "loop"), ("W1", "W2", "W3", "loop")])
def test_nothing_in_the_figures_overlaps_and_all_is_large_enough(name, matrices):
    figure, _ = drawn_figure(name, matrices, last=30 if len(matrices) == 3 else 2)
    assert_legible(figure)
    assert figure.get_figwidth() == pytest.approx(8.5 / 2.54), "one column of a journal"
    for ax in figure.axes:
        written = [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts]
        assert all(text.get_fontsize() >= 7 for text in [*written, *figure.legends[0].get_texts()])


def test_each_matrix_has_a_scale_of_its_own():
    """The angle of the first moves a few degrees where that of the loop moves forty."""
    rows = [
        {
            "quantity": "network",
            "variant": "loop learned",
            "matrix": matrix,
            "epoch": epoch,
            "value": 90 - falls * epoch,
        }
        for matrix, falls in (("W1", 1), ("W2", 5), ("loop", 10))
        for epoch in (0, 1, 2, 3, 4)
    ]
    figure = figures.draw_alignment(rows, ("W1", "W2", "loop"), ["loop learned", "loop fixed"], [], {})
    heights = [top - bottom for bottom, top in (ax.get_ylim() for ax in figure.axes)]
    assert heights[0] < 6 < heights[1] < 30 < heights[2]


def test_the_legend_of_the_gradients_says_what_each_line_is():
    (legend,) = drawn_figure("gradients")[0].legends
    assert "errors added in turn" in legend.get_title().get_text()
    assert [text.get_text() for text in legend.get_texts()] == [
        "limit β → 0: the loop is not reciprocal",
        "+ finite β",
        "+ unfinished relaxation: the update in training",
        "norm of that update",
    ]


def test_angles_are_named_as_in_the_paper():
    titles = [ax.get_ylabel() for ax in drawn_figure("alignment")[0].axes[::2]]
    assert [title.replace("{", "").replace("}", "") for title in titles] == [
        r"$W_2W_3\angle W_1$",
        r"$W_3W_1\angle W_2$",
        r"$W_1W_2\angle W_3$ (loop)",
    ]


def test_variants_differ_in_colour_and_in_dash():
    colours, dashes = zip(*figures.STYLES, strict=True)
    assert len(set(colours)) == len(set(dashes)) == len(figures.STYLES)


def test_units_are_labelled():
    axes = {name: drawn_figure(name)[0].axes for name in NAMES}
    labels = {
        name: " ".join(ax.get_title() + ax.get_ylabel() + ax.get_xlabel() for ax in of) for name, of in axes.items()
    }
    for name, unit in (
        ("alignment", "(°)"),
        ("subspace", "(°)"),
        ("gradients", "(°)"),
        ("spectra", "time constants"),
        ("errors", "%"),
    ):
        assert unit in labels[name]
        assert "epoch" in labels[name]
    assert "per unit time" in labels["spectra"]
