"""A training in several processes, as torchrun starts it: the same bits for any number; one that
dies ends the job; the run goes on from there.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kills import differences
from fsp_dynamics.errors import ConfigurationError, RankLostError
from fsp_dynamics.experiments.jobs import ranks
from fsp_dynamics.experiments.jobs.shared_memory import LINE, SharedMemory, shared_array, shared_file, size_of
from fsp_dynamics.experiments.runner import open_run, train
from fsp_dynamics.kernels.team import posted

torch = pytest.importorskip("torch")

TINY = [
    "digits",
    "--network.hidden",
    "20,16",
    "--learning.rates.forward",
    "30,7",
    "--data.limit",
    "400",
    "--learning.output_step",
    "0.2",
]


def in_processes(test):
    """One job at a time: each has several processes."""
    for mark in (pytest.mark.cli, pytest.mark.slow, pytest.mark.xdist_group("ranks")):
        test = mark(test)
    return test


def torchrun(count, *arguments, module=("-m", "fsp_dynamics"), **options):
    """A started job of so many processes, of the command line or of a script."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(count),
        *module,
        *arguments,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def started(count, *arguments):
    """The ranks of a job, without torchrun, which would end the others when one dies."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sizes = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    common = os.environ | place | sizes | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "fsp_dynamics", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]


def finished(job):
    out, err = job.communicate(timeout=240)
    return job.returncode, out, err


def weights(folder):
    """The bytes of the last network, and what the metrics say but for the time."""
    run = open_run(folder)
    metrics = [
        {key: value for key, value in record.items() if key not in ("seconds", "images_per_second")}
        for record in run.metrics
    ]
    return {name: w.tobytes() for name, w in run.network("last").parameters().items()}, metrics


def train_here(folder, *arguments):
    from fsp_dynamics.cli import main

    assert main(["train", *TINY, *arguments, "--out", str(folder), "--no-progress"]) == 0
    return weights(folder)


@in_processes
@pytest.mark.rare
def test_one_two_and_four_learn_the_same_bits_and_one_of_them_writes(tmp_path, capsys) -> None:
    expected = train_here(tmp_path / "here", "--epochs", "3")
    for count in (1, 2, 4):
        folder = tmp_path / str(count)
        code, out, err = finished(
            torchrun(count, "train", *TINY, "--epochs", "3", "--out", str(folder), "--no-progress")
        )
        assert code == 0, err
        assert weights(folder) == expected
        assert out.count(f"{folder}: finished") == 1
        assert err.count("epoch   3") == 1
        environment = json.loads((folder / "environment.json").read_text())
        assert (environment["processes"], environment["backend"]) == (count, "numba")


SEVERAL = """
import os, sys
from pathlib import Path
import fsp_dynamics as fsp
from fsp_dynamics.errors import FspError

def learn(name, **given):
    run = fsp.train("digits", epochs=2, out=Path(sys.argv[1]) / name, progress=False, **{"data.limit": 100}, **given)
    assert run.summary["status"] == "finished"

for seed in (0, 1):
    learn(f"seed-{seed}", seed=seed)
learn("torch", backend="torch", device="cpu")
try:
    learn("seed-0")
except FspError as error:
    (Path(sys.argv[1]) / f"refused-{os.environ['RANK']}").write_text(str(error))
