"""README.md, docs/section-v.md and the notes of the presets show what is stored in figures/results,
and that was made with the presets as they are; the script that writes them stores what it is given
and nothing else.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from made_runs import made_run, slow_interval

from fsp_dynamics.experiments import config_io
from fsp_dynamics.experiments.config import format_differences
from fsp_dynamics.experiments.config_io import load_config, presets
from fsp_dynamics.experiments.paired import read_comparisons
from fsp_dynamics.experiments.stored import Stored, experiment_differences, extended, finished_runs, write_stored

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "figures"))
import section_v
import section_v_tables as tables

KEPT = sorted(path for path in section_v.RESULTS.glob("*.json") if path.name != section_v.OPTIONS)


def stale(results: dict[str, Stored]) -> list[str]:
    """What differs between a stored configuration and its preset, a line for each."""
    found = {name: experiment_differences(load_config(name)[1], stored.config) for name, stored in results.items()}
    return [f"{name}: {format_differences(differing)}" for name, differing in found.items() if differing]


# What is committed


def test_stored_results_are_those_of_the_presets_as_they_are():
    """A preset that was changed has no results until it is run again."""
    assert stale(section_v.read_results()) == []


@pytest.mark.parametrize("page", section_v.BLOCKS)
def test_the_pages_show_what_is_stored(page):
    """Otherwise: python figures/section_v.py table --write"""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert section_v.with_parts(text, section_v.BLOCKS[page], section_v.parts(), page) == text


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_the_notes_of_a_preset_are_what_is_stored(path):
    stored = section_v.read_results()[path.stem]
    found = load_config(path.stem)[1].notes
    assert {key: getattr(found, key) for key in tables.notes(stored)} == tables.notes(stored)
    assert stored.as_record() == json.loads(path.read_text(encoding="utf-8")), "its command and digests are today's"


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+|-?\d+", cell)]


def check_row(cells: list[str], content: dict) -> None:
    """The cells of a row of numbers are the means of the file's seeds, computed slowly."""
    test = [seed["test_error"] for seed in content["seeds"]]
    shown = numbers(cells[2])
    assert shown[-1] == len(test)
    if len(test) > 1:
        assert shown[:3] == pytest.approx(slow_interval(test), abs=0.0051)
    else:
        assert shown[:1] == pytest.approx(test, abs=0.0051)
    for cell, key in ((cells[3], "valid_error"), (cells[4], "last_train_error")):
        ours = [seed[key] for seed in content["seeds"]]
        assert numbers(cell)[0] == pytest.approx(sum(ours) / len(ours), abs=0.0051)
    ordered = sorted(seed["minutes"] for seed in content["seeds"])
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    assert float(cells[5]) == pytest.approx(middle, rel=0.051)


def rows_of(table: str) -> dict[str, list[str]]:
    """{preset: cells} of a table of numbers, by the command of the row."""
    lines = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("|")][2:]
    return {line[-1].split("fsp sweep ")[1].split()[0]: [cell.strip() for cell in line] for line in lines}


def test_the_readme_s_numbers_are_means_of_the_stored_seeds():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- numbers: end -->")[0]
    table = table.partition("<!-- numbers: written")[2]
    cells = rows_of(table)
    assert set(cells) == set(presets("rate"))
    for preset, row in cells.items():
        path = section_v.RESULTS / f"{preset}.json"
        if path.is_file():
            check_row(row, json.loads(path.read_text(encoding="utf-8")))
        else:
            assert row[2] == tables.NOT_RUN
            assert row[5] == ""


def test_every_preset_has_a_row_and_the_paper_s_numbers_are_in_its_notes():
    assert sorted(row.preset for row in tables.rows()) == presets("rate")
    for row in tables.ROWS:
        paper = load_config(row.preset)[1].notes.paper
        assert all(number in paper for number in row.paper), row.preset


