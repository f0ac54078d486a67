"""Images without labels are taken for what the network that is evaluated takes them for, scaled as
in training, or refused in one line.
"""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import struct
import warnings

import numpy as np
import pytest
import softmax_family  # noqa: F401

import fsp_dynamics as fsp
from fsp_dynamics.cli import main
from fsp_dynamics.datasets.array_files import read_images
from fsp_dynamics.datasets.digits import read_digits
from fsp_dynamics.datasets.formats import ImageFormat
from fsp_dynamics.errors import ConfigurationError, DatasetError, NotFiniteError, ShapeError
from fsp_dynamics.experiments.run import open_run
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.experiments.trainer import TRAINERS, Family, trainer_of

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")
AVERAGED = {"learning.average.kind": "exponential"}


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run()


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """tiny_run(**overrides) -> a small finished run on digits."""

    def make(**changes):
        table = {"data.limit": 120, "network.hidden": [12], "learning.rates.forward": [7.0], "probes.samples": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folder = tmp_path_factory.mktemp("predict") / "run"
            return train("digits", out=folder, progress=False, threads=1, **{"epochs": 2, **table, **changes})

    return make


@pytest.fixture(scope="module")
def raw():
    """The test images as published: bytes from 0 to 16, (400, 8, 8)."""
    return read_digits().test_images


def test_what_is_evaluated_is_what_is_predicted(run):
    test, judged = run.data().test, run.evaluate("test", threads=1)
    found = run.predict(test.images, threads=1)
    assert 100 * np.mean(found.classes != test.labels) == judged.error == run.summary["best"]["test_error"]
    counted = np.zeros((10, 10), int)
    for label, taken in zip(test.labels, found.classes, strict=True):
        counted[label, taken] += 1
    assert np.array_equal(judged.confusion, counted)
    errors = [100 * (found.classes[test.labels == k] != k).mean() for k in range(10)]
    assert judged.class_errors == pytest.approx(errors)
    assert int((~found.converged).sum()) == judged.unconverged


def test_scores_are_the_outputs_at_the_equilibrium_of_the_average_where_there_is_one(tiny_run):
    averaged = tiny_run(**AVERAGED)
    images = averaged.data().test.images[:50]
    found = averaged.predict(images, threads=1)
    tolerance = fsp.Tolerance(averaged.config.solver.absolute, 0.0)
    settled = fsp.relax(averaged.network("best"), images, tolerance=tolerance)
    assert found.scores == pytest.approx(settled.output, abs=1e-3)
    from fsp_dynamics.experiments.checkpoint import load_checkpoint

    raw = load_checkpoint(averaged.folder / "checkpoints", "best").part("raw")
    learning = fsp.relax(averaged.network("best").with_parameters(raw), images, tolerance=tolerance)
    assert np.abs(found.scores - learning.output).max() > 5e-3


def test_bytes_floats_and_pixels_in_rows_are_the_same_images(run, raw):
    expected = run.predict(run.data().test.images).scores
    for same in (raw, raw.reshape(400, 64), raw / 16, (raw / np.float32(16)).tolist(), np.asfortranarray(raw)):
        assert np.array_equal(run.predict(same).scores, expected)
    for one_channel in (raw[:, None], raw[..., None]):
        assert np.array_equal(run.predict(one_channel).scores, expected)
    assert run.predict(raw[0][None]).scores == pytest.approx(expected[:1], abs=1e-3)


def test_images_are_scaled_as_those_of_the_data_set(tmp_path):
    """Bytes that are only 0 and 1 are truth values, where they were in training."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (60, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "bits.npz", images=bits, labels=np.arange(60) % 3)
    small = {"network.hidden": [6], "learning.rates.forward": [7.0], "probes.samples": 0, "epochs": 1, "threads": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = train("digits", data=tmp_path / "bits.npz", out=tmp_path / "run", progress=False, **small)
    (tmp_path / "bits.npz").unlink()  # the images of the run are not needed
    assert run.predict(bits).scores == pytest.approx(run.predict(bits.astype(bool)).scores)
    assert np.array_equal(run.predict(bits).images, bits.reshape(60, 16))
    with pytest.raises(ConfigurationError, match="images are bytes up to 2, expected 0 to 1, by which"):
        run.predict(bits * 2)


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda x: x[:, :7], ShapeError, r"has shape \(400, 7, 8\), expected \(B, 64\) or \(B, 8, 8\)"),
        (lambda x: x.reshape(400, 4, 16), ShapeError, "as the images it was trained on"),
        (lambda x: x[0], ShapeError, r"give images\[None\] if it is one image"),
        (lambda x: np.stack([x, x, x], 1), ShapeError, r"has shape \(400, 3, 8, 8\), expected \(B, 64\) or"),
        (lambda x: x[:0], ConfigurationError, "there is nothing in it"),
        (lambda x: x.astype(float), ConfigurationError, "divide by the largest possible value"),
        (lambda x: x / 16 - 1, ConfigurationError, "add what is lacking"),
        (lambda x: x.astype(int), ConfigurationError, "expected floats in .* or uint8"),
        (lambda x: x * 15, ConfigurationError, "bytes up to 240, expected 0 to 16"),
        (lambda x: np.where(x > 8, np.nan, 0.5), NotFiniteError, "nan, expected finite numbers"),
        (lambda x: x.astype(str), ConfigurationError, "expected numbers"),
    ],
)
def test_other_images_are_refused_in_one_line(run, raw, spoil, error, says):
    with pytest.raises(error, match=says) as caught:
        run.predict(spoil(raw))
    assert "\n" not in str(caught.value)


def test_a_run_of_before_reads_its_data_for_the_scale(run, raw, tmp_path):
    import shutil

    shutil.copytree(run.folder, tmp_path / "old")
    path = tmp_path / "old" / "environment.json"
    content = json.loads(path.read_text())
    assert content.pop("images") == {"shape": [8, 8], "top": 16, "class_names": []}
    path.write_text(json.dumps(content))
    old = open_run(tmp_path / "old")
    assert np.array_equal(old.predict(raw[:20]).scores, run.predict(raw[:20]).scores)


def test_a_prediction_is_shown_drawn_and_tabled(run, raw, tmp_path):
    found = run.predict(raw[:30])
    assert repr(found).startswith("<Prediction of 30 images: classes ")
    assert "<table>" in found._repr_html_()
    assert len(found) == len(found.names) == 30
    first, second = np.sort(found.scores, 1)[:, :-3:-1].T
    assert found.margin == pytest.approx(first - second)
    frame = found.to_frame()
    assert list(frame.columns[:3]) == ["class", "score", "margin"]
    assert np.array_equal(frame["score.7"], found.scores[:, 7])
    assert found.plot(path=tmp_path / "seen.png").axes
    texts = [text.get_text() for text in found.plot().axes[0].texts]
    assert texts[0].startswith(f"{found.classes[0]}\n")
    assert len(texts) == 24


def test_fashion_has_the_names_of_its_classes():
    known = ImageFormat.of(ImageFormat((28, 28), 255, fsp.datasets.CLASS_NAMES["fashion-mnist"]).as_record())
    assert known.class_names[9] == "Ankle boot"


# Files


def idx(images):
    return bytes((0, 0, 8, 3)) + struct.pack(">3I", *images.shape) + images.tobytes()


def test_files_hold_the_images_that_were_saved(raw, tmp_path):
    np.save(tmp_path / "a.npy", raw)
    np.savez_compressed(tmp_path / "b.npz", images=raw, labels=np.arange(400))
    np.savez(tmp_path / "c.npz", mine=raw)
    np.save(tmp_path / "d.npy", np.asfortranarray(raw))
    (tmp_path / "e-ubyte").write_bytes(idx(raw))
    (tmp_path / "f.gz").write_bytes(gzip.compress(idx(raw)))
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(read_images(path), raw), path
    np.savez(tmp_path / "g.npz", other=raw[:1], mine=raw)
    assert np.array_equal(read_images(tmp_path / "g.npz", "mine"), raw)


def test_files_that_hold_no_images_are_refused(raw, tmp_path):
    np.save(tmp_path / "good.npy", raw)
    whole = (tmp_path / "good.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-1])
    (tmp_path / "long.npy").write_bytes(whole + b"x")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(raw))
    np.savez(tmp_path / "two.npz", one=raw, two=raw)
    (tmp_path / "no.npz").write_bytes(b"PK")
    (tmp_path / "cut-ubyte").write_bytes(idx(raw)[:-1])
    for name, says in {
        "missing.npy": "there is no such file",
        "cut.npy": "it is damaged",
        "long.npy": "it is damaged",
        "empty.npy": "is not an array",
        "objects.npy": "nothing is unpickled",
        "pickle.npy": "is not an array",
        "two.npz": r"holds one, two, not images; name the images among them \(array=...\)",
        "no.npz": "is not an intact .npz",
        "cut-ubyte": "truncated; give .npy, .npz or IDX images",
        ".": "expected a file",
    }.items():
        with pytest.raises(DatasetError, match=says) as caught:
            read_images(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="which alone has names; leave array out"):
        read_images(tmp_path / "good.npy", "images")
    assert len(read_images(tmp_path / "good.npy")) == 400  # as it was advised
    assert len(read_images(tmp_path / "two.npz", "one")) == 400


# The command


def test_the_command_writes_what_python_gives(run, raw, tmp_path, capsys):
    np.save(tmp_path / "images.npy", raw[:30])
    expected = run.predict(raw[:30])
    words = ["predict", str(run.folder), str(tmp_path / "images.npy")]
    assert main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["images"], shown["class"]) == (30, expected.classes.tolist())
    assert shown["score.3"] == pytest.approx(expected.scores[:, 3].tolist())
    for suffix in ("csv", "json", "npz"):
        assert main([*words, "--out", str(tmp_path / f"new/o.{suffix}")]) == 0
    out = capsys.readouterr().out
    assert "30 images, best network of" in out
    assert "unconverged" in out
    rows = list(csv.DictReader((tmp_path / "new" / "o.csv").open()))
    assert [int(row["class"]) for row in rows] == expected.classes.tolist()
    assert [float(row["score.0"]) for row in rows] == pytest.approx(expected.scores[:, 0].tolist())
    assert [row["converged"] for row in rows] == [str(each) for each in expected.converged]
    assert json.loads((tmp_path / "new" / "o.json").read_text()) == shown
    with np.load(tmp_path / "new" / "o.npz") as arrays:
        assert np.array_equal(arrays["score.9"], expected.scores[:, 9])
        assert str(arrays["run"]) == str(run.folder)


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["big.npy"], 3, "big.npy: images has shape (3, 28, 28), expected (B, 64) or (B, 8, 8)"),
        (["nan.npy"], 3, "nan.npy: images[0, 0, 0] = nan, expected finite numbers"),
        (["missing.npy"], 3, "there is no such file"),
        (["good.npy", "--out", "o.txt"], 2, "out = 'o.txt' ends in '.txt', expected one of: .csv, .json, .npz"),
        (["good.npy", "--array", "images"], 3, "leave array out"),
        (["good.npy", "--checkpoint", "worst"], 2, "worst"),
    ],
)
def test_the_command_refuses_in_one_line(run, tmp_path, monkeypatch, capsys, more, code, says):
    monkeypatch.chdir(tmp_path)
    np.save("big.npy", np.zeros((3, 28, 28), np.uint8))
    np.save("nan.npy", np.full((2, 8, 8), np.nan))
    np.save("good.npy", np.zeros((2, 8, 8)))
    assert main(["predict", str(run.folder), *more]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert says in shown.err


def test_evaluate_shows_each_class(run, capsys):
    expected = run.evaluate(threads=1)
    assert main(["evaluate", str(run.folder)]) == 0
    table = capsys.readouterr().out
    assert "how many of a class (row) are taken for which (column)" in table
    assert f"{expected.class_errors[8]:.2f}" in table
    assert main(["evaluate", str(run.folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["confusion"] == [list(row) for row in expected.confusion]
    assert found["class_errors"] == pytest.approx(list(expected.class_errors))


# Another family


def test_a_family_predicts_if_it_can(monkeypatch, tmp_path, raw, capsys):
    family = Family("softmax_family:SoftmaxConfig", "softmax_family:SoftmaxTrainer")
    monkeypatch.setitem(TRAINERS, "softmax", family)
    table = {
        "family": "softmax",
        "data": {"name": "digits", "limit": 120, "validation": 200},
        "learning": {"epochs": 1},
    }
    run = train(table, out=tmp_path / "run", progress=False)
    assert np.array_equal(run.predict(raw).classes, (run.data().test.images @ run.network()).argmax(1))
    np.save(tmp_path / "images.npy", raw[:2])
    assert main(["predict", str(run.folder), str(tmp_path / "images.npy")]) == 0
    monkeypatch.delattr(trainer_of("softmax"), "predict")
    with pytest.raises(ConfigurationError, match="family = 'softmax' has no method predict"):
        run.predict(raw)