"""


@in_processes
def test_several_trainings_in_one_job_of_two(tmp_path) -> None:
    """Compiled, with two seeds: the bits of one process without torchrun. On torch: its results to
    rounding, for there batches are cut into fixed shards. A folder that holds a run already is
    refused by the first process, and the other one knows.
    """
    (tmp_path / "several.py").write_text(SEVERAL)
    job = torchrun(2, str(tmp_path / "several.py"), str(tmp_path), module=())
    code, _, err = finished(job)
    assert code == 0, err
    for name, backend in (("seed-0", "numba"), ("seed-1", "numba"), ("torch", "torch")):
        given = {"seed": int(name[-1])} if backend == "numba" else {"backend": "torch", "device": "cpu"}
        alone = train(
            "digits", epochs=2, out=tmp_path / f"{name}-alone", progress=False, **{"data.limit": 100}, **given
        )
        environment = json.loads((tmp_path / name / "environment.json").read_text())
        assert environment["processes"] == 2
        if backend == "numba":
            assert weights(tmp_path / name) == weights(alone.folder)
        else:
            assert environment["backend"].endswith("on cpu, full products, batches in 4 shards")
            pairs = zip(
                open_run(tmp_path / name).network("last").parameters().values(),
                alone.network("last").parameters().values(),
                strict=True,
            )
            assert all(np.abs(one - other).max() < 1e-2 for one, other in pairs)
    assert "already holds a run" in (tmp_path / "refused-0").read_text()
    assert "another process of this job was refused" in (tmp_path / "refused-1").read_text()


def test_a_process_prints_results_unless_it_is_a_later_one_of_a_job(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "1")
    assert ranks.is_first(), "a RANK of another program"
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert not ranks.is_first()
    monkeypatch.setenv("RANK", "0")
    assert ranks.is_first()


@in_processes
@pytest.mark.rare
def test_torch_too_learns_the_same_bits_in_one_and_in_two(tmp_path) -> None:
    """Its batches are cut into fixed shards, so a job of one is not a process without torchrun, to
    rounding.
    """
    given = [*TINY, "--epochs", "2", "--no-progress", "--backend", "torch", "--device", "cpu"]
    jobs = {count: torchrun(count, "train", *given, "--out", str(tmp_path / str(count))) for count in (1, 2)}
    for count, job in jobs.items():
        code, _, err = finished(job)
        assert code == 0, err
        environment = json.loads((tmp_path / str(count) / "environment.json").read_text())
        assert environment["processes"] == count
        assert environment["backend"].endswith("on cpu, full products, batches in 4 shards")
    assert weights(tmp_path / "1") == weights(tmp_path / "2")


@in_processes
@pytest.mark.rare
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_job_and_the_run_goes_on_to_the_same_bits(victim, tmp_path, capsys) -> None:
    folder, metrics = tmp_path / "killed", tmp_path / "killed" / "metrics.jsonl"
    long = ["--epochs", "400", "--out", str(folder), "--no-progress"]
    job = torchrun(2, "train", *TINY, *long)
    try:
        wait_for(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") >= 2, job)
        os.kill(process_of(job.pid, victim), signal.SIGKILL)
        begin = time.monotonic()
        code, _, err = finished(job)
    finally:
        job.kill()
    assert code != 0
    assert time.monotonic() - begin < 60
    if victim == 1:
        assert re.search(r"fsp: .*(is gone|stopped by a signal).* in epoch \d+; .*resume with --resume", err), err
        assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    done = len(open_run(folder).metrics)
    code, _, err = finished(
        torchrun(2, "train", *TINY, "--epochs", str(done + 2), "--out", str(folder), "--resume", "--no-progress")
    )
    assert code == 0, err
    assert weights(folder) == train_here(tmp_path / "unbroken", "--epochs", str(done + 2))


@in_processes
@pytest.mark.rare
def test_a_signal_stops_all_of_them_after_saving(tmp_path) -> None:
    folder = tmp_path / "stopped"
    job = torchrun(2, "train", *TINY, "--epochs", "100000", "--out", str(folder), "--no-progress")
    wait_for(lambda: (folder / "metrics.jsonl").is_file() and (folder / "metrics.jsonl").stat().st_size > 0, job)
    os.kill(process_of(job.pid, 1), signal.SIGTERM)
    code, _, err = finished(job)
    assert code != 0
    assert "stopped by a signal in epoch" in err
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"


LEFT = """
import os, signal, sys
import fsp_dynamics as fsp
from fsp_dynamics.experiments.session import Session
from fsp_dynamics.experiments.stopping import Interrupted
from fsp_dynamics.training import loop_engine

out, kind, stop = sys.argv[1:]
loop_engine.CHUNK = loop_engine.TRIAL = 20
real = Session._on_batch

def on_batch(self, done, total, error):
    if stop == "stop" and os.environ["RANK"] == "1" and (self.trainer.finished, done) == (1, 200):
        for number in (signal.SIGTERM, signal.SIGTERM):  # as torchrun and the terminal send it
            os.kill(os.getpid(), number)
    real(self, done, total, error)

Session._on_batch = on_batch
given = {"data.limit": 400, "learning.momentum": 0.5, "learning.phases": "random-sign", "learning.beta": 0.3}
if kind == "reciprocal":
    given |= {"network.kind": "reciprocal", "network.loop_scale": None, "learning.rates.loop": 0.0}
if kind == "torch":
    from fsp_dynamics.torch_backend import engine
    engine.CHUNK = 20
    given |= {"backend": "torch", "device": "cpu"}
minutes = 1e-9 if stop == "save" else 5
try:
    fsp.train("digits", out=out, epochs=3, progress=False, resume=True, save_minutes=minutes, **given)
except Interrupted as stopped:
    print(stopped, file=sys.stderr)
    sys.exit(128 + stopped.signum)
