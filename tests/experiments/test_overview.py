"""Tables tell what is in the folders, and one bad folder does not hide the others."""

from __future__ import annotations

import pytest
from made_runs import made_run

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments.overview import compare_runs, describe, differing, list_runs, listed_runs
from fsp_dynamics.experiments.runner import train

pytestmark = pytest.mark.filterwarnings("ignore:epoch .* output")


@pytest.fixture
def runs(tiny, tmp_path):
    made = {
        "a": train(tiny(), out=tmp_path / "a", progress=False, epochs=2),
        "b": train(tiny(learning={"batch": 10}), out=tmp_path / "deep" / "b", progress=False, epochs=1),
    }
    return tmp_path, made


def test_every_run_below_a_folder_is_listed_with_its_best_epoch(runs):
    folder, made = runs
    found = list_runs(folder)
    assert [record["run"] for record in found] == [str(folder / "a"), str(folder / "deep" / "b")]
    best = made["a"].summary["best"]
    assert (found[0]["best_epoch"], found[0]["test_error"]) == (best["epoch"], best["test_error"])
    assert (found[0]["status"], found[0]["epochs"], found[0]["hidden"], found[0]["seed"]) == ("finished", 2, [12], 0)
    assert list_runs(folder / "a") == found[:1]


def test_a_bad_run_is_listed_with_its_problem_and_foreign_files_are_not(runs):
    folder, _ = runs
    (folder / "a" / "config.toml").write_text("seed = ")
    (folder / "mine").mkdir()
    (folder / "mine" / "config.toml").write_text("colour = 'red'")
    found = list_runs(folder)
    assert [record["status"] for record in found] == ["unreadable", "finished"]
    assert "not valid TOML" in found[0]["problem"]


def test_two_runs_are_compared_by_what_differs_and_what_came_out(runs):
    folder, made = runs
    found = compare_runs(folder / "a", folder / "deep" / "b")
    assert found["configuration"] == {"learning.batch": (20, 10), "learning.epochs": (2, 1)}
    assert found["outcome"]["test_error"] == tuple(run.summary["best"]["test_error"] for run in made.values())
    assert found["outcome"]["angle_loop"][0] == made["a"].summary["best"]["alignment_degrees"]["loop"]
    assert compare_runs(folder / "a", folder / "a")["configuration"] == {}


def test_any_number_of_runs_is_compared_in_their_order(tmp_path):
    folders = [
        made_run(tmp_path / "a"),
        made_run(tmp_path / "b", test=3.0, seed=1),
        made_run(tmp_path / "c", test=2.0, **{"learning.mirror": 0.05, "learning.epochs": 4}),
    ]
    found = compare_runs(*folders)
    assert found["configuration"] == {
        "seed": (0, 1, 0),
        "learning.mirror": (0.0, 0.0, 0.05),
        "learning.epochs": (20, 20, 4),
    }
    assert found["outcome"]["test_error"] == (4.0, 3.0, 2.0)
    assert found["outcome"]["learner"] == ("eq. 14, loop learned",) * 2 + ("eq. 14, mirror phases",)
    assert found["outcome"]["angle_loop"] == (60.0,) * 3
    for too_few in ((), (folders[0],)):
        with pytest.raises(ConfigurationError, match="give two or more"):
            compare_runs(*too_few)


def test_what_differs_is_told_for_every_run_but_what_has_a_column_of_its_own(tmp_path):
    made_run(tmp_path / "a")
    made_run(tmp_path / "b", "mnist-2x500", seed=3)
    (made_run(tmp_path / "c") / "config.toml").write_text("seed = ")
    found = listed_runs(tmp_path)
    keys = differing([each.config for each in found])
    assert keys["learning.output_step"] == [0.2, 0.3, None]
    assert not {"seed", "data.name", "network.hidden", "learning.beta"} & keys.keys()
    assert differing([found[0].config] * 2) == {}


def test_no_folder_and_no_run_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="is no folder"):
        list_runs(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="holds no run"):
        describe(tmp_path)
    assert list_runs(tmp_path) == []
