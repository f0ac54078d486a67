"""probes.jsonl: what is in it and when, that it follows the run through stops and resumes, and
that looking changes nothing.
"""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from fsp_dynamics.analysis.alignment import loop_alignment
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import runner, session
from fsp_dynamics.experiments.config_io import load_config
from fsp_dynamics.experiments.folder import RunFolder
from fsp_dynamics.experiments.rate import trainer as rate_trainer
from fsp_dynamics.experiments.runner import open_run, train

WHOLE = {"epoch", "converged", "alignment", "samples", "gradient", "stability"}


def quietly(table, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(table, progress=False, **options)


def probes(folder):
    return RunFolder(folder).probes()


def test_before_the_first_epoch_after_each_and_within(tiny, tmp_path) -> None:
    """120 images in batches of 20: 6 batches, so at two thirds and at the third in between for
    every second batch.
    """
    run = quietly(tiny(probes={"every": 2, "samples": 30}), out=tmp_path)
    found = probes(tmp_path)
    thirds = [epoch + part / 3 for epoch in range(3) for part in range(3)]
    assert [record["epoch"] for record in found] == pytest.approx([*thirds, 3.0])
    for record in found:
        whole = record["epoch"] == int(record["epoch"])
        assert set(record) == (WHOLE if whole else {"epoch", "alignment"})
        assert whole == ("samples" in record)
    assert found[-1]["alignment"]["degrees"] == pytest.approx(loop_alignment(run.network("last")).degrees, abs=1e-9)
    assert [record["alignment"]["degrees"] for record in found[3::3]] == [
        record["alignment_degrees"] for record in run.metrics
    ]
    assert run.metrics[-1]["loop_norm"] == found[-1]["stability"]["loop_norm"]
    angles = np.array([list(record["alignment"]["degrees"].values()) for record in found])
    assert (np.abs(np.diff(angles, axis=0)) > 0).all()  # no record is a copy of its neighbour


def test_looking_changes_nothing(tiny, tmp_path) -> None:
    looked = quietly(tiny(probes={"every": 1, "samples": 50}), out=tmp_path / "looked")
    blind = quietly(tiny(probes={"samples": 0}), out=tmp_path / "blind")
    for name, w in looked.network("last").parameters().items():
        assert w.tobytes() == blind.network("last").parameters()[name].tobytes(), name
    assert [set(record) for record in probes(tmp_path / "blind")] == [{"epoch", "alignment"}] * 4
    assert load_config(tmp_path / "looked")[1].differences(load_config(tmp_path / "blind")[1]) == {}


def test_a_resumed_run_has_the_records_of_an_unbroken_one(tiny, tmp_path, monkeypatch, killed) -> None:
    """Killed after the records were written and before the checkpoint was: the epoch is looked at
    once more, and stands there once.
    """
    table = tiny(probes={"every": 3, "samples": 20})
    quietly(table, out=tmp_path / "whole")
    killed(2)
    with pytest.raises(KeyboardInterrupt):
        quietly(table, out=tmp_path / "cut")
    assert probes(tmp_path / "cut")[-1]["epoch"] == 2
    monkeypatch.undo()
    quietly(table, out=tmp_path / "cut", resume=True)
    assert probes(tmp_path / "cut") == probes(tmp_path / "whole")


def test_a_reciprocal_network_has_no_angles_but_a_gradient(tiny, tmp_path) -> None:
    table = tiny(network={"kind": "reciprocal"}, learning={"rates": {"loop": 0.0}}, probes={"every": 2, "samples": 20})
    del table["network"]["loop_scale"]
    quietly(table, out=tmp_path, epochs=1)
    assert [set(record) for record in probes(tmp_path)] == [{"epoch", "converged", "gradient"}] * 2


def test_the_first_images_of_the_first_part_that_has_any_are_looked_at(tiny, tmp_path) -> None:
    quietly(tiny(data={"validation": 0}, probes={"samples": 25}), out=tmp_path, epochs=1)
    assert probes(tmp_path)[0]["converged"] == 25


def test_a_loop_near_one_is_flagged(tiny, tmp_path) -> None:
    strong = tiny(network={"loop_scale": 1.5}, learning={"rates": {"input": 0.1, "forward": [0.1], "loop": 0.0}})
    with pytest.warns(
        UserWarning, match=r"epoch 1: up to \d\.\d\d of a small change of the outputs comes back round the loop"
    ) as caught:
        train(strong, out=tmp_path, progress=False, epochs=2)
    assert all(record["loop_norm_max"] > 0.9 for record in open_run(tmp_path).metrics)
    assert len([each for each in caught if "comes back round the loop" in str(each.message)]) == 1


def test_pictures_are_drawn_while_it_runs_and_cost_little(tiny, tmp_path, monkeypatch) -> None:
    """Every epoch where drawing is quick beside it; left out where it would take more than a
    twentieth of the time.
    """
    clock, drawn = [0.0], []
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])

    def draw(self, path=None):
        drawn.append(len(self.metrics))
        clock[0] += cost

    monkeypatch.setattr(runner.Run, "plot", draw)
    real = rate_trainer.train_epoch

    def epoch(*args, **more):
        clock[0] += 10.0
        return real(*args, **more)

    monkeypatch.setattr(rate_trainer, "train_epoch", epoch)
    cost = 0.4
    quietly(tiny(), out=tmp_path / "quick", epochs=4)
    assert drawn == [1, 2, 3, 4, 4]
    drawn.clear()
    cost = 1.2
    quietly(tiny(), out=tmp_path / "slow", epochs=4)
    assert drawn == [1, 4, 4]


def test_a_damaged_file_is_named(tiny, tmp_path) -> None:
    quietly(tiny(), out=tmp_path, epochs=1)
    (tmp_path / "probes.jsonl").write_text(json.dumps({"epoch": 0}) + "\nnonsense\n")
    with pytest.raises(ValueError, match=r"probes\.jsonl:2 is no record"):
        probes(tmp_path)


def test_the_probes_of_a_run_are_records_and_a_table(tiny, tmp_path) -> None:
    run = quietly(tiny(probes={"every": 3, "samples": 10}), out=tmp_path, epochs=2)
    assert run.probes == probes(tmp_path)
    frame = run.to_frame("probes")
    assert frame["epoch"].tolist() == [0, 0.5, 1, 1.5, 2]
    assert frame["alignment.degrees.loop"].tolist() == [r["alignment"]["degrees"]["loop"] for r in run.probes]
    assert frame["stability.loop_norm"].isna().tolist() == [False, True, False, True, False]
    assert frame.attrs["units"]["alignment.degrees.loop"] == "degrees"
    with pytest.raises(ConfigurationError, match="did you mean 'probes'"):
        run.to_frame("prob")
