"""What is shown while runs go on: one family of reporters, each writing to one output."""

from __future__ import annotations

import io
import sys
import warnings

import pytest

from fsp_dynamics.experiments.progress import (
    EpochReporter,
    Output,
    RunReporter,
    StderrOutput,
    WarningsOutput,
    run_reporter,
)
from fsp_dynamics.experiments.sweeps.reporter import MemberReporter, SweepReporter, sweep_reporter
from fsp_dynamics.experiments.sweeps.workers import Attempt

RECORD = {"epoch": 3, "train_error": 1.5, "test_error": 2.25, "images_per_second": 900.0}
FAILED = Attempt("failed", "why", ("a note",))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def caught(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in found]


def epoch(reporter):
    reporter.start_epoch(3, 5, 100)
    reporter.batch(50, 100, 10.0)
    reporter.note("look")
    reporter.report("training on torch")
    reporter.end_epoch(RECORD)
    reporter.close()


@pytest.mark.parametrize("screen", [io.StringIO, Terminal])
@pytest.mark.parametrize("bars", [True, False])
def test_an_epoch_is_a_line_and_on_a_terminal_a_bar(monkeypatch, screen, bars):
    shown = screen()
    monkeypatch.setattr(sys, "stderr", shown)
    epoch(RunReporter(StderrOutput(bars)))
    text = shown.getvalue()
    for line in ("note: look", "training on torch", "epoch   3   train  1.50   test  2.25 %   900 img/s"):
        assert line in text
    assert ("epoch 3/5" in text) == ("error 10.00 %" in text) == (bars and screen is Terminal)


def test_in_silence_notes_are_warnings_and_the_listener_receives_records(capsys):
    received = []
    assert caught(lambda: epoch(RunReporter(WarningsOutput(), received.append))) == ["look"]
    assert received == [RECORD]
    assert caught(lambda: epoch(RunReporter(Output()))) == []
    assert capsys.readouterr() == ("", "")


def test_progress_chooses_the_output():
    mine = RunReporter(Output())
    assert run_reporter(mine) is mine
    assert isinstance(run_reporter(True).output, StderrOutput)
    assert isinstance(run_reporter(False).output, WarningsOutput)
    assert run_reporter(print).listener is print
    sweeps = SweepReporter(Output())
    assert sweep_reporter(sweeps) is sweeps
    assert isinstance(sweep_reporter(True).output, StderrOutput)
    assert sweep_reporter(print).listener is print
    assert isinstance(mine, EpochReporter)
    assert isinstance(sweeps, MemberReporter)
    assert not isinstance(mine, MemberReporter)


def test_a_failed_member_is_reported_everywhere_and_its_notes_where_lines_are(capsys):
    received = []
    silent = SweepReporter(WarningsOutput(), received.append, silent=True)
    assert caught(lambda: silent.end_member("seed=1", FAILED)) == ["seed=1 failed again: why"]
    assert received == [{"member": "seed=1", "status": "failed", "reason": "why"}]
    assert caught(lambda: silent.warn("seed=1 is tried once more")) == ["seed=1 is tried once more"]
    lines = SweepReporter(StderrOutput())
    lines.start(2, 0)
    lines.end_member("seed=1", FAILED)
    lines.close()
    shown = capsys.readouterr().err
    assert "note: seed=1: a note" in shown
    assert "1 of 2   seed=1 failed again: why" in shown
