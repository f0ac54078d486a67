"""A sweep is its members and nothing else: each is the run it would be alone; none is run twice,
none is lost, and the table counts what is there.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
from pictures import assert_legible, texts

from fsp_dynamics.cli import main
from fsp_dynamics.errors import CheckpointError, ConfigurationError, RunExistsError, RunLockedError, ShapeError
from fsp_dynamics.experiments import runner
from fsp_dynamics.experiments.backend import NUMBA, Backend
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.progress import StderrOutput
from fsp_dynamics.experiments.rate import trainer as rate_trainer
from fsp_dynamics.experiments.runner import train
from fsp_dynamics.experiments.stopping import Interrupted
from fsp_dynamics.experiments.sweeps import cluster
from fsp_dynamics.experiments.sweeps import runner as sweep_runner
from fsp_dynamics.experiments.sweeps import workers as sweep_work
from fsp_dynamics.experiments.sweeps.grid import read_grid, read_seeds
from fsp_dynamics.experiments.sweeps.plan import make_plan
from fsp_dynamics.experiments.sweeps.reporter import SweepReporter, member_line
from fsp_dynamics.experiments.sweeps.runner import open_sweep, sweep
from fsp_dynamics.experiments.sweeps.space import Distribution, Draws
from fsp_dynamics.experiments.sweeps.table import interval, points
from fsp_dynamics.experiments.sweeps.workers import Attempt, run_member
from fsp_dynamics.models.activations import ACTIVATIONS, Activation
from fsp_dynamics.plotting.sweep import plot_sweep

pytestmark = pytest.mark.filterwarnings("ignore:.*epoch .* output")
ROOT = Path(__file__).parents[3]
GRID = {"beta": [0.5, 1.0]}
SMALL = ["--data.limit", "120", "--data.validation", "200", "--network.hidden", "12", "--learning.rates.forward", "7.0"]
DIVERGING = {"learning.rates.input": 1e60, "learning.normalised": False, "learning.output_step": None}


def quietly(source, **options):
    return sweep(source, **{"progress": False, "threads": 1, **options})


def same_bits(folder, other):
    here, there = (runner.open_run(each) for each in (folder, other))
    for which in ("last", "best"):
        one, two = (run.network(which).parameters() for run in (here, there))
        if one.keys() != two.keys() or not all(np.array_equal(one[name], two[name]) for name in one):
            return False
    clocks = {"seconds", "images_per_second"}
    timeless = [
        [{k: v for k, v in record.items() if k not in clocks} for record in run.metrics] for run in (here, there)
    ]
    return timeless[0] == timeless[1]


def stamps(folder):
    """When each file was written last, but for what a call of its own writes."""
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and len(p.relative_to(folder).parts) > 1
    }


def record(folder, wanted, seconds=90.0):
    """What a file says, once it says what is wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            found = folder.read_text()
            if wanted(found):
                return found
        time.sleep(0.01)
    raise AssertionError(f"{folder} did not come to say it")


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    """A sweep of two values and two seeds in this process, and the table it was made from."""
    out = tmp_path_factory.mktemp("done") / "sweep"
    return quietly(tiny(), seeds=2, grid=GRID, out=out)


# What is run


def test_pairs_go_together_and_are_combined_with_the_grid(tiny):
    pairs = {"beta": [0.5, 1, 2], "rates.loop": [0.1, 0.2, 0.3]}
    plan = make_plan(tiny(), [0], {"batch": [10, 20]}, {}, pairs)
    assert plan.fields == ("learning.batch", "learning.beta", "learning.rates.loop")
    found = [tuple(member.values.values()) for member in plan.members]
    assert found == [(b, *pair) for b in (10, 20) for pair in ((0.5, 0.1), (1, 0.2), (2, 0.3))]
    assert plan.members[0].name.startswith("batch=10-beta=0.5-")


def test_draws_are_the_same_for_the_same_seed_and_more_draws_are_those_and_more(tiny):
    random = {"beta": "log:0.25,4", "batch": "integer:5,50", "rule": "choice:hebbian,mean_subtracted"}

    def drawn(**given):
        plan = make_plan(tiny(), [0], {}, {}, None, Draws(random, **given))
        return [member.values for member in plan.members]

    few, many = drawn(count=6), drawn(count=12)
    assert (len(few), len(many), many[:6]) == (6, 12, few)
    assert drawn(count=6, seed=1) != few
    assert all(0.25 <= v["learning.beta"] <= 4 and 5 <= v["learning.batch"] <= 50 for v in many)
    assert {v["learning.rule"] for v in many} == {"hebbian", "mean_subtracted"}
    alone = make_plan(tiny(), [0], {}, {}, None, Draws({"beta": random["beta"]}, count=6))
    assert [m.values["learning.beta"] for m in alone.members] == [v["learning.beta"] for v in few]
    both = make_plan(tiny(), 2, {"momentum": [0.0, 0.5]}, {}, None, Draws({"beta": random["beta"]}, count=3))
    assert len(both.members) == 2 * 3 * 2


def test_draws_that_are_alike_are_one_point(tiny):
    plan = make_plan(tiny(), [0], {}, {}, None, Draws({"batch": "integer:5,7"}, count=20))
    assert sorted(member.values["learning.batch"] for member in plan.members) == [5, 6, 7]


def test_a_logarithmic_draw_has_as_many_values_in_each_decade():
    rng = np.random.default_rng(0)
    values = np.array([Distribution("log", 0.01, 100.0).draw(rng) for _ in range(4000)])
    counts, _ = np.histogram(np.log10(values), bins=4, range=(-2, 2))
    assert counts.min() > 900
    uniform = np.array([Distribution("uniform", 2.0, 4.0).draw(rng) for _ in range(4000)])
    assert abs(uniform.mean() - 3) < 0.05
    assert all(float(f"{value:.4g}") == value for value in (*values[:50], *uniform[:50]))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pairs": {"beta": [1, 2], "momentum": [0.5]}}, ["pairs of different length", "learning.beta has 2"]),
        ({"pairs": {"beta": [1]}, "grid": {"beta": [2]}}, ["learning.beta is given twice", "grid, pairs and random"]),
        ({"pairs": {"bta": [1]}}, ["pairs field 'bta' is unknown", "did you mean 'beta'"]),
        ({"random": {"beta": "0.5,1"}}, ["random learning.beta = '0.5,1'", "KIND:VALUES"]),
        ({"random": {"beta": "lag:1,2"}}, ["random learning.beta = 'lag'", "did you mean 'log'"]),
        ({"random": {"beta": "log:0,2"}}, ["two numbers above 0"]),
        ({"random": {"beta": "uniform:2,1"}}, ["two numbers", "the smaller first"]),
        ({"random": {"batch": "integer:1.5,3"}}, ["whole numbers"]),
        ({"random": {"beta": "choice:"}}, ["no values"]),
        ({"random": {"beta": "log:1,2"}, "draws": 0}, ["draws = 0"]),
        ({"random": {"beta": "log:1,2"}, "draw_seed": -1}, ["draw_seed = -1"]),
    ],
)
def test_what_is_no_space_is_refused(tiny, tmp_path, given, words):
    with pytest.raises(ConfigurationError) as caught:
        quietly(tiny(), seeds=1, out=tmp_path / "sweep", epochs=1, **given)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "sweep").exists()


