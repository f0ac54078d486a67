"""Runs on images in colour: trained, evaluated and resumed by the same commands as grey ones, and
drawn in colour. The sets are small ones, made here (tests/small_colours.py).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import small_colours

from fsp_dynamics.cli import main
from fsp_dynamics.datasets import CLASS_NAMES
from fsp_dynamics.datasets import registry as sources
from fsp_dynamics.errors import ShapeError
from fsp_dynamics.experiments.run import open_run

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")
SMALL = ["--network.hidden", "12", "--learning.rates.forward", "7.0", "--learning.batch", "5", "--no-progress"]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """The folder of the data; the working folder is beside it."""
    for name, source in small_colours.sources().items():
        monkeypatch.setitem(sources.SOURCES, name, source)
    monkeypatch.setattr(sources, "_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv("FSP_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def train(name: str, *more: str) -> int:
    return main(["train", "digits", "--data.name", name, "--data-dir", "data", *SMALL, *more])


@pytest.mark.parametrize("name", list(small_colours.CLASSES))
def test_a_loop_is_trained_on_colours(small, capsys, name):
    small_colours.write(small / name, name)
    assert train(name, "--out", "run", "--epochs", "2") == 0
    said = capsys.readouterr().err
    assert ("is unverified: its files have the published sizes" in said) == (name != "svhn")
    run = open_run("run")
    assert (run.network().sizes[0], run.network().sizes[-1]) == (3072, small_colours.CLASSES[name])
    assert (run.image_format().shape, run.image_format().class_names) == ((3, 32, 32), CLASS_NAMES.get(name, ()))
    assert main(["evaluate", "run", "--data-dir", "data", "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["error"] == run.metrics[run.summary["best"]["epoch"]]["valid_error"]
    assert 0 <= judged["error"] <= 100


def test_a_run_that_began_with_extracted_files_goes_on_with_the_archive(small):
    """To the same bits as one that was not stopped."""
    place = small_colours.write(small / "cifar10", "cifar10")
    moved = ["--learning.augmentation.shift", "2", "--learning.augmentation.flip", "0.5"]
    assert train("cifar10", "--out", "whole", *moved, "--epochs", "2") == 0
    assert train("cifar10", "--out", "parts", *moved, "--epochs", "1") == 0
    for file in place.iterdir():
        file.unlink()
    small_colours.write(small / "cifar10", "cifar10", packed=True)
    assert main(["train", "--resume", "parts", "--data-dir", "data", "--epochs", "2", "--no-progress"]) == 0
    whole, parts = (open_run(folder).network("last").parameters() for folder in ("whole", "parts"))
    for name, weights in whole.items():
        assert np.array_equal(weights, parts[name]), name


def test_a_convolution_learns_layer_by_layer_from_three_planes(small):
    pytest.importorskip("torch")
    small_colours.write(small / "cifar10", "cifar10")
    shape = ["--network.kind", "conv", "--network.channels", "4,M,8,M", "--network.hidden", "None"]
    how = ["--learning.batch", "8", "--data.validation", "3", "--epochs", "1", "--no-progress"]
    words = ["--data.name", "cifar10", "--data-dir", "data", "--out", "run", *shape, *how]
    assert main(["train", "fashion-mlp-fsp", *words]) == 0
    run = open_run("run")
    assert run.network().network.image_shape == (3, 32, 32)
    images = small_colours.part("cifar10", test=True).images
    assert run.predict(np.moveaxis(images, 1, 3)).classes.tolist() == run.predict(images).classes.tolist()


def test_a_folder_of_records_of_ones_own_is_trained_on(small):
    names = "\n".join(CLASS_NAMES["cifar100"]).encode()
    place = small_colours.write(small, "cifar100", **{"fine_label_names.txt": names})
    assert main(["train", "digits", "--data.path", str(place), "--out", "run", "--epochs", "1", *SMALL]) == 0
    run = open_run("run")
    assert run.network().sizes == (3072, 12, 100)
    assert run.image_format().class_names == CLASS_NAMES["cifar100"]


def test_absent_and_damaged_data_end_with_one_line_and_code_3(small, capsys, monkeypatch):
    assert train("svhn", "--out", "run") == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "svhn was not found; looked in data/svhn (no such folder)" in lines[0]
    whole = small_colours.contents("cifar10")["data_batch_2.bin"]
    small_colours.write(small, "cifar10", **{"data_batch_2.bin": whole[:-1]})
    assert train("cifar10", "--out", "run") == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"data_batch_2.bin: {len(whole) - 1} bytes long, expected {len(whole)}: truncated" in lines[0]


def test_images_are_predicted_from_any_layout_and_drawn_in_colour(small, tmp_path):
    small_colours.write(small / "cifar10", "cifar10", packed=True)
    assert train("cifar10", "--out", "run", "--epochs", "1") == 0
    run, pixels = open_run("run"), small_colours.part("cifar10", test=True).images[:5]
    found = run.predict(pixels)
    last = np.moveaxis(pixels, 1, 3)
    for images in (last, pixels.reshape(5, 3072), last / np.float32(255)):
        np.testing.assert_array_equal(run.predict(images).scores, found.scores)
    shown = found.plot().axes[0].images
    assert len(shown) == 5
    for image, expected in zip(shown, last, strict=True):
        np.testing.assert_allclose(image.get_array(), expected / 255, atol=1e-6)
    with pytest.raises(ShapeError, match=r"expected \(B, 3072\), \(B, 3, 32, 32\) or \(B, 32, 32, 3\), as the images"):
        run.predict(pixels[:, 0])
    with pytest.raises(ShapeError, match=r"give images\[None\] if it is one image"):
        run.predict(last[0])
