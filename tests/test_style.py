"""One style for every figure, whatever the settings of matplotlib are; one picture for each in a
notebook.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
from pathlib import Path

import matplotlib
import matplotlib.style
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from problems import problem

from fsp_dynamics.analysis.alignment import loop_alignment
from fsp_dynamics.plotting import COLOURS, STYLE, figures, new_figure, plot_run, save_figure, styled
from fsp_dynamics.solvers import relax

RECORDS = [
    {"epoch": e, "test_error": 3.0 + e, "alignment_degrees": {"W1": 89.0 - e, "loop": 85.0 - e}} for e in range(1, 4)
]
ROWS = [
    {
        "quantity": quantity,
        "source": "non-reciprocity",
        "matrix": "loop",
        "epoch": e,
        "value": 60 + e,
        "low": 60,
        "high": 70,
    }
    for quantity in ("angle", "share")
    for e in range(3)
]
# Settings unlike the style, of every kind: of axes, ticks that are made late, letters,
# saving.
WILD = {
    **{
        "font.size": 20,
        "font.family": "serif",
        "text.color": "red",
        "axes.facecolor": "black",
        "axes.edgecolor": "red",
        "lines.linewidth": 9,
    },
    **{
        "xtick.color": "red",
        "ytick.major.size": 20,
        "ytick.minor.size": 20,
        "ytick.labelsize": 30,
        "grid.color": "blue",
        "grid.linewidth": 4,
    },
    **{
        "axes.grid.axis": "both",
        "axes.formatter.limits": (0, 0),
        "mathtext.fontset": "cm",
        "figure.dpi": 30,
        "figure.facecolor": "black",
    },
    **{
        "savefig.facecolor": "black",
        "savefig.dpi": 50,
        "savefig.bbox": "tight",
        "lines.dotted_pattern": (1, 9),
        "legend.frameon": True,
    },
}


def batch():
    p = problem("strong")
    return relax(p.network, p.images)


MAKERS = {
    "run": lambda: plot_run(RECORDS),
    "batch": lambda: batch().plot(),
    "sample": lambda: batch().plot(sample=0),
    "alignment": lambda: loop_alignment(problem("strong").network).plot(),
    "gradients": lambda: figures.draw_gradients(
        ROWS
    ),  # a logarithmic axis has small ticks with labels, which are made late
}


def shown(figure):
    """The figure as drawn by its canvas."""
    buffer = io.BytesIO()
    figure.canvas.print_png(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", MAKERS)
def test_a_picture_does_not_depend_on_matplotlibs_settings(name, tmp_path):
    make = MAKERS[name]
    saved, drawn = save_figure(make(), tmp_path / "plain.png").read_bytes(), shown(make())
    with matplotlib.rc_context(WILD):
        again, figure = save_figure(make(), tmp_path / "wild.png").read_bytes(), make()
        assert shown(figure) == drawn
        assert again == saved
        assert make()._repr_png_() == drawn
        assert matplotlib.rcParams["font.size"] == 20, "the settings are as they were"


def test_what_a_figure_changes_of_the_style_holds_when_it_is_drawn():
    """How many ticks there are is decided then, by the size of their labels."""
    changed = {"xtick.labelsize": 2.0}
    with styled(changed):
        figure, plain = new_figure(1.5, 2, changed), matplotlib.figure.Figure((1.5, 2))
        for each in (figure, plain):
            each.subplots()
        FigureCanvasAgg(plain)
        expected = shown(plain)
    assert shown(figure) == expected


def test_given_axes_keep_the_style_they_were_made_in():
    with matplotlib.rc_context({"axes.prop_cycle": matplotlib.cycler(color=["red", "blue"]), "lines.linewidth": 7}):
        axes = matplotlib.figure.Figure().subplots(1, 2)
        plot_run(RECORDS, axes)
        lines = [line for line in axes[1].lines if line.get_label()[:2] in ("W1", "lo")]
    assert [(line.get_color(), line.get_linestyle(), line.get_linewidth()) for line in lines] == [
        ("red", "-", 7),
        ("blue", "-", 7),
    ]
    assert axes[0].spines["top"].get_visible()


def test_the_style_can_be_used_for_other_figures():
    with matplotlib.rc_context():
        matplotlib.style.use(STYLE)
        ax = matplotlib.figure.Figure().subplots()
        lines = [ax.plot([0, 1])[0] for _ in range(20)]
    assert not ax.spines["top"].get_visible()
    assert tuple(line.get_color() for line in lines[:10]) == COLOURS
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20
    assert all(one.get_linestyle() != other.get_linestyle() for one, other in itertools.pairwise(lines))


def test_the_style_ends_with_its_block_even_by_an_error():
    before = dict(matplotlib.rcParams)
    with styled({"font.size": 3}):
        assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["axes.grid"]) == (3, True)
    with pytest.raises(KeyError), styled():
        raise KeyError
    assert dict(matplotlib.rcParams) == before


def test_the_style_file_is_part_of_the_package():
    root = Path(__file__).parents[1]
    patterns = (root / "setup.cfg").read_text().partition("fsp_dynamics =\n")[2].split()
    assert any(path.name == "fsp.mplstyle" for pattern in patterns for path in (root / "fsp_dynamics").glob(pattern))


def test_a_figure_survives_pickling_with_its_style():
    again = pickle.loads(pickle.dumps(figures.draw_gradients(ROWS)))
    with matplotlib.rc_context(WILD):
        assert again._repr_png_() == figures.draw_gradients(ROWS)._repr_png_()


def test_the_size_is_what_was_asked_for():
    assert new_figure(3, 2).get_size_inches().tolist() == [3, 2]
    assert new_figure(3, 2, {"figure.dpi": 200}).dpi == 200


CELLS = """
import sys
from fsp_dynamics.plotting import plot_run
figure = plot_run([{"epoch": 1, "test_error": 3.0}, {"epoch": 2, "test_error": 2.0}])
figure
---
assert "matplotlib.pyplot" not in sys.modules
plot_run([{"epoch": 1, "test_error": 3.0}]);
---
import matplotlib.pyplot as plt
figure
---
assert not plt.get_fignums()
own, ax = plt.subplots()
plot_run([{"epoch": 1, "test_error": 3.0}], ax);
---
import os, tempfile
path = os.path.join(tempfile.mkdtemp(), "saved.png")
drawn = plot_run([{"epoch": 1, "test_error": 3.0}])
assert plt.gcf() is drawn
plt.savefig(path)
assert os.path.getsize(path) > 10_000
drawn
---
drawn = plot_run([{"epoch": 1, "test_error": 3.0}])
plt.show()
---
drawn.show()
---
for _ in range(3):
    drawn = plot_run([{"epoch": 1, "test_error": 3.0}])
"""


@pytest.mark.cli
def test_a_notebook_shows_each_figure_once():
    """Before pyplot is loaded, where one that was not asked for is not shown, and after, where
    pyplot shows at the end of a cell what was not shown in it.
    """
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    cells = [nbformat.v4.new_code_cell(code) for code in CELLS.split("---\n")]
    client = nbclient.NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=120, kernel_name="python3")
    with client.setup_kernel(env=environment):
        for i, cell in enumerate(cells):
            client.execute_cell(cell, i)
    pictures = [["image/png" in output.get("data", {}) for output in cell.outputs] for cell in cells]
    assert pictures == [[True], [], [True], [True], [True], [True], [True], [True] * 3]
