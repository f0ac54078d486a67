"""The table of learners is what the runs gave, seed by seed."""

from __future__ import annotations

import shutil

import pytest
from made_runs import made_run, slow_interval

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.learners import making, summaries
from fsp_dynamics.experiments.learners.naming import LEARNED, LEARNERS, learner_of
from fsp_dynamics.experiments.learners.table import cells, columns, flat_rows, learner_rows, notes
from fsp_dynamics.experiments.progress import Output, RunReporter
from fsp_dynamics.experiments.stored import experiment_differences, write_stored

BASE = load_config("digits")[1]
TESTS = {
    "eq. 14, loop learned": [4.0, 4.5, 5.5],
    "eq. 14, loop fixed": [3.5, 4.25, 5.0],
    "backpropagation": [3.0, 2.5],
}


def changes(learner):
    """The keys in which a learner differs from the preset."""
    found = experiment_differences(BASE, making.configuration(BASE, learner))
    return {key: value for key, (_, value) in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("learners")
    for learner, errors in TESTS.items():
        for seed, error in enumerate(errors):
            made_run(root / f"{learner}-{seed}", test=error, seed=seed, **changes(learner))
    made_run(root / "unfinished", status="interrupted", done=3, seed=9)
    return root


@pytest.fixture(scope="module")
def rows(folder):
    return learner_rows(summaries.summaries_of([folder])[0])


def test_a_row_for_each_learner_in_the_order_of_the_list(rows):
    assert [row["learner"] for row in rows] == list(TESTS)
    assert [row["seeds"] for row in rows] == [[0, 1, 2], [0, 1, 2], [0, 1]]


def test_mean_deviation_and_interval_are_those_of_the_seeds(rows):
    for row in rows:
        errors = TESTS[row["learner"]]
        mean, low, high = slow_interval(errors)
        assert row["test_error"] == pytest.approx(mean)
        assert (row["test_error_low"], row["test_error_high"]) == pytest.approx((low, high))
        assert row["valid_error"] == pytest.approx(mean - 0.5)
        assert row["train_error"] == pytest.approx(mean - 1)
    assert rows[1]["test_error_sd"] == pytest.approx(0.75)


def test_differences_to_the_first_row_are_paired_by_seed(rows):
    assert rows[0]["difference"] is None
    mean, low, high = slow_interval([-0.5, -0.25, -0.5])
    assert (rows[1]["difference"], rows[1]["difference_low"], rows[1]["difference_high"]) == pytest.approx(
        (mean, low, high)
    )
    assert (rows[2]["difference"], rows[2]["pairs"]) == (pytest.approx(-1.5), 2)  # of the seeds that both have


def test_the_cells(rows):
    names = columns(rows)
    shown = [cells(row, names) for row in rows]
    assert shown[0]["test"] == "4.67 ± 0.76"
    assert shown[0]["difference"] == "-"
    assert shown[1]["difference"] == "-0.42"
    assert shown[1]["difference 95 %"] == "-0.78 to -0.06"
    assert shown[2]["seeds"] == "2"
    assert shown[0]["angle_loop"] == "60.0"
    assert (shown[0]["epochs"], shown[0]["seconds"]) == ("20", "120")


def test_columns_are_chosen_by_name(rows):
    assert columns(rows, ["test", "test_95", "angles"]) == ["learner", "test", "test 95 %", "angle_W1", "angle_loop"]
    with pytest.raises(ConfigurationError, match="columns = 'tset' is unknown; did you mean 'test'"):
        columns(rows, ["tset"])


def test_what_a_row_has_beside_its_name_is_told(rows, tmp_path):
    assert notes(rows) == []
    made_run(tmp_path / "a")
    made_run(tmp_path / "b", **changes("equilibrium propagation"))
    (only,) = notes(learner_rows(summaries.summaries_of([tmp_path])[0]))
    assert only.startswith("equilibrium propagation also has ")
    assert "learning.beta 0.5 (first row: 1)" in only
    assert "network.kind" not in only
    row = learner_rows(summaries.summaries_of([tmp_path])[0])[1]
    assert notes([row, {**row, "learner": "another"}]) == [
        only.replace("propagation also has", "propagation; another also have")
    ]


def test_two_configurations_of_one_learner_are_two_rows(tmp_path):
    for seed in (0, 1):
        made_run(tmp_path / f"a-{seed}", seed=seed)
    made_run(tmp_path / "b", **{"learning.beta": 0.5})
    found = learner_rows(summaries.summaries_of([tmp_path])[0])
    assert [row["learner"] for row in found] == [LEARNED, f"{LEARNED} (beta 0.5)"]


def test_every_row_of_the_csv_has_the_same_columns(rows):
    found = flat_rows([*rows, {**rows[0], "angles": {}}])
    assert len({tuple(row) for row in found}) == 1
    assert found[0]["seeds"] == "0 1 2"
    assert found[-1]["angle_loop"] is None


def test_data_and_sizes_choose_the_summaries(folder, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(folder, runs)
    made_run(runs / "wide", **{"network.hidden": [120, 120]})
    found, left = summaries.summaries_of([runs])
    assert [path.name for path in left] == ["unfinished"]
    with pytest.raises(ConfigurationError, match=r"several data sets or sizes .*120-120.*give a preset"):
        summaries.only_task(found)
    kept = summaries.of_task(found, summaries.task(BASE))
    assert {learner_of(each.config) for each in kept} == set(TESTS)
    assert summaries.only_task(kept) == summaries.task(BASE)
    with pytest.raises(ConfigurationError, match="no results of mnist, hidden layers 500-500; there are: digits"):
        summaries.of_task(found, summaries.task(load_config("mnist-2x500")[1]))


def test_other_images_under_the_same_name_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "runs")
    made_run(tmp_path / "runs" / "z", more={"data": {"images": "b" * 64}}, **changes("exact gradient"))
    found, _ = summaries.summaries_of([tmp_path / "runs"])
    with pytest.raises(ConfigurationError, match="of different images under one name"):
        summaries.of_task(found, summaries.task(BASE))


def test_stored_summaries_are_read_and_comparisons_of_options_passed_over(folder, tmp_path):
    found, _ = summaries.summaries_of([folder])
    (tmp_path / "learners").mkdir()
    for place, each in enumerate(found):
        write_stored(tmp_path / ("learners" if place else ".") / f"{place}.json", each)
    (tmp_path / "options.json").write_text('{"variants": [], "options": []}')
    read = summaries.read_summaries(tmp_path)
    assert {each.digest for each in read} == {each.digest for each in found}
    with pytest.raises(ConfigurationError, match="come with the sources alone"):
        summaries.read_summaries(tmp_path / "nowhere")


def test_each_learner_is_made_from_a_learned_loop():
    for name in ("digits", "fashion-2x500", "fashion-2x1500"):
        base = load_config(name)[1]
        assert [learner_of(making.configuration(base, learner)) for learner in LEARNERS] == list(LEARNERS)
    mirrored = load_config("fashion-2x1500")[1]
    assert making.configuration(mirrored, "eq. 14, mirror phases").learning.mirror == mirrored.learning.mirror
    with pytest.raises(ConfigurationError, match="the configuration is equilibrium propagation, expected a learned"):
        making.configuration(load_config("mnist-ep-2x500")[1], LEARNED)
    with pytest.raises(ConfigurationError, match="did you mean 'backpropagation'"):
        making.configuration(mirrored, "backprop")


def test_a_preset_with_its_loop_fixed_is_the_learner_made_from_the_other():
    made = making.configuration(load_config("fashion-2x1500")[1], "eq. 14, loop fixed")
    preset = load_config("fashion-2x1500-fixed-loop")[1]
    assert set(experiment_differences(made, preset)) == {"learning.rates.loop"}  # which has no effect
    assert making.is_same(made, preset)
    assert not making.is_same(made, load_config(made, {"learning.beta": 0.5})[1])


def test_only_what_is_missing_is_trained(folder, tmp_path, monkeypatch):
    known, _ = summaries.summaries_of([folder])
    begun = []
    monkeypatch.setattr(making.runner, "run", lambda config, files, *_, **how: begun.append((config, files.path)))
    where = tmp_path / "runs"
    there = changes("exact gradient")
    made_run(where / "mine", **there)
    made_run(where / "stopped", done=3, status="interrupted", seed=1, **there)
    said = []
    found = making.train_missing(BASE, [0, 1, 2], where, known, RunReporter(Output()), report=said.append)
    missing = {(name, seed) for name in ("eq. 14, mirror phases", "equilibrium propagation") for seed in range(3)}
    missing |= {("exact gradient", 1), ("exact gradient", 2), ("backpropagation", 2)}
    assert {(learner_of(config), config.seed) for config, _ in begun} == missing
    assert where / "stopped" in [path for _, path in begun]
    assert len(said) == 9
    assert set(found) == {where / "mine", *(path for _, path in begun)}