def test_a_random_sweep_goes_on_with_what_is_missing_and_keeps_how_it_was_drawn(tiny, tmp_path):
    random = {"beta": "log:0.5,2"}
    first = quietly(tiny(), seeds=1, random=random, draws=2, out=tmp_path / "sweep", epochs=1)
    before = {name: stamp for name, stamp in stamps(first.folder).items() if not name.startswith("figures/")}
    more = quietly(tiny(), seeds=1, random=random, draws=3, out=tmp_path / "sweep", epochs=1)
    assert {member.folder for member in first.members} < {member.folder for member in more.members}
    assert len(more.members) == 3
    assert {name: stamp for name, stamp in stamps(more.folder).items() if name in before} == before
    stored = json.loads((more.folder / "sweep.json").read_text())
    assert stored["drawn"] == [
        {"random": random, "draws": 2, "draw_seed": 0},
        {"random": random, "draws": 3, "draw_seed": 0},
    ]
    assert_legible(more.plot())


def test_the_command_line_has_pairs_and_draws(tiny, tmp_path, capsys):
    options = ["--pair", "beta=0.5,1", "--pair", "momentum=0,0.5", "--random", "weight_noise=log:0.01,0.1"]
    arguments = ["sweep", "digits", *SMALL, "--epochs", "1", "--seeds", "1", *options, "--draws", "2"]
    assert main([*arguments, "--out", str(tmp_path / "sweep"), "--no-progress", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(p["learning.beta"], p["learning.momentum"]) for p in found] == [(0.5, 0), (0.5, 0), (1, 0.5), (1, 0.5)]
    assert len({p["learning.weight_noise"] for p in found}) == 2
    assert all(0 < p["angle_loop"] < 180 for p in found)
    assert main([*arguments[:2], "--random", "beta", "--out", str(tmp_path / "other")]) == 2
    assert "random 'beta', expected FIELD=KIND:VALUES" in capsys.readouterr().err
    assert main([*arguments[:2], "--random", "beta=log:1,2", "--random", "beta=log:1,3"]) == 2
    assert "'beta' is given twice" in capsys.readouterr().err


def test_the_members_are_every_value_with_every_seed_named_from_both(tiny):
    plan = make_plan(tiny(), [3, 1], {"beta": [1, 0.25], "learning.batch": [20]}, {"epochs": 2})
    assert plan.fields == ("learning.batch", "learning.beta")
    assert [m.name for m in plan.members] == [
        f"batch=20-beta={beta}-seed={seed}" for beta in ("1", "0.25") for seed in (1, 3)
    ]
    for member in plan.members:
        assert member.config.seed == member.seed
        assert member.config.learning.beta == member.values["learning.beta"]
        assert (member.config.learning.batch, member.config.learning.epochs) == (20, 2)
    assert [m.name for m in make_plan(tiny(), 2, {}, {}).members] == ["seed=0", "seed=1"]


def test_a_list_is_one_value_and_goes_with_what_fits_it(tiny):
    grid = {"network.hidden": [[12], [9]], "forward": [[7.0], [3.5]], "frozen": [[], ["loop", "forward[0]"]]}
    plan = make_plan(tiny(), [0], grid, {})
    assert len(plan.members) == 8
    assert plan.members[-1].name == "hidden=9-forward=3.5-frozen=loop,forward[0]-seed=0"
    assert plan.members[0].name == "hidden=12-forward=7-frozen=[]-seed=0"


def test_names_are_those_of_folders_and_differ_as_the_members_do(tiny):
    soft = Activation("a/b c", *(ACTIVATIONS["logistic"].rate,) * 2)
    ACTIVATIONS["a/b c"] = soft
    try:
        long = [[f"forward[{k % 3}]" for k in range(40)], [f"forward[{k % 3}]" for k in range(39)] + ["loop"]]
        table = tiny(network={"hidden": [4, 4, 4]}, learning={"rates": {"forward": [1.0, 1.0, 1.0]}})
        names = [m.name for m in make_plan(table, 1, {"rho": ["a/b c", "logistic"], "frozen": long}, {}).members]
    finally:
        del ACTIVATIONS["a/b c"]
    assert len(set(names)) == 4
    assert all("/" not in name and " " not in name and len(name) < 200 for name in names)
    assert names[0].startswith("rho=a%2fb%20c-frozen=")


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"bta": [1]}, ["'bta' is unknown", "did you mean 'beta'"]),
        ({"colour": [1]}, ["'colour' is unknown"]),
        ({"name": ["mnist"]}, ["ambiguous", "data.name, solver.name"]),
        ({"seed": [1]}, ["seeds"]),
        ({"notes.paper": ["x"]}, ["unknown"]),
        ({"beta": []}, ["no values"]),
        ({"beta": 0.5}, ["expected a list"]),
        ({"beta": "abc"}, ["expected a list"]),
        ({"beta": [1, 1.0]}, ["beta=1-seed=0 twice"]),
        ({"beta": [1], "learning.beta": [2]}, ["learning.beta is given twice"]),
        ({"beta": [1.0, -3.0]}, ["learning.beta = -3.0", "-1/r"]),
        ({"batch": [20, 0]}, ["learning.batch = 0", "greater than or equal to 1"]),
        ({"hidden": [[12], [12, 12]]}, ["learning.rates.forward has 1 values, expected 2"]),
        ({"epochs": [2]}, ["learning.epochs is given twice"]),
        ({"method": ["nonsense"]}, ["nonsense"]),
        ({"limit": [100, 10**6]}, ["10"]),
    ],
)
def test_one_bad_value_refuses_the_sweep_and_nothing_is_written(tiny, tmp_path, grid, words):
    with pytest.raises(ConfigurationError) as caught:
        quietly(tiny(), seeds=1, grid=grid, out=tmp_path / "sweep", epochs=1)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jobs": 0}, "jobs = 0"),
        ({"threads": 0}, "threads = 0"),
        ({"threads": "2"}, "threads = '2', expected a whole number"),
        ({"grid": ["beta"]}, r"grid = \['beta'\], expected fields with their values"),
        ({"seeds": 0}, "seeds = 0"),
        ({"seeds": [1, -1]}, r"seeds = \[1, -1\]"),
        ({"seeds": True}, "seeds = True"),
        ({"seeds": "5"}, "seeds = '5'"),
        ({"seed": 3}, "give seeds"),
        ({"jobs": 2, "scheduler": "tcp://127.0.0.1:1"}, "leave jobs out"),
        ({"learning.bach": 3}, "did you mean 'learning.batch'"),
        ({"backend": "cuda"}, "backend = 'cuda'"),
        ({"device": "cpu"}, "device = 'cpu' belongs to backend torch"),
    ],
)
def test_other_arguments_are_refused_too(tiny, tmp_path, options, words):
    with pytest.raises(ConfigurationError, match=words):
        quietly(tiny(), out=tmp_path / "sweep", **options)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
