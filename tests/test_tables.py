"""A table holds whole numbers at any width: what does not fit is left out and named."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsp_dynamics import tables
from fsp_dynamics.tables.layout import blocks, laid, left_out, shortened

NUMBERS = st.one_of(
    st.floats(0, 100).map(lambda x: f"{x:.2f}"),
    st.integers(0, 10**9).map(str),
    st.tuples(st.floats(0, 9), st.floats(0, 9)).map(lambda pair: f"{pair[0]:.2f} to {pair[1]:.2f}"),
    st.just("-"),
)
WORDS = st.text("abcdefgh,", min_size=1, max_size=14)
TEXTS = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)


@st.composite
def tables_of_rows(draw):
    """Rows with a name first, then columns of numbers and of text."""
    kinds = draw(st.lists(st.sampled_from([NUMBERS, TEXTS]), min_size=1, max_size=12))
    columns = [f"column_{place}" for place in range(len(kinds))]
    count = draw(st.integers(1, 5))
    return [
        {"run": draw(WORDS), **{key: draw(kind) for key, kind in zip(columns, kinds, strict=True)}}
        for _ in range(count)
    ]


def numbers_of(rows, kept):
    return sorted(number for row in rows for key in kept for number in re.findall(r"\d[\d.]*", row[key]))


@settings(max_examples=40, deadline=None)
@given(tables_of_rows(), st.integers(30, 220), st.booleans())
def test_no_number_is_broken_and_no_line_is_too_long(rows, width, wrap):
    found = laid(rows, width, wrap=wrap)
    kept = [key for key in rows[0] if key not in found.left_out]
    assert all(len(line) <= width for line in (*found.head, found.rule, *found.body))
    assert kept[0] == "run"
    assert sorted(re.findall(r"(?<!_)\b\d[\d.]*", "\n".join(found.body))) == numbers_of(rows, kept)
    if not wrap:
        assert len(found.body) == len(rows)


@settings(max_examples=40, deadline=None)
@given(tables_of_rows(), st.integers(60, 200))
def test_a_table_that_goes_on_below_leaves_nothing_out(rows, width):
    parts = blocks(rows, width)
    assert [key for part in parts for key in part[0] if key != "run"] == [key for key in rows[0] if key != "run"]
    for part in parts:
        found = laid(part, width)
        assert found.left_out == ()
        assert all(len(line) <= width for line in (*found.head, *found.body))


def test_columns_go_in_the_order_asked_for_and_a_narrow_one_stays_where_a_wide_one_went():
    row = {"run": "a", "wide": "x" * 30, "n": "7", "error": "1.25"}
    assert laid([row], 20, expendable=("n", "wide"), wrap=False).left_out == ("wide",)
    assert laid([row], 8, expendable=("error", "n", "wide"), wrap=False).left_out == ("wide", "error")
    assert laid([row], None).left_out == ()
    assert laid([row], 3, wrap=False).left_out == ("wide", "n", "error")


def test_numbers_end_below_each_other_and_words_begin_so():
    found = laid([{"run": "a", "error": "1.25", "what": "b"}, {"run": "bcd", "error": "12.50", "what": "cd"}], None)
    assert found.body == ["a     1.25  b", "bcd  12.50  cd"]


def test_text_is_wrapped_between_words_and_in_paths():
    rows = [{"name": "digits", "where": "/usr/share/data/of/many/folders", "what": "small digits of eight by eight"}]
    found = laid(rows, 44)
    assert found.left_out == ()
    assert "".join(line[8:24].strip() for line in found.body) == rows[0]["where"]
    assert [word for line in found.body for word in line[24:].split()] == rows[0]["what"].split()


def test_the_note_of_what_is_left_out_is_one_line():
    names = ["seconds", "epochs", "status"]
    assert left_out(names, None) == "no room for seconds, epochs, status; see --json"
    for width in (32, 40, 50):
        assert len(left_out(names, width)) <= width


def test_a_name_makes_way_in_its_middle():
    assert shortened("beta=0.5-rate=20-seed=0", 12) == "beta=0…eed=0"
    assert shortened("short", 12) == "short"
    found = laid([{"run": "a" * 50, "error": "1.25"}], 20, wrap=False)
    assert len(found.body[0]) <= 20
    assert found.body[0].startswith("aaa")  # and stays, whatever its width


def test_an_interval_is_one_number():
    rows = [{"what": "a text of many words " * 3, "interval": "12.66 to 13.34", "sd": "13.00 ± 0.14"}]
    found = laid(rows, 48)
    assert found.left_out == ()
    assert len(found.body) > 1
    assert "12.66 to 13.34" in found.body[0]
    assert "13.00 ± 0.14" in found.body[0]
    assert laid(rows, 40).left_out == ("sd",)


@pytest.mark.parametrize("room", [80, 100, 200, None])
def test_a_printed_table_fits(monkeypatch, capsys, room):
    monkeypatch.setattr(tables, "width", lambda: room)
    rows = [{"run": f"run-{k}", **{f"quantity_{q}": f"{k}.{q:02d}" for q in range(20)}} for k in range(3)]
    tables.print_table("many runs in a folder " * 6, rows, one_line=True)
    shown = capsys.readouterr().out.splitlines()
    assert room is None or max(map(len, shown)) <= room
    assert any(line.startswith("no room for") for line in shown) is (room is not None)
    assert sum(line.startswith("run-") for line in shown) == 3
    tables.print_table("continued", rows, continued=True)
    assert capsys.readouterr().out.count("2.19") == 1


def test_where_stdout_is_no_terminal_a_line_has_no_end(capsys):
    assert tables.width() is None


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_an_epoch_is_one_line_with_its_angles_in_columns(width):
    record = {"epoch": 12, "train_error": 5, "valid_error": 3.954, "test_error": 4.34, "unconverged": 0}
    record |= {"alignment_degrees": {"W1": 85.88, "W2": None, "loop": 64.18}, "dead_outputs": []}
    rows = [{"": which, **tables.outcome(each)} for which, each in (("best", record), ("last", None))]
    found = laid(rows, width)
    assert [line.split()[0] for line in found.body] == ["best", "last"]
    assert rows[0]["angle_loop"] == "64.2"
    assert rows[0]["angle_W2"] == "-"
    assert rows[0]["test_error"] == "4.34"
    assert {"epoch", "test_error", "dead_outputs"} <= set(rows[1])
