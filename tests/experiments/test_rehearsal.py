"""A training forecast: nothing is written, nothing is accepted that training refuses, and what is
said comes true.
"""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path

import pytest

from fsp_dynamics.cli import main
from fsp_dynamics.errors import CheckpointError, ConfigurationError, DatasetError, RunExistsError
from fsp_dynamics.experiments import rehearsal
from fsp_dynamics.experiments.config_io import load_config, to_toml
from fsp_dynamics.experiments.rehearsal import forecast
from fsp_dynamics.experiments.runner import train

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_nothing_is_written_and_what_is_said_comes_true(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(to_toml(load_config(tiny(probes={"keep": 1}))[1]))
    before = tree(tmp_path)
    found = forecast("own.toml", epochs=2, progress=False)
    assert tree(tmp_path) == before
    assert found.folder == Path("runs") / "own-0"
    assert not (tmp_path / "runs").exists()
    run = train("own.toml", epochs=2, progress=False)
    files = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()} - {".lock"}
    assert {name for name in files if not any(fnmatch.fnmatch(name, pattern) for pattern in found.writes)} == set()
    assert [pattern for pattern in found.writes if not fnmatch.filter(files, pattern)] == []
    size = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
    assert size <= found.disk < found.most_disk
    assert found.parameters == sum(array.size for array in run.network().parameters().values())
    assert (found.finished, found.epochs, found.images) == (0, 2, len(run.data().train.labels))
    assert found.seconds == 2 * (found.learning + found.besides) > 0
    assert found.memory is None or found.memory > 10**7


def test_a_run_that_goes_on_is_forecast_from_where_it_is(tiny, tmp_path):
    train(tiny(), epochs=1, out=tmp_path, progress=False)
    before = tree(tmp_path)
    found = forecast(tmp_path, resume=True, epochs=4, progress=False)
    assert (found.finished, found.epochs) == (1, 3)
    done = forecast(tmp_path, resume=True, epochs=1, progress=False)
    assert (done.epochs, done.seconds) == (0, 0.0)
    assert tree(tmp_path) == before


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A folder with a run, and one whose checkpoint is damaged."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("run", "damaged"):
        train(tiny(), epochs=1, out=folder / name, progress=False)
    for path in (folder / "damaged" / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    return folder


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"source": "mnist-2x50"}, ConfigurationError),
        ({"learning.bta": 1}, ConfigurationError),
        ({"epochs": -1}, ConfigurationError),
        ({"save_minutes": 0}, ConfigurationError),
        ({"threads": 0}, ConfigurationError),
        ({"backend": "tpu"}, ConfigurationError),
        ({"data": "nowhere/at/all"}, DatasetError),
        ({"learning.mirror": 0.1, "learning.frozen": ["loop"]}, ConfigurationError),
        ({"rule": "mine:Rule"}, ConfigurationError),
        ({"out": "run"}, RunExistsError),
        ({"out": "run", "resume": True, "learning.beta": 0.7}, ConfigurationError),
        ({"out": "run", "resume": True, "allow": ["learning.bta"]}, ConfigurationError),
        ({"out": "run", "resume": True, "epochs": 0}, ConfigurationError),
        ({"out": "damaged", "resume": True}, CheckpointError),
    ],
    ids=str,
)
def test_it_refuses_what_training_refuses(tiny, monkeypatch, made, given, error):
    monkeypatch.chdir(made)
    given = {"out": "new", **given}
    source = given.pop("source", tiny())
    with pytest.raises(error) as refused:
        train(source, progress=False, **given)
    before = {path: content for path, content in tree(made).items() if not path.endswith(".lock")}
    with pytest.raises(error) as refused_here:
        forecast(source, progress=False, **given)
    assert str(refused_here.value) == str(refused.value)
    assert {path: content for path, content in tree(made).items() if not path.endswith(".lock")} == before
    assert not (made / "new").exists()


class Slow:
    """A trainer of 1000 images in batches of 10, half a second each."""

    def __init__(self, clock):
        self.clock, self.batches = clock, 0

    def epoch(self, on_batch):
        begin = self.clock.now
        for done in range(10, 1001, 10):
            self.clock.now += 0.5
            self.batches += 1
            on_batch(done, 1000, 50.0)
        return {"seconds": self.clock.now - begin}


class Clock:
    now = 60.0

    def __call__(self):
        return self.now


def test_the_time_is_that_of_some_batches(monkeypatch):
    monkeypatch.setattr(rehearsal, "working_time", clock := Clock())
    trainer = Slow(clock)
    assert rehearsal._learning(trainer, 20) == pytest.approx(50.0)
    assert trainer.batches == 6, "no more than it takes"
    monkeypatch.setattr(rehearsal, "MEASURED", 1000.0)
    assert rehearsal._learning(trainer, 20) == pytest.approx(50.0)
    assert trainer.batches == 6 + 100 * rehearsal.EPOCHS
    assert rehearsal._learning(trainer, 0) == 0.0


def test_the_command_shows_it(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(to_toml(load_config(tiny())[1]))
    assert main(["train", "own.toml", "--dry-run", "--epochs", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["epochs"]) == (str(Path("runs") / "own-0"), 3)
    assert main(["train", "own.toml", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "nothing is written" in shown
    for word in ("parameters", f"{found['parameters']:,}", "memory", "disk", "time", "config.toml"):
        assert word in shown
    assert [each.name for each in tmp_path.iterdir()] == ["own.toml"]
    assert main(["train", "own.toml", "--dry-run", "--learning.bta", "1"]) == 2
    monkeypatch.setattr(rehearsal.ranks, "is_job", lambda: True)
    capsys.readouterr()
    assert main(["train", "own.toml", "--dry-run"]) == 2
    assert "--dry-run" in capsys.readouterr().err