@pytest.mark.rare
def test_a_worker_that_is_killed_while_it_has_nothing_to_do_is_replaced():
    pool = sweep_work.Processes(1, 1)
    nothing = ("", None, "no permit", None, 1)  # a member that ends at once

    def outcome():
        future = pool.submit(*nothing)
        futures.wait([future], timeout=60)
        return pool.collect(future)

    try:
        first = outcome()
        (executor,) = pool._idle
        for number in executor._processes:
            os.kill(number, signal.SIGKILL)
        end = time.monotonic() + 60
        while executor._flags.broken is None and time.monotonic() < end:
            time.sleep(0.05)
        assert executor._flags.broken is not None
        assert outcome() == first
        assert pool._idle != [executor]
    finally:
        pool.close()


def test_torch_computes_where_it_is_asked_for(tiny, tmp_path):
    pytest.importorskip("torch")
    backend = Backend("torch", "cpu", "bf16")
    for jobs in (1, 2):
        found = quietly(
            tiny(),
            seeds=[2],
            out=tmp_path / str(jobs),
            jobs=jobs,
            backend="torch",
            device="cpu",
            products="bf16",
            epochs=2,
        )
        (member,) = found.members
        alone = train(
            tiny(), out=tmp_path / f"alone-{jobs}", progress=False, seed=2, epochs=2, threads=1, backend=backend
        )
        assert same_bits(member.folder, alone.folder)
        reported = RunFolder(member.folder).read_json("environment.json")["backend"]
        assert "torch" in reported
        assert "bf16" in reported


def test_what_torch_cannot_do_refuses_the_sweep(tiny, tmp_path):
    pytest.importorskip("torch")
    for given, word in (
        ({"device": "cuda:99"}, "cuda:99"),
        ({"grid": {"solver.name": ["fixed_point", "reference"]}}, "'reference' does not run on"),
    ):
        with pytest.raises(ConfigurationError, match=word):
            quietly(tiny(), out=tmp_path / "sweep", backend="torch", **given)
        assert not (tmp_path / "sweep").exists()


def test_the_devices_of_a_cluster_are_looked_for_by_its_workers(tiny, tmp_path):
    if pytest.importorskip("torch").cuda.is_available():
        pytest.skip("there is a CUDA device here")
    (tmp_path / "permit").touch()
    outcome = run_member(
        str(tmp_path / "run"), load_config(tiny())[1], str(tmp_path / "permit"), None, 1, Backend("torch", "cuda")
    )
    assert outcome.status == "failed"
    assert outcome.reason.startswith("device = 'cuda', but ")
    assert not (tmp_path / "run").exists()
    assert sweep_runner._on_any_machine(Backend("torch", "cuda:7", "tf32")) == Backend("torch", "cpu", "tf32")
    assert sweep_runner._on_any_machine(NUMBA) is NUMBA


def test_an_activation_of_ones_own_is_refused_where_other_processes_would_not_know_it(tiny, tmp_path, monkeypatch):
    own = ACTIVATIONS["logistic"]
    monkeypatch.setitem(ACTIVATIONS, "mine", Activation("mine", lambda s: own.rate(s), own.slope))
    with pytest.raises(ConfigurationError, match=r"network\.rho = 'mine' is registered in this process alone"):
        quietly(tiny(network={"rho": "mine"}), jobs=2, out=tmp_path / "sweep")


def test_the_command_line_reads_values_lists_and_words():
    assert read_grid(
        ["beta=0.5,1", "phases=one-sided,centred", "rates.forward=[20,7]", "frozen=[loop, forward[0]],[]"]
    ) == {
        "beta": [0.5, 1],
        "phases": ["one-sided", "centred"],
        "rates.forward": [[20, 7]],
        "frozen": [["loop", "forward[0]"], []],
    }
    for wrong in ("beta", "beta=", "=1", "beta=1,,2", "beta=[1,2", "beta=1]"):
        with pytest.raises(ConfigurationError, match="expected FIELD=VALUE"):
            read_grid([wrong])
    with pytest.raises(ConfigurationError, match="'beta' is given twice"):
        read_grid(["beta=1", "beta=2"])
    assert read_seeds(np.int64(2)) == [0, 1]
    assert read_seeds([5, 3, 5]) == [3, 5]


# That it is run


def test_each_member_is_the_run_it_would_be_alone(done, tiny, tmp_path):
    assert [(m.values["learning.beta"], m.seed) for m in done.members] == [(0.5, 0), (0.5, 1), (1.0, 0), (1.0, 1)]
    for member in done.members:
        alone = train(
            tiny(),
            out=tmp_path / member.folder.name,
            progress=False,
            seed=member.seed,
            learning={"beta": member.values["learning.beta"]},
        )
        assert same_bits(member.folder, alone.folder)
        assert member.status == "finished"
        assert member.summary == runner.open_run(member.folder).summary
        assert RunFolder(member.folder).read_json("environment.json")["command"] == "sweep"
    assert len({m.summary["best"]["test_error"] for m in done.members}) > 1