"""


def whole_alone(folder):
    """That run in this process, never left."""
    given = {"data.limit": 400, "learning.momentum": 0.5, "learning.phases": "random-sign", "learning.beta": 0.3}
    return train("digits", out=folder, epochs=3, progress=False, **given).folder


@in_processes
@pytest.mark.rare
@pytest.mark.parametrize("kind", ["loop", "reciprocal", "torch"])
def test_a_job_that_is_left_within_an_epoch_goes_on_there_to_the_same_folder(kind, tmp_path) -> None:
    """A signal reaches one of the processes, twice: all leave at the same batch, after the first
    has saved.
    """
    script, cut = tmp_path / "left.py", tmp_path / "cut"
    script.write_text(LEFT)

    def job(folder, what):
        return finished(torchrun(2, str(folder), kind, what, module=(str(script),)))

    code, _, err = job(cut, "stop")
    assert code != 0
    assert "exitcode  : 143" in err, err
    assert re.search(r"stopped by a signal in epoch 2; .* the 1 finished epochs and a part of the next", err), err
    assert (cut / "checkpoints" / "unfinished.json").is_file()
    for folder, what in ((cut, "go on"), (tmp_path / "often", "save")):
        code, _, err = job(folder, what)
        assert code == 0, err
    assert differences(tmp_path / "often", cut) == []
    if kind == "loop":
        assert weights(cut) == weights(whole_alone(tmp_path / "whole"))


@in_processes
@pytest.mark.rare
def test_what_does_not_share_its_work_is_refused_in_a_job(tmp_path) -> None:
    code, out, err = finished(torchrun(2, "runs", str(tmp_path)))
    assert code != 0
    assert out == ""
    assert "fsp: fsp runs in a job of 2 processes; only fsp train runs in several, start this one alone" in err
    code, _, err = finished(torchrun(1, "runs", str(tmp_path)))
    assert code == 0, err


def wait_for(condition, job) -> None:
    end = time.monotonic() + 180
    while not condition():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def process_of(parent, rank):
    """The process number of a rank of the job that torchrun, `parent`, has started."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status, variables = (entry / "status").read_text(), (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"PPid:\t{parent}\n" in status and b"RANK=%d" % rank in variables:
            return int(entry.name)
    raise AssertionError(f"no rank {rank} below {parent}")


def mailboxes(count, room=256):
    with shared_file(size_of(count, room)) as path:
        return [SharedMemory(path, rank, count, room) for rank in range(count)]


def test_every_rank_receives_all_messages_in_order() -> None:
    """Twenty messages of other sizes and kinds, one after the other, by threads that each have
    mapped the memory for themselves.
    """
    count, received = 3, [[] for _ in range(3)]
    boxes = mailboxes(count)

    def one(rank):
        for turn in range(20):
            own = np.full((turn % 5, 2), 100 * turn + rank, np.float32 if turn % 2 else np.int64)
            received[rank].append(boxes[rank].gather(own))

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for messages in received:
        assert len(messages) == 20
        for turn, arrays in enumerate(messages):
            for rank, each in enumerate(arrays):
                assert (each.shape, each.dtype) == ((turn % 5, 2), np.float32 if turn % 2 else np.int64)
                assert (each == 100 * turn + rank).all()


def test_a_process_that_is_gone_is_noticed() -> None:
    box, _ = mailboxes(2)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    box.processes[1] = gone.pid
    with pytest.raises(RankLostError, match="rank 1 of 2 is gone"):
        box.gather(np.zeros(3))


def test_a_message_sent_before_the_end_is_received() -> None:
    one, other = mailboxes(2)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    other.processes[1] = gone.pid
    thread = threading.Thread(target=lambda: other.gather(np.arange(3)))
    thread.start()
    while not posted(one.counters, LINE, 1, 1):
        time.sleep(0.001)
    assert [each.tolist() for each in one.gather(np.zeros(3, np.int64))] == [[0, 0, 0], [0, 1, 2]]
    thread.join()


def test_memory_outlives_its_file() -> None:
    with shared_file(64) as path:
        one, other = shared_array(path, (4, 2), np.float64), shared_array(path, (4, 2), np.float64)
    one[2, 1] = 7.0
    assert other[2, 1] == 7.0
    assert not path.exists()


def test_a_usual_process_is_alone(monkeypatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    found = ranks.job()
    assert (found.rank, found.count, found.shards, found.sharers) == (0, 1, 1, (0, 1))
    assert ranks.largest(found, 15) == 15


def test_processes_that_cannot_connect_are_refused(monkeypatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "PATIENCE", ranks.timedelta(seconds=1))
    with pytest.raises(ConfigurationError, match="cannot connect"):
        ranks.job()


def test_a_rank_that_is_lost_ends_a_run_with_what_it_has(tiny, tmp_path, monkeypatch) -> None:
    """In this process: the other one is only pretended."""
    asked = []

    def largest(those, value):
        asked.append(value)
        if len(asked) > 3:
            raise RankLostError("another process of this job is gone (seen by rank 0 of 2)")
        return value

    monkeypatch.setattr(ranks, "largest", largest)
    with pytest.raises(
        RankLostError, match=r"gone \(seen by rank 0 of 2\) in epoch \d+; .* finished epochs, resume with resume=True"
    ):
        train(tiny(), out=tmp_path / "run", progress=False)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
