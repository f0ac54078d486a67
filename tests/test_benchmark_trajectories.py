"""All methods in the benchmark of trajectories solve the same task. No timing; what is not
installed is left out.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # the benchmarks are a package of the source tree, not of the installation

from benchmarks import trajectories
from benchmarks.trajectories import Task, all_methods, measure_one, ours, table


@pytest.fixture
def task():
    return Task.of(30, 3)


def test_all_methods_reach_the_same_states(task):
    exact, _ = ours(task, "sample", 1e-11)()
    for name, method in all_methods(task, 1).items():
        states, fields = method()
        np.testing.assert_allclose(states, exact[: len(states)], atol=2e-5, err_msg=name)
        assert 60 < fields < 300, name


def test_rows_can_be_written_and_printed(monkeypatch):
    monkeypatch.setattr(
        trajectories,
        "all_methods",
        lambda task, threads: {name: ours(task, name[6:]) for name in ("ours, sample", "ours, batch")},
    )
    rows = measure_one(30, 2, threads=1, seconds=600, repeats=3)
    assert [r.solver for r in rows] == ["ours, sample", "ours, batch"]
    assert json.loads(json.dumps([dataclasses.asdict(r) for r in rows]))[0]["repeats"] == 3
    assert all(r.of_ours == 1 and r.error < 1e-4 for r in rows)
    assert table(rows).row_count == 2