@pytest.mark.slow
def test_processes_give_the_same_bits_each_on_one_thread(done, tiny, tmp_path):
    ended = []
    side_by_side = sweep(tiny(), seeds=2, grid=GRID, out=tmp_path / "two", jobs=2, progress=ended.append)
    for one, other in zip(done.members, side_by_side.members, strict=True):
        assert same_bits(one.folder, other.folder)
        where = RunFolder(other.folder).read_json("environment.json")
        assert set(where["threads"].values()) == {1}
    workers = {(m.folder / ".lock").read_text() for m in side_by_side.members}
    assert len(workers) == 2
    assert f"process {os.getpid()} " not in "".join(workers)
    assert sorted(each["member"] for each in ended) == sorted(m.folder.name for m in side_by_side.members)
    assert not list((tmp_path / "two").glob(".running-*"))


def test_again_it_runs_nothing(done, tiny):
    before = stamps(done.folder)
    again = quietly(tiny(), seeds=2, grid=GRID, out=done.folder, jobs=2)
    figures = {name for name in before if name.startswith("figures")}
    assert {k: v for k, v in stamps(done.folder).items() if k not in figures} == {
        k: v for k, v in before.items() if k not in figures
    }
    assert again == done
    assert open_sweep(done.folder) == done


def test_more_seeds_and_values_are_added_and_what_is_there_stays(tiny, tmp_path):
    first = quietly(tiny(), seeds=[1], grid=GRID, out=tmp_path)
    before = stamps(tmp_path)
    more = quietly(tiny(), seeds=2, grid={"learning.beta": [0.25, 1.0]}, out=tmp_path)
    after = stamps(tmp_path)
    assert all(after[name] == stamp for name, stamp in before.items() if not name.startswith("figures"))
    assert [m.folder.name for m in more.members] == [
        f"beta={b}-seed={s}" for b, s in [("0.25", 0), ("0.25", 1), ("0.5", 1), ("1", 0), ("1", 1)]
    ]
    assert {m.status for m in more.members} == {"finished"}
    assert all(member in more.members for member in first.members)
    assert [p["seeds"] for p in more.points()] == [2, 1, 2]


def test_more_epochs_go_on_and_fewer_are_refused(tiny, tmp_path):
    quietly(tiny(), seeds=1, out=tmp_path / "sweep", epochs=1)
    grown = quietly(tiny(), seeds=1, out=tmp_path / "sweep")
    assert grown.members[0].summary["epochs"] == 3
    assert same_bits(grown.members[0].folder, train(tiny(), out=tmp_path / "alone", progress=False).folder)
    with pytest.raises(ConfigurationError, match=r"learning\.epochs = 2, but .*seed=0 has finished 3"):
        quietly(tiny(), seeds=1, out=tmp_path / "sweep", epochs=2)


def test_runs_of_different_length_are_never_averaged(tiny, tmp_path):
    out = tmp_path / "sweep"
    quietly(tiny(), seeds=2, grid=GRID, out=out, epochs=1)
    before = stamps(out)
    with pytest.raises(ConfigurationError, match=r"epochs = 2, but .* holds 3 runs of 1 epochs .*beta=0\.5-seed=1"):
        quietly(tiny(), seeds=1, grid={"beta": [0.5]}, out=out, epochs=2)
    with pytest.raises(ConfigurationError, match=r"holds 4 runs of 1 epochs .*give their seeds and values as well"):
        quietly(tiny(), seeds=1, grid={"beta": [0.7]}, out=out, epochs=2)
    assert stamps(out) == before, "nothing was begun"
    grown = quietly(tiny(), seeds=2, grid=GRID, out=out, epochs=2)  # as the message advises
    assert [point["epochs"] for point in grown.points()] == [2, 2]
    with pytest.raises(ConfigurationError, match=r"epochs = 1, but .* holds 4 runs of 2 epochs .*ask for as many"):
        quietly(tiny(), seeds=1, grid={"beta": [0.7]}, out=out, epochs=1)


def test_a_sweep_of_before_with_several_lengths_counts_the_longest(tiny, tmp_path):
    out = tmp_path / "sweep"
    quietly(tiny(), seeds=2, out=out, epochs=1)
    train(str(out / "seed=0"), resume=True, progress=False, epochs=2)
    stored = json.loads((out / "sweep.json").read_text())
    stored["members"][0]["epochs"] = 2
    (out / "sweep.json").write_text(json.dumps(stored))
    found = open_sweep(out)
    assert [member.status for member in found.members] == ["finished", "unfinished"]
    (point,) = found.points()
    assert (point["runs"], point["seeds"], point["epochs"]) == (2, 1, 2)


def test_epochs_may_be_what_a_sweep_compares(tiny, tmp_path):
    found = quietly(tiny(), seeds=1, grid={"epochs": [1, 2]}, out=tmp_path / "sweep")
    assert [(point["seeds"], point["epochs"]) for point in found.points()] == [(1, 1), (1, 2)]
    assert open_sweep(found.folder).points() == found.points()


def test_a_value_of_the_grid_may_be_none(tiny, tmp_path):
    grid = read_grid(["output_step=none,0.2"])
    found = quietly(tiny(), seeds=1, grid=grid, out=tmp_path / "sweep", epochs=1)
    assert [member.values for member in found.members] == [
        {"learning.output_step": 0.2},
        {"learning.output_step": None},
    ]
    assert found.members[1].folder.name == "output_step=none-seed=0"
    assert open_sweep(found.folder).members == found.members
    assert (found.folder / "summary.csv").read_text().splitlines()[2].startswith("none,1,1,")


def test_depths_are_compared_in_pairs_with_their_rates(tiny, tmp_path):
    depths = [[8], [8, 8]]
    with pytest.raises(ConfigurationError, match="give both as pairs"):
        quietly(tiny(), seeds=1, grid={"hidden": depths}, out=tmp_path / "sweep", epochs=1)
    rates = [[7.0], [20.0, 7.0]]
    found = quietly(tiny(), seeds=1, pairs={"hidden": depths, "rates.forward": rates}, out=tmp_path / "sweep", epochs=1)
    assert [(m.values["network.hidden"], m.values["learning.rates.forward"]) for m in found.members] == list(
        zip(depths, rates, strict=True)
    )
    assert [m.status for m in found.members] == ["finished"] * 2
    one, two = found.rows()
    assert list(one) == list(two)
    assert (one["angle_W1"], one["angle_W2"]) == (found.members[0].summary["best"]["alignment_degrees"]["W1"], None)
    assert two["angle_W2"] == found.members[1].summary["best"]["alignment_degrees"]["W2"]
    header = (found.folder / "results.csv").read_text().splitlines()[0].split(",")
    assert header[-4:] == ["angle_W1", "angle_W2", "angle_loop", "reason"]
    assert "angle_loop" in (found.folder / "summary.csv").read_text().splitlines()[0].split(",")
    assert_legible(found.plot())


