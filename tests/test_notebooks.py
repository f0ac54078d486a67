"""Notebooks: stored without output, executed in a temporary folder, and their results checked."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import nbformat
import numpy as np
import oracles
import pytest
from nbclient import NotebookClient

from fsp_dynamics.models.rate import Nudge
from fsp_dynamics.solvers.equilibrium import Status

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = tuple(path.stem for path in sorted(FOLDER.glob("*.ipynb")))
MATRICES = ("W1", "W2", "loop")
READ = ("01", "03", "04", "05", "06", "07", "08", "09")  # each has a test below that reads its variables
LINES = 40  # the most a cell may have
WIDTH = 89  # letters of a line of code, for which a page has room
CELL_KEYS = {
    "markdown": {"cell_type", "id", "metadata", "source"},
    "code": {"cell_type", "execution_count", "id", "metadata", "outputs", "source"},
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|mnt|opt|root|srv|tmp|usr|var|work|Users|private)\b|\b[A-Z]:\\|~/")
POINTS_TO = re.compile(r"\]\(([\w./-]+\.ipynb)\)|`((?:docs|figures|tests|fsp_dynamics)/[\w./-]+\.\w+)`")


def stored(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def texts(name, kind):
    return ["".join(cell["source"]) for cell in stored(name)["cells"] if cell["cell_type"] == kind]


def run(name, where, wanted=()):
    """Run a notebook in the folder `where`; {expression: its value at the end} of what is wanted,
    and what was printed.
    """
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    kept = where / "values.pickle"
    listed = ", ".join(f"{expression!r}: {expression}" for expression in wanted)
    book.cells.append(nbformat.v4.new_code_cell(f"import pickle\npickle.dump({{{listed}}}, open({str(kept)!r}, 'wb'))"))
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(where)}}).execute()
    return pickle.loads(kept.read_bytes()), book


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A folder for the kernel of a notebook and its temporary files; no server can be reached."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path


def pictures(book):
    return sum(
        "image/png" in output.get("data", {})
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )


def test_there_are_all_of_them() -> None:
    numbers = [name[:2] for name in NAMES]
    assert set(READ) <= set(numbers)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_the_source_is_stored(name) -> None:
    book = stored(name)
    nbformat.validate(nbformat.from_dict(book))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["metadata"] == METADATA
    for cell in book["cells"]:
        assert set(cell) == CELL_KEYS[cell["cell_type"]]
        assert cell["metadata"] == {}, f"cell {cell['id']} has metadata"
        assert cell.get("outputs", []) == [], f"cell {cell['id']} has outputs; strip them with nbstripout --keep-id"
        assert cell.get("execution_count") is None, (
            f"cell {cell['id']} has been counted; strip it with nbstripout --keep-id"
        )


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_a_title_and_its_cells_are_short(name) -> None:
    first = stored(name)["cells"][0]
    assert first["cell_type"] == "markdown"
    assert re.match(r"# \S", "".join(first["source"]))
    for cell in stored(name)["cells"]:
        source = "".join(cell["source"])
        assert source.strip(), f"cell {cell['id']} is empty"
        assert len(source.splitlines()) <= LINES, (
            f"cell {cell['id']} has {len(source.splitlines())} lines, at most {LINES} are read"
        )


@pytest.mark.parametrize("name", NAMES)
def test_its_code_fits_the_page(name) -> None:
    lines = [line for source in texts(name, "code") for line in source.splitlines()]
    assert [line for line in lines if len(line) > WIDTH] == []
    assert f"line-length = {WIDTH} " in (FOLDER / "ruff.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_it_has_no_absolute_path_and_its_links_exist(name) -> None:
    for source in texts(name, "markdown") + texts(name, "code"):
        assert not ABSOLUTE.search(source), f"{ABSOLUTE.search(source)[0]!r} is a place on one machine"
    found = [pair for source in texts(name, "markdown") for pair in POINTS_TO.findall(source)]
    for book, file in found:
        place = FOLDER / book if book else ROOT / file
        assert place.is_file(), f"{name} points to {book or file}, which is not there"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name[:2] not in READ])
def test_it_runs(name, alone) -> None:
    run(name, alone)


@pytest.mark.slow
def test_01_learns(alone) -> None:
    wanted = [
        "before",
        "after",
        "distance",
        "seen.error",
        "run.metrics",
        "free.converged.all()",
        "cost(network)",
        "cost(learned)",
    ]
    found, book = run("01_quickstart", alone, wanted)
    assert found["free.converged.all()"]
    assert (found["cost(network)"], found["cost(learned)"]) == (found["before"], found["after"])
    assert found["after"] < 0.99 * found["before"]
    assert found["distance"] < 1e-4
    first, *_, last = found["run.metrics"]
    assert found["seen.error"] < 15
    assert last["train_error"] < first["train_error"] / 4
    assert all(last["alignment_degrees"][matrix] < first["alignment_degrees"][matrix] < 90 for matrix in MATRICES)
    assert pictures(book) == 5


@pytest.mark.slow
def test_03_eq_14_by_hand_is_the_library_s_and_the_oracle_s(alone) -> None:
    wanted = [
        "network",
        "images",
        "targets",
        "beta",
        "update",
        "inside",
        "difference",
        "update_difference",
        "closed_difference",
    ]
    found, book = run("03_two_phases", alone, [*wanted, "slopes", "output_slack", "share", "update_by_hand(2, 0)"])
    network, images, targets, beta = (found[name] for name in wanted[:4])
    free = oracles.equilibrium(network, images)
    nudged = oracles.nudged_equilibrium(network, images, free, Nudge(beta, targets))
    exact = oracles.hebbian(network, images, free, nudged, beta)
    assert found["inside"]
    assert found["update_by_hand(2, 0)"] == pytest.approx(exact["loop"], abs=1e-12)
    for name, change in exact.items():
        assert found["update"][name] == pytest.approx(change, abs=1e-12)
    assert max(*found["difference"].values(), *found["update_difference"].values(), found["closed_difference"]) < 1e-12
    assert found["slopes"] == pytest.approx({"one-sided": 1, "centred": 2}, abs=0.05)
    assert found["output_slack"] > 0
    assert found["share"]["forward[1]"] == 0
    assert all(0.3 < found["share"][name] < 0.7 for name in ("forward[0]", "loop"))
    assert pictures(book) == 3


@pytest.mark.slow
def test_04_angles_fall_and_share_one_number(alone) -> None:
    wanted = ["aligned", "flipped", "inner", "measured", "z", "before", "after", "widths"]
    found, book = run("04_alignment", alone, wanted)
    aligned, flipped = found["aligned"], found["flipped"]
    assert list(found["inner"].values()) == pytest.approx([aligned.trace] * 3, rel=1e-12)
    for matrix in MATRICES:
        assert aligned.degrees[matrix] + flipped.degrees[matrix] == pytest.approx(180, abs=1e-9)
        assert found["z"][matrix].std() == pytest.approx(1, abs=0.1)
        assert abs(found["z"][matrix].mean()) < 0.2
        for records in found["measured"].values():
            first, last = records[0], records[-1]
            assert len(records) == 16
            assert last["whole"].degrees[matrix] < first["whole"].degrees[matrix] - 5
            assert last["samples"].mean[matrix] < first["samples"].mean[matrix] < 90
            assert records[1]["whole"].z_score[matrix] > 3
    for n, drawn, turned in zip(found["widths"], found["before"], found["after"], strict=True):
        assert turned.inside["W1"] < 1e-6
        assert turned.degrees["W1"] == pytest.approx(turned.bound["W1"], abs=1e-6)
        assert drawn.bound["W1"] == pytest.approx(np.degrees(np.arccos(10 / n)), abs=1.5)
    assert pictures(book) == 4


@pytest.mark.slow
def test_05_predictions_are_met(alone) -> None:
    wanted = [
        "off",
        "critical",
        "oscillating.status",
        "oscillating.steps",
        "two.count",
        "result.unconverged",
        "limits",
        "euler_formula",
        "grown",
    ]
    found, book = run(
        "05_stability",
        alone,
        [*wanted, "hopf.parameter", "hopf.frequency", "just_beyond[2]", "points[0].frequency", "folds", "jumps"],
    )
    assert np.median(found["off"]) < 0.01
    assert found["off"].max() < 0.2
    assert found["critical"] == pytest.approx([(1 / np.cos(np.pi / n)) ** n for n in range(3, 11)], abs=1e-6)
    assert found["oscillating.status"].tolist() == [Status.OSCILLATES]
    assert found["result.unconverged"] == 5
    assert found["limits"]["euler"] == pytest.approx(found["euler_formula"], rel=1e-9)
    assert found["grown"][0.95] < 0.1 < 10 < found["grown"][1.05]
    assert (found["hopf.parameter"], found["hopf.frequency"]) == pytest.approx((2, np.sqrt(3)), abs=1e-8)
    assert found["just_beyond[2]"] == pytest.approx(found["points[0].frequency"], rel=0.02)
    assert found["two.count"] == 2
    # a step of the sweep
    assert found["jumps"] == pytest.approx([found["folds"][1], found["folds"][0]], abs=0.021)
    assert pictures(book) == 6


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [False, True], ids=("data where they are", "no data"))
@pytest.mark.rare
def test_06_a_resumed_run_has_the_bits_of_an_uninterrupted_one(hidden, alone, monkeypatch) -> None:
    if hidden:
        monkeypatch.delenv("FSP_DATA", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(alone / "cache"))
    wanted = [
        "names",
        "same_bits",
        "same_metrics",
        "done.summary['status']",
        "len(done.metrics)",
        "len(resumed.metrics)",
    ]
    sums = "[percent.sum(1) for percent, *_ in results.values()]"
    found, book = run("06_mnist_fashion", alone, [*wanted, "comparison['configuration']", sums])
    assert found["names"]
    assert not (hidden and "mnist" in found["names"])
    assert found["same_bits"]
    assert found["same_metrics"]
    assert [found[name] for name in wanted[3:6]] == ["interrupted", 2, 3]
    assert found["comparison['configuration']"] == {"learning.frozen": ([], ["loop"])}
    assert np.array(found[sums]) == pytest.approx(100)
    assert pictures(book) == 2


@pytest.mark.slow
def test_07_custom_objects_agree_with_the_library(alone) -> None:
    wanted = [
        "slope_error",
        "curvature_error",
        "distance",
        "by_rule",
        "common",
        "curves",
        "rule_error",
        "learned",
        "solver_error",
        "report.unconverged",
    ]
    found, book = run("07_your_own", alone, wanted)
    assert max(found["slope_error"], found["curvature_error"]) < 1e-8
    assert found["distance"] < 1e-4
    assert found["by_rule"]["mean_subtracted"][-1] < 10 < found["by_rule"]["hebbian"][-1]
    assert found["common"]["hard_sigmoid"] < found["common"]["algebraic"]
    assert all(errors[-1] < 15 for errors in found["curves"].values())
    assert found["rule_error"] < 1e-5
    assert found["learned"]["eq. 14"][-1, 0] < 10
    assert found["learned"]["classical"][-1, 1] > 3 * found["learned"]["eq. 14"][-1, 1]
    assert found["solver_error"] < 1e-3
    assert found["report.unconverged"] == 0
    assert pictures(book) == 3


@pytest.mark.slow
def test_08_layers_learn_apart(alone) -> None:
    found, book = run("08_layer_by_layer", alone, ["errors", "unlocked", "exits", "sizes", "before", "after"])
    assert found["unlocked"] == {"fsp": True, "bp": False}
    assert max(found["errors"]["fsp"], found["errors"]["bp"]) < 6 < found["errors"]["shallow"]
    assert set(found["exits"]) == {"layer1", "layer2", "layer3", "output"}
    assert all(errors[-1] < errors[0] / 2 for errors in found["exits"].values())
    assert found["sizes"] == {"dense": [(8, 8), (4, 4)], "sparse": [(3, 3), (1, 1)]}
    assert (found["after"].argmax(1) == np.arange(10)).all()
    assert not (found["before"].argmax(1) == np.arange(10)).all()
    assert pictures(book) == 3


@pytest.mark.slow
def test_09_no_spike_is_differentiated_and_every_spike_is_counted(alone) -> None:
    wanted = ["currents", "rates", "difference", "drawn", "learned", "differentiated", "errors", "exits", "table"]
    spikes = "{name: int(trace.spikes['layer1'].sum()) for name, trace in traces.items()}"
    own = ["every.spikes", "counts['fsp-surrogate']", "dense", spikes]
    found, book = run("09_spikes", alone, [*wanted, *own])
    periods = np.ceil(1 / found["currents"])
    expected = {"hard reset": 100 // periods, "soft reset": np.minimum(100 * found["currents"] // 1, 100)}
    with np.errstate(invalid="ignore"):  # below a current of 1 - .7 there is no spike
        until = np.ceil(np.log(1 - 0.3 / found["currents"]) / np.log(0.7))
    expected["hard reset, leak .7"] = np.nan_to_num(100 // until)
    assert set(found["rates"]) == set(expected)
    for name, number in expected.items():
        assert (100 * found["rates"][name]).round(9).tolist() == number.tolist()
    assert found[spikes] == {"hard reset": 5, "soft reset": 6, "hard reset, leak .7": 4}

    assert set(found["difference"]) == {"voltage", "surrogate"}
    assert max(found["difference"].values()) < 1e-5
    for name, learned in found["learned"].items():
        assert (learned.argmax(1) == np.arange(10)).all()
        assert not (found["drawn"][name].argmax(1) == np.arange(10)).all()
    none = dict.fromkeys(("layer1", "layer2", "output"), 0)
    assert found["differentiated"] == {"bp": {"output": 2}, "fsp-surrogate": none, "fsp-voltage": none}

    errors, exits = found["errors"], found["exits"]
    assert errors["bp"] < min(errors["fsp-surrogate"], errors["fsp-voltage"])
    assert set(exits) == {"fsp-surrogate", "fsp-voltage"}
    for name, each in exits.items():
        assert list(each) == ["layer1", "layer2", "output"]
        assert each["output"] == errors[name]
        assert max(each.values()) < errors["shallow"]

    assert found["table"]["layer1"][3] == 0 < min(found["table"]["layer1"][[0, 1, 2, 4]])
    count, fired = found["counts['fsp-surrogate']"], found["every.spikes"]
    squares = fired["layer1"].reshape(4, -1, 8, 4, 2, 4, 2).any((4, 6))
    assert count.operations == {"layer1": 200 * squares.sum(), "layer2": 10 * fired["layer2"].sum()}
    for name, each in fired.items():
        assert count.layers[name].per_image == each.sum() / each.shape[1]
        assert count.layers[name].silent == (~each.any((0, 1))).sum()
        assert count.layers[name].saturated == each.all((0, 1)).sum()
    assert (count.multiply_adds, found["dense"]) == (8 * (3 * 8 - 2) ** 2, 8 * 4 * 4 * 200 + 200 * 10)
    assert pictures(book) == 8
