"""Figure 1 of the paper: every cell is what one step of the learner shows."""

from __future__ import annotations

import csv
import io
import json

import pytest
from figure1_measures import declared, forward_locked, measured

from fsp_dynamics import tables
from fsp_dynamics.cli import main
from fsp_dynamics.layerwise.learners import figure1, learner_class
from fsp_dynamics.layerwise.names import LEARNERS
from fsp_dynamics.layerwise.properties import FOOTNOTES, PROPERTIES

ROWS = ("bp", "fa", "dfa", "dtp", "efp", "ll-bp", "ll-fa", "sg", "fsp")
# As printed, row by row; footnotes left out, LL twice.
PAPER = """
forward_locked   global global global global global local  local  local  none
backward_locked  global global none   global global local  local  none   none
backprop_error   yes    no     no     no     no     yes    yes    yes    no
backprop_target  no     no     no     yes    no     no     no     no     no
direct_error     no     no     yes    no     no     no     no     no     no
forprop_error    no     no     no     no     yes    no     no     no     no
forprop_target   no     no     no     no     no     no     no     no     yes
direct_target    no     no     no     no     no     yes    yes    yes    no
local_loss       no     no     no     yes    no     yes    yes    no     yes
global_signal    yes    yes    yes    yes    yes    no     no     no     yes
"""
OTHERWISE = {("ll-fa", "backprop_error")}  # its auxiliary networks learn by feedback alignment


@pytest.mark.parametrize("key", PROPERTIES)
@pytest.mark.parametrize("name", ROWS)
def test_a_cell_is_what_the_learner_does(name, key):
    assert measured(name)[key] == getattr(declared(name), key)


@pytest.mark.parametrize("name", [name for name in ROWS if not learner_class(name).only_units])
def test_the_row_is_the_same_in_a_network_with_convolutions(name):
    assert measured(name, "maps") == {key: getattr(declared(name), key) for key in PROPERTIES}


def test_the_table_is_that_of_the_paper_but_for_what_feedback_alignment_replaces():
    read = {"yes": True, "no": False}
    for line in PAPER.split("\n")[1:-1]:
        key, *values = line.split()
        for name, value in zip(ROWS, values, strict=True):
            expected = read.get(value, value)
            assert (getattr(declared(name), key) == expected) is ((name, key) not in OTHERWISE), (name, key)


def test_targets_that_listen_to_the_output_lock_forward_signal_propagation():
    """Figure 1 has it without; the measurement sees the forward pass that such targets need."""
    assert forward_locked("fsp", generator="target-loop") == "global"
    assert forward_locked("fsp", generator="target-input") == "none"  # it needs the first layer, which has run


def test_every_learner_of_hidden_layers_has_its_row_in_the_order_of_the_figure():
    assert set(figure1()) == set(LEARNERS) - {"shallow"} == set(ROWS)
    letters = [row.figure for row in figure1().values()]
    assert letters == sorted(letters)
    assert {mark for row in figure1().values() for _, mark in row.marks} == set(FOOTNOTES)


def table(capsys, *options):
    assert main(["table", "figure1", *options]) == 0
    return capsys.readouterr()


def test_markdown_latex_csv_and_json_agree(capsys):
    found = json.loads(table(capsys, "--json").out)
    assert found == json.loads(table(capsys, "--format", "json").out)
    assert [row["learner"] for row in found["rows"]] == list(figure1())
    markdown = table(capsys, "--format", "markdown").out.splitlines()
    latex = table(capsys, "--format", "latex").out
    listed = list(csv.DictReader(io.StringIO(table(capsys, "--format", "csv").out)))
    for row, line, plain in zip(found["rows"], markdown[2:], listed, strict=False):
        shown = [
            (value if isinstance(value, str) else "yes" if value else "no") + row["marks"].get(key, "")
            for key in PROPERTIES
            for value in [row[key]]
        ]
        assert [cell.strip() for cell in line.split("|")[3:-1]] == shown
        assert list(plain.values())[2:] == shown
        written = [cell.replace("†", r"$^\dagger$").replace("°", r"$^\circ$") for cell in shown]
        assert " & ".join(written) in latex
    assert all(mark in "\n".join(found["notes"]) and f"\n{mark} " in "\n".join(markdown) for mark in FOOTNOTES)


@pytest.mark.parametrize("width", [60, 80, 200, None])
def test_on_a_terminal_no_column_is_left_out(monkeypatch, capsys, width):
    monkeypatch.setattr(tables, "width", lambda: width)
    found = table(capsys)
    assert width is None or max(map(len, found.out.splitlines())) <= width
    words = " ".join(PROPERTIES).replace("_", " ").split()
    assert all(found.out.count(word) >= words.count(word) for word in words)
    assert all(f"note: {mark} " in found.err for mark in FOOTNOTES)