@pytest.mark.parametrize(
    ("grid", "changes", "words"),
    [
        (GRID, {"learning.batch": 10}, r"learning\.batch was 20, now 10"),
        ({}, {}, r"the grid was learning\.beta, now none"),
        ({**GRID, "batch": [20]}, {}, r"the grid was learning\.beta, now learning\.batch, learning\.beta"),
    ],
)
def test_another_sweep_is_refused_with_what_differs(done, tiny, grid, changes, words):
    before = stamps(done.folder)
    with pytest.raises(ConfigurationError, match=words):
        quietly(tiny(), seeds=3, grid=grid, out=done.folder, **changes)
    assert stamps(done.folder) == before


def test_what_is_no_sweep_is_refused(done, tiny, tmp_path):
    with pytest.raises(RunExistsError, match="is a run, not the folder of a sweep"):
        quietly(tiny(), seeds=1, out=done.members[0].folder)
    with pytest.raises(ConfigurationError, match="holds no sweep"):
        open_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text('{"fields": 3')
    with pytest.raises(CheckpointError, match=r"sweep\.json is damaged"):
        open_sweep(tmp_path)
    train(tiny(), out=tmp_path / "other" / "seed=0", progress=False, epochs=1, learning={"batch": 10})
    with pytest.raises(
        ConfigurationError, match=r"seed=0 was begun with another configuration: learning\.batch was 10, now 20"
    ):
        quietly(tiny(), seeds=1, out=tmp_path / "other")


def test_two_at_once_are_refused(tiny, tmp_path):
    with RunFolder(tmp_path).locked(), pytest.raises(RunLockedError, match=f"process {os.getpid()}"):
        quietly(tiny(), seeds=1, out=tmp_path)


