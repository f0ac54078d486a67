"""Event files hold the numbers of every epoch once, also of a run that was resumed."""

from __future__ import annotations

import struct
import sys

import pytest

from fsp_dynamics.cli import main
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.runner import open_run, train
from fsp_dynamics.experiments.tensorboard import TensorBoard, scalars

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")


def events(folder):
    """{(tag, step): value} as TensorBoard understands the files: the start of a session drops what
    was there from its step on.
    """
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="pip install 'fsp_dynamics[tensorboard]'")
    found = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            if event.session_log.status == event_pb2.SessionLog.START:
                found = {key: value for key, value in found.items() if key[1] < event.step}
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


def expected(run):
    return {(tag, record["epoch"]): value for record in run.metrics for tag, value in scalars(record).items()}


def test_events_are_the_records_also_when_the_run_goes_on(tiny, tmp_path):
    pytest.importorskip("tensorboardX", reason="pip install 'fsp_dynamics[tensorboard]'")
    for epochs in (2, 3):
        given = {"out": tmp_path / "run", "resume": True, "progress": False, "threads": 1, "epochs": epochs}
        board = TensorBoard(tmp_path / "events")
        run = train(tiny(), callbacks=[board], **given)
        board.close()
        assert events(tmp_path / "events") == pytest.approx(expected(run))
    assert {tag for tag, _ in expected(run)} >= {"error/test", "angle/loop", "convergence/residual"}


def test_the_command_writes_events(tmp_path):
    pytest.importorskip("tensorboardX", reason="pip install 'fsp_dynamics[tensorboard]'")
    words = ["--data.limit", "60", "--network.hidden", "6", "--learning.rates.forward", "7", "--epochs", "1"]
    given = ["--out", str(tmp_path / "run"), "--tensorboard", str(tmp_path / "events"), "--no-progress"]
    assert main(["train", "digits", *words, *given]) == 0
    assert events(tmp_path / "events") == pytest.approx(expected(open_run(tmp_path / "run")))


def test_without_the_library_nothing_is_begun(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigurationError, match="which is not installed; pip install 'fsp_dynamics"):
        TensorBoard(tmp_path)
    assert main(["train", "digits", "--out", str(tmp_path / "run"), "--tensorboard", str(tmp_path)]) == 2
    assert "tensorboardX" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_left_out():
    assert scalars({"epoch": 1, "test_error": 2, "valid_error": None}) == {"error/test": 2.0}
    assert scalars({"epoch": 1, "alignment_degrees": {"W1": None, "loop": 80.0}}) == {"angle/loop": 80.0}
