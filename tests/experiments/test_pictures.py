"""The pictures of a run are of what it measured; a file of them that was spoiled ends nothing."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from fsp_dynamics.errors import ConfigurationError, ShapeError
from fsp_dynamics.experiments.pictures import as_csv, read_confusion
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.plotting.confusion import plot_confusion
from fsp_dynamics.training.evaluation import class_errors

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")


def test_a_run_draws_the_confusion_of_its_best_epoch_also_when_it_goes_on(tiny, tmp_path):
    for epochs in (1, 3):
        run = train(tiny(), out=tmp_path, epochs=epochs, resume=True, progress=False, threads=1)
        rows = list(csv.reader((tmp_path / "figures" / "confusion.csv").open()))
        assert rows[0][0] == f"epoch {run.summary['best']['epoch']}"
        found, names = read_confusion(tmp_path / "figures" / "confusion.csv")
        assert np.array_equal(found, run.evaluate("test", threads=1).confusion)
        assert names == [str(k) for k in range(10)]
        assert (tmp_path / "figures" / "confusion.png").stat().st_size > 1000


def test_a_spoiled_table_is_not_drawn(tmp_path):
    path = tmp_path / "confusion.csv"
    assert read_confusion(path) is None
    path.write_bytes(as_csv([[3, 1], [0, 2]], ("a, b", "c"), 4))
    assert read_confusion(path) == ([[3, 1], [0, 2]], ["a, b", "c"])
    for spoiled in (
        b"",
        b"epoch 1\n",
        b"epoch 1,0,1\n0,3,1\n",
        b"e,0\n0,x\n",
        b"e,0\n0,-1\n",
        b"e,0\n0,0\n",
        b"\xff\xfe",
    ):
        path.write_bytes(spoiled)
        assert read_confusion(path) is None, spoiled


def test_the_picture_has_every_count_but_nought_and_the_error_of_each_class():
    counts = [[3, 1, 0], [0, 0, 0], [0, 2, 2]]
    figure = plot_confusion(counts, ("cat", "dog", "cow"))
    (axes,) = figure.axes
    assert sorted(text.get_text() for text in axes.texts) == ["1", "2", "2", "3"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog", "cow"]
    figure.canvas.draw()
    right = [text.get_text() for child in axes.child_axes for text in child.get_yticklabels()]
    assert right == ["25.0 %", "none", "50.0 %"]
    assert class_errors(counts) == (25.0, None, 50.0)
    assert axes.get_title() == "error 37.50 %: 3 of 8 images"


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigurationError, match="confusion is empty"):
        plot_confusion([[0, 0], [0, 0]])
    with pytest.raises(ShapeError, match="confusion has shape"):
        plot_confusion([[1, 0]])
