"""A sweep on a cluster of this machine alone, of which one worker is killed while it trains: no
run is lost, and each has the bits it has alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.runner import open_run, train
from fsp_dynamics.experiments.stopping import Interrupted
from fsp_dynamics.experiments.sweeps.plan import make_plan
from fsp_dynamics.experiments.sweeps.runner import open_sweep, sweep
from fsp_dynamics.experiments.sweeps.space import Draws

pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.cli, pytest.mark.filterwarnings("ignore:.*epoch .* output")]
ROOT = Path(__file__).parents[3]
GRID = {"beta": [0.5, 1.0]}
LONG = {
    "data": {"name": "digits", "limit": 120, "validation": 200},
    "network": {"hidden": [12], "loop_scale": 0.3},
    "learning": {
        "epochs": 40,
        "batch": 20,
        "output_step": 0.2,
        "rates": {"input": 20.0, "forward": [7.0], "loop": 0.5},
    },
    "solver": {"absolute": 1e-4},
    "probes": {"samples": 0},
}
SECONDS = 120


def until(found, what):
    """What `found()` returns, once it returns something."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        answer = found()
        if answer:
            return answer
        time.sleep(0.01)
    raise AssertionError(f"waited {SECONDS} s for {what}")


class Cluster:
    """A scheduler on loopback and its workers, processes of this test; all of them end with it."""

    def __init__(self, folder: Path, failures: int) -> None:
        self.folder, self.failures, self.processes = folder, failures, []
        self.start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", folder / "scheduler.json")
        self.address = until(self._address, "the scheduler")

    def _address(self) -> str | None:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.folder / "scheduler.json").read_text())["address"]
        return None

    def start(self, kind: str, *arguments: object) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(self.failures),
        }
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *map(str, arguments), "--host", "127.0.0.1"]
        log = (self.folder / f"{kind}-{len(self.processes)}.log").open("wb")
        self.processes.append(
            subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        )
        log.close()
        return self.processes[-1]

    def worker(self, threads: int = 1) -> subprocess.Popen[bytes]:
        """A worker without a nanny, so that what is killed is what works, and stays dead."""
        return self.start(
            "worker",
            self.address,
            "--nthreads",
            threads,
            "--nworkers",
            1,
            "--no-nanny",
            "--no-dashboard",
            "--memory-limit",
            0,
        )

    def end(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


@pytest.fixture
def cluster(tmp_path, request):
    """Its scheduler gives a task to another worker as often as its worker may die: by default
    three times, as dask does.
    """
    (tmp_path / "cluster").mkdir()
    started = Cluster(tmp_path / "cluster", getattr(request, "param", 3))
    try:
        yield started
    finally:
        started.end()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """{name: the run of each member without a sweep}."""
    folder = tmp_path_factory.mktemp("alone")
    plan = make_plan(LONG, 2, GRID, {})
    return {m.name: train(m.config, out=folder / m.name, progress=False, threads=1) for m in plan.members}


def at_work(out, processes):
    """(process, folder) of a worker that is halted in the middle of a member; None while there is
    none.
    """
    for folder in sorted(out.glob("*-seed=*")):
        with contextlib.suppress(OSError, IndexError, ValueError):
            pid = int((folder / ".lock").read_text().split()[1])
            if pid not in [p.pid for p in processes] or (folder / "metrics.jsonl").read_bytes().count(b"\n") < 8:
                continue
            os.kill(pid, signal.SIGSTOP)
            if RunFolder(folder).read_json("summary.json").get("status") == "unfinished":
                return next(p for p in processes if p.pid == pid), folder
            os.kill(pid, signal.SIGCONT)
    return None


def same_bits(folder, other):
    here, there = (open_run(each).network("last").parameters() for each in (folder, other))
    return here.keys() == there.keys() and all(np.array_equal(here[name], there[name]) for name in here)


@pytest.mark.parametrize("cluster", [3, 0], ids=["the scheduler tries again", "the scheduler gives up"], indirect=True)
@pytest.mark.rare
def test_a_worker_killed_while_it_trains_costs_no_run_and_no_bit(cluster, tmp_path, alone):
    workers, killed = [cluster.worker(), cluster.worker()], []

    def kill():
        worker, folder = until(lambda: at_work(tmp_path / "sweep", workers), "a worker at work")
        killed.append((worker.pid, folder.name, len(RunFolder(folder).metrics())))
        worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = sweep(LONG, seeds=2, grid=GRID, out=tmp_path / "sweep", scheduler=cluster.address, progress=False)
    killer.join()
    ((pid, name, epochs),) = killed
    assert 8 <= epochs < LONG["learning"]["epochs"]
    retried = [str(each.message) for each in caught if "tried once more" in str(each.message)]
    assert [text.split()[0] for text in retried] == [name] * (cluster.failures == 0)
    assert [m.status for m in found.members] == ["finished"] * 4
    resumed = RunFolder(tmp_path / "sweep" / name).read_json("environment.json")["resumed"]
    assert len(resumed) == 1
    assert resumed[0]["epoch"] >= epochs - 1
    (survivor,) = [w.pid for w in workers if w.pid != pid]
    assert (tmp_path / "sweep" / name / ".lock").read_text().startswith(f"process {survivor} ")
    for member in found.members:
        where = RunFolder(member.folder).read_json("environment.json")
        assert set(where["threads"].values()) == {1}
        assert same_bits(member.folder, alone[member.folder.name].folder)


@pytest.mark.rare
def test_draws_and_pairs_run_on_a_cluster_and_go_on_there(cluster, tmp_path):
    cluster.worker()
    pairs, random = {"momentum": [0.0, 0.5], "batch": [20, 10]}, {"beta": "log:0.5,2"}
    given = {"seeds": 1, "pairs": pairs, "random": random, "epochs": 1, "progress": False}
    one, two = (
        sweep(LONG, draws=draws, out=tmp_path / "sweep", scheduler=cluster.address, **given) for draws in (1, 2)
    )
    assert [len(found.members) for found in (one, two)] == [2, 4]
    plan = make_plan(LONG, 1, {}, {"epochs": 1}, pairs, Draws(random, 2))
    assert {m.folder.name for m in two.members} == {m.name for m in plan.members}
    assert {m.status for m in two.members} == {"finished"}
    assert [m.summary for m in two.members if m.folder in {each.folder for each in one.members}] == [
        m.summary for m in one.members
    ]
    assert all(0 < row["angle_loop"] < 180 for row in two.rows())


@pytest.mark.rare
def test_a_signal_stops_the_members_on_the_cluster_and_a_lost_scheduler_is_reported(cluster, tiny, tmp_path):
    table, out = tiny(learning={"epochs": 100_000}, probes={"samples": 0}), tmp_path / "sweep"
    worker = cluster.worker()

    def begun():
        return any(path.read_bytes().count(b"\n") >= 2 for path in out.glob("*/metrics.jsonl"))

    def stop():
        until(begun, "a member at work")
        os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Interrupted, match="holds 0 finished of 2 runs"):
        sweep(table, seeds=2, out=out, scheduler=cluster.address, progress=False)
    stopper.join()
    assert sorted(m.status for m in open_sweep(out).members) == ["interrupted", "not begun"]
    assert worker.poll() is None

    def lose():
        until(lambda: list(out.glob(".running-*")), "the sweep to go on")
        cluster.processes[0].kill()

    loser = threading.Thread(target=lose)
    loser.start()
    with pytest.raises(ConnectionError, match=r"the scheduler at tcp://127.* is gone; finished runs are kept"):
        sweep(table, seeds=2, out=out, scheduler=cluster.address, progress=False)
    loser.join()
    assert not list(out.glob(".running-*"))


def test_a_worker_with_several_threads_is_refused(cluster, tiny, tmp_path):
    from distributed import Client

    cluster.worker(threads=3)
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=SECONDS)
    with pytest.raises(ConfigurationError, match="has 3 threads, expected 1; start workers with --nthreads 1"):
        sweep(tiny(), seeds=1, out=tmp_path / "sweep", scheduler=cluster.address, progress=False)
    assert not (tmp_path / "sweep").exists()
