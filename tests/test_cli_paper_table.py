"""`fsp table I` to `V`: the paper's numbers, and beside them what is stored."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from fsp_dynamics.cli import main
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.learners.paper import MEASURED, numbers_of, paper_rows
from fsp_dynamics.experiments.stored import Stored, configuration_of

RESULTS = Path(__file__).parents[1] / "figures" / "results"


@pytest.mark.parametrize("number", ["I", "II", "III", "IV", "V"])
def test_the_tables_of_the_paper_have_its_numbers_and_no_guess(number, capsys):
    """What was not run is None."""
    assert main(["table", number, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert all(row["paper"] > 0 for row in rows)
    for row in rows:
        stored = (RESULTS / f"{row['preset']}.json").is_file() and row["quantity"] in MEASURED
        assert (row["ours"] is not None) == stored, row


@pytest.mark.parametrize(("layers", "means"), [("II", "I"), ("IV", "III")])
def test_the_papers_means_over_layers_are_those_of_its_layers(layers, means):
    whole = {(n.quantity, n.learner): n.paper for n in numbers_of(means) if n.data == "CIFAR-10"}
    for (quantity, learner), paper in whole.items():
        each = [n.paper for n in numbers_of(layers) if (n.quantity, n.learner) == (quantity, learner)]
        if each:
            assert statistics.fmean(each) == pytest.approx(paper, abs=0.015), (quantity, learner)


def test_a_stored_preset_stands_beside_the_papers_number():
    config = load_config("digits")[1]
    seeds = [{"seed": seed, "test_error": error} for seed, error in ((0, 8.0), (1, 9.0))]
    summary = Stored("cifar10-vgg8b-fsp", configuration_of(config), {}, tuple(seeds))
    rows = paper_rows("I", {"cifar10-vgg8b-fsp": summary})
    found = [row for row in rows if row["ours"] is not None and row["quantity"] == "test error (%)"]
    assert [(row["learner"], row["ours"], row["difference"]) for row in found] == [("fsp", 8.5, pytest.approx(0.16))]
    assert found[0]["seeds"] == [0, 1]
