"""What pyplot and notebooks make of the package's figures."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref
from pathlib import Path

import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backend_bases import FigureManagerBase

from fsp_dynamics.plotting import plot_run
from fsp_dynamics.plotting.notebook import StyledFigure
from fsp_dynamics.plotting.showing import MOST, apart, share

RECORDS = [{"epoch": 1, "test_error": 3.0}, {"epoch": 2, "test_error": 2.0}]


@pytest.fixture(autouse=True)
def no_figures():
    plt.close("all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    plt.close("all")


def colours(path: Path) -> int:
    picture = plt.imread(path)
    return len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0))


def test_pyplot_saves_the_figure_that_was_drawn_last(tmp_path):
    first, second = plot_run(RECORDS), plot_run(RECORDS[:1])
    assert plt.gcf() is second
    plt.savefig(tmp_path / "second.png")
    plt.close(second)
    assert plt.gcf() is first
    plt.savefig(tmp_path / "first.png")
    assert min(colours(tmp_path / name) for name in ("first.png", "second.png")) > 50
    assert (tmp_path / "first.png").read_bytes() != (tmp_path / "second.png").read_bytes()


def test_pyplot_shows_it_and_so_does_the_figure(monkeypatch):
    shown = []
    monkeypatch.setattr(FigureManagerBase, "show", lambda manager: shown.append(manager.canvas.figure))
    figure = plot_run(RECORDS)
    figure.show()
    with apart():
        alone = plot_run(RECORDS)
    assert plt.gcf() is figure, "one that a run writes is none of pyplot's"
    alone.show()
    alone.show()
    assert shown == [figure, alone, alone]
    assert plt.gcf() is alone
    assert len(plt.get_fignums()) == 2


def test_axes_of_ones_own_stay_where_they_are():
    own, ax = plt.subplots()
    assert plot_run(RECORDS, ax) is own
    assert len(plt.get_fignums()) == 1
    alone = matplotlib.figure.Figure()
    plot_run(RECORDS, alone.subplots())
    assert plt.gcf() is own


def test_any_number_of_figures_gives_no_warning_and_is_not_kept():
    own = plt.figure()
    kept = [weakref.ref(plot_run(RECORDS)) for _ in range(2 * MOST)]
    assert len(plt.get_fignums()) == MOST
    assert own.number in plt.get_fignums(), "figures of others stay"
    gc.collect()
    assert sum(ref() is not None for ref in kept) <= MOST
    plt.close("all")
    gc.collect()
    assert not any(ref() for ref in kept)


def test_another_limit_of_pyplot_is_kept():
    with plt.rc_context({"figure.max_open_warning": 3}):
        for _ in range(5):
            plot_run(RECORDS)
        assert len(plt.get_fignums()) == 3


def test_a_figure_of_another_thread_is_no_window():
    made = []
    thread = threading.Thread(target=lambda: made.append(plot_run(RECORDS)))
    thread.start()
    thread.join()
    assert isinstance(made[0], StyledFigure)
    assert not plt.get_fignums()


def test_a_backend_without_display_leaves_the_figure_as_it_is(monkeypatch, tmp_path):
    def refuse(*_):
        raise ImportError("no display")

    monkeypatch.setattr("fsp_dynamics.plotting.showing.adopt", refuse)
    figure = plot_run(RECORDS)
    assert not plt.get_fignums()
    figure.savefig(tmp_path / "alone.png")
    assert colours(tmp_path / "alone.png") > 50


def test_sharing_twice_is_sharing_once():
    figure = plot_run(RECORDS)
    share(figure)
    assert len(plt.get_fignums()) == 1


SCRIPT = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np
import fsp_dynamics as fsp
network = fsp.loop_network([4, 3, 2], rng=0)
solver = fsp.make_solver("reference", method="rk4", dt=0.5)
path = fsp.simulate(network, np.ones((1, 4)), [(5.0, None)], solver=solver)
figure = path.plot()
assert "matplotlib.pyplot" not in sys.modules, "the package does not import it"
import matplotlib.pyplot as plt
assert plt.get_fignums() == []
path.plot()
plt.savefig("saved.png")
"""


@pytest.mark.cli
def test_a_script_saves_its_picture(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert colours(tmp_path / "saved.png") > 50
