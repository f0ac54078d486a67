"""`fsp table learners` prints the same numbers in every format, and README's table is its."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest
from made_runs import made_run

from fsp_dynamics import tables
from fsp_dynamics.cli import main
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.learners import making, summaries
from fsp_dynamics.experiments.learners.naming import LEARNERS
from fsp_dynamics.experiments.stored import experiment_differences
from fsp_dynamics.tables.formats import escaped, latex, markdown

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "figures"))
import learners as script


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every learner of digits with three seeds."""
    root = tmp_path_factory.mktemp("learners")
    base = load_config("digits")[1]
    for place, learner in enumerate(LEARNERS):
        found = experiment_differences(base, making.configuration(base, learner))
        for seed in range(3):
            changes = {key: value for key, (_, value) in found.items()}
            made_run(root / f"{place}-{seed}", seed=seed, test=9.0 - place + seed / 4, **changes)
    return root


def table(capsys, *options):
    assert main(["table", "learners", *map(str, options)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [60, 80, 100, 200, None])
def test_on_a_terminal_every_learner_is_one_line(monkeypatch, capsys, folder, width):
    monkeypatch.setattr(tables, "width", lambda: width)
    lines = table(capsys, "--runs", folder).splitlines()
    assert width is None or max(map(len, lines)) <= width
    for place, learner in enumerate(LEARNERS):
        (line,) = [line for line in lines if line.startswith(learner)]
        assert f"{9.25 - place:.2f} ± 0.25" in line
    assert any(line.startswith("no room for") for line in lines) is (width is not None and width < 200)


def test_markdown_latex_csv_and_json_agree(capsys, folder):
    found = json.loads(table(capsys, "--runs", folder, "--json"))
    assert found == json.loads(table(capsys, "--runs", folder, "--format", "json"))
    assert found["task"]["network.hidden"] == [100, 100]
    rows = list(csv.DictReader(io.StringIO(table(capsys, "--runs", folder, "--format", "csv"))))
    pipes = table(capsys, "--runs", folder, "--format", "markdown").splitlines()
    body = table(capsys, "--runs", folder, "--format", "latex").splitlines()
    for record, row in zip(found["rows"], rows, strict=True):
        assert row["learner"] == record["learner"]
        for key in ("test_error", "test_error_sd", "test_error_low", "difference", "seconds"):
            assert (float(row[key]) if row[key] else None) == record[key]
        (pipe,) = [line for line in pipes if line.startswith(f"| {record['learner']} |")]
        (cells,) = [line for line in body if line.strip().startswith(f"{record['learner']} &")]
        mean = f"{record['test_error']:.2f}"
        assert f"| {mean} ± {record['test_error_sd']:.2f} |" in pipe
        assert f"& {mean} $\\pm$ {record['test_error_sd']:.2f} &" in cells
    assert [row["seeds"] for row in rows] == ["0 1 2"] * len(LEARNERS)


def test_the_latex_is_a_table_that_a_parser_understands(capsys, folder):
    walker = pytest.importorskip("pylatexenc.latexwalker")
    text = table(capsys, "--runs", folder, "--format", "latex", "--columns", "test,test_95,difference,angles")
    nodes, _, length = walker.LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    assert length == len(text)
    (environment,) = [node for node in nodes if node.isNodeType(walker.LatexEnvironmentNode)]
    assert environment.environmentname == "table"
    (tabular,) = [node for node in environment.nodelist if node.isNodeType(walker.LatexEnvironmentNode)]
    assert tabular.environmentname == "tabular"
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", tabular.latex_verbatim())
    macros = [node.macroname for node in tabular.nodelist if node.isNodeType(walker.LatexMacroNode)]
    assert [name for name in macros if name.endswith("rule")] == ["toprule", "midrule", "bottomrule"]
    plain = "".join(node.latex_verbatim() for node in tabular.nodelist)
    lines = [line for line in plain.splitlines() if line.strip().endswith(r"\\")]
    assert len(lines) == 1 + len(LEARNERS)
    assert {line.count(" & ") for line in lines} == {len(columns) - 1}
    assert columns == "l" + "r" * 5


def test_what_latex_and_markdown_cannot_hold_as_it_is():
    odd = "50 % of W_1 & a{b} #1 $x ~ y^2 < \\z"
    assert escaped(odd) == (
        r"50 \% of W\_1 \& a\{b\} \#1 \$x \textasciitilde{} y\textasciicircum{}2 \textless{} \textbackslash{}z"
    )
    assert escaped("-0.42 to -0.10, loop-learned, -") == "$-$0.42 to $-$0.10, loop-learned, -"
    walker = pytest.importorskip("pylatexenc.latexwalker")
    text = latex([{"what": odd, "test": "-1.00"}], odd, "tab:x", [odd])
    assert walker.LatexWalker(text, tolerant_parsing=False).get_latex_nodes()[2] == len(text)
    assert markdown([{"a|b": "c|d"}]) == "| a\\|b |\n| :-- |\n| c\\|d |"


def test_the_stored_summaries_are_the_default_and_a_preset_chooses(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(summaries, "RESULTS", tmp_path / "results")
    assert main(["table", "learners"]) == 2
    assert "come with the sources alone" in capsys.readouterr().err
    lines = script.collect([folder], tmp_path / "results")
    assert sum("seeds 0, 1, 2" in line for line in lines) == 5
    assert sum("is of preset digits" in line for line in lines) == 3  # the loop learned, of three seeds
    names = [path.name for path in (tmp_path / "results" / "learners").iterdir()]
    assert "digits-100-100-equilibrium-propagation.json" in names
    shown = table(capsys, "--preset", "digits")
    assert [name for name in LEARNERS if name in shown] == list(LEARNERS[1:])
    assert main(["table", "learners", "--preset", "mnist-2x500"]) == 2
    assert "there are: digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", "3"], ["epochs", "--train"]),
        (["--preset", "digts"], ["did you mean 'digits'"]),
        (["--runs", "nowhere"], ["nowhere is no folder"]),
        (["--columns", "tset"], ["did you mean 'test'"]),
        (["--format", "html"], ["--format"]),
        (["--train", "--runs", "a", "b"], ["--runs names 2"]),
        (["--train", "--preset", "mnist-ep-2x500"], ["expected a learned loop"]),
        (["--train", "--seeds", "x"], ["seeds = 'x'"]),
    ],
)
def test_what_cannot_be_printed_is_refused(capsys, options, words):
    assert main(["table", "learners", *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    for word in words:
        assert word in shown.err


@pytest.mark.slow
@pytest.mark.rare
def test_what_is_missing_is_trained_and_found_again(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(summaries, "RESULTS", tmp_path / "none")
    small = ["--preset", "digits", "--data.limit", "60", "--network.hidden", "5", "--learning.rates.forward", "7"]
    arguments = ["table", "learners", "--train", "--seeds", "0", "--epochs", "1", "--no-progress", *small]
    assert main([*arguments, "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("training: ") == len(LEARNERS)
    assert [row["learner"] for row in json.loads(shown.out)["rows"]] == list(LEARNERS)
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"learners-digits-[0-9a-f]{8}", folder.name)
    assert main([*arguments, "--json"]) == 0
    assert "training" not in capsys.readouterr().err


def test_a_learner_of_another_configuration_is_not_stored_over_the_first(folder, tmp_path):
    script.collect([folder], tmp_path)
    base = load_config("digits")[1]
    found = experiment_differences(base, making.configuration(base, "backpropagation"))
    changes = {key: value for key, (_, value) in found.items()}
    made_run(tmp_path / "other" / "a", **{**changes, "learning.batch": 10})
    with pytest.raises(script.ConfigurationError, match=r"learning.batch was 20, now 10; begin it anew"):
        script.collect([tmp_path / "other"], tmp_path)
    script.collect([tmp_path / "other"], tmp_path, replacing=True)


@pytest.mark.parametrize("page", script.PAGES)
def test_the_tables_of_a_page_are_printed_by_the_commands_that_stand_there(page, capsys):
    for arguments, shown in script.blocks((ROOT / page).read_text(encoding="utf-8")):
        assert arguments[:2] == ["table", "learners"]
        assert shown == table(capsys, *arguments[2:]).strip()


def test_that_readme_test_can_fail(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    ((arguments, shown),) = script.blocks(text)
    number = re.search(r"\d+\.\d\d ±", shown)[0]
    assert script.blocks(text.replace(number, "0.01 ±"))[0][1] != table(capsys, *arguments[2:]).strip()