def test_the_default_folder_is_below_sweeps(tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    found = quietly(
        "digits", seeds=1, epochs=1, **{"data.limit": 60, "network.hidden": 5, "learning.rates.forward": 1.0}
    )
    assert str(found.folder) == "sweeps/digits"
    assert found.members[0].status == "finished"


# What may happen


def test_an_unfinished_member_goes_on_to_the_bits_of_an_unbroken_run(tiny, tmp_path, unbroken, monkeypatch, killed):
    killed(2)
    with pytest.raises(Interrupted, match=r"holds 0 finished of 1 runs, start it again to continue"):
        quietly(tiny(), seeds=1, out=tmp_path)
    monkeypatch.undo()
    assert open_sweep(tmp_path).members[0].status == "unfinished"
    assert quietly(tiny(), seeds=1, out=tmp_path).members[0].status == "finished"
    assert same_bits(tmp_path / "seed=0", unbroken(tiny()).folder)


def test_a_signal_stops_here_keeps_what_is_finished_and_goes_on(tiny, tmp_path, monkeypatch):
    real, seen = rate_trainer.train_epoch, []

    def signalled(learner, *arguments, **more):
        seen.append(learner.epoch)
        if len(seen) == 7:  # the second epoch of the second member: first ones are left once, after their last batch
            os.kill(os.getpid(), signal.SIGTERM)
        return real(learner, *arguments, **more)

    monkeypatch.setattr(rate_trainer, "train_epoch", signalled)
    with pytest.raises(Interrupted, match="holds 1 finished of 3 runs") as caught:
        quietly(tiny(), seeds=3, out=tmp_path)
    assert caught.value.signum == signal.SIGTERM
    monkeypatch.undo()
    found = open_sweep(tmp_path)
    assert [m.status for m in found.members] == ["finished", "interrupted", "not begun"]
    assert found.members[1].summary["epochs"] >= 1
    assert list(csv.DictReader((tmp_path / "results.csv").open()))[1]["status"] == "interrupted"
    before = stamps(tmp_path / "seed=0")
    assert {m.status for m in quietly(tiny(), seeds=3, out=tmp_path).members} == {"finished"}
    assert stamps(tmp_path / "seed=0") == before


def test_a_member_that_diverges_is_tried_once_more_and_stays_in_the_table(tiny, tmp_path):
    table = tiny(learning={"normalised": False, "output_step": None})
    with pytest.warns(UserWarning, match="input=1") as caught:
        found = quietly(table, seeds=1, grid={"rates.input": [0.01, 1e60], "rates.forward": [0.01]}, out=tmp_path)
    reported = [str(each.message) for each in caught if "input=1e+60" in str(each.message)]
    assert ["is tried once more" in text for text in reported] == [True, False]
    assert all("not finite" in text for text in reported)
    fine, bad = found.members
    assert (fine.status, bad.status) == ("finished", "failed")
    assert found.failed == (bad,)
    assert "not finite" in bad.reason
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [(row["member"], row["status"]) for row in rows] == [(m.folder.name, m.status) for m in found.members]
    assert rows[1]["reason"] == bad.reason
    assert [(p["runs"], p["seeds"]) for p in found.points()] == [(1, 1), (1, 0)]
    assert found.points()[1]["test_error"] is None


def test_a_failure_that_passes_is_made_good(tiny, tmp_path, monkeypatch, unbroken):
    real, tries = runner.run, []

    def fails_once(config, *arguments, **more):
        tries.append(config.seed)
        if tries == [0]:
            raise OSError(28, "No space left on device")
        return real(config, *arguments, **more)

    monkeypatch.setattr(runner, "run", fails_once)
    with pytest.warns(UserWarning, match=r"seed=0 failed and is tried once more: OSError: .*No space left"):
        found = quietly(tiny(), seeds=2, out=tmp_path)
    assert tries == [0, 1, 0]
    assert [m.status for m in found.members] == ["finished", "finished"]
    assert same_bits(tmp_path / "seed=0", unbroken(tiny()).folder)


def held_by(folder):
    """The process that trains in `folder`, if it is not this one; None while there is none."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        pid = int((folder / ".lock").read_text().split()[1])
        return pid if pid != os.getpid() and (folder / "metrics.jsonl").read_bytes().count(b"\n") else None
    return None


def kill_in_the_middle(folder, times, killed):
    """Kill whoever trains in `folder`, so many times; none that has finished: they are halted
    first, and looked at.
    """
    end = time.monotonic() + 120
    while len(killed) < times and time.monotonic() < end:
        pid = held_by(folder)
        if pid is not None and pid not in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                if RunFolder(folder).read_json("summary.json").get("status") == "finished":
                    return os.kill(pid, signal.SIGCONT)  # it was too quick to be killed
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.rare
def test_killed_workers_cost_no_member_but_the_one_that_is_killed_twice(tiny, tmp_path):
    table = tiny(learning={"epochs": 120}, probes={"samples": 0})
    plans = {"seed=0": 1, "seed=1": 2}
    killed = {name: [] for name in plans}
    killers = [
        threading.Thread(target=kill_in_the_middle, args=(tmp_path / "sweep" / name, times, killed[name]))
        for name, times in plans.items()
    ]
    for killer in killers:
        killer.start()
    with pytest.warns(UserWarning, match="failed") as caught:
        found = quietly(table, seeds=3, out=tmp_path / "sweep", jobs=2)
    for killer in killers:
        killer.join()
    reported = [str(each.message) for each in caught if "failed" in str(each.message)]
    assert (
        sum(
            "seed=0 failed and is tried once more: its worker was killed (" in text and "SIGKILL" in text
            for text in reported
        )
        == 1
    )
    assert sum(text.startswith("seed=1 failed") for text in reported) == 2
    assert {name: len(pids) for name, pids in killed.items()} == plans
    assert [m.status for m in found.members] == ["finished", "failed", "finished"]
    assert "its worker was killed" in found.members[1].reason
    again = quietly(table, seeds=3, out=tmp_path / "sweep", jobs=2)
    assert [m.status for m in again.members] == ["finished"] * 3
    for seed in (0, 1):
        assert same_bits(
            tmp_path / "sweep" / f"seed={seed}",
            train(table, out=tmp_path / f"alone-{seed}", progress=False, seed=seed, threads=1).folder,
        )


def test_a_worker_without_its_permit_stops_where_that_is_harmless(tiny, tmp_path, monkeypatch, unbroken):
    config, permit = load_config(tiny())[1], tmp_path / ".running-x"
    arguments = (str(tmp_path / "run"), config, str(permit), None, 1)
    assert run_member(*arguments).status == "interrupted"
    assert not (tmp_path / "run").exists(), "it does not even begin"
    permit.touch()
    monkeypatch.setattr(sweep_work, "POLL", 0.0)
    real = rate_trainer.train_epoch

    def until_then(learner, *more, **options):
        if learner.epoch == 2:
            permit.unlink()
        return real(learner, *more, **options)

    monkeypatch.setattr(rate_trainer, "train_epoch", until_then)
    stopped = run_member(*arguments)
    assert (stopped.status, stopped.signum) == ("interrupted", signal.SIGINT)
    assert runner.open_run(tmp_path / "run").summary["epochs"] == 2
    monkeypatch.undo()
    permit.touch()
    assert run_member(*arguments).status == "finished"
    assert same_bits(tmp_path / "run", unbroken(tiny()).folder)


def test_permits_of_a_killed_sweep_are_taken_back_before_members_begin(tiny, tmp_path, monkeypatch):
    real, seen = runner.run, []

    def looks(*arguments, **more):
        seen.extend(path.name for path in tmp_path.glob(".running-*"))
        return real(*arguments, **more)

    monkeypatch.setattr(runner, "run", looks)
    (tmp_path / ".running-old").touch()
    quietly(tiny(), seeds=1, out=tmp_path, epochs=1)
    assert len(seen) == 1
    assert seen != [".running-old"]
    assert not list(tmp_path.glob(".running-*"))


def test_a_folder_that_is_still_held_is_waited_for(tiny, tmp_path, monkeypatch):
    permit, folder = tmp_path / ".running-x", RunFolder(tmp_path / "run")
    permit.touch()
    arguments = (str(folder.path), load_config(tiny(), {"epochs": 1})[1], str(permit), None, 1)
    monkeypatch.setattr(sweep_work, "PATIENCE", 0.3)
    with folder.locked():
        given_up = run_member(*arguments)
    assert given_up.status == "failed"
    assert "is being written by process" in given_up.reason
    monkeypatch.undo()
    held, release = threading.Event(), threading.Event()

    def holds():
        with folder.locked():
            held.set()
            release.wait(60)

    holder = threading.Thread(target=holds)
    holder.start()
    held.wait(60)
    threading.Timer(1.0, release.set).start()
    assert run_member(*arguments).status == "finished"
    holder.join()


@pytest.mark.slow
@pytest.mark.cli
@pytest.mark.rare
def test_control_c_stops_processes_that_it_does_not_reach(tmp_path):
    arguments = [
        "sweep",
        "digits",
        "--seeds",
        "3",
        "--jobs",
        "2",
        "--out",
        str(tmp_path),
        "--no-progress",
        *SMALL,
        "--epochs",
    ]
    command = [sys.executable, "-m", "fsp_dynamics", *arguments, "100000"]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for seed in (0, 1):
            record(tmp_path / f"seed={seed}" / "metrics.jsonl", lambda text: text.count("\n") >= 2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert (
        err.splitlines()[-1]
        == f"fsp: stopped by a signal; {tmp_path} holds 0 finished of 3 runs, start it again to continue"
    )
    assert [m.status for m in open_sweep(tmp_path).members] == ["interrupted", "interrupted", "not begun"]
    epochs = max(len(runner.open_run(tmp_path / f"seed={seed}").metrics) for seed in (0, 1)) + 1
    assert main([*arguments, str(epochs)]) == 0  # of all three: a sweep has runs of one length
    assert [m.status for m in open_sweep(tmp_path).members] == ["finished"] * 3


def test_a_missing_dask_or_scheduler_is_refused_in_one_line(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    out = tmp_path / "sweep"
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        ConfigurationError,
        match=r"needs dask and distributed, which are not installed; pip install 'fsp_dynamics\[cluster\]'",
    ):
        quietly(tiny(), seeds=1, out=out, scheduler="tcp://127.0.0.1:9")
    monkeypatch.undo()
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(ConfigurationError, match=f"scheduler = '{address}' cannot be reached") as caught:
            quietly(tiny(), seeds=1, out=out, scheduler=address)
        assert "\n" not in str(caught.value)
    assert not out.exists()


# What is reported


def test_the_interval_is_students():
    """n = 5: t = 2.7764, from tables; of errors 1..5 the standard deviation is sqrt(10 / 4)."""
    mean, spread, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, spread) == (3.0, pytest.approx(np.sqrt(2.5)))
    half = 2.7764451 * np.sqrt(2.5) / np.sqrt(5)
    assert (low, high) == (pytest.approx(3 - half), pytest.approx(3 + half))
    two = interval([2.0, 4.0])
    assert two == (3.0, pytest.approx(np.sqrt(2)), pytest.approx(3 - 12.7062047), pytest.approx(3 + 12.7062047))
    assert interval([7.0]) == (7.0, None, None, None)
    assert interval([]) == (None,) * 4


def test_the_interval_covers_the_mean_as_often_as_stated():
    rng = np.random.default_rng(0)
    found = [interval(list(rng.normal(4.0, 0.5, 4))) for _ in range(2000)]
    assert np.mean([low <= 4.0 <= high for _, _, low, high in found]) == pytest.approx(0.95, abs=0.015)


def test_the_table_is_what_the_finished_runs_say(done):
    for point, group in zip(done.points(), (done.members[:2], done.members[2:]), strict=True):
        assert point["learning.beta"] == group[0].values["learning.beta"]
        assert (point["runs"], point["seeds"]) == (2, 2)
        for key in ("test_error", "valid_error", "train_error"):
            errors = np.array([m.summary["best"][key] for m in group])
            assert point[key] == pytest.approx(errors.mean())
            assert point[f"{key}_sd"] == pytest.approx(abs(errors[0] - errors[1]) / np.sqrt(2))
            assert point[f"{key}_high"] - point[key] == pytest.approx(12.7062047 * abs(errors[0] - errors[1]) / 2)
        assert point["epochs"] == 3
        assert point["seconds"] == pytest.approx(np.mean([m.summary["seconds"] for m in group]))


def test_unfinished_runs_do_not_count():
    reported = [
        (1, "finished", 3.0),
        (1, "interrupted", 90.0),
        (1, "finished", 5.0),
        (2, "failed", None),
        ([7], "finished", 1.0),
    ]
    rest = {"valid_error": None, "train_error": 1.0, "best_epoch": 1, "epochs": 1, "seconds": 1.0}
    rows = [{"a": value, "status": status, "test_error": error, **rest} for value, status, error in reported]
    one, two, three = points(["a"], rows)
    assert (one["test_error"], one["seeds"], one["runs"]) == (4.0, 2, 3)
    assert (one["valid_error"], one["valid_error_low"]) == (None, None)
    assert (two["test_error"], two["seeds"], two["runs"]) == (None, 0, 1)
    assert three["a"] == [7]


def test_the_files_hold_what_the_record_does(done):
    rows = list(csv.DictReader((done.folder / "results.csv").open()))
    frame = done.to_frame()
    assert list(rows[0]) == list(frame.columns)
    assert [float(row["test_error"]) for row in rows] == frame["test_error"].tolist()
    assert frame.attrs["units"]["test_error"] == "%"
    summary = list(csv.DictReader((done.folder / "summary.csv").open()))
    assert [float(row["test_error_low"]) for row in summary] == [p["test_error_low"] for p in done.points()]
    assert json.loads((done.folder / "sweep.json").read_text())["fields"] == ["learning.beta"]
    assert (done.folder / "figures" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (done.folder / "figures" / "sweep.svg").read_text()


def test_a_sweep_and_its_members_show_themselves_in_one_line(done):
    assert repr(done) == f"<Sweep {done.folder} over learning.beta: 4 of 4 runs finished>"
    member = done.members[0]
    error = f"{member.summary['best']['test_error']:.2f} %"
    assert repr(member) == f"<Member beta=0.5-seed=0: finished, test error {error}>"
    assert f"<th>beta=0.5-seed=0</th><td>{error}</td>" in done._repr_html_()


def test_a_line_for_a_member_that_ended():
    assert member_line(3, 20, "a", Attempt("failed", "why")) == " 3 of 20   a failed again: why"
    assert member_line(1, 2, "a", Attempt("finished", summary={"seconds": 2.0})) == "1 of 2   a   2.0 s"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_on_a_terminal_a_bar_moves_with_the_runs(monkeypatch, kind):
    screen = kind()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.delenv("FSP_QUIET")
    bar = SweepReporter(StderrOutput())
    bar.start(3, 1)
    bar.end_member(
        "seed=1", Attempt("finished", notes=("something",), summary={"best": {"test_error": 4.5}, "seconds": 2.0})
    )
    bar.warn("seed=2 failed and is tried once more: why")
    bar.close()
    shown = screen.getvalue()
    for line in (
        "1 of 3 runs are finished already",
        "note: seed=1: something",
        "2 of 3   seed=1   test  4.50 %   2.0 s",
        "seed=2 failed and is",
    ):
        assert line in shown
    assert ("2 of 3 runs" in shown) == (kind is Terminal)


GRIDS = {
    "seeds": {},
    "numbers": {"learning.beta": [0.25, 0.5, 1.0, 2.0]},
    "decades": {"learning.rates.input": [0.1, 1.0, 10.0, 100.0]},
    "words": {"network.rho": ["hard_sigmoid", "logistic", "shifted_tanh"]},
    "lists": {"learning.rates.forward": [[20.0, 7.0], [30.0, 7.0]]},
    "truths": {"learning.normalised": [True, False]},
    "numbers and words": {"learning.phases": ["one-sided", "centred", "random-sign"], "learning.beta": [0.5, 1.0, 2.0]},
    "many numbers": {"learning.batch": [1, 5, 10, 20, 50], "learning.beta": [0.1, 0.2, 0.4, 0.8]},
    "words and words": {"learning.phases": ["one-sided", "centred"], "network.rho": ["hard_sigmoid", "logistic"]},
    "three": {"learning.phases": ["one-sided", "centred"], "learning.beta": [0.5, 1.0], "learning.batch": [10, 20]},
}


def made_up(grid, seeds=4):
    rng = np.random.default_rng(1)
    rest = {"status": "finished", "valid_error": 1.0, "train_error": 1.0, "best_epoch": 1, "epochs": 1, "seconds": 1.0}
    rows = [
        {**dict(zip(grid, values, strict=True)), "seed": seed, **rest, "test_error": 4 + k % 5 + rng.random()}
        for k, values in enumerate(itertools.product(*grid.values()))
        for seed in range(seeds)
    ]
    return list(grid), rows, points(list(grid), rows)


def heights(ax, horizontal):
    """The errors at which markers stand."""
    return sorted(
        float(value)
        for line in ax.get_lines()
        if len(line.get_xdata()) == 1 or (line.get_linestyle() == "None")
        for value in (line.get_xdata() if horizontal else line.get_ydata())
    )


@pytest.mark.parametrize("name", GRIDS)
def test_every_seed_and_mean_is_drawn_and_can_be_read(name):
    fields, rows, means = made_up(GRIDS[name])
    figure = plot_sweep(fields, rows, means)
    (ax,) = figure.axes
    assert_legible(figure)
    expected = [row["test_error"] for row in rows] + ([p["test_error"] for p in means] if fields else [])
    assert heights(ax, name == "three") == pytest.approx(sorted(expected))
    for line in ax.get_lines():
        for place in line.get_transform().transform(line.get_xydata()) if len(line.get_xydata()) == 1 else ():
            assert ax.bbox.contains(*place)
    low, high = ax.get_xlim() if name == "three" else ax.get_ylim()
    assert low < min(expected)
    assert max(expected) < high
    assert ("log" if name == "decades" else "linear") == ax.get_xscale()
    written = [text for text, _ in texts(figure)]
    assert "test error (%)" in written
    if len(fields) == 2:
        key = "rho" if name == "words and words" else "phases" if name == "numbers and words" else "beta"
        (series,) = (values for field, values in GRIDS[name].items() if field.endswith(key))
        assert [text for text in written if text.startswith(f"{key} ")] == [
            f"{key} {value if isinstance(value, str) else format(value, 'g')}" for value in series
        ]


def test_values_however_far_apart_are_drawn():
    figure = plot_sweep(*made_up({"learning.rates.input": [20.0, 1e30, 1e60]}))
    assert figure.axes[0].get_xscale() == "log"
    assert_legible(figure)


def test_the_best_line_is_at_the_top():
    fields, rows, means = made_up(GRIDS["three"])
    (ax,) = plot_sweep(fields, rows, means).axes
    best = min(means, key=lambda point: point["test_error"])
    assert (
        ax.get_yticklabels()[-1].get_text()
        == f"phases {best['learning.phases']}, beta {best['learning.beta']:g}, batch {best['learning.batch']}"
    )
    assert ax.get_ylim()[0] < ax.get_ylim()[1]


def test_what_is_not_finished_is_noted_and_not_drawn():
    fields, rows, _ = made_up(GRIDS["numbers"])
    rows[0] |= {"status": "failed", "test_error": 77.0}
    figure = plot_sweep(fields, rows, points(fields, rows))
    assert 77.0 not in heights(figure.axes[0], False)
    assert any("1 of 16 runs are not finished" in text for text, _ in texts(figure))
    with pytest.raises(ConfigurationError, match="none of 1 runs is finished"):
        plot_sweep(fields, rows[:1], points(fields, rows[:1]))


def test_axes_may_be_given_and_the_picture_written(done, tmp_path):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert done.plot(ax, path=tmp_path / "deep" / "a.svg") is ax.figure
    assert (tmp_path / "deep" / "a.svg").is_file()
    with pytest.raises(ShapeError):
        plot_sweep(*made_up({}), Figure().subplots(2))


def test_an_axis_does_not_reach_beyond_what_an_error_can_be():
    fields, rows, _ = made_up(GRIDS["numbers"], seeds=2)
    for row in rows:
        row["test_error"] = 2.0 + 90 * (row["seed"] == 1)
    low, high = plot_sweep(fields, rows, points(fields, rows)).axes[0].get_ylim()
    assert (low, high) == (-1.0, 101.0)


# The command


def test_the_command_prints_the_table(tmp_path, capsys):
    arguments = [
        "sweep",
        "digits",
        "--seeds",
        "2",
        "--grid",
        "beta=0.5,1",
        "--out",
        str(tmp_path),
        *SMALL,
        "--epochs",
        "1",
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "4 of 4   beta=1-seed=1   test" in shown.err
    found = open_sweep(tmp_path)
    point = found.points()[0]
    for text in (
        "4 of 4 runs finished",
        "learning.beta",
        "95 % interval",
        f"{point['test_error']:.2f}",
        f"{point['test_error_low']:.2f} to",
    ):
        assert text in shown.out
    assert main([*arguments, "--json", "--no-progress"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == found.points()
    assert "4 of 4 runs are finished already" in shown.err
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert [record["run"] for record in json.loads(capsys.readouterr().out)] == [str(m.folder) for m in found.members]
    assert main(["compare", str(found.members[0].folder), str(found.members[2].folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["configuration"] == {"learning.beta": [0.5, 1.0]}


def test_4_for_a_member_that_failed_after_all_others(tmp_path, capsys):
    explosive = ["--learning.normalised", "false", "--grid", "input=0.01,1e60", "--grid", "forward=[0.01]"]
    small = [*SMALL[:-2], "--epochs", "1"]
    assert main(["sweep", "digits", "--seeds", "1,", "--out", str(tmp_path), *small, *explosive]) == 4
    shown = capsys.readouterr()
    assert "1 of 2 runs finished" in shown.out
    bad = tmp_path / "input=1e+60-forward=0.01-seed=1"
    assert shown.err.splitlines()[-1].startswith(f"failed: {bad}: ")
    assert shown.err.count("tried once more") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grid", "bta=1"], ["'bta' is unknown", "did you mean 'beta'"]),
        (["--grid", "name=mnist"], ["ambiguous", "solver.name"]),
        (["--grid", "beta"], ["expected FIELD=VALUE"]),
        (["--grid", "beta=1", "--grid", "beta=2"], ["given twice"]),
        (["--grid", "beta=1,-3"], ["learning.beta = -3"]),
        (["--seeds", "many"], ["seeds = 'many'"]),
        (["--seeds", "0"], ["seeds = 0"]),
        (["--seeds", "1,-2"], ["seeds = [1, -2]"]),
        (["--seed", "3"], ["give seeds"]),
        (["--jobs", "0"], ["jobs = 0"]),
        (["--job", "2"], ["Did you mean --jobs"]),
    ],
)
def test_usage_and_configuration_end_with_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "digits", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    for word in words:
        assert word in line
    assert not list(tmp_path.iterdir())
