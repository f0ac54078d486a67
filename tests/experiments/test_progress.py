"""What is shown while runs go on: one family of reporters, each writing to one output."""

from __future__ import annotations

import warnings

import pytest
from test_screen import Terminal

from fsp_dynamics import streams
from fsp_dynamics.experiments.progress import (
    EpochReporter,
    Output,
    RunReporter,
    StderrOutput,
    WarningsOutput,
    in_charge,
    run_reporter,
)
from fsp_dynamics.experiments.sweeps.reporter import MemberReporter, SweepReporter, sweep_reporter
from fsp_dynamics.experiments.sweeps.workers import Attempt
from fsp_dynamics.screen import QUIET, manner, screen

RECORD = {"epoch": 3, "train_error": 1.5, "test_error": 2.25, "images_per_second": 900.0}
FAILED = Attempt("failed", "why", ("a note",))


def caught(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in found]


def epoch(reporter):
    reporter.start_epoch(3, 5, 100)
    reporter.batch(50, 100, 10.0)
    reporter.note("look")
    reporter.stage("evaluating the test images")
    reporter.report("training on torch")
    reporter.end_epoch(RECORD)
    reporter.close()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.delenv(QUIET)
    monkeypatch.setenv("TERM", "xterm")
    shown = Terminal()
    monkeypatch.setattr(streams, "stderr", lambda: shown)
    return shown


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("bars", [True, False])
def test_an_epoch_is_a_line_and_on_a_terminal_there_are_bars(terminal, monkeypatch, is_terminal, bars):
    monkeypatch.setattr(terminal, "isatty", lambda: is_terminal)
    epoch(RunReporter(StderrOutput(bars)))
    assert terminal.seen.lines == [
        "note: look",
        "training on torch",
        "epoch   3   train  1.50   test  2.25 %   900 img/s",
    ], "bars leave nothing"
    moved = {line for lines in terminal.history for line in lines} - set(terminal.seen.lines)
    for text in ("epoch 3/5", "run ", "error 10.00 %", " 50 %", "evaluating the test images"):
        assert any(text in line for line in moved) == (bars and is_terminal), text


def test_from_the_first_batch_to_the_end_the_screen_is_never_empty_nor_stands_at_the_end_of_an_epoch(terminal):
    reporter = RunReporter(StderrOutput())
    for number in (1, 2):
        reporter.start_epoch(number, 2, 100)
        for done in (50, 100):
            reporter.batch(done, 100, 10.0)
            screen().draw()
        for what in ("evaluating the validation images", "saving"):
            reporter.stage(what)
            screen().draw()
            run, now = terminal.seen.lines[-2:]
            assert "run" in run
            assert f"epoch {number}/2  {what}" in now
        reporter.end_epoch({**RECORD, "epoch": number, "seconds": 1.0})
        screen().draw()
        assert "left" in terminal.seen.lines[-2], "the time left of the whole run"
    assert all(lines for lines in terminal.history)
    reporter.close()
    assert [line.split()[1] for line in terminal.seen.lines] == ["1", "2"]


def test_what_else_lasts_is_shown_as_progress_asks(terminal):
    for asked, how in ((True, "rows"), (False, "nothing"), (print, "nothing")):
        with in_charge(run_reporter(asked)):
            assert manner() == how
    with in_charge(RunReporter(StderrOutput(bars=False))):
        assert manner() == "lines"
        with in_charge(RunReporter(Output())):
            assert manner() == "lines", "a member of a sweep is shown by the sweep"
    with in_charge(object()):
        assert manner() == "nothing", "somebody else's reporter has the screen"
    assert manner() == "rows"


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


def test_a_sweep_has_a_bar(terminal):
    sweeps = SweepReporter(StderrOutput())
    sweeps.start(4, 1)
    assert "25 %   1 of 4 runs" in terminal.seen.lines[-1]
    sweeps.end_member("seed=1", Attempt("finished"))
    screen().draw()
    assert "50 %   2 of 4 runs" in terminal.seen.lines[-1]
    sweeps.close()
    assert terminal.seen.lines == ["1 of 4 runs are finished already", "2 of 4   seed=1   0.0 s"]
