"""The benchmarks measure what they claim: counts against counts by hand, the twins against PyTorch
and eq. 14, records there and back. No clocks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fsp_dynamics import cli
from fsp_dynamics.cli import main
from fsp_dynamics.datasets import Split
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.rate.building import build_network, build_recipe
from fsp_dynamics.kernels.panels import from_panels
from fsp_dynamics.learning.rules.hebbian import hebbian_update
from fsp_dynamics.models.builders import loop_network
from fsp_dynamics.models.rate import Nudge, drive
from fsp_dynamics.solvers import make_solver
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.training.recipe import Learner

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # the benchmarks are a package of the source tree, not of the installation

from benchmarks import counting, interaction, learners, machine, recording, report, scaling, suite, training
from benchmarks.euler import Euler
from benchmarks.twin import Twin

SIZES = (12, 20, 18, 10)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.random((23, SIZES[0]), np.float32), rng.integers(0, SIZES[-1], 23), rng.permutation(23)


def test_multiplications_against_a_count_by_hand():
    """784-500-500-10: input 392,000, hidden 250,000, output and loop 5,000 each."""
    sizes = (784, 500, 500, 10)
    assert counting.parts(sizes) == (392_000, 255_000, 5_000)
    free = 392_000 + 2 * (5_000 + 250_000 + 5_000)
    nudged = 3 * (5_000 + 250_000 + 5_000) + 392_000 + 250_000 + 5_000 + 5_000
    assert counting.equilibrium(sizes, 2, 3, 0.25) == free + 0.25 * nudged
    back = (5_000 + 250_000) + (392_000 + 250_000 + 5_000)
    assert counting.backprop(sizes, 0.5) == 392_000 + 250_000 + 5_000 + 0.5 * back
    assert counting.parts((7, 5, 3)) == (35, 15, 15)


def test_the_sliders_that_are_timed_are_sliders():
    from fsp_dynamics.explorer.controls import Number, controls_of
    from fsp_dynamics.explorer.session import Session

    sliders = {control.name for control in controls_of(Session.of(None)) if isinstance(control, Number)}
    assert {name for name, _ in interaction.MOVES} <= sliders


@pytest.mark.parametrize("batch", [5, 23])
@pytest.mark.rare
def test_the_twin_learns_what_pytorch_learns(images, batch):
    torch = pytest.importorskip("torch")
    pixels, labels, order = images
    twin = Twin(SIZES, batch=batch, rate=0.3, rng=1)
    weights = [torch.tensor(w, requires_grad=True) for w in twin.matrices()]
    biases = [torch.tensor(b[:n].copy(), requires_grad=True) for b, n in zip(twin.biases, SIZES[1:], strict=True)]
    _, share = twin.learn(pixels, labels, order)
    for first in range(0, len(order), batch):
        index = order[first : first + batch]
        h = torch.from_numpy(pixels[index])
        for k in range(3):
            h = h @ weights[k] + biases[k]
            h = torch.relu(h) if k < 2 else h
        torch.nn.functional.cross_entropy(h, torch.from_numpy(labels[index])).backward()
        with torch.no_grad():
            for parameter in (*weights, *biases):
                parameter -= 0.3 * parameter.grad
                parameter.grad = None
    assert share == 1
    for mine, theirs in zip(twin.matrices(), weights, strict=True):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(twin.biases, biases, strict=True):
        np.testing.assert_allclose(mine[: len(theirs)], theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_twin_skips_the_samples_that_are_nearly_right_and_no_others(images):
    """It then learns what it learns from the others alone, as a mean over the whole batch."""
    pixels, labels, order = images
    twin = Twin(SIZES, batch=23, rate=0.3, rng=1)
    h = pixels
    for k, (w, b) in enumerate(zip(twin.matrices(), twin.biases, strict=True)):
        h = h @ w + b[: w.shape[1]]
        h = np.maximum(h, 0) if k < 2 else h
    error = np.exp(h) / np.exp(h).sum(1, keepdims=True) - np.eye(10)[labels]
    norms = np.linalg.norm(error, axis=1)
    border = float(np.median(norms)) * (1 - 1e-5)
    left = np.flatnonzero(norms > border)
    some = twin.copy()
    some.skip = border
    assert some.learn(pixels, labels, order)[1] == len(left) / 23
    other = twin.copy()
    other.rate, other.batch = 0.3 * len(left) / 23, len(left)
    other.learn(pixels[left], labels[left], np.arange(len(left)))
    for mine, theirs in zip(some.matrices(), other.matrices(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    none = twin.copy()
    none.skip = 2.0
    assert none.learn(pixels, labels, order)[1] == 0
    assert all((mine == before).all() for mine, before in zip(none.matrices(), twin.matrices(), strict=True))


def test_threads_change_no_bit_of_the_twin(images):
    twins = [Twin(SIZES, batch=5, rng=2) for _ in range(2)]
    for count, twin in enumerate(twins, 1):
        twin.learn(*images, threads=count)
    for one, two in zip(twins[0].weights + twins[0].biases, twins[1].weights + twins[1].biases, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.rare
def test_euler_learns_by_equation_14_and_reports_its_distance_from_equilibrium(images, threads):
    pixels, labels, _ = images
    network = loop_network(SIZES, loop_scale=0.3, rng=0)
    euler = Euler(network, batch=23, rate=0.7)
    before = [w.copy() for w in euler.weights]
    report = euler.learn(pixels, labels, np.arange(23), threads)
    solver, tolerance, target = make_solver("fixed_point"), Tolerance(1e-6), np.eye(10, dtype=np.float32)[labels]
    free = solver.relax(network, drive(network, pixels), None, None, tolerance)
    nudged = solver.relax(network, drive(network, pixels), free.state, Nudge(1.0, target), tolerance)
    update = hebbian_update(network, pixels, free, nudged)
    for after, was, wanted in zip(euler.weights, before, (update.input, *update.forward, update.loop), strict=True):
        change = np.empty_like(wanted)
        from_panels(after - was, change)
        # 20 steps end near the equilibrium
        np.testing.assert_allclose(change, 0.7 * wanted, atol=1e-3 * np.abs(wanted).max())
    assert report.share == 1
    assert report.residual <= report.residual_max < 1e-5


def test_ours_remembers_each_image_under_its_own_number():
    """Parts of the data leave what is known of the other images alone, and find their own again."""
    _, config = load_config("digits", {"network.hidden": [12, 12]})
    network, _ = build_network(config, 64, 10)
    rng, recipe = np.random.default_rng(0), build_recipe(config)
    split = Split(rng.random((60, 64), np.float32), rng.integers(0, 10, 60))
    ours = learners.Ours(Learner.start(network, recipe, 0), recipe, 1, 60)
    first, second = training.chunks_of(split, 25, 2, rng)
    ours.learn(first)
    known = {name: array.copy() for name, array in ours.learner.warm_start.arrays().items()}
    for name in ("outputs", "moves"):
        assert len(known[name]) == 60
        assert known[name][first.numbers].reshape(len(first), -1).any(1).mean() > 0.9
        assert not np.delete(known[name], first.numbers, 0).any()
    took = ours.learn(second)
    for name in ("outputs", "moves"):
        assert (ours.learner.warm_start.arrays()[name][first.numbers] == known[name][first.numbers]).all()
    assert ours.learner.warm_start.outputs[second.numbers].any(1).all()
    assert (ours.learner.warm_start.sums != known["sums"]).any()
    assert ours.learner.epoch == 0
    counts = [took.notes[name] for name in ("passes_free", "passes_nudged", "nudged_share")]
    assert took.products == counting.equilibrium(network.sizes, *counts)


def test_chunks_share_no_image():
    split = Split(np.arange(10, dtype=np.float32)[:, None], np.arange(10))
    rng = np.random.default_rng(0)
    chunks = training.chunks_of(split, 4, 4, rng)
    assert [len(chunk) for chunk in chunks] == [4] * 4
    for pair in (chunks[:2], chunks[2:]):
        assert len(np.unique(np.concatenate([chunk.numbers for chunk in pair]))) == 8
    assert all(
        (chunk.labels == chunk.numbers).all() and (chunk.images[:, 0] == chunk.numbers).all() for chunk in chunks
    )
    assert [len(chunk) for chunk in training.chunks_of(split, 99, 2, rng)] == [10, 10]


class Clockwork:
    """A method that takes a given time."""

    def __init__(self, name, seconds, log):
        self.name, self.seconds, self.log = name, iter(seconds), log

    def learn(self, part):
        self.log.append((self.name, part))
        return learners.Took(next(self.seconds), 3e6, {"share": 0.5})


def test_all_take_turns_and_ratios_are_of_the_same_chunk():
    log = []
    methods = {training.OURS: Clockwork("a", [1, 2, 30], log), training.PYTORCH: Clockwork("b", [2, 1, 10], log)}
    took = training.in_turn(methods, [0, 1, 2])
    assert log == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    rows = list(training.rows_of(took, 1000, preset="p", state="s", batch=20, threads=2))
    assert [(row.ratio, row.ratio_min, row.ratio_max, row.ms) for row in rows] == [(2, 0.5, 3, 2), (1, 1, 1, 2)]
    shared = training.with_shares(rows, [machine.Peak(1, 1, 1), machine.Peak(2, 5, 6)])
    assert shared[0].peak_share == pytest.approx(2 * 3e6 / 2e-3 / 6e9)


@pytest.fixture
def results():
    row = training.Row("p", "s", training.OURS, 20, 1, 0.5, 0.9, 0.8, 1.1, 2e6, 0.7, {"share": 0.5})
    points = [scaling.Point("width", n, training.TWIN, n, 2, 20, 1, n * 1e-3) for n in (256, 512)]
    return report.Results(
        {"cpu": "x"},
        {"quick": True},
        [machine.Peak(1, 90.0, 95.0)],
        [row],
        points,
        [scaling.MemoryUse("p", training.OURS, 1.0, 2.0)],
        [{"a": 1}],
    )


def test_json_there_and_back(results):
    assert report.Results.from_json(results.to_json()) == results


def test_every_row_is_in_a_table_and_the_picture_is_drawn(results, tmp_path):
    tables = report.tables(results)
    assert [table.row_count for table in tables] == [1, 1, 2, 1, 1]
    report.draw(results, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parts", "trainin"], ['Did you mean "training"']),
        (["--threads", "0"], ["threads = 0", "expected 1 to"]),
        (["--threads", "many"], ["--threads"]),
        (["--presets", "mnst-2x500", "--parts", "training"], ["mnist-2x500"]),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(capsys, arguments, words):
    assert main(["bench", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    for word in ("fsp: ", *words):
        assert word in shown.err


def test_without_the_sources_it_says_where_they_are(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(cli.tools, "__file__", str(tmp_path / "fsp_dynamics" / "cli" / "tools.py"))
    assert main(["bench"]) == 2
    assert "holds no benchmarks" in capsys.readouterr().err


def test_without_pytorch_it_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setattr(suite.importlib.util, "find_spec", lambda name: None)
    assert main(["bench"]) == 2
    assert "pip install 'fsp_dynamics[torch]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_quick_run_from_the_command_line(capsys, monkeypatch, tmp_path):
    """Digits, one thread: every method in both states, JSON on stdout and in the folder, a
    picture.
    """
    pytest.importorskip("torch")
    monkeypatch.setattr(machine, "peak", lambda threads: machine.Peak(threads, 90.0, 95.0))
    arguments = [
        "--quick",
        "--parts",
        "training",
        "--presets",
        "digits",
        "--threads",
        "1",
        "--out",
        str(tmp_path),
        "--json",
    ]
    assert main(["bench", *arguments]) == 0
    shown = json.loads(capsys.readouterr().out)
    kept = report.Results.from_json((tmp_path / "bench.json").read_text())
    assert json.loads(kept.to_json()) == shown
    assert [(row.state, row.method) for row in kept.training] == [
        (state, method) for state in ("epoch 1", "epoch 2") for method in training.METHODS
    ]
    assert all(row.ms > 0 and row.peak_share > 0 for row in kept.training)
    assert kept.machine["versions"]["torch"]
    assert kept.machine["tiles"] in str(report.tables(kept)[0].title)
    assert (tmp_path / "bench.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.rare
def test_memory_is_measured_in_processes_of_their_own():
    pytest.importorskip("torch")
    rows = scaling.memory(["digits"], lambda text: None, images=50)
    assert [row.method for row in rows] == [training.OURS, training.PYTORCH]
    assert all(50 < row.before_mb <= row.peak_mb < 5000 for row in rows)


def test_recording_is_timed_where_it_happens(monkeypatch):
    """Digits, every second of ten batches: five records in every epoch that is looked at, and
    their share of its time.
    """
    monkeypatch.setattr(recording, "EVERY", 2)
    rows = recording.measure(["digits"], training.Plan(chunk=200, rounds=3, epochs=1), lambda text: None)
    assert [(row.preset, row.state) for row in rows] == [("digits", "epoch 1"), ("digits", "epoch 2")]
    assert all(row.records == 5 and row.ms > 0 and 0 < row.share < 1 for row in rows)


def test_the_records_of_the_angles_survive_the_way_to_json_and_back():
    results = report.Results(
        {}, {}, recording=[recording.Recording("digits", "epoch 1", 100, 25, 6.5, 6.4, 2.3, 0.009)]
    )
    assert report.Results.from_json(results.to_json()) == results
    (table,) = report.tables(results)
    assert [column._cells[0] for column in table.columns][-1] == "0.90"