def test_the_notebook_s_presets_have_the_paper_s_numbers():
    cells = json.loads((ROOT / "notebooks" / "06_mnist_fashion.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells)
    shown = re.findall(r"^\| (.+) \| `([\w-]+)` \| (.+) \|$", text, re.MULTILINE)
    assert len(shown) >= 4
    assert set(shown) <= {(row.what, row.preset, row.paper[0]) for row in tables.ROWS}


def test_the_commands_of_the_page_are_commands():
    text = (ROOT / "docs" / "section-v.md").read_text(encoding="utf-8")
    lines = re.findall(r"^python figures/section_v\.py (.+)$", text, re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        section_v.command_line().parse_args(shlex.split(line))


# With few results and with all


def invented(tmp_path: Path, name: str, seeds: int) -> Stored:
    """A summary of that preset with as many seeds."""
    runs = [made_run(tmp_path / f"{name}-{seed}", name, seed, test=4.0 + 0.3 * seed**2) for seed in range(seeds)]
    return extended(None, name, finished_runs(runs)[0])[0]


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_tables_of_no_some_and_all_results(tmp_path, seeds):
    assert tables.numbers_table({}).count(tables.NOT_RUN) == len(presets("rate"))
    assert tables.seeds_table({}) == "*Not yet run.*"
    assert not re.search(r"\d\.\d+ %, \d+ seed", tables.numbers_table({})), "no number is invented"
    found = {name: invented(tmp_path, name, seeds) for name in presets("rate")}
    for count in (1, 3, len(found)):
        some = dict(list(found.items())[:count])
        shown = rows_of(tables.numbers_table(some))
        assert sum(row[2] == tables.NOT_RUN for row in shown.values()) == len(presets("rate")) - count
        for name, stored in some.items():
            check_row(shown[name], stored.as_record())
            assert f"`{stored.command}`" == shown[name][-1]
        lines = tables.seeds_table(some).splitlines()
        assert len(lines) == 2 + count * seeds
    assert tables.machines(found["digits"]) == "Some CPU, 2 cores, 2 threads"


def test_averages_and_stuck_units_are_shown_where_there_are_some(tmp_path):
    assert "averaging" not in tables.seeds_table({"digits": invented(tmp_path, "digits", 1)})
    fields = {"raw_test_error": 7.25, "stuck_units": {"hidden1": [3, 0], "hidden2": [4, 9]}}
    runs = finished_runs([made_run(tmp_path / "a", seed=4, last=fields), made_run(tmp_path / "b", seed=5)])[0]
    head, _, first, second = tables.seeds_table({"digits": extended(None, "digits", runs)[0]}).splitlines()
    cells = [dict(zip(head.split(" | "), line.split(" | "), strict=True)) for line in (first, second)]
    assert [cell["without averaging"] for cell in cells] == ["7.25 %", ""]
    assert [cell["stuck at 0, at 1"] for cell in cells] == ["7, 9", ""]
    assert cells[0]["dead outputs"] == "1"
    assert cells[0]["unconverged"] == "40, 20"
    assert cells[0]["angles at the end"] == "W1 60°, loop 60°"


def test_a_preset_that_was_changed_is_named_with_its_key(own_presets, tmp_path):
    found = {"digits": invented(tmp_path, "digits", 1)}
    assert stale(found) == []
    path = own_presets / "digits.toml"
    path.write_text(path.read_text().replace("beta = 1.0", "beta = 0.75"))
    assert stale(found) == ["digits: learning.beta was 0.75, now 1.0"]


# The script


@pytest.fixture
def own_presets(tmp_path, monkeypatch):
    """The folder of the presets, a copy that a test may change."""
    folder = tmp_path / "presets"
    shutil.copytree(config_io.PRESETS, folder)
    monkeypatch.setattr(config_io, "PRESETS", folder)
    return folder


@pytest.fixture
def script(tmp_path, capsys):
    """script("collect", FOLDER) -> (exit code, stdout, stderr); results are in tmp_path/results."""

    def run(*words):
        code = section_v.main(["--results", str(tmp_path / "results"), *map(str, words)])
        return (code, *capsys.readouterr())

    return run


def test_runs_are_collected_and_shown(script, tmp_path):
    for seed in (0, 1):
        made_run(tmp_path / "sweep" / f"seed={seed}", seed=seed, test=4.0 + seed)
    made_run(tmp_path / "sweep" / "seed=2", seed=2, done=3)
    single = made_run(tmp_path / "single", "mnist-2x500", 4)
    code, out, _ = script("collect", tmp_path / "sweep", single)
    assert code == 0
    assert [line.partition("results/")[2] or line for line in out.splitlines()] == [
        "digits.json: seeds 0, 1",
        "mnist-2x500.json: seeds 4",
        f"left out: {tmp_path / 'sweep' / 'seed=2'} is not finished (epoch 3 of 20)",
    ]
    code, out, _ = script("table")
    assert code == 0
    assert "4.50 % (-1.85 to 10.85), 2 seeds" in out
    assert "| 4.00 %, 1 seed |" in out
    assert "`fsp sweep mnist-2x500 --seeds 4,`" in out


def test_what_does_not_belong_is_refused_and_nothing_is_stored(script, tmp_path, own_presets):
    good, bad = made_run(tmp_path / "good"), made_run(tmp_path / "bad", seed=1, **{"learning.beta": 0.5})
    code, _, err = script("collect", good, bad)
    assert code == 2
    assert "bad is no run of a preset; the nearest, digits: learning.beta was 1.0, now 0.5; leave it out" in err
    assert not (tmp_path / "results").exists()
    assert script("collect", good)[0] == 0
    path = own_presets / "digits.toml"
    path.write_text(path.read_text().replace("beta = 1.0", "beta = 0.5"))
    before = (tmp_path / "results" / "digits.json").read_bytes()
    code, _, err = script("collect", bad)
    assert code == 2
    assert "holds results of another configuration: learning.beta was 1.0, now 0.5" in err
    assert "; begin it anew with these runs (--replace)" in err
    assert (tmp_path / "results" / "digits.json").read_bytes() == before
    code, out, _ = script("collect", bad, "--replace")
    assert (code, out.endswith("digits.json: seeds 1\n")) == (0, True)


def test_an_option_is_collected_beside_its_baseline(script, tmp_path):
    for seed in range(3):
        made_run(tmp_path / "base" / str(seed), seed=seed, test=4.0)
        made_run(tmp_path / "weak" / str(seed), seed=seed, test=3.0 + seed, **{"learning.beta": 0.5})
        made_run(tmp_path / "short" / str(seed), seed=seed, test=9.0, epochs=3)
        made_run(tmp_path / "both" / str(seed), seed=seed, test=8.0, epochs=3, **{"learning.beta": 0.5})
    code, _, err = script("collect", tmp_path / "weak", "--option", "weak")
    assert code == 2
    assert "digits.json is missing, the baseline of option 'weak'; collect that preset first" in err
    assert script("collect", tmp_path / "base")[0] == 0
    code, out, _ = script("collect", tmp_path / "weak", "--option", "weak")
    assert (code, out.partition("results/")[2]) == (
        0,
        "options.json: weak, `learning.beta` 1 → 0.5, pairs of seeds 0, 1, 2\n",
    )
    words = ("--option", "weak and short", "--baseline", tmp_path / "short")
    assert script("collect", tmp_path / "both", *words)[0] == 0
    assert script("collect", tmp_path / "base", "--baseline", tmp_path / "short")[0] == 2
    shown = tables.options_table(read_comparisons(tmp_path / "results" / "options.json")).splitlines()
    assert len(shown) == 4
    cells = shown[2].split(" | ")
    low, mean, high = (slow_interval([-1.0, 0.0, 1.0])[place] for place in (1, 0, 2))
    assert cells[3:6] == ["4.00 %", "4.00 %", f"{mean:+.2f} ({low:+.2f} to {high:+.2f}), 3 pairs"]
    assert cells[-1] == "`fsp sweep digits --learning.beta 0.5 --seeds 3` |"
    assert shown[3].split(" | ")[5] == "-1.00 (-1.00 to -1.00), 3 pairs"
    assert shown[3].split(" | ")[-1] == "`fsp sweep digits --learning.beta 0.5 --learning.epochs 3 --seeds 3` |"


def test_tables_are_written_between_their_marks(script, tmp_path, own_presets, monkeypatch):
    for page in section_v.BLOCKS:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    monkeypatch.setattr(section_v, "ROOT", tmp_path)
    assert script("collect", made_run(tmp_path / "run", "mnist-3x1500", 0, test=2.5))[0] == 0
    write_stored(tmp_path / "results" / "digits.json", invented(tmp_path, "digits", 3))
    code, out, _ = script("table", "--write")
    assert code == 0
    written = [Path(line) for line in out.splitlines()]
    assert {path.name for path in written} == {"README.md", "section-v.md", "mnist-3x1500.toml", "digits.toml"}
    assert "| 2.50 %, 1 seed | 2.00 % (paper: 1.76-1.80 %) |" in (tmp_path / "README.md").read_text()
    now, before = (folder / "mnist-3x1500.toml" for folder in (own_presets, ROOT / "fsp_dynamics/experiments/presets"))
    assert now.read_text().startswith(before.read_text().partition("measured =")[0]), "nothing else is changed"
    found = load_config("mnist-3x1500")[1]
    assert found.differences(load_config(before)[1]) == {}
    assert found.notes.measured == (
        "test 2.50 %, validation 2.00 % at the best epoch of 60; training 1.00 % at the end; seed 0"
    )
    assert (found.notes.minutes, found.notes.machine) == (6.0, "Some CPU, 2 cores, 2 threads")
    assert script("table", "--write") == (0, "\n", ""), "once is enough"


@pytest.mark.parametrize("change", [("<!-- seeds: end -->", ""), ("<!-- seeds: end -->", "<!-- seeds: end --> " * 2)])
def test_a_page_without_its_marks_is_refused(script, change):
    text = (ROOT / "docs/section-v.md").read_text(encoding="utf-8").replace(*change)
    with pytest.raises(ValueError, match=r"page: expected <!-- seeds: written by .* and after it <!-- seeds: end -->"):
        section_v.with_parts(text, ("numbers", "seeds"), section_v.parts(), "page")


def test_only_the_last_table_of_a_preset_is_written():
    text = '[data]\nmeasured = "a"\n\n[notes]\npaper = "b"\nmeasured = "old"\n'
    written = section_v.with_notes(text, {"measured": 'new "\\1"', "minutes": 2.0}, "x")
    assert written == '[data]\nmeasured = "a"\n\n[notes]\npaper = "b"\nmeasured = "new \\"\\\\1\\""\nminutes = 2.0\n'
    with pytest.raises(ValueError, match=r"x: expected \[notes\] as the last table"):
        section_v.with_notes(text + "[more]\n", {}, "x")


def test_a_file_of_no_preset_is_refused(script, tmp_path):
    stored = invented(tmp_path, "digits", 1)
    (tmp_path / "results").mkdir()
    write_stored(tmp_path / "results" / "mnist-2x500.json", stored)
    code, _, err = script("table")
    assert (code, "mnist-2x500.json is of no preset" in err) == (2, True)
